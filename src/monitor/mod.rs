//! What peers say about themselves (metrics), and who has gone silent (alerts). Pure: time comes in.
//!
//! A [`Metric`] lives for its TTL, measured by the receiver's monotonic clock, so that a peer whose
//! clock is a year off is as good as any other. Only the last value of each (name, peer) is kept.

pub mod liveness;

use crate::api::types::{Alert, Metric};
use crate::clock::Timestamp;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Most alerts kept; the oldest go first.
pub const MAX_ALERTS: usize = 1_000;
/// Most metric names accepted from one peer.
pub const MAX_NAMES: usize = 64;
/// Longest metric name, bytes.
pub const MAX_NAME: usize = 128;
/// Longest metric value, bytes (a ping with its addresses).
pub const MAX_VALUE: usize = 8 << 10;
/// Longest TTL that is believed.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// Metric that says that a peer is alive.
pub const PING: &str = "ping";
/// Metric of a peer that is drained: it takes no new pins. It goes with the ping, and no alert is raised for it.
pub const DRAINED: &str = "drained";
/// Metric of a peer whose content cannot be had: since how many milliseconds. It goes with the ping as well.
pub const CONTENT_AWAY: &str = "content-away";

/// A metric as a peer sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// `ping`, `freespace`, `tag:group`, …
    pub name: String,
    /// Text.
    pub value: String,
    /// For allocation: more is better.
    pub weight: i64,
    /// Spread over values instead of ordering by weight.
    pub partitionable: bool,
    /// How long it counts, milliseconds; 0 takes it back.
    pub ttl_ms: u64,
}

/// The value of a `ping` metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Name of the peer.
    pub peer_name: String,
    /// Its IPFS node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ipfs_id: String,
    /// Addresses of that node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipfs_addresses: Vec<String>,
    /// The version of its pinfold; the first one (0.1) does not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The highest cluster version that it speaks (see `crate::state::version`); 0 when it does not tell.
    #[serde(default)]
    pub speaks: u16,
}

#[derive(Clone, Debug)]
struct Stored {
    reading: Reading,
    received: Timestamp,
    expires_ms: u64,
    alerted: bool,
}

/// The last readings of everybody, and the alerts.
#[derive(Debug, Default)]
pub struct Monitor {
    readings: BTreeMap<(String, PeerId), Stored>,
    alerts: VecDeque<Alert>,
}

impl Monitor {
    /// Takes readings of a peer in; what is out of bounds is ignored. `now_ms` is monotonic, `wall` is for show.
    pub fn take(&mut self, peer: PeerId, readings: Vec<Reading>, now_ms: u64, wall: Timestamp) {
        for reading in readings.into_iter().take(MAX_NAMES) {
            if reading.name.len() > MAX_NAME || reading.value.len() > MAX_VALUE {
                continue;
            }
            let known = self.readings.keys().filter(|(_, p)| *p == peer).count();
            let key = (reading.name.clone(), peer);
            if known >= MAX_NAMES && !self.readings.contains_key(&key) {
                continue;
            }
            if reading.ttl_ms == 0 {
                // Taken back.
                self.readings.remove(&key);
                continue;
            }
            let ttl = reading.ttl_ms.min(MAX_TTL.as_millis() as u64);
            let stored = Stored { reading, received: wall, expires_ms: now_ms + ttl, alerted: false };
            self.readings.insert(key, stored);
        }
    }

    /// Forgets peers that are no longer members.
    pub fn retain(&mut self, members: &[PeerId]) {
        self.readings.retain(|(_, peer), _| members.contains(peer));
    }

