//! The command line against servers that behave well, badly, or not at all.

mod cli_support;

use cli_support::http::{read_body, read_chunk, Answer, Server};
use cli_support::{command, finish, run_as, words, Ran};
use serde_json::json;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

fn ctl(server: &Server, folder: &Path, line: &str) -> Ran {
    let mut all = vec!["--host".to_string(), server.multiaddr()];
    all.extend(words(line));
    run_as("ipfs-cluster-ctl", &all, folder, "")
}

fn pinfold(server: &Server, folder: &Path, line: &str) -> Ran {
    let mut all = vec!["--host".to_string(), server.multiaddr()];
    all.extend(words(line));
    run_as("pinfold", &all, folder, "")
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("folder")
}

fn status_line(n: usize) -> String {
    json!({"cid": CID, "name": format!("n{n}"), "allocations": [], "origins": [], "created": "2026-11-21T03:02:32Z",
           "metadata": null, "peer_map": {}})
    .to_string()
        + "\n"
}

#[test]
fn an_error_after_the_first_item_is_told_and_ends_in_exit_code_2() {
    let server = Server::start(|_| Answer::stream(&status_line(1), "the peer lost its mind"));
    let folder = dir();
    let ran = ctl(&server, folder.path(), "status");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!(
        ran.out,
        format!("{CID} | n1:\nAn error occurred:\n  Code: 500\n  Message: the peer lost its mind\n")
    );
    let ran = ctl(&server, folder.path(), "--enc=json status");
    assert_eq!(ran.code, 2);
    assert!(
        ran.out.ends_with("{\n    \"code\": 500,\n    \"message\": \"the peer lost its mind\"\n}\n"),
        "{}",
        ran.out
    );
}

#[test]
fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    let folder = dir();
    for answer in [Answer::stream(&status_line(1), "").broken(), Answer::text(&status_line(1)).broken()] {
        let server = Server::start(move |_| answer.clone());
        let ran = ctl(&server, folder.path(), "status");
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.out.starts_with(&format!("{CID} | n1:\nAn error occurred:\n  Code: 0\n")), "{}", ran.out);
    }
}

#[test]
fn errors_of_the_api_are_printed_on_standard_output() {
    let unauthorized = json!({"code": 401, "message": "unauthorized: access denied"});
    let server = Server::start(move |asked| {
        if asked.header("authorization") == Some("Basic bWU6cHc6eA==") {
            Answer::json(&json!({"version": "1"}))
        } else {
            Answer::json(&unauthorized).status(401)
        }
    });
    let folder = dir();
    let ran = ctl(&server, folder.path(), "version");
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (2, "An error occurred:\n  Code: 401\n  Message: unauthorized: access denied\n")
    );
    let ran = ctl(&server, folder.path(), "--force-http --basic-auth nobody version");
    assert_eq!(ran.code, 2, "a user without a colon reaches the 401");
    let ran = ctl(&server, folder.path(), "--force-http --basic-auth me:pw:x version");
    assert_eq!((ran.code, ran.out.as_str()), (0, "1\n"));
    assert!(ran.err.contains("without encryption"), "{}", ran.err);
    let ran = ctl(&server, folder.path(), "--encoding json peers ls");
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (2, "{\n    \"code\": 401,\n    \"message\": \"unauthorized: access denied\"\n}\n")
    );
}

#[test]
fn the_next_address_is_tried_when_one_cannot_be_reached() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/version" => Answer::json(&json!({"version": "7"})),
        _ => Answer::stream(&status_line(1), ""),
    });
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        listener.local_addr().expect("address").port()
    };
    let folder = dir();
    for line in ["version", "status"] {
        let all = words(&format!("--host /ip4/127.0.0.1/tcp/{closed},{} {line}", server.multiaddr()));
        assert_eq!(run_as("ipfs-cluster-ctl", &all, folder.path(), "").code, 0, "{line}");
        let all = words(&format!("--host /ip4/127.0.0.1/tcp/{closed} {line}"));
        let ran = run_as("ipfs-cluster-ctl", &all, folder.path(), "");
        assert_eq!(ran.code, 1, "{line}");
        assert!(ran.out.contains("connection refused; is a peer running there?"), "{}", ran.out);
    }
}

