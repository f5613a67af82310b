//! Clusters of clusters: the IPFS daemons of the upper one are the proxies of the lower ones. Two levels and three, with
//! embedded nodes and with a real Kubo at the bottom.

#[path = "support/kubo.rs"]
mod kubo_daemon;
#[path = "support/proxied.rs"]
mod proxied;
mod support;

use proxied::{behind, ipfs_fed, ipfs_ok, proxy_of, Proxied};
use serde_json::Value;
use std::time::Duration;
use support::cluster::{cid_of, ok, Cluster, Peer, PATIENCE};
use support::wait_for;

/// A cluster at the bottom, with embedded nodes that give up soon.
fn leaf(peers: usize, name: &str) -> Cluster {
    Cluster::with(peers, |i, config| {
        config["cluster"]["peername"] = format!("{name}{i}").into();
        config["ipfs_connector"]["embedded"]["pin_timeout"] = "3s".into();
        config["ipfs_connector"]["embedded"]["connect_swarms_delay"] = "500ms".into();
    })
}

/// A cluster whose peers have these clusters for IPFS daemons, each reached through the proxies of all its peers.
fn above(lower: &[&Cluster]) -> Cluster {
    let addresses: Vec<Vec<String>> = lower.iter().map(|c| c.peers.iter().map(proxy_of).collect()).collect();
    Cluster::with(lower.len(), |i, config| {
        behind(config, &addresses[i]);
        config["cluster"]["peername"] = format!("upper{i}").into();
        config["ipfs_connector"]["ipfshttp"]["connect_swarms_delay"] = "500ms".into();
    })
}

/// What one peer of a cluster says about a pin: its status and error there.
fn says(peer: &Peer, cid: &str, name: &str) -> (String, String) {
    let info = peer.json("GET", &format!("/pins/{cid}"));
    let map = info["peer_map"].as_object().cloned().unwrap_or_default();
    let row = map.values().find(|row| row["peername"] == name).cloned().unwrap_or(Value::Null);
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_string();
    (text("status"), text("error"))
}

fn wait_says(peer: &Peer, cid: &str, name: &str, status: &str) -> String {
    wait_for(&format!("{name} says {status} of {cid}"), PATIENCE, || {
        let (now, error) = says(peer, cid, name);
        if now == status {
            Ok(error)
        } else {
            Err(format!("{now}: {error}"))
        }
    })
}

/// A file that is there.
fn file(at: &Cluster, name: &str, content: &[u8]) -> String {
    let path = at.folder.path().join(name);
    std::fs::write(&path, content).expect("a file");
    path.to_str().expect("UTF-8").to_string()
}

#[test]
fn two_levels() {
    let (mut first, second) = (leaf(2, "first"), leaf(1, "second"));
    let upper = above(&[&first, &second]);
    let top = &upper.peers[0];

    // What is added above is stored and pinned below, on every peer of each cluster.
    let content: Vec<u8> = (0..200_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let photo = file(&upper, "photo.raw", &content);
    let root = ok(top.ctl(&["add", "-Q", &photo])).trim().to_string();
    top.wait_status(&root, "pinned", 2);
    first.peers[1].wait_status(&root, "pinned", 2);
    second.peers[0].wait_status(&root, "pinned", 1);
    assert!(ok(first.peers[1].ctl(&["cat", &root])).len() > 100_000);

    // What only one of them has comes to the other, for the nodes below are connected from above.
    let only = ipfs_fed(&first.peers[0], &["add", "-q", "--pin=false", "--cid-version=1"], b"only there");
    let only = only.trim();
    top.json("POST", &format!("/pins/{only}?name=travels"));
    top.wait_status(only, "pinned", 2);
    second.peers[0].wait_status(only, "pinned", 1);

    // What cannot be had is said above with the words from below.
    let nobodys = cid_of(99);
    top.json("POST", &format!("/pins/{nobodys}"));
    let words = wait_says(top, &nobodys, "upper1", "pin_error");
    assert!(words.contains("second0: ") && words.contains("nobody who is connected has"), "{words}");
    assert_ne!(says(top, &nobodys, "upper0").0, "pinned");

    // What goes away below behind our back is missed above, and recovered.
    second.peers[0].json("DELETE", &format!("/pins/{root}"));
    wait_says(top, &root, "upper1", "unexpectedly_unpinned");
    assert_eq!(says(top, &root, "upper0").0, "pinned");
    top.json("POST", &format!("/pins/{root}/recover"));
    top.wait_status(&root, "pinned", 2);
    second.peers[0].wait_status(&root, "pinned", 1);

    // The upper proxy is one IPFS daemon as well.
    assert_eq!(ipfs_ok(top, &["cat", only]), "only there");
    assert!(ipfs_ok(top, &["id"]).contains("12D3Koo"));
    assert!(ipfs_ok(top, &["pin", "ls"]).contains(&root));
    let stat = ipfs_ok(top, &["repo", "stat", "--size-only"]);
    assert!(!stat.contains("RepoSize: 0\n"), "{stat}");
    let block = ipfs_fed(top, &["block", "put"], b"down two levels");
    assert_eq!(ipfs_ok(top, &["block", "get", block.trim()]), "down two levels");
    let folder = upper.folder.path().join("folder");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("a.txt"), "a").expect("a file");
    let folder = ipfs_ok(top, &["add", "-r", "-Q", folder.to_str().expect("UTF-8")]).trim().to_string();
    top.wait_status(&folder, "pinned", 2);
    assert!(ipfs_ok(top, &["ls", &folder]).contains("a.txt"));
    assert_eq!(ipfs_ok(&second.peers[0], &["cat", &format!("{folder}/a.txt")]), "a");

    // A peer below dies, the very one through which the upper peer asks: nothing is to be seen above.
    first.peers[0].kill();
    for cid in [root.as_str(), only, &folder] {
        top.wait_status(cid, "pinned", 2);
    }
    let later = file(&upper, "later.txt", b"after one has died");
    let later = ok(top.ctl(&["add", "-Q", &later])).trim().to_string();
    top.wait_status(&later, "pinned", 2);
    assert_eq!(says(&first.peers[1], &later, "first1").0, "pinned");
    assert_eq!(ipfs_ok(top, &["cat", &later]), "after one has died");
    let id = top.json("GET", "/id");
    assert_eq!(id["ipfs"]["error"], "", "{id}");

    // What is unpinned above is unpinned below.
    top.json("DELETE", &format!("/pins/{only}"));
    wait_for("unpinned below", PATIENCE, || {
        let below = second.peers[0].pinned_cids();
        if below.contains(&only.to_string()) {
            Err(format!("{below:?}"))
        } else {
            Ok(())
        }
    });
}

