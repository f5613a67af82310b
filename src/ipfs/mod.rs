//! The IPFS side behind one trait: Kubo over HTTP ([`kubo`]) or the node inside this process ([`embedded`]); a witness
//! has [none]. A peer's embedded node is [removable]: its disk may go and come.
//!
//! The tracker, the API and the cluster room see only [`Ipfs`]. Both implementations pass the same acceptance
//! tests (`tests/ipfs.rs`). Whatever comes back from either is untrusted: sizes, hashes and shapes are
//! checked here. No call waits for ever: pinning is bounded by time *without progress*.

pub mod car;
pub mod embedded;
pub mod ipld;
pub mod kubo;
pub mod none;
pub mod removable;
#[cfg(test)]
pub(crate) mod scripted;
pub mod unixfs;

use crate::error::Result;
use crate::state::PinMode;
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use futures::stream::BoxStream;
use libp2p::{Multiaddr, PeerId};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Who the IPFS node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpfsId {
    /// Its peer id.
    pub id: PeerId,
    /// Its addresses, with `/p2p/<id>`.
    pub addresses: Vec<Multiaddr>,
    /// Agent string.
    pub agent: String,
}

/// Which run of which node answers: another one after a restart, a wipe or a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Who the node is.
    pub id: PeerId,
    /// When its process began, in its own words; `None` when it does not tell.
    pub started: Option<String>,
}

/// The content of this peer cannot be had for now, although nothing of it was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// Why, one sentence.
    pub cause: String,
    /// Since when.
    pub since: Instant,
}

/// What to pin and how.
#[derive(Clone, Debug)]
pub struct PinRequest {
    /// What.
    pub cid: Cid,
    /// Recursive or direct.
    pub mode: PinMode,
    /// A recursively pinned CID that shares most of its content: lets Kubo use `pin/update`.
    pub update_from: Option<Cid>,
    /// Nodes that are likely to have it, with `/p2p/<id>`; connected to first, best effort.
    pub providers: Vec<Multiaddr>,
}

/// Told how many blocks a pin has reached so far; called often, must be quick.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// How a CID is pinned in the IPFS node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpfsPin {
    /// Not pinned (or only indirectly).
    Unpinned,
    /// Recursively.
    Recursive,
    /// Directly.
    Direct,
}

/// Size of the repository, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepoStat {
    /// Bytes in use.
    pub repo_size: u64,
    /// Configured limit.
    pub storage_max: u64,
    /// Number of blocks, when known.
    pub objects: Option<u64>,
}

/// What a path points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A file (UnixFS file or raw block).
    File,
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// One entry of a folder, or the thing itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Name in the folder; empty for the thing itself.
    pub name: String,
    /// CID.
    pub cid: Cid,
    /// Size of the content in bytes (files), 0 for folders.
    pub size: u64,
    /// What it is.
    pub kind: NodeKind,
    /// Target of a symbolic link.
    pub target: Option<String>,
}

/// A block on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its CID; the receiver checks that the bytes hash to it.
    pub cid: Cid,
    /// Its bytes.
    pub data: Bytes,
}

/// The IPFS node of this peer.
#[async_trait]
pub trait Ipfs: Send + Sync + 'static {
    /// Who the node is; an error says that it cannot be reached and why.
    async fn id(&self) -> Result<IpfsId>;
    /// Which run of which node answers now. Asked out of turn: it must not wait behind other calls.
    async fn current_run(&self) -> Result<Run> {
        Ok(Run { id: self.id().await?.id, started: None })
    }
    /// Returns when the run that [`Ipfs::current_run`] last told of seems to be over. Never for a node inside this
    /// process, which lives as long as we do.
    async fn run_over(&self) {
        std::future::pending::<()>().await;
    }
    /// Pins; returns when every block is here and the pin is durable. Fails after `pin_timeout` without
    /// progress. Dropping the future cancels the work. Pinning what is pinned already succeeds at once.
    async fn pin(&self, request: PinRequest, progress: Progress) -> Result<()>;
    /// Unpins either mode; unpinning what is not pinned succeeds.
    async fn unpin(&self, cid: &Cid) -> Result<()>;
    /// How this CID is pinned now.
    async fn pin_state(&self, cid: &Cid) -> Result<IpfsPin>;
    /// All recursive and direct pins, in no particular order.
    async fn list_pins(&self) -> Result<BoxStream<'static, Result<(Cid, PinMode)>>>;
    /// Stores blocks (durable before it returns), checking each hash. Refuses with `Full` at the storage limit.
    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<()>;
    /// One block, from disk or (embedded: while `fetch`) from the network.
    async fn get_block(&self, cid: &Cid, fetch: bool) -> Result<Bytes>;
    /// Repository size and limit.
    async fn repo_stat(&self) -> Result<RepoStat>;
    /// Removes what no pin reaches; yields what was removed.
    async fn gc(&self) -> Result<BoxStream<'static, Result<Cid>>>;
    /// Connected IPFS peers.
    async fn swarm_peers(&self) -> Result<Vec<PeerId>>;
    /// Connects to `…/p2p/<id>`.
    async fn swarm_connect(&self, address: &Multiaddr) -> Result<()>;
    /// Resolves `/ipfs/<cid>/a/b`, `/ipns/…` or `<cid>/a/b` to a CID.
    async fn resolve(&self, path: &str) -> Result<Cid>;
    /// Content of a file, or of a byte range of it.
    async fn cat(&self, path: &str, range: Option<Range<u64>>) -> Result<BoxStream<'static, Result<Bytes>>>;
    /// What a path points to, and for a folder its entries (in stored order).
    async fn ls(&self, path: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)>;
    /// Flushes and closes what is open.
    async fn close(&self);
    /// Whether everything that the node holds is out of reach for now: its disk is not there. What it held counts as
    /// held nowhere meanwhile, but nothing of it is forgotten. Asked often: it must not wait.
    fn away(&self) -> Option<Away> {
        None
    }
    /// The node inside this process, if it is that and there; it can be asked more.
    fn embedded(&self) -> Option<embedded::Embedded> {
        None
    }
}
