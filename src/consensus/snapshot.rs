//! Bringing a far-behind peer up by the whole state instead of entry by entry.
//!
//! raft-rs's snapshot message carries no content: only the mark at which the leader could give one. The
//! receiver holds the message back, opens a stream to its sender and reads the *newest* state from one read
//! transaction there, in chunks, into a replacement beside its own state. When all has arrived it restamps the
//! message with the mark and configuration that really came, hands it to raft-rs, and installs when
//! raft-rs agrees. So a snapshot is never older than it must be, nothing is kept for a peer that may never
//! come, and the driver never waits for the stream.
//!
//! The sender watches each peer to which it sent the message ([`Outgoing`]): raft-rs feeds that peer nothing else
//! until it is told how the transfer ended.
//!
//! It must never: install a part of a snapshot, believe a row that is not of a replicated table, or hold more
//! than one chunk in memory.

use super::message::{decode_conf_state, encode_conf_state, MAX_NUMBER};
use crate::error::{Error, Result};
use crate::state::{Applied, Member, RaftId};
use crate::store::{SnapshotSink, SnapshotSource, StateStore, Table, MAX_KEY, MAX_VALUE};
use async_trait::async_trait;
use raft::eraftpb::{ConfState, Message};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// About how many bytes of rows one chunk has.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Most rows that are accepted in one chunk.
pub const MAX_CHUNK_ROWS: usize = 65_536;
/// Snapshots that one peer gives at one time; more callers are told to come back.
pub const MAX_STREAMS: usize = 2;
/// No chunk for this long ends a transfer, from either end.
pub const IDLE: Duration = Duration::from_secs(30);
/// The longest that opening a transfer may take.
pub const OPEN: Duration = Duration::from_secs(10);
/// A peer that does not begin to fetch what it was offered is offered again after this long.
pub const START_WITHIN: Duration = Duration::from_secs(5);
/// A peer that fetched everything and answers heartbeats should have installed it after this long; its driver
/// answers none while it installs. Then it is looked for again.
pub const INSTALL_WITHIN: Duration = Duration::from_secs(10);

/// What the receiver asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// The cluster both are of.
    pub cluster_id: u64,
    /// Who asks.
    pub raft_id: RaftId,
    /// The least index it must have.
    pub at_least: u64,
}

/// One frame of a transfer: one header, then rows, then one end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Chunk {
    /// The first: what it is a snapshot of.
    Header {
        /// The mark it was taken at.
        applied: Applied,
        /// The configuration at that mark, in the form of [`encode_conf_state`].
        conf_state: Vec<u8>,
    },
    /// Rows in the order of the source: number of the table, key, value.
    Rows(Vec<(u8, Vec<u8>, Vec<u8>)>),
    /// The last: how many rows there were.
    End {
        /// Rows in all.
        rows: u64,
    },
}

/// A transfer, seen from the receiver.
#[async_trait]
pub trait ChunkStream: Send {
    /// The next chunk; `None` after a good end.
    async fn next(&mut self) -> Result<Option<Chunk>>;
}

/// A snapshot that arrived whole but is not installed.
pub struct Fetched {
    /// Its mark.
    pub applied: Applied,
    /// The configuration at its mark.
    pub conf_state: ConfState,
    /// Its rows.
    pub sink: Box<dyn SnapshotSink>,
}

/// Receives rows into a sink, checking everything. The same code serves the simulator.
pub struct Receiver {
    sink: Option<Box<dyn SnapshotSink>>,
    head: Option<(Applied, ConfState)>,
    at_least: u64,
    rows: u64,
    ended: bool,
}

