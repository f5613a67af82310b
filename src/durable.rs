//! Folders whose names are on the disk: what every room that keeps files needs, and no room owns.
//!
//! A new name lives in the folder above it, and is only certain once *that* is flushed, level by level: a power cut may
//! otherwise take a whole tree away whose files were all flushed. It must never leave out a level because somebody else
//! made it a moment ago: that somebody may have been killed before the flush.

use crate::error::{Context as _, Result};
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The folder above; `None` for the root.
pub(crate) fn above(path: &Path) -> Option<&Path> {
    let above = path.parent()?;
    Some(if above.as_os_str().is_empty() { Path::new(".") } else { above })
}

/// The folder in which a file or folder lies.
pub(crate) fn folder_of(path: &Path) -> &Path {
    above(path).unwrap_or(Path::new("."))
}

/// Makes the names in a folder durable.
///
/// # Errors
/// Names the folder and what the system said.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).context(format!("flushing the folder {}", folder.display()))
}

/// Makes a folder, for this user only, with those above it, if it is not there; its name is durable when this returns.
///
/// # Errors
/// Names the folder and what the system said.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    let doing = || format!("making the folder {}", folder.display());
    DirBuilder::new().recursive(true).mode(0o700).create(folder).context(doing())?;
    for made in missing.iter().rev() {
        if let Some(above) = above(made) {
            sync_folder(above)?;
        }
    }
    // It was there: made by us, perhaps, a moment before we were killed. A folder above that is not ours to open was
    // made by somebody else.
    match above(folder).filter(|_| missing.is_empty()).map(|above| (above, File::open(above))) {
        None => Ok(()),
        Some((_, Err(error))) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Some((above, opened)) => {
            opened.and_then(|f| f.sync_all()).context(format!("flushing the folder {}", above.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_with_those_above_them_and_may_be_there() {
        let dir = tempfile::tempdir().expect("tempdir");
        let deep = dir.path().join("a/b/c");
        for _ in 0..2 {
            make_folder(&deep).expect("made");
            assert!(deep.is_dir());
        }
        let error = make_folder(Path::new("/proc/nowhere/at/all")).expect_err("proc");
        assert!(error.message().contains("/proc/nowhere/at/all"), "{error}");
    }
}
