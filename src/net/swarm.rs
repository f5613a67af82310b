//! The task that owns the libp2p swarm.
//!
//! Hosts talk to it through a bounded command channel (dial, close) and through [`Shared`], the state that
//! both sides see under one short lock: what is wanted (peers to keep, peers to drop) is written there and the
//! task is woken, so that setting a wish never waits and never gets lost; what is (connections, addresses,
//! protocols) is read there without asking the task.
//!
//! Invariants: every dial order is answered; a peer counts as connected from its first connection to its
//! last; a slow subscriber of events loses the oldest ones and holds nobody up.

use super::behaviour::{Behaviour, BehaviourEvent, PING_FAILURES};
use super::book::Book;
use super::discovery::{Discovery, Found};
use super::keepalive::Keeper;
use super::streams::Registry;
use super::version::{self, Spoken};
use super::{book, sentences, transport, HostEvent};
use crate::error::{Error, Result};
use futures::channel::oneshot;
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{identify, ping, Multiaddr, PeerId, Swarm};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Orders that wait for the swarm's task.
pub(super) const COMMAND_QUEUE: usize = 256;
/// Events that wait for one subscriber; beyond it the oldest is lost.
const EVENT_QUEUE: usize = 256;
/// Protocol names remembered per peer.
const PROTOCOLS_PER_PEER: usize = 128;
/// Characters of a peer's agent string that are remembered.
const AGENT_CHARS: usize = 128;
/// How long a closing host waits for its connections to say goodbye.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often the same kind of trouble (a listener out of file descriptors, strangers with another secret) is
/// logged at most.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What the task is asked to do, with an answer.
pub(super) enum Command {
    /// Dial these addresses of the peer (or of whoever answers).
    Connect { peer: Option<PeerId>, addresses: Vec<Multiaddr>, reply: oneshot::Sender<Result<PeerId>> },
    /// Close everything and end.
    Close { reply: oneshot::Sender<()> },
}

/// What is known of a connected peer.
#[derive(Default)]
struct Peer {
    connections: usize,
    /// What it said of itself; `None` before identify.
    spoken: Option<Spoken>,
    /// Where it is connected, of its first connection.
    address: Option<Multiaddr>,
    /// Whether we dialled that.
    outgoing: bool,
}

/// The part of the state that hosts read and write directly.
#[derive(Default)]
pub(super) struct State {
    pub(super) book: Book,
    pub(super) listening: Vec<Multiaddr>,
    peers: HashMap<PeerId, Peer>,
    /// The wish: peers to keep connected. `None` when the task has seen it.
    keep: Option<Vec<PeerId>>,
    nudged: HashSet<PeerId>,
    dropped: HashSet<PeerId>,
    subscribers: Vec<async_channel::Sender<HostEvent>>,
    closed: bool,
}

/// [`State`] under its lock, and the bell that tells the task to look at it.
pub(super) struct Shared {
    state: Mutex<State>,
    bell: async_channel::Sender<()>,
}

impl Shared {
    /// The shared state and the task's end of the bell.
    pub(super) fn new() -> (Arc<Shared>, async_channel::Receiver<()>) {
        let (bell, rung) = async_channel::bounded(1);
        (Arc::new(Shared { state: Mutex::default(), bell }), rung)
    }

