//! The configuration as a whole: real files, files of other ages, bad files, variables, a new peer.

mod edit;
mod values;

use super::init::{init, is_fresh, would_overwrite, Consensus, InitOptions, Ports};
use super::*;
use crate::Kind;
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const GOLDEN: &str = include_str!("../../tests/golden/service.json");
const IDENTITIES: &str = include_str!("../../tests/golden/identities.json");

/// The service.json that the real `init --consensus raft` wrote.
pub(super) fn golden() -> String {
    let cases: Value = serde_json::from_str(GOLDEN).expect("golden");
    let case = cases.as_array().expect("cases").iter().find(|c| c["name"] == "the service.json of init");
    case.expect("case")["response"]["stdout"].as_str().expect("text").to_owned()
}

pub(super) fn parse(value: &Value) -> Result<(Config, Vec<String>)> {
    Config::parse("service.json", &value.to_string(), &Env::empty())
}

pub(super) fn with_env(value: &Value, pairs: &[(&str, &str)]) -> Result<(Config, Vec<String>)> {
    Config::parse("service.json", &value.to_string(), &Env::from_pairs(pairs.iter().copied()))
}

/// The golden file with one key changed (`null` removes it).
pub(super) fn golden_with(path: &str, value: Value) -> Value {
    let mut tree: Value = serde_json::from_str(&golden()).expect("golden");
    match value {
        Value::Null => drop(schema::remove(&mut tree, path)),
        value => schema::insert(&mut tree, path, value),
    }
    tree
}

pub(super) fn error_of(value: &Value) -> String {
    parse(value).expect_err("must be refused").message().to_owned()
}

pub(super) fn temp() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().expect("temp dir");
    let folder = Folder::new(dir.path().join("peer"));
    (dir, folder)
}

#[test]
fn the_real_file_loads_without_a_word_and_is_written_back_byte_for_byte() {
    let (config, warnings) = Config::parse("service.json", &golden(), &Env::empty()).expect("load");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.cluster.peername, "vm");
    assert_eq!(config.consensus.timing(), (Duration::from_millis(200), Duration::from_secs(1)));
    assert!(matches!(config.ipfs, IpfsSection::Http(_)));
    assert_eq!(config.to_text().expect("text"), golden());
}

#[test]
fn the_defaults_are_those_of_the_real_init() {
    let mut config = Config::default();
    let (real, _) = Config::parse("service.json", &golden(), &Env::empty()).expect("load");
    config.cluster.peername = "vm".into();
    config.cluster.secret = real.cluster.secret.clone();
    assert_eq!(config.to_text().expect("text"), golden());
}

#[test]
fn what_is_not_known_is_kept_and_named() {
    let mut tree = golden_with("api.restapi.experimental", json!({"deep": [1, 2]}));
    schema::insert(&mut tree, "mysection", json!({"a": 1}));
    schema::insert(&mut tree, "datastore", json!({"pebble": {"x": 1}}));
    let (config, warnings) = parse(&tree).expect("load");
    assert_eq!(
        warnings,
        [
            "api.restapi.experimental is not a known key and has no effect",
            "mysection is not a known key and has no effect"
        ]
    );
    let saved: Value = serde_json::from_str(&config.to_text().expect("text")).expect("json");
    assert_eq!(saved, tree);
}

#[test]
fn a_value_is_left_as_it_was_written_when_it_means_the_same() {
    let text = golden()
        .replace("\"12m0s\"", "\"0h12m\"")
        .replace("\"/ip4/127.0.0.1/tcp/9095\"", "[\"/ip4/127.0.0.1/tcp/9095\"]");
    assert!(text.contains("0h12m"));
    let (mut config, _) = Config::parse("service.json", &text, &Env::empty()).expect("load");
    let again = config.to_text().expect("text");
    assert!(again.contains("\"pin_recover_interval\": \"0h12m\""), "{again}");
    config.cluster.pin_recover_interval = Duration::from_secs(60);
    assert!(config.to_text().expect("text").contains("\"pin_recover_interval\": \"1m0s\""));
}

#[test]
fn a_misspelt_key_is_answered_with_the_nearest_known_one() {
    for (path, meant) in [
        ("cluster.secrets", "cluster.secret"),
        ("cluster.replication_factor_mim", "cluster.replication_factor_min"),
        ("api.restapy", "api.restapi"),
        ("informers", "informer"),
        ("consensus.raft.electiontimeout", "consensus.raft.election_timeout"),
        // The right name in the wrong section.
        ("cluster.pin_timeout", "ipfs_connector.ipfshttp.pin_timeout"),
    ] {
        let (_, warnings) = parse(&golden_with(path, json!("x"))).expect(path);
        assert_eq!(warnings, [format!("{path} is not a known key and has no effect; did you mean {meant}?")]);
    }
}

