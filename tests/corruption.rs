//! A flipped byte anywhere on disk is noticed or harmless, never a wrong answer.
//!
//! Thousands of bytes are changed, one at a time, in the files of a real peer's data: heads of pages more often than the
//! rest, because there a byte does the most. After each, `state check`'s code looks at it, and the daemon's own code opens
//! it and reads everything back, in a child process, because LMDB may die of what it maps. Then one of these must hold:
//! everything reads the same (free room was hit), or reading ends with an error or a dead process. And what the check
//! calls whole must read the same.
//!
//! `PINFOLD_FLIPS=N` changes how many; the seed is printed and `PINFOLD_SEED` repeats it.

use pinfold::check;
use pinfold::clock::Timestamp;
use pinfold::consensus::{bootstrap, Start};
use pinfold::ipfs::embedded::blocks::{BlockStore, Durability, StoreConfig};
use pinfold::state::{Applied, Command, Machine, Pin, PinMode};
use pinfold::store::{self, LogBatch, LogStore as _, StateStore, Table, WriteBatch};
use pinfold::tracker::plan::Record;
use raft::eraftpb::{Entry, HardState};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

/// Flips per kind of file, unless told otherwise: log and state, and the block store.
const FLIPS: u64 = 4_500;
/// A third of that for the blocks: most bytes there are content, of which each is covered by a hash alike.
const BLOCK_SHARE: u64 = 3;
const SEED: u64 = 20_261_121;
const PINS: u64 = 200;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

/// The n-th random number of a seed.
fn random(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

fn cid(n: u64) -> cid::Cid {
    use sha2::Digest as _;
    let hash =
        multihash::Multihash::<64>::wrap(0x12, &sha2::Sha256::digest(n.to_be_bytes())).expect("32 bytes");
    cid::Cid::new_v1(0x55, hash)
}

/// A folder on the fastest disk there is: this writes the same few megabytes ten thousand times.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a folder")
}

/// Data of a peer: a cluster of one with pins of all sizes, a log behind and beyond its state, local records.
fn make_data(data: &Path) {
    let (mut log, state) = store::open(data).expect("stores");
    let state: Arc<dyn StateStore> = Arc::new(state);
    let us = libp2p::PeerId::random();
    bootstrap::prepare(&Start::Found, us, "board", 77, &mut log, &state).expect("founded");
    let mut machine = Machine::open(state.clone()).expect("machine");
    for n in 0..PINS {
        let mut pin = Pin::new(cid(n), Timestamp::from_secs(1_700_000_000 + n as i64));
        pin.name = format!("photos of the year {n}");
        // Some rows are too long for a page.
        if n % 40 == 0 {
            pin.metadata.insert("note".into(), "x".repeat(3_000 + n as usize));
        }
        let command = if n % 10 == 9 { Command::Unpin(cid(n - 1)) } else { Command::Pin(Box::new(pin)) };
        let at = Applied { index: n + 2, term: 1 };
        let entry =
            Entry { index: at.index, term: at.term, data: command.encode().into(), ..Entry::default() };
        let hard_state =
            HardState { term: 1, vote: log.incarnation().raft_id, commit: n + 1, ..HardState::default() };
        let batch = LogBatch { entries: vec![entry], hard_state: Some(hard_state), reset_to: None };
        log.append(batch).expect("appended");
        // The last ones are in the log alone.
        if n < PINS - 30 {
            let _ = machine.apply(at, Some(command)).expect("applied");
            let record =
                Record::pinned(PinMode::Recursive, Timestamp::from_secs(n as i64)).encode(&cid(n).to_bytes());
            let writes = vec![(Table::Local, cid(n).to_bytes(), Some(record))];
            state.write(WriteBatch { writes, applied: None }).expect("a local record");
        }
        if n % 50 == 0 {
            state.flush().expect("flush");
            log.truncate(n / 2).ok();
        }
    }
    state.flush().expect("flush");
}

