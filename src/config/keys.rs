//! The table: every key of service.json, with its type, default, meaning and effect.
//!
//! The defaults and the order are those of ipfs-cluster 1.x, so that its files load unchanged and a file
//! written here can go back. The only keys of our own are the section `ipfs_connector.embedded`,
//! `consensus.raft.max_voters` and `open_to_network` of the APIs. [`super::keys()`] lists the table for the
//! documentation and for the check for misspelt keys.
//!
//! A key that ipfs-cluster has and this program does not need is kept, with `NoEffect` and the reason;
//! setting such a key to something else than its default is answered with a warning.

use super::address;
use super::schema::{section, Node, Place, Visitor};
use super::setting::{ByteSize, Credentials, DiskMetric, Hidden, Network, Secret};
use crate::error::Result;
use libp2p::Multiaddr;
use std::collections::BTreeMap;
use std::time::Duration;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

/// Addresses of the table itself.
fn at(list: &[&str]) -> Vec<Multiaddr> {
    list.iter().map(|s| s.parse().expect("the table's own addresses are multiaddresses")).collect()
}

/// The name of this machine, as peers are called by default.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() {
        "pinfold".into()
    } else {
        name
    }
}

section! {
    /// Section `cluster`: who this peer is and how the cluster behaves.
    ClusterConfig {
        /// Name of this peer, shown to people.
        peername: String = host_name(), Shown("the host name");
        /// What every peer of the cluster must know to talk to the others; empty: anyone may.
        secret: Secret = Secret::NONE;
        /// Leave the cluster at every stop, instead of staying a member that is away.
        leave_on_shutdown: bool = false;
        /// Where this peer listens for the others. Only TCP addresses are used.
        listen_multiaddress: Vec<Multiaddr> = at(&["/ip4/0.0.0.0/tcp/9096", "/ip4/0.0.0.0/udp/9096/quic"]);
        /// Addresses to tell others instead of those of the interfaces.
        announce_multiaddress: Vec<Multiaddr> = Vec::new(), List;
        /// Addresses never to tell others.
        no_announce_multiaddress: Vec<Multiaddr> = Vec::new(), List, NoEffect("write those that others should be told into announce_multiaddress");
        /// Help others through firewalls.
        enable_relay_hop: bool = true, Silent, NoEffect("peers connect directly, without relays");
        /// How many connections to keep.
        connection_manager: ConnectionManager = ConnectionManager::default();
        /// Limits on libp2p's use of resources.
        resource_manager: ResourceManager = ResourceManager::default();
        /// How metrics spread.
        pubsub: PubSub = PubSub::default();
        /// Longest time for one attempt to connect to a peer.
        dial_peer_timeout: Duration = secs(3);
        /// How often the shared state is compared with what this peer knows of its pins, and expired pins are looked for.
        state_sync_interval: Duration = secs(300);
        /// How often pins are compared with the IPFS node, and whatever is not as it should be is tried again.
        pin_recover_interval: Duration = secs(720);
        /// Fewest copies of a pin that does not say; -1: on every peer.
        replication_factor_min: i32 = -1, Zero;
        /// Most copies of a pin that does not say; -1: on every peer.
        replication_factor_max: i32 = -1, Zero;
        /// How often a peer tells the others that it lives.
        monitor_ping_interval: Duration = secs(15);
        /// How often the list of members is looked at for changes.
        peer_watch_interval: Duration = secs(5), Silent, NoEffect("members change by the log, and every change is noticed at once");
        /// How often peers are looked for on the local network; "0s": never.
        mdns_interval: Duration = secs(10), Zero;
        /// Allocate only to trusted peers.
        pin_only_on_trusted_peers: bool = false, NoEffect("under Raft every member is trusted");
        /// Allocate only to peers that are not trusted.
        pin_only_on_untrusted_peers: bool = false, NoEffect("under Raft every member is trusted");
        /// Do not make new copies when a peer dies. `pinfold init` and `up` write false.
        disable_repinning: bool = true;
        /// Follow without taking part.
        follower_mode: bool = false, Optional, NoEffect("every member of a Raft cluster takes part");
        /// File of known addresses, relative to the folder.
        peerstore_file: String = "peerstore".into(), Optional;
        /// Addresses of peers to connect to, with `/p2p/<peer id>`.
        peer_addresses: Vec<Multiaddr> = Vec::new(), List;
        /// The founding set, with `/p2p/<peer id>`: the peers that make a cluster together when all are fresh.
        peers: Vec<Multiaddr> = Vec::new(), Optional, List;
        /// Peers of an existing cluster, with `/p2p/<peer id>`: a fresh peer joins through one of them.
        bootstrap: Vec<Multiaddr> = Vec::new(), Optional, List;
        /// How often pins are compared with what the IPFS node really has, only to show it; "0s": at every
        /// pin_recover_interval.
        ipfs_sync_interval: Duration = Duration::ZERO, Optional, Zero;
        /// How long a peer may be silent beyond its last ping's life before its content is copied elsewhere: a
        /// reboot should not copy terabytes; "0s": at once.
        repin_grace: Duration = secs(30), Optional, Zero;
    }
}

