//! Real peers under load while they are killed, put to sleep, cut off, filled up and restarted: nothing acknowledged is
//! lost, nothing removed comes back, strong reads are linearizable, and everything ends up the same everywhere.
//!
//! The faults and the clients' wishes follow from a printed seed; what the machine makes of them does not, so a seed
//! repeats the plan and not the run. `PINFOLD_KILLS=300` asks for that many kills in all instead of the usual number.
//! A run in which too little happened has shown nothing and fails.

mod support;

#[path = "support/dice.rs"]
mod dice;
#[path = "support/history.rs"]
mod history;
#[path = "support/http.rs"]
mod http;
#[path = "support/linear.rs"]
mod linear;
#[path = "support/nemesis.rs"]
mod nemesis;

use dice::Dice;
use history::{from_nowhere, Load, Register, Wish};
use linear::{check, explain, Name, Verdict};
use nemesis::{deck, Arena, RECOVERY};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::wait_for;

/// Kills in all runs together, unless `$PINFOLD_KILLS` says otherwise.
const KILLS: usize = 90;
/// Answered writes and strong reads per second, over the whole run, below which it was too quiet to show anything.
const LEAST_RATE: f64 = 50.0;
/// States that the checker may try for one CID.
const EFFORT: usize = 2_000_000;
/// How long the IPFS side may take to agree with the pins.
const CONVERGENCE: Duration = Duration::from_secs(120);
/// The first number of clients with CIDs of their own.
const KEEPERS: u32 = 800;
/// The first number of clients that read at the end.
const LAST: u32 = 1_000;

/// Kills of a run that does a part of them.
fn kills(part: usize) -> usize {
    let all = std::env::var("PINFOLD_KILLS").ok().map(|n| n.parse().expect("PINFOLD_KILLS is a number"));
    all.unwrap_or(KILLS).div_ceil(part)
}

/// Every CID at every peer: read strongly, so that the last reads are part of its history.
fn read_everything(load: &Load, registers: &[Arc<Register>], peers: usize) {
    std::thread::scope(|scope| {
        for peer in 0..peers {
            scope.spawn(move || {
                for register in registers {
                    wait_for("the last read of a CID", RECOVERY, || {
                        let read = load.perform(LAST + peer as u32, peer, register, Wish::Read);
                        read.then_some(()).ok_or_else(|| register.cid.clone())
                    });
                }
            });
        }
    });
}

/// The pins of a peer: name by CID.
fn pins(arena: &Arena, peer: usize) -> BTreeMap<String, String> {
    let text = |v: &serde_json::Value| v.as_str().expect("text").to_owned();
    arena.lines(peer, "/allocations").iter().map(|p| (text(&p["cid"]), text(&p["name"]))).collect()
}

/// The same pins at every peer, and what no doubt can be had about is as it was acknowledged.
fn compare(arena: &Arena, registers: &[Arc<Register>]) -> usize {
    let first = wait_for("the same applied entry everywhere", RECOVERY, || {
        let applied = |p| arena.health(p).and_then(|h| h["applied"].as_u64());
        let all: Vec<_> = (0..arena.peers.len()).map(applied).collect();
        all.windows(2)
            .all(|w| w[0].is_some() && w[0] == w[1])
            .then(|| pins(arena, 0))
            .ok_or(format!("{all:?}"))
    });
    for peer in 1..arena.peers.len() {
        assert_eq!(pins(arena, peer), first, "p{} and p1 differ", peer + 1);
    }
    let mut clear = 0;
    for register in registers {
        let Some(expected) = register.outcome() else { continue };
        let expected = expected.map(|name: Name| format!("v{name}"));
        assert_eq!(
            first.get(&register.cid),
            expected.as_ref(),
            "{}: {:#?}",
            register.cid,
            register.history()
        );
        clear += 1;
    }
    clear
}

/// Every peer's IPFS side has what is pinned, and says nothing else of anything.
fn converge(arena: &Arena) {
    let wanted = pins(arena, 0).len();
    for peer in 0..arena.peers.len() {
        wait_for(&format!("everything pinned in IPFS at p{}", peer + 1), CONVERGENCE, || {
            let statuses = arena.lines(peer, "/pins?local=true");
            let status = |s: &serde_json::Value| {
                let of = s["peer_map"].as_object().and_then(|m| m.values().next());
                of.map_or("none".to_owned(), |p| p["status"].as_str().unwrap_or("odd").to_owned())
            };
            let mut count: BTreeMap<String, usize> = BTreeMap::new();
            statuses.iter().for_each(|s| *count.entry(status(s)).or_default() += 1);
            (count.len() <= 1 && count.get("pinned").copied().unwrap_or(0) == wanted)
                .then_some(())
                .ok_or_else(|| format!("{count:?} of {wanted}"))
        });
    }
}

/// Applied index and digest of each stopped peer, recomputed from its rows.
fn digests(arena: &mut Arena) -> Vec<(u64, u128)> {
    for peer in &mut arena.peers {
        let (status, _) = peer.stop();
        assert!(status.success(), "{status}\n{}", peer.log());
    }
    let digest = |folder: &std::path::Path| {
        let (_log, state) = pinfold::store::open(&folder.join("raft")).expect("stores");
        let machine = pinfold::state::Machine::open(Arc::new(state)).expect("machine");
        machine.verify().expect("the rows are what the digest says");
        (machine.applied().index, machine.digest())
    };
    arena.peers.iter().map(|p| digest(&p.folder)).collect()
}

