//! `state upgrade`: the data folder of a stopped peer is replaced by a copy in the present format, whole or not at all.
//!
//! ```text
//! raft             the data, in the old format
//! raft.upgrading   the copy being made; after the exchange, for a moment, the old data
//! raft.upgraded    the finished copy, for a moment, where two names cannot be exchanged
//! raft.format1.0   the old data, kept as the backup
//! ```
//!
//! The copy is made and verified beside the data, flushed, and takes its place by one atomic exchange of the two names.
//! Whatever instant the power fails at, `raft` is the old data or the new, whole, and running the command again
//! finishes or starts anew. File systems that cannot exchange two names (NFS, some FUSE ones) get two renames instead:
//! between them there is no `raft`, which a daemon must not take for a fresh start ([`refuse_cut_off`]).
//!
//! Nobody else may have the folder open: the caller holds its lock.

use super::files;
use super::lmdb::{self, Options};
use super::swap::{self, beside, rename, same_owner};
use crate::durable;
use crate::error::{Context as _, Error, Result};
use crate::state::Applied;
use std::path::{Path, PathBuf};

/// What is to be upgraded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    data: PathBuf,
    /// The format now.
    pub from: u32,
    /// The format afterwards.
    pub to: u32,
    /// Pins in the state.
    pub pins: u64,
    /// Members in the state.
    pub members: u64,
    /// Local tracker records in the state.
    pub records: u64,
    /// How far the state has applied the log.
    pub applied: Applied,
    /// Bytes of the data.
    pub bytes: u64,
    /// Where the data will be kept.
    pub backup: PathBuf,
}

impl std::fmt::Display for Plan {
    /// What was done, as one sentence.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "upgraded {} from data format {} to {}: {} pins, {} members, entry {} applied; the old data is kept in {}",
            self.data.display(),
            self.from,
            self.to,
            self.pins,
            self.members,
            self.applied.index,
            self.backup.display()
        )
    }
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// There is no data yet.
    NoData,
    /// The data has the present format.
    Current {
        /// The format.
        format: u32,
        /// Where the old data is kept, after an upgrade that had been cut off was finished now.
        finished: Option<PathBuf>,
    },
    /// This.
    Needed(Plan),
}

fn draft(data: &Path) -> PathBuf {
    beside(data, ".upgrading")
}

fn finished(data: &Path) -> PathBuf {
    beside(data, ".upgraded")
}

/// The first free name for data of this format.
fn backup_name(data: &Path, format: u32) -> Result<PathBuf> {
    swap::backup_name(data, &format!("format{format}"))
}

/// Refuses to take a missing data folder for a fresh one when an upgrade of it was cut off.
///
/// # Errors
/// [`crate::Kind::Version`] saying what to run.
pub(super) fn refuse_cut_off(data: &Path) -> Result<()> {
    if data.exists() || !finished(data).exists() {
        return Ok(());
    }
    Err(Error::version(format!(
        "an upgrade of {} was cut off: run `pinfold state upgrade` again, which finishes it",
        data.display()
    )))
}

/// Finds out what is to be done, finishing or clearing away what an upgrade that was cut off has left.
///
/// # Errors
/// When the disk refuses, the data is damaged, or it is of a newer pinfold.
pub fn plan(data: &Path, options: &Options) -> Result<Upgrade> {
    let finished = settle(data, options)?;
    let Some(now) = lmdb::look(data, options)? else { return Ok(Upgrade::NoData) };
    if now.format == lmdb::FORMAT {
        return Ok(Upgrade::Current { format: now.format, finished });
    }
    Ok(Upgrade::Needed(Plan {
        backup: backup_name(data, now.format)?,
        data: data.to_path_buf(),
        from: now.format,
        to: lmdb::FORMAT,
        pins: now.pins,
        members: now.members,
        records: now.local,
        applied: now.applied,
        bytes: now.bytes,
    }))
}

