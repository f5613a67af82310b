//! Reads as fresh as the moment they were asked: ReadIndex, in batches.
//!
//! All readers that arrive while one confirmation is under way share the next one, so a thousand readers cost
//! one round of heartbeats. raft-rs drops a request silently when there is no leader, when the leader has
//! not committed in its term, or when a message is lost; so every request is asked again under a new name
//! after a while, until its readers' deadline.
//!
//! A confirmation says: at the time of asking, index *i* was committed and the leader still led. The reader may
//! go on when this peer has applied *i*. It must never be answered by a confirmation that was asked for
//! before the reader came.

use super::proposals::Reply;
use crate::error::Error;
use crate::planted::{self, Bug};
use crate::state::RaftId;

/// Readers that may wait at one time.
pub const MAX_READERS: usize = 8_192;

struct Reader {
    reply: Reply<()>,
    deadline: u64,
}

struct Asked {
    name: Vec<u8>,
    readers: Vec<Reader>,
    again_at: u64,
}

/// The readers of this peer.
pub struct Reads {
    raft_id: RaftId,
    counter: u64,
    patience: u64,
    arrived: Vec<Reader>,
    asked: Option<Asked>,
    confirmed: Vec<(u64, Vec<Reader>)>,
}

impl Reads {
    /// No readers. `salt` keeps the names of two lives of one peer apart; a request is repeated after
    /// `patience` ticks.
    pub fn new(raft_id: RaftId, salt: u64, patience: u64) -> Self {
        Reads { raft_id, counter: salt, patience, arrived: Vec::new(), asked: None, confirmed: Vec::new() }
    }

    /// Takes a reader.
    pub fn add(&mut self, reply: Reply<()>, deadline: u64) {
        let confirmed: usize = self.confirmed.iter().map(|(_, r)| r.len()).sum();
        if self.arrived.len() + self.asked.as_ref().map_or(0, |a| a.readers.len()) + confirmed >= MAX_READERS
        {
            let _ = reply.try_send(Err(Error::unavailable(format!(
                "{MAX_READERS} readers are already waiting for the leader: try again later"
            ))));
            return;
        }
        self.arrived.push(Reader { reply, deadline });
    }

    /// The name under which to ask now, if it is time to ask.
    pub fn ask(&mut self, now: u64) -> Option<Vec<u8>> {
        let mut readers = match self.asked.take() {
            Some(mut asked) if now < asked.again_at => {
                if planted::is(Bug::ReadJoinsEarlierRound) {
                    asked.readers.append(&mut self.arrived);
                }
                self.asked = Some(asked);
                return None;
            }
            Some(asked) => asked.readers,
            None => Vec::new(),
        };
        readers.append(&mut self.arrived);
        if readers.is_empty() {
            return None;
        }
        self.counter = self.counter.wrapping_add(1);
        let name = [self.raft_id.to_be_bytes(), self.counter.to_be_bytes()].concat();
        self.asked = Some(Asked { name: name.clone(), readers, again_at: now + self.patience });
        Some(name)
    }

    /// raft-rs confirmed a request at `index`.
    pub fn confirm(&mut self, name: &[u8], index: u64) {
        if self.asked.as_ref().is_some_and(|a| a.name == name) {
            if let Some(asked) = self.asked.take() {
                self.confirmed.push((index, asked.readers));
            }
        }
    }

    /// This peer has applied up to `index`.
    pub fn applied(&mut self, index: u64) {
        self.confirmed.retain_mut(|(wanted, readers)| {
            if *wanted > index && !planted::is(Bug::ReadBeforeApplied) {
                return true;
            }
            for reader in readers.drain(..) {
                let _ = reader.reply.try_send(Ok(()));
            }
            false
        });
    }

    /// Answers everyone whose time is over.
    pub fn expire(&mut self, now: u64) {
        let keep = |readers: &mut Vec<Reader>| {
            readers.retain(|r| {
                if r.deadline > now {
                    return true;
                }
                let _ = r.reply.try_send(Err(Error::timeout(
                    "no leader confirmed the read in time: no majority of the voters is reachable from this peer",
                )));
                false
            });
        };
        keep(&mut self.arrived);
        if let Some(asked) = &mut self.asked {
            keep(&mut asked.readers);
            if asked.readers.is_empty() {
                self.asked = None;
            }
        }
        self.confirmed.retain_mut(|(_, readers)| {
            keep(readers);
            !readers.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reader_is_not_served_by_an_earlier_request() {
        let mut reads = Reads::new(1, 0, 5);
        let (tx1, rx1) = async_channel::bounded(1);
        let (tx2, rx2) = async_channel::bounded(1);
        reads.add(tx1, 100);
        let first = reads.ask(0).unwrap();
        reads.add(tx2, 100);
        assert!(reads.ask(1).is_none());
        reads.confirm(&first, 7);
        reads.applied(6);
        assert!(rx1.try_recv().is_err());
        reads.applied(7);
        assert!(rx1.try_recv().unwrap().is_ok());
        assert!(rx2.try_recv().is_err());
        let second = reads.ask(1).unwrap();
        assert_ne!(first, second);
        reads.confirm(&second, 7);
        reads.applied(7);
        assert!(rx2.try_recv().unwrap().is_ok());
    }

    #[test]
    fn a_lost_request_is_asked_again_under_a_new_name() {
        let mut reads = Reads::new(1, 0, 5);
        let (tx, rx) = async_channel::bounded(1);
        reads.add(tx, 100);
        let first = reads.ask(0).unwrap();
        assert!(reads.ask(4).is_none());
        let second = reads.ask(5).unwrap();
        reads.confirm(&first, 1);
        reads.applied(1);
        assert!(rx.try_recv().is_err());
        reads.confirm(&second, 1);
        reads.applied(1);
        assert!(rx.try_recv().unwrap().is_ok());
    }

    #[test]
    fn readers_do_not_wait_for_ever() {
        let mut reads = Reads::new(1, 0, 5);
        let (tx, rx) = async_channel::bounded(1);
        reads.add(tx, 10);
        reads.ask(0);
        reads.expire(10);
        assert_eq!(rx.try_recv().unwrap().unwrap_err().kind(), crate::Kind::Timeout);
        assert!(reads.ask(20).is_none());
    }
}
