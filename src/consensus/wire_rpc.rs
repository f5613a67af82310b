//! The wire that ships: Raft frames and calls over the cluster's RPC.
//!
//! To each peer that is spoken to there is one *link*: a bounded queue and a task that keeps one long-lived
//! stream open and writes frames to it. A full queue or a broken stream loses frames, and Raft is told that the
//! peer was unreachable; it repeats what matters. A peer that cannot be reached is tried again with a growing
//! pause, in which its frames are dropped at once: stale Raft messages are worth nothing.
//!
//! The method that carries frames is open to whoever knows the cluster's secret, and consensus itself decides
//! whom to hear: a joiner must hear a leader that it does not know yet, and a removed peer must be able to
//! ask and be told. All other methods are for members.

use super::forward::{self, Forward};
use super::snapshot::{Chunk, ChunkStream, SnapshotRequest, IDLE, OPEN};
use super::wire::{MemberRequest, ProposeAnswer, ProposeRequest, ProposeSince, Wire};
use super::{Consensus, WeakConsensus};
use crate::error::{Error, Result};
use crate::net::rpc::{Access, Call, Handler, Rpc};
use crate::net::HostEvent;
use crate::runtime;
use crate::state::{Member, RaftId};
use async_trait::async_trait;
use bytes::Bytes;
use libp2p::PeerId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// Method of the long-lived streams of Raft frames.
pub const RAFT: &str = "raft";
/// Method by which a member asks the leader to commit commands, of the first cluster versions.
pub const PROPOSE: &str = "raft.propose";
/// The same, of those that say since when they may be in a log.
pub const PROPOSE_SINCE: &str = "raft.propose.since";
/// Method by which a member asks the leader for a membership change.
pub const MEMBER: &str = "raft.member";
/// Method by which a member fetches the whole state.
pub const SNAPSHOT: &str = "raft.snapshot";

/// Frames that wait for one peer; more are dropped.
const QUEUE: usize = 256;
/// Peers to which there are links at one time.
const MAX_LINKS: usize = 256;
/// A link that carried nothing for this long is closed.
const LINK_IDLE: Duration = Duration::from_secs(60);
/// The longest that opening a stream may take.
const DIAL: Duration = Duration::from_secs(5);
/// The longest that writing one frame may take.
const WRITE: Duration = Duration::from_secs(10);
/// The first pause after a failure …
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// … which doubles up to this: a peer that comes back is heard within a second.
const MAX_PAUSE: Duration = Duration::from_secs(1);

struct Letter {
    raft_id: RaftId,
    frame: Vec<u8>,
}

type Links = Arc<Mutex<HashMap<PeerId, async_channel::Sender<Letter>>>>;

/// See the module.
pub struct RpcWire {
    rpc: Rpc,
    links: Links,
    forward: Forward<ProposeRequest>,
    forward_since: Forward<ProposeSince>,
    consensus: Arc<OnceLock<WeakConsensus>>,
}

impl RpcWire {
    /// A wire over these calls. Consensus is started with it, then [`RpcWire::serve`] lets frames in.
    pub fn new(rpc: Rpc) -> Arc<RpcWire> {
        Arc::new(RpcWire {
            rpc,
            links: Links::default(),
            forward: Forward::new(PROPOSE),
            forward_since: Forward::new(PROPOSE_SINCE),
            consensus: Arc::default(),
        })
    }

    /// Registers the methods that other peers call. Once.
    pub fn serve(&self, consensus: &Consensus) {
        let weak = consensus.downgrade();
        let _ = self.consensus.set(weak.clone());
        self.rpc.register(RAFT, Access::Open, Arc::new(Frames(weak.clone())));
        self.rpc.register(PROPOSE, Access::Members, Arc::new(Propose(weak.clone())));
        self.rpc.register(PROPOSE_SINCE, Access::Members, Arc::new(ProposeDated(weak.clone())));
        self.rpc.register(MEMBER, Access::Members, Arc::new(Members(weak.clone())));
        self.rpc.register(SNAPSHOT, Access::Members, Arc::new(Snapshots(weak.clone())));
        runtime::spawn(tell_losses(self.rpc.host().events(), weak)).detach();
    }

