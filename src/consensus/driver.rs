//! The driver: raft-rs, the log, the state machine and the waiters, moved by inputs and nothing else.
//!
//! A [`Driver`] has no clock, no thread, no socket and no randomness but its seed. It is fed [`Input`]s (a tick, a
//! frame, a proposal …), then [`Driver::turn`] does everything that follows from them and hands what must leave
//! to the [`Outlet`]. `thread.rs` drives it in the daemon, `crate::sim` in the simulator: the same code.
//!
//! The order of a turn is the heart of the matter (see [`Driver::turn`]): a leader's messages leave before its
//! own disk is asked, because the followers' disks may work at the same time; a follower's answers leave only
//! when what they promise is durable; commands are applied after all messages have left; and the state is
//! flushed rarely, by somebody else, because the log can rebuild it.
//!
//! Its parts: this file turns and ticks; `messages` hears and speaks, `commands` proposes and applies, `members`
//! plans changes of membership, `office` is what a leader owes the others, `candidacy` what follows from its death.
//!
//! Any error that comes out of here is the end of this peer's consensus. It must never be caught and
//! continued: the memory's idea of the disk is no longer sure.

mod candidacy;
mod commands;
mod members;
mod messages;
mod office;
mod superseded;

pub use superseded::Superseded;

use super::membership::Queue;
use super::message::{Body, Frame};
use super::proposals::{id_of, Admission, Committed, Proposals, Reply};
use super::reads::Reads;
use super::snapshot::{ConfHistory, Fetched, Incoming, Outgoing, SnapshotRequest};
use super::storage::{Disk, Failure};
use super::{settings::Settings, Status};
use crate::error::{Error, Kind, Result};
use crate::planted::{self, Bug};
use crate::state::{Applied, Command, Event, Machine, Member, RaftId, Role};
use crate::store::{LogBatch, StateStore};
use candidacy::Candidacy;
use libp2p::PeerId;
use office::Office;
use parking_lot::Mutex;
use raft::eraftpb::{ConfState, Entry, EntryType};
use raft::{ProgressState, RawNode, StateRole};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries applied since the last flush of the state that ask for the next one.
pub const FLUSH_ENTRIES: u64 = 10_000;
/// The same for changed pins, of which one entry may bring many: well below what the store holds unflushed, for there a
/// write waits for the disk, and with it this peer's heartbeats.
pub const FLUSH_PINS: usize = 20_000;
/// Bytes of commands that go to raft-rs as one proposal; the rest of a turn's commands follow at once.
const MAX_PROPOSE_BYTES: usize = 1 << 20;
/// Waiters for "applied up to" at one time.
const MAX_APPLIED_WAITERS: usize = 8_192;
/// Raft ids that are not members as far as we know, whose peer id we remember so that we can answer.
const MAX_STRANGERS: usize = 64;
/// Times [`Settings::snapshot_threshold`]: a log with so many superfluous entries is not left until the next look.
const FLOOD: u64 = 4;
/// Log entries that an offered snapshot may keep from being truncated.
const MAX_HELD_FOR_SNAPSHOT: u64 = 200_000;

/// What moves the driver.
pub enum Input {
    /// Time has passed by one tick.
    Tick,
    /// A frame from another peer, whose identity the network has proven.
    Frame(PeerId, Frame),
    /// A frame to this Raft id could not be delivered.
    Unreachable(RaftId),
    /// The last connection to this peer is gone: a hint, nothing depends on it.
    Lost(PeerId),
    /// Commit this encoded command; only a leader does.
    Propose {
        /// The proposal's id: the same for each retry.
        id: u64,
        /// It is in no log at or below this index; `None` when its proposer does not say.
        since: Option<u64>,
        /// The encoded command.
        data: Vec<u8>,
        /// Who waits.
        reply: Reply<Committed>,
    },
    /// Tell when this index is applied here.
    WaitApplied(u64, Reply<()>),
    /// Tell when reads here are as fresh as now.
    Read(Reply<()>),
    /// Make this peer a member; only a leader does. Answers the cluster id.
    AddMember(Box<Member>, Reply<u64>),
    /// Remove this peer; only a leader does. Answers the cluster id.
    RemoveMember(PeerId, Reply<u64>),
    /// Let another voter lead.
    HandOver(Reply<()>),
    /// The content of a snapshot arrived.
    SnapshotFetched(Box<Fetched>),
    /// The content of a snapshot could not be had.
    SnapshotFailed(Error),
    /// A peer began to fetch a snapshot from us.
    SnapshotStarted(RaftId),
    /// The stream of a snapshot to a peer ended, well or not.
    SnapshotEnded(RaftId, bool),
    /// The state was flushed up to here.
    Flushed(Result<Applied>),
}

