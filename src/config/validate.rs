//! What a configuration must be, beyond the kinds of its values.
//!
//! Every message names the key, what it says, and what to write instead. A mistake that would make the peer
//! do something else than was meant is an error; one that only makes it do less is a warning.

use super::address::{host_port, is_tcp, not_tcp};
use super::keys::{AllocatorSection, DiskInformer, IpfsSection, RestApiConfig};
use super::schema::lookup;
use super::setting::{ByteSize, Credentials, DiskMetric, Network};
use super::{keys, Config};
use crate::clock::format_duration;
use crate::error::{Context, Error, Result};
use crate::password::Password;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde_json::Value;
use std::time::Duration;

/// The least that `max_header_bytes` may be, in ipfs-cluster too.
const MIN_HEADER_BYTES: u32 = 4096;
/// The most that `max_header_bytes` may be: headers are held in memory for each connection.
const MAX_HEADER_BYTES: u32 = 1 << 20;
/// Longest message about a value, characters.
const MAX_MESSAGE: usize = 700;
/// Longest name of a peer.
const MAX_NAME: usize = 255;
/// The most copies that may be asked for: far above any cluster of this kind.
const MAX_COPIES: i32 = 10_000;
/// Longest election timeout that makes sense.
const MAX_ELECTION: Duration = Duration::from_secs(600);
/// The most old data folders that are kept: each is a whole state.
const MAX_BACKUPS: u32 = 1000;
/// Fewest names in the whole path of a data folder: `/srv` or `/home` is nobody's own.
const MIN_DEPTH: usize = 2;
/// Smallest storage limit with which an embedded node can work.
const MIN_STORAGE: u64 = 10_000_000;

/// One sentence, whatever the value that it repeats looks like.
fn fail<T>(message: String) -> Result<T> {
    Err(Error::invalid(super::file::one_line(&message, MAX_MESSAGE)))
}

/// Sections must be objects, and exactly one IPFS node chosen.
pub(super) fn shape(tree: &Value) -> Result<()> {
    for key in keys() {
        for (dot, _) in key.path.match_indices('.') {
            let section = &key.path[..dot];
            if lookup(tree, section).is_some_and(|value| !value.is_object()) {
                return fail(format!(
                    "{section} must be an object, {{…}}, with keys like {}; write it so or remove it",
                    key.path
                ));
            }
        }
    }
    let has = |name: &str| lookup(tree, &format!("ipfs_connector.{name}")).is_some();
    match (has("ipfshttp"), has("embedded")) {
        (true, true) => fail(
            "ipfs_connector has both ipfshttp and embedded; keep ipfshttp to use an IPFS daemon (Kubo) beside this \
             peer, or embedded to use the node inside it, and remove the other"
                .into(),
        ),
        (false, false) => fail(
            "ipfs_connector names no IPFS node; write \"embedded\": {} in it to use the node inside this peer, or \
             \"ipfshttp\": {} to use an IPFS daemon (Kubo) beside it"
                .into(),
        ),
        _ => Ok(()),
    }
}

/// What depends on a section being absent as a whole.
pub(super) fn fill_gaps(config: &mut Config, tree: &Value, warnings: &mut Vec<String>) {
    if lookup(tree, "allocator.balanced").is_none() {
        // Older files have no allocator, and no tags either: they always chose by free space.
        let by_size = config.informer.disk.as_ref().is_some_and(|d| d.metric_type == DiskMetric::RepoSize);
        let metric = if by_size { "reposize" } else { "freespace" };
        config.allocator = AllocatorSection { allocate_by: vec![metric.into()] };
    }
    let informer = &mut config.informer;
    let none = informer.disk.is_none()
        && informer.tags.is_none()
        && informer.pinqueue.is_none()
        && informer.numpin.is_none();
    if none {
        informer.disk = Some(DiskInformer::default());
        warnings
            .push("informer is empty, so that nobody could be allocated a pin: informer.disk is used".into());
    }
}

/// The whole configuration.
pub(super) fn check(config: &Config, warnings: &mut Vec<String>) -> Result<()> {
    cluster(config, warnings)?;
    raft(config, warnings)?;
    apis(config)?;
    unencrypted(config, warnings);
    ipfs(config)?;
    allocation(config, warnings)?;
    times(config)?;
    let p = config.observations.tracing.sampling_prob;
    if !(0.0..=1.0).contains(&p) {
        return fail(format!("observations.tracing.sampling_prob is {p}; it must be between 0 and 1"));
    }
    Ok(())
}

