//! Old data is moved aside, not deleted: `<dir>` becomes `<dir>.old.0`, what was there moves up.
//!
//! For peers that were removed, leave, or clean up: the folder with the old state stays for a while, newest
//! first, in case somebody wants it back. Every step is one rename, oldest first, so that a crash in the
//! middle leaves a gap in the numbers and never two of one.

use super::files;
use crate::durable;
use crate::error::{Context as _, Error, Result};
use std::path::{Path, PathBuf};

/// Numbers beyond those to keep that are looked at for older folders, from when more were to be kept.
const BEYOND: usize = 64;
/// Old folders that are kept by default: `.old.0` to `.old.4`.
pub const KEEP: usize = 5;

fn old(dir: &Path, number: usize) -> PathBuf {
    let mut name = dir.as_os_str().to_os_string();
    name.push(format!(".old.{number}"));
    PathBuf::from(name)
}

/// Moves `dir` to `<dir>.old.0` and older ones up, keeping `keep` of them; with 0 the folder is
/// deleted. Where it is now, or `None` when there is none. Nobody may have the folder open.
///
/// # Errors
/// When the system refuses; running it again goes on where it stopped.
pub fn rotate(dir: &Path, keep: usize) -> Result<Option<PathBuf>> {
    let rename = |from: &Path, to: &Path| {
        std::fs::rename(from, to).context(format!("moving {} to {}", from.display(), to.display()))
    };
    if !dir.exists() {
        return Ok(None);
    }
    let Some(parent) = durable::above(dir) else {
        return Err(Error::invalid(format!("{} cannot be moved aside", dir.display())));
    };
    if keep == 0 {
        files::remove_dir(dir)?;
        durable::sync_folder(parent)?;
        return Ok(None);
    }
    // Only up to the first gap: what lies beyond has room.
    let filled = (0..keep).take_while(|n| old(dir, *n).exists()).count();
    if filled == keep {
        files::remove_dir(&old(dir, keep - 1))?;
    }
    for number in (0..filled.min(keep - 1)).rev() {
        rename(&old(dir, number), &old(dir, number + 1))?;
    }
    let newest = old(dir, 0);
    rename(dir, &newest)?;
    for number in (keep..keep + BEYOND).take_while(|n| old(dir, *n).exists()) {
        files::remove_dir(&old(dir, number))?;
    }
    durable::sync_folder(parent)?;
    Ok(Some(newest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(dir: &Path, content: &str) {
        std::fs::create_dir(dir).expect("mkdir");
        std::fs::write(dir.join("f"), content).expect("write");
    }

    fn read(dir: &Path) -> Option<String> {
        std::fs::read_to_string(dir.join("f")).ok()
    }

    #[test]
    fn the_newest_is_zero_and_the_oldest_goes() {
        let temp = tempfile::tempdir().expect("tempdir");
        let dir = temp.path().join("state");
        assert_eq!(rotate(&dir, 3).expect("nothing there"), None);
        for n in 0..5 {
            make(&dir, &n.to_string());
            assert_eq!(rotate(&dir, 3).expect("rotate"), Some(old(&dir, 0)));
            assert!(!dir.exists());
        }
        let kept: Vec<_> = (0..4).map(|n| read(&old(&dir, n))).collect();
        assert_eq!(kept, [Some("4".into()), Some("3".into()), Some("2".into()), None]);
        // Fewer are to be kept from now on.
        make(&dir, "5");
        rotate(&dir, 1).expect("rotate");
        let kept: Vec<_> = (0..3).map(|n| read(&old(&dir, n))).collect();
        assert_eq!(kept, [Some("5".into()), None, None]);
        make(&dir, "gone");
        assert_eq!(rotate(&dir, 0).expect("delete"), None);
        assert!(!dir.exists());
        assert_eq!(read(&old(&dir, 0)), Some("5".into()));
    }

    #[test]
    fn a_gap_left_by_a_crash_is_filled() {
        let temp = tempfile::tempdir().expect("tempdir");
        let dir = temp.path().join("state");
        make(&old(&dir, 1), "old");
        make(&dir, "new");
        rotate(&dir, 3).expect("rotate");
        assert_eq!((read(&old(&dir, 0)), read(&old(&dir, 1))), (Some("new".into()), Some("old".into())));
    }
}
