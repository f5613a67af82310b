//! Membership and leadership, as the leader carries them out. The rules are in [`membership`].

use super::Driver;
use crate::consensus::membership::{self, Reach, Removal, Step};
use crate::consensus::proposals::Reply;
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::state::{Member, MemberChange, Role};
use crate::store::LogBatch;
use libp2p::PeerId;
use raft::eraftpb::{Entry, EntryType};
use raft::ProgressState;

/// A leader that is a witness tries to hand its office over once in so many election timeouts. A transfer that nobody
/// takes ends after one, and until then nothing new is proposed.
const YIELD_EVERY: u64 = 5;

impl Driver {
    pub(super) fn add_member(&mut self, member: Member, reply: Reply<u64>) {
        if !self.leads() {
            let _ = reply.try_send(Err(self.not_leader()));
            return;
        }
        let members: Vec<Member> = self.members.values().cloned().collect();
        let removed = self.machine.is_removed(member.raft_id);
        match membership::plan_add(&members, removed, self.settings.raft_id, member) {
            Ok(steps) if steps.is_empty() => {
                let _ = reply.try_send(Ok(self.settings.cluster_id));
            }
            Ok(steps) => self.enqueue(steps, reply),
            Err(error) => {
                let _ = reply.try_send(Err(error));
            }
        }
    }

    pub(super) fn remove_member(&mut self, peer: &PeerId, reply: Reply<u64>) {
        let members: Vec<Member> = self.members.values().cloned().collect();
        if !self.leads() {
            let _ = reply.try_send(Err(self.not_leader()));
            return;
        }
        let answer = match membership::plan_remove(&members, self.settings.raft_id, peer) {
            Ok(Removal::Change(change)) => return self.enqueue(vec![change], reply),
            Ok(Removal::HandOverFirst) => {
                self.transfer();
                Error::not_leader("the leader hands its office over before it is removed")
            }
            Ok(Removal::PromoteFirst) => {
                self.leaving = true;
                Error::not_leader("the leader waits for another member to be promoted before it is removed")
            }
            Err(error) => error,
        };
        let _ = reply.try_send(Err(answer));
    }

    pub(super) fn enqueue(&mut self, steps: Vec<MemberChange>, reply: Reply<u64>) {
        if !self.queue.has_room() {
            let _ = reply.try_send(Err(Error::unavailable(format!(
                "{} membership changes are already waiting: try again later",
                membership::MAX_QUEUED
            ))));
            return;
        }
        let (deadline, last) = (self.now + self.settings.commit_ticks, steps.len() - 1);
        for (n, change) in steps.into_iter().enumerate() {
            let reply = (n == last).then(|| reply.clone());
            self.queue.push(Step { change, reply, deadline });
        }
    }

    pub(super) fn propose_membership(&mut self) {
        if !self.leads() || self.node.raft.has_pending_conf() || self.node.raft.lead_transferee.is_some() {
            return;
        }
        while let Some(step) = self.queue.pop() {
            // What was asked twice, or has come true by another way, is done.
            let done = match &step.change {
                MemberChange::Put(m) => self.members.contains_key(&m.raft_id),
                MemberChange::Remove(id) => !self.members.contains_key(id),
                MemberChange::SetRole(id, role) => self.members.get(id).is_none_or(|m| m.role == *role),
            };
            if done {
                if let Some(reply) = step.reply {
                    let _ = reply.try_send(Ok(self.settings.cluster_id));
                }
                continue;
            }
            let Some(step) = self.after_its_past(step) else { continue };
            self.own_ids = self.own_ids.wrapping_add(1);
            let context = membership::encode_change(self.own_ids, &step.change);
            match self.node.propose_conf_change(context, membership::conf_change(&step.change)) {
                Ok(()) => self.queue.started(self.own_ids, step),
                Err(error) => {
                    if let Some(reply) = step.reply {
                        let _ = reply.try_send(Err(Error::unavailable(format!(
                            "the membership change cannot be proposed now ({error}): try again later"
                        ))));
                    }
                }
            }
            return;
        }
    }

