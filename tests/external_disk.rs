//! The blocks on a disk of their own that is not there at the start, is unplugged, fails, is read-only or full: the peer
//! goes on voting, says what is wrong, takes nothing for empty, acknowledges nothing into the place of the mount, and
//! goes on by itself when the disk is back. For root only: it mounts.

mod support;

use serde_json::Value;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;
use support::cluster::{cid_of, ok, Cluster, Peer, PATIENCE, SECRET};
use support::loop_disk::LoopDisk;
use support::wait_for;

/// How soon it must be noticed that a disk is gone, on a machine that compiles beside it.
const SECONDS: Duration = Duration::from_secs(15);

/// A peer with its blocks on a disk of their own. The values drop in this order: process, disk, folder.
struct OnDisk {
    peer: Peer,
    disk: LoopDisk,
    tmp: tempfile::TempDir,
}

fn on_disk() -> Option<OnDisk> {
    let tmp = tempfile::tempdir().expect("folder");
    let disk = LoopDisk::new(&tmp.path().join("disk.img"), &tmp.path().join("disk"), 160)?;
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    keep_blocks_on(&peer, &disk);
    peer.start(&["daemon"]);
    peer.wait_candidates(1);
    Some(OnDisk { peer, disk, tmp })
}

fn keep_blocks_on(peer: &Peer, disk: &LoopDisk) {
    let folder = disk.at().join("ipfs");
    peer.edit(|config| {
        config["ipfs_connector"]["embedded"]["data_folder"] = folder.to_str().expect("UTF-8").into();
        config["cluster"]["state_sync_interval"] = "1s".into();
    });
}

impl OnDisk {
    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.tmp.path().join(name);
        std::fs::write(&path, content).expect("file");
        path
    }

    fn try_add(&self, name: &str, content: &[u8]) -> Output {
        self.peer.ctl(&["add", "-Q", self.file(name, content).to_str().expect("UTF-8")])
    }

    fn add(&self, name: &str, content: &[u8]) -> String {
        ok(self.try_add(name, content)).trim().to_string()
    }
}

/// What the peer says about its node.
fn ipfs_error(peer: &Peer) -> String {
    peer.json("GET", "/id")["ipfs"]["error"].as_str().unwrap_or_default().to_owned()
}

/// Waits until the node is unavailable for a reason with this word in it.
fn wait_away(peer: &Peer, word: &str) {
    wait_for(&format!("a node without its disk: {word}"), SECONDS, || {
        let error = ipfs_error(peer);
        match error.contains(word) {
            true => Ok(()),
            false => Err(format!("{error:?}\n{}", peer.log())),
        }
    });
}

fn wait_back(peer: &Peer) {
    wait_for("the node with its disk", PATIENCE, || match ipfs_error(peer) {
        error if error.is_empty() => Ok(()),
        error => Err(error),
    });
}

/// Status and error of a CID at the peer of this name, as `asked` tells them.
fn told(asked: &Peer, cid: &str, name: &str) -> (String, String) {
    let info = asked.json("GET", &format!("/pins/{cid}"));
    let map = info["peer_map"].as_object().expect("peer_map").clone();
    let row = map.values().find(|row| row["peername"] == name).cloned().unwrap_or(Value::Null);
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("error"))
}

