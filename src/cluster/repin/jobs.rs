//! What a person asks for and takes a while: emptying a peer, rebalancing. Run by the leader, followed from anywhere.
//!
//! The contacted peer calls the leader (itself included) and passes on what it tells. The leader has everything at
//! hand that the work needs, and nothing else decides about copies; should another peer lead in the middle, the
//! contacted peer calls that one, which finds in the state how far it has come. Whoever asked may go away: the
//! call is given up, the leader stops, and what is half done is finished or undone by its next pass.

use super::{Shared, CALL};
use crate::cluster::{rpc, Cluster};
use crate::error::{Error, Kind, Result};
use crate::net::rpc::{Access, Call};
use crate::runtime;
use async_channel::Sender;
use futures::stream::BoxStream;
use futures::StreamExt;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Do this, and tell how it goes. Answered by the leader only.
const JOB: &str = "cluster.job";
/// How long there may be no leader, or none that answers, before a job that is followed is given up.
const LEADERLESS: Duration = Duration::from_secs(60);
/// Between two attempts to reach the leader.
const AGAIN: Duration = Duration::from_millis(500);
/// A job tells how it goes at least this often: whoever follows it knows that it lives, and a client that has gone
/// away is noticed.
pub(super) const TELL: Duration = Duration::from_secs(1);
/// How long a job goes on when nothing ends and nothing is being worked on. A copy that is being fetched is work: the
/// tracker that fetches it knows when it has stopped (`pin_timeout`).
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Reports that whoever follows a job may be behind.
const AHEAD: usize = 16;

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MoveProgress {
    /// Pins that have (or had) to move.
    pub total: u64,
    /// Of these, that have moved.
    pub moved: u64,
    /// Of these, that their new holders are fetching.
    pub coming: u64,
    /// Of these, that their new holders failed to fetch so far.
    pub failed: u64,
    /// Of these, that no other peer can hold.
    pub short: u64,
    /// Whether this is the last word.
    pub done: bool,
    /// For a person.
    pub message: String,
    /// Copies by peer, where that is what changes (rebalance).
    pub peers: Vec<PeerShare>,
}

impl MoveProgress {
    /// Pins that have not moved.
    pub fn left(&self) -> u64 {
        self.total.saturating_sub(self.moved)
    }
}

/// The copies of one peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerShare {
    /// Who.
    pub peer: String,
    /// Its name.
    pub peername: String,
    /// Copies before.
    pub before: u64,
    /// Copies after.
    pub after: u64,
}

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Empty this peer (its id's bytes).
    Vacate(Vec<u8>),
    /// Even out the copies, or only say what that would mean.
    Rebalance {
        /// Only say.
        dry_run: bool,
    },
}

/// As long as it lives, a peer is to be emptied.
struct Vacating<'a> {
    shared: &'a Shared,
    peer: PeerId,
}

impl<'a> Vacating<'a> {
    fn begin(shared: &'a Shared, peer: PeerId) -> Self {
        *shared.vacating.lock().entry(peer).or_default() += 1;
        shared.wake();
        Vacating { shared, peer }
    }
}

impl Drop for Vacating<'_> {
    fn drop(&mut self) {
        let mut vacating = self.shared.vacating.lock();
        if let Some(count) = vacating.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                vacating.remove(&self.peer);
            }
        }
        drop(vacating);
        self.shared.wake();
    }
}

impl Cluster {
    /// Moves every pin off a peer, running or dead: while it runs, its copies are dropped only when others have the
    /// content; of a dead one the others get copies from whoever else has them. Returns when nothing is left that can
    /// be moved, with what is left in the last word ([`MoveProgress::left`]: no other peer can hold these, or
    /// their new holders could not get the content for a minute without any progress). New pins may
    /// come to the peer as long as it is a member and not [drained](Cluster::drain). Says how it goes to `tell`; ends
    /// early when nobody listens there any more.
    ///
    /// # Errors
    /// No leader for a minute; a leader that runs an older pinfold; the receiver of `tell` is gone.
    pub async fn vacate(&self, peer: PeerId, tell: Option<Sender<MoveProgress>>) -> Result<MoveProgress> {
        self.follow(&Job::Vacate(peer.to_bytes()), tell.as_ref()).await
    }

    /// [`Cluster::vacate`] and [`Cluster::rebalance`], wherever the leader is.
    pub(super) async fn follow(
        &self,
        job: &Job,
        tell: Option<&Sender<MoveProgress>>,
    ) -> Result<MoveProgress> {
        let mut heard = Instant::now();
        loop {
            let failure = match self.follow_one_leader(job, tell, &mut heard).await {
                Ok(last) => {
                    // Whoever was told that pins have moved finds them moved here too: the last move was committed by
                    // the leader. That it cannot be asked takes nothing back of what was done.
                    if let Err(error) = self.catch_up().await {
                        log::warn!(target: "cluster", "the pins have moved, but this peer may show for a while where they were: {error}");
                    }
                    return Ok(last);
                }
                Err(error) => error,
            };
            let again = matches!(
                failure.kind(),
                Kind::NotLeader | Kind::Unavailable | Kind::Timeout | Kind::Io | Kind::Cancelled
            );
            if tell.is_some_and(Sender::is_closed) || !again || heard.elapsed() >= LEADERLESS {
                return Err(failure);
            }
            log::info!(target: "cluster", "asking the leader again: {failure}");
            runtime::sleep(AGAIN).await;
        }
    }

