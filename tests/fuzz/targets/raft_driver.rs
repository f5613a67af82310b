//! Raft messages from a peer that is broken, into the very driver that ships: raft-rs panics on nonsense, and a panic is the
//! end of the process. So nonsense must be refused before it gets there, or end this peer's consensus with a sentence.
//!
//! Three peers found a cluster on virtual time. The input decides, step by step: let time pass and the mail be carried, let
//! a peer propose, or bring a peer a message that its sender never sent: one that was on its way with a field changed, one
//! made of likely numbers, or bytes. The sender is always a member: strangers do not get that far.

use super::Input;
use crate::clock::Timestamp;
use crate::consensus::driver::{Driver, Input as Event, Outlet};
use crate::consensus::message::{self, Body, Frame};
use crate::consensus::settings::Settings;
use crate::consensus::snapshot::{Chunk, Fetched, SnapshotRequest};
use crate::consensus::{bootstrap, ConsensusConfig, Start};
use crate::state::{version, Applied, Command, Member, MemberChange, Pin, RaftId, Role};
use crate::store::memory::{MemoryLog, MemoryState};
use crate::store::StateStore;
use libp2p::PeerId;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Peers of the cluster.
const PEERS: usize = 3;
/// The cluster.
const CLUSTER: u64 = 0xc1;
/// Steps of one input.
const MAX_STEPS: usize = 64;
/// Frames that are carried in one step: more is talking in circles.
const MAX_CARRIED: usize = 2_000;

struct Peer {
    raft_id: RaftId,
    peer_id: PeerId,
    state: MemoryState,
    /// Gone when its consensus ended.
    driver: Option<Driver>,
}

#[derive(Default)]
struct Mail {
    frames: Vec<(PeerId, Vec<u8>)>,
    fetch: Option<SnapshotRequest>,
    flush: bool,
}

impl Outlet for Mail {
    fn send(&mut self, to: &Member, _: RaftId, frame: Vec<u8>) {
        self.frames.push((to.peer_id, frame));
    }
    fn fetch_snapshot(&mut self, _: Member, request: SnapshotRequest) {
        self.fetch = Some(request);
    }
    fn flush(&mut self) {
        self.flush = true;
    }
    fn show_members(&mut self, _: &BTreeMap<RaftId, Member>) {}
    fn emit(&mut self, _: Vec<crate::state::Event>) {}
}

/// Who they are, always the same.
fn identities() -> &'static [PeerId; PEERS] {
    static PEER_IDS: OnceLock<[PeerId; PEERS]> = OnceLock::new();
    PEER_IDS.get_or_init(|| {
        std::array::from_fn(|n| {
            let mut secret = [n as u8 + 1; 32];
            let pair = libp2p::identity::Keypair::ed25519_from_bytes(&mut secret).expect("any 32 bytes");
            pair.public().to_peer_id()
        })
    })
}

fn members() -> Vec<Member> {
    let member = |(n, peer_id): (usize, &PeerId)| Member {
        raft_id: n as u64 + 1,
        peer_id: *peer_id,
        name: format!("p{n}"),
        addresses: Vec::new(),
        role: Role::Voter,
        version: String::new(),
        witness: false,
    };
    identities().iter().enumerate().map(member).collect()
}

struct Cluster {
    peers: Vec<Peer>,
    /// From, to, bytes.
    on_the_way: Vec<(usize, usize, Vec<u8>)>,
    /// What the next snapshot says that it is, instead of what it is.
    lie: Option<(Applied, ConfState)>,
}

impl Cluster {
    fn new() -> Cluster {
        let peers = members().into_iter().map(|member| {
            let config = ConsensusConfig {
                peer_id: member.peer_id,
                name: member.name.clone(),
                heartbeat: Duration::from_millis(20),
                election: Duration::from_millis(40),
                wait_for_leader: Duration::from_secs(5),
                network_timeout: Duration::from_secs(1),
                commit_retries: 1,
                commit_retry_delay: Duration::from_millis(200),
                commit_timeout: Duration::from_millis(50),
                lease: Duration::from_millis(80),
                max_append_entries: 3,
                trailing_logs: 4,
                snapshot_threshold: 4,
                snapshot_interval: Duration::from_millis(25),
                max_voters: 7,
            };
            let (mut log, state) = (Box::new(MemoryLog::new(member.raft_id)), MemoryState::new());
            let store: Arc<dyn StateStore> = Arc::new(state.clone());
            let start =
                Start::FoundTogether { cluster_id: CLUSTER, members: members(), version: version::SPOKEN };
            let cluster =
                bootstrap::prepare(&start, member.peer_id, &member.name, CLUSTER, &mut *log, &store)
                    .expect("a cluster is founded");
            let settings = Settings::new(&config, member.raft_id, cluster, member.raft_id);
            let driver = Driver::open(settings, log, store, Arc::default()).expect("a driver");
            Peer { raft_id: member.raft_id, peer_id: member.peer_id, state, driver: Some(driver) }
        });
        Cluster { peers: peers.collect(), on_the_way: Vec::new(), lie: None }
    }

