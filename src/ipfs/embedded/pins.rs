//! Which CIDs are pinned, and how: a durable table beside the block index.
//!
//! A pin is recorded after its last block is durable, never before: what stands here is complete. Pins are kept by CID
//! as it was given, so that version 0 and 1 of the same content are two pins of one set of blocks, as in Kubo.

use super::blocks::{lmdb, Tables};
use crate::error::{Error, Result};
use crate::ipfs::IpfsPin;
use crate::state::PinMode;
use crate::store::crc32c;
use cid::Cid;
use std::ops::Bound;

/// Version of a pin's record up to pinfold 0.2: version, mode.
const PLAIN: u8 = 1;
/// Version of a pin's record: version, mode, checksum over key and both. A collection goes by this table: a bit that
/// turns "recursive" into "direct", or one CID into another, would cost content.
const SUMMED: u8 = 2;

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
        Ok(match row.map(|value| mode_of(&cid.to_bytes(), value)).transpose()? {
            None => IpfsPin::Unpinned,
            Some(PinMode::Recursive) => IpfsPin::Recursive,
            Some(PinMode::Direct) => IpfsPin::Direct,
        })
    }

    /// Pins; the last mode given is the mode.
    pub(super) fn set(&self, cid: &Cid, mode: PinMode) -> Result<()> {
        let error = lmdb("writing a pin");
        let value = record(&cid.to_bytes(), mode);
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
            out.push((cid, mode_of(key, value)?));
        }
        Ok(out)
    }
}

fn record(key: &[u8], mode: PinMode) -> [u8; 6] {
    let direct = u8::from(mode == PinMode::Direct);
    let [a, b, c, d] = crc32c(&[key, &[SUMMED, direct]].concat()).to_be_bytes();
    [SUMMED, direct, a, b, c, d]
}

/// The mode that a record under this key tells.
pub(super) fn mode_of(key: &[u8], value: &[u8]) -> Result<PinMode> {
    match value {
        [PLAIN, 0] => Ok(PinMode::Recursive),
        [PLAIN, 1] => Ok(PinMode::Direct),
        [SUMMED, ..] => [PinMode::Recursive, PinMode::Direct]
            .into_iter()
            .find(|mode| record(key, *mode) == value)
            .ok_or_else(|| Error::corrupt("a record in the table of pins is damaged: its checksum is wrong")),
        [version, ..] if *version > SUMMED => {
            Err(Error::version("the table of pins is newer than this program: use the newer pinfold"))
        }
        _ => Err(Error::corrupt("a damaged record in the table of pins")),
    }
}
