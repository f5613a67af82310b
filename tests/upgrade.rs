//! Data of the release before, and peers of another protocol, as a person meets them.
//!
//! The data in `tests/data/format1` was written by the real pinfold 0.1.0. `rolling_upgrade.rs` has whole clusters.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use support::cluster::{cid_of, ok, pinfold, Peer, PATIENCE, SECRET};
use support::disk::SmallDisk;
use support::{copy_tree, wait_for};

/// A copy of the fixture in a folder of its own.
fn fixture(at: PathBuf) -> Peer {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format1");
    let peer = Peer::init(at, "board1", SECRET);
    copy_tree(&from.join("raft"), &peer.folder.join("raft"));
    std::fs::copy(from.join("identity.json"), peer.folder.join("identity.json")).expect("identity");
    peer.edit(|config| config["consensus"]["raft"]["wait_for_leader_timeout"] = "1s".into());
    peer
}

/// What 0.1.0 itself exported from the fixture.
const EXPORT: &str = include_str!("data/format1/export.ndjson");

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Names in the peer's folder that have to do with its data.
fn data_names(peer: &Peer) -> Vec<String> {
    let entries = std::fs::read_dir(&peer.folder).expect("folder");
    let names = entries.map(|e| e.expect("entry").file_name().into_string().expect("text"));
    let mut names: Vec<String> = names.filter(|n| n.starts_with("raft")).collect();
    names.sort();
    names
}

#[test]
fn older_data_is_refused_with_the_command_and_the_command_works() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = fixture(tmp.path().join("board one"));
    let before = std::fs::read(peer.folder.join("raft/log/data.mdb")).expect("log");
    let command = format!("`pinfold -c '{}' state upgrade`", peer.path());
    for words in [&["daemon"][..], &["up"], &["state", "export"]] {
        let refused = peer.ctl(words);
        assert_eq!(refused.status.code(), Some(13), "{words:?}: {}", said(&refused));
        assert!(said(&refused).contains(&command), "{words:?}: {}", said(&refused));
        assert!(said(&refused).contains("older format 1"), "{words:?}: {}", said(&refused));
    }
    // Asked and not agreed to, nothing happens.
    let mut asked = pinfold();
    asked.args(["-c", peer.path(), "state", "upgrade"]).stdin(Stdio::null());
    let asked = ok(asked.output().expect("starts"));
    assert!(asked.contains("9 pins, 3 members") && asked.contains("nothing was changed"), "{asked}");
    assert_eq!(std::fs::read(peer.folder.join("raft/log/data.mdb")).expect("log"), before);
    assert_eq!(data_names(&peer), ["raft"]);

    let done = ok(peer.ctl(&["state", "upgrade", "--yes"]));
    for word in ["from data format 1 to 2", "9 pins", "3 members", "raft.format1.0"] {
        assert!(done.contains(word), "\"{word}\" is missing: {done}");
    }
    assert_eq!(data_names(&peer), ["raft", "raft.format1.0"]);
    assert_eq!(std::fs::read(peer.folder.join("raft.format1.0/log/data.mdb")).expect("backup"), before);
    let again = ok(peer.ctl(&["state", "upgrade", "-f"]));
    assert!(again.contains("nothing to upgrade"), "{again}");
    assert_eq!(data_names(&peer), ["raft", "raft.format1.0"]);
    // Everything is there, with every option, and what stood only in the log too.
    assert_eq!(String::from_utf8(peer.ctl(&["state", "export"]).stdout).expect("text"), EXPORT);

    // It runs: alone of three it has no majority, but it knows what it knew.
    peer.start(&["daemon"]);
    assert_eq!(peer.lines("/allocations").len(), 9);
    let health = peer.consensus();
    assert_eq!(health["cluster_version"], 1, "{health}");
    let names: Vec<&str> = health["members"]
        .as_array()
        .expect("members")
        .iter()
        .filter_map(|m| m["peername"].as_str())
        .collect();
    assert_eq!(names.len(), 3, "{health}");
    assert!(["board0", "board1", "board2"].iter().all(|name| names.contains(name)), "{health}");
    // The tracker's own records came along: it goes on from them instead of starting from nothing.
    assert!(!peer.lines("/pins?local=true").is_empty());
    // In use: the upgrade waits for its stop.
    let busy = peer.ctl(&["state", "upgrade", "-y"]);
    assert!(busy.status.code() == Some(5) && said(&busy).contains("stop it first"), "{}", said(&busy));
}

