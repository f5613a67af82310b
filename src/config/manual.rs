//! The table of keys for people: in a terminal, and as the page `docs/configuration.md`.
//!
//! Both come from the declaration that the program itself reads by, so that neither can promise what is not
//! there. A test compares the page in the repository with what is written here.

use super::Key;
use std::fmt::Write;

/// What the page says before its tables.
pub(crate) const INTRODUCTION: &str = "\
# Configuration

`pinfold config keys --markdown` writes this page; a test keeps it true.

A peer reads `service.json` of its folder, in ipfs-cluster's shape. A key that is missing has its default, but a
boolean that is missing from a section that is there is false, as in ipfs-cluster. A section of `api`, `informer` or
`ipfs_connector` that is missing is off. Durations are written like `1h30m`, `15s` or `200ms`. A variable wins over
the file: lists are separated by commas, maps are written `name:value,name2:value2`.

Files of every age of ipfs-cluster load as they are, from the flat ones of 0.0.x on. `pinfold config check` says what
it reads, `pinfold config upgrade` writes today's file, `pinfold config set KEY=VALUE…` changes keys of it: all of them or
none, and only if a peer would start with what it writes.
";

/// The keys as they are shown in a terminal: one paragraph each.
pub fn plain(keys: &[&Key]) -> String {
    let mut out = String::new();
    for key in keys {
        let _ = writeln!(out, "{}\n    {}", key.path, key.meaning);
        if let Some(why) = key.no_effect {
            let _ = writeln!(out, "    Without effect: {why}.");
        }
        let _ = writeln!(out, "    {}, default {}, variable {}\n", kind(key), key.default, key.env);
    }
    out
}

/// The keys as a page: one table for each section, in the order in which a fresh file has them.
pub fn page(keys: &[&Key]) -> String {
    let mut sections: Vec<(&str, Vec<(&str, &Key)>)> = Vec::new();
    for key in keys {
        let (section, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        match sections.iter_mut().find(|(known, _)| *known == section) {
            Some((_, rows)) => rows.push((name, key)),
            None => sections.push((section, vec![(name, key)])),
        }
    }
    let mut out = String::from(INTRODUCTION);
    for (section, rows) in sections {
        let _ = writeln!(
            out,
            "\n## {section}\n\n| key | meaning | kind | default | variable |\n|---|---|---|---|---|"
        );
        for (name, key) in rows {
            let mut meaning = cell(&key.meaning);
            if let Some(why) = key.no_effect {
                let _ = write!(meaning, " *Without effect: {}.*", cell(why));
            }
            let (kind, default) = (cell(&kind(key)), default(key));
            let _ = writeln!(out, "| `{name}` | {meaning} | {kind} | {default} | `{}` |", key.env);
        }
    }
    out
}

/// The kind of a key's value, with its unit.
pub(crate) fn kind(key: &Key) -> String {
    match key.unit {
        Some(unit) => format!("{} of {unit}", key.kind),
        None => key.kind.to_owned(),
    }
}

/// A default is JSON, but for the few that differ from machine to machine and are said in words.
fn default(key: &Key) -> String {
    match serde_json::from_str::<serde_json::Value>(&key.default) {
        Ok(_) => format!("`{}`", key.default),
        Err(_) => cell(&key.default),
    }
}

/// A bar would end the cell, and `<…>` would be taken for HTML.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}
