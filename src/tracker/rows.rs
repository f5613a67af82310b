//! Statuses of this peer, row by row in key order, at constant memory.
//!
//! The rows of a peer are a merge of two sorted tables (pins, local records) and the queue. Every peer
//! sends its rows in the same order, so that a global status is a merge of streams and never a map.

use super::plan::{self, Record};
use super::queue::{Op, Pending, Queue};
use super::status::{Status, StatusFilter};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::ipfs::{Away, Ipfs};
use crate::state::Pin;
use crate::store::{StateStore, Table};
use libp2p::PeerId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Rows read from a table in one short read transaction.
const PAGE: usize = 1_000;
/// Rows looked at for one page: a filter that nothing passes must neither hold a blocking thread for the length
/// of a whole table, nor leave the asking peer without a sign of life.
const LOOKS_PER_PAGE: usize = 20_000;

/// One status of one peer, as it travels between peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// CID bytes.
    pub key: Vec<u8>,
    /// Status.
    pub status: Status,
    /// Since when.
    pub at: Timestamp,
    /// Why, for errors.
    pub error: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Whether it is in the priority line.
    pub priority: bool,
}

/// Reads a table in key order, a page at a time. All calls block.
pub struct TableReader {
    store: Arc<dyn StateStore>,
    table: Table,
    page: VecDeque<(Vec<u8>, Vec<u8>)>,
    last: Option<Vec<u8>>,
    done: bool,
}

impl TableReader {
    /// From the first key.
    pub fn new(store: Arc<dyn StateStore>, table: Table) -> Self {
        TableReader::after(store, table, None)
    }

    /// From the first key after this one.
    pub fn after(store: Arc<dyn StateStore>, table: Table, last: Option<Vec<u8>>) -> Self {
        TableReader { store, table, page: VecDeque::new(), last, done: false }
    }

    /// The next row without taking it.
    pub fn peek(&mut self) -> Result<Option<&(Vec<u8>, Vec<u8>)>> {
        if self.page.is_empty() && !self.done {
            let rows = self.store.scan(self.table, self.last.as_deref(), PAGE)?;
            self.done = rows.len() < PAGE;
            if let Some((key, _)) = rows.last() {
                self.last = Some(key.clone());
            }
            self.page = rows.into();
        }
        Ok(self.page.front())
    }

    /// Takes the next row.
    pub fn next_row(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.peek()?;
        Ok(self.page.pop_front())
    }
}

/// This peer's rows in key order.
pub struct RowReader {
    me: PeerId,
    pins: TableReader,
    records: TableReader,
    queue: Arc<Mutex<Queue>>,
    filter: StatusFilter,
    ipfs: Arc<dyn Ipfs>,
}

impl RowReader {
    pub(super) fn new(
        me: PeerId,
        store: Arc<dyn StateStore>,
        queue: Arc<Mutex<Queue>>,
        filter: StatusFilter,
        ipfs: Arc<dyn Ipfs>,
    ) -> Self {
        RowReader {
            me,
            ipfs,
            pins: TableReader::new(store.clone(), Table::Pins),
            records: TableReader::new(store, Table::Local),
            queue,
            filter,
        }
    }

    /// At most `limit` rows that pass the filter, fewer or none when few pass ([`LOOKS_PER_PAGE`]); `None` at the
    /// end. Rows of pins that other peers hold are left out: the asking peer knows them from the state.
    pub fn next_page(&mut self, limit: usize) -> Result<Option<Vec<Row>>> {
        let mut rows = Vec::new();
        let mut looks = 0;
        let away = self.ipfs.away();
        while rows.len() < limit && looks < LOOKS_PER_PAGE {
            looks += 1;
            let pin_key = self.pins.peek()?.map(|(k, _)| k.clone());
            let record_key = self.records.peek()?.map(|(k, _)| k.clone());
            let Some(key) = [&pin_key, &record_key].into_iter().flatten().min().cloned() else {
                return Ok((!rows.is_empty()).then_some(rows));
            };
            let pin = match pin_key {
                Some(k) if k == key => self.pins.next_row()?.map(|(_, v)| Pin::decode(&v)).transpose()?,
                _ => None,
            };
            let record = match record_key {
                Some(k) if k == key => {
                    self.records.next_row()?.map(|(k, v)| Record::decode(&k, &v)).transpose()?
                }
                _ => None,
            };
            let pending = self.queue.lock().get(&key).copied();
            let row = row(key, pin.as_ref(), &self.me, record.as_ref(), pending.as_ref());
            let row = row.while_away(away.as_ref());
            if row.status != Status::Remote && self.filter.matches(row.status) {
                rows.push(row);
            }
        }
        Ok(Some(rows))
    }
}

impl Row {
    /// The same while the node and all that it holds are out of reach: nothing is pinned that cannot be read, and why
    /// it cannot is the node's cause. What is recorded stays as it is.
    pub(super) fn while_away(mut self, away: Option<&Away>) -> Row {
        if let Some(away) = away {
            use Status::{PinError, PinQueued, Pinned, Pinning, UnexpectedlyUnpinned};
            if matches!(self.status, Pinned | Pinning | PinQueued | PinError | UnexpectedlyUnpinned) {
                (self.status, self.error) = (PinError, away.cause.clone());
            }
        }
        self
    }
}

/// The status of one CID here.
pub(super) fn row(
    key: Vec<u8>,
    pin: Option<&Pin>,
    me: &PeerId,
    record: Option<&Record>,
    pending: Option<&Pending>,
) -> Row {
    let settled = plan::settled_status(pin, me, record);
    let status = match pending {
        Some(Pending { op: Op::Pin, running: true, .. }) => Status::Pinning,
        Some(Pending { op: Op::Pin, .. }) => Status::PinQueued,
        Some(Pending { op: Op::Unpin, running: true, .. }) => Status::Unpinning,
        Some(Pending { op: Op::Unpin, .. }) => Status::UnpinQueued,
        None => settled,
    };
    let at = match (status, pin, record) {
        (Status::Pinned, Some(pin), _) => pin.timestamp,
        (_, _, Some(r)) if pending.is_none() => r.at,
        (Status::PinQueued | Status::Pinning, Some(pin), _) => pin.timestamp,
        _ => Timestamp::now(),
    };
    Row {
        key,
        status,
        at,
        error: record.filter(|_| status.is_error()).map(|r| r.error.clone()).unwrap_or_else(
            || match status {
                Status::UnexpectedlyUnpinned => "the item should be pinned but it is not".into(),
                _ => String::new(),
            },
        ),
        attempts: pending.map(|p| p.attempt).or(record.map(|r| r.attempts)).unwrap_or(0),
        priority: pending.is_some_and(|p| p.priority),
    }
}
