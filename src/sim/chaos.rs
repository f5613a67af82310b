//! A cluster under random misfortune, and what must be true afterwards.
//!
//! For a while, everything that can go wrong does: frames are lost, doubled, late and out of order; peers crash, lose
//! their disks, are removed and come back; links fail; snapshots break off. Callers keep pinning and
//! unpinning. Then all is repaired, and within a bounded time: all peers agree, what was acknowledged is there (and
//! what was acknowledged as removed is not), no read was older than its asking, and who was removed stays
//! removed. Which invariants hold at every moment is in [`super::check`].
//!
//! A run is its seed: [`run`] with the same number does the same again.

use super::network::Peer;
use super::{Answer, Faults, Life, Request, Rng, Sim};
use crate::state::RaftId;
use std::collections::{BTreeMap, BTreeSet};

/// Ticks of misfortune in one run.
const TROUBLE: u64 = 1_000;
/// Ticks in which a repaired cluster must agree again.
const RECOVERY: u64 = 2_000;
/// Ticks that a caller waits.
const PATIENCE: u64 = 300;
/// Peers in the cluster.
const PEERS: u64 = 5;

/// What a run did: the reader of a test's output sees that it was no quiet one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Changes that were acknowledged.
    pub acknowledged: u64,
    /// Changes that were refused or not answered.
    pub refused: u64,
    /// Reads that were confirmed.
    pub reads: u64,
    /// Crashes.
    pub crashes: u64,
    /// Disks that failed at a write.
    pub broken_disks: u64,
    /// Disks lost.
    pub wipes: u64,
    /// Members removed.
    pub removals: u64,
    /// The last term.
    pub term: u64,
}

struct Chaos {
    sim: Sim,
    rng: Rng,
    report: Report,
    names: u64,
    /// Name → whether it must be there at the end; `None` when that is not known.
    wanted: BTreeMap<String, Option<bool>>,
    busy: BTreeSet<String>,
    /// Highest index acknowledged so far, and what it was when each read was asked.
    acknowledged: u64,
    reads: BTreeMap<u64, (u64, Peer, u64)>,
    /// Peers that have lost their disks or were removed and ask to be added.
    joining: BTreeMap<Peer, Option<u64>>,
    removing: BTreeMap<u64, (Peer, RaftId)>,
    gone: BTreeSet<RaftId>,
    calm_until: u64,
}

/// Runs one seed.
///
/// # Errors
/// The sentence of what was broken, with the seed.
pub fn run(seed: u64) -> Result<Report, String> {
    let mut chaos = Chaos {
        sim: Sim::new(seed),
        rng: Rng::new(!seed),
        report: Report::default(),
        names: 0,
        wanted: BTreeMap::new(),
        busy: BTreeSet::new(),
        acknowledged: 0,
        reads: BTreeMap::new(),
        joining: BTreeMap::new(),
        removing: BTreeMap::new(),
        gone: BTreeSet::new(),
        calm_until: 0,
    };
    chaos.all().map(|()| chaos.report).map_err(|why| format!("seed {seed}: {why}"))
}

impl Chaos {
    fn all(&mut self) -> Result<(), String> {
        self.form()?;
        let end = self.sim.now() + TROUBLE;
        while self.sim.now() < end {
            self.misfortune()?;
            self.callers();
            self.sim.tick()?;
            self.collect()?;
        }
        self.repair()?;
        self.verify()
    }

    fn form(&mut self) -> Result<(), String> {
        self.sim.found(1).map_err(|e| e.to_string())?;
        for peer in 2..=PEERS {
            self.sim.join(peer).map_err(|e| e.to_string())?;
            let answer = self.sim.ask_and_wait(1, Request::Add(peer), PATIENCE)?;
            answer.result.map_err(|e| format!("peer {peer} cannot join: {e}"))?;
        }
        let formed = |sim: &Sim| sim.is_settled() && voters(sim) == PEERS as usize;
        if !self.sim.run_until(RECOVERY, formed)? {
            return Err("the cluster did not form".to_owned());
        }
        Ok(())
    }

    fn misfortune(&mut self) -> Result<(), String> {
        if !self.rng.chance(8) {
            return Ok(());
        }
        let peers = self.sim.peers();
        let Some(peer) = self.rng.pick(&peers) else { return Ok(()) };
        match self.rng.below(15) {
            0 | 1 => {
                let faults = Faults {
                    drop: self.rng.below(20),
                    duplicate: self.rng.below(10),
                    delay: self.rng.below(5),
                    break_snapshot: self.rng.below(40),
                };
                self.sim.set_faults(faults);
            }
            2 => self.sim.set_faults(Faults::default()),
            3 | 4 if self.sim.is_up(peer) => {
                self.report.crashes += 1;
                self.sim.crash(peer);
            }
            5..=7 => self.start_all_down()?,
            8 => self.sim.isolate(peer),
            9 => {
                let other = self.rng.pick(&peers).unwrap_or(peer);
                self.sim.cut(peer, other);
            }
            10 | 11 => self.sim.heal(),
            12 => self.wipe(peer)?,
            13 => {
                // The next write fails: what had left before it has left.
                self.report.broken_disks += 1;
                self.sim.fail_disk(peer, true);
            }
            _ => self.remove(peer),
        }
        Ok(())
    }

