//! Real pinfold processes with real Kubo daemons behind them, as an ipfs-cluster that is being replaced has them.
//!
//! `tests/ipfs.rs` shows that the connector does what the trait promises; here the whole way is walked, from the command
//! line to the daemon and back, with the surprises that only a daemon of its own brings: somebody else pins and
//! unpins in it, it dies, it comes back.

mod support;

#[path = "support/kubo.rs"]
mod kubo_daemon;

use kubo_daemon::KuboDaemon;
use serde_json::{json, Value};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use support::cluster::{cid_of, ok, under_test, Cluster, Peer, PATIENCE};
use support::executable::executable;
use support::wait_for;

/// Between two comparisons with IPFS where a test waits for one.
const SOON: &str = "2s";
/// Where a test must not see one.
const NEVER: &str = "24h";

/// Peers with a Kubo each.
struct Fold {
    // First, so that the peers stop before their daemons.
    cluster: Cluster,
    kubos: Vec<KuboDaemon>,
}

impl Fold {
    /// `n` of them; `None` where there is no Kubo.
    fn of(n: usize, recover: &str) -> Option<Fold> {
        let kubos = (0..n).map(|_| KuboDaemon::start(None)).collect::<Option<Vec<_>>>()?;
        let cluster = Cluster::with(n, |i, config| {
            config["cluster"]["pin_recover_interval"] = recover.into();
            config["ipfs_connector"] = json!({"ipfshttp": {
                "node_multiaddress": kubos[i].api.to_string(),
                "connect_swarms_delay": "1s",
                "pin_timeout": "20s",
            }});
        });
        Some(Fold { cluster, kubos })
    }

    fn peer(&self, n: usize) -> &Peer {
        &self.cluster.peers[n]
    }
}

/// The status of a CID on the peer that is asked, as the long and the short way of REST say it.
fn statuses(peer: &Peer, cid: &str) -> (String, String) {
    let of = |info: &Value| info["peer_map"][peer.id()]["status"].as_str().unwrap_or("none").to_string();
    let one = of(&peer.json("GET", &format!("/pins/{cid}?local=true")));
    let all = peer.lines("/pins?local=true");
    (one, all.iter().find(|i| i["cid"] == cid).map_or_else(|| "none".into(), of))
}

/// A folder with a small file and one of several blocks.
fn holiday(at: &Path) -> PathBuf {
    let dir = at.join("holiday");
    std::fs::create_dir_all(dir.join("beach")).expect("folder");
    std::fs::write(dir.join("readme.txt"), "hello world\n").expect("file");
    let photo: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
    std::fs::write(dir.join("beach/photo.raw"), photo).expect("file");
    dir
}

