//! Raw streams by protocol name, as a libp2p behaviour.
//!
//! A stream is opened by handing an order straight to the task of one connection (never through the swarm's
//! task, which stays free for connections), and any number of opens may be under way at once. Incoming streams
//! go to the one taker of their protocol through a queue of [`ACCEPT_QUEUE`]; a stream that does not fit is
//! reset, which its opener sees as a closed connection, so nobody waits for a taker that does not keep up.
//!
//! Invariant: an order is always answered: with a stream, an error, or by dropping its reply when the
//! connection ends.

use futures::channel::{mpsc, oneshot};
use futures::future::{ready, Ready};
use futures::StreamExt;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::Endpoint;
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialFailure,
    FromSwarm, ListenFailure, NetworkBehaviour, Stream, StreamProtocol, StreamUpgradeError,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Streams of one protocol that wait for its taker; more are reset.
pub(super) const ACCEPT_QUEUE: usize = 256;
/// Orders that wait for one connection's task; beyond it opening fails at once.
const ORDER_QUEUE: usize = 512;

/// Why a stream did not open.
#[derive(Debug)]
pub(super) enum OpenError {
    /// No connection to the peer.
    NotConnected,
    /// Too many opens wait for this connection.
    Busy,
    /// The far side does not know the protocol.
    Unsupported,
    /// The connection ended, or anything else below.
    Io(io::Error),
}

/// An order to the task of a connection.
enum Order {
    Open(Open),
    /// The set of accepted protocols, or of kept peers, has changed: look again (and tell the peer).
    Refresh,
}

struct Open {
    protocol: StreamProtocol,
    limit: Duration,
    reply: oneshot::Sender<Result<Stream, OpenError>>,
}

#[derive(Default)]
struct Inner {
    takers: HashMap<StreamProtocol, async_channel::Sender<(PeerId, Stream)>>,
    /// The keys of `takers`, shared with every connection.
    protocols: Arc<[StreamProtocol]>,
    /// Connections in the order they came up; the newest is used, because an older one to the same peer may
    /// be the dead end that its reboot left behind.
    connections: HashMap<PeerId, Vec<(ConnectionId, mpsc::Sender<Order>)>>,
    /// Connections that the swarm has not confirmed yet.
    unconfirmed: HashMap<ConnectionId, mpsc::Sender<Order>>,
    /// Peers whose connections are never closed for idleness.
    kept: HashSet<PeerId>,
}

/// The meeting point of hosts, connections and takers. Clone is cheap.
#[derive(Clone, Default)]
pub(super) struct Registry(Arc<Mutex<Inner>>);

impl Registry {
    /// Opens a stream on the newest connection to the peer.
    pub(super) async fn open(
        &self,
        peer: PeerId,
        protocol: &'static str,
        limit: Duration,
    ) -> Result<Stream, OpenError> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Open(Open { protocol: StreamProtocol::new(protocol), limit, reply });
        {
            let mut inner = self.0.lock();
            let connection = inner.connections.get_mut(&peer).and_then(|all| all.last_mut());
            let Some((_, orders)) = connection else { return Err(OpenError::NotConnected) };
            orders.try_send(order).map_err(|error| {
                if error.is_full() {
                    OpenError::Busy
                } else {
                    OpenError::NotConnected
                }
            })?;
        }
        answer.await.unwrap_or_else(|_| Err(OpenError::Io(io::ErrorKind::NotConnected.into())))
    }

    /// Becomes the taker of a protocol; `None` when there is one already.
    pub(super) fn accept(&self, protocol: &'static str) -> Option<async_channel::Receiver<(PeerId, Stream)>> {
        let (sender, receiver) = async_channel::bounded(ACCEPT_QUEUE);
        let mut inner = self.0.lock();
        inner.takers.retain(|_, taker| !taker.is_closed());
        let name = StreamProtocol::new(protocol);
        if inner.takers.contains_key(&name) {
            return None;
        }
        inner.takers.insert(name, sender);
        inner.protocols = inner.takers.keys().cloned().collect();
        inner.refresh();
        Some(receiver)
    }

    /// Says whose connections stay open although nothing uses them.
    pub(super) fn keep(&self, peers: &[PeerId]) {
        let mut inner = self.0.lock();
        inner.kept = peers.iter().copied().collect();
        inner.refresh();
    }

    /// Ends every queue to takers, so that they learn that the host is gone.
    pub(super) fn close(&self) {
        let mut inner = self.0.lock();
        inner.takers.clear();
        inner.connections.clear();
        inner.unconfirmed.clear();
    }

    /// The protocols that have a taker.
    pub(super) fn protocols(&self) -> Arc<[StreamProtocol]> {
        self.0.lock().protocols.clone()
    }

    fn deliver(&self, peer: PeerId, protocol: &StreamProtocol, stream: Stream) {
        let taker = self.0.lock().takers.get(protocol).cloned();
        if taker.is_none_or(|taker| taker.try_send((peer, stream)).is_err()) {
            log::debug!(
                "reset a stream of {protocol} from peer {peer}: its taker is gone or does not keep up"
            );
        }
    }
}