#[test]
fn the_daemon_upgrades_by_itself_when_it_is_told_to() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = fixture(tmp.path().join("p"));
    peer.start(&["daemon", "--upgrade"]);
    assert!(peer.log().contains("from data format 1 to 2: 9 pins"), "{}", peer.log());
    assert_eq!(data_names(&peer), ["raft", "raft.format1.0"]);
    let (status, _) = peer.stop();
    assert!(status.success(), "{}", peer.log());
    // Nothing to do is no reason not to start.
    peer.start(&["daemon", "--upgrade"]);
    assert_eq!(data_names(&peer), ["raft", "raft.format1.0"]);
}

#[test]
fn a_folder_without_data_has_nothing_to_upgrade() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    assert!(ok(peer.ctl(&["state", "upgrade"])).contains("there is no data"));
    peer.start(&["daemon"]);
    peer.json("POST", &format!("/pins/{}", cid_of(1)));
    assert_eq!(
        peer.consensus()["cluster_version"],
        pinfold::state::version::SPOKEN,
        "a new cluster starts with what it can"
    );
    peer.stop();
    assert!(ok(peer.ctl(&["state", "upgrade"])).contains("nothing to upgrade: the data has format 2"));
}

/// The plug is pulled at any moment: the data is the old or the new, whole, and running it again ends well.
#[test]
fn an_upgrade_that_is_killed_leaves_the_old_data_or_the_new() {
    let tmp = tempfile::tempdir().expect("folder");
    let (mut old, mut new) = (0, 0);
    for round in 0..24 {
        let peer = fixture(tmp.path().join(format!("p{round}")));
        let mut upgrade = pinfold();
        upgrade.args(["-c", peer.path(), "state", "upgrade", "-y"]);
        upgrade.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = upgrade.spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(4 + round * round / 2));
        let _ = child.kill();
        child.wait().expect("reaped");
        let export = peer.ctl(&["state", "export"]);
        match export.status.code() {
            Some(0) => {
                new += 1;
                assert_eq!(String::from_utf8_lossy(&export.stdout), EXPORT, "round {round}");
            }
            Some(13) => {
                old += 1;
                assert!(said(&export).contains("state upgrade`"), "round {round}: {}", said(&export));
            }
            other => panic!("round {round}: {other:?} {}", said(&export)),
        }
        ok(peer.ctl(&["state", "upgrade", "-y"]));
        assert_eq!(data_names(&peer), ["raft", "raft.format1.0"], "round {round}");
        assert_eq!(String::from_utf8(peer.ctl(&["state", "export"]).stdout).expect("text"), EXPORT);
    }
    eprintln!("killed {old} times before the exchange, {new} times after it");
}

#[test]
fn an_upgrade_that_does_not_fit_on_the_disk_is_refused_and_changes_nothing() {
    let tmp = tempfile::tempdir().expect("folder");
    let at = tmp.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&at, 16) else { return };
    let peer = fixture(at.join("p"));
    let refused = peer.ctl(&["state", "upgrade", "-y"]);
    assert_eq!(refused.status.code(), Some(9), "{}", said(&refused));
    assert!(said(&refused).contains("make room there"), "{}", said(&refused));
    assert_eq!(data_names(&peer), ["raft"]);
    let export = peer.ctl(&["state", "export"]);
    assert_eq!(export.status.code(), Some(13), "still the old data: {}", said(&export));
}

/// A host that has the secret and speaks the cluster's protocol under the number of another age.
fn from_the_future() -> (pinfold::net::Host, async_channel::Receiver<(libp2p::PeerId, pinfold::net::Stream)>)
{
    let mut psk = [0; 32];
    for (byte, pair) in psk.iter_mut().zip(SECRET.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    }
    let host = pinfold::runtime::block_on(pinfold::net::Host::start(pinfold::net::HostConfig {
        keypair: libp2p::identity::Keypair::generate_ed25519(),
        psk: Some(psk),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")],
        announce: Vec::new(),
        agent: "pinfold/9.4.2".into(),
        protocol_version: "/pinfold/9".into(),
        dial_timeout: Duration::from_secs(3),
        mdns: None,
        max_connections: 10,
    }))
    .expect("host");
    let taker = host.accept("/pinfold/rpc/9").expect("the only taker");
    (host, taker)
}

