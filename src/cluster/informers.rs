//! Informers: what this peer measures about itself and tells the others, and the cluster's small periodic tasks.

use super::{rpc, Cluster};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::monitor::{Ping, Reading, PING};
use crate::net::HostEvent;
use crate::runtime;
use crate::state::{version, Event};
use crate::store::Table;
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one peer may take to receive our metrics.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the IPFS node may take to answer an informer.
const ASK_IPFS: Duration = Duration::from_secs(10);
/// Between two looks at which IPFS nodes are connected while some are not; doubles up to …
const SWARM_INTERVAL: Duration = Duration::from_secs(2);
/// … this, which is also the pause while all are: a daemon in the public network answers with a long list.
const SWARM_CALM: Duration = Duration::from_secs(10);
/// How long one IPFS node may take to be connected to, all its addresses together.
const SWARM_DIAL: Duration = Duration::from_secs(15);
/// After a change of our addresses, before they are replicated: interfaces come up in bursts.
const ADDRESS_SETTLE: Duration = Duration::from_secs(1);
/// Attempts to tell a new peer our metrics at once; after that the ordinary rounds reach it.
const GREETINGS: usize = 20;
/// Between two such attempts.
const GREET_AGAIN: Duration = Duration::from_millis(250);
/// No TTL, however short, makes an informer measure more often than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Most IPFS nodes dialled in one round.
const MAX_SWARM_DIALS: usize = 16;

/// Which disk metric is measured (`informer.disk.metric_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskMetric {
    /// Free bytes: more is better.
    FreeSpace,
    /// Used bytes: less is better.
    RepoSize,
}

/// What an informer measures.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// The repository of the IPFS node.
    Disk(DiskMetric),
    /// Nothing: the `tag:<key>` metrics are as configured.
    Tags(BTreeMap<String, String>),
    /// Pins that wait, compared in steps of so many.
    PinQueue(u64),
    /// Pins that this peer keeps.
    NumPin,
}

/// One kind of metric that this peer tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Informer {
    /// How long a value is good.
    pub ttl: Duration,
    /// What it is.
    pub measure: Measure,
}

/// Starts them all.
pub(super) fn start(cluster: &Cluster) -> Vec<smol::Task<()>> {
    let mut tasks = vec![
        runtime::spawn(ping(cluster.clone())),
        runtime::spawn(greet(cluster.clone())),
        runtime::spawn(follow_members(cluster.clone())),
        runtime::spawn(check(cluster.clone())),
        runtime::spawn(expire(cluster.clone())),
        runtime::spawn(tell_addresses(cluster.clone())),
        runtime::spawn(super::version::agree(cluster.clone())),
        runtime::spawn(super::repin::lead(cluster.clone())),
        runtime::spawn(super::repin::tell_away(cluster.clone())),
        runtime::spawn(super::twins::watch(cluster.clone())),
    ];
    for informer in cluster.inner.settings.informers.clone() {
        tasks.push(runtime::spawn(inform(cluster.clone(), informer)));
    }
    if let Some(delay) = cluster.inner.settings.connect_swarms {
        tasks.push(runtime::spawn(connect_swarms(cluster.clone(), delay)));
    }
    tasks
}

/// Pings everybody. A task of its own, for nothing else may delay a ping: one that comes late makes this peer
/// look dead.
async fn ping(cluster: Cluster) {
    loop {
        let mut reading = vec![cluster.ping().await];
        reading.extend(cluster.drained());
        reading.extend(cluster.content_away());
        cluster.keep(reading.clone());
        cluster.tell_all(&reading).await;
        runtime::sleep(cluster.inner.settings.ping_interval).await;
    }
}

