//! A DAG block by block, depth first, in the order of its links: what an export writes and a count counts.
//!
//! Each block once. The next few are fetched while one is looked at, which is what makes it fast over a network; how many
//! is limited over the whole walk, because a malicious DAG could otherwise make every level hold some.

use crate::error::{Error, Result};
use crate::ipfs::unixfs::{links_of, BlockGetter};
use crate::runtime;
use bytes::Bytes;
use cid::Cid;
use smol::Task;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Blocks fetched ahead, over the whole walk.
const AHEAD: usize = 16;
/// Most links that may wait: several of the widest nodes, one below the other.
const MAX_WAITING: usize = 500_000;
/// Most blocks of one walk; each visited one is remembered in eight bytes.
const MAX_VISITED: usize = 20_000_000;

struct Waiting {
    cid: Cid,
    fetch: Option<Task<Result<Bytes>>>,
}

/// Blocks that were visited, as keyed fingerprints: nobody can construct two that are taken for one.
#[derive(Default)]
pub(super) struct Visited {
    keys: RandomState,
    seen: HashSet<u64>,
}

impl Visited {
    /// Marks a CID; whether it was new.
    pub(super) fn insert(&mut self, cid: &Cid) -> Result<bool> {
        if self.seen.len() >= MAX_VISITED {
            return Err(Error::too_large(format!("the DAG has more than {MAX_VISITED} blocks")));
        }
        Ok(self.seen.insert(self.keys.hash_one(cid)))
    }

    fn contains(&self, cid: &Cid) -> bool {
        self.seen.contains(&self.keys.hash_one(cid))
    }
}

/// A walk under way.
pub(super) struct Walk {
    blocks: Arc<dyn BlockGetter>,
    waiting: Vec<Waiting>,
    visited: Visited,
    ahead: usize,
}

impl Walk {
    /// A walk from one root.
    pub(super) fn new(blocks: Arc<dyn BlockGetter>, root: Cid) -> Self {
        let waiting = vec![Waiting { cid: root, fetch: None }];
        Walk { blocks, waiting, visited: Visited::default(), ahead: 0 }
    }

    /// The next block; the error says which one it was.
    pub(super) async fn next(&mut self) -> Result<Option<(Cid, Bytes)>, (Cid, Error)> {
        while let Some(Waiting { cid, fetch }) = self.waiting.pop() {
            self.ahead -= usize::from(fetch.is_some());
            if !self.visited.insert(&cid).map_err(|e| (cid, e))? {
                continue;
            }
            self.fetch_ahead();
            let block = match fetch {
                Some(task) => task.await,
                None => self.blocks.get(&cid).await,
            };
            let block = block.map_err(|e| (cid, e))?;
            let links = links_of(&cid, &block).map_err(|e| (cid, e))?;
            if self.waiting.len() + links.len() > MAX_WAITING {
                let error = Error::too_large(format!("more than {MAX_WAITING} links wait to be followed"));
                return Err((cid, error));
            }
            self.waiting.extend(links.into_iter().rev().map(|cid| Waiting { cid, fetch: None }));
            return Ok(Some((cid, block)));
        }
        Ok(None)
    }

    fn fetch_ahead(&mut self) {
        for next in self.waiting.iter_mut().rev().take(AHEAD) {
            if self.ahead >= AHEAD {
                return;
            }
            if next.fetch.is_none() && !self.visited.contains(&next.cid) {
                let (blocks, cid) = (self.blocks.clone(), next.cid);
                next.fetch = Some(runtime::spawn(async move { blocks.get(&cid).await }));
                self.ahead += 1;
            }
        }
    }
}
