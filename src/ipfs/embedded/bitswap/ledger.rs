//! What one peer wants from us.
//!
//! A ledger is plain data: entries come in from the peer's messages, the peer's sender takes a batch out,
//! looks it up in the store, and settles it. An entry leaves when it is answered with the block (or, for a
//! want-have, with "have"), when it is cancelled, or when the peer goes. An entry that we cannot answer
//! stays, so that a block that arrives later can still be offered ([`Ledger::arrived`]). Blocks are read
//! only when the sender is ready to write them: that is the back-pressure, and why a slow peer costs
//! entries, never block data.

use super::wire::{Entry, WantKind};
use cid::Cid;
use std::collections::{HashMap, VecDeque};

/// Most wants that are remembered per peer. Beyond it a new want is answered "don't have" (if it asked for
/// that) and forgotten; the peer's next full want-list brings it again.
pub const MAX_WANTS: usize = 4_096;

/// One thing to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which block.
    pub cid: Cid,
    /// Block or presence.
    pub kind: WantKind,
    /// Say so when we do not have it.
    pub send_dont_have: bool,
}

#[derive(Debug)]
struct Wanted {
    kind: WantKind,
    send_dont_have: bool,
    /// It stands in the queue. Cleared when it is taken; set again by [`Ledger::arrived`], also while the
    /// lookup is under way, so that a block that arrives just then is not missed.
    queued: bool,
}

/// The wants of one peer.
#[derive(Debug, Default)]
pub struct Ledger {
    wants: HashMap<Cid, Wanted>,
    queue: VecDeque<Cid>,
    /// Turned away at the limit, to be told so.
    refused: VecDeque<Cid>,
}

impl Ledger {
    /// Takes the peer's changes in.
    pub fn receive(&mut self, entries: &[Entry], full: bool) {
        if full {
            self.wants.clear();
            self.queue.clear();
            self.refused.clear();
        }
        for entry in entries {
            if entry.cancel {
                self.wants.remove(&entry.cid);
                continue;
            }
            if let Some(wanted) = self.wants.get_mut(&entry.cid) {
                // Asked again: perhaps our answer got lost. A want-block is never weakened by a want-have.
                if entry.kind == WantKind::Block {
                    wanted.kind = WantKind::Block;
                }
                wanted.send_dont_have |= entry.send_dont_have;
                if !wanted.queued {
                    wanted.queued = true;
                    self.queue.push_back(entry.cid);
                }
            } else if self.wants.len() < MAX_WANTS {
                let wanted = Wanted { kind: entry.kind, send_dont_have: entry.send_dont_have, queued: true };
                self.wants.insert(entry.cid, wanted);
                self.queue.push_back(entry.cid);
            } else if entry.send_dont_have && self.refused.len() < MAX_WANTS {
                self.refused.push_back(entry.cid);
            }
        }
        // Cancelled entries leave stale names in the queue; do not let them pile up.
        if self.queue.len() > 2 * MAX_WANTS {
            let wants = &self.wants;
            let mut seen = std::collections::HashSet::new();
            self.queue.retain(|cid| wants.get(cid).is_some_and(|w| w.queued) && seen.insert(*cid));
        }
    }

    /// The next tasks in order of arrival, at most `max`.
    pub fn take(&mut self, max: usize) -> Vec<Task> {
        let mut tasks = Vec::new();
        while tasks.len() < max {
            let Some(cid) = self.queue.pop_front() else { break };
            if let Some(wanted) = self.wants.get_mut(&cid) {
                if std::mem::take(&mut wanted.queued) {
                    tasks.push(Task { cid, kind: wanted.kind, send_dont_have: wanted.send_dont_have });
                }
            }
        }
        tasks
    }

    /// CIDs that were turned away, at most `max`: answer "don't have".
    pub fn take_refused(&mut self, max: usize) -> Vec<Cid> {
        let n = self.refused.len().min(max);
        self.refused.drain(..n).collect()
    }

    /// Tasks that did not fit into a message go back to the front.
    pub fn put_back(&mut self, tasks: &[Task]) {
        for task in tasks.iter().rev() {
            if let Some(wanted) = self.wants.get_mut(&task.cid) {
                if !wanted.queued {
                    wanted.queued = true;
                    self.queue.push_front(task.cid);
                }
            }
        }
    }

