//! A cluster under misfortune, and what must be true afterwards.
//!
//! The cluster is formed, then its [schedule](super::schedule) happens to it: everything that can go wrong does, while
//! callers go on asking. Then all is repaired, and within a bounded time a change is accepted again and all peers
//! agree, everybody who lost a disk or was removed is back as a new member, and what the callers saw from first to
//! last can be put into one order ([`super::linear`]).
//!
//! The misfortune stays within what a cluster promises to survive, and no more: at any time at most one voter is lost for
//! good or on its way out, and only where the others are a majority without it ([`Chaos::may_lose`]). Everything else
//! (crashes, partitions, broken disks) may strike everybody at once, because it passes.

use super::check::{broken, Broken};
use super::client::{Answer, Request, Ticket};
use super::cluster::{Disk, Life, Sim, SIMULATED};
use super::knobs::Knobs;
use super::linear::{self, Act, End, Operation, Verdict};
use super::network::{Faults, Peer, Ways, TICK};
use super::report::{Failure, Report};
use super::schedule::{self, Event, What, Whom, EPOCH};
use crate::clock::Timestamp;
use crate::error::Kind;
use crate::state::{RaftId, Role};
use crate::store::memory::Trouble;
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

/// Milliseconds of the shortest election timeout.
const ELECTION: u64 = 16 * TICK;
/// Election timeouts in which a repaired cluster must accept a change.
const ACCEPT_WITHIN: u64 = 40;
/// Election timeouts in which all peers of a repaired cluster must be members again and agree.
const AGREE_WITHIN: u64 = 250;
/// Ticks in which the cluster must form.
const FORM_WITHIN: u64 = 4_000;
/// Ticks that a caller waits.
const PATIENCE: u64 = 300;
/// Requests that are open at one time; more callers go away.
const MAX_OPEN: usize = 40;
/// Keys that hold for reading at the end, at each peer.
const LAST_WORDS: u64 = 400;
/// Where in the order a change is tried that is in no log: last.
const NOWHERE: u64 = u64::MAX;
/// Between two tries to make a peer a member.
const JOIN_AGAIN: u64 = 8 * TICK;

