//! The founding on virtual time, over a network that loses, doubles and delays, between peers that crash and come
//! back: never two initial configurations, and one in the end.
//!
//! Two ways to make trouble, each a function of its seed: [`storm`] is a bad day, with crashes, losses and peers that
//! come and go, after which everybody must know what was chosen; [`disorder`] lets ballots and their answers arrive
//! in any order whatever, by whatever life of a peer they were sent. The peers are [`Founding`]s, the very code that
//! ships; their disks are [`Record`]s. Whatever more than half have durably accepted is chosen, whether
//! anybody knows it or not: two such plans, or one that breaks the rules, end the run with a sentence.

use super::Rng;
use crate::consensus::founding::{
    majority, Answer, Ask, AskKind, Ballot, Founder, Founding, Mail, Plan, Record,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One step of virtual time, ms.
const STEP: u64 = 50;
/// A call without an answer fails after this long, ms.
const CALL: u64 = 3_000;

pub(crate) fn peer(n: usize) -> String {
    // Real ids, so that the plan can be checked like one from the network.
    let mut seed = [7; 32];
    seed[0] = n as u8;
    let key = libp2p::identity::Keypair::ed25519_from_bytes(seed).expect("a key");
    key.public().to_peer_id().to_string()
}

pub(crate) fn list_of(n: usize) -> Vec<String> {
    let mut list: Vec<String> = (0..n).map(peer).collect();
    list.sort();
    list
}

pub(crate) fn founder(peer: &str, raft_id: u64) -> Founder {
    let addresses = vec!["/ip4/10.0.0.1/tcp/9096".to_owned()];
    Founder {
        peer: peer.to_owned(),
        raft_id,
        name: format!("n{raft_id}"),
        addresses,
        voter: false,
        release: crate::VERSION.into(),
    }
}

pub(crate) enum Packet {
    Ask(Ask),
    Answer(AskKind, Answer),
}

pub(crate) struct Node {
    pub(crate) peer: String,
    raft_id: u64,
    /// What survives a crash.
    pub(crate) disk: Record,
    pub(crate) alive: Option<Founding>,
    /// Calls without an answer: to whom, what, since when.
    calls: VecDeque<(String, AskKind, u64)>,
}

pub(crate) struct World {
    rng: Rng,
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) wire: Vec<(u64, usize, usize, Packet)>,
    loss: u64,
    crashes: u64,
    /// Of a hundred messages that tell what was chosen, so many get lost besides: the fewer know, the more propose.
    blind: u64,
    /// What was found broken on the way.
    broken: Option<String>,
    /// Who has durably accepted what, by ballot: whatever more than half have accepted is chosen, known or not.
    accepts: BTreeMap<Ballot, (Plan, BTreeSet<usize>)>,
}

impl World {
    pub(crate) fn new(n: usize, seed: u64) -> World {
        let list = list_of(n);
        let nodes = list
            .iter()
            .enumerate()
            .map(|(i, peer)| Node {
                peer: peer.clone(),
                raft_id: 100 + i as u64,
                disk: Record::new(100 + i as u64, list.clone()),
                alive: None,
                calls: VecDeque::new(),
            })
            .collect();
        World {
            rng: Rng::new(seed << 32),
            now: 0,
            nodes,
            wire: Vec::new(),
            loss: 0,
            crashes: 0,
            blind: 0,
            broken: None,
            accepts: BTreeMap::new(),
        }
    }

    pub(crate) fn start(&mut self, i: usize) {
        let seed = self.rng.draw();
        let node = &mut self.nodes[i];
        let us = founder(&node.peer, node.raft_id);
        node.alive = Some(Founding::new(us, node.disk.clone(), 7, seed));
    }

    /// The plug is pulled: what was not on the disk is gone, and so is most of what was not on the wire yet.
    pub(crate) fn crash(&mut self, i: usize) {
        self.nodes[i].alive = None;
        self.nodes[i].calls.clear();
        let rng = &mut self.rng;
        self.wire.retain(|(_, from, _, _)| *from != i || rng.chance(30));
    }

    /// What the caller of [`Founding`] owes it: the record first. Now and then the power goes before or right after.
    fn save(&mut self, i: usize) -> bool {
        let Some(record) = self.nodes[i].alive.as_mut().and_then(Founding::unsaved) else { return true };
        let cut = self.rng.chance(self.crashes);
        if !cut || self.rng.chance(50) {
            if let Some((ballot, plan)) = &record.accepted {
                let entry = self.accepts.entry(ballot.clone()).or_insert((plan.clone(), BTreeSet::new()));
                if entry.0 != *plan {
                    self.broken = Some("two values under one ballot".into());
                }
                entry.1.insert(i);
            }
            self.nodes[i].disk = record;
        }
        if cut {
            self.crash(i);
        }
        !cut
    }

