//! Clusters nearby: what multicast discovery tells about others that have the same secret.
//!
//! One secret in two clusters happens: two boards of one image, each started alone. They must never become one by
//! meeting on a network (both have a history, and Raft knows one), so discovery never makes a member of anyone; but it
//! is worth a sentence, for one of the two is probably a mistake. And a fresh peer that was told of nobody and hears of
//! two clusters does not choose: it ends with a sentence that names both.
//!
//! Whoever has another secret does not answer, and is none of our business.

use crate::cluster::founding::Desk;
use crate::config::{Env, Folder};
use crate::consensus::founding::{Answer, Belonging};
use crate::consensus::WeakConsensus;
use crate::error::{Error, Result};
use crate::net::{Host, HostEvent};
use crate::runtime;
use crate::state::RaftId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a peer that is about to found a cluster of its own listens for others first: once in its life. Neighbours are
/// heard of after about a second (a second question on the wire, should the first one be lost).
const LISTEN: Duration = Duration::from_secs(2);
/// Between two looks at whom was heard of meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// Most peers nearby that are remembered; a home has a dozen.
const MAX_NEARBY: usize = 64;
/// Before a peer that did not say to which cluster it belongs is asked again: it may be starting.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How often such a peer is asked; who has another secret never answers.
const MAX_ATTEMPTS: u32 = 6;

/// Peers that were heard of, with their addresses.
#[derive(Clone)]
pub(super) struct Nearby {
    host: Host,
    desk: Desk,
    heard: Arc<Mutex<BTreeMap<PeerId, Vec<Multiaddr>>>>,
    /// Full when somebody was heard of since the last look; closed at the end of the host.
    news: async_channel::Receiver<()>,
}

impl Nearby {
    /// Listens from now on; discovery tells of each peer once.
    pub(super) fn listen(host: &Host, desk: &Desk) -> Nearby {
        let (events, heard) = (host.events(), Arc::new(Mutex::new(BTreeMap::new())));
        let (tell, news) = async_channel::bounded(1);
        let nearby = Nearby { host: host.clone(), desk: desk.clone(), heard: heard.clone(), news };
        runtime::spawn(async move {
            while let Ok(event) = events.recv().await {
                if let HostEvent::Discovered(peer, addresses) = event {
                    let mut heard = heard.lock();
                    if heard.len() < MAX_NEARBY {
                        heard.insert(peer, addresses);
                        let _ = tell.try_send(());
                    }
                }
            }
        })
        .detach();
        nearby
    }

    fn heard(&self) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        self.heard.lock().clone()
    }

    /// To which cluster a peer belongs; `None` when it has another secret, or belongs to none yet.
    async fn belonging(&self, raft_id: RaftId, peer: PeerId, addresses: Vec<Multiaddr>) -> Option<Belonging> {
        if !self.host.is_connected(&peer) {
            self.host.connect(peer, addresses).await.ok()?;
        }
        match self.desk.ask(peer, &[], raft_id).await {
            Ok(Answer::Member(theirs)) => Some(theirs),
            _ => None,
        }
    }

    /// Listens a little and asks whoever was heard of; an error when they are of more than one cluster. One cluster is
    /// told in the log, later, by [`Nearby::tell`]: whoever starts a peer without naming others wants one of its own.
    ///
    /// # Errors
    /// [`crate::Kind::Conflict`] naming two clusters and how to join either.
    pub(super) async fn must_not_guess(&self, raft_id: RaftId) -> Result<()> {
        let (until, mut asked) = (Instant::now() + LISTEN, Vec::new());
        let mut found: BTreeMap<u64, (PeerId, Option<Multiaddr>)> = BTreeMap::new();
        while Instant::now() < until {
            let new: Vec<_> = self.heard().into_iter().filter(|(peer, _)| !asked.contains(peer)).collect();
            if new.is_empty() {
                runtime::sleep(LOOK).await;
                continue;
            }
            asked.extend(new.iter().map(|(peer, _)| *peer));
            let answers = new.into_iter().map(|(peer, addresses)| async move {
                let theirs = self.belonging(raft_id, peer, addresses.clone()).await?;
                Some((theirs.cluster_id, (peer, addresses.into_iter().next())))
            });
            found.extend(futures::future::join_all(answers).await.into_iter().flatten());
        }
        if found.len() < 2 {
            return Ok(());
        }
        let named = found.iter().take(2).map(|(cluster, (peer, address))| {
            let at = address
                .clone()
                .map_or_else(|| format!("/p2p/{peer}"), |a| a.with(Protocol::P2p(*peer)).to_string());
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

    /// Says in the log, once for each, which other clusters with our secret are nearby. Ends with the host.
    pub(super) async fn tell(self, consensus: WeakConsensus) {
        let mut attempts: BTreeMap<PeerId, u32> = BTreeMap::new();
        let mut told = BTreeSet::new();
        loop {
            let mut waiting = false;
            for (peer, addresses) in self.heard() {
                let Some((status, member)) = consensus.upgrade().map(|c| (c.status(), c.is_member(&peer)))
                else {
                    return;
                };
                let tried = attempts.entry(peer).or_default();
                // A peer that has just joined knows no members yet, and takes everybody for one.
                if member || *tried >= MAX_ATTEMPTS {
                    continue;
                }
                *tried += 1;
                let Some(theirs) = self.belonging(status.raft_id, peer, addresses).await else {
                    waiting |= *tried < MAX_ATTEMPTS;
                    continue;
                };
                *tried = MAX_ATTEMPTS;
                // Ours: it joined in this very moment.
                if theirs.cluster_id != status.cluster_id && told.insert(theirs.cluster_id) {
                    log::warn!(
                        target: "cluster",
                        "peer {peer} nearby has our secret and belongs to another cluster, {:016x} (ours is {:016x}): they \
                         stay two. If they are meant to be one, run `pinfold state cleanup` on the peers of the one that is \
                         to go and let them join the other with `pinfold join TOKEN`; if not, give one of them another \
                         cluster.secret",
                        theirs.cluster_id,
                        status.cluster_id
                    );
                }
            }
            let news = async { self.news.recv().await.is_ok() };
            let again = async {
                match waiting {
                    true => runtime::sleep(ASK_AGAIN).await,
                    false => std::future::pending().await,
                }
                true
            };
            if !smol::future::or(news, again).await {
                return;
            }
        }
    }
}

/// Whether nobody else can know the secret of this folder yet: it is about to be made.
pub(super) fn secret_is_new(folder: &Folder, env: &Env) -> bool {
    crate::config::init::is_fresh(folder) && env.get("CLUSTER_SECRET").is_none()
}
