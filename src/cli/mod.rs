//! The command line: what people and scripts type, and what they get to see.
//!
//! ```text
//! argv ─> normalise ─> args (argh) ─┬─> ctl    ─> client ─> a peer's HTTP API ─> text | output
//!            │                      └─> local  ─> config, daemon
//!            └─ table ─> help, commands
//! ```
//!
//! One table ([`table`]) knows all commands and flags; [`normalise`] brings what was typed into argh's
//! shape; [`args`] makes it typed; [`ctl`] and [`local`] do it; [`failure`] says how it ended. The
//! executable behaves as the program it is called by ([`face`]).
//!
//! What this room must never do: talk to a peer other than through its HTTP API; keep a listing in
//! memory; print anything but results on standard output (API errors are results here, as in
//! ipfs-cluster-ctl); change text or exit codes that scripts rely on.

pub mod args;
pub mod client;
pub mod ctl;
pub mod exits;
pub mod face;
pub mod failure;
pub mod help;
pub mod humanize;
pub mod manual;
pub mod normalise;
pub mod output;
pub mod progress;
pub mod table;
pub mod text;
pub mod wait;

mod add;
mod backup;
mod check;
mod config;
mod doctor;
mod dot;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/arguments.rs"]
pub(crate) mod fuzz;
pub(crate) mod get;
mod import;
mod local;
mod moves;
mod recover;
mod secrets;
mod service;
mod upload;

use crate::clock::Timestamp;
use args::{Globals, Parsed};
use face::Face;
use failure::{Failure, Outcome};
use normalise::{Asked, Misunderstood};
use output::{Encoding, Output};
use std::ffi::OsString;
use std::io::Write;
use table::{Cmd, Command, Side};

/// Exit code for a command that does not exist (as urfave/cli, which ipfs-cluster is built on, has it).
pub(crate) const EXIT_NO_TOPIC: u8 = 3;

/// A command line that was understood.
pub struct Invocation {
    /// The program it was given to.
    pub face: Face,
    /// Global flags.
    pub globals: Globals,
    /// The command.
    pub command: Parsed,
    /// Where it works.
    pub side: Side,
}

/// Reads a command line. What needs no running (help, version, mistakes) is answered right here, and
/// the exit code returned as the error.
///
/// # Errors
/// The exit code.
pub fn understand(argv: impl IntoIterator<Item = OsString>) -> Result<Invocation, u8> {
    let mut argv = argv.into_iter();
    let face = Face::of(&argv.next().unwrap_or_default().to_string_lossy());
    let mut words = Vec::new();
    for word in argv {
        match word.into_string() {
            Ok(word) => words.push(word),
            Err(word) => {
                return Err(end(
                    face,
                    &Failure::Usage(format!("{} is not UTF-8 text", word.to_string_lossy())),
                ))
            }
        }
    }
    let env = |name: &str| std::env::var(name).ok();
    let asked = normalise::normalise(face, &words, &env).map_err(|m| misunderstood(face, m))?;
    match asked {
        Asked::Help(path) => Err(print(face, &help::help(face, &path), 0)),
        Asked::Version => Err(print(face, &format!("{} version {}\n", face.name(), crate::VERSION), 0)),
        // Scripts notice a forgotten sub-command of the service by its exit code.
        Asked::Nothing => Err(print(face, &help::help(face, &[]), u8::from(face == Face::Service))),
        Asked::Run(words) => {
            let command: &Command = words.command();
            if command.cmd == Cmd::Commands {
                return Err(print(face, &(help::command_lines(face).join("\n") + "\n"), 0));
            }
            let (globals, parsed) = args::parse(&words).map_err(|f| end(face, &f))?;
            Ok(Invocation { face, globals, command: parsed, side: command.side })
        }
    }
}

impl Invocation {
    /// Runs it; gives the exit code.
    pub fn run(self) -> u8 {
        let face = self.face;
        if let Err(error) = Timestamp::can_be_told() {
            return end(face, &error.into());
        }
        let encoding = match self.globals.encoding.as_deref() {
            None | Some("text") => Encoding::Text,
            Some("json") => Encoding::Json,
            Some(other) => {
                let failure = Failure::argument(
                    "parsing flags",
                    format!("unsupported encoding \"{other}\": use text or json"),
                );
                return end(face, &failure);
            }
        };
        let done = if self.side == Side::Client {
            self.ask(encoding)
        } else {
            local::run(face, &self.globals, self.command, encoding)
        };
        match done {
            Ok(()) => 0,
            Err(failure) => {
                failure.report(face, encoding);
                failure.exit_code(face)
            }
        }
    }

    fn ask(self, encoding: Encoding) -> Outcome {
        let env = |name: &str| std::env::var(name).ok();
        if let Some(done) = backup::on_behalf(self.globals.config.as_deref(), &self.command) {
            return done;
        }
        let client = client::Client::new(self.face, &self.globals, &env)?;
        if let Parsed::Backup(args) = &self.command {
            return backup::run(&client, self.globals.config.as_deref(), args);
        }
        let mut out = Output::stdout(encoding);
        ctl::Ctl { client: &client, out: &mut out, folders: self.face == Face::Pinfold }.run(self.command)
    }
}

fn misunderstood(face: Face, what: Misunderstood) -> u8 {
    match what {
        Misunderstood::Usage(text) => end(face, &Failure::Usage(text)),
        // The service shows its help instead: that is what ipfs-cluster-service does.
        Misunderstood::Command { .. } if face == Face::Service => print(face, &help::help(face, &[]), 1),
        Misunderstood::Command { word, nearest } => {
            let mut text = format!("No help topic for '{}'\n", text::plain(&word));
            if let (Face::Pinfold, Some(nearest)) = (face, nearest) {
                text.push_str(&format!("Did you mean `pinfold {nearest}`?\n"));
            }
            let _ = std::io::stderr().write_all(text.as_bytes());
            EXIT_NO_TOPIC
        }
    }
}

fn end(face: Face, failure: &Failure) -> u8 {
    failure.report(face, Encoding::Text);
    failure.exit_code(face)
}

fn print(face: Face, text: &str, code: u8) -> u8 {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(e) => end(face, &e.into()),
    }
}
