//! Consensus as the daemon runs it: threads, real time, several peers in one process.

use super::snapshot::{Chunk, ChunkStream, SnapshotRequest};
use super::wire::{MemberRequest, ProposeAnswer, ProposeRequest};
use super::*;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::runtime::block_on;
use crate::state::{Command, Event, Member, Outcome, Pin, Role};
use crate::store::memory::{MemoryLog, MemoryState};
use crate::store::StateStore;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Instant;

/// The longest that anything may take here.
const LIMIT: Duration = Duration::from_secs(30);

/// Settings with short times.
pub(super) fn config(peer_id: PeerId) -> ConsensusConfig {
    ConsensusConfig {
        peer_id,
        name: "test".to_owned(),
        heartbeat: Duration::from_millis(40),
        election: Duration::from_millis(200),
        wait_for_leader: Duration::from_secs(10),
        network_timeout: Duration::from_secs(20),
        commit_retries: 1,
        commit_retry_delay: Duration::from_millis(200),
        commit_timeout: Duration::from_millis(50),
        lease: Duration::from_millis(400),
        max_append_entries: 64,
        trailing_logs: 100,
        snapshot_threshold: 100,
        snapshot_interval: Duration::from_millis(10),
        max_voters: 7,
    }
}

/// A network inside the process.
#[derive(Default)]
struct Switch {
    peers: Mutex<HashMap<PeerId, WeakConsensus>>,
    deaf: Mutex<HashSet<PeerId>>,
    asked: AtomicUsize,
}

struct Port {
    switch: Arc<Switch>,
    us: PeerId,
}

impl Port {
    fn reach(&self, peer: &PeerId) -> Result<Consensus> {
        let deaf = self.switch.deaf.lock();
        if deaf.contains(peer) || deaf.contains(&self.us) {
            return Err(Error::unavailable(format!("peer {peer} cannot be reached")));
        }
        let peers = self.switch.peers.lock();
        peers.get(peer).and_then(WeakConsensus::upgrade).ok_or_else(|| Error::unavailable("it is down"))
    }
}

struct Chunks(super::handle::incoming::Giving);

#[async_trait]
impl ChunkStream for Chunks {
    async fn next(&mut self) -> Result<Option<Chunk>> {
        self.0.next().await
    }
}

#[async_trait]
impl Wire for Port {
    fn send(&self, to: &Member, _raft_id: RaftId, frame: Vec<u8>) {
        if let Ok(peer) = self.reach(&to.peer_id) {
            let _ = peer.handle_frame(self.us, &frame);
        }
    }
    async fn propose(
        &self,
        leader: &Member,
        since: Option<u64>,
        request: ProposeRequest,
        _: Duration,
    ) -> Result<ProposeAnswer> {
        self.switch.asked.fetch_add(1, Ordering::Relaxed);
        self.reach(&leader.peer_id)?.handle_propose(self.us, since, request).await
    }
    async fn change_members(&self, leader: &Member, request: MemberRequest, _: Duration) -> Result<u64> {
        self.reach(&leader.peer_id)?.handle_members(self.us, request).await
    }
    async fn fetch_snapshot(&self, from: &Member, request: SnapshotRequest) -> Result<Box<dyn ChunkStream>> {
        Ok(Box::new(Chunks(self.reach(&from.peer_id)?.handle_snapshot(self.us, request).await?)))
    }
    fn is_connected(&self, peer: &PeerId) -> bool {
        self.reach(peer).is_ok()
    }
}

struct Peer {
    id: PeerId,
    raft_id: RaftId,
    consensus: Consensus,
    state: MemoryState,
    log: MemoryLog,
}

impl Peer {
    fn start(switch: &Arc<Switch>, raft_id: RaftId, start: Start) -> Peer {
        let id = PeerId::random();
        let (state, log) = (MemoryState::new(), MemoryLog::new(raft_id));
        Self::run(switch, id, raft_id, start, state, log)
    }

    fn run(
        switch: &Arc<Switch>,
        id: PeerId,
        raft_id: RaftId,
        start: Start,
        state: MemoryState,
        log: MemoryLog,
    ) -> Peer {
        Self::run_with(switch, config(id), raft_id, start, state, log)
    }

    fn run_with(
        switch: &Arc<Switch>,
        config: ConsensusConfig,
        raft_id: RaftId,
        start: Start,
        state: MemoryState,
        log: MemoryLog,
    ) -> Peer {
        let id = config.peer_id;
        let wire = Arc::new(Port { switch: switch.clone(), us: id });
        let (log_box, state_arc) = (Box::new(log.clone()), Arc::new(state.clone()));
        let consensus = Consensus::start(config, start, log_box, state_arc, wire).unwrap();
        switch.peers.lock().insert(id, consensus.downgrade());
        Peer { id, raft_id, consensus, state, log }
    }

