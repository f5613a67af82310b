//! The runner on a state in memory and an IPFS node that does as it is told.

use super::plan::{Achieved, Record};
use super::queue::{MAX_QUEUED, RETRY_FIRST_MS};
use super::*;
use crate::clock::Timestamp;
use crate::ipfs::scripted::Scripted;
use crate::runtime::{self, block_on};
use crate::state::{Event, Pin, PinMode};
use crate::store::memory::MemoryState;
use crate::store::{StateStore, Table, WriteBatch};
use cid::Cid;
use libp2p::PeerId;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A condition must hold within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// One peer's tracker and the world around it.
struct Bench {
    me: PeerId,
    store: MemoryState,
    ipfs: Scripted,
    tracker: Tracker,
    events: async_channel::Sender<Event>,
}

fn config() -> TrackerConfig {
    TrackerConfig {
        concurrent_pins: 3,
        priority_max_age: Duration::from_secs(24 * 3600),
        priority_max_retries: 5,
        max_queued: MAX_QUEUED,
        recover_interval: Duration::from_secs(24 * 3600),
        ipfs_sync_interval: Duration::ZERO,
        state_sync_interval: Duration::from_secs(24 * 3600),
    }
}

fn cid(n: u32) -> Cid {
    let hash = multihash::Multihash::wrap(0x00, &n.to_be_bytes()).expect("four bytes");
    Cid::new_v1(0x55, hash)
}

fn start(
    me: PeerId,
    config: TrackerConfig,
    store: &MemoryState,
    ipfs: &Scripted,
) -> (Tracker, async_channel::Sender<Event>) {
    let (sender, events) = async_channel::unbounded();
    let store: Arc<dyn StateStore> = Arc::new(store.clone());
    let tracker = Tracker::start(me, config, Arc::new(ipfs.clone()), store, events);
    (tracker, sender)
}

impl Bench {
    fn new(config: TrackerConfig) -> Bench {
        let (me, store, ipfs) = (PeerId::random(), MemoryState::new(), Scripted::default());
        let (tracker, events) = start(me, config, &store, &ipfs);
        Bench { me, store, ipfs, tracker, events }
    }

    /// Stops the tracker and starts another one on the same store.
    fn restart(&mut self) {
        block_on(self.tracker.stop());
        (self.tracker, self.events) = start(self.me, config(), &self.store, &self.ipfs);
    }

    fn put(&self, key: Vec<u8>, table: Table, value: Option<Vec<u8>>) {
        let batch = WriteBatch { writes: vec![(table, key, value)], applied: None };
        self.store.write(batch).expect("written");
    }

    /// Pins as the state machine does: the state first, then the event.
    fn pin(&self, n: u32, mode: PinMode) -> Pin {
        let pin = self.pin_unseen(n, mode);
        self.events.try_send(Event::Pinned(Arc::new(pin.clone()))).expect("followed");
        pin
    }

    /// Into the state without an event.
    fn pin_unseen(&self, n: u32, mode: PinMode) -> Pin {
        let pin = Pin { mode, ..Pin::new(cid(n), Timestamp::now()) };
        self.put(pin.cid.to_bytes(), Table::Pins, Some(pin.encode()));
        pin
    }

    fn unpin(&self, n: u32) {
        self.put(cid(n).to_bytes(), Table::Pins, None);
        let pin = Pin::new(cid(n), Timestamp::now());
        self.events.try_send(Event::Unpinned(Arc::new(pin))).expect("followed");
    }

    fn record(&self, n: u32) -> Option<Record> {
        let bytes = self.store.get(Table::Local, &cid(n).to_bytes()).expect("read")?;
        Some(Record::decode(&cid(n).to_bytes(), &bytes).expect("a record"))
    }

    fn row(&self, n: u32) -> Row {
        block_on(self.tracker.status(&cid(n))).expect("status")
    }

    fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn wait_status(&self, n: u32, status: Status) -> Row {
        self.wait(&format!("{n} {status}"), || self.row(n).status == status);
        self.row(n)
    }

    /// Lets time pass.
    fn skip(&self, ms: u64) {
        self.tracker.inner.skipped.fetch_add(ms, Ordering::Relaxed);
        self.tracker.inner.wake();
    }

