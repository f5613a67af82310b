//! A board that has been running alone and then joins others: what it gives up, what it keeps, what comes back when the
//! joining fails, and what a power cut in the middle must not lead to. And a peer that listens to its own machine only.

mod support;

use pinfold::config::{Invite, Secret};
use std::io::Write;
use std::process::Stdio;
use support::cluster::{cid_of, ok, pinfold, Cluster, Peer, PATIENCE};
use support::wait_for;

/// A peer that has founded a cluster of its own, stopped again.
fn alone(cluster: &Cluster, pins: u64) -> Peer {
    let mut peer = Peer::fresh(cluster.path("alone"));
    // It stops and comes back, while other tests look for free ports.
    ok(peer.ctl(&["init", "--loopback", "--randomports"]));
    peer.start(&["up", "--loopback"]);
    for n in 0..pins {
        peer.json("POST", &format!("/pins/{}", cid_of(n)));
    }
    assert!(peer.stop().0.success(), "{}", peer.log());
    peer
}

fn token(cluster: &Cluster) -> String {
    ok(cluster.peers[0].ctl(&["invite"])).trim().to_owned()
}

/// A token for the same place with a secret that nobody there has.
fn useless(cluster: &Cluster) -> String {
    let peers = vec![cluster.peers[0].address().parse().expect("address")];
    let secret = Secret::random().expect("secret");
    Invite { secret, cluster_id: 0, cluster_name: String::new(), peers }.to_token().expect("token")
}

/// Runs to the end; whether it ended well, and what was said.
fn run(peer: &mut Peer, args: &[&str]) -> (bool, String) {
    peer.spawn(args);
    let (status, _) = peer.wait_end();
    (status.success(), peer.log())
}

#[test]
fn an_empty_cluster_of_ones_own_gives_way_by_one_command() {
    let cluster = Cluster::of(1);
    let mut peer = alone(&cluster, 0);
    let (id, before) = (peer.id(), peer.config());
    let (well, said) = run(&mut peer, &["join", &token(&cluster), "--once"]);
    assert!(well, "{said}");
    assert!(said.contains("2 member(s)"), "{said}");
    let after = peer.config();
    assert_eq!(after["cluster"]["secret"], cluster.peers[0].config()["cluster"]["secret"]);
    assert_ne!(after["cluster"]["secret"], before["cluster"]["secret"]);
    assert!(
        after["cluster"].get("bootstrap").is_none_or(|b| b.as_array().is_none_or(Vec::is_empty)),
        "{after}"
    );
    // The others are on this machine, too: nothing was opened.
    assert_eq!(after["cluster"]["listen_multiaddress"], before["cluster"]["listen_multiaddress"]);
    assert_eq!(peer.id(), id);
    assert!(peer.folder.join("raft.old.0/state").is_dir(), "the old data is kept");
    peer.start(&["up", "--loopback"]);
    peer.wait_members(2);
    cluster.peers[0].wait_members(2);
    // Again, as a person would who is not sure: nothing happens.
    assert!(peer.stop().0.success());
    let (well, said) = run(&mut peer, &["join", &token(&cluster), "--once"]);
    assert!(well, "{said}");
    assert!(!peer.folder.join("raft.old.1").exists());
}

#[test]
fn a_cluster_with_pins_is_given_up_only_when_told_so_and_one_with_members_never() {
    let cluster = Cluster::of(1);
    let mut peer = alone(&cluster, 3);
    let invitation = token(&cluster);
    let before = peer.config();
    let (well, said) = run(&mut peer, &["join", &invitation, "--once"]);
    assert!(!well && said.contains("which holds 3 pin(s)") && said.contains("--force"), "{said}");
    assert_eq!(peer.config(), before);
    let (well, said) = run(&mut peer, &["join", &invitation, "--once", "--force"]);
    assert!(well, "{said}");
    // Now it has company, and is not to be lured away.
    let mut other = Peer::init(cluster.path("other"), "other", &"f".repeat(64));
    other.start(&["daemon"]);
    let lure = ok(other.ctl(&["invite"]));
    let (well, said) = run(&mut peer, &["join", lure.trim(), "--once", "--force"]);
    assert!(!well && said.contains("with 1 other(s)") && said.contains("peers rm"), "{said}");
    peer.start(&["up"]);
    peer.wait_members(2);
    assert!(peer.pinned_cids().is_empty(), "the pins of the cluster that was given up");
}

#[test]
fn what_was_given_up_comes_back_when_the_joining_fails() {
    let cluster = Cluster::of(1);
    let mut peer = alone(&cluster, 2);
    let before = peer.config();
    let (well, said) = run(&mut peer, &["join", &useless(&cluster), "--once", "--force"]);
    assert!(!well && said.contains("could not join") && said.contains("as it was"), "{said}");
    assert_eq!(peer.config(), before);
    peer.start(&["up"]);
    assert_eq!(peer.pinned_cids().len(), 2);
    peer.wait_members(1);
}

#[test]
fn a_power_cut_while_joining_never_makes_a_second_cluster() {
    for fresh in [true, false] {
        let mut cluster = Cluster::of(1);
        let mut peer = match fresh {
            true => Peer::fresh(cluster.path("fresh")),
            false => alone(&cluster, 0),
        };
        let invitation = token(&cluster);
        cluster.peers[0].kill();
        // Nobody is there to be joined: it waits, with everything written, and its plug is pulled.
        peer.spawn(&["join", &invitation, "--once"]);
        wait_for("whom to join in the configuration", PATIENCE, || {
            let file = std::fs::read_to_string(peer.folder.join("service.json")).unwrap_or_default();
            file.contains("\"bootstrap\"").then_some(()).ok_or(file)
        });
        peer.kill();
        cluster.peers[0].start(&["daemon"]);
        // What the service does at the next start.
        peer.start(&["up", "--loopback"]);
        peer.wait_members(2);
        cluster.peers[0].wait_members(2);
    }
}

#[test]
fn a_closed_peer_is_opened_once_and_a_token_may_come_by_a_pipe() {
    let cluster = Cluster::of(1);
    let mut peer = alone(&cluster, 0);
    let listens = |peer: &Peer| peer.config()["cluster"]["listen_multiaddress"].to_string();
    assert!(listens(&peer).contains("/ip4/127.0.0.1/tcp/"), "{}", listens(&peer));
    let mut join = pinfold()
        .args(["-c", peer.path(), "join", "-", "--once"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("join");
    writeln!(join.stdin.take().expect("pipe"), "{}", token(&cluster)).expect("told");
    assert!(join.wait().expect("joined").success());
    let said = ok(peer.ctl(&["open"]));
    assert!(said.contains("cluster.listen_multiaddress: /ip4/0.0.0.0/tcp/"), "{said}");
    assert!(listens(&peer).contains("/ip4/0.0.0.0/tcp/"), "{}", listens(&peer));
    assert_eq!(ok(peer.ctl(&["open"])), "", "it is open already");
    peer.start(&["up", "--loopback"]);
    peer.wait_members(2);
    assert!(listens(&peer).contains("/ip4/0.0.0.0/tcp/"), "--loopback is for new peers only");
}
