//! The guides of docs/guides, executed as they stand: every `sh` block on boards of their own, with the usual ports.
//!
//! What follows `sh` in a block's first line says where and how it runs; a reader does not see it:
//!
//! | word | meaning |
//! |---|---|
//! | `board2` | on the second board (default: the first) |
//! | `stays` | it keeps running, in a terminal of its own; the lines of the `text` block after it are waited for |
//! | `until` | repeated until it prints what the `text` block after it shows |
//! | `captures=NAME` | what it prints is `$NAME` from then on, on all boards: what a person would copy |
//! | `fails` | it must end with an exit code that is not 0 |
//! | `ends=WORD` | the block that stays and is named by this word is stopped (Ctrl-C) first; `stays` blocks name themselves by `name=WORD` |
//!
//! Blocks on one board share variables and working directory, like lines typed into one terminal. A `text` block after
//! a block shows what is printed: its lines must come in this order, other lines may stand between them; `…` stands for
//! anything within a line. `scp FILE boardN:` copies to another board's home; `sudo` does nothing but run the command.
//! What is indented instead of fenced (the lines of a file, commands for a real disk) is read by people only.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::boards::{Boards, Running};
use support::wait_for;

/// One block must be over after this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A block of commands with what it prints.
struct Block {
    line: usize,
    words: Vec<String>,
    script: String,
    shows: Vec<String>,
}

impl Block {
    fn says(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
    }

    fn board(&self) -> usize {
        let named = self.words.iter().find_map(|w| w.strip_prefix("board")?.parse().ok());
        named.unwrap_or(1)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides")
}

/// The blocks of a guide, in order.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let inside: Vec<&str> = lines.by_ref().map(|(_, l)| l).take_while(|l| l.trim() != "```").collect();
        let mut words = info.split_whitespace().map(str::to_string);
        match words.next().as_deref() {
            Some("sh") => blocks.push(Block {
                line: number + 1,
                words: words.collect(),
                script: inside.join("\n"),
                shows: Vec::new(),
            }),
            Some("text") => {
                let before = blocks.last_mut().expect("a text block stands after a sh block");
                before.shows =
                    inside.iter().map(ToString::to_string).filter(|l| !l.trim().is_empty()).collect();
            }
            other => panic!("line {}: a block of {other:?}: guides have sh and text blocks only", number + 1),
        }
    }
    blocks
}

/// Whether `line` looks like `shown`, in which `…` stands for anything.
fn looks_like(line: &str, shown: &str) -> bool {
    let mut parts = shown.trim().split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.trim().strip_prefix(first) else { return false };
    let mut ends_open = false;
    for part in parts {
        ends_open = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    ends_open || rest.is_empty()
}

/// The first line that should be there and is not.
fn missing<'s>(printed: &str, shows: &'s [String]) -> Option<&'s str> {
    let mut lines = printed.lines();
    shows.iter().find(|shown| !lines.by_ref().any(|line| looks_like(line, shown))).map(String::as_str)
}

/// The shell around a block: variables and working directory of the blocks before it. Those of one that stays are not for
/// others: it ends after some of them.
fn wrapped(script: &str, captured: &BTreeMap<String, String>, stays: bool) -> String {
    let given: String = captured.iter().map(|(k, v)| format!("export {k}='{v}'\n")).collect();
    let kept = match stays {
        true => "",
        false => {
            "trap 'set +a; export -p | grep -v PWD= > \"$HOME/.guide-env\"; pwd > \"$HOME/.guide-pwd\"' EXIT\n"
        }
    };
    format!(
        "{given}if [ -e \"$HOME/.guide-env\" ]; then . \"$HOME/.guide-env\"; cd \"$(cat \"$HOME/.guide-pwd\")\"; fi\n\
         set -a\n{kept}{script}\n"
    )
}

fn play(name: &str, count: usize) {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let Some(boards) = Boards::new(count) else { return };
    boards.add_scp();
    boards.add_sudo();
    if name == "vpn.md" {
        boards.add_vpn();
    }
    let mut captured = BTreeMap::new();
    let mut running: Vec<(String, Running)> = Vec::new();
    for block in blocks(&text) {
        let at = format!("{name}:{}", block.line);
        if let Some(ended) = block.value("ends") {
            let found = running.iter().position(|(n, _)| n == ended);
            let (_, mut ended) =
                running.remove(found.unwrap_or_else(|| panic!("{at}: nothing named {ended} runs")));
            ended.interrupt();
        }
        let script = wrapped(&block.script, &captured, block.says("stays"));
        if block.says("stays") {
            let name = block.value("name").map_or_else(|| at.replace(':', "-"), str::to_string);
            let mut started = boards.start(block.board(), &name, &script);
            for shown in &block.shows {
                started.wait_until(&at, |log| log.lines().any(|line| looks_like(line, shown)).then_some(()));
            }
            running.push((name, started));
            continue;
        }
        let run = || {
            let output = boards.sh(block.board(), &script);
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            if output.status.success() == block.says("fails") {
                return Err(format!("{}\n{}\n{out}\n{err}", block.script, output.status));
            }
            match missing(&format!("{out}\n{err}"), &block.shows) {
                Some(line) => {
                    Err(format!("{}\ndid not print: {line}\nit printed:\n{out}\n{err}", block.script))
                }
                None => Ok(out.trim().to_string()),
            }
        };
        let printed = if block.says("until") {
            wait_for(&at, PATIENCE, run)
        } else {
            run().unwrap_or_else(|what| {
                for (name, running) in &running {
                    eprintln!("--- {name} ---\n{}", running.log());
                }
                panic!("{at}: {what}")
            })
        };
        if let Some(variable) = block.value("captures") {
            captured.insert(variable.to_string(), printed);
        }
    }
}

/// One test for each guide, with the number of its boards.
macro_rules! guides {
    ($($test:ident: $file:literal on $boards:literal;)*) => {
        $(
            #[test]
            fn $test() {
                play($file, $boards);
            }
        )*

        #[test]
        fn every_guide_is_played() {
            let played = [$($file),*];
            for entry in std::fs::read_dir(folder()).expect("docs/guides") {
                let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
                assert!(name == "README.md" || played.contains(&name.as_str()), "{name} is played by no test");
            }
        }
    };
}

guides! {
    first_cluster: "first-cluster.md" on 1;
    three_boards: "three-boards.md" on 3;
    private_network: "private-network.md" on 4;
    security: "security.md" on 2;
    upgrading: "upgrading.md" on 3;
    backup_and_restore: "backup-and-restore.md" on 1;
    moving_from_ipfs_cluster: "moving-from-ipfs-cluster.md" on 2;
    composite: "composite.md" on 2;
    lost_majority: "lost-majority.md" on 3;
    hard_days: "hard-days.md" on 4;
    external_disk: "external-disk.md" on 1;
    vpn: "vpn.md" on 2;
    small_boards: "small-boards.md" on 1;
}

#[test]
fn lines_are_compared_with_their_gaps() {
    assert!(looks_like("peer 12D3 is ready", "peer … is ready"));
    assert!(looks_like("  peer 12D3 is ready: 3 members", "peer … is ready…"));
    assert!(!looks_like("peer 12D3 is ready: 3 members", "peer … is ready"));
    assert!(!looks_like("a peer", "peer"));
    let shows = ["a".to_string(), "c".to_string()];
    assert_eq!(missing("a\nb\nc\n", &shows), None);
    assert_eq!(missing("c\nb\na\n", &shows), Some("c"));
}
