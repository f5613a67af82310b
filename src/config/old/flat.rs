//! The flat file of ipfs-cluster 0.0.x: every key at the top level, times as numbers of seconds.
//!
//! Its REST API and its proxy had no switch: they were always on, and so they are here. Where one number did the
//! work of two keys of today (`monitoring_interval_seconds` was both the rhythm of the pings and that of looking
//! at them), both get it.

use super::{dropped, follow_the_connector, put, Change};
use crate::config::schema::{insert, lookup, remove};
use serde_json::{json, Value};

/// How an old value is written today.
#[derive(Clone, Copy)]
enum As {
    /// As it is.
    Same,
    /// A number of seconds becomes a duration; a duration stays one.
    Seconds,
}

/// A key of the flat file, and what it became.
const FLAT: &[(&str, &[&str], As)] = &[
    ("id", &["cluster.id"], As::Same),
    ("private_key", &["cluster.private_key"], As::Same),
    ("cluster_secret", &["cluster.secret"], As::Same),
    ("secret", &["cluster.secret"], As::Same),
    ("cluster_peers", &["cluster.peers"], As::Same),
    ("peers", &["cluster.peers"], As::Same),
    ("bootstrap", &["cluster.bootstrap"], As::Same),
    ("leave_on_shutdown", &["cluster.leave_on_shutdown"], As::Same),
    ("cluster_multiaddress", &["cluster.listen_multiaddress"], As::Same),
    ("state_sync_seconds", &["cluster.state_sync_interval"], As::Seconds),
    ("state_sync_interval", &["cluster.state_sync_interval"], As::Seconds),
    ("ipfs_sync_seconds", &["cluster.ipfs_sync_interval"], As::Seconds),
    ("ipfs_sync_interval", &["cluster.ipfs_sync_interval"], As::Seconds),
    (
        "monitoring_interval_seconds",
        &["cluster.monitor_ping_interval", "monitor.pubsubmon.check_interval"],
        As::Seconds,
    ),
    ("monitor_ping_interval", &["cluster.monitor_ping_interval"], As::Seconds),
    ("api_listen_multiaddress", &["api.restapi.http_listen_multiaddress"], As::Same),
    ("TLSCertFile", &["api.restapi.ssl_cert_file"], As::Same),
    ("TLSKeyFile", &["api.restapi.ssl_key_file"], As::Same),
    ("ipfs_proxy_listen_multiaddress", &["api.ipfsproxy.listen_multiaddress"], As::Same),
    ("ipfs_node_multiaddress", &["ipfs_connector.ipfshttp.node_multiaddress"], As::Same),
    ("consensus_data_folder", &["consensus.raft.data_folder"], As::Same),
    ("raft_config.snapshot_interval_seconds", &["consensus.raft.snapshot_interval"], As::Seconds),
];

/// What chose the metric to allocate by, under its names of several versions, and the informer that tells it.
const STRATEGIES: &[(&[&str], &str)] = &[
    (&["", "reposize", "disk-reposize"], "reposize"),
    (&["freespace", "disk", "disk-freespace"], "freespace"),
    (&["pincount", "numpin"], "numpin"),
];

/// Brings the keys of a flat file into the sections of today; does nothing to another one.
pub(super) fn unfold(tree: &mut Value, changes: &mut Vec<Change>) {
    let listed = FLAT.iter().map(|(old, ..)| *old);
    let more = ["replication_factor", "allocation_strategy", "raft_config"];
    if !listed.chain(more).any(|key| lookup(tree, key).is_some()) {
        return;
    }
    for (old, targets, kind) in FLAT {
        let Some(value) = remove(tree, old) else { continue };
        let value = match kind {
            As::Same => value,
            As::Seconds => seconds(value),
        };
        for target in *targets {
            put(tree, old, target, value.clone(), changes);
        }
    }
    replication(tree, changes);
    strategy(tree, changes);
    raft(tree, changes);
    for section in ["api.restapi", "api.ipfsproxy"] {
        if lookup(tree, section).is_none() {
            insert(tree, section, json!({}));
        }
    }
    if lookup(tree, "informer").is_none() {
        // There was no such section, and every peer told something to allocate by.
        insert(tree, "informer.disk", json!({}));
    }
    follow_the_connector(tree);
}

/// A number of seconds as a duration. Zero and less stood for the default, which a zero does today as well.
fn seconds(value: Value) -> Value {
    match &value {
        Value::Number(number) => Value::String(format!("{number}s")),
        _ => value,
    }
}

/// The number of copies; 0 stood for everywhere.
fn replication(tree: &mut Value, changes: &mut Vec<Change>) {
    const OLD: &str = "replication_factor";
    let Some(value) = remove(tree, OLD) else { return };
    let value = if value == 0 { json!(-1) } else { value };
    for target in ["cluster.replication_factor_min", "cluster.replication_factor_max"] {
        put(tree, OLD, target, value.clone(), changes);
    }
}

fn strategy(tree: &mut Value, changes: &mut Vec<Change>) {
    const OLD: &str = "allocation_strategy";
    let Some(value) = remove(tree, OLD) else { return };
    let known = STRATEGIES.iter().find(|(names, _)| value.as_str().is_some_and(|v| names.contains(&v)));
    let Some((_, metric)) = known else {
        // Whatever it is, the check of the key that it became says what would be right.
        put(tree, OLD, "allocator.balanced.allocate_by", json!([value]), changes);
        return;
    };
    if lookup(tree, "informer").is_none() {
        let disk = if *metric == "reposize" { "reposize" } else { "freespace" };
        insert(tree, "informer.disk.metric_type", json!(disk));
        if *metric == "numpin" {
            insert(tree, "informer.numpin", json!({}));
        }
    }
    put(tree, OLD, "allocator.balanced.allocate_by", json!([metric]), changes);
}

/// What the first versions had of Raft's own settings.
fn raft(tree: &mut Value, changes: &mut Vec<Change>) {
    if remove(tree, "raft_config.enable_single_node").is_some() {
        dropped(changes, "raft_config.enable_single_node", "a single peer always elects itself");
    }
    if lookup(tree, "raft_config").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
        remove(tree, "raft_config");
    }
}
