//! How a command ends when it does not end well: what is printed where, and the exit code.
//!
//! ipfs-cluster-ctl's conduct, which scripts rely on: errors of the API and of the way to it go to
//! *standard output* in the chosen encoding (exit 2, and 1, 62, 125); errors found before a request was
//! made go to standard error as `error <doing>: <error>` (exit 1). Local commands speak on standard
//! error, with the exit code of the error's kind; under the name ipfs-cluster-service it is always 1.

use super::face::Face;
use super::output::{self, Encoding};
use crate::api::types::ErrorBody;
use crate::error::{Error, Kind};
use std::io::Write;

/// Exit code when the reader of our output went away: what a shell shows for SIGPIPE.
const EXIT_PIPE: u8 = 141;
/// Exit code when a deadline passed (as ipfs-cluster-ctl has it).
const EXIT_DEADLINE: u8 = 62;
/// Exit code when the request was cancelled (as ipfs-cluster-ctl has it).
const EXIT_CANCELLED: u8 = 125;

/// Why a command failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The command line cannot be understood.
    Usage(String),
    /// `Argument(doing, error)`: something was found wrong before any request.
    Argument(String, String),
    /// The API answered with an error.
    Api(ErrorBody),
    /// The API could not be reached or did not answer properly.
    Transport(String),
    /// The deadline passed.
    Deadline(String),
    /// A local command failed.
    Local(Error),
    /// What was looked at is not as it should be, and the output says so already.
    Found,
    /// A process that was started for it has told the person, and ended with this code.
    Told(u8),
    /// Whoever read our output went away: nothing to say, and nobody to say it to.
    Pipe,
}

/// The result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// An error found before any request, while `doing` something.
    pub fn argument(doing: impl Into<String>, error: impl std::fmt::Display) -> Failure {
        Failure::Argument(doing.into(), error.to_string())
    }

    /// The exit code under `face`.
    pub fn exit_code(&self, face: Face) -> u8 {
        match self {
            Failure::Usage(_) => face.usage_exit(),
            Failure::Argument(..) | Failure::Transport(_) | Failure::Found => 1,
            Failure::Api(_) => 2,
            Failure::Deadline(_) => EXIT_DEADLINE,
            Failure::Local(e) if e.kind() == Kind::Cancelled => EXIT_CANCELLED,
            Failure::Local(_) if face != Face::Pinfold => 1,
            Failure::Local(e) => e.kind().exit_code(),
            Failure::Told(code) => *code,
            Failure::Pipe => EXIT_PIPE,
        }
    }

    /// Tells the person. Whether that can be written no longer matters: the exit code speaks too.
    pub fn report(&self, face: Face, encoding: Encoding) {
        let body = match self {
            Failure::Pipe | Failure::Found | Failure::Told(_) => return,
            Failure::Usage(text) => {
                let _ = writeln!(std::io::stderr(), "Incorrect Usage: {text}\nSee {} --help", face.name());
                return;
            }
            Failure::Argument(doing, error) => {
                let _ = writeln!(std::io::stderr(), "error {doing}: {error}");
                return;
            }
            Failure::Local(error) => {
                let _ = writeln!(std::io::stderr(), "{}: {error}", face.name());
                return;
            }
            Failure::Api(body) => body.clone(),
            Failure::Transport(text) | Failure::Deadline(text) => {
                ErrorBody { code: 0, message: text.clone() }
            }
        };
        let text = match encoding {
            Encoding::Json => serde_json::to_value(&body).map(|v| output::pretty(&v)).unwrap_or_default(),
            Encoding::Text => {
                format!("An error occurred:\n  Code: {}\n  Message: {}\n", body.code, body.message)
            }
        };
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Local(error)
    }
}

/// Errors of writing our output.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::Pipe,
            _ => Failure::Local(Error::from_io("writing the output", &error)),
        }
    }
}
