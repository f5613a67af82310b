//! Scans of state and records: what finds everything that events, retries and the queue have lost.
//!
//! Three of them. [`catch_up`] looks for what no attempt has settled yet, at the start, after lost events, every
//! `state_sync_interval`, and when the queue had no room; it stops as soon as there is no room and goes on from there
//! the next time, so that a million new pins cost two walks and not hundreds. What failed is left to its back-off:
//! without that, an IPFS that is down would be asked again and again as fast as it refuses. [`look`] asks IPFS what it
//! really has and corrects the records by it, no more. [`repair`] does the same and then queues whatever is not as it
//! should be, failures included. All work page by page: none holds a blocking thread, a read transaction or a lock for
//! the length of a table.

use super::plan::{self, Record};
use super::queue::{Key, Offer};
use super::rows::{Row, TableReader};
use super::runner::{start_jobs, Inner};
use super::status::Status;
use crate::error::Result;
use crate::ipfs::IpfsPin;
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
/// Questions about single CIDs that are asked at once.
const CONFIRM_AT_ONCE: usize = 8;
/// Listed pins that are looked up among the records in one go.
const LISTED_PAGE: usize = 1_000;

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
    /// [`repair`] had no room after this pin: the next one begins there, so that each failure has its turn.
    refused: Option<Key>,
}

/// What IPFS has pinned of what we have records of, eight bytes for each: what else it has may be any number of pins
/// of others, and is none of our business. A collision of two hashes can only hide a missing pin until the next
/// comparison, which hashes differently.
struct Held {
    hasher: RandomState,
    recursive: HashSet<u64>,
    direct: HashSet<u64>,
}

impl Held {
    async fn ask(inner: &Arc<Inner>) -> Result<Held> {
        // One list at a time: for a large repository it is the dearest question there is.
        let _turn = inner.listing.lock().await;
        let mut held = Held { hasher: RandomState::new(), recursive: HashSet::new(), direct: HashSet::new() };
        let mut pages = inner.ipfs.list_pins().await?.ready_chunks(LISTED_PAGE);
        while let Some(page) = pages.next().await {
            let page = page.into_iter().collect::<Result<Vec<_>>>()?;
            let worker = inner.clone();
            held = runtime::unblock(move || held.take(&worker, page)).await?;
        }
        Ok(held)
    }

    fn take(mut self, inner: &Inner, page: Vec<(Cid, PinMode)>) -> Result<Held> {
        for (cid, mode) in page {
            let key = cid.to_bytes();
            if inner.store.get(Table::Local, &key)?.is_some() {
                let hash = self.hasher.hash_one(&key);
                match mode {
                    PinMode::Recursive => self.recursive.insert(hash),
                    PinMode::Direct => self.direct.insert(hash),
                };
            }
        }
        Ok(self)
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
    /// Records that IPFS's list contradicts, and those in error, in order.
    suspects: Vec<Suspect>,
    /// There was no room for the row after this key.
    full: Option<Option<Key>>,
}

/// A record that is worth a look.
struct Suspect {
    key: Key,
    /// IPFS's list contradicts it; otherwise it is only in error.
    contradicted: bool,
}

impl Inner {
    /// One page of the records, from the one after `after` on: those that IPFS's list contradicts, and those in error.
    fn suspects(&self, mut after: Option<Key>, held: &Held) -> Result<Page> {
        let mut rows = TableReader::after(self.store.clone(), Table::Local, after.clone());
        let mut page = Page::default();
        for _ in 0..PAGE {
            let Some((key, value)) = rows.next_row()? else {
                page.last = None;
                return Ok(page);
            };
            let (record, pin) = (Record::decode(&key, &value)?, self.pin(&key)?);
            let contradicted =
                plan::correct(pin.as_ref(), &self.me, Some(&record), held.state(&key)).is_some();
            if contradicted || !record.is_held() {
                page.suspects.push(Suspect { key: key.clone(), contradicted });
            }
            after = Some(key);
            page.last.clone_from(&after);
        }
        Ok(page)
    }

