//! Multiaddresses as sockets: what can be bound, and what can be dialled.
//!
//! Configuration speaks in multiaddresses; the servers bind [`SocketAddr`]s. Only plain TCP is understood
//! (`/ip4|ip6|dns|dns4|dns6/…/tcp/<port>`), and everything else is named in the error.

use crate::error::{Error, Result};
use libp2p::multiaddr::Protocol;
use libp2p::Multiaddr;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// Host and port of a TCP multiaddress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// IP address (without brackets) or DNS name.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl HostPort {
    /// The IP address, when the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.ip().map_or(self.host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
    }

    /// Where a client on this machine reaches a server that listens here: one that listens on all addresses
    /// is asked on loopback.
    #[must_use]
    pub fn for_client(&self) -> Self {
        let host = match self.ip() {
            Some(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1".into(),
            Some(IpAddr::V6(ip)) if ip.is_unspecified() => "::1".into(),
            _ => self.host.clone(),
        };
        HostPort { host, port: self.port }
    }

    /// `host:port`, with brackets around IPv6.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Reads `/ip4/…/tcp/…` and its like; whatever follows the port is left to the caller.
pub fn host_port(address: &Multiaddr) -> Option<HostPort> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => ip.to_string(),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(HostPort { host, port }),
        _ => None,
    }
}

/// Whether it is a TCP address.
pub fn is_tcp(address: &Multiaddr) -> bool {
    host_port(address).is_some()
}

/// The sockets that the addresses of a key stand for. Blocks while a DNS name is resolved.
///
/// # Errors
/// Names the key, the address and what would be right.
pub fn socket_addresses(key: &str, addresses: &[Multiaddr]) -> Result<Vec<SocketAddr>> {
    let mut sockets = Vec::new();
    for address in addresses {
        let target = host_port(address).ok_or_else(|| not_tcp(key, address))?;
        match target.ip() {
            Some(ip) => sockets.push(SocketAddr::new(ip, target.port)),
            None => {
                let found = (target.host.as_str(), target.port).to_socket_addrs().map_err(|e| {
                    Error::invalid(format!(
                        "{key} is \"{address}\", but the name {} has no address: {e}; use an IP address",
                        target.host
                    ))
                })?;
                sockets.extend(found);
            }
        }
    }
    sockets.dedup();
    Ok(sockets)
}

/// The sentence for an address of another kind.
pub(super) fn not_tcp(key: &str, address: &Multiaddr) -> Error {
    Error::invalid(format!(
        "{key} is \"{address}\", which is not a TCP address; write it like \"/ip4/127.0.0.1/tcp/9094\""
    ))
}

/// The same address with another TCP port.
pub(super) fn with_port(address: &Multiaddr, port: u16) -> Multiaddr {
    address
        .iter()
        .map(|part| match part {
            Protocol::Tcp(_) => Protocol::Tcp(port),
            // The port of the unused QUIC address follows, or the file would show two different ones.
            Protocol::Udp(_) => Protocol::Udp(port),
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().expect(text)
    }

    #[test]
    fn tcp_addresses_become_sockets() {
        let found = socket_addresses("k", &[addr("/ip4/127.0.0.1/tcp/9094"), addr("/ip6/::1/tcp/1")]);
        let found: Vec<String> = found.expect("sockets").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.1:9094", "[::1]:1"]);
        assert!(socket_addresses("k", &[addr("/dns4/localhost/tcp/80")]).is_ok());
        let error = socket_addresses("api.x", &[addr("/ip4/0.0.0.0/udp/9096/quic")]).expect_err("udp");
        assert!(error.message().contains("api.x is \"/ip4/0.0.0.0/udp/9096/quic\""), "{error}");
    }

    #[test]
    fn loopback_is_known() {
        for (text, local) in [
            ("/ip4/127.0.0.1/tcp/1", true),
            ("/ip6/::1/tcp/1", true),
            ("/dns4/localhost/tcp/1", true),
            ("/ip4/0.0.0.0/tcp/1", false),
            ("/dns4/example.org/tcp/1", false),
        ] {
            assert_eq!(host_port(&addr(text)).expect(text).is_loopback(), local, "{text}");
        }
        assert_eq!(host_port(&addr("/ip6/::1/tcp/5")).expect("six").authority(), "[::1]:5");
        let everywhere = host_port(&addr("/ip4/0.0.0.0/tcp/5")).expect("four");
        assert_eq!(everywhere.for_client().authority(), "127.0.0.1:5");
        assert_eq!(host_port(&addr("/ip6/::/tcp/5")).expect("six").for_client().authority(), "[::1]:5");
    }
}
