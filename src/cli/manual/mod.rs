//! What the tables say, for `man` and for shells: manual pages and completions, made by `pinfold man` and `pinfold
//! completion`.
//!
//! Everything comes from the tables that the program itself works by: commands and flags ([`super::table`]), exit codes
//! ([`super::exits`]), keys ([`crate::config::keys()`]); what has no table anywhere else stands in [`tables`] (files,
//! variables, examples) and [`values`] (what a flag's value can be). Tests hold those against the program. The packages
//! take the committed copies in `packaging/man` and `packaging/completions`; a test fails when they are not what is
//! written here, and `UPDATE_GOLDENFILES=1 cargo test --test manual` writes them anew.
//!
//! What this room must never do: say something that the program does not, ask a clock, or let a shell run what a peer
//! answered.

mod actions;
mod bash;
mod fish;
mod pages;
mod roff;
mod tables;
mod values;
mod zsh;

use super::face::Face;
use super::failure::{Failure, Outcome};
use super::table::{self, Command, Side};
use crate::error::Error;
use std::io::{IsTerminal, Write};

/// The shells that can be helped.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];
/// The manual pages.
pub const PAGES: [&str; 4] = ["pinfold.1", "pinfold.5", "ipfs-cluster-service.1", "ipfs-cluster-ctl.1"];
/// The names of the program.
pub const NAMES: [&str; 3] = ["pinfold", "ipfs-cluster-service", "ipfs-cluster-ctl"];

/// A manual page as roff, by its name; `None` when there is no such page.
pub fn page(name: &str) -> Option<String> {
    Some(match name {
        "pinfold" | "pinfold.1" => pages::program(Face::Pinfold),
        "pinfold.5" => pages::configuration(),
        "ipfs-cluster-service" | "ipfs-cluster-service.1" => pages::program(Face::Service),
        "ipfs-cluster-ctl" | "ipfs-cluster-ctl.1" => pages::program(Face::Ctl),
        _ => return None,
    })
}

/// The completions of a shell for one of the program's names; `None` when either is unknown.
pub fn script(shell: &str, name: &str) -> Option<String> {
    let face = NAMES.contains(&name).then(|| Face::of(name))?;
    match shell {
        "bash" => Some(bash::script(face)),
        "zsh" => Some(zsh::script(face)),
        "fish" => Some(fish::script(face)),
        _ => None,
    }
}

/// `man`.
///
/// # Errors
/// There is no such page.
pub(super) fn man(name: Option<&str>) -> Outcome {
    let name = name.unwrap_or(PAGES[0]);
    let Some(text) = page(name) else {
        return Err(Failure::Local(Error::not_found(format!(
            "there is no page \"{name}\"; the pages are {}",
            PAGES.join(", ")
        ))));
    };
    print(&text, &format!("this is the source of a page; read it with: pinfold man {name} | man -l -"))
}

/// `completion`.
///
/// # Errors
/// There is no such shell or name.
pub(super) fn completion(shell: &str, name: Option<&str>) -> Outcome {
    let name = name.unwrap_or(NAMES[0]);
    let Some(text) = script(shell, name) else {
        let (what, word, known) = match NAMES.contains(&name) {
            true => ("shell", shell, SHELLS.join(", ")),
            false => ("name", name, NAMES.join(", ")),
        };
        return Err(Failure::Local(Error::invalid(format!(
            "there are no completions for the {what} \"{word}\", only for {known}"
        ))));
    };
    print(&text, "this is for a file that your shell reads; `pinfold completion --help` says where it goes")
}

/// Prints; whoever sees it on a terminal probably wanted to see something else.
fn print(text: &str, hint: &str) -> Outcome {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    if out.is_terminal() {
        writeln!(std::io::stderr(), "{hint}")?;
    }
    Ok(())
}

/// One command of a face with all the words before it, and the flags that may stand behind it.
struct Entry {
    /// The commands from the first word on; empty for the program itself.
    path: Vec<&'static Command>,
    /// Its own flags and the global ones that it does not hide.
    flags: Vec<Shown>,
    /// What can stand behind it as a further word: sub-commands.
    children: Vec<&'static Command>,
}

impl Entry {
    /// The words before what may follow, as somebody types them.
    fn words(&self) -> String {
        names(&self.path)
    }

    /// What its arguments can be.
    fn arguments(&self) -> values::Values {
        self.path.last().map_or(values::Values::Nothing, |command| values::of_arguments(command))
    }
}

/// The names of commands, with a space between them.
fn names(commands: &[&Command]) -> String {
    commands.iter().map(|c| c.name).collect::<Vec<_>>().join(" ")
}

/// The names of the program's commands, the sub-commands of its first entry.
fn commands(entries: &[Entry]) -> String {
    entries.first().map(|entry| names(&entry.children)).unwrap_or_default()
}

/// A flag as it is offered: a name that the command itself uses means no global flag.
#[derive(Clone)]
struct Shown {
    flag: &'static table::Flag,
    /// All names with their dashes, the long one first.
    names: Vec<String>,
}

/// Every command that a face shows, in the table's order, after the program itself.
fn entries(face: Face) -> Vec<Entry> {
    let top = table::COMMANDS.iter().filter(|c| c.faces.has(face) && !c.hidden).collect();
    let globals = table::globals(face, Side::Both).map(|flag| shown(flag, &[]));
    let mut all = vec![Entry { path: Vec::new(), flags: globals.collect(), children: top }];
    table::walk(face, &mut |path| {
        let Some(command) = path.last().filter(|_| path.iter().all(|c| !c.hidden)) else { return };
        let own = command.flags;
        let mut flags: Vec<Shown> = own.iter().filter(|f| !f.hidden).map(|flag| shown(flag, &[])).collect();
        flags.extend(
            table::globals(face, command.side)
                .filter(|global| !own.iter().any(|f| f.long == global.long))
                .map(|global| shown(global, own)),
        );
        let children = command.children.iter().filter(|c| c.faces.has(face) && !c.hidden).collect();
        all.push(Entry { path: path.to_vec(), flags, children });
    });
    all
}

fn shown(flag: &'static table::Flag, taken: &[table::Flag]) -> Shown {
    let aliases = flag.aliases.iter().filter(|alias| !taken.iter().any(|f| f.is(alias)));
    let names = std::iter::once(&flag.long).chain(aliases).map(|name| dashed(name)).collect();
    Shown { flag, names }
}

/// A flag's name with its dashes.
fn dashed(name: &str) -> String {
    format!("{}{name}", if name.chars().count() == 1 { "-" } else { "--" })
}

/// A name as it can be part of a shell function's.
fn identifier(name: &str) -> String {
    name.replace('-', "_")
}