    fn start_all_down(&mut self) -> Result<(), String> {
        for peer in self.sim.peers() {
            match self.sim.life(peer) {
                Life::Up => (),
                Life::Down => {
                    self.sim.restart(peer).map_err(|e| format!("peer {peer} does not start again: {e}"))?;
                }
                Life::Failed(why) if why.contains("simulated disk") => {
                    self.sim.fail_disk(peer, false);
                    self.sim.crash(peer);
                    self.sim.restart(peer).map_err(|e| format!("peer {peer} does not start again: {e}"))?;
                }
                Life::Failed(why) => return Err(format!("peer {peer} stopped by itself: {why}")),
            }
        }
        Ok(())
    }

    /// Whether losing one more voter for good is survived: all peers are there, nobody is on the way in or out.
    fn is_whole(&self) -> bool {
        self.sim.now() >= self.calm_until
            && self.joining.is_empty()
            && self.removing.is_empty()
            && self.sim.peers().iter().all(|p| self.sim.is_up(*p))
            && voters(&self.sim) == PEERS as usize
    }

    fn wipe(&mut self, peer: Peer) -> Result<(), String> {
        if self.is_whole() {
            self.report.wipes += 1;
            self.calm_until = self.sim.now() + 100;
            if let Some(old) = self.sim.member(peer) {
                self.gone.insert(old.raft_id);
            }
            self.sim.crash(peer);
            self.sim.join(peer).map_err(|e| e.to_string())?;
            self.joining.insert(peer, None);
        }
        Ok(())
    }

    fn remove(&mut self, peer: Peer) {
        if self.is_whole() {
            let peers = self.sim.peers();
            let at = self.rng.pick(&peers).unwrap_or(peer);
            let Some(member) = self.sim.member(peer) else { return };
            let ticket = self.sim.ask(at, Request::Remove(peer), PATIENCE);
            self.removing.insert(ticket, (peer, member.raft_id));
        }
    }

    fn callers(&mut self) {
        let peers = self.sim.peers();
        let Some(at) = self.rng.pick(&peers) else { return };
        match self.rng.below(10) {
            0..=3 if self.sim.open_requests() < 40 => {
                self.names += 1;
                let name = format!("pin{}", self.names);
                self.busy.insert(name.clone());
                self.wanted.insert(name.clone(), None);
                self.sim.ask(at, Request::Pin(name), PATIENCE);
            }
            4 => {
                let there = |(n, w): (&String, &Option<bool>)| (*w == Some(true)).then(|| n.clone());
                let free: Vec<String> =
                    self.wanted.iter().filter_map(there).filter(|n| !self.busy.contains(n)).collect();
                if let Some(name) = free.get(self.rng.below(free.len() as u64) as usize) {
                    self.busy.insert(name.clone());
                    self.wanted.insert(name.clone(), None);
                    self.sim.ask(at, Request::Unpin(name.clone()), PATIENCE);
                }
            }
            6 => {
                // Any pin, from anywhere to anywhere: what is not as the move says must stay as it is, on every peer.
                let name = format!("pin{}", self.rng.below(self.names + 1));
                let (from, to) = (1 + self.rng.below(3) as Peer, 1 + self.rng.below(3) as Peer);
                self.sim.ask(at, Request::Move(name, from, to), PATIENCE);
            }
            5 => {
                let ticket = self.sim.ask(at, Request::Read, PATIENCE);
                self.reads.insert(ticket, (self.acknowledged, at, self.sim.lives(at)));
            }
            _ => (),
        }
        for (peer, ticket) in self.joining.clone() {
            if ticket.is_none() && at != peer {
                let ticket = self.sim.ask(at, Request::Add(peer), PATIENCE);
                self.joining.insert(peer, Some(ticket));
            }
        }
    }

    fn collect(&mut self) -> Result<(), String> {
        for (ticket, answer) in self.sim.answers() {
            self.answered(ticket, answer)?;
        }
        Ok(())
    }

