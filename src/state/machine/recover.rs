//! The state of a cluster that lost its majority for good becomes that of a new cluster of one.
//!
//! The new cluster has an id of its own and remembers whose heir it is, in a replicated row: so each of its later members
//! can tell an old one that comes back where its cluster went ([`recoveries`]). All other members are removed with
//! their Raft ids remembered, so that none of them ever means anything again.

use super::{conf_state_row, member_key, Machine, CONF_STATE_KEY, FORMAT, MAX_REMOVED, REMOVED_KEY};
use crate::error::{Kind, Result};
use crate::state::{Applied, Member};
use crate::store::{record, StateStore, Table};
use raft::eraftpb::ConfState;
use serde::{Deserialize, Serialize};

/// Key of the list of [`Recovery`]s in [`Table::Meta`].
const RECOVERIES_KEY: &[u8] = b"recoveries";
/// How many recoveries are remembered: boards that missed more of them ask a person.
const MAX_RECOVERIES: usize = 16;

/// One recovery: the cluster that was given up, and how far its log went into this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The cluster that lost its majority.
    pub from: u64,
    /// The last entry of its log that is in this cluster.
    pub upto: Applied,
}

/// The recoveries that this state went through, oldest first.
///
/// # Errors
/// When the disk fails or the record is damaged.
pub fn recoveries(store: &dyn StateStore) -> Result<Vec<Recovery>> {
    let Some(bytes) = store.get(Table::Meta, RECOVERIES_KEY)? else { return Ok(Vec::new()) };
    record::decode(FORMAT, &bytes).map_err(|f| f.into_error("the list of recoveries", Kind::Corrupt))
}

impl Machine {
    /// Makes `us` the only member and voter, remembers every other Raft id as removed, and writes down what this state
    /// was recovered from.
    ///
    /// # Errors
    /// The disk's; nothing was written then.
    pub fn recover(&mut self, at: Applied, us: &Member, recovery: Recovery) -> Result<()> {
        let mut removed = self.removed.clone();
        let others: Vec<_> = self.members.keys().copied().filter(|id| *id != us.raft_id).collect();
        removed.retain(|id| !others.contains(id) && *id != us.raft_id);
        removed.extend(&others);
        let surplus = removed.len().saturating_sub(MAX_REMOVED);
        removed.drain(..surplus);
        let mut past = recoveries(&*self.store)?;
        past.retain(|known| known.from != recovery.from);
        past.push(recovery);
        let surplus = past.len().saturating_sub(MAX_RECOVERIES);
        past.drain(..surplus);

        let mut draft = self.draft(at)?;
        for id in others {
            draft.put(Table::Members, member_key(id), None)?;
        }
        draft.put(Table::Members, member_key(us.raft_id), Some(us.encode()))?;
        draft.put(Table::Meta, REMOVED_KEY.to_vec(), Some(record::encode(FORMAT, &removed)))?;
        draft.put(Table::Meta, RECOVERIES_KEY.to_vec(), Some(record::encode(FORMAT, &past)))?;
        let conf = ConfState { voters: vec![us.raft_id], ..ConfState::default() };
        let (table, key, value) = conf_state_row(&conf);
        debug_assert_eq!(key, CONF_STATE_KEY, "one row holds the configuration");
        draft.put(table, key, Some(value))?;
        self.commit(draft)?;
        self.reload()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Role;
    use crate::store::memory::MemoryState;
    use libp2p::PeerId;
    use std::sync::Arc;

    fn member(raft_id: u64) -> Member {
        Member {
            raft_id,
            peer_id: PeerId::random(),
            name: format!("m{raft_id}"),
            addresses: Vec::new(),
            role: Role::Voter,
            version: String::new(),
            witness: false,
        }
    }

    #[test]
    fn one_voter_remains_and_no_old_raft_id_ever_means_anything_again() {
        let store: Arc<dyn StateStore> = Arc::new(MemoryState::new());
        let mut machine = Machine::open(store.clone()).expect("machine");
        let members = [member(1), member(2), member(3)];
        let conf = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        machine.found(Applied { index: 1, term: 1 }, &members, &conf, 1).expect("founded");
        let us = Member { raft_id: 9, ..members[0].clone() };
        let recovery = Recovery { from: 77, upto: Applied { index: 1, term: 1 } };
        machine.recover(Applied { index: 2, term: 2 }, &us, recovery).expect("recovered");
        assert_eq!(machine.members(), [us]);
        assert_eq!(machine.conf_state().voters, [9]);
        assert!([1, 2, 3].iter().all(|id| machine.is_removed(*id)) && !machine.is_removed(9));
        assert_eq!(recoveries(&*store).expect("list"), [recovery]);
        machine.verify().expect("the digest goes along");
        // A second disaster.
        let later = Recovery { from: 78, upto: Applied { index: 5, term: 4 } };
        let us = Member { raft_id: 10, ..member(10) };
        machine.recover(Applied { index: 6, term: 5 }, &us, later).expect("recovered");
        assert_eq!(recoveries(&*store).expect("list"), [recovery, later]);
        assert!(machine.is_removed(9));
    }
}
