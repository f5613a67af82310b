//! The queue: what waits, what runs, what is tried again when. Pure; time comes in as milliseconds.
//!
//! Three lines: priority pins, normal pins, unpins. A newer operation on a CID replaces the one that waits and
//! cancels the one that runs (the runner is told by a changed *ticket*). Nothing here is needed for
//! correctness: what does not fit is found again by the next scan of state against records, so every
//! line is bounded.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// Most CIDs known to the queue at once, waiting or running. The rest is scanned from the state again.
pub const MAX_QUEUED: usize = 10_000;
/// Second and later attempts are let in only while fewer CIDs than this are known to the queue: what failed before
/// must never keep new pins out.
pub const MAX_RETRYING: usize = MAX_QUEUED / 4;
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

/// The three lines and the retries.
#[derive(Debug)]
pub struct Queue {
    pending: HashMap<Key, Pending>,
    priority: VecDeque<(Key, u64)>,
    normal: VecDeque<(Key, u64)>,
    unpins: VecDeque<(Key, u64)>,
    retries: BTreeSet<(u64, Key)>,
    due: HashMap<Key, u64>,
    next_ticket: u64,
    running_pins: usize,
    running_unpins: usize,
    most_pins: usize,
    most_unpins: usize,
    overflowed: bool,
}

impl Queue {
    /// A queue for `most_pins` pin workers and `most_unpins` unpin workers.
    pub fn new(most_pins: usize, most_unpins: usize) -> Self {
        Queue {
            pending: HashMap::new(),
            priority: VecDeque::new(),
            normal: VecDeque::new(),
            unpins: VecDeque::new(),
            retries: BTreeSet::new(),
            due: HashMap::new(),
            next_ticket: 1,
            running_pins: 0,
            running_unpins: 0,
            most_pins: most_pins.max(1),
            most_unpins: most_unpins.max(1),
            overflowed: false,
        }
    }

    /// Queues an operation, replacing whatever was known of the CID.
    pub fn offer(&mut self, key: Key, op: Op, priority: bool, attempt: u32, now: u64) -> Offer {
        self.forget_retry(&key);
        if !self.pending.contains_key(&key) {
            if attempt > 1 && self.pending.len() >= MAX_RETRYING {
                return Offer::Full;
            }
            if self.pending.len() >= MAX_QUEUED {
                self.overflowed = true;
                return Offer::Full;
            }
        }
        self.cancel(&key);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending
            .insert(key.clone(), Pending { op, running: false, priority, attempt, ticket, since: now });
        match (op, priority) {
            (Op::Unpin, _) => self.unpins.push_back((key, ticket)),
            (Op::Pin, true) => self.priority.push_back((key, ticket)),
            (Op::Pin, false) => self.normal.push_back((key, ticket)),
        }
        Offer::Queued
    }

    /// Forgets a CID: what waits is dropped, what runs is cancelled.
    pub fn cancel(&mut self, key: &[u8]) {
        self.forget_retry(key);
        if let Some(p) = self.pending.remove(key) {
            if p.running {
                match p.op {
                    Op::Pin => self.running_pins -= 1,
                    Op::Unpin => self.running_unpins -= 1,
                }
            }
        }
    }

    /// The next job, if a worker is free: unpins have workers of their own, priority pins go first.
    pub fn take(&mut self, now: u64) -> Option<Job> {
        if self.running_unpins < self.most_unpins {
            if let Some(job) = Self::next(&mut self.unpins, &mut self.pending, now) {
                self.running_unpins += 1;
                return Some(job);
            }
        }
        if self.running_pins < self.most_pins {
            let job = Self::next(&mut self.priority, &mut self.pending, now)
                .or_else(|| Self::next(&mut self.normal, &mut self.pending, now));
            if job.is_some() {
                self.running_pins += 1;
            }
            return job;
        }
        None
    }

    fn next(line: &mut VecDeque<(Key, u64)>, pending: &mut HashMap<Key, Pending>, now: u64) -> Option<Job> {
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

    fn forget_retry(&mut self, key: &[u8]) {
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
        let wants = self.overflowed && self.pending.len() < MAX_QUEUED / 2;
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
        self.pending.values().filter(|p| p.op == Op::Pin && !p.running).count()
    }

    /// Keys known to the queue, in order (for statuses of CIDs that left the state).
    pub fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.pending.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }
}
