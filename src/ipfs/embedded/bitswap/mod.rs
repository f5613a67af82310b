//! Bitswap 1.2: blocks from and for other IPFS nodes, over the streams of a [`Host`].
//!
//! Three pure parts and two with input and output:
//!
//! ```text
//! wire    messages to bytes and back, bounded        verify   does this data belong to this CID?
//! client  what we want and whom we ask (pure)        ledger   what one peer wants from us (pure)
//! link    the streams: one reader per incoming stream, one sender per peer
//! ```
//!
//! As Kubo does it, what we say goes over a stream that *we* opened and keep open, what a peer says comes
//! over streams that it opened; answers are not paired with requests. One lock guards client and ledgers;
//! it is never held while something waits. Blocks to serve are read from the store (on the blocking pool)
//! only when the peer's sender can write, while the message before them is on its way.
//!
//! What this room must never do: store a block, or hand out one that it did not verify. It fetches what
//! callers wait for, ignores every other block, and drops a peer that sends garbage or floods us
//! (for [`link::BAN`]). It sets no time limit for a fetch: whoever waits knows how long it is worth.

pub mod client;
#[cfg(any(test, fuzzing))]
#[path = "../../../../tests/fuzz/targets/bitswap.rs"]
pub(crate) mod fuzz;
mod ledger;
mod link;
pub mod verify;
pub mod wire;

#[cfg(test)]
pub(crate) mod tests;

use crate::error::{Error, Result};
use crate::net::Host;
use bytes::Bytes;
use cid::Cid;
use client::{SessionId, WaiterId, COMMON};
use futures::channel::oneshot;
use libp2p::PeerId;
use link::Shared;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Instant;

/// The protocol, as negotiated per stream.
pub const PROTOCOL: &str = "/ipfs/bitswap/1.2.0";
/// Blocks that are searched at the same time, of all callers; more fetches wait in line. Below the 1,024
/// wants that Kubo remembers per peer, so that none is ever dropped there.
pub const MAX_ACTIVE: usize = 1_000;

/// Where blocks to serve come from. Called on the blocking pool, many times per batch.
pub trait BlockSource: Send + Sync + 'static {
    /// The block, `None` if it is not here.
    ///
    /// # Errors
    /// When the disk fails; the peer is then told "don't have".
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>>;
    /// Its size without reading it, `None` if it is not here.
    ///
    /// # Errors
    /// When the disk fails.
    fn size(&self, cid: &Cid) -> Result<Option<u64>>;
}

/// What went over the wire since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blocks that came and were wanted.
    pub blocks_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Blocks that came and were not wanted (any more).
    pub unwanted_blocks: u64,
    /// Their bytes.
    pub unwanted_bytes: u64,
    /// Blocks sent.
    pub blocks_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Blocks wanted now.
    pub wants: usize,
    /// Peers that can be asked now.
    pub peers: usize,
}

/// What one peer and we did for each other in this connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Bytes of blocks that we sent.
    pub bytes_sent: u64,
    /// Bytes of blocks that it sent.
    pub bytes_received: u64,
    /// Wants of it that we remember.
    pub wants: usize,
}

/// A running Bitswap. Clones share it; it ends with [`Bitswap::close`] or when the last clone goes.
#[derive(Clone)]
pub struct Bitswap {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    next: AtomicU64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Bitswap {
    /// Starts to serve `store` and to fetch, over `host`.
    ///
    /// # Errors
    /// When the host already serves the protocol.
    pub fn start(host: Host, store: Arc<dyn BlockSource>) -> Result<Bitswap> {
        let shared = Shared::start(host, store)?;
        Ok(Bitswap { handle: Arc::new(Handle { shared, next: AtomicU64::new(COMMON + 1) }) })
    }

    /// The block, from whoever has it, verified. Asks the connected peers and every new one, and waits until
    /// it comes: the caller sets the limit. Concurrent fetches of one CID are one want; dropping the
    /// last of them cancels it. Blocks are *not* stored here.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] for a hash that cannot be verified, [`crate::Kind::Unavailable`] when Bitswap
    /// is closed.
    pub async fn fetch(&self, cid: Cid) -> Result<Bytes> {
        self.fetch_in(COMMON, cid).await
    }

    /// A group of fetches that belong together, such as the walk over one DAG: peers that served one of them
    /// are asked first for the next.
    pub fn session(&self) -> Session {
        let id = self.handle.next.fetch_add(1, Ordering::Relaxed);
        Session { bitswap: self.clone(), id }
    }

    /// Tells that these blocks are now in the store: peers that want them get them, and so do fetches that
    /// still wait for them.
    pub fn notify(&self, cids: &[Cid]) {
        self.handle.shared.arrived(cids);
    }

    /// Totals.
    pub fn stats(&self) -> Stats {
        self.handle.shared.stats()
    }

    /// What is being searched now, in no particular order.
    pub fn wantlist(&self) -> Vec<Cid> {
        self.handle.shared.wanted()
    }

    /// The account with one peer, `None` when it is not connected.
    pub fn ledger(&self, peer: &PeerId) -> Option<PeerStats> {
        self.handle.shared.peer_stats(peer)
    }

    /// Stops serving and fetching; fetches that wait fail with [`crate::Kind::Unavailable`].
    pub fn close(&self) {
        self.handle.shared.close();
    }

    async fn fetch_in(&self, session: SessionId, cid: Cid) -> Result<Bytes> {
        verify::supported(&cid)?;
        if let Some(data) = verify::inline(&cid) {
            return Ok(data);
        }
        let shared = &self.handle.shared;
        let _permit = shared.active.acquire().await;
        let id = self.handle.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter { shared, cid, id };
        shared.want(cid, session, id, sender, Instant::now())?;
        let data = receiver.await;
        drop(waiter);
        data.map_err(|_| Error::unavailable(format!("the fetch of {cid} was given up: Bitswap is closed")))
    }
}

/// Takes the want back when the fetch is dropped.
struct Waiter<'a> {
    shared: &'a Arc<Shared>,
    cid: Cid,
    id: WaiterId,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.shared.unwait(&self.cid, self.id);
    }
}

/// Fetches that belong together; see [`Bitswap::session`].
pub struct Session {
    bitswap: Bitswap,
    id: SessionId,
}

impl Session {
    /// As [`Bitswap::fetch`].
    ///
    /// # Errors
    /// As [`Bitswap::fetch`].
    pub async fn fetch(&self, cid: Cid) -> Result<Bytes> {
        self.bitswap.fetch_in(self.id, cid).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.bitswap.handle.shared.end_session(self.id);
    }
}
