//! Files and directories that are there after a power cut, or are not, but never by half.
//!
//! A rename is atomic but not durable, and neither is a new file's name: the directory has to be flushed.

use crate::durable;
use crate::error::{Context as _, Error, Result};
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Removes a directory and all in it; it need not be there.
pub(super) fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from_io(format!("removing {}", dir.display()), &error))
        }
        _ => Ok(()),
    }
}

/// Writes a file (mode 0600) so that its name shows either the old content or the whole new one, and the
/// new one for good once this returns.
pub(crate) fn write_atomically(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(Error::invalid(format!("{} does not name a file", path.display())));
    };
    let dir = durable::folder_of(path);
    let doing = || format!("writing {}", path.display());
    let mut draft = name.to_os_string();
    draft.push(".tmp");
    let draft = dir.join(draft);
    let written = (|| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = BufWriter::new(options.open(&draft).context(doing())?);
        content(&mut file)?;
        let file = file.into_inner().map_err(|e| Error::from_io(doing(), e.error()))?;
        file.sync_all().context(doing())?;
        std::fs::rename(&draft, path).context(doing())
    })();
    if written.is_err() {
        // The error counts; what is left of the draft is overwritten by the next try anyway.
        let _ = std::fs::remove_file(&draft);
        return written;
    }
    durable::sync_folder(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("f");
        write_atomically(&path, |w| w.write_all(b"one").map_err(Error::from)).expect("first");
        let failed = write_atomically(&path, |w| {
            w.write_all(b"two").map_err(Error::from)?;
            Err(Error::internal("stop"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"one");
        assert_eq!(std::fs::read_dir(dir.path()).expect("ls").count(), 1, "no draft left");
    }
}
