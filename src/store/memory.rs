//! Stores in memory, with the manners of a disk: what was not made durable is lost on `crash`.
//!
//! For the simulator and for tests. Both stores are handles: clones share the same "disk", so that a test
//! can crash a peer, throw its driver away, and start a new one on what would have survived. The disk can
//! also be told to be full, or to fail ([`Trouble`]).
//!
//! A commit takes time on a real disk, and the power may go meanwhile. LMDB's commits are atomic: such a one is there
//! afterwards or it is not. So what the simulator calls *under way* can still be undone: a flush of the state is
//! begun and ended ([`MemoryState::begin_flush`]), an install and the appends to a watched log keep what they replaced
//! until they are settled, and the crash says which of them the disk had finished. The log remembers its
//! appends only when asked to ([`MemoryLog::watch`]): nobody else would ever settle them.

use super::overlay::{check_row, slot, Layer, Overlay, Row};
use super::{Incarnation, LogBatch, LogStore, SnapshotSink, SnapshotSource, StateStore, Table, WriteBatch};
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::state::{Applied, RaftId};
use parking_lot::Mutex;
use raft::eraftpb::{Entry, HardState};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

/// What an entry weighs besides data and context, as in the log on LMDB.
const ENTRY_OVERHEAD: u64 = 24;

type Tables = [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()];

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Writes and flushes fail, and leave nothing.
    Fails,
    /// Writes and flushes report an error, and what they wrote is there all the same: a flush whose answer was lost.
    FailsLate,
    /// There is no room left, not even for what is agreed on.
    Full,
}

impl Trouble {
    /// The error of a write, if it fails.
    fn error(self) -> Result<()> {
        match self {
            Trouble::None => Ok(()),
            Trouble::Fails | Trouble::FailsLate => Err(failed()),
            Trouble::Full => Err(Error::full("the simulated disk is full")),
        }
    }

    /// Whether a write leaves anything.
    fn writes(self) -> bool {
        matches!(self, Trouble::None | Trouble::FailsLate)
    }

    fn of(failing: bool) -> Self {
        if failing {
            Trouble::Fails
        } else {
            Trouble::None
        }
    }
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
    /// A flush under way.
    flushing: Option<(Arc<Layer>, Applied)>,
    /// What an install that is not settled replaced.
    before: Option<(Tables, Applied)>,
    /// The mark of the last install.
    installed: Applied,
    full: Option<String>,
    trouble: Trouble,
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
    fn begin_flush(&mut self) -> bool {
        if self.flushing.is_none() {
            self.flushing = self.overlay.start_flush();
        }
        self.flushing.is_some()
    }

    fn end_flush(&mut self) -> Result<Applied> {
        let Some((layer, applied)) = self.flushing.take() else { return Ok(self.overlay.durable()) };
        if self.trouble.writes() {
            self.carry(&layer);
            self.overlay.end_flush(applied);
        } else {
            self.overlay.abort_flush();
        }
        self.trouble.error().map(|()| applied)
    }

    fn carry(&mut self, layer: &Layer) {
        for table in Table::ALL {
            let rows = &mut self.durable[slot(table)];
            for (key, value) in layer.table(table) {
                match value {
                    Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                    None => rows.remove(key),
                };
            }
        }
    }

    /// One commit takes place at a time: what is under way ends first.
    fn flush(&mut self) -> Result<Applied> {
        self.end_flush()?;
        self.trouble.error()?;
        self.begin_flush();
        self.end_flush()
    }
}

impl MemoryState {
    /// An empty state.
    pub fn new() -> Self {
        MemoryState::default()
    }

    /// Pulls the plug: only what was flushed is left.
    pub fn crash(&self) {
        self.crash_with(false, true);
    }

    /// Pulls the plug, and says what the disk had finished of what was under way: the flush, the install.
    pub fn crash_with(&self, flushed: bool, installed: bool) {
        let mut disk = self.shared.lock();
        let mut mark = disk.overlay.durable();
        if let Some((layer, applied)) = disk.flushing.take().filter(|_| flushed) {
            disk.carry(&layer);
            mark = if planted::is(Bug::MarkInOtherCommit) { mark } else { applied };
        }
        if let Some((tables, applied)) = disk.before.take().filter(|_| !installed) {
            disk.durable = tables;
            mark = applied;
        }
        disk.overlay = Overlay::new(counts(&disk.durable), mark);
    }

    /// Begins a flush that takes a while; whether there is anything to flush.
    pub fn begin_flush(&self) -> bool {
        self.shared.lock().begin_flush()
    }

    /// Ends the flush that was begun.
    ///
    /// # Errors
    /// When the disk is in trouble.
    pub fn end_flush(&self) -> Result<Applied> {
        self.shared.lock().end_flush()
    }

    /// The last install is on the disk for good.
    pub fn settle(&self) {
        self.shared.lock().before = None;
    }

