//! The IPFS proxy in front of real Kubo daemons, asked by the real `ipfs` command; and what clients, daemons and web
//! pages do to it on bad days.

#[allow(dead_code)]
#[path = "support/http.rs"]
mod http;
#[path = "support/kubo.rs"]
mod kubo_daemon;
#[path = "support/proxied.rs"]
mod proxied;
mod support;

use kubo_daemon::KuboDaemon;
use proxied::{ipfs, ipfs_fails, ipfs_fed, ipfs_ok, proxy_of, Proxied};
use serde_json::{json, Value};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::cluster::{cid_of, Peer, PATIENCE};
use support::wait_for;

/// The last word of a line.
fn last(text: &str) -> String {
    text.split_whitespace().last().expect("a word").to_string()
}

/// A folder with a small file and one of several blocks.
fn holiday(fold: &Proxied) -> PathBuf {
    let dir = fold.cluster.folder.path().join("holiday");
    std::fs::create_dir_all(dir.join("beach")).expect("folder");
    std::fs::write(dir.join("readme.txt"), "hello world\n").expect("file");
    let photo: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
    std::fs::write(dir.join("beach/photo.raw"), photo).expect("file");
    dir
}

fn post(to: SocketAddr, path: &str) -> http::Answer {
    http::send(to, "POST", &format!("/api/v0/{path}"), &[], Some(b"")).expect("an answer")
}

/// Open descriptors of a process.
fn descriptors(peer: &Peer) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", peer.pid())).expect("descriptors").count()
}