#[test]
fn a_file_that_is_something_else_is_not_answered_with_thousands_of_lines() {
    let mut tree = golden_with("x", json!(1));
    for n in 0..5000 {
        schema::insert(&mut tree, &format!("key{n}"), json!(1));
    }
    let (_, warnings) = parse(&tree).expect("load");
    assert!(warnings.len() < 40, "{}", warnings.len());
    assert!(warnings.last().expect("one").contains("more keys are not known"));
}

#[test]
fn every_value_that_does_not_fit_is_named_with_its_key_and_what_would() {
    for (path, value, shown, fix) in [
        ("cluster.peername", json!(5), "cluster.peername is 5:", "text in quotes"),
        ("cluster.leave_on_shutdown", json!("yes"), "is \"yes\":", "true or false"),
        ("cluster.listen_multiaddress", json!("nonsense"), "\"nonsense\"", "like \"/ip4/"),
        ("cluster.listen_multiaddress", json!([1]), "element 1", "text in quotes"),
        ("cluster.dial_peer_timeout", json!(3), "cluster.dial_peer_timeout is 3:", "\"1m30s\""),
        ("cluster.dial_peer_timeout", json!("3 seconds"), "\"3 seconds\"", "is not a duration"),
        ("cluster.state_sync_interval", json!("-1s"), "cluster.state_sync_interval is \"-1s\"", "negative"),
        ("cluster.connection_manager.high_water", json!(-1), "high_water is -1:", "between 0 and"),
        ("cluster.connection_manager.high_water", json!(1.5), "high_water is 1.5:", "whole number"),
        ("consensus.raft.trailing_logs", json!("10"), "trailing_logs is \"10\":", "without quotes"),
        ("informer.disk.metric_type", json!("diskspace"), "\"diskspace\"", "\"freespace\" or \"reposize\""),
        ("informer.tags.tags", json!({"group": 1}), "informer.tags.tags", "\"group\" must be text"),
        ("allocator.balanced.allocate_by", json!({}), "allocate_by is {}:", "a list of texts"),
        ("observations.tracing.sampling_prob", json!("x"), "sampling_prob", "a number like 0.3"),
        ("api.restapi", json!([]), "api.restapi must be an object", "remove it"),
        ("cluster", json!("x"), "cluster must be an object", "remove it"),
    ] {
        let error = error_of(&golden_with(path, value));
        assert!(error.starts_with("service.json: "), "{error}");
        assert!(error.contains(shown) && error.contains(fix), "{path}: {error}");
    }
}

#[test]
fn every_combination_that_makes_no_sense_is_named_with_the_way_out() {
    for (path, value, words) in [
        ("cluster.replication_factor_min", json!(0), "cluster.replication_factor_min and max must be set"),
        ("cluster.replication_factor_min", json!(-2), "cluster.replication_factor_min is -2; use -1"),
        ("cluster.replication_factor_max", json!(3), "must be in both or in neither"),
        ("cluster.listen_multiaddress", json!([]), "cluster.listen_multiaddress is empty; write"),
        (
            "cluster.listen_multiaddress",
            json!("/ip4/0.0.0.0/udp/9096/quic"),
            "only TCP addresses can be used; add",
        ),
        ("cluster.peer_addresses", json!(["/ip4/1.2.3.4/tcp/9096"]), "add /p2p/<peer id>"),
        ("cluster.connection_manager.low_water", json!(500), "lower than low_water, 500"),
        ("cluster.peername", json!("a\nb"), "cluster.peername must be a name"),
        (
            "cluster.state_sync_interval",
            json!("1ns"),
            "cluster.state_sync_interval is \"1ns\"; it must be \"10ms\"",
        ),
        (
            "consensus.raft.backups_rotate",
            json!(0),
            "consensus.raft.backups_rotate is 0; it must be 1 or more",
        ),
        ("consensus.raft.election_timeout", json!("2h"), "at most \"10m0s\" makes sense"),
        ("consensus.raft.data_folder", json!("../x"), "must be the name of a folder inside"),
        ("consensus.raft.data_folder", json!("/etc"), "must be the name of a folder inside"),
        (
            "api.restapi.basic_auth_credentials",
            json!({}),
            "lets nobody in; write {\"user\": \"password\"}, or null",
        ),
        ("api.restapi.basic_auth_credentials", json!({"a:b": "c"}), "has a colon"),
        (
            "api.restapi.max_header_bytes",
            json!(100),
            "api.restapi.max_header_bytes is 100; it must be between 4096",
        ),
        ("api.pinsvcapi.max_header_bytes", json!(1 << 30), "it must be between 4096 and 1048576"),
        ("api.restapi.ssl_cert_file", json!("c.pem"), "api.restapi.ssl_key_file is not; TLS needs both"),
        ("api.restapi.id", json!("x"), "belong together; set all three or remove them"),
        ("api.restapi.headers", json!({"A b": ["c"]}), "\"A b\", which is no HTTP header"),
        ("api.restapi.headers", json!({"A": ["c\r\nSet-Cookie: x"]}), "line break"),
        (
            "api.restapi.http_listen_multiaddress",
            json!("/unix/x"),
            "which is not a TCP address; write it like",
        ),
        ("api.ipfsproxy.listen_multiaddress", json!("/ip4/1.2.3.4"), "api.ipfsproxy.listen_multiaddress is"),
        ("ipfs_connector.ipfshttp.node_multiaddress", json!([]), "node_multiaddress is empty; write"),
        ("ipfs_connector.embedded", json!({}), "ipfs_connector has both ipfshttp and embedded; keep"),
        ("ipfs_connector", json!({}), "ipfs_connector names no IPFS node; write"),
        ("allocator.balanced.allocate_by", json!([]), "allocate_by is empty; write"),
        ("allocator.balanced.allocate_by", json!(["space"]), "\"space\", which is no metric; use"),
        ("monitor.pubsubmon.check_interval", json!("1us"), "monitor.pubsubmon.check_interval is \"1µs\""),
        ("informer.disk.metric_ttl", json!("1ms"), "informer.disk.metric_ttl is \"1ms\""),
        ("observations.tracing.sampling_prob", json!(2), "sampling_prob is 2; it must be between 0 and 1"),
        ("source", json!("http://example.org/c.json"), "says source"),
    ] {
        let error = error_of(&golden_with(path, value.clone()));
        assert!(error.contains(words), "{path} = {value}: {error}");
    }
    let mut tree = golden_with("cluster.replication_factor_min", json!(3));
    schema::insert(&mut tree, "cluster.replication_factor_max", json!(2));
    assert!(error_of(&tree).contains("is 3, larger than cluster.replication_factor_max, 2"));
    let mut tree = golden_with("cluster.pin_only_on_trusted_peers", json!(true));
    schema::insert(&mut tree, "cluster.pin_only_on_untrusted_peers", json!(true));
    assert!(error_of(&tree).contains("leaves no peer"));
    let mut tree = golden_with("observations.metrics.enable_stats", json!(true));
    schema::insert(&mut tree, "observations.metrics.prometheus_endpoint", json!("/ip4/1.1.1.1/udp/1"));
    assert!(error_of(&tree).contains("observations.metrics.prometheus_endpoint"));
}

