//! A majority is lost for good: what a survivor's data becomes as a new cluster of one.
//!
//! **Which entries.** All that the survivor's log holds, also those of which it never heard that they were committed. An
//! entry that a client was told of is on a majority of the voters; the survivor may have it without knowing that the
//! others have it too, because the commit index travels with the *next* message. Leaving the tail out could lose an
//! acknowledged pin; taking it in can at worst carry out a command whose client heard of no outcome, which is what "no
//! outcome" means. (etcd's forced new cluster does the same; its snapshot restore does not have the tail at all.)
//!
//! **Which survivor.** The one whose last entry has the highest (term, index): by Raft's own argument it has every entry
//! that any survivor knows to be committed. What only the lost ones had is lost.
//!
//! **A new cluster.** The cluster's id, the Raft id and the term are new, the log is empty behind a mark, as after a
//! snapshot: no frame of the old cluster is heard by the new one or the other way round, so old members that come back,
//! even a majority of them together, can elect nobody *here*. The new state remembers the old id and how far it took
//! its log over ([`Recovery`]); whoever still calls under the old id is answered with that ([`super::driver::Superseded`]).
//!
//! It must never write to the survivor's own data: it reads that, and writes into a copy.

use super::bootstrap::goes_on;
use super::membership;
use crate::error::{Error, Result};
use crate::state::{Applied, Command, Machine, Member, MemberChange, RaftId, Recovery, Role};
use crate::store::{LogBatch, LogStore, StateStore};
use libp2p::PeerId;
use raft::eraftpb::{EntryType, HardState};
use std::sync::Arc;

/// Bytes of entries read at once.
const READ_BYTES: u64 = 4 << 20;

/// What a survivor has, to be compared with the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Survivor {
    /// The cluster.
    pub cluster_id: u64,
    /// Its Raft id in it.
    pub raft_id: RaftId,
    /// Its term, which may be above that of its last entry.
    pub term: u64,
    /// The last entry that it has: what survivors are compared by.
    pub last: Applied,
    /// The last entry that it knows to be committed (what is on disk lags behind).
    pub committed: u64,
    /// The last entry that its state on disk has.
    pub applied: Applied,
    /// The members, as its state on disk knows them.
    pub members: Vec<Member>,
    /// Whether it was removed from the cluster.
    pub removed: bool,
}

/// The last entry of a log, or what its state has when a snapshot was installed last.
fn last_entry(log: &dyn LogStore, applied: Applied) -> Result<Applied> {
    if !goes_on(log, applied)? {
        return Ok(applied);
    }
    let index = log.last_index();
    Ok(Applied { index, term: log.term(index)?.unwrap_or(0) })
}

/// Looks at a survivor's data.
///
/// # Errors
/// [`crate::Kind::NotFound`] when it never was a member; else what the disk says.
pub fn survey(log: &dyn LogStore, state: &Arc<dyn StateStore>) -> Result<Survivor> {
    let incarnation = log.incarnation();
    if incarnation.cluster_id == 0 {
        return Err(Error::not_found(
            "this peer never was a member of a cluster: there is nothing to recover; `pinfold join TOKEN` or `pinfold up` starts it",
        ));
    }
    let machine = Machine::open(state.clone())?;
    let (hard, applied) = (log.hard_state()?, state.applied());
    if machine.conf_state().voters.is_empty() {
        return Err(Error::not_found(
            "this peer had joined its cluster but not yet received the cluster's state: there is nothing to recover here, look at the other survivors",
        ));
    }
    Ok(Survivor {
        cluster_id: incarnation.cluster_id,
        raft_id: incarnation.raft_id,
        term: hard.term,
        last: last_entry(log, applied)?,
        committed: hard.commit.max(applied.index),
        applied,
        members: machine.members(),
        removed: machine.is_removed(incarnation.raft_id),
    })
}

/// What was made of a survivor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The cluster that was given up.
    pub from: u64,
    /// The new one.
    pub into: u64,
    /// Entries that were applied beyond what the survivor's state had on disk.
    pub replayed: u64,
    /// Of these, entries of which the survivor did not know that they were committed.
    pub uncommitted: u64,
    /// Pins in the new cluster.
    pub pins: u64,
    /// Members that were given up.
    pub given_up: Vec<PeerId>,
}

