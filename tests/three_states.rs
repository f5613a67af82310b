//! The three states of a pin and how they come together: what the cluster shares (`pin ls`), what each peer knows of it
//! (`status`), and what its IPFS node has (`sync`, the intervals, and a node that was restarted, wiped or replaced).

mod support;

#[path = "support/fold.rs"]
mod fold;

use fold::{error_of, listed, posted, status_of, Fold, Node, NEVER};
use serde_json::{json, Value};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use support::cluster::{cid_of, ok, under_test, Cluster, PATIENCE};
use support::executable::executable;
use support::fake_kubo::{free_port, FakeKubo, Mood};
use support::wait_for;

/// What an item of a peer says that IPFS lost.
const LOST: &str = "unexpectedly_unpinned";

#[test]
fn the_shared_list_is_read_from_any_peer_and_the_statuses_from_all() {
    let mut cluster = Cluster::of(3);
    let cids: Vec<String> = (0..3).map(cid_of).collect();
    for (n, cid) in cids.iter().enumerate() {
        cluster.peers[n].json("POST", &format!("/pins/{cid}?name=n{n}&replication=1"));
    }
    for peer in &cluster.peers {
        wait_for("the list on each peer", PATIENCE, || match peer.pinned_cids().len() {
            3 => Ok(()),
            n => Err(n.to_string()),
        });
        let text = ok(peer.ctl(&["pin", "ls"]));
        assert!(cids.iter().all(|cid| text.contains(cid.as_str())), "{text}");
        let status = peer.json("GET", &format!("/pins/{}", cids[0]));
        assert_eq!(status["peer_map"].as_object().expect("peer_map").len(), 3, "{status}");
    }
    // Without the others, and so without a majority, the list is still read; the statuses say who is missing.
    cluster.peers[1].kill();
    cluster.peers[2].kill();
    assert_eq!(cluster.peers[0].pinned_cids().len(), 3);
    ok(cluster.peers[0].ctl(&["pin", "ls", &cids[1]]));
    let everywhere = cluster.peers[0].json("GET", &format!("/pins/{}", cid_of(99)));
    let (one, two) = (&cluster.peers[1], &cluster.peers[2]);
    for away in [one, two] {
        assert_eq!(status_of(&everywhere, away), "cluster_error", "{everywhere}");
        assert!(!error_of(&everywhere, away).is_empty());
    }
    // A comparison does what it can, and says who could not.
    let (status, body) = cluster.peers[0].request("POST", "/pins/sync").expect("an answer");
    assert!(status == 500 && body.contains("p1: ") && body.contains("p2: "), "{status} {body}");
    let mine = posted(&cluster.peers[0], "/pins/sync?local=true");
    assert!(mine.iter().all(|item| item["peer_map"].as_object().is_some_and(|m| m.len() == 1)), "{mine:?}");
}