#[test]
fn the_embedded_node_s_keys_are_checked() {
    let tree = |value: Value| golden_with("ipfs_connector", json!({ "embedded": value }));
    let (config, warnings) = parse(&tree(json!({}))).expect("defaults");
    assert_eq!(warnings, Vec::<String>::new());
    let IpfsSection::Embedded(node) = &config.ipfs else { panic!("embedded expected") };
    assert_eq!(*node, EmbeddedSection::default());
    assert_eq!(node.storage_max, ByteSize(10_000_000_000));
    for (value, words) in [
        (json!({"storage_max": "1MB"}), "storage_max is \"1MB\"; it must be \"10MB\" or more"),
        (json!({"storage_max": "lots"}), "storage_max is \"lots\": it must be a size like \"10GB\""),
        (json!({"network": "home"}), "network is \"home\": it must be \"private\" or \"public\""),
        (json!({"network": "public", "swarm_key_file": "swarm.key"}), "remove swarm_key_file"),
        (json!({"data_folder": "raft"}), "are both \"raft\"; choose two folders"),
        (json!({"data_folder": "a/../../b"}), "must be the name of a folder inside"),
    ] {
        let error = error_of(&tree(value));
        assert!(error.contains(words), "{error}");
    }
    let (config, _) = parse(&tree(json!({"storage_max": 123_456_789, "network": "public"}))).expect("load");
    let saved = config.to_text().expect("text");
    assert!(saved.contains("\"storage_max\": 123456789"), "a number stays one: {saved}");
    assert!(saved.contains("\"data_folder\": \"ipfs\""));
    assert!(!saved.contains("ipfshttp"));
}

#[test]
fn secrets_appear_in_no_message_and_no_debug() {
    let secret = "deadbeef".repeat(7);
    let error = error_of(&golden_with("cluster.secret", json!(secret)));
    assert!(error.contains("input secret is 28 bytes, cluster secret should be 32"), "{error}");
    assert!(!error.contains("deadbeef"), "{error}");
    let error = error_of(&golden_with("api.restapi.basic_auth_credentials", json!("hunter2")));
    assert!(error.contains("basic_auth_credentials") && !error.contains("hunter2"), "{error}");
    let error = with_env(&json!({}), &[("CLUSTER_SECRET", "hunter2")]).expect_err("bad").to_string();
    assert!(error.contains("CLUSTER_SECRET") && !error.contains("hunter2"), "{error}");

    let tree = golden_with("api.restapi.basic_auth_credentials", json!({"me": "hunter2"}));
    let (config, _) = parse(&tree).expect("load");
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("9c6dea29"), "{shown}");
    assert!(config.to_text().expect("text").contains("hunter2"), "the file has it, of course");
}

