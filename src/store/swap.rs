//! A data folder is replaced as a whole: the new one is made beside it and takes its place by one exchange of two names.
//!
//! What `state upgrade` and `state recover` share. Whatever instant the power fails at, the name of the data is the old
//! data or the new, whole; and the old data is never written to, so that it is its own backup. File systems that cannot
//! exchange two names (NFS, some FUSE ones) get two renames instead: between them the name is free, and only the name
//! of the finished copy tells that it is whole.

use crate::durable;
use crate::error::{Context as _, Error, Result};
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes that must stay free beside the copy: the environments' own books and what the daemon writes first.
const SPARE: u64 = 32 << 20;
/// Backups of one kind that may lie beside the data; nobody makes as many.
const MAX_BACKUPS: usize = 1_000;

/// The data folder's path with something behind its name.
pub(super) fn beside(data: &Path, suffix: &str) -> PathBuf {
    let mut name = data.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Renames, with both names in the error.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).context(format!("moving {} to {}", from.display(), to.display()))
}

/// The first name for a backup of this kind (`raft.KIND.0`, `raft.KIND.1`, …) that is free.
pub(super) fn backup_name(data: &Path, kind: &str) -> Result<PathBuf> {
    let mut names = (0..MAX_BACKUPS).map(|n| beside(data, &format!(".{kind}.{n}")));
    names.find(|name| !name.exists()).ok_or_else(|| {
        Error::full(format!(
            "there are {MAX_BACKUPS} backups like {} already: remove some of them",
            beside(data, &format!(".{kind}.0")).display()
        ))
    })
}

/// Puts `draft` in the place of `data`, which becomes `backup`. `finished` is the name that a whole copy has for a moment
/// where two names cannot be exchanged. The draft is durable, down to its name.
pub(super) fn take_place(data: &Path, draft: &Path, finished: &Path, backup: &Path) -> Result<()> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, data, cwd, draft, RenameFlags::EXCHANGE) {
        Ok(()) => {
            durable::sync_folder(durable::folder_of(data))?;
            rename(draft, backup)?;
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => by_renames(data, draft, finished, backup)?,
        Err(error) => {
            return Err(Error::from_io(
                format!("exchanging {} and {}", data.display(), draft.display()),
                &error.into(),
            ))
        }
    }
    durable::sync_folder(durable::folder_of(data))
}

/// For file systems that cannot exchange two names.
pub(super) fn by_renames(data: &Path, draft: &Path, finished: &Path, backup: &Path) -> Result<()> {
    // Its own name first: between the next two, only that tells that it is whole.
    rename(draft, finished)?;
    durable::sync_folder(durable::folder_of(data))?;
    rename(data, backup)?;
    durable::sync_folder(durable::folder_of(data))?;
    rename(finished, data)
}

/// Whether a copy of `bytes` fits beside the data; `what` makes it.
pub(super) fn check_space(data: &Path, bytes: u64, what: &str) -> Result<()> {
    let at = durable::folder_of(data);
    // A system that does not say leaves it to the copying to find out.
    let Ok(stat) = rustix::fs::statvfs(at) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed = bytes.saturating_add(SPARE);
    if free >= needed {
        return Ok(());
    }
    Err(Error::full(format!(
        "{what} keeps the old data and makes a copy, which needs {} MiB; {} has {} MiB free: make room there",
        needed.div_ceil(1 << 20),
        at.display(),
        free >> 20
    )))
}

/// Copies the plain files that lie in the data folder beside the environments (what a founding agreed on, that the peer
/// is drained), durably.
pub(super) fn copy_files(data: &Path, draft: &Path) -> Result<()> {
    let doing = || format!("reading the folder {}", data.display());
    for entry in std::fs::read_dir(data).context(doing())? {
        let entry = entry.context(doing())?;
        if entry.file_type().context(doing())?.is_file() {
            let (from, to) = (entry.path(), draft.join(entry.file_name()));
            let doing = || format!("copying {} to {}", from.display(), to.display());
            std::fs::copy(&from, &to).context(doing())?;
            std::fs::File::open(&to).and_then(|file| file.sync_all()).context(doing())?;
        }
    }
    durable::sync_folder(draft)
}

/// Gives the copy to the owner of the data: whoever runs this as root must not lock the daemon out.
pub(super) fn same_owner(data: &Path, copy: &Path) -> Result<()> {
    let doing = |path: &Path| format!("giving {} to the owner of {}", path.display(), data.display());
    let owner = std::fs::metadata(data).context(doing(copy))?;
    let mut waiting = vec![copy.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).context(doing(&path))?;
        if (meta.uid(), meta.gid()) != (owner.uid(), owner.gid()) {
            std::os::unix::fs::lchown(&path, Some(owner.uid()), Some(owner.gid())).context(doing(&path))?;
        }
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path).context(doing(&path))? {
                waiting.push(entry.context(doing(&path))?.path());
            }
        }
    }
    Ok(())
}

/// What the tests of `state upgrade` and of `state recover` share.
#[cfg(test)]
pub(super) mod fixture {
    use super::durable;
    use crate::state::Applied;
    use crate::store::{self, LogStore as _, Options, StateStore as _, Table, WriteBatch};
    use std::path::{Path, PathBuf};

    pub(in crate::store) const TINY: Options = Options { map_size: 1 << 20, map_limit: 1 << 30, reserve: 0 };

    /// Data of a member of this cluster, with a hundred rows.
    pub(in crate::store) fn data(dir: &tempfile::TempDir, cluster: u64) -> PathBuf {
        let data = dir.path().join("raft");
        let (mut log, state) = store::open(&data).expect("stores");
        log.set_cluster_id(cluster).expect("cluster id");
        let row = |n: u32| (Table::Pins, format!("{n:04}").into_bytes(), Some(vec![1; 300]));
        let applied = Some(Applied { index: 3, term: 1 });
        state.write(WriteBatch { writes: (0..100).map(row).collect(), applied }).expect("rows");
        state.flush().expect("flush");
        data
    }

    /// The data opens; of which cluster it is.
    pub(in crate::store) fn opens(data: &Path) -> u64 {
        let (log, state) = store::open(data).expect("opens");
        assert_eq!((state.count(Table::Pins), state.applied().index), (100, 3));
        log.incarnation().cluster_id
    }

    /// Names in the folder in which the data lies.
    pub(in crate::store) fn names(data: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(durable::folder_of(data)).expect("folder");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}
