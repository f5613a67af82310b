//! The bad days of an IPFS daemon: it dies in every phase of a pin and returns, it answers everything but what it
//! should, and two of them have one identity. Nothing is believed that was not said, nothing grows without limit, and
//! everything ends pinned without anybody's help.

mod support;

#[path = "support/fold.rs"]
mod fold;

use fold::kubo::KuboDaemon;
use fold::{error_of, listed, status_of, Fold, Node, NEVER};
use serde_json::{json, Value};
use std::time::{Duration, Instant};
use support::cluster::{cid_of, ok, Cluster, Peer, PATIENCE};
use support::fake_kubo::{free_port, FakeKubo, Mood};
use support::wait_for;

/// Memory that a daemon's nonsense may cost, at most.
const MOST_MEMORY: u64 = 32 << 20;

fn until(what: &str, mut done: impl FnMut() -> Result<(), String>) {
    wait_for(what, PATIENCE, &mut done);
}

fn yes(condition: bool, or: impl Into<String>) -> Result<(), String> {
    match condition {
        true => Ok(()),
        false => Err(or.into()),
    }
}

/// A peer over a scripted daemon that never compares unless it has a reason to.
fn over_fake(at: std::net::SocketAddr) -> Cluster {
    Cluster::with(1, |_, config| {
        config["cluster"]["pin_recover_interval"] = NEVER.into();
        config["cluster"]["state_sync_interval"] = NEVER.into();
        config["ipfs_connector"] = json!({ "ipfshttp": {
            "node_multiaddress": format!("/ip4/127.0.0.1/tcp/{}", at.port()),
            "ipfs_request_timeout": "2s",
            "pin_timeout": "3s",
            "unpin_timeout": "2s",
        }});
    })
}