/// After a cut: a finished copy whose place is free takes it; a draft beside data of the present format is the old
/// data, and becomes the backup; any other draft is half a copy, and goes.
fn settle(data: &Path, options: &Options) -> Result<Option<PathBuf>> {
    let (draft, copy) = (draft(data), finished(data));
    if !draft.exists() && !copy.exists() {
        return Ok(None);
    }
    if copy.exists() && !data.exists() {
        rename(&copy, data)?;
    }
    let current = lmdb::look(data, options)?.is_some_and(|now| now.format == lmdb::FORMAT);
    let mut backup = None;
    if current && draft.exists() {
        // Never thrown away unseen: it may be all that is left of the old data.
        let other = lmdb::look(&draft, options).context(format!(
            "{} is what an earlier upgrade left; move it away if you do not need it",
            draft.display()
        ))?;
        if let Some(old) = other.filter(|other| other.format < lmdb::FORMAT) {
            let name = backup_name(data, old.format)?;
            rename(&draft, &name)?;
            backup = Some(name);
        }
    }
    files::remove_dir(&draft)?;
    files::remove_dir(&copy)?;
    durable::sync_folder(durable::folder_of(data))?;
    Ok(backup)
}

impl Plan {
    /// Does it. `verify` is given the finished copy before it takes the data's place, and may refuse it.
    ///
    /// # Errors
    /// The disk's, or `verify`'s: then the data is what it was.
    pub fn run(&self, options: &Options, verify: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        swap::check_space(&self.data, self.bytes, "the upgrade")?;
        let draft = draft(&self.data);
        let made = lmdb::copy(&self.data, &draft, options)
            .and_then(|()| swap::copy_files(&self.data, &draft))
            .and_then(|()| self.compare(&draft, options))
            .and_then(|()| verify(&draft))
            .and_then(|()| same_owner(&self.data, &draft))
            .and_then(|()| durable::sync_folder(durable::folder_of(&self.data)));
        if let Err(error) = made {
            // The error counts; the next run removes what is left.
            let _ = files::remove_dir(&draft);
            return Err(error
                .context(format!("the upgrade was given up, and {} is what it was", self.data.display())));
        }
        swap::take_place(&self.data, &draft, &finished(&self.data), &self.backup)
    }

