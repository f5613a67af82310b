//! `state recover`, the folders' side: the data of a survivor is replaced by that of a new cluster, whole or not at all.
//!
//! ```text
//! raft                     the survivor's data
//! raft.recovering          the new data being made; after the exchange, for a moment, the survivor's data
//! raft.recovered           the finished new data, for a moment, where two names cannot be exchanged
//! raft.before-recover.0    the survivor's data, kept as it was
//! raft/recovered.json      what the data was made from
//! ```
//!
//! The survivor's data is read and never written: the backup is the very data, moved aside by the rename that puts the
//! new data in place, so there is no moment at which something is changed and not backed up. Whatever instant the power
//! fails at, `raft` is the old data or the new; [`settle`] clears up the rest at the next start, and says which it was.
//!
//! What the new data is made of (which entries, which members) is `consensus::recover`'s matter. Nobody else may have the
//! folder open: the caller holds its lock.

use super::lmdb::{self, LmdbLog, LmdbState, Options};
use super::swap::{self, beside, rename};
use super::{files, LogStore};
use crate::durable;
use crate::error::{Context as _, Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The note in the new data.
const NOTE: &str = "recovered.json";
/// Longest note that is read, bytes; ours have a fifth of it.
const MAX_NOTE: u64 = 4 << 10;
/// Format of the note.
const FORMAT: u32 = 1;
/// What the survivor's data is kept as.
const BACKUP: &str = "before-recover";

/// What lies in the new data about its making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    format: u32,
    /// The cluster that was given up.
    from: u64,
    /// The one that was made of it.
    into: u64,
    /// Name of the folder that keeps the survivor's data, beside this one.
    backup: String,
}

/// What a recovery that was cut off had left, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The new data was in place; the survivor's data is here now.
    Finished(PathBuf),
    /// It had changed nothing yet; the half-made new data was removed.
    Undone,
}

fn draft(data: &Path) -> PathBuf {
    beside(data, ".recovering")
}

fn finished(data: &Path) -> PathBuf {
    beside(data, ".recovered")
}

