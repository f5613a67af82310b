//! Files of ipfs-cluster's first years with a real process: they start as they are, they are checked, they are
//! upgraded; data of the Go program beside them is never passed over in silence.

mod support;

use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::process::Output;
use support::cluster::{cid_of, free_port, ok, pinfold, Peer, SECRET};

const FLAT: &str = include_str!("data/config/0.0.12-flat.json");
const SECTIONS: &str = include_str!("data/config/0.3.5.json");
/// The peer id that both files carry with its key.
const ID: &str = "QmVhpRX8en8cZyb9GSxFFAtgPB1d7t1aKWW6iBf8nsuP4p";

fn at(port: u16) -> Value {
    Value::from(format!("/ip4/127.0.0.1/tcp/{port}"))
}

fn folder(tmp: &tempfile::TempDir, config: &Value) -> Peer {
    let path = tmp.path().join("p");
    std::fs::create_dir(&path).expect("folder");
    std::fs::write(path.join("service.json"), serde_json::to_vec_pretty(config).expect("JSON"))
        .expect("written");
    Peer::fresh(path)
}

/// The flat file for a peer alone, on ports of its own.
fn flat() -> Value {
    let mut config: Value = serde_json::from_str(FLAT).expect("JSON");
    config["cluster_peers"] = json!([]);
    config["cluster_secret"] = SECRET.into();
    config["replication_factor"] = json!(-1);
    for key in ["cluster_multiaddress", "api_listen_multiaddress", "ipfs_proxy_listen_multiaddress"] {
        config[key] = at(free_port());
    }
    config["ipfs_node_multiaddress"] = at(1);
    config["consensus_data_folder"] = "data".into();
    config
}

fn sections() -> Value {
    let mut config: Value = serde_json::from_str(SECTIONS).expect("JSON");
    config["cluster"]["bootstrap"] = json!([]);
    config["cluster"]["secret"] = SECRET.into();
    config["cluster"]["replication_factor_min"] = json!(-1);
    config["cluster"]["replication_factor_max"] = json!(-1);
    config["cluster"]["listen_multiaddress"] = at(free_port());
    let api = &mut config["api"]["restapi"];
    api["http_listen_multiaddress"] = at(free_port());
    for key in ["basic_auth_credentials", "ssl_cert_file", "ssl_key_file"] {
        api[key] = Value::Null;
    }
    let ipfs = &mut config["ipfs_connector"]["ipfshttp"];
    ipfs["proxy_listen_multiaddress"] = at(free_port());
    ipfs["node_multiaddress"] = at(1);
    config
}

