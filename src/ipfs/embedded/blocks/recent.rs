//! What the garbage collection must not touch although no pin reaches it yet.
//!
//! A block that was put, or that a running pin has come across, is remembered for a while: until the pin that reaches
//! it is durable, or until the grace period is over. Hashes are kept as keyed 64-bit fingerprints; should two ever
//! collide, a block is kept that could go, never the other way.

use crate::error::{Error, Result};
use multihash::Multihash;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Most blocks that are remembered. Beyond, nothing at all is collected until the grace period has passed.
const MAX_RECENT: usize = 1 << 18;
/// How long that is at least, seconds: a running pin's blocks must not lose their protection with a short grace.
const BLIND_SECS: u32 = 3_600;
/// Below this nobody cares for stale entries.
const PRUNE_FROM: usize = 1 << 14;

/// A running pin.
pub(crate) type WalkId = u64;

#[derive(Clone, Copy)]
struct Stamp {
    /// Order of events.
    tick: u64,
    /// The pin that came across it last; 0 when it was put.
    walk: WalkId,
    /// Seconds since the start.
    at: u32,
}

pub(super) struct Recent {
    keys: RandomState,
    started: Instant,
    grace: Duration,
    tick: u64,
    stamps: HashMap<u64, Stamp>,
    prune_at: usize,
    /// Running pins; an id is the tick of its beginning.
    walks: BTreeSet<WalkId>,
    /// Since when what is touched stays, while a collection runs.
    collecting: Option<u64>,
    /// Too much was added to remember; nothing is collected before this second.
    blind_until: Option<u32>,
}

impl Recent {
    pub(super) fn new(grace: Duration) -> Self {
        Recent {
            keys: RandomState::new(),
            started: Instant::now(),
            grace,
            tick: 0,
            stamps: HashMap::new(),
            prune_at: PRUNE_FROM,
            walks: BTreeSet::new(),
            collecting: None,
            blind_until: None,
        }
    }