#[test]
fn silence_ends_at_the_timeout_with_its_own_exit_code() {
    let server = Server::start(|_| Answer::silent());
    let folder = dir();
    for line in ["-t 1 version", "-t 1 status"] {
        let started = Instant::now();
        let ran = ctl(&server, folder.path(), line);
        assert_eq!(ran.code, 62, "{line}: {ran:?}");
        assert!(ran.out.contains("deadline exceeded"), "{}", ran.out);
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn nonsense_is_called_nonsense() {
    let folder = dir();
    for body in ["<html>hello</html>", "{\"cid\":1}\n", "[1]", "\u{1}"] {
        let server = Server::start(move |_| Answer::text(body));
        for line in ["id", "peers ls", "pin ls", "status", "health metrics ping", "ipfs gc", "health graph"] {
            let ran = ctl(&server, folder.path(), line);
            assert_eq!(ran.code, 1, "{line} {body}: {ran:?}");
            assert!(ran.out.contains("Code: 0"), "{line} {body}: {}", ran.out);
        }
    }
}

#[test]
fn nothing_but_trailers_and_no_content_are_empty_listings() {
    let folder = dir();
    for answer in [Answer::stream("", ""), Answer::text("").status(204)] {
        let server = Server::start(move |_| answer.clone());
        for line in ["status", "pin ls", "recover", "peers ls", "--enc json status"] {
            let ran = ctl(&server, folder.path(), line);
            assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{line}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_ends_a_listing_quietly() {
    let server = Server::start(|_| Answer::stream(&(0..50_000).map(status_line).collect::<String>(), ""));
    let folder = dir();
    let all = words(&format!("--host {} status", server.multiaddr()));
    let mut child = command("pinfold", &all, folder.path()).spawn().expect("start");
    let mut stdout = child.stdout.take().expect("stdout");
    let mut few = [0u8; 100];
    stdout.read_exact(&mut few).expect("some rows");
    drop(stdout);
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop((reader, writer));
    let mut err = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut err).expect("read");
    let status = child.wait().expect("wait");
    assert_eq!((status.code(), err.as_str()), (Some(141), ""));
}

#[test]
fn the_pin_is_shown_with_its_status_or_alone_and_waited_for() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = Server::start(move |request| {
        if request.method == "POST" {
            assert_eq!(request.path, format!("/pins/ipfs/{CID}/a%20b"));
            return Answer::json(
                &json!({"cid": CID, "type": "pin", "name": "n", "mode": "direct", "max_depth": 0,
                "replication_factor_min": 2, "replication_factor_max": 3, "allocations": ["b", "a"]}),
            );
        }
        let done = count.fetch_add(1, Ordering::SeqCst) >= 2;
        let on = |status: &str| {
            json!({"peername": status, "status": status, "timestamp": "2026-11-21T03:02:32Z",
            "error": "", "attempt_count": 0, "priority_pin": false})
        };
        let b = on(if done { "pinned" } else { "pinning" });
        Answer::json(&json!({"cid": CID, "name": "n", "allocations": [], "origins": [],
            "created": "2026-11-21T03:02:32Z", "metadata": null, "peer_map": {"a": on("pinned"), "b": b, "c": on("pinning")}}))
    });
    let folder = dir();
    let path = format!("{CID}/a b");
    let host = server.multiaddr();
    let run = |flags: &[&str]| {
        let all = [&["--host", host.as_str(), "pin", "add", path.as_str()], flags].concat();
        run_as("ipfs-cluster-ctl", &all.iter().map(|w| w.to_string()).collect::<Vec<_>>(), folder.path(), "")
    };
    let ran = run(&["--no-status"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.out,
        format!("{CID} | n | PIN-DIRECT | Repl. Factor: 2--3 | Allocations: [a b] | Direct | Metadata: no | Exp: ∞ | Added: unknown\n")
    );
    // Two of three are enough for this pin.
    let ran = run(&["--wait", "-r", "2", "--wait-timeout", "30s"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("PINNED") && asked.load(Ordering::SeqCst) >= 3, "{}", ran.out);
    let query = server.requests().iter().rfind(|r| r.method == "POST").expect("POST").query.clone();
    assert_eq!(query, "replication-min=2&replication-max=2");
    // Three of three are not, and the time ends.
    let ran = run(&["-w", "--wl", "3", "--wt", "1500ms"]);
    assert_eq!(ran.code, 62, "{ran:?}");
    assert!(ran.out.contains("is pinned on 2 of 3 peers after 1.5s"), "{}", ran.out);
}

#[test]
fn waiting_ends_when_a_peer_is_in_error() {
    let server = Server::start(|request| match request.method.as_str() {
        "DELETE" => Answer::json(&json!({"cid": CID, "type": "pin"})),
        _ => Answer::json(&json!({"cid": CID, "name": "", "allocations": null, "origins": [],
            "created": "2026-11-21T03:02:32Z", "metadata": null, "peer_map": {"a": {"peername": "p0",
            "status": "unpin_error", "timestamp": "2026-11-21T03:02:32Z", "error": "no disk", "attempt_count": 0,
            "priority_pin": false}}})),
    });
    let folder = dir();
    let ran = ctl(&server, folder.path(), &format!("pin rm --wait {CID}"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(
        ran.err,
        "error waiting for pin status: error has occurred while attempting to reach status: unpinned \
         (p0: unpin_error: no disk)\n"
    );
}

#[test]
fn a_folder_is_uploaded_in_the_order_of_its_names() {
    let server = Server::start(|_| Answer::stream("{\"name\":\"x\",\"cid\":\"QmX\",\"size\":3}\n", ""));
    let folder = dir();
    let root = folder.path().join("holiday");
    std::fs::create_dir_all(root.join("sub/empty")).expect("folders");
    for (name, content) in [("b.txt", "b"), ("a ü.txt", "a"), (".hidden", "h"), ("sub/c", "c")] {
        std::fs::write(root.join(name), content).expect("file");
    }
    std::os::unix::fs::symlink("b.txt", root.join("link")).expect("link");
    let parts = |line: &str| {
        let ran = pinfold(&server, folder.path(), line);
        assert_eq!((ran.code, ran.out.as_str()), (0, "added QmX x\n"), "{ran:?}");
        let request = server.requests().pop().expect("request");
        let body = String::from_utf8(request.body.clone()).expect("UTF-8");
        let boundary = request
            .header("content-type")
            .and_then(|t| t.split("boundary=").nth(1))
            .expect("boundary")
            .to_string();
        assert!(body.ends_with(&format!("\r\n--{boundary}--\r\n")));
        let parts: Vec<String> = body
            .split(&format!("--{boundary}\r\n"))
            .skip(1)
            .map(|part| {
                let (head, content) = part.split_once("\r\n\r\n").expect("head");
                let name = head.split("filename=\"").nth(1).and_then(|n| n.split('"').next()).expect("name");
                let kind = head.split("Content-Type: ").nth(1).expect("type");
                format!("{name} {kind} {}", content.split("\r\n").next().unwrap_or_default())
            })
            .collect();
        (parts, request.query)
    };
    let file = "application/octet-stream";
    let (all, query) = parts("add holiday/ --name h --metadata a=b --rmin 1");
    assert_eq!(
        all,
        [
            "holiday application/x-directory ".to_string(),
            format!("holiday%2Fa%20%C3%BC.txt {file} a"),
            format!("holiday%2Fb.txt {file} b"),
            "holiday%2Flink application/symlink b.txt".into(),
            "holiday%2Fsub application/x-directory ".into(),
            format!("holiday%2Fsub%2Fc {file} c"),
            "holiday%2Fsub%2Fempty application/x-directory ".into(),
        ]
    );
    assert!(query.starts_with("name=h&replication-min=1&meta-a=b&"), "{query}");
    let (all, query) = parts("add -H holiday/.hidden holiday/sub");
    assert_eq!(all[0], format!(".hidden {file} h"));
    assert!(query.contains("wrap-with-directory=true") && query.contains("hidden=true"), "{query}");
    let (all, _) = parts("add -H holiday");
    assert_eq!(all[1], format!("holiday%2F.hidden {file} h"));

    let ran = ctl(&server, folder.path(), "add holiday");
    assert_eq!(ran.code, 1, "ctl wants -r: {ran:?}");
    assert!(ran.err.contains("it is a folder; -r adds"), "{}", ran.err);
    std::os::unix::net::UnixListener::bind(root.join("zsocket")).expect("socket");
    let ran = pinfold(&server, folder.path(), "add holiday");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("zsocket: neither a file nor a folder"), "{}", ran.out);
}

#[test]
fn results_are_read_while_the_upload_goes_on() {
    // As many results as fit in no socket buffer, sent while the client still uploads: a client that only
    // reads when it has sent everything stands still for ever.
    let server = Server::raw(|asked, mut reader, mut stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Stream-Error\r\n\r\n")?;
        let line = format!("{{\"name\":\"{}\",\"cid\":\"QmX\"}}\n", "x".repeat(32 << 10));
        while read_chunk(&mut reader)?.is_some() {
            for _ in 0..8 {
                write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
            }
        }
        write!(stream, "0\r\nX-Stream-Error: \r\n\r\n")?;
        Ok(asked)
    });
    let folder = dir();
    std::fs::write(folder.path().join("big"), vec![7u8; 16 << 20]).expect("file");
    let ran = pinfold(&server, folder.path(), "add -q big");
    assert_eq!(ran.code, 0, "{} {}", ran.out.len(), ran.err);
    assert!(ran.out.lines().count() >= 8 * 128, "{}", ran.out.lines().count());
}

#[test]
fn an_early_refusal_of_an_upload_is_understood() {
    let server = Server::raw(|asked, _, mut stream| {
        Answer::json(&json!({"code": 401, "message": "unauthorized: no auth provided"}))
            .status(401)
            .write(&mut stream)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        // What is left unread makes the system reset the connection, some time after the answer.
        std::thread::sleep(Duration::from_millis(300));
        Ok(asked)
    });
    let folder = dir();
    std::fs::write(folder.path().join("big"), vec![7u8; 32 << 20]).expect("file");
    let ran = pinfold(&server, folder.path(), "add big");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.out.contains("Code: 401"), "{}", ran.out);
}

#[test]
fn an_upload_that_fails_at_its_end_exits_with_2_after_the_results() {
    let server = Server::start(|_| Answer::stream("{\"name\":\"f\",\"cid\":\"QmX\"}\n", "disk is full"));
    let folder = dir();
    std::fs::write(folder.path().join("f"), "x").expect("file");
    let ran = ctl(&server, folder.path(), "add f");
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (2, "added QmX f\nAn error occurred:\n  Code: 500\n  Message: disk is full\n")
    );
}

#[test]
fn urls_are_fetched_and_added_under_their_last_part() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/files/photo.jpg" => Answer::text("a photo"),
        "/files/gone" => Answer::text("no").status(404),
        _ => Answer::stream("{\"name\":\"photo.jpg\",\"cid\":\"QmX\"}\n", ""),
    });
    let folder = dir();
    let ran =
        ctl(&server, folder.path(), &format!("add http://127.0.0.1:{}/files/photo.jpg?x=1", server.port));
    assert_eq!((ran.code, ran.out.as_str()), (0, "added QmX photo.jpg\n"), "{ran:?}");
    let upload = server.requests().into_iter().find(|r| r.path == "/add").expect("upload");
    let body = String::from_utf8_lossy(&upload.body).into_owned();
    assert!(body.contains("filename=\"photo.jpg\"") && body.contains("\r\n\r\na photo\r\n"), "{body}");
    let ran = ctl(&server, folder.path(), &format!("add http://127.0.0.1:{}/files/gone", server.port));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("the server answers 404"), "{}", ran.out);
}

fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(if name.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        builder.append_data(&mut header, name, content.as_bytes()).expect("entry");
    }
    builder.into_inner().expect("tar")
}

#[test]
fn a_download_is_whole_or_not_there() {
    let tar = tar_of(&[("holiday/", ""), ("holiday/a.txt", "hello"), ("holiday/sub/b", "b")]);
    let good = tar.clone();
    let server = Server::start(move |asked| {
        assert_eq!(asked.query, "format=tar");
        let mut answer = Answer::bytes(good.clone());
        answer.trailer = Some(String::new());
        answer
    });
    let folder = dir();
    let ran = pinfold(&server, folder.path(), &format!("get {CID}/holiday"));
    assert_eq!((ran.code, ran.out.as_str()), (0, "Saved holiday (2 files, 6 B)\n"), "{ran:?}");
    assert_eq!(std::fs::read(folder.path().join("holiday/a.txt")).expect("file"), b"hello");
    let ran = pinfold(&server, folder.path(), &format!("get {CID}/holiday"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("it exists already"), "{}", ran.err);
    std::fs::write(folder.path().join("holiday/more"), "x").expect("file");
    let ran = pinfold(&server, folder.path(), &format!("get --force -o holiday {CID}"));
    // -o names a folder that is there: the download goes into it.
    assert_eq!(ran.out, format!("Saved holiday/{CID} (2 files, 6 B)\n"), "{ran:?}");

    let broken = [
        Answer::bytes(tar.clone()).broken(),
        Answer { trailer: Some("lost a block".into()), ..Answer::bytes(tar.clone()) },
        Answer::bytes(tar[..tar.len() / 2].to_vec()),
        Answer::bytes(tar_of(&[])),
        Answer::json(&json!({"code": 404, "message": "nobody has it"})).status(404),
    ];
    for (n, answer) in broken.into_iter().enumerate() {
        let server = Server::start(move |_| answer.clone());
        let ran = pinfold(&server, folder.path(), &format!("get -o out{n} {CID}"));
        assert_ne!(ran.code, 0, "{n}: {ran:?}");
        let left: Vec<_> = std::fs::read_dir(folder.path())
            .expect("folder")
            .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.contains("out") || name.contains("part"))
            .collect();
        assert!(left.is_empty(), "{n}: {left:?}");
    }
}

