//! The release executables for boards, emulated: 32-bit words, ARM and musl are in them, which nothing else here has.
//!
//! `tests/foreign` runs the other black-box tests against such an executable. Here is what needs two of them together, or
//! looks at what only differs there: peers of three kinds in one cluster, data that moves from one kind to another, numbers
//! beyond 32 bits, clocks, mutexes. The executables are made by `cross/build`; see `support/foreign.rs`.

#[path = "support/http.rs"]
mod http;
mod support;

use data_encoding::BASE64_NOPAD;
use http::{multipart, send, Answer};
use serde_json::{json, Value};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::clock::Clock;
use support::cluster::{cid_of, ok, Cluster, Peer, PATIENCE, SECRET};
use support::executable::executable;
use support::foreign::{foreign, AARCH64, ARMV7, X86_64};
use support::{skip, wait_for};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Peers that run these executables, the first one founding; as [`Cluster::with`].
fn cluster_of(programs: &[&Path]) -> Cluster {
    let folder = tempfile::tempdir().expect("a folder");
    let mut peers: Vec<Peer> = Vec::new();
    for (i, program) in programs.iter().enumerate() {
        let name = format!("p{i}");
        let mut peer = Peer::init_by(program, folder.path().join(&name), &name, SECRET);
        match peers.first() {
            None => peer.start(&["daemon"]),
            Some(first) => peer.start(&["daemon", "--bootstrap", &first.address()]),
        }
        peers.push(peer);
    }
    for peer in &peers {
        peer.wait_members(programs.len());
        peer.wait_voters(programs.len());
        peer.wait_candidates(programs.len());
    }
    Cluster { peers, folder }
}

/// Some files, with sizes around those at which something else begins.
fn files(at: &Path) -> PathBuf {
    let dir = at.join("files");
    std::fs::create_dir_all(dir.join("inner")).expect("folder");
    for size in [0usize, 1, 262_143, 262_144, 262_145, 1_500_001] {
        let content: Vec<u8> = (0..size).map(|n| (n * 31 + n / 256 * 7) as u8).collect();
        std::fs::write(dir.join(format!("inner/{size}")), content).expect("file");
    }
    dir
}

/// Whether two folders of such files are the same.
fn assert_same(a: &Path, b: &Path) {
    for entry in std::fs::read_dir(a.join("inner")).expect("folder") {
        let name = entry.expect("entry").file_name();
        let read = |dir: &Path| std::fs::read(dir.join("inner").join(&name)).expect("file");
        assert!(read(a) == read(b), "{name:?} differs");
    }
}

/// All pins, in full, once all peers agree that there are `n`.
fn wait_agreement(peers: &[&Peer], n: usize) -> Vec<Value> {
    wait_for("one pin list", PATIENCE, || {
        let lists: Vec<Vec<Value>> = peers.iter().map(|p| p.lines("/allocations")).collect();
        if lists[0].len() == n && lists.iter().all(|list| *list == lists[0]) {
            return Ok(lists[0].clone());
        }
        Err(format!("{lists:?}"))
    })
}