fn read_note(data: &Path) -> Result<Option<Note>> {
    let path = data.join(NOTE);
    let doing = || format!("reading {}", path.display());
    match path.metadata() {
        Ok(meta) if meta.len() <= MAX_NOTE => {}
        Ok(_) => return Err(Error::corrupt(format!("{} is damaged: it is too long", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::from_io(doing(), &error)),
    }
    let text = std::fs::read(&path).context(doing())?;
    let note: Note = serde_json::from_slice(&text)
        .map_err(|e| Error::corrupt(format!("{} is damaged ({e}): move it away", path.display())))?;
    // A name and nothing else: it is joined to the folder above.
    if note.format > FORMAT || note.backup.is_empty() || note.backup.contains('/') || note.backup == ".." {
        return Err(Error::corrupt(format!(
            "{} is damaged, or of a newer pinfold: move it away",
            path.display()
        )));
    }
    Ok(Some(note))
}

/// The cluster that the log in a data folder belongs to, 0 when that cannot be told: half a copy, or nothing.
fn cluster_of(data: &Path) -> u64 {
    let log = data.join("log");
    if !log.join("data.mdb").exists() {
        return 0;
    }
    lmdb::open_log(&log, &Options::default()).map_or(0, |log| log.incarnation().cluster_id)
}

/// Clears up after a recovery that was cut off, saying so in the log; does nothing in any other folder. The daemon does
/// this at its start, and so does the next recovery.
///
/// # Errors
/// When the disk refuses.
pub fn settle(data: &Path) -> Result<Option<Settled>> {
    let (draft, copy) = (draft(data), finished(data));
    if !draft.exists() && !copy.exists() {
        return Ok(None);
    }
    if copy.exists() && !data.exists() {
        // Between the two renames: the survivor's data has its backup's name already.
        rename(&copy, data)?;
        durable::sync_folder(durable::folder_of(data))?;
        if let Some(note) = read_note(data)? {
            let backup = durable::folder_of(data).join(note.backup);
            log::warn!(
                "store: a recovery that had been cut off was finished; the data from before is in {}",
                backup.display()
            );
            return Ok(Some(Settled::Finished(backup)));
        }
    }
    if !data.exists() {
        // Not by our hand, and what is here may be all that is left.
        return Err(Error::conflict(format!(
            "{} is gone, and {} is left of a recovery: look which of it you want, and move it to that name",
            data.display(),
            draft.display()
        )));
    }
    let note = read_note(data)?;
    let settled = match note.filter(|note| draft.exists() && cluster_of(&draft) == note.from) {
        Some(note) => {
            let mut backup = durable::folder_of(data).join(&note.backup);
            if backup.exists() {
                backup = swap::backup_name(data, BACKUP)?;
            }
            rename(&draft, &backup)?;
            log::warn!(
                "store: a recovery that had been cut off was finished; the data from before is in {}",
                backup.display()
            );
            Settled::Finished(backup)
        }
        None => {
            log::warn!(
                "store: a recovery was cut off before it changed anything: {} is what it was",
                data.display()
            );
            Settled::Undone
        }
    };
    files::remove_dir(&draft)?;
    files::remove_dir(&copy)?;
    durable::sync_folder(durable::folder_of(data))?;
    Ok(Some(settled))
}

/// Whether there is data of a member under `data`, and how large it is. Nothing is made or changed.
///
/// # Errors
/// When the data is damaged, of another format, or the disk refuses.
pub fn size(data: &Path, options: &Options) -> Result<Option<u64>> {
    Ok(lmdb::look(data, options)?.map(|present| present.bytes))
}

/// New data being made beside the old.
pub struct Draft {
    data: PathBuf,
    draft: PathBuf,
    backup: PathBuf,
    /// Whether it took the data's place; else it is removed with this value.
    done: bool,
}

impl Draft {
    /// Begins: a copy of the state, and an empty log with a new Raft id. What an earlier recovery left must have been
    /// [settled](settle).
    ///
    /// # Errors
    /// The disk refuses or is full, or the data is damaged; it is then what it was.
    pub fn begin(data: &Path, options: &Options) -> Result<(Draft, LmdbLog, LmdbState)> {
        let bytes = size(data, options)?
            .ok_or_else(|| Error::not_found(format!("{} holds no data", data.display())))?;
        swap::check_space(data, bytes, "the recovery")?;
        let path = draft(data);
        files::remove_dir(&path)?;
        let backup = swap::backup_name(data, BACKUP)?;
        let new = Draft { data: data.to_path_buf(), draft: path.clone(), backup, done: false };
        lmdb::copy_state(data, &path, options)?;
        swap::copy_files(data, &path)?;
        let state = lmdb::open_state(&path.join("state"), options)?;
        let log = lmdb::open_log(&path.join("log"), options)?;
        Ok((new, log, state))
    }

    /// Where it is, for files that are to lie beside the environments.
    pub fn path(&self) -> &Path {
        &self.draft
    }

    /// Puts it in the data's place. Its environments are closed and durable. Where the old data is now.
    ///
    /// # Errors
    /// The disk refuses: the data is then the old one or the new one, and [`settle`] does the rest.
    pub fn finish(mut self, from: u64, into: u64) -> Result<PathBuf> {
        let backup = self.backup.file_name().map(|name| name.to_string_lossy().into_owned());
        let backup = backup.ok_or_else(|| Error::invalid(format!("{} has no name", self.data.display())))?;
        let note = Note { format: FORMAT, from, into, backup };
        let mut text = serde_json::to_vec_pretty(&note).map_err(|e| Error::internal(e.to_string()))?;
        text.push(b'\n');
        files::write_atomically(&self.draft.join(NOTE), |file| file.write_all(&text).map_err(Error::from))?;
        swap::same_owner(&self.data, &self.draft)?;
        durable::sync_folder(&self.draft)?;
        durable::sync_folder(durable::folder_of(&self.data))?;
        // From here on the draft's name may be the old data's.
        self.done = true;
        swap::take_place(&self.data, &self.draft, &finished(&self.data), &self.backup)?;
        Ok(self.backup.clone())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done {
            // What is left is removed by the next start.
            let _ = files::remove_dir(&self.draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::swap::fixture::{self, names, opens, TINY};
    use super::*;
    use crate::store;

    const OLD: u64 = 7;
    const NEW: u64 = 8;

    /// Data of a member of the cluster [`OLD`], with a hundred rows.
    fn survivor(dir: &tempfile::TempDir) -> PathBuf {
        let data = fixture::data(dir, OLD);
        std::fs::write(data.join("drained"), b"x").expect("a plain file");
        data
    }

    fn begin(data: &Path) -> Draft {
        let (draft, mut log, _state) = Draft::begin(data, &TINY).expect("begins");
        log.set_cluster_id(NEW).expect("new cluster");
        draft
    }

    /// The cluster of the data, after a start.
    fn start(data: &Path) -> u64 {
        let cluster = opens(data);
        assert!(data.join("drained").exists(), "the plain files come along");
        cluster
    }

    #[test]
    fn the_old_data_becomes_the_backup_byte_for_byte() {
        let dir = tempfile::tempdir().expect("folder");
        let data = survivor(&dir);
        let read = |data: &Path| std::fs::read(data.join("log/data.mdb")).expect("log");
        let before = read(&data);
        let old_id = store::open(&data).expect("open").0.incarnation().raft_id;
        let backup = begin(&data).finish(OLD, NEW).expect("finished");
        assert_eq!(read(&backup), before);
        assert_eq!(names(&data), ["raft", "raft.before-recover.0"]);
        assert_eq!(start(&data), NEW);
        assert_ne!(store::open(&data).expect("open").0.incarnation().raft_id, old_id, "a new Raft id");
        // And once more, for the next disaster.
        let (draft, mut log, state) = Draft::begin(&data, &TINY).expect("begins");
        log.set_cluster_id(9).expect("new cluster");
        drop((log, state));
        draft.finish(NEW, 9).expect("finished");
        assert_eq!(names(&data), ["raft", "raft.before-recover.0", "raft.before-recover.1"]);
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().expect("folder");
        let data = survivor(&dir);
        drop(begin(&data));
        assert_eq!(names(&data), ["raft"]);
        assert_eq!(start(&data), OLD);
    }

    /// Every state of the folder that a power cut can leave ends as the old data whole, or the new, and no rest.
    #[test]
    fn one_that_was_cut_off_is_settled_at_the_next_start() {
        let forget = |mut draft: Draft| draft.done = true;
        let half = |data: &Path| {
            std::fs::create_dir_all(draft(data).join("state")).expect("folder");
            std::fs::write(draft(data).join("state/data.mdb"), b"half a page").expect("file");
        };
        let made = |data: &Path| forget(begin(data));
        let whole = |data: &Path| {
            begin(data).finish(OLD, NEW).expect("finished");
        };
        let exchanged = |data: &Path| {
            whole(data);
            rename(&beside(data, ".before-recover.0"), &draft(data)).expect("not yet moved");
        };
        let named = |data: &Path| {
            whole(data);
            rename(data, &finished(data)).expect("named");
            rename(&beside(data, ".before-recover.0"), data).expect("the old one is still there");
        };
        let between = |data: &Path| {
            whole(data);
            rename(data, &finished(data)).expect("named");
        };
        type Case<'c> = (&'c str, &'c dyn Fn(&Path), u64);
        let cases: [Case<'_>; 6] = [
            ("half", &half, OLD),
            ("made", &made, OLD),
            ("named", &named, OLD),
            ("between", &between, NEW),
            ("exchanged", &exchanged, NEW),
            ("whole", &whole, NEW),
        ];
        for (when, leave, cluster) in cases {
            let dir = tempfile::tempdir().expect("folder");
            let data = survivor(&dir);
            leave(&data);
            assert_eq!(start(&data), cluster, "{when}");
            let rest: &[&str] = if cluster == OLD { &["raft"] } else { &["raft", "raft.before-recover.0"] };
            assert_eq!(names(&data), rest, "{when}");
            if cluster == NEW {
                assert_eq!(cluster_of(&beside(&data, ".before-recover.0")), OLD, "{when}");
            }
        }
    }

    #[test]
    fn a_full_disk_is_noticed_before_anything_is_made() {
        // Room is asked for before the copy is begun.
        let dir = tempfile::tempdir().expect("folder");
        let data = survivor(&dir);
        let error = swap::check_space(&data, u64::MAX / 2, "the recovery").expect_err("full");
        assert!(error.message().starts_with("the recovery keeps the old data"), "{error}");
        assert_eq!(names(&data), ["raft"]);
    }
}
