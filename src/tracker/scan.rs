//! Scans of state and records: what finds everything that events, retries and the queue have lost.
//!
//! Two of them. [`catch_up`] looks for what no attempt has settled yet, at the start, after lost events, and
//! when the queue had no room; it stops as soon as there is no room and goes on from there the next time, so
//! that a million new pins cost two walks and not hundreds. What failed is left to its back-off: without
//! that, an IPFS that is down would be asked again and again as fast as it refuses. [`compare`] looks at everything,
//! failures included, and asks IPFS what it really has. Both work page by page: neither holds a blocking
//! thread, a read transaction or a lock for the length of a table.

use super::plan::{self, Record};
use super::queue::{Key, Offer};
use super::rows::{lock, Row, TableReader};
use super::runner::{start_jobs, Inner};
use crate::error::Result;
use crate::ipfs::{Ipfs, IpfsPin};
use crate::runtime;
use crate::state::PinMode;
use crate::store::Table;
use cid::Cid;
use futures::StreamExt;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Rows handled in one go on a blocking thread.
const PAGE: usize = 1_000;

/// What a scan queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// What has not been tried since it was last wanted; failures wait for their back-off.
    Unsettled,
    /// Whatever is not as it should be.
    Everything,
}

/// Where scans go on the next time.
#[derive(Debug, Default)]
pub(super) struct Spot {
    /// [`catch_up`] had no room after this key of this table.
    unsettled: Option<(Table, Option<Key>)>,
    /// [`compare`] had no room after this pin: the next one begins there, so that each failure has its turn.
    refused: Option<Key>,
}

/// What IPFS has pinned, eight bytes for each. A collision of two hashes can only hide a missing pin until the next
/// comparison, which hashes differently.
struct Held {
    hasher: RandomState,
    recursive: HashSet<u64>,
    direct: HashSet<u64>,
}

impl Held {
    async fn ask(ipfs: &dyn Ipfs) -> Result<Held> {
        let mut held = Held { hasher: RandomState::new(), recursive: HashSet::new(), direct: HashSet::new() };
        let mut pins = ipfs.list_pins().await?;
        while let Some(pin) = pins.next().await {
            let (cid, mode) = pin?;
            let hash = held.hasher.hash_one(cid.to_bytes());
            match mode {
                PinMode::Recursive => held.recursive.insert(hash),
                PinMode::Direct => held.direct.insert(hash),
            };
        }
        Ok(held)
    }

    fn state(&self, key: &[u8]) -> IpfsPin {
        let hash = self.hasher.hash_one(key);
        match () {
            () if self.recursive.contains(&hash) => IpfsPin::Recursive,
            () if self.direct.contains(&hash) => IpfsPin::Direct,
            () => IpfsPin::Unpinned,
        }
    }
}

/// What one page brought.
#[derive(Default)]
struct Page {
    /// The last key, to go on after; `None` at the end of the table.
    last: Option<Key>,
    /// Pins that were queued.
    queued: Vec<Row>,
    /// Records that IPFS's list contradicts.
    suspects: Vec<Key>,
    /// There was no room for the row after this key.
    full: Option<Option<Key>>,
}

impl Inner {
    /// One page of a table, from the row after `after` on. A scan for what is unsettled ends where there is no room.
    fn page(&self, table: Table, mut after: Option<Key>, scan: Scan, held: Option<&Held>) -> Result<Page> {
        let mut rows = TableReader::after(self.store.clone(), table, after.clone());
        let mut page = Page::default();
        for _ in 0..PAGE {
            let Some((key, value)) = rows.next_row()? else {
                page.last = None;
                return Ok(page);
            };
            let offer = match table {
                Table::Local => {
                    let record = Record::decode(&value)?;
                    if held.is_some_and(|h| !record.agrees(h.state(&key))) {
                        page.suspects.push(key.clone());
                    }
                    // What belongs here is found by its pin.
                    match self.pin(&key)?.is_some_and(|p| plan::is_here(&p, &self.me)) {
                        true => None,
                        false => self.requeue(&key, scan)?,
                    }
                }
                _ => {
                    let offer = self.requeue(&key, scan)?;
                    if offer == Some(Offer::Queued) {
                        page.queued.push(self.row_of(key.clone())?.0);
                    }
                    offer
                }
            };
            if offer == Some(Offer::Full) && page.full.is_none() {
                page.full = Some(after.clone());
                if scan == Scan::Unsettled {
                    return Ok(page);
                }
            }
            after = Some(key);
            page.last.clone_from(&after);
        }
        Ok(page)
    }
}

/// Queues what no attempt has settled, as far as there is room.
pub(super) async fn catch_up(inner: &Arc<Inner>) -> Result<()> {
    let begin = lock(&inner.spot).unsettled.take();
    let in_the_middle = begin.is_some();
    let (table, mut after) = begin.unwrap_or((Table::Local, None));
    let tables: &[Table] = if table == Table::Local { &[Table::Local, Table::Pins] } else { &[Table::Pins] };
    for table in tables.iter().copied() {
        loop {
            let (worker, from) = (inner.clone(), after.take());
            let page = runtime::unblock(move || worker.page(table, from, Scan::Unsettled, None)).await?;
            start_jobs(inner);
            if let Some(spot) = page.full {
                lock(&inner.spot).unsettled = Some((table, spot));
                // There may be room again by now.
                inner.wake();
                return Ok(());
            }
            after = page.last;
            if after.is_none() {
                break;
            }
        }
    }
    if in_the_middle {
        // What did not fit while this was under way may lie before where it began.
        lock(&inner.queue).ask_for_scan();
        inner.wake();
    }
    Ok(())
}

/// Compares state and records with what IPFS really has, and queues everything that is not as it should be. Each
/// pin that is queued is told to `found`.
pub(super) async fn compare(inner: &Arc<Inner>, found: Option<&async_channel::Sender<Row>>) -> Result<()> {
    let held = Arc::new(Held::ask(&*inner.ipfs).await?);
    let mut after = None;
    loop {
        let (worker, held) = (inner.clone(), held.clone());
        let page =
            runtime::unblock(move || worker.page(Table::Local, after, Scan::Everything, Some(&held))).await?;
        for key in page.suspects {
            confirm(inner, key).await?;
        }
        start_jobs(inner);
        after = page.last;
        if after.is_none() {
            break;
        }
    }
    // From where there was no room the last time to the end, then from the beginning to there; but whoever reads what
    // was found wants it in order.
    let refused = lock(&inner.spot).refused.take();
    let middle = refused.filter(|_| found.is_none());
    let mut ranges = vec![(middle.clone(), None)];
    if middle.is_some() {
        ranges.push((None, middle));
    }
    for (mut after, until) in ranges {
        loop {
            let (worker, from) = (inner.clone(), after);
            let page =
                runtime::unblock(move || worker.page(Table::Pins, from, Scan::Everything, None)).await?;
            if let Some(spot) = page.full {
                lock(&inner.spot).refused.get_or_insert(spot.unwrap_or_default());
            }
            start_jobs(inner);
            for row in page.queued {
                if let Some(found) = found {
                    let _ = found.send(row).await;
                }
            }
            after = page.last;
            if after.is_none() || until.is_some() && after > until {
                break;
            }
        }
    }
    Ok(())
}

/// The list is older than the record when a pin ended while it was read: asks again about this one CID.
async fn confirm(inner: &Arc<Inner>, key: Key) -> Result<()> {
    let Ok(cid) = Cid::try_from(key.as_slice()) else { return Ok(()) };
    let state = inner.ipfs.pin_state(&cid).await?;
    inner.mark_missing(&key, state)
}
