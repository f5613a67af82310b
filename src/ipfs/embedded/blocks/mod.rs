//! The block store: every block on this board, durable before it is acknowledged (`docs/decisions/0008-block-store.md`).
//!
//! ```text
//! put ──> queue ──> writer thread: append to the segment ─> one fdatasync for all that waited ─> answer
//!                                     └─> overlay (memory) ─── now and then ───> index (LMDB)
//! get ──> overlay, index ─> pread from the segment ─> hash checked ─> bytes
//! ```
//!
//! * Blocks are keyed by multihash: CIDv0, CIDv1 and every codec share one copy. Identity CIDs need no storage.
//! * The segments are the truth. The index lags: after a crash the tail of the last segments is read again from the
//!   index's mark, each record is checked by its hash, and a torn end is cut off.
//! * One thread writes. Whoever waits while it flushes is served by the next flush together.
//! * Removing is forgetting in the index; space comes back when a segment with little left alive is copied and deleted.
//! * What is on disk never exceeds `storage_max`, and the file system keeps [`StoreConfig::reserve`].
//!
//! The store must never: acknowledge a durable put before the flush; serve bytes that do not have their hash; remove
//! a block that [`recent`] protects; write after a failed flush (what the disk then holds is unknown until a restart
//! has read it again).

mod compact;
mod env;
mod held;
mod recent;
mod recover;
mod segment;
pub mod survey;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use env::{lmdb, Tables};
pub(crate) use recent::WalkId;

use crate::error::{Context, Error, Result};
use crate::ipfs::embedded::bitswap::BlockSource;
use crate::ipfs::unixfs::hash;
use crate::ipfs::unixfs::node::MAX_BLOCK;
use bytes::Bytes;
use cid::Cid;
use held::Held;
use multihash::Multihash;
use parking_lot::{Mutex, RwLock};
use recent::Recent;
use rustix::fs::OFlags;
use segment::{Location, Segment};
use std::collections::HashMap;
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;
use writer::{Op, Writer};

/// A hash that names a block.
pub(crate) type Hash = Multihash<64>;

/// Requests that may wait for the writer; more put the callers to sleep.
const QUEUE: usize = 256;
/// Segment files kept open for reading.
const OPEN_SEGMENTS: usize = 64;
/// How often a read looks again when the block moved to another segment meanwhile.
const MOVES: usize = 4;

/// What the store is made of.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Its folder; made when it is not there.
    pub folder: PathBuf,
    /// Hard limit for what is on disk, bytes.
    pub storage_max: u64,
    /// Free bytes that the file system keeps, for the rest of the board.
    pub reserve: u64,
    /// How long a block that no pin reaches is kept after it was put.
    pub grace: Duration,
    /// Size at which a new segment is begun; less than 4 GiB.
    pub segment_size: u64,
}

impl StoreConfig {
    /// Default of [`StoreConfig::segment_size`]: a segment is copied within seconds even on an SD card.
    pub const SEGMENT: u64 = 256 << 20;
    /// Default of [`StoreConfig::reserve`]: room for the cluster's own databases and the system's log.
    pub const RESERVE: u64 = 64 << 20;
    /// Default of [`StoreConfig::grace`]: an upload has this long between a block and the pin that holds it.
    pub const GRACE: Duration = Duration::from_secs(3_600);

    /// The defaults for a folder and a limit.
    pub fn new(folder: impl Into<PathBuf>, storage_max: u64) -> Self {
        StoreConfig {
            folder: folder.into(),
            storage_max,
            reserve: Self::RESERVE,
            grace: Self::GRACE,
            segment_size: Self::SEGMENT,
        }
    }
}

/// Whether a put waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Returns when the blocks survive a power cut.
    Flushed,
    /// Returns when the blocks can be read; [`BlockStore::sync`] makes them durable.
    Written,
}

/// What the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Blocks that can be read.
    pub blocks: u64,
}

/// The store. Clones share it. Calls block (short reads from the page cache at best) unless they are `async`.
#[derive(Clone)]
pub struct BlockStore {
    shared: Arc<Shared>,
    writer: Arc<Handle>,
}

