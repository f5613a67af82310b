//! Reading the pins: one, a page, all of them.
//!
//! [`Pins`] is a cheap handle over the store that anybody may keep. Reads are local and short: a list is
//! read by pages of [`PAGE`] rows, each in a read transaction of its own, so a slow client never holds one.
//! A list taken while pins change shows each pin as it was at some moment of the reading, in key order,
//! none twice. It must never: hold all pins in memory, or block the executor (`stream` goes through
//! `runtime::unblock`).

use super::pin::Pin;
use crate::error::{Context as _, Error, Result};
use crate::runtime;
use crate::store::{StateStore, Table};
use cid::Cid;
use futures::stream::{self, BoxStream, StreamExt as _};
use std::collections::VecDeque;
use std::sync::Arc;

/// Rows per read transaction.
pub const PAGE: usize = 1_000;

/// The pin, if it is the one of this key: the database's pages carry no checksums.
fn named(pin: Pin, key: &[u8]) -> Result<Pin> {
    if pin.cid.to_bytes() == key {
        return Ok(pin);
    }
    Err(Error::corrupt(format!(
        "the record of pin {} lies under another one's name: the state on this disk is damaged; `pinfold state check` says what to do",
        pin.cid
    )))
}

/// A reader of the pins.
#[derive(Clone)]
pub struct Pins {
    store: Arc<dyn StateStore>,
}

impl Pins {
    /// A reader over this store.
    pub fn new(store: Arc<dyn StateStore>) -> Self {
        Pins { store }
    }

    /// One pin, `None` when it is not part of the pinset.
    ///
    /// # Errors
    /// When the disk fails or the record is damaged.
    pub fn get(&self, cid: &Cid) -> Result<Option<Pin>> {
        let record = self.store.get(Table::Pins, &cid.to_bytes())?;
        record
            .map(|bytes| Pin::decode(&bytes).and_then(|pin| named(pin, &cid.to_bytes())).context(cid))
            .transpose()
    }

    /// At most `limit` pins after `after` (`None`: from the start), in key order.
    ///
    /// # Errors
    /// When the disk fails or a record is damaged.
    pub fn page(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Pin>> {
        let after = after.map(Cid::to_bytes);
        let rows = self.store.scan(Table::Pins, after.as_deref(), limit)?;
        rows.iter().map(|(key, record)| named(Pin::decode(record)?, key)).collect()
    }

    /// How many there are, without touching the disk.
    pub fn count(&self) -> u64 {
        self.store.count(Table::Pins)
    }

    /// All pins, read page by page as the iterator advances. Blocks: not for the executor.
    pub fn iter(&self) -> Iter {
        Iter { pins: self.clone(), page: VecDeque::new(), after: None, done: false }
    }

    /// All pins for asynchronous code; each page is read on the blocking pool when it is wanted.
    pub fn stream(&self) -> BoxStream<'static, Result<Pin>> {
        let pages = stream::unfold(Some((self.clone(), None)), |state| async move {
            let (pins, after) = state?;
            let reader = pins.clone();
            match runtime::unblock(move || reader.page(after.as_ref(), PAGE)).await {
                Ok(page) => {
                    let next = page.last().filter(|_| page.len() == PAGE).map(|last| last.cid);
                    let items = page.into_iter().map(Ok).collect::<Vec<_>>();
                    Some((stream::iter(items), next.map(|cid| (pins, Some(cid)))))
                }
                // The last item of the stream is the error.
                Err(error) => Some((stream::iter(vec![Err(error)]), None)),
            }
        });
        pages.flatten().boxed()
    }
}

impl IntoIterator for &Pins {
    type Item = Result<Pin>;
    type IntoIter = Iter;
    fn into_iter(self) -> Iter {
        self.iter()
    }
}

/// All pins, in key order. Ends after the first error.
pub struct Iter {
    pins: Pins,
    page: VecDeque<Pin>,
    after: Option<Cid>,
    done: bool,
}

impl Iterator for Iter {
    type Item = Result<Pin>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() && !self.done {
            match self.pins.page(self.after.as_ref(), PAGE) {
                Ok(page) => {
                    self.done = page.len() < PAGE;
                    self.after = page.last().map(|pin| pin.cid).or(self.after);
                    self.page = page.into();
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        self.page.pop_front().map(Ok)
    }
}
