//! The pulse of a running peer, for systemd: the watchdog's food, and one line about how it is.
//!
//! The watchdog is fed only while the peer can do its work, which is two things. The consensus driver turns: it counts
//! its turns, and one that hangs (in a loop, or in a write that the disk does not take) counts no more. And the disk of
//! the data gives an answer: an idle driver has nothing to write, so that it would not notice a dead disk for hours. The
//! question to the disk is the reading of one page past the cache of the system, which finds a disk that hangs, and a
//! row of the state, which finds one that takes no writes: whoever reads from LMDB enters that into a page that the
//! system writes back. Neither wears a card more than the peer's own reading does.
//!
//! A disk that is silent makes the watchdog end the process and systemd start it anew; one that answers with an error
//! (it was pulled out) is told to the caller, who can end with a sentence.

use super::notify::{is_heard, notify, watchdog_interval};
use crate::cluster::Cluster;
use crate::consensus::Consensus;
use crate::error::{Context as _, Error, Result};
use crate::runtime;
use crate::store::{StateStore, Table};
use libp2p::PeerId;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What is read from the disk; reading past the cache wants this alignment, too.
const PAGE: usize = 4_096;
/// A row that is never there, so that the answer never comes from memory.
const NO_ROW: &[u8] = b"is anybody there?";
/// How often the line about the peer is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// A file of the data, to ask its disk whether it is there.
pub(super) struct Disk {
    file: File,
    path: PathBuf,
}

impl Disk {
    /// The file that is read: open for as long as the peer runs, so that it is this disk that answers even when
    /// another one is mounted over it.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub(super) fn of(path: &Path) -> Result<Disk> {
        let doing = || format!("opening {}", path.display());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        // Some file systems have no reading past the cache (tmpfs, those that compress).
        let file = rustix::fs::open(path, flags | OFlags::DIRECT, Mode::empty())
            .or_else(|_| rustix::fs::open(path, flags, Mode::empty()))
            .map_err(|error| Error::from_io(doing(), &error.into()))?;
        Ok(Disk { file: file.into(), path: path.to_owned() })
    }

    /// Returns when the disk has answered, however long that takes.
    ///
    /// # Errors
    /// What it answered, if not with what was asked for.
    fn ask(&self) -> Result<()> {
        let mut room = vec![0_u8; 2 * PAGE];
        let start = room.as_ptr().align_offset(PAGE);
        let page = room.get_mut(start..start + PAGE).unwrap_or_default();
        self.file
            .read_at(page, 0)
            .map(drop)
            .context(format!("the disk of {} is there no more (was it pulled out?)", self.path.display()))
    }
}

/// A question to the disk, which may hang in it.
type Ask = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// Feeds the watchdog, if systemd has set one, until the task is dropped. `trouble` hears of a disk that is gone.
pub(super) fn feed(
    consensus: Consensus,
    state: Arc<dyn StateStore>,
    disk: Disk,
    trouble: impl Fn(&Error) + Send + 'static,
) -> Option<smol::Task<()>> {
    let interval = watchdog_interval()?;
    let ask: Ask = Arc::new(move || {
        disk.ask()?;
        state.get(Table::Meta, NO_ROW).map(drop)
    });
    Some(runtime::spawn(watch(interval, move || consensus.beats(), ask, trouble, || notify("WATCHDOG=1"))))
}

/// The watch itself: `eat` is called at once, and then after each interval in which the driver turned and the disk
/// answered.
async fn watch(
    interval: Duration,
    beats: impl Fn() -> u64 + Send + 'static,
    ask: Ask,
    trouble: impl Fn(&Error) + Send + 'static,
    eat: impl Fn() + Send + 'static,
) {
    // A thread that hangs in the disk is one of the pool's, and no second one is sent after it.
    let question = || {
        let ask = ask.clone();
        runtime::spawn(runtime::unblock(move || ask()))
    };
    let (mut seen, mut asked, mut silent) = (beats(), question(), false);
    eat();
    loop {
        runtime::sleep(interval).await;
        let turns = std::mem::replace(&mut seen, beats()) != seen;
        let answers = asked.is_finished();
        if answers {
            if let Err(error) = (&mut asked).await {
                log::error!(target: "service", "{error}");
                return trouble(&error);
            }
            asked = question();
        }
        if turns && answers {
            silent = false;
            eat();
        } else if !std::mem::replace(&mut silent, true) {
            let what = if turns { "the disk of the data" } else { "consensus (its disk?)" };
            log::error!(
                target: "service",
                "{what} has given no sign of life for {interval:?}: systemd ends this process if that goes on"
            );
        }
    }
}

/// Keeps the unit's status line true until the task is dropped.
pub(super) fn show(me: PeerId, cluster: Cluster, state: Arc<dyn StateStore>) -> Option<smol::Task<()>> {
    is_heard().then(|| {
        runtime::spawn(async move {
            let mut shown = String::new();
            loop {
                let line = line(me, &cluster, &state);
                if line != shown {
                    notify(&format!("STATUS={line}"));
                    shown = line;
                }
                runtime::sleep(LOOK).await;
            }
        })
    })
}

