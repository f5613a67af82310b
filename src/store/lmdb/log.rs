//! The log environment: every append is one durable commit.
//!
//! Entries lie under their index (u64, big-endian); beside them hard state, truncation mark, format and
//! incarnation. The marks are kept in memory and follow a commit, never precede it. Truncation is lazy: it
//! moves the mark in memory and the next append carries it to disk, deleting a slice of old entries at a
//! time, so that it never costs a flush of its own and never makes an append long. After a power cut a
//! truncation may therefore be undone; the entries are still right.
//!
//! After an error of the disk the log refuses everything: what is on disk is known only after opening again.

#[cfg(any(test, fuzzing))]
#[path = "../../../tests/fuzz/targets/log_entries.rs"]
pub(crate) mod fuzz;

use super::env::Environment;
use super::space::Space;
use super::{check_format, Options};
use crate::error::{Context as _, Error, Kind, Result};
use crate::planted::{self, Bug};
use crate::state::{Applied, RaftId};
use crate::store::record::{self, Blob};
use crate::store::{Incarnation, LogBatch, LogStore};
use raft::eraftpb::{Entry, EntryType, HardState};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// Entries kept in memory: Raft reads what it has just written.
const CACHED_ENTRIES: usize = 1_024;
/// Bytes of entries kept in memory.
const CACHED_BYTES: usize = 4 << 20;
/// Old entries that one append deletes at most.
const DELETE_SLICE: usize = 2_000;
/// What an entry weighs besides data and context, when reads are limited by bytes.
const ENTRY_OVERHEAD: u64 = 24;
/// Format of entries and marks up to pinfold 0.2.
const RECORD: u8 = 1;
/// The same with a checksum behind it: an entry that a card changed must not be sent on, or applied.
const SUMMED: u8 = 2;

pub(super) const TABLES: [&str; 2] = ["entries", "meta"];
const ENTRIES: usize = 0;
pub(super) const META: usize = 1;
pub(super) const HARD_STATE_KEY: &[u8] = b"hard_state";
pub(super) const MARK_KEY: &[u8] = b"mark";
pub(super) const INCARNATION_KEY: &[u8] = b"incarnation";

#[derive(Serialize, Deserialize)]
struct EntryV1<'a> {
    kind: u8,
    term: u64,
    index: u64,
    #[serde(borrow)]
    data: Blob<'a>,
    context: Blob<'a>,
}

#[derive(Serialize, Deserialize)]
struct HardStateV1 {
    term: u64,
    vote: u64,
    commit: u64,
}

#[derive(Serialize, Deserialize)]
struct IncarnationV1 {
    raft_id: RaftId,
    cluster_id: u64,
}

const KINDS: [EntryType; 3] =
    [EntryType::EntryNormal, EntryType::EntryConfChange, EntryType::EntryConfChangeV2];

fn encode_entry(entry: &Entry) -> Vec<u8> {
    let kind = KINDS.iter().position(|k| *k == entry.entry_type).unwrap_or(0) as u8;
    let v1 = EntryV1 {
        kind,
        term: entry.term,
        index: entry.index,
        data: Blob::borrowed(&entry.data),
        context: Blob::borrowed(&entry.context),
    };
    record::encode_summed(SUMMED, b"", &v1)
}

pub(super) fn decode_entry(index: u64, bytes: &[u8]) -> Result<Entry> {
    let what = || format!("log entry {index}");
    let v1: EntryV1<'_> = record::decode_summed(RECORD, SUMMED, b"", bytes)
        .map_err(|f| f.into_error(&what(), Kind::Corrupt))?;
    let kind = KINDS.get(usize::from(v1.kind)).copied();
    let Some(entry_type) = kind.filter(|_| v1.index == index) else {
        return Err(Error::corrupt(format!("{} is damaged: it says index {}", what(), v1.index)));
    };
    let mut entry = Entry { entry_type, term: v1.term, index, ..Entry::default() };
    entry.data = v1.data.0.into_owned().into();
    entry.context = v1.context.0.into_owned().into();
    Ok(entry)
}

fn weight(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len()) as u64 + ENTRY_OVERHEAD
}

