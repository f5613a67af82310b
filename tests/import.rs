//! `state import`: pinsets of every age, and files that are none, as a person meets them.

mod support;

use serde_json::{json, Value};
use std::io::Write;
use std::process::{Output, Stdio};
use support::cluster::{cid_of, ok, pinfold, Cluster, Peer, PATIENCE, SECRET};
use support::wait_for;

const EXPORT: &str = include_str!("golden/state-export.ndjson");
const OLD_PEER: &str = "12D3KooWNUfLafUxLcHFg89f7Zx473UHz1f2tw4AR227DP6ZP2L3";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn one(tmp: &tempfile::TempDir) -> Peer {
    Peer::init(tmp.path().join("p"), "p", SECRET)
}

/// Imports this text from standard input.
fn import(peer: &Peer, text: &[u8], flags: &[&str]) -> Output {
    let mut command = pinfold();
    command.args(["-c", peer.path(), "state", "import", "-f"]).args(flags);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut input = child.stdin.take().expect("stdin");
    let text = text.to_vec();
    // It may give up before it has read everything.
    let writer = std::thread::spawn(move || drop(input.write_all(&text)));
    let output = child.wait_with_output().expect("ends");
    writer.join().expect("writer");
    output
}

/// What the state holds, by CID.
fn export(peer: &Peer) -> Vec<Value> {
    let text = ok(peer.ctl(&["state", "export"]));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn pin_of<'a>(pins: &'a [Value], cid: &str) -> &'a Value {
    pins.iter().find(|p| p["cid"] == cid).unwrap_or_else(|| panic!("{cid} is not in {pins:?}"))
}

#[test]
fn the_forms_of_all_ages_are_read() {
    let tmp = tempfile::tempdir().expect("folder");
    let peer = one(&tmp);
    let (a, b) = (cid_of(1), cid_of(2));
    // 0.3: one list, spread over lines, few fields.
    let list = serde_json::to_string_pretty(&json!([
        {"cid": a, "name": "one", "allocations": [OLD_PEER], "replication_factor_min": 1, "replication_factor_max": 2},
        {"cid": b, "name": "", "allocations": null, "replication_factor_min": -1, "replication_factor_max": -1, "recursive": false},
    ]));
    // Before names were agreed on: a map, with its version, of factors in Go's own spelling.
    let map = json!({"Version": 2, "PinMap": {
        a.clone(): {"Cid": a, "Allocations": [OLD_PEER], "ReplicationFactor": 1, "Name": "one"},
        b.clone(): {"Everywhere": true, "max_depth": 0},
    }});
    // 0.10 to 0.14: links and bits; 1.x: today's.
    let links = format!(
        "{{\"cid\":{{\"/\":\"{a}\"}},\"type\":2,\"max_depth\":-1,\"name\":\"one\",\"allocations\":[\"{OLD_PEER}\"],\
         \"replication_factor_min\":1,\"replication_factor_max\":2,\"reference\":null}}\r\n\
         {{\"cid\":{{\"/\":\"{b}\"}},\"type\":2,\"max_depth\":0,\"replication_factor_min\":-1,\"replication_factor_max\":-1}}\r\n"
    );
    let with_mark = format!("\u{feff}{links}");
    for (what, text) in [
        ("list", list.expect("JSON")),
        ("map", map.to_string()),
        ("links", links),
        ("with a byte order mark", with_mark),
    ] {
        let output = import(&peer, text.as_bytes(), &[]);
        assert!(output.status.success(), "{what}: {}", said(&output));
        assert!(said(&output).contains("state successfully imported: 2 pins"), "{what}: {}", said(&output));
        assert!(
            said(&output).contains("1 holders that this folder does not know"),
            "{what}: {}",
            said(&output)
        );
        let pins = export(&peer);
        assert_eq!(pins.len(), 2, "{what}");
        let (first, second) = (pin_of(&pins, &a), pin_of(&pins, &b));
        assert_eq!((&first["name"], &first["allocations"]), (&json!("one"), &json!([OLD_PEER])), "{what}");
        assert_eq!(
            (&first["replication_factor_min"], &first["mode"]),
            (&json!(1), &json!("recursive")),
            "{what}"
        );
        assert_eq!(
            (&second["replication_factor_max"], &second["mode"]),
            (&json!(-1), &json!("direct")),
            "{what}"
        );
    }
    let output = import(&peer, EXPORT.as_bytes(), &[]);
    assert!(output.status.success() && export(&peer).len() == 3, "{}", said(&output));
    // Its own pins carry what ipfs-cluster's Raft mode copied from one to the next, and that is said.
    for word in [
        "the pins in lines 1, 2 were made one after the other",
        "expiry",
        "look as if ipfs-cluster had copied fields",
    ] {
        assert!(said(&output).contains(word), "\"{word}\" is missing: {}", said(&output));
    }
    assert!(
        said(&output).contains("is kept in") && said(&output).contains("raft.old.0"),
        "{}",
        said(&output)
    );
}

