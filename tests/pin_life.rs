//! The life of a pin: it waits, is worked on, comes or fails with its reason, gives way to others, goes on after a
//! restart, changes its number of copies, and goes.

mod support;

#[path = "support/fold.rs"]
mod fold;

use fold::{error_of, listed, status_of, Fold, Node, NEVER};
use serde_json::{json, Value};
use std::time::{Duration, Instant};
use support::cluster::{cid_of, ok, Cluster, Peer, PATIENCE};
use support::fake_kubo::{free_port, FakeKubo, Mood, STEPS};
use support::wait_for;

/// A peer over a scripted daemon.
fn over_fake(mood: Mood, change: impl Fn(&mut Value)) -> (Cluster, FakeKubo) {
    let at = free_port();
    let daemon = FakeKubo::start(at, mood);
    let cluster = Cluster::with(1, |_, config| {
        config["cluster"]["pin_recover_interval"] = NEVER.into();
        config["cluster"]["state_sync_interval"] = NEVER.into();
        config["ipfs_connector"] = json!({ "ipfshttp": {
            "node_multiaddress": format!("/ip4/127.0.0.1/tcp/{}", at.port()),
            "pin_timeout": "10m",
        }});
        change(config);
    });
    (cluster, daemon)
}

fn until(what: &str, mut done: impl FnMut() -> Result<(), String>) {
    wait_for(what, PATIENCE, &mut done);
}

/// How many pins of the local list are in each of these statuses.
fn counts<const N: usize>(peer: &Peer, statuses: [&str; N]) -> [usize; N] {
    let all = peer.lines("/pins?local=true");
    statuses.map(|status| all.iter().filter(|item| status_of(item, peer) == status).count())
}

