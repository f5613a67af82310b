//! How the peers of a founding set agree on the cluster that they begin.
//!
//! Raft needs to be told its first members, all of them the same, and Raft ids are random per data folder: so the
//! peers that `cluster.peers` names must first agree on one initial configuration. They do it by Paxos for a
//! single value, the [`Plan`]: the cluster's id and its first members with their Raft ids. Every listed peer
//! is an acceptor, any of them may propose, more than half of the list decides. Whoever learns what was chosen
//! starts Raft with exactly that, so that the death of a proposer, at any moment, leaves no two clusters.
//!
//! What holds:
//! - A [`Record`] is on disk before an answer that follows from it leaves: the caller takes it with
//!   [`Founding::unsaved`] after every call, and saves it before anything else.
//! - Peers with different lists never count for each other: they are refused, with both lists.
//! - A configuration is proposed only while no listed peer that answers is a member of a cluster; if one is, the
//!   outcome is to join it ([`Outcome::Join`]) or to refuse ([`Outcome::Refuse`]).
//! - A fresh peer that comes late finds the chosen plan with anyone who knows it; if it is in the plan it starts
//!   with it, else it joins.
//!
//! What it must never do: I/O of any kind. Time comes in as milliseconds, chance as a seed, messages as
//! values; `cluster::founding` carries them, and the tests let them get lost, doubled and late, with crashes.
//!
//! What it cannot do: a peer that loses its disk between accepting and starting breaks its promise, as in any
//! Paxos. Then a cluster may lack a voter it counts on, but two with a majority each need more than half of the
//! disks lost.

mod plan;
mod restart;
#[cfg(test)]
mod tests;

pub use plan::{majority, Ballot, Founder, Plan, Record, FORMAT, MAX_LISTED};
pub use restart::Restart;

use crate::error::Error;
use crate::planted::{self, Bug};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Each peer is asked who it is this often, in ms.
pub const PROBE: u64 = 1_000;
/// What a peer said about itself counts for this long, in ms: a few probes.
const STALE: u64 = 5 * PROBE;
/// How long a majority waits for the rest of the list, in ms: whoever was switched on at the same moment should
/// be a founder, not a guest.
pub const SETTLE: u64 = 4_000;
/// How long one phase of a proposal may take, in ms.
const PHASE: u64 = 3_000;
/// The second peer of the list proposes this much later than the first, in ms, and so on: one is enough.
const TURN: u64 = 400;
/// After somebody else's proposal, or a failed one of our own, we keep quiet for this long and up to twice of it, ms.
const QUIET: u64 = 1_000;

/// What one peer asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The asker's list, sorted; empty when it has none.
    pub list: Vec<String>,
    /// The asker's Raft id.
    pub raft_id: u64,
    /// What it asks.
    pub kind: AskKind,
}

/// The kinds of [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AskKind {
    /// Who are you, and do you belong to a cluster?
    Hello,
    /// Paxos 1a: hear nobody below this ballot any more.
    Prepare(Ballot),
    /// Paxos 2a: accept this.
    Accept(Ballot, Plan),
    /// This was chosen.
    Chosen(Plan),
}

/// What the other one answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Fresh, with the same list.
    Fresh,
    /// Paxos 1b: promised; this is who we are and what we have accepted so far.
    Promise(Ballot, Founder, Option<(Ballot, Plan)>),
    /// Paxos 2b: accepted.
    Accepted(Ballot),
    /// A higher ballot was promised to somebody.
    Refused(Ballot),
    /// This was chosen; start with it, or join it.
    Chosen(Plan),
    /// Fresh, but with this other list; an empty one: with none.
    OtherList(Vec<String>),
    /// A member of a cluster.
    Member(Belonging),
    /// Starting: ask again.
    Starting,
}

/// To which cluster a peer belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belonging {
    /// The cluster.
    pub cluster_id: u64,
    /// Its members as that peer knows them: peer ids, sorted.
    pub members: Vec<String>,
    /// How far that peer has applied the log: the higher, the fresher the members.
    pub applied: u64,
}

/// What is known of a listed peer.
#[derive(Clone, Debug)]
enum Seen {
    Fresh,
    Member(Belonging),
    OtherList(Vec<String>),
    Starting,
    Failed(String),
}