/// Checks every CID's history; the operations in them, and the most states that one of them took.
fn linearizable(registers: &[Arc<Register>]) -> usize {
    let mut operations = 0;
    for register in registers {
        let history = register.history();
        operations += history.len();
        match check(&history, EFFORT) {
            Verdict::Linearizable => {}
            Verdict::Unknown => {
                panic!("{}: not decided with {EFFORT} states: make histories shorter", register.cid)
            }
            Verdict::Violation { placed, stuck } => {
                let story = explain(&history, &placed, &stuck);
                panic!("{} is not linearizable:\n{story}", register.cid)
            }
        }
        let odd = from_nowhere(&history, &register.local());
        assert!(odd.is_empty(), "{}: local reads of what nobody had written: {odd:?}", register.cid);
    }
    operations
}

fn milliseconds(times: &[(Duration, nemesis::Fault)]) -> String {
    let mut sorted: Vec<_> = times.iter().collect();
    sorted.sort_by_key(|(took, _)| *took);
    let (Some(middle), Some(worst)) = (sorted.get(sorted.len() / 2), sorted.last()) else {
        return "never".to_owned();
    };
    format!("median {} ms, worst {} ms ({:?})", middle.0.as_millis(), worst.0.as_millis(), worst.1)
}

/// One cluster, so many kills and everything else.
fn run(name: &str, peers: usize, clients: usize, kills: usize) {
    let mut dice = Dice::new(name);
    let mut arena = Arena::new(peers);
    let load = Load::new(arena.doors.clone());
    let faults = deck(&mut dice, peers, kills);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..clients * peers {
            let (load, dice) = (&load, dice.fork());
            scope.spawn(move || load.client(client as u32, client % peers, dice));
        }
        for peer in 0..peers {
            let load = &load;
            scope.spawn(move || load.keeper(KEEPERS + peer as u32, peer));
        }
        // Clients end whatever happens here, or the scope would wait for them for ever.
        let stop = StopAtEnd(&load);
        for (n, fault) in faults.iter().enumerate() {
            eprintln!("{name}: {} of {}: {fault:?}", n + 1, faults.len());
            arena.suffer(*fault, &load, &mut dice);
        }
        drop(stop);
    });
    let lasted = began.elapsed();
    let registers = load.registers();
    let rate = load.tally.answered.load(Ordering::Relaxed) as f64 / lasted.as_secs_f64();
    let (gap, writes) = load.longest_gap();
    read_everything(&load, &registers, peers);
    let clear = compare(&arena, &registers);
    converge(&arena);
    let digests = digests(&mut arena);
    (0..peers).for_each(|p| arena.read_log(p));
    let checked = Instant::now();
    let operations = linearizable(&registers);
    let (done, tally) = (&arena.done, &load.tally);
    let of = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
    eprintln!(
        "{name}: {peers} peers, {:.0} s: {} kills ({} cut requests), {} pauses, {} partitions, {} full disks ({} peers \
         ended by it), {} clean stops, {} leaders\n\
         {name}: {operations} operations on {} CIDs linearizable (checked in {:.1} s), {clear} outcomes without doubt, \
         {} local reads, {} strong reads at a leader just woken\n\
         {name}: {rate:.0} operations/s, {writes} writes acknowledged, {} unanswered, {} connections cut, {} refusals\n\
         {name}: longest time without an acknowledged write {} ms; with a majority left: {}; all peers well again: {}",
        lasted.as_secs_f64(),
        done.kills,
        done.hits,
        done.pauses,
        done.partitions,
        done.full,
        done.ended,
        done.stops,
        done.leaders.len(),
        registers.len(),
        checked.elapsed().as_secs_f64(),
        of(&tally.local),
        done.woken,
        of(&tally.unanswered),
        of(&tally.cut),
        of(&tally.refused),
        gap.as_millis(),
        milliseconds(&done.felt),
        milliseconds(&done.recovered),
    );
    assert!(load.odd().is_empty(), "answers that nobody should get: {:#?}", load.odd());
    assert!(done.complaints.is_empty(), "{:#?}", done.complaints);
    let newest = digests.iter().map(|d| d.0).max();
    for (p, (index, digest)) in digests.iter().enumerate() {
        for (other_index, other) in &digests {
            assert!(index != other_index || digest == other, "p{} at {index}: {digests:?}", p + 1);
        }
        // Nothing but elections follows the last write.
        assert_eq!(*digest, digests[0].1, "p{} of {newest:?}: {digests:?}", p + 1);
    }
    // Too quiet to have shown anything?
    assert!(rate >= LEAST_RATE, "only {rate:.0} operations per second");
    assert!(done.kills >= kills && done.hits * 3 >= done.kills, "{} of {} kills hit", done.hits, done.kills);
    assert!(
        done.leaders.len() > faults.len() / 5,
        "{} leaders in {} faults",
        done.leaders.len(),
        faults.len()
    );
    assert!(clear * 2 >= registers.len(), "{clear} clear outcomes of {}", registers.len());
    assert!(done.woken > 0, "nobody read at a leader just woken");
}

struct StopAtEnd<'a>(&'a Load);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[test]
fn three_peers_under_every_fault_are_linearizable_and_lose_nothing() {
    run("three peers", 3, 2, kills(2));
}

#[test]
fn five_peers_under_every_fault_are_linearizable_and_lose_nothing() {
    run("five peers", 5, 2, kills(2));
}
