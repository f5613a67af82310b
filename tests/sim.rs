//! Runs simulated clusters (see `src/sim`), each from a seed, on all cores.
//!
//! Not a libtest harness: it has arguments of its own.
//!
//! ```text
//! cargo test --test sim                              the fixed seeds, then fresh ones for a while
//! cargo test --test sim -- --seeds 100000            so many, from --first S (default 1)
//! cargo test --test sim -- --fresh --minutes 5       fresh seeds (printed) for so long
//! cargo test --test sim -- --seed 17 --trace         one seed, with everything that happens
//! cargo test --test sim -- --seed 17 --keep 3-5,90   one seed with a part of its schedule, as a failure prints it
//! ```
//!
//! `--threads N` runs on so many cores, `--no-shrink` shows a failure as it is. What libtest would understand
//! (`--nocapture`, `--test-threads`, filters …) is accepted and means nothing here, but `--list` and `--ignored`, which
//! do what they say: list, and run nothing.
//!
//! A run in which too little happened fails, as a run that breaks a promise does. Use
//! `CARGO_PROFILE_DEV_OPT_LEVEL=2` for many seeds: it is several times as fast, and keeps the assertions.

use pinfold::sim::{self, schedule, shrink, Failure, Knobs, Report};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The fixed seeds of a plain run.
const FIXED: u64 = 100;
/// How long a plain run may go on with fresh ones.
const PLAIN: Duration = Duration::from_secs(12);
/// Every so many runs one is run twice, to see that equal seeds are equal runs.
const TWICE: u64 = 50;
/// Failures that are shortened and shown; the others are only counted.
const SHOWN: usize = 5;

/// What the command line says.
#[derive(Default)]
struct Args {
    seeds: Option<u64>,
    first: Option<u64>,
    seed: Option<u64>,
    minutes: Option<f64>,
    threads: Option<usize>,
    keep: Option<String>,
    fresh: bool,
    trace: bool,
    no_shrink: bool,
    list: bool,
    ignored: bool,
}

impl Args {
    fn read() -> Result<Args, String> {
        let mut args = Args::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = |name: &str| words.next().ok_or(format!("{name} needs a value"));
            let number = |text: String| text.parse().map_err(|_| format!("{text} is not a number"));
            match word.as_str() {
                "--seeds" => args.seeds = Some(number(value("--seeds")?)?),
                "--first" => args.first = Some(number(value("--first")?)?),
                "--seed" => args.seed = Some(number(value("--seed")?)?),
                "--threads" => args.threads = Some(number(value("--threads")?)? as usize),
                "--minutes" => {
                    let text = value("--minutes")?;
                    args.minutes = Some(text.parse().map_err(|_| format!("{text} is not a number"))?);
                }
                "--keep" => args.keep = Some(value("--keep")?),
                "--fresh" => args.fresh = true,
                "--trace" => args.trace = true,
                "--no-shrink" => args.no_shrink = true,
                "--list" => args.list = true,
                "--ignored" => args.ignored = true,
                "--test-threads" | "--format" | "--color" | "--logfile" | "--skip" | "-Z" => {
                    drop(value(&word)?)
                }
                // Filters and libtest's other flags.
                _ => (),
            }
        }
        Ok(args)
    }
}

/// What all threads share.
struct Hall {
    next: AtomicU64,
    stop: AtomicBool,
    total: Mutex<Report>,
    failures: Mutex<BTreeMap<u64, Failure>>,
}

impl Hall {
    /// Runs seeds from `from` until `to` or the deadline, on so many threads.
    fn run(&self, from: u64, to: u64, deadline: Option<Instant>, threads: usize) {
        self.next.store(from, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| loop {
                    let seed = self.next.fetch_add(1, Ordering::SeqCst);
                    let late = deadline.is_some_and(|d| Instant::now() >= d);
                    if seed >= to || late || self.stop.load(Ordering::SeqCst) {
                        break;
                    }
                    self.one(seed);
                });
            }
        });
    }

    fn one(&self, seed: u64) {
        let knobs = Knobs::draw(seed);
        let mut result = sim::run(seed, &knobs);
        if seed.is_multiple_of(TWICE) {
            let again = sim::run(seed, &knobs);
            if again != result {
                result = Err(Failure {
                    seed,
                    kind: "not repeatable",
                    sentence: format!(
                        "the same seed ran once like this and once like that:\n{result:?}\n{again:?}"
                    ),
                    at: 0,
                });
            }
        }
        match result {
            Ok(report) => self.total.lock().expect("no thread panics here").add(&report),
            Err(failure) => {
                println!("{failure}");
                let mut failures = self.failures.lock().expect("no thread panics here");
                failures.insert(seed, failure);
                if failures.len() >= 4 * SHOWN {
                    self.stop.store(true, Ordering::SeqCst);
                }
            }
        }
    }
}

