//! With whom the node is connected, and what it exchanged: `swarm/…`, `stats/bw`, `bitswap/…`.

use super::call::Call;
use super::reply::Reply;
use super::{human, Node};
use crate::api::query::parse_peer_id;
use crate::clock::parse_duration;
use crate::error::{Error, Result};
use crate::ipfs::embedded::local::Traffic;
use crate::net::split_p2p;
use crate::runtime;
use futures::stream;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// `stats/bw --poll` asks this often when it is not said.
const POLL: Duration = Duration::from_secs(1);
/// And no more often than this.
const MIN_POLL: Duration = Duration::from_millis(100);
/// Most addresses that one call connects to.
const MAX_CONNECTS: usize = 64;

#[derive(Serialize)]
struct Identify {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "PublicKey")]
    public_key: &'static str,
    #[serde(rename = "Addresses")]
    addresses: Option<Vec<String>>,
    #[serde(rename = "AgentVersion")]
    agent: String,
    #[serde(rename = "Protocols")]
    protocols: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Peer {
    #[serde(rename = "Addr")]
    address: String,
    #[serde(rename = "Peer")]
    peer: String,
    #[serde(rename = "Direction", skip_serializing_if = "Option::is_none")]
    direction: Option<u8>,
    #[serde(rename = "Identify")]
    identify: Identify,
}

/// `swarm/peers`. Nobody is `null`, not an empty list: so Kubo says it.
pub(super) fn peers(node: &Node, call: &Call) -> Result<Reply> {
    let embedded = node.embedded()?;
    let host = embedded.host();
    let verbose = call.flag("verbose", false);
    let direction = verbose || call.flag("direction", false);
    let identify = verbose || call.flag("identify", false);
    let peers: Vec<Peer> = host
        .connected()
        .into_iter()
        .filter_map(|peer| {
            let info = host.peer_info(&peer)?;
            let told = identify.then(|| {
                let addresses = host.addresses_of(&peer).iter().map(|a| format!("{a}/p2p/{peer}")).collect();
                (peer.to_string(), Some(addresses), info.agent.clone(), Some(info.protocols.clone()))
            });
            let (id, addresses, agent, protocols) = told.unwrap_or_default();
            Some(Peer {
                address: info.address.map(|a| a.to_string()).unwrap_or_default(),
                peer: peer.to_string(),
                // Kubo's numbers: 1 for who dialled us, 2 for whom we dialled.
                direction: direction.then_some(if info.outgoing { 2 } else { 1 }),
                identify: Identify { id, public_key: "", addresses, agent, protocols },
            })
        })
        .collect();
    let answer = json!({ "Peers": (!peers.is_empty()).then_some(&peers) });
    Reply::either(call.text, &answer, || {
        peers
            .iter()
            .map(|peer| {
                let arrow = match peer.direction {
                    Some(2) => " outbound",
                    Some(_) => " inbound",
                    None => "",
                };
                format!("{}/p2p/{}{arrow}\n", peer.address, peer.peer)
            })
            .collect()
    })
}

/// A multiaddress; Kubo's words for what is none.
fn address(text: &str) -> Result<Multiaddr> {
    let bad = |why: &str| Error::invalid(format!("failed to parse multiaddr {text:?}: {why}"));
    if !text.starts_with('/') {
        return Err(bad("must begin with /"));
    }
    text.parse().map_err(|e: libp2p::multiaddr::Error| bad(&e.to_string()))
}

/// The peer that an address names.
fn peer_of(address: &Multiaddr) -> Result<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Ok(peer),
        _ => Err(Error::invalid(format!("found no ipfs peers at {address}"))),
    }
}

#[derive(Serialize)]
struct Strings {
    #[serde(rename = "Strings")]
    strings: Vec<String>,
}

impl Strings {
    fn reply(self, text: bool) -> Result<Reply> {
        Reply::either(text, &self, || self.strings.iter().map(|line| format!("{line}\n")).collect())
    }
}

