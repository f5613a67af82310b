//! The recorded command lines of the real ipfs-cluster-ctl and -service, played against pinfold.
//!
//! The answers that the recorded programs got are rebuilt from what they printed (or taken from the recorded
//! REST API), served by a small server, and pinfold must print the same bytes and end with the same exit
//! code. Where it answers better on purpose, [`BETTER`] lists the difference with its reason.
//!
//! The recordings are found by `$PINFOLD_GOLDEN`, or beside the repository; without them the test says so
//! and passes.

mod cli_support;

use cli_support::http::{Answer, Asked, Server};
use cli_support::run_as;
use cli_support::Ran;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The peers of the recording, in the order of their ids.
const PEERS: [(&str, &str); 3] = [
    ("12D3KooWHYAGBJAX8EqKkxJg1PGKzuKEvy7yxyK7CPQjShsNa66t", "p1"),
    ("12D3KooWKW2yNzgYoQQRyWTrENKgYYmBc2CmPEBS5BDTFUiEV9Mu", "p0"),
    ("12D3KooWNUfLafUxLcHFg89f7Zx473UHz1f2tw4AR227DP6ZP2L3", "p2"),
];

/// What differs on purpose: the case, which output, how ours begins, and why.
const BETTER: &[(&str, Stream, &str, &str)] = &[
    (
        "ctl pin add",
        Stream::Err,
        "error : invalid path \"/ipfs/\": path does not have enough components",
        "no log line of a library in front",
    ),
    (
        "ctl pin add nosuch",
        Stream::Err,
        "error : invalid path \"/ipfs/nosuch\": invalid cid: ",
        "no log line of a library in front; the reason in words",
    ),
    ("ctl status nosuch", Stream::Err, "error parsing cid: invalid cid: \"nosuch\"", "names the word"),
    ("ctl peers rm", Stream::Err, "error parsing peer ID: \"\" is not a peer ID", "names the word"),
    (
        "ctl peers rm nosuch",
        Stream::Err,
        "error parsing peer ID: \"nosuch\" is not a peer ID",
        "names the word",
    ),
    (
        "ctl add nosuchfile",
        Stream::Err,
        "error adding nosuchfile: No such file or directory",
        "no log line of a library in front",
    ),
    (
        "ctl status --filter nosuch",
        Stream::Err,
        "error parsing filter flag: invalid filter name",
        "lists the names there are",
    ),
    (
        "ctl --host nosuch id",
        Stream::Err,
        "error parsing host multiaddress: failed to parse multiaddr \"nosuch\": must begin with /",
        "shows a good one",
    ),
    (
        "ctl --https --no-check-certificate id",
        Stream::Out,
        "An error occurred:\n  Code: 0\n  Message: ",
        "our client's words",
    ),
    ("ctl --https --no-check-certificate id", Stream::Err, "", "no log line of a library"),
];

#[derive(Clone, Copy, PartialEq)]
enum Stream {
    Out,
    Err,
}

fn golden(file: &str) -> Option<Vec<Value>> {
    let folder = std::env::var_os("PINFOLD_GOLDEN")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/golden"), PathBuf::from);
    let path = folder.join(file);
    match std::fs::read(&path) {
        Ok(text) => Some(serde_json::from_slice(&text).expect("a recording is JSON")),
        Err(e) => {
            println!("skipped: no recordings ({}: {e}); set PINFOLD_GOLDEN", path.display());
            None
        }
    }
}

