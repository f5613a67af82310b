//! A peer that is a moment behind refuses nothing, and leaves nothing out, for a pin that is no more or is not there yet.

#[path = "support/http.rs"]
mod http;
mod support;

use http::{send, Answer};
use serde_json::Value;
use std::net::SocketAddr;
use support::cluster::{cid_of, ok, Cluster, Peer};

/// How often the peer is caught napping; each time several requests race with what it missed.
const ROUNDS: u64 = 8;

/// What the cluster has, as of now.
fn pin(peer: &Peer, cid: &str) -> Option<Value> {
    let (status, body) =
        peer.request("GET", &format!("/allocations/{cid}?consistency=strong")).expect("an answer");
    (status == 200).then(|| serde_json::from_str(&body).expect("JSON"))
}

#[test]
fn what_others_did_a_moment_ago_decides() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let (leader, behind) = (&cluster.peers[leader], &cluster.peers[(leader + 1) % 3]);
    let file = cluster.path("file");
    std::fs::write(&file, "content that every peer has").expect("file");
    let held = ok(leader.ctl(&["add", "-Q", file.to_str().expect("UTF-8")])).trim().to_owned();
    leader.wait_status(&held, "pinned", 3);
    for round in 0..ROUNDS {
        let [listed, direct, kubos, old, new] = [0, 1, 2, 3, 4].map(|n| cid_of(10 * round + n));
        for cid in [&listed, &direct, &kubos] {
            behind.json("POST", &format!("/pins/{cid}"));
        }
        behind.signal("STOP");
        for cid in [&listed, &direct, &kubos, &held] {
            leader.json("DELETE", &format!("/pins/{cid}"));
        }
        leader.json("POST", &format!("/pins/{old}?name=old"));
        // They wait in the queues of its sockets, beside what the leader has told it meanwhile.
        let ask = |to: SocketAddr, path: String, body: &str| -> std::thread::JoinHandle<Answer> {
            let body = body.as_bytes().to_vec();
            std::thread::spawn(move || send(to, "POST", &path, &[], Some(&body)).expect("an answer"))
        };
        let list = ask(behind.rest(), "/pins".into(), &listed);
        let others = [
            ask(behind.rest(), format!("/pins/{direct}?mode=direct"), ""),
            ask(behind.rest(), format!("/pins/{new}?pin-update={old}"), ""),
            ask(behind.proxy(), format!("/api/v0/pin/add?arg={kubos}&recursive=false"), ""),
            ask(behind.proxy(), format!("/api/v0/pin/add?arg={held}&progress=true"), ""),
        ];
        behind.signal("CONT");
        let done: Value = serde_json::from_slice(&list.join().expect("answered").body).expect("JSON");
        assert_eq!((&done["added"], &done["unchanged"]), (&1.into(), &0.into()), "round {round}: {done}");
        for answer in others {
            let answer = answer.join().expect("answered");
            assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        }
        for cid in [&listed, &direct, &kubos, &held] {
            assert!(pin(leader, cid).is_some(), "round {round}: {cid} is pinned");
        }
        assert_eq!(pin(leader, &new).expect("updated")["name"], "old");
    }
}