#[test]
fn content_goes_to_standard_output_and_folders_are_listed() {
    let server = Server::start(|asked| match (asked.path.ends_with("/f"), asked.query.as_str()) {
        (true, "") => Answer { trailer: Some(String::new()), ..Answer::bytes(vec![0, 159, 146, 150]) },
        (false, "format=json") => Answer::stream(
            "{\"cid\":\"QmD\",\"size\":0,\"kind\":\"directory\",\"entries\":[\n\
             {\"name\":\"a\",\"cid\":\"QmA\",\"size\":5,\"kind\":\"file\"},\n\
             {\"name\":\"d\",\"cid\":\"QmD\",\"size\":0,\"kind\":\"directory\"},\n\
             {\"name\":\"l\",\"cid\":\"QmL\",\"size\":1,\"kind\":\"symlink\",\"target\":\"a\"}]}\n",
            "",
        ),
        (true, "format=json") => Answer::text("{\"name\":\"\",\"cid\":\"QmA\",\"size\":5,\"kind\":\"file\"}"),
        _ => Answer::json(&json!({"code": 400, "message": "it is a folder"})).status(400),
    });
    let folder = dir();
    let all = words(&format!("--host {} cat /ipfs/{CID}/f", server.multiaddr()));
    let child = command("pinfold", &all, folder.path()).output().expect("run");
    assert_eq!(child.stdout, [0, 159, 146, 150]);
    let ran = pinfold(&server, folder.path(), &format!("ls {CID}"));
    assert_eq!(ran.out, "QmA 5 a\nQmD - d/\nQmL 1 l -> a\n", "{ran:?}");
    let ran = pinfold(&server, folder.path(), &format!("ls {CID}/f"));
    assert_eq!(ran.out, "QmA 5 f\n", "{ran:?}");
    let ran = pinfold(&server, folder.path(), &format!("cat {CID}"));
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (2, "An error occurred:\n  Code: 400\n  Message: it is a folder\n")
    );
}

