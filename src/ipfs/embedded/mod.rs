//! The IPFS node inside this process: blocks and pins on this board's disk, Bitswap with its neighbours.
//!
//! ```text
//!  Ipfs trait ── Embedded ── node ── pins, walk, gc ── blocks (segments + LMDB index)
//!                   └── net::Host ── bitswap ──────────────┘
//! ```
//!
//! What only this node can be asked, beyond the trait, is in [`local`]: the RPC that looks like Kubo's stands on it.
//!
//! No Internet is needed: neighbours are those of the (by default private) swarm. A pin is recorded only when every
//! block of its DAG is durable. Reading something that is not here asks the neighbours, without storing it: only pins
//! and puts fill the disk, and never beyond `storage_max`.
//!
//! The node must never: serve or keep a block that does not have its hash; wait without limit for a block; collect what
//! a pin reaches or somebody is just adding.

pub mod bitswap;
pub mod blocks;
mod gc;
pub mod local;
mod node;
mod pins;
#[cfg(test)]
mod tests;
mod walk;

use super::unixfs;
use super::{Block, DirEntry, Ipfs, IpfsId, IpfsPin, PinRequest, Progress, RepoStat};
use crate::error::{Error, Result};
use crate::net::{Host, HostConfig};
use crate::runtime;
use crate::state::PinMode;
use async_trait::async_trait;
use bitswap::Bitswap;
pub use blocks::survey;

use blocks::{BlockStore, StoreConfig};
use bytes::Bytes;
use cid::Cid;
use futures::stream::BoxStream;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use node::{Getter, Node};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Limit for one dial.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses of likely holders that one pin dials.
const MAX_PROVIDERS: usize = 10;
/// What identify calls IPFS nodes; Kubo says the same.
const PROTOCOL_VERSION: &str = "ipfs/0.1.0";

/// What an embedded node is made of.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// Folder of the blocks and pins; made when it is not there.
    pub folder: PathBuf,
    /// The node's identity, its own, not the cluster's.
    pub keypair: libp2p::identity::Keypair,
    /// Hard limit for what is on disk, bytes.
    pub storage_max: u64,
    /// A pin (or a read) without progress for this long fails.
    pub pin_timeout: Duration,
    /// Size at which the block store begins a new file.
    pub segment_size: u64,
    /// How long a block that no pin reaches survives collections after it was put: uploads in progress.
    pub gc_grace: Duration,
    /// How often what no pin reaches is removed by itself; `None` is only on request.
    pub gc_interval: Option<Duration>,
    /// TCP addresses to listen on.
    pub listen: Vec<Multiaddr>,
    /// Addresses to tell others; empty: what we listen on.
    pub announce: Vec<Multiaddr>,
    /// Key of the private network; `None` is the public one.
    pub psk: Option<[u8; 32]>,
    /// Service name and interval of multicast discovery; `None` is off.
    pub mdns: Option<(String, Duration)>,
    /// Most connections.
    pub max_connections: usize,
}

impl EmbeddedConfig {
    /// Default of [`EmbeddedConfig::storage_max`], as Kubo's: 10 GB.
    pub const STORAGE_MAX: u64 = 10_000_000_000;
    /// Default of [`EmbeddedConfig::pin_timeout`], as ipfs-cluster's.
    pub const PIN_TIMEOUT: Duration = Duration::from_secs(120);
    /// Default of [`EmbeddedConfig::max_connections`]: a home has fewer neighbours, a small board no memory for more.
    pub const MAX_CONNECTIONS: usize = 128;

    /// The defaults: a node that listens nowhere.
    pub fn new(folder: impl Into<PathBuf>, keypair: libp2p::identity::Keypair) -> Self {
        EmbeddedConfig {
            folder: folder.into(),
            keypair,
            storage_max: Self::STORAGE_MAX,
            pin_timeout: Self::PIN_TIMEOUT,
            segment_size: StoreConfig::SEGMENT,
            gc_grace: StoreConfig::GRACE,
            gc_interval: None,
            listen: Vec::new(),
            announce: Vec::new(),
            psk: None,
            mdns: None,
            max_connections: Self::MAX_CONNECTIONS,
        }
    }
}

/// A running embedded node. Clones share it.
#[derive(Clone)]
pub struct Embedded {
    node: Node,
    host: Host,
    bitswap: Bitswap,
    agent: String,
    /// The periodic collection; it ends with the last clone.
    _collecting: Option<Arc<smol::Task<()>>>,
    public_key: libp2p::identity::PublicKey,
    meter: Arc<local::Meter>,
}

impl Embedded {
    /// Opens the folder and starts the node's own swarm.
    ///
    /// # Errors
    /// When the folder or a listen address cannot be used; the sentence says which and why.
    pub async fn open(config: EmbeddedConfig) -> Result<Embedded> {
        let store = Embedded::open_store(&config).await?;
        Embedded::open_on(store, config).await
    }