#[test]
fn zero_stands_for_the_default_but_not_everywhere() {
    let tree = json!({
        "cluster": {"state_sync_interval": "0s", "dial_peer_timeout": "", "mdns_interval": "0s", "secret": ""},
        "ipfs_connector": {"ipfshttp": {"connect_swarms_delay": "0s", "pin_timeout": "0s"}},
        "pin_tracker": {"stateless": {"concurrent_pins": 0}},
        "api": {"restapi": {"read_timeout": "0s", "idle_timeout": "0s"}}
    });
    let (config, _) = parse(&tree).expect("load");
    assert_eq!(config.cluster.state_sync_interval, Duration::from_secs(300));
    assert_eq!(config.cluster.dial_peer_timeout, Duration::from_secs(3));
    assert_eq!(config.cluster.mdns_interval, Duration::ZERO, "off");
    let IpfsSection::Http(http) = &config.ipfs else { panic!("ipfshttp expected") };
    assert_eq!(http.connect_swarms_delay, Duration::ZERO, "never");
    assert_eq!(http.pin_timeout, Duration::from_secs(120));
    assert_eq!(config.pin_tracker.concurrent_pins, 10);
    let api = config.restapi.expect("on");
    assert_eq!((api.read_timeout, api.idle_timeout), (Duration::ZERO, Duration::from_secs(120)));
}

#[test]
fn a_missing_boolean_is_false_and_a_missing_section_has_its_defaults() {
    let (config, warnings) = parse(&json!({"cluster": {}, "consensus": {"raft": {}}})).expect("load");
    assert!(!config.cluster.disable_repinning, "as in ipfs-cluster: repinning is on");
    assert!(!config.cluster.enable_relay_hop);
    assert!(config.cluster.resource_manager.enabled, "its section is missing as a whole");
    assert_eq!(config.consensus.commit_retries, 0);
    assert_eq!(config.consensus.backups_rotate, 6);
    assert!(
        config.restapi.is_none() && config.ipfsproxy.is_none() && config.pinsvcapi.is_none(),
        "absent is off"
    );
    assert_eq!(config.allocator.allocate_by, ["freespace"]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("informer is empty"));

    let (config, _) = parse(&json!({})).expect("load");
    assert!(config.cluster.disable_repinning && config.cluster.enable_relay_hop);
    assert_eq!(config.consensus.commit_retries, 1);
    assert_eq!(config.ipfs, IpfsSection::default());
}

#[test]
fn a_variable_of_every_kind_wins_over_the_file() {
    let secret = "ab".repeat(32);
    let tree: Value = serde_json::from_str(&golden()).expect("golden");
    let (config, warnings) = with_env(
        &tree,
        &[
            ("CLUSTER_SECRET", secret.as_str()),
            ("CLUSTER_PEERNAME", "kitchen"),
            ("CLUSTER_LEAVEONSHUTDOWN", "T"),
            ("CLUSTER_DISABLEREPINNING", "0"),
            ("CLUSTER_REPLICATIONFACTORMIN", "2"),
            ("CLUSTER_REPLICATIONFACTORMAX", "3"),
            ("CLUSTER_MONITORPINGINTERVAL", "2s"),
            ("CLUSTER_LISTENMULTIADDRESS", "/ip4/0.0.0.0/tcp/1,/ip6/::/tcp/1"),
            ("CLUSTER_CONNECTIONMANAGER_HIGHWATER", "401"),
            ("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", "/ip4/127.0.0.1/tcp/7"),
            ("CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "user:se:cret,other:"),
            ("CLUSTER_RESTAPI_HEADERS", "X-A:b"),
            ("CLUSTER_RESTAPI_CORSALLOWEDORIGINS", "a,b"),
            ("CLUSTER_TAGS_TAGS", "group:attic,room:3"),
            ("CLUSTER_BALANCED_ALLOCATEBY", "tag:room,freespace"),
            ("CLUSTER_DISK_METRICTYPE", "freespace"),
            ("CLUSTER_TRACING_SAMPLINGPROB", "0.3"),
            ("CLUSTER_RAFT_TRAILINGLOGS", "7"),
            ("CLUSTER_ID", "is for the identity"),
        ],
    )
    .expect("load");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.cluster.secret.expose_hex(), secret);
    assert_eq!(config.cluster.peername, "kitchen");
    assert!(config.cluster.leave_on_shutdown && !config.cluster.disable_repinning);
    assert_eq!((config.cluster.replication_factor_min, config.cluster.replication_factor_max), (2, 3));
    assert_eq!(config.cluster.monitor_ping_interval, Duration::from_secs(2));
    assert_eq!(config.cluster.listen_multiaddress.len(), 2);
    assert_eq!(config.cluster.connection_manager.high_water, 401);
    let api = config.restapi.as_ref().expect("on");
    assert_eq!(api.http_listen_multiaddress[0].to_string(), "/ip4/127.0.0.1/tcp/7");
    let users = api.basic_auth_credentials.0.as_ref().expect("users");
    assert_eq!((users["user"].as_str(), users["other"].as_str()), ("se:cret", ""));
    assert_eq!(api.headers["X-A"], ["b"]);
    assert_eq!(api.cors_allowed_origins, ["a", "b"]);
    assert_eq!(config.informer.tags.as_ref().expect("tags").tags["room"], "3");
    assert_eq!(config.allocator.allocate_by, ["tag:room", "freespace"]);
    assert_eq!(config.consensus.trailing_logs, 7);
}