/// A line of /proc/…/status, kB.
fn memory(peer: &Peer, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", peer.pid())).expect("status");
    let value = status.lines().find_map(|l| l.strip_prefix(line)).expect("the line");
    value.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn the_ipfs_command_works_through_the_proxy() {
    let Some(fold) = Proxied::of(2) else { return };
    let (peer, kubos) = (fold.peer(0), &fold.kubos);
    let dir = holiday(&fold);
    let file = dir.join("readme.txt");
    let (dir, file) = (dir.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));

    // Added through the proxy is added to the cluster: pinned on both peers, with Kubo's own CIDs.
    let added = ipfs_ok(peer, &["add", "-Q", file]).trim().to_string();
    assert_eq!(added, kubos[1].ok(&["add", "-Q", "--only-hash", file]));
    peer.wait_status(&added, "pinned", 2);
    assert!(kubos.iter().all(|k| k.has_pinned(&added, "recursive")));
    let folder = ipfs_ok(peer, &["add", "-r", "-Q", "--progress", dir]).trim().to_string();
    assert_eq!(folder, kubos[1].ok(&["add", "-r", "-Q", "--only-hash", dir]));
    let wrapped = ipfs_ok(peer, &["add", "-w", "-Q", "--cid-version=1", file]).trim().to_string();
    assert_eq!(wrapped, kubos[1].ok(&["add", "-w", "-Q", "--only-hash", "--cid-version=1", file]));
    let listed = ipfs_ok(peer, &["add", "-r", dir]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 4, "{listed}");
    assert_eq!(lines[3], format!("added {folder} holiday"));
    let fed = ipfs_fed(peer, &["add", "-q"], b"from standard input");
    peer.wait_status(fed.trim(), "pinned", 2);
    // What asks for no pin gets none.
    let unpinned = ipfs_fed(peer, &["add", "-q", "--pin=false"], b"not pinned");
    let hashed = ipfs_fed(peer, &["add", "-q", "-n"], b"only hashed");
    let before = peer.pinned_cids();
    assert!(![unpinned.trim(), hashed.trim()].iter().any(|c| before.contains(&(*c).to_string())));
    assert_eq!(ipfs_ok(peer, &["cat", unpinned.trim()]), "not pinned");
    for refused in ["--to-files=/", "--nocopy", "--trickle", "--inline"] {
        let words = ipfs_fails(peer, &["add", refused, file]);
        assert!(words.contains("add without it"), "{refused}: {words}");
    }

    // Reading is Kubo's.
    assert_eq!(ipfs_ok(peer, &["cat", &format!("{folder}/readme.txt")]), "hello world\n");
    assert!(ipfs_ok(peer, &["ls", &folder]).contains("beach/"));
    let out = fold.cluster.folder.path().join("out");
    ipfs_ok(peer, &["get", "-o", out.to_str().expect("UTF-8"), &folder]);
    let (photo, copy) =
        (std::fs::read(format!("{dir}/beach/photo.raw")), std::fs::read(out.join("beach/photo.raw")));
    assert!(photo.expect("photo") == copy.expect("copy"), "the photo came back");

    // Pins.
    let listed = ipfs_ok(peer, &["pin", "ls", "--stream"]);
    assert_eq!(listed.lines().count(), before.len(), "{listed}");
    assert_eq!(ipfs_ok(peer, &["pin", "ls", "-q", "--type=direct"]), "");
    assert_eq!(last(&ipfs_ok(peer, &["pin", "ls", &format!("/ipfs/{folder}/readme.txt")])), "recursive");
    let beach = last(&ipfs_ok(peer, &["resolve", &format!("/ipfs/{folder}/beach")]));
    let beach = beach.trim_start_matches("/ipfs/");
    assert!(ipfs_fails(peer, &["pin", "ls", beach]).contains("is not pinned"));
    let pinned =
        ipfs_ok(peer, &["pin", "add", "--progress", "--name=sand", &format!("/ipfs/{folder}/beach")]);
    assert_eq!(pinned, format!("pinned {beach} recursively\n"));
    assert!(
        kubos.iter().all(|k| k.has_pinned(beach, "recursive")),
        "with progress it is there when it says so"
    );
    assert!(ipfs_ok(peer, &["pin", "ls", "--names", beach]).contains("sand"));
    ipfs_ok(peer, &["pin", "add", beach]);
    assert!(
        ipfs_ok(peer, &["pin", "ls", "--names", beach]).contains("sand"),
        "pinning again forgets nothing"
    );
    assert!(
        ipfs_fails(peer, &["pin", "add", "--recursive=false", beach]).contains("already pinned recursively")
    );
    ipfs_ok(peer, &["pin", "add", "--recursive=false", unpinned.trim()]);
    assert_eq!(last(&ipfs_ok(peer, &["pin", "ls", "--type=direct"])), "direct");
    peer.wait_status(unpinned.trim(), "pinned", 2);
    assert!(kubos[0].has_pinned(unpinned.trim(), "direct"));
    ipfs_ok(peer, &["pin", "update", &folder, &wrapped]);
    let now = peer.pinned_cids();
    assert!(now.contains(&wrapped) && !now.contains(&folder), "{now:?}");
    ipfs_ok(peer, &["pin", "update", "--unpin=false", &wrapped, &folder]);
    ipfs_ok(peer, &["pin", "update", &folder, &folder]);
    assert!(peer.pinned_cids().contains(&folder) && peer.pinned_cids().contains(&wrapped));
    ipfs_ok(peer, &["pin", "rm", beach, &wrapped]);
    assert!(ipfs_fails(peer, &["pin", "rm", beach]).contains("pin is not part of the pinset"));

    // Nodes and blocks; the ones that say so are pinned.
    let node = ipfs_fed(peer, &["dag", "put", "--pin"], b"{\"a\":[1,2]}").trim().to_string();
    assert_eq!(ipfs_ok(peer, &["dag", "get", &node]).trim(), "{\"a\":[1,2]}");
    let block = last(&ipfs_fed(peer, &["block", "put", "--pin"], b"a block"));
    let loose = last(&ipfs_fed(peer, &["block", "put"], b"a loose block"));
    for cid in [&node, &block] {
        peer.wait_status(cid, "pinned", 2);
    }
    assert!(!peer.pinned_cids().contains(&loose));
    assert_eq!(ipfs_ok(peer, &["block", "get", &loose]), "a loose block");
    assert!(ipfs_ok(peer, &["block", "stat", &block]).contains("Size: 7"));

    // The daemons as one.
    let sizes: u64 = kubos
        .iter()
        .map(|k| {
            last(k.ok(&["repo", "stat", "--size-only"]).lines().next().expect("RepoSize"))
                .parse::<u64>()
                .expect("a size")
        })
        .sum();
    let told = ipfs_ok(peer, &["repo", "stat", "--size-only"]);
    let told: u64 = last(told.lines().next().expect("RepoSize")).parse().expect("a size");
    assert!(told.abs_diff(sizes) < sizes / 2, "{told} is not about {sizes}");
    assert_eq!(ipfs_ok(peer, &["id", "-f", "<id>"]), kubos[0].id());
    assert_eq!(ipfs_ok(peer, &["version"]), kubos[0].ok(&["version"]) + "\n");
    wait_for("connected daemons", PATIENCE, || {
        let peers = ipfs_ok(peer, &["swarm", "peers"]);
        if peers.contains(&kubos[1].id()) {
            Ok(())
        } else {
            Err(peers)
        }
    });
    assert!(ipfs_ok(peer, &["repo", "gc", "-q"]).contains(&loose), "what nothing pins goes");
    assert_eq!(ipfs_ok(peer, &["cat", &added]), "hello world\n");
}

