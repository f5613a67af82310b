//! The stores on a real disk: crashes, growth, full disks, foreign versions.

use super::*;
use crate::clock::Timestamp;
use crate::error::Kind;
use crate::state::{transfer, Applied, Command, Machine, Pin, Pins};
use crate::store::{LogBatch, LogStore, StateStore, Table, WriteBatch};
use cid::Cid;
use multihash::Multihash;
use raft::eraftpb::{Entry, EntryType, HardState};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// A map that is full after a few hundred rows.
const TINY: Options = Options { map_size: 256 << 10, map_limit: 1 << 30, reserve: 0 };

fn cid(n: u64) -> Cid {
    Cid::new_v1(0x55, Multihash::wrap(0x12, &Sha256::digest(n.to_be_bytes())).expect("32 bytes fit"))
}

fn pin(n: u64) -> Pin {
    let mut pin = Pin::new(cid(n), Timestamp::from_secs(1_700_000_000));
    pin.name = format!("pin number {n}");
    pin
}

fn at(index: u64) -> Applied {
    Applied { index, term: 1 }
}

fn batch(index: u64, rows: &[(Table, &str, Option<&str>)]) -> WriteBatch {
    let bytes = |s: &str| s.as_bytes().to_vec();
    let writes = rows.iter().map(|(table, k, v)| (*table, bytes(k), v.map(bytes))).collect();
    WriteBatch { writes, applied: (index > 0).then(|| at(index)) }
}

fn get(store: &LmdbState, table: Table, key: &str) -> Option<String> {
    let value = store.get(table, key.as_bytes()).expect("get");
    value.map(|v| String::from_utf8(v).expect("text"))
}

/// Everything that readers see.
fn content(store: &dyn StateStore) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for table in Table::ALL {
        let rows = store.scan(table, None, usize::MAX).expect("scan");
        assert_eq!(rows.len() as u64, store.count(table), "counter of {table:?}");
        all.extend(rows.into_iter().map(|(k, v)| (table, k, v)));
    }
    all
}

fn entry(index: u64, term: u64, data: &str) -> Entry {
    let mut entry = Entry { index, term, ..Entry::default() };
    entry.data = data.as_bytes().to_vec().into();
    entry
}

fn append(log: &mut LmdbLog, entries: Vec<Entry>) {
    log.append(LogBatch { entries, ..LogBatch::default() }).expect("append");
}

/// Index, term and data of all entries.
fn listed(log: &LmdbLog) -> Vec<(u64, u64, String)> {
    let (first, last) = (log.first_index(), log.last_index());
    let entries =
        if last < first { Vec::new() } else { log.entries(first, last + 1, u64::MAX).expect("entries") };
    entries
        .into_iter()
        .map(|e| (e.index, e.term, String::from_utf8(e.data.to_vec()).expect("text")))
        .collect()
}

// ---- state ----

#[test]
fn what_was_flushed_survives_and_what_was_not_does_not() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_state(dir.path(), &TINY).expect("open");
    store.write(batch(1, &[(Table::Pins, "a", Some("1")), (Table::Local, "l", Some("x"))])).expect("write");
    assert_eq!((store.applied(), store.durable()), (at(1), Applied::default()));
    assert_eq!(store.flush().expect("flush"), at(1));
    store.write(batch(2, &[(Table::Pins, "a", None), (Table::Pins, "b", Some("2"))])).expect("write");
    assert_eq!((get(&store, Table::Pins, "a"), get(&store, Table::Pins, "b")), (None, Some("2".into())));
    assert_eq!((store.count(Table::Pins), store.applied(), store.durable()), (1, at(2), at(1)));
    drop(store);

    let store = open_state(dir.path(), &TINY).expect("open again");
    assert_eq!((store.applied(), store.durable()), (at(1), at(1)));
    assert_eq!((get(&store, Table::Pins, "a"), get(&store, Table::Pins, "b")), (Some("1".into()), None));
    assert_eq!((store.count(Table::Pins), store.count(Table::Local)), (1, 1));
}