#[test]
fn each_bad_line_is_told_by_number_and_nothing_is_imported() {
    let tmp = tempfile::tempdir().expect("folder");
    let peer = one(&tmp);
    ok(import(&peer, format!("{{\"cid\":\"{}\"}}", cid_of(9)).as_bytes(), &[]));
    let before = export(&peer);
    let good = |n: u64| format!("{{\"cid\":\"{}\",\"colour\":\"red\"}}\n", cid_of(n));
    let text = [
        good(1),
        "hello\n".into(),
        "{\"name\":\"no cid\"}\n".into(),
        good(2),
        "{\"cid\":\"nonsense\"}\n".into(),
        format!("{{\"cid\":\"{}\",\"replication_factor_min\":-7}}\n", cid_of(3)),
        format!("{{\"cid\":\"{}\",\n", cid_of(4)),
        good(5),
    ]
    .concat();
    let refused = import(&peer, text.as_bytes(), &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    for word in [
        "(line 2) is not a pin: it is no JSON object but begins with \"hello\"",
        "(line 3) is not a pin: missing field `cid`",
        "(line 5) is not a pin: cid \"nonsense\" is not a CID",
        "(line 6) is not a pin: a replication factor",
        "(line 7) is not a pin: it has no end: line 8 begins another",
        "5 of 8 objects are not pins, so nothing was imported",
        "--skip-bad",
    ] {
        assert!(said(&refused).contains(word), "\"{word}\" is missing: {}", said(&refused));
    }
    assert_eq!(export(&peer), before);
    assert!(!peer.folder.join("raft.importing").exists());
    let skipped = import(&peer, text.as_bytes(), &["--skip-bad"]);
    assert!(skipped.status.success(), "{}", said(&skipped));
    assert_eq!(export(&peer).len(), 3);
    assert_eq!(said(&skipped).matches("the field \"colour\" of 3 pins").count(), 1, "{}", said(&skipped));
}

#[test]
fn files_that_are_no_pinset_are_refused_quickly_with_the_reason() {
    let tmp = tempfile::tempdir().expect("folder");
    let peer = one(&tmp);
    ok(import(&peer, format!("{{\"cid\":\"{}\"}}", cid_of(9)).as_bytes(), &[]));
    let before = export(&peer);
    let mut noise: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    noise[0] = 7;
    let endless = vec![b'x'; 70 << 20];
    let long = [b"{\"cid\":\"".to_vec(), vec![b'Q'; 3 << 20], b"\"}\n".to_vec()].concat();
    let utf16: Vec<u8> = "\u{feff}{\"cid\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let many = "x\n".repeat(5_000);
    for (what, text, word) in [
        ("noise", &noise[..], "is not a pin"),
        ("one endless line", &endless, "the line has no end"),
        ("a huge object", &long, "it is longer than"),
        ("UTF-16", &utf16, "save it as UTF-8"),
        ("gzip", b"\x1f\x8b\x08\x00\x00", "gunzip"),
        ("a web page", b"<!DOCTYPE html>\n<html></html>\n", "begins with \"<!DOCTYPE html>\""),
        (
            "a list that was cut off",
            b"[{\"cid\":\"QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o\"},\n",
            "the file was cut off",
        ),
        ("many bad lines", many.as_bytes(), "and 4900 more like that"),
    ] {
        let refused = import(&peer, text, &[]);
        assert_eq!(refused.status.code(), Some(2), "{what}: {}", said(&refused));
        assert!(said(&refused).contains(word), "{what}: \"{word}\" is missing: {:.2000}", said(&refused));
        assert!(said(&refused).len() < 100_000, "{what}: too many words");
    }
    assert_eq!(export(&peer), before);
    // Nothing at all is a pinset without pins; the one before is kept.
    let empty = import(&peer, b"", &[]);
    assert!(
        empty.status.success() && said(&empty).contains("there was no pin in the input"),
        "{}",
        said(&empty)
    );
    assert!(export(&peer).is_empty());
}

#[test]
fn holders_of_another_cluster_do_not_leave_the_pins_unheld() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let cid = cid_of(1);
    let line = format!(
        "{{\"cid\":\"{cid}\",\"allocations\":[\"{OLD_PEER}\",\"{}\"],\"replication_factor_min\":1,\"replication_factor_max\":2}}",
        peer.id()
    );
    let kept = import(&peer, line.as_bytes(), &[]);
    assert!(said(&kept).contains("1 holders that this folder does not know"), "{}", said(&kept));
    assert_eq!(export(&peer)[0]["allocations"], json!([OLD_PEER, peer.id()]));
    let dropped = import(&peer, line.as_bytes(), &["--reallocate"]);
    assert!(said(&dropped).contains("1 pins lost holders"), "{}", said(&dropped));
    assert!(!said(&dropped).contains("does not know"), "{}", said(&dropped));
    assert_eq!(export(&peer)[0]["allocations"], json!([peer.id()]));
    // Peers that are known from before will be back: they keep what they hold.
    let address = format!("/ip4/10.0.0.1/tcp/9096/p2p/{OLD_PEER}\n");
    std::fs::write(peer.folder.join("peerstore"), address).expect("peerstore");
    let known = import(&peer, line.as_bytes(), &["--reallocate"]);
    assert!(!said(&known).contains("lost holders"), "{}", said(&known));
    assert_eq!(export(&peer)[0]["allocations"], json!([OLD_PEER, peer.id()]));
    // And it runs: alone, it elects itself, and has the pin.
    std::fs::write(peer.folder.join("peerstore"), "").expect("peerstore");
    ok(import(&peer, line.as_bytes(), &["--reallocate"]));
    peer.start(&["daemon"]);
    assert_eq!(peer.pinned_cids(), [cid]);
    assert_eq!(peer.consensus()["cluster_version"], pinfold::state::version::SPOKEN);
}

