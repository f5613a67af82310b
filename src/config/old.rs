//! Files of other ages: keys that have moved, keys that are gone, keys that were never there.
//!
//! ipfs-cluster ignores every key that it does not know, so that an upgrade from its 0.3 silently turned
//! repinning on and the proxy off, and a spelling mistake is never noticed. Here an old key takes effect
//! under its new name where there is one, and every key that has none is named in a warning. The file itself
//! is not changed.

use super::env::Env;
use super::identity::Stored;
use super::schema::{insert, lookup, remove};
use super::Key;
use crate::error::Result;
use serde_json::Value;

/// The most warnings about unknown keys; a file that is something else altogether has thousands.
const MAX_UNKNOWN: usize = 30;
/// Names longer than this are not compared for likeness (the cost grows with the square).
const MAX_COMPARED: usize = 64;

/// Old key, new key: the value goes there, when the new one is not set.
const MOVED: &[(&str, &str)] = &[
    ("api.restapi.listen_multiaddress", "api.restapi.http_listen_multiaddress"),
    ("monitor.monbasic.check_interval", "monitor.pubsubmon.check_interval"),
    ("pin_tracker.maptracker.concurrent_pins", "pin_tracker.stateless.concurrent_pins"),
    ("pin_tracker.maptracker.max_pin_queue_size", "pin_tracker.stateless.max_pin_queue_size"),
];

/// Keys of the proxy when it was part of the connector, and where they went.
const PROXY: &[(&str, &str)] = &[
    ("proxy_listen_multiaddress", "listen_multiaddress"),
    ("proxy_read_timeout", "read_timeout"),
    ("proxy_read_header_timeout", "read_header_timeout"),
    ("proxy_write_timeout", "write_timeout"),
    ("proxy_idle_timeout", "idle_timeout"),
];

/// Keys without an effect any more, and what does their work now.
const GONE: &[(&str, &str)] = &[
    ("consensus.raft.start_as_leader", "the first election of a single peer takes no time"),
    ("ipfs_connector.ipfshttp.pin_method", "content is always pinned, never only fetched"),
    (
        "pin_tracker.maptracker.pinning_timeout",
        "how long a pin may go without progress is ipfs_connector.ipfshttp.pin_timeout",
    ),
    (
        "pin_tracker.maptracker.unpinning_timeout",
        "how long an unpin may take is ipfs_connector.ipfshttp.unpin_timeout",
    ),
];

/// Sections of ipfs-cluster that say nothing to this program and are no mistake either.
const QUIET: &[&str] = &["state", "datastore"];

/// Brings old keys to their present names, in the tree that is read (not in the file). Returns the identity
/// that an old file carries.
pub(super) fn modernise(tree: &mut Value, warnings: &mut Vec<String>) -> Result<Option<Stored>> {
    replication_factor(tree, warnings);
    peer_addresses(tree);
    for (from, to) in MOVED {
        moved(tree, from, to, warnings);
    }
    proxy(tree, warnings);
    for (path, instead) in GONE {
        if remove(tree, path).is_some() {
            warnings.push(format!("{path} is a key of older versions and has no effect: {instead}"));
        }
    }
    for emptied in ["monitor.monbasic", "pin_tracker.maptracker"] {
        if lookup(tree, emptied).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
            remove(tree, emptied);
        }
    }
    if lookup(tree, "ipfs_connector").is_none() {
        // Older files may do without the section. An empty one makes its variables work, too.
        insert(tree, "ipfs_connector.ipfshttp", Value::Object(serde_json::Map::new()));
    }
    match (lookup(tree, "consensus.raft").is_some(), lookup(tree, "consensus.crdt").is_some()) {
        (false, true) => warnings.push(
            "consensus.crdt asks for a consensus that this program does not have: it runs Raft, with the defaults of \
             consensus.raft"
                .into(),
        ),
        (true, true) => {
            warnings.push("consensus has both raft and crdt: raft is used; remove consensus.crdt".into());
        }
        _ => {}
    }
    Ok(identity(tree))
}