/// What became of the founding.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Not decided yet.
    Open,
    /// Start Raft with this: we are in it.
    Found(Plan),
    /// Join a cluster through one of these peers.
    Join(Vec<String>),
    /// It cannot go on: a person must look.
    Refuse(Error),
}

/// Our own proposal, if one is under way.
#[derive(Debug)]
enum Phase {
    Idle,
    Prepare { ballot: Ballot, waiting: BTreeSet<String>, promises: BTreeMap<String, Promised>, until: u64 },
    Accept { ballot: Ballot, plan: Plan, accepted: BTreeSet<String>, until: u64 },
}

/// What came with a promise.
type Promised = (Founder, Option<(Ballot, Plan)>);

/// One listed peer's part in the founding. See the module.
#[derive(Debug)]
pub struct Founding {
    us: Founder,
    record: Record,
    dirty: bool,
    max_voters: usize,
    seed: u64,
    seen: BTreeMap<String, (u64, Seen)>,
    next_hello: BTreeMap<String, u64>,
    phase: Phase,
    quiet_until: u64,
    enough_since: Option<u64>,
}

/// Messages to send: to whom, what.
pub type Mail = Vec<(String, Ask)>;

impl Founding {
    /// Begins, or goes on with what the disk remembers. `record.list` must hold `us` and be sorted. `seed` is
    /// random: the cluster's id comes from it.
    pub fn new(us: Founder, record: Record, max_voters: usize, seed: u64) -> Self {
        debug_assert!(
            record.list.contains(&us.peer) && record.list.is_sorted(),
            "the list is ours, and sorted"
        );
        Founding {
            us,
            record,
            dirty: false,
            max_voters: max_voters.max(1),
            seed,
            seen: BTreeMap::new(),
            next_hello: BTreeMap::new(),
            phase: Phase::Idle,
            quiet_until: 0,
            enough_since: None,
        }
    }

    /// The record, if it changed since it was last taken. It must be durable before anything that the last call
    /// returned is sent.
    pub fn unsaved(&mut self) -> Option<Record> {
        std::mem::take(&mut self.dirty).then(|| self.record.clone())
    }

    /// The record as it is.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// How many peers must agree.
    pub fn needed(&self) -> usize {
        majority(self.record.list.len()) - usize::from(planted::is(Bug::HalfIsEnough))
    }

    /// How many fresh peers of the list are here now, this one included.
    pub fn present(&self, now: u64) -> usize {
        self.fresh(now).len()
    }

    /// The listed peers that are not here, each with the reason.
    pub fn missing(&self, now: u64) -> Vec<(String, String)> {
        let fresh = self.fresh(now);
        let others = self.record.list.iter().filter(|p| !fresh.contains(*p));
        others
            .map(|peer| {
                let why = match self.seen.get(peer) {
                    None => "it has not answered yet".into(),
                    Some((_, Seen::Failed(why))) => why.clone(),
                    Some((_, Seen::Starting)) => "it is still starting".into(),
                    Some((_, Seen::OtherList(theirs))) => other_list(&self.record.list, theirs),
                    Some((_, Seen::Member(b))) => format!("it belongs to the cluster {:016x}", b.cluster_id),
                    Some((_, Seen::Fresh)) => "it does not answer any more".into(),
                };
                (peer.clone(), why)
            })
            .collect()
    }

    /// Whether a listed peer has not said anything of itself yet.
    pub fn is_unheard(&self) -> bool {
        let silent = |peer: &String| matches!(self.seen.get(peer), None | Some((_, Seen::Failed(_))));
        self.record.list.iter().any(|peer| *peer != self.us.peer && silent(peer))
    }

    /// What became of it by now.
    pub fn outcome(&self, now: u64) -> Outcome {
        if let Some(plan) = &self.record.chosen {
            return if plan.has(&self.us.peer, self.us.raft_id) {
                Outcome::Found(plan.clone())
            } else {
                Outcome::Join(plan.founders.iter().map(|f| f.peer.clone()).collect())
            };
        }
        let belongings: Vec<(&String, &Belonging)> = self
            .recent(now)
            .filter_map(|(peer, seen)| match seen {
                Seen::Member(belonging) => Some((peer, belonging)),
                _ => None,
            })
            .collect();
        let Some((first, freshest)) = belongings.iter().max_by_key(|(_, b)| b.applied) else {
            return Outcome::Open;
        };
        if let Some((other, b)) = belongings.iter().find(|(_, b)| b.cluster_id != freshest.cluster_id) {
            return Outcome::Refuse(Error::conflict(format!(
                "the peers that cluster.peers names belong to two clusters: peer {first} to {:016x} and peer {other} to {:016x}; run `pinfold state cleanup` on the peers of the one that is to go, or remove them from cluster.peers",
                freshest.cluster_id, b.cluster_id
            )));
        }
        if freshest.members.iter().any(|m| !self.record.list.contains(m)) {
            return Outcome::Refuse(differs(&self.record.list, freshest, &self.us.peer));
        }
        Outcome::Join(belongings.iter().map(|(peer, _)| (*peer).clone()).collect())
    }