    /// The state. The lock is held for moments and never across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn ring(&self) {
        // Full means that it rings already.
        let _ = self.bell.try_send(());
    }

    /// Replaces the addresses of a peer.
    pub(super) fn tell(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let mut state = self.lock();
        if state.book.tell(peer, addresses) {
            state.nudged.insert(peer);
            drop(state);
            self.ring();
        }
    }

    /// Replaces the peers to keep.
    pub(super) fn keep(&self, peers: Vec<PeerId>) {
        self.lock().keep = Some(peers);
        self.ring();
    }

    /// Asks for all connections of a peer to be closed.
    pub(super) fn drop_peer(&self, peer: PeerId) {
        self.lock().dropped.insert(peer);
        self.ring();
    }

    /// Connected peers, sorted.
    pub(super) fn connected(&self) -> Vec<PeerId> {
        let mut peers: Vec<_> = self.lock().peers.keys().copied().collect();
        peers.sort();
        peers
    }

    /// Whether a connection is up.
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.lock().peers.contains_key(peer)
    }

    /// What is known of a connected peer.
    pub(super) fn peer_info(&self, peer: &PeerId) -> Option<super::PeerInfo> {
        let state = self.lock();
        let known = state.peers.get(peer)?;
        let Spoken { agent, mut protocols } = known.spoken.clone().unwrap_or_default();
        protocols.sort();
        Some(super::PeerInfo { address: known.address.clone(), outgoing: known.outgoing, agent, protocols })
    }

    /// What to say when the peer said what it speaks, and the protocol was not among it.
    pub(super) fn mismatch(&self, peer: PeerId, protocol: &str) -> Option<Error> {
        let state = self.lock();
        version::mismatch(peer, protocol, state.peers.get(&peer)?.spoken.as_ref()?)
    }

    /// A new subscriber.
    pub(super) fn subscribe(&self) -> async_channel::Receiver<HostEvent> {
        let (sender, receiver) = async_channel::bounded(EVENT_QUEUE);
        let mut state = self.lock();
        if !state.closed {
            state.subscribers.retain(|subscriber| !subscriber.is_closed());
            state.subscribers.push(sender);
        }
        receiver
    }

    fn emit(&self, event: &HostEvent) {
        self.lock().subscribers.retain(|subscriber| subscriber.force_send(event.clone()).is_ok());
    }
}

/// One dial under way.
struct Dial {
    peer: Option<PeerId>,
    addresses: Vec<Multiaddr>,
    waiting: Vec<oneshot::Sender<Result<PeerId>>>,
}

/// Why the task turns.
enum Turn {
    Command(Command),
    Orphaned,
    Bell,
    Event(Box<SwarmEvent<BehaviourEvent>>),
    Found(Found),
    Due,
}

/// The task's own state.
pub(super) struct Task {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) commands: async_channel::Receiver<Command>,
    pub(super) bell: async_channel::Receiver<()>,
    pub(super) shared: Arc<Shared>,
    pub(super) registry: Registry,
    pub(super) discovery: Option<Discovery>,
    /// Addresses to tell instead of those we listen on.
    pub(super) announce: Vec<Multiaddr>,
    pub(super) max_connections: usize,
    pub(super) dials: Dials,
}

/// What the task remembers between turns besides the swarm.
#[derive(Default)]
pub(super) struct Dials {
    under_way: HashMap<ConnectionId, Dial>,
    keeper: Keeper,
    failed_pings: HashMap<ConnectionId, u8>,
    outgoing: HashSet<ConnectionId>,
    complained: HashMap<&'static str, Instant>,
}

