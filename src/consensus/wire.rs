//! What consensus asks of the network, as a trait: `wire_rpc` ships, tests bring their own.
//!
//! Raft frames are sent and forgotten: bounded, unordered promises, dropped when a peer is slow or away (Raft
//! repeats what matters). Calls to the leader wait for an answer.

use super::proposals::Committed;
use super::snapshot::{ChunkStream, SnapshotRequest};
use crate::error::Result;
use crate::state::{Member, Outcome, RaftId};
use async_trait::async_trait;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A command on its way to the leader, as it is spoken before cluster version
/// [`PROPOSALS_SAY_SINCE`](crate::state::version::PROPOSALS_SAY_SINCE).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProposeRequest {
    /// The cluster both are of.
    pub cluster_id: u64,
    /// The proposal's id, the same for each retry.
    pub id: u64,
    /// The encoded command.
    pub command: Vec<u8>,
}

/// A command on its way to the leader, which says since when it may be in a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProposeSince {
    /// It is in no log at or below this index (see [`super::proposals`]).
    pub since: u64,
    /// The command.
    pub request: ProposeRequest,
}

/// The leader's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProposeAnswer {
    /// Where the command is in the log.
    pub index: u64,
    /// Its encoded outcome.
    pub outcome: Vec<u8>,
}

impl ProposeAnswer {
    /// From what the leader's driver said.
    pub fn new(committed: &Committed) -> Self {
        ProposeAnswer { index: committed.index, outcome: committed.outcome.encode() }
    }

    /// Back again, checked.
    ///
    /// # Errors
    /// [`crate::Kind::Corrupt`] when the outcome cannot be read.
    pub fn decode(&self) -> Result<Committed> {
        Ok(Committed { index: self.index, outcome: Outcome::decode(&self.outcome)? })
    }
}

/// A membership change on its way to the leader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberRequest {
    /// The cluster both are of.
    pub cluster_id: u64,
    /// What is wanted.
    pub change: MemberRequestKind,
}

/// What is wanted of the membership.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MemberRequestKind {
    /// Add this encoded member record.
    Add(Vec<u8>),
    /// Remove the peer with this id (its bytes).
    Remove(Vec<u8>),
}

/// The network, as consensus sees it.
#[async_trait]
pub trait Wire: Send + Sync + 'static {
    /// Sends a Raft frame towards a peer without waiting; it may get lost. `raft_id` is whom to name when it did.
    fn send(&self, to: &Member, raft_id: RaftId, frame: Vec<u8>);
    /// Asks the leader to commit a command that may be in a log `since` this index (`None` in a cluster whose version
    /// does not know that yet).
    async fn propose(
        &self,
        leader: &Member,
        since: Option<u64>,
        request: ProposeRequest,
        limit: Duration,
    ) -> Result<ProposeAnswer>;
    /// Asks the leader for a membership change; the answer is the cluster id.
    async fn change_members(&self, leader: &Member, request: MemberRequest, limit: Duration) -> Result<u64>;
    /// Opens a snapshot transfer.
    async fn fetch_snapshot(&self, from: &Member, request: SnapshotRequest) -> Result<Box<dyn ChunkStream>>;
    /// Whether a connection to the peer is up.
    fn is_connected(&self, peer: &PeerId) -> bool;
}