    fn member(&self) -> Member {
        let (raft_id, peer_id) = (self.raft_id, self.id);
        Member {
            raft_id,
            peer_id,
            name: "m".to_owned(),
            addresses: Vec::new(),
            role: Role::Learner,
            version: String::new(),
            witness: false,
        }
    }
}

fn cluster(switch: &Arc<Switch>, peers: u64) -> Vec<Peer> {
    cluster_with(switch, peers, |_| {})
}

fn cluster_with(switch: &Arc<Switch>, peers: u64, change: impl Fn(&mut ConsensusConfig)) -> Vec<Peer> {
    let start = |raft_id, start| {
        let mut config = config(PeerId::random());
        change(&mut config);
        Peer::run_with(switch, config, raft_id, start, MemoryState::new(), MemoryLog::new(raft_id))
    };
    let mut all = vec![start(1, Start::Found)];
    let cluster_id = all[0].consensus.status().cluster_id;
    for raft_id in 2..=peers {
        let peer = start(raft_id, Start::Join { cluster_id });
        assert_eq!(block_on(all[0].consensus.add_member(peer.member())).unwrap(), cluster_id);
        block_on(peer.consensus.wait_ready(LIMIT)).unwrap();
        all.push(peer);
    }
    until("all vote", || {
        all.iter()
            .all(|p| p.consensus.members().iter().filter(|m| m.role == Role::Voter).count() == all.len())
    });
    all
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pin(n: u64) -> Command {
    let digest = multihash::Multihash::wrap(0x12, &[n.to_be_bytes(); 4].concat()).unwrap();
    Command::Pin(Box::new(Pin::new(cid::Cid::new_v1(0x55, digest), Timestamp::from_secs(1))))
}

fn unpin(n: u64) -> Command {
    match pin(n) {
        Command::Pin(pin) => Command::Unpin(pin.cid),
        other => other,
    }
}

fn count(peer: &Peer) -> u64 {
    peer.state.count(crate::store::Table::Pins)
}

#[test]
fn changes_asked_anywhere_are_applied_where_they_were_asked() {
    let switch = Arc::new(Switch::default());
    let peers = cluster(&switch, 3);
    let events = peers[2].consensus.events();
    for (n, peer) in peers.iter().enumerate() {
        let outcome = block_on(peer.consensus.propose(pin(n as u64))).unwrap();
        assert!(matches!(outcome, Outcome::Pin(_)));
        assert_eq!(count(peer), n as u64 + 1);
        block_on(peer.consensus.read_index()).unwrap();
    }
    let missing = block_on(peers[1].consensus.propose(unpin(99))).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    let pinned = std::iter::from_fn(|| events.try_recv().ok()).filter(|e| matches!(e, Event::Pinned(_)));
    assert_eq!(pinned.count(), 3);
}

#[test]
fn the_dead_leader_is_replaced_and_a_minority_refuses() {
    let switch = Arc::new(Switch::default());
    let mut peers = cluster(&switch, 3);
    block_on(peers[0].consensus.propose(pin(1))).unwrap();
    let dead = peers.remove(0);
    block_on(dead.consensus.stop());
    let started = Instant::now();
    block_on(peers[0].consensus.propose(pin(2))).unwrap();
    eprintln!("the next commit came {:?} after the leader's end", started.elapsed());
    assert_eq!(block_on(dead.consensus.propose(pin(3))).unwrap_err().kind(), Kind::Unavailable);
    let second = peers.remove(1);
    block_on(second.consensus.stop());
    switch.deaf.lock().extend([dead.id, second.id]);
    until("the lone one knows", || peers[0].consensus.leader().is_none());
    let refusal = block_on(async {
        crate::runtime::timeout(
            LIMIT,
            "the refusal",
            peers[0].consensus.wait_leader(Duration::from_millis(300)),
        )
        .await
    });
    let sentence = refusal.unwrap_err().to_string();
    assert!(sentence.starts_with("timed out waiting for leader: 1 of 3 voters are connected"), "{sentence}");
}

#[test]
fn a_stopped_peer_goes_on_where_it_was() {
    let switch = Arc::new(Switch::default());
    let peer = Peer::start(&switch, 1, Start::Found);
    block_on(peer.consensus.wait_ready(LIMIT)).unwrap();
    for n in 0..20 {
        block_on(peer.consensus.propose(pin(n))).unwrap();
    }
    block_on(peer.consensus.stop());
    let Peer { id, state, log, .. } = peer;
    state.crash();
    log.crash();
    let again = Peer::run(&switch, id, 1, Start::Restart, state, log);
    block_on(again.consensus.wait_ready(LIMIT)).unwrap();
    assert_eq!(count(&again), 20);
    block_on(again.consensus.hand_over(LIMIT)).unwrap_err();
}

#[test]
fn members_come_and_go_while_asked_at_a_follower() {
    let switch = Arc::new(Switch::default());
    let peers = cluster(&switch, 3);
    let cluster_id = peers[0].consensus.status().cluster_id;
    let fourth = Peer::start(&switch, 4, Start::Join { cluster_id });
    block_on(peers[2].consensus.add_member(fourth.member())).unwrap();
    block_on(peers[2].consensus.add_member(fourth.member())).unwrap();
    block_on(fourth.consensus.wait_ready(LIMIT)).unwrap();
    // The leader is removed at its own wish.
    let leader = peers.iter().find(|p| p.consensus.status().leader == Some(p.raft_id)).unwrap();
    block_on(leader.consensus.remove_member(leader.id)).unwrap();
    until("it knows that it is out", || leader.consensus.status().removed);
    let refused = block_on(leader.consensus.propose(pin(1))).unwrap_err();
    assert!(refused.message().contains("removed from the cluster"), "{refused}");
    block_on(fourth.consensus.propose(pin(1))).unwrap();
    let unknown = block_on(fourth.consensus.remove_member(PeerId::random())).unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);
    assert_eq!(fourth.consensus.members().len(), 3);
}

