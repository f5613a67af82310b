//! The libp2p host: who can reach whom, and over what.
//!
//! One [`Host`] is one libp2p swarm on our own TCP transport (`transport`): optional pre-shared key, noise,
//! yamux, identify, ping, and raw streams by protocol name. The cluster runs one host (protocols
//! `/pinfold/rpc/1`, `/pinfold/raft/1`), the embedded IPFS node another (Bitswap). [`rpc::Rpc`] adds
//! calls, streams, limits and authorisation on top of a host. The room knows nothing of Raft or pins.
//!
//! Every failure to reach a peer becomes one plain sentence that names the address and the likely cause.

mod behaviour;
mod book;
mod discovery;
mod handshake;
pub mod identity;
mod interfaces;
mod keepalive;
pub mod rpc;
mod sentences;
mod streams;
mod swarm;
mod transport;
mod version;

pub use identity::Identity;

use crate::error::{Error, Result};
use crate::runtime;
use futures::channel::oneshot;
use libp2p::core::upgrade::Version;
use libp2p::core::Transport;
use libp2p::{Multiaddr, PeerId, Swarm};
use std::sync::Arc;
use std::time::Duration;
use swarm::{Command, Shared};

/// A connection that nothing uses and nobody keeps is closed after this.
const IDLE_CONNECTION: Duration = Duration::from_secs(600);
/// How long a starting host waits for its wildcard listeners to learn the machine's addresses.
const LISTEN_WAIT: Duration = Duration::from_secs(2);
/// What a caller grants the swarm beyond the dial limit before it gives up on an answer.
const ANSWER_SLACK: Duration = Duration::from_secs(2);
/// Streams that one connection may be negotiating at once; more wait in the multiplexer.
const NEGOTIATING_STREAMS: usize = 256;

/// A raw bidirectional byte stream to a peer (futures-io `AsyncRead + AsyncWrite`).
pub type Stream = libp2p::Stream;

/// What a [`Host`] is made of.
#[derive(Clone)]
pub struct HostConfig {
    /// Identity.
    pub keypair: libp2p::identity::Keypair,
    /// Private-network key; `None` is an open network.
    pub psk: Option<[u8; 32]>,
    /// TCP addresses to listen on (port 0 is allowed).
    pub listen: Vec<Multiaddr>,
    /// Addresses to tell others instead of what the interfaces say; empty: what we listen on.
    pub announce: Vec<Multiaddr>,
    /// Identify's agent string, `pinfold/0.1.0`.
    pub agent: String,
    /// Identify's protocol version string.
    pub protocol_version: String,
    /// Limit for one dial, transport and handshakes included.
    pub dial_timeout: Duration,
    /// Find peers with the same service name by multicast DNS every so often; `None` is off.
    pub mdns: Option<(String, Duration)>,
    /// Most established connections; beyond it new incoming ones are refused.
    pub max_connections: usize,
}

/// What is known of a connected peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where it is connected, without `/p2p/…`.
    pub address: Option<Multiaddr>,
    /// Whether we dialled it.
    pub outgoing: bool,
    /// What it calls itself; empty before identify.
    pub agent: String,
    /// Protocols it speaks, sorted; empty before identify.
    pub protocols: Vec<String>,
}

/// What happens on a host. Slow subscribers lose the oldest events.
#[derive(Clone, Debug)]
pub enum HostEvent {
    /// First connection to a peer is up.
    Connected(PeerId),
    /// Last connection to a peer is gone.
    Disconnected(PeerId),
    /// Identify told us about a peer.
    Identified {
        /// Who.
        peer: PeerId,
        /// Where it says it listens.
        addresses: Vec<Multiaddr>,
        /// Its agent string.
        agent: String,
        /// Protocols it speaks.
        protocols: Vec<String>,
    },
    /// mDNS found a peer (only the secret lets it in).
    Discovered(PeerId, Vec<Multiaddr>),
    /// Our own addresses changed.
    AddressesChanged,
}

/// A running swarm. Clone is cheap; the swarm ends when [`Host::close`] is called or the last clone is dropped.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    peer: PeerId,
    announce: Vec<Multiaddr>,
    dial_timeout: Duration,
    shared: Arc<Shared>,
    registry: streams::Registry,
    traffic: Arc<transport::Traffic>,
    commands: async_channel::Sender<Command>,
}

