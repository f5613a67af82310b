//! Who holds a pin: a pure function of replication factors, present holders, and metrics.
//!
//! The rules are ipfs-cluster's (reference J.3): holders that are alive stay, user allocations come first,
//! the rest is spread by the `allocate_by` metrics: a partitionable metric (a tag) groups the
//! candidates and the next copy goes to the group that has fewest; any other metric orders by weight, best first.
//! [`repin`] decides what moves when holders die, return or leave, [`rebalance`] what moves for evenness' sake.
//! The function reads no clock, no network and no state: whoever proposes a pin gathers the
//! [`Candidate`]s and commits the answer, so that every peer stores the same allocations.

pub mod rebalance;
pub mod repin;

use crate::error::{Error, Result};
use libp2p::PeerId;
use std::collections::BTreeMap;

/// One metric of a candidate, in the order of `allocate_by`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighed {
    /// For ordering: more is better.
    pub weight: i64,
    /// For grouping, when `partitionable`.
    pub value: String,
    /// Whether replicas are spread over the values (tags) instead of ordered by weight.
    pub partitionable: bool,
}

/// A live member that has every `allocate_by` metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub peer: PeerId,
    /// Its metrics, one per `allocate_by` name.
    pub metrics: Vec<Weighed>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Fewest copies (-1 with `max` -1: everywhere).
    pub min: i32,
    /// Most copies.
    pub max: i32,
    /// Present holders, in stored order.
    pub current: &'a [PeerId],
    /// Holders the user asked for, best first.
    pub preferred: &'a [PeerId],
    /// Who may hold it.
    pub candidates: &'a [Candidate],
}

/// Validates replication factors as ipfs-cluster does.
///
/// # Errors
/// [`crate::Kind::Invalid`] with ipfs-cluster's sentence.
pub fn check_factors(min: i32, max: i32) -> Result<()> {
    if min == 0 || max == 0 {
        return Err(Error::invalid("cluster.replication_factor_min and max must be set (not 0)"));
    }
    if min < -1 {
        return Err(Error::invalid(
            "cluster.replication_factor_min is invalid: use -1 (everywhere) or 1 and more",
        ));
    }
    if max < -1 {
        return Err(Error::invalid(
            "cluster.replication_factor_max is invalid: use -1 (everywhere) or 1 and more",
        ));
    }
    if (min == -1) != (max == -1) {
        return Err(Error::invalid(
            "cluster.replication_factor_min and max must be -1 when one of them is (everywhere is all or nothing)",
        ));
    }
    if min > max {
        return Err(Error::invalid("cluster.replication_factor_min is larger than max"));
    }
    Ok(())
}

/// Chooses the holders. Empty means everywhere.
///
/// # Errors
/// [`crate::Kind::Unavailable`] `not enough peers to allocate CID…` with the counts.
pub fn allocate(request: &Request<'_>) -> Result<Vec<PeerId>> {
    check_factors(request.min, request.max)?;
    if request.min < 0 {
        return Ok(Vec::new());
    }
    let (min, max) = (request.min as usize, request.max as usize);
    let alive: Vec<PeerId> = request
        .current
        .iter()
        .filter(|p| request.candidates.iter().any(|c| c.peer == **p))
        .copied()
        .collect();
    if alive.len() >= min {
        // Enough are alive: nothing moves. A dead holder stays listed while there is room for it, so that
        // its return costs nothing; surplus goes from the end, the dead first.
        let mut kept = request.current.to_vec();
        while kept.len() > max {
            let dead = kept.iter().rposition(|p| !alive.contains(p));
            kept.remove(dead.unwrap_or(kept.len() - 1));
        }
        return Ok(kept);
    }
    let free: Vec<&Candidate> = request.candidates.iter().filter(|c| !alive.contains(&c.peer)).collect();
    let (needed, wanted) = (min - alive.len(), max - alive.len());
    if free.len() < needed {
        return Err(Error::unavailable(format!(
            "not enough peers to allocate CID. Needed at least: {needed}. Wanted at most: {wanted}. Available candidates: {}. See logs for more info.",
            free.len()
        )));
    }
    let mut chosen = alive;
    let holding: Vec<&Candidate> = request.candidates.iter().filter(|c| chosen.contains(&c.peer)).collect();
    let preferred = request.preferred.iter().filter(|p| free.iter().any(|c| c.peer == **p)).copied();
    for peer in preferred.chain(rank(&free, &holding)) {
        if chosen.len() == max {
            break;
        }
        if !chosen.contains(&peer) {
            chosen.push(peer);
        }
    }
    Ok(chosen)
}

/// Candidates in the order in which further copies should be placed, where `held` have one already: by the first
/// metric, and among what it calls equal (or of one group) by the next.
pub fn rank(candidates: &[&Candidate], held: &[&Candidate]) -> Vec<PeerId> {
    balanced(candidates, held, 0)
}

fn balanced(candidates: &[&Candidate], held: &[&Candidate], level: usize) -> Vec<PeerId> {
    let Some(first) = candidates.first() else { return Vec::new() };
    let Some(metric) = first.metrics.get(level) else {
        let mut peers: Vec<PeerId> = candidates.iter().map(|c| c.peer).collect();
        peers.sort_unstable();
        return peers;
    };
    if !metric.partitionable {
        let mut sorted: Vec<&&Candidate> = candidates.iter().collect();
        let weight = |c: &Candidate| c.metrics.get(level).map_or(i64::MIN, |m| m.weight);
        sorted.sort_by(|a, b| weight(b).cmp(&weight(a)).then_with(|| a.peer.cmp(&b.peer)));
        return sorted.into_iter().map(|c| c.peer).collect();
    }
    // Groups by value. The one with the fewest copies is next; of those, the heaviest by the next metric that has
    // weights. Without any copy yet that is a round-robin.
    let value = |c: &Candidate| c.metrics.get(level).map_or(String::new(), |m| m.value.clone());
    let mut groups: BTreeMap<String, Vec<&Candidate>> = BTreeMap::new();
    for c in candidates {
        groups.entry(value(c)).or_default().push(c);
    }
    struct Group {
        copies: usize,
        weight: i128,
        peers: std::collections::VecDeque<PeerId>,
    }
    let mut groups: Vec<Group> = groups
        .into_iter()
        .map(|(name, members)| {
            let weight = members
                .iter()
                .flat_map(|c| c.metrics.iter().skip(level + 1).find(|m| !m.partitionable))
                .map(|m| i128::from(m.weight))
                .sum();
            let inside: Vec<&Candidate> = held.iter().filter(|c| value(c) == name).copied().collect();
            let peers = balanced(&members, &inside, level + 1).into();
            Group { copies: inside.len(), weight, peers }
        })
        .collect();
    // Stable: equal weights stay in the order of the values.
    groups.sort_by_key(|g| std::cmp::Reverse(g.weight));
    let mut order = Vec::with_capacity(candidates.len());
    while let Some(next) = groups.iter_mut().filter(|g| !g.peers.is_empty()).min_by_key(|g| g.copies) {
        next.copies += 1;
        order.extend(next.peers.pop_front());
    }
    order
}
