//! Many pins in one request: `POST /pins` and `pinfold pin import`, against real processes.

#[path = "support/http.rs"]
mod http;
mod support;

use http::{send, Answer};
use serde_json::{json, Value};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::cluster::{cid_of, pinfold, Cluster, Peer};
use support::wait_for;

/// The longest that anything may take here.
const LIMIT: Duration = Duration::from_secs(60);

fn post(peer: &Peer, query: &str, body: &[u8]) -> Answer {
    send(peer.rest(), "POST", &format!("/pins{query}"), &[], Some(body)).expect("an answer")
}

/// The answer to a list that was taken.
fn import(peer: &Peer, query: &str, body: &[u8]) -> Value {
    let answer = post(peer, query, body);
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), peer.log());
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn refusal(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(body["code"], answer.status);
    body["message"].as_str().expect("message").to_owned()
}

fn list(numbers: std::ops::Range<u64>) -> Vec<u8> {
    numbers.map(|n| cid_of(n) + "\n").collect::<String>().into_bytes()
}

fn counts(done: &Value) -> (u64, u64, u64, u64, u64) {
    let number = |name: &str| done[name].as_u64().expect(name);
    (number("lines"), number("added"), number("changed"), number("unchanged"), number("refused"))
}

#[test]
fn tens_of_thousands_of_pins_in_one_request_reach_every_peer() {
    const PINS: u64 = 30_000;
    let cluster = Cluster::of(3);
    // A follower takes it as the leader does.
    let follower = (cluster.leader() + 1) % 3;
    let done = import(&cluster.peers[follower], "?name=bulk&meta-from=list&replication=2", &list(0..PINS));
    assert_eq!(counts(&done), (PINS, PINS, 0, 0, 0), "{done}");
    for peer in &cluster.peers {
        wait_for("all pins", LIMIT, || match peer.pinned_cids().len() as u64 {
            PINS => Ok(()),
            n => Err(format!("{n}")),
        });
    }
    let pin = cluster.peers[0].json("GET", &format!("/allocations/{}", cid_of(PINS - 1)));
    assert_eq!((&pin["name"], &pin["metadata"]["from"]), (&json!("bulk"), &json!("list")));
    assert_eq!(pin["allocations"].as_array().expect("allocations").len(), 2);
    // A thousand pins are one entry of the log.
    let health = cluster.peers[0].consensus();
    assert!(health["applied"].as_u64().expect("applied") < PINS / 100, "{health}");
    // Sent again it changes nothing, and writes nothing.
    let again = import(&cluster.peers[0], "?name=bulk&meta-from=list&replication=2", &list(0..PINS));
    assert_eq!(counts(&again), (PINS, 0, 0, PINS, 0), "{again}");
    assert_eq!(cluster.peers[0].consensus()["applied"], health["applied"]);
}

#[test]
fn an_export_comes_back_as_it_was() {
    let cluster = Cluster::of(3);
    let peer = &cluster.peers[0];
    let holder = cluster.peers[1].id();
    peer.json(
        "POST",
        &format!("/pins/{}?replication=1&user-allocations={holder}&name=one&meta-k=v", cid_of(1)),
    );
    peer.json("POST", &format!("/pins/{}?mode=direct&name=two", cid_of(2)));
    peer.json("POST", &format!("/pins/{}?expire-in=10h&name=three", cid_of(3)));
    let (_, before) = peer.request("GET", "/allocations").expect("a list");
    assert_eq!(before.lines().count(), 3);

    let same = import(peer, "", before.as_bytes());
    assert_eq!(counts(&same), (3, 0, 0, 3, 0), "{same}");
    for n in 1..=3 {
        peer.json("DELETE", &format!("/pins/{}", cid_of(n)));
    }
    let back = import(&cluster.peers[2], "?name=ignored&replication=3", before.as_bytes());
    assert_eq!(counts(&back), (3, 3, 0, 0, 0), "{back}");
    wait_for("the same list", LIMIT, || match peer.request("GET", "/allocations") {
        Ok((200, after)) if after == before => Ok(()),
        other => Err(format!("{other:?}\ninstead of\n{before}")),
    });
}

