//! What we want, and whom we ask for it.
//!
//! A pure state machine: calls come in (a want, an answer, a peer that came or went, the time), and what
//! every peer is to be told piles up in that peer's outbox, which its sender empties. The outbox is kept as
//! *desired against sent* per CID, so that any number of changes between two messages collapses into at
//! most one entry, and a message that got lost is repaired by sending the desired state again.
//!
//! The way of a want:
//!
//! 1. A peer of the want's session (one that has already served it) is asked for the block at once.
//! 2. Without such a peer: if only one peer is connected it is asked for the block, otherwise everyone is
//!    asked "have you got it?", and the first to say yes is asked for the block.
//! 3. "Don't have" or silence of the asked peer (no block for [`STALL`]) goes on to the next holder, else to
//!    everyone who was not asked yet.
//! 4. Nobody has it: the want stays on the peers' ledgers and is told to every new peer, until a block comes
//!    or the last waiter goes. A want never fails here; whoever waits sets the limit.
//!
//! It never asks two peers for the same block at the same time (but after a stall), and it never keeps a
//! block: data goes to the waiters and is forgotten.

use super::wire::{Entry, WantKind};
use bytes::Bytes;
use cid::Cid;
use futures::channel::oneshot;
use libp2p::PeerId;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// A peer that was asked for blocks and has sent none for this long is passed over for another one.
pub const STALL: Duration = Duration::from_secs(8);
/// Every peer is told its full want-list again after this long: repairs what it dropped at its limits.
pub const REFRESH: Duration = Duration::from_secs(60);
/// Blocks that a peer may send beyond one for each want we told it (cancels cross blocks on the way).
pub const UNASKED_BLOCKS: u64 = 256;
/// A session peer's credit: one per block, up to this.
const CREDIT_MAX: i32 = 16;
/// What a "don't have" from a session peer costs it.
const CREDIT_MISS: i32 = 4;

/// A group of wants that probably live on the same peers: one walk over one DAG.
pub type SessionId = u64;
/// The session of callers that name none; it never ends.
pub const COMMON: SessionId = 0;
/// One caller that waits for a block.
pub type WaiterId = u64;

/// One thing that is wanted.
#[derive(Debug)]
struct Want {
    session: SessionId,
    waiters: Vec<(WaiterId, oneshot::Sender<Bytes>)>,
    /// Who was asked for the block and has not answered.
    asked: Option<PeerId>,
    /// Said "have", not asked yet.
    holders: Vec<PeerId>,
    /// Said "don't have".
    without: HashSet<PeerId>,
    /// Peers whose view holds an entry for this want.
    told: Vec<PeerId>,
}

/// What one peer knows, and is to know, of one want.
#[derive(Debug, Default)]
struct Told {
    desired: Option<WantKind>,
    sent: Option<WantKind>,
    dirty: bool,
}

/// One peer as the client sees it.
#[derive(Debug)]
struct View {
    told: HashMap<Cid, Told>,
    dirty: VecDeque<Cid>,
    /// Wants whose `asked` is this peer.
    loading: usize,
    /// Last block or beginning of loading.
    progress: Instant,
    refreshed: Instant,
    /// The next message replaces the peer's whole list.
    full: bool,
    allowed: u64,
    received: u64,
}

impl View {
    fn new(now: Instant) -> Self {
        View {
            told: HashMap::new(),
            dirty: VecDeque::new(),
            loading: 0,
            progress: now,
            refreshed: now,
            full: true,
            allowed: UNASKED_BLOCKS,
            received: 0,
        }
    }

    /// Says what the peer should believe; true when that is news.
    fn desire(&mut self, cid: &Cid, desired: Option<WantKind>) -> bool {
        let told = self.told.entry(*cid).or_default();
        told.desired = desired;
        if told.desired == told.sent {
            if told.desired.is_none() && !told.dirty {
                self.told.remove(cid);
            }
            return false;
        }
        if !std::mem::replace(&mut told.dirty, true) {
            self.dirty.push_back(*cid);
        }
        true
    }

    /// The peer has dropped the want by itself, by answering it.
    fn settled(&mut self, cid: &Cid) {
        if let Some(told) = self.told.get_mut(cid) {
            (told.desired, told.sent) = (None, None);
            if !told.dirty {
                self.told.remove(cid);
            }
        }
    }

