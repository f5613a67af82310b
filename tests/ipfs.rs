//! One set of acceptance tests for everything that implements [`Ipfs`], and both implementations against each
//! other: the real Kubo through the connector, and the embedded node.
//!
//! Each implementation is started once (a Kubo costs seconds) and taken through all steps one after the other; a failure
//! names the step. Steps leave nothing behind that another one would stumble over.

#[path = "ipfs/interop.rs"]
mod interop;
#[path = "support/kubo.rs"]
mod kubo_daemon;
#[path = "ipfs/steps.rs"]
mod steps;

use kubo_daemon::KuboDaemon;
use libp2p::{identity::Keypair, Multiaddr};
use pinfold::ipfs::embedded::{Embedded, EmbeddedConfig};
use pinfold::ipfs::kubo::{Kubo, KuboConfig};
use pinfold::ipfs::Ipfs;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// A pin without progress is given up after this in these tests.
pub const PIN_TIMEOUT: Duration = Duration::from_secs(3);

/// A running node, and what keeps it so.
pub struct Node {
    /// The node.
    pub ipfs: Arc<dyn Ipfs>,
    _keep: Box<dyn Any>,
}

impl Node {
    /// Its first address, with its peer id.
    pub async fn address(&self) -> Multiaddr {
        let id = self.ipfs.id().await.expect("id");
        id.addresses.into_iter().next().expect("an address")
    }
}

/// A Kubo behind the connector; `None` where there is no Kubo.
pub fn kubo(psk: Option<[u8; 32]>) -> Option<Node> {
    let daemon = KuboDaemon::start(psk)?;
    let config = KuboConfig {
        node: daemon.api.clone(),
        request_timeout: Duration::from_secs(20),
        pin_timeout: PIN_TIMEOUT,
        ..KuboConfig::default()
    };
    let ipfs = Arc::new(Kubo::new(config).expect("connector"));
    Some(Node { ipfs, _keep: Box::new(daemon) })
}

/// An embedded node.
pub async fn embedded(psk: Option<[u8; 32]>) -> Node {
    let folder = tempfile::tempdir().expect("folder");
    let mut config = EmbeddedConfig::new(folder.path().join("ipfs"), Keypair::generate_ed25519());
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")];
    config.psk = psk;
    config.pin_timeout = PIN_TIMEOUT;
    config.gc_grace = Duration::ZERO;
    let ipfs = Arc::new(Embedded::open(config).await.expect("embedded node"));
    Node { ipfs, _keep: Box::new(folder) }
}

#[test]
fn kubo_passes_the_acceptance_tests() {
    let (Some(node), Some(neighbour)) = (kubo(None), kubo(None)) else { return };
    pinfold::runtime::block_on(steps::all(&node, &neighbour));
}

#[test]
fn the_embedded_node_passes_the_acceptance_tests() {
    pinfold::runtime::block_on(async {
        let (node, neighbour) = (embedded(None).await, embedded(None).await);
        steps::all(&node, &neighbour).await;
        node.ipfs.close().await;
        neighbour.ipfs.close().await;
    });
}