    /// Gives a peer an input; what leaves it is on its way.
    fn drive(&mut self, n: usize, event: Event) {
        let Some(driver) = &mut self.peers[n].driver else { return };
        let mut mail = Mail::default();
        let done = driver.input(event, &mut mail).and_then(|()| driver.turn(&mut mail));
        if let Err(error) = done {
            assert!(!error.message().is_empty(), "a peer ends with a sentence");
            driver.abandon(&error);
            self.peers[n].driver = None;
        }
        for (to, bytes) in mail.frames {
            if let Some(to) = self.peers.iter().position(|p| p.peer_id == to) {
                self.on_the_way.push((n, to, bytes));
            }
        }
        if mail.flush {
            let flushed = self.peers[n].state.flush();
            self.drive(n, Event::Flushed(flushed));
        }
        if let Some(request) = mail.fetch {
            let fetched = self.fetch(n, &request);
            self.drive(n, fetched);
        }
    }

    /// The content of a snapshot: of the first other peer that has one which is new enough.
    fn fetch(&mut self, to: usize, request: &SnapshotRequest) -> Event {
        let lie = self.lie.take();
        let givers = (0..PEERS).filter(|n| *n != to).filter_map(|n| {
            let giver = &self.peers[n];
            let source = giver.state.snapshot().ok()?;
            let history = giver.driver.as_ref()?.history();
            let conf = history.lock().at(source.applied().index)?;
            let mut chunks = crate::consensus::snapshot::Giver::new(source, conf);
            let mut receiver =
                crate::consensus::snapshot::Receiver::new(&self.peers[to].state, request.at_least).ok()?;
            while let Some(mut chunk) = chunks.next_chunk().ok()? {
                if let (Chunk::Header { applied, conf_state }, Some((mark, conf))) = (&mut chunk, &lie) {
                    (*applied, *conf_state) = (*mark, message::encode_conf_state(conf));
                }
                receiver.take(chunk).ok()?;
            }
            receiver.finish().ok()
        });
        match { givers }.next() {
            Some(fetched) => Event::SnapshotFetched(Box::<Fetched>::new(fetched)),
            None => Event::SnapshotFailed(crate::Error::unavailable("nobody has it")),
        }
    }

    /// Everything that is on its way arrives, and what follows from it.
    fn carry(&mut self) {
        for _ in 0..MAX_CARRIED {
            if self.on_the_way.is_empty() {
                return;
            }
            let (from, to, bytes) = self.on_the_way.remove(0);
            self.arrive(from, to, &bytes);
        }
        self.on_the_way.clear();
    }

    fn arrive(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if let Ok(frame) = message::decode(bytes) {
            let sender = self.peers[from].peer_id;
            self.drive(to, Event::Frame(sender, frame));
        }
    }

    /// Time passes for everybody.
    fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for n in 0..PEERS {
                self.drive(n, Event::Tick);
            }
            self.carry();
        }
    }

    /// A message that is no message of its sender.
    fn forge(&mut self, from: usize, to: usize, message: Message) {
        let (from_id, to_id) = (self.peers[from].raft_id, self.peers[to].raft_id);
        // Through the codec, which is the first to refuse.
        for bytes in message::encode_messages(CLUSTER, from_id, to_id, &[message]) {
            self.arrive(from, to, &bytes);
        }
    }
}

/// A number near one that matters to a peer.
fn near(input: &mut Input<'_>, matters: [u64; 4]) -> u64 {
    match input.byte() {
        n @ 0..=159 => {
            let base = matters[usize::from(n) % matters.len()];
            base.saturating_add(u64::from(n) / 4 % 8).saturating_sub(3)
        }
        _ => input.number(),
    }
}

const KINDS: [MessageType; 12] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

fn entry(input: &mut Input<'_>, index: u64, term: u64) -> Entry {
    let mut entry = Entry { index, term, ..Entry::default() };
    match input.below(5) {
        0 => entry.data = command(input).into(),
        1 => {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            let id = 1 + input.below(4) as u64;
            let change = match input.below(3) {
                0 => MemberChange::Remove(id),
                1 => MemberChange::SetRole(id, if input.flag() { Role::Voter } else { Role::Learner }),
                _ => MemberChange::Put(Member {
                    raft_id: id,
                    role: Role::Learner,
                    ..members().swap_remove(input.below(PEERS))
                }),
            };
            entry.context = crate::consensus::membership::encode_change(input.number(), &change).into();
        }
        2 => entry.data = input.bytes().to_vec().into(),
        3 => {
            entry.set_entry_type(EntryType::EntryConfChange);
            entry.context = input.bytes().to_vec().into();
        }
        _ => {}
    }
    entry
}

fn command(input: &mut Input<'_>) -> Vec<u8> {
    let digest = multihash::Multihash::wrap(0x12, &[input.byte(); 32]).expect("32 bytes");
    Command::Pin(Box::new(Pin::new(cid::Cid::new_v1(0x55, digest), Timestamp::from_secs(1)))).encode()
}