#[test]
fn errors_travel_with_their_text() {
    let Some(fold) = Proxied::with(1, |_, config| {
        config["ipfs_connector"]["ipfshttp"]["pin_timeout"] = "2s".into();
    }) else {
        return;
    };
    let peer = fold.peer(0);
    // Nobody has it: with progress the client learns that, and why.
    let nobodys = cid_of(4711);
    let words = ipfs_fails(peer, &["pin", "add", "--progress", &nobodys]);
    assert!(words.contains("p0: ") && words.contains("no progress"), "{words}");
    assert!(ipfs_fails(peer, &["cat", "/ipfs/nosuch"]).contains("invalid path"));
    assert!(ipfs_fails(peer, &["pin", "add", "nosuch"]).contains("path does not have enough components"));
    // A cluster above sees what is kept, programs see what is decided.
    let proxy = peer.proxy();
    assert!(post(proxy, "pin/ls").text().contains(&nobodys));
    let above = [("X-Pinfold-Composite".to_string(), "1".to_string())];
    let seen = http::send(proxy, "POST", "/api/v0/pin/ls?stream=true", &above, Some(b"")).expect("an answer");
    assert!(!seen.text().contains(&nobodys), "{}", seen.text());
    let path = format!("/api/v0/pin/ls?arg={nobodys}&stream=true");
    let seen = http::send(proxy, "POST", &path, &above, Some(b"")).expect("an answer");
    assert!(seen.status == 500 && seen.text().contains("is not pinned"), "{seen:?}");
}

#[test]
fn a_daemon_that_is_down_is_said_and_the_proxy_lives() {
    let Some(mut fold) = Proxied::of(1) else { return };
    let cid = ipfs_fed(fold.peer(0), &["add", "-q"], b"before").trim().to_string();
    fold.kubos[0].kill();
    let (peer, proxy) = (fold.peer(0), fold.peer(0).proxy());
    for path in ["id", "version", "cat?arg=x"] {
        let answer = post(proxy, path);
        assert_eq!(answer.status, 502, "{}", answer.text());
        let error: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let words = error["Message"].as_str().expect("a message");
        assert!(words.contains("does not answer") && words.contains("is it running?"), "{words}");
    }
    // Scripts ask this to know that we are up: any answer will do, silence would not.
    let ready = http::send(proxy, "GET", "/api/v0/version", &[], None).expect("an answer");
    assert_eq!(ready.status, 502);
    // What the cluster knows, it says.
    let listed = post(proxy, "pin/ls");
    assert!(listed.status == 200 && listed.text().contains(&cid), "{}", listed.text());
    // But not to a page whose rights nobody knows now.
    let page = [("Origin".to_string(), "http://127.0.0.1:9095".to_string())];
    assert_eq!(http::send(proxy, "POST", "/api/v0/pin/ls", &page, Some(b"")).expect("answer").status, 403);
    let words = ipfs_fails(peer, &["id"]);
    assert!(words.contains("is it running?"), "{words}");
    fold.kubos[0].run();
    assert_eq!(ipfs_ok(fold.peer(0), &["cat", &cid]), "before");
}

#[test]
fn a_daemon_that_dies_in_the_middle_cuts_the_answer() {
    let Some(mut fold) = Proxied::of(1) else { return };
    let proxy = fold.peer(0).proxy();
    let content = vec![7u8; 64 << 20];
    let cid = fold.kubos[0].add(&content, &["--pin=false"]);
    let mut stream = TcpStream::connect(proxy).expect("connected");
    write!(stream, "POST /api/v0/cat?arg={cid} HTTP/1.1\r\nHost: x\r\n\r\n").expect("asked");
    let mut some = [0; 1 << 16];
    stream.read_exact(&mut some).expect("the beginning");
    fold.kubos[0].kill();
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "half a file must not end like a whole one");
    assert_eq!(post(proxy, "pin/ls").status, 200);
}

