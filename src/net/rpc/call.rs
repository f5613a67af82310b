//! One call, seen from either end.

use super::frame::{Channel, Frame, WireError};
use super::{IDLE_LIMIT, PROTOCOL};
use crate::error::{Error, Result};
use crate::net::sentences;
use crate::runtime::Timer;
use bytes::Bytes;
use libp2p::PeerId;
use parking_lot::Mutex;
use serde::{de::DeserializeOwned, Serialize};
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Gathered output that is sent without waiting for a flush.
const FLUSH_AT: usize = 64 << 10;
/// How long a failed sender looks for the reason that the far end may have sent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Which end of the call this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Caller,
    Callee,
}

/// The channel under its lock. Only one task uses it, so the lock is never waited for; it exists because the
/// handler and the watcher of its stream both look at the channel.
pub(super) type SharedChannel = Arc<Mutex<Channel>>;

/// One call, seen from either end.
///
/// Sent values are gathered and leave when 64 KiB have come together, when this end receives or finishes, when
/// the handler returns, or on [`Call::flush`]. A caller that drops its call cancels it: it must receive until the
/// end (`None`) if it cares about the outcome. A handler's future is dropped at its next await when the caller
/// gives up.
pub struct Call {
    peer: PeerId,
    method: String,
    end: End,
    channel: SharedChannel,
    idle: Duration,
    /// This end has sent its end mark.
    finished: bool,
    /// How the far end finished.
    outcome: Option<Result<()>>,
}

impl Call {
    pub(super) fn new(peer: PeerId, method: String, end: End, channel: SharedChannel) -> Call {
        Call { peer, method, end, channel, idle: IDLE_LIMIT, finished: false, outcome: None }
    }

    /// The other end.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Changes the idle limit of this call: no frame for this long ends it.
    pub fn set_idle(&mut self, limit: Duration) {
        self.idle = limit;
    }

    /// Sends a value as one frame, waiting for the other end to keep up (bounded by the idle timeout).
    pub async fn send<T: Serialize + Sync>(&mut self, value: &T) -> Result<()> {
        self.may_send()?;
        if self.must_flush() {
            self.flush().await?;
        }
        self.push(|channel| channel.push_value(value))?;
        self.flush_if_full().await
    }

    /// Sends raw bytes as one frame; a large body is not copied.
    pub async fn send_bytes(&mut self, bytes: Bytes) -> Result<()> {
        self.may_send()?;
        if self.must_flush() {
            self.flush().await?;
        }
        self.push(|channel| channel.push_bytes(bytes))?;
        self.flush_if_full().await
    }

    /// Sends what was gathered.
    pub async fn flush(&mut self) -> Result<()> {
        let channel = self.channel.clone();
        let flushed = self.within_idle("sending to", |cx| channel.lock().poll_flush(cx)).await?;
        match flushed {
            Ok(()) => Ok(()),
            Err(error) => Err(self.reason(error).await),
        }
    }

