//! The one error type of pinfold.
//!
//! An error is one plain sentence that names the thing, the cause and the fix, and a [`Kind`] that
//! says what the rest of the program does with it: which HTTP status and which exit code it becomes,
//! and whether every peer would have met it (*deterministic*, part of the replicated history) or only
//! this one (a disk, a network: never allowed to influence replicated state).

use serde::{Deserialize, Serialize};
use std::fmt;

/// What an [`Error`] is about. The table of consequences is in the methods below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The caller's input is wrong (400, exit 2 on the command line).
    Invalid,
    /// No or wrong credentials (401).
    Unauthorized,
    /// The caller may not do this (403).
    Forbidden,
    /// What was asked for does not exist (404).
    NotFound,
    /// The request contradicts the present state (500 in ipfs-cluster's API).
    Conflict,
    /// This peer is not the leader and could not reach the one it knows (500).
    NotLeader,
    /// No majority, no leader, shutting down, a queue is full: try again later (500).
    Unavailable,
    /// A deadline passed (500).
    Timeout,
    /// A limit of this program was exceeded (413).
    TooLarge,
    /// The disk or a configured storage limit is full (507).
    Full,
    /// Data on disk or from a peer is damaged (500).
    Corrupt,
    /// The operating system refused (500).
    Io,
    /// The IPFS side refused or answered nonsense (500).
    Ipfs,
    /// The operation was cancelled by a newer one (500).
    Cancelled,
    /// Data or protocol of a newer or unknown version (500).
    Version,
    /// A defect of pinfold itself (500).
    Internal,
}

impl Kind {
    /// The HTTP status this kind becomes in the REST API. Backend failures are 500, as clients of
    /// ipfs-cluster expect; input errors are 4xx.
    pub fn http_status(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::Unauthorized => 401,
            Kind::Forbidden => 403,
            Kind::NotFound => 404,
            Kind::TooLarge => 413,
            Kind::Full => 507,
            _ => 500,
        }
    }

    /// The exit code of the daemon and of the offline commands. ctl commands map HTTP answers
    /// themselves (reference C.6).
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Invalid => 2,
            Kind::Unauthorized | Kind::Forbidden => 3,
            Kind::NotFound => 4,
            Kind::Conflict => 5,
            Kind::NotLeader | Kind::Unavailable => 6,
            Kind::Timeout => 7,
            Kind::TooLarge => 8,
            Kind::Full => 9,
            Kind::Corrupt => 10,
            Kind::Io => 11,
            Kind::Ipfs => 12,
            Kind::Version => 13,
            Kind::Cancelled => 125,
            Kind::Internal => 70,
        }
    }

    /// Whether every peer that applies the same command to the same state meets the same error.
    /// Only such errors may be the result of a committed command; any other one stops the peer.
    pub fn is_deterministic(self) -> bool {
        matches!(self, Kind::Invalid | Kind::NotFound | Kind::Conflict | Kind::TooLarge | Kind::Forbidden)
    }
}

/// An error: its kind and one sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// The result of everything that can fail in pinfold.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => { $(
        #[doc = concat!("An error of kind [`Kind::", stringify!($kind), "`].")]
        pub fn $name(message: impl Into<String>) -> Self {
            Error { kind: Kind::$kind, message: message.into() }
        }
    )* };
}

impl Error {
    constructors! {
        invalid => Invalid, unauthorized => Unauthorized, forbidden => Forbidden, not_found => NotFound,
        conflict => Conflict, not_leader => NotLeader, unavailable => Unavailable, timeout => Timeout,
        too_large => TooLarge, full => Full, corrupt => Corrupt, io => Io, ipfs => Ipfs,
        cancelled => Cancelled, version => Version, internal => Internal,
    }

    /// An error of any kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    /// What the error is about.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with what was being done in front: `<doing>: <message>`.
    #[must_use]
    pub fn context(self, doing: impl fmt::Display) -> Self {
        Error { kind: self.kind, message: format!("{doing}: {}", self.message) }
    }

    /// An operating-system error, with what was being done. A full disk becomes [`Kind::Full`].
    pub fn from_io(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Full,
            std::io::ErrorKind::TimedOut => Kind::Timeout,
            _ => Kind::Io,
        };
        Error { kind, message: format!("{doing}: {error}") }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::from_io("input/output", &error)
    }
}

/// Adds what was being done to the error of any result.
pub trait Context<T> {
    /// `<doing>: <message>`.
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|e| e.context(doing))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::from_io(doing, &e))
    }
}
