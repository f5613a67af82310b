//! The IPFS daemon beside a peer is down, dies, hangs, or is something else altogether: the peer gets ready, says
//! what is wrong, and makes up for everything when the daemon is good again.

mod support;

use serde_json::{json, Value};
use std::net::SocketAddr;
use std::time::Duration;
use support::cluster::{cid_of, ok, Peer, PATIENCE, SECRET};
use support::fake_kubo::{free_port, FakeKubo, Mood};
use support::wait_for;

/// A peer that uses the daemon at this address.
fn peer_of(tmp: &tempfile::TempDir, daemon: SocketAddr) -> Peer {
    let peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    peer.edit(|config| {
        config["ipfs_connector"] = json!({ "ipfshttp": {
            "node_multiaddress": format!("/ip4/127.0.0.1/tcp/{}", daemon.port()),
            "ipfs_request_timeout": "2s",
            "pin_timeout": "2s",
            "unpin_timeout": "2s",
        }});
        config["cluster"]["pin_recover_interval"] = "1s".into();
        config["cluster"]["state_sync_interval"] = "1s".into();
    });
    peer
}

/// What the peer says about its daemon.
fn ipfs_error(peer: &Peer) -> String {
    let id = peer.json("GET", "/id");
    id["ipfs"]["error"].as_str().unwrap_or_else(|| panic!("no ipfs.error: {id}")).to_owned()
}

/// The error that a pin ended in.
fn pin_error(peer: &Peer, cid: &str) -> String {
    peer.wait_status(cid, "pin_error", 1);
    let info = peer.json("GET", &format!("/pins/{cid}"));
    let map = info["peer_map"].as_object().expect("peer_map");
    map.values().next().and_then(|row| row["error"].as_str()).expect("an error").to_owned()
}

fn assert_alive(peer: &mut Peer) {
    assert!(peer.is_running(), "{}", peer.log());
    let log = peer.log();
    assert!(!log.contains("panic") && !log.contains("defect"), "{log}");
}

#[test]
fn a_daemon_that_is_down_at_the_start_is_waited_for() {
    let tmp = tempfile::tempdir().expect("folder");
    let at = free_port();
    let mut peer = peer_of(&tmp, at);
    peer.start(&["daemon"]);
    let error = ipfs_error(&peer);
    assert!(error.contains("refused") && error.contains(&at.port().to_string()), "{error}");
    // `id` works, with the error in it and a good exit code.
    let words = ok(peer.ctl(&["id"]));
    assert!(words.contains("refused"), "{words}");
    let cid = cid_of(1);
    peer.json("POST", &format!("/pins/{cid}"));
    let error = pin_error(&peer, &cid);
    assert!(error.contains("refused") && error.contains(&at.port().to_string()), "{error}");
    // An unpin of what never came needs no daemon to be believed.
    let gone = cid_of(2);
    peer.json("POST", &format!("/pins/{gone}"));
    peer.json("DELETE", &format!("/pins/{gone}"));
    assert_eq!(peer.pinned_cids(), std::slice::from_ref(&cid));
    // It comes up: everything is made up for, without anybody's help.
    let daemon = FakeKubo::start(at, Mood::Good);
    peer.wait_status(&cid, "pinned", 1);
    wait_for("exactly the pin list at the daemon", PATIENCE, || {
        let pins: Vec<String> = daemon.pins().into_iter().collect();
        if pins == [cid.clone()] {
            Ok(())
        } else {
            Err(format!("{pins:?}"))
        }
    });
    assert_eq!(ipfs_error(&peer), "");
    assert_alive(&mut peer);
}

#[test]
fn a_daemon_that_dies_and_returns_empty_gets_its_pins_again() {
    let tmp = tempfile::tempdir().expect("folder");
    let at = free_port();
    let daemon = FakeKubo::start(at, Mood::Good);
    let mut peer = peer_of(&tmp, at);
    peer.start(&["daemon"]);
    let (before, during) = (cid_of(1), cid_of(2));
    peer.json("POST", &format!("/pins/{before}"));
    peer.wait_status(&before, "pinned", 1);
    drop(daemon);
    wait_for("the daemon's end to be noticed", PATIENCE, || {
        let id = peer.json("GET", "/id");
        if id["ipfs"]["error"].as_str().is_some_and(|e| !e.is_empty()) {
            Ok(())
        } else {
            Err(id.to_string())
        }
    });
    peer.json("POST", &format!("/pins/{during}"));
    pin_error(&peer, &during);
    // Its repository was lost, too.
    let daemon = FakeKubo::start(at, Mood::Good);
    for cid in [&before, &during] {
        wait_for("both pins at the new daemon", PATIENCE, || {
            if daemon.pins().contains(cid) {
                Ok(())
            } else {
                Err(format!("{:?}", daemon.pins()))
            }
        });
        peer.wait_status(cid, "pinned", 1);
    }
    assert_alive(&mut peer);
}

#[test]
fn whatever_a_daemon_answers_the_pins_end_in_errors_and_recover() {
    for (n, mood) in
        [Mood::Html, Mood::HalfLines, Mood::WrongShape, Mood::Broken, Mood::Silent].into_iter().enumerate()
    {
        let tmp = tempfile::tempdir().expect("folder");
        let at = free_port();
        let daemon = FakeKubo::start(at, mood);
        let mut peer = peer_of(&tmp, at);
        peer.start(&["daemon"]);
        assert_ne!(ipfs_error(&peer), "", "{mood:?} passes for a daemon");
        let cid = cid_of(n as u64);
        peer.json("POST", &format!("/pins/{cid}?name=n"));
        let error = pin_error(&peer, &cid);
        assert!(error.len() < 2000, "{mood:?}: {error}");
        let word = match mood {
            Mood::Broken => "on fire",
            Mood::Silent => "2s",
            _ => "IPFS daemon",
        };
        assert!(error.contains(word), "{mood:?}: {error}");
        // Nothing is pinned by a daemon that only says so in the wrong words.
        assert!(daemon.pins().is_empty());
        // What does not need the daemon is answered meanwhile: lists, status, a stop.
        assert_eq!(peer.pinned_cids(), std::slice::from_ref(&cid));
        let status: Vec<Value> = peer.lines("/pins?local=true");
        assert_eq!(status.len(), 1, "{mood:?}: {status:?}");
        daemon.turn(Mood::Good);
        peer.wait_status(&cid, "pinned", 1);
        assert_eq!(ipfs_error(&peer), "", "{mood:?}");
        assert_alive(&mut peer);
        daemon.turn(mood);
        let (status, took) = peer.stop();
        assert!(status.success(), "{mood:?}: {}", peer.log());
        assert!(took < pinfold::daemon::STOP_LIMIT + Duration::from_secs(2), "{mood:?}: {took:?}");
    }
}
