//! The server against raw sockets: framing, limits, deadlines, trailers, endings.

use super::super::http::{empty, full, streamed, Request};
use super::super::stream::{ndjson, OnSuccess};
use super::*;
use crate::runtime::block_on;
use async_trait::async_trait;
use futures::{stream, StreamExt};
use std::io::{Read, Write};
use std::net::TcpStream;

/// A toy API that remembers what it was asked.
#[derive(Default)]
struct Toy {
    seen: Mutex<Vec<String>>,
    /// `/wait` answers when something comes here.
    go: Mutex<Option<async_channel::Receiver<()>>>,
}

#[async_trait]
impl Service for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }
    fn access_log(&self) -> &'static str {
        "toylog"
    }
    fn failure(&self, error: &Error) -> Response {
        plain_failure(error)
    }
    async fn call(&self, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        self.seen.lock().push(format!("{} {path}", request.method()));
        match path.as_str() {
            "/echo" => match request.into_body().collect(1 << 20).await {
                Ok(body) => Response::new(full(body)),
                Err(error) => plain_failure(&error),
            },
            "/ignore" => {
                let mut response = Response::new(full("no"));
                *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
                response
            }
            "/count" => {
                let mut body = request.into_body();
                let mut count = 0;
                while let Some(Ok(data)) = body.next().await {
                    count += data.len();
                }
                Response::new(full(count.to_string()))
            }
            "/lines" => {
                ndjson(stream::iter([Ok(1), Ok(2)]).boxed(), OnSuccess::EmptyTrailer).await.expect("lines")
            }
            "/broken" => {
                let items = stream::iter([Ok(1), Err(Error::io("disk on fire"))]).boxed();
                ndjson(items, OnSuccess::EmptyTrailer).await.expect("lines")
            }
            "/cut" => {
                let items = stream::iter([Ok(Bytes::from_static(b"half")), Err(Error::io("gone"))]);
                Response::new(streamed(items, Some(8)))
            }
            "/cut-chunks" => {
                let items = stream::iter([Ok(Bytes::from_static(b"half")), Err(Error::io("gone"))]);
                Response::new(streamed(items, None))
            }
            "/panic" => panic!("a defect, on purpose"),
            "/panic-later" => {
                Response::new(streamed(stream::poll_fn(|_| panic!("a defect, on purpose")), None))
            }
            "/wait" => {
                let go = self.go.lock().clone().expect("a channel");
                let _ = go.recv().await;
                Response::new(full("waited"))
            }
            "/endless" => {
                let data = Bytes::from(vec![0; 64 << 10]);
                Response::new(streamed(stream::repeat_with(move || Ok(data.clone())), None))
            }
            "/nothing" => Response::new(empty()),
            _ => Response::new(full("hello")),
        }
    }
}

fn start_with(limits: Limits) -> (Server, Arc<Toy>) {
    let toy = Arc::new(Toy::default());
    let config = ServerConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".into()], limits, tls: None };
    (block_on(Server::bind(config, toy.clone())).expect("bind"), toy)
}

fn start() -> (Server, Arc<Toy>) {
    start_with(Limits::default())
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.local_addrs()[0]).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    stream
}

/// Sends bytes and reads until the server closes.
fn play(server: &Server, bytes: &[u8]) -> String {
    let mut stream = connect(server);
    stream.write_all(bytes).expect("send");
    until_closed(&mut stream)
}