    /// Receives the next value; `None` after the other end finished well; its error if it failed.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(bytes) = self.recv_bytes().await? else { return Ok(None) };
        let value = postcard::from_bytes(&bytes).map_err(|_| {
            Error::corrupt(format!(
                "peer {} sent an unreadable message in the call \"{}\"; it may run another version of pinfold",
                self.peer, self.method
            ))
        })?;
        Ok(Some(value))
    }

    /// Receives the next frame as raw bytes, without copying a large body.
    pub async fn recv_bytes(&mut self) -> Result<Option<Bytes>> {
        if self.channel.lock().pending() > 0 {
            self.flush().await?;
        }
        if let Some(outcome) = &self.outcome {
            return outcome.clone().map(|()| None);
        }
        let channel = self.channel.clone();
        let frame = self.within_idle("waiting for", |cx| channel.lock().poll_frame(cx)).await?;
        match frame {
            Ok(Frame::Data(bytes)) => Ok(Some(bytes)),
            Ok(Frame::End(outcome)) => {
                self.outcome = Some(outcome.clone());
                outcome.map(|()| None)
            }
            Err(error) => Err(self.sentence(error)),
        }
    }

    /// Receives a value that must be there.
    pub async fn need<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.recv().await?.ok_or_else(|| {
            Error::corrupt(format!(
                "peer {} ended the call \"{}\" without the message that was due; it may run another version of pinfold",
                self.peer, self.method
            ))
        })
    }

    /// Says that no more frames come from this end (caller side).
    pub async fn finish(&mut self) -> Result<()> {
        if self.finished {
            return Ok(());
        }
        if self.must_flush() {
            self.flush().await?;
        }
        self.finished = true;
        self.channel.lock().push_end(&Ok(()));
        self.flush().await
    }

    /// Ends the callee's side with the handler's result.
    pub(super) async fn end(&mut self, result: &Result<()>) -> Result<()> {
        if self.must_flush() {
            self.flush().await?;
        }
        self.finished = true;
        self.channel.lock().push_end(result);
        self.flush().await
    }

    fn must_flush(&self) -> bool {
        self.channel.lock().must_flush()
    }

    fn may_send(&self) -> Result<()> {
        if self.finished {
            return Err(Error::internal(format!(
                "the call \"{}\" was finished; nothing can be sent after that",
                self.method
            )));
        }
        Ok(())
    }

    fn push(&self, push: impl FnOnce(&mut Channel) -> Result<(), WireError>) -> Result<()> {
        push(&mut self.channel.lock()).map_err(|error| self.sentence(error))
    }

    async fn flush_if_full(&mut self) -> Result<()> {
        if self.channel.lock().pending() >= FLUSH_AT {
            self.flush().await?;
        }
        Ok(())
    }

    /// Polls until ready, but not longer than the idle limit. A timer is only made when there is a wait.
    async fn within_idle<T>(
        &self,
        doing: &str,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T> {
        let mut timer: Option<Timer> = None;
        poll_fn(|cx| {
            if let Poll::Ready(value) = poll(cx) {
                return Poll::Ready(Some(value));
            }
            let timer = timer.get_or_insert_with(|| Timer::after(self.idle));
            Pin::new(timer).poll(cx).map(|_| None)
        })
        .await
        .ok_or_else(|| {
            Error::timeout(format!(
                "{doing} peer {} in the call \"{}\": nothing moved for {:?}",
                self.peer, self.method, self.idle
            ))
        })
    }

    /// Why sending failed: the far end may have said so before it hung up.
    async fn reason(&mut self, error: WireError) -> Error {
        if self.end == End::Callee || self.outcome.is_some() || !matches!(error, WireError::Gone) {
            return self.sentence(error);
        }
        let channel = self.channel.clone();
        let last_words = poll_fn(|cx| loop {
            match channel.lock().poll_frame(cx) {
                Poll::Ready(Ok(Frame::Data(_))) => {}
                Poll::Ready(Ok(Frame::End(outcome))) => return Poll::Ready(Ok(outcome)),
                Poll::Ready(Err(better)) => return Poll::Ready(Err(better)),
                Poll::Pending => return Poll::Pending,
            }
        });
        let heard = smol::future::or(last_words, async {
            Timer::after(LAST_WORDS).await;
            Err(error)
        })
        .await;
        match heard {
            Ok(outcome) => {
                self.outcome = Some(outcome.clone());
                outcome.err().unwrap_or_else(|| {
                    Error::cancelled(format!(
                        "peer {} ended the call \"{}\" before everything was sent",
                        self.peer, self.method
                    ))
                })
            }
            Err(error) => self.sentence(error),
        }
    }

    fn sentence(&self, error: WireError) -> Error {
        let (peer, method) = (self.peer, &self.method);
        match error {
            WireError::Gone if self.end == End::Callee => {
                Error::cancelled(format!("peer {peer} gave up the call \"{method}\""))
            }
            WireError::Gone => Error::unavailable(format!(
                "the connection to peer {peer} was closed during the call \"{method}\"; try again"
            )),
            WireError::Io(error) => {
                sentences::stream(peer, PROTOCOL, &format!("in the call \"{method}\" with"), &error)
            }
            WireError::Format(reason) => Error::corrupt(format!(
                "peer {peer} does not follow the protocol in the call \"{method}\": {reason}"
            )),
            WireError::Value(error) => error,
        }
    }
}
