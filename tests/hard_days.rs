//! The days that end other clusters, with real processes: a re-flashed card under load (a follower's, the leader's, one
//! whose identity is lost too), more peers than votes, a peer that returns after its removal, and founding sets of which
//! not everybody is fresh.

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use support::cluster::{cid_of, ok, Cluster, Peer, PATIENCE, SECRET};
use support::wait_for;

/// Acknowledged writes without which a run under load was too quiet to show anything.
const FEWEST_WRITES: usize = 20;
/// Between two writes of one writer: the processes of a debug build share this machine with their writers.
const PACE: Duration = Duration::from_millis(10);

/// The members of a role, as this peer knows them.
fn members_of(peer: &Peer, role: &str) -> BTreeSet<String> {
    let health = peer.consensus();
    let members = health["members"].as_array().expect("members").iter();
    members.filter(|m| m["role"] == role).map(|m| m["peer"].as_str().expect("id").to_string()).collect()
}

/// Raft ids by peer.
fn raft_id(at: &Peer, of: &str) -> Option<String> {
    let health = at.consensus();
    let members = health["members"].as_array().expect("members").iter();
    let mut ids = members.filter(|m| m["peer"] == of).map(|m| m["raft_id"].as_str().expect("id").to_string());
    let id = ids.next();
    assert_eq!(ids.next(), None, "one peer, one Raft id: {health}");
    id
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn refused(peer: &mut Peer, code: i32) -> String {
    let (status, _) = peer.wait_end();
    let log = peer.log();
    assert_eq!(status.code(), Some(code), "{log}");
    log
}

/// Content that is in its own CID, so that every peer has it: what is written under load keeps nobody waiting.
fn inline(n: u64) -> String {
    let text = format!("written under load: {n}");
    let hash = multihash::Multihash::wrap(0, text.as_bytes()).expect("a short text");
    cid::Cid::new_v1(0x55, hash).to_string()
}

/// Writers that never stop, each at one peer; what was acknowledged must be there at the end.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(peers: &[&Peer]) -> Load {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let next = Arc::new(AtomicU64::new(10_000));
        let threads = peers
            .iter()
            .map(|peer| {
                let (url, stop) = (peer.url(), stop.clone());
                let (next, acknowledged) = (next.clone(), acknowledged.clone());
                std::thread::spawn(move || {
                    let limit = Some(Duration::from_secs(5));
                    let agent: ureq::Agent =
                        ureq::Agent::config_builder().timeout_global(limit).build().into();
                    while !stop.load(Ordering::Relaxed) {
                        let cid = inline(next.fetch_add(1, Ordering::Relaxed));
                        if agent.post(format!("{url}/pins/{cid}")).send_empty().is_ok() {
                            acknowledged.lock().expect("a list").push(cid);
                        }
                        std::thread::sleep(PACE);
                    }
                })
            })
            .collect();
        Load { stop, acknowledged, threads }
    }

    /// So many writes more than now go through.
    fn goes_on(&self, what: &str) {
        let count = || self.acknowledged.lock().expect("a list").len();
        let before = count();
        wait_for(what, PATIENCE, || (count() >= before + 5).then_some(()).ok_or_else(|| count().to_string()));
    }

    /// Ends it; every acknowledged pin must be on each of these.
    fn end(self, peers: &[&Peer]) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|t| t.join().expect("a writer"));
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().expect("a list"));
        eprintln!("under load: {} acknowledged writes", acknowledged.len());
        assert!(acknowledged.len() >= FEWEST_WRITES, "too quiet: {}", acknowledged.len());
        for peer in peers {
            wait_for("every acknowledged pin", PATIENCE, || {
                let there: BTreeSet<String> = peer.pinned_cids().into_iter().collect();
                let lost: Vec<&String> = acknowledged.iter().filter(|c| !there.contains(*c)).collect();
                lost.is_empty()
                    .then_some(())
                    .ok_or_else(|| format!("{} of {}: {lost:?}", lost.len(), peer.path()))
            });
        }
    }
}

