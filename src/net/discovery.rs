//! Finding peers on the local network by multicast DNS.
//!
//! Each host announces a service [`SERVICE`] whose TXT record carries a tag of its network, its peer id and its
//! addresses, and looks for others with the same tag. The tag is a hash of the service name and the secret, so
//! neighbours' clusters are passed over without being dialled, and it gives nothing of the secret away. Being
//! found lets nobody in: only the secret does.
//!
//! The `mdns-sd` crate does the protocol on one thread of its own. Nothing here may ever be fatal: a network
//! without multicast is a log line. What comes from the LAN is untrusted: bounded, parsed, and only a hint where
//! to dial.

use super::book;
use super::transport;
use data_encoding::HEXLOWER;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use mdns_sd::{Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The service of every pinfold.
const SERVICE: &str = "_pinfold._tcp.local.";
/// Bytes of the network's tag.
const TAG_BYTES: usize = 8;
/// Addresses announced. A record must fit into one packet of a LAN.
const ADDRESSES: usize = 8;

/// A peer and where it says it is.
pub(super) type Found = (PeerId, Vec<Multiaddr>);

/// A running search and announcement; ends when dropped.
pub(super) struct Discovery {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    peer: PeerId,
    tag: String,
}

impl Discovery {
    /// Starts searching; `None`, with a line in the log, where that is impossible.
    pub(super) fn start(
        name: &str,
        psk: Option<&[u8; 32]>,
        peer: PeerId,
        interval: Duration,
    ) -> Option<Discovery> {
        let start = || -> mdns_sd::Result<Discovery> {
            let daemon = ServiceDaemon::new()?;
            // How often the machine's interfaces are looked at; the questions on the wire follow the standard.
            daemon.set_ip_check_interval(u32::try_from(interval.as_secs()).unwrap_or(u32::MAX).max(1))?;
            let events = daemon.browse(SERVICE)?;
            Ok(Discovery { daemon, events, peer, tag: tag(name, psk) })
        };
        match start() {
            Ok(discovery) => Some(discovery),
            Err(error) => {
                log::warn!("multicast DNS does not work here ({error}); peers of this network are not found by themselves");
                None
            }
        }
    }

    /// Announces our addresses, instead of those announced before.
    pub(super) fn announce(&self, addresses: &[Multiaddr]) {
        let Some((port, properties)) = properties(&self.tag, &self.peer, addresses) else { return };
        let id = self.peer.to_string();
        let host = format!("pinfold-{}.local.", id[id.len().saturating_sub(16)..].to_lowercase());
        let registered = ServiceInfo::new(SERVICE, &id, &host, "", port, &properties[..])
            .and_then(|service| self.daemon.register(service.enable_addr_auto()));
        if let Err(error) = registered {
            log::warn!("cannot announce this peer by multicast DNS: {error}");
        }
    }

    /// The next find; never, once the search has broken.
    pub(super) async fn next(&self) -> Found {
        loop {
            match self.events.recv_async().await {
                Ok(ServiceEvent::ServiceResolved(service)) => {
                    if let Some(found) = self.read(&service) {
                        return found;
                    }
                }
                Ok(_) => {}
                Err(_) => std::future::pending().await,
            }
        }
    }

    fn read(&self, service: &ResolvedService) -> Option<Found> {
        parse(&self.tag, |key| service.txt_properties.get_property_val_str(key).map(str::to_owned))
            .filter(|(peer, _)| *peer != self.peer)
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        // Says goodbye on the wire and ends the thread.
        let _ = self.daemon.shutdown();
    }
}

/// What peers of one network have in common and others cannot guess.
fn tag(name: &str, psk: Option<&[u8; 32]>) -> String {
    let mut hash = Sha256::new();
    hash.update(b"pinfold multicast DNS tag\0");
    hash.update(name.as_bytes());
    hash.update([0]);
    if let Some(psk) = psk {
        hash.update(psk);
    }
    HEXLOWER.encode(&hash.finalize()[..TAG_BYTES])
}

/// The TXT record, and the port for the SRV one. `None` when nobody else could reach us anyway.
fn properties(tag: &str, peer: &PeerId, addresses: &[Multiaddr]) -> Option<(u16, Vec<(String, String)>)> {
    let mut port = None;
    let mut properties = vec![("net".to_owned(), tag.to_owned()), ("peer".to_owned(), peer.to_string())];
    let useful = addresses.iter().filter(|a| !transport::is_loopback(a) && transport::is_dialable(a));
    for (n, address) in useful.take(ADDRESSES).enumerate() {
        port = port.or_else(|| {
            address.iter().find_map(|part| match part {
                Protocol::Tcp(port) => Some(port),
                _ => None,
            })
        });
        properties.push((format!("a{n}"), address.to_string()));
    }
    Some((port?, properties))
}

/// Reads a TXT record of our network.
fn parse(tag: &str, value: impl Fn(&str) -> Option<String>) -> Option<Found> {
    if value("net")? != tag {
        return None;
    }
    let peer: PeerId = value("peer")?.parse().ok()?;
    let addresses = (0..ADDRESSES).map_while(|n| value(&format!("a{n}"))).filter_map(|a| a.parse().ok());
    let addresses = book::clean(addresses);
    (!addresses.is_empty()).then_some((peer, addresses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn addresses(all: &[&str]) -> Vec<Multiaddr> {
        all.iter().map(|a| a.parse().expect(a)).collect()
    }

    #[test]
    fn an_announcement_is_read_back_by_the_same_network_only() {
        let (ours, theirs) = (tag("cluster", Some(&[1; 32])), tag("cluster", Some(&[2; 32])));
        assert_ne!(ours, theirs);
        assert_ne!(ours, tag("other", Some(&[1; 32])));
        assert_eq!(ours.len(), TAG_BYTES * 2);
        let peer = PeerId::random();
        let all = addresses(&[
            "/ip4/10.0.0.1/tcp/9096",
            "/ip6/::1/tcp/9096",
            "/ip4/127.0.0.1/tcp/9096",
            "/dns4/pi.local/tcp/1",
        ]);
        let (port, record) = properties(&ours, &peer, &all).expect("properties");
        assert_eq!(port, 9096);
        let record: HashMap<String, String> = record.into_iter().collect();
        let read = |tag: &str| parse(tag, |key| record.get(key).cloned());
        assert_eq!(read(&ours), Some((peer, addresses(&["/ip4/10.0.0.1/tcp/9096", "/dns4/pi.local/tcp/1"]))));
        assert_eq!(read(&theirs), None);
        assert!(
            properties(&ours, &peer, &addresses(&["/ip4/127.0.0.1/tcp/1"])).is_none(),
            "loopback helps nobody"
        );
    }

    #[test]
    fn nonsense_from_the_network_is_no_find() {
        let tag = tag("cluster", None);
        let peer = PeerId::random().to_string();
        for record in [
            vec![],
            vec![("net", tag.as_str())],
            vec![("net", tag.as_str()), ("peer", "nobody"), ("a0", "/ip4/10.0.0.1/tcp/1")],
            vec![("net", tag.as_str()), ("peer", peer.as_str()), ("a0", "no address")],
            vec![("net", tag.as_str()), ("peer", peer.as_str()), ("a0", "/ip4/0.0.0.0/tcp/0")],
        ] {
            let record: HashMap<_, _> = record.into_iter().collect();
            assert_eq!(parse(&tag, |key| record.get(key).map(|v| (*v).to_owned())), None, "{record:?}");
        }
    }
}