#[test]
fn each_line_stands_for_itself() {
    let cluster = Cluster::of(1);
    let peer = &cluster.peers[0];
    let long = "x".repeat(2 << 20);
    let unknown_holder = "12D3KooWPDpYW8VRJkAwVsTwJG3GTr4MvjGM7wfjBsd9VcUqrgFf";
    let text = format!(
        "{}\r\n\n  \"{}\"  \nnot a CID\n{{\"cid\":\"{}\",\"name\":\"json\",\"allocations\":[\"{unknown_holder}\"]}}\n\
         {{\"name\":\"no cid\"}}\n{long}\n{{\"cid\":\"{}\",\"type\":\"shard-pin\"}}\n{{\"cid\":\n\u{1b}[1m\n\
         {{\"cid\":\"{}\",\"replication_factor_min\":-1,\"replication_factor_max\":3}}\n\
         {{\"cid\":\"{}\",\"expire_at\":\"2001-01-01T00:00:00Z\"}}\n{}",
        cid_of(1), cid_of(2), cid_of(3), cid_of(4), cid_of(5), cid_of(6), cid_of(7),
    );
    let done = import(peer, "?name=plain", text.as_bytes());
    assert_eq!(counts(&done), (12, 4, 0, 0, 8), "{done}");
    let refused: Vec<(u64, &str)> = done["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|e| (e["line"].as_u64().expect("line"), e["error"].as_str().expect("error")))
        .collect();
    let expected = [
        (4, "\"not a CID\" is not a CID"),
        (6, "missing field `cid`"),
        (7, "more than the limit"),
        (8, "sharded content"),
        (9, "it is not a pin"),
        (10, "is not a CID"),
        (11, "-1 when one of them is"),
        (12, "ExpireAt set before current time"),
    ];
    assert_eq!(refused.len(), expected.len(), "{refused:?}");
    for ((line, why), (expected_line, word)) in refused.iter().zip(expected) {
        assert_eq!(*line, expected_line, "{why}");
        assert!(why.contains(word), "{why} should say {word}");
        assert!(why.len() < 400, "a refusal is short: {why}");
    }
    let mut pins = [1, 2, 3, 7].map(cid_of);
    pins.sort();
    assert_eq!(peer.pinned_cids(), pins);
    let name = |n| peer.json("GET", &format!("/allocations/{}", cid_of(n)))["name"].clone();
    assert_eq!((name(1), name(3), name(7)), (json!("plain"), json!("json"), json!("plain")));
}

#[test]
fn the_later_of_two_lines_wins_wherever_they_are() {
    let cluster = Cluster::of(1);
    let peer = &cluster.peers[0];
    let named = |n, name: &str| format!("{{\"cid\":\"{}\",\"name\":\"{name}\"}}\n", cid_of(n));
    let mut text = named(0, "first") + &named(0, "second");
    // The same CID in each of many batches, which are under way at the same time.
    for n in 1..6_000 {
        text.push_str(&named(n, "other"));
        if n % 500 == 0 {
            text.push_str(&named(0, &format!("turn {n}")));
        }
    }
    let done = import(peer, "", text.as_bytes());
    assert_eq!(counts(&done), (6_012, 6_000, 12, 0, 0), "{done}");
    assert_eq!(peer.json("GET", &format!("/allocations/{}", cid_of(0)))["name"], "turn 5500");
    // A pin that has changed since is changed again; one that may not be is refused, and stays.
    let again = format!("{}{{\"cid\":\"{}\",\"mode\":\"direct\"}}\n", named(0, "first"), cid_of(1));
    let done = import(peer, "", again.as_bytes());
    assert_eq!(counts(&done), (2, 0, 1, 0, 1), "{done}");
    assert!(done["errors"][0]["error"].as_str().expect("error").contains("Unpin it first"), "{done}");
}

#[test]
fn what_is_no_list_is_refused_before_it_is_read_to_its_end() {
    let cluster = Cluster::of(1);
    let peer = &cluster.peers[0];
    assert_eq!(counts(&import(peer, "", b"")), (0, 0, 0, 0, 0));
    assert_eq!(counts(&import(peer, "", b"\n \r\n\n")), (0, 0, 0, 0, 0));

    let one = post(peer, "", b"hello");
    assert_eq!(one.status, 400);
    assert!(
        refusal(&one).contains("none of 1 lines is a pin; line 1: \"hello\" is not a CID"),
        "{}",
        one.text()
    );

    let rubbish = "rubbish\n".repeat(1_000_000);
    let answer = post_early(peer, rubbish.as_bytes());
    assert_eq!(answer.status, 400);
    let why = refusal(&answer);
    assert!(why.contains("this is not a list of pins") && why.contains("line 1:"), "{why}");

    let form = [("Content-Type".to_owned(), "multipart/form-data; boundary=x".to_owned())];
    let answer = send(peer.rest(), "POST", "/pins", &form, Some(b"--x--")).expect("an answer");
    assert_eq!(answer.status, 400);
    assert!(refusal(&answer).contains("--data-binary"), "{}", answer.text());
    let answer = post(peer, &format!("?pin-update={}", cid_of(1)), &list(1..2));
    assert!(refusal(&answer).contains("pin-update"), "{}", answer.text());
    let answer = post(peer, "?replication-min=3&replication-max=2", &list(1..2));
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(peer.pinned_cids().len(), 0);
}

/// A request whose answer may come before it is sent.
fn post_early(peer: &Peer, body: &[u8]) -> Answer {
    let to = peer.rest();
    let mut stream = TcpStream::connect(to).expect("a connection");
    let head = format!(
        "POST /pins HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("head");
    let mut reader = stream.try_clone().expect("the same");
    let answer = std::thread::spawn(move || {
        let mut raw = Vec::new();
        let _ = reader.read_to_end(&mut raw);
        raw
    });
    // Whether the rest is taken or the connection closed is the server's choice.
    let _ = stream.write_all(body);
    let raw = answer.join().expect("the reader");
    let text = String::from_utf8_lossy(&raw);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() }
}

#[test]
fn a_list_that_is_cut_off_is_taken_up_to_its_last_whole_line() {
    let cluster = Cluster::of(1);
    let peer = &cluster.peers[0];
    let to = peer.rest();
    let mut stream = TcpStream::connect(to).expect("a connection");
    let body = list(0..2_500);
    let head = format!("POST /pins HTTP/1.1\r\nHost: {to}\r\nContent-Length: {}\r\n\r\n", body.len() + 1_000);
    stream.write_all(head.as_bytes()).expect("head");
    stream.write_all(&body).expect("body");
    // The beginning of a line that never ends, which would be a CID by itself.
    stream.write_all(cid_of(9_999).as_bytes()).expect("body");
    wait_for("what has come", LIMIT, || match peer.pinned_cids().len() {
        2_500 => Ok(()),
        n => Err(format!("{n}")),
    });
    drop(stream);
    // Not even later; and the peer goes on as if nothing had been.
    assert_eq!(counts(&import(peer, "", &list(0..2_501))), (2_501, 1, 0, 2_500, 0));
    assert!(!peer.pinned_cids().contains(&cid_of(9_999)));
}

#[test]
fn a_list_in_drops_is_not_held_back() {
    let cluster = Cluster::of(1);
    let peer = &cluster.peers[0];
    let to = peer.rest();
    let mut stream = TcpStream::connect(to).expect("a connection");
    let head = format!(
        "POST /pins HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("head");
    for n in 0..3 {
        let line = cid_of(n) + "\n";
        stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).expect("chunk");
        wait_for("the pin while the list goes on", LIMIT, || match peer.pinned_cids().len() as u64 {
            now if now == n + 1 => Ok(()),
            now => Err(format!("{now}")),
        });
    }
    stream.write_all(b"0\r\n\r\n").expect("end");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"added\":3"), "{answer}");
}

