//! Clusters whose IPFS proxies are asked, by HTTP and by the real `ipfs` command.

// Each test binary that takes this file in uses its own part of it.
#![allow(dead_code)]

use crate::kubo_daemon::{executable, KuboDaemon};
use crate::support::cluster::{Cluster, Peer};
use serde_json::{json, Value};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Peers, each with a Kubo of its own behind it and behind its proxy.
pub struct Proxied {
    // First, so that the peers stop before their daemons.
    pub cluster: Cluster,
    pub kubos: Vec<KuboDaemon>,
}

impl Proxied {
    /// `n` of them; `None` where there is no Kubo.
    pub fn of(n: usize) -> Option<Proxied> {
        Proxied::with(n, |_, _| {})
    }

    /// The same with changes to each service.json.
    pub fn with(n: usize, change: impl Fn(usize, &mut Value)) -> Option<Proxied> {
        let kubos = (0..n).map(|_| KuboDaemon::start(None)).collect::<Option<Vec<_>>>()?;
        let cluster = Cluster::with(n, |i, config| {
            behind(config, &[kubos[i].api.to_string()]);
            change(i, config);
        });
        Some(Proxied { cluster, kubos })
    }

    pub fn peer(&self, n: usize) -> &Peer {
        &self.cluster.peers[n]
    }
}

/// Makes these addresses the IPFS daemon of a peer, for its connector and for its proxy.
pub fn behind(config: &mut Value, nodes: &[String]) {
    config["ipfs_connector"] = json!({"ipfshttp": {
        "node_multiaddress": nodes,
        "connect_swarms_delay": "1s",
        "pin_timeout": "30s",
    }});
    config["api"]["ipfsproxy"]["node_multiaddress"] = json!(nodes);
}

/// The multiaddress of a peer's proxy.
pub fn proxy_of(peer: &Peer) -> String {
    let listen = peer.config()["api"]["ipfsproxy"]["listen_multiaddress"].clone();
    listen.as_str().or_else(|| listen[0].as_str()).expect("the proxy's address").to_string()
}

/// The `ipfs` command, talking to a peer's proxy.
pub fn ipfs(peer: &Peer, args: &[&str]) -> Command {
    let mut command = Command::new(executable().expect("Kubo"));
    command.env("IPFS_PATH", peer.folder.join("no-repository")).env("IPFS_TELEMETRY", "off");
    command.args(["--api", &proxy_of(peer)]).args(args).stdin(Stdio::null());
    command
}

/// Its standard output, when it must succeed.
pub fn ipfs_ok(peer: &Peer, args: &[&str]) -> String {
    finished(args, ipfs(peer, args).output().expect("the ipfs executable starts"))
}

/// The same with something on its standard input.
pub fn ipfs_fed(peer: &Peer, args: &[&str], input: &[u8]) -> String {
    let mut command = ipfs(peer, args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the ipfs executable starts");
    child.stdin.take().expect("piped").write_all(input).expect("fed");
    finished(args, child.wait_with_output().expect("output"))
}

/// Its words, when it must fail.
pub fn ipfs_fails(peer: &Peer, args: &[&str]) -> String {
    let output = ipfs(peer, args).output().expect("the ipfs executable starts");
    assert!(!output.status.success(), "ipfs {args:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn finished(args: &[&str], output: Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ipfs {args:?}: {}: {words}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
