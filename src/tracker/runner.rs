//! The runner: feeds the queue from state events and scans, runs jobs against IPFS, writes records.
//!
//! Locks are taken in one order, `running` before `queue`, and never across an await. A job whose CID got a
//! newer operation is cancelled by dropping its task; should it be past its last await by then, its ticket is
//! stale and its result is thrown away. Whatever slips through (the far end did what we cancelled) is
//! found by the next comparison. A pin that makes no progress gives up its worker when others wait (see the queue).
//!
//! Single rows are read and written on the executor: they are in the overlay or a few hot pages away, and two
//! thread changes per row cost more than the row. Scans go through the blocking pool. Local records alone do not
//! move Raft's applied mark, so nobody else would flush them: a task here does, a moment after the last change.

use super::keeper;
use super::plan::{self, Achieved, Action, Correction, Record};
use super::progress::Board;
use super::queue::{Job, Key, Limits, Offer, Op, Queue, Stall};
use super::rows::{row, Row, RowReader};
use super::scan::{self, Scan, Spot};
use super::status::{Status, StatusFilter};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ipfs::{Away, Ipfs, IpfsPin, PinRequest};
use crate::runtime;
use crate::state::{Event, Pin, PinMode};
use crate::store::{StateStore, Table, WriteBatch};
use cid::Cid;
use libp2p::PeerId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// State events taken in one go.
const EVENT_BATCH: usize = 512;
/// How long a question about one CID may keep a status waiting; then the record answers.
const ASK_IPFS: Duration = Duration::from_secs(3);
/// How long a question about one CID may take when it is the very thing that was asked for.
const SYNC_IPFS: Duration = Duration::from_secs(10);
/// A pin without progress for this long gives up its worker when others wait: enough to find a provider nearby.
const STALL_AFTER: Duration = Duration::from_secs(5);
/// Between two looks at the progress of a running pin.
const STALL_LOOK: Duration = Duration::from_secs(1);
/// The dispatcher sleeps at least this long, so that a retry due at this very moment does not make it spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// Records are made durable this long after the first change; losing them only costs doing the work again.
const FLUSH_AFTER: Duration = Duration::from_secs(3);
/// Workers that unpin: unpinning is cheap and must not flood a daemon.
const UNPIN_WORKERS: usize = 2;

/// Settings, from `pin_tracker.stateless` and `cluster`.
#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// Pins at the same time.
    pub concurrent_pins: usize,
    /// Pins younger than this go to the priority line …
    pub priority_max_age: Duration,
    /// … until they failed this often.
    pub priority_max_retries: u32,
    /// CIDs that wait in memory, at most [`super::queue::MAX_QUEUED`]; the others wait on disk.
    pub max_queued: usize,
    /// Between two repairs: comparisons of state, records and IPFS that try again whatever is not as it should be.
    pub recover_interval: Duration,
    /// Between two comparisons with IPFS that only correct what is shown; zero: none but those of repairs.
    pub ipfs_sync_interval: Duration,
    /// Between two comparisons of state and records.
    pub state_sync_interval: Duration,
}

/// The running tracker; clone is cheap.
#[derive(Clone)]
pub struct Tracker {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) me: PeerId,
    pub(super) config: TrackerConfig,
    pub(super) ipfs: Arc<dyn Ipfs>,
    pub(super) store: Arc<dyn StateStore>,
    pub(super) queue: Arc<Mutex<Queue>>,
    /// Running jobs with their tickets.
    running: Mutex<HashMap<Key, (u64, smol::Task<()>)>>,
    tasks: Mutex<Vec<smol::Task<()>>>,
    wake: async_channel::Sender<()>,
    /// Full while records wait to be made durable.
    dirty: async_channel::Sender<()>,
    started: Instant,
    /// How far running pins are.
    pub(super) board: Board,
    /// Pins that have ended well, and a sign when there are more.
    pinned: std::sync::atomic::AtomicU64,
    pinned_news: (async_channel::Sender<()>, async_channel::Receiver<()>),
    /// Where scans go on.
    pub(super) spot: Mutex<Spot>,
    /// Held while IPFS lists its pins.
    pub(super) listing: smol::lock::Mutex<()>,
    /// Milliseconds that a test has skipped.
    #[cfg(test)]
    pub(super) skipped: std::sync::atomic::AtomicU64,
}

