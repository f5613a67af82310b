//! What one seed turns: how large its cluster is and how bad its days are.
//!
//! Swarm testing: each seed draws its own mixture, and leaves whole kinds of misfortune out, because what is always
//! on can hide what it always interrupts. A cluster whose disks never fail gets into states that one with broken
//! disks never lives to see.

use super::network::TICK;
use super::schedule::KINDS;
use super::Rng;

/// Most peers of a run.
pub const MOST_PEERS: u64 = 9;

/// See the module. Times are in milliseconds, ranges from the least to the most.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// Peers that there are.
    pub peers: u64,
    /// Of those, how many found the cluster together; 1 founds alone and calls the others.
    pub founders: u64,
    /// Of those, how many come only later, by the schedule.
    pub late: u64,
    /// Most voters.
    pub max_voters: usize,
    /// How long the misfortune lasts.
    pub trouble: u64,
    /// Between two misfortunes, on average.
    pub woe_every: u64,
    /// Between two requests, on average.
    pub request_every: u64,
    /// Different pins.
    pub names: u64,
    /// Weights of the kinds of requests, in the order of [`REQUESTS`].
    pub requests: Vec<u64>,
    /// The kinds of misfortune that happen.
    pub kinds: Vec<&'static str>,
    /// What a frame takes.
    pub latency: (u64, u64),
    /// Whether frames stay in order on each link.
    pub in_order: bool,
    /// Whether cut links swallow frames silently.
    pub silent: bool,
    /// What an append to the log takes.
    pub append: (u64, u64),
    /// What installing a snapshot takes.
    pub install: (u64, u64),
    /// What a flush of the state takes.
    pub flush: (u64, u64),
    /// What a snapshot's stream takes.
    pub transfer: (u64, u64),
    /// Entries in one message.
    pub max_append_entries: usize,
    /// Entries that stay behind a truncation.
    pub trailing_logs: u64,
    /// Entries that make a truncation worth while.
    pub snapshot_threshold: u64,
    /// Between two looks at the log.
    pub snapshot_interval: u64,
    /// The cluster version at the founding, where a set founds.
    pub version: u16,
}

/// The kinds of requests, as [`Knobs::requests`] weighs them.
pub const REQUESTS: [&str; 10] =
    ["pin", "direct pin", "pin that ends", "pin many", "unpin", "move", "expire", "read", "refresh", "raise"];

impl Knobs {
    /// The knobs of this seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        // Not the sequence that the run itself draws from.
        let mut rng = Rng::new(!seed);
        let peers = match rng.below(10) {
            0 => 1,
            1 => 2,
            2..=4 => 3,
            5 | 6 => rng.between((4, 5)),
            _ => rng.between((5, MOST_PEERS)),
        };
        let founders = if rng.chance(40) { rng.between((1, peers.min(5))) } else { 1 };
        let late = if rng.chance(30) { rng.below(peers - founders + 1) } else { 0 };
        let slow = rng.below(4);
        let tiny = rng.chance(60);
        // Each kind is on in most seeds and off in many.
        let often = rng.between((30, 90));
        let kinds: Vec<&'static str> = KINDS.iter().copied().filter(|_| rng.chance(often)).collect();
        let requests = REQUESTS.iter().map(|_| if rng.chance(75) { rng.between((1, 10)) } else { 0 });
        let mut requests: Vec<u64> = requests.collect();
        // Something to look at, and somebody who looks.
        requests[0] += 4;
        requests[7] += 3;
        Knobs {
            peers,
            founders,
            late,
            max_voters: if rng.chance(30) { rng.between((1, 5)) as usize } else { 7 },
            trouble: rng.between((4_000, 16_000)),
            woe_every: rng.between((80, 600)),
            request_every: rng.between((15, 120)),
            names: rng.between((3, 24)),
            requests,
            kinds,
            latency: [(0, 0), (0, 1), (1, 5), (5, 60)][rng.below(4) as usize],
            in_order: rng.chance(50),
            silent: rng.chance(50),
            append: [(0, 0), (1, 2), (2, 15), (5, 120)][slow as usize],
            install: [(0, 0), (1, 5), (5, 80), (20, 400)][slow as usize],
            flush: [(0, 1), (1, 5), (5, 80), (50, 900)][rng.below(4) as usize],
            transfer: [(1, 10), (20, 100), (100, 2_000)][rng.below(3) as usize],
            max_append_entries: if rng.chance(70) { rng.between((1, 8)) as usize } else { 64 },
            trailing_logs: if tiny { rng.below(10) } else { rng.between((20, 2_000)) },
            snapshot_threshold: if tiny { rng.between((1, 12)) } else { rng.between((20, 500)) },
            snapshot_interval: if tiny { TICK } else { rng.between((TICK, 5_000)) },
            version: rng.between((1, u64::from(crate::state::version::SPOKEN))) as u16,
        }
    }
}