#[test]
fn reads_merge_what_is_on_disk_with_what_is_not_yet() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_state(dir.path(), &TINY).expect("open");
    let rows: Vec<_> = ["a", "c", "e", "g"].map(|k| (Table::Pins, k, Some("disk"))).to_vec();
    store.write(batch(1, &rows)).expect("write");
    store.flush().expect("flush");
    store
        .write(batch(
            2,
            &[(Table::Pins, "b", Some("new")), (Table::Pins, "c", None), (Table::Pins, "e", Some("new"))],
        ))
        .expect("write");
    let keys = |after: Option<&str>, limit| {
        let rows = store.scan(Table::Pins, after.map(str::as_bytes), limit).expect("scan");
        rows.iter().map(|(k, v)| format!("{}:{}", k[0] as char, v[0] as char)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(None, 10), "a:d b:n e:n g:d");
    assert_eq!(keys(None, 2), "a:d b:n");
    assert_eq!(keys(Some("b"), 10), "e:n g:d");
    assert_eq!(keys(Some("g"), 10), "");
    let before = content(&store);
    store.flush().expect("flush");
    assert_eq!(content(&store), before, "a flush changes nothing that is seen");
}

#[test]
fn idle_flushes_write_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_state(dir.path(), &TINY).expect("open");
    store.write(batch(1, &[(Table::Pins, "a", Some("1"))])).expect("write");
    store.flush().expect("flush");
    let file = dir.path().join("generation-1/data.mdb");
    let before = std::fs::read(&file).expect("read");
    store.flush().expect("flush");
    assert!(std::fs::read(&file).expect("read") == before);
}

#[test]
fn a_full_map_grows_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_state(dir.path(), &TINY).expect("open");
    let small = store.map_size();
    let value = "x".repeat(2_000);
    for n in 0..2_000 {
        store.write(batch(n + 1, &[(Table::Pins, &format!("{n:06}"), Some(&value))])).expect("write");
        if n % 100 == 0 {
            store.flush().expect("flush");
        }
    }
    store.flush().expect("flush");
    assert!(store.map_size() > small, "{small}");
    let before = content(&store);
    assert_eq!(before.len(), 2_000);
    drop(store);
    let store = open_state(dir.path(), &TINY).expect("a file larger than the wanted map opens");
    assert!(content(&store) == before);
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_map_that_the_system_has_no_room_for_is_halved() {
    let dir = tempfile::tempdir().expect("tempdir");
    // More than the address space of a process.
    let huge = Options { map_size: 1 << 52, map_limit: 1 << 52, reserve: 0 };
    let store = open_state(dir.path(), &huge).expect("open");
    assert!((GROWN..1 << 52).contains(&store.map_size()), "{}", store.map_size());
    store.write(batch(1, &[(Table::Pins, "a", Some("1"))])).expect("write");
    assert_eq!(store.flush().expect("flush"), at(1));
}

/// Any system has room for this much.
#[cfg(target_pointer_width = "64")]
const GROWN: usize = 1 << 20;

#[test]
fn growth_ends_at_the_limit_with_a_sentence_and_nothing_half_done() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_state(dir.path(), &Options { map_limit: 512 << 10, ..TINY }).expect("open");
    let value = "x".repeat(2_000);
    let mut last = 0;
    let error = loop {
        last += 1;
        let rows: Vec<_> = (0..20).map(|n| format!("{last:04}-{n}")).collect();
        let rows: Vec<_> = rows.iter().map(|k| (Table::Pins, k.as_str(), Some(value.as_str()))).collect();
        store.write(batch(last, &rows)).expect("write");
        if let Err(error) = store.flush() {
            break error;
        }
        assert!(last < 1_000, "the map has no limit");
    };
    assert_eq!(error.kind(), Kind::Full);
    assert_eq!(store.durable(), at(last - 1));
    assert_eq!(store.applied(), at(last), "still visible: the overlay has it");
    assert_eq!(store.count(Table::Pins), 20 * last);
    drop(store);
    let store = open_state(dir.path(), &TINY).expect("open");
    assert_eq!((store.count(Table::Pins), store.applied()), (20 * (last - 1), at(last - 1)));
}

