//! Bad days of one machine: files that are damaged, ports that are taken, a folder that
//! cannot be written, a clock in 1970, a cluster that does not let one in. What cannot run ends within seconds with a sentence and an exit code; what runs keeps its word.

mod support;

use libp2p::PeerId;
use serde_json::Value;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::clock::Clock;
use support::cluster::{cid_of, ok, pinfold, Cluster, Peer, PATIENCE, SECRET};
use support::disk::SmallDisk;
use support::wait_for;

/// How long something that cannot start may take to say so, on a machine that compiles beside it.
const SECONDS: Duration = Duration::from_secs(20);

/// Starts what must not get ready; its words.
fn assert_fails(peer: &mut Peer, args: &[&str], words: &[&str]) -> String {
    let started = Instant::now();
    peer.spawn(args);
    wait_for("its end", PATIENCE, || {
        let said = peer.log();
        assert!(!said.contains(" is ready: "), "{args:?} runs:\n{said}");
        if peer.is_running() {
            Err(said)
        } else {
            Ok(())
        }
    });
    let (status, _) = peer.wait_end();
    let took = started.elapsed();
    let said = peer.log();
    assert!(!status.success(), "{args:?} ended well:\n{said}");
    assert!(status.code().is_some_and(|c| c != 101), "{status}:\n{said}");
    assert!(took < SECONDS, "{args:?} took {took:?}:\n{said}");
    assert!(!said.contains("panic"), "{said}");
    for word in words {
        assert!(said.contains(word), "\"{word}\" is missing:\n{said}");
    }
    said
}

/// Every file of a folder with its bytes, but the lock's.
fn contents(of: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(of).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else if path.file_name().is_some_and(|n| n != "cluster.lock") {
            let bytes = std::fs::read(&path).expect("file");
            all.push((path, bytes));
        }
    }
    all.sort();
    all
}

fn one(tmp: &tempfile::TempDir) -> Peer {
    Peer::init(tmp.path().join("p"), "p", SECRET)
}

#[test]
fn a_damaged_configuration_is_refused_and_left_alone() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let file = peer.folder.join("service.json");
    let good = std::fs::read(&file).expect("service.json");
    let huge = format!("{{\"x\":\"{}\"}}", "y".repeat(3 << 20));
    let deep = "[".repeat(200_000);
    let texts: Vec<(&[u8], &str)> = vec![
        (b"", "is empty"),
        (b"   \n", "is empty"),
        (b"\x00\x01\xff\xfe", "not text"),
        (b"cluster: yaml", "not valid"),
        (&good[..good.len() / 2], "not valid"),
        (b"[]", "JSON object"),
        (deep.as_bytes(), "not valid"),
        (huge.as_bytes(), "larger than"),
        (b"{\"cluster\": 7}", "cluster"),
        (b"{}", "cluster.secret"),
    ];
    for (text, word) in texts {
        std::fs::write(&file, text).expect("written");
        let before = contents(&peer.folder);
        assert_fails(&mut peer, &["daemon"], &["service.json", word]);
        assert!(contents(&peer.folder) == before, "something was changed ({word})");
    }
    std::fs::write(&file, &good).expect("written");
    let values: [(&str, Value); 9] = [
        ("/cluster/secret", "not hex".into()),
        ("/cluster/secret", "00ff".into()),
        ("/cluster/replication_factor_min", "many".into()),
        ("/cluster/listen_multiaddress", "nowhere".into()),
        ("/cluster/listen_multiaddress", Value::Bool(true)),
        ("/cluster/monitor_ping_interval", "soon".into()),
        ("/consensus/raft/trailing_logs", Value::from(-1)),
        ("/api/restapi/http_listen_multiaddress", "/ip4/127.0.0.1/udp/1".into()),
        ("/pin_tracker/stateless/concurrent_pins", Value::from("0")),
    ];
    for (pointer, value) in values {
        std::fs::write(&file, &good).expect("written");
        peer.edit(|config| {
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            config.pointer_mut(parent).expect("a section")[key] = value.clone();
        });
        let before = contents(&peer.folder);
        let key = pointer[1..].replace('/', ".");
        let said = assert_fails(&mut peer, &["daemon"], &["service.json", &key]);
        // A secret is in no message, not even a wrong one.
        assert!(key != "cluster.secret" || !said.contains("not hex"), "{said}");
        assert!(contents(&peer.folder) == before, "something was changed ({key})");
    }
    // Something that is no file at all.
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("made");
    assert_fails(&mut peer, &["daemon"], &["service.json", "not a file"]);
    std::fs::remove_dir(&file).expect("removed");
    // And the good one still works.
    std::fs::write(&file, &good).expect("written");
    peer.start(&["daemon"]);
}

