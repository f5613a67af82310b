//! What must never be false, looked at whenever a peer has done something.
//!
//! Every check costs what has changed since the last look, not what there is: entries that were appended, committed
//! or applied since. What a peer says is believed only when its turn is over; while it waits for its disk, what it
//! has in memory may still be lost with the power.

use super::client::{Reading, Request, Ticket};
use super::cluster::Node;
use super::model::{Fact, Members, Model, Stamp, Value};
use super::network::Peer;
use crate::consensus::driver::Driver;
use crate::error::{self, Kind};
use crate::state::{Pin, RaftId, Role};
use crate::store::{LogStore, StateStore, Table};
use raft::eraftpb::{Message, MessageType};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which: the same word for the same promise.
    pub kind: &'static str,
    /// What was seen.
    pub sentence: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.sentence, self.kind)
    }
}

impl std::error::Error for Broken {}

/// A broken promise in words.
pub(super) fn broken(kind: &'static str, sentence: impl Into<String>) -> Broken {
    Broken { kind, sentence: sentence.into() }
}

/// What a peer was seen at last.
#[derive(Clone, Copy, Default)]
struct Seen {
    life: u64,
    term: u64,
    committed: u64,
    applied: u64,
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Checks {
    pub(super) model: Model,
    leaders: BTreeMap<u64, RaftId>,
    stamps: HashMap<(u64, u64), Stamp>,
    /// In which term a committed entry was seen committed first.
    committed_in: Vec<u64>,
    votes: HashMap<(u64, RaftId), RaftId>,
    granted: HashMap<(u64, RaftId), BTreeSet<RaftId>>,
    digests: HashMap<u64, (u128, Peer)>,
    seen: BTreeMap<Peer, Seen>,
    /// Answers that left in the middle of a turn, before anybody could see the commit.
    early: Vec<(Ticket, u64)>,
    early_refusals: Vec<(Ticket, Kind)>,
    /// Entries that some peer has installed as a snapshot or replayed, counted for the report.
    pub(super) compared: u64,
}

/// Who has what on which disk, for those that ask whether an entry is safe.
pub(super) trait Disks {
    /// Whether the disk of this Raft id has the entry for good.
    fn has(&self, id: RaftId, index: u64, term: u64) -> bool;
}

impl Checks {
    /// How many leaders there were.
    pub(super) fn leaders(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// Entries went into a log: everywhere the same entry at the same index and term, and after the same one.
    pub(super) fn stamped(&mut self, peer: Peer, stamps: &[Stamp]) -> Result<(), Broken> {
        for stamp in stamps {
            let known = self.stamps.entry((stamp.index, stamp.term)).or_insert(*stamp);
            if known.hash != stamp.hash {
                return Err(broken(
                    "log matching",
                    format!(
                        "peer {peer} has another entry {} of term {} than others",
                        stamp.index, stamp.term
                    ),
                ));
            }
            match (known.before, stamp.before) {
                (Some(a), Some(b)) if a != b => {
                    return Err(broken(
                        "log matching",
                        format!(
                            "before entry {} of term {} peer {peer} has one of term {b} and others one of term {a}",
                            stamp.index, stamp.term
                        ),
                    ))
                }
                (None, before) => known.before = before,
                _ => (),
            }
        }
        Ok(())
    }

    /// A message arrives: nobody votes for two in one term.
    pub(super) fn heard(&mut self, message: &Message) -> Result<(), Broken> {
        if message.get_msg_type() != MessageType::MsgRequestVoteResponse || message.reject {
            return Ok(());
        }
        let (term, voter, candidate) = (message.term, message.from, message.to);
        let first = *self.votes.entry((term, voter)).or_insert(candidate);
        if first != candidate {
            return Err(broken(
                "two votes",
                format!("Raft id {voter} voted for {first} and for {candidate} in term {term}"),
            ));
        }
        self.granted.entry((term, candidate)).or_default().insert(voter);
        Ok(())
    }

    /// Looks at a peer whose turn is over.
    pub(super) fn see(&mut self, peer: Peer, node: &Node, disks: &dyn Disks) -> Result<(), Broken> {
        let Some(driver) = &node.driver else { return Ok(()) };
        let status = driver.status();
        let seen = self.seen.get(&peer).copied().filter(|s| s.life == node.life);
        let fresh = seen.is_none();
        let before = seen.unwrap_or_default();
        if status.term < before.term || status.committed < before.committed || status.applied < before.applied
        {
            return Err(broken(
                "backwards",
                format!(
                    "peer {peer} went back from term {}, committed {}, applied {} to {}, {}, {}",
                    before.term,
                    before.committed,
                    before.applied,
                    status.term,
                    status.committed,
                    status.applied
                ),
            ));
        }
        if status.applied > status.committed {
            return Err(broken(
                "applied too much",
                format!("peer {peer} has applied more than is committed"),
            ));
        }
        let leads = driver.leads();
        self.commits(peer, node, driver, before.committed, leads, disks)?;
        if leads && !self.leaders.contains_key(&status.term) {
            self.leaders.insert(status.term, status.raft_id);
            self.elected(peer, node, driver, before.applied)?;
        }
        if leads && self.leaders.get(&status.term) != Some(&status.raft_id) {
            return Err(broken("two leaders", format!("term {} has two leaders", status.term)));
        }
        if status.applied != before.applied || fresh {
            self.applies(peer, node, driver, before.applied, fresh)?;
        }
        let now =
            Seen { life: node.life, term: status.term, committed: status.committed, applied: status.applied };
        self.seen.insert(peer, now);
        Ok(())
    }

    /// What a peer takes for committed is committed, and the same for all.
    fn commits(
        &mut self,
        peer: Peer,
        node: &Node,
        driver: &Driver,
        before: u64,
        leads: bool,
        disks: &dyn Disks,
    ) -> Result<(), Broken> {
        let (committed, term) = (driver.status().committed, driver.status().term);
        if committed <= before || !self.model.is_founded() {
            return Ok(());
        }
        let known = self.model.last();
        let from = node.log.first_index().max(before + 1);
        if committed > known && from > known + 1 {
            return Err(broken(
                "unknown commit",
                format!("peer {peer} has a snapshot up to entry {committed}, but only {known} were ever committed"),
            ));
        }
        let entries = match from <= committed {
            true => node.log.entries(from, committed + 1, u64::MAX),
            false => Ok(Vec::new()),
        };
        let entries = entries.map_err(|e| broken("unreadable", format!("peer {peer}: {e}")))?;
        for entry in &entries {
            match self.model.stamp(entry.index) {
                Some(stamp) => {
                    let ours = Stamp::of(entry, None);
                    if (ours.term, ours.hash) != (stamp.term, stamp.hash) {
                        return Err(broken(
                            "committed entries change",
                            format!(
                                "peer {peer} has committed entry {} of term {}, others of term {}",
                                entry.index, ours.term, stamp.term
                            ),
                        ));
                    }
                }
                None if entry.index <= known => (),
                None => {
                    self.model.commit(entry).map_err(|why| broken("unknown entry", why))?;
                    self.committed_in.push(term);
                }
            }
        }
        if leads && committed > known {
            self.is_safe(peer, node, driver, known, disks)?;
            // One that has just taken office may have heard of it from the leader before.
            let led = self.leaders.get(&term) == Some(&driver.status().raft_id);
            if led && self.model.stamp(committed).is_some_and(|stamp| stamp.term < term) {
                return Err(broken(
                    "committed by an older term",
                    format!("peer {peer} leads term {term} and counts copies of the older entry {committed}"),
                ));
            }
        }
        self.early_answers()
    }

    /// A leader calls committed what a majority of the voters has on its disks.
    fn is_safe(
        &self,
        peer: Peer,
        node: &Node,
        driver: &Driver,
        known: u64,
        disks: &dyn Disks,
    ) -> Result<(), Broken> {
        let committed = driver.status().committed;
        let Some(stamp) = self.model.stamp(committed) else { return Ok(()) };
        let has = |id: RaftId| disks.has(id, committed, stamp.term);
        let safe = |members: &Members| {
            let voters = members.iter().filter(|(_, m)| m.role == Role::Voter);
            let (all, with) =
                voters.fold((0, 0), |(all, with), (id, _)| (all + 1, with + usize::from(has(*id))));
            with > all / 2
        };
        // The configuration may have changed among these entries: the commit was by one of them.
        let from = self.seen.get(&peer).filter(|s| s.life == node.life).map_or(0, |s| s.applied.min(known));
        if self.model.members_between(from, driver.status().applied).any(safe) {
            return Ok(());
        }
        Err(broken(
            "committed without a majority",
            format!(
                "peer {peer} calls entry {committed} committed, which is on no majority of the voters' disks"
            ),
        ))
    }

    /// A new leader has a majority of votes, of members, and every entry that was committed before its term.
    fn elected(&self, peer: Peer, node: &Node, driver: &Driver, applied: u64) -> Result<(), Broken> {
        let status = driver.status();
        let none = BTreeSet::new();
        let granted = self.granted.get(&(status.term, status.raft_id)).unwrap_or(&none);
        let elects = |members: &Members| {
            let voters = members.iter().filter(|(_, m)| m.role == Role::Voter).map(|(id, _)| id);
            let (all, with) = voters.fold((0, 0), |(all, with), id| {
                (all + 1, with + usize::from(*id == status.raft_id || granted.contains(id)))
            });
            with > all / 2 && members.get(&status.raft_id).is_some_and(|m| m.role == Role::Voter)
        };
        if self.model.is_founded() && !self.model.members_between(applied, status.applied).any(elects) {
            return Err(broken(
                "elected without a majority",
                format!("peer {peer} leads term {} by the votes of Raft ids {granted:?}", status.term),
            ));
        }
        let (first, last) = (node.log.first_index(), node.log.last_index());
        let base = self.model.last() - self.committed_in.len() as u64;
        let before = self.committed_in.partition_point(|term| *term < status.term) as u64;
        // Terms of commits do not fall with the index, so this is the last one that was committed before.
        let must = base + before;
        if last < must {
            return Err(broken(
                "leader completeness",
                format!(
                    "peer {peer} leads term {} with a log up to {last}, but {must} was committed",
                    status.term
                ),
            ));
        }
        for index in first..=must {
            let term = node.log.term(index).ok().flatten();
            if self.model.stamp(index).is_some_and(|s| Some(s.term) != term) {
                return Err(broken(
                    "leader completeness",
                    format!("peer {peer} leads term {} without the committed entry {index}", status.term),
                ));
            }
        }
        Ok(())
    }

    /// What a peer has applied is what the model says.
    fn applies(
        &mut self,
        peer: Peer,
        node: &Node,
        driver: &Driver,
        before: u64,
        fresh: bool,
    ) -> Result<(), Broken> {
        let status = driver.status();
        let at = status.applied;
        let machine = driver.machine();
        let (first, who) = *self.digests.entry(at).or_insert((machine.digest(), peer));
        if first != machine.digest() {
            return Err(broken("divergence", format!("peers {who} and {peer} differ at entry {at}")));
        }
        if !self.model.is_founded() || at == 0 {
            return Ok(());
        }
        if fresh || node.state.installed().index > before {
            // Everything may be different: look at everything.
            self.compare(peer, node, at)?;
        } else {
            for index in before + 1..=at {
                for key in self.model.keys(index) {
                    let record = node.state.get(Table::Pins, &super::cluster::cid_of(key).to_bytes());
                    let record = record.map_err(|e| broken("unreadable", e.to_string()))?;
                    let found = record.as_deref().map(named).transpose()?.map(|(_, value)| value);
                    differs(peer, at, key, self.model.pin(key, at), found.as_ref())?;
                }
                self.compared += 1;
            }
        }
        if node.state.count(Table::Pins) != self.model.pins_at(at) {
            return Err(broken(
                "divergence",
                format!(
                    "peer {peer} counts {} pins at entry {at}, there are {}",
                    node.state.count(Table::Pins),
                    self.model.pins_at(at)
                ),
            ));
        }
        self.members(peer, driver, at)
    }

    fn members(&self, peer: Peer, driver: &Driver, at: u64) -> Result<(), Broken> {
        let empty = Members::new();
        let wanted = self.model.members_at(at).unwrap_or(&empty);
        let found = driver.members();
        let same =
            wanted.len() == found.len() && found.iter().all(|(id, m)| wanted.get(id) == Some(&Fact::of(m)));
        if !same {
            return Err(broken(
                "divergence",
                format!("peer {peer} has the members {found:?} at entry {at}, and should have {wanted:?}"),
            ));
        }
        let conf = driver.machine().conf_state();
        let ids = |role| wanted.iter().filter(move |(_, m)| m.role == role).map(|(id, _)| *id);
        if !ids(Role::Voter).eq(conf.voters.iter().copied())
            || !ids(Role::Learner).eq(conf.learners.iter().copied())
        {
            return Err(broken(
                "divergence",
                format!(
                    "peer {peer} has the configuration {conf:?} at entry {at}, and should have {wanted:?}"
                ),
            ));
        }
        if found.keys().any(|id| self.model.is_removed(*id) && !wanted.contains_key(id)) {
            return Err(broken(
                "removed member",
                format!("peer {peer} takes a removed Raft id for a member"),
            ));
        }
        if driver.status().cluster_version != self.model.version_at(at) {
            return Err(broken(
                "divergence",
                format!("peer {peer} speaks another cluster version at entry {at}"),
            ));
        }
        Ok(())
    }

    /// Compares a peer's whole list of pins.
    pub(super) fn compare(&mut self, peer: Peer, node: &Node, at: u64) -> Result<(), Broken> {
        self.compared += 1;
        let rows = node.state.scan(Table::Pins, None, usize::MAX);
        let mut wanted = self.model.all_pins(at);
        for (_, record) in rows.map_err(|e| broken("unreadable", e.to_string()))? {
            let (name, found) = named(&record)?;
            differs(peer, at, &name, wanted.remove(&name).as_ref(), Some(&found))?;
        }
        match wanted.into_iter().next() {
            Some((name, value)) => differs(peer, at, &name, Some(&value), None),
            None => Ok(()),
        }
    }

    /// Somebody was answered.
    pub(super) fn answered(
        &mut self,
        ticket: Ticket,
        request: &Request,
        result: &error::Result<u64>,
        reading: Option<&Reading>,
        (floor, asks): (u64, u64),
    ) -> Result<(), Broken> {
        if let Some(reading) = reading {
            if reading.applied < floor {
                return Err(broken(
                    "stale read",
                    format!(
                        "a read was answered at entry {}, but entry {floor} was acknowledged before it was asked",
                        reading.applied
                    ),
                ));
            }
        }
        if !request.is_command() {
            return Ok(());
        }
        match result {
            Ok(index) => {
                self.early.push((ticket, *index));
                self.early_answers()
            }
            // One that was asked more than once may be in conflict with what nobody can tell any more.
            Err(e) if e.kind() == Kind::NotFound || e.kind() == Kind::Conflict && asks <= 1 => {
                self.early_refusals.push((ticket, e.kind()));
                self.early_answers()
            }
            Err(_) => Ok(()),
        }
    }

    fn early_answers(&mut self) -> Result<(), Broken> {
        let last = self.model.last();
        for (ticket, index) in &self.early {
            if *index <= last {
                self.model.is_so(*ticket, *index).map_err(|why| {
                    broken("false acknowledgement", format!("request {ticket} was acknowledged, but {why}"))
                })?;
            }
        }
        self.early.retain(|(_, index)| *index > last);
        let model = &self.model;
        self.early_refusals.retain(|(ticket, kind)| !model.is_refused(*ticket, *kind));
        match self.early_refusals.iter().find(|(ticket, _)| !model.places(*ticket).is_empty()) {
            None => Ok(()),
            Some((ticket, kind)) => Err(broken(
                "false refusal",
                format!("request {ticket} was refused ({kind:?}), but the log does not say so"),
            )),
        }
    }

    /// A request whose answer nobody has seen committed.
    pub(super) fn told_too_early(&self) -> Option<Ticket> {
        let done = self.early.first().map(|(ticket, _)| *ticket);
        done.or(self.early_refusals.first().map(|(ticket, _)| *ticket))
    }

    /// The stores of a peer agree with each other, as they are on the disk.
    pub(super) fn durable(&self, peer: Peer, node: &Node) -> Result<(), Broken> {
        let (state, log) = (node.state.durable(), node.log.durable_mark());
        if log.index > state.index.max(node.state.installed().index) {
            return Err(broken(
                "truncated too far",
                format!(
                    "peer {peer} has truncated its log up to {}, its state is durable up to {}",
                    log.index, state.index
                ),
            ));
        }
        let installed = node.state.installed() == state || Some(state.index) == self.founded();
        if !installed && state.index > 0 && !node.log.has_durably(state.index, state.term) {
            return Err(broken(
                "state ahead of the log",
                format!(
                    "peer {peer} has a state of entry {} on its disk, and no such entry in its log",
                    state.index
                ),
            ));
        }
        Ok(())
    }

    fn founded(&self) -> Option<u64> {
        self.model.is_founded().then(|| self.model.last() - self.committed_in.len() as u64)
    }

    /// The peers that vote now, as far as they are known.
    pub(super) fn voters(&self) -> impl Iterator<Item = RaftId> + '_ {
        let members = self.model.members().into_iter().flatten();
        members.filter(|(_, m)| m.role == Role::Voter).map(|(id, _)| *id)
    }
}

/// A pin out of its record.
fn named(record: &[u8]) -> Result<(String, Value), Broken> {
    let pin = Pin::decode(record).map_err(|e| broken("unreadable", e.to_string()))?;
    let value = Value::of(&pin);
    Ok((pin.name, value))
}

fn differs(
    peer: Peer,
    at: u64,
    key: &str,
    wanted: Option<&Value>,
    found: Option<&Value>,
) -> Result<(), Broken> {
    if wanted == found {
        return Ok(());
    }
    let kind = match (wanted, found) {
        (None, Some(_)) => "a removed pin is back",
        (Some(_), None) => "a pin is lost",
        _ => "divergence",
    };
    Err(broken(
        kind,
        format!("peer {peer} has {found:?} for {key} at entry {at}, and should have {wanted:?}"),
    ))
}
