//! Where IPFS daemons listen, and connections to them: several addresses stand for one daemon.
//!
//! The list exists for composite clusters: the "daemon" is a whole lower cluster, and each address is the proxy
//! of one of its peers. Whichever was reached last is tried first, the others follow in their order, so that
//! a peer that dies costs one refused connection and nobody above sees it. With one address it is nothing but a dial.
//!
//! It must never: wait for an address without a limit, or give up while another address is untried.

use crate::error::{Error, Kind, Result};
use crate::runtime;
use futures_rustls::rustls::pki_types::ServerName;
use futures_rustls::TlsConnector;
use libp2p::{multiaddr::Protocol, Multiaddr};
use rustix::net::sockopt;
use smol::io::{AsyncRead, AsyncWrite};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// A connection must be made within this time, its TLS handshake included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// With other addresses to try, one that is silent gets only this long.
const NEXT_AFTER: Duration = Duration::from_secs(2);
/// A silent connection is probed after this long: a daemon on another machine that lost power says no goodbye.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection, whatever is underneath.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// How one address is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// One address of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    way: Way,
    /// As configured, for sentences.
    pub shown: String,
    /// `Host` header.
    pub authority: String,
}

/// The addresses of one daemon.
pub struct Dialer {
    targets: Vec<Target>,
    /// The address that is tried first: where the last connection was made.
    first: AtomicUsize,
    tls: Option<TlsConnector>,
}

impl Dialer {
    /// The addresses of the config's `key`; `https` for TLS on all of them, trusted as this machine trusts.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming the key and the address that cannot be used.
    pub fn new(key: &str, nodes: &[Multiaddr], https: bool) -> Result<Dialer> {
        let targets = nodes.iter().map(|node| target(key, node)).collect::<Result<Vec<_>>>()?;
        if targets.is_empty() {
            return Err(Error::invalid(format!(
                "{key} is empty; give the address of the IPFS daemon's API, like /ip4/127.0.0.1/tcp/5001"
            )));
        }
        let tls = match https {
            true => {
                let config = crate::trust::config(true).map_err(|e| Error::invalid(format!("{key}: {e}")))?;
                Some(TlsConnector::from(Arc::new(config)))
            }
            false => None,
        };
        Ok(Dialer { targets, first: AtomicUsize::new(0), tls })
    }

    /// The address that would be tried first.
    pub fn current(&self) -> &Target {
        &self.targets[self.first.load(Ordering::Relaxed) % self.targets.len()]
    }

    /// All addresses in one line, for sentences.
    pub fn shown(&self) -> String {
        self.targets.iter().map(|t| t.shown.as_str()).collect::<Vec<_>>().join(" and ")
    }

    /// The address did not behave: the next one is tried first from now on.
    pub fn blame(&self, target: &Target) {
        let at = self.targets.iter().position(|t| t == target).unwrap_or(0);
        let next = (at + 1) % self.targets.len();
        let _ = self.first.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A connection to the first address that gives one.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] with the reason of every address.
    pub async fn connect(&self) -> Result<(Box<dyn Socket>, &Target)> {
        let (start, count) = (self.first.load(Ordering::Relaxed), self.targets.len());
        let mut failures = Vec::new();
        for step in 0..count {
            let at = (start + step) % count;
            let target = &self.targets[at];
            let limit = if step + 1 < count { NEXT_AFTER } else { CONNECT_TIMEOUT };
            match runtime::timeout(limit, "a connection", self.open(target)).await {
                Ok(socket) => {
                    if step > 0 {
                        log::info!(target: "ipfshttp", "{}; going on at {}", failures.join("; "), target.shown);
                        self.first.store(at, Ordering::Relaxed);
                    }
                    return Ok((socket, target));
                }
                Err(error) => {
                    let why = match error.kind() {
                        Kind::Timeout => format!("no connection within {limit:?}"),
                        _ => error.message().to_owned(),
                    };
                    failures.push(format!("the IPFS daemon at {} does not answer: {why}", target.shown));
                }
            }
        }
        Err(Error::unavailable(format!("{}; is it running?", failures.join("; "))))
    }

    async fn open(&self, target: &Target) -> Result<Box<dyn Socket>> {
        let why = |error: std::io::Error| {
            Error::unavailable(match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_string(),
                _ => error.to_string(),
            })
        };
        let (host, port) = match &target.way {
            Way::Tcp(host, port) => (host.as_str(), *port),
            Way::Unix(path) => {
                return Ok(Box::new(smol::net::unix::UnixStream::connect(path).await.map_err(why)?))
            }
        };
        let stream = smol::net::TcpStream::connect((host, port)).await.map_err(why)?;
        // Requests are small and wait for their answer.
        stream.set_nodelay(true).map_err(why)?;
        // Best effort: without it a lost machine is only noticed when something is sent.
        let _ = sockopt::set_socket_keepalive(&stream, true);
        let _ = sockopt::set_tcp_keepidle(&stream, KEEPALIVE);
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| Error::invalid(format!("{host:?} is no name for a certificate: {e}")))?;
        Ok(Box::new(tls.connect(name, stream).await.map_err(why)?))
    }
}

