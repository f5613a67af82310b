//! Whether other machines can reach a peer: its cluster port and the port of its embedded IPFS node, together.
//!
//! The packaged service begins *closed*, on loopback, because installing a package is no wish to be reached. It is
//! opened by the one who invites another board, or who joins another one's cluster. Both ports ask for the cluster's
//! secret, so that opening them lets nobody in who has no token. The HTTP APIs are no part of this: they stay where
//! they are.

use super::address::host_port;
use super::keys::{ClusterConfig, EmbeddedSection, IpfsSection};
use super::Config;
use crate::error::{Error, Result};
use libp2p::multiaddr::Protocol;
use libp2p::Multiaddr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Whether an address leads to this machine only. What is not TCP is not listened to, and counts for neither side.
pub fn is_local(address: &Multiaddr) -> bool {
    host_port(address).is_some_and(|at| at.is_loopback())
}

/// Whether no other machine can reach the peer's cluster port.
pub fn is_closed(config: &Config) -> bool {
    config.cluster.listen_multiaddress.iter().filter(|a| host_port(a).is_some()).all(is_local)
}

/// Makes a new configuration listen to this machine only, and be silent on the network: nobody could come.
pub(super) fn close(config: &mut Config) {
    config.cluster.mdns_interval = Duration::ZERO;
    for (_, addresses) in ports(config) {
        for address in addresses.iter_mut() {
            *address = moved(address, Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        }
    }
}

/// Lets other machines reach a peer that is closed. What was changed, line by line; nothing when it was open.
///
/// # Errors
/// [`crate::Kind::Invalid`] when there is no secret that would keep strangers out.
pub fn open(config: &mut Config) -> Result<Vec<String>> {
    if !is_closed(config) {
        return Ok(Vec::new());
    }
    if config.cluster.secret.is_none() {
        return Err(Error::invalid(
            "cluster.secret is empty, so that anyone who reaches this peer would be in its cluster; set a secret of 64 \
             hexadecimal digits first",
        ));
    }
    let mut changes = Vec::new();
    for (key, addresses) in ports(config) {
        for address in addresses.iter_mut().filter(|a| is_local(a)) {
            let before = address.clone();
            *address = moved(&before, Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
            changes.push(format!("{key}: {address} instead of {before}"));
        }
    }
    if config.cluster.mdns_interval.is_zero() {
        config.cluster.mdns_interval = ClusterConfig::default().mdns_interval;
        changes.push("cluster.mdns_interval: neighbours are looked for".into());
    }
    Ok(changes)
}

/// The ports of the peer-to-peer side.
fn ports(config: &mut Config) -> Vec<(&'static str, &mut Vec<Multiaddr>)> {
    let mut all = vec![("cluster.listen_multiaddress", &mut config.cluster.listen_multiaddress)];
    if let IpfsSection::Embedded(EmbeddedSection { listen_multiaddress, .. }) = &mut config.ipfs {
        all.push(("ipfs_connector.embedded.listen_multiaddress", listen_multiaddress));
    }
    all
}

/// The same port at another address of this machine. A name becomes the IPv4 address.
fn moved(address: &Multiaddr, four: Ipv4Addr, six: Ipv6Addr) -> Multiaddr {
    let host = |part| match part {
        Protocol::Ip4(_) | Protocol::Dns(_) | Protocol::Dns4(_) => Protocol::Ip4(four),
        Protocol::Ip6(_) | Protocol::Dns6(_) => Protocol::Ip6(six),
        other => other,
    };
    address.iter().map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::init::{new_config, InitOptions};
    use crate::config::Secret;

    fn fresh(loopback: bool) -> Config {
        new_config(&InitOptions { embedded: true, loopback, ..InitOptions::default() }).expect("config")
    }

    fn addresses(config: &mut Config) -> Vec<String> {
        ports(config)
            .into_iter()
            .flat_map(|(_, a)| a.iter().map(ToString::to_string).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn a_closed_peer_listens_to_this_machine_and_opening_it_gives_what_a_fresh_one_has() {
        let (mut closed, mut usual) = (fresh(true), fresh(false));
        assert!(is_closed(&closed) && !is_closed(&usual));
        assert!(closed.cluster.mdns_interval.is_zero());
        let all = addresses(&mut closed);
        assert_eq!(all, ["/ip4/127.0.0.1/tcp/9096", "/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4001"]);
        let changes = open(&mut closed).expect("open");
        assert_eq!(changes.len(), 4, "{changes:?}");
        assert_eq!(addresses(&mut closed), addresses(&mut usual));
        assert_eq!(closed.cluster.mdns_interval, usual.cluster.mdns_interval);
        assert!(open(&mut closed).expect("again").is_empty() && open(&mut usual).expect("open").is_empty());
    }

    #[test]
    fn what_the_owner_chose_stays() {
        let mut config = fresh(true);
        config.cluster.listen_multiaddress = vec!["/ip4/127.0.0.1/tcp/7".parse().expect("address")];
        if let IpfsSection::Embedded(node) = &mut config.ipfs {
            node.listen_multiaddress = vec!["/ip4/192.168.1.2/tcp/4001".parse().expect("address")];
        }
        open(&mut config).expect("open");
        assert_eq!(addresses(&mut config), ["/ip4/0.0.0.0/tcp/7", "/ip4/192.168.1.2/tcp/4001"]);
    }

    #[test]
    fn without_a_secret_nothing_is_opened() {
        let mut config = fresh(true);
        config.cluster.secret = Secret::NONE;
        assert!(open(&mut config).expect_err("no secret").message().contains("cluster.secret"));
        assert!(is_closed(&config));
    }
}