impl Tracker {
    /// Starts following `events` and comparing periodically.
    pub fn start(
        me: PeerId,
        config: TrackerConfig,
        ipfs: Arc<dyn Ipfs>,
        store: Arc<dyn StateStore>,
        events: async_channel::Receiver<Event>,
    ) -> Tracker {
        let (tracker, woken, changed) = Tracker::still(me, config, ipfs, store);
        let inner = &tracker.inner;
        let follow = runtime::spawn(follow(inner.clone(), events));
        let dispatch = runtime::spawn(dispatch(inner.clone(), woken));
        let keep = runtime::spawn(keeper::keep(inner.clone()));
        let sync = runtime::spawn(keeper::sync_state(inner.clone()));
        let flush = runtime::spawn(flush_lazily(inner.store.clone(), changed));
        inner.tasks.lock().extend([follow, dispatch, keep, sync, flush]);
        tracker
    }

    /// The tracker of a witness: it never does anything. What an earlier life of this peer recorded stays.
    pub fn idle(
        me: PeerId,
        config: TrackerConfig,
        ipfs: Arc<dyn Ipfs>,
        store: Arc<dyn StateStore>,
    ) -> Tracker {
        Tracker::still(me, config, ipfs, store).0
    }

    /// A tracker without its tasks, and what wakes them.
    fn still(
        me: PeerId,
        config: TrackerConfig,
        ipfs: Arc<dyn Ipfs>,
        store: Arc<dyn StateStore>,
    ) -> (Tracker, async_channel::Receiver<()>, async_channel::Receiver<()>) {
        let (wake, woken) = async_channel::bounded(1);
        let (dirty, changed) = async_channel::bounded(1);
        let limits =
            Limits { pins: config.concurrent_pins, unpins: UNPIN_WORKERS, queued: config.max_queued };
        let inner = Arc::new(Inner {
            me,
            queue: Arc::new(Mutex::new(Queue::new(limits))),
            config,
            ipfs,
            store,
            running: Mutex::new(HashMap::new()),
            tasks: Mutex::new(Vec::new()),
            wake,
            dirty,
            started: Instant::now(),
            board: Board::default(),
            pinned: std::sync::atomic::AtomicU64::new(0),
            pinned_news: async_channel::bounded(1),
            spot: Mutex::default(),
            listing: smol::lock::Mutex::new(()),
            #[cfg(test)]
            skipped: std::sync::atomic::AtomicU64::new(0),
        });
        (Tracker { inner }, woken, changed)
    }

    /// Status of one CID here. A pin that should be held is looked up in IPFS, so that one removed behind
    /// our back shows at once.
    pub async fn status(&self, cid: &Cid) -> Result<Row> {
        let (found, held) = self.inner.row_of(cid.to_bytes())?;
        if !held {
            return Ok(found);
        }
        let asked = runtime::timeout(ASK_IPFS, "IPFS", self.inner.ipfs.pin_state(cid)).await;
        let Ok(state) = asked else { return Ok(found) };
        let key = cid.to_bytes();
        self.inner.correct(&key, state)?;
        self.inner.row_of(key).map(|(row, _)| row)
    }

    /// Why nothing that this peer holds can be had now.
    pub fn away(&self) -> Option<Away> {
        self.inner.ipfs.away()
    }

