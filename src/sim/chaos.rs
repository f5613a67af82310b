//! A cluster under misfortune, and what must be true afterwards.
//!
//! The cluster is formed, then its [schedule] happens to it: everything that can go wrong does, while
//! callers go on asking. What must be true when it is over is in [`super::aftermath`].
//!
//! The misfortune stays within what a cluster promises to survive, and no more: at any time at most one voter is lost for
//! good or on its way out, and only where the others are a majority without it ([`Chaos::may_lose`]). Everything else
//! (crashes, partitions, broken disks) may strike everybody at once, because it passes.

use super::check::{broken, Broken};
use super::client::{Request, Ticket};
use super::cluster::{Disk, Life, Sim, SIMULATED};
use super::knobs::Knobs;
use super::linear::Operation;
use super::network::{Faults, Peer, Ways, TICK};
use super::report::{Failure, Report};
use super::schedule::{self, Event, What, Whom, EPOCH};
use crate::clock::Timestamp;
use crate::state::RaftId;
use crate::store::memory::Trouble;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// Milliseconds of the shortest election timeout.
pub(super) const ELECTION: u64 = 16 * TICK;
/// Ticks in which the cluster must form.
const FORM_WITHIN: u64 = 4_000;
/// Ticks that a caller waits.
pub(super) const PATIENCE: u64 = 300;
/// Requests that are open at one time; more callers go away.
const MAX_OPEN: usize = 40;

pub(super) struct Chaos {
    pub(super) sim: Sim,
    pub(super) report: Report,
    pub(super) knobs: Knobs,
    /// Peers that are no members under the Raft id that they have now, and when to ask for them again.
    pub(super) outside: BTreeMap<Peer, (Option<Ticket>, u64)>,
    /// The voter that is lost, or on its way out.
    pub(super) going: Option<RaftId>,
    /// Removed Raft ids that have asked to be let in again.
    pub(super) returned: BTreeSet<RaftId>,
    /// Raft ids of whose removal somebody was told by the cluster.
    pub(super) gone: BTreeSet<RaftId>,
    pub(super) history: BTreeMap<String, Vec<(Ticket, Operation)>>,
}

/// Runs one seed with these knobs.
///
/// # Errors
/// The promise that was broken.
pub fn run(seed: u64, knobs: &Knobs) -> Result<Report, Failure> {
    run_events(seed, knobs, &schedule::draw(seed, knobs), None)
}

/// Runs one seed with a schedule that may be a part of its own, and tells everything to `trace`.
///
/// # Errors
/// The promise that was broken.
pub fn run_events(
    seed: u64,
    knobs: &Knobs,
    events: &[Event],
    trace: Option<Box<dyn Write>>,
) -> Result<Report, Failure> {
    let mut chaos = Chaos::new(seed, knobs);
    chaos.sim.trace = trace;
    // raft-rs answers an impossible state with a panic, and so does any mistake of ours.
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| chaos.all(events)));
    let ended = ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        Err(broken("panic", format!("a peer panicked: {text}")))
    });
    let at = chaos.sim.ms;
    match ended {
        Ok(()) => Ok(chaos.report),
        Err(Broken { kind, sentence }) => {
            // A driver that panicked is in no state to be taken apart.
            std::mem::forget(chaos);
            Err(Failure { seed, kind, sentence, at })
        }
    }
}

impl Chaos {
    fn new(seed: u64, knobs: &Knobs) -> Self {
        let mut sim = Sim::new(seed);
        sim.strict = true;
        sim.configure(|c| {
            c.max_voters = knobs.max_voters;
            c.max_append_entries = knobs.max_append_entries;
            c.trailing_logs = knobs.trailing_logs;
            c.snapshot_threshold = knobs.snapshot_threshold;
            c.snapshot_interval = Duration::from_millis(knobs.snapshot_interval);
        });
        sim.transfer = knobs.transfer;
        sim.disk = Disk { append: knobs.append, install: knobs.install, flush: knobs.flush };
        sim.network.ways = Ways { latency: knobs.latency, in_order: knobs.in_order, silent: knobs.silent };
        Chaos {
            sim,
            report: Report { runs: 1, ..Report::default() },
            knobs: knobs.clone(),
            outside: BTreeMap::new(),
            going: None,
            returned: BTreeSet::new(),
            gone: BTreeSet::new(),
            history: BTreeMap::new(),
        }
    }

