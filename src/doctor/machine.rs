//! The machine: its clock, its memory, and how many files a process may have open.

use super::daemon::Running;
use super::Finding;
use crate::clock::Timestamp;
use rustix::process::{getrlimit, Resource};

/// No clock of a peer of this version can be before this (2025-01-01): boards without a battery start in 1970.
const EARLIEST: i64 = 1_735_689_600;
/// A clock beyond this (2100-01-01) is a typing mistake.
const LATEST: i64 = 4_102_444_800;
/// Below this much free memory a board kills programs, kibibytes.
const LITTLE_MEMORY: u64 = 64 << 10;
/// Open files that a busy peer needs: connections of the APIs and of the cluster, blocks, stores.
const FILES: u64 = 2_048;

/// The year, at least.
pub(super) fn clock(findings: &mut Vec<Finding>) {
    let now = Timestamp::now();
    let said = format!("it says {} UTC", now.plain());
    findings.push(if (EARLIEST..LATEST).contains(&now.secs) {
        Finding::ok("clock", said)
    } else {
        Finding::fail(
            "clock",
            format!("{said}, which cannot be: certificates, tokens and expiry times go wrong"),
            "timedatectl set-ntp true    (without Internet: date -u -s '2026-01-31 12:00:00')",
        )
    });
}

/// What is left of the memory.
pub(super) fn memory(findings: &mut Vec<Finding>) {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return };
    let Some(free) = field(&text, "MemAvailable:") else { return };
    let swap = field(&text, "SwapFree:").unwrap_or(0);
    let what = format!("{} MiB are available", free >> 10);
    findings.push(if free + swap < LITTLE_MEMORY {
        Finding::warn(
            "memory",
            format!("{what}: the system may end the daemon"),
            "stop other programs, or see what uses the memory: ps aux --sort=-rss | head",
        )
    } else {
        Finding::ok("memory", what)
    });
}

/// A number of `/proc/meminfo`, kibibytes.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// How many files may be open, in the running daemon or in what would be started from here.
pub(super) fn files(running: Option<&Running>, findings: &mut Vec<Finding>) {
    let (limit, whose) = match running.and_then(|running| limit_of(running.pid)) {
        Some(limit) => (limit, "the running daemon"),
        // The daemon raises its limit to the highest that it may have.
        None => (getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX), "a daemon started from here"),
    };
    let what = if limit == u64::MAX {
        format!("{whose} may open any number of files")
    } else {
        format!("{whose} may open {limit} files")
    };
    findings.push(if limit < FILES {
        Finding::warn(
            "files",
            format!("{what}; with many connections that is too few, {FILES} are enough"),
            "ulimit -n 65536 before the start, or LimitNOFILE=65536 in the systemd unit",
        )
    } else {
        Finding::ok("files", what)
    });
}

/// The soft limit of another process.
fn limit_of(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let soft = text.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next())?;
    if soft == "unlimited" {
        Some(u64::MAX)
    } else {
        soft.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let text = "MemTotal:        8000 kB\nMemAvailable:    4096 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(4096));
        assert_eq!(field(text, "SwapFree:"), None);
        assert!(limit_of(std::process::id()).expect("own limits") > 0);
        assert_eq!(limit_of(u32::MAX), None);
    }
}