fn moved(tree: &mut Value, from: &str, to: &str, warnings: &mut Vec<String>) {
    let Some(value) = remove(tree, from) else { return };
    if value.is_null() {
        return;
    }
    if lookup(tree, to).is_some() {
        warnings
            .push(format!("{from} is a key of older versions and has no effect, as {to} is set; remove it"));
    } else {
        insert(tree, to, value);
        warnings.push(format!("{from} is a key of older versions: its value is used as {to}"));
    }
}

/// One number for both bounds, before 0.3.2.
fn replication_factor(tree: &mut Value, warnings: &mut Vec<String>) {
    const OLD: &str = "cluster.replication_factor";
    let Some(value) = remove(tree, OLD) else { return };
    let (min, max) = ("cluster.replication_factor_min", "cluster.replication_factor_max");
    if value.is_null() || value == 0 {
        return;
    }
    if lookup(tree, min).is_some() || lookup(tree, max).is_some() {
        warnings
            .push(format!("{OLD} is a key of older versions and has no effect, as {min} is set; remove it"));
        return;
    }
    warnings.push(format!("{OLD} is a key of older versions: its value is used as {min} and {max}"));
    insert(tree, min, value.clone());
    insert(tree, max, value);
}

/// Before 1.0 a peer was written /ipfs/<peer id> in the addresses of others.
fn peer_addresses(tree: &mut Value) {
    for key in ["cluster.peers", "cluster.bootstrap", "cluster.peer_addresses"] {
        let Some(Value::Array(list)) = lookup(tree, key) else { continue };
        let modern = list
            .iter()
            .map(|address| address.as_str().map_or(address.clone(), |t| t.replace("/ipfs/", "/p2p/").into()))
            .collect();
        insert(tree, key, Value::Array(modern));
    }
}

/// The proxy was part of the connector up to 0.7, and always on.
fn proxy(tree: &mut Value, warnings: &mut Vec<String>) {
    const CONNECTOR: &str = "ipfs_connector.ipfshttp";
    const API: &str = "api.ipfsproxy";
    let wanted = lookup(tree, &format!("{CONNECTOR}.proxy_listen_multiaddress")).is_some();
    let taken = lookup(tree, API).is_some();
    let node = lookup(tree, &format!("{CONNECTOR}.node_multiaddress")).cloned();
    let mut any = false;
    for (old, new) in PROXY {
        let Some(value) = remove(tree, &format!("{CONNECTOR}.{old}")) else { continue };
        any = true;
        if wanted && !taken {
            insert(tree, &format!("{API}.{new}"), value);
        }
    }
    if !any {
        return;
    }
    if wanted && !taken {
        if let Some(node) = node {
            insert(tree, &format!("{API}.node_multiaddress"), node);
        }
        warnings
            .push(format!("{CONNECTOR}.proxy_* are keys of older versions: their values are used as {API}"));
    } else {
        warnings
            .push(format!("{CONNECTOR}.proxy_* are keys of older versions and have no effect; see {API}"));
    }
}

/// Peer id and key were part of service.json up to 0.10.
fn identity(tree: &mut Value) -> Option<Stored> {
    let id = remove(tree, "cluster.id");
    let key = remove(tree, "cluster.private_key");
    match (id, key) {
        (Some(Value::String(id)), Some(Value::String(private_key)))
            if !id.is_empty() && !private_key.is_empty() =>
        {
            Some(Stored { id, private_key })
        }
        _ => None,
    }
}

