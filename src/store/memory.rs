//! Stores in memory, with the manners of a disk: what was not made durable is lost on `crash`.
//!
//! For the simulator and for tests. Both stores are handles: clones share the same "disk", so that a test
//! can crash a peer, throw its driver away, and start a new one on what would have survived. The disk can
//! also be told to be full, or to fail.

use super::overlay::{check_row, slot, Overlay, Row};
use super::{Incarnation, LogBatch, LogStore, SnapshotSink, SnapshotSource, StateStore, Table, WriteBatch};
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::state::{Applied, RaftId};
use raft::eraftpb::{Entry, HardState};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an entry weighs besides data and context, as in the log on LMDB.
const ENTRY_OVERHEAD: u64 = 24;

type Tables = [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state in memory.
#[derive(Clone, Default)]
pub struct MemoryState {
    shared: Arc<Mutex<StateDisk>>,
}

#[derive(Default)]
struct StateDisk {
    durable: Tables,
    overlay: Overlay,
    /// The durable mark before the last flush, for [`Bug::MarkInOtherCommit`].
    mark_before: Applied,
    full: Option<String>,
    failing: bool,
}

fn counts(tables: &Tables) -> [u64; Table::ALL.len()] {
    let mut counts = [0; Table::ALL.len()];
    for (count, table) in counts.iter_mut().zip(tables) {
        *count = table.len() as u64;
    }
    counts
}

fn failed() -> Error {
    Error::io("the simulated disk fails")
}

impl StateDisk {
    fn flush(&mut self) -> Result<Applied> {
        if self.failing {
            return Err(failed());
        }
        let Some((layer, applied)) = self.overlay.start_flush() else { return Ok(self.overlay.durable()) };
        self.mark_before = self.overlay.durable();
        for table in Table::ALL {
            let rows = &mut self.durable[slot(table)];
            for (key, value) in layer.table(table) {
                match value {
                    Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                    None => rows.remove(key),
                };
            }
        }
        self.overlay.end_flush(applied);
        Ok(applied)
    }
}

impl MemoryState {
    /// An empty state.
    pub fn new() -> Self {
        MemoryState::default()
    }

    /// Pulls the plug: only what was flushed is left.
    pub fn crash(&self) {
        let mut disk = lock(&self.shared);
        let apart = planted::is(Bug::MarkInOtherCommit);
        let mark = if apart { disk.mark_before } else { disk.overlay.durable() };
        disk.overlay = Overlay::new(counts(&disk.durable), mark);
    }

    /// Lets [`StateStore::full`] say this from now on.
    pub fn set_full(&self, sentence: Option<String>) {
        lock(&self.shared).full = sentence;
    }

    /// Lets every write and flush fail from now on, or succeed again.
    pub fn set_failing(&self, failing: bool) {
        lock(&self.shared).failing = failing;
    }
}

impl StateStore for MemoryState {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let disk = lock(&self.shared);
        Ok(match disk.overlay.get(table, key) {
            Some(seen) => seen.map(<[u8]>::to_vec),
            None => disk.durable[slot(table)].get(key).cloned(),
        })
    }

    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>> {
        let disk = lock(&self.shared);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let base = disk.durable[slot(table)]
            .range::<[u8], _>((start, Bound::Unbounded))
            .map(|(key, value)| Ok::<_, Infallible>((key.as_slice(), value.as_slice())));
        match disk.overlay.scan(table, after, limit, base) {
            Ok(rows) => Ok(rows),
            Err(never) => match never {},
        }
    }

    fn count(&self, table: Table) -> u64 {
        lock(&self.shared).overlay.count(table)
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        let mut disk = lock(&self.shared);
        if disk.failing {
            return Err(failed());
        }
        let StateDisk { durable, overlay, .. } = &mut *disk;
        overlay.write(batch, |table, key| Ok(durable[slot(table)].contains_key(key)))
    }

    fn flush(&self) -> Result<Applied> {
        lock(&self.shared).flush()
    }

    fn applied(&self) -> Applied {
        lock(&self.shared).overlay.applied()
    }

    fn durable(&self) -> Applied {
        lock(&self.shared).overlay.durable()
    }

    fn full(&self) -> Option<String> {
        lock(&self.shared).full.clone()
    }

    fn snapshot(&self) -> Result<Box<dyn SnapshotSource>> {
        let mut disk = lock(&self.shared);
        let applied = disk.flush()?;
        let mut rows = VecDeque::new();
        for table in Table::REPLICATED {
            let durable = &disk.durable[slot(table)];
            rows.extend(durable.iter().map(|(key, value)| (table, key.clone(), value.clone())));
        }
        Ok(Box::new(Source { rows, applied }))
    }

    fn begin_install(&self) -> Result<Box<dyn SnapshotSink>> {
        Ok(Box::new(Sink::default()))
    }

    fn install(&self, sink: Box<dyn SnapshotSink>, applied: Applied) -> Result<()> {
        let sink = sink
            .into_any()
            .downcast::<Sink>()
            .map_err(|_| Error::internal("a snapshot was built for another store"))?;
        let mut disk = lock(&self.shared);
        // Local records survive, also those that were not durable yet.
        disk.flush()?;
        let mut tables = sink.tables;
        if planted::is(Bug::SnapshotOnTop) {
            for (key, old) in std::mem::take(&mut disk.durable[slot(Table::Pins)]) {
                tables[slot(Table::Pins)].entry(key).or_insert(old);
            }
        }
        tables[slot(Table::Local)] = std::mem::take(&mut disk.durable[slot(Table::Local)]);
        disk.overlay = Overlay::new(counts(&tables), applied);
        disk.mark_before = applied;
        disk.durable = tables;
        Ok(())
    }
}

