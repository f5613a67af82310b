//! The JSON shapes of the REST API (reference F), shared by the server, the command line and tests.
//!
//! Field order is the order on the wire. `null` and `[]` are as ipfs-cluster writes them.

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::state::{Pin, PinMode, PinType};
use crate::tracker::Status;
use cid::Cid;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /version`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// The version.
    pub version: String,
}

/// Every error of the REST API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// HTTP status (0: an error of the client itself).
    pub code: u16,
    /// The sentence.
    pub message: String,
}

/// The IPFS half of [`Id`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IpfsIdJson {
    /// Peer id; absent when the daemon could not be asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Addresses with `/p2p/…`.
    #[serde(default)]
    pub addresses: Option<Vec<String>>,
    /// Why it could not be asked.
    #[serde(default)]
    pub error: String,
}

/// `GET /id`, and each line of `GET /peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Id {
    /// Peer id.
    pub id: String,
    /// Listen addresses with `/p2p/…`.
    pub addresses: Option<Vec<String>>,
    /// All members, this one included, sorted.
    pub cluster_peers: Option<Vec<String>>,
    /// Addresses of the others, with `/p2p/…`.
    pub cluster_peers_addresses: Option<Vec<String>>,
    /// Version.
    pub version: String,
    /// Build commit.
    pub commit: String,
    /// Protocol between peers.
    pub rpc_protocol_version: String,
    /// Why the peer could not be asked.
    pub error: String,
    /// Its IPFS node.
    pub ipfs: Option<IpfsIdJson>,
    /// Its name.
    pub peername: String,
    /// `learner` or `witness`; empty (and not shown) for an ordinary peer that votes. Pinfold's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
}

/// A pin as JSON (reference F.2). `Option`s that are `None` print `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinJson {
    /// Fewest copies, -1 everywhere.
    #[serde(default)]
    pub replication_factor_min: i32,
    /// Most copies.
    #[serde(default)]
    pub replication_factor_max: i32,
    /// Free text.
    #[serde(default)]
    pub name: String,
    /// `recursive` or `direct`.
    #[serde(default)]
    pub mode: String,
    /// Bytes.
    #[serde(default)]
    pub shard_size: u64,
    /// Never persisted.
    #[serde(default)]
    pub user_allocations: Option<Vec<String>>,
    /// Expiry; zero time for never.
    #[serde(default = "zero_time")]
    pub expire_at: Timestamp,
    /// `{}` in the answer of a POST, `null` from the state when empty.
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,
    /// CID of the pin this one replaced.
    #[serde(default)]
    pub pin_update: Option<String>,
    /// `null` in the answer of a POST, `[]` from the state.
    #[serde(default)]
    pub origins: Option<Vec<String>>,
    /// The CID.
    pub cid: String,
    /// `pin`, `meta-pin`, `clusterdag-pin`, `shard-pin`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Holders; `[]` for everywhere.
    #[serde(default)]
    pub allocations: Option<Vec<String>>,
    /// -1 recursive, 0 direct.
    #[serde(default = "recursive_depth")]
    pub max_depth: i32,
    /// Shard types only.
    #[serde(default)]
    pub reference: Option<String>,
    /// When it was pinned.
    #[serde(default = "zero_time")]
    pub timestamp: Timestamp,
}

fn zero_time() -> Timestamp {
    Timestamp::ZERO
}

fn recursive_depth() -> i32 {
    -1
}

/// Names of pin types on the wire.
pub const PIN_TYPES: [(PinType, &str); 4] = [
    (PinType::Data, "pin"),
    (PinType::Meta, "meta-pin"),
    (PinType::ClusterDag, "clusterdag-pin"),
    (PinType::Shard, "shard-pin"),
];

