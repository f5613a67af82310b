//! Whole clusters in one thread, with time, network and disks that obey.
//!
//! A [`Sim`] runs the very [`Driver`](crate::consensus::driver::Driver) that ships, on disks in memory that lose what was not
//! flushed, over a network that drops, delays, repeats, reorders and partitions frames as told, under a clock
//! that only moves when asked. Everything random follows from one seed: the same seed is the same run, so that
//! a failure found once can be looked at as often as needed.
//!
//! While it runs it checks, at every step, what must never be false ([`check`]): at most one leader per term, and
//! equal state at equal index. Golden scripts drive it by hand (`tests/consensus_scripts.rs`); [`chaos`] drives it at random.
//!
//! It must never use a clock, a thread, a socket or a source of randomness of its own.

pub mod chaos;
mod check;
mod client;
mod cluster;
pub mod founding;
pub mod knobs;
mod network;
mod report;

pub use client::{Answer, Request, Ticket};
pub use cluster::{Life, Sim};
pub use knobs::Knobs;
pub use network::Faults;
pub use report::Failure;

use crate::consensus::settings::mix;

/// Runs one seed with these knobs.
///
/// # Errors
/// The promise that was broken.
pub fn run(seed: u64, knobs: &Knobs) -> Result<chaos::Report, Failure> {
    let _ = knobs;
    chaos::run(seed).map_err(|sentence| Failure { seed, kind: "broken", sentence })
}

/// Random numbers that follow from a seed.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    drawn: u64,
}

impl Rng {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Rng { seed, drawn: 0 }
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.seed, self.drawn)
    }

    /// A number below `n`; 0 for 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n.max(1)
    }

    /// True `percent` times out of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        from.get(self.below(from.len() as u64) as usize).copied()
    }
}
