//! The pages themselves: one for each name of the program, and one for the configuration.

use super::roff::{bold, italic, Page};
use super::tables::{examples, FILES, INSTALLED, RELEASE, VARIABLES};
use super::{entries, Entry, Shown};
use crate::cli::exits::EXITS;
use crate::cli::face::Face;
use crate::cli::help;
use crate::cli::table::{Command, Flag};
use crate::config;

/// The page of a program.
pub(super) fn program(face: Face) -> String {
    let name = face.name();
    let (about, details) = help::about(face);
    let mut page = Page::begin(name, 1, RELEASE);
    page.section("NAME");
    page.text(&format!("{name} - {about}"));
    page.section("SYNOPSIS");
    page.alone(&format!(
        "{} [{} ...] {} [{} ...] [{} ...]",
        bold(name),
        italic("global option"),
        italic("command"),
        italic("option"),
        italic("argument")
    ));
    page.section("DESCRIPTION");
    page.paragraph(details);
    if face == Face::Pinfold {
        page.paragraph(
            "Flags may stand before or after the command, in any order, with one dash or two; a value follows after a space \
             or an equals sign. Every command explains itself with `--help`.",
        );
    }
    let entries = entries(face);
    page.section("GLOBAL OPTIONS");
    for entry in entries.iter().filter(|entry| entry.path.is_empty()) {
        entry.flags.iter().for_each(|shown| option(&mut page, shown));
        page.term(&[bold("--help"), bold("-h")].join(", "), "Show help, of the program or of a command.");
        page.term(&[bold("--version"), bold("-v")].join(", "), "Print the version.");
    }
    page.section("COMMANDS");
    for entry in entries.iter().filter(|entry| !entry.path.is_empty() && entry.children.is_empty()) {
        command(&mut page, name, entry);
    }
    page.section("EXIT STATUS");
    exit_status(&mut page, face);
    page.section("ENVIRONMENT");
    let of_flags = flags_with_variables(&entries);
    for flag in &of_flags {
        page.term(&bold(flag.env), &format!("Stands in for `--{}` where that is not given.", flag.long));
    }
    let client = face == Face::Ctl;
    for (variable, meaning) in VARIABLES.iter().filter(|_| !client) {
        page.term(&bold(variable), meaning);
    }
    if !client {
        page.section("FILES");
        let home = if face == Face::Pinfold { "~/.pinfold" } else { "~/.ipfs-cluster" };
        for (n, (file, meaning)) in FILES.iter().enumerate() {
            page.term(&italic(if n == 0 { home } else { file }), meaning);
        }
        for (file, meaning) in INSTALLED.iter().filter(|_| face == Face::Pinfold) {
            page.term(&italic(file), meaning);
        }
    }
    page.section("EXAMPLES");
    for (what, lines) in examples(face) {
        page.paragraph(what);
        page.example(lines);
    }
    page.section("SEE ALSO");
    let others = super::PAGES.iter().filter(|other| **other != format!("{name}.1"));
    let others: Vec<String> = others.filter_map(|other| reference(other)).collect();
    page.alone(&others.join(", "));
    page.end()
}

/// `pinfold(5)` for `pinfold.5`.
fn reference(page: &str) -> Option<String> {
    let (name, section) = page.rsplit_once('.')?;
    Some(format!("{}({section})", bold(name)))
}

fn command(page: &mut Page, program: &str, entry: &Entry) {
    let Some(command) = entry.path.last() else { return };
    let words: Vec<&str> = entry.path.iter().map(|c| c.name).collect();
    page.sub(&words.join(" "));
    page.alone(&usage(program, &words, command));
    page.paragraph(&sentence(command.about));
    if !command.details.is_empty() {
        page.paragraph(command.details);
    }
    let own = entry.flags.iter().filter(|shown| command.flags.iter().any(|f| f.long == shown.flag.long));
    own.for_each(|shown| option(page, shown));
}