/// Where the driver's work goes. None of these may block.
pub trait Outlet {
    /// Sends a frame; it may be lost.
    fn send(&mut self, to: &Member, raft_id: RaftId, frame: Vec<u8>);
    /// Fetches a snapshot's content; [`Input::SnapshotFetched`] or [`Input::SnapshotFailed`] must follow.
    fn fetch_snapshot(&mut self, from: Member, request: SnapshotRequest);
    /// Flushes the state; [`Input::Flushed`] must follow.
    fn flush(&mut self);
    /// Shows the members as they are from now on. Comes before the events and answers that follow from it, so that
    /// whoever is told of a change finds it done.
    fn show_members(&mut self, members: &BTreeMap<RaftId, Member>);
    /// Tells what applying changed, in log order.
    fn emit(&mut self, events: Vec<Event>);
}

/// See the module.
pub struct Driver {
    settings: Settings,
    node: RawNode<Disk>,
    state: Arc<dyn StateStore>,
    machine: Machine,
    history: Arc<Mutex<ConfHistory>>,
    members: BTreeMap<RaftId, Member>,
    strangers: BTreeMap<RaftId, Member>,
    now: u64,
    batch: Vec<(u64, Vec<u8>)>,
    proposals: Proposals,
    reads: Reads,
    queue: Queue,
    applied_waiters: BTreeMap<u64, Vec<Reply<()>>>,
    handing_over: Vec<(Reply<()>, u64)>,
    leaving: bool,
    outgoing: Outgoing,
    incoming: Option<Incoming>,
    fetched: Option<Box<Fetched>>,
    role: (u64, StateRole),
    rolls: u64,
    own_ids: u64,
    removed: bool,
    /// What this peer was told of a recovery of its cluster without it.
    superseded: Option<Superseded>,
    heard: u64,
    office: Office,
    candidacy: Option<Candidacy>,
    looked: u64,
    applied: Applied,
    durable: Applied,
    changed_pins: usize,
    dirty_since: u64,
    applied_at: u64,
    flushing: bool,
}

impl Driver {
    /// Starts raft-rs on the disk as `bootstrap` left it.
    ///
    /// # Errors
    /// When the stores fail or contradict each other.
    pub fn open(
        settings: Settings,
        log: Box<dyn crate::store::LogStore>,
        state: Arc<dyn StateStore>,
        failure: Failure,
    ) -> Result<Driver> {
        let machine = Machine::open(state.clone())?;
        let applied = state.applied();
        let conf = sorted(&machine.conf_state());
        let mut proposals = Proposals::default();
        remember_tail(&*log, applied.index, &mut proposals)?;
        let disk = Disk::new(log, applied, conf.clone(), failure);
        let node = RawNode::new(&settings.raft(applied.index), disk, &super::settings::logger())
            .map_err(|e| Error::corrupt(format!("Raft cannot start on this data directory: {e}")))?;
        let history = Arc::new(Mutex::new(ConfHistory::default()));
        let mut driver = Driver {
            reads: Reads::new(settings.raft_id, settings.mix(1), settings.read_ticks),
            own_ids: settings.mix(2),
            role: (node.raft.term, node.raft.state),
            durable: state.durable(),
            settings,
            node,
            state,
            machine,
            history,
            members: BTreeMap::new(),
            strangers: BTreeMap::new(),
            now: 0,
            batch: Vec::new(),
            proposals,
            queue: Queue::default(),
            applied_waiters: BTreeMap::new(),
            handing_over: Vec::new(),
            leaving: false,
            outgoing: Outgoing::default(),
            incoming: None,
            fetched: None,
            rolls: 0,
            removed: false,
            superseded: None,
            heard: 0,
            office: Office::default(),
            candidacy: None,
            looked: 0,
            applied,
            changed_pins: 0,
            dirty_since: 0,
            applied_at: 0,
            flushing: false,
        };
        driver.note_conf(applied.index, &conf);
        driver.note_members();
        driver.roll();
        if conf.voters == [driver.settings.raft_id] {
            // Alone there is nobody to wait for.
            driver.node.campaign().map_err(|e| Error::internal(format!("Raft refuses to campaign: {e}")))?;
        }
        Ok(driver)
    }

