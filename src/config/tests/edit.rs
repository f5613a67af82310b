//! Keys that get other values: all of them or none, secrets unseen, and everything else as it was.

use super::*;
use crate::config::edit::{Assignments, Edit};
use std::path::PathBuf;

/// A folder with the file of `pinfold init`.
fn peer() -> (tempfile::TempDir, Folder) {
    let (dir, folder) = temp();
    let options = InitOptions { embedded: true, peername: Some("attic".into()), ..InitOptions::default() };
    init(&folder, &options, &Env::empty()).expect("init");
    (dir, folder)
}

fn text(folder: &Folder) -> String {
    std::fs::read_to_string(folder.service_json()).expect("service.json")
}

fn tree(folder: &Folder) -> Value {
    serde_json::from_str(&text(folder)).expect("JSON")
}

fn words(words: &[&str]) -> Assignments {
    let mut given = Assignments::default();
    words.iter().for_each(|word| given.word(word).expect(word));
    given
}

fn input(text: &str) -> Assignments {
    let mut given = Assignments::default();
    given.read(text).expect("standard input");
    given
}

/// Sets, and gives what changed.
fn set(folder: &Folder, given: &Assignments) -> Result<Vec<String>> {
    let plan = Edit::plan(folder, given, None, &Env::empty())?;
    plan.apply(folder, None)?;
    Ok(plan.changes.into_iter().map(|change| change.key).collect())
}

fn refused(folder: &Folder, given: &Assignments) -> String {
    let before = text(folder);
    let error = set(folder, given).expect_err("must be refused");
    assert_eq!(text(folder), before, "nothing is written");
    error.message().to_owned()
}

#[test]
fn every_key_of_the_table_can_be_set_to_its_default() {
    let (_dir, folder) = peer();
    for key in keys().iter().filter(|key| !key.path.starts_with("ipfs_connector.ipfshttp")) {
        let Ok(default) = serde_json::from_str::<Value>(&key.default) else { continue };
        let mut given = json!({});
        schema::insert(&mut given, &key.path.replace('_', "-"), default);
        let plan = Edit::plan(&folder, &input(&given.to_string()), None, &Env::empty());
        // Without a secret strangers could come in; that must be refused, and nothing else.
        match plan {
            Ok(_) => assert_ne!(key.path, "cluster.secret"),
            Err(error) => assert_eq!(key.path, "cluster.secret", "{error}"),
        }
    }
}

