//! Bitswap's streams: who talks to whom, when, and how much of it may lie in memory.
//!
//! Per peer there is one *sender*, a task that owns our stream to it, and one reader per stream that the peer
//! opened. The sender builds a message from the client's outbox and the peer's ledger, and while that
//! is being written it already prepares the next one: reading from disk and writing to the network overlap,
//! and never more than two messages per peer exist. A *keeper* task follows the host's connections and the
//! clock.
//!
//! Lock order: there is one lock, [`Shared::state`]; it is never held across an await.

use super::client::{Client, SessionId, WaiterId};
use super::ledger::{Ledger, Task as Job};
use super::wire::{self, Encoder, Message, WantKind};
use super::{verify, BlockSource, PeerStats, Stats, MAX_ACTIVE, PROTOCOL};
use crate::error::{Error, Result};
use crate::net::{Host, Stream};
use crate::runtime;
use async_channel::{Receiver, Sender};
use bytes::Bytes;
use cid::Cid;
use futures::channel::oneshot;
use libp2p::PeerId;
use parking_lot::Mutex;
use smol::io::{AsyncWriteExt, BufReader};
use smol::lock::{Semaphore, SemaphoreGuard};
use smol::Task;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Peers that take part; further ones are not asked and not served.
pub const MAX_PEERS: usize = 256;
/// Streams that one peer may have open to us; a further one ends the oldest. Kubo opens one per answer and closes it
/// after 16 KiB, so that many can be on their way at a time and none of them may be lost.
pub const MAX_STREAMS: usize = 256;
/// Bytes of blocks at which a message is closed and sent. One block more may start before that.
pub const MESSAGE_TARGET: usize = 1 << 20;
/// Largest block that we send; larger ones (none should exist) are answered "don't have".
pub const MAX_BLOCK: usize = 2 << 20;
/// Lookups per message.
pub const LOOKUPS: usize = 512;
/// Want-list entries per message.
pub const ENTRIES: usize = 1_024;
/// A block up to this size is sent instead of "have": it costs no more than asking again.
pub const SEND_INSTEAD_OF_HAVE: u64 = 1_024;
/// Block messages in memory, being read or written, of all peers together.
pub const MESSAGES_IN_FLIGHT: usize = 16;
/// Large messages being read and verified, of all peers together: bounds what arrives in memory.
pub const MESSAGES_ARRIVING: usize = 16;
/// How many of these one peer may have: a slow one must not keep the others out.
pub const MESSAGES_ARRIVING_PER_PEER: usize = 4;
/// Messages above this size, bytes, count as large; Kubo's are usually just below.
pub const LARGE_MESSAGE: usize = 32 << 10;
/// Opening a stream may take this long.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Writing one message may take this long: slower peers are dropped.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often stalls, bans and lost connections are looked at while something is wanted.
pub const TICK: Duration = Duration::from_secs(1);
/// After a failed stream the peer is left alone this long, doubling up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest pause after failed streams.
pub const RETRY_MAX: Duration = Duration::from_secs(60);
/// A peer that sent garbage, or blocks nobody asked for, is ignored this long.
pub const BAN: Duration = Duration::from_secs(60);
/// Data is hashed in slices of about this many bytes between two looks at other tasks.
const HASH_SLICE: usize = 256 << 10;
/// Buffer of a reader: small messages come together.
const READ_BUFFER: usize = 8 << 10;

/// One connected peer.
struct Peer {
    ledger: Ledger,
    wake: Sender<()>,
    /// Our sender; absent while the peer is left alone after a failure.
    sender: Option<Task<()>>,
    readers: Vec<Task<()>>,
    /// Large messages of this peer that are on their way.
    arriving: Arc<Semaphore>,
    failures: u32,
    retry_at: Option<Instant>,
    bytes_sent: u64,
    bytes_received: u64,
}

#[derive(Default)]
struct State {
    client: Client,
    peers: HashMap<PeerId, Peer>,
    banned: HashMap<PeerId, Instant>,
    stats: Stats,
    tasks: Vec<Task<()>>,
    closed: bool,
}

/// Everything that Bitswap's tasks share.
pub(super) struct Shared {
    host: Host,
    store: Arc<dyn BlockSource>,
    state: Mutex<State>,
    /// Wakes the keeper.
    kick: Sender<()>,
    /// Fetches under way.
    pub(super) active: Semaphore,
    in_flight: Semaphore,
    arriving: Semaphore,
}

/// A message ready to be written.
struct Ready<'a> {
    bytes: Bytes,
    /// Held until the message is written: bounds the memory of all of them.
    _permit: Option<SemaphoreGuard<'a>>,
}

