//! Ports for a fresh folder: the default ones where they are free, others where they are taken.
//!
//! Two peers on one machine, or a peer beside Kubo, must start without anybody reading about ports. A port
//! is tried by binding it and letting go; between that and the real start another process can take it, in
//! which case the start fails with its own sentence. Only ever done for a configuration that was just made.

use super::address::{host_port, with_port, HostPort};
use super::keys::IpfsSection;
use super::Config;
use crate::error::{Error, Result};
use libp2p::Multiaddr;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{TcpListener, ToSocketAddrs};

/// How many ports above a taken default are tried before the system is asked for any free one. Near ones
/// are easier to remember.
const NEAR: u16 = 20;

/// A port that was not the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortChange {
    /// The key that was changed.
    pub key: &'static str,
    /// The port it had.
    pub from: u16,
    /// The port it has.
    pub to: u16,
    /// Why, as a half sentence.
    pub why: String,
}

impl std::fmt::Display for PortChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} uses port {} instead of {}: {}", self.key, self.to, self.from, self.why)
    }
}

/// The keys with ports of ours, and their addresses.
fn listeners(config: &mut Config) -> Vec<(&'static str, &mut Vec<Multiaddr>)> {
    let mut all = vec![("cluster.listen_multiaddress", &mut config.cluster.listen_multiaddress)];
    if let Some(api) = &mut config.restapi {
        all.push(("api.restapi.http_listen_multiaddress", &mut api.http_listen_multiaddress));
    }
    if let Some(api) = &mut config.ipfsproxy {
        all.push(("api.ipfsproxy.listen_multiaddress", &mut api.listen_multiaddress));
    }
    if let Some(api) = &mut config.pinsvcapi {
        all.push(("api.pinsvcapi.http_listen_multiaddress", &mut api.http_listen_multiaddress));
    }
    if let IpfsSection::Embedded(node) = &mut config.ipfs {
        all.push(("ipfs_connector.embedded.listen_multiaddress", &mut node.listen_multiaddress));
    }
    all
}

