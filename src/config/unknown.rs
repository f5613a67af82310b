//! Keys and variables that mean nothing, and what was probably meant.
//!
//! ipfs-cluster ignores what it does not know, so that a spelling mistake there is never noticed. Here each is
//! named, once, with the known one that looks most like it; a file that is something else altogether is not
//! answered with thousands of lines.

use super::env::Env;
use super::schema::lookup;
use super::Key;
use serde_json::Value;

/// The most warnings about unknown keys; a file that is something else altogether has thousands.
const MAX_UNKNOWN: usize = 30;
/// Names longer than this are not compared for likeness (the cost grows with the square).
const MAX_COMPARED: usize = 64;

/// Sections of ipfs-cluster that say nothing to this program and are no mistake either.
const QUIET: &[&str] = &["state", "datastore"];

/// Names every key and variable that means nothing, with the known one that looks most like it.
pub(super) fn warn(tree: &Value, env: &Env, keys: &[Key], warnings: &mut Vec<String>) {
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
pub(super) fn nearest(path: &str, keys: &[Key]) -> Option<String> {
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
fn closest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
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
