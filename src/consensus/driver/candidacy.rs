//! When the leader's connection breaks: an election that does not wait for the timeout.
//!
//! The election timeout has to be longer than a slow disk's pauses, so that most of what a dead leader costs is
//! waiting. But a process that is killed or crashes closes its connections at once, and each follower sees that. A
//! follower then *forgets its leader*: it grants pre-votes although the timeout has not passed. The voters that are
//! left stand as candidates in the order of their Raft ids, witnesses last, a heartbeat apart, so that they do not split
//! the votes; who comes later steps back when the term has moved on. They stand again while nobody leads: a peer that
//! came back a moment ago may be without a connection to the other one yet, and never hear of the first try.
//!
//! It is a hint and no more. A leader that still lives loses nothing by it: its other followers have not forgotten it
//! and refuse the pre-vote, and its next heartbeat is believed again. A leader whose machine lost its power or its
//! network closes nothing, and is noticed by the timeout as ever. Votes, terms and logs are judged by raft-rs
//! alone; nothing here may make it grant what it would refuse to a candidate whose timeout has passed.

use super::Driver;
use crate::consensus::LOG;
use crate::state::{RaftId, Role};
use libp2p::PeerId;
use raft::StateRole;

/// Ticks before the first candidate stands: the others need a moment to see that their connections are gone, too.
const FIRST: u64 = 2;
/// How often a peer stands; after that the election timeout decides.
const TRIES: u32 = 5;

/// That this peer is going to stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidacy {
    /// The term of the leader that was lost; in another one there has been an election already.
    term: u64,
    /// When.
    due: u64,
    /// Ticks until it stands again: each of the others has had its turn by then.
    round: u64,
    /// How often it still stands.
    left: u32,
}

impl Driver {
    /// The last connection to this peer is gone.
    pub(super) fn lost(&mut self, peer: &PeerId) {
        let (us, leader) = (self.settings.raft_id, self.node.raft.leader_id);
        let was_leader = self.members.get(&leader).is_some_and(|member| member.peer_id == *peer);
        if self.node.raft.state != StateRole::Follower || !was_leader || self.is_removed() {
            return;
        }
        let term = self.node.raft.term;
        log::info!(target: LOG, "the connection to the leader, peer {peer}, is gone: the voters that are left elect another one");
        self.node.raft.become_follower(term, raft::INVALID_ID);
        let voters = self.members.iter().filter(|(id, member)| **id != leader && member.role == Role::Voter);
        // Whoever holds content leads before a witness.
        let mut order: Vec<(bool, RaftId)> = voters.map(|(id, member)| (member.witness, *id)).collect();
        order.sort_unstable();
        let place = order.iter().position(|(_, id)| *id == us);
        let ticks = |places: usize| (places * self.settings.heartbeat_ticks) as u64;
        self.candidacy = place.map(|place| Candidacy {
            term,
            due: self.now + FIRST + ticks(place),
            round: ticks(order.len()),
            left: TRIES,
        });
    }

    /// Stands as a candidate when it is time to and there is no leader yet.
    pub(super) fn stand(&mut self) {
        let Some(candidacy) = self.candidacy else { return };
        let (raft, role) = (&self.node.raft, self.node.raft.state);
        let open = raft.leader_id == raft::INVALID_ID && raft.term == candidacy.term;
        if !open || !matches!(role, StateRole::Follower | StateRole::PreCandidate) {
            self.candidacy = None;
        } else if self.now >= candidacy.due {
            let (due, left) = (self.now + candidacy.round, candidacy.left - 1);
            self.candidacy = (left > 0).then_some(Candidacy { due, left, ..candidacy });
            // Refused only to who may not lead; then the timeout of those who may decides.
            if let Err(error) = self.node.campaign() {
                log::debug!(target: LOG, "this peer cannot stand as a candidate: {error}");
            }
        }
    }
}
