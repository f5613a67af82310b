//! Applying the log: each committed entry becomes one batch of writes, with the applied mark in it.
//!
//! Two kinds of failure are kept apart. The *inner* result of [`Machine::apply`] is the command's answer,
//! the same on every peer that applies the same entry to the same state: a pin that is not there, a mode
//! that contradicts. The *outer* error is this peer's alone (its disk): nothing of the entry was applied,
//! and the peer must stop, because applying the next one would make it differ from the others.
//!
//! The machine caches the members, which are few and asked for all the time; pins stay in the store.

use super::codec::check_version;
use super::digest;
use super::types::{Applied, Command, Event, Member, Outcome, RaftId, Role};
use super::{version, Move, Pin, PinMode};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::planted::{self, Bug};
use crate::store::{record, StateStore, Table, WriteBatch};
use cid::Cid;
use raft::eraftpb::ConfState;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

mod recover;

pub use recover::{recoveries, Recovery};

/// Key of the digest in [`Table::Meta`].
pub(crate) const DIGEST_KEY: &[u8] = b"digest";
/// Key of the Raft configuration in [`Table::Meta`].
const CONF_STATE_KEY: &[u8] = b"conf_state";
/// Key of the list of removed Raft ids in [`Table::Meta`].
const REMOVED_KEY: &[u8] = b"removed";
/// Key of the cluster version in [`Table::Meta`]; where it is not, the version is [`version::FIRST`].
const VERSION_KEY: &[u8] = b"cluster_version";
/// Format of the records this module makes.
const FORMAT: u8 = 1;

/// How many removed Raft ids are remembered, so that a removed peer that calls can be told. More
/// removals than this between two calls of one peer do not happen in a home.
pub const MAX_REMOVED: usize = 256;

/// The most members the cluster may have; members are read into memory.
const MAX_MEMBERS: usize = 10_000;

#[derive(Default, Serialize, Deserialize)]
struct ConfStateV1 {
    voters: Vec<u64>,
    learners: Vec<u64>,
    voters_outgoing: Vec<u64>,
    learners_next: Vec<u64>,
    auto_leave: bool,
}

/// One step of a membership change, as the consensus room takes it out of a configuration entry.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberChange {
    /// Add a member, or replace its record.
    Put(Member),
    /// Change what a known member is to Raft; of an unknown one, nothing.
    SetRole(RaftId, Role),
    /// Remove a member and remember its Raft id as removed.
    Remove(RaftId),
}

/// The replicated state machine over a store. One owner (the consensus driver) applies; everybody else
/// reads through [`super::Pins`].
pub struct Machine {
    store: Arc<dyn StateStore>,
    members: BTreeMap<RaftId, Member>,
    conf_state: ConfState,
    /// Oldest first.
    removed: Vec<RaftId>,
    /// What the log may say (see [`version`]).
    version: u16,
    digest: u128,
}

/// Writes of one entry, not yet visible to anybody but the entry itself.
struct Draft {
    store: Arc<dyn StateStore>,
    batch: WriteBatch,
    /// Where in the batch a key was last written, because a batch of pins may name one twice.
    written: HashMap<(Table, Vec<u8>), usize>,
    digest: u128,
}

impl Draft {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.written.get(&(table, key.to_vec())) {
            Some(&at) => Ok(self.batch.writes[at].2.clone()),
            None => self.store.get(table, key),
        }
    }

    fn pin(&self, cid: &Cid) -> Result<Option<Pin>> {
        self.get(Table::Pins, &cid.to_bytes())?.map(|record| Pin::decode(&record)).transpose()
    }

    /// Writes a row and keeps the digest in step with it.
    fn put(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<()> {
        let kept = planted::is(Bug::DigestKeepsDeleted) && value.is_none();
        if let Some(old) = self.get(table, &key)?.filter(|_| !kept) {
            self.digest = self.digest.wrapping_sub(digest::row(table, &key, &old));
        }
        if let Some(new) = &value {
            self.digest = self.digest.wrapping_add(digest::row(table, &key, new));
        }
        self.written.insert((table, key.clone()), self.batch.writes.len());
        self.batch.writes.push((table, key, value));
        Ok(())
    }
}

