//! The simulated cluster: peers with their disks, moved tick by tick.

use super::check::Checks;
use super::client::Client;
use super::network::{Faults, Flight, Network, Peer};
use super::Rng;
use crate::consensus::driver::{Driver, Input, Outlet};
use crate::consensus::message::Body;
use crate::consensus::settings::{mix, Settings};
use crate::consensus::snapshot::{Fetched, Giver, Receiver, SnapshotRequest};
use crate::consensus::{bootstrap, ConsensusConfig, Start, Status};
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::state::{Event, Member, Pin, RaftId, Role};
use crate::store::memory::{MemoryLog, MemoryState};
use crate::store::{LogStore, StateStore, Table};
use cid::Cid;
use libp2p::PeerId;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Ticks that a snapshot transfer takes.
const TRANSFER_TICKS: u64 = 3;
/// Deliveries in one tick, beyond which the cluster is talking in circles.
const MAX_DELIVERIES: usize = 100_000;
/// The cluster id of every simulated cluster.
pub(super) const CLUSTER: u64 = 0xc1;
/// How many numbers the Raft ids of one peer's lives are apart.
const LIFE_STEP: u64 = 100;

/// Whether a peer runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Up,
    /// It was stopped or crashed.
    Down,
    /// Its consensus ended with this sentence.
    Failed(String),
}

/// One simulated peer.
pub(super) struct Node {
    pub(super) peer_id: PeerId,
    pub(super) raft_id: RaftId,
    pub(super) log: MemoryLog,
    pub(super) state: MemoryState,
    pub(super) driver: Option<Driver>,
    pub(super) failed: Option<String>,
    /// Counts starts, so that what belongs to an earlier life does not reach a later one.
    pub(super) life: u64,
}

/// A cluster in one thread.
pub struct Sim {
    pub(super) now: u64,
    pub(super) rng: Rng,
    seed: u64,
    pub(super) nodes: BTreeMap<Peer, Node>,
    pub(super) network: Network,
    pub(super) client: Client,
    checks: Checks,
    config: ConsensusConfig,
    longest_append: usize,
}

/// What a driver did in one turn.
#[derive(Default)]
struct Collected {
    frames: Vec<(PeerId, RaftId, Vec<u8>)>,
    fetch: Option<(PeerId, SnapshotRequest)>,
    flush: bool,
}

impl Outlet for Collected {
    // The simulator looks at the driver's own members.
    fn show_members(&mut self, _: &BTreeMap<RaftId, Member>) {}

    fn send(&mut self, to: &Member, raft_id: RaftId, frame: Vec<u8>) {
        self.frames.push((to.peer_id, raft_id, frame));
    }
    fn fetch_snapshot(&mut self, from: Member, request: SnapshotRequest) {
        self.fetch = Some((from.peer_id, request));
    }
    fn flush(&mut self) {
        self.flush = true;
    }
    fn emit(&mut self, _events: Vec<Event>) {}
}

impl Sim {
    /// An empty simulation of this seed.
    pub fn new(seed: u64) -> Self {
        Sim {
            now: 0,
            rng: Rng::new(seed),
            seed,
            nodes: BTreeMap::new(),
            network: Network::default(),
            client: Client::default(),
            checks: Checks::default(),
            longest_append: 0,
            config: ConsensusConfig {
                peer_id: peer_id(0),
                name: String::new(),
                heartbeat: Duration::from_millis(100),
                election: Duration::from_millis(400),
                wait_for_leader: Duration::from_secs(5),
                network_timeout: Duration::from_secs(10),
                commit_retries: 1,
                commit_retry_delay: Duration::from_millis(200),
                commit_timeout: Duration::from_millis(50),
                lease: Duration::from_millis(800),
                // Few, so that every run shows that cut messages do no harm.
                max_append_entries: 3,
                trailing_logs: 8,
                snapshot_threshold: 8,
                snapshot_interval: Duration::from_millis(25),
                max_voters: 7,
            },
        }
    }

    /// Changes settings, for peers started from now on.
    pub fn configure(&mut self, change: impl FnOnce(&mut ConsensusConfig)) {
        change(&mut self.config);
    }

    /// Makes a peer with empty disks found the cluster.
    ///
    /// # Errors
    /// When it cannot.
    pub fn found(&mut self, peer: Peer) -> Result<()> {
        self.create(peer);
        self.start(peer, &Start::Found)
    }