impl Inner {
    fn refresh(&mut self) {
        for (_, orders) in self.connections.values_mut().flatten() {
            // A full queue means that the task is awake anyway.
            let _ = orders.try_send(Order::Refresh);
        }
    }
}

/// The behaviour: only bookkeeping of connections; the work is in [`Handler`].
pub(super) struct Behaviour {
    registry: Registry,
}

impl Behaviour {
    /// A behaviour whose streams go through this registry.
    pub(super) fn new(registry: Registry) -> Behaviour {
        Behaviour { registry }
    }

    fn handler(&mut self, connection: ConnectionId, peer: PeerId) -> Handler {
        let (sender, orders) = mpsc::channel(ORDER_QUEUE);
        self.registry.0.lock().unconfirmed.insert(connection, sender);
        Handler { peer, registry: self.registry.clone(), orders }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let mut inner = self.registry.0.lock();
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                if let Some(orders) = inner.unconfirmed.remove(&connection_id) {
                    inner.connections.entry(peer_id).or_default().push((connection_id, orders));
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(all) = inner.connections.get_mut(&peer_id) {
                    all.retain(|(id, _)| *id != connection_id);
                    if all.is_empty() {
                        inner.connections.remove(&peer_id);
                    }
                }
            }
            // Another behaviour refused the connection after we had made a handler for it.
            FromSwarm::DialFailure(DialFailure { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                inner.unconfirmed.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// One connection's end: opens what it is ordered to, hands on what comes in.
pub(super) struct Handler {
    peer: PeerId,
    registry: Registry,
    orders: mpsc::Receiver<Order>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Result<Stream, OpenError>>;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer { protocols: self.registry.protocols() }, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.registry.0.lock().kept.contains(&self.peer)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, Self::OutboundOpenInfo, Infallible>> {
        // A refresh needs nothing but this very poll: the caller compares the protocols afterwards.
        while let Poll::Ready(Some(order)) = self.orders.poll_next_unpin(cx) {
            let Order::Open(open) = order else { continue };
            if open.reply.is_canceled() {
                continue;
            }
            let offer = Offer { protocols: Arc::new([open.protocol]) };
            let protocol = SubstreamProtocol::new(offer, open.reply).with_timeout(open.limit);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Self::OutboundOpenInfo>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => self.registry.deliver(self.peer, &protocol, stream),
            // A reply nobody waits for any more drops the stream, which resets it.
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                info,
            }) => drop(info.send(Ok(stream))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => OpenError::Io(io::ErrorKind::TimedOut.into()),
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                drop(info.send(Err(error)));
            }
            _ => {}
        }
    }
}

/// The protocols offered for one stream; the upgrade is the bare stream and the name agreed on.
pub(super) struct Offer {
    protocols: Arc<[StreamProtocol]>,
}

/// The names of an [`Offer`], without copying the list (it is asked for at every turn of a connection).
pub(super) struct Names {
    protocols: Arc<[StreamProtocol]>,
    next: usize,
}

impl Iterator for Names {
    type Item = StreamProtocol;

    fn next(&mut self) -> Option<StreamProtocol> {
        let name = self.protocols.get(self.next).cloned();
        self.next += 1;
        name
    }
}

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = Names;

    fn protocol_info(&self) -> Names {
        Names { protocols: self.protocols.clone(), next: 0 }
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}
