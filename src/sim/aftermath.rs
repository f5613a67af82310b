//! What must be true when a cluster's bad days are over.
//!
//! All is repaired; then, within a bounded time, a change is accepted again and all peers agree, everybody who lost a
//! disk or was removed is back as a new member, and what the callers saw from first to last can be put into one
//! order ([`super::linear`]).

use super::chaos::{Chaos, ELECTION, PATIENCE};
use super::check::{broken, Broken};
use super::client::{Answer, Request, Ticket};
use super::linear::{self, Act, End, Operation, Verdict};
use super::network::{Faults, Peer, TICK};
use crate::error::Kind;
use crate::state::{RaftId, Role};
use crate::store::memory::Trouble;
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet};

/// Election timeouts in which a repaired cluster must accept a change.
const ACCEPT_WITHIN: u64 = 40;
/// Election timeouts in which all peers of a repaired cluster must be members again and agree.
const AGREE_WITHIN: u64 = 250;
/// Ticks that the last readers wait.
const LAST_WORDS: u64 = 400;
/// Where in the order a change is tried that is in no log: last.
const NOWHERE: u64 = u64::MAX;
/// Between two tries to make a peer a member.
const JOIN_AGAIN: u64 = 8 * TICK;

impl Chaos {
    pub(super) fn collect(&mut self) {
        for (ticket, answer) in self.sim.answers() {
            self.answered(ticket, answer);
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let known = match &answer.result {
            Ok(_) => End::Done,
            Err(e) if self.sim.checks.model.is_refused(ticket, e.kind()) => End::Refused,
            Err(_) => End::Unknown,
        };
        if let Request::Add(peer) = *answer.request {
            let now = self.sim.ms;
            let removed = self.sim.raft_id(peer);
            if let Some(id) = removed.filter(|id| self.sim.checks.model.is_removed(*id)) {
                if answer.result.as_ref().is_err_and(|e| e.kind() == Kind::Conflict) {
                    self.gone.insert(id);
                } else {
                    self.returned.remove(&id);
                }
            }
            if let Some((waits, again)) = self.outside.get_mut(&peer).filter(|(t, _)| *t == Some(ticket)) {
                (*waits, *again) = (None, now + JOIN_AGAIN);
            }
            return;
        }
        if let (Request::Remove(peer), End::Done) = (&*answer.request, known) {
            let id = self.sim.raft_id(*peer);
            self.gone.extend(id.filter(|id| self.sim.checks.model.is_removed(*id)));
        }
        if answer.request.is_command() {
            let report = &mut self.report;
            match known {
                End::Done => report.acknowledged += 1,
                End::Refused => report.refused += 1,
                End::Unknown => report.unknown += 1,
            }
        }
        // Refused before it was offered to anybody: nothing can have happened.
        if answer.result.as_ref().is_err_and(|e| e.kind() == Kind::Full) && answer.attempts == 0 {
            return;
        }
        // A batch is refused for the sake of one of its pins; of the others that says nothing. Whether it was rightly
        // refused is the model's to say.
        if known == End::Refused && matches!(*answer.request, Request::PinMany(_)) {
            return;
        }
        for (name, act) in acts(ticket, &answer) {
            if matches!(act, Act::Read(_)) {
                self.report.reads += 1;
            }
            let (start, answered) = answer.span;
            let end = if known == End::Unknown { linear::NEVER } else { answered };
            let hint = answer.reading.as_ref().map_or(NOWHERE, |reading| 2 * reading.applied + 1);
            let operation = Operation { start, end, act, known, hint };
            let history = self.history.entry(name).or_default();
            // A retry may put a second entry into the log, but never after the answer.
            for _ in 1..self.sim.checks.model.places(ticket).len() {
                history.push((ticket, Operation { known: End::Unknown, ..operation.clone() }));
            }
            history.push((ticket, operation));
        }
    }

    /// The operations on one pin, with the log as an idea of their order.
    fn operations(&self, history: &[(Ticket, Operation)]) -> Vec<Operation> {
        let mut used: BTreeMap<Ticket, usize> = BTreeMap::new();
        let hinted = history.iter().map(|(ticket, operation)| {
            let nth = used.entry(*ticket).or_default();
            let place = self.sim.checks.model.places(*ticket).get(*nth).map(|index| 2 * index);
            *nth += 1;
            Operation { hint: place.unwrap_or(operation.hint), ..operation.clone() }
        });
        hinted.collect()
    }

    pub(super) fn repair(&mut self) -> Result<(), Broken> {
        let sim = &mut self.sim;
        sim.note(|| "-- all is repaired".to_owned());
        sim.set_faults(Faults::default());
        sim.heal();
        let disk = sim.disk;
        for node in sim.nodes.values_mut() {
            (node.disk, node.every, node.clock, node.doomed) = (disk, TICK, 0, false);
            node.state.set_full(None);
            node.log.set_trouble(Trouble::None);
            node.state.set_trouble(Trouble::None);
        }
        self.restart_all()?;
        let healed = self.sim.ms;
        let (mut probe, mut accepted) = (None, None);
        while accepted.is_none() || !self.is_whole() {
            let now = self.sim.ms;
            let late = now > healed + AGREE_WITHIN * ELECTION
                || accepted.is_none() && now > healed + ACCEPT_WITHIN * ELECTION;
            if late {
                let what = if accepted.is_none() { "accepted no change" } else { "did not agree again" };
                return Err(broken(
                    "no progress",
                    format!(
                        "the repaired cluster {what} within {} ms; outside {:?}: {}",
                        now - healed,
                        self.outside,
                        self.sim.describe()
                    ),
                ));
            }
            self.restart_all()?;
            for peer in 1..=self.knobs.peers {
                self.join(peer)?;
            }
            if probe.is_none() {
                probe = self.sim.leader().map(|at| self.sim.ask(at, Request::pin("probe"), PATIENCE));
            }
            self.call_outsiders();
            self.sim.advance(now + TICK)?;
            for (ticket, answer) in self.sim.answers() {
                if Some(ticket) == probe {
                    probe = None;
                    if answer.result.is_ok() && accepted.is_none() {
                        accepted = Some(self.sim.ms - healed);
                    }
                }
                self.answered(ticket, answer);
            }
            if accepted.is_some() {
                probe = Some(0);
            }
        }
        self.report.to_accept = accepted.unwrap_or_default();
        self.report.to_agree = self.sim.ms - healed;
        Ok(())
    }

    /// Whether everybody is back, as many vote as may, and all agree.
    fn is_whole(&self) -> bool {
        let Some(members) = self.sim.checks.model.members() else { return false };
        let ids: BTreeSet<RaftId> = self.sim.nodes.values().map(|n| n.raft_id).collect();
        let voters = members.values().filter(|m| m.role == Role::Voter).count() as u64;
        self.sim.open_requests() == 0
            && self.outside.is_empty()
            && ids.iter().eq(members.keys())
            && voters >= self.knobs.peers.min(self.knobs.max_voters as u64)
            && self.sim.is_settled()
    }

    /// Every pin is read at every peer once more.
    pub(super) fn last_words(&mut self) -> Result<(), Broken> {
        let names: Vec<String> = self.history.keys().cloned().collect();
        for peer in self.sim.peers() {
            for name in &names {
                self.sim.ask(peer, Request::Read(name.clone()), LAST_WORDS);
            }
        }
        let limit = self.sim.ms + LAST_WORDS * TICK;
        while self.sim.open_requests() > 0 && self.sim.ms < limit {
            self.until(self.sim.ms + TICK)?;
        }
        Ok(())
    }

    pub(super) fn verify(&mut self) -> Result<(), Broken> {
        if let Some(ticket) = self.sim.checks.told_too_early() {
            return Err(broken(
                "false acknowledgement",
                format!("request {ticket} was answered, but never committed"),
            ));
        }
        let mut checks = std::mem::take(&mut self.sim.checks);
        for (peer, node) in &self.sim.nodes {
            let Some(driver) = &node.driver else { continue };
            checks.compare(*peer, node, driver.status().applied)?;
            driver.machine().verify().map_err(|e| {
                broken("digest", format!("the digest of peer {peer} is not that of its rows: {e}"))
            })?;
        }
        self.sim.checks = checks;
        for (name, history) in &self.history {
            let operations = self.operations(history);
            match linear::check(&operations) {
                Verdict::Fine => self.report.ordered += operations.len() as u64,
                Verdict::Undecided => self.report.undecided += operations.len() as u64,
                Verdict::Impossible => {
                    let seen: Vec<String> = operations
                        .iter()
                        .map(|o| format!("{}..{} {:?} {:?}", o.start, o.end, o.act, o.known))
                        .collect();
                    return Err(broken(
                        "no order",
                        format!("what was seen of {name} can be put into no order:\n  {}", seen.join("\n  ")),
                    ));
                }
            }
        }
        let (sim, report) = (&self.sim, &mut self.report);
        report.steps = sim.happened;
        report.millis = sim.ms;
        report.leaders = sim.checks.leaders();
        report.compared = sim.checks.compared;
        report.hash = sim.hash;
        report.count("crash in a turn", sim.torn.0);
        report.count("crash in a turn that found the write done", sim.torn.1);
        report.count("frames lost", sim.network.lost);
        report.count("frames doubled", sim.network.doubled);
        report.count("frames late", sim.network.late);
        report.faults.retain(|_, times| *times > 0);
        Ok(())
    }
}

/// What an answer says about single pins.
fn acts(ticket: Ticket, answer: &Answer) -> Vec<(String, Act)> {
    let value = |wish: &super::Wish| super::Value {
        version: ticket,
        direct: wish.direct,
        holders: vec![id(wish.holder)],
        expires: wish.expires,
    };
    match &*answer.request {
        Request::Pin(wish) => vec![(wish.name.clone(), Act::Put(value(wish)))],
        Request::PinMany(wishes) => {
            // Of two under one name the later is left; all are recursive, so that none is refused.
            let last: BTreeMap<&String, Act> =
                wishes.iter().map(|wish| (&wish.name, Act::Put(value(wish)))).collect();
            last.into_iter().map(|(name, act)| (name.clone(), act)).collect()
        }
        Request::Unpin(name) => vec![(name.clone(), Act::Remove)],
        Request::Move(name, from, to) => vec![(name.clone(), Act::Move(id(*from), id(*to)))],
        Request::Expire(name, expires) => vec![(name.clone(), Act::Expire(*expires))],
        Request::Read(name) => {
            let seen = answer.reading.as_ref().map(|r| (name.clone(), Act::Read(r.value.clone())));
            seen.into_iter().collect()
        }
        Request::Refresh(..)
        | Request::Raise(_)
        | Request::Add(_)
        | Request::Remove(_)
        | Request::HandOver => Vec::new(),
    }
}

fn id(peer: Peer) -> PeerId {
    super::cluster::peer_id(peer)
}
