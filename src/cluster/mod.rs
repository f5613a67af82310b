//! The verbs of the product: pin, unpin, update, add, status, recover, peers, leave.
//!
//! [`Cluster`] is what every API and the daemon talk to. It decides (with the allocator), proposes (to
//! consensus), asks the other peers (by RPC) and merges their answers in bounded memory. It holds no state of
//! its own that is not replicated, measured or in flight. Reads are local and may be a moment old; writes
//! are answered when a majority has them durably.

mod add;
mod bulk;
mod clocks;
mod content;
pub mod founding;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/calls.rs"]
pub(crate) mod fuzz;
mod holders;
mod holding;
mod informers;
mod leave;
mod peers;
mod pins;
mod repin;
mod repos;
mod rpc;
mod status;
mod time;
mod twins;
mod version;
mod witness;

pub use add::{AddOptions, AddPart, PartKind};
pub use bulk::{Imported, Line, Refused};
pub use holding::Holding;
pub use informers::{DiskMetric, Informer, Measure};
pub use repin::{MoveProgress, PeerShare};
pub use rpc::{join, JoinReply, JoinRequest};
pub use witness::join as join_as_witness;

use crate::api::types::{Alert, Bandwidth, Metric, Version};
use crate::clock::Timestamp;
use crate::consensus::Consensus;
use crate::ipfs::Ipfs;
use crate::monitor::Monitor;
use crate::net::rpc::Rpc;
use crate::store::StateStore;
use crate::tracker::Tracker;
use libp2p::PeerId;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one peer may take to answer one question; then it counts as unreachable.
const PEER_TIMEOUT: Duration = Duration::from_secs(15);
/// What the peers speak with each other, as `GET /id` says it.
pub const RPC_PROTOCOL: &str = crate::net::rpc::PROTOCOL;

/// Settings, from `cluster`, `allocator`, `monitor` and `informer` of service.json.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Default fewest copies.
    pub replication_min: i32,
    /// Default most copies.
    pub replication_max: i32,
    /// Between two pings; a ping lives twice as long.
    pub ping_interval: Duration,
    /// Between two looks for expired metrics.
    pub check_interval: Duration,
    /// Metric names that allocation goes by, in order.
    pub allocate_by: Vec<String>,
    /// What this peer measures and tells about itself.
    pub informers: Vec<Informer>,
    /// After so many pins the disk is measured out of turn; 0: never.
    pub informer_trigger: u32,
    /// Whether copies of the dead are made anew.
    pub repin: bool,
    /// How long a peer may be silent beyond its last ping before it counts as dead.
    pub repin_grace: Duration,
    /// There while this peer is drained.
    pub drained_file: PathBuf,
    /// When the IPFS daemons are first connected with each other; `None`: never.
    pub connect_swarms: Option<Duration>,
    /// Between two looks for expired pins (the leader's task).
    pub state_sync_interval: Duration,
    /// Whether this peer is a witness: it votes and holds no content.
    pub witness: bool,
}

/// The readings of everybody.
struct Readings {
    monitor: Mutex<Monitor>,
    started: Instant,
}

impl Default for Readings {
    fn default() -> Self {
        Readings { monitor: Mutex::default(), started: Instant::now() }
    }
}

impl Readings {
    fn lock(&self) -> MutexGuard<'_, Monitor> {
        self.monitor.lock()
    }

    /// Monotonic milliseconds, the monitor's clock.
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// Everything a [`Cluster`] works with.
pub struct Parts {
    /// Our libp2p identity.
    pub me: PeerId,
    /// Our name.
    pub name: String,
    /// Calls to the other peers.
    pub rpc: Rpc,
    /// Raft.
    pub consensus: Consensus,
    /// The replicated state, for reading.
    pub state: Arc<dyn StateStore>,
    /// This peer's tracker.
    pub tracker: Tracker,
    /// This peer's IPFS node.
    pub ipfs: Arc<dyn Ipfs>,
    /// Settings.
    pub settings: Settings,
}

/// Handle to the running cluster peer; clone is cheap.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    readings: Arc<Readings>,
    /// Full when a member told of an IPFS node that is new to us: it need not wait for the next round.
    new_node: (async_channel::Sender<()>, async_channel::Receiver<()>),
    repin: repin::Shared,
    /// The earliest expiry of all pins (`None`: no pin has one) as of this applied index.
    next_expiry: Mutex<Option<(u64, Option<Timestamp>)>>,
    tasks: Mutex<Vec<smol::Task<()>>>,
}

impl std::ops::Deref for Inner {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Cluster {
    /// Starts answering the other peers, measuring, and looking after expired pins.
    pub fn start(parts: Parts) -> Cluster {
        let repin = repin::Shared::new(parts.settings.drained_file.clone());
        let cluster = Cluster {
            inner: Arc::new(Inner {
                repin,
                parts,
                readings: Arc::default(),
                new_node: async_channel::bounded(1),
                next_expiry: Mutex::new(None),
                tasks: Mutex::new(Vec::new()),
            }),
        };
        rpc::register(&cluster);
        repin::register(&cluster);
        status::sync::register(&cluster);
        clocks::register(&cluster);
        witness::register(&cluster);
        let tasks = informers::start(&cluster);
        cluster.inner.tasks.lock().extend(tasks);
        cluster
    }

    /// Stops measuring; calls that are under way end by their own limits.
    pub async fn stop(&self) {
        let tasks: Vec<_> = self.inner.tasks.lock().drain(..).collect();
        for task in tasks {
            task.cancel().await;
        }
    }

    /// `GET /version`.
    pub fn version(&self) -> Version {
        Version { version: crate::VERSION.into() }
    }

    /// Raft.
    pub fn consensus(&self) -> &Consensus {
        &self.inner.consensus
    }

    /// Names of known metrics.
    pub fn metric_names(&self) -> Vec<String> {
        self.inner.readings.lock().names()
    }

    /// Last valid metric of each current member, sorted by peer.
    pub fn metrics(&self, name: &str) -> Vec<Metric> {
        let readings = &self.inner.readings;
        readings.lock().metrics(name, &self.member_ids(), readings.now_ms(), Timestamp::now())
    }

    /// Newest first.
    pub fn alerts(&self) -> Vec<Alert> {
        self.inner.readings.lock().alerts()
    }

    /// Bytes by protocol since the start.
    pub fn bandwidth(&self) -> BTreeMap<String, Bandwidth> {
        let (total_in, total_out) = self.inner.rpc.host().bandwidth();
        let seconds = self.inner.readings.started.elapsed().as_secs_f64().max(1.0);
        let entry = Bandwidth {
            total_in,
            total_out,
            rate_in: total_in as f64 / seconds,
            rate_out: total_out as f64 / seconds,
        };
        BTreeMap::from([(RPC_PROTOCOL.to_string(), entry)])
    }

    fn member_ids(&self) -> Vec<PeerId> {
        self.inner.consensus.members().into_iter().map(|m| m.peer_id).collect()
    }

    /// The name of a member: replicated, else as its last ping said.
    fn peer_name(&self, peer: &PeerId) -> String {
        let members = self.inner.consensus.members();
        members.into_iter().find(|m| m.peer_id == *peer).map(|m| m.name).unwrap_or_default()
    }
}