impl Host {
    /// Starts the swarm and waits until every listen address is bound (or fails with the sentence:
    /// which address, why, what to do). Listen addresses that are not TCP are passed over with a warning
    /// (ipfs-cluster's default has a QUIC one) as long as one is TCP.
    pub async fn start(config: HostConfig) -> Result<Host> {
        let peer = config.keypair.public().to_peer_id();
        let traffic = Arc::new(transport::Traffic::default());
        let handshake = handshake::Handshake::new(&config.keypair, config.psk, config.dial_timeout)?;
        let transport = transport::Tcp::new(config.dial_timeout, traffic.clone())
            .map_err(handshake::Failure::Tcp)
            .and_then(move |socket, point| handshake.run(socket, point))
            .map_err(|error| error.into_inner())
            .boxed();
        let registry = streams::Registry::default();
        let behaviour = behaviour::Behaviour::new(&config, registry.clone());
        let settings = libp2p::swarm::Config::with_executor(|task| runtime::spawn(task).detach())
            .with_idle_connection_timeout(IDLE_CONNECTION)
            .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS)
            // Saves a round trip per stream; see `Host::open` for what follows from it.
            .with_substream_upgrade_protocol_override(Version::V1Lazy);
        let mut swarm = Swarm::new(transport, behaviour, peer, settings);
        for address in &config.announce {
            swarm.add_external_address(address.clone());
        }

        let (tcp, other): (Vec<_>, Vec<_>) = config.listen.into_iter().partition(transport::is_listenable);
        let mut listeners = Vec::new();
        for address in &tcp {
            let bound = swarm.listen_on(address.clone());
            listeners.push(bound.map_err(|error| sentences::listen(address, &error))?);
        }
        for address in other {
            let unsupported = libp2p::core::transport::TransportError::MultiaddrNotSupported(address.clone());
            let error = sentences::listen(&address, &unsupported);
            if listeners.is_empty() {
                return Err(error);
            }
            log::warn!("{error}; going on without it");
        }

