//! Three peers restarted one after the other with SIGTERM while clients of all three write and read.
//!
//! What is promised, and measured here:
//! - a request at a peer that stays up does not fail, whoever is being restarted and whoever leads;
//! - a request that the stopping peer had taken is answered, on new connections and on kept ones;
//! - after that the stopping peer refuses connections, and its clients go to the next address: that is their part of it;
//! - a kept connection on which nothing was asked for a tenth of a second is closed without a word, as HTTP allows.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use support::cluster::{Cluster, Peer, PATIENCE};
use support::wait_for;

/// Clients at each peer, of each kind.
const CLIENTS: usize = 2;
/// Rounds over all peers.
const ROUNDS: usize = 2;
/// Writes in all between two restarts, so that each happens under load.
const BETWEEN: usize = 60;
/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(20);

fn inline(n: usize) -> String {
    let hash = multihash::Multihash::<64>::wrap(0, format!("rolling {n}").as_bytes()).expect("a short text");
    cid::Cid::new_v1(0x55, hash).to_string()
}

/// What the clients have done together.
#[derive(Default)]
struct Book {
    stop: AtomicBool,
    acknowledged: Mutex<Vec<String>>,
    failures: Mutex<Vec<String>>,
    /// The longest that one client waited between two acknowledged writes.
    longest: Mutex<Duration>,
    refused: Mutex<usize>,
}

impl Book {
    fn count(&self) -> usize {
        self.acknowledged.lock().expect("lock").len()
    }
}

/// A client with a home, and the other addresses.
struct Client<'a> {
    addresses: &'a [SocketAddr],
    home: usize,
    /// Keeps its connection from request to request.
    keeps: bool,
    kept: Option<(usize, BufReader<TcpStream>)>,
    book: &'a Book,
}

impl Client<'_> {
    /// A connection: the kept one, else to the first address from home on that takes the call.
    fn connect(&mut self) -> (usize, BufReader<TcpStream>) {
        if let Some((at, kept)) = self.kept.take() {
            // Closed by the peer after the last answer, or a moment ago: then nothing is sent on it.
            let socket = kept.get_ref();
            socket.set_nonblocking(true).expect("a socket");
            let closed =
                !matches!(socket.peek(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
            socket.set_nonblocking(false).expect("a socket");
            if !closed {
                return (at, kept);
            }
        }
        let deadline = Instant::now() + LIMIT;
        for turn in 0.. {
            let at = (self.home + turn) % self.addresses.len();
            match TcpStream::connect(self.addresses[at]) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(LIMIT)).expect("a socket");
                    stream.set_nodelay(true).expect("a socket");
                    return (at, BufReader::new(stream));
                }
                Err(_) => *self.book.refused.lock().expect("lock") += 1,
            }
            assert!(Instant::now() < deadline, "nobody takes a connection");
        }
        unreachable!("numbers do not end")
    }

    /// One request, asked once: the status, or what went wrong after the connection was there.
    fn ask(&mut self, method: &str, path: &str) -> Result<u16, String> {
        let (at, mut stream) = self.connect();
        let connection = if self.keeps { "keep-alive" } else { "close" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\nContent-Length: 0\r\n\r\n"
        );
        let failed = |e: std::io::Error| format!("{method} {path} at peer {at} ({connection}): {e}");
        stream.get_mut().write_all(head.as_bytes()).map_err(failed)?;
        let (mut status, mut length, mut last) = (0, 0, !self.keeps);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).map_err(failed)? == 0 {
                return Err(failed(std::io::Error::other("closed without an answer")));
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(code) = line.strip_prefix("http/1.1 ") {
                status = code[..3].parse().expect("a status");
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            } else if line == "connection: close" {
                last = true;
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).map_err(failed)?;
        if !last {
            self.kept = Some((at, stream));
        }
        if status != 200 {
            let body = String::from_utf8_lossy(&body);
            return Err(format!("{method} {path} at peer {at}: {status} {body}"));
        }
        Ok(status)
    }

    /// Writes without a pause, and reads what it wrote.
    fn work(mut self, first: usize) {
        let mut last = Instant::now();
        for number in first.. {
            if self.book.stop.load(Ordering::Relaxed) {
                return;
            }
            let cid = inline(number);
            let written = self.ask("POST", &format!("/pins/{cid}?name=n{number}"));
            match written {
                Ok(_) => self.book.acknowledged.lock().expect("lock").push(cid.clone()),
                Err(why) => self.book.failures.lock().expect("lock").push(why),
            }
            let mut longest = self.book.longest.lock().expect("lock");
            *longest = (*longest).max(last.elapsed());
            drop(longest);
            last = Instant::now();
            if let Err(why) = self.ask("GET", &format!("/allocations/{cid}?consistency=strong")) {
                self.book.failures.lock().expect("lock").push(why);
            }
        }
    }
}

/// Ends the clients whatever happens.
struct StopAtEnd<'a>(&'a Book);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn three_peers_restart_one_by_one_without_a_failed_request() {
    let mut cluster = Cluster::of(3);
    let addresses: Vec<SocketAddr> = cluster.peers.iter().map(Peer::rest).collect();
    let (book, mut stops, mut handed_over) = (Book::default(), Vec::new(), 0);
    std::thread::scope(|scope| {
        for client in 0..3 * 2 * CLIENTS {
            let (addresses, book) = (&addresses[..], &book);
            let (home, keeps) = (client % 3, client % 2 == 0);
            let client_of = Client { addresses, home, keeps, kept: None, book };
            scope.spawn(move || client_of.work(client * 1_000_000));
        }
        let _stop = StopAtEnd(&book);
        let more = |what: &str| {
            let before = book.count();
            wait_for(what, PATIENCE, || {
                let now = book.count();
                (now >= before + BETWEEN).then_some(()).ok_or_else(|| format!("{before} then {now}"))
            });
        };
        for round in 0..ROUNDS {
            for turn in 0..3 {
                let peer = (round + turn) % 3;
                more("writes before a restart");
                let led = cluster.leader() == peer;
                let (status, took) = cluster.peers[peer].stop();
                assert!(status.success(), "{status}\n{}", cluster.peers[peer].log());
                stops.push(took);
                more("writes while a peer is down");
                handed_over += usize::from(led);
                // As a person does it: the next one only when this one is ready.
                cluster.peers[peer].start(&["daemon"]);
            }
        }
        more("writes after the last restart");
    });
    let (failures, refused) =
        (book.failures.into_inner().expect("lock"), book.refused.into_inner().expect("lock"));
    let acknowledged = book.acknowledged.into_inner().expect("lock");
    eprintln!(
        "{} restarts, {handed_over} of a leader: {} writes acknowledged, {} failed requests, {refused} refused connections; \
         the longest that a client waited for a write: {:?}; the longest stop: {:?}",
        stops.len(),
        acknowledged.len(),
        failures.len(),
        book.longest.into_inner().expect("lock"),
        stops.iter().max().expect("stops"),
    );
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(handed_over > 0, "no leader was restarted");
    for peer in &cluster.peers {
        peer.json("GET", "/id?consistency=strong");
        let has = peer.pinned_cids();
        let lost = acknowledged.iter().filter(|cid| has.binary_search(cid).is_err()).count();
        assert_eq!(lost, 0, "{lost} acknowledged pins are not at {}", peer.path());
    }
}
