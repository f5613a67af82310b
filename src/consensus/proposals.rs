//! Commands on their way: from a proposer's hand to the answer.
//!
//! Every proposal carries an id that its proposer chose at random (eight bytes in the entry's context). The
//! leader may lose its office, or its answer may get lost on the way back, after the entry is already in
//! other logs; the proposer then asks the next leader again *with the same id*, and this table recognises
//! it: still in the log ([`Proposals::logged`]), or applied lately ([`MAX_RECENT`]). So a retry does not
//! become a second entry.
//!
//! The memory of ids is this process's own and bounded: it is refilled from the tail of the log at start, forgets
//! beyond [`MAX_RECENT`], and knows nothing of what came by snapshot. A retry that it does not recognise would be
//! committed a second time, and a pin that was removed in between would come back. So every proposal says *since*
//! when it may be in a log: the commit index that its proposer knew before it asked for the first time. A
//! leader that has forgotten ids from after that moment refuses ([`Proposals::admit`]); the proposer then says that
//! it cannot know. What must never be done is to skip an entry *when applying it* because of this table:
//! peers would differ.
//!
//! Deadlines are in ticks, so that the simulator's clock rules them too.

use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::state::Outcome;
use raft::eraftpb::Entry;
use std::collections::{HashMap, VecDeque};

/// Where an answer goes: a channel of one. A proposer that went away is no error.
pub type Reply<T> = async_channel::Sender<Result<T>>;

/// A proposal's id: random per process, then counted up.
pub type ProposalId = u64;

/// Proposals that may wait for their commit at one time on the leader; more are refused, not queued.
pub const MAX_WAITING: usize = 8_192;
/// Ids of applied entries that are remembered, to recognise a retry.
pub const MAX_RECENT: usize = 8_192;
/// Of those, how many also keep their outcome. An older retry is answered [`Outcome::Done`] if that is what it must have
/// been, and else with the truth: that nobody knows any more.
pub const MAX_OUTCOMES: usize = 512;

/// A command that is committed and applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// What applying it gave.
    pub outcome: Outcome,
    /// Where it is in the log: a peer that has applied this index has it.
    pub index: u64,
}

struct Waiting {
    replies: Vec<Reply<Committed>>,
    deadline: u64,
}

/// What became of the offer of a proposal.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// New: it must be proposed.
    New,
    /// Known: it is answered, or will be when its entry is applied.
    Known,
}

/// The table.
#[derive(Default)]
pub struct Proposals {
    waiting: HashMap<ProposalId, Waiting>,
    in_log: HashMap<ProposalId, u64>,
    log_order: VecDeque<(u64, ProposalId)>,
    recent: HashMap<ProposalId, (u64, Option<Result<Outcome>>)>,
    recent_order: VecDeque<ProposalId>,
    /// The ids of all entries from this index on are known.
    known_from: u64,
}

