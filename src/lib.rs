//! pinfold: a few small boards agree, by Raft, on which IPFS content must stay alive, and each makes it so.
//!
//! This page is the map of the house; `docs/architecture.md` has the same with pictures. A pin's way:
//!
//! ```text
//! api (HTTP) ─┐                                                            ┌─> ipfs::kubo      (HTTP to a daemon)
//! cli (ctl) ──┴─> cluster ─> allocator ─> consensus ─> state ─> tracker ───┤
//!                   │         (pure)       (raft-rs)   (LMDB)   (local)    └─> ipfs::embedded  (our node)
//!                   └───────────────── net (libp2p RPC to the other peers) ────────────────────
//! ```
//!
//! One direction, no way back: a request becomes a command; the log orders it; every peer applies it;
//! each peer's tracker makes its IPFS side agree.

pub mod allocator;
pub mod api;
pub mod check;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod consensus;
pub mod daemon;
pub mod doctor;
pub(crate) mod durable;
pub mod error;
#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/targets/mod.rs"]
pub mod fuzz;
pub mod ipfs;
pub mod log;
pub mod monitor;
pub mod net;
pub mod password;
pub mod planted;
pub mod runtime;
pub mod sim;
pub mod state;
pub mod store;
pub mod tracker;
pub(crate) mod trust;

pub use error::{Error, Kind, Result};

/// The version of this build, as `pinfold version` prints it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
