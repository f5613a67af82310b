//! The stores that ship: LMDB through heed.
//!
//! [`LmdbLog`] commits with every append; [`LmdbState`] commits when it is told to flush. Each lives in a
//! directory of its own, which one process at a time may open (the daemon's folder lock). Both carry a
//! format record: data of a newer pinfold is refused with a sentence, and so is older data, which only
//! `pinfold state upgrade` may touch, because it makes a backup first.

mod env;
mod generation;
pub mod inspect;
pub(crate) mod log;
mod migrate;
// The layout and the numbers in there are those of musl on these.
#[cfg(all(target_env = "musl", any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm")))]
mod robust;
mod space;
mod state;
#[cfg(test)]
mod tests;

pub use log::LmdbLog;
#[cfg(test)]
pub(super) use migrate::stamp;
pub(super) use migrate::{copy, copy_state, look};
pub use state::LmdbState;

use crate::error::{Error, Result};
use env::{Db, Environment};
use std::path::Path;

/// Format of the environments. It changes when the tables or the meaning of their keys do, and when they may hold
/// records of a format that the programs before cannot read (records carry versions of their own): such a
/// program must not start on them, instead of stopping in the middle. What each step means is in [`migrate`].
pub(super) const FORMAT: u32 = 2;
/// Key of the format record.
const FORMAT_KEY: &[u8] = b"format";

/// How the environments use memory map and disk.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of the map to start with, bytes. Address space, not memory.
    pub map_size: usize,
    /// Largest map, bytes.
    pub map_limit: usize,
    /// Bytes to keep free on the disk (at most a twentieth of it); 0 does not look.
    pub reserve: u64,
}

impl Default for Options {
    /// 1 GiB to start with, 256 MiB where addresses have 32 bits; 64 MiB of the disk kept free.
    fn default() -> Self {
        let wide = usize::BITS >= 64;
        Options {
            map_size: if wide { 1 << 30 } else { 256 << 20 },
            map_limit: if wide { usize::MAX >> 20 } else { 1 << 30 },
            reserve: 64 << 20,
        }
    }
}

/// Opens the log environment in `dir`, making it (and a new Raft id) when there is none.
///
/// # Errors
/// When the disk refuses, the data is damaged, or it is of another version of pinfold.
pub fn open_log(dir: &Path, options: &Options) -> Result<LmdbLog> {
    LmdbLog::open(dir, options)
}

/// Opens the state environment in `dir`, making it when there is none, and finishing or undoing a
/// snapshot install that was cut off.
///
/// # Errors
/// When the disk refuses, the data is damaged, or it is of another version of pinfold.
pub fn open_state(dir: &Path, options: &Options) -> Result<LmdbState> {
    LmdbState::open(dir, options)
}

/// Checks the format record in table `at`, writing it into an environment that has none and is `fresh`.
fn check_format<const N: usize>(env: &Environment<N>, at: usize, what: &str, dir: &Path) -> Result<()> {
    let found = env.read(|tables, txn| {
        let record = tables[at].get(txn, FORMAT_KEY)?.map(<[u8]>::to_vec);
        let mut empty = true;
        for table in tables {
            empty &= Db::is_empty(table, txn)?;
        }
        Ok(if empty { None } else { Some(record) })
    })?;
    let Some(record) = found else {
        return env.write(|tables, txn| tables[at].put(txn, FORMAT_KEY, &FORMAT.to_be_bytes()));
    };
    match number(record, what, dir)? {
        FORMAT => Ok(()),
        older => Err(Error::version(format!(
            "the {what} in {} has the older data format {older}: run `pinfold state upgrade`, which makes a backup first",
            dir.display()
        ))),
    }
}

/// The format that a record tells, if this program knows it.
fn number(record: Option<Vec<u8>>, what: &str, dir: &Path) -> Result<u32> {
    let dir = dir.display();
    let number = record.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(u32::from_be_bytes);
    match number {
        Some(newer) if newer > FORMAT => Err(Error::version(format!(
            "the {what} in {dir} was written by a newer pinfold (data format {newer}, this program knows up to {FORMAT}): \
             start that version or a newer one"
        ))),
        Some(known) => Ok(known),
        None => Err(Error::corrupt(format!(
            "the {what} in {dir} has no readable format record: it is damaged, or not pinfold's"
        ))),
    }
}