section! {
    /// Section `cluster.connection_manager`.
    ConnectionManager {
        /// More connections than this are not accepted.
        high_water: u32 = 400, Unit("connections");
        /// Trimming stops here.
        low_water: u32 = 100, Unit("connections"), NoEffect("connections beyond high_water are refused, not trimmed");
        /// Connections younger than this are not trimmed.
        grace_period: Duration = secs(120), NoEffect("connections beyond high_water are refused, not trimmed");
    }
}

section! {
    /// Section `cluster.resource_manager`.
    ResourceManager {
        /// Whether libp2p limits itself.
        enabled: bool = true, NoEffect("every queue and buffer has a fixed limit");
        /// Memory for libp2p; 0: a quarter of the machine's.
        memory_limit_bytes: u64 = 0, Unit("bytes"), NoEffect("every queue and buffer has a fixed limit");
        /// File descriptors for libp2p; 0: half of the limit.
        file_descriptors_limit: u64 = 0, NoEffect("every queue and buffer has a fixed limit");
    }
}

section! {
    /// Section `cluster.pubsub`.
    PubSub {
        /// How long messages are remembered.
        seen_messages_ttl: Duration = secs(1800), NoEffect("metrics travel by direct calls");
        /// Between two rounds of gossip.
        heartbeat_interval: Duration = secs(10), NoEffect("metrics travel by direct calls");
        /// Neighbours in the mesh.
        d_factor: u32 = 4, NoEffect("metrics travel by direct calls");
        /// Rounds that are gossiped about.
        history_gossip: u32 = 2, NoEffect("metrics travel by direct calls");
        /// Rounds that are kept.
        history_length: u32 = 6, NoEffect("metrics travel by direct calls");
        /// Send one's own messages to everyone.
        flood_publish: bool = false, NoEffect("metrics travel by direct calls");
    }
}