fn until_closed(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is a way to close, too.
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until the text contains `end`.
fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut all = String::new();
    let mut byte = [0];
    while !all.contains(end) {
        match stream.read(&mut byte) {
            Ok(1) => all.push(byte[0] as char),
            other => panic!("{other:?} before {end:?}; got {all:?}"),
        }
    }
    all
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn requests_are_answered_in_order_on_one_connection() {
    let (server, _) = start();
    let three =
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let text = play(&server, format!("{three}{}", get("/lines")).as_bytes());
    let bodies: Vec<&str> = text.split("HTTP/1.1 200 OK\r\n").collect();
    assert_eq!(bodies.len(), 4, "{text}");
    assert!(bodies[1].ends_with("\r\n\r\nhello") && bodies[2].ends_with("\r\n\r\nabc"), "{text}");
}

#[test]
fn trailers_reach_clients_that_never_asked() {
    let (server, _) = start();
    // Also on the second request of a connection, and behind a body.
    let first = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    for before in ["", first] {
        let text = play(&server, format!("{before}{}", get("/lines")).as_bytes());
        assert!(text.contains("Trailer: X-Stream-Error\r\n"), "{text}");
        assert!(text.ends_with("4\r\n1\n2\n\r\n0\r\nX-Stream-Error: \r\n\r\n"), "{text}");
        let text = play(&server, format!("{before}{}", get("/broken")).as_bytes());
        assert!(text.ends_with("2\r\n1\n\r\n0\r\nX-Stream-Error: disk on fire\r\n\r\n"), "{text}");
    }
}

#[test]
fn what_frames_badly_runs_nothing_and_closes() {
    let evil = "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n";
    for headers in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: abc",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: nosuch",
        "Content-Length : 5",
    ] {
        let (server, toy) = start();
        let text =
            play(&server, format!("POST /echo HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{evil}").as_bytes());
        assert!(text.starts_with("HTTP/1.1 400 "), "{headers}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{headers}: {text}");
        assert!(toy.seen.lock().iter().all(|s| !s.contains("evil")), "{headers}");
    }
    // Both framings: the chunked one counts, and the connection ends with that answer.
    let (server, toy) = start();
    let both = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = play(&server, format!("{both}3\r\nabc\r\n0\r\n\r\n{evil}").as_bytes());
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    assert_eq!(*toy.seen.lock(), ["POST /echo"]);
}

#[test]
fn broken_chunks_are_an_error_of_the_body() {
    let (server, _) = start();
    for chunks in ["zz\r\nabc", "ffffffffffffffffff\r\n", "3\r\nabcdef\r\n0\r\n\r\n"] {
        let head = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let text = play(&server, format!("{head}{chunks}").as_bytes());
        assert!(!text.contains("200 OK"), "{chunks}: {text}");
    }
    assert!(play(&server, get("/").as_bytes()).ends_with("hello"));
}

#[test]
fn garbage_is_answered_or_closed_and_never_kills() {
    let (server, _) = start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: \x01\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut stream = connect(&server);
        stream.write_all(bytes).expect("send");
        stream.shutdown(std::net::Shutdown::Write).expect("end");
        let text = until_closed(&mut stream);
        assert!(!text.contains("200 OK"), "{bytes:?}: {text}");
    }
    assert!(play(&server, get("/").as_bytes()).ends_with("hello"));
}

#[test]
fn heads_have_a_largest_size() {
    let (server, _) = start();
    let with =
        |n: usize| format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\nConnection: close\r\n\r\n", "x".repeat(n));
    assert!(play(&server, with(7000).as_bytes()).ends_with("hello"));
    assert!(play(&server, with(9000).as_bytes()).starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(200));
    assert!(play(&server, many.as_bytes()).starts_with("HTTP/1.1 431 "));
    let (server, _) = start_with(Limits { header_bytes: 100_000, ..Limits::default() });
    assert!(play(&server, with(90_000).as_bytes()).ends_with("hello"));
    assert!(play(&server, with(200_000).as_bytes()).starts_with("HTTP/1.1 431 "));
}

#[test]
fn slow_heads_and_idle_connections_are_closed() {
    let short = Duration::from_millis(300);
    let (server, _) = start_with(Limits { header_timeout: short, idle_timeout: short, ..Limits::default() });
    for sent in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\nX: y"] {
        let began = Instant::now();
        assert_eq!(play(&server, sent.as_bytes()), "", "{sent:?}");
        assert!((short..short * 20).contains(&began.elapsed()), "{sent:?}: {:?}", began.elapsed());
    }
    // Idle between requests.
    let mut stream = connect(&server);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    until(&mut stream, "hello");
    let began = Instant::now();
    assert_eq!(until_closed(&mut stream), "");
    assert!((short / 2..short * 20).contains(&began.elapsed()), "{:?}", began.elapsed());
    // A head that drips is bounded as a whole, however lively it is.
    let mut stream = connect(&server);
    let began = Instant::now();
    let dripped = (0..200).take_while(|_| {
        std::thread::sleep(short / 10);
        stream.write_all(b"G").is_ok()
    });
    assert!(dripped.count() < 100 && began.elapsed() < short * 20);
}

#[test]
fn a_long_running_request_is_not_idle() {
    let short = Duration::from_millis(100);
    let limits =
        Limits { header_timeout: short, idle_timeout: short, body_timeout: short, ..Limits::default() };
    let (server, toy) = start_with(limits);
    let (go, wait) = async_channel::bounded(1);
    *toy.go.lock() = Some(wait);
    let mut stream = connect(&server);
    let chunked = "POST /wait HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    stream.write_all(chunked.as_bytes()).expect("send");
    stream.set_read_timeout(Some(short * 6)).expect("timeout");
    let kind = stream.read(&mut [0]).expect_err("nothing yet").kind();
    assert!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{kind}");
    go.send_blocking(()).expect("go");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    until(&mut stream, "waited");
}

