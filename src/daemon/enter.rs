//! How a peer enters its cluster: go on, join, or found. The rules stand in docs/decisions/0009-founding-set.md.
//!
//! A peer whose data belongs to a cluster goes on in it, unless it is told to be in another one or its changed
//! `cluster.peers` contradicts the members. A fresh peer takes the first of these that it is given:
//!
//! 1. `--bootstrap` or an invitation: join through those peers;
//! 2. `cluster.peers` / `consensus.raft.init_peerset`: found a cluster with those, or join what they have founded;
//! 3. `cluster.bootstrap`: join through those;
//! 4. a peerstore: the members of the cluster that this peer was in before its data was lost: join it again;
//! 5. nothing: found a cluster of one.
//!
//! What must never happen: a second cluster made silently beside one that this peer was told of. Who is told of
//! peers and finds none of them waits, and then ends with a sentence that says who is missing and why.

use super::nearby::Nearby;
use super::witness;
use crate::cluster::founding::{read_record, Desk};
use crate::cluster::{self, JoinRequest};
use crate::config::{Config, Folder, Identity};
use crate::consensus::founding::{
    Answer, Belonging, Founder, Founding, Outcome, Plan, Record, Restart, MAX_LISTED,
};
use crate::consensus::Start;
use crate::error::{Error, Kind, Result};
use crate::net::rpc::Rpc;
use crate::net::split_p2p;
use crate::runtime;
use crate::state::Machine;
use crate::store::{Incarnation, StateStore};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two attempts to join.
const JOIN_AGAIN: Duration = Duration::from_secs(1);
/// How long joining may take in all before the daemon gives up.
pub(super) const JOIN_LIMIT: Duration = Duration::from_secs(120);
/// So many rounds in a row in which every address fails for good end the joining early: more than one,
/// because a peer that is just stopping hangs up in the same way as one with another secret.
const FINAL_ROUNDS: u32 = 3;
/// Most peers that a member asks at its start to which cluster they belong.
const MAX_ASKED: usize = 64;
/// The note that a peer leaves behind when the others removed it.
const REMOVED: &str = "removed";

/// Everything that the decision needs.
pub(super) struct Entry<'a> {
    pub folder: &'a Folder,
    pub config: &'a Config,
    pub identity: &'a Identity,
    pub data: &'a Path,
    pub incarnation: Incarnation,
    pub state: Arc<dyn StateStore>,
    pub rpc: &'a Rpc,
    pub desk: &'a Desk,
    /// From `--bootstrap` and from an invitation.
    pub told: &'a [Multiaddr],
    /// Whom multicast discovery has heard of, where somebody can be heard who knows our secret.
    pub around: Option<&'a Nearby>,
}

/// How the peer enters, and what its cluster was founded with, if that is known here.
pub(super) struct Entered {
    pub start: Start,
    pub chosen: Option<Plan>,
}

impl From<Start> for Entered {
    fn from(start: Start) -> Self {
        Entered { start, chosen: None }
    }
}