    /// Forgets what was sent, so that everything is sent again.
    fn forget(&mut self) {
        self.full = true;
        self.dirty.clear();
        self.told.retain(|_, told| told.desired.is_some());
        for (cid, told) in &mut self.told {
            told.sent = None;
            told.dirty = true;
            self.dirty.push_back(*cid);
        }
    }
}

/// The wants of this node.
#[derive(Debug, Default)]
pub struct Client {
    wants: HashMap<Cid, Want>,
    peers: HashMap<PeerId, View>,
    sessions: HashMap<SessionId, HashMap<PeerId, i32>>,
    /// Peers whose outbox has news since [`Client::woken`].
    woken: Vec<PeerId>,
}

impl Client {
    /// Whether nothing is wanted.
    pub fn is_idle(&self) -> bool {
        self.wants.is_empty()
    }

    /// Number of wants.
    pub fn count_wants(&self) -> usize {
        self.wants.len()
    }

    /// At most `max` of them.
    pub fn wanted(&self, max: usize) -> Vec<Cid> {
        self.wants.keys().take(max).copied().collect()
    }

    /// Whether this block is wanted.
    pub fn wants(&self, cid: &Cid) -> bool {
        self.wants.contains_key(cid)
    }

    /// Peers that have news in their outbox since the last call.
    pub fn woken(&mut self) -> Vec<PeerId> {
        let mut woken = std::mem::take(&mut self.woken);
        woken.sort_unstable();
        woken.dedup();
        woken
    }

    /// Adds a waiter for a block, and the want if it is the first.
    pub fn want(
        &mut self,
        cid: Cid,
        session: SessionId,
        waiter: WaiterId,
        sender: oneshot::Sender<Bytes>,
        now: Instant,
    ) {
        if let Some(want) = self.wants.get_mut(&cid) {
            want.waiters.push((waiter, sender));
            return;
        }
        let want = Want {
            session,
            waiters: vec![(waiter, sender)],
            asked: None,
            holders: Vec::new(),
            without: HashSet::new(),
            told: Vec::new(),
        };
        self.wants.insert(cid, want);
        self.advance(&cid, now);
    }

