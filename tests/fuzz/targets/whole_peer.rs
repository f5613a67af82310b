//! A whole peer in this process, founded in a folder in memory, with its ports on loopback: what arrives there passes
//! through everything that ships.
//!
//! It is started once. After each input the pins are as they were before, so that one input does not explain another.

use super::{start, DaemonOptions, Peer, RunMode};
use crate::config::init::{init, InitOptions, Ports};
use crate::config::{Config, Env, Folder};
use crate::daemon::FreshOptions;
use crate::fuzz::{folder, Input};
use crate::runtime::block_on;
use crate::state::{Command, Pin};
use crate::store::Table;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

/// An answer that takes longer is not waited for: content that nobody has is looked for until its client goes.
const PATIENCE: Duration = Duration::from_millis(300);
/// Bytes of an answer that are read.
const ENOUGH: u64 = 1 << 20;

struct Whole {
    peer: Peer,
    rest: SocketAddr,
    proxy: SocketAddr,
}

fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let base = folder("peer");
        let here = Folder::new(base.join("peer"));
        let options = InitOptions { embedded: true, ports: Ports::Random, ..InitOptions::default() };
        init(&here, &options, &Env::empty()).expect("a fresh folder");
        let (mut config, _) = Config::load(&here, &Env::empty()).expect("a configuration");
        config.cluster.mdns_interval = Duration::ZERO;
        config.save(&here).expect("saved");
        let options = DaemonOptions {
            folder: here,
            bootstrap: Vec::new(),
            leave: false,
            upgrade: false,
            insecure_no_secret: false,
            mode: RunMode::Daemon,
            fresh: FreshOptions::default(),
        };
        let peer = block_on(Box::pin(start(&options))).expect("a peer");
        let port = |server: Option<&crate::api::server::Server>| server.expect("on").local_addrs()[0];
        let (rest, proxy) = (port(peer.server.as_ref()), port(peer.proxy.as_ref()));
        Whole { peer, rest, proxy }
    })
}

impl Whole {
    fn pins(&self) -> Vec<Pin> {
        let rows = self.peer.state.scan(Table::Pins, None, usize::MAX).expect("the state");
        rows.iter().map(|(_, row)| Pin::decode(row).expect("a pin")).collect()
    }

    fn clean(&self) {
        for pin in self.pins() {
            let _ = block_on(self.peer.consensus.propose(Command::Unpin(pin.cid)));
        }
        assert_eq!(self.peer.consensus.status().failed, None, "a request has ended the peer");
    }
}

/// Sends bytes and reads the answer; `None` when there was none in time.
fn exchange(to: SocketAddr, bytes: &[u8], half: bool) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(to).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let _ = stream.write_all(bytes);
    if half {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = Vec::new();
    stream.take(ENOUGH).read_to_end(&mut answer).ok().map(|_| answer)
}

/// Text as it may stand in the first line of a request.
fn target(text: &[u8]) -> String {
    let mut out = String::new();
    for byte in text {
        match byte {
            0x21..=0x7e => out.push(char::from(*byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// A request of the input: method, target, headers, body; or raw bytes. What is refused has changed nothing.
fn request(to: SocketAddr, paths: &[&str], data: &[u8]) {
    let mut input = Input(data);
    let whole = whole();
    let before = whole.pins();
    let raw = input.below(16) == 0;
    let bytes = if raw { input.rest().to_vec() } else { compose(&mut input, paths) };
    let answer = exchange(to, &bytes, raw);
    if let Some(answer) = answer.filter(|answer| !answer.is_empty() && !raw) {
        let line = answer.get(..12).map(String::from_utf8_lossy).unwrap_or_default();
        let status: Option<u16> = line.strip_prefix("HTTP/1.1 ").and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("this is no HTTP: {line:?}"));
        if status >= 400 {
            assert_eq!(whole.pins(), before, "refused with {status}, and done all the same");
        }
    }
    whole.clean();
}

fn compose(input: &mut Input<'_>, paths: &[&str]) -> Vec<u8> {
    let method = ["GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT"][input.below(6)];
    let path = paths[input.below(paths.len())];
    let (more, query) = (target(input.bytes()), target(input.bytes()));
    let headers = input.byte();
    let body = input.rest();
    let mut out =
        format!("{method} {path}{more}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
    for (bit, line) in [
        (1, "Content-Type: multipart/form-data; boundary=b\r\n"),
        (2, "Content-Type: application/json\r\n"),
        (4, "Origin: http://example.org\r\n"),
        (8, "Authorization: Basic eDp5\r\n"),
        (16, "Accept: application/vnd.ipld.car\r\n"),
        (32, "Range: bytes=0-1\r\n"),
    ] {
        if headers & bit != 0 {
            out.push_str(line);
        }
    }
    out.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    out
}

/// Requests to the REST API.
pub(crate) fn rest(data: &[u8]) {
    const PATHS: [&str; 22] = [
        "/add",
        "/pins/",
        "/pins",
        "/allocations/",
        "/allocations",
        "/pins/ipfs/",
        "/id",
        "/peers",
        "/peers/",
        "/version",
        "/health/graph",
        "/health",
        "/monitor/metrics/",
        "/monitor/metrics",
        "/ipfs/",
        "/token",
        "/ipfs/gc",
        "/health/alerts",
        "/health/bandwidth",
        "/rebalance",
        "/pins/recover",
        "/",
    ];
    request(whole().rest, &PATHS, data);
}

/// Requests to the IPFS proxy: those that it takes for itself, and the node's own calls.
pub(crate) fn proxy(data: &[u8]) {
    const PATHS: [&str; 24] = [
        "/api/v0/add",
        "/api/v0/pin/add",
        "/api/v0/pin/rm",
        "/api/v0/pin/ls",
        "/api/v0/pin/update",
        "/api/v0/block/put",
        "/api/v0/block/get",
        "/api/v0/block/stat",
        "/api/v0/block/rm",
        "/api/v0/dag/put",
        "/api/v0/dag/get",
        "/api/v0/dag/import",
        "/api/v0/dag/export",
        "/api/v0/dag/resolve",
        "/api/v0/cat",
        "/api/v0/get",
        "/api/v0/ls",
        "/api/v0/refs",
        "/api/v0/resolve",
        "/api/v0/repo/stat",
        "/api/v0/id",
        "/api/v0/swarm/connect",
        "/api/v0/",
        "/",
    ];
    request(whole().proxy, &PATHS, data);
}

/// Calls of another peer.
pub(crate) fn calls(data: &[u8]) {
    let whole = whole();
    crate::cluster::fuzz::call(&whole.peer.cluster, data);
    whole.clean();
}
