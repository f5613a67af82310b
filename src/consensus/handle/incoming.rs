//! What other peers bring and ask: frames, proposals, changes of members, snapshots.
//!
//! What is sent names its sender's cluster, and that of another one is refused before anything else is looked at; only
//! members of a cluster that ours was recovered from are told so by the driver.

use super::{Consensus, Inner};
use crate::consensus::driver::Input;
use crate::consensus::message;
use crate::consensus::snapshot::{self, Chunk, Giver, SnapshotRequest};
use crate::consensus::thread::{self, Mail};
use crate::consensus::wire::{MemberRequest, MemberRequestKind, ProposeAnswer, ProposeRequest};
use crate::error::{Error, Kind, Result};
use crate::runtime;
use crate::state::{recoveries, Command, Member, RaftId};
use libp2p::PeerId;
use std::sync::atomic::Ordering;
use std::sync::{mpsc, Arc};

impl Consensus {
    /// Takes a Raft frame from a peer whose identity is proven. Dropped when the inbox is full.
    ///
    /// # Errors
    /// When it is malformed, of another cluster, or consensus has ended.
    pub fn handle_frame(&self, from: PeerId, frame: &[u8]) -> Result<()> {
        let frame = message::decode(frame)?;
        if let Err(error) = self.same_cluster(frame.cluster_id, &from) {
            // A member of the cluster that ours was recovered from is told so, by the driver.
            if !recoveries(&*self.inner.state)?.iter().any(|r| r.from == frame.cluster_id) {
                return Err(error);
            }
        }
        match self.inner.inbox.try_send(Mail::Input(Input::Frame(from, frame))) {
            Err(mpsc::TrySendError::Disconnected(_)) => Err(self.ended()),
            // Full: the network loses messages, Raft repeats them.
            _ => Ok(()),
        }
    }

    /// A frame to this Raft id could not be delivered.
    pub fn handle_unreachable(&self, raft_id: RaftId) {
        let _ = self.inner.inbox.try_send(Mail::Input(Input::Unreachable(raft_id)));
    }

    /// The last connection to this peer is gone.
    pub fn handle_lost(&self, peer: PeerId) {
        let _ = self.inner.inbox.try_send(Mail::Input(Input::Lost(peer)));
    }

    /// Commits a command for another member, if we lead. `since`: the index at or below which it is in no log,
    /// if the member says.
    ///
    /// # Errors
    /// [`Kind::NotLeader`]: ask the leader; [`Kind::Conflict`] when it may have been committed before, beyond what
    /// this peer remembers; otherwise as [`Consensus::propose`].
    pub async fn handle_propose(
        &self,
        from: PeerId,
        since: Option<u64>,
        request: ProposeRequest,
    ) -> Result<ProposeAnswer> {
        self.same_cluster(request.cluster_id, &from)?;
        let command = Command::decode(&request.command).map_err(|e| {
            Error::new(if e.kind() == Kind::Version { Kind::Version } else { Kind::Invalid }, e.message())
        })?;
        command.check()?;
        self.check_spoken(&command)?;
        if let (Command::Pin(_) | Command::PinMany(_), Some(why)) = (&command, self.inner.state.full()) {
            return Err(Error::full(why).context("the leader"));
        }
        drop(command);
        let limit = self.inner.config.network_timeout;
        self.propose_here(request.id, since, request.command, limit).await.map(|c| ProposeAnswer::new(&c))
    }

    /// Changes the membership for another member, if we lead.
    ///
    /// # Errors
    /// [`Kind::NotLeader`]: ask the leader; otherwise as [`Consensus::add_member`] and [`Consensus::remove_member`].
    pub async fn handle_members(&self, from: PeerId, request: MemberRequest) -> Result<u64> {
        self.same_cluster(request.cluster_id, &from)?;
        let limit = self.inner.config.network_timeout;
        match request.change {
            MemberRequestKind::Add(record) => {
                let member = Member::decode(&record)
                    .map_err(|e| Error::invalid(format!("the member record from peer {from}: {e}")))?;
                self.ask(limit, "adding the member", |r| Input::AddMember(Box::new(member), r)).await
            }
            MemberRequestKind::Remove(peer) => {
                let peer = PeerId::from_bytes(&peer).map_err(|e| {
                    Error::invalid(format!("peer {from} asks to remove a malformed peer id: {e}"))
                })?;
                self.ask(limit, "removing the member", |r| Input::RemoveMember(peer, r)).await
            }
        }
    }

    /// Gives a snapshot of the state to a member.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when enough others are being served; otherwise as the disk says.
    pub async fn handle_snapshot(&self, from: PeerId, request: SnapshotRequest) -> Result<Giving> {
        self.same_cluster(request.cluster_id, &from)?;
        let known =
            self.inner.shared.members().iter().any(|m| m.raft_id == request.raft_id && m.peer_id == from);
        if !known {
            return Err(Error::forbidden(format!("peer {from} asks for a snapshot but is not a member")));
        }
        let slot = Slot::take(&self.inner)?;
        self.post(Input::SnapshotStarted(request.raft_id));
        let mut giving =
            Giving { giver: None, to: request.raft_id, good: false, handle: self.clone(), _slot: slot };
        let (state, history) = (self.inner.state.clone(), self.inner.shared.history.clone());
        let giver = runtime::unblock(move || {
            let source = state.snapshot()?;
            let at = source.applied();
            let conf = history.lock().at(at.index).ok_or_else(|| {
                Error::internal(format!("the configuration at entry {} is not known any more", at.index))
            })?;
            Ok::<_, Error>(Giver::new(source, conf))
        });
        giving.giver = Some(giver.await?);
        Ok(giving)
    }

    fn same_cluster(&self, cluster_id: u64, peer: &PeerId) -> Result<()> {
        if cluster_id == self.inner.cluster_id {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "peer {peer} belongs to the cluster {cluster_id:016x} and this peer to {:016x}: they share a secret but were founded apart",
            self.inner.cluster_id
        )))
    }
}

/// One of the few streams that are given at one time.
struct Slot {
    inner: Arc<Inner>,
}

impl Slot {
    fn take(inner: &Arc<Inner>) -> Result<Slot> {
        if inner.streams.fetch_add(1, Ordering::SeqCst) >= snapshot::MAX_STREAMS {
            inner.streams.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::unavailable(format!(
                "{} peers are already being sent the whole state: try again later",
                snapshot::MAX_STREAMS
            )));
        }
        Ok(Slot { inner: inner.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.inner.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A snapshot on its way to a member. Dropping it early tells Raft that the transfer failed.
pub struct Giving {
    giver: Option<Giver>,
    to: RaftId,
    good: bool,
    handle: Consensus,
    _slot: Slot,
}

impl Giving {
    /// The next chunk; `None` after the end.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn next(&mut self) -> Result<Option<Chunk>> {
        let Some(mut giver) = self.giver.take() else { return Ok(None) };
        let (giver, chunk) = runtime::unblock(move || {
            let chunk = giver.next_chunk();
            (giver, chunk)
        })
        .await;
        self.giver = Some(giver);
        let chunk = chunk?;
        self.good = chunk.is_none();
        Ok(chunk)
    }
}

impl Drop for Giving {
    fn drop(&mut self) {
        // It must arrive: until then Raft feeds that peer nothing.
        let (inner, input) = (Arc::downgrade(&self.handle.inner), Input::SnapshotEnded(self.to, self.good));
        runtime::spawn(async move { thread::deliver(&inner, input).await }).detach();
    }
}