impl PinJson {
    /// A pin as read from the state.
    pub fn from_state(pin: &Pin) -> Self {
        PinJson {
            replication_factor_min: pin.replication_min,
            replication_factor_max: pin.replication_max,
            name: pin.name.clone(),
            mode: if pin.mode == PinMode::Direct { "direct" } else { "recursive" }.into(),
            shard_size: pin.shard_size,
            user_allocations: None,
            expire_at: pin.expire_at,
            metadata: (!pin.metadata.is_empty()).then(|| pin.metadata.clone()),
            pin_update: pin.pin_update.as_ref().map(ToString::to_string),
            origins: Some(pin.origins.iter().map(ToString::to_string).collect()),
            cid: pin.cid.to_string(),
            kind: PIN_TYPES.iter().find(|(k, _)| *k == pin.kind).map_or("pin", |(_, n)| n).into(),
            allocations: Some(pin.allocations.iter().map(ToString::to_string).collect()),
            max_depth: if pin.mode == PinMode::Direct { 0 } else { -1 },
            reference: pin.reference.as_ref().map(ToString::to_string),
            timestamp: pin.timestamp,
        }
    }

    /// A pin as the answer of a POST writes it (`metadata` `{}` and `origins` `null` when empty).
    pub fn from_post(pin: &Pin) -> Self {
        let mut json = Self::from_state(pin);
        json.metadata = Some(pin.metadata.clone());
        if pin.origins.is_empty() {
            json.origins = None;
        }
        json
    }

    /// Back to a [`Pin`], for state import.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] naming the field.
    pub fn to_pin(&self) -> Result<Pin> {
        let cid = |what: &str, text: &str| -> Result<Cid> {
            text.parse().map_err(|e| Error::invalid(format!("{what} \"{text}\" is not a CID: {e}")))
        };
        let mut pin = Pin::new(cid("cid", &self.cid)?, self.timestamp.trunc());
        pin.kind = match self.kind.as_str() {
            "" => PinType::Data,
            name => {
                PIN_TYPES
                    .iter()
                    .find(|(_, n)| *n == name)
                    .ok_or_else(|| {
                        Error::invalid(format!(
                            "type \"{name}\" is not one of pin, meta-pin, clusterdag-pin, shard-pin"
                        ))
                    })?
                    .0
            }
        };
        if self.mode == "direct" || self.max_depth == 0 {
            pin.mode = PinMode::Direct;
        }
        pin.name.clone_from(&self.name);
        (pin.replication_min, pin.replication_max) =
            (self.replication_factor_min, self.replication_factor_max);
        pin.shard_size = self.shard_size;
        pin.expire_at = self.expire_at;
        pin.metadata = self.metadata.clone().unwrap_or_default();
        pin.pin_update = self.pin_update.as_deref().map(|c| cid("pin_update", c)).transpose()?;
        pin.reference = self.reference.as_deref().map(|c| cid("reference", c)).transpose()?;
        for a in self.allocations.iter().flatten() {
            pin.allocations.push(
                a.parse().map_err(|e| Error::invalid(format!("allocation \"{a}\" is not a peer id: {e}")))?,
            );
        }
        for o in self.origins.iter().flatten() {
            pin.origins.push(
                o.parse::<Multiaddr>()
                    .map_err(|e| Error::invalid(format!("origin \"{o}\" is not an address: {e}")))?,
            );
        }
        Ok(pin)
    }
}

/// State of a pin on one peer (reference F.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PinInfo {
    /// The peer's name.
    pub peername: String,
    /// Its IPFS node, once known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipfs_peer_id: String,
    /// Addresses of that node, once known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipfs_peer_addresses: Vec<String>,
    /// State.
    pub status: Status,
    /// Since when.
    pub timestamp: Timestamp,
    /// Why, for errors.
    pub error: String,
    /// Attempts so far.
    pub attempt_count: u32,
    /// Whether it waits in the priority queue.
    pub priority_pin: bool,
}

/// State of a pin on all peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlobalPinInfo {
    /// The CID.
    pub cid: String,
    /// Name of the pin.
    pub name: String,
    /// Holders; `[]` everywhere, `null` unknown.
    pub allocations: Option<Vec<String>>,
    /// As stored.
    pub origins: Option<Vec<String>>,
    /// When pinned.
    pub created: Timestamp,
    /// As stored, `null` when empty.
    pub metadata: Option<BTreeMap<String, String>>,
    /// By peer id, sorted.
    pub peer_map: BTreeMap<String, PinInfo>,
}

