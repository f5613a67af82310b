//! What is agreed on: the initial configuration as a whole, and what a peer must remember while it is agreed on.
//!
//! Both are written as text into `founding.json` and travel between peers; peer ids and addresses are text here
//! and become [`Member`]s when Raft starts. Whatever comes from the wire or the disk goes through
//! [`Plan::check`] before it is used.

use crate::error::{Error, Result};
use crate::state::{version, Member, Role};
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most peers in a founding set. Far above the number of voters; each of them asks every other one.
pub const MAX_LISTED: usize = 64;
/// The format of [`Record`].
pub const FORMAT: u32 = 1;

/// A proposal number: higher rounds win, the peer breaks the tie. No two proposals share one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts up.
    pub round: u64,
    /// Who proposes.
    pub peer: String,
}

/// A fresh peer, as it would become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    /// Its libp2p identity.
    pub peer: String,
    /// The Raft id of its data folder.
    pub raft_id: u64,
    /// Its name.
    pub name: String,
    /// Where it listens, without `/p2p/…`.
    pub addresses: Vec<String>,
    /// Whether it votes from the beginning.
    pub voter: bool,
    /// The version of its software.
    pub release: String,
}

impl Founder {
    /// As Raft and the state of a cluster that speaks `version` know it.
    fn member(&self, version: u16) -> Result<Member> {
        let peer_id: PeerId = self
            .peer
            .parse()
            .map_err(|e| Error::invalid(format!("\"{}\" in a founding set is no peer id: {e}", self.peer)))?;
        if self.raft_id == 0 {
            return Err(Error::invalid(format!("peer {peer_id} announces a Raft id of zero")));
        }
        let addresses = self.addresses.iter().filter_map(|a| a.parse().ok()).take(Member::MAX_ADDRESSES);
        let role = if self.voter { Role::Voter } else { Role::Learner };
        let member = Member {
            raft_id: self.raft_id,
            peer_id,
            name: self.name.clone(),
            addresses: addresses.collect(),
            role,
            version: match version < version::MEMBER_VERSIONS {
                true => String::new(),
                false => self.release.chars().take(Member::MAX_VERSION / char::MAX.len_utf8()).collect(),
            },
            // A founder that is one says so as soon as it is a member (`Consensus::update_self`).
            witness: false,
        };
        // As it will be stored: every founder must begin with the very same bytes.
        Member::decode(&member.encode())
    }
}

/// The initial configuration: the value that the listed peers agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The id of the cluster, random.
    pub cluster_id: u64,
    /// The cluster version that it begins with: the highest that all founders speak.
    pub version: u16,
    /// Its first members, sorted by peer id; a majority of the list or more.
    pub founders: Vec<Founder>,
}

impl Plan {
    /// A plan of these founders, sorted by peer id; the first `max_voters` of them vote.
    pub fn new<'a>(
        cluster_id: u64,
        founders: impl IntoIterator<Item = &'a Founder>,
        max_voters: usize,
    ) -> Plan {
        let founders: Vec<Founder> = founders
            .into_iter()
            .enumerate()
            .map(|(n, f)| Founder { voter: n < max_voters, ..f.clone() })
            .collect();
        let spoken = founders.iter().map(|f| version::spoken_by(&f.release)).min();
        Plan { cluster_id, version: spoken.unwrap_or(version::FIRST), founders }
    }

    /// The first members, as Raft and the state know them.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] for an id that is none; addresses that are none are left out.
    pub fn members(&self) -> Result<Vec<Member>> {
        self.founders.iter().map(|f| f.member(self.version)).collect()
    }

    /// The founder with this identity and Raft id, if it is one.
    pub fn has(&self, peer: &str, raft_id: u64) -> bool {
        self.founders.iter().any(|f| f.peer == peer && f.raft_id == raft_id)
    }

    /// Whether a cluster of this list may begin so.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] saying what is wrong.
    pub fn check(&self, list: &[String]) -> Result<()> {
        let fail = |why: String| Err(Error::invalid(format!("an initial configuration was proposed {why}")));
        if self.cluster_id == 0 {
            return fail("with the cluster id 0, which no cluster has".into());
        }
        if !(version::FIRST..=version::SPOKEN).contains(&self.version) {
            return fail(format!(
                "for the cluster version {}, which this program does not speak",
                self.version
            ));
        }
        if self.founders.len() < majority(list.len()) {
            return fail(format!(
                "with {} of {} peers, which is no majority",
                self.founders.len(),
                list.len()
            ));
        }
        if !self.founders.is_sorted_by(|a, b| a.peer < b.peer) {
            return fail("with a peer twice, or out of order".into());
        }
        if let Some(stranger) = self.founders.iter().find(|f| !list.contains(&f.peer)) {
            return fail(format!("with peer {}, which is not in the list", stranger.peer));
        }
        let members = self.members()?;
        let ids: BTreeSet<u64> = members.iter().map(|m| m.raft_id).collect();
        if ids.len() < members.len() {
            return fail("with one Raft id for two peers: a data folder was copied".into());
        }
        if !members.iter().any(|m| m.role == Role::Voter) {
            return fail("without a voter".into());
        }
        Ok(())
    }
}

/// What a peer must remember of a founding, on disk before it is told to anyone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// The Raft id of the data folder that this belongs to.
    pub raft_id: u64,
    /// The list that the founding is for, sorted; later, the list that was last found right.
    pub list: Vec<String>,
    /// No proposal below this one is heard any more.
    pub promised: Ballot,
    /// The last proposal that was accepted.
    pub accepted: Option<(Ballot, Plan)>,
    /// What was chosen, once known. It never changes.
    pub chosen: Option<Plan>,
    /// The peers of `--bootstrap` and `cluster.bootstrap` that this peer last started with, sorted.
    #[serde(default)]
    pub bootstrap: Vec<String>,
}

impl Record {
    /// The record of a peer that has heard nothing yet.
    pub fn new(raft_id: u64, list: Vec<String>) -> Self {
        Record { format: FORMAT, raft_id, list, ..Record::default() }
    }
}

/// How many of `n` are more than half.
pub fn majority(n: usize) -> usize {
    n / 2 + 1
}
