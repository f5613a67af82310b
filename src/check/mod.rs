//! `pinfold state check`: is what this peer has on disk what was written?
//!
//! | file | looks at |
//! |---|---|
//! | `state` | the state environment: every page, every row, digest, members |
//! | `log` | the log environment: every page, every entry, hard state, marks |
//! | `blocks` | the embedded node: its index, and every block's place and, if asked for, hash |
//!
//! Nothing is read through LMDB: its pages are read and verified by `store::pages`, so that no damage can take this
//! process down or lead it astray. It works on a stopped peer, whose folder it holds meanwhile, and beside a running
//! daemon, on what that has on disk at one moment. It changes nothing in either case.
//!
//! A finding is one sentence that names the thing and what to do about it. A *note* is worth knowing and no damage.

mod blocks;
mod log;
mod state;

use crate::config::{Config, Env, Folder, FolderLock, IpfsSection};
use crate::error::{Error, Kind, Result};
use crate::ipfs::removable::{self, Place};
use crate::store::lmdb::inspect;
use crate::store::pages::Found;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Findings of one kind that are told; the rest is counted.
const MAX_ALIKE: u64 = 5;
/// How often a look beside a daemon that contradicts itself is taken again: a snapshot may have come in between.
const LOOKS: usize = 5;

/// What mends a damaged log or state.
const MEND: &str = "if the other voters are a majority without this one: stop it, run `pinfold state cleanup` and start it again, and it \
     gets everything from them; if only one of two is left, or it is alone: `pinfold state recover` on the one that is well, or \
     `pinfold state import` of the newest file in backups/";
/// What mends a damaged block store.
const MEND_BLOCKS: &str = "`pinfold recover` fetches what is missing from the other peers; if it does not help, move the ipfs folder away, and the pins are fetched anew";

/// What to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Read every block and check its hash.
    pub blocks: bool,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where: `log`, `state`, `blocks`, or `log and state`.
    pub part: &'static str,
    /// Whether it is only worth knowing.
    pub note: bool,
    /// In a sentence.
    pub what: String,
    /// What to do.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub fix: &'static str,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The folder.
    pub folder: String,
    /// Whether a daemon runs on it: then this is what it had on disk at one moment.
    pub beside_daemon: bool,
    /// The cluster, as sixteen hexadecimal digits.
    pub cluster_id: String,
    /// The Raft id, likewise.
    pub raft_id: String,
    /// The entry that the state is of.
    pub applied: u64,
    /// The first entry of the log.
    pub first: u64,
    /// The last entry of the log.
    pub last: u64,
    /// The digest of the replicated rows.
    pub digest: String,
    /// Rows of each table of the state, and entries of the log.
    pub rows: BTreeMap<String, u64>,
    /// Blocks in the index of the embedded node; of them read and found right.
    pub blocks: (u64, u64),
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether something is damaged.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| !finding.note)
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.folder);
        if self.beside_daemon {
            let _ = writeln!(
                text,
                "a daemon runs on it: this is what it had on disk, as of entry {}",
                self.applied
            );
        }
        let rows = |name: &str| self.rows.get(name).copied().unwrap_or(0);
        let _ = writeln!(text, "  cluster {}, Raft id {}", self.cluster_id, self.raft_id);
        let _ = writeln!(text, "  log     entries {} to {}", self.first, self.last);
        let _ = writeln!(
            text,
            "  state   {} pins, {} members, {} local records, as of entry {}, digest {}",
            rows("pins"),
            rows("members"),
            rows("local"),
            self.applied,
            self.digest
        );
        if self.blocks.0 > 0 {
            let _ = writeln!(
                text,
                "  blocks  {}, of which {} were read and have their hash",
                self.blocks.0, self.blocks.1
            );
        }
        for finding in &self.findings {
            let word = if finding.note { "note" } else { "DAMAGED" };
            let _ = writeln!(text, "{word}: {}: {}", finding.part, finding.what);
            if !finding.fix.is_empty() {
                let _ = writeln!(text, "    {}", finding.fix);
            }
        }
        if !self.is_damaged() {
            text.push_str("nothing is damaged\n");
        }
        text
    }
}

