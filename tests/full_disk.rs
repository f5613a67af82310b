//! A disk that fills up, on a small file system of its own: refusals with the reason, no acknowledged pin lost, no
//! half upload pinned, and work that goes on by itself when there is room again. For root only: it mounts.

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use support::cluster::{cid_of, ok, Peer, PATIENCE, SECRET};
use support::disk::SmallDisk;
use support::wait_for;

/// How long a stop or a start with a full disk may take, on a machine that compiles beside it.
const SECONDS: Duration = Duration::from_secs(20);

/// A peer on a disk of its own. The values drop in this order: process, disk, folder.
struct OnSmallDisk {
    peer: Peer,
    disk: SmallDisk,
    _tmp: tempfile::TempDir,
}

fn on_small_disk(mebibytes: u32) -> Option<OnSmallDisk> {
    let tmp = tempfile::tempdir().expect("folder");
    let folder = tmp.path().join("p");
    let disk = SmallDisk::mount(&folder, mebibytes)?;
    let mut peer = Peer::init(folder, "p", SECRET);
    peer.start(&["daemon"]);
    peer.wait_candidates(1);
    Some(OnSmallDisk { peer, disk, _tmp: tmp })
}

/// Pins until it is refused; what was acknowledged, and the refusal.
fn pin_until_refused(peer: &Peer, first: u64) -> (Vec<String>, String) {
    let mut acknowledged = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    for n in first.. {
        let cid = cid_of(n);
        match peer.request("POST", &format!("/pins/{cid}")) {
            Ok((200, _)) => acknowledged.push(cid),
            Ok((status, body)) => return (acknowledged, format!("{status} {body}")),
            Err(error) => return (acknowledged, error),
        }
        assert!(Instant::now() < deadline, "pins were taken for {PATIENCE:?} with a full disk");
    }
    unreachable!("numbers do not end")
}

/// Whether a message says that the disk is the trouble.
fn names_the_disk(said: &str) -> bool {
    ["disk", "No space left"].iter().any(|words| said.contains(words))
}

fn assert_kept(peer: &Peer, acknowledged: &[String]) {
    let have: HashSet<String> = peer.pinned_cids().into_iter().collect();
    let missing = acknowledged.iter().filter(|c| !have.contains(*c)).count();
    assert_eq!(missing, 0, "{missing} of {} acknowledged pins are missing", acknowledged.len());
}