    /// A waiter went away; with the last one the want is cancelled everywhere.
    pub fn unwait(&mut self, cid: &Cid, waiter: WaiterId) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        want.waiters.retain(|(id, _)| *id != waiter);
        if want.waiters.is_empty() {
            self.finish(cid, None);
        }
    }

    /// The walk is over: its memory of who is good for it goes.
    pub fn end_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        // A want that callers of other sessions still wait for must not bring its memory back.
        for want in self.wants.values_mut().filter(|w| w.session == session) {
            want.session = COMMON;
        }
    }

    /// A peer can be asked.
    pub fn peer_up(&mut self, peer: PeerId, now: Instant) {
        if self.peers.contains_key(&peer) {
            return;
        }
        self.peers.insert(peer, View::new(now));
        // Wants that some peer is just serving need no one else.
        let searching: Vec<Cid> =
            self.wants.iter().filter(|(_, w)| w.asked.is_none()).map(|(cid, _)| *cid).collect();
        for cid in searching {
            self.tell(&cid, peer, WantKind::Have);
        }
    }

    /// A peer cannot be asked any more.
    pub fn peer_down(&mut self, peer: &PeerId, now: Instant) {
        let Some(view) = self.peers.remove(peer) else { return };
        for credit in self.sessions.values_mut() {
            credit.remove(peer);
        }
        for cid in view.told.into_keys() {
            if let Some(want) = self.wants.get_mut(&cid) {
                want.told.retain(|p| p != peer);
                want.holders.retain(|p| p != peer);
                want.without.remove(peer);
                if want.asked == Some(*peer) {
                    want.asked = None;
                    self.advance(&cid, now);
                }
            }
        }
        // Holders whose "have" already settled their entry.
        for want in self.wants.values_mut() {
            want.holders.retain(|p| p != peer);
        }
    }

    /// Blocks have come from a peer (wanted or not). False when it sent more than it was ever asked for.
    pub fn count(&mut self, peer: &PeerId, blocks: u64, now: Instant) -> bool {
        let Some(view) = self.peers.get_mut(peer) else { return true };
        view.received += blocks;
        if blocks > 0 {
            view.progress = now;
        }
        view.received <= view.allowed
    }

    /// A verified block, from a peer or from our own disk. Says whether it was wanted.
    pub fn block(&mut self, from: Option<&PeerId>, cid: &Cid, data: &Bytes) -> bool {
        if let Some(view) = from.and_then(|peer| self.peers.get_mut(peer)) {
            view.settled(cid);
        }
        let Some(want) = self.wants.get(cid) else { return false };
        if let Some(peer) = from {
            let credit = self.sessions.entry(want.session).or_default().entry(*peer).or_insert(0);
            *credit = (*credit + 1).min(CREDIT_MAX);
        }
        self.finish(cid, Some(data));
        true
    }

    /// A peer says that it has a block.
    pub fn have(&mut self, peer: &PeerId, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get_mut(cid) else {
            if let Some(view) = self.peers.get_mut(peer) {
                view.settled(cid);
            }
            return;
        };
        let Some(view) = self.peers.get_mut(peer) else { return };
        want.without.remove(peer);
        if want.asked == Some(*peer) || want.holders.contains(peer) {
            return;
        }
        view.settled(cid);
        self.sessions.entry(want.session).or_default().entry(*peer).or_insert(1);
        want.holders.push(*peer);
        self.advance(cid, now);
    }

    /// A peer says that it does not have a block.
    pub fn dont_have(&mut self, peer: &PeerId, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        if !self.peers.contains_key(peer) {
            return;
        }
        want.without.insert(*peer);
        want.holders.retain(|p| p != peer);
        if let Some(credits) = self.sessions.get_mut(&want.session) {
            if let Some(credit) = credits.get_mut(peer) {
                *credit -= CREDIT_MISS;
                if *credit <= 0 {
                    credits.remove(peer);
                }
            }
        }
        if want.asked == Some(*peer) {
            self.unask(cid);
            self.advance(cid, now);
        }
    }

    /// Time passes: silent peers are passed over, old lists are told again.
    pub fn tick(&mut self, now: Instant) {
        let stalled: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, v)| v.loading > 0 && now.duration_since(v.progress) >= STALL)
            .map(|(p, _)| *p)
            .collect();
        for peer in stalled {
            for credits in self.sessions.values_mut() {
                credits.remove(&peer);
            }
            let waiting: Vec<Cid> =
                self.wants.iter().filter(|(_, w)| w.asked == Some(peer)).map(|(cid, _)| *cid).collect();
            log::debug!(target: "bitswap", "{peer} is silent: asking others for {} blocks", waiting.len());
            for cid in waiting {
                self.unask(&cid);
                self.advance(&cid, now);
            }
            self.repeat(&peer, now);
        }
        let old: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, v)| !v.told.is_empty() && now.duration_since(v.refreshed) >= REFRESH)
            .map(|(p, _)| *p)
            .collect();
        for peer in old {
            self.repeat(&peer, now);
        }
    }

    /// Tells a peer its full list again: the stream that carried it is gone, or it was silent.
    pub fn repeat(&mut self, peer: &PeerId, now: Instant) {
        if let Some(view) = self.peers.get_mut(peer) {
            view.forget();
            view.refreshed = now;
            if !view.dirty.is_empty() {
                self.woken.push(*peer);
            }
        }
    }

    /// Takes a peer's next want-list message: its entries (at most `max`), and whether they replace the
    /// whole list. `None` when there is nothing to say.
    pub fn take(&mut self, peer: &PeerId, max: usize, now: Instant) -> Option<(Vec<Entry>, bool)> {
        let view = self.peers.get_mut(peer)?;
        let mut entries = Vec::new();
        while entries.len() < max {
            let Some(cid) = view.dirty.pop_front() else { break };
            let Some(told) = view.told.get_mut(&cid) else { continue };
            told.dirty = false;
            if told.desired != told.sent {
                let kind = told.desired.or(told.sent).unwrap_or(WantKind::Block);
                let cancel = told.desired.is_none();
                told.sent = told.desired;
                view.allowed += u64::from(!cancel);
                entries.push(Entry { cid, priority: 1, kind, cancel, send_dont_have: !cancel });
            }
            if told.desired.is_none() {
                view.told.remove(&cid);
            }
        }
        if entries.is_empty() {
            return None;
        }
        if std::mem::take(&mut view.full) {
            view.refreshed = now;
            return Some((entries, true));
        }
        Some((entries, false))
    }

    /// Makes sure that someone is asked for the block, or that everyone is asked who has it.
    fn advance(&mut self, cid: &Cid, now: Instant) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        if want.asked.is_some() {
            return;
        }
        let peers = &self.peers;
        let load = |p: &PeerId| peers.get(p).map_or(usize::MAX, |v| v.loading);
        let holder = want.holders.iter().filter(|p| peers.contains_key(p)).min_by_key(|p| load(p)).copied();
        let chosen = holder.or_else(|| {
            let session = self.sessions.get(&want.session);
            let usable = |p: &&PeerId| peers.contains_key(p) && !want.without.contains(p);
            let of_session = session.into_iter().flatten().map(|(p, _)| p);
            of_session.filter(usable).min_by_key(|p| load(p)).copied()
        });
        let chosen = chosen.or_else(|| match peers.len() {
            1 => peers.keys().find(|p| !want.without.contains(p)).copied(),
            _ => None,
        });
        match chosen {
            Some(peer) => {
                want.holders.retain(|p| *p != peer);
                want.asked = Some(peer);
                if let Some(view) = self.peers.get_mut(&peer) {
                    if view.loading == 0 {
                        view.progress = now;
                    }
                    view.loading += 1;
                }
                self.tell(cid, peer, WantKind::Block);
            }
            None => {
                let unasked: Vec<PeerId> =
                    self.peers.keys().filter(|p| !want.told.contains(p)).copied().collect();
                for peer in unasked {
                    self.tell(cid, peer, WantKind::Have);
                }
            }
        }
    }

    fn tell(&mut self, cid: &Cid, peer: PeerId, kind: WantKind) {
        if let (Some(view), Some(want)) = (self.peers.get_mut(&peer), self.wants.get_mut(cid)) {
            if !want.told.contains(&peer) {
                want.told.push(peer);
            }
            if view.desire(cid, Some(kind)) {
                self.woken.push(peer);
            }
        }
    }

    fn unask(&mut self, cid: &Cid) {
        if let Some(peer) = self.wants.get_mut(cid).and_then(|w| w.asked.take()) {
            if let Some(view) = self.peers.get_mut(&peer) {
                view.loading = view.loading.saturating_sub(1);
            }
        }
    }

    /// Ends a want: data to the waiters (if any), cancels to everyone who was told.
    fn finish(&mut self, cid: &Cid, data: Option<&Bytes>) {
        self.unask(cid);
        let Some(want) = self.wants.remove(cid) else { return };
        for peer in &want.told {
            if let Some(view) = self.peers.get_mut(peer) {
                if view.desire(cid, None) {
                    self.woken.push(*peer);
                }
            }
        }
        if let Some(data) = data {
            for (_, waiter) in want.waiters {
                // A waiter that has just gone needs nothing.
                let _ = waiter.send(data.clone());
            }
        }
    }

    /// Drops every want; waiters learn it by their closed channel.
    pub fn close(&mut self) {
        self.wants.clear();
        self.peers.clear();
        self.sessions.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipfs::embedded::bitswap::tests::raw_cid;
    use WantKind::{Block, Have};

    struct Bench {
        client: Client,
        now: Instant,
        next: WaiterId,
    }

    impl Bench {
        fn new(peers: &[PeerId]) -> Self {
            let mut bench = Bench { client: Client::default(), now: Instant::now(), next: 0 };
            for peer in peers {
                bench.client.peer_up(*peer, bench.now);
            }
            bench
        }

        fn want(&mut self, cid: Cid) -> (WaiterId, oneshot::Receiver<Bytes>) {
            self.next += 1;
            let (sender, receiver) = oneshot::channel();
            self.client.want(cid, 1, self.next, sender, self.now);
            (self.next, receiver)
        }

        /// What the peer is told now: (CID, kind or None for a cancel).
        fn told(&mut self, peer: &PeerId) -> Vec<(Cid, Option<WantKind>)> {
            let entries = self.client.take(peer, 1000, self.now).map(|(e, _)| e).unwrap_or_default();
            entries.iter().map(|e| (e.cid, (!e.cancel).then_some(e.kind))).collect()
        }
    }

    fn peers() -> [PeerId; 3] {
        [PeerId::random(), PeerId::random(), PeerId::random()]
    }

    #[test]
    fn first_everyone_is_asked_who_has_it_then_one_for_the_block() {
        let [a, b, c] = peers();
        let mut bench = Bench::new(&[a, b, c]);
        let cid = raw_cid(b"1");
        let (_, mut receiver) = bench.want(cid);
        for peer in [&a, &b, &c] {
            assert_eq!(bench.told(peer), [(cid, Some(Have))]);
        }
        bench.client.dont_have(&a, &cid, bench.now);
        bench.client.have(&b, &cid, bench.now);
        bench.client.have(&c, &cid, bench.now);
        assert_eq!(bench.told(&b), [(cid, Some(Block))], "the first that has it");
        assert_eq!(bench.told(&c), [], "never two at the same time");
        let data = Bytes::from_static(b"1");
        assert!(bench.client.block(Some(&b), &cid, &data));
        assert_eq!(receiver.try_recv().expect("open"), Some(data.clone()));
        assert_eq!(bench.told(&a), [(cid, None)], "a still keeps our want: cancelled");
        assert_eq!(bench.told(&b), [], "b dropped it by answering");
        assert_eq!(bench.told(&c), [], "c dropped it by saying have");
        assert!(bench.client.is_idle());
        assert!(!bench.client.block(Some(&b), &cid, &data), "a second copy is not wanted");
    }

    #[test]
    fn a_session_peer_is_asked_straight_away_and_dont_have_goes_on_to_the_others() {
        let [a, b, c] = peers();
        let mut bench = Bench::new(&[a, b, c]);
        let (first, second) = (raw_cid(b"1"), raw_cid(b"2"));
        let _one = bench.want(first);
        bench.client.have(&a, &first, bench.now);
        for peer in [&a, &b, &c] {
            bench.told(peer);
        }
        bench.client.block(Some(&a), &first, &Bytes::from_static(b"1"));
        for peer in [&a, &b, &c] {
            bench.told(peer);
        }
        let _two = bench.want(second);
        assert_eq!(bench.told(&a), [(second, Some(Block))]);
        assert_eq!((bench.told(&b), bench.told(&c)), (vec![], vec![]), "others are left alone");
        bench.client.dont_have(&a, &second, bench.now);
        assert_eq!(bench.told(&b), [(second, Some(Have))]);
        assert_eq!(bench.told(&c), [(second, Some(Have))]);
        bench.client.have(&c, &second, bench.now);
        assert_eq!(bench.told(&c), [(second, Some(Block))]);
    }

    #[test]
    fn the_only_peer_is_asked_for_the_block_at_once() {
        let [a, ..] = peers();
        let mut bench = Bench::new(&[a]);
        let cid = raw_cid(b"1");
        let _w = bench.want(cid);
        assert_eq!(bench.told(&a), [(cid, Some(Block))]);
        bench.client.dont_have(&a, &cid, bench.now);
        assert_eq!(bench.told(&a), [], "it keeps the want, and sends the block when it comes");
        assert!(bench.client.block(Some(&a), &cid, &Bytes::from_static(b"1")));
    }

    #[test]
    fn load_is_spread_over_the_peers_of_a_session() {
        let [a, b, _] = peers();
        let mut bench = Bench::new(&[a, b]);
        let first = raw_cid(b"first");
        let _w = bench.want(first);
        bench.client.have(&a, &first, bench.now);
        bench.client.have(&b, &first, bench.now);
        bench.client.block(Some(&a), &first, &Bytes::from_static(b"first"));
        bench.told(&a);
        bench.told(&b);
        let _more: Vec<_> = (0..10u8).map(|n| bench.want(raw_cid(&[n]))).collect();
        assert_eq!((bench.told(&a).len(), bench.told(&b).len()), (5, 5));
    }

    #[test]
    fn the_last_waiter_to_go_cancels() {
        let [a, ..] = peers();
        let mut bench = Bench::new(&[a]);
        let cid = raw_cid(b"1");
        let ((one, _r1), (two, _r2)) = (bench.want(cid), bench.want(cid));
        assert_eq!(bench.told(&a).len(), 1, "one want for two waiters");
        bench.client.unwait(&cid, one);
        assert_eq!(bench.told(&a), []);
        bench.client.unwait(&cid, two);
        assert_eq!(bench.told(&a), [(cid, None)]);
        let (three, _r3) = bench.want(cid);
        bench.client.unwait(&cid, three);
        assert_eq!(bench.told(&a), [], "want and cancel between two messages: nothing to say");
        assert!(bench.client.peers[&a].told.is_empty(), "nothing kept");
    }

    #[test]
    fn a_new_peer_hears_what_is_searched_and_a_lost_one_is_replaced() {
        let [a, b, c] = peers();
        let mut bench = Bench::new(&[a, b]);
        let cid = raw_cid(b"1");
        let _w = bench.want(cid);
        bench.client.have(&a, &cid, bench.now);
        assert_eq!(bench.told(&a), [(cid, Some(Block))]);
        assert_eq!(bench.told(&b), [(cid, Some(Have))]);
        bench.client.peer_up(c, bench.now);
        assert_eq!(bench.told(&c), [], "a is serving it");
        bench.client.peer_down(&a, bench.now);
        assert_eq!(bench.told(&c), [(cid, Some(Have))]);
        let d = PeerId::random();
        bench.client.peer_up(d, bench.now);
        assert_eq!(bench.told(&d), [(cid, Some(Have))]);
    }

    #[test]
    fn a_silent_peer_is_passed_over_and_told_again() {
        let [a, b, _] = peers();
        let mut bench = Bench::new(&[a, b]);
        let cid = raw_cid(b"1");
        let _w = bench.want(cid);
        bench.client.have(&a, &cid, bench.now);
        bench.client.have(&b, &cid, bench.now);
        assert_eq!(bench.told(&a), [(cid, Some(Block))]);
        bench.told(&b);
        bench.now += STALL - Duration::from_millis(1);
        bench.client.tick(bench.now);
        assert_eq!(bench.told(&b), []);
        bench.now += Duration::from_millis(2);
        bench.client.tick(bench.now);
        assert_eq!(bench.told(&b), [(cid, Some(Block))]);
        let (entries, full) = bench.client.take(&a, 10, bench.now).expect("again");
        assert_eq!((entries.len(), entries[0].kind, full), (1, Block, true));
    }

    #[test]
    fn a_lost_stream_repeats_the_whole_list() {
        let [a, ..] = peers();
        let mut bench = Bench::new(&[a]);
        let _w: Vec<_> = (0..5u8).map(|n| bench.want(raw_cid(&[n]))).collect();
        assert_eq!(bench.told(&a).len(), 5);
        assert_eq!(bench.told(&a).len(), 0);
        bench.client.repeat(&a, bench.now);
        assert_eq!(bench.client.woken(), [a]);
        let (entries, full) = bench.client.take(&a, 1000, bench.now).expect("list");
        assert_eq!((entries.len(), full), (5, true));
        bench.now += REFRESH;
        bench.client.peers.get_mut(&a).expect("peer").loading = 0;
        bench.client.tick(bench.now);
        assert_eq!(bench.told(&a).len(), 5, "and again after the refresh time");
    }

    #[test]
    fn an_ended_session_leaves_no_memory() {
        let [a, b, _] = peers();
        let mut bench = Bench::new(&[a, b]);
        let cid = raw_cid(b"1");
        let _w = bench.want(cid);
        bench.client.have(&a, &cid, bench.now);
        bench.client.end_session(1);
        assert!(bench.client.sessions.is_empty());
        bench.client.block(Some(&a), &cid, &Bytes::from_static(b"1"));
        assert_eq!(bench.client.sessions.keys().copied().collect::<Vec<_>>(), [COMMON]);
        bench.client.peer_down(&a, bench.now);
        assert!(bench.client.sessions[&COMMON].is_empty());
    }

    #[test]
    fn a_flood_of_blocks_is_noticed() {
        let [a, ..] = peers();
        let mut bench = Bench::new(&[a]);
        let _w = bench.want(raw_cid(b"1"));
        bench.told(&a);
        assert!(bench.client.count(&a, UNASKED_BLOCKS + 1, bench.now));
        assert!(!bench.client.count(&a, 1, bench.now));
    }
}
