//! An LMDB environment that grows: the one place of pinfold with `unsafe` in it (and `robust`, for C's sake).
//!
//! LMDB maps its file into memory, with a size that must be named when it is opened. Small boards have
//! little address space (a map of hundreds of GiB fails on a Pi 4), so maps start small and grow when they
//! are full. Growing needs a moment at which no transaction is alive: every short transaction runs under the
//! read side of a lock, growing takes the write side, closes the environment and opens it again, larger.
//! (LMDB can also be resized while open; when the system has no room for the larger map, that leaves
//! it without any map at all, and there is no way back.) The long read transactions of snapshots are
//! *revoked* by growing: their reader gets an error and starts again, writers are never held up.
//!
//! Opened with LMDB's default flags, always: each commit is two flushes and survives a power cut. No other
//! process may open the same directory; the daemon's folder lock sees to that.

use super::Options;
use crate::durable;
use crate::error::{Context as _, Error, Result};
use crate::store::pages;
use heed::types::Bytes;
use heed::{
    CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn,
    WithoutTls,
};
use parking_lot::{Mutex, RwLock};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// A table of an environment.
pub(super) type Db = Database<'static, Bytes, Bytes>;

/// Maps are a multiple of this: LMDB wants whole pages, and a Pi 5 has pages of 16 KiB.
const GRAIN: usize = 64 << 10;
/// Maps double up to this size and then grow by it.
const GROWTH_STEP: usize = 1 << 30;
/// The smallest map worth opening when the system refuses larger ones.
const SMALLEST_MAP: usize = 1 << 20;
/// Read transactions at once, in all threads: the blocking pool and a few snapshots fit many times.
const MAX_READERS: u32 = 256;
/// Tables per environment.
const MAX_TABLES: u32 = 8;
/// Largest part of a map that may be in use when a snapshot starts; growing later would revoke it.
const SNAPSHOT_FILL: usize = 2;

/// `size`, in whole grains.
fn round(size: usize) -> usize {
    size.div_ceil(GRAIN).saturating_mul(GRAIN)
}

/// The next size after `size`.
fn grown(size: usize) -> usize {
    round(size.saturating_add(size.min(GROWTH_STEP)))
}

/// An environment with `N` tables.
pub(super) struct Environment<const N: usize> {
    dir: PathBuf,
    tables: [&'static str; N],
    limit: usize,
    /// `None` only when closing for growth and then even the old size could not be opened again.
    live: RwLock<Option<Live<N>>>,
    held: Mutex<Vec<Weak<HeldTxn>>>,
}

struct Live<const N: usize> {
    env: Env<WithoutTls>,
    tables: [Db; N],
    size: usize,
}

type HeldTxn = Mutex<Option<RoTxn<'static, WithoutTls>>>;

/// A long read transaction, revoked when the environment has to grow.
pub(super) struct Held<const N: usize> {
    txn: Arc<HeldTxn>,
    tables: [Db; N],
}

impl<const N: usize> Environment<N> {
    /// Opens the environment in `dir`, making what is not there.
    pub(super) fn open(dir: &Path, tables: [&'static str; N], options: &Options) -> Result<Self> {
        durable::make_folder(dir)?;
        let file = dir.join("data.mdb");
        let used = std::fs::metadata(&file).map_or(0, |m| usize::try_from(m.len()).unwrap_or(usize::MAX));
        pages::verify(&file)?;
        // A quarter more than the file, so that opening is not followed by growing at once.
        let wanted = round(options.map_size.max(used.saturating_add(used / 4))).min(round(options.map_limit));
        let live = open_falling(dir, &tables, wanted, round(used).max(SMALLEST_MAP))
            .context(format!("opening the database in {}", dir.display()))?;
        // LMDB flushes the file; that the file exists at all is the directory's matter. Whoever made it may have been
        // killed before this.
        durable::sync_folder(dir)?;
        Ok(Environment {
            dir: dir.to_path_buf(),
            tables,
            limit: round(options.map_limit),
            live: RwLock::new(Some(live)),
            held: Mutex::new(Vec::new()),
        })
    }

    /// Runs a short read transaction.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&[Db; N], &RoTxn<'_, WithoutTls>) -> heed::Result<T>,
    ) -> Result<T> {
        let live = self.live.read();
        let live = live.as_ref().ok_or_else(|| self.closed())?;
        let result = live.env.read_txn().and_then(|txn| work(&live.tables, &txn));
        result.map_err(|e| self.error("reading", e))
    }