/// Everything that a daemon can read from its data, as text.
fn read_data(data: &Path) -> Result<Vec<String>, String> {
    let said = |e: pinfold::Error| e.to_string();
    let (log, state) = store::open(data).map_err(said)?;
    let state: Arc<dyn StateStore> = Arc::new(state);
    // As the daemon does before it answers (`daemon::scrub`).
    let machine = Machine::open(state.clone()).map_err(said)?;
    machine.verify().map_err(said)?;
    let mut all = vec![
        format!("{:?} {:?} {:?}", log.incarnation(), log.hard_state().map_err(said)?, state.applied()),
        format!("{} {} {:?} {}", log.first_index(), log.last_index(), machine.conf_state(), machine.digest()),
        format!("{:?} {}", machine.members(), machine.cluster_version()),
    ];
    let mut next = log.first_index();
    let mut rows = DefaultHasher::new();
    while next <= log.last_index() {
        for entry in log.entries(next, log.last_index() + 1, 1 << 20).map_err(said)? {
            next = entry.index + 1;
            (entry.index, entry.term, entry.entry_type as i32, &entry.data[..], &entry.context[..])
                .hash(&mut rows);
        }
    }
    all.push(format!("entries {next} {:x}", rows.finish()));
    for table in Table::ALL {
        let mut rows = DefaultHasher::new();
        for (key, value) in state.scan(table, None, usize::MAX).map_err(said)? {
            match table {
                Table::Pins => drop(Pin::decode(&value).map_err(said)?),
                Table::Local => drop(Record::decode(&key, &value).map_err(said)?),
                Table::Members | Table::Meta => {}
            }
            if state.get(table, &key).map_err(said)?.as_ref() != Some(&value) {
                return Err("a row is not found under its key".into());
            }
            (key, value).hash(&mut rows);
        }
        all.push(format!("{table:?} {} {:x}", state.count(table), rows.finish()));
    }
    // Every pin that was ever asked for is found or not, as before.
    let pins = pinfold::state::Pins::new(state);
    for n in 0..PINS {
        all.push(format!("{n} {}", pins.get(&cid(n)).map_err(said)?.is_some()));
    }
    Ok(all)
}

fn block(n: u64) -> (cid::Cid, bytes::Bytes) {
    use sha2::Digest as _;
    let bytes: Vec<u8> = (0..200 + n * 37 % 3_000).map(|i| random(n, i) as u8).collect();
    let hash = multihash::Multihash::<64>::wrap(0x12, &sha2::Sha256::digest(&bytes)).expect("32 bytes");
    (cid::Cid::new_v1(0x55, hash), bytes.into())
}

const BLOCKS: u64 = 100;

fn make_blocks(folder: &Path) {
    let store =
        BlockStore::open(StoreConfig { reserve: 0, ..StoreConfig::new(folder, 1 << 30) }).expect("store");
    for n in (0..BLOCKS).step_by(20) {
        let put = store.put((n..n + 20).map(block).collect(), Durability::Flushed);
        smol::block_on(put).expect("stored");
    }
    smol::block_on(store.close());
}

/// Every block that the store gives back. What it says it has not is fetched again, so that this is no wrong answer.
fn read_blocks(folder: &Path) -> Result<Vec<String>, String> {
    let config = StoreConfig { reserve: 0, ..StoreConfig::new(folder, 1 << 30) };
    let store = BlockStore::open(config).map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    let mut missing = 0;
    for n in 0..BLOCKS {
        match store.get(&block(n).0) {
            Ok(Some(bytes)) if bytes == block(n).1 => all.push(format!("{n}")),
            Ok(Some(_)) => all.push(format!("{n} with other bytes")),
            Ok(None) | Err(_) => missing += 1,
        }
    }
    smol::block_on(store.close());
    if missing > 0 && all.iter().all(|line| !line.contains("other")) {
        return Err(format!("{missing} blocks are known to be missing"));
    }
    Ok(all)
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Data,
    Blocks,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Data => "data",
            What::Blocks => "blocks",
        }
    }

    fn make(self, at: &Path) {
        match self {
            What::Data => make_data(at),
            What::Blocks => make_blocks(at),
        }
    }

    fn read(self, at: &Path) -> Result<Vec<String>, String> {
        match self {
            What::Data => read_data(at),
            What::Blocks => read_blocks(at),
        }
    }

    fn is_damaged(self, at: &Path) -> bool {
        match self {
            What::Data => check::examine_data(at, false),
            What::Blocks => check::examine_blocks(at),
        }
        .is_damaged()
    }
}

