//! When the tracker compares: the calendar of the scans.
//!
//! Three clocks and one bell. Every `state_sync_interval` state and records are compared ([`sync_state`]). Every
//! `ipfs_sync_interval` the records are compared with IPFS and corrected; every `pin_recover_interval` whatever is not
//! as it should be is tried again, too. The bell is the IPFS node itself: when it was away, was restarted, or is
//! another one now, everything is compared and tried again at once, for a node that was wiped holds nothing of what it
//! held, and whatever failed while it was away need not wait for its back-off.
//!
//! The keeper must never ask in circles: two comparisons have a distance, and one that fails is tried again with a
//! growing one.

use super::runner::{report, Inner};
use super::scan;
use crate::error::Result;
use crate::ipfs::Run;
use crate::runtime;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between the start and the first comparison with IPFS: let it come up first.
const FIRST_COMPARISON: Duration = Duration::from_secs(2);
/// First wait after a comparison that failed; doubles up to the interval of repairs.
const COMPARE_AGAIN: Duration = Duration::from_secs(10);
/// Between two looks at whether an IPFS node that is away is back.
const LOOK_FOR_NODE: Duration = Duration::from_secs(2);
/// Least time between two repairs because of the node: one that comes and goes must not be made to list its pins all
/// the time.
const REPAIR_GAP: Duration = Duration::from_secs(3);
/// The same for a node that closed its connection and does not tell when it began: it may only have been idle.
const UNSURE_GAP: Duration = Duration::from_secs(60);

/// When what is due.
struct Calendar {
    /// A comparison that tries again what is not as it should be.
    repair: Instant,
    /// A comparison that corrects records.
    look: Option<Instant>,
    /// Wait after the next failure.
    again: Duration,
    /// The end of the last repair.
    repaired: Option<Instant>,
}

/// What is known of the node.
#[derive(Default)]
struct Known {
    /// The run that answered last.
    run: Option<Run>,
    /// It did not answer the last time.
    away: bool,
}

/// Compares with IPFS whenever it is time to.
pub(super) async fn keep(inner: Arc<Inner>) {
    // What was left undone by the last run, from records alone; then, with IPFS up, against IPFS.
    report(scan::catch_up(&inner).await);
    runtime::sleep(FIRST_COMPARISON).await;
    let mut calendar = Calendar { repair: Instant::now(), look: None, again: COMPARE_AGAIN, repaired: None };
    let (mut known, mut hung_up) = (Known::default(), false);
    loop {
        let run = match inner.ipfs.current_run().await {
            Ok(run) => run,
            Err(error) => {
                if !std::mem::replace(&mut known.away, true) {
                    log::warn!(target: "pintracker", "the IPFS node is away: {error}");
                }
                runtime::sleep(LOOK_FOR_NODE).await;
                continue;
            }
        };
        // What waited for a node that was away is not started by anybody else.
        inner.wake();
        if let Some(gap) = known.take(run, hung_up) {
            let earliest = calendar.repaired.map_or_else(Instant::now, |last| last + gap);
            calendar.repair = calendar.repair.min(earliest);
        }
        hung_up = inner.until_hung_up(&mut calendar).await;
    }
}

impl Known {
    /// Takes in who answers now; when that calls for a repair, how long after the last one.
    fn take(&mut self, run: Run, hung_up: bool) -> Option<Duration> {
        let was_away = std::mem::replace(&mut self.away, false);
        let before = self.run.replace(run.clone());
        // The first one is compared with anyway.
        let before = before?;
        if before.id != run.id {
            log::warn!(target: "pintracker", "the IPFS node is another one now: {}, before {}; what it lacks is pinned anew", run.id, before.id);
        } else if before.started != run.started {
            log::info!(target: "pintracker", "the IPFS node {} was restarted; what it lacks is pinned anew", run.id);
        } else if was_away {
            log::info!(target: "pintracker", "the IPFS node {} answers again", run.id);
        } else {
            return (hung_up && run.started.is_none()).then_some(UNSURE_GAP);
        }
        Some(REPAIR_GAP)
    }
}

impl Inner {
    /// Does what is due until the node seems to be gone; whether it hung up (or else failed a comparison).
    async fn until_hung_up(self: &Arc<Self>, calendar: &mut Calendar) -> bool {
        loop {
            let next = calendar.look.map_or(calendar.repair, |look| look.min(calendar.repair));
            let over = async {
                self.ipfs.run_over().await;
                true
            };
            // A node that went away during a comparison made it fail, which is noticed there.
            let wait = async {
                runtime::sleep(next.saturating_duration_since(Instant::now())).await;
                false
            };
            if smol::future::or(wait, over).await {
                return true;
            }
            let repairs = calendar.repair <= Instant::now();
            let done = match repairs {
                true => scan::repair(self, None).await,
                false => scan::look(self, None).await,
            };
            if !calendar.note(repairs, done, self.config.recover_interval, self.config.ipfs_sync_interval) {
                return false;
            }
        }
    }
}

impl Calendar {
    /// Enters what comes next; whether the comparison succeeded.
    fn note(&mut self, repairs: bool, done: Result<()>, recover: Duration, sync: Duration) -> bool {
        let now = Instant::now();
        self.look = (!sync.is_zero()).then(|| now + sync);
        match done {
            Ok(()) => {
                self.again = COMPARE_AGAIN.min(recover);
                if repairs {
                    (self.repair, self.repaired) = (now + recover, Some(now));
                }
                true
            }
            Err(error) => {
                let wait = self.again.min(recover);
                log::warn!(target: "pintracker", "cannot compare with IPFS now, next try in {wait:?}: {error}");
                self.again = self.again.saturating_mul(2).min(recover);
                // It is also what the next try waits for when the node turns out to have been away.
                (self.repair, self.look) = (now + wait, None);
                false
            }
        }
    }
}

/// Compares state and records, for what was lost between the two. A state in which nothing has happened since needs no
/// other look: an idle board stays idle.
pub(super) async fn sync_state(inner: Arc<Inner>) {
    let mut compared = None;
    loop {
        runtime::sleep(inner.config.state_sync_interval).await;
        let applied = inner.store.applied();
        if compared != Some(applied) {
            let done = scan::catch_up(&inner).await;
            compared = done.is_ok().then_some(applied);
            report(done);
        }
    }
}
