//! What the pump shows to everyone else: status, members, and the stream of events.
//!
//! Written by the pump's thread alone, the status after each turn, the members as soon as they change; read by
//! anybody without waiting for it.

use super::driver::Driver;
use super::snapshot::ConfHistory;
use super::Status;
use crate::error::Error;
use crate::state::{Event, Member, RaftId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Events that one subscriber may be behind; beyond, [`Event::Replaced`] stands for all.
pub const EVENTS: usize = 4_096;

struct Subscriber {
    events: async_channel::Sender<Event>,
    /// It missed events and must be told so as soon as there is room.
    lost: bool,
    /// Whether it wants to hear of single pins, too.
    pins: bool,
}

impl Subscriber {
    /// Whether it is still there.
    fn tell(&mut self, events: &[Event]) -> bool {
        if self.lost && !self.offer(Event::Replaced) {
            return !self.events.is_closed();
        }
        self.lost = false;
        for event in events.iter().filter(|event| self.pins || !event.is_of_a_pin()) {
            if !self.offer(event.clone()) {
                self.lost = true;
                break;
            }
        }
        !self.events.is_closed()
    }

    fn offer(&self, event: Event) -> bool {
        self.events.try_send(event).is_ok()
    }
}

/// See the module.
pub(super) struct Shared {
    status: Mutex<Status>,
    members: Mutex<Arc<Vec<Member>>>,
    watchers: Mutex<Vec<async_channel::Sender<()>>>,
    subscribers: Mutex<Vec<Subscriber>>,
    ended: Mutex<Option<Error>>,
    pub(super) history: Arc<Mutex<ConfHistory>>,
    /// Turns of the driver so far: it stands still when the driver does.
    pub(super) beats: AtomicU64,
}

impl Shared {
    pub(super) fn new(driver: &Driver) -> Self {
        Shared {
            status: Mutex::new(driver.status()),
            members: Mutex::new(Arc::new(by_peer(driver.members()))),
            watchers: Mutex::default(),
            subscribers: Mutex::default(),
            ended: Mutex::default(),
            history: driver.history(),
            beats: AtomicU64::new(0),
        }
    }

    pub(super) fn status(&self) -> Status {
        self.status.lock().clone()
    }

    pub(super) fn members(&self) -> Arc<Vec<Member>> {
        self.members.lock().clone()
    }

    /// Why nothing is answered any more, if so.
    pub(super) fn ended(&self) -> Option<Error> {
        self.ended.lock().clone()
    }

    /// A channel that is closed at the next change of leader, membership or end.
    pub(super) fn watch(&self) -> async_channel::Receiver<()> {
        let (sender, receiver) = async_channel::bounded(1);
        let mut watchers = self.watchers.lock();
        watchers.retain(|w| !w.is_closed());
        watchers.push(sender);
        receiver
    }

    /// Shows the driver's present; wakes watchers when something they wait for changed.
    pub(super) fn publish(&self, driver: &Driver) {
        self.beats.fetch_add(1, Ordering::Relaxed);
        let new = driver.status();
        let mut status = self.status.lock();
        if *status == new {
            return;
        }
        let woken = status.leader != new.leader || status.removed != new.removed || status.term != new.term;
        *status = new;
        drop(status);
        if woken {
            self.watchers.lock().clear();
        }
    }

    /// Shows the members, in the middle of a turn: the events and answers that follow must find them.
    pub(super) fn show_members(&self, now: &BTreeMap<RaftId, Member>) {
        let changed = {
            let mut members = self.members.lock();
            let changed =
                members.len() != now.len() || members.iter().any(|m| now.get(&m.raft_id) != Some(m));
            if changed {
                *members = Arc::new(by_peer(now));
            }
            changed
        };
        if changed {
            self.watchers.lock().clear();
        }
    }

    pub(super) fn fail(&self, error: &Error) {
        self.status.lock().failed = Some(error.clone());
    }

    pub(super) fn end(&self, error: &Error) {
        *self.ended.lock() = Some(error.clone());
        self.status.lock().leader = None;
        self.watchers.lock().clear();
        self.subscribers.lock().clear();
    }

    /// A new subscriber; without `pins` one that only hears of the members and of a replaced state.
    pub(super) fn subscribe(&self, pins: bool) -> async_channel::Receiver<Event> {
        let (events, receiver) = async_channel::bounded(EVENTS);
        if self.ended().is_none() {
            self.subscribers.lock().push(Subscriber { events, lost: false, pins });
        }
        receiver
    }

    pub(super) fn emit(&self, events: Vec<Event>) {
        self.subscribers.lock().retain_mut(|s| s.tell(&events));
    }

    /// Tells those that lost events and have room now.
    pub(super) fn remind(&self) {
        self.subscribers.lock().retain_mut(|s| s.tell(&[]));
    }
}

fn by_peer(members: &BTreeMap<RaftId, Member>) -> Vec<Member> {
    let mut members: Vec<Member> = members.values().cloned().collect();
    members.sort_by_key(|m| m.peer_id);
    members
}
