//! What strangers, scripts and typing mistakes send: bytes at the two ports of a running peer, words on the
//! command line. Whatever comes, the answer is a 4xx or a closed connection or exit 2, and the peer goes on.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;
use support::cluster::{cid_of, pinfold, Cluster, Peer, PATIENCE};
use support::wait_for;

/// What came back on a raw connection.
#[derive(Debug, PartialEq)]
enum Reply {
    /// A status line with this code, and the text behind it.
    Status(u16, String),
    /// The connection was closed without a word.
    Closed,
}

fn rest_port(peer: &Peer) -> SocketAddr {
    peer.url().trim_start_matches("http://").parse().expect("an address")
}

fn cluster_port(peer: &Peer) -> SocketAddr {
    let address = peer.address();
    let port = address.split('/').nth(4).expect("a port").parse().expect("a number");
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Sends bytes as they are and reads until the other side closes. A peer that neither answers nor closes is an
/// error: it would hold its place for ever.
fn ask(to: SocketAddr, bytes: &[u8]) -> Reply {
    exchange(to, bytes, false)
}

/// The same, saying that no more will come: what is incomplete stays so.
fn throw(to: SocketAddr, bytes: &[u8]) -> Reply {
    exchange(to, bytes, true)
}

fn exchange(to: SocketAddr, bytes: &[u8], close: bool) -> Reply {
    let mut stream = TcpStream::connect(to).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    // A refusal may come before the last byte is taken: then writing fails, and reading tells why.
    let _ = stream.write_all(bytes);
    if close {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut raw = Vec::new();
    match stream.read_to_end(&mut raw) {
        Ok(_) => {}
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!(
                "neither answered nor closed: {:?}…",
                String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
            )
        }
        Err(_) => {}
    }
    let text = String::from_utf8_lossy(&raw).into_owned();
    match text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 ")) {
        Some(rest) => Reply::Status(rest[..3].parse().expect("a status code"), text.clone()),
        None if raw.is_empty() => Reply::Closed,
        None => panic!("not HTTP: {text:?}"),
    }
}

/// A well-formed request with this body.
fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}").into_bytes();
    if !body.is_empty() {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A form upload to `/add`.
fn upload(body: &[u8]) -> Vec<u8> {
    request("POST", "/add", "Content-Type: multipart/form-data; boundary=B\r\n", body)
}

/// Noise that is the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

fn open_files(peer: &Peer) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", peer.pid())).expect("/proc").count()
}

/// The peer lives, answers, takes a pin, holds no more files than before, and met no defect.
fn assert_unharmed(peer: &mut Peer, files_before: usize, salt: u64) {
    assert!(peer.is_running(), "the peer is gone:\n{}", peer.log());
    peer.json("GET", "/id");
    peer.json("POST", &format!("/pins/{}", cid_of(salt)));
    wait_for("every connection given back", PATIENCE, || {
        let now = open_files(peer);
        // The few that come and go by themselves: the request just made, a timer, the storage.
        if now <= files_before + 4 {
            Ok(())
        } else {
            Err(format!("{now} files open, {files_before} before"))
        }
    });
    let log = peer.log();
    for word in ["panic", "defect", "RUST_BACKTRACE"] {
        assert!(!log.contains(word), "\"{word}\" in the log:\n{log}");
    }
}