fn usage(program: &str, words: &[&str], command: &Command) -> String {
    let mut usage = bold(&format!("{program} {}", words.join(" ")));
    if command.flags.iter().any(|f| !f.hidden) {
        usage.push_str(&format!(" [{} ...]", italic("option")));
    }
    if !command.args.is_empty() {
        usage.push_str(&format!(" {}", italic(command.args)));
    }
    usage
}

fn option(page: &mut Page, shown: &Shown) {
    let mut term: String = shown.names.iter().map(|name| bold(name)).collect::<Vec<_>>().join(", ");
    if let Some(value) = shown.flag.value {
        term.push_str(&format!(" {}", italic(value)));
    }
    page.term(&term, &sentence(&flag_text(shown.flag)));
}

fn flag_text(flag: &Flag) -> String {
    match flag.default {
        "" => flag.help.to_owned(),
        default => format!("{} (default: {default})", flag.help),
    }
}

/// The tables write half sentences; here they begin and end like whole ones.
fn sentence(text: &str) -> String {
    // A name of a file or of a key stays as it is written.
    let is_name = text.split(' ').next().is_some_and(|word| word.contains(['.', '_', '/']));
    if is_name {
        return format!("{}.", text.trim_end_matches('.'));
    }
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    let end = if text.ends_with(['.', '…']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

fn exit_status(page: &mut Page, face: Face) {
    match face {
        Face::Pinfold => {
            for exit in EXITS {
                page.term(&bold(&exit.code.to_string()), exit.meaning);
            }
            let helpless: Vec<String> =
                EXITS.iter().filter(|exit| !exit.again).map(|exit| exit.code.to_string()).collect();
            page.paragraph(&format!(
                "After {} the service manager does not start a peer again: it would be a loop.",
                helpless.join(", ")
            ));
        }
        Face::Service => {
            page.term(&bold("0"), "Done; a peer was stopped by a signal and came to a clean end.");
            page.term(&bold("1"), "Anything else; standard error says what.");
        }
        Face::Ctl => {
            page.term(&bold("0"), "Done.");
            for code in [1, 2, 62, 125, 141] {
                let meaning = match code {
                    1 => "The command line is wrong, or the API could not be reached.",
                    2 => "The API answered with an error.",
                    _ => EXITS.iter().find(|exit| exit.code == code).map_or("", |exit| exit.meaning),
                };
                page.term(&bold(&code.to_string()), meaning);
            }
        }
    }
}

/// The flags that a variable can stand in for, each variable once.
fn flags_with_variables(entries: &[Entry]) -> Vec<&'static Flag> {
    let mut found: Vec<&'static Flag> = Vec::new();
    for shown in entries.iter().flat_map(|entry| &entry.flags).filter(|shown| !shown.flag.env.is_empty()) {
        if !found.iter().any(|flag| flag.env == shown.flag.env) {
            found.push(shown.flag);
        }
    }
    found
}

/// The page of service.json.
pub(super) fn configuration() -> String {
    let mut page = Page::begin("pinfold", 5, RELEASE);
    page.section("NAME");
    page.text("service.json - configuration of a peer of pinfold");
    page.section("DESCRIPTION");
    // The introduction of docs/configuration.md, without its title and what is said of that page itself.
    for paragraph in config::manual::INTRODUCTION.split("\n\n").skip(2) {
        page.paragraph(&paragraph.replace('\n', " "));
    }
    page.paragraph(
        "A peer reads the file when it starts. `pinfold init` and `pinfold up` write it; `pinfold config keys` shows what \
         is below in a terminal.",
    );
    let mut section = None;
    page.section("KEYS");
    for key in config::keys() {
        let (now, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if section != Some(now) {
            page.sub(now);
            section = Some(now);
        }
        page.term(&bold(name), &key.meaning);
        if let Some(why) = key.no_effect {
            page.further(&format!("Without effect: {why}."));
        }
        let default = match serde_json::from_str::<serde_json::Value>(&key.default) {
            Ok(_) => format!("`{}`", key.default),
            Err(_) => key.default.clone(),
        };
        page.further(&format!("({}, default {default}, variable `{}`)", config::manual::kind(key), key.env));
    }
    page.section("FILES");
    for (file, meaning) in INSTALLED {
        page.term(&italic(file), meaning);
    }
    page.term(&italic("~/.pinfold/service.json"), "The configuration of a peer that a person started.");
    page.section("EXAMPLES");
    page.paragraph(
        "Two copies of everything that does not say otherwise, and a disk of its own for the blocks:",
    );
    page.example(
        "{\n  \"cluster\": {\n    \"replication_factor_min\": 1,\n    \"replication_factor_max\": 2\n  },\n  \"ipfs_connector\": \
         {\n    \"embedded\": { \"data_folder\": \"/srv/blocks/ipfs\" }\n  }\n}",
    );
    page.paragraph("The same by variables:");
    page.example("CLUSTER_REPLICATIONFACTORMAX=2\nCLUSTER_EMBEDDED_DATAFOLDER=/srv/blocks/ipfs");
    page.section("SEE ALSO");
    page.alone(&reference("pinfold.1").unwrap_or_default());
    page.end()
}

#[cfg(test)]
mod tests {
    use super::super::roff::code;
    use super::super::{dashed, page, PAGES};
    use super::*;

    #[test]
    fn the_date_is_that_of_this_version() {
        assert_eq!(RELEASE.0, crate::VERSION, "a new version has a new date: src/cli/manual/tables.rs");
        assert_eq!(RELEASE.1.len(), "2026-01-31".len());
    }

    #[test]
    fn every_command_and_flag_that_a_face_shows_is_on_its_page() {
        for face in [Face::Pinfold, Face::Service, Face::Ctl] {
            let text = program(face);
            for entry in entries(face) {
                let words: Vec<&str> = entry.path.iter().map(|c| c.name).collect();
                if entry.children.is_empty() {
                    assert!(text.contains(&format!(".SS \"{}\"\n", code(&words.join(" ")))), "{words:?}");
                }
                for shown in entry.flags {
                    assert!(text.contains(&bold(&dashed(shown.flag.long))), "{words:?} {}", shown.flag.long);
                }
            }
        }
    }

    #[test]
    fn every_key_and_every_exit_code_is_explained() {
        let text = configuration();
        for key in config::keys() {
            assert!(text.contains(&bold(&key.env)), "{}", key.env);
        }
        for exit in EXITS {
            assert!(program(Face::Pinfold).contains(&format!(".TP\n{}\n", bold(&exit.code.to_string()))));
        }
    }

    #[test]
    fn every_page_is_there_and_ascii() {
        for name in PAGES {
            let text = page(name).expect(name);
            assert!(text.is_ascii() && text.ends_with('\n'), "{name}");
        }
        assert_eq!(page("pinfold.7"), None);
    }

    /// Every variable that the sources read is on a page: as one of a key, of a flag, or of the table.
    #[test]
    fn every_variable_that_the_program_reads_is_explained() {
        let mut all = program(Face::Pinfold);
        all.push_str(&configuration());
        let mut found = 0;
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("sources").flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                for begin in ["env::var(\"", "env::var_os(\"", "variable(\""] {
                    for rest in text.split(begin).skip(1) {
                        let name = rest.split('"').next().unwrap_or_default();
                        // Those of the tests and of the simulator are theirs.
                        if name.starts_with("PINFOLD_") || name.contains('{') || name == "env::var_os(" {
                            continue;
                        }
                        found += 1;
                        assert!(all.contains(&bold(name)), "{}: {name}", entry.path().display());
                    }
                }
            }
        }
        assert!(found > 10, "only {found} variables: are the sources where they are looked for?");
    }
}