/// Gathers findings, of many that are alike only the first.
#[derive(Default)]
struct Findings {
    all: Vec<Finding>,
    alike: BTreeMap<(&'static str, &'static str), u64>,
}

impl Findings {
    /// Adds one. `kind` says which are alike.
    fn add(
        &mut self,
        part: &'static str,
        kind: &'static str,
        note: bool,
        what: impl Into<String>,
        fix: &'static str,
    ) {
        let count = self.alike.entry((part, kind)).or_default();
        *count += 1;
        if *count <= MAX_ALIKE {
            self.all.push(Finding { part, note, what: what.into(), fix });
        }
    }

    fn damage(&mut self, part: &'static str, kind: &'static str, what: impl Into<String>) {
        self.add(part, kind, false, what, if part == "blocks" { MEND_BLOCKS } else { MEND });
    }

    fn note(&mut self, part: &'static str, kind: &'static str, what: impl Into<String>) {
        self.add(part, kind, true, what, "");
    }

    /// What the walk over a file's pages found.
    fn pages(&mut self, part: &'static str, found: &Found) {
        for fault in &found.faults {
            self.damage(part, "pages", fault.clone());
        }
        if found.more > 0 {
            self.damage(part, "more pages", format!("{} further pages are damaged", found.more));
        }
        if found.lost > 0 {
            let what = format!("{} pages are neither used nor free: lost room, and no harm", found.lost);
            self.note(part, "lost pages", what);
        }
    }

    fn done(self) -> Vec<Finding> {
        let mut all = self.all;
        for ((part, kind), count) in self.alike.into_iter().filter(|(_, count)| *count > MAX_ALIKE) {
            let what = format!("{} more like the above ({kind})", count - MAX_ALIKE);
            all.push(Finding { part, note: false, what, fix: "" });
        }
        all
    }
}

/// Looks at a peer's folder.
///
/// # Errors
/// There is no data, or the configuration cannot be read. Damage is no error: it is in the report.
pub fn examine(folder: &Folder, wish: Wish, progress: &mut dyn FnMut(u64, u64)) -> Result<Report> {
    let (config, _) = Config::load(folder, &Env::process())?;
    let lock: Option<FolderLock> = match folder.lock("state check") {
        Ok(lock) => Some(lock),
        Err(error) if error.kind() == Kind::Conflict => None,
        Err(error) => return Err(error),
    };
    let data = config.resolve(folder, &config.consensus.data_folder);
    if !inspect::log_dir(&data).join("data.mdb").exists() && !data.join("state").is_dir() {
        return Err(Error::not_found(format!("{} holds no data: there is nothing to check", data.display())));
    }
    let mut report = examine_data(&data, lock.is_none());
    report.folder = folder.path().display().to_string();
    if let IpfsSection::Embedded(section) = &config.ipfs {
        let mut findings = Findings::default();
        let blocks = config.resolve(folder, &section.data_folder);
        let place = Place { blocks: blocks.clone(), home: folder.path().to_owned() };
        // An empty place is no store without a fault.
        if let Err(cause) = removable::look(&place) {
            findings.add("blocks", "disk", false, cause.message(), "check again when the disk is there");
        }
        report.blocks = blocks::look(&blocks, lock.is_none(), wish.blocks, progress, &mut findings);
        report.findings.extend(findings.done());
    }
    Ok(report)
}

/// Looks at the folder of an embedded node that is stopped, reading every block.
pub fn examine_blocks(folder: &Path) -> Report {
    let (mut report, mut findings) = (Report::default(), Findings::default());
    report.blocks = blocks::look(folder, false, true, &mut |_, _| (), &mut findings);
    report.findings = findings.done();
    report
}

