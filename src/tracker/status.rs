//! Statuses of a pin on a peer (reference F.4) and filters over them.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// State of a pin on one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not known.
    Undefined,
    /// The peer could not be asked.
    ClusterError,
    /// Pinning failed.
    PinError,
    /// Unpinning failed.
    UnpinError,
    /// IPFS has it pinned.
    Pinned,
    /// In flight.
    Pinning,
    /// In flight.
    Unpinning,
    /// Not in the state, not pinned.
    Unpinned,
    /// Held elsewhere, by design not here.
    Remote,
    /// Waiting for a worker.
    PinQueued,
    /// Waiting for a worker.
    UnpinQueued,
    /// A meta pin.
    Sharded,
    /// The state says pinned, IPFS says not.
    UnexpectedlyUnpinned,
}

impl Status {
    /// Every status with its name on the wire.
    pub const NAMES: [(Status, &'static str); 13] = [
        (Status::Undefined, "undefined"),
        (Status::ClusterError, "cluster_error"),
        (Status::PinError, "pin_error"),
        (Status::UnpinError, "unpin_error"),
        (Status::Pinned, "pinned"),
        (Status::Pinning, "pinning"),
        (Status::Unpinning, "unpinning"),
        (Status::Unpinned, "unpinned"),
        (Status::Remote, "remote"),
        (Status::PinQueued, "pin_queued"),
        (Status::UnpinQueued, "unpin_queued"),
        (Status::Sharded, "sharded"),
        (Status::UnexpectedlyUnpinned, "unexpectedly_unpinned"),
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(s, _)| *s == self).map_or("undefined", |(_, n)| n)
    }

    /// The bit in a [`StatusFilter`].
    fn bit(self) -> u16 {
        1 << (self as u16)
    }

    /// Whether it is one of the three errors.
    pub fn is_error(self) -> bool {
        matches!(self, Status::ClusterError | Status::PinError | Status::UnpinError)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of statuses. [`StatusFilter::ALL`] (no filter given) matches everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusFilter(u16);

impl StatusFilter {
    /// Everything.
    pub const ALL: StatusFilter = StatusFilter(u16::MAX);

    /// Parses a comma list of names, with the composites `error` and `queued`. Unknown names are ignored
    /// unless none is valid (as in ipfs-cluster); `undefined` alone is not a filter. Empty is all.
    ///
    /// # Errors
    /// `invalid filter value` when no name is valid.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::ALL);
        }
        let mut bits = 0;
        for name in text.split(',').map(str::trim) {
            match name {
                "error" => {
                    bits |= Status::ClusterError.bit() | Status::PinError.bit() | Status::UnpinError.bit()
                }
                "queued" => bits |= Status::PinQueued.bit() | Status::UnpinQueued.bit(),
                "undefined" => {}
                _ => bits |= Status::NAMES.iter().find(|(_, n)| *n == name).map_or(0, |(s, _)| s.bit()),
            }
        }
        if bits == 0 {
            return Err(Error::invalid("invalid filter value"));
        }
        Ok(StatusFilter(bits))
    }

    /// Whether a status passes.
    pub fn matches(self, status: Status) -> bool {
        self.0 & status.bit() != 0
    }
}
