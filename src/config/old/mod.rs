//! Files of other ages: keys that have moved, keys that are gone, keys that were never there.
//!
//! ipfs-cluster ignores every key that it does not know, so that an upgrade from its 0.3 silently turned
//! repinning on and the proxy off. Here an old key takes effect under its present name where there is one, and
//! every key that has none is named with the reason. Three ages are told apart by their shape alone: the flat
//! file of 0.0.x ([`flat`]), the sections of 0.1 to 0.14, and today's.
//!
//! What is done here is done to the tree that is read, never to the file, and is written down as a list of
//! [`Change`]s: the daemon makes warnings of it, `config upgrade` a new file. A modernised tree modernises to
//! itself.

mod flat;
#[cfg(test)]
mod tests;

use super::identity::Stored;
use super::schema::{insert, lookup, remove};
use crate::error::Error;
use serde_json::Value;

/// The most moved keys that one warning names; the others are counted.
const MAX_NAMED: usize = 3;

/// What became of a key when an older file was read or rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its value is used under another name (or in another file).
    Moved {
        /// The old key.
        from: String,
        /// The present one.
        to: String,
    },
    /// It has no effect any more.
    Dropped {
        /// The old key.
        key: String,
        /// What does its work now, or which key wins.
        why: String,
    },
    /// It was not in the file, and is written with the value that it had all the same.
    Added {
        /// The key.
        key: String,
        /// Its value as JSON; never a secret.
        value: String,
    },
}

/// Old key, new key: the value goes there, when the new one is not set.
const MOVED: &[(&str, &str)] = &[
    ("api.restapi.listen_multiaddress", "api.restapi.http_listen_multiaddress"),
    ("monitor.monbasic.check_interval", "monitor.pubsubmon.check_interval"),
    ("pin_tracker.maptracker.concurrent_pins", "pin_tracker.stateless.concurrent_pins"),
    ("pin_tracker.maptracker.max_pin_queue_size", "pin_tracker.stateless.max_pin_queue_size"),
    // Counted from the start of a pin then, from its last progress now: never shorter than it was.
    ("pin_tracker.maptracker.pinning_timeout", "ipfs_connector.ipfshttp.pin_timeout"),
    ("pin_tracker.maptracker.unpinning_timeout", "ipfs_connector.ipfshttp.unpin_timeout"),
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
    ("monitor.pubsubmon.failure_threshold", "a peer counts as dead when the life of its last ping is over"),
];

/// Lists of addresses in which old files write a peer as `/ipfs/<peer id>`.
const ADDRESS_LISTS: &[&str] = &["cluster.peers", "cluster.bootstrap", "cluster.peer_addresses"];

/// What was found in a file of another age.
#[derive(Debug, Default)]
pub(super) struct Old {
    /// What was done with its keys.
    pub(super) changes: Vec<Change>,
    /// Peer id and private key that it carries.
    pub(super) identity: Option<Stored>,
}

