//! Signals: HUP, INT and TERM all mean a clean stop; the second warns, the third ends the process at once.

use crate::error::{Error, Result};
use async_signal::{Signal, Signals};
use futures::StreamExt;

/// Signals that were asked for before anything else was started, so that none is missed.
pub struct Stop {
    signals: Signals,
}

impl Stop {
    /// Starts catching.
    ///
    /// # Errors
    /// The system refuses signal handlers.
    pub fn catch() -> Result<Stop> {
        let signals = Signals::new([Signal::Hup, Signal::Int, Signal::Term])
            .map_err(|e| Error::from_io("cannot catch signals", &e))?;
        Ok(Stop { signals })
    }

    /// Waits for the first.
    pub async fn wait(&mut self) -> String {
        match self.signals.next().await {
            Some(Ok(signal)) => format!("{signal:?}"),
            _ => "the end of signals".into(),
        }
    }

    /// While the daemon stops: a second signal warns, a third ends the process.
    pub async fn insist(mut self) {
        self.wait().await;
        log::warn!(target: "service", "stopping already; one more signal ends the process without a clean stop");
        self.wait().await;
        log::error!(target: "service", "ended by a third signal");
        std::process::exit(1);
    }
}
