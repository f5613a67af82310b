//! What only the node inside this process can be asked, beyond [`crate::ipfs::Ipfs`]: its own blocks one by one, what
//! it keeps, and what it exchanges. The RPC that looks like Kubo's stands on this.
//!
//! Nothing here weakens what the store promises: a removal goes through the collection's own rules ([`super::gc`]), a
//! read checks its hash, and listings go page by page with no transaction held in between.

use super::gc;
use super::node::{Getter, Node};
use super::Embedded;
use crate::error::{Error, Result};
use crate::ipfs::unixfs::hash::RAW;
use crate::ipfs::unixfs::BlockGetter;
use crate::runtime;
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use super::gc::{Fate, PinnedBy};

/// Blocks of one page of a listing.
const PAGE: usize = 1_000;
/// Rates are measured over at least this long; asked more often, the last ones are told again.
const RATE_WINDOW: Duration = Duration::from_millis(500);

/// Traffic of the node's swarm.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Bytes received since the start.
    pub total_in: u64,
    /// Bytes sent since the start.
    pub total_out: u64,
    /// Bytes per second received since it was asked last.
    pub rate_in: f64,
    /// Bytes per second sent since it was asked last.
    pub rate_out: f64,
}

/// Remembers the totals of the last question.
pub(super) struct Meter(Mutex<(Instant, Traffic)>);

impl Default for Meter {
    fn default() -> Self {
        Meter(Mutex::new((Instant::now(), Traffic::default())))
    }
}

impl Meter {
    fn read(&self, now: Instant, (total_in, total_out): (u64, u64)) -> Traffic {
        let mut last = self.0.lock();
        let (at, before) = *last;
        let seconds = now.saturating_duration_since(at);
        if seconds < RATE_WINDOW {
            return Traffic { total_in, total_out, ..before };
        }
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds.as_secs_f64();
        let traffic = Traffic {
            total_in,
            total_out,
            rate_in: rate(total_in, before.total_in),
            rate_out: rate(total_out, before.total_out),
        };
        *last = (now, traffic);
        traffic
    }
}

/// Blocks of this disk only.
struct LocalGetter(Node);

#[async_trait]
impl BlockGetter for LocalGetter {
    async fn get(&self, cid: &Cid) -> Result<Bytes> {
        let (node, wanted) = (self.0.clone(), *cid);
        let found = runtime::unblock(move || node.store.get(&wanted)).await?;
        found.ok_or_else(|| {
            Error::not_found(format!("block was not found locally (offline): ipld: could not find {cid}"))
        })
    }
}

impl Embedded {
    /// A reader of blocks: of this disk and, unless `offline`, of the neighbours. What is fetched is not stored.
    pub fn reader(&self, offline: bool) -> Arc<dyn BlockGetter> {
        if offline {
            Arc::new(LocalGetter(self.node.clone()))
        } else {
            Arc::new(Getter::new(&self.node))
        }
    }

    /// Length of a block on this disk, without reading it.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub async fn block_size(&self, cid: &Cid) -> Result<Option<u64>> {
        let (store, cid) = (self.node.store.clone(), *cid);
        runtime::unblock(move || store.size(&cid)).await
    }

    /// Every block on this disk, in no particular order. Its codec is not known, so it is told as raw, as Kubo does.
    ///
    /// # Errors
    /// When the index cannot be written or read; later ones are in the stream.
    pub async fn blocks_here(&self) -> Result<BoxStream<'static, Result<Cid>>> {
        // What was put lately is not in the index yet.
        self.node.store.commit().await?;
        let store = self.node.store.clone();
        let pages = stream::try_unfold((store, None::<Vec<u8>>), |(store, after)| async move {
            let reader = store.clone();
            let page = runtime::unblock(move || reader.hashes(after.as_deref(), PAGE)).await?;
            let Some(last) = page.last().map(multihash::Multihash::to_bytes) else { return Ok(None) };
            let cids = stream::iter(page.into_iter().map(|hash| Ok(Cid::new_v1(RAW, hash))));
            Ok::<_, Error>(Some((cids, (store, Some(last)))))
        });
        Ok(pages.try_flatten().boxed())
    }

    /// Reads every block on this disk; yields each with what is wrong with it. What is damaged is forgotten by that, so
    /// that it can be fetched again.
    ///
    /// # Errors
    /// As [`Embedded::blocks_here`].
    pub async fn verify(&self) -> Result<BoxStream<'static, Result<(Cid, Option<Error>)>>> {
        let store = self.node.store.clone();
        let checked = self.blocks_here().await?.and_then(move |cid| {
            let store = store.clone();
            runtime::unblock(move || Ok((cid, store.get(&cid).err())))
        });
        Ok(checked.boxed())
    }

    /// Removes single blocks, whatever their age, but never one that a pin reaches or a running pin has come across.
    ///
    /// # Errors
    /// When a collection runs, when a pinned DAG is incomplete (below a missing block nobody knows what is alive), or
    /// the disk fails. Nothing was removed then.
    pub async fn remove_blocks(&self, cids: Vec<Cid>) -> Result<Vec<(Cid, Fate)>> {
        let _held = self.node.hold_collections()?;
        gc::remove(self.node.store.clone(), self.node.pins.clone(), cids).await
    }

    /// Bytes that the node exchanged.
    pub fn traffic(&self) -> Traffic {
        self.meter.read(Instant::now(), self.host.bandwidth())
    }

    /// The node's public key.
    pub fn public_key(&self) -> &libp2p::identity::PublicKey {
        &self.public_key
    }

    /// Where the node keeps its blocks.
    pub fn folder(&self) -> &std::path::Path {
        self.node.store.folder()
    }

    /// What identify tells others about the node.
    pub fn agent(&self) -> &str {
        &self.agent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_since_the_last_question() {
        let meter = Meter::default();
        let start = Instant::now();
        let first = meter.read(start + Duration::from_secs(2), (2_000, 400));
        assert!((990.0..=1_000.0).contains(&first.rate_in) && first.total_out == 400, "{first:?}");
        let soon = meter.read(start + Duration::from_millis(2_100), (9_000, 400));
        assert_eq!((soon.total_in, soon.rate_in), (9_000, first.rate_in), "asked too soon: the last rate");
        let later = meter.read(start + Duration::from_secs(4), (6_000, 400));
        assert_eq!((later.rate_in, later.rate_out), (2_000.0, 0.0));
    }
}
