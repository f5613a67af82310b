//! What runs did, and how one failed.

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
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {} ({})", self.seed, self.sentence, self.kind)
    }
}
