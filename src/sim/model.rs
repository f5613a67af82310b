//! What the committed log means: a second, small state machine of plain maps.
//!
//! It shares nothing with [`crate::state::Machine`] but the commands' meaning: it does not decode what is in the log but
//! knows each proposal by its id, keeps every key's whole history by log index, and says for any index what a
//! peer that has applied it must show, and what the proposer must have been told. Only changes of membership are read
//! from the entries: the leaders make those by themselves.

use crate::consensus::membership;
use crate::consensus::proposals::id_of;
use crate::error::Kind;
use crate::state::{Member, MemberChange, Pin, PinMode, RaftId, Role};
use libp2p::PeerId;
use raft::eraftpb::{Entry, EntryType};
use std::collections::{BTreeMap, BTreeSet};

/// A pin as the simulator looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// The request that put it.
    pub version: u64,
    /// Whether it is a direct pin.
    pub direct: bool,
    /// Who holds it.
    pub holders: Vec<PeerId>,
    /// When it ends, in seconds; 0 for never.
    pub expires: i64,
}

/// The key of a pin's metadata that carries the version.
pub(super) const VERSION_KEY: &str = "v";

impl Value {
    /// What a stored pin shows.
    pub(super) fn of(pin: &Pin) -> Self {
        Value {
            version: pin.metadata.get(VERSION_KEY).and_then(|v| v.parse().ok()).unwrap_or(0),
            direct: pin.mode == PinMode::Direct,
            holders: pin.allocations.clone(),
            expires: if pin.expire_at.is_zero() { 0 } else { pin.expire_at.secs },
        }
    }
}

/// What a proposal means.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Put(Vec<(String, Value)>),
    Remove(String),
    Expire(String, i64),
    Move(String, PeerId, PeerId),
    Refresh(RaftId, PeerId, String),
    Raise(u16),
}

/// One entry in somebody's log, by which logs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) index: u64,
    pub(super) term: u64,
    /// The term of the entry before, where it is known.
    pub(super) before: Option<u64>,
    pub(super) hash: u64,
}

impl Stamp {
    pub(super) fn of(entry: &Entry, before: Option<u64>) -> Self {
        let mut hash = super::hash(entry.get_entry_type() as u64, &entry.data);
        hash = super::hash(hash, &entry.context);
        Stamp { index: entry.index, term: entry.term, before, hash }
    }
}

/// A member, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) peer: PeerId,
    pub(super) name: String,
    pub(super) role: Role,
}

impl Fact {
    pub(super) fn of(member: &Member) -> Self {
        Fact { peer: member.peer_id, name: member.name.clone(), role: member.role }
    }
}

pub(super) type Members = BTreeMap<RaftId, Fact>;

/// One committed entry and what came of it.
struct Committed {
    stamp: Stamp,
    proposal: Option<u64>,
    answer: Result<(), Kind>,
    keys: Vec<String>,
    pins: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Model {
    /// The mark that the cluster was founded at.
    founded: u64,
    entries: Vec<Committed>,
    ops: BTreeMap<u64, Op>,
    places: BTreeMap<u64, Vec<u64>>,
    pins: BTreeMap<String, Vec<(u64, Option<Value>)>>,
    members: Vec<(u64, Members)>,
    removed: BTreeSet<RaftId>,
    version: Vec<(u64, u16)>,
}

/// The last element whose index is not above `at`.
fn last<T>(history: &[(u64, T)], at: u64) -> Option<&T> {
    history.iter().rev().find(|(index, _)| *index <= at).map(|(_, value)| value)
}

impl Model {
    /// The cluster begins.
    pub(super) fn found(&mut self, at: u64, members: Members, version: u16) {
        self.founded = at;
        self.members.push((at, members));
        self.version.push((at, version));
    }

    pub(super) fn is_founded(&self) -> bool {
        self.founded > 0
    }

    /// Somebody will propose this.
    pub(super) fn intend(&mut self, proposal: u64, op: Op) {
        self.ops.insert(proposal, op);
    }

    /// Whose record a proposal refreshes.
    pub(super) fn refreshed(&self, proposal: u64) -> Option<(RaftId, PeerId)> {
        match self.ops.get(&proposal) {
            Some(Op::Refresh(id, peer, _)) => Some((*id, *peer)),
            _ => None,
        }
    }

    /// The last committed index.
    pub(super) fn last(&self) -> u64 {
        self.founded + self.entries.len() as u64
    }

    fn entry(&self, index: u64) -> Option<&Committed> {
        self.entries.get(usize::try_from(index.checked_sub(self.founded + 1)?).ok()?)
    }

    /// The committed entry at this index.
    pub(super) fn stamp(&self, index: u64) -> Option<Stamp> {
        self.entry(index).map(|e| e.stamp)
    }

    /// The next entry was committed.
    pub(super) fn commit(&mut self, entry: &Entry) -> Result<(), String> {
        let at = entry.index;
        let mut committed = Committed {
            stamp: Stamp::of(entry, None),
            proposal: None,
            answer: Ok(()),
            keys: Vec::new(),
            pins: self.pins_at(at - 1),
        };
        if entry.get_entry_type() != EntryType::EntryNormal {
            let (_, change) = membership::decode_change(&entry.context).map_err(|e| e.to_string())?;
            self.change(at, change);
        } else if let Some(proposal) = id_of(&entry.context) {
            let op = self.ops.get(&proposal).cloned();
            let op = op.ok_or_else(|| format!("entry {at} is of proposal {proposal}, which nobody made"))?;
            committed.proposal = Some(proposal);
            self.places.entry(proposal).or_default().push(at);
            committed.answer = self.apply(at, op, &mut committed.keys, &mut committed.pins);
        }
        self.entries.push(committed);
        Ok(())
    }

