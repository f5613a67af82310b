//! Failover, draining, rebalancing: what moves copies between peers without a user naming the pin.
//!
//! One peer decides: the leader. It alone watches who lives ([`Liveness`], monotonic time), it alone walks over the
//! pins and proposes moves, so two peers never answer the same death with two different moves, and none is
//! forgotten because the peer that should have looked after it died too. There is nothing to hand over when another
//! leads: what has to be done is read off the replicated state again ([`crate::allocator::repin`]), half-done or
//! not, and every move applies only where the allocations are still what the decision saw.
//!
//! ```text
//!  metrics ──> Liveness ──> View ──> pass (pass.rs): every pin, page by page
//!                            ^          grow: add holders      ─┐
//!  drain (drain.rs) ─────────┤          settle: drop holders   ─┴─> Command::Reallocate, ≤ 1,000 a time
//!  vacate (jobs.rs) ─────────┘          report ──> whoever waits for a peer to be empty
//!  rebalance (rebalance.rs) ──> its own moves, of pins that the passes leave alone meanwhile
//! ```
//!
//! A pass runs when something has changed (a peer is gone, back, leaving, no member any more), while copies are on
//! their way, and now and then while something is amiss; with everybody there it does not run at all. Memory
//! is one page of pins. It must never: propose a move that changes nothing, move a pin that is everywhere, take away
//! the last holder, or decide by a wall clock.

mod away;
mod drain;
mod jobs;
mod pass;
mod rebalance;

pub(super) use away::tell as tell_away;
pub use jobs::{MoveProgress, PeerShare};

use super::Cluster;
use crate::allocator::repin::Standing;
use crate::allocator::Candidate;
use crate::monitor::liveness::{Liveness, Presence};
use crate::monitor::{DRAINED, PING};
use crate::runtime;
use cid::Cid;
use libp2p::PeerId;
use parking_lot::Mutex;
use pass::{Passes, Report};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The leader looks at who lives at least this often …
const LONGEST_TICK: Duration = Duration::from_secs(1);
/// … and at most this often.
const SHORTEST_TICK: Duration = Duration::from_millis(50);
/// A leader that has not looked for this long (or a ping's interval, if that is longer) was not watching.
const STALL: Duration = Duration::from_secs(3);

/// How long a peer that is no member any more keeps its copies. A re-flashed card comes back under its old identity and
/// a new Raft id: the old one is removed and the new one added right after, and between the two nobody must take
/// everything that the card is about to fetch again for homeless.
const BETWEEN_IDS: Duration = Duration::from_secs(10);

/// Members, and those that have ceased to be of late.
#[derive(Default)]
struct Gone {
    members: BTreeSet<PeerId>,
    since: BTreeMap<PeerId, Instant>,
}

impl Gone {
    /// Compares with the members of now.
    fn note(&mut self, members: impl Iterator<Item = PeerId>, now: Instant) {
        let members: BTreeSet<PeerId> = members.collect();
        for peer in self.members.difference(&members) {
            self.since.insert(*peer, now);
        }
        self.since.retain(|peer, at| !members.contains(peer) && now.duration_since(*at) < BETWEEN_IDS);
        self.members = members;
    }
}

/// Where the passes, and whoever waits for them, meet.
pub(super) struct Shared {
    /// Peers that somebody wants empty right now, with how many want it.
    vacating: Mutex<BTreeMap<PeerId, usize>>,
    /// Pins that a rebalance is moving.
    busy: Mutex<HashSet<Cid>>,
    rebalancing: AtomicBool,
    /// Passes begun.
    begun: AtomicU64,
    report: Mutex<Report>,
    /// Pins that have left a peer that was to be emptied, since the start.
    moved: Mutex<BTreeMap<PeerId, u64>>,
    watchers: Mutex<Vec<async_channel::Sender<()>>>,
    /// A pass is wanted although nothing that is looked at has changed.
    wake: (async_channel::Sender<()>, async_channel::Receiver<()>),
    view: Mutex<Option<View>>,
    gone: Mutex<Gone>,
    /// Whether this peer is drained, and where that is remembered.
    drained: AtomicBool,
    drained_file: PathBuf,
}

impl Shared {
    /// `drained_file` is there while this peer is drained.
    pub(super) fn new(drained_file: PathBuf) -> Self {
        Shared {
            vacating: Mutex::default(),
            busy: Mutex::default(),
            rebalancing: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            report: Mutex::default(),
            moved: Mutex::default(),
            watchers: Mutex::default(),
            wake: async_channel::bounded(1),
            view: Mutex::default(),
            gone: Mutex::default(),
            drained: AtomicBool::new(drained_file.exists()),
            drained_file,
        }
    }

    fn wake(&self) {
        // Full: a pass is due already.
        let _ = self.wake.0.try_send(());
    }

    /// A channel that is closed when there is another report.
    fn watch(&self) -> async_channel::Receiver<()> {
        let (sender, receiver) = async_channel::bounded(1);
        let mut watchers = self.watchers.lock();
        watchers.retain(|w| !w.is_closed());
        watchers.push(sender);
        receiver
    }

    fn publish(&self, report: Report) {
        *self.report.lock() = report;
        self.watchers.lock().clear();
    }
}

/// Who is there, at one moment.
#[derive(Clone)]
struct View {
    /// The members.
    standing: Arc<BTreeMap<PeerId, Standing>>,
    /// What a holder is that is no member.
    stranger: Standing,
    /// Whether the dead are replaced.
    repin: bool,
    /// Who may get copies.
    candidates: Vec<Candidate>,
}

