//! Who gets in, and who does not: TLS and its certificates, passwords and tokens, web pages, what listens where, how many
//! connections, and what is never printed. Real processes throughout.

#[path = "security/certificates.rs"]
mod certificates;
mod support;

use serde_json::{json, Value};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::clock::Clock;
use support::cluster::{free_port, ok, pinfold, Peer, PATIENCE, SECRET};
use support::wait_for;

fn one(tmp: &tempfile::TempDir) -> Peer {
    Peer::init(tmp.path().join("p"), "p", SECRET)
}

/// Where the REST API of a peer listens.
fn port(peer: &Peer) -> u16 {
    peer.url().rsplit(':').next().expect("port").parse().expect("number")
}

/// One request, as raw as it is written; the whole answer.
fn raw(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(request.as_bytes()).expect("send");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request with these header lines; status and the whole answer.
fn ask(peer: &Peer, method: &str, path: &str, headers: &[&str]) -> (u16, String) {
    let host = if headers.iter().any(|h| h.starts_with("Host:")) { "" } else { "Host: 127.0.0.1\r\n" };
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request =
        format!("{method} {path} HTTP/1.1\r\n{host}{lines}Content-Length: 0\r\nConnection: close\r\n\r\n");
    let answer = raw(([127, 0, 0, 1], port(peer)).into(), &request);
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer to {request}: {answer:?}\n{}", peer.log())), answer)
}

fn basic(pair: &str) -> String {
    format!("Authorization: Basic {}", data_encoding::BASE64.encode(pair.as_bytes()))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Starts what must not get ready; its words.
fn refused(peer: &mut Peer, args: &[&str]) -> String {
    peer.spawn(args);
    wait_for("its end", PATIENCE, || {
        assert!(!peer.log().contains(" is ready: "), "{args:?} runs:\n{}", peer.log());
        if peer.is_running() {
            Err(peer.log())
        } else {
            Ok(())
        }
    });
    let (status, _) = peer.wait_end();
    assert!(!status.success() && !peer.log().contains("panic"), "{}", peer.log());
    peer.log()
}

/// `version` over HTTPS, trusting this certificate only.
fn https(port: u16, trusted: &Path, change: impl FnOnce(&mut Command)) -> Output {
    let mut command = pinfold();
    command.env("SSL_CERT_FILE", trusted).env("HOME", "/nonexistent").stdin(Stdio::null());
    change(&mut command);
    let host = format!("/dns4/localhost/tcp/{port}/https");
    command.args(["--host", &host, "id"]).output().expect("the executable starts")
}

/// The peer serves TLS with files beside its service.json.
fn with_tls(peer: &Peer, pair: &certificates::Pair) {
    install(peer, pair);
    peer.edit(|config| {
        config["api"]["restapi"]["ssl_cert_file"] = "tls/cert.pem".into();
        config["api"]["restapi"]["ssl_key_file"] = "tls/key.pem".into();
    });
}

/// Puts a pair in place as renewing programs do: each file whole, one after the other.
fn install(peer: &Peer, pair: &certificates::Pair) {
    let folder = peer.folder.join("tls");
    std::fs::create_dir_all(&folder).expect("folder");
    for (from, name) in [(&pair.certificate, "cert.pem"), (&pair.key, "key.pem")] {
        std::fs::copy(from, folder.join("new")).expect("copied");
        std::fs::rename(folder.join("new"), folder.join(name)).expect("renamed");
    }
}

#[test]
fn a_certificate_is_followed_when_its_files_change() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(first) = certificates::make(tmp.path(), "first", -1, 300) else { return };
    let Some(second) = certificates::make(tmp.path(), "second", -1, 300) else { return };
    let mut peer = one(&tmp);
    with_tls(&peer, &first);
    peer.start(&["daemon"]);
    let port = port(&peer);
    ok(https(port, &first.certificate, |_| {}));
    let stranger = https(port, &second.certificate, |_| {});
    assert_eq!(stranger.status.code(), Some(1));
    assert!(text(&stranger).contains("signed by nobody whom this machine trusts"), "{}", text(&stranger));
    // The folder's own client asks for no proof.
    ok(peer.ctl(&["id"]));

    install(&peer, &second);
    wait_for("the new certificate", PATIENCE, || {
        let answer = https(port, &second.certificate, |_| {});
        if answer.status.success() {
            Ok(())
        } else {
            Err(text(&answer))
        }
    });
    assert!(!https(port, &first.certificate, |_| {}).status.success(), "the old one is gone");
    assert!(peer.log().contains("changed and serves from now on"), "{}", peer.log());

    // Broken files: the second pair goes on serving, and one warning says why.
    let file = |name: &str| peer.folder.join("tls").join(name);
    let broken: [(&str, &dyn Fn()); 3] = [
        ("holds no PEM certificate", &|| std::fs::write(file("cert.pem"), "garbage").expect("written")),
        ("is not the private key of the certificate", &|| {
            std::fs::copy(&first.certificate, file("cert.pem")).expect("copied");
        }),
        ("key.pem: No such file", &|| std::fs::remove_file(file("key.pem")).expect("removed")),
    ];
    for (words, damage) in broken {
        damage();
        wait_for(words, PATIENCE, || {
            ok(https(port, &second.certificate, |_| {}));
            if peer.log().contains(words) {
                Ok(())
            } else {
                Err(peer.log())
            }
        });
        std::thread::sleep(Duration::from_millis(1_100));
        ok(https(port, &second.certificate, |_| {}));
        let told = peer.log().lines().filter(|line| line.contains(words)).count();
        assert_eq!(told, 1, "once in words:\n{}", peer.log());
    }
    install(&peer, &first);
    wait_for("the repaired certificate", PATIENCE, || {
        let answer = https(port, &first.certificate, |_| {});
        if answer.status.success() {
            Ok(())
        } else {
            Err(text(&answer))
        }
    });
    // A hang-up is a stop, as ever.
    peer.signal("HUP");
    assert!(peer.wait_end().0.success());
}

#[test]
fn a_certificate_out_of_its_time_is_told_by_daemon_and_client() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(clock) = Clock::new(tmp.path()) else { return };
    let Some(expired) = certificates::make(tmp.path(), "expired", -30, -2) else { return };
    let Some(early) = certificates::make(tmp.path(), "early", 5, 300) else { return };
    let mut peer = one(&tmp);
    with_tls(&peer, &expired);
    clock.start(&mut peer);
    let port = port(&peer);
    let words = "UTC, 2 days ago: clients refuse it; renew it";
    let complaints =
        |peer: &Peer| peer.log().lines().filter(|line| line.contains("clients refuse it")).count();
    assert!(peer.log().contains(words), "at the start:\n{}", peer.log());
    let asked = https(port, &expired.certificate, |_| {});
    assert_eq!(asked.status.code(), Some(1));
    let day = &certificates::days_from_now(-2)[..8];
    let day = format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]);
    let said = text(&asked);
    assert!(said.contains(&format!("the certificate of the server expired on {day}")), "{said}");
    ok(https(port, &expired.certificate, |c| {
        c.arg("--no-check-certificate");
    }));
    let streamed = {
        let mut command = pinfold();
        command.env("SSL_CERT_FILE", &expired.certificate).env("HOME", "/nonexistent");
        command
            .args(["--host", &format!("/dns4/localhost/tcp/{port}/https"), "status"])
            .output()
            .expect("status")
    };
    assert!(text(&streamed).contains(&format!("expired on {day}")), "{}", text(&streamed));
    assert_eq!(complaints(&peer), 1, "once a day:\n{}", peer.log());

    clock.set(25 * 3600);
    wait_for("the next day's warning", PATIENCE, || {
        let _ = https(port, &expired.certificate, |_| {});
        if complaints(&peer) == 2 {
            Ok(())
        } else {
            Err(peer.log())
        }
    });
    clock.set(0);

    install(&peer, &early);
    wait_for("the early certificate", PATIENCE, || {
        let said = text(&https(port, &early.certificate, |_| {}));
        if said.contains("the certificate of the server is not valid before") {
            Ok(())
        } else {
            Err(said)
        }
    });
    assert!(peer.log().contains("and this machine's clock says"), "{}", peer.log());
}