/// The way to the writer thread, which ends with the last clone of the store.
struct Handle {
    ops: async_channel::Sender<Op>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.ops.close();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// What readers and the writer thread share.
struct Shared {
    config: StoreConfig,
    folder: Held,
    /// The first write that the disk refused for another reason than room.
    trouble: Mutex<Option<Error>>,
    tables: Tables,
    /// Written but not yet in the index.
    overlay: RwLock<HashMap<Hash, Location>>,
    open: Mutex<OpenSegments>,
    recent: Mutex<Recent>,
    /// Bytes of all segment files.
    bytes: AtomicU64,
    /// Blocks in index and overlay.
    blocks: AtomicU64,
    /// Held while the store is open: one process per folder.
    _lock: File,
}

/// Segments open for reading, least recently used last.
#[derive(Default)]
struct OpenSegments(Vec<Arc<Segment>>);

impl BlockStore {
    /// Opens or makes the store, reading again what the index does not know yet.
    ///
    /// # Errors
    /// When the folder cannot be used, another process uses it, or files in it are damaged beyond a torn end.
    pub fn open(config: StoreConfig) -> Result<BlockStore> {
        let folder = config.folder.clone();
        crate::durable::make_folder(&folder)?;
        let held = Held::open(&folder)?;
        let lock = lock_folder(&held)?;
        let tables = Tables::open(&folder)?;
        // LMDB flushes its file, not the name; whoever made it may have been killed before this.
        held.sync().context(format!("flushing the folder {}", folder.display()))?;
        // The index was opened at the path, everything else in the folder that is held.
        if !held.is_still_there().context(format!("looking at {}", folder.display()))? {
            return Err(Error::unavailable(format!("{} was unmounted just now", folder.display())));
        }
        let shared = Arc::new(Shared {
            tables,
            folder: held,
            trouble: Mutex::default(),
            overlay: RwLock::default(),
            open: Mutex::default(),
            recent: Mutex::new(Recent::new(config.grace)),
            bytes: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            _lock: lock,
            config,
        });
        let writer = Writer::recover(shared.clone())?;
        let (ops, queue) = async_channel::bounded(QUEUE);
        let thread =
            std::thread::Builder::new().name("pinfold-blocks".into()).spawn(move || writer.run(&queue));
        let thread = thread.context("starting the block writer")?;
        Ok(BlockStore { shared, writer: Arc::new(Handle { ops, thread: Mutex::new(Some(thread)) }) })
    }

    /// The tables, for the pins.
    pub(crate) fn tables(&self) -> &Tables {
        &self.shared.tables
    }

    /// Stores blocks whose hashes the caller has checked. All or none of them.
    ///
    /// # Errors
    /// [`crate::Kind::TooLarge`] for an oversized block, [`crate::Kind::Full`] at a limit, [`crate::Kind::Io`].
    pub async fn put(&self, blocks: Vec<(Cid, Bytes)>, durability: Durability) -> Result<()> {
        let mut records = Vec::with_capacity(blocks.len());
        for (cid, data) in blocks {
            if data.len() > MAX_BLOCK {
                return Err(Error::too_large(format!(
                    "block {cid} has {} bytes: more than {MAX_BLOCK} cannot travel between IPFS nodes",
                    data.len()
                )));
            }
            if hash::inline_content(&cid).is_none() {
                records.push((*cid.hash(), data));
            }
        }
        self.ask(|reply| Op::Put { blocks: records, durability, walk: 0, reply }).await
    }

    /// As [`BlockStore::put`] without waiting for the disk, on behalf of a running pin.
    pub(crate) async fn put_for(&self, walk: WalkId, blocks: Vec<(Hash, Bytes)>) -> Result<()> {
        self.ask(|reply| Op::Put { blocks, durability: Durability::Written, walk, reply }).await
    }

    /// Makes everything put so far durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn sync(&self) -> Result<()> {
        self.ask(|reply| Op::Put { blocks: Vec::new(), durability: Durability::Flushed, walk: 0, reply })
            .await
    }

    async fn ask<T>(&self, op: impl FnOnce(writer::Reply<T>) -> Op) -> Result<T> {
        let closed = || Error::unavailable("the block store is closed");
        let (sender, receiver) = futures::channel::oneshot::channel();
        self.writer.ops.send(op(sender)).await.map_err(|_| closed())?;
        receiver.await.map_err(|_| closed())?
    }

