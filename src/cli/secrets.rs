//! `pinfold hash-password`: from a password to the text that service.json keeps instead of it.
//!
//! The password comes from standard input, never from the command line, where every user of the machine could read
//! it. A person is asked, and does not see what is typed.

use super::failure::Outcome;
use crate::error::Error;
use crate::password::{Hashed, MAX_PASSWORD};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use std::io::{BufRead, IsTerminal, Read, Write};

/// Reads one line and prints its hash.
///
/// # Errors
/// Nothing was typed, or it is too long.
pub(super) fn hash_password() -> Outcome {
    let password = read()?;
    let hashed = Hashed::new(&password)?;
    writeln!(std::io::stdout(), "{}", hashed.to_text())?;
    Ok(())
}

fn read() -> Outcome<String> {
    let stdin = std::io::stdin();
    let quiet = if stdin.is_terminal() {
        write!(std::io::stderr(), "Password: ")?;
        std::io::stderr().flush()?;
        Quiet::begin()
    } else {
        None
    };
    let mut line = Vec::new();
    // One byte more than may be, so that a longer one is noticed and not cut.
    let limit = MAX_PASSWORD as u64 + 2;
    let read = stdin.lock().take(limit).read_until(b'\n', &mut line);
    if quiet.is_some() {
        drop(quiet);
        writeln!(std::io::stderr())?;
    }
    read.map_err(|e| Error::from_io("reading the password from standard input", &e))?;
    let line = String::from_utf8(line).map_err(|_| Error::invalid("the password is not UTF-8 text; type another"))?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// A terminal that shows nothing of what is typed, until it is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> Option<Quiet> {
        let before = termios::tcgetattr(std::io::stdin()).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &hidden).ok()?;
        Some(Quiet(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
