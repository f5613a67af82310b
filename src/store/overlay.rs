//! Writes that are visible and not yet durable, and how they look on top of what is.
//!
//! Two layers: *active* takes new writes; *flushing* is what a commit is carrying to disk at this moment
//! and must stay visible until it is there. A row is looked up in active, then flushing, then the base; a
//! deletion in an upper layer hides the row below. Counters are kept here as differences to the base, so
//! that counting never touches the disk.

use super::{Table, WriteBatch};
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::state::Applied;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

/// A row, as reads return it.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// What an entry of a B-tree costs besides its bytes, roughly.
const ENTRY_OVERHEAD: usize = 64;

/// Position of a table in arrays.
pub(super) fn slot(table: Table) -> usize {
    match table {
        Table::Pins => 0,
        Table::Members => 1,
        Table::Meta => 2,
        Table::Local => 3,
    }
}

/// Refuses what the store could not hold.
pub(super) fn check_row(table: Table, key: &[u8], value: Option<&[u8]>) -> Result<()> {
    if key.is_empty() || key.len() > super::MAX_KEY {
        return Err(Error::internal(format!(
            "a key of {} bytes in table {table:?}; 1 to {} are allowed",
            key.len(),
            super::MAX_KEY
        )));
    }
    match value {
        Some(value) if value.len() > super::MAX_VALUE => Err(Error::internal(format!(
            "a value of {} bytes in table {table:?}; {} are allowed",
            value.len(),
            super::MAX_VALUE
        ))),
        _ => Ok(()),
    }
}

/// One set of writes; `None` deletes.
#[derive(Default)]
pub(super) struct Layer {
    tables: [BTreeMap<Vec<u8>, Option<Vec<u8>>>; Table::ALL.len()],
    rows: usize,
    bytes: usize,
}

impl Layer {
    fn get(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        self.tables[slot(table)].get(key).map(Option::as_deref)
    }

    fn put(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        let size = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let (key_len, new) = (key.len(), size(&value));
        match self.tables[slot(table)].insert(key, value) {
            Some(old) => self.bytes = self.bytes + new - size(&old),
            None => {
                self.rows += 1;
                self.bytes += key_len + new + ENTRY_OVERHEAD;
            }
        }
    }

    fn after<'a>(&'a self, table: Table, after: Option<&[u8]>) -> LayerIter<'a> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.tables[slot(table)].range::<[u8], _>((start, Bound::Unbounded)).peekable()
    }

    /// All writes of one table, in key order.
    pub(super) fn table(&self, table: Table) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.tables[slot(table)].iter().map(|(k, v)| (k.as_slice(), v.as_deref()))
    }
}

type LayerIter<'a> = Peekable<std::collections::btree_map::Range<'a, Vec<u8>, Option<Vec<u8>>>>;

/// The layers, and what a reader sees of counters and marks.
#[derive(Default)]
pub(super) struct Overlay {
    active: Layer,
    flushing: Option<Arc<Layer>>,
    counts: [u64; Table::ALL.len()],
    applied: Applied,
    durable: Applied,
}

impl Overlay {
    /// An empty overlay over a base with this many rows, at this mark.
    pub(super) fn new(counts: [u64; Table::ALL.len()], applied: Applied) -> Self {
        Overlay { counts, applied, durable: applied, ..Overlay::default() }
    }

