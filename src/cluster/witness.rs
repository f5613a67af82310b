//! Witnesses: members that vote and hold no content. The tie-breaker of a home with two boards.
//!
//! A witness is told from the others by a trait of its replicated record ([`Member::witness`]); what that means for
//! content is said at each place that asks who holds what ([`Member::is_to_hold`], [`Cluster::holder_ids`]). Here are
//! the ways to become one: the call [`JOIN_AS`], beside the join of older releases, which has no room for a trait; and
//! the sentence that says which peers must be upgraded before a cluster can have one.
//!
//! What must hold: a record with the trait is in the log only from cluster version [`version::WITNESS`] on; whether a
//! member is a witness is decided by that member's own configuration and by nobody else; a witness is never asked
//! about content, for it has no IPFS node that could answer.

use super::rpc::{self, JoinReply, JoinRequest};
use super::{version as versions, Cluster};
use crate::error::{Error, Kind, Result};
use crate::monitor::PING;
use crate::net::rpc::{Access, Call, Rpc};
use crate::state::{version, Member};
use libp2p::PeerId;
use serde::{Deserialize, Serialize};

/// Become a member with these traits. Unknown to releases before 0.3.
const JOIN_AS: &str = "cluster.join_as";

/// A join with what [`JoinRequest`] has no field for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct JoinAs {
    request: JoinRequest,
    witness: bool,
}

/// Asks a peer to let us in as a witness; it asks the leader.
///
/// # Errors
/// As [`rpc::join`]; [`Kind::Version`] when a peer of the cluster runs a pinfold that knows no witnesses.
pub async fn join(rpc: &Rpc, peer: PeerId, request: &JoinRequest) -> Result<JoinReply> {
    let ask = JoinAs { request: request.clone(), witness: true };
    rpc.call(peer, JOIN_AS, &ask, rpc::JOIN_TIMEOUT).await.map_err(|error: Error| match error.kind() {
        Kind::Version if error.message().contains(JOIN_AS) => Error::version(format!(
            "peer {peer} runs a pinfold that knows no witnesses: install pinfold {} on every peer of the cluster, then \
             join again",
            version::first_release(version::WITNESS)
        )),
        _ => error,
    })
}

pub(super) fn register(cluster: &Cluster) {
    rpc::register_one(cluster, JOIN_AS, Access::Open, |c, call| Box::pin(serve(c, call)));
}

async fn serve(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let JoinAs { request, witness } = call.need().await?;
    if witness {
        versions::of_joiner(cluster, &call.peer(), &request.version)?;
        cluster.can_have_witness()?;
    }
    rpc::let_in(cluster, call, request, witness).await
}

impl Cluster {
    /// Whether this peer is a witness, by its own configuration.
    pub fn is_witness(&self) -> bool {
        self.inner.settings.witness
    }

    /// Refuses what only a peer with an IPFS node can do.
    pub(super) fn must_hold_content(&self, what: &str) -> Result<()> {
        match self.is_witness() {
            true => Err(Error::conflict(format!(
                "this peer is a witness and holds no content: {what} at another peer"
            ))),
            false => Ok(()),
        }
    }

    /// The members that hold content: all but the witnesses.
    pub(super) fn holder_ids(&self) -> Vec<PeerId> {
        let members = self.inner.consensus.members().into_iter();
        members.filter(|m| !m.witness).map(|m| m.peer_id).collect()
    }

    /// Whether this member is a witness, as replicated.
    pub(super) fn is_witness_member(&self, peer: &PeerId) -> bool {
        self.inner.consensus.members().iter().any(|m| m.peer_id == *peer && m.witness)
    }

    /// Whether every member of the cluster understands what a witness is.
    ///
    /// # Errors
    /// [`Kind::Version`] naming the peers that must be upgraded; [`Kind::Unavailable`] when all are and only the
    /// cluster has not noticed yet.
    fn can_have_witness(&self) -> Result<()> {
        let (speaks, needed) = (self.cluster_version(), version::WITNESS);
        if speaks >= needed {
            return Ok(());
        }
        let late = self.speak_less_than(needed);
        if late.is_empty() {
            return Err(Error::unavailable(format!(
                "a witness needs cluster version {needed}, and this cluster speaks version {speaks}: every peer can by \
                 now, it will in a moment"
            )));
        }
        Err(Error::version(format!(
            "a witness needs cluster version {needed}, and this cluster speaks version {speaks}: install pinfold {} on {}, \
             then join again",
            version::first_release(needed),
            late.join(" and on ")
        )))
    }

    /// The members that do not speak this version, as far as is known, with what they run.
    fn speak_less_than(&self, needed: u16) -> Vec<String> {
        let readings = &self.inner.readings;
        let (monitor, now) = (readings.lock(), readings.now_ms());
        let told = |m: &Member| {
            // What a living peer says counts more than what it once told the cluster.
            let ping = monitor.reading(PING, &m.peer_id, now).and(monitor.last_ping(&m.peer_id));
            ping.map_or((version::spoken_by(&m.version), m.version.clone()), |p| (p.speaks, p.version))
        };
        let members = self.inner.consensus.members().into_iter();
        let late = members.filter_map(|m| {
            let (speaks, release) = told(&m);
            let runs = if release.is_empty() { "0.1".into() } else { release };
            (speaks < needed).then(|| format!("{} ({}, which runs {runs})", m.name, m.peer_id))
        });
        late.collect()
    }
}
