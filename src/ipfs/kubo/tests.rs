//! The connector against a daemon that misbehaves in every way we could think of. The real Kubo is in `tests/ipfs.rs`.

use super::fake::{Fake, Say};
use super::http::{MAX_JSON, MAX_LINE, QUICK_FAILURES};
use super::*;
use crate::ipfs::unixfs::hash;
use crate::runtime::block_on;
use std::sync::atomic::{AtomicU64, Ordering};

const CID: &str = "QmYw4XzAQxGkjhXwcbPdFrf2Toip4uioyuJstfzEPayf9w";

fn cid() -> Cid {
    CID.parse().expect("cid")
}

fn kubo(fake: &Fake) -> Kubo {
    let config = KuboConfig {
        node: fake.address(),
        request_timeout: Duration::from_millis(700),
        pin_timeout: Duration::from_millis(400),
        unpin_timeout: Duration::from_secs(5),
        repogc_timeout: Duration::from_secs(5),
        ..KuboConfig::default()
    };
    Kubo::new(config).expect("kubo")
}

fn request(mode: PinMode) -> PinRequest {
    PinRequest { cid: cid(), mode, update_from: None, providers: Vec::new() }
}

fn not_pinned() -> Say {
    Say::Status(
        500,
        format!("{{\"Message\":\"path '{CID}' is not pinned\",\"Code\":0,\"Type\":\"error\"}}\n"),
    )
}

fn pins() -> String {
    format!("{{\"Pins\":[\"{CID}\"]}}\n")
}

fn quiet() -> Progress {
    Arc::new(|_| {})
}

#[test]
fn a_daemon_that_is_down_is_named_with_the_reason() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.local_addr().expect("address").port()
    };
    let node: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("address");
    let kubo = Kubo::new(KuboConfig { node: node.clone(), ..KuboConfig::default() }).expect("kubo");
    let error = block_on(kubo.id()).expect_err("down");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(
        error.message(),
        format!("the IPFS daemon at {node} does not answer: connection refused; is it running?")
    );
}

