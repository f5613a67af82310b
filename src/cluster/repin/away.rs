//! Peers that live and whose content cannot be had: the disk with their blocks is not there.
//!
//! Such a peer tells with each ping since when, by its own monotonic clock, and takes that back as soon as the disk is
//! there. Whoever leads treats its copies as those of a peer that has been silent for so long: after the time of grace
//! others make new ones. Allocation leaves it out at once.

use crate::cluster::Cluster;
use crate::ipfs::Away;
use crate::monitor::liveness::Presence;
use crate::monitor::{Monitor, Reading, CONTENT_AWAY};
use crate::runtime;
use libp2p::PeerId;
use std::time::Duration;

/// Between two looks at whether the content came or went.
const LOOK: Duration = Duration::from_millis(500);

impl Cluster {
    /// What the others are told with each ping, while the content cannot be had.
    pub(in crate::cluster) fn content_away(&self) -> Option<Reading> {
        let ttl_ms = (self.inner.settings.ping_interval * 2).as_millis() as u64;
        self.inner.ipfs.away().map(|away| reading(&away, ttl_ms))
    }

    /// How a peer that lives counts for its copies, when they cannot be had.
    pub(super) fn copies_of(&self, monitor: &Monitor, peer: &PeerId, now: u64) -> Option<Presence> {
        let told = monitor.reading(CONTENT_AWAY, peer, now)?;
        let away = Duration::from_millis(told.value.parse().unwrap_or(0));
        Some(presence(away, self.inner.settings.repin_grace))
    }
}

fn reading(away: &Away, ttl_ms: u64) -> Reading {
    let value = away.since.elapsed().as_millis().to_string();
    Reading { name: CONTENT_AWAY.into(), value, weight: 0, partitionable: false, ttl_ms }
}

fn presence(away: Duration, grace: Duration) -> Presence {
    match away >= grace {
        true => Presence::Gone,
        false => Presence::Silent,
    }
}

/// Tells at once when the content goes and when it comes: until the next ping others would allocate to this peer, or
/// copy what is there.
pub(in crate::cluster) async fn tell(cluster: Cluster) {
    let mut was = false;
    loop {
        let away = cluster.inner.ipfs.away();
        if std::mem::replace(&mut was, away.is_some()) != away.is_some() {
            // A reading without a life takes the last one back.
            let told = cluster.content_away().unwrap_or_else(|| Reading {
                name: CONTENT_AWAY.into(),
                value: "0".into(),
                weight: 0,
                partitionable: false,
                ttl_ms: 0,
            });
            cluster.keep(vec![told.clone()]);
            cluster.tell_all(&[told]).await;
        }
        runtime::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn copies_out_of_reach_count_as_those_of_a_silent_peer() {
        let s = Duration::from_secs;
        assert_eq!(presence(s(0), s(30)), Presence::Silent);
        assert_eq!(presence(s(29), s(30)), Presence::Silent);
        assert_eq!(presence(s(30), s(30)), Presence::Gone);
        assert_eq!(presence(s(0), s(0)), Presence::Gone, "without grace at once");
        let away = Away { cause: "gone".into(), since: Instant::now() };
        let told = reading(&away, 30_000);
        assert!(told.value.parse::<u64>().is_ok_and(|ms| ms < 10_000) && told.ttl_ms == 30_000);
    }
}
