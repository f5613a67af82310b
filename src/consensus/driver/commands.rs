//! Commands into the log, and the log into the state.

use super::{sorted, Driver, Outlet, MAX_APPLIED_WAITERS, MAX_HELD_FOR_SNAPSHOT, MAX_PROPOSE_BYTES};
use crate::consensus::membership;
use crate::consensus::message::Body;
use crate::consensus::proposals::{id_of, Reply};
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::state::{Applied, Command, Event, MemberChange};
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType};

impl Driver {
    pub(super) fn propose_commands(&mut self) {
        let mut batch = std::mem::take(&mut self.batch).into_iter().peekable();
        while batch.peek().is_some() {
            let (mut ids, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some((id, data)) = batch.next_if(|_| bytes < MAX_PROPOSE_BYTES) {
                bytes += data.len();
                ids.push(id);
                entries.push(Entry {
                    data: data.into(),
                    context: id.to_be_bytes().to_vec().into(),
                    ..Default::default()
                });
            }
            let mut propose = Message::default();
            propose.set_msg_type(MessageType::MsgPropose);
            propose.from = self.settings.raft_id;
            propose.set_entries(entries.into());
            let refusal = if !self.leads() || self.node.raft.lead_transferee.is_some() {
                self.not_leader()
            } else if self.node.step(propose).is_ok() {
                continue;
            } else {
                Error::unavailable(
                    "too many changes are waiting for a majority of the voters: try again later",
                )
            };
            for id in ids {
                self.proposals.refuse(id, &refusal);
            }
        }
    }

    pub(super) fn wait_applied(&mut self, index: u64, reply: Reply<()>) {
        let waiting: usize = self.applied_waiters.values().map(Vec::len).sum();
        if self.applied.index >= index {
            let _ = reply.try_send(Ok(()));
        } else if waiting >= MAX_APPLIED_WAITERS {
            let _ = reply.try_send(Err(Error::unavailable(format!(
                "{MAX_APPLIED_WAITERS} requests already wait for this peer to catch up: try again later"
            ))));
        } else {
            self.applied_waiters.entry(index).or_default().push(reply);
        }
    }

    pub(super) fn apply(&mut self, entries: Vec<Entry>, out: &mut dyn Outlet) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut events = Vec::new();
        for entry in entries {
            let at = Applied { index: entry.index, term: entry.term };
            if self.applied == self.durable {
                self.dirty_since = self.now;
            }
            let told = match entry.get_entry_type() {
                EntryType::EntryNormal => self.apply_command(at, &entry),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    self.apply_change(at, &entry, out)
                }
            };
            events.extend(told.map_err(|e| e.context(format!("applying entry {}", at.index)))?);
            self.applied = at;
            self.node.raft.mut_store().set_applied(at);
        }
        self.applied_at = self.now;
        self.changed_pins += events.iter().filter(|event| event.is_of_a_pin()).count();
        if events.contains(&Event::MembersChanged) {
            self.note_members();
            out.show_members(&self.members);
        }
        let later = self.applied_waiters.split_off(&(self.applied.index + 1));
        for reply in std::mem::replace(&mut self.applied_waiters, later).into_values().flatten() {
            let _ = reply.try_send(Ok(()));
        }
        if !events.is_empty() {
            out.emit(events);
        }
        Ok(())
    }

    pub(super) fn apply_command(&mut self, at: Applied, entry: &Entry) -> Result<Vec<Event>> {
        let command = if entry.data.is_empty() { None } else { Some(Command::decode(&entry.data)?) };
        let (outcome, events) = self.machine.apply(at, command)?;
        if let Some(id) = id_of(&entry.context) {
            self.proposals.applied(id, at.index, outcome);
        }
        Ok(events)
    }

    pub(super) fn apply_change(
        &mut self,
        at: Applied,
        entry: &Entry,
        out: &mut dyn Outlet,
    ) -> Result<Vec<Event>> {
        let (id, change) = membership::decode_change(&entry.context)?;
        let step = self.queue.applied(id);
        let returns = matches!(&change, MemberChange::Put(m) if self.machine.is_removed(m.raft_id));
        let conf = if returns {
            Err("a removed Raft id does not come back".to_owned())
        } else {
            self.node.apply_conf_change(&membership::conf_change(&change)).map_err(|e| e.to_string())
        };
        let (answer, events) = match conf {
            Ok(conf) => {
                let conf = sorted(&conf);
                // Before the state moves, so that whoever reads it at this mark finds its configuration.
                self.note_conf(at.index, &conf);
                self.node.raft.mut_store().set_conf(conf.clone());
                if let MemberChange::Remove(gone) = &change {
                    if let Some(member) = self.members.get(gone).filter(|_| self.leads()) {
                        self.notice(member, *gone, &Body::Removed, out);
                    }
                }
                let events = self.machine.apply_members(at, &[change], &conf)?;
                self.note_members();
                out.show_members(&self.members);
                (Ok(self.settings.cluster_id), events)
            }
            // The same on every peer: raft-rs looks only at the configuration, which is replicated.
            Err(why) => {
                let _nothing = self.machine.apply(at, None)?;
                (Err(Error::conflict(format!("the membership change was refused: {why}"))), Vec::new())
            }
        };
        if let Some(reply) = step.and_then(|s| s.reply) {
            let _ = reply.try_send(answer);
        }
        Ok(events)
    }

    /// Only for [`Bug::ConfChangeAtAppend`].
    pub(super) fn count_changes(&mut self, appended: &[Entry]) -> Result<()> {
        for entry in appended.iter().filter(|e| e.get_entry_type() != EntryType::EntryNormal) {
            let (_, change) = membership::decode_change(&entry.context)?;
            if let Ok(conf) = self.node.apply_conf_change(&membership::conf_change(&change)) {
                self.node.raft.mut_store().set_conf(sorted(&conf));
            }
        }
        Ok(())
    }

    pub(super) fn note_members(&mut self) {
        self.members = self.machine.members().into_iter().map(|m| (m.raft_id, m)).collect();
        self.strangers.retain(|id, _| !self.members.contains_key(id));
    }

    pub(super) fn note_conf(&self, index: u64, conf: &ConfState) {
        self.history.lock().push(index, conf.clone());
    }

    /// Forgets log entries that the state on disk covers.
    pub(super) fn truncate(&mut self) -> Result<()> {
        let upto = self.superfluous_up_to();
        self.node.raft.mut_store().truncate(upto)
    }

    /// How many entries of the log could be forgotten.
    pub(super) fn superfluous(&self) -> u64 {
        (self.superfluous_up_to() + 1).saturating_sub(self.node.raft.store().log().first_index())
    }

    /// The last entry that the state on disk covers, but for those that are kept for peers that are behind.
    fn superfluous_up_to(&self) -> u64 {
        let on_disk = if planted::is(Bug::TruncatedTooFar) { self.applied } else { self.durable };
        let upto = on_disk.index.min(self.applied.index).saturating_sub(self.settings.trailing_logs);
        match self.outgoing.lowest() {
            Some(offered) => upto.min(offered.max(upto.saturating_sub(MAX_HELD_FOR_SNAPSHOT))),
            None => upto,
        }
    }
}