impl Receiver {
    /// Starts a replacement of the state in `store`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn new(store: &dyn StateStore, at_least: u64) -> Result<Self> {
        Ok(Receiver { sink: Some(store.begin_install()?), head: None, at_least, rows: 0, ended: false })
    }

    /// Takes the next chunk. Blocks on the disk.
    ///
    /// # Errors
    /// [`crate::Kind::Corrupt`] for a chunk that a snapshot cannot have there.
    pub fn take(&mut self, chunk: Chunk) -> Result<()> {
        match chunk {
            Chunk::Header { applied, conf_state } if self.head.is_none() => {
                if applied.index > MAX_NUMBER || applied.term > MAX_NUMBER {
                    return Err(bad("is of an entry that there cannot be"));
                }
                if applied.index < self.at_least || applied.term == 0 {
                    return Err(bad(&format!(
                        "is of entry {}, older than the offered {}",
                        applied.index, self.at_least
                    )));
                }
                let conf_state = decode_conf_state(&conf_state)?;
                if !is_possible(&conf_state) {
                    return Err(bad("has a configuration that there cannot be"));
                }
                self.head = Some((applied, conf_state));
                Ok(())
            }
            Chunk::Rows(rows) if self.head.is_some() && !self.ended => {
                if rows.len() > MAX_CHUNK_ROWS {
                    return Err(bad("has a chunk of too many rows"));
                }
                self.rows += rows.len() as u64;
                let rows = rows.into_iter().map(check_row).collect::<Result<Vec<_>>>()?;
                match &mut self.sink {
                    Some(sink) => sink.put(rows),
                    None => Err(bad("goes on after its end")),
                }
            }
            Chunk::End { rows } if self.head.is_some() && !self.ended => {
                if rows != self.rows {
                    return Err(bad(&format!("announces {rows} rows but has {}", self.rows)));
                }
                self.ended = true;
                Ok(())
            }
            _ => Err(bad("has a chunk out of order")),
        }
    }

    /// What arrived.
    ///
    /// # Errors
    /// [`crate::Kind::Corrupt`] when the end is missing.
    pub fn finish(mut self) -> Result<Fetched> {
        match (self.ended, self.head.take(), self.sink.take()) {
            (true, Some((applied, conf_state)), Some(sink)) => Ok(Fetched { applied, conf_state, sink }),
            _ => Err(bad("ended before its end")),
        }
    }
}

fn bad(what: &str) -> Error {
    Error::corrupt(format!("the snapshot that the leader sent {what}: it is asked for again"))
}

/// Whether Raft can take this configuration over, which it does without a way back: voters, each once, none of them a
/// learner, and no half-way state between two configurations, which pinfold never makes.
fn is_possible(conf: &ConfState) -> bool {
    let mut ids: Vec<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
    ids.sort_unstable();
    let whole = conf.voters_outgoing.is_empty() && conf.learners_next.is_empty() && !conf.auto_leave;
    whole && !conf.voters.is_empty() && ids[0] != 0 && ids.windows(2).all(|pair| pair[0] != pair[1])
}

fn check_row((table, key, value): (u8, Vec<u8>, Vec<u8>)) -> Result<(Table, Vec<u8>, Vec<u8>)> {
    let table = Table::REPLICATED
        .get(usize::from(table))
        .ok_or_else(|| bad("has a row of a table that is not replicated"))?;
    if key.is_empty() || key.len() > MAX_KEY || value.len() > MAX_VALUE {
        return Err(bad("has a row beyond the limits"));
    }
    Ok((*table, key, value))
}

/// Reads a whole stream into a [`Receiver`]; the disk work goes to the blocking pool.
///
/// # Errors
/// As the stream, the disk and the checks say; nothing was installed.
pub async fn receive(
    mut stream: Box<dyn ChunkStream>,
    store: Arc<dyn StateStore>,
    at_least: u64,
) -> Result<Fetched> {
    let mut receiver = crate::runtime::unblock(move || Receiver::new(&*store, at_least)).await?;
    while let Some(chunk) =
        crate::runtime::timeout(IDLE, "the snapshot from the leader", stream.next()).await?
    {
        receiver = crate::runtime::unblock(move || receiver.take(chunk).map(|()| receiver)).await?;
    }
    receiver.finish()
}

/// Gives a snapshot chunk by chunk. Blocks on the disk.
pub struct Giver {
    source: Box<dyn SnapshotSource>,
    head: Option<ConfState>,
    rows: u64,
    ended: bool,
}