    /// Does everything that the inputs so far ask for. **The Ready loop.**
    ///
    /// # Errors
    /// This peer's consensus is over.
    pub fn turn(&mut self, out: &mut dyn Outlet) -> Result<()> {
        self.propose_commands();
        self.propose_membership();
        if let Some(name) = self.reads.ask(self.now) {
            if planted::is(Bug::ReadWithoutQuorum) && self.leads() {
                self.reads.confirm(&name, self.node.raft.raft_log.committed);
            }
            self.node.read_index(name);
        }
        if planted::is(Bug::LeaderCommitsAlone) && self.leads() {
            let ours = self.node.raft.raft_log.persisted;
            self.node.raft.raft_log.commit_to(ours);
        }
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            self.keep_changes(ready.committed_entries())?;
            // 1. A leader's messages leave first: its followers' disks work while ours does.
            self.send(ready.take_messages(), out);
            if planted::is(Bug::AnswersBeforeFlush) {
                self.send(ready.take_persisted_messages(), out);
            }
            // 2. What was received or proposed becomes durable, in one commit. A snapshot's content is installed
            //    before the log forgets what it replaces. A commit index alone is not worth a flush.
            let mut batch = LogBatch { entries: ready.take_entries(), ..LogBatch::default() };
            if !ready.snapshot().is_empty() {
                batch.reset_to = Some(self.install(ready.snapshot(), out)?);
            }
            let mut late = LogBatch::default();
            if ready.must_sync() {
                batch.hard_state = Some(ready.hs().cloned().unwrap_or_else(|| self.node.raft.hard_state()));
                if planted::is(Bug::HardStateAfterAnswers) {
                    late.hard_state = batch.hard_state.take();
                }
                if planted::is(Bug::VoteNotFlushed) {
                    batch.hard_state.iter_mut().for_each(|hard| hard.vote = raft::INVALID_ID);
                }
                self.proposals.logged(&batch.entries);
                if planted::is(Bug::ConfChangeAtAppend) {
                    self.count_changes(&batch.entries)?;
                }
                self.node.raft.mut_store().append(batch)?;
            }
            // 3. Votes and acknowledgements leave only now: what they promise is kept.
            self.send(ready.take_persisted_messages(), out);
            if planted::is(Bug::HardStateAfterAnswers) {
                self.node.raft.mut_store().append(late)?;
            }
            for read in ready.take_read_states() {
                self.reads.confirm(&read.request_ctx, read.index);
            }
            // 4. Our own copy counts for the majority now, which may commit more and send more.
            let mut committed = ready.take_committed_entries();
            let mut light = self.node.advance_append(ready);
            self.keep_changes(light.committed_entries())?;
            self.send(light.take_messages(), out);
            committed.append(&mut light.take_committed_entries());
            // 5. Apply, answer, and tell raft-rs.
            self.apply(committed, out)?;
            self.node.advance_apply();
            self.step_down_if_removed();
        }
        self.fetched = None;
        self.settle(out);
        Ok(())
    }

    /// Takes one input. Nothing leaves before the next [`Driver::turn`], but for refusals.
    ///
    /// # Errors
    /// This peer's consensus is over.
    pub fn input(&mut self, input: Input, out: &mut dyn Outlet) -> Result<()> {
        match input {
            Input::Tick => return self.tick(out),
            Input::Frame(sender, frame) => return self.receive(sender, frame, out),
            Input::Unreachable(id) => {
                self.node.report_unreachable(id);
                let verdict = self.outgoing.unreachable(id);
                self.report_snapshot(id, verdict);
            }
            Input::Lost(peer) => self.lost(&peer),
            Input::Propose { id, since, data, reply } => {
                if !self.leads() {
                    let _ = reply.try_send(Err(self.not_leader()));
                } else {
                    let deadline = self.now + self.settings.commit_ticks;
                    let sure = || Command::decode(&data).is_ok_and(|command| command.is_never_refused());
                    if self.proposals.admit(id, since, reply, deadline, sure) == Admission::New {
                        self.batch.push((id, data));
                    }
                }
            }
            Input::WaitApplied(index, reply) => self.wait_applied(index, reply),
            Input::Read(reply) => self.reads.add(reply, self.now + self.settings.commit_ticks),
            Input::AddMember(member, reply) => self.add_member(*member, reply),
            Input::RemoveMember(peer, reply) => self.remove_member(&peer, reply),
            Input::HandOver(reply) => {
                if self.leads() {
                    self.handing_over.push((reply, self.now + 2 * self.settings.election_ticks as u64));
                    self.hand_over();
                } else {
                    let _ = reply.try_send(Ok(()));
                }
            }
            Input::SnapshotFetched(fetched) => self.offer_to_raft(fetched)?,
            Input::SnapshotFailed(error) => {
                log::warn!(target: super::LOG, "no snapshot: {error}");
                self.incoming = None;
            }
            Input::SnapshotStarted(id) => self.outgoing.started(id, self.now),
            Input::SnapshotEnded(id, good) => {
                let verdict = self.outgoing.ended(id, good, self.now);
                self.report_snapshot(id, verdict);
            }
            Input::Flushed(result) => {
                self.flushing = false;
                self.durable = self.durable.max(result?);
                if self.superfluous() >= self.settings.snapshot_threshold.saturating_mul(FLOOD) {
                    self.truncate()?;
                }
            }
        }
        Ok(())
    }

    /// What Raft thinks now.
    pub fn status(&self) -> Status {
        let leader = self.node.raft.leader_id;
        Status {
            raft_id: self.settings.raft_id,
            cluster_id: self.settings.cluster_id,
            term: self.node.raft.term,
            leader: (leader != raft::INVALID_ID).then_some(leader),
            committed: self.node.raft.raft_log.committed,
            applied: self.applied.index,
            cluster_version: self.machine.cluster_version(),
            removed: self.is_removed(),
            superseded: self.superseded,
            failed: None,
        }
    }

    /// Members as replicated, by Raft id.
    pub fn members(&self) -> &BTreeMap<RaftId, Member> {
        &self.members
    }

    /// Which configuration held at which mark, for those who read snapshots.
    pub fn history(&self) -> Arc<Mutex<ConfHistory>> {
        self.history.clone()
    }

    /// The state machine, to be read.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The log and its bounds, to be read: first and last index present.
    pub fn log_bounds(&self) -> (u64, u64) {
        let log = self.node.raft.store().log();
        (log.first_index(), log.last_index())
    }

    /// Whether this peer leads.
    pub fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Answers everyone who waits: this peer stops.
    pub fn abandon(&mut self, error: &Error) {
        self.proposals.abandon(error);
        self.queue.abandon(error);
        for reply in std::mem::take(&mut self.applied_waiters).into_values().flatten() {
            let _ = reply.try_send(Err(error.clone()));
        }
    }

    /// Whether this peer has no part in the cluster any more. That it has applied its own removal is not enough: it may
    /// be the only one that knows it is committed, and the others need its vote, and what it has, until one of them does
    /// too. Until then it does all that a member does but stand as a candidate; and asks.
    fn is_removed(&self) -> bool {
        self.removed || self.superseded.is_some_and(|news| news.covered)
    }

    /// Ticks of silence after which this peer asks whether it was removed.
    fn asks_after(&self) -> u64 {
        match self.machine.is_removed(self.settings.raft_id) {
            true => self.settings.heartbeat_ticks as u64,
            false => self.settings.ask_ticks,
        }
    }

    fn not_leader(&self) -> Error {
        Error::not_leader("this peer is not the leader of the cluster")
    }

    // --- time -------------------------------------------------------------------------------------------------

    fn tick(&mut self, out: &mut dyn Outlet) -> Result<()> {
        self.now += 1;
        let removed = self.is_removed();
        if !removed {
            self.node.tick();
            self.stand();
        }
        self.proposals.expire(self.now);
        self.reads.expire(self.now);
        self.queue.expire(self.now);
        self.applied_waiters.retain(|_, replies| {
            replies.retain(|r| !r.is_closed());
            !replies.is_empty()
        });
        let now = self.now;
        self.handing_over.retain(|(reply, deadline)| {
            let waits = *deadline > now;
            if !waits {
                let _ = reply.try_send(Err(Error::timeout(
                    "no other voter took the leadership over in time: none is connected and caught up",
                )));
            }
            waits
        });
        if now - self.looked >= self.settings.look_ticks {
            self.looked = now;
            if self.superfluous() >= self.settings.snapshot_threshold.max(1) {
                self.truncate()?;
            }
        }
        if self.leads() {
            self.heard = now;
            self.keep_office();
            self.tell_commits();
            self.hand_over();
            self.promote();
            self.yield_office();
            let (start, install) = (self.settings.start_ticks, self.settings.install_ticks);
            let progress = self.node.raft.prs();
            let waits = |id| {
                progress.get(id).filter(|p| p.state == ProgressState::Snapshot).map(|p| p.committed_index)
            };
            for (id, verdict) in self.outgoing.overdue(now, start, install, waits) {
                self.report_snapshot(id, Some(verdict));
            }
        } else if !removed && now - self.heard >= self.asks_after() {
            // Nobody calls a removed peer any more. Ask, before holding elections for ever.
            self.heard = now;
            for (id, member) in &self.members {
                if *id != self.settings.raft_id {
                    self.notice(member, *id, &Body::AmIRemoved, out);
                }
            }
        }
        Ok(())
    }

    /// Gives raft-rs an election timeout that follows from the seed. raft-rs draws its own whenever it changes
    /// roles, from a source that cannot be repeated; this replaces it each time, so that a simulated run can.
    fn roll(&mut self) {
        let role = (self.node.raft.term, self.node.raft.state);
        if role != self.role {
            self.role = role;
            self.rolls += 1;
            self.office = Office::taken_at(self.now);
        }
        let base = self.settings.election_ticks;
        let timeout = base + (self.settings.mix(1_000 + self.rolls) % base as u64) as usize;
        if self.node.raft.randomized_election_timeout() != timeout {
            self.node.raft.set_randomized_election_timeout(timeout);
        }
    }

    /// What is due after the messages and the disk.
    fn settle(&mut self, out: &mut dyn Outlet) {
        let led = self.role.1 == StateRole::Leader;
        self.roll();
        if led && !self.leads() {
            // Entries of ours may still be committed by the next leader; the proposers ask it, by the same ids.
            let error = Error::not_leader("this peer lost the leadership before the change was committed");
            self.proposals.abandon(&error);
            self.queue.abandon(&error);
            self.outgoing.clear();
            self.leaving = false;
            for (reply, _) in self.handing_over.drain(..) {
                let _ = reply.try_send(Ok(()));
            }
        }
        self.note_commit();
        self.reads.applied(self.applied.index);
        if self.applied.index > self.durable.index && !self.flushing {
            let much =
                self.applied.index - self.durable.index >= FLUSH_ENTRIES || self.changed_pins >= FLUSH_PINS;
            let long = self.now - self.dirty_since >= self.settings.flush_ticks;
            let idle = self.now - self.applied_at >= self.settings.idle_ticks;
            if much || long || idle {
                self.flushing = true;
                self.changed_pins = 0;
                self.dirty_since = self.now;
                out.flush();
                if planted::is(Bug::FlushCountedEarly) {
                    self.durable = self.applied;
                }
            }
        }
    }
}

