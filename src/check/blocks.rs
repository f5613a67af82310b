//! The embedded node: its index, and whether every block lies where the index says.
//!
//! Beside a running daemon only the index's pages are looked at: collections move blocks about.

use super::Findings;
use crate::ipfs::embedded::survey::{self, Place};
use crate::store::lmdb::inspect;
use std::path::Path;

const PART: &str = "blocks";

/// Looks at it: blocks in the index, and blocks that were read and have their hash.
pub(super) fn look(
    folder: &Path,
    beside: bool,
    read: bool,
    progress: &mut dyn FnMut(u64, u64),
    findings: &mut Findings,
) -> (u64, u64) {
    if !folder.join("data.mdb").exists() {
        return (0, 0);
    }
    let held = match inspect::hold(folder, beside) {
        Ok(held) => held,
        Err(error) => {
            findings.damage(PART, "file", error.message());
            return (0, 0);
        }
    };
    let mut survey = survey::Survey::new(folder);
    let found = held.pages.walk(&["segments", "blocks"], &mut |table, key, value| {
        if let Err(error) = survey.row(table, key, value) {
            findings.damage(PART, "rows", error.message());
        }
    });
    findings.pages(PART, &found);
    let blocks = survey.blocks();
    if beside {
        let what = "a daemon runs on it: only the index was looked at, not the blocks; stop it for those";
        findings.note(PART, "beside", what);
        return (blocks, 0);
    }
    for what in survey.accounts() {
        findings.damage(PART, "accounts", what);
    }
    let (mut done, mut right) = (0, 0);
    held.pages.walk(&["segments", "blocks"], &mut |table, key, value| {
        if table != "blocks" {
            return;
        }
        match survey.place(key, value, read) {
            Ok(Place::There) => {}
            Ok(Place::Read) => right += 1,
            Err(error) => findings.damage(PART, "blocks", error.message()),
        }
        done += 1;
        if read && (done % 1_000 == 0 || done == blocks) {
            progress(done, blocks);
        }
    });
    (blocks, right)
}
