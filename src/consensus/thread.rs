//! The pump: one thread of its own that feeds the driver and lets it turn.
//!
//! It waits for the first input or the next tick, takes everything that has arrived since, and only then turns
//! the driver once. That *is* the group commit: while one batch is being flushed, the next one gathers. The
//! thread blocks on the log's disk and on nothing else; flushing the state, streams and dials happen
//! elsewhere and come back as inputs.
//!
//! When the driver fails (an error, or one of raft-rs's panics in a build that unwinds) the thread ends: the
//! status says why, every waiter is answered, and the daemon is expected to end too.

use super::driver::{Driver, Input, Outlet};
use super::snapshot::{self, SnapshotRequest};
use super::storage::Failure;
use super::{Inner, Shared};
use crate::error::{Error, Result};
use crate::state::{Event, Member, RaftId};
use crate::store::StateStore;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Inputs that may wait for the driver; more proposals are refused and more frames are dropped.
pub const INBOX: usize = 4_096;
/// Inputs that are taken before the driver turns, so that a flood cannot keep it from turning.
const MAX_PER_TURN: usize = 2_048;
/// How often delivering a result to a full inbox is tried again, every [`RETRY`].
const DELIVERIES: u32 = 1_000;
/// Between two such tries.
const RETRY: Duration = Duration::from_millis(10);

/// What arrives at the pump.
pub(super) enum Mail {
    /// For the driver.
    Input(Input),
    /// Flush and end; the channel is closed when done.
    Stop(async_channel::Sender<()>),
}

/// Runs until it is stopped, fails, or nobody holds a handle any more.
pub(super) fn run(
    mut driver: Driver,
    inbox: Receiver<Mail>,
    tick: Duration,
    inner: Weak<Inner>,
    shared: Arc<Shared>,
    state: Arc<dyn StateStore>,
    failure: Failure,
) {
    let mut pipes = Pipes { inner, shared: shared.clone(), state: state.clone() };
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| pump(&mut driver, &inbox, tick, &mut pipes)));
    let kept = failure.lock().take();
    let ended = match (ended, kept) {
        (Ok(Err(error)), _) | (Err(_), Some(error)) => Err(error),
        (Err(panic), None) => {
            Err(Error::internal(format!("Raft found itself in an impossible state: {}", words(&*panic))))
        }
        (Ok(Ok(stop)), _) => Ok(stop),
    };
    let (error, stop) = match ended {
        Ok(stop) => match state.flush() {
            Ok(_) => (Error::unavailable("consensus was stopped: this peer is shutting down"), stop),
            Err(error) => (failed(&shared, &error), stop),
        },
        Err(error) => (failed(&shared, &error), None),
    };
    shared.end(&error);
    // After a panic the driver's tables may be half-changed, but they are only read here, to answer.
    driver.abandon(&error);
    drop(driver);
    drop(stop);
    // Whoever is still in the inbox gets a closed channel, which reads as the error above.
}

fn failed(shared: &Shared, error: &Error) -> Error {
    log::error!(target: super::LOG, "consensus stopped on this peer: {error}");
    shared.fail(error);
    error.clone().context("consensus stopped on this peer")
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no words").to_owned()
}

fn pump(
    driver: &mut Driver,
    inbox: &Receiver<Mail>,
    tick: Duration,
    pipes: &mut Pipes,
) -> Result<Option<async_channel::Sender<()>>> {
    driver.turn(pipes)?;
    pipes.shared.publish(driver);
    let mut next_tick = Instant::now() + tick;
    loop {
        let mut mail = match inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(mail) => Some(mail),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        };
        let mut taken = 0;
        while let Some(letter) = mail {
            match letter {
                Mail::Input(input) => driver.input(input, pipes)?,
                Mail::Stop(done) => {
                    driver.turn(pipes)?;
                    return Ok(Some(done));
                }
            }
            taken += 1;
            mail = if taken < MAX_PER_TURN { inbox.try_recv().ok() } else { None };
        }
        let now = Instant::now();
        if now >= next_tick {
            driver.input(Input::Tick, pipes)?;
            // A thread that slept too long (a paused machine, a slow disk) does not make up for lost ticks:
            // a burst of them would look like a leader's silence.
            next_tick = (next_tick + tick).max(now);
            pipes.shared.remind();
        }
        driver.turn(pipes)?;
        pipes.shared.publish(driver);
    }
}

/// The driver's outlet in the daemon.
struct Pipes {
    inner: Weak<Inner>,
    shared: Arc<Shared>,
    state: Arc<dyn StateStore>,
}

impl Outlet for Pipes {
    fn send(&mut self, to: &Member, raft_id: RaftId, frame: Vec<u8>) {
        if let Some(inner) = self.inner.upgrade() {
            inner.wire.send(to, raft_id, frame);
        }
    }

    fn fetch_snapshot(&mut self, from: Member, request: SnapshotRequest) {
        let (inner, state) = (self.inner.clone(), self.state.clone());
        crate::runtime::spawn(async move {
            let Some(wire) = inner.upgrade().map(|i| i.wire.clone()) else { return };
            let at_least = request.at_least;
            let fetched = async {
                let opened = wire.fetch_snapshot(&from, request);
                let stream =
                    crate::runtime::timeout(snapshot::OPEN, "the snapshot from the leader", opened).await?;
                snapshot::receive(stream, state, at_least).await
            };
            let input = match fetched.await {
                Ok(fetched) => Input::SnapshotFetched(Box::new(fetched)),
                Err(error) => Input::SnapshotFailed(error),
            };
            deliver(&inner, input).await;
        })
        .detach();
    }

    fn flush(&mut self) {
        let (inner, state) = (self.inner.clone(), self.state.clone());
        crate::runtime::spawn(async move {
            let result = crate::runtime::unblock(move || state.flush()).await;
            deliver(&inner, Input::Flushed(result)).await;
        })
        .detach();
    }

    fn show_members(&mut self, members: &BTreeMap<RaftId, Member>) {
        self.shared.show_members(members);
    }

    fn emit(&mut self, events: Vec<Event>) {
        self.shared.emit(events);
    }
}

/// Puts a result that must not get lost into the inbox, waiting while it is full.
pub(super) async fn deliver(inner: &Weak<Inner>, input: Input) {
    let mut mail = Mail::Input(input);
    for _ in 0..DELIVERIES {
        let Some(inner) = inner.upgrade() else { return };
        match inner.inbox.try_send(mail) {
            Err(std::sync::mpsc::TrySendError::Full(back)) => mail = back,
            _ => return,
        }
        drop(inner);
        crate::runtime::sleep(RETRY).await;
    }
}
