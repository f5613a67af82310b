//! Whole clusters in one thread, with time, network and disks that obey.
//!
//! A [`Sim`] runs the very [`Driver`](crate::consensus::driver::Driver) that ships, on disks in memory that lose what was
//! not flushed, over a network that drops, delays, repeats, reorders and partitions frames as told, under clocks
//! that only move when asked. Everything random follows from one seed: the same seed is the same run, so that
//! a failure found once can be looked at as often as needed.
//!
//! ```text
//!  knobs ──> schedule ──> chaos ──> Sim: cluster (peers, turns, time) ── network, disk, transfer, client
//!    (what one seed does, as data)     │
//!                                      └── check + model (what must hold), linear (what callers saw)
//!  a failure ──> shrink: the same seed with less and less of its schedule
//! ```
//!
//! [`run`] lets one seed happen. The checks ([`check`]) look at every step, against a [`model`] of the committed log that
//! shares no code with the state machine. Golden scripts drive a [`Sim`] by hand (`tests/consensus_scripts.rs`);
//! `tests/sim.rs` runs seeds on all cores.
//!
//! It must never use a clock, a thread, a socket or a source of randomness of its own, nor let the order of a hash
//! table decide anything.

mod aftermath;
pub mod chaos;
mod check;
mod client;
mod cluster;
mod disk;
pub mod founding;
pub mod knobs;
pub mod linear;
mod model;
mod network;
mod peers;
mod report;
pub mod schedule;
pub mod shrink;
mod transfer;
mod turns;

pub use chaos::{run, run_events};
pub use check::Broken;
pub use client::{Answer, Reading, Request, Ticket, Wish};
pub use cluster::{Life, Sim};
pub use knobs::Knobs;
pub use model::Value;
pub use network::{Faults, Peer};
pub use report::{Failure, Report};

use crate::consensus::settings::mix;

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

    /// A number from the least to the most of a range, both included.
    pub fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        if most <= least {
            return least;
        }
        least + self.below(most - least + 1)
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

/// Folds bytes into a hash; quick, and the same everywhere.
fn hash(start: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(start ^ bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash, u64::from_le_bytes(word))
    })
}