/// A message of likely numbers.
fn likely(input: &mut Input<'_>, to: &Peer) -> Message {
    let status = to.driver.as_ref().map(Driver::status).unwrap_or_default();
    let last = to.driver.as_ref().map_or(0, |d| d.log_bounds().1);
    let indices = [status.committed, status.applied, last, last + 1];
    let terms = [status.term, status.term, status.term + 1, status.term];
    let mut message = Message::default();
    message.set_msg_type(KINDS[input.below(KINDS.len())]);
    message.term = near(input, terms);
    message.log_term = near(input, terms);
    message.index = near(input, indices);
    message.commit = near(input, indices);
    message.reject = input.flag();
    let fields = input.byte();
    if fields & 1 != 0 {
        message.commit_term = near(input, terms);
    }
    if fields & 2 != 0 {
        message.request_snapshot = near(input, indices);
    }
    if fields & 4 != 0 {
        message.reject_hint = near(input, indices);
    }
    if fields & 8 != 0 {
        message.context = input.bytes().to_vec().into();
    }
    if message.get_msg_type() == MessageType::MsgAppend {
        let (first, term) = (message.index.saturating_add(1), near(input, terms));
        let entries: Vec<Entry> =
            (0..input.below(4) as u64).map(|n| entry(input, first.saturating_add(n), term)).collect();
        message.set_entries(entries.into());
    }
    if matches!(message.get_msg_type(), MessageType::MsgReadIndex | MessageType::MsgReadIndexResp) {
        let entry = Entry { data: input.bytes().to_vec().into(), ..Entry::default() };
        message.set_entries(vec![entry].into());
    }
    if message.get_msg_type() == MessageType::MsgSnapshot {
        let meta = message.mut_snapshot().mut_metadata();
        (meta.index, meta.term) = (near(input, indices), near(input, terms));
        meta.mut_conf_state().voters = input.bytes().iter().map(|id| u64::from(*id)).collect();
    }
    message
}

/// A message that is on its way, with one field changed.
fn changed(input: &mut Input<'_>, mut message: Message) -> Message {
    let amount = input.number();
    let field = match input.below(8) {
        0 => &mut message.term,
        1 => &mut message.log_term,
        2 => &mut message.index,
        3 => &mut message.commit,
        4 => &mut message.commit_term,
        5 => &mut message.request_snapshot,
        6 => &mut message.reject_hint,
        _ => {
            message.reject = !message.reject;
            return message;
        }
    };
    *field = if input.flag() { amount } else { field.wrapping_add(amount) };
    message
}

/// See the module.
pub(super) fn driver(data: &[u8]) {
    let mut input = Input(data);
    let mut cluster = Cluster::new();
    // Whoever leads does so because of the settings' seed.
    cluster.tick(10 + input.below(16));
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let (from, to) = (input.below(PEERS), input.below(PEERS));
        match input.below(8) {
            0 => cluster.tick(1 + input.below(12)),
            1 => {
                let (reply, _) = async_channel::bounded(1);
                let (id, data) = (input.number(), command(&mut input));
                let since = input.flag().then(|| input.number());
                cluster.drive(to, Event::Propose { id, since, data, reply });
            }
            2 => {
                let bytes = input.bytes().to_vec();
                cluster.arrive(from, to, &bytes);
            }
            3 if !cluster.on_the_way.is_empty() => {
                let at = input.below(cluster.on_the_way.len());
                let (from, to, bytes) = cluster.on_the_way.remove(at);
                if let Ok(Frame { body: Body::Messages(messages), .. }) = message::decode(&bytes) {
                    for message in messages {
                        let message = changed(&mut input, message);
                        cluster.forge(from, to, message);
                    }
                }
            }
            // What is on its way stays there for the next steps.
            4 if input.flag() => (0..PEERS).for_each(|n| cluster.drive(n, Event::Tick)),
            4 => {
                let matters = [1, 2, cluster.peers[to].state.applied().index, 9];
                let mark = Applied { index: near(&mut input, matters), term: near(&mut input, matters) };
                let mut ids = || input.bytes().iter().take(8).map(|id| u64::from(id % 6)).collect();
                let (voters, learners, voters_outgoing) = (ids(), ids(), ids());
                let conf = ConfState { voters, learners, voters_outgoing, ..ConfState::default() };
                cluster.lie = Some((mark, conf));
            }
            5 => cluster.carry(),
            _ if from != to => {
                let message = likely(&mut input, &cluster.peers[to]);
                cluster.forge(from, to, message);
            }
            _ => cluster.drive(to, Event::Unreachable(from as u64 + 1)),
        }
    }
    cluster.tick(4);
    for peer in &cluster.peers {
        if let Some(driver) = &peer.driver {
            let status = driver.status();
            assert!(status.applied <= status.committed, "applied before it was committed");
            assert_eq!(Applied { index: status.applied, ..peer.state.applied() }, peer.state.applied());
        }
    }
}
