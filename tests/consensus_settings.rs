//! What the settings of `consensus.raft` do, on virtual time, network and disk: each is changed, and the difference
//! is measured in ticks. (Those that need threads are tested in `src/consensus/tests.rs`, those that can be seen
//! from outside a process in `tests/config_effects.rs`.)

use pinfold::consensus::ConsensusConfig;
use pinfold::sim::{Faults, Request, Sim};
use std::time::Duration;

/// A tick is a quarter of the heartbeat of 100 ms.
const TICK: Duration = Duration::from_millis(25);
/// Ticks that a request may take.
const LIMIT: u64 = 400;

/// Three voters that agree on a leader.
fn three(seed: u64, change: impl Fn(&mut ConsensusConfig)) -> Sim {
    let mut sim = Sim::new(seed);
    sim.configure(change);
    sim.found(1).expect("founded");
    assert!(sim.run_until(200, |s| s.leader() == Some(1)).expect("sound"));
    for peer in [2, 3] {
        sim.join(peer).expect("started");
        sim.ask(1, Request::Add(peer), LIMIT);
        assert!(
            sim.run_until(400, |s| s.is_settled() && members(s) == peer as usize).expect("sound"),
            "{peer}"
        );
    }
    let all_vote = |s: &Sim| {
        s.driver(1).is_some_and(|d| d.members().values().all(|m| m.role == pinfold::state::Role::Voter))
    };
    assert!(sim.run_until(400, |s| all_vote(s) && s.is_settled()).expect("sound"));
    sim
}

fn members(sim: &Sim) -> usize {
    sim.driver(1).map_or(0, |d| d.members().len())
}

#[test]
fn the_lease_ends_the_office_of_a_leader_that_hears_from_nobody() {
    let stays = |lease: Duration| {
        let mut sim = three(1, |c| c.lease = lease);
        let leader = sim.leader().expect("a leader");
        sim.isolate(leader);
        let since = sim.now();
        assert!(sim.run_until(400, |s| !s.driver(leader).expect("up").leads()).expect("sound"));
        (sim.now() - since) as u32 * TICK
    };
    let (short, medium) = (stays(Duration::from_millis(400)), stays(Duration::from_millis(600)));
    assert!((350..=475).contains(&short.as_millis()), "{short:?}");
    assert!((550..=675).contains(&medium.as_millis()), "{medium:?}");
    // A longer one than two election timeouts is cut by Raft itself.
    assert!(stays(Duration::from_secs(60)) <= Duration::from_millis(825));
}

#[test]
fn the_log_is_looked_at_for_truncation_once_in_snapshot_interval() {
    let first_left = |interval: Duration, pins: u64| {
        let mut sim = three(2, |c| {
            (c.snapshot_interval, c.snapshot_threshold, c.trailing_logs) = (interval, 20, 5);
        });
        for n in 0..pins {
            let leader = sim.leader().expect("a leader");
            sim.ask(leader, Request::pin(&format!("p{n}")), LIMIT);
            sim.run(2).expect("sound");
        }
        // A second, in which the state is flushed.
        sim.run(60).expect("sound");
        sim.driver(1).expect("up").log_bounds().0
    };
    assert!(first_left(Duration::from_millis(100), 40) > 30);
    assert_eq!(
        first_left(Duration::from_secs(3600), 40),
        2,
        "nothing is forgotten before the interval is over"
    );
    assert!(first_left(Duration::from_secs(3600), 200) > 80, "but a flood is");
}

#[test]
fn trailing_logs_stay_and_snapshot_threshold_is_waited_for() {
    let first_left = |threshold: u64, trailing: u64| {
        let mut sim = three(3, |c| {
            (c.snapshot_interval, c.snapshot_threshold, c.trailing_logs) = (TICK, threshold, trailing);
        });
        for n in 0..60 {
            let leader = sim.leader().expect("a leader");
            sim.ask(leader, Request::pin(&format!("p{n}")), LIMIT);
            sim.run(2).expect("sound");
        }
        sim.run(60).expect("sound");
        let (first, last) = sim.driver(1).expect("up").log_bounds();
        (first, last - first + 1)
    };
    let (_, kept) = first_left(1, 30);
    assert_eq!(kept, 30);
    let (_, kept) = first_left(1, 3);
    assert_eq!(kept, 3);
    assert_eq!(first_left(100_000, 3).0, 2);
}

#[test]
fn no_message_has_more_entries_than_max_append_entries() {
    let longest = |most: usize| {
        // A log that is kept whole, or the peer that was away would get a snapshot.
        let mut sim = three(4, |c| (c.max_append_entries, c.trailing_logs) = (most, 1000));
        let leader = sim.leader().expect("a leader");
        for n in 0..50 {
            sim.ask(leader, Request::pin(&format!("p{n}")), LIMIT);
        }
        sim.isolate(if leader == 3 { 2 } else { 3 });
        sim.run(100).expect("sound");
        sim.heal();
        assert!(sim.run_until(400, Sim::is_settled).expect("sound"));
        for peer in sim.peers() {
            assert_eq!(sim.pins(peer).expect("pins").len(), 50, "peer {peer}");
        }
        sim.longest_append()
    };
    assert_eq!(longest(2), 2);
    assert_eq!(longest(7), 7);
    assert!(longest(1000) > 20);
}

#[test]
fn commit_timeout_is_how_late_a_lost_commit_is_told_again() {
    // Every third frame is lost; what is measured is how long a follower has an entry and does not know that it is
    // committed, over many entries.
    let lag = |timeout: Duration| {
        let mut sim = three(5, |c| c.commit_timeout = timeout);
        sim.set_faults(Faults { drop: 33, ..Faults::default() });
        let mut lag = 0;
        for n in 0..400 {
            if let Some(leader) = sim.leader() {
                sim.ask(leader, Request::pin(&format!("p{n}")), LIMIT);
            }
            for _ in 0..8 {
                sim.tick().expect("sound");
                let best =
                    sim.peers().iter().filter_map(|p| sim.status(*p)).map(|s| s.committed).max().unwrap_or(0);
                for peer in sim.peers() {
                    let has = sim.driver(peer).map_or(0, |d| d.log_bounds().1).min(best);
                    lag += u64::from(sim.status(peer).is_some_and(|s| s.committed < has));
                }
            }
        }
        lag
    };
    let (soon, late) = (lag(TICK), lag(Duration::from_secs(60)));
    assert!(soon * 4 < late * 3, "{soon} ticks with a short one, {late} with a long one");
}
