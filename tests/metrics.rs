//! What peers tell about themselves, how allocation goes by it, who is missed, and the picture of it all. Real
//! processes; the metrics of the disk come from embedded nodes, once from a scripted Kubo.

mod support;

use serde_json::{json, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::cluster::{cid_of, ok, Cluster, Peer, PATIENCE, SECRET};
use support::fake_kubo::{free_port, FakeKubo, Mood};
use support::wait_for;

/// Long enough that what a slow machine tells late still counts; told again after half of it.
const TTL: &str = "4s";

/// A cluster whose peers tell just what the test says.
fn cluster(n: usize, change: impl Fn(usize, &mut Value)) -> Cluster {
    Cluster::members(n, |i, config| {
        config["cluster"]["replication_factor_min"] = 1.into();
        config["cluster"]["replication_factor_max"] = 1.into();
        config["monitor"]["pubsubmon"]["check_interval"] = "500ms".into();
        change(i, config);
    })
}

/// The values of a metric by index of the peer, once `enough` says so.
fn wait_metric(
    cluster: &Cluster,
    name: &str,
    enough: impl Fn(&BTreeMap<usize, String>) -> bool,
) -> BTreeMap<usize, String> {
    wait_for(&format!("the metric {name}"), PATIENCE, || {
        let metrics = cluster.peers[0].json("GET", &format!("/monitor/metrics/{name}"));
        let index =
            |m: &Value| cluster.peers.iter().position(|p| m["peer"] == p.id().as_str()).expect("a peer");
        let rows = metrics.as_array().cloned().unwrap_or_default();
        let values: BTreeMap<usize, String> =
            rows.iter().map(|m| (index(m), m["value"].as_str().expect("text").to_string())).collect();
        if enough(&values) {
            Ok(values)
        } else {
            Err(metrics.to_string())
        }
    })
}

/// Pins something that nobody has; who was chosen.
fn chosen(cluster: &Cluster, n: u64, query: &str) -> BTreeSet<usize> {
    let pin = cluster.peers[0].json("POST", &format!("/pins/{}?{query}", cid_of(n)));
    let ids = pin["allocations"].as_array().expect("allocations").clone();
    let index = |id: &Value| cluster.peers.iter().position(|p| *id == p.id().as_str()).expect("a peer");
    ids.iter().map(index).collect()
}

/// Adds content of its own that only this peer holds.
fn add(cluster: &Cluster, holder: usize, text: &str) {
    let file = cluster.path(&format!("{text}.txt"));
    std::fs::write(&file, text.repeat(1_000)).expect("file");
    let id = cluster.peers[holder].id();
    let args = ["add", "-Q", "--rmin", "1", "--rmax", "1", "--allocations", &id];
    let args: Vec<&str> = args.into_iter().chain([file.to_str().expect("UTF-8")]).collect();
    let cid = ok(cluster.peers[0].ctl(&args)).trim().to_string();
    cluster.peers[0].wait_status(&cid, "pinned", 1);
}

#[test]
fn a_peer_tells_what_is_configured_and_for_how_long() {
    let cluster = cluster(2, |_, c| {
        c["allocator"]["balanced"]["allocate_by"] = json!(["reposize"]);
        c["informer"] = json!({
            "disk": {"metric_ttl": "4s", "metric_type": "reposize"},
            "numpin": {"metric_ttl": "3s"},
        });
    });
    wait_metric(&cluster, "reposize", |v| v.len() == 2);
    wait_metric(&cluster, "numpin", |v| v.len() == 2);
    let names = cluster.peers[0].json("GET", "/monitor/metrics");
    assert_eq!(names, json!(["numpin", "ping", "reposize"]));

    // Each lives as long as it says: the ping two of its intervals, the others their own TTL.
    for (name, seconds) in [("ping", 2.0), ("reposize", 4.0), ("numpin", 3.0)] {
        let metric = cluster.peers[0].json("GET", &format!("/monitor/metrics/{name}"))[0].clone();
        let (expire, received) = (metric["expire"].as_i64(), metric["received_at"].as_i64());
        let life = (expire.expect("expire") - received.expect("received_at")) as f64 / 1e9;
        assert!((life - seconds).abs() < 0.3, "{name} lives {life} s");
        assert_eq!(metric["valid"], true);
    }
    // And is told anew at half of it, so that it never lapses: in ten seconds no alert.
    let received = || {
        let metrics = cluster.peers[0].json("GET", "/monitor/metrics/numpin");
        let of = |m: &&Value| m["peer"] == cluster.peers[1].id().as_str();
        metrics.as_array().expect("metrics").iter().find(of).map(|m| m["received_at"].clone())
    };
    let mut seen = BTreeSet::new();
    wait_for("several renewals", Duration::from_secs(20), || {
        seen.insert(received().map(|v| v.to_string()));
        if seen.len() >= 6 {
            Ok(())
        } else {
            Err(format!("{}", seen.len()))
        }
    });
    let alerts = cluster.peers[0].json("GET", "/health/alerts");
    assert!(!alerts.to_string().contains("reposize"), "{alerts}");

    let text = ok(cluster.peers[1].ctl(&["health", "metrics", "reposize"]));
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains(" | reposize: ") && text.contains("Expires in: "), "{text}");
}