#[test]
fn the_overlay_flushes_itself_before_it_grows_without_bound() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_state(dir.path(), &Options { reserve: 0, ..Options::default() }).expect("open");
    let rows = super::state::MAX_OVERLAY_ROWS as u64;
    for n in 0..rows {
        let writes = vec![(Table::Pins, n.to_be_bytes().to_vec(), Some(vec![1]))];
        store.write(WriteBatch { writes, applied: Some(at(n + 1)) }).expect("write");
    }
    assert_eq!(store.durable(), at(rows));
}

#[test]
fn a_nearly_full_disk_refuses_new_work_first_and_writes_last() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_state(dir.path(), &Options { reserve: 4_000, ..TINY }).expect("open");
    assert_eq!(store.full(), None);
    store.space().pretend(3_000);
    assert!(store.full().expect("full").contains("make room"));
    store.write(batch(1, &[(Table::Pins, "a", Some("1"))])).expect("what is agreed on is still written");
    store.space().pretend(900);
    assert_eq!(store.write(batch(2, &[(Table::Pins, "b", Some("1"))])).expect_err("full").kind(), Kind::Full);
    assert_eq!((store.applied(), store.count(Table::Pins)), (at(1), 1));

    let dir = tempfile::tempdir().expect("tempdir");
    let mut log = open_log(dir.path(), &Options { reserve: 4_000, ..TINY }).expect("open");
    append(&mut log, vec![entry(1, 1, "a")]);
    log.space().pretend(900);
    let more = LogBatch { entries: vec![entry(2, 1, "b")], ..LogBatch::default() };
    assert_eq!(log.append(more.clone()).expect_err("full").kind(), Kind::Full);
    assert_eq!(log.last_index(), 1);
    log.space().pretend(9_000);
    log.append(more).expect("there is room again");
    assert_eq!(log.last_index(), 2);
}

/// The real thing, where the test may mount a file system (as root); elsewhere it says that it did not.
#[test]
fn a_full_disk_fails_the_commit_as_a_whole() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(dir.path())
        .output()
        .is_ok_and(|o| o.status.success());
    if !mounted {
        println!("skipped: no permission to mount a small file system");
        return;
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let _unmount = Unmount(dir.path());

    let log_dir = dir.path().join("log");
    let mut log = open_log(&log_dir, &TINY).expect("open");
    let big = "x".repeat(50_000);
    let mut index = 0;
    let error = loop {
        let entries = vec![entry(index + 1, 1, &big)];
        match log.append(LogBatch { entries, ..LogBatch::default() }) {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
        assert!(index < 1_000, "the disk is never full");
    };
    assert_eq!(error.kind(), Kind::Full, "{error}");
    assert!(log.append(LogBatch { entries: vec![entry(index + 1, 1, "")], ..LogBatch::default() }).is_err());
    drop(log);
    let log = open_log(&log_dir, &TINY).expect("open again");
    assert_eq!(log.last_index(), index, "what was acknowledged is there, and no more");
    assert_eq!(listed(&log).len() as u64, index);
}

#[test]
fn data_of_another_version_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("tempdir");
    drop((
        open_log(dir.path(), &TINY).expect("log"),
        open_state(&dir.path().join("s"), &TINY).expect("state"),
    ));
    let rewrite = |number: u32| {
        let env = Environment::open(dir.path(), ["entries", "meta"], &TINY).expect("env");
        env.write(|tables, txn| tables[1].put(txn, FORMAT_KEY, &number.to_be_bytes())).expect("write");
        let state = dir.path().join("s/generation-1");
        let env =
            Environment::open(&state, ["pins", "members", "meta", "local", "mark"], &TINY).expect("env");
        env.write(|tables, txn| tables[4].put(txn, FORMAT_KEY, &number.to_be_bytes())).expect("write");
    };
    let errors = || {
        let log = open_log(dir.path(), &TINY).map(drop).expect_err("log");
        let state = open_state(&dir.path().join("s"), &TINY).map(drop).expect_err("state");
        [log, state]
    };
    rewrite(FORMAT + 1);
    for error in errors() {
        assert_eq!(error.kind(), Kind::Version);
        assert!(error.message().contains("written by a newer pinfold"), "{error}");
    }
    rewrite(0);
    for error in errors() {
        assert_eq!(error.kind(), Kind::Version);
        assert!(error.message().contains("run `pinfold state upgrade`"), "{error}");
    }
}

