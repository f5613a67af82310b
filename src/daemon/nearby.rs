//! Clusters nearby: what multicast discovery tells about others that have the same secret.
//!
//! One secret in two clusters happens: two boards of one image, each started alone. They must never become one by
//! meeting on a network (both have a history, and Raft knows one), so discovery never makes a member of anyone; but it
//! is worth a sentence, for one of the two is probably a mistake. And a fresh peer that was told of nobody and hears of
//! two clusters does not choose: it ends with a sentence that names both.
//!
//! Whoever has another secret does not answer, and is none of our business.

use crate::cluster::founding::Desk;
use crate::config::{Config, Env, Folder};
use crate::consensus::founding::{Answer, Belonging};
use crate::consensus::Consensus;
use crate::error::{Error, Result};
use crate::net::{Host, HostEvent};
use crate::runtime;
use crate::state::RaftId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a peer that is about to found a cluster of its own listens for others first. Neighbours answer a question
/// by multicast within 20 to 120 ms.
const LISTEN: Duration = Duration::from_millis(400);
/// Between two looks at whom was heard of meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// Most peers nearby that are remembered; a home has a dozen.
const MAX_NEARBY: usize = 64;

/// Peers that were heard of, with their addresses.
#[derive(Clone)]
pub(super) struct Nearby {
    host: Host,
    heard: Arc<Mutex<BTreeMap<PeerId, Vec<Multiaddr>>>>,
}

impl Nearby {
    /// Listens from now on. `None` where there is nothing to listen for: discovery is off, or the secret was made a
    /// moment ago by this very start and nobody else can have it.
    pub(super) fn listen(host: &Host, config: &Config, secret_is_new: bool) -> Option<Nearby> {
        if config.cluster.mdns_interval.is_zero() || secret_is_new {
            return None;
        }
        let (events, heard) = (host.events(), Arc::new(Mutex::new(BTreeMap::new())));
        let nearby = Nearby { host: host.clone(), heard: heard.clone() };
        // Weak: who stops caring for what was heard ends the listening.
        let heard = Arc::downgrade(&heard);
        runtime::spawn(async move {
            while let Ok(event) = events.recv().await {
                let Some(heard) = heard.upgrade() else { return };
                if let HostEvent::Discovered(peer, addresses) = event {
                    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    if heard.len() < MAX_NEARBY {
                        heard.insert(peer, addresses);
                    }
                }
            }
        })
        .detach();
        Some(nearby)
    }

    /// Listens a little and asks whoever was heard of; an error when they are of more than one cluster. One cluster is
    /// told in the log, later, by [`tell`]: whoever starts a peer without naming others wants one of its own.
    ///
    /// # Errors
    /// [`crate::Kind::Conflict`] naming two clusters and how to join either.
    pub(super) async fn must_not_guess(&self, desk: &Desk, raft_id: RaftId) -> Result<()> {
        let (until, mut asked) = (Instant::now() + LISTEN, Vec::new());
        let mut found: BTreeMap<u64, (PeerId, Option<Multiaddr>)> = BTreeMap::new();
        while Instant::now() < until {
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let new: Vec<_> = heard.into_iter().filter(|(peer, _)| !asked.contains(peer)).collect();
            if new.is_empty() {
                runtime::sleep(LOOK).await;
                continue;
            }
            asked.extend(new.iter().map(|(peer, _)| *peer));
            let answers = new.into_iter().map(|(peer, addresses)| async move {
                let theirs = belonging(&self.host, desk, raft_id, peer, addresses.clone()).await?;
                Some((theirs.cluster_id, (peer, addresses.into_iter().next())))
            });
            found.extend(futures::future::join_all(answers).await.into_iter().flatten());
        }
        if found.len() < 2 {
            return Ok(());
        }
        let named = found.iter().take(2).map(|(cluster, (peer, address))| {
            let at = address.clone().map_or_else(|| format!("/p2p/{peer}"), |a| a.with(Protocol::P2p(*peer)).to_string());
            format!("{cluster:016x} (of {at})")
        });
        let named: Vec<String> = named.collect();
        Err(Error::conflict(format!(
            "there are {} clusters nearby with the secret of this fresh peer, {}, and it does not guess to which it belongs: \
             say so with `pinfold join TOKEN` or `daemon --bootstrap ADDRESS`, or give it a cluster.secret of its own to \
             found another",
            found.len(),
            named.join(" and ")
        )))
    }
}

/// Whether nobody else can know the secret of this folder yet: it is about to be made.
pub(super) fn secret_is_new(folder: &Folder, env: &Env) -> bool {
    crate::config::init::is_fresh(folder) && env.get("CLUSTER_SECRET").is_none()
}

/// To which cluster a peer nearby belongs; `None` when it has another secret, or belongs to none yet.
async fn belonging(
    host: &Host,
    desk: &Desk,
    raft_id: RaftId,
    peer: PeerId,
    addresses: Vec<Multiaddr>,
) -> Option<Belonging> {
    if !host.is_connected(&peer) {
        host.connect(peer, addresses).await.ok()?;
    }
    match desk.ask(peer, &[], raft_id).await {
        Ok(Answer::Member(theirs)) => Some(theirs),
        _ => None,
    }
}

/// Says in the log, once for each, which other clusters with our secret are nearby. Ends with the host.
pub(super) async fn tell(host: Host, desk: Desk, consensus: Consensus) {
    let events = host.events();
    let mut known: BTreeMap<PeerId, u64> = BTreeMap::new();
    while let Ok(event) = events.recv().await {
        let HostEvent::Discovered(peer, addresses) = event else { continue };
        // A peer that has just joined knows no members yet, and takes everybody for one.
        if consensus.is_member(&peer) || known.contains_key(&peer) || known.len() >= MAX_NEARBY {
            continue;
        }
        let (ours, us) = (consensus.status().cluster_id, consensus.status().raft_id);
        let Some(theirs) = belonging(&host, &desk, us, peer, addresses).await else { continue };
        if theirs.cluster_id == ours {
            // It joined in this very moment.
            continue;
        }
        let news = !known.values().any(|cluster| *cluster == theirs.cluster_id);
        known.insert(peer, theirs.cluster_id);
        if news {
            log::warn!(
                target: "cluster",
                "peer {peer} nearby has our secret and belongs to another cluster, {:016x} (ours is {ours:016x}): they stay \
                 two. If they are meant to be one, run `pinfold state cleanup` on the peers of the one that is to go and let \
                 them join the other with `pinfold join TOKEN`; if not, give one of them another cluster.secret",
                theirs.cluster_id
            );
        }
    }
}
