//! sd_notify: tells systemd what the daemon is doing. Without `$NOTIFY_SOCKET` everything here does nothing.
//!
//! The protocol is `sd_notify(3)`: datagrams of `KEY=value` lines to a Unix socket.
//!
//! A start or a stop may take long for good reasons: a large log on a slow card, an upgrade of the data, others that are
//! not there yet. Whoever does such a thing holds a [`Stage`], which asks systemd for more time as long as it is held, up
//! to the stage's own limit: a card that died must not keep a unit "starting" for ever.

use crate::runtime;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// More time that a stage asks for, counted from the moment of asking.
const MORE: Duration = Duration::from_secs(30);
/// How often it asks: a lost message must not matter, nor a board that is too busy to ask in time.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Whether somebody listens.
pub(super) fn is_heard() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Sends one message; a failure is only logged, for the daemon works without systemd.
pub(super) fn notify(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let path = path.to_string_lossy().into_owned();
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent =
        address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address));
    if let Err(error) = sent {
        log::debug!(target: "service", "systemd was not told \"{message}\": {error}");
    }
}

/// How often the watchdog must be fed: half of what `$WATCHDOG_USEC` says, for this process.
pub(super) fn watchdog_interval() -> Option<Duration> {
    let for_us = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (for_us && micros > 0).then(|| Duration::from_micros(micros / 2))
}

/// Something that may take long before the peer is ready, or after it was told to stop. Drop it when it is done.
pub(super) struct Stage(#[allow(dead_code)] Option<smol::Task<()>>);

impl Stage {
    /// Shows `what` as the unit's status, and asks for time for as long as this is held, `limit` at most.
    pub(super) fn begin(what: &str, limit: Duration) -> Stage {
        if !is_heard() {
            return Stage(None);
        }
        notify(&format!("STATUS={what}\n{}", more_time()));
        let until = Instant::now() + limit;
        Stage(Some(runtime::spawn(async move {
            while Instant::now() + ASK_AGAIN < until {
                runtime::sleep(ASK_AGAIN).await;
                notify(&more_time());
            }
        })))
    }
}

fn more_time() -> String {
    format!("EXTEND_TIMEOUT_USEC={}", MORE.as_micros())
}