/// All files with content, by their path below the folder.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).expect("folder").map(|e| e.expect("entry").path()) {
            if entry.is_dir() {
                waiting.push(entry);
            } else if entry.extension().is_none_or(|e| e != "log") && !entry.ends_with("lock.mdb") {
                let bytes = std::fs::read(&entry).expect("file");
                found.push((entry.strip_prefix(folder).expect("below").to_path_buf(), bytes));
            }
        }
    }
    found.sort();
    found.retain(|(_, bytes)| !bytes.is_empty());
    found
}

/// Which byte the n-th flip changes, and by what.
fn flip(files: &[(PathBuf, Vec<u8>)], seed: u64, n: u64) -> (usize, usize, u8) {
    let draw = |k: u64| random(seed, n * 8 + k);
    let xor = 1 + (draw(0) % 255) as u8;
    // Files that are pages count alike, however large; the rest (CURRENT) now and then.
    let file = (draw(1) % files.len() as u64) as usize;
    let len = files[file].1.len();
    let pages = len / 4_096;
    let at = match draw(2) % 3 {
        // The meta pages.
        0 if pages > 1 && draw(3) % 8 == 0 => (draw(4) % 2) as usize * 4_096 + (draw(5) % 152) as usize,
        // Heads of pages and the first pointers.
        0 | 1 if pages > 0 => (draw(4) % pages as u64) as usize * 4_096 + (draw(5) % 48) as usize,
        _ => (draw(4) % len as u64) as usize,
    };
    (file, at.min(len - 1), xor)
}

fn lay_out(at: &Path, files: &[(PathBuf, Vec<u8>)], flipped: Option<(usize, usize, u8)>) {
    let _ = std::fs::remove_dir_all(at);
    for (n, (name, bytes)) in files.iter().enumerate() {
        let path = at.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        match flipped.filter(|(file, ..)| *file == n) {
            Some((_, byte, xor)) => {
                let mut bytes = bytes.clone();
                bytes[byte] ^= xor;
                std::fs::write(path, bytes).expect("file");
            }
            None => std::fs::write(path, bytes).expect("file"),
        }
    }
}

/// In a child: flips from the given one on, a line for each before it (so that a death is known) and after it.
#[test]
fn child() {
    let Ok(job) = std::env::var("PINFOLD_SWEEP") else { return };
    let mut words = job.split(' ');
    let mut word = || words.next().expect("a word").to_owned();
    let (what, pristine, seed, from, to) = (word(), word(), word(), word(), word());
    let what = if what == "data" { What::Data } else { What::Blocks };
    let (seed, from, to): (u64, u64, u64) =
        (seed.parse().expect("seed"), from.parse().expect("from"), to.parse().expect("to"));
    let files = files(Path::new(&pristine));
    let scratch = scratch();
    let at = scratch.path().join("folder");
    lay_out(&at, &files, None);
    let truth = what.read(&at).expect("the truth");
    let mut out = std::io::stdout();
    for n in from..to {
        lay_out(&at, &files, Some(flip(&files, seed, n)));
        // `state check` first: opening may write.
        let damaged = what.is_damaged(&at);
        writeln!(out, "\nSWEEP {n} begins {damaged}").expect("told");
        out.flush().expect("told");
        let verdict = match what.read(&at) {
            Err(_) => "noticed",
            Ok(read) if read == truth => "same",
            Ok(_) => "WRONG",
        };
        writeln!(out, "SWEEP {n} {verdict} {damaged}").expect("told");
    }
}

#[derive(Default, Debug)]
struct Tally {
    same: u64,
    noticed: u64,
    died: u64,
    checked: u64,
    wrong: Vec<String>,
}