    /// Makes a peer with empty disks wait to be called; [`super::Request::Add`] lets it be called. A peer that was there
    /// before loses its disks and comes under a new Raft id.
    ///
    /// # Errors
    /// When it cannot.
    pub fn join(&mut self, peer: Peer) -> Result<()> {
        self.create(peer);
        self.start(peer, &Start::Join { cluster_id: CLUSTER })
    }

    fn create(&mut self, peer: Peer) {
        // Every data folder draws its own id; the planted bug is one that takes it from the peer.
        let step = if planted::is(Bug::WipedKeepsItsId) { 0 } else { LIFE_STEP };
        let (raft_id, life) = self.nodes.get(&peer).map_or((peer, 0), |n| (n.raft_id + step, n.life + 1));
        let node = Node {
            peer_id: peer_id(peer),
            raft_id,
            log: MemoryLog::new(raft_id),
            state: MemoryState::new(),
            driver: None,
            failed: None,
            life,
        };
        self.nodes.insert(peer, node);
    }

    /// Starts a peer on the disks it has.
    ///
    /// # Errors
    /// When it cannot.
    pub fn restart(&mut self, peer: Peer) -> Result<()> {
        self.start(peer, &Start::Restart)
    }

    fn start(&mut self, peer: Peer, start: &Start) -> Result<()> {
        let seed = mix(self.seed, self.now);
        let config =
            ConsensusConfig { peer_id: peer_id(peer), name: format!("peer{peer}"), ..self.config.clone() };
        let node =
            self.nodes.get_mut(&peer).ok_or_else(|| Error::not_found(format!("there is no peer {peer}")))?;
        let mut log: Box<dyn LogStore> = Box::new(node.log.clone());
        let state: Arc<dyn StateStore> = Arc::new(node.state.clone());
        let cluster = bootstrap::prepare(start, config.peer_id, &config.name, CLUSTER, &mut *log, &state)?;
        let settings = Settings::new(&config, node.raft_id, cluster, seed);
        node.driver = Some(Driver::open(settings, log, state, Arc::default())?);
        node.failed = None;
        node.life += 1;
        self.drive(peer, None);
        Ok(())
    }

    /// Pulls a peer's plug.
    pub fn crash(&mut self, peer: Peer) {
        if let Some(node) = self.nodes.get_mut(&peer) {
            node.driver = None;
            node.state.crash();
            node.log.crash();
            node.life += 1;
        }
    }

    /// Lets a peer notice that its connections to another one are gone.
    pub fn lose(&mut self, peer: Peer, other: Peer) {
        self.drive(peer, Some(Input::Lost(peer_id(other))));
    }

    /// Lets a peer's disks fail from now on, or work again.
    pub fn fail_disk(&mut self, peer: Peer, failing: bool) {
        if let Some(node) = self.nodes.get_mut(&peer) {
            node.log.set_failing(failing);
            node.state.set_failing(failing);
        }
    }

    /// Cuts the links between two peers.
    pub fn cut(&mut self, a: Peer, b: Peer) {
        self.network.cut(a, b);
    }

    /// Cuts a peer off from all others.
    pub fn isolate(&mut self, peer: Peer) {
        for other in self.peers() {
            if other != peer {
                self.network.cut(peer, other);
            }
        }
    }

    /// Repairs all links.
    pub fn heal(&mut self) {
        self.network.heal();
    }

    /// Changes how badly the network behaves.
    pub fn set_faults(&mut self, faults: Faults) {
        self.network.faults = faults;
    }

    /// Lets one tick pass, and everything that follows from it.
    ///
    /// # Errors
    /// The sentence of the invariant that was broken.
    pub fn tick(&mut self) -> Result<(), String> {
        self.now += 1;
        for peer in self.peers() {
            self.drive(peer, Some(Input::Tick));
        }
        self.deliver()
    }

    /// Lets `n` ticks pass.
    ///
    /// # Errors
    /// As [`Sim::tick`].
    pub fn run(&mut self, n: u64) -> Result<(), String> {
        (0..n).try_for_each(|_| self.tick())
    }

    /// Lets ticks pass until `done`, at most `limit`; whether it came true.
    ///
    /// # Errors
    /// As [`Sim::tick`].
    pub fn run_until(&mut self, limit: u64, done: impl Fn(&Sim) -> bool) -> Result<bool, String> {
        for _ in 0..limit {
            if done(self) {
                return Ok(true);
            }
            self.tick()?;
        }
        Ok(done(self))
    }

