//! The folder of the blocks, held by a handle: files are opened in *this* folder, not at its path.
//!
//! The path of a folder on an external disk leads somewhere else as soon as the disk is unmounted: to the empty folder
//! on the SD card that it was mounted over. A block written there would be acknowledged and then hidden, or lost, when
//! the disk comes back. So the folder is opened once; every segment is opened, made and removed relative to that
//! handle, which belongs to the disk however it is mounted. [`Held::is_still_there`] tells whether the path leads to it.

use crate::error::{Context, Result};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mode of files that are made: of this user, as the umask allows for others.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// A folder, open.
pub(super) struct Held {
    path: PathBuf,
    dir: File,
    /// Device and inode.
    identity: (u64, u64),
}

impl Held {
    /// Opens a folder that exists.
    pub(super) fn open(path: &Path) -> Result<Held> {
        let doing = || format!("opening the folder {}", path.display());
        let dir = File::open(path).context(doing())?;
        let meta = dir.metadata().context(doing())?;
        Ok(Held { path: path.to_owned(), dir, identity: (meta.dev(), meta.ino()) })
    }

    /// Where it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path still leads to it.
    ///
    /// # Errors
    /// When nothing can be said of what the path leads to.
    pub(super) fn is_still_there(&self) -> std::io::Result<bool> {
        match self.path.metadata() {
            Ok(meta) => Ok((meta.dev(), meta.ino()) == self.identity),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The device that it lies on.
    pub(super) fn device(&self) -> u64 {
        self.identity.0
    }

    /// The path of a file in it, for people.
    pub(super) fn shown(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file in it.
    pub(super) fn file(&self, name: &str, flags: OFlags) -> std::io::Result<File> {
        Ok(rustix::fs::openat(&self.dir, name, flags | OFlags::CLOEXEC, MODE)?.into())
    }

    /// Whether a file is in it, and how long it is.
    pub(super) fn size_of(&self, name: &str) -> Option<u64> {
        let stat = rustix::fs::statat(&self.dir, name, AtFlags::empty()).ok()?;
        u64::try_from(stat.st_size).ok()
    }

    /// Removes a file in it.
    pub(super) fn remove(&self, name: &str) -> std::io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> std::io::Result<()> {
        self.dir.sync_all()
    }

    /// The file system that it lies on.
    pub(super) fn statvfs(&self) -> std::io::Result<rustix::fs::StatVfs> {
        Ok(rustix::fs::fstatvfs(&self.dir)?)
    }

    /// The names in it.
    pub(super) fn names(&self) -> std::io::Result<Vec<String>> {
        let entries = rustix::fs::Dir::read_from(&self.dir)?;
        let name = |e: rustix::fs::DirEntry| e.file_name().to_str().map(str::to_owned).ok();
        entries.filter_map(|e| e.map(name).map_err(Into::into).transpose()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_in_the_folder_and_not_at_its_path() {
        let tmp = tempfile::tempdir().expect("tempdir");
        let (place, aside) = (tmp.path().join("blocks"), tmp.path().join("aside"));
        std::fs::create_dir(&place).expect("folder");
        let held = Held::open(&place).expect("held");
        assert!(held.is_still_there().expect("asked"));
        // As if it was unmounted: the path leads to another folder, which is empty.
        std::fs::rename(&place, &aside).expect("moved");
        assert!(!held.is_still_there().expect("asked"));
        std::fs::create_dir(&place).expect("folder");
        assert!(!held.is_still_there().expect("asked"));
        held.file("one", OFlags::CREATE | OFlags::WRONLY).expect("made");
        assert!(aside.join("one").exists() && !place.join("one").exists());
        assert_eq!(held.names().expect("names").iter().filter(|n| !n.starts_with('.')).count(), 1);
        assert_eq!((held.size_of("one"), held.size_of("two")), (Some(0), None));
        held.remove("one").expect("removed");
        assert!(!aside.join("one").exists());
    }
}