    /// One page of a table, from the row after `after` on. A scan for what is unsettled ends where there is no room.
    fn page(&self, table: Table, mut after: Option<Key>, scan: Scan) -> Result<Page> {
        let mut rows = TableReader::after(self.store.clone(), table, after.clone());
        let mut page = Page::default();
        for _ in 0..PAGE {
            let Some((key, _)) = rows.next_row()? else {
                page.last = None;
                return Ok(page);
            };
            let offer = match table {
                Table::Local => {
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
    let begin = inner.spot.lock().unsettled.take();
    let in_the_middle = begin.is_some();
    let (table, mut after) = begin.unwrap_or((Table::Local, None));
    let tables: &[Table] = if table == Table::Local { &[Table::Local, Table::Pins] } else { &[Table::Pins] };
    for table in tables.iter().copied() {
        loop {
            let (worker, from) = (inner.clone(), after.take());
            let page = runtime::unblock(move || worker.page(table, from, Scan::Unsettled)).await?;
            start_jobs(inner);
            if let Some(spot) = page.full {
                inner.spot.lock().unsettled = Some((table, spot));
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
        inner.queue.lock().ask_for_scan();
        inner.wake();
    }
    Ok(())
}

/// Compares the records with what IPFS really has, and corrects them. Those that were corrected, and those in error,
/// are told to `found` in order; when it is closed, the comparison ends.
pub(super) async fn look(inner: &Arc<Inner>, found: Option<&async_channel::Sender<Row>>) -> Result<()> {
    let held = Arc::new(Held::ask(inner).await?);
    let (mut after, mut missing) = (None, 0u64);
    loop {
        let (worker, held) = (inner.clone(), held.clone());
        let page = runtime::unblock(move || worker.suspects(after, &held)).await?;
        let looks = page.suspects.into_iter().map(|suspect| confirm(inner, suspect));
        let mut looks = futures::stream::iter(looks).buffered(CONFIRM_AT_ONCE);
        while let Some(looked) = looks.next().await {
            let Some((row, corrected)) = looked? else { continue };
            missing += u64::from(corrected && row.status == Status::UnexpectedlyUnpinned);
            if let Some(found) = found {
                if found.send(row).await.is_err() {
                    return Ok(());
                }
            }
        }
        after = page.last;
        if after.is_none() {
            if missing > 0 {
                log::warn!(target: "pintracker", "not pinned in IPFS any more: {missing} pin(s) of ours");
            }
            return Ok(());
        }
    }
}

/// Looks, and then queues everything that is not as it should be. Each pin that is queued is told to `found`.
pub(super) async fn repair(inner: &Arc<Inner>, found: Option<&async_channel::Sender<Row>>) -> Result<()> {
    look(inner, None).await?;
    let mut after = None;
    loop {
        let worker = inner.clone();
        let page = runtime::unblock(move || worker.page(Table::Local, after, Scan::Everything)).await?;
        start_jobs(inner);
        after = page.last;
        if after.is_none() {
            break;
        }
    }
    // From where there was no room the last time to the end, then from the beginning to there; but whoever reads what
    // was found wants it in order.
    let refused = inner.spot.lock().refused.take();
    let middle = refused.filter(|_| found.is_none());
    let mut ranges = vec![(middle.clone(), None)];
    if middle.is_some() {
        ranges.push((None, middle));
    }
    for (mut after, until) in ranges {
        loop {
            let (worker, from) = (inner.clone(), after);
            let page = runtime::unblock(move || worker.page(Table::Pins, from, Scan::Everything)).await?;
            if let Some(spot) = page.full {
                inner.spot.lock().refused.get_or_insert(spot.unwrap_or_default());
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

/// The list is older than the record when a pin ended while it was read: asks again about this one CID. Its row, if it
/// was corrected (and whether it was) or is in error.
async fn confirm(inner: &Arc<Inner>, suspect: Suspect) -> Result<Option<(Row, bool)>> {
    let Suspect { key, contradicted } = suspect;
    let Ok(cid) = Cid::try_from(key.as_slice()) else { return Ok(None) };
    let mut corrected = false;
    if contradicted {
        let state = inner.ipfs.pin_state(&cid).await?;
        corrected = inner.correct(&key, state)?;
    }
    let (row, _) = inner.row_of(key)?;
    let in_error = row.status.is_error() || row.status == Status::UnexpectedlyUnpinned;
    Ok((corrected || in_error).then_some((row, corrected)))
}