#[test]
fn a_damaged_or_foreign_identity_is_refused_and_never_replaced() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let other = Peer::init(tmp.path().join("other"), "other", SECRET);
    let file = peer.folder.join("identity.json");
    let good = std::fs::read_to_string(&file).expect("identity.json");
    let mine: Value = serde_json::from_str(&good).expect("JSON");
    let mut foreign = mine.clone();
    foreign["id"] = other.id().into();
    let mut half = mine.clone();
    let key = mine["private_key"].as_str().expect("key");
    half["private_key"] = key[..key.len() / 2].into();
    let texts = [
        (String::new(), "is empty"),
        ("garbage".into(), "not valid"),
        (good[..good.len() / 2].to_owned(), "not valid"),
        ("{}".into(), "private_key"),
        (foreign.to_string(), "belongs to"),
        (half.to_string(), "private_key"),
        (
            serde_json::json!({"id": mine["id"], "private_key": "A".repeat(100_000)}).to_string(),
            "private_key",
        ),
    ];
    for (text, word) in texts {
        std::fs::write(&file, &text).expect("written");
        let word = if word == "private_key" && text == "{}" { "\"id\"" } else { word };
        for command in [&["daemon"][..], &["up"]] {
            let said = assert_fails(&mut peer, command, &["identity.json", word]);
            assert!(!said.contains(&key[8..key.len() / 2]), "the key is shown:\n{said}");
            assert_eq!(std::fs::read_to_string(&file).expect("identity.json"), text);
        }
    }
    std::fs::write(&file, good).expect("written");
    peer.start(&["daemon"]);
}

#[test]
fn a_taken_port_ends_the_start_and_a_free_one_lets_it_go_on() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let keys = [
        ("/api/restapi/http_listen_multiaddress", "api.restapi"),
        ("/cluster/listen_multiaddress", "cluster.listen_multiaddress"),
        ("/ipfs_connector/embedded/listen_multiaddress", "ipfs_connector"),
    ];
    for (pointer, key) in keys {
        let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = holder.local_addr().expect("bound").port().to_string();
        let address = format!("/ip4/127.0.0.1/tcp/{port}");
        peer.edit(|config| *config.pointer_mut(pointer).expect(pointer) = address.clone().into());
        assert_fails(&mut peer, &["daemon"], &["in use", &port, key]);
        drop(holder);
        // Nothing was left half-done: as soon as the port is free it starts, as the same peer.
        peer.start(&["daemon"]);
        peer.stop();
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let disk = SmallDisk::read_only(&peer.folder);
    if disk.is_none() {
        return;
    }
    let folder = peer.path().to_owned();
    for command in [&["daemon"][..], &["up"], &["state", "cleanup", "-f"], &["init", "-f"]] {
        assert_fails(&mut peer, command, &["Read-only file system", &folder]);
    }
    let mut inside = Peer::fresh(peer.folder.join("new"));
    // Its log lies beside it, where nothing can be written.
    let output = pinfold().args(["-c", inside.path(), "up"]).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("Read-only file system"), "{said}");
    assert!(!inside.is_running());
    drop(disk);
    peer.start(&["daemon"]);
}

#[test]
fn two_daemons_never_share_a_folder() {
    let mut cluster = Cluster::of(1);
    let holder = format!("process {} (daemon)", cluster.peers[0].pid());
    let folder = cluster.peers[0].path().to_owned();
    for command in
        [&["daemon"][..], &["up"], &["state", "cleanup", "-f"], &["state", "export"], &["init", "-f"]]
    {
        let output = pinfold().args(["-c", &folder]).args(command).output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{command:?}: {said}");
        assert!(said.contains("in use") && said.contains(&holder), "{command:?}: {said}");
    }
    cluster.peers[0].json("POST", &format!("/pins/{}", cid_of(1)));
    // The lock dies with its holder, however it dies.
    cluster.peers[0].kill();
    cluster.peers[0].start(&["daemon"]);
    assert_eq!(cluster.peers[0].pinned_cids(), [cid_of(1)]);
}

