//! A majority that is lost for good: `pinfold state recover` on real processes, and what becomes of boards that come back.

mod support;

use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Instant;
use support::cluster::{cid_of, ok, pinfold, Cluster, Peer, PATIENCE, SECRET};
use support::disk::SmallDisk;
use support::executable::executable;
use support::{copy_tree, wait_for};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Puts a file into the cluster through this peer, pinned everywhere; its CID.
fn add(peer: &Peer, text: &str) -> String {
    let file = peer.folder.with_extension("upload");
    std::fs::write(&file, text).expect("file");
    ok(peer.ctl(&["add", "-Q", "--wait", file.to_str().expect("UTF-8")])).trim().to_owned()
}

/// The pins of a peer, once it has them all.
fn wait_pins(peer: &Peer, wanted: &[String]) {
    let mut wanted = wanted.to_vec();
    wanted.sort();
    wait_for("all the pins", PATIENCE, || {
        let pins = peer.pinned_cids();
        if pins == wanted {
            Ok(())
        } else {
            Err(format!("{} of {}: {pins:?}", pins.len(), wanted.len()))
        }
    });
}

/// Names in the peer's folder that have to do with its data.
fn data_names(peer: &Peer) -> Vec<String> {
    let entries = std::fs::read_dir(&peer.folder).expect("folder");
    let names = entries.map(|e| e.expect("entry").file_name().into_string().expect("text"));
    let mut names: Vec<String> = names.filter(|n| n.starts_with("raft")).collect();
    names.sort();
    names
}

