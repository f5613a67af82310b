//! `pinfold doctor` before every kind of trouble: each is broken on purpose, found, and told with what mends it. What is
//! well is said to be well, and nothing is changed by looking.

#[path = "security/certificates.rs"]
mod certificates;
#[path = "support/kubo.rs"]
mod kubo;
mod support;

use serde_json::{json, Value};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::clock::Clock;
use support::cluster::{free_port, pinfold, Peer, PATIENCE, SECRET};
use support::disk::SmallDisk;
use support::executable::executable;
use support::wait_for;

fn one(tmp: &tempfile::TempDir) -> Peer {
    Peer::init(tmp.path().join("p"), "p", SECRET)
}

fn run(peer: &Peer, change: impl FnOnce(&mut Command)) -> (i32, Vec<Value>) {
    let mut command = pinfold();
    // Another user's IPFS repository is none of this test's business.
    command.env("IPFS_PATH", peer.folder.join("no-ipfs"));
    change(&mut command);
    let output: Output =
        command.args(["-c", peer.path(), "doctor", "--enc", "json"]).output().expect("the executable starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
    let findings = report["findings"].as_array().expect("findings").clone();
    let failed = findings.iter().any(|f| f["level"] == "FAIL");
    let code = output.status.code().expect("a code");
    assert_eq!(code, i32::from(failed), "the code says whether something fails: {text}");
    (code, findings)
}

fn examine(peer: &Peer) -> Vec<Value> {
    run(peer, |_| {}).1
}

/// The finding of this check and level that has these words; its fix.
fn found(findings: &[Value], check: &str, level: &str, words: &str) -> String {
    let hit = findings.iter().find(|f| {
        f["check"] == check
            && f["level"] == level
            && f["what"].as_str().is_some_and(|what| what.contains(words))
    });
    let hit = hit.unwrap_or_else(|| panic!("no {level} {check} with \"{words}\" in {findings:#?}"));
    let fix = hit["fix"].as_str().unwrap_or("").to_owned();
    assert_eq!(fix.is_empty(), level == "OK", "every trouble has a fix, and only trouble: {hit}");
    fix
}

/// Nothing but OK, apart from what the machine of the test may have.
fn all_well(findings: &[Value]) {
    let bad: Vec<&Value> = findings
        .iter()
        .filter(|f| {
            f["level"] != "OK" && f["check"] != "disk" && f["check"] != "memory" && f["check"] != "files"
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Every file below a folder with its bytes and time.
fn contents(of: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(of).expect("folder").map(|e| e.expect("entry").path()) {
        if entry.is_dir() {
            all.extend(contents(&entry));
        } else {
            let modified = entry.metadata().and_then(|m| m.modified()).expect("time");
            all.push((entry.clone(), std::fs::read(&entry).expect("file"), modified));
        }
    }
    all.sort();
    all
}

#[test]
fn a_healthy_peer_is_well_whether_it_runs_or_not_and_is_left_as_it_is() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let before = contents(&peer.folder);
    let findings = examine(&peer);
    all_well(&findings);
    found(&findings, "daemon", "OK", "it does not run");
    assert_eq!(before, contents(&peer.folder), "a fresh folder is not touched");

    peer.start(&["daemon"]);
    let findings = examine(&peer);
    all_well(&findings);
    found(&findings, "daemon", "OK", &format!("it runs as process {}", peer.pid()));
    found(&findings, "cluster", "OK", "1 member(s), led by");
    found(&findings, "ports", "OK", "cluster.listen_multiaddress: ");
    found(&findings, "ports", "OK", "is held by the running daemon");
    found(&findings, "identity", "OK", &peer.id());
    found(&findings, "ipfs", "OK", "the embedded node runs");
    peer.stop();
    let before = contents(&peer.folder);
    all_well(&examine(&peer));
    assert_eq!(before, contents(&peer.folder), "neither is one with data");

    // For people: the same in lines.
    let text = peer.ctl(&["doctor"]);
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(
        text.lines()
            .skip(1)
            .all(|l| l.starts_with("OK") || l.starts_with("WARN") || l.starts_with(' ') || l.ends_with('.')),
        "{text}"
    );
    // A command for pinfold only.
    let link = tmp.path().join("ipfs-cluster-ctl");
    std::os::unix::fs::symlink(executable(), &link).expect("link");
    assert_eq!(Command::new(&link).arg("doctor").status().expect("starts").code(), Some(3));
}

#[test]
fn what_is_wrong_in_the_folder_is_found() {
    let tmp = tempfile::tempdir().expect("folder");
    let nobody = Peer::fresh(tmp.path().join("nothing"));
    let fix = found(&examine(&nobody), "folder", "FAIL", "does not exist");
    assert!(fix.contains("pinfold up -c "), "{fix}");

    let peer = one(&tmp);
    let good = peer.config();
    let with = |change: &dyn Fn(&mut Value)| {
        peer.edit(|config| {
            *config = good.clone();
            change(config);
        });
        examine(&peer)
    };
    let findings = with(&|config| config["cluster"]["replication_factor_min"] = 7.into());
    let fix = found(&findings, "config", "FAIL", "replication_factor_min");
    assert!(fix.starts_with("edit ") && fix.ends_with("service.json"), "{fix}");
    found(&with(&|config| config["cluster"]["peernam"] = "x".into()), "config", "WARN", "peernam");
    let findings = with(&|config| config["cluster"]["secret"] = "".into());
    found(&findings, "secret", "WARN", "only peers on this machine");
    let findings = with(&|config| {
        config["cluster"]["secret"] = "".into();
        config["cluster"]["listen_multiaddress"] = format!("/ip4/0.0.0.0/tcp/{}", free_port()).into();
    });
    let fix = found(&findings, "secret", "FAIL", "anyone who reaches the cluster port");
    assert!(fix.contains("/dev/urandom"), "{fix}");
    let wide = format!("/ip4/0.0.0.0/tcp/{}", free_port());
    let findings =
        with(&|config| config["api"]["restapi"]["http_listen_multiaddress"] = wide.as_str().into());
    found(&findings, "config", "FAIL", "nobody is asked for a password");
    with(&|_| {});
    std::fs::write(peer.folder.join("service.json"), "{").expect("written");
    found(&examine(&peer), "config", "FAIL", "the JSON is not valid");
    std::fs::write(peer.folder.join("service.json"), good.to_string()).expect("written");

    let identity = peer.folder.join("identity.json");
    let text = std::fs::read(&identity).expect("identity");
    std::fs::write(&identity, &text[..20]).expect("written");
    found(&examine(&peer), "identity", "FAIL", "identity.json");
    std::fs::remove_file(&identity).expect("removed");
    let fix = found(&examine(&peer), "identity", "FAIL", "no such file");
    assert!(fix.contains("backup"), "{fix}");
}

#[test]
fn a_certificate_that_is_over_and_one_that_ends_soon_are_found() {
    let tmp = tempfile::tempdir().expect("folder");
    let peer = one(&tmp);
    peer.edit(|config| {
        config["api"]["restapi"]["ssl_cert_file"] = "cert.pem".into();
        config["api"]["restapi"]["ssl_key_file"] = "key.pem".into();
    });
    found(&examine(&peer), "certificate", "FAIL", "cert.pem: No such file");
    for (name, from, to, level, words) in [
        ("over", -30, -3, "FAIL", "expired on "),
        ("soon", -30, 5, "WARN", "expires on "),
        ("early", 3, 30, "FAIL", "is not valid before "),
        ("good", -30, 100, "OK", "is good until "),
    ] {
        let Some(pair) = certificates::make(tmp.path(), name, from, to) else { return };
        for (from, name) in [(&pair.certificate, "cert.pem"), (&pair.key, "key.pem")] {
            std::fs::copy(from, peer.folder.join(name)).expect("copied");
        }
        found(&examine(&peer), "certificate", level, words);
    }
}

#[test]
fn a_port_that_somebody_else_has_is_found_with_its_holder() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let port: u16 = peer.url().rsplit(':').next().expect("port").parse().expect("number");
    let thief = TcpListener::bind(("127.0.0.1", port)).expect("bound");
    let fix = found(&examine(&peer), "ports", "FAIL", &format!("is taken by process {}", std::process::id()));
    assert!(fix.contains(&format!("kill {}", std::process::id())), "{fix}");
    drop(thief);
    peer.start(&["daemon"]);
    // The file was changed since the daemon started.
    let other = free_port();
    peer.edit(|config| {
        config["cluster"]["listen_multiaddress"] = format!("/ip4/127.0.0.1/tcp/{other}").into();
    });
    let thief = TcpListener::bind(("127.0.0.1", other)).expect("bound");
    found(
        &examine(&peer),
        "ports",
        "FAIL",
        &format!("127.0.0.1:{other} is taken by process {}", std::process::id()),
    );
    drop(thief);
    let fix = found(&examine(&peer), "ports", "WARN", "it was started with another address");
    assert!(fix.contains(&format!("kill {}", peer.pid())), "{fix}");
    peer.edit(|config| {
        config["api"]["restapi"]["http_listen_multiaddress"] = format!("/ip4/127.0.0.1/tcp/{other}").into();
    });
    found(&examine(&peer), "daemon", "FAIL", "its API does not answer");
}

#[test]
fn a_disk_that_is_full_or_read_only_is_found() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(disk) = SmallDisk::mount(&tmp.path().join("disk"), 400) else { return };
    let peer = Peer::init(tmp.path().join("disk/p"), "p", SECRET);
    let fix = found(&examine(&peer), "disk", "WARN", "has only 4");
    assert!(fix.starts_with("du "), "{fix}");
    disk.fill_to(10 << 20);
    found(&examine(&peer), "disk", "FAIL", "nothing more is taken");
    disk.make_room();
    let Some(_frozen) = SmallDisk::read_only(&peer.folder) else { return };
    let fix = found(&examine(&peer), "disk", "FAIL", "mounted read-only");
    assert!(fix.contains("remount,rw"), "{fix}");
    found(&examine(&peer), "disk", "FAIL", "cannot be written");
}

#[test]
fn clocks_that_cannot_be_or_do_not_agree_are_found() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(clock) = Clock::new(tmp.path()) else { return };
    let mut first = Peer::init(tmp.path().join("p0"), "p0", SECRET);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock").as_secs();
    clock.set(-(now as i64));
    let library = tmp.path().join("clock.so");
    let (code, findings) = run(&first, |command| {
        command.env("LD_PRELOAD", &library).env("PINFOLD_TEST_CLOCK", tmp.path().join("offset"));
    });
    assert_eq!(code, 1);
    let fix = found(&findings, "clock", "FAIL", "it says 1970-01-01");
    assert!(fix.contains("timedatectl"), "{fix}");

    first.start(&["daemon"]);
    let mut second = Peer::init(tmp.path().join("p1"), "p1", SECRET);
    second.start(&["daemon", "--bootstrap", &first.address()]);
    first.wait_members(2);
    found(&examine(&first), "clock", "OK", "it agrees with those of 1 member(s)");
    second.stop();
    clock.set(365 * 86_400);
    clock.start(&mut second);
    wait_for("the finding", PATIENCE, || {
        let findings = examine(&first);
        let ahead = findings
            .iter()
            .any(|f| f["what"].as_str().is_some_and(|w| w.contains("p1 is 365 days ahead of")));
        if ahead {
            Ok(())
        } else {
            Err(format!("{findings:#?}"))
        }
    });
    found(&examine(&second), "clock", "WARN", "p0 is 365 days behind");
}

