//! The state environment: an overlay of recent writes over LMDB, and the swap of whole generations.
//!
//! Writes go to the overlay and are visible at once; [`StateStore::flush`] commits them, with the applied
//! mark, in one transaction. Who calls it, and how often, is the consensus driver's decision; the overlay
//! only flushes itself when it grows beyond [`MAX_OVERLAY_ROWS`] or [`MAX_OVERLAY_BYTES`].
//!
//! Locks, in the order in which they are taken: `committing` (one flush, snapshot or install at a time),
//! then `shared` (overlay, marks, which environment), then the environment's own. No lock but `committing`
//! is held during a commit, so readers and writers go on while the disk works.

use super::env::{Environment, Held};
use super::generation;
use super::space::Space;
use super::{check_format, Options, FORMAT, FORMAT_KEY};
use crate::durable;
use crate::error::{Context as _, Error, Kind, Result};
use crate::planted::{self, Bug};
use crate::state::Applied;
use crate::store::overlay::{check_row, slot, Layer, Overlay, Row};
use crate::store::{files, record, SnapshotSink, SnapshotSource, StateStore, Table, WriteBatch};
use heed::RwTxn;
use parking_lot::{Mutex, RwLock};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Rows that may wait in the overlay before a write flushes it. An import brings many rows per entry, and
/// the larger the commit, the fewer pages it writes per row.
pub const MAX_OVERLAY_ROWS: usize = 50_000;
/// Bytes that may wait in the overlay before a write flushes it.
pub const MAX_OVERLAY_BYTES: usize = 16 << 20;
/// Bytes of a snapshot that are gathered for one commit of the new generation.
const SINK_SLICE: usize = 4 << 20;
/// Local rows copied per transaction during an install.
const COPY_ROWS: usize = 1_000;

/// The four tables of [`Table`], in the order of [`slot`], and the environment's own marks.
pub(super) const TABLES: [&str; 5] = ["pins", "members", "meta", "local", "mark"];
/// Where the marks are.
pub(super) const MARK: usize = 4;
pub(super) const APPLIED_KEY: &[u8] = b"applied";
/// Format of the applied mark up to pinfold 0.2.
const MARK_FORMAT: u8 = 1;
/// The same with a checksum behind it.
const MARK_SUMMED: u8 = 2;

pub(super) type StateEnv = Environment<5>;

/// The state on LMDB.
pub struct LmdbState {
    dir: PathBuf,
    options: Options,
    space: Space,
    shared: RwLock<Shared>,
    committing: Mutex<()>,
    /// Number of the newest generation that was begun.
    newest: AtomicU64,
}

struct Shared {
    overlay: Overlay,
    env: Arc<StateEnv>,
}

fn open_env(dir: &Path, options: &Options) -> Result<StateEnv> {
    let env = Environment::open(dir, TABLES, options)?;
    check_format(&env, MARK, "state", dir)?;
    Ok(env)
}

pub(super) fn read_applied(env: &StateEnv) -> Result<Applied> {
    let record = env.read(|tables, txn| Ok(tables[MARK].get(txn, APPLIED_KEY)?.map(<[u8]>::to_vec)))?;
    record.map_or(Ok(Applied::default()), |bytes| decode_applied(&bytes))
}

/// The applied mark, from its record.
pub(super) fn decode_applied(bytes: &[u8]) -> Result<Applied> {
    record::decode_summed(MARK_FORMAT, MARK_SUMMED, b"", bytes)
        .map_err(|f| f.into_error("the applied mark", Kind::Corrupt))
}

pub(super) fn row_counts(env: &StateEnv) -> Result<[u64; 4]> {
    env.read(|tables, txn| {
        let mut counts = [0; Table::ALL.len()];
        for table in Table::ALL {
            counts[slot(table)] = tables[slot(table)].len(txn)?;
        }
        Ok(counts)
    })
}

impl LmdbState {
    /// See [`super::open_state`].
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Self> {
        durable::make_folder(dir)?;
        let found = generation::current(dir)?;
        let live = found.unwrap_or(1);
        let env = open_env(&generation::path(dir, live), options)?;
        // Not before the live one is known to be readable: a leftover may be all there is to look at.
        generation::switch_if_new(dir, live)?;
        generation::remove_others(dir, live)?;
        let overlay = Overlay::new(row_counts(&env)?, read_applied(&env)?);
        Ok(LmdbState {
            dir: dir.to_path_buf(),
            options: *options,
            space: Space::new(dir, options.reserve),
            shared: RwLock::new(Shared { overlay, env: Arc::new(env) }),
            committing: Mutex::new(()),
            newest: AtomicU64::new(live),
        })
    }