    fn all(&mut self, events: &[Event]) -> Result<(), Broken> {
        self.form()?;
        let begin = self.sim.ms;
        for event in events {
            self.until(begin + event.at)?;
            self.sim.note(|| format!("-- {event}"));
            self.strike(&event.what)?;
        }
        self.until(begin + self.knobs.trouble)?;
        self.repair()?;
        self.last_words()?;
        self.verify()
    }

    /// Lets time pass, tick by tick, and looks after who wants to be a member.
    pub(super) fn until(&mut self, end: u64) -> Result<(), Broken> {
        while self.sim.ms < end {
            self.call_outsiders();
            let next = (self.sim.ms + TICK).min(end);
            self.sim.advance(next)?;
            self.collect();
        }
        Ok(())
    }

    fn form(&mut self) -> Result<(), Broken> {
        let cannot = |e: crate::Error| broken("forming", format!("the cluster cannot be founded: {e}"));
        let Knobs { peers, founders, late, version, .. } = self.knobs;
        if founders > 1 {
            let set: Vec<Peer> = (1..=founders).collect();
            self.sim.found_together(&set, version).map_err(cannot)?;
        } else {
            self.sim.found(1).map_err(cannot)?;
        }
        for peer in founders + 1..=peers - late {
            self.sim.join(peer).map_err(cannot)?;
            self.outside.insert(peer, (None, 0));
        }
        let limit = self.sim.ms + FORM_WITHIN * TICK;
        while !(self.outside.is_empty() && self.sim.is_settled()) {
            if self.sim.ms > limit {
                return Err(broken("forming", format!("the cluster did not form: {}", self.sim.describe())));
            }
            self.until(self.sim.ms + TICK)?;
        }
        Ok(())
    }

    fn whom(&self, whom: Whom) -> Option<Peer> {
        match whom {
            Whom::Peer(peer) => Some(peer).filter(|p| self.sim.nodes.contains_key(p)),
            Whom::Leader => self.sim.leader(),
        }
    }

    fn strike(&mut self, what: &What) -> Result<(), Broken> {
        let sim = &mut self.sim;
        let up = |sim: &Sim, peer: &Peer| sim.is_up(*peer);
        let count = &mut self.report;
        match what {
            What::Ask(peer, request) => {
                let known = !matches!(request, Request::Refresh(p, _) if !sim.nodes.contains_key(p));
                if known && up(sim, peer) && sim.open_requests() < MAX_OPEN {
                    sim.ask(*peer, request.clone(), PATIENCE);
                }
            }
            What::Faults(faults) => {
                sim.set_faults(*faults);
                count.count("bad network", u64::from(*faults != Faults::default()));
            }
            What::Crash(whom) => {
                if let Some(peer) = self.whom(*whom).filter(|p| self.sim.is_up(*p)) {
                    self.sim.crash(peer);
                    self.report.count("crash", 1);
                }
            }
            What::CrashMid(whom) => {
                if let Some(peer) = self.whom(*whom) {
                    if let Some(node) = self.sim.nodes.get_mut(&peer).filter(|n| n.driver.is_some()) {
                        node.doomed = true;
                    }
                }
            }
            What::Restart(peer) => self.restart(*peer)?,
            What::RestartAll => self.restart_all()?,
            What::Pause(whom, long) => {
                if let Some(peer) = self.whom(*whom).filter(|p| self.sim.is_up(*p)) {
                    self.sim.pause(peer, *long);
                    self.report.count("pause", 1);
                }
            }
            What::CutOneWay(from, to) => {
                sim.network.cut(*from, *to);
                count.count("cut one way", 1);
            }
            What::Cut(a, b) => {
                sim.cut(*a, *b);
                count.count("cut", 1);
            }
            What::Split(mask) => {
                let side = |peer: Peer| mask & 1 << (peer - 1) != 0;
                let peers = sim.peers();
                for (a, b) in peers.iter().flat_map(|a| peers.iter().map(move |b| (*a, *b))) {
                    if side(a) != side(b) {
                        sim.network.cut(a, b);
                    }
                }
                count.count("split", 1);
            }
            What::Isolate(whom) => {
                if let Some(peer) = self.whom(*whom) {
                    self.sim.isolate(peer);
                    self.report.count("isolate", 1);
                }
            }
            What::Mute(whom) => {
                if let Some(peer) = self.whom(*whom) {
                    self.sim.peers().into_iter().for_each(|other| self.sim.network.cut(peer, other));
                    self.report.count("mute", 1);
                }
            }
            What::Heal => {
                sim.heal();
                count.count("heal", 1);
            }
            What::SlowDisk(peer, times) => {
                let slow = |(least, most): (u64, u64)| (least * times, (most + 1) * times);
                let Disk { append, install, flush } = sim.disk;
                if let Some(node) = sim.nodes.get_mut(peer) {
                    node.disk = Disk { append: slow(append), install: slow(install), flush: slow(flush) };
                    count.count("slow disk", 1);
                }
            }
            What::QuickDisk(peer) => {
                let disk = sim.disk;
                sim.nodes.get_mut(peer).into_iter().for_each(|n| n.disk = disk);
            }
            What::BreakDisk(whom, wrote) => {
                if let Some(peer) = self.whom(*whom) {
                    let trouble = if *wrote { Trouble::FailsLate } else { Trouble::Fails };
                    self.sim.trouble_disk(peer, trouble);
                    self.report.count(if *wrote { "disk error that wrote" } else { "broken disk" }, 1);
                }
            }
            What::FillDisk(peer, wholly) => {
                let full = "the simulated disk is nearly full";
                if let Some(node) = sim.nodes.get(peer) {
                    node.state.set_full(Some(full.to_owned()));
                    count.count(if *wholly { "full disk, stopped" } else { "full disk, refused" }, 1);
                }
                if *wholly {
                    sim.trouble_disk(*peer, Trouble::Full);
                }
            }
            What::Room(peer) => self.make_room(*peer),
            What::Wipe(peer) => self.wipe(*peer)?,
            What::Remove(peer, at) => self.remove(*peer, *at),
            What::Join(peer) => self.join(*peer)?,
            What::HandOver(whom) => {
                if let Some(peer) = self.whom(*whom).filter(|p| self.sim.is_up(*p)) {
                    self.sim.ask(peer, Request::HandOver, PATIENCE);
                    self.report.count("leadership handed over", 1);
                }
            }
            What::Skew(peer, every) => {
                if let Some(node) = sim.nodes.get_mut(peer) {
                    node.every = *every;
                    count.count("skewed ticks", 1);
                }
            }
            What::Clock(peer, ahead) => {
                if let Some(node) = sim.nodes.get_mut(peer) {
                    node.clock = *ahead;
                    count.count(if *ahead == -EPOCH { "clock at 1970" } else { "clock jump" }, 1);
                }
            }
            What::Sweep => self.sweep()?,
        }
        Ok(())
    }