#[test]
fn ctl_prints_what_the_recorded_program_printed() {
    let (Some(cases), Some(rest)) = (golden("ctl.json"), golden("rest.json")) else { return };
    let folder = tempfile::tempdir().expect("folder");
    std::fs::create_dir_all(folder.path().join("refdata/sub")).expect("refdata");
    for (file, content) in [("hello.txt", "hello world\n"), ("b.txt", "b\n"), ("sub/c.txt", "c\n")] {
        std::fs::write(folder.path().join("refdata").join(file), content).expect("file");
    }
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let name = case["name"].as_str().expect("name");
        let expected = &case["response"];
        let stdout = expected["stdout"].as_str().expect("stdout").to_string();
        let argv: Vec<String> = case["request"]["argv"]
            .as_array()
            .expect("argv")
            .iter()
            .map(|a| a.as_str().expect("word").into())
            .collect();
        let server = Server::start(answers(name, &stdout, &rest));
        let words: Vec<String> =
            argv[1..].iter().map(|w| w.replace("/ip4/127.0.0.1/tcp/19090", &server.multiaddr())).collect();
        let ran = run_as("ipfs-cluster-ctl", &words, folder.path(), "");
        if let Some(difference) = differs(name, &ran, expected) {
            wrong.push(format!("case {number}, {name}: {difference}\nasked: {:?}", server.asked()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn service_answers_as_the_recorded_program() {
    let Some(cases) = golden("service.json") else { return };
    let folder = tempfile::tempdir().expect("folder");
    let case = |name: &str| {
        cases.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no case {name}"))["response"]
            .clone()
    };
    let run = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        run_as("ipfs-cluster-service", &words, folder.path(), "")
    };
    let version = |text: &Value| text.as_str().expect("text").replace("1.1.6", env!("CARGO_PKG_VERSION"));

    for (name, words) in [("service --version", &["--version"][..]), ("service version", &["version"])] {
        let (expected, ran) = (case(name), run(words));
        assert_eq!(ran.code, expected["exit"], "{name}");
        assert_eq!(ran.out, version(&expected["stdout"]), "{name}");
    }
    for (name, words) in [("service nosuch", &["nosuch"][..]), ("service -c refinit", &["-c", "refinit"])] {
        let (expected, ran) = (case(name), run(words));
        assert_eq!(ran.code, expected["exit"], "{name}");
        for heading in ["NAME:", "USAGE:", "VERSION:", "DESCRIPTION:", "COMMANDS:", "GLOBAL OPTIONS:"] {
            assert!(expected["stdout"].as_str().is_some_and(|t| t.contains(heading)));
            assert!(ran.out.contains(heading), "{name}: {heading} in {}", ran.out);
        }
        for command in ["init ", "daemon ", "state ", "version ", "help, h"] {
            assert!(ran.out.contains(&format!("\n   {command}")), "{name}: {command} in {}", ran.out);
        }
    }

    let init = ["-c", "refinit", "init", "--consensus", "raft"];
    let ran = run(&init);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for line in ["configuration written to ", "new identity written to ", "new empty peerstore written to "] {
        assert!(ran.err.lines().any(|l| l.starts_with(line)), "{line} in {}", ran.err);
    }
    let config = || std::fs::read(folder.path().join("refinit/service.json")).expect("service.json");
    let before = config();
    let ran = run(&init);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "The configuration file will be overwritten. Continue? [y/n]: \n")
    );
    assert_eq!(before, config(), "nothing changed");
    // Three answers that are none count as "no"; a yes overwrites; the identity always stays.
    let identity = std::fs::read(folder.path().join("refinit/identity.json")).expect("identity.json");
    let words: Vec<String> = init.iter().map(|w| w.to_string()).collect();
    let ran = run_as("ipfs-cluster-service", &words, folder.path(), "maybe\nperhaps\nwell\ny\n");
    assert_eq!((ran.code, ran.out.matches("[y/n]").count()), (0, 3));
    assert_eq!(before, config(), "nothing changed");
    let ran = run_as("ipfs-cluster-service", &words, folder.path(), "what\ny\n");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_ne!(before, config(), "another secret");
    assert_eq!(identity, std::fs::read(folder.path().join("refinit/identity.json")).expect("identity.json"));

    let ran = run(&["-c", "refinit", "init", "--consensus", "nosuch"]);
    let expected = case("service -c refinit init --consensus nosuch");
    assert_eq!((ran.code, &json!(ran.err)), (1, &expected["stderr"]));
}

fn differs(name: &str, ran: &Ran, expected: &Value) -> Option<String> {
    if json!(ran.code) != expected["exit"] {
        return Some(format!("exit {} instead of {}\n{}\n{}", ran.code, expected["exit"], ran.out, ran.err));
    }
    for (stream, what, ours) in [(Stream::Out, "stdout", &ran.out), (Stream::Err, "stderr", &ran.err)] {
        let theirs = expected[what].as_str().expect("text");
        let better = BETTER.iter().find(|(case, s, ..)| *case == name && *s == stream);
        let same = match better {
            Some((_, _, beginning, _)) => {
                ours.starts_with(beginning) && (!beginning.is_empty() || ours.is_empty())
            }
            None => ours == theirs,
        };
        if !same {
            return Some(format!("{what} is\n{ours}\ninstead of\n{theirs}"));
        }
    }
    None
}

/// The API that makes the recorded program print `stdout`.
fn answers(name: &str, stdout: &str, rest: &[Value]) -> impl Fn(&Asked) -> Answer + Send + Sync + 'static {
    let recorded = |name: &str| -> String {
        let case = rest.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no REST case {name}"));
        case["response"]["body"].as_str().expect("body").to_string()
    };
    let (id, mut peers) = (recorded("GET /id"), recorded("GET /peers"));
    if name == "ctl peers ls" {
        // Peers answer in any order; the recording's is taken.
        let mut lines: Vec<&str> = peers.lines().collect();
        lines.sort_by_key(|line| {
            let peer: Value = serde_json::from_str(line).expect("peer");
            stdout.find(&format!("{} | ", peer["id"].as_str().expect("id")))
        });
        peers = lines.join("\n") + "\n";
    }
    let json_out = name.contains("--enc json");
    let documents: Vec<Value> = if json_out {
        serde_json::Deserializer::from_str(stdout).into_iter().collect::<Result<_, _>>().expect("JSON")
    } else {
        Vec::new()
    };
    let (name, stdout) = (name.to_string(), stdout.to_string());
    move |asked: &Asked| {
        let lines = |values: Vec<Value>| {
            Answer::stream(&values.iter().map(|v| format!("{v}\n")).collect::<String>(), "")
        };
        if json_out {
            return match (asked.method.as_str(), documents.as_slice()) {
                ("GET", [one]) if !asked.path.starts_with("/allocations") => Answer::json(one),
                _ => lines(documents.clone()),
            };
        }
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/id") => Answer::text(&id),
            ("GET", "/peers") => Answer::stream(&peers, ""),
            ("GET", "/version") => Answer::json(&json!({"version": stdout.trim()})),
            ("GET", "/monitor/metrics") => Answer::json(&json!(stdout.lines().collect::<Vec<_>>())),
            ("GET", path) if path.starts_with("/monitor/metrics/") => Answer::json(&metrics(&stdout)),
            ("GET", "/health/alerts") => Answer::json(&json!([])),
            ("GET", "/health/bandwidth") => Answer::json(&bandwidth(&stdout)),
            ("POST", "/ipfs/gc") => Answer::json(&gc(&stdout)),
            ("POST", "/add") => lines(added(&stdout)),
            ("GET", "/allocations") => lines(stdout.lines().map(pin).collect()),
            ("GET", path) if path.starts_with("/allocations/") => Answer::json(&pin(&stdout)),
            ("GET", "/pins") => lines(statuses(&stdout)),
            ("GET", path) if path.starts_with("/pins/") => Answer::json(&statuses(&stdout)[0]),
            ("POST", path) if path.ends_with("/recover") => Answer::json(&statuses(&stdout)[0]),
            ("DELETE", _) if stdout.contains("404") => {
                Answer::json(&json!({"code": 404, "message": "pin is not part of the pinset"})).status(404)
            }
            ("POST" | "DELETE", path) if path.starts_with("/pins/ipfs/") => {
                let cid = path.trim_start_matches("/pins/ipfs/");
                if name.contains("--no-status") {
                    Answer::json(&pin(&stdout))
                } else {
                    Answer::json(&pin(&format!("{cid} |  | PIN | Repl. Factor: -1 | Allocations: [everywhere] | Recursive | Metadata: no | Exp: ∞ | Added: unknown")))
                }
            }
            _ => Answer::json(&json!({"code": 404, "message": "not found"})).status(404),
        }
    }
}

