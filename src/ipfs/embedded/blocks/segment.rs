//! Segment files: blocks one after the other, only ever appended to.
//!
//! ```text
//! file    magic (8) | mark (8) | record | record | …
//! record  mark (8) | data length (4) | hash length (1) | zeros (3) | multihash | data | zeros to a multiple of 8
//! ```
//!
//! There is no separate checksum: a record is whole when its data has the hash that it names. The *mark* is random and
//! the segment's own, so that nobody can craft a block that looks like a record: after damage the scan finds the next
//! real record by its mark. All numbers are little-endian.

use super::held::Held;
use crate::error::{Context, Error, Result};
use crate::ipfs::unixfs::hash;
use crate::ipfs::unixfs::node::MAX_BLOCK;
use bytes::Bytes;
use multihash::Multihash;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

/// Names a segment file of this version.
const MAGIC: &[u8; 8] = b"pinfold1";
/// Bytes of a segment's own header; the first record follows.
pub(super) const FILE_HEADER: u32 = 16;
/// Bytes in front of a record's multihash.
const RECORD_HEADER: usize = 16;
/// Longest multihash in binary: two varints and 64 bytes.
const MAX_HASH: usize = 84;
/// Records are gathered into one write up to this many bytes; a larger block's data goes from its own memory.
const GATHER: usize = 256 * 1024;

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location {
    /// The segment's number.
    pub(super) segment: u32,
    /// Where its record begins.
    pub(super) offset: u32,
    /// Length of its data.
    pub(super) len: u32,
}

impl Location {
    /// For the index.
    pub(super) fn to_bytes(self) -> [u8; 12] {
        let mut out = [0; 12];
        out[..4].copy_from_slice(&self.segment.to_le_bytes());
        out[4..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..].copy_from_slice(&self.len.to_le_bytes());
        out
    }

    /// From the index.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map(u32::from_le_bytes).ok_or_else(|| Error::corrupt("a damaged record in the block index"))
        };
        Ok(Location { segment: word(0)?, offset: word(4)?, len: word(8)? })
    }
}

/// Bytes that a block's record takes.
pub(super) fn record_len(hash: &Multihash<64>, data: usize) -> u64 {
    (RECORD_HEADER + hash_len(hash) + data).next_multiple_of(8) as u64
}

fn hash_len(hash: &Multihash<64>) -> usize {
    hash::varint_len(hash.code()) + 1 + hash.digest().len()
}

/// The name of a segment's file.
pub(super) fn name_of(segment: u32) -> String {
    format!("{segment:08}.blocks")
}

/// One open segment.
pub(super) struct Segment {
    pub(super) number: u32,
    file: File,
    mark: [u8; 8],
}

impl Segment {
    /// Makes a new segment, durable in its folder when this returns.
    pub(super) fn create(folder: &Held, number: u32) -> Result<Segment> {
        let name = name_of(number);
        let doing = || format!("making the block file {}", folder.shown(&name).display());
        let mut mark = [0; 8];
        getrandom::fill(&mut mark).map_err(|e| Error::io(format!("no random numbers: {e}")))?;
        // A mark of zeros would be found in every hole.
        mark[0] |= 1;
        let file = folder.file(&name, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC).context(doing())?;
        file.write_all_at(&[*MAGIC, mark].concat(), 0).context(doing())?;
        file.sync_all().context(doing())?;
        folder.sync().context(doing())?;
        Ok(Segment { number, file, mark })
    }

    /// Opens a segment; `None` when its creation was cut short and it holds nothing.
    pub(super) fn open(folder: &Held, number: u32) -> Result<Option<Segment>> {
        let name = name_of(number);
        let path = folder.shown(&name);
        let file = folder.file(&name, OFlags::RDWR);
        let mut file = file.context(format!("opening the block file {}", path.display()))?;
        let mut header = [0; FILE_HEADER as usize];
        let mut filled = 0;
        while filled < header.len() {
            match file.read(&mut header[filled..]).context(format!("reading {}", path.display()))? {
                0 => return Ok(None),
                n => filled += n,
            }
        }
        // No longer than its header it holds no block, whatever a power cut has left in it.
        let nothing = file.metadata().is_ok_and(|meta| meta.len() <= u64::from(FILE_HEADER));
        if header == [0; FILE_HEADER as usize] || (&header[..8] != MAGIC && nothing) {
            return Ok(None);
        }
        if &header[..8] != MAGIC {
            return Err(Error::corrupt(format!(
                "{} is no block file of this version: move it away and start again",
                path.display()
            )));
        }
        let mut mark = [0; 8];
        mark.copy_from_slice(&header[8..]);
        Ok(Some(Segment { number, file, mark }))
    }

    /// Bytes in the file.
    pub(super) fn size(&self) -> Result<u64> {
        Ok(self.file.metadata().context(format!("block file {}", self.number))?.len())
    }

