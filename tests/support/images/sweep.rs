//! The sweep: a workload is run again and again, and each time another one of its changes to the disk fails.
//!
//! Whatever fails, and however, the code says so in a sentence, what it had acknowledged is there after a restart, what
//! it shows meanwhile is never wrong, and it never panics. Failures: an I/O error once (the disk recovers), an I/O
//! error from there on, a full disk from there on, and a write that is done by half before the disk is full.

use super::disk::Random;
use super::search::Contract;
use super::trace::{Child, Recording};
use super::{node, store};
use pinfold::runtime::block_on;
use pinfold::{Error, Kind};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::Mutex;

/// What fails how: name, error number, mode (see `recorder.c`).
const WAYS: [(&str, u32, u32); 4] = [
    ("EIO once", 5, 0),
    ("EIO for good", 5, 1),
    ("ENOSPC for good", 28, 1),
    ("half a write, then ENOSPC", 28, 2),
];
/// Steps of the workload of the stores: about two hundred changes of the disk.
const STORE_STEPS: usize = 40;
/// Steps of the workload of the node.
const NODE_STEPS: usize = 24;

/// What was swept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Swept {
    /// Runs in which something failed.
    pub runs: u64,
    /// Changes that failed in all.
    pub failed: u64,
    /// Runs in which the workload got an error, and not just a warning in the log.
    pub errors: u64,
}

/// Runs `once` for every `stride`th failure from `first` on, in every way.
fn sweep(
    child: &Child,
    first: u64,
    stride: u64,
    mut once: impl FnMut(&Path) -> Result<Option<Error>, String>,
) -> Swept {
    let mut swept = Swept::default();
    for (way, errno, mode) in WAYS {
        let mut n = first;
        loop {
            let folder = child.root.join("run");
            std::fs::create_dir_all(&folder).expect("a folder");
            child.order(&format!("!fail {n} {errno} {mode}"));
            let outcome = catch_unwind(AssertUnwindSafe(|| once(&folder)));
            let failed = child.order("!ok") as u64 / 1_000_000;
            let said = match outcome {
                Ok(Ok(said)) => said,
                Ok(Err(why)) => panic!("{way} at change {n}: {why}"),
                Err(_) => panic!("{way} at change {n}: a panic"),
            };
            std::fs::remove_dir_all(&folder).expect("the folder goes");
            if failed == 0 {
                break;
            }
            swept.runs += 1;
            swept.failed += failed;
            if let Some(error) = said {
                swept.errors += 1;
                let plain = error.message().len() > 20 && error.kind() != Kind::Internal;
                assert!(plain, "{way} at change {n}: no sentence for a person: {error:?}");
            }
            n += stride;
        }
    }
    swept
}

fn task(child: &Child) -> (u64, u64, u64) {
    let numbers: Vec<u64> = child.work.split(' ').map(|n| n.parse().expect("a number")).collect();
    (numbers[0], numbers[1], numbers[2])
}

/// Looks at what a run left once the disk works again.
fn after<C: Contract>(child: &Child, contract: &C, folder: &Path, known: &C::Known) -> Result<(), String> {
    child.order("!ok-keep");
    contract.check(folder, known, Random::new(1)).map(drop)
}

/// The child that sweeps log and state; its task: seed, first failure, stride.
pub fn child_store() {
    let Some(child) = Child::here() else { return };
    let (seed, first, stride) = task(&child);
    let swept = sweep(&child, first, stride, |folder| {
        let marks = Mutex::new(Vec::new());
        let say = |text: String| marks.lock().expect("marks").push(text);
        let mut live = None;
        let mut raft_id = 1;
        let done = store::Live::found(folder, seed | 1, &say).and_then(|found| {
            raft_id = found.raft_id();
            live = Some(found);
            store::Live::work(&mut live, folder, &store::Plan::of(seed, raft_id, STORE_STEPS), &say)
        });
        if let Some(live) = &live {
            live.reads_well()?;
        }
        drop(live);
        let marks = marks.into_inner().expect("marks");
        let opened = marks.iter().find_map(|m| m.strip_prefix("opened ")?.parse().ok());
        let contract = store::Stores::new(store::Plan::of(seed, opened.unwrap_or(raft_id), STORE_STEPS));
        let mut known = store::Known::default();
        marks.iter().for_each(|mark| contract.note(&mut known, mark));
        after(&child, &contract, folder, &known).map_err(|why| format!("{done:?}, then {why}"))?;
        Ok(done.err())
    });
    println!("swept {} {} {}", swept.runs, swept.failed, swept.errors);
}

/// The child that sweeps the node.
pub fn child_node() {
    let Some(child) = Child::here() else { return };
    let (seed, first, stride) = task(&child);
    let contract = node::Kept::new(node::Plan::of(seed, NODE_STEPS));
    let plan = node::Plan::of(seed, NODE_STEPS);
    let swept = sweep(&child, first, stride, |folder| {
        let known = Mutex::new(node::Known::default());
        let say = |text: String| contract.note(&mut known.lock().expect("known"), &text);
        let done = block_on(node::work(folder, &plan, &say, None));
        let known = known.into_inner().expect("known");
        after(&child, &contract, folder, &known).map_err(|why| format!("{done:?}, then {why}"))?;
        Ok(done.err())
    });
    println!("swept {} {} {}", swept.runs, swept.failed, swept.errors);
}

/// Sweeps with the child `name`, on two processes; each `stride`th failure.
///
/// # Errors
/// What the child that found something said.
pub fn run(name: &str, seed: u64, stride: u64) -> Result<Swept, String> {
    let half = |first: u64| {
        let folder = super::search::fast_folder();
        Recording::silent(folder.path()).run(name, &format!("{seed} {first} {}", 2 * stride))
    };
    let outputs = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1 + stride));
        [half(1), other.join().expect("no panic here")]
    });
    let mut swept = Swept::default();
    for output in outputs {
        let output = output?;
        let line =
            output.lines().find_map(|l| l.split("swept ").nth(1)).ok_or(format!("no figures: {output}"))?;
        let numbers: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
        swept.runs += numbers[0];
        swept.failed += numbers[1];
        swept.errors += numbers[2];
    }
    Ok(swept)
}