fn cluster(config: &Config, warnings: &mut Vec<String>) -> Result<()> {
    let c = &config.cluster;
    if c.peername.chars().count() > MAX_NAME || c.peername.chars().any(char::is_control) {
        return fail(format!(
            "cluster.peername must be a name of at most {MAX_NAME} characters on one line; shorten it"
        ));
    }
    let (min, max) = (c.replication_factor_min, c.replication_factor_max);
    if min == 0 || max == 0 {
        return fail(format!(
            "cluster.replication_factor_min and max must be set: they are {min} and {max}; use -1 for a copy on every \
             peer, or a number of copies"
        ));
    }
    for (name, value) in [("min", min), ("max", max)] {
        if !(-1..=MAX_COPIES).contains(&value) {
            return fail(format!(
                "cluster.replication_factor_{name} is {value}; use -1 for a copy on every peer, or a number of copies \
                 up to {MAX_COPIES}"
            ));
        }
    }
    if (min == -1) != (max == -1) {
        return fail(format!(
            "cluster.replication_factor_min is {min} and cluster.replication_factor_max is {max}; -1 (a copy on every \
             peer) must be in both or in neither"
        ));
    }
    if min > max {
        return fail(format!(
            "cluster.replication_factor_min is {min}, larger than cluster.replication_factor_max, {max}; lower the \
             first or raise the second"
        ));
    }
    if c.pin_only_on_trusted_peers && c.pin_only_on_untrusted_peers {
        return fail(
            "cluster.pin_only_on_trusted_peers and cluster.pin_only_on_untrusted_peers are both true, which leaves \
             no peer; set one of them to false"
                .into(),
        );
    }
    if c.listen_tcp().is_empty() {
        return fail(match c.listen_multiaddress.first() {
            None => "cluster.listen_multiaddress is empty; write an address like \"/ip4/0.0.0.0/tcp/9096\"".into(),
            Some(first) => format!(
                "cluster.listen_multiaddress is \"{first}\", and only TCP addresses can be used; add one like \
                 \"/ip4/0.0.0.0/tcp/9096\""
            ),
        });
    }
    for (key, list) in [
        ("cluster.peer_addresses", &c.peer_addresses),
        ("cluster.peers", &c.peers),
        ("cluster.bootstrap", &c.bootstrap),
    ] {
        peers(key, list, warnings)?;
    }
    if c.connection_manager.high_water < c.connection_manager.low_water {
        return fail(format!(
            "cluster.connection_manager.high_water is {}, lower than low_water, {}; raise the first or lower the second",
            c.connection_manager.high_water, c.connection_manager.low_water
        ));
    }
    Ok(())
}

/// A list of other peers: who is there must be said. Our own address may be among them.
fn peers(key: &str, list: &[Multiaddr], warnings: &mut Vec<String>) -> Result<()> {
    for (n, address) in list.iter().enumerate() {
        if !matches!(address.iter().last(), Some(Protocol::P2p(_))) {
            return fail(format!(
                "{key} has \"{address}\", which does not say who is there; add /p2p/<peer id> at its end"
            ));
        }
        // Files of ipfs-cluster list its QUIC addresses beside the others.
        if !is_tcp(address) {
            warnings.push(format!(
                "{key} has \"{address}\", which is not used, as peers are reached over TCP; write it like \
                 \"/ip4/192.168.1.2/tcp/9096/p2p/<peer id>\""
            ));
        }
        if list.iter().take(n).any(|earlier| earlier == address) {
            warnings.push(format!("{key} has \"{address}\" twice; one of them can go"));
        }
    }
    Ok(())
}

