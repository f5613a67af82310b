//! Founding sets with real processes: any order, a minority, other lists, crashes in the middle, and what a list may
//! say later on.

mod support;

use serde_json::Value;
use std::time::Duration;
use support::cluster::{cid_of, ok, Peer, PATIENCE, SECRET};
use support::wait_for;

/// Peers that name each other as the founding set, not started; each with its own address in the list too.
struct Set {
    peers: Vec<Peer>,
    folder: tempfile::TempDir,
}

impl Set {
    fn of(n: usize) -> Set {
        Set::with(n, |_, _| {})
    }

    fn with(n: usize, change: impl Fn(usize, &mut Value)) -> Set {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let peers: Vec<Peer> = (0..n)
            .map(|i| Peer::init(folder.path().join(format!("p{i}")), &format!("p{i}"), SECRET))
            .collect();
        let set = Set { peers, folder };
        let list: Value = set.peers.iter().map(|p| Value::from(p.address())).collect();
        for (i, peer) in set.peers.iter().enumerate() {
            peer.edit(|config| {
                config["cluster"]["peers"] = list.clone();
                config["consensus"]["raft"]["wait_for_leader_timeout"] = "60s".into();
                change(i, config);
            });
        }
        set
    }

    fn same_cluster(&self, n: usize) {
        let ids: Vec<Value> = self.peers[..n].iter().map(|p| p.consensus()["cluster_id"].clone()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        self.peers[..n].iter().for_each(|p| p.wait_members(n));
    }
}

fn wait_log(peer: &Peer, words: &str) {
    wait_for(&format!("the log of {} to say {words:?}", peer.path()), PATIENCE, || {
        let log = peer.log();
        if log.contains(words) {
            Ok(())
        } else {
            Err(log)
        }
    });
}

/// Waits for a process that must end with an error; its log.
fn refused(peer: &mut Peer, code: i32) -> String {
    let (status, _) = peer.wait_end();
    let log = peer.log();
    assert_eq!(status.code(), Some(code), "{log}");
    log
}

#[test]
fn started_in_any_order_they_are_one_cluster_and_stay_one() {
    let mut set = Set::of(3);
    set.peers[2].spawn(&["daemon"]);
    wait_log(&set.peers[2], "waiting for the founding set: 1 of the 3 peers");
    set.peers[0].spawn(&["daemon"]);
    set.peers[1].spawn(&["daemon"]);
    set.peers.iter_mut().for_each(Peer::wait_ready);
    set.same_cluster(3);
    set.peers[0].json("POST", &format!("/pins/{}", cid_of(1)));
    // Everybody votes from the beginning: any two go on without the third.
    set.peers[1].kill();
    wait_for("a write by two of three", PATIENCE, || {
        match set.peers[2].request("POST", &format!("/pins/{}", cid_of(2))) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // A power cut for all; no flags, the same list.
    set.peers.iter_mut().for_each(Peer::kill);
    set.peers.iter_mut().for_each(|p| p.spawn(&["daemon"]));
    set.peers.iter_mut().for_each(Peer::wait_ready);
    set.same_cluster(3);
    let mut both = vec![cid_of(1), cid_of(2)];
    both.sort();
    wait_for("both pins everywhere", PATIENCE, || {
        let all: Vec<_> = set.peers.iter().map(Peer::pinned_cids).collect();
        if all.iter().all(|pins| *pins == both) {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    });
}

#[test]
fn a_minority_ends_saying_who_is_missing_and_why() {
    let mut set = Set::with(3, |i, config| {
        config["consensus"]["raft"]["wait_for_leader_timeout"] = "4s".into();
        if i == 1 {
            let other = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
            config["cluster"]["secret"] = other.into();
            config["consensus"]["raft"]["wait_for_leader_timeout"] = "60s".into();
        }
    });
    set.peers[1].spawn(&["daemon"]);
    wait_log(&set.peers[1], "founding a cluster");
    set.peers[0].spawn(&["daemon"]);
    let log = refused(&mut set.peers[0], 6);
    assert!(log.contains("1 of the 3 peers in cluster.peers are here, 2 are needed"), "{log}");
    assert!(log.contains(&set.peers[1].id()) && log.contains("the cluster secret there differs"), "{log}");
    assert!(log.contains(&set.peers[2].id()) && log.contains("connection refused"), "{log}");
    // Nothing was founded: with the others it works.
    set.peers[1].kill();
    for peer in &set.peers {
        peer.edit(|config| {
            config["cluster"]["secret"] = SECRET.into();
            config["consensus"]["raft"]["wait_for_leader_timeout"] = "60s".into();
        });
    }
    set.peers.iter_mut().for_each(|p| p.spawn(&["daemon"]));
    set.peers.iter_mut().for_each(Peer::wait_ready);
    set.same_cluster(3);
}

#[test]
fn who_was_away_joins_what_the_majority_founded_and_so_does_a_reflashed_one() {
    let mut set = Set::of(3);
    set.peers[0].spawn(&["daemon"]);
    set.peers[1].spawn(&["daemon"]);
    set.peers[..2].iter_mut().for_each(Peer::wait_ready);
    set.same_cluster(2);
    let cid = cid_of(5);
    set.peers[0].json("POST", &format!("/pins/{cid}"));
    // A founder goes on while the third has never been there: the list is the one it had.
    set.peers[1].stop();
    set.peers[1].start(&["daemon"]);
    set.peers[2].start(&["daemon"]);
    set.same_cluster(3);
    set.peers[1..].iter().for_each(|peer| peer.wait_voters(3));
    set.peers[0].kill();
    std::fs::remove_dir_all(set.peers[0].folder.join("raft")).expect("a new card");
    set.peers[0].start(&["daemon"]);
    set.same_cluster(3);
    wait_for("the pin on the new card", PATIENCE, || {
        let pins = set.peers[0].pinned_cids();
        if pins == [cid.clone()] {
            Ok(())
        } else {
            Err(format!("{pins:?}"))
        }
    });
}

#[test]
fn kills_in_the_middle_of_founding_leave_one_cluster() {
    for round in 0..4u64 {
        let mut set = Set::of(3);
        set.peers.iter_mut().for_each(|p| p.spawn(&["daemon"]));
        // Somewhere between the first question and the first leader, each time somebody else.
        for kill in 0..6u64 {
            std::thread::sleep(Duration::from_millis(60 + (round * 97 + kill * 131) % 400));
            let victim = ((round + kill) % 3) as usize;
            set.peers[victim].kill();
            set.peers[victim].spawn(&["daemon"]);
        }
        set.peers.iter_mut().for_each(Peer::wait_ready);
        set.same_cluster(3);
        set.peers[(round % 3) as usize].json("POST", &format!("/pins/{}", cid_of(round)));
    }
}

#[test]
fn a_founding_set_by_peer_ids_takes_addresses_from_the_peerstore() {
    let mut set = Set::of(2);
    let (ids, addresses): (Vec<Value>, String) = (
        set.peers.iter().map(|p| p.id().into()).collect(),
        set.peers.iter().map(|p| format!("{}\n", p.address())).collect(),
    );
    for peer in &set.peers {
        peer.edit(|config| {
            config["cluster"].as_object_mut().expect("cluster").remove("peers");
            config["consensus"]["raft"]["init_peerset"] = ids.clone().into();
        });
        std::fs::write(peer.folder.join("peerstore"), &addresses).expect("peerstore");
    }
    set.peers.iter_mut().for_each(|p| p.spawn(&["daemon"]));
    set.peers.iter_mut().for_each(Peer::wait_ready);
    set.same_cluster(2);
}

#[test]
fn different_lists_never_count_for_each_other() {
    let mut set = Set::with(2, |_, config| {
        config["consensus"]["raft"]["wait_for_leader_timeout"] = "4s".into();
    });
    let stranger = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWKktuUeZrGSw2Wfnuy2o71D6gtixmoKurfwrsqALUmtct";
    set.peers[1].edit(|config| {
        config["cluster"]["peers"].as_array_mut().expect("list").push(stranger.into());
    });
    set.peers.iter_mut().for_each(|p| p.spawn(&["daemon"]));
    let (a, b) = (refused(&mut set.peers[0], 6), refused(&mut set.peers[1], 6));
    assert!(a.contains("has 12D3KooWKktuUeZrGSw2Wfnuy2o71D6gtixmoKurfwrsqALUmtct besides"), "{a}");
    assert!(b.contains("lacks 12D3KooWKktuUeZrGSw2Wfnuy2o71D6gtixmoKurfwrsqALUmtct"), "{b}");
}

#[test]
fn a_list_that_contradicts_the_members_is_refused_only_when_it_was_changed() {
    let mut set = Set::of(3);
    set.peers.iter_mut().for_each(|p| p.spawn(&["daemon"]));
    set.peers.iter_mut().for_each(Peer::wait_ready);
    set.same_cluster(3);
    // One goes, one comes; nobody touches the lists, and everybody is rebooted.
    let gone = set.peers[2].id();
    ok(set.peers[0].ctl(&["peers", "rm", &gone]));
    set.peers[2].wait_end();
    let mut guest = Peer::init(set.folder.path().join("guest"), "guest", SECRET);
    guest.start(&["daemon", "--bootstrap", &set.peers[0].address()]);
    guest.wait_members(3);
    for peer in &mut set.peers[..2] {
        peer.stop();
        peer.start(&["daemon"]);
        assert!(peer.log().contains("cluster.peers is not the list of members any more"), "{}", peer.log());
    }
    // The removed one does not come back by itself, as systemd would have it, only by somebody's wish.
    set.peers[2].spawn(&["daemon"]);
    let log = refused(&mut set.peers[2], 5);
    assert!(log.contains("was removed from its cluster"), "{log}");
    // A list that somebody changes must be right.
    let right: Value =
        [&set.peers[0], &set.peers[1], &guest].map(|p| Value::from(p.address())).to_vec().into();
    let wrong: Value = [&set.peers[0], &set.peers[1]].map(|p| Value::from(p.address())).to_vec().into();
    set.peers[0].stop();
    set.peers[0].edit(|config| config["cluster"]["peers"] = wrong);
    set.peers[0].spawn(&["daemon"]);
    let log = refused(&mut set.peers[0], 5);
    assert!(log.contains(&format!("a member, but not listed: {}", guest.id())), "{log}");
    assert!(
        log.contains("correct the list in service.json or remove it") && log.contains("peers rm"),
        "{log}"
    );
    set.peers[0].edit(|config| config["cluster"]["peers"] = right);
    set.peers[0].start(&["daemon"]);
    set.peers[0].wait_members(3);
    let bootstrap = set.peers[0].address();
    set.peers[2].start(&["daemon", "--bootstrap", &bootstrap]);
    set.peers[2].wait_members(4);
    // Its own list is older than all that, and no reason to stay down at the next boot.
    set.peers[2].stop();
    set.peers[2].start(&["daemon"]);
    set.peers[2].wait_members(4);
}

#[test]
fn a_fresh_peer_whose_list_lacks_a_member_is_refused_with_the_difference() {
    let mut set = Set::of(2);
    set.peers.iter_mut().for_each(|p| p.spawn(&["daemon"]));
    set.peers.iter_mut().for_each(Peer::wait_ready);
    let mut fresh = Peer::init(set.folder.path().join("fresh"), "fresh", SECRET);
    fresh.edit(|config| config["cluster"]["peers"] = vec![Value::from(set.peers[0].address())].into());
    fresh.spawn(&["daemon"]);
    let log = refused(&mut fresh, 5);
    assert!(log.contains(&format!("a member, but not listed: {}", set.peers[1].id())), "{log}");
    set.peers[0].wait_members(2);
}