#[test]
fn silence_in_a_body_is_an_error_but_slowness_is_not() {
    let short = Duration::from_millis(300);
    let (server, _) = start_with(Limits { body_timeout: short, ..Limits::default() });
    let head = "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\n";
    let text = play(&server, format!("{head}abc").as_bytes());
    assert!(text.starts_with("HTTP/1.1 500 ") && text.contains("no byte of the request body"), "{text}");
    let mut stream = connect(&server);
    stream.write_all(head.as_bytes()).expect("send");
    for _ in 0..10 {
        std::thread::sleep(short / 5);
        stream.write_all(b"x").expect("send");
    }
    assert!(until_closed(&mut stream).ends_with("xxxxxxxxxx"));
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    let short = Duration::from_millis(300);
    let (server, _) = start_with(Limits { write_timeout: short, ..Limits::default() });
    let mut stream = connect(&server);
    stream.write_all(get("/endless").as_bytes()).expect("send");
    wait_for("the connection is taken", || server.connections() == 1);
    wait_for("the connection is dropped", || server.connections() == 0);
}

#[test]
fn an_early_answer_arrives_although_the_body_is_still_coming() {
    let (server, _) = start();
    let mut stream = connect(&server);
    let size = 4 << 20;
    let head = format!("POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("send");
    stream.write_all(&vec![b'x'; size]).expect("the rest is taken, too");
    until(&mut stream, "\r\n\r\nno");
    // And the connection is still good.
    stream.write_all(get("/").as_bytes()).expect("send");
    assert!(until_closed(&mut stream).ends_with("hello"));
}

#[test]
fn continue_is_said_only_to_who_is_wanted() {
    let (server, _) = start();
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    };
    let mut stream = connect(&server);
    stream.write_all(head("/echo").as_bytes()).expect("send");
    until(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").expect("send");
    until(&mut stream, "\r\n\r\nabc");
    let text = play(&server, head("/ignore").as_bytes());
    assert!(text.starts_with("HTTP/1.1 400 ") && !text.contains("100 Continue"), "{text}");
}

#[test]
fn a_large_chunked_upload_streams() {
    let (server, _) = start();
    let mut stream = connect(&server);
    let head = "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("send");
    let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..256 {
        stream.write_all(&chunk).expect("send");
    }
    stream.write_all(b"0\r\n\r\n").expect("send");
    assert!(until_closed(&mut stream).ends_with(&(256 * 0x10000).to_string()));
}

#[test]
fn head_has_no_body_and_http_1_0_no_chunks() {
    let (server, _) = start();
    let text = play(&server, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(text.contains("Content-Length: 5\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    let text = play(&server, b"HEAD /lines HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\n"), "{text}");
    let text = play(&server, b"GET /lines HTTP/1.0\r\n\r\n");
    assert!(text.ends_with("\r\n\r\n1\n2\n"), "{text}");
}

#[test]
fn a_cut_answer_is_visibly_cut() {
    let (server, _) = start();
    // Whether the head went out before the end is a matter of timing; the length tells in any case.
    let text = play(&server, get("/cut").as_bytes());
    assert!(
        text.is_empty()
            || (text.contains("Content-Length: 8") && text.len() < text.find("\r\n\r\n").expect("head") + 12),
        "{text}"
    );
    let text = play(&server, get("/cut-chunks").as_bytes());
    assert!(!text.contains("\r\n0\r\n"), "{text}");
}

#[test]
fn a_panic_costs_one_request() {
    let (server, _) = start();
    assert!(play(&server, get("/panic").as_bytes()).starts_with("HTTP/1.1 500 "));
    play(&server, get("/panic-later").as_bytes());
    assert!(play(&server, get("/").as_bytes()).ends_with("hello"));
    wait_for("all places are free", || server.connections() == 0);
}

#[test]
fn a_thousand_idle_connections_shut_nobody_out() {
    let (server, toy) = start_with(Limits { connections: 60, ..Limits::default() });
    // One of them is busy, and must survive the crowd.
    let (go, wait) = async_channel::bounded(1);
    *toy.go.lock() = Some(wait);
    let mut busy = connect(&server);
    busy.write_all(get("/wait").as_bytes()).expect("send");
    wait_for("it is busy", || !toy.seen.lock().is_empty());
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(connect(&server));
        if idle.len() > 200 {
            idle.remove(0);
        }
    }
    assert!(play(&server, get("/").as_bytes()).ends_with("hello"));
    assert!(server.connections() <= 60, "{}", server.connections());
    go.send_blocking(()).expect("go");
    assert!(until_closed(&mut busy).ends_with("waited"));
}

#[test]
fn when_all_are_busy_a_newcomer_is_told_so() {
    let (server, toy) = start_with(Limits { connections: 2, ..Limits::default() });
    let (go, wait) = async_channel::bounded::<()>(1);
    *toy.go.lock() = Some(wait);
    let mut busy = [connect(&server), connect(&server)];
    for stream in &mut busy {
        stream.write_all(get("/wait").as_bytes()).expect("send");
    }
    wait_for("both are busy", || toy.seen.lock().len() == 2);
    assert!(play(&server, get("/").as_bytes()).starts_with("HTTP/1.1 503 "));
    drop(go);
    for stream in &mut busy {
        assert!(until_closed(stream).ends_with("waited"));
    }
    wait_for("places are free", || server.connections() == 0);
    assert!(play(&server, get("/").as_bytes()).ends_with("hello"));
}

#[test]
fn closing_lets_requests_finish_and_then_cuts() {
    let (server, toy) = start();
    let address = server.local_addrs()[0];
    let (go, wait) = async_channel::bounded(1);
    *toy.go.lock() = Some(wait);
    let (mut busy, mut idle, mut fresh) = (connect(&server), connect(&server), connect(&server));
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    until(&mut idle, "hello");
    busy.write_all(get("/wait").as_bytes()).expect("send");
    wait_for("it is busy", || toy.seen.lock().len() == 2);
    let closing = runtime::spawn(server.close(Duration::from_secs(20)));
    assert_eq!(until_closed(&mut idle), "");
    assert_eq!(until_closed(&mut fresh), "");
    wait_for("nobody listens", || TcpStream::connect(address).is_err());
    go.send_blocking(()).expect("go");
    assert!(until_closed(&mut busy).ends_with("waited"));
    block_on(closing);

    let (server, toy) = start();
    let (_go, wait) = async_channel::bounded(1);
    *toy.go.lock() = Some(wait);
    let mut busy = connect(&server);
    busy.write_all(get("/wait").as_bytes()).expect("send");
    wait_for("it is busy", || toy.seen.lock().len() == 1);
    let began = Instant::now();
    block_on(server.close(Duration::from_millis(200)));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(until_closed(&mut busy), "");
}

#[test]
fn what_reached_us_before_the_end_is_answered() {
    for _ in 0..20 {
        let (server, _) = start();
        let kept = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut clients: Vec<TcpStream> = (0..8).map(|_| connect(&server)).collect();
        for client in &mut clients[..4] {
            client.write_all(kept.as_bytes()).expect("send");
            until(client, "hello");
        }
        // Some on kept connections, some on new ones that the kernel took and the server may not have seen.
        for client in &mut clients {
            client.write_all(kept.as_bytes()).expect("send");
        }
        block_on(server.close(Duration::from_secs(20)));
        for client in &mut clients {
            let answer = until_closed(client);
            assert!(answer.ends_with("hello"), "{answer:?}");
        }
    }
}

#[test]
fn running_out_of_descriptors_is_survived() {
    const CHILD: &str = "PINFOLD_TEST_FEW_DESCRIPTORS";
    let name = "api::server::tests::running_out_of_descriptors_is_survived";
    if std::env::var_os(CHILD).is_none() {
        // The limit is the process's: a process of its own keeps the other tests out of it.
        let test = std::env::current_exe().expect("this test");
        let out =
            std::process::Command::new(test).args([name, "--exact"]).env(CHILD, "1").output().expect("run");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        return;
    }
    let (server, _) = start();
    let limit = rustix::process::Rlimit { current: Some(64), maximum: Some(64) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("limit");
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect(server.local_addrs()[0]) {
        held.push(stream);
    }
    // Both ends live in this process, so the client takes the last descriptor. Free a few and ask.
    held.truncate(held.len() - 6);
    wait_for("it is served again", || {
        TcpStream::connect(server.local_addrs()[0]).is_ok_and(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
            stream.write_all(get("/").as_bytes()).is_ok() && until_closed(&mut stream).ends_with("hello")
        })
    });
}

#[test]
fn the_access_log_is_apache_s_common_format() {
    let at = Timestamp::parse("2026-11-21T03:02:04.5Z").expect("time");
    assert_eq!(common_log_time(at), "21/Nov/2026:03:02:04 +0000");
}
