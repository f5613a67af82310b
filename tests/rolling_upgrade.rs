//! Three peers of the release before, upgraded one after the other while somebody writes.
//!
//! Needs the old executable: `$PINFOLD_OLD`, else `target/old/pinfold`, which `tests/old_build.sh` builds from this
//! repository's history. Where neither is there (a shallow clone), the tests say so and are no failure: the
//! fixture in `tests/data/format1` is always there, and `tests/upgrade.rs` with it.

mod support;

use pinfold::state::version::SPOKEN;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::cluster::{cid_of, free_port, ok, under_test, Peer, PATIENCE, SECRET};
use support::{older_build, wait_for};

/// The longest that writing may be impossible while peers come and go: an election, and a machine that compiles.
const ELECTION: Duration = Duration::from_secs(10);

/// Initialises with the old build, on ports that are free.
fn init(old: &Path, folder: PathBuf, name: &str) -> Peer {
    let peer = Peer::fresh(folder);
    let mut init = under_test(old);
    init.env("CLUSTER_SECRET", SECRET).env("CLUSTER_PEERNAME", name);
    ok(init.args(["-c", peer.path(), "init", "--randomports"]).output().expect("init starts"));
    peer.edit(|config| {
        let at = |port: u16| Value::from(format!("/ip4/127.0.0.1/tcp/{port}"));
        config["ipfs_connector"]["embedded"]["listen_multiaddress"] = at(0);
        config["cluster"]["listen_multiaddress"] = at(free_port());
        config["api"]["restapi"]["http_listen_multiaddress"] = at(free_port());
    });
    peer
}

