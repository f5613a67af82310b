//! The log environment: pages, entries, hard state and marks.

use super::Findings;
use crate::consensus::membership;
use crate::error::Kind;
use crate::state::{Applied, Command};
use crate::store::lmdb::inspect::{log_row, LogRow};
use crate::store::pages::Pages;
use crate::store::Incarnation;
use raft::eraftpb::{EntryType, HardState};
use std::collections::BTreeMap;

const PART: &str = "log";
/// Places of terms that are remembered: where the term changes, so a few per election ever held in the log.
const MAX_TERMS: usize = 100_000;

/// What the log says.
#[derive(Default)]
pub(super) struct Look {
    pub(super) incarnation: Option<Incarnation>,
    pub(super) hard_state: Option<HardState>,
    /// Up to where it was truncated.
    pub(super) mark: Applied,
    /// The last entry, or the mark.
    pub(super) last: Applied,
    pub(super) entries: u64,
    /// Terms by index, of each entry where they are few.
    pub(super) terms: BTreeMap<u64, u64>,
    first: Option<u64>,
}

/// Looks at it.
pub(super) fn look(pages: &Pages, findings: &mut Findings) -> Look {
    let mut look = Look::default();
    let mut format = None;
    let found = pages.walk(&["meta", "entries"], &mut |table, key, value| match log_row(table, key, value) {
        Ok(LogRow::Entry(entry)) => take(&mut look, entry, findings),
        Ok(LogRow::HardState(hard)) => look.hard_state = Some(hard),
        Ok(LogRow::Mark(mark)) => look.mark = mark,
        Ok(LogRow::Incarnation(incarnation)) => look.incarnation = Some(incarnation),
        Ok(LogRow::Format(found)) => format = Some(found),
        Err(error) => findings.damage(PART, "rows", error.message()),
    });
    findings.pages(PART, &found);
    if format.is_none() {
        findings.damage(PART, "format", "there is no record of the data format");
    }
    match look.incarnation {
        None => findings.damage(PART, "incarnation", "there is no Raft id in it"),
        Some(incarnation) if incarnation.raft_id == 0 => {
            findings.damage(PART, "incarnation", "the Raft id is 0, which Raft uses for nobody");
        }
        Some(_) => {}
    }
    bounds(&mut look, findings);
    look
}

/// One entry.
fn take(look: &mut Look, entry: raft::eraftpb::Entry, findings: &mut Findings) {
    look.entries += 1;
    let at = Applied { index: entry.index, term: entry.term };
    if look.first.is_none() {
        look.first = Some(at.index);
    } else if at.index != look.last.index + 1 {
        findings.damage(PART, "gap", format!("after entry {} comes entry {}", look.last.index, at.index));
    }
    if at.term < look.last.term || at.term == 0 {
        findings.damage(
            PART,
            "terms",
            format!("entry {} is of term {}, after one of term {}", at.index, at.term, look.last.term),
        );
    }
    look.last = at;
    if look.terms.len() < MAX_TERMS {
        look.terms.insert(at.index, at.term);
    }
    let read = match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => Ok(()),
        // A command that no version reads is refused by every peer alike; one of a newer version is not.
        EntryType::EntryNormal => Command::decode(&entry.data).map(drop),
        _ => membership::decode_change(&entry.context).map(drop),
    };
    match read {
        Err(error) if error.kind() == Kind::Version => {
            findings.note(PART, "newer", format!("entry {}: {error}", at.index))
        }
        Err(error) => findings.damage(PART, "commands", format!("entry {}: {error}", at.index)),
        Ok(()) => {}
    }
}

/// What the marks say of the entries.
fn bounds(look: &mut Look, findings: &mut Findings) {
    if let Some(first) = look.first {
        if first > look.mark.index + 1 {
            let what = format!("it was truncated up to entry {}, but begins at {first}", look.mark.index);
            findings.damage(PART, "gap", what);
        }
    }
    if look.last.index < look.mark.index {
        look.last = look.mark;
    }
    let known = look.terms.get(&look.mark.index).filter(|term| **term != look.mark.term);
    if let Some(term) = known {
        let what = format!(
            "entry {} is of term {term}, and of term {} in the truncation mark",
            look.mark.index, look.mark.term
        );
        findings.damage(PART, "terms", what);
    }
    if let Some(hard) = &look.hard_state {
        if hard.commit > look.last.index {
            let what =
                format!("entry {} was committed, but the log ends at {}", hard.commit, look.last.index);
            findings.damage(PART, "commit", what);
        }
        if hard.term < look.last.term {
            let what = format!(
                "the term is {}, but entry {} is of term {}",
                hard.term, look.last.index, look.last.term
            );
            findings.damage(PART, "terms", what);
        }
    } else if look.entries > 0 {
        findings.damage(PART, "hard state", "there are entries, and no record of term and vote");
    }
}