/// How a command ends: its answer and events, its own error, or the peer's.
enum Failure {
    /// Every peer meets it: the command's answer.
    Answer(Error),
    /// Only this peer meets it.
    Peer(Error),
}

impl From<Error> for Failure {
    /// What comes up from the store is this peer's own trouble, whatever its kind says.
    fn from(error: Error) -> Self {
        Failure::Peer(error)
    }
}

type Step<T> = std::result::Result<T, Failure>;

impl Machine {
    /// The machine of this store, as far as it has been applied.
    ///
    /// # Errors
    /// When the disk fails, a record is damaged, or it is of a newer pinfold.
    pub fn open(store: Arc<dyn StateStore>) -> Result<Machine> {
        let mut machine = Machine {
            store,
            members: BTreeMap::new(),
            conf_state: ConfState::default(),
            removed: Vec::new(),
            version: version::FIRST,
            digest: 0,
        };
        machine.reload()?;
        Ok(machine)
    }

    /// Reads again what is cached; for after a snapshot was installed in the store.
    ///
    /// # Errors
    /// As [`Machine::open`].
    pub fn reload(&mut self) -> Result<()> {
        self.members.clear();
        for (_, record) in self.store.scan(Table::Members, None, MAX_MEMBERS)? {
            let member = Member::decode(&record)?;
            self.members.insert(member.raft_id, member);
        }
        let conf: ConfStateV1 = self.meta(CONF_STATE_KEY, "the Raft configuration")?.unwrap_or_default();
        self.conf_state = ConfState {
            voters: conf.voters,
            learners: conf.learners,
            voters_outgoing: conf.voters_outgoing,
            learners_next: conf.learners_next,
            auto_leave: conf.auto_leave,
            ..ConfState::default()
        };
        self.removed = self.meta(REMOVED_KEY, "the list of removed Raft ids")?.unwrap_or_default();
        self.version = self.meta(VERSION_KEY, "the cluster version")?.unwrap_or(version::FIRST);
        // A snapshot of a cluster that has gone beyond this program: nothing of it can be trusted to be understood.
        check_version(self.version)?;
        self.digest = match self.store.get(Table::Meta, DIGEST_KEY)? {
            Some(bytes) => u128::from_be_bytes(bytes.try_into().map_err(|bytes: Vec<u8>| {
                Error::corrupt(format!("the state's digest has {} bytes instead of 16", bytes.len()))
            })?),
            // Fresh, or rebuilt by an import: there is none yet.
            None => digest::compute(&*self.store)?,
        };
        Ok(())
    }

    fn meta<T: for<'de> Deserialize<'de>>(&self, key: &[u8], what: &str) -> Result<Option<T>> {
        let record = self.store.get(Table::Meta, key)?;
        record.map(|b| record::decode(FORMAT, &b).map_err(|f| f.into_error(what, Kind::Corrupt))).transpose()
    }