    /// Runs a write transaction and commits it durably; nothing is written when this fails. `work` runs
    /// again when the map had to grow.
    pub(super) fn write<T>(
        &self,
        mut work: impl FnMut(&[Db; N], &mut RwTxn<'_>) -> heed::Result<T>,
    ) -> Result<T> {
        loop {
            let size = {
                let live = self.live.read();
                let live = live.as_ref().ok_or_else(|| self.closed())?;
                let result = live.env.write_txn().and_then(|mut txn| {
                    let value = work(&live.tables, &mut txn)?;
                    txn.commit()?;
                    Ok(value)
                });
                match result {
                    Ok(value) => return Ok(value),
                    Err(heed::Error::Mdb(MdbError::MapFull)) => live.size,
                    Err(error) => return Err(self.error("writing", error)),
                }
            };
            self.grow(size)?;
        }
    }

    /// Writes a compact copy of the environment, as one read transaction sees it, into the folder `to`, durably.
    pub(super) fn copy_to(&self, to: &Path) -> Result<()> {
        durable::make_folder(to)?;
        let path = to.join("data.mdb");
        let doing = || format!("writing {}", path.display());
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).context(doing())?;
        {
            let live = self.live.read();
            let live = live.as_ref().ok_or_else(|| self.closed())?;
            let copied = live.env.copy_to_file(&mut file, CompactionOption::Enabled);
            copied.map_err(|e| lmdb_error(e).context(doing()))?;
        }
        file.sync_all().context(doing())?;
        durable::sync_folder(to)
    }

    /// A read transaction that may live long, for a snapshot.
    pub(super) fn hold(&self) -> Result<Held<N>> {
        let crowded = {
            let live = self.live.read();
            let live = live.as_ref().ok_or_else(|| self.closed())?;
            let used = live.env.real_disk_size().map_err(|e| self.error("measuring", e))?;
            let grow = used > (live.size / SNAPSHOT_FILL) as u64 && grown(live.size) <= self.limit;
            grow.then_some(live.size)
        };
        if let Some(size) = crowded {
            self.grow(size)?;
        }
        let live = self.live.read();
        let live = live.as_ref().ok_or_else(|| self.closed())?;
        let txn = live.env.clone().static_read_txn().map_err(|e| self.error("reading", e))?;
        let txn = Arc::new(Mutex::new(Some(txn)));
        let mut held = self.held.lock();
        held.retain(|txn| txn.strong_count() > 0);
        held.push(Arc::downgrade(&txn));
        Ok(Held { txn, tables: live.tables })
    }

    /// Opens again with a larger map, unless somebody else has done so since `size` was seen to be full.
    fn grow(&self, size: usize) -> Result<()> {
        let mut live = self.live.write();
        let now = live.as_ref().ok_or_else(|| self.closed())?.size;
        if now > size {
            return Ok(());
        }
        let wanted = grown(now).min(self.limit);
        if wanted <= now {
            return Err(Error::full(format!(
                "the database in {} has reached its largest size of {} MiB",
                self.dir.display(),
                now >> 20
            )));
        }
        for held in self.held.lock().drain(..) {
            if let Some(txn) = held.upgrade() {
                txn.lock().take();
            }
        }
        *live = None; // The last handle: this closes the environment.
        let again = open_falling(&self.dir, &self.tables, wanted, now)
            .context(format!("opening the database in {} with a larger map", self.dir.display()))?;
        let size = again.size;
        *live = Some(again);
        if size > now {
            log::info!("store: the map of {} is now {} MiB", self.dir.display(), size >> 20);
            return Ok(());
        }
        Err(Error::full(format!(
            "the database in {} is full at {} MiB and the system has no room to map more of it",
            self.dir.display(),
            now >> 20
        )))
    }

    /// Size of the map, for tests.
    #[cfg(test)]
    pub(super) fn map_size(&self) -> usize {
        let live = self.live.read();
        live.as_ref().map_or(0, |live| live.size)
    }

    fn closed(&self) -> Error {
        Error::io(format!(
            "the database in {} could not be opened again after an error; restart pinfold",
            self.dir.display()
        ))
    }

    fn error(&self, doing: &str, error: heed::Error) -> Error {
        let error = lmdb_error(error).context(format!("{doing} the database in {}", self.dir.display()));
        // LMDB reports a write that a full disk cut short as "input/output error".
        let space = || rustix::fs::statvfs(&self.dir).map(|s| s.f_bavail.saturating_mul(s.f_frsize));
        if error.kind() == crate::Kind::Io && space().is_ok_and(|free| free < GRAIN as u64) {
            return Error::full(format!("{error} (the disk is full)"));
        }
        error
    }
}

impl<const N: usize> Held<N> {
    /// Reads in the transaction, if it has not been revoked.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&[Db; N], &RoTxn<'_, WithoutTls>) -> heed::Result<T>,
    ) -> Result<T> {
        let txn = self.txn.lock();
        let txn = txn.as_ref().ok_or_else(|| {
            Error::unavailable("the database had to grow while the snapshot was being read: take a new one")
        })?;
        work(&self.tables, txn).map_err(|e| lmdb_error(e).context("reading a snapshot"))
    }
}

