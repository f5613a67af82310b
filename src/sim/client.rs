//! Simulated callers: they ask a peer, follow it to the leader, and try again with the same proposal id, as
//! the handle does in the daemon.

use super::cluster::{cid_of, peer_id, Sim};
use super::network::Peer;
use crate::clock::Timestamp;
use crate::consensus::driver::Input;
use crate::consensus::proposals::Committed;
use crate::error::{Error, Kind, Result};
use crate::state::{Command, Move, Pin};
use std::collections::BTreeMap;

/// The mark of a request.
pub type Ticket = u64;

/// What a caller wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Pin the CID that belongs to this name.
    Pin(String),
    /// Unpin it.
    Unpin(String),
    /// Move it from one holder to another, if it is at the first.
    Move(String, Peer, Peer),
    /// Make a peer a member.
    Add(Peer),
    /// Remove a peer.
    Remove(Peer),
    /// Read as fresh as now.
    Read,
    /// Let another voter lead.
    HandOver,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was asked.
    pub request: Request,
    /// At which peer.
    pub at: Peer,
    /// When it was asked.
    pub asked: u64,
    /// The log index where it happened (0 where there is none), or why not.
    pub result: Result<u64>,
}

enum Wait {
    Committed(async_channel::Receiver<Result<Committed>>),
    Number(async_channel::Receiver<Result<u64>>),
    Nothing(async_channel::Receiver<Result<()>>),
}

impl Wait {
    fn poll(&self) -> Option<Result<u64>> {
        let gone = || Err(Error::not_leader("the peer went down"));
        match self {
            Wait::Committed(r) => closed(r).map(|a| a.unwrap_or_else(gone_committed).map(|c| c.index)),
            Wait::Number(r) => closed(r).map(|a| a.unwrap_or_else(gone).map(|_| 0)),
            Wait::Nothing(r) => closed(r).map(|a| a.unwrap_or_else(|| Err(gone_error())).map(|()| 0)),
        }
    }
}

fn gone_error() -> Error {
    Error::not_leader("the peer went down")
}

fn gone_committed() -> Result<Committed> {
    Err(gone_error())
}

/// `None` while there is no answer, `Some(None)` when there will be none.
fn closed<T>(receiver: &async_channel::Receiver<T>) -> Option<Option<T>> {
    match receiver.try_recv() {
        Ok(answer) => Some(Some(answer)),
        Err(async_channel::TryRecvError::Empty) => None,
        Err(async_channel::TryRecvError::Closed) => Some(None),
    }
}

struct Open {
    request: Request,
    at: Peer,
    asked: u64,
    deadline: u64,
    again_at: u64,
    tries: u64,
    /// What its peer knew to be committed before the first try.
    since: u64,
    wait: Option<Wait>,
}

/// All callers.
#[derive(Default)]
pub(super) struct Client {
    next: Ticket,
    open: BTreeMap<Ticket, Open>,
    answers: BTreeMap<Ticket, Answer>,
}

/// Ticks before a request is tried again.
const PAUSE: u64 = 2;

impl Sim {
    /// Asks at a peer, for at most `limit` ticks.
    pub fn ask(&mut self, at: Peer, request: Request, limit: u64) -> Ticket {
        self.client.next += 1;
        let ticket = self.client.next;
        let (asked, deadline) = (self.now, self.now + limit);
        let since = self.status(at).map_or(0, |s| s.committed);
        let open = Open { request, at, asked, deadline, again_at: 0, tries: 0, since, wait: None };
        self.client.open.insert(ticket, open);
        ticket
    }