fn raft(config: &Config, warnings: &mut Vec<String>) -> Result<()> {
    let r = &config.consensus;
    if r.backups_rotate == 0 {
        return fail("consensus.raft.backups_rotate is 0; it must be 1 or more, 6 is usual".into());
    }
    if r.backups_rotate > MAX_BACKUPS {
        return fail(format!(
            "consensus.raft.backups_rotate is {}; it must be {MAX_BACKUPS} or less, 6 is usual",
            r.backups_rotate
        ));
    }
    for (n, id) in r.init_peerset.iter().enumerate() {
        if id.parse::<PeerId>().is_err() {
            return fail(format!(
                "consensus.raft.init_peerset has {id:?}, which is not a peer id; write ids as `pinfold id` shows them"
            ));
        }
        if r.init_peerset.iter().take(n).any(|earlier| earlier == id) {
            warnings.push(format!("consensus.raft.init_peerset has {id} twice; one of them can go"));
        }
    }
    if r.election_timeout > MAX_ELECTION || r.heartbeat_timeout > MAX_ELECTION {
        return fail(format!(
            "consensus.raft.heartbeat_timeout is \"{}\" and consensus.raft.election_timeout is \"{}\"; at most \"{}\" makes sense, \
             \"100ms\" and \"400ms\" are usual on a local network",
            format_duration(r.heartbeat_timeout),
            format_duration(r.election_timeout),
            format_duration(MAX_ELECTION)
        ));
    }
    if r.max_voters.is_multiple_of(2) {
        warnings.push(format!(
            "consensus.raft.max_voters is {}: an even number of voters survives no more failures than one fewer",
            r.max_voters
        ));
    }
    data_folder(&r.data_folder, "consensus.raft.data_folder", "raft")
}

/// The folder of the data: inside the peer's own, or anywhere by its whole path, as on a better disk. It is
/// moved aside and replaced as a whole at times, so that it must be a folder of its own.
fn data_folder(folder: &str, key: &str, usual: &str) -> Result<()> {
    use std::path::{Component, Path};
    let path = Path::new(folder);
    if !path.is_absolute() {
        return relative(folder, key, usual);
    }
    let names = path.components().filter(|c| matches!(c, Component::Normal(_))).count();
    if names < MIN_DEPTH || path.components().any(|c| c == Component::ParentDir) {
        return fail(format!(
            "{key} is \"{folder}\"; it must be the name of a folder inside the configuration's, like \"{usual}\", or the \
             whole path of a folder for this alone, like \"/srv/pinfold/{usual}\""
        ));
    }
    Ok(())
}

/// A folder of data must stay inside the peer's own.
fn relative(folder: &str, key: &str, usual: &str) -> Result<()> {
    let path = std::path::Path::new(folder);
    let inside = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if folder.is_empty() || !inside {
        return fail(format!(
            "{key} is \"{folder}\"; it must be the name of a folder inside the configuration's, like \"{usual}\""
        ));
    }
    Ok(())
}

fn all_tcp(key: &str, addresses: &[Multiaddr], example: &str) -> Result<()> {
    if addresses.is_empty() {
        return fail(format!("{key} is empty; write an address like \"{example}\""));
    }
    match addresses.iter().find(|a| !is_tcp(a)) {
        Some(address) => fail(not_tcp(key, address).message().to_owned()),
        None => Ok(()),
    }
}

/// The same, but a Unix socket will do as well.
fn all_sockets(key: &str, addresses: &[Multiaddr], example: &str) -> Result<()> {
    let is_unix = |a: &Multiaddr| matches!(a.iter().next(), Some(libp2p::multiaddr::Protocol::Unix(_)));
    match addresses.iter().find(|a| !is_tcp(a) && !is_unix(a)) {
        None if addresses.is_empty() => all_tcp(key, addresses, example),
        None => Ok(()),
        Some(address) => Err(not_tcp(key, address)),
    }
}

fn header_bytes(section: &str, bytes: u32) -> Result<()> {
    if (MIN_HEADER_BYTES..=MAX_HEADER_BYTES).contains(&bytes) {
        return Ok(());
    }
    fail(format!(
        "{section}.max_header_bytes is {bytes}; it must be between {MIN_HEADER_BYTES} and {MAX_HEADER_BYTES}"
    ))
}

