//! From the typed configuration to the settings of each room.

use crate::api::proxy::{Behind, ProxyConfig};
use crate::api::RestConfig;
use crate::cluster::{DiskMetric, Informer, Measure, Settings};
use crate::config::{self, Config, Folder, Identity, IpfsSection, RestApiConfig, SwarmKey};
use crate::consensus::ConsensusConfig;
use crate::error::{Error, Result};
use crate::ipfs::embedded::EmbeddedConfig;
use crate::ipfs::kubo::{Kubo, KuboConfig};
use crate::ipfs::none::NoNode;
use crate::ipfs::removable::{Place, Removable};
use crate::ipfs::Ipfs;
use crate::net::HostConfig;
use crate::tracker::TrackerConfig;
use std::path::Path;
use std::sync::Arc;

/// The cluster's own host.
pub(super) fn host(config: &Config, identity: &Identity) -> HostConfig {
    let cluster = &config.cluster;
    let listen = cluster.listen_multiaddress.iter().filter(|a| config::address::is_tcp(a)).cloned().collect();
    let mdns = (!cluster.mdns_interval.is_zero()).then(|| ("cluster".to_string(), cluster.mdns_interval));
    HostConfig {
        keypair: identity.keypair().clone(),
        psk: cluster.secret.psk(),
        listen,
        announce: cluster.announce_multiaddress.clone(),
        agent: agent(),
        protocol_version: "/pinfold/1".into(),
        dial_timeout: cluster.dial_peer_timeout,
        mdns,
        max_connections: cluster.connection_manager.high_water as usize,
    }
}

fn agent() -> String {
    format!("pinfold/{}", crate::VERSION)
}

/// Raft.
pub(super) fn consensus(config: &Config, identity: &Identity) -> ConsensusConfig {
    let raft = &config.consensus;
    let (heartbeat, election) = raft.timing();
    ConsensusConfig {
        peer_id: identity.peer_id(),
        name: config.cluster.peername.clone(),
        heartbeat,
        election,
        wait_for_leader: raft.wait_for_leader_timeout,
        network_timeout: raft.network_timeout,
        commit_retries: raft.commit_retries,
        commit_retry_delay: raft.commit_retry_delay,
        commit_timeout: raft.commit_timeout,
        lease: raft.lease(),
        max_append_entries: raft.max_append_entries as usize,
        trailing_logs: raft.trailing_logs,
        snapshot_threshold: raft.snapshot_threshold,
        snapshot_interval: raft.snapshot_interval,
        max_voters: raft.max_voters as usize,
    }
}

/// The tracker.
pub(super) fn tracker(config: &Config) -> TrackerConfig {
    TrackerConfig {
        concurrent_pins: config.pin_tracker.concurrent_pins as usize,
        priority_max_age: config.pin_tracker.priority_pin_max_age,
        priority_max_retries: config.pin_tracker.priority_pin_max_retries,
        max_queued: config.pin_tracker.max_pin_queue_size as usize,
        recover_interval: config.cluster.pin_recover_interval,
        ipfs_sync_interval: config.cluster.ipfs_sync_interval,
        state_sync_interval: config.cluster.state_sync_interval,
    }
}

/// The cluster room.
pub(super) fn settings(config: &Config, folder: &Folder) -> Settings {
    let connect = match &config.ipfs {
        IpfsSection::Http(http) => http.connect_swarms_delay,
        IpfsSection::Embedded(embedded) => embedded.connect_swarms_delay,
    };
    Settings {
        replication_min: config.cluster.replication_factor_min,
        replication_max: config.cluster.replication_factor_max,
        ping_interval: config.cluster.monitor_ping_interval,
        check_interval: config.monitor.check_interval,
        allocate_by: config.allocator.allocate_by.clone(),
        informers: informers(config),
        informer_trigger: match &config.ipfs {
            IpfsSection::Http(http) => http.informer_trigger_interval,
            IpfsSection::Embedded(_) => 0,
        },
        repin: !config.cluster.disable_repinning,
        repin_grace: config.cluster.repin_grace,
        drained_file: config.resolve(folder, &config.consensus.data_folder).join("drained"),
        connect_swarms: (!connect.is_zero() && !config.consensus.witness).then_some(connect),
        state_sync_interval: config.cluster.state_sync_interval,
        witness: config.consensus.witness,
    }
}

/// What this peer tells about itself: the kinds that the configuration has; of a witness, nothing: who tells no metrics
/// is allocated nothing, also by peers that do not know yet what it is.
fn informers(config: &Config) -> Vec<Informer> {
    if config.consensus.witness {
        return Vec::new();
    }
    let informer = &config.informer;
    let disk = informer.disk.as_ref().map(|d| {
        let metric = match d.metric_type {
            config::DiskMetric::RepoSize => DiskMetric::RepoSize,
            config::DiskMetric::FreeSpace => DiskMetric::FreeSpace,
        };
        Informer { ttl: d.metric_ttl, measure: Measure::Disk(metric) }
    });
    let tags = informer.tags.as_ref();
    let tags = tags.map(|t| Informer { ttl: t.metric_ttl, measure: Measure::Tags(t.tags.clone()) });
    let queue = informer.pinqueue.as_ref();
    let queue =
        queue.map(|p| Informer { ttl: p.metric_ttl, measure: Measure::PinQueue(p.weight_bucket_size) });
    let pins = informer.numpin.as_ref().map(|n| Informer { ttl: n.metric_ttl, measure: Measure::NumPin });
    [disk, tags, queue, pins].into_iter().flatten().collect()
}

