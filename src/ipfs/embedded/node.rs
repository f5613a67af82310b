//! The embedded node without its network: pins, reads and collections over a block store and *some* [`Exchange`].
//!
//! The tests drive this very code with an exchange in memory; [`super::Embedded`] gives it Bitswap.

use super::blocks::{BlockStore, Durability, WalkId};
use super::pins::Pins;
use super::walk::Walk;
use super::{bitswap, gc};
use crate::clock::format_duration;
use crate::error::{Error, Kind, Result};
use crate::ipfs::unixfs::{hash, BlockGetter};
use crate::ipfs::{Block, IpfsPin, Progress};
use crate::runtime;
use crate::state::PinMode;
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt};
use futures::FutureExt;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Blocks of one pin that are asked for at once: enough to keep a gigabit link busy with small blocks, few enough that
/// the largest ones fit into a small board's memory.
const WINDOW: usize = 64;
/// Bytes of blocks from which hashes are checked on several cores.
const CHECK_ON_MANY: usize = 1 << 20;
/// Cores that check hashes of one put at once.
const CHECKERS: usize = 4;
/// Pins read at once for a listing.
const PIN_PAGE: usize = 1_000;
/// Removed CIDs that may wait for whoever listens to a collection.
const REMOVED_QUEUE: usize = 1_000;

/// Where blocks come from that are not here.
pub(super) trait Exchange: Send + Sync + 'static {
    /// A group of fetches that belong together.
    fn session(&self) -> Box<dyn Fetch>;
    /// These blocks are here now.
    fn notify(&self, cids: &[Cid]);
}

/// A group of fetches. Waits until the block comes; the caller sets the limit; dropping a fetch cancels it.
#[async_trait]
pub(super) trait Fetch: Send + Sync {
    /// One block, its hash checked.
    async fn fetch(&self, cid: Cid) -> Result<Bytes>;
}

impl Exchange for bitswap::Bitswap {
    fn session(&self) -> Box<dyn Fetch> {
        Box::new(bitswap::Bitswap::session(self))
    }

    fn notify(&self, cids: &[Cid]) {
        bitswap::Bitswap::notify(self, cids);
    }
}

#[async_trait]
impl Fetch for bitswap::Session {
    async fn fetch(&self, cid: Cid) -> Result<Bytes> {
        bitswap::Session::fetch(self, cid).await
    }
}

/// Store, pins and exchange together.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) store: BlockStore,
    pub(super) pins: Pins,
    exchange: Arc<dyn Exchange>,
    /// No progress for this long is the end of a pin or a read.
    timeout: Duration,
    /// Held by the one collection.
    collecting: Arc<smol::lock::Mutex<()>>,
}

/// Ends a pin's protection however the pin ends.
struct WalkGuard {
    store: BlockStore,
    id: WalkId,
    pinned: bool,
}

impl Drop for WalkGuard {
    fn drop(&mut self) {
        self.store.end_walk(self.id, self.pinned);
    }
}

impl Node {
    pub(super) fn new(store: BlockStore, exchange: Arc<dyn Exchange>, timeout: Duration) -> Self {
        let pins = Pins::new(store.tables().clone());
        Node { store, pins, exchange, timeout, collecting: Arc::default() }
    }