#[test]
fn a_daemon_that_stays_down_is_asked_once_a_second_and_at_once_again_when_it_is_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let node = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().expect("address").port());
    drop(listener);
    let kubo = Kubo::new(KuboConfig { node: node.parse().expect("address"), ..KuboConfig::default() });
    let kubo = kubo.expect("kubo");
    block_on(async {
        for _ in 0..=QUICK_FAILURES {
            kubo.id().await.expect_err("down");
        }
        let start = Instant::now();
        for _ in 0..3 {
            kubo.id().await.expect_err("down");
        }
        assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
        // Forty at once: most would wait too long and are told so immediately.
        let calls: Vec<_> = (0..40).map(|_| kubo.id()).collect();
        let start = Instant::now();
        let refused = futures::future::select_all(calls.into_iter().map(Box::pin)).await.0;
        assert!(refused.expect_err("down").kind() == Kind::Unavailable);
        assert!(start.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn errors_of_the_daemon_come_with_its_words() {
    let fake = Fake::start(&[
        ("swarm/connect", Say::Status(500, r#"{"Message":"dial backoff","Code":0,"Type":"error"}"#.into())),
        ("repo/stat", Say::Status(500, "<html><body>Bad Gateway</body></html>".into())),
        ("swarm/peers", Say::Status(403, "403 - Forbidden\n".into())),
        ("id", Say::Json("<!DOCTYPE html><html>welcome to your router</html>".into())),
    ]);
    let kubo = kubo(&fake);
    block_on(async {
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/4001".parse().expect("address");
        let error = kubo.swarm_connect(&address).await.expect_err("500");
        assert_eq!(
            error.message(),
            "IPFS error (swarm/connect?arg=/ip4/1.2.3.4/tcp/4001). Code: 500. Message: dial backoff"
        );
        let error = kubo.repo_stat().await.expect_err("html");
        assert!(error.message().contains("Code: 500") && error.message().contains("Bad Gateway"), "{error}");
        let error = kubo.swarm_peers().await.expect_err("403");
        assert!(error.message().contains("Code: 403. Message: 403 - Forbidden"), "{error}");
        let error = kubo.id().await.expect_err("html");
        assert!(error.message().contains("is this Kubo's RPC API?"), "{error}");
        assert_eq!(error.kind(), Kind::Ipfs);
    });
}

#[test]
fn a_silent_daemon_is_a_timeout() {
    let fake = Fake::start(&[("id", Say::Nothing)]);
    let error = block_on(kubo(&fake).id()).expect_err("silence");
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(error.message().contains("did not answer id within 700ms"), "{error}");
}

#[test]
fn what_is_not_http_or_not_the_right_json_is_refused() {
    for (say, part) in [
        (Say::Raw("SSH-2.0-OpenSSH_9.6\r\n".into()), "not HTTP"),
        (Say::Raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"ID\":".into()), "broke the connection"),
        (Say::Json("{\"ID\":17}".into()), "not understood"),
        (Say::Json("{}".into()), "not understood"),
        (Say::Json("{\"ID\":\"not-a-peer\"}".into()), "says that its id is"),
        (Say::Json("{\"ID\":\"".repeat(MAX_JSON / 4)), "more than"),
        (Say::Endless("x".repeat(1 << 16)), "more than"),
        (Say::Raw(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20))), "broke the connection"),
    ] {
        let fake = Fake::start(&[("id", say.clone())]);
        let config = KuboConfig { node: fake.address(), ..KuboConfig::default() };
        let error = block_on(Kubo::new(config).expect("kubo").id()).expect_err("nonsense");
        let short = format!("{say:?}").chars().take(80).collect::<String>();
        assert!(error.message().contains(part), "{short}: {error}");
        assert!(error.message().len() < 1000, "{short}: a sentence, not a dump");
    }
}

#[test]
fn pins_are_streamed_and_bad_lines_end_the_stream() {
    let line = |n: u8, kind: &str| {
        let cid = hash::cid_of(1, hash::RAW, &[n]);
        format!("{{\"Cid\":\"{cid}\",\"Type\":\"{kind}\"}}\n")
    };
    let (mut recursive, mut all) = (String::new(), 0);
    for n in 0..200 {
        recursive.push_str(&line(n, "recursive"));
        all += 1;
    }
    // Lines torn apart over chunks in the middle.
    let (a, b) = recursive.split_at(recursive.len() / 2 + 7);
    let lines = vec![(0, a.to_string()), (20, b.to_string())];
    let fake = Fake::start(&[
        ("type=recursive", Say::Lines { lines, end: true }),
        ("type=direct", Say::Json(line(250, "direct"))),
    ]);
    block_on(async {
        let list: Vec<_> = kubo(&fake).list_pins().await.expect("list").collect().await;
        let list: Vec<_> = list.into_iter().collect::<Result<Vec<_>>>().expect("all good");
        assert_eq!(list.len(), all + 1);
        assert_eq!(list[all], (hash::cid_of(1, hash::RAW, &[250]), PinMode::Direct));
    });
    for (bad, part) in [
        (
            Say::Lines { lines: vec![(0, line(1, "recursive")), (0, "{\"Cid\":\"Q".into())], end: true },
            "not under",
        ),
        (
            Say::Lines { lines: vec![(0, line(1, "recursive")), (0, "{\"Cid\":\"Q".into())], end: false },
            "broke",
        ),
        (Say::Json("{\"Cid\":\"nonsense\"}\n".into()), "where a CID belongs"),
        (Say::Endless("x".repeat(MAX_LINE / 8)), "a line of more than"),
        (
            Say::Lines { lines: vec![(0, line(1, "recursive")), (2_000, line(2, "recursive"))], end: true },
            "within",
        ),
    ] {
        let fake = Fake::start(&[("type=recursive", bad.clone()), ("type=direct", Say::Json(String::new()))]);
        let list: Vec<_> = block_on(async { kubo(&fake).list_pins().await.expect("head").collect().await });
        let short = format!("{bad:?}").chars().take(80).collect::<String>();
        let last = list.last().expect("something").as_ref().expect_err(&short);
        assert!(last.message().contains(part), "{short}: {last}");
        assert!(list.iter().filter(|r| r.is_err()).count() == 1, "{short}: the error is the end");
    }
}

#[test]
fn progress_keeps_a_pin_alive_and_its_heartbeat_does_not() {
    let alive: Vec<(u64, String)> = (1..=6).map(|n| (200, format!("{{\"Progress\":{n}}}\n"))).collect();
    let lines = alive.into_iter().chain([(0, pins())]).collect();
    let fake = Fake::start(&[("pin/ls", not_pinned()), ("pin/add", Say::Lines { lines, end: true })]);
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    let progress: Progress = Arc::new(move |n| count.store(n, Ordering::SeqCst));
    block_on(kubo(&fake).pin(request(PinMode::Recursive), progress)).expect("1.2 s with a limit of 0.4 s");
    assert_eq!(seen.load(Ordering::SeqCst), 6);

    for stuck in ["{}\n", "{\"Progress\":3}\n"] {
        let lines = (0..40).map(|_| (50, stuck.to_string())).collect();
        let fake = Fake::start(&[("pin/ls", not_pinned()), ("pin/add", Say::Lines { lines, end: true })]);
        let start = Instant::now();
        let error = block_on(kubo(&fake).pin(request(PinMode::Recursive), quiet())).expect_err("stuck");
        assert_eq!(error.kind(), Kind::Timeout, "{error}");
        assert!(error.message().contains("no progress for 400ms"), "{error}");
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    }
}

#[test]
fn a_pin_is_only_done_when_the_daemon_says_so() {
    let progress = (0, "{\"Progress\":1}\n".to_string());
    let trailer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Stream-Error\r\n\r\n3\r\n{}\n\r\n0\r\n\
                   X-Stream-Error: the disk is on fire\r\n\r\n";
    for (say, part) in [
        (Say::Lines { lines: vec![progress.clone()], end: false }, "broke the connection"),
        (Say::Lines { lines: vec![progress], end: true }, "without saying that it is pinned"),
        (Say::Raw(trailer.into()), "the disk is on fire"),
        (
            Say::Json("{\"Pins\":[\"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn\"]}".into()),
            "without saying",
        ),
        (Say::Status(500, "{\"Message\":\"merkledag: not found\"}".into()), "merkledag: not found"),
    ] {
        let fake = Fake::start(&[("pin/ls", not_pinned()), ("pin/add", say)]);
        let error = block_on(kubo(&fake).pin(request(PinMode::Recursive), quiet())).expect_err(part);
        assert!(error.message().contains(part), "{part}: {error}");
    }
}

#[test]
fn dropping_a_pin_hangs_up() {
    let lines = (0..1000).map(|n| (10, format!("{{\"Progress\":{n}}}\n"))).collect();
    let fake = Fake::start(&[("pin/ls", not_pinned()), ("pin/add", Say::Lines { lines, end: true })]);
    let kubo = kubo(&fake);
    let task = runtime::spawn(async move { kubo.pin(request(PinMode::Recursive), quiet()).await });
    let deadline = Instant::now() + Duration::from_secs(5);
    while fake.count("pin/add") == 0 {
        assert!(Instant::now() < deadline, "never asked");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(task);
    while fake.abandoned.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "the daemon still works for nobody");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_pin_is_one_question_and_a_recursive_pin_gives_way_to_a_direct_one() {
    let recursively =
        format!("{{\"Message\":\"pin: {CID} already pinned recursively\",\"Code\":0,\"Type\":\"error\"}}");
    let fake = Fake::start(&[
        ("recursive=false", Say::Status(500, recursively)),
        ("pin/add", Say::Json(pins())),
        ("pin/rm", Say::Json(pins())),
    ]);
    let kubo = kubo(&fake);
    block_on(async {
        kubo.pin(request(PinMode::Recursive), quiet()).await.expect("pinned");
        assert_eq!((fake.count("pin/add"), fake.count("pin/ls"), fake.count("pin/rm")), (1, 0, 0));
        // This daemon never lets go of it: after one unpin and one more try its words are the answer.
        let error = kubo.pin(request(PinMode::Direct), quiet()).await.expect_err("refused");
        assert!(error.message().contains("already pinned recursively"), "{error}");
        assert_eq!((fake.count("pin/rm"), fake.count("recursive=false")), (1, 2));
    });
}

#[test]
fn an_update_uses_the_old_pin_when_it_is_there_and_falls_back_otherwise() {
    let from = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
    let have = Say::Json(format!("{{\"Cid\":\"{from}\",\"Type\":\"recursive\"}}\n"));
    let key = format!("pin/ls?arg={from}&type=recursive");
    let mut update = request(PinMode::Recursive);
    update.update_from = Some(from.parse().expect("cid"));
    let base = [("pin/ls", not_pinned()), ("pin/add", Say::Json(pins()))];
    let with = |extra: &[(&str, Say)]| Fake::start(&[&base[..], extra].concat());

    let fake = with(&[(&key, have.clone()), ("pin/update", Say::Json(pins()))]);
    block_on(kubo(&fake).pin(update.clone(), quiet())).expect("updated");
    assert_eq!((fake.count("pin/update"), fake.count("unpin=false"), fake.count("pin/add")), (1, 1, 0));

    let fake = with(&[(&key, have), ("pin/update", Say::Status(500, "{\"Message\":\"no\"}".into()))]);
    block_on(kubo(&fake).pin(update.clone(), quiet())).expect("in full");
    assert_eq!((fake.count("pin/update"), fake.count("pin/add")), (1, 1));

    let fake = with(&[]);
    block_on(kubo(&fake).pin(update, quiet())).expect("in full");
    assert_eq!((fake.count("pin/update"), fake.count("pin/add")), (0, 1));
}

#[test]
fn unpinning_what_is_not_pinned_succeeds_and_other_errors_do_not() {
    for words in ["not pinned or pinned indirectly", "path is not pinned"] {
        let fake = Fake::start(&[("pin/rm", Say::Status(500, format!("{{\"Message\":\"{words}\"}}")))]);
        block_on(kubo(&fake).unpin(&cid())).expect(words);
    }
    let fake = Fake::start(&[("pin/rm", Say::Status(500, "{\"Message\":\"lock held\"}".into()))]);
    assert!(block_on(kubo(&fake).unpin(&cid())).expect_err("lock").message().contains("lock held"));
}

#[test]
fn blocks_are_checked_on_both_ways() {
    let data = Bytes::from_static(b"hello");
    let block = Block { cid: hash::cid_of(1, hash::RAW, &data), data: data.clone() };
    let other = hash::cid_of(1, hash::RAW, b"other");
    let said = |cid: &Cid| Say::Json(format!("{{\"Key\":\"{cid}\",\"Size\":5}}\n"));
    let get = |body: &str| ("block/get", Say::Json(body.into()));

    let fake = Fake::start(&[("block/put", said(&block.cid)), get("hello")]);
    block_on(kubo(&fake).put_blocks(vec![block.clone()])).expect("stored");
    let sent = String::from_utf8(fake.bodies.lock()[0].clone()).expect("text");
    assert!(sent.contains("\r\n\r\nhello\r\n--pinfold-"), "{sent}");
    assert_eq!(block_on(kubo(&fake).get_block(&block.cid, false)).expect("block"), data);
    assert_eq!(fake.count("offline=true"), 1);

    let fake = Fake::start(&[("block/put", said(&other)), get("hellO")]);
    let error = block_on(kubo(&fake).put_blocks(vec![block.clone()])).expect_err("another CID");
    assert!(error.message().contains("did not confirm"), "{error}");
    let error = block_on(kubo(&fake).get_block(&block.cid, true)).expect_err("another block");
    assert_eq!(error.kind(), Kind::Corrupt);
    let wrong = Block { cid: other, data };
    let asked = fake.count("block/put");
    assert_eq!(block_on(kubo(&fake).put_blocks(vec![wrong])).expect_err("bad hash").kind(), Kind::Corrupt);
    assert_eq!(fake.count("block/put"), asked, "never sent");

    let fake = Fake::start(&[("block/put", Say::Json(String::new()))]);
    assert!(block_on(kubo(&fake).put_blocks(vec![block])).is_err(), "no confirmation at all");
}

#[test]
fn garbage_collection_yields_cids_and_ends_with_its_error() {
    let gone = hash::cid_of(1, hash::RAW, b"gone");
    let lines =
        format!("{{\"Key\":{{\"/\":\"{gone}\"}}}}\n{{\"Key\":{{}},\"Error\":\"a block is locked\"}}\n");
    let fake = Fake::start(&[("repo/gc", Say::Json(lines))]);
    let list: Vec<_> = block_on(async { kubo(&fake).gc().await.expect("gc").collect().await });
    assert_eq!(list[0].as_ref().expect("cid"), &gone);
    assert!(list[1].as_ref().expect_err("error").message().contains("a block is locked"));
    assert_eq!(list.len(), 2);
}

#[test]
fn a_storage_limit_is_found_where_the_daemon_has_it() {
    let fake = Fake::start(&[("repo/stat", Say::Json("{\"RepoSize\":7,\"StorageMax\":10}".into()))]);
    let stat = block_on(kubo(&fake).repo_stat()).expect("stat");
    assert_eq!((stat.repo_size, stat.storage_max), (7, 10));
    let config = "{\"Datastore\":{\"StorageMax\":\"10GB\"}}";
    let fake = Fake::start(&[
        ("repo/stat", Say::Json("{\"RepoSize\":7}".into())),
        ("config/show", Say::Json(config.into())),
    ]);
    assert_eq!(block_on(kubo(&fake).repo_stat()).expect("stat").storage_max, 10_000_000_000);
}

#[test]
fn https_and_bad_addresses_are_refused_at_once() {
    let error = Kubo::new(KuboConfig { https: true, ..KuboConfig::default() }).err().expect("https");
    assert!(error.message().contains("https"), "{error}");
    let node = "/ip4/127.0.0.1/udp/5001".parse().expect("address");
    assert_eq!(
        Kubo::new(KuboConfig { node, ..KuboConfig::default() }).err().expect("udp").kind(),
        Kind::Invalid
    );
}

#[test]
fn connections_are_reused_and_a_closed_one_is_replaced() {
    let fake = Fake::start(&[("repo/stat", Say::Json("{\"RepoSize\":1,\"StorageMax\":2}".into()))]);
    let kubo = kubo(&fake);
    block_on(async {
        for _ in 0..20 {
            kubo.repo_stat().await.expect("stat");
        }
        assert_eq!(kubo.client.idle_connections(), 1, "one connection served all");
        kubo.close().await;
        assert_eq!(kubo.client.idle_connections(), 0);
        kubo.repo_stat().await.expect("a new one");
    });
}

#[test]
fn a_run_is_told_by_identity_and_start() {
    let id = r#"{"ID":"12D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH","Addresses":[]}"#;
    let metrics = "# TYPE x gauge\nprocess_start_time_seconds 1.79525061563e+09\ny 2\n";
    let fake = Fake::start(&[("id", Say::Json(id.into())), ("debug/metrics", Say::Json(metrics.into()))]);
    let run = block_on(kubo(&fake).current_run()).expect("a run");
    assert_eq!(run.started.as_deref(), Some("1.79525061563e+09"));
    // One that does not tell is up all the same.
    let fake = Fake::start(&[("id", Say::Json(id.into()))]);
    let silent = block_on(kubo(&fake).current_run()).expect("a run");
    assert_eq!((silent.id, silent.started), (run.id, None));
    let fake = Fake::start(&[("id", Say::Json("<html>".into()))]);
    let error = block_on(kubo(&fake).current_run()).expect_err("a page");
    assert!(error.message().contains("is this Kubo's RPC API?"), "{error}");
}

#[test]
fn what_was_not_confirmed_was_not_done() {
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWKWqnCCKgxL8E7T4M1dz6YmkdihGUoo1NDrsZPAGH8AMH"
        .parse()
        .expect("address");
    for body in ["<html>Welcome</html>", "{}", r#"{"Pins":[]}"#, r#"{"Pins":["bafkqaaa"]}"#, ""] {
        let fake =
            Fake::start(&[("pin/rm", Say::Json(body.into())), ("swarm/connect", Say::Json(body.into()))]);
        block_on(kubo(&fake).unpin(&cid())).expect_err(body);
        block_on(kubo(&fake).swarm_connect(&address)).expect_err(body);
    }
}

#[test]
fn unpinning_can_be_disallowed() {
    let fake = Fake::start(&[]);
    let config = KuboConfig { node: fake.address(), unpin_disable: true, ..KuboConfig::default() };
    let error = block_on(Kubo::new(config).expect("kubo").unpin(&cid())).expect_err("disallowed");
    assert!(error.message().contains("unpin_disable"), "{error}");
    assert_eq!(fake.count("pin/rm"), 0);
}
