//! Plays what the IPFS proxy of the real ipfs-cluster answered, in the recorded order, against ours with a real Kubo
//! behind it.
//!
//! Compared are status, the headers that clients act on, and the body: to the byte where it does not depend on the
//! machine, else by its shape. Where pinfold answers otherwise on purpose, [`DIFFERENCES`] says what and why;
//! anything else is a failure, all of them listed at once.

#[path = "support/http.rs"]
mod http;
#[path = "support/kubo.rs"]
mod kubo_daemon;
#[path = "support/proxied.rs"]
mod proxied;
mod support;

use http::Answer;
use proxied::Proxied;
use serde_json::Value;
use support::cluster;

/// What pinfold answers instead.
struct Difference {
    case: &'static str,
    status: u16,
    /// Our body contains this.
    says: &'static str,
    #[allow(dead_code)]
    reason: &'static str,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        case: "proxy add only-hash",
        status: 200,
        says: r#"{"Name":"ph.txt","Hash":"QmPZTMC9oz8s3fLR8gKcKjrwMdiBTYFzj9RzpY3kCsTjfV","Size":"18"}"#,
        reason: "ipfs-cluster answers 500, says that it cannot, and adds it all the same",
    },
    Difference {
        case: "proxy add nocopy",
        status: 500,
        says: "trickle",
        reason: "an error known before the first line is a status, not a trailer behind 200",
    },
    Difference {
        case: "proxy add, no multipart",
        status: 500,
        says: "error reading request: request Content-Type isn't multipart/form-data",
        reason: "our sentence goes on and says what to do",
    },
    Difference {
        case: "POST /api/v0/pin/rm?arg=QmPfH6UzX6fcgosbYeKYcHArk7h6KEZdKbYG8WNr4JWyuK",
        status: 200,
        says: r#"{"Pins":["QmPfH6UzX6fcgosbYeKYcHArk7h6KEZdKbYG8WNr4JWyuK"]}"#,
        reason: "ipfs-cluster had unpinned it already, for a pin/update that failed",
    },
    Difference {
        case: "POST /api/v0/commands",
        status: 200,
        says: r#"{"Name":"ipfs","Subcommands":[{"Name":""#,
        reason: "the recording was cut",
    },
    Difference {
        case: "POST /api/v0/pin/ls?arg=/ipfs/QmPfH6UzX6fcgosbYeKYcHArk7h6KEZdKbYG8WNr4JWyuK",
        status: 200,
        says: r#"{"Keys":{"QmPfH6UzX6fcgosbYeKYcHArk7h6KEZdKbYG8WNr4JWyuK":{"Type":"recursive"}}}"#,
        reason: "paths are understood, as Kubo understands them",
    },
];

/// Headers that clients act on.
const HEADERS: [&str; 11] = [
    "Content-Type",
    "Trailer",
    "Vary",
    "Allow",
    "X-Chunked-Output",
    "X-Stream-Output",
    "X-Content-Length",
    "X-Content-Type-Options",
    "Cache-Control",
    "Access-Control-Expose-Headers",
    "Access-Control-Allow-Headers",
];

/// Bodies that depend on the machine: compared by the names in their lines.
const SHAPES: [&str; 6] = ["/id", "/repo/stat", "/swarm/peers", "/repo/gc", "/pin/ls", "/pin/ls?stream=true"];

/// The names in the first JSON value of a body, in order; of a map with data as names, those of its first value.
fn names(body: &str) -> Vec<String> {
    let first = serde_json::Deserializer::from_str(body).into_iter::<Value>().next();
    let Some(Ok(Value::Object(map))) = first else { return Vec::new() };
    let inner = map.get("Keys").and_then(|keys| keys.as_object()?.values().next()?.as_object());
    map.keys().chain(inner.into_iter().flat_map(|i| i.keys())).cloned().collect()
}

fn compare(case: &Value, got: &Answer) -> Vec<String> {
    let (name, want) = (case["name"].as_str().unwrap_or_default(), &case["response"]);
    let path = case["request"]["path"].as_str().unwrap_or_default();
    let mut wrong = Vec::new();
    let text = got.text();
    if let Some(d) = DIFFERENCES.iter().find(|d| d.case == name) {
        if got.status != d.status || !text.contains(d.says) {
            wrong.push(format!("{} {text:?}, not {} with {:?}", got.status, d.status, d.says));
        }
        return wrong;
    }
    let status = want["status"].as_str().and_then(|s| s.split(' ').nth(1)?.parse::<u16>().ok());
    if status != Some(got.status) {
        wrong.push(format!("status {}, not {status:?}: {text:?}", got.status));
        return wrong;
    }
    let recorded = Answer { headers: http::pairs(&want["headers"]), ..Answer::default() };
    for header in HEADERS {
        let (want, got) = (recorded.header(header), got.header(header));
        if want != got {
            wrong.push(format!("header {header}: {got:?}, not {want:?}"));
        }
    }
    let of_cluster =
        |a: &Answer| a.header("Server").is_some_and(|s| s.starts_with("ipfs-cluster/ipfsproxy/"));
    if of_cluster(&recorded) != of_cluster(got) {
        wrong.push(format!("Server is {:?}, not {:?}", got.header("Server"), recorded.header("Server")));
    }
    if http::pairs(&want["trailers"]) != got.trailers {
        wrong.push(format!("trailers {:?}, not {:?}", got.trailers, want["trailers"]));
    }
    let body = want["body"].as_str().unwrap_or_default();
    let call = path.trim_start_matches("/api/v0");
    if got.status == 200
        && SHAPES.iter().any(|s| *s == call || call.starts_with(&format!("{s}?")) && !call.contains("arg="))
    {
        // What there is to be listed or removed differs; what is there has the recorded form.
        if !text.is_empty()
            && !body.is_empty()
            && !text.contains(r#"{"Keys":{}}"#)
            && names(body) != names(&text)
        {
            wrong.push(format!("names {:?}, not {:?}", names(&text), names(body)));
        }
    } else if text != body {
        wrong.push(format!("body {text:?}, not {body:?}"));
    }
    wrong
}

#[test]
fn the_proxy_answers_as_recorded() {
    let Some(folder) = cluster::golden() else {
        return support::skip("no recordings of ipfs-cluster ($PINFOLD_GOLDEN)");
    };
    let Some(fold) = Proxied::of(1) else { return };
    let bytes = std::fs::read(folder.join("proxy.json")).expect("a recording");
    let cases: Vec<Value> = serde_json::from_slice(&bytes).expect("a recording is JSON");
    let proxy = fold.peer(0).proxy();
    let mut failures = Vec::new();
    for case in &cases {
        let wrong = match http::play(proxy, &case["request"]) {
            Ok(answer) => compare(case, &answer),
            Err(error) => vec![error],
        };
        if !wrong.is_empty() {
            failures.push(format!("{}\n    {}", case["name"], wrong.join("\n    ")));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases differ:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}