section! {
    /// Section `consensus.raft`. See [`RaftSection::timing`] for the two ways to write the times.
    RaftSection {
        /// The founding set by peer id, beside cluster.peers; addresses come from the peerstore or from mDNS.
        init_peerset: Vec<String> = Vec::new(), List;
        /// Longest wait for a leader, at start and for each write.
        wait_for_leader_timeout: Duration = secs(15);
        /// Longest time for one call to another peer.
        network_timeout: Duration = secs(10);
        /// To how many further leaders a write is brought, when one loses its office before it is committed. A
        /// leader that cannot be reached is waited for as long as network_timeout and wait_for_leader_timeout allow.
        commit_retries: u32 = 1, Zero, ZeroWhenMissing;
        /// Before a leader that did not take a write is asked again; another leader is asked at once.
        commit_retry_delay: Duration = Duration::from_millis(200);
        /// Old data folders to keep.
        backups_rotate: u32 = 6, Zero;
        /// Between two heartbeats of the leader; at ipfs-cluster's default of "1s" (not below half of
        /// election_timeout), the time without a heartbeat after which an election starts: a fifth of it is then used.
        heartbeat_timeout: Duration = secs(1);
        /// Shortest time without a leader after which an election starts; the real one is random, up to twice that.
        election_timeout: Duration = secs(1);
        /// How late a follower may hear of a commit when the message that tells it was lost, in steps of a quarter
        /// of a heartbeat; usually it is told at once.
        commit_timeout: Duration = Duration::from_millis(50);
        /// Most entries in one append message, which also holds no more than 512 KiB.
        max_append_entries: u32 = 64, Unit("entries");
        /// Entries kept in the log for peers that were away for a short time.
        trailing_logs: u64 = 10240, Unit("entries");
        /// How often the log is looked at for truncation; at four times snapshot_threshold it is truncated at once.
        snapshot_interval: Duration = secs(120);
        /// Entries that must be superfluous before the log is truncated.
        snapshot_threshold: u64 = 8192, Unit("entries");
        /// How long beyond election_timeout a leader that hears from no majority stays one: at most another
        /// election_timeout, which is also what a lease as long as heartbeat_timeout means.
        leader_lease_timeout: Duration = Duration::from_millis(500);
        /// Folder of the data, relative to the configuration's, or a whole path.
        data_folder: String = "raft".into(), Optional;
        /// Prefix of keys in ipfs-cluster's store.
        datastore_namespace: String = "/r".into(), Optional, NoEffect("the state has a store of its own");
        /// Most members that vote; further ones follow and do all other work.
        max_voters: u32 = 7, Optional;
        /// Be a witness: vote, keep the log and the pin list, hold no content and run no IPFS node (ipfs_connector is
        /// not used then). The third vote of a home with two boards.
        witness: bool = false, Optional;
    }
}

/// Fastest heartbeat that a small board keeps up under load.
pub const MIN_HEARTBEAT: Duration = Duration::from_millis(20);

impl RaftSection {
    /// What Raft runs with: time between heartbeats, and the shortest election timeout.
    ///
    /// ipfs-cluster's `heartbeat_timeout` is how long a follower waits in vain for a heartbeat (its library
    /// sends one about every tenth of that), so its files have `heartbeat_timeout` near or equal to
    /// `election_timeout`. Files of our own name the interval itself, well below the election timeout. The
    /// two are told apart by their ratio: from a half upwards it cannot be an interval.
    pub fn timing(&self) -> (Duration, Duration) {
        let (heartbeat, election) = if self.heartbeat_timeout.saturating_mul(2) <= self.election_timeout {
            (self.heartbeat_timeout, self.election_timeout)
        } else {
            (self.heartbeat_timeout / 5, self.election_timeout.max(self.heartbeat_timeout))
        };
        (heartbeat.max(MIN_HEARTBEAT), election.max(MIN_HEARTBEAT * 4))
    }

    /// How long a leader that hears from no majority stays one, in all.
    ///
    /// Never less than an election timeout: followers would not elect another one earlier, and a disk that stalls
    /// for a moment must not cost an election. ipfs-cluster refuses a lease longer than its heartbeat_timeout, so
    /// that the longest that can be written there is the longest that Raft allows here.
    pub fn lease(&self) -> Duration {
        let (_, election) = self.timing();
        let beyond = if self.leader_lease_timeout >= self.heartbeat_timeout {
            election
        } else {
            self.leader_lease_timeout.min(election)
        };
        election + beyond
    }
}

section! {
    /// Section `consensus.crdt`, for files that ipfs-cluster made for its other consensus: accepted, and Raft runs under it.
    CrdtSection {
        /// Name of the cluster.
        cluster_name: String = "ipfs-cluster".into(), NoEffect("Raft runs under a crdt section");
        /// Peers that may change the state; "*": all.
        trusted_peers: Vec<String> = texts(&["*"]), List, NoEffect("under Raft every member is trusted");
        /// How writes are gathered.
        batching: CrdtBatching = CrdtBatching::default();
        /// How often damage is looked for.
        repair_interval: Duration = secs(3600), NoEffect("Raft runs under a crdt section");
        /// How often heads are announced.
        rebroadcast_interval: Duration = secs(60), Optional, NoEffect("Raft runs under a crdt section");
        /// Metric that makes a peer count as a member.
        peerset_metric: String = "ping".into(), Optional, NoEffect("Raft runs under a crdt section");
        /// Prefix of keys in ipfs-cluster's store.
        datastore_namespace: String = "/c".into(), Optional, NoEffect("Raft runs under a crdt section");
    }
}

