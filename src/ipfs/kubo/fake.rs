//! A scripted IPFS daemon for the connector's tests: tiny_http with an answer per path.
//!
//! Whatever a daemon can do wrong is one variant of [`Say`]; raw answers go out byte for byte, so that lies
//! about length, cut connections and endless bodies are possible. As tiny_http never hangs up by itself, a
//! small relay stands in front of it that does.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// What the daemon does when it is asked.
#[derive(Clone, Debug)]
pub(super) enum Say {
    /// 200 with this body.
    Json(String),
    /// A status and a body.
    Status(u16, String),
    /// These bytes instead of an HTTP answer, then the end of the connection.
    Raw(String),
    /// The head of a good answer, then each line after its pause, then a good end (if `end`) or a cut.
    Lines { lines: Vec<(u64, String)>, end: bool },
    /// The head of a good answer, then this piece for ever.
    Endless(String),
    /// Silence.
    Nothing,
}

/// Client connections by the port that the relay uses towards tiny_http.
type Relayed = Arc<Mutex<HashMap<u16, TcpStream>>>;

/// A running fake.
pub(super) struct Fake {
    server: Arc<tiny_http::Server>,
    front: SocketAddr,
    /// Paths (with query) that were asked, in order.
    pub(super) asked: Arc<Mutex<Vec<String>>>,
    /// Bodies of the requests, in order.
    pub(super) bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Answers that ended because the client went away.
    pub(super) abandoned: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";

impl Fake {
    /// Starts with answers per command, such as `pin/add` (or with part of the query: the longest key that is
    /// contained in the path counts).
    pub(super) fn start(script: &[(&str, Say)]) -> Fake {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").expect("a free port"));
        let script: HashMap<String, Say> =
            script.iter().map(|(path, say)| ((*path).to_string(), say.clone())).collect();
        let back = server.server_addr().to_ip().expect("tcp");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let relayed = Relayed::default();
        let mut fake = Fake {
            server,
            front: listener.local_addr().expect("bound"),
            asked: Arc::default(),
            bodies: Arc::default(),
            abandoned: Arc::default(),
            over: Arc::default(),
            threads: Vec::new(),
        };
        let (clients, over) = (relayed.clone(), fake.over.clone());
        fake.threads.push(std::thread::spawn(move || relay(&listener, back, &clients, &over)));
        // More threads than any test has requests at a time: nobody waits behind a slow answer.
        for _ in 0..6 {
            let (server, script) = (fake.server.clone(), script.clone());
            let (asked, bodies) = (fake.asked.clone(), fake.bodies.clone());
            let (abandoned, over) = (fake.abandoned.clone(), fake.over.clone());
            let clients = relayed.clone();
            fake.threads.push(std::thread::spawn(move || {
                while let Ok(mut request) = server.recv() {
                    let path = request.url().trim_start_matches("/api/v0/").to_string();
                    asked.lock().push(path.clone());
                    let mut body = Vec::new();
                    let _ = request.as_reader().read_to_end(&mut body);
                    bodies.lock().push(body);
                    let key = script.keys().filter(|k| path.contains(k.as_str())).max_by_key(|k| k.len());
                    let say = key.and_then(|k| script.get(k)).cloned();
                    let say = say.unwrap_or_else(|| Say::Status(404, "404 page not found\n".into()));
                    let port = request.remote_addr().map_or(0, SocketAddr::port);
                    let cut = matches!(&say, Say::Raw(_) | Say::Lines { end: false, .. });
                    if answer(request, say, &over).is_err() {
                        abandoned.fetch_add(1, Ordering::SeqCst);
                    }
                    if cut {
                        // What was written must get through first: the relay flushes as it reads.
                        std::thread::sleep(Duration::from_millis(50));
                        if let Some(client) = clients.lock().remove(&port) {
                            let _ = client.shutdown(Shutdown::Both);
                        }
                    }
                }
            }));
        }
        fake
    }

    /// Its RPC address.
    pub(super) fn address(&self) -> libp2p::Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{}", self.front.port()).parse().expect("address")
    }

    /// How often a command was asked.
    pub(super) fn count(&self, command: &str) -> usize {
        self.asked.lock().iter().filter(|p| p.contains(command)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        for _ in 0..self.threads.len() {
            self.server.unblock();
        }
        let _ = TcpStream::connect(self.front);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn relay(listener: &TcpListener, back: SocketAddr, clients: &Relayed, over: &AtomicBool) {
    for client in listener.incoming() {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(client), Ok(server)) = (client, TcpStream::connect(back)) else { continue };
        let port = server.local_addr().expect("connected").port();
        clients.lock().insert(port, client.try_clone().expect("clone"));
        let one_way = |from: &TcpStream, to: &TcpStream| {
            let (mut from, mut to) = (from.try_clone().expect("clone"), to.try_clone().expect("clone"));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            })
        };
        one_way(&client, &server);
        one_way(&server, &client);
    }
}

fn chunk(out: &mut dyn Write, text: &str) -> std::io::Result<()> {
    write!(out, "{:x}\r\n{text}\r\n", text.len())?;
    out.flush()
}

fn answer(request: tiny_http::Request, say: Say, over: &AtomicBool) -> std::io::Result<()> {
    match say {
        Say::Json(body) => request.respond(tiny_http::Response::from_string(body)),
        Say::Status(code, body) => {
            request.respond(tiny_http::Response::from_string(body).with_status_code(code))
        }
        Say::Raw(text) => {
            let mut out = request.into_writer();
            out.write_all(text.as_bytes())?;
            out.flush()
        }
        Say::Lines { lines, end } => {
            let mut out = request.into_writer();
            out.write_all(HEAD.as_bytes())?;
            out.flush()?;
            for (pause, line) in lines {
                std::thread::sleep(Duration::from_millis(pause));
                chunk(&mut out, &line)?;
            }
            if end {
                out.write_all(b"0\r\n\r\n")?;
            }
            out.flush()
        }
        Say::Endless(piece) => {
            let mut out = request.into_writer();
            out.write_all(HEAD.as_bytes())?;
            while !over.load(Ordering::SeqCst) {
                chunk(&mut out, &piece)?;
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }
        Say::Nothing => {
            let _out = request.into_writer();
            while !over.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        }
    }
}
