//! The simulated cluster: peers with their disks and clocks, moved from one event to the next.
//!
//! A peer takes inputs like the pump in the daemon does: while it works on a turn (because its disk takes its time) or
//! stands still, what arrives waits in its inbox; then everything is taken at once and the driver turns once.
//! Ticks that were missed meanwhile count as one.

use super::check::{broken, Broken, Checks, Disks};
use super::client::Client;
use super::disk::{Shared, SlowLog, SlowState};
use super::model::{Fact, Members};
use super::network::{Faults, Flight, Network, Peer, TICK};
use super::Rng;
use crate::consensus::driver::{Driver, Input};
use crate::consensus::message::Body;
use crate::consensus::settings::{mix, Settings};
use crate::consensus::{bootstrap, ConsensusConfig, Start};
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::state::{Member, RaftId, Role};
use crate::store::memory::{MemoryLog, MemoryState, Trouble};
use crate::store::{LogStore, StateStore};
use cid::Cid;
use libp2p::PeerId;
use raft::eraftpb::{Message, MessageType};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Things that happen in one millisecond, beyond which the cluster is talking in circles.
const MAX_AT_ONCE: u64 = 100_000;
/// The cluster id of every simulated cluster.
pub(super) const CLUSTER: u64 = 0xc1;
/// How many numbers the Raft ids of one peer's lives are apart.
pub(super) const LIFE_STEP: u64 = 100;
/// Inputs that wait for a peer; more frames are lost, as at the pump.
pub(super) const INBOX: usize = 4_096;
/// Peers there may be.
pub(super) const MOST_PEERS: u64 = 64;
/// What the error of a simulated disk says.
pub(super) const SIMULATED: &str = "simulated disk";

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

/// How long a peer's disk takes, in milliseconds, least and most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disk {
    pub(super) append: (u64, u64),
    pub(super) install: (u64, u64),
    pub(super) flush: (u64, u64),
}

/// What the disk is still working on for a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Append,
    Install,
}

/// One simulated peer.
pub(super) struct Node {
    pub(super) peer_id: PeerId,
    pub(super) raft_id: RaftId,
    pub(super) log: MemoryLog,
    pub(super) state: MemoryState,
    pub(super) shared: Shared,
    pub(super) driver: Option<Driver>,
    pub(super) failed: Option<String>,
    /// Counts starts and stops, so that what belongs to an earlier life does not reach a later one.
    pub(super) life: u64,
    pub(super) inbox: VecDeque<Input>,
    pub(super) tick_due: bool,
    /// Whether a turn waits for the disk; what the disk has to do for it, oldest first.
    pub(super) busy: bool,
    pub(super) work: VecDeque<Work>,
    pub(super) flushing: bool,
    /// It stands still until then.
    pub(super) paused: u64,
    /// Milliseconds between its ticks.
    pub(super) every: u64,
    /// Seconds that its clock is ahead.
    pub(super) clock: i64,
    pub(super) disk: Disk,
    /// It is to crash in the middle of its next turn.
    pub(super) doomed: bool,
    pub(super) rng: Rng,
}

/// A cluster in one thread.
pub struct Sim {
    pub(super) ms: u64,
    pub(super) seed: u64,
    pub(super) nodes: BTreeMap<Peer, Node>,
    /// Disks that were lost or given up, by Raft id: what was on them was there when it counted.
    attic: BTreeMap<RaftId, MemoryLog>,
    pub(super) network: Network,
    pub(super) client: Client,
    pub(super) checks: Checks,
    pub(super) config: ConsensusConfig,
    pub(super) disk: Disk,
    /// How long a snapshot's stream takes.
    pub(super) transfer: (u64, u64),
    /// Streams that each peer gives at present.
    pub(super) streams: BTreeMap<Peer, usize>,
    pub(super) longest_append: usize,
    /// Everything that happened, counted and hashed.
    pub(super) happened: u64,
    pub(super) hash: u64,
    /// Crashes in the middle of a turn or flush, and how many of them found it done.
    pub(super) torn: (u64, u64),
    /// A peer that stops by itself, but for a broken disk, is a failure.
    pub(super) strict: bool,
    /// Where everything is told, if it is.
    pub(super) trace: Option<Box<dyn Write>>,
}

