//! How a peer's two stores become a member's, and how they agree again after a power cut.
//!
//! A founder writes what a snapshot at entry 1 would have left: itself as the only voter, or the members that a
//! founding set agreed on (see `founding`), the same on each of them. So no log of this cluster ever begins at
//! nothing, and whoever joins gets a snapshot. A joiner only notes the cluster's id and
//! waits to be called. Every step can be cut by a power failure and done again.

use super::Start;
use crate::error::{Error, Result};
use crate::state::{version, Applied, Machine, Member, Role};
use crate::store::{LogBatch, LogStore, StateStore};
use libp2p::PeerId;
use raft::eraftpb::ConfState;
use std::sync::Arc;

/// The mark that a founder starts from.
const FOUNDED: Applied = Applied { index: 1, term: 1 };

/// Makes the stores ready for [`super::driver::Driver::open`]; returns the cluster id. `random` is the id of a
/// cluster that is founded.
///
/// # Errors
/// When the stores fail, or hold something else than `start` says.
pub fn prepare(
    start: &Start,
    peer_id: PeerId,
    name: &str,
    random: u64,
    log: &mut dyn LogStore,
    state: &Arc<dyn StateStore>,
) -> Result<u64> {
    let incarnation = log.incarnation();
    if incarnation.raft_id == 0 {
        return Err(Error::corrupt(
            "the data directory has no Raft id: run `pinfold state cleanup` and join again",
        ));
    }
    match start {
        Start::Found if incarnation.cluster_id == 0 => {
            let us = Member {
                raft_id: incarnation.raft_id,
                peer_id,
                name: name.to_owned(),
                addresses: Vec::new(),
                role: Role::Voter,
                version: crate::VERSION.to_owned(),
                witness: false,
            };
            // There is nobody who could speak less.
            found(&[us], version::SPOKEN, log, state)?;
            log.set_cluster_id(random.max(1))?;
        }
        Start::FoundTogether { cluster_id, members, version } if incarnation.cluster_id == 0 => {
            let us = members.iter().any(|m| m.raft_id == incarnation.raft_id && m.peer_id == peer_id);
            if *cluster_id == 0 || !us {
                return Err(Error::internal("the agreed members of the new cluster are without this peer"));
            }
            found(members, *version, log, state)?;
            log.set_cluster_id(*cluster_id)?;
        }
        Start::Join { cluster_id } if incarnation.cluster_id == 0 => {
            fresh(log, state)?;
            if *cluster_id == 0 {
                return Err(Error::invalid("the cluster to join has the id 0, which no cluster has"));
            }
            log.set_cluster_id(*cluster_id)?;
        }
        Start::Join { cluster_id } if incarnation.cluster_id == *cluster_id => (),
        Start::Restart if incarnation.cluster_id != 0 => (),
        Start::Restart => {
            return Err(Error::conflict("this data directory was never part of a cluster: found one or join one"))
        }
        Start::Found | Start::FoundTogether { .. } | Start::Join { .. } => {
            return Err(Error::conflict(format!(
                "this data directory belongs to the cluster {:016x}: run `pinfold state cleanup` before founding or joining another",
                incarnation.cluster_id
            )))
        }
    }
    agree(log, &**state)?;
    Ok(log.incarnation().cluster_id)
}

/// Writes the first members as a snapshot at [`FOUNDED`] would have left them.
fn found(members: &[Member], version: u16, log: &dyn LogStore, state: &Arc<dyn StateStore>) -> Result<()> {
    let ids = |role| {
        let mut ids: Vec<_> = members.iter().filter(|m| m.role == role).map(|m| m.raft_id).collect();
        ids.sort_unstable();
        ids
    };
    let conf = ConfState { voters: ids(Role::Voter), learners: ids(Role::Learner), ..ConfState::default() };
    if state.applied().index == 0 {
        fresh(log, state)?;
        Machine::open(state.clone())?.found(FOUNDED, members, &conf, version)?;
        state.flush()?;
    } else if state.applied() != FOUNDED || Machine::open(state.clone())?.conf_state() != conf {
        return Err(not_fresh());
    }
    Ok(())
}

fn fresh(log: &dyn LogStore, state: &Arc<dyn StateStore>) -> Result<()> {
    if state.applied().index > 0 || log.last_index() > 0 {
        return Err(not_fresh());
    }
    Ok(())
}

fn not_fresh() -> Error {
    Error::conflict(
        "this data directory is not fresh, but does not know its cluster: a part of it was removed; run `pinfold state cleanup` (it keeps a backup) and start again",
    )
}