/// `3-5,90` as numbers.
fn ranges(text: &str) -> Result<Vec<usize>, String> {
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let number = |t: &str| t.parse::<usize>().map_err(|_| format!("{t} is not a number"));
        match part.split_once('-') {
            Some((a, b)) => numbers.extend(number(a)?..=number(b)?),
            None => numbers.push(number(part)?),
        }
    }
    Ok(numbers)
}

/// Numbers as `3-5,90`.
fn in_ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for n in numbers {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == *n => *end = *n,
            _ => parts.push((*n, *n)),
        }
    }
    let part = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

fn show(failure: &Failure, shorten: bool) {
    println!("\n{failure}");
    let seed = failure.seed;
    let knobs = Knobs::draw(seed);
    if !shorten || failure.kind == "not repeatable" {
        println!("  again: cargo test --test sim -- --seed {seed}");
        return;
    }
    let short = shrink::shrink(failure, &knobs);
    println!("  shortened from {} events to {} in {} runs", short.of, short.events.len(), short.runs);
    println!("  {knobs:?}");
    for event in &short.events {
        println!("  {event}");
    }
    println!("  {}", short.failure);
    println!("  again: cargo test --test sim -- --seed {seed} --keep {}", in_ranges(&short.kept));
}

/// Runs one seed, and says how it went; whether well.
fn replay(seed: u64, args: &Args) -> Result<bool, String> {
    let knobs = Knobs::draw(seed);
    println!("{knobs:?}");
    let mut events = schedule::draw(seed, &knobs);
    if let Some(keep) = &args.keep {
        events = shrink::part(&events, &ranges(keep)?);
    }
    let trace: Option<Box<dyn std::io::Write>> =
        if args.trace { Some(Box::new(std::io::stdout())) } else { None };
    match sim::run_events(seed, &knobs, &events, trace) {
        Ok(report) => {
            println!("{report}");
            Ok(true)
        }
        Err(failure) => {
            show(&failure, args.keep.is_none() && !args.no_shrink);
            Ok(false)
        }
    }
}

fn summary(good: bool, passed: u64, failed: u64, seconds: f64) -> ExitCode {
    let word = if good { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {seconds:.2}s\n"
    );
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    if args.list {
        println!("seeds: test");
        return ExitCode::SUCCESS;
    }
    if args.ignored {
        return summary(true, 0, 0, 0.0);
    }
    // raft-rs's panics are failures like others, and are told as such.
    std::panic::set_hook(Box::new(|_| ()));
    let begin = Instant::now();
    if let Some(seed) = args.seed {
        return match replay(seed, &args) {
            Ok(good) => summary(good, u64::from(good), u64::from(!good), begin.elapsed().as_secs_f64()),
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        };
    }
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let hall = Hall {
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        total: Mutex::default(),
        failures: Mutex::default(),
    };
    let limit = args.minutes.map(|m| Duration::from_secs_f64(m * 60.0));
    let deadline = limit.map(|l| begin + l);
    println!("\nrunning 1 test");
    if let Some(seeds) = args.seeds.or(args.first.map(|_| u64::MAX / 2)).filter(|_| !args.fresh) {
        let first = args.first.unwrap_or(1);
        hall.run(first, first.saturating_add(seeds), deadline, threads);
    } else {
        if !args.fresh {
            hall.run(1, FIXED + 1, deadline, threads);
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let first = args.first.unwrap_or(now.as_millis() as u64 / 10 * 1_000);
        println!("fresh seeds from {first}");
        let to = args.seeds.map_or(u64::MAX, |n| first.saturating_add(n));
        let plain = args.seeds.is_none().then(|| begin + PLAIN);
        hall.run(first, to, deadline.or(plain), threads);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let total = hall.total.into_inner().expect("no thread panics here");
    let failures = hall.failures.into_inner().expect("no thread panics here");
    println!("{total}");
    println!("{} seeds per minute on {threads} threads", (total.runs as f64 / seconds * 60.0) as u64);
    let quiet = total.too_quiet();
    if let Some(why) = &quiet {
        println!("{why}");
    }
    failures.values().take(SHOWN).for_each(|failure| show(failure, !args.no_shrink));
    let good = failures.is_empty() && quiet.is_none();
    println!("test seeds ... {}", if good { "ok" } else { "FAILED" });
    summary(good, u64::from(good), u64::from(!good), seconds)
}