    /// Tells the host where a member can be dialled, unless it knows better.
    fn introduce(&self, member: &Member) {
        let host = self.rpc.host();
        if !member.addresses.is_empty() && host.addresses_of(&member.peer_id).is_empty() {
            host.set_addresses(member.peer_id, member.addresses.clone());
        }
    }

    /// The queue to a peer, with its task running.
    fn link(&self, to: &Member) -> Option<async_channel::Sender<Letter>> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(&to.peer_id) {
            return Some(link.clone());
        }
        if links.len() >= MAX_LINKS {
            return None;
        }
        self.introduce(to);
        let (sender, letters) = async_channel::bounded(QUEUE);
        links.insert(to.peer_id, sender.clone());
        let link = Link {
            peer: to.peer_id,
            letters,
            rpc: self.rpc.clone(),
            links: Arc::downgrade(&self.links),
            consensus: self.consensus.clone(),
        };
        runtime::spawn(link.run()).detach();
        Some(sender)
    }
}

#[async_trait]
impl Wire for RpcWire {
    fn send(&self, to: &Member, raft_id: RaftId, frame: Vec<u8>) {
        let sent = self.link(to).is_some_and(|link| link.try_send(Letter { raft_id, frame }).is_ok());
        if !sent {
            unreachable(&self.consensus, raft_id);
        }
    }

    async fn propose(
        &self,
        leader: &Member,
        since: Option<u64>,
        request: ProposeRequest,
        limit: Duration,
    ) -> Result<ProposeAnswer> {
        self.introduce(leader);
        let (rpc, peer) = (&self.rpc, leader.peer_id);
        match since {
            Some(since) => {
                self.forward_since.propose(rpc, peer, ProposeSince { since, request }, limit).await
            }
            None => self.forward.propose(rpc, peer, request, limit).await,
        }
    }

    async fn change_members(&self, leader: &Member, request: MemberRequest, limit: Duration) -> Result<u64> {
        self.introduce(leader);
        self.rpc.call(leader.peer_id, MEMBER, &request, limit).await
    }

    async fn fetch_snapshot(&self, from: &Member, request: SnapshotRequest) -> Result<Box<dyn ChunkStream>> {
        self.introduce(from);
        let mut call = self.rpc.open(from.peer_id, SNAPSHOT, OPEN).await?;
        call.set_idle(IDLE);
        call.send(&request).await?;
        call.finish().await?;
        Ok(Box::new(Chunks(call)))
    }

    fn is_connected(&self, peer: &PeerId) -> bool {
        self.rpc.host().is_connected(peer)
    }
}

/// Tells consensus whose connection is gone, until either of them ends.
async fn tell_losses(events: async_channel::Receiver<HostEvent>, consensus: WeakConsensus) {
    while let Ok(event) = events.recv().await {
        if let HostEvent::Disconnected(peer) = event {
            let Some(consensus) = consensus.upgrade() else { return };
            consensus.handle_lost(peer);
        }
    }
}

fn unreachable(consensus: &OnceLock<WeakConsensus>, raft_id: RaftId) {
    if let Some(consensus) = consensus.get().and_then(WeakConsensus::upgrade) {
        consensus.handle_unreachable(raft_id);
    }
}

/// The task behind one queue.
struct Link {
    peer: PeerId,
    letters: async_channel::Receiver<Letter>,
    rpc: Rpc,
    links: Weak<Mutex<HashMap<PeerId, async_channel::Sender<Letter>>>>,
    consensus: Arc<OnceLock<WeakConsensus>>,
}

impl Link {
    async fn run(self) {
        let (mut call, mut pause, mut deaf_until) = (None, MIN_PAUSE, Instant::now());
        // Whether there was a connection when the last letter was lost.
        let mut connected = false;
        while let Some(letter) = self.next().await {
            // A peer that has come back since is heard at once, whatever the pause has grown to.
            let back = || !connected && self.rpc.host().is_connected(&self.peer);
            if Instant::now() < deaf_until && !back() {
                continue;
            }
            let raft_id = letter.raft_id;
            match self.write(&mut call, letter).await {
                Ok(()) => pause = MIN_PAUSE,
                Err(error) => {
                    log::debug!(target: super::LOG, "Raft messages to peer {} are lost: {error}", self.peer);
                    call = None;
                    connected = self.rpc.host().is_connected(&self.peer);
                    deaf_until = Instant::now() + pause;
                    pause = (pause * 2).min(MAX_PAUSE);
                    unreachable(&self.consensus, raft_id);
                }
            }
        }
    }

