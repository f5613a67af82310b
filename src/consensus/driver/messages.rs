//! Messages in and out: who is heard, what is held back, and the snapshots that come between.

use super::{stranger, Driver, Outlet, MAX_STRANGERS};
use crate::consensus::message::{self, Body, Frame};
use crate::consensus::snapshot::{Fetched, Incoming, SnapshotRequest, Verdict};
use crate::consensus::LOG;
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::state::{Applied, Event, Member, RaftId, Role};
use libp2p::PeerId;
use raft::eraftpb::{Entry, Message, MessageType, Snapshot};
use raft::SnapshotStatus;

impl Driver {
    pub(super) fn send(&mut self, messages: Vec<Message>, out: &mut dyn Outlet) {
        let mut by_peer: Vec<(RaftId, Vec<Message>)> = Vec::new();
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.outgoing.offered(message.to, message.get_snapshot().get_metadata().index, self.now);
            }
            let to = message.to;
            let parts = parts(message, self.settings.max_append_entries);
            match by_peer.iter_mut().find(|(known, _)| *known == to) {
                Some((_, list)) => list.extend(parts),
                None => by_peer.push((to, parts)),
            }
        }
        for (to, list) in by_peer {
            if let Some(member) = self.members.get(&to).or_else(|| self.strangers.get(&to)) {
                for frame in
                    message::encode_messages(self.settings.cluster_id, self.settings.raft_id, to, &list)
                {
                    out.send(member, to, frame);
                }
            }
        }
    }

    pub(super) fn notice(&self, to: &Member, raft_id: RaftId, body: &Body, out: &mut dyn Outlet) {
        out.send(
            to,
            raft_id,
            message::encode_notice(self.settings.cluster_id, self.settings.raft_id, raft_id, body),
        );
    }

    /// Takes a frame from the network. Who has got this far knows the cluster's secret; beyond that, nobody may
    /// speak for a Raft id that is known to be another peer's. Ids that we do not know are heard, because
    /// a peer that was away does not know the leader that was added meanwhile, and a joiner knows nobody.
    pub(super) fn receive(&mut self, sender: PeerId, frame: Frame, out: &mut dyn Outlet) -> Result<()> {
        if frame.cluster_id != self.settings.cluster_id {
            // Never an answer to an answer.
            if !matches!(frame.body, Body::Recovered { .. }) {
                self.tell_recovered(sender, frame.cluster_id, (frame.from, frame.to), out)?;
            }
            return Ok(());
        }
        if frame.to != self.settings.raft_id {
            return Ok(());
        }
        let from = frame.from;
        if self.machine.is_removed(from) {
            // Never an answer to an answer: two removed peers would tell each other for ever. And only from who votes: what
            // a learner knows elects nobody, so the caller may still be needed by those who do.
            let votes = self.members.get(&self.settings.raft_id).is_some_and(|us| us.role == Role::Voter);
            if frame.body != Body::Removed && votes {
                self.notice(&stranger(from, sender), from, &Body::Removed, out);
            }
            return Ok(());
        }
        match self.members.get(&from) {
            Some(member) if member.peer_id == sender => (),
            Some(_) => return Ok(()),
            None => {
                if self.strangers.len() >= MAX_STRANGERS && !self.strangers.contains_key(&from) {
                    self.strangers.pop_first();
                }
                self.strangers.insert(from, stranger(from, sender));
            }
        }
        match frame.body {
            Body::Removed => {
                if self.members.contains_key(&from) {
                    self.removed = true;
                }
            }
            Body::AmIRemoved => (),
            // A stranger has no say in this.
            Body::Recovered { into, upto } => {
                if self.members.contains_key(&from) {
                    self.hear_recovered(sender, into, upto)?;
                }
            }
            Body::Messages(messages) if !self.is_removed() => {
                for message in messages {
                    self.step(message, out)?;
                }
            }
            Body::Messages(_) => (),
        }
        Ok(())
    }

    pub(super) fn step(&mut self, mut message: Message, out: &mut dyn Outlet) -> Result<()> {
        let kind = message.get_msg_type();
        if planted::is(Bug::TermNotChecked) && kind == MessageType::MsgAppend {
            message.log_term = self.node.raft.raft_log.term(message.index).unwrap_or(message.log_term);
        }
        let (last, committed) = (self.node.raft.raft_log.last_index(), self.node.raft.raft_log.committed);
        if message.term == self.node.raft.term {
            match kind {
                MessageType::MsgHeartbeat | MessageType::MsgAppend | MessageType::MsgSnapshot => {
                    self.heard = self.now
                }
                MessageType::MsgHeartbeatResponse | MessageType::MsgAppendResponse => {
                    if self.members.contains_key(&message.from) {
                        self.office.hears(message.from, self.now);
                    }
                    // Nobody can have more of our log than we have.
                    let append = kind == MessageType::MsgAppendResponse;
                    if append && !message.reject && message.index > last {
                        return Ok(());
                    }
                }
                _ => (),
            }
        }
        if kind == MessageType::MsgHeartbeat && message.term >= self.node.raft.term && message.commit > last {
            return Err(Error::corrupt(format!(
                "the leader knows that this peer had entry {} of the log, but the log ends at {last}: the data directory was replaced by an older copy; run `pinfold state cleanup` and join again",
                message.commit
            )));
        }
        if kind == MessageType::MsgSnapshot {
            let meta = message.get_snapshot().get_metadata();
            let known = meta.index < committed || self.node.raft.raft_log.match_term(meta.index, meta.term);
            if message.term >= self.node.raft.term && !known {
                self.fetch(message, out);
                return Ok(());
            }
        }
        match self.node.step(message) {
            Ok(()) | Err(raft::Error::StepPeerNotFound | raft::Error::ProposalDropped) => Ok(()),
            Err(error) => {
                log::debug!(target: LOG, "Raft ignored a message: {error}");
                Ok(())
            }
        }
    }

    pub(super) fn report_snapshot(&mut self, to: RaftId, verdict: Option<Verdict>) {
        match verdict {
            _ if planted::is(Bug::SnapshotOfferForgotten) => (),
            Some(Verdict::Finish) => self.node.report_snapshot(to, SnapshotStatus::Finish),
            Some(Verdict::Failure) => self.node.report_snapshot(to, SnapshotStatus::Failure),
            None => (),
        }
    }

    /// Holds a snapshot message back and asks for its content, unless one is already on its way.
    pub(super) fn fetch(&mut self, message: Message, out: &mut dyn Outlet) {
        if self.incoming.is_some() {
            return;
        }
        let Some(from) = self.members.get(&message.from).or_else(|| self.strangers.get(&message.from)) else {
            return;
        };
        let request = SnapshotRequest {
            cluster_id: self.settings.cluster_id,
            raft_id: self.settings.raft_id,
            at_least: message.get_snapshot().get_metadata().index,
        };
        out.fetch_snapshot(from.clone(), request);
        self.incoming = Some(Incoming { message, from: from.clone() });
    }

    /// The content is here: restamps the held message with what really came and lets raft-rs decide. What is
    /// in it was committed, whoever leads by now.
    pub(super) fn offer_to_raft(&mut self, fetched: Box<Fetched>) -> Result<()> {
        let Some(Incoming { mut message, .. }) = self.incoming.take() else { return Ok(()) };
        let (term, leader) = (self.node.raft.term, self.node.raft.leader_id);
        if fetched.applied.index <= self.node.raft.raft_log.committed || self.leads() {
            return Ok(());
        }
        if message.term < term {
            if leader == raft::INVALID_ID {
                return Ok(());
            }
            (message.term, message.from) = (term, leader);
        }
        let meta = message.mut_snapshot().mut_metadata();
        (meta.index, meta.term) = (fetched.applied.index, fetched.applied.term);
        meta.set_conf_state(fetched.conf_state.clone());
        self.fetched = Some(fetched);
        self.node.step(message).map_err(|e| Error::internal(format!("Raft refuses a snapshot: {e}")))
    }

    /// Replaces the state. First the state, then (by our caller) the log: `bootstrap` completes what a power cut
    /// leaves in between.
    pub(super) fn install(&mut self, snapshot: &Snapshot, out: &mut dyn Outlet) -> Result<Applied> {
        let meta = snapshot.get_metadata();
        let fetched = self.fetched.take().filter(|f| f.applied.index == meta.index).ok_or_else(|| {
            Error::internal(format!("Raft wants the snapshot of entry {}, which is not here", meta.index))
        })?;
        let Fetched { applied, conf_state, sink } = *fetched;
        self.state.install(sink, applied)?;
        self.machine.reload()?;
        if super::sorted(&self.machine.conf_state()) != super::sorted(&conf_state) {
            return Err(Error::corrupt(
                "the snapshot from the leader holds another configuration than its header says: run the same version everywhere",
            ));
        }
        let conf = super::sorted(&conf_state);
        self.note_conf(applied.index, &conf);
        self.node.raft.mut_store().set_conf(conf);
        self.node.raft.mut_store().set_applied(applied);
        (self.applied, self.durable) = (applied, applied);
        self.proposals.reset_log(applied.index);
        self.note_members();
        out.show_members(&self.members);
        out.emit(vec![Event::Replaced]);
        log::info!(target: LOG, "installed a snapshot of the state up to entry {}", applied.index);
        Ok(applied)
    }
}