    /// Applies one entry; `None` is Raft's empty one. The applied mark moves in every case but an outer
    /// error: the answer of a refused command is part of history too.
    ///
    /// # Errors
    /// The outer error means that nothing was applied and that this peer must stop. The inner one is the
    /// command's deterministic answer.
    pub fn apply(&mut self, at: Applied, command: Option<Command>) -> Result<(Result<Outcome>, Vec<Event>)> {
        let mut draft = self.draft(at)?;
        let mut member = None;
        let mut version = self.version;
        let done = match command {
            None => Ok((Outcome::Done, Vec::new())),
            Some(Command::Pin(pin)) => put_pin(&mut draft, *pin)
                .map(|pin| (Outcome::Pin(Box::new(pin.clone())), vec![Event::Pinned(Arc::new(pin))])),
            Some(Command::PinMany(pins)) => put_pins(&mut draft, pins),
            Some(Command::Reallocate(moves)) => move_pins(&mut draft, moves),
            Some(Command::Unpin(cid)) => remove_pin(&mut draft, &cid, None),
            Some(Command::Expire(cid, expiry)) => remove_pin(&mut draft, &cid, Some(expiry.trunc())),
            Some(Command::UpdateMember(update)) => self.update_member(&mut draft, update).map(|changed| {
                let events = changed.iter().map(|_| Event::MembersChanged).collect();
                member = changed;
                (Outcome::Done, events)
            }),
            Some(Command::RaiseVersion(to)) => {
                // Never down, and asked for twice it is done once: two leaders may have had the same idea.
                if to > version {
                    let (table, key, value) = version_row(to);
                    draft.put(table, key, Some(value))?;
                    version = to;
                }
                Ok((Outcome::Done, Vec::new()))
            }
        };
        let (answer, events) = match done {
            Ok((outcome, events)) => (Ok(outcome), events),
            Err(Failure::Answer(error)) => {
                // All or nothing: what a refused command had drafted goes away, its place in history stays.
                if !planted::is(Bug::RefusedHalfDone) {
                    draft = self.draft(at)?;
                }
                (Err(error), Vec::new())
            }
            Err(Failure::Peer(error)) => return Err(error),
        };
        self.commit(draft)?;
        self.version = version;
        if let Some(member) = member {
            self.members.insert(member.raft_id, member);
        }
        Ok((answer, events))
    }

    /// Applies one entry as its bytes stand in the log (empty is Raft's empty entry). What is not a command
    /// of any version is refused by every peer alike, and so becomes the answer; a command of a newer
    /// pinfold stops this peer.
    ///
    /// # Errors
    /// As [`Machine::apply`].
    pub fn apply_bytes(&mut self, at: Applied, bytes: &[u8]) -> Result<(Result<Outcome>, Vec<Event>)> {
        let command = (!bytes.is_empty()).then(|| Command::decode(bytes)).transpose();
        match command {
            Ok(command) => self.apply(at, command),
            Err(error) if error.kind().is_deterministic() => {
                let draft = self.draft(at)?;
                self.commit(draft)?;
                Ok((Err(error), Vec::new()))
            }
            Err(error) => Err(error.context(format!("log entry {}", at.index))),
        }
    }

    /// Applies one configuration entry: the members' records and Raft's own configuration, in one batch.
    ///
    /// # Errors
    /// Nothing was applied, and this peer must stop.
    pub fn apply_members(
        &mut self,
        at: Applied,
        changes: &[MemberChange],
        conf_state: &ConfState,
    ) -> Result<Vec<Event>> {
        let mut members = self.members.clone();
        let mut removed = self.removed.clone();
        for change in changes {
            match change {
                MemberChange::Put(member) => {
                    removed.retain(|id| *id != member.raft_id);
                    members.insert(member.raft_id, member.clone());
                }
                MemberChange::SetRole(id, role) => {
                    if let Some(member) = members.get_mut(id) {
                        member.role = *role;
                    }
                }
                MemberChange::Remove(id) => {
                    members.remove(id);
                    removed.retain(|known| known != id);
                    removed.push(*id);
                }
            }
        }
        let surplus = removed.len().saturating_sub(MAX_REMOVED);
        removed.drain(..surplus);

        let mut draft = self.draft(at)?;
        for id in self.members.keys().filter(|id| !members.contains_key(id)) {
            draft.put(Table::Members, member_key(*id), None)?;
        }
        for (id, member) in &mut members {
            if self.members.get(id) != Some(member) {
                let record = member.encode();
                // What is cached is what is stored: encoding may have cut a name or the list of addresses.
                *member = Member::decode(&record)?;
                draft.put(Table::Members, member_key(*id), Some(record))?;
            }
        }
        if removed != self.removed {
            draft.put(Table::Meta, REMOVED_KEY.to_vec(), Some(record::encode(FORMAT, &removed)))?;
        }
        if *conf_state != self.conf_state {
            let (table, key, value) = conf_state_row(conf_state);
            draft.put(table, key, Some(value))?;
        }
        self.commit(draft)?;
        let events = if members == self.members { Vec::new() } else { vec![Event::MembersChanged] };
        self.members = members;
        self.removed = removed;
        self.conf_state = conf_state.clone();
        Ok(events)
    }