/// Measures one kind of thing and tells everybody, at half of its TTL, after an error at a quarter; the disk also after
/// so many pins, for those make it grow.
async fn inform(cluster: Cluster, informer: Informer) {
    let trigger = u64::from(cluster.inner.settings.informer_trigger);
    let triggered = trigger > 0 && matches!(informer.measure, Measure::Disk(_));
    let mut said = false;
    loop {
        let pinned = cluster.tracker().pinned();
        let pause = match cluster.measure(&informer).await {
            Ok(readings) => {
                said = false;
                cluster.keep(readings);
                // All that we know of ourselves goes along: allocation counts only who has every metric, and whoever
                // missed one must not wait half a TTL for it.
                let own = {
                    let shared = &cluster.inner.readings;
                    shared.lock().readings(&cluster.inner.me, shared.now_ms())
                };
                cluster.tell_all(&own).await;
                informer.ttl / 2
            }
            Err(error) => {
                // Once: it is asked again and again, and the metric that expires raises an alert of its own.
                if !std::mem::replace(&mut said, true) {
                    log::warn!(target: "diskinfo", "cannot measure: {error}");
                }
                informer.ttl / 4
            }
        };
        let pause = runtime::sleep(pause.max(SHORTEST_PAUSE));
        if triggered {
            smol::future::or(pause, cluster.tracker().wait_pinned(pinned + trigger - 1)).await;
        } else {
            pause.await;
        }
    }
}

/// A member that has just connected hears everything at once: allocation counts on it.
async fn greet(cluster: Cluster) {
    let events = cluster.inner.rpc.host().events();
    while let Ok(event) = events.recv().await {
        if let HostEvent::Connected(peer) = event {
            let cluster = cluster.clone();
            runtime::spawn(async move { cluster.greet_one(peer).await }).detach();
        }
    }
}