#[test]
fn garbage_instead_of_a_database_is_an_error_and_not_a_panic() {
    let dir = tempfile::tempdir().expect("tempdir");
    std::fs::write(dir.path().join("data.mdb"), vec![0xa5; 8_192]).expect("write");
    let error = open_log(dir.path(), &TINY).map(drop).expect_err("garbage");
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    let readable = open_log(Path::new("/proc/pinfold"), &TINY).map(drop).expect_err("no such place");
    assert!(readable.message().contains("/proc/pinfold"), "{readable}");
}

// ---- snapshots ----

fn machine(store: &Arc<LmdbState>) -> Machine {
    Machine::open(store.clone()).expect("machine")
}

fn fill(machine: &mut Machine, from: u64, to: u64) {
    for index in from..=to {
        let command =
            if index % 5 == 0 { Command::Unpin(cid(index - 1)) } else { Command::Pin(Box::new(pin(index))) };
        machine.apply(at(index), Some(command)).expect("apply").0.expect("answer");
    }
}

fn install(from: &LmdbState, to: &LmdbState, chunk: usize) {
    let mut source = from.snapshot().expect("snapshot");
    let mut sink = to.begin_install().expect("begin");
    loop {
        let rows = source.next(chunk).expect("next");
        if rows.is_empty() {
            break;
        }
        sink.put(rows).expect("put");
    }
    to.install(sink, source.applied()).expect("install");
}

#[test]
fn an_installed_snapshot_equals_a_replayed_log() {
    let (one, two) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
    let from = Arc::new(open_state(one.path(), &TINY).expect("open"));
    let mut leader = machine(&from);
    fill(&mut leader, 1, 500);

    let to = Arc::new(open_state(two.path(), &TINY).expect("open"));
    let mut follower = machine(&to);
    // The follower holds pins that are gone on the leader: they must not survive.
    fill(&mut follower, 1, 3);
    follower.apply(at(4), Some(Command::Pin(Box::new(pin(99_999))))).expect("apply").0.expect("pin");
    to.write(batch(0, &[(Table::Local, "mine", Some("kept"))])).expect("local");
    for chunk in [1, 700, usize::MAX] {
        install(&from, &to, chunk);
    }
    follower.reload().expect("reload");
    assert_eq!((follower.digest(), follower.applied()), (leader.digest(), leader.applied()));
    follower.verify().expect("digest of the rows");
    assert_eq!(get(&to, Table::Local, "mine"), Some("kept".into()));
    let pins = |s: &Arc<LmdbState>| Pins::new(s.clone()).iter().map(|p| p.expect("pin")).collect::<Vec<_>>();
    assert_eq!(pins(&to), pins(&from));
    assert_eq!(to.durable(), at(500), "durable when it returns");

    // Both go on alike, and after a restart too.
    fill(&mut leader, 501, 600);
    fill(&mut follower, 501, 600);
    to.flush().expect("flush");
    drop((follower, to));
    let to = Arc::new(open_state(two.path(), &TINY).expect("open again"));
    let again = machine(&to);
    assert_eq!(again.digest(), leader.digest());
    again.verify().expect("digest of the rows");
    assert_eq!(get(&to, Table::Local, "mine"), Some("kept".into()));
    let folders = std::fs::read_dir(two.path()).expect("ls").count();
    assert_eq!(folders, 2, "CURRENT and one generation");
}