#[test]
fn a_nearly_full_disk_refuses_pins_and_keeps_serving() {
    let Some(mut on) = on_small_disk(128) else { return };
    let first = cid_of(0);
    on.peer.json("POST", &format!("/pins/{first}"));
    // Under the reserve, but with room for what is under way.
    on.disk.fill_to(4 << 20);
    let (mut acknowledged, refusal) = pin_until_refused(&on.peer, 1);
    assert!(
        refusal.starts_with("507 ") && refusal.contains("full") && refusal.contains("make room"),
        "{refusal}"
    );
    acknowledged.push(first.clone());
    // Reading, removing and stopping need no new room.
    assert_kept(&on.peer, &acknowledged);
    on.peer.json("DELETE", &format!("/pins/{first}"));
    acknowledged.retain(|c| *c != first);
    let (status, _) = on.peer.stop();
    assert!(status.success(), "{}", on.peer.log());
    on.peer.start(&["daemon"]);
    assert_kept(&on.peer, &acknowledged);
    assert!(!on.peer.pinned_cids().contains(&first));
    // Room again: writes again, by themselves.
    on.disk.make_room();
    wait_for("pins to be taken again", PATIENCE, || {
        match on.peer.request("POST", &format!("/pins/{first}")) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn a_disk_that_fills_up_under_writes_loses_no_acknowledged_pin() {
    let Some(mut on) = on_small_disk(128) else { return };
    let (stop, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let url = on.peer.url();
    std::thread::scope(|scope| {
        for writer in 1..=4u64 {
            let (stop, acknowledged, url) = (&stop, &acknowledged, &url);
            scope.spawn(move || {
                let agent: ureq::Agent = ureq::Agent::config_builder()
                    .timeout_global(Some(Duration::from_secs(10)))
                    .http_status_as_error(false)
                    .build()
                    .into();
                let mut n = writer << 32;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let cid = cid_of(n);
                    match agent.post(format!("{url}/pins/{cid}")).send_empty() {
                        Ok(answer) if answer.status() == 200 => acknowledged.lock().expect("lock").push(cid),
                        _ => std::thread::sleep(Duration::from_millis(20)),
                    }
                }
            });
        }
        wait_for("pins", PATIENCE, || match acknowledged.lock().expect("lock").len() {
            n if n > 100 => Ok(()),
            n => Err(n.to_string()),
        });
        // Quicker than free space is looked at: the log itself runs into the end of the disk.
        on.disk.fill_to(0);
        let refusal = wait_for("the refusal of pins", PATIENCE, || {
            match on.peer.request("POST", &format!("/pins/{}", cid_of(1))) {
                Ok((200, _)) => {
                    acknowledged.lock().expect("lock").push(cid_of(1));
                    Err("taken".into())
                }
                other => Ok(other),
            }
        });
        stop.store(true, Ordering::Relaxed);
        eprintln!("refused: {refusal:?}");
    });
    let acknowledged = acknowledged.into_inner().expect("lock");
    // Alive, refusing with the reason and reading; or ended, with the reason.
    if on.peer.is_running() {
        let answer = on.peer.request("POST", &format!("/pins/{}", cid_of(2)));
        match answer {
            Ok((status, body)) => assert!(status >= 500 && names_the_disk(&body), "{status} {body}"),
            Err(error) => eprintln!("no answer: {error}"),
        }
    }
    if on.peer.is_running() {
        assert_kept(&on.peer, &acknowledged);
        // The state cannot be committed nor the export be written: the stop says so, and ends all the same.
        let (_, took) = on.peer.stop();
        assert!(took < SECONDS, "{took:?}");
    } else {
        on.peer.wait_end();
    }
    let said = on.peer.log();
    assert!(!said.contains("panic"), "{said}");
    assert!(names_the_disk(&said), "{said}");
    // On the full disk it either starts and has everything, or says why not.
    on.peer.spawn(&["daemon"]);
    wait_for("a start or its end", PATIENCE, || {
        let ready = on.peer.log().contains(" is ready: ");
        if ready || !on.peer.is_running() {
            Ok(())
        } else {
            Err(on.peer.log())
        }
    });
    let said = on.peer.log();
    if on.peer.is_running() {
        assert_kept(&on.peer, &acknowledged);
    } else {
        assert!(!said.contains("panic") && names_the_disk(&said), "{said}");
    }
    on.peer.kill();
    on.disk.make_room();
    on.peer.start(&["daemon"]);
    assert_kept(&on.peer, &acknowledged);
    on.peer.json("POST", &format!("/pins/{}", cid_of(3)));
    eprintln!("{} pins were acknowledged before the disk was full", acknowledged.len());
}

#[test]
fn an_add_to_a_full_disk_is_refused_and_what_was_there_stays() {
    let Some(mut on) = on_small_disk(192) else { return };
    let file = on._tmp.path().join("file");
    let big = on._tmp.path().join("big");
    std::fs::write(&file, "hello world\n").expect("file");
    std::fs::write(&big, (0..40_000_000u32 / 4).flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
        .expect("file");
    let (file, big) = (file.to_str().expect("UTF-8"), big.to_str().expect("UTF-8"));
    let root = ok(on.peer.ctl(&["add", "-Q", file])).trim().to_string();
    // Room for the beginning of the big one only.
    on.disk.fill_to(80 << 20);
    let output = on.peer.ctl(&["add", "-Q", big]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("disk") && said.contains("free"), "{said}");
    assert_eq!(on.peer.pinned_cids(), std::slice::from_ref(&root), "half an upload is not pinned");
    on.disk.fill_to(0);
    let output = on.peer.ctl(&["add", "-Q", file]);
    // The same file needs no room; if it is refused, then with the reason.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() || said.contains("full") || said.contains("free"), "{said}");
    assert_eq!(ok(on.peer.ctl(&["cat", &root])), "hello world\n");
    assert!(on.peer.is_running());
    on.disk.make_room();
    on.peer.json("POST", "/ipfs/gc");
    wait_for("the add, with room", PATIENCE, || {
        let output = on.peer.ctl(&["add", "-Q", big]);
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
    assert!(!on.peer.log().contains("panic"));
}
