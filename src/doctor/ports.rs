//! The ports that the configuration names: free, held by our own daemon, or by whom.
//!
//! A port is tried by binding it for a moment, as a fresh start does. Who holds a taken one is read from `/proc`: the
//! kernel lists listening sockets by inode, and each process its open sockets (those of other users only to root).

use super::daemon::Running;
use super::{quoted, Finding};
use crate::config::{host_port, Config, HostPort, IpfsSection};
use libp2p::Multiaddr;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::Path;

/// Processes that are looked at for the holder of a port: more than any board runs.
const MAX_PROCESSES: usize = 20_000;
/// A listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// One key of the configuration.
struct Listener<'c> {
    key: &'static str,
    addresses: &'c [Multiaddr],
    /// Whether a running daemon always holds it.
    always: bool,
}

/// Looks at all of them.
pub(super) fn look(config: &Config, running: Option<&Running>, findings: &mut Vec<Finding>) {
    let ours = running.map(|running| sockets_of(running.pid)).unwrap_or_default();
    for listener in listeners(config) {
        for target in listener.addresses.iter().filter_map(host_port).filter(|target| target.port != 0) {
            findings.push(one(&listener, &target, running, &ours));
        }
    }
}

fn listeners(config: &Config) -> Vec<Listener<'_>> {
    let mut all = vec![Listener {
        key: "cluster.listen_multiaddress",
        addresses: &config.cluster.listen_multiaddress,
        always: true,
    }];
    if let Some(api) = &config.restapi {
        let addresses = &api.http_listen_multiaddress;
        all.push(Listener { key: "api.restapi.http_listen_multiaddress", addresses, always: true });
    }
    if let Some(api) = &config.ipfsproxy {
        let addresses = &api.listen_multiaddress;
        all.push(Listener { key: "api.ipfsproxy.listen_multiaddress", addresses, always: false });
    }
    if let Some(api) = &config.pinsvcapi {
        let addresses = &api.http_listen_multiaddress;
        all.push(Listener { key: "api.pinsvcapi.http_listen_multiaddress", addresses, always: false });
    }
    if let IpfsSection::Embedded(node) = &config.ipfs {
        let addresses = &node.listen_multiaddress;
        all.push(Listener { key: "ipfs_connector.embedded.listen_multiaddress", addresses, always: true });
    }
    all
}

fn one(listener: &Listener<'_>, target: &HostPort, running: Option<&Running>, ours: &BTreeSet<u64>) -> Finding {
    let (key, at) = (listener.key, target.authority());
    let free = match bind(target) {
        Ok(free) => free,
        Err(error) => {
            let what = format!("{key}: {at} cannot be listened on: {error}");
            let fix = match error.kind() {
                ErrorKind::PermissionDenied => format!("choose a port above 1023 in {key}"),
                ErrorKind::AddrNotAvailable => format!("this machine does not have that address: correct {key} (see: ip address)"),
                _ => format!("correct the address in {key}"),
            };
            return Finding::fail("ports", what, fix);
        }
    };
    let holders = if free { BTreeSet::new() } else { listening_on(target.port) };
    let held_by_us = holders.iter().any(|inode| ours.contains(inode));
    match (free, running) {
        (true, Some(running)) if listener.always => Finding::warn(
            "ports",
            format!("{key}: nobody listens on {at}, although the daemon runs: it was started with another address"),
            format!("stop the daemon (kill {}) and start it again", running.pid),
        ),
        (true, _) => Finding::ok("ports", format!("{key}: {at} is free")),
        (false, Some(_)) if held_by_us => Finding::ok("ports", format!("{key}: {at} is held by the running daemon")),
        // Another user's daemon: its sockets cannot be seen, and it would not run without its port.
        (false, Some(_)) if ours.is_empty() => {
            Finding::ok("ports", format!("{key}: {at} is in use, as it should be while the daemon runs"))
        }
        (false, _) => {
            let (who, stop) = match holder(&holders) {
                Some((pid, name)) => (format!("process {pid} ({name})"), format!("kill {pid}")),
                None => ("another program".to_owned(), format!("sudo ss -ltnp 'sport = :{}'", target.port)),
            };
            Finding::fail(
                "ports",
                format!("{key}: {at} is taken by {who}"),
                format!("{stop}, or choose another port in {key}"),
            )
        }
    }
}

/// Whether every address of the target can be bound now.
fn bind(target: &HostPort) -> std::io::Result<bool> {
    let no_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    for socket in (target.host.as_str(), target.port).to_socket_addrs()? {
        match TcpListener::bind(socket) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::AddrInUse => return Ok(false),
            // A machine without IPv6 says nothing about the port.
            Err(e) if e.raw_os_error() == Some(no_family) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Inodes of the sockets that listen on a port, whatever the address.
fn listening_on(port: u16) -> BTreeSet<u64> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().filter_map(|line| inode_of(line, port)));
    }
    inodes
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`
fn inode_of(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let matches = *fields.get(3)? == LISTENING && u16::from_str_radix(local_port, 16).ok()? == port;
    if matches {
        fields.get(9)?.parse().ok()
    } else {
        None
    }
}

/// Inodes of the sockets that a process has open; none when we may not look.
fn sockets_of(pid: u32) -> BTreeSet<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let target = |path: &Path| std::fs::read_link(path).ok()?.to_str().map(str::to_owned);
    entries
        .filter_map(|entry| target(&entry.path())?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// The process that has one of these sockets, and its name.
fn holder(inodes: &BTreeSet<u64>) -> Option<(u32, String)> {
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.take(MAX_PROCESSES) {
        if sockets_of(pid).intersection(inodes).next().is_some() {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
            return Some((pid, quoted(Path::new(&name))));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_found() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = socket.local_addr().expect("address").port();
        let inodes = listening_on(port);
        assert_eq!(inodes.len(), 1, "{inodes:?}");
        assert!(sockets_of(std::process::id()).is_superset(&inodes));
        assert_eq!(holder(&inodes).expect("holder").0, std::process::id());
        assert!(!bind(&HostPort { host: "127.0.0.1".into(), port }).expect("bind"));
        drop(socket);
        assert!(listening_on(port).is_empty());
        assert!(bind(&HostPort { host: "127.0.0.1".into(), port }).expect("bind"));
    }
}
