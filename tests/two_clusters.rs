//! Two clusters with one secret in one house, and a fresh peer between them: real multicast discovery, on boards of
//! their own network. Nothing merges, and everybody says what it sees.

mod support;

use serde_json::Value;
use support::boards::{Boards, Running};
use support::cluster::{PATIENCE, SECRET};
use support::wait_for;

/// Starts a peer with the common secret, whose discovery asks every second.
fn start(boards: &Boards, n: usize) -> Running {
    boards.start(n, "peer", "CLUSTER_MDNSINTERVAL=1s pinfold daemon")
}

fn health(boards: &Boards, n: usize) -> Value {
    let text = boards.ok(n, "curl -s http://127.0.0.1:9094/health/consensus");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Names peers by id alone, as those of which a fresh peer is to be one.
fn init_peerset(boards: &Boards, n: usize, ids: Value) {
    let file = boards.home(n).join(".pinfold/service.json");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(&file).expect("service.json")).expect("JSON");
    config["consensus"]["raft"]["init_peerset"] = ids;
    std::fs::write(&file, config.to_string()).expect("written");
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_string()
}

#[test]
fn two_clusters_with_one_secret_stay_two_and_a_fresh_peer_does_not_choose() {
    let Some(boards) = Boards::new(3) else { return };
    for n in 1..=3 {
        boards.ok(n, &format!("CLUSTER_SECRET={SECRET} pinfold init"));
    }
    // Each is alone on the network when it is first started: two clusters. Then both are on.
    let mut first = start(&boards, 1);
    first.wait_for(" is ready: ");
    let mut second = start(&boards, 2);
    second.wait_for(" is ready: ");
    let ids = [1, 2].map(|n| text(&health(&boards, n)["cluster_id"]));
    assert_ne!(ids[0], ids[1]);
    for running in [&mut first, &mut second] {
        running.wait_until("a sentence about the other cluster", |log| {
            let line = log.lines().find(|l| l.contains("belongs to another cluster"))?;
            (ids.iter().all(|id| line.contains(id)) && line.contains("pinfold state cleanup")).then_some(())
        });
    }

    // A fresh peer hears of both, and of itself founds no third.
    let mut third = start(&boards, 3);
    let said = third.wait_until("a refusal that names both", |log| {
        let line = log.lines().find(|l| l.contains("it does not guess to which it belongs"))?;
        Some(line.to_string())
    });
    assert!(ids.iter().all(|id| said.contains(id)), "{said}");
    wait_for("its end", PATIENCE, || (!third.is_running()).then_some(()).ok_or_else(String::new));
    // Nor when it is told of a peer of each, by id alone: where they are it hears by multicast.
    let peers = [1, 2].map(|n| health(&boards, n)["members"][0]["peer"].clone());
    init_peerset(&boards, 3, peers.to_vec().into());
    let mut third = start(&boards, 3);
    let said = third.wait_until("a refusal that names both", |log| {
        let line = log.lines().find(|l| l.contains("belong to two clusters"))?;
        Some(line.to_string())
    });
    assert!(ids.iter().all(|id| said.contains(id)), "{said}");
    init_peerset(&boards, 3, Value::Array(Vec::new()));

    // Nothing has merged, and what the sentences say is the way out.
    for n in [1, 2] {
        let health = health(&boards, n);
        assert_eq!(health["members"].as_array().map(Vec::len), Some(1), "{health}");
    }
    let token = boards.ok(1, "pinfold invite");
    let mut third = boards.start(3, "joined", &format!("CLUSTER_MDNSINTERVAL=1s pinfold join {token}"));
    third.wait_for(" 2 member(s)");
    assert_eq!(text(&health(&boards, 3)["cluster_id"]), ids[0]);
}
