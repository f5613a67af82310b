//! TCP for libp2p, over async-io.
//!
//! rust-libp2p ships a TCP transport for tokio only, so this is ours: IPv4 and IPv6, names resolved by the
//! system (`/dns`, `/dns4`, `/dns6`, on the blocking pool), and wildcard listeners that report the addresses
//! of the machine's interfaces as they come and go. Every socket is counted ([`Traffic`]).
//!
//! Invariants: a listener never dies of an accept error (a process that is out of file descriptors waits
//! [`ACCEPT_PAUSE`] and goes on accepting); an IPv6 wildcard never takes the IPv4 port too; a dial ends within
//! the limit it was given. Source ports are never reused: that only serves hole punching, which we do not do.

use super::interfaces::{Change, Interfaces};
use async_io::{Async, Timer};
use futures::future::{self, BoxFuture, Ready};
use futures::stream::SelectAll;
use futures::{AsyncRead, AsyncWrite, FutureExt, Stream, StreamExt};
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::Transport;
use libp2p::multiaddr::{Multiaddr, Protocol};
use rustix::net::{sockopt, AddressFamily, SocketFlags, SocketType};
use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Connections the kernel holds for us until we accept them.
const BACKLOG: i32 = 1024;
/// How long a listener rests after the system refused to accept (out of file descriptors, out of memory).
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Addresses of one name that a dial tries, in the resolver's order.
const RESOLVED_MAX: usize = 8;
/// Connections accepted in one go before other listeners and the swarm get their turn.
const ACCEPT_BURST: usize = 32;

/// Bytes that went over all sockets of one host.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// Bytes received and sent since the host started.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }
}

