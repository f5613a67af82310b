//! The two environments as `pinfold state check` sees them: files of pages, and what the rows of their own tables say.
//!
//! No row is read through LMDB here. Beside a running daemon a [`Reader`] is held for as long as the pages of its
//! transaction are read, the state's first and then the log's: the log is truncated only below what the state has
//! durably, so the log that is read later still begins where the state ends.

use super::env::Reader;
use super::{generation, log, number, state, FORMAT_KEY};
use crate::error::{Error, Result};
use crate::state::Applied;
use crate::store::pages::Pages;
use crate::store::Incarnation;
use raft::eraftpb::{Entry, HardState};
use std::path::{Path, PathBuf};

/// Times that a transaction is taken anew because the daemon wrote over its meta page before that was read.
const TRIES: usize = 20;

/// The directory of the log.
pub fn log_dir(data: &Path) -> PathBuf {
    data.join("log")
}

/// The directory of the live state, when there is one.
///
/// # Errors
/// When it cannot be told which one is live.
pub fn state_dir(data: &Path) -> Result<Option<PathBuf>> {
    let dir = data.join("state");
    if !dir.is_dir() {
        return Ok(None);
    }
    Ok(generation::current(&dir)?.map(|live| generation::path(&dir, live)))
}

/// A file of pages that nobody changes while this lives.
pub struct Held {
    /// The pages.
    pub pages: Pages,
    _reader: Option<Reader>,
}

/// Opens the file of an environment; `beside` a process that has it open, at a transaction that is held.
///
/// # Errors
/// [`crate::Kind::Corrupt`] with a clause on what is wrong with the file.
pub fn hold(dir: &Path, beside: bool) -> Result<Held> {
    let file = dir.join("data.mdb");
    let mut last = String::new();
    for _ in 0..if beside { TRIES } else { 1 } {
        let reader = beside.then(|| Reader::hold(dir)).transpose()?;
        match Pages::open(&file, reader.as_ref().map(Reader::txn)) {
            Ok(pages) => return Ok(Held { pages, _reader: reader }),
            Err(fault) => last = fault,
        }
    }
    Err(Error::corrupt(last))
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum LogRow {
    /// An entry.
    Entry(Entry),
    /// Term, vote and commit index.
    HardState(HardState),
    /// Up to where the log was truncated.
    Mark(Applied),
    /// Who this folder is.
    Incarnation(Incarnation),
    /// The data format.
    Format(u32),
}

/// Reads a row of the log.
///
/// # Errors
/// When it is damaged, of a newer pinfold, or none of ours.
pub fn log_row(table: &str, key: &[u8], value: &[u8]) -> Result<LogRow> {
    if table == "entries" {
        return log::decode_entry(log::index_of(key)?, value).map(LogRow::Entry);
    }
    match key {
        log::HARD_STATE_KEY => log::decode_hard_state(value).map(LogRow::HardState),
        log::MARK_KEY => log::decode_mark(value).map(LogRow::Mark),
        log::INCARNATION_KEY => log::decode_incarnation(value).map(LogRow::Incarnation),
        FORMAT_KEY => number(Some(value.to_vec()), "log", Path::new("this folder")).map(LogRow::Format),
        _ => Err(Error::corrupt(format!("the table {table} has a row that is none of ours"))),
    }
}

/// A row of the state's own marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkRow {
    /// How far the log was applied.
    Applied(Applied),
    /// The data format.
    Format(u32),
}

/// Reads a row of the state's table of marks.
///
/// # Errors
/// As [`log_row`].
pub fn mark_row(key: &[u8], value: &[u8]) -> Result<MarkRow> {
    match key {
        state::APPLIED_KEY => state::decode_applied(value).map(MarkRow::Applied),
        FORMAT_KEY => number(Some(value.to_vec()), "state", Path::new("this folder")).map(MarkRow::Format),
        _ => Err(Error::corrupt("the table of marks has a row that is none of ours")),
    }
}
