//! A folder of numbered backups: `pinset-000042.ndjson`, the oldest of which are removed.
//!
//! Numbers and not times order them: the clock of a small board may be wrong. A new one is there as a whole or not at
//! all, and nothing is removed before it is there for good.

use crate::error::{Context as _, Result};
use crate::store::write_atomically;
use std::io::Write;
use std::path::{Path, PathBuf};

const PREFIX: &str = "pinset-";
const SUFFIX: &str = ".ndjson";

/// The backups of one folder, as they were when it was looked at.
pub struct Shelf {
    dir: PathBuf,
    /// Sorted.
    numbers: Vec<u64>,
}

impl Shelf {
    /// Looks into a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn of(dir: &Path) -> Result<Shelf> {
        let doing = || format!("the backup folder {}", dir.display());
        crate::durable::make_folder(dir)?;
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(dir).context(doing())? {
            let name = entry.context(doing())?.file_name();
            let number =
                name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(Shelf { dir: dir.to_owned(), numbers })
    }

    /// The newest backup, if there is one.
    pub fn newest(&self) -> Option<PathBuf> {
        self.numbers.last().map(|number| self.file(*number))
    }

    /// Adds what `content` writes, and removes all but the newest `keep`; the file.
    ///
    /// # Errors
    /// Those of `content`, and when the folder cannot be written; older backups then stay as they are.
    pub fn add(self, keep: usize, content: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<PathBuf> {
        let newest = self.file(self.numbers.last().map_or(1, |n| n.saturating_add(1)));
        write_atomically(&newest, content)?;
        let surplus = (self.numbers.len() + 1).saturating_sub(keep.max(1));
        for number in self.numbers.iter().take(surplus) {
            std::fs::remove_file(self.file(*number))
                .context(format!("the backup folder {}", self.dir.display()))?;
        }
        Ok(newest)
    }

    fn file(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{number:06}{SUFFIX}"))
    }
}
