//! Which addresses belong to which peer.
//!
//! Two sources are kept apart: what we were *told* (configuration, membership: replaced as a whole, trusted)
//! and what was *learned* (identify, mDNS: from the peer itself or from the LAN). Both are bounded; of the
//! learned ones the peer heard of longest ago makes room.

use super::transport;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;

/// Addresses kept per peer and source.
pub(super) const ADDRESSES_PER_PEER: usize = 16;
/// Peers with learned addresses.
const LEARNED_PEERS: usize = 1024;

#[derive(Default)]
struct Entry {
    told: Vec<Multiaddr>,
    learned: Vec<Multiaddr>,
    /// When the peer was last heard of, as a count of lessons.
    heard: u64,
}

/// The address book of one host.
#[derive(Default)]
pub(super) struct Book {
    entries: HashMap<PeerId, Entry>,
    lessons: u64,
}

/// Dialable addresses without `/p2p/…`, each once, bounded.
pub(super) fn clean(addresses: impl IntoIterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let mut kept: Vec<Multiaddr> = Vec::new();
    for address in addresses {
        let address = super::split_p2p(&address).map_or(address, |(_, rest)| rest);
        if transport::is_dialable(&address) && !kept.contains(&address) {
            kept.push(address);
            if kept.len() == ADDRESSES_PER_PEER {
                break;
            }
        }
    }
    kept
}

impl Book {
    /// Replaces what we were told of a peer. True if that changed something.
    pub(super) fn tell(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) -> bool {
        let addresses = clean(addresses);
        let entry = self.entries.entry(peer).or_default();
        let changed = entry.told != addresses;
        entry.told = addresses;
        if entry.told.is_empty() && entry.learned.is_empty() {
            self.entries.remove(&peer);
        }
        changed
    }

    /// Replaces what we learned of a peer. True if an address is new.
    pub(super) fn learn(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) -> bool {
        let addresses = clean(addresses);
        if addresses.is_empty() {
            return false;
        }
        self.lessons += 1;
        let heard = self.lessons;
        let entry = self.entries.entry(peer).or_default();
        let new = addresses.iter().any(|a| !entry.learned.contains(a) && !entry.told.contains(a));
        entry.learned = addresses;
        entry.heard = heard;
        self.make_room();
        new
    }

    /// Everything known, told first.
    pub(super) fn of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let Some(entry) = self.entries.get(peer) else { return Vec::new() };
        let mut all = entry.told.clone();
        all.extend(entry.learned.iter().filter(|a| !entry.told.contains(a)).cloned());
        all
    }

    fn make_room(&mut self) {
        let learned = || self.entries.iter().filter(|(_, e)| !e.learned.is_empty());
        if learned().count() <= LEARNED_PEERS {
            return;
        }
        let Some(oldest) = learned().min_by_key(|(_, e)| e.heard).map(|(peer, _)| *peer) else { return };
        if let Some(entry) = self.entries.get_mut(&oldest) {
            entry.learned.clear();
            if entry.told.is_empty() {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect(text)
    }

    #[test]
    fn told_and_learned_addresses_are_merged_and_bounded() {
        let mut book = Book::default();
        let peer = PeerId::random();
        assert!(book.tell(peer, vec![address("/ip4/10.0.0.1/tcp/9096"), address("/ip4/0.0.0.0/tcp/9096")]));
        assert!(!book.tell(peer, vec![address(&format!("/ip4/10.0.0.1/tcp/9096/p2p/{peer}"))]));
        assert!(book.learn(peer, vec![address("/ip4/10.0.0.2/tcp/9096"), address("/ip4/10.0.0.1/tcp/9096")]));
        assert_eq!(book.of(&peer), [address("/ip4/10.0.0.1/tcp/9096"), address("/ip4/10.0.0.2/tcp/9096")]);
        assert!(!book.learn(peer, vec![address("/ip4/10.0.0.2/udp/9096/quic-v1")]));
        assert!(book.tell(peer, vec![]));
        assert_eq!(book.of(&peer).len(), 2, "what was learned stays");

        let many = (1..100).map(|n| address(&format!("/ip4/10.0.1.{n}/tcp/1"))).collect();
        book.learn(peer, many);
        assert_eq!(book.of(&peer).len(), ADDRESSES_PER_PEER);
    }

    #[test]
    fn the_peer_heard_of_longest_ago_makes_room() {
        let mut book = Book::default();
        let first = PeerId::random();
        let kept = PeerId::random();
        book.learn(first, vec![address("/ip4/10.0.0.1/tcp/1")]);
        book.tell(kept, vec![address("/ip4/10.0.0.2/tcp/1")]);
        for _ in 0..LEARNED_PEERS {
            book.learn(PeerId::random(), vec![address("/ip4/10.0.0.3/tcp/1")]);
        }
        assert!(book.of(&first).is_empty());
        assert_eq!(book.of(&kept).len(), 1);
        assert_eq!(book.entries.len(), LEARNED_PEERS + 1);
    }
}
