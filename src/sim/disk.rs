//! What a turn of the driver does, in the order in which it does it, and what of it the disk has finished.
//!
//! A turn is one call; on a real machine it is a while, because it waits for its disk in the middle. So the driver works
//! on stores ([`SlowLog`], [`SlowState`]) and an outlet ([`Recorder`]) that write down on one [`Tape`] what it asked
//! for: a frame, an append, more frames, the answer to a caller … The simulator then gives each append and install the
//! time that the disk takes, and lets what comes after it on the tape happen after it. A crash in between finds the
//! frames before the append sent, those after it never sent, and of the append itself either all or nothing.
//!
//! Answers to callers are found by looking: before each append and at the end of the turn. So an answer that left
//! before the append that it depends on is seen to do so.

use super::client::{Told, Waiting};
use super::model::Stamp;
use crate::consensus::driver::Outlet;
use crate::consensus::snapshot::SnapshotRequest;
use crate::error::Result;
use crate::state::{Applied, Event, Member, RaftId};
use crate::store::memory::{MemoryLog, MemoryState};
use crate::store::{
    Incarnation, LogBatch, LogStore, SnapshotSink, SnapshotSource, StateStore, Table, WriteBatch,
};
use libp2p::PeerId;
use parking_lot::{Mutex, MutexGuard};
use raft::eraftpb::{Entry, HardState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One thing that a turn did.
pub(super) enum Mark {
    /// A frame left.
    Send { to: PeerId, raft_id: RaftId, frame: Vec<u8> },
    /// A snapshot is wanted.
    Fetch { from: PeerId, request: SnapshotRequest },
    /// The state is to be flushed.
    Flush,
    /// An append: what follows waits for the disk.
    Append,
    /// A snapshot was installed: what follows waits for the disk.
    Install,
    /// Callers were answered.
    Told(Vec<Told>),
}

/// What a turn did so far, and who waits for answers of this peer.
#[derive(Default)]
pub(super) struct Tape {
    pub(super) marks: Vec<Mark>,
    /// Entries that went into the log, with the term of what is before the first.
    pub(super) stamps: Vec<Stamp>,
    pub(super) waiting: Vec<Waiting>,
}

/// The tape as its writers share it; they are all in one thread, the stores' traits do not know it.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Tape>>);

impl Shared {
    pub(super) fn tape(&self) -> MutexGuard<'_, Tape> {
        self.0.lock()
    }

    /// Notes the answers that are there by now.
    pub(super) fn listen(&self, state: &MemoryState) {
        let mut tape = self.tape();
        if tape.waiting.is_empty() {
            return;
        }
        let mut told = Vec::new();
        tape.waiting.retain(|waiting| match waiting.poll(state) {
            Some(answer) => {
                told.push(answer);
                false
            }
            None => true,
        });
        if !told.is_empty() {
            tape.marks.push(Mark::Told(told));
        }
    }
}

/// A peer's log as its driver has it.
pub(super) struct SlowLog {
    pub(super) log: MemoryLog,
    pub(super) state: MemoryState,
    pub(super) shared: Shared,
}

impl LogStore for SlowLog {
    fn incarnation(&self) -> Incarnation {
        self.log.incarnation()
    }

    fn set_cluster_id(&mut self, cluster_id: u64) -> Result<()> {
        self.log.set_cluster_id(cluster_id)
    }

    fn hard_state(&self) -> Result<HardState> {
        self.log.hard_state()
    }

    fn first_index(&self) -> u64 {
        self.log.first_index()
    }

    fn last_index(&self) -> u64 {
        self.log.last_index()
    }

    fn term(&self, index: u64) -> Result<Option<u64>> {
        self.log.term(index)
    }

    fn entries(&self, lo: u64, hi: u64, max_bytes: u64) -> Result<Vec<Entry>> {
        self.log.entries(lo, hi, max_bytes)
    }

    fn append(&mut self, batch: LogBatch) -> Result<()> {
        self.shared.listen(&self.state);
        let mut before = match (batch.entries.first(), batch.reset_to) {
            (Some(_), Some(mark)) => Some(mark.term),
            (Some(first), None) => self.log.term(first.index.saturating_sub(1))?,
            (None, _) => None,
        };
        {
            let mut tape = self.shared.tape();
            for entry in &batch.entries {
                tape.stamps.push(Stamp::of(entry, before));
                before = Some(entry.term);
            }
            tape.marks.push(Mark::Append);
        }
        self.log.append(batch)
    }

    fn truncate(&mut self, index: u64) -> Result<()> {
        self.log.truncate(index)
    }
}

/// A peer's state as its driver has it.
pub(super) struct SlowState {
    pub(super) state: MemoryState,
    pub(super) shared: Shared,
}

impl StateStore for SlowState {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.state.get(table, key)
    }

    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.state.scan(table, after, limit)
    }

    fn count(&self, table: Table) -> u64 {
        self.state.count(table)
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        self.state.write(batch)
    }

    fn flush(&self) -> Result<Applied> {
        self.state.flush()
    }

    fn applied(&self) -> Applied {
        self.state.applied()
    }

    fn durable(&self) -> Applied {
        self.state.durable()
    }

    fn full(&self) -> Option<String> {
        self.state.full()
    }

    fn snapshot(&self) -> Result<Box<dyn SnapshotSource>> {
        self.state.snapshot()
    }

    fn begin_install(&self) -> Result<Box<dyn SnapshotSink>> {
        self.state.begin_install()
    }

    fn install(&self, sink: Box<dyn SnapshotSink>, applied: Applied) -> Result<()> {
        self.shared.listen(&self.state);
        self.shared.tape().marks.push(Mark::Install);
        self.state.install(sink, applied)
    }
}

/// The driver's outlet: everything goes onto the tape.
pub(super) struct Recorder {
    pub(super) shared: Shared,
}

impl Outlet for Recorder {
    fn send(&mut self, to: &Member, raft_id: RaftId, frame: Vec<u8>) {
        self.shared.tape().marks.push(Mark::Send { to: to.peer_id, raft_id, frame });
    }

    fn fetch_snapshot(&mut self, from: Member, request: SnapshotRequest) {
        self.shared.tape().marks.push(Mark::Fetch { from: from.peer_id, request });
    }

    fn flush(&mut self) {
        self.shared.tape().marks.push(Mark::Flush);
    }

    // The simulator looks at the driver's own members, and nobody in it listens to events.
    fn show_members(&mut self, _: &BTreeMap<RaftId, Member>) {}

    fn emit(&mut self, _: Vec<Event>) {}
}
