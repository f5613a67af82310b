//! Who belongs to the cluster: one change at a time, planned here, carried by Raft configuration entries.
//!
//! Rules:
//! - A new member enters as a learner. The leader promotes it when it has caught up and there are fewer voters
//!   than the limit. Nobody is demoted: a voter too many costs nothing, a voter too few costs the
//!   majority's margin, so a lowered limit only stops further promotions.
//! - A witness is promoted before others, whatever it lacks compared with them: to vote is all that it is there for,
//!   and a place among the voters that it does not get is a tie that nobody breaks. It leads only while nobody who
//!   holds content can: it is the smallest board, or the one at the end of the longest line.
//! - An even number of voters is not avoided. It survives no more deaths than one voter fewer, and no fewer either,
//!   but every entry is on one disk more, and going from three to five voters leads over four anyway. Only the
//!   limit should be odd.
//! - A peer whose data directory was lost comes back under a new Raft id; its old id is removed first (it
//!   will never answer again and must not count for the majority), then the new one added.
//! - A leader does not remove itself: it hands its office over and the next one removes it. Where it is the only
//!   voter, the best learner is promoted for it first, whatever the limit.
//! - Only single steps are used, never joint configurations: raft-rs 0.7 may never leave a joint one when the
//!   leader changes in between, and no operation here needs two steps to be one.
//!
//! The entry's context carries a proposal id and the [`MemberChange`]; raft-rs's own protobuf in the entry's data
//! is written for its sake and never read by us: every peer derives the configuration change from the
//! context.

use super::message::{put_bytes, put_u64, Reader, MAX_CONTEXT_BYTES};
use super::proposals::{ProposalId, Reply};
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::state::{Member, MemberChange, RaftId, Role};
use libp2p::PeerId;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};
use std::collections::VecDeque;

/// Membership changes that may wait for their turn.
pub const MAX_QUEUED: usize = 64;
/// A learner has caught up when it lacks at most this many entries.
pub const CAUGHT_UP_WITHIN: u64 = 256;

/// Writes the context of a configuration entry.
pub fn encode_change(id: ProposalId, change: &MemberChange) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    match change {
        MemberChange::Put(member) => {
            out.push(0);
            put_bytes(&mut out, &member.encode());
        }
        MemberChange::SetRole(raft_id, role) => {
            out.push(match role {
                Role::Voter => 1,
                Role::Learner => 2,
            });
            put_u64(&mut out, *raft_id);
        }
        MemberChange::Remove(raft_id) => {
            out.push(3);
            put_u64(&mut out, *raft_id);
        }
    }
    out
}

/// Reads the context of a configuration entry.
///
/// # Errors
/// [`crate::Kind::Corrupt`] when it is malformed or of a kind this version does not know: the peer cannot go on.
pub fn decode_change(context: &[u8]) -> Result<(ProposalId, MemberChange)> {
    let mut r = Reader { rest: context };
    let id = r.fixed_u64()?;
    let change = match r.u8()? {
        0 => MemberChange::Put(Member::decode(&r.bytes(MAX_CONTEXT_BYTES, "member record")?)?),
        1 => MemberChange::SetRole(r.u64()?, Role::Voter),
        2 => MemberChange::SetRole(r.u64()?, Role::Learner),
        3 => MemberChange::Remove(r.u64()?),
        n => {
            return Err(Error::version(format!(
                "the log holds a membership change of unknown kind {n}: it was written by a newer pinfold, update this one"
            )))
        }
    };
    r.end()?;
    Ok((id, change))
}

/// What raft-rs must do for a change.
pub fn conf_change(change: &MemberChange) -> ConfChangeV2 {
    let (kind, node_id) = match change {
        MemberChange::Put(m) if m.role == Role::Voter || planted::is(Bug::LearnerCounts) => {
            (ConfChangeType::AddNode, m.raft_id)
        }
        MemberChange::Put(m) => (ConfChangeType::AddLearnerNode, m.raft_id),
        MemberChange::SetRole(id, Role::Voter) => (ConfChangeType::AddNode, *id),
        MemberChange::SetRole(id, Role::Learner) => (ConfChangeType::AddLearnerNode, *id),
        MemberChange::Remove(id) => (ConfChangeType::RemoveNode, *id),
    };
    let mut single = ConfChangeSingle { node_id, ..Default::default() };
    single.set_change_type(kind);
    let mut change = ConfChangeV2::default();
    change.set_changes(vec![single].into());
    change
}

