//! What must never be false, looked at after every delivery.

use super::network::Peer;
use crate::consensus::driver::Driver;
use crate::state::RaftId;
use std::collections::BTreeMap;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Checks {
    leaders: BTreeMap<u64, RaftId>,
    digests: BTreeMap<u64, (u128, Peer)>,
    applied: BTreeMap<Peer, (u64, RaftId)>,
}

impl Checks {
    /// Looks at a peer; the sentence of what is broken, if so.
    pub(super) fn see(&mut self, now: u64, peer: Peer, driver: &Driver) -> Result<(), String> {
        let status = driver.status();
        if driver.leads() {
            let first = *self.leaders.entry(status.term).or_insert(status.raft_id);
            if first != status.raft_id {
                return Err(format!(
                    "tick {now}: term {} has two leaders, Raft ids {first} and {}",
                    status.term, status.raft_id
                ));
            }
        }
        if self.applied.get(&peer) == Some(&(status.applied, status.raft_id)) {
            return Ok(());
        }
        self.applied.insert(peer, (status.applied, status.raft_id));
        let digest = driver.machine().digest();
        let (first, who) = *self.digests.entry(status.applied).or_insert((digest, peer));
        if first != digest {
            return Err(format!("tick {now}: peers {who} and {peer} differ at entry {}", status.applied));
        }
        if status.applied > status.committed {
            return Err(format!("tick {now}: peer {peer} has applied more than is committed"));
        }
        Ok(())
    }
}