#[test]
fn three_peers_keep_content_in_three_kubos() {
    let Some(fold) = Fold::of(3, NEVER) else { return };
    let (peers, kubos) = (&fold.cluster.peers, &fold.kubos);

    // What is added through pinfold is in every Kubo, pinned, and can be read there without the others.
    let dir = holiday(fold.cluster.folder.path());
    let root = ok(peers[0].ctl(&["add", "-Q", "-r", dir.to_str().expect("UTF-8")])).trim().to_string();
    assert_eq!(
        root,
        kubos[1].ok(&["add", "-Q", "-r", "--only-hash", "--cid-version=0", dir.to_str().expect("UTF-8")])
    );
    peers[0].wait_status(&root, "pinned", 3);
    for kubo in kubos {
        assert!(kubo.has_pinned(&root, "recursive"));
        assert_eq!(kubo.ok(&["--offline", "cat", &format!("{root}/readme.txt")]), "hello world");
    }

    // What only one of them has comes to all, for pinfold connects them.
    let content: Vec<u8> = (0..200_000u32).flat_map(|n| (n * 7).to_le_bytes()).collect();
    let only = kubos[2].add(&content, &["--pin=false"]);
    peers[1].json("POST", &format!("/pins/{only}?name=only-there"));
    peers[1].wait_status(&only, "pinned", 3);
    for kubo in kubos {
        assert!(kubo.has_pinned(&only, "recursive"));
        let cat = kubo.output(&["--offline", "cat", &only]);
        assert!(cat.stdout == content, "the content in each Kubo");
    }
    let ids: Vec<String> = kubos.iter().map(KuboDaemon::id).collect();
    wait_for("connections between all Kubos", PATIENCE, || {
        for (i, kubo) in kubos.iter().enumerate() {
            let connected = kubo.ok(&["swarm", "peers"]);
            let missing = ids.iter().enumerate().find(|(j, id)| *j != i && !connected.contains(id.as_str()));
            if let Some((j, _)) = missing {
                return Err(format!("Kubo {i} is not connected with Kubo {j}: {connected}"));
            }
        }
        Ok(())
    });
    // Who is connected with whom is told as well.
    let graph = peers[0].json("GET", "/health/graph");
    assert_eq!(graph["cluster_to_ipfs"][peers[1].id()], ids[1].as_str(), "{graph}");

    // Direct pins, by both ways of asking.
    let direct =
        [kubos[0].add(b"direct by CID", &["--pin=false"]), kubos[1].add(b"direct by path", &["--pin=false"])];
    ok(peers[0].ctl(&["pin", "add", "--mode", "direct", &direct[0]]));
    peers[0].json("POST", &format!("/pins/ipfs/{}?mode=direct", direct[1]));
    for cid in &direct {
        peers[2].wait_status(cid, "pinned", 3);
        assert_eq!(statuses(&peers[2], cid), ("pinned".into(), "pinned".into()));
        assert!(kubos.iter().all(|k| k.has_pinned(cid, "direct") && !k.has_pinned(cid, "recursive")));
    }
    // A comparison with IPFS finds nothing to do about them.
    assert_eq!(peers[0].json("POST", "/pins/recover"), Value::Null);
    assert_eq!(statuses(&peers[0], &direct[0]).0, "pinned");

    // An unpin reaches every Kubo; then the blocks are garbage there, and what is pinned is not.
    ok(peers[2].ctl(&["pin", "rm", &only]));
    peers[0].wait_status(&only, "unpinned", 3);
    assert!(!kubos.iter().any(|k| k.has_pinned(&only, "recursive")));
    let collected = ok(peers[0].ctl(&["--enc", "json", "ipfs", "gc"]));
    let collected: Value = serde_json::from_str(&collected).expect("JSON");
    let map = collected["peer_map"].as_object().expect("peer_map");
    assert_eq!(map.len(), 3, "{collected}");
    for (peer, gc) in map {
        let keys = gc["keys"].to_string();
        assert!(gc["error"].as_str().is_none_or(str::is_empty) && keys.len() > 100, "{peer}: {gc}");
    }
    for kubo in kubos {
        assert!(!kubo.output(&["--offline", "block", "stat", "--offline", &only]).status.success());
        assert_eq!(kubo.ok(&["--offline", "cat", &format!("{root}/readme.txt")]), "hello world");
        assert!(kubo.has_pinned(&direct[1], "direct"));
    }
}