/// The steps that make `new` a member.
///
/// # Errors
/// [`crate::Kind::Invalid`] for an impossible record, [`crate::Kind::Conflict`] when the Raft id is somebody else's
/// or was removed.
pub fn plan_add(members: &[Member], removed: bool, leader: RaftId, new: Member) -> Result<Vec<MemberChange>> {
    if new.raft_id == 0 {
        return Err(Error::invalid(format!("peer {} announces a Raft id of zero", new.peer_id)));
    }
    if removed {
        return Err(Error::conflict(format!(
            "the data directory of peer {} was removed from this cluster: run `pinfold state cleanup` there and join again",
            new.peer_id
        )));
    }
    if let Some(known) = members.iter().find(|m| m.raft_id == new.raft_id) {
        if known.peer_id != new.peer_id {
            return Err(Error::conflict(format!(
                "peer {} has the Raft id of peer {}: its data directory was copied, run `pinfold state cleanup` there and join again",
                new.peer_id, known.peer_id
            )));
        }
        return Ok(Vec::new());
    }
    let mut steps = Vec::new();
    for old in members.iter().filter(|m| m.peer_id == new.peer_id) {
        if old.raft_id == leader {
            return Err(Error::conflict(format!(
                "peer {} is the leader of this cluster and running: another peer uses a copy of its identity",
                new.peer_id
            )));
        }
        if !planted::is(Bug::OldIdStays) {
            steps.push(MemberChange::Remove(old.raft_id));
        }
    }
    steps.push(MemberChange::Put(Member { role: Role::Learner, ..new }));
    Ok(steps)
}

/// What a removal needs.
#[derive(Debug, PartialEq)]
pub enum Removal {
    /// This change.
    Change(MemberChange),
    /// The leader is to go: another voter must lead first.
    HandOverFirst,
    /// The leader is to go and nobody else votes: a learner must be promoted first.
    PromoteFirst,
}

/// How to remove `peer`.
///
/// # Errors
/// [`crate::Kind::NotFound`] when it is no member, [`crate::Kind::Conflict`] when it is the last one.
pub fn plan_remove(members: &[Member], leader: RaftId, peer: &PeerId) -> Result<Removal> {
    let member = members
        .iter()
        .find(|m| m.peer_id == *peer)
        .ok_or_else(|| Error::not_found(format!("peer {peer} is not a member of this cluster")))?;
    if members.len() == 1 {
        return Err(Error::conflict(format!(
            "peer {peer} is the last member of this cluster and cannot be removed"
        )));
    }
    if member.raft_id != leader {
        return Ok(Removal::Change(MemberChange::Remove(member.raft_id)));
    }
    if members.iter().any(|m| m.raft_id != leader && m.role == Role::Voter) {
        Ok(Removal::HandOverFirst)
    } else {
        Ok(Removal::PromoteFirst)
    }
}

/// How far a member is, as its leader sees it.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Who.
    pub raft_id: RaftId,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it is a witness.
    pub witness: bool,
    /// The last index it has for sure.
    pub matched: u64,
    /// Whether it was heard of lately.
    pub active: bool,
    /// Whether it is fed entry by entry, not by a snapshot.
    pub streaming: bool,
}

/// The learner to promote now, if any: caught up, heard of, witnesses before others, the furthest first.
pub fn next_promotion(reach: &[Reach], last_index: u64, max_voters: usize) -> Option<RaftId> {
    if reach.iter().filter(|r| r.voter).count() >= max_voters {
        return None;
    }
    reach
        .iter()
        .filter(|r| {
            !r.voter
                && r.active
                && r.streaming
                && has_answered(r)
                && r.matched + CAUGHT_UP_WITHIN >= last_index
        })
        .max_by_key(|r| (r.witness, r.matched, std::cmp::Reverse(r.raft_id)))
        .map(|r| r.raft_id)
}

/// Whether it ever acknowledged anything: raft-rs takes a new member for active before it was heard. In a young cluster
/// nothing is few entries less than all, and a joiner that died meanwhile would vote, that is, be waited for.
fn has_answered(reach: &Reach) -> bool {
    reach.matched > 0
}

