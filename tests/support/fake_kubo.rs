//! An IPFS daemon as scripted by the test: good, or bad in one of the ways daemons are, changing while it runs.
//!
//! tiny_http never hangs up by itself, so a small relay stands in front of it that does: for answers that are cut, and
//! for the end of the daemon, which its clients see as they see that of a real one.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tiny_http::{Header, Request, Response, Server};

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    /// As Kubo.
    Good,
    /// Something else answers on the port: a router's page, with status 200.
    Html,
    /// The same with status 500, as a proxy in front of a dead daemon has it.
    HtmlError,
    /// Everything is somewhere else.
    Redirect,
    /// Answers end in the middle of a line.
    HalfLines,
    /// Lists of pins are empty, and questions about one are answered well.
    ShortList,
    /// Answers are cut in the middle of a line, and the connection with them.
    Cut,
    /// JSON of another shape.
    WrongShape,
    /// Every call fails.
    Broken,
    /// Its disk is full.
    DiskFull,
    /// Pins begin well, and fail in the trailer of the answer.
    TrailerError,
    /// Pins go on and on without progress, as fast as the connection takes it.
    EndlessProgress,
    /// Every answer is one line without an end.
    EndlessLine,
    /// Pins never come, as when nobody has the content: twice a second a sign of life.
    Searching,
    /// Pins take a step now and then, and come in the end ([`STEPS`]).
    Slow,
    /// Calls are taken and never answered.
    Silent,
}

/// Steps of a slow pin, and the pause before each.
pub const STEPS: (u32, Duration) = (8, Duration::from_millis(500));

/// What it has and was asked.
#[derive(Default)]
struct Store {
    mood: Option<Mood>,
    pins: BTreeSet<String>,
    id: String,
    started: Option<String>,
    /// Pins under way, and the most there have been.
    running: (usize, usize),
    /// Commands in order, with their query.
    asked: Vec<String>,
}

/// Client connections by the port that the relay uses towards tiny_http.
type Relayed = Arc<Mutex<HashMap<u16, TcpStream>>>;

/// What the threads share.
#[derive(Clone)]
struct Shared {
    store: Arc<Mutex<Store>>,
    relayed: Relayed,
    over: Arc<AtomicBool>,
}

/// A running fake; its port is free again after the drop.
pub struct FakeKubo {
    server: Arc<Server>,
    front: SocketAddr,
    shared: Shared,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], super::cluster::free_port()))
}

/// Requests that are worked on at once: more than a peer under test sends.
const THREADS: usize = 40;

impl FakeKubo {
    pub fn start(at: SocketAddr, mood: Mood) -> FakeKubo {
        let listener = super::wait_for("the port", Duration::from_secs(20), || {
            TcpListener::bind(at).map_err(|e| e.to_string())
        });
        let server = Arc::new(Server::http("127.0.0.1:0").expect("a server"));
        let back = server.server_addr().to_ip().expect("tcp");
        let store = Store {
            mood: Some(mood),
            id: "12D3KooWKktuUeZrGSw2Wfnuy2o71D6gtixmoKurfwrsqALUmtct".into(),
            ..Store::default()
        };
        let shared =
            Shared { store: Arc::new(Mutex::new(store)), relayed: Relayed::default(), over: Arc::default() };
        let mut threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (server, shared) = (server.clone(), shared.clone());
                std::thread::spawn(move || shared.serve(&server))
            })
            .collect();
        let relay = shared.clone();
        threads.push(std::thread::spawn(move || relay.relay(&listener, back)));
        FakeKubo { server, front: at, shared, threads }
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.shared.store.lock().expect("lock")
    }

    /// Behaves like this from now on.
    pub fn turn(&self, mood: Mood) {
        self.store().mood = Some(mood);
    }

    /// Is another one from now on, by identity or by the start of its process, with these pins.
    pub fn become_other(&self, id: Option<&str>, started: Option<&str>, pins: &[&str]) {
        let mut store = self.store();
        if let Some(id) = id {
            store.id = id.to_string();
        }
        store.started = started.map(ToString::to_string);
        store.pins = pins.iter().map(ToString::to_string).collect();
        drop(store);
        self.hang_up();
    }

    /// Loses a pin, as when somebody unpins by hand.
    pub fn forget(&self, cid: &str) {
        self.store().pins.remove(cid);
    }

    /// Closes all connections.
    pub fn hang_up(&self) {
        for (_, client) in self.shared.relayed.lock().expect("lock").drain() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    pub fn pins(&self) -> BTreeSet<String> {
        self.store().pins.clone()
    }

    /// The most pins that were under way at once.
    pub fn most_running(&self) -> usize {
        self.store().running.1
    }

    /// The queries of a command, in order.
    pub fn asked(&self, command: &str) -> Vec<String> {
        let store = self.store();
        let of = |asked: &String| {
            let (name, query) = asked.split_once('?').unwrap_or((asked.as_str(), ""));
            (name == command).then(|| query.to_string())
        };
        store.asked.iter().filter_map(of).collect()
    }
}