#[test]
fn three_levels() {
    let bottom = leaf(1, "bottom");
    let middle = above(&[&bottom]);
    let upper = above(&[&middle]);
    let (top, below) = (&upper.peers[0], &bottom.peers[0]);
    let content: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let photo = file(&upper, "photo.raw", &content);
    let root = ok(top.ctl(&["add", "-Q", &photo])).trim().to_string();
    top.wait_status(&root, "pinned", 1);
    middle.peers[0].wait_status(&root, "pinned", 1);
    below.wait_status(&root, "pinned", 1);
    assert_eq!(ipfs_ok(top, &["ls", &root]).lines().count(), 5, "a file of five blocks");
    assert_eq!(ipfs_ok(top, &["id", "-f", "<id>"]), ipfs_ok(below, &["id", "-f", "<id>"]));
    // The reason comes up through both, with the names on its way.
    let nobodys = cid_of(77);
    top.json("POST", &format!("/pins/{nobodys}"));
    let words = wait_says(top, &nobodys, "upper0", "pin_error");
    assert!(words.contains("upper0: bottom0: ") && words.contains("nobody who is connected has"), "{words}");
    // And goes away when somebody has it after all.
    let content = 77u64.to_be_bytes();
    let block = ipfs_fed(below, &["block", "put"], &content);
    assert_eq!(block.trim(), nobodys);
    top.json("POST", &format!("/pins/{nobodys}/recover"));
    top.wait_status(&nobodys, "pinned", 1);
    top.json("DELETE", &format!("/pins/{root}"));
    wait_for("unpinned at the bottom", PATIENCE, || {
        let pins = below.pinned_cids();
        if pins.contains(&root) {
            Err(format!("{pins:?}"))
        } else {
            Ok(())
        }
    });
}

#[test]
fn over_a_real_kubo() {
    let Some(fold) = Proxied::with(1, |_, config| {
        config["ipfs_connector"]["ipfshttp"]["pin_timeout"] = "3s".into();
    }) else {
        return;
    };
    let upper = above(&[&fold.cluster]);
    let (top, kubo) = (&upper.peers[0], &fold.kubos[0]);
    let root = kubo.add(&vec![5u8; 3 << 20], &["--pin=false"]);
    top.json("POST", &format!("/pins/{root}"));
    top.wait_status(&root, "pinned", 1);
    assert!(kubo.has_pinned(&root, "recursive"));
    let direct = kubo.add(b"directly", &["--pin=false"]);
    top.json("POST", &format!("/pins/{direct}?mode=direct"));
    top.wait_status(&direct, "pinned", 1);
    assert!(kubo.has_pinned(&direct, "direct"));
    // An update goes down as one.
    let next = kubo.add(&vec![6u8; 3 << 20], &["--pin=false"]);
    top.json("POST", &format!("/pins/{next}?pin-update={root}"));
    top.wait_status(&next, "pinned", 1);
    assert!(kubo.has_pinned(&next, "recursive") && kubo.has_pinned(&root, "recursive"));
    // Kubo unpins behind the back of both: seen two levels above.
    kubo.ok(&["pin", "rm", &next]);
    wait_for("what happened below is seen above", Duration::from_secs(30), || {
        match says(top, &next, "upper0") {
            (status, _) if status != "pinned" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let nobodys = cid_of(55);
    top.json("POST", &format!("/pins/{nobodys}"));
    let words = wait_says(top, &nobodys, "upper0", "pin_error");
    assert!(words.contains("p0: ") && words.contains("no progress"), "{words}");
}