fn pin(peer: &Peer, cid: &str) {
    wait_for("a pin", PATIENCE, || match peer.request("POST", &format!("/pins/{cid}?name=a%20name")) {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Pins something, and has this one of three lead: one that stops hands over to whoever has everything.
fn lead(cluster: &mut Cluster, next: usize, cid: &str) {
    let leader = cluster.leader();
    if leader == next {
        return pin(&cluster.peers[next], cid);
    }
    let behind = 3 - leader - next;
    cluster.peers[behind].signal("STOP");
    pin(&cluster.peers[leader], cid);
    cluster.peers[leader].stop();
    cluster.peers[behind].signal("CONT");
    wait_for("the successor", PATIENCE, || match cluster.leader() {
        leader if leader == next => Ok(()),
        other => Err(format!("p{other} leads")),
    });
    cluster.peers[leader].start(&["daemon"]);
}

/// Three boards of one kind live through what boards live through.
fn a_day_of_three(target: &str) {
    let Some(program) = foreign(target) else { return };
    let mut cluster = cluster_of(&[&program, &program, &program]);
    let dir = files(cluster.folder.path());
    let root = ok(cluster.peers[1].ctl(&["add", "-Q", "-r", dir.to_str().expect("UTF-8")])).trim().to_owned();
    cluster.peers[0].wait_status(&root, "pinned", 3);
    let mut expected = 1;
    for round in 0..2 {
        // The leader first, then one that follows.
        let leader = cluster.leader();
        let victim = if round == 0 { leader } else { (leader + 1) % 3 };
        cluster.peers[victim].kill();
        for n in 0..5 {
            pin(&cluster.peers[(victim + 1) % 3], &cid_of(round * 10 + n));
            expected += 1;
        }
        // Whoever is left has the content, whole.
        let copy = cluster.path(&format!("copy{round}"));
        let other = &cluster.peers[(victim + 2) % 3];
        ok(other.ctl(&["get", &root, "-o", copy.to_str().expect("UTF-8")]));
        assert_same(&dir, &copy);
        cluster.peers[victim].start(&["daemon"]);
        wait_agreement(&cluster.peers.iter().collect::<Vec<_>>(), expected);
    }
    let before = wait_agreement(&cluster.peers.iter().collect::<Vec<_>>(), expected);
    // The power of the house.
    for peer in &mut cluster.peers {
        peer.kill();
    }
    for peer in &mut cluster.peers {
        let looked = peer.ctl(&["state", "check"]);
        assert!(looked.status.success(), "{}", said(&looked));
        peer.spawn(&["daemon"]);
    }
    for peer in &mut cluster.peers {
        peer.wait_ready();
    }
    assert_eq!(wait_agreement(&cluster.peers.iter().collect::<Vec<_>>(), expected), before);
    // Beside the daemon, which has the same files mapped.
    let looked = cluster.peers[0].ctl(&["state", "check"]);
    assert!(looked.status.success(), "{}", said(&looked));
    for peer in &mut cluster.peers {
        let (status, _) = peer.stop();
        assert!(status.success(), "{status}\n{}", peer.log());
    }
}

#[test]
fn three_64_bit_boards_live_through_a_day() {
    a_day_of_three(AARCH64);
}

#[test]
fn three_32_bit_boards_live_through_a_day() {
    a_day_of_three(ARMV7);
}

#[test]
fn boards_of_three_kinds_are_one_cluster() {
    let (Some(arm64), Some(arm32)) = (foreign(AARCH64), foreign(ARMV7)) else { return };
    let native = executable();
    // A 32-bit board founds it: the first entries, and the first snapshot, are of its writing.
    let mut cluster = cluster_of(&[&arm32, &arm64, &native]);
    let dir = files(cluster.folder.path());
    let roots: Vec<String> = (0..3)
        .map(|i| {
            // Each adds something of its own, and all hold everything.
            let own = dir.join("inner/own");
            std::fs::write(&own, format!("of peer {i}").repeat(100_000)).expect("file");
            let path = dir.to_str().expect("UTF-8");
            ok(cluster.peers[i].ctl(&["add", "-Q", "-r", path])).trim().to_owned()
        })
        .collect();
    for root in &roots {
        cluster.peers[0].wait_status(root, "pinned", 3);
    }
    // Everything that a pin has, and numbers at the ends of their ranges.
    let all = format!(
        "name=gr%C3%BC%C3%9Fe&mode=direct&replication-min=1&replication-max=2&shard-size={}&expire-at=2100-01-01T00:00:00Z\
         &meta-k=v&meta-empty=",
        u64::MAX
    );
    cluster.peers[0].json("POST", &format!("/pins/{}?{all}", cid_of(1)));
    cluster.peers[1].json("POST", &format!("/pins/{}?replication=-1", cid_of(2)));
    let mut expected = 5;
    // Each kind leads once; then it is killed, the others go on, it comes back.
    for next in 0..3 {
        lead(&mut cluster, next, &cid_of(100 + next as u64));
        pin(&cluster.peers[next], &cid_of(200 + next as u64));
        cluster.peers[next].kill();
        pin(&cluster.peers[(next + 1) % 3], &cid_of(300 + next as u64));
        cluster.peers[next].start(&["daemon"]);
        expected += 3;
        wait_agreement(&cluster.peers.iter().collect::<Vec<_>>(), expected);
    }
    let pins = wait_agreement(&cluster.peers.iter().collect::<Vec<_>>(), expected);
    let full = pins.iter().find(|p| p["cid"] == cid_of(1).as_str()).expect("the full pin");
    assert_eq!(full["shard_size"], json!(u64::MAX), "{full}");
    assert_eq!(full["expire_at"], "2100-01-01T00:00:00Z", "{full}");
    assert_eq!((&full["name"], &full["metadata"]["k"]), (&json!("grüße"), &json!("v")), "{full}");
    // Each gives back what another one added.
    for (i, root) in roots.iter().enumerate() {
        let content = ok(cluster.peers[(i + 1) % 3].ctl(&["cat", &format!("{root}/inner/own")]));
        assert_eq!(content, format!("of peer {i}").repeat(100_000));
    }
    // A new one of each word size takes its state from whoever leads.
    for (i, program) in [&arm32, &native].into_iter().enumerate() {
        let mut more = Peer::init_by(program, cluster.path(&format!("more{i}")), &format!("more{i}"), SECRET);
        more.start(&["daemon", "--bootstrap", &cluster.peers[i].address()]);
        wait_agreement(&[&cluster.peers[0], &more], expected);
    }
}

#[test]
fn a_pin_list_moves_between_32_and_64_bits() {
    let Some(arm32) = foreign(ARMV7) else { return };
    let native = executable();
    let tmp = tempfile::tempdir().expect("folder");
    let mut first: Option<String> = None;
    for (i, program) in [&arm32, &native, &arm32].into_iter().enumerate() {
        let mut peer = Peer::init_by(program, tmp.path().join(format!("p{i}")), "p", SECRET);
        let file = tmp.path().join(format!("export{i}"));
        if i == 0 {
            peer.start(&["daemon"]);
            for n in 0..20u64 {
                let path = format!(
                    "/pins/{}?name=n{n}&shard-size={}&expire-at=21{n:02}-02-28T23:59:59Z&meta-n={n}",
                    cid_of(n),
                    n << 33
                );
                peer.json("POST", &path);
            }
            peer.stop();
        } else {
            let before = tmp.path().join(format!("export{}", i - 1));
            ok(peer.ctl(&["state", "import", "-f", before.to_str().expect("UTF-8")]));
        }
        let text = ok(peer.ctl(&["state", "export"]));
        assert_eq!(text.lines().count(), 20);
        std::fs::write(file, &text).expect("file");
        match &first {
            None => first = Some(text),
            Some(first) => assert_eq!(*first, text, "peer {i}"),
        }
    }
}

fn rpc(peer: &Peer, path: &str, content: Option<&[u8]>) -> Answer {
    let path = format!("/api/v0/{path}");
    let answer = match content {
        None => send(peer.proxy(), "POST", &path, &[], None),
        Some(content) => {
            let disposition = "form-data; name=\"file\"; filename=\"f\"".to_owned();
            let kind = "application/octet-stream".to_owned();
            let headers =
                vec![("Content-Disposition".to_owned(), disposition), ("Content-Type".to_owned(), kind)];
            let (kind, body) = multipart(&[(headers, content.to_vec())]);
            send(peer.proxy(), "POST", &path, &[("Content-Type".to_owned(), kind)], Some(&body))
        }
    };
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Puts the node of a file of these parts (CID, length); its own.
fn put_file(peer: &Peer, parts: &[(&str, u64)]) -> (String, u64) {
    // UnixFS: a file, its length, the lengths of its parts.
    let length: u64 = parts.iter().map(|(_, n)| n).sum();
    let mut data = vec![0x08, 2, 0x18];
    varint(length, &mut data);
    for (_, n) in parts {
        data.push(0x20);
        varint(*n, &mut data);
    }
    let links: Vec<Value> =
        parts.iter().map(|(cid, n)| json!({"Hash": {"/": cid}, "Name": "", "Tsize": n})).collect();
    let node = json!({"Data": {"/": {"bytes": BASE64_NOPAD.encode(&data)}}, "Links": links});
    let answer = rpc(peer, "dag/put?store-codec=dag-pb", Some(node.to_string().as_bytes()));
    let cid: Value = serde_json::from_str(&answer.text()).expect("JSON");
    (cid["Cid"]["/"].as_str().expect("CID").to_owned(), length)
}

#[test]
fn a_32_bit_board_counts_beyond_four_gibibytes() {
    const MIB: u64 = 1 << 20;
    let Some(arm32) = foreign(ARMV7) else { return };
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init_by(&arm32, tmp.path().join("p"), "p", SECRET);
    // Twice 2^32 and something: cut to 32 bits it would be next to nothing.
    peer.edit(|config| config["ipfs_connector"]["embedded"]["storage_max"] = json!(2u64 << 32 | 5 << 20));
    peer.start(&["daemon"]);
    let stat: Value = serde_json::from_str(&rpc(&peer, "repo/stat", None).text()).expect("JSON");
    assert_eq!(stat["StorageMax"], json!(2u64 << 32 | 5 << 20), "{stat}");
    peer.wait_candidates(1);
    let space = peer.json("GET", "/monitor/metrics/freespace");
    let free: u64 = space[0]["value"].as_str().and_then(|v| v.parse().ok()).unwrap_or_default();
    assert!(free > 1 << 32 || free == 0, "{space}");
    // A file of 5 GiB and three letters, made of three blocks: the same zeros over and over, and an end.
    let zeros = rpc(&peer, "block/put?cid-codec=raw", Some(&vec![0; MIB as usize])).text();
    let end = rpc(&peer, "block/put?cid-codec=raw", Some(b"end")).text();
    let key = |text: &str| {
        let answer: Value = serde_json::from_str(text).expect("JSON");
        answer["Key"].as_str().expect("a key").to_owned()
    };
    let (zeros, end) = (key(&zeros), key(&end));
    let (gib, length) = put_file(&peer, &vec![(zeros.as_str(), MIB); 1024]);
    assert_eq!(length, 1 << 30);
    let parts = [(gib.as_str(), length); 5].into_iter().chain([(end.as_str(), 3)]).collect::<Vec<_>>();
    let (file, length) = put_file(&peer, &parts);
    assert_eq!(length, 5 * (1 << 30) + 3);
    for (offset, count, expected) in [
        (5u64 << 30, 100, &b"end"[..]),
        ((5 << 30) - 2, 4, b"\0\0en"),
        (u64::from(u32::MAX) - 1, 4, b"\0\0\0\0"),
        ((5 << 30) + 3, 10, b""),
        (1 << 40, 10, b""),
    ] {
        let got = send(
            peer.proxy(),
            "POST",
            &format!("/api/v0/cat?arg={file}&offset={offset}&length={count}"),
            &[],
            None,
        )
        .expect("an answer");
        // What lies beyond the end may be nothing or an error, but never something.
        let beyond = offset > length;
        assert!(got.status == 200 || beyond, "{offset}: {} {}", got.status, got.text());
        assert!(got.body == expected || got.status != 200, "{offset}: {:?}", got.text());
    }
    let listed: Value =
        serde_json::from_str(&rpc(&peer, &format!("ls?arg={gib}"), None).text()).expect("JSON");
    assert_eq!(listed["Objects"][0]["Hash"], gib.as_str(), "{listed}");
    // Pinned, it is two nodes and two blocks.
    peer.json("POST", &format!("/pins/{file}"));
    peer.wait_status(&file, "pinned", 1);
    let stat: Value =
        serde_json::from_str(&rpc(&peer, &format!("dag/stat?progress=false&arg={file}"), None).text())
            .expect("JSON");
    assert_eq!(stat["UniqueBlocks"], json!(4), "{stat}");
}

/// What musl has written into the first word of each mutex of LMDB's lock file.
fn mutex_kinds(peer: &Peer, word: usize) -> [u32; 2] {
    let lock = std::fs::read(peer.folder.join("raft/log/lock.mdb")).expect("lock.mdb");
    // Magic and format, a transaction, a count, the one for the readers; the one for writers begins a cache line.
    [8 + 2 * word, 64].map(|at| u32::from_le_bytes(lock[at..at + 4].try_into().expect("four bytes")))
}

#[test]
fn mutexes_are_robust_where_the_kernel_keeps_them_so() {
    /// Musl's bits: shared between processes, and robust.
    const SHARED: u32 = 0x80;
    const ROBUST: u32 = 4;
    let tmp = tempfile::tempdir().expect("folder");
    for (target, word, expected) in [(X86_64, 8, SHARED | ROBUST), (AARCH64, 8, SHARED), (ARMV7, 4, SHARED)] {
        let Some(program) = foreign(target) else { return };
        let mut peer = Peer::init_by(&program, tmp.path().join(target), "p", SECRET);
        peer.start(&["daemon"]);
        assert_eq!(mutex_kinds(&peer, word), [expected; 2], "{target}");
        peer.kill();
    }
}

/// Writes a program that runs the same as `wrapper`, by another command of the emulator.
fn other_emulator(wrapper: &Path, command: &str, at: &Path) {
    let script = std::fs::read_to_string(wrapper).expect("the script");
    let (_, rest) = script.split_once(" -0 ").expect("a command of qemu");
    // Not by our own hand: a test beside this one may start a program while the file is open here, and then holds it open.
    let make = format!("cat > '{0}' && chmod 755 '{0}'", at.display());
    let mut shell = Command::new("sh").args(["-c", &make]).stdin(Stdio::piped()).spawn().expect("sh");
    let text = format!("#!/bin/sh\nexec {command} -0 {rest}");
    shell.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("written");
    assert!(shell.wait().expect("sh").success());
}

#[test]
fn an_idle_peer_needs_little_memory() {
    /// Anonymous memory, KiB: some 2 MB on a PC. With huge pages, which an allocator may ask for, it is ten times that.
    const MOST: u64 = 8 << 10;
    let Some(program) = foreign(X86_64) else { return };
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init_by(&program, tmp.path().join("p"), "p", SECRET);
    peer.start(&["daemon"]);
    peer.wait_candidates(1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", peer.pid())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    let anonymous: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!((1..MOST).contains(&anonymous), "{anonymous} KiB");
}

#[test]
fn a_32_bit_board_that_woke_up_after_2038_says_so() {
    let Some(wrapper) = foreign(ARMV7) else { return };
    let tmp = tempfile::tempdir().expect("folder");
    let Some(clock) = Clock::new(tmp.path()) else { return };
    // The emulator that is linked to a C library, so that the clock can be put before that.
    if Command::new("qemu-arm").arg("--version").output().is_err() {
        return skip("there is no qemu-arm: apt-get install qemu-user");
    }
    let late = tmp.path().join("late");
    other_emulator(&wrapper, "qemu-arm", &late);
    let mut peer = Peer::init_by(&late, tmp.path().join("p"), "p", SECRET);
    // Today it starts, by the same means.
    clock.start(&mut peer);
    peer.stop();
    clock.set(20 * 365 * 24 * 3_600);
    peer.spawn_with(&["daemon"], |command| clock.of(command));
    let (status, _) = peer.wait_end();
    assert!(!status.success());
    let words = peer.log();
    assert!(words.contains("a 32-bit pinfold can tell the time only until 2038"), "{words}");
    assert!(!words.contains("panic"), "{words}");
}

#[test]
fn a_folder_of_other_words_is_refused_with_what_to_do() {
    let Some(arm32) = foreign(ARMV7) else { return };
    let native = executable();
    let tmp = tempfile::tempdir().expect("folder");
    for (name, writer, reader, bits) in [("to64", &arm32, &native, 32), ("to32", &native, &arm32, 64)] {
        let mut peer = Peer::init_by(writer, tmp.path().join(name), "p", SECRET);
        peer.start(&["daemon"]);
        pin(&peer, &cid_of(1));
        peer.stop();
        let before = ok(peer.ctl(&["state", "export"]));
        let mut moved = Peer::fresh_by(reader, peer.folder.clone());
        moved.spawn(&["daemon"]);
        let (status, _) = moved.wait_end();
        assert!(!status.success());
        let words = moved.log();
        let expected = format!("was written by a {bits}-bit pinfold and this one has {} bits", 96 - bits);
        assert!(words.contains(&expected) && words.contains("`pinfold state export`"), "{words}");
        let looked = moved.ctl(&["state", "check"]);
        assert_eq!(looked.status.code(), Some(10), "{}", said(&looked));
        assert!(said(&looked).contains(&format!("a {bits}-bit system wrote it")), "{}", said(&looked));
        // Nothing was touched: where it came from it still works.
        assert_eq!(ok(peer.ctl(&["state", "export"])), before);
        // What the sentence says: a new folder, and the pins imported.
        let file = tmp.path().join(format!("{name}.pins"));
        std::fs::write(&file, &before).expect("file");
        let mut anew = Peer::init_by(reader, tmp.path().join(format!("{name}.new")), "p", SECRET);
        ok(anew.ctl(&["state", "import", "-f", file.to_str().expect("UTF-8")]));
        anew.start(&["daemon"]);
        assert_eq!(anew.pinned_cids(), [cid_of(1)]);
    }
}

#[test]
fn names_of_the_home_network_are_not_known_to_a_static_executable() {
    let Some(program) = foreign(X86_64) else { return };
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init_by(&program, tmp.path().join("p"), "p", SECRET);
    let other = Peer::init_by(&program, tmp.path().join("q"), "q", SECRET);
    let there = format!("/dns4/no-such-board.local/tcp/9096/p2p/{}", other.id());
    peer.spawn(&["daemon", "--bootstrap", &there]);
    wait_for("the words", PATIENCE, || match peer.log() {
        log if log.contains("only /etc/hosts and DNS, which know no names in .local") => Ok(()),
        log => Err(log),
    });
}