    /// What reads see of a key; `None` when the base must be asked.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        let below = || self.flushing.as_ref().and_then(|layer| layer.get(table, key));
        let seen = self.active.get(table, key).or_else(below);
        seen.filter(|value| value.is_some() || !planted::is(Bug::DeletionNotSeen))
    }

    pub(super) fn count(&self, table: Table) -> u64 {
        self.counts[slot(table)]
    }

    pub(super) fn applied(&self) -> Applied {
        self.applied
    }

    pub(super) fn durable(&self) -> Applied {
        self.durable
    }

    /// Rows and bytes (about) waiting in the active layer.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.active.rows, self.active.bytes)
    }

    /// Adds a batch. `in_base` says whether the base has a key, and is only asked when no layer knows it.
    ///
    /// # Errors
    /// When a row is out of bounds or the base cannot be read; then nothing was added.
    pub(super) fn write(
        &mut self,
        batch: WriteBatch,
        mut in_base: impl FnMut(Table, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut existed = Vec::with_capacity(batch.writes.len());
        for (table, key, value) in &batch.writes {
            check_row(*table, key, value.as_deref())?;
            existed.push(match self.get(*table, key) {
                Some(seen) => seen.is_some(),
                None => in_base(*table, key)?,
            });
        }
        for ((table, key, value), existed) in batch.writes.into_iter().zip(existed) {
            // An earlier write of the same batch may have changed the answer.
            let existed = self.active.get(table, &key).map_or(existed, |seen| seen.is_some());
            let count = &mut self.counts[slot(table)];
            match (existed, value.is_some()) {
                (false, true) => *count += 1,
                (true, false) => *count = count.saturating_sub(1),
                _ => {}
            }
            self.active.put(table, key, value);
        }
        if let Some(applied) = batch.applied {
            self.applied = applied;
        }
        Ok(())
    }

    /// Takes the active layer for a commit (it stays visible), with the mark it brings; `None` when
    /// there is nothing to commit.
    pub(super) fn start_flush(&mut self) -> Option<(Arc<Layer>, Applied)> {
        if self.active.rows == 0 && self.applied == self.durable {
            return None;
        }
        let layer = Arc::new(std::mem::take(&mut self.active));
        self.flushing = Some(layer.clone());
        Some((layer, self.applied))
    }

    /// The commit succeeded.
    pub(super) fn end_flush(&mut self, applied: Applied) {
        self.flushing = None;
        self.durable = applied;
    }

    /// The commit failed: what it carried is active again, under what was written since.
    pub(super) fn abort_flush(&mut self) {
        let Some(layer) = self.flushing.take() else { return };
        for table in Table::ALL {
            for (key, value) in layer.table(table) {
                if self.active.get(table, key).is_none() {
                    self.active.put(table, key.to_vec(), value.map(<[u8]>::to_vec));
                }
            }
        }
    }

    /// At most `limit` rows after `after`, the layers merged over `base`, which yields the base's rows
    /// after `after` in key order.
    pub(super) fn scan<'b, E>(
        &self,
        table: Table,
        after: Option<&[u8]>,
        limit: usize,
        base: impl Iterator<Item = std::result::Result<(&'b [u8], &'b [u8]), E>>,
    ) -> std::result::Result<Vec<Row>, E> {
        let mut rows = Vec::new();
        let mut base = base.peekable();
        let mut active = self.active.after(table, after);
        let empty = Layer::default();
        let mut flushing = self.flushing.as_deref().unwrap_or(&empty).after(table, after);
        while rows.len() < limit {
            let below = match base.peek() {
                Some(Ok((key, _))) => Some(*key),
                // The error comes out of the iterator below.
                Some(Err(_)) => Some(&[][..]),
                None => None,
            };
            let keys = [active.peek().map(|(k, _)| k.as_slice()), flushing.peek().map(|(k, _)| k.as_slice())];
            let Some(key) = keys.into_iter().flatten().chain(below).min() else { break };
            let at = |k: Option<&[u8]>| k == Some(key);
            let (in_active, in_flushing, in_base) = (at(keys[0]), at(keys[1]), at(below));
            // Every source that has the key moves on; the uppermost decides.
            let mut value: Option<Vec<u8>> = None;
            let mut owned: Vec<u8> = Vec::new();
            if in_base {
                if let Some(row) = base.next() {
                    let (k, v) = row?;
                    if !in_active && !in_flushing {
                        (owned, value) = (k.to_vec(), Some(v.to_vec()));
                    }
                }
            }
            if in_flushing {
                if let Some((k, v)) = flushing.next() {
                    if !in_active {
                        (owned, value) = (k.clone(), v.clone());
                    }
                }
            }
            if in_active {
                if let Some((k, v)) = active.next() {
                    (owned, value) = (k.clone(), v.clone());
                }
            }
            if let Some(value) = value {
                rows.push((owned, value));
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    type Base = BTreeMap<Vec<u8>, Vec<u8>>;

    fn base(rows: &[(&str, &str)]) -> Base {
        rows.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect()
    }

    fn batch(rows: &[(&str, Option<&str>)]) -> WriteBatch {
        let writes = rows
            .iter()
            .map(|(k, v)| (Table::Pins, k.as_bytes().to_vec(), v.map(|v| v.as_bytes().to_vec())))
            .collect();
        WriteBatch { writes, applied: None }
    }

    fn seen(overlay: &Overlay, base: &Base, after: Option<&str>, limit: usize) -> String {
        let after = after.map(str::as_bytes);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let below = base
            .range::<[u8], _>((start, Bound::Unbounded))
            .map(|(k, v)| Ok::<_, Infallible>((k.as_slice(), v.as_slice())));
        let rows = overlay.scan(Table::Pins, after, limit, below).expect("infallible");
        rows.iter()
            .map(|(k, v)| format!("{}={}", String::from_utf8_lossy(k), String::from_utf8_lossy(v)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn upper_layers_win_and_deletions_hide() {
        let base = base(&[("a", "0"), ("b", "0"), ("c", "0"), ("d", "0")]);
        let mut overlay = Overlay::new([4, 0, 0, 0], Applied::default());
        let in_base = |_: Table, key: &[u8]| Ok(base.contains_key(key));
        overlay.write(batch(&[("b", Some("1")), ("c", None), ("e", Some("1"))]), in_base).expect("write");
        assert_eq!(overlay.count(Table::Pins), 4);
        let (layer, mark) = overlay.start_flush().expect("something to flush");
        assert_eq!(layer.table(Table::Pins).count(), 3);
        overlay.write(batch(&[("a", None), ("c", Some("2")), ("e", None)]), in_base).expect("write");
        assert_eq!(overlay.count(Table::Pins), 3);

        assert_eq!(seen(&overlay, &base, None, 10), "b=1 c=2 d=0");
        assert_eq!(seen(&overlay, &base, None, 2), "b=1 c=2");
        assert_eq!(seen(&overlay, &base, Some("b"), 10), "c=2 d=0");
        assert_eq!(seen(&overlay, &base, Some("d"), 10), "");
        assert_eq!(overlay.get(Table::Pins, b"e"), Some(None));
        assert_eq!(overlay.get(Table::Pins, b"b"), Some(Some(&b"1"[..])));
        assert_eq!(overlay.get(Table::Pins, b"d"), None);

        // A failed commit loses nothing and does not bring back what was overwritten since.
        overlay.abort_flush();
        assert_eq!(seen(&overlay, &base, None, 10), "b=1 c=2 d=0");
        assert_eq!(overlay.start_flush().expect("again").0.table(Table::Pins).count(), 4);
        overlay.end_flush(mark);
        assert_eq!(seen(&overlay, &base, None, 10), "a=0 b=0 c=0 d=0", "the base alone");
    }

    #[test]
    fn a_batch_that_names_a_key_twice_counts_it_once() {
        let mut overlay = Overlay::default();
        overlay.write(batch(&[("a", Some("1")), ("a", Some("2"))]), |_, _| Ok(false)).expect("write");
        assert_eq!(overlay.count(Table::Pins), 1);
        overlay.write(batch(&[("a", None), ("a", None)]), |_, _| Ok(false)).expect("write");
        assert_eq!(overlay.count(Table::Pins), 0);
    }

    #[test]
    fn a_row_out_of_bounds_is_refused_and_nothing_is_written() {
        let mut overlay = Overlay::default();
        let long = "k".repeat(super::super::MAX_KEY + 1);
        let error = overlay.write(batch(&[("a", Some("1")), (&long, Some("2"))]), |_, _| Ok(false));
        assert!(error.is_err());
        assert_eq!(overlay.count(Table::Pins), 0);
        assert_eq!(overlay.waiting().0, 0);
    }
}
