//! `pinfold state check` on real processes: stopped, beside a daemon under load, and on damaged disks.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use support::cluster::{cid_of, ok, Cluster, Peer, PATIENCE, SECRET};
use support::wait_for;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn report(peer: &Peer) -> Value {
    let output = peer.ctl(&["state", "check", "--json"]);
    let all: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
    all[0].clone()
}

/// The file of the live state.
fn state_file(peer: &Peer) -> PathBuf {
    let state = peer.folder.join("raft/state");
    let current = std::fs::read_to_string(state.join("CURRENT")).expect("CURRENT");
    state.join(current.trim()).join("data.mdb")
}

/// Changes one byte of a text wherever it stands in a file; how often that was.
fn change(file: &Path, text: &str) -> usize {
    let mut bytes = std::fs::read(file).expect("file");
    let places: Vec<usize> = (0..bytes.len().saturating_sub(text.len()))
        .filter(|at| bytes[*at..].starts_with(text.as_bytes()))
        .collect();
    for at in &places {
        bytes[*at] ^= 0x20;
    }
    std::fs::write(file, bytes).expect("file");
    places.len()
}

#[test]
fn beside_a_daemon_under_load_it_sees_one_moment_and_nothing_damaged() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    // The log is cut all the time, so that the two environments of a look are easily of two moments.
    peer.edit(|config| {
        let raft = &mut config["consensus"]["raft"];
        raft["trailing_logs"] = 2.into();
        raft["snapshot_threshold"] = 5.into();
        raft["snapshot_interval"] = "200ms".into();
    });
    peer.start(&["daemon"]);
    let running = AtomicBool::new(true);
    let (mut looks, mut last) = (0, 0);
    std::thread::scope(|scope| {
        for writer in 0..3u64 {
            let (peer, running) = (&peer, &running);
            scope.spawn(move || {
                let mut n = 0;
                while running.load(Ordering::Relaxed) {
                    n += 1;
                    let path = format!(
                        "/pins/{}?replication-min=1&replication-max=1",
                        cid_of(writer * 1_000_000 + n)
                    );
                    assert_eq!(peer.request("POST", &path).expect("an answer").0, 200);
                    if n % 3 == 0 {
                        peer.request("DELETE", &format!("/pins/{}", cid_of(writer * 1_000_000 + n)))
                            .expect("an answer");
                    }
                }
            });
        }
        let began = std::time::Instant::now();
        while looks < 12 || last < 20 {
            assert!(began.elapsed() < PATIENCE, "{looks} looks, applied {last}");
            let found = report(&peer);
            let damage: Vec<&Value> = found["findings"]
                .as_array()
                .expect("findings")
                .iter()
                .filter(|f| f["note"] == false)
                .collect();
            if !damage.is_empty() {
                running.store(false, Ordering::Relaxed);
            }
            assert!(damage.is_empty(), "look {looks}: {found:#}");
            assert_eq!(found["beside_daemon"], true);
            let applied = found["applied"].as_u64().expect("applied");
            assert!(applied >= last, "time goes forward: {applied} after {last}");
            last = applied;
            looks += 1;
        }
        running.store(false, Ordering::Relaxed);
    });
    // The daemon has not noticed, and its own writing goes on.
    peer.json("POST", &format!("/pins/{}", cid_of(5)));
    let (status, _) = peer.stop();
    assert!(status.success(), "{}", peer.log());
    let text = ok(peer.ctl(&["state", "check", "--blocks"]));
    assert!(text.contains("nothing is damaged") && !text.contains("a daemon runs"), "{text}");
}

#[test]
fn a_changed_name_is_found_and_never_served_and_the_others_give_everything_back() {
    let mut cluster = Cluster::of(3);
    let name = "the-name-of-a-pin-that-nobody-else-has";
    cluster.peers[0].json("POST", &format!("/pins/{}?name={name}", cid_of(1)));
    wait_for("the pin on both", PATIENCE, || match cluster.peers[1].pinned_cids().len() {
        1 => Ok(()),
        n => Err(n.to_string()),
    });
    cluster.peers[1].stop();
    assert!(change(&state_file(&cluster.peers[1]), name) > 0, "the name is in the file");
    let found = cluster.peers[1].ctl(&["state", "check"]);
    assert_eq!(found.status.code(), Some(10), "{}", said(&found));
    assert!(said(&found).contains("DAMAGED: state: the rows have the digest"), "{}", said(&found));
    assert!(said(&found).contains("state cleanup"), "it says what to do: {}", said(&found));
    cluster.peers[1].spawn(&["daemon"]);
    let (status, _) = cluster.peers[1].wait_end();
    assert_eq!(status.code(), Some(10), "{}", cluster.peers[1].log());
    // What it says helps.
    ok(cluster.peers[1].ctl(&["state", "cleanup", "-f"]));
    cluster.peers[1].start(&["daemon"]);
    let pin = cluster.peers[1].json("GET", &format!("/allocations/{}", cid_of(1)));
    assert_eq!(pin["name"], name);
    cluster.peers[1].stop();
    assert!(ok(cluster.peers[1].ctl(&["state", "check"])).contains("nothing is damaged"));
}

#[test]
fn a_changed_log_entry_is_found_and_not_sent_on() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    peer.start(&["daemon"]);
    let name = "a-name-that-stands-in-the-log";
    peer.json("POST", &format!("/pins/{}?name={name}", cid_of(1)));
    peer.kill();
    assert!(change(&peer.folder.join("raft/log/data.mdb"), name) > 0, "the name is in the file");
    let found = peer.ctl(&["state", "check"]);
    assert_eq!(found.status.code(), Some(10), "{}", said(&found));
    assert!(said(&found).contains("its checksum is wrong"), "{}", said(&found));
    peer.spawn(&["daemon"]);
    let (status, _) = peer.wait_end();
    assert_eq!(status.code(), Some(10), "{}", peer.log());
    assert!(peer.log().contains("its checksum is wrong"), "{}", peer.log());
    // Nothing is made of it either.
    let recovered = peer.ctl(&["state", "recover", "--yes"]);
    assert_eq!(recovered.status.code(), Some(10), "{}", said(&recovered));
}

#[test]
fn a_changed_block_is_found_when_blocks_are_read() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    peer.start(&["daemon"]);
    let text = "content that stands in a block file and nowhere else";
    let file = tmp.path().join("file");
    std::fs::write(&file, text).expect("file");
    ok(peer.ctl(&["add", "-Q", "--wait", file.to_str().expect("UTF-8")]));
    peer.stop();
    let blocks = std::fs::read_dir(peer.folder.join("ipfs")).expect("ipfs");
    let segment =
        blocks.map(|e| e.expect("entry").path()).find(|p| p.extension().is_some_and(|e| e == "blocks"));
    assert_eq!(change(&segment.expect("a block file"), text), 1);
    assert!(ok(peer.ctl(&["state", "check"])).contains("nothing is damaged"), "places only");
    let found = peer.ctl(&["state", "check", "--blocks"]);
    assert_eq!(found.status.code(), Some(10), "{}", said(&found));
    assert!(said(&found).contains("has other bytes than its hash says"), "{}", said(&found));
}

#[test]
fn without_data_there_is_nothing_to_check() {
    let tmp = tempfile::tempdir().expect("folder");
    let peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    let empty = peer.ctl(&["state", "check"]);
    assert_eq!(empty.status.code(), Some(4), "{}", said(&empty));
    assert!(said(&empty).contains("nothing to check"), "{}", said(&empty));
}