    /// Commits what is in the overlay; the caller holds `committing`.
    fn commit(&self) -> Result<Applied> {
        let (env, layer, applied) = {
            let mut shared = self.shared.write();
            match shared.overlay.start_flush() {
                Some((layer, applied)) => (shared.env.clone(), layer, applied),
                None => return Ok(shared.overlay.durable()),
            }
        };
        let done = env.write(|tables, txn| {
            for table in Table::ALL {
                let db = tables[slot(table)];
                for (key, value) in layer.table(table) {
                    match value {
                        Some(value) => db.put(txn, key, value)?,
                        None => {
                            db.delete(txn, key)?;
                        }
                    }
                }
            }
            match planted::is(Bug::MarkInOtherCommit) {
                false => put_applied(&tables[MARK], txn, applied),
                true => Ok(()),
            }
        });
        let done = match planted::is(Bug::MarkInOtherCommit) {
            false => done,
            true => done.and_then(|()| env.write(|tables, txn| put_applied(&tables[MARK], txn, applied))),
        };
        drop::<Arc<Layer>>(layer);
        let mut shared = self.shared.write();
        match done {
            Ok(()) => {
                shared.overlay.end_flush(applied);
                Ok(applied)
            }
            Err(error) => {
                shared.overlay.abort_flush();
                Err(error.context("committing the state"))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    #[cfg(test)]
    pub(super) fn map_size(&self) -> usize {
        self.shared.read().env.map_size()
    }
}

fn put_applied(mark: &super::Db, txn: &mut RwTxn<'_>, applied: Applied) -> heed::Result<()> {
    mark.put(txn, APPLIED_KEY, &record::encode_summed(MARK_SUMMED, b"", &applied))
}

impl StateStore for LmdbState {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let shared = self.shared.read();
        match shared.overlay.get(table, key) {
            Some(seen) => Ok(seen.map(<[u8]>::to_vec)),
            None => shared.env.read(|tables, txn| Ok(tables[slot(table)].get(txn, key)?.map(<[u8]>::to_vec))),
        }
    }

    fn scan(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>> {
        let shared = self.shared.read();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        shared.env.read(|tables, txn| {
            let base = tables[slot(table)].range(txn, &(start, Bound::Unbounded))?;
            shared.overlay.scan(table, after, limit, base)
        })
    }

    fn count(&self, table: Table) -> u64 {
        self.shared.read().overlay.count(table)
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        self.space.check()?;
        let waiting = {
            let mut shared = self.shared.write();
            let Shared { overlay, env } = &mut *shared;
            let in_base = |table: Table, key: &[u8]| {
                env.read(|tables, txn| Ok(tables[slot(table)].get(txn, key)?.is_some()))
            };
            overlay.write(batch, in_base)?;
            overlay.waiting()
        };
        if waiting.0 >= MAX_OVERLAY_ROWS || waiting.1 >= MAX_OVERLAY_BYTES {
            // If this fails the batch is visible and not durable, as after any write: the log has it still.
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<Applied> {
        let _one = self.committing.lock();
        self.commit()
    }

    fn applied(&self) -> Applied {
        self.shared.read().overlay.applied()
    }

    fn durable(&self) -> Applied {
        self.shared.read().overlay.durable()
    }

    fn full(&self) -> Option<String> {
        self.space.full()
    }

    fn snapshot(&self) -> Result<Box<dyn SnapshotSource>> {
        let _one = self.committing.lock();
        let applied = self.commit()?;
        let env = self.shared.read().env.clone();
        let held = env.hold()?;
        Ok(Box::new(Source { held, applied, table: 0, after: None }))
    }

    fn begin_install(&self) -> Result<Box<dyn SnapshotSink>> {
        self.space.check()?;
        let generation = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let dir = generation::path(&self.dir, generation);
        // What an earlier attempt left under this name would be mixed into the snapshot.
        files::remove_dir(&dir)?;
        let env = open_env(&dir, &self.options)?;
        Ok(Box::new(Sink {
            env: Some(env),
            dir,
            generation,
            waiting: Vec::new(),
            bytes: 0,
            installed: false,
        }))
    }

    fn install(&self, sink: Box<dyn SnapshotSink>, applied: Applied) -> Result<()> {
        let mut sink = sink
            .into_any()
            .downcast::<Sink>()
            .map_err(|_| Error::internal("a snapshot was built for another store"))?;
        if sink.dir.parent() != Some(&*self.dir) {
            return Err(Error::internal("a snapshot was built in another folder"));
        }
        sink.commit()?;
        let env = sink.env.take().expect("a sink has its environment until it is installed");
        let _one = self.committing.lock();
        // Local records may go on being written until the swap, so the swap excludes them; what has
        // been applied meanwhile is replaced anyway.
        let mut shared = self.shared.write();
        copy_local(&shared, &env)?;
        if planted::is(Bug::SnapshotOnTop) {
            keep_pins(&shared, &env)?;
        }
        env.write(|tables, txn| {
            tables[MARK].put(txn, FORMAT_KEY, &FORMAT.to_be_bytes())?;
            put_applied(&tables[MARK], txn, applied)
        })?;
        let counts = row_counts(&env)?;
        // From here on the new generation may be the live one, even if the switch reports an error (the
        // rename went through and its flush did not): only opening again may remove either of them.
        sink.installed = true;
        generation::switch(&self.dir, sink.generation)?;
        *shared = Shared { overlay: Overlay::new(counts, applied), env: Arc::new(env) };
        drop(shared);
        // Readers of the old one keep it open until they are done; its name can go.
        if let Err(error) = generation::remove_others(&self.dir, sink.generation) {
            log::warn!("store: {error} (it will be tried again at the next start)");
        }
        Ok(())
    }
}

/// Copies the local records, as readers see them, into a new environment.
fn copy_local(from: &Shared, to: &StateEnv) -> Result<()> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = from.env.read(|tables, txn| {
            let base = tables[slot(Table::Local)].range(txn, &(start, Bound::Unbounded))?;
            from.overlay.scan(Table::Local, after.as_deref(), COPY_ROWS, base)
        })?;
        if rows.is_empty() {
            return Ok(());
        }
        to.write(|tables, txn| {
            rows.iter().try_for_each(|(key, value)| tables[slot(Table::Local)].put(txn, key, value))
        })
        .context("keeping the local records")?;
        after = rows.into_iter().last().map(|(key, _)| key);
    }
}

/// Only for [`Bug::SnapshotOnTop`]: old pins that the snapshot does not have.
fn keep_pins(from: &Shared, to: &StateEnv) -> Result<()> {
    let rows = from.env.read(|tables, txn| {
        let base = tables[slot(Table::Pins)].range(txn, &(Bound::Unbounded, Bound::Unbounded))?;
        from.overlay.scan(Table::Pins, None, usize::MAX, base)
    })?;
    to.write(|tables, txn| {
        let pins = tables[slot(Table::Pins)];
        rows.iter().try_for_each(|(key, old)| match pins.get(txn, key)?.is_some() {
            true => Ok(()),
            false => pins.put(txn, key, old),
        })
    })
}

/// A snapshot being read, in one read transaction.
struct Source {
    held: Held<5>,
    applied: Applied,
    /// Position in [`Table::REPLICATED`].
    table: usize,
    after: Option<Vec<u8>>,
}

impl SnapshotSource for Source {
    fn applied(&self) -> Applied {
        self.applied
    }

    fn next(&mut self, max_bytes: usize) -> Result<Vec<(Table, Vec<u8>, Vec<u8>)>> {
        let mut rows: Vec<(Table, Vec<u8>, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        while let Some(&table) = Table::REPLICATED.get(self.table) {
            let start = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let more = self.held.read(|tables, txn| {
                for row in tables[slot(table)].range(txn, &(start, Bound::Unbounded))? {
                    let (key, value) = row?;
                    bytes += key.len() + value.len();
                    if bytes > max_bytes && !rows.is_empty() {
                        return Ok(true);
                    }
                    rows.push((table, key.to_vec(), value.to_vec()));
                }
                Ok(false)
            })?;
            if more {
                self.after = rows.last().filter(|r| r.0 == table).map(|r| r.1.clone()).or(self.after.take());
                return Ok(rows);
            }
            self.table += 1;
            self.after = None;
        }
        Ok(rows)
    }
}

/// A snapshot being written into the next generation. Dropped without being installed, it leaves nothing.
struct Sink {
    env: Option<StateEnv>,
    dir: PathBuf,
    generation: u64,
    waiting: Vec<(Table, Vec<u8>, Vec<u8>)>,
    bytes: usize,
    installed: bool,
}

impl Sink {
    fn commit(&mut self) -> Result<()> {
        let Some(env) = self.env.as_ref().filter(|_| !self.waiting.is_empty()) else { return Ok(()) };
        let rows = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        env.write(|tables, txn| {
            rows.iter().try_for_each(|(table, key, value)| tables[slot(*table)].put(txn, key, value))
        })
        .context("receiving a snapshot")
    }
}

impl SnapshotSink for Sink {
    fn put(&mut self, rows: Vec<(Table, Vec<u8>, Vec<u8>)>) -> Result<()> {
        for (table, key, value) in &rows {
            if !Table::REPLICATED.contains(table) {
                return Err(Error::invalid(format!("a snapshot brings rows of the table {table:?}")));
            }
            check_row(*table, key, Some(value))
                .map_err(|e| Error::invalid(format!("a snapshot brings {e}")))?;
            self.bytes += key.len() + value.len();
        }
        self.waiting.extend(rows);
        if self.bytes >= SINK_SLICE {
            self.commit()?;
        }
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !self.installed {
            self.env = None;
            if let Err(error) = files::remove_dir(&self.dir) {
                log::warn!("store: {error}");
            }
        }
    }
}
