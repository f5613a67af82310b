//! Two members whose IPFS nodes have one identity: a copied repository, or one daemon behind two peers.
//!
//! It is never right: content counted as two copies may be one, other nodes reach now this one and now that, and the
//! two cannot connect with each other. Nothing here can repair it, so it is said: in the log when it begins and when it
//! ends, and in the `ipfs.error` of `id` while it lasts.

use super::Cluster;
use crate::monitor::PING;
use crate::runtime;
use std::collections::BTreeSet;

/// The sentence for one twin.
fn sentence(name: &str, peer: &str, ipfs: &str) -> String {
    format!(
        "the IPFS node of peer {name} ({peer}) has the same identity {ipfs}: two copies of one repository, or one daemon \
         for two peers. Give each peer an IPFS node of its own (`ipfs key rotate`, or `ipfs init` in an empty repository)"
    )
}

impl Cluster {
    /// A sentence for each other member that is alive and whose IPFS node says that it is `ipfs`.
    pub(super) fn twins(&self, ipfs: &str) -> Vec<String> {
        if ipfs.is_empty() {
            return Vec::new();
        }
        let members = self.inner.consensus.members();
        let readings = &self.inner.readings;
        let (monitor, now) = (readings.lock(), readings.now_ms());
        members
            .iter()
            .filter(|m| m.peer_id != self.inner.me && monitor.reading(PING, &m.peer_id, now).is_some())
            .filter(|m| monitor.last_ping(&m.peer_id).is_some_and(|ping| ping.ipfs_id == ipfs))
            .map(|m| sentence(&m.name, &m.peer_id.to_string(), ipfs))
            .collect()
    }

    /// Who our IPFS node is, as our last ping said.
    fn own_node(&self) -> String {
        self.inner.readings.lock().last_ping(&self.inner.me).map(|ping| ping.ipfs_id).unwrap_or_default()
    }
}

/// Says it in the log, once for each twin that appears.
pub(super) async fn watch(cluster: Cluster) {
    let mut known = BTreeSet::new();
    loop {
        let now: BTreeSet<String> = cluster.twins(&cluster.own_node()).into_iter().collect();
        for twin in now.difference(&known) {
            log::warn!(target: "cluster", "{twin}");
        }
        if now.is_empty() && !known.is_empty() {
            log::info!(target: "cluster", "our IPFS node is the only one with its identity again");
        }
        known = now;
        runtime::sleep(cluster.inner.settings.ping_interval).await;
    }
}
