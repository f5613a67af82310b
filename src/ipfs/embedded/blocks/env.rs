//! The LMDB environment of the embedded node: block index, segment accounts, pins.
//!
//! LMDB's default flags, so that a commit is durable when it returns. The map is reserved once, large, and never
//! resized: it is address space, not memory or disk, and a fixed map needs no moment without readers.

use crate::error::{Error, Result};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};
use std::path::Path;

/// Address space for the environment: about a hundred million blocks; what a 32-bit process can spare.
const MAP_SIZE: usize = if cfg!(target_pointer_width = "64") { 16 << 30 } else { 512 << 20 };
/// The least that is tried when the system grants no more.
const MIN_MAP_SIZE: usize = 64 << 20;
/// Read transactions at once: all blocking threads, and as many again for the tests' own.
const MAX_READERS: u32 = 126;

/// A table of byte strings.
pub(crate) type Table = Database<'static, Bytes, Bytes>;

/// The environment and its tables.
#[derive(Clone)]
pub(crate) struct Tables {
    env: Env<WithoutTls>,
    /// Multihash → where its block lies.
    pub(super) blocks: Table,
    /// Segment number → what in it is alive.
    pub(super) segments: Table,
    /// Small named records.
    pub(super) meta: Table,
    /// CID → how it is pinned.
    pub(crate) pins: Table,
}

/// Turns LMDB's errors into ours.
pub(crate) fn lmdb(doing: &str) -> impl Fn(heed::Error) -> Error + '_ {
    move |error| match error {
        heed::Error::Io(e) => Error::from_io(doing, &e),
        heed::Error::Mdb(MdbError::MapFull) => Error::full(format!("{doing}: the index has no room left")),
        heed::Error::Mdb(e @ (MdbError::Corrupted | MdbError::PageNotFound | MdbError::Invalid)) => {
            Error::corrupt(format!(
                "{doing}: the index is damaged ({e}); restore it or remove the ipfs folder"
            ))
        }
        heed::Error::Mdb(MdbError::Other(code)) => {
            Error::from_io(doing, &std::io::Error::from_raw_os_error(code))
        }
        heed::Error::EnvAlreadyOpened => {
            Error::conflict(format!("{doing}: what was done with it before has not ended yet"))
        }
        e => Error::io(format!("{doing}: {e}")),
    }
}

impl Tables {
    /// Opens or makes the environment in a folder that exists.
    pub(super) fn open(folder: &Path) -> Result<Tables> {
        crate::store::pages::verify(&folder.join("data.mdb"))?;
        let mut size = MAP_SIZE;
        let env = loop {
            match open_env(folder, size) {
                Err(heed::Error::Io(e)) if e.raw_os_error() == Some(12) && size / 2 >= MIN_MAP_SIZE => {
                    size /= 2
                }
                other => break other.map_err(lmdb(&format!("opening {}", folder.display())))?,
            }
        };
        let open = |name| table(&env, name);
        let (blocks, segments) = (open("blocks")?, open("segments")?);
        let (meta, pins) = (open("meta")?, open("pins")?);
        Ok(Tables { env, blocks, segments, meta, pins })
    }

    /// A read transaction; short ones only.
    pub(crate) fn read(&self) -> Result<RoTxn<'_, WithoutTls>> {
        self.env.read_txn().map_err(lmdb("reading the index"))
    }

    /// The write transaction; one at a time, others wait.
    pub(crate) fn write(&self) -> Result<RwTxn<'_>> {
        self.env.write_txn().map_err(lmdb("writing the index"))
    }

    /// Bytes that the index takes on disk.
    pub(super) fn size(&self) -> u64 {
        self.env.real_disk_size().unwrap_or(0)
    }
}

fn table(env: &Env<WithoutTls>, name: &str) -> Result<Table> {
    let error = lmdb("opening the index");
    let txn = env.write_txn().map_err(&error)?;
    let made = env.create_databases_and_commit(txn, |opener, txn| {
        opener.create_database::<Bytes, Bytes>(txn, Some(name)).map(CommitOrAbort::<_, ()>::Commit)
    });
    match made.map_err(&error)? {
        CommitOrAbort::Commit(table) => Ok(table),
        CommitOrAbort::Abort(()) => Err(Error::internal("a table was not made")),
    }
}

#[allow(unsafe_code)]
fn open_env(folder: &Path, size: usize) -> heed::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(size).max_readers(MAX_READERS).max_dbs(8);
    // SAFETY: the memory map is sound while nobody else changes or truncates the file. The folder is held by an
    // exclusive file lock for as long as the environment lives (`BlockStore::open`), and no code of ours touches the
    // file but through this environment.
    unsafe { options.open(folder) }
}
