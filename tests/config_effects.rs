//! What keys of service.json do, seen from outside: each is changed, and the peer behaves otherwise. (What can only be
//! seen inside is tested there: `tests/consensus_settings.rs`, `src/consensus/tests.rs`.)

mod support;

use pinfold::config::{self, Config, Env};
use serde_json::{json, Value};
use std::path::Path;
use std::time::{Duration, Instant};
use support::cluster::{cid_of, ok, pinfold, Cluster, Peer, PATIENCE, SECRET};
use support::wait_for;

fn one(tmp: &tempfile::TempDir, change: impl FnOnce(&mut Value)) -> Peer {
    let peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    peer.edit(change);
    peer
}

fn set(config: &mut Value, path: &str, value: Value) {
    let mut at = config;
    for name in path.split('.') {
        at = &mut at[name];
    }
    *at = value;
}

/// How long a write takes to fail at a peer that has lost its majority.
fn refusal_after(wait_for_leader: &str, network: &str) -> Duration {
    let mut cluster = Cluster::with(2, |_, config| {
        set(config, "consensus.raft.wait_for_leader_timeout", json!(wait_for_leader));
        set(config, "consensus.raft.network_timeout", json!(network));
    });
    cluster.peers[1].kill();
    let left = &cluster.peers[0];
    wait_for("the loss to be noticed", PATIENCE, || {
        let health = left.consensus();
        if health["leader"].as_str().is_none_or(str::is_empty) {
            Ok(())
        } else {
            Err(health.to_string())
        }
    });
    let started = Instant::now();
    let (status, body) = left.request("POST", &format!("/pins/{}", cid_of(1))).expect("an answer");
    assert!(status == 500 && body.contains("timed out waiting for leader: 1 of 2 voters"), "{status} {body}");
    started.elapsed()
}

#[test]
fn a_write_waits_for_a_leader_as_long_as_both_timeouts_allow() {
    let short = refusal_after("1s", "30s");
    assert!((900..3_000).contains(&short.as_millis()), "wait_for_leader_timeout 1s: {short:?}");
    let shorter = refusal_after("30s", "500ms");
    assert!((400..2_500).contains(&shorter.as_millis()), "network_timeout 500ms: {shorter:?}");
    let long = refusal_after("4s", "30s");
    assert!(long >= Duration::from_millis(3_900), "wait_for_leader_timeout 4s: {long:?}");
}

/// How long a cluster of three is without a leader when the leader stands still. (Had it died, its connections would
/// tell, and nobody would wait.)
fn leaderless(heartbeat: &str, election: &str) -> Duration {
    let cluster = Cluster::with(3, |_, config| {
        set(config, "consensus.raft.heartbeat_timeout", json!(heartbeat));
        set(config, "consensus.raft.election_timeout", json!(election));
    });
    let dead = cluster.leader();
    let dead_id = cluster.peers[dead].id();
    cluster.peers[dead].signal("STOP");
    let started = Instant::now();
    let other = &cluster.peers[(dead + 1) % 3];
    wait_for("another leader", PATIENCE, || {
        let health = other.consensus();
        match health["leader"].as_str() {
            Some(leader) if !leader.is_empty() && leader != dead_id => Ok(()),
            _ => Err(health.to_string()),
        }
    });
    started.elapsed()
}

#[test]
fn a_leader_that_stands_still_is_replaced_after_the_election_timeout() {
    let slow = leaderless("1s", "5s");
    assert!(slow >= Duration::from_millis(4_000), "election_timeout 5s: {slow:?}");
    let fast = leaderless("100ms", "400ms");
    assert!(fast < slow && fast < Duration::from_secs(4), "election_timeout 400ms: {fast:?}");
}

/// Whether a peer that was away while 60 pins were made got the state as a whole.
fn catches_up_by_snapshot(trailing: u64, threshold: u64, interval: &str) -> bool {
    let mut cluster = Cluster::with(3, |_, config| {
        set(config, "consensus.raft.trailing_logs", json!(trailing));
        set(config, "consensus.raft.snapshot_threshold", json!(threshold));
        set(config, "consensus.raft.snapshot_interval", json!(interval));
    });
    let (away, stays) = (2, 0);
    assert!(cluster.peers[away].stop().0.success());
    let pins: Vec<String> = (0..60).map(cid_of).collect();
    for cid in &pins {
        cluster.peers[stays].json("POST", &format!("/pins/{cid}"));
    }
    // The state is flushed within a second of the last change, and the log looked at after that.
    std::thread::sleep(Duration::from_millis(2_500));
    cluster.peers[away].start(&["daemon"]);
    let mut pins = pins;
    pins.sort();
    wait_for("all pins", PATIENCE, || {
        let known = cluster.peers[away].pinned_cids();
        if known == pins {
            Ok(())
        } else {
            Err(format!("{} pins", known.len()))
        }
    });
    cluster.peers[away].log().contains("installed a snapshot of the state")
}