#[test]
fn a_folder_tells_where_its_api_is_and_how_to_log_in() {
    let server = Server::start(|asked| {
        assert_eq!(asked.header("authorization"), Some("Basic bWU6cHc="));
        Answer::json(
            &json!({"id": "x", "addresses": [], "cluster_peers": ["x"], "cluster_peers_addresses": null,
            "version": "1", "commit": "", "rpc_protocol_version": "", "error": "", "ipfs": null, "peername": "n"}),
        )
    });
    let folder = dir();
    let config = json!({"api": {"restapi": {
        "http_listen_multiaddress": format!("/ip4/0.0.0.0/tcp/{}", server.port),
        "basic_auth_credentials": {"me": "pw"}}}});
    let peer = folder.path().join("peer");
    std::fs::create_dir(&peer).expect("folder");
    std::fs::write(peer.join("service.json"), config.to_string()).expect("config");
    for (name, line) in [
        ("pinfold", "-c peer id"),
        ("pinfold", "id --config=peer"),
        ("ipfs-cluster-ctl", "-c peer id"),
        ("ipfs-cluster-ctl", "id -c peer"),
    ] {
        let ran = run_as(name, &words(line), folder.path(), "");
        assert_eq!(ran.code, 0, "{name} {line}: {ran:?}");
        assert!(ran.out.starts_with("x | n | Sees 0 other peers\n"), "{}", ran.out);
    }
    // pinfold's own folder is found without being named; ipfs-cluster-ctl never looked for one.
    std::fs::rename(&peer, folder.path().join(".pinfold")).expect("rename");
    assert_eq!(run_as("pinfold", &words("id"), folder.path(), "").code, 0);
    let ran = run_as("pinfold", &words("-c nosuch id"), folder.path(), "");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("nosuch/service.json"), "{}", ran.err);
}