#[test]
fn only_what_is_asked_for_is_touched() {
    let (_dir, folder) = peer();
    let mut before = tree(&folder);
    schema::insert(&mut before, "cluster.of_a_friend", json!({"kept": [1, 2]}));
    std::fs::write(folder.service_json(), serde_json::to_string_pretty(&before).expect("JSON"))
        .expect("write");
    let changed = set(
        &folder,
        &words(&[
            "cluster.peername=the = in it",
            "cluster.repin-grace=90s",
            "consensus.raft.trailing_logs=5000",
        ]),
    )
    .expect("set");
    assert_eq!(changed, ["cluster.peername", "cluster.repin_grace", "consensus.raft.trailing_logs"]);
    let mut expected = before;
    schema::insert(&mut expected, "cluster.peername", json!("the = in it"));
    schema::insert(&mut expected, "cluster.repin_grace", json!("90s"));
    schema::insert(&mut expected, "consensus.raft.trailing_logs", json!(5000));
    assert_eq!(text(&folder), serde_json::to_string_pretty(&expected).expect("JSON"), "byte for byte");
    assert_eq!(set(&folder, &words(&["cluster.repin_grace=90s"])).expect("again"), Vec::<String>::new());
    let mode = folder.service_json().metadata().expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn one_mistake_and_nothing_is_written() {
    let (_dir, folder) = peer();
    let given = words(&["cluster.peername=shed", "cluster.replication_factor_min=many"]);
    let said = refused(&folder, &given);
    assert!(
        said.starts_with("cluster.replication_factor_min is \"many\": it must be a whole number"),
        "{said}"
    );
    // Each for itself is right; together they are not.
    let given = words(&["cluster.replication_factor_min=3", "cluster.replication_factor_max=2"]);
    let said = refused(&folder, &given);
    assert!(said.starts_with("service.json as it would be: cluster.replication_factor_min"), "{said}");
    let said = refused(&folder, &words(&["cluster.peernam=shed"]));
    assert!(
        said.contains("cluster.peernam is not a key") && said.contains("did you mean cluster.peername?"),
        "{said}"
    );
    let said = refused(&folder, &words(&["cluster=on"]));
    assert!(said.contains("cluster is a section; set a key of it, like cluster.peername"), "{said}");
    let said = refused(&folder, &words(&["api.restapi=perhaps"]));
    assert!(said.contains("set it to on or off"), "{said}");
    let said = refused(&folder, &words(&["api.restapi.http_listen_multiaddress=/ip4/0.0.0.0/tcp/9094"]));
    assert!(said.contains("was not changed: ") && said.contains("api.restapi"), "open to strangers: {said}");
    let both = words(&["ipfs_connector.ipfshttp.node_multiaddress=/ip4/127.0.0.1/tcp/5001"]);
    let said = refused(&folder, &both);
    assert!(said.contains("ipfs_connector has both"), "{said}");
}

#[test]
fn what_was_exposed_before_keeps_nobody_from_setting_something_else() {
    let (_dir, folder) = peer();
    let mut open = tree(&folder);
    schema::insert(&mut open, "cluster.secret", json!(""));
    std::fs::write(folder.service_json(), open.to_string()).expect("write");
    assert_eq!(set(&folder, &words(&["cluster.peername=shed"])).expect("set"), ["cluster.peername"]);
}

#[test]
fn secrets_come_by_standard_input_and_are_shown_nowhere() {
    let (_dir, folder) = peer();
    let secret = "ab".repeat(SECRET_BYTES);
    let mut given = Assignments::default();
    let said = given.word(&format!("cluster.secret={secret}")).expect_err("refused").message().to_owned();
    assert!(said.contains("--stdin") && !said.contains(&secret), "{said}");
    given.word("api.restapi.basic-auth-credentials=me:pass").expect_err("a secret under its other name");

    let lines = format!("cluster.secret={secret}\n\n  api.restapi.basic_auth_credentials=me:pass:word \n");
    let plan = Edit::plan(&folder, &input(&lines), None, &Env::empty()).expect("plan");
    let shown = format!("{plan:?}");
    assert!(!shown.contains(&secret) && !shown.contains("pass:word"), "{shown}");
    plan.apply(&folder, None).expect("apply");
    let (config, _) = Config::load(&folder, &Env::empty()).expect("load");
    assert_eq!(config.cluster.secret.expose_hex(), secret);
    assert_eq!(tree(&folder)["api"]["restapi"]["basic_auth_credentials"], json!({"me": "pass:word"}));

    let said = refused(&folder, &input("cluster.secret=too-short-a-secret"));
    assert!(!said.contains("too-short"), "{said}");
    let said =
        Assignments::default().read("cluster.secret too-short").expect_err("no =").message().to_owned();
    assert!(!said.contains("too-short"), "{said}");
}

#[test]
fn values_are_read_as_their_variables_would_be() {
    let (_dir, folder) = peer();
    let json = json!({
        "cluster": {"peername": 1234, "announce-multiaddress": "/ip4/10.0.0.1/tcp/9096,/ip4/10.0.0.2/tcp/9096"},
        "allocator": {"balanced": {"allocate-by": ["tag:shelf", "freespace"]}},
        "informer": {"tags": {"tags": {"shelf": "top"}}},
        "api": {"restapi": {"headers": {"X-Frame-Options": ["DENY"]}}},
    });
    set(&folder, &input(&json.to_string())).expect("set");
    let now = tree(&folder);
    assert_eq!(now["cluster"]["peername"], "1234");
    assert_eq!(
        now["cluster"]["announce_multiaddress"],
        json!(["/ip4/10.0.0.1/tcp/9096", "/ip4/10.0.0.2/tcp/9096"])
    );
    assert_eq!(now["allocator"]["balanced"]["allocate_by"], json!(["tag:shelf", "freespace"]));
    assert_eq!(now["informer"]["tags"]["tags"], json!({"shelf": "top"}));
    assert_eq!(now["api"]["restapi"]["headers"], json!({"X-Frame-Options": ["DENY"]}));
    set(
        &folder,
        &words(&["informer.tags.tags=shelf:low,room:attic", "allocator.balanced.allocate_by=freespace"]),
    )
    .expect("set");
    assert_eq!(tree(&folder)["informer"]["tags"]["tags"], json!({"shelf": "low", "room": "attic"}));
    assert!(
        Assignments::default().read(r#"{"cluster": {"repin-grace": "1s", "repin_grace": "2s"}}"#).is_err(),
        "twice"
    );
}

#[test]
fn sections_are_switched_and_come_with_the_keys_of_a_fresh_file() {
    let (_dir, folder) = peer();
    let changed = set(&folder, &words(&["api.pinsvcapi=off"])).expect("off");
    assert_eq!(changed, ["api.pinsvcapi"]);
    assert!(tree(&folder)["api"].get("pinsvcapi").is_none());
    assert_eq!(set(&folder, &words(&["api.pinsvcapi=off"])).expect("again"), Vec::<String>::new());
    set(&folder, &words(&["ipfs_connector.embedded=off", "ipfs_connector.ipfshttp=on"]))
        .expect("another node");
    let (config, _) = Config::load(&folder, &Env::empty()).expect("load");
    assert_eq!(config.ipfs, IpfsSection::Http(IpfsHttpConfig::default()), "its booleans have their defaults");
    let said = refused(&folder, &words(&["api.restapi=off", "api.restapi.read_timeout=1s"]));
    assert!(said.contains("leave one out"), "{said}");
}

#[test]
fn managed_values_are_put_back_when_they_are_no_longer_asked_for() {
    let (dir, folder) = peer();
    let record: PathBuf = dir.path().join("record.json");
    let before = tree(&folder);
    let manage = |json: Value| {
        let plan = Edit::plan(&folder, &input(&json.to_string()), Some(&record), &Env::empty())?;
        plan.apply(&folder, Some(&record))?;
        Ok::<_, Error>(plan.is_needed())
    };
    let kubo = json!({
        "cluster": {"peername": "shed"},
        "ipfs-connector": {"embedded": "off", "ipfshttp": {"node-multiaddress": "/ip4/10.0.0.9/tcp/5001"}},
    });
    assert!(manage(kubo.clone()).expect("set"));
    assert_eq!(tree(&folder)["ipfs_connector"]["ipfshttp"]["node_multiaddress"], "/ip4/10.0.0.9/tcp/5001");
    assert!(!manage(kubo).expect("the same again"), "nothing to do");
    // Another value over the first one: what comes back is what stood there at the very first.
    assert!(manage(json!({"cluster": {"peername": "cellar", "repin-grace": "5s"}})).expect("set"));
    assert_eq!(tree(&folder)["cluster"]["peername"], "cellar");
    assert_eq!(
        tree(&folder)["ipfs_connector"],
        before["ipfs_connector"],
        "the embedded node is back, as it was"
    );
    // What does not load leaves both files alone.
    let kept = std::fs::read(&record).expect("record");
    manage(json!({"cluster": {"peername": "x", "repin-grace": "soon"}})).expect_err("refused");
    assert_eq!(std::fs::read(&record).expect("record"), kept);
    assert_eq!(tree(&folder)["cluster"]["peername"], "cellar");
    assert!(manage(json!({})).expect("none left"));
    assert_eq!(tree(&folder), before);
    assert!(!manage(json!({})).expect("none left"));
}

#[test]
fn a_power_cut_between_the_two_files_leaves_a_way_back() {
    let (dir, folder) = peer();
    let record: PathBuf = dir.path().join("record.json");
    let before = tree(&folder);
    let plan = |json: Value| {
        Edit::plan(&folder, &input(&json.to_string()), Some(&record), &Env::empty()).expect("plan")
    };
    let first = json!({"cluster": {"peername": "shed", "repin-grace": "5s"}});
    let second = json!({"cluster": {"peername": "cellar", "dial-peer-timeout": "7s"}});
    plan(first).apply(&folder, Some(&record)).expect("apply");
    // The second time the power goes after each of the three writes.
    let (old_file, old_record) = (text(&folder), std::fs::read(&record).expect("record"));
    let next = plan(second);
    next.apply(&folder, Some(&record)).expect("apply");
    let (new_file, new_record) = (text(&folder), std::fs::read(&record).expect("record"));
    let bridge = next.bridge_text();
    for (file, record_now) in [
        (&old_file, bridge.as_bytes()),
        (&new_file, bridge.as_bytes()),
        (&new_file, new_record.as_slice()),
        (&old_file, old_record.as_slice()),
    ] {
        std::fs::write(folder.service_json(), file).expect("write");
        std::fs::write(&record, record_now).expect("write");
        plan(json!({})).apply(&folder, Some(&record)).expect("apply");
        assert_eq!(tree(&folder), before);
    }
}

#[test]
fn an_older_file_is_not_edited() {
    let (_dir, folder) = peer();
    std::fs::write(folder.service_json(), include_str!("../../../tests/data/config/0.3.5.json"))
        .expect("write");
    let said = refused(&folder, &words(&["cluster.peername=shed"]));
    assert!(said.contains("`pinfold config upgrade` first"), "{said}");
}

#[test]
fn a_variable_that_wins_is_named() {
    let (_dir, folder) = peer();
    let env = Env::from_pairs([("CLUSTER_PEERNAME", "by-variable")]);
    let plan = Edit::plan(&folder, &words(&["cluster.peername=shed"]), None, &env).expect("plan");
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("CLUSTER_PEERNAME wins"), "{:?}", plan.warnings);
}
