//! From the typed configuration to the settings of each room.

use crate::api::proxy::{Behind, ProxyConfig};
use crate::api::RestConfig;
use crate::cluster::{DiskMetric, Settings};
use crate::config::{self, Config, Folder, Identity, IpfsSection, RestApiConfig};
use crate::consensus::ConsensusConfig;
use crate::error::{Context, Error, Result};
use crate::ipfs::embedded::{Embedded, EmbeddedConfig};
use crate::ipfs::kubo::{Kubo, KuboConfig};
use crate::ipfs::Ipfs;
use crate::net::HostConfig;
use crate::tracker::TrackerConfig;
use data_encoding::HEXLOWER_PERMISSIVE;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest swarm.key that is read, bytes.
const MAX_SWARM_KEY: u64 = 4 << 10;

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
        commit_timeout: raft.network_timeout,
        trailing_logs: raft.trailing_logs,
        snapshot_threshold: raft.snapshot_threshold,
        max_voters: raft.max_voters as usize,
    }
}

/// The tracker.
pub(super) fn tracker(config: &Config) -> TrackerConfig {
    TrackerConfig {
        concurrent_pins: config.pin_tracker.concurrent_pins as usize,
        priority_max_age: config.pin_tracker.priority_pin_max_age,
        priority_max_retries: config.pin_tracker.priority_pin_max_retries,
        recover_interval: config.cluster.pin_recover_interval,
    }
}

/// The cluster room.
pub(super) fn settings(config: &Config) -> Settings {
    let informer = &config.informer;
    let ttls = [
        informer.disk.as_ref().map(|d| d.metric_ttl),
        informer.tags.as_ref().map(|t| t.metric_ttl),
        informer.pinqueue.as_ref().map(|p| p.metric_ttl),
    ];
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
        disk_metric: match informer.disk.as_ref().map(|d| d.metric_type) {
            Some(config::DiskMetric::RepoSize) => DiskMetric::RepoSize,
            _ => DiskMetric::FreeSpace,
        },
        metric_ttl: ttls.into_iter().flatten().min().unwrap_or(Duration::from_secs(30)),
        tags: informer.tags.as_ref().map(|t| t.tags.clone()).unwrap_or_default(),
        connect_swarms: (!connect.is_zero()).then_some(connect),
        state_sync_interval: config.cluster.state_sync_interval,
    }
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
        basic_auth: section.basic_auth_credentials.0.clone(),
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
pub(super) fn proxy(config: &Config, ipfs: &Arc<dyn Ipfs>) -> Option<ProxyConfig> {
    let section = config.ipfsproxy.as_ref()?;
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
        behind,
    })
}

/// The IPFS node of this peer.
pub(super) async fn ipfs(config: &Config, folder: &Folder) -> Result<Arc<dyn Ipfs>> {
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
            })?;
            Ok(Arc::new(kubo))
        }
        IpfsSection::Embedded(section) => {
            let data = config.resolve(folder, &section.data_folder);
            let psk = match section.network {
                config::Network::Public => None,
                config::Network::Private if section.swarm_key_file.is_empty() => {
                    config.cluster.secret.psk().map(|secret| ipfs_psk(&secret))
                }
                config::Network::Private => {
                    Some(swarm_key(&config.resolve(folder, &section.swarm_key_file))?)
                }
            };
            let node = Embedded::open(EmbeddedConfig {
                psk,
                listen: section.listen_multiaddress.clone(),
                storage_max: section.storage_max.0,
                pin_timeout: section.pin_timeout,
                ..EmbeddedConfig::new(data.clone(), node_identity(&data)?)
            })
            .await?;
            Ok(Arc::new(node))
        }
    }
}

/// The private network of the IPFS nodes of one cluster: derived, so that the cluster's own secret is on no other wire.
fn ipfs_psk(secret: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"pinfold: private network of the IPFS nodes\0");
    hash.update(secret);
    hash.finalize().into()
}

/// Reads a `swarm.key` as Kubo writes it.
fn swarm_key(path: &Path) -> Result<[u8; 32]> {
    let what = || format!("ipfs_connector.embedded.swarm_key_file {}", path.display());
    let size = std::fs::metadata(path).context(what())?.len();
    if size > MAX_SWARM_KEY {
        return Err(Error::invalid(format!("{}: {size} bytes is too long for a swarm.key", what())));
    }
    let text = std::fs::read_to_string(path).context(what())?;
    let key = match text.lines().map(str::trim).collect::<Vec<_>>().as_slice() {
        ["/key/swarm/psk/1.0.0/", "/base16/", key, ..] => HEXLOWER_PERMISSIVE.decode(key.as_bytes()).ok(),
        _ => None,
    };
    key.and_then(|k| k.try_into().ok()).ok_or_else(|| {
        Error::invalid(format!(
            "{}: not a swarm.key (three lines: /key/swarm/psk/1.0.0/, /base16/, 64 hex digits)",
            what()
        ))
    })
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