#[test]
fn what_others_do_in_kubo_is_noticed_or_left_alone() {
    let Some(fold) = Fold::of(1, NEVER) else { return };
    let (peer, kubo) = (fold.peer(0), &fold.kubos[0]);
    // Kubo remembers what it was asked for long enough.
    kubo.ok(&["diag", "cmds", "set-time", "10m"]);

    // The free space is Kubo's.
    let space = peer.json("GET", "/monitor/metrics/freespace");
    let free: u64 = space[0]["value"].as_str().expect("a value").parse().expect("a number");
    let repo: Value = serde_json::from_str(&kubo.ok(&["repo", "stat", "--enc", "json"])).expect("JSON");
    let (max, size) = (repo["StorageMax"].as_u64().expect("max"), repo["RepoSize"].as_u64().expect("size"));
    assert!(free.abs_diff(max - size) < 1 << 20, "{free} free of {max} with {size} used");

    // Unpinned behind our back: noticed when somebody looks, repaired when somebody asks.
    let ours = kubo.add(b"ours", &["--pin=false"]);
    let hand = kubo.add(b"pinned by hand", &[]);
    let both = kubo.add(b"pinned by hand and by us", &[]);
    peer.json("POST", &format!("/pins/{ours}"));
    peer.json("POST", &format!("/pins/{both}"));
    peer.wait_status(&ours, "pinned", 1);
    peer.wait_status(&both, "pinned", 1);
    kubo.ok(&["pin", "rm", &ours]);
    peer.wait_status(&ours, "unexpectedly_unpinned", 1);
    let text = ok(peer.ctl(&["status", &ours]));
    assert!(text.contains("UNEXPECTEDLY_UNPINNED"), "{text}");
    assert!(!kubo.has_pinned(&ours, "recursive"), "looking repairs nothing");
    ok(peer.ctl(&["recover", &ours]));
    peer.wait_status(&ours, "pinned", 1);
    assert!(kubo.has_pinned(&ours, "recursive"));
    // The same by recovering everything.
    kubo.ok(&["pin", "rm", &ours]);
    ok(peer.ctl(&["recover"]));
    peer.wait_status(&ours, "pinned", 1);
    assert!(kubo.has_pinned(&ours, "recursive"));

    // Pinned by hand: not ours, so not touched, not listed, not removed.
    assert!(kubo.has_pinned(&hand, "recursive"));
    assert_eq!(statuses(peer, &hand), ("unpinned".into(), "none".into()));
    assert_eq!(peer.request("DELETE", &format!("/pins/{hand}")).expect("answer").0, 404);
    assert!(kubo.has_pinned(&hand, "recursive"));
    // What we were told to keep and then not to keep goes, whoever pinned it first.
    peer.json("DELETE", &format!("/pins/{both}"));
    peer.wait_status(&both, "unpinned", 1);
    assert!(!kubo.has_pinned(&both, "recursive"));

    // An update tells Kubo from what, so that it walks only the difference.
    let mut content: Vec<u8> = (0..300_000u32).flat_map(|n| (n * 3).to_le_bytes()).collect();
    let old = kubo.add(&content, &["--pin=false"]);
    content.extend(b"and more");
    let new = kubo.add(&content, &["--pin=false"]);
    peer.json("POST", &format!("/pins/{old}?name=album"));
    peer.wait_status(&old, "pinned", 1);
    ok(peer.ctl(&["pin", "update", &old, &new]));
    peer.wait_status(&new, "pinned", 1);
    assert!(kubo.has_pinned(&new, "recursive") && kubo.has_pinned(&old, "recursive"), "the old one stays");
    let commands = kubo.ok(&["diag", "cmds", "-v"]);
    assert!(commands.contains("pin/update"), "{commands}");
    assert_eq!(peer.json("GET", &format!("/allocations/{new}"))["name"], "album");
}

#[test]
fn a_comparison_every_now_and_then_repairs_what_others_undid() {
    let Some(mut fold) = Fold::of(1, SOON) else { return };
    let (mut cids, hand) = (Vec::new(), fold.kubos[0].add(b"by hand", &[]));
    for mode in ["recursive", "direct"] {
        let cid = fold.kubos[0].add(mode.as_bytes(), &["--pin=false"]);
        fold.peer(0).json("POST", &format!("/pins/{cid}?mode={mode}"));
        fold.peer(0).wait_status(&cid, "pinned", 1);
        cids.push((cid, mode));
    }
    let all_are_back = |fold: &Fold| {
        wait_for("the pins in Kubo again", PATIENCE, || {
            match cids.iter().find(|(cid, mode)| !fold.kubos[0].has_pinned(cid, mode)) {
                None => Ok(()),
                Some(missing) => Err(format!("{missing:?}")),
            }
        });
    };
    for (cid, _) in &cids {
        fold.kubos[0].ok(&["pin", "rm", cid]);
    }
    all_are_back(&fold);
    // Undone while pinfold was not there to see it.
    fold.cluster.peers[0].stop();
    for (cid, _) in &cids {
        fold.kubos[0].ok(&["pin", "rm", cid]);
    }
    fold.cluster.peers[0].start(&["daemon"]);
    all_are_back(&fold);
    for (cid, _) in &cids {
        fold.peer(0).wait_status(cid, "pinned", 1);
    }
    assert!(fold.kubos[0].has_pinned(&hand, "recursive"));
}

