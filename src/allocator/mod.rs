//! Who holds a pin: a pure function of replication factors, present holders, and metrics.
//!
//! The rules are ipfs-cluster's (reference J.3): holders that are alive stay, user allocations come first,
//! the rest is spread by the `allocate_by` metrics: a partitionable metric (a tag) groups the
//! candidates and replicas go round-robin over the groups; any other metric orders by weight, best first.
//! The function reads no clock, no network and no state: whoever proposes a pin gathers the
//! [`Candidate`]s and commits the answer, so that every peer stores the same allocations.

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
    let preferred = request.preferred.iter().filter(|p| free.iter().any(|c| c.peer == **p)).copied();
    for peer in preferred.chain(balanced(&free, 0)) {
        if chosen.len() == max {
            break;
        }
        if !chosen.contains(&peer) {
            chosen.push(peer);
        }
    }
    Ok(chosen)
}

/// Candidates in the order in which replicas should be placed, by the metrics from `level` on.
fn balanced(candidates: &[&Candidate], level: usize) -> Vec<PeerId> {
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
    // Groups by value, the heaviest (by the next metric that has weights) first; then round-robin.
    let mut groups: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
    for c in candidates {
        groups.entry(c.metrics.get(level).map_or("", |m| m.value.as_str())).or_default().push(c);
    }
    let mut groups: Vec<(i128, &str, Vec<PeerId>)> = groups
        .into_iter()
        .map(|(value, members)| {
            let weight = members
                .iter()
                .flat_map(|c| c.metrics.iter().skip(level + 1).find(|m| !m.partitionable))
                .map(|m| i128::from(m.weight))
                .sum();
            (weight, value, balanced(&members, level + 1))
        })
        .collect();
    groups.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let rounds = groups.iter().map(|g| g.2.len()).max().unwrap_or(0);
    (0..rounds).flat_map(|round| groups.iter().filter_map(move |g| g.2.get(round).copied())).collect()
}