#[test]
fn mistakes_have_the_exit_codes_of_their_program() {
    let folder = dir();
    let run = |name: &str, line: &str| run_as(name, &words(line), folder.path(), "");
    for (name, line, code) in [
        ("pinfold", "status --fliter x", 2),
        ("pinfold", "nosuch", 3),
        ("pinfold", "id extra", 2),
        ("pinfold", "pin add -r x y", 2),
        ("pinfold", "--enc xml id", 1),
        ("pinfold", "", 0),
        ("pinfold", "--help", 0),
        ("pinfold", "version", 0),
        ("ipfs-cluster-ctl", "status --fliter x", 1),
        ("ipfs-cluster-ctl", "nosuch", 3),
        ("ipfs-cluster-ctl", "pin nosuch", 3),
        ("ipfs-cluster-ctl", "", 0),
        ("ipfs-cluster-ctl", "--version", 0),
        ("ipfs-cluster-service", "", 1),
        ("ipfs-cluster-service", "nosuch", 1),
        ("ipfs-cluster-service", "daemon --nosuch", 1),
        ("ipfs-cluster-service", "--help", 0),
        ("pinfold", "join nonsense", 2),
        ("pinfold", "-l nosuch daemon", 2),
    ] {
        let ran = run(name, line);
        assert_eq!(ran.code, code, "{name} {line}: {ran:?}");
        assert_eq!(
            ran.out.is_empty(),
            code != 0 && name != "ipfs-cluster-service" || line.contains("--nosuch"),
            "{name} {line}: {ran:?}"
        );
    }
    assert!(run("pinfold", "status --fliter x").err.contains("did you mean --filter?"));
    assert!(run("pinfold", "pin addd").err.contains("Did you mean `pinfold pin add`?"));
    assert_eq!(run("ipfs-cluster-ctl", "nosuch").err, "No help topic for 'nosuch'\n");
}

#[test]
fn text_of_strangers_cannot_move_the_cursor() {
    let evil = "evil\u{1b}[2Jname\nsecond line";
    let server = Server::start(move |_| {
        Answer::stream(
            &(json!({"cid": CID, "name": evil, "allocations": [], "origins": [], "created": "2026-11-21T03:02:32Z",
                "metadata": null, "peer_map": {}})
            .to_string()
                + "\n"),
            "",
        )
    });
    let folder = dir();
    let ran = ctl(&server, folder.path(), "status");
    assert_eq!(ran.out, format!("{CID} | evil\\u{{1b}}[2Jname\\nsecond line:\n"));
}

#[test]
fn the_api_is_reached_over_a_unix_socket() {
    let folder = dir();
    let socket = folder.path().join("api.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("socket");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut head = [0u8; 4096];
            let n = stream.read(&mut head).unwrap_or(0);
            let answer = if head[..n].starts_with(b"GET /version ") {
                Answer::json(&json!({"version": "unix"}))
            } else {
                Answer::stream(&status_line(1), "")
            };
            // The client may be gone.
            let _ = answer.write(&mut stream);
        }
    });
    for (line, out) in [("version", "unix\n".to_string()), ("status", format!("{CID} | n1:\n"))] {
        let all = words(&format!("--host /unix{} {line}", socket.display()));
        let ran = run_as("ipfs-cluster-ctl", &all, folder.path(), "");
        assert_eq!((ran.code, ran.out), (0, out), "{line}");
    }
}