#[test]
fn a_disk_error_stops_consensus_with_a_sentence() {
    let switch = Arc::new(Switch::default());
    let peer = Peer::start(&switch, 1, Start::Found);
    block_on(peer.consensus.propose(pin(1))).unwrap();
    peer.log.set_failing(true);
    let error = block_on(peer.consensus.propose(pin(2))).unwrap_err();
    assert!(error.message().contains("the simulated disk fails"), "{error}");
    until("the status says so", || peer.consensus.status().failed.is_some());
    let after = block_on(peer.consensus.propose(pin(3))).unwrap_err();
    assert!(after.message().contains("the simulated disk fails"), "{after}");
}

#[test]
fn a_full_disk_refuses_pins_and_takes_unpins() {
    let switch = Arc::new(Switch::default());
    let peer = Peer::start(&switch, 1, Start::Found);
    block_on(peer.consensus.propose(pin(1))).unwrap();
    peer.state.set_full(Some("the disk is nearly full".to_owned()));
    assert_eq!(block_on(peer.consensus.propose(pin(2))).unwrap_err().kind(), Kind::Full);
    block_on(peer.consensus.propose(unpin(1))).unwrap();
}

#[test]
fn a_late_copy_of_a_pin_does_not_undo_its_removal() {
    let switch = Arc::new(Switch::default());
    let peer = Peer::start(&switch, 1, Start::Found);
    block_on(peer.consensus.propose(pin(0))).unwrap();
    let status = peer.consensus.status();
    let request = ProposeRequest { cluster_id: status.cluster_id, id: 7, command: pin(1).encode() };
    let ask = |since| block_on(peer.consensus.handle_propose(peer.id, Some(since), request.clone()));
    let first = ask(status.committed).unwrap();
    block_on(peer.consensus.propose(unpin(1))).unwrap();
    // The same once more: recognised. After so many others that it is forgotten: refused.
    assert_eq!(ask(status.committed).unwrap().index, first.index);
    let many = (0..super::proposals::MAX_RECENT as u64).map(|n| peer.consensus.propose(pin(10 + n % 8)));
    block_on(async {
        // A full queue refuses some; what is missing follows.
        let _some_refused = futures::future::join_all(many).await;
        while peer.consensus.status().committed < first.index + 2 + super::proposals::MAX_RECENT as u64 {
            peer.consensus.propose(pin(10)).await.unwrap();
        }
    });
    assert_eq!(ask(status.committed).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(count(&peer), 9, "pin 1 stays removed");
}

#[test]
fn an_idle_peer_flushes_once_and_then_writes_nothing() {
    let switch = Arc::new(Switch::default());
    let peer = Peer::start(&switch, 1, Start::Found);
    block_on(peer.consensus.propose(pin(1))).unwrap();
    until("the state is flushed", || peer.state.durable() == peer.state.applied());
    // From here on, any write would be an error.
    peer.log.set_failing(true);
    peer.state.set_failing(true);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(peer.consensus.status().failed, None);
}

#[test]
fn garbage_from_the_network_is_refused() {
    let switch = Arc::new(Switch::default());
    let peer = Peer::start(&switch, 1, Start::Found);
    assert!(peer.consensus.handle_frame(PeerId::random(), b"garbage").is_err());
    let foreign = super::message::encode_notice(1, 9, 1, &super::message::Body::Removed);
    assert_eq!(peer.consensus.handle_frame(PeerId::random(), &foreign).unwrap_err().kind(), Kind::Conflict);
    let cluster = peer.consensus.status().cluster_id;
    let lie = super::message::encode_notice(cluster, 9, 1, &super::message::Body::Removed);
    peer.consensus.handle_frame(PeerId::random(), &lie).unwrap();
    block_on(peer.consensus.propose(pin(1))).unwrap();
    assert!(!peer.consensus.status().removed);
    let request = ProposeRequest { cluster_id: cluster, id: 1, command: vec![0xff; 40] };
    let refused = block_on(peer.consensus.handle_propose(PeerId::random(), None, request)).unwrap_err();
    assert!(matches!(refused.kind(), Kind::Invalid | Kind::Version), "{refused}");
}

/// A follower brings a change to a leader that nobody hears any more: what comes of it, by `commit_retries`.
fn a_change_while_the_leader_is_lost(retries: u32) -> Result<Outcome> {
    let switch = Arc::new(Switch::default());
    let peers = cluster_with(&switch, 3, |c| c.commit_retries = retries);
    let leader = peers.iter().position(|p| p.consensus.status().leader == Some(p.raft_id)).unwrap();
    let follower = &peers[(leader + 1) % 3];
    switch.deaf.lock().insert(peers[leader].id);
    block_on(follower.consensus.propose(pin(1)))
}

#[test]
fn commit_retries_are_the_further_leaders_that_a_change_is_brought_to() {
    // The follower itself may be elected; one more leader is enough in either case.
    a_change_while_the_leader_is_lost(3).unwrap();
    let error = a_change_while_the_leader_is_lost(0).unwrap_err();
    assert!(error.message().contains("(consensus.raft.commit_retries is 0)"), "{error}");
}

#[test]
fn commit_retry_delay_is_the_pause_before_the_same_leader_is_asked_again() {
    let asked = |delay: u64| {
        let switch = Arc::new(Switch::default());
        let peers = cluster_with(&switch, 2, |c| {
            // Nobody is elected while the leader is away.
            (c.election, c.lease) = (Duration::from_secs(20), Duration::from_secs(40));
            c.commit_retry_delay = Duration::from_millis(delay);
        });
        let follower = peers.iter().find(|p| p.consensus.status().leader != Some(p.raft_id)).unwrap();
        switch.deaf.lock().insert(follower.id);
        let before = switch.asked.load(Ordering::Relaxed);
        let consensus = follower.consensus.clone();
        let change = crate::runtime::spawn(async move { consensus.propose(pin(1)).await });
        std::thread::sleep(Duration::from_secs(1));
        let asked = switch.asked.load(Ordering::Relaxed) - before;
        switch.deaf.lock().clear();
        block_on(change).unwrap();
        asked
    };
    let (often, seldom) = (asked(10), asked(900));
    assert!(often >= 10 && seldom <= 2, "{often} and {seldom} times in a second");
}

/// Not a test of correctness: `cargo test --release -- --ignored --nocapture commits_per_second`.
#[test]
#[ignore = "a measurement"]
fn commits_per_second() {
    for peers in [1, 3] {
        for clients in [1, 16, 64] {
            let switch = Arc::new(Switch::default());
            let all = cluster(&switch, peers);
            let leader = all.iter().find(|p| p.consensus.status().leader == Some(p.raft_id)).unwrap();
            let (each, started) = (20_000 / clients, Instant::now());
            let tasks: Vec<_> = (0..clients)
                .map(|c| {
                    let consensus = leader.consensus.clone();
                    crate::runtime::spawn(async move {
                        for n in 0..each {
                            consensus.propose(pin(c * 1_000_000 + n)).await.unwrap();
                        }
                    })
                })
                .collect();
            block_on(async {
                for task in tasks {
                    task.await;
                }
            });
            let rate = (clients * each) as f64 / started.elapsed().as_secs_f64();
            eprintln!("{peers} peers, {clients} clients: {rate:.0} commits/s");
        }
    }
}