impl Entry<'_> {
    /// Decides, waiting for others within limits.
    ///
    /// # Errors
    /// Nobody could be reached, refused, or a person must decide: the sentence says what.
    pub(super) async fn decide(&self) -> Result<Entered> {
        let list = self.list()?;
        let record = read_record(self.data)?;
        if let Some(record) = record.as_ref().filter(|r| r.raft_id != self.incarnation.raft_id) {
            return Err(Error::corrupt(format!(
                "founding.json in {} is of the Raft id {:016x}, the data beside it of {:016x}: the folder was put together from two; run `pinfold state cleanup` and join the others again",
                self.data.display(),
                record.raft_id,
                self.incarnation.raft_id
            )));
        }
        if self.incarnation.cluster_id != 0 {
            self.go_on(&list, record.as_ref()).await?;
            self.desk.remember(self.incarnation.raft_id, list, self.bootstrap()).await?;
            return Ok(Entered { start: Start::Restart, chosen: record.and_then(|r| r.chosen) });
        }
        let entered = self.enter_fresh(&list, record).await?;
        self.desk.remember(self.incarnation.raft_id, list, self.bootstrap()).await?;
        forget_removal(self.folder);
        Ok(entered)
    }

    /// The peers of `--bootstrap`, of an invitation and of the configuration, sorted.
    fn bootstrap(&self) -> Vec<String> {
        let all = self.told.iter().chain(&self.config.cluster.bootstrap);
        let mut peers: Vec<String> =
            all.filter_map(|a| split_p2p(a).ok()).map(|(peer, _)| peer.to_string()).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// A peer that belongs to no cluster yet.
    async fn enter_fresh(&self, list: &[String], record: Option<Record>) -> Result<Entered> {
        let us = self.identity.peer_id();
        let others = |all: &[Multiaddr]| -> Vec<Multiaddr> {
            all.iter().filter(|a| split_p2p(a).map_or(true, |(peer, _)| peer != us)).cloned().collect()
        };
        if let Some(plan) = record.as_ref().and_then(|r| r.chosen.clone()) {
            // The power went between agreeing and starting.
            if plan.has(&us.to_string(), self.incarnation.raft_id) {
                return together(plan);
            }
        }
        let told = others(self.told);
        if told.is_empty() {
            self.not_removed()?;
        }
        if let Some(record) = record.as_ref().filter(|r| r.accepted.is_some() && r.chosen.is_none()) {
            if !told.is_empty() || record.list != list {
                return Err(Error::conflict(format!(
                    "this peer was about to found a cluster with {}, and they may count on it: start it with that list in cluster.peers, or give it up with `pinfold state cleanup`",
                    record.list.join(", ")
                )));
            }
        }
        if !told.is_empty() {
            self.desk.is_fresh().await;
            return self.join(&told, JOIN_LIMIT).await.map(Entered::from);
        }
        if !list.is_empty() {
            return self.found(list, record).await;
        }
        self.desk.is_fresh().await;
        let mut known = others(&self.config.cluster.bootstrap);
        let remembered = others(&self.folder.read_peerstore().map_or_else(|_| Vec::new(), |(all, _)| all));
        if !known.is_empty() {
            // Whom it is told of may be gone; whom it knew may not.
            known.extend(remembered.into_iter().filter(|a| split_p2p(a).is_ok()));
            known.dedup();
            return self.join(&known, JOIN_LIMIT).await.map(Entered::from);
        }
        if !remembered.is_empty() {
            log::info!(
                target: "cluster",
                "this peer has no data, but its peerstore knows {} address(es) of a cluster: it joins that one again",
                remembered.len()
            );
            let limit = self.config.consensus.wait_for_leader_timeout;
            return self.join(&remembered, limit).await.map(Entered::from).map_err(|error| {
                error.context(format!(
                    "this peer has no data, and {} names peers of the cluster that it was in, so it does not found another one. Start one of them, or remove that file to found a new cluster here",
                    self.folder.peerstore().display()
                ))
            });
        }
        if self.config.consensus.witness {
            return Err(witness::not_alone());
        }
        if let Some(around) = self.around {
            around.must_not_guess(self.incarnation.raft_id).await?;
        }
        Ok(Start::Found.into())
    }

    /// The founding set: peer ids, sorted, this peer among them; empty when there is none, or only ourselves.
    fn list(&self) -> Result<Vec<String>> {
        let mut list = Vec::new();
        for address in &self.config.cluster.peers {
            list.push(split_p2p(address)?.0);
        }
        for id in &self.config.consensus.init_peerset {
            list.push(id.parse::<PeerId>().map_err(|e| {
                Error::invalid(format!("consensus.raft.init_peerset has \"{id}\", which is no peer id: {e}"))
            })?);
        }
        list.push(self.identity.peer_id());
        let mut list: Vec<String> = list.iter().map(ToString::to_string).collect();
        list.sort_unstable();
        list.dedup();
        if list.len() > MAX_LISTED {
            return Err(Error::invalid(format!(
                "cluster.peers names {} peers, and {MAX_LISTED} can found a cluster: name fewer, the others join with `daemon --bootstrap`",
                list.len()
            )));
        }
        Ok(if list.len() > 1 { list } else { Vec::new() })
    }

    /// Founds a cluster with the listed peers, or joins theirs.
    async fn found(&self, list: &[String], record: Option<Record>) -> Result<Entered> {
        let us = Founder {
            peer: self.identity.peer_id().to_string(),
            raft_id: self.incarnation.raft_id,
            name: self.config.cluster.peername.clone(),
            addresses: self.rpc.host().addresses().iter().map(ToString::to_string).collect(),
            voter: false,
            release: crate::VERSION.into(),
        };
        let record = match record {
            Some(record) if record.list == list => record,
            // A promise binds whatever the list is by now.
            other => Record {
                promised: other.map(|r| r.promised).unwrap_or_default(),
                ..Record::new(self.incarnation.raft_id, list.to_vec())
            },
        };
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|e| Error::io(format!("no randomness for a cluster id: {e}")))?;
        let raft = &self.config.consensus;
        let founding = Founding::new(us, record, raft.max_voters as usize, u64::from_le_bytes(seed));
        let needed = founding.needed();
        log::info!(target: "cluster", "founding a cluster of {} listed peers, {needed} of them must be here", list.len());
        match self.desk.found(founding, raft.wait_for_leader_timeout).await? {
            Outcome::Found(plan) => {
                log::info!(
                    target: "cluster",
                    "{} peers found the cluster {:016x} together",
                    plan.founders.len(),
                    plan.cluster_id
                );
                together(plan)
            }
            Outcome::Join(through) => {
                let addresses: Vec<Multiaddr> = through
                    .iter()
                    .filter_map(|id| id.parse::<PeerId>().ok())
                    .flat_map(|peer| {
                        let known = self.rpc.host().addresses_of(&peer).into_iter();
                        known.map(move |a| a.with(Protocol::P2p(peer)))
                    })
                    .collect();
                self.join(&addresses, JOIN_LIMIT).await.map(Entered::from)
            }
            Outcome::Open | Outcome::Refuse(_) => Err(Error::internal("a founding ended without an outcome")),
        }
    }

    /// Checks that a member may go on with what it was given.
    async fn go_on(&self, list: &[String], record: Option<&Record>) -> Result<()> {
        if self.config.consensus.witness {
            witness::may_go_on(&self.state, self.identity.peer_id()).await?;
        }
        let (us, state) = (self.identity.peer_id().to_string(), self.state.clone());
        let members = runtime::unblock(move || Machine::open(state).map(|m| m.members())).await?;
        let mut members: Vec<String> = members.iter().map(|m| m.peer_id.to_string()).collect();
        members.sort_unstable();
        let own = Belonging {
            cluster_id: self.incarnation.cluster_id,
            members,
            applied: self.state.applied().index,
        };
        let restart = Restart { us: &us, list, record, own: &own };

        let bootstrap = self.bootstrap();
        let strangers = restart.strangers(&bootstrap).into_iter().filter_map(|p| p.parse().ok()).collect();
        restart.judge_bootstrap(&self.ask_all(strangers).await)?;
        if !self.told.is_empty() {
            log::info!(target: "cluster", "this peer is a member already: it goes on instead of joining again");
        }

        if restart.is_changed() {
            let all = list.iter().chain(&own.members).filter(|p| **p != us);
            let answers = self.ask_all(all.filter_map(|p| p.parse().ok()).collect()).await;
            restart.judge(&answers)?;
        }
        if let Some(notice) = restart.notice() {
            log::info!(target: "cluster", "{notice}");
        }
        Ok(())
    }

    /// Asks peers to which cluster they belong; who does not answer is left out.
    async fn ask_all(&self, mut peers: Vec<PeerId>) -> Vec<(String, Answer)> {
        peers.sort_unstable();
        peers.dedup();
        peers.truncate(MAX_ASKED);
        let asked = peers.into_iter().map(|peer| async move {
            let answer = self.desk.ask(peer, &[], self.incarnation.raft_id).await.ok()?;
            Some((peer.to_string(), answer))
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Asks to be let into the cluster of these peers until one of them does.
    async fn join(&self, through: &[Multiaddr], limit: Duration) -> Result<Start> {
        let request = JoinRequest {
            raft_id: self.incarnation.raft_id,
            name: self.config.cluster.peername.clone(),
            addresses: self.rpc.host().addresses().iter().map(ToString::to_string).collect(),
            version: crate::VERSION.into(),
        };
        let deadline = Instant::now() + limit;
        let mut final_rounds = 0;
        loop {
            let mut failures = Vec::new();
            for address in through {
                match self.join_through(address, &request).await {
                    Ok(start) => return Ok(start),
                    Err(error) => failures.push(error),
                }
            }
            let for_good = failures.iter().all(|e| waiting_is_in_vain(e.kind()));
            let kind = failures.first().map_or(Kind::Unavailable, Error::kind);
            let reasons = failures.iter().map(Error::message).collect::<Vec<_>>().join("; ");
            final_rounds = if for_good { final_rounds + 1 } else { 0 };
            if final_rounds == FINAL_ROUNDS {
                return Err(Error::new(kind, format!("could not join: {reasons}")));
            }
            if Instant::now() >= deadline {
                return Err(Error::unavailable(format!("could not join within {limit:?}: {reasons}")));
            }
            log::warn!(target: "cluster", "could not join yet: {reasons}");
            runtime::sleep(JOIN_AGAIN).await;
        }
    }

    async fn join_through(&self, address: &Multiaddr, request: &JoinRequest) -> Result<Start> {
        let (peer, dialable) = split_p2p(address)?;
        let host = self.rpc.host();
        host.connect(peer, vec![dialable]).await?;
        let reply = match self.config.consensus.witness {
            true => cluster::join_as_witness(self.rpc, peer, request).await?,
            false => cluster::join(self.rpc, peer, request).await?,
        };
        let members = reply.members()?;
        for member in &members {
            host.set_addresses(member.peer_id, member.addresses.clone());
        }
        log::info!(target: "cluster", "let in by {peer}: a cluster of {} members", members.len());
        Ok(Start::Join { cluster_id: reply.cluster_id })
    }

    /// A peer that the others removed does not come back by itself, say by systemd's restart.
    fn not_removed(&self) -> Result<()> {
        let note = self.folder.path().join(REMOVED);
        if !note.exists() {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "this peer was removed from its cluster and does not come back by itself: let it in again with `pinfold join TOKEN` or `daemon --bootstrap ADDRESS`, or make it a fresh peer with `pinfold state cleanup` (which removes {})",
            note.display()
        )))
    }
}