/// Anonymous memory of a peer, bytes.
fn memory(peer: &Peer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", peer.pid())).expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}

fn assert_calm(peer: &Peer, mood: Mood) {
    let log = peer.log();
    assert!(!log.contains("panic") && !log.contains("defect"), "{mood:?}: {log}");
    assert!(log.len() < 1 << 20, "{mood:?}: the log has {} bytes", log.len());
}

/// What is pinned, what is to be pinned and what is to be unpinned while a daemon answers like this; and then it is good
/// again.
fn a_mood_passes(mood: Mood, words: &str) {
    let at = free_port();
    let daemon = FakeKubo::start(at, Mood::Good);
    let cluster = over_fake(at);
    let peer = &cluster.peers[0];
    let [held, gone, new] = [1, 2, 3].map(cid_of);
    for cid in [&held, &gone] {
        peer.json("POST", &format!("/pins/{cid}"));
        peer.wait_status(cid, "pinned", 1);
    }
    let before = memory(peer);
    daemon.turn(mood);
    peer.json("POST", &format!("/pins/{new}"));
    peer.json("DELETE", &format!("/pins/{gone}"));
    peer.wait_status(&new, "pin_error", 1);
    let error = error_of(&peer.json("GET", &format!("/pins/{new}")), peer);
    assert!(error.contains(words) && error.len() <= 1_000, "{mood:?}: {error}");
    assert!(!daemon.pins().contains(&new), "{mood:?}");
    let whole = !matches!(mood, Mood::TrailerError | Mood::EndlessProgress | Mood::DiskFull);
    if whole {
        // What it did not confirm was not done; what cannot be compared is not changed.
        until("an unpin that is not believed", || {
            let status = listed(peer, &gone);
            yes(status == "unpin_error", status)
        });
        let (status, body) = peer.request("POST", "/pins/sync").expect("an answer");
        assert!(status == 500 && body.contains("IPFS"), "{mood:?}: {status} {body}");
        assert_eq!(listed(peer, &held), "pinned", "{mood:?}");
        let one = peer.json("POST", &format!("/pins/{held}/sync"));
        assert_eq!(status_of(&one, peer), "cluster_error", "{mood:?}: {one}");
    }
    assert!(memory(peer) < before + MOST_MEMORY, "{mood:?}: {before} and then {}", memory(peer));
    daemon.turn(Mood::Good);
    peer.wait_status(&new, "pinned", 1);
    peer.wait_status(&gone, "unpinned", 1);
    until("exactly the list in the daemon", || {
        let pins = daemon.pins();
        yes(pins.len() == 2 && pins.contains(&held) && pins.contains(&new), format!("{mood:?}: {pins:?}"))
    });
    assert_calm(peer, mood);
}

#[test]
fn a_page_instead_of_an_answer() {
    a_mood_passes(Mood::Html, "is this Kubo's RPC API?");
    a_mood_passes(Mood::HtmlError, "502 Bad Gateway");
}

#[test]
fn somewhere_else() {
    a_mood_passes(Mood::Redirect, "sends us to http://127.0.0.1:1/login");
}

#[test]
fn an_error_in_json() {
    a_mood_passes(Mood::Broken, "the datastore is on fire");
}

#[test]
fn half_a_line_and_then_nothing() {
    a_mood_passes(Mood::Cut, "broke the connection");
    a_mood_passes(Mood::HalfLines, "not understood");
}

#[test]
fn a_line_without_an_end() {
    a_mood_passes(Mood::EndlessLine, "is this Kubo's RPC API?");
}

#[test]
fn progress_without_progress() {
    a_mood_passes(Mood::EndlessProgress, "does not stop answering");
}

#[test]
fn a_full_disk() {
    a_mood_passes(Mood::DiskFull, "is full: make room there");
}

#[test]
fn an_error_in_the_trailer() {
    a_mood_passes(Mood::TrailerError, "pin: the content is gone");
}

#[test]
fn silence() {
    a_mood_passes(Mood::Silent, "no provider found");
}

#[test]
fn a_list_that_is_cut_makes_nothing_missing() {
    let at = free_port();
    let daemon = FakeKubo::start(at, Mood::Good);
    let cluster = over_fake(at);
    let peer = &cluster.peers[0];
    let cids: Vec<String> = (0..50).map(cid_of).collect();
    for cid in &cids {
        peer.json("POST", &format!("/pins/{cid}"));
    }
    for cid in &cids {
        peer.wait_status(cid, "pinned", 1);
    }
    // Also when the end of what is there looks like the end of the list: each is asked about before it is believed.
    daemon.turn(Mood::ShortList);
    // A daemon that is late on a busy machine is an error of its own; what counts is the answer when there is one.
    let answer = wait_for("a comparison", PATIENCE, || match peer.request("POST", "/pins/sync") {
        Ok((200 | 204, body)) => Ok(body),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(answer, "", "nothing is missing");
    daemon.turn(Mood::Cut);
    assert_eq!(peer.request("POST", "/pins/sync").expect("an answer").0, 500);
    assert_eq!(peer.lines("/pins?filter=pinned").len(), cids.len());
}

/// Waits until the peer has noticed that its daemon is away.
fn wait_away(fold: &Fold, n: usize) {
    until("the end of the daemon is noticed", || {
        let id = fold.peer(n).json("GET", "/id");
        yes(id["ipfs"]["error"].as_str().is_some_and(|e| !e.is_empty()), id.to_string())
    });
}

#[test]
fn a_kubo_that_dies_in_every_phase_of_a_pin_and_returns() {
    let Some(mut fold) = Fold::of(2, Node::Kubo, |_, config| {
        config["pin_tracker"]["stateless"]["concurrent_pins"] = 1.into();
        config["ipfs_connector"]["ipfshttp"]["pin_timeout"] = "1h".into();
    }) else {
        return;
    };
    let content = |n: u8| vec![n; 40_000];
    let cids: Vec<String> = (0..4).map(|n| fold.kubos[0].add(&content(n), &["--only-hash"])).collect();
    let there = fold.put(0, b"pinned before");
    let gone = fold.put(0, b"to be unpinned");
    for cid in [&there, &gone] {
        fold.peer(0).json("POST", &format!("/pins/{cid}"));
        fold.peer(0).wait_status(cid, "pinned", 2);
    }
    // At work on one that nobody has, others in line behind it; and it dies.
    for cid in &cids {
        fold.peer(1).json("POST", &format!("/pins/{cid}"));
    }
    until("a pin at work and others in line", || {
        let all = fold.peer(1).lines("/pins?local=true");
        let count = |s: &str| all.iter().filter(|i| status_of(i, fold.peer(1)) == s).count();
        yes(count("pinning") >= 1 && count("pin_queued") >= 1, format!("{all:?}"))
    });
    fold.kubos[1].kill();
    fold.peer(1).json("DELETE", &format!("/pins/{gone}"));
    until("errors that name the daemon", || {
        let all = fold.peer(1).lines("/pins?local=true&filter=error");
        let port = fold.kubos[1].api.to_string().rsplit('/').next().expect("port").to_string();
        let named = all.iter().filter(|i| error_of(i, fold.peer(1)).contains(&port)).count();
        yes(named == cids.len() + 1, format!("{all:?}"))
    });
    assert_eq!(listed(fold.peer(1), &there), "pinned", "what is not known to be lost is not called lost");
    let refused = fold.peer(1).request("POST", "/pins/sync?local=true").expect("an answer");
    assert_eq!(refused.0, 500, "{refused:?}");
    fold.kubos[1].run();
    until("the unpin after the return", || {
        yes(!fold.kubos[1].has_pinned(&gone, "recursive"), fold.peer(1).json("GET", "/pins").to_string())
    });
    for (n, cid) in cids.iter().enumerate() {
        assert_eq!(&fold.put(0, &content(n as u8)), cid);
    }
    for cid in &cids {
        fold.wait_held(cid, &[0, 1]);
        fold.peer(0).wait_status(cid, "pinned", 2);
    }
    fold.peer(0).wait_status(&gone, "unpinned", 2);

    // Again and again, with pins coming in meanwhile.
    let mut more = Vec::new();
    for round in 10..13u8 {
        fold.kubos[1].kill();
        let cid = fold.put(0, &content(round));
        fold.peer(0).json("POST", &format!("/pins/{cid}"));
        more.push(cid);
        wait_away(&fold, 1);
        fold.kubos[1].run();
    }
    for cid in &more {
        fold.wait_held(cid, &[0, 1]);
        fold.peer(0).wait_status(cid, "pinned", 2);
    }
    // It dies while it lists.
    let peer = fold.peer(1).url();
    let asking = std::thread::spawn(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let ask = || {
            agent
                .post(format!("{peer}/pins/sync?local=true"))
                .send_empty()
                .expect("an answer")
                .status()
                .as_u16()
        };
        let deadline = Instant::now() + PATIENCE;
        let mut answers = vec![ask()];
        while answers.last() != Some(&500) && Instant::now() < deadline {
            answers.push(ask());
        }
        answers
    });
    std::thread::sleep(Duration::from_millis(100));
    fold.kubos[1].kill();
    let answers = asking.join().expect("asked");
    let (last, good) = answers.split_last().expect("answers");
    assert!(*last == 500 && good.iter().all(|status| [200, 204].contains(status)), "{answers:?}");
    assert_eq!(listed(fold.peer(1), &there), "pinned");
    fold.kubos[1].run();
    fold.wait_held(&there, &[0, 1]);
    assert_eq!(fold.peer(1).lines("/pins?local=true&filter=error").len(), 0);
}

#[test]
fn two_kubos_with_one_identity_are_told_and_do_no_harm() {
    let Some(mut fold) = Fold::of(3, Node::Kubo, |_, _| {}) else { return };
    let cid = fold.put(0, b"on three of them");
    fold.peer(0).json("POST", &format!("/pins/{cid}"));
    fold.peer(0).wait_status(&cid, "pinned", 3);
    // The repository of one was copied to another.
    let identity = fold.kubos[1].config()["Identity"].clone();
    let own = fold.kubos[2].config()["Identity"].clone();
    let set = |kubo: &mut KuboDaemon, identity: &Value| {
        kubo.kill();
        kubo.edit(|config| config["Identity"] = identity.clone());
        kubo.run();
    };
    set(&mut fold.kubos[2], &identity);
    for (n, twin) in [(1, 2), (2, 1)] {
        until("the words about it", || {
            let id = fold.peer(n).json("GET", "/id");
            let error = id["ipfs"]["error"].as_str().unwrap_or_default();
            let known = id["ipfs"]["id"] == identity["PeerID"];
            yes(
                known && error.contains("same identity") && error.contains(&format!("p{twin}")),
                id.to_string(),
            )
        });
        until("the words in the log", || {
            let log = fold.peer(n).log();
            yes(log.contains("has the same identity"), log)
        });
    }
    let said = ok(fold.peer(0).ctl(&["peers", "ls"]));
    assert!(said.contains("same identity"), "{said}");
    assert_eq!(fold.peer(0).json("GET", "/id")["ipfs"]["error"], "", "the third is not concerned");
    // What is there stays, and nothing comes and goes. (What is new may reach this one or that one.)
    let new = fold.put(0, b"with twins around");
    fold.peer(0).json("POST", &format!("/pins/{new}"));
    let calm = Instant::now();
    while calm.elapsed() < Duration::from_secs(4) {
        let item = fold.peer(0).json("GET", &format!("/pins/{cid}"));
        let all = item["peer_map"].as_object().expect("peer_map").values();
        assert!(all.clone().all(|row| row["status"] == "pinned"), "{item}");
        std::thread::sleep(Duration::from_millis(200));
    }
    for n in [1, 2] {
        let log = fold.peer(n).log();
        assert_eq!(log.matches("has the same identity").count(), 1, "said once: {log}");
    }
    set(&mut fold.kubos[2], &own);
    for n in [1, 2] {
        until("that it is over", || {
            let id = fold.peer(n).json("GET", "/id");
            yes(id["ipfs"]["error"] == "", id.to_string())
        });
    }
    for cid in [&cid, &new] {
        fold.wait_held(cid, &[0, 1, 2]);
    }
}