impl View {
    fn of(&self, peer: &PeerId) -> Standing {
        self.standing.get(peer).copied().unwrap_or(self.stranger)
    }

    /// Whose copies have to move, and who is a member: a pass is due when this changes.
    fn troubles(&self) -> Vec<(PeerId, Option<Standing>)> {
        let calm = |s: &Standing| matches!(s, Standing::Live | Standing::Silent);
        self.standing.iter().map(|(p, s)| (*p, (!calm(s)).then_some(*s))).collect()
    }

    fn is_troubled(&self) -> bool {
        self.troubles().iter().any(|(_, s)| s.is_some())
    }
}

/// Registers the calls of this room.
pub(super) fn register(cluster: &Cluster) {
    jobs::register(cluster);
    drain::register(cluster);
    pass::register(cluster);
    rebalance::register(cluster);
}

/// Watches and moves, while this peer leads.
pub(super) async fn lead(cluster: Cluster) {
    let settings = &cluster.inner.settings;
    let tick = (settings.ping_interval / 4).clamp(SHORTEST_TICK, LONGEST_TICK);
    let stall = STALL.max(settings.ping_interval);
    let mut liveness = Liveness::new(settings.ping_interval * 2, settings.repin_grace, stall);
    let mut passes = Passes::default();
    let shared = &cluster.inner.repin;
    loop {
        let asked = smol::future::or(async { shared.wake.1.recv().await.is_ok() }, async {
            runtime::sleep(tick).await;
            false
        })
        .await;
        shared.gone.lock().note(cluster.member_ids().into_iter(), Instant::now());
        if !cluster.leads() {
            liveness.rest();
            if passes.forget() {
                *shared.view.lock() = None;
                shared.publish(Report::default());
            }
            continue;
        }
        let anew = liveness.look(cluster.inner.readings.now_ms());
        let view = cluster.view(&liveness);
        *shared.view.lock() = Some(view.clone());
        if !passes.is_due(&view, anew || asked, settings.state_sync_interval) {
            continue;
        }
        if let Err(why) = cluster.can_reallocate() {
            passes.wait_for_upgrade(&view, &why);
            continue;
        }
        cluster.pass(&mut passes, &mut liveness, &view).await;
    }
}

impl Cluster {
    fn leads(&self) -> bool {
        let status = self.inner.consensus.status();
        status.leader == Some(status.raft_id)
    }

    fn view(&self, liveness: &Liveness) -> View {
        let settings = &self.inner.settings;
        let vacating: Vec<PeerId> = self.inner.repin.vacating.lock().keys().copied().collect();
        let readings = &self.inner.readings;
        let now = readings.now_ms();
        let host = self.inner.rpc.host();
        let mut standing = BTreeMap::new();
        {
            let monitor = readings.lock();
            // A witness is none here: what is allocated to it (by an older wish) is to be somewhere else.
            for peer in self.holder_ids() {
                let presence = match peer == self.inner.me {
                    true => Presence::Live,
                    false => liveness.presence(monitor.valid_until(PING, &peer)),
                };
                // It lives and votes, but its copies are as good as those of a dead one.
                let presence = match (presence, self.copies_of(&monitor, &peer, now)) {
                    (Presence::Live, Some(without)) => without,
                    (presence, _) => presence,
                };
                let wanted_empty = vacating.contains(&peer);
                let drained = monitor.reading(DRAINED, &peer, now).is_some();
                let is = match presence {
                    Presence::Live if wanted_empty || drained => Standing::Leaving,
                    // Too busy to ping, perhaps, but there: it keeps its copies until others have them.
                    _ if wanted_empty && host.is_connected(&peer) => Standing::Leaving,
                    Presence::Live => Standing::Live,
                    // Nothing can be had from it: its copies are made anew elsewhere, from the others.
                    Presence::Silent | Presence::Gone if wanted_empty => Standing::Expelled,
                    Presence::Silent => Standing::Silent,
                    Presence::Gone => Standing::Gone,
                };
                standing.insert(peer, is);
            }
        }
        for peer in self.inner.repin.gone.lock().since.keys() {
            standing.entry(*peer).or_insert(Standing::Silent);
        }
        let live = |c: &Candidate| standing.get(&c.peer) == Some(&Standing::Live);
        let candidates = self.candidates().into_iter().filter(live).collect();
        let repin = settings.repin;
        let stranger = if repin { Standing::Expelled } else { Standing::Gone };
        View { standing: Arc::new(standing), stranger, repin, candidates }
    }
}

/// How long one peer may take to answer one question of this room.
const CALL: Duration = super::PEER_TIMEOUT;

/// A name for people.
fn called(cluster: &Cluster, peer: &PeerId) -> String {
    let name = cluster.peer_name(peer);
    if name.is_empty() {
        peer.to_string()
    } else {
        format!("{name} ({peer})")
    }
}

impl Shared {
    fn begin_pass(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_between_two_raft_ids_is_not_gone_yet() {
        let (a, b, t) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut gone = Gone::default();
        gone.note([a, b].into_iter(), t);
        gone.note([a].into_iter(), t);
        assert!(gone.since.contains_key(&b));
        gone.note([a, b].into_iter(), t + BETWEEN_IDS / 2);
        assert!(gone.since.is_empty(), "it is back");
        gone.note([a].into_iter(), t + BETWEEN_IDS);
        gone.note([a].into_iter(), t + BETWEEN_IDS * 3 / 2);
        assert!(gone.since.contains_key(&b), "counted from the last time that it went");
        gone.note([a].into_iter(), t + BETWEEN_IDS * 2);
        assert!(gone.since.is_empty(), "it was removed, and that was meant");
    }
}
