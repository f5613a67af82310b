//! Plants each bug in turn and lets the random tests run on it until one of them finds it.
//!
//! `cargo test --features planted --test planted -- --nocapture` prints the table of docs/reliability.md: after how
//! many seeds each bug was found, from several starting points, and what was said. It fails when a bug is not found
//! within the limit from most of them, and when a seed that found one fails without it too (then the check cries wolf).
//! `PINFOLD_PLANTED=Name,Other` looks at these alone; `PINFOLD_SEED=n` starts elsewhere; `PINFOLD_LIMIT=n` gives up
//! earlier or later.

#[path = "planted/stores.rs"]
mod stores;

use pinfold::planted::{with, Bug};
use pinfold::sim::{self, founding, Knobs};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// From how many starting points each bug is looked for.
const STARTS: u64 = 3;
/// How far the starting points are apart: no two looks share a seed.
const APART: u64 = 1_000_000;
/// Seeds of the simulator within which a bug must be found.
const LIMIT: u64 = 2_500;
/// Seeds of the founding's tests within which a bug must be found; they are much shorter.
const FOUNDING_LIMIT: u64 = 10_000;

/// Runs of the stores beside maps within which a bug must be found.
const STORES_LIMIT: u64 = 100;

/// What looks for a bug.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Detector {
    /// Whole clusters under random misfortune.
    Simulator,
    /// The founding's own: every second seed a storm, every other ballots in no order.
    Founding,
    /// The stores on LMDB beside plain maps.
    Stores,
}

impl Detector {
    /// What must find this bug. One that the simulator meets in its own stores must be found in those on LMDB too.
    fn of(bug: Bug) -> &'static [Detector] {
        match bug {
            Bug::PromiseNotSaved | Bug::AcceptedIgnored | Bug::HalfIsEnough => &[Detector::Founding],
            // A snapshot comes to a peer that is behind it: a cluster hardly ever gets a log into its way that is longer.
            Bug::LogKeptBehindSnapshot => &[Detector::Stores],
            Bug::DeletionNotSeen | Bug::SnapshotOnTop | Bug::ConflictingTailStays => {
                &[Detector::Simulator, Detector::Stores]
            }
            _ => &[Detector::Simulator],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Detector::Simulator => "simulator",
            Detector::Founding => "founding",
            Detector::Stores => "LMDB",
        }
    }

    fn limit(self) -> u64 {
        match self {
            Detector::Simulator => number("PINFOLD_LIMIT").unwrap_or(LIMIT),
            Detector::Founding => FOUNDING_LIMIT,
            Detector::Stores => STORES_LIMIT,
        }
    }

    /// Runs one seed; what was found, if anything. A panic of raft-rs or of an assertion is a finding too.
    fn run(self, bug: Option<Bug>, seed: u64) -> Option<String> {
        let work = || match self {
            Detector::Simulator => {
                sim::run(seed, &Knobs::draw(seed)).err().map(|failure| failure.to_string())
            }
            Detector::Founding if seed % 2 == 0 => founding::disorder(seed).err(),
            Detector::Founding => founding::storm(seed).err(),
            Detector::Stores => stores::run(seed).err(),
        };
        match catch_unwind(AssertUnwindSafe(|| with(bug, work))) {
            Ok(found) => found,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Some(format!("panic: {}", text.unwrap_or("without words")))
            }
        }
    }
}

/// How one bug was found.
struct Row {
    bug: Bug,
    detector: Detector,
    /// Seeds that it took from each starting point; `None` where the limit came first.
    seeds: Vec<Option<u64>>,
    said: String,
    took: Duration,
}

impl Row {
    fn look_for(bug: Bug, detector: Detector, base: u64, guilty: &Mutex<BTreeSet<(Detector, u64)>>) -> Row {
        let (begun, mut seeds, mut said) = (Instant::now(), Vec::new(), String::new());
        for start in (0..STARTS).map(|n| base + n * APART) {
            let found = (0..detector.limit()).find_map(|n| Some((n, detector.run(Some(bug), start + n)?)));
            if let Some((n, words)) = &found {
                guilty.lock().expect("nothing panics in here").insert((detector, start + n));
                if said.is_empty() {
                    said.clone_from(words);
                }
            }
            seeds.push(found.map(|(n, _)| n + 1));
        }
        Row { bug, detector, seeds, said, took: begun.elapsed() }
    }

    fn median(&self) -> Option<u64> {
        let mut all: Vec<u64> = self.seeds.iter().map(|s| s.unwrap_or(u64::MAX)).collect();
        all.sort_unstable();
        Some(all[all.len() / 2]).filter(|m| *m < u64::MAX)
    }

    fn line(&self) -> String {
        let number = |n: Option<u64>| n.map_or("–".to_owned(), |n| n.to_string());
        let mut said =
            self.said.split(": ").skip(1).collect::<Vec<_>>().join(": ").replace('|', "/").replace('\n', " ");
        if let Some((end, _)) = said.char_indices().nth(110) {
            said.truncate(end);
            said.push('…');
        }
        format!(
            "| `{}` | {} | {} | {} | {} | {said} |",
            self.bug.name(),
            self.bug.sentence(),
            self.detector.name(),
            number(self.seeds[0]),
            number(self.median())
        )
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_planted_bug_is_found() {
    let only = std::env::var("PINFOLD_PLANTED").ok();
    let base = number("PINFOLD_SEED").unwrap_or(1);
    let wanted = |bug: &Bug| only.as_ref().is_none_or(|only| only.split(',').any(|name| name == bug.name()));
    let looks: Vec<(Bug, Detector)> = (Bug::ALL.iter().copied().filter(wanted))
        .flat_map(|bug| Detector::of(bug).iter().map(move |detector| (bug, *detector)))
        .collect();
    assert!(!looks.is_empty(), "no bug has the name that PINFOLD_PLANTED gives");
    // What panics here is caught and counted; its words are in the table.
    std::panic::set_hook(Box::new(|_| ()));
    let (next, rows, guilty) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::default());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((bug, detector)) = looks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = Row::look_for(*bug, *detector, base, &guilty);
                    eprintln!(
                        "{:>7.1} s {} {:?}: {}",
                        row.took.as_secs_f64(),
                        bug.name(),
                        row.seeds,
                        row.said
                    );
                    rows.lock().expect("nothing panics in here").push(row);
                }
            });
        }
    });
    let rows = rows.into_inner().expect("nothing panicked");
    let guilty: BTreeSet<(Detector, u64)> = guilty.into_inner().expect("nothing panicked");
    let sound: Vec<String> = guilty.iter().filter_map(|(detector, seed)| detector.run(None, *seed)).collect();
    let _ = std::panic::take_hook();

    let mut table = "| bug | what the code then does | found by | seeds to find | median | how it was noticed |\n|---|---|---|---|---|---|\n".to_owned();
    for look in &looks {
        for row in rows.iter().filter(|r| (r.bug, r.detector) == *look) {
            let _ = writeln!(table, "{}", row.line());
        }
    }
    println!(
        "{table}\n{} bugs, {} seeds without a bug, {:.0} s",
        rows.len(),
        guilty.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(sound.is_empty(), "these fail without any bug: {sound:#?}");
    let hidden: Vec<_> = rows.iter().filter(|r| r.median().is_none()).map(|r| r.bug.name()).collect();
    assert!(hidden.is_empty(), "not found within the limit from most starting points: {hidden:?}");
}