#[test]
fn a_bad_variable_is_named_and_one_without_effect_too() {
    let tree: Value = serde_json::from_str(&golden()).expect("golden");
    for (name, value, words) in [
        ("CLUSTER_LEAVEONSHUTDOWN", "maybe", "true or false"),
        ("CLUSTER_REPLICATIONFACTORMIN", "two", "whole number"),
        ("CLUSTER_MONITORPINGINTERVAL", "15", "is not a duration"),
        ("CLUSTER_LISTENMULTIADDRESS", "0.0.0.0:9096", "is not a multiaddress"),
        ("CLUSTER_TAGS_TAGS", "group", "pairs separated by commas"),
        ("CLUSTER_TRACING_SAMPLINGPROB", "NaN", "a number like 0.3"),
    ] {
        let error = with_env(&tree, &[(name, value)]).expect_err(name).to_string();
        assert!(
            error.contains(&format!("the environment variable {name}")) && error.contains(words),
            "{error}"
        );
    }
    let (_, warnings) =
        with_env(&tree, &[("CLUSTER_SECRETS", "x"), ("CLUSTER_NUMPIN_METRICTTL", "1s")]).expect("load");
    assert_eq!(
        warnings,
        [
            "the environment variable CLUSTER_NUMPIN_METRICTTL has no effect, as service.json has no section \
             informer.numpin",
            "the environment variable CLUSTER_SECRETS is not known and has no effect; did you mean CLUSTER_SECRET?"
        ]
    );
    // A file without the section still runs Kubo, and its variables count.
    let (config, _) = with_env(&json!({}), &[("CLUSTER_IPFSHTTP_PINTIMEOUT", "7s")]).expect("load");
    let IpfsSection::Http(http) = config.ipfs else { panic!("ipfshttp expected") };
    assert_eq!(http.pin_timeout, Duration::from_secs(7));
}

#[test]
fn a_key_without_effect_is_named_only_when_it_asks_for_something() {
    let (_, warnings) =
        parse(&golden_with("observations.tracing.enable_tracing", json!(true))).expect("load");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("observations.tracing.enable_tracing has no effect in this version: "));
}

#[test]
fn metrics_to_allocate_by_that_nobody_tells_are_named() {
    let (_, warnings) = parse(&golden_with("informer.tags", Value::Null)).expect("load");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("\"tag:group\", which this peer does not tell")
            && warnings[0].contains("informer.tags")
    );
    let (_, warnings) = parse(&golden_with("informer.disk.metric_type", json!("reposize"))).expect("load");
    assert!(warnings[0].contains("set informer.disk.metric_type to \"freespace\""), "{warnings:?}");
}

#[test]
fn a_crdt_file_runs_raft_and_stays_one() {
    let mut tree = golden_with(
        "consensus",
        json!({"crdt": {
            "cluster_name": "ipfs-cluster", "trusted_peers": ["*"], "batching": {"max_batch_size": 0, "max_batch_age": "0s"},
            "repair_interval": "1h0m0s"
        }}),
    );
    schema::insert(&mut tree, "datastore", json!({"pebble": {}}));
    let (config, warnings) = parse(&tree).expect("load");
    assert_eq!(warnings.len(), 1, "said once: {warnings:?}");
    assert!(warnings[0].contains("runs Raft"));
    assert_eq!(config.consensus, RaftSection::default());
    assert_eq!(serde_json::from_str::<Value>(&config.to_text().expect("text")).expect("json"), tree);
    schema::insert(&mut tree, "consensus.raft", json!({}));
    let (_, warnings) = parse(&tree).expect("both");
    assert!(warnings[0].contains("has both raft and crdt"), "{warnings:?}");
}

#[test]
fn garbage_is_refused_with_its_place() {
    let bad =
        |text: &str| Config::parse("service.json", text, &Env::empty()).expect_err(text).message().to_owned();
    let error = bad("{\n  \"cluster\": {\n    \"peername\": \"a\"\n    \"secret\": \"\"\n  }\n}");
    assert!(error.starts_with("service.json, line 4, column 5: the JSON is not valid: "), "{error}");
    assert!(bad("").contains("is empty"));
    assert!(bad("[]").contains("must hold a JSON object"));
    assert!(bad("{\"cluster\"").contains("line 1, column 10"));
    assert!(bad(&"[".repeat(100_000)).contains("not valid"));
    Config::parse("service.json", &format!("\u{feff}{}", golden()), &Env::empty())
        .expect("a byte order mark is no harm");

    let (_dir, folder) = temp();
    let load = || Config::load(&folder, &Env::empty()).expect_err("refused");
    let error = load();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(
        error.message(),
        format!("open {}: no such file or directory", folder.service_json().display())
    );
    folder.create().expect("create");
    std::fs::write(folder.service_json(), vec![b' '; MAX_FILE_BYTES as usize + 1]).expect("write");
    assert_eq!(load().kind(), Kind::TooLarge);
    std::fs::write(folder.service_json(), b"{\"cluster\": \"\xff\"}").expect("write");
    assert!(load().message().contains("is not text (byte 13"), "{}", load());
    std::fs::remove_file(folder.service_json()).expect("remove");
    std::fs::create_dir(folder.service_json()).expect("a folder in its place");
    assert_eq!(load().kind(), Kind::Io);
}

