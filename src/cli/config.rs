//! `config check`, `config set`, `config upgrade`, `config keys`: what stands in service.json, and what could.
//!
//! Results go to standard output, one line per key, so that they can be searched and compared; warnings and
//! mistakes go to standard error, as the daemon logs them. A secret is in none of them.

use super::args::ConfigSet;
use super::failure::{Failure, Outcome};
use crate::config::edit::{self, Assignments, Edit};
use crate::config::{self, Change, Config, Env, Folder, Key, Upgrade, MAX_FILE_BYTES};
use crate::error::{Context, Error};
use std::io::{Read, Write};
use std::path::Path;

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

/// `config set`.
///
/// # Errors
/// Nothing to set, a key or value that is not right, or a file that no peer would start with.
pub fn set(folder: &Folder, args: &ConfigSet) -> Outcome {
    let mut given = Assignments::default();
    for word in &args.words {
        given.word(word)?;
    }
    if args.stdin {
        given.read(&standard_input()?)?;
    } else if given.is_empty() {
        return Err(Failure::Usage("name what to set, KEY=VALUE, or say --stdin".into()));
    }
    let managed = args.managed.as_ref().map(Path::new);
    let lock = if args.dry_run { None } else { Some(edit::lock(folder)?) };
    let plan = Edit::plan(folder, &given, managed, &Env::process())?;
    warn(&plan.warnings)?;
    let (path, mut out) = (folder.service_json(), std::io::stdout().lock());
    for change in &plan.changes {
        let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "(nothing)".into());
        writeln!(out, "{}: {} -> {}", change.key, said(&change.before), said(&change.after))?;
    }
    let count = plan.changes.len();
    if args.dry_run {
        writeln!(out, "nothing was written: {count} keys of {} would change", path.display())?;
        return Ok(out.flush()?);
    }
    plan.apply(folder, managed)?;
    drop(lock);
    if count == 0 {
        writeln!(out, "nothing to do: {} says so already", path.display())?;
    } else {
        writeln!(
            out,
            "{}: {count} keys changed; a peer that runs reads it at its next start",
            path.display()
        )?;
    }
    Ok(out.flush()?)
}

/// All of standard input, up to what a configuration may have.
fn standard_input() -> Outcome<String> {
    let mut text = String::new();
    let doing = "reading what to set from standard input";
    std::io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_string(&mut text).context(doing)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let error =
            format!("standard input has more than {MAX_FILE_BYTES} bytes, which no configuration has");
        return Err(Failure::Local(Error::too_large(error)));
    }
    Ok(text)
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