#[test]
fn pins_wait_run_and_come_as_many_at_once_as_are_allowed() {
    let (cluster, daemon) = over_fake(Mood::Slow, |config| {
        config["pin_tracker"]["stateless"]["concurrent_pins"] = 2.into();
    });
    let peer = &cluster.peers[0];
    for n in 0..5 {
        peer.json("POST", &format!("/pins/{}", cid_of(n)));
    }
    until("two at work and three waiting", || match counts(peer, ["pinning", "pin_queued"]) {
        [2, 3] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let queue = peer.json("GET", "/monitor/metrics/pinqueue");
    assert!(queue.is_array(), "{queue}");
    let text = ok(peer.ctl(&["status"]));
    assert!(text.contains("PIN_QUEUED") && text.contains("PINNING"), "{text}");
    for n in 0..5 {
        peer.wait_status(&cid_of(n), "pinned", 1);
    }
    assert_eq!(daemon.most_running(), 2);
}

#[test]
fn a_timeout_counts_from_the_last_progress_and_the_error_says_what_was_waited_for() {
    // Each step comes within the time, all of them do not.
    let limit = STEPS.1 * 3;
    assert!(STEPS.1 * STEPS.0 > limit * 2);
    let (cluster, daemon) = over_fake(Mood::Slow, |config| {
        config["ipfs_connector"]["ipfshttp"]["pin_timeout"] = format!("{}ms", limit.as_millis()).into();
    });
    let peer = &cluster.peers[0];
    peer.json("POST", &format!("/pins/{}", cid_of(1)));
    peer.wait_status(&cid_of(1), "pinned", 1);
    // Signs of life are no progress.
    daemon.turn(Mood::Searching);
    let began = Instant::now();
    peer.json("POST", &format!("/pins/{}", cid_of(2)));
    peer.wait_status(&cid_of(2), "pin_error", 1);
    assert!(began.elapsed() >= limit && began.elapsed() < limit + Duration::from_secs(10));
    let item = peer.json("GET", &format!("/pins/{}", cid_of(2)));
    let error = error_of(&item, peer);
    assert!(
        error.contains("no provider found") && error.contains("1.5s") && error.contains(&cid_of(2)),
        "{error}"
    );
    assert_eq!(item["peer_map"][peer.id()]["attempt_count"], 1, "{item}");
    let text = ok(peer.ctl(&["status", &cid_of(2)]));
    assert!(text.contains("PIN_ERROR") && text.contains("no provider found"), "{text}");
    // It comes as soon as somebody has it, by itself.
    daemon.turn(Mood::Good);
    peer.wait_status(&cid_of(2), "pinned", 1);
}

/// More pins that nobody has than there are workers, and then one that is there.
fn stuck_pins_block_nobody(node: Node) {
    let Some(fold) = Fold::of(2, node, |_, config| {
        config["pin_tracker"]["stateless"]["concurrent_pins"] = 2.into();
        for connector in ["embedded", "ipfshttp"] {
            if let Some(section) = config["ipfs_connector"].get_mut(connector) {
                section["pin_timeout"] = "1h".into();
            }
        }
    }) else {
        return;
    };
    let (peer, stuck) = (fold.peer(0), 8);
    for n in 0..stuck {
        peer.json("POST", &format!("/pins/{}", cid_of(n)));
    }
    until("the workers are busy with what nobody has", || match counts(peer, ["pinning"]) {
        [n] if n >= 2 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let cid = fold.put(1, b"somebody has this");
    let began = Instant::now();
    peer.json("POST", &format!("/pins/{cid}"));
    peer.wait_status(&cid, "pinned", 2);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(45), "{took:?} behind {stuck} pins that nobody has");
    println!("{node:?}: {took:?}");
    // What gave way says so and is tried again.
    let in_error = peer.lines("/pins?local=true&filter=pin_error");
    for item in &in_error {
        assert!(error_of(item, peer).contains("gave way"), "{item}");
    }
    // The second time it is quick: what failed waits behind what was never tried.
    let cid = fold.put(1, b"and this");
    let began = Instant::now();
    peer.json("POST", &format!("/pins/{cid}"));
    peer.wait_status(&cid, "pinned", 2);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn pins_that_nobody_has_block_nobody_in_the_embedded_node() {
    stuck_pins_block_nobody(Node::Embedded);
}

#[test]
fn pins_that_nobody_has_block_nobody_in_kubo() {
    stuck_pins_block_nobody(Node::Kubo);
}

/// Killed with pins at work, in line and failed; what comes of them.
fn a_restart_goes_on(node: Node) {
    let Some(mut fold) = Fold::of(2, node, |_, config| {
        config["pin_tracker"]["stateless"]["concurrent_pins"] = 1.into();
        for connector in ["embedded", "ipfshttp"] {
            if let Some(section) = config["ipfs_connector"].get_mut(connector) {
                section["pin_timeout"] = "2s".into();
            }
        }
    }) else {
        return;
    };
    let missing: Vec<Vec<u8>> = (0..3u8).map(|n| vec![n; 5_000 + n as usize]).collect();
    // Known by their CIDs before anybody has them.
    let cids: Vec<String> = missing.iter().map(|content| only_hash(&fold, content)).collect();
    for cid in &cids {
        fold.peer(0).json("POST", &format!("/pins/{cid}?name=kept"));
    }
    fold.peer(0).wait_status(&cids[0], "pin_error", 2);
    let before = error_of(&fold.peer(1).json("GET", &format!("/pins/{}", cids[0])), fold.peer(1));
    fold.cluster.peers[1].kill();
    fold.cluster.peers[1].start(&["daemon"]);
    let peer = fold.peer(1);
    // Errors are not forgotten, and the rest goes on.
    let item = peer.json("GET", &format!("/pins/{}?local=true", cids[0]));
    let after = error_of(&item, peer);
    let tried = ["pinning", "pin_queued"].contains(&status_of(&item, peer).as_str());
    assert!(after == before || tried, "{before} / {item}");
    for (content, cid) in missing.iter().zip(&cids) {
        assert_eq!(&fold.put(0, content), cid);
    }
    for cid in &cids {
        fold.peer(0).wait_status(cid, "pinned", 2);
    }
}

/// The CID of content that is stored nowhere.
fn only_hash(fold: &Fold, content: &[u8]) -> String {
    match fold.kubos.first() {
        Some(kubo) => kubo.add(content, &["--only-hash"]),
        None => {
            use sha2::Digest;
            let digest = sha2::Sha256::digest(content);
            let hash = multihash::Multihash::<64>::wrap(0x12, &digest).expect("32 bytes");
            cid::Cid::new_v1(0x55, hash).to_string()
        }
    }
}

#[test]
fn a_restart_in_the_middle_goes_on_in_the_embedded_node() {
    a_restart_goes_on(Node::Embedded);
}

#[test]
fn a_restart_in_the_middle_goes_on_in_kubo() {
    a_restart_goes_on(Node::Kubo);
}

/// The peers that the shared list names for a pin, by number; all of them for a pin that is everywhere.
fn allocated(fold: &Fold, cid: &str) -> Vec<usize> {
    let pin = fold.peer(0).json("GET", &format!("/allocations/{cid}"));
    let named: Vec<&str> =
        pin["allocations"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let all = 0..fold.cluster.peers.len();
    let here = |n: &usize| named.is_empty() || named.contains(&fold.peer(*n).id().as_str());
    all.filter(here).collect()
}

/// Copies come and go one by one, and those that stay are those that were there.
fn factors_move_as_little_as_possible(node: Node) {
    let Some(fold) = Fold::of(3, node, |_, _| {}) else { return };
    let cid = fold.put(0, b"copied here and there");
    let set = |factors: &str| {
        let answer = fold.peer(1).json("POST", &format!("/pins/{cid}?{factors}"));
        let held = allocated(&fold, &cid);
        assert!(
            answer["allocations"].as_array().is_some_and(|a| a.len() == held.len() || a.is_empty()),
            "{answer}"
        );
        fold.wait_held(&cid, &held);
        let rest = 3 - held.len();
        fold.peer(2).wait_status(&cid, "pinned", held.len());
        fold.peer(2).wait_status(&cid, "remote", rest);
        held
    };
    let one = set("replication=1");
    assert_eq!(one.len(), 1);
    let two = set("replication=2");
    assert!(two.len() == 2 && one.iter().all(|n| two.contains(n)), "{one:?} {two:?}");
    let three = set("replication=3");
    assert_eq!(three, [0, 1, 2]);
    let two = set("replication-min=1&replication-max=2");
    assert!(two.len() == 2 && one.iter().all(|n| two.contains(n)), "{one:?} {two:?}");
    // Between min and max nothing moves.
    assert_eq!(set("replication-min=2&replication-max=3"), two);
    assert_eq!(set("replication-min=1&replication-max=3"), two);
    let last = set("replication=1");
    assert!(two.contains(&last[0]), "{two:?} {last:?}");
    // Everywhere, and back to one: it is one of those that have it.
    assert_eq!(set("replication=-1"), [0, 1, 2]);
    let back = set("replication=1");
    assert_eq!(back.len(), 1);
    // What cannot be is refused, and changes nothing.
    for bad in
        ["replication=4", "replication-min=3&replication-max=2", "replication-min=-1&replication-max=2"]
    {
        let (status, body) = fold.peer(0).request("POST", &format!("/pins/{cid}?{bad}")).expect("an answer");
        assert!((400..=500).contains(&status), "{bad}: {status} {body}");
    }
    assert_eq!(allocated(&fold, &cid), back);
    fold.wait_held(&cid, &back);
    let cat = fold.peer(back[0]).ctl(&["cat", &cid]);
    assert_eq!(String::from_utf8_lossy(&cat.stdout), "copied here and there");
}

#[test]
fn factors_move_as_little_as_possible_in_the_embedded_node() {
    factors_move_as_little_as_possible(Node::Embedded);
}

#[test]
fn factors_move_as_little_as_possible_in_kubo() {
    factors_move_as_little_as_possible(Node::Kubo);
}

#[test]
fn of_several_holders_those_stay_that_really_have_it() {
    let daemons: Vec<_> =
        (0..2).map(|_| free_port()).map(|at| (at, FakeKubo::start(at, Mood::Good))).collect();
    let cluster = Cluster::with(2, |i, config| {
        config["cluster"]["pin_recover_interval"] = NEVER.into();
        config["ipfs_connector"] = json!({ "ipfshttp": {
            "node_multiaddress": format!("/ip4/127.0.0.1/tcp/{}", daemons[i].0.port()),
            "connect_swarms_delay": "0s",
        }});
    });
    let cid = cid_of(1);
    for (good, bad) in [(0, 1), (1, 0)] {
        daemons[bad].1.turn(Mood::TrailerError);
        let pin = cluster.peers[0].json("POST", &format!("/pins/{cid}?replication=2"));
        assert_eq!(pin["allocations"].as_array().map(Vec::len), Some(2), "{pin}");
        cluster.peers[0].wait_status(&cid, "pinned", 1);
        cluster.peers[0].wait_status(&cid, "pin_error", 1);
        let pin = cluster.peers[0].json("POST", &format!("/pins/{cid}?replication=1"));
        assert_eq!(pin["allocations"], json!([cluster.peers[good].id()]));
        cluster.peers[0].wait_status(&cid, "pinned", 1);
        assert!(daemons[good].1.pins().contains(&cid));
        daemons[bad].1.turn(Mood::Good);
        cluster.peers[0].json("DELETE", &format!("/pins/{cid}"));
        cluster.peers[0].wait_status(&cid, "unpinned", 2);
    }
}

#[test]
fn a_short_queue_keeps_the_rest_on_disk_and_loses_nothing() {
    let (cluster, daemon) = over_fake(Mood::Searching, |config| {
        config["pin_tracker"]["stateless"]["max_pin_queue_size"] = 3.into();
        config["pin_tracker"]["stateless"]["concurrent_pins"] = 1.into();
        config["informer"]["pinqueue"] = json!({"metric_ttl": "2s", "weight_bucket_size": 1});
    });
    let peer = &cluster.peers[0];
    for n in 0..20 {
        peer.json("POST", &format!("/pins/{}", cid_of(n)));
    }
    // All are accounted for, in memory or not.
    until("twenty on their way", || match counts(peer, ["pinning", "pin_queued", "pin_error"]) {
        [a, b, c] if a + b + c == 20 && a > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    daemon.turn(Mood::Good);
    daemon.hang_up();
    for n in 0..20 {
        peer.wait_status(&cid_of(n), "pinned", 1);
    }
}

#[test]
fn what_is_young_and_did_not_fail_often_has_priority() {
    let lone = |age: &'static str, retries: u32| {
        over_fake(Mood::Searching, move |config| {
            config["pin_tracker"]["stateless"]["concurrent_pins"] = 1.into();
            config["pin_tracker"]["stateless"]["priority_pin_max_age"] = age.into();
            config["pin_tracker"]["stateless"]["priority_pin_max_retries"] = retries.into();
            config["ipfs_connector"]["ipfshttp"]["pin_timeout"] = "1s".into();
        })
    };
    let priority = |peer: &Peer, cid: &str| {
        peer.json("GET", &format!("/pins/{cid}"))["peer_map"][peer.id()]["priority_pin"] == true
    };
    let first = cid_of(0);
    let (young, _a) = lone("24h", 5);
    young.peers[0].json("POST", &format!("/pins/{first}"));
    until("a young pin with priority", || match priority(&young.peers[0], &first) {
        true => Ok(()),
        false => Err("not yet".into()),
    });
    // Older than allowed as soon as it is there.
    let (old, _b) = lone("1ms", 5);
    let peer = &old.peers[0];
    peer.json("POST", &format!("/pins/{first}"));
    until("an old pin at work", || match listed(peer, &first).as_str() {
        "pinning" if !priority(peer, &first) => Ok(()),
        other => Err(other.to_string()),
    });
    // Failed more often than allowed: asked again by hand, it is one among many.
    let (failed, _c) = lone("24h", 1);
    let peer = &failed.peers[0];
    peer.json("POST", &format!("/pins/{first}"));
    for attempt in 1..=2 {
        until("a failure", || {
            let item = peer.json("GET", &format!("/pins/{first}"));
            let mine = &item["peer_map"][peer.id()];
            match mine["status"] == "pin_error" && mine["attempt_count"] == attempt {
                true => Ok(()),
                false => Err(item.to_string()),
            }
        });
        peer.json("POST", &format!("/pins/{first}/recover"));
    }
    until("a failed pin at work", || match listed(peer, &first).as_str() {
        "pinning" if !priority(peer, &first) => Ok(()),
        other => Err(other.to_string()),
    });
}

#[test]
fn unpinning_can_be_refused() {
    let Some(fold) = Fold::of(1, Node::Kubo, |_, config| {
        config["ipfs_connector"]["ipfshttp"]["unpin_disable"] = true.into();
    }) else {
        return;
    };
    let cid = fold.put(0, b"for ever");
    fold.peer(0).json("POST", &format!("/pins/{cid}"));
    fold.peer(0).wait_status(&cid, "pinned", 1);
    ok(fold.peer(0).ctl(&["pin", "rm", "--no-status", &cid]));
    fold.peer(0).wait_status(&cid, "unpin_error", 1);
    let item = fold.peer(0).json("GET", &format!("/pins/{cid}"));
    assert!(error_of(&item, fold.peer(0)).contains("unpin_disable"), "{item}");
    assert!(fold.kubos[0].has_pinned(&cid, "recursive"));
    assert!(fold.peer(0).pinned_cids().is_empty());
    // Unpinned by hand, it is settled.
    fold.kubos[0].ok(&["pin", "rm", &cid]);
    let item = fold.peer(0).json("POST", &format!("/pins/{cid}/sync"));
    assert_eq!(status_of(&item, fold.peer(0)), "unpinned", "{item}");
}

/// The same block by a CID that calls it something else.
fn as_folder(cid: &str) -> String {
    let cid: cid::Cid = cid.parse().expect("a CID");
    cid::Cid::new_v1(0x70, *cid.hash()).to_string()
}

fn errors_tell_their_cause(node: Node) {
    let Some(fold) = Fold::of(1, node, |_, config| {
        for connector in ["embedded", "ipfshttp"] {
            if let Some(section) = config["ipfs_connector"].get_mut(connector) {
                section["pin_timeout"] = "1s".into();
            }
        }
    }) else {
        return;
    };
    let peer = fold.peer(0);
    let error = |cid: &str| {
        peer.json("POST", &format!("/pins/{cid}"));
        peer.wait_status(cid, "pin_error", 1);
        error_of(&peer.json("GET", &format!("/pins/{cid}")), peer)
    };
    let nobody = error(&cid_of(1));
    assert!(nobody.contains("no provider found") && nobody.contains("start or connect"), "{nobody}");
    let words = error(&as_folder(&fold.put(0, b"these are words and no folder")));
    assert!(words.contains("the content is not what its CID says"), "{words}");
    // Tried again, they fail again, and the attempts are counted.
    for cid in [cid_of(1), as_folder(&fold.put(0, b"these are words and no folder"))] {
        ok(peer.ctl(&["recover", &cid]));
        until("the second failure", || {
            let item = peer.json("GET", &format!("/pins/{cid}"));
            let mine = &item["peer_map"][peer.id()];
            match mine["status"] == "pin_error" && mine["attempt_count"].as_u64() >= Some(2) {
                true => Ok(()),
                false => Err(item.to_string()),
            }
        });
    }
}

#[test]
fn errors_tell_their_cause_in_the_embedded_node() {
    errors_tell_their_cause(Node::Embedded);
}

#[test]
fn errors_tell_their_cause_in_kubo() {
    errors_tell_their_cause(Node::Kubo);
}

#[test]
fn a_pin_beyond_the_storage_limit_says_so_and_comes_when_there_is_room() {
    const LIMIT: u64 = 10_000_000;
    let Some(fold) = Fold::of(2, Node::Embedded, |i, config| {
        if i == 1 {
            config["ipfs_connector"]["embedded"]["storage_max"] = "10MB".into();
        }
    }) else {
        return;
    };
    let content = |seed: u32| -> Vec<u8> {
        (0..LIMIT as u32 / 6).flat_map(|n| (n.wrapping_mul(2_654_435_761) ^ seed).to_le_bytes()).collect()
    };
    let (first, second) = (fold.put(0, &content(1)), fold.put(0, &content(2)));
    fold.peer(0).json("POST", &format!("/pins/{first}"));
    fold.peer(0).wait_status(&first, "pinned", 2);
    fold.peer(0).json("POST", &format!("/pins/{second}"));
    fold.peer(0).wait_status(&second, "pin_error", 1);
    let error = error_of(&fold.peer(0).json("GET", &format!("/pins/{second}")), fold.peer(1));
    assert!(error.contains("full") && error.contains("storage_max"), "{error}");
    fold.peer(0).json("DELETE", &format!("/pins/{first}"));
    fold.peer(0).wait_status(&first, "unpinned", 2);
    ok(fold.peer(1).ctl(&["ipfs", "gc", "--local"]));
    ok(fold.peer(1).ctl(&["recover"]));
    fold.peer(0).wait_status(&second, "pinned", 2);
}