/// Every prefix of the real file, and the file with each byte replaced, must be loaded or refused: no panic.
#[test]
fn a_damaged_file_never_panics() {
    let text = golden();
    for end in (0..text.len()).step_by(7) {
        assert!(Config::parse("service.json", &text[..end], &Env::empty()).is_err(), "cut at {end}");
    }
    for at in (0..text.len()).step_by(11) {
        for byte in [b'"', b'{', b'0', b'-', b'x'] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = byte;
            let _ = Config::parse("service.json", &String::from_utf8(bytes).expect("ASCII"), &Env::empty());
        }
    }
}

/// Each key in turn with a value of every JSON kind.
#[test]
fn no_value_of_any_kind_panics() {
    for key in keys() {
        for value in
            [json!(0), json!(-1), json!(1e300), json!("x"), json!(""), json!([]), json!({}), json!(true)]
        {
            let mut tree = json!({});
            schema::insert(&mut tree, &key.path, value);
            let _ = parse(&tree);
        }
    }
}

#[test]
fn open_doors_are_refused_unless_they_are_meant() {
    let (config, _) = Config::parse("service.json", &golden(), &Env::empty()).expect("load");
    config.check_exposure(false).expect("all on loopback, with a secret");

    let (config, _) = parse(&golden_with("cluster.secret", json!(""))).expect("load");
    let error = config.check_exposure(false).expect_err("no secret").to_string();
    assert!(error.contains("cluster.secret is empty") && error.contains("--insecure-no-secret"), "{error}");
    config.check_exposure(true).expect("it is meant");
    let mut tree = golden_with("cluster.secret", json!(""));
    schema::insert(&mut tree, "cluster.listen_multiaddress", json!("/ip4/127.0.0.1/tcp/9096"));
    parse(&tree).expect("load").0.check_exposure(false).expect("loopback only");

    for (section, key) in [
        ("api.restapi", "http_listen_multiaddress"),
        ("api.pinsvcapi", "http_listen_multiaddress"),
        ("api.ipfsproxy", "listen_multiaddress"),
    ] {
        let mut tree = golden_with(&format!("{section}.{key}"), json!("/ip4/0.0.0.0/tcp/9000"));
        let error = parse(&tree).expect("load").0.check_exposure(false).expect_err(section).to_string();
        assert!(error.contains(&format!("{section}.{key} is \"/ip4/0.0.0.0/tcp/9000\"")), "{error}");
        assert!(error.contains("\"open_to_network\": true"), "{error}");
        schema::insert(&mut tree, &format!("{section}.open_to_network"), json!(true));
        parse(&tree).expect("load").0.check_exposure(false).expect("it is meant");
    }
}

#[test]
fn the_table_names_each_key_and_variable_once_and_explains_it() {
    let keys = keys();
    assert!(keys.len() >= 150, "{}", keys.len());
    let paths: BTreeSet<&str> = keys.iter().map(|k| k.path.as_str()).collect();
    assert_eq!(paths.len(), keys.len());
    let variables: BTreeSet<&str> = keys.iter().map(|k| k.env.as_str()).collect();
    assert_eq!(variables.len(), keys.len());
    for key in keys {
        assert!(key.meaning.ends_with('.') && key.meaning.len() > 5, "{key:?}");
        assert!(key.env.starts_with("CLUSTER_"), "{key:?}");
    }
    // Every key of the real file is in the table.
    let tree: Value = serde_json::from_str(&golden()).expect("golden");
    let mut unknown = Vec::new();
    unknown::warn(&tree, &Env::empty(), keys, &mut unknown);
    assert_eq!(unknown, Vec::<String>::new());
    let find = |path: &str| keys.iter().find(|k| k.path == path).expect("key");
    assert_eq!(find("cluster.peername").default, "the host name");
    assert_eq!(find("api.pinsvcapi.http_listen_multiaddress").default, "\"/ip4/127.0.0.1/tcp/9097\"");
    assert_eq!(find("consensus.raft.trailing_logs").unit, Some("entries"));
    assert!(find("cluster.secret").secret);
}

#[test]
fn the_recorded_identities_load() {
    let identities: Value = serde_json::from_str(IDENTITIES).expect("golden");
    for stored in identities.as_array().expect("list") {
        let (_dir, folder) = temp();
        folder.create().expect("create");
        std::fs::write(folder.identity_json(), stored.to_string()).expect("write");
        let (identity, notice) = Identity::load(&folder, None, &Env::empty()).expect("load");
        assert_eq!(identity.peer_id().to_string(), stored["id"].as_str().expect("id"));
        assert_eq!(notice, None);
        // RSA keys must also sign.
        identity.keypair().sign(b"x").expect("sign");
    }
}

