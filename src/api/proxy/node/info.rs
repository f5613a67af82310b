//! Who the node is, what it can do and how much it holds: `version`, `id`, `commands`, `config`, `key/list`, `repo/…`.

use super::call::{base_of, Call};
use super::reply::Reply;
use super::table::{Opt, COMMANDS, GLOBAL};
use super::{human, Node, KUBO_VERSION, REPO_VERSION};
use crate::error::{Error, Result};
use cid::multibase::Base;
use cid::Cid;
use data_encoding::BASE64;
use futures::{stream, StreamExt};
use libp2p::PeerId;
use serde::Serialize;
use serde_json::{json, Value};
use std::collections::BTreeMap;

/// Multicodec of a peer id written as a CID.
const LIBP2P_KEY: u64 = 0x72;
/// Protocols that this node speaks.
const PROTOCOLS: [&str; 4] =
    [crate::ipfs::embedded::bitswap::PROTOCOL, "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"];

/// `version`. Clients decide by it what they may ask, so it is the version of the API; what answers is in `Commit`.
pub(super) fn version(call: &Call) -> Result<Reply> {
    let system = format!("{}/{}", go_arch(), std::env::consts::OS);
    let commit = concat!("pinfold-", env!("CARGO_PKG_VERSION"));
    let version = json!({
        "Version": KUBO_VERSION, "Commit": commit, "Repo": REPO_VERSION, "System": system, "Golang": "none",
    });
    Reply::either(call.text, &version, || {
        if call.flag("all", false) {
            format!(
                "Kubo version: {KUBO_VERSION}-{commit}\nRepo version: {REPO_VERSION}\nSystem version: {system}\nGolang version: none\n"
            )
        } else if call.flag("repo", false) {
            format!("{REPO_VERSION}\n")
        } else {
            let commit = if call.flag("commit", false) { format!("-{commit}") } else { String::new() };
            let name = if call.flag("number", false) { "" } else { "ipfs version " };
            format!("{name}{KUBO_VERSION}{commit}\n")
        }
    })
}

/// Go's name of this machine's architecture.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[derive(Serialize)]
struct Id {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "PublicKey")]
    public_key: String,
    #[serde(rename = "Addresses")]
    addresses: Vec<String>,
    #[serde(rename = "AgentVersion")]
    agent: String,
    #[serde(rename = "Protocols")]
    protocols: Option<Vec<String>>,
}

/// The public key inside of a peer id: the short ones are there whole.
fn key_of(peer: &PeerId) -> String {
    let hash = peer.as_ref();
    if hash.code() == crate::ipfs::unixfs::hash::IDENTITY {
        BASE64.encode(hash.digest())
    } else {
        String::new()
    }
}

/// A peer id in the base that was asked for; `b58mh` is its usual form.
fn peer_text(peer: &PeerId, base: &str) -> Result<String> {
    if base.is_empty() || base == "b58mh" {
        return Ok(peer.to_string());
    }
    let cid = Cid::new_v1(LIBP2P_KEY, multihash_of(peer)?);
    cid.to_string_of_base(base_of(base)?).map_err(|e| Error::invalid(format!("peerid-base {base}: {e}")))
}

fn multihash_of(peer: &PeerId) -> Result<multihash::Multihash<64>> {
    multihash::Multihash::from_bytes(&peer.to_bytes())
        .map_err(|e| Error::internal(format!("a peer id that is no multihash: {e}")))
}

/// `id`: of this node, or of one that it is connected with.
pub(super) async fn id(node: &Node, call: &Call) -> Result<Reply> {
    let embedded = node.embedded()?;
    let host = embedded.host();
    let me = host.peer_id();
    let peer = match call.args.first().map(String::as_str).filter(|text| *text != "self") {
        None => me,
        Some(text) => {
            crate::api::query::parse_peer_id(text).map_err(|_| Error::invalid("invalid peer id"))?
        }
    };
    let base = call.option("peerid-base").unwrap_or("");
    let with_id = |addresses: Vec<libp2p::Multiaddr>| {
        addresses.into_iter().map(|address| format!("{address}/p2p/{peer}")).collect::<Vec<_>>()
    };
    let id = if peer == me {
        Id {
            id: peer_text(&peer, base)?,
            public_key: BASE64.encode(&embedded.public_key().encode_protobuf()),
            addresses: with_id(host.addresses()),
            agent: embedded.agent().to_owned(),
            protocols: Some(PROTOCOLS.map(str::to_owned).to_vec()),
        }
    } else {
        let info = host.peer_info(&peer);
        if info.is_none() && !call.offline {
            return Err(Error::not_found(format!(
                "this node is not connected with {peer}: connect to it first (ipfs swarm connect), or pass --offline"
            )));
        }
        let mut addresses = with_id(host.addresses_of(&peer));
        if addresses.is_empty() {
            addresses.push(format!("/p2p/{peer}"));
        }
        Id {
            id: peer_text(&peer, base)?,
            public_key: key_of(&peer),
            addresses,
            agent: info.as_ref().map(|info| info.agent.clone()).unwrap_or_default(),
            protocols: info.map(|info| info.protocols),
        }
    };
    Reply::either(call.text, &id, || match call.option("format").filter(|f| !f.is_empty()) {
        Some(format) => format
            .replace("<id>", &id.id)
            .replace("<aver>", &id.agent)
            .replace("<pubkey>", &id.public_key)
            .replace("<addrs>", &id.addresses.join("\n"))
            .replace("<protocols>", &id.protocols.clone().unwrap_or_default().join("\n"))
            .replace("\\n", "\n")
            .replace("\\t", "\t"),
        None => indented(&id, "\t") + "\n\n",
    })
}