impl Giver {
    /// A snapshot of which `conf_state` is the configuration at the source's mark.
    pub fn new(source: Box<dyn SnapshotSource>, conf_state: ConfState) -> Self {
        Giver { source, head: Some(conf_state), rows: 0, ended: false }
    }

    /// The next chunk; `None` after the end.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if self.ended {
            return Ok(None);
        }
        if let Some(conf) = self.head.take() {
            return Ok(Some(Chunk::Header {
                applied: self.source.applied(),
                conf_state: encode_conf_state(&conf),
            }));
        }
        let rows = self.source.next(CHUNK_BYTES)?;
        if rows.is_empty() {
            self.ended = true;
            return Ok(Some(Chunk::End { rows: self.rows }));
        }
        self.rows += rows.len() as u64;
        let number = |table| Table::REPLICATED.iter().position(|t| *t == table);
        let rows = rows
            .into_iter()
            .map(|(table, key, value)| match number(table) {
                Some(n) => Ok((n as u8, key, value)),
                None => Err(Error::internal(format!("the snapshot source gave a row of {table:?}"))),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Chunk::Rows(rows)))
    }
}

/// Configurations by the index from which they hold, newest last, so that a snapshot taken at any mark since
/// our start gets its own.
#[derive(Default)]
pub struct ConfHistory {
    from: Vec<(u64, ConfState)>,
}

/// Configurations that are remembered; a snapshot is read from a mark at most moments old.
const MAX_HISTORY: usize = 32;

impl ConfHistory {
    /// `conf` holds from `index` on.
    pub fn push(&mut self, index: u64, conf: ConfState) {
        self.from.retain(|(i, _)| *i < index);
        self.from.push((index, conf));
        if self.from.len() > MAX_HISTORY {
            self.from.remove(0);
        }
    }

    /// What held at `index`.
    pub fn at(&self, index: u64) -> Option<ConfState> {
        let behind = usize::from(crate::planted::is(crate::planted::Bug::SnapshotConfOfBefore));
        self.from.iter().rev().filter(|(i, _)| *i <= index).nth(behind).map(|(_, c)| c.clone())
    }
}

/// What the leader knows of one offered snapshot.
struct Offer {
    index: u64,
    since: u64,
    stage: Stage,
}

enum Stage {
    Offered,
    Streaming,
    Streamed,
}

/// How a transfer ended, for raft-rs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All was sent; look for where the peer is now.
    Finish,
    /// Begin again.
    Failure,
}

/// The snapshots that this leader has offered. Times are in ticks.
#[derive(Default)]
pub struct Outgoing {
    offers: HashMap<RaftId, Offer>,
}

impl Outgoing {
    /// A snapshot message left for `to`.
    pub fn offered(&mut self, to: RaftId, index: u64, now: u64) {
        self.offers.insert(to, Offer { index, since: now, stage: Stage::Offered });
    }

    /// `to` began to fetch.
    pub fn started(&mut self, to: RaftId, now: u64) {
        if let Some(offer) = self.offers.get_mut(&to) {
            (offer.stage, offer.since) = (Stage::Streaming, now);
        }
    }

    /// The stream to `to` ended. A failure is for raft-rs at once; after a success its own answer is due.
    pub fn ended(&mut self, to: RaftId, good: bool, now: u64) -> Option<Verdict> {
        let offer = self.offers.get_mut(&to)?;
        if good {
            (offer.stage, offer.since) = (Stage::Streamed, now);
            return None;
        }
        self.offers.remove(&to);
        Some(Verdict::Failure)
    }

    /// `to` cannot be reached.
    pub fn unreachable(&mut self, to: RaftId) -> Option<Verdict> {
        let offered = self.offers.get(&to).is_some_and(|o| matches!(o.stage, Stage::Offered));
        (offered && self.offers.remove(&to).is_some()).then_some(Verdict::Failure)
    }

