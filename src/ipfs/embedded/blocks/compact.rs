//! Giving space back: what lives in a mostly dead segment is copied to the end of the log, then the file goes.
//!
//! Reading and choosing happens beside the writer; the writer appends a few MiB at a time, only blocks that are still
//! where they were, so that puts wait for milliseconds. The order on disk is: copies flushed, index pointing to them,
//! segment forgotten in the index, file deleted. Whenever the power goes, every block is whole in one place at least.

use super::env::lmdb;
use super::segment::{self, Location};
use super::writer::{segment_of, Account, Op};
use super::{BlockStore, Hash, Shared};
use crate::error::{Context, Result};
use bytes::Bytes;

/// Bytes that are copied at once: writers wait no longer than that takes.
const MOVE_BYTES: usize = 4 << 20;

impl BlockStore {
    /// Gives back the space of dead blocks: copies what lives out of segments that are mostly dead and deletes them.
    pub(crate) async fn compact(&self) -> Result<()> {
        self.ask(|reply| Op::Roll { reply }).await?;
        let (store, usage) = (self.clone(), self.usage());
        let tight = usage.bytes > self.storage_max() / 4 * 3;
        let victims = crate::runtime::unblock(move || store.shared.victims(tight)).await?;
        for (number, alive) in victims {
            let mut next = alive.then_some(u64::from(segment::FILE_HEADER));
            while let Some(from) = next {
                let store = self.clone();
                let (blocks, after) =
                    crate::runtime::unblock(move || store.shared.living(number, from)).await?;
                if !blocks.is_empty() {
                    self.ask(|reply| Op::Move { blocks, reply }).await?;
                }
                next = after;
            }
            self.ask(|reply| Op::Drop { segment: number, reply }).await?;
        }
        Ok(())
    }
}

impl Shared {
    /// Segments worth copying, and whether anything in them is alive. When space is tight, less waste is enough.
    fn victims(&self, tight: bool) -> Result<Vec<(u32, bool)>> {
        let txn = self.tables.read()?;
        let mut victims = Vec::new();
        for row in self.tables.segments.iter(&txn).map_err(lmdb("reading the segments"))? {
            let (key, value) = row.map_err(lmdb("reading the segments"))?;
            let (number, account) = (segment_of(key)?, Account::from_bytes(value)?);
            let size = self.folder.size_of(&segment::name_of(number)).unwrap_or(0);
            let dead = size.saturating_sub(account.bytes + u64::from(segment::FILE_HEADER));
            if account.blocks == 0 || dead >= size / 2 || tight && dead >= size / 10 {
                victims.push((number, account.blocks > 0));
            }
        }
        // What is wholly dead goes first: it makes room for the copies.
        victims.sort_unstable_by_key(|(number, alive)| (*alive, *number));
        Ok(victims)
    }

    /// Living blocks of a segment from an offset on, a few MiB of them, and where to go on.
    fn living(&self, number: u32, mut from: u64) -> Result<(Vec<(Hash, Location, Bytes)>, Option<u64>)> {
        let doing = || format!("reading block file {number}");
        let segment = self.segment(number)?;
        let end = segment.size()?;
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        while bytes < MOVE_BYTES {
            let Some((hash, at, next)) = segment.header_at(from, end).context(doing())? else {
                // Damage inside: the scan finds the next whole record.
                let mut found = Vec::new();
                segment.scan(from, |hash, at| found.push((hash, at)))?;
                for (hash, at) in found {
                    if self.find(&hash)? == Some(at) {
                        blocks.push((hash, at, segment.read(&hash, at).context(doing())?));
                    }
                }
                return Ok((blocks, None));
            };
            if self.find(&hash)? == Some(at) {
                let data = segment.read(&hash, at).context(doing())?;
                bytes += data.len();
                blocks.push((hash, at, data));
            }
            from = next;
        }
        Ok((blocks, Some(from)))
    }
}
