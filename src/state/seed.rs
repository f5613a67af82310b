//! A whole state made at once, without a log: for import and recovery, on a store nobody else uses.
//!
//! The rows are written beside the present ones and take their place in one step, so that a failure (or a
//! power cut) in the middle leaves the state as it was.

use super::machine::{conf_state_row, member_key, version_row};
use super::{Applied, Member, Pin};
use crate::error::Result;
use crate::store::{StateStore, Table};
use raft::eraftpb::ConfState;

/// Rows handed to the store at a time.
const SLICE: usize = 1_000;

/// Replaces the replicated state by these pins, members and cluster version, as if entry `at` had just been applied; how many
/// pins were read. Of two pins with the same CID the later one stays. Machines over the store
/// must be opened again, or reloaded; the digest is computed by the first that is.
///
/// # Errors
/// The first error of `pins`, or the disk's; then nothing has changed.
pub fn seed(
    store: &dyn StateStore,
    pins: impl IntoIterator<Item = Result<Pin>>,
    members: &[Member],
    conf_state: &ConfState,
    cluster_version: u16,
    at: Applied,
) -> Result<u64> {
    let mut sink = store.begin_install()?;
    let mut rows = vec![conf_state_row(conf_state), version_row(cluster_version)];
    rows.extend(members.iter().map(|m| (Table::Members, member_key(m.raft_id), m.encode())));
    let mut count = 0;
    for pin in pins {
        let pin = pin?;
        pin.check()?;
        rows.push((Table::Pins, pin.cid.to_bytes(), pin.encode()));
        count += 1;
        if rows.len() >= SLICE {
            sink.put(std::mem::take(&mut rows))?;
        }
    }
    sink.put(rows)?;
    store.install(sink, at)?;
    Ok(count)
}
