//! Simulated callers: they ask a peer, which follows the request to the leader and tries again with the same proposal
//! id, as the handle does in the daemon.
//!
//! A request travels like everything else: to the leader and back with the network's delays and losses, into the
//! inbox of a peer that may stand still, and it is answered to the caller only when the peer that was asked has
//! applied the change. What the caller knows in the end is one of three things: done, refused by the state itself, or
//! nothing (it may have happened, or may still).

use super::cluster::{cid_of, peer_id, Sim};
use super::model::{Op, Value, VERSION_KEY};
use super::network::{Flight, Peer, TICK};
use crate::clock::Timestamp;
use crate::consensus::driver::Input;
use crate::consensus::proposals::Committed;
use crate::error::{Error, Kind, Result};
use crate::state::{Command, Member, Move, Pin, PinMode, Role};
use crate::store::memory::MemoryState;
use crate::store::{StateStore, Table};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The mark of a request; also the id of its proposal.
pub type Ticket = u64;

/// A pin that somebody wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Its name, from which its CID follows.
    pub name: String,
    /// Whether only the root is to be pinned.
    pub direct: bool,
    /// Who is to hold it.
    pub holder: Peer,
    /// When it ends, in seconds; 0 for never.
    pub expires: i64,
}

/// What a caller wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Pin this.
    Pin(Wish),
    /// Pin all of these, or none.
    PinMany(Vec<Wish>),
    /// Unpin what has this name.
    Unpin(String),
    /// Move it from one holder to another, if it is at the first.
    Move(String, Peer, Peer),
    /// Unpin it if it ends exactly then.
    Expire(String, i64),
    /// Give a peer's record this name.
    Refresh(Peer, String),
    /// Raise the cluster version.
    Raise(u16),
    /// Make a peer a member.
    Add(Peer),
    /// Remove a peer.
    Remove(Peer),
    /// Read a pin as fresh as now.
    Read(String),
    /// Let another voter lead.
    HandOver,
}

impl Request {
    /// Pins a name in the plainest way.
    pub fn pin(name: &str) -> Self {
        Request::Pin(Wish { name: name.to_owned(), direct: false, holder: 1, expires: 0 })
    }

    /// Whether it is carried out where it is asked, without going to the leader.
    fn is_local(&self) -> bool {
        matches!(self, Request::Read(_) | Request::HandOver)
    }

    /// Whether it brings something new, which a full disk refuses.
    fn needs_room(&self) -> bool {
        matches!(self, Request::Pin(_) | Request::PinMany(_))
    }

    /// Whether it becomes a command in the log.
    pub(super) fn is_command(&self) -> bool {
        !matches!(self, Request::Add(_) | Request::Remove(_)) && !self.is_local()
    }
}

/// What a read saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The pin, if there was one.
    pub value: Option<Value>,
    /// How far the peer had applied the log.
    pub applied: u64,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was asked.
    pub request: Rc<Request>,
    /// At which peer.
    pub at: Peer,
    /// When it was asked and when it was answered, on a clock that counts what happens.
    pub span: (u64, u64),
    /// How often it was tried.
    pub attempts: u64,
    /// The log index where it happened (0 where there is none), or why not.
    pub result: Result<u64>,
    /// What was read, when something was.
    pub reading: Option<Reading>,
    /// The highest entry that somebody was told of before this was asked.
    pub floor: u64,
}

/// An answer on its way from the peer that carried a request out.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) ticket: Ticket,
    pub(super) attempt: u64,
    pub(super) asked_at: Peer,
    pub(super) result: Result<u64>,
    pub(super) reading: Option<Reading>,
}

enum Wait {
    Committed(async_channel::Receiver<Result<Committed>>),
    Number(async_channel::Receiver<Result<u64>>),
    Nothing(async_channel::Receiver<Result<()>>, u64),
}

/// Somebody who waits for a driver.
pub(super) struct Waiting {
    ticket: Ticket,
    attempt: u64,
    asked_at: Peer,
    wait: Wait,
    /// The name to be read once the read is confirmed.
    reads: Option<String>,
}