impl Task {
    /// Waits until every listener told its first address, or nothing more comes.
    pub(super) async fn await_listeners(&mut self, listeners: &[ListenerId], limit: Duration) {
        let mut silent: HashSet<ListenerId> = listeners.iter().copied().collect();
        let deadline = Instant::now() + limit;
        while !silent.is_empty() {
            let event = smol::future::or(async { Some(self.swarm.select_next_some().await) }, async {
                async_io::Timer::at(deadline).await;
                None
            })
            .await;
            let Some(event) = event else { break };
            if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                silent.remove(listener_id);
            }
            self.on_event(event);
        }
    }

    /// Runs until the host is closed or nobody holds it any more.
    pub(super) async fn run(mut self) {
        loop {
            match self.turn().await {
                Turn::Command(Command::Connect { peer, addresses, reply }) => {
                    self.connect(peer, addresses, Some(reply));
                }
                Turn::Command(Command::Close { reply }) => {
                    self.close().await;
                    drop(self);
                    let _ = reply.send(());
                    return;
                }
                Turn::Orphaned => {
                    self.close().await;
                    return;
                }
                Turn::Bell => self.on_bell(),
                Turn::Event(event) => self.on_event(*event),
                Turn::Found(found) => self.on_found(found),
                Turn::Due => {
                    for peer in self.dials.keeper.take_due(Instant::now()) {
                        self.dial_kept(peer);
                    }
                }
            }
        }
    }

    async fn turn(&mut self) -> Turn {
        let due = self.dials.keeper.next_due();
        let due = async {
            match due {
                Some(at) => drop(async_io::Timer::at(at).await),
                None => std::future::pending().await,
            }
            Turn::Due
        };
        let command = async { self.commands.recv().await.map_or(Turn::Orphaned, Turn::Command) };
        let bell = async {
            // The bell's other end lives as long as the shared state, which we hold.
            if self.bell.recv().await.is_err() {
                std::future::pending::<()>().await;
            }
            Turn::Bell
        };
        let found = async {
            match &self.discovery {
                Some(discovery) => Turn::Found(discovery.next().await),
                None => std::future::pending().await,
            }
        };
        let event = async { Turn::Event(Box::new(self.swarm.select_next_some().await)) };
        let wishes = smol::future::or(command, bell);
        smol::future::or(wishes, smol::future::or(event, smol::future::or(found, due))).await
    }

    fn on_bell(&mut self) {
        let (keep, nudged, dropped) = {
            let mut state = self.shared.lock();
            (state.keep.take(), std::mem::take(&mut state.nudged), std::mem::take(&mut state.dropped))
        };
        let now = Instant::now();
        if let Some(mut peers) = keep {
            let ourselves = *self.swarm.local_peer_id();
            peers.retain(|peer| *peer != ourselves);
            self.registry.keep(&peers);
            self.dials.keeper.set(&peers, now, |peer| self.swarm.is_connected(peer));
        }
        for peer in nudged {
            self.dials.keeper.nudge(&peer, now);
        }
        for peer in dropped {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn on_found(&mut self, (peer, addresses): Found) {
        if peer == *self.swarm.local_peer_id() {
            return;
        }
        let addresses = book::clean(addresses);
        if addresses.is_empty() {
            return;
        }
        if self.shared.lock().book.learn(peer, addresses.clone()) {
            self.dials.keeper.nudge(&peer, Instant::now());
        }
        self.shared.emit(&HostEvent::Discovered(peer, addresses));
    }

    fn dial_kept(&mut self, peer: PeerId) {
        if self.swarm.is_connected(&peer) {
            self.dials.keeper.connected(&peer);
            return;
        }
        let addresses = self.shared.lock().book.of(&peer);
        self.connect(Some(peer), addresses, None);
    }

    /// Dials, joins a dial that is under way, or answers at once.
    fn connect(
        &mut self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        reply: Option<oneshot::Sender<Result<PeerId>>>,
    ) {
        if let Some(peer) = peer {
            if self.swarm.is_connected(&peer) {
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(peer));
                }
                return;
            }
            let under_way =
                self.dials.under_way.values_mut().find(|dial| {
                    dial.peer == Some(peer) && addresses.iter().all(|a| dial.addresses.contains(a))
                });
            if let Some(dial) = under_way {
                dial.waiting.extend(reply);
                return;
            }
        }
        let options = match peer {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(addresses.clone())
                .allocate_new_port()
                .build(),
            None => match addresses.first() {
                Some(address) => DialOpts::unknown_peer_id().address(address.clone()).build(),
                None => {
                    if let Some(reply) = reply {
                        let _ = reply.send(Err(sentences::no_addresses(None)));
                    }
                    return;
                }
            },
        };
        let id = options.connection_id();
        let mut dial = Dial { peer, addresses, waiting: Vec::new() };
        dial.waiting.extend(reply);
        self.dials.under_way.insert(id, dial);
        if let Err(error) = self.swarm.dial(options) {
            // The swarm reports no event for a dial that it refuses outright.
            self.dial_failed(id, &error);
        }
    }

    fn dial_failed(&mut self, id: ConnectionId, error: &libp2p::swarm::DialError) {
        let Some(dial) = self.dials.under_way.remove(&id) else { return };
        let error = sentences::dial(dial.peer, error);
        if let Some(peer) = dial.peer {
            // Another connection may have come up meanwhile (both dialled at once): then all is well.
            if self.swarm.is_connected(&peer) {
                dial.waiting.into_iter().for_each(|reply| drop(reply.send(Ok(peer))));
                return;
            }
            let news = self.dials.keeper.failed(&peer, Instant::now(), jitter(), error.message());
            if let Some(sentence) = news {
                log::warn!("{sentence}; trying again");
            }
        }
        dial.waiting.into_iter().for_each(|reply| drop(reply.send(Err(error.clone()))));
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, endpoint, num_established, ..
            } => {
                self.on_connected(peer_id, connection_id, &endpoint, num_established.get());
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                self.on_disconnected(peer_id, connection_id, num_established, cause);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.dial_failed(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                let (sentence, important) = sentences::incoming(&send_back_addr, &error);
                if important {
                    self.complain("secret", &sentence);
                } else {
                    log::debug!("{sentence}");
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                log::debug!("listening on {address}");
                let mut state = self.shared.lock();
                if !state.listening.contains(&address) {
                    state.listening.push(address);
                    // Addresses that others can use come first, loopback last.
                    state.listening.sort_by_key(transport::is_loopback);
                }
                drop(state);
                self.on_own_addresses();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.shared.lock().listening.retain(|known| *known != address);
                self.on_own_addresses();
            }
            SwarmEvent::ListenerError { error, .. } => {
                self.complain("listener", &format!("cannot accept connections just now: {error}; accepting goes on as soon as the system lets it"));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                self.on_identified(peer_id, info);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(&event),
            _ => {}
        }
    }

    /// Tells the local network and the subscribers where we are now.
    pub(super) fn on_own_addresses(&mut self) {
        if let Some(discovery) = &self.discovery {
            let listening = self.shared.lock().listening.clone();
            discovery.announce(if self.announce.is_empty() { &listening } else { &self.announce });
        }
        self.shared.emit(&HostEvent::AddressesChanged);
    }

    fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint, count: u32) {
        log::debug!("connected to peer {peer} at {}", endpoint.get_remote_address());
        if endpoint.is_dialer() {
            self.dials.outgoing.insert(id);
            self.swarm.behaviour_mut().set_outgoing(self.max_connections, self.dials.outgoing.len());
        }
        {
            let mut state = self.shared.lock();
            let known = state.peers.entry(peer).or_default();
            known.connections = count as usize;
            if known.address.is_none() {
                known.address = Some(without_p2p(endpoint.get_remote_address()));
                known.outgoing = endpoint.is_dialer();
            }
        }
        self.dials.keeper.connected(&peer);
        if let Some(dial) = self.dials.under_way.remove(&id) {
            dial.waiting.into_iter().for_each(|reply| drop(reply.send(Ok(peer))));
        }
        // Whoever waits for another dial to the same peer has what it wants.
        for dial in self.dials.under_way.values_mut().filter(|dial| dial.peer == Some(peer)) {
            dial.waiting.drain(..).for_each(|reply| drop(reply.send(Ok(peer))));
        }
        if count == 1 {
            self.shared.emit(&HostEvent::Connected(peer));
        }
    }

    fn on_disconnected(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        left: u32,
        cause: Option<libp2p::swarm::ConnectionError>,
    ) {
        self.dials.failed_pings.remove(&id);
        if self.dials.outgoing.remove(&id) {
            self.swarm.behaviour_mut().set_outgoing(self.max_connections, self.dials.outgoing.len());
        }
        if left > 0 {
            if let Some(known) = self.shared.lock().peers.get_mut(&peer) {
                known.connections = left as usize;
            }
            return;
        }
        match cause {
            Some(cause) => log::debug!("disconnected from peer {peer}: {cause}"),
            None => log::debug!("disconnected from peer {peer}"),
        }
        self.shared.lock().peers.remove(&peer);
        self.dials.keeper.disconnected(&peer, Instant::now(), jitter());
        self.shared.emit(&HostEvent::Disconnected(peer));
    }

    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        let addresses = book::clean(info.listen_addrs);
        let protocols: Vec<String> =
            info.protocols.iter().take(PROTOCOLS_PER_PEER).map(ToString::to_string).collect();
        let agent = info.agent_version.chars().take(AGENT_CHARS).collect();
        let spoken = Spoken { agent, protocols: protocols.clone() };
        {
            let mut state = self.shared.lock();
            if let Some(known) = state.peers.get_mut(&peer) {
                known.spoken = Some(spoken.clone());
            }
            state.book.learn(peer, addresses.clone());
        }
        let ours = self.registry.protocols();
        if let Some(error) = version::stranger(peer, ours.iter().map(AsRef::as_ref), &spoken) {
            self.complain("version", error.message());
        }
        self.shared.emit(&HostEvent::Identified { peer, addresses, agent: info.agent_version, protocols });
    }

    fn on_ping(&mut self, event: &ping::Event) {
        match &event.result {
            Ok(_) | Err(ping::Failure::Unsupported) => {
                self.dials.failed_pings.remove(&event.connection);
            }
            Err(error) => {
                let failures = self.dials.failed_pings.entry(event.connection).or_default();
                *failures += 1;
                if *failures >= PING_FAILURES {
                    log::debug!("peer {} does not answer ({error}); closing the connection", event.peer);
                    self.swarm.close_connection(event.connection);
                }
            }
        }
    }

    /// Warns, but not more often than once per [`COMPLAINT_INTERVAL`] and subject.
    fn complain(&mut self, subject: &'static str, sentence: &str) {
        let now = Instant::now();
        let last = self.dials.complained.get(subject);
        if last.is_none_or(|at| now.duration_since(*at) >= COMPLAINT_INTERVAL) {
            self.dials.complained.insert(subject, now);
            log::warn!("{sentence}");
        } else {
            log::debug!("{sentence}");
        }
    }

    /// Says goodbye to everyone, for at most [`FAREWELL`].
    async fn close(&mut self) {
        self.commands.close();
        let gone = || Error::unavailable("the network of this peer is shutting down");
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Connect { reply, .. } => drop(reply.send(Err(gone()))),
                Command::Close { reply } => drop(reply.send(())),
            }
        }
        for dial in self.dials.under_way.drain().map(|(_, dial)| dial) {
            dial.waiting.into_iter().for_each(|reply| drop(reply.send(Err(gone()))));
        }
        self.discovery = None;
        self.registry.close();
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let swarm = &mut self.swarm;
        let goodbye = async {
            while swarm.connected_peers().next().is_some() {
                swarm.select_next_some().await;
            }
        };
        smol::future::or(goodbye, async {
            async_io::Timer::after(FAREWELL).await;
        })
        .await;
        let mut state = self.shared.lock();
        state.closed = true;
        state.peers.clear();
        state.listening.clear();
        state.subscribers.clear();
    }
}

/// An address without the `/p2p/…` at its end.
fn without_p2p(address: &Multiaddr) -> Multiaddr {
    super::split_p2p(address).map_or_else(|_| address.clone(), |(_, rest)| rest)
}

/// A number in 0..1. Only spreads load, so when the system has no randomness the middle will do.
fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}