#[test]
fn tls_files_that_cannot_serve_end_the_start_with_a_sentence() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(one_pair) = certificates::make(tmp.path(), "one", -1, 300) else { return };
    let Some(other) = certificates::make(tmp.path(), "other", -1, 300) else { return };
    let mut peer = one(&tmp);
    with_tls(&peer, &one_pair);
    let file = |name: &str| peer.folder.join("tls").join(name);
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    std::fs::copy(&other.key, &key).expect("copied");
    let said = refused(&mut peer, &["daemon"]);
    assert!(said.contains("is not the private key of the certificate"), "{said}");
    std::fs::copy(&one_pair.certificate, &key).expect("copied");
    let said = refused(&mut peer, &["daemon"]);
    assert!(said.contains("holds no private key in PEM that can be used"), "{said}");
    std::fs::remove_file(&cert).expect("removed");
    let said = refused(&mut peer, &["daemon"]);
    assert!(said.contains("error loading TLS certificate/key") && said.contains("cert.pem"), "{said}");
    for words in [&said, &text(&peer.ctl(&["doctor"]))] {
        assert!(!words.contains("BEGIN"), "{words}");
    }
    peer.edit(|config| config["api"]["restapi"]["ssl_key_file"] = "".into());
    let said = refused(&mut peer, &["daemon"]);
    assert!(said.contains("TLS needs both"), "{said}");
}

