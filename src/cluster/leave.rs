//! Taking leave: removing a member, and leaving by oneself.
//!
//! A member that goes takes its copies with it, so its pins are given to others first (unless `disable_repinning`
//! says that nobody wants that): content with one copy is copied while the old holder still serves it; a dead
//! member's pins are given to others as far as somebody else has the content. Both callers wait for bounded time
//! only: a client at the other end of `DELETE /peers/{id}`, and an init system that will kill a stop that takes
//! long. What is not moved by then stays where it is and the member stays a member: the only copy of something is
//! never given up to be on time. Whoever wants the peer gone all the same stops it first: of a dead one there is
//! nothing left to save.

use super::Cluster;
use crate::error::{Error, Kind, Result};
use crate::runtime;
use futures::StreamExt;
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
    /// NotFound for a stranger, Conflict for the last peer or when content could not be moved in time, no majority.
    pub async fn peer_remove(&self, peer: PeerId) -> Result<()> {
        self.give_away(peer, MOVE_LIMIT).await?;
        self.remove(peer).await
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
        self.remove(self.inner.me).await.map(|()| true)
    }

    async fn remove(&self, peer: PeerId) -> Result<()> {
        let leads = self.inner.consensus.leader().is_some_and(|m| m.peer_id == peer);
        if peer == self.inner.me && leads && self.member_ids().len() > 1 {
            // A leader that removes itself leaves an election behind; one that hands over first does not.
            if let Err(error) = self.inner.consensus.hand_over(HAND_OVER).await {
                log::warn!(target: "cluster", "leadership could not be handed over before leaving: {error}");
            }
        }
        self.inner.consensus.remove_member(peer).await
    }

    /// Moves a member's pins to others, within `limit`.
    async fn give_away(&self, peer: PeerId, limit: Duration) -> Result<()> {
        let members = self.member_ids();
        // A stranger, or the last one: consensus has the sentence. A witness has nothing to give.
        if !members.contains(&peer) || members.len() < 2 || self.is_witness_member(&peer) {
            return Ok(());
        }
        if self.holder_ids() == [peer] {
            return Err(Error::conflict(format!(
                "peer {peer} stays a member: it is the only one that holds content, the others are witnesses. Add a peer \
                 that holds content first"
            )));
        }
        if !self.inner.settings.repin {
            let alone = self.only_copies(peer).await?;
            if alone > 0 {
                log::warn!(
                    target: "cluster",
                    "peer {peer} goes with the only copies of {alone} pins, as cluster.disable_repinning is set"
                );
            }
            return Ok(());
        }
        let moved = runtime::timeout(limit, "moving its content", self.vacate(peer, None)).await;
        let reachable = peer == self.inner.me || self.inner.rpc.host().is_connected(&peer);
        let why = match moved {
            Ok(last) if last.left() == 0 => return Ok(()),
            Ok(last) if last.left() == last.short && self.only_copies(peer).await? == 0 => {
                log::warn!(target: "cluster", "peer {peer} goes, and some pins have fewer copies from now on: {}", last.message);
                return Ok(());
            }
            Ok(last) => Error::conflict(last.message),
            Err(error) if error.kind() == Kind::Timeout => {
                Error::conflict(format!("its content is not on other peers yet after {limit:?}"))
            }
            Err(error) => error,
        };
        if !reachable {
            log::warn!(target: "cluster", "peer {peer} is not there and goes all the same: {why}");
            return Ok(());
        }
        Err(Error::new(
            why.kind(),
            format!(
                "peer {peer} stays a member: {why}. `pinfold drain {peer}` moves its content, however long that takes, and shows how far it is; then remove it. To remove it all the same, stop it first"
            ),
        ))
    }

    /// How many pins no peer in reach holds but this one.
    async fn only_copies(&self, peer: PeerId) -> Result<u64> {
        let host = self.inner.rpc.host();
        let others: Vec<PeerId> = self
            .holder_ids()
            .into_iter()
            .filter(|p| *p != peer && (*p == self.inner.me || host.is_connected(p)))
            .collect();
        let mut pins = self.allocations();
        let mut alone = 0;
        while let Some(pin) = pins.next().await {
            let holders = pin?.allocations;
            alone += u64::from(holders.contains(&peer) && !holders.iter().any(|p| others.contains(p)));
        }
        Ok(alone)
    }
}