/// An append message with more than `most` entries as several, each going on where the one before ends. raft-rs
/// limits a message by its bytes alone; several in a row mean the same to it.
fn parts(mut message: Message, most: usize) -> Vec<Message> {
    if message.get_msg_type() != MessageType::MsgAppend || message.entries.len() <= most {
        return vec![message];
    }
    let mut rest: Vec<Entry> = message.take_entries().into();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let later = rest.split_off(most.min(rest.len()));
        let mut part = message.clone();
        if let Some(last) = rest.last() {
            (message.index, message.log_term) = (last.index, last.term);
        }
        part.set_entries(rest.into());
        parts.push(part);
        rest = later;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_append_is_cut_where_each_part_fits_to_the_one_before() {
        let entry = |index, term| Entry { index, term, ..Default::default() };
        let mut append = Message::default();
        append.set_msg_type(MessageType::MsgAppend);
        (append.to, append.term, append.index, append.log_term, append.commit) = (2, 5, 10, 3, 12);
        append.set_entries(vec![entry(11, 3), entry(12, 4), entry(13, 4), entry(14, 5), entry(15, 5)].into());
        let cut = parts(append.clone(), 2);
        let shape: Vec<_> = cut.iter().map(|m| (m.index, m.log_term, m.entries.len())).collect();
        assert_eq!(shape, [(10, 3, 2), (12, 4, 2), (14, 5, 1)]);
        assert!(cut.iter().all(|m| (m.to, m.term, m.commit) == (2, 5, 12)));
        assert_eq!(parts(append.clone(), 5), [append.clone()]);
        append.set_msg_type(MessageType::MsgPropose);
        assert_eq!(parts(append, 1).len(), 1, "only appends");
    }
}
