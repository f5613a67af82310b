//! Raft around raft-rs: the log orders commands, a majority makes them durable, every peer applies them.
//!
//! The driver ([`driver`]) owns raft-rs's `RawNode` and both stores; its Ready loop stands on one screen. Clock,
//! randomness, disk and network come in by trait, so that the simulator drives the very code that ships.
//!
//! ```text
//!  Consensus (handle.rs) ──Input──> inbox ──> Driver (driver.rs) ──> LogStore, StateStore
//!      ^   ^                         ^  (thread.rs: the pump)  │
//!   propose, read …         frames from peers                  └──Outlet──> Wire (wire.rs, wire_rpc.rs)
//! ```
//!
//! Read in this order: `driver`, `proposals`, `reads`, `membership`, `snapshot`, `bootstrap`, `thread`, `handle`.
//!
//! What holds: a command is answered only when a majority has it durably and this peer has applied it; every
//! queue is bounded and refuses when full; nothing waits for ever; a disk error ends this peer's consensus
//! with a sentence and is never tried again; an idle cluster writes nothing.

pub mod bootstrap;
pub mod driver;
mod forward;
pub mod founding;
mod handle;
pub mod membership;
pub mod message;
pub mod proposals;
pub mod reads;
pub mod recover;
pub mod settings;
mod shared;
pub mod snapshot;
pub mod storage;
mod thread;
pub mod wire;
pub mod wire_rpc;

#[cfg(test)]
mod tests;

use handle::Inner;
pub use handle::{Consensus, WeakConsensus};
use shared::Shared;
pub use wire::Wire;

use crate::state::{Member, RaftId};
use libp2p::PeerId;
use std::time::Duration;

/// The facility name of this room in the log.
pub const LOG: &str = "raft";

/// Settings, from `consensus.raft` of service.json and the limits of DESIGN §7.
#[derive(Clone, Debug)]
pub struct ConsensusConfig {
    /// Our libp2p identity.
    pub peer_id: PeerId,
    /// Our name.
    pub name: String,
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Lowest election timeout; the real one is random up to twice that.
    pub election: Duration,
    /// How long a proposal may wait for a leader.
    pub wait_for_leader: Duration,
    /// How long one proposal, read or membership change may take in all.
    pub network_timeout: Duration,
    /// To how many further leaders a proposal is brought, when one loses its office before it is committed.
    pub commit_retries: u32,
    /// Before a leader that did not take a proposal is asked again; another leader is asked at once.
    pub commit_retry_delay: Duration,
    /// How late a follower may hear of a commit, when the message that tells it was lost.
    pub commit_timeout: Duration,
    /// How long a leader that hears from no majority stays one. raft-rs ends it after two election timeouts.
    pub lease: Duration,
    /// Most entries in one append message.
    pub max_append_entries: usize,
    /// Entries kept after a truncation, so that a short absence needs no snapshot.
    pub trailing_logs: u64,
    /// Applied entries between two truncations.
    pub snapshot_threshold: u64,
    /// How often the log is looked at for a truncation.
    pub snapshot_interval: Duration,
    /// Most voters; further members stay learners.
    pub max_voters: usize,
}

/// How this peer enters the cluster.
#[derive(Clone, Debug)]
pub enum Start {
    /// Found a cluster of one (fresh directory).
    Found,
    /// Found a cluster with others (fresh directory, or one in which just this was begun): all of them start with
    /// the same members and the same id. See [`founding`].
    FoundTogether {
        /// The id that was agreed on.
        cluster_id: u64,
        /// The members that were agreed on; this peer is one of them.
        members: Vec<Member>,
        /// The cluster version that all of them speak.
        version: u16,
    },
    /// Fresh directory: wait until a leader adds us as learner (cluster id as told by the join call).
    Join {
        /// Cluster to become a member of.
        cluster_id: u64,
    },
    /// The directory has a past: go on.
    Restart,
}

/// What Raft thinks, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Our Raft id.
    pub raft_id: RaftId,
    /// The cluster.
    pub cluster_id: u64,
    /// Term.
    pub term: u64,
    /// The leader we know.
    pub leader: Option<RaftId>,
    /// Committed index.
    pub committed: u64,
    /// Applied index.
    pub applied: u64,
    /// What the log may say (see [`crate::state::version`]).
    pub cluster_version: u16,
    /// Whether we were removed from the cluster, and somebody who votes knows.
    pub removed: bool,
    /// What we were told of a recovery of our cluster without us.
    pub superseded: Option<driver::Superseded>,
    /// Why consensus stopped, if it did (a disk error): the daemon must end.
    pub failed: Option<crate::error::Error>,
}
