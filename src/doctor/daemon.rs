//! The running daemon: whether there is one, and what it says of its cluster.

use super::{quoted, Finding};
use crate::api::own::OwnApi;
use crate::config::{Config, Folder};
use crate::error::Kind;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// How long the daemon may take for one answer: it may wait for dead members itself.
const ANSWER: Duration = Duration::from_secs(20);
/// Clocks further apart than this make expiry times and certificates differ between boards, seconds.
const DRIFT: i64 = 30;

/// The process that holds the folder.
pub(super) struct Running {
    /// Its process id.
    pub(super) pid: u32,
    /// What it is: `daemon`, `state export`.
    pub(super) what: String,
}

/// What the daemon told.
pub(super) struct Told {
    /// Members by peer id: empty, or why they do not answer.
    pub(super) members: BTreeMap<String, String>,
    /// What its IPFS node says of itself, or why it says nothing.
    pub(super) ipfs: Result<String, String>,
}

/// Who holds the folder's lock, without touching it: taking it even for a moment could make a daemon fail to start.
pub(super) fn running(folder: &Folder) -> Option<Running> {
    let path = folder.lock_file();
    let text = std::fs::read_to_string(&path).ok()?;
    let (pid, what) = text.split_once(' ')?;
    let pid: u32 = pid.parse().ok()?;
    let inode = path.metadata().ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let held = locks.lines().any(|line| is_lock(line, pid, inode));
    held.then(|| Running { pid, what: what.chars().filter(|c| !c.is_control()).collect() })
}

/// `1: FLOCK  ADVISORY  WRITE 4711 fe:00:10084544 0 EOF`
fn is_lock(line: &str, pid: u32, inode: u64) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, by, file, ..] = fields[..] else { return false };
    // The device is left out: some filesystems show another one there than to stat.
    by.parse() == Ok(pid) && file.rsplit(':').next().and_then(|n| n.parse().ok()) == Some(inode)
}

/// Asks it.
pub(super) fn look(
    folder: &Folder,
    config: &Config,
    running: Option<&Running>,
    findings: &mut Vec<Finding>,
) -> Option<Told> {
    let Some(running) = running else {
        findings.push(Finding::ok("daemon", "it does not run; everything was looked at without it"));
        return None;
    };
    if !["daemon", "up", "join"].contains(&running.what.as_str()) {
        let what = format!("process {} ({}) works with the folder", running.pid, running.what);
        findings.push(Finding::ok("daemon", what));
        return None;
    }
    let process = format!("process {} ({})", running.pid, running.what);
    if config.restapi.is_none() {
        findings.push(Finding::ok("daemon", format!("it runs as {process}, without a REST API to ask")));
        return None;
    }
    let id = OwnApi::of(config, ANSWER).and_then(|api| api.get("/id").map(|id| (api, id)));
    let (api, id) = match id {
        Ok(asked) => asked,
        Err(error) => {
            let what = format!("it runs as {process}, and its API does not answer: {error}");
            let fix = match error.kind() {
                Kind::Unavailable => {
                    format!("see its log: journalctl -u pinfold; then: kill {}", running.pid)
                }
                // A changed password works after the next start only.
                _ => format!(
                    "stop it (kill {}) and start it again, if {} was changed since",
                    running.pid,
                    quoted(&folder.service_json())
                ),
            };
            findings.push(Finding::fail("daemon", what, fix));
            return None;
        }
    };
    let version = id["version"].as_str().unwrap_or("");
    if version == crate::VERSION {
        findings.push(Finding::ok("daemon", format!("it runs as {process}")));
    } else {
        findings.push(Finding::warn(
            "daemon",
            format!("it runs as {process} with version {version}, and this is {}", crate::VERSION),
            format!("stop it (kill {}) and start it again", running.pid),
        ));
    }
    consensus(&api, findings);
    let mut told = Told { ipfs: ipfs(&id), members: BTreeMap::new() };
    members(&api, &mut told, findings);
    clocks(&api, findings);
    Some(told)
}

