//! The walk over a DAG: what a recursive pin must hold, and what the garbage collection must leave alone.
//!
//! Depth first, so that what waits is a path and its siblings, not a level. Visited blocks are remembered as keyed
//! 64-bit fingerprints (eight bytes each instead of a hundred); the key is random, so that nobody can construct two
//! blocks that the walk takes for one.

use super::blocks::{BlockStore, Hash, WalkId};
use crate::error::{Error, Kind, Result};
use crate::ipfs::unixfs::hash::{inline_content, DAG_CBOR, DAG_JSON, DAG_PB};
use crate::ipfs::unixfs::{links_of, may_link};
use bytes::Bytes;
use cid::Cid;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Blocks visited in one step on a blocking thread, before progress is told and cancellation noticed.
const STEP: usize = 2_000;
/// Most links that may wait: several of the widest nodes that fit into a block, one below the other.
const MAX_WAITING: usize = 500_000;

/// A walk in progress.
pub(super) struct Walk {
    keys: RandomState,
    visited: HashSet<u64>,
    waiting: Vec<Cid>,
    reached: u64,
}

impl Walk {
    /// A walk that has not begun.
    pub(super) fn new() -> Self {
        Walk { keys: RandomState::new(), visited: HashSet::new(), waiting: Vec::new(), reached: 0 }
    }

    /// Adds a root.
    pub(super) fn begin(&mut self, root: Cid) {
        self.waiting.push(root);
    }

    /// Blocks that are here, so far.
    pub(super) fn reached(&self) -> u64 {
        self.reached
    }

    /// Whether something known is still to be visited.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What a block is remembered by. Codecs without links are one: their bytes are never read.
    fn fingerprint(&self, hash: &Hash, codec: Option<u64>) -> u64 {
        self.keys.hash_one((hash, codec))
    }

    /// Marks a block as visited without following it. Whether it was new.
    pub(super) fn mark(&mut self, cid: &Cid) -> bool {
        let codec = may_link(cid).then(|| cid.codec());
        let fingerprint = self.fingerprint(cid.hash(), codec);
        self.visited.insert(fingerprint)
    }

    /// Whether a block was visited, under whatever codec.
    pub(super) fn has_visited(&self, hash: &Hash) -> bool {
        [None, Some(DAG_PB), Some(DAG_CBOR), Some(DAG_JSON)]
            .into_iter()
            .any(|codec| self.visited.contains(&self.fingerprint(hash, codec)))
    }

    /// Visits what is stored, until `want` missing blocks are found or a step is over; returns the missing ones. On
    /// behalf of a pin (`id`), everything visited is protected from a collection first.
    pub(super) fn advance(
        &mut self,
        store: &BlockStore,
        id: Option<WalkId>,
        want: usize,
    ) -> Result<Vec<Cid>> {
        let mut missing = Vec::new();
        for _ in 0..STEP {
            if missing.len() >= want {
                break;
            }
            let Some(cid) = self.waiting.pop() else { break };
            if !self.mark(&cid) {
                continue;
            }
            if let Some(content) = inline_content(&cid) {
                self.follow(&cid, &Bytes::copy_from_slice(content))?;
                continue;
            }
            if let Some(id) = id {
                store.touch(id, cid.hash());
            }
            if !may_link(&cid) {
                match store.size(&cid)? {
                    Some(_) => self.reached += 1,
                    None => missing.push(cid),
                }
                continue;
            }
            match store.get(&cid) {
                Ok(Some(block)) => {
                    self.reached += 1;
                    self.follow(&cid, &block)?;
                }
                Ok(None) => missing.push(cid),
                // Noticed, forgotten by the store, and now to be fetched like any other.
                Err(error) if error.kind() == Kind::Corrupt => missing.push(cid),
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    /// A missing block has come (and is stored).
    pub(super) fn arrived(&mut self, cid: &Cid, block: &Bytes) -> Result<()> {
        self.reached += 1;
        self.follow(cid, block)
    }

    fn follow(&mut self, cid: &Cid, block: &Bytes) -> Result<()> {
        let links = links_of(cid, block).map_err(|error| match error.kind() {
            Kind::Corrupt => {
                error.context("the content is not what its CID says, which is wrong or of another codec")
            }
            _ => error,
        })?;
        if self.waiting.len() + links.len() > MAX_WAITING {
            return Err(Error::too_large(format!(
                "block {cid}: more than {MAX_WAITING} links wait to be followed: this DAG is too wide to pin"
            )));
        }
        self.waiting.extend(links.into_iter().rev());
        Ok(())
    }
}
