//! From one data format to the next.
//!
//! | format | what it means |
//! |---|---|
//! | 1 | pinfold 0.1: commands and records of format 1 |
//! | 2 | pinfold 0.2: besides these, the log may hold commands and the state rows that came with cluster version 2. Tables and keys are those of format 1, and so are the rows until the cluster version is raised: a row is a function of the log alone, so that peers of both builds agree on the digest |
//!
//! Data is never changed where it lies: [`copy`] makes a compact copy and brings that to the present format. The
//! copy is somebody else's to verify and to put in place (`store::upgrade`).
//!
//! A format that is not in the table here, or is damaged, is an error and nothing is copied.

use super::env::Environment;
use super::state::{read_applied, row_counts, StateEnv};
use super::{generation, log, number, state, Options, FORMAT, FORMAT_KEY};
use crate::durable;
use crate::error::{Error, Result};
use crate::state::Applied;
use crate::store::overlay::slot;
use crate::store::Table;
use std::path::{Path, PathBuf};

type LogEnv = Environment<2>;

/// What the environments of a data folder are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Present {
    /// The older of their formats.
    pub(in crate::store) format: u32,
    /// Pins in the state.
    pub(in crate::store) pins: u64,
    /// Members in the state.
    pub(in crate::store) members: u64,
    /// Local records in the state.
    pub(in crate::store) local: u64,
    /// How far the state has applied the log.
    pub(in crate::store) applied: Applied,
    /// Bytes of both on disk: a copy is not larger.
    pub(in crate::store) bytes: u64,
}

/// The environments that are there: a first start that was cut off may have left only one.
struct Opened {
    log: Option<LogEnv>,
    state: Option<(u64, StateEnv)>,
    bytes: u64,
}

fn log_dir(data: &Path) -> PathBuf {
    data.join("log")
}

fn state_dir(data: &Path) -> PathBuf {
    data.join("state")
}

fn size(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("data.mdb")).map_or(0, |m| m.len())
}

fn open(data: &Path, options: &Options) -> Result<Opened> {
    let mut opened = Opened { log: None, state: None, bytes: 0 };
    let dir = log_dir(data);
    // Opening would make what is not there.
    if dir.join("data.mdb").exists() {
        opened.bytes += size(&dir);
        opened.log = Some(Environment::open(&dir, log::TABLES, options)?);
    }
    let dir = state_dir(data);
    if let Some(live) = dir.is_dir().then(|| generation::current(&dir)).transpose()?.flatten() {
        let dir = generation::path(&dir, live);
        opened.bytes += size(&dir);
        opened.state = Some((live, Environment::open(&dir, state::TABLES, options)?));
    }
    Ok(opened)
}

/// The format of an environment; the present one for an environment in which nothing was ever written.
fn format<const N: usize>(env: &Environment<N>, at: usize, what: &str, dir: &Path) -> Result<u32> {
    let found = env.read(|tables, txn| {
        let record = tables[at].get(txn, FORMAT_KEY)?.map(<[u8]>::to_vec);
        let mut empty = true;
        for table in tables {
            empty &= table.is_empty(txn)?;
        }
        Ok((!empty).then_some(record))
    })?;
    found.map_or(Ok(FORMAT), |record| number(record, what, dir))
}

/// Looks at the environments under `data` without changing them; `None` where there are none.
///
/// # Errors
/// When the disk refuses, the data is damaged, or of a newer pinfold.
pub(in crate::store) fn look(data: &Path, options: &Options) -> Result<Option<Present>> {
    let opened = open(data, options)?;
    let mut present = Present {
        format: FORMAT,
        pins: 0,
        members: 0,
        local: 0,
        applied: Applied::default(),
        bytes: opened.bytes,
    };
    if opened.log.is_none() && opened.state.is_none() {
        return Ok(None);
    }
    if let Some(env) = &opened.log {
        present.format = format(env, log::META, "log", &log_dir(data))?;
    }
    if let Some((_, env)) = &opened.state {
        present.format = present.format.min(format(env, state::MARK, "state", &state_dir(data))?);
        let counts = row_counts(env)?;
        present.pins = counts[slot(Table::Pins)];
        present.members = counts[slot(Table::Members)];
        present.local = counts[slot(Table::Local)];
        present.applied = read_applied(env)?;
    }
    Ok(Some(present))
}

/// Copies the environments under `data` into the folder `to`, which must not be there, and brings the copy to the
/// present format. Durable when this returns; the folder above `to` is the caller's to flush.
///
/// # Errors
/// When the disk refuses or is full, or a format is one that cannot be brought forward. `to` is then as far as it got.
pub(in crate::store) fn copy(data: &Path, to: &Path, options: &Options) -> Result<()> {
    let opened = open(data, options)?;
    durable::make_folder(to)?;
    if let Some(env) = opened.log {
        let dir = log_dir(to);
        env.copy_to(&dir)?;
        let copy: LogEnv = Environment::open(&dir, log::TABLES, options)?;
        bring_forward(&copy, log::META, "log", &log_dir(data))?;
    }
    if let Some(state) = opened.state {
        copy_opened_state(state, data, to, options)?;
    }
    durable::sync_folder(to)
}

/// Copies the state alone, as [`copy`] does both; the log of the copy is the caller's to make.
///
/// # Errors
/// As [`copy`], and when there is no state.
pub(in crate::store) fn copy_state(data: &Path, to: &Path, options: &Options) -> Result<()> {
    let state = open(data, options)?.state.ok_or_else(|| {
        Error::corrupt(format!(
            "{} has no state: restore a backup with `pinfold state import`",
            data.display()
        ))
    })?;
    durable::make_folder(to)?;
    copy_opened_state(state, data, to, options)?;
    durable::sync_folder(to)
}

fn copy_opened_state((live, env): (u64, StateEnv), data: &Path, to: &Path, options: &Options) -> Result<()> {
    let dir = state_dir(to);
    durable::make_folder(&dir)?;
    let inside = generation::path(&dir, live);
    env.copy_to(&inside)?;
    let copy: StateEnv = Environment::open(&inside, state::TABLES, options)?;
    bring_forward(&copy, state::MARK, "state", &state_dir(data))?;
    generation::switch(&dir, live)
}

/// Takes an environment through all the steps that are ahead of it, in one transaction.
fn bring_forward<const N: usize>(env: &Environment<N>, at: usize, what: &str, from: &Path) -> Result<()> {
    let found = format(env, at, what, from)?;
    if found == 0 {
        return Err(Error::corrupt(format!(
            "the {what} in {} has the data format 0, which never existed",
            from.display()
        )));
    }
    env.write(|tables, txn| {
        // From 1 to 2 no row changes: see the table at the top. A step that changes rows goes here, before the stamp.
        tables[at].put(txn, FORMAT_KEY, &FORMAT.to_be_bytes())
    })
}

/// Stamps data with a format, for tests.
#[cfg(test)]
pub(in crate::store) fn stamp(data: &Path, options: &Options, number: u32) {
    let opened = open(data, options).expect("data");
    if let Some(env) = opened.log {
        env.write(|t, txn| t[log::META].put(txn, FORMAT_KEY, &number.to_be_bytes())).expect("log");
    }
    if let Some((_, env)) = opened.state {
        env.write(|t, txn| t[state::MARK].put(txn, FORMAT_KEY, &number.to_be_bytes())).expect("state");
    }
}
