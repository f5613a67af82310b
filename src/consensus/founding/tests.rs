//! What a founding promises, beside random days and orders without end, which are in `crate::sim::founding`. The seed of
//! a failing run is printed.

use super::*;
use crate::sim::founding::{disorder, founder, list_of, peer, storm, World};
use crate::state::version;

#[test]
fn never_two_initial_configurations_whatever_the_network_and_the_power_do() {
    let base: u64 = std::env::var("PINFOLD_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut decided = 0;
    for seed in base..base + 150 {
        decided += usize::from(storm(seed).unwrap_or_else(|why| panic!("{why}")));
    }
    assert!(decided > 25, "{decided} of 150 runs decided in the storm: it is too rough to show anything");
}

#[test]
fn no_order_of_ballots_chooses_two_values() {
    let base: u64 = std::env::var("PINFOLD_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut decided = 0;
    for seed in base..base + 300 {
        decided += usize::from(disorder(seed).unwrap_or_else(|why| panic!("{why}")));
    }
    assert!(decided > 50, "{decided} of 300 runs decided anything");
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
    world.check(9).expect("one configuration");
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
    world.check(1).expect("one configuration");
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
        world.check(steps).expect("one configuration");
        let plan = world.chosen().pop().expect("chosen by the two that are left");
        world.start(0);
        world.run(5_000);
        world.check(steps).expect("one configuration");
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
