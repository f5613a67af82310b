//! Makes the local IPFS node agree with the replicated state: a pure plan, a pure queue, a runner.
//!
//! [`plan`] says from three facts (pin, whether it belongs here, local record) what is to be done; [`queue`] says
//! in which order and when again; [`Tracker`] does it; `keeper` decides when everything is compared with IPFS. The local record of each CID lives in the state
//! environment and survives restarts, errors included. The tracker must never touch what it did not pin:
//! pins made in IPFS by hand are left alone; and it must never block the log: it follows the state,
//! the state never waits for it.

mod keeper;
pub mod plan;
mod progress;
pub mod queue;
mod rows;
mod runner;
mod scan;
pub mod status;
#[cfg(test)]
mod tests;

pub use rows::{Row, RowReader, TableReader};
pub use runner::{Tracker, TrackerConfig};
pub use status::{Status, StatusFilter};