    /// Offers that are over, and what to say of them. `waits` tells up to where a peer says it has committed, as
    /// long as raft-rs waits for its snapshot: the peer's own answer to an installed one may have been lost.
    pub fn overdue(
        &mut self,
        now: u64,
        start: u64,
        install: u64,
        waits: impl Fn(RaftId) -> Option<u64>,
    ) -> Vec<(RaftId, Verdict)> {
        let mut verdicts = Vec::new();
        self.offers.retain(|to, offer| {
            let age = now.saturating_sub(offer.since);
            let Some(committed) = waits(*to) else { return false };
            let verdict = match offer.stage {
                _ if committed >= offer.index => Verdict::Finish,
                Stage::Offered if age >= start => Verdict::Failure,
                Stage::Streamed if age >= install => Verdict::Finish,
                _ => return true,
            };
            verdicts.push((*to, verdict));
            false
        });
        verdicts.sort_by_key(|(to, _)| *to);
        verdicts
    }

    /// The lowest index that an offered snapshot may continue from: the log behind it should stay.
    pub fn lowest(&self) -> Option<u64> {
        self.offers.values().map(|o| o.index).min()
    }

    /// We lead no more.
    pub fn clear(&mut self) {
        self.offers.clear();
    }
}

/// The snapshot message that waits for its content.
pub struct Incoming {
    /// The message as the leader sent it.
    pub message: Message,
    /// From whom the content comes.
    pub from: Member,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_offered_again_and_a_slow_one_is_not() {
        let mut out = Outgoing::default();
        out.offered(2, 10, 0);
        out.offered(3, 12, 0);
        assert_eq!(out.lowest(), Some(10));
        out.started(3, 1);
        assert_eq!(out.overdue(4, 5, 50, |_| Some(1)), []);
        assert_eq!(out.overdue(5, 5, 50, |_| Some(1)), [(2, Verdict::Failure)]);
        assert_eq!(out.overdue(500, 5, 50, |_| Some(1)), []);
        assert_eq!(out.ended(3, true, 500), None);
        assert_eq!(out.overdue(549, 5, 50, |_| Some(1)), []);
        assert_eq!(out.overdue(550, 5, 50, |_| Some(1)), [(3, Verdict::Finish)]);
        out.offered(4, 20, 550);
        out.started(4, 550);
        assert_eq!(out.overdue(551, 5, 50, |_| Some(20)), [(4, Verdict::Finish)]);
        out.offered(2, 20, 0);
        assert_eq!(out.unreachable(2), Some(Verdict::Failure));
        assert_eq!(out.unreachable(2), None);
    }

    #[test]
    fn a_snapshot_gets_the_configuration_of_its_own_mark() {
        let conf = |v: &[u64]| ConfState { voters: v.to_vec(), ..Default::default() };
        let mut history = ConfHistory::default();
        history.push(1, conf(&[1]));
        history.push(9, conf(&[1, 2]));
        assert_eq!(history.at(0), None);
        assert_eq!(history.at(8).unwrap().voters, [1]);
        assert_eq!(history.at(9).unwrap().voters, [1, 2]);
    }

    #[test]
    fn a_snapshot_with_a_configuration_that_raft_cannot_take_over_is_refused() {
        let store = crate::store::memory::MemoryState::new();
        let take = |applied, conf: &ConfState| {
            let mut receiver = Receiver::new(&store, 1).unwrap();
            receiver.take(Chunk::Header { applied, conf_state: encode_conf_state(conf) })
        };
        let conf = |voters: &[u64], learners: &[u64]| ConfState {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            ..Default::default()
        };
        let mark = Applied { index: 9, term: 2 };
        take(mark, &conf(&[1, 2], &[3])).unwrap();
        let half = ConfState { voters_outgoing: vec![1], ..conf(&[1, 2], &[]) };
        for bad in [conf(&[], &[1]), conf(&[1, 1], &[]), conf(&[1, 2], &[2]), conf(&[0, 1], &[]), half] {
            assert_eq!(take(mark, &bad).unwrap_err().kind(), crate::Kind::Corrupt, "{bad:?}");
        }
        for mark in [Applied { index: u64::MAX, term: 2 }, Applied { index: 9, term: u64::MAX }] {
            assert_eq!(take(mark, &conf(&[1], &[])).unwrap_err().kind(), crate::Kind::Corrupt);
        }
    }
}
