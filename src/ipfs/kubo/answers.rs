//! The shapes of Kubo's answers, and what they mean.
//!
//! Only the fields that are used, lenient where Go is (`null` for an empty list, missing for zero), strict where a
//! wrong value would do harm (CIDs, peer ids).

use crate::error::{Error, Result};
use crate::ipfs::IpfsId;
use cid::Cid;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::Deserialize;

fn cid_of(text: &str) -> Result<Cid> {
    Cid::try_from(text)
        .map_err(|e| Error::ipfs(format!("the IPFS daemon says {text:?} where a CID belongs: {e}")))
}

/// `id`.
#[derive(Deserialize)]
pub(super) struct IdAnswer {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Addresses", default)]
    addresses: Option<Vec<String>>,
    #[serde(rename = "AgentVersion", default)]
    agent: String,
}

impl IdAnswer {
    pub(super) fn into_id(self) -> Result<IpfsId> {
        let id: PeerId = self
            .id
            .parse()
            .map_err(|e| Error::ipfs(format!("the IPFS daemon says that its id is {:?}: {e}", self.id)))?;
        // An address of a transport that we do not know is no reason to fail.
        let addresses = self.addresses.unwrap_or_default();
        let known = addresses.iter().filter_map(|a| a.parse::<Multiaddr>().ok());
        let addresses = known
            .map(|a| match a.iter().last() {
                Some(Protocol::P2p(_)) => a,
                _ => a.with(Protocol::P2p(id)),
            })
            .collect();
        Ok(IpfsId { id, addresses, agent: self.agent })
    }
}

/// One line of `pin/add?progress=true`: progress, or the end.
#[derive(Deserialize)]
pub(super) struct PinAddLine {
    #[serde(rename = "Progress", default)]
    pub(super) progress: u64,
    #[serde(rename = "Bytes", default)]
    pub(super) bytes: u64,
    #[serde(rename = "Pins", default)]
    pins: Option<Vec<String>>,
}

impl PinAddLine {
    /// Whether this line says that `cid` is pinned.
    pub(super) fn names(&self, cid: &Cid) -> bool {
        self.pins.iter().flatten().any(|p| Cid::try_from(p.as_str()).is_ok_and(|c| c.hash() == cid.hash()))
    }
}

/// `pin/rm` and `pin/update`: what was done, to which CIDs.
#[derive(Deserialize)]
pub(super) struct PinsAnswer {
    #[serde(rename = "Pins")]
    pins: Vec<String>,
}

impl PinsAnswer {
    /// Something else that answers 200 must not pass for a daemon that did what it was told.
    pub(super) fn must_name(&self, cid: &Cid) -> Result<()> {
        let named = |pin: &String| Cid::try_from(pin.as_str()).is_ok_and(|c| c.hash() == cid.hash());
        match self.pins.iter().any(named) {
            true => Ok(()),
            false => {
                Err(Error::ipfs(format!("the IPFS daemon did not confirm what it was told to do with {cid}")))
            }
        }
    }
}

/// `swarm/connect`: what was done, in words.
#[derive(Deserialize)]
pub(super) struct ConnectAnswer {
    #[serde(rename = "Strings")]
    _words: Vec<String>,
}

/// One line of `pin/ls?stream=true`.
#[derive(Deserialize)]
pub(super) struct PinLine {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(rename = "Type", default)]
    pub(super) kind: String,
}

impl PinLine {
    pub(super) fn cid(&self) -> Result<Cid> {
        cid_of(&self.cid)
    }
}

/// One line of `block/put`.
#[derive(Deserialize)]
pub(super) struct BlockLine {
    #[serde(rename = "Key")]
    key: String,
}

impl BlockLine {
    pub(super) fn cid(&self) -> Option<Cid> {
        Cid::try_from(self.key.as_str()).ok()
    }
}

/// `repo/stat`.
#[derive(Deserialize)]
pub(super) struct StatAnswer {
    #[serde(rename = "RepoSize")]
    pub(super) repo_size: u64,
    #[serde(rename = "StorageMax", default)]
    pub(super) storage_max: Option<u64>,
}

/// `config/show`.
#[derive(Deserialize)]
pub(super) struct ConfigAnswer {
    #[serde(rename = "Datastore")]
    datastore: Datastore,
}

#[derive(Deserialize)]
struct Datastore {
    #[serde(rename = "StorageMax")]
    storage_max: String,
}

impl ConfigAnswer {
    pub(super) fn storage_max(&self) -> Result<u64> {
        parse_size(&self.datastore.storage_max).ok_or_else(|| {
            Error::ipfs(format!(
                "the IPFS daemon's configuration has Datastore.StorageMax {:?}, which is no size",
                self.datastore.storage_max
            ))
        })
    }
}

