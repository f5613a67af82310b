//! Reading what was written: the state against its digest, before the start where it is small, and again while it runs.
//!
//! LMDB has no checksums, and a card may give back other bytes than it was given, at once or after a year. The rolling
//! digest says what the replicated rows should be. Small states are read before anything is answered from them, large
//! ones right after the start, because a board with a million pins must not be a minute late; and all of them once a day,
//! from one snapshot, at the pace of the disk, a page at a time.
//!
//! A peer whose state is not what was written stops with a sentence: the others go on without it, and answer right.

use crate::consensus::WeakConsensus;
use crate::error::{Context as _, Error, Result};
use crate::runtime;
use crate::state::{digest, Machine};
use crate::store::{StateStore, Table};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// States of up to this many pins are read before the start: some tens of milliseconds.
const SMALL: u64 = 20_000;
/// After the start, before a larger one is read: what people wait for comes first.
const FIRST: Duration = Duration::from_secs(10);
/// Between two readings.
const AGAIN: Duration = Duration::from_secs(24 * 3_600);
/// How often is looked whether the peer still runs.
const LOOK: Duration = Duration::from_secs(5);
/// Bytes of rows read at once.
const BYTES: usize = 1 << 20;
/// Between two pages of rows: the disk and the processor are others' first.
const PAUSE: Duration = Duration::from_millis(2);

/// What was found wrong while running.
#[derive(Clone, Default)]
pub(super) struct Damage(Arc<Mutex<Option<Error>>>);

impl Damage {
    /// The first that was found.
    pub(super) fn get(&self) -> Option<Error> {
        self.0.lock().clone()
    }

    /// Ends the peer with this error.
    pub(super) fn set(&self, error: &Error) {
        self.0.lock().get_or_insert_with(|| error.clone());
    }
}

/// Reads a small state before anything is answered from it.
///
/// # Errors
/// [`crate::Kind::Corrupt`] when it is not what was written.
pub(super) fn before_start(state: &Arc<dyn StateStore>) -> Result<()> {
    if state.count(Table::Pins) > SMALL {
        return Ok(());
    }
    Machine::open(state.clone())?.verify()
}

/// Reads the state now and then, until the peer stops.
pub(super) async fn watch(state: Arc<dyn StateStore>, consensus: WeakConsensus, damage: Damage) {
    let mut wait = if state.count(Table::Pins) > SMALL { FIRST } else { AGAIN };
    loop {
        let mut waited = Duration::ZERO;
        while waited < wait {
            runtime::sleep(LOOK).await;
            waited += LOOK;
            if consensus.upgrade().is_none() {
                return;
            }
        }
        match read(&state, &consensus).await {
            Ok(()) => wait = AGAIN,
            // The map had to grow under the snapshot: soon again.
            Err(error) if error.kind() == crate::Kind::Unavailable => wait = FIRST,
            Err(error) => {
                log::error!(target: "service", "{error}");
                return damage.set(&error);
            }
        }
    }
}

/// Reads all replicated rows from one snapshot and adds up their digest.
async fn read(state: &Arc<dyn StateStore>, consensus: &WeakConsensus) -> Result<()> {
    let store = state.clone();
    let mut source = runtime::unblock(move || store.snapshot()).await?;
    let mut sum = digest::Sum::default();
    loop {
        let (back, rows) = runtime::unblock(move || {
            let rows = source.next(BYTES);
            (source, rows)
        })
        .await;
        source = back;
        let rows = rows?;
        if rows.is_empty() || consensus.upgrade().is_none() {
            break;
        }
        for (table, key, value) in rows {
            sum.add(table, &key, &value);
        }
        runtime::sleep(PAUSE).await;
    }
    let Some(wanted) = sum.stored.filter(|wanted| consensus.upgrade().is_some() && *wanted != sum.digest)
    else {
        return Ok(());
    };
    Err(Error::corrupt(format!(
        "the state has the digest {:032x}, and {wanted:032x} is what was written: the disk gave back other bytes; run `pinfold state check`, which says what to do",
        sum.digest
    )))
    .context("reading the state")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::DIGEST_KEY;
    use crate::store::memory::MemoryState;
    use crate::store::WriteBatch;

    #[test]
    fn a_small_state_that_is_not_what_was_written_is_refused_before_the_start() {
        let state = MemoryState::new();
        let rows = vec![
            (Table::Pins, b"k".to_vec(), Some(b"v".to_vec())),
            (
                Table::Meta,
                DIGEST_KEY.to_vec(),
                Some(digest::row(Table::Pins, b"k", b"v").to_be_bytes().to_vec()),
            ),
        ];
        state.write(WriteBatch { writes: rows, applied: None }).expect("rows");
        let store: Arc<dyn StateStore> = Arc::new(state.clone());
        before_start(&store).expect("as it was written");
        let other = vec![(Table::Pins, b"k".to_vec(), Some(b"w".to_vec()))];
        state.write(WriteBatch { writes: other, applied: None }).expect("a flipped bit");
        assert_eq!(before_start(&store).expect_err("damaged").kind(), crate::Kind::Corrupt);
    }
}