    /// The task was answered with the block, or with "have".
    pub fn answered(&mut self, task: &Task) {
        // A want-have that became a want-block while we looked it up is not answered by "have".
        if self.wants.get(&task.cid).is_some_and(|w| w.kind == task.kind) {
            self.wants.remove(&task.cid);
        }
    }

    /// A block has arrived here: puts the want for it (if any) back in line. Says whether there was one.
    pub fn arrived(&mut self, cid: &Cid) -> bool {
        match self.wants.get_mut(cid) {
            Some(wanted) if !wanted.queued => {
                wanted.queued = true;
                self.queue.push_back(*cid);
                true
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Number of wants remembered.
    pub fn count_wants(&self) -> usize {
        self.wants.len()
    }

    /// Whether there is something to answer.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.refused.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipfs::embedded::bitswap::tests::raw_cid;

    fn want(n: u64, kind: WantKind) -> Entry {
        let cid = raw_cid(&n.to_le_bytes());
        Entry { cid, priority: 1, kind, cancel: false, send_dont_have: true }
    }

    #[test]
    fn a_want_stays_until_it_is_answered_or_cancelled() {
        let mut ledger = Ledger::default();
        let (a, b) = (want(1, WantKind::Block), want(2, WantKind::Have));
        ledger.receive(&[a, b], false);
        let tasks = ledger.take(10);
        assert_eq!(tasks.iter().map(|t| t.cid).collect::<Vec<_>>(), [a.cid, b.cid]);
        assert!(ledger.take(10).is_empty(), "taken is taken");
        ledger.answered(&tasks[0]);
        assert!(!ledger.arrived(&a.cid), "answered");
        assert!(ledger.arrived(&b.cid), "not answered yet");
        assert_eq!(ledger.take(10).len(), 1);
        ledger.receive(&[Entry { cancel: true, ..b }], false);
        assert!(!ledger.arrived(&b.cid), "cancelled");
        assert_eq!(ledger.count_wants(), 0);
    }

    #[test]
    fn a_block_that_arrives_during_the_lookup_is_not_missed() {
        let mut ledger = Ledger::default();
        let a = want(1, WantKind::Block);
        ledger.receive(&[a], false);
        assert_eq!(ledger.take(1).len(), 1);
        ledger.arrived(&a.cid);
        assert_eq!(ledger.take(1).len(), 1, "in line again");
    }

    #[test]
    fn have_does_not_answer_a_want_that_became_a_want_block() {
        let mut ledger = Ledger::default();
        ledger.receive(&[want(1, WantKind::Have)], false);
        let task = ledger.take(1)[0];
        ledger.receive(&[want(1, WantKind::Block)], false);
        ledger.answered(&task);
        assert_eq!(ledger.take(1)[0].kind, WantKind::Block);
    }

    #[test]
    fn the_limit_answers_dont_have_and_keeps_memory_flat() {
        let mut ledger = Ledger::default();
        let many: Vec<Entry> = (0..MAX_WANTS as u64 + 5).map(|n| want(n, WantKind::Block)).collect();
        ledger.receive(&many, false);
        assert_eq!(ledger.count_wants(), MAX_WANTS);
        assert_eq!(ledger.take_refused(100).len(), 5);
        for round in 0..10 {
            let cancels: Vec<Entry> = many.iter().map(|e| Entry { cancel: true, ..*e }).collect();
            ledger.receive(&cancels, false);
            ledger.receive(&many, false);
            assert!(ledger.queue.len() <= 3 * MAX_WANTS, "round {round}: {}", ledger.queue.len());
        }
        ledger.receive(&[], true);
        assert_eq!((ledger.count_wants(), ledger.has_work()), (0, false), "a full list replaces");
    }

    #[test]
    fn what_did_not_fit_goes_back_to_the_front() {
        let mut ledger = Ledger::default();
        let entries: Vec<Entry> = (0..4).map(|n| want(n, WantKind::Block)).collect();
        ledger.receive(&entries, false);
        let tasks = ledger.take(3);
        ledger.put_back(&tasks[1..]);
        let order: Vec<Cid> = ledger.take(10).iter().map(|t| t.cid).collect();
        assert_eq!(order, [entries[1].cid, entries[2].cid, entries[3].cid]);
    }
}