    fn now(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    fn grace_secs(&self) -> u32 {
        u32::try_from(self.grace.as_secs()).unwrap_or(u32::MAX)
    }

    /// A block was put (walk 0) or come across by a pin.
    pub(super) fn touch(&mut self, hash: &Multihash<64>, walk: WalkId) {
        self.tick += 1;
        if self.grace.is_zero() && self.floor().is_none() {
            return;
        }
        let stamp = Stamp { tick: self.tick, walk, at: self.now() };
        self.stamps.insert(self.keys.hash_one(hash), stamp);
        if self.stamps.len() >= self.prune_at {
            self.prune();
        }
    }

    /// Everything touched since then stays: the beginning of the oldest running pin, or what was that when the
    /// running collection began.
    fn floor(&self) -> Option<u64> {
        self.walks.first().copied().into_iter().chain(self.collecting).min()
    }

    fn holds(&self, stamp: &Stamp, now: u32) -> bool {
        self.in_use(stamp) || now.saturating_sub(stamp.at) < self.grace_secs()
    }

    /// Whether somebody who is at work came across it.
    fn in_use(&self, stamp: &Stamp) -> bool {
        self.floor().is_some_and(|floor| stamp.tick > floor)
    }

    fn prune(&mut self) {
        let now = self.now();
        let mut stamps = std::mem::take(&mut self.stamps);
        stamps.retain(|_, stamp| self.holds(stamp, now));
        if stamps.len() >= MAX_RECENT {
            stamps.clear();
            self.blind_until = Some(now.saturating_add(self.grace_secs().max(BLIND_SECS)));
        }
        self.prune_at = (stamps.len() * 2).clamp(PRUNE_FROM, MAX_RECENT);
        self.stamps = stamps;
    }

    pub(super) fn begin_walk(&mut self) -> WalkId {
        self.tick += 1;
        self.walks.insert(self.tick);
        self.tick
    }

    /// The pin is over. When it is durable (`pinned`) its blocks need no other protection any more, unless somebody
    /// else came across them since, or a collection runs whose live set does not know the pin.
    pub(super) fn end_walk(&mut self, walk: WalkId, pinned: bool) {
        self.walks.remove(&walk);
        if pinned && self.floor().is_none() {
            self.stamps.retain(|_, s| s.walk != walk);
        }
    }

    /// A collection begins; refused while nobody knows what is protected.
    pub(super) fn begin_collection(&mut self) -> Result<()> {
        self.prune();
        if self.blind_until.is_some_and(|until| self.now() < until) {
            return Err(Error::unavailable(format!(
                "more than {MAX_RECENT} blocks were added lately that no pin reaches yet: collect garbage in an hour"
            )));
        }
        self.tick += 1;
        self.collecting = Some(self.walks.first().copied().unwrap_or(self.tick));
        Ok(())
    }

    pub(super) fn end_collection(&mut self) {
        self.collecting = None;
        self.prune();
    }

    /// Whether a block must stay. Without `grace`, having been put lately is no reason.
    pub(super) fn protects(&self, hash: &Multihash<64>, grace: bool) -> bool {
        let now = self.now();
        let held = |stamp: &Stamp| if grace { self.holds(stamp, now) } else { self.in_use(stamp) };
        self.blind_until.is_some_and(|until| now < until)
            || self.stamps.get(&self.keys.hash_one(hash)).is_some_and(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipfs::unixfs::hash::sha256;

    #[test]
    fn a_block_put_before_a_collection_is_free_without_grace_and_held_with_it() {
        let hash = sha256(b"x");
        for (grace, held) in [(0, false), (3_600, true)] {
            let mut recent = Recent::new(Duration::from_secs(grace));
            recent.touch(&hash, 0);
            recent.begin_collection().unwrap();
            assert_eq!(recent.protects(&hash, true), held);
            recent.touch(&hash, 0);
            assert!(recent.protects(&hash, true), "put while the collection runs");
        }
    }

    #[test]
    fn a_running_pin_holds_what_it_came_across_and_lets_go_when_it_is_durable() {
        let mut recent = Recent::new(Duration::from_secs(3_600));
        let hash = sha256(b"x");
        let walk = recent.begin_walk();
        recent.touch(&hash, walk);
        assert!(recent.protects(&hash, true));
        recent.end_walk(walk, true);
        assert!(!recent.protects(&hash, true), "the pin protects it now");
        let walk = recent.begin_walk();
        recent.touch(&hash, walk);
        recent.touch(&hash, 0);
        recent.end_walk(walk, true);
        assert!(recent.protects(&hash, true), "somebody put it after the pin had passed");
    }

    #[test]
    fn a_pin_that_ends_during_a_collection_keeps_its_blocks() {
        let mut recent = Recent::new(Duration::ZERO);
        let hash = sha256(b"x");
        let walk = recent.begin_walk();
        recent.begin_collection().unwrap();
        recent.touch(&hash, walk);
        recent.end_walk(walk, true);
        assert!(recent.protects(&hash, true));
        recent.end_collection();
        recent.begin_collection().unwrap();
        assert!(!recent.protects(&hash, true));
    }

    #[test]
    fn whoever_touched_a_block_in_between_it_stays_while_the_pin_runs() {
        let mut recent = Recent::new(Duration::ZERO);
        let hash = sha256(b"x");
        let first = recent.begin_walk();
        recent.touch(&hash, first);
        let second = recent.begin_walk();
        recent.touch(&hash, second);
        recent.end_walk(second, true);
        recent.begin_collection().unwrap();
        assert!(recent.protects(&hash, true));
        recent.end_walk(first, true);
        assert!(recent.protects(&hash, true), "the collection began while it ran");
    }

    #[test]
    fn who_asks_for_a_removal_is_stopped_by_work_in_progress_not_by_age() {
        let mut recent = Recent::new(Duration::from_secs(3_600));
        let (put, touched) = (sha256(b"put"), sha256(b"touched"));
        recent.touch(&put, 0);
        let walk = recent.begin_walk();
        recent.touch(&touched, walk);
        recent.begin_collection().unwrap();
        assert!(recent.protects(&put, true) && !recent.protects(&put, false));
        assert!(recent.protects(&touched, false));
        recent.touch(&put, 0);
        assert!(recent.protects(&put, false), "put again meanwhile");
    }

    #[test]
    fn too_many_blocks_to_remember_protect_everything() {
        let mut recent = Recent::new(Duration::from_secs(3_600));
        for n in 0..MAX_RECENT as u64 + 10 {
            recent.touch(&Multihash::wrap(0x12, &n.to_le_bytes()).unwrap(), 0);
        }
        assert!(recent.protects(&sha256(b"anything"), true));
        assert_eq!(recent.begin_collection().unwrap_err().kind(), crate::Kind::Unavailable);
    }
}