#[test]
fn a_snapshot_shows_one_moment_while_writes_go_on() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Arc::new(open_state(dir.path(), &Options { map_size: 16 << 20, ..TINY }).expect("open"));
    let mut machine = machine(&store);
    fill(&mut machine, 1, 100);
    let pins = store.count(Table::Pins) as usize;
    let mut source = store.snapshot().expect("snapshot");
    let first = source.next(1).expect("next");
    fill(&mut machine, 101, 200);
    store.flush().expect("flush");
    let mut rows = first;
    loop {
        let more = source.next(1_000).expect("next");
        if more.is_empty() {
            break;
        }
        rows.extend(more);
    }
    assert_eq!(source.applied(), at(100));
    assert_eq!(rows.iter().filter(|(table, ..)| *table == Table::Pins).count(), pins);
}

#[test]
fn growing_revokes_a_snapshot_and_never_waits_for_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Arc::new(open_state(dir.path(), &TINY).expect("open"));
    let mut machine = machine(&store);
    fill(&mut machine, 1, 100);
    let mut source = store.snapshot().expect("snapshot");
    assert!(!source.next(1).expect("next").is_empty());
    let small = store.map_size();
    let value = "x".repeat(100_000);
    for n in 0..20 {
        store.write(batch(0, &[(Table::Local, &n.to_string(), Some(&value))])).expect("write");
        store.flush().expect("flush");
    }
    assert!(store.map_size() > small);
    let error = source.next(1).expect_err("revoked");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(!store.snapshot().expect("a new one").next(1).expect("next").is_empty());
}

#[test]
fn a_crash_at_any_point_of_an_install_leaves_one_whole_state() {
    let (one, two) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
    let from = Arc::new(open_state(one.path(), &TINY).expect("open"));
    fill(&mut machine(&from), 1, 50);
    let dir = two.path();
    let old = |store: &LmdbState| (get(store, Table::Pins, "old"), store.applied());
    let whole_old = (Some("row".to_string()), at(7));
    {
        let store = open_state(dir, &TINY).expect("open");
        store.write(batch(7, &[(Table::Pins, "old", Some("row"))])).expect("write");
        store.flush().expect("flush");
        // Cut off while receiving: the process is gone, its destructors with it.
        let mut sink = store.begin_install().expect("begin");
        let mut source = from.snapshot().expect("snapshot");
        sink.put(source.next(usize::MAX).expect("next")).expect("put");
        std::mem::forget(sink);
    }
    // heed knows which paths this process has open, so the crashed state lives on under another name.
    let crash = |name: &str| {
        let copy = dir
            .parent()
            .expect("parent")
            .join(format!("{}-{name}", dir.file_name().expect("name").to_string_lossy()));
        copy_dir(dir, &copy);
        copy
    };

    // 1. While receiving: the new generation is half there, CURRENT names the old one.
    let copy = crash("receiving");
    assert!(copy.join("generation-2").exists());
    let store = open_state(&copy, &TINY).expect("open");
    assert_eq!(old(&store), whole_old);
    assert!(!copy.join("generation-2").exists(), "the leftover is gone");
    drop(store);

    // 2. While CURRENT was being written: a draft lies beside it.
    std::fs::write(copy.join("CURRENT.tmp"), "generat").expect("draft");
    assert_eq!(old(&open_state(&copy, &TINY).expect("open")), whole_old);

    // 3. After CURRENT was renamed, before the old generation was removed.
    let store = open_state(&copy, &TINY).expect("open");
    copy_dir(&copy.join("generation-1"), &copy.join("kept"));
    install(&from, &store, 1_000);
    drop(store);
    let new = std::fs::read_to_string(copy.join("CURRENT")).expect("CURRENT");
    assert_eq!(new, "generation-2\n");
    std::fs::rename(copy.join("kept"), copy.join("generation-1")).expect("put the old one back");
    let store = Arc::new(open_state(&copy, &TINY).expect("open"));
    assert_eq!((get(&store, Table::Pins, "old"), store.applied()), (None, at(50)));
    machine(&store).verify().expect("the new state is whole");
    assert!(!copy.join("generation-1").exists());
    drop(store);

    // 4. At the very first start, before CURRENT was written.
    std::fs::remove_file(copy.join("CURRENT")).expect("remove");
    assert_eq!(open_state(&copy, &TINY).expect("adopted").applied(), at(50));
    assert!(copy.join("CURRENT").exists());

    // What no crash can do is refused, not guessed at.
    std::fs::remove_file(copy.join("CURRENT")).expect("remove");
    copy_dir(&copy.join("generation-2"), &copy.join("generation-3"));
    assert_eq!(open_state(&copy, &TINY).map(drop).expect_err("two").kind(), Kind::Corrupt);
    for bad in ["generation-9\n", "generation-02\n", "../x", "", &"x".repeat(1_000)] {
        std::fs::write(copy.join("CURRENT"), bad).expect("write");
        let error = open_state(&copy, &TINY).map(drop).expect_err(bad);
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    }
    assert!(copy.join("generation-2").exists() && copy.join("generation-3").exists(), "nothing was removed");
    std::fs::remove_dir_all(&copy).expect("clean up");
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("mkdir");
    for entry in std::fs::read_dir(from).expect("ls") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}