/// Tries to bind every address at this port; the error of the first that is taken.
fn try_bind(hosts: &[HostPort], port: u16) -> std::io::Result<()> {
    let no_ipv6 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    for target in hosts {
        for socket in (target.host.as_str(), port).to_socket_addrs()? {
            // Closed again at once: 0.0.0.0 and :: would else be counted as taken by each other.
            match TcpListener::bind(socket) {
                Ok(_) => {}
                // A machine without IPv6 (or without that address) says nothing about the port.
                Err(e) if e.kind() == ErrorKind::AddrNotAvailable || e.raw_os_error() == Some(no_ipv6) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// A port that the system gives, free for all the hosts and not in `used`.
fn any_free(hosts: &[HostPort], used: &BTreeSet<u16>) -> Result<u16> {
    const ATTEMPTS: usize = 50;
    for _ in 0..ATTEMPTS {
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).map(|a| a.port());
        let port = port.map_err(|e| Error::from_io("asking the system for a free port", &e))?;
        if !used.contains(&port) && try_bind(hosts, port).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::unavailable("the system has no free TCP port to give; close some programs and try again"))
}

/// The hosts of a key and the one port they share.
fn shared_port(addresses: &[Multiaddr]) -> Option<(Vec<HostPort>, u16)> {
    let hosts: Vec<HostPort> = addresses.iter().filter_map(host_port).collect();
    let port = hosts.first()?.port;
    // Several ports in one key were chosen by somebody: they are left alone.
    (port != 0 && hosts.iter().all(|h| h.port == port)).then_some((hosts, port))
}

fn set_port(addresses: &mut [Multiaddr], port: u16) {
    for address in addresses {
        *address = with_port(address, port);
    }
}

/// Replaces the taken ports of a configuration that was just made by free ones, and says which and why.
/// Blocks while DNS names are resolved.
///
/// # Errors
/// When the system has no free port.
pub fn settle_ports(config: &mut Config) -> Result<Vec<PortChange>> {
    let mut used = BTreeSet::new();
    let mut changes = Vec::new();
    for (key, addresses) in listeners(config) {
        let Some((hosts, from)) = shared_port(addresses) else { continue };
        let why = if used.contains(&from) {
            "another key has it".to_owned()
        } else {
            match try_bind(&hosts, from) {
                Ok(()) => {
                    used.insert(from);
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::AddrInUse => "another program uses it".to_owned(),
                Err(e) => format!("it cannot be used ({e})"),
            }
        };
        // Two peers that are made at the same moment see the same ports free: each begins at another step.
        let first = (std::process::id() % u32::from(NEAR)) as u16;
        let near = (0..NEAR)
            // Steps of ten keep the order of the defaults (9094, 9095, …) visible in the next peer's.
            .filter_map(|n| from.checked_add((1 + (first + n) % NEAR) * 10))
            .find(|port| !used.contains(port) && try_bind(&hosts, *port).is_ok());
        let to = match near {
            Some(port) => port,
            None => any_free(&hosts, &used)?,
        };
        used.insert(to);
        set_port(addresses, to);
        changes.push(PortChange { key, from, to, why });
    }
    Ok(changes)
}

/// Gives every listener a random free port, as `init --randomports` does.
///
/// # Errors
/// When the system has no free port.
pub fn random_ports(config: &mut Config) -> Result<Vec<PortChange>> {
    let mut used = BTreeSet::new();
    let mut changes = Vec::new();
    for (key, addresses) in listeners(config) {
        let Some((hosts, from)) = shared_port(addresses) else { continue };
        let to = any_free(&hosts, &used)?;
        used.insert(to);
        set_port(addresses, to);
        changes.push(PortChange { key, from, to, why: "a random port was asked for".into() });
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EmbeddedSection;

    #[test]
    fn taken_ports_are_replaced_and_free_ones_kept() {
        let mut config =
            Config { ipfs: IpfsSection::Embedded(EmbeddedSection::default()), ..Config::default() };
        random_ports(&mut config).expect("random");
        let before = config.clone();
        assert_eq!(settle_ports(&mut config).expect("free"), []);
        assert_eq!(config, before);

        let target =
            host_port(&config.restapi.as_ref().expect("on").http_listen_multiaddress[0]).expect("tcp");
        let taken = TcpListener::bind(("127.0.0.1", target.port)).expect("bind");
        let changes = settle_ports(&mut config).expect("settle");
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(changes[0].key, "api.restapi.http_listen_multiaddress");
        assert_eq!(changes[0].from, target.port);
        assert_ne!(changes[0].to, target.port);
        assert!(changes[0].to_string().contains("another program uses it"));
        let now = host_port(&config.restapi.as_ref().expect("on").http_listen_multiaddress[0]).expect("tcp");
        assert_eq!(now.port, changes[0].to);
        drop(taken);
    }

    #[test]
    fn the_same_port_twice_is_noticed() {
        let mut config = Config::default();
        random_ports(&mut config).expect("random");
        let port = host_port(&config.cluster.listen_multiaddress[0]).expect("tcp").port;
        set_port(&mut config.restapi.as_mut().expect("on").http_listen_multiaddress, port);
        let changes = settle_ports(&mut config).expect("settle");
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(changes[0].why, "another key has it");
    }

    #[test]
    fn random_ports_all_differ_and_the_second_address_follows() {
        let mut config = Config::default();
        let changes = random_ports(&mut config).expect("random");
        assert_eq!(changes.len(), 4);
        let ports: BTreeSet<u16> = changes.iter().map(|c| c.to).collect();
        assert_eq!(ports.len(), 4);
        let quic = config.cluster.listen_multiaddress[1].to_string();
        assert!(quic.contains(&format!("/udp/{}/", changes[0].to)), "{quic}");
        // The address of the IPFS daemon is not ours to change.
        assert!(config.ipfsproxy.expect("on").node_multiaddress[0].to_string().ends_with("/5001"));
    }
}
