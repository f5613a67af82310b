//! A pin: what is kept, how, where, and with which options.

use crate::clock::Timestamp;
use cid::Cid;
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeMap;

/// How deep a pin reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum PinMode {
    /// The block and all it links to (`max_depth` -1).
    #[default]
    Recursive,
    /// The one block (`max_depth` 0).
    Direct,
}

/// The kind of a pin. pinfold itself makes only [`PinType::Data`]; the others appear in imported states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum PinType {
    /// Ordinary content: `pin`.
    #[default]
    Data,
    /// Root of sharded content: `meta-pin`.
    Meta,
    /// DAG of shards: `clusterdag-pin`.
    ClusterDag,
    /// One shard: `shard-pin`.
    Shard,
}

/// A pin as replicated (reference F.2). The JSON form is `crate::api::types::PinJson`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    /// What is pinned.
    pub cid: Cid,
    /// Kind.
    pub kind: PinType,
    /// Recursive or direct.
    pub mode: PinMode,
    /// Free text.
    pub name: String,
    /// Fewest copies; -1 with `replication_max` -1 is everywhere. Never 0 once stored.
    pub replication_min: i32,
    /// Most copies.
    pub replication_max: i32,
    /// Who holds it; empty for everywhere. In the order the allocator chose.
    pub allocations: Vec<PeerId>,
    /// Free key-values.
    pub metadata: BTreeMap<String, String>,
    /// When it ends; [`Timestamp::ZERO`] for never.
    pub expire_at: Timestamp,
    /// Where the content can be had; at most 10 are used.
    pub origins: Vec<Multiaddr>,
    /// The pin this one replaced.
    pub pin_update: Option<Cid>,
    /// Carried for compatibility (bytes).
    pub shard_size: u64,
    /// Carried for compatibility (shard types only).
    pub reference: Option<Cid>,
    /// When it was pinned, by the proposer's clock; stored in whole seconds.
    pub timestamp: Timestamp,
}

impl Pin {
    /// A recursive, everywhere pin without any option, stamped with `timestamp`.
    pub fn new(cid: Cid, timestamp: Timestamp) -> Self {
        Pin {
            cid,
            kind: PinType::Data,
            mode: PinMode::Recursive,
            name: String::new(),
            replication_min: -1,
            replication_max: -1,
            allocations: Vec::new(),
            metadata: BTreeMap::new(),
            expire_at: Timestamp::ZERO,
            origins: Vec::new(),
            pin_update: None,
            shard_size: 0,
            reference: None,
            timestamp,
        }
    }

    /// Whether every member holds it.
    pub fn is_everywhere(&self) -> bool {
        self.replication_min < 0 && self.replication_max < 0
    }

    /// Whether `peer` must hold it.
    pub fn is_allocated_to(&self, peer: &PeerId) -> bool {
        self.is_everywhere() || self.allocations.contains(peer)
    }
}