    /// The next step towards this one. The plan was made when it was asked for, and since then the same peer may have
    /// come under yet another Raft id: that goes first, or it would stay a member that never answers.
    fn after_its_past(&mut self, step: Step) -> Option<Step> {
        let MemberChange::Put(new) = &step.change else { return Some(step) };
        let Some(old) = self.members.values().find(|m| m.peer_id == new.peer_id) else { return Some(step) };
        if old.raft_id == self.settings.raft_id {
            if let Some(reply) = &step.reply {
                let _ = reply.try_send(Err(Error::conflict(format!(
                    "peer {} is the leader of this cluster and running: another peer uses a copy of its identity",
                    new.peer_id
                ))));
            }
            return None;
        }
        if planted::is(Bug::OldIdStays) {
            return Some(step);
        }
        let first = Step { change: MemberChange::Remove(old.raft_id), reply: None, deadline: step.deadline };
        self.queue.put_back(step);
        Some(first)
    }

    /// Makes it durable that a change of members is committed, before anybody is told. raft-rs goes by the members as
    /// applied, and a peer that hears of its removal may be gone for good: of two voters, the other would forget with
    /// a power cut that it needs that vote no longer, and wait for it for ever.
    pub(super) fn keep_changes(&mut self, committed: &[Entry]) -> Result<()> {
        let Some(last) = committed
            .last()
            .filter(|_| committed.iter().any(|entry| entry.get_entry_type() != EntryType::EntryNormal))
        else {
            return Ok(());
        };
        // Not what raft-rs takes for committed: the log on the disk may not have that yet.
        let mut hard_state = self.node.raft.hard_state();
        hard_state.commit = last.index;
        self.node.raft.mut_store().append(LogBatch { hard_state: Some(hard_state), ..LogBatch::default() })
    }

    pub(super) fn reach(&self) -> Vec<Reach> {
        let prs = self.node.raft.prs();
        let mut reach: Vec<Reach> = prs
            .iter()
            .map(|(id, p)| Reach {
                raft_id: *id,
                voter: self.members.get(id).is_some_and(|m| m.role == Role::Voter),
                witness: self.members.get(id).is_some_and(|m| m.witness),
                matched: p.matched,
                active: p.recent_active || *id == self.settings.raft_id,
                streaming: p.state != ProgressState::Snapshot,
            })
            .collect();
        reach.sort_by_key(|r| r.raft_id);
        reach
    }

    pub(super) fn promote(&mut self) {
        if self.queue.is_busy() || self.node.raft.has_pending_conf() {
            return;
        }
        let limit = self.settings.max_voters.max(if self.leaving { 2 } else { 1 });
        let last = self.node.raft.raft_log.last_index();
        if let Some(id) = membership::next_promotion(&self.reach(), last, limit) {
            let deadline = self.now + self.settings.commit_ticks;
            self.queue.push(Step { change: MemberChange::SetRole(id, Role::Voter), reply: None, deadline });
        }
    }

    pub(super) fn hand_over(&mut self) {
        if !self.handing_over.is_empty() {
            self.transfer();
        }
    }

    /// A witness that leads gives its office to a voter that holds content, as soon as one has caught up. Asked
    /// rarely, so that one that cannot take it (its messages are lost, it is stopped) does not keep writes waiting.
    pub(super) fn yield_office(&mut self) {
        let us = self.settings.raft_id;
        let often = YIELD_EVERY * self.settings.election_ticks as u64;
        if !self.members.get(&us).is_some_and(|m| m.witness) || !self.now.is_multiple_of(often) {
            return;
        }
        let last = self.node.raft.raft_log.last_index();
        if let Some(next) = membership::instead_of_witness(&self.reach(), us, last) {
            if self.node.raft.lead_transferee.is_none() && !self.node.raft.has_pending_conf() {
                log::info!(target: crate::consensus::LOG, "this peer is a witness: it hands the leadership to a peer that holds content");
                self.node.transfer_leader(next);
            }
        }
    }

    pub(super) fn transfer(&mut self) {
        if self.node.raft.lead_transferee.is_none() {
            if let Some(next) = membership::best_successor(&self.reach(), self.settings.raft_id) {
                self.node.transfer_leader(next);
            }
        }
    }

    /// raft-rs leaves a leader in office that applied its own removal, and panics when it then counts votes.
    pub(super) fn step_down_if_removed(&mut self) {
        let id = self.settings.raft_id;
        if self.leads() && self.node.raft.prs().get(id).is_none() {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
    }
}