fn target(key: &str, node: &Multiaddr) -> Result<Target> {
    let bad = |why: &str| {
        Error::invalid(format!(
            "{key}: {node} {why}; use an address like /ip4/127.0.0.1/tcp/5001, /dns4/kubo/tcp/5001 or \
             /unix/run/kubo.sock"
        ))
    };
    let mut parts = node.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.to_string(),
        Some(Protocol::Ip6(ip)) => ip.to_string(),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => name.to_string(),
        Some(Protocol::Unix(path)) => {
            let path = PathBuf::from(format!("/{}", path.trim_start_matches('/')));
            return Ok(Target { way: Way::Unix(path), shown: node.to_string(), authority: "localhost".into() });
        }
        _ => return Err(bad("does not begin with an IP address, a name or a socket")),
    };
    let Some(Protocol::Tcp(port)) = parts.next() else {
        return Err(bad("has no TCP port"));
    };
    match parts.next() {
        None | Some(Protocol::Http) => {}
        Some(Protocol::Https) => return Err(bad("asks for https, which is not said in the address")),
        Some(_) => return Err(bad("continues after the port")),
    }
    let authority = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    Ok(Target { way: Way::Tcp(host, port), shown: node.to_string(), authority })
}

#[cfg(test)]
mod unit {
    use super::*;
    use std::net::TcpListener;

    const KEY: &str = "ipfs_connector.ipfshttp.node_multiaddress";

    fn dialer(nodes: &[String]) -> Dialer {
        let nodes: Vec<Multiaddr> = nodes.iter().map(|n| n.parse().expect("address")).collect();
        Dialer::new(KEY, &nodes, false).expect("dialer")
    }

    #[test]
    fn addresses_are_read_or_refused_with_the_fix() {
        let read = |text: &str| target(KEY, &text.parse().expect(text));
        let got = read("/ip4/127.0.0.1/tcp/5001").expect("ip4");
        assert_eq!((got.way, got.authority), (Way::Tcp("127.0.0.1".into(), 5001), "127.0.0.1:5001".into()));
        assert_eq!(read("/ip6/::1/tcp/5001").expect("ip6").authority, "[::1]:5001");
        assert_eq!(read("/dns4/kubo/tcp/80/http").expect("dns").authority, "kubo:80");
        let got = read("/unix/run%2Fkubo.sock").or_else(|_| read("/unix//run/kubo.sock")).expect("unix");
        assert!(matches!(got.way, Way::Unix(_)));
        for bad in ["/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/5001", "/ip4/1.2.3.4/tcp/1/https", "/tcp/5001"] {
            let error = read(bad).expect_err(bad);
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(
                error.message().contains("node_multiaddress") && error.message().contains(bad),
                "{error}"
            );
        }
        assert_eq!(Dialer::new(KEY, &[], false).err().expect("empty").kind(), Kind::Invalid);
    }

    #[test]
    fn the_next_address_takes_over_and_is_kept() {
        let (dead, alive) = (TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0"));
        let at = |l: &std::io::Result<TcpListener>| {
            format!("/ip4/127.0.0.1/tcp/{}", l.as_ref().expect("bound").local_addr().expect("address").port())
        };
        let nodes = [at(&dead), at(&alive)];
        drop(dead);
        let dialer = dialer(&nodes);
        runtime::block_on(async {
            let (_, target) = dialer.connect().await.expect("the second");
            assert_eq!(target.shown, nodes[1]);
            assert_eq!(dialer.current().shown, nodes[1], "tried first from now on");
            drop(alive);
            let error = dialer.connect().await.err().expect("both are down");
            assert_eq!(error.kind(), Kind::Unavailable);
            assert!(nodes.iter().all(|n| error.message().contains(n)), "{error}");
            assert!(error.message().ends_with("connection refused; is it running?"), "{error}");
        });
    }

    #[test]
    fn an_address_that_misbehaves_makes_way() {
        let dialer = dialer(&["/ip4/127.0.0.1/tcp/1".into(), "/ip4/127.0.0.1/tcp/2".into()]);
        let first = dialer.current().clone();
        dialer.blame(&first);
        assert_ne!(*dialer.current(), first);
        // A second complaint about the same address must not bring it back.
        dialer.blame(&first);
        assert_ne!(*dialer.current(), first);
    }
}