/// What `pinfold hash-password` prints.
fn hashed(password: &str) -> String {
    let mut command = pinfold();
    command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the executable starts");
    child.stdin.take().expect("stdin").write_all(format!("{password}\n").as_bytes()).expect("sent");
    let output = child.wait_with_output().expect("its end");
    assert!(!text(&output).contains(password), "{}", text(&output));
    ok(output).trim().to_owned()
}

#[test]
fn hashed_passwords_and_their_tokens_let_in_and_keep_out() {
    let tmp = tempfile::tempdir().expect("folder");
    let (one_hash, two_hash) = (hashed("first pass:word"), hashed("first pass:word"));
    assert_ne!(one_hash, two_hash, "salted");
    let mut peer = one(&tmp);
    peer.edit(|config| {
        config["api"]["restapi"]["basic_auth_credentials"] = json!({"ann": one_hash, "bob": "plain"})
    });
    peer.start(&["daemon"]);
    let status = |headers: &[&str]| ask(&peer, "GET", "/id", headers).0;
    assert_eq!(status(&[&basic("ann:first pass:word")]), 200);
    assert_eq!(status(&[&basic("bob:plain")]), 200);
    for wrong in
        ["ann:wrong", "ann:", "eve:first pass:word", &format!("ann:{one_hash}"), "bob:first pass:word"]
    {
        assert_eq!(status(&[&basic(wrong)]), 401, "{wrong}");
    }
    assert_eq!(status(&[]), 401);
    // The folder's owner needs no password: the hash itself vouches for him.
    ok(peer.ctl(&["id"]));
    ok(peer.ctl(&["peers", "ls"]));
    assert!(ok(peer.ctl(&["invite"])).len() > 40);

    let token = |query: &str| {
        let (status, answer) =
            ask(&peer, "POST", &format!("/token{query}"), &[&basic("ann:first pass:word")]);
        assert_eq!(status, 200, "{answer}");
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).expect("body")).expect("JSON");
        format!("Authorization: Bearer {}", body["token"].as_str().expect("token"))
    };
    let (lasting, short) = (token(""), token("?expire-in=1s"));
    assert_eq!(status(&[&lasting]), 200);
    wait_for("the end of the token", PATIENCE, || {
        if status(&[&short]) == 401 {
            Ok(())
        } else {
            Err("good".into())
        }
    });
    assert_eq!(status(&[&lasting]), 200);
    let (bad, answer) = ask(&peer, "POST", "/token?expire-in=soon", &[&basic("bob:plain")]);
    assert_eq!(bad, 400, "{answer}");

    // A new hash, even of the same password, revokes the tokens.
    peer.stop();
    peer.edit(|config| config["api"]["restapi"]["basic_auth_credentials"]["ann"] = two_hash.as_str().into());
    peer.start(&["daemon"]);
    assert_eq!(ask(&peer, "GET", "/id", &[&lasting]).0, 401);
    assert_eq!(ask(&peer, "GET", "/id", &[&basic("ann:first pass:word")]).0, 200);
    peer.stop();
    peer.edit(|config| {
        config["api"]["restapi"]["basic_auth_credentials"]["ann"] = json!("$pbkdf2-sha256$i=1$x")
    });
    let said = refused(&mut peer, &["daemon"]);
    assert!(said.contains("the user \"ann\": the hashed password is damaged"), "{said}");
}