/// Raft's hard state, from its record.
pub(super) fn decode_hard_state(bytes: &[u8]) -> Result<HardState> {
    let v1: HardStateV1 = record::decode_summed(RECORD, SUMMED, b"", bytes)
        .map_err(|f| f.into_error("Raft's hard state", Kind::Corrupt))?;
    Ok(HardState { term: v1.term, vote: v1.vote, commit: v1.commit, ..HardState::default() })
}

/// Who the data folder is, from its record.
pub(super) fn decode_incarnation(bytes: &[u8]) -> Result<Incarnation> {
    let v1: IncarnationV1 = record::decode_summed(RECORD, SUMMED, b"", bytes)
        .map_err(|f| f.into_error("this peer's Raft id", Kind::Corrupt))?;
    Ok(Incarnation { raft_id: v1.raft_id, cluster_id: v1.cluster_id })
}

/// The truncation mark, from its record.
pub(super) fn decode_mark(bytes: &[u8]) -> Result<Applied> {
    record::decode_summed(RECORD, SUMMED, b"", bytes)
        .map_err(|f| f.into_error("the log's truncation mark", Kind::Corrupt))
}

/// The log on LMDB.
pub struct LmdbLog {
    dir: PathBuf,
    env: Environment<2>,
    space: Space,
    incarnation: Incarnation,
    hard_state: HardState,
    /// Index and term of the last entry that was forgotten.
    mark: Applied,
    /// Whether the mark on disk is older, or forgotten entries are still there.
    mark_moved: bool,
    last: u64,
    /// The newest entries, without a gap.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    failed: Option<Error>,
}

impl LmdbLog {
    /// See [`super::open_log`].
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Self> {
        let env = Environment::open(dir, TABLES, options)?;
        check_format(&env, META, "log", dir)?;
        let read = |key: &[u8]| env.read(|tables, txn| Ok(tables[META].get(txn, key)?.map(<[u8]>::to_vec)));
        let incarnation = match read(INCARNATION_KEY)? {
            Some(bytes) => decode_incarnation(&bytes)?,
            None => {
                let new = Incarnation { raft_id: random_id()?, cluster_id: 0 };
                put_incarnation(&env, new)?;
                new
            }
        };
        let hard_state = match read(HARD_STATE_KEY)? {
            Some(bytes) => decode_hard_state(&bytes)?,
            None => HardState::default(),
        };
        let mark = match read(MARK_KEY)? {
            Some(bytes) => decode_mark(&bytes)?,
            None => Applied::default(),
        };
        let (first, last, count) = env.read(|tables, txn| {
            let index = |row: Option<(&[u8], &[u8])>| row.map(|(key, _)| key.to_vec());
            let entries = tables[ENTRIES];
            Ok((index(entries.first(txn)?), index(entries.last(txn)?), entries.len(txn)?))
        })?;
        let (first, last) =
            (first.map(|k| index_of(&k)).transpose()?, last.map(|k| index_of(&k)).transpose()?);
        if let (Some(first), Some(last)) = (first, last) {
            if last - first + 1 != count || first > mark.index + 1 {
                return Err(Error::corrupt(format!(
                    "the log in {} has a gap: {count} entries from {first} to {last}, truncated up to {}; \
                     empty this peer's data folder and let it join again",
                    dir.display(),
                    mark.index
                )));
            }
        }
        Ok(LmdbLog {
            dir: dir.to_path_buf(),
            space: Space::new(dir, options.reserve),
            env,
            incarnation,
            hard_state,
            mark,
            mark_moved: first.is_some_and(|first| first <= mark.index),
            last: last.unwrap_or(0).max(mark.index),
            recent: VecDeque::new(),
            recent_bytes: 0,
            failed: None,
        })
    }