#[test]
fn fewer_pins_are_better_and_so_is_a_smaller_repository_and_a_shorter_queue() {
    let cluster = cluster(3, |_, c| {
        c["allocator"]["balanced"]["allocate_by"] = json!(["numpin", "pinqueue"]);
        c["pin_tracker"]["stateless"]["concurrent_pins"] = 1.into();
        c["informer"] = json!({
            "disk": {"metric_ttl": TTL, "metric_type": "reposize"},
            "numpin": {"metric_ttl": TTL},
            "pinqueue": {"metric_ttl": TTL, "weight_bucket_size": 2},
        });
    });
    wait_metric(&cluster, "numpin", |v| v.len() == 3);
    wait_metric(&cluster, "pinqueue", |v| v.len() == 3);
    wait_metric(&cluster, "reposize", |v| v.len() == 3);
    let before = wait_metric(&cluster, "reposize", |v| v.len() == 3);
    add(&cluster, 0, "one");
    add(&cluster, 0, "two");
    add(&cluster, 1, "three");
    let pins = |a: &str, b: &str, c: &str| BTreeMap::from([(0, a.into()), (1, b.into()), (2, c.into())]);
    wait_metric(&cluster, "numpin", |v| *v == pins("2", "1", "0"));
    assert_eq!(chosen(&cluster, 1, "replication=1"), BTreeSet::from([2]));
    assert_eq!(chosen(&cluster, 2, "replication=2"), BTreeSet::from([1, 2]));
    let sizes = wait_metric(&cluster, "reposize", |v| v.len() == 3 && v[&0] != before[&0]);
    assert!(sizes[&0].parse::<u64>().expect("bytes") > before[&0].parse().expect("bytes"));

    // One works on what nobody has, the others wait: the queue is told in steps of two.
    let id = cluster.peers[2].id();
    for n in 100..106 {
        cluster.peers[0].json("POST", &format!("/pins/{}?replication=1&user-allocations={id}", cid_of(n)));
    }
    let of = |m: &&Value| m["peer"] == id.as_str();
    let (value, weight) = wait_for("a queue", PATIENCE, || {
        let metrics = cluster.peers[0].json("GET", "/monitor/metrics/pinqueue");
        let told = metrics.as_array().and_then(|m| m.iter().find(of).cloned()).unwrap_or_default();
        match told["value"].as_str().and_then(|v| v.parse::<i64>().ok()) {
            Some(value) if value >= 3 => Ok((value, told["weight"].as_i64())),
            _ => Err(metrics.to_string()),
        }
    });
    assert_eq!(weight, Some(-(value / 2)));
}

