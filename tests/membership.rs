//! Members that come, go, are removed, lose their disk or were away: with real processes.

#[path = "support/kubo.rs"]
mod kubo;
mod support;

use kubo::KuboDaemon;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};
use support::clock::Clock;
use support::cluster::{cid_of, ok, Cluster, Peer, PATIENCE, SECRET};
use support::wait_for;

/// Peers that join one at the same instant.
const CROWD: usize = 20;
/// All of them must be in within this.
const CROWD_LIMIT: Duration = Duration::from_secs(45);

fn voters(peer: &Peer) -> usize {
    peer.consensus()["members"].as_array().map_or(0, |m| m.iter().filter(|m| m["role"] == "voter").count())
}

fn cluster_peers(peer: &Peer) -> BTreeSet<String> {
    let id = peer.json("GET", "/id");
    let all = id["cluster_peers"].as_array().expect("cluster_peers").iter();
    all.map(|p| p.as_str().expect("id").to_owned()).collect()
}

/// Waits for a process that must end with an error; its log.
fn refused(peer: &mut Peer, code: i32) -> String {
    let (status, _) = peer.wait_end();
    let log = peer.log();
    assert_eq!(status.code(), Some(code), "{log}");
    log
}

/// Waits until a write goes through at this peer.
fn wait_write(peer: &Peer, n: u64) {
    wait_for("a write", PATIENCE, || match peer.request("POST", &format!("/pins/{}", cid_of(n))) {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn wait_pins(peer: &Peer, numbers: &[u64]) {
    let mut wanted: Vec<String> = numbers.iter().map(|n| cid_of(*n)).collect();
    wanted.sort();
    wait_for("the same pins", PATIENCE, || {
        let pins = peer.pinned_cids();
        if pins == wanted {
            Ok(())
        } else {
            Err(format!("{pins:?}"))
        }
    });
}

/// The names in a folder that begin so, sorted.
fn names(peer: &Peer, prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(&peer.folder)
        .expect("folder")
        .map(|e| e.expect("entry").file_name().into_string().expect("UTF-8"))
        .filter(|n| n.starts_with(prefix))
        .collect();
    names.sort();
    names
}

#[test]
fn twenty_peers_join_one_at_the_same_instant() {
    let quick = |config: &mut Value| {
        // Twenty processes of a debug build share this machine: a hasty election would only disturb.
        config["consensus"]["raft"]["heartbeat_timeout"] = "400ms".into();
        config["consensus"]["raft"]["election_timeout"] = "2s".into();
    };
    let mut cluster = Cluster::with(1, |_, config| quick(config));
    let cid = cid_of(1);
    cluster.peers[0].json("POST", &format!("/pins/{cid}?replication=1"));
    let bootstrap = cluster.peers[0].address();
    for i in 1..=CROWD {
        let peer = Peer::init(cluster.path(&format!("p{i}")), &format!("p{i}"), SECRET);
        peer.edit(quick);
        cluster.peers.push(peer);
    }
    let started = Instant::now();
    cluster.peers[1..].iter_mut().for_each(|p| p.spawn(&["daemon", "--bootstrap", &bootstrap]));
    cluster.peers[1..].iter_mut().for_each(Peer::wait_ready);
    for peer in &cluster.peers {
        peer.wait_members(CROWD + 1);
    }
    let took = started.elapsed();
    eprintln!("joined: {CROWD} peers in {took:?}");
    assert!(took < CROWD_LIMIT, "{took:?}");
    cluster.peers[0].wait_voters(7);
    wait_pins(&cluster.peers[CROWD], &[1]);
    wait_write(&cluster.peers[CROWD], 2);
    assert_eq!(voters(&cluster.peers[3]), 7, "no more than seven, ever");
}

#[test]
fn a_peer_with_data_of_another_cluster_is_refused_and_keeps_it() {
    let cluster = Cluster::of(1);
    let mut own = Peer::init(cluster.path("own"), "own", SECRET);
    own.start(&["daemon"]);
    own.json("POST", &format!("/pins/{}", cid_of(3)));
    own.stop();
    let (flag, before) = (cluster.peers[0].address(), ok(own.ctl(&["state", "export"])));
    for by_flag in [true, false] {
        if by_flag {
            own.spawn(&["daemon", "--bootstrap", &flag]);
        } else {
            own.edit(|config| config["cluster"]["bootstrap"] = vec![Value::from(flag.clone())].into());
            own.spawn(&["daemon"]);
        }
        let log = refused(&mut own, 5);
        assert!(log.contains("state cleanup") && log.contains("Nothing was changed"), "{log}");
        assert_eq!(ok(own.ctl(&["state", "export"])), before);
    }
    // The way out.
    ok(own.ctl(&["state", "cleanup", "-f"]));
    own.start(&["daemon"]);
    own.wait_members(2);
    cluster.peers[0].wait_members(2);
    assert!(own.pinned_cids().is_empty());
    assert_eq!(names(&own, "raft.old."), ["raft.old.0"]);
    // A member goes on with the address that it once came by, even when that peer has begun anew meanwhile.
    own.stop();
    own.start(&["daemon"]);
    own.wait_members(2);
    let mut cluster = cluster;
    let id = cluster.peers[0].id();
    own.wait_voters(2);
    ok(own.ctl(&["peers", "rm", &id]));
    cluster.peers[0].wait_end();
    ok(cluster.peers[0].ctl(&["state", "cleanup", "-f"]));
    cluster.peers[0].start(&["daemon"]);
    cluster.peers[0].wait_members(1);
    own.stop();
    own.start(&["daemon"]);
    own.wait_members(1);
    assert_ne!(own.consensus()["cluster_id"], cluster.peers[0].consensus()["cluster_id"]);
}

#[test]
fn peers_add_says_how_a_peer_is_added() {
    let cluster = Cluster::of(1);
    let output = cluster.peers[0].ctl(&[
        "peers",
        "add",
        "/ip4/10.0.0.9/tcp/9096/p2p/12D3KooWKktuUeZrGSw2Wfnuy2o71D6gtixmoKurfwrsqALUmtct",
    ]);
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("pinfold join TOKEN") && words.contains("--bootstrap"), "{words}");
}

#[test]
fn bootstrap_addresses_of_the_configuration_let_a_fresh_peer_in_through_any() {
    let cluster = Cluster::of(2);
    let dead = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWKktuUeZrGSw2Wfnuy2o71D6gtixmoKurfwrsqALUmtct";
    let mut peer = Peer::init(cluster.path("new"), "new", SECRET);
    let list: Vec<Value> =
        [dead.to_string(), peer.address(), cluster.peers[1].address()].map(Value::from).into();
    peer.edit(|config| config["cluster"]["bootstrap"] = list.into());
    peer.start(&["daemon"]);
    peer.wait_members(3);
}

#[test]
fn a_wiped_peer_finds_home_by_its_peerstore_and_founds_nothing_beside_it() {
    let mut cluster = Cluster::with(3, |_, config| {
        config["consensus"]["raft"]["wait_for_leader_timeout"] = "3s".into();
    });
    cluster.peers[0].json("POST", &format!("/pins/{}", cid_of(1)));
    let wiped = 2;
    wait_for("a peerstore", PATIENCE, || {
        let text = std::fs::read_to_string(cluster.peers[wiped].folder.join("peerstore")).unwrap_or_default();
        let both = [0, 1].iter().all(|i| text.contains(&cluster.peers[*i].id()));
        if both {
            Ok(())
        } else {
            Err(text)
        }
    });
    // The plug, and a data folder that is gone: written down before, not at the clean stop.
    cluster.peers[wiped].kill();
    std::fs::remove_dir_all(cluster.peers[wiped].folder.join("raft")).expect("wiped");
    cluster.peers[wiped].start(&["daemon"]);
    cluster.peers[wiped].wait_members(3);
    wait_pins(&cluster.peers[wiped], &[1]);
    cluster.peers[0].wait_voters(3);
    // Nobody is there: no second cluster, but a sentence.
    cluster.peers.iter_mut().for_each(Peer::kill);
    std::fs::remove_dir_all(cluster.peers[wiped].folder.join("raft")).expect("wiped");
    cluster.peers[wiped].spawn(&["daemon"]);
    let log = refused(&mut cluster.peers[wiped], 6);
    assert!(log.contains("peerstore names peers of the cluster that it was in"), "{log}");
    // The way out that the sentence names.
    std::fs::remove_file(cluster.peers[wiped].folder.join("peerstore")).expect("removed");
    cluster.peers[wiped].start(&["daemon"]);
    cluster.peers[wiped].wait_members(1);
}

#[test]
fn who_leaves_at_its_stop_comes_back_by_itself_and_the_last_one_stays() {
    let mut cluster = Cluster::of(2);
    cluster.peers[0].json("POST", &format!("/pins/{}", cid_of(1)));
    for round in 0..3 {
        cluster.peers[1].stop();
        cluster.peers[1].start(&["daemon", "--leave"]);
        cluster.peers[1].wait_members(2);
        let (status, _) = cluster.peers[1].stop();
        assert!(status.success(), "{}", cluster.peers[1].log());
        cluster.peers[0].wait_members(1);
        let kept: Vec<String> = (0..=round).map(|n| format!("raft.old.{n}")).collect();
        assert_eq!(names(&cluster.peers[1], "raft"), kept);
        cluster.peers[1].start(&["daemon"]);
        cluster.peers[1].wait_members(2);
        wait_pins(&cluster.peers[1], &[1]);
    }
    // By configuration, and alone.
    cluster.peers[1].edit(|config| {
        config["cluster"]["leave_on_shutdown"] = true.into();
        config["consensus"]["raft"]["backups_rotate"] = 2.into();
    });
    cluster.peers[1].stop();
    cluster.peers[1].start(&["daemon"]);
    cluster.peers[1].stop();
    assert_eq!(names(&cluster.peers[1], "raft.old."), ["raft.old.0", "raft.old.1"], "older ones are deleted");
    cluster.peers[0].edit(|config| config["cluster"]["leave_on_shutdown"] = true.into());
    cluster.peers[0].stop();
    cluster.peers[0].start(&["daemon"]);
    cluster.peers[0].wait_members(1);
    cluster.peers[0].stop();
    assert!(cluster.peers[0].log().contains("last member"), "{}", cluster.peers[0].log());
    cluster.peers[0].start(&["daemon"]);
    wait_pins(&cluster.peers[0], &[1]);
}

#[test]
fn a_peer_that_was_away_while_all_whom_it_knew_were_replaced_catches_up() {
    let mut cluster = Cluster::of(3);
    cluster.peers[0].json("POST", &format!("/pins/{}", cid_of(1)));
    wait_pins(&cluster.peers[2], &[1]);
    cluster.peers[2].kill();
    // Two new ones come …
    let bootstrap = cluster.peers[0].address();
    for name in ["n0", "n1"] {
        let mut peer = Peer::init(cluster.path(name), name, SECRET);
        peer.start(&["daemon", "--bootstrap", &bootstrap]);
        cluster.peers.push(peer);
    }
    cluster.peers[3].wait_voters(5);
    wait_write(&cluster.peers[3], 2);
    // … and both that the sleeper knew go.
    for old in [0, 1] {
        let id = cluster.peers[old].id();
        wait_for("the removal", PATIENCE, || {
            let output = cluster.peers[3].ctl(&["peers", "rm", &id]);
            if output.status.success() {
                Ok(())
            } else {
                Err(format!("{output:?}"))
            }
        });
        cluster.peers[old].wait_end();
    }
    wait_write(&cluster.peers[4], 3);
    cluster.peers[2].start(&["daemon"]);
    cluster.peers[2].wait_members(3);
    wait_pins(&cluster.peers[2], &[1, 2, 3]);
    let expected: BTreeSet<String> = [2, 3, 4].map(|i| cluster.peers[i].id()).into();
    assert_eq!(cluster_peers(&cluster.peers[2]), expected);
}

#[test]
fn the_list_of_peers_tells_errors_per_peer_and_each_ones_own_view() {
    let mut cluster = Cluster::of(3);
    cluster.peers[2].kill();
    let dead = cluster.peers[2].id();
    let lines = wait_for("an error for the dead peer", PATIENCE, || {
        let lines = cluster.peers[0].lines("/peers");
        let told =
            lines.iter().any(|l| l["id"] == dead.as_str() && !l["error"].as_str().unwrap_or("").is_empty());
        if told {
            Ok(lines)
        } else {
            Err(format!("{lines:?}"))
        }
    });
    assert_eq!(lines.len(), 3);
    for line in lines.iter().filter(|l| l["id"] != dead.as_str()) {
        assert_eq!(line["cluster_peers"].as_array().expect("own view").len(), 3, "{line}");
        assert_eq!(line["error"], "", "{line}");
        assert!(!line["ipfs"]["id"].as_str().expect("its node").is_empty());
    }
    let text = ok(cluster.peers[0].ctl(&["peers", "ls"]));
    assert!(text.contains(&format!("{dead} | ERROR: ")), "{text}");
    assert_eq!(text.matches("Sees 2 other peers").count(), 2, "{text}");
    let json = ok(cluster.peers[1].ctl(&["--enc=json", "peers", "ls"]));
    let objects: Vec<Value> =
        serde_json::Deserializer::from_str(&json).into_iter().collect::<Result<_, _>>().expect("JSON");
    let views = objects.iter().filter(|o| o["cluster_peers"].as_array().is_some_and(|v| v.len() == 3));
    assert_eq!(views.count(), 2, "{json}");
}

#[test]
fn multicast_discovery_does_not_merge_clusters() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut peers: Vec<Peer> = (0..2)
        .map(|i| {
            let peer = Peer::init(folder.path().join(format!("p{i}")), &format!("p{i}"), SECRET);
            peer.edit(|config| {
                let at = config["cluster"]["listen_multiaddress"].as_str().expect("address");
                config["cluster"]["listen_multiaddress"] = at.replace("127.0.0.1", "0.0.0.0").into();
            });
            peer
        })
        .collect();
    for peer in &mut peers {
        peer.spawn_with(&["--debug", "daemon"], |command: &mut Command| {
            command.env("CLUSTER_MDNSINTERVAL", "1s");
        });
        peer.wait_ready();
    }
    // Where the machine has no interface but loopback there is nothing to find, and nothing to merge either.
    let other = peers[1].id();
    let limit = Instant::now() + Duration::from_secs(10);
    while !peers[0].log().contains(&format!("found {other} nearby")) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("found: {}", peers[0].log().contains(&format!("found {other} nearby, no member")));
    for peer in &peers {
        peer.wait_members(1);
        assert_eq!(peer.lines("/peers").len(), 1);
    }
    assert_ne!(peers[0].consensus()["cluster_id"], peers[1].consensus()["cluster_id"]);
}

#[test]
fn a_peer_whose_clock_is_a_year_off_does_its_work_and_expires_nothing_wrongly() {
    const YEAR: i64 = 365 * 24 * 3600;
    // Whoever has the shortest election timeout leads when nothing is heard of the leader.
    let election = |config: &mut Value, timeout: &str| {
        config["consensus"]["raft"]["heartbeat_timeout"] = "100ms".into();
        config["consensus"]["raft"]["election_timeout"] = timeout.into();
    };
    let mut cluster = Cluster::with(3, |_, config| {
        config["cluster"]["state_sync_interval"] = "500ms".into();
        election(config, "2s");
    });
    let Some(clock) = Clock::new(cluster.folder.path()) else { return };
    let soon = cid_of(1);
    cluster.peers[0].json("POST", &format!("/pins/{soon}?expire-in=24h"));
    for (n, offset) in [(1, YEAR), (2, -YEAR)] {
        clock.set(offset);
        let odd = n as usize;
        cluster.peers[odd].stop();
        cluster.peers[odd].edit(|config| election(config, "400ms"));
        clock.start(&mut cluster.peers[odd]);
        cluster.peers[odd].wait_members(3);
        // It pins and is pinned to …
        let cid = cid_of(10 + n);
        cluster.peers[odd].json("POST", &format!("/pins/{cid}"));
        wait_for("the pin elsewhere", PATIENCE, || {
            let pins = cluster.peers[0].pinned_cids();
            if pins.contains(&cid) {
                Ok(())
            } else {
                Err(format!("{pins:?}"))
            }
        });
        // … sets no expiry by its clock …
        let (status, body) = cluster.peers[odd]
            .request("POST", &format!("/pins/{}?expire-in=24h", cid_of(20)))
            .expect("answer");
        assert!(status == 500 && body.contains("clocks of the peers disagree"), "{status} {body}");
        // … and as the leader it expires nothing that is not over for the others.
        // (Frozen, not killed: of a killed leader everybody knows at once, and the first by Raft id stands.)
        wait_for("the odd one leading", PATIENCE, || {
            let leader = cluster.leader();
            if leader == odd {
                return Ok(());
            }
            cluster.peers[leader].signal("STOP");
            let before = cluster.peers[leader].id();
            let next = wait_for("another leader", PATIENCE, || {
                let health = cluster.peers[odd].consensus();
                let next = health["leader"].as_str().filter(|id| !id.is_empty() && *id != before);
                next.map(str::to_string).ok_or_else(|| health.to_string())
            });
            cluster.peers[leader].signal("CONT");
            Err(format!("after {leader} leads {next}"))
        });
        let passes = Instant::now() + Duration::from_secs(2);
        while Instant::now() < passes {
            assert!(cluster.peers[0].pinned_cids().contains(&soon), "expired by a wrong clock");
            std::thread::sleep(Duration::from_millis(100));
        }
        clock.set(0);
        cluster.peers[odd].stop();
        cluster.peers[odd].edit(|config| election(config, "2s"));
        cluster.peers[odd].start(&["daemon"]);
    }
    // With the right time an expiry still is one.
    let over = cid_of(30);
    cluster.peers[0].json("POST", &format!("/pins/{over}?expire-in=2s"));
    wait_for("the expiry", PATIENCE, || {
        let pins = cluster.peers[0].pinned_cids();
        if pins.contains(&over) {
            Err("still there".into())
        } else {
            Ok(())
        }
    });
    assert!(cluster.peers[0].pinned_cids().contains(&soon));
}

/// Adds content with exactly one copy, at peer `holder`; its CID.
fn add_single(cluster: &Cluster, holder: usize, text: &str) -> String {
    let file = cluster.path(&format!("{}.txt", text.replace(' ', "-")));
    std::fs::write(&file, text.repeat(1_000)).expect("file");
    let id = cluster.peers[holder].id();
    let file = file.to_str().expect("UTF-8");
    let flags = ["add", "-Q", "--rmin", "1", "--rmax", "1", "--allocations", &id, file];
    let cid = ok(cluster.peers[holder].ctl(&flags)).trim().to_string();
    cluster.peers[holder].wait_status(&cid, "pinned", 1);
    let pin = cluster.peers[holder].json("GET", &format!("/allocations/{cid}"));
    assert_eq!(pin["allocations"], Value::from(vec![Value::from(id)]), "{pin}");
    cid
}

/// Removes a peer by `peers rm` at `at`, running or not; what it held alone is elsewhere before it is gone.
fn remove_with_content(cluster: &mut Cluster, at: usize, victim: usize, cid: &str) {
    let id = cluster.peers[victim].id();
    ok(cluster.peers[at].ctl(&["peers", "rm", &id]));
    // Already now: the removal waited for it.
    let witness =
        (0..cluster.peers.len()).find(|i| *i != victim && cluster.peers[*i].is_running()).expect("one");
    let pin = cluster.peers[witness].json("GET", &format!("/allocations/{cid}"));
    let holders = pin["allocations"].as_array().expect("allocations").clone();
    assert!(!holders.is_empty() && !holders.contains(&Value::from(id)), "{pin}");
    let (status, _) = cluster.peers[victim].wait_end();
    assert_eq!(status.code(), Some(5), "{}", cluster.peers[victim].log());
    cluster.peers[witness].wait_status(cid, "pinned", 1);
}

fn moving(config: &mut Value) {
    config["cluster"]["disable_repinning"] = false.into();
    config["cluster"]["repin_grace"] = "1s".into();
    config["monitor"]["pubsubmon"]["check_interval"] = "500ms".into();
}

#[test]
fn content_with_one_copy_is_copied_before_its_holder_is_removed_or_leaves() {
    let mut cluster = Cluster::with(4, |_, config| moving(config));
    // A follower, by another peer.
    let leader = cluster.leader();
    let follower = (leader + 1) % 4;
    let first = add_single(&cluster, follower, "on the follower");
    remove_with_content(&mut cluster, leader, follower, &first);
    // The leader, by itself.
    let leader = cluster.leader();
    let second = add_single(&cluster, leader, "on the leader");
    remove_with_content(&mut cluster, leader, leader, &second);
    // One that leaves at its stop.
    let leaver = (0..4).find(|i| cluster.peers[*i].is_running()).expect("one of two");
    let last = (0..4).rfind(|i| cluster.peers[*i].is_running()).expect("the other");
    let third = add_single(&cluster, leaver, "on the leaver");
    cluster.peers[leaver].edit(|config| config["cluster"]["leave_on_shutdown"] = true.into());
    cluster.peers[leaver].stop();
    cluster.peers[leaver].start(&["daemon"]);
    cluster.peers[leaver].wait_candidates(2);
    cluster.peers[last].wait_candidates(2);
    let (status, took) = cluster.peers[leaver].stop();
    assert!(status.success() && took < Duration::from_secs(34), "{took:?} {}", cluster.peers[leaver].log());
    cluster.peers[last].wait_members(1);
    for cid in [&first, &second, &third] {
        cluster.peers[last].wait_status(cid, "pinned", 1);
        assert!(ok(cluster.peers[last].ctl(&["cat", cid])).starts_with("on the "));
    }
}

#[test]
fn the_only_copy_is_not_given_up_unless_its_holder_is_dead() {
    let mut cluster = Cluster::with(2, |_, config| {
        moving(config);
        config["ipfs_connector"]["embedded"]["pin_timeout"] = "2s".into();
        config["informer"]["disk"]["metric_ttl"] = "3s".into();
    });
    let cid = add_single(&cluster, 1, "all there is");
    // The other one is as full as it can be: it tells no free space, and is given nothing.
    cluster.peers[0].stop();
    cluster.peers[0].edit(|config| {
        config["informer"]["disk"]["metric_type"] = "reposize".into();
    });
    cluster.peers[0].start(&["daemon"]);
    cluster.peers[0].wait_members(2);
    wait_for("no candidate but the holder", PATIENCE, || {
        let space = cluster.peers[1].json("GET", "/monitor/metrics/freespace");
        if space.as_array().is_some_and(|s| s.len() == 1) {
            Ok(())
        } else {
            Err(space.to_string())
        }
    });
    let id = cluster.peers[1].id();
    let started = Instant::now();
    let output = cluster.peers[0].ctl(&["peers", "rm", &id]);
    eprintln!("refused in {:?}", started.elapsed());
    let words =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("stays a member") && words.contains("pinfold drain"), "{words}");
    cluster.peers[0].wait_members(2);
    cluster.peers[1].wait_status(&cid, "pinned", 1);
    // Nor does it leave with it.
    cluster.peers[1].edit(|config| config["cluster"]["leave_on_shutdown"] = true.into());
    cluster.peers[1].stop();
    cluster.peers[1].start(&["daemon"]);
    cluster.peers[1].wait_candidates(1);
    cluster.peers[1].stop();
    let log = cluster.peers[1].log();
    let sentence = log.lines().find(|l| l.contains("stays a member")).unwrap_or_else(|| panic!("{log}"));
    eprintln!("{sentence}");
    assert_eq!(cluster_peers(&cluster.peers[0]).len(), 2);
}

