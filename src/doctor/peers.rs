//! The other peers: their addresses from the peerstore and the configuration, dialled as the daemon would.
//!
//! The whole handshake is done (secret, noise, peer id), under a fresh identity, so that a wrong secret, another peer at
//! the address and a firewall each show as what they are. A member that the running daemon reaches counts as
//! reached, whatever became of an old address of it.

use super::daemon::Told;
use super::{quoted, Finding};
use crate::config::{Config, Env, Folder, Identity};
use crate::error::{Error, Kind};
use crate::net::{split_p2p, Host, HostConfig};
use futures::stream::{self, StreamExt};
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most peers that are dialled.
const MAX_PEERS: usize = 64;
/// Peers that are dialled at once.
const AT_ONCE: usize = 8;
/// A dial may take at least this long, and at most [`LONGEST`], whatever the configuration says.
const SHORTEST: Duration = Duration::from_secs(1);
/// See [`SHORTEST`].
const LONGEST: Duration = Duration::from_secs(10);

/// Dials all that are known.
pub(super) async fn look(folder: &Folder, config: &Config, env: &Env, told: Option<&Told>) -> Vec<Finding> {
    let (stored, mut findings) = match folder.read_peerstore() {
        Ok((addresses, warnings)) => {
            let fix = format!("remove the line from {}", quoted(&folder.peerstore()));
            let bad = warnings.into_iter().map(|warning| Finding::warn("peers", warning, fix.clone()));
            (addresses, bad.collect())
        }
        Err(error) => {
            let fix = format!("rm {}    (it is written anew)", quoted(&folder.peerstore()));
            (Vec::new(), vec![Finding::warn("peers", error.to_string(), fix)])
        }
    };
    let me = Identity::load(folder, None, env).ok().map(|(identity, _)| identity.peer_id());
    let c = &config.cluster;
    let mut known: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    for address in stored.iter().chain(&c.peer_addresses).chain(&c.peers).chain(&c.bootstrap) {
        let Ok((peer, address)) = split_p2p(address) else { continue };
        let reached = told.and_then(|told| told.members.get(&peer.to_string()));
        // What the daemon said of a member was told already, good or bad.
        if Some(peer) != me && reached.is_none() {
            known.entry(peer).or_default().push(address);
        }
    }
    if known.is_empty() {
        let others = told.map_or(0, |told| told.members.len().saturating_sub(1));
        let unreached = told.map_or(0, |told| told.members.values().filter(|error| !error.is_empty()).count());
        if findings.is_empty() && unreached == 0 {
            findings.push(Finding::ok(
                "peers",
                if others > 0 { format!("the daemon reaches all {others} others") } else { "no other peer is known".into() },
            ));
        }
        return findings;
    }
    let limit = c.dial_peer_timeout.clamp(SHORTEST, LONGEST);
    let host = Host::start(HostConfig {
        keypair: libp2p::identity::Keypair::generate_ed25519(),
        psk: c.secret.psk(),
        listen: Vec::new(),
        announce: Vec::new(),
        agent: format!("pinfold-doctor/{}", crate::VERSION),
        protocol_version: "/pinfold/1".into(),
        dial_timeout: limit,
        mdns: None,
        max_connections: MAX_PEERS,
    })
    .await;
    let host = match host {
        Ok(host) => host,
        Err(error) => {
            findings.push(Finding::fail("peers", format!("no connection can be tried: {error}"), ""));
            return findings;
        }
    };
    let dials = known.into_iter().take(MAX_PEERS).map(|(peer, addresses)| {
        let host = host.clone();
        async move { judge(peer, host.connect(peer, addresses).await) }
    });
    findings.extend(stream::iter(dials).buffered(AT_ONCE).collect::<Vec<_>>().await);
    host.close().await;
    findings
}

fn judge(peer: PeerId, dialled: crate::Result<()>) -> Finding {
    let error: Error = match dialled {
        Ok(()) => return Finding::ok("peers", format!("{peer} answers, with our secret")),
        Err(error) => error,
    };
    let text = error.message();
    let fix = if text.contains("secret") {
        "write the same cluster.secret into service.json of every peer, and start them again".to_owned()
    } else if error.kind() == Kind::Conflict {
        format!("if that peer was made anew: pinfold peers rm {peer} on a running member")
    } else {
        "start the daemon there (pinfold up); is the board on, the cable in, port 9096 open in its firewall?".to_owned()
    };
    Finding::fail("peers", text, fix)
}