#[test]
fn more_free_space_is_better() {
    let sizes = ["2GB", "9GB", "5GB"];
    let cluster = cluster(3, |i, c| {
        c["allocator"]["balanced"]["allocate_by"] = json!(["freespace"]);
        c["ipfs_connector"]["embedded"]["storage_max"] = sizes[i].into();
    });
    wait_metric(&cluster, "freespace", |v| v.len() == 3);
    assert_eq!(chosen(&cluster, 1, "replication=1"), BTreeSet::from([1]));
    assert_eq!(chosen(&cluster, 2, "replication=2"), BTreeSet::from([1, 2]));
    // What the user says comes first.
    let id = cluster.peers[0].id();
    assert_eq!(chosen(&cluster, 3, &format!("replication=1&user-allocations={id}")), BTreeSet::from([0]));
}

#[test]
fn copies_are_spread_over_tags_of_two_levels() {
    // Two regions; in the first, two zones. The largest peers are all in one zone.
    let places =
        [("north", "a", "90GB"), ("north", "a", "80GB"), ("north", "b", "3GB"), ("south", "c", "2GB")];
    let cluster = cluster(4, |i, c| {
        let (region, zone, size) = places[i];
        c["allocator"]["balanced"]["allocate_by"] = json!(["tag:region", "tag:zone", "freespace"]);
        c["informer"]["tags"] = json!({"metric_ttl": TTL, "tags": {"region": region, "zone": zone}});
        c["ipfs_connector"]["embedded"]["storage_max"] = size.into();
    });
    wait_metric(&cluster, "freespace", |v| v.len() == 4);
    wait_metric(&cluster, "tag:zone", |v| v.len() == 4);
    wait_metric(&cluster, "tag:region", |v| v.len() == 4);
    assert_eq!(chosen(&cluster, 1, "replication=1"), BTreeSet::from([0]));
    assert_eq!(chosen(&cluster, 2, "replication=2"), BTreeSet::from([0, 3]), "another region first");
    assert_eq!(chosen(&cluster, 3, "replication=3"), BTreeSet::from([0, 2, 3]), "then another zone");
    // A pin that grows goes where it has no copy yet.
    assert_eq!(chosen(&cluster, 1, "replication=2"), BTreeSet::from([0, 3]));
}

