//! `pinfold backup`: the pin list of a running peer as files that both ways of importing take back; never at the cost of
//! older files, nor of the peer's own room on the disk.

mod support;

use std::path::{Path, PathBuf};
use support::cluster::{cid_of, ok, Peer, SECRET};
use support::disk::SmallDisk;

fn running(at: PathBuf) -> Peer {
    let mut peer = Peer::init(at, "p", SECRET);
    peer.start(&["daemon"]);
    peer
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_of_a_running_peer_is_taken_back_in_both_ways() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = running(tmp.path().join("p"));
    for n in 1..=3 {
        peer.json(
            "POST",
            &format!(
                "/pins/{}?name=n{n}&mode=recursive&meta-a=b&replication-min=1&replication-max=2",
                cid_of(n)
            ),
        );
    }
    let told = ok(peer.ctl(&["backup"]));
    let daily = peer.folder.join("backups/daily");
    let file = daily.join("pinset-000001.ndjson");
    assert!(told.starts_with("3 pins are in ") && told.contains(file.to_str().expect("UTF-8")), "{told}");
    let backup = std::fs::read_to_string(&file).expect("the backup");
    let before = peer.lines("/allocations");
    peer.stop();
    // Line by line what an export of the stopped peer has.
    assert_eq!(backup, ok(peer.ctl(&["state", "export"])));

    // Into another peer that runs ...
    let mut other = running(tmp.path().join("other"));
    ok(other.ctl(&["pin", "import", file.to_str().expect("UTF-8")]));
    let names = |peer: &Peer| -> Vec<String> {
        let mut names: Vec<String> = peer
            .lines("/allocations")
            .iter()
            .map(|p| format!("{} {} {}", p["cid"], p["name"], p["metadata"]))
            .collect();
        names.sort();
        names
    };
    let mut wanted: Vec<String> =
        before.iter().map(|p| format!("{} {} {}", p["cid"], p["name"], p["metadata"])).collect();
    wanted.sort();
    assert_eq!(names(&other), wanted);
    other.stop();
    // ... and into a third that is stopped.
    let mut third = running(tmp.path().join("third"));
    third.stop();
    ok(third.ctl(&["state", "import", "-f", file.to_str().expect("UTF-8")]));
    third.start(&["daemon"]);
    assert_eq!(names(&third), wanted);
}

#[test]
fn old_backups_go_and_good_ones_are_not_pushed_out() {
    let tmp = tempfile::tempdir().expect("folder");
    let peer = running(tmp.path().join("p"));
    let shelf = tmp.path().join("shelf");
    let backup = |keep: &str| ok(peer.ctl(&["backup", "--keep", keep, shelf.to_str().expect("UTF-8")]));
    // A new peer has an empty list, and that is one, too.
    assert!(backup("3").starts_with("0 pins are in "));
    for n in 1..=4 {
        peer.json("POST", &format!("/pins/{}", cid_of(n)));
        backup("3");
    }
    let numbered = |numbers: [u32; 3]| numbers.map(|n| format!("pinset-{n:06}.ndjson")).to_vec();
    assert_eq!(files(&shelf), numbered([3, 4, 5]));
    // Nothing new: no new file, however often the timer asks.
    for _ in 0..4 {
        assert!(backup("3").contains("nothing has changed since"));
    }
    assert_eq!(files(&shelf), numbered([3, 4, 5]));
    // A list that is suddenly empty takes nobody's place.
    for n in 1..=4 {
        peer.json("DELETE", &format!("/pins/{}", cid_of(n)));
    }
    assert!(peer.pinned_cids().is_empty());
    assert!(backup("1").contains("the peer has no pins"), "an empty list");
    assert_eq!(files(&shelf), numbered([3, 4, 5]));
    assert_eq!(peer.ctl(&["backup", "--keep", "0"]).status.code(), Some(1));
}

#[test]
fn a_peer_that_does_not_answer_costs_no_backup() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = running(tmp.path().join("p"));
    peer.json("POST", &format!("/pins/{}", cid_of(1)));
    ok(peer.ctl(&["backup", "--keep", "1"]));
    let daily = peer.folder.join("backups/daily");
    peer.stop();
    let refused = peer.ctl(&["backup", "--keep", "1"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(files(&daily), ["pinset-000001.ndjson"]);
}

#[test]
fn the_room_that_the_peer_needs_is_left_to_it() {
    let tmp = tempfile::tempdir().expect("folder");
    let peer = running(tmp.path().join("p"));
    peer.json("POST", &format!("/pins/{}", cid_of(1)));
    let Some(disk) = SmallDisk::mount(&tmp.path().join("disk"), 64) else { return };
    let at = tmp.path().join("disk/shelf");
    let backup = || peer.ctl(&["backup", at.to_str().expect("UTF-8")]);
    ok(backup());
    peer.json("POST", &format!("/pins/{}", cid_of(2)));
    disk.fill_to(4 << 20);
    let refused = backup();
    assert_eq!(refused.status.code(), Some(9), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("make room"), "{refused:?}");
    // Whole files only.
    assert_eq!(files(&at), ["pinset-000001.ndjson"]);
}