/// What a lookup found.
enum Found {
    Block(Job, Bytes),
    Have(Job),
    Missing(Job),
}

impl Shared {
    pub(super) fn start(host: Host, store: Arc<dyn BlockSource>) -> Result<Arc<Shared>> {
        let incoming = host.accept(PROTOCOL)?;
        let events = host.events();
        let (kick, kicked) = async_channel::bounded(1);
        let shared = Arc::new(Shared {
            host,
            store,
            state: Mutex::default(),
            kick,
            active: Semaphore::new(MAX_ACTIVE),
            in_flight: Semaphore::new(MESSAGES_IN_FLIGHT),
            arriving: Semaphore::new(MESSAGES_ARRIVING),
        });
        let acceptor = shared.clone();
        let accept = runtime::spawn(async move {
            while let Ok((peer, stream)) = incoming.recv().await {
                acceptor.accepted(peer, stream);
            }
        });
        let keeper = shared.clone();
        let keep = runtime::spawn(async move {
            loop {
                let busy = keeper.keep();
                let woken = async {
                    // A closed event channel means a closed host: only the kick of `close` follows.
                    if events.recv().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                let kicked = async {
                    let _ = kicked.recv().await;
                };
                let tick = async {
                    match busy {
                        true => runtime::sleep(TICK).await,
                        false => std::future::pending().await,
                    }
                };
                smol::future::or(woken, smol::future::or(kicked, tick)).await;
            }
        });
        shared.state.lock().tasks.extend([accept, keep]);
        Ok(shared)
    }

    pub(super) fn close(&self) {
        let (peers, tasks) = {
            let mut state = self.state.lock();
            state.closed = true;
            state.client.close();
            (std::mem::take(&mut state.peers), std::mem::take(&mut state.tasks))
        };
        // Outside the lock: a task that is dropped may run destructors that take it.
        drop((peers, tasks));
    }

    // ---- for the callers ---------------------------------------------------------------------------------

    pub(super) fn want(
        &self,
        cid: Cid,
        session: SessionId,
        waiter: WaiterId,
        sender: oneshot::Sender<Bytes>,
        now: Instant,
    ) -> Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::unavailable(format!("cannot fetch {cid}: Bitswap is closed")));
        }
        let idle = state.client.is_idle();
        state.client.want(cid, session, waiter, sender, now);
        state.wake();
        drop(state);
        if idle {
            self.kick();
        }
        Ok(())
    }

    pub(super) fn unwait(&self, cid: &Cid, waiter: WaiterId) {
        let mut state = self.state.lock();
        state.client.unwait(cid, waiter);
        state.wake();
    }

    pub(super) fn end_session(&self, session: SessionId) {
        self.state.lock().client.end_session(session);
    }

    pub(super) fn arrived(self: &Arc<Self>, cids: &[Cid]) {
        let mut state = self.state.lock();
        for peer in state.peers.values_mut() {
            let mut some = false;
            for cid in cids {
                some |= peer.ledger.arrived(cid);
            }
            if some {
                let _ = peer.wake.try_send(());
            }
        }
        if state.client.is_idle() {
            return;
        }
        let ours: Vec<Cid> = cids.iter().filter(|c| state.client.wants(c)).copied().collect();
        drop(state);
        if !ours.is_empty() {
            let shared = self.clone();
            runtime::spawn(async move { shared.deliver_local(ours).await }).detach();
        }
    }

    /// Hands blocks from our own store to fetches that still wait for them.
    async fn deliver_local(&self, cids: Vec<Cid>) {
        for cid in cids {
            let store = self.store.clone();
            match runtime::unblock(move || store.get(&cid)).await {
                Ok(Some(data)) => {
                    let mut state = self.state.lock();
                    state.client.block(None, &cid, &data);
                    state.wake();
                }
                Ok(None) => {}
                Err(error) => log::warn!(target: "bitswap", "cannot read the new block {cid}: {error}"),
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let state = self.state.lock();
        let peers = state.peers.values().filter(|p| p.sender.is_some()).count();
        Stats { wants: state.client.count_wants(), peers, ..state.stats }
    }

    pub(super) fn wanted(&self) -> Vec<Cid> {
        self.state.lock().client.wanted(super::MAX_ACTIVE)
    }

    pub(super) fn peer_stats(&self, peer: &PeerId) -> Option<PeerStats> {
        self.state.lock().peers.get(peer).map(|p| PeerStats {
            bytes_sent: p.bytes_sent,
            bytes_received: p.bytes_received,
            wants: p.ledger.count_wants(),
        })
    }

    // ---- connections -------------------------------------------------------------------------------------

    fn kick(&self) {
        // A full channel already holds a kick.
        let _ = self.kick.try_send(());
    }

    /// Brings our peers in line with the host's and lets time pass. Says whether to come back soon.
    fn keep(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let connected = self.host.connected();
        let mut gone = Vec::new();
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.banned.retain(|_, until| *until > now);
        let lost: Vec<PeerId> = state.peers.keys().filter(|p| !connected.contains(p)).copied().collect();
        for peer in lost {
            gone.extend(state.peers.remove(&peer));
            state.client.peer_down(&peer, now);
        }
        for peer in connected {
            if !state.peers.contains_key(&peer) {
                self.add(&mut state, peer, now);
            }
        }
        let due: Vec<PeerId> = state
            .peers
            .iter()
            .filter(|(_, p)| p.retry_at.is_some_and(|at| at <= now))
            .map(|(p, _)| *p)
            .collect();
        for peer in due {
            self.launch(&mut state, peer, now);
        }
        state.client.tick(now);
        state.wake();
        let busy = !state.client.is_idle() || state.peers.values().any(|p| p.retry_at.is_some());
        drop(state);
        drop(gone);
        busy
    }

    fn add(self: &Arc<Self>, state: &mut State, peer: PeerId, now: Instant) {
        if state.closed || state.banned.contains_key(&peer) || state.peers.len() >= MAX_PEERS {
            return;
        }
        let entry = Peer {
            ledger: Ledger::default(),
            wake: async_channel::bounded(1).0,
            sender: None,
            readers: Vec::new(),
            arriving: Arc::new(Semaphore::new(MESSAGES_ARRIVING_PER_PEER)),
            failures: 0,
            retry_at: None,
            bytes_sent: 0,
            bytes_received: 0,
        };
        state.peers.insert(peer, entry);
        self.launch(state, peer, now);
    }

    /// Starts the peer's sender and lets the client ask it.
    fn launch(self: &Arc<Self>, state: &mut State, peer: PeerId, now: Instant) {
        let Some(entry) = state.peers.get_mut(&peer) else { return };
        let (wake, woken) = async_channel::bounded(1);
        if entry.ledger.has_work() {
            let _ = wake.try_send(());
        }
        let shared = self.clone();
        entry.wake = wake;
        entry.retry_at = None;
        entry.sender = Some(runtime::spawn(async move { shared.send_to(peer, woken).await }));
        state.client.peer_up(peer, now);
    }

    fn accepted(self: &Arc<Self>, peer: PeerId, stream: Stream) {
        let mut ended = Vec::new();
        let mut state = self.state.lock();
        if !state.peers.contains_key(&peer) {
            self.add(&mut state, peer, Instant::now());
        }
        let Some(entry) = state.peers.get_mut(&peer) else { return };
        entry.readers.retain(|r| !r.is_finished());
        while entry.readers.len() >= MAX_STREAMS {
            ended.push(entry.readers.remove(0));
        }
        let (shared, gate) = (self.clone(), entry.arriving.clone());
        entry.readers.push(runtime::spawn(async move { shared.read_from(peer, stream, &gate).await }));
        state.wake();
        drop(state);
        drop(ended);
    }

    /// Drops a peer that does not play by the rules.
    fn ban(&self, peer: PeerId, why: &Error) {
        log::warn!(target: "bitswap", "dropping {peer} for {BAN:?}: {why}");
        let now = Instant::now();
        let entry = {
            let mut state = self.state.lock();
            if state.banned.len() < MAX_PEERS {
                state.banned.insert(peer, now + BAN);
            }
            state.client.peer_down(&peer, now);
            state.wake();
            state.peers.remove(&peer)
        };
        self.host.disconnect(peer);
        if let Some(entry) = entry {
            // The caller is one of these tasks: let it run to its end instead of dropping it under itself.
            entry.readers.into_iter().for_each(Task::detach);
        }
        self.kick();
    }

    // ---- what peers say ----------------------------------------------------------------------------------

    async fn read_from(self: Arc<Self>, peer: PeerId, stream: Stream, gate: &Semaphore) {
        let mut stream = BufReader::with_capacity(READ_BUFFER, stream);
        loop {
            let received = match self.read_message(&mut stream, gate).await {
                Ok(None) => return,
                Ok(Some((frame, _permits))) => self.receive(peer, frame).await,
                Err(error) if error.kind() == crate::Kind::Corrupt => Err(error),
                Err(error) => {
                    log::debug!(target: "bitswap", "a stream from {peer} ended: {error}");
                    return;
                }
            };
            if let Err(error) = received {
                self.ban(peer, &error);
                return;
            }
        }
    }

    /// The next message, and for a large one the right to hold it in memory.
    async fn read_message<'a>(
        &'a self,
        stream: &mut BufReader<Stream>,
        gate: &'a Semaphore,
    ) -> Result<Option<(Bytes, Option<[SemaphoreGuard<'a>; 2]>)>> {
        let Some(length) = wire::read_length(stream).await? else { return Ok(None) };
        let permits = match length > LARGE_MESSAGE {
            // The peer's own first: whoever waits for that one holds none of the common ones.
            true => Some([gate.acquire().await, self.arriving.acquire().await]),
            false => None,
        };
        Ok(Some((wire::read_body(stream, length).await?, permits)))
    }

    async fn receive(&self, peer: PeerId, frame: Bytes) -> Result<()> {
        let message = Message::decode(frame)?;
        let mut blocks = Vec::with_capacity(message.blocks.len().min(wire::MAX_ENTRIES));
        let mut hashed = 0;
        for payload in &message.blocks {
            blocks.push((verify::cid_of(&payload.prefix, &payload.data), payload.data.clone()));
            hashed += payload.data.len();
            if hashed >= HASH_SLICE {
                hashed = 0;
                smol::future::yield_now().await;
            }
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(entry) = state.peers.get_mut(&peer) else { return Ok(()) };
        state.stats.messages_received += 1;
        for (cid, data) in &blocks {
            let size = data.len() as u64;
            entry.bytes_received += size;
            match cid {
                Some(cid) if state.client.block(Some(&peer), cid, data) => {
                    state.stats.blocks_received += 1;
                    state.stats.bytes_received += size;
                }
                _ => {
                    state.stats.unwanted_blocks += 1;
                    state.stats.unwanted_bytes += size;
                }
            }
        }
        for (cid, have) in &message.presences {
            match have {
                true => state.client.have(&peer, cid, now),
                false => state.client.dont_have(&peer, cid, now),
            }
        }
        if message.full || !message.wants.is_empty() {
            entry.ledger.receive(&message.wants, message.full);
            if entry.ledger.has_work() {
                let _ = entry.wake.try_send(());
            }
        }
        let fair = state.client.count(&peer, blocks.len() as u64, now);
        state.wake();
        match fair {
            true => Ok(()),
            false => Err(Error::corrupt("it sends blocks that nobody asked for")),
        }
    }

    // ---- what we say -------------------------------------------------------------------------------------

    async fn send_to(self: Arc<Self>, peer: PeerId, woken: Receiver<()>) {
        let mut stream: Option<Stream> = None;
        let mut next: Option<Ready<'_>> = None;
        loop {
            let ready = match next.take() {
                Some(ready) => ready,
                None => match self.prepare(peer).await {
                    Some(ready) => ready,
                    None => {
                        if woken.recv().await.is_err() {
                            return;
                        }
                        // Whoever woke us is often about to want more: let it, and say it all at once.
                        smol::future::yield_now().await;
                        continue;
                    }
                },
            };
            let written = self.write(peer, &mut stream, ready);
            let (result, prepared) = futures::join!(written, self.prepare(peer));
            if let Err(error) = result {
                log::debug!(target: "bitswap", "cannot send to {peer}: {error}");
                drop(prepared);
                self.failed(peer);
                return;
            }
            next = prepared;
        }
    }

    /// Writes a message, on a new stream if there is none or the old one has died.
    async fn write(&self, peer: PeerId, stream: &mut Option<Stream>, ready: Ready<'_>) -> Result<()> {
        let send = async {
            if let Some(old) = stream.as_mut() {
                match push(old, &ready.bytes).await {
                    Ok(()) => return Ok(()),
                    // The peer may end an idle stream at any time: once more on a new one.
                    Err(error) => log::trace!(target: "bitswap", "stream to {peer}: {error}"),
                }
            }
            *stream = None;
            if !self.host.is_connected(&peer) {
                return Err(Error::unavailable(format!("{peer} is not connected")));
            }
            let mut fresh = self.host.open(peer, PROTOCOL, OPEN_TIMEOUT).await?;
            push(&mut fresh, &ready.bytes).await?;
            *stream = Some(fresh);
            if let Some(entry) = self.state.lock().peers.get_mut(&peer) {
                entry.failures = 0;
            }
            Ok(())
        };
        runtime::timeout(WRITE_TIMEOUT, "sending a Bitswap message", send).await?;
        self.state.lock().stats.messages_sent += 1;
        Ok(())
    }

    /// The stream to a peer cannot be had: leave it alone for a while.
    fn failed(&self, peer: PeerId) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.client.peer_down(&peer, now);
        state.wake();
        let Some(entry) = state.peers.get_mut(&peer) else { return };
        let pause = RETRY_MIN.saturating_mul(1 << entry.failures.min(6)).min(RETRY_MAX);
        entry.failures += 1;
        entry.retry_at = Some(now + pause);
        if let Some(task) = entry.sender.take() {
            // This very task: it ends by itself.
            task.detach();
        }
        drop(state);
        self.kick();
    }

    /// The next message for a peer, `None` when there is nothing to say now.
    async fn prepare(&self, peer: PeerId) -> Option<Ready<'_>> {
        loop {
            let (list, jobs, refused) = {
                let mut state = self.state.lock();
                let list = state.client.take(&peer, ENTRIES, Instant::now());
                let ledger = &mut state.peers.get_mut(&peer)?.ledger;
                (list, ledger.take(LOOKUPS), ledger.take_refused(wire::MAX_ENTRIES))
            };
            if list.is_none() && jobs.is_empty() && refused.is_empty() {
                return None;
            }
            let mut out = Encoder::new();
            if let Some((entries, full)) = list {
                out.wantlist(&entries, full);
            }
            for cid in refused {
                out.presence(&cid, false);
            }
            let mut permit = None;
            if !jobs.is_empty() {
                permit = Some(self.in_flight.acquire().await);
                let store = self.store.clone();
                let (found, rest, bytes) = runtime::unblock(move || look_up(&*store, jobs)).await;
                self.settle(peer, &found, &rest);
                out.reserve(bytes + found.len() * 64);
                for one in &found {
                    match one {
                        Found::Block(job, data) => out.block(&job.cid, data),
                        Found::Have(job) => out.presence(&job.cid, true),
                        Found::Missing(job) if job.send_dont_have => out.presence(&job.cid, false),
                        Found::Missing(_) => {}
                    }
                }
            }
            // Nothing to say about blocks that we miss and nobody asked to hear of.
            if !out.is_empty() {
                return Some(Ready { bytes: out.finish(), _permit: permit });
            }
        }
    }

    fn settle(&self, peer: PeerId, found: &[Found], rest: &[Job]) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(entry) = state.peers.get_mut(&peer) else { return };
        entry.ledger.put_back(rest);
        for one in found {
            match one {
                Found::Block(job, data) => {
                    entry.ledger.answered(job);
                    entry.bytes_sent += data.len() as u64;
                    state.stats.blocks_sent += 1;
                    state.stats.bytes_sent += data.len() as u64;
                }
                Found::Have(job) => entry.ledger.answered(job),
                Found::Missing(_) => {}
            }
        }
    }
}

