//! Progress on a terminal: bytes, rate, remaining time; or how many peers are there.
//!
//! Drawn on standard error, and only when that is a terminal: a script never sees a bar. A thread of its
//! own redraws, so that a slow network does not freeze it. Whoever prints a result in between does it
//! inside [`Progress::print`], which takes the bar away first.

use super::humanize;
use parking_lot::Mutex;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two drawings.
const TICK: Duration = Duration::from_millis(100);
/// Nothing is drawn before this: what is done at once needs no bar.
const PATIENCE: Duration = Duration::from_millis(300);
/// Columns when the terminal does not say.
const COLUMNS: usize = 80;
/// Widest bar between the brackets.
const WIDEST_BAR: usize = 40;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes moved.
    Bytes,
    /// Peers that have reached a state.
    Peers,
}

struct Shared {
    label: String,
    unit: Unit,
    started: Instant,
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
    drawn: Mutex<bool>,
}

/// A running progress display. Dropping it takes it away.
pub struct Progress {
    shared: Option<Arc<Shared>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Progress {
    /// Whether progress would be shown at all.
    pub fn wanted() -> bool {
        std::io::stderr().is_terminal()
    }

    /// Starts showing progress, if standard error is a terminal. A `total` of 0 is not known (yet).
    pub fn start(label: &str, unit: Unit, total: u64) -> Progress {
        if !Self::wanted() {
            return Progress::none();
        }
        let shared = Arc::new(Shared {
            label: label.to_string(),
            unit,
            started: Instant::now(),
            done: AtomicU64::new(0),
            total: AtomicU64::new(total),
            stop: AtomicBool::new(false),
            drawn: Mutex::new(false),
        });
        let thread = std::thread::Builder::new().name("progress".into()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.stop.load(Relaxed) {
                    std::thread::park_timeout(TICK);
                    if shared.started.elapsed() >= PATIENCE && !shared.stop.load(Relaxed) {
                        let mut drawn = shared.drawn.lock();
                        shared.draw();
                        *drawn = true;
                    }
                }
            }
        });
        match thread {
            Ok(thread) => Progress { shared: Some(shared), thread: Some(thread) },
            // No thread, no bar: the work itself matters more.
            Err(_) => Progress::none(),
        }
    }

    /// Shows nothing.
    pub fn none() -> Progress {
        Progress { shared: None, thread: None }
    }

    /// A counter that may travel to another thread.
    pub fn counter(&self) -> Counter {
        Counter(self.shared.clone())
    }

    /// Sets what there is to do in all.
    pub fn set_total(&self, total: u64) {
        if let Some(shared) = &self.shared {
            shared.total.store(total, Relaxed);
        }
    }

    /// Prints something else, with the bar out of the way.
    pub fn print<T>(&self, print: impl FnOnce() -> T) -> T {
        let Some(shared) = &self.shared else { return print() };
        let mut drawn = shared.drawn.lock();
        if std::mem::take(&mut *drawn) {
            clear();
        }
        print()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        if std::mem::take(&mut *shared.drawn.lock()) {
            clear();
        }
    }
}

/// Counts what is done.
#[derive(Clone)]
pub struct Counter(Option<Arc<Shared>>);

impl Counter {
    /// This much more is done.
    pub fn add(&self, n: u64) {
        if let Some(shared) = &self.0 {
            shared.done.fetch_add(n, Relaxed);
        }
    }

    /// This much is done.
    pub fn set(&self, n: u64) {
        if let Some(shared) = &self.0 {
            shared.done.store(n, Relaxed);
        }
    }
}

fn clear() {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(b"\r\x1b[K").and_then(|()| err.flush());
}

impl Shared {
    fn draw(&self) {
        let columns = rustix::termios::tcgetwinsize(std::io::stderr())
            .map(|size| usize::from(size.ws_col))
            .ok()
            .filter(|c| *c > 0)
            .unwrap_or(COLUMNS);
        let line = line(
            &self.label,
            self.unit,
            self.done.load(Relaxed),
            self.total.load(Relaxed),
            self.started.elapsed(),
            columns,
        );
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "\r\x1b[K{line}").and_then(|()| err.flush());
    }
}

/// The line of a progress display; never wider than `columns` - 1, so that it never wraps.
fn line(label: &str, unit: Unit, done: u64, total: u64, elapsed: Duration, columns: usize) -> String {
    let done = if total > 0 { done.min(total) } else { done };
    let share = if total > 0 { done as f64 / total as f64 } else { 0.0 };
    let (before, after) = match unit {
        Unit::Peers if total > 0 => (format!("{label} {done}/{total} peers"), humanize::short(elapsed)),
        Unit::Peers => (label.to_string(), humanize::short(elapsed)),
        Unit::Bytes => {
            let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
            let rate_text = format!("{}/s", humanize::bytes(rate as u64));
            if total == 0 {
                (format!("{label} {}", humanize::bytes(done)), rate_text)
            } else {
                let left = if rate >= 1.0 {
                    humanize::short(Duration::from_secs(((total - done) as f64 / rate).min(1e9) as u64))
                } else {
                    "-".into()
                };
                (
                    format!("{label} {} / {}", humanize::bytes(done), humanize::bytes(total)),
                    format!("{:3.0}%  {rate_text}  ETA {left}", (share * 100.0).floor()),
                )
            }
        }
    };
    let room = columns.saturating_sub(1 + before.chars().count() + after.chars().count() + 4);
    let text = if total > 0 && room >= 5 {
        let width = room.min(WIDEST_BAR);
        let full = (share * width as f64) as usize;
        let head = if full < width { ">" } else { "" };
        format!("{before} [{}{head}{:rest$}] {after}", "=".repeat(full), "", rest = width - full - head.len())
    } else {
        format!("{before} {after}")
    };
    text.chars().take(columns.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_how_fast_and_how_long() {
        let text = line("adding", Unit::Bytes, 45_200_000, 1_000_000_000, Duration::from_secs(4), 80);
        assert!(text.starts_with("adding 45 MB / 1.0 GB ["), "{text}");
        assert!(text.contains("  4%  11 MB/s  ETA 1m24s"), "{text}");
        let text = line("pinning", Unit::Peers, 2, 3, Duration::from_secs(65), 80);
        assert!(text.starts_with("pinning 2/3 peers [") && text.ends_with("1m05s"), "{text}");
        let text = line("getting", Unit::Bytes, 5_000, 0, Duration::from_secs(1), 80);
        assert_eq!(text, "getting 5.0 kB 5.0 kB/s");
    }

    #[test]
    fn the_line_never_wraps() {
        for columns in [0, 1, 10, 20, 37, 80, 300] {
            for done in [0, 500, 1_000, 2_000] {
                for total in [0, 1_000] {
                    let text = line("adding", Unit::Bytes, done, total, Duration::ZERO, columns);
                    assert!(text.chars().count() < columns.max(1), "{columns}: {text}");
                }
            }
        }
    }
}
