//! The search: cuts a trace everywhere, builds images, opens each with the real code, and checks the contract.

use super::disk::{Disk, Kinds, Random};
use super::trace::Event;
use std::collections::HashSet;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What an image turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It opened, with all that was promised.
    Kept,
    /// It was refused with a sentence, before anything was promised.
    Refused,
}

/// What must hold after the power went.
pub trait Contract: Sync {
    /// What was promised, and what was under way, at some moment.
    type Known: Clone + Default;

    /// The workload said something.
    fn note(&self, known: &mut Self::Known, mark: &str);

    /// Images with the same content and the same number here need to be checked once.
    fn level(&self, known: &Self::Known) -> u64;

    /// Opens an image with the real code, and checks it.
    ///
    /// # Errors
    /// The promise that was broken, with what was found instead.
    fn check(&self, folder: &Path, known: &Self::Known, random: Random) -> Result<Verdict, String>;
}

/// What to search.
pub struct Search<'a, C> {
    /// Names the workload in messages.
    pub name: &'a str,
    /// The seed of the workload; the images follow from it and their numbers.
    pub seed: u64,
    /// What was there before the recording began.
    pub before: &'a Disk,
    /// What happened.
    pub events: &'a [Event],
    /// What must hold.
    pub contract: &'a C,
    /// About how many images.
    pub images: u64,
    /// Only this one.
    pub only: Option<(usize, usize)>,
}

/// What was looked at.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Images that were opened and checked; no two of them are the same at the same moment.
    pub images: u64,
    /// Images that had been seen already.
    pub repeated: u64,
    /// Of [`Report::images`], those that were refused before anything was promised.
    pub refused: u64,
    /// Moments of the cut.
    pub cuts: u64,
    /// Writes and flushes of the traces.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Images of which a prefix, a subset, torn writes, lengths and bytes apart, names apart.
    pub kinds: [u64; 5],
    /// Seconds.
    pub seconds: f64,
}

impl Report {
    /// Adds another's figures.
    pub fn add(&mut self, other: &Report) {
        self.images += other.images;
        self.repeated += other.repeated;
        self.refused += other.refused;
        self.cuts += other.cuts;
        self.writes += other.writes;
        self.flushes += other.flushes;
        self.seconds += other.seconds;
        self.kinds.iter_mut().zip(other.kinds).for_each(|(sum, n)| *sum += n);
    }

    fn count(&mut self, kinds: Kinds) {
        let Kinds { prefix, subset, torn, length, names } = kinds;
        for (sum, is) in self.kinds.iter_mut().zip([prefix, subset, torn, length, names]) {
            *sum += u64::from(is);
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [prefix, subset, torn, length, names] = self.kinds;
        write!(
            f,
            "{} images ({} repeated, {} refused at birth) of {} cuts in {} writes and {} flushes: {prefix} prefixes, \
             {subset} subsets, {torn} torn, {length} lengths apart, {names} names open; {:.1} s",
            self.images, self.repeated, self.refused, self.cuts, self.writes, self.flushes, self.seconds
        )
    }
}

/// An image that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What and how to see it again.
    pub message: String,
    /// Images looked at before.
    pub after: u64,
}

/// A folder in memory where there is one: nothing here needs a disk.
pub fn fast_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// A cut is worth its images after what changes the disk, and after what was promised.
fn worth(event: &Event) -> bool {
    !matches!(event, Event::SyncStart { .. })
}