    fn deliver(&mut self) -> Result<(), String> {
        for _ in 0..MAX_DELIVERIES {
            self.ask_leaders();
            let Some(flight) = self.network.arrive(self.now) else {
                return self.check();
            };
            match flight {
                Flight::Frame { from, to, raft_id, bytes } => self.arrive(from, to, raft_id, &bytes),
                Flight::Snapshot { from, to, life, request } => self.transfer(from, to, life, &request),
                Flight::Flush { on, life } => {
                    let Some(node) = self.nodes.get(&on).filter(|n| n.life == life) else { continue };
                    let flushed = node.state.flush();
                    self.drive(on, Some(Input::Flushed(flushed)));
                }
            }
            self.check()?;
        }
        Err(format!("tick {}: the peers talk in circles", self.now))
    }

    fn arrive(&mut self, from: Peer, to: Peer, raft_id: RaftId, bytes: &[u8]) {
        if !self.network.is_open(from, to) || !self.is_up(to) {
            self.drive(from, Some(Input::Unreachable(raft_id)));
            return;
        }
        if let Ok(frame) = crate::consensus::message::decode(bytes) {
            if let Body::Messages(messages) = &frame.body {
                let longest = messages.iter().map(|m| m.entries.len()).max().unwrap_or_default();
                self.longest_append = self.longest_append.max(longest);
            }
            self.drive(to, Some(Input::Frame(peer_id(from), frame)));
        }
    }

    fn transfer(&mut self, from: Peer, to: Peer, life: u64, request: &SnapshotRequest) {
        if self.nodes.get(&to).is_none_or(|n| n.life != life) {
            return;
        }
        let breaks =
            self.network.faults.break_snapshot > 0 && self.rng.chance(self.network.faults.break_snapshot);
        let result = if !self.network.is_open(from, to) || !self.is_up(from) {
            Err(Error::unavailable("the peer with the snapshot cannot be reached"))
        } else {
            self.drive(from, Some(Input::SnapshotStarted(request.raft_id)));
            self.copy(from, to, request, breaks)
        };
        let ended = Input::SnapshotEnded(request.raft_id, result.is_ok());
        self.drive(from, Some(ended));
        let input = match result {
            Ok(fetched) => Input::SnapshotFetched(Box::new(fetched)),
            Err(error) => Input::SnapshotFailed(error),
        };
        self.drive(to, Some(input));
    }

    fn copy(&self, from: Peer, to: Peer, request: &SnapshotRequest, breaks: bool) -> Result<Fetched> {
        let giver = self.nodes.get(&from).ok_or_else(|| Error::not_found("no such peer"))?;
        let taker = self.nodes.get(&to).ok_or_else(|| Error::not_found("no such peer"))?;
        let driver = giver.driver.as_ref().ok_or_else(|| Error::unavailable("the peer is down"))?;
        let source = giver.state.snapshot()?;
        let history = driver.history();
        let at = source.applied().index;
        let conf =
            history.lock().ok().and_then(|h| h.at(at)).ok_or_else(|| Error::internal("no configuration"))?;
        let mut chunks = Giver::new(source, conf);
        let mut receiver = Receiver::new(&taker.state, request.at_least)?;
        while let Some(chunk) = chunks.next_chunk()? {
            receiver.take(chunk)?;
            if breaks {
                return Err(Error::io("the connection broke"));
            }
        }
        receiver.finish()
    }