/// All arguments as addresses with peers, before anything is done.
fn addresses(call: &Call) -> Result<Vec<(PeerId, Multiaddr)>> {
    if call.args.len() > MAX_CONNECTS {
        return Err(Error::too_large(format!(
            "{} addresses at once; {MAX_CONNECTS} at most",
            call.args.len()
        )));
    }
    let all: Vec<Multiaddr> = call.args.iter().map(|text| address(text)).collect::<Result<_>>()?;
    all.into_iter().map(|address| Ok((peer_of(&address)?, address))).collect()
}

/// `swarm/connect`.
pub(super) async fn connect(node: &Node, call: &Call) -> Result<Reply> {
    let embedded = node.embedded()?;
    let host = embedded.host();
    let mut strings = Vec::new();
    for (peer, address) in addresses(call)? {
        let failed = |why: &str| Error::unavailable(format!("connect {peer} failure: {why}"));
        if peer == host.peer_id() {
            return Err(failed("failed to dial: dial to self attempted"));
        }
        let known = split_p2p(&address).map(|(_, rest)| rest).ok().filter(|rest| !rest.is_empty());
        let done = match known {
            Some(_) => host.connect_addr(address).await.map(drop),
            // Only the peer's name: its addresses are known or not.
            None => host.connect(peer, Vec::new()).await,
        };
        done.map_err(|e| failed(e.message()))?;
        strings.push(format!("connect {peer} success"));
    }
    Strings { strings }.reply(call.text)
}

/// `swarm/disconnect`.
pub(super) fn disconnect(node: &Node, call: &Call) -> Result<Reply> {
    let embedded = node.embedded()?;
    let host = embedded.host();
    let done = |(peer, _): (PeerId, Multiaddr)| {
        if !host.is_connected(&peer) {
            return format!("disconnect {peer} failure: not connected");
        }
        host.disconnect(peer);
        format!("disconnect {peer} success")
    };
    Strings { strings: addresses(call)?.into_iter().map(done).collect() }.reply(call.text)
}

/// `swarm/addrs`: where the peers are that the node knows.
pub(super) fn addrs(node: &Node, call: &Call) -> Result<Reply> {
    let embedded = node.embedded()?;
    let host = embedded.host();
    let texts = |addresses: Vec<Multiaddr>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    all.insert(host.peer_id().to_string(), texts(host.addresses()));
    for peer in host.connected() {
        all.insert(peer.to_string(), texts(host.addresses_of(&peer)));
    }
    Reply::either(call.text, &json!({ "Addrs": all }), || {
        let mut out = String::new();
        for (peer, addresses) in &all {
            out.push_str(&format!("{peer} ({})\n", addresses.len()));
            addresses.iter().for_each(|address| out.push_str(&format!("\t{address}\n")));
        }
        out
    })
}

/// `swarm/addrs/local`.
pub(super) fn addrs_local(node: &Node, call: &Call) -> Result<Reply> {
    let embedded = node.embedded()?;
    let host = embedded.host();
    let suffix = if call.flag("id", false) { format!("/p2p/{}", host.peer_id()) } else { String::new() };
    let strings = host.addresses().iter().map(|address| format!("{address}{suffix}")).collect();
    Strings { strings }.reply(call.text)
}

#[derive(Serialize)]
struct Bandwidth {
    #[serde(rename = "TotalIn")]
    total_in: u64,
    #[serde(rename = "TotalOut")]
    total_out: u64,
    #[serde(rename = "RateIn")]
    rate_in: f64,
    #[serde(rename = "RateOut")]
    rate_out: f64,
}

impl From<Traffic> for Bandwidth {
    fn from(t: Traffic) -> Self {
        Bandwidth { total_in: t.total_in, total_out: t.total_out, rate_in: t.rate_in, rate_out: t.rate_out }
    }
}

