//! Clients that dawdle: each of the four timeouts, heads that are too large, and hundreds of slow connections at every
//! port of a real process, beside which a fast client is served as ever.

#[path = "security/certificates.rs"]
mod certificates;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::cluster::{ok, pinfold, Peer, PATIENCE, SECRET};
use support::wait_for;

/// As many slow clients as there are in the bad days.
const MANY: usize = 500;
/// A fast client's request may take this long beside them, on a machine that compiles at the same time.
const FAST: Duration = Duration::from_secs(5);

fn one(tmp: &tempfile::TempDir) -> Peer {
    Peer::init(tmp.path().join("p"), "p", SECRET)
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Reads to the end of the connection: what came, and after how long it ended.
fn until_closed(stream: &mut TcpStream) -> (String, Duration) {
    let began = Instant::now();
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("the connection was not closed: {e}"),
    }
    (String::from_utf8_lossy(&all).into_owned(), began.elapsed())
}

/// Asks `GET /id` on a fresh connection; how long the answer took.
fn fast(to: SocketAddr) -> Duration {
    let began = Instant::now();
    let mut stream = connect(to);
    stream.write_all(b"GET /id HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("send");
    let (answer, _) = until_closed(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    began.elapsed()
}

/// The slowest of a few requests.
fn slowest(to: SocketAddr) -> Duration {
    (0..30).map(|_| fast(to)).max().expect("some")
}

/// Adds so many MB of content; the path it is read under.
fn content(peer: &Peer, megabytes: usize) -> String {
    let file = peer.folder.with_extension("content");
    std::fs::write(&file, vec![7; megabytes * 1_000_000]).expect("written");
    let cid = ok(peer.ctl(&["add", "-Q", file.to_str().expect("path")]));
    format!("/ipfs/{}", cid.trim())
}

#[test]
fn each_of_the_four_timeouts_ends_its_kind_of_slowness() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    peer.edit(|config| {
        let api = &mut config["api"]["restapi"];
        api["read_header_timeout"] = "1s".into();
        api["idle_timeout"] = "2s".into();
        api["read_timeout"] = "1s".into();
        api["write_timeout"] = "1s".into();
    });
    peer.start(&["daemon"]);
    let to = peer.rest();
    let path = content(&peer, 40);
    let near = |took: Duration, wanted: f64, what: &str| {
        let secs = took.as_secs_f64();
        assert!(secs > wanted * 0.6 && secs < wanted + 20.0, "{what}: closed after {secs}, wanted {wanted}");
    };

    // read_header_timeout: a head that never ends, although bytes keep coming.
    let mut head = connect(to);
    head.write_all(b"GET /id HTTP/1.1\r\n").expect("send");
    let mut feeder = head.try_clone().expect("clone");
    let feeding = std::thread::spawn(move || {
        while feeder.write_all(b"X-Slow: y\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    near(until_closed(&mut head).1, 1.0, "read_header_timeout");
    feeding.join().expect("thread");

    // idle_timeout: nothing after an answered request.
    let mut idle = connect(to);
    idle.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    let (answer, took) = until_closed(&mut idle);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    near(took, 2.0, "idle_timeout");

    // read_timeout: silence in the middle of a body is answered in words; slow progress is no silence.
    let multipart = |length: usize| {
        format!("POST /add HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}\r\n\r\n")
    };
    let part = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nContent-Type: application/octet-stream\r\n\r\n";
    let mut body = connect(to);
    body.write_all(multipart(100_000).as_bytes()).expect("send");
    body.write_all(part.as_bytes()).expect("send");
    let (answer, took) = until_closed(&mut body);
    assert!(answer.contains("no byte of the request body came for 1s"), "{answer}");
    near(took, 1.0, "read_timeout");
    let rest_of_body = format!("{}\r\n--b--\r\n", "slow".repeat(4));
    let mut slow = connect(to);
    slow.write_all(multipart(part.len() + rest_of_body.len()).as_bytes()).expect("send");
    slow.write_all(part.as_bytes()).expect("send");
    for byte in rest_of_body.bytes() {
        slow.write_all(&[byte]).expect("send");
        std::thread::sleep(Duration::from_millis(120));
    }
    let (answer, _) = until_closed(&mut slow);
    assert!(answer.contains("\"cid\""), "three seconds of slow progress are welcome: {answer}");

    // write_timeout: an answer that nobody takes is cut; one that is taken slowly is not.
    let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut stuck = connect(to);
    stuck.write_all(ask.as_bytes()).expect("send");
    wait_for("the end of its connection", PATIENCE, || {
        let log = peer.log();
        if log.lines().any(|l| l.contains(&path) && l.contains("\" 200 ")) {
            Ok(())
        } else {
            Err(log)
        }
    });
    let (answer, _) = until_closed(&mut stuck);
    assert!(answer.len() < 40_000_000, "{} bytes came although nobody read", answer.len());
    let mut taken = connect(to);
    taken.write_all(ask.as_bytes()).expect("send");
    let (mut got, mut piece) = (0, vec![0; 2 << 20]);
    while got < 40_000_000 {
        std::thread::sleep(Duration::from_millis(100));
        match taken.read(&mut piece) {
            Ok(0) => panic!("cut after {got} bytes although somebody reads"),
            Ok(n) => got += n,
            Err(e) => panic!("cut after {got} bytes: {e}"),
        }
    }
}

#[test]
fn heads_larger_than_the_configuration_allows_are_answered_431() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    peer.edit(|config| config["api"]["restapi"]["max_header_bytes"] = 8192.into());
    peer.start(&["daemon"]);
    let status = |size: usize| {
        let mut stream = connect(peer.rest());
        let head = format!(
            "GET /id HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Big: {}\r\n\r\n",
            "y".repeat(size)
        );
        stream.write_all(head.as_bytes()).expect("send");
        until_closed(&mut stream).0.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok())
    };
    assert_eq!(status(8_000), Some(200));
    assert_eq!(status(13_000), Some(431), "8192 and the 4096 that Go adds");
}

#[test]
fn hundreds_of_slow_clients_keep_no_fast_one_out() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    peer.edit(|config| config["api"]["restapi"]["read_header_timeout"] = "30s".into());
    peer.start(&["daemon"]);
    let to = peer.rest();
    let path = content(&peer, 8);

    // More heads under way than there are places, each fed a byte now and then.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut slow: Vec<TcpStream> = (0..MANY + 50).map(|_| connect(to)).collect();
            for byte in
                b"GET /id HTTP/1.1\r\nX-Slow: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy".iter().cycle()
            {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                slow.iter_mut().for_each(|stream| {
                    let _ = stream.write_all(&[*byte]);
                });
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let took = slowest(to);
        done.store(true, Ordering::Relaxed);
        assert!(took < FAST, "{took:?} beside {MANY} slow heads");
    });

    // Answers that nobody takes: their connections are busy, and there are still places.
    let stuck: Vec<TcpStream> = (0..MANY)
        .map(|_| {
            let mut stream = connect(to);
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("send");
            stream
        })
        .collect();
    let took = slowest(to);
    assert!(took < FAST, "{took:?} beside {MANY} clients that do not read");
    // And beyond the places: those who make us wait give way after a moment.
    let more: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = connect(to);
            let _ = stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
            stream
        })
        .collect();
    wait_for("an answer beyond all places", PATIENCE, || {
        let mut stream = connect(to);
        stream
            .write_all(b"GET /id HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .map_err(|e| e.to_string())?;
        let (answer, _) = until_closed(&mut stream);
        if answer.starts_with("HTTP/1.1 200 ") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    drop((stuck, more));
    ok(peer.ctl(&["pin", "ls"]));
}

#[test]
fn tls_handshakes_that_never_begin_keep_nobody_out() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(pair) = certificates::make(tmp.path(), "tls", -1, 300) else { return };
    let mut peer = one(&tmp);
    for (from, name) in [(&pair.certificate, "cert.pem"), (&pair.key, "key.pem")] {
        std::fs::copy(from, peer.folder.join(name)).expect("copied");
    }
    peer.edit(|config| {
        config["api"]["restapi"]["ssl_cert_file"] = "cert.pem".into();
        config["api"]["restapi"]["ssl_key_file"] = "key.pem".into();
    });
    peer.start(&["daemon"]);
    let to = peer.rest();
    let mut silent: Vec<TcpStream> = (0..MANY + 100).map(|_| connect(to)).collect();
    for stream in silent.iter_mut().step_by(2) {
        // Half a greeting.
        let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01");
    }
    let began = Instant::now();
    let asked = pinfold()
        .env("SSL_CERT_FILE", &pair.certificate)
        .env("HOME", "/nonexistent")
        .args(["--host", &format!("/dns4/localhost/tcp/{}/https", to.port()), "id"])
        .output()
        .expect("starts");
    ok(asked);
    assert!(began.elapsed() < FAST, "{:?} beside silent handshakes", began.elapsed());
    for stream in &mut silent {
        let (_, took) = until_closed(stream);
        assert!(took < PATIENCE);
    }
}

#[test]
fn half_open_connections_at_the_cluster_port_stop_no_cluster() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut first = Peer::init(tmp.path().join("p0"), "p0", SECRET);
    first.start(&["daemon"]);
    let port: u16 = first.address().split('/').nth(4).expect("port").parse().expect("number");
    let to: SocketAddr = ([127, 0, 0, 1], port).into();
    let mut silent: Vec<TcpStream> = (0..MANY).map(|_| connect(to)).collect();
    for stream in silent.iter_mut().step_by(2) {
        // A nonce of the private network, and nothing behind it.
        let _ = stream.write_all(&[7; 24]);
    }
    let mut second = Peer::init(tmp.path().join("p1"), "p1", SECRET);
    second.start(&["daemon", "--bootstrap", &first.address()]);
    first.wait_members(2);
    second.wait_candidates(2);
    let cid = support::cluster::cid_of(500);
    ok(first.ctl(&["pin", "add", "--no-status", &cid]));
    wait_for("the pin on the other peer", PATIENCE, || {
        let pins = second.pinned_cids();
        if pins.contains(&cid) {
            Ok(())
        } else {
            Err(format!("{pins:?}"))
        }
    });
    // They do not stay either.
    let began = Instant::now();
    for stream in &mut silent {
        let _ = until_closed(stream);
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}