#[test]
fn a_kubo_that_dies_and_comes_back_is_caught_up_with() {
    let Some(mut fold) = Fold::of(2, NEVER) else { return };
    let cid = fold.kubos[0].add(b"while the other is away", &["--pin=false"]);
    let gone = fold.kubos[0].add(b"unpinned while the other is away", &["--pin=false"]);
    fold.peer(0).json("POST", &format!("/pins/{gone}"));
    fold.peer(0).wait_status(&gone, "pinned", 2);
    fold.kubos[1].kill();
    // The peer stays useful, and says what is wrong.
    let id = fold.peer(1).json("GET", "/id");
    assert!(!id["ipfs"]["error"].as_str().unwrap_or_default().is_empty(), "{id}");
    fold.peer(1).json("POST", &format!("/pins/{cid}"));
    fold.peer(0).wait_status(&cid, "pin_error", 1);
    fold.peer(0).wait_status(&cid, "pinned", 1);
    let info = fold.peer(0).json("GET", &format!("/pins/{cid}"));
    let error = info["peer_map"][fold.peer(1).id()]["error"].as_str().unwrap_or_default().to_string();
    let port = fold.kubos[1].api.to_string().rsplit('/').next().expect("port").to_string();
    assert!(error.contains(&port), "the error says which daemon was not reached: {error}");
    fold.peer(1).json("DELETE", &format!("/pins/{gone}"));
    fold.peer(0).wait_status(&gone, "unpin_error", 1);
    // A restarted peer does not need it either.
    fold.cluster.peers[1].stop();
    fold.cluster.peers[1].start(&["daemon"]);
    fold.peer(0).wait_status(&cid, "pin_error", 1);
    fold.kubos[1].run();
    ok(fold.peer(0).ctl(&["recover"]));
    fold.peer(0).wait_status(&cid, "pinned", 2);
    fold.peer(0).wait_status(&gone, "unpinned", 2);
    assert!(fold.kubos[1].has_pinned(&cid, "recursive") && !fold.kubos[1].has_pinned(&gone, "recursive"));
}

/// Runs the executable under another name.
fn face(program: &Path, args: &[&str]) -> Output {
    under_test(program).args(args).stdin(Stdio::null()).output().expect("the executable starts")
}