#[test]
fn a_clock_in_1970_and_its_correction_change_no_pin() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(clock) = Clock::new(tmp.path()) else { return };
    let mut peer = one(&tmp);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let in_1970 = 3600 - i64::try_from(now).expect("seconds");
    clock.set(in_1970);
    clock.start(&mut peer);
    peer.wait_candidates(1);
    // The clock really is there, and the log says so by its times.
    assert!(peer.log().contains("1970-01-01T"), "{}", peer.log());
    let plain = cid_of(1);
    peer.json("POST", &format!("/pins/{plain}?name=made-in-1970"));
    let made = peer.json("GET", &format!("/allocations/{plain}"));
    assert!(made["timestamp"].as_str().expect("time").starts_with("1970-01-01T"), "{made}");
    // A pin that ends in 2100 is in the future on every clock.
    let late = cid_of(2);
    peer.json("POST", &format!("/pins/{late}?expire-at=2100-01-01T00:00:00Z"));
    peer.kill();
    clock.start(&mut peer);
    assert_eq!(peer.pinned_cids().len(), 2, "a restart in 1970");
    // The time comes over the network: 56 years pass at once.
    clock.set(0);
    peer.wait_candidates(1);
    let kept = |peer: &Peer| {
        let mut have = peer.pinned_cids();
        let mut want = vec![plain.clone(), late.clone()];
        have.sort();
        want.sort();
        assert_eq!(have, want);
    };
    kept(&peer);
    peer.json("POST", &format!("/pins/{}", cid_of(3)));
    let made = peer.json("GET", &format!("/allocations/{}", cid_of(3)));
    assert!(!made["timestamp"].as_str().expect("time").starts_with("1970"), "{made}");
    peer.json("DELETE", &format!("/pins/{}", cid_of(3)));
    // And back: the peer still leads, writes and measures, because nothing of that asks the wall clock.
    clock.set(in_1970);
    peer.json("POST", &format!("/pins/{}", cid_of(4)));
    peer.json("DELETE", &format!("/pins/{}", cid_of(4)));
    peer.wait_candidates(1);
    kept(&peer);
    let (status, _) = peer.stop();
    assert!(status.success(), "{}", peer.log());
    peer.start(&["daemon"]);
    kept(&peer);
}

#[test]
fn another_secret_another_peer_and_none_at_all_end_the_joining_with_the_reason() {
    let mut cluster = Cluster::of(1);
    let address = cluster.peers[0].address();
    let other = "f".repeat(64);
    let mut stranger = Peer::init(cluster.path("stranger"), "stranger", &other);
    assert_fails(
        &mut stranger,
        &["daemon", "--bootstrap", &address],
        &["could not join", "secret", "same cluster.secret"],
    );
    let token = ok(cluster.peers[0].ctl(&["invite"])).trim().to_string();
    assert_fails(&mut stranger, &["join", &token], &["belongs to another cluster", "-c FOLDER"]);
    // The right place, the wrong peer.
    let mut lost = Peer::init(cluster.path("lost"), "lost", SECRET);
    let place = address.rsplit_once("/p2p/").expect("a peer id").0;
    let nobody = PeerId::random();
    let said = assert_fails(
        &mut lost,
        &["daemon", "--bootstrap", &format!("{place}/p2p/{nobody}")],
        &["could not join"],
    );
    assert!(said.contains(&nobody.to_string()) && said.contains(&cluster.peers[0].id()), "{said}");
    assert_fails(&mut lost, &["daemon", "--bootstrap", place], &["/p2p/"]);
    // Nothing half-done: both can still join, or found.
    lost.start(&["daemon", "--bootstrap", &address]);
    lost.wait_members(2);
    stranger.start(&["daemon"]);
    assert_eq!(stranger.json("GET", "/id")["cluster_peers"].as_array().expect("peers").len(), 1);
    assert!(cluster.peers[0].is_running());
}

/// Membership for a host that has no calls to give.
struct Nobody;

impl pinfold::net::rpc::Membership for Nobody {
    fn is_member(&self, _: &PeerId) -> bool {
        false
    }
}

#[test]
fn a_peer_of_another_version_is_told_apart() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    // It has the secret and speaks libp2p, but knows none of our calls.
    let (host, _rpc) = pinfold::runtime::block_on(async {
        let mut psk = [0; 32];
        for (byte, pair) in psk.iter_mut().zip(SECRET.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
        }
        let host = pinfold::net::Host::start(pinfold::net::HostConfig {
            keypair: libp2p::identity::Keypair::generate_ed25519(),
            psk: Some(psk),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")],
            announce: Vec::new(),
            agent: "pinfold/99".into(),
            protocol_version: "pinfold/99".into(),
            dial_timeout: Duration::from_secs(3),
            mdns: None,
            max_connections: 10,
        })
        .await
        .expect("host");
        let rpc = pinfold::net::rpc::Rpc::start(host.clone(), Arc::new(Nobody)).expect("rpc");
        (host, rpc)
    });
    let address = format!("{}/p2p/{}", host.addresses()[0], host.peer_id());
    assert_fails(
        &mut peer,
        &["daemon", "--bootstrap", &address],
        &["could not join", "another version", "update"],
    );
}

#[test]
fn a_joiner_waits_for_a_cluster_that_is_not_up_yet() {
    let tmp = tempfile::tempdir().expect("folder");
    let (mut first, mut second) = (one(&tmp), Peer::init(tmp.path().join("q"), "q", SECRET));
    second.spawn(&["daemon", "--bootstrap", &first.address()]);
    wait_for("the reason why it waits", PATIENCE, || {
        let said = second.log();
        if said.contains("could not join yet") && said.contains("refused") {
            Ok(())
        } else {
            Err(said)
        }
    });
    first.start(&["daemon"]);
    second.wait_ready();
    first.wait_members(2);
}