    fn post(&mut self, from: usize, to: usize, packet: impl Fn() -> Packet) {
        let tells = matches!(
            packet(),
            Packet::Ask(Ask { kind: AskKind::Chosen(_), .. }) | Packet::Answer(_, Answer::Chosen(_))
        );
        if tells && self.rng.chance(self.blind) {
            return;
        }
        let copies = if self.rng.chance(self.loss) { self.rng.below(3) } else { 1 };
        for _ in 0..copies {
            let late = if self.rng.chance(self.loss) { self.rng.below(8_000) } else { self.rng.below(100) };
            self.wire.push((self.now + late, from, to, packet()));
        }
    }

    fn send(&mut self, from: usize, mail: Mail) {
        for (to, ask) in mail {
            let to_index = self.nodes.iter().position(|n| n.peer == to).expect("a listed peer");
            self.nodes[from].calls.push_back((to, ask.kind.clone(), self.now));
            self.post(from, to_index, || Packet::Ask(ask.clone()));
        }
    }

    pub(crate) fn step(&mut self) {
        self.now += STEP;
        for i in 0..self.nodes.len() {
            let now = self.now;
            let Some(founding) = self.nodes[i].alive.as_mut() else { continue };
            let mut mail = founding.tick(now);
            while self.nodes[i].calls.front().is_some_and(|(_, _, since)| now >= since + CALL) {
                let (to, kind, _) = self.nodes[i].calls.pop_front().expect("just seen");
                let founding = self.nodes[i].alive.as_mut().expect("alive");
                mail.extend(founding.heard(now, &to, &kind, Err("no answer".into())));
            }
            if self.save(i) {
                self.send(i, mail);
            }
        }
        let mut due = Vec::new();
        let mut at = 0;
        while at < self.wire.len() {
            if self.wire[at].0 <= self.now {
                due.push(self.wire.swap_remove(at));
            } else {
                at += 1;
            }
        }
        for (_, from, to, packet) in due {
            let (now, sender) = (self.now, self.nodes[from].peer.clone());
            let Some(founding) = self.nodes[to].alive.as_mut() else { continue };
            match packet {
                Packet::Ask(ask) => {
                    let answer = founding.answer(now, &sender, &ask);
                    if self.save(to) {
                        self.post(to, from, || Packet::Answer(ask.kind.clone(), answer.clone()));
                    }
                }
                Packet::Answer(kind, answer) => {
                    let open = self.nodes[to].calls.iter().position(|(p, k, _)| *p == sender && *k == kind);
                    if let Some(open) = open {
                        self.nodes[to].calls.remove(open);
                    }
                    // Also those that come twice, or after the caller gave up: they must do no harm.
                    let founding = self.nodes[to].alive.as_mut().expect("alive");
                    let mail = founding.heard(now, &sender, &kind, Ok(answer));
                    if self.save(to) {
                        self.send(to, mail);
                    }
                }
            }
        }
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.step();
        }
    }

    /// What is chosen, whether anybody knows it or not.
    fn decided(&self) -> impl Iterator<Item = Plan> + '_ {
        let needed = majority(self.nodes.len());
        self.accepts.values().filter(move |(_, by)| by.len() >= needed).map(|(plan, _)| plan.clone())
    }

    /// What the peers know to be chosen, on disk or in memory.
    pub(crate) fn chosen(&self) -> Vec<Plan> {
        let on_disk = self.nodes.iter().filter_map(|n| n.disk.chosen.clone());
        let in_memory =
            self.nodes.iter().filter_map(|n| n.alive.as_ref().and_then(|f| f.record().chosen.clone()));
        on_disk.chain(in_memory).collect()
    }

    /// What must never be false.
    pub(crate) fn check(&self, seed: u64) -> Result<(), String> {
        if let Some(broken) = &self.broken {
            return Err(format!("seed {seed}: {broken}"));
        }
        let chosen: Vec<Plan> = self.chosen().into_iter().chain(self.decided()).collect();
        for plan in &chosen {
            if *plan != chosen[0] {
                return Err(format!("seed {seed}: two initial configurations"));
            }
            plan.check(&self.nodes[0].disk.list).map_err(|e| format!("seed {seed}: {e}"))?;
        }
        Ok(())
    }
}

impl World {
    /// Sends without time: questions about who is there are answered on the spot, so that everybody always proposes;
    /// ballots wait in the pool, in no order.
    fn throw(&mut self, from: usize, mail: Mail) {
        for (to, ask) in mail {
            let to = self.nodes.iter().position(|n| n.peer == to).expect("a listed peer");
            match ask.kind {
                AskKind::Hello => {
                    if let Some(Answer::Fresh) = self.ask_now(from, to, &ask) {
                        self.hear_now(from, to, &ask.kind, Ok(Answer::Fresh));
                    }
                }
                AskKind::Chosen(_) => {}
                _ => self.wire.push((0, from, to, Packet::Ask(ask))),
            }
        }
    }