#[test]
fn sync_compares_with_ipfs_now_and_recover_repairs() {
    let Some(fold) = Fold::of(2, Node::Kubo, |_, _| {}) else { return };
    let (peer, other, kubo) = (fold.peer(0), fold.peer(1), &fold.kubos[0]);
    let [one, two, kept] = ["one", "two", "kept"].map(|text| fold.put(0, text.as_bytes()));
    for cid in [&one, &two, &kept] {
        peer.json("POST", &format!("/pins/{cid}"));
        peer.wait_status(cid, "pinned", 2);
    }
    assert_eq!(posted(peer, "/pins/sync"), Vec::<Value>::new(), "nothing differs");
    let hand = kubo.add(b"by hand", &[]);
    kubo.ok(&["pin", "rm", &one]);
    kubo.ok(&["pin", "rm", &two]);
    // Nobody has looked: the list says what was achieved.
    assert_eq!(listed(peer, &one), "pinned");
    let text = ok(peer.ctl(&["sync", &one]));
    assert!(text.contains("UNEXPECTEDLY_UNPINNED") && text.contains("PINNED"), "{text}");
    assert_eq!((listed(peer, &one), listed(peer, &two)), (LOST.into(), "pinned".into()));
    // Everything: what the comparison changed, and what was in error already. From any peer, about all.
    let items = posted(other, "/pins/sync");
    let of = |cid: &String| items.iter().find(|i| i["cid"] == cid.as_str());
    assert_eq!(items.len(), 2, "{items:?}");
    for cid in [&one, &two] {
        let item = of(cid).expect("in the answer");
        assert_eq!((status_of(item, peer), status_of(item, other)), (LOST.into(), "none".into()), "{item}");
        assert_eq!(error_of(item, peer), "the item should be pinned but it is not");
        assert_eq!(listed(peer, cid), LOST);
    }
    assert_eq!(posted(other, "/pins/sync?local=true"), Vec::<Value>::new());
    let filtered = peer.lines(&format!("/pins?filter={LOST}"));
    assert_eq!(filtered.len(), 2, "{filtered:?}");
    // It shows, and repairs nothing; recover does.
    assert!(!kubo.has_pinned(&one, "recursive"));
    ok(peer.ctl(&["recover", &one]));
    fold.wait_held(&one, &[0, 1]);
    assert!(!kubo.has_pinned(&two, "recursive"));
    // Pinned by hand meanwhile: that is as good.
    kubo.ok(&["pin", "add", &two]);
    let item = peer.json("POST", &format!("/pins/{two}/sync"));
    assert_eq!((status_of(&item, peer), listed(peer, &two)), ("pinned".into(), "pinned".into()));
    // In the program of that age, too; with nothing to say it says nothing.
    let ctl = fold.cluster.path("ipfs-cluster-ctl");
    std::os::unix::fs::symlink(executable(), &ctl).expect("symlink");
    let host = format!("/ip4/127.0.0.1/tcp/{}", peer.url().rsplit(':').next().expect("port"));
    let said = |args: &[&str]| {
        let mut command = under_test(Path::new(&ctl));
        ok(command.args(["--host", &host]).args(args).stdin(Stdio::null()).output().expect("starts"))
    };
    assert_eq!(said(&["sync"]), "");
    assert!(said(&["sync", "--local", &kept]).contains("PINNED"));
    let bad = peer.request("POST", "/pins/no-cid/sync").expect("an answer");
    assert!(bad.0 == 400 && bad.1.contains("error decoding Cid"), "{bad:?}");
    // What is not pinned is unpinned, and what was pinned by hand is nobody's business.
    assert_eq!(status_of(&peer.json("POST", &format!("/pins/{}/sync", cid_of(7))), peer), "unpinned");
    assert!(kubo.has_pinned(&hand, "recursive") && listed(peer, &hand) == "none");
}

#[test]
fn a_block_of_a_pinned_folder_is_not_taken_for_a_pin_of_its_own() {
    let Some(fold) = Fold::of(1, Node::Kubo, |_, _| {}) else { return };
    let (peer, kubo) = (fold.peer(0), &fold.kubos[0]);
    let dir = fold.cluster.path("folder");
    std::fs::create_dir_all(&dir).expect("folder");
    std::fs::write(dir.join("child"), "the child").expect("file");
    let root = kubo.ok(&["add", "-Q", "-r", "--pin=false", "--cid-version=1", dir.to_str().expect("UTF-8")]);
    let child = kubo.ok(&["resolve", "-r", &format!("/ipfs/{root}/child")]);
    let child = child.trim_start_matches("/ipfs/").to_string();
    for cid in [&root, &child] {
        peer.json("POST", &format!("/pins/{cid}"));
        peer.wait_status(cid, "pinned", 1);
    }
    kubo.ok(&["pin", "rm", &child]);
    assert!(!kubo.ok(&["pin", "ls", "--type=indirect"]).is_empty(), "the child is still there by the folder");
    let items = posted(peer, "/pins/sync");
    assert_eq!(items.len(), 1, "{items:?}");
    assert_eq!(
        (items[0]["cid"].as_str(), status_of(&items[0], peer)),
        (Some(child.as_str()), LOST.to_string())
    );
    ok(peer.ctl(&["recover"]));
    fold.wait_held(&child, &[0]);
    // Unpinned in the cluster, it stays by the folder and is not called pinned.
    peer.json("DELETE", &format!("/pins/{child}"));
    peer.wait_status(&child, "unpinned", 1);
    assert_eq!((listed(peer, &child), listed(peer, &root)), ("none".into(), "pinned".into()));
}