    fn recover_all(&self) -> Vec<Row> {
        block_on(async {
            let (sender, found) = async_channel::bounded(1);
            let tracker = self.tracker.clone();
            let work = runtime::spawn(async move { tracker.recover_all(sender).await });
            let mut rows = Vec::new();
            while let Ok(row) = found.recv().await {
                rows.push(row);
            }
            work.await.expect("recover");
            rows
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        block_on(self.tracker.stop());
    }
}

#[test]
fn pins_and_unpins_reach_ipfs_in_both_modes() {
    let bench = Bench::new(config());
    for (n, mode) in [(1, PinMode::Recursive), (2, PinMode::Direct)] {
        bench.pin(n, mode);
        bench.wait_status(n, Status::Pinned);
        assert_eq!(bench.ipfs.script().pins.get(&cid(n)), Some(&mode));
        bench.unpin(n);
        bench.wait_status(n, Status::Unpinned);
        assert!(bench.ipfs.script().pins.is_empty());
        assert_eq!(bench.record(n), None);
    }
    assert_eq!(bench.row(3).status, Status::Unpinned);
}

#[test]
fn a_failure_is_tried_again_with_back_off() {
    let bench = Bench::new(config());
    bench.ipfs.script().failing.insert(cid(1));
    bench.pin(1, PinMode::Recursive);
    let row = bench.wait_status(1, Status::PinError);
    assert_eq!(row.attempts, 1);
    assert!(row.error.contains("nobody has"), "{}", row.error);
    // Not before its time.
    bench.skip(RETRY_FIRST_MS / 2);
    assert_eq!(bench.row(1).attempts, 1);
    bench.skip(RETRY_FIRST_MS / 2);
    bench
        .wait("the second attempt", || bench.row(1).attempts == 2 && bench.row(1).status == Status::PinError);
    // Twice as long after the second.
    bench.ipfs.script().failing.clear();
    bench.skip(RETRY_FIRST_MS);
    assert_eq!(bench.row(1).status, Status::PinError);
    bench.skip(RETRY_FIRST_MS);
    bench.wait_status(1, Status::Pinned);
    assert_eq!(bench.record(1).expect("record").attempts, 0);
}

#[test]
fn a_newer_operation_cancels_the_running_one() {
    let bench = Bench::new(TrackerConfig { concurrent_pins: 1, ..config() });
    bench.ipfs.script().hanging.insert(cid(1));
    bench.pin(1, PinMode::Recursive);
    bench.wait_status(1, Status::Pinning);
    bench.wait("the pin in IPFS", || bench.ipfs.script().running == 1);
    bench.unpin(1);
    bench.wait_status(1, Status::Unpinned);
    bench.wait("the end of the pin", || bench.ipfs.script().running == 0);
    assert!(bench.ipfs.script().cancelled.contains(&cid(1)));
    // It may have gone through at the last moment, so it is unpinned for certain.
    assert_eq!(bench.ipfs.script().ended, [format!("unpin {}", cid(1))]);
    // The only worker is free again.
    bench.pin(2, PinMode::Recursive);
    bench.wait_status(2, Status::Pinned);
}

#[test]
fn pinning_again_and_again_never_loses_a_worker() {
    let bench = Bench::new(TrackerConfig { concurrent_pins: 2, ..config() });
    for _ in 0..300 {
        for n in 0..4 {
            bench.pin(n, PinMode::Recursive);
        }
        std::thread::yield_now();
    }
    for n in 0..4 {
        bench.wait_status(n, Status::Pinned);
    }
    bench.pin(9, PinMode::Recursive);
    bench.wait_status(9, Status::Pinned);
    assert!(bench.ipfs.script().most_running <= 2 + 4, "{}", bench.ipfs.script().most_running);
}

#[test]
fn an_unpin_after_a_repeated_pin_reaches_ipfs() {
    let bench = Bench::new(TrackerConfig { concurrent_pins: 1, ..config() });
    bench.pin(1, PinMode::Recursive);
    bench.wait_status(1, Status::Pinned);
    // The only worker is busy, so the repeated pin waits.
    bench.ipfs.script().hanging.insert(cid(2));
    bench.pin(2, PinMode::Recursive);
    bench.wait_status(2, Status::Pinning);
    bench.pin(1, PinMode::Recursive);
    bench.wait_status(1, Status::PinQueued);
    bench.unpin(1);
    bench.wait_status(1, Status::Unpinned);
    assert!(bench.ipfs.script().pins.is_empty(), "what was pinned before the repetition is not forgotten");
}

#[test]
fn what_was_never_pinned_here_is_never_unpinned() {
    let bench = Bench::new(TrackerConfig { concurrent_pins: 1, ..config() });
    // Somebody has it in IPFS, and our pin of it has not begun.
    bench.ipfs.script().pins.insert(cid(1), PinMode::Recursive);
    bench.ipfs.script().hanging.insert(cid(2));
    bench.pin(2, PinMode::Recursive);
    bench.wait_status(2, Status::Pinning);
    bench.pin(1, PinMode::Recursive);
    bench.wait_status(1, Status::PinQueued);
    bench.unpin(1);
    bench.wait_status(1, Status::Unpinned);
    bench.ipfs.script().hanging.clear();
    bench.wait_status(2, Status::Pinned);
    assert!(bench.ipfs.script().pins.contains_key(&cid(1)));
    assert!(bench.recover_all().is_empty());
    assert!(bench.ipfs.script().pins.contains_key(&cid(1)));
}

#[test]
fn a_restart_keeps_errors_and_goes_on_with_the_rest() {
    let mut bench = Bench::new(config());
    bench.ipfs.script().failing.insert(cid(1));
    bench.ipfs.script().hanging.insert(cid(2));
    bench.pin(1, PinMode::Recursive);
    bench.wait_status(1, Status::PinError);
    bench.pin(2, PinMode::Recursive);
    bench.wait_status(2, Status::Pinning);
    block_on(bench.tracker.stop());
    bench.pin_unseen(3, PinMode::Recursive);
    bench.ipfs.script().hanging.clear();
    bench.ipfs.script().down = true;
    bench.restart();
    bench.wait_status(2, Status::PinError);
    bench.wait_status(3, Status::PinError);
    let row = bench.row(1);
    assert_eq!((row.status, row.attempts), (Status::PinError, 1));
    assert!(row.error.contains("nobody has"), "{}", row.error);
    // Asked by hand, everything is tried again.
    bench.ipfs.script().down = false;
    bench.ipfs.script().failing.clear();
    assert_eq!(bench.recover_all().len(), 3);
    for n in 1..=3 {
        bench.wait_status(n, Status::Pinned);
    }
}

#[test]
fn a_pin_that_ipfs_lost_is_noticed_and_repaired() {
    let bench = Bench::new(config());
    for n in 1..=4 {
        bench.pin(n, if n == 2 { PinMode::Direct } else { PinMode::Recursive });
        bench.wait_status(n, Status::Pinned);
    }
    {
        let mut script = bench.ipfs.script();
        script.pins.remove(&cid(1));
        script.pins.remove(&cid(2));
        // Only the one block is protected now.
        script.pins.insert(cid(3), PinMode::Direct);
    }
    for n in 1..=3 {
        let row = bench.row(n);
        assert_eq!(row.status, Status::UnexpectedlyUnpinned, "{n}");
        assert!(!row.error.is_empty());
    }
    assert_eq!(bench.row(4).status, Status::Pinned);
    let recovered = block_on(bench.tracker.recover(&cid(1))).expect("recover");
    assert!(
        [Status::PinQueued, Status::Pinning, Status::Pinned].contains(&recovered.status),
        "{recovered:?}"
    );
    bench.wait_status(1, Status::Pinned);
    // The comparison finds the others, and one that nobody has looked at.
    bench.ipfs.script().pins.remove(&cid(4));
    assert_eq!(bench.recover_all().len(), 3);
    for n in 1..=4 {
        bench.wait_status(n, Status::Pinned);
    }
    assert_eq!(bench.ipfs.script().pins.len(), 4);
    assert!(bench.recover_all().is_empty(), "nothing is left to do");
}

#[test]
fn no_more_pins_run_than_are_allowed() {
    let bench = Bench::new(config());
    for n in 0..20 {
        bench.ipfs.script().hanging.insert(cid(n));
        bench.pin(n, PinMode::Recursive);
    }
    bench.wait("three running pins", || bench.ipfs.script().running == 3);
    bench.wait("the others waiting", || bench.tracker.waiting_pins() == 17);
    bench.ipfs.script().hanging.clear();
    for n in 0..20 {
        bench.wait_status(n, Status::Pinned);
    }
    assert_eq!(bench.ipfs.script().most_running, 3);
}

#[test]
fn what_does_not_fit_into_the_queue_is_found_by_scans() {
    let bench = Bench::new(TrackerConfig { concurrent_pins: 64, ..config() });
    let many = MAX_QUEUED as u32 * 2 + 500;
    bench.ipfs.script().hanging.insert(cid(0));
    for n in 0..many {
        bench.pin(n, PinMode::Recursive);
    }
    bench.wait("all pins", || bench.ipfs.script().pins.len() as u32 == many - 1);
    bench.ipfs.script().hanging.clear();
    bench.wait("the last one", || bench.ipfs.script().pins.len() as u32 == many);
    let once = bench.ipfs.script().ended.len() as u32;
    assert!(once <= many + many / 10, "{once} jobs for {many} pins");
    // And back.
    for n in 0..many {
        bench.unpin(n);
    }
    bench.wait("all unpins", || bench.ipfs.script().pins.is_empty());
    bench.wait("no records", || bench.store.count(Table::Local) == 0);
}

#[test]
fn an_ipfs_that_is_down_is_not_asked_in_circles() {
    let bench = Bench::new(TrackerConfig { concurrent_pins: 64, ..config() });
    let many = MAX_QUEUED as u32 + 5_000;
    bench.ipfs.script().down = true;
    for n in 0..many {
        bench.pin(n, PinMode::Recursive);
    }
    let rows = || {
        let (mut failed, mut reader) =
            (0, bench.tracker.rows(StatusFilter::parse("pin_error").expect("filter")));
        while let Some(page) = reader.next_page(500).expect("rows") {
            failed += page.len() as u32;
            assert!(page.iter().all(|row| row.attempts == 1), "each is tried once before its back-off ends");
        }
        failed
    };
    bench.wait("all failed", || rows() == many);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(rows(), many);
    // What failed leaves room for what is new.
    bench.skip(RETRY_FIRST_MS);
    bench.ipfs.script().down = false;
    bench.pin(many, PinMode::Recursive);
    bench.wait_status(many, Status::Pinned);
}

#[test]
fn a_disk_that_refuses_the_record_costs_no_worker() {
    let bench = Bench::new(TrackerConfig { concurrent_pins: 1, ..config() });
    bench.ipfs.script().hanging.insert(cid(1));
    bench.pin(1, PinMode::Recursive);
    bench.pin_unseen(2, PinMode::Recursive);
    bench.wait("the pin in IPFS", || bench.ipfs.script().running == 1);
    bench.store.set_failing(true);
    bench.ipfs.script().hanging.clear();
    bench.wait("the end of the job", || bench.ipfs.script().pins.contains_key(&cid(1)));
    bench.wait("the worker", || bench.tracker.inner.queue.lock().is_empty());
    assert_eq!(bench.record(1), None);
    bench.store.set_failing(false);
    bench.skip(RETRY_FIRST_MS);
    bench.wait_status(1, Status::Pinned);
    assert_eq!(bench.record(1).expect("record").achieved, Achieved::Recursive);
}

#[test]
fn lost_events_are_made_up_for() {
    let bench = Bench::new(config());
    bench.pin(1, PinMode::Recursive);
    bench.wait_status(1, Status::Pinned);
    bench.pin_unseen(2, PinMode::Direct);
    bench.put(cid(1).to_bytes(), Table::Pins, None);
    bench.events.try_send(Event::Replaced).expect("followed");
    bench.wait_status(2, Status::Pinned);
    bench.wait_status(1, Status::Unpinned);
    assert_eq!(bench.ipfs.script().pins.len(), 1);
}

#[test]
fn a_job_whose_pin_has_left_meanwhile_keeps_the_record_for_the_unpin() {
    let bench = Bench::new(TrackerConfig { concurrent_pins: 1, ..config() });
    bench.pin(1, PinMode::Recursive);
    bench.wait_status(1, Status::Pinned);
    bench.ipfs.script().hanging.insert(cid(2));
    bench.pin(2, PinMode::Recursive);
    bench.wait_status(2, Status::Pinning);
    bench.pin(1, PinMode::Recursive);
    bench.wait_status(1, Status::PinQueued);
    // The state is ahead of the events: the job begins before the unpin is heard of.
    bench.put(cid(1).to_bytes(), Table::Pins, None);
    bench.ipfs.script().hanging.clear();
    bench.wait("the end of the jobs", || bench.tracker.inner.queue.lock().is_empty());
    bench.unpin(1);
    bench.wait_status(1, Status::Unpinned);
    assert!(!bench.ipfs.script().pins.contains_key(&cid(1)));
}

/// What a comparison tells.
fn sync_all(bench: &Bench) -> Vec<Row> {
    block_on(async {
        let (sender, found) = async_channel::bounded(1);
        let tracker = bench.tracker.clone();
        let work = runtime::spawn(async move { tracker.sync_all(sender).await });
        let mut rows = Vec::new();
        while let Ok(row) = found.recv().await {
            rows.push(row);
        }
        work.await.expect("sync");
        rows
    })
}

#[test]
fn a_comparison_corrects_records_both_ways_and_queues_nothing() {
    let bench = Bench::new(config());
    bench.ipfs.script().failing.insert(cid(2));
    for n in 1..=3 {
        bench.pin(n, PinMode::Recursive);
        bench.wait_status(n, if n == 2 { Status::PinError } else { Status::Pinned });
    }
    {
        let mut script = bench.ipfs.script();
        script.pins.remove(&cid(1));
        script.pins.insert(cid(2), PinMode::Recursive);
        // Others' pins are none of our business, however many.
        script.pins.extend((100..3_000).map(|n| (cid(n), PinMode::Recursive)));
    }
    let told: Vec<_> = sync_all(&bench).into_iter().map(|row| (row.key, row.status)).collect();
    assert_eq!(
        told,
        [(cid(1).to_bytes(), Status::UnexpectedlyUnpinned), (cid(2).to_bytes(), Status::Pinned)]
    );
    assert!(!bench.ipfs.script().pins.contains_key(&cid(1)));
    // What is in error stays in the answer, what was put right does not.
    assert_eq!(sync_all(&bench).len(), 1);
    // What is missing is for a recover to repair, not for a comparison of state and records.
    bench.events.try_send(Event::Replaced).expect("followed");
    bench.pin(4, PinMode::Recursive);
    bench.wait_status(4, Status::Pinned);
    assert_eq!(bench.row(1).status, Status::UnexpectedlyUnpinned);
    assert_eq!(bench.recover_all().len(), 1);
    bench.wait_status(1, Status::Pinned);
    bench.ipfs.script().down = true;
    assert!(block_on(bench.tracker.sync(&cid(1))).is_err(), "what IPFS has now cannot be told");
    assert_eq!(bench.row(1).status, Status::Pinned, "and a status answers from the record");
}

#[test]
fn pins_without_progress_run_beside_the_workers_while_others_wait() {
    let bench = Bench::new(TrackerConfig { concurrent_pins: 1, ..config() });
    bench.ipfs.script().hanging.extend((1..=2).map(cid));
    for n in 1..=2 {
        bench.pin(n, PinMode::Recursive);
    }
    bench.pin(3, PinMode::Recursive);
    bench.wait("the only worker at work", || bench.ipfs.script().running == 1);
    assert_eq!(bench.row(3).status, Status::PinQueued);
    bench.skip(60_000);
    bench.wait("the second one beside the first", || bench.ipfs.script().running == 2);
    bench.skip(60_000);
    bench.wait_status(3, Status::Pinned);
    for n in 1..=2 {
        assert_eq!(bench.row(n).status, Status::Pinning, "it has not given up");
    }
    bench.ipfs.script().hanging.clear();
    for n in 1..=2 {
        bench.wait_status(n, Status::Pinned);
    }
}

#[test]
fn an_ipfs_that_comes_back_is_made_up_with_at_once() {
    let bench = Bench::new(config());
    bench.pin(1, PinMode::Recursive);
    bench.wait_status(1, Status::Pinned);
    bench.ipfs.script().down = true;
    bench.pin(2, PinMode::Recursive);
    bench.wait_status(2, Status::PinError);
    // Past the moment of the first comparison, which failed.
    std::thread::sleep(Duration::from_secs(3));
    bench.ipfs.script().pins.clear();
    bench.ipfs.script().down = false;
    // No time is skipped here: neither back-off nor interval would have brought them by now.
    for n in 1..=2 {
        bench.wait(&format!("{n} again"), || bench.ipfs.script().pins.contains_key(&cid(n)));
    }
}