fn time(text: &str) -> String {
    match text {
        "∞" | "unknown" => "0001-01-01T00:00:00Z".into(),
        text => format!("{}Z", text.replace(' ', "T")),
    }
}

fn pin(line: &str) -> Value {
    let parts: Vec<&str> = line.trim_end().split(" | ").collect();
    let field = |key: &str| {
        parts.iter().find_map(|p| p.strip_prefix(key)).unwrap_or_else(|| panic!("{key} in {line}"))
    };
    assert_eq!(field("Repl. Factor: "), "-1");
    let metadata = if field("Metadata: ") == "yes" { json!({"a": "b"}) } else { Value::Null };
    json!({"replication_factor_min": -1, "replication_factor_max": -1, "name": parts[1], "mode": "recursive",
           "shard_size": 0, "user_allocations": null, "expire_at": time(field("Exp: ")), "metadata": metadata,
           "pin_update": null, "origins": [], "cid": parts[0], "type": parts[2].to_lowercase(), "allocations": [],
           "max_depth": -1, "reference": null, "timestamp": time(field("Added: "))})
}

fn statuses(text: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for line in text.lines() {
        if let Some(peer) = line.strip_prefix("    > ") {
            let (name, rest) = peer.split_once(':').expect("name");
            let parts: Vec<&str> = rest.trim().split(" | ").collect();
            let id = PEERS.iter().find(|(_, n)| *n == name.trim()).expect("peer").0;
            all.last_mut().expect("a CID first")["peer_map"][id] = json!({
                "peername": name.trim(), "status": parts[0].to_lowercase(), "timestamp": parts[1], "error": "",
                "attempt_count": parts[2].strip_prefix("Attempts: ").and_then(|n| n.parse::<u32>().ok()),
                "priority_pin": parts[3] == "Priority: true"});
        } else {
            let (cid, name) =
                line.trim_end_matches(':').split_once(" | ").unwrap_or((line.trim_end_matches(':'), ""));
            all.push(json!({"cid": cid, "name": name, "allocations": [], "origins": [],
                            "created": "2026-11-21T03:02:32Z", "metadata": null, "peer_map": {}}));
        }
    }
    all
}