struct Source {
    rows: VecDeque<(Table, Vec<u8>, Vec<u8>)>,
    applied: Applied,
}

impl SnapshotSource for Source {
    fn applied(&self) -> Applied {
        self.applied
    }

    fn next(&mut self, max_bytes: usize) -> Result<Vec<(Table, Vec<u8>, Vec<u8>)>> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        while let Some((_, key, value)) = self.rows.front() {
            bytes += key.len() + value.len();
            if bytes > max_bytes && !rows.is_empty() {
                break;
            }
            rows.extend(self.rows.pop_front());
        }
        Ok(rows)
    }
}

#[derive(Default)]
struct Sink {
    tables: Tables,
}

impl SnapshotSink for Sink {
    fn put(&mut self, rows: Vec<(Table, Vec<u8>, Vec<u8>)>) -> Result<()> {
        for (table, key, value) in rows {
            if !Table::REPLICATED.contains(&table) {
                return Err(Error::invalid(format!("a snapshot brings rows of the table {table:?}")));
            }
            check_row(table, &key, Some(&value))
                .map_err(|e| Error::invalid(format!("a snapshot brings {e}")))?;
            self.tables[slot(table)].insert(key, value);
        }
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}

/// The log in memory.
#[derive(Clone)]
pub struct MemoryLog {
    shared: Arc<Mutex<LogDisk>>,
}

struct LogDisk {
    incarnation: Incarnation,
    hard_state: HardState,
    /// All entries on disk, those before the mark included until an append drops them.
    entries: VecDeque<Entry>,
    mark: Applied,
    durable_mark: Applied,
    failing: bool,
}

impl LogDisk {
    fn last(&self) -> u64 {
        self.entries.back().map_or(0, |entry| entry.index).max(self.mark.index)
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.entries.front()?.index;
        self.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}

impl MemoryLog {
    /// An empty log of a data directory with this Raft id.
    pub fn new(raft_id: RaftId) -> Self {
        let disk = LogDisk {
            incarnation: Incarnation { raft_id, cluster_id: 0 },
            hard_state: HardState::default(),
            entries: VecDeque::new(),
            mark: Applied::default(),
            durable_mark: Applied::default(),
            failing: false,
        };
        MemoryLog { shared: Arc::new(Mutex::new(disk)) }
    }

    /// Pulls the plug: a truncation that no append has carried to disk is undone.
    pub fn crash(&self) {
        let mut disk = lock(&self.shared);
        disk.mark = disk.durable_mark;
    }