    /// The first half of [`Embedded::open`], which has to do with the disk.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub async fn open_store(config: &EmbeddedConfig) -> Result<BlockStore> {
        let mut store = StoreConfig::new(config.folder.clone(), config.storage_max);
        (store.grace, store.segment_size) = (config.gc_grace, config.segment_size);
        runtime::unblock(move || BlockStore::open(store)).await
    }

    /// The second half, which has to do with the network.
    ///
    /// # Errors
    /// When a listen address cannot be used.
    pub async fn open_on(store: BlockStore, config: EmbeddedConfig) -> Result<Embedded> {
        let agent = format!("pinfold/{}", crate::VERSION);
        let public_key = config.keypair.public();
        let host = Host::start(HostConfig {
            keypair: config.keypair,
            psk: config.psk,
            listen: config.listen,
            announce: config.announce,
            agent: agent.clone(),
            protocol_version: PROTOCOL_VERSION.to_owned(),
            dial_timeout: DIAL_TIMEOUT,
            mdns: config.mdns,
            max_connections: config.max_connections,
        })
        .await?;
        let bitswap = match Bitswap::start(host.clone(), Arc::new(store.clone())) {
            Ok(bitswap) => bitswap,
            Err(error) => {
                host.close().await;
                return Err(error);
            }
        };
        let node = Node::new(store, Arc::new(bitswap.clone()), config.pin_timeout);
        let collecting = config.gc_interval.map(|interval| {
            let node = node.clone();
            Arc::new(runtime::spawn(async move { gc::collect_every(&node, interval).await }))
        });
        Ok(Embedded {
            node,
            host,
            bitswap,
            agent,
            _collecting: collecting,
            public_key,
            meter: Arc::default(),
        })
    }

    /// The node's swarm.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The node's exchange.
    pub fn bitswap(&self) -> &Bitswap {
        &self.bitswap
    }

    /// The node's blocks.
    pub fn blocks(&self) -> &BlockStore {
        &self.node.store
    }

    fn getter(&self) -> Arc<Getter> {
        Arc::new(Getter::new(&self.node))
    }

    async fn resolve_here(&self, getter: &Getter, path: &str) -> Result<Cid> {
        if path.starts_with("/ipns/") {
            return Err(Error::invalid(format!(
                "{path}: the embedded IPFS node cannot resolve /ipns names; give the /ipfs path, or use a Kubo daemon \
                 (ipfs_connector.ipfshttp)"
            )));
        }
        unixfs::resolve(getter, path).await
    }
}

#[async_trait]
impl Ipfs for Embedded {
    fn embedded(&self) -> Option<Embedded> {
        Some(self.clone())
    }

    async fn id(&self) -> Result<IpfsId> {
        let id = self.host.peer_id();
        let addresses = self.host.addresses().into_iter().map(|a| a.with(Protocol::P2p(id))).collect();
        Ok(IpfsId { id, addresses, agent: self.agent.clone() })
    }

    async fn pin(&self, request: PinRequest, progress: Progress) -> Result<()> {
        // Best effort, beside the walk: a holder who cannot be reached must not delay what others have.
        let dials: Vec<_> = request.providers.iter().take(MAX_PROVIDERS).cloned().collect();
        let _dials: Vec<_> = dials
            .into_iter()
            .map(|address| {
                let host = self.host.clone();
                runtime::spawn(async move {
                    if let Err(error) = host.connect_addr(address).await {
                        log::debug!("dialling a provider: {error}");
                    }
                })
            })
            .collect();
        self.node.pin(request.cid, request.mode, progress).await
    }

    async fn unpin(&self, cid: &Cid) -> Result<()> {
        self.node.unpin(*cid).await
    }

    async fn pin_state(&self, cid: &Cid) -> Result<IpfsPin> {
        self.node.pin_state(*cid).await
    }

    async fn list_pins(&self) -> Result<BoxStream<'static, Result<(Cid, PinMode)>>> {
        Ok(self.node.list_pins())
    }

    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<()> {
        self.node.put_blocks(blocks).await
    }

    async fn get_block(&self, cid: &Cid, fetch: bool) -> Result<Bytes> {
        self.node.get_block(*cid, fetch).await
    }

    async fn repo_stat(&self) -> Result<RepoStat> {
        let usage = self.node.store.usage();
        let storage_max = self.node.store.storage_max();
        Ok(RepoStat { repo_size: usage.bytes, storage_max, objects: Some(usage.blocks) })
    }

    async fn gc(&self) -> Result<BoxStream<'static, Result<Cid>>> {
        self.node.gc().await
    }

    async fn swarm_peers(&self) -> Result<Vec<PeerId>> {
        Ok(self.host.connected())
    }

    async fn swarm_connect(&self, address: &Multiaddr) -> Result<()> {
        self.host.connect_addr(address.clone()).await.map(drop)
    }

    async fn resolve(&self, path: &str) -> Result<Cid> {
        self.resolve_here(&self.getter(), path).await
    }

    async fn cat(&self, path: &str, range: Option<Range<u64>>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let getter = self.getter();
        let cid = self.resolve_here(&getter, path).await?;
        unixfs::cat(getter, cid, range).await
    }

    async fn ls(&self, path: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)> {
        let getter = self.getter();
        let cid = self.resolve_here(&getter, path).await?;
        unixfs::ls(getter, cid).await
    }

    async fn close(&self) {
        self.bitswap.close();
        self.host.close().await;
        self.node.store.close().await;
    }
}