#[test]
fn a_new_identity_comes_back_from_disk_and_is_never_overwritten() {
    let (_dir, folder) = temp();
    folder.create().expect("create");
    let identity = Identity::generate().expect("generate");
    identity.save_new(&folder).expect("save");
    assert!(identity.peer_id().to_string().starts_with("12D3KooW"));
    let (again, _) = Identity::load(&folder, None, &Env::empty()).expect("load");
    assert_eq!(again.peer_id(), identity.peer_id());
    let mode = folder.identity_json().metadata().expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = Identity::generate().expect("generate").save_new(&folder).expect_err("exists");
    assert!(error.message().contains("never overwritten"), "{error}");
    assert_eq!(Identity::load(&folder, None, &Env::empty()).expect("load").0.peer_id(), identity.peer_id());
}

#[test]
fn a_bad_identity_is_refused_with_the_fix_and_without_the_key() {
    let identities: Value = serde_json::from_str(IDENTITIES).expect("golden");
    let (rsa, ed) = (&identities[0], &identities[1]);
    let key = ed["private_key"].as_str().expect("key");
    let (_dir, folder) = temp();
    folder.create().expect("create");
    let load = || Identity::load(&folder, None, &Env::empty());
    assert!(load().expect_err("none").message().contains("make an identity with init"));
    for (text, words) in [
        (
            json!({"id": rsa["id"], "private_key": key}).to_string(),
            "but its private_key belongs to 12D3KooWEnb",
        ),
        (json!({"id": "someone", "private_key": key}).to_string(), "id is not a peer id"),
        (json!({"id": ed["id"], "private_key": &key[..40]}).to_string(), "is not a libp2p private key"),
        (json!({"id": ed["id"], "private_key": "!!!"}).to_string(), "is not a libp2p private key"),
        (json!({"id": ed["id"], "private_key": "A".repeat(100_000)}).to_string(), "longer than any key"),
        (json!({"id": ed["id"]}).to_string(), "has no text \"private_key\""),
        (json!({"id": 5, "private_key": key}).to_string(), "has no text \"id\""),
        ("{\"id\": ".into(), "the JSON is not valid"),
        (String::new(), "is empty"),
    ] {
        std::fs::write(folder.identity_json(), &text).expect("write");
        let error = load().expect_err(words);
        assert!(error.message().contains(words), "{words}: {error}");
        assert!(error.message().contains("identity.json"), "{error}");
        assert!(!error.message().contains(&key[10..30]), "{error}");
    }
}

#[test]
fn variables_win_over_the_identity_file() {
    let identities: Value = serde_json::from_str(IDENTITIES).expect("golden");
    let text = |key: &str| identities[1][key].as_str().expect("text").to_owned();
    let (_dir, folder) = temp();
    folder.create().expect("create");
    let env = Env::from_pairs([("CLUSTER_ID", text("id")), ("CLUSTER_PRIVATEKEY", text("private_key"))]);
    let (identity, _) = Identity::load(&folder, None, &env).expect("load");
    assert_eq!(identity.peer_id().to_string(), text("id"));
    let env = Env::from_pairs([("CLUSTER_ID", text("id"))]);
    assert!(Identity::load(&folder, None, &env).expect_err("half").message().contains("belong together"));
}