/// The voter that should lead next, if any is within reach: one that is no witness before one that is.
pub fn best_successor(reach: &[Reach], leader: RaftId) -> Option<RaftId> {
    reach
        .iter()
        .filter(|r| r.voter && r.active && r.raft_id != leader)
        .max_by_key(|r| (!r.witness, r.matched, std::cmp::Reverse(r.raft_id)))
        .map(|r| r.raft_id)
}

/// To whom a leader that is a witness gives its office, if it should: a voter that holds content, is heard of and has
/// caught up, so that the cluster is without a leader for one message only.
pub fn instead_of_witness(reach: &[Reach], leader: RaftId, last_index: u64) -> Option<RaftId> {
    if !reach.iter().any(|r| r.raft_id == leader && r.witness) {
        return None;
    }
    reach
        .iter()
        .filter(|r| r.voter && r.active && r.streaming && !r.witness)
        .filter(|r| r.matched + CAUGHT_UP_WITHIN >= last_index)
        .max_by_key(|r| (r.matched, std::cmp::Reverse(r.raft_id)))
        .map(|r| r.raft_id)
}

/// One step that waits for its turn or for its commit.
pub struct Step {
    /// The step.
    pub change: MemberChange,
    /// Who wants to know.
    pub reply: Option<Reply<u64>>,
    /// When the answer must be given, in ticks.
    pub deadline: u64,
}

/// The leader's queue of steps.
#[derive(Default)]
pub struct Queue {
    waiting: VecDeque<Step>,
    under_way: Option<(ProposalId, Step)>,
}