    /// Whether the copy holds what the data does.
    fn compare(&self, draft: &Path, options: &Options) -> Result<()> {
        let copy = lmdb::look(draft, options)?;
        let same = copy.as_ref().is_some_and(|copy| {
            (copy.format, copy.pins, copy.members, copy.local, copy.applied)
                == (self.to, self.pins, self.members, self.records, self.applied)
        });
        if same {
            return Ok(());
        }
        Err(Error::corrupt(format!("the copy differs from the data: {copy:?} instead of {self:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::store;
    use crate::store::swap::fixture::{self, names, opens, TINY};

    /// Data of format 1 with a hundred rows.
    fn old(dir: &tempfile::TempDir) -> PathBuf {
        let data = fixture::data(dir, 7);
        lmdb::stamp(&data, &TINY, 1);
        data
    }

    fn needed(data: &Path) -> Plan {
        match plan(data, &TINY).expect("plan") {
            Upgrade::Needed(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    fn is_new(data: &Path) {
        assert_eq!(opens(data), 7);
    }

    #[test]
    fn the_copy_takes_the_place_and_the_old_data_stays() {
        let dir = tempfile::tempdir().expect("folder");
        let data = old(&dir);
        assert_eq!(store::open(&data).map(drop).expect_err("older").kind(), Kind::Version);
        let plan = needed(&data);
        assert_eq!((plan.from, plan.pins, plan.applied.index), (1, 100, 3));
        plan.run(&TINY, |copy| {
            is_new(copy);
            Ok(())
        })
        .expect("upgrade");
        is_new(&data);
        assert_eq!(names(&data), ["raft", "raft.format1.0"]);
        assert_eq!(lmdb::look(&plan.backup, &TINY).expect("look").expect("data").format, 1);
        let again = super::plan(&data, &TINY).expect("plan");
        assert_eq!(again, Upgrade::Current { format: lmdb::FORMAT, finished: None });
    }

    #[test]
    fn a_refused_copy_changes_nothing() {
        let dir = tempfile::tempdir().expect("folder");
        let data = old(&dir);
        let error =
            needed(&data).run(&TINY, |_| Err(Error::corrupt("the digest differs"))).expect_err("refused");
        assert!(error.message().contains("is what it was: the digest differs"), "{error}");
        assert_eq!(names(&data), ["raft"]);
        needed(&data).run(&TINY, |_| Ok(())).expect("upgrade");
    }

    #[test]
    fn file_systems_that_cannot_exchange_names_get_two_renames() {
        let dir = tempfile::tempdir().expect("folder");
        let data = old(&dir);
        let plan = needed(&data);
        lmdb::copy(&data, &draft(&data), &TINY).expect("copy");
        swap::by_renames(&data, &draft(&data), &finished(&data), &plan.backup).expect("swap");
        is_new(&data);
        assert_eq!(names(&data), ["raft", "raft.format1.0"]);
    }

    /// Every state of the folder that a power cut can leave ends as the old data whole, or the new, and no rest.
    #[test]
    fn an_upgrade_that_was_cut_off_is_finished_or_starts_anew() {
        let half = |data: &Path| {
            std::fs::create_dir_all(draft(data).join("log")).expect("folder");
            std::fs::write(draft(data).join("log/data.mdb"), b"half a page").expect("file");
        };
        let whole = |data: &Path| lmdb::copy(data, &draft(data), &TINY).expect("copy");
        let exchanged = |data: &Path| {
            whole(data);
            let old = durable::folder_of(data).join("x");
            rename(data, &old).expect("move");
            rename(&draft(data), data).expect("move");
            rename(&old, &draft(data)).expect("move");
        };
        let named = |data: &Path| {
            whole(data);
            rename(&draft(data), &finished(data)).expect("move");
        };
        let moved_away = |data: &Path| {
            named(data);
            rename(data, &backup_name(data, 1).expect("name")).expect("move");
        };
        let cuts: [(&str, &dyn Fn(&Path), bool); 5] = [
            ("in the copying", &half, false),
            ("before the exchange", &whole, false),
            ("after the exchange", &exchanged, true),
            ("with the copy named", &named, false),
            ("with the old data moved away", &moved_away, true),
        ];
        for (when, cut, done) in cuts {
            let dir = tempfile::tempdir().expect("folder");
            let data = old(&dir);
            cut(&data);
            // A daemon neither takes the old data for new, nor a missing folder for a fresh one.
            if !data.exists() {
                let error = store::open(&data).map(drop).expect_err(when);
                assert!(
                    error.message().contains("was cut off: run `pinfold state upgrade`"),
                    "{when}: {error}"
                );
                assert!(!data.exists(), "{when}");
            }
            match plan(&data, &TINY).expect(when) {
                Upgrade::Current { .. } => assert!(done, "{when}"),
                Upgrade::Needed(plan) => {
                    assert!(!done, "{when}");
                    assert_eq!(names(&data), ["raft"], "{when}");
                    plan.run(&TINY, |_| Ok(())).expect(when);
                }
                Upgrade::NoData => panic!("{when}: the data is gone"),
            }
            is_new(&data);
            assert_eq!(names(&data), ["raft", "raft.format1.0"], "{when}");
        }
    }

    #[test]
    fn a_folder_without_data_and_newer_data_are_left_alone() {
        let dir = tempfile::tempdir().expect("folder");
        assert_eq!(plan(&dir.path().join("raft"), &TINY).expect("plan"), Upgrade::NoData);
        assert!(names(&dir.path().join("raft")).is_empty());
        let data = old(&dir);
        lmdb::stamp(&data, &TINY, lmdb::FORMAT + 1);
        let error = plan(&data, &TINY).expect_err("newer");
        assert!(error.message().contains("written by a newer pinfold"), "{error}");
        lmdb::stamp(&data, &TINY, 0);
        let error = needed(&data).run(&TINY, |_| Ok(())).expect_err("0");
        assert!(error.message().contains("never existed"), "{error}");
        assert_eq!(names(&data), ["raft"]);
    }
}