#[test]
fn a_peer_of_another_protocol_is_told_by_version_on_both_sides() {
    let tmp = tempfile::tempdir().expect("folder");
    let (host, _taker) = from_the_future();
    // We want to join it.
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    peer.spawn(&["daemon", "--bootstrap", &format!("{}/p2p/{}", host.addresses()[0], host.peer_id())]);
    let (status, _) = peer.wait_end();
    assert_eq!(status.code(), Some(13), "{}", peer.log());
    let words = [
        "could not join",
        "does not speak /pinfold/rpc/1 but /pinfold/rpc/9",
        "runs pinfold/9.4.2",
        &format!("this peer runs pinfold/{}", pinfold::VERSION),
        "update this peer",
    ];
    for word in words {
        assert!(peer.log().contains(word), "\"{word}\" is missing:\n{}", peer.log());
    }
    // It comes to us.
    peer.start(&["daemon"]);
    let (place, id) = (peer.address(), peer.id());
    let place = place.split("/p2p/").next().expect("address").parse().expect("address");
    pinfold::runtime::block_on(host.connect(id.parse().expect("id"), vec![place]))
        .expect("the secret is right");
    wait_for("the warning", PATIENCE, || {
        let said = peer.log();
        let told =
            said.contains("WARN") && said.contains("runs pinfold/9.4.2") && said.contains("update this peer");
        told.then_some(()).ok_or(said)
    });
    // And is told the same, from its side, when it asks.
    let refused = pinfold::runtime::block_on(async {
        let id = id.parse().expect("id");
        host.open(id, "/pinfold/rpc/9", Duration::from_secs(5)).await.map(drop)
    });
    let refused = refused.expect_err("not spoken here");
    assert!(refused.message().contains("update peer"), "{refused}");
    assert!(refused.message().contains(&format!("it runs pinfold/{}", pinfold::VERSION)), "{refused}");
}

/// A member that is gone is known by what it ran.
#[test]
fn the_version_of_a_dead_peer_is_told() {
    let mut cluster = support::cluster::Cluster::of(2);
    let dead = cluster.peers[1].id();
    let version = |peer: &Peer| -> Value {
        let health = peer.consensus();
        let members = health["members"].as_array().cloned().unwrap_or_default();
        members.into_iter().find(|m| m["peer"] == dead.as_str()).map_or(Value::Null, |m| m["version"].clone())
    };
    wait_for("the version of the second", PATIENCE, || {
        let told = version(&cluster.peers[0]);
        (told == pinfold::VERSION).then_some(()).ok_or_else(|| told.to_string())
    });
    cluster.peers[1].kill();
    assert_eq!(version(&cluster.peers[0]), pinfold::VERSION);
    let peers = cluster.peers[0].lines("/peers");
    let told = peers.iter().find(|p| p["id"] == dead.as_str()).expect("listed");
    assert!(told["error"] != "" && told["version"] == pinfold::VERSION, "{told}");
}

/// Peers of both builds must write the same bytes for the same thing, or their digests differ: what the real 0.1.0 put
/// into its log and its rows is read here, and written again.
#[test]
fn what_the_first_release_wrote_is_written_the_same_today() {
    use pinfold::state::{Command, Member, Pin};
    use pinfold::store::{LogStore, StateStore, Table};
    let tmp = tempfile::tempdir().expect("folder");
    let peer = fixture(tmp.path().join("p"));
    ok(peer.ctl(&["state", "upgrade", "-y"]));
    let (log, state) = pinfold::store::open(&peer.folder.join("raft")).expect("stores");
    let entries = log.entries(log.first_index(), log.last_index() + 1, u64::MAX).expect("entries");
    let mut kinds = std::collections::BTreeSet::new();
    for entry in entries.iter().filter(|e| e.get_entry_type() == raft::eraftpb::EntryType::EntryNormal) {
        if entry.data.is_empty() {
            continue;
        }
        let command = Command::decode(&entry.data).expect("a command of 0.1.0");
        assert_eq!(command.needs(), 1, "{command:?}");
        assert_eq!(command.encode(), entry.data.to_vec(), "{command:?}");
        kinds.insert(format!("{command:?}").split('(').next().expect("a word").to_owned());
    }
    assert!(["Pin", "Unpin"].iter().all(|kind| kinds.contains(*kind)), "{kinds:?}");
    let rows = |table| state.scan(table, None, 1_000).expect("rows");
    for (_, row) in rows(Table::Pins) {
        assert_eq!(Pin::decode(&row).expect("a pin").encode(), row);
    }
    for (_, row) in rows(Table::Members) {
        let member = Member::decode(&row).expect("a member");
        assert!(member.version.is_empty());
        assert_eq!(member.encode(), row);
    }
    assert!(rows(Table::Meta).iter().all(|(key, _)| key != b"cluster_version"), "only the log may bring it");
}