    /// Compares one CID with IPFS now; its status after that.
    ///
    /// # Errors
    /// When IPFS cannot be asked: the status would be what was thought before.
    pub async fn sync(&self, cid: &Cid) -> Result<Row> {
        let key = cid.to_bytes();
        if self.inner.record(&key)?.is_some() {
            let state = runtime::timeout(SYNC_IPFS, "IPFS", self.inner.ipfs.pin_state(cid)).await?;
            self.inner.correct(&key, state)?;
        }
        self.inner.row_of(key).map(|(row, _)| row)
    }

    /// Compares everything with IPFS now. Hands to `found`, in key order, each row that this changed or that is in
    /// error; ends when nobody reads them any more.
    ///
    /// # Errors
    /// When IPFS cannot be asked.
    pub async fn sync_all(&self, found: async_channel::Sender<Row>) -> Result<()> {
        scan::look(&self.inner, Some(&found)).await
    }

    /// This peer's rows that pass the filter, in key order.
    pub fn rows(&self, filter: StatusFilter) -> RowReader {
        let inner = &self.inner;
        RowReader::new(inner.me, inner.store.clone(), inner.queue.clone(), filter, inner.ipfs.clone())
    }

    /// Tries one CID again now, if the state wants something that is not so; its status after that.
    pub async fn recover(&self, cid: &Cid) -> Result<Row> {
        // Asking for the status compares with IPFS.
        self.status(cid).await?;
        let key = cid.to_bytes();
        self.inner.requeue(&key, Scan::Everything)?;
        self.inner.wake();
        self.inner.row_of(key).map(|(row, _)| row)
    }

    /// Compares everything with IPFS and tries again whatever is not as it should be. Hands each re-queued
    /// row to `found`, waiting for whoever reads them; goes on without when nobody does.
    pub async fn recover_all(&self, found: async_channel::Sender<Row>) -> Result<()> {
        scan::repair(&self.inner, Some(&found)).await
    }

    /// What this peer has of a CID that it should hold, from its records alone; `None` while it works on it.
    pub fn held(&self, key: &[u8]) -> Result<Option<bool>> {
        let (pin, record) = (self.inner.pin(key)?, self.inner.record(key)?);
        Ok(match plan::settled_status(pin.as_ref(), &self.inner.me, record.as_ref()) {
            Status::Pinned if self.away().is_some() => Some(false),
            Status::Pinned => Some(true),
            Status::PinError | Status::UnpinError | Status::UnexpectedlyUnpinned => Some(false),
            _ => None,
        })
    }

    /// Pins that have ended well since the start.
    pub fn pinned(&self) -> u64 {
        self.inner.pinned.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Returns when more pins have ended well than that.
    pub async fn wait_pinned(&self, more_than: u64) {
        while self.pinned() <= more_than && self.inner.pinned_news.1.recv().await.is_ok() {}
    }

    /// Pins waiting for a worker.
    pub fn waiting_pins(&self) -> usize {
        self.inner.queue.lock().waiting_pins()
    }

    /// Stops all work; what runs is cancelled and found again at the next start.
    pub async fn stop(&self) {
        let tasks: Vec<_> = self.inner.tasks.lock().drain(..).collect();
        for task in tasks {
            task.cancel().await;
        }
        let running: Vec<_> = self.inner.running.lock().drain().collect();
        for (_, (_, task)) in running {
            task.cancel().await;
        }
    }
}

impl Inner {
    pub(super) fn now(&self) -> u64 {
        let now = self.started.elapsed().as_millis() as u64;
        #[cfg(test)]
        let now = now + self.skipped.load(std::sync::atomic::Ordering::Relaxed);
        now
    }

    pub(super) fn wake(&self) {
        // A full channel means that the dispatcher is already going to look.
        let _ = self.wake.try_send(());
    }

    fn record(&self, key: &[u8]) -> Result<Option<Record>> {
        self.store.get(Table::Local, key)?.map(|v| Record::decode(key, &v)).transpose()
    }

    pub(super) fn pin(&self, key: &[u8]) -> Result<Option<Pin>> {
        self.store.get(Table::Pins, key)?.map(|v| Pin::decode(&v)).transpose()
    }