impl Waiting {
    /// The answer, if there is one by now.
    pub(super) fn poll(&self, state: &MemoryState) -> Option<Told> {
        let result = match &self.wait {
            Wait::Committed(r) => closed(r)?.map(|c| c.index),
            Wait::Number(r) => closed(r)?.map(|_| 0),
            Wait::Nothing(r, index) => closed(r)?.map(|()| *index),
        };
        let reading = self.reads.as_ref().filter(|_| result.is_ok()).map(|name| {
            let record = state.get(Table::Pins, &cid_of(name).to_bytes()).ok().flatten();
            let pin = record.and_then(|r| Pin::decode(&r).ok());
            Reading { value: pin.as_ref().map(Value::of), applied: state.applied().index }
        });
        Some(Told { ticket: self.ticket, attempt: self.attempt, asked_at: self.asked_at, result, reading })
    }
}

impl Waiting {
    /// What whoever asked elsewhere learns when this peer goes down: that the connection broke.
    pub(super) fn lost(self, peer: Peer) -> Option<Told> {
        let Waiting { ticket, attempt, asked_at, .. } = self;
        (asked_at != peer).then(|| Told { ticket, attempt, asked_at, result: Err(gone()), reading: None })
    }
}

/// `None` while there is no answer.
fn closed<T>(receiver: &async_channel::Receiver<Result<T>>) -> Option<Result<T>> {
    match receiver.try_recv() {
        Ok(answer) => Some(answer),
        Err(async_channel::TryRecvError::Empty) => None,
        Err(async_channel::TryRecvError::Closed) => Some(Err(gone())),
    }
}

fn gone() -> Error {
    Error::not_leader("the peer went down")
}

struct Open {
    request: Rc<Request>,
    at: Peer,
    life: u64,
    asked: u64,
    floor: u64,
    deadline: u64,
    attempt: u64,
    /// Whether an attempt is under way.
    waits: bool,
    /// It is committed there, and this peer has not applied it yet.
    applying: bool,
    /// How often a leader was asked.
    asks: u64,
}

/// All callers.
#[derive(Default)]
pub(super) struct Client {
    next: Ticket,
    open: BTreeMap<Ticket, Open>,
    answers: BTreeMap<Ticket, Answer>,
    /// The highest entry that somebody was told of.
    told: u64,
    /// What its peer knew to be committed before a change was asked for; kept, as its questions may arrive late.
    since: BTreeMap<Ticket, u64>,
}

/// Before a request is tried again.
const PAUSE: u64 = 2 * TICK;
/// How long one attempt may take before it is taken for lost.
const ATTEMPT: u64 = 60 * TICK;
/// The version that peers tell of themselves.
const RELEASE: &str = crate::VERSION;

impl Sim {
    /// Asks at a peer, for at most `limit` ticks.
    pub fn ask(&mut self, at: Peer, request: Request, limit: u64) -> Ticket {
        self.client.next += 1;
        let ticket = self.client.next;
        if let Some(op) = self.meaning(ticket, &request) {
            self.checks.model.intend(ticket, op);
        }
        self.happened += 1;
        let open = Open {
            request: Rc::new(request),
            at,
            life: self.lives(at),
            asked: self.happened,
            floor: self.client.told,
            deadline: self.ms + limit * TICK,
            attempt: 0,
            waits: false,
            applying: false,
            asks: 0,
        };
        self.client.open.insert(ticket, open);
        self.network.launch(self.ms, Flight::Again { ticket, attempt: 0 });
        ticket
    }

    /// Asks, and lets time pass until there is an answer.
    ///
    /// # Errors
    /// As [`Sim::tick`]; the request's own failure is in the answer.
    pub fn ask_and_wait(&mut self, at: Peer, request: Request, limit: u64) -> Result<Answer, super::Broken> {
        let ticket = self.ask(at, request, limit);
        loop {
            if let Some(answer) = self.client.answers.remove(&ticket) {
                return Ok(answer);
            }
            self.tick()?;
        }
    }

