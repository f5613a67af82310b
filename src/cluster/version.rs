//! Agreeing on the cluster version (see [`crate::state::version`]).
//!
//! Each peer says in its ping what it speaks. The leader proposes to raise the version when every member of the
//! cluster, without exception, has been heard of within the life of a ping and speaks more than the cluster does: a
//! member that is away may come back with its old build. A peer that is too old for a cluster is not let in.
//!
//! A member that joins in the very moment of a raise, and cannot follow, stops with a sentence that says what to
//! install: its data is in order, and it goes on from there once that is done.

use super::Cluster;
use crate::error::{Error, Result};
use crate::monitor::PING;
use crate::runtime;
use crate::state::{version, Command, Member};
use libp2p::PeerId;
use std::time::Duration;

/// Between two looks at what everybody speaks, at most: an upgrade is finished soon after its last peer.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Raises the cluster version when that is due, and keeps our own version in our record. A peer that was upgraded
/// has nothing else to tell: its name and addresses are what they were.
pub(super) async fn agree(cluster: Cluster) {
    let pause = LOOK_INTERVAL.min(cluster.inner.settings.ping_interval);
    loop {
        runtime::sleep(pause).await;
        if let Err(error) = cluster.raise_version().await {
            log::debug!(target: "cluster", "the cluster version was not raised yet: {error}");
        }
        if let Err(error) = cluster.tell_version().await {
            log::debug!(target: "cluster", "our version is not replicated yet: {error}");
        }
    }
}

/// The version that a joining peer's record is to carry, if it may join.
///
/// # Errors
/// [`crate::Kind::Version`] when the cluster has gone beyond what the peer speaks.
pub(super) fn of_joiner(cluster: &Cluster, peer: &PeerId, release: &str) -> Result<String> {
    let (ours, theirs) = (cluster.cluster_version(), version::spoken_by(release));
    if theirs < ours {
        let sentence = format!(
            "peer {peer} runs pinfold {release}, which speaks cluster version {theirs}, and this cluster speaks \
             version {ours}: install pinfold {} on that peer",
            version::first_release(ours)
        );
        log::warn!(target: "cluster", "not let in: {sentence}");
        return Err(Error::version(sentence));
    }
    if ours < version::MEMBER_VERSIONS {
        return Ok(String::new());
    }
    Ok(release.chars().take(Member::MAX_VERSION / char::MAX.len_utf8()).collect())
}

impl Cluster {
    /// What the log may say: raised once every member runs a pinfold that understands more.
    pub fn cluster_version(&self) -> u16 {
        self.inner.consensus.cluster_version()
    }

    /// Whether every member would understand a `Command::Reallocate`; why not, if not.
    ///
    /// # Errors
    /// A member that runs an older pinfold would have to stop.
    pub fn can_reallocate(&self) -> Result<()> {
        self.inner.consensus.check_version(version::REALLOCATE)
    }

    /// Proposes the highest version that all members speak, if we lead and it is above the present one.
    async fn raise_version(&self) -> Result<()> {
        let now = self.cluster_version();
        let leads = self.inner.consensus.leader().is_some_and(|m| m.peer_id == self.inner.me);
        if now >= version::SPOKEN || !leads {
            return Ok(());
        }
        let common = self.spoken_by_all().unwrap_or(version::FIRST).min(version::SPOKEN);
        if common <= now {
            return Ok(());
        }
        self.inner.consensus.propose(Command::RaiseVersion(common)).await?;
        log::info!(target: "cluster", "every peer can: the cluster version is {common} from now on (it was {now})");
        Ok(())
    }

    /// The highest version that every member speaks; `None` while one of them has not been heard of.
    fn spoken_by_all(&self) -> Option<u16> {
        let readings = &self.inner.readings;
        let (monitor, now) = (readings.lock(), readings.now_ms());
        let spoken = self.member_ids().into_iter().map(|peer| {
            monitor.reading(PING, &peer, now)?;
            Some(monitor.last_ping(&peer)?.speaks.max(version::FIRST))
        });
        spoken.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Tells the cluster which pinfold we run, and whether we are a witness, once that can be told.
    async fn tell_version(&self) -> Result<()> {
        let members = self.inner.consensus.members();
        let witness = self.is_witness();
        let known = members.iter().find(|m| m.peer_id == self.inner.me).is_none_or(|m| {
            let told = m.witness == witness || self.cluster_version() < version::WITNESS;
            m.version == crate::VERSION && told
        });
        if known || self.cluster_version() < version::MEMBER_VERSIONS {
            return Ok(());
        }
        self.inner.consensus.update_self(self.inner.rpc.host().addresses(), witness).await
    }
}