    /// Gives a peer an input and lets it turn; what leaves it gets on its way.
    pub(super) fn drive(&mut self, peer: Peer, input: Option<Input>) {
        let Some(node) = self.nodes.get_mut(&peer) else { return };
        let Some(driver) = &mut node.driver else { return };
        let mut out = Collected::default();
        let done = input.map_or(Ok(()), |i| driver.input(i, &mut out)).and_then(|()| driver.turn(&mut out));
        let life = node.life;
        if let Err(error) = done {
            driver.abandon(&error);
            node.failed = Some(error.to_string());
            node.driver = None;
        }
        // What left before an error has left.
        for (to, raft_id, bytes) in out.frames {
            if let Some(to) = self.number(&to) {
                self.network.send(self.now, &mut self.rng, peer, to, raft_id, bytes);
            }
        }
        if let Some((from, request)) = out.fetch {
            if let Some(from) = self.number(&from) {
                let due = self.now + TRANSFER_TICKS;
                self.network.launch(due, Flight::Snapshot { from, to: peer, life, request });
            }
        }
        if out.flush {
            let due = self.now + 1;
            self.network.launch(due, Flight::Flush { on: peer, life });
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let now = self.now;
        for (peer, node) in &self.nodes {
            if let Some(driver) = &node.driver {
                self.checks.see(now, *peer, driver)?;
            }
        }
        Ok(())
    }

    // --- questions --------------------------------------------------------------------------------------------

    /// Ticks since the beginning.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Most entries that any message had so far.
    pub fn longest_append(&self) -> usize {
        self.longest_append
    }

    /// All peers there ever were.
    pub fn peers(&self) -> Vec<Peer> {
        self.nodes.keys().copied().collect()
    }

    /// The number of a peer.
    pub fn number(&self, peer_id: &PeerId) -> Option<Peer> {
        self.nodes.iter().find(|(_, n)| n.peer_id == *peer_id).map(|(n, _)| *n)
    }

    /// The peer that has this Raft id now.
    pub fn who(&self, raft_id: RaftId) -> Option<Peer> {
        self.nodes.iter().find(|(_, n)| n.raft_id == raft_id).map(|(n, _)| *n)
    }

    /// Whether a peer runs.
    pub fn is_up(&self, peer: Peer) -> bool {
        self.nodes.get(&peer).is_some_and(|n| n.driver.is_some())
    }

    /// How often a peer was started or stopped: tells one life from the next.
    pub fn lives(&self, peer: Peer) -> u64 {
        self.nodes.get(&peer).map_or(0, |n| n.life)
    }

    /// How a peer is.
    pub fn life(&self, peer: Peer) -> Life {
        match self.nodes.get(&peer) {
            Some(Node { driver: Some(_), .. }) => Life::Up,
            Some(Node { failed: Some(why), .. }) => Life::Failed(why.clone()),
            _ => Life::Down,
        }
    }

    /// A peer's driver, while it runs.
    pub fn driver(&self, peer: Peer) -> Option<&Driver> {
        self.nodes.get(&peer)?.driver.as_ref()
    }

    /// A peer's status, while it runs.
    pub fn status(&self, peer: Peer) -> Option<Status> {
        self.driver(peer).map(Driver::status)
    }

    /// The leader of the highest term among the running peers.
    pub fn leader(&self) -> Option<Peer> {
        let leads = |p: &Peer| self.driver(*p).filter(|d| d.leads()).map(|d| (d.status().term, *p));
        self.peers().iter().filter_map(leads).max().map(|(_, p)| p)
    }

    /// The member record that a peer would join with.
    pub fn member(&self, peer: Peer) -> Option<Member> {
        let node = self.nodes.get(&peer)?;
        Some(Member {
            raft_id: node.raft_id,
            peer_id: node.peer_id,
            name: format!("peer{peer}"),
            addresses: Vec::new(),
            role: Role::Learner,
            version: String::new(),
            witness: false,
        })
    }

    /// Names of the pins in a peer's state, sorted.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn pins(&self, peer: Peer) -> Result<Vec<String>> {
        let node =
            self.nodes.get(&peer).ok_or_else(|| Error::not_found(format!("there is no peer {peer}")))?;
        let rows = node.state.scan(Table::Pins, None, usize::MAX)?;
        let mut names =
            rows.iter().map(|(_, v)| Pin::decode(v).map(|p| p.name)).collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// Whether every running member has applied the same, under one leader that all of them know.
    pub fn is_settled(&self) -> bool {
        let Some(status) = self.leader().and_then(|l| self.status(l)) else { return false };
        let Some(members) = self.leader().and_then(|l| self.driver(l)).map(Driver::members) else {
            return false;
        };
        members.values().filter_map(|m| self.number(&m.peer_id)).filter(|p| self.is_up(*p)).all(|p| {
            self.status(p).is_some_and(|s| {
                s.leader == status.leader && s.applied == status.committed && s.term == status.term
            })
        })
    }
}

/// The identity of a simulated peer: always the same.
pub(super) fn peer_id(peer: Peer) -> PeerId {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&peer.to_be_bytes());
    match libp2p::identity::Keypair::ed25519_from_bytes(&mut secret) {
        Ok(keypair) => keypair.public().to_peer_id(),
        // Any 32 bytes are an Ed25519 secret.
        Err(_) => PeerId::random(),
    }
}

/// The CID of a name.
pub(super) fn cid_of(name: &str) -> Cid {
    let digest = Sha256::digest(name.as_bytes());
    let hash = multihash::Multihash::wrap(0x12, &digest).expect("a SHA-256 digest fits into 64 bytes");
    Cid::new_v1(0x55, hash)
}