fn apis(config: &Config) -> Result<()> {
    for (section, port, api) in
        [("api.restapi", 9094, &config.restapi), ("api.pinsvcapi", 9097, &config.pinsvcapi)]
    {
        if let Some(api) = api {
            http_api(section, port, api)?;
        }
    }
    if let Some(proxy) = &config.ipfsproxy {
        all_sockets(
            "api.ipfsproxy.listen_multiaddress",
            &proxy.listen_multiaddress,
            "/ip4/127.0.0.1/tcp/9095",
        )?;
        all_sockets("api.ipfsproxy.node_multiaddress", &proxy.node_multiaddress, "/ip4/127.0.0.1/tcp/5001")?;
        header_bytes("api.ipfsproxy", proxy.max_header_bytes)?;
        credentials("api.ipfsproxy", &proxy.basic_auth_credentials)?;
        let hosts = &proxy.allowed_hosts;
        places("api.ipfsproxy", proxy.max_connections, proxy.max_connections_per_address, hosts)?;
    }
    if config.observations.metrics.enable_stats {
        all_tcp(
            "observations.metrics.prometheus_endpoint",
            &config.observations.metrics.prometheus_endpoint,
            "/ip4/127.0.0.1/tcp/8888",
        )?;
    }
    Ok(())
}

/// Most connections that a configuration may grant: each holds a file descriptor.
const MAX_CONNECTIONS: u32 = 100_000;

fn places(section: &str, connections: u32, per_address: u32, hosts: &[String]) -> Result<()> {
    for (key, value) in [("max_connections", connections), ("max_connections_per_address", per_address)] {
        if !(1..=MAX_CONNECTIONS).contains(&value) {
            return fail(format!("{section}.{key} is {value}; it must be between 1 and {MAX_CONNECTIONS}"));
        }
    }
    let bad = |host: &&String| host.is_empty() || host.contains(['/', ':', ' ']);
    if let Some(host) = hosts.iter().find(bad) {
        return fail(format!(
            "{section}.allowed_hosts has \"{host}\"; write names alone, without scheme and port, like \"cluster.example.org\""
        ));
    }
    Ok(())
}

fn credentials(section: &str, credentials: &Credentials) -> Result<()> {
    let Some(users) = &credentials.0 else { return Ok(()) };
    if users.is_empty() {
        return fail(format!(
            "{section}.basic_auth_credentials is {{}}, which lets nobody in; write {{\"user\": \"password\"}}, or \
             null to ask nobody for a password"
        ));
    }
    // HTTP sends "user:password": a user with a colon could never log in.
    if users.keys().any(|user| user.is_empty() || user.contains(':')) {
        return fail(format!(
            "{section}.basic_auth_credentials has a user name that is empty or has a colon; choose another name"
        ));
    }
    for (user, text) in users {
        Password::parse(text).context(format!("{section}.basic_auth_credentials: the user \"{user}\""))?;
    }
    Ok(())
}

/// Passwords that anybody on the way can read.
fn unencrypted(config: &Config, warnings: &mut Vec<String>) {
    for (section, api) in [("api.restapi", &config.restapi), ("api.pinsvcapi", &config.pinsvcapi)] {
        let Some(api) = api.as_ref().filter(|api| api.basic_auth_credentials.is_set() && !api.tls()) else {
            continue;
        };
        if let Some(address) = beyond(&api.http_listen_multiaddress) {
            warnings.push(format!(
                "{section} asks for passwords at \"{address}\" without TLS, so that everybody on the way can read them; set \
                 ssl_cert_file and ssl_key_file, or listen on 127.0.0.1 behind a proxy that speaks TLS"
            ));
        }
    }
}

/// The first address that others than this machine can reach.
fn beyond(addresses: &[Multiaddr]) -> Option<Multiaddr> {
    addresses.iter().find(|a| host_port(a).is_some_and(|target| !target.is_loopback())).cloned()
}

