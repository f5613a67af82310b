//! The simulated network, and what else takes time: frames, snapshot transfers and flushes on their way.
//!
//! Deliveries are ordered by the tick at which they are due and then by a running number, so that equal seeds
//! give equal orders.

use super::Rng;
use crate::consensus::snapshot::SnapshotRequest;
use std::collections::{BTreeMap, BTreeSet};

/// A peer's number in the simulation, from 1.
pub type Peer = u64;

/// How badly the network behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Percent of frames that are lost.
    pub drop: u64,
    /// Percent of frames that arrive twice.
    pub duplicate: u64,
    /// Most ticks that a frame takes; each draws its own, so frames overtake each other.
    pub delay: u64,
    /// Percent of snapshot transfers that break in the middle.
    pub break_snapshot: u64,
}

/// Something on its way.
pub(super) enum Flight {
    /// A frame.
    Frame { from: Peer, to: Peer, raft_id: u64, bytes: Vec<u8> },
    /// A snapshot transfer that will be over.
    Snapshot { from: Peer, to: Peer, life: u64, request: SnapshotRequest },
    /// A flush of the state that will be done.
    Flush { on: Peer, life: u64 },
}

/// See the module.
#[derive(Default)]
pub(super) struct Network {
    pub(super) faults: Faults,
    cuts: BTreeSet<(Peer, Peer)>,
    flights: BTreeMap<(u64, u64), Flight>,
    sent: u64,
}

impl Network {
    pub(super) fn cut(&mut self, a: Peer, b: Peer) {
        self.cuts.insert((a, b));
        self.cuts.insert((b, a));
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(super) fn is_open(&self, from: Peer, to: Peer) -> bool {
        !self.cuts.contains(&(from, to))
    }

    /// Sends a frame as the faults allow.
    pub(super) fn send(
        &mut self,
        now: u64,
        rng: &mut Rng,
        from: Peer,
        to: Peer,
        raft_id: u64,
        bytes: Vec<u8>,
    ) {
        let faults = self.faults;
        if faults.drop > 0 && rng.chance(faults.drop) {
            return;
        }
        if faults.duplicate > 0 && rng.chance(faults.duplicate) {
            let due = now + rng.below(faults.delay + 1);
            self.launch(due, Flight::Frame { from, to, raft_id, bytes: bytes.clone() });
        }
        let due = if faults.delay == 0 { now } else { now + rng.below(faults.delay + 1) };
        self.launch(due, Flight::Frame { from, to, raft_id, bytes });
    }

    /// Lets something arrive at a tick.
    pub(super) fn launch(&mut self, due: u64, flight: Flight) {
        self.sent += 1;
        self.flights.insert((due, self.sent), flight);
    }

    /// The next thing that is due.
    pub(super) fn arrive(&mut self, now: u64) -> Option<Flight> {
        let first = self.flights.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