#[test]
fn without_a_majority_in_the_middle_it_says_how_far_it_came_and_can_be_repeated() {
    let mut cluster = Cluster::with(3, |_, config| {
        config["consensus"]["raft"]["network_timeout"] = "2s".into();
        config["consensus"]["raft"]["wait_for_leader_timeout"] = "2s".into();
    });
    let leader = cluster.leader();
    let to = cluster.peers[leader].rest();
    let mut stream = TcpStream::connect(to).expect("a connection");
    let (first, second) = (list(0..5_000), list(5_000..10_000));
    let head = format!(
        "POST /pins HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        first.len() + second.len()
    );
    stream.write_all(head.as_bytes()).expect("head");
    stream.write_all(&first).expect("the first half");
    wait_for("the first half", LIMIT, || match cluster.peers[leader].pinned_cids().len() {
        5_000 => Ok(()),
        n => Err(format!("{n}")),
    });
    for i in (0..3).filter(|i| *i != leader) {
        cluster.peers[i].kill();
    }
    let _ = stream.write_all(&second);
    let (started, mut answer) = (Instant::now(), String::new());
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(started.elapsed() < LIMIT);
    assert!(answer.starts_with("HTTP/1.1 5"), "{answer}");
    assert!(answer.contains("everything up to line 5000 is done (5000 added,"), "{answer}");

    for i in (0..3).filter(|i| *i != leader) {
        cluster.peers[i].start(&["daemon"]);
    }
    let peer = &cluster.peers[leader];
    wait_for("the whole list", LIMIT, || {
        let answer = post(peer, "", &[first.clone(), second.clone()].concat());
        // What was under way when the majority went may have been committed since.
        match answer.status {
            200 => Ok(()),
            other => Err(format!("{other} {}", answer.text())),
        }
    });
    for peer in &cluster.peers {
        wait_for("all pins", LIMIT, || match peer.pinned_cids().len() {
            10_000 => Ok(()),
            n => Err(format!("{n}")),
        });
    }
}

