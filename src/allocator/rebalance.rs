//! Which copies move so that the peers are filled evenly. Pure.
//!
//! Allocation looks forward only: a board that joins later gets new pins and none of the old ones. The
//! [`Planner`] walks over all pins once and says, one pin at a time, which copy should go from where to where, so
//! that in the end allocation is about as if it had been made anew: copies of one pin lie in as many groups (tags) as
//! they can, and within that every peer holds copies in proportion to its capacity. It goes by the number of copies,
//! which the replicated state tells exactly, and not by measured space, which lags behind (what was
//! unpinned is there until garbage is collected); so a second run has nothing left to do.
//!
//! Moves are few: one is made only if it spreads a pin over more groups, or, without spreading it over fewer, brings
//! a copy from a peer with more than its share to one with less. Shares are what the capacities say; where they cannot
//! be reached (a pin has one copy at a peer at most, and tags tie copies to places) a second round evens out between
//! pairs of peers what is left. Memory: one row per peer.

use super::Candidate;
use libp2p::PeerId;
use std::collections::BTreeSet;

/// A peer that takes part.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Who, with its tags among its metrics.
    pub candidate: Candidate,
    /// What it can hold, in any unit that all share; 0 counts as 1.
    pub capacity: u64,
    /// How many copies it has.
    pub copies: u64,
}

/// One copy on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Who gives it away.
    pub from: PeerId,
    /// Who takes it.
    pub to: PeerId,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Planner {
    slots: Vec<Slot>,
    /// How many copies each slot should have; `None` in the second round.
    shares: Option<Vec<u64>>,
}

impl Planner {
    /// Over these peers, and so many pins; holders that are not among the peers keep what they have.
    pub fn new(slots: Vec<Slot>, pins: u64) -> Self {
        let shares = Some(shares(&slots, pins));
        Planner { slots, shares }
    }

    /// To be called after all pins were considered: whether all of them shall be considered once more.
    pub fn next_round(&mut self) -> bool {
        self.shares.take().is_some()
    }

    /// The peers with the numbers of copies they will have.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Which copy of a pin with these holders should move, if any; the copy counts as moved from then on.
    pub fn consider(&mut self, holders: &[PeerId]) -> Option<Swap> {
        let givers: Vec<usize> = self.indices(|s| holders.contains(&s.candidate.peer));
        let takers: Vec<usize> = self.indices(|s| !holders.contains(&s.candidate.peer));
        let now = self.spread(givers.iter().copied());
        let mut best: Option<(Vec<usize>, usize, usize)> = None;
        for giver in &givers {
            for taker in &takers {
                let after = givers.iter().map(|g| if g == giver { *taker } else { *g });
                let spread = self.spread(after);
                if spread < now || spread == now && !self.relieves(*giver, *taker) {
                    continue;
                }
                let better = match &best {
                    None => true,
                    Some((known, ..)) if spread != *known => spread > *known,
                    // The fullest gives, the emptiest takes; of equals, the first by id.
                    Some((_, g, t)) => {
                        self.fuller(*giver, *g) || !self.fuller(*g, *giver) && self.fuller(*t, *taker)
                    }
                };
                if better {
                    best = Some((spread, *giver, *taker));
                }
            }
        }
        let (_, giver, taker) = best?;
        self.slots[giver].copies -= 1;
        self.slots[taker].copies += 1;
        Some(Swap { from: self.slots[giver].candidate.peer, to: self.slots[taker].candidate.peer })
    }

    fn indices(&self, of: impl Fn(&Slot) -> bool) -> Vec<usize> {
        let mut found: Vec<usize> = (0..self.slots.len()).filter(|i| of(&self.slots[*i])).collect();
        found.sort_by_key(|i| self.slots[*i].candidate.peer);
        found
    }

    /// Over how many groups these peers are spread, by the first tag, by the first two together, and so on.
    fn spread(&self, peers: impl Iterator<Item = usize> + Clone) -> Vec<usize> {
        let tags = |i: usize| -> Vec<&str> {
            let metrics = &self.slots[i].candidate.metrics;
            metrics.iter().filter(|m| m.partitionable).map(|m| m.value.as_str()).collect()
        };
        let levels =
            self.slots.first().map_or(0, |s| s.candidate.metrics.iter().filter(|m| m.partitionable).count());
        (1..=levels)
            .map(|level| {
                let groups: BTreeSet<Vec<&str>> =
                    peers.clone().map(|i| tags(i).into_iter().take(level).collect()).collect();
                groups.len()
            })
            .collect()
    }

    /// Whether the giver has more than its share and the taker less; or, in the second round, whether the giver, one
    /// copy lighter, is still at least as full as the taker, one heavier.
    fn relieves(&self, giver: usize, taker: usize) -> bool {
        let (g, t) = (&self.slots[giver], &self.slots[taker]);
        if let Some(shares) = &self.shares {
            return g.copies > shares[giver] && t.copies < shares[taker];
        }
        let lighter = u128::from(g.copies.saturating_sub(1)) * u128::from(t.capacity.max(1));
        let heavier = (u128::from(t.copies) + 1) * u128::from(g.capacity.max(1));
        lighter >= heavier
    }

    fn fuller(&self, one: usize, other: usize) -> bool {
        let (a, b) = (&self.slots[one], &self.slots[other]);
        u128::from(a.copies) * u128::from(b.capacity.max(1))
            > u128::from(b.copies) * u128::from(a.capacity.max(1))
    }
}

/// What each slot should have of all copies: in proportion to its capacity, at most one of each pin, in whole copies.
/// Where a copy could be counted here or there, it is counted where more are already.
fn shares(slots: &[Slot], pins: u64) -> Vec<u64> {
    let mut left: u128 = slots.iter().map(|s| u128::from(s.copies)).sum();
    let mut shares = vec![0u64; slots.len()];
    let mut open: Vec<usize> = (0..slots.len()).collect();
    // Whoever would get more than one copy of each pin gets one of each, and the others share the rest.
    loop {
        let capacity = |i: &usize| u128::from(slots[*i].capacity.max(1));
        let all: u128 = open.iter().map(capacity).sum();
        let full: Vec<usize> =
            open.iter().filter(|i| left * capacity(i) > u128::from(pins) * all).copied().collect();
        if full.is_empty() {
            let mut rests: Vec<(u128, usize)> = Vec::new();
            let mut given = 0;
            for i in &open {
                let part = left * capacity(i);
                // At most `pins`, as was just seen.
                shares[*i] = (part / all) as u64;
                given += part / all;
                rests.push((part % all, *i));
            }
            rests
                .sort_by_key(|(rest, i)| (std::cmp::Reverse(*rest), std::cmp::Reverse(slots[*i].copies), *i));
            for (_, i) in rests.iter().take((left - given) as usize) {
                shares[*i] += 1;
            }
            return shares;
        }
        for i in full {
            shares[i] = pins;
            left = left.saturating_sub(u128::from(pins));
            open.retain(|o| *o != i);
        }
    }
}