impl Queue {
    /// Whether a step is waiting or under way.
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some() || !self.waiting.is_empty()
    }

    /// Whether there is room for a few more steps.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < MAX_QUEUED
    }

    /// Whether this very change already waits or is under way.
    pub fn contains(&self, change: &MemberChange) -> bool {
        self.waiting.iter().chain(self.under_way.as_ref().map(|(_, s)| s)).any(|s| s.change == *change)
    }

    /// Adds a step at the end.
    pub fn push(&mut self, step: Step) {
        self.waiting.push_back(step);
    }

    /// Puts a step back where it was: it is the next one.
    pub fn put_back(&mut self, step: Step) {
        self.waiting.push_front(step);
    }

    /// The next step, when none is under way.
    pub fn pop(&mut self) -> Option<Step> {
        if self.under_way.is_some() {
            return None;
        }
        self.waiting.pop_front()
    }

    /// A step was proposed.
    pub fn started(&mut self, id: ProposalId, step: Step) {
        self.under_way = Some((id, step));
    }

    /// A configuration entry was applied: the step it was, if it was ours.
    pub fn applied(&mut self, id: ProposalId) -> Option<Step> {
        if self.under_way.as_ref().is_some_and(|(ours, _)| *ours == id) {
            return self.under_way.take().map(|(_, step)| step);
        }
        None
    }

    /// Answers everyone whose time is over. A step under way stays until Raft decides.
    pub fn expire(&mut self, now: u64) {
        let late = || {
            Error::timeout(
                "the membership change was not committed in time: a majority of the present voters must be reachable, and it may still be committed later",
            )
        };
        self.waiting.retain(|step| {
            if step.deadline > now {
                return true;
            }
            if let Some(reply) = &step.reply {
                let _ = reply.try_send(Err(late()));
            }
            false
        });
        if let Some((_, step)) = &mut self.under_way {
            if step.deadline <= now {
                if let Some(reply) = step.reply.take() {
                    let _ = reply.try_send(Err(late()));
                }
            }
        }
    }

    /// Answers everyone with the error and forgets all steps.
    pub fn abandon(&mut self, error: &Error) {
        let under_way = self.under_way.take().map(|(_, step)| step);
        for step in self.waiting.drain(..).chain(under_way) {
            if let Some(reply) = step.reply {
                let _ = reply.try_send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn member(raft_id: RaftId, peer_id: PeerId, role: Role) -> Member {
        Member {
            raft_id,
            peer_id,
            name: format!("m{raft_id}"),
            addresses: Vec::new(),
            role,
            version: String::new(),
            witness: false,
        }
    }

    #[test]
    fn a_returning_peer_replaces_its_old_self() {
        let (a, b) = (PeerId::random(), PeerId::random());
        let members = [member(1, a, Role::Voter), member(2, b, Role::Voter)];
        let steps = plan_add(&members, false, 1, member(3, b, Role::Voter)).unwrap();
        assert_eq!(steps, [MemberChange::Remove(2), MemberChange::Put(member(3, b, Role::Learner))]);
        assert!(plan_add(&members, false, 1, member(2, b, Role::Learner)).unwrap().is_empty());
        let taken = plan_add(&members, false, 1, member(2, a, Role::Learner)).unwrap_err();
        assert_eq!(taken.kind(), Kind::Conflict);
        assert_eq!(
            plan_add(&members, false, 1, member(9, a, Role::Learner)).unwrap_err().kind(),
            Kind::Conflict
        );
        assert_eq!(
            plan_add(&members, true, 1, member(9, b, Role::Learner)).unwrap_err().kind(),
            Kind::Conflict
        );
    }

    #[test]
    fn a_leader_goes_last() {
        let (a, b, c) = (PeerId::random(), PeerId::random(), PeerId::random());
        let mut members = vec![member(1, a, Role::Voter)];
        assert_eq!(plan_remove(&members, 1, &a).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(plan_remove(&members, 1, &c).unwrap_err().kind(), Kind::NotFound);
        members.push(member(2, b, Role::Learner));
        assert_eq!(plan_remove(&members, 1, &a).unwrap(), Removal::PromoteFirst);
        members[1].role = Role::Voter;
        assert_eq!(plan_remove(&members, 1, &a).unwrap(), Removal::HandOverFirst);
        assert_eq!(plan_remove(&members, 1, &b).unwrap(), Removal::Change(MemberChange::Remove(2)));
    }

    #[test]
    fn only_a_learner_that_has_caught_up_is_promoted() {
        let reach = |raft_id, voter, matched, active| Reach {
            raft_id,
            voter,
            witness: false,
            matched,
            active,
            streaming: true,
        };
        let mut all = vec![reach(1, true, 1_000, true), reach(2, false, 1_000 - CAUGHT_UP_WITHIN, true)];
        assert_eq!(next_promotion(&all, 1_000, 7), Some(2));
        assert_eq!(next_promotion(&all, 1_001, 7), None);
        assert_eq!(next_promotion(&all, 1_000, 1), None);
        let silent = [reach(1, true, 5, true), reach(2, false, 0, true)];
        assert_eq!(next_promotion(&silent, 5, 7), None, "nothing was ever heard of it");
        all[1].active = false;
        assert_eq!(next_promotion(&all, 1_000, 7), None);
        assert_eq!(best_successor(&all, 1), None);
        all.push(reach(3, true, 900, true));
        assert_eq!(best_successor(&all, 1), Some(3));
    }

    #[test]
    fn a_witness_votes_first_and_leads_last() {
        let reach = |raft_id, voter, witness, matched| Reach {
            raft_id,
            voter,
            witness,
            matched,
            active: true,
            streaming: true,
        };
        let mut all =
            vec![reach(1, true, false, 900), reach(2, false, false, 900), reach(3, false, true, 800)];
        assert_eq!(next_promotion(&all, 900, 2), Some(3), "the witness, although it is behind");
        all[1].voter = true;
        all[2].voter = true;
        all[2].matched = 900;
        all[1].matched = 850;
        assert_eq!(best_successor(&all, 1), Some(2), "not the witness, although it is ahead");
        assert_eq!(instead_of_witness(&all, 1, 900), None, "the leader holds content");
        assert_eq!(instead_of_witness(&all, 3, 900), Some(1));
        all[0].active = false;
        assert_eq!(instead_of_witness(&all, 3, 850 + CAUGHT_UP_WITHIN + 1), None, "nobody has caught up");
        all[1].active = false;
        assert_eq!(best_successor(&all, 1), Some(3), "better than nobody");
    }

    #[test]
    fn changes_travel_in_the_context() {
        let m = member(5, PeerId::random(), Role::Learner);
        for change in [
            MemberChange::Put(m),
            MemberChange::SetRole(5, Role::Voter),
            MemberChange::SetRole(u64::MAX, Role::Learner),
            MemberChange::Remove(7),
        ] {
            let bytes = encode_change(42, &change);
            assert_eq!(decode_change(&bytes).unwrap(), (42, change));
            assert!(decode_change(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
