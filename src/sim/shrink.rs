//! Making a failing run short.
//!
//! Delta debugging over the schedule: leave out a half, a quarter, … a single event, and keep what is left whenever the
//! run still breaks the same promise. What remains is a story that a person can read. The seed stays the same, so the
//! shortened run is said in one line: the seed and the numbers of the events that are left.

use super::chaos::run_events;
use super::knobs::Knobs;
use super::report::Failure;
use super::schedule::{self, Event};

/// Runs that are spent on one failure.
pub const MAX_RUNS: usize = 400;

/// A failing run with as little of its schedule as it needs.
#[derive(Clone, Debug)]
pub struct Short {
    /// How it fails.
    pub failure: Failure,
    /// The numbers of the events that are left.
    pub kept: Vec<usize>,
    /// The events.
    pub events: Vec<Event>,
    /// How many there were.
    pub of: usize,
    /// Runs that this took.
    pub runs: usize,
}

/// The events of these numbers.
#[must_use]
pub fn part(events: &[Event], kept: &[usize]) -> Vec<Event> {
    kept.iter().filter_map(|n| events.get(*n).cloned()).collect()
}

/// Shortens a run that failed like `failure`.
#[must_use]
pub fn shrink(failure: &Failure, knobs: &Knobs) -> Short {
    let events = schedule::draw(failure.seed, knobs);
    let mut short = Short {
        failure: failure.clone(),
        kept: (0..events.len()).collect(),
        events: Vec::new(),
        of: events.len(),
        runs: 0,
    };
    let mut chunk = short.kept.len().div_ceil(2);
    while chunk > 0 && short.runs < MAX_RUNS {
        let (mut from, mut gained) = (0, false);
        while from < short.kept.len() && short.runs < MAX_RUNS {
            let mut less = short.kept.clone();
            less.drain(from..(from + chunk).min(less.len()));
            short.runs += 1;
            match run_events(failure.seed, knobs, &part(&events, &less), None) {
                Err(found) if found.kind == failure.kind => {
                    (short.kept, short.failure, gained) = (less, found, true);
                }
                _ => from += chunk,
            }
        }
        if !gained || chunk > 1 {
            chunk /= 2;
        }
    }
    short.events = part(&events, &short.kept);
    short
}
