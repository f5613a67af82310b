//! What moves copies by itself or on request: failover, trimming, drain, rebalance; and the metrics that allocation
//! and all of it go by. Real processes with embedded nodes, and once with real Kubo.

#[path = "support/kubo.rs"]
mod kubo;
mod support;

use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use support::cluster::{cid_of, ok, pinfold, Cluster, Peer, PATIENCE, SECRET};
use support::wait_for;

/// Quick timers: a peer that is killed is gone two to four seconds later (pings are at 1 s in all tests).
fn quick(config: &mut Value) {
    config["cluster"]["disable_repinning"] = false.into();
    config["cluster"]["repin_grace"] = "1s".into();
    config["cluster"]["state_sync_interval"] = "5s".into();
    config["monitor"]["pubsubmon"]["check_interval"] = "500ms".into();
}

fn copies(config: &mut Value, min: i32, max: i32) {
    config["cluster"]["replication_factor_min"] = min.into();
    config["cluster"]["replication_factor_max"] = max.into();
}

/// Adds content of its own, held by exactly these peers; its CID.
fn add(cluster: &Cluster, at: usize, text: &str, holders: &[usize], min: usize, max: usize) -> String {
    let file = cluster.path(&format!("{}.txt", text.replace(' ', "-")));
    std::fs::write(&file, text.repeat(100)).expect("file");
    let ids: Vec<String> = holders.iter().map(|i| cluster.peers[*i].id()).collect();
    let (min, max) = (min.to_string(), max.to_string());
    let allocations = ids.join(",");
    let mut args = vec!["add", "-Q", "--rmin", &min, "--rmax", &max];
    args.extend(["--allocations", &allocations, file.to_str().expect("UTF-8")]);
    let cid = ok(cluster.peers[at].ctl(&args)).trim().to_string();
    wait_holders(cluster, at, &cid, holders);
    cluster.peers[at].wait_status(&cid, "pinned", holders.len());
    cid
}

fn holders(cluster: &Cluster, at: usize, cid: &str) -> BTreeSet<usize> {
    let pin = cluster.peers[at].json("GET", &format!("/allocations/{cid}"));
    let ids = pin["allocations"].as_array().cloned().unwrap_or_default();
    let index =
        |id: &Value| cluster.peers.iter().position(|p| p.id() == id.as_str().expect("id")).expect("a peer");
    ids.iter().map(index).collect()
}

