//! Peers: who they are, adding, removing, leaving; connectivity; garbage collection on all of them.

use super::rpc::{self, Links};
use super::Cluster;
use crate::api::types::{
    ConnectGraph, ConsensusHealth, GcKey, GlobalRepoGc, Id, IpfsIdJson, MemberHealth, RepoGc,
};
use crate::error::{Error, Result};
use crate::runtime;
use crate::state::{Member, Role};
use futures::stream::BoxStream;
use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long our own IPFS node may take to say who it is.
const IPFS_ID: Duration = Duration::from_secs(5);

impl Cluster {
    /// `GET /id`; never fails because IPFS is down.
    pub async fn id(&self) -> Id {
        let me = self.inner.me;
        let members = self.inner.consensus.members();
        let others = members.iter().filter(|m| m.peer_id != me);
        let ipfs = match runtime::timeout(IPFS_ID, "the IPFS daemon", self.inner.ipfs.id()).await {
            // It has none, which is no error.
            _ if self.is_witness() => IpfsIdJson::default(),
            Ok(id) => IpfsIdJson {
                id: id.id.to_string(),
                addresses: Some(id.addresses.iter().map(ToString::to_string).collect()),
                error: self.twins(&id.id.to_string()).join("; "),
            },
            Err(error) => IpfsIdJson { id: String::new(), addresses: None, error: error.to_string() },
        };
        Id {
            id: me.to_string(),
            addresses: Some(with_p2p(&self.inner.rpc.host().addresses(), &me)),
            cluster_peers: Some(members.iter().map(|m| m.peer_id.to_string()).collect()),
            cluster_peers_addresses: Some(others.flat_map(|m| with_p2p(&m.addresses, &m.peer_id)).collect()),
            version: crate::VERSION.into(),
            commit: String::new(),
            rpc_protocol_version: super::RPC_PROTOCOL.into(),
            error: String::new(),
            ipfs: Some(ipfs),
            peername: self.inner.name.clone(),
            role: members.iter().find(|m| m.peer_id == me).map_or("", notable_role).into(),
        }
    }