impl State {
    /// Wakes the senders whose outbox has news.
    fn wake(&mut self) {
        for peer in self.client.woken() {
            if let Some(entry) = self.peers.get(&peer) {
                // A full channel already holds the news.
                let _ = entry.wake.try_send(());
            }
        }
    }
}

async fn push(stream: &mut Stream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    Ok(())
}

/// Looks tasks up until a message is full: what was found, what was not looked at, and bytes of blocks.
fn look_up(store: &dyn BlockSource, jobs: Vec<Job>) -> (Vec<Found>, Vec<Job>, usize) {
    let mut found = Vec::with_capacity(jobs.len());
    let mut bytes = 0;
    let mut jobs = jobs.into_iter();
    while bytes < MESSAGE_TARGET {
        let Some(job) = jobs.next() else { break };
        let answer = answer(store, job).unwrap_or_else(|error| {
            log::warn!(target: "bitswap", "cannot read {}: {error}", job.cid);
            Found::Missing(job)
        });
        if let Found::Block(_, data) = &answer {
            bytes += data.len();
        }
        found.push(answer);
    }
    (found, jobs.collect(), bytes)
}

fn answer(store: &dyn BlockSource, job: Job) -> Result<Found> {
    let send = match job.kind {
        WantKind::Block => true,
        WantKind::Have => match store.size(&job.cid)? {
            None => return Ok(Found::Missing(job)),
            Some(size) => size <= SEND_INSTEAD_OF_HAVE,
        },
    };
    if !send {
        return Ok(Found::Have(job));
    }
    match store.get(&job.cid)? {
        Some(data) if data.len() <= MAX_BLOCK => Ok(Found::Block(job, data)),
        Some(data) => {
            log::warn!(target: "bitswap", "not sending {}: {} bytes are too many", job.cid, data.len());
            Ok(Found::Missing(job))
        }
        None => Ok(Found::Missing(job)),
    }
}