    fn usable(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone().context("the log stopped after an error")),
            None => Ok(()),
        }
    }

    /// Index and term as they will be after the batch; refuses one that does not fit.
    fn check(&self, batch: &LogBatch) -> Result<()> {
        let (mark, last) = match batch.reset_to {
            Some(mark) => (mark.index, mark.index),
            None => (self.mark.index, self.last),
        };
        let Some(first) = batch.entries.first() else { return Ok(()) };
        let fits = first.index > mark && first.index <= last + 1;
        let in_order = batch.entries.windows(2).all(|pair| pair[1].index == pair[0].index + 1);
        if fits && in_order {
            return Ok(());
        }
        Err(Error::internal(format!(
            "entries from {} cannot follow a log that is truncated up to {mark} and ends at {last}",
            first.index
        )))
    }

    fn remember(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.recent_bytes += weight(&entry) as usize;
            self.recent.push_back(entry);
        }
        while self.recent.len() > CACHED_ENTRIES || self.recent_bytes > CACHED_BYTES {
            let Some(entry) = self.recent.pop_front() else { break };
            self.recent_bytes -= weight(&entry) as usize;
        }
    }

    /// Forgets cached entries from `index` on.
    fn forget_from(&mut self, index: u64) {
        while self.recent.back().is_some_and(|entry| entry.index >= index) {
            if let Some(entry) = self.recent.pop_back() {
                self.recent_bytes -= weight(&entry) as usize;
            }
        }
    }

    fn cached(&self, index: u64) -> Option<&Entry> {
        let first = self.recent.front()?.index;
        self.recent.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    fn commit(&mut self, batch: &LogBatch, mark: Applied) -> Result<bool> {
        let (move_mark, last) = (self.mark_moved || batch.reset_to.is_some(), self.last);
        let records: Vec<_> =
            batch.entries.iter().map(|e| (e.index.to_be_bytes(), encode_entry(e))).collect();
        self.env.write(|tables, txn| {
            let (entries, meta) = (tables[ENTRIES], tables[META]);
            let mut left_over = false;
            if batch.reset_to.is_some() && !planted::is(Bug::LogKeptBehindSnapshot) {
                entries.clear(txn)?;
            } else if move_mark {
                left_over = delete_slice(&entries, txn, mark.index)?;
            }
            if move_mark {
                meta.put(txn, MARK_KEY, &record::encode_summed(SUMMED, b"", &mark))?;
            }
            if let Some((first, _)) = records.first() {
                let conflicts = u64::from_be_bytes(*first) <= last && !planted::is(Bug::ConflictingTailStays);
                if batch.reset_to.is_none() && conflicts {
                    let suffix = (Bound::Included(&first[..]), Bound::<&[u8]>::Unbounded);
                    entries.delete_range(txn, &suffix)?;
                }
            }
            for (key, value) in &records {
                entries.put(txn, key, value)?;
            }
            if let Some(hard) = &batch.hard_state {
                let v1 = HardStateV1 { term: hard.term, vote: hard.vote, commit: hard.commit };
                meta.put(txn, HARD_STATE_KEY, &record::encode_summed(SUMMED, b"", &v1))?;
            }
            Ok(left_over)
        })
    }

    #[cfg(test)]
    pub(super) fn space(&self) -> &Space {
        &self.space
    }
}

/// Deletes up to [`DELETE_SLICE`] entries up to `mark`; whether there are more.
fn delete_slice(entries: &super::Db, txn: &mut heed::RwTxn<'_>, mark: u64) -> heed::Result<bool> {
    let Some((first, _)) = entries.first(txn)? else { return Ok(false) };
    let first = first.try_into().map_or(0, u64::from_be_bytes);
    if first > mark {
        return Ok(false);
    }
    let until = mark.min(first.saturating_add(DELETE_SLICE as u64 - 1));
    let range = (Bound::<&[u8]>::Unbounded, Bound::Included(&until.to_be_bytes()[..]));
    entries.delete_range(txn, &range)?;
    Ok(until < mark)
}

pub(super) fn index_of(key: &[u8]) -> Result<u64> {
    let key = key.try_into().map_err(|_| Error::corrupt("the log has a key that is not an index"))?;
    Ok(u64::from_be_bytes(key))
}

/// A random Raft id; Raft uses 0 for nobody.
fn random_id() -> Result<RaftId> {
    loop {
        let id = getrandom::u64()
            .map_err(|e| Error::io(format!("the system gives no random numbers for a Raft id: {e}")))?;
        if id != 0 {
            return Ok(id);
        }
    }
}

fn put_incarnation(env: &Environment<2>, incarnation: Incarnation) -> Result<()> {
    let v1 = IncarnationV1 { raft_id: incarnation.raft_id, cluster_id: incarnation.cluster_id };
    env.write(|tables, txn| tables[META].put(txn, INCARNATION_KEY, &record::encode_summed(SUMMED, b"", &v1)))
}

