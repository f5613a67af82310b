//! What runs did, and how one failed.

use std::collections::BTreeMap;
use std::fmt;

/// How a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which run.
    pub seed: u64,
    /// Which promise was broken: the same word for the same promise, so that a shortened run can be compared.
    pub kind: &'static str,
    /// What was seen.
    pub sentence: String,
    /// When, in milliseconds of the simulated clock.
    pub at: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, ms) = (self.at / 1_000, self.at % 1_000);
        write!(f, "seed {}, at {secs}.{ms:03} s: {} ({})", self.seed, self.sentence, self.kind)
    }
}

/// What a run did, or many: the reader of a test's output sees that they were no quiet ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Runs.
    pub runs: u64,
    /// Everything that happened, counted.
    pub steps: u64,
    /// Simulated milliseconds.
    pub millis: u64,
    /// Changes that were acknowledged.
    pub acknowledged: u64,
    /// Changes that the state refused.
    pub refused: u64,
    /// Changes of which nobody knows whether they happened.
    pub unknown: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Operations that went through the search for an order.
    pub ordered: u64,
    /// Operations whose history was too long for it.
    pub undecided: u64,
    /// Leaders, one for each term that had one.
    pub leaders: u64,
    /// States that were compared with the model.
    pub compared: u64,
    /// The longest that a healed cluster took to accept a change, in milliseconds.
    pub to_accept: u64,
    /// The longest that it took until all agreed, in milliseconds.
    pub to_agree: u64,
    /// Misfortunes, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// A hash of everything that happened: equal for equal runs.
    pub hash: u64,
}

/// Per run on average, less than this is too quiet.
const LEAST_ACKNOWLEDGED: u64 = 40;
/// Per run on average, less than this is too quiet.
const LEAST_READS: u64 = 8;
/// Per run on average, less than this is too quiet.
const LEAST_LEADERS: u64 = 2;
/// Runs in which each kind of misfortune must have happened at least once.
const RUNS_FOR_ALL: u64 = 100;
/// At most one in so many operations may be left without a verdict.
const UNDECIDED: u64 = 20;

impl Report {
    /// Counts a misfortune.
    pub fn count(&mut self, fault: &'static str, times: u64) {
        *self.faults.entry(fault).or_default() += times;
    }

    /// Adds another run, or many.
    pub fn add(&mut self, other: &Report) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.millis += other.millis;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.ordered += other.ordered;
        self.undecided += other.undecided;
        self.leaders += other.leaders;
        self.compared += other.compared;
        self.to_accept = self.to_accept.max(other.to_accept);
        self.to_agree = self.to_agree.max(other.to_agree);
        for (fault, times) in &other.faults {
            *self.faults.entry(fault).or_default() += times;
        }
        self.hash ^= other.hash;
    }

    /// Why these runs prove little, if so: a simulator in which nothing happens finds nothing.
    pub fn too_quiet(&self) -> Option<String> {
        let least = [
            ("changes were acknowledged", self.acknowledged, LEAST_ACKNOWLEDGED),
            ("reads were answered", self.reads, LEAST_READS),
            ("leaders were elected", self.leaders, LEAST_LEADERS),
        ];
        for (what, seen, each) in least {
            if seen < each * self.runs {
                return Some(format!("too quiet: only {seen} {what} in {} runs", self.runs));
            }
        }
        if self.undecided * UNDECIDED > self.ordered {
            return Some(format!("too quiet: {} operations have no verdict", self.undecided));
        }
        let missing = super::schedule::KINDS.iter().find(|kind| !self.faults.contains_key(*kind));
        if let Some(kind) = missing.filter(|_| self.runs >= RUNS_FOR_ALL) {
            return Some(format!("too quiet: nothing of the kind \"{kind}\" happened in {} runs", self.runs));
        }
        None
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs, {} steps, {} simulated minutes, {} leaders",
            self.runs,
            self.steps,
            self.millis / 60_000,
            self.leaders
        )?;
        writeln!(
            f,
            "changes: {} acknowledged, {} refused, {} unknown; reads: {}; ordered: {} operations, {} undecided; states compared: {}",
            self.acknowledged, self.refused, self.unknown, self.reads, self.ordered, self.undecided, self.compared
        )?;
        writeln!(
            f,
            "after healing: a change accepted within {} ms, all agreed within {} ms",
            self.to_accept, self.to_agree
        )?;
        let faults: Vec<String> = self.faults.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        write!(f, "misfortunes: {}", faults.join(", "))
    }
}