fn by(program: &Path, peer: &Peer, args: &[&str]) -> Output {
    under_test(program).args(["-c", peer.path()]).args(args).output().expect("the executable starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Content that is in its own name: it is pinned wherever it is asked for, at once.
fn inline(n: u64) -> String {
    let hash =
        multihash::Multihash::<64>::wrap(0x00, format!("inline {n}").as_bytes()).expect("a short text");
    cid::Cid::new_v1(0x55, hash).to_string()
}

/// Somebody who pins without a pause, at whichever peer answers.
struct Writer {
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Vec<String>>>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Writer {
    fn start(urls: Vec<String>, first: u64) -> Writer {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (ends, acknowledged) = (stop.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .timeout_global(Some(ELECTION))
                .http_status_as_error(false)
                .build()
                .into();
            let (mut longest, mut last, mut at) = (Duration::ZERO, Instant::now(), 0);
            let mut number = first;
            while !ends.load(Ordering::Relaxed) {
                let cid = inline(number);
                let url = format!("{}/pins/{cid}?name=n{number}", urls[at % urls.len()]);
                match agent.post(&url).send_empty() {
                    Ok(answer) if answer.status() == 200 => {
                        longest = longest.max(last.elapsed());
                        last = Instant::now();
                        acknowledged.lock().expect("list").push(cid);
                        number += 1;
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    // Not acknowledged: it may or may not be there. Somebody else is asked.
                    _ => {
                        at += 1;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
            longest.max(last.elapsed())
        });
        Writer { stop, done, thread }
    }

    fn count(&self) -> usize {
        self.done.lock().expect("list").len()
    }

    /// What was acknowledged, sorted, and the longest time without an acknowledgement.
    fn end(self) -> (Vec<String>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.thread.join().expect("writer");
        let mut done = std::mem::take(&mut *self.done.lock().expect("list"));
        done.sort();
        (done, longest)
    }
}

/// Waits until the cluster speaks this build's version everywhere, and every member has told what it runs.
fn wait_raised(peers: &[Peer]) {
    for peer in peers {
        wait_for("this build's cluster version, and everybody's version in it", PATIENCE, || {
            let health = peer.consensus();
            let members = health["members"].as_array().cloned().unwrap_or_default();
            let told =
                members.len() == peers.len() && members.iter().all(|m| m["version"] == pinfold::VERSION);
            (health["cluster_version"] == SPOKEN && told).then_some(()).ok_or_else(|| health.to_string())
        });
    }
}

/// Asks everything that one peer asks another, at this peer: builds that differ must understand each other.
fn every_call(peer: &Peer, peers: usize, known: &str, file: &Path) {
    let ids = peer.lines("/peers");
    assert_eq!(ids.len(), peers);
    for id in &ids {
        assert_eq!(id["error"], "", "{id}\n{}", peer.log());
    }
    wait_for("statuses of all peers", PATIENCE, || {
        let status = peer.json("GET", &format!("/pins/{known}"));
        let map = status["peer_map"].as_object().cloned().unwrap_or_default();
        let good =
            map.len() == peers && map.values().all(|p| p["status"] != "cluster_error" && p["error"] == "");
        good.then_some(()).ok_or_else(|| status.to_string())
    });
    let graph = peer.json("GET", "/health/graph");
    let links = graph["cluster_links"].as_object().expect("links");
    assert!(
        links.len() == peers && links.values().all(|l| l.as_array().is_some_and(|l| l.len() == peers - 1)),
        "{graph}"
    );
    for path in ["/pins?filter=pinning,pinned", "/pins?local=true"] {
        assert!(!peer.lines(path).is_empty(), "{path}");
    }
    peer.json("POST", &format!("/pins/{known}/recover"));
    assert_eq!(peer.json("POST", "/ipfs/gc")["peer_map"].as_object().expect("peers").len(), peers);
    peer.wait_candidates(peers);
    let name = format!("by {}", peer.path());
    let root = ok(peer.ctl(&["add", "-Q", "--name", &name, file.to_str().expect("UTF-8")])).trim().to_owned();
    peer.wait_status(&root, "pinned", peers);
    assert_eq!(
        peer.request("GET", &format!("/allocations/{known}?consistency=strong")).expect("answer").0,
        200
    );
}

/// Applied index, digest and cluster version of a stopped peer's state.
fn digest(peer: &Peer) -> (u64, u128, u16) {
    let (_log, state) = pinfold::store::open(&peer.folder.join("raft")).expect("stores");
    let machine = pinfold::state::Machine::open(Arc::new(state)).expect("machine");
    machine.verify().expect("the rows are what the digest says");
    (machine.applied().index, machine.digest(), machine.cluster_version())
}

#[test]
fn three_peers_are_upgraded_one_by_one_under_load() {
    let Some(old) = older_build() else { return };
    let tmp = tempfile::tempdir().expect("folder");
    let mut peers: Vec<Peer> =
        (0..3).map(|n| init(&old, tmp.path().join(format!("p{n}")), &format!("p{n}"))).collect();
    peers[0].start_as(&old, &["daemon"]);
    let bootstrap = peers[0].address();
    for peer in &mut peers[1..] {
        peer.start_as(&old, &["daemon", "--bootstrap", &bootstrap]);
    }
    for peer in &peers {
        peer.wait_members(3);
        peer.wait_candidates(3);
        assert_eq!(peer.json("GET", "/version")["version"], "0.1.0");
    }
    let known = inline(1_000_000);
    peers[0].json("POST", &format!("/pins/{known}?name=known"));
    // Content that one peer alone holds, to be moved when the cluster can.
    let (file, holder) = (tmp.path().join("single"), peers[2].id());
    std::fs::write(&file, "held by one").expect("file");
    let single = ["add", "-Q", "--rmin", "1", "--rmax", "1", "--allocations", &holder];
    let single = by(&old, &peers[2], &[&single[..], &[file.to_str().expect("UTF-8")]].concat());
    let single = ok(single).trim().to_owned();
    peers[2].wait_status(&single, "pinned", 1);
    let writer = Writer::start(peers.iter().map(Peer::url).collect(), 0);
    let leader = wait_for("a leader", PATIENCE, || {
        let leader = peers[0].consensus()["leader"].clone();
        peers.iter().position(|p| leader == p.id().as_str()).ok_or_else(|| leader.to_string())
    });
    // The leader last, as the guide says; it hands over when it stops, so that any order would do.
    let order: Vec<usize> = (0..3).filter(|n| *n != leader).chain([leader]).collect();
    for (turn, &n) in order.iter().enumerate() {
        let before = writer.count();
        wait_for("writing goes on", PATIENCE, || {
            (writer.count() > before + 20).then_some(()).ok_or_else(String::new)
        });
        let (status, _) = peers[n].stop();
        assert!(status.success(), "{}", peers[n].log());
        // The new build refuses the old data with the command, and the command works.
        let refused = peers[n].ctl(&["daemon"]);
        assert_eq!(refused.status.code(), Some(13), "{}", said(&refused));
        let command = format!("`pinfold -c {} state upgrade`", peers[n].path());
        assert!(said(&refused).contains(&command), "{}", said(&refused));
        let done = ok(peers[n].ctl(&["state", "upgrade", "--yes"]));
        assert!(done.contains("from data format 1 to 2"), "{done}");
        // There is no way back, and the old build says so instead of trying.
        let back = by(&old, &peers[n], &["daemon"]);
        assert!(
            !back.status.success() && said(&back).contains("written by a newer pinfold"),
            "{}",
            said(&back)
        );
        peers[n].start(&["daemon"]);
        assert_eq!(peers[n].json("GET", "/version")["version"], pinfold::VERSION);
        let before = writer.count();
        wait_for("writing goes on", PATIENCE, || {
            (writer.count() > before + 20).then_some(()).ok_or_else(String::new)
        });
        if turn < 2 {
            // Whoever is old and whoever is new, each asks each.
            for (n, peer) in peers.iter().enumerate() {
                let file = tmp.path().join(format!("file-{turn}-{n}"));
                std::fs::write(&file, format!("file {n} of turn {turn}")).expect("file");
                every_call(peer, 3, &known, &file);
            }
            assert_eq!(peers[n].consensus()["cluster_version"], 1, "one peer is still old");
            let early = peers[n].ctl(&["drain", &holder]);
            assert!(!early.status.success(), "{}", said(&early));
            // Refused by the version, or by an old peer that has to take part.
            let told = ["still speaks version 1", "runs another version of pinfold"];
            assert!(told.iter().any(|words| said(&early).contains(words)), "{}", said(&early));
        }
    }
    wait_raised(&peers);
    // What is new works now.
    ok(peers[0].ctl(&["drain", &holder]));
    let pin = peers[1].json("GET", &format!("/allocations/{single}"));
    let now = pin["allocations"].as_array().cloned().unwrap_or_default();
    assert!(now.len() == 1 && now[0] != holder.as_str(), "{pin}");
    peers[1].wait_status(&single, "pinned", 1);
    let (mut acknowledged, longest) = writer.end();
    assert!(longest < ELECTION, "nobody could write for {longest:?}");
    eprintln!("{} pins acknowledged, longest pause {longest:?}", acknowledged.len());
    acknowledged.extend([known, single]);
    for peer in &peers {
        assert_eq!(peer.request("GET", "/id?consistency=strong").expect("answer").0, 200);
        let has = peer.pinned_cids();
        let lost: Vec<_> = acknowledged.iter().filter(|cid| has.binary_search(cid).is_err()).collect();
        assert!(lost.is_empty(), "{} lost {lost:?}", peer.path());
    }
    // A cluster that has been raised lets no old peer in, and both sides say why.
    let mut late = init(&old, tmp.path().join("late"), "late");
    late.spawn_as(&old, &["daemon", "--bootstrap", &peers[0].address()]);
    let (status, _) = late.wait_end();
    assert!(!status.success());
    for word in
        ["could not join", "runs pinfold 0.1.0", "cluster version 1", "install pinfold 0.3.0 or newer"]
    {
        assert!(late.log().contains(word), "\"{word}\" is missing:\n{}", late.log());
    }
    assert!(peers[0].log().contains("runs pinfold 0.1.0"), "{}", peers[0].log());
    for peer in &mut peers {
        let (status, _) = peer.stop();
        assert!(status.success(), "{}", peer.log());
    }
    let digests: Vec<_> = peers.iter().map(digest).collect();
    for (at, digest, version) in &digests {
        assert_eq!(*version, SPOKEN);
        for (other_at, other, _) in &digests {
            assert!(at != other_at || digest == other, "{digests:?}");
        }
    }
}

#[test]
fn old_and_new_peers_join_each_other_and_keep_the_same_state() {
    let Some(old) = older_build() else { return };
    let tmp = tempfile::tempdir().expect("folder");
    let mut peers: Vec<Peer> =
        (0..3).map(|n| init(&old, tmp.path().join(format!("p{n}")), &format!("p{n}"))).collect();
    peers[0].start_as(&old, &["daemon"]);
    let many: Vec<String> = (0..50).map(cid_of).collect();
    for cid in &many {
        peers[0].json("POST", &format!("/pins/{cid}?name=x&meta-a=b&expire-in=1000h"));
    }
    // A new peer gets an old one's snapshot, an old peer that of whoever leads, asked through the new one.
    let (first, second) = (peers[0].address(), peers[1].address());
    peers[1].start(&["daemon", "--bootstrap", &first]);
    peers[2].start_as(&old, &["daemon", "--bootstrap", &second]);
    for peer in &peers {
        peer.wait_members(3);
        peer.wait_candidates(3);
    }
    for (n, cid) in many.iter().enumerate() {
        let peer = &peers[n % 3];
        match n % 5 {
            0 => peer.json("DELETE", &format!("/pins/{cid}")),
            1 => peer.json("POST", &format!("/pins/{cid}?name=y&replication-min=1&replication-max=2")),
            _ => Value::Null,
        };
    }
    // The new one leads too: what it puts into the log, the old ones must understand.
    for n in [2, 0, 1] {
        let (status, _) = peers[n].stop();
        assert!(status.success(), "{}", peers[n].log());
        match n {
            1 => peers[n].start(&["daemon"]),
            _ => peers[n].start_as(&old, &["daemon"]),
        }
        for (n, peer) in peers.iter().enumerate() {
            peer.json("POST", &format!("/pins/{}?name=z", cid_of(100 + n as u64)));
        }
    }
    assert_eq!(peers[1].consensus()["cluster_version"], 1);
    let everything = peers[0].pinned_cids();
    for peer in &mut peers {
        assert_eq!(peer.request("GET", "/id?consistency=strong").expect("answer").0, 200);
        assert_eq!(peer.pinned_cids(), everything, "{}", peer.path());
    }
    for peer in &mut peers {
        peer.kill();
        ok(peer.ctl(&["state", "upgrade", "-f"]));
    }
    let digests: Vec<_> = peers.iter().map(digest).collect();
    assert!(digests.iter().all(|(_, _, version)| *version == 1), "{digests:?}");
    // All together now, each from where it was killed.
    for peer in &mut peers {
        peer.spawn(&["daemon"]);
    }
    for peer in &mut peers {
        peer.wait_ready();
    }
    wait_raised(&peers);
    for peer in &peers {
        wait_for("the same pins everywhere", PATIENCE, || {
            let has = peer.pinned_cids();
            (has == everything).then_some(()).ok_or_else(|| format!("{} pins", has.len()))
        });
    }
    for peer in &mut peers {
        peer.stop();
    }
    let digests: Vec<_> = peers.iter().map(digest).collect();
    // Nothing but elections stands in the log after that.
    assert!(digests.iter().all(|d| d.1 == digests[0].1), "{digests:?}");
}