/// The REST API, if it is on.
pub(super) fn rest(config: &Config, folder: &Folder) -> Option<RestConfig> {
    let section: &RestApiConfig = config.restapi.as_ref()?;
    let file = |name: &str| (!name.is_empty()).then(|| config.resolve(folder, name));
    Some(RestConfig {
        listen: section.http_listen_multiaddress.iter().map(ToString::to_string).collect(),
        tls: file(&section.ssl_cert_file).zip(file(&section.ssl_key_file)),
        read_timeout: section.read_timeout,
        read_header_timeout: section.read_header_timeout,
        write_timeout: section.write_timeout,
        idle_timeout: section.idle_timeout,
        max_header_bytes: section.max_header_bytes as usize,
        max_connections: section.max_connections as usize,
        max_connections_per_address: section.max_connections_per_address as usize,
        allowed_hosts: section.allowed_hosts.clone(),
        basic_auth: section.basic_auth_credentials.0.clone(),
        log_file: file(&section.http_log_file),
        headers: section
            .headers
            .iter()
            .flat_map(|(k, vs)| vs.iter().map(move |v| (k.clone(), v.clone())))
            .collect(),
        cors_allowed_origins: section.cors_allowed_origins.clone(),
        cors_allowed_methods: section.cors_allowed_methods.clone(),
        cors_allowed_headers: section.cors_allowed_headers.clone(),
        cors_exposed_headers: section.cors_exposed_headers.clone(),
        cors_allow_credentials: section.cors_allow_credentials,
        cors_max_age: section.cors_max_age,
    })
}

/// The IPFS proxy, if it is on.
pub(super) fn proxy(config: &Config, folder: &Folder, ipfs: &Arc<dyn Ipfs>) -> Option<ProxyConfig> {
    let section = config.ipfsproxy.as_ref()?;
    if config.consensus.witness {
        log::info!(target: "ipfsproxy", "this peer is a witness and has no IPFS node: the proxy is not served");
        return None;
    }
    let behind = match &config.ipfs {
        IpfsSection::Embedded(_) => Behind::Embedded(ipfs.clone()),
        IpfsSection::Http(_) => Behind::Kubo {
            nodes: section.node_multiaddress.clone(),
            https: section.node_https,
            headers_path: section.extract_headers_path.clone(),
            headers_extra: section.extract_headers_extra.clone(),
            headers_ttl: section.extract_headers_ttl,
        },
    };
    Some(ProxyConfig {
        listen: section.listen_multiaddress.iter().map(ToString::to_string).collect(),
        read_timeout: section.read_timeout,
        read_header_timeout: section.read_header_timeout,
        write_timeout: section.write_timeout,
        idle_timeout: section.idle_timeout,
        max_header_bytes: section.max_header_bytes as usize,
        log_file: (!section.log_file.is_empty()).then(|| config.resolve(folder, &section.log_file)),
        max_connections: section.max_connections as usize,
        max_connections_per_address: section.max_connections_per_address as usize,
        allowed_hosts: section.allowed_hosts.clone(),
        basic_auth: section.basic_auth_credentials.0.clone(),
        behind,
    })
}

/// The IPFS node of this peer.
pub(super) async fn ipfs(config: &Config, folder: &Folder) -> Result<Arc<dyn Ipfs>> {
    if config.consensus.witness {
        return Ok(Arc::new(NoNode));
    }
    match &config.ipfs {
        IpfsSection::Http(http) => {
            let node = http.node_multiaddress.first().cloned().ok_or_else(|| {
                Error::invalid("ipfs_connector.ipfshttp.node_multiaddress is empty: give the address of the IPFS daemon's API")
            })?;
            let kubo = Kubo::new(KuboConfig {
                node,
                alternatives: http.node_multiaddress.iter().skip(1).cloned().collect(),
                https: false,
                request_timeout: http.ipfs_request_timeout,
                pin_timeout: http.pin_timeout,
                unpin_timeout: http.unpin_timeout,
                repogc_timeout: http.repogc_timeout,
                unpin_disable: http.unpin_disable,
            })?;
            Ok(Arc::new(kubo))
        }
        IpfsSection::Embedded(section) => {
            let data = config.resolve(folder, &section.data_folder);
            let psk = SwarmKey::of_node(config, folder)?.map(|key| key.psk());
            let (section, blocks) = (section.clone(), data.clone());
            let settings = move || {
                let (section, data) = (section.clone(), data.clone());
                let made = crate::runtime::unblock(move || {
                    Ok(EmbeddedConfig {
                        psk,
                        listen: section.listen_multiaddress.clone(),
                        announce: section.announce_multiaddress.clone(),
                        storage_max: section.storage_max.0,
                        pin_timeout: section.pin_timeout,
                        gc_interval: (!section.gc_interval.is_zero()).then_some(section.gc_interval),
                        ..EmbeddedConfig::new(data.clone(), node_identity(&data)?)
                    })
                });
                futures::FutureExt::boxed(made)
            };
            let place = Place { blocks, home: folder.path().to_owned() };
            Ok(Arc::new(Removable::start(place, Arc::new(settings)).await?))
        }
    }
}

/// The embedded node has an identity of its own, beside its blocks.
fn node_identity(data: &Path) -> Result<libp2p::identity::Keypair> {
    let folder = Folder::new(data);
    folder.create()?;
    if !folder.identity_json().exists() {
        Identity::generate()?.save_new(&folder)?;
    }
    let (identity, _) = Identity::load(&folder, None, &config::Env::empty())?;
    Ok(identity.keypair().clone())
}
