//! The block store's files as `pinfold state check` sees them, without opening the store: nothing is cut, moved or written.

use super::held::Held;
use super::segment::{name_of, record_len, Location, Segment, FILE_HEADER};
use super::writer::{segment_of, Account, MARK};
use super::Hash;
use crate::error::{Context as _, Error, Result};
use crate::ipfs::embedded::pins::mode_of;
use crate::ipfs::unixfs::hash;
use crate::ipfs::unixfs::node::MAX_BLOCK;
use cid::Cid;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a block was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its record begins where the index says.
    There,
    /// And its bytes have their hash.
    Read,
}

/// What is gathered of an index.
pub struct Survey {
    folder: PathBuf,
    /// What the index says of each segment, and what its rows add up to.
    segments: BTreeMap<u32, (Option<Account>, u64, u64)>,
    blocks: u64,
    /// The segment that was read last: rows of one upload are neighbours.
    open: Option<Segment>,
}

impl Survey {
    /// Of the store in this folder.
    pub fn new(folder: &Path) -> Survey {
        Survey { folder: folder.to_path_buf(), segments: BTreeMap::new(), blocks: 0, open: None }
    }

    /// Takes a row of the index.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn row(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<()> {
        match table {
            "segments" => {
                self.segments.entry(segment_of(key)?).or_default().0 = Some(Account::from_bytes(value)?);
            }
            "blocks" => {
                let (hash, at) = block(key, value)?;
                let sums = self.segments.entry(at.segment).or_default();
                sums.1 += record_len(&hash, at.len as usize);
                sums.2 += 1;
                self.blocks += 1;
            }
            "pins" => {
                let cid =
                    Cid::try_from(key).map_err(|_| Error::corrupt("a damaged key in the table of pins"))?;
                if cid.encoded_len() != key.len() {
                    return Err(Error::corrupt("a damaged key in the table of pins"));
                }
                mode_of(key, value)?;
            }
            "meta" if key == MARK && value.len() != 12 => {
                return Err(Error::corrupt("the mark of the block index is damaged"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Blocks in the index.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Segments whose account is not what the rows add up to, each a clause.
    pub fn accounts(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (number, (account, bytes, blocks)) in &self.segments {
            match account {
                None => wrong.push(format!("block file {number} has {blocks} blocks and no account")),
                Some(told) if (told.bytes, told.blocks) != (*bytes, *blocks) => wrong.push(format!(
                    "block file {number} should have {} blocks of {} bytes, and has {blocks} of {bytes}",
                    told.blocks, told.bytes
                )),
                Some(_) => {}
            }
        }
        wrong
    }

    /// Looks whether a block is where its row says; reads it when `read`.
    ///
    /// # Errors
    /// When it is not, or its bytes are others.
    pub fn place(&mut self, key: &[u8], value: &[u8], read: bool) -> Result<Place> {
        let (hash, at) = block(key, value)?;
        let name = || Cid::new_v1(0x55, hash);
        if self.open.as_ref().is_none_or(|open| open.number != at.segment) {
            self.open = None;
            let folder = Held::open(&self.folder)?;
            if folder.size_of(&name_of(at.segment)).is_none() {
                return Err(Error::corrupt(format!(
                    "block {} should be in block file {}, which is not there",
                    name(),
                    at.segment
                )));
            }
            self.open = Segment::open(&folder, at.segment)?;
        }
        let Some(segment) = &self.open else {
            return Err(Error::corrupt(format!("block file {} has lost its header", at.segment)));
        };
        let end = segment.size()?;
        let head =
            segment.header_at(u64::from(at.offset), end).context(format!("block file {}", at.segment))?;
        if at.offset < FILE_HEADER || !head.is_some_and(|(found, place, _)| found == hash && place == at) {
            return Err(Error::corrupt(format!(
                "block {} does not begin at byte {} of block file {}, where the index says",
                name(),
                at.offset,
                at.segment
            )));
        }
        if !read {
            return Ok(Place::There);
        }
        let data = segment.read(&hash, at).context(format!("block {}", name()))?;
        if !hash::matches(&hash, &data)? {
            return Err(Error::corrupt(format!("block {} has other bytes than its hash says", name())));
        }
        Ok(Place::Read)
    }
}

fn block(key: &[u8], value: &[u8]) -> Result<(Hash, Location)> {
    let hash = Hash::from_bytes(key).map_err(|_| Error::corrupt("a damaged key in the block index"))?;
    if value.len() != 12 {
        return Err(Error::corrupt("a damaged record in the block index"));
    }
    let at = Location::from_bytes(value)?;
    if at.len as usize > MAX_BLOCK {
        return Err(Error::corrupt("a damaged record in the block index"));
    }
    Ok((hash, at))
}