/// Three peers, two copies by default, quick failover.
fn three() -> Cluster {
    Cluster::with(3, |_, config| {
        config["cluster"]["replication_factor_min"] = 1.into();
        config["cluster"]["replication_factor_max"] = 2.into();
        config["cluster"]["disable_repinning"] = false.into();
        // Longer than the test: what the returning card holds again is what it held before.
        config["cluster"]["repin_grace"] = "10m".into();
        // Pins of what nobody has must not keep waiting what somebody has.
        config["ipfs_connector"]["embedded"]["pin_timeout"] = "5s".into();
        config["pin_tracker"]["stateless"]["concurrent_pins"] = 500.into();
        config["consensus"]["raft"]["heartbeat_timeout"] = "200ms".into();
        config["consensus"]["raft"]["election_timeout"] = "1s".into();
    })
}

/// Adds content that `holders` are to hold; its CID.
fn add_at(cluster: &Cluster, at: usize, holders: &[usize], text: &str) -> String {
    let file = cluster.path(&format!("{}.txt", text.replace(' ', "-")));
    std::fs::write(&file, text.repeat(1_000)).expect("file");
    let ids: Vec<String> = holders.iter().map(|i| cluster.peers[*i].id()).collect();
    let n = holders.len().to_string();
    let file = file.to_str().expect("UTF-8");
    let ids = ids.join(",");
    let flags = ["add", "-Q", "--rmin", &n, "--rmax", &n, "--allocations", &ids, file];
    let cid = ok(cluster.peers[at].ctl(&flags)).trim().to_string();
    cluster.peers[at].wait_status(&cid, "pinned", holders.len());
    cid
}

/// The card dies; on a new one there is nothing but the identity, which was kept elsewhere. Gives the new folder.
fn reflash(cluster: &mut Cluster, victim: usize, name: &str) -> PathBuf {
    let kept =
        std::fs::read(cluster.peers[victim].folder.join("identity.json")).expect("a copy of identity.json");
    cluster.peers[victim].kill();
    std::fs::remove_dir_all(&cluster.peers[victim].folder).expect("the old card");
    let folder = cluster.path(name);
    std::fs::create_dir(&folder).expect("a new card");
    std::fs::write(folder.join("identity.json"), kept).expect("the identity put back");
    folder
}

