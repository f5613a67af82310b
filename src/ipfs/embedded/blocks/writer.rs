//! The one thread that writes: groups what waits, appends, flushes once, keeps index and accounts in step.
//!
//! The index is written lazily (every [`INDEX_BLOCKS`] blocks, [`INDEX_BYTES`] bytes, or when nothing happens for
//! [`IDLE`]) in one transaction with the *mark*: the end of what it covers. The order is always segment flush, then
//! index, so that the index never names bytes that a power cut could take.

use super::env::lmdb;
use super::segment::{name_of, record_len, Location, Segment, FILE_HEADER};
use super::{Durability, Hash, Shared, WalkId};
use crate::error::{Context, Error, Result};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// Blocks that the index may lag behind: they are held in memory until then.
const INDEX_BLOCKS: usize = 8_192;
/// Bytes that the index may lag behind: they are read again after a crash, within a second on the slowest board.
const INDEX_BYTES: u64 = 64 << 20;
/// Bytes that an entry may take in the index; counted against the limit before it is written.
const INDEX_ENTRY: u64 = 128;
/// After this much silence the index is written, once; an idle store writes nothing.
const IDLE: Duration = Duration::from_secs(1);
/// The longest pause between attempts to write the index while the disk refuses.
const MAX_PAUSE: Duration = Duration::from_secs(64);
/// Most bytes that one flush is made to wait for.
const GROUP_BYTES: usize = 32 << 20;
/// When the index cannot be written (a full disk), this many unwritten entries are the end of patience.
const MAX_OVERLAY: usize = 4 * INDEX_BLOCKS;

/// Where an answer goes.
pub(super) type Reply<T> = futures::channel::oneshot::Sender<Result<T>>;

/// What the writer can be asked to do.
pub(super) enum Op {
    /// Store blocks; none and `Flushed` is a flush.
    Put { blocks: Vec<(Hash, Bytes)>, durability: Durability, walk: WalkId, reply: Reply<()> },
    /// Write the index.
    Commit { reply: Reply<()> },
    /// Forget what nothing protects; `grace`: a block's age protects it too.
    Remove { hashes: Vec<Hash>, grace: bool, reply: Reply<Vec<Hash>> },
    /// Forget a damaged block.
    Forget { hash: Hash, at: Location },
    /// Begin a new segment, so that the present one can be compacted.
    Roll { reply: Reply<()> },
    /// Copy blocks that are still where they were.
    Move { blocks: Vec<(Hash, Location, Bytes)>, reply: Reply<()> },
    /// Delete a segment in which nothing lives.
    Drop { segment: u32, reply: Reply<()> },
}

/// What is alive in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Bytes of living records.
    pub(super) bytes: u64,
    /// Living blocks.
    pub(super) blocks: u64,
}

impl Account {
    fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.bytes.to_le_bytes());
        out[8..].copy_from_slice(&self.blocks.to_le_bytes());
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
            bytes.map(u64::from_le_bytes).ok_or_else(|| Error::corrupt("a damaged segment account"))
        };
        Ok(Account { bytes: word(0)?, blocks: word(8)? })
    }
}