#[test]
fn broken_http_is_refused_or_hung_up_on() {
    let mut cluster = Cluster::with(1, |_, config| {
        config["api"]["restapi"]["read_header_timeout"] = "500ms".into();
    });
    let to = rest_port(&cluster.peers[0]);
    let files = open_files(&cluster.peers[0]);
    let long = "a".repeat(2 << 20);
    let many = "X: y\r\n".repeat(10_000);
    let head = "Host: x\r\nConnection: close\r\n";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("noise", Noise(1).bytes(4096)),
        ("zeros", vec![0; 70_000]),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("a line without a protocol", b"GET\r\n\r\n".to_vec()),
        ("a protocol that is none", format!("GET /id HTTP/9.9\r\n{head}\r\n").into()),
        ("control characters in the path", format!("GET /\x01\x02 HTTP/1.1\r\n{head}\r\n").into()),
        ("a zero in a header", format!("GET /id HTTP/1.1\r\n{head}X: a\0b\r\n\r\n").into()),
        ("a header without a name", format!("GET /id HTTP/1.1\r\n{head}: x\r\n\r\n").into()),
        ("a path of two megabytes", format!("GET /{long} HTTP/1.1\r\n{head}\r\n").into()),
        ("a header of two megabytes", format!("GET /id HTTP/1.1\r\n{head}X: {long}\r\n\r\n").into()),
        ("ten thousand headers", format!("GET /id HTTP/1.1\r\n{head}{many}\r\n").into()),
        ("a length in words", format!("POST /peers HTTP/1.1\r\n{head}Content-Length: ten\r\n\r\n").into()),
        ("a negative length", format!("POST /peers HTTP/1.1\r\n{head}Content-Length: -1\r\n\r\n").into()),
        ("an endless length", format!("POST /peers HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n", "9".repeat(30)).into()),
        (
            "two lengths",
            format!("POST /peers HTTP/1.1\r\n{head}Content-Length: 2\r\nContent-Length: 20\r\n\r\n{{}}").into(),
        ),
        (
            "chunks that are none",
            format!("POST /peers HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n").into(),
        ),
        (
            "a chunk without end",
            format!("POST /peers HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx").into(),
        ),
        ("an encoding of nobody", format!("POST /peers HTTP/1.1\r\n{head}Transfer-Encoding: rot13\r\n\r\n").into()),
        ("half a head", b"GET /id HTTP/1.1\r\nHost".to_vec()),
        ("half a body", format!("POST /peers HTTP/1.1\r\n{head}Content-Length: 100\r\n\r\n{{").into()),
        ("half a chunk", format!("POST /add HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=B\r\n\r\n10\r\n--B").into()),
    ];
    for (what, bytes) in cases {
        match throw(to, &bytes) {
            Reply::Status(status, text) => assert!((400..500).contains(&status), "{what}: {text}"),
            Reply::Closed => {}
        }
    }
    // A good request, then noise on the same connection: the good one was answered.
    let mut bytes = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    bytes.extend(Noise(2).bytes(512));
    assert!(matches!(throw(to, &bytes), Reply::Status(200, _)));
    // A head that never ends is cut by the deadline of the configuration.
    let mut slow = TcpStream::connect(to).expect("open");
    slow.set_read_timeout(Some(PATIENCE)).expect("timeout");
    slow.write_all(b"GET /id HTTP/1.1\r\nX: ").expect("written");
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    assert_unharmed(&mut cluster.peers[0], files, 1);
}