/// Waits until exactly these hold it.
fn wait_holders(cluster: &Cluster, at: usize, cid: &str, wanted: &[usize]) {
    let wanted: BTreeSet<usize> = wanted.iter().copied().collect();
    wait_for(&format!("{cid} on {wanted:?}"), PATIENCE, || {
        let now = holders(cluster, at, cid);
        if now == wanted {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
}

/// Waits until some other set of peers holds it than now, without the listed, and all of them have it.
fn wait_moved(cluster: &Cluster, at: usize, cid: &str, without: &[usize], count: usize) -> BTreeSet<usize> {
    wait_for(&format!("{cid} moved off {without:?}"), PATIENCE, || {
        let now = holders(cluster, at, cid);
        if now.len() != count || without.iter().any(|i| now.contains(i)) {
            return Err(format!("{now:?}"));
        }
        let info = cluster.peers[at].json("GET", &format!("/pins/{cid}"));
        let map = info["peer_map"].as_object().expect("peer_map");
        let pinned = now.iter().filter(|i| map[&cluster.peers[**i].id()]["status"] == "pinned").count();
        if pinned == count {
            Ok(now)
        } else {
            Err(info.to_string())
        }
    })
}

/// The status of a CID at one peer, as that peer says.
fn status_at(peer: &Peer, cid: &str) -> String {
    let info = peer.json("GET", &format!("/pins/{cid}?local=true"));
    info["peer_map"][&peer.id()]["status"].as_str().unwrap_or_default().to_string()
}

fn wait_status_at(peer: &Peer, cid: &str, wanted: &str) {
    wait_for(&format!("{cid} {wanted} at {}", peer.path()), PATIENCE, || {
        let now = status_at(peer, cid);
        if now == wanted {
            Ok(())
        } else {
            Err(now)
        }
    });
}

fn wait_alert(peer: &Peer, metric: &str, of: &str) {
    wait_for(&format!("an alert for {metric}"), PATIENCE, || {
        let alerts = peer.json("GET", "/health/alerts");
        let found = alerts.as_array().expect("alerts").iter().any(|a| a["name"] == metric && a["peer"] == of);
        if found {
            Ok(())
        } else {
            Err(alerts.to_string())
        }
    });
}

/// Two peers that are neither of these.
fn others(cluster: &Cluster, not: &[usize]) -> Vec<usize> {
    (0..cluster.peers.len()).filter(|i| !not.contains(i)).collect()
}

#[test]
fn the_copy_of_a_dead_peer_is_made_elsewhere_and_its_return_changes_nothing() {
    let mut cluster = Cluster::with(4, |_, c| quick(c));
    let leader = cluster.leader();
    let rest = others(&cluster, &[leader]);
    let (alive, dead) = (rest[0], rest[1]);
    let cid = add(&cluster, leader, "one dead", &[alive, dead], 2, 2);
    // Enough copies are left of this one, and everywhere is everywhere: neither moves.
    let enough = add(&cluster, leader, "enough", &[alive, dead], 1, 2);
    let everywhere = cid_of(7);
    cluster.peers[leader].json("POST", &format!("/pins/{everywhere}?replication-min=-1&replication-max=-1"));
    let before = cluster.peers[leader].json("GET", &format!("/allocations/{cid}"));

    cluster.peers[dead].kill();
    let now = wait_moved(&cluster, leader, &cid, &[dead], 2);
    assert!(now.contains(&alive), "who has it keeps it");
    wait_holders(&cluster, leader, &enough, &[alive, dead]);
    assert_eq!(holders(&cluster, leader, &everywhere), BTreeSet::new());
    let after = cluster.peers[leader].json("GET", &format!("/allocations/{cid}"));
    for field in ["name", "timestamp", "metadata", "mode", "replication_factor_min", "expire_at"] {
        assert_eq!(before[field], after[field], "{field}");
    }

    // It comes back, with content that is not its own any more.
    cluster.peers[dead].start(&["daemon"]);
    wait_status_at(&cluster.peers[dead], &cid, "remote");
    wait_status_at(&cluster.peers[dead], &enough, "pinned");
    let committed = || cluster.peers[leader].consensus()["committed"].clone();
    let quiet = committed();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(holders(&cluster, leader, &cid), now, "nothing goes back");
    assert_eq!(committed(), quiet, "and nothing is written for it");
}

#[test]
fn two_die_at_once_the_leader_one_of_them() {
    let mut cluster = Cluster::with(5, |_, c| quick(c));
    let leader = cluster.leader();
    let rest = others(&cluster, &[leader]);
    let (alive, second) = (rest[0], rest[1]);
    let cid = add(&cluster, alive, "two dead", &[alive, leader, second], 3, 3);
    let pair = add(&cluster, alive, "of two", &[leader, alive], 2, 2);
    cluster.peers[leader].kill();
    cluster.peers[second].kill();
    wait_moved(&cluster, alive, &cid, &[leader, second], 3);
    wait_moved(&cluster, alive, &pair, &[leader, second], 2);
}

#[test]
fn content_that_only_the_dead_peer_had_goes_on_when_it_returns() {
    let mut cluster = Cluster::with(3, |_, c| quick(c));
    let leader = cluster.leader();
    let rest = others(&cluster, &[leader]);
    let dead = rest[0];
    let cid = add(&cluster, leader, "only one", &[dead], 1, 1);
    cluster.peers[dead].kill();
    // Somebody else is to get it, but nobody can: the dead one stays listed.
    wait_for("a second holder", PATIENCE, || {
        let now = holders(&cluster, leader, &cid);
        if now.len() == 2 && now.contains(&dead) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    cluster.peers[dead].start(&["daemon"]);
    // One of them is enough; whoever it is, the content is there.
    wait_for("one holder", PATIENCE, || {
        let now = holders(&cluster, leader, &cid);
        if now.len() == 1 {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    cluster.peers[leader].wait_status(&cid, "pinned", 1);
}

#[test]
fn a_silence_within_the_grace_moves_nothing() {
    let mut cluster = Cluster::with(4, |_, c| {
        quick(c);
        c["cluster"]["repin_grace"] = "6s".into();
    });
    let leader = cluster.leader();
    let rest = others(&cluster, &[leader]);
    let (alive, dead) = (rest[0], rest[1]);
    let cid = add(&cluster, leader, "grace", &[alive, dead], 2, 2);

    // A reboot.
    let id = cluster.peers[dead].id();
    cluster.peers[dead].kill();
    wait_alert(&cluster.peers[leader], "ping", &id);
    cluster.peers[dead].start(&["daemon"]);
    wait_status_at(&cluster.peers[dead], &cid, "pinned");
    assert_eq!(holders(&cluster, leader, &cid), BTreeSet::from([alive, dead]));

    // A death.
    cluster.peers[dead].kill();
    let died = Instant::now();
    wait_moved(&cluster, leader, &cid, &[dead], 2);
    // The last ping was at most a second old, and lives for two.
    assert!(died.elapsed() >= Duration::from_secs(7), "{:?}", died.elapsed());
}

#[test]
fn repinning_that_is_disabled_moves_nothing() {
    let mut cluster = Cluster::with(3, |_, c| {
        quick(c);
        c["cluster"]["disable_repinning"] = true.into();
        c["cluster"]["repin_grace"] = "0s".into();
    });
    let leader = cluster.leader();
    let rest = others(&cluster, &[leader]);
    let cid = add(&cluster, leader, "disabled", &rest, 2, 2);
    let id = cluster.peers[rest[1]].id();
    cluster.peers[rest[1]].kill();
    wait_alert(&cluster.peers[leader], "ping", &id);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(holders(&cluster, leader, &cid), rest.iter().copied().collect());
}

#[test]
fn without_a_peer_for_the_copy_it_is_said_once_and_done_when_there_is_one() {
    // p2 has no disk metric, so that nothing can be allocated to it.
    let mut cluster = Cluster::members(3, |i, c| {
        quick(c);
        c["allocator"]["balanced"]["allocate_by"] = json!(["freespace"]);
        if i == 2 {
            c["informer"].as_object_mut().expect("informer").remove("disk");
        }
    });
    let cid = add(&cluster, 0, "short", &[0, 1], 2, 2);
    // p1 has the only metric that counts, once p0 has lost its own.
    cluster.peers[0].edit(|c| drop(c["informer"].as_object_mut().expect("informer").remove("disk")));
    cluster.peers[0].stop();
    cluster.peers[0].start(&["daemon"]);
    cluster.peers[1].kill();
    let complaint = "fewer copies than they should";
    let logs = |cluster: &Cluster| cluster.peers.iter().map(Peer::log).collect::<String>();
    wait_for("a complaint", PATIENCE, || {
        if logs(&cluster).contains(complaint) {
            Ok(())
        } else {
            Err("none".into())
        }
    });
    assert_eq!(holders(&cluster, 0, &cid), BTreeSet::from([0, 1]), "the dead one is kept");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(logs(&cluster).matches(complaint).count(), 1, "once is enough");

    cluster.peers[2]
        .edit(|c| c["informer"]["disk"] = json!({"metric_ttl": "2s", "metric_type": "freespace"}));
    cluster.peers[2].stop();
    cluster.peers[2].start(&["daemon"]);
    wait_moved(&cluster, 0, &cid, &[1], 2);
}

#[test]
fn a_drained_peer_gives_its_pins_away_and_takes_no_new_ones() {
    let mut cluster = Cluster::with(3, |_, c| {
        quick(c);
        // A person's wish, not a death.
        c["cluster"]["disable_repinning"] = true.into();
        copies(c, 1, 1);
    });
    let leader = cluster.leader();
    let drained = others(&cluster, &[leader])[0];
    let cids: Vec<String> =
        (0..5).map(|n| add(&cluster, leader, &format!("drain {n}"), &[drained], 1, 1)).collect();
    // Content that nobody has is no reason to stay.
    let nowhere = cid_of(77);
    let id = cluster.peers[drained].id();
    cluster.peers[leader].json("POST", &format!("/pins/{nowhere}?user-allocations={id}"));
    wait_holders(&cluster, leader, &nowhere, &[drained]);

    let words = ok(cluster.peers[leader].ctl(&["drain", &id]));
    assert!(words.contains("6 pins moved, nothing is left"), "{words}");
    for cid in &cids {
        assert!(!holders(&cluster, leader, cid).contains(&drained));
        cluster.peers[leader].wait_status(cid, "pinned", 1);
        wait_status_at(&cluster.peers[drained], cid, "remote");
    }

    // Not even when it is asked for by name, and not after a restart either.
    let refuses = |cluster: &Cluster, n: u64| {
        let cid = cid_of(n);
        cluster.peers[leader].json("POST", &format!("/pins/{cid}?user-allocations={id}"));
        !holders(cluster, leader, &cid).contains(&drained)
    };
    assert!(refuses(&cluster, 1));
    let names = cluster.peers[leader].json("GET", "/monitor/metrics");
    assert!(names.as_array().expect("names").contains(&"drained".into()), "{names}");
    cluster.peers[drained].stop();
    cluster.peers[drained].start(&["daemon"]);
    cluster.peers[leader].wait_candidates(3);
    assert!(refuses(&cluster, 2));

    let words = ok(cluster.peers[leader].ctl(&["drain", "--undo", &id]));
    assert!(words.contains("takes pins again"), "{words}");
    wait_for("an allocation", PATIENCE, || if refuses(&cluster, 3) { Err("not yet".into()) } else { Ok(()) });
}

#[test]
fn draining_goes_on_under_another_leader() {
    let mut cluster = Cluster::with(4, |_, c| {
        quick(c);
        copies(c, 1, 1);
    });
    let leader = cluster.leader();
    let rest = others(&cluster, &[leader]);
    let (drained, asked) = (rest[0], rest[1]);
    let cids: Vec<String> =
        (0..4).map(|n| add(&cluster, asked, &format!("handed over {n}"), &[drained], 1, 1)).collect();
    let id = cluster.peers[drained].id();
    // The leader dies at the very moment.
    let url = cluster.peers[asked].path().to_string();
    let follower = std::thread::spawn({
        let id = id.clone();
        move || pinfold().args(["-c", &url, "drain", &id]).output().expect("started")
    });
    cluster.peers[leader].kill();
    let words = ok(follower.join().expect("joined"));
    assert!(words.contains("nothing is left"), "{words}");
    for cid in &cids {
        let now = holders(&cluster, asked, cid);
        assert!(!now.contains(&drained) && now.len() == 1, "{now:?}");
        assert!(!now.contains(&leader), "nobody gives to the dead");
    }
}

#[test]
fn a_dead_peer_is_emptied_by_drain_too() {
    let mut cluster = Cluster::with(4, |_, c| {
        quick(c);
        c["cluster"]["disable_repinning"] = true.into();
    });
    let leader = cluster.leader();
    let rest = others(&cluster, &[leader]);
    let cid = add(&cluster, leader, "dead drain", &rest[..2], 2, 2);
    let id = cluster.peers[rest[0]].id();
    cluster.peers[rest[0]].kill();
    wait_alert(&cluster.peers[leader], "ping", &id);
    let words = ok(cluster.peers[leader].ctl(&["drain", &id]));
    assert!(words.contains("does not answer") && words.contains("1 pins moved, nothing is left"), "{words}");
    wait_moved(&cluster, leader, &cid, &rest[..1], 2);
    let (status, body) = cluster.peers[leader]
        .request("POST", "/peers/12D3KooWKktuUeZrGSw2Wfnuy2o71D6gtixmoKurfwrsqALUmtct/drain")
        .expect("answer");
    assert_eq!(status, 404, "{body}");
}

#[test]
fn a_new_peer_gets_its_share_by_rebalance() {
    let mut cluster = Cluster::with(2, |_, c| {
        quick(c);
        copies(c, 1, 2);
    });
    let cids: Vec<String> =
        (0..12).map(|n| add(&cluster, 0, &format!("share {n}"), &[n % 2], 1, 1)).collect();
    let both = add(&cluster, 0, "both", &[0, 1], 2, 2);
    let everywhere = cid_of(3);
    cluster.peers[0].json("POST", &format!("/pins/{everywhere}?replication-min=-1&replication-max=-1"));

    let mut newcomer = Peer::init(cluster.path("p2"), "p2", SECRET);
    newcomer.edit(quick);
    newcomer.start(&["daemon", "--bootstrap", &cluster.peers[0].address()]);
    cluster.peers.push(newcomer);
    for peer in &cluster.peers {
        peer.wait_members(3);
        peer.wait_candidates(3);
    }
    let count =
        |i: usize| cids.iter().chain([&both]).filter(|c| holders(&cluster, 0, c).contains(&i)).count();
    // 14 copies; nothing has moved by itself, nor does a dry run.
    let words = ok(cluster.peers[1].ctl(&["rebalance", "--dry-run"]));
    assert!(words.contains("4 pins would move"), "{words}");
    assert!(words.contains("p2: 0 copies -> 4"), "{words}");
    assert_eq!(count(2), 0);

    let words = ok(cluster.peers[1].ctl(&["rebalance"]));
    assert!(words.contains("4 pins moved, the copies are even"), "{words}");
    assert_eq!((count(0), count(1), count(2)), (5, 5, 4));
    for cid in &cids {
        assert_eq!(holders(&cluster, 0, cid).len(), 1);
        cluster.peers[0].wait_status(cid, "pinned", 1);
    }
    let words = ok(cluster.peers[1].ctl(&["rebalance"]));
    assert!(words.contains("even already"), "{words}");
}

/// A swarm key that only this peer has: its node finds nobody.
fn isolate(peer: &Peer) {
    let key = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "5a".repeat(32));
    std::fs::write(peer.folder.join("other.key"), key).expect("key");
    peer.edit(|c| {
        c["ipfs_connector"]["embedded"]["network"] = "private".into();
        c["ipfs_connector"]["embedded"]["swarm_key_file"] = "other.key".into();
    });
}

#[test]
fn a_rebalance_that_is_interrupted_leaves_every_pin_with_its_copy() {
    let mut cluster = Cluster::with(2, |_, c| {
        quick(c);
        copies(c, 1, 1);
    });
    let cids: Vec<String> =
        (0..6).map(|n| add(&cluster, 0, &format!("interrupted {n}"), &[n % 2], 1, 1)).collect();
    let before: Vec<_> = cids.iter().map(|c| holders(&cluster, 0, c)).collect();
    let mut newcomer = Peer::init(cluster.path("p2"), "p2", SECRET);
    newcomer.edit(quick);
    isolate(&newcomer);
    newcomer.start(&["daemon", "--bootstrap", &cluster.peers[0].address()]);
    cluster.peers.push(newcomer);
    cluster.peers[0].wait_members(3);
    cluster.peers[0].wait_candidates(3);

    let mut command = pinfold();
    command.args(["-c", cluster.peers[0].path(), "rebalance"]).stdout(std::process::Stdio::piped());
    let mut running = command.spawn().expect("started");
    let added = |cluster: &Cluster| cids.iter().filter(|c| holders(cluster, 0, c).contains(&2)).count();
    wait_for("copies on their way", PATIENCE, || match added(&cluster) {
        2 => Ok(()),
        n => Err(n.to_string()),
    });
    // While it runs, nobody trims what it adds.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(added(&cluster), 2);
    let (status, body) = cluster.peers[1].request("POST", "/rebalance").expect("answer");
    assert!(status == 500 && body.contains("under way already"), "{status} {body}");

    let interrupt = std::process::Command::new("kill").args(["-INT", &running.id().to_string()]).status();
    assert!(interrupt.expect("kill").success());
    running.wait().expect("ended");
    for (cid, holders) in cids.iter().zip(&before) {
        wait_holders(&cluster, 0, cid, &holders.iter().copied().collect::<Vec<_>>());
        cluster.peers[0].wait_status(cid, "pinned", 1);
    }
}

#[test]
fn a_drain_says_what_cannot_be_moved_and_why() {
    let cluster = Cluster::with(2, |_, c| {
        quick(c);
        copies(c, 1, 2);
    });
    let both = add(&cluster, 0, "both", &[0, 1], 2, 2);
    let one = add(&cluster, 0, "one", &[1], 1, 1);
    let id = cluster.peers[1].id();
    let words = ok(cluster.peers[0].ctl(&["drain", &id]));
    assert!(words.contains("1 pins moved; 1 stay, because no other peer can hold them"), "{words}");
    assert_eq!(holders(&cluster, 0, &both), BTreeSet::from([0, 1]));
    assert_eq!(holders(&cluster, 0, &one), BTreeSet::from([0]));
    // The same over REST: lines, the last one done.
    let (status, body) = cluster.peers[0].request("POST", &format!("/peers/{id}/drain")).expect("answer");
    assert_eq!(status, 200, "{body}");
    let last: Value = serde_json::from_str(body.lines().last().expect("lines")).expect("JSON");
    assert_eq!(
        (&last["done"], &last["short"], &last["moved"]),
        (&json!(true), &json!(1), &json!(0)),
        "{body}"
    );
    for path in ["/peers/nosuch/drain", &format!("/peers/{id}/drain?undo=perhaps"), "/rebalance?dry-run=2"] {
        let (status, body) = cluster.peers[0].request("POST", path).expect("answer");
        assert_eq!(status, 400, "{path}: {body}");
    }
}

#[test]
fn kubo_gets_the_copy_of_a_dead_kubo() {
    let kubos: Option<Vec<_>> = (0..3).map(|_| kubo::KuboDaemon::start(None)).collect();
    let Some(mut kubos) = kubos else { return };
    let mut cluster = Cluster::with(3, |i, c| {
        quick(c);
        c["ipfs_connector"] = json!({"ipfshttp": {
            "node_multiaddress": kubos[i].api.to_string(),
            "connect_swarms_delay": "500ms",
            "pin_timeout": "20s",
        }});
    });
    let leader = cluster.leader();
    let rest = others(&cluster, &[leader]);
    let cid = add(&cluster, leader, "kubo", &rest, 2, 2);
    assert!(kubos[rest[0]].has_pinned(&cid, "recursive"));
    cluster.peers[rest[0]].kill();
    kubos[rest[0]].kill();
    wait_moved(&cluster, leader, &cid, &rest[..1], 2);
    assert!(kubos[leader].has_pinned(&cid, "recursive"));

    // Both come back; Kubo still has it pinned, and it is not this peer's any more.
    kubos[rest[0]].run();
    cluster.peers[rest[0]].start(&["daemon"]);
    wait_for("an unpin in Kubo", PATIENCE, || match kubos[rest[0]].has_pinned(&cid, "recursive") {
        false => Ok(()),
        true => Err("still pinned".into()),
    });
    assert!(kubos[rest[1]].has_pinned(&cid, "recursive") && kubos[leader].has_pinned(&cid, "recursive"));
}