    /// Asks, and lets time pass until there is an answer.
    ///
    /// # Errors
    /// As [`Sim::tick`]; the request's own failure is in the answer.
    pub fn ask_and_wait(&mut self, at: Peer, request: Request, limit: u64) -> Result<Answer, String> {
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

    /// Looks for answers and starts what is to be tried.
    pub(super) fn ask_leaders(&mut self) {
        let tickets: Vec<Ticket> = self.client.open.keys().copied().collect();
        for ticket in tickets {
            let Some(mut open) = self.client.open.remove(&ticket) else { continue };
            match self.advance(ticket, &mut open) {
                Some(result) => {
                    let Open { request, at, asked, .. } = open;
                    self.client.answers.insert(ticket, Answer { request, at, asked, result });
                }
                None => {
                    self.client.open.insert(ticket, open);
                }
            }
        }
    }

    fn advance(&mut self, ticket: Ticket, open: &mut Open) -> Option<Result<u64>> {
        if let Some(result) = open.wait.as_ref().map(Wait::poll) {
            match result {
                None => (),
                Some(Err(e)) if matches!(e.kind(), Kind::NotLeader | Kind::Unavailable) => {
                    (open.wait, open.again_at) = (None, self.now + PAUSE);
                }
                // Asked once and refused, as by the handle: it is in no log, and is asked anew.
                Some(Err(e))
                    if e.kind() == Kind::Conflict
                        && open.tries == 1
                        && matches!(
                            open.request,
                            Request::Pin(_) | Request::Unpin(_) | Request::Move(..)
                        ) =>
                {
                    (open.wait, open.again_at, open.tries) = (None, self.now + PAUSE, 0);
                    open.since = self.status(open.at).map_or(open.since, |s| s.committed);
                }
                Some(Err(e))
                    if e.kind() == Kind::NotFound
                        && open.tries > 1
                        && matches!(open.request, Request::Remove(_)) =>
                {
                    return Some(Ok(0));
                }
                Some(result) => return Some(result),
            }
        }
        if self.now >= open.deadline {
            return Some(Err(Error::unavailable("timed out waiting for leader")));
        }
        if open.wait.is_some() || self.now < open.again_at {
            return None;
        }
        let Some(at) = self.target(open) else {
            open.again_at = self.now + PAUSE;
            return None;
        };
        open.tries += 1;
        let (input, wait) = self.input(ticket, open.since, &open.request)?;
        open.wait = Some(wait);
        self.drive(at, Some(input));
        None
    }

    /// Whom to ask: the peer itself for reads, else the leader it knows, if that can be reached.
    fn target(&self, open: &Open) -> Option<Peer> {
        let status = self.status(open.at)?;
        if matches!(open.request, Request::Read | Request::HandOver) {
            return Some(open.at);
        }
        let leader = self.who(status.leader?)?;
        (leader == open.at || self.network.is_open(open.at, leader) && self.is_up(leader)).then_some(leader)
    }

    fn input(&self, ticket: Ticket, since: u64, request: &Request) -> Option<(Input, Wait)> {
        let command = match request {
            Request::Pin(name) => {
                let mut pin = Pin::new(cid_of(name), Timestamp::from_secs(1_000));
                pin.name.clone_from(name);
                (pin.replication_min, pin.replication_max) = (1, 1);
                pin.allocations = vec![peer_id(1)];
                Command::Pin(Box::new(pin))
            }
            Request::Unpin(name) => Command::Unpin(cid_of(name)),
            Request::Move(name, from, to) => Command::Reallocate(vec![Move {
                cid: cid_of(name),
                from: vec![peer_id(*from)],
                to: vec![peer_id(*to)],
            }]),
            Request::Add(peer) => {
                let (reply, wait) = async_channel::bounded(1);
                return Some((Input::AddMember(Box::new(self.member(*peer)?), reply), Wait::Number(wait)));
            }
            Request::Remove(peer) => {
                let (reply, wait) = async_channel::bounded(1);
                return Some((Input::RemoveMember(self.member(*peer)?.peer_id, reply), Wait::Number(wait)));
            }
            Request::Read => {
                let (reply, wait) = async_channel::bounded(1);
                return Some((Input::Read(reply), Wait::Nothing(wait)));
            }
            Request::HandOver => {
                let (reply, wait) = async_channel::bounded(1);
                return Some((Input::HandOver(reply), Wait::Nothing(wait)));
            }
        };
        let (reply, wait) = async_channel::bounded(1);
        Some((
            Input::Propose { id: ticket, since: Some(since), data: command.encode(), reply },
            Wait::Committed(wait),
        ))
    }
}
