//! Listening sockets for the served APIs: from address text to a bound, non-blocking socket or a sentence.
//!
//! Addresses are those of ipfs-cluster's config: `/ip4/…/tcp/…`, `/ip6/…/tcp/…`, `/dns…/name/tcp/…` and
//! `/unix/path`. An IPv6 socket takes IPv6 only, so that the same port may be given for both families,
//! as in Go. A name must resolve when the daemon starts; its first address that can be bound is used.

use crate::error::{Error, Result};
use crate::runtime;
use async_io::Async;
use rustix::net::{bind, listen, socket_with, sockopt, AddressFamily, SocketFlags, SocketType};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Connections the kernel keeps waiting for us. (It clamps the number to its own limit.)
pub(super) const BACKLOG: i32 = 1024;

/// An address to listen on, as written in the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address.
    Ip(IpAddr, u16),
    /// A name that is resolved when the socket is opened.
    Dns(String, u16),
    /// A path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Parses a multiaddress.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] naming the text and the forms that are understood.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!(
                "\"{text}\" is not an address to listen on; write it like \"/ip4/127.0.0.1/tcp/9094\", \
                 \"/ip6/::1/tcp/9094\", \"/dns4/localhost/tcp/9094\" or \"/unix/run/pinfold.sock\""
            ))
        };
        if let Some(path) = text.strip_prefix("/unix/") {
            return if path.is_empty() {
                Err(bad())
            } else {
                Ok(ListenAddress::Unix(Path::new("/").join(path)))
            };
        }
        let parts: Vec<&str> = text.split('/').collect();
        let ["", protocol, host, "tcp", port] = parts.as_slice() else { return Err(bad()) };
        let port = port.parse().map_err(|_| bad())?;
        let ip: Option<IpAddr> = host.parse().ok();
        match (*protocol, ip) {
            ("ip4", Some(ip @ IpAddr::V4(_))) | ("ip6", Some(ip @ IpAddr::V6(_))) => {
                Ok(ListenAddress::Ip(ip, port))
            }
            ("dns" | "dns4" | "dns6", _) if !host.is_empty() => Ok(ListenAddress::Dns((*host).into(), port)),
            _ => Err(bad()),
        }
    }
}

/// A bound socket.
#[derive(Debug)]
pub(super) enum Listener {
    /// TCP.
    Tcp(Async<TcpListener>),
    /// Unix; the path is removed when the server ends.
    Unix(Async<UnixListener>, PathBuf),
}

/// An accepted connection.
#[derive(Debug)]
pub(super) enum Socket {
    /// TCP.
    Tcp(Async<TcpStream>),
    /// Unix.
    Unix(Async<UnixStream>),
}

impl Listener {
    /// Opens the socket for `what` (`REST API`).
    pub(super) async fn open(text: &str, what: &str) -> Result<Listener> {
        let address = ListenAddress::parse(text).map_err(|e| e.context(what))?;
        let (text, what) = (text.to_owned(), what.to_owned());
        runtime::unblock(move || {
            let listener = match address {
                ListenAddress::Ip(ip, port) => tcp(SocketAddr::new(ip, port)),
                ListenAddress::Dns(name, port) => named(&name, port),
                ListenAddress::Unix(path) => unix(path),
            };
            listener.map_err(|e| explain(&text, &what, &e))
        })
        .await
    }

    /// The next connection and where it comes from.
    pub(super) async fn accept(&self) -> std::io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, remote) = listener.accept().await?;
                // Answers are written whole: waiting to fill a segment only adds delay.
                let _ = socket.get_ref().set_nodelay(true);
                Ok((Socket::Tcp(socket), Some(remote)))
            }
            Listener::Unix(listener, _) => Ok((Socket::Unix(listener.accept().await?.0), None)),
        }
    }

    /// The address that was really bound; `None` for a Unix socket.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.get_ref().local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// The same as a multiaddress.
    pub(super) fn multiaddr(&self) -> String {
        match (self, self.local_addr()) {
            (Listener::Unix(_, path), _) => format!("/unix{}", path.display()),
            (_, Some(SocketAddr::V4(a))) => format!("/ip4/{}/tcp/{}", a.ip(), a.port()),
            (_, Some(SocketAddr::V6(a))) => format!("/ip6/{}/tcp/{}", a.ip(), a.port()),
            (_, None) => String::new(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn tcp(address: SocketAddr) -> std::io::Result<Listener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A restart must not wait for the old connections' TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(Listener::Tcp(Async::new(TcpListener::from(socket))?))
}

fn named(name: &str, port: u16) -> std::io::Result<Listener> {
    let mut last = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (name, port).to_socket_addrs()? {
        match tcp(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unix(path: PathBuf) -> std::io::Result<Listener> {
    // A socket file that nobody answers on is what a killed daemon left behind.
    let stale = std::fs::symlink_metadata(&path).is_ok_and(|m| m.file_type().is_socket())
        && UnixStream::connect(&path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
    if stale {
        std::fs::remove_file(&path)?;
    }
    Ok(Listener::Unix(Async::new(UnixListener::bind(&path)?)?, path))
}

fn explain(text: &str, what: &str, error: &std::io::Error) -> Error {
    let fix = match error.kind() {
        ErrorKind::AddrInUse => {
            "another program has it; stop that program or choose another port in service.json"
        }
        ErrorKind::AddrNotAvailable => "this machine does not have that address; correct it in service.json",
        ErrorKind::PermissionDenied => "this user may not open it; choose a port above 1023 in service.json",
        _ => "correct the address in service.json",
    };
    let error = Error::from_io(format!("cannot listen on {text} for the {what}"), error);
    Error::new(error.kind(), format!("{}: {fix}", error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_config_are_understood_and_others_refused() {
        let parse = ListenAddress::parse;
        assert_eq!(
            parse("/ip4/127.0.0.1/tcp/9094").expect("ip4"),
            ListenAddress::Ip(IpAddr::from([127, 0, 0, 1]), 9094)
        );
        assert_eq!(parse("/dns4/localhost/tcp/0").expect("dns"), ListenAddress::Dns("localhost".into(), 0));
        assert_eq!(parse("/unix/run/x.sock").expect("unix"), ListenAddress::Unix("/run/x.sock".into()));
        for bad in ["", "/", "/unix/", "/ip4/::1/tcp/1", "/ip6/127.0.0.1/tcp/1", "/ip4/1.2.3.4/udp/1"] {
            let error = parse(bad).expect_err(bad);
            assert!(error.message().contains(&format!("\"{bad}\"")), "{error}");
        }
        for bad in ["/ip4/1.2.3.4/tcp/65536", "/ip4/1.2.3.4/tcp", "127.0.0.1:80", "/ip4/1.2.3.4/tcp/1/ws"] {
            parse(bad).expect_err(bad);
        }
    }

    #[test]
    fn a_taken_port_says_so() {
        runtime::block_on(async {
            let first = Listener::open("/ip4/127.0.0.1/tcp/0", "REST API").await.expect("bind");
            let error = Listener::open(&first.multiaddr(), "REST API").await.expect_err("taken");
            assert!(error.message().contains("another program has it"), "{error}");
            assert!(error.message().contains(&first.multiaddr()), "{error}");
        });
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("dir");
        let text = format!("/unix{}/api.sock", dir.path().display());
        let path = dir.path().join("api.sock");
        drop(UnixListener::bind(&path).expect("stale"));
        runtime::block_on(async {
            let live = Listener::open(&text, "REST API").await.expect("stale one replaced");
            Listener::open(&text, "REST API").await.expect_err("live one kept");
            drop(live);
            assert!(!path.exists());
        });
    }
}
