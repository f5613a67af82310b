//! Which environment directory of the state is the live one.
//!
//! ```text
//! state/CURRENT        "generation-7\n"
//! state/generation-7/  the live environment
//! state/generation-8/  a snapshot being installed, or what a crash left of one
//! ```
//!
//! A snapshot is written into the next generation, and becomes the state in the moment in which
//! `CURRENT` is renamed over. Whatever instant the power fails at, opening finds exactly one of the two
//! states whole, because
//!
//! 1. before the rename, `CURRENT` names the old generation, and the new one is removed as a leftover;
//! 2. after the rename, `CURRENT` names the new one, which was flushed before, and the old one is removed.
//!
//! `CURRENT` is first written after the first generation is; a lone generation without it is therefore
//! adopted, and several without it are nobody's guess but the owner's.

use crate::durable;
use crate::error::{Context as _, Error, Result};
use crate::store::files;
use std::path::{Path, PathBuf};

const CURRENT: &str = "CURRENT";
const PREFIX: &str = "generation-";
/// No `CURRENT` of ours is longer than this, in bytes.
const LONGEST: u64 = 64;

/// The directory of a generation.
pub(super) fn path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{generation}"))
}

/// Makes `generation` the live one, durably.
pub(super) fn switch(dir: &Path, generation: u64) -> Result<()> {
    // Its own name first: `CURRENT` must never name what a power cut could take away.
    durable::sync_folder(&path(dir, generation))?;
    durable::sync_folder(dir)?;
    files::write_atomically(&dir.join(CURRENT), |file| {
        writeln!(file, "{PREFIX}{generation}").context("writing CURRENT")
    })
}

/// Writes `CURRENT` where there is none yet.
pub(super) fn switch_if_new(dir: &Path, generation: u64) -> Result<()> {
    if dir.join(CURRENT).exists() {
        return Ok(());
    }
    switch(dir, generation)
}

/// The live generation; `None` in a fresh directory.
pub(super) fn current(dir: &Path) -> Result<Option<u64>> {
    let file = dir.join(CURRENT);
    let size = match std::fs::metadata(&file) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return adopt(dir),
        Err(error) => return Err(Error::from_io(format!("reading {}", file.display()), &error)),
    };
    let unreadable = || {
        Error::corrupt(format!(
            "{} does not name a generation: write the name of the newest folder beside it into it, \
             or restore a backup with `pinfold state import`",
            file.display()
        ))
    };
    if size > LONGEST {
        return Err(unreadable());
    }
    let text = std::fs::read(&file).context(format!("reading {}", file.display()))?;
    let text = String::from_utf8(text).map_err(|_| unreadable())?;
    let generation = number(text.trim_end()).ok_or_else(unreadable)?;
    if !path(dir, generation).join("data.mdb").exists() {
        return Err(Error::corrupt(format!(
            "{} names {PREFIX}{generation}, which is not there: restore a backup with `pinfold state import`, \
             or empty this peer's data folder and let it join again",
            file.display()
        )));
    }
    Ok(Some(generation))
}

/// Removes every generation but the live one.
pub(super) fn remove_others(dir: &Path, live: u64) -> Result<()> {
    for generation in all(dir)?.into_iter().filter(|g| *g != live) {
        files::remove_dir(&path(dir, generation))?;
    }
    Ok(())
}

/// The lone generation of a directory in which creation was cut off before `CURRENT` was written.
fn adopt(dir: &Path) -> Result<Option<u64>> {
    match all(dir)?.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(Error::corrupt(format!(
            "the file CURRENT is missing in {} and there are several generations: write the name of the one \
             to use into it, or restore a backup with `pinfold state import`",
            dir.display()
        ))),
    }
}

fn all(dir: &Path) -> Result<Vec<u64>> {
    let doing = || format!("reading the folder {}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).context(doing())? {
        let entry = entry.context(doing())?;
        found.extend(entry.file_name().to_str().and_then(number));
    }
    Ok(found)
}

fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // One number has one name.
    plain.then(|| digits.parse().ok()).flatten().filter(|n| format!("{n}") == digits)
}
