//! Garbage collection: mark what pins reach, forget the rest, give the space back.
//!
//! Writers go on all the while. What they put, and what running pins come across, is protected by the store itself;
//! the removal of each small batch is one step of the store's writer. When a pinned DAG turns out to be incomplete,
//! nothing is collected: below a missing block nobody knows what is alive.

use super::blocks::{BlockStore, Hash};
use super::node::Node;
use super::pins::Pins;
use super::walk::Walk;
use crate::error::{Error, Result};
use crate::ipfs::unixfs::hash::{inline_content, RAW};
use crate::runtime;
use crate::state::PinMode;
use cid::Cid;
use futures::StreamExt;
use std::collections::HashMap;
use std::time::Duration;

/// Blocks looked at in one step of the sweep.
const SWEEP: usize = 1_000;
/// Pins read at once.
const PIN_PAGE: usize = 1_000;

/// Ends the collection's protection however the collection ends.
struct Collecting(BlockStore);

impl Drop for Collecting {
    fn drop(&mut self) {
        self.0.end_collection();
    }
}

/// Collects; every removed block is sent to `removed` (as Kubo does: the codec is not known any more, so as raw).
pub(super) async fn collect(
    store: BlockStore,
    pins: Pins,
    removed: async_channel::Sender<Result<Cid>>,
) -> Result<()> {
    store.begin_collection()?;
    let _collecting = Collecting(store.clone());
    store.commit().await?;
    let mut live = mark(&store, &pins).await?;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let reader = store.clone();
        let (mut dead, last, walk) = runtime::unblock(move || {
            let page = reader.hashes(after.as_deref(), SWEEP)?;
            let last = page.last().map(Hash::to_bytes);
            let dead: Vec<Hash> = page.into_iter().filter(|hash| !live.has_visited(hash)).collect();
            Ok::<_, Error>((dead, last, live))
        })
        .await?;
        live = walk;
        if !dead.is_empty() {
            dead = store.remove(dead).await?;
        }
        for hash in dead {
            // Nobody listens any more: the work is done all the same.
            let _ = removed.send(Ok(Cid::new_v1(RAW, hash))).await;
        }
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    store.compact().await
}

/// Collects at intervals, for as long as it is polled. One that failed is said and tried again the next time.
pub(super) async fn collect_every(node: &Node, interval: Duration) {
    loop {
        runtime::sleep(interval).await;
        let removed = async {
            let mut removed = 0u64;
            let mut collection = node.gc().await?;
            while let Some(block) = collection.next().await {
                block?;
                removed += 1;
            }
            Ok::<_, Error>(removed)
        };
        match removed.await {
            Ok(0) => {}
            Ok(removed) => log::info!("garbage collection: {removed} blocks removed"),
            Err(error) => log::warn!("garbage collection: {error}"),
        }
    }
}

/// What became of a block that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is gone.
    Removed,
    /// It was not here.
    Absent,
    /// A pin holds it.
    Pinned(PinnedBy),
    /// A pin that is running has come across it, or it was put again just now.
    InUse,
}

/// The pin that holds a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinnedBy {
    /// It is pinned directly.
    Direct,
    /// It is the root of a recursive pin.
    Recursive,
    /// This recursive pin reaches it.
    Via(Cid),
}

/// Removes single blocks by the rules of a collection, except that their age protects them not: somebody asked for it.
pub(super) async fn remove(store: BlockStore, pins: Pins, cids: Vec<Cid>) -> Result<Vec<(Cid, Fate)>> {
    store.begin_collection()?;
    let _collecting = Collecting(store.clone());
    store.commit().await?;
    let wanted: Vec<Hash> =
        cids.iter().filter(|cid| inline_content(cid).is_none()).map(|cid| *cid.hash()).collect();
    let held = holders(&store, &pins, &wanted).await?;
    let (reader, asked) = (store.clone(), cids.clone());
    let present = runtime::unblock(move || {
        asked.iter().map(|cid| Ok(reader.size(cid)?.is_some())).collect::<Result<Vec<bool>>>()
    });
    let present = present.await?;
    let free: Vec<Hash> = wanted.into_iter().filter(|hash| !held.contains_key(hash)).collect();
    let gone = if free.is_empty() { Vec::new() } else { store.remove_at_once(free).await? };
    let fates = cids.into_iter().zip(present).map(|(cid, present)| {
        let fate = match held.get(cid.hash()) {
            Some(by) => Fate::Pinned(*by),
            // An identity CID is its own content: there is nothing to remove, and it is no less gone.
            None if inline_content(&cid).is_some() || gone.contains(cid.hash()) => Fate::Removed,
            None if present => Fate::InUse,
            None => Fate::Absent,
        };
        (cid, fate)
    });
    Ok(fates.collect())
}

/// Which pins hold these blocks, one for each.
async fn holders(store: &BlockStore, pins: &Pins, wanted: &[Hash]) -> Result<HashMap<Hash, PinnedBy>> {
    let mut held = HashMap::new();
    let mut live = Walk::new();
    let mut after = None;
    loop {
        let (reader, from) = (pins.clone(), after);
        let page = runtime::unblock(move || reader.page(from.as_ref(), PIN_PAGE)).await?;
        let Some((last, _)) = page.last() else { return Ok(held) };
        after = Some(*last);
        for (root, mode) in page {
            if mode == PinMode::Direct {
                if wanted.contains(root.hash()) {
                    held.entry(*root.hash()).or_insert(PinnedBy::Direct);
                }
                continue;
            }
            if wanted.contains(root.hash()) {
                held.insert(*root.hash(), PinnedBy::Recursive);
            }
            live = reach(store, live, root, "removed").await?;
            for hash in wanted {
                if live.has_visited(hash) {
                    held.entry(*hash).or_insert(PinnedBy::Via(root));
                }
            }
        }
    }
}

/// Goes on with a walk below one more root; `what` was not done when a block is missing.
async fn reach(store: &BlockStore, mut live: Walk, root: Cid, what: &str) -> Result<Walk> {
    live.begin(root);
    while live.waits() {
        let reader = store.clone();
        let (walk, missing) = runtime::unblock(move || {
            let missing = live.advance(&reader, None, 1);
            (live, missing)
        })
        .await;
        live = walk;
        if let Some(cid) = missing?.first() {
            return Err(Error::corrupt(format!(
                "nothing was {what}: the pinned {root} lacks its block {cid}; recover that pin first"
            )));
        }
    }
    Ok(live)
}

/// Everything that a pin reaches.
async fn mark(store: &BlockStore, pins: &Pins) -> Result<Walk> {
    let mut live = Walk::new();
    let mut after = None;
    loop {
        let (reader, from) = (pins.clone(), after);
        let page = runtime::unblock(move || reader.page(from.as_ref(), PIN_PAGE)).await?;
        let Some((last, _)) = page.last() else { return Ok(live) };
        after = Some(*last);
        for (root, mode) in page {
            if mode == PinMode::Direct {
                // Marked in a walk of its own kind: a direct pin must not stop a recursive one from being followed.
                live.mark(&Cid::new_v1(RAW, *root.hash()));
                continue;
            }
            live = reach(store, live, root, "collected").await?;
        }
    }
}