#[test]
fn the_command_takes_a_file_and_standard_input() {
    let cluster = Cluster::of(1);
    let peer = &cluster.peers[0];
    let file = cluster.path("list.txt");
    std::fs::write(&file, list(0..1_500)).expect("a file");
    let path = file.to_str().expect("UTF-8");
    let out = peer.ctl(&["pin", "import", "--name", "from a file", path]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "1500 added, 0 changed, 0 there already, 0 refused\n");
    assert_eq!(peer.json("GET", &format!("/allocations/{}", cid_of(7)))["name"], "from a file");

    let mut child = pinfold()
        .args(["-c", peer.path(), "--enc", "json", "pin", "import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the executable starts");
    let text = format!("{}\nnonsense\n", cid_of(2_000));
    child.stdin.take().expect("standard input").write_all(text.as_bytes()).expect("written");
    let out = child.wait_with_output().expect("its output");
    // Refused lines are printed, and show in the exit code although the others are done.
    assert_eq!(out.status.code(), Some(1));
    let done: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(counts(&done), (2, 1, 0, 0, 1));
    assert_eq!(done["errors"][0]["line"], 2);

    let missing = peer.ctl(&["pin", "import", "/no/such/list"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/list"), "{missing:?}");
    let folder = peer.ctl(&["pin", "import", peer.path()]);
    assert_eq!(folder.status.code(), Some(1));
    let none = cluster.path("none.txt");
    std::fs::write(&none, "nonsense\n").expect("a file");
    let out = peer.ctl(&["pin", "import", none.to_str().expect("UTF-8")]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stdout).contains("none of 1 lines is a pin"), "{out:?}");
}
