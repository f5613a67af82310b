//! Every key of the table with every kind of value, in the file and by its variable.

use super::{parse, with_env};
use crate::config::schema::{insert, lookup};
use crate::config::*;
use crate::Kind;
use serde_json::{json, Value};

/// The most characters of a message about a value.
const LONGEST_MESSAGE: usize = 1_000;

/// A file with the section that a key is in, and little else: hundreds of keys times dozens of values are read here.
fn file_for(path: &str) -> Value {
    // Where there is no allocator, it follows the informers: not what is looked at here.
    let allocator = json!({"balanced": {"allocate_by": ["freespace"]}});
    let mut tree = json!({"informer": {"disk": {}, "tags": {}}, "allocator": allocator});
    let mut dots = path.match_indices('.').map(|(at, _)| &path[..at]);
    let section = dots.next_back().unwrap_or(path);
    if lookup(&tree, section).is_none() && section != "ipfs_connector" {
        insert(&mut tree, section, json!({}));
    }
    if path.starts_with("cluster.replication_factor") {
        insert(&mut tree, "cluster.replication_factor_min", json!(1));
        insert(&mut tree, "cluster.replication_factor_max", json!(9));
    }
    // What belongs together is all there, so that one of them can be another.
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let together: &[(&str, &str)] = match name {
        "ssl_cert_file" | "ssl_key_file" => &[("ssl_cert_file", "cert.pem"), ("ssl_key_file", "key.pem")],
        "libp2p_listen_multiaddress" | "id" | "private_key" => {
            &[("libp2p_listen_multiaddress", "/ip4/1.1.1.1/tcp/1"), ("id", "i"), ("private_key", "k")]
        }
        _ => &[],
    };
    for (name, value) in together {
        insert(&mut tree, &format!("{section}.{name}"), json!(value));
    }
    tree
}

/// Whether the message lets a person find the key.
fn names(message: &str, path: &str) -> bool {
    let (section, name) = path.rsplit_once('.').expect("a key is in a section");
    if message.contains("cluster.replication_factor_min and max ") {
        return path.starts_with("cluster.replication_factor_");
    }
    message.contains(path)
        || message.contains(section)
            && message.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == name)
}

/// A value must load and survive being written, or be refused in one sentence that names the key.
fn try_value(key: &Key, value: &Value) {
    let mut tree = file_for(&key.path);
    insert(&mut tree, &key.path, value.clone());
    let told = |what: &str| {
        format!("{} = {}: {what}", key.path, &value.to_string().chars().take(80).collect::<String>())
    };
    match parse(&tree) {
        Ok((config, _)) => {
            let text = config.to_text().expect("text");
            let again = Config::parse("service.json", &text, &Env::empty());
            let (again, _) = again.unwrap_or_else(|e| panic!("{}: {e}", told("again")));
            assert!(again.means(&config), "{}", told("means something else when it is written"));
        }
        Err(error) => check_message(key, error.kind(), error.message(), value, &told("")),
    }
}

fn check_message(key: &Key, kind: Kind, message: &str, value: &Value, told: &str) {
    assert_eq!(kind, Kind::Invalid, "{told}: {message}");
    assert!(names(message, &key.path), "{told} is not named: {message}");
    assert!(message.chars().count() <= LONGEST_MESSAGE, "{told}: {} bytes", message.len());
    assert!(!message.chars().any(char::is_control), "{told}: {message:?}");
    if let (true, Value::String(text)) = (key.secret, value) {
        assert!(text.len() < 3 || !message.contains(text.as_str()), "{told} is shown: {message}");
    }
}

#[test]
fn every_key_given_what_does_not_belong_loads_or_is_refused_by_its_name() {
    let long = "x".repeat(100_000);
    let values = [
        json!("a string"),
        json!(""),
        json!("two\nlines\u{7}"),
        json!(long),
        json!("-5s"),
        json!("99999999999999999999h"),
        json!("2562047h"),
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(true),
        json!(null),
        json!([]),
        json!([""]),
        json!(["two\nlines", long]),
        json!(vec!["/ip4/127.0.0.1/tcp/1"; 5000]),
        json!({}),
        json!({"a": {"b": {"c": 1}}}),
        json!({"two\nlines": "x\r\ny"}),
    ];
    for key in keys() {
        for value in &values {
            try_value(key, value);
        }
    }
}

#[test]
fn every_section_given_something_else_is_refused_by_its_name() {
    let mut sections: Vec<&str> =
        keys().iter().flat_map(|k| k.path.match_indices('.').map(|(at, _)| &k.path[..at])).collect();
    sections.dedup();
    for section in sections {
        for value in [json!(1), json!("x"), json!([]), json!([{}]), json!(false), json!(-1e300)] {
            let mut tree = file_for(section);
            insert(&mut tree, section, value.clone());
            let error = parse(&tree).expect_err(section).message().to_owned();
            assert!(error.contains(&format!("{section} must be an object")), "{section} = {value}: {error}");
        }
        // null is as good as absent.
        let mut tree = file_for(section);
        insert(&mut tree, section, Value::Null);
        if let Err(error) = parse(&tree) {
            assert!(error.message().contains("ipfs_connector"), "{section}: {error}");
        }
    }
}