/// `stats/bw`: all traffic of the node; once, or again and again until the client has enough.
pub(super) fn bandwidth(node: &Node, call: &Call) -> Result<Reply> {
    for option in ["peer", "proto"] {
        if let Some(value) = call.option(option).filter(|value| !value.is_empty()) {
            if option == "peer" {
                parse_peer_id(value)?;
            }
            return Err(Error::invalid(format!(
                "traffic is counted for the whole node, not by {option}: ask without {option}, or see bitswap ledgers in ipfs bitswap stat"
            )));
        }
    }
    let interval = match call.option("interval").filter(|text| !text.is_empty()) {
        Some(text) => {
            parse_duration(text).map_err(|_| Error::invalid(format!("time: invalid duration {text:?}")))?
        }
        None => POLL,
    };
    let poll = call.flag("poll", false).then(|| interval.max(MIN_POLL));
    let embedded = node.embedded()?;
    let lines = stream::try_unfold(Some((embedded, false)), move |state| async move {
        let Some((embedded, told)) = state else { return Ok(None) };
        if let (true, Some(pause)) = (told, poll) {
            runtime::sleep(pause).await;
        }
        let line = Bandwidth::from(embedded.traffic());
        Ok::<_, Error>(Some((line, poll.map(|_| (embedded, true)))))
    });
    Ok(Reply::lines(call.text, lines, |line: &Bandwidth| {
        format!(
            "Bandwidth\nTotalIn: {}\nTotalOut: {}\nRateIn: {}/s\nRateOut: {}/s\n",
            human::bytes(line.total_in),
            human::bytes(line.total_out),
            human::bytes(line.rate_in as u64),
            human::bytes(line.rate_out as u64),
        )
    }))
}

/// `bitswap/stat`.
pub(super) fn bitswap_stat(node: &Node, call: &Call) -> Result<Reply> {
    let embedded = node.embedded()?;
    let stats = embedded.bitswap().stats();
    let wants = slashes(node)?;
    let peers: Vec<String> = embedded.host().connected().iter().map(ToString::to_string).collect();
    let answer = json!({
        "Wantlist": wants, "Peers": peers,
        "BlocksReceived": stats.blocks_received, "DataReceived": stats.bytes_received,
        "DupBlksReceived": stats.unwanted_blocks, "DupDataReceived": stats.unwanted_bytes,
        "MessagesReceived": stats.messages_received, "BlocksSent": stats.blocks_sent, "DataSent": stats.bytes_sent,
    });
    Reply::either(call.text, &answer, || {
        let size = |n: u64| if call.flag("human", false) { human::bytes(n) } else { n.to_string() };
        let wanted: String =
            wants.iter().filter_map(|w| w["/"].as_str()).map(|cid| format!("\t\t{cid}\n")).collect();
        format!(
            "bitswap status\n\tblocks received: {}\n\tblocks sent: {}\n\tdata received: {}\n\tdata sent: {}\n\t\
             dup blocks received: {}\n\tdup data received: {}\n\twantlist [{} keys]\n{wanted}\tpartners [{}]\n",
            stats.blocks_received,
            stats.blocks_sent,
            size(stats.bytes_received),
            size(stats.bytes_sent),
            stats.unwanted_blocks,
            size(stats.unwanted_bytes),
            wants.len(),
            peers.len(),
        )
    })
}

fn slashes(node: &Node) -> Result<Vec<serde_json::Value>> {
    let mut wants = node.embedded()?.bitswap().wantlist();
    wants.sort();
    Ok(wants.iter().map(|cid| json!({ "/": cid.to_string() })).collect())
}

/// `bitswap/wantlist`: of this node.
pub(super) fn wantlist(node: &Node, call: &Call) -> Result<Reply> {
    if let Some(text) = call.option("peer").filter(|text| !text.is_empty()) {
        if parse_peer_id(text)? != node.embedded()?.host().peer_id() {
            return Err(Error::invalid("only this node's own want list can be asked for: leave peer away"));
        }
    }
    let wants = slashes(node)?;
    Reply::either(call.text, &json!({ "Keys": wants }), || {
        wants.iter().filter_map(|w| w["/"].as_str()).map(|cid| format!("{cid}\n")).collect()
    })
}
