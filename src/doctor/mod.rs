//! `pinfold doctor`: looks at everything that a peer needs and says what is wrong, and the command that mends it.
//!
//! | file | looks at |
//! |---|---|
//! | `settings` | folder and modes, service.json, secret, identity, certificate |
//! | `machine` | clock, memory, file limits |
//! | `data` | the databases of log and state: whether their pages are whole |
//! | `disk` | space, read-only mounts, time of a flush |
//! | `ports` | whether each listener's port is free, or held by our own daemon, or by whom |
//! | `daemon` | the running daemon: leader, members, clocks, IPFS as it sees them |
//! | `peers` | the addresses of the others: dialled with the cluster's secret, as the daemon would |
//! | `ipfs` | the IPFS node: reachable, version, private network |
//!
//! It works beside a running daemon and without one. It changes nothing: no lock is taken, no store opened, no
//! file left behind (the flush is timed on a file without a name), and other peers are dialled under a fresh
//! identity, so that they do not take us for our own daemon. Everything that waits has a limit, and one
//! broken thing never keeps it from looking at the next. It must never print a secret.

mod daemon;
mod data;
mod disk;
mod ipfs;
mod machine;
mod peers;
mod ports;
mod settings;

use crate::config::{Env, Folder};
use crate::runtime;
use serde::Serialize;
use std::fmt::Write as _;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and is worth a look.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, one word: `clock`.
    pub check: &'static str,
    /// How it is.
    pub level: Level,
    /// In a sentence.
    pub what: String,
    /// A command, or what to do, when there is something to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding { check, level: Level::Ok, what: what.into(), fix: String::new() }
    }

    fn warn(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { check, level: Level::Warn, what: what.into(), fix: fix.into() }
    }

    fn fail(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { check, level: Level::Fail, what: what.into(), fix: fix.into() }
    }
}

/// All of them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The folder that was looked at.
    pub folder: String,
    /// In the order of looking.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether something does not work.
    pub fn failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Fail)
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.folder);
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "OK  ",
                Level::Warn => "WARN",
                Level::Fail => "FAIL",
            };
            let _ = writeln!(text, "{level}  {:<11} {}", finding.check, finding.what);
            if !finding.fix.is_empty() {
                let _ = writeln!(text, "                  fix: {}", finding.fix);
            }
        }
        let count = |level| self.findings.iter().filter(|f| f.level == level).count();
        let (fails, warns) = (count(Level::Fail), count(Level::Warn));
        let _ = match (fails, warns) {
            (0, 0) => writeln!(text, "Everything is as it should be."),
            (0, n) => writeln!(text, "It works; {n} worth a look."),
            (n, m) => writeln!(text, "{n} to mend, {m} worth a look."),
        };
        text
    }
}

/// Looks at everything.
pub fn examine(folder: &Folder, env: &Env) -> Report {
    let (mut findings, config) = settings::look(folder, env);
    machine::clock(&mut findings);
    machine::memory(&mut findings);
    let running = daemon::running(folder);
    machine::files(running.as_ref(), &mut findings);
    if let Some(config) = config {
        disk::look(folder, &config, &mut findings);
        data::look(folder, &config, &mut findings);
        ports::look(&config, running.as_ref(), &mut findings);
        let told = daemon::look(folder, &config, running.as_ref(), &mut findings);
        findings.extend(runtime::block_on(async {
            let mut network = peers::look(folder, &config, env, told.as_ref()).await;
            network.extend(ipfs::look(folder, &config, told.as_ref()).await);
            network
        }));
    }
    Report { folder: folder.path().display().to_string(), findings }
}

/// A path as a word of a shell command.
fn quoted(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_each_finding_with_its_fix_and_ends_with_the_count() {
        let mut report = Report { folder: "/f".into(), findings: vec![Finding::ok("clock", "it is fine")] };
        assert!(!report.failed());
        assert_eq!(report.text(), "/f\nOK    clock       it is fine\nEverything is as it should be.\n");
        report.findings.push(Finding::warn("disk", "nearly full", "make room"));
        assert!(!report.failed(), "a warning is no failure");
        report.findings.push(Finding::fail("ports", "taken", "stop it"));
        assert!(report.failed());
        let text = report.text();
        assert!(text.contains("FAIL  ports       taken\n                  fix: stop it\n"), "{text}");
        assert!(text.ends_with("1 to mend, 1 worth a look.\n"), "{text}");
    }

    #[test]
    fn paths_are_words_of_a_shell() {
        assert_eq!(quoted("/home/x/.pinfold".as_ref()), "/home/x/.pinfold");
        assert_eq!(quoted("/a b/it's".as_ref()), "'/a b/it'\\''s'");
    }
}