#[test]
fn a_log_that_is_cut_short_makes_a_peer_that_was_away_get_a_snapshot() {
    assert!(catches_up_by_snapshot(1, 1, "200ms"));
    assert!(!catches_up_by_snapshot(10_240, 1, "200ms"), "trailing_logs");
    assert!(!catches_up_by_snapshot(1, 8_192, "200ms"), "snapshot_threshold");
    assert!(!catches_up_by_snapshot(1, 50, "1h"), "snapshot_interval");
}

#[test]
fn expired_pins_are_looked_for_at_state_sync_interval() {
    let tmp = tempfile::tempdir().expect("folder");
    let cid = cid_of(1);
    let mut peer = one(&tmp, |c| set(c, "cluster.state_sync_interval", json!("1h")));
    peer.start(&["daemon"]);
    peer.json("POST", &format!("/pins/{cid}?expire-in=1s"));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(peer.pinned_cids(), std::slice::from_ref(&cid), "nobody has looked yet");
    assert!(peer.stop().0.success());
    peer.edit(|c| set(c, "cluster.state_sync_interval", json!("200ms")));
    peer.start(&["daemon"]);
    wait_for("the end of the expired pin", PATIENCE, || match peer.pinned_cids().as_slice() {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn copies_names_leaving_and_the_peerstore_are_as_the_file_says() {
    let mut cluster = Cluster::with(2, |n, config| {
        set(config, "cluster.replication_factor_min", json!(1));
        set(config, "cluster.replication_factor_max", json!(1));
        set(config, "cluster.peername", json!(format!("board-{n}")));
        set(config, "cluster.leave_on_shutdown", json!(n == 1));
        set(config, "cluster.peerstore_file", json!("neighbours"));
    });
    let pin = cluster.peers[0].json("POST", &format!("/pins/{}", cid_of(1)));
    assert_eq!(pin["allocations"].as_array().map(Vec::len), Some(1), "{pin}");
    assert_eq!(pin["replication_factor_max"], 1);
    assert_eq!(cluster.peers[1].json("GET", "/id")["peername"], "board-1");
    let id = cluster.peers[1].id();
    assert!(cluster.peers[1].stop().0.success());
    cluster.peers[0].wait_members(1);
    let known = cluster.peers[0].json("GET", "/id")["cluster_peers"].to_string();
    assert!(!known.contains(&id), "leave_on_shutdown: {known}");
    assert!(cluster.peers[0].stop().0.success());
    assert!(cluster.path("p0/neighbours").exists() && !cluster.path("p0/raft.old.0").exists());
    assert!(cluster.path("p1/raft.old.0").exists());
}

#[test]
fn addresses_headers_folders_and_logs_are_as_the_file_says() {
    let tmp = tempfile::tempdir().expect("folder");
    let data = tmp.path().join("disk/data");
    let mut peer = one(&tmp, |c| {
        set(c, "cluster.announce_multiaddress", json!("/ip4/10.1.2.3/tcp/4242"));
        set(c, "consensus.raft.data_folder", json!(data));
        set(c, "api.restapi.http_log_file", json!("access.log"));
        set(c, "api.restapi.headers", json!({"X-Board": ["attic"]}));
    });
    peer.start(&["daemon"]);
    let addresses = peer.json("GET", "/id")["addresses"].to_string();
    assert!(addresses.contains("/ip4/10.1.2.3/tcp/4242"), "{addresses}");
    let answer = ureq::get(format!("{}/version?marker", peer.url())).call().expect("an answer");
    assert_eq!(answer.headers().get("X-Board").and_then(|v| v.to_str().ok()), Some("attic"));
    let log = peer.folder.join("access.log");
    wait_for("the line of the request", PATIENCE, || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("\"GET /version?marker HTTP/1.1\" 200 ") {
            Ok(())
        } else {
            Err(text)
        }
    });
    assert!(!peer.log().contains("marker"), "it is in the file instead");
    assert!(peer.stop().0.success());
    assert!(data.join("log").is_dir() && data.join("state").is_dir() && !peer.folder.join("raft").exists());
}

/// The files under a folder with their content.
fn contents(of: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(of).expect("folder") {
        let path = entry.expect("entry").path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            all.extend(contents(&path));
        } else if !name.ends_with("cluster.lock") {
            all.push((name, std::fs::read(&path).expect("file")));
        }
    }
    all.sort();
    all
}

#[test]
fn a_value_that_does_not_fit_ends_the_start_with_its_name_and_changes_nothing() {
    let tmp = tempfile::tempdir().expect("folder");
    let good = one(&tmp, |_| {});
    let file = good.config();
    for (path, value) in [
        ("cluster.secret", json!("zz")),
        ("cluster.replication_factor_min", json!("two")),
        ("cluster.replication_factor_min", json!(-7)),
        ("cluster.monitor_ping_interval", json!(-15)),
        ("cluster.state_sync_interval", json!("-1m")),
        ("cluster.connection_manager", json!("many")),
        ("cluster.listen_multiaddress", json!({"ip4": "0.0.0.0"})),
        ("consensus.raft.trailing_logs", json!(-1)),
        ("consensus.raft.trailing_logs", json!(1e300)),
        ("consensus.raft.election_timeout", json!("2562047h")),
        ("consensus.raft.backups_rotate", json!(u32::MAX)),
        ("consensus.raft.data_folder", json!("../../etc")),
        ("consensus", json!([])),
        ("api.restapi.max_header_bytes", json!(u32::MAX)),
        ("ipfs_connector.embedded.storage_max", json!(-1)),
        ("informer.tags.tags", json!([["group"]])),
        ("allocator.balanced.allocate_by", json!("nonsense")),
    ] {
        good.edit(|c| {
            *c = file.clone();
            set(c, path, value.clone());
        });
        let before = contents(tmp.path());
        for command in [["daemon"].as_slice(), &["up"], &["config", "check"], &["state", "export"]] {
            let output = pinfold().args(["-c", good.path()]).args(command).output().expect("starts");
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let told = format!("{path} = {value}, {command:?}: {} {out} {err}", output.status);
            assert_eq!(output.status.code(), Some(2), "{told}");
            assert!(err.contains(path) && !err.contains("panicked"), "{told}");
        }
        assert!(contents(tmp.path()) == before, "{path} = {value}: nothing is made or changed");
    }
}

#[test]
fn every_number_and_duration_can_be_as_large_as_it_is_accepted() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp, |_| {});
    let mut tree = peer.config();
    let accepted = |tree: &Value| Config::parse("service.json", &tree.to_string(), &Env::empty()).is_ok();
    let mut large = 0;
    for key in config::keys().iter().filter(|k| !k.path.starts_with("ipfs_connector.ipfshttp")) {
        let values = match key.kind {
            "duration" => [json!("2562047h"), json!("600s"), json!("60s")],
            "number" => [json!(u64::MAX), json!(u32::MAX), json!(1_000)],
            "size" => [json!(u64::MAX), json!("8PiB"), json!("1TiB")],
            _ => continue,
        };
        // Sections that are off stay off, and crdt's are another file's.
        let section = key.path.rsplit_once('.').map_or("", |(section, _)| section);
        if section.split('.').try_fold(&tree, |at, name| at.get(name)).is_none() {
            continue;
        }
        for value in values {
            let mut next = tree.clone();
            set(&mut next, &key.path, value);
            if accepted(&next) {
                (tree, large) = (next, large + 1);
                break;
            }
        }
    }
    assert!(large > 50, "{large} keys");
    for (min, max) in [(1, 1), (-1, -1)] {
        set(&mut tree, "cluster.replication_factor_min", json!(min));
        set(&mut tree, "cluster.replication_factor_max", json!(max));
        peer.edit(|c| *c = tree.clone());
        ok(peer.ctl(&["config", "check"]));
        // Not even the tests' own variables.
        peer.spawn_with(&["daemon"], |c| {
            c.env_remove("CLUSTER_MDNSINTERVAL").env_remove("CLUSTER_MONITORPINGINTERVAL");
        });
        peer.wait_ready();
        wait_for("a pin", PATIENCE, || {
            let (status, body) = peer.request("POST", &format!("/pins/{}?replication=-1", cid_of(3)))?;
            if status == 200 {
                Ok(())
            } else {
                Err(body)
            }
        });
        assert_eq!(peer.pinned_cids(), [cid_of(3)]);
        assert!(peer.stop().0.success(), "{}", peer.log());
        assert!(!peer.log().contains("panicked"), "{}", peer.log());
    }
}