    /// All answers since the last call.
    pub fn answers(&mut self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut self.client.answers).into_iter().collect()
    }

    /// How many requests have no answer yet.
    pub fn open_requests(&self) -> usize {
        self.client.open.len()
    }

    fn finish(
        &mut self,
        ticket: Ticket,
        result: Result<u64>,
        reading: Option<Reading>,
    ) -> Result<(), super::Broken> {
        let Some(open) = self.client.open.remove(&ticket) else { return Ok(()) };
        self.happened += 1;
        let Open { request, at, asked, floor, attempt: attempts, asks, .. } = open;
        self.checks.answered(ticket, &request, &result, reading.as_ref(), (floor, asks))?;
        if let Ok(index) = &result {
            self.client.told = self.client.told.max(*index);
        }
        self.note(|| format!("request {ticket} at peer {at}, {request:?}: {}", words(&result)));
        let answer = Answer { request, at, span: (asked, self.happened), attempts, result, reading, floor };
        self.client.answers.insert(ticket, answer);
        Ok(())
    }

    /// The peer went down: whoever asked there knows nothing.
    pub(super) fn forsake(&mut self, at: Peer) -> Result<(), super::Broken> {
        let life = self.lives(at);
        let lost = self.client.open.iter().filter(|(_, o)| o.at == at && o.life == life);
        let lost: Vec<Ticket> = lost.map(|(ticket, _)| *ticket).collect();
        for ticket in lost {
            self.finish(ticket, Err(Error::unavailable("the peer went down before it answered")), None)?;
        }
        Ok(())
    }

    /// Tries a request (again), unless something happened to it since this was planned.
    pub(super) fn again(&mut self, ticket: Ticket, attempt: u64) -> Result<(), super::Broken> {
        let now = self.ms;
        let Some(open) = self.client.open.get_mut(&ticket).filter(|o| o.attempt == attempt) else {
            return Ok(());
        };
        if now >= open.deadline {
            let error = if open.applying {
                Error::timeout("the change is committed, but this peer has not caught up to it in time")
            } else {
                Error::unavailable("timed out waiting for leader")
            };
            return self.finish(ticket, Err(error), None);
        }
        if open.applying {
            let due = open.deadline;
            self.network.launch(due, Flight::Again { ticket, attempt });
            return Ok(());
        }
        open.waits = false;
        let (at, request) = (open.at, open.request.clone());
        if request.needs_room() {
            if let Some(why) = self.nodes.get(&at).and_then(|n| n.state.full()) {
                return self.finish(ticket, Err(Error::full(why)), None);
            }
        }
        let target = self.target(at, &request);
        let way = target.and_then(|to| if to == at { Some(0) } else { self.network.takes(at, to) });
        let committed = self.status(at).map_or(0, |s| s.committed);
        let Some(open) = self.client.open.get_mut(&ticket) else { return Ok(()) };
        let Some(to) = target else {
            self.network.launch(now + PAUSE, Flight::Again { ticket, attempt });
            return Ok(());
        };
        open.attempt += 1;
        open.waits = true;
        open.asks += 1;
        let attempt = open.attempt;
        if open.asks == 1 && request.is_command() {
            self.client.since.insert(ticket, committed);
        }
        let patience = if request.is_local() { open.deadline } else { open.deadline.min(now + ATTEMPT) };
        self.network.launch(patience, Flight::Again { ticket, attempt });
        if let Some(way) = way {
            if way == 0 {
                return self.asked(ticket, attempt, at, to, &request);
            }
            self.network.launch(now + way, Flight::Ask { ticket, attempt, from: at, to, request });
        }
        Ok(())
    }

    /// Whom to ask: the peer itself for reads, else the leader it knows, if that can be reached.
    fn target(&self, at: Peer, request: &Request) -> Option<Peer> {
        let status = self.status(at)?;
        if request.is_local() {
            return Some(at);
        }
        let leader = self.who(status.leader?)?;
        (leader == at || self.network.is_open(at, leader) && self.is_up(leader)).then_some(leader)
    }

    /// A request arrives at the peer that was taken for the leader.
    pub(super) fn asked(
        &mut self,
        ticket: Ticket,
        attempt: u64,
        from: Peer,
        to: Peer,
        request: &Request,
    ) -> Result<(), super::Broken> {
        let refusal = match self.nodes.get(&to).filter(|n| n.driver.is_some()) {
            None => Some(Error::unavailable("the leader cannot be reached")),
            Some(_) if !self.network.is_open(from, to) => Some(Error::unavailable("the link is cut")),
            Some(node) => node.state.full().filter(|_| request.needs_room()).map(Error::full),
        };
        let offer = match refusal {
            Some(error) => Err(error),
            None => self.offer(ticket, to, request),
        };
        match offer {
            Ok((input, wait)) => {
                let reads = if let Request::Read(name) = request { Some(name.clone()) } else { None };
                let waiting = Waiting { ticket, attempt, asked_at: from, wait, reads };
                if let Some(node) = self.nodes.get(&to) {
                    node.shared.tape().waiting.push(waiting);
                }
                self.drive(to, Some(input))
            }
            Err(error) => {
                let told = Told { ticket, attempt, asked_at: from, result: Err(error), reading: None };
                self.network.launch(self.ms, Flight::Told { from: to, told });
                Ok(())
            }
        }
    }

    /// An answer leaves the peer that has it.
    pub(super) fn tell(&mut self, from: Peer, told: Told) {
        let to = told.asked_at;
        let way = if from == to { Some(0) } else { self.network.takes(from, to) };
        if let Some(way) = way.filter(|_| self.network.is_open(from, to)) {
            self.network.launch(self.ms + way, Flight::Told { from, told });
        }
    }

    /// An answer arrives at the peer where its question was asked.
    pub(super) fn told(&mut self, from: Peer, told: Told) -> Result<(), super::Broken> {
        let Told { ticket, attempt, result, reading, .. } = told;
        let (now, pause) = (self.ms, self.ms + PAUSE);
        let Some(open) = self.client.open.get_mut(&ticket).filter(|o| o.attempt == attempt && o.waits) else {
            return Ok(());
        };
        match &result {
            Err(e) if matches!(e.kind(), Kind::NotLeader | Kind::Unavailable) && now < open.deadline => {
                open.waits = false;
                open.attempt += 1;
                let attempt = open.attempt;
                self.network.launch(pause, Flight::Again { ticket, attempt });
                Ok(())
            }
            // Asked once and refused, as by the handle: it is in no log, and is asked anew.
            Err(e) if e.kind() == Kind::Conflict && open.request.is_command() && open.asks == 1 => {
                (open.waits, open.asks) = (false, 0);
                open.attempt += 1;
                let attempt = open.attempt;
                self.network.launch(pause, Flight::Again { ticket, attempt });
                Ok(())
            }
            Err(e)
                if e.kind() == Kind::NotFound
                    && attempt > 1
                    && matches!(*open.request, Request::Remove(_)) =>
            {
                self.finish(ticket, Ok(0), None)
            }
            Ok(index) if from != open.at && open.request.is_command() && !open.applying => {
                let (at, index) = (open.at, *index);
                (open.applying, open.attempt) = (true, attempt + 1);
                let (attempt, deadline) = (open.attempt, open.deadline);
                self.network.launch(deadline, Flight::Again { ticket, attempt });
                let (reply, answer) = async_channel::bounded(1);
                let wait = Wait::Nothing(answer, index);
                let waiting = Waiting { ticket, attempt, asked_at: at, wait, reads: None };
                if let Some(node) = self.nodes.get(&at) {
                    node.shared.tape().waiting.push(waiting);
                }
                self.drive(at, Some(Input::WaitApplied(index, reply)))
            }
            _ => self.finish(ticket, result, reading),
        }
    }

    /// What a request means to the model, if it becomes a command.
    fn meaning(&self, ticket: Ticket, request: &Request) -> Option<Op> {
        let value = |wish: &Wish| Value {
            version: ticket,
            direct: wish.direct,
            holders: vec![peer_id(wish.holder)],
            expires: wish.expires,
        };
        Some(match request {
            Request::Pin(wish) => Op::Put(vec![(wish.name.clone(), value(wish))]),
            Request::PinMany(wishes) => {
                Op::Put(wishes.iter().map(|wish| (wish.name.clone(), value(wish))).collect())
            }
            Request::Unpin(name) => Op::Remove(name.clone()),
            Request::Move(name, from, to) => Op::Move(name.clone(), peer_id(*from), peer_id(*to)),
            Request::Expire(name, expires) => Op::Expire(name.clone(), *expires),
            Request::Refresh(peer, name) => {
                Op::Refresh(self.nodes.get(peer)?.raft_id, peer_id(*peer), name.clone())
            }
            Request::Raise(version) => Op::Raise(*version),
            Request::Add(_) | Request::Remove(_) | Request::Read(_) | Request::HandOver => return None,
        })
    }

    /// What a driver is to do, and where its answer will be.
    fn offer(&self, ticket: Ticket, to: Peer, request: &Request) -> Result<(Input, Wait)> {
        let command = match request {
            Request::Pin(wish) => Command::Pin(Box::new(pin_of(ticket, wish))),
            Request::PinMany(wishes) => {
                Command::PinMany(wishes.iter().map(|wish| pin_of(ticket, wish)).collect())
            }
            Request::Unpin(name) => Command::Unpin(cid_of(name)),
            Request::Move(name, from, to) => Command::Reallocate(vec![Move {
                cid: cid_of(name),
                from: vec![peer_id(*from)],
                to: vec![peer_id(*to)],
            }]),
            Request::Expire(name, expires) => Command::Expire(cid_of(name), Timestamp::from_secs(*expires)),
            Request::Refresh(peer, name) => {
                // The record as it was meant when it was asked: the peer may be another one by now.
                let known = self.checks.model.refreshed(ticket);
                let (raft_id, peer_id) = known.ok_or_else(|| Error::not_found(format!("no peer {peer}")))?;
                Command::UpdateMember(Member {
                    raft_id,
                    peer_id,
                    name: name.clone(),
                    addresses: Vec::new(),
                    role: Role::Learner,
                    version: if ticket.is_multiple_of(2) { RELEASE.to_owned() } else { String::new() },
                    witness: false,
                })
            }
            Request::Raise(version) => Command::RaiseVersion(*version),
            Request::Add(peer) => {
                let member = self.member(*peer).ok_or_else(|| Error::not_found(format!("no peer {peer}")))?;
                let (reply, wait) = async_channel::bounded(1);
                return Ok((Input::AddMember(Box::new(member), reply), Wait::Number(wait)));
            }
            Request::Remove(peer) => {
                let (reply, wait) = async_channel::bounded(1);
                return Ok((Input::RemoveMember(peer_id(*peer), reply), Wait::Number(wait)));
            }
            Request::Read(_) => {
                let (reply, wait) = async_channel::bounded(1);
                return Ok((Input::Read(reply), Wait::Nothing(wait, 0)));
            }
            Request::HandOver => {
                let (reply, wait) = async_channel::bounded(1);
                return Ok((Input::HandOver(reply), Wait::Nothing(wait, 0)));
            }
        };
        let spoken = self.status(to).map_or(0, |s| s.cluster_version);
        if command.needs() > spoken {
            return Err(Error::invalid("the cluster does not speak this version yet"));
        }
        let (reply, wait) = async_channel::bounded(1);
        let since = self.client.since.get(&ticket).copied();
        Ok((Input::Propose { id: ticket, since, data: command.encode(), reply }, Wait::Committed(wait)))
    }
}

fn words(result: &Result<u64>) -> String {
    match result {
        Ok(0) => "done".to_owned(),
        Ok(index) => format!("done at entry {index}"),
        Err(error) => error.to_string(),
    }
}

fn pin_of(ticket: Ticket, wish: &Wish) -> Pin {
    let mut pin = Pin::new(cid_of(&wish.name), Timestamp::from_secs(1_000));
    pin.name.clone_from(&wish.name);
    pin.mode = if wish.direct { PinMode::Direct } else { PinMode::Recursive };
    (pin.replication_min, pin.replication_max) = (1, 1);
    pin.allocations = vec![peer_id(wish.holder)];
    pin.metadata.insert(VERSION_KEY.to_owned(), ticket.to_string());
    if wish.expires != 0 {
        pin.expire_at = Timestamp::from_secs(wish.expires);
    }
    pin
}