#[test]
fn peers_that_cannot_be_reached_are_found_with_the_cause() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut first = Peer::init(tmp.path().join("p0"), "p0", SECRET);
    let mut second = Peer::init(tmp.path().join("p1"), "p1", SECRET);
    let mut stranger = Peer::init(tmp.path().join("p2"), "p2", &"7".repeat(64));
    for peer in [&mut first, &mut stranger] {
        peer.start(&["daemon"]);
    }
    second.start(&["daemon", "--bootstrap", &first.address()]);
    first.wait_members(2);
    found(&examine(&first), "peers", "OK", "the daemon reaches all 1 others");
    // Stopped: the daemon says who does not answer, and that there is no majority.
    second.stop();
    let id = second.id();
    wait_for("the loss of the majority", PATIENCE, || {
        let (_, findings) = run(&first, |_| {});
        if findings.iter().any(|f| f["check"] == "cluster" && f["level"] == "FAIL") {
            Ok(())
        } else {
            Err(format!("{findings:#?}"))
        }
    });
    let findings = examine(&first);
    found(&findings, "cluster", "FAIL", "no leader");
    let fix = found(&findings, "peers", "FAIL", &format!("{id} does not answer the daemon"));
    assert!(fix.contains(&format!("pinfold peers rm {id}")), "{fix}");
    // Without the daemon they are dialled: alive, refused, another secret, another peer at the address.
    let other = libp2p::PeerId::random();
    let closed = format!("/ip4/127.0.0.1/tcp/{}/p2p/{other}", free_port());
    let misdial = first.address().replace(&first.id(), &other.to_string());
    for (address, level, words) in [
        (first.address(), "OK", "answers, with our secret"),
        (closed, "FAIL", "connection refused"),
        (stranger.address(), "FAIL", "the cluster secret there differs from ours"),
        (misdial, "FAIL", "answers there, not"),
    ] {
        std::fs::write(second.folder.join("peerstore"), format!("{address}\n")).expect("written");
        let fix = found(&examine(&second), "peers", level, words);
        assert!(words != "connection refused" || fix.contains("pinfold up"), "{fix}");
        assert!(!fix.contains(SECRET) && !fix.contains(&"7".repeat(64)), "{fix}");
    }
    // Those who were dialled took the doctor for nobody.
    assert_eq!(first.json("GET", "/id")["cluster_peers"].as_array().expect("peers").len(), 2);
    std::fs::write(second.folder.join("peerstore"), "/ip4/nonsense\n").expect("written");
    found(&examine(&second), "peers", "WARN", "line 1: not a multiaddress");
}

