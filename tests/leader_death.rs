//! A leader whose process dies: its connections break, and nobody waits for a timeout.

mod support;

use std::time::{Duration, Instant};
use support::cluster::{cid_of, Cluster};

/// Far longer than an election takes, and far shorter than the timeout below.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_leader_that_is_killed_is_replaced_long_before_the_timeout() {
    let mut cluster = Cluster::with(3, |_, config| {
        config["consensus"]["raft"]["heartbeat_timeout"] = "500ms".into();
        config["consensus"]["raft"]["election_timeout"] = "30s".into();
    });
    for round in 0..3 {
        let leader = cluster.leader();
        cluster.peers[leader].kill();
        let started = Instant::now();
        let other = &cluster.peers[(leader + 1) % 3];
        other.json("POST", &format!("/pins/{}", cid_of(round)));
        assert!(started.elapsed() < LIMIT, "round {round}: {:?}", started.elapsed());
        cluster.peers[leader].start(&["daemon"]);
    }
}