/// Looks at the two environments of a data folder; `beside` a daemon that has them open.
pub fn examine_data(data: &Path, beside: bool) -> Report {
    let mut looks = 0;
    loop {
        looks += 1;
        let (report, torn) = look(data, beside);
        // The two were not of one moment.
        if !torn || !beside || looks == LOOKS {
            return report;
        }
    }
}

/// One look; whether log and state contradict each other.
fn look(data: &Path, beside: bool) -> (Report, bool) {
    let mut findings = Findings::default();
    let mut report = Report { beside_daemon: beside, ..Report::default() };
    let state_held = match inspect::state_dir(data) {
        Ok(Some(dir)) => inspect::hold(&dir, beside),
        Ok(None) => Err(Error::corrupt("there is none")),
        Err(error) => Err(error),
    };
    let log_held = inspect::hold(&inspect::log_dir(data), beside);
    let state = state_held.map(|held| state::look(&held.pages, &mut findings));
    let log = log_held.map(|held| log::look(&held.pages, &mut findings));
    for (part, error) in [("state", state.as_ref().err()), ("log", log.as_ref().err())] {
        match error {
            Some(error) if error.kind() == Kind::Corrupt => findings.damage(part, "file", error.message()),
            Some(error) => {
                findings.add(part, "file", false, error.message(), "run this as the user of the daemon");
            }
            None => {}
        }
    }
    let mut torn = false;
    if let Ok(log) = &log {
        report.cluster_id = format!("{:016x}", log.incarnation.map_or(0, |i| i.cluster_id));
        report.raft_id = format!("{:016x}", log.incarnation.map_or(0, |i| i.raft_id));
        (report.first, report.last) = (log.mark.index + 1, log.last.index);
        report.rows.insert("entries".into(), log.entries);
    }
    if let Ok(state) = &state {
        report.applied = state.applied.index;
        report.digest = format!("{:032x}", state.digest);
        report.rows.extend(state.rows.clone());
    }
    if let (Ok(log), Ok(state)) = (&log, &state) {
        torn = cross(log, state, &mut findings);
    }
    report.findings = findings.done();
    (report, torn)
}

/// What log and state say of each other; whether they contradict.
fn cross(log: &log::Look, state: &state::Look, findings: &mut Findings) -> bool {
    let before = findings.all.len();
    let part = "log and state";
    if state.applied.index < log.mark.index {
        findings.damage(
            part,
            "gap",
            format!(
                "the state ends at entry {}, and the log begins only at {}",
                state.applied.index,
                log.mark.index + 1
            ),
        );
    }
    if state.applied.index > log.last.index.max(log.mark.index) {
        // A snapshot was installed and the power went before the log was told: the next start does that.
        let what =
            format!("the state is at entry {} and the log ends at {}", state.applied.index, log.last.index);
        if log.entries == 0 {
            findings.note(part, "ahead", what + "; the next start completes an install that was cut off");
        } else {
            findings.note(part, "ahead", what + "; the log is replaced at the next start");
        }
    }
    if let Some(term) = log.terms.get(&state.applied.index).filter(|term| **term != state.applied.term) {
        let what = format!(
            "entry {} is of term {term} in the log and of term {} in the state",
            state.applied.index, state.applied.term
        );
        let committed = log.hard_state.as_ref().map_or(0, |hard| hard.commit).max(log.mark.index);
        if committed >= state.applied.index {
            findings.damage(part, "term", what);
        } else {
            // As above, where the log was as long as the snapshot.
            findings.note(part, "ahead", what + "; the log is replaced at the next start");
        }
    }
    if let Some(incarnation) = log.incarnation.filter(|i| i.cluster_id != 0) {
        let known = state.members.iter().any(|m| m.raft_id == incarnation.raft_id);
        if !known && !state.members.is_empty() {
            let what = format!(
                "this peer's Raft id {:016x} is not among the members: it was removed, or is behind",
                incarnation.raft_id
            );
            findings.note(part, "member", what);
        }
    }
    findings.all.len() > before
}