    /// The leader removes the pins that have ended by its own clock, whatever that says.
    fn sweep(&mut self) -> Result<(), Broken> {
        let Some(leader) = self.sim.leader() else { return Ok(()) };
        let ahead = self.sim.nodes.get(&leader).map_or(0, |n| n.clock);
        let now = Timestamp::from_secs(EPOCH + (self.sim.ms / 1_000) as i64 + ahead);
        let pins = self.sim.pinned(leader).map_err(|e| broken("unreadable", e.to_string()))?;
        for pin in pins.into_iter().filter(|p| !p.expire_at.is_zero() && p.expire_at <= now) {
            if self.sim.open_requests() < MAX_OPEN {
                self.sim.ask(leader, Request::Expire(pin.name, pin.expire_at.secs), PATIENCE);
            }
        }
        self.report.count("sweep", 1);
        Ok(())
    }

    fn restart(&mut self, peer: Peer) -> Result<(), Broken> {
        match self.sim.life(peer) {
            Life::Up => return Ok(()),
            Life::Failed(why) if !why.contains(SIMULATED) => {
                return Err(broken("a peer stopped", format!("peer {peer} stopped by itself: {why}")));
            }
            Life::Failed(_) | Life::Down => (),
        }
        if !self.sim.nodes.contains_key(&peer) {
            return Ok(());
        }
        self.make_room(peer);
        self.sim.trouble_disk(peer, Trouble::None);
        if self.sim.life(peer) != Life::Down {
            self.sim.crash(peer);
        }
        let started = self.sim.restart(peer);
        started.map_err(|e| broken("no restart", format!("peer {peer} does not start again: {e}")))?;
        self.report.count("restart", 1);
        Ok(())
    }

    pub(super) fn restart_all(&mut self) -> Result<(), Broken> {
        self.sim.peers().into_iter().try_for_each(|peer| self.restart(peer))
    }

    fn make_room(&mut self, peer: Peer) {
        if let Some(node) = self.sim.nodes.get(&peer) {
            node.state.set_full(None);
        }
    }