    async fn follow_one_leader(
        &self,
        job: &Job,
        tell: Option<&Sender<MoveProgress>>,
        heard: &mut Instant,
    ) -> Result<MoveProgress> {
        let leader = self.inner.consensus.wait_leader(CALL).await?;
        let mut call = self.inner.rpc.open(leader.peer_id, JOB, CALL).await?;
        call.set_idle(CALL);
        call.send(job).await?;
        call.finish().await?;
        let mut last = None;
        while let Some(progress) = call.recv::<MoveProgress>().await? {
            *heard = Instant::now();
            if progress.done {
                last = Some(progress);
            } else if let Some(tell) = tell {
                let gone = |_| Error::cancelled("nobody listens any more");
                tell.send(progress).await.map_err(gone)?;
            }
        }
        last.ok_or_else(|| Error::unavailable("the leader stopped without a last word"))
    }

    /// What `run` tells, and its last word, as a stream. It is given up when the stream is dropped.
    pub(super) fn as_stream<F>(
        &self,
        run: impl FnOnce(Cluster, Sender<MoveProgress>) -> F,
    ) -> BoxStream<'static, Result<MoveProgress>>
    where
        F: std::future::Future<Output = Result<MoveProgress>> + Send + 'static,
    {
        let (tell, told) = async_channel::bounded(AHEAD);
        let work = runtime::spawn(run(self.clone(), tell));
        let last = futures::stream::once(work);
        told.map(Ok).chain(last).boxed()
    }

    /// Empties a peer; the leader's side. The passes do the work.
    async fn empty(&self, peer: PeerId, tell: &Sender<MoveProgress>) -> Result<MoveProgress> {
        self.can_reallocate()?;
        let shared = &self.inner.repin;
        let earlier = shared.begun.load(Ordering::SeqCst);
        let before = shared.moved.lock().get(&peer).copied().unwrap_or(0);
        let _mark = Vacating::begin(shared, peer);
        let mut progress = MoveProgress::default();
        let (mut fewest, mut moving) = (u64::MAX, Instant::now());
        loop {
            let watch = shared.watch();
            if !self.leads() {
                return Err(Error::not_leader("another peer leads now"));
            }
            let report = shared.report.lock().clone();
            // A pass that began before knew nothing of our wish.
            let left = report.left.get(&peer).filter(|_| report.pass > earlier).copied();
            if let Some(left) = left {
                progress.moved = left.moved.saturating_sub(before);
                progress.total = progress.moved + left.pins;
                (progress.coming, progress.failed, progress.short) = (left.coming, left.failed, left.short);
                if left.pins < fewest || left.coming > 0 {
                    (fewest, moving) = (left.pins.min(fewest), Instant::now());
                }
                if left.pins == 0 || left.pins == left.short || moving.elapsed() >= PATIENCE {
                    progress.done = true;
                    progress.message = last_word(&progress);
                    return Ok(progress);
                }
            } else if moving.elapsed() >= LEADERLESS {
                return Err(Error::timeout(
                    "the pins could not be looked through in time, see the leader's log",
                ));
            }
            progress.message = so_far(&progress);
            tell.send(progress.clone()).await.map_err(|_| Error::cancelled("nobody listens any more"))?;
            let changed = async {
                let _ = watch.recv().await;
            };
            smol::future::or(changed, runtime::sleep(TELL)).await;
        }
    }
}

/// How far it is, for a person.
pub(super) fn so_far(progress: &MoveProgress) -> String {
    let MoveProgress { total, moved, coming, failed, short, .. } = progress;
    if *total == 0 {
        return "looking through the pins".into();
    }
    let mut words = format!("{moved} of {total} pins moved");
    for (count, what) in [
        (coming, "being copied"),
        (failed, "could not be copied yet"),
        (short, "that no other peer can hold"),
    ] {
        if *count > 0 {
            words.push_str(&format!(", {count} {what}"));
        }
    }
    words
}

fn last_word(progress: &MoveProgress) -> String {
    match progress.left() {
        0 => format!("{} pins moved, nothing is left", progress.total),
        left if left == progress.short => format!(
            "{} pins moved; {left} stay, because no other peer can hold them: add a peer, or lower their replication_factor_min",
            progress.moved
        ),
        left => format!(
            "{} pins moved; {left} stay for now, because their new holders cannot get the content (see `status --filter error`)",
            progress.moved
        ),
    }
}

pub(super) fn register(cluster: &Cluster) {
    rpc::register_one(cluster, JOB, Access::Members, |c, call| Box::pin(serve_job(c, call)));
}

async fn serve_job(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let job: Job = call.need().await?;
    if !cluster.leads() {
        return Err(Error::not_leader("this peer does not lead"));
    }
    let (tell, told) = async_channel::bounded(AHEAD);
    let work = async {
        let last = match job {
            Job::Vacate(peer) => {
                let peer = PeerId::from_bytes(&peer)
                    .map_err(|e| Error::invalid(format!("a peer asks to empty a malformed peer id: {e}")))?;
                cluster.empty(peer, &tell).await
            }
            Job::Rebalance { dry_run } => cluster.even_out(dry_run, &tell).await,
        };
        // No more reports: the other half ends.
        drop(tell);
        last
    };
    let pass_on = async {
        while let Ok(progress) = told.recv().await {
            call.send(&progress).await?;
            call.flush().await?;
        }
        Ok::<_, Error>(())
    };
    let (last, passed_on) = futures::join!(work, pass_on);
    passed_on?;
    call.send(&last?).await
}