/// Whether a failure to join stays one however long this peer waits: another secret, another peer at the
/// address, another version, a refusal.
fn waiting_is_in_vain(kind: Kind) -> bool {
    matches!(kind, Kind::Conflict | Kind::Forbidden | Kind::Version | Kind::Invalid)
}

fn together(plan: Plan) -> Result<Entered> {
    let (cluster_id, version) = (plan.cluster_id, plan.version);
    let start = Start::FoundTogether { cluster_id, members: plan.members()?, version };
    Ok(Entered { start, chosen: Some(plan) })
}

/// Leaves a note that the others removed this peer; see [`Entry::not_removed`]. The addresses of the old cluster
/// go with it: they are no way home any more.
pub(super) fn note_removal(folder: &Folder, cluster_id: u64) {
    let note = folder.path().join(REMOVED);
    let text = format!("removed from the cluster {cluster_id:016x}\n");
    let written =
        crate::config::write_private(&note, text.as_bytes()).and_then(|()| folder.write_peerstore(&[]));
    if let Err(error) = written {
        log::warn!(target: "service", "{error}");
    }
}

/// Takes the note of [`note_removal`] away.
pub(super) fn forget_removal(folder: &Folder) {
    match std::fs::remove_file(folder.path().join(REMOVED)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            log::warn!(target: "service", "removing {}: {error}", folder.path().join(REMOVED).display());
        }
        _ => {}
    }
}