    /// One block, its hash checked.
    ///
    /// # Errors
    /// [`crate::Kind::Corrupt`] when the disk gave back other bytes; the block is then forgotten, so that it can be put
    /// or fetched again.
    pub fn get(&self, cid: &Cid) -> Result<Option<Bytes>> {
        if let Some(content) = hash::inline_content(cid) {
            return Ok(Some(Bytes::copy_from_slice(content)));
        }
        let Some((at, data)) = self.shared.read(cid.hash())? else { return Ok(None) };
        if hash::matches(cid.hash(), &data).map_err(|e| e.context(cid))? {
            return Ok(Some(data));
        }
        log::error!(
            "block {cid} is damaged on disk (segment {}, offset {}): forgotten",
            at.segment,
            at.offset
        );
        // Best effort: when the queue is full the next reader does it.
        let _ = self.writer.ops.try_send(Op::Forget { hash: *cid.hash(), at });
        Err(Error::corrupt(format!("block {cid} is damaged on disk: pin it again to fetch it anew")))
    }

    /// Length of a block without reading it.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn size(&self, cid: &Cid) -> Result<Option<u64>> {
        if let Some(content) = hash::inline_content(cid) {
            return Ok(Some(content.len() as u64));
        }
        Ok(self.shared.find(cid.hash())?.map(|at| u64::from(at.len)))
    }

    /// What is stored.
    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.shared.bytes.load(Ordering::Relaxed) + self.shared.tables.size(),
            blocks: self.shared.blocks.load(Ordering::Relaxed),
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.shared.config.folder
    }

    /// Whether the path of the folder still leads to the store, and not to what its disk was mounted over.
    ///
    /// # Errors
    /// What the system says of the path.
    pub fn is_still_there(&self) -> std::io::Result<bool> {
        self.shared.folder.is_still_there()
    }

    /// Number of the device that the store lies on.
    pub fn device(&self) -> u64 {
        self.shared.folder.device()
    }

    /// Why the disk refused a write, other than for want of room. Only opening the store again tells what is on it.
    pub fn trouble(&self) -> Option<Error> {
        self.shared.trouble.lock().clone()
    }

    /// The hard limit.
    pub fn storage_max(&self) -> u64 {
        self.shared.config.storage_max
    }

    /// Writes the index and stops the writer. Later puts fail; reads still work.
    pub async fn close(&self) {
        let _ = self.ask(|reply| Op::Commit { reply }).await;
        self.writer.ops.close();
        let thread = self.writer.thread.lock().take();
        if let Some(thread) = thread {
            let _ = crate::runtime::unblock(move || thread.join()).await;
        }
    }

    // What follows is for pins and the collection.

    /// A pin begins; every block it comes across is to be reported by [`BlockStore::touch`].
    pub(crate) fn begin_walk(&self) -> WalkId {
        self.shared.recent.lock().begin_walk()
    }

    /// A pin came across a block: it stays, whoever collects.
    pub(crate) fn touch(&self, walk: WalkId, hash: &Hash) {
        self.shared.recent.lock().touch(hash, walk);
    }

    /// A pin ended; `pinned` when it is durable.
    pub(crate) fn end_walk(&self, walk: WalkId, pinned: bool) {
        self.shared.recent.lock().end_walk(walk, pinned);
    }

    /// A collection begins: what is put from now on stays.
    ///
    /// # Errors
    /// [`crate::Kind::Unavailable`] when more was put lately than can be told from garbage.
    pub(crate) fn begin_collection(&self) -> Result<()> {
        self.shared.recent.lock().begin_collection()
    }

    /// A collection ended.
    pub(crate) fn end_collection(&self) {
        self.shared.recent.lock().end_collection();
    }

    /// Writes the index.
    pub(crate) async fn commit(&self) -> Result<()> {
        self.ask(|reply| Op::Commit { reply }).await
    }

    /// Hashes in the index after `after`, in key order, at most `limit`.
    pub(crate) fn hashes(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Hash>> {
        let txn = self.shared.tables.read()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.shared.tables.blocks.range(&txn, &(from, Bound::Unbounded));
        let mut out = Vec::with_capacity(limit);
        for row in rows.map_err(lmdb("reading the block index"))?.take(limit) {
            let (key, _) = row.map_err(lmdb("reading the block index"))?;
            out.push(Hash::from_bytes(key).map_err(|_| Error::corrupt("a damaged key in the block index"))?);
        }
        Ok(out)
    }

    /// Forgets those of these blocks that nothing protects; returns them. The index must have been written.
    pub(crate) async fn remove(&self, hashes: Vec<Hash>) -> Result<Vec<Hash>> {
        self.ask(|reply| Op::Remove { hashes, grace: true, reply }).await
    }

    /// The same, but what was merely put lately goes too: for whoever asks for the removal of these very blocks.
    pub(crate) async fn remove_at_once(&self, hashes: Vec<Hash>) -> Result<Vec<Hash>> {
        self.ask(|reply| Op::Remove { hashes, grace: false, reply }).await
    }
}