impl<C: Contract> Search<'_, C> {
    /// Searches, on all cores.
    ///
    /// # Errors
    /// The first image that breaks a promise; it is kept.
    pub fn run(&self) -> Result<Report, Box<Failure>> {
        let started = Instant::now();
        let broken = |message: String| Box::new(Failure { message, after: 0 });
        // How many images each cut can have, to share them out.
        let (mut disk, mut sure, mut open) = (self.before.clone(), 0u64, 0u64);
        for event in self.events {
            disk.play(event).map_err(|e| broken(format!("{}: {e}", self.name)))?;
            if worth(event) {
                sure += disk.images(0) as u64;
                open += u64::from(disk.open_changes() > 0);
            }
        }
        if disk.writes == 0 || disk.flushes == 0 || open == 0 {
            return Err(broken(format!("{}: nothing was recorded", self.name)));
        }
        let random = (self.images.saturating_sub(sure) / open).max(2) as usize;
        // More moments than images are wanted: then not every moment.
        let skip = ((sure + 2 * open) / self.images.max(1)).max(1);
        let seen = Mutex::new(HashSet::new());
        let stop = AtomicBool::new(false);
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut report = Report { writes: disk.writes, flushes: disk.flushes, ..Report::default() };
        let mut failure: Option<Box<Failure>> = None;
        std::thread::scope(|scope| {
            let work = |worker| self.work(worker, workers, (random, skip), &seen, &stop);
            let threads: Vec<_> = (0..workers).map(|n| scope.spawn(move || work(n))).collect();
            for thread in threads {
                let (part, broken) = thread.join().expect("a worker");
                report.add(&part);
                failure = failure.take().or(broken);
            }
        });
        report.seconds = started.elapsed().as_secs_f64();
        match failure {
            Some(mut failure) => {
                failure.after = report.images;
                Err(failure)
            }
            None => Ok(report),
        }
    }

    fn work(
        &self,
        worker: usize,
        workers: usize,
        (random, skip): (usize, u64),
        seen: &Mutex<HashSet<(u64, u64)>>,
        stop: &AtomicBool,
    ) -> (Report, Option<Box<Failure>>) {
        let folder = fast_folder();
        let at = folder.path().join("image");
        let now = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let now = now.join(format!("image-now-{}-{}-{worker}.txt", self.name, std::process::id()));
        let (mut disk, mut known, mut report) = (self.before.clone(), C::Known::default(), Report::default());
        for (point, event) in self.events.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            disk.play(event).expect("it was played before");
            if let Event::Mark(mark) = event {
                self.contract.note(&mut known, mark);
            }
            let here = self.only.map_or(point % workers == worker, |(p, _)| p == point && worker == 0);
            let skipped = self.only.is_none() && !Random::new(self.seed ^ point as u64).one_in(skip);
            if !worth(event) || !here || skipped {
                continue;
            }
            report.cuts += 1;
            let level = self.contract.level(&known);
            for variant in 0..disk.images(random) {
                if self.only.is_some_and(|(_, v)| v != variant) || stop.load(Ordering::Relaxed) {
                    continue;
                }
                let seed = Random::new(self.seed ^ (point as u64) << 24 ^ variant as u64).next();
                let image = disk.image(variant, seed);
                let new =
                    seen.lock().unwrap_or_else(PoisonError::into_inner).insert((image.fingerprint, level));
                if !new {
                    report.repeated += 1;
                    continue;
                }
                report.images += 1;
                report.count(image.kinds);
                // Reading a map beyond the end of its file kills the process (SIGBUS): then this file tells where.
                let this = format!("{}, seed {}, image {point}.{variant}\n", self.name, self.seed);
                std::fs::write(&now, this).expect("a note");
                std::fs::create_dir_all(&at).expect("the image's folder");
                image.write(&at).expect("the image");
                let checked = catch_unwind(AssertUnwindSafe(|| {
                    self.contract.check(&at, &known, Random::new(seed ^ 0x5eed))
                }));
                let verdict = checked.unwrap_or_else(|panic| {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    Err(format!("a panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
                });
                std::fs::remove_dir_all(&at).expect("the image goes");
                match verdict {
                    Ok(verdict) => report.refused += u64::from(verdict == Verdict::Refused),
                    Err(why) => {
                        stop.store(true, Ordering::Relaxed);
                        let kept = self.keep(&image, point, variant);
                        let message = format!(
                            "{}, seed {}, image {point}.{variant} ({:?}): {why}\n  the image as it was cut: {}\n  \
                             again: PINFOLD_IMAGES_SEED={} PINFOLD_IMAGES_ONLY={point}.{variant}",
                            self.name, self.seed, image.kinds, kept.display(), self.seed
                        );
                        let _ = std::fs::remove_file(&now);
                        return (report, Some(Box::new(Failure { message, after: 0 })));
                    }
                }
            }
        }
        let _ = std::fs::remove_file(&now);
        (report, None)
    }

    /// Writes a failing image where it stays, as it was before anybody opened it.
    fn keep(&self, image: &super::disk::Image, point: usize, variant: usize) -> PathBuf {
        let name = format!("image-{}-{}-{point}.{variant}", self.name, self.seed);
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir_all(&to).expect("a folder for the image");
        image.write(&to).expect("the image");
        let tail = self.events[point.saturating_sub(40)..=point].iter().map(brief).collect::<Vec<_>>();
        let _ = std::fs::write(to.join("what-came-before.txt"), tail.join("\n"));
        to
    }
}

/// An event in few words.
fn brief(event: &Event) -> String {
    match event {
        Event::Write { inode, at, data, durable } => {
            format!("write {inode} {at}+{}{}", data.len(), if *durable { " flushed" } else { "" })
        }
        other => format!("{other:?}"),
    }
}