#[test]
fn strangers_who_guess_passwords_burn_no_more_than_one_core_and_keep_nobody_out() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    peer.edit(|config| {
        config["api"]["restapi"]["basic_auth_credentials"] = json!({"ann": hashed("secret")});
    });
    peer.start(&["daemon"]);
    assert_eq!(ask(&peer, "GET", "/id", &[&basic("ann:secret")]).0, 200);
    let peer = &peer;
    std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..60)
            .map(|n| scope.spawn(move || ask(peer, "GET", "/id", &[&basic(&format!("ann:guess{n}"))]).0))
            .collect();
        // Who was let in once is let in at once, in the middle of it.
        let began = Instant::now();
        for _ in 0..20 {
            assert_eq!(ask(peer, "GET", "/id", &[&basic("ann:secret")]).0, 200);
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?} for 20 requests of a known user");
        let answers: Vec<u16> = guesses.into_iter().map(|guess| guess.join().expect("thread")).collect();
        assert!(answers.iter().all(|status| [401, 429].contains(status)), "{answers:?}");
        assert!(answers.contains(&429), "the line has an end: {answers:?}");
    });
}

#[test]
fn what_listens_beyond_this_machine_asks_for_a_password_or_says_that_it_does_not() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let wide = format!("/ip4/0.0.0.0/tcp/{}", free_port());
    let plain = peer.config();
    let set = |peer: &Peer, change: &dyn Fn(&mut Value)| {
        peer.edit(|config| {
            *config = plain.clone();
            change(config);
        });
    };
    for (section, key) in [("restapi", "http_listen_multiaddress"), ("ipfsproxy", "listen_multiaddress")] {
        set(&peer, &|config| config["api"][section][key] = wide.as_str().into());
        let said = refused(&mut peer, &["daemon"]);
        for words in [
            format!("api.{section}.{key}"),
            "basic_auth_credentials".into(),
            "\"open_to_network\": true".into(),
        ] {
            assert!(said.contains(&words), "{words}:\n{said}");
        }
        let ways: [(&str, Value); 2] =
            [("open_to_network", json!(true)), ("basic_auth_credentials", json!({"ann": "secret"}))];
        for (way, value) in ways {
            set(&peer, &|config| {
                config["api"][section][key] = wide.as_str().into();
                config["api"][section][way] = value.clone();
            });
            peer.start(&["daemon"]);
            let warned = peer.log().contains("without TLS, so that everybody on the way can read them");
            assert_eq!(warned, section == "restapi" && way == "basic_auth_credentials", "{}", peer.log());
            assert!(peer.stop().0.success());
        }
    }
    set(&peer, &|config| {
        config["cluster"]["secret"] = "".into();
        config["cluster"]["listen_multiaddress"] = format!("/ip4/0.0.0.0/tcp/{}", free_port()).into();
    });
    let said = refused(&mut peer, &["daemon"]);
    assert!(said.contains("cluster.secret is empty") && said.contains("--insecure-no-secret"), "{said}");
    peer.start(&["daemon", "--insecure-no-secret"]);
    assert!(peer.stop().0.success());
}