impl Shared {
    fn relay(&self, listener: &TcpListener, back: SocketAddr) {
        for client in listener.incoming() {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(back)) else { continue };
            // Answers are small and waited for.
            client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).expect("TCP");
            let port = server.local_addr().expect("connected").port();
            self.relayed.lock().expect("lock").insert(port, client.try_clone().expect("clone"));
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

    fn serve(&self, server: &Server) {
        // Those never answered are kept until the end, as their drop would answer.
        let mut kept = Vec::new();
        while let Ok(request) = server.recv() {
            let asked = request.url().trim_start_matches("/api/v0/").to_string();
            let mood = {
                let mut store = self.store.lock().expect("lock");
                store.asked.push(asked.clone());
                store.mood.expect("a mood")
            };
            let pin = asked.strip_prefix("pin/add?");
            match (mood, pin) {
                (Mood::Silent, _) => kept.push(request),
                (Mood::Cut, _) => {
                    let port = request.remote_addr().map_or(0, SocketAddr::port);
                    let _ = self.pieces(request, "{\"Progress\":1}\n{\"Ci", 1, Duration::ZERO);
                    // What was written must get through first: the relay flushes as it reads.
                    std::thread::sleep(Duration::from_millis(50));
                    if let Some(client) = self.relayed.lock().expect("lock").remove(&port) {
                        let _ = client.shutdown(Shutdown::Both);
                    }
                }
                (Mood::EndlessLine, _) => {
                    let _ = self.pieces(request, &"x".repeat(16 << 10), u32::MAX, Duration::ZERO);
                }
                (Mood::EndlessProgress, Some(_)) => {
                    let _ = self.pieces(request, "{}\n{\"Progress\":0}\n", u32::MAX, Duration::ZERO);
                }
                (Mood::Searching, Some(_)) => {
                    self.count(1);
                    let _ = self.pieces(request, "{}\n", u32::MAX, Duration::from_millis(500));
                    self.count(-1);
                }
                (Mood::Slow, Some(query)) => {
                    self.count(1);
                    let cid = argument(query, "arg");
                    let _ = self.steps(request, &cid);
                    self.count(-1);
                }
                (Mood::TrailerError, Some(_)) => {
                    let mut out = request.into_writer();
                    let words = "pin: the content is gone";
                    let _ = write!(
                        out,
                        "{HEAD}Trailer: X-Stream-Error\r\n\r\n11\r\n{{\"Progress\":  1}}\n\r\n0\r\nX-Stream-Error: {words}\r\n\r\n"
                    );
                    let _ = out.flush();
                }
                _ => {
                    let url = request.url().to_owned();
                    let (status, body) = answer(&url, mood, &mut self.store.lock().expect("lock"));
                    respond(request, mood, status, body);
                }
            }
        }
    }

    /// Counts pins under way.
    fn count(&self, change: isize) {
        let (now, most) = &mut self.store.lock().expect("lock").running;
        *now = now.checked_add_signed(change).expect("counted");
        *most = (*most).max(*now);
    }