impl LogStore for LmdbLog {
    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn set_cluster_id(&mut self, cluster_id: u64) -> Result<()> {
        self.usable()?;
        let new = Incarnation { cluster_id, ..self.incarnation };
        put_incarnation(&self.env, new)?;
        self.incarnation = new;
        Ok(())
    }

    fn hard_state(&self) -> Result<HardState> {
        Ok(self.hard_state.clone())
    }

    fn first_index(&self) -> u64 {
        self.mark.index + 1
    }

    fn last_index(&self) -> u64 {
        self.last
    }

    fn term(&self, index: u64) -> Result<Option<u64>> {
        if index == self.mark.index {
            return Ok(Some(self.mark.term));
        }
        if index < self.mark.index || index > self.last {
            return Ok(None);
        }
        match self.cached(index) {
            Some(entry) => Ok(Some(entry.term)),
            None => Ok(self.entries(index, index + 1, 0)?.first().map(|entry| entry.term)),
        }
    }

    fn entries(&self, lo: u64, hi: u64, max_bytes: u64) -> Result<Vec<Entry>> {
        self.usable()?;
        if lo <= self.mark.index || hi > self.last + 1 || lo >= hi {
            return Err(Error::internal(format!(
                "log entries {lo}..{hi} were asked for; there are {}..{}",
                self.mark.index + 1,
                self.last + 1
            )));
        }
        let mut found: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        // Says whether there is room for one more; the first always fits.
        let mut take = |entry: Entry| {
            bytes += weight(&entry);
            let fits = found.is_empty() || bytes <= max_bytes;
            if fits {
                found.push(entry);
            }
            fits
        };
        if self.cached(lo).is_some() {
            let _ = (lo..hi).map_while(|index| self.cached(index)).all(|entry| take(entry.clone()));
            return Ok(found);
        }
        let mut next = lo;
        let read = self.env.read(|tables, txn| {
            let (lo, hi) = (lo.to_be_bytes(), hi.to_be_bytes());
            let range = (Bound::Included(&lo[..]), Bound::Excluded(&hi[..]));
            for row in tables[ENTRIES].range(txn, &range)? {
                let (key, value) = row?;
                let entry = match index_of(key) {
                    Ok(index) if index == next => decode_entry(index, value),
                    _ => Err(Error::corrupt(format!("log entry {next} is missing"))),
                };
                match entry.map(&mut take) {
                    Ok(true) => next += 1,
                    Ok(false) => break,
                    Err(error) => return Ok(Err(error)),
                }
            }
            Ok(Ok(()))
        })?;
        read.context(format!("the log in {}", self.dir.display()))?;
        if found.is_empty() {
            return Err(Error::corrupt(format!("log entry {lo} is missing in {}", self.dir.display())));
        }
        Ok(found)
    }

    fn append(&mut self, batch: LogBatch) -> Result<()> {
        self.usable()?;
        if batch.entries.is_empty() && batch.hard_state.is_none() && batch.reset_to.is_none() {
            return Ok(());
        }
        self.check(&batch)?;
        self.space.check()?;
        let mark = batch.reset_to.unwrap_or(self.mark);
        let left_over = match self.commit(&batch, mark) {
            Ok(left_over) => left_over,
            Err(error) => {
                let error = error.context("appending to the log");
                self.failed = Some(error.clone());
                return Err(error);
            }
        };
        self.mark_moved = left_over;
        if batch.reset_to.is_some() {
            self.mark = mark;
            self.last = mark.index;
            self.forget_from(0);
        }
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let (Some(first), Some(last)) = (batch.entries.first(), batch.entries.last()) {
            self.last = last.index;
            self.forget_from(first.index);
            self.remember(batch.entries);
        }
        Ok(())
    }

    fn truncate(&mut self, index: u64) -> Result<()> {
        self.usable()?;
        if index <= self.mark.index {
            return Ok(());
        }
        let Some(term) = self.term(index)? else {
            return Err(Error::internal(format!(
                "the log ends at {} and cannot be truncated up to {index}",
                self.last
            )));
        };
        self.mark = Applied { index, term };
        self.mark_moved = true;
        while self.recent.front().is_some_and(|entry| entry.index <= index) {
            if let Some(entry) = self.recent.pop_front() {
                self.recent_bytes -= weight(&entry) as usize;
            }
        }
        Ok(())
    }
}