#[test]
fn uploads_are_read_to_their_end_by_the_helper_of_these_tests() {
    // The helper itself: a chunked body arrives whole.
    let mut asked = cli_support::http::Asked {
        headers: vec![("Transfer-Encoding".into(), "chunked".into())],
        ..Default::default()
    };
    read_body(&mut asked, &mut &b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"[..]).expect("body");
    assert_eq!(asked.body, b"abcd");
    let folder = dir();
    let child = command("pinfold", &words("version"), folder.path()).spawn().expect("start");
    assert_eq!(finish(child).out, format!("{}\n", env!("CARGO_PKG_VERSION")));
}

/// A throw-away certificate for localhost, and its key.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBmzCCAUGgAwIBAgIUc6LIcW2czubml6sOkirjP6CVsf0wCgYIKoZIzj0EAwIw\n\
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTA2MzkxOVoYDzIxMjYxMDI4\n\
MDYzOTE5WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO\n\
PQMBBwNCAARCXja0Y0f/cGEFlmvdJ2rm1+tQie3BqEIOUfd8E3OmtCKg2+KfFT5L\n\
DmdQe2g8VyD0eiIBlrbkYepz+U8NKyXZo28wbTAdBgNVHQ4EFgQU2xPhCuvpVcG6\n\
stwZh8ODyX1CokgwHwYDVR0jBBgwFoAU2xPhCuvpVcG6stwZh8ODyX1CokgwDwYD\n\
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI\n\
zj0EAwIDSAAwRQIhAPNluqJrwovRgK5cwrqTHS5P2ybLey/LrPRzuXA5keegAiB2\n\
iDQbRDmfWg5S4K5jvDD4gu4hA9+dsjs0HET4JrETew==\n\
-----END CERTIFICATE-----\n\
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvs0Cog/U3z/7dcTx\n\
RqIkBM5mZxZIsz5KdfPPt5Ey0ruhRANCAARCXja0Y0f/cGEFlmvdJ2rm1+tQie3B\n\
qEIOUfd8E3OmtCKg2+KfFT5LDmdQe2g8VyD0eiIBlrbkYepz+U8NKyXZ\n\
-----END PRIVATE KEY-----\n\
";

#[test]
fn https_is_verified_unless_told_otherwise() {
    use futures_rustls::rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
    use futures_rustls::rustls::{crypto::ring, ServerConfig, ServerConnection, StreamOwned};
    use std::io::{BufRead, BufReader};
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("certificate")],
            PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("key"),
        )
        .expect("configuration");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("connection");
            let mut tls = BufReader::new(StreamOwned::new(connection, tcp));
            let (mut first, mut line) = (String::new(), String::new());
            // A client that refuses the certificate ends the connection here.
            if tls.read_line(&mut first).is_err() {
                continue;
            }
            while tls.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let answer = if first.starts_with("GET /version ") {
                Answer::json(&json!({"version": "tls"}))
            } else {
                Answer::stream(&status_line(1), "")
            };
            let _ = answer.write(tls.get_mut());
            tls.get_mut().conn.send_close_notify();
            let _ = tls.get_mut().flush();
        }
    });
    let folder = dir();
    for (line, out) in [("version", "tls\n".to_string()), ("status", format!("{CID} | n1:\n"))] {
        for host in
            [format!("/ip4/127.0.0.1/tcp/{port} --https"), format!("/dns4/localhost/tcp/{port}/https")]
        {
            let all = words(&format!("--host {host} --no-check-certificate {line}"));
            let ran = run_as("ipfs-cluster-ctl", &all, folder.path(), "");
            assert_eq!((ran.code, &ran.out), (0, &out), "{host} {line}: {ran:?}");
            let ran = run_as("ipfs-cluster-ctl", &words(&format!("--host {host} {line}")), folder.path(), "");
            assert_eq!(ran.code, 1, "{host} {line}: {ran:?}");
            assert!(ran.out.contains("--no-check-certificate"), "{}", ran.out);
        }
    }
}