    fn put_record(&self, key: &[u8], record: Option<&Record>) -> Result<()> {
        let writes = vec![(Table::Local, key.to_vec(), record.map(|record| record.encode(key)))];
        self.store.write(WriteBatch { writes, applied: None })?;
        let _ = self.dirty.try_send(());
        Ok(())
    }

    /// The row of a CID, and whether IPFS should hold it and nothing is under way.
    pub(super) fn row_of(&self, key: Key) -> Result<(Row, bool)> {
        let (pin, record) = (self.pin(&key)?, self.record(&key)?);
        let pending = self.queue.lock().get(&key).copied();
        let held = pending.is_none() && record.as_ref().is_some_and(Record::is_held);
        let row = row(key, pin.as_ref(), &self.me, record.as_ref(), pending.as_ref());
        Ok((row.while_away(self.ipfs.away().as_ref()), held))
    }

    /// Takes in how IPFS has a CID pinned; whether that changed the record. What is under way is left to its end.
    pub(super) fn correct(&self, key: &[u8], state: IpfsPin) -> Result<bool> {
        let (pin, record) = (self.pin(key)?, self.record(key)?);
        let Some(correction) = plan::correct(pin.as_ref(), &self.me, record.as_ref(), state) else {
            return Ok(false);
        };
        if self.queue.lock().get(key).is_some() {
            return Ok(false);
        }
        let now = Timestamp::now();
        match correction {
            Correction::Missing => {
                log::debug!(target: "pintracker", "{}: IPFS does not have it pinned any more", name(key));
                self.put_record(key, Some(&Record::failed(Achieved::Missing, now, 0, "")))?;
            }
            Correction::Held(mode) => {
                self.queue.lock().forget_retry(key);
                self.put_record(key, Some(&Record::pinned(mode, now)))?;
            }
            Correction::Gone => {
                self.queue.lock().forget_retry(key);
                self.put_record(key, None)?;
            }
        }
        Ok(true)
    }

    fn is_priority(&self, pin: &Pin, attempts: u32) -> bool {
        let age = Timestamp::now().secs.saturating_sub(pin.timestamp.secs);
        attempts <= self.config.priority_max_retries
            && age >= 0
            && (age as u64) < self.config.priority_max_age.as_secs()
    }

    /// Queues an operation and cancels whatever runs for this CID, which is outdated now.
    fn offer(&self, key: &[u8], op: Op, priority: bool, attempt: u32) -> Offer {
        let now = self.now();
        // Both at once: between the two the dispatcher could start the new job, which would then be the one that is
        // cancelled here, and its worker would never come back.
        let mut running = self.running.lock();
        let offer = self.queue.lock().offer(key.to_vec(), op, priority, attempt, now);
        running.remove(key);
        offer
    }

    /// Queues what the plan says about a CID, unless it is already waiting or running; `None` when there is
    /// nothing to do.
    pub(super) fn requeue(&self, key: &[u8], scan: Scan) -> Result<Option<Offer>> {
        let (pin, record) = (self.pin(key)?, self.record(key)?);
        if self.queue.lock().get(key).is_some() {
            return Ok(None);
        }
        let attempts = record.as_ref().map_or(0, |r| r.attempts);
        let (op, failed) = match plan::decide(pin.as_ref(), &self.me, record.as_ref()) {
            Action::Nothing => return Ok(None),
            Action::Pin => (Op::Pin, Achieved::PinFailed),
            Action::Unpin => (Op::Unpin, Achieved::UnpinFailed),
        };
        // What is missing was found so by a comparison: it is repaired with what failed, by the next recover.
        let settled = |r: Record| r.achieved == failed || op == Op::Pin && r.achieved == Achieved::Missing;
        if scan == Scan::Unsettled && record.is_some_and(settled) {
            return Ok(None);
        }
        let priority = pin.as_ref().is_some_and(|p| self.is_priority(p, attempts));
        Ok(Some(self.offer(key, op, priority, attempts.saturating_add(1))))
    }