impl BlockSource for BlockStore {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>> {
        BlockStore::get(self, cid)
    }

    fn size(&self, cid: &Cid) -> Result<Option<u64>> {
        BlockStore::size(self, cid)
    }
}

/// Takes the folder for this process.
fn lock_folder(folder: &Held) -> Result<File> {
    let doing = format!("opening {}", folder.shown("lock").display());
    let file = folder.file("lock", OFlags::CREATE | OFlags::WRONLY).context(&doing)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::conflict(format!(
            "another process uses the block store in {}: stop it first",
            folder.path().display()
        ))),
        Err(e) => Err(Error::from_io(doing, &e.into())),
    }
}

impl Shared {
    /// Remembers that the disk refused a write; the lack of room is none of its faults.
    fn is_in_trouble(&self, error: &Error) {
        if error.kind() == crate::Kind::Io {
            self.trouble.lock().get_or_insert_with(|| error.clone());
        }
    }

    /// Where a block lies.
    fn find(&self, hash: &Hash) -> Result<Option<Location>> {
        // Overlay first: the writer removes an entry from it only after the index has it.
        if let Some(at) = self.overlay.read().get(hash) {
            return Ok(Some(*at));
        }
        let txn = self.tables.read()?;
        self.find_in(&txn, hash)
    }

    fn find_in(&self, txn: &heed::RoTxn<'_, heed::WithoutTls>, hash: &Hash) -> Result<Option<Location>> {
        let row = self.tables.blocks.get(txn, &hash.to_bytes()).map_err(lmdb("reading the block index"))?;
        row.map(Location::from_bytes).transpose()
    }

    fn read(&self, hash: &Hash) -> Result<Option<(Location, Bytes)>> {
        let mut last = None;
        for _ in 0..MOVES {
            let Some(at) = self.find(hash)? else { return Ok(None) };
            if at.len as usize > MAX_BLOCK {
                return Err(Error::corrupt("a damaged record in the block index"));
            }
            match self.segment(at.segment).and_then(|s| {
                let data = s.read(hash, at);
                data.context(format!("reading block file {}", at.segment))
            }) {
                Ok(data) => return Ok(Some((at, data))),
                // Compaction may just have moved the block and deleted the file.
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::io("a block moves about")))
    }

    /// A segment, opened if need be.
    fn segment(&self, number: u32) -> Result<Arc<Segment>> {
        if let Some(found) = self.open.lock().get(number) {
            return Ok(found);
        }
        let segment = Segment::open(&self.folder, number)?
            .ok_or_else(|| Error::corrupt(format!("block file {number} is empty")))?;
        let segment = Arc::new(segment);
        self.open.lock().add(segment.clone());
        Ok(segment)
    }
}

impl OpenSegments {
    fn get(&mut self, number: u32) -> Option<Arc<Segment>> {
        let i = self.0.iter().position(|s| s.number == number)?;
        self.0[..=i].rotate_right(1);
        Some(self.0[0].clone())
    }

    fn add(&mut self, segment: Arc<Segment>) {
        self.0.retain(|s| s.number != segment.number);
        self.0.truncate(OPEN_SEGMENTS - 1);
        self.0.insert(0, segment);
    }

    fn remove(&mut self, number: u32) {
        self.0.retain(|s| s.number != number);
    }
}