/// Makes the data of a new cluster of one: `state` is a copy of the survivor's state, `fresh` an empty log with a new
/// Raft id, `log` the survivor's, which is only read. `into` is the new cluster's id. Durable when it returns.
///
/// # Errors
/// When the stores fail, an entry is damaged, or the log does not fit to the state.
pub fn recover(
    survivor: &Survivor,
    log: &dyn LogStore,
    state: &Arc<dyn StateStore>,
    fresh: &mut dyn LogStore,
    us: PeerId,
    name: &str,
    into: u64,
) -> Result<Recovered> {
    let mut machine = Machine::open(state.clone())?;
    let before = machine.applied().index;
    replay(log, &mut machine, survivor.raft_id)?;
    let upto = survivor.last;
    if machine.applied().index != upto.index {
        return Err(Error::internal(format!(
            "the log was applied up to entry {} instead of {}",
            machine.applied().index,
            upto.index
        )));
    }
    let members = machine.members();
    let known = members.iter().find(|m| m.peer_id == us);
    let member = Member {
        raft_id: fresh.incarnation().raft_id,
        peer_id: us,
        name: name.to_owned(),
        addresses: known.map(|m| m.addresses.clone()).unwrap_or_default(),
        role: Role::Voter,
        version: known.map(|m| m.version.clone()).unwrap_or_default(),
        witness: known.is_some_and(|m| m.witness),
    };
    // A term of its own, above any that the survivor heard of.
    let at = Applied { index: upto.index + 1, term: survivor.term.max(upto.term) + 1 };
    machine.recover(at, &member, Recovery { from: survivor.cluster_id, upto })?;
    machine.verify()?;
    state.flush()?;
    let hard_state = HardState { term: at.term, commit: at.index, ..HardState::default() };
    fresh.append(LogBatch { entries: Vec::new(), hard_state: Some(hard_state), reset_to: Some(at) })?;
    fresh.set_cluster_id(into)?;
    Ok(Recovered {
        from: survivor.cluster_id,
        into,
        replayed: upto.index.saturating_sub(before),
        uncommitted: upto.index.saturating_sub(survivor.committed.max(before)),
        pins: state.count(crate::store::Table::Pins),
        given_up: members.iter().map(|m| m.peer_id).filter(|peer| *peer != us).collect(),
    })
}

/// Applies the log to its end, membership changes included, for reading a stopped peer: after a kill its state lags its
/// log. To the end and not to the commit index on disk: that one lags too, and what was acknowledged must be there; so
/// what never was may be there as well. Raft's configuration stays behind: whoever goes on with this must replace it.
///
/// # Errors
/// When the stores fail, or the log does not follow the state.
pub fn replay(log: &dyn LogStore, machine: &mut Machine, own: RaftId) -> Result<()> {
    let last = last_entry(log, machine.applied())?.index;
    while machine.applied().index < last {
        for entry in log.entries(machine.applied().index + 1, last + 1, READ_BYTES)? {
            let at = Applied { index: entry.index, term: entry.term };
            if entry.get_entry_type() == EntryType::EntryNormal {
                let command = (!entry.data.is_empty()).then(|| Command::decode(&entry.data)).transpose();
                let command = command.map_err(|e| e.context(format!("log entry {}", at.index)))?;
                // What it answered was told to whoever proposed it; here only its effect counts.
                let _ = machine.apply(at, command)?;
                continue;
            }
            let (_, change) = membership::decode_change(&entry.context)
                .map_err(|e| e.context(format!("log entry {}", at.index)))?;
            let void = match &change {
                MemberChange::Put(member) => machine.is_removed(member.raft_id),
                // Whether it came to that nobody can tell any more, and this is the peer that is left.
                MemberChange::Remove(id) => *id == own,
                MemberChange::SetRole(..) => false,
            };
            if void {
                let _ = machine.apply(at, None)?;
            } else {
                let conf = machine.conf_state();
                machine.apply_members(at, &[change], &conf)?;
            }
        }
    }
    Ok(())
}