    /// Tries a CID again whose time has come; later, when there is no room.
    fn retry(&self, key: &[u8]) -> Result<()> {
        if self.requeue(key, Scan::Everything)? == Some(Offer::Full) {
            let attempts = self.record(key)?.map_or(1, |r| r.attempts);
            self.queue.lock().retry_later(key.to_vec(), attempts, self.now());
        }
        Ok(())
    }

    /// Takes state changes in, in log order.
    fn absorb(&self, events: &[Event]) -> Result<bool> {
        let mut scan = false;
        for event in events {
            match event {
                Event::Pinned(pin) => {
                    let key = pin.cid.to_bytes();
                    let record = self.record(&key)?;
                    if plan::is_here(pin, &self.me) {
                        // Also when IPFS has it already: pinning again is how a user repairs a pin that was
                        // removed behind our back, and costs one question when it was not. The record stays
                        // until the job has ended: should an unpin come first, it says that there is
                        // something to unpin.
                        self.offer(&key, Op::Pin, self.is_priority(pin, 0), 1);
                    } else {
                        self.leave(&key, record)?;
                    }
                }
                Event::Moved(pin) => {
                    let key = pin.cid.to_bytes();
                    let record = self.record(&key)?;
                    let leaving = self.queue.lock().get(&key).is_some_and(|p| p.op == Op::Unpin);
                    if !plan::is_here(pin, &self.me) {
                        self.leave(&key, record)?;
                    } else if leaving {
                        // It left and came back before the unpin had its turn.
                        self.offer(&key, Op::Pin, self.is_priority(pin, 0), 1);
                    } else {
                        // Who holds it, or is about to, goes on undisturbed.
                        self.requeue(&key, Scan::Unsettled)?;
                    }
                }
                Event::Unpinned(pin) => {
                    let key = pin.cid.to_bytes();
                    let record = self.record(&key)?;
                    self.leave(&key, record)?;
                }
                Event::MembersChanged => {}
                Event::Replaced => scan = true,
            }
        }
        Ok(scan)
    }

