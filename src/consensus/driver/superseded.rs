//! The news that this peer's cluster was recovered without it, and what it means here.
//!
//! Who calls a member of the recovered cluster under the old cluster's id is answered with [`Body::Recovered`]. A peer
//! that hears that compares: when all that a person ever asked of its cluster, as far as it knows, went into the new one,
//! it stops and lets its data be put aside, for it has nothing that the others lack, and comes back as a new learner. When
//! it knows more than that, somebody recovered the wrong survivor, or a majority was alive after all: then it goes on,
//! and says so, because only a person can tell which of the two is to stay, and nothing that was acknowledged may be
//! thrown away by a program.

use super::{Driver, Outlet};
use crate::consensus::message::{self, Body};
use crate::consensus::LOG;
use crate::error::Result;
use crate::state::{recoveries, Applied, Command, RaftId};
use libp2p::PeerId;
use raft::eraftpb::EntryType;

/// Entries beyond the recovery that a returning peer looks through for words of a person; more are taken for such.
const MAX_LOOK: u64 = 10_000;

/// What a member was told of its cluster by one that was recovered from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// The new cluster.
    pub into: u64,
    /// Whether everything that a person asked of this peer's cluster, as far as this peer knows, is in the new one.
    pub covered: bool,
    /// The last entry here that the new cluster lacks, when not.
    pub beyond: u64,
}

impl Driver {
    /// Tells a caller under the id of a cluster that this one was recovered from; whether it was one.
    pub(super) fn tell_recovered(
        &mut self,
        sender: PeerId,
        cluster_id: u64,
        (from, to): (RaftId, RaftId),
        out: &mut dyn Outlet,
    ) -> Result<bool> {
        let past = recoveries(&*self.state)?;
        let Some(recovery) = past.iter().find(|r| r.from == cluster_id) else { return Ok(false) };
        let body = Body::Recovered { into: self.settings.cluster_id, upto: recovery.upto };
        out.send(&super::stranger(from, sender), from, message::encode_notice(cluster_id, to, from, &body));
        Ok(true)
    }

    /// Takes the news from a member of this peer's own cluster.
    pub(super) fn hear_recovered(&mut self, from: PeerId, into: u64, upto: Applied) -> Result<()> {
        let news = self.compare(into, upto)?;
        if self.superseded == Some(news) {
            return Ok(());
        }
        let ours = self.settings.cluster_id;
        if news.covered {
            log::warn!(target: LOG, "peer {from} says that the cluster {ours:016x} lost its majority and was recovered as {into:016x}; all that this peer knows is in it");
        } else {
            log::error!(
                target: LOG,
                "peer {from} says that the cluster {ours:016x} lost its majority and was recovered as {into:016x} from entry {}, but this peer has entries up to {}: \
                 one of the two clusters must be given up by a person; see docs/guides/lost-majority.md",
                upto.index,
                news.beyond
            );
        }
        self.superseded = Some(news);
        Ok(())
    }

    /// Judges the news that the cluster was recovered as `into` from a log that ended at `upto`.
    ///
    /// Covered is a peer whose last entry of a person's is not fresher than that, in Raft's sense: whatever of its log was
    /// ever committed is then in the new cluster (see [`crate::consensus::recover`]). Empty entries of elections and what peers say of
    /// themselves do not count, so that two old members that elected each other a moment ago are covered still.
    fn compare(&self, into: u64, upto: Applied) -> Result<Superseded> {
        let log = self.node.raft.store().log();
        let covered = Superseded { into, covered: true, beyond: 0 };
        let (mark, last) = (log.first_index() - 1, log.last_index());
        let fresher = |at: Applied| (at.term, at.index) > (upto.term, upto.index);
        let mut index = last;
        while index > mark && last - index < MAX_LOOK {
            let Some(entry) = log.entries(index, index + 1, 0)?.pop() else { break };
            if !fresher(Applied { index, term: entry.term }) {
                return Ok(covered);
            }
            if entry.get_entry_type() == EntryType::EntryNormal && is_a_persons(&entry.data) {
                return Ok(Superseded { into, covered: false, beyond: index });
            }
            index -= 1;
        }
        let term = log.term(index)?.unwrap_or(0);
        if index == mark && !fresher(Applied { index, term }) {
            return Ok(covered);
        }
        Ok(Superseded { into, covered: false, beyond: last })
    }
}

/// Whether an entry changes the pins, as opposed to what peers say of themselves.
fn is_a_persons(data: &[u8]) -> bool {
    !data.is_empty()
        && !matches!(Command::decode(data), Ok(Command::UpdateMember(_) | Command::RaiseVersion(_)))
}