    /// Time has passed: what is to be asked now.
    pub fn tick(&mut self, now: u64) -> Mail {
        let mut mail = Mail::new();
        if !matches!(self.outcome(now), Outcome::Open) {
            return mail;
        }
        for peer in &self.record.list {
            let due = self.next_hello.get(peer).is_none_or(|at| *at <= now);
            if *peer != self.us.peer && due {
                self.next_hello.insert(peer.clone(), now + PROBE);
                mail.push((peer.clone(), self.ask(AskKind::Hello)));
            }
        }
        match &self.phase {
            Phase::Idle => mail.extend(self.begin(now)),
            Phase::Prepare { until, .. } if *until <= now => mail.extend(self.decide(now, true)),
            Phase::Accept { until, .. } if *until <= now => self.give_up(now),
            _ => {}
        }
        mail
    }

    /// An answer came, or a sentence why none did: what follows from it.
    pub fn heard(&mut self, now: u64, from: &str, asked: &AskKind, answer: Result<Answer, String>) -> Mail {
        if !self.record.list.iter().any(|p| p == from) || self.record.chosen.is_some() {
            return Mail::new();
        }
        let seen = match &answer {
            Err(why) => Some(Seen::Failed(why.clone())),
            Ok(Answer::Fresh | Answer::Accepted(_) | Answer::Refused(_) | Answer::Promise(..)) => {
                Some(Seen::Fresh)
            }
            Ok(Answer::Member(belonging)) => Some(Seen::Member(belonging.clone())),
            Ok(Answer::OtherList(theirs)) => Some(Seen::OtherList(theirs.clone())),
            Ok(Answer::Starting) => Some(Seen::Starting),
            Ok(Answer::Chosen(_)) => None,
        };
        if let Some(seen) = seen {
            self.seen.insert(from.to_owned(), (now, seen));
        }
        match (answer, &mut self.phase) {
            (Ok(Answer::Chosen(plan)), _) => {
                self.learn(plan);
                Mail::new()
            }
            (
                Ok(Answer::Promise(theirs, founder, accepted)),
                Phase::Prepare { ballot, waiting, promises, .. },
            ) if theirs == *ballot && founder.peer == from => {
                waiting.remove(from);
                promises.insert(from.to_owned(), (founder, accepted));
                self.decide(now, false)
            }
            (Ok(Answer::Accepted(theirs)), Phase::Accept { ballot, accepted, .. }) if theirs == *ballot => {
                accepted.insert(from.to_owned());
                self.count()
            }
            (Ok(Answer::Refused(higher)), Phase::Prepare { ballot, .. } | Phase::Accept { ballot, .. })
                if higher > *ballot =>
            {
                self.give_up(now);
                // The next ballot must be above it, or it would be refused again.
                if self.record.promised.round < higher.round {
                    self.record.promised.round = higher.round;
                    self.dirty = true;
                }
                Mail::new()
            }
            (Ok(_), _) => Mail::new(),
            (Err(_), Phase::Prepare { ballot, waiting, .. })
                if *asked == AskKind::Prepare(ballot.clone()) =>
            {
                waiting.remove(from);
                self.decide(now, false)
            }
            (Err(_), _) => Mail::new(),
        }
    }

