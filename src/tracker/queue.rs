//! The queue: what waits, what runs, what is tried again when. Pure; time comes in as milliseconds.
//!
//! Lines: priority pins and normal pins that are tried for the first time, the same two again for later attempts, and
//! unpins. A newer operation on a CID replaces the one that waits and cancels the one that runs (the runner is told by
//! a changed *ticket*). Nothing here is needed for correctness: what does not fit is found again by the next scan of
//! state against records, so every line is bounded.
//!
//! A pin that nobody has must never keep others waiting, however many of them there are. Three rules see to that:
//! what failed before waits behind what was never tried (but has its share, [`RETRY_SHARE`]); a running pin without
//! progress gives up its worker when others wait, and goes on *parked*; and when too many are parked, the one that has
//! been so for longest ends for the sake of a pin that was never tried, and waits its back-off.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// Most CIDs known to the queue at once, waiting or running, whatever the configuration says: more would only cost
/// memory. The rest is scanned from the state again.
pub const MAX_QUEUED: usize = 10_000;
/// Second and later attempts are let in only while fewer than one in so many of the places are taken: what failed
/// before must never keep new pins out.
pub const RETRYING_SHARE: usize = 4;
/// One in so many jobs is a later attempt while first attempts wait, too.
pub const RETRY_SHARE: u64 = 4;
/// Most pins at the same time, whatever the configuration says: each takes a connection to the daemon.
pub const MAX_WORKERS: usize = 256;
/// Parked pins for each worker: enough that a search for providers may take a while, …
pub const PARKED_PER_WORKER: usize = 2;
/// … and never more than these: each keeps a connection to the daemon and makes it search.
pub const MAX_PARKED: usize = 64;
/// Most failed CIDs that wait for their next try; the periodic recover finds the others.
pub const MAX_RETRIES: usize = 10_000;
/// First wait after a failure, milliseconds; doubles with every attempt.
pub const RETRY_FIRST_MS: u64 = 10_000;
/// Longest wait between two attempts, milliseconds.
pub const RETRY_LONGEST_MS: u64 = 12 * 60 * 1_000;

/// CID bytes, the key of everything here.
pub type Key = Vec<u8>;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Pin it.
    Pin,
    /// Unpin it.
    Unpin,
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// What.
    pub op: Op,
    /// Running, or waiting.
    pub running: bool,
    /// In the priority line.
    pub priority: bool,
    /// Attempt this is, from 1.
    pub attempt: u32,
    /// Changes whenever the operation is replaced: a runner whose ticket is stale must stop.
    pub ticket: u64,
    /// When it was queued or started, milliseconds.
    pub since: u64,
    /// Running without progress and without a worker of its own.
    pub parked: bool,
}

/// How much a queue holds and runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pins at the same time.
    pub pins: usize,
    /// Unpins at the same time.
    pub unpins: usize,
    /// CIDs waiting or running, at most [`MAX_QUEUED`].
    pub queued: usize,
}

/// What becomes of a running pin that makes no progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stall {
    /// It goes on in its place: nobody waits for it, or it is parked already.
    Stays,
    /// It goes on beside the workers.
    Parked,
    /// The same, and this other one, parked for longest, must end.
    InsteadOf(Job),
}

/// A job handed to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// CID bytes.
    pub key: Key,
    /// What to do.
    pub op: Op,
    /// Attempt, from 1.
    pub attempt: u32,
    /// See [`Pending::ticket`].
    pub ticket: u64,
}

/// How an offer to the queue went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It waits now.
    Queued,
    /// No room: it will be found by a later scan, a repeated attempt by the periodic recover.
    Full,
}

/// The lines and the retries.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    pending: HashMap<Key, Pending>,
    lines: Lines,
    /// Parked pins, those parked for longest first; with stale entries.
    parked: VecDeque<(Key, u64)>,
    retries: BTreeSet<(u64, Key)>,
    due: HashMap<Key, u64>,
    next_ticket: u64,
    counts: Counts,
    /// Pins handed out so far, for [`RETRY_SHARE`].
    handed_out: u64,
    overflowed: bool,
}

/// CIDs with the ticket they had when they joined the line; those with another ticket by now are stale.
type Line = VecDeque<(Key, u64)>;

/// Who waits, in order.
#[derive(Debug, Default)]
struct Lines {
    priority: Line,
    normal: Line,
    priority_again: Line,
    again: Line,
    unpins: Line,
}