fn ipfs(id: &Value) -> Result<String, String> {
    match id["ipfs"]["error"].as_str().unwrap_or("") {
        "" => Ok(id["ipfs"]["id"].as_str().unwrap_or("").to_owned()),
        error => Err(error.to_owned()),
    }
}

fn consensus(api: &OwnApi, findings: &mut Vec<Finding>) {
    let Ok(health) = api.get("/health/consensus") else { return };
    let members = health["members"].as_array().map_or(0, Vec::len);
    findings.push(match health["leader"].as_str() {
        Some(leader) => Finding::ok("cluster", format!("{members} member(s), led by {leader}")),
        None => Finding::fail(
            "cluster",
            format!("no leader: fewer than half of the {members} voters reach each other, so that nothing can be pinned"),
            "start the other peers again; see which are missing: pinfold peers ls",
        ),
    });
}

fn members(api: &OwnApi, told: &mut Told, findings: &mut Vec<Finding>) {
    let Ok(answer) = api.get("/peers") else { return };
    let one = std::slice::from_ref(&answer);
    for peer in answer.as_array().map_or(one, Vec::as_slice) {
        let id = peer["id"].as_str().unwrap_or("").to_owned();
        let error = peer["error"].as_str().unwrap_or("").to_owned();
        if !error.is_empty() {
            findings.push(Finding::fail(
                "peers",
                format!("{id} does not answer the daemon: {error}"),
                format!("start it there, or, if it is gone for good: pinfold peers rm {id}"),
            ));
        }
        told.members.insert(id, error);
    }
}

fn clocks(api: &OwnApi, findings: &mut Vec<Finding>) {
    // An older daemon has no such route.
    let Ok(answer) = api.get("/health/clocks") else { return };
    let mut compared = 0;
    for member in answer.as_array().into_iter().flatten() {
        let Some(ahead) = member["ahead_ms"].as_i64().map(|ms| ms / 1000) else { continue };
        compared += 1;
        if ahead.abs() > DRIFT {
            let who = member["peername"].as_str().unwrap_or("a member");
            findings.push(Finding::warn(
                "clock",
                format!("{who} is {} {} this machine", span(ahead.unsigned_abs()), if ahead > 0 { "ahead of" } else { "behind" }),
                "on the board that is wrong: timedatectl set-ntp true    (without Internet: date -u -s '2026-01-31 12:00:00')",
            ));
        }
    }
    if compared > 0 && !findings.iter().any(|f| f.check == "clock" && !f.fix.is_empty()) {
        findings.push(Finding::ok("clock", format!("it agrees with those of {compared} member(s)")));
    }
}

/// Seconds in the largest unit that says enough.
fn span(secs: u64) -> String {
    let (unit, name) = match secs {
        0..120 => (1, "seconds"),
        120..7_200 => (60, "minutes"),
        7_200..172_800 => (3_600, "hours"),
        _ => (86_400, "days"),
    };
    format!("{} {name}", (secs + unit / 2) / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_recognised_without_taking_it() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = Folder::new(dir.path());
        assert!(running(&folder).is_none(), "no file");
        let lock = folder.lock("daemon").expect("lock");
        let found = running(&folder).expect("held");
        assert_eq!((found.pid, found.what.as_str()), (std::process::id(), "daemon"));
        drop(lock);
        assert!(running(&folder).is_none(), "given back");
        let line = "1: FLOCK  ADVISORY  WRITE 4711 fe:00:10084544 0 EOF";
        assert!(is_lock(line, 4711, 10_084_544));
        assert!(!is_lock(line, 4712, 10_084_544) && !is_lock(line, 4711, 1) && !is_lock("", 0, 0));
    }

    #[test]
    fn spans_are_told_in_their_unit() {
        assert_eq!(span(31), "31 seconds");
        assert_eq!(span(3_600), "60 minutes");
        assert_eq!(span(365 * 86_400 - 3), "365 days");
    }
}