#[test]
fn a_client_that_goes_away_leaves_no_pin_and_no_leak() {
    let Some(fold) = Proxied::of(1) else { return };
    let (peer, proxy) = (fold.peer(0), fold.peer(0).proxy());
    let big = fold.kubos[0].add(&vec![1u8; 32 << 20], &["--pin=false"]);
    ipfs_fed(peer, &["add", "-q"], b"so that everything is warm");
    let (pins, before) = (peer.pinned_cids(), descriptors(peer));
    let boundary = "x-test-boundary";
    let part = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    // Uploads to the cluster and to the daemon, cut at different moments; downloads that nobody reads.
    for round in 0..4usize {
        for call in ["add", "add?progress=true", "block/put", "block/put?pin=true", "dag/import"] {
            let mut stream = TcpStream::connect(proxy).expect("connected");
            write!(
                stream,
                "POST /api/v0/{call} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\
                 Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n{part}"
            )
            .expect("sent");
            let _ = stream.write_all(&vec![round as u8; round * 300_000]);
        }
        let mut stream = TcpStream::connect(proxy).expect("connected");
        write!(stream, "POST /api/v0/cat?arg={big} HTTP/1.1\r\nHost: x\r\n\r\n").expect("asked");
        let mut some = [0; 4096];
        stream.read_exact(&mut some).expect("the beginning");
    }
    wait_for("no descriptor that stays", PATIENCE, || {
        let now = descriptors(peer);
        // A few idle connections to the daemon are kept.
        if now <= before + 4 {
            Ok(())
        } else {
            Err(format!("{now}, before {before}"))
        }
    });
    assert_eq!(peer.pinned_cids(), pins);
    assert_eq!(post(proxy, "version").status, 200);
}

#[test]
fn a_large_file_goes_through_at_constant_memory() {
    const SIZE: u64 = 256 << 20;
    let Some(fold) = Proxied::of(1) else { return };
    let peer = fold.peer(0);
    ipfs_fed(peer, &["add", "-q"], b"so that everything is warm");
    let before = memory(peer, "VmRSS");
    let mut child = ipfs(peer, &["add", "-q", "--pin=false", "--chunker=size-1048576", "--raw-leaves"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the ipfs executable starts");
    let mut input = child.stdin.take().expect("piped");
    let mut random = 1u64;
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..SIZE >> 20 {
        // Blocks that differ: equal ones would be stored once.
        for word in block.chunks_exact_mut(8) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&random.to_le_bytes());
        }
        input.write_all(&block).expect("fed");
    }
    drop(input);
    let output = child.wait_with_output().expect("output");
    assert!(output.status.success());
    let cid = last(&String::from_utf8_lossy(&output.stdout));
    // And back, to a reader that is in no hurry at first.
    let mut stream = TcpStream::connect(peer.proxy()).expect("connected");
    write!(stream, "POST /api/v0/cat?arg={cid} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("asked");
    std::thread::sleep(Duration::from_millis(500));
    let (mut got, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match stream.read(&mut buffer).expect("content") {
            0 => break,
            n => got += n as u64,
        }
    }
    assert!(got > SIZE, "{got} bytes came back");
    let grown = memory(peer, "VmHWM").saturating_sub(before) >> 10;
    assert!(grown < 80, "{grown} MiB more for {} MiB", SIZE >> 20);
}

#[test]
fn a_page_of_the_web_cannot_command_it() {
    let Some(fold) = Proxied::of(1) else { return };
    let (peer, proxy) = (fold.peer(0), fold.peer(0).proxy());
    let cid = ipfs_fed(peer, &["add", "-q"], b"mine").trim().to_string();
    let ask = |method: &str, path: &str, name: &str, value: &str| {
        let headers = [(name.to_string(), value.to_string())];
        http::send(proxy, method, &format!("/api/v0/{path}"), &headers, Some(b"")).expect("an answer")
    };
    for (method, name, value) in [
        ("POST", "Origin", "http://evil.example"),
        ("POST", "Origin", "null"),
        ("GET", "Referer", "http://evil.example/page"),
        ("GET", "Sec-Fetch-Site", "cross-site"),
        ("GET", "User-Agent", "Mozilla/5.0"),
    ] {
        let answer = ask(method, &format!("pin/rm?arg={cid}"), name, value);
        assert_eq!((answer.status, answer.text()), (403, "403 - Forbidden\n".into()), "{name}: {value}");
    }
    assert!(peer.pinned_cids().contains(&cid));
    // A page that the daemon lets in is let in, with the daemon's own headers.
    let api = fold.kubos[0].api.to_string();
    let port = api.rsplit('/').next().expect("port");
    let own = format!("http://127.0.0.1:{port}");
    let answer = ask("POST", "pin/ls", "Origin", &own);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(own));
}