/// JSON for reading.
fn indented<T: Serialize>(value: &T, indent: &str) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    // What is serialised here is text and numbers, which JSON can always hold.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter));
    String::from_utf8(out).unwrap_or_default()
}

/// One command of the tree that `commands` answers.
#[derive(Default)]
struct Branch {
    options: &'static [Opt],
    below: BTreeMap<&'static str, Branch>,
}

impl Branch {
    fn json(&self, name: &str) -> Value {
        let options: Vec<Value> = self.options.iter().map(|(names, _)| json!({ "Names": names })).collect();
        let below: Vec<Value> = self.below.iter().map(|(name, branch)| branch.json(name)).collect();
        json!({ "Name": name, "Subcommands": below, "Options": options })
    }

    fn words(&self, path: &str, flags: bool, out: &mut String) {
        out.push_str(path);
        out.push('\n');
        if flags {
            for (names, _) in self.options {
                let forms: Vec<String> = names
                    .iter()
                    .map(|name| {
                        format!("{path} {}{name}", if name.chars().count() == 1 { "-" } else { "--" })
                    })
                    .collect();
                out.push_str(&forms.join(" / "));
                out.push('\n');
            }
        }
        for (name, branch) in &self.below {
            branch.words(&format!("{path} {name}"), flags, out);
        }
    }
}

/// `commands`: what this node answers.
pub(super) fn commands(call: &Call) -> Result<Reply> {
    let mut root = Branch { options: GLOBAL, ..Branch::default() };
    for command in COMMANDS {
        let branch =
            command.path.split('/').fold(&mut root, |branch, name| branch.below.entry(name).or_default());
        branch.options = command.options;
    }
    Reply::either(call.text, &root.json("ipfs"), || {
        let mut out = String::new();
        root.words("ipfs", call.flag("flags", false), &mut out);
        out
    })
}

/// The configuration as Kubo's would look: what clients read in it.
async fn settings(node: &Node) -> Result<Value> {
    let embedded = node.embedded()?;
    let host = embedded.host();
    let swarm: Vec<String> = host.addresses().iter().map(ToString::to_string).collect();
    let stat = node.ipfs.repo_stat().await?;
    Ok(json!({
        "Addresses": { "Announce": [], "Swarm": swarm },
        "Bootstrap": [],
        "Datastore": { "StorageMax": storage_text(stat.storage_max), "StorageGCWatermark": 90, "GCPeriod": "0s" },
        "Identity": { "PeerID": host.peer_id().to_string() },
        "Routing": { "Type": "none" },
        "Version": { "AgentSuffix": embedded.agent() },
    }))
}

/// A size as Kubo's configuration has it: `10GB`, or in bytes when it is not that round.
fn storage_text(bytes: u64) -> String {
    const GB: u64 = 1_000_000_000;
    if bytes > 0 && bytes.is_multiple_of(GB) {
        format!("{}GB", bytes / GB)
    } else {
        format!("{bytes}B")
    }
}

/// `config/show`.
pub(super) async fn config_show(node: &Node) -> Result<Reply> {
    Reply::json(&settings(node).await?)
}

/// `config`: one value of it.
pub(super) async fn config(node: &Node, call: &Call) -> Result<Reply> {
    let [key, rest @ ..] = call.args.as_slice() else {
        return Err(Error::invalid("argument \"key\" is required"));
    };
    if key.to_ascii_lowercase().starts_with("identity.privkey") {
        return Err(Error::invalid("cannot show or change private key through API"));
    }
    if !rest.is_empty() {
        return Err(Error::invalid(
            "the embedded IPFS node is configured in service.json (ipfs_connector.embedded), not over this API",
        ));
    }
    let all = settings(node).await?;
    let value = key.split('.').try_fold(&all, |value, name| value.get(name));
    let value = value.ok_or_else(|| {
        Error::not_found(format!("failed to get config value: {:?}", format!("{key} not found")))
    })?;
    Reply::either(call.text, &json!({ "Key": key, "Value": value }), || match value {
        Value::String(text) => format!("{text}\n"),
        other => indented(other, "  ") + "\n",
    })
}