#[test]
fn broken_uploads_are_refused_and_leave_nothing() {
    let mut cluster = Cluster::of(1);
    let to = rest_port(&cluster.peers[0]);
    let files = open_files(&cluster.peers[0]);
    let file = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhello\r\n";
    let named = |name: &str| {
        let part = format!(
            "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\nx\r\n--B--\r\n"
        );
        upload(part.as_bytes())
    };
    let form = |boundary: &str| {
        let kind = format!("Content-Type: multipart/form-data{boundary}\r\n");
        request("POST", "/add", &kind, file.as_bytes())
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no form", request("POST", "/add", "Content-Type: text/plain\r\n", b"hello")),
        ("no body", request("POST", "/add", "", b"")),
        ("no boundary", form("")),
        ("an empty boundary", form("; boundary=\"\"")),
        ("a long boundary", form(&format!("; boundary={}", "b".repeat(3000)))),
        ("another boundary", form("; boundary=C")),
        ("noise", upload(&Noise(3).bytes(100_000))),
        ("no file", upload(b"--B--\r\n")),
        ("no end", upload(file.as_bytes())),
        ("cut in the boundary", upload(format!("{file}--B-").as_bytes())),
        ("cut in the headers of a part", upload(b"--B\r\nContent-Disposition: form-d")),
        (
            "endless headers of a part",
            upload(format!("--B\r\nX: {}\r\n\r\nx\r\n--B--\r\n", "y".repeat(1 << 20)).as_bytes()),
        ),
        (
            "noise as headers of a part",
            upload(&[b"--B\r\n".as_slice(), &Noise(4).bytes(300), b"\r\n\r\nx\r\n--B--\r\n"].concat()),
        ),
        ("the way up", named("..%2F..%2Fetc%2Fpasswd")),
        ("a path that ends nowhere", named("a%2F%2Fb")),
        ("a zero in the name", named("a%00b")),
        ("a broken escape in the name", named("a%zz")),
        ("a name of five thousand", named(&"n".repeat(5000))),
        (
            "a chunker of nobody",
            request(
                "POST",
                "/add?chunker=rabin-hole",
                "Content-Type: multipart/form-data; boundary=B\r\n",
                format!("{file}--B--\r\n").as_bytes(),
            ),
        ),
        (
            "a chunk of no size",
            request(
                "POST",
                "/add?chunker=size-0",
                "Content-Type: multipart/form-data; boundary=B\r\n",
                format!("{file}--B--\r\n").as_bytes(),
            ),
        ),
        (
            "a layout of nobody",
            request(
                "POST",
                "/add?layout=heap",
                "Content-Type: multipart/form-data; boundary=B\r\n",
                format!("{file}--B--\r\n").as_bytes(),
            ),
        ),
        (
            "a CID version of tomorrow",
            request(
                "POST",
                "/add?cid-version=7",
                "Content-Type: multipart/form-data; boundary=B\r\n",
                format!("{file}--B--\r\n").as_bytes(),
            ),
        ),
    ];
    for (what, bytes) in cases {
        match ask(to, &bytes) {
            // An upload is answered while it arrives: what is found later is told in the trailer.
            Reply::Status(200, text) => {
                let error = text.split("X-Stream-Error:").nth(1).unwrap_or_default().trim();
                assert!(!error.is_empty(), "{what} was taken: {text}");
            }
            Reply::Status(status, text) => assert!((400..500).contains(&status), "{what}: {text}"),
            Reply::Closed => panic!("{what}: no answer"),
        }
    }
    assert_eq!(cluster.peers[0].pinned_cids(), [""; 0], "a broken upload is not pinned");
    assert_unharmed(&mut cluster.peers[0], files, 2);
}