section! {
    /// Section `consensus.crdt.batching`.
    CrdtBatching {
        /// Writes in one batch.
        max_batch_size: u32 = 0, NoEffect("writes are gathered without delay");
        /// Longest wait for a batch.
        max_batch_age: Duration = Duration::ZERO, NoEffect("writes are gathered without delay");
        /// Writes that may wait.
        max_queue_size: u32 = 50_000, Optional, NoEffect("writes are gathered without delay");
    }
}

section! {
    /// Sections `api.restapi` and `api.pinsvcapi`: an HTTP API. Absent: off.
    RestApiConfig {
        /// Where to listen.
        http_listen_multiaddress: Vec<Multiaddr> = at(&["/ip4/127.0.0.1/tcp/9094"]);
        /// Certificate chain (PEM), relative to the folder; with ssl_key_file, the API speaks only TLS.
        ssl_cert_file: String = String::new(), Optional;
        /// Private key (PEM), relative to the folder.
        ssl_key_file: String = String::new(), Optional;
        /// Longest time for reading a request; "0s": no limit but that of progress.
        read_timeout: Duration = Duration::ZERO, Zero;
        /// Longest time for reading a request's headers.
        read_header_timeout: Duration = secs(5);
        /// Longest time for writing an answer; "0s": no limit but that of progress.
        write_timeout: Duration = Duration::ZERO, Zero;
        /// How long a connection may wait for its next request.
        idle_timeout: Duration = secs(120);
        /// Most bytes of headers.
        max_header_bytes: u32 = 4096, Unit("bytes");
        /// Addresses of the API inside libp2p.
        libp2p_listen_multiaddress: Vec<Multiaddr> = Vec::new(), Optional, NoEffect("the API is served over TCP only");
        /// Peer id of the API inside libp2p.
        id: String = String::new(), Optional, NoEffect("the API is served over TCP only");
        /// Private key of the API inside libp2p.
        private_key: Hidden = Hidden::default(), Optional, NoEffect("the API is served over TCP only");
        /// Users and passwords (plain, or made by `pinfold hash-password`); null: nobody is asked.
        basic_auth_credentials: Credentials = Credentials::default();
        /// File for a line per request; empty: the log.
        http_log_file: String = String::new();
        /// Headers added to every answer.
        headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        /// Origins that browsers may call from.
        cors_allowed_origins: Vec<String> = texts(&["*"]), List;
        /// Methods that browsers may use.
        cors_allowed_methods: Vec<String> = texts(&["GET"]), List;
        /// Headers that browsers may send.
        cors_allowed_headers: Vec<String> = Vec::new(), List;
        /// Headers that browsers may show to scripts.
        cors_exposed_headers: Vec<String> = texts(&["Content-Type", "X-Stream-Output", "X-Chunked-Output", "X-Content-Length"]), List;
        /// Whether browsers may send credentials.
        cors_allow_credentials: bool = true;
        /// How long browsers may remember these answers; "0s": their own default.
        cors_max_age: Duration = Duration::ZERO, Zero;
        /// Listen beyond this machine without asking for a password: whoever reaches the port commands the peer.
        open_to_network: bool = false, Optional;
        /// Further names (without port) under which the API may be asked while it asks for no password, as behind a
        /// proxy of your own; "*": any. IP addresses and local names always may.
        allowed_hosts: Vec<String> = Vec::new(), Optional, List;
        /// Most connections at once; when all are taken, the one that has been idle longest makes room.
        max_connections: u32 = 512, Unit("connections"), Optional;
        /// Most connections at once from one address that is not this machine's loopback.
        max_connections_per_address: u32 = 128, Unit("connections"), Optional;
    }
}

impl RestApiConfig {
    /// The defaults of the pinning service API, which differ in the port.
    pub fn pinning_service() -> Self {
        RestApiConfig { http_listen_multiaddress: at(&["/ip4/127.0.0.1/tcp/9097"]), ..Self::default() }
    }