    /// Writes what a snapshot of a new cluster would have left: its founders as the only members, and the highest
    /// version that all of them speak.
    ///
    /// # Errors
    /// Nothing was written: the disk, or a state that is not empty.
    pub fn found(
        &mut self,
        at: Applied,
        founders: &[Member],
        conf_state: &ConfState,
        version: u16,
    ) -> Result<()> {
        let mut draft = self.draft(at)?;
        let members = founders.iter().map(|m| (Table::Members, member_key(m.raft_id), m.encode()));
        let others = [conf_state_row(conf_state), version_row(version)];
        for (table, key, value) in members.chain(others) {
            draft.put(table, key, Some(value))?;
        }
        self.commit(draft)?;
        self.reload()
    }

    /// Name and addresses of a known member; its role is Raft's business. The record if it changed.
    fn update_member(&self, draft: &mut Draft, update: Member) -> Step<Option<Member>> {
        let known = self.members.get(&update.raft_id).filter(|m| m.peer_id == update.peer_id);
        let Some(known) = known else {
            return Err(Failure::Answer(Error::not_found(format!(
                "peer {} with Raft id {} is not a member of this cluster",
                update.peer_id, update.raft_id
            ))));
        };
        let record = Member { role: known.role, ..update }.encode();
        let member = Member::decode(&record)?;
        if member == *known {
            return Ok(None);
        }
        draft.put(Table::Members, member_key(member.raft_id), Some(record))?;
        Ok(Some(member))
    }

    fn draft(&self, at: Applied) -> Result<Draft> {
        let applied = self.store.applied();
        if at.index <= applied.index {
            return Err(Error::internal(format!(
                "entry {} was given to a state that has already applied entry {}",
                at.index, applied.index
            )));
        }
        let batch = WriteBatch { writes: Vec::new(), applied: Some(at) };
        Ok(Draft { store: self.store.clone(), batch, written: HashMap::new(), digest: self.digest })
    }

    /// Hands the draft to the store and takes its digest over.
    fn commit(&mut self, mut draft: Draft) -> Result<()> {
        if !draft.batch.writes.is_empty() {
            let digest = draft.digest.to_be_bytes().to_vec();
            draft.batch.writes.push((Table::Meta, DIGEST_KEY.to_vec(), Some(digest)));
        }
        self.store.write(draft.batch)?;
        self.digest = draft.digest;
        Ok(())
    }

    /// All members, sorted by peer id.
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self.members.values().cloned().collect();
        members.sort_by_key(|m| m.peer_id);
        members
    }

    /// The member with this Raft id.
    pub fn member(&self, id: RaftId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The version that the log may speak, as of the applied mark (see [`version`]).
    pub fn cluster_version(&self) -> u16 {
        self.version
    }

    /// Raft's configuration as of the applied mark.
    pub fn conf_state(&self) -> ConfState {
        self.conf_state.clone()
    }

    /// Whether this Raft id was removed (and is among the last [`MAX_REMOVED`] that were).
    pub fn is_removed(&self, id: RaftId) -> bool {
        self.removed.contains(&id) && !planted::is(Bug::RemovedComesBack)
    }

    /// How far the log has been applied.
    pub fn applied(&self) -> Applied {
        self.store.applied()
    }

    /// The rolling digest of the replicated rows: equal on every peer with the same applied index.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// Whether the rolling digest is the one of the rows as they are; reads the whole state.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when it is not, or what the disk says.
    pub fn verify(&self) -> Result<()> {
        let found = digest::compute(&*self.store)?;
        if found == self.digest {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "the state's digest is {found:032x} and should be {:032x}: the state on this disk is damaged; \
             let this peer join again with an empty data folder, or restore a backup",
            self.digest
        )))
    }
}