#[test]
fn each_interval_does_its_part() {
    let slow = |config: &mut Value, node: &Value| {
        config["cluster"]["pin_recover_interval"] = NEVER.into();
        config["cluster"]["state_sync_interval"] = NEVER.into();
        config["ipfs_connector"] = json!({"ipfshttp": {"node_multiaddress": node}});
    };
    let daemons: Vec<_> =
        (0..3).map(|_| free_port()).map(|at| (at, FakeKubo::start(at, Mood::Good))).collect();
    let address = |n: usize| Value::from(format!("/ip4/127.0.0.1/tcp/{}", daemons[n].0.port()));
    let lone = |n: usize, key: &str| {
        Cluster::with(1, |_, config| {
            slow(config, &address(n));
            config["cluster"][key] = "1s".into();
        })
    };
    let folds = [
        ("ipfs_sync_interval", lone(0, "ipfs_sync_interval")),
        ("pin_recover_interval", lone(1, "pin_recover_interval")),
        ("state_sync_interval", lone(2, "state_sync_interval")),
    ];
    let (cid, short) = (cid_of(1), cid_of(2));
    for (_, cluster) in &folds {
        let peer = &cluster.peers[0];
        peer.json("POST", &format!("/pins/{cid}"));
        peer.json("POST", &format!("/pins/{short}?expire-in=2s"));
        peer.wait_status(&cid, "pinned", 1);
        peer.wait_status(&short, "pinned", 1);
    }
    // Past the comparison that follows the start.
    std::thread::sleep(Duration::from_secs(3));
    for (_, daemon) in &daemons {
        daemon.forget(&cid);
    }
    // The first shows it in the plain list and leaves it so; the second repairs it; the third does not look.
    let peers: Vec<_> = folds.iter().map(|(_, cluster)| &cluster.peers[0]).collect();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        wait_for(what, PATIENCE, || if done() { Ok(()) } else { Err("not yet".into()) });
    };
    until("the difference in the list", &|| listed(peers[0], &cid) == LOST);
    until("the repair", &|| daemons[1].1.pins().contains(&cid));
    until("the end of the pin that expired", &|| listed(peers[2], &short) == "none");
    assert_eq!(listed(peers[2], &cid), "pinned");
    assert!(!daemons[2].1.pins().contains(&cid) && !daemons[0].1.pins().contains(&cid));
    assert_eq!(listed(peers[0], &short), "pinned", "expiry is not looked for");
    assert!(!daemons[2].1.pins().contains(&short), "what expired is unpinned");
    // By hand it is repaired at once.
    ok(peers[0].ctl(&["recover"]));
    until("the repair by hand", &|| daemons[0].1.pins().contains(&cid) && listed(peers[0], &cid) == "pinned");
}