impl Disks for Sim {
    fn has(&self, id: RaftId, index: u64, term: u64) -> bool {
        let there = self.nodes.values().find(|n| n.raft_id == id).map(|n| &n.log);
        there.or_else(|| self.attic.get(&id)).is_some_and(|log| log.has_durably(index, term))
    }
}

impl Sim {
    /// An empty simulation of this seed.
    pub fn new(seed: u64) -> Self {
        let tick = TICK;
        Sim {
            ms: 0,
            seed,
            nodes: BTreeMap::new(),
            attic: BTreeMap::new(),
            network: Network::new(seed),
            client: Client::default(),
            checks: Checks::default(),
            disk: Disk::default(),
            transfer: (2 * tick, 2 * tick),
            streams: BTreeMap::new(),
            longest_append: 0,
            happened: 0,
            hash: seed,
            torn: (0, 0),
            strict: false,
            trace: None,
            config: ConsensusConfig {
                peer_id: peer_id(0),
                name: String::new(),
                heartbeat: Duration::from_millis(4 * tick),
                election: Duration::from_millis(16 * tick),
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
                snapshot_interval: Duration::from_millis(tick),
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

    /// Makes several peers with empty disks found a cluster together, that speaks this version.
    ///
    /// # Errors
    /// When they cannot.
    pub(super) fn found_together(&mut self, peers: &[Peer], version: u16) -> Result<()> {
        peers.iter().for_each(|peer| self.create(*peer));
        let members: Vec<Member> = peers
            .iter()
            .filter_map(|peer| Some(Member { role: Role::Voter, ..self.member(*peer)? }))
            .collect();
        let start = Start::FoundTogether { cluster_id: CLUSTER, members, version };
        peers.iter().try_for_each(|peer| self.start(*peer, &start))
    }

    /// Tells the model how the cluster begins.
    fn founded(&mut self, peer: Peer) {
        let Some(driver) = self.driver(peer).filter(|_| !self.checks.model.is_founded()) else { return };
        let members: Members = driver.members().iter().map(|(id, m)| (*id, Fact::of(m))).collect();
        let status = driver.status();
        self.checks.model.found(status.applied, members, status.cluster_version);
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
        let old = self.nodes.remove(&peer);
        let (raft_id, life) = old.as_ref().map_or((peer, 0), |n| (n.raft_id + step, n.life + 1));
        let (log, state) = (MemoryLog::new(raft_id), MemoryState::new());
        log.watch();
        let node = Node {
            peer_id: peer_id(peer),
            raft_id,
            log,
            state,
            shared: Shared::default(),
            driver: None,
            failed: None,
            life,
            inbox: VecDeque::new(),
            tick_due: false,
            busy: false,
            work: VecDeque::new(),
            flushing: false,
            paused: 0,
            every: old.as_ref().map_or(TICK, |n| n.every),
            clock: old.as_ref().map_or(0, |n| n.clock),
            disk: old.as_ref().map_or(self.disk, |n| n.disk),
            doomed: false,
            rng: Rng::new(mix(self.seed, raft_id)),
        };
        self.nodes.insert(peer, node);
        if let Some(old) = old {
            self.attic.insert(old.raft_id, old.log);
        }
    }

    /// Starts a peer on the disks it has.
    ///
    /// # Errors
    /// When it cannot.
    pub fn restart(&mut self, peer: Peer) -> Result<()> {
        self.start(peer, &Start::Restart)
    }

    fn start(&mut self, peer: Peer, start: &Start) -> Result<()> {
        let seed = mix(self.seed, self.ms);
        let config =
            ConsensusConfig { peer_id: peer_id(peer), name: format!("peer{peer}"), ..self.config.clone() };
        let node =
            self.nodes.get_mut(&peer).ok_or_else(|| Error::not_found(format!("there is no peer {peer}")))?;
        let shared = Shared::default();
        node.shared = shared.clone();
        let slow = SlowLog { log: node.log.clone(), state: node.state.clone(), shared: shared.clone() };
        let mut log: Box<dyn LogStore> = Box::new(slow);
        let state: Arc<dyn StateStore> = Arc::new(SlowState { state: node.state.clone(), shared });
        let cluster = bootstrap::prepare(start, config.peer_id, &config.name, CLUSTER, &mut *log, &state)?;
        let settings = Settings::new(&config, node.raft_id, cluster, seed);
        node.driver = Some(Driver::open(settings, log, state, Arc::default())?);
        node.failed = None;
        node.life += 1;
        // What preparing wrote is on the disk; the crash of a starting peer is the crash images' business.
        node.shared.tape().marks.clear();
        node.log.settle(usize::MAX);
        node.state.settle();
        let (life, every) = (node.life, node.every);
        let first = self.ms / every * every + every;
        self.network.launch(first, Flight::Tick { peer, life });
        if matches!(start, Start::Found | Start::FoundTogether { .. }) {
            self.founded(peer);
        }
        self.note(|| format!("peer {peer} starts"));
        self.drive(peer, None).map_err(|b| Error::internal(b.to_string()))
    }

    /// Pulls a peer's plug.
    pub fn crash(&mut self, peer: Peer) {
        // A caller who is forsaken learns nothing, so nothing can be wrong with what he learns.
        let _ = self.forsake(peer);
        let (now, mut told) = (self.ms, Vec::new());
        let Some(node) = self.nodes.get_mut(&peer) else { return };
        if !node.work.is_empty() || node.flushing {
            // The disk was at work: the one thing it was at is there or not.
            let lucky = node.rng.chance(50);
            let appends = node.work.iter().filter(|w| **w == Work::Append).count();
            let (mut appended, mut installed) = (usize::MAX, true);
            match node.work.front() {
                Some(Work::Append) => {
                    appended = usize::from(lucky);
                    installed = !node.work.contains(&Work::Install);
                }
                Some(Work::Install) => (appended, installed) = (0, lucky),
                None => (),
            }
            node.log.crash_with(appended.min(appends));
            node.state.crash_with(node.rng.chance(50), installed);
            self.torn.0 += 1;
            self.torn.1 += u64::from(lucky);
        } else {
            node.log.crash();
            node.state.crash();
        }
        told.append(&mut node.shared.tape().waiting);
        node.driver = None;
        node.life += 1;
        node.reset();
        for waiting in told.into_iter().filter_map(|w| w.lost(peer)) {
            self.network.launch(now, Flight::Told { from: peer, told: waiting });
        }
        self.streams.remove(&peer);
        self.note(|| format!("peer {peer} crashes"));
    }

    /// Lets a peer stand still for a while; it goes on with what has piled up.
    pub(super) fn pause(&mut self, peer: Peer, long: u64) {
        let until = self.ms + long;
        let Some(node) = self.nodes.get_mut(&peer).filter(|n| n.driver.is_some()) else { return };
        node.paused = node.paused.max(until);
        let flight = Flight::Resume { peer, life: node.life };
        self.network.launch(until, flight);
    }

    /// Lets a peer notice that its connections to another one are gone.
    ///
    /// # Errors
    /// As [`Sim::tick`].
    pub fn lose(&mut self, peer: Peer, other: Peer) -> Result<(), Broken> {
        self.drive(peer, Some(Input::Lost(peer_id(other))))
    }

    /// Lets a peer's disks fail from now on, or work again.
    pub fn fail_disk(&mut self, peer: Peer, failing: bool) {
        self.trouble_disk(peer, if failing { Trouble::Fails } else { Trouble::None });
    }

    /// Lets a peer's disks meet this trouble.
    pub(super) fn trouble_disk(&mut self, peer: Peer, trouble: Trouble) {
        if let Some(node) = self.nodes.get_mut(&peer) {
            node.log.set_trouble(trouble);
            node.state.set_trouble(trouble);
        }
    }

    /// Cuts the links between two peers.
    pub fn cut(&mut self, a: Peer, b: Peer) {
        self.network.cut(a, b);
        self.network.cut(b, a);
    }

    /// Lets `to` hear nothing of `from` any more; what it says itself still arrives.
    pub fn mute(&mut self, from: Peer, to: Peer) {
        self.network.cut(from, to);
    }

    /// Cuts a peer off from all others.
    pub fn isolate(&mut self, peer: Peer) {
        for other in self.peers() {
            self.cut(peer, other);
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
    /// The promise that was broken.
    pub fn tick(&mut self) -> Result<(), Broken> {
        self.advance(self.ms / TICK * TICK + TICK)
    }

    /// Lets `n` ticks pass.
    ///
    /// # Errors
    /// As [`Sim::tick`].
    pub fn run(&mut self, n: u64) -> Result<(), Broken> {
        (0..n).try_for_each(|_| self.tick())
    }

    /// Lets ticks pass until `done`, at most `limit`; whether it came true.
    ///
    /// # Errors
    /// As [`Sim::tick`].
    pub fn run_until(&mut self, limit: u64, done: impl Fn(&Sim) -> bool) -> Result<bool, Broken> {
        for _ in 0..limit {
            if done(self) {
                return Ok(true);
            }
            self.tick()?;
        }
        Ok(done(self))
    }

    /// Lets time pass until then.
    pub(super) fn advance(&mut self, until: u64) -> Result<(), Broken> {
        let mut at_once = 0;
        while let Some((due, flight)) = self.network.arrive(until) {
            at_once = if due == self.ms { at_once + 1 } else { 0 };
            if at_once > MAX_AT_ONCE {
                return Err(broken("circles", "the peers talk in circles"));
            }
            self.ms = self.ms.max(due);
            self.happened += 1;
            self.happen(flight)?;
        }
        self.ms = until;
        Ok(())
    }

    fn happen(&mut self, flight: Flight) -> Result<(), Broken> {
        let now = self.ms;
        match flight {
            Flight::Tick { peer, life } => {
                let Some(node) = self.nodes.get_mut(&peer).filter(|n| n.life == life) else { return Ok(()) };
                if node.driver.is_none() {
                    return Ok(());
                }
                let every = node.every;
                node.tick_due = true;
                self.network.launch(now + every, Flight::Tick { peer, life });
                self.drive(peer, None)
            }
            Flight::Frame { from, to, raft_id, bytes } => self.arrive(from, to, raft_id, &bytes),
            Flight::Leave { peer, life, mark } => {
                let Some(node) = self.nodes.get(&peer).filter(|n| n.life == life) else { return Ok(()) };
                if node.paused > now {
                    self.network.launch(node.paused, Flight::Leave { peer, life, mark });
                } else {
                    self.leave(peer, mark);
                }
                Ok(())
            }
            Flight::Settled { peer, life } => {
                if let Some(node) = self.nodes.get_mut(&peer).filter(|n| n.life == life) {
                    node.settle();
                }
                Ok(())
            }
            Flight::Free { peer, life } => {
                let Some(node) = self.nodes.get_mut(&peer).filter(|n| n.life == life) else { return Ok(()) };
                if node.paused > now {
                    self.network.launch(node.paused, Flight::Free { peer, life });
                    return Ok(());
                }
                node.busy = false;
                self.turned(peer)?;
                self.drive(peer, None)
            }
            Flight::Resume { peer, life } => {
                if self.nodes.get(&peer).is_some_and(|n| n.life == life) {
                    self.drive(peer, None)?;
                }
                Ok(())
            }
            Flight::Crash { peer, life } => {
                if self.nodes.get(&peer).is_some_and(|n| n.life == life) {
                    self.crash(peer);
                }
                Ok(())
            }
            Flight::Flushed { peer, life } => {
                let Some(node) = self.nodes.get_mut(&peer).filter(|n| n.life == life) else { return Ok(()) };
                node.flushing = false;
                let flushed = node.state.end_flush();
                if let Some(node) = self.nodes.get(&peer) {
                    self.checks.durable(peer, node)?;
                }
                self.drive(peer, Some(Input::Flushed(flushed)))
            }
            Flight::Opens { from, to, life, request } => self.open_transfer(from, to, life, request),
            Flight::Ends { from, from_life, to, life, request, chunks, breaks } => {
                self.end_transfer((from, from_life), (to, life), &request, chunks, breaks)
            }
            Flight::Ask { ticket, attempt, from, to, request } => {
                self.asked(ticket, attempt, from, to, &request)
            }
            Flight::Told { from, told } => self.told(from, told),
            Flight::Again { ticket, attempt } => self.again(ticket, attempt),
        }
    }

    fn arrive(&mut self, from: Peer, to: Peer, raft_id: RaftId, bytes: &[u8]) -> Result<(), Broken> {
        let open = self.network.is_open(from, to);
        if !open || !self.is_up(to) {
            if open || !self.network.ways.silent {
                return self.drive(from, Some(Input::Unreachable(raft_id)));
            }
            return Ok(());
        }
        let frame = crate::consensus::message::decode(bytes)
            .map_err(|e| broken("garbled", format!("a frame from peer {from} cannot be read: {e}")))?;
        self.hash = super::hash(self.hash ^ self.ms, bytes);
        if let Body::Messages(messages) = &frame.body {
            let longest = messages.iter().map(|m| m.entries.len()).max().unwrap_or_default();
            self.longest_append = self.longest_append.max(longest);
            messages.iter().try_for_each(|m| self.promised(m).and_then(|()| self.checks.heard(m)))?;
            self.note(|| {
                let each: Vec<String> = messages.iter().map(words).collect();
                format!("from {from} to {to}: {}", each.join("; "))
            });
        }
        self.drive(to, Some(Input::Frame(peer_id(from), frame)))
    }

    /// A vote that arrives stands on its voter's disk: a power cut there would not make it vote again.
    fn promised(&self, m: &Message) -> Result<(), Broken> {
        let voter = self.nodes.values().find(|node| node.raft_id == m.from);
        let Some(voter) = voter.filter(|_| m.get_msg_type() == MessageType::MsgRequestVoteResponse) else {
            return Ok(());
        };
        let disk = voter.log.durable_hard_state();
        if m.reject || disk.term > m.term || (disk.term, disk.vote) == (m.term, m.to) {
            return Ok(());
        }
        Err(broken(
            "promise not kept",
            format!(
                "Raft id {} voted for {} in term {}, and its disk says {} in term {}",
                m.from, m.to, m.term, disk.vote, disk.term
            ),
        ))
    }
}

/// A message in a few words.
fn words(m: &raft::eraftpb::Message) -> String {
    let entries: Vec<String> = m.entries.iter().map(|e| format!("{}/{}", e.index, e.term)).collect();
    format!(
        "{:?} term {} index {}/{} commit {}{}{}",
        m.get_msg_type(),
        m.term,
        m.index,
        m.log_term,
        m.commit,
        if m.reject { " rejected" } else { "" },
        if entries.is_empty() { String::new() } else { format!(" entries {}", entries.join(" ")) }
    )
}

/// The identity of a simulated peer: always the same.
pub(super) fn peer_id(peer: Peer) -> PeerId {
    static ALL: OnceLock<Vec<PeerId>> = OnceLock::new();
    let make = |peer: Peer| {
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&peer.to_be_bytes());
        let keypair = libp2p::identity::Keypair::ed25519_from_bytes(&mut secret);
        keypair.expect("any 32 bytes are an Ed25519 secret").public().to_peer_id()
    };
    let all = ALL.get_or_init(|| (0..=MOST_PEERS).map(make).collect());
    all.get(peer as usize).copied().unwrap_or_else(|| make(peer))
}

/// The CID of a name.
pub(super) fn cid_of(name: &str) -> Cid {
    let digest = Sha256::digest(name.as_bytes());
    let hash = multihash::Multihash::wrap(0x12, &digest).expect("a SHA-256 digest fits into 64 bytes");
    Cid::new_v1(0x55, hash)
}
