//! Help texts, made from the table.
//!
//! The layout (NAME, USAGE, DESCRIPTION, COMMANDS, OPTIONS, GLOBAL OPTIONS) is the one that people of
//! ipfs-cluster know. No line is longer than [`WIDTH`] columns, whatever the table says.

use super::face::Face;
use super::table::{self, Cmd, Command, Flag, Side};
use std::fmt::Write;

/// The longest line of any help text.
pub const WIDTH: usize = 100;
/// Columns in front of everything below a heading.
const INDENT: usize = 3;
/// Names longer than this get a line of their own before their description.
const NAME_COLUMN: usize = 40;

const ABOUT: [(Face, &str, &str); 3] = [
    (
        Face::Pinfold,
        "keeps IPFS content pinned on a cluster of small boards",
        "A few boards agree on which content must stay alive, and each makes it so. `pinfold up` starts the first \
         board, `pinfold invite` prints a token, `pinfold join TOKEN` starts the others. Then: `pinfold add`, \
         `pinfold pin add`, `pinfold status`.",
    ),
    (
        Face::Service,
        "IPFS Cluster peer",
        "Runs a peer of the cluster. This is pinfold under the name of ipfs-cluster-service: `init` writes \
         service.json and identity.json, `daemon` runs the peer, `state` moves pinsets in and out.",
    ),
    (
        Face::Ctl,
        "tool to manage IPFS Cluster peers",
        "Talks to the HTTP API of a peer. This is pinfold under the name of ipfs-cluster-ctl: the same commands, \
         flags, output and exit codes.",
    ),
];

/// What a program is, in a few words and in some sentences.
pub(super) fn about(face: Face) -> (&'static str, &'static str) {
    ABOUT.iter().find(|(f, ..)| *f == face).map_or(("", ""), |(_, about, details)| (about, details))
}