#[test]
fn its_limits_are_those_of_the_config() {
    let Some(fold) = Proxied::with(1, |_, config| {
        let proxy = &mut config["api"]["ipfsproxy"];
        proxy["read_header_timeout"] = "1s".into();
        proxy["read_timeout"] = "1s".into();
        proxy["idle_timeout"] = "1s".into();
        proxy["write_timeout"] = "1s".into();
        proxy["max_header_bytes"] = 4096.into();
        proxy["extract_headers_extra"] = json!(["Server"]);
    }) else {
        return;
    };
    let proxy = fold.peer(0).proxy();
    // How long a connection lives on which this was sent, and what came back.
    let lives = |sent: &str| {
        let mut stream = TcpStream::connect(proxy).expect("connected");
        stream.write_all(sent.as_bytes()).expect("sent");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let begun = Instant::now();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        (begun.elapsed(), String::from_utf8_lossy(&answer).into_owned())
    };
    let about = |what: &str, took: Duration| {
        assert!(took > Duration::from_millis(700) && took < Duration::from_secs(20), "{what}: {took:?}");
    };
    about("half a head", lives("POST /api/v0/pin/ls HTT").0);
    let (took, answer) = lives("POST /api/v0/version HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    about("an idle connection", took);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (took, answer) = lives("POST /api/v0/add HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n--b");
    about("half a body", took);
    assert!(answer.contains("no byte of the request body came"), "{answer}");
    let long = "x".repeat(10_000);
    let (_, answer) = lives(&format!("POST /api/v0/version HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    // A client that asks for much and reads nothing is let go, and so is the daemon.
    let big = fold.kubos[0].add(&vec![3u8; 32 << 20], &["--pin=false"]);
    let before = descriptors(fold.peer(0));
    let mut stream = TcpStream::connect(proxy).expect("connected");
    write!(stream, "POST /api/v0/cat?arg={big} HTTP/1.1\r\nHost: x\r\n\r\n").expect("asked");
    wait_for("the end of a connection that nobody reads", PATIENCE, || {
        let now = descriptors(fold.peer(0));
        if now <= before {
            Ok(())
        } else {
            Err(format!("{now}, before {before}"))
        }
    });
    // What the daemon says of itself is copied when it is asked for; who answers stays ours.
    let answer = post(proxy, "repo/stat");
    assert!(answer.header("Server").is_some_and(|s| s.starts_with("ipfs-cluster/ipfsproxy/")), "{answer:?}");
}

#[test]
fn it_asks_for_a_password_when_it_is_told_to() {
    let Some(fold) = Proxied::with(1, |_, config| {
        config["api"]["ipfsproxy"]["basic_auth_credentials"] = json!({"ann": "secret"});
        config["api"]["ipfsproxy"]["log_file"] = "proxy.log".into();
    }) else {
        return;
    };
    let (peer, proxy) = (fold.peer(0), fold.peer(0).proxy());
    for path in ["id", "pin/ls"] {
        let answer = post(proxy, path);
        assert_eq!(answer.status, 401, "{}", answer.text());
        assert!(
            answer.header("WWW-Authenticate").is_some() && answer.text().contains("\"Message\""),
            "{answer:?}"
        );
    }
    assert!(ipfs_fails(peer, &["id"]).contains("unauthorized"));
    let known = ["--api-auth", "basic:ann:secret"];
    let id = ipfs_ok(peer, &[&known[..], &["id", "-f", "<id>"]].concat());
    assert_eq!(id, fold.kubos[0].id());
    ipfs_ok(peer, &[&known[..], &["pin", "ls"]].concat());
    // Who asked is in the access log, which is a file here.
    wait_for("a line of the access log", PATIENCE, || {
        let lines = std::fs::read_to_string(peer.folder.join("proxy.log")).unwrap_or_default();
        let ours = lines.lines().any(|l| l.contains("- ann [") && l.contains("POST /api/v0/pin/ls"));
        if ours {
            Ok(())
        } else {
            Err(lines)
        }
    });
    assert!(!peer.log().contains("ipfsproxylog"));
}

/// The daemon behind a proxy may listen on a Unix socket.
#[test]
fn a_daemon_on_a_unix_socket_is_reached() {
    let Some(mut kubo) = KuboDaemon::start(None) else { return };
    kubo.kill();
    let socket = kubo.folder().join("api.sock");
    let tcp = kubo.api.to_string();
    kubo.edit(|config| {
        config["Addresses"]["API"] = json!([tcp, format!("/unix{}", socket.display())]);
    });
    kubo.run();
    let cluster = support::cluster::Cluster::with(1, |_, config| {
        proxied::behind(config, &[format!("/unix{}", socket.display())]);
    });
    let peer = &cluster.peers[0];
    let cid = ipfs_fed(peer, &["add", "-q"], b"through a socket").trim().to_string();
    peer.wait_status(&cid, "pinned", 1);
    assert_eq!(ipfs_ok(peer, &["cat", &cid]), "through a socket");
    assert!(peer.log().contains(&proxy_of(peer)), "the address is told at the start");
}