#[test]
fn init_makes_what_ipfs_cluster_makes() {
    let (_dir, folder) = temp();
    assert!(is_fresh(&folder));
    let secret = "9c6dea29733aca38db3d9a715d7d11be3b43ac35be0e328ac0ec59b2e3f156b3";
    let options = InitOptions {
        secret: Some(Secret::from_hex(secret).expect("secret")),
        peername: Some("vm".into()),
        ..InitOptions::default()
    };
    let report = init(&folder, &options, &Env::empty()).expect("init");
    assert_eq!(std::fs::read_to_string(folder.service_json()).expect("read"), golden());
    let at = folder.path().display();
    assert_eq!(
        report.messages,
        [
            format!("configuration written to {at}/service.json."),
            format!("new identity written to {at}/identity.json"),
            format!("new empty peerstore written to {at}/peerstore."),
        ]
    );
    assert!(report.new_identity && report.warnings.is_empty(), "{:?}", report.warnings);
    for path in [folder.service_json(), folder.identity_json(), folder.peerstore()] {
        assert_eq!(path.metadata().expect("metadata").permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    assert_eq!(folder.path().metadata().expect("metadata").permissions().mode() & 0o777, 0o700);
}

#[test]
fn init_again_asks_first_and_keeps_the_identity() {
    let (_dir, folder) = temp();
    let first = init(&folder, &InitOptions::default(), &Env::empty()).expect("init");
    assert_eq!(would_overwrite(&folder), Some(folder.service_json()));
    let error = init(&folder, &InitOptions::default(), &Env::empty()).expect_err("exists");
    assert_eq!(error.kind(), Kind::Conflict);
    let peer: libp2p::Multiaddr =
        "/ip4/192.168.1.2/tcp/9096/p2p/12D3KooWEnbHdSKYsWy2jFd9srbdrcvABEUsL5vRQZk97cjJZdxy"
            .parse()
            .expect("addr");
    let options = InitOptions { force: true, peers: vec![peer.clone()], ..InitOptions::default() };
    let second = init(&folder, &options, &Env::empty()).expect("forced");
    assert_eq!(second.peer_id, first.peer_id);
    assert!(!second.new_identity);
    assert_ne!(second.config.cluster.secret, first.config.cluster.secret, "random each time");
    assert!(second.messages[1].ends_with("peerstore with 1 entries."), "{:?}", second.messages);
    assert_eq!(
        second.config.consensus.init_peerset,
        ["12D3KooWEnbHdSKYsWy2jFd9srbdrcvABEUsL5vRQZk97cjJZdxy"]
    );
    assert_eq!(folder.read_peerstore().expect("read").0, [peer]);
}

#[test]
fn init_for_ourselves_has_the_embedded_node_and_fast_elections() {
    let (_dir, folder) = temp();
    let options = InitOptions { embedded: true, ports: Ports::Random, ..InitOptions::default() };
    let report = init(&folder, &options, &Env::empty()).expect("init");
    assert_eq!(report.ports.len(), 5, "{:?}", report.ports);
    let (config, warnings) = Config::load(&folder, &Env::empty()).expect("load");
    assert_eq!(warnings, Vec::<String>::new());
    assert!(matches!(config.ipfs, IpfsSection::Embedded(_)));
    assert_eq!(config.consensus.timing(), (Duration::from_millis(100), Duration::from_millis(400)));
    assert_eq!(config.cluster, report.config.cluster);
    config.check_exposure(false).expect("nothing is open");
}

#[test]
fn init_with_crdt_writes_that_section_and_no_other() {
    let (_dir, folder) = temp();
    let options = InitOptions { consensus: "crdt".parse().expect("crdt"), ..InitOptions::default() };
    init(&folder, &options, &Env::empty()).expect("init");
    let text = std::fs::read_to_string(folder.service_json()).expect("read");
    let tree: Value = serde_json::from_str(&text).expect("json");
    assert!(lookup(&tree, "consensus.crdt").is_some() && lookup(&tree, "consensus.raft").is_none());
    Config::load(&folder, &Env::empty()).expect("load");
    assert_eq!(
        "nosuch".parse::<Consensus>().expect_err("neither").message(),
        "error choosing consensus: flag value must be set to 'raft' or 'crdt'"
    );
}

#[test]
fn init_applies_the_variables_and_writes_nothing_when_one_is_wrong() {
    let (_dir, folder) = temp();
    let secret = "ef".repeat(32);
    let env = Env::from_pairs([("CLUSTER_SECRET", secret.as_str()), ("CLUSTER_RAFT_TRAILINGLOGS", "no")]);
    assert!(init(&folder, &InitOptions::default(), &env).is_err());
    assert!(is_fresh(&folder) && !folder.path().exists());
    let bad_peer =
        InitOptions { peers: vec!["/ip4/1.2.3.4/tcp/1".parse().expect("addr")], ..InitOptions::default() };
    assert!(init(&folder, &bad_peer, &Env::empty()).expect_err("no id").message().contains("/p2p/<peer id>"));
    assert!(is_fresh(&folder));
    let env = Env::from_pairs([("CLUSTER_SECRET", secret.as_str())]);
    let report = init(&folder, &InitOptions::default(), &env).expect("init");
    assert_eq!(report.config.cluster.secret.expose_hex(), secret);
    let (config, _) = Config::load(&folder, &Env::empty()).expect("load");
    assert_eq!(config.cluster.secret.expose_hex(), secret, "it is in the file, too");
}

#[test]
fn a_saved_file_is_the_owner_s_alone_and_survives_a_failed_write() {
    let (_dir, folder) = temp();
    folder.create().expect("create");
    let mut config = Config::default();
    config.save(&folder).expect("save");
    assert_eq!(folder.service_json().metadata().expect("metadata").permissions().mode() & 0o777, 0o600);
    assert_eq!(Config::load(&folder, &Env::empty()).expect("load").1.len(), 0);
    std::fs::set_permissions(folder.service_json(), PermissionsExt::from_mode(0o644)).expect("chmod");
    let (_, warnings) = Config::load(&folder, &Env::empty()).expect("load");
    assert!(warnings.len() == 1 && warnings[0].contains("chmod 600"), "{warnings:?}");
    let before = std::fs::read(folder.service_json()).expect("read");
    config.cluster.peername = "other".into();
    // A folder that cannot be written to. (Root writes everywhere, so it is taken away altogether.)
    let away = Folder::new(folder.path().join("gone"));
    let error = config.save(&away).expect_err("no folder");
    assert!(error.message().contains("gone/service.json"), "{error}");
    assert_eq!(std::fs::read(folder.service_json()).expect("read"), before);
}