#[test]
fn nonsense_in_paths_and_options_is_a_client_error_with_a_reason() {
    let mut cluster = Cluster::of(1);
    let to = rest_port(&cluster.peers[0]);
    let files = open_files(&cluster.peers[0]);
    let good = cid_of(1);
    let long = "z".repeat(3000);
    let mut paths = Vec::new();
    for cid in [
        "Qm",
        "garbage",
        "%00",
        "%ff%fe",
        "..",
        "-",
        "bafy",
        &long,
        &good[..20],
        &format!("{good}x"),
        "%E2%9D%A4",
    ] {
        paths.push(("GET", format!("/pins/{cid}")));
        paths.push(("POST", format!("/pins/{cid}")));
        paths.push(("DELETE", format!("/pins/{cid}")));
        paths.push(("POST", format!("/pins/{cid}/recover")));
        paths.push(("GET", format!("/allocations/{cid}")));
        paths.push(("POST", format!("/pins/ipfs/{cid}")));
        paths.push(("DELETE", format!("/peers/{cid}")));
    }
    for option in [
        "replication-min=many",
        "replication-max=99999999999999999999",
        "replication=1.5",
        "replication-min=3&replication-max=2",
        "replication-min=-7&replication-max=-7",
        "mode=sideways",
        "expire-at=yesterday",
        "expire-at=1970-01-01T00:00:00Z",
        "expire-in=-1h",
        "pin-update=garbage",
        "origins=garbage",
        "%zz=1",
    ] {
        paths.push(("POST", format!("/pins/{good}?{option}")));
    }
    paths.push(("GET", "/pins?filter=wrong".into()));
    paths.push(("GET", "/pins?cids=garbage".into()));
    paths.push(("GET", "/%zz".into()));
    paths.push(("GET", "/nowhere".into()));
    paths.push(("BREW", "/id".into()));
    for (method, path) in paths {
        match ask(to, &request(method, &path, "", b"")) {
            Reply::Status(status, text) => {
                assert!((400..500).contains(&status), "{method} {path}: {text}");
                let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
                let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
                let message = body["message"].as_str().unwrap_or_default();
                assert!(!message.is_empty(), "{method} {path} has no reason: {text}");
            }
            Reply::Closed => panic!("{method} {path}: no answer"),
        }
    }
    for body in [
        &b"{"[..],
        b"[]",
        b"null",
        b"{\"peer_id\":7}",
        b"{\"peer_id\":\"nobody\"}",
        &vec![b' '; 10 << 20],
        &Noise(5).bytes(500),
    ] {
        match ask(to, &request("POST", "/peers", "Content-Type: application/json\r\n", body)) {
            Reply::Status(status, text) => assert!((400..500).contains(&status), "{text}"),
            // More than may be sent: the refusal can be lost with the connection.
            Reply::Closed => assert!(body.len() > 1 << 20),
        }
    }
    assert_eq!(cluster.peers[0].pinned_cids(), [""; 0], "nothing was pinned");
    assert_unharmed(&mut cluster.peers[0], files, 3);
}

#[test]
fn a_thousand_damaged_requests_never_meet_a_defect() {
    let mut cluster = Cluster::with(1, |_, config| {
        config["api"]["restapi"]["read_header_timeout"] = "500ms".into();
    });
    let to = rest_port(&cluster.peers[0]);
    let files = open_files(&cluster.peers[0]);
    let file =
        b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhello\r\n--B--\r\n";
    let good = [
        request("POST", &format!("/pins/{}?name=n&replication-min=1&meta-a=b", cid_of(9)), "", b""),
        request("GET", "/pins?filter=pinned,error&local=true", "", b""),
        request("POST", "/peers", "Content-Type: application/json\r\n", b"{\"peer_id\":\"nobody\"}"),
        upload(file),
    ];
    let mut noise = Noise(0x5eed);
    for round in 0..1000 {
        let mut bytes = good[noise.below(good.len())].clone();
        for _ in 0..=noise.below(4) {
            let at = noise.below(bytes.len());
            match noise.below(4) {
                0 => bytes[at] ^= 1 << noise.below(8),
                1 => bytes.truncate(at.max(1)),
                2 => {
                    let more = noise.below(40);
                    let more = noise.bytes(more);
                    bytes.splice(at..at, more);
                }
                _ => {
                    let end = (at + noise.below(20)).min(bytes.len());
                    bytes.drain(at..end.max(at + 1).min(bytes.len()));
                }
            }
            if bytes.is_empty() {
                bytes.push(b'G');
            }
        }
        if let Reply::Status(status, text) = throw(to, &bytes) {
            let shown = String::from_utf8_lossy(&bytes);
            assert!(status < 500, "round {round}: {shown:?}: {text}");
        }
    }
    assert_unharmed(&mut cluster.peers[0], files, 4);
}

