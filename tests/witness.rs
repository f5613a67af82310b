//! Witnesses with real processes: the third vote of a home with two boards, what a witness must never be asked for, the
//! ways into the role and out of it, and clusters that are too old for it.

mod support;

use serde_json::Value;
use std::process::Output;
use std::time::Duration;
use support::cluster::{cid_of, ok, pinfold, under_test, Cluster, Peer, PATIENCE, SECRET};
use support::{older_build, wait_for};

/// Where the witness is among the peers.
const WITNESS: usize = 2;

/// Two copies by default, one while a board is away: what a home of two boards wants. Failover on, quick rounds.
fn two_copies(config: &mut Value) {
    config["cluster"]["replication_factor_min"] = 1.into();
    config["cluster"]["replication_factor_max"] = 2.into();
    config["cluster"]["disable_repinning"] = false.into();
    config["cluster"]["repin_grace"] = "1s".into();
    config["consensus"]["raft"]["heartbeat_timeout"] = "400ms".into();
    config["consensus"]["raft"]["election_timeout"] = "2s".into();
    config["consensus"]["raft"]["wait_for_leader_timeout"] = "5s".into();
    config["consensus"]["raft"]["network_timeout"] = "3s".into();
}

/// Two boards that hold content, and a witness that came by its token.
fn home() -> Cluster {
    let mut cluster = Cluster::with(2, |_, config| two_copies(config));
    let token = ok(cluster.peers[0].ctl(&["invite"]));
    let mut witness = Peer::init(cluster.path("witness"), "witness", SECRET);
    witness.edit(|config| {
        two_copies(config);
        config["consensus"]["raft"]["witness"] = true.into();
        // The first to notice that nobody leads: so it is elected, and must hand over.
        config["consensus"]["raft"]["heartbeat_timeout"] = "200ms".into();
        config["consensus"]["raft"]["election_timeout"] = "1s".into();
    });
    witness.start(&["join", token.trim(), "--witness"]);
    cluster.peers.push(witness);
    cluster.peers.iter().for_each(|p| p.wait_members(3));
    cluster.peers[0].wait_voters(3);
    // Whoever allocates must know of both boards.
    cluster.peers.iter().for_each(|p| p.wait_candidates(2));
    cluster
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Adds a file at a peer; its CID.
fn add(cluster: &Cluster, at: usize, text: &str, more: &[&str]) -> String {
    let file = cluster.path(&format!("{}.txt", text.replace(' ', "-")));
    std::fs::write(&file, text.repeat(500)).expect("file");
    let mut args = vec!["add", "-Q"];
    args.extend(more);
    args.push(file.to_str().expect("UTF-8"));
    ok(cluster.peers[at].ctl(&args)).trim().to_string()
}

/// Waits until a write goes through.
fn wait_write(peer: &Peer, n: u64) {
    wait_for("a write", PATIENCE, || match peer.request("POST", &format!("/pins/{}", cid_of(n))) {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Waits until a read goes through that needs a majority.
fn wait_strong_read(peer: &Peer, cid: &str) {
    wait_for("a strong read", PATIENCE, || {
        match peer.request("GET", &format!("/allocations/{cid}?consistency=strong")) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Status by peer name.
fn status(peer: &Peer, cid: &str) -> std::collections::BTreeMap<String, String> {
    let info = peer.json("GET", &format!("/pins/{cid}"));
    let map = info["peer_map"].as_object().expect("peer_map").values();
    let text = |v: &Value| v.as_str().expect("text").to_string();
    map.map(|p| (text(&p["peername"]), text(&p["status"]))).collect()
}

/// Waits until a member has this role, as `at` sees it.
fn wait_role(at: &Peer, id: &str, wanted: &str) {
    wait_for(&format!("the role {wanted}"), PATIENCE, || {
        let members = at.consensus()["members"].as_array().expect("members").clone();
        let is = members.iter().any(|m| m["peer"] == id && m["role"] == wanted);
        is.then_some(()).ok_or_else(|| format!("{members:?}"))
    });
}

#[test]
fn a_home_of_two_boards_and_a_witness_survives_the_death_of_any_of_them() {
    let mut home = home();
    let cid = add(&home, 0, "keep me", &["--wait"]);
    // A board leads when it begins: whoever dies first takes the leader with it.
    let first = home.leader();
    assert_ne!(first, WITNESS, "the witness leads although two boards are there");
    let mut handed = 0;
    let mut n = 0;
    let mut next = || {
        n += 1;
        n
    };
    for dead in [first, 1 - first, WITNESS] {
        home.peers[dead].kill();
        let alive: Vec<usize> = (0..3).filter(|i| *i != dead).collect();
        for at in &alive {
            wait_write(&home.peers[*at], next());
            wait_strong_read(&home.peers[*at], &cid);
        }
        // The witness leads only until a board can.
        wait_for("a leader that holds content", PATIENCE, || match home.leader() {
            WITNESS => Err("the witness leads".into()),
            _ => Ok(()),
        });
        if dead != WITNESS {
            handed += home.peers[WITNESS]
                .log()
                .matches("it hands the leadership to a peer that holds content")
                .count();
        }
        // The content is served by whoever of the two has it.
        let holder = alive.iter().copied().find(|i| *i != WITNESS).expect("one of two boards");
        assert!(ok(home.peers[holder].ctl(&["cat", &cid])).starts_with("keep me"));
        home.peers[dead].start(&["daemon"]);
        home.peers[dead].wait_members(3);
        let expected = home.peers[alive[0]].pinned_cids();
        wait_for("the same pins on who was dead", PATIENCE, || {
            let pins = home.peers[dead].pinned_cids();
            (pins == expected).then_some(()).ok_or_else(|| format!("{pins:?}"))
        });
    }
    assert!(handed > 0, "too quiet: the witness never led");
    // A board and the witness: no majority is left. Nothing is acknowledged, and it is said who is missing.
    home.peers[0].kill();
    home.peers[WITNESS].kill();
    let (code, body) = home.peers[1].request("POST", &format!("/pins/{}", cid_of(900))).expect("an answer");
    assert!(code == 500, "{code} {body}");
    wait_for("a sentence that names who is missing", PATIENCE, || {
        let (_, body) = home.peers[1].request("POST", &format!("/pins/{}", cid_of(901)))?;
        let told = body.contains("1 of 3 voters are connected, 2 are needed; missing: ");
        (told && body.contains("p0") && body.contains("witness")).then_some(()).ok_or(body)
    });
    // Reads of what it has go on, and with the witness alone back everything does.
    assert!(ok(home.peers[1].ctl(&["cat", &cid])).starts_with("keep me"));
    home.peers[WITNESS].start(&["daemon"]);
    wait_write(&home.peers[1], 902);
}

#[test]
fn a_witness_holds_nothing_and_is_asked_for_nothing() {
    let home = home();
    let witness = &home.peers[WITNESS];
    // It is one for everybody, by every way of asking.
    for peer in &home.peers {
        wait_for("the role", PATIENCE, || {
            let health = peer.consensus();
            let members = health["members"].as_array().expect("members").clone();
            let of = |id: &str| members.iter().find(|m| m["peer"] == id).expect("a member").clone();
            let (w, p) = (of(&witness.id()), of(&home.peers[0].id()));
            let right = w["role"] == "witness" && w["votes"] == true && p["role"] == "voter";
            right.then_some(()).ok_or_else(|| health.to_string())
        });
    }
    let listed = ok(home.peers[0].ctl(&["peers", "ls"]));
    assert!(listed.contains("  > Role: witness (votes, holds no content)\n"), "{listed}");
    assert!(listed.contains("  > IPFS: none\n") && !listed.contains("ERROR"), "{listed}");
    assert_eq!(witness.json("GET", "/id")["role"], "witness");
    assert_eq!(
        home.peers[0].json("GET", "/id").get("role"),
        None,
        "an ordinary peer's id is as it always was"
    );
    let graph = home.peers[1].json("GET", "/health/graph");
    assert_eq!(graph["witnesses"], Value::from(vec![Value::from(witness.id())]), "{graph}");
    assert!(ok(home.peers[1].ctl(&["health", "graph"])).contains("witness (witness)"));

    // Everywhere is everywhere but there, and whatever is added at it goes to the others.
    let everywhere = add(&home, 0, "everywhere", &["--rmin", "-1", "--rmax", "-1", "--wait"]);
    let through = add(&home, WITNESS, "through the witness", &["--wait"]);
    let named = add(&home, WITNESS, "named", &["--allocations", &witness.id(), "--wait"]);
    for cid in [&everywhere, &through, &named] {
        for peer in &home.peers {
            wait_for("the status", PATIENCE, || {
                let status = status(peer, cid);
                let right =
                    ["p0", "p1"].iter().all(|p| status[*p] == "pinned") && status["witness"] == "remote";
                right.then_some(()).ok_or_else(|| format!("{status:?}"))
            });
        }
        let pin = home.peers[0].json("GET", &format!("/allocations/{cid}"));
        assert!(!pin["allocations"].to_string().contains(&witness.id()), "{pin}");
        assert!(!ok(home.peers[1].ctl(&["cat", cid])).is_empty());
    }
    let all = witness.lines("/pins?filter=remote");
    assert_eq!(all.len(), 3, "{all:?}");
    let unknown = status(witness, &cid_of(77));
    assert!(unknown.values().all(|s| s == "unpinned"), "{unknown:?}");

    // What needs content is refused there, with a sentence; what asks everybody leaves it out.
    for args in [
        vec!["cat", everywhere.as_str()],
        vec!["add", "-Q", "--local", home.folder.path().join("named.txt").to_str().expect("UTF-8")],
        vec!["pin", "add", "/ipns/example.org"],
    ] {
        let refused = witness.ctl(&args);
        assert!(
            !refused.status.success() && words(&refused).contains("is a witness"),
            "{args:?} {}",
            words(&refused)
        );
    }
    let drained = home.peers[0].ctl(&["drain", &witness.id()]);
    assert!(
        words(&drained).contains("is a witness and holds no content: there is nothing to drain"),
        "{}",
        words(&drained)
    );
    let plan = ok(home.peers[0].ctl(&["rebalance", "--dry-run"]));
    assert!(!plan.contains(&witness.id()) && !plan.contains("left out"), "{plan}");
    for args in [vec!["sync"], vec!["recover"], vec!["ipfs", "gc"], vec!["status"]] {
        for at in [0, WITNESS] {
            let output = home.peers[at].ctl(&args);
            assert!(
                output.status.success() && !words(&output).contains("witness: "),
                "{args:?} {}",
                words(&output)
            );
        }
    }
    assert!(!witness.folder.join("ipfs").exists(), "no block store was opened");
    let report = words(&witness.ctl(&["doctor"]));
    assert!(report.contains("this peer is a witness") && !report.contains("FAIL  ipfs"), "{report}");

    // It is removed like anybody, without a wait for content that it does not have.
    let id = witness.id();
    let started = std::time::Instant::now();
    ok(home.peers[0].ctl(&["peers", "rm", &id]));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    home.peers[0].wait_members(2);
}

#[test]
fn the_last_peer_that_holds_content_is_not_removed_from_beside_a_witness() {
    let home = home();
    add(&home, 0, "precious", &["--wait"]);
    let (first, second) = (home.peers[0].id(), home.peers[1].id());
    ok(home.peers[0].ctl(&["pin", "rm", &add(&home, 0, "precious", &[])]));
    ok(home.peers[0].ctl(&["peers", "rm", &second]));
    home.peers[0].wait_members(2);
    let refused = home.peers[0].ctl(&["peers", "rm", &first]);
    assert!(
        !refused.status.success() && words(&refused).contains("the only one that holds content"),
        "{}",
        words(&refused)
    );
    home.peers[WITNESS].wait_members(2);
}

#[test]
fn a_peer_becomes_a_witness_by_its_configuration_and_is_a_peer_again_by_it() {
    let mut cluster = Cluster::with(4, |_, config| {
        two_copies(config);
        config["informer"]["disk"]["metric_ttl"] = "4s".into();
    });
    let id = cluster.peers[3].id();
    let everywhere = add(&cluster, 0, "for all", &["--rmin", "-1", "--rmax", "-1", "--wait"]);
    let cid = add(&cluster, 3, "here", &["--rmin", "1", "--rmax", "1", "--allocations", &id, "--wait"]);
    let witness = |peer: &Peer, yes: bool| peer.edit(|c| c["consensus"]["raft"]["witness"] = yes.into());
    // With a copy here it does not start as one: nothing is lost by a key.
    cluster.peers[3].stop();
    witness(&cluster.peers[3], true);
    cluster.peers[3].spawn(&["daemon"]);
    let (ended, _) = cluster.peers[3].wait_end();
    let log = cluster.peers[3].log();
    assert!(ended.code() == Some(5) && log.contains("1 pins have a copy here"), "{ended} {log}");
    assert!(log.contains(&format!("pinfold drain {id}")), "{log}");
    // As the sentence says.
    witness(&cluster.peers[3], false);
    cluster.peers[3].start(&["daemon"]);
    cluster.peers[0].wait_candidates(4);
    wait_for("a drained peer", PATIENCE, || {
        let output = cluster.peers[0].ctl(&["drain", &id]);
        (output.status.success() && words(&output).contains("nothing is left"))
            .then_some(())
            .ok_or_else(|| words(&output))
    });
    cluster.peers[3].stop();
    witness(&cluster.peers[3], true);
    cluster.peers[3].start(&["daemon"]);
    wait_role(&cluster.peers[0], &id, "witness");
    for c in [&cid, &everywhere] {
        assert_eq!(status(&cluster.peers[1], c)["p3"], "remote");
        assert!(!ok(cluster.peers[0].ctl(&["cat", c])).is_empty());
    }
    // `--witness` on a folder that says otherwise is a contradiction, and back again is the same key.
    cluster.peers[3].stop();
    witness(&cluster.peers[3], false);
    cluster.peers[3].spawn(&["up", "--witness"]);
    let (ended, _) = cluster.peers[3].wait_end();
    assert!(ended.code() == Some(5) && cluster.peers[3].log().contains("--witness is only for a new folder"));
    cluster.peers[3].start(&["daemon"]);
    wait_role(&cluster.peers[0], &id, "voter");
    cluster.peers[0].wait_status(&everywhere, "pinned", 4);
    ok(cluster.peers[0].ctl(&["drain", "--undo", &id]));
    cluster.peers[0].wait_candidates(4);
    let again = add(&cluster, 0, "again", &["--rmin", "1", "--rmax", "1", "--allocations", &id, "--wait"]);
    assert_eq!(status(&cluster.peers[1], &again)["p3"], "pinned");
}

#[test]
fn a_witness_alone_founds_nothing_and_a_founding_set_may_have_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut alone = Peer::fresh(folder.path().join("alone"));
    alone.spawn(&["up", "--witness"]);
    let (ended, _) = alone.wait_end();
    assert!(
        ended.code() == Some(5) && alone.log().contains("pinfold join TOKEN --witness"),
        "{}",
        alone.log()
    );
    let mut peers: Vec<Peer> =
        (0..3).map(|i| Peer::init(folder.path().join(format!("p{i}")), &format!("p{i}"), SECRET)).collect();
    let list: Value = peers.iter().map(|p| Value::from(p.address())).collect();
    for (i, peer) in peers.iter().enumerate() {
        peer.edit(|config| {
            config["cluster"]["peers"] = list.clone();
            config["consensus"]["raft"]["wait_for_leader_timeout"] = "60s".into();
            config["consensus"]["raft"]["witness"] = (i == 1).into();
        });
    }
    peers.iter_mut().for_each(|p| p.spawn(&["daemon"]));
    peers.iter_mut().for_each(Peer::wait_ready);
    wait_for("the role", PATIENCE, || {
        let health = peers[0].consensus();
        let members = health["members"].as_array().expect("members");
        let is =
            members.iter().any(|m| m["peername"] == "p1" && m["role"] == "witness" && m["votes"] == true);
        is.then_some(()).ok_or_else(|| health.to_string())
    });
}

#[test]
fn init_makes_a_witness_without_an_ipfs_node_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("w");
    let made =
        pinfold().args(["-c", path.to_str().expect("UTF-8"), "init", "--witness", "--randomports"]).output();
    ok(made.expect("init starts"));
    let peer = Peer::fresh(path);
    assert_eq!(peer.config()["consensus"]["raft"]["witness"], true);
    let other = folder.path().join("p");
    ok(pinfold()
        .args(["-c", other.to_str().expect("UTF-8"), "init", "--randomports"])
        .output()
        .expect("init starts"));
    let raft = Peer::fresh(other).config()["consensus"]["raft"].clone();
    assert_eq!(raft.get("witness"), None, "a key of our own is not in a file that does not need it");
}

#[test]
fn a_cluster_with_an_older_peer_refuses_a_witness_and_names_that_peer() {
    let Some(old) = older_build() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (folder.path().join("old"), folder.path().join("new"));
    let mut init = under_test(&old);
    init.env("CLUSTER_SECRET", SECRET).env("CLUSTER_PEERNAME", "oldie");
    ok(init.args(["-c", a.to_str().expect("UTF-8"), "init", "--randomports"]).output().expect("init starts"));
    let mut elder = Peer::fresh(a);
    elder.edit(|config| {
        let at = format!("/ip4/127.0.0.1/tcp/{}", support::cluster::free_port());
        config["cluster"]["listen_multiaddress"] = at.into();
        config["ipfs_connector"]["embedded"]["listen_multiaddress"] = "/ip4/127.0.0.1/tcp/0".into();
    });
    elder.start_as(&old, &["daemon"]);
    let mut new = Peer::init(b, "new", SECRET);
    new.start(&["daemon", "--bootstrap", &elder.address()]);
    new.wait_members(2);
    // The first release does not tell its version: major and minor are what is known of it.
    let runs = ok(under_test(&old).arg("--version").output().expect("starts"));
    let runs =
        runs.trim().rsplit_once('.').expect("a version").0.rsplit(' ').next().expect("a number").to_string();
    for (through, said) in
        [(&new, format!("oldie ({}, which runs {runs}", elder.id())), (&elder, "knows no witnesses".into())]
    {
        let mut witness = Peer::init(folder.path().join(format!("w{}", said.len())), "w", SECRET);
        witness.edit(|config| config["consensus"]["raft"]["witness"] = true.into());
        // Metrics tell the release; until the first has come, the record of the membership does.
        witness.spawn(&["daemon", "--bootstrap", &through.address()]);
        let (ended, _) = witness.wait_end();
        let log = witness.log();
        assert_eq!(ended.code(), Some(13), "{log}");
        assert!(log.contains(&said) && log.contains("install pinfold 0.3.0 or newer"), "{log}");
    }
    // A member of such a cluster does not go on as one either.
    new.stop();
    new.edit(|config| config["consensus"]["raft"]["witness"] = true.into());
    new.spawn(&["daemon"]);
    let (ended, _) = new.wait_end();
    assert_eq!(ended.code(), Some(13), "{}", new.log());
    assert!(new.log().contains("a witness needs version 3"), "{}", new.log());
}