struct Chaos {
    sim: Sim,
    report: Report,
    knobs: Knobs,
    /// Peers that are no members under the Raft id that they have now, and when to ask for them again.
    outside: BTreeMap<Peer, (Option<Ticket>, u64)>,
    /// The voter that is lost, or on its way out.
    going: Option<RaftId>,
    /// Removed Raft ids that have asked to be let in again.
    returned: BTreeSet<RaftId>,
    history: BTreeMap<String, Vec<(Ticket, Operation)>>,
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
    fn until(&mut self, end: u64) -> Result<(), Broken> {
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

    fn restart_all(&mut self) -> Result<(), Broken> {
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
        let Some(id) = self.sim.nodes.get(&peer).map(|n| n.raft_id) else { return Ok(()) };
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
        let Some(id) = self.sim.nodes.get(&peer).map(|n| n.raft_id) else { return };
        let members = self.sim.checks.model.members().map_or(0, |m| m.len());
        if members > 1 && self.sim.is_up(at) && self.may_lose(id, false) {
            self.going = Some(id);
            self.sim.ask(at, Request::Remove(peer), PATIENCE);
            self.report.count("removal", 1);
        }
    }

    /// A peer that was removed, or was never there, begins anew.
    fn join(&mut self, peer: Peer) -> Result<(), Broken> {
        let removed = match self.sim.nodes.get(&peer) {
            Some(node) => self.sim.checks.model.is_removed(node.raft_id),
            None => true,
        };
        if removed && peer <= self.knobs.peers {
            let id = self.sim.nodes.get(&peer).map(|n| n.raft_id);
            if let Some(id) = id.filter(|id| self.sim.is_up(peer) && !self.returned.contains(id)) {
                // First it tries to come back with what it has; that is refused, or the members will tell.
                self.returned.insert(id);
                let at = self.sim.leader().unwrap_or(peer);
                self.sim.ask(at, Request::Add(peer), PATIENCE);
                return Ok(());
            }
            self.report.count("join", 1);
            self.begin_anew(peer)?;
        }
        Ok(())
    }

    /// Asks for those that are outside to be let in.
    fn call_outsiders(&mut self) {
        let now = self.sim.ms;
        let members = self.sim.checks.model.members();
        let inside = |peer: Peer| {
            let id = self.sim.nodes.get(&peer).map_or(0, |n| n.raft_id);
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

    fn collect(&mut self) {
        for (ticket, answer) in self.sim.answers() {
            self.answered(ticket, answer);
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let known = match &answer.result {
            Ok(_) => End::Done,
            Err(e) if self.sim.checks.model.is_refused(ticket, e.kind()) => End::Refused,
            Err(_) => End::Unknown,
        };
        if let Request::Add(peer) = *answer.request {
            let now = self.sim.ms;
            if let Some((waits, again)) = self.outside.get_mut(&peer).filter(|(t, _)| *t == Some(ticket)) {
                (*waits, *again) = (None, now + JOIN_AGAIN);
            }
            return;
        }
        if answer.request.is_command() {
            let report = &mut self.report;
            match known {
                End::Done => report.acknowledged += 1,
                End::Refused => report.refused += 1,
                End::Unknown => report.unknown += 1,
            }
        }
        // Refused before it was offered to anybody: nothing can have happened.
        if answer.result.as_ref().is_err_and(|e| e.kind() == Kind::Full) && answer.attempts == 0 {
            return;
        }
        for (name, act) in acts(ticket, &answer) {
            if matches!(act, Act::Read(_)) {
                self.report.reads += 1;
            }
            let (start, answered) = answer.span;
            let end = if known == End::Unknown { linear::NEVER } else { answered };
            let hint = answer.reading.as_ref().map_or(NOWHERE, |reading| 2 * reading.applied + 1);
            let operation = Operation { start, end, act, known, hint };
            let history = self.history.entry(name).or_default();
            // A retry may put a second entry into the log, but never after the answer.
            for _ in 1..self.sim.checks.model.places(ticket).len() {
                history.push((ticket, Operation { known: End::Unknown, ..operation.clone() }));
            }
            history.push((ticket, operation));
        }
    }

    /// The operations on one pin, with the log as an idea of their order.
    fn operations(&self, history: &[(Ticket, Operation)]) -> Vec<Operation> {
        let mut used: BTreeMap<Ticket, usize> = BTreeMap::new();
        let hinted = history.iter().map(|(ticket, operation)| {
            let nth = used.entry(*ticket).or_default();
            let place = self.sim.checks.model.places(*ticket).get(*nth).map(|index| 2 * index);
            *nth += 1;
            Operation { hint: place.unwrap_or(operation.hint), ..operation.clone() }
        });
        hinted.collect()
    }

    fn repair(&mut self) -> Result<(), Broken> {
        let sim = &mut self.sim;
        sim.note(|| "-- all is repaired".to_owned());
        sim.set_faults(Faults::default());
        sim.heal();
        let disk = sim.disk;
        for node in sim.nodes.values_mut() {
            (node.disk, node.every, node.clock, node.doomed) = (disk, TICK, 0, false);
            node.state.set_full(None);
            node.log.set_trouble(Trouble::None);
            node.state.set_trouble(Trouble::None);
        }
        self.restart_all()?;
        let healed = self.sim.ms;
        let (mut probe, mut accepted) = (None, None);
        while accepted.is_none() || !self.is_whole() {
            let now = self.sim.ms;
            let late = now > healed + AGREE_WITHIN * ELECTION
                || accepted.is_none() && now > healed + ACCEPT_WITHIN * ELECTION;
            if late {
                let what = if accepted.is_none() { "accepted no change" } else { "did not agree again" };
                return Err(broken(
                    "no progress",
                    format!(
                        "the repaired cluster {what} within {} ms; outside {:?}: {}",
                        now - healed,
                        self.outside,
                        self.sim.describe()
                    ),
                ));
            }
            self.restart_all()?;
            for peer in 1..=self.knobs.peers {
                self.join(peer)?;
            }
            if probe.is_none() {
                probe = self.sim.leader().map(|at| self.sim.ask(at, Request::pin("probe"), PATIENCE));
            }
            self.call_outsiders();
            self.sim.advance(now + TICK)?;
            for (ticket, answer) in self.sim.answers() {
                if Some(ticket) == probe {
                    probe = None;
                    if answer.result.is_ok() && accepted.is_none() {
                        accepted = Some(self.sim.ms - healed);
                    }
                }
                self.answered(ticket, answer);
            }
            if accepted.is_some() {
                probe = Some(0);
            }
        }
        self.report.to_accept = accepted.unwrap_or_default();
        self.report.to_agree = self.sim.ms - healed;
        Ok(())
    }

    /// Whether everybody is back, as many vote as may, and all agree.
    fn is_whole(&self) -> bool {
        let Some(members) = self.sim.checks.model.members() else { return false };
        let ids: BTreeSet<RaftId> = self.sim.nodes.values().map(|n| n.raft_id).collect();
        let voters = members.values().filter(|m| m.role == Role::Voter).count() as u64;
        self.sim.open_requests() == 0
            && self.outside.is_empty()
            && ids.iter().eq(members.keys())
            && voters >= self.knobs.peers.min(self.knobs.max_voters as u64)
            && self.sim.is_settled()
    }

    /// Every pin is read at every peer once more.
    fn last_words(&mut self) -> Result<(), Broken> {
        let names: Vec<String> = self.history.keys().cloned().collect();
        for peer in self.sim.peers() {
            for name in &names {
                self.sim.ask(peer, Request::Read(name.clone()), LAST_WORDS);
            }
        }
        let limit = self.sim.ms + LAST_WORDS * TICK;
        while self.sim.open_requests() > 0 && self.sim.ms < limit {
            self.until(self.sim.ms + TICK)?;
        }
        Ok(())
    }

    fn verify(&mut self) -> Result<(), Broken> {
        if let Some(ticket) = self.sim.checks.told_too_early() {
            return Err(broken(
                "false acknowledgement",
                format!("request {ticket} was answered, but never committed"),
            ));
        }
        let mut checks = std::mem::take(&mut self.sim.checks);
        for (peer, node) in &self.sim.nodes {
            let Some(driver) = &node.driver else { continue };
            checks.compare(*peer, node, driver.status().applied)?;
            driver.machine().verify().map_err(|e| {
                broken("digest", format!("the digest of peer {peer} is not that of its rows: {e}"))
            })?;
        }
        self.sim.checks = checks;
        for (name, history) in &self.history {
            let operations = self.operations(history);
            match linear::check(&operations) {
                Verdict::Fine => self.report.ordered += operations.len() as u64,
                Verdict::Undecided => self.report.undecided += operations.len() as u64,
                Verdict::Impossible => {
                    let seen: Vec<String> = operations
                        .iter()
                        .map(|o| format!("{}..{} {:?} {:?}", o.start, o.end, o.act, o.known))
                        .collect();
                    return Err(broken(
                        "no order",
                        format!("what was seen of {name} can be put into no order:\n  {}", seen.join("\n  ")),
                    ));
                }
            }
        }
        let (sim, report) = (&self.sim, &mut self.report);
        report.steps = sim.happened;
        report.millis = sim.ms;
        report.leaders = sim.checks.leaders();
        report.compared = sim.checks.compared;
        report.hash = sim.hash;
        report.count("crash in a turn", sim.torn.0);
        report.count("crash in a turn that found the write done", sim.torn.1);
        report.count("frames lost", sim.network.lost);
        report.count("frames doubled", sim.network.doubled);
        report.count("frames late", sim.network.late);
        report.faults.retain(|_, times| *times > 0);
        Ok(())
    }
}

/// What an answer says about single pins.
fn acts(ticket: Ticket, answer: &Answer) -> Vec<(String, Act)> {
    let value = |wish: &super::Wish| super::Value {
        version: ticket,
        direct: wish.direct,
        holders: vec![id(wish.holder)],
        expires: wish.expires,
    };
    match &*answer.request {
        Request::Pin(wish) => vec![(wish.name.clone(), Act::Put(value(wish)))],
        Request::PinMany(wishes) => {
            // Of two under one name the later is left; all are recursive, so that none is refused.
            let last: BTreeMap<&String, Act> =
                wishes.iter().map(|wish| (&wish.name, Act::Put(value(wish)))).collect();
            last.into_iter().map(|(name, act)| (name.clone(), act)).collect()
        }
        Request::Unpin(name) => vec![(name.clone(), Act::Remove)],
        Request::Move(name, from, to) => vec![(name.clone(), Act::Move(id(*from), id(*to)))],
        Request::Expire(name, expires) => vec![(name.clone(), Act::Expire(*expires))],
        Request::Read(name) => {
            let seen = answer.reading.as_ref().map(|r| (name.clone(), Act::Read(r.value.clone())));
            seen.into_iter().collect()
        }
        Request::Refresh(..)
        | Request::Raise(_)
        | Request::Add(_)
        | Request::Remove(_)
        | Request::HandOver => Vec::new(),
    }
}

fn id(peer: Peer) -> PeerId {
    super::cluster::peer_id(peer)
}
