//! What can be asked about a simulated cluster.

use super::cluster::{peer_id, Life, Node, Sim};
use super::network::{Peer, TICK};
use crate::consensus::driver::Driver;
use crate::consensus::Status;
use crate::error::{Error, Result};
use crate::state::{Member, Pin, RaftId, Role};
use crate::store::{StateStore, Table};
use libp2p::PeerId;

impl Sim {
    /// Ticks since the beginning.
    pub fn now(&self) -> u64 {
        self.ms / TICK
    }

    /// Most entries that any message had so far.
    pub fn longest_append(&self) -> usize {
        self.longest_append
    }

    /// All peers there ever were.
    pub fn peers(&self) -> Vec<Peer> {
        self.nodes.keys().copied().collect()
    }

    /// The number of a peer.
    pub fn number(&self, id: &PeerId) -> Option<Peer> {
        self.nodes.keys().find(|peer| peer_id(**peer) == *id).copied()
    }

    /// The peer that has this Raft id now.
    pub fn who(&self, raft_id: RaftId) -> Option<Peer> {
        self.nodes.iter().find(|(_, n)| n.raft_id == raft_id).map(|(n, _)| *n)
    }

    /// The Raft id that a peer has now.
    pub(super) fn raft_id(&self, peer: Peer) -> Option<RaftId> {
        self.nodes.get(&peer).map(|node| node.raft_id)
    }

    /// Whether a peer runs.
    pub fn is_up(&self, peer: Peer) -> bool {
        self.nodes.get(&peer).is_some_and(|n| n.driver.is_some())
    }

    /// How often a peer was started or stopped: tells one life from the next.
    pub fn lives(&self, peer: Peer) -> u64 {
        self.nodes.get(&peer).map_or(0, |n| n.life)
    }

    /// How a peer is.
    pub fn life(&self, peer: Peer) -> Life {
        match self.nodes.get(&peer) {
            Some(Node { driver: Some(_), .. }) => Life::Up,
            Some(Node { failed: Some(why), .. }) => Life::Failed(why.clone()),
            _ => Life::Down,
        }
    }

    /// A peer's driver, while it runs.
    pub fn driver(&self, peer: Peer) -> Option<&Driver> {
        self.nodes.get(&peer)?.driver.as_ref()
    }

    /// A peer's status, while it runs.
    pub fn status(&self, peer: Peer) -> Option<Status> {
        self.driver(peer).map(Driver::status)
    }

    /// The leader of the highest term among the running peers.
    pub fn leader(&self) -> Option<Peer> {
        let leads = |(peer, node): (&Peer, &Node)| {
            let driver = node.driver.as_ref().filter(|d| d.leads())?;
            Some((driver.status().term, *peer))
        };
        self.nodes.iter().filter_map(leads).max().map(|(_, peer)| peer)
    }

    /// The member record that a peer would join with.
    pub fn member(&self, peer: Peer) -> Option<Member> {
        let node = self.nodes.get(&peer)?;
        Some(Member {
            raft_id: node.raft_id,
            peer_id: node.peer_id,
            name: format!("peer{peer}"),
            addresses: Vec::new(),
            role: Role::Learner,
            version: String::new(),
            witness: false,
        })
    }

    /// Names of the pins in a peer's state, sorted.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn pins(&self, peer: Peer) -> Result<Vec<String>> {
        let mut names: Vec<String> = self.pinned(peer)?.into_iter().map(|pin| pin.name).collect();
        names.sort();
        Ok(names)
    }

    /// The pins in a peer's state.
    pub(super) fn pinned(&self, peer: Peer) -> Result<Vec<Pin>> {
        let node =
            self.nodes.get(&peer).ok_or_else(|| Error::not_found(format!("there is no peer {peer}")))?;
        let rows = node.state.scan(Table::Pins, None, usize::MAX)?;
        rows.iter().map(|(_, record)| Pin::decode(record)).collect()
    }

    /// Whether every running member has applied the same, under one leader that all of them know.
    pub fn is_settled(&self) -> bool {
        let Some(leader) = self.leader().and_then(|l| self.driver(l)) else { return false };
        let status = leader.status();
        leader
            .members()
            .values()
            .filter_map(|m| self.number(&m.peer_id))
            .filter_map(|p| self.status(p))
            .all(|s| s.leader == status.leader && s.applied == status.committed && s.term == status.term)
    }

    /// One line for each peer: who it is, what it thinks, why it stopped.
    pub(super) fn describe(&self) -> String {
        let each = self.peers().into_iter().map(|p| match self.status(p) {
            Some(s) => format!(
                "{p}: id {} term {} leader {:?} committed {} applied {} log {:?}{}",
                s.raft_id,
                s.term,
                s.leader,
                s.committed,
                s.applied,
                self.driver(p).map(Driver::log_bounds).unwrap_or_default(),
                if s.removed { " removed" } else { "" }
            ),
            None => format!("{p}: {:?}", self.life(p)),
        });
        each.collect::<Vec<_>>().join("; ")
    }
}