    fn answered(&mut self, ticket: u64, answer: Answer) -> Result<(), String> {
        let good = answer.result.as_ref().ok().copied();
        match answer.request {
            Request::Pin(name) | Request::Unpin(name) if good.is_none() => {
                // It may still be committed: nobody knows.
                self.report.refused += 1;
                self.wanted.insert(name, None);
            }
            Request::Pin(name) => {
                self.acknowledge(good);
                self.busy.remove(&name);
                self.wanted.insert(name, Some(true));
            }
            Request::Unpin(name) => {
                self.acknowledge(good);
                self.wanted.insert(name, Some(false));
            }
            Request::Read => {
                let (floor, at, life) = self.reads.remove(&ticket).unwrap_or_default();
                // A peer that crashed right after confirming replays its log: what it has now says nothing.
                if good.is_some() && life == self.sim.lives(at) {
                    self.report.reads += 1;
                    let applied = self.sim.status(at).map_or(u64::MAX, |s| s.applied);
                    if applied < floor {
                        return Err(format!(
                            "a read at peer {at} was confirmed at entry {applied}, but entry {floor} was acknowledged before it was asked"
                        ));
                    }
                }
            }
            Request::Add(peer) => {
                if good.is_some() {
                    self.joining.remove(&peer);
                } else if let Some(ticket) = self.joining.get_mut(&peer) {
                    *ticket = None;
                }
            }
            Request::Remove(_) => {
                if let Some((peer, raft_id)) = self.removing.remove(&ticket) {
                    if good.is_some() {
                        self.report.removals += 1;
                        self.gone.insert(raft_id);
                    }
                    // Whatever the answer: it comes back with empty disks, as a new one.
                    if self.sim.member(peer).is_some_and(|m| m.raft_id == raft_id) {
                        self.gone.insert(raft_id);
                        self.sim.crash(peer);
                        self.sim.join(peer).map_err(|e| e.to_string())?;
                        self.joining.insert(peer, None);
                    }
                }
            }
            Request::HandOver | Request::Move(..) => (),
        }
        Ok(())
    }

    fn acknowledge(&mut self, index: Option<u64>) {
        self.report.acknowledged += 1;
        self.acknowledged = self.acknowledged.max(index.unwrap_or(0));
    }

    fn repair(&mut self) -> Result<(), String> {
        self.sim.set_faults(Faults::default());
        self.sim.heal();
        self.sim.peers().into_iter().for_each(|p| self.sim.fail_disk(p, false));
        self.start_all_down()?;
        for _ in 0..RECOVERY {
            let done = self.sim.open_requests() == 0 && self.joining.is_empty();
            if done && self.sim.is_settled() && voters(&self.sim) == PEERS as usize {
                return Ok(());
            }
            let at = self.sim.leader().unwrap_or(1);
            for (peer, ticket) in self.joining.clone() {
                if ticket.is_none() && at != peer {
                    let ticket = self.sim.ask(at, Request::Add(peer), PATIENCE);
                    self.joining.insert(peer, Some(ticket));
                }
            }
            self.sim.tick()?;
            self.collect()?;
            self.start_all_down()?;
        }
        let each: Vec<String> = self
            .sim
            .peers()
            .iter()
            .map(|p| match self.sim.status(*p) {
                Some(s) => format!(
                    "{p}: id {} term {} leader {:?} committed {} applied {} log {:?}{}",
                    s.raft_id,
                    s.term,
                    s.leader,
                    s.committed,
                    s.applied,
                    self.sim.driver(*p).map(|d| d.log_bounds()).unwrap_or_default(),
                    if s.removed { " removed" } else { "" }
                ),
                None => format!("{p}: {:?}", self.sim.life(*p)),
            })
            .collect();
        Err(format!(
            "the cluster did not agree again within {RECOVERY} ticks ({} voters, {} requests open, joining {:?}): {}",
            voters(&self.sim),
            self.sim.open_requests(),
            self.joining,
            each.join("; ")
        ))
    }

    fn verify(&mut self) -> Result<(), String> {
        for peer in self.sim.peers() {
            let pins: BTreeSet<String> =
                self.sim.pins(peer).map_err(|e| e.to_string())?.into_iter().collect();
            for (name, wanted) in &self.wanted {
                match wanted {
                    Some(true) if !pins.contains(name) => {
                        return Err(format!("{name} was acknowledged and is not on peer {peer}"));
                    }
                    Some(false) if pins.contains(name) => {
                        return Err(format!("{name} was acknowledged as removed and is on peer {peer}"));
                    }
                    _ => (),
                }
            }
            let members = self.sim.driver(peer).map(|d| d.members().clone()).unwrap_or_default();
            if let Some(back) = self.gone.iter().find(|id| members.contains_key(id)) {
                return Err(format!(
                    "Raft id {back} is gone for good, and peer {peer} takes it for a member"
                ));
            }
            self.report.term = self.report.term.max(self.sim.status(peer).map_or(0, |s| s.term));
        }
        Ok(())
    }
}

/// Voters in the leader's configuration.
fn voters(sim: &Sim) -> usize {
    let driver = sim.leader().and_then(|l| sim.driver(l));
    driver.map_or(0, |d| d.machine().conf_state().voters.len())
}
