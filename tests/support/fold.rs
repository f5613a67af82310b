//! Peers with their IPFS nodes, embedded or Kubo, behind one face: the same test runs over both.

#![allow(dead_code)]

#[path = "kubo.rs"]
pub mod kubo;

use crate::support::cluster::{ok, Cluster, Peer, PATIENCE};
use crate::support::wait_for;
use kubo::KuboDaemon;
use serde_json::{json, Value};

/// An interval that never ends during a test.
pub const NEVER: &str = "24h";

/// Which IPFS nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Node {
    Embedded,
    Kubo,
}

/// Peers with a node each.
pub struct Fold {
    // First, so that the peers stop before their daemons.
    pub cluster: Cluster,
    /// None with embedded nodes.
    pub kubos: Vec<KuboDaemon>,
}

impl Fold {
    /// `n` of them, comparing with IPFS only when they are asked to or have a reason to; `None` where there is no Kubo.
    pub fn of(n: usize, node: Node, change: impl Fn(usize, &mut Value)) -> Option<Fold> {
        let kubos = match node {
            Node::Embedded => Vec::new(),
            Node::Kubo => (0..n).map(|_| KuboDaemon::start(None)).collect::<Option<Vec<_>>>()?,
        };
        let cluster = Cluster::with(n, |i, config| {
            config["cluster"]["pin_recover_interval"] = NEVER.into();
            config["cluster"]["state_sync_interval"] = NEVER.into();
            match kubos.get(i) {
                None => config["ipfs_connector"]["embedded"]["pin_timeout"] = "20s".into(),
                Some(kubo) => {
                    config["ipfs_connector"] = json!({"ipfshttp": {
                        "node_multiaddress": kubo.api.to_string(),
                        "connect_swarms_delay": "1s",
                        "pin_timeout": "20s",
                    }});
                }
            }
            change(i, config);
        });
        Some(Fold { cluster, kubos })
    }

    pub fn peer(&self, n: usize) -> &Peer {
        &self.cluster.peers[n]
    }

    /// Stores content in one node, pinned by nobody; its CID.
    pub fn put(&self, n: usize, content: &[u8]) -> String {
        match self.kubos.get(n) {
            Some(kubo) => kubo.add(content, &["--pin=false"]),
            None => {
                let file = self.cluster.path(&format!("to-be-added-{n}"));
                std::fs::write(&file, content).expect("a file");
                let file = file.to_str().expect("UTF-8");
                let add = [
                    "add",
                    "-Q",
                    "--local",
                    "--no-pin",
                    "--rmin",
                    "1",
                    "--rmax",
                    "1",
                    "--cid-version",
                    "1",
                    file,
                ];
                ok(self.peer(n).ctl(&add)).trim().to_string()
            }
        }
    }

    /// Whether a node has a CID pinned, in its own words.
    pub fn holds(&self, n: usize, cid: &str) -> bool {
        match self.kubos.get(n) {
            Some(kubo) => kubo.has_pinned(cid, "recursive"),
            None => {
                status_of(&self.peer(n).json("POST", &format!("/pins/{cid}/sync?local=true")), self.peer(n))
                    == "pinned"
            }
        }
    }

    /// Waits until exactly these nodes hold a CID.
    pub fn wait_held(&self, cid: &str, by: &[usize]) {
        wait_for(&format!("{cid} in the nodes {by:?} and no others"), PATIENCE, || {
            let held: Vec<usize> = (0..self.cluster.peers.len()).filter(|n| self.holds(*n, cid)).collect();
            if held == by {
                Ok(())
            } else {
                Err(format!("{held:?}; {}", self.peer(0).json("GET", &format!("/pins/{cid}"))))
            }
        });
    }
}

/// The status of one peer in an item.
pub fn status_of(item: &Value, peer: &Peer) -> String {
    item["peer_map"][peer.id()]["status"].as_str().unwrap_or("none").to_string()
}

/// The error of one peer in an item.
pub fn error_of(item: &Value, peer: &Peer) -> String {
    item["peer_map"][peer.id()]["error"].as_str().unwrap_or_default().to_string()
}

/// The status of a CID in the plain list of a peer, which asks IPFS nothing.
pub fn listed(peer: &Peer, cid: &str) -> String {
    let all = peer.lines("/pins?local=true");
    all.iter().find(|item| item["cid"] == cid).map_or_else(|| "none".into(), |item| status_of(item, peer))
}

/// The items of a streamed POST.
pub fn posted(peer: &Peer, path: &str) -> Vec<Value> {
    let (status, body) = peer.request("POST", path).expect("an answer");
    assert!((200..300).contains(&status), "{path}: {status} {body}\n{}", peer.log());
    body.lines().map(|line| serde_json::from_str(line).expect("JSON line")).collect()
}