/// The whole way back: a cluster is stopped, one peer imports, the others join it anew.
#[test]
fn a_backup_of_one_cluster_becomes_another() {
    let mut cluster = Cluster::of(2);
    for n in 0..20 {
        let on = cluster.peers[n as usize % 2].id();
        let options = format!("name=n{n}&replication-min=1&replication-max=1&user-allocations={on}");
        cluster.peers[0].json("POST", &format!("/pins/{}?{options}", cid_of(n)));
    }
    let holders = |peer: &Peer| -> Vec<(String, Value)> {
        let pins = peer.lines("/allocations");
        pins.iter().map(|p| (p["cid"].as_str().expect("cid").to_owned(), p["allocations"].clone())).collect()
    };
    let before = holders(&cluster.peers[0]);
    for peer in &mut cluster.peers {
        peer.stop();
    }
    let file = cluster.path("pins.ndjson");
    let file = file.to_str().expect("UTF-8");
    ok(cluster.peers[0].ctl(&["state", "export", "-f", file]));
    ok(cluster.peers[1].ctl(&["state", "cleanup", "-f"]));
    let imported = cluster.peers[0].ctl(&["state", "import", "-f", file]);
    assert!(imported.status.success(), "{}", said(&imported));
    assert!(
        !said(&imported).contains("does not know"),
        "the other peer is in the peerstore: {}",
        said(&imported)
    );
    cluster.peers[0].spawn_with(&["daemon"], |command| {
        // Until everybody is back, nobody's copies are to be made anew.
        command.env("CLUSTER_DISABLEREPINNING", "true");
    });
    cluster.peers[0].wait_ready();
    let first = cluster.peers[0].address();
    cluster.peers[1].start(&["daemon", "--bootstrap", &first]);
    for peer in &cluster.peers {
        wait_for("all pins, where they were", PATIENCE, || {
            let now = holders(peer);
            (now == before).then_some(()).ok_or_else(|| format!("{now:?}"))
        });
    }
}