/// Key of a segment in its table.
pub(super) fn segment_of(key: &[u8]) -> Result<u32> {
    let bytes = key.try_into().map_err(|_| Error::corrupt("a damaged segment key"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Name of the mark in the table of small records: segment (u32) and offset (u64), both little-endian.
pub(super) const MARK: &[u8] = b"mark";

pub(super) struct Writer {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    /// End of what was appended to the segment.
    end: u64,
    /// End of what is known to be on the disk.
    flushed: u64,
    /// Bytes appended since the index was written.
    unindexed: u64,
    /// Accounts of segments that changed since.
    accounts: BTreeMap<u32, Account>,
    /// How long silence must last before the index is written; longer after failures.
    pause: Duration,
    /// Why nothing may be written any more.
    failed: Option<Error>,
}

impl Writer {
    /// A writer that goes on at `end` of a segment; nothing in it is taken to be flushed yet.
    pub(super) fn new(shared: Arc<Shared>, segment: Arc<Segment>, end: u64) -> Writer {
        let (accounts, pause) = (BTreeMap::new(), IDLE);
        Writer { shared, segment, end, flushed: 0, unindexed: 0, accounts, pause, failed: None }
    }

    /// Works until the queue is closed.
    pub(super) fn run(mut self, queue: &async_channel::Receiver<Op>) {
        let mut group: Vec<(Durability, Reply<()>)> = Vec::new();
        loop {
            let next = if self.idle() {
                queue.recv_blocking().ok()
            } else {
                match wait(queue, self.pause) {
                    Wait::Op(op) => Some(op),
                    Wait::Silence => {
                        self.commit_quietly();
                        continue;
                    }
                    Wait::Closed => None,
                }
            };
            let Some(mut op) = next else { break };
            let mut bytes = 0;
            // All puts that wait share one flush.
            loop {
                match op {
                    Op::Put { blocks, durability, walk, reply } => {
                        bytes += blocks.iter().map(|(_, data)| data.len()).sum::<usize>();
                        match self.append(&blocks, walk) {
                            Ok(()) if durability == Durability::Written => drop(reply.send(Ok(()))),
                            Ok(()) => group.push((durability, reply)),
                            Err(error) => drop(reply.send(Err(error))),
                        }
                    }
                    other => {
                        self.finish(&mut group);
                        self.other(other);
                        break;
                    }
                }
                match queue.try_recv() {
                    Ok(next) if bytes < GROUP_BYTES => op = next,
                    Ok(next) => {
                        self.finish(&mut group);
                        bytes = 0;
                        op = next;
                    }
                    Err(_) => break,
                }
            }
            self.finish(&mut group);
            if self.unindexed >= INDEX_BYTES || self.overlay_len() >= INDEX_BLOCKS {
                self.commit_quietly();
            }
        }
        self.commit_quietly();
    }

    /// Flushes and answers all who wait for it.
    fn finish(&mut self, group: &mut Vec<(Durability, Reply<()>)>) {
        if group.is_empty() {
            return;
        }
        let result = self.flush();
        for (_, reply) in group.drain(..) {
            let _ = reply.send(result.clone());
        }
    }

    fn other(&mut self, op: Op) {
        match op {
            Op::Put { reply, .. } => drop(reply.send(Err(Error::internal("a put outside of its group")))),
            Op::Commit { reply } => drop(reply.send(self.commit())),
            Op::Remove { hashes, grace, reply } => drop(reply.send(self.remove(hashes, grace))),
            Op::Forget { hash, at } => {
                if let Err(error) = self.forget(&hash, at) {
                    log::error!("forgetting a damaged block: {error}");
                }
            }
            Op::Roll { reply } => drop(reply.send(self.roll_if_worth())),
            Op::Move { blocks, reply } => drop(reply.send(self.relocate(blocks))),
            Op::Drop { segment, reply } => drop(reply.send(self.drop_segment(segment))),
        }
    }

    fn idle(&self) -> bool {
        self.failed.is_some()
            || (self.accounts.is_empty() && self.overlay_len() == 0 && self.flushed == self.end)
    }

    fn overlay_len(&self) -> usize {
        self.shared.overlay.read().len()
    }

    fn usable(&self) -> Result<()> {
        match &self.failed {
            Some(error) => {
                Err(error.clone().context("the block store stopped writing; restart after mending the disk"))
            }
            None => Ok(()),
        }
    }

    /// Appends what is not there yet: all blocks or none.
    fn append(&mut self, blocks: &[(Hash, Bytes)], walk: WalkId) -> Result<()> {
        self.usable()?;
        let mut fresh: Vec<(Hash, Bytes)> = Vec::with_capacity(blocks.len());
        let mut seen = HashSet::new();
        {
            // Touched before it is looked for: a collection either keeps it or has removed it already.
            let mut recent = self.shared.recent.lock();
            blocks.iter().for_each(|(hash, _)| recent.touch(hash, walk));
        }
        for (hash, data) in blocks {
            if self.shared.find(hash)?.is_none() && seen.insert(*hash) {
                fresh.push((*hash, data.clone()));
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let needed: u64 = fresh.iter().map(|(hash, data)| record_len(hash, data.len())).sum();
        let index = (self.overlay_len() + fresh.len()) as u64 * INDEX_ENTRY;
        let used = self.shared.bytes.load(Ordering::Relaxed) + self.shared.tables.size();
        let max = self.shared.config.storage_max;
        if used.saturating_add(needed + index) > max {
            return Err(Error::full(format!(
                "the IPFS store is full: {used} of {max} bytes (storage_max) are used and {needed} more were to be \
                 stored; unpin something and collect garbage, or raise storage_max"
            )));
        }
        self.check_room(needed)?;
        if self.overlay_len() >= MAX_OVERLAY {
            // Only when the index could not be written for a while: it must work now.
            self.commit()?;
        }
        let before = (self.segment.number, self.end);
        match self.append_all(&fresh) {
            Ok(locations) => {
                for ((hash, _), at) in fresh.into_iter().zip(locations) {
                    self.enter(hash, at)?;
                }
                Ok(())
            }
            Err(error) => {
                // Nothing half-done: what was written of this put is cut off. Whole records that stayed in an earlier
                // segment are dead weight until the segment is compacted.
                self.shared.is_in_trouble(&error);
                let to = if self.segment.number == before.0 { before.1 } else { u64::from(FILE_HEADER) };
                self.shared.bytes.fetch_sub(self.end.saturating_sub(to), Ordering::Relaxed);
                self.end = to;
                if let Err(cut) = self.segment.truncate(to) {
                    return Err(self.fail(Error::from_io("cutting a half-written block", &cut)));
                }
                Err(error)
            }
        }
    }

    /// The file system must keep its reserve.
    fn check_room(&self, needed: u64) -> Result<()> {
        let folder = self.shared.folder.path();
        let Ok(stat) = self.shared.folder.statvfs() else { return Ok(()) };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let reserve = self.shared.config.reserve;
        if free < reserve.saturating_add(needed) {
            return Err(Error::full(format!(
                "the disk of {} has only {free} bytes free, of which {reserve} are kept in reserve: free some space",
                folder.display()
            )));
        }
        Ok(())
    }

    fn append_all(&mut self, blocks: &[(Hash, Bytes)]) -> Result<Vec<Location>> {
        let mut locations = Vec::with_capacity(blocks.len());
        let mut rest = blocks;
        while !rest.is_empty() {
            let mut end = self.end;
            let fits = rest.iter().take_while(|(hash, data)| {
                end += record_len(hash, data.len());
                end <= self.shared.config.segment_size
            });
            let mut n = fits.count();
            if n == 0 {
                if self.end > u64::from(FILE_HEADER) {
                    self.roll()?;
                    continue;
                }
                n = 1;
            }
            let (now, later) = rest.split_at(n);
            let written = self.segment.append(self.end, now);
            locations.extend(written.context(format!("writing to {}", self.shared.config.folder.display()))?);
            let length: u64 = now.iter().map(|(hash, data)| record_len(hash, data.len())).sum();
            self.end += length;
            self.unindexed += length;
            self.shared.bytes.fetch_add(length, Ordering::Relaxed);
            rest = later;
        }
        Ok(locations)
    }

    /// Begins a new segment; the old one is flushed first.
    fn roll(&mut self) -> Result<()> {
        self.flush()?;
        let next = Segment::create(&self.shared.folder, self.segment.number + 1)?;
        self.segment = Arc::new(next);
        self.shared.open.lock().add(self.segment.clone());
        self.end = u64::from(FILE_HEADER);
        self.flushed = self.end;
        self.shared.bytes.fetch_add(self.end, Ordering::Relaxed);
        self.account(self.segment.number)?;
        Ok(())
    }

    /// Begins a new segment when the present one holds a good part of dead blocks.
    fn roll_if_worth(&mut self) -> Result<()> {
        self.usable()?;
        self.commit()?;
        let alive = *self.account(self.segment.number)?;
        self.accounts.clear();
        if self.end > u64::from(FILE_HEADER) && alive.bytes <= (self.end - u64::from(FILE_HEADER)) / 2 {
            self.roll()?;
            self.commit()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.usable()?;
        if self.flushed != self.end {
            if let Err(error) = self.segment.sync() {
                // Linux may have dropped the pages: only reading everything again can tell what is there.
                return Err(self.fail(Error::from_io("flushing blocks to disk", &error)));
            }
            self.flushed = self.end;
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) -> Error {
        log::error!("{error}: the block store refuses all further writes");
        self.shared.is_in_trouble(&error);
        self.failed = Some(error.clone());
        error
    }

    /// The account of a segment, to be changed and committed.
    pub(super) fn account(&mut self, number: u32) -> Result<&mut Account> {
        if !self.accounts.contains_key(&number) {
            let txn = self.shared.tables.read()?;
            let row = self.shared.tables.segments.get(&txn, &number.to_be_bytes());
            let account = row.map_err(lmdb("reading the segments"))?.map(Account::from_bytes).transpose()?;
            self.accounts.insert(number, account.unwrap_or_default());
        }
        Ok(self.accounts.entry(number).or_default())
    }

    fn credit(&mut self, hash: &Hash, at: Location) -> Result<()> {
        let account = self.account(at.segment)?;
        account.bytes += record_len(hash, at.len as usize);
        account.blocks += 1;
        Ok(())
    }

    fn debit(&mut self, hash: &Hash, at: Location) -> Result<()> {
        let account = self.account(at.segment)?;
        account.bytes = account.bytes.saturating_sub(record_len(hash, at.len as usize));
        account.blocks = account.blocks.saturating_sub(1);
        Ok(())
    }

    /// A block can now be read at a place; what was known of it before is superseded.
    pub(super) fn enter(&mut self, hash: Hash, at: Location) -> Result<()> {
        let before = self.shared.find(&hash)?;
        if before == Some(at) {
            return Ok(());
        }
        self.credit(&hash, at)?;
        match before {
            Some(old) => self.debit(&hash, old)?,
            None => {
                self.shared.blocks.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.shared.overlay.write().insert(hash, at);
        Ok(())
    }

    fn commit_quietly(&mut self) {
        if self.failed.is_some() {
            return;
        }
        match self.commit() {
            Ok(()) => self.pause = IDLE,
            Err(error) => {
                // The segments are what survives a crash meanwhile; the log is not to be filled with this.
                self.pause = (self.pause * 2).min(MAX_PAUSE);
                self.unindexed = 0;
                self.shared.is_in_trouble(&error);
                log::error!("writing the block index: {error}; trying again in {:?}", self.pause);
            }
        }
    }

    /// Writes the overlay, the accounts and the mark, durably.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.flush()?;
        let overlay: Vec<(Hash, Location)> = {
            let overlay = self.shared.overlay.read();
            overlay.iter().map(|(hash, at)| (*hash, *at)).collect()
        };
        if overlay.is_empty() && self.accounts.is_empty() {
            return Ok(());
        }
        self.write_index(&overlay, &[], None)?;
        let mut live = self.shared.overlay.write();
        live.clear();
        live.shrink_to(INDEX_BLOCKS);
        Ok(())
    }

    /// One durable transaction of the index.
    fn write_index(&mut self, put: &[(Hash, Location)], remove: &[Hash], dropped: Option<u32>) -> Result<()> {
        let error = lmdb("writing the block index");
        let tables = &self.shared.tables;
        let mut rows: Vec<(Vec<u8>, Location)> =
            put.iter().map(|(hash, at)| (hash.to_bytes(), *at)).collect();
        // In key order LMDB touches each page once.
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut txn = tables.write()?;
        for (key, at) in &rows {
            tables.blocks.put(&mut txn, key, &at.to_bytes()).map_err(&error)?;
        }
        for hash in remove {
            tables.blocks.delete(&mut txn, &hash.to_bytes()).map_err(&error)?;
        }
        for (number, account) in &self.accounts {
            tables.segments.put(&mut txn, &number.to_be_bytes(), &account.to_bytes()).map_err(&error)?;
        }
        if let Some(number) = dropped {
            tables.segments.delete(&mut txn, &number.to_be_bytes()).map_err(&error)?;
        }
        let mut mark = self.segment.number.to_le_bytes().to_vec();
        mark.extend_from_slice(&self.end.to_le_bytes());
        tables.meta.put(&mut txn, MARK, &mark).map_err(&error)?;
        txn.commit().map_err(&error)?;
        self.accounts.clear();
        self.unindexed = 0;
        Ok(())
    }

    fn remove(&mut self, hashes: Vec<Hash>, grace: bool) -> Result<Vec<Hash>> {
        self.usable()?;
        // The mark moves past every record first: what is removed must not come back when the tail is read again.
        self.commit()?;
        let shared = self.shared.clone();
        // Held until the index is written: a pin that touches a block must then either find it gone or keep it.
        let recent = shared.recent.lock();
        let mut gone = Vec::with_capacity(hashes.len());
        for hash in hashes {
            if recent.protects(&hash, grace) {
                continue;
            }
            if let Some(at) = self.shared.find(&hash)? {
                self.debit(&hash, at)?;
                gone.push(hash);
            }
        }
        if let Err(error) = self.write_index(&[], &gone, None) {
            self.accounts.clear();
            return Err(error);
        }
        self.shared.blocks.fetch_sub(gone.len() as u64, Ordering::Relaxed);
        Ok(gone)
    }

    fn forget(&mut self, hash: &Hash, at: Location) -> Result<()> {
        self.usable()?;
        self.commit()?;
        if self.shared.find(hash)? != Some(at) {
            return Ok(());
        }
        self.debit(hash, at)?;
        self.write_index(&[], &[*hash], None)?;
        self.shared.blocks.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// Copies blocks to the end of the log, those that are still where they were.
    fn relocate(&mut self, blocks: Vec<(Hash, Location, Bytes)>) -> Result<()> {
        self.usable()?;
        let mut still = Vec::with_capacity(blocks.len());
        for (hash, at, data) in blocks {
            if self.shared.find(&hash)? == Some(at) {
                still.push((hash, data));
            }
        }
        self.check_room(still.iter().map(|(hash, data)| record_len(hash, data.len())).sum())?;
        let locations = self.append_all(&still)?;
        for ((hash, _), at) in still.into_iter().zip(locations) {
            self.enter(hash, at)?;
        }
        Ok(())
    }

    /// Deletes a segment: first from the index, durably, then its file.
    fn drop_segment(&mut self, number: u32) -> Result<()> {
        self.usable()?;
        self.commit()?;
        let account = *self.account(number)?;
        self.accounts.clear();
        if number == self.segment.number || account.blocks > 0 {
            return Ok(());
        }
        self.write_index(&[], &[], Some(number))?;
        self.shared.open.lock().remove(number);
        let (folder, name) = (&self.shared.folder, name_of(number));
        let size = folder.size_of(&name).unwrap_or(0);
        folder.remove(&name).context(format!("removing {}", folder.shown(&name).display()))?;
        self.shared.bytes.fetch_sub(size, Ordering::Relaxed);
        Ok(())
    }
}

enum Wait {
    Op(Op),
    Silence,
    Closed,
}

/// The next request, or a pause without one.
fn wait(queue: &async_channel::Receiver<Op>, pause: Duration) -> Wait {
    smol::block_on(smol::future::or(async { queue.recv().await.map_or(Wait::Closed, Wait::Op) }, async {
        crate::runtime::sleep(pause).await;
        Wait::Silence
    }))
}
