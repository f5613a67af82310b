//! All durable state of the cluster, in two LMDB environments (DESIGN §6).
//!
//! *log*: Raft entries, hard state, snapshot mark, this directory's Raft id; every [`LogStore::append`] is one
//! durable commit (two flushes). *state*: pins, members, local tracker records, applied index in the same
//! transaction; committed lazily, with what is not yet committed kept in an in-memory overlay that every
//! read sees. The state may lag the log, never lead it; the log is truncated only below the state's
//! *durable* applied index, so a crash costs a replay, never a pin.
//!
//! The traits here are the seam: `lmdb` ships, `memory` is the simulator's disk.

mod crc;
mod files;
pub mod lmdb;
pub mod memory;
mod overlay;
pub mod pages;
pub(crate) mod record;
pub mod recover;
pub mod rotate;
mod swap;
#[cfg(test)]
mod tests;
pub mod upgrade;

pub(crate) use crc::crc32c;
pub(crate) use files::write_atomically;
pub use lmdb::{open_log, open_state, LmdbLog, LmdbState, Options};

use crate::error::Result;
use crate::state::{Applied, RaftId};
use raft::eraftpb::{Entry, HardState};

/// The tables of the state environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// CID bytes → versioned pin record. Replicated.
    Pins,
    /// Raft id (u64 BE) → versioned member record. Replicated.
    Members,
    /// Small named records of the replicated state (ConfState, digest, removed raft ids …). Replicated.
    Meta,
    /// Local tracker records; never replicated, kept across a snapshot install.
    Local,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 4] = [Table::Pins, Table::Members, Table::Meta, Table::Local];
    /// Those that a snapshot carries.
    pub const REPLICATED: [Table; 3] = [Table::Pins, Table::Members, Table::Meta];
}

/// Longest key in bytes (LMDB's own limit is 511).
pub const MAX_KEY: usize = 400;
/// Largest value in bytes.
pub const MAX_VALUE: usize = 1 << 20;

/// A set of writes that becomes visible at once and durable at once.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    /// `None` deletes.
    pub writes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// The applied mark that these writes bring; `None` for local records.
    pub applied: Option<Applied>,
}

/// The state environment, as the machine, the tracker and queries see it. Thread-safe; all calls block.
pub trait StateStore: Send + Sync + 'static {
    /// One value, overlay first.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// At most `limit` rows with keys strictly after `after` (`None`: from the start), in key order,
    /// overlay merged in. Short read transactions: callers page.
    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// Number of rows, from a counter (no disk access).
    fn count(&self, table: Table) -> u64;
    /// Adds writes to the overlay. Refuses with [`crate::Kind::Full`] before the disk is full.
    fn write(&self, batch: WriteBatch) -> Result<()>;
    /// Commits the overlay durably; returns the durable applied mark.
    fn flush(&self) -> Result<Applied>;
    /// The applied mark that reads see.
    fn applied(&self) -> Applied;
    /// The applied mark that would survive a power cut now.
    fn durable(&self) -> Applied;
    /// Whether new work must be refused because the disk is nearly full; the sentence if so.
    fn full(&self) -> Option<String>;
    /// A consistent reading of the replicated tables at one applied mark, flushed first.
    fn snapshot(&self) -> Result<Box<dyn SnapshotSource>>;
    /// Starts building a replacement of the replicated tables beside the present ones.
    fn begin_install(&self) -> Result<Box<dyn SnapshotSink>>;
    /// Atomically replaces the replicated tables by what the sink received (local records stay).
    /// Durable when it returns.
    fn install(&self, sink: Box<dyn SnapshotSink>, applied: Applied) -> Result<()>;
}

/// A snapshot being read: constant memory, one read transaction.
pub trait SnapshotSource: Send {
    /// The mark the snapshot was taken at.
    fn applied(&self) -> Applied;
    /// The next rows, at most about `max_bytes`; empty at the end.
    fn next(&mut self, max_bytes: usize) -> Result<Vec<(Table, Vec<u8>, Vec<u8>)>>;
}

/// A snapshot being written.
pub trait SnapshotSink: Send {
    /// Adds rows, in the order the source gave them.
    fn put(&mut self, rows: Vec<(Table, Vec<u8>, Vec<u8>)>) -> Result<()>;
    /// For the implementation of [`StateStore::install`].
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any>;
}

/// Who this data directory is in which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// The Raft id of this directory.
    pub raft_id: RaftId,
    /// Random id of the cluster, made at its founding; 0 while not yet a member of any.
    pub cluster_id: u64,
}

/// What one durable commit of the log environment holds.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    /// Replaces everything from the first entry's index on.
    pub entries: Vec<Entry>,
    /// The hard state, when it changed.
    pub hard_state: Option<HardState>,
    /// A snapshot was installed: the log restarts empty after this mark.
    pub reset_to: Option<Applied>,
}

/// The log environment. Owned by the consensus driver alone; all calls block. After any error the
/// driver stops: a log that could not write is not written again.
pub trait LogStore: Send + 'static {
    /// Who we are; made at creation.
    fn incarnation(&self) -> Incarnation;
    /// Sets the cluster id (founding or joining), durable.
    fn set_cluster_id(&mut self, cluster_id: u64) -> Result<()>;
    /// The last hard state; default when none.
    fn hard_state(&self) -> Result<HardState>;
    /// Index of the first entry present, or last + 1.
    fn first_index(&self) -> u64;
    /// Index of the last entry, or of the truncation mark.
    fn last_index(&self) -> u64;
    /// Term of an entry or of the truncation mark (`first_index - 1`); `None` outside.
    fn term(&self, index: u64) -> Result<Option<u64>>;
    /// Entries `lo..hi`, at least one, stopping after `max_bytes`.
    fn entries(&self, lo: u64, hi: u64, max_bytes: u64) -> Result<Vec<Entry>>;
    /// One durable commit.
    fn append(&mut self, batch: LogBatch) -> Result<()>;
    /// Forgets entries up to and including `index` (lazily durable; the mark keeps its term).
    fn truncate(&mut self, index: u64) -> Result<()>;
}

/// Opens (or makes) both environments of a data directory: `<dir>/log` and `<dir>/state`.
///
/// # Errors
/// See [`lmdb::open_log`] and [`lmdb::open_state`].
pub fn open(dir: &std::path::Path) -> Result<(lmdb::LmdbLog, lmdb::LmdbState)> {
    upgrade::refuse_cut_off(dir)?;
    recover::settle(dir)?;
    let options = lmdb::Options::default();
    Ok((lmdb::open_log(&dir.join("log"), &options)?, lmdb::open_state(&dir.join("state"), &options)?))
}