#[test]
fn noise_on_the_cluster_port_harms_nobody() {
    let mut cluster = Cluster::of(1);
    let to = cluster_port(&cluster.peers[0]);
    let files = open_files(&cluster.peers[0]);
    let mut noise = Noise(0xfeed);
    for round in 0..200 {
        let mut stream = TcpStream::connect(to).expect("the port is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let bytes = match round % 4 {
            0 => noise.bytes(24),
            1 => noise.bytes(5000),
            2 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            _ => {
                let n = noise.below(30);
                noise.bytes(n)
            }
        };
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        // The answer, if any, is encrypted with a secret that we do not have; what counts is that it ends.
        if let Err(e) = stream.read_to_end(&mut answer) {
            assert!(
                !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "round {round}: held open"
            );
        }
    }
    assert_unharmed(&mut cluster.peers[0], files, 5);
    // The port still lets in whom it should.
    let bootstrap = cluster.peers[0].address();
    let mut second = Peer::init(cluster.path("second"), "second", support::cluster::SECRET);
    second.start(&["daemon", "--bootstrap", &bootstrap]);
    second.wait_members(2);
}

#[test]
fn a_mistyped_word_or_flag_names_the_nearest() {
    let tmp = tempfile::tempdir().expect("folder");
    let folder = tmp.path().join("peer");
    let say = |args: &[&str]| {
        let output = pinfold().arg("-c").arg(&folder).args(args).output().expect("starts");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!words.contains("panic"), "{args:?}: {words}");
        (output.status.code(), words)
    };
    // As ipfs-cluster's programs: a command that does not exist is 3, a flag that does not is 2.
    for (typed, meant) in [("deamon", "daemon"), ("jion", "join"), ("invit", "invite"), ("stauts", "status")]
    {
        let (code, words) = say(&[typed]);
        assert_eq!(code, Some(3), "{typed}: {words}");
        assert!(words.contains(typed) && words.contains(&format!("pinfold {meant}")), "{words}");
    }
    for (args, meant) in [
        (&["daemon", "--bootstrp", "x"][..], "--bootstrap"),
        (&["init", "--randomport"], "--randomports"),
        (&["add", "--recursiv", "x"], "--recursive"),
    ] {
        let (code, words) = say(args);
        assert_eq!(code, Some(2), "{args:?}: {words}");
        assert!(words.contains(args[1]) && words.contains(meant), "{args:?}: {words}");
    }
    for args in [
        &["daemon", "--bootstrap", "not-an-address"][..],
        &["--loglevel", "loud", "daemon"],
        &["--loglevel", "rafd:debug", "daemon"],
    ] {
        let (code, words) = say(args);
        assert_eq!(code, Some(2), "{args:?}: {words}");
        let wrong = args[args.len() - 1];
        assert!(words.contains(wrong) || words.contains(args[1]), "{args:?}: {words}");
    }
    assert!(!folder.exists(), "no mistake makes a folder");
}

#[test]
fn a_damaged_token_ends_at_once_and_makes_nothing() {
    let mut cluster = Cluster::of(1);
    let token = support::cluster::ok(cluster.peers[0].ctl(&["invite"])).trim().to_string();
    let folder = cluster.path("fresh");
    let middle = token.len() / 2;
    let mut turned = token.clone().into_bytes();
    turned[middle] = if turned[middle] == b'a' { b'b' } else { b'a' };
    let turned = String::from_utf8(turned).expect("ASCII");
    let long = "a".repeat(100_000);
    for bad in [
        "x",
        &token[..token.len() - 1],
        &token[..middle],
        &token[1..],
        &turned,
        &long,
        "❤",
        &token.to_uppercase(),
    ] {
        let mut peer = Peer::fresh(folder.clone());
        peer.spawn(&["join", bad]);
        let (status, took) = peer.wait_end();
        assert_eq!(status.code(), Some(2), "{bad}: {}", peer.log());
        assert!(took < Duration::from_secs(20), "{took:?}");
        let words = peer.log();
        assert!(words.contains("token"), "{words}");
        assert!(!words.contains("panic"), "{words}");
        assert!(!folder.exists(), "{bad} made a folder");
    }
    assert!(cluster.peers[0].is_running());
}
