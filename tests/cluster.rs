//! Real processes on loopback: form, add, pin, read, kill, restart, remove, rejoin.

mod support;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::cluster::{cid_of, ok, pinfold, Cluster, Peer, PATIENCE, SECRET};
use support::wait_for;

/// A folder with two files and a sub-folder.
fn holiday(at: &std::path::Path) -> std::path::PathBuf {
    let dir = at.join("holiday");
    std::fs::create_dir_all(dir.join("beach")).expect("folder");
    std::fs::write(dir.join("readme.txt"), "hello world\n").expect("file");
    let photo: Vec<u8> = (0..1_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    std::fs::write(dir.join("beach/photo.raw"), photo).expect("file");
    dir
}

/// `add -Q -r`: the root.
fn add(peer: &Peer, path: &std::path::Path) -> String {
    ok(peer.ctl(&["add", "-Q", "-r", path.to_str().expect("UTF-8")])).trim().to_string()
}

#[test]
fn three_boards_by_the_words_of_the_readme() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut a = Peer::fresh(tmp.path().join("a"));
    a.start(&["up"]);
    let token = ok(a.ctl(&["invite"])).trim().to_string();
    let mut b = Peer::fresh(tmp.path().join("b"));
    let mut c = Peer::fresh(tmp.path().join("c"));
    // At the same moment, as two people would not but scripts do.
    b.spawn(&["join", &token]);
    c.spawn(&["join", &token]);
    b.wait_ready();
    c.wait_ready();
    for peer in [&a, &b, &c] {
        peer.wait_members(3);
        peer.wait_candidates(3);
    }
    let dir = holiday(tmp.path());
    let root = add(&b, &dir);
    a.wait_status(&root, "pinned", 3);
    // Read it back, whole, from a peer that did not add it.
    let out = tmp.path().join("copy");
    ok(c.ctl(&["get", &root, "-o", out.to_str().expect("UTF-8")]));
    for file in ["readme.txt", "beach/photo.raw"] {
        assert_eq!(std::fs::read(out.join(file)).expect(file), std::fs::read(dir.join(file)).expect(file));
    }
    assert_eq!(ok(c.ctl(&["cat", &format!("{root}/readme.txt")])), "hello world\n");
    // The plug of any one of them.
    a.kill();
    let more = cid_of(1);
    wait_for("a pin with one peer dead", PATIENCE, || {
        match b.request("POST", &format!("/pins/{more}?name=after")) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(ok(b.ctl(&["cat", &format!("{root}/readme.txt")])), "hello world\n");
    a.start(&["up"]);
    wait_for("the third catching up", PATIENCE, || {
        let cids = a.pinned_cids();
        if cids.contains(&more) && cids.contains(&root) {
            Ok(())
        } else {
            Err(format!("{cids:?}"))
        }
    });
}

#[test]
fn each_role_can_be_killed_and_comes_back() {
    let mut cluster = Cluster::of(3);
    let mut pinned = Vec::new();
    for round in 0..3u64 {
        // The leader twice, then a follower.
        let leader = cluster.leader();
        let victim = if round < 2 { leader } else { (leader + 1) % 3 };
        cluster.peers[victim].kill();
        let other = (victim + 1) % 3;
        let cid = cid_of(100 + round);
        wait_for("a pin without the victim", PATIENCE, || {
            match cluster.peers[other].request("POST", &format!("/pins/{cid}")) {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        pinned.push(cid);
        cluster.peers[victim].start(&["daemon"]);
        wait_for("the victim catching up", PATIENCE, || {
            let cids = cluster.peers[victim].pinned_cids();
            if pinned.iter().all(|c| cids.contains(c)) {
                Ok(())
            } else {
                Err(format!("{cids:?}"))
            }
        });
    }
}

#[test]
fn a_minority_refuses_writes_and_still_reads() {
    let mut cluster = Cluster::with(3, |_, config| {
        config["consensus"]["raft"]["wait_for_leader_timeout"] = "2s".into();
        config["consensus"]["raft"]["network_timeout"] = "3s".into();
    });
    let cid = cid_of(7);
    cluster.peers[0].json("POST", &format!("/pins/{cid}?name=before"));
    wait_for("the pin on peer 2", PATIENCE, || {
        let cids = cluster.peers[2].pinned_cids();
        if cids.contains(&cid) {
            Ok(())
        } else {
            Err(format!("{cids:?}"))
        }
    });
    cluster.peers[0].kill();
    cluster.peers[1].kill();
    let started = Instant::now();
    let (status, body) =
        cluster.peers[2].request("POST", &format!("/pins/{}", cid_of(8))).expect("an answer");
    assert_eq!(status, 500, "{body}");
    assert!(body.contains("leader"), "{body}");
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(cluster.peers[2].pinned_cids(), [cid.as_str()]);
    let info = cluster.peers[2].json("GET", &format!("/pins/{cid}"));
    let map = info["peer_map"].as_object().expect("map");
    assert_eq!(map.values().filter(|p| p["status"] == "cluster_error").count(), 2, "{info}");
    assert_eq!(cluster.peers[2].lines("/peers").len(), 3);
    // The others return: writes go on.
    cluster.peers[0].start(&["daemon"]);
    wait_for("writes again", PATIENCE, || {
        match cluster.peers[2].request("POST", &format!("/pins/{}", cid_of(9))) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn a_strong_read_sees_what_was_just_written_elsewhere() {
    let mut cluster = Cluster::with(3, |_, config| {
        config["consensus"]["raft"]["network_timeout"] = "3s".into();
    });
    for n in 0..50 {
        let (writer, reader) = (&cluster.peers[n % 3], &cluster.peers[(n + 1) % 3]);
        let cid = cid_of(n as u64);
        writer.json("POST", &format!("/pins/{cid}"));
        reader.json("GET", &format!("/allocations/{cid}?consistency=strong"));
    }
    let odd = cluster.peers[0].request("GET", "/allocations?consistency=maybe").expect("answer");
    assert_eq!(odd.0, 400, "{}", odd.1);
    // Without a majority nobody can promise that.
    cluster.peers[0].kill();
    cluster.peers[1].kill();
    let path = format!("/allocations/{}?consistency=strong", cid_of(1));
    let refused = wait_for("the refusal", PATIENCE, || match cluster.peers[2].request("GET", &path) {
        Ok((500, body)) => Ok(body),
        // Until its lease ends a leader does not know that it is alone.
        other => Err(format!("{other:?}")),
    });
    assert!(!refused.is_empty());
    cluster.peers[2].json("GET", &format!("/allocations/{}", cid_of(1)));
}

#[test]
fn peers_are_removed_dead_running_themselves_and_leading() {
    let mut cluster = Cluster::of(4);
    // A stranger is not removed.
    let stranger = "12D3KooWKktuUeZrGSw2Wfnuy2o71D6gtixmoKurfwrsqALUmtct";
    assert_eq!(cluster.peers[0].request("DELETE", &format!("/peers/{stranger}")).expect("answer").0, 404);
    // Dead.
    let dead = (cluster.leader() + 1) % 4;
    cluster.peers[dead].kill();
    let witness = (dead + 1) % 4;
    let id = cluster.peers[dead].id();
    ok(cluster.peers[witness].ctl(&["peers", "rm", &id]));
    cluster.peers[witness].wait_members(3);
    let mut rest: Vec<usize> = (0..4).filter(|i| *i != dead).collect();
    // Running: it notices, puts its data aside and ends.
    let leader = cluster.leader();
    let victim = *rest.iter().find(|i| **i != leader).expect("a follower");
    let id = cluster.peers[victim].id();
    ok(cluster.peers[leader].ctl(&["peers", "rm", &id]));
    let (status, _) = cluster.peers[victim].wait_end();
    assert!(!status.success(), "a removed peer says so by its exit code");
    assert!(cluster.peers[victim].folder.join("raft.old.0").is_dir());
    rest.retain(|i| *i != victim);
    // The leader, by itself.
    let leader = cluster.leader();
    let id = cluster.peers[leader].id();
    ok(cluster.peers[leader].ctl(&["peers", "rm", &id]));
    cluster.peers[leader].wait_end();
    rest.retain(|i| *i != leader);
    let last = rest[0];
    cluster.peers[last].wait_members(1);
    // The last one cannot be removed.
    let id = cluster.peers[last].id();
    let output = cluster.peers[last].ctl(&["peers", "rm", &id]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    cluster.peers[last].json("POST", &format!("/pins/{}", cid_of(1)));
    // The one with its data put aside comes back as a new member.
    let bootstrap = cluster.peers[last].address();
    cluster.peers[victim].start(&["daemon", "--bootstrap", &bootstrap]);
    cluster.peers[victim].wait_members(2);
}

#[test]
fn a_reflashed_card_comes_back_under_its_old_name() {
    let mut cluster = Cluster::of(3);
    let cid = cid_of(3);
    cluster.peers[0].json("POST", &format!("/pins/{cid}"));
    cluster.peers[2].kill();
    // The card is new; identity and configuration were restored from a backup.
    std::fs::remove_dir_all(cluster.peers[2].folder.join("raft")).expect("wiped");
    let bootstrap = cluster.peers[0].address();
    cluster.peers[2].start(&["daemon", "--bootstrap", &bootstrap]);
    for peer in &cluster.peers {
        peer.wait_members(3);
    }
    wait_for("the pin on the new card", PATIENCE, || {
        let cids = cluster.peers[2].pinned_cids();
        if cids == [cid.clone()] {
            Ok(())
        } else {
            Err(format!("{cids:?}"))
        }
    });
    // It votes again: with another one dead the two that are left have a majority.
    cluster.peers[0].wait_voters(3);
    cluster.peers[1].kill();
    wait_for("a write with the new card's vote", PATIENCE, || {
        match cluster.peers[0].request("POST", &format!("/pins/{}", cid_of(4))) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn pinning_what_nobody_has_ends_in_an_error_and_blocks_nothing() {
    let cluster = Cluster::with(2, |_, config| {
        config["ipfs_connector"]["embedded"]["pin_timeout"] = "2s".into();
        config["pin_tracker"]["stateless"]["concurrent_pins"] = 1.into();
    });
    let nobody = cid_of(55);
    cluster.peers[0].json("POST", &format!("/pins/{nobody}"));
    cluster.peers[0].wait_status(&nobody, "pin_error", 2);
    let info = cluster.peers[0].json("GET", &format!("/pins/{nobody}"));
    let error =
        info["peer_map"].as_object().expect("map").values().next().expect("peer")["error"].to_string();
    assert!(error.contains("2s") && error.contains(&nobody), "{error}");
    let root = add(&cluster.peers[1], &holiday(cluster.folder.path()));
    cluster.peers[0].wait_status(&root, "pinned", 2);
    // The error survives a restart.
    let mut cluster = cluster;
    cluster.peers[0].stop();
    cluster.peers[0].start(&["daemon"]);
    let error = cluster.peers[0].lines("/pins?local=true&filter=error,pinning,queued");
    assert_eq!(error.len(), 1, "{error:?}");
    // An unpin ends it.
    cluster.peers[1].json("DELETE", &format!("/pins/{nobody}"));
    cluster.peers[0].wait_status(&nobody, "unpinned", 2);
}

#[test]
fn two_copies_are_two_copies_and_unpinned_content_is_collected() {
    let cluster = Cluster::of(3);
    let dir = holiday(cluster.folder.path());
    let flags = ["add", "-Q", "-r", "--rmin", "2", "--rmax", "2", dir.to_str().expect("UTF-8")];
    let root = ok(cluster.peers[0].ctl(&flags)).trim().to_string();
    cluster.peers[0].wait_status(&root, "pinned", 2);
    cluster.peers[0].wait_status(&root, "remote", 1);
    // The third can read it all the same.
    for peer in &cluster.peers {
        assert_eq!(ok(peer.ctl(&["cat", &format!("{root}/readme.txt")])), "hello world\n");
    }
    // GC leaves what is pinned.
    cluster.peers[0].json("POST", "/ipfs/gc");
    assert_eq!(ok(cluster.peers[1].ctl(&["cat", &format!("{root}/readme.txt")])), "hello world\n");
    cluster.peers[2].json("DELETE", &format!("/pins/{root}"));
    cluster.peers[0].wait_status(&root, "unpinned", 3);
}

#[test]
fn a_clean_stop_takes_at_most_three_seconds_by_any_signal() {
    let mut cluster = Cluster::of(3);
    for (i, signal) in ["TERM", "INT", "HUP"].iter().enumerate() {
        // The leader each time: the stop with the most to do.
        let leader = cluster.leader();
        cluster.peers[leader].signal(signal);
        let (status, took) = cluster.peers[leader].wait_end();
        assert!(status.success(), "SIG{signal}: {status}\n{}", cluster.peers[leader].log());
        assert!(took <= pinfold::daemon::STOP_LIMIT + Duration::from_secs(1), "SIG{signal}: {took:?}");
        assert!(cluster.peers[leader].folder.join("backups").read_dir().expect("backups").next().is_some());
        cluster.peers[leader].start(&["daemon"]);
        assert!(i < 3);
    }
}

#[test]
fn a_restarted_one_peer_cluster_keeps_its_pins_without_any_flag() {
    let mut cluster = Cluster::of(1);
    let cid = cid_of(1);
    cluster.peers[0].json("POST", &format!("/pins/{cid}?name=kept&meta-a=b&replication=1"));
    let before = cluster.peers[0].json("GET", &format!("/allocations/{cid}"));
    cluster.peers[0].kill();
    cluster.peers[0].start(&["daemon"]);
    assert_eq!(cluster.peers[0].json("GET", &format!("/allocations/{cid}")), before);
}

#[test]
fn the_pin_list_goes_out_and_comes_back_in() {
    let mut cluster = Cluster::of(1);
    for n in 0..5 {
        cluster.peers[0].json("POST", &format!("/pins/{}?name=n{n}", cid_of(n)));
    }
    let all = cluster.peers[0].lines("/allocations");
    // After a kill the state lags the log: the export must not.
    cluster.peers[0].kill();
    let export = ok(cluster.peers[0].ctl(&["state", "export"]));
    let exported: Vec<serde_json::Value> =
        export.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(exported, all);
    let file = cluster.path("export.ndjson");
    std::fs::write(&file, &export).expect("written");
    ok(cluster.peers[0].ctl(&["state", "cleanup", "-f"]));
    cluster.peers[0].start(&["daemon"]);
    assert!(cluster.peers[0].pinned_cids().is_empty());
    cluster.peers[0].stop();
    // Bad input changes nothing.
    let bad = cluster.path("bad.ndjson");
    std::fs::write(&bad, format!("{export}\n{{\"cid\":\"nosuch\"}}")).expect("written");
    let output = cluster.peers[0].ctl(&["state", "import", "-f", bad.to_str().expect("UTF-8")]);
    assert!(!output.status.success());
    assert_eq!(ok(cluster.peers[0].ctl(&["state", "export"])), "");
    ok(cluster.peers[0].ctl(&["state", "import", "-f", file.to_str().expect("UTF-8")]));
    cluster.peers[0].start(&["daemon"]);
    assert_eq!(cluster.peers[0].lines("/allocations"), all);
    // A peer that joins an imported cluster gets everything.
    let bootstrap = cluster.peers[0].address();
    let mut second = Peer::init(cluster.path("second"), "second", SECRET);
    second.start(&["daemon", "--bootstrap", &bootstrap]);
    wait_for("the imported pins on the second", PATIENCE, || {
        let lines = second.lines("/allocations");
        if lines == all {
            Ok(())
        } else {
            Err(format!("{lines:?}"))
        }
    });
}

#[test]
fn status_to_a_pipe_that_closes_ends_quietly() {
    let cluster = Cluster::of(1);
    for n in 0..50 {
        cluster.peers[0].json("POST", &format!("/pins/{}", cid_of(n)));
    }
    let mut child = pinfold()
        .args(["-c", cluster.peers[0].path(), "pin", "ls"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!words.contains("panic"), "{words}");
    let _ = std::io::stderr().flush();
}