    /// Answers another peer.
    pub fn answer(&mut self, now: u64, from: &str, ask: &Ask) -> Answer {
        if ask.list != self.record.list || !self.record.list.iter().any(|p| p == from) {
            // One that only asks where we belong has no list, and may be a member of something.
            if !ask.list.is_empty() && self.record.list.iter().any(|p| p == from) {
                self.seen.insert(from.to_owned(), (now, Seen::OtherList(ask.list.clone())));
            }
            return Answer::OtherList(self.record.list.clone());
        }
        if let Some(plan) = &self.record.chosen {
            return Answer::Chosen(plan.clone());
        }
        if !matches!(self.seen.get(from), Some((_, Seen::Fresh))) {
            // It has just come up: no need to wait for the next round of questions.
            self.next_hello.remove(from);
        }
        match &ask.kind {
            AskKind::Hello => Answer::Fresh,
            AskKind::Prepare(ballot) if ballot.peer == from && *ballot >= self.record.promised => {
                self.promise(ballot, now);
                Answer::Promise(ballot.clone(), self.us.clone(), self.record.accepted.clone())
            }
            AskKind::Accept(ballot, plan)
                if ballot.peer == from
                    && *ballot >= self.record.promised
                    && plan.check(&self.record.list).is_ok() =>
            {
                self.promise(ballot, now);
                self.record.accepted = Some((ballot.clone(), plan.clone()));
                self.dirty = true;
                Answer::Accepted(ballot.clone())
            }
            AskKind::Prepare(_) | AskKind::Accept(..) => Answer::Refused(self.record.promised.clone()),
            AskKind::Chosen(plan) => {
                self.learn(plan.clone());
                Answer::Fresh
            }
        }
    }

    fn ask(&self, kind: AskKind) -> Ask {
        Ask { list: self.record.list.clone(), raft_id: self.us.raft_id, kind }
    }

    /// What listed peers said of themselves lately.
    fn recent(&self, now: u64) -> impl Iterator<Item = (&String, &Seen)> {
        self.seen.iter().filter(move |(_, (at, _))| now < at + STALE).map(|(peer, (_, seen))| (peer, seen))
    }

    /// The fresh peers that are here, with ourselves.
    fn fresh(&self, now: u64) -> BTreeSet<String> {
        let others = self.recent(now).filter(|(_, seen)| matches!(seen, Seen::Fresh));
        others.map(|(peer, _)| peer.clone()).chain([self.us.peer.clone()]).collect()
    }

    fn promise(&mut self, ballot: &Ballot, now: u64) {
        if *ballot > self.record.promised {
            self.record.promised = ballot.clone();
            self.dirty |= !planted::is(Bug::PromiseNotSaved);
            // Two that propose at once only disturb each other.
            self.give_up(now);
        }
    }

    /// Ends our own proposal; the next one comes after a random pause.
    fn give_up(&mut self, now: u64) {
        self.phase = Phase::Idle;
        let jitter = super::settings::mix(self.seed ^ now, self.record.promised.round) % QUIET;
        self.quiet_until = self.quiet_until.max(now + QUIET + jitter);
    }

    /// Proposes, if enough are here and it is our turn.
    fn begin(&mut self, now: u64) -> Mail {
        let fresh = self.fresh(now);
        // One that is starting may turn out to be a member.
        let unclear = self.recent(now).any(|(_, seen)| matches!(seen, Seen::Starting));
        if fresh.len() < self.needed() || unclear {
            self.enough_since = None;
            return Mail::new();
        }
        let since = *self.enough_since.get_or_insert(now);
        let settle = if fresh.len() == self.record.list.len() { 0 } else { SETTLE };
        let rank = fresh.iter().position(|p| *p == self.us.peer).unwrap_or(0) as u64;
        if now < (since + settle + rank * TURN).max(self.quiet_until) {
            return Mail::new();
        }
        let ballot = Ballot { round: self.record.promised.round + 1, peer: self.us.peer.clone() };
        self.record.promised = ballot.clone();
        self.dirty = true;
        let own = (self.us.clone(), self.record.accepted.clone());
        let waiting: BTreeSet<String> = fresh.into_iter().filter(|p| *p != self.us.peer).collect();
        let ask = self.ask(AskKind::Prepare(ballot.clone()));
        let mut mail: Mail = waiting.iter().map(|peer| (peer.clone(), ask.clone())).collect();
        let promises = BTreeMap::from([(self.us.peer.clone(), own)]);
        self.phase = Phase::Prepare { ballot, waiting, promises, until: now + PHASE };
        mail.extend(self.decide(now, false));
        mail
    }