fn metrics(text: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_nanos() as i64;
    let all = text.lines().map(|line| {
        let (peer, rest) = line.split_once(" | ").expect("peer");
        let (name, rest) = rest.split_once(": ").expect("name");
        let (value, rest) = rest.rsplit_once(" | Expires in: ").expect("expiry");
        let seconds: i64 = rest.split(' ').next().and_then(|n| n.parse().ok()).expect("seconds");
        // "10 GB" was printed for this many bytes.
        let (value, weight) = if name == "freespace" { ("9999825275", 9_999_825_275i64) } else { (value, 0) };
        json!({"name": name, "peer": peer, "value": value, "expire": now + seconds * 1_000_000_000 + 900_000_000,
               "valid": true, "weight": weight, "partitionable": false, "received_at": now})
    });
    all.collect()
}

fn bandwidth(text: &str) -> Value {
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let (protocol, rest) = line.split_once(": In:").expect("protocol");
        let parts: Vec<&str> = rest.split(". ").collect();
        let bytes = |text: &str| {
            let (number, unit) = text.trim().split_once(' ').expect("unit");
            let scale = if unit == "kB" { 1000.0 } else { 1.0 };
            (number.parse::<f64>().expect("number") * scale).round() as u64
        };
        let rate = |text: &str, key: &str| {
            text.strip_prefix(key)
                .and_then(|t| t.strip_suffix("B/s"))
                .and_then(|t| t.parse::<f64>().ok())
                .expect("rate")
        };
        all.insert(
            protocol.trim().to_string(),
            json!({"total_in": bytes(parts[0]), "total_out": bytes(parts[1].strip_prefix("Out:").expect("out")),
                   "rate_in": rate(parts[2], "RateIn: "), "rate_out": rate(parts[3], "RateOut: ")}),
        );
    }
    json!(all)
}

fn gc(text: &str) -> Value {
    let mut all = json!({"peer_map": {}});
    let mut id = "";
    for line in text.lines() {
        if let Some(key) = line.strip_prefix("    - ") {
            all["peer_map"][id]["keys"].as_array_mut().expect("keys").push(json!({"key": key}));
        } else if !line.starts_with(' ') {
            id = PEERS.iter().find(|(_, n)| *n == line.trim()).expect("peer").0;
            all["peer_map"][id] = json!({"peer": id, "peername": line.trim(), "keys": []});
        }
    }
    all
}

fn added(text: &str) -> Vec<Value> {
    let all = text.lines().map(|line| match line.strip_prefix("added ") {
        Some(rest) => {
            let (cid, name) = rest.split_once(' ').expect("name");
            json!({"name": name, "cid": cid, "size": 20})
        }
        None => json!({"name": "hello.txt", "cid": line, "size": 20}),
    });
    all.collect()
}