#[test]
fn an_abandoned_or_bad_snapshot_changes_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open_state(dir.path(), &TINY).expect("open");
    store.write(batch(1, &[(Table::Pins, "a", Some("1"))])).expect("write");
    let mut sink = store.begin_install().expect("begin");
    sink.put(vec![(Table::Pins, b"b".to_vec(), b"2".to_vec())]).expect("put");
    for bad in [
        (Table::Local, b"b".to_vec(), b"2".to_vec()),
        (Table::Pins, Vec::new(), b"2".to_vec()),
        (Table::Pins, vec![0; crate::store::MAX_KEY + 1], b"2".to_vec()),
        (Table::Pins, b"b".to_vec(), vec![0; crate::store::MAX_VALUE + 1]),
    ] {
        assert_eq!(sink.put(vec![bad]).expect_err("bad row").kind(), Kind::Invalid);
    }
    drop(sink);
    assert!(!dir.path().join("generation-2").exists());
    assert_eq!((get(&store, Table::Pins, "a"), get(&store, Table::Pins, "b")), (Some("1".into()), None));
}

// ---- log ----

#[test]
fn the_log_comes_back_as_it_was_acknowledged() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut log = open_log(dir.path(), &TINY).expect("open");
    let id = log.incarnation();
    assert!(id.raft_id != 0 && id.cluster_id == 0);
    assert_eq!((log.first_index(), log.last_index(), log.term(0).expect("term")), (1, 0, Some(0)));
    let hard_state = HardState { term: 2, vote: 7, commit: 3, ..HardState::default() };
    let mut conf = entry(3, 2, "c");
    conf.entry_type = EntryType::EntryConfChangeV2;
    conf.context = b"context".to_vec().into();
    let entries = vec![entry(1, 1, "a"), entry(2, 1, ""), conf.clone()];
    log.append(LogBatch { entries, hard_state: Some(hard_state.clone()), reset_to: None }).expect("append");
    log.set_cluster_id(42).expect("cluster id");
    drop(log);
    let log = open_log(dir.path(), &TINY).expect("open again");
    assert_eq!((log.incarnation().raft_id, log.incarnation().cluster_id), (id.raft_id, 42));
    assert_eq!(log.hard_state().expect("hard state"), hard_state);
    assert_eq!(log.entries(3, 4, 0).expect("entry"), [conf]);
    assert_eq!([1, 2, 3, 4].map(|i| log.term(i).expect("term")), [Some(1), Some(1), Some(2), None]);
    assert_eq!(listed(&log).len(), 3);
}