/// How the peer is, in one line: `ready: leader, 3 of 3 peers here, 1234 pins`.
pub(super) fn line(me: PeerId, cluster: &Cluster, state: &Arc<dyn StateStore>) -> String {
    let health = cluster.consensus_health();
    let me = me.to_string();
    let here = health.members.iter().filter(|member| member.connected).count();
    let role = match &health.leader {
        Some(leader) if *leader == me => "leader".to_owned(),
        Some(leader) => {
            let name = health.members.iter().find(|m| m.peer == *leader).map(|m| m.peername.as_str());
            format!("follower of {}", clean(name.unwrap_or(leader)))
        }
        None => "no leader, so reads only".to_owned(),
    };
    let witness = health.members.iter().any(|m| m.peer == me && m.role == "witness");
    let witness = if witness { "witness, " } else { "" };
    let full = state.full().map_or("", |_| "; the disk is nearly full, no new pins");
    format!(
        "ready: {witness}{role}, {here} of {} peers here, {} pins{full}",
        health.members.len(),
        state.count(Table::Pins)
    )
}

/// A name that other peers gave to themselves, as part of a line of a protocol.
fn clean(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Instant;

    const INTERVAL: Duration = Duration::from_millis(20);
    /// Long enough for many feedings, were there any.
    const SILENCE: Duration = Duration::from_millis(400);

    #[derive(Clone, Default)]
    struct Fed(Arc<AtomicU64>, Arc<Mutex<Option<String>>>);

    impl Fed {
        fn meals(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }

        fn more(&self, meals: u64, why: &str) {
            self.in_all(self.meals() + meals, why);
        }

        fn in_all(&self, meals: u64, why: &str) {
            let deadline = Instant::now() + Duration::from_secs(30);
            while self.meals() < meals {
                assert!(Instant::now() < deadline, "{why}: {} meals", self.meals());
                std::thread::sleep(INTERVAL);
            }
        }

        fn none(&self, why: &str) {
            // What was on its way when the hanging began.
            std::thread::sleep(INTERVAL * 3);
            let before = self.meals();
            std::thread::sleep(SILENCE);
            assert_eq!(self.meals(), before, "{why}");
        }
    }

    fn start(beats: impl Fn() -> u64 + Send + 'static, ask: Ask) -> (Fed, smol::Task<()>) {
        let fed = Fed::default();
        let (eaten, told) = (fed.clone(), fed.1.clone());
        let trouble = move |e: &Error| *told.lock() = Some(e.to_string());
        let eat = move || {
            eaten.0.fetch_add(1, Ordering::SeqCst);
        };
        (fed, runtime::spawn(watch(INTERVAL, beats, ask, trouble, eat)))
    }

    /// A driver that turns as long as the switch is on.
    fn driver() -> (Arc<AtomicBool>, impl Fn() -> u64 + Send + 'static) {
        let (on, count) = (Arc::new(AtomicBool::new(true)), AtomicU64::new(0));
        let turning = on.clone();
        (on, move || match turning.load(Ordering::SeqCst) {
            true => count.fetch_add(1, Ordering::SeqCst) + 1,
            false => count.load(Ordering::SeqCst),
        })
    }

    #[test]
    fn a_driver_that_does_not_turn_starves_the_watchdog() {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), [7; 3 * PAGE]).expect("written");
        let disk = Disk::of(file.path()).expect("open");
        let (on, beats) = driver();
        let (fed, _task) = start(beats, Arc::new(move || disk.ask()));
        fed.more(5, "it turns and the disk answers");
        on.store(false, Ordering::SeqCst);
        fed.none("the driver hangs");
        on.store(true, Ordering::SeqCst);
        fed.more(2, "it turns again");
        assert_eq!(*fed.1.lock(), None);
    }

    #[test]
    fn a_disk_that_does_not_answer_starves_the_watchdog_although_the_driver_turns() {
        let (answer, questions) = std::sync::mpsc::channel::<()>();
        let questions = Mutex::new(questions);
        let ask: Ask = Arc::new(move || {
            let _ = questions.lock().recv();
            Ok(())
        });
        let (fed, _task) = start(driver().1, ask);
        fed.in_all(1, "the first meal is at once");
        fed.none("the disk hangs");
        // It comes back, for good.
        drop(answer);
        fed.more(3, "the disk answers again");
    }

    #[test]
    fn a_disk_that_is_gone_is_told_in_words_and_feeds_nobody() {
        let (fed, task) = start(driver().1, Arc::new(|| Err(Error::io("the disk is there no more"))));
        runtime::block_on(task);
        assert_eq!(fed.1.lock().as_deref(), Some("the disk is there no more"));
        assert_eq!(fed.meals(), 1);
    }
}
