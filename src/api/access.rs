//! Access logs in files of their own: `http_log_file` and `log_file`.
//!
//! A line is handed over and written a moment later, many at once, so that no request waits for a disk. The file
//! is opened for each batch: moved away by logrotate, it is made anew, and nobody need be told. When the disk does
//! not keep up or refuses, lines are lost and counted, never a request.

use crate::error::{Context as _, Result};
use crate::runtime;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lines that may wait to be written; more are lost.
const MAX_WAITING: usize = 4_096;
/// Bytes that are written in one go.
const MAX_BATCH: usize = 256 << 10;
/// At most one failure is logged in this time.
const COMPLAIN: Duration = Duration::from_secs(60);

/// A file that gets a line per request. Clones share it; it is written to its end when the last is gone.
#[derive(Clone, Debug)]
pub struct AccessFile {
    lines: async_channel::Sender<String>,
    lost: Arc<AtomicU64>,
}

impl AccessFile {
    /// Checks that the file can be appended to, making it if needed (for its owner alone), and starts writing.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn open(path: PathBuf) -> Result<AccessFile> {
        append(&path).context(format!("opening the access log {}", path.display()))?;
        let (lines, waiting) = async_channel::bounded(MAX_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        runtime::spawn(write(path, waiting, lost.clone())).detach();
        Ok(AccessFile { lines, lost })
    }

    /// Takes a line, without its end.
    pub fn line(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

async fn write(path: PathBuf, waiting: async_channel::Receiver<String>, lost: Arc<AtomicU64>) {
    let mut complained: Option<Instant> = None;
    while let Ok(first) = waiting.recv().await {
        let (mut text, mut count) = (first + "\n", 1);
        while text.len() < MAX_BATCH {
            let Ok(line) = waiting.try_recv() else { break };
            text.push_str(&line);
            text.push('\n');
            count += 1;
        }
        let to = path.clone();
        let written = runtime::unblock(move || append(&to)?.write_all(text.as_bytes())).await;
        if written.is_err() {
            lost.fetch_add(count, Ordering::Relaxed);
        }
        let missing = lost.load(Ordering::Relaxed);
        if missing > 0 && complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
            complained = Some(Instant::now());
            lost.fetch_sub(missing, Ordering::Relaxed);
            let why = written.err().map_or_else(|| "the disk does not keep up".to_owned(), |e| e.to_string());
            log::warn!("{missing} lines of the access log {} were lost: {why}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_the_file_and_to_a_new_one_when_it_was_moved_away() {
        let dir = tempfile::tempdir().expect("folder");
        let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let until = |done: &dyn Fn() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !done() {
                assert!(Instant::now() < deadline, "{:?} {:?}", text(&path), text(&moved));
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let file = AccessFile::open(path.clone()).expect("opened");
        file.line("one".into());
        file.clone().line("two".into());
        until(&|| text(&path) == "one\ntwo\n");
        std::fs::rename(&path, &moved).expect("moved");
        file.line("three".into());
        drop(file);
        until(&|| text(&path) == "three\n");
        assert_eq!(text(&moved), "one\ntwo\n");
    }

    #[test]
    fn a_file_that_cannot_be_is_named() {
        let error = AccessFile::open("/nonexistent/access.log".into()).expect_err("refused").to_string();
        assert!(error.contains("opening the access log /nonexistent/access.log"), "{error}");
    }
}
