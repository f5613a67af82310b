//! What the tests of the command line share: running the executable under any of its names, and a small
//! HTTP server that answers as it is told.
#![allow(dead_code)] // every test file uses its own half

#[path = "../support/executable.rs"]
mod executable;
pub mod http;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No command of these tests may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A command of the executable under `name`, in `folder`, with nothing of this machine's environment.
pub fn command(name: &str, words: &[String], folder: &Path) -> Command {
    let link = folder.join(name);
    if !link.exists() {
        // Another test may have been quicker.
        let _ = std::os::unix::fs::symlink(executable::executable(), &link);
    }
    let mut command = Command::new(link);
    command.args(words).current_dir(folder).env_clear().env("HOME", folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the executable under `name` to its end.
pub fn run_as(name: &str, words: &[String], folder: &Path, input: &str) -> Ran {
    let mut child = command(name, words, folder).spawn().expect("the executable starts");
    let mut stdin = child.stdin.take().expect("stdin");
    // A command that does not read its input closes the pipe; that is its right.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    finish(child)
}

/// The rest of a running command.
pub fn finish(mut child: Child) -> Ran {
    let mut stdout = child.stdout.take().expect("stdout");
    let mut stderr = child.stderr.take().expect("stderr");
    let out = std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).map(|_| text)
    });
    let err = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| text)
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if started.elapsed() > LIMIT {
            child.kill().expect("kill");
            panic!("the command did not end within {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |t: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        String::from_utf8_lossy(&t.join().expect("reader").expect("read")).into_owned()
    };
    Ran { code: status.code().unwrap_or(-1), out: text(out), err: text(err) }
}

/// Words of a command line.
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_string).collect()
}