    fn ask_now(&mut self, from: usize, to: usize, ask: &Ask) -> Option<Answer> {
        let (now, sender) = (self.now, self.nodes[from].peer.clone());
        let answer = self.nodes[to].alive.as_mut()?.answer(now, &sender, ask);
        self.save(to).then_some(answer)
    }

    fn hear_now(&mut self, at: usize, from: usize, kind: &AskKind, answer: Result<Answer, String>) {
        let (now, sender) = (self.now, self.nodes[from].peer.clone());
        let Some(founding) = self.nodes[at].alive.as_mut() else { return };
        let mail = founding.heard(now, &sender, kind, answer);
        if self.save(at) {
            self.throw(at, mail);
        }
    }

    /// One thing happens, anywhere.
    fn happen(&mut self) {
        let n = self.nodes.len() as u64;
        let pick = if self.wire.is_empty() { 99 } else { self.rng.below(100) };
        let at = self.rng.below(self.wire.len().max(1) as u64) as usize;
        match pick {
            // A ballot or its answer arrives, whenever it was sent and by whatever incarnation.
            0..=54 => match self.wire.swap_remove(at) {
                (_, from, to, Packet::Ask(ask)) => {
                    if let Some(answer) = self.ask_now(from, to, &ask) {
                        if !matches!(answer, Answer::Chosen(_)) {
                            self.wire.push((0, to, from, Packet::Answer(ask.kind, answer)));
                        }
                    }
                }
                (_, from, to, Packet::Answer(kind, answer)) => self.hear_now(to, from, &kind, Ok(answer)),
            },
            // It is lost, and its sender told so.
            55..=64 => {
                if let (_, from, to, Packet::Ask(ask)) = self.wire.swap_remove(at) {
                    self.hear_now(from, to, &ask.kind, Err("lost".into()));
                }
            }
            // It comes twice.
            65..=69 => {
                let (_, from, to, packet) = &self.wire[at];
                let copy = match packet {
                    Packet::Ask(ask) => Packet::Ask(ask.clone()),
                    Packet::Answer(kind, answer) => Packet::Answer(kind.clone(), answer.clone()),
                };
                let copy = (0, *from, *to, copy);
                self.wire.push(copy);
            }
            70..=74 => {
                let i = self.rng.below(n) as usize;
                self.nodes[i].alive = None;
            }
            _ => {
                let i = self.rng.below(n) as usize;
                if self.nodes[i].alive.is_none() {
                    self.start(i);
                }
                self.now += self.rng.below(400);
                let founding = self.nodes[i].alive.as_mut().expect("just started");
                let mail = founding.tick(self.now);
                if self.save(i) {
                    self.throw(i, mail);
                }
            }
        }
    }
}

/// A bad day; whether anything was decided during it.
///
/// # Errors
/// The promise that was broken.
pub fn storm(seed: u64) -> Result<bool, String> {
    let mut rng = Rng::new(seed);
    let n = 2 + rng.below(6) as usize;
    let mut world = World::new(n, seed);
    world.loss = 10 + rng.below(40);
    world.crashes = rng.below(10);
    world.blind = [0, 50, 95, 100][rng.below(4) as usize];
    for _ in 0..rng.below(20) {
        for i in 0..n {
            match (world.nodes[i].alive.is_some(), rng.below(10)) {
                (false, 0..=5) => world.start(i),
                (true, 0..=2) => world.crash(i),
                _ => {}
            }
        }
        world.run(500 + rng.below(4_000));
        world.check(seed)?;
    }
    let decided = world.decided().next().is_some();
    // The storm is over: in the end everybody knows.
    (world.loss, world.crashes, world.blind) = (0, 0, 0);
    for i in (0..n).filter(|i| world.nodes[*i].alive.is_none()).collect::<Vec<_>>() {
        world.start(i);
    }
    world.run(60_000);
    world.check(seed)?;
    if world.chosen().len() < 2 * n {
        return Err(format!("seed {seed}: not everybody knows what was chosen"));
    }
    Ok(decided)
}

/// Ballots in no order; whether anything was decided.
///
/// # Errors
/// The promise that was broken.
pub fn disorder(seed: u64) -> Result<bool, String> {
    let mut world = World::new(3 + 2 * (seed % 2) as usize, seed);
    world.crashes = 4;
    for _ in 0..400 {
        world.happen();
    }
    world.check(seed)?;
    let decided = world.decided().next().is_some();
    Ok(decided)
}
