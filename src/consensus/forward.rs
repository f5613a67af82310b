//! Commands on their way to the leader, many in one call.
//!
//! While a call to the leader is under way, the commands that arrive behind it gather, and the next call takes
//! them all. So a follower with many callers costs the leader a few streams, not one per command, and its
//! commands reach the leader's group commit together. A lone command leaves at once.

use super::wire::{ProposeAnswer, ProposeRequest, ProposeSince};
use crate::error::{Error, Result};
use crate::net::rpc::Rpc;
use crate::runtime;
use libp2p::PeerId;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Calls to one leader at one time: more than one, so that a new batch need not wait for the answer of the last.
const CALLS: usize = 4;
/// Commands in one call.
pub const MAX_BATCH: usize = 512;
/// Bytes of commands in one call: well below the largest frame. The first command always fits.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Commands that wait for a call to one leader; more are refused.
const MAX_WAITING: usize = 8_192;

/// What can be carried.
pub(super) trait Carried: Serialize + Send + Sync + 'static {
    /// The command's size in bytes.
    fn size(&self) -> usize;
}

impl Carried for ProposeRequest {
    fn size(&self) -> usize {
        self.command.len()
    }
}

impl Carried for ProposeSince {
    fn size(&self) -> usize {
        self.request.size()
    }
}

struct Waiting<R> {
    request: R,
    reply: async_channel::Sender<Result<ProposeAnswer>>,
}

struct Lane<R> {
    waiting: VecDeque<Waiting<R>>,
    calls: usize,
}

/// The commands of this peer that wait for a call of one method, by leader.
pub(super) struct Forward<R> {
    method: &'static str,
    lanes: Arc<Mutex<HashMap<PeerId, Lane<R>>>>,
}

impl<R> Clone for Forward<R> {
    fn clone(&self) -> Self {
        Forward { method: self.method, lanes: self.lanes.clone() }
    }
}

impl<R: Carried> Forward<R> {
    /// Nothing waits for calls of this method.
    pub(super) fn new(method: &'static str) -> Self {
        Forward { method, lanes: Arc::default() }
    }

    /// Sends a command to the leader and waits for its answer.
    pub(super) async fn propose(
        &self,
        rpc: &Rpc,
        leader: PeerId,
        request: R,
        limit: Duration,
    ) -> Result<ProposeAnswer> {
        let (reply, answer) = async_channel::bounded(1);
        let start = {
            let mut lanes = self.lanes.lock();
            let lane = lanes.entry(leader).or_insert_with(|| Lane { waiting: VecDeque::new(), calls: 0 });
            if lane.waiting.len() >= MAX_WAITING {
                return Err(Error::unavailable(format!(
                    "{MAX_WAITING} changes already wait to be sent to the leader {leader}: try again later"
                )));
            }
            lane.waiting.push_back(Waiting { request, reply });
            let start = lane.calls < CALLS;
            lane.calls += usize::from(start);
            start
        };
        if start {
            let (forward, rpc) = (self.clone(), rpc.clone());
            runtime::spawn(async move { forward.carry(&rpc, leader, limit).await }).detach();
        }
        let wait = async { answer.recv().await.unwrap_or_else(|_| Err(lost(&leader))) };
        runtime::timeout(limit, &format!("the answer of the leader {leader}"), wait).await
    }

    /// Makes calls until nothing waits for this leader.
    async fn carry(&self, rpc: &Rpc, leader: PeerId, limit: Duration) {
        while let Some(batch) = self.next(leader) {
            let (requests, replies): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|w| (w.request, w.reply)).unzip();
            let answers: Result<Vec<Result<ProposeAnswer>>> =
                rpc.call(leader, self.method, &requests, limit).await;
            match answers {
                Ok(answers) => {
                    for (reply, answer) in replies.into_iter().zip(answers) {
                        let _ = reply.try_send(answer);
                    }
                    // Fewer answers than questions: the rest of the channels close, which reads as lost.
                }
                Err(error) => {
                    for reply in replies {
                        let _ = reply.try_send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// The next batch; when there is none, this call's place in the lane is given back under the same lock.
    fn next(&self, leader: PeerId) -> Option<Vec<Waiting<R>>> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.get_mut(&leader)?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(first) = lane.waiting.pop_front() {
            bytes += first.request.size();
            if !batch.is_empty() && bytes > MAX_BATCH_BYTES || batch.len() >= MAX_BATCH {
                lane.waiting.push_front(first);
                break;
            }
            if !first.reply.is_closed() {
                batch.push(first);
            }
        }
        if batch.is_empty() {
            lane.calls -= 1;
            if lane.calls == 0 {
                lanes.remove(&leader);
            }
            return None;
        }
        Some(batch)
    }
}

fn lost(leader: &PeerId) -> Error {
    Error::unavailable(format!("the leader {leader} did not answer: try again"))
}