/// Brings old keys to their present names, in the tree that is read (not in the file).
pub(super) fn modernise(tree: &mut Value, warnings: &mut Vec<String>) -> Old {
    let mut changes = Vec::new();
    flat::unfold(tree, &mut changes);
    replication_factor(tree, &mut changes);
    peer_addresses(tree);
    for (from, to) in MOVED {
        moved(tree, from, to, &mut changes);
    }
    proxy(tree, &mut changes);
    for (path, instead) in GONE {
        if remove(tree, path).is_some() {
            dropped(&mut changes, path, instead);
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
    let identity = identity(tree, &mut changes);
    Old { changes, identity }
}

fn dropped(changes: &mut Vec<Change>, key: &str, why: &str) {
    changes.push(Change::Dropped { key: key.to_owned(), why: why.to_owned() });
}

/// Takes a value from its old place to its present one, unless that has one already.
fn moved(tree: &mut Value, from: &str, to: &str, changes: &mut Vec<Change>) {
    let Some(value) = remove(tree, from) else { return };
    put(tree, from, to, value, changes);
}

/// Puts a value taken from `from` under its present name, unless that has one already.
fn put(tree: &mut Value, from: &str, to: &str, value: Value, changes: &mut Vec<Change>) {
    if value.is_null() {
        return;
    }
    if lookup(tree, to).is_some() {
        dropped(changes, from, &format!("{to} is set; remove it"));
    } else {
        insert(tree, to, value);
        changes.push(Change::Moved { from: from.to_owned(), to: to.to_owned() });
    }
}

/// One number for both bounds, before 0.3.2.
fn replication_factor(tree: &mut Value, changes: &mut Vec<Change>) {
    const OLD: &str = "cluster.replication_factor";
    let (min, max) = ("cluster.replication_factor_min", "cluster.replication_factor_max");
    let Some(value) = remove(tree, OLD) else { return };
    if value.is_null() || value == 0 {
        return;
    }
    if lookup(tree, min).is_some() || lookup(tree, max).is_some() {
        dropped(changes, OLD, &format!("{min} is set; remove it"));
        return;
    }
    put(tree, OLD, min, value.clone(), changes);
    put(tree, OLD, max, value, changes);
}

/// Before 1.0 a peer was written `/ipfs/<peer id>` in the addresses of others.
fn peer_addresses(tree: &mut Value) {
    let modern = |text: &str| Value::String(text.replace("/ipfs/", "/p2p/"));
    for key in ADDRESS_LISTS {
        let value = match lookup(tree, key) {
            Some(Value::String(one)) => modern(one),
            Some(Value::Array(list)) => list.iter().map(|v| v.as_str().map_or(v.clone(), modern)).collect(),
            _ => continue,
        };
        insert(tree, key, value);
    }
}

/// The proxy was part of the connector up to 0.7, and always on.
fn proxy(tree: &mut Value, changes: &mut Vec<Change>) {
    const CONNECTOR: &str = "ipfs_connector.ipfshttp";
    const API: &str = "api.ipfsproxy";
    let wanted = lookup(tree, &format!("{CONNECTOR}.proxy_listen_multiaddress")).is_some();
    let taken = lookup(tree, API).is_some();
    for (old, new) in PROXY {
        let from = format!("{CONNECTOR}.{old}");
        let Some(value) = remove(tree, &from) else { continue };
        match (wanted, taken) {
            (true, false) => put(tree, &from, &format!("{API}.{new}"), value, changes),
            (true, true) => dropped(changes, &from, &format!("{API} is there; remove it")),
            (false, _) => dropped(changes, &from, "without proxy_listen_multiaddress there is no proxy"),
        }
    }
    if wanted && !taken {
        follow_the_connector(tree);
    }
}

/// A proxy that an old file turned on stands in front of the daemon that the connector talks to.
fn follow_the_connector(tree: &mut Value) {
    if lookup(tree, "api.ipfsproxy.node_multiaddress").is_none() {
        if let Some(node) = lookup(tree, "ipfs_connector.ipfshttp.node_multiaddress").cloned() {
            insert(tree, "api.ipfsproxy.node_multiaddress", node);
        }
    }
}

/// Peer id and key were part of service.json up to 0.10.
fn identity(tree: &mut Value, changes: &mut Vec<Change>) -> Option<Stored> {
    const KEYS: [&str; 2] = ["cluster.id", "cluster.private_key"];
    let [id, key] = KEYS.map(|path| remove(tree, path).filter(|v| !v.is_null() && v != ""));
    if id.is_none() && key.is_none() {
        return None;
    }
    let stored = match (&id, &key) {
        (Some(Value::String(id)), Some(Value::String(key))) => {
            Some(Stored { id: id.clone(), private_key: key.clone() })
        }
        _ => None,
    };
    for (path, _) in KEYS.iter().zip([id, key]).filter(|(_, value)| value.is_some()) {
        match stored {
            Some(_) => {
                changes.push(Change::Moved { from: (*path).to_owned(), to: "identity.json".to_owned() });
            }
            None => dropped(changes, path, "cluster.id and cluster.private_key must both be there, as texts"),
        }
    }
    stored
}

/// What a person should hear about a file of another age at every start.
pub(super) fn warn(changes: &[Change], warnings: &mut Vec<String>) {
    let mut moves: Vec<(&String, String)> = Vec::new();
    for change in changes {
        match change {
            Change::Moved { from, to } => match moves.iter_mut().find(|(earlier, _)| *earlier == from) {
                Some((_, now)) => *now = format!("{now} and {to}"),
                None => moves.push((from, to.clone())),
            },
            Change::Dropped { key, why } => {
                warnings.push(format!("{key} is a key of older versions and has no effect: {why}"));
            }
            Change::Added { .. } => {}
        }
    }
    if moves.is_empty() {
        return;
    }
    let more = moves.len().saturating_sub(MAX_NAMED);
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    let named: Vec<String> =
        moves.iter().take(MAX_NAMED).map(|(from, now)| format!("{from} is now {now}")).collect();
    warnings.push(format!(
        "service.json has keys of older versions, which are used under their present names ({}{rest}): `pinfold config \
         check` lists them, `pinfold config upgrade` writes today's file",
        named.join(", ")
    ));
}

/// Names the key as the file has it, when the message speaks of the one that it became.
pub(super) fn explain(error: Error, changes: &[Change]) -> Error {
    let of_a_variable = error.message().starts_with("the environment variable ");
    let from = changes.iter().find_map(|change| match change {
        Change::Moved { from, to } if !of_a_variable && names(error.message(), to) => Some(from.as_str()),
        _ => None,
    });
    match from {
        Some(from) => Error::new(error.kind(), format!("{} (the file says {from})", error.message())),
        None => error,
    }
}

/// Whether a message speaks of this very key, not of one whose name begins with it.
fn names(message: &str, key: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    message.match_indices(key).any(|(at, _)| {
        let before = message[..at].chars().next_back();
        let after = message[at + key.len()..].chars().next();
        !before.is_some_and(inside) && !after.is_some_and(inside)
    })
}
