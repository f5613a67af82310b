//! raft-rs's view of our disk: the log store, plus how far the state is and with which configuration.
//!
//! raft-rs panics when its storage fails. So the first error is kept in [`Disk::failed`], where the driver's
//! caller finds the sentence after the panic; nothing is tried again.
//!
//! Snapshots are never built here: raft-rs gets the mark at which one *can* be had, and the receiver then
//! streams whatever is newest from us (see `snapshot.rs`).

use crate::error::{Error, Result};
use crate::state::Applied;
use crate::store::{LogBatch, LogStore};
use parking_lot::Mutex;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::sync::Arc;

/// Most bytes of entries that one call reads from the log, whatever is asked for: keeps memory bounded when
/// raft-rs scans the unapplied part of a long log.
pub const MAX_READ_BYTES: u64 = 8 << 20;

/// Where the first storage error is kept, readable after the driver's thread has panicked.
pub type Failure = Arc<Mutex<Option<Error>>>;

/// The log store with what raft-rs wants to know beside it.
pub struct Disk {
    log: Box<dyn LogStore>,
    conf: ConfState,
    applied: Applied,
    failed: Failure,
}

impl Disk {
    /// A view of `log`, with the state at `applied` under the configuration `conf`.
    pub fn new(log: Box<dyn LogStore>, applied: Applied, conf: ConfState, failed: Failure) -> Self {
        Disk { log, conf, applied, failed }
    }

    /// The log below.
    pub fn log(&self) -> &dyn LogStore {
        &*self.log
    }

    /// One durable commit.
    pub fn append(&mut self, batch: LogBatch) -> Result<()> {
        self.log.append(batch).inspect_err(|e| self.note(e))
    }

    /// Forgets entries up to `index`.
    pub fn truncate(&mut self, index: u64) -> Result<()> {
        self.log.truncate(index).inspect_err(|e| self.note(e))
    }

    /// The state has reached `applied`; snapshots can be had from there on.
    pub fn set_applied(&mut self, applied: Applied) {
        self.applied = applied;
    }

    /// The configuration at the applied mark.
    pub fn set_conf(&mut self, conf: ConfState) {
        self.conf = conf;
    }

    fn note(&self, error: &Error) {
        let mut failed = self.failed.lock();
        failed.get_or_insert_with(|| error.clone());
    }

    fn fail(&self, error: Error) -> raft::Error {
        self.note(&error);
        raft::Error::Store(StorageError::Other(Box::new(error)))
    }
}

impl Storage for Disk {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard: HardState = self.log.hard_state().map_err(|e| self.fail(e))?;
        // The commit index is not written for its own sake (it would cost a flush per message); what the
        // state has applied was committed.
        hard.commit = hard.commit.max(self.applied.index);
        hard.term = hard.term.max(self.applied.term);
        Ok(RaftState { hard_state: hard, conf_state: self.conf.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.log.first_index() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.log.last_index() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let limit = max_size.into().unwrap_or(MAX_READ_BYTES).min(MAX_READ_BYTES);
        self.log.entries(low, high, limit).map_err(|e| self.fail(e))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.log.term(index).map_err(|e| self.fail(e))? {
            Some(term) => Ok(term),
            None if index < self.log.first_index() => Err(raft::Error::Store(StorageError::Compacted)),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last_index())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.applied.index == 0 || self.applied.index < request_index {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = self.applied.index;
        meta.term = self.applied.term;
        meta.set_conf_state(self.conf.clone());
        Ok(snapshot)
    }
}