/// Follows the membership: whom to stay connected to, and at which addresses.
async fn follow_members(cluster: Cluster) {
    let events = cluster.inner.consensus.member_events();
    let mut greeted: Vec<PeerId> = Vec::new();
    loop {
        let members = cluster.inner.consensus.members();
        let me = cluster.inner.me;
        let host = cluster.inner.rpc.host();
        let others: Vec<PeerId> = members.iter().map(|m| m.peer_id).filter(|p| *p != me).collect();
        for member in members.iter().filter(|m| m.peer_id != me && !m.addresses.is_empty()) {
            host.set_addresses(member.peer_id, member.addresses.clone());
        }
        host.keep_connected(others.clone());
        // Our own stay too: a joiner measures before it is a member, and the next time only much later.
        let kept: Vec<PeerId> = others.iter().copied().chain([me]).collect();
        cluster.inner.readings.lock().retain(&kept);
        for peer in others.iter().filter(|p| !greeted.contains(p) && host.is_connected(p)) {
            // It was connected before it was a member (it joined): the greeting at connection was refused.
            let (cluster, peer) = (cluster.clone(), *peer);
            runtime::spawn(async move { cluster.greet_one(peer).await }).detach();
        }
        greeted = others;
        loop {
            match events.recv().await {
                Ok(Event::MembersChanged | Event::Replaced) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

/// Raises alerts.
async fn check(cluster: Cluster) {
    loop {
        runtime::sleep(cluster.inner.settings.check_interval).await;
        let members = cluster.member_ids();
        let readings = &cluster.inner.readings;
        let new = readings.lock().check(&members, readings.now_ms(), Timestamp::now());
        for alert in new {
            let (name, peer) = (&alert.metric.name, &alert.metric.peer);
            log::warn!(target: "monitor", "{peer} has not renewed its metric {name}");
        }
    }
}

/// Looks for expired pins.
async fn expire(cluster: Cluster) {
    loop {
        runtime::sleep(cluster.inner.settings.state_sync_interval).await;
        if let Err(error) = cluster.expire().await {
            log::warn!(target: "cluster", "expired pins could not be removed, will try again: {error}");
        }
    }
}

/// Keeps our addresses in the replicated membership true.
async fn tell_addresses(cluster: Cluster) {
    let events = cluster.inner.rpc.host().events();
    loop {
        let addresses = cluster.inner.rpc.host().addresses();
        if let Err(error) =
            cluster.inner.consensus.update_self(addresses, cluster.inner.settings.witness).await
        {
            log::debug!(target: "cluster", "our addresses are not replicated yet: {error}");
            runtime::sleep(cluster.inner.settings.ping_interval).await;
            continue;
        }
        loop {
            match events.recv().await {
                Ok(HostEvent::AddressesChanged) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        runtime::sleep(ADDRESS_SETTLE).await;
    }
}

/// Connects our IPFS node with those of the other members and keeps it so.
async fn connect_swarms(cluster: Cluster, delay: Duration) {
    runtime::sleep(delay).await;
    let mut again = SWARM_INTERVAL;
    loop {
        let all = cluster.connect_swarm().await.unwrap_or_else(|error| {
            log::debug!(target: "ipfshttp", "IPFS nodes are not all connected: {error}");
            false
        });
        let pause = if all { SWARM_CALM } else { again };
        again = if all { SWARM_INTERVAL } else { (again * 2).min(SWARM_CALM) };
        let new_node = async {
            let _ = cluster.inner.new_node.1.recv().await;
        };
        smol::future::or(runtime::sleep(pause), new_node).await;
    }
}

impl Cluster {
    /// Who we are and who our IPFS node is, as far as it says so soon enough; else as it said the last time.
    async fn ping(&self) -> Reading {
        let settings = &self.inner.settings;
        let mut ping = Ping {
            peer_name: self.inner.name.clone(),
            version: crate::VERSION.into(),
            speaks: version::SPOKEN,
            ..Ping::default()
        };
        let limit = ASK_IPFS.min(settings.ping_interval / 2);
        match runtime::timeout(limit, "the IPFS daemon", self.inner.ipfs.id()).await {
            Ok(id) => {
                ping.ipfs_id = id.id.to_string();
                ping.ipfs_addresses = id.addresses.iter().map(ToString::to_string).collect();
            }
            Err(_) => {
                if let Some(last) = self.inner.readings.lock().last_ping(&self.inner.me) {
                    (ping.ipfs_id, ping.ipfs_addresses) = (last.ipfs_id, last.ipfs_addresses);
                }
            }
        }
        let value = serde_json::to_string(&ping).unwrap_or_default();
        let ttl_ms = (settings.ping_interval * 2).as_millis() as u64;
        Reading { name: PING.into(), value, weight: 0, partitionable: false, ttl_ms }
    }

    /// The metrics of one informer, as they are now.
    async fn measure(&self, informer: &Informer) -> Result<Vec<Reading>> {
        let ttl_ms = informer.ttl.as_millis() as u64;
        let reading = |name: &str, value: String, weight: i64, partitionable: bool| Reading {
            name: name.into(),
            value,
            weight,
            partitionable,
            ttl_ms,
        };
        let as_weight = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Ok(match &informer.measure {
            Measure::Tags(tags) => {
                tags.iter().map(|(k, v)| reading(&format!("tag:{k}"), v.clone(), 0, true)).collect()
            }
            Measure::PinQueue(bucket) => {
                let waiting = self.tracker().waiting_pins() as u64;
                vec![reading("pinqueue", waiting.to_string(), -as_weight(waiting / (*bucket).max(1)), false)]
            }
            Measure::NumPin => {
                // What the cluster keeps here. Asking IPFS would mean to list its pins, each time all of them.
                let pins = self.inner.state.count(Table::Local);
                vec![reading("numpin", pins.to_string(), -as_weight(pins), false)]
            }
            Measure::Disk(metric) => {
                let limit = ASK_IPFS.min(informer.ttl);
                let stat = runtime::timeout(limit, "the IPFS daemon", self.inner.ipfs.repo_stat()).await?;
                let free = stat.storage_max.saturating_sub(stat.repo_size);
                match metric {
                    DiskMetric::RepoSize => {
                        vec![reading(
                            "reposize",
                            stat.repo_size.to_string(),
                            -as_weight(stat.repo_size),
                            false,
                        )]
                    }
                    // As in ipfs-cluster: who has no space at all does not say so, and is allocated nothing.
                    DiskMetric::FreeSpace if free == 0 => {
                        return Err(Error::full(format!(
                            "the IPFS repository has reached its limit of {} bytes: raise StorageMax (or \
                             embedded.storage_max), or unpin something and run `ipfs gc`",
                            stat.storage_max
                        )))
                    }
                    DiskMetric::FreeSpace => {
                        vec![reading("freespace", free.to_string(), as_weight(free), false)]
                    }
                }
            }
        })
    }

    /// Our own readings count like anybody's.
    pub(super) fn keep(&self, readings: Vec<Reading>) {
        let shared = &self.inner.readings;
        shared.lock().take(self.inner.me, readings, shared.now_ms(), Timestamp::now());
    }

    /// Tells every member that is connected.
    pub(super) async fn tell_all(&self, readings: &[Reading]) {
        let host = self.inner.rpc.host();
        let connected = self.member_ids().into_iter().filter(|p| *p != self.inner.me && host.is_connected(p));
        futures::future::join_all(connected.map(|peer| self.tell(peer, readings))).await;
    }

    async fn tell(&self, peer: PeerId, readings: &[Reading]) -> bool {
        // A peer that hangs must not delay what the others hear beyond its TTL.
        let limit = PUSH_TIMEOUT.min(self.inner.settings.ping_interval / 2);
        let told = self.inner.rpc.call::<_, ()>(peer, rpc::METRICS, &readings.to_vec(), limit).await;
        if let Err(error) = &told {
            log::debug!(target: "monitor", "metrics did not reach {peer}: {error}");
        }
        told.is_ok()
    }

    /// Tells a peer everything now. One that is still starting (it has just joined) is told again, for a while.
    async fn greet_one(&self, peer: PeerId) {
        for _ in 0..GREETINGS {
            if !self.member_ids().contains(&peer) || !self.inner.rpc.host().is_connected(&peer) {
                return;
            }
            let mut readings = vec![self.ping().await];
            readings.extend(self.drained());
            readings.extend(self.content_away());
            for informer in &self.inner.settings.informers {
                // What cannot be measured now is told when it can.
                readings.extend(self.measure(informer).await.unwrap_or_default());
            }
            if self.tell(peer, &readings).await {
                return;
            }
            runtime::sleep(GREET_AGAIN).await;
        }
    }

    /// Connects our IPFS node with those of the members that are alive; whether it was with all of them before.
    async fn connect_swarm(&self) -> Result<bool> {
        let connected = runtime::timeout(ASK_IPFS, "the IPFS daemon", self.inner.ipfs.swarm_peers()).await?;
        let (missing, unknown) = {
            let readings = &self.inner.readings;
            let (monitor, now) = (readings.lock(), readings.now_ms());
            let (mut missing, mut unknown) = (Vec::new(), false);
            let own = monitor.last_ping(&self.inner.me).and_then(|ping| ping.ipfs_id.parse::<PeerId>().ok());
            for peer in self.member_ids().into_iter().filter(|p| *p != self.inner.me) {
                if monitor.reading(PING, &peer, now).is_none() {
                    // Dead, or only not heard of yet.
                    unknown = true;
                    continue;
                }
                let Some(ping) = monitor.last_ping(&peer) else { continue };
                // One with our own identity cannot be connected with, see `twins`.
                let (theirs, ours) = (ping.ipfs_id.parse::<PeerId>(), own.as_ref());
                if theirs.is_ok_and(|id| Some(&id) != ours && !connected.contains(&id)) {
                    let addresses = ping.ipfs_addresses.iter().filter_map(|a| a.parse::<Multiaddr>().ok());
                    missing.push(addresses.collect::<Vec<_>>());
                }
            }
            (missing, unknown)
        };
        let all = missing.is_empty() && !unknown;
        let dials = missing.into_iter().take(MAX_SWARM_DIALS).map(|addresses| {
            runtime::timeout(SWARM_DIAL, "the IPFS node of a member", async move {
                let mut last = Ok(());
                for address in addresses {
                    last = self.inner.ipfs.swarm_connect(&address).await;
                    if last.is_ok() {
                        break;
                    }
                }
                last
            })
        });
        futures::future::join_all(dials).await.into_iter().collect::<Result<()>>()?;
        Ok(all)
    }
}