    /// The next letter; `None` when there was none for long, and the link is closed.
    async fn next(&self) -> Option<Letter> {
        loop {
            let letter =
                async { self.letters.recv().await.map_err(|_| Error::cancelled("the link was closed")) };
            match runtime::timeout(LINK_IDLE, "the next Raft message", letter).await {
                Ok(letter) => return Some(letter),
                Err(error) if error.kind() == crate::Kind::Cancelled => return None,
                Err(_) => {
                    let links = self.links.upgrade()?;
                    let mut links = links.lock();
                    // Under the lock nobody can be handed this queue any more; what is in it comes first.
                    if self.letters.is_empty() {
                        links.remove(&self.peer);
                        return None;
                    }
                }
            }
        }
    }

    /// Writes a letter and all that wait behind it, then flushes once.
    async fn write(&self, call: &mut Option<Call>, first: Letter) -> Result<()> {
        let open = match call {
            Some(open) => open,
            None => {
                let mut fresh = self.rpc.open(self.peer, RAFT, DIAL).await?;
                fresh.set_idle(WRITE);
                call.insert(fresh)
            }
        };
        let mut next = Some(first);
        while let Some(letter) = next {
            open.send_bytes(Bytes::from(letter.frame)).await?;
            next = self.letters.try_recv().ok();
        }
        open.flush().await
    }
}

struct Chunks(Call);

#[async_trait]
impl ChunkStream for Chunks {
    async fn next(&mut self) -> Result<Option<Chunk>> {
        self.0.recv().await
    }
}

fn running(consensus: &WeakConsensus) -> Result<Consensus> {
    consensus.upgrade().ok_or_else(|| Error::unavailable("this peer is shutting down"))
}

struct Frames(WeakConsensus);

#[async_trait]
impl Handler for Frames {
    async fn handle(&self, call: &mut Call) -> Result<()> {
        call.set_idle(LINK_IDLE * 2);
        let peer = call.peer();
        while let Some(frame) = call.recv_bytes().await? {
            running(&self.0)?.handle_frame(peer, &frame)?;
        }
        Ok(())
    }
}

struct Propose(WeakConsensus);

#[async_trait]
impl Handler for Propose {
    async fn handle(&self, call: &mut Call) -> Result<()> {
        let requests: Vec<ProposeRequest> = call.need().await?;
        propose_all(&self.0, call, requests.into_iter().map(|request| (None, request))).await
    }
}

struct ProposeDated(WeakConsensus);

#[async_trait]
impl Handler for ProposeDated {
    async fn handle(&self, call: &mut Call) -> Result<()> {
        let requests: Vec<ProposeSince> = call.need().await?;
        propose_all(&self.0, call, requests.into_iter().map(|r| (Some(r.since), r.request))).await
    }
}

/// Commits what came in one call, side by side, and answers in its order.
async fn propose_all(
    consensus: &WeakConsensus,
    call: &mut Call,
    requests: impl ExactSizeIterator<Item = (Option<u64>, ProposeRequest)>,
) -> Result<()> {
    if requests.len() > forward::MAX_BATCH {
        return Err(Error::too_large(format!(
            "peer {} sends {} changes in one call, more than the limit of {}",
            call.peer(),
            requests.len(),
            forward::MAX_BATCH
        )));
    }
    let (consensus, peer) = (running(consensus)?, call.peer());
    let all = requests.map(|(since, request)| consensus.handle_propose(peer, since, request));
    let answers: Vec<Result<ProposeAnswer>> = futures::future::join_all(all).await;
    call.send(&answers).await
}

struct Members(WeakConsensus);

#[async_trait]
impl Handler for Members {
    async fn handle(&self, call: &mut Call) -> Result<()> {
        let request: MemberRequest = call.need().await?;
        let answer = running(&self.0)?.handle_members(call.peer(), request).await?;
        call.send(&answer).await
    }
}

struct Snapshots(WeakConsensus);