    /// Names that any peer has sent.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.readings.keys().map(|(name, _)| name.clone()).collect();
        names.dedup();
        names
    }

    /// The valid reading of a peer.
    pub fn reading(&self, name: &str, peer: &PeerId, now_ms: u64) -> Option<&Reading> {
        let stored = self.readings.get(&(name.to_string(), *peer))?;
        (stored.expires_ms > now_ms).then_some(&stored.reading)
    }

    /// Until when the last reading of a peer counts or counted; `None` when it never sent one.
    pub fn valid_until(&self, name: &str, peer: &PeerId) -> Option<u64> {
        Some(self.readings.get(&(name.to_string(), *peer))?.expires_ms)
    }

    /// All valid readings of a peer, each with the life it has left.
    pub fn readings(&self, peer: &PeerId, now_ms: u64) -> Vec<Reading> {
        let own = self.readings.iter().filter(|((_, p), stored)| p == peer && stored.expires_ms > now_ms);
        own.map(|(_, stored)| Reading { ttl_ms: stored.expires_ms - now_ms, ..stored.reading.clone() })
            .collect()
    }

    /// The last `ping` of a peer, valid or not: who its IPFS node was.
    pub fn last_ping(&self, peer: &PeerId) -> Option<Ping> {
        let stored = self.readings.get(&(PING.to_string(), *peer))?;
        serde_json::from_str(&stored.reading.value).ok()
    }

    /// Valid metrics of these peers as JSON shapes, sorted by peer.
    pub fn metrics(&self, name: &str, members: &[PeerId], now_ms: u64, wall: Timestamp) -> Vec<Metric> {
        let mut found: Vec<Metric> = members
            .iter()
            .filter_map(|peer| {
                let stored = self.readings.get(&(name.to_string(), *peer))?;
                (stored.expires_ms > now_ms).then(|| metric(peer, stored, now_ms, wall))
            })
            .collect();
        found.sort_by(|a, b| a.peer.cmp(&b.peer));
        found
    }

    /// Raises an alert for each reading of a member that has expired since the last check. Returns the new ones.
    pub fn check(&mut self, members: &[PeerId], now_ms: u64, wall: Timestamp) -> Vec<Alert> {
        let mut new = Vec::new();
        for ((name, peer), stored) in &mut self.readings {
            let quiet = name == DRAINED || name == CONTENT_AWAY;
            if !quiet && stored.expires_ms <= now_ms && !stored.alerted && members.contains(peer) {
                stored.alerted = true;
                let mut metric = metric(peer, stored, now_ms, wall);
                metric.valid = true;
                new.push(Alert { metric, triggered_at: wall });
            }
        }
        for alert in &new {
            self.alerts.push_front(alert.clone());
        }
        self.alerts.truncate(MAX_ALERTS);
        new
    }

    /// Newest first.
    pub fn alerts(&self) -> Vec<Alert> {
        self.alerts.iter().cloned().collect()
    }
}

fn metric(peer: &PeerId, stored: &Stored, now_ms: u64, wall: Timestamp) -> Metric {
    let left = stored.expires_ms as i64 - now_ms as i64;
    Metric {
        name: stored.reading.name.clone(),
        peer: peer.to_string(),
        value: stored.reading.value.clone(),
        expire: wall.unix_nanos().saturating_add(left.saturating_mul(1_000_000)),
        valid: stored.expires_ms > now_ms,
        weight: stored.reading.weight,
        partitionable: stored.reading.partitionable,
        received_at: stored.received.unix_nanos(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(name: &str, ttl_ms: u64) -> Reading {
        Reading { name: name.into(), value: "1".into(), weight: 1, partitionable: false, ttl_ms }
    }

    #[test]
    fn a_silent_peer_raises_one_alert_until_it_speaks_again() {
        let (peer, mut monitor, wall) = (PeerId::random(), Monitor::default(), Timestamp::from_secs(0));
        monitor.take(peer, vec![reading(PING, 30)], 0, wall);
        assert!(monitor.check(&[peer], 29, wall).is_empty());
        assert_eq!(monitor.check(&[peer], 30, wall).len(), 1);
        assert!(monitor.check(&[peer], 31, wall).is_empty(), "once is enough");
        monitor.take(peer, vec![reading(PING, 30)], 40, wall);
        assert!(monitor.check(&[peer], 50, wall).is_empty());
        assert_eq!(monitor.check(&[peer], 70, wall).len(), 1);
        assert_eq!(monitor.alerts().len(), 2);
    }

    #[test]
    fn a_removed_peer_raises_no_alert_and_shows_no_metric() {
        let (peer, mut monitor, wall) = (PeerId::random(), Monitor::default(), Timestamp::from_secs(0));
        monitor.take(peer, vec![reading(PING, 30)], 0, wall);
        assert_eq!(monitor.metrics(PING, &[peer], 1, wall).len(), 1);
        assert!(monitor.metrics(PING, &[], 1, wall).is_empty());
        assert!(monitor.check(&[], 100, wall).is_empty());
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let (peer, mut monitor, wall) = (PeerId::random(), Monitor::default(), Timestamp::from_secs(0));
        for i in 0..10 {
            let batch = (0..100).map(|n| reading(&format!("m{i}-{n}"), 30)).collect();
            monitor.take(peer, batch, 0, wall);
        }
        assert!(monitor.names().len() <= MAX_NAMES);
    }
}
