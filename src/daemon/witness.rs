//! Being a witness, as a matter of this peer's own configuration (`consensus.raft.witness`).
//!
//! The key alone decides what this process does: with it, no IPFS node is opened and no content is fetched. That the
//! others know is a row of the replicated state, which the peer writes once it runs (`Consensus::update_self`). Between
//! the two there must be no moment in which content is lost, so a peer that still holds copies does not start as a
//! witness; and none in which a cluster is asked what it has no word for, so it does not start as one in a cluster that
//! speaks an older version.

use crate::config::{Config, Folder};
use crate::error::{Error, Result};
use crate::runtime;
use crate::state::{version, Machine, Pins};
use crate::store::StateStore;
use futures::StreamExt;
use libp2p::PeerId;
use std::sync::Arc;

/// Whether a folder that is there already is a witness's, when the command line says that it is to be one.
///
/// # Errors
/// It is not: which key says so.
pub(super) fn agrees(folder: &Folder, config: &Config) -> Result<()> {
    if config.consensus.witness {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "{} makes this peer one that holds content, and --witness is only for a new folder: stop the peer (after \
         `pinfold drain`, if it has content) and write \"witness\": true into consensus.raft of that file",
        folder.service_json().display()
    )))
}

/// Whether a member may go on as a witness.
///
/// # Errors
/// It holds copies; the cluster does not know witnesses yet; or what the disk says.
pub(super) async fn may_go_on(state: &Arc<dyn StateStore>, me: PeerId) -> Result<()> {
    let store = state.clone();
    let machine = runtime::unblock(move || Machine::open(store)).await?;
    let members = machine.members();
    let known = members.iter().find(|m| m.peer_id == me);
    if known.is_some_and(|m| m.witness) {
        return Ok(());
    }
    let speaks = machine.cluster_version();
    if speaks < version::WITNESS {
        return Err(Error::version(format!(
            "consensus.raft.witness is true, but the cluster speaks version {speaks} and a witness needs version {}: set it \
             to false until every peer runs pinfold {} (`pinfold peers ls -e json` shows who runs what)",
            version::WITNESS,
            version::first_release(version::WITNESS)
        )));
    }
    let mut pins = Pins::new(state.clone()).stream();
    let (mut named, mut everywhere) = (0u64, 0u64);
    while let Some(pin) = pins.next().await {
        let pin = pin?;
        named += u64::from(pin.allocations.contains(&me));
        everywhere += u64::from(pin.is_everywhere());
    }
    if named > 0 {
        return Err(Error::conflict(format!(
            "consensus.raft.witness is true, but {named} pins have a copy here: set it to false, start this peer, move its \
             copies to others (`pinfold drain {me}`), and then make it a witness"
        )));
    }
    let holders = members.iter().filter(|m| m.peer_id != me && !m.witness).count();
    if holders == 0 {
        return Err(Error::conflict(format!(
            "consensus.raft.witness is true, but no other peer of this cluster holds content ({everywhere} pins are here \
             only): set it to false, or let another peer join first"
        )));
    }
    Ok(())
}

/// What a witness is refused that would found a cluster of its own.
pub(super) fn not_alone() -> Error {
    Error::conflict(
        "a witness holds no content, so it does not found a cluster: start a peer that holds content first and join it \
         with `pinfold join TOKEN --witness`",
    )
}