/// One TCP connection that counts its bytes.
pub(super) struct Socket {
    inner: Async<TcpStream>,
    traffic: Arc<Traffic>,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Poll::Ready(Ok(n)) = polled {
            self.traffic.received.fetch_add(n as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = polled {
            self.traffic.sent.fetch_add(n as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// What a multiaddress asks us to dial or to listen on.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Address(SocketAddr),
    Name { name: String, port: u16, family: Option<Family> },
}

/// The IP version that `/dns4` or `/dns6` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Reads `/ip4|ip6|dns|dns4|dns6/…/tcp/…[/p2p/…]`; everything else is not TCP and `None`.
fn target(address: &Multiaddr) -> Option<Target> {
    let mut parts = address.iter();
    let host = parts.next()?;
    let Protocol::Tcp(port) = parts.next()? else { return None };
    match (parts.next(), parts.next()) {
        (None, _) | (Some(Protocol::P2p(_)), None) => {}
        _ => return None,
    }
    let named = |name: &str, family| Target::Name { name: name.to_owned(), port, family };
    Some(match host {
        Protocol::Ip4(ip) => Target::Address((ip, port).into()),
        Protocol::Ip6(ip) => Target::Address((ip, port).into()),
        Protocol::Dns(name) => named(&name, None),
        Protocol::Dns4(name) => named(&name, Some(Family::V4)),
        Protocol::Dns6(name) => named(&name, Some(Family::V6)),
        _ => return None,
    })
}

/// Whether this transport could dial the address (it may still be unreachable).
pub(super) fn is_dialable(address: &Multiaddr) -> bool {
    match target(address) {
        Some(Target::Address(socket)) => {
            socket.port() != 0 && !socket.ip().is_unspecified() && !is_link_local(socket.ip())
        }
        Some(Target::Name { port, .. }) => port != 0,
        None => false,
    }
}

/// Whether this transport can listen on the address.
pub(super) fn is_listenable(address: &Multiaddr) -> bool {
    matches!(target(address), Some(Target::Address(_)))
}

/// Whether the address leads back to this machine only.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

/// IPv6 link-local addresses mean nothing without an interface, which a multiaddress cannot say.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn multiaddr(ip: IpAddr, port: u16) -> Multiaddr {
    Multiaddr::empty().with(ip.into()).with(Protocol::Tcp(port))
}

/// What the transport tells the swarm.
type Event = TransportEvent<Ready<io::Result<Socket>>, io::Error>;

/// The transport: any number of listeners, and dials that each run on their own.
pub(super) struct Tcp {
    listeners: SelectAll<Listener>,
    /// Events that happened while binding.
    pending: VecDeque<Event>,
    waker: Option<Waker>,
    dial_limit: Duration,
    traffic: Arc<Traffic>,
}

impl Tcp {
    /// A transport whose dials give up after `dial_limit`.
    pub(super) fn new(dial_limit: Duration, traffic: Arc<Traffic>) -> Tcp {
        Tcp { listeners: SelectAll::new(), pending: VecDeque::new(), waker: None, dial_limit, traffic }
    }
}

/// Binds and listens. Done by hand because an IPv6 wildcard must leave the IPv4 port alone
/// (`/ip4/0.0.0.0/tcp/9096` beside `/ip6/::/tcp/9096` is a common configuration).
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // On Linux this only ignores connections that linger from a previous run; a live listener still conflicts.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Why a name that other programs on this machine know has no address here: static executables are linked to musl, which
/// reads `/etc/hosts` and asks DNS, but nobody who answers for the names of a home network.
fn not_asked(name: &str) -> &'static str {
    let home = name.trim_end_matches('.').to_ascii_lowercase().ends_with(".local");
    match cfg!(target_env = "musl") && home {
        true => {
            ", as pinfold asks only /etc/hosts and DNS, which know no names in .local: use the IP address"
        }
        false => "",
    }
}

async fn connect(target: Target, limit: Duration, traffic: Arc<Traffic>) -> io::Result<Socket> {
    let work = async {
        let addresses: Vec<SocketAddr> = match target {
            Target::Address(address) => vec![address],
            Target::Name { name, port, family } => {
                let asked = name.clone();
                let resolved =
                    crate::runtime::unblock(move || (asked.as_str(), port).to_socket_addrs()).await;
                // The system's words name neither the name nor what to do, and their kind is none of its own.
                let resolved = resolved.map_err(|error| {
                    let words = format!("the name {name} has no address ({error}){}", not_asked(&name));
                    io::Error::new(io::ErrorKind::NotFound, words)
                })?;
                resolved
                    .filter(|a| family.is_none_or(|f| a.is_ipv4() == (f == Family::V4)))
                    .take(RESOLVED_MAX)
                    .collect()
            }
        };
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match Async::<TcpStream>::connect(address).await {
                Ok(inner) => {
                    inner.get_ref().set_nodelay(true)?;
                    return Ok(Socket { inner, traffic });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    };
    smol::future::or(work, async {
        Timer::after(limit).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))
    })
    .await
}

impl Transport for Tcp {
    type Output = Socket;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Socket>>;
    type Dial = BoxFuture<'static, io::Result<Socket>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let Some(Target::Address(wanted)) = target(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let listener = Listener::bind(id, wanted, self.traffic.clone()).map_err(TransportError::Other)?;
        for ip in &listener.reported {
            let listen_addr = multiaddr(*ip, listener.port);
            self.pending.push_back(TransportEvent::NewAddress { listener_id: id, listen_addr });
        }
        self.listeners.push(listener);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        match self.listeners.iter_mut().find(|l| l.id == id && !l.closed) {
            Some(listener) => {
                listener.close();
                true
            }
            None => false,
        }
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        match target(&address) {
            Some(target) if is_dialable(&address) => {
                Ok(connect(target, self.dial_limit, self.traffic.clone()).boxed())
            }
            _ => Err(TransportError::MultiaddrNotSupported(address)),
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(event) = self.pending.pop_front() {
            return Poll::Ready(event);
        }
        if let Poll::Ready(Some(event)) = self.listeners.poll_next_unpin(cx) {
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One bound socket. As a stream it yields events until it is closed.
struct Listener {
    id: ListenerId,
    port: u16,
    v4: bool,
    socket: Async<TcpListener>,
    /// Present on wildcard listeners: tells which addresses the wildcard means.
    watcher: Option<Interfaces>,
    /// Addresses the swarm knows of.
    reported: HashSet<IpAddr>,
    pause: Option<Timer>,
    burst: usize,
    closed: bool,
    farewell: bool,
    waker: Option<Waker>,
    traffic: Arc<Traffic>,
}

impl Listener {
    fn bind(id: ListenerId, wanted: SocketAddr, traffic: Arc<Traffic>) -> io::Result<Listener> {
        let socket = Async::new_nonblocking(bind(wanted)?)?;
        let bound = socket.get_ref().local_addr()?;
        let mut reported = HashSet::new();
        let mut watcher = None;
        if bound.ip().is_unspecified() {
            match Interfaces::new() {
                Ok(started) => watcher = Some(started),
                // Sandboxes may forbid netlink. Listening works all the same; only changes go unnoticed.
                Err(error) => {
                    log::warn!("cannot watch the network interfaces ({error}); addresses that change later are not noticed");
                    reported.extend(addresses_without_netlink(bound.is_ipv4()));
                }
            }
        } else {
            reported.insert(bound.ip());
        }
        Ok(Listener {
            id,
            port: bound.port(),
            v4: bound.is_ipv4(),
            socket,
            watcher,
            reported,
            pause: None,
            burst: 0,
            closed: false,
            farewell: false,
            waker: None,
            traffic,
        })
    }

    fn close(&mut self) {
        self.closed = true;
        self.farewell = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The next change of the interfaces that concerns this listener.
    fn poll_interfaces(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let (listener_id, port) = (self.id, self.port);
        while let Some(watcher) = &mut self.watcher {
            let Poll::Ready(change) = watcher.poll(cx) else { break };
            match change {
                Ok(Change::Came(ip)) => {
                    if ip.is_ipv4() == self.v4 && !is_link_local(ip) && self.reported.insert(ip) {
                        let listen_addr = multiaddr(ip, port);
                        return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr });
                    }
                }
                Ok(Change::Went(ip)) => {
                    if self.reported.remove(&ip) {
                        let listen_addr = multiaddr(ip, port);
                        return Poll::Ready(TransportEvent::AddressExpired { listener_id, listen_addr });
                    }
                }
                Err(error) => {
                    self.pause = Some(Timer::after(ACCEPT_PAUSE));
                    return Poll::Ready(TransportEvent::ListenerError { listener_id, error });
                }
            }
        }
        Poll::Pending
    }

    /// The next connection, or the reason why there is none just now.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let listener_id = self.id;
        loop {
            // The plain accept plus readiness needs no future that borrows the socket.
            match self.socket.get_ref().accept() {
                Ok((stream, remote)) => {
                    let incoming = self.incoming(stream, remote);
                    return Poll::Ready(
                        incoming.unwrap_or_else(|error| TransportEvent::ListenerError { listener_id, error }),
                    );
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.socket.poll_readable(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return self.rest(error),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted
                            | io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::ConnectionReset
                    ) => {}
                Err(error) => return self.rest(error),
            }
        }
    }

    fn incoming(&self, stream: TcpStream, remote: SocketAddr) -> io::Result<Event> {
        let local = stream.local_addr()?;
        stream.set_nodelay(true)?;
        let socket = Socket { inner: Async::new(stream)?, traffic: self.traffic.clone() };
        Ok(TransportEvent::Incoming {
            listener_id: self.id,
            upgrade: future::ok(socket),
            local_addr: multiaddr(local.ip(), local.port()),
            send_back_addr: multiaddr(remote.ip(), remote.port()),
        })
    }

    /// Reports the error and leaves the socket alone for a moment, else the loop would spin.
    fn rest(&mut self, error: io::Error) -> Poll<Event> {
        self.pause = Some(Timer::after(ACCEPT_PAUSE));
        Poll::Ready(TransportEvent::ListenerError { listener_id: self.id, error })
    }
}

impl Stream for Listener {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        if this.farewell {
            this.farewell = false;
            return Poll::Ready(Some(TransportEvent::ListenerClosed {
                listener_id: this.id,
                reason: Ok(()),
            }));
        }
        if this.closed {
            return Poll::Ready(None);
        }
        this.waker = Some(cx.waker().clone());
        if let Some(pause) = &mut this.pause {
            if Pin::new(pause).poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.pause = None;
        }
        if let Poll::Ready(event) = this.poll_interfaces(cx) {
            return Poll::Ready(Some(event));
        }
        if this.burst >= ACCEPT_BURST {
            this.burst = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match this.poll_accept(cx) {
            Poll::Ready(event) => {
                this.burst += 1;
                Poll::Ready(Some(event))
            }
            Poll::Pending => {
                this.burst = 0;
                Poll::Pending
            }
        }
    }
}

/// Loopback, and the address that a packet to the outside would leave from, if there is a way out.
fn addresses_without_netlink(v4: bool) -> Vec<IpAddr> {
    // Addresses reserved for documentation: nothing is ever sent there, only the route is looked up.
    let (loopback, any, outside): (IpAddr, IpAddr, IpAddr) = if v4 {
        (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
    } else {
        let outside = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into(), outside.into())
    };
    let route = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((outside, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    let mut all = vec![loopback];
    all.extend(route().ok().filter(|ip| *ip != loopback && !ip.is_unspecified() && !is_link_local(*ip)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect(text)
    }

    #[test]
    fn only_tcp_addresses_are_targets() {
        let name = |family| Some(Target::Name { name: "pi.local".into(), port: 9096, family });
        assert_eq!(target(&address("/ip4/10.0.0.1/tcp/1")), Some(Target::Address(([10, 0, 0, 1], 1).into())));
        assert_eq!(
            target(&address("/ip6/::1/tcp/1")),
            Some(Target::Address((Ipv6Addr::LOCALHOST, 1).into()))
        );
        assert_eq!(target(&address("/dns/pi.local/tcp/9096")), name(None));
        assert_eq!(target(&address("/dns4/pi.local/tcp/9096")), name(Some(Family::V4)));
        assert_eq!(target(&address("/dns6/pi.local/tcp/9096")), name(Some(Family::V6)));
        let peer = libp2p::PeerId::random();
        assert!(target(&address(&format!("/dns/pi.local/tcp/9096/p2p/{peer}"))).is_some());
        for other in [
            "/ip4/10.0.0.1",
            "/ip4/10.0.0.1/udp/1/quic-v1",
            "/ip4/10.0.0.1/tcp/1/ws",
            "/dnsaddr/pi.local/tcp/1",
            "/unix/socket",
            "/tcp/1/ip4/10.0.0.1",
        ] {
            assert_eq!(target(&address(other)), None, "{other}");
        }
        assert_eq!(target(&address(&format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit"))), None);
    }

    #[test]
    fn what_cannot_be_reached_is_not_dialled() {
        for good in ["/ip4/127.0.0.1/tcp/1", "/ip6/2001:db8::1/tcp/1", "/dns/a/tcp/1"] {
            assert!(is_dialable(&address(good)), "{good}");
        }
        for bad in [
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::/tcp/1",
            "/ip4/10.0.0.1/tcp/0",
            "/ip6/fe80::1/tcp/1",
            "/dns/a/tcp/0",
        ] {
            assert!(!is_dialable(&address(bad)), "{bad}");
        }
        assert!(is_listenable(&address("/ip4/0.0.0.0/tcp/0")) && !is_listenable(&address("/dns/a/tcp/0")));
        assert!(is_loopback(&address("/ip6/::1/tcp/1")) && !is_loopback(&address("/ip4/10.0.0.1/tcp/1")));
    }

    #[test]
    fn without_netlink_loopback_is_still_known() {
        assert!(addresses_without_netlink(true).contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(addresses_without_netlink(false).iter().all(IpAddr::is_ipv6));
    }

    #[test]
    fn a_dial_to_nowhere_ends_within_its_limit() {
        crate::runtime::block_on(async {
            // A listener whose backlog is full swallows further connections in silence.
            let socket =
                rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                    .expect("socket");
            rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("bind");
            rustix::net::listen(&socket, 0).expect("listen");
            let listener = TcpListener::from(socket);
            let address = listener.local_addr().expect("address");
            let mut held = Vec::new();
            for _ in 0..4 {
                let limit = Duration::from_millis(100);
                match connect(Target::Address(address), limit, Arc::default()).await {
                    Ok(socket) => held.push(socket),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                        return;
                    }
                }
            }
            panic!("the backlog was never full");
        });
    }

    #[test]
    fn traffic_is_counted_and_a_closed_listener_says_goodbye() {
        crate::runtime::block_on(async {
            let traffic = Arc::new(Traffic::default());
            let mut transport = Tcp::new(Duration::from_secs(5), traffic.clone());
            let id = ListenerId::next();
            transport.listen_on(id, address("/ip4/127.0.0.1/tcp/0")).expect("listen");
            macro_rules! next {
                () => {
                    future::poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await
                };
            }
            let TransportEvent::NewAddress { listen_addr, .. } = next!() else { panic!("no address") };
            let port = listen_addr.iter().find_map(|p| if let Protocol::Tcp(p) = p { Some(p) } else { None });
            let mut client = TcpStream::connect(("127.0.0.1", port.expect("port"))).expect("connect");
            let TransportEvent::Incoming { upgrade, .. } = next!() else { panic!("nobody came") };
            let mut socket = upgrade.await.expect("socket");
            io::Write::write_all(&mut client, b"hello").expect("write");
            let mut buffer = [0; 5];
            futures::AsyncReadExt::read_exact(&mut socket, &mut buffer).await.expect("read");
            futures::AsyncWriteExt::write_all(&mut socket, b"hi").await.expect("write");
            assert_eq!(traffic.totals(), (5, 2));
            assert!(transport.remove_listener(id) && !transport.remove_listener(id));
            assert!(matches!(next!(), TransportEvent::ListenerClosed { reason: Ok(()), .. }));
        });
    }
}