    /// Runs a short blocking call on the store.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Node) -> T + Send + 'static) -> T {
        let node = self.clone();
        runtime::unblock(move || work(&node)).await
    }

    pub(super) async fn pin_state(&self, cid: Cid) -> Result<IpfsPin> {
        self.blocking(move |node| node.pins.get(&cid)).await
    }

    pub(super) async fn unpin(&self, cid: Cid) -> Result<()> {
        self.blocking(move |node| node.pins.remove(&cid)).await
    }

    /// Pins; see [`crate::ipfs::Ipfs::pin`].
    pub(super) async fn pin(&self, cid: Cid, mode: PinMode, progress: Progress) -> Result<()> {
        let wanted = match mode {
            PinMode::Recursive => IpfsPin::Recursive,
            PinMode::Direct => IpfsPin::Direct,
        };
        if self.pin_state(cid).await? == wanted {
            return Ok(());
        }
        let store = self.store.clone();
        let id = runtime::unblock(move || store.begin_walk()).await;
        let mut guard = WalkGuard { store: self.store.clone(), id, pinned: false };
        match mode {
            PinMode::Recursive => self.fetch_all(cid, id, &progress).await?,
            PinMode::Direct => self.fetch_one(cid, id, &progress).await?,
        }
        self.store.sync().await?;
        self.blocking(move |node| node.pins.set(&cid, mode)).await?;
        guard.pinned = true;
        Ok(())
    }

    async fn fetch_one(&self, cid: Cid, id: WalkId, progress: &Progress) -> Result<()> {
        let here = self.blocking(move |node| {
            node.store.touch(id, cid.hash());
            node.store.size(&cid)
        });
        if here.await?.is_none() {
            let block = self.fetch(&*self.exchange.session(), cid).await?;
            self.store.put_for(id, vec![(*cid.hash(), block)]).await?;
            self.exchange.notify(&[cid]);
        }
        progress(1);
        Ok(())
    }

    /// Brings the whole DAG here: what is stored is walked on a blocking thread, what is missing is asked for, at most
    /// [`WINDOW`] blocks at once, and walked on when it comes.
    async fn fetch_all(&self, root: Cid, id: WalkId, progress: &Progress) -> Result<()> {
        let session = self.exchange.session();
        let mut walk = Walk::new();
        walk.begin(root);
        let mut fetching = FuturesUnordered::new();
        let mut wanted = HashSet::new();
        loop {
            if walk.waits() && fetching.len() < WINDOW {
                let (want, store) = (WINDOW - fetching.len(), self.store.clone());
                let (walked, missing) = runtime::unblock(move || {
                    let missing = walk.advance(&store, Some(id), want);
                    (walk, missing)
                })
                .await;
                walk = walked;
                for cid in missing? {
                    wanted.insert(cid);
                    let fetch = session.fetch(cid);
                    fetching.push(async move { fetch.await.map(|block| (cid, block)) });
                }
                progress(walk.reached());
                continue;
            }
            let next = runtime::timeout(self.timeout, "", fetching.next().map(Ok));
            let mut arrived = match next.await {
                Ok(None) => return Ok(()),
                Ok(Some(block)) => vec![block?],
                Err(_) => return Err(self.nobody_has(&root, wanted.iter().next().unwrap_or(&root))),
            };
            while let Some(Some(block)) = fetching.next().now_or_never() {
                arrived.push(block?);
            }
            let records = arrived.iter().map(|(cid, block)| (*cid.hash(), block.clone())).collect();
            self.store.put_for(id, records).await?;
            let cids: Vec<Cid> = arrived.iter().map(|(cid, _)| *cid).collect();
            self.exchange.notify(&cids);
            for (cid, block) in &arrived {
                wanted.remove(cid);
                walk.arrived(cid, block)?;
            }
            progress(walk.reached());
        }
    }

    fn nobody_has(&self, root: &Cid, missing: &Cid) -> Error {
        Error::timeout(format!(
            "no provider found for {missing}: no block of {root} arrived for {} (pin_timeout), nobody who is connected \
             has it; start or connect a node that does",
            format_duration(self.timeout)
        ))
    }

    async fn fetch(&self, session: &dyn Fetch, cid: Cid) -> Result<Bytes> {
        match runtime::timeout(self.timeout, "", session.fetch(cid)).await {
            Err(error) if error.kind() == Kind::Timeout => Err(self.nobody_has(&cid, &cid)),
            other => other,
        }
    }

    /// Stores blocks durably after checking each hash.
    pub(super) async fn put_blocks(&self, blocks: Vec<Block>) -> Result<()> {
        let blocks = Arc::new(blocks);
        let bytes: usize = blocks.iter().map(|b| b.data.len()).sum();
        let cores = if bytes < CHECK_ON_MANY { 1 } else { CHECKERS };
        let share = blocks.len().div_ceil(cores).max(1);
        let checks: Vec<_> = (0..blocks.len().div_ceil(share))
            .map(|n| {
                let blocks = blocks.clone();
                let check = move || {
                    let part = &blocks[n * share..((n + 1) * share).min(blocks.len())];
                    part.iter().try_for_each(|block| hash::verify(&block.cid, &block.data))
                };
                runtime::spawn(runtime::unblock(check))
            })
            .collect();
        for check in checks {
            check.await?;
        }
        let cids: Vec<Cid> = blocks.iter().map(|b| b.cid).collect();
        let records = blocks.iter().map(|b| (b.cid, b.data.clone())).collect();
        self.store.put(records, Durability::Flushed).await?;
        self.exchange.notify(&cids);
        Ok(())
    }

    /// One block, from here or from the exchange. What is fetched for reading is not stored: only pins fill the disk.
    pub(super) async fn get_block(&self, cid: Cid, fetch: bool) -> Result<Bytes> {
        match self.blocking(move |node| node.store.get(&cid)).await {
            Ok(Some(block)) => Ok(block),
            Ok(None) if !fetch => Err(Error::not_found(format!("block {cid} is not stored here"))),
            Err(error) if !fetch || error.kind() != Kind::Corrupt => Err(error),
            Ok(None) | Err(_) => self.fetch(&*self.exchange.session(), cid).await,
        }
    }

    /// All pins, read page by page while they are taken.
    pub(super) fn list_pins(&self) -> BoxStream<'static, Result<(Cid, PinMode)>> {
        let node = self.clone();
        stream::try_unfold((node, None, false), |(node, after, done): (Node, Option<Cid>, bool)| async move {
            if done {
                return Ok(None);
            }
            let page = node.blocking(move |node| node.pins.page(after.as_ref(), PIN_PAGE)).await?;
            let last = page.last().map(|(cid, _)| *cid);
            let done = page.len() < PIN_PAGE;
            Ok::<_, Error>(Some((stream::iter(page.into_iter().map(Ok)), (node, last, done))))
        })
        .try_flatten_pages()
    }

    /// Keeps collections away while the guard lives.
    ///
    /// # Errors
    /// When one is running.
    pub(super) fn hold_collections(&self) -> Result<smol::lock::MutexGuardArc<()>> {
        self.collecting
            .try_lock_arc()
            .ok_or_else(|| Error::conflict("a garbage collection is already running: wait for it to end"))
    }

    /// Collects garbage; one at a time.
    pub(super) async fn gc(&self) -> Result<BoxStream<'static, Result<Cid>>> {
        let held = self.hold_collections()?;
        let (sender, receiver) = async_channel::bounded(REMOVED_QUEUE);
        let (store, pins) = (self.store.clone(), self.pins.clone());
        let task = runtime::spawn(async move {
            let _held = held;
            if let Err(error) = gc::collect(store, pins, sender.clone()).await {
                let _ = sender.send(Err(error)).await;
            }
        });
        // The task lives in the stream: whoever stops listening stops the collection.
        Ok(stream::unfold((receiver, task), |(receiver, task)| async move {
            receiver.recv().await.ok().map(|removed| (removed, (receiver, task)))
        })
        .boxed())
    }
}

