//! The real stores on LMDB beside plain maps: random writes, flushes, snapshots and new starts, each looked at from
//! every side.
//!
//! For the planted bugs that the simulator meets in the memory stores: here their twins in `store/lmdb` are met. What
//! a power cut does to LMDB's files is the crash images' business; here a peer is only killed, so that what was
//! flushed must be there, and of the rest a beginning.

use pinfold::sim::Rng;
use pinfold::state::Applied;
use pinfold::store::{lmdb, LogBatch, LogStore, StateStore, Table, WriteBatch};
use raft::eraftpb::{Entry, HardState};
use std::collections::BTreeMap;
use std::path::Path;

/// Things that happen in one run.
const STEPS: u64 = 40;
/// Different keys per table: few, so that they meet.
const KEYS: u64 = 12;
/// Small maps: a run must not cost address space.
const OPTIONS: lmdb::Options = lmdb::Options { map_size: 1 << 20, map_limit: 1 << 26, reserve: 0 };

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Runs one seed on both stores.
///
/// # Errors
/// What a store said that the map does not.
pub fn run(seed: u64) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut rng = Rng::new(seed);
    state(&mut rng, dir.path())
        .and_then(|()| log(&mut rng, dir.path()))
        .map_err(|why| format!("seed {seed}: {why}"))
}

fn state(rng: &mut Rng, dir: &Path) -> Result<(), String> {
    let open = |name: &str| lmdb::open_state(&dir.join(name), &OPTIONS).map_err(|e| e.to_string());
    let (mut store, mut rows, mut at, mut durable) = (open("state")?, Rows::new(), 0, 0);
    // What the rows were at each mark: a killed peer comes back to one of them.
    let mut history = BTreeMap::from([(0, rows.clone())]);
    for step in 0..STEPS {
        match rng.below(10) {
            0..=5 => {
                at += 1;
                let mut batch =
                    WriteBatch { writes: Vec::new(), applied: Some(Applied { index: at, term: 1 }) };
                for _ in 0..=rng.below(4) {
                    let table = Table::REPLICATED[rng.below(3) as usize];
                    let key = vec![b'k', rng.below(KEYS) as u8];
                    let value = (!rng.chance(40)).then(|| step.to_be_bytes().to_vec());
                    match &value {
                        Some(value) => rows.insert((table, key.clone()), value.clone()),
                        None => rows.remove(&(table, key.clone())),
                    };
                    batch.writes.push((table, key, value));
                }
                store.write(batch).map_err(|e| e.to_string())?;
                history.insert(at, rows.clone());
            }
            6 | 7 => durable = store.flush().map_err(|e| e.to_string())?.index,
            8 => {
                drop(store);
                store = open("state")?;
                let found = store.applied().index;
                if found < durable {
                    return Err(format!("the state was flushed up to {durable} and comes back at {found}"));
                }
                at = found;
                history.retain(|mark, _| *mark <= at);
                rows = history
                    .get(&at)
                    .cloned()
                    .ok_or(format!("the state comes back at {found}, which never was"))?;
            }
            _ => {
                // A snapshot of somebody who is further on.
                at += 5;
                let mut sink = store.begin_install().map_err(|e| e.to_string())?;
                rows.retain(|_, _| rng.chance(50));
                let given =
                    rows.iter().map(|((table, key), value)| (*table, key.clone(), value.clone())).collect();
                sink.put(given).map_err(|e| e.to_string())?;
                store.install(sink, Applied { index: at, term: 1 }).map_err(|e| e.to_string())?;
                durable = at;
                history.insert(at, rows.clone());
            }
        }
        same(&store, &rows, at)?;
    }
    Ok(())
}