#[test]
fn a_reflashed_card_comes_back_under_its_old_identity_while_others_write() {
    let mut cluster = three();
    for round in 0..2 {
        // A follower first, then whoever leads.
        let leader = cluster.leader();
        let victim = if round == 0 { (leader + 1) % 3 } else { leader };
        let others: Vec<usize> = (0..3).filter(|i| *i != victim).collect();
        // It was started a moment ago in the round before, and allocates to whom it has heard of.
        cluster.peers[others[0]].wait_candidates(3);
        let cid = add_at(&cluster, others[0], &[victim, others[0]], &format!("round {round}"));
        let id = cluster.peers[victim].id();
        let before = raft_id(&cluster.peers[others[0]], &id).expect("a member");
        let token = ok(cluster.peers[others[0]].ctl(&["invite"]));
        let load = Load::on(&[&cluster.peers[others[0]], &cluster.peers[others[1]]]);
        load.goes_on("writes before the card dies");

        let folder = reflash(&mut cluster, victim, &format!("card{round}"));
        load.goes_on("writes while it is gone");
        let mut back = Peer::init(folder, &format!("p{victim}"), SECRET);
        assert_eq!(back.id(), id, "init keeps an identity that is there");
        back.start(&["join", token.trim()]);
        cluster.peers[victim] = back;
        load.goes_on("writes after its return");

        cluster.peers[others[0]].wait_voters(3);
        for peer in &cluster.peers {
            peer.wait_members(3);
            let now = raft_id(peer, &id).expect("a member");
            assert_ne!(now, before, "a new data folder has a new Raft id, and the old one is gone");
        }
        // What is allocated to it is fetched again, and served from there.
        cluster.peers[others[1]].wait_status(&cid, "pinned", 2);
        let pin = cluster.peers[victim].json("GET", &format!("/allocations/{cid}"));
        assert!(pin["allocations"].to_string().contains(&id), "{pin}");
        cluster.peers[others[0]].kill();
        assert!(ok(cluster.peers[victim].ctl(&["cat", &cid])).starts_with("round"));
        cluster.peers[others[0]].start(&["daemon"]);
        cluster.peers[others[0]].wait_members(3);
        load.end(&cluster.peers.iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_reflashed_card_without_its_identity_is_a_new_peer_and_the_old_one_is_removed() {
    let mut cluster = three();
    let cid = add_at(&cluster, 0, &[1, 2], "two copies");
    let lost = cluster.peers[2].id();
    let folder = reflash(&mut cluster, 2, "card");
    std::fs::remove_file(folder.join("identity.json")).expect("no copy was kept");
    let mut new = Peer::init(folder, "p2", SECRET);
    assert_ne!(new.id(), lost);
    let token = ok(cluster.peers[0].ctl(&["invite"]));
    new.start(&["join", token.trim()]);
    cluster.peers[2] = new;
    cluster.peers.iter().for_each(|p| p.wait_members(4));
    cluster.peers[0].wait_candidates(3);
    // Until then it counts as a voter that is dead.
    ok(cluster.peers[0].ctl(&["peers", "rm", &lost]));
    cluster.peers.iter().for_each(|p| p.wait_members(3));
    cluster.peers[0].wait_voters(3);
    wait_for("two copies again", PATIENCE, || {
        let info = cluster.peers[0].json("GET", &format!("/pins/{cid}"));
        let map = info["peer_map"].as_object().expect("peer_map");
        let pinned = map.values().filter(|p| p["status"] == "pinned").count();
        (pinned == 2 && !map.contains_key(&lost)).then_some(()).ok_or_else(|| info.to_string())
    });
}

#[test]
fn of_nine_peers_seven_vote_and_a_learner_takes_the_place_of_one_that_is_removed() {
    let mut cluster = Cluster::with(9, |_, config| {
        // Nine processes of a debug build share this machine: a hasty election would only disturb.
        config["consensus"]["raft"]["heartbeat_timeout"] = "400ms".into();
        config["consensus"]["raft"]["election_timeout"] = "2s".into();
        config["cluster"]["disable_repinning"] = false.into();
        config["cluster"]["repin_grace"] = "1s".into();
    });
    cluster.peers[0].wait_voters(7);
    let learners = members_of(&cluster.peers[0], "learner");
    assert_eq!(learners.len(), 2);
    let listed = ok(cluster.peers[0].ctl(&["peers", "ls"]));
    assert_eq!(listed.matches("  > Role: learner (holds content, does not vote)\n").count(), 2, "{listed}");

    // A learner does all but vote: it serves, forwards writes, is allocated pins and holds them.
    let of = |cluster: &Cluster, id: &str| cluster.peers.iter().position(|p| p.id() == id).expect("a peer");
    let learner = of(&cluster, learners.first().expect("one"));
    assert_eq!(cluster.peers[learner].json("GET", "/id")["role"], "learner");
    let cid = add_at(&cluster, learner, &[learner], "on a learner");
    assert!(ok(cluster.peers[(learner + 1) % 9].ctl(&["cat", &cid])).starts_with("on a learner"));
    let (code, body) = cluster.peers[learner]
        .request("GET", &format!("/allocations/{cid}?consistency=strong"))
        .expect("an answer");
    assert_eq!(code, 200, "{body}");

    // A follower that votes dies and is removed, then the leader: each time a learner takes the place.
    for (round, left) in [(0, 1), (1, 0)] {
        let leader = cluster.leader();
        let voters = members_of(&cluster.peers[learner], "voter");
        let victim = match round {
            0 => {
                (0..9).find(|i| *i != leader && voters.contains(&cluster.peers[*i].id())).expect("a follower")
            }
            _ => leader,
        };
        let id = cluster.peers[victim].id();
        cluster.peers[victim].kill();
        wait_for("the removal", PATIENCE, || {
            let output = cluster.peers[learner].ctl(&["peers", "rm", &id]);
            output.status.success().then_some(()).ok_or_else(|| words(&output))
        });
        // The learner may hear of it a moment later.
        wait_for("a learner in its place", PATIENCE, || {
            let (voters, learners) =
                ["voter", "learner"].map(|r| members_of(&cluster.peers[learner], r)).into();
            let done = voters.len() == 7 && learners.len() == left && !voters.contains(&id);
            done.then_some(()).ok_or_else(|| format!("{voters:?} {learners:?}"))
        });
    }
    let (code, body) =
        cluster.peers[learner].request("POST", &format!("/pins/{}", cid_of(1))).expect("an answer");
    assert_eq!(code, 200, "{body}");
}

#[test]
fn a_peer_returns_after_its_removal_when_somebody_wants_it() {
    let mut cluster = three();
    let cid = add_at(&cluster, 0, &[0, 2], "shared");
    let id = cluster.peers[2].id();
    let before = raft_id(&cluster.peers[0], &id).expect("a member");
    ok(cluster.peers[0].ctl(&["peers", "rm", &id]));
    let log = refused(&mut cluster.peers[2], 5);
    assert!(log.contains("this peer was removed from the cluster") && log.contains("pinfold join"), "{log}");
    let note = std::fs::read_to_string(cluster.peers[2].folder.join("removed")).expect("a note");
    assert!(note.contains("removed from the cluster "), "{note}");
    assert!(cluster.peers[2].folder.join("raft.old.0").exists(), "its data was put aside, not deleted");
    // As systemd would have it, and as its file would: it stays away.
    for _ in 0..2 {
        cluster.peers[2].spawn(&["daemon"]);
        let log = refused(&mut cluster.peers[2], 5);
        assert!(
            log.contains("does not come back by itself: let it in again with `pinfold join TOKEN`"),
            "{log}"
        );
    }
    assert_eq!(cluster.peers[0].consensus()["members"].as_array().expect("members").len(), 2);
    // Somebody wants it.
    let token = ok(cluster.peers[0].ctl(&["invite"]));
    cluster.peers[2].start(&["join", token.trim()]);
    cluster.peers.iter().for_each(|p| p.wait_members(3));
    cluster.peers[0].wait_voters(3);
    assert_ne!(raft_id(&cluster.peers[0], &id), Some(before));
    assert!(!cluster.peers[2].folder.join("removed").exists());
    assert!(ok(cluster.peers[2].ctl(&["cat", &cid])).starts_with("shared"));
    cluster.peers[2].stop();
    cluster.peers[2].start(&["daemon"]);
    cluster.peers[2].wait_members(3);
}

/// Peers that are not started, and what a list of all of them looks like.
fn set(folder: &std::path::Path, n: usize) -> (Vec<Peer>, Value) {
    let peers: Vec<Peer> =
        (0..n).map(|i| Peer::init(folder.join(format!("s{i}")), &format!("s{i}"), SECRET)).collect();
    let list = peers.iter().map(|p| Value::from(p.address())).collect();
    (peers, list)
}

fn give_list(peers: &[Peer], list: &Value) {
    for peer in peers {
        peer.edit(|config| {
            config["cluster"]["peers"] = list.clone();
            config["consensus"]["raft"]["wait_for_leader_timeout"] = "60s".into();
        });
    }
}

fn cluster_id(peer: &Peer) -> Value {
    peer.consensus()["cluster_id"].clone()
}

#[test]
fn a_founding_set_joins_the_one_of_it_that_has_a_cluster_already() {
    let folder = tempfile::tempdir().expect("a folder");
    for order in [[1, 0, 2], [2, 1, 0], [0, 1, 2]] {
        let place = folder.path().join(format!("{}{}{}", order[0], order[1], order[2]));
        std::fs::create_dir(&place).expect("a folder");
        let (mut peers, list) = set(&place, 3);
        // The first ran alone, with a pin.
        peers[0].start(&["daemon"]);
        peers[0].json("POST", &format!("/pins/{}", cid_of(1)));
        let cluster = cluster_id(&peers[0]);
        peers[0].stop();
        give_list(&peers, &list);
        for n in order {
            peers[n].spawn(&["daemon"]);
        }
        peers.iter_mut().for_each(Peer::wait_ready);
        for peer in &peers {
            peer.wait_members(3);
            assert_eq!(cluster_id(peer), cluster, "nobody founded another one");
            wait_for("the pin", PATIENCE, || {
                let pins = peer.pinned_cids();
                (pins == [cid_of(1)]).then_some(()).ok_or_else(|| format!("{pins:?}"))
            });
        }
    }
}

#[test]
fn a_founding_set_of_five_joins_the_two_of_it_that_are_a_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut peers, list) = set(folder.path(), 5);
    peers[3].start(&["daemon"]);
    let through = peers[3].address();
    peers[4].start(&["daemon", "--bootstrap", &through]);
    peers[3].wait_voters(2);
    let cluster = cluster_id(&peers[3]);
    peers[3].kill();
    peers[4].kill();
    for peer in &mut peers[..3] {
        peer.edit(|config| {
            config["cluster"]["peers"] = list.clone();
            config["consensus"]["raft"]["wait_for_leader_timeout"] = "60s".into();
        });
    }
    // Two that are fresh are too few to found anything; with the third come those that have data.
    peers[0].spawn(&["daemon"]);
    peers[1].spawn(&["daemon"]);
    wait_for("a wait for the others", PATIENCE, || {
        let log = peers[1].log();
        log.contains("2 of the 5 peers in cluster.peers are here, 3 are needed").then_some(()).ok_or(log)
    });
    peers[4].spawn(&["daemon"]);
    peers[3].spawn(&["daemon"]);
    peers[2].spawn(&["daemon"]);
    peers.iter_mut().for_each(Peer::wait_ready);
    for peer in &peers {
        peer.wait_members(5);
        assert_eq!(cluster_id(peer), cluster);
    }
}

#[test]
fn a_founding_set_with_one_of_another_cluster_is_refused_with_both_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut peers, list) = set(folder.path(), 3);
    // Two of the set found while the third is away; it has a cluster of its own, with a pin.
    peers[2].start(&["daemon"]);
    peers[2].json("POST", &format!("/pins/{}", cid_of(7)));
    let other = cluster_id(&peers[2]);
    peers[2].stop();
    give_list(&peers, &list);
    peers[0].spawn(&["daemon"]);
    peers[1].spawn(&["daemon"]);
    peers[..2].iter_mut().for_each(Peer::wait_ready);
    let ours = cluster_id(&peers[0]);
    assert_ne!(ours, other);
    peers[2].spawn(&["daemon"]);
    let log = refused(&mut peers[2], 5);
    for id in [&ours, &other] {
        assert!(log.contains(id.as_str().expect("text")), "{id} in {log}");
    }
    assert!(log.contains("state cleanup"), "{log}");
    // Neither took anything from the other.
    assert!(peers[0].pinned_cids().is_empty());
    assert_eq!(peers[0].consensus()["members"].as_array().expect("members").len(), 2);
    let export = ok(peers[2].ctl(&["state", "export"]));
    assert!(export.contains(&cid_of(7)), "{export}");
    // A fresh one between two clusters does not choose either.
    peers[2].edit(|config| {
        config["cluster"].as_object_mut().expect("cluster").remove("peers");
    });
    peers[2].start(&["daemon"]);
    let mut fresh = Peer::init(folder.path().join("fresh"), "fresh", SECRET);
    let both: Value = [&peers[0], &peers[1], &peers[2]].map(|p| Value::from(p.address())).to_vec().into();
    fresh.edit(|config| config["cluster"]["peers"] = both);
    fresh.spawn(&["daemon"]);
    let log = refused(&mut fresh, 5);
    assert!(log.contains("belong to two clusters"), "{log}");
    for id in [&ours, &other] {
        assert!(log.contains(id.as_str().expect("text")), "{id} in {log}");
    }
}