    /// A CID is no longer ours: unpin it, if we ever pinned it or were about to.
    fn leave(&self, key: &[u8], record: Option<Record>) -> Result<()> {
        let running = self.queue.lock().get(key).is_some_and(|p| p.running && p.op == Op::Pin);
        if running && record.is_none() {
            // The pin may have gone through at this very moment: remember that it may be there.
            self.put_record(key, Some(&Record::pinned(PinMode::Recursive, Timestamp::now())))?;
        }
        if running || record.is_some() {
            self.offer(key, Op::Unpin, false, 1);
        } else {
            self.queue.lock().cancel(key);
        }
        Ok(())
    }
}

/// Makes changed records durable a moment later, many at a time.
async fn flush_lazily(store: Arc<dyn StateStore>, changed: async_channel::Receiver<()>) {
    while changed.recv().await.is_ok() {
        runtime::sleep(FLUSH_AFTER).await;
        let _ = changed.try_recv();
        let store = store.clone();
        report(runtime::unblock(move || store.flush().map(|_| ())).await);
    }
}

/// Follows the state.
async fn follow(inner: Arc<Inner>, events: async_channel::Receiver<Event>) {
    while let Ok(first) = events.recv().await {
        let mut batch = vec![first];
        while batch.len() < EVENT_BATCH {
            match events.try_recv() {
                Ok(event) => batch.push(event),
                Err(_) => break,
            }
        }
        let scan = match inner.absorb(&batch) {
            Ok(scan) => scan,
            // Nothing is lost: the next comparison finds what these events would have said.
            Err(error) => {
                log::error!(target: "pintracker", "cannot follow the state: {error}");
                true
            }
        };
        inner.wake();
        if scan {
            report(scan::catch_up(&inner).await);
        }
    }
}

/// Hands jobs to workers as they become free, retries when they are due, scans when the queue overflowed.
async fn dispatch(inner: Arc<Inner>, woken: async_channel::Receiver<()>) {
    loop {
        let (due, scan, wait) = overdue(&inner);
        if !due.is_empty() {
            let worker = inner.clone();
            // One that cannot be read must not cost the others their turn.
            runtime::unblock(move || due.iter().for_each(|key| report(worker.retry(key)))).await;
        }
        if scan {
            report(scan::catch_up(&inner).await);
        }
        start_jobs(&inner);
        let timer = async {
            match wait {
                Some(wait) => runtime::sleep(wait.max(SHORTEST_WAIT)).await,
                None => std::future::pending().await,
            }
        };
        let closed = smol::future::or(async { woken.recv().await.is_err() }, async {
            timer.await;
            false
        })
        .await;
        if closed {
            return;
        }
    }
}

/// Retries that are due, whether it is time for a scan, and how long until the next retry.
fn overdue(inner: &Inner) -> (Vec<Key>, bool, Option<Duration>) {
    let mut queue = inner.queue.lock();
    let now = inner.now();
    let due = std::iter::from_fn(|| queue.due(now)).collect();
    let wait = queue.next_due().map(|at| Duration::from_millis(at.saturating_sub(now)));
    (due, queue.wants_scan(), wait)
}

/// Hands jobs to workers while there are both.
pub(super) fn start_jobs(inner: &Arc<Inner>) {
    // Each would fail at once, be recorded as failed and be written about. The keeper wakes us when the node is there.
    if inner.ipfs.away().is_some() {
        return;
    }
    loop {
        // The lock is held over spawn and insert, so that a job that ends at once finds its own handle.
        let mut running = inner.running.lock();
        let Some(job) = inner.queue.lock().take(inner.now()) else { return };
        let (key, ticket) = (job.key.clone(), job.ticket);
        running.insert(key, (ticket, runtime::spawn(run(inner.clone(), job))));
    }
}

/// Runs one job to its end and writes what was achieved.
async fn run(inner: Arc<Inner>, job: Job) {
    let result = match job.op {
        Op::Pin => pin(&inner, &job).await,
        Op::Unpin => unpin(&inner, &job).await,
    };
    report(conclude(&inner, &job, result));
    let mut running = inner.running.lock();
    if running.get(&job.key).is_some_and(|(ticket, _)| *ticket == job.ticket) {
        if let Some((_, task)) = running.remove(&job.key) {
            // Our own handle: dropping it would cancel the lines that follow.
            task.detach();
        }
    }
    drop(running);
    inner.wake();
}

/// Pins; gives back the mode that was achieved.
async fn pin(inner: &Arc<Inner>, job: &Job) -> Result<Option<PinMode>> {
    let Some(pin) = inner.pin(&job.key)? else { return Ok(None) };
    if !plan::is_here(&pin, &inner.me) {
        return Ok(None);
    }
    // The nodes of the other members are not named: the cluster keeps all IPFS nodes connected.
    let (update_from, providers) = (pin.pin_update, pin.origins);
    let request = PinRequest { cid: pin.cid, mode: pin.mode, update_from, providers };
    let moved = Arc::new(Moved::new(inner.now()));
    let running = inner.board.begin(&job.key);
    let told = running.report();
    let progress = {
        let (inner, moved) = (Arc::downgrade(inner), moved.clone());
        move |blocks| {
            told(blocks);
            if let Some(inner) = inner.upgrade() {
                moved.to(blocks, inner.now());
            }
        }
    };
    let work = async { Some(inner.ipfs.pin(request, Arc::new(progress)).await) };
    let watched = smol::future::or(work, async {
        yield_to_others(inner, job, &moved).await;
        None
    });
    match watched.await {
        Some(result) => result.map(|()| Some(pin.mode)),
        None => Err(Error::cancelled("the pin was replaced")),
    }
}

/// How far a pin has come, and when.
struct Moved {
    blocks: AtomicU64,
    at: AtomicU64,
}

impl Moved {
    fn new(now: u64) -> Self {
        Moved { blocks: AtomicU64::new(0), at: AtomicU64::new(now) }
    }

