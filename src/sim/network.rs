//! The simulated network, and what else takes time: frames, requests, transfers, turns and flushes on their way.
//!
//! What is due at the same millisecond happens in the order in which it was sent off (ticks first, by peer), so that
//! equal seeds give equal orders. Each link draws from a sequence of its own: what happens on one does not change
//! what happens on another, which lets a failing run be shortened without becoming a different one.

use super::client::{Request, Ticket, Told};
use super::disk::Mark;
use super::Rng;
use crate::consensus::snapshot::{Chunk, SnapshotRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A peer's number in the simulation, from 1.
pub type Peer = u64;

/// Milliseconds of a driver's tick with the simulator's settings.
pub(super) const TICK: u64 = 25;
/// Where the running numbers begin; below are the ticks, by peer.
const FIRST_ORDER: u64 = 1 << 16;

/// How badly the network behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Percent of frames that are lost.
    pub drop: u64,
    /// Percent of frames that arrive twice.
    pub duplicate: u64,
    /// Most ticks that a frame takes on top; each draws its own, so frames overtake each other.
    pub delay: u64,
    /// Percent of snapshot transfers that break in the middle.
    pub break_snapshot: u64,
}

/// How the network is on its good days.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ways {
    /// Least and most milliseconds that anything takes.
    pub(super) latency: (u64, u64),
    /// Whether frames from one peer to another always arrive in the order in which they were sent.
    pub(super) in_order: bool,
    /// Whether a cut link swallows frames without a word; else the sender learns that the peer cannot be reached.
    pub(super) silent: bool,
}

/// Something on its way.
pub(super) enum Flight {
    /// A peer's clock.
    Tick { peer: Peer, life: u64 },
    /// A frame.
    Frame { from: Peer, to: Peer, raft_id: u64, bytes: Vec<u8> },
    /// Something that a turn did, after it waited for the disk.
    Leave { peer: Peer, life: u64, mark: Mark },
    /// The disk has finished the oldest thing under way.
    Settled { peer: Peer, life: u64 },
    /// A turn is over.
    Free { peer: Peer, life: u64 },
    /// A peer that stood still goes on.
    Resume { peer: Peer, life: u64 },
    /// The power goes.
    Crash { peer: Peer, life: u64 },
    /// A flush of the state is done.
    Flushed { peer: Peer, life: u64 },
    /// A snapshot's stream opens.
    Opens { from: Peer, to: Peer, life: u64, request: SnapshotRequest },
    /// A snapshot's stream ends.
    Ends {
        from: Peer,
        from_life: u64,
        to: Peer,
        life: u64,
        request: SnapshotRequest,
        chunks: Vec<Chunk>,
        breaks: bool,
    },
    /// A request arrives at the leader.
    Ask { ticket: Ticket, attempt: u64, from: Peer, to: Peer, request: Rc<Request> },
    /// An answer arrives at the peer that was asked.
    Told { from: Peer, told: Told },
    /// A request is to be tried again.
    Again { ticket: Ticket, attempt: u64 },
}

/// See the module.
pub(super) struct Network {
    pub(super) faults: Faults,
    pub(super) ways: Ways,
    seed: u64,
    cuts: BTreeSet<(Peer, Peer)>,
    links: BTreeMap<(Peer, Peer), Link>,
    flights: BTreeMap<(u64, u64), Flight>,
    sent: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) late: u64,
}

struct Link {
    rng: Rng,
    last: u64,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Network {
            faults: Faults::default(),
            ways: Ways::default(),
            seed,
            cuts: BTreeSet::new(),
            links: BTreeMap::new(),
            flights: BTreeMap::new(),
            sent: FIRST_ORDER,
            lost: 0,
            doubled: 0,
            late: 0,
        }
    }

    /// Cuts one direction.
    pub(super) fn cut(&mut self, from: Peer, to: Peer) {
        if from != to {
            self.cuts.insert((from, to));
        }
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(super) fn is_open(&self, from: Peer, to: Peer) -> bool {
        from == to || !self.cuts.contains(&(from, to))
    }

    fn link(&mut self, from: Peer, to: Peer) -> &mut Link {
        let seed = self.seed ^ (from << 32 | to);
        self.links.entry((from, to)).or_insert_with(|| Link { rng: Rng::new(seed), last: 0 })
    }

    /// How long something takes from one peer to another; `None` when it is lost.
    pub(super) fn takes(&mut self, from: Peer, to: Peer) -> Option<u64> {
        let (faults, ways) = (self.faults, self.ways);
        let rng = &mut self.link(from, to).rng;
        if faults.drop > 0 && rng.chance(faults.drop) {
            self.lost += 1;
            return None;
        }
        let mut takes = rng.between(ways.latency);
        if faults.delay > 0 {
            let more = rng.below(faults.delay * TICK + 1);
            takes += more;
            self.late += u64::from(more > 0);
        }
        Some(takes)
    }

    /// Sends a frame as the faults allow.
    pub(super) fn send(&mut self, now: u64, from: Peer, to: Peer, raft_id: u64, bytes: Vec<u8>) {
        let (duplicate, in_order) = (self.faults.duplicate, self.ways.in_order);
        let again = duplicate > 0 && self.link(from, to).rng.chance(duplicate);
        let copies = if again { vec![bytes.clone(), bytes] } else { vec![bytes] };
        self.doubled += u64::from(again);
        for bytes in copies {
            let Some(takes) = self.takes(from, to) else { continue };
            let link = self.link(from, to);
            let due = if in_order { link.last.max(now + takes) } else { now + takes };
            link.last = due;
            self.launch(due, Flight::Frame { from, to, raft_id, bytes });
        }
    }

    /// Lets something happen at a time.
    pub(super) fn launch(&mut self, due: u64, flight: Flight) {
        let order = if let Flight::Tick { peer, .. } = flight {
            peer
        } else {
            self.sent += 1;
            self.sent
        };
        self.flights.insert((due, order), flight);
    }

    /// The next thing that is due, and when.
    pub(super) fn arrive(&mut self, until: u64) -> Option<(u64, Flight)> {
        let first = self.flights.first_entry()?;
        let due = first.key().0;
        (due <= until).then(|| (due, first.remove()))
    }
}