fn assert_alive(peer: &mut Peer) {
    assert!(peer.is_running(), "{}", peer.log());
    let log = peer.log();
    assert!(!log.contains("panic") && !log.contains("defect"), "{log}");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_disk_that_is_not_mounted_at_the_start_is_no_empty_store() {
    let Some(mut on) = on_disk() else { return };
    let cid = on.add("file", b"what is on the disk");
    on.peer.wait_status(&cid, "pinned", 1);
    let (status, _) = on.peer.stop();
    assert!(status.success(), "{}", on.peer.log());
    on.disk.unplug();
    assert_eq!(on.disk.names(), [""; 0], "the empty place of the mount");

    on.peer.start(&["daemon"]);
    wait_away(&on.peer, "the disk with the blocks is not there");
    let (status, why) = told(&on.peer, &cid, "p");
    assert_eq!(status, "pin_error");
    assert!(why.contains("the disk with the blocks is not there"), "{why}");
    let listed = on.peer.lines("/pins?filter=pin_error");
    assert_eq!(listed.len(), 1, "{listed:?}");
    // The pin list is whole and takes more; what needs the disk is refused with the reason.
    let more = cid_of(7);
    on.peer.json("POST", &format!("/pins/{more}?replication-min=-1&replication-max=-1"));
    let mut both = vec![cid.clone(), more.clone()];
    both.sort();
    assert_eq!(on.peer.pinned_cids(), both);
    for refused in [on.try_add("other", b"more"), on.peer.ctl(&["cat", &cid])] {
        assert!(!refused.status.success());
    }
    assert!(said(&on.peer.ctl(&["cat", &cid])).contains("the disk with the blocks is not there"));
    let doctor = said(&on.peer.ctl(&["doctor"]));
    let line = doctor.lines().find(|line| line.starts_with("FAIL  ipfs"));
    assert!(line.is_some_and(|l| l.contains("the disk with the blocks is not there")), "{doctor}");
    let log = on.peer.log();
    let complaints =
        log.lines().filter(|l| l.contains("\tERROR\t") && l.contains("the disk with the blocks is not"));
    assert_eq!(complaints.count(), 1, "told once: {log}");
    assert_eq!(on.disk.names(), [""; 0], "nothing was made below the mount");

    // Another disk is not this one, empty or not.
    let other = LoopDisk::new(&on.tmp.path().join("other.img"), on.disk.at(), 32).expect("another disk");
    std::fs::create_dir(other.at().join("ipfs")).expect("a folder");
    std::thread::sleep(Duration::from_secs(3));
    assert_ne!(ipfs_error(&on.peer), "", "an empty disk passes for ours");
    assert_eq!(std::fs::read_dir(other.at().join("ipfs")).expect("list").count(), 0);
    drop(other);

    // It is back: without a restart, without fetching anything.
    on.disk.plug_in();
    wait_back(&on.peer);
    on.peer.wait_status(&cid, "pinned", 1);
    assert_eq!(ok(on.peer.ctl(&["cat", &cid])), "what is on the disk");
    on.add("third", b"third");
    let log = on.peer.log();
    assert!(log.contains("is there again") && !log.contains("not pinned in IPFS any more"), "{log}");
    assert_alive(&mut on.peer);
}

#[test]
fn what_is_acknowledged_while_a_disk_is_unmounted_is_on_the_disk() {
    let Some(mut on) = on_disk() else { return };
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    let mut refused = 0;
    for n in 0..60 {
        if n == 20 {
            on.disk.unplug();
        }
        let content = format!("file {n}: {}", "x".repeat(20_000));
        let output = on.try_add("file", content.as_bytes());
        match output.status.success() {
            true => acknowledged.push((String::from_utf8_lossy(&output.stdout).trim().to_owned(), content)),
            false => refused += 1,
        }
        if refused == 3 {
            break;
        }
    }
    assert!(refused > 0, "sixty files were taken, forty without a disk");
    wait_away(&on.peer, "the disk with the blocks is not there");
    assert_eq!(on.disk.names(), [""; 0], "nothing was made below the mount");
    let cids: Vec<&String> = acknowledged.iter().map(|(cid, _)| cid).collect();
    assert!(cids.len() >= 20);
    on.disk.plug_in();
    wait_back(&on.peer);
    for (cid, content) in &acknowledged {
        assert!(ok(on.peer.ctl(&["cat", cid])) == *content, "{cid} is not what was acknowledged");
        on.peer.wait_status(cid, "pinned", 1);
    }
    assert_alive(&mut on.peer);
}

#[test]
fn a_disk_that_fails_is_noticed_and_comes_back_with_what_was_acknowledged() {
    let Some(mut on) = on_disk() else { return };
    let content = "y".repeat(300_000);
    let cid = on.add("file", content.as_bytes());
    on.disk.fail();
    wait_away(&on.peer, "shut down");
    let (status, why) = told(&on.peer, &cid, "p");
    assert!(status == "pin_error" && why.contains("fsck"), "{status} {why}");
    let refused = on.try_add("other", b"more");
    assert!(!refused.status.success(), "{}", said(&refused));
    on.peer.json("POST", &format!("/pins/{}", cid_of(3)));
    on.disk.unplug();
    on.disk.wait_released();
    on.disk.plug_in();
    wait_back(&on.peer);
    on.peer.wait_status(&cid, "pinned", 1);
    assert!(ok(on.peer.ctl(&["cat", &cid])) == content);
    on.add("other", b"more");
    assert_alive(&mut on.peer);
}

#[test]
fn a_disk_that_can_only_be_read_is_read() {
    let Some(mut on) = on_disk() else { return };
    let content = "z".repeat(300_000);
    let cid = on.add("file", content.as_bytes());
    on.disk.turn_read_only();
    wait_for("the log to say so", SECONDS, || match on.peer.log() {
        log if log.contains("can only be read") => Ok(()),
        log => Err(log),
    });
    assert!(ok(on.peer.ctl(&["cat", &cid])) == content);
    assert_eq!(told(&on.peer, &cid, "p").0, "pinned");
    let refused = on.try_add("other", b"more");
    assert!(!refused.status.success() && said(&refused).contains("can only be read"), "{}", said(&refused));
    let doctor = said(&on.peer.ctl(&["doctor"]));
    assert!(doctor.lines().any(|l| l.starts_with("FAIL  disk") && l.contains("read-only")), "{doctor}");
    on.disk.unplug();
    wait_away(&on.peer, "the disk with the blocks is not there");
    on.disk.wait_released();
    on.disk.plug_in();
    wait_for("the add, with a disk that can be written", PATIENCE, || {
        let output = on.try_add("other", b"more");
        match output.status.success() {
            true => Ok(()),
            false => Err(said(&output)),
        }
    });
    assert!(ok(on.peer.ctl(&["cat", &cid])) == content);
    assert_alive(&mut on.peer);
}

#[test]
fn a_peer_without_its_disk_votes_and_others_take_its_copies() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(disk) = LoopDisk::new(&tmp.path().join("disk.img"), &tmp.path().join("disk"), 96) else {
        return;
    };
    let mut cluster = Cluster::with(3, |n, config| {
        config["cluster"]["repin_grace"] = "3s".into();
        config["cluster"]["disable_repinning"] = false.into();
        config["cluster"]["state_sync_interval"] = "1s".into();
        if n == 2 {
            let folder = disk.at().join("ipfs");
            config["ipfs_connector"]["embedded"]["data_folder"] = folder.to_str().expect("UTF-8").into();
        }
    });
    let names: Vec<String> = cluster
        .peers
        .iter()
        .map(|p| p.json("GET", "/id")["peername"].as_str().expect("name").into())
        .collect();
    let file = tmp.path().join("file");
    std::fs::write(&file, "a copy here and a copy there").expect("file");
    let file = file.to_str().expect("UTF-8");
    let to = format!("{},{}", cluster.peers[2].id(), cluster.peers[1].id());
    let add = ["add", "-Q", "--rmin", "2", "--rmax", "2", "--allocations", &to, file];
    let cid = ok(cluster.peers[1].ctl(&add)).trim().to_string();
    cluster.peers[0].wait_status(&cid, "pinned", 2);
    assert_eq!(told(&cluster.peers[0], &cid, &names[2]).0, "pinned");

    disk.unplug();
    wait_away(&cluster.peers[2], "the disk with the blocks is not there");
    // After the grace there are two copies again, without the peer that has no disk.
    wait_for("a copy at the third peer", PATIENCE, || match told(&cluster.peers[1], &cid, &names[0]) {
        (status, _) if status == "pinned" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // It is no holder of anything new.
    let new = cid_of(5);
    cluster.peers[0].json("POST", &format!("/pins/{new}?replication-min=1&replication-max=3"));
    let pin = cluster.peers[0].json("GET", &format!("/allocations/{new}"));
    let given: Vec<&str> =
        pin["allocations"].as_array().expect("list").iter().filter_map(Value::as_str).collect();
    assert!(given.len() == 2 && !given.contains(&cluster.peers[2].id().as_str()), "{given:?}");
    // It votes: with it alone at its side the first peer goes on.
    cluster.peers[1].kill();
    let written = cid_of(6);
    wait_for("a write with the votes of two, one of them without its disk", PATIENCE, || {
        match cluster.peers[0].request("POST", &format!("/pins/{written}")) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    wait_for("the write at the peer without its disk", PATIENCE, || match cluster.peers[2].pinned_cids() {
        cids if cids.contains(&written) => Ok(()),
        cids => Err(format!("{cids:?}")),
    });
    cluster.peers[1].start(&["daemon"]);
    assert_eq!(disk.names(), [""; 0], "nothing was made below the mount");

    disk.plug_in();
    wait_back(&cluster.peers[2]);
    wait_for("no complaint about the disk", PATIENCE, || match told(&cluster.peers[0], &cid, &names[2]) {
        (status, why) if status != "pin_error" && !why.contains("disk") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(ok(cluster.peers[2].ctl(&["cat", &cid])), "a copy here and a copy there");
    cluster.peers.iter_mut().for_each(assert_alive);
}

#[test]
fn a_full_disk_of_the_blocks_is_no_missing_one() {
    let Some(mut on) = on_disk() else { return };
    let cid = on.add("file", b"small");
    let ballast = on.disk.at().join("ballast");
    let mut block = 1 << 20;
    let mut file = std::fs::File::create(&ballast).expect("ballast");
    while block > 4_096 {
        if std::io::Write::write_all(&mut file, &vec![1; block]).is_err() {
            block /= 2;
        }
    }
    let refused = on.try_add("other", b"more");
    assert!(!refused.status.success() && said(&refused).contains("free"), "{}", said(&refused));
    assert_eq!(told(&on.peer, &cid, "p").0, "pinned");
    assert_eq!(ok(on.peer.ctl(&["cat", &cid])), "small");
    assert_eq!(ipfs_error(&on.peer), "");
    drop(file);
    std::fs::remove_file(ballast).expect("room");
    wait_for("the add, with room", PATIENCE, || {
        let output = on.try_add("other", b"more");
        output.status.success().then_some(()).ok_or_else(|| said(&output))
    });
    assert_alive(&mut on.peer);
}

#[test]
fn a_whole_folder_on_a_disk_that_is_not_mounted_is_not_begun_anew() {
    let tmp = tempfile::tempdir().expect("folder");
    let at = tmp.path().join("disk");
    let Some(disk) = LoopDisk::new(&tmp.path().join("disk.img"), &at, 64) else { return };
    let fstab = tmp.path().join("fstab");
    let image = tmp.path().join("disk.img");
    std::fs::write(&fstab, format!("{} {} ext4 loop,nofail 0 0\n", image.display(), at.display()))
        .expect("fstab");
    let folder = at.join("p");
    // With an fstab of its own; /etc/fstab need not exist.
    let up = |what: &str| {
        let script = "if [ -e /etc/fstab ]; then mount --bind \"$1\" /etc/fstab; else \
                      mount -t overlay -o lowerdir=\"$(dirname \"$1\")\":/etc overlay /etc; fi; \
                      shift; exec \"$@\"";
        let program = support::executable::executable();
        let mut command = std::process::Command::new("timeout");
        command.args(["-s", "TERM", "10", "unshare", "-m", "sh", "-c", script, "sh"]);
        command.arg(&fstab).arg(program).arg("-c").arg(&folder).arg(what);
        command.env("CLUSTER_MDNSINTERVAL", "0s").env("HOME", tmp.path());
        command.output().expect("unshare")
    };
    disk.unplug();
    for what in ["up", "daemon", "init"] {
        let output = up(what);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(6), "{what}: {told}");
        assert!(told.contains("/etc/fstab wants") && told.contains("nothing was made"), "{what}: {told}");
        assert_eq!(disk.names(), [""; 0], "{what} made something below the mount");
    }
    disk.plug_in();
    let output = up("init");
    assert!(output.status.success(), "{}", said(&output));
    assert!(folder.join("service.json").exists());
}