/// One line of `POST /add`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddedOutput {
    /// Path as uploaded; empty for the wrapping folder.
    pub name: String,
    /// CID; `null` in progress lines.
    pub cid: Option<String>,
    /// Bytes so far (progress lines).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Cumulative DAG size.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Where the blocks went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocations: Vec<String>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A metric (reference F.5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Name: `ping`, `freespace`, …
    pub name: String,
    /// Whose.
    pub peer: String,
    /// Always text.
    pub value: String,
    /// Unix nanoseconds.
    pub expire: i64,
    /// Whether the value counts.
    pub valid: bool,
    /// For allocation.
    pub weight: i64,
    /// Whether allocation spreads over its values.
    pub partitionable: bool,
    /// Unix nanoseconds.
    pub received_at: i64,
}

/// An alert: the metric that expired, and when that was noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The metric.
    #[serde(flatten)]
    pub metric: Metric,
    /// When.
    pub triggered_at: Timestamp,
}

/// `GET /health/graph`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectGraph {
    /// Who answers.
    pub cluster_id: String,
    /// Names by peer id.
    pub id_to_peername: BTreeMap<String, String>,
    /// IPFS node → IPFS nodes it is connected to.
    pub ipfs_links: BTreeMap<String, Vec<String>>,
    /// Peer → peers it is connected to.
    pub cluster_links: BTreeMap<String, Vec<String>>,
    /// Peer → trusted (always, in Raft).
    pub cluster_trust_links: BTreeMap<String, bool>,
    /// Peer → its IPFS node.
    pub cluster_to_ipfs: BTreeMap<String, String>,
    /// Peers that are witnesses: they vote and have no IPFS node. Not shown when there is none. Pinfold's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<String>,
}

/// One removed block, or why it was not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GcKey {
    /// CID.
    pub key: Option<String>,
    /// Error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// GC on one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepoGc {
    /// Peer id.
    pub peer: String,
    /// Name.
    pub peername: String,
    /// What was removed.
    pub keys: Vec<GcKey>,
    /// Why it could not run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// `POST /ipfs/gc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlobalRepoGc {
    /// By peer id.
    pub peer_map: BTreeMap<String, RepoGc>,
}

/// One protocol of `GET /health/bandwidth`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bytes.
    pub total_in: u64,
    /// Bytes.
    pub total_out: u64,
    /// Bytes per second.
    pub rate_in: f64,
    /// Bytes per second.
    pub rate_out: f64,
}

/// A member as `GET /health/consensus` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberHealth {
    /// Peer id.
    pub peer: String,
    /// Name.
    pub peername: String,
    /// Raft id, hexadecimal.
    pub raft_id: String,
    /// `voter`, `learner` or `witness`.
    pub role: String,
    /// Whether it votes by now; a witness begins as one that does not, like everybody.
    #[serde(default)]
    pub votes: bool,
    /// Whether this peer has a connection to it.
    pub connected: bool,
    /// The version of its pinfold; empty while the cluster version is 1.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// `GET /health/consensus` (pinfold's own): what Raft thinks on this peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsensusHealth {
    /// Random id of the cluster, hexadecimal.
    pub cluster_id: String,
    /// Peer id of the leader; `null` when there is none.
    pub leader: Option<String>,
    /// Raft's term.
    pub term: u64,
    /// Index of the last committed entry.
    pub committed: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// What the log may say: raised when every member runs a pinfold that understands more.
    #[serde(default)]
    pub cluster_version: u16,
    /// All members, sorted by peer id.
    pub members: Vec<MemberHealth>,
}

/// Options of a pin as a client gives them (reference F.1), before defaults and allocation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PinOptions {
    /// Name.
    pub name: String,
    /// Mode.
    pub mode: PinMode,
    /// 0: cluster default.
    pub replication_min: i32,
    /// 0: cluster default.
    pub replication_max: i32,
    /// Bytes.
    pub shard_size: u64,
    /// Priority hints.
    pub user_allocations: Vec<PeerId>,
    /// Absolute expiry.
    pub expire_at: Option<Timestamp>,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
    /// Copy options and allocations of this pin.
    pub pin_update: Option<Cid>,
    /// Where the content can be had.
    pub origins: Vec<Multiaddr>,
}
