//! What the scripts for bash and zsh do for a value: words of a small language, which both engines know.
//!
//! `words A B` offers these, `list A B` some of these by comma, `file`, `folder`, `peer` and `peers` what their names say.
//! A value for which nothing can be offered has no action.

use super::values::{of_flag, Values};
use super::{commands, Entry};

/// The action for a value.
pub(super) fn action(values: Values, entries: &[Entry]) -> Option<String> {
    Some(match values {
        Values::Nothing => return None,
        Values::Words(words) => format!("words {}", words.join(" ")),
        Values::List(words) => format!("list {}", words.join(" ")),
        Values::File => "file".into(),
        Values::Folder => "folder".into(),
        Values::Peer => "peer".into(),
        Values::Peers => "peers".into(),
        Values::Commands => format!("words {}", commands(entries)),
    })
}

/// Each action of a flag's value, empty where there is none, with the patterns `'COMMANDS:FLAG'` of the flags it is for.
pub(super) fn by_flag(entries: &[Entry]) -> Vec<(String, Vec<String>)> {
    let mut arms: Vec<(String, Vec<String>)> = Vec::new();
    for entry in entries {
        let words = entry.words();
        for shown in entry.flags.iter().filter(|shown| shown.flag.value.is_some()) {
            let action = action(of_flag(shown.flag), entries).unwrap_or_default();
            let bare = shown.names.iter().map(|name| name.trim_start_matches('-'));
            let patterns = bare.map(|name| format!("'{words}:{name}'"));
            match arms.iter_mut().find(|(known, _)| *known == action) {
                Some((_, all)) => all.extend(patterns),
                None => arms.push((action, patterns.collect())),
            }
        }
    }
    arms
}