impl Proposals {
    /// Takes a waiter for the proposal; answers it at once when the id was applied lately, when there is no room, or
    /// when it may have been committed `since` (an index below which it is in no log; `None`: its proposer's
    /// version does not say) without this table knowing. `sure` tells whether it is a command that no state refuses, and
    /// is asked only when its outcome is forgotten.
    pub fn admit(
        &mut self,
        id: ProposalId,
        since: Option<u64>,
        reply: Reply<Committed>,
        deadline: u64,
        sure: impl FnOnce() -> bool,
    ) -> Admission {
        if let Some((index, outcome)) = self.recent.get(&id) {
            let outcome = match outcome {
                Some(outcome) => outcome.clone(),
                None if sure() => Ok(Outcome::Done),
                None => Err(forgotten(*index)),
            };
            let _ = reply.try_send(outcome.map(|outcome| Committed { outcome, index: *index }));
            return Admission::Known;
        }
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.replies.push(reply);
            waiting.deadline = deadline;
            return Admission::Known;
        }
        let in_log = self.in_log.contains_key(&id);
        if !in_log && since.is_some_and(|since| since.saturating_add(1) < self.known_from) {
            let _ = reply.try_send(Err(Error::conflict(
                "the leader cannot tell any more whether this change was committed already: look whether it was made, and repeat it if it was not",
            )));
            return Admission::Known;
        }
        if self.waiting.len() >= MAX_WAITING {
            let _ = reply.try_send(Err(Error::unavailable(format!(
                "{MAX_WAITING} changes are already waiting to be committed: try again later"
            ))));
            return Admission::Known;
        }
        self.waiting.insert(id, Waiting { replies: vec![reply], deadline });
        if in_log {
            Admission::Known
        } else {
            Admission::New
        }
    }

    /// Answers one proposal with an error and forgets it.
    pub fn refuse(&mut self, id: ProposalId, error: &Error) {
        if let Some(waiting) = self.waiting.remove(&id) {
            answer(waiting, &Err(error.clone()));
        }
    }

    /// Notes entries that are now in our log; they replace everything from the first one's index on.
    pub fn logged(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self.log_order.back().is_some_and(|(index, _)| *index >= first.index) {
            if let Some((_, id)) = self.log_order.pop_back() {
                self.in_log.remove(&id);
            }
        }
        for entry in entries {
            if let Some(id) = id_of(&entry.context) {
                if planted::is(Bug::AnsweredBeforeCommit) {
                    let early = Ok(Committed { outcome: Outcome::Done, index: entry.index });
                    self.waiting.remove(&id).into_iter().for_each(|waiting| answer(waiting, &early));
                }
                self.in_log.insert(id, entry.index);
                self.log_order.push_back((entry.index, id));
            }
        }
    }

    /// An entry was applied: answers whoever waits for it and remembers it.
    pub fn applied(&mut self, id: ProposalId, index: u64, outcome: Result<Outcome>) {
        while self.log_order.front().is_some_and(|(i, _)| *i <= index) {
            if let Some((_, id)) = self.log_order.pop_front() {
                self.in_log.remove(&id);
            }
        }
        match self.waiting.remove(&id) {
            Some(waiting) => {
                self.remember(id, index, Some(outcome.clone()));
                answer(waiting, &outcome.map(|outcome| Committed { outcome, index }));
            }
            None => self.remember(id, index, Some(outcome)),
        }
    }

    /// Remembers an id found in the applied part of the log at start, whose outcome nobody knows any more.
    pub fn remember_old(&mut self, id: ProposalId, index: u64) {
        self.remember(id, index, None);
    }

    fn remember(&mut self, id: ProposalId, index: u64, outcome: Option<Result<Outcome>>) {
        if self.recent.insert(id, (index, outcome)).is_none() {
            self.recent_order.push_back(id);
        }
        if self.recent_order.len() > MAX_RECENT {
            if let Some((index, _)) = self.recent_order.pop_front().and_then(|old| self.recent.remove(&old)) {
                self.known_from = self.known_from.max(index + 1);
            }
        }
        if let Some(older) = self.recent_order.len().checked_sub(MAX_OUTCOMES + 1) {
            if let Some((_, outcome)) = self.recent_order.get(older).and_then(|id| self.recent.get_mut(id)) {
                *outcome = None;
            }
        }
    }

    /// At start: the log is known from this index on.
    pub fn known_from(&mut self, index: u64) {
        self.known_from = index;
    }

    /// The log was replaced by a snapshot of the state up to `index`.
    pub fn reset_log(&mut self, index: u64) {
        self.in_log.clear();
        self.log_order.clear();
        self.known_from = index + 1;
    }

    /// Answers everyone whose time is over.
    pub fn expire(&mut self, now: u64) {
        self.waiting.retain(|_, waiting| {
            if waiting.deadline > now {
                return true;
            }
            let late = Error::timeout(
                "the change was not committed in time: no majority of the voters answered, and it may still be committed later",
            );
            for reply in &waiting.replies {
                let _ = reply.try_send(Err(late.clone()));
            }
            false
        });
    }

    /// Answers everyone with the error: the leader lost its office, or this peer stops.
    pub fn abandon(&mut self, error: &Error) {
        for (_, waiting) in self.waiting.drain() {
            answer(waiting, &Err(error.clone()));
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// What is said of a command that was applied, when a refusal would be forgotten by now. Never that it is done.
fn forgotten(index: u64) -> Error {
    Error::conflict(format!(
        "the change is in the log as entry {index}, but the leader was restarted since and cannot tell whether it was refused: look whether it was made"
    ))
}

fn answer(waiting: Waiting, result: &Result<Committed>) {
    for reply in waiting.replies {
        let _ = reply.try_send(result.clone());
    }
}

/// The id in an entry's context: its first eight bytes.
pub fn id_of(context: &[u8]) -> Option<ProposalId> {
    context.get(..8).map(|b| b.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, id: u64) -> Entry {
        let mut e = Entry { index, ..Default::default() };
        e.context = id.to_be_bytes().to_vec().into();
        e
    }

    #[test]
    fn a_retry_of_an_applied_command_is_answered_without_a_second_entry() {
        let mut table = Proposals::default();
        let (tx, rx) = async_channel::bounded(1);
        assert_eq!(table.admit(9, None, tx, 10, || true), Admission::New);
        table.logged(&[entry(4, 9)]);
        table.applied(9, 4, Ok(Outcome::Done));
        assert_eq!(rx.try_recv().unwrap().unwrap().index, 4);
        let (tx, rx) = async_channel::bounded(1);
        assert_eq!(table.admit(9, None, tx, 10, || true), Admission::Known);
        assert_eq!(rx.try_recv().unwrap().unwrap().index, 4);
    }

    #[test]
    fn a_retry_that_may_have_been_refused_is_not_called_done() {
        let mut table = Proposals::default();
        table.remember_old(9, 4);
        let mut ask = |sure| {
            let (tx, rx) = async_channel::bounded(1);
            assert_eq!(table.admit(9, None, tx, 10, || sure), Admission::Known);
            rx.try_recv().unwrap()
        };
        assert_eq!(ask(true).unwrap().outcome, Outcome::Done);
        assert!(ask(false).is_err());
    }

    #[test]
    fn a_retry_of_an_entry_in_the_log_waits_for_it() {
        let mut table = Proposals::default();
        table.logged(&[entry(4, 8), entry(5, 9)]);
        let (tx, rx) = async_channel::bounded(1);
        assert_eq!(table.admit(9, None, tx, 10, || true), Admission::Known);
        table.applied(8, 4, Ok(Outcome::Done));
        table.applied(9, 5, Err(Error::not_found("no")));
        assert_eq!(rx.try_recv().unwrap().unwrap_err().kind(), crate::Kind::NotFound);
    }

    #[test]
    fn an_overwritten_entry_is_forgotten() {
        let mut table = Proposals::default();
        table.logged(&[entry(4, 8), entry(5, 9)]);
        table.logged(&[entry(5, 7)]);
        let (tx, _rx) = async_channel::bounded(1);
        assert_eq!(table.admit(9, None, tx, 10, || true), Admission::New);
    }

    #[test]
    fn memory_is_bounded() {
        let mut table = Proposals::default();
        for n in 0..3 * MAX_RECENT as u64 {
            table.applied(n, n, Ok(Outcome::Done));
        }
        assert_eq!(table.recent.len(), MAX_RECENT);
        assert_eq!(table.recent.values().filter(|(_, o)| o.is_some()).count(), MAX_OUTCOMES);
    }

    #[test]
    fn what_may_have_been_committed_and_forgotten_is_refused() {
        let mut table = Proposals::default();
        let ask = |table: &mut Proposals, id, since| {
            let (tx, rx) = async_channel::bounded(1);
            (table.admit(id, Some(since), tx, 10, || true), rx.try_recv().ok().map(|r| r.unwrap_err().kind()))
        };
        let refused = (Admission::Known, Some(crate::Kind::Conflict));
        table.known_from(101);
        assert_eq!(ask(&mut table, 1, 99), refused, "entry 100 may have been it");
        assert_eq!(ask(&mut table, 2, 100), (Admission::New, None));
        // In the log: known, however old.
        table.logged(&[entry(101, 3)]);
        assert_eq!(ask(&mut table, 3, 0), (Admission::Known, None));
        table.reset_log(200);
        assert_eq!(ask(&mut table, 4, 199), refused, "it may be in the snapshot");
        assert_eq!(ask(&mut table, 5, 200), (Admission::New, None));
        // As long as all ids since are remembered, and no longer.
        let first = 1 << 32;
        for n in 0..MAX_RECENT as u64 {
            table.applied(first + n, 201 + n, Ok(Outcome::Done));
        }
        assert_eq!(ask(&mut table, 6, 200), (Admission::New, None));
        table.applied(first - 1, 201 + MAX_RECENT as u64, Ok(Outcome::Done));
        assert_eq!(ask(&mut table, 7, 200), refused);
        assert_eq!(ask(&mut table, 8, 201), (Admission::New, None));
        // Found by fuzzing: the word of another peer, which may be any number.
        assert_eq!(ask(&mut table, 9, u64::MAX), (Admission::New, None));
    }

    #[test]
    fn time_runs_out() {
        let mut table = Proposals::default();
        let (tx, rx) = async_channel::bounded(1);
        table.admit(1, None, tx, 5, || true);
        table.expire(4);
        assert!(rx.try_recv().is_err());
        table.expire(5);
        assert_eq!(rx.try_recv().unwrap().unwrap_err().kind(), crate::Kind::Timeout);
        assert_eq!(table.waiting(), 0);
    }
}
