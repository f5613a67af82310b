//! A private storage network without any way out: keys, who is let in, and IPFS nodes that stay connected.
//!
//! The story from start to end is `docs/guides/private-network.md`, which `tests/guides.rs` plays. Here is what it does
//! not show: other keys, the connections being kept, and the key commands' refusals.

mod support;

#[path = "support/kubo.rs"]
mod kubo_daemon;

use kubo_daemon::KuboDaemon;
use serde_json::json;
use std::time::{Duration, Instant};
use support::boards::Boards;
use support::cluster::{ok, run, Cluster, PATIENCE};
use support::wait_for;

/// When the IPFS nodes are connected after the start.
const DELAY: Duration = Duration::from_secs(3);

fn connected(one: &KuboDaemon, other: &KuboDaemon) -> bool {
    one.ok(&["swarm", "peers"]).contains(&other.id())
}

#[test]
fn daemons_of_a_private_network_are_connected_after_the_delay_and_kept_so() {
    let key = [7; 32];
    let (Some(one), Some(other)) = (KuboDaemon::start(Some(key)), KuboDaemon::start(Some(key))) else {
        return;
    };
    let started = Instant::now();
    let cluster = Cluster::with(2, |i, config| {
        let daemon = [&one, &other][i].api.to_string();
        config["ipfs_connector"] = json!({"ipfshttp": {
            "node_multiaddress": daemon,
            "connect_swarms_delay": format!("{}s", DELAY.as_secs()),
        }});
    });
    let wait = |what: &str| {
        wait_for(what, PATIENCE, || match connected(&one, &other) && connected(&other, &one) {
            true => Ok(()),
            false => Err(cluster.peers[0].log()),
        });
    };
    wait("connected daemons");
    assert!(started.elapsed() >= DELAY, "connected after {:?} already", started.elapsed());
    let to_other = format!("/p2p/{}", other.id());
    one.ok(&["swarm", "disconnect", &to_other]);
    wait("daemons connected again after somebody cut them off");
}

#[test]
fn an_embedded_node_with_another_key_is_left_outside() {
    let Some(boards) = Boards::new(2) else { return };
    boards.ok(1, "pinfold swarm-key ours; pinfold swarm-key other");
    assert_ne!(boards.ok(1, "cat ours"), boards.ok(1, "cat other"));
    let mut first = boards.start(1, "first", "pinfold up --swarm-key ours");
    first.wait_for("is ready");
    let token = boards.ok(1, "pinfold invite");
    let other = boards.home(1).join("other");
    std::fs::copy(&other, boards.home(2).join("key")).expect("copied");
    let mut second = boards.start(2, "second", &format!("pinfold join {token} --swarm-key key"));
    second.wait_for("2 member(s)");
    // The cluster has its own key, so it forms; content does not flow between the nodes.
    let cid = boards.ok(1, "echo secret > s.txt; pinfold add -Q s.txt --local --rmin 1 --rmax 1 --wait");
    let denied = boards.sh(2, &format!("timeout 5 pinfold cat {cid}"));
    assert!(!denied.status.success(), "read through another network's key");
    // With the right key it does: what was wrong above is the key and nothing else.
    second.interrupt();
    let ours = boards.ok(1, "cat ours");
    std::fs::write(boards.home(2).join(".pinfold/swarm.key"), ours + "\n").expect("written");
    let mut second = boards.start(2, "second-again", "pinfold up");
    second.wait_for("2 member(s)");
    wait_for("content through the right key", PATIENCE, || {
        let output = boards.sh(2, &format!("timeout 5 pinfold cat {cid}"));
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
}

#[test]
fn keys_are_shown_made_and_never_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("swarm.key");
    let file = file.to_str().expect("UTF-8");
    ok(run(["swarm-key", file]));
    let made = std::fs::read_to_string(file).expect("made");
    let again = run(["swarm-key", file]);
    assert_eq!(again.status.code(), Some(5), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(String::from_utf8_lossy(&again.stderr).contains("never overwritten"));
    assert_eq!(std::fs::read_to_string(file).expect("kept"), made);
    let home = folder.path().join("peer");
    let home = home.to_str().expect("UTF-8");
    ok(run(["-c", home, "init", "--swarm-key", file]));
    assert_eq!(ok(run(["-c", home, "swarm-key", "--show"])), made, "the key that was given");
    let kubo = folder.path().join("kubo");
    let kubo = kubo.to_str().expect("UTF-8");
    let refused = run(["-c", kubo, "init", "--ipfs", "kubo", "--swarm-key", file]);
    assert!(!refused.status.success() && !folder.path().join("kubo").exists(), "nothing half-made");
    std::fs::write(folder.path().join("bad"), "no key").expect("written");
    let bad = folder.path().join("bad");
    let refused = run(["-c", kubo, "up", "--swarm-key", bad.to_str().expect("UTF-8")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not a swarm.key"));
    assert!(!folder.path().join("kubo").exists(), "nothing half-made");
}