#[test]
fn a_conflicting_suffix_is_replaced_whole() {
    let dir = tempfile::tempdir().expect("tempdir");
    for reopen in [false, true] {
        let dir = dir.path().join(reopen.to_string());
        let mut log = open_log(&dir, &TINY).expect("open");
        append(&mut log, (1..=5).map(|i| entry(i, 1, "old")).collect());
        if reopen {
            drop(log);
            log = open_log(&dir, &TINY).expect("open again");
        }
        append(&mut log, vec![entry(3, 2, "new")]);
        let expected: Vec<_> =
            [(1, 1, "old"), (2, 1, "old"), (3, 2, "new")].map(|(i, t, d)| (i, t, d.to_string())).to_vec();
        assert_eq!(listed(&log), expected);
        assert_eq!(log.term(4).expect("term"), None);
        drop(log);
        assert_eq!(listed(&open_log(&dir, &TINY).expect("open")), expected);
    }
}

#[test]
fn truncation_is_lazy_and_a_reset_is_not() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut log = open_log(dir.path(), &TINY).expect("open");
    append(&mut log, (1..=10).map(|i| entry(i, i / 4 + 1, "x")).collect());
    log.truncate(6).expect("truncate");
    log.truncate(4).expect("a smaller one is nothing");
    assert_eq!((log.first_index(), log.last_index()), (7, 10));
    assert_eq!((log.term(6).expect("mark"), log.term(5).expect("gone")), (Some(2), None));
    assert!(log.entries(6, 8, u64::MAX).is_err());
    assert!(log.truncate(11).is_err());
    drop(log);
    let mut log = open_log(dir.path(), &TINY).expect("open");
    assert_eq!(log.first_index(), 1, "a power cut before the next append undoes it");
    log.truncate(6).expect("truncate");
    append(&mut log, vec![entry(11, 4, "y")]);
    drop(log);
    let mut log = open_log(dir.path(), &TINY).expect("open");
    assert_eq!((log.first_index(), log.last_index(), log.term(6).expect("mark")), (7, 11, Some(2)));

    let mark = Applied { index: 100, term: 9 };
    log.append(LogBatch { reset_to: Some(mark), entries: vec![entry(101, 9, "z")], ..LogBatch::default() })
        .expect("reset");
    let check = |log: &LmdbLog| {
        assert_eq!((log.first_index(), log.last_index(), log.term(100).expect("mark")), (101, 101, Some(9)));
        assert_eq!(listed(log), [(101, 9, "z".to_string())]);
    };
    check(&log);
    drop(log);
    check(&open_log(dir.path(), &TINY).expect("open"));
}

#[test]
fn a_long_truncation_is_paid_in_slices() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut log = open_log(dir.path(), &TINY).expect("open");
    append(&mut log, (1..=5_000).map(|i| entry(i, 1, "x")).collect());
    log.truncate(4_990).expect("truncate");
    for index in 5_001..=5_004 {
        append(&mut log, vec![entry(index, 1, "y")]);
    }
    drop(log);
    let env = Environment::open(dir.path(), ["entries", "meta"], &TINY).expect("env");
    let rows = env.read(|tables, txn| tables[0].len(txn)).expect("len");
    drop(env);
    assert_eq!(rows, 14, "4,990 entries went in three slices");
    let log = open_log(dir.path(), &TINY).expect("open");
    assert_eq!((log.first_index(), log.last_index()), (4_991, 5_004));
}

#[test]
fn reads_are_limited_by_bytes_and_give_at_least_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut log = open_log(dir.path(), &TINY).expect("open");
    append(&mut log, (1..=2_000).map(|i| entry(i, 1, &"x".repeat(100))).collect());
    // The first entries come from disk, the last from memory: both are limited alike.
    for lo in [1, 1_990] {
        assert_eq!(log.entries(lo, lo + 5, 0).expect("entries").len(), 1);
        assert_eq!(log.entries(lo, lo + 5, 300).expect("entries").len(), 2);
        assert_eq!(log.entries(lo, lo + 5, u64::MAX).expect("entries").len(), 5);
    }
    assert_eq!(log.entries(1, 2_001, u64::MAX).expect("entries").len(), 2_000);
    assert!(log.entries(1, 2_002, u64::MAX).is_err() && log.entries(5, 5, 1).is_err());
}