/// `key/list`: the node's own key and no other.
pub(super) fn key_list(node: &Node, call: &Call) -> Result<Reply> {
    let peer = node.embedded()?.host().peer_id();
    let base = match call.option("ipns-base").filter(|base| !base.is_empty()) {
        Some("b58mh") => None,
        Some(base) => Some(base_of(base)?),
        None => Some(Base::Base36Lower),
    };
    let id = match base {
        None => peer.to_string(),
        Some(base) => Cid::new_v1(LIBP2P_KEY, multihash_of(&peer)?)
            .to_string_of_base(base)
            .map_err(|e| Error::invalid(format!("ipns-base: {e}")))?,
    };
    Reply::either(call.text, &json!({ "Keys": [{ "Name": "self", "Id": id }] }), || {
        if call.flag("l", false) {
            format!("{id} self \n")
        } else {
            "self\n".into()
        }
    })
}

/// `repo/stat`: of this node alone; the proxy adds up the cluster's.
pub(super) async fn repo_stat(node: &Node, call: &Call) -> Result<Reply> {
    let stat = node.ipfs.repo_stat().await?;
    let only = call.flag("size-only", false);
    let (objects, path, version) = if only {
        (0, String::new(), String::new())
    } else {
        (
            stat.objects.unwrap_or(0),
            node.embedded()?.folder().display().to_string(),
            format!("fs-repo@{REPO_VERSION}"),
        )
    };
    let answer = json!({
        "RepoSize": stat.repo_size, "StorageMax": stat.storage_max, "NumObjects": objects, "RepoPath": path,
        "Version": version,
    });
    Reply::either(call.text, &answer, || {
        let size = |n: u64| if call.flag("human", false) { human::bytes(n) } else { n.to_string() };
        let sizes = format!("RepoSize:   {}\nStorageMax: {}\n", size(stat.repo_size), size(stat.storage_max));
        if only {
            return sizes;
        }
        format!("NumObjects: {objects}\n{sizes}RepoPath:   {path}\nVersion:    {version}\n")
    })
}

/// `repo/version`.
pub(super) fn repo_version(call: &Call) -> Result<Reply> {
    Reply::either(call.text, &json!({ "Version": REPO_VERSION }), || {
        let name = if call.flag("quiet", false) { "" } else { "ipfs repo version " };
        format!("{name}fs-repo@{REPO_VERSION}\n")
    })
}

#[derive(Serialize)]
struct Verified {
    #[serde(rename = "Msg")]
    message: String,
    #[serde(rename = "Progress")]
    progress: u64,
}

/// `repo/verify`: reads every block.
pub(super) async fn repo_verify(node: &Node) -> Result<Reply> {
    let blocks = node.embedded()?.verify().await?;
    let lines = stream::try_unfold(Some((blocks, 0_u64, 0_u64)), |state| async move {
        let Some((mut blocks, mut seen, mut bad)) = state else { return Ok(None) };
        match blocks.next().await.transpose()? {
            Some((cid, damage)) => {
                seen += 1;
                bad += u64::from(damage.is_some());
                let message =
                    damage.map(|e| format!("block {cid} was corrupt ({})", e.message())).unwrap_or_default();
                let progress = if message.is_empty() { seen } else { 0 };
                Ok(Some((Verified { message, progress }, Some((blocks, seen, bad)))))
            }
            None if bad > 0 => Err(Error::corrupt("verify complete, some blocks were corrupt")),
            None => {
                let message = "verify complete, all blocks validated.".into();
                Ok(Some((Verified { message, progress: 0 }, None)))
            }
        }
    });
    Ok(Reply::lines(false, lines, |line: &Verified| line.message.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_the_configuration_are_read_back() {
        assert_eq!(storage_text(10_000_000_000), "10GB");
        assert_eq!(storage_text(1_234), "1234B");
        assert_eq!(storage_text(0), "0B");
    }

    #[test]
    fn every_command_is_in_the_tree_once() {
        let mut root = Branch::default();
        for command in COMMANDS {
            let branch = command.path.split('/').fold(&mut root, |b, name| b.below.entry(name).or_default());
            branch.options = command.options;
        }
        let mut out = String::new();
        root.words("ipfs", false, &mut out);
        for command in COMMANDS {
            let line = format!("ipfs {}\n", command.path.replace('/', " "));
            assert_eq!(out.matches(&line).count(), 1, "{line}");
        }
        let json = root.json("ipfs");
        assert_eq!(json["Name"], "ipfs");
        assert!(json["Subcommands"].as_array().is_some_and(|list| list.iter().any(|c| c["Name"] == "dag")));
    }
}
