//! Which CIDs are pinned, and how: a durable table beside the block index.
//!
//! A pin is recorded after its last block is durable, never before: what stands here is complete. Pins are kept by CID
//! as it was given, so that version 0 and 1 of the same content are two pins of one set of blocks, as in Kubo.

use super::blocks::{lmdb, Tables};
use crate::error::{Error, Result};
use crate::ipfs::IpfsPin;
use crate::state::PinMode;
use cid::Cid;
use std::ops::Bound;

/// Version of a pin's record.
const VERSION: u8 = 1;

/// The pins. Calls block; changes are durable when they return.
#[derive(Clone)]
pub(super) struct Pins {
    tables: Tables,
}

impl Pins {
    pub(super) fn new(tables: Tables) -> Self {
        Pins { tables }
    }

    /// How a CID is pinned.
    pub(super) fn get(&self, cid: &Cid) -> Result<IpfsPin> {
        let txn = self.tables.read()?;
        let row = self.tables.pins.get(&txn, &cid.to_bytes()).map_err(lmdb("reading the pins"))?;
        Ok(match row.map(mode_of).transpose()? {
            None => IpfsPin::Unpinned,
            Some(PinMode::Recursive) => IpfsPin::Recursive,
            Some(PinMode::Direct) => IpfsPin::Direct,
        })
    }

    /// Pins; the last mode given is the mode.
    pub(super) fn set(&self, cid: &Cid, mode: PinMode) -> Result<()> {
        let error = lmdb("writing a pin");
        let value = [VERSION, u8::from(mode == PinMode::Direct)];
        let mut txn = self.tables.write()?;
        self.tables.pins.put(&mut txn, &cid.to_bytes(), &value).map_err(&error)?;
        txn.commit().map_err(&error)
    }

    /// Unpins; nothing is written when there was no pin.
    pub(super) fn remove(&self, cid: &Cid) -> Result<()> {
        if self.get(cid)? == IpfsPin::Unpinned {
            return Ok(());
        }
        let error = lmdb("removing a pin");
        let mut txn = self.tables.write()?;
        self.tables.pins.delete(&mut txn, &cid.to_bytes()).map_err(&error)?;
        txn.commit().map_err(&error)
    }

    /// At most `limit` pins after `after`, in key order.
    pub(super) fn page(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<(Cid, PinMode)>> {
        let error = lmdb("listing the pins");
        let after = after.map(Cid::to_bytes);
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let txn = self.tables.read()?;
        let rows = self.tables.pins.range(&txn, &(from, Bound::Unbounded)).map_err(&error)?;
        let mut out = Vec::new();
        for row in rows.take(limit) {
            let (key, value) = row.map_err(&error)?;
            let cid = Cid::try_from(key).map_err(|_| Error::corrupt("a damaged key in the table of pins"))?;
            out.push((cid, mode_of(value)?));
        }
        Ok(out)
    }
}

fn mode_of(value: &[u8]) -> Result<PinMode> {
    match value {
        [VERSION, 0] => Ok(PinMode::Recursive),
        [VERSION, 1] => Ok(PinMode::Direct),
        [version, ..] if *version > VERSION => {
            Err(Error::version("the table of pins is newer than this program: use the newer pinfold"))
        }
        _ => Err(Error::corrupt("a damaged record in the table of pins")),
    }
}