    /// `GET /peers`: every member, this one first; unreachable ones with `error`.
    ///
    /// # Errors
    /// None at present.
    pub async fn peers(&self) -> Result<BoxStream<'static, Result<Id>>> {
        let mut members = self.inner.consensus.members();
        members.sort_by_key(|m| m.peer_id != self.inner.me);
        let cluster = self.clone();
        let asked = members.into_iter().map(move |member| {
            let cluster = cluster.clone();
            async move { Ok(cluster.id_of(&member).await) }
        });
        // In order, but asked all at once: one dead peer must not make the others wait.
        let width = self.inner.consensus.members().len().max(1);
        Ok(futures::stream::iter(asked).buffered(width).boxed())
    }

    async fn id_of(&self, member: &Member) -> Id {
        if member.peer_id == self.inner.me {
            return self.id().await;
        }
        let answer =
            self.inner.rpc.call::<_, String>(member.peer_id, rpc::ID, &(), super::PEER_TIMEOUT).await;
        let parsed = answer.and_then(|json| {
            serde_json::from_str::<Id>(&json)
                .map_err(|e| Error::corrupt(format!("{} sent an id that is none: {e}", member.name)))
        });
        parsed.unwrap_or_else(|error| Id {
            id: member.peer_id.to_string(),
            addresses: None,
            cluster_peers: None,
            cluster_peers_addresses: None,
            // As it last told the cluster: the others know what a dead peer ran.
            version: member.version.clone(),
            commit: String::new(),
            rpc_protocol_version: String::new(),
            error: error.to_string(),
            ipfs: Some(IpfsIdJson::default()),
            peername: String::new(),
            role: notable_role(member).into(),
        })
    }

    /// `POST /peers`: a peer becomes a member by joining (`pinfold join`); this only tells who it is.
    ///
    /// # Errors
    /// Invalid when it is not a member: the sentence says how it becomes one.
    pub async fn peer_add(&self, peer: PeerId) -> Result<Id> {
        let member = self.inner.consensus.members().into_iter().find(|m| m.peer_id == peer);
        let member = member.ok_or_else(|| {
            Error::conflict(format!(
                "{peer} is not a member: run `pinfold join` with a token of this cluster (or `daemon --bootstrap`) on that peer, it adds itself"
            ))
        })?;
        Ok(self.id_of(&member).await)
    }

    /// What Raft thinks here.
    pub fn consensus_health(&self) -> ConsensusHealth {
        let status = self.inner.consensus.status();
        let host = self.inner.rpc.host();
        let member = |m: Member| MemberHealth {
            connected: m.peer_id == self.inner.me || host.is_connected(&m.peer_id),
            peer: m.peer_id.to_string(),
            role: role_name(&m).into(),
            votes: m.role == Role::Voter,
            peername: m.name,
            raft_id: format!("{:016x}", m.raft_id),
            version: m.version,
        };
        ConsensusHealth {
            cluster_id: format!("{:016x}", status.cluster_id),
            leader: self.inner.consensus.leader().map(|m| m.peer_id.to_string()),
            term: status.term,
            committed: status.committed,
            applied: status.applied,
            cluster_version: status.cluster_version,
            members: self.inner.consensus.members().into_iter().map(member).collect(),
        }
    }

    /// Whom this peer and its IPFS node are connected to.
    pub(super) async fn links(&self) -> Links {
        let members = self.member_ids();
        let host = self.inner.rpc.host();
        let cluster = members
            .iter()
            .filter(|p| **p != self.inner.me && host.is_connected(p))
            .map(ToString::to_string)
            .collect();
        let mut links = Links { cluster, ..Links::default() };
        if let Ok(id) = runtime::timeout(IPFS_ID, "the IPFS daemon", self.inner.ipfs.id()).await {
            links.ipfs_id = Some(id.id.to_string());
            let peers = runtime::timeout(IPFS_ID, "the IPFS daemon", self.inner.ipfs.swarm_peers()).await;
            links.ipfs = peers.unwrap_or_default().iter().map(ToString::to_string).collect();
            links.ipfs.sort_unstable();
        }
        links
    }

    /// Who is connected to whom.
    ///
    /// # Errors
    /// None at present: a silent peer has no links.
    pub async fn graph(&self) -> Result<ConnectGraph> {
        let me = self.inner.me;
        let mut graph = ConnectGraph { cluster_id: me.to_string(), ..ConnectGraph::default() };
        let members = self.inner.consensus.members();
        let asked = members.iter().map(|m| async move {
            match m.peer_id == me {
                true => Ok(self.links().await),
                false => {
                    self.inner.rpc.call::<_, Links>(m.peer_id, rpc::LINKS, &(), super::PEER_TIMEOUT).await
                }
            }
        });
        for (member, links) in members.iter().zip(futures::future::join_all(asked).await) {
            let id = member.peer_id.to_string();
            graph.cluster_trust_links.insert(id.clone(), true);
            if member.witness {
                graph.witnesses.push(id.clone());
            }
            let Ok(links) = links else {
                graph.cluster_links.insert(id, Vec::new());
                continue;
            };
            graph.id_to_peername.insert(id.clone(), member.name.clone());
            graph.cluster_links.insert(id.clone(), links.cluster);
            if let Some(ipfs) = links.ipfs_id {
                graph.ipfs_links.insert(ipfs.clone(), links.ipfs);
                graph.cluster_to_ipfs.insert(id, ipfs);
            }
        }
        Ok(graph)
    }

    /// GC on all peers (or here), one after the other so that content stays reachable; errors inside.
    ///
    /// # Errors
    /// None at present.
    pub async fn gc(&self, local: bool) -> Result<GlobalRepoGc> {
        let mut peer_map = BTreeMap::new();
        for member in self.inner.consensus.members() {
            if member.witness || local && member.peer_id != self.inner.me {
                continue;
            }
            let (peer, peername) = (member.peer_id.to_string(), self.peer_name(&member.peer_id));
            let mut gc = RepoGc { peer: peer.clone(), peername, keys: Vec::new(), error: String::new() };
            if let Err(error) = self.gc_on(member.peer_id, &mut gc.keys).await {
                gc.error = error.to_string();
            }
            peer_map.insert(peer, gc);
        }
        Ok(GlobalRepoGc { peer_map })
    }

    async fn gc_on(&self, peer: PeerId, keys: &mut Vec<GcKey>) -> Result<()> {
        let mut call = self.inner.rpc.open(peer, rpc::GC, super::PEER_TIMEOUT).await?;
        call.set_idle(rpc::GC_IDLE);
        call.finish().await?;
        while let Some(batch) = call.recv::<Vec<String>>().await? {
            keys.extend(batch.into_iter().map(|key| GcKey { key: Some(key), error: String::new() }));
        }
        Ok(())
    }
}

/// What a member is, in one word.
fn role_name(member: &Member) -> &'static str {
    match (member.witness, member.role) {
        (true, _) => "witness",
        (false, Role::Voter) => "voter",
        (false, Role::Learner) => "learner",
    }
}

/// The same where it is not what peers are as a rule.
fn notable_role(member: &Member) -> &'static str {
    match role_name(member) {
        "voter" => "",
        other => other,
    }
}

/// Addresses with `/p2p/<peer>` at their end.
pub(super) fn with_p2p(addresses: &[Multiaddr], peer: &PeerId) -> Vec<String> {
    addresses.iter().map(|a| a.clone().with(Protocol::P2p(*peer)).to_string()).collect()
}