/// Opens with a map of `wanted` bytes, or of half as much as often as the system says that it has no
/// room, down to `least`.
fn open_falling<const N: usize>(
    dir: &Path,
    tables: &[&'static str; N],
    wanted: usize,
    least: usize,
) -> Result<Live<N>> {
    let mut size = wanted.max(GRAIN);
    loop {
        // A failed environment stays failed: each try makes its own.
        let error = match open_mapped(dir, size) {
            Ok(env) => return with_tables(env, tables, size).map_err(lmdb_error),
            Err(error) => error,
        };
        let no_room = matches!(&error, heed::Error::Io(e) if e.raw_os_error() == Some(rustix::io::Errno::NOMEM.raw_os_error()));
        if !no_room || size <= least {
            return Err(lmdb_error(error));
        }
        size = round(size / 2).max(least);
        log::warn!("store: no room for the map of {}; trying {} MiB", dir.display(), size >> 20);
    }
}

#[allow(unsafe_code)]
fn open_mapped(dir: &Path, size: usize) -> heed::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(size).max_dbs(MAX_TABLES).max_readers(MAX_READERS);
    // SAFETY: the file is only ever changed through LMDB: it lies in a folder of mode 0700 whose lock lets
    // one daemon in, heed refuses to open it twice in this process, and the flags are LMDB's defaults.
    unsafe { options.open(dir) }
}

/// A read transaction of another process's environment: its pages stay as they are while this lives. Nothing is read
/// through it; whoever holds it reads the file's pages of that transaction (`store::pages`).
pub(in crate::store) struct Reader {
    txn: RoTxn<'static, WithoutTls>,
}

impl Reader {
    /// Registers beside whoever has the environment open. What readers that died left behind is cleared away, so that it
    /// does not keep pages from being used again.
    #[allow(unsafe_code)]
    pub(in crate::store) fn hold(dir: &Path) -> Result<Reader> {
        let size = std::fs::metadata(dir.join("data.mdb")).map_or(0, |m| m.len());
        let size = round(usize::try_from(size).unwrap_or(usize::MAX)).max(SMALLEST_MAP);
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(size).max_readers(MAX_READERS);
        // SAFETY: opened for reading, by a process that has it open nowhere else, and no page is read through the map but
        // the meta pages, which are at the beginning of every environment; the lock file keeps readers and writer apart.
        let env = unsafe { options.flags(EnvFlags::READ_ONLY).open(dir) };
        let env = env
            .map_err(|e| lmdb_error(e).context(format!("reading beside the daemon in {}", dir.display())))?;
        let stale = env.clear_stale_readers().map_err(lmdb_error)?;
        if stale > 0 {
            log::debug!("store: {stale} readers of {} had died", dir.display());
        }
        let txn = env.static_read_txn().map_err(lmdb_error)?;
        Ok(Reader { txn })
    }

    /// The transaction.
    pub(in crate::store) fn txn(&self) -> u64 {
        self.txn.id() as u64
    }
}

fn with_tables<const N: usize>(
    env: Env<WithoutTls>,
    names: &[&'static str; N],
    size: usize,
) -> heed::Result<Live<N>> {
    // Tables that exist are opened by a read transaction: opening must not write.
    let txn = env.read_txn()?;
    let opened = env.open_databases_and_commit(txn, |opener, txn| {
        let mut found = [None; N];
        for (place, name) in found.iter_mut().zip(names) {
            *place = opener.open_database::<Bytes, Bytes>(txn, Some(name))?;
        }
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(found))
    })?;
    let opened = opened.commit().unwrap_or([None; N]);
    let tables = if opened.iter().all(Option::is_some) {
        opened
    } else {
        let txn = env.write_txn()?;
        let created = env.create_databases_and_commit(txn, |opener, txn| {
            let mut found = [None; N];
            for (place, name) in found.iter_mut().zip(names) {
                *place = Some(opener.create_database::<Bytes, Bytes>(txn, Some(name))?);
            }
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(found))
        })?;
        created.commit().unwrap_or([None; N])
    };
    let tables = tables.map(|t| t.expect("every table was opened or created just now"));
    Ok(Live { env, tables, size })
}

/// LMDB's error in pinfold's terms.
pub(super) fn lmdb_error(error: heed::Error) -> Error {
    match error {
        heed::Error::Io(error) => Error::from_io("the database", &error),
        heed::Error::Mdb(MdbError::MapFull) => Error::full("the database's map is full"),
        heed::Error::Mdb(
            e @ (MdbError::Corrupted
            | MdbError::PageNotFound
            | MdbError::Invalid
            | MdbError::VersionMismatch
            | MdbError::Incompatible
            | MdbError::Panic),
        ) => Error::corrupt(format!(
            "the database is damaged ({e}): restore the newest file of backups/ with `pinfold state import`, \
             or empty this peer's data folder and let it join again"
        )),
        heed::Error::Mdb(e) => Error::io(format!("the database refused: {e}")),
        heed::Error::EnvAlreadyOpened => Error::unavailable("the database is already open in this process"),
        heed::Error::Encoding(e) | heed::Error::Decoding(e) => Error::internal(format!("the database: {e}")),
    }
}