/// Names every key and variable that means nothing, with the known one that looks most like it.
pub(super) fn warn_unknown(tree: &Value, env: &Env, keys: &[Key], warnings: &mut Vec<String>) {
    let mut unknown = Vec::new();
    collect_unknown(tree, "", keys, &mut unknown);
    let more = unknown.len().saturating_sub(MAX_UNKNOWN);
    for path in unknown.into_iter().take(MAX_UNKNOWN) {
        let hint = nearest(&path, keys).map(|key| format!("; did you mean {key}?")).unwrap_or_default();
        warnings.push(format!("{} is not a known key and has no effect{hint}", clip(&path)));
    }
    if more > 0 {
        warnings.push(format!("{more} more keys are not known and have no effect"));
    }
    for name in env.names().filter(|name| !matches!(*name, "CLUSTER_ID" | "CLUSTER_PRIVATEKEY")) {
        match keys.iter().find(|key| key.env == name) {
            Some(key) => {
                if let Some(section) = absent_section(tree, &key.path) {
                    warnings.push(format!(
                        "the environment variable {name} has no effect, as service.json has no section {section}"
                    ));
                }
            }
            None => {
                let hint = closest(name, keys.iter().map(|key| key.env.as_str()))
                    .map(|known| format!("; did you mean {known}?"))
                    .unwrap_or_default();
                warnings.push(format!(
                    "the environment variable {} is not known and has no effect{hint}",
                    clip(name)
                ));
            }
        }
    }
}

/// The section of a key, if it is one that is off when it is absent, and is absent.
fn absent_section<'p>(tree: &Value, path: &'p str) -> Option<&'p str> {
    let optional = ["api.", "informer.", "ipfs_connector.", "consensus.crdt."];
    if !optional.iter().any(|prefix| path.starts_with(prefix)) {
        return None;
    }
    let second_dot = path.match_indices('.').nth(1)?.0;
    let section = path.get(..second_dot)?;
    lookup(tree, section).is_none().then_some(section)
}

fn collect_unknown(tree: &Value, prefix: &str, keys: &[Key], unknown: &mut Vec<String>) {
    let Value::Object(map) = tree else { return };
    for (name, value) in map {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if keys.iter().any(|key| key.path == path) || prefix.is_empty() && QUIET.contains(&name.as_str()) {
            continue;
        }
        let inside = format!("{path}.");
        if keys.iter().any(|key| key.path.starts_with(&inside)) {
            collect_unknown(value, &path, keys, unknown);
        } else {
            unknown.push(path);
        }
    }
}

/// The known key or section most like an unknown one: among its neighbours first, then by its name anywhere.
fn nearest(path: &str, keys: &[Key]) -> Option<String> {
    let (parent, name) = path.rsplit_once('.').map_or(("", path), |(parent, name)| (parent, name));
    let mut neighbours: Vec<&str> = Vec::new();
    for key in keys {
        let inside = match parent {
            "" => Some(key.path.as_str()),
            _ => key.path.strip_prefix(parent).and_then(|rest| rest.strip_prefix('.')),
        };
        let Some(sibling) = inside.and_then(|rest| rest.split('.').next()) else { continue };
        if !neighbours.contains(&sibling) {
            neighbours.push(sibling);
        }
    }
    if let Some(found) = closest(name, neighbours.into_iter()) {
        return Some(if parent.is_empty() { found.to_owned() } else { format!("{parent}.{found}") });
    }
    let last = |key: &Key| key.path.rsplit('.').next().unwrap_or_default().to_owned();
    keys.iter().find(|key| last(key) == name).map(|key| key.path.clone())
}

/// The candidate with the fewest differing letters, if it is like enough to be meant.
pub(crate) fn closest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let length = name.chars().count();
    if length > MAX_COMPARED {
        return None;
    }
    let limit = (length / 3).max(1);
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: letters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A name for a message, without what could disturb a terminal, and not endless.
fn clip(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    match clean.char_indices().nth(MAX_COMPARED * 2) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_is_counted_in_letters() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!(closest("secert", ["secret", "peername"].into_iter()), Some("secret"));
        assert_eq!(closest("zzz", ["secret", "peername"].into_iter()), None);
        assert_eq!(closest(&"x".repeat(1000), ["secret"].into_iter()), None);
    }
}
