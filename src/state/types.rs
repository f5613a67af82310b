//! Commands, their outcomes, and members: the vocabulary between cluster, consensus and state.

use super::moves::Move;
use super::pin::{Pin, PinMode};
use super::version;
use crate::clock::Timestamp;
use cid::Cid;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A Raft id: a random, non-zero u64 made once per data directory. A re-flashed card comes back
/// with a new one, because raft-rs aborts the process when an empty log returns under an old id.
pub type RaftId = u64;

/// What a member is to Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Votes and stores the log.
    Voter,
    /// Stores the log, does all the work of a peer, does not vote (yet).
    Learner,
}

/// A member of the cluster, as replicated. Its addresses travel here, so that any survivor can dial
/// any other, whoever died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id in the Raft log.
    pub raft_id: RaftId,
    /// Its libp2p identity.
    pub peer_id: PeerId,
    /// Its human name (`cluster.peername`).
    pub name: String,
    /// Where it listens for other peers, without the `/p2p/…` suffix; at most
    /// [`Member::MAX_ADDRESSES`].
    pub addresses: Vec<Multiaddr>,
    /// What it is to Raft.
    pub role: Role,
    /// The version of its pinfold, so that the others can tell it when it is dead; empty for one that joined, or
    /// last spoke, while the [cluster version](super::version) was 1.
    pub version: String,
    /// Whether it is a *witness*: it keeps the log and the replicated state and votes like any other, and holds no
    /// content. Nothing is allocated to it, and a pin that is everywhere is everywhere but there. From
    /// [`version::WITNESS`] on.
    pub witness: bool,
}

impl Member {
    /// Whether this member has to hold the content of a pin.
    #[must_use]
    pub fn is_to_hold(&self, pin: &Pin) -> bool {
        !self.witness && pin.is_allocated_to(&self.peer_id)
    }

    /// More addresses than this are not replicated.
    pub const MAX_ADDRESSES: usize = 16;
    /// Longest name that is replicated, in bytes.
    pub const MAX_NAME: usize = 255;
    /// Longest version that is replicated, in bytes.
    pub const MAX_VERSION: usize = 64;
}

/// A change of the replicated state. Membership *roles* change by Raft configuration entries whose
/// context carries the [`Member`]; everything else is one of these.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Put this pin (whole record, options already resolved and allocated).
    Pin(Box<Pin>),
    /// Remove this pin; `NotFound` ("pin is not part of the pinset") when absent.
    Unpin(Cid),
    /// Remove this pin only if it still has exactly this expiry (proposed by the leader).
    Expire(Cid, Timestamp),
    /// Change name, addresses, version and the trait of being a witness of a member (never its role).
    UpdateMember(Member),
    /// Put many pins in one entry (bulk import); at most [`Command::MAX_BATCH`].
    PinMany(Vec<Pin>),
    /// From here on the cluster speaks this version (see [`super::version`]); one that is not above the present one
    /// changes nothing. Proposed by the leader, when every member can.
    RaiseVersion(u16),
    /// Move pins to other holders, each only if its allocations are still what the move says; at most
    /// [`Command::MAX_BATCH`]. Proposed by the leader.
    Reallocate(Vec<Move>),
}

impl Member {
    /// The cluster version from which on the log may hold this record.
    #[must_use]
    pub fn needs(&self) -> u16 {
        match (self.witness, self.version.is_empty()) {
            (true, _) => version::WITNESS,
            (false, false) => version::MEMBER_VERSIONS,
            (false, true) => version::FIRST,
        }
    }
}

impl Command {
    /// Most pins in one [`Command::PinMany`], most moves in one [`Command::Reallocate`].
    pub const MAX_BATCH: usize = 1_000;
    /// Largest encoded command, bytes.
    pub const MAX_BYTES: usize = 1 << 20;

    /// Whether every state accepts it: its outcome is known without looking.
    #[must_use]
    pub fn is_never_refused(&self) -> bool {
        let recursive = |pin: &Pin| pin.mode == PinMode::Recursive;
        match self {
            Command::Pin(pin) => recursive(pin),
            Command::PinMany(pins) => pins.iter().all(recursive),
            Command::Expire(..) | Command::RaiseVersion(_) | Command::Reallocate(_) => true,
            Command::Unpin(_) | Command::UpdateMember(_) => false,
        }
    }

    /// The cluster version from which on this command may be proposed.
    #[must_use]
    pub fn needs(&self) -> u16 {
        match self {
            Command::UpdateMember(member) => member.needs(),
            Command::Reallocate(_) => version::REALLOCATE,
            // What 0.1.0 knew; and what makes the cluster leave its version, of which every member has said
            // that it can follow.
            Command::Pin(_)
            | Command::Unpin(_)
            | Command::Expire(..)
            | Command::PinMany(_)
            | Command::RaiseVersion(_) => version::FIRST,
        }
    }
}

/// What applying a command gave back.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done; nothing to tell.
    Done,
    /// The pin as it was removed or as it is now stored.
    Pin(Box<Pin>),
    /// So many pins were moved; the others had changed in the meantime.
    Moved(u32),
}

/// How far a peer has applied the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Applied {
    /// Index of the last applied entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// What applying changed, told to the local tracker and the cluster room, in log order. Pins are shared: thousands of
/// them may wait for a reader at one time.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A pin was put (new or changed).
    Pinned(Arc<Pin>),
    /// A pin got other holders, by nobody's wish but the cluster's: who holds it already has nothing to do.
    Moved(Arc<Pin>),
    /// A pin was removed.
    Unpinned(Arc<Pin>),
    /// The set of members, or a member's record, changed.
    MembersChanged,
    /// The whole state was replaced by a snapshot: compare everything again.
    Replaced,
}

impl Event {
    /// Whether it is about one pin, and not about the members or the whole state.
    #[must_use]
    pub fn is_of_a_pin(&self) -> bool {
        matches!(self, Event::Pinned(_) | Event::Moved(_) | Event::Unpinned(_))
    }
}
