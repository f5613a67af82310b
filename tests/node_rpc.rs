//! Kubo's RPC API as the embedded node answers it, over HTTP: the recordings of the real one, noise, clients that go away,
//! and memory.

#[path = "support/http.rs"]
mod http;
mod support;

use http::{multipart, send, Answer};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::cluster::{golden, Cluster, Peer, PATIENCE};
use support::{skip, wait_for};

fn socket(peer: &Peer) -> SocketAddr {
    let listen = peer.config()["api"]["ipfsproxy"]["listen_multiaddress"].clone();
    let text = listen.as_str().or_else(|| listen[0].as_str()).expect("address").to_owned();
    format!("127.0.0.1:{}", text.rsplit('/').next().expect("port")).parse().expect("address")
}

fn post(to: SocketAddr, path: &str) -> Answer {
    send(to, "POST", &format!("/api/v0/{path}"), &[], None).expect("an answer")
}

fn file_part(content: &[u8]) -> (Vec<(String, String)>, Vec<u8>) {
    let disposition = "form-data; name=\"file\"; filename=\"f\"".to_owned();
    let headers = vec![
        ("Content-Disposition".to_owned(), disposition),
        ("Content-Type".to_owned(), "application/octet-stream".to_owned()),
    ];
    (headers, content.to_vec())
}

fn upload(to: SocketAddr, path: &str, parts: &[&[u8]]) -> Answer {
    let parts: Vec<_> = parts.iter().map(|content| file_part(content)).collect();
    let (kind, body) = multipart(&parts);
    let headers = [("Content-Type".to_owned(), kind)];
    send(to, "POST", &format!("/api/v0/{path}"), &headers, Some(&body)).expect("an answer")
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.text()))
}

/// Recorded calls that cannot be the same, and why; matched from the beginning of the path.
const OTHERWISE: &[(&str, &str)] = &[
    ("/api/v0/id", "another node"),
    ("/api/v0/version", "says who really answers"),
    ("/api/v0/config/show", "another configuration; StorageMax is looked at below"),
    ("/api/v0/repo/stat", "the cluster's, of another size"),
    ("/api/v0/swarm/peers", "nobody is connected here"),
    ("/api/v0/pin/", "the cluster's: tests/proxy_golden.rs"),
    ("/api/v0/add", "the cluster's: tests/proxy_golden.rs"),
    ("/api/v0/repo/gc", "the cluster's"),
    ("/api/v0/get", "times in the archive"),
    ("/api/v0/refs/local", "other blocks"),
    ("/api/v0/files/stat", "MFS is refused"),
    ("/api/v0/bitswap/stat", "other traffic"),
    ("/api/v0/stats/bw", "other traffic"),
    ("/api/v0/diag/sys", "not offered"),
    ("/api/v0/name/resolve", "refused in words"),
    ("/api/v0/block/put?cid-codec=raw&pin=true", "pinned by the cluster: tests/proxy_golden.rs"),
];