/// Flattens pages; `TryStreamExt::try_flatten` with the types that it needs here.
trait FlattenPages<T> {
    fn try_flatten_pages(self) -> BoxStream<'static, Result<T>>;
}

impl<S, P, T> FlattenPages<T> for S
where
    S: futures::Stream<Item = Result<P>> + Send + 'static,
    P: futures::Stream<Item = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    fn try_flatten_pages(self) -> BoxStream<'static, Result<T>> {
        futures::TryStreamExt::try_flatten(self).boxed()
    }
}

/// Blocks for the UnixFS reader: from here or from the exchange.
pub(super) struct Getter {
    node: Node,
    session: Box<dyn Fetch>,
}

impl Getter {
    pub(super) fn new(node: &Node) -> Self {
        Getter { node: node.clone(), session: node.exchange.session() }
    }
}

#[async_trait]
impl BlockGetter for Getter {
    async fn get(&self, cid: &Cid) -> Result<Bytes> {
        let wanted = *cid;
        match self.node.blocking(move |node| node.store.get(&wanted)).await {
            Ok(Some(block)) => Ok(block),
            Err(error) if error.kind() != Kind::Corrupt => Err(error),
            Ok(None) | Err(_) => self.node.fetch(&*self.session, wanted).await,
        }
    }
}