/// The row that holds Raft's configuration.
pub(super) fn conf_state_row(conf_state: &ConfState) -> (Table, Vec<u8>, Vec<u8>) {
    let v1 = ConfStateV1 {
        voters: conf_state.voters.clone(),
        learners: conf_state.learners.clone(),
        voters_outgoing: conf_state.voters_outgoing.clone(),
        learners_next: conf_state.learners_next.clone(),
        auto_leave: conf_state.auto_leave,
    };
    (Table::Meta, CONF_STATE_KEY.to_vec(), record::encode(FORMAT, &v1))
}

/// The row that holds the cluster version.
pub(super) fn version_row(version: u16) -> (Table, Vec<u8>, Vec<u8>) {
    (Table::Meta, VERSION_KEY.to_vec(), record::encode(FORMAT, &version))
}

/// Key of a member's row.
pub(super) fn member_key(id: RaftId) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

/// Puts one pin and gives it back as stored.
fn put_pin(draft: &mut Draft, pin: Pin) -> Step<Pin> {
    let pin = pin.as_stored();
    pin.check().map_err(Failure::Answer)?;
    if pin.mode == PinMode::Direct {
        let old = draft.pin(&pin.cid)?;
        if old.is_some_and(|old| old.mode == PinMode::Recursive) {
            return Err(Failure::Answer(Error::conflict(
                "cannot repin a CID which is already pinned in recursive mode (new pin is pinned as direct). Unpin it first.",
            )));
        }
    }
    draft.put(Table::Pins, pin.cid.to_bytes(), Some(pin.encode()))?;
    Ok(pin)
}

/// Puts many pins, all or none; the error names the pin that was refused.
fn put_pins(draft: &mut Draft, pins: Vec<Pin>) -> Step<(Outcome, Vec<Event>)> {
    let mut events = Vec::with_capacity(pins.len());
    for pin in pins {
        let cid = pin.cid;
        let pin = put_pin(draft, pin).map_err(|failure| match failure {
            Failure::Answer(error) => Failure::Answer(error.context(format!("pin {cid}"))),
            peer => peer,
        })?;
        events.push(Event::Pinned(Arc::new(pin)));
    }
    Ok((Outcome::Done, events))
}

/// Moves pins, each only if it is still where the move saw it.
fn move_pins(draft: &mut Draft, moves: Vec<Move>) -> Step<(Outcome, Vec<Event>)> {
    let mut events = Vec::with_capacity(moves.len());
    for Move { cid, from, to } in moves {
        let Some(mut pin) = draft.pin(&cid)? else { continue };
        // An everywhere pin has no list of holders to move in.
        let moved = pin.allocations != from && !planted::is(Bug::MoveWithoutCompare);
        if pin.is_everywhere() || moved || from == to {
            continue;
        }
        pin.allocations = to;
        draft.put(Table::Pins, cid.to_bytes(), Some(pin.encode()))?;
        events.push(Event::Moved(Arc::new(pin)));
    }
    Ok((Outcome::Moved(events.len() as u32), events))
}

/// Removes a pin; with `expiry`, only one that still ends exactly then (else nothing happens: somebody
/// was faster, and that is nobody's error).
fn remove_pin(draft: &mut Draft, cid: &Cid, expiry: Option<Timestamp>) -> Step<(Outcome, Vec<Event>)> {
    let old = draft.pin(cid)?;
    if let Some(expiry) = expiry {
        let prolonged = |pin: &Pin| pin.expire_at != expiry && !planted::is(Bug::ExpiryWithoutCompare);
        let early = planted::is(Bug::ExpiryByLocalClock) && expiry > planted::now();
        if expiry.is_zero() || early || old.as_ref().is_none_or(prolonged) {
            return Ok((Outcome::Done, Vec::new()));
        }
    }
    let Some(old) = old else {
        return Err(Failure::Answer(Error::not_found("pin is not part of the pinset")));
    };
    draft.put(Table::Pins, cid.to_bytes(), None)?;
    Ok((Outcome::Pin(Box::new(old.clone())), vec![Event::Unpinned(Arc::new(old))]))
}