    fn apply(&mut self, at: u64, op: Op, keys: &mut Vec<String>, pins: &mut u64) -> Result<(), Kind> {
        match op {
            Op::Put(puts) => {
                // All or none; an earlier one of the same batch counts.
                let mut seen: BTreeMap<&String, &Value> = BTreeMap::new();
                for (key, value) in &puts {
                    let old = seen.get(key).copied().or_else(|| self.pin(key, at));
                    if value.direct && old.is_some_and(|old| !old.direct) {
                        return Err(Kind::Conflict);
                    }
                    seen.insert(key, value);
                }
                for (key, value) in puts {
                    *pins += u64::from(self.pin(&key, at).is_none());
                    self.set(at, key, Some(value), keys);
                }
            }
            Op::Remove(key) => {
                if self.pin(&key, at).is_none() {
                    return Err(Kind::NotFound);
                }
                *pins -= 1;
                self.set(at, key, None, keys);
            }
            Op::Expire(key, expires) => {
                if expires != 0 && self.pin(&key, at).is_some_and(|v| v.expires == expires) {
                    *pins -= 1;
                    self.set(at, key, None, keys);
                }
            }
            Op::Move(key, from, to) => {
                let old = self.pin(&key, at).filter(|v| v.holders == [from] && from != to).cloned();
                if let Some(old) = old {
                    self.set(at, key, Some(Value { holders: vec![to], ..old }), keys);
                }
            }
            Op::Refresh(id, peer, name) => {
                let mut members = self.members_at(at).cloned().unwrap_or_default();
                match members.get_mut(&id).filter(|m| m.peer == peer) {
                    Some(member) if member.name != name => {
                        member.name = name;
                        self.members.push((at, members));
                    }
                    Some(_) => (),
                    None => return Err(Kind::NotFound),
                }
            }
            Op::Raise(to) => {
                if to > self.version_at(at) {
                    self.version.push((at, to));
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, at: u64, key: String, value: Option<Value>, keys: &mut Vec<String>) {
        keys.push(key.clone());
        self.pins.entry(key).or_default().push((at, value));
    }

    fn change(&mut self, at: u64, change: MemberChange) {
        let mut members = self.members_at(at).cloned().unwrap_or_default();
        match change {
            // A removed Raft id never comes back.
            MemberChange::Put(member) if self.removed.contains(&member.raft_id) => return,
            MemberChange::Put(ref member) => {
                members.insert(member.raft_id, Fact::of(member));
            }
            MemberChange::SetRole(id, role) => {
                if let Some(member) = members.get_mut(&id) {
                    member.role = role;
                }
            }
            MemberChange::Remove(id) => {
                members.remove(&id);
            }
        }
        // Nobody would be left to decide anything.
        if !members.values().any(|m| m.role == Role::Voter) {
            return;
        }
        if let MemberChange::Remove(id) = change {
            self.removed.insert(id);
        }
        self.members.push((at, members));
    }

    /// What is pinned under this key for whoever has applied `at`.
    pub(super) fn pin(&self, key: &str, at: u64) -> Option<&Value> {
        last(self.pins.get(key)?, at)?.as_ref()
    }

    /// All pins for whoever has applied `at`.
    pub(super) fn all_pins(&self, at: u64) -> BTreeMap<String, Value> {
        self.pins.keys().filter_map(|key| Some((key.clone(), self.pin(key, at)?.clone()))).collect()
    }

    /// How many.
    pub(super) fn pins_at(&self, at: u64) -> u64 {
        self.entry(at).map_or(0, |e| e.pins)
    }

    /// Keys that the entry at this index changed.
    pub(super) fn keys(&self, at: u64) -> &[String] {
        self.entry(at).map_or(&[], |e| &e.keys)
    }

    /// The members for whoever has applied `at`.
    pub(super) fn members_at(&self, at: u64) -> Option<&Members> {
        last(&self.members, at)
    }

    /// Each set of members that held somewhere from `from` up to `to`.
    pub(super) fn members_between(&self, from: u64, to: u64) -> impl Iterator<Item = &Members> {
        let inside = self.members.iter().filter(move |(index, _)| *index > from && *index <= to);
        self.members_at(from).into_iter().chain(inside.map(|(_, members)| members))
    }

    /// The members now.
    pub(super) fn members(&self) -> Option<&Members> {
        self.members.last().map(|(_, members)| members)
    }

    /// The entry that changed the members last.
    pub(super) fn members_since(&self) -> u64 {
        self.members.last().map_or(0, |(index, _)| *index)
    }

    /// Whether this Raft id was removed.
    pub(super) fn is_removed(&self, id: RaftId) -> bool {
        self.removed.contains(&id)
    }

    /// The cluster version for whoever has applied `at`.
    pub(super) fn version_at(&self, at: u64) -> u16 {
        last(&self.version, at).copied().unwrap_or_default()
    }

    /// Where in the log a proposal is.
    pub(super) fn places(&self, proposal: u64) -> &[u64] {
        self.places.get(&proposal).map_or(&[], Vec::as_slice)
    }

    /// Whether a proposer was told the truth: that its change is at `index`.
    pub(super) fn is_so(&self, proposal: u64, index: u64) -> Result<(), String> {
        match self.entry(index) {
            None => Err(format!("entry {index} is not committed")),
            Some(e) if e.proposal != Some(proposal) => Err(format!("entry {index} is of another proposal")),
            Some(Committed { answer: Err(kind), .. }) => {
                Err(format!("entry {index} was refused by every peer ({kind:?})"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether a proposer was told the truth: that its change was refused like this.
    pub(super) fn is_refused(&self, proposal: u64, kind: Kind) -> bool {
        self.places(proposal).iter().filter_map(|at| self.entry(*at)).any(|e| e.answer == Err(kind))
    }
}