    /// The mark of the last snapshot that was installed.
    pub fn installed(&self) -> Applied {
        self.shared.lock().installed
    }

    /// Lets [`StateStore::full`] say this from now on.
    pub fn set_full(&self, sentence: Option<String>) {
        self.shared.lock().full = sentence;
    }

    /// Lets every write and flush fail from now on, or succeed again.
    pub fn set_failing(&self, failing: bool) {
        self.set_trouble(Trouble::of(failing));
    }

    /// Lets every write and flush meet this trouble from now on.
    pub fn set_trouble(&self, trouble: Trouble) {
        self.shared.lock().trouble = trouble;
    }
}

impl StateStore for MemoryState {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let disk = self.shared.lock();
        Ok(match disk.overlay.get(table, key) {
            Some(seen) => seen.map(<[u8]>::to_vec),
            None => disk.durable[slot(table)].get(key).cloned(),
        })
    }

    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>> {
        let disk = self.shared.lock();
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
        self.shared.lock().overlay.count(table)
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        let mut disk = self.shared.lock();
        // A write only goes to memory, where no late failure can meet it.
        disk.trouble.error()?;
        let StateDisk { durable, overlay, .. } = &mut *disk;
        overlay.write(batch, |table, key| Ok(durable[slot(table)].contains_key(key)))
    }

    fn flush(&self) -> Result<Applied> {
        self.shared.lock().flush()
    }

    fn applied(&self) -> Applied {
        self.shared.lock().overlay.applied()
    }

    fn durable(&self) -> Applied {
        self.shared.lock().overlay.durable()
    }

    fn full(&self) -> Option<String> {
        self.shared.lock().full.clone()
    }

    fn snapshot(&self) -> Result<Box<dyn SnapshotSource>> {
        let mut disk = self.shared.lock();
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
        let mut disk = self.shared.lock();
        disk.end_flush()?;
        disk.trouble.error()?;
        // Local records survive, also those that were not durable yet.
        let base = disk.durable[slot(Table::Local)].iter();
        let base = base.map(|(key, value)| Ok::<_, Infallible>((key.as_slice(), value.as_slice())));
        let local = match disk.overlay.scan(Table::Local, None, usize::MAX, base) {
            Ok(rows) => rows,
            Err(never) => match never {},
        };
        let mut tables = sink.tables;
        if planted::is(Bug::SnapshotOnTop) {
            for (key, old) in &disk.durable[slot(Table::Pins)] {
                tables[slot(Table::Pins)].entry(key.clone()).or_insert_with(|| old.clone());
            }
        }
        tables[slot(Table::Local)] = local.into_iter().collect();
        let mark = disk.overlay.durable();
        disk.overlay = Overlay::new(counts(&tables), applied);
        disk.before = Some((std::mem::replace(&mut disk.durable, tables), mark));
        disk.installed = applied;
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
    /// What the appends under way replaced, oldest first; `None` for a log that is not watched.
    under_way: Option<VecDeque<Undo>>,
    trouble: Trouble,
}

/// What one append replaced.
struct Undo {
    hard_state: HardState,
    durable_mark: Applied,
    /// Entries that went from the front and from the back.
    front: Vec<Entry>,
    back: Vec<Entry>,
    added: usize,
    /// Index of the first entry added; `u64::MAX` when there is none.
    added_from: u64,
}

impl LogDisk {
    fn last(&self) -> u64 {
        self.entries.back().map_or(0, |entry| entry.index).max(self.mark.index)
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.entries.front()?.index;
        self.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    fn undo(&mut self, undo: Undo) {
        self.entries.truncate(self.entries.len() - undo.added);
        self.entries.extend(undo.back);
        for entry in undo.front.into_iter().rev() {
            self.entries.push_front(entry);
        }
        (self.hard_state, self.durable_mark) = (undo.hard_state, undo.durable_mark);
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
            under_way: None,
            trouble: Trouble::None,
        };
        MemoryLog { shared: Arc::new(Mutex::new(disk)) }
    }

    /// Pulls the plug: a truncation that no append has carried to disk is undone.
    pub fn crash(&self) {
        self.crash_with(usize::MAX);
    }

    /// Pulls the plug when the disk had finished so many of the appends under way.
    pub fn crash_with(&self, finished: usize) {
        let mut disk = self.shared.lock();
        let mut appends = disk.under_way.take();
        while appends.as_ref().is_some_and(|a| a.len() > finished) {
            if let Some(undo) = appends.as_mut().and_then(VecDeque::pop_back) {
                disk.undo(undo);
            }
        }
        disk.under_way = appends.map(|_| VecDeque::new());
        disk.mark = disk.durable_mark;
    }

    /// From now on appends are under way until they are settled.
    pub fn watch(&self) {
        self.shared.lock().under_way.get_or_insert_default();
    }