fn http_api(section: &str, port: u16, api: &RestApiConfig) -> Result<()> {
    let key = |name: &str| format!("{section}.{name}");
    all_tcp(
        &key("http_listen_multiaddress"),
        &api.http_listen_multiaddress,
        &format!("/ip4/127.0.0.1/tcp/{port}"),
    )?;
    header_bytes(section, api.max_header_bytes)?;
    if api.ssl_cert_file.is_empty() != api.ssl_key_file.is_empty() {
        let (there, missing) = if api.ssl_cert_file.is_empty() {
            ("ssl_key_file", "ssl_cert_file")
        } else {
            ("ssl_cert_file", "ssl_key_file")
        };
        return fail(format!(
            "{section}.{there} is set and {section}.{missing} is not; TLS needs both, set {missing} or remove {there}"
        ));
    }
    let inside =
        [!api.libp2p_listen_multiaddress.is_empty(), !api.id.is_empty(), !api.private_key.0.is_empty()];
    if inside.contains(&true) && inside.contains(&false) {
        return fail(format!(
            "{section}.libp2p_listen_multiaddress, id and private_key belong together; set all three or remove them"
        ));
    }
    credentials(section, &api.basic_auth_credentials)?;
    places(section, api.max_connections, api.max_connections_per_address, &api.allowed_hosts)?;
    for name in api.headers.keys() {
        let good = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c));
        if !good {
            return fail(format!(
                "{section}.headers has the name {name:?}, which is no HTTP header; use letters, digits and dashes"
            ));
        }
    }
    if api.headers.values().flatten().any(|value| value.chars().any(char::is_control)) {
        return fail(format!(
            "{section}.headers has a value with a line break or control character; remove it"
        ));
    }
    Ok(())
}

fn ipfs(config: &Config) -> Result<()> {
    match &config.ipfs {
        IpfsSection::Http(http) => all_sockets(
            "ipfs_connector.ipfshttp.node_multiaddress",
            &http.node_multiaddress,
            "/ip4/127.0.0.1/tcp/5001",
        ),
        IpfsSection::Embedded(node) => {
            let section = "ipfs_connector.embedded";
            data_folder(&node.data_folder, &format!("{section}.data_folder"), "ipfs")?;
            if node.data_folder == config.consensus.data_folder {
                return fail(format!(
                    "{section}.data_folder and consensus.raft.data_folder are both \"{}\"; choose two folders",
                    node.data_folder
                ));
            }
            all_tcp(
                &format!("{section}.listen_multiaddress"),
                &node.listen_multiaddress,
                "/ip4/0.0.0.0/tcp/4001",
            )?;
            if node.storage_max < ByteSize(MIN_STORAGE) {
                return fail(format!(
                    "{section}.storage_max is \"{}\"; it must be \"{}\" or more",
                    node.storage_max,
                    ByteSize(MIN_STORAGE)
                ));
            }
            if node.network == Network::Public && !node.swarm_key_file.is_empty() {
                return fail(format!(
                    "{section}.network is \"public\" and swarm_key_file is set, which is for a private network; remove \
                     swarm_key_file or write \"private\""
                ));
            }
            Ok(())
        }
    }
}

fn allocation(config: &Config, warnings: &mut Vec<String>) -> Result<()> {
    let by = &config.allocator.allocate_by;
    let key = "allocator.balanced.allocate_by";
    if by.is_empty() {
        return fail(format!("{key} is empty; write a metric to choose by, like [\"freespace\"]"));
    }
    let informer = &config.informer;
    for metric in by {
        let disk = |kind| informer.disk.as_ref().is_some_and(|d| d.metric_type == kind);
        let (told, fix) = match metric.as_str() {
            "freespace" => (disk(DiskMetric::FreeSpace), "set informer.disk.metric_type to \"freespace\"".to_owned()),
            "reposize" => (disk(DiskMetric::RepoSize), "set informer.disk.metric_type to \"reposize\"".to_owned()),
            "pinqueue" => (informer.pinqueue.is_some(), "add the section informer.pinqueue".to_owned()),
            "numpin" => (informer.numpin.is_some(), "add the section informer.numpin".to_owned()),
            other => match other.strip_prefix("tag:") {
                Some(tag) if !tag.is_empty() => (
                    informer.tags.as_ref().is_some_and(|t| t.tags.contains_key(tag)),
                    format!("add \"{tag}\" to informer.tags.tags"),
                ),
                _ => {
                    return fail(format!(
                        "{key} has {metric:?}, which is no metric; use \"freespace\", \"reposize\", \"pinqueue\", \
                         \"numpin\" or \"tag:<name>\""
                    ))
                }
            },
        };
        if !told {
            warnings.push(format!(
                "{key} has \"{metric}\", which this peer does not tell, so that it gets no pins; {fix}, or remove it"
            ));
        }
    }
    Ok(())
}

