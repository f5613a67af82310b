//! Finding the other members again, wherever they are by now, and remembering where they were.
//!
//! Members' addresses are replicated, so a peer that was away for long knows where its cluster *was*. While it has
//! no leader it therefore also knocks at every address that it was ever told of: the configuration's and the
//! last run's. One connection is enough: whoever answers and is a member feeds it the log, and with that the rest.
//! Multicast discovery helps in the same way. Neither ever makes a member of anyone: it only opens connections,
//! and what belongs to another cluster is told and left alone.

use crate::cluster::founding::Desk;
use crate::config::{Config, Folder};
use crate::consensus::founding::Answer;
use crate::consensus::{Consensus, WeakConsensus};
use crate::net::{split_p2p, Host, HostEvent};
use crate::runtime;
use crate::state::Event;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two rounds of knocking while there is no leader.
const KNOCK: Duration = Duration::from_secs(5);
/// Before the first one: members are dialled anyway.
const FIRST_KNOCK: Duration = Duration::from_secs(2);
/// After a change of the members, before they are written down: changes come in bursts.
const SETTLE: Duration = Duration::from_secs(1);

/// Addresses by peer: those this start was told, those of the configuration, those of the last run.
pub(super) fn known_addresses(
    folder: &Folder,
    config: &Config,
    told: &[Multiaddr],
) -> BTreeMap<PeerId, Vec<Multiaddr>> {
    let cluster = &config.cluster;
    let mut known = told.to_vec();
    known
        .extend([&cluster.peer_addresses, &cluster.peers, &cluster.bootstrap].into_iter().flatten().cloned());
    match folder.read_peerstore() {
        Ok((addresses, warnings)) => {
            known.extend(addresses);
            warnings.iter().for_each(|w| log::warn!(target: "pstoremgr", "{w}"));
        }
        Err(error) => log::warn!(target: "pstoremgr", "{error}"),
    }
    let mut by_peer: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    for (peer, address) in known.iter().filter_map(|a| split_p2p(a).ok()) {
        let addresses = by_peer.entry(peer).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    by_peer
}

/// Knocks at all known addresses while there is no leader. Ends with consensus.
pub(super) async fn knock(
    host: Host,
    desk: Desk,
    consensus: WeakConsensus,
    known: BTreeMap<PeerId, Vec<Multiaddr>>,
) {
    runtime::sleep(FIRST_KNOCK).await;
    let mut strangers = BTreeSet::new();
    loop {
        let Some(status) = consensus.upgrade().map(|c| c.status()) else { return };
        if status.leader.is_none() {
            for (peer, addresses) in known.iter().filter(|(p, _)| **p != host.peer_id()) {
                if !host.is_connected(peer) {
                    if let Err(error) = host.connect(*peer, addresses.clone()).await {
                        log::debug!(target: "cluster", "knocking: {error}");
                        continue;
                    }
                }
                if let Ok(Answer::Member(theirs)) = desk.ask(*peer, &[], status.raft_id).await {
                    if theirs.cluster_id != status.cluster_id && strangers.insert(*peer) {
                        log::error!(
                            target: "cluster",
                            "peer {peer} belongs to another cluster by now ({:016x}, ours is {:016x}): one of the two was founded anew; `pinfold state cleanup` on the peers of the one that is to go",
                            theirs.cluster_id,
                            status.cluster_id
                        );
                    }
                }
            }
        }
        runtime::sleep(KNOCK).await;
    }
}

/// Multicast discovery only tells where members are; who is a member is decided by the log.
pub(super) async fn listen_to_discovery(host: Host, consensus: Consensus) {
    let events = host.events();
    while let Ok(event) = events.recv().await {
        if let HostEvent::Discovered(peer, addresses) = event {
            let member = consensus.is_member(&peer);
            log::debug!(target: "cluster", "found {peer} nearby, {}", if member { "a member" } else { "no member" });
            if member && !host.is_connected(&peer) {
                if let Err(error) = host.connect(peer, addresses).await {
                    log::debug!(target: "cluster", "found {peer} nearby, but: {error}");
                }
            }
        }
    }
}

/// Where the other members are, for the next start.
pub(super) fn member_addresses(me: PeerId, consensus: &Consensus) -> Vec<Multiaddr> {
    let members = consensus.members();
    let others = members.into_iter().filter(|m| m.peer_id != me);
    others.flat_map(|m| m.addresses.into_iter().map(move |a| a.with(Protocol::P2p(m.peer_id)))).collect()
}

/// Writes the addresses of the members down whenever they change, so that a peer that loses its data finds home.
pub(super) async fn keep_peerstore(folder: Folder, me: PeerId, consensus: WeakConsensus) {
    let Some(events) = consensus.upgrade().map(|c| c.member_events()) else { return };
    let mut written = folder.read_peerstore().map(|(all, _)| all).unwrap_or_default();
    loop {
        {
            let Some(consensus) = consensus.upgrade() else { return };
            let addresses = member_addresses(me, &consensus);
            let removed = consensus.status().removed;
            drop(consensus);
            if !addresses.is_empty() && !removed && addresses != written {
                let (folder, copy) = (folder.clone(), addresses.clone());
                match runtime::unblock(move || folder.write_peerstore(&copy)).await {
                    Ok(()) => written = addresses,
                    Err(error) => log::warn!(target: "pstoremgr", "{error}"),
                }
            }
        }
        loop {
            match events.recv().await {
                Ok(Event::MembersChanged | Event::Replaced) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        runtime::sleep(SETTLE).await;
        while events.try_recv().is_ok() {}
    }
}