/// Looks at a state by single rows, by lists and by numbers.
fn same(store: &dyn StateStore, rows: &Rows, at: u64) -> Result<(), String> {
    if store.applied().index != at {
        return Err(format!("the state says it is at {}, and is at {at}", store.applied().index));
    }
    for table in Table::REPLICATED {
        let wanted: Vec<(Vec<u8>, Vec<u8>)> =
            rows.iter().filter(|((t, _), _)| *t == table).map(|((_, k), v)| (k.clone(), v.clone())).collect();
        let listed = store.scan(table, None, usize::MAX).map_err(|e| e.to_string())?;
        if listed != wanted || store.count(table) != wanted.len() as u64 {
            return Err(format!(
                "{table:?} lists {} rows and counts {}, there are {}",
                listed.len(),
                store.count(table),
                wanted.len()
            ));
        }
        for key in (0..KEYS).map(|k| vec![b'k', k as u8]) {
            let found = store.get(table, &key).map_err(|e| e.to_string())?;
            if found.as_ref() != rows.get(&(table, key.clone())) {
                return Err(format!("{table:?} has {found:?} under the key {key:?}"));
            }
        }
    }
    Ok(())
}

fn log(rng: &mut Rng, dir: &Path) -> Result<(), String> {
    let open = || lmdb::open_log(&dir.join("log"), &OPTIONS).map_err(|e| e.to_string());
    let (mut store, mut entries, mut mark) = (open()?, BTreeMap::<u64, u64>::new(), Applied::default());
    let (mut hard, mut term) = (HardState::default(), 1);
    for _ in 0..STEPS {
        let last = entries.last_key_value().map_or(mark.index, |(index, _)| *index);
        match rng.below(10) {
            0..=5 => {
                term += rng.below(2);
                let first = mark.index + 1 + rng.below(last - mark.index + 1);
                let new: Vec<Entry> = (first..=first + rng.below(4))
                    .map(|index| Entry { index, term, ..Entry::default() })
                    .collect();
                entries.retain(|index, _| *index < first);
                entries.extend(new.iter().map(|e| (e.index, e.term)));
                hard = HardState { term, vote: rng.below(4), commit: mark.index, ..HardState::default() };
                let batch = LogBatch { entries: new, hard_state: Some(hard.clone()), reset_to: None };
                store.append(batch).map_err(|e| e.to_string())?;
            }
            6 if last > mark.index => {
                let index = mark.index + 1 + rng.below(last - mark.index);
                mark = Applied { index, term: entries.get(&index).copied().unwrap_or_default() };
                store.truncate(index).map_err(|e| e.to_string())?;
                // What an append carries to the disk; without one, a new start undoes the truncation.
                let batch = LogBatch { hard_state: Some(hard.clone()), ..LogBatch::default() };
                store.append(batch).map_err(|e| e.to_string())?;
                entries.retain(|i, _| *i > index);
            }
            7 => {
                // A snapshot replaces the log, wherever that ends.
                mark = Applied { index: mark.index + 1 + rng.below(8), term: term + 1 };
                term += 1;
                let batch =
                    LogBatch { hard_state: Some(hard.clone()), reset_to: Some(mark), entries: Vec::new() };
                store.append(batch).map_err(|e| e.to_string())?;
                entries.clear();
            }
            8 => {
                drop(store);
                store = open()?;
            }
            _ => {}
        }
        let last = entries.last_key_value().map_or(mark.index, |(index, _)| *index);
        let bounds = (store.first_index(), store.last_index());
        if bounds != (mark.index + 1, last) {
            return Err(format!(
                "the log goes from {} to {}, and should from {} to {last}",
                bounds.0,
                bounds.1,
                mark.index + 1
            ));
        }
        if store.hard_state().map_err(|e| e.to_string())? != hard {
            return Err("the log has another hard state than it was given".into());
        }
        for (index, term) in &entries {
            if store.term(*index).map_err(|e| e.to_string())? != Some(*term) {
                return Err(format!("entry {index} of the log is not of term {term}"));
            }
        }
        if last > mark.index {
            let read = store.entries(mark.index + 1, last + 1, u64::MAX).map_err(|e| e.to_string())?;
            if !read.iter().map(|e| (e.index, e.term)).eq(entries.iter().map(|(i, t)| (*i, *t))) {
                return Err("the log gives other entries than it was given".into());
            }
        }
    }
    Ok(())
}