    /// Appends records at `offset`; returns where each lies. Not durable before [`Segment::sync`].
    pub(super) fn append(
        &self,
        mut offset: u64,
        blocks: &[(Multihash<64>, Bytes)],
    ) -> std::io::Result<Vec<Location>> {
        let mut locations = Vec::with_capacity(blocks.len());
        let mut gathered: Vec<u8> = Vec::with_capacity(GATHER.min(64 * blocks.len() + 4_096));
        let mut start = offset;
        for (hash, data) in blocks {
            // Both fit: a segment is below 4 GiB and a block below MAX_BLOCK, which the store checks.
            locations.push(Location { segment: self.number, offset: offset as u32, len: data.len() as u32 });
            gathered.extend_from_slice(&self.mark);
            gathered.extend_from_slice(&(data.len() as u32).to_le_bytes());
            gathered.extend_from_slice(&[hash_len(hash) as u8, 0, 0, 0]);
            gathered.extend_from_slice(&hash.to_bytes());
            if data.len() > GATHER / 4 {
                self.file.write_all_at(&gathered, start)?;
                start += gathered.len() as u64;
                gathered.clear();
                self.file.write_all_at(data, start)?;
                start += data.len() as u64;
            } else {
                gathered.extend_from_slice(data);
            }
            offset += record_len(hash, data.len());
            let padding = offset - start - gathered.len() as u64;
            gathered.resize(gathered.len() + padding as usize, 0);
            if gathered.len() > GATHER {
                self.file.write_all_at(&gathered, start)?;
                start += gathered.len() as u64;
                gathered.clear();
            }
        }
        self.file.write_all_at(&gathered, start)?;
        Ok(locations)
    }

    /// Makes everything appended durable.
    pub(super) fn sync(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }

    /// Writes a part again just as it reads. After a flush that failed the system shows bytes that are not on the disk,
    /// and no later flush would write them.
    pub(super) fn rewrite(&self, mut from: u64, to: u64) -> std::io::Result<()> {
        let mut buffer = vec![0; GATHER];
        while from < to {
            let n = (to - from).min(GATHER as u64) as usize;
            self.file.read_exact_at(&mut buffer[..n], from)?;
            self.file.write_all_at(&buffer[..n], from)?;
            from += n as u64;
        }
        Ok(())
    }

    /// Cuts the file; what follows `len` is gone.
    pub(super) fn truncate(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }

    /// The data at a location, unchecked.
    pub(super) fn read(&self, hash: &Multihash<64>, at: Location) -> std::io::Result<Bytes> {
        let mut data = vec![0; at.len as usize];
        let start = u64::from(at.offset) + (RECORD_HEADER + hash_len(hash)) as u64;
        self.file.read_exact_at(&mut data, start)?;
        Ok(data.into())
    }

    /// The record that begins at `offset`, when there is a whole header: its hash, location and end. The data is not
    /// looked at.
    pub(super) fn header_at(
        &self,
        offset: u64,
        end: u64,
    ) -> std::io::Result<Option<(Multihash<64>, Location, u64)>> {
        let mut head = [0; RECORD_HEADER + MAX_HASH];
        let have = (end.saturating_sub(offset)).min(head.len() as u64) as usize;
        if have < RECORD_HEADER {
            return Ok(None);
        }
        self.file.read_exact_at(&mut head[..have], offset)?;
        let len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let hash_bytes = head[12] as usize;
        if head[..8] != self.mark[..] || len as usize > MAX_BLOCK || RECORD_HEADER + hash_bytes > have {
            return Ok(None);
        }
        let Ok(hash) = Multihash::from_bytes(&head[RECORD_HEADER..RECORD_HEADER + hash_bytes]) else {
            return Ok(None);
        };
        let next = offset + record_len(&hash, len as usize);
        // The padding may be cut off: it carries nothing.
        if offset + (RECORD_HEADER + hash_bytes) as u64 + u64::from(len) > end {
            return Ok(None);
        }
        Ok(Some((hash, Location { segment: self.number, offset: offset as u32, len }, next)))
    }

    /// Every whole record from `offset` on, each with its hash checked; damage is skipped. Returns where the last
    /// whole record ends and how many bytes before that were skipped.
    pub(super) fn scan(
        &self,
        mut offset: u64,
        mut found: impl FnMut(Multihash<64>, Location),
    ) -> Result<(u64, u64)> {
        let doing = || format!("checking block file {}", self.number);
        let end = self.size()?;
        let (mut whole, mut skipped) = (offset, 0);
        while offset < end {
            if let Some((hash, at, next)) = self.header_at(offset, end).context(doing())? {
                let data = self.read(&hash, at).context(doing())?;
                if hash::matches(&hash, &data).unwrap_or(false) {
                    skipped += offset - whole;
                    found(hash, at);
                    (offset, whole) = (next, next);
                    continue;
                }
            }
            match self.find_mark(offset + 8, end).context(doing())? {
                Some(next) => offset = next,
                None => break,
            }
        }
        Ok((whole, skipped))
    }

    /// The next place where this segment's mark stands.
    fn find_mark(&self, from: u64, end: u64) -> std::io::Result<Option<u64>> {
        let mut buffer = vec![0; GATHER];
        let mut at = from.next_multiple_of(8);
        while at + 8 <= end {
            let n = (end - at).min(GATHER as u64) as usize / 8 * 8;
            self.file.read_exact_at(&mut buffer[..n], at)?;
            if let Some(i) = buffer[..n].chunks_exact(8).position(|word| word == &self.mark[..]) {
                return Ok(Some(at + 8 * i as u64));
            }
            at += n as u64;
        }
        Ok(None)
    }
}