#[test]
fn a_dead_peer_is_removed_and_its_copies_are_made_anew() {
    let mut cluster = Cluster::with(4, |_, config| moving(config));
    let file = cluster.path("two.txt");
    std::fs::write(&file, "two copies".repeat(1_000)).expect("file");
    let (a, b) = (cluster.peers[1].id(), cluster.peers[2].id());
    let both = format!("{a},{b}");
    let flags =
        ["add", "-Q", "--rmin", "2", "--rmax", "2", "--allocations", &both, file.to_str().expect("UTF-8")];
    let cid = ok(cluster.peers[0].ctl(&flags)).trim().to_string();
    cluster.peers[0].wait_status(&cid, "pinned", 2);
    cluster.peers[1].kill();
    ok(cluster.peers[0].ctl(&["peers", "rm", &a]));
    cluster.peers[0].wait_members(3);
    wait_for("a second copy", PATIENCE, || {
        let info = cluster.peers[0].json("GET", &format!("/pins/{cid}"));
        let map = info["peer_map"].as_object().expect("peer_map");
        let pinned = map.values().filter(|p| p["status"] == "pinned").count();
        if pinned == 2 && !map.contains_key(&a) {
            Ok(())
        } else {
            Err(info.to_string())
        }
    });
}

#[test]
fn the_content_of_a_removed_peer_moves_from_kubo_to_kubo() {
    let mut kubos = Vec::new();
    for _ in 0..2 {
        let Some(kubo) = KuboDaemon::start(None) else { return };
        kubos.push(kubo);
    }
    let mut cluster = Cluster::with(2, |i, config| {
        moving(config);
        let api = kubos[i].api.to_string();
        config["ipfs_connector"] =
            serde_json::json!({"ipfshttp": {"node_multiaddress": api, "connect_swarms_delay": "1s"}});
    });
    let cid = add_single(&cluster, 1, "from kubo to kubo");
    assert!(kubos[1].has_pinned(&cid, "recursive") && !kubos[0].has_pinned(&cid, "recursive"));
    remove_with_content(&mut cluster, 0, 1, &cid);
    assert!(kubos[0].has_pinned(&cid, "recursive"));
    cluster.peers[0].wait_members(1);
}