    /// Whether this peer's vote may be lost for good (`dead`), or leave with all it has: nobody else's is, the other
    /// voters are a majority without it, and all of them know who votes. One that may be promoted at any moment counts
    /// as a voter.
    fn may_lose(&mut self, id: RaftId, dead: bool) -> bool {
        let Some(members) = self.sim.checks.model.members() else { return false };
        if self.going.is_some_and(|going| members.contains_key(&going)) {
            return false;
        }
        // Whoever does not know of the last change of members may still need a vote that has become worth nothing.
        let since = self.sim.checks.model.members_since();
        let knows = |id: &RaftId| {
            let peer = self.sim.who(*id).and_then(|peer| self.sim.nodes.get(&peer));
            let driver = peer.filter(|n| !n.is_busy()).and_then(|n| n.driver.as_ref());
            driver.is_some_and(|d| d.status().applied >= since)
        };
        if dead && !members.keys().filter(|other| **other != id).all(knows) {
            return false;
        }
        self.going = None;
        let voters: BTreeSet<RaftId> = self.sim.checks.voters().chain([id]).collect();
        !dead || !members.contains_key(&id) || voters.len() >= 3
    }

    fn wipe(&mut self, peer: Peer) -> Result<(), Broken> {
        let Some(id) = self.sim.raft_id(peer) else { return Ok(()) };
        if !self.may_lose(id, true) {
            return Ok(());
        }
        self.going = Some(id);
        self.report.count("wipe", 1);
        self.begin_anew(peer)
    }

    fn begin_anew(&mut self, peer: Peer) -> Result<(), Broken> {
        self.sim.crash(peer);
        let joined = self.sim.join(peer);
        joined.map_err(|e| broken("no restart", format!("peer {peer} cannot begin anew: {e}")))?;
        self.outside.insert(peer, (None, 0));
        Ok(())
    }

    fn remove(&mut self, peer: Peer, at: Peer) {
        let Some(id) = self.sim.raft_id(peer) else { return };
        let members = self.sim.checks.model.members().map_or(0, |m| m.len());
        if members > 1 && self.sim.is_up(at) && self.may_lose(id, false) {
            self.going = Some(id);
            self.sim.ask(at, Request::Remove(peer), PATIENCE);
            self.report.count("removal", 1);
        }
    }

    /// A peer that was removed, or was never there, begins anew: as soon as it says so itself, or somebody who wanted its
    /// removal or its return was told so.
    pub(super) fn join(&mut self, peer: Peer) -> Result<(), Broken> {
        let id = self.sim.raft_id(peer);
        let outside = id.is_none_or(|id| self.sim.checks.model.is_removed(id));
        if outside && peer <= self.knobs.peers {
            if let Some(id) = id.filter(|id| self.sim.is_up(peer) && !self.returned.contains(id)) {
                // First it tries to come back with what it has; that is refused, or the members will tell.
                self.returned.insert(id);
                let at = self.sim.leader().unwrap_or(peer);
                self.sim.ask(at, Request::Add(peer), PATIENCE);
                return Ok(());
            }
            if id.is_some_and(|id| {
                !self.sim.status(peer).is_some_and(|s| s.removed) && !self.gone.contains(&id)
            }) {
                return self.restart(peer);
            }
            self.report.count("join", 1);
            self.begin_anew(peer)?;
        }
        Ok(())
    }

    /// Asks for those that are outside to be let in.
    pub(super) fn call_outsiders(&mut self) {
        let now = self.sim.ms;
        let members = self.sim.checks.model.members();
        let inside = |peer: Peer| {
            let id = self.sim.raft_id(peer).unwrap_or(0);
            members.is_some_and(|m| m.contains_key(&id))
        };
        let arrived: Vec<Peer> = self.outside.keys().copied().filter(|p| inside(*p)).collect();
        self.outside.retain(|peer, _| !arrived.contains(peer));
        let waiting: Vec<Peer> =
            self.outside.iter().filter(|(_, (t, at))| t.is_none() && *at <= now).map(|(p, _)| *p).collect();
        for peer in waiting {
            let others: Vec<Peer> =
                self.sim.peers().into_iter().filter(|p| *p != peer && self.sim.is_up(*p)).collect();
            let at = self.sim.leader().or(others.get(now as usize / 100 % others.len().max(1)).copied());
            if let Some(at) = at.filter(|_| self.sim.is_up(peer)) {
                let ticket = self.sim.ask(at, Request::Add(peer), PATIENCE);
                self.outside.insert(peer, (Some(ticket), now));
            }
        }
    }
}
