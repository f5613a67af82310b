//! Free space on the disk: stop taking new work while there is still room to finish the old.
//!
//! Two marks. Below the *reserve* the store asks for new work to be refused ([`Space::full`]). Below
//! a quarter of it, it refuses to write at all ([`Space::check`]): what lies between is for entries that
//! are already agreed on and for the commits that make room. LMDB itself survives a full disk (the commit
//! fails as a whole), so the marks are about being useful, not about being safe.

use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a measurement counts: statvfs is quick, but not free.
const FRESH: Duration = Duration::from_secs(1);
/// On a small file system the reserve is this part of it at most.
const LARGEST_PART: u64 = 20;

/// Watches the file system of one directory.
pub(super) struct Space {
    dir: PathBuf,
    reserve: u64,
    seen: Mutex<Option<(Instant, Measured)>>,
}

#[derive(Clone, Copy)]
struct Measured {
    free: u64,
    reserve: u64,
}

impl Space {
    /// Keeps `reserve` bytes free where `dir` is; 0 watches nothing.
    pub(super) fn new(dir: &Path, reserve: u64) -> Self {
        Space { dir: dir.to_path_buf(), reserve, seen: Mutex::new(None) }
    }

    /// Why new work must be refused, if it must.
    pub(super) fn full(&self) -> Option<String> {
        let now = self.measure()?;
        (now.free < now.reserve).then(|| self.sentence(now))
    }

    /// Refuses to write when even the room for work already agreed on is used up.
    pub(super) fn check(&self) -> Result<()> {
        match self.measure() {
            Some(now) if now.free < now.reserve / 4 => Err(Error::full(self.sentence(now))),
            _ => Ok(()),
        }
    }

    /// From now on the disk has this many bytes free, and the reserve is what was asked for.
    #[cfg(test)]
    pub(super) fn pretend(&self, free: u64) {
        // A moment that is never more than FRESH ago.
        let always = Instant::now() + Duration::from_secs(3_600);
        *self.seen.lock() = Some((always, Measured { free, reserve: self.reserve }));
    }

    fn sentence(&self, now: Measured) -> String {
        format!(
            "the disk that holds {} is nearly full ({} KiB free, {} KiB are kept in reserve): make room on it",
            self.dir.display(),
            now.free >> 10,
            now.reserve >> 10
        )
    }

    /// `None` when nothing is watched or the system does not say: then LMDB's own error must do.
    fn measure(&self) -> Option<Measured> {
        if self.reserve == 0 {
            return None;
        }
        let mut seen = self.seen.lock();
        match *seen {
            Some((at, measured)) if at.elapsed() < FRESH => Some(measured),
            _ => {
                let stat = rustix::fs::statvfs(&self.dir).ok()?;
                let total = stat.f_blocks.saturating_mul(stat.f_frsize);
                let measured = Measured {
                    free: stat.f_bavail.saturating_mul(stat.f_frsize),
                    reserve: self.reserve.min(total / LARGEST_PART),
                };
                *seen = Some((Instant::now(), measured));
                Some(measured)
            }
        }
    }
}
