//! The stores in memory and on disk are the same store: random histories, played on both.

use super::memory::{MemoryLog, MemoryState};
use super::*;
use raft::eraftpb::{Entry, HardState};

const OPTIONS: Options = Options { map_size: 256 << 10, map_limit: 1 << 30, reserve: 0 };

/// A small generator of our own: a failure must come back with its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// All that a log shows.
fn log_content(log: &dyn LogStore) -> String {
    let (first, last) = (log.first_index(), log.last_index());
    let entries =
        if last < first { Vec::new() } else { log.entries(first, last + 1, u64::MAX).expect("entries") };
    let entries: Vec<_> = entries.iter().map(|e| (e.index, e.term, e.data.to_vec())).collect();
    let terms: Vec<_> = (first.saturating_sub(2)..last + 2).map(|i| log.term(i).expect("term")).collect();
    let hard = log.hard_state().expect("hard state");
    format!("{first}..={last} {entries:?} {terms:?} {} {} {}", hard.term, hard.vote, hard.commit)
}

#[test]
fn both_logs_tell_the_same_history() {
    for seed in 1..=20 {
        let mut random = Random(seed * 0x9e37_79b9);
        let dir = tempfile::tempdir().expect("tempdir");
        let mut disk = open_log(dir.path(), &OPTIONS).expect("open");
        let mut memory = MemoryLog::new(disk.incarnation().raft_id);
        for step in 0..60 {
            let (first, last) = (disk.first_index(), disk.last_index());
            match random.below(10) {
                0 => {
                    // The plug is pulled.
                    drop(disk);
                    disk = open_log(dir.path(), &OPTIONS).expect("open again");
                    memory.crash();
                }
                1 => {
                    // Up to one entry beyond the end, which both refuse.
                    let index = first.saturating_sub(1) + random.below(last + 3 - first);
                    assert_eq!(
                        disk.truncate(index).is_ok(),
                        memory.truncate(index).is_ok(),
                        "seed {seed} step {step}"
                    );
                }
                2 => {
                    let mark = Applied { index: last + random.below(5), term: 50 };
                    let batch = LogBatch { reset_to: Some(mark), ..LogBatch::default() };
                    disk.append(batch.clone()).expect("disk");
                    memory.append(batch).expect("memory");
                }
                _ => {
                    let from = first + random.below(last + 2 - first);
                    let entry = |index| {
                        let mut entry = Entry { index, term: step, ..Entry::default() };
                        entry.data = vec![index as u8; (index % 50) as usize].into();
                        entry
                    };
                    let hard = HardState { term: step, vote: seed, commit: from, ..HardState::default() };
                    let batch = LogBatch {
                        entries: (from..from + random.below(8)).map(entry).collect(),
                        hard_state: (random.below(2) == 0).then_some(hard),
                        reset_to: None,
                    };
                    disk.append(batch.clone()).expect("disk");
                    memory.append(batch).expect("memory");
                }
            }
            assert_eq!(log_content(&disk), log_content(&memory), "seed {seed} step {step}");
        }
    }
}