    /// Whether it speaks TLS.
    pub fn tls(&self) -> bool {
        !self.ssl_cert_file.is_empty()
    }
}

section! {
    /// Section `api.ipfsproxy`: looks like an IPFS daemon, pins in the cluster. Absent: off.
    IpfsProxyConfig {
        /// Where to listen.
        listen_multiaddress: Vec<Multiaddr> = at(&["/ip4/127.0.0.1/tcp/9095"]);
        /// The IPFS daemon that answers the rest; without effect with the embedded node, which answers itself.
        node_multiaddress: Vec<Multiaddr> = at(&["/ip4/127.0.0.1/tcp/5001"]);
        /// Speak TLS to the daemon.
        node_https: bool = false, Optional;
        /// File for a line per request; empty: the log.
        log_file: String = String::new();
        /// Longest time for reading a request; "0s": no limit but that of progress.
        read_timeout: Duration = Duration::ZERO, Zero;
        /// Longest time for reading a request's headers.
        read_header_timeout: Duration = secs(5);
        /// Longest time for writing an answer; "0s": no limit but that of progress.
        write_timeout: Duration = Duration::ZERO, Zero;
        /// How long a connection may wait for its next request.
        idle_timeout: Duration = secs(60);
        /// Most bytes of headers.
        max_header_bytes: u32 = 4096, Unit("bytes");
        /// Further headers of the daemon's answers to copy.
        extract_headers_extra: Vec<String> = Vec::new(), Optional, List;
        /// Path of the daemon that is asked for headers.
        extract_headers_path: String = "/api/v0/version".into(), Optional;
        /// How long the daemon's headers are remembered; "0s": for ever.
        extract_headers_ttl: Duration = secs(300), Optional, Zero;
        /// Listen beyond this machine without asking for a password: whoever reaches the port can pin and unpin.
        open_to_network: bool = false, Optional;
        /// Users and passwords (plain, or made by `pinfold hash-password`); null: nobody is asked.
        basic_auth_credentials: Credentials = Credentials::default(), Optional;
        /// Further names (without port) under which the proxy may be asked while it asks for no password, as behind
        /// a proxy of your own; "*": any. IP addresses and local names always may.
        allowed_hosts: Vec<String> = Vec::new(), Optional, List;
        /// Most connections at once; when all are taken, the one that has been idle longest makes room.
        max_connections: u32 = 512, Unit("connections"), Optional;
        /// Most connections at once from one address that is not this machine's loopback.
        max_connections_per_address: u32 = 128, Unit("connections"), Optional;
    }
}

section! {
    /// Section `ipfs_connector.ipfshttp`: an IPFS daemon (Kubo) beside this peer.
    IpfsHttpConfig {
        /// Where the daemon's RPC API listens.
        node_multiaddress: Vec<Multiaddr> = at(&["/ip4/127.0.0.1/tcp/5001"]);
        /// After the start and after a new peer, when to connect the IPFS nodes to each other; "0s": never.
        connect_swarms_delay: Duration = secs(30), Zero;
        /// Longest time for a plain request.
        ipfs_request_timeout: Duration = secs(300);
        /// How long a pin may go without progress.
        pin_timeout: Duration = secs(120);
        /// How long an unpin may take.
        unpin_timeout: Duration = secs(3 * 3600);
        /// How long a garbage collection may take.
        repogc_timeout: Duration = secs(24 * 3600);
        /// Measure the free space anew after so many pins; 0: only at intervals.
        informer_trigger_interval: u32 = 0, Unit("pins"), Zero;
        /// Refuse to unpin.
        unpin_disable: bool = false, Optional;
    }
}