fn sweep(what: What, flips: u64) {
    let seed = number("PINFOLD_SEED", SEED);
    let made = scratch();
    let pristine = made.path().join("pristine");
    what.make(&pristine);
    assert!(
        !what.is_damaged(&pristine),
        "what was just written is whole: {}",
        check::examine_data(&pristine, false).text()
    );
    let files = files(&pristine);
    let began = std::time::Instant::now();
    let jobs = std::thread::available_parallelism().map_or(2, usize::from).min(8) as u64;
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let part = |job: u64| {
            let (files, pristine) = (&files, &pristine);
            move || {
                let (from, to) = (flips * job / jobs, flips * (job + 1) / jobs);
                run(what, files, pristine, seed, from, to)
            }
        };
        let running: Vec<_> = (0..jobs).map(|job| scope.spawn(part(job))).collect();
        running.into_iter().map(|thread| thread.join().expect("a sweep")).collect()
    });
    let mut all = Tally::default();
    for tally in tallies {
        all.same += tally.same;
        all.noticed += tally.noticed;
        all.died += tally.died;
        all.checked += tally.checked;
        all.wrong.extend(tally.wrong);
    }
    eprintln!(
        "{} flips in the {}, seed {seed}: {} harmless, {} noticed when opened or read, {} killed the reader; state check noticed {}; {:?}",
        flips,
        what.name(),
        all.same,
        all.noticed,
        all.died,
        all.checked,
        began.elapsed()
    );
    assert!(all.wrong.is_empty(), "wrong answers: {:#?}", all.wrong);
    assert_eq!(all.same + all.noticed + all.died, flips);
    assert!(
        all.noticed > flips / 10 && all.same > flips / 100 && all.checked > flips / 10,
        "too quiet: {all:?}"
    );
}

/// Children one after the other, until all flips of this part are judged.
fn run(what: What, files: &[(PathBuf, Vec<u8>)], pristine: &Path, seed: u64, from: u64, to: u64) -> Tally {
    let mut tally = Tally::default();
    let mut next = from;
    while next < to {
        let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
        command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
        command.env("PINFOLD_SWEEP", format!("{} {} {seed} {next} {to}", what.name(), pristine.display()));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a child");
        let mut begun = None;
        for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
            let line = line.expect("a line");
            let Some(rest) = line.strip_prefix("SWEEP ") else { continue };
            let words: Vec<&str> = rest.split(' ').collect();
            let (n, verdict, damaged): (u64, &str, bool) =
                (words[0].parse().expect("n"), words[1], words[2] == "true");
            if verdict == "begins" {
                begun = Some((n, damaged));
                continue;
            }
            begun = None;
            next = n + 1;
            let (file, at, xor) = flip(files, seed, n);
            let place = format!("flip {n}: {} at {at} by {xor:#x}", files[file].0.display());
            tally.checked += u64::from(damaged);
            match verdict {
                "same" => tally.same += 1,
                "noticed" => {
                    tally.noticed += 1;
                    if !damaged {
                        // Noticed by the program and not by the check: only what is no data of LMDB's or a block's.
                        let name = files[file].0.to_string_lossy().into_owned();
                        if name.ends_with("data.mdb") {
                            tally.wrong.push(format!("{place}: state check calls whole what does not read"));
                        }
                    }
                }
                _ => tally.wrong.push(format!("{place}: a wrong answer (state check: {damaged})")),
            }
        }
        let status = child.wait().expect("reaped");
        if let Some((n, damaged)) = begun {
            tally.died += 1;
            tally.checked += u64::from(damaged);
            if !damaged {
                let (file, at, xor) = flip(files, seed, n);
                let place = format!("flip {n}: {} at {at} by {xor:#x}", files[file].0.display());
                tally
                    .wrong
                    .push(format!("{place}: state check calls whole what kills its reader ({status})"));
            }
            next = n + 1;
        } else {
            assert!(status.success() && next >= to, "a child ended at flip {next} of {to}: {status}");
        }
    }
    tally
}

#[test]
fn a_flipped_byte_in_log_and_state_is_noticed_or_harmless() {
    sweep(What::Data, number("PINFOLD_FLIPS", FLIPS));
}

#[test]
fn a_flipped_byte_in_the_block_store_is_noticed_or_harmless() {
    sweep(What::Blocks, number("PINFOLD_FLIPS", FLIPS) / BLOCK_SHARE);
}