        let (shared, bell) = Shared::new();
        let (commands, orders) = async_channel::bounded(swarm::COMMAND_QUEUE);
        let mut task = swarm::Task {
            swarm,
            commands: orders,
            bell,
            shared: shared.clone(),
            registry: registry.clone(),
            discovery: None,
            announce: config.announce.clone(),
            max_connections: config.max_connections,
            dials: swarm::Dials::default(),
        };
        task.await_listeners(&listeners, LISTEN_WAIT).await;
        if let Some((name, interval)) = config.mdns.filter(|(_, interval)| !interval.is_zero()) {
            task.discovery = discovery::Discovery::start(&name, config.psk.as_ref(), peer, interval);
            task.on_own_addresses();
        }
        runtime::spawn(task.run()).detach();
        let inner = Inner {
            peer,
            announce: config.announce,
            dial_timeout: config.dial_timeout,
            shared,
            registry,
            traffic,
            commands,
        };
        Ok(Host { inner: Arc::new(inner) })
    }

    /// Our identity.
    pub fn peer_id(&self) -> PeerId {
        self.inner.peer
    }

    /// Addresses others can dial, without `/p2p/…` (announced ones, else real listen addresses, loopback last).
    pub fn addresses(&self) -> Vec<Multiaddr> {
        if self.inner.announce.is_empty() {
            self.inner.shared.lock().listening.clone()
        } else {
            self.inner.announce.clone()
        }
    }

    /// Remembers (replaces) dialable addresses of a peer; used by [`Host::open`] and reconnection.
    pub fn set_addresses(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.inner.shared.tell(peer, addresses);
    }

    /// Addresses remembered or learned by identify/mDNS.
    pub fn addresses_of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.inner.shared.lock().book.of(peer)
    }

    /// Keeps a connection to these peers: dials and redials with back-off, until the set changes.
    pub fn keep_connected(&self, peers: Vec<PeerId>) {
        self.inner.shared.keep(peers);
    }

    /// Connects now, if not connected. Errors are plain sentences: wrong secret, wrong peer id,
    /// refused, timeout, version mismatch, no addresses. Wrong secret and wrong peer id are
    /// [`crate::Kind::Conflict`]: waiting does not cure them.
    pub async fn connect(&self, peer: PeerId, extra: Vec<Multiaddr>) -> Result<()> {
        if peer == self.inner.peer {
            return Err(Error::invalid(format!("cannot connect to {peer}: that is this peer itself")));
        }
        if self.is_connected(&peer) {
            return Ok(());
        }
        let first = extra.first().cloned();
        let mut addresses = book::clean(extra);
        for known in self.addresses_of(&peer) {
            if !addresses.contains(&known) {
                addresses.push(known);
            }
        }
        if let (true, Some(address)) = (addresses.is_empty(), first) {
            return Err(not_dialable(&address));
        }
        self.dial(Some(peer), addresses).await.map(drop)
    }

    /// Connects to `…/p2p/<id>` and returns who answered. Without `/p2p/…` whoever answers is welcome.
    pub async fn connect_addr(&self, address: Multiaddr) -> Result<PeerId> {
        let peer = split_p2p(&address).ok().map(|(peer, _)| peer);
        if peer == Some(self.inner.peer) {
            return Err(Error::invalid(format!("cannot connect to {address}: that is this peer itself")));
        }
        let clean = book::clean([address.clone()]);
        if clean.is_empty() {
            return Err(not_dialable(&address));
        }
        self.dial(peer, clean).await
    }

    async fn dial(&self, peer: Option<PeerId>, addresses: Vec<Multiaddr>) -> Result<PeerId> {
        let gone = |_| Error::unavailable("the network of this peer is shut down");
        let (reply, answer) = oneshot::channel();
        let command = Command::Connect { peer, addresses, reply };
        // The swarm's own limits end every dial; this one is for a swarm that does not get to run.
        let limit = self.inner.dial_timeout * 2 + ANSWER_SLACK;
        runtime::timeout(limit, "connecting", async {
            self.inner.commands.send(command).await.map_err(|e| gone(e.to_string()))?;
            answer.await.map_err(|e| gone(e.to_string()))?
        })
        .await
    }

    /// Connected peers.
    pub fn connected(&self) -> Vec<PeerId> {
        self.inner.shared.connected()
    }

    /// What is known of a connected peer; `None` when it is not connected.
    pub fn peer_info(&self, peer: &PeerId) -> Option<PeerInfo> {
        self.inner.shared.peer_info(peer)
    }

    /// Whether a connection is up.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.inner.shared.is_connected(peer)
    }

    /// Drops all connections to a peer.
    pub fn disconnect(&self, peer: PeerId) {
        self.inner.shared.drop_peer(peer);
    }

    /// Opens a stream (connecting first if need be).
    ///
    /// The stream is ready without waiting for the far side's consent (that saves a round trip), so a peer
    /// that does not speak the protocol is noticed here only when identify has told us before; otherwise the
    /// first read fails. [`stream_error`] turns such an error into its sentence.
    pub async fn open(&self, peer: PeerId, protocol: &'static str, limit: Duration) -> Result<Stream> {
        if peer == self.inner.peer {
            return Err(Error::invalid(format!(
                "cannot open a stream of {protocol} to {peer}: that is this peer itself"
            )));
        }
        let what = format!("opening a stream of {protocol} to peer {peer}");
        runtime::timeout(limit, &what, async {
            // A connection may end between the look and the order; then one more dial is worth it.
            for last in [false, true] {
                self.connect(peer, Vec::new()).await?;
                if let Some(error) = self.inner.shared.mismatch(peer, protocol) {
                    return Err(error);
                }
                match self.inner.registry.open(peer, protocol, limit).await {
                    Ok(stream) => return Ok(stream),
                    Err(streams::OpenError::Unsupported) => {
                        return Err(sentences::unsupported(peer, protocol))
                    }
                    Err(streams::OpenError::Busy) => {
                        return Err(Error::unavailable(format!(
                            "{what}: too many streams are being opened to it"
                        )))
                    }
                    Err(streams::OpenError::Io(error)) if last => {
                        return Err(sentences::stream(peer, protocol, "opening a stream to", &error))
                    }
                    Err(streams::OpenError::Io(_) | streams::OpenError::NotConnected) => {}
                }
            }
            Err(Error::unavailable(format!("{what}: the connection was closed")))
        })
        .await
    }

    /// Incoming streams of a protocol. One taker per protocol.
    pub fn accept(&self, protocol: &'static str) -> Result<async_channel::Receiver<(PeerId, Stream)>> {
        self.inner.registry.accept(protocol).ok_or_else(|| {
            Error::internal(format!("streams of {protocol} are taken already; one taker per protocol"))
        })
    }

    /// Subscribes to events.
    pub fn events(&self) -> async_channel::Receiver<HostEvent> {
        self.inner.shared.subscribe()
    }

    /// Bytes in and out since start, total of all connections (for health/bandwidth and metrics).
    pub fn bandwidth(&self) -> (u64, u64) {
        self.inner.traffic.totals()
    }

    /// Closes connections and listeners. Everything that waits for this host ends with an error.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.inner.commands.send(Command::Close { reply }).await.is_ok() {
            let _ = done.await;
        }
    }
}

/// An address of another kind than ours.
fn not_dialable(address: &Multiaddr) -> Error {
    Error::invalid(format!(
        "cannot connect to {address}: only /ip4, /ip6, /dns, /dns4 and /dns6 with /tcp/<port> can be dialled"
    ))
}

/// The sentence for an error on a stream that [`Host::open`] or [`Host::accept`] gave; `doing` reads like
/// `"asking"` before `"peer <id>"`.
pub fn stream_error(peer: PeerId, protocol: &str, doing: &str, error: &std::io::Error) -> Error {
    sentences::stream(peer, protocol, doing, error)
}

/// Splits `/…/p2p/<id>` into peer and dialable address.
pub fn split_p2p(address: &Multiaddr) -> Result<(PeerId, Multiaddr)> {
    let mut rest = address.clone();
    match rest.pop() {
        Some(libp2p::multiaddr::Protocol::P2p(peer)) => Ok((peer, rest)),
        _ => Err(Error::invalid(format!("the address {address} does not end in /p2p/<peer id>"))),
    }
}