    /// The head of a good answer, and a piece of body again and again, until the client goes.
    fn pieces(&self, request: Request, piece: &str, times: u32, pause: Duration) -> std::io::Result<()> {
        let mut out = request.into_writer();
        write!(out, "{HEAD}\r\n")?;
        for _ in 0..times {
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            write!(out, "{:x}\r\n{piece}\r\n", piece.len())?;
            out.flush()?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// A pin that takes its time.
    fn steps(&self, request: Request, cid: &str) -> std::io::Result<()> {
        let mut out = request.into_writer();
        write!(out, "{HEAD}\r\n")?;
        let mut line = |text: String| {
            write!(out, "{:x}\r\n{text}\r\n", text.len())?;
            out.flush()
        };
        for step in 1..=STEPS.0 {
            std::thread::sleep(STEPS.1);
            line(format!("{{\"Progress\":{step}}}\n"))?;
        }
        self.store.lock().expect("lock").pins.insert(cid.to_string());
        line(format!("{{\"Pins\":[\"{cid}\"]}}\n"))?;
        out.write_all(b"0\r\n\r\n")?;
        out.flush()
    }
}

/// The head of an answer in pieces, but for its last line.
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n";

/// A value of a query.
fn argument(query: &str, name: &str) -> String {
    let pairs = query.split('&').filter_map(|p| p.split_once('='));
    pairs.filter(|(k, _)| *k == name).map(|(_, v)| v.to_owned()).next().unwrap_or_default()
}

/// Status and body.
fn answer(url: &str, mood: Mood, store: &mut Store) -> (u16, String) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let argument = |name: &str| argument(query, name);
    let pins = &mut store.pins;
    // Those that are bad in one thing only.
    let works = matches!(
        mood,
        Mood::Good
            | Mood::ShortList
            | Mood::DiskFull
            | Mood::TrailerError
            | Mood::EndlessProgress
            | Mood::Searching
            | Mood::Slow
    );
    let cid = argument("arg");
    let (status, mut body) = match path.trim_start_matches("/api/v0/") {
        "id" => (200, format!(r#"{{"ID":"{}","Addresses":[],"AgentVersion":"kubo/fake"}}"#, store.id)),
        "/debug/metrics/prometheus" => match &store.started {
            Some(at) => (200, format!("# HELP x\nprocess_start_time_seconds {at}\n")),
            None => (404, "404 page not found\n".to_owned()),
        },
        "repo/stat" => (200, r#"{"RepoSize":1000,"StorageMax":1000000000}"#.to_owned()),
        "swarm/peers" => (200, r#"{"Peers":null}"#.to_owned()),
        "pin/ls"
            if !cid.is_empty() && !pins.contains(&cid) || argument("type") == "direct" && !cid.is_empty() =>
        {
            (500, format!(r#"{{"Message":"path '{cid}' is not pinned","Code":0,"Type":"error"}}"#))
        }
        "pin/ls" if argument("type") == "direct" => (200, String::new()),
        "pin/ls" if mood == Mood::ShortList && cid.is_empty() => (200, String::new()),
        "pin/ls" => {
            let asked = pins.iter().filter(|p| cid.is_empty() || **p == cid);
            (200, asked.map(|p| format!("{{\"Cid\":\"{p}\",\"Type\":\"recursive\"}}\n")).collect())
        }
        "pin/add" => {
            if works && mood != Mood::DiskFull {
                pins.insert(cid.clone());
            }
            (200, format!("{{\"Progress\":1}}\n{{\"Pins\":[\"{cid}\"]}}\n"))
        }
        "pin/rm" => {
            if works {
                pins.remove(&cid);
            }
            (200, format!(r#"{{"Pins":["{cid}"]}}"#))
        }
        _ => (404, "404 page not found\n".to_owned()),
    };
    let mut status = status;
    match mood {
        Mood::Redirect => (status, body) = (302, String::new()),
        Mood::HtmlError => {
            (status, body) = (500, "<html><body><h1>502 Bad Gateway</h1></body></html>".into())
        }
        Mood::Html => {
            (status, body) = (200, "<!DOCTYPE html><html><h1>Welcome to your router</h1></html>".into())
        }
        Mood::HalfLines => {
            status = 200;
            body = "{\"Progress\":1}\n{\"Ci".into();
        }
        Mood::WrongShape => (status, body) = (200, "[17, {\"Pins\": 3}]\n".into()),
        Mood::Broken => {
            (status, body) = (500, r#"{"Message":"the datastore is on fire","Code":0,"Type":"error"}"#.into())
        }
        Mood::DiskFull if path.ends_with("pin/add") => {
            let words =
                r#"{"Message":"pin: write /repo/blocks/x: no space left on device","Code":0,"Type":"error"}"#;
            (status, body) = (500, words.into());
        }
        _ => {}
    }
    (status, body)
}

fn respond(request: Request, mood: Mood, status: u16, body: String) {
    let header = |name: &str, value: &str| Header::from_bytes(name, value).expect("a header");
    let html = matches!(mood, Mood::Html | Mood::HtmlError);
    let kind = header("Content-Type", if html { "text/html" } else { "application/json" });
    let mut response = Response::from_string(body).with_status_code(status).with_header(kind);
    if mood == Mood::Redirect {
        response.add_header(header("Location", "http://127.0.0.1:1/login"));
    }
    let _ = request.respond(response);
}

impl Drop for FakeKubo {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.hang_up();
        for _ in &self.threads {
            self.server.unblock();
        }
        let _ = TcpStream::connect(self.front);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