    fn to(&self, blocks: u64, now: u64) {
        if self.blocks.fetch_max(blocks, Relaxed) < blocks {
            self.at.store(now, Relaxed);
        }
    }

    fn idle(&self, now: u64) -> Duration {
        Duration::from_millis(now.saturating_sub(self.at.load(Relaxed)))
    }
}

/// Makes a pin without progress give up its worker while others wait. Ends when the pin was replaced.
async fn yield_to_others(inner: &Arc<Inner>, job: &Job, moved: &Moved) {
    loop {
        runtime::sleep(STALL_LOOK).await;
        let idle = moved.idle(inner.now());
        let stall = {
            let mut queue = inner.queue.lock();
            if !queue.is_current(job) {
                return;
            }
            if idle < STALL_AFTER {
                queue.moves(job);
                continue;
            }
            queue.stall(job)
        };
        match stall {
            Stall::Stays => {}
            Stall::Parked => inner.wake(),
            Stall::InsteadOf(other) => {
                inner.give_up(&other);
                inner.wake();
            }
        }
    }
}

async fn unpin(inner: &Arc<Inner>, job: &Job) -> Result<Option<PinMode>> {
    let cid = Cid::try_from(job.key.as_slice())
        .map_err(|e| Error::corrupt(format!("a queued CID is damaged: {e}")))?;
    inner.ipfs.unpin(&cid).await?;
    Ok(None)
}

impl Inner {
    /// Ends a parked pin for the sake of one that was never tried.
    fn give_up(&self, job: &Job) {
        let words =
            "no provider found, or no progress, while other pins waited for their turn: it gave way to them \
                     and is tried again soon. Start or connect a node that has it";
        report(conclude(self, job, Err(Error::timeout(words))));
        let mut running = self.running.lock();
        if running.get(&job.key).is_some_and(|(ticket, _)| *ticket == job.ticket) {
            // Dropping the task cancels the call.
            running.remove(&job.key);
        }
    }
}

/// Writes the record of a job that ended, unless a newer operation replaced it meanwhile.
fn conclude(inner: &Inner, job: &Job, result: Result<Option<PinMode>>) -> Result<()> {
    if !inner.queue.lock().is_current(job) {
        return Ok(());
    }
    let failed = result.is_err();
    let written = match (job.op, result) {
        (Op::Pin, Ok(Some(mode))) => {
            inner.pinned.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let _ = inner.pinned_news.0.try_send(());
            inner.put_record(&job.key, Some(&Record::pinned(mode, Timestamp::now())))
        }
        // It left this peer before the job began. The record is still needed: the event that follows unpins by it.
        (Op::Pin, Ok(None)) => Ok(()),
        (Op::Unpin, Ok(_)) => inner.put_record(&job.key, None),
        (op, Err(error)) => {
            let achieved = if op == Op::Pin { Achieved::PinFailed } else { Achieved::UnpinFailed };
            log::warn!(target: "pintracker", "{}: attempt {} failed: {error}", name(&job.key), job.attempt);
            let record = Record::failed(achieved, Timestamp::now(), job.attempt, error.message());
            inner.put_record(&job.key, Some(&record))
        }
    };
    // Whether or not the disk took the record, the worker must be free again; what could not be written down counts
    // as not done.
    let now = inner.now();
    let mut queue = inner.queue.lock();
    if queue.finish(job) && (failed || written.is_err()) {
        queue.retry_later(job.key.clone(), job.attempt, now);
    }
    written
}

fn name(key: &[u8]) -> String {
    Cid::try_from(key).map_or_else(|_| "a damaged CID".into(), |c| c.to_string())
}

pub(super) fn report(result: Result<()>) {
    if let Err(error) = result {
        log::error!(target: "pintracker", "{error}");
    }
}