    /// The oldest `appends` of those under way are on the disk for good.
    pub fn settle(&self, appends: usize) {
        if let Some(under_way) = &mut self.shared.lock().under_way {
            under_way.drain(..appends.min(under_way.len()));
        }
    }

    /// The hard state that would be there after a power cut now.
    pub fn durable_hard_state(&self) -> HardState {
        let disk = self.shared.lock();
        let first = disk.under_way.as_ref().and_then(VecDeque::front);
        first.map_or(&disk.hard_state, |undo| &undo.hard_state).clone()
    }

    /// Up to where the log is truncated on the disk.
    pub fn durable_mark(&self) -> Applied {
        let disk = self.shared.lock();
        let first = disk.under_way.as_ref().and_then(VecDeque::front);
        first.map_or(disk.durable_mark, |undo| undo.durable_mark)
    }

    /// Whether this entry is on the disk for good: it would be there after a power cut now, whatever becomes of the
    /// appends under way. What was truncated counts: the state has it.
    pub fn has_durably(&self, index: u64, term: u64) -> bool {
        let disk = self.shared.lock();
        let is_it = |entry: &Entry| entry.index == index && entry.term == term;
        let Some(oldest) = disk.under_way.as_ref().and_then(VecDeque::front) else {
            return index <= disk.mark.index || disk.get(index).is_some_and(is_it);
        };
        // An entry that an append under way has added is not, and one that it has removed still is.
        let mut added = u64::MAX;
        for undo in disk.under_way.iter().flatten() {
            if index < added && undo.front.iter().chain(&undo.back).any(is_it) {
                return true;
            }
            added = added.min(undo.added_from);
        }
        index <= oldest.durable_mark.index || index < added && disk.get(index).is_some_and(is_it)
    }

    /// Lets every append fail from now on, or succeed again.
    pub fn set_failing(&self, failing: bool) {
        self.set_trouble(Trouble::of(failing));
    }

    /// Lets every append meet this trouble from now on.
    pub fn set_trouble(&self, trouble: Trouble) {
        self.shared.lock().trouble = trouble;
    }
}

impl LogStore for MemoryLog {
    fn incarnation(&self) -> Incarnation {
        self.shared.lock().incarnation
    }

    fn set_cluster_id(&mut self, cluster_id: u64) -> Result<()> {
        self.shared.lock().incarnation.cluster_id = cluster_id;
        Ok(())
    }

    fn hard_state(&self) -> Result<HardState> {
        Ok(self.shared.lock().hard_state.clone())
    }

    fn first_index(&self) -> u64 {
        self.shared.lock().mark.index + 1
    }

    fn last_index(&self) -> u64 {
        self.shared.lock().last()
    }

    fn term(&self, index: u64) -> Result<Option<u64>> {
        let disk = self.shared.lock();
        if index == disk.mark.index {
            return Ok(Some(disk.mark.term));
        }
        Ok(disk.get(index).filter(|_| index > disk.mark.index).map(|entry| entry.term))
    }

    fn entries(&self, lo: u64, hi: u64, max_bytes: u64) -> Result<Vec<Entry>> {
        let disk = self.shared.lock();
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
        let mut disk = self.shared.lock();
        if batch.entries.is_empty() && batch.hard_state.is_none() && batch.reset_to.is_none() {
            return Ok(());
        }
        if !disk.trouble.writes() {
            return disk.trouble.error();
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
        let mut undo = Undo {
            hard_state: disk.hard_state.clone(),
            durable_mark: disk.durable_mark,
            front: Vec::new(),
            back: Vec::new(),
            added: batch.entries.len(),
            added_from: batch.entries.first().map_or(u64::MAX, |entry| entry.index),
        };
        if batch.reset_to.is_some() && !planted::is(Bug::LogKeptBehindSnapshot) {
            undo.front.extend(disk.entries.drain(..));
        }
        disk.mark = mark;
        disk.durable_mark = mark;
        while disk.entries.front().is_some_and(|entry| entry.index <= mark.index) {
            undo.front.extend(disk.entries.pop_front());
        }
        if let Some(first) = batch.entries.first() {
            while disk.entries.back().is_some_and(|entry| entry.index >= first.index) {
                undo.back.extend(disk.entries.pop_back());
            }
            undo.back.reverse();
        }
        disk.entries.extend(batch.entries);
        if planted::is(Bug::ConflictingTailStays) {
            let last = disk.last();
            let tail = undo.back.iter().filter(|entry| entry.index > last).cloned();
            undo.added += tail.clone().count();
            disk.entries.extend(tail);
        }
        if let Some(hard_state) = batch.hard_state {
            disk.hard_state = hard_state;
        }
        if let Some(under_way) = &mut disk.under_way {
            under_way.push_back(undo);
        }
        disk.trouble.error()
    }

    fn truncate(&mut self, index: u64) -> Result<()> {
        let mut disk = self.shared.lock();
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
