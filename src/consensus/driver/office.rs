//! What a leader owes the others beyond raft-rs: to go when it has lost them, and to tell again what was lost.
//!
//! raft-rs looks for a majority once per election timeout, so that a leader without one may stay for nearly two.
//! Here its last word from each voter is kept, and the office ends when the lease does (never before one election
//! timeout: a disk that stalls for less must not cost an election). raft-rs tells followers of a commit at once,
//! but if that message is lost they hear of it only with the next heartbeat; here they are told again after
//! `commit_timeout`, and only those that answer at all.

use super::Driver;
use crate::consensus::LOG;
use crate::state::{RaftId, Role};
use std::collections::BTreeMap;

/// Since when this peer leads, and whom it heard when.
#[derive(Debug, Default)]
pub(super) struct Office {
    since: u64,
    heard: BTreeMap<RaftId, u64>,
    /// Every follower that answers knows of the commits up to here.
    told: u64,
    /// A later commit index and when it was noted: who does not know of it in time is told again.
    noted: Option<(u64, u64)>,
}

impl Office {
    /// A new one; whoever was heard before does not count.
    pub(super) fn taken_at(now: u64) -> Self {
        Office { since: now, ..Office::default() }
    }

    /// A follower answered.
    pub(super) fn hears(&mut self, from: RaftId, now: u64) {
        self.heard.insert(from, now);
    }

    /// When this voter was last heard; at the beginning everybody was.
    fn last(&self, id: RaftId) -> u64 {
        self.heard.get(&id).copied().unwrap_or_default().max(self.since)
    }
}

impl Driver {
    /// Steps down when no majority was heard for the lease.
    pub(super) fn keep_office(&mut self) {
        let (us, now, lease) = (self.settings.raft_id, self.now, self.settings.lease_ticks);
        let voters = || self.members.iter().filter(|(_, member)| member.role == Role::Voter);
        let with_us = voters().filter(|(id, _)| **id == us || now - self.office.last(**id) < lease).count();
        if with_us > voters().count() / 2 || voters().next().is_none() {
            return;
        }
        log::info!(target: LOG, "this peer leads no longer: it heard from no majority of the voters for its lease");
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, raft::INVALID_ID);
    }

    /// Notes a commit of this turn, unless an earlier one is still being looked after.
    pub(super) fn note_commit(&mut self) {
        let committed = self.node.raft.raft_log.committed;
        if self.leads() && self.office.noted.is_none() && committed > self.office.told {
            self.office.noted = Some((committed, self.now));
        }
    }

    /// Tells followers that have an entry and do not know after `commit_timeout` that it is committed.
    pub(super) fn tell_commits(&mut self) {
        let Some((index, at)) = self.office.noted else { return };
        if self.now - at < self.settings.tell_ticks {
            return;
        }
        let us = self.settings.raft_id;
        let unaware = self.node.raft.prs().iter().any(|(id, progress)| {
            *id != us && progress.recent_active && progress.matched >= index && progress.committed_index < index
        });
        if unaware {
            self.node.raft.ping();
            self.office.noted = Some((index, self.now));
        } else {
            self.office.told = index;
            self.office.noted = None;
        }
    }
}
