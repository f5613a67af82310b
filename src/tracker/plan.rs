//! The plan: what one peer has to do about one CID. Pure.
//!
//! Three facts decide: the replicated pin (or none), whether this peer must hold it, and the local
//! [`Record`] of what was last achieved. There is no other state: a pin that must be here and has no record
//! is *queued* by definition, so nothing is forgotten by a restart and a queue may overflow without harm.

use super::Status;
use crate::clock::Timestamp;
use crate::error::{Kind, Result};
use crate::ipfs::IpfsPin;
use crate::state::{Pin, PinMode, PinType};
use crate::store::record;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};

/// Longest error text that is kept, bytes.
pub const MAX_ERROR_TEXT: usize = 1_000;

/// How the last attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Achieved {
    /// IPFS holds it recursively.
    Recursive,
    /// IPFS holds the one block.
    Direct,
    /// Pinning failed.
    PinFailed,
    /// Unpinning failed (IPFS may still hold it).
    UnpinFailed,
    /// IPFS was found without it.
    Missing,
}

/// What this peer last achieved for a CID; kept in [`crate::store::Table::Local`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How it ended.
    pub achieved: Achieved,
    /// When.
    pub at: Timestamp,
    /// Attempts since the last success.
    pub attempts: u32,
    /// Why it failed.
    pub error: String,
}

/// Format version of an encoded [`Record`] up to pinfold 0.2.
const PLAIN: u8 = 1;
/// The same with a checksum behind it: the digest does not cover what is this peer's alone.
const SUMMED: u8 = 2;

impl Record {
    /// A success.
    pub fn pinned(mode: PinMode, at: Timestamp) -> Self {
        let achieved = if mode == PinMode::Direct { Achieved::Direct } else { Achieved::Recursive };
        Record { achieved, at, attempts: 0, error: String::new() }
    }

    /// A failure; the text is cut to [`MAX_ERROR_TEXT`].
    pub fn failed(achieved: Achieved, at: Timestamp, attempts: u32, error: &str) -> Self {
        let mut end = error.len().min(MAX_ERROR_TEXT);
        while !error.is_char_boundary(end) {
            end -= 1;
        }
        Record { achieved, at, attempts, error: error[..end].to_string() }
    }

    /// Whether IPFS holds it, as far as we know.
    pub fn is_held(&self) -> bool {
        matches!(self.achieved, Achieved::Recursive | Achieved::Direct)
    }

    /// Whether IPFS, having the CID pinned like this, holds at least what the record says.
    pub fn agrees(&self, state: IpfsPin) -> bool {
        match self.achieved {
            Achieved::Recursive => state == IpfsPin::Recursive,
            Achieved::Direct => state != IpfsPin::Unpinned,
            Achieved::PinFailed | Achieved::UnpinFailed | Achieved::Missing => true,
        }
    }

    /// For the store, under this key.
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        record::encode_summed(SUMMED, key, self)
    }

    /// From the store, where it lay under this key.
    ///
    /// # Errors
    /// [`crate::Kind::Version`] for a newer format, [`crate::Kind::Corrupt`] for garbage.
    pub fn decode(key: &[u8], bytes: &[u8]) -> Result<Self> {
        record::decode_summed(PLAIN, SUMMED, key, bytes)
            .map_err(|fault| fault.into_error("a local tracker record", Kind::Corrupt))
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Ask IPFS to pin.
    Pin,
    /// Ask IPFS to unpin.
    Unpin,
}

/// What one peer has to do about a CID.
pub fn decide(pin: Option<&Pin>, me: &PeerId, record: Option<&Record>) -> Action {
    let here = pin.is_some_and(|p| is_here(p, me));
    match (here, record) {
        (true, Some(r))
            if r.achieved == Achieved::Recursive && pin.is_some_and(|p| p.mode == PinMode::Recursive) =>
        {
            Action::Nothing
        }
        (true, Some(r))
            if r.achieved == Achieved::Direct && pin.is_some_and(|p| p.mode == PinMode::Direct) =>
        {
            Action::Nothing
        }
        (true, _) => Action::Pin,
        // What we never achieved is not ours to remove: pins made in IPFS by hand are left alone.
        (false, Some(_)) => Action::Unpin,
        (false, None) => Action::Nothing,
    }
}

/// What a comparison with IPFS changes in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// IPFS has less than the record says: somebody else unpinned it.
    Missing,
    /// IPFS has what was thought to have failed or to be missing: somebody else pinned it, or it went through late.
    Held(PinMode),
    /// IPFS has not what could not be unpinned: somebody else unpinned it.
    Gone,
}

/// What is to be corrected in a record, IPFS having the CID pinned like this.
pub fn correct(
    pin: Option<&Pin>,
    me: &PeerId,
    record: Option<&Record>,
    state: IpfsPin,
) -> Option<Correction> {
    let record = record?;
    if !record.agrees(state) {
        return Some(Correction::Missing);
    }
    match (pin.filter(|p| is_here(p, me)), record.achieved, state) {
        (Some(p), Achieved::PinFailed | Achieved::Missing, IpfsPin::Recursive)
            if p.mode == PinMode::Recursive =>
        {
            Some(Correction::Held(PinMode::Recursive))
        }
        (Some(p), Achieved::PinFailed | Achieved::Missing, IpfsPin::Direct) if p.mode == PinMode::Direct => {
            Some(Correction::Held(PinMode::Direct))
        }
        (None, Achieved::UnpinFailed, IpfsPin::Unpinned) => Some(Correction::Gone),
        _ => None,
    }
}

/// Whether `me` must hold the content of this pin.
pub fn is_here(pin: &Pin, me: &PeerId) -> bool {
    pin.kind != PinType::Meta && pin.is_allocated_to(me)
}

/// The status to show when no operation is queued or running for the CID.
pub fn settled_status(pin: Option<&Pin>, me: &PeerId, record: Option<&Record>) -> Status {
    match (pin, record) {
        (None, Some(r)) if r.achieved == Achieved::UnpinFailed => Status::UnpinError,
        (None, Some(_)) => Status::UnpinQueued,
        (None, None) => Status::Unpinned,
        (Some(p), _) if p.kind == PinType::Meta => Status::Sharded,
        (Some(p), record) if !is_here(p, me) => match record {
            Some(r) if r.achieved == Achieved::UnpinFailed => Status::UnpinError,
            _ => Status::Remote,
        },
        (Some(_), None) => Status::PinQueued,
        (Some(_), Some(r)) => match r.achieved {
            Achieved::PinFailed => Status::PinError,
            Achieved::UnpinFailed => Status::PinQueued,
            Achieved::Missing => Status::UnexpectedlyUnpinned,
            Achieved::Recursive | Achieved::Direct if decide(pin, me, record) == Action::Nothing => {
                Status::Pinned
            }
            Achieved::Recursive | Achieved::Direct => Status::PinQueued,
        },
    }
}