#[test]
fn the_ipfs_proxy_asks_for_passwords_and_knows_its_names() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    peer.start(&["daemon"]);
    let ask = |peer: &Peer, headers: &[&str]| {
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let request =
            format!("POST /api/v0/pin/ls HTTP/1.1\r\n{lines}Content-Length: 0\r\nConnection: close\r\n\r\n");
        let answer = raw(peer.proxy(), &request);
        (answer.split(' ').nth(1).unwrap_or("").to_owned(), answer)
    };
    assert_eq!(ask(&peer, &["Host: 127.0.0.1"]).0, "200");
    let (status, answer) = ask(&peer, &["Host: evil.example"]);
    assert_eq!(status, "403", "{answer}");
    assert!(
        answer.contains("\"Type\":\"error\"") && answer.contains("api.ipfsproxy.allowed_hosts"),
        "{answer}"
    );
    peer.stop();
    peer.edit(|config| {
        let api = &mut config["api"]["ipfsproxy"];
        api["basic_auth_credentials"] = json!({"ann": hashed("correct horse")});
        api["allowed_hosts"] = json!(["ipfs.example.org"]);
    });
    peer.start(&["daemon"]);
    let (status, answer) = ask(&peer, &["Host: 127.0.0.1"]);
    assert_eq!(status, "401", "{answer}");
    assert!(
        answer.contains("WWW-Authenticate: Basic realm=")
            || answer.contains("Www-Authenticate: Basic realm="),
        "{answer}"
    );
    assert!(answer.contains("\"Message\":\"unauthorized: no auth provided\""), "in Kubo's form: {answer}");
    assert_eq!(ask(&peer, &["Host: 127.0.0.1", &basic("ann:wrong")]).0, "401");
    for host in ["127.0.0.1", "ipfs.example.org", "elsewhere.example.org"] {
        assert_eq!(ask(&peer, &[&format!("Host: {host}"), &basic("ann:correct horse")]).0, "200", "{host}");
    }
    if let Some(ipfs) = support::kubo() {
        let api = format!("/ip4/127.0.0.1/tcp/{}", peer.proxy().port());
        let run = |args: &[&str]| {
            let mut command = Command::new(&ipfs);
            command
                .env("IPFS_PATH", tmp.path().join("ipfs-path"))
                .env("HOME", tmp.path())
                .env("IPFS_TELEMETRY", "off");
            command.args(["--api", &api]).args(args).output().expect("ipfs starts")
        };
        assert!(!run(&["pin", "ls"]).status.success());
        ok(run(&["--api-auth", "basic:ann:correct horse", "pin", "ls"]));
    }
}

/// The origin checks and every CORS key, at a real API.
#[test]
fn web_pages_do_what_the_configuration_lets_them() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    peer.start(&["daemon"]);
    let from = |peer: &Peer, method: &str, path: &str, origin: &str| {
        ask(peer, method, path, &[&format!("Origin: {origin}")])
    };
    // ipfs-cluster's default: any page reads, none changes anything.
    let (status, answer) = from(&peer, "GET", "/id", "http://page.example");
    assert_eq!(status, 200);
    for header in [
        "Access-Control-Allow-Origin: *",
        "Access-Control-Allow-Credentials: true",
        "Access-Control-Expose-Headers: Content-Type, X-Stream-Output",
    ] {
        assert!(answer.to_lowercase().contains(&header.to_lowercase()), "{header}: {answer}");
    }
    let (status, answer) = from(&peer, "POST", "/pins/recover", "http://page.example");
    assert_eq!(status, 403);
    assert!(
        answer.contains("{\"code\":403,\"message\":\"the web page http://page.example may not send POST"),
        "{answer}"
    );
    let same = format!("http://127.0.0.1:{}", port(&peer));
    let (status, answer) = ask(
        &peer,
        "POST",
        "/pins/recover",
        &[&format!("Origin: {same}"), &format!("Host: 127.0.0.1:{}", port(&peer))],
    );
    assert!(status < 300, "the API's own page: {answer}");
    // Rebound names, in the API's own JSON.
    for host in ["evil.example", "evil.example:9094"] {
        let (status, answer) = ask(&peer, "GET", "/id", &[&format!("Host: {host}")]);
        assert_eq!(status, 403, "{answer}");
        assert!(
            answer.contains("Content-Type: application/json") && answer.contains("api.restapi.allowed_hosts"),
            "{answer}"
        );
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]", "board.local", "cluster0:9094"] {
        assert_eq!(ask(&peer, "GET", "/id", &[&format!("Host: {host}")]).0, 200, "{host}");
    }
    peer.stop();

    peer.edit(|config| {
        let api = &mut config["api"]["restapi"];
        api["allowed_hosts"] = json!(["cluster.example.org"]);
        api["cors_allowed_origins"] = json!(["https://ui.example.org"]);
        api["cors_allowed_methods"] = json!(["GET", "POST"]);
        api["cors_allowed_headers"] = json!(["X-Mine"]);
        api["cors_exposed_headers"] = json!(["X-Shown"]);
        api["cors_allow_credentials"] = json!(false);
        api["cors_max_age"] = json!("10m");
        api["headers"] = json!({"X-Of-Ours": ["yes"]});
    });
    peer.start(&["daemon"]);
    assert_eq!(ask(&peer, "GET", "/id", &["Host: cluster.example.org"]).0, 200, "behind a proxy of our own");
    let (_, answer) = from(&peer, "GET", "/id", "https://ui.example.org");
    let answer = answer.to_lowercase();
    assert!(answer.contains("access-control-allow-origin: https://ui.example.org"), "{answer}");
    assert!(answer.contains("access-control-expose-headers: x-shown"), "{answer}");
    assert!(answer.contains("x-of-ours: yes"), "{answer}");
    assert!(!answer.contains("allow-credentials"), "{answer}");
    assert!(from(&peer, "POST", "/pins/recover", "https://ui.example.org").0 < 300);
    assert_eq!(from(&peer, "POST", "/pins/recover", "https://other.example.org").0, 403);
    assert_eq!(from(&peer, "DELETE", "/pins/x", "https://ui.example.org").0, 403);
    let preflight = |header: &str| {
        let lines = [
            "Origin: https://ui.example.org",
            "Access-Control-Request-Method: POST",
            &format!("Access-Control-Request-Headers: {header}"),
        ];
        ask(&peer, "OPTIONS", "/pins/recover", &lines).1.to_lowercase()
    };
    let granted = preflight("x-mine");
    assert!(granted.contains("access-control-allow-methods: post"), "{granted}");
    assert!(granted.contains("access-control-max-age: 600"), "{granted}");
    assert!(!preflight("x-other").contains("access-control-allow-methods"));
}