#[test]
fn the_recordings_of_kubo_play() {
    let Some(folder) = golden() else { return skip("no recordings") };
    let cluster = Cluster::of(1);
    let to = socket(&cluster.peers[0]);
    let text = std::fs::read_to_string(folder.join("kubo.json")).expect("kubo.json");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let (mut wrong, mut played) = (Vec::new(), 0);
    for case in &cases {
        let (name, request) = (case["name"].as_str().expect("name"), &case["request"]);
        let (method, path) = (request["method"].as_str().expect("method"), request["path"].as_str().expect("path"));
        let mut headers: Vec<(String, String)> = request["headers"]
            .as_object()
            .map(|map| map.iter().map(|(k, v)| (k.clone(), v.as_str().expect("text").to_owned())).collect())
            .unwrap_or_default();
        let mut body = None;
        if let Some(parts) = request["multipart"].as_array() {
            let parts: Vec<_> = parts
                .iter()
                .map(|part| {
                    let headers = part["headers"].as_object().expect("headers");
                    let headers = headers.iter().map(|(k, v)| (k.clone(), v.as_str().expect("text").to_owned()));
                    (headers.collect(), part["body"].as_str().unwrap_or("").as_bytes().to_vec())
                })
                .collect();
            let (kind, bytes) = multipart(&parts);
            headers.push(("Content-Type".into(), kind));
            body = Some(bytes);
        }
        // Also what is not compared is asked: what comes later needs it.
        let got = send(to, method, path, &headers, body.as_deref()).expect("an answer");
        let plain = method != "POST" || !headers.is_empty() && body.is_none();
        if !plain && OTHERWISE.iter().any(|(prefix, _)| path.starts_with(prefix)) {
            continue;
        }
        played += 1;
        let want = &case["response"];
        let status: u16 =
            want["status"].as_str().expect("status").split(' ').nth(1).expect("code").parse().expect("number");
        let header = |name: &str| {
            let all = want["headers"].as_array().expect("headers").iter();
            let found = all.filter(|h| h[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
            found.map(|h| h[1].as_str().expect("text").to_owned()).next()
        };
        let mut differs = Vec::new();
        if got.status != status {
            differs.push(format!("status {} for {status}", got.status));
        }
        for name in ["Content-Type", "X-Chunked-Output", "X-Stream-Output", "X-Content-Length", "Trailer", "Allow"] {
            if got.header(name) != header(name) {
                differs.push(format!("{name}: {:?} for {:?}", got.header(name), header(name)));
            }
        }
        if got.text() != want["body"].as_str().expect("body") {
            differs.push(format!("body {:?} for {}", got.text(), want["body"]));
        }
        if !differs.is_empty() {
            wrong.push(format!("{name}: {}", differs.join("; ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(played >= 20, "only {played} cases were played");
    let config = json(&post(to, "config/show"));
    assert_eq!(config["Datastore"]["StorageMax"], "10GB");
}

#[test]
fn single_blocks_are_kept_and_removed_by_the_rules() {
    let cluster = Cluster::of(1);
    let peer = &cluster.peers[0];
    let to = socket(peer);
    let lines = upload(to, "block/put", &[b"one", b"two"]);
    assert_eq!(
        lines.text(),
        "{\"Key\":\"bafkreidwslb22nkaxoadyaqlhlxgntmiq4jdenhkbrxhcq6avxlt75br5u\",\"Size\":3}\n\
         {\"Key\":\"bafkreib7ytgp45cyodrmbwm7ohzq74dfnsg63va4yhl5hu3wwdn6nbpc6m\",\"Size\":3}\n"
    );
    // Fresh, but nobody's: it goes when it is asked for.
    let one = "bafkreidwslb22nkaxoadyaqlhlxgntmiq4jdenhkbrxhcq6avxlt75br5u";
    assert_eq!(post(to, &format!("block/rm?arg={one}")).text(), format!("{{\"Hash\":\"{one}\"}}\n"));
    assert_eq!(post(to, &format!("block/get?arg={one}&offline=true")).status, 500);
    // Pinned: it stays, by itself, as a root, and below one.
    let folder = "{\"below\":{\"/\":\"bafkreib7ytgp45cyodrmbwm7ohzq74dfnsg63va4yhl5hu3wwdn6nbpc6m\"}}";
    let root = json(&upload(to, "dag/put", &[folder.as_bytes()]))["Cid"]["/"].as_str().expect("cid").to_owned();
    assert_eq!(post(to, &format!("pin/add?arg={root}")).status, 200);
    peer.wait_status(&root, "pinned", 1);
    let two = "bafkreib7ytgp45cyodrmbwm7ohzq74dfnsg63va4yhl5hu3wwdn6nbpc6m";
    for (cid, why) in [(root.as_str(), "pinned: recursive".to_owned()), (two, format!("pinned via {root}"))] {
        let line = json(&post(to, &format!("block/rm?arg={cid}&force=true")));
        assert_eq!((line["Hash"].as_str(), line["Error"].as_str()), (Some(cid), Some(why.as_str())));
        assert_eq!(post(to, &format!("block/stat?arg={cid}&offline=true")).status, 200);
    }
    assert_eq!(post(to, &format!("pin/rm?arg={root}")).status, 200);
    wait_for("the block to be free", PATIENCE, || {
        let line = json(&post(to, &format!("block/rm?arg={two}")));
        if line["Error"].is_null() { Ok(()) } else { Err(line.to_string()) }
    });
    // A restart does not bring it back.
    let mut cluster = cluster;
    cluster.peers[0].stop();
    cluster.peers[0].start(&["daemon"]);
    assert_eq!(post(to, &format!("block/get?arg={two}&offline=true")).status, 500);
    assert_eq!(post(to, &format!("block/get?arg={root}&offline=true")).status, 200);
}

#[test]
fn the_client_s_limit_and_wish_are_honoured() {
    let cluster = Cluster::of(1);
    let to = socket(&cluster.peers[0]);
    let nobody = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    for call in ["cat", "get", "block/get", "block/stat", "dag/get", "ls", "dag/export"] {
        let started = Instant::now();
        let answer = post(to, &format!("{call}?arg={nobody}&timeout=300ms"));
        if call != "ls" {
            assert_eq!(answer.status, 500, "{call}: {}", answer.text());
            assert!(answer.text().contains("context deadline exceeded"), "{call}: {}", answer.text());
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{call} took {:?}", started.elapsed());
        let answer = post(to, &format!("{call}?arg={nobody}/x&offline=true"));
        assert_eq!(answer.status, 500, "{call}: {}", answer.text());
    }
    // Traffic is told again and again until the limit.
    let answer = post(to, "stats/bw?poll=true&interval=100ms&timeout=1s");
    let lines = answer.text().lines().count();
    assert!((3..=12).contains(&lines), "{lines} lines");
    assert_eq!(answer.trailers.first().map(|(_, v)| v.as_str()), Some("context deadline exceeded"));
}

/// A small generator of noise that repeats itself from its seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.next(from.len())]
    }

    fn bytes(&mut self, below: usize) -> Vec<u8> {
        (0..self.next(below)).map(|_| self.next(256) as u8).collect()
    }
}

const CALLS: &[&str] = &[
    "cat", "get", "ls", "block/get", "block/stat", "block/rm", "dag/get", "dag/resolve", "dag/stat", "dag/export",
    "refs", "refs/local", "resolve", "version", "id", "commands", "config", "config/show", "key/list", "repo/version",
    "stats/repo", "stats/bw", "bitswap/stat", "bitswap/wantlist", "swarm/peers", "swarm/connect", "swarm/disconnect",
    "swarm/addrs", "swarm/addrs/local", "bootstrap/list", "files/ls", "shutdown", "nosuch", "repo", "", "repo/verify",
    "name/resolve", "object/get", "x/y/z", "swarm/addrs/local/x",
];
const UPLOADS: &[&str] = &["block/put", "dag/put", "dag/import", "config/replace"];
const OPTIONS: &[&str] = &[
    "offset", "length", "arg", "stream", "encoding", "cid-base", "timeout", "offline", "format", "max-depth", "recursive",
    "unique", "edges", "output-codec", "input-codec", "store-codec", "mhtype", "mhlen", "cid-codec", "hash", "pin-roots",
    "stats", "resolve-type", "size", "headers", "upgrade-cidv0-in-output", "peer", "interval", "force", "archive",
    "compress", "compression-level", "peerid-base", "ipns-base", "flags", "verbose", "allow-big-block",
];

fn value(noise: &mut Noise, known: &[String]) -> String {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let base = match noise.next(4) {
        0 => noise.pick(&known).to_owned(),
        1 => format!("/ipfs/{}/{}", noise.pick(&known), noise.pick(&["a", "..", "a/b/0", "%2F", "Links/0", "", "x"])),
        2 => noise
            .pick(&[
                "true", "false", "", "0", "-1", "1", "9223372036854775807", "99999999999999999999", "1e3", "text", "json", "xml",
                "base58btc", "base2", "base256emoji", "z", "raw", "dag-json", "dag-pb", "v0", "0x55", "0xffffffffffffffff",
                "sha2-512", "identity", "md5", "1s", "1ns", "-5s", "<src> <dst>", "/ip4/127.0.0.1/tcp/1/p2p/x", "%00", "%ff",
                "nosuch", "/ipns/x", "/ipld/x", "self", "Identity.PrivKey", "Datastore..x",
            ])
            .to_owned(),
        _ => noise.bytes(40).iter().map(|b| format!("%{b:02x}")).collect(),
    };
    // Now and then a byte is another one.
    let mut bytes: Vec<u8> = base.into_bytes();
    if noise.next(4) == 0 && !bytes.is_empty() {
        let at = noise.next(bytes.len());
        bytes[at] = b"abcXYZ019%/&=+;"[noise.next(15)];
    }
    String::from_utf8(bytes).unwrap_or_default().replace([' ', '\r', '\n', '#'], "+")
}

#[test]
fn no_noise_is_left_without_an_answer() {
    let mut cluster = Cluster::with(1, |_, config| {
        config["ipfs_connector"]["embedded"]["pin_timeout"] = Value::from("1s");
    });
    let to = socket(&cluster.peers[0]);
    let mut known = vec!["bafkqaaa".to_owned()];
    for json in [&b"{\"a\":{\"b\":[1,2]},\"Links\":[]}"[..], b"[[[]]]", b"\"text\""] {
        let answer = upload(to, "dag/put", &[json]);
        known.push(self::json(&answer)["Cid"]["/"].as_str().expect("cid").to_owned());
    }
    for codec in ["raw", "dag-pb", "dag-cbor", "dag-json", "git-raw"] {
        let answer = upload(to, &format!("block/put?cid-codec={codec}"), &[b"not at all what it says"]);
        known.push(self::json(&answer)["Key"].as_str().expect("key").to_owned());
    }
    // Real folders and files as well.
    let (kind, body) = multipart(&[file_part(&[7; 300_000])]);
    let added = send(to, "POST", "/api/v0/add?wrap-with-directory=true&cid-version=1", &[("Content-Type".into(), kind)], Some(&body));
    for line in added.expect("added").text().lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        known.push(line["Hash"].as_str().expect("hash").to_owned());
    }
    let seed = std::env::var("PINFOLD_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_121);
    let mut noise = Noise(seed);
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for round in 0..3_000 {
        let uploads = noise.next(4) == 0;
        let mut path = format!("/api/v0/{}", noise.pick(if uploads { UPLOADS } else { CALLS }));
        if noise.next(12) == 0 {
            path.push_str(&format!("/{}", value(&mut noise, &known)));
        }
        // Nothing here may take longer than this.
        path.push_str("?timeout=300ms&stream-channels=true");
        for n in 0..noise.next(5) {
            let name = if n == 0 { "arg" } else { noise.pick(OPTIONS) };
            path.push_str(&format!("&{name}={}", value(&mut noise, &known)));
        }
        // Not for ever, though it may be asked to.
        let path = path.replace("poll", "p0ll");
        let mut headers = Vec::new();
        let mut body = None;
        if uploads {
            let content = match noise.next(3) {
                0 => noise.bytes(2_000),
                1 => {
                    let mut text = b"{\"a\":[1,{\"/\":\"bafkqaaa\"},{\"/\":{\"bytes\":\"AAEC\"}}],\"b\":1.5}".to_vec();
                    let at = noise.next(text.len());
                    text[at] = noise.next(256) as u8;
                    text
                }
                _ => {
                    let mut car = b"\x1a\xa2eroots\x80gversion\x01".to_vec();
                    car[0] = car.len() as u8 - 1;
                    car.extend([5, 1, 0x55, 0, 1, b'x']);
                    let at = noise.next(car.len());
                    car[at] = noise.next(256) as u8;
                    car
                }
            };
            let (kind, mut bytes) = multipart(&[file_part(&content)]);
            if noise.next(5) == 0 {
                bytes.truncate(noise.next(bytes.len()));
            }
            if noise.next(10) != 0 {
                headers.push(("Content-Type".to_owned(), kind));
            }
            body = Some(bytes);
        }
        let method = if noise.next(30) == 0 { noise.pick(&["GET", "PUT", "DELETE", "OPTIONS"]) } else { "POST" };
        let started = Instant::now();
        let answer = send(to, method, &path, &headers, body.as_deref());
        let answer = answer.unwrap_or_else(|e| panic!("seed {seed}, round {round}: {method} {path}: {e}"));
        assert!(started.elapsed() < Duration::from_secs(30), "seed {seed}, round {round}: {method} {path} took {:?}", started.elapsed());
        if answer.status == 500 {
            let said: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{path}: {e}: {}", answer.text()));
            assert_eq!(said["Type"], "error", "{path}: {said}");
            assert!(said["Message"].as_str().is_some_and(|m| !m.is_empty()), "{path}: {said}");
        }
        *statuses.entry(answer.status).or_default() += 1;
    }
    assert!(cluster.peers[0].is_running());
    assert!(!cluster.peers[0].log().contains("panicked"), "{}", cluster.peers[0].log());
    for status in [200, 400, 404, 405, 500] {
        assert!(statuses.get(&status).copied().unwrap_or(0) > 10, "{statuses:?}");
    }
}

/// Resident memory of a process, bytes.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = text.lines().find(|l| l.starts_with("RssAnon:")).expect("RssAnon");
    let kib: u64 = line.split_whitespace().nth(1).expect("number").parse().expect("number");
    kib << 10
}

/// Starts a request and leaves its answer unread.
fn begin(to: SocketAddr, path: &str, headers: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let head = format!("POST /api/v0/{path} HTTP/1.1\r\nHost: {to}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body).expect("sent");
    stream
}

#[test]
fn clients_that_read_slowly_or_go_away_cost_little_and_break_nothing() {
    let cluster = Cluster::of(1);
    let peer = &cluster.peers[0];
    let to = socket(peer);
    // A file that no socket buffer holds, made of different blocks.
    let words = (1..=8_u64 << 20).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let content: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let (kind, body) = multipart(&[file_part(&content)]);
    let added = send(to, "POST", "/api/v0/add?cid-version=1&chunker=size-65536", &[("Content-Type".into(), kind)], Some(&body));
    let cid = json(&added.expect("added"))["Hash"].as_str().expect("hash").to_owned();
    drop(body);
    let before = resident(peer.pid());
    // Many who ask for all of it and read nothing.
    let mut waiting = Vec::new();
    for call in ["cat", "get", "dag/export", "cat", "get", "dag/export", "dag/stat", "refs/local"] {
        let mut stream = begin(to, &format!("{call}?arg={cid}"), "", b"");
        let mut first = [0; 400];
        let n = stream.read(&mut first).expect("a beginning");
        assert!(first[..n].starts_with(b"HTTP/1.1 200"), "{call}: {}", String::from_utf8_lossy(&first[..n]));
        waiting.push(stream);
    }
    std::thread::sleep(Duration::from_secs(2));
    let grown = resident(peer.pid()).saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes more for {} slow readers of 64 MiB", waiting.len());
    // One of them reads on: everything comes.
    let mut rest = Vec::new();
    let mut cat = waiting.remove(0);
    cat.write_all(format!("POST /api/v0/version HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").as_bytes()).expect("sent");
    cat.read_to_end(&mut rest).expect("read on");
    assert!(rest.len() > 64 << 20 && String::from_utf8_lossy(&rest[rest.len() - 400..]).contains("Version"));
    drop(waiting);
    // Uploads that break off.
    let form = "Content-Type: multipart/form-data; boundary=XX\r\nContent-Length: 1000000\r\n";
    let part = b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
    for call in ["block/put", "dag/put", "dag/import"] {
        for n in 0..20 {
            let mut stream = begin(to, call, form, part);
            if n % 2 == 0 {
                stream.write_all(&vec![b'x'; 10_000 * n]).expect("sent");
            }
        }
    }
    // And downloads.
    for _ in 0..20 {
        for call in ["cat", "get", "dag/export", "refs/local"] {
            begin(to, &format!("{call}?arg={cid}"), "", b"");
        }
    }
    let part_stored = post(to, "refs/local").text().lines().count();
    assert!(part_stored >= 1_024, "{part_stored} blocks");
    let answer = post(to, &format!("cat?arg={cid}&offset=67108860"));
    assert_eq!(answer.body, content[67_108_860..]);
    // All that they held is given back: files, sockets and tasks.
    wait_for("the connections to be gone", PATIENCE, || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", peer.pid())).expect("fd").count();
        if open < 60 { Ok(()) } else { Err(format!("{open} open files")) }
    });
    assert!(!peer.log().contains("panicked"), "{}", peer.log());
}
