//! An IPFS daemon as scripted by the test: good, or bad in one of the ways daemons are, changing while it runs.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
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
    /// Answers end in the middle of a line.
    HalfLines,
    /// JSON of another shape.
    WrongShape,
    /// Every call fails.
    Broken,
    /// Calls are taken and never answered.
    Silent,
}

/// A running fake; its port is free again after the drop.
pub struct FakeKubo {
    server: Arc<Server>,
    mood: Arc<Mutex<Mood>>,
    pins: Arc<Mutex<BTreeSet<String>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound")
}

impl FakeKubo {
    pub fn start(at: SocketAddr, mood: Mood) -> FakeKubo {
        let listener = super::wait_for("the port", Duration::from_secs(20), || {
            TcpListener::bind(at).map_err(|e| e.to_string())
        });
        let server = Arc::new(Server::from_listener(listener, None).expect("a server"));
        let (mood, pins) = (Arc::new(Mutex::new(mood)), Arc::new(Mutex::new(BTreeSet::new())));
        let threads = (0..4)
            .map(|_| {
                let (server, mood, pins) = (server.clone(), mood.clone(), pins.clone());
                std::thread::spawn(move || {
                    // Those never answered are kept until the end, as their drop would answer.
                    let mut kept = Vec::new();
                    while let Ok(request) = server.recv() {
                        let now = *mood.lock().expect("lock");
                        if now == Mood::Silent {
                            kept.push(request);
                            continue;
                        }
                        answer(request, now, &mut pins.lock().expect("lock"));
                    }
                })
            })
            .collect();
        FakeKubo { server, mood, pins, threads }
    }

    /// Behaves like this from now on.
    pub fn turn(&self, mood: Mood) {
        *self.mood.lock().expect("lock") = mood;
    }

    pub fn pins(&self) -> BTreeSet<String> {
        self.pins.lock().expect("lock").clone()
    }
}

fn answer(request: Request, mood: Mood, pins: &mut BTreeSet<String>) {
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    let argument = |name: &str| {
        let pairs = query.split('&').filter_map(|p| p.split_once('='));
        pairs.filter(|(k, _)| *k == name).map(|(_, v)| v.to_owned()).next().unwrap_or_default()
    };
    let cid = argument("arg");
    let (status, mut body) = match path.trim_start_matches("/api/v0/") {
        "id" => (
            200,
            r#"{"ID":"12D3KooWKktuUeZrGSw2Wfnuy2o71D6gtixmoKurfwrsqALUmtct","Addresses":[],"AgentVersion":"kubo/fake"}"#
                .to_owned(),
        ),
        "repo/stat" => (200, r#"{"RepoSize":1000,"StorageMax":1000000000}"#.to_owned()),
        "swarm/peers" => (200, r#"{"Peers":null}"#.to_owned()),
        "pin/ls" if !cid.is_empty() && !pins.contains(&cid) || argument("type") == "direct" && !cid.is_empty() => {
            (500, format!(r#"{{"Message":"path '{cid}' is not pinned","Code":0,"Type":"error"}}"#))
        }
        "pin/ls" if argument("type") == "direct" => (200, String::new()),
        "pin/ls" => {
            let asked = pins.iter().filter(|p| cid.is_empty() || **p == cid);
            (200, asked.map(|p| format!("{{\"Cid\":\"{p}\",\"Type\":\"recursive\"}}\n")).collect())
        }
        "pin/add" => {
            if mood == Mood::Good {
                pins.insert(cid.clone());
            }
            (200, format!("{{\"Progress\":1}}\n{{\"Pins\":[\"{cid}\"]}}\n"))
        }
        "pin/rm" => {
            pins.remove(&cid);
            (200, format!(r#"{{"Pins":["{cid}"]}}"#))
        }
        _ => (404, "404 page not found\n".to_owned()),
    };
    let mut status = status;
    match mood {
        Mood::Good | Mood::Silent => {}
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
    }
    let kind = Header::from_bytes("Content-Type", "application/json").expect("a header");
    let _ = request.respond(Response::from_string(body).with_status_code(status).with_header(kind));
}

impl Drop for FakeKubo {
    fn drop(&mut self) {
        for _ in &self.threads {
            self.server.unblock();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