/// The help of the program (empty path) or of a command.
pub fn help(face: Face, path: &[&'static Command]) -> String {
    match path.last() {
        None => program(face),
        Some(command) => of_command(face, path, command),
    }
}

fn program(face: Face) -> String {
    let name = face.name();
    let (about, details) = about(face);
    let mut out = String::new();
    heading(&mut out, "NAME", &format!("{name} - {about}"));
    heading(&mut out, "USAGE", &format!("{name} [global options] command [command options] [arguments...]"));
    heading(&mut out, "VERSION", crate::VERSION);
    heading(&mut out, "DESCRIPTION", details);
    commands(&mut out, face, table::COMMANDS);
    let mut flags: Vec<Row> = table::globals(face, Side::Both).map(row).collect();
    flags.push(help_row());
    flags.push(("--version, -v".into(), "print the version".into()));
    rows(&mut out, "GLOBAL OPTIONS", &flags);
    out
}

fn of_command(face: Face, path: &[&'static Command], command: &'static Command) -> String {
    let name = std::iter::once(face.name()).chain(path.iter().map(|c| c.name)).collect::<Vec<_>>().join(" ");
    let mut out = String::new();
    heading(&mut out, "NAME", &format!("{name} - {}", command.about));
    let usage = if command.children.is_empty() {
        let options = if command.flags.iter().any(|f| !f.hidden) { " [command options]" } else { "" };
        let gap = if command.args.is_empty() { "" } else { " " };
        format!("{name}{options}{gap}{}", command.args)
    } else {
        format!("{name} command [command options] [arguments...]")
    };
    heading(&mut out, "USAGE", &usage);
    if !command.details.is_empty() {
        heading(&mut out, "DESCRIPTION", command.details);
    }
    if !command.children.is_empty() {
        commands(&mut out, face, command.children);
    }
    let mut own: Vec<Row> = command.flags.iter().filter(|f| !f.hidden).map(row).collect();
    own.push(help_row());
    rows(&mut out, "OPTIONS", &own);
    if command.cmd != Cmd::Group {
        // A short name that the command itself uses is not shown for a global flag: it would mislead.
        let taken = |alias: &&str| command.flags.iter().any(|f| f.is(alias));
        let shown: Vec<Row> = table::globals(face, command.side)
            .filter(|g| !command.flags.iter().any(|f| f.long == g.long))
            .map(|g| row_with(g, g.aliases.iter().copied().filter(|a| !taken(a))))
            .collect();
        rows(&mut out, "GLOBAL OPTIONS", &shown);
    }
    out
}

/// The command lines of `commands`: every command path, one per line.
pub fn command_lines(face: Face) -> Vec<String> {
    let mut lines = Vec::new();
    table::walk(face, &mut |path| {
        let listed = |c: &Command| !c.hidden || c.cmd == Cmd::Commands;
        if path.iter().all(|c| listed(c)) {
            let words = std::iter::once(face.name()).chain(path.iter().map(|c| c.name));
            lines.push(words.collect::<Vec<_>>().join(" "));
        }
    });
    lines
}

type Row = (String, String);

fn help_row() -> Row {
    ("--help, -h".into(), "show help".into())
}

fn row(flag: &Flag) -> Row {
    row_with(flag, flag.aliases.iter().copied())
}

fn row_with(flag: &Flag, aliases: impl Iterator<Item = &'static str>) -> Row {
    let mut name = format!("--{}", flag.long);
    for alias in aliases {
        let dashes = if alias.len() == 1 { "-" } else { "--" };
        let _ = write!(name, ", {dashes}{alias}");
    }
    if let Some(value) = flag.value {
        let _ = write!(name, " {value}");
    }
    let mut help = flag.help.to_string();
    if !flag.default.is_empty() {
        let _ = write!(help, " (default: {})", flag.default);
    }
    if !flag.env.is_empty() {
        let _ = write!(help, " [${}]", flag.env);
    }
    (name, help)
}

fn commands(out: &mut String, face: Face, commands: &'static [Command]) {
    let shown: Vec<Row> = commands
        .iter()
        .filter(|c| c.faces.has(face) && !c.hidden)
        .map(|c| {
            let names = std::iter::once(c.name).chain(c.aliases.iter().copied()).collect::<Vec<_>>();
            (names.join(", "), c.about.to_string())
        })
        .collect();
    rows(out, "COMMANDS", &shown);
}

fn heading(out: &mut String, title: &str, text: &str) {
    separate(out);
    let _ = writeln!(out, "{title}:");
    for line in wrap(text, WIDTH - INDENT) {
        let _ = writeln!(out, "{:INDENT$}{line}", "");
    }
}

fn rows(out: &mut String, title: &str, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    separate(out);
    let _ = writeln!(out, "{title}:");
    let longest = rows.iter().map(|(n, _)| n.chars().count()).filter(|n| *n <= NAME_COLUMN).max();
    let column = longest.unwrap_or(NAME_COLUMN);
    for (name, text) in rows {
        let lines = wrap(text, WIDTH - INDENT - column - 2);
        let mut lines = lines.iter();
        if name.chars().count() <= column {
            let first = lines.next().map_or("", String::as_str);
            let _ = writeln!(out, "{:INDENT$}{name:column$}  {first}", "");
        } else {
            let _ = writeln!(out, "{:INDENT$}{name}", "");
        }
        for line in lines {
            let _ = writeln!(out, "{:INDENT$}{:column$}  {line}", "", "");
        }
    }
}

fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
}

/// Breaks text at spaces into lines of at most `width` columns.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_string());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::normalise::{normalise, Asked};

    const FACES: [Face; 3] = [Face::Pinfold, Face::Service, Face::Ctl];

    #[test]
    fn no_help_text_is_wider_than_the_limit() {
        for face in FACES {
            let mut texts = vec![help(face, &[])];
            table::walk(face, &mut |path| texts.push(help(face, path)));
            for line in texts.iter().flat_map(|t| t.lines()) {
                assert!(line.chars().count() <= WIDTH, "{}: {line}", line.chars().count());
                assert_eq!(line.trim_end(), line, "no space at the end of a line");
            }
        }
    }

    #[test]
    fn every_line_of_commands_accepts_help() {
        for face in FACES {
            for line in command_lines(face) {
                let words: Vec<String> =
                    line.split(' ').skip(1).chain(["--help"]).map(str::to_string).collect();
                match normalise(face, &words, &|_| None) {
                    Ok(Asked::Help(path)) => {
                        let text = help(face, &path);
                        assert!(text.contains(&format!("{line} - ")), "{line}: {text}");
                    }
                    other => panic!("{line}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn every_flag_is_explained() {
        for face in FACES {
            table::walk(face, &mut |path| {
                let text = help(face, path);
                for flag in path[path.len() - 1].flags.iter().filter(|f| !f.hidden) {
                    assert!(text.contains(&format!("--{}", flag.long)), "{}", flag.long);
                    assert!(!flag.help.is_empty(), "{}", flag.long);
                }
            });
        }
    }

    #[test]
    fn a_short_name_that_the_command_uses_is_not_shown_for_a_global_flag() {
        let mut checked = false;
        table::walk(Face::Ctl, &mut |path| {
            if path.last().is_some_and(|c| c.cmd == Cmd::Add) {
                let text = help(Face::Ctl, path);
                assert!(text.contains("--chunker, -s") && text.contains("   --https  "), "{text}");
                checked = true;
            }
        });
        assert!(checked);
    }
}