fn config_command(peer: &Peer, args: &[&str]) -> Output {
    let mut command = pinfold();
    // What these tests' other processes get by variable must not hide what the file says.
    command.env_remove("CLUSTER_MDNSINTERVAL").env_remove("CLUSTER_MONITORPINGINTERVAL");
    command.args(["-c", peer.path(), "config"]).args(args).output().expect("the executable starts")
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").file_name());
    let mut names: Vec<String> = entries.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// `GET path` at a port.
fn get(port: &Value, path: &str) -> (u16, String) {
    let port = port.as_str().expect("address").rsplit('/').next().expect("port").to_string();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.get(format!("http://127.0.0.1:{port}{path}")).call().expect("an answer");
    (answer.status().as_u16(), answer.body_mut().read_to_string().expect("a body"))
}

#[test]
fn a_flat_file_starts_as_it_is_and_again_after_its_upgrade() {
    let tmp = tempfile::tempdir().expect("folder");
    let config = flat();
    let mut peer = folder(&tmp, &config);
    let before = std::fs::read(peer.folder.join("service.json")).expect("file");
    peer.start(&["daemon"]);
    let log = peer.log();
    assert!(log.contains("`pinfold config upgrade` writes today's file"), "{log}");
    let (status, body) = get(&config["api_listen_multiaddress"], "/id");
    assert!(status == 200 && body.contains(ID), "{body}");
    let pin = format!("/pins/{}", cid_of(1));
    let port = config["api_listen_multiaddress"].as_str().expect("address").rsplit('/').next().expect("port");
    ureq::post(format!("http://127.0.0.1:{port}{pin}")).send_empty().expect("pinned");
    assert!(peer.folder.join("data").is_dir(), "consensus_data_folder");
    // While it runs nobody writes its file; looking is free.
    let refused = config_command(&peer, &["upgrade"]);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    assert!(err(&refused).contains("is in use by process"), "{}", err(&refused));
    let looked = ok(config_command(&peer, &["upgrade", "--dry-run"]));
    assert!(looked.contains("moved    cluster_secret -> cluster.secret\n"), "{looked}");
    assert!(looked.contains("nothing was written: "), "{looked}");
    assert!(!looked.contains(SECRET), "{looked}");
    assert_eq!(std::fs::read(peer.folder.join("service.json")).expect("file"), before, "left alone");
    let (status, _) = peer.stop();
    assert!(status.success(), "{}", peer.log());

    let said = ok(config_command(&peer, &["upgrade"]));
    assert!(said.contains("added    cluster.mdns_interval = \"10s\"\n"), "{said}");
    assert!(said.contains("service.json.bak.0\n"), "{said}");
    assert_eq!(std::fs::read(peer.folder.join("service.json.bak.0")).expect("backup"), before);
    let identity = std::fs::read_to_string(peer.folder.join("identity.json")).expect("identity.json");
    assert!(identity.contains(ID));
    let again = ok(config_command(&peer, &["upgrade"]));
    assert!(again.starts_with("nothing to do: "), "{again}");
    assert!(!names(&peer.folder).contains(&"service.json.bak.1".to_owned()));

    // The same peer with the same pins, by today's file, which says where the API is.
    peer.start(&["daemon"]);
    assert!(!peer.log().contains("of older versions"), "{}", peer.log());
    assert_eq!(peer.json("GET", "/id")["id"], ID);
    assert_eq!(peer.pinned_cids(), [cid_of(1)]);
    let (status, _) = peer.stop();
    assert!(status.success());
}

#[test]
fn a_file_of_0_3_starts_as_it_is() {
    let tmp = tempfile::tempdir().expect("folder");
    let config = sections();
    let mut peer = folder(&tmp, &config);
    peer.start(&["daemon"]);
    assert_eq!(peer.json("GET", "/id")["peername"], "attic");
    assert!(peer.folder.join("ipfs-cluster-data").is_dir(), "data_folder");
    let log = peer.log();
    assert!(
        log.contains("ipfs_connector.ipfshttp.pin_method is a key of older versions and has no effect"),
        "{log}"
    );
    let (status, _) = peer.stop();
    assert!(status.success());
}

#[test]
fn check_says_what_it_reads_and_what_is_wrong() {
    let tmp = tempfile::tempdir().expect("folder");
    let peer = folder(&tmp, &sections());
    let good = config_command(&peer, &["check"]);
    let (text, warnings) = (ok(good.clone()), err(&good));
    assert!(
        text.contains("moved    monitor.monbasic.check_interval -> monitor.pubsubmon.check_interval\n"),
        "{text}"
    );
    assert!(text.contains("service.json is good: "), "{text}");
    assert!(warnings.contains("other users can read it; close it with: chmod 600"), "{warnings}");
    assert_eq!(names(&peer.folder), ["service.json"], "nothing is made");

    peer.edit(|c| c["cluster"]["state_sync_interval"] = json!(60));
    let bad = config_command(&peer, &["check"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(err(&bad).contains("cluster.state_sync_interval is 60: it must be a duration"), "{}", err(&bad));
    let bad = config_command(&peer, &["upgrade"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(!names(&peer.folder).iter().any(|n| n.contains("bak")));

    let nowhere = Peer::fresh(tmp.path().join("nowhere"));
    for args in [["check"].as_slice(), &["upgrade"], &["upgrade", "--dry-run"]] {
        let output = config_command(&nowhere, args);
        assert_eq!(output.status.code(), Some(4), "{args:?}: {output:?}");
        assert!(err(&output).contains("service.json: no such file or directory"), "{}", err(&output));
        assert!(!nowhere.folder.exists(), "no folder is made");
    }
}

#[test]
fn keys_are_explained_and_the_page_of_the_documentation_is_true() {
    let nowhere = Peer::fresh(PathBuf::from("/nonexistent/pinfold"));
    let text = ok(config_command(&nowhere, &["keys", "consensus.raft.commit"]));
    assert!(text.starts_with("consensus.raft.commit_retries\n    "), "{text}");
    assert!(text.contains("variable CLUSTER_RAFT_COMMITRETRYDELAY\n"), "{text}");
    assert!(!text.contains("cluster.secret"), "{text}");
    let unknown = config_command(&nowhere, &["keys", "nosuch."]);
    assert_eq!(unknown.status.code(), Some(4));
    let page = ok(config_command(&nowhere, &["keys", "--markdown"]));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(&path, &page).expect("written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/configuration.md is out of date: UPDATE_GOLDENFILES=1 cargo test --test config_old"
    );
}

#[test]
fn pins_of_the_go_program_are_never_passed_over_in_silence() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = folder(&tmp, &sections());
    let go = peer.folder.join("ipfs-cluster-data");
    std::fs::create_dir_all(go.join("snapshots")).expect("folder");
    std::fs::write(go.join("raft.db"), "bolt").expect("file");
    let before = names(&peer.folder);
    for args in [["daemon"].as_slice(), &["state", "export"]] {
        peer.spawn(args);
        let (status, _) = peer.wait_end();
        assert_eq!(status.code(), Some(5), "{args:?}: {}", peer.log());
        for words in
            ["ipfs-cluster-data holds the pins of ipfs-cluster", "state export > pins.json", "state import"]
        {
            assert!(peer.log().contains(words), "{args:?}: {}", peer.log());
        }
    }
    let mut after = names(&peer.folder);
    after.retain(|n| n != "cluster.lock" && n != "identity.json");
    assert_eq!(after, before, "nothing was made or changed");

    // The way that the message names: what the old program exported comes in, its data is kept.
    let export = format!("{{\"cid\":\"{}\",\"name\":\"old\",\"allocations\":[]}}\n", cid_of(7));
    let file = tmp.path().join("pins.json");
    std::fs::write(&file, export).expect("export");
    ok(peer.ctl(&["state", "import", "-f", file.to_str().expect("UTF-8")]));
    assert!(peer.folder.join("ipfs-cluster-data.old.0/raft.db").exists(), "{:?}", names(&peer.folder));
    peer.start(&["daemon"]);
    assert_eq!(peer.pinned_cids(), [cid_of(7)]);
    assert!(peer.stop().0.success());
}

#[test]
fn a_start_without_the_old_pins_must_be_asked_for() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    let go = peer.folder.join("raft");
    std::fs::create_dir_all(&go).expect("folder");
    std::fs::write(go.join("raft.db"), "bolt").expect("file");
    peer.spawn(&["up"]);
    assert_eq!(peer.wait_end().0.code(), Some(5), "{}", peer.log());
    ok(peer.ctl(&["state", "cleanup", "--force"]));
    assert_eq!(std::fs::read(peer.folder.join("raft.old.0/raft.db")).expect("kept"), b"bolt");
    peer.start(&["up"]);
    assert!(peer.pinned_cids().is_empty());
    assert!(peer.stop().0.success());
}
