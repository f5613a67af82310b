//! Data of the Go program beside ours: never passed over in silence.
//!
//! ipfs-cluster kept its pins in `ipfs-cluster-data` (0.3), in `raft` (since 0.4) or in the folder of a datastore
//! (its crdt consensus). None of them can be read here, and a peer that started beside one would have an empty pin
//! list that looks as if it were meant. So a peer without data of its own refuses to start there and names the way:
//! the old program exports, `state import` takes over. Whoever wants to start without the old pins says so with
//! `state cleanup`, which moves the old data aside.
//!
//! A peer that joins a cluster gets that cluster's pins and is not stopped; old data in the very folder that it
//! needs is moved aside, as the Go program did as well when it joined.
//!
//! Nothing here deletes anything.

use crate::config::Folder;
use crate::error::{Error, Result};
use crate::store::rotate;
use std::path::{Path, PathBuf};

/// Folders in which ipfs-cluster kept its pins, whatever its configuration said.
const FOLDERS: &[&str] =
    &["ipfs-cluster-data", "ipfscluster-data", "raft", "pebble", "badger3", "badger", "leveldb"];
/// What lies in a folder of one of its stores.
const MARKS: &[&str] = &["raft.db", "snapshots", "MANIFEST", "CURRENT", "KEYREGISTRY"];

/// Whether this peer has data of its own.
fn has_own(data: &Path) -> bool {
    data.join("log").is_dir() || data.join("state").is_dir()
}

/// Whether this folder is one of the Go program's stores.
fn is_old(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    // LevelDB and Pebble number their manifests.
    names.any(|name| MARKS.contains(&name.as_str()) || name.starts_with("MANIFEST-"))
}

/// The Go program's data of a folder, that in our own data folder first.
fn old(folder: &Folder, data: &Path) -> Vec<PathBuf> {
    let mut found = vec![data.to_owned()];
    for name in FOLDERS {
        let path = folder.path().join(name);
        if !found.contains(&path) {
            found.push(path);
        }
    }
    found.retain(|path| is_old(path) && !has_own(path));
    found
}

/// Refuses to go on without data of our own where there is some of the Go program.
///
/// # Errors
/// [`crate::Kind::Conflict`] that says where it is and what to do.
pub(super) fn refuse(folder: &Folder, data: &Path) -> Result<()> {
    if has_own(data) {
        return Ok(());
    }
    let found = old(folder, data);
    let Some(path) = found.first() else { return Ok(()) };
    let at = folder.path().display();
    Err(Error::conflict(format!(
        "{} holds the pins of ipfs-cluster, which pinfold cannot read: take them over with ipfs-cluster's own program, \
         stopped, by `ipfs-cluster-service -c {at} state export > pins.json`, and then `pinfold -c {at} state import \
         pins.json`; or start without them after `pinfold -c {at} state cleanup`, which moves them aside",
        path.display()
    )))
}

/// Before the stores are opened: refuses as [`refuse`] does, or, when this peer joins a cluster that has the pins, moves
/// what is in the way aside.
///
/// # Errors
/// As [`refuse`], or what the system said.
pub(super) fn before_start(folder: &Folder, data: &Path, keep: usize, joins: bool) -> Result<()> {
    if !joins {
        return refuse(folder, data);
    }
    if !has_own(data) && is_old(data) {
        put_aside(data, keep)?;
    }
    Ok(())
}

/// `state cleanup`: moves our data and the Go program's aside.
///
/// # Errors
/// What the system said.
pub(super) fn clean_up(folder: &Folder, data: &Path, keep: usize) -> Result<()> {
    for path in old(folder, data) {
        put_aside(&path, keep)?;
    }
    rotate::rotate(data, keep).map(drop)
}

fn put_aside(path: &Path, keep: usize) -> Result<()> {
    // At least one is kept: this is not ours to delete.
    if let Some(now) = rotate::rotate(path, keep.max(1))? {
        log::info!(target: "service", "{} is data of ipfs-cluster: it was moved to {}", path.display(), now.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder, PathBuf) {
        let dir = tempfile::tempdir().expect("folder");
        let folder = Folder::new(dir.path());
        let data = dir.path().join("raft");
        (dir, folder, data)
    }

    fn make(path: &Path, file: &str) {
        std::fs::create_dir_all(path).expect("folder");
        std::fs::write(path.join(file), "x").expect("file");
    }

    #[test]
    fn data_of_every_store_of_the_go_program_is_found_and_named() {
        for (name, file) in [
            ("raft", "raft.db"),
            ("raft", "snapshots"),
            ("ipfs-cluster-data", "raft.db"),
            ("pebble", "MANIFEST-000001"),
            ("badger3", "KEYREGISTRY"),
            ("badger", "MANIFEST"),
            ("leveldb", "CURRENT"),
        ] {
            let (_dir, folder, data) = folder();
            make(&folder.path().join(name), file);
            let error = before_start(&folder, &data, 6, false).expect_err(name);
            assert_eq!(error.kind(), crate::Kind::Conflict);
            assert!(error.message().starts_with(&folder.path().join(name).display().to_string()), "{error}");
            assert!(
                error.message().contains("state import") && error.message().contains("state cleanup"),
                "{error}"
            );
            clean_up(&folder, &data, 6).expect("cleaned up");
            before_start(&folder, &data, 6, false).expect("told so");
            let kept = folder.path().join(format!("{name}.old.0")).join(file);
            assert!(kept.exists(), "moved, not deleted");
        }
    }

    #[test]
    fn whoever_has_data_of_its_own_or_none_at_all_is_let_go_on() {
        let (_dir, folder, data) = folder();
        before_start(&folder, &data, 6, false).expect("nothing there");
        make(&folder.path().join("ipfs-cluster-data"), "raft.db");
        make(&data.join("log"), "data.mdb");
        before_start(&folder, &data, 6, false).expect("it has been taken over");
        make(&folder.path().join("backups"), "x");
        std::fs::create_dir(folder.path().join("pebble")).expect("an empty folder");
        before_start(&folder, &data, 6, false).expect("an empty folder is nobody's data");
    }

    #[test]
    fn a_joiner_moves_aside_only_what_is_in_its_way() {
        let (_dir, folder, data) = folder();
        make(&data, "raft.db");
        make(&folder.path().join("pebble"), "CURRENT");
        before_start(&folder, &data, 0, true).expect("it joins");
        assert!(!data.exists() && folder.path().join("raft.old.0/raft.db").exists());
        assert!(folder.path().join("pebble/CURRENT").exists());
    }

    #[test]
    fn a_data_folder_elsewhere_is_looked_at_too() {
        let (dir, folder, _) = folder();
        let data = dir.path().join("disk/data");
        make(&data, "raft.db");
        assert!(before_start(&folder, &data, 6, false).expect_err("old").message().contains("disk/data"));
    }
}
