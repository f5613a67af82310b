//! Files of every age of ipfs-cluster, as they were: what each of their keys means here.

use crate::config::schema::{insert, lookup, remove};
use crate::config::tests::{error_of, golden, parse, temp};
use crate::config::*;
use serde_json::{json, Value};
use std::time::Duration;

/// The files under `tests/data/config`, oldest first.
const FILES: [(&str, &str); 5] = [
    ("0.0.1", include_str!("../../../tests/data/config/0.0.1-flat.json")),
    ("0.0.12", include_str!("../../../tests/data/config/0.0.12-flat.json")),
    ("0.3.0", include_str!("../../../tests/data/config/0.3.0.json")),
    ("0.3.5", include_str!("../../../tests/data/config/0.3.5.json")),
    ("0.4.0", include_str!("../../../tests/data/config/0.4.0.json")),
];

fn file(version: &str) -> Value {
    let (_, text) = FILES.iter().find(|(v, _)| *v == version).expect("known version");
    serde_json::from_str(text).expect("JSON")
}

fn read(tree: &Value) -> Reading {
    Config::read("service.json", &tree.to_string(), &Env::empty()).expect("load")
}

fn moves(changes: &[Change]) -> Vec<(&str, &str)> {
    let pair = |c| match c {
        &Change::Moved { ref from, ref to } => Some((from.as_str(), to.as_str())),
        _ => None,
    };
    changes.iter().filter_map(pair).collect()
}

fn drops(changes: &[Change]) -> Vec<&str> {
    let key = |c| match c {
        &Change::Dropped { ref key, .. } => Some(key.as_str()),
        _ => None,
    };
    changes.iter().filter_map(key).collect()
}