#[test]
fn an_ipfs_daemon_that_is_down_and_a_key_that_is_none_are_found() {
    let tmp = tempfile::tempdir().expect("folder");
    let peer = one(&tmp);
    let good = peer.config();
    peer.edit(|config| {
        config["ipfs_connector"] =
            json!({"ipfshttp": {"node_multiaddress": format!("/ip4/127.0.0.1/tcp/{}", free_port())}});
    });
    let fix = found(&examine(&peer), "ipfs", "FAIL", "does not answer");
    assert!(fix.contains("ipfs daemon"), "{fix}");
    if let Some(daemon) = kubo::KuboDaemon::start(None) {
        peer.edit(|config| {
            config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = daemon.api.to_string().into()
        });
        found(&examine(&peer), "ipfs", "OK", "answers: ");
    }
    peer.edit(|config| {
        *config = good;
        config["ipfs_connector"]["embedded"]["swarm_key_file"] = "swarm.key".into();
    });
    found(&examine(&peer), "ipfs", "FAIL", "does not exist");
    std::fs::write(peer.folder.join("swarm.key"), "not a key").expect("written");
    found(&examine(&peer), "ipfs", "FAIL", "is not a swarm.key");
    let key = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "5".repeat(64));
    std::fs::write(peer.folder.join("swarm.key"), key).expect("written");
    found(&examine(&peer), "ipfs", "OK", "fingerprint");
}