#[test]
fn a_daemon_that_tells_another_start_or_identity_is_compared_with_at_once() {
    let at = free_port();
    let daemon = FakeKubo::start(at, Mood::Good);
    daemon.become_other(None, Some("1000.5"), &[]);
    let cluster = Cluster::with(1, |_, config| {
        config["cluster"]["pin_recover_interval"] = NEVER.into();
        config["cluster"]["state_sync_interval"] = NEVER.into();
        let node = format!("/ip4/127.0.0.1/tcp/{}", at.port());
        config["ipfs_connector"] = json!({"ipfshttp": {"node_multiaddress": node}});
    });
    let peer = &cluster.peers[0];
    let cid = cid_of(1);
    peer.json("POST", &format!("/pins/{cid}"));
    peer.wait_status(&cid, "pinned", 1);
    wait_for("the first comparison", PATIENCE, || match daemon.asked("pin/ls").is_empty() {
        true => Err("not yet".into()),
        false => Ok(()),
    });
    let lists = |daemon: &FakeKubo| daemon.asked("pin/ls").iter().filter(|q| !q.contains("arg=")).count();
    let back = |what: &str| {
        wait_for(what, PATIENCE, || match daemon.pins().contains(&cid) {
            true => Ok(()),
            false => Err(peer.log()),
        });
        peer.wait_status(&cid, "pinned", 1);
    };
    daemon.become_other(None, Some("2000.5"), &[]);
    back("the pin after a restart with an empty repository");
    let other = "12D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH";
    daemon.become_other(Some(other), Some("2000.5"), &[]);
    back("the pin after a replacement");
    assert!(peer.log().contains(&format!("another one now: {other}")), "{}", peer.log());
    // A connection that closes is no restart: one that only goes idle is not asked for all its pins.
    let before = lists(&daemon);
    daemon.hang_up();
    let seen = daemon.asked("id").len();
    wait_for("a new look at the daemon", PATIENCE, || match daemon.asked("id").len() > seen {
        true => Ok(()),
        false => Err("not yet".into()),
    });
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(lists(&daemon), before);
}

#[test]
fn a_kubo_that_was_restarted_wiped_or_replaced_is_filled_again() {
    let Some(mut fold) = Fold::of(2, Node::Kubo, |_, _| {}) else { return };
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let cid = fold.put(0, &content);
    fold.peer(0).json("POST", &format!("/pins/{cid}"));
    fold.peer(0).wait_status(&cid, "pinned", 2);
    fold.wait_held(&cid, &[0, 1]);
    let id = fold.kubos[1].id();
    // Unpinned while it was down.
    fold.kubos[1].kill();
    fold.kubos[1].ok(&["pin", "rm", &cid]);
    fold.kubos[1].run();
    fold.wait_held(&cid, &[0, 1]);
    for keep_identity in [true, false] {
        fold.kubos[1].kill();
        fold.kubos[1].wipe(keep_identity);
        fold.kubos[1].run();
        assert_eq!(fold.kubos[1].id() == id, keep_identity);
        fold.wait_held(&cid, &[0, 1]);
        fold.peer(0).wait_status(&cid, "pinned", 2);
        let cat = fold.kubos[1].output(&["--offline", "cat", &cid]);
        assert!(cat.stdout == content, "the content is there again");
    }
    let log = fold.peer(1).log();
    assert!(log.contains("was restarted") || log.contains("answers again"), "{log}");
    assert!(log.contains("another one now"), "{log}");
}

#[test]
fn an_embedded_node_that_lost_its_folder_is_filled_again() {
    let Some(mut fold) = Fold::of(2, Node::Embedded, |_, _| {}) else { return };
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let cid = fold.put(0, &content);
    fold.peer(0).json("POST", &format!("/pins/{cid}"));
    fold.peer(0).wait_status(&cid, "pinned", 2);
    let peer = &mut fold.cluster.peers[1];
    peer.stop();
    std::fs::remove_dir_all(peer.folder.join("ipfs")).expect("the blocks");
    peer.start(&["daemon"]);
    // It is found out by the comparison that follows the start.
    wait_for("the comparison", PATIENCE, || {
        let log = fold.peer(1).log();
        match log.contains("not pinned in IPFS any more") {
            true => Ok(()),
            false => Err(log),
        }
    });
    fold.wait_held(&cid, &[0, 1]);
    let cat = fold.peer(1).ctl(&["cat", &cid]);
    assert!(cat.stdout == content);
}