#[test]
fn entries_that_do_not_fit_are_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut log = open_log(dir.path(), &TINY).expect("open");
    append(&mut log, (1..=3).map(|i| entry(i, 1, "x")).collect());
    log.truncate(2).expect("truncate");
    for bad in
        [vec![entry(5, 1, "gap")], vec![entry(2, 1, "forgotten")], vec![entry(4, 1, ""), entry(6, 1, "")]]
    {
        assert!(log.append(LogBatch { entries: bad, ..LogBatch::default() }).is_err());
    }
    append(&mut log, vec![entry(4, 1, "fits")]);
    assert_eq!(log.last_index(), 4);
}

#[test]
fn a_log_larger_than_its_map_grows() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut log = open_log(dir.path(), &TINY).expect("open");
    let data = "x".repeat(10_000);
    for index in 1..=200 {
        append(&mut log, vec![entry(index, 1, &data)]);
    }
    drop(log);
    assert_eq!(listed(&open_log(dir.path(), &TINY).expect("open")).len(), 200);
}

/// Not a test but a ruler: `cargo test --release --lib speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed_of_the_stores() {
    let dir = tempfile::tempdir_in(".").expect("tempdir");
    let rate = |what: &str, count: u64, since: std::time::Instant| {
        println!("{what}: {:.0}/s", count as f64 / since.elapsed().as_secs_f64());
    };
    let mut log = open_log(&dir.path().join("log"), &Options::default()).expect("open");
    let (data, mut next) = ("x".repeat(150), 1);
    for size in [1, 64, 1_000] {
        let started = std::time::Instant::now();
        let rounds = 100;
        for _ in 0..rounds {
            append(&mut log, (next..next + size).map(|i| entry(i, 1, &data)).collect());
            next += size;
        }
        rate(&format!("log entries, {size} per commit"), rounds * size, started);
    }
    let store = Arc::new(open_state(&dir.path().join("state"), &Options::default()).expect("open"));
    let mut machine = machine(&store);
    let (singles, batches) = (100_000, 200);
    let commands: Vec<_> = (1..=singles).map(|n| Command::Pin(Box::new(pin(n)))).collect();
    let started = std::time::Instant::now();
    for (index, command) in (1..).zip(commands) {
        machine.apply(at(index), Some(command)).expect("apply").0.expect("pin");
        if index % 10_000 == 0 {
            store.flush().expect("flush");
        }
    }
    rate("pins applied, one per entry, flush per 10,000", singles, started);
    let commands: Vec<_> = (0..batches)
        .map(|b| Command::PinMany((0..1_000).map(|n| pin(1_000_000 + b * 1_000 + n)).collect()).encode())
        .collect();
    let started = std::time::Instant::now();
    for (index, bytes) in (singles + 1..).zip(commands) {
        let command = Command::decode(&bytes).expect("decode");
        machine.apply(at(index), Some(command)).expect("apply").0.expect("pins");
    }
    store.flush().expect("flush");
    rate(
        "pins decoded and applied, 1,000 per entry, flush when the overlay is full",
        batches * 1_000,
        started,
    );
    let started = std::time::Instant::now();
    rate("pins listed", Pins::new(store.clone()).iter().filter(|p| p.is_ok()).count() as u64, started);
    let mut text = Vec::new();
    let started = std::time::Instant::now();
    let count = transfer::export(&Pins::new(store.clone()), &mut text).expect("export");
    rate("pins exported as JSON", count, started);
    let started = std::time::Instant::now();
    let read = transfer::import(&text[..], transfer::ImportOptions::default()).filter(|p| p.is_ok()).count();
    rate("pins read from JSON", read as u64, started);
    drop(text);
    let started = std::time::Instant::now();
    let other = open_state(&dir.path().join("other"), &Options::default()).expect("open");
    install(&store, &other, 1 << 20);
    rate("rows installed from a snapshot", store.count(Table::Pins), started);
    drop((machine, store));
    let started = std::time::Instant::now();
    let store = open_state(&dir.path().join("state"), &Options::default()).expect("open");
    println!("opened {} pins in {:?}", store.count(Table::Pins), started.elapsed());
}