#[test]
fn the_disk_is_measured_after_so_many_pins() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = free_port();
    let kubo = FakeKubo::start(at, Mood::Good);
    let mut peer = Peer::init(folder.path().join("p"), "p", SECRET);
    peer.edit(|c| {
        c["ipfs_connector"] = json!({"ipfshttp": {
            "node_multiaddress": format!("/ip4/127.0.0.1/tcp/{}", at.port()),
            "informer_trigger_interval": 3,
        }});
        c["informer"]["disk"]["metric_ttl"] = "1h".into();
    });
    peer.start(&["daemon"]);
    let measured = || peer.json("GET", "/monitor/metrics/freespace")[0]["received_at"].as_i64();
    let first = wait_for("a measurement", PATIENCE, || measured().ok_or_else(|| "none".to_string()));
    for n in 0..2 {
        peer.json("POST", &format!("/pins/{}", cid_of(n)));
        peer.wait_status(&cid_of(n), "pinned", 1);
    }
    assert_eq!(measured(), Some(first), "two are not three");
    peer.json("POST", &format!("/pins/{}", cid_of(2)));
    wait_for("another measurement", PATIENCE, || match measured() {
        Some(at) if at > first => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(kubo.pins().len(), 3);
}

#[test]
fn a_missing_peer_raises_one_alert_each_time_it_goes() {
    let mut cluster = cluster(3, |_, _| {});
    wait_metric(&cluster, "freespace", |v| v.len() == 3);
    let dead = 1;
    let id = cluster.peers[dead].id();
    let pings = |cluster: &Cluster| {
        let alerts = cluster.peers[0].json("GET", "/health/alerts");
        let rows = alerts.as_array().cloned().unwrap_or_default();
        rows.into_iter().filter(|a| a["name"] == "ping" && a["peer"] == id.as_str()).collect::<Vec<_>>()
    };
    let wait_alerts = |cluster: &Cluster, n: usize| {
        wait_for(&format!("{n} alerts"), PATIENCE, || match pings(cluster).len() {
            found if found == n => Ok(()),
            found => Err(found.to_string()),
        });
    };
    assert_eq!(pings(&cluster).len(), 0);
    cluster.peers[dead].kill();
    wait_alerts(&cluster, 1);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(pings(&cluster).len(), 1, "said once, not at every check");
    cluster.peers[dead].start(&["daemon"]);
    wait_metric(&cluster, "ping", |v| v.len() == 3);
    cluster.peers[dead].kill();
    wait_alerts(&cluster, 2);
    let alert = &pings(&cluster)[0];
    assert!(alert["triggered_at"].as_str().is_some_and(|t| t.starts_with("20")), "{alert}");
    let text = ok(cluster.peers[0].ctl(&["health", "alerts"]));
    assert!(text.contains(&id) && text.contains("ping"), "{text}");
}

#[test]
fn graphviz_draws_the_graph() {
    let cluster = cluster(3, |i, c| {
        c["cluster"]["peername"] = ["attic & <cellar>", "a \"quoted\" name", "\u{fc}ber {all}"][i].into();
    });
    wait_metric(&cluster, "ping", |v| v.len() == 3);
    let dot = wait_for("all links", PATIENCE, || {
        let text = ok(cluster.peers[0].ctl(&["health", "graph"]));
        // Six between the peers, three to their nodes, six between those.
        if text.matches(" -> ").count() == 15 {
            Ok(text)
        } else {
            Err(text)
        }
    });
    let all = ok(cluster.peers[1].ctl(&["health", "graph", "--all-ipfs-peers"]));
    let file = cluster.path("graph.dot");
    ok(cluster.peers[0].ctl(&["health", "graph", "-f", file.to_str().expect("UTF-8")]));
    for text in [&dot, &all, &std::fs::read_to_string(&file).expect("file")] {
        match Command::new("dot").arg("-V").stderr(Stdio::null()).status() {
            Ok(_) => draw(text),
            Err(_) => check_grammar(text),
        }
    }
    check_grammar(&dot);
}

/// Renders it, without a complaint.
fn draw(text: &str) {
    let mut dot = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dot");
    dot.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("written");
    let out = dot.wait_with_output().expect("dot ends");
    let (svg, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && !err.contains("syntax error"), "{err}\n{text}");
    assert_eq!(svg.matches("class=\"edge\"").count(), text.matches(" -> ").count(), "{svg}");
    assert!(svg.contains("attic") && svg.contains("IPFS"), "{svg}");
}

/// The part of the DOT language that the graph uses, line by line.
fn check_grammar(text: &str) {
    let mut depth = 0;
    let name = |word: &str| {
        let mut letters = word.chars();
        letters.next().is_some_and(|c| "CTI".contains(c)) && letters.all(|c| c.is_ascii_digit())
    };
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        match line {
            _ if line.starts_with("/*") => assert!(line.ends_with("*/"), "{line}"),
            "digraph cluster {" | "subgraph  {" => depth += 1,
            "}" => depth -= 1,
            _ if line.starts_with("rank=") => {
                assert!(["rank=\"min\"", "rank=\"max\""].contains(&line), "{line}")
            }
            _ => match line.split_once(" -> ") {
                Some((from, to)) => assert!(name(from) && name(to), "{line}"),
                None => {
                    let (node, rest) = line.split_once(" [label=< ").unwrap_or_else(|| panic!("{line}"));
                    assert!(name(node) && rest.ends_with(']'), "{line}");
                    let label = rest.split_once(" > shape=").unwrap_or_else(|| panic!("{line}")).0;
                    let inner = label.replace("<B>", "").replace("</B>", "").replace("<BR/>", "");
                    assert!(!inner.contains(['<', '>']), "{line}");
                }
            },
        }
        assert!(depth >= 0, "{line}");
    }
    assert_eq!(depth, 0);
}