/// Bytes of block files, and when they were last written: content that is fetched again changes them.
fn blocks(peer: &Peer) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut waiting = vec![peer.folder.join("ipfs")];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).expect("ipfs folder").map(|e| e.expect("entry")) {
            if entry.path().is_dir() {
                waiting.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "blocks") {
                found.push((entry.path().display().to_string(), entry.metadata().expect("metadata").len()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "there are block files");
    found
}

/// Ends a peer that was told that its cluster is gone: it must end by itself, with a sentence.
fn ends_superseded(peer: &mut Peer) {
    let (status, _) = peer.wait_end();
    assert_eq!(status.code(), Some(5), "{}", peer.log());
    assert!(peer.log().contains("was recovered without this peer"), "{}", peer.log());
    assert!(peer.log().contains("start it again, and it joins as a new member"), "{}", peer.log());
}

#[test]
fn two_of_three_are_lost_and_the_third_goes_on_with_everything() {
    let mut cluster = Cluster::of(3);
    let mut pins: Vec<String> = (0..3).map(|n| add(&cluster.peers[n], &format!("file {n}"))).collect();
    for n in 0..40 {
        cluster.peers[n % 3]
            .json("POST", &format!("/pins/{}?replication-min=1&replication-max=1", cid_of(n as u64)));
        pins.push(cid_of(n as u64));
    }
    // An acknowledged write of the last moment, when nobody's state has been flushed.
    cluster.peers.iter_mut().for_each(Peer::kill);
    for lost in &cluster.peers[..2] {
        std::fs::remove_dir_all(&lost.folder).expect("the board is gone");
    }
    let lost: Vec<Peer> = cluster.peers.drain(..2).collect();
    drop(lost);
    let mut left = cluster.peers.pop().expect("the third");
    let before = std::fs::read(left.folder.join("raft/log/data.mdb")).expect("log");

    // Looking and being asked change nothing; without a terminal nobody can be asked.
    let look = ok(left.ctl(&["state", "recover", "--look", "--json"]));
    let look: Value = serde_json::from_str(&look).expect("JSON");
    assert_eq!(look[0]["members"].as_array().map(Vec::len), Some(3), "{look}");
    let refused = left.ctl(&["state", "recover"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("is no terminal"), "{}", said(&refused));
    assert_eq!(std::fs::read(left.folder.join("raft/log/data.mdb")).expect("log"), before);
    assert_eq!(data_names(&left), ["raft"]);

    let told = ok(left.ctl(&["state", "recover", "--yes"]));
    assert!(told.contains(&format!("with {} pins", pins.len())), "{told}");
    assert_eq!(told.matches("given up: ").count(), 2, "{told}");
    assert_eq!(data_names(&left), ["raft", "raft.before-recover.0"]);
    assert_eq!(std::fs::read(left.folder.join("raft.before-recover.0/log/data.mdb")).expect("log"), before);

    left.start(&["daemon"]);
    assert_eq!(left.consensus()["members"].as_array().map(Vec::len), Some(1));
    wait_pins(&left, &pins);
    assert_eq!(ok(left.ctl(&["cat", &pins[0]])), "file 0", "the content is still here");
    pins.push(add(&left, "after the loss"));

    // New boards in the place of the lost ones.
    let mut boards: Vec<Peer> =
        (0..2).map(|n| Peer::init(cluster.path(&format!("new{n}")), &format!("new{n}"), SECRET)).collect();
    for board in &mut boards {
        board.start(&["daemon", "--bootstrap", &left.address()]);
    }
    left.wait_members(3);
    pins.push(add(&boards[1], "from a new board"));
    for peer in boards.iter().chain([&left]) {
        wait_pins(peer, &pins);
    }
    boards[0].wait_status(&pins[0], "pinned", 3);
    // It survives the death of one again, and its own restart.
    left.kill();
    wait_for("a write without it", PATIENCE, || {
        match boards[0].request("POST", &format!("/pins/{}", cid_of(900))) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    left.start(&["daemon"]);
    pins.push(cid_of(900));
    wait_pins(&left, &pins);
}

#[test]
fn old_boards_that_come_back_together_join_the_new_cluster_with_what_they_have() {
    let mut cluster = Cluster::of(3);
    let mut pins: Vec<String> = (0..3).map(|n| add(&cluster.peers[n], &"x".repeat(50_000 + n))).collect();
    for peer in &cluster.peers {
        for pin in &pins {
            peer.wait_status(pin, "pinned", 3);
        }
    }
    // Stopped in any way; the third stays the freshest because nothing is written after it.
    for n in [0, 1, 2] {
        cluster.peers[n].kill();
    }
    ok(cluster.peers[2].ctl(&["state", "recover", "--yes"]));
    cluster.peers[2].start(&["daemon"]);
    let into = cluster.peers[2].consensus()["cluster_id"].clone();
    let kept: Vec<_> = (0..2).map(|n| blocks(&cluster.peers[n])).collect();

    // Together they are a majority of the old cluster. They meet the new one, and end, with their data put aside.
    let (first, rest) = cluster.peers.split_at_mut(1);
    first[0].spawn(&["daemon"]);
    rest[0].spawn(&["daemon"]);
    ends_superseded(&mut first[0]);
    ends_superseded(&mut rest[0]);
    for peer in &mut cluster.peers[..2] {
        assert!(data_names(peer).contains(&"raft.old.0".to_owned()), "{:?}", data_names(peer));
        // Nobody tells it where: it knows its way.
        peer.start(&["daemon"]);
    }
    cluster.peers[2].wait_members(3);
    for n in 0..3 {
        assert_eq!(cluster.peers[n].consensus()["cluster_id"], into);
        wait_pins(&cluster.peers[n], &pins);
        for pin in &pins {
            cluster.peers[n].wait_status(pin, "pinned", 3);
        }
    }
    for (n, kept) in kept.iter().enumerate() {
        assert_eq!(blocks(&cluster.peers[n]), *kept, "nothing was fetched again");
    }
    pins.push(add(&cluster.peers[0], "goes on"));
    for peer in &cluster.peers {
        wait_pins(peer, &pins);
    }
}

#[test]
fn old_boards_that_know_more_are_not_told_to_forget_it() {
    let mut cluster = Cluster::of(3);
    cluster.peers[0].json("POST", &format!("/pins/{}?replication-min=1&replication-max=1", cid_of(1)));
    cluster.peers[2].wait_status(&cid_of(1), "pin_queued", 0);
    // A majority was enough for the answer; the third must have it, too.
    wait_pins(&cluster.peers[2], &[cid_of(1)]);
    // The third is cut off and recovered by mistake, while the others went on.
    cluster.peers[2].kill();
    cluster.peers[0].json("POST", &format!("/pins/{}?replication-min=1&replication-max=1", cid_of(2)));
    let refused = cluster.peers[2].ctl(&["state", "recover", "--yes"]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(
        said(&refused).contains("something answers at the address of 2 other member"),
        "{}",
        said(&refused)
    );
    assert_eq!(data_names(&cluster.peers[2]), ["raft"]);
    ok(cluster.peers[2].ctl(&["state", "recover", "--yes", "--force"]));
    cluster.peers[2].start(&["daemon"]);
    wait_for("the news", PATIENCE, || {
        let told = |n: usize| cluster.peers[n].log().contains("must be given up by a person");
        // The leader calls all members; the follower calls nobody.
        if told(0) || told(1) {
            Ok(())
        } else {
            Err(cluster.peers[0].log())
        }
    });
    // Both know what was acknowledged to them; nothing was thrown away.
    assert!(cluster.peers[0].is_running() && cluster.peers[1].is_running());
    wait_pins(&cluster.peers[0], &[cid_of(1), cid_of(2)]);
    wait_pins(&cluster.peers[2], &[cid_of(1)]);
}

#[test]
fn three_of_five_are_lost() {
    let mut cluster = Cluster::of(5);
    let pins: Vec<String> = (0..20).map(cid_of).collect();
    for (n, pin) in pins.iter().enumerate() {
        cluster.peers[n % 5].json("POST", &format!("/pins/{pin}?replication-min=2&replication-max=3"));
    }
    cluster.peers.iter_mut().for_each(Peer::kill);
    for lost in &cluster.peers[..3] {
        std::fs::remove_dir_all(&lost.folder).expect("the board is gone");
    }
    // Which of the two is the better one?
    let [one, other] = [3, 4].map(|n: usize| cluster.peers[n].path().to_owned());
    let compared = ok(cluster.peers[3].ctl(&["state", "recover", "--look", &other]));
    let best =
        compared.lines().find_map(|l| l.strip_prefix("the best survivor is ")).expect(&compared).to_owned();
    assert!(best == one || best == other, "{compared}");
    let (best, second) = if best == one { (3, 4) } else { (4, 3) };
    ok(cluster.peers[best].ctl(&["state", "recover", "--yes"]));
    cluster.peers[best].start(&["daemon"]);
    wait_pins(&cluster.peers[best], &pins);
    // The other survivor is told, and joins.
    cluster.peers[second].spawn(&["daemon"]);
    ends_superseded(&mut cluster.peers[second]);
    cluster.peers[second].start(&["daemon"]);
    cluster.peers[best].wait_members(2);
    wait_pins(&cluster.peers[second], &pins);
    // Holders that are no members any more are replaced when repinning is asked for.
    cluster.peers[best].json("POST", &format!("/pins/{}", cid_of(99)));
}

#[test]
fn what_is_no_survivor_is_refused() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    let recover = |peer: &Peer| peer.ctl(&["state", "recover", "--yes"]);
    let fresh = recover(&peer);
    assert!(
        fresh.status.code() == Some(4) && said(&fresh).contains("nothing to recover"),
        "{}",
        said(&fresh)
    );
    peer.start(&["daemon"]);
    let busy = recover(&peer);
    assert!(busy.status.code() == Some(5) && said(&busy).contains("stop it first"), "{}", said(&busy));
    peer.kill();

    // Data of the release before last.
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format1");
    std::fs::remove_dir_all(peer.folder.join("raft")).expect("data");
    copy_tree(&old.join("raft"), &peer.folder.join("raft"));
    std::fs::copy(old.join("identity.json"), peer.folder.join("identity.json")).expect("identity");
    let older = recover(&peer);
    assert_eq!(older.status.code(), Some(13), "{}", said(&older));
    assert!(said(&older).contains("state upgrade`"), "{}", said(&older));
    ok(peer.ctl(&["state", "upgrade", "--yes"]));
    let told = ok(recover(&peer));
    // What stood in its log and nowhere else came along.
    assert!(told.contains("with 10 pins") && told.contains("1 of them not known to be committed"), "{told}");
    peer.start(&["daemon"]);
    assert_eq!(peer.pinned_cids().len(), 10);
}

#[test]
fn a_peer_that_was_removed_is_no_survivor() {
    let mut cluster = Cluster::of(3);
    // Kept as a disk image from before, and put back: the state must know of the removal to be refused.
    let gone = cluster.peers[2].id();
    cluster.peers[2].kill();
    ok(cluster.peers[0].ctl(&["peers", "rm", &gone]));
    cluster.peers[2].spawn(&["daemon"]);
    let (_, _) = cluster.peers[2].wait_end();
    let refused = cluster.peers[2].ctl(&["state", "recover", "--yes"]);
    assert!(!refused.status.success(), "{}", said(&refused));
    assert!(said(&refused).contains("nothing to recover"), "{}", said(&refused));
}

/// The plug is pulled at any moment: the data is the old or the new, whole, and the next start says which.
#[test]
fn a_recovery_that_is_killed_leaves_the_old_data_or_the_new() {
    let mut cluster = Cluster::of(3);
    let pins: Vec<String> = (0..30).map(cid_of).collect();
    for pin in &pins {
        cluster.peers[0].json("POST", &format!("/pins/{pin}?replication-min=1&replication-max=1"));
    }
    cluster.peers.iter_mut().for_each(Peer::kill);
    let third = cluster.peers.pop().expect("the third");
    let image = third.folder.with_extension("image");
    copy_tree(&third.folder, &image);
    // How long one takes, to spread the kills over it.
    let began = Instant::now();
    ok(third.ctl(&["state", "recover", "--yes"]));
    let whole = began.elapsed();
    let old = {
        std::fs::remove_dir_all(&third.folder).expect("folder");
        copy_tree(&image, &third.folder);
        cluster_of(&third)
    };
    let (mut kept, mut made, mut settled) = (0, 0, 0);
    const ROUNDS: u32 = 40;
    for round in 0..ROUNDS {
        std::fs::remove_dir_all(&third.folder).expect("folder");
        copy_tree(&image, &third.folder);
        let mut command = pinfold();
        command.args(["-c", third.path(), "state", "recover", "--yes"]).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(whole * (round + 1) / ROUNDS);
        let _ = child.kill();
        child.wait().expect("reaped");
        let was_cut =
            data_names(&third).iter().any(|n| n.ends_with(".recovering") || n.ends_with(".recovered"));
        // Looking settles, as a start does.
        let look = third.ctl(&["state", "recover", "--look"]);
        assert!(look.status.success(), "round {round}: {}", said(&look));
        if was_cut {
            settled += 1;
            assert!(said(&look).contains("cut off"), "round {round}: {}", said(&look));
        }
        let names = data_names(&third);
        if cluster_of(&third) == old {
            kept += 1;
            assert_eq!(names, ["raft"], "round {round}");
        } else {
            made += 1;
            assert_eq!(names, ["raft", "raft.before-recover.0"], "round {round}");
        }
        let export = ok(third.ctl(&["state", "export"]));
        assert_eq!(export.lines().count(), pins.len(), "round {round}");
    }
    eprintln!(
        "killed {ROUNDS} times: {kept} with the old data, {made} with the new, {settled} cut in the middle"
    );
    assert!(kept > 0 && settled > 0, "the kills hit nothing: {kept} {made} {settled}");
}

/// The cluster that the folder's data belongs to.
fn cluster_of(peer: &Peer) -> String {
    let look: Value =
        serde_json::from_str(&ok(peer.ctl(&["state", "recover", "--look", "--json"]))).expect("JSON");
    look[0]["cluster_id"].as_str().expect("cluster").to_owned()
}

#[test]
fn a_full_disk_leaves_the_old_data() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(disk) = SmallDisk::mount(&tmp.path().join("disk"), 160) else { return };
    let mut peer = Peer::init(tmp.path().join("disk/p"), "p", SECRET);
    peer.start(&["daemon"]);
    for n in 0..5 {
        peer.json("POST", &format!("/pins/{}", cid_of(n)));
    }
    peer.kill();
    disk.fill_to(4 << 20);
    let full = peer.ctl(&["state", "recover", "--yes"]);
    assert_eq!(full.status.code(), Some(9), "{}", said(&full));
    assert!(said(&full).contains("make room there"), "{}", said(&full));
    disk.make_room();
    assert_eq!(data_names(&peer), ["raft"]);
    assert_eq!(ok(peer.ctl(&["state", "export"])).lines().count(), 5);
}

/// A person at a terminal is asked, and may say no.
#[test]
fn a_person_is_asked() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    peer.start(&["daemon"]);
    peer.kill();
    for (answer, done) in [("n\n", false), ("y\n", true)] {
        // `script` gives the command a terminal.
        let line = format!("{} -c {} state recover", executable().display(), peer.path());
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            support::skip("there is no `script` to make a terminal with");
            return;
        };
        child.stdin.take().expect("piped").write_all(answer.as_bytes()).expect("answered");
        let mut text = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        child.wait().expect("reaped");
        assert!(text.contains("has lost the majority of its voters for good"), "{text}");
        assert_eq!(text.contains("recovered: the cluster"), done, "{text}");
        assert_eq!(text.contains("nothing was changed"), !done, "{text}");
    }
}