    /// The first phase is over when everybody asked has answered (or failed to), or the time is.
    fn decide(&mut self, now: u64, late: bool) -> Mail {
        let needed = self.needed();
        let Phase::Prepare { ballot, waiting, promises, .. } = &self.phase else { return Mail::new() };
        if !late && !waiting.is_empty() {
            return Mail::new();
        }
        // A higher ballot was promised meanwhile, or somebody turned out to be a member of a cluster.
        let overtaken = *ballot != self.record.promised || !matches!(self.outcome(now), Outcome::Open);
        if promises.len() < needed || overtaken {
            self.give_up(now);
            return Mail::new();
        }
        // What may have been chosen already must stay chosen: the highest accepted value, if there is one.
        let earlier = promises.values().filter_map(|(_, accepted)| accepted.as_ref()).max_by_key(|(b, _)| b);
        let plan = match earlier {
            Some((_, plan)) if !planted::is(Bug::AcceptedIgnored) => plan.clone(),
            _ => {
                let cluster_id = super::settings::mix(self.seed, ballot.round).max(1);
                Plan::new(cluster_id, promises.values().map(|(founder, _)| founder), self.max_voters)
            }
        };
        if let Err(error) = plan.check(&self.record.list) {
            log::warn!(target: super::LOG, "the founding set cannot begin: {error}");
            self.give_up(now);
            return Mail::new();
        }
        let ballot = ballot.clone();
        self.record.accepted = Some((ballot.clone(), plan.clone()));
        self.dirty = true;
        let ask = self.ask(AskKind::Accept(ballot.clone(), plan.clone()));
        let others = promises.keys().filter(|p| **p != self.us.peer);
        let mut mail: Mail = others.map(|peer| (peer.clone(), ask.clone())).collect();
        let accepted = BTreeSet::from([self.us.peer.clone()]);
        self.phase = Phase::Accept { ballot, plan, accepted, until: now + PHASE };
        mail.extend(self.count());
        mail
    }

    /// The second phase is over when more than half of the list has accepted.
    fn count(&mut self) -> Mail {
        let Phase::Accept { plan, accepted, .. } = &self.phase else { return Mail::new() };
        if accepted.len() < self.needed() {
            return Mail::new();
        }
        let plan = plan.clone();
        let ask = self.ask(AskKind::Chosen(plan.clone()));
        let others = self.record.list.iter().filter(|p| **p != self.us.peer);
        let mail = others.map(|peer| (peer.clone(), ask.clone())).collect();
        self.learn(plan);
        mail
    }

    fn learn(&mut self, plan: Plan) {
        if self.record.chosen.is_none() && plan.check(&self.record.list).is_ok() {
            self.record.chosen = Some(plan);
            self.dirty = true;
            self.phase = Phase::Idle;
        }
    }
}

/// What a list has that the other has not.
fn beyond<'a>(a: &'a [String], b: &[String]) -> Vec<&'a str> {
    a.iter().filter(|p| !b.contains(p)).map(String::as_str).collect()
}

/// How another peer's list differs from ours.
fn other_list(ours: &[String], theirs: &[String]) -> String {
    if theirs.is_empty() {
        return "its service.json has no cluster.peers: give it the same list".into();
    }
    let (lacks, more) = (beyond(ours, theirs), beyond(theirs, ours));
    let mut parts = Vec::new();
    if !lacks.is_empty() {
        parts.push(format!("lacks {}", lacks.join(", ")));
    }
    if !more.is_empty() {
        parts.push(format!("has {} besides", more.join(", ")));
    }
    format!("its cluster.peers {}: all peers need the same list", parts.join(" and "))
}

/// The sentence for a list that is not the membership: the difference, and both ways out. `us` need not be in either.
pub fn differs(list: &[String], cluster: &Belonging, us: &str) -> Error {
    let not_us = |all: Vec<&str>| all.into_iter().filter(|p| *p != us).collect::<Vec<_>>().join(", ");
    let missing = not_us(beyond(list, &cluster.members));
    let extra = not_us(beyond(&cluster.members, list));
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("not a member, but listed: {missing}"));
    }
    if !extra.is_empty() {
        parts.push(format!("a member, but not listed: {extra}"));
    }
    Error::conflict(format!(
        "cluster.peers (or consensus.raft.init_peerset) does not match the members of the cluster {:016x} ({}): correct the list in service.json or remove it, or change the cluster instead (`pinfold peers rm PEER` for one that should go, `pinfold join` or `daemon --bootstrap` on one that should come)",
        cluster.cluster_id,
        parts.join("; ")
    ))
}