section! {
    /// Section `ipfs_connector.embedded`: the IPFS node inside this process.
    EmbeddedSection {
        /// Folder of the blocks, relative to the configuration's, or a whole path, as on a disk of their own.
        data_folder: String = "ipfs".into();
        /// Where the node listens for other IPFS nodes.
        listen_multiaddress: Vec<Multiaddr> = at(&["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"]);
        /// Addresses to tell others instead of those of the interfaces.
        announce_multiaddress: Vec<Multiaddr> = Vec::new(), Optional, List;
        /// Whom it talks to: "private" (the nodes of this cluster) or "public" (everyone).
        network: Network = Network::Private;
        /// Key file of a private network, relative to the folder; empty: made from cluster.secret.
        swarm_key_file: String = String::new();
        /// Most bytes of blocks; beyond it nothing more is taken.
        storage_max: ByteSize = ByteSize(10_000_000_000);
        /// How long a pin may go without progress.
        pin_timeout: Duration = secs(120);
        /// After the start and after a new peer, when to connect the nodes to each other; "0s": never.
        connect_swarms_delay: Duration = secs(1), Zero;
        /// How often unpinned blocks are removed; "0s": only on request.
        gc_interval: Duration = Duration::ZERO, Optional, Zero;
    }
}

/// Section `ipfs_connector`: which IPFS node this peer works with.
#[derive(Clone, Debug, PartialEq)]
pub enum IpfsSection {
    /// A daemon over HTTP.
    Http(IpfsHttpConfig),
    /// The node inside this process.
    Embedded(EmbeddedSection),
}

impl Default for IpfsSection {
    fn default() -> Self {
        IpfsSection::Http(IpfsHttpConfig::default())
    }
}

impl Node for IpfsSection {
    /// Both kinds are walked as sections that may be absent. The loader has made sure that a file has
    /// only one; a walk that lists the keys meets both and throws the values away.
    fn visit<V: Visitor>(&mut self, at: &Place, _default: &Self, visitor: &mut V) -> Result<()> {
        let (mut http, mut embedded) = match self.clone() {
            IpfsSection::Http(section) => (Some(section), None),
            IpfsSection::Embedded(section) => (None, Some(section)),
        };
        http.visit(&at.field("ipfshttp", "", &[]), &None, visitor)?;
        embedded.visit(&at.field("embedded", "", &[]), &None, visitor)?;
        match (http, embedded) {
            (_, Some(section)) => *self = IpfsSection::Embedded(section),
            (Some(section), None) => *self = IpfsSection::Http(section),
            (None, None) => *self = IpfsSection::default(),
        }
        Ok(())
    }
}

section! {
    /// Section `pin_tracker.stateless`: how this peer makes its IPFS node agree.
    PinTrackerSection {
        /// Pins at work at once.
        concurrent_pins: u32 = 10;
        /// Pins older than this wait behind younger ones.
        priority_pin_max_age: Duration = secs(24 * 3600);
        /// Pins that failed more often than this wait behind the others.
        priority_pin_max_retries: u32 = 5;
        /// Most pins that wait in memory, up to 10,000; the others wait on disk.
        max_pin_queue_size: u32 = 1_000_000, Optional;
    }
}

section! {
    /// Section `monitor.pubsubmon`: how a dead peer is noticed.
    MonitorSection {
        /// How often the metrics of the others are looked at.
        check_interval: Duration = secs(15);
    }
}

section! {
    /// Section `allocator.balanced`: who gets a pin.
    AllocatorSection {
        /// Metrics to choose by, the most important first: "freespace", "reposize", "pinqueue", "numpin" or "tag:" and a name.
        allocate_by: Vec<String> = texts(&["tag:group", "freespace"]), List;
    }
}

section! {
    /// Section `informer`: what this peer tells the others about itself. A kind that is absent is not told.
    InformerSection {
        /// Disk.
        disk: Option<DiskInformer> = Some(DiskInformer::default());
        /// Queue.
        pinqueue: Option<PinQueueInformer> = Some(PinQueueInformer::default());
        /// Tags.
        tags: Option<TagsInformer> = Some(TagsInformer::default());
        /// Number of pins.
        numpin: Option<NumPinInformer> = None;
    }
}

section! {
    /// Section `informer.disk`.
    DiskInformer {
        /// How long a value is good; a new one is told twice as often.
        metric_ttl: Duration = secs(30);
        /// What is measured: "freespace" or "reposize".
        metric_type: DiskMetric = DiskMetric::FreeSpace;
    }
}

section! {
    /// Section `informer.tags`.
    TagsInformer {
        /// How long a value is good; a new one is told twice as often.
        metric_ttl: Duration = secs(30);
        /// Tags of this peer: copies go to peers whose values differ.
        tags: BTreeMap<String, String> = [("group".to_owned(), "default".to_owned())].into();
    }
}