/// The record of a peer of which only its ids are known.
fn stranger(raft_id: RaftId, peer_id: PeerId) -> Member {
    Member {
        raft_id,
        peer_id,
        name: String::new(),
        addresses: Vec::new(),
        role: Role::Learner,
        version: String::new(),
        witness: false,
    }
}

/// The configuration with its lists in order: raft-rs gives them in the order of a hash table, and equal
/// configurations must be equal bytes in the replicated state.
pub(super) fn sorted(conf: &ConfState) -> ConfState {
    let mut conf = conf.clone();
    if planted::is(Bug::HashOrder) {
        return conf;
    }
    for list in [&mut conf.voters, &mut conf.learners, &mut conf.voters_outgoing, &mut conf.learners_next] {
        list.sort_unstable();
    }
    conf
}

/// Fills the memory of proposal ids from the log, so that a retry that spans our restart is recognised.
fn remember_tail(log: &dyn crate::store::LogStore, applied: u64, proposals: &mut Proposals) -> Result<()> {
    /// Entries that are looked through at start, and all that are not applied: a few milliseconds.
    const TAIL: u64 = 2_048;
    let last = log.last_index();
    let mut next = log.first_index().max(last.saturating_sub(TAIL).min(applied) + 1);
    proposals.known_from(next);
    while next <= last {
        let entries = log.entries(next, last + 1, super::storage::MAX_READ_BYTES)?;
        let Some(end) = entries.last().map(|e| e.index) else {
            return Err(Error::new(Kind::Corrupt, format!("entry {next} is missing in the Raft log")));
        };
        let normal = |e: &&Entry| e.get_entry_type() == EntryType::EntryNormal;
        for entry in entries.iter().filter(normal).filter(|e| e.index <= applied) {
            if let Some(id) = id_of(&entry.context) {
                proposals.remember_old(id, entry.index);
            }
        }
        let unapplied: Vec<Entry> = entries.into_iter().filter(|e| e.index > applied).collect();
        proposals.logged(&unapplied);
        next = end + 1;
    }
    Ok(())
}
