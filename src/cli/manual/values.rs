//! What the value of a flag or an argument can be, for those that complete it.
//!
//! The table of commands has one word for a value ("FILE", "FORMAT"); what a shell can offer for it stands here. Tests
//! hold each line against the table and against what the program takes.

use crate::cli::table::{Cmd, Command, Flag};

/// What can be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Nothing: a number, a name, an address.
    Nothing,
    /// One of these.
    Words(&'static [&'static str]),
    /// Some of these, by comma.
    List(&'static [&'static str]),
    /// A file or folder.
    File,
    /// A folder.
    Folder,
    /// A peer of the cluster, as the local peer knows them.
    Peer,
    /// Some peers, by comma.
    Peers,
    /// The program's commands.
    Commands,
}

/// Statuses of pins, and the two groups of them that the filter knows.
const STATUSES: &[&str] = &[
    "cluster_error",
    "error",
    "pin_error",
    "pin_queued",
    "pinned",
    "pinning",
    "queued",
    "remote",
    "sharded",
    "unexpectedly_unpinned",
    "unpin_error",
    "unpin_queued",
    "unpinned",
    "unpinning",
];

/// By long name and placeholder of the flag.
const OF_FLAGS: &[(&str, &str, Values)] = &[
    ("config", "FOLDER", Values::Folder),
    (
        "loglevel",
        "LEVEL",
        Values::Words(&["critical", "error", "warning", "notice", "info", "debug", "trace"]),
    ),
    ("encoding", "FORMAT", Values::Words(&["text", "json"])),
    ("consensus", "NAME", Values::Words(&["raft", "crdt"])),
    ("ipfs", "NODE", Values::Words(&["embedded", "kubo"])),
    ("swarm-key", "FILE", Values::File),
    ("file", "FILE", Values::File),
    ("managed", "FILE", Values::File),
    ("output", "PATH", Values::File),
    ("allocations", "PEERS", Values::Peers),
    ("format", "FORMAT", Values::Words(&["unixfs", "car"])),
    ("layout", "LAYOUT", Values::Words(&["balanced", "trickle"])),
    ("cid-version", "N", Values::Words(&["0", "1"])),
    ("hash", "NAME", Values::Words(&["sha2-256"])),
    ("mode", "MODE", Values::Words(&["recursive", "direct"])),
    ("filter", "TYPES", Values::List(&["pin", "meta-pin", "clusterdag-pin", "shard-pin", "all"])),
    ("filter", "STATES", Values::List(STATUSES)),
    ("name", "PROGRAM", Values::Words(&super::NAMES)),
];

/// What the arguments of commands can be.
const OF_ARGUMENTS: &[(Cmd, Values)] = &[
    (Cmd::SwarmKey, Values::File),
    (Cmd::StateImport, Values::File),
    (Cmd::StateCheck, Values::Folder),
    (Cmd::StateRecover, Values::Folder),
    (Cmd::PeersRm, Values::Peer),
    (Cmd::Drain, Values::Peer),
    (Cmd::Add, Values::File),
    (Cmd::PinImport, Values::File),
    (Cmd::Backup, Values::Folder),
    (Cmd::Completion, Values::Words(&super::SHELLS)),
    (Cmd::Man, Values::Words(&super::PAGES)),
    (Cmd::Help, Values::Commands),
];

/// What the value of a flag can be; [`Values::Nothing`] for a switch, too.
pub(super) fn of_flag(flag: &Flag) -> Values {
    let found = OF_FLAGS.iter().find(|(long, value, _)| *long == flag.long && Some(*value) == flag.value);
    found.map_or(Values::Nothing, |(.., values)| *values)
}

/// What an argument can be.
pub(super) fn of_arguments(command: &Command) -> Values {
    OF_ARGUMENTS.iter().find(|(cmd, _)| *cmd == command.cmd).map_or(Values::Nothing, |(_, values)| *values)
}

#[cfg(test)]
mod tests {
    use super::super::entries;
    use super::*;
    use crate::cli::face::Face;
    use crate::tracker::{Status, StatusFilter};

    const FACES: [Face; 3] = [Face::Pinfold, Face::Service, Face::Ctl];

    #[test]
    fn every_line_is_about_a_flag_or_command_that_is_there() {
        for (long, value, _) in OF_FLAGS {
            let there = FACES.iter().any(|face| {
                entries(*face)
                    .iter()
                    .flat_map(|entry| &entry.flags)
                    .any(|shown| shown.flag.long == *long && shown.flag.value == Some(*value))
            });
            assert!(there, "--{long} {value}");
        }
        for (cmd, _) in OF_ARGUMENTS {
            let there = entries(Face::Pinfold).iter().any(|e| e.path.last().is_some_and(|c| c.cmd == *cmd));
            assert!(there, "{cmd:?}");
        }
    }

    #[test]
    fn what_is_said_to_be_a_file_or_one_of_two_words_is_offered() {
        for face in FACES {
            for shown in entries(face).iter().flat_map(|entry| &entry.flags) {
                let flag = shown.flag;
                let offered = of_flag(flag);
                if matches!(flag.value, Some("FILE" | "FOLDER" | "PATH")) {
                    assert!(matches!(offered, Values::File | Values::Folder), "--{}", flag.long);
                }
                if let Values::Words(words) | Values::List(words) = offered {
                    // The default is one of them.
                    let default = flag.default.split(';').next().unwrap_or_default();
                    assert!(default.is_empty() || words.contains(&default), "--{}", flag.long);
                }
            }
        }
    }

    #[test]
    fn the_statuses_are_those_that_the_filter_takes() {
        for status in STATUSES {
            assert!(StatusFilter::parse(status).is_ok(), "{status}");
        }
        for (status, name) in Status::NAMES {
            assert!(status == Status::Undefined || STATUSES.contains(&name), "{name}");
        }
    }
}