/// All that a state shows, read in pages.
fn state_content(store: &dyn StateStore) -> String {
    let mut text = format!("{:?} {:?}", store.applied(), store.durable());
    for table in Table::ALL {
        let mut after: Option<Vec<u8>> = None;
        let mut rows = 0;
        loop {
            let page = store.scan(table, after.as_deref(), 7).expect("scan");
            for (key, value) in &page {
                assert_eq!(store.get(table, key).expect("get").as_ref(), Some(value));
                text += &format!(" {key:?}={value:?}");
            }
            rows += page.len() as u64;
            match page.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        assert_eq!(rows, store.count(table), "counter of {table:?}");
        text += &format!(" {rows};");
    }
    text
}

#[test]
fn both_states_tell_the_same_history() {
    for seed in 1..=10 {
        let mut random = Random(seed * 0x9e37_79b9);
        let dir = tempfile::tempdir().expect("tempdir");
        let mut disk = open_state(dir.path(), &OPTIONS).expect("open");
        let memory = MemoryState::new();
        let mut index = 0;
        for step in 0..80 {
            match random.below(12) {
                0 => {
                    drop(disk);
                    disk = open_state(dir.path(), &OPTIONS).expect("open again");
                    memory.crash();
                    index = disk.applied().index;
                }
                1 | 2 => assert_eq!(disk.flush().expect("disk"), memory.flush().expect("memory")),
                3 => {
                    // Each takes the other's snapshot: they are the same, and only local rows stay.
                    let (mut a, mut b) = (disk.snapshot().expect("disk"), memory.snapshot().expect("memory"));
                    let (mut to_b, mut to_a) =
                        (memory.begin_install().expect("memory"), disk.begin_install().expect("disk"));
                    loop {
                        let bytes = random.below(200) as usize;
                        let rows = a.next(bytes).expect("disk");
                        assert_eq!(rows, b.next(bytes).expect("memory"), "seed {seed} step {step}");
                        if rows.is_empty() {
                            break;
                        }
                        to_a.put(rows.clone()).expect("put");
                        to_b.put(rows).expect("put");
                    }
                    index += 10;
                    let at = Applied { index, term: step };
                    disk.install(to_a, at).expect("disk");
                    memory.install(to_b, at).expect("memory");
                    // What is durable of the local rows is the store's own affair until they are flushed.
                    assert_eq!(disk.flush().expect("disk"), memory.flush().expect("memory"));
                }
                _ => {
                    index += 1;
                    let writes = (0..random.below(6))
                        .map(|_| {
                            let table = Table::ALL[random.below(4) as usize];
                            let value =
                                (random.below(3) > 0).then(|| vec![step as u8; 1 + random.below(9) as usize]);
                            (table, vec![b'k', random.below(30) as u8], value)
                        })
                        .collect();
                    let batch = WriteBatch { writes, applied: Some(Applied { index, term: step }) };
                    disk.write(batch.clone()).expect("disk");
                    memory.write(batch).expect("memory");
                }
            }
            assert_eq!(state_content(&disk), state_content(&memory), "seed {seed} step {step}");
        }
    }
}

/// The process that is killed in the test below; by itself it does nothing.
#[test]
#[ignore = "started and killed by the test after it"]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os("PINFOLD_TEST_STORE").map(std::path::PathBuf::from) else { return };
    let mut log = open_log(&dir.join("log"), &OPTIONS).expect("log");
    let state = open_state(&dir.join("state"), &OPTIONS).expect("state");
    // What the driver does at a start: apply again what the state lacks.
    for index in state.applied().index + 1.. {
        if index > log.last_index() {
            let mut entry = Entry { index, term: 1, ..Entry::default() };
            entry.data = index.to_be_bytes().to_vec().into();
            log.append(LogBatch { entries: vec![entry], ..LogBatch::default() }).expect("append");
            println!("acknowledged {index}");
        }
        let writes = vec![(Table::Pins, index.to_be_bytes().to_vec(), Some(vec![1]))];
        state.write(WriteBatch { writes, applied: Some(Applied { index, term: 1 }) }).expect("write");
        if index % 7 == 0 {
            let durable = state.flush().expect("flush").index;
            log.truncate(durable.saturating_sub(20)).expect("truncate");
        }
        if index % 31 == 0 {
            let (mut source, mut sink) =
                (state.snapshot().expect("snapshot"), state.begin_install().expect("begin"));
            loop {
                let rows = source.next(100).expect("next");
                if rows.is_empty() {
                    break;
                }
                sink.put(rows).expect("put");
            }
            state.install(sink, source.applied()).expect("install");
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    use std::io::{BufRead as _, BufReader};
    let dir = tempfile::tempdir().expect("tempdir");
    let mut random = Random(0x5eed);
    let mut acknowledged = 0;
    for cycle in 0..20 {
        let mut child = std::process::Command::new(std::env::current_exe().expect("exe"))
            .args([
                "--exact",
                "store::tests::child_that_writes_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env("PINFOLD_TEST_STORE", dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("child");
        let mut wanted = 1 + random.below(40);
        let mut lines =
            BufReader::new(child.stdout.take().expect("stdout")).lines().map_while(std::io::Result::ok);
        let mut note = |line: &str| {
            let number = line.split("acknowledged ").nth(1).and_then(|n| n.parse::<u64>().ok());
            acknowledged = number.unwrap_or(acknowledged);
            number.is_some()
        };
        while wanted > 0 {
            let line = lines.next().expect("the child goes on until it is killed");
            wanted -= u64::from(note(&line));
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
        // What was still in the pipe was acknowledged too.
        lines.for_each(|line| {
            note(&line);
        });

        let log = open_log(&dir.path().join("log"), &OPTIONS).expect("log");
        let state = open_state(&dir.path().join("state"), &OPTIONS).expect("state");
        let (first, last, applied) = (log.first_index(), log.last_index(), state.applied().index);
        assert!(last >= acknowledged, "cycle {cycle}: {acknowledged} acknowledged, {last} there");
        assert!(
            applied <= last && first <= applied + 1,
            "cycle {cycle}: {first}..={last}, applied {applied}"
        );
        for entry in log.entries(first, last + 1, u64::MAX).expect("entries") {
            assert_eq!(entry.data.to_vec(), entry.index.to_be_bytes());
        }
        assert_eq!(state.count(Table::Pins), applied, "cycle {cycle}: every applied row, and no other");
    }
    assert!(acknowledged >= 20);
}