#[async_trait]
impl Handler for Snapshots {
    async fn handle(&self, call: &mut Call) -> Result<()> {
        let request: SnapshotRequest = call.need().await?;
        call.set_idle(IDLE);
        let mut giving = running(&self.0)?.handle_snapshot(call.peer(), request).await?;
        while let Some(chunk) = giving.next().await? {
            call.send(&chunk).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::consensus::tests::config;
    use crate::consensus::Start;
    use crate::net::rpc::Membership;
    use crate::net::{Host, HostConfig};
    use crate::runtime::block_on;
    use crate::state::{Command, Pin, Role};
    use crate::store::memory::{MemoryLog, MemoryState};
    use crate::store::{StateStore, Table};

    const LIMIT: Duration = Duration::from_secs(30);

    #[derive(Default)]
    struct Gate(OnceLock<WeakConsensus>);

    impl Membership for Gate {
        fn is_member(&self, peer: &PeerId) -> bool {
            self.0.get().and_then(WeakConsensus::upgrade).is_some_and(|c| c.is_member(peer))
        }
    }

    struct Peer {
        host: Host,
        consensus: Consensus,
        state: MemoryState,
        member: Member,
    }

    async fn peer(raft_id: RaftId, start: Start) -> Peer {
        let host = Host::start(HostConfig {
            keypair: libp2p::identity::Keypair::generate_ed25519(),
            psk: Some([7; 32]),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            announce: Vec::new(),
            agent: "pinfold/test".to_owned(),
            protocol_version: "pinfold/test".to_owned(),
            dial_timeout: Duration::from_secs(5),
            mdns: None,
            max_connections: 50,
        })
        .await
        .unwrap();
        let gate = Arc::new(Gate::default());
        let wire = RpcWire::new(Rpc::start(host.clone(), gate.clone()).unwrap());
        let state = MemoryState::new();
        let (log, store) = (Box::new(MemoryLog::new(raft_id)), Arc::new(state.clone()));
        let consensus = Consensus::start(config(host.peer_id()), start, log, store, wire.clone()).unwrap();
        let _ = gate.0.set(consensus.downgrade());
        wire.serve(&consensus);
        let member = Member {
            raft_id,
            peer_id: host.peer_id(),
            name: format!("m{raft_id}"),
            addresses: host.addresses(),
            role: Role::Learner,
            version: String::new(),
            witness: false,
        };
        Peer { host, consensus, state, member }
    }

    fn pin(n: u64) -> Command {
        let digest = multihash::Multihash::wrap(0x12, &[n.to_be_bytes(); 4].concat()).unwrap();
        Command::Pin(Box::new(Pin::new(cid::Cid::new_v1(0x55, digest), Timestamp::from_secs(1))))
    }

    #[test]
    fn three_peers_agree_over_the_network() {
        block_on(async {
            let first = peer(1, Start::Found).await;
            first.consensus.wait_ready(LIMIT).await.unwrap();
            first.consensus.update_self(first.host.addresses(), false).await.unwrap();
            for n in 0..300 {
                first.consensus.propose(pin(n)).await.unwrap();
            }
            let cluster_id = first.consensus.status().cluster_id;
            let (second, third) =
                (peer(2, Start::Join { cluster_id }).await, peer(3, Start::Join { cluster_id }).await);
            for joiner in [&second, &third] {
                assert_eq!(first.consensus.add_member(joiner.member.clone()).await.unwrap(), cluster_id);
                joiner.consensus.wait_ready(LIMIT).await.unwrap();
                assert_eq!(joiner.state.count(Table::Pins), 300);
            }
            // Many at a follower: they travel together.
            let many = (0..200).map(|n| third.consensus.propose(pin(1_000 + n)));
            for result in futures::future::join_all(many).await {
                result.unwrap();
            }
            assert_eq!(third.state.count(Table::Pins), 500);
            let voters = |p: &Peer| p.consensus.members().iter().filter(|m| m.role == Role::Voter).count();
            let deadline = Instant::now() + LIMIT;
            while voters(&second) < 3 {
                assert!(Instant::now() < deadline, "all become voters");
                runtime::sleep(Duration::from_millis(10)).await;
            }
            // The first, by whom all came, dies; the others know each other from the replicated membership.
            first.consensus.stop().await;
            first.host.close().await;
            second.consensus.propose(pin(5_000)).await.unwrap();
            third.consensus.read_index().await.unwrap();
            assert_eq!(third.state.count(Table::Pins), 501);
        });
    }
}
