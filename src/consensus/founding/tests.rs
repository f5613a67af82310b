//! The founding on virtual time, over a network that loses, doubles and delays, between peers that crash and come
//! back: never two initial configurations, and one in the end. The seed of a failing run is printed.

use super::*;
use crate::state::version;
use std::collections::VecDeque;

/// One step of virtual time, ms.
const STEP: u64 = 50;
/// A call without an answer fails after this long, ms.
const CALL: u64 = 3_000;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        crate::consensus::settings::mix(0x5eed, self.0)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn peer(n: usize) -> String {
    // Real ids, so that the plan can be checked like one from the network.
    let mut seed = [7; 32];
    seed[0] = n as u8;
    let key = libp2p::identity::Keypair::ed25519_from_bytes(seed).expect("a key");
    key.public().to_peer_id().to_string()
}

fn list_of(n: usize) -> Vec<String> {
    let mut list: Vec<String> = (0..n).map(peer).collect();
    list.sort();
    list
}

fn founder(peer: &str, raft_id: u64) -> Founder {
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

enum Packet {
    Ask(Ask),
    Answer(AskKind, Answer),
}

struct Node {
    peer: String,
    raft_id: u64,
    /// What survives a crash.
    disk: Record,
    alive: Option<Founding>,
    /// Calls without an answer: to whom, what, since when.
    calls: VecDeque<(String, AskKind, u64)>,
}

struct World {
    rng: Rng,
    now: u64,
    nodes: Vec<Node>,
    wire: Vec<(u64, usize, usize, Packet)>,
    loss: u64,
    crashes: u64,
    /// Of a hundred messages that tell what was chosen, so many get lost besides: the fewer know, the more propose.
    blind: u64,
    /// Who has durably accepted what, by ballot: whatever more than half have accepted is chosen, known or not.
    accepts: BTreeMap<Ballot, (Plan, BTreeSet<usize>)>,
}

impl World {
    fn new(n: usize, seed: u64) -> World {
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
            rng: Rng(seed << 32),
            now: 0,
            nodes,
            wire: Vec::new(),
            loss: 0,
            crashes: 0,
            blind: 0,
            accepts: BTreeMap::new(),
        }
    }

    fn start(&mut self, i: usize) {
        let seed = self.rng.next();
        let node = &mut self.nodes[i];
        let us = founder(&node.peer, node.raft_id);
        node.alive = Some(Founding::new(us, node.disk.clone(), 7, seed));
    }

    /// The plug is pulled: what was not on the disk is gone, and so is most of what was not on the wire yet.
    fn crash(&mut self, i: usize) {
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
                assert_eq!(entry.0, *plan, "two values under one ballot");
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

    fn step(&mut self) {
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

    fn run(&mut self, ms: u64) {
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
    fn chosen(&self) -> Vec<Plan> {
        let on_disk = self.nodes.iter().filter_map(|n| n.disk.chosen.clone());
        let in_memory =
            self.nodes.iter().filter_map(|n| n.alive.as_ref().and_then(|f| f.record().chosen.clone()));
        on_disk.chain(in_memory).collect()
    }

    fn check(&self, seed: u64) {
        let chosen: Vec<Plan> = self.chosen().into_iter().chain(self.decided()).collect();
        for plan in &chosen {
            assert_eq!(*plan, chosen[0], "seed {seed}: two initial configurations");
            plan.check(&self.nodes[0].disk.list).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        }
    }
}

#[test]
fn never_two_initial_configurations_whatever_the_network_and_the_power_do() {
    let base: u64 = std::env::var("PINFOLD_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut decided = 0;
    for seed in base..base + 150 {
        decided += usize::from(storm(seed));
    }
    assert!(decided > 25, "{decided} of 150 runs decided in the storm: it is too rough to show anything");
}

/// One run of the test above; whether something was decided in the storm. Panics at what must not be.
pub(crate) fn storm(seed: u64) -> bool {
    let mut rng = Rng(seed);
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
        world.check(seed);
    }
    let decided = world.decided().next().is_some();
    // The storm is over: in the end everybody knows.
    (world.loss, world.crashes, world.blind) = (0, 0, 0);
    for i in (0..n).filter(|i| world.nodes[*i].alive.is_none()).collect::<Vec<_>>() {
        world.start(i);
    }
    world.run(60_000);
    world.check(seed);
    assert_eq!(world.chosen().len(), 2 * n, "seed {seed}: not everybody knows what was chosen");
    decided
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

#[test]
fn no_order_of_ballots_chooses_two_values() {
    let base: u64 = std::env::var("PINFOLD_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut decided = 0;
    for seed in base..base + 300 {
        decided += usize::from(disorder(seed));
    }
    assert!(decided > 50, "{decided} of 300 runs decided anything");
}

/// One run of the test above; whether something was decided. Panics at what must not be.
pub(crate) fn disorder(seed: u64) -> bool {
    let mut world = World::new(3 + 2 * (seed % 2) as usize, seed);
    world.crashes = 4;
    for _ in 0..400 {
        world.happen();
    }
    world.check(seed);
    let decided = world.decided().next().is_some();
    decided
}

#[test]
fn all_that_are_there_are_founders_and_a_minority_founds_nothing() {
    let mut world = World::new(5, 9);
    world.start(0);
    world.start(3);
    world.run(60_000);
    assert!(world.chosen().is_empty());
    let waiting = world.nodes[0].alive.as_ref().expect("alive");
    assert_eq!((waiting.present(world.now), waiting.needed(), waiting.missing(world.now).len()), (2, 3, 3));
    assert!(waiting.missing(world.now).iter().all(|(_, why)| why == "no answer"));
    // The third makes a majority; the other two are waited for, but not for ever.
    world.start(1);
    world.run(SETTLE + 3_000);
    world.check(9);
    let plan = world.chosen().pop().expect("chosen");
    assert_eq!(plan.founders.len(), 3);
    assert!(plan.founders.iter().all(|f| f.voter));
    // A late one learns what was chosen without it.
    world.start(2);
    world.run(3_000);
    let late = world.nodes[2].alive.as_ref().expect("alive").outcome(world.now);
    assert!(matches!(late, Outcome::Join(through) if through.len() == 3));
    // All at once: all of them.
    let mut world = World::new(5, 10);
    (0..5).for_each(|i| world.start(i));
    world.run(5_000);
    assert_eq!(world.chosen().len(), 10);
    assert_eq!(world.chosen()[0].founders.len(), 5);
}

#[test]
fn no_more_voters_than_allowed() {
    let mut world = World::new(9, 1);
    (0..9).for_each(|i| world.start(i));
    world.run(10_000);
    world.check(1);
    let plan = world.chosen().pop().expect("chosen");
    assert_eq!((plan.founders.len(), plan.founders.iter().filter(|f| f.voter).count()), (9, 7));
}

#[test]
fn the_death_of_the_proposer_at_any_message_changes_nothing() {
    // Cut the proposer off after each number of steps in turn, with other delays each time; the others agree with what
    // it may have known when it died, and nothing of what it last said is heard.
    for steps in (1..40).cycle().take(400).enumerate().map(|(n, steps)| steps + ((n as u64) << 8)) {
        let mut world = World::new(3, steps);
        (0..3).for_each(|i| world.start(i));
        for _ in 0..steps & 0xff {
            world.step();
        }
        world.crash(0);
        world.wire.retain(|(_, from, _, _)| *from != 0);
        world.run(30_000);
        world.check(steps);
        let plan = world.chosen().pop().expect("chosen by the two that are left");
        world.start(0);
        world.run(5_000);
        world.check(steps);
        assert_eq!(world.nodes[0].disk.chosen.as_ref(), Some(&plan));
    }
}

#[test]
fn what_is_promised_or_accepted_is_to_be_saved_before_it_is_said() {
    let list = list_of(3);
    let mut founding = Founding::new(founder(&list[0], 1), Record::new(1, list.clone()), 7, 1);
    let ask = |round, kind: &dyn Fn(Ballot) -> AskKind| Ask {
        list: list.clone(),
        raft_id: 2,
        kind: kind(Ballot { round, peer: list[1].clone() }),
    };
    let prepare = ask(5, &AskKind::Prepare);
    assert!(matches!(founding.answer(0, &list[1], &prepare), Answer::Promise(..)));
    assert_eq!(founding.unsaved().expect("a promise").promised.round, 5);
    let founders: Vec<Founder> = list.iter().enumerate().map(|(i, p)| founder(p, i as u64 + 1)).collect();
    let plan = Plan::new(9, &founders, 7);
    let accept = |round| ask(round, &|ballot| AskKind::Accept(ballot, plan.clone()));
    assert!(matches!(founding.answer(0, &list[1], &accept(4)), Answer::Refused(_)), "a promise is a promise");
    assert!(founding.unsaved().is_none());
    assert!(matches!(founding.answer(0, &list[1], &accept(5)), Answer::Accepted(_)));
    assert_eq!(founding.unsaved().expect("a vote").accepted.expect("accepted").1, plan);
    // The same again is said again, and costs no flush.
    assert!(matches!(founding.answer(0, &list[1], &prepare), Answer::Promise(_, _, Some(_))));
    assert!(founding.unsaved().is_none());
}

#[test]
fn another_list_is_refused_with_the_difference() {
    let list = list_of(3);
    let us = founder(&list[0], 1);
    let mut founding = Founding::new(us, Record::new(1, list.clone()), 7, 1);
    let mut theirs = list.clone();
    theirs.remove(2);
    let ask = Ask { list: theirs, raft_id: 2, kind: AskKind::Hello };
    assert_eq!(founding.answer(0, &list[1], &ask), Answer::OtherList(list.clone()));
    let why = founding.missing(0);
    assert!(why.iter().any(|(p, why)| *p == list[1] && why.contains("lacks") && why.contains(&list[2])));
    // A ballot under another list is not heard either.
    let ballot = Ballot { round: 5, peer: list[1].clone() };
    let ask = Ask { list: vec![list[1].clone()], raft_id: 2, kind: AskKind::Prepare(ballot.clone()) };
    assert!(matches!(founding.answer(0, &list[1], &ask), Answer::OtherList(_)));
    // Nor one in somebody else's name.
    let ask = Ask { list: list.clone(), raft_id: 2, kind: AskKind::Prepare(ballot) };
    assert!(matches!(founding.answer(0, &list[2], &ask), Answer::Refused(_)));
    assert!(founding.unsaved().is_none());
}

#[test]
fn what_exists_is_joined_and_what_does_not_match_is_refused() {
    let list = list_of(3);
    let begin = || Founding::new(founder(&list[0], 1), Record::new(1, list.clone()), 7, 1);
    let member = |cluster_id, members: &[String], applied| {
        Ok(Answer::Member(Belonging { cluster_id, members: members.to_vec(), applied }))
    };
    let mut founding = begin();
    founding.heard(0, &list[1], &AskKind::Hello, Ok(Answer::Fresh));
    founding.heard(0, &list[2], &AskKind::Hello, member(7, &list[2..], 9));
    assert!(matches!(founding.outcome(10), Outcome::Join(through) if through == [list[2].clone()]));
    assert!(founding.tick(SETTLE + 10).is_empty(), "nothing is proposed beside a cluster");
    // Two clusters.
    founding.heard(0, &list[1], &AskKind::Hello, member(8, &list[1..2], 9));
    assert!(matches!(founding.outcome(10), Outcome::Refuse(e) if e.message().contains("two clusters")));
    // A member that is not listed.
    let mut founding = begin();
    let stranger = peer(77);
    let mut members = list.clone();
    members.push(stranger.clone());
    founding.heard(0, &list[1], &AskKind::Hello, member(7, &members, 9));
    let Outcome::Refuse(error) = founding.outcome(10) else { panic!("must refuse") };
    assert!(error.message().contains(&stranger) && error.message().contains("peers rm"), "{error}");
}

#[test]
fn a_plan_from_the_network_is_checked() {
    let list = list_of(3);
    let plan = Plan::new(9, &[], 7);
    assert!(plan.check(&list).is_err(), "no majority");
    let founders: Vec<Founder> = list.iter().enumerate().map(|(i, p)| founder(p, i as u64 + 1)).collect();
    let good = Plan::new(9, &founders, 7);
    good.check(&list).expect("good");
    let bad = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        assert!(plan.check(&list).is_err(), "{plan:?}");
    };
    bad(&|p| p.cluster_id = 0);
    bad(&|p| p.version = version::SPOKEN + 1);
    bad(&|p| p.founders[0].raft_id = 0);
    bad(&|p| p.founders[0].raft_id = p.founders[1].raft_id);
    bad(&|p| p.founders[0].peer = p.founders[1].peer.clone());
    bad(&|p| p.founders[0].peer = peer(50));
    bad(&|p| p.founders.swap(0, 1));
    bad(&|p| p.founders.iter_mut().for_each(|f| f.voter = false));
    bad(&|p| p.founders[2].peer = "nobody".into());
    // The oldest founder decides what may be said.
    let mut mixed = founders;
    mixed[1].release = "0.1.0".into();
    let old = Plan::new(9, &mixed, 2);
    assert_eq!((good.version, old.version), (version::SPOKEN, version::FIRST));
    assert_eq!(old.founders.iter().map(|f| f.voter).collect::<Vec<_>>(), [true, true, false]);
    assert!(old.members().expect("members").iter().all(|m| m.version.is_empty()));
    assert!(good.members().expect("members").iter().all(|m| m.version == crate::VERSION));
    // What is agreed on survives the file.
    let record = Record { accepted: Some((Ballot::default(), good.clone())), ..Record::new(1, list) };
    let text = serde_json::to_string(&record).expect("JSON");
    assert_eq!(serde_json::from_str::<Record>(&text).expect("read back"), record);
}