/// `10GB`, `1.5 GiB`, `1000`: sizes as Kubo's configuration writes them.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim().to_ascii_lowercase();
    let (base, letters) = match unit.strip_suffix("ib") {
        Some(letters) => (1024f64, letters),
        None => (1000f64, unit.strip_suffix('b').unwrap_or(&unit)),
    };
    let power = match letters {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    Some((number * base.powi(power)) as u64)
}

/// One line of `repo/gc?stream-errors=true`.
#[derive(Deserialize)]
pub(super) struct GcLine {
    #[serde(rename = "Key", default)]
    key: Option<GcKey>,
    #[serde(rename = "Error", default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct GcKey {
    #[serde(rename = "/", default)]
    cid: Option<String>,
}

impl GcLine {
    pub(super) fn into_cid(self) -> Result<Cid> {
        if let Some(error) = self.error.filter(|e| !e.is_empty()) {
            return Err(Error::ipfs(format!("the IPFS daemon could not collect all garbage: {error}")));
        }
        match self.key.and_then(|k| k.cid) {
            Some(cid) => cid_of(&cid),
            None => Err(Error::ipfs("the IPFS daemon removed a block without naming it")),
        }
    }
}

/// `swarm/peers`; no peers are `null`.
#[derive(Deserialize)]
pub(super) struct PeersAnswer {
    #[serde(rename = "Peers", default)]
    peers: Option<Vec<PeerAnswer>>,
}

#[derive(Deserialize)]
struct PeerAnswer {
    #[serde(rename = "Peer")]
    peer: String,
}

impl PeersAnswer {
    pub(super) fn into_peers(self) -> Result<Vec<PeerId>> {
        let parse = |p: PeerAnswer| {
            p.peer.parse().map_err(|e| Error::ipfs(format!("the IPFS daemon names a peer {:?}: {e}", p.peer)))
        };
        let mut peers = self.peers.unwrap_or_default().into_iter().map(parse).collect::<Result<Vec<_>>>()?;
        // One line per connection, but who is connected is what was asked.
        peers.sort_unstable();
        peers.dedup();
        Ok(peers)
    }
}

/// `resolve`.
#[derive(Deserialize)]
pub(super) struct ResolveAnswer {
    #[serde(rename = "Path")]
    path: String,
}

impl ResolveAnswer {
    pub(super) fn into_cid(self, asked: &str) -> Result<Cid> {
        let rest = self.path.strip_prefix("/ipfs/").unwrap_or(&self.path);
        match rest.trim_end_matches('/').split_once('/') {
            None => cid_of(rest.trim_end_matches('/')),
            Some((cid, inside)) => Err(Error::invalid(format!(
                "{asked:?} points into the block {cid} (at {inside:?}), not to a file or folder of its own"
            ))),
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn sizes_are_kubo_s() {
        for (text, size) in [
            ("10GB", 10_000_000_000),
            ("10 GB", 10_000_000_000),
            ("1GiB", 1 << 30),
            ("1.5kB", 1_500),
            ("1000", 1000),
            ("2TB", 2_000_000_000_000),
            ("512MiB", 512 << 20),
        ] {
            assert_eq!(parse_size(text), Some(size), "{text}");
        }
        for bad in ["", "GB", "10XB", "1.2.3GB", "-1GB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn odd_but_valid_answers_are_understood() {
        let peers: PeersAnswer = serde_json::from_str(r#"{"Peers":null}"#).expect("null");
        assert!(peers.into_peers().expect("none").is_empty());
        let line: PinAddLine = serde_json::from_str("{}").expect("heartbeat");
        assert_eq!((line.progress, line.pins), (0, None));
        let id: IdAnswer = serde_json::from_str(
            r#"{"ID":"12D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH","Addresses":["/ip4/1.2.3.4/tcp/1","/new/thing"]}"#,
        )
        .expect("id");
        let id = id.into_id().expect("id");
        assert_eq!(id.addresses.len(), 1);
        assert!(id.addresses[0]
            .to_string()
            .ends_with("/p2p/12D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH"));
        let gc: GcLine = serde_json::from_str(r#"{"Key":{},"Error":"disk on fire"}"#).expect("line");
        assert!(gc.into_cid().expect_err("error").message().contains("disk on fire"));
    }

    #[test]
    fn a_path_into_a_block_is_no_file() {
        let answer = ResolveAnswer {
            path: "/ipfs/bafkreib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy/a".into(),
        };
        assert_eq!(answer.into_cid("x").expect_err("inside").kind(), crate::Kind::Invalid);
    }
}