    /// Lets every append fail from now on, or succeed again.
    pub fn set_failing(&self, failing: bool) {
        lock(&self.shared).failing = failing;
    }
}

impl LogStore for MemoryLog {
    fn incarnation(&self) -> Incarnation {
        lock(&self.shared).incarnation
    }

    fn set_cluster_id(&mut self, cluster_id: u64) -> Result<()> {
        lock(&self.shared).incarnation.cluster_id = cluster_id;
        Ok(())
    }

    fn hard_state(&self) -> Result<HardState> {
        Ok(lock(&self.shared).hard_state.clone())
    }

    fn first_index(&self) -> u64 {
        lock(&self.shared).mark.index + 1
    }

    fn last_index(&self) -> u64 {
        lock(&self.shared).last()
    }

    fn term(&self, index: u64) -> Result<Option<u64>> {
        let disk = lock(&self.shared);
        if index == disk.mark.index {
            return Ok(Some(disk.mark.term));
        }
        Ok(disk.get(index).filter(|_| index > disk.mark.index).map(|entry| entry.term))
    }

    fn entries(&self, lo: u64, hi: u64, max_bytes: u64) -> Result<Vec<Entry>> {
        let disk = lock(&self.shared);
        if lo <= disk.mark.index || hi > disk.last() + 1 || lo >= hi {
            return Err(Error::internal(format!(
                "log entries {lo}..{hi} were asked for; there are {}..{}",
                disk.mark.index + 1,
                disk.last() + 1
            )));
        }
        let mut found = Vec::new();
        let mut bytes = 0;
        for entry in (lo..hi).filter_map(|index| disk.get(index)) {
            bytes += (entry.data.len() + entry.context.len()) as u64 + ENTRY_OVERHEAD;
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn append(&mut self, batch: LogBatch) -> Result<()> {
        let mut disk = lock(&self.shared);
        if batch.entries.is_empty() && batch.hard_state.is_none() && batch.reset_to.is_none() {
            return Ok(());
        }
        if disk.failing {
            return Err(failed());
        }
        let (mark, last) = batch.reset_to.map_or((disk.mark, disk.last()), |mark| (mark, mark.index));
        if let Some(first) = batch.entries.first() {
            let in_order = batch.entries.windows(2).all(|pair| pair[1].index == pair[0].index + 1);
            if first.index <= mark.index || first.index > last + 1 || !in_order {
                return Err(Error::internal(format!(
                    "entries from {} cannot follow a log that is truncated up to {} and ends at {last}",
                    first.index, mark.index
                )));
            }
        }
        if batch.reset_to.is_some() && !planted::is(Bug::LogKeptBehindSnapshot) {
            disk.entries.clear();
        }
        disk.mark = mark;
        disk.durable_mark = mark;
        while disk.entries.front().is_some_and(|entry| entry.index <= mark.index) {
            disk.entries.pop_front();
        }
        let mut tail = VecDeque::new();
        if let Some((first, last)) = batch.entries.first().zip(batch.entries.last()) {
            while disk.entries.back().is_some_and(|entry| entry.index >= first.index) {
                let replaced = disk.entries.pop_back();
                let stays = |e: &Entry| planted::is(Bug::ConflictingTailStays) && e.index > last.index;
                replaced.filter(stays).into_iter().for_each(|entry| tail.push_front(entry));
            }
        }
        disk.entries.extend(batch.entries);
        disk.entries.extend(tail);
        if let Some(hard_state) = batch.hard_state {
            disk.hard_state = hard_state;
        }
        Ok(())
    }

    fn truncate(&mut self, index: u64) -> Result<()> {
        let mut disk = lock(&self.shared);
        if index <= disk.mark.index {
            return Ok(());
        }
        let Some(term) = disk.get(index).map(|entry| entry.term) else {
            return Err(Error::internal(format!(
                "the log ends at {} and cannot be truncated up to {index}",
                disk.last()
            )));
        };
        disk.mark = Applied { index, term };
        Ok(())
    }
}
