//! `backup`: the pin list of a running peer as one more file, and the oldest files away.
//!
//! `state export` needs the peer stopped, because it opens its data. This asks the API instead, so that a timer can do
//! it every day. A file is there as a whole or not at all; it has the lines of `state export`, so that `state import`
//! and `pin import` both take it back.
//!
//! It must never push good backups out. A list like that of the newest file makes no new one; an empty list makes none
//! where there are backups, for it is more likely a board that lost its data than a list that somebody emptied; and
//! what would fill the disk is given up before it does.

use super::args::{self, Parsed};
use super::client::Client;
use super::failure::{Failure, Outcome};
use super::service;
use crate::config::{Face, Folder};
use crate::error::{Context as _, Error, Result};
use crate::state::transfer::Shelf;
use hyper::Method;
use serde::Deserialize;
use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Backups that are kept, unless --keep says otherwise.
const KEEP: usize = 14;
/// Where they are, in the folder of the peer: beside those of clean stops, which have numbers of their own.
const PLACE: &str = "backups/daily";
/// Free space that a backup leaves: twice of what the peer itself needs in order to take new pins.
const RESERVE: u64 = 128 << 20;
/// On a small file system the reserve is this part of it at most.
const LARGEST_PART: u64 = 10;
/// After so many bytes the free space is measured again.
const MEASURE: u64 = 1 << 20;
/// Bytes that are compared at once.
const PIECE: usize = 64 << 10;

/// What must be in a line for it to be a pin.
#[derive(Deserialize)]
struct Line {
    #[allow(dead_code)] // that it is there is what counts
    cid: String,
}

/// Writes into the folder of a service as its owner, when root asks for it; `None` when that is not so.
pub fn on_behalf(config: Option<&str>, command: &Parsed) -> Option<Outcome> {
    match command {
        Parsed::Backup(args::Backup { folder: None, .. }) => {
            let folder = Folder::find(config.map(Path::new), Face::Pinfold).ok()?;
            service::on_behalf(&folder, command)
        }
        _ => None,
    }
}

/// Runs `backup`.
///
/// # Errors
/// The API does not answer, or the folder cannot be written; older backups then stay as they are.
pub fn run(client: &Client, config: Option<&str>, args: &args::Backup) -> Outcome {
    let keep = args.keep.unwrap_or(KEEP);
    if keep == 0 {
        return Err(Failure::argument("parsing flags", "--keep 0 would keep no backup: give at least 1"));
    }
    let dir = match &args.folder {
        Some(folder) => PathBuf::from(folder),
        None => Folder::find(config.map(Path::new), Face::Pinfold)?.path().join(PLACE),
    };
    // Asked before anything is made on disk.
    let answer = RefCell::new(client.open(&Method::GET, "/allocations")?);
    let shelf = Shelf::of(&dir)?;
    let newest = shelf.newest();
    let (failure, mut pins, mut why_not) = (RefCell::new(None), 0_u64, None);
    let written = shelf.add(keep, |out| {
        let mut sink = Sink { out, dir: &dir, unmeasured: MEASURE, same: Same::to(newest.as_deref()) };
        loop {
            let line = answer.borrow_mut().next_line().map_err(|e| {
                *failure.borrow_mut() = Some(e);
                stopped()
            })?;
            let Some(line) = line else { break };
            serde_json::from_slice::<Line>(&line).map_err(|e| {
                Error::unavailable(format!("the answer to GET /allocations has a line that is no pin: {e}"))
            })?;
            sink.line(&line)?;
            pins += 1;
        }
        why_not = match &newest {
            Some(newest) if pins == 0 && !is_empty(newest) => {
                Some("the peer has no pins, and an empty backup takes no other one's place")
            }
            Some(_) if sink.same.is_the_same() => Some("nothing has changed since"),
            _ => None,
        };
        match why_not {
            Some(_) => Err(stopped()),
            None => Ok(()),
        }
    });
    let mut out = std::io::stdout();
    match (written, failure.into_inner(), why_not, newest) {
        (Ok(path), ..) => writeln!(out, "{pins} pins are in {}", path.display())?,
        (Err(_), Some(failure), ..) => return Err(failure),
        (Err(_), None, Some(why), Some(newest)) => {
            writeln!(out, "{} stays the newest: {why}", newest.display())?
        }
        (Err(error), ..) => return Err(error.into()),
    }
    Ok(out.flush()?)
}

/// Ends the writing of a file; the reason is elsewhere.
fn stopped() -> Error {
    Error::new(crate::Kind::Cancelled, "the backup was given up")
}

fn is_empty(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| about.len() == 0)
}

/// Where lines go.
struct Sink<'a> {
    out: &'a mut dyn Write,
    dir: &'a Path,
    unmeasured: u64,
    same: Same,
}

impl Sink<'_> {
    fn line(&mut self, line: &[u8]) -> Result<()> {
        self.unmeasured += line.len() as u64;
        if self.unmeasured >= MEASURE {
            self.unmeasured = 0;
            leave_room(self.dir)?;
        }
        for part in [line, b"\n"] {
            self.same.compare(part);
            self.out.write_all(part).context(format!("writing a backup into {}", self.dir.display()))?;
        }
        Ok(())
    }
}

/// Refuses to go on when the disk would be full soon.
fn leave_room(dir: &Path) -> Result<()> {
    // What cannot be measured is found out by writing.
    let Ok(stat) = rustix::fs::statvfs(dir) else { return Ok(()) };
    let (free, all) =
        (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize));
    if free >= RESERVE.min(all / LARGEST_PART) {
        return Ok(());
    }
    Err(Error::full(format!(
        "only {} MiB are free where {} is, and the peer needs them: make room, or name a folder on another disk",
        free >> 20,
        dir.display()
    )))
}

/// Compares what is written with a file, as it is written.
struct Same {
    /// `None`: there is none, or it is different already.
    other: Option<BufReader<File>>,
}

impl Same {
    fn to(path: Option<&Path>) -> Same {
        Same {
            other: path
                .and_then(|path| File::open(path).ok())
                .map(|file| BufReader::with_capacity(PIECE, file)),
        }
    }

    fn compare(&mut self, bytes: &[u8]) {
        let Some(other) = &mut self.other else { return };
        let mut theirs = vec![0; bytes.len()];
        if other.read_exact(&mut theirs).is_err() || theirs != bytes {
            self.other = None;
        }
    }

    /// Whether all that was written is all of the file.
    fn is_the_same(&mut self) -> bool {
        self.other.as_mut().is_some_and(|other| {
            let at = other.stream_position().ok();
            at.is_some() && at == other.get_ref().metadata().ok().map(|about| about.len())
        })
    }
}