fn texts(addresses: &[libp2p::Multiaddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

const SECS: fn(u64) -> Duration = Duration::from_secs;

#[test]
fn every_key_of_a_flat_file_of_0_0_12_has_its_meaning() {
    let Reading { config, warnings, changes, .. } = read(&file("0.0.12"));
    assert_eq!(warnings, Vec::<String>::new());
    let c = &config.cluster;
    assert_eq!(c.secret.expose_hex(), "ab".repeat(32));
    assert_eq!(
        texts(&c.peers),
        [
            "/ip4/192.168.1.2/tcp/9096/p2p/QmcQ5XvrSQ4DouNkQyQtEoLczbMr6D9bSenGy6WQUCQUBt",
            "/ip4/192.168.1.3/tcp/9096/p2p/QmdFBMf9HMDH3eCWrc1U11YCPenC3Uvy9mZQ2BedTyKTDf"
        ]
    );
    assert!(c.bootstrap.is_empty() && !c.leave_on_shutdown);
    assert_eq!(texts(&c.listen_multiaddress), ["/ip4/0.0.0.0/tcp/9196"]);
    assert_eq!((c.state_sync_interval, c.ipfs_sync_interval), (SECS(90), SECS(130)));
    assert_eq!((c.replication_factor_min, c.replication_factor_max), (2, 2));
    assert_eq!((c.monitor_ping_interval, config.monitor.check_interval), (SECS(20), SECS(20)));
    assert!(!c.disable_repinning, "a dead peer's content was always copied then");
    assert_eq!(config.consensus.data_folder, "/home/user/.ipfs-cluster/data");
    let api = config.restapi.as_ref().expect("always on then");
    assert_eq!(texts(&api.http_listen_multiaddress), ["/ip4/127.0.0.1/tcp/9194"]);
    let proxy = config.ipfsproxy.as_ref().expect("always on then");
    assert_eq!(texts(&proxy.listen_multiaddress), ["/ip4/127.0.0.1/tcp/9195"]);
    assert_eq!(texts(&proxy.node_multiaddress), ["/ip4/127.0.0.1/tcp/5101"]);
    let IpfsSection::Http(http) = &config.ipfs else { panic!("Kubo expected") };
    assert_eq!(texts(&http.node_multiaddress), ["/ip4/127.0.0.1/tcp/5101"]);
    assert_eq!(config.informer.disk.as_ref().map(|d| d.metric_type), Some(DiskMetric::RepoSize));
    assert_eq!(config.allocator.allocate_by, ["reposize"]);
    assert!(config.old_identity.is_some());
    assert_eq!(drops(&changes), Vec::<&str>::new());
    // Every key of the file is in the list.
    let named: std::collections::BTreeSet<&str> = moves(&changes).iter().map(|(from, _)| *from).collect();
    for key in
        file("0.0.12").as_object().expect("object").iter().filter(|(_, v)| **v != json!([])).map(|(k, _)| k)
    {
        assert!(named.contains(key.as_str()), "{key}: {changes:#?}");
    }
}

#[test]
fn the_other_names_and_values_of_flat_keys_mean_the_same() {
    for (key, value, path, became) in [
        ("secret", json!("cd".repeat(32)), "cluster.secret", json!("cd".repeat(32))),
        ("state_sync_interval", json!(7), "cluster.state_sync_interval", json!("7s")),
        ("state_sync_interval", json!("1m7s"), "cluster.state_sync_interval", json!("1m7s")),
        ("ipfs_sync_interval", json!(8), "cluster.ipfs_sync_interval", json!("8s")),
        ("monitor_ping_interval", json!(9), "cluster.monitor_ping_interval", json!("9s")),
        ("leave_on_shutdown", json!(true), "cluster.leave_on_shutdown", json!(true)),
        ("replication_factor", json!(0), "cluster.replication_factor_min", json!(-1)),
        ("replication_factor", json!(-1), "cluster.replication_factor_max", json!(-1)),
        ("TLSCertFile", json!(""), "api.restapi.ssl_cert_file", json!("")),
        ("allocation_strategy", json!("pincount"), "allocator.balanced.allocate_by", json!(["numpin"])),
        (
            "allocation_strategy",
            json!("disk-freespace"),
            "allocator.balanced.allocate_by",
            json!(["freespace"]),
        ),
    ] {
        let mut tree = file("0.0.12");
        for other in
            ["cluster_secret", "state_sync_seconds", "ipfs_sync_seconds", "monitoring_interval_seconds"]
        {
            remove(&mut tree, other);
        }
        tree[key] = value;
        let Reading { config, modern, warnings, .. } = read(&tree);
        assert_eq!(lookup(&modern, path), Some(&became), "{key}");
        assert_eq!(warnings, Vec::<String>::new(), "{key}");
        assert_eq!(config.informer.numpin.is_some(), became == json!(["numpin"]), "{key}");
    }
    let mut tree = file("0.0.12");
    tree["bootstrap"] =
        json!(["/ip4/192.168.1.2/tcp/9096/ipfs/QmcQ5XvrSQ4DouNkQyQtEoLczbMr6D9bSenGy6WQUCQUBt"]);
    assert_eq!(read(&tree).config.cluster.bootstrap.len(), 1);
}

#[test]
fn the_very_first_files_load_too() {
    let Reading { config, changes, .. } = read(&file("0.0.1"));
    assert_eq!(config.consensus.snapshot_interval, SECS(120));
    assert_eq!(config.consensus.data_folder, "ipfscluster-data");
    assert_eq!(config.cluster.replication_factor_min, -1);
    assert_eq!(config.allocator.allocate_by, ["freespace"]);
    assert_eq!(drops(&changes), ["raft_config.enable_single_node"]);
}

#[test]
fn every_key_of_a_file_of_0_3_has_its_meaning() {
    let Reading { config, changes, .. } = read(&file("0.3.0"));
    let c = &config.cluster;
    assert_eq!(texts(&c.bootstrap).len(), 1);
    assert!(c.peers.is_empty() && c.leave_on_shutdown && !c.disable_repinning);
    assert_eq!((c.state_sync_interval, c.ipfs_sync_interval), (SECS(61), SECS(130)));
    assert_eq!((c.replication_factor_min, c.replication_factor_max), (-1, -1));
    assert_eq!(c.monitor_ping_interval, SECS(14));
    let ms = Duration::from_millis;
    let raft = &config.consensus;
    assert_eq!((raft.wait_for_leader_timeout, raft.network_timeout), (SECS(16), SECS(11)));
    assert_eq!((raft.commit_retries, raft.commit_retry_delay), (2, ms(210)));
    assert_eq!((raft.heartbeat_timeout, raft.election_timeout), (SECS(1), SECS(1)));
    assert_eq!((raft.commit_timeout, raft.max_append_entries), (ms(60), 65));
    assert_eq!((raft.trailing_logs, raft.snapshot_threshold), (10241, 8193));
    assert_eq!((raft.snapshot_interval, raft.leader_lease_timeout), (SECS(121), ms(510)));
    assert_eq!(raft.data_folder, "raft");
    let api = config.restapi.as_ref().expect("on");
    assert_eq!(texts(&api.http_listen_multiaddress), ["/ip4/127.0.0.1/tcp/9094"]);
    assert_eq!((api.read_timeout, api.read_header_timeout), (SECS(30), SECS(5)));
    assert_eq!((api.write_timeout, api.idle_timeout), (SECS(60), SECS(120)));
    assert!(!api.basic_auth_credentials.is_set());
    let proxy = config.ipfsproxy.as_ref().expect("on");
    assert_eq!((proxy.read_timeout, proxy.read_header_timeout), (SECS(600), SECS(5)));
    assert_eq!((proxy.write_timeout, proxy.idle_timeout), (SECS(600), SECS(60)));
    let IpfsSection::Http(http) = &config.ipfs else { panic!("Kubo expected") };
    assert_eq!(http.connect_swarms_delay, SECS(7));
    assert_eq!(config.monitor.check_interval, SECS(15));
    assert_eq!(
        config.informer.disk.as_ref().map(|d| (d.metric_ttl, d.metric_type)),
        Some((SECS(30), DiskMetric::FreeSpace))
    );
    assert_eq!(config.informer.numpin.as_ref().map(|n| n.metric_ttl), Some(SECS(10)));
    assert_eq!(config.allocator.allocate_by, ["freespace"]);
    assert_eq!(drops(&changes), Vec::<&str>::new());
}

#[test]
fn what_0_3_5_added_has_its_meaning() {
    let Reading { config, changes, .. } = read(&file("0.3.5"));
    assert_eq!(config.cluster.peername, "attic");
    assert_eq!((config.cluster.replication_factor_min, config.cluster.replication_factor_max), (1, 2));
    assert_eq!(config.consensus.data_folder, "ipfs-cluster-data");
    let api = config.restapi.as_ref().expect("on");
    assert_eq!((api.ssl_cert_file.as_str(), api.ssl_key_file.as_str()), ("certs/a.pem", "certs/a.key"));
    assert!(api.tls() && api.basic_auth_credentials.is_set());
    let proxy = config.ipfsproxy.as_ref().expect("the old proxy was always on");
    assert_eq!(texts(&proxy.listen_multiaddress), ["/ip4/127.0.0.1/tcp/9195"]);
    assert_eq!(texts(&proxy.node_multiaddress), ["/ip4/127.0.0.1/tcp/5101"]);
    assert_eq!((proxy.write_timeout, proxy.idle_timeout), (SECS(602), SECS(63)));
    let IpfsSection::Http(http) = &config.ipfs else { panic!("Kubo expected") };
    assert_eq!((http.pin_timeout, http.unpin_timeout), (SECS(3600), SECS(300)));
    assert_eq!((config.pin_tracker.concurrent_pins, config.pin_tracker.max_pin_queue_size), (1, 4096));
    assert_eq!(config.monitor.check_interval, SECS(20));
    assert_eq!(config.allocator.allocate_by, ["reposize"], "what informer.disk tells");
    assert_eq!(drops(&changes), ["consensus.raft.start_as_leader", "ipfs_connector.ipfshttp.pin_method"]);
}

#[test]
fn a_file_of_0_4_prefers_its_newer_keys() {
    let Reading { config, changes, .. } = read(&file("0.4.0"));
    let IpfsSection::Http(http) = &config.ipfs else { panic!("Kubo expected") };
    assert_eq!((http.pin_timeout, http.unpin_timeout), (SECS(24 * 3600), SECS(3 * 3600)));
    assert_eq!(config.monitor.check_interval, SECS(15), "pubsubmon's");
    assert_eq!(config.consensus.data_folder, "raft", "empty was the default");
    let dropped = drops(&changes);
    for key in ["monitor.monbasic.check_interval", "pin_tracker.maptracker.pinning_timeout"] {
        assert!(dropped.contains(&key), "{dropped:?}");
    }
}

#[test]
fn a_start_with_an_old_file_says_so_in_one_line_that_names_the_way_out() {
    for (version, _) in FILES {
        let (_, warnings) = parse(&file(version)).expect(version);
        let named: Vec<&String> = warnings.iter().filter(|w| w.contains("pinfold config upgrade")).collect();
        assert_eq!(named.len(), 1, "{version}: {warnings:#?}");
        assert!(!named[0].contains(&"ab".repeat(32)) && named[0].len() < 500, "{named:?}");
        assert_eq!(warnings.len(), 1 + drops(&read(&file(version)).changes).len(), "{warnings:#?}");
    }
}

#[test]
fn a_mistake_in_an_old_key_is_told_by_the_name_in_the_file() {
    for (version, key, value, now) in [
        ("0.0.12", "state_sync_seconds", json!("soon"), "cluster.state_sync_interval"),
        ("0.0.12", "state_sync_seconds", json!(-5), "cluster.state_sync_interval"),
        ("0.0.12", "replication_factor", json!(-7), "cluster.replication_factor_min"),
        ("0.0.12", "replication_factor", json!("two"), "cluster.replication_factor_min"),
        ("0.0.12", "cluster_peers", json!(["/ip4/1.2.3.4/tcp/1"]), "cluster.peers"),
        ("0.0.12", "allocation_strategy", json!("size"), "allocator.balanced.allocate_by"),
        ("0.0.12", "api_listen_multiaddress", json!("here"), "api.restapi.http_listen_multiaddress"),
        ("0.3.5", "monitor.monbasic.check_interval", json!(3), "monitor.pubsubmon.check_interval"),
        ("0.3.5", "ipfs_connector.ipfshttp.proxy_idle_timeout", json!("x"), "api.ipfsproxy.idle_timeout"),
    ] {
        let mut tree = file(version);
        remove(&mut tree, key);
        insert(&mut tree, key, value);
        let error = error_of(&tree);
        assert!(error.contains(now), "{error}");
        assert!(error.ends_with(&format!("(the file says {key})")), "{error}");
    }
    let mut tree = file("0.0.12");
    tree["cluster_secret"] = json!("abcd");
    let error = error_of(&tree);
    assert!(error.contains("cluster_secret") && !error.contains("abcd"), "{error}");
}

#[test]
fn new_keys_win_over_old_ones() {
    let mut tree = file("0.3.5");
    insert(&mut tree, "cluster.replication_factor", json!(5));
    insert(&mut tree, "api.restapi.listen_multiaddress", json!("/ip4/127.0.0.1/tcp/1"));
    insert(&mut tree, "api.ipfsproxy", json!({"listen_multiaddress": "/ip4/127.0.0.1/tcp/2"}));
    insert(&mut tree, "cluster_secret", json!("ef".repeat(32)));
    let Reading { config, changes, .. } = read(&tree);
    assert_eq!((config.cluster.replication_factor_min, config.cluster.replication_factor_max), (1, 2));
    assert_eq!(config.cluster.secret.expose_hex(), "ab".repeat(32));
    assert_eq!(texts(&config.restapi.expect("on").http_listen_multiaddress), ["/ip4/127.0.0.1/tcp/9194"]);
    assert_eq!(texts(&config.ipfsproxy.expect("on").listen_multiaddress), ["/ip4/127.0.0.1/tcp/2"]);
    assert_eq!(drops(&changes).len(), 3 + 5 + 2, "{changes:#?}");
}

#[test]
fn nothing_of_an_old_file_is_lost_when_it_is_written_as_it_is() {
    let (config, _) = parse(&file("0.3.5")).expect("load");
    let saved: Value = serde_json::from_str(&config.to_text().expect("text")).expect("json");
    assert_eq!(lookup(&saved, "monitor.monbasic.check_interval"), Some(&json!("20s")));
    assert_eq!(lookup(&saved, "monitor.pubsubmon.check_interval"), Some(&json!("20s")));
    let (again, _) = parse(&saved).expect("load again");
    assert!(again.means(&config));
}

#[test]
fn files_of_mixed_age_run_as_they_are() {
    let tree = json!({
        "cluster": {
            "secret": "cd".repeat(32), "replication_factor": -1,
            "listen_multiaddress": ["/ip4/0.0.0.0/tcp/9096", "/ip6/::/tcp/9096"]
        },
        "consensus": {"raft": {"heartbeat_timeout": "1s"}},
        "api": {"restapi": {
            "ssl_cert_file": "c.pem", "ssl_key_file": "k.pem", "http_listen_multiaddress": "/ip4/0.0.0.0/tcp/9094",
            "basic_auth_credentials": {"user": ""}
        }},
        "ipfs_connector": {"ipfshttp": {"node_multiaddress": "/ip4/127.0.0.1/tcp/5001", "pin_timeout": "0h2m0s"}},
        "monitor": {"monbasic": {"check_interval": "15s"}},
        "informer": {"disk": {"metric_ttl": "30s", "metric_type": "freespace"}}
    });
    let (config, warnings) = parse(&tree).expect("load");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(config.cluster.replication_factor_min, -1);
    assert_eq!(config.cluster.listen_tcp().len(), 2);
    assert_eq!(config.allocator.allocate_by, ["freespace"]);
    let IpfsSection::Http(http) = &config.ipfs else { panic!("ipfshttp expected") };
    assert_eq!(http.pin_timeout, Duration::from_secs(120));
    config.check_exposure(false).expect("there is a password, if an empty one");
    let (_dir, folder) = temp();
    assert_eq!(config.resolve(&folder, "c.pem"), folder.path().join("c.pem"));
    assert_eq!(config.resolve(&folder, "/etc/c.pem"), Path::new("/etc/c.pem"));
}

#[test]
fn the_identity_in_an_old_service_json_moves_out_with_a_notice() {
    let (_dir, folder) = temp();
    folder.create().expect("create");
    let (config, _) = parse(&file("0.3.5")).expect("load");
    let (identity, notice) = Identity::load(&folder, Some(&config), &Env::empty()).expect("load");
    assert_eq!(identity.peer_id().to_string(), "QmVhpRX8en8cZyb9GSxFFAtgPB1d7t1aKWW6iBf8nsuP4p");
    assert!(notice.expect("notice").starts_with("NOTICE: cluster.id and cluster.private_key"));
    let (again, notice) = Identity::load(&folder, None, &Env::empty()).expect("from its own file now");
    assert_eq!((again.peer_id(), notice), (identity.peer_id(), None));
}

/// A folder with this service.json.
fn folder_with(text: &str) -> (tempfile::TempDir, Folder) {
    let (dir, folder) = temp();
    folder.create().expect("create");
    write_private(&folder.service_json(), text.as_bytes()).expect("write");
    (dir, folder)
}

#[test]
fn an_upgraded_file_of_any_age_means_the_same_and_is_upgraded_once() {
    for (version, text) in FILES {
        let (_dir, folder) = folder_with(text);
        let (old, _) = Config::load(&folder, &Env::empty()).expect(version);
        let plan = Upgrade::plan(&folder).expect(version);
        assert!(plan.is_needed(), "{version}");
        let done = plan.apply(&folder).expect(version);
        assert_eq!(std::fs::read_to_string(&done.backup).expect("backup"), text);
        assert_eq!(done.backup, folder.path().join("service.json.bak.0"));
        let (new, warnings) = Config::load(&folder, &Env::empty()).expect(version);
        assert_eq!(warnings, Vec::<String>::new(), "{version}");
        assert!(new.means(&old), "{version}");
        let written = std::fs::read_to_string(folder.service_json()).expect("read");
        assert!(!written.contains("private_key\": \"CA"), "{version}: the key is in identity.json");
        let (identity, notice) = Identity::load(&folder, None, &Env::empty()).expect("identity.json");
        assert_eq!(identity.peer_id().to_string(), "QmVhpRX8en8cZyb9GSxFFAtgPB1d7t1aKWW6iBf8nsuP4p");
        assert_eq!((done.identity, notice), (Some(folder.identity_json()), None));
        let again = Upgrade::plan(&folder).expect("again");
        assert!(!again.is_needed(), "{version}: {:#?}", again.changes);
        assert_eq!(again.text(), written, "{version}");
    }
}

#[test]
fn an_upgrade_writes_the_keys_in_the_order_of_a_fresh_file() {
    let (_dir, folder) = folder_with(FILES[1].1);
    Upgrade::plan(&folder).expect("plan").apply(&folder).expect("apply");
    let order = |text: &str| {
        let tree: Value = serde_json::from_str(text).expect("JSON");
        let names = |v: &Value| v.as_object().expect("object").keys().cloned().collect::<Vec<_>>();
        (names(&tree), names(&tree["consensus"]["raft"]), names(&tree["api"]["restapi"]))
    };
    let (top, mut raft, mut api) = order(&std::fs::read_to_string(folder.service_json()).expect("read"));
    let (fresh_top, fresh_raft, fresh_api) = order(&golden());
    assert_eq!(top, fresh_top);
    raft.retain(|k| k != "data_folder");
    api.retain(|k| !k.starts_with("ssl_"));
    assert_eq!((raft, api), (fresh_raft, fresh_api));
}

#[test]
fn files_of_today_need_no_upgrade() {
    let (_dir, folder) = folder_with(&golden());
    let plan = Upgrade::plan(&folder).expect("plan");
    assert!(!plan.is_needed() && plan.text() == golden(), "{plan:?}");
    for embedded in [true, false] {
        let (_dir, folder) = temp();
        init::init(&folder, &init::InitOptions { embedded, ..Default::default() }, &Env::empty())
            .expect("init");
        assert!(!Upgrade::plan(&folder).expect("plan").is_needed());
    }
    // Another indentation or order is no reason to write a file anew.
    let tree: Value = serde_json::from_str(&golden()).expect("JSON");
    let (_dir, folder) = folder_with(&tree.to_string());
    assert!(!Upgrade::plan(&folder).expect("plan").is_needed());
}

#[test]
fn an_upgrade_adds_what_is_missing_and_shows_no_secret() {
    let tree = json!({"cluster": {"secret": "ab".repeat(32)}, "mine": {"x": 1}, "datastore": {"pebble": {}}});
    let (_dir, folder) = folder_with(&tree.to_string());
    let plan = Upgrade::plan(&folder).expect("plan");
    let shown = format!("{plan:?}");
    assert!(!shown.contains(&"ab".repeat(32)), "{shown}");
    assert!(plan
        .changes
        .contains(&Change::Added { key: "cluster.mdns_interval".into(), value: "\"10s\"".into() }));
    assert!(plan
        .changes
        .contains(&Change::Added { key: "cluster.disable_repinning".into(), value: "false".into() }));
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
    let new: Value = serde_json::from_str(plan.text()).expect("JSON");
    assert_eq!(
        (&new["mine"], &new["datastore"]),
        (&tree["mine"], &tree["datastore"]),
        "what is not known stays"
    );
    assert!(new["api"].is_null(), "what was off stays off");
}

#[test]
fn a_file_with_both_consensus_sections_keeps_the_one_in_use() {
    let mut tree: Value = serde_json::from_str(&golden()).expect("JSON");
    insert(&mut tree, "consensus.crdt", json!({"cluster_name": "x"}));
    let (_dir, folder) = folder_with(&tree.to_string());
    let plan = Upgrade::plan(&folder).expect("plan");
    assert_eq!(drops(&plan.changes), ["consensus.crdt"]);
    assert_eq!(plan.text(), golden());
}

#[test]
fn backups_are_never_overwritten_and_identities_neither() {
    let (_dir, folder) = folder_with(FILES[3].1);
    for n in [0, 1, 3] {
        std::fs::write(folder.path().join(format!("service.json.bak.{n}")), "mine").expect("write");
    }
    let identity = Identity::generate().expect("generate");
    identity.save_new(&folder).expect("save");
    let plan = Upgrade::plan(&folder).expect("plan");
    assert!(drops(&plan.changes).contains(&"cluster.private_key"), "{:?}", plan.changes);
    let done = plan.apply(&folder).expect("apply");
    assert_eq!((done.backup, done.identity), (folder.path().join("service.json.bak.2"), None));
    for n in [0, 1, 3] {
        let kept =
            std::fs::read_to_string(folder.path().join(format!("service.json.bak.{n}"))).expect("read");
        assert_eq!(kept, "mine");
    }
    let (kept, _) = Identity::load(&folder, None, &Env::empty()).expect("identity");
    assert_eq!(kept.peer_id(), identity.peer_id());
}

#[test]
fn a_file_with_a_mistake_is_not_upgraded() {
    for (key, value, words) in [
        ("cluster.private_key", json!("CAASnonsense"), "is not a libp2p private key"),
        ("cluster.id", json!("QmcQ5XvrSQ4DouNkQyQtEoLczbMr6D9bSenGy6WQUCQUBt"), "belongs to QmVhp"),
        ("cluster.monitor_ping_interval", json!(3), "cluster.monitor_ping_interval is 3"),
    ] {
        let mut tree = file("0.3.5");
        insert(&mut tree, key, value);
        let (_dir, folder) = folder_with(&tree.to_string());
        let error = Upgrade::plan(&folder).expect_err(key).to_string();
        assert!(error.contains(words), "{error}");
        let names: Vec<_> = std::fs::read_dir(folder.path()).expect("list").collect();
        assert_eq!(names.len(), 1, "nothing was written: {names:?}");
    }
}

#[test]
fn half_an_identity_is_named_and_not_used() {
    let mut tree = file("0.3.5");
    remove(&mut tree, "cluster.private_key");
    let Reading { config, changes, .. } = read(&tree);
    assert!(config.old_identity.is_none() && drops(&changes).contains(&"cluster.id"), "{changes:?}");
}
