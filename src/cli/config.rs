//! `config check`, `config upgrade`, `config keys`: what stands in service.json, and what could.
//!
//! Results go to standard output, one line per key, so that they can be searched and compared; warnings and
//! mistakes go to standard error, as the daemon logs them. A secret is in none of them.

use super::failure::{Failure, Outcome};
use crate::config::{self, Change, Config, Env, Folder, Key, Upgrade};
use crate::error::Error;
use std::io::Write;

/// `config check`: reads the configuration as the daemon would, variables included.
///
/// # Errors
/// What would keep the daemon from starting.
pub fn check(folder: &Folder) -> Outcome {
    let (config, warnings, changes) = Config::inspect(folder, &Env::process())?;
    let mut out = std::io::stdout().lock();
    list(&mut out, &changes)?;
    warn(&warnings)?;
    config.check_exposure(false)?;
    let old = if changes.is_empty() { "" } else { "; `pinfold config upgrade` writes today's file" };
    writeln!(out, "{} is good: {} warnings{old}", folder.service_json().display(), warnings.len())?;
    Ok(out.flush()?)
}

/// `config upgrade`.
///
/// # Errors
/// A file with a mistake, a running daemon, or what the system said.
pub fn upgrade(folder: &Folder, dry_run: bool) -> Outcome {
    // Reading needs no lock; what is written must be what was read under it.
    let lock = if dry_run || !folder.path().is_dir() { None } else { Some(folder.lock("config upgrade")?) };
    let plan = Upgrade::plan(folder)?;
    let path = folder.service_json();
    let mut out = std::io::stdout().lock();
    warn(&plan.warnings)?;
    if !plan.is_needed() {
        writeln!(out, "nothing to do: {} is today's", path.display())?;
        return Ok(out.flush()?);
    }
    list(&mut out, &plan.changes)?;
    let count = |kind: fn(&Change) -> bool| plan.changes.iter().filter(|change| kind(change)).count();
    let (moved, dropped, added) = (
        count(|c| matches!(c, Change::Moved { .. })),
        count(|c| matches!(c, Change::Dropped { .. })),
        count(|c| matches!(c, Change::Added { .. })),
    );
    if dry_run {
        writeln!(out, "nothing was written: {moved} keys would move, {dropped} go, {added} come")?;
        return Ok(out.flush()?);
    }
    let written = plan.apply(folder)?;
    drop(lock);
    writeln!(out, "{}: {moved} keys moved, {dropped} dropped, {added} added", path.display())?;
    if let Some(identity) = written.identity {
        writeln!(out, "the identity is in {} now", identity.display())?;
    }
    writeln!(out, "the old file is {}", written.backup.display())?;
    Ok(out.flush()?)
}

fn list(out: &mut impl Write, changes: &[Change]) -> Outcome {
    for change in changes {
        match change {
            Change::Moved { from, to } => writeln!(out, "moved    {from} -> {to}")?,
            Change::Dropped { key, why } => writeln!(out, "dropped  {key}: {why}")?,
            Change::Added { key, value } => writeln!(out, "added    {key} = {value}")?,
        }
    }
    Ok(())
}

fn warn(warnings: &[String]) -> Outcome {
    let mut err = std::io::stderr().lock();
    for warning in warnings {
        writeln!(err, "WARNING: {warning}")?;
    }
    Ok(())
}

/// `config keys`.
///
/// # Errors
/// A prefix that no key has.
pub fn explain(prefix: Option<&str>, markdown: bool) -> Outcome {
    let prefix = prefix.unwrap_or_default();
    let keys: Vec<&Key> = config::keys().iter().filter(|key| key.path.starts_with(prefix)).collect();
    if keys.is_empty() {
        let error = format!("no key begins with \"{prefix}\"; `pinfold config keys` lists them all");
        return Err(Failure::Local(Error::not_found(error)));
    }
    let text = if markdown { config::manual::page(&keys) } else { config::manual::plain(&keys) };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