#[test]
fn the_programs_of_ipfs_cluster_run_by_their_names() {
    let Some(kubo) = KuboDaemon::start(None) else { return };
    let tmp = tempfile::tempdir().expect("folder");
    let programs = ["ipfs-cluster-service", "ipfs-cluster-ctl"].map(|name| {
        let at = tmp.path().join(name);
        symlink(executable(), &at).expect("symlink");
        at
    });
    let mut peer = Peer::fresh(tmp.path().join("peer"));
    ok(face(&programs[0], &["-c", peer.path(), "init", "--consensus", "raft", "--randomports"]));
    let written = peer.config();
    let connector = &written["ipfs_connector"];
    assert!(connector["embedded"].is_null(), "{connector}");
    assert_eq!(connector["ipfshttp"]["node_multiaddress"], "/ip4/127.0.0.1/tcp/5001");
    peer.edit(|config| {
        config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = kubo.api.to_string().into();
    });
    peer.start_as(&programs[0], &["daemon"]);
    let port = peer.url().rsplit(':').next().expect("port").to_string();
    let host = format!("/ip4/127.0.0.1/tcp/{port}");
    let ctl = |args: &[&str]| {
        let mut all = vec!["--host", host.as_str()];
        all.extend(args);
        face(&programs[1], &all)
    };
    assert!(ok(ctl(&["id"])).contains(&kubo.id()));
    assert_eq!(ok(ctl(&["peers", "ls"])).lines().next().map(|l| l.starts_with(&peer.id())), Some(true));
    peer.wait_candidates(1);
    let file = tmp.path().join("file.txt");
    std::fs::write(&file, "by the old name").expect("file");
    let added = ok(ctl(&["add", "-Q", file.to_str().expect("UTF-8")])).trim().to_string();
    assert_eq!(kubo.ok(&["--offline", "cat", &added]), "by the old name");
    let cid = kubo.add(b"in Kubo", &["--pin=false"]);
    ok(ctl(&["pin", "add", "--name", "old ways", "--wait", &cid]));
    assert!(kubo.has_pinned(&cid, "recursive"));
    assert!(ok(ctl(&["pin", "ls"])).contains("old ways"));
    assert!(ok(ctl(&["status", &cid])).contains("PINNED"));
    ok(ctl(&["recover", &cid]));
    ok(ctl(&["pin", "rm", &cid]));
    peer.wait_status(&cid, "unpinned", 1);
    ok(ctl(&["ipfs", "gc"]));
    assert!(!kubo.output(&["block", "stat", "--offline", &cid]).status.success());
    assert!(ok(ctl(&["health", "graph"])).starts_with("digraph"));
    let unknown = ctl(&["pin", "rm", &cid_of(1)]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    peer.stop();
}

#[test]
fn a_configuration_of_ipfs_cluster_runs_as_before() {
    let Some(kubo) = KuboDaemon::start(None) else { return };
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::fresh(tmp.path().join("peer"));
    // As ipfs-cluster-service 1.1.6 wrote them: the configuration, and an RSA identity of earlier days.
    let cases: Value = serde_json::from_str(include_str!("golden/service.json")).expect("golden");
    let case = cases.as_array().expect("cases").iter().find(|c| c["name"] == "the service.json of init");
    let recorded = case.expect("case")["response"]["stdout"].as_str().expect("text");
    let identities: Value = serde_json::from_str(include_str!("golden/identities.json")).expect("golden");
    std::fs::create_dir_all(&peer.folder).expect("folder");
    std::fs::write(peer.folder.join("service.json"), recorded).expect("service.json");
    std::fs::write(peer.folder.join("identity.json"), identities[0].to_string()).expect("identity.json");
    let free = |n: usize| -> Vec<u16> {
        let listeners: Vec<_> =
            (0..n).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        listeners.iter().map(|l| l.local_addr().expect("address").port()).collect()
    };
    // Nothing is changed but the ports.
    peer.edit(|config| {
        let ports = free(5);
        config["cluster"]["listen_multiaddress"] =
            json!([format!("/ip4/0.0.0.0/tcp/{}", ports[0]), format!("/ip4/0.0.0.0/udp/{}/quic", ports[0])]);
        let api = &mut config["api"];
        api["restapi"]["http_listen_multiaddress"] = format!("/ip4/127.0.0.1/tcp/{}", ports[1]).into();
        api["ipfsproxy"]["listen_multiaddress"] = format!("/ip4/127.0.0.1/tcp/{}", ports[2]).into();
        api["ipfsproxy"]["node_multiaddress"] = kubo.api.to_string().into();
        api["pinsvcapi"]["http_listen_multiaddress"] = format!("/ip4/127.0.0.1/tcp/{}", ports[3]).into();
        let endpoint = &mut config["observations"]["metrics"]["prometheus_endpoint"];
        *endpoint = format!("/ip4/127.0.0.1/tcp/{}", ports[4]).into();
        config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = kubo.api.to_string().into();
    });
    let before = std::fs::read(peer.folder.join("service.json")).expect("service.json");
    peer.start(&["daemon"]);
    let id = peer.json("GET", "/id");
    assert_eq!(id["id"], identities[0]["id"]);
    assert_eq!(id["ipfs"]["id"], kubo.id().as_str());
    peer.wait_candidates(1);
    // Its allocator goes by tag and free space.
    assert_eq!(peer.json("GET", "/monitor/metrics/tag:group")[0]["value"], "default");
    let cid = kubo.add(b"as before", &["--pin=false"]);
    peer.json("POST", &format!("/pins/{cid}?replication=1"));
    peer.wait_status(&cid, "pinned", 1);
    assert!(kubo.has_pinned(&cid, "recursive"));
    assert_eq!(peer.json("GET", &format!("/allocations/{cid}"))["allocations"], json!([peer.id()]));
    let (status, took) = peer.stop();
    assert!(
        status.success() && took < pinfold::daemon::STOP_LIMIT + Duration::from_secs(1),
        "{status} {took:?}"
    );
    assert_eq!(
        std::fs::read(peer.folder.join("service.json")).expect("service.json"),
        before,
        "left as it was"
    );
    peer.start(&["daemon"]);
    peer.wait_status(&cid, "pinned", 1);
}