/// Whether a log goes on where a state ends, or ends there. It does not in one case only: a snapshot (or the founding)
/// was installed and the power went before the log forgot what it replaced. That log may end before the snapshot; or it
/// is as long, with a tail of entries that never were committed where the snapshot has what was.
///
/// # Errors
/// [`crate::Kind::Corrupt`] when the two contradict each other, which no power cut does; the store's.
pub(crate) fn goes_on(log: &dyn LogStore, applied: Applied) -> Result<bool> {
    if applied.index + 1 < log.first_index() {
        return Err(Error::corrupt(format!(
            "the state ends at entry {} but the log begins only at {}: the data directory is damaged; run `pinfold state cleanup` and join again, or restore a backup with `pinfold state import`",
            applied.index,
            log.first_index()
        )));
    }
    let Some(term) = log.term(applied.index)? else { return Ok(false) };
    let begins = applied.index < log.first_index();
    if term != applied.term && (begins || log.hard_state()?.commit >= applied.index) {
        return Err(Error::corrupt(format!(
            "entry {} was committed in term {term} by the log and in term {} by the state: the data directory is damaged; run `pinfold state cleanup` and join again",
            applied.index, applied.term
        )));
    }
    Ok(term == applied.term)
}

/// Completes what a power cut left of the installation of a snapshot (see [`goes_on`]): the log is told now.
fn agree(log: &mut dyn LogStore, state: &dyn StateStore) -> Result<()> {
    let applied = state.applied();
    if goes_on(log, applied)? {
        return Ok(());
    }
    let mut hard_state = log.hard_state()?;
    if hard_state.term < applied.term {
        (hard_state.term, hard_state.vote) = (applied.term, 0);
    }
    hard_state.commit = hard_state.commit.max(applied.index);
    log.append(LogBatch { hard_state: Some(hard_state), reset_to: Some(applied), ..LogBatch::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::store::memory::{MemoryLog, MemoryState};
    use raft::eraftpb::{Entry, HardState};

    /// A log of these (index, term) with this commit index.
    fn log(entries: &[(u64, u64)], commit: u64) -> MemoryLog {
        let mut log = MemoryLog::new(7);
        let entries =
            entries.iter().map(|(index, term)| Entry { index: *index, term: *term, ..Entry::default() });
        let hard_state = HardState { term: 3, vote: 7, commit, ..HardState::default() };
        let batch =
            LogBatch { entries: entries.collect(), hard_state: Some(hard_state), ..LogBatch::default() };
        log.append(batch).expect("appended");
        log
    }

    /// A state as a snapshot up to there leaves it.
    fn state(applied: Applied) -> MemoryState {
        let state = MemoryState::new();
        let sink = state.begin_install().expect("a sink");
        state.install(sink, applied).expect("installed");
        state
    }

    const TAIL: [(u64, u64); 5] = [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3)];

    #[test]
    fn a_log_that_a_snapshot_has_replaced_is_forgotten() {
        // Shorter than the snapshot; as long; longer; of the same term, which is a log that goes on.
        for (index, term, forgotten) in
            [(9, 4, true), (5, 4, true), (4, 4, true), (4, 3, false), (3, 2, false)]
        {
            let (mut log, applied) = (log(&TAIL, 3), Applied { index, term });
            agree(&mut log, &state(applied)).expect("agreed");
            let hard = log.hard_state().expect("hard state");
            if forgotten {
                assert_eq!((log.first_index(), log.last_index()), (index + 1, index), "{applied:?}");
                assert_eq!(log.term(index).expect("the mark"), Some(term), "{applied:?}");
                assert_eq!((hard.term, hard.vote, hard.commit), (4, 0, index), "{applied:?}");
            } else {
                assert_eq!((log.last_index(), hard.vote, hard.commit), (5, 7, 3), "{applied:?}");
            }
        }
    }

    #[test]
    fn what_no_power_cut_leaves_is_damage() {
        let mut gap = log(&TAIL, 5);
        gap.truncate(3).expect("truncated");
        // A gap; another term at the truncation mark, and at a committed entry.
        for (index, term) in [(2, 1), (3, 4), (5, 4)] {
            let error = agree(&mut gap, &state(Applied { index, term })).expect_err("damage");
            assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        }
        assert_eq!((gap.first_index(), gap.last_index()), (4, 5), "nothing was thrown away");
    }
}