#[test]
fn every_variable_given_what_does_not_belong_is_refused_by_its_name() {
    let long = "x".repeat(100_000);
    for key in keys() {
        for text in [
            "a string",
            "-1",
            "",
            "two\nlines",
            "-5s",
            "99999999999999999999h",
            "1e300",
            "18446744073709551615",
            ",:,",
            &long,
        ] {
            let told = format!("{}={}", key.env, text.chars().take(80).collect::<String>());
            match with_env(&file_for(&key.path), &[(&key.env, text)]) {
                Ok((config, _)) => drop(config.to_text().expect(&told)),
                Err(error) => {
                    let message = error.message();
                    // What is wrong only in company is told by the key.
                    let named = message.contains(&key.env) || names(message, &key.path);
                    assert!(named, "{told}: {message}");
                    assert!(message.chars().count() <= LONGEST_MESSAGE, "{told}: {} bytes", message.len());
                    assert!(!message.chars().any(char::is_control), "{told}: {message:?}");
                }
            }
        }
    }
}

/// What a variable is set to, and what the file then would say; never the default.
fn sample(key: &Key) -> (String, Value) {
    const PEER: &str = "12D3KooWEnbHdSKYsWy2jFd9srbdrcvABEUsL5vRQZk97cjJZdxy";
    let text = |text: &str| (text.to_owned(), json!(text));
    let list = |items: &[&str]| (items.join(","), json!(items));
    match key.path.as_str() {
        "cluster.secret" => text(&"cd".repeat(32)),
        "cluster.peers" | "cluster.bootstrap" | "cluster.peer_addresses" => {
            let [a, b] = ["1.2.3.4", "1.2.3.5"].map(|ip| format!("/ip4/{ip}/tcp/9096/p2p/{PEER}"));
            list(&[&a, &b])
        }
        "consensus.raft.init_peerset" => list(&[PEER]),
        "allocator.balanced.allocate_by" => list(&["freespace", "pinqueue"]),
        "consensus.raft.trailing_logs" => ("7".into(), json!(7)),
        _ => match key.kind {
            "boolean" => {
                (if key.default == "true" { "F".into() } else { "True".into() }, json!(key.default != "true"))
            }
            "number" => {
                let number = key.default.parse::<i64>().expect("a number").unsigned_abs() + 1;
                (number.to_string(), json!(number))
            }
            "fraction" => ("0.25".into(), json!(0.25)),
            "duration" => text("1m17s"),
            "size" => text("77GB"),
            "text" => text("something"),
            "list of texts" => list(&["one", "two"]),
            "multiaddress or list of multiaddresses" => {
                list(&["/ip4/127.0.0.1/tcp/4242", "/ip6/::1/tcp/4242"])
            }
            "map of texts" => ("a:b,c:d:e".into(), json!({"a": "b", "c": "d:e"})),
            "map of lists of texts" => ("X-A:b,X-C:d:e".into(), json!({"X-A": ["b"], "X-C": ["d:e"]})),
            "map of users and passwords, or null" => ("u:p:q,v:".into(), json!({"u": "p:q", "v": ""})),
            "\"private\" or \"public\"" => text("public"),
            "\"freespace\" or \"reposize\"" => text("reposize"),
            other => panic!("{}: a sample for the kind {other} is missing here", key.path),
        },
    }
}

#[test]
fn every_variable_sets_its_key_and_no_other() {
    let written = |tree: &Value, env: &[(String, String)]| {
        let pairs: Vec<(&str, &str)> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let (config, _) = with_env(tree, &pairs).unwrap_or_else(|e| panic!("{env:?}: {e}"));
        serde_json::from_str::<Value>(&config.to_text().expect("text")).expect("JSON")
    };
    for key in keys() {
        let mut tree = file_for(&key.path);
        if key.default == "true" {
            // Missing would be false already.
            insert(&mut tree, &key.path, json!(true));
        }
        let (value, expected) = sample(key);
        let before = written(&tree, &[]);
        let after = written(&tree, &[(key.env.clone(), value)]);
        assert_eq!(lookup(&after, &key.path), Some(&expected), "{}", key.env);
        assert_ne!(lookup(&before, &key.path), Some(&expected), "{}: the sample is the default", key.env);
        for other in keys().iter().filter(|k| k.path != key.path) {
            assert_eq!(
                lookup(&after, &other.path),
                lookup(&before, &other.path),
                "{} changed {}",
                key.env,
                other.path
            );
        }
    }
}