/// How many of what there are.
#[derive(Debug, Default)]
struct Counts {
    /// Pins with a worker.
    running_pins: usize,
    running_unpins: usize,
    parked: usize,
    /// Pins never tried that wait.
    fresh: usize,
    /// Other pins that wait.
    again: usize,
}

impl Counts {
    /// The counter that a pending operation counts in.
    fn of(&mut self, p: &Pending) -> Option<&mut usize> {
        match (p.op, p.running) {
            (Op::Pin, true) if p.parked => Some(&mut self.parked),
            (Op::Pin, true) => Some(&mut self.running_pins),
            (Op::Pin, false) if p.attempt > 1 => Some(&mut self.again),
            (Op::Pin, false) => Some(&mut self.fresh),
            (Op::Unpin, true) => Some(&mut self.running_unpins),
            (Op::Unpin, false) => None,
        }
    }

    fn add(&mut self, p: &Pending) {
        if let Some(n) = self.of(p) {
            *n += 1;
        }
    }

    fn remove(&mut self, p: &Pending) {
        if let Some(n) = self.of(p) {
            *n -= 1;
        }
    }
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            pins: limits.pins.clamp(1, MAX_WORKERS),
            unpins: limits.unpins.max(1),
            queued: limits.queued.clamp(1, MAX_QUEUED),
        };
        Queue {
            limits,
            pending: HashMap::new(),
            lines: Lines::default(),
            parked: VecDeque::new(),
            retries: BTreeSet::new(),
            due: HashMap::new(),
            next_ticket: 1,
            counts: Counts::default(),
            handed_out: 0,
            overflowed: false,
        }
    }

    /// Queues an operation, replacing whatever was known of the CID.
    pub fn offer(&mut self, key: Key, op: Op, priority: bool, attempt: u32, now: u64) -> Offer {
        self.forget_retry(&key);
        if !self.pending.contains_key(&key) {
            if attempt > 1 && self.pending.len() >= self.limits.queued.div_ceil(RETRYING_SHARE) {
                return Offer::Full;
            }
            if self.pending.len() >= self.limits.queued {
                self.overflowed = true;
                return Offer::Full;
            }
        }
        self.cancel(&key);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let pending = Pending { op, running: false, priority, attempt, ticket, since: now, parked: false };
        self.counts.add(&pending);
        self.pending.insert(key.clone(), pending);
        let line = match (op, attempt > 1, priority) {
            (Op::Unpin, _, _) => &mut self.lines.unpins,
            (Op::Pin, false, true) => &mut self.lines.priority,
            (Op::Pin, false, false) => &mut self.lines.normal,
            (Op::Pin, true, true) => &mut self.lines.priority_again,
            (Op::Pin, true, false) => &mut self.lines.again,
        };
        line.push_back((key, ticket));
        Self::sweep(line, &self.pending, 2 * MAX_QUEUED);
        Offer::Queued
    }

    /// Forgets a CID: what waits is dropped, what runs is cancelled.
    pub fn cancel(&mut self, key: &[u8]) {
        self.forget_retry(key);
        if let Some(p) = self.pending.remove(key) {
            self.counts.remove(&p);
        }
    }

    /// The next job, if a worker is free: unpins have workers of their own, first attempts and priority pins go first.
    pub fn take(&mut self, now: u64) -> Option<Job> {
        if self.counts.running_unpins < self.limits.unpins {
            if let Some(job) = Self::next(&mut self.lines.unpins, &mut self.pending, now) {
                self.counts.running_unpins += 1;
                return Some(job);
            }
        }
        if self.counts.running_pins >= self.limits.pins {
            return None;
        }
        let Lines { priority, normal, priority_again, again, .. } = &mut self.lines;
        let order = match (self.handed_out + 1) % RETRY_SHARE {
            0 => [priority_again, again, priority, normal],
            _ => [priority, normal, priority_again, again],
        };
        let job = order.into_iter().find_map(|line| Self::next(line, &mut self.pending, now))?;
        match job.attempt > 1 {
            true => self.counts.again -= 1,
            false => self.counts.fresh -= 1,
        }
        self.counts.running_pins += 1;
        self.handed_out += 1;
        Some(job)
    }

    /// A running pin has made no progress for a while: when others wait, it gives up its worker.
    pub fn stall(&mut self, job: &Job) -> Stall {
        let waiting = self.counts.fresh + self.counts.again;
        let most = (self.limits.pins * PARKED_PER_WORKER).min(MAX_PARKED);
        let full = self.counts.parked >= most;
        // For what failed before nobody has to end: it has waited, it can wait.
        if waiting == 0 || full && self.counts.fresh == 0 {
            return Stall::Stays;
        }
        match self.pending.get_mut(&job.key) {
            Some(p) if p.ticket == job.ticket && p.running && !p.parked => {
                self.counts.remove(p);
                p.parked = true;
                self.counts.add(p);
            }
            _ => return Stall::Stays,
        }
        self.parked.push_back((job.key.clone(), job.ticket));
        Self::sweep(&mut self.parked, &self.pending, 2 * MAX_PARKED);
        if !full {
            return Stall::Parked;
        }
        while let Some((key, ticket)) = self.parked.pop_front() {
            if let Some(p) = self.pending.get(&key).filter(|p| p.ticket == ticket && p.parked) {
                return Stall::InsteadOf(Job { key, op: p.op, attempt: p.attempt, ticket });
            }
        }
        Stall::Parked
    }

    /// A pin makes progress: if it was parked, it has a worker again, be it one too many for a moment.
    pub fn moves(&mut self, job: &Job) {
        if let Some(p) = self.pending.get_mut(&job.key).filter(|p| p.ticket == job.ticket && p.parked) {
            self.counts.remove(p);
            p.parked = false;
            self.counts.add(p);
            // Should it be parked again, it is the last one in line.
            self.parked.retain(|(_, ticket)| *ticket != job.ticket);
        }
    }

    /// Drops stale entries once a line is longer than it can be without them.
    fn sweep(line: &mut Line, pending: &HashMap<Key, Pending>, most: usize) {
        if line.len() > most {
            line.retain(|(key, ticket)| pending.get(key).is_some_and(|p| p.ticket == *ticket));
        }
    }

    fn next(line: &mut Line, pending: &mut HashMap<Key, Pending>, now: u64) -> Option<Job> {
        while let Some((key, ticket)) = line.pop_front() {
            if let Some(p) = pending.get_mut(&key) {
                if p.ticket == ticket && !p.running {
                    p.running = true;
                    p.since = now;
                    return Some(Job { key, op: p.op, attempt: p.attempt, ticket });
                }
            }
        }
        None
    }

    /// A job ended; `false` when it had been replaced meanwhile and its result means nothing.
    pub fn finish(&mut self, job: &Job) -> bool {
        if self.is_current(job) {
            self.cancel(&job.key);
            true
        } else {
            false
        }
    }

    /// Whether a job is still wanted.
    pub fn is_current(&self, job: &Job) -> bool {
        self.pending.get(&job.key).is_some_and(|p| p.ticket == job.ticket)
    }

    /// Plans another try of a CID after its `attempts`-th failure; says when (milliseconds), if there is room.
    pub fn retry_later(&mut self, key: Key, attempts: u32, now: u64) -> Option<u64> {
        self.forget_retry(&key);
        if self.retries.len() >= MAX_RETRIES {
            return None;
        }
        let wait =
            RETRY_FIRST_MS.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(RETRY_LONGEST_MS);
        self.due.insert(key.clone(), now + wait);
        self.retries.insert((now + wait, key));
        Some(now + wait)
    }

    /// Forgets that a CID is to be tried again.
    pub fn forget_retry(&mut self, key: &[u8]) {
        if let Some((key, at)) = self.due.remove_entry(key) {
            self.retries.remove(&(at, key));
        }
    }

    /// A CID whose next try is due; it leaves the retries.
    pub fn due(&mut self, now: u64) -> Option<Key> {
        let (at, key) = self.retries.first()?.clone();
        if at > now {
            return None;
        }
        self.forget_retry(&key);
        Some(key)
    }

    /// When the next retry is due, milliseconds.
    pub fn next_due(&self) -> Option<u64> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Where a CID stands, if it waits or runs.
    pub fn get(&self, key: &[u8]) -> Option<&Pending> {
        self.pending.get(key)
    }

    /// Whether something did not fit since the last call and there is room again: time for a scan.
    pub fn wants_scan(&mut self) -> bool {
        let wants = self.overflowed && self.pending.len() <= self.limits.queued / 2;
        if wants {
            self.overflowed = false;
        }
        wants
    }

    /// Asks for a scan as if something had not fitted.
    pub fn ask_for_scan(&mut self) {
        self.overflowed = true;
    }

    /// CIDs waiting or running.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether nothing waits or runs.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Waiting pins (the `pinqueue` metric).
    pub fn waiting_pins(&self) -> usize {
        self.counts.fresh + self.counts.again
    }

    /// Keys known to the queue, in order (for statuses of CIDs that left the state).
    pub fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.pending.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }
}