/// An address of this machine that is not its loopback.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only chooses the address it would send from.
    socket.connect("192.0.2.99:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn one_address_gets_only_so_many_connections() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(stranger) = own_address() else {
        return support::skip("this machine has only a loopback address");
    };
    let mut peer = one(&tmp);
    let port = free_port();
    peer.edit(|config| {
        let api = &mut config["api"]["restapi"];
        api["http_listen_multiaddress"] = format!("/ip4/0.0.0.0/tcp/{port}").into();
        api["open_to_network"] = true.into();
        api["max_connections_per_address"] = 3.into();
        api["max_connections"] = 8.into();
    });
    peer.start(&["daemon"]);
    let request = "GET /id HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    // Busy ones, so that none of them can make room: uploads whose body is under way.
    let hold = |ip: IpAddr| {
        let mut stream = TcpStream::connect((ip, port)).expect("connect");
        let head = "POST /add HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n\
                    Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("send");
        // The API asks for the body: from now on the request is under way.
        let mut answer = [0; 25];
        stream.read_exact(&mut answer).expect("100 Continue");
        assert!(answer.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&answer));
        stream.write_all(b"--b\r\n").expect("send");
        stream
    };
    let held: Vec<TcpStream> = (0..3).map(|_| hold(stranger)).collect();
    wait_for("the fourth to be refused", PATIENCE, || {
        let answer = raw((stranger, port).into(), request);
        if answer.starts_with("HTTP/1.1 503 ") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    let here = raw(([127, 0, 0, 1], port).into(), request);
    assert!(here.starts_with("HTTP/1.1 200 "), "this machine itself is not counted: {here}");
    drop(held);
    wait_for("room again", PATIENCE, || {
        let answer = raw((stranger, port).into(), request);
        if answer.starts_with("HTTP/1.1 200 ") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    // Those who make their own requests wait give way when all places are taken.
    let held: Vec<TcpStream> = (0..8).map(|_| hold([127, 0, 0, 1].into())).collect();
    wait_for("a place taken from a stalled upload", PATIENCE, || {
        let answer = raw(([127, 0, 0, 1], port).into(), request);
        if answer.starts_with("HTTP/1.1 200 ") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    drop(held);
}

#[test]
fn secrets_are_in_their_files_and_nowhere_else() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let hash = hashed("hunter2hunter2");
    peer.edit(|config| {
        let api = &mut config["api"]["restapi"];
        api["basic_auth_credentials"] = json!({"ann": "correcthorse", "bob": hash});
    });
    let identity: Value =
        serde_json::from_slice(&std::fs::read(peer.folder.join("identity.json")).expect("file"))
            .expect("JSON");
    let private = identity["private_key"].as_str().expect("key").to_owned();
    let mut heard = String::new();
    // Every level there is, and the libraries' too.
    peer.start(&["daemon", "--loglevel", "*:trace"]);
    let (_, token) = ask(&peer, "POST", "/token", &[&basic("ann:correcthorse")]);
    let token =
        token.split("\"token\":\"").nth(1).and_then(|t| t.split('"').next()).expect("token").to_owned();
    for headers in
        [&basic("ann:correcthorse"), &basic("ann:wr0ngwr0ng"), &format!("Authorization: Bearer {token}")]
    {
        heard += &ask(&peer, "GET", "/id", &[headers]).1;
    }
    let commands: [&[&str]; 9] = [
        &["--debug", "id"],
        &["--debug", "--enc", "json", "peers", "ls"],
        &["--debug", "--basic-auth", "ann:correcthorse", "--force-http", "status"],
        &["--debug", "--basic-auth", "ann:wr0ngwr0ng", "--force-http", "id"],
        &["--debug", "doctor"],
        &["--enc", "json", "doctor"],
        &["health", "consensus"],
        &["daemon"],
        &["init"],
    ];
    for args in commands {
        heard += &text(&peer.ctl(args));
    }
    heard += &peer.log();
    peer.stop();
    heard += &peer.log();
    // --debug on its own, and settings that are wrong.
    peer.start(&["--debug", "daemon"]);
    peer.stop();
    heard += &peer.log();
    let wrong: [(&str, &str); 4] = [
        ("CLUSTER_SECRET", "5ecret5ecret"),
        ("CLUSTER_PRIVATEKEY", "5ecret5ecret"),
        ("CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "5ecret5ecret"),
        ("CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "u:$pbkdf2-sha256$5ecret5ecret"),
    ];
    for (name, value) in wrong {
        let output = pinfold().env(name, value).args(["-c", peer.path(), "daemon"]).output().expect("starts");
        assert!(!output.status.success());
        heard += &text(&output);
    }
    assert!(heard.contains("DEBUG") && heard.len() > 10_000, "something was said");
    let hash_of_bob = hash.rsplit('$').next().expect("hash");
    for (what, secret) in [
        ("the cluster secret", SECRET),
        ("the private key", private.as_str()),
        ("a password", "correcthorse"),
        ("a password that was tried", "wr0ngwr0ng"),
        ("a hashed password", hash_of_bob),
        ("credentials", &data_encoding::BASE64.encode(b"ann:correcthorse")),
        ("a token", token.as_str()),
        ("a wrong setting", "5ecret5ecret"),
    ] {
        let line = heard.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{what} was printed: {line:?}");
    }
    // Only who asks for a token gets it: the invite.
    peer.start(&["daemon"]);
    let invite = ok(peer.ctl(&["invite"]));
    assert!(!peer.log().contains(invite.trim()));
}

#[test]
fn files_with_secrets_are_the_owner_s_alone_and_others_are_warned_of() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let Some(pair) = certificates::make(tmp.path(), "one", -1, 300) else { return };
    with_tls(&peer, &pair);
    let mode = |path: &Path| path.metadata().expect("file").permissions().mode() & 0o777;
    let fresh = Peer::init(tmp.path().join("fresh"), "fresh", SECRET);
    assert_eq!(mode(&fresh.folder), 0o700);
    assert_eq!(mode(&fresh.folder.join("identity.json")), 0o600);
    for file in ["service.json", "identity.json", "tls/key.pem"] {
        std::fs::set_permissions(peer.folder.join(file), PermissionsExt::from_mode(0o644)).expect("chmod");
    }
    peer.start(&["daemon"]);
    let log = peer.log();
    for file in ["service.json", "identity.json", "tls/key.pem"] {
        let path = peer.folder.join(file);
        assert!(log.contains(&format!("chmod 600 {}", path.display())), "{file}:\n{log}");
    }
    let doctor = text(&peer.ctl(&["doctor"]));
    assert_eq!(doctor.matches("fix: chmod 600").count(), 3, "{doctor}");
    for entry in ["cluster.lock", "raft", "ipfs"] {
        let path = peer.folder.join(entry);
        assert_eq!(mode(&path) & 0o077, 0, "{entry} is {:o}", mode(&path));
    }
}

#[test]
fn log_levels_are_set_per_facility_and_mistakes_are_told_with_the_list() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    for (spec, words) in [
        ("loud", vec!["is no log level", "critical, error, warning, notice, info, debug"]),
        ("raft:loud", vec!["is no log level"]),
        (
            "nosuch:debug",
            vec!["names a facility that does not exist", "restapi", "pintracker", "libp2p-raft"],
        ),
    ] {
        let output =
            pinfold().args(["-c", peer.path(), "daemon", "--loglevel", spec]).output().expect("starts");
        assert_eq!(output.status.code(), Some(2), "{spec}: {}", text(&output));
        for word in words {
            assert!(text(&output).contains(word), "{spec}: {}", text(&output));
        }
        let output = pinfold()
            .env("IPFS_CLUSTER_LOG_LEVEL", spec)
            .args(["-c", peer.path(), "daemon"])
            .output()
            .expect("starts");
        assert_eq!(output.status.code(), Some(2), "by variable: {}", text(&output));
    }
    let facilities = |peer: &Peer, level: &str| -> Vec<String> {
        let mut found: Vec<String> = peer
            .log()
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                (fields.get(1) == Some(&level)).then(|| fields[2].to_owned())
            })
            .collect();
        found.sort();
        found.dedup();
        found
    };
    peer.start(&["daemon", "--loglevel", "error,restapilog:info"]);
    peer.json("GET", "/id");
    wait_for("the access log", PATIENCE, || {
        if peer.log().contains("GET /id") {
            Ok(())
        } else {
            Err(peer.log())
        }
    });
    assert_eq!(facilities(&peer, "INFO"), ["restapilog"], "{}", peer.log());
    peer.stop();
    peer.start(&["daemon", "--loglevel", "warn,raft:debug"]);
    peer.stop();
    assert_eq!(facilities(&peer, "DEBUG"), ["raft"], "{}", peer.log());
    assert!(facilities(&peer, "INFO").iter().all(|facility| facility == "raft"), "{}", peer.log());
    peer.start(&["daemon", "--debug"]);
    peer.stop();
    let debug = facilities(&peer, "DEBUG");
    assert!(debug.len() >= 2 && !facilities(&peer, "INFO").is_empty(), "{debug:?}");
}

#[test]
fn the_client_shows_each_request_when_it_is_asked_to() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    peer.edit(|config| config["api"]["restapi"]["basic_auth_credentials"] = json!({"ann": "correcthorse"}));
    peer.start(&["daemon"]);
    let err = |args: &[&str]| String::from_utf8_lossy(&peer.ctl(args).stderr).into_owned();
    let one = err(&["--debug", "id"]);
    assert!(one.contains(&format!("GET {}/id", peer.url())), "{one}");
    assert!(one.contains("200 ") && one.contains(&peer.id()), "the raw body too: {one}");
    let listing = err(&["--debug", "peers", "ls"]);
    assert!(listing.contains("GET ") && listing.contains("/peers") && listing.contains("200"), "{listing}");
    assert!(listing.contains(&peer.id()), "{listing}");
    let wrong = err(&["--debug", "--basic-auth", "ann:nope", "--force-http", "id"]);
    assert!(wrong.contains("401 "), "{wrong}");
    for said in [one, listing, wrong] {
        assert!(
            !said.contains("correcthorse") && !said.contains("nope") && !said.contains("Basic "),
            "{said}"
        );
    }
    assert_eq!(err(&["id"]), "", "quiet otherwise");
}