section! {
    /// Section `informer.pinqueue`.
    PinQueueInformer {
        /// How long a value is good; a new one is told twice as often.
        metric_ttl: Duration = secs(30);
        /// Queues are compared in steps of this size.
        weight_bucket_size: u64 = 100_000, Unit("pins");
    }
}

section! {
    /// Section `informer.numpin`.
    NumPinInformer {
        /// How long a value is good; a new one is told twice as often.
        metric_ttl: Duration = secs(10);
    }
}

section! {
    /// Section `observations.metrics`: figures for Prometheus.
    MetricsSection {
        /// Serve them.
        enable_stats: bool = false, NoEffect("there are no figures for Prometheus yet; see `pinfold health`");
        /// Where to serve them.
        prometheus_endpoint: Vec<Multiaddr> = at(&["/ip4/127.0.0.1/tcp/8888"]), NoEffect("there are no figures for Prometheus yet");
        /// How often figures that cost work are measured.
        reporting_interval: Duration = secs(30), NoEffect("there are no figures for Prometheus yet");
    }
}

section! {
    /// Section `observations.tracing`.
    TracingSection {
        /// Send traces.
        enable_tracing: bool = false, NoEffect("there is no tracing; the log has levels per facility");
        /// Where to send them.
        jaeger_agent_endpoint: Vec<Multiaddr> = at(&["/ip4/0.0.0.0/udp/6831"]), NoEffect("there is no tracing");
        /// Share of operations that are traced.
        sampling_prob: f64 = 0.3, NoEffect("there is no tracing");
        /// Name of this service in the traces.
        service_name: String = "cluster-daemon".into(), NoEffect("there is no tracing");
    }
}

section! {
    /// Section `observations`.
    Observations {
        /// Figures.
        metrics: MetricsSection = MetricsSection::default();
        /// Traces.
        tracing: TracingSection = TracingSection::default();
    }
}

impl ClusterConfig {
    /// The listen addresses that can be used: those of TCP.
    pub fn listen_tcp(&self) -> Vec<Multiaddr> {
        self.listen_multiaddress.iter().filter(|a| address::is_tcp(a)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(heartbeat: u64, election: u64) -> (u64, u64) {
        let raft = RaftSection {
            heartbeat_timeout: Duration::from_millis(heartbeat),
            election_timeout: Duration::from_millis(election),
            ..RaftSection::default()
        };
        let (h, e) = raft.timing();
        (h.as_millis() as u64, e.as_millis() as u64)
    }

    #[test]
    fn times_of_both_kinds_of_files_are_understood() {
        assert_eq!(timing(1000, 1000), (200, 1000), "ipfs-cluster's default");
        assert_eq!(timing(5000, 5000), (1000, 5000), "ipfs-cluster over a WAN");
        assert_eq!(timing(100, 400), (100, 400), "our own default");
        assert_eq!(timing(500, 1000), (500, 1000));
        assert_eq!(timing(3000, 1000), (600, 3000), "an election never comes before the heartbeat");
        assert_eq!(timing(1, 1), (20, 80), "never faster than a board can keep up");
    }

    #[test]
    fn a_lease_lasts_between_one_and_two_election_timeouts() {
        let lease = |heartbeat: u64, election: u64, lease: u64| {
            let [heartbeat_timeout, election_timeout, leader_lease_timeout] =
                [heartbeat, election, lease].map(Duration::from_millis);
            let raft = RaftSection {
                heartbeat_timeout,
                election_timeout,
                leader_lease_timeout,
                ..RaftSection::default()
            };
            raft.lease().as_millis() as u64
        };
        assert_eq!(lease(1000, 1000, 500), 1500, "ipfs-cluster's default");
        assert_eq!(lease(1000, 1000, 1000), 2000, "the longest that can be written there");
        assert_eq!(lease(100, 400, 100), 800, "our own default: Raft's own limit");
        assert_eq!(lease(100, 400, 50), 450);
        assert_eq!(lease(5000, 5000, 1), 5001);
    }
}