/// Intervals of a timer: shorter ones would be a busy loop.
fn times(config: &Config) -> Result<()> {
    const SHORTEST: Duration = Duration::from_millis(10);
    let c = &config.cluster;
    let mut all = vec![
        ("cluster.state_sync_interval", c.state_sync_interval),
        ("cluster.pin_recover_interval", c.pin_recover_interval),
        ("cluster.monitor_ping_interval", c.monitor_ping_interval),
        ("cluster.peer_watch_interval", c.peer_watch_interval),
        ("cluster.dial_peer_timeout", c.dial_peer_timeout),
        ("consensus.raft.wait_for_leader_timeout", config.consensus.wait_for_leader_timeout),
        ("consensus.raft.network_timeout", config.consensus.network_timeout),
        ("monitor.pubsubmon.check_interval", config.monitor.check_interval),
        ("observations.metrics.reporting_interval", config.observations.metrics.reporting_interval),
    ];
    if c.ipfs_sync_interval > Duration::ZERO {
        all.push(("cluster.ipfs_sync_interval", c.ipfs_sync_interval));
    }
    if c.mdns_interval > Duration::ZERO {
        all.push(("cluster.mdns_interval", c.mdns_interval));
    }
    let i = &config.informer;
    all.extend(i.disk.iter().map(|s| ("informer.disk.metric_ttl", s.metric_ttl)));
    all.extend(i.tags.iter().map(|s| ("informer.tags.metric_ttl", s.metric_ttl)));
    all.extend(i.pinqueue.iter().map(|s| ("informer.pinqueue.metric_ttl", s.metric_ttl)));
    all.extend(i.numpin.iter().map(|s| ("informer.numpin.metric_ttl", s.metric_ttl)));
    match &config.ipfs {
        IpfsSection::Http(http) => all.extend([
            ("ipfs_connector.ipfshttp.pin_timeout", http.pin_timeout),
            ("ipfs_connector.ipfshttp.unpin_timeout", http.unpin_timeout),
            ("ipfs_connector.ipfshttp.ipfs_request_timeout", http.ipfs_request_timeout),
            ("ipfs_connector.ipfshttp.repogc_timeout", http.repogc_timeout),
        ]),
        IpfsSection::Embedded(node) => all.push(("ipfs_connector.embedded.pin_timeout", node.pin_timeout)),
    }
    if let IpfsSection::Embedded(node) = &config.ipfs {
        all.extend(
            (!node.gc_interval.is_zero())
                .then_some(("ipfs_connector.embedded.gc_interval", node.gc_interval)),
        );
    }
    for (key, value) in all {
        if value < SHORTEST {
            return fail(format!(
                "{key} is \"{}\"; it must be \"{}\" or more",
                format_duration(value),
                format_duration(SHORTEST)
            ));
        }
    }
    Ok(())
}

/// See [`Config::check_exposure`].
pub(super) fn exposure(config: &Config, insecure_no_secret: bool) -> Result<()> {
    if config.cluster.secret.is_none() && !insecure_no_secret {
        if let Some(address) = beyond(&config.cluster.listen_multiaddress) {
            return fail(format!(
                "cluster.secret is empty and cluster.listen_multiaddress is \"{address}\": anyone who reaches it would \
                 be a peer; set a secret of 64 hexadecimal digits, listen on 127.0.0.1, or start with \
                 --insecure-no-secret"
            ));
        }
    }
    let open = |section: &str, key: &str, address: Multiaddr, way_out: &str| {
        fail(format!(
            "{section}.{key} is \"{address}\" and nobody is asked for a password: anyone who reaches it would command \
             this peer; {way_out}, listen on 127.0.0.1, or say that it is meant with \"open_to_network\": true in \
             {section}"
        ))
    };
    for (section, api) in [("api.restapi", &config.restapi), ("api.pinsvcapi", &config.pinsvcapi)] {
        let Some(api) = api else { continue };
        if api.basic_auth_credentials.is_set() || api.open_to_network {
            continue;
        }
        if let Some(address) = beyond(&api.http_listen_multiaddress) {
            return open(section, "http_listen_multiaddress", address, "set basic_auth_credentials");
        }
    }
    if let Some(proxy) = config
        .ipfsproxy
        .as_ref()
        .filter(|proxy| !proxy.open_to_network && !proxy.basic_auth_credentials.is_set())
    {
        if let Some(address) = beyond(&proxy.listen_multiaddress) {
            return open("api.ipfsproxy", "listen_multiaddress", address, "set basic_auth_credentials");
        }
    }
    Ok(())
}
