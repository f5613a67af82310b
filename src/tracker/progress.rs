//! How far the pins that run here have got, for whoever follows one while it runs.
//!
//! A number per running pin, gone with it. Nothing here is kept or replicated: what a pin has achieved is in its record.

use super::queue::Key;
use super::rows::Row;
use super::runner::Tracker;
use crate::error::Result;
use crate::ipfs::Progress;
use cid::Cid;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Blocks reached, by running pin. As large as the number of workers.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<Mutex<HashMap<Key, Arc<AtomicU64>>>>);

/// A running pin on the board; dropping it takes the pin off.
pub(super) struct Entry {
    board: Board,
    key: Key,
    blocks: Arc<AtomicU64>,
}

impl Board {
    /// A pin begins.
    pub(super) fn begin(&self, key: &Key) -> Entry {
        let blocks = Arc::new(AtomicU64::new(0));
        self.0.lock().insert(key.clone(), blocks.clone());
        Entry { board: self.clone(), key: key.clone(), blocks }
    }

    fn read(&self, key: &[u8]) -> u64 {
        self.0.lock().get(key).map_or(0, |blocks| blocks.load(Ordering::Relaxed))
    }
}

impl Entry {
    /// Where the pin tells how far it is.
    pub(super) fn report(&self) -> Progress {
        let blocks = self.blocks.clone();
        Arc::new(move |reached| blocks.store(reached, Ordering::Relaxed))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut board = self.board.0.lock();
        // A newer attempt at the same CID may have taken the place.
        if board.get(&self.key).is_some_and(|b| Arc::ptr_eq(b, &self.blocks)) {
            board.remove(&self.key);
        }
    }
}

impl Tracker {
    /// The status of a CID as this peer remembers it, without asking IPFS, and the blocks that a running pin has
    /// reached: cheap enough to be asked twice a second.
    ///
    /// # Errors
    /// Only when this peer cannot read its own state.
    pub fn glance(&self, cid: &Cid) -> Result<(Row, u64)> {
        let key = cid.to_bytes();
        let blocks = self.inner.board.read(&key);
        Ok((self.inner.row_of(key)?.0, blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outdated_attempt_does_not_take_the_new_one_off_the_board() {
        let board = Board::default();
        let key: Key = vec![1];
        let old = board.begin(&key);
        old.report()(7);
        assert_eq!(board.read(&key), 7);
        let new = board.begin(&key);
        new.report()(3);
        drop(old);
        assert_eq!(board.read(&key), 3);
        drop(new);
        assert_eq!(board.read(&key), 0);
    }
}
