//! From the start to the end of a peer: under systemd, with signals at any moment, with streams that nobody reads,
//! killed and killed again while it makes its folder.

mod support;

use std::collections::HashSet;
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::cluster::{cid_of, ok, pinfold, Cluster, Peer, PATIENCE, SECRET};
use support::wait_for;

fn one(tmp: &tempfile::TempDir) -> Peer {
    Peer::init(tmp.path().join("p"), "p", SECRET)
}

/// The end of systemd's side of sd_notify.
struct Systemd(UnixDatagram);

impl Systemd {
    fn wrap(socket: UnixDatagram) -> Systemd {
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Systemd(socket)
    }

    /// Every message up to the first that has this line.
    fn until(&self, line: &str) -> Vec<String> {
        let (mut messages, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let n = self.0.recv(&mut buffer).unwrap_or_else(|e| panic!("no {line} after {messages:?}: {e}"));
            let message = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let found = message.lines().any(|l| l == line);
            messages.push(message);
            if found {
                return messages;
            }
        }
    }
}

#[test]
fn systemd_hears_ready_the_watchdog_and_stopping() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let path = tmp.path().join("notify");
    let systemd = Systemd::wrap(UnixDatagram::bind(&path).expect("bound"));
    peer.spawn_with(&["daemon"], |c| {
        c.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").env_remove("WATCHDOG_PID");
    });
    let messages = systemd.until("READY=1");
    let ready = messages.last().expect("a message");
    assert!(ready.lines().any(|l| l.starts_with("STATUS=ready")), "{ready:?}");
    assert!(!messages.iter().any(|m| m.contains("STOPPING")), "{messages:?}");
    // Ready means ready: whoever systemd starts next finds an API that answers.
    peer.json("POST", &format!("/pins/{}", cid_of(1)));
    let fed = Instant::now();
    for _ in 0..4 {
        systemd.until("WATCHDOG=1");
    }
    assert!(fed.elapsed() >= Duration::from_millis(400), "four feedings in {:?}", fed.elapsed());
    peer.signal("TERM");
    let messages = systemd.until("STOPPING=1");
    assert!(!messages.iter().any(|m| m.contains("READY")), "{messages:?}");
    let (status, _) = peer.wait_end();
    assert!(status.success(), "{}", peer.log());
}

#[test]
fn a_watchdog_for_another_process_is_not_fed_and_an_abstract_socket_is_heard() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let name = format!("pinfold-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let systemd = Systemd::wrap(UnixDatagram::bind_addr(&address).expect("bound"));
    peer.spawn_with(&["daemon"], |c| {
        c.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "100000").env("WATCHDOG_PID", "1");
    });
    systemd.until("READY=1");
    // Enough time for several feedings, measured by its own work.
    let until = Instant::now() + Duration::from_millis(500);
    let mut n = 0;
    while Instant::now() < until {
        n += 1;
        peer.json("POST", &format!("/pins/{}", cid_of(n)));
    }
    peer.signal("TERM");
    let messages = systemd.until("STOPPING=1");
    assert!(!messages.iter().any(|m| m.contains("WATCHDOG")), "{messages:?}");
    peer.wait_end();
    // Nobody listens there: no reason not to run.
    drop(systemd);
    peer.spawn_with(&["daemon"], |c| {
        c.env("NOTIFY_SOCKET", "/nonexistent/socket").env("WATCHDOG_USEC", "garbage");
    });
    peer.wait_ready();
}

#[test]
fn levels_are_set_by_facility() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    peer.start(&["--loglevel", "error,raft:debug", "daemon"]);
    peer.json("POST", &format!("/pins/{}", cid_of(1)));
    peer.stop();
    let log = peer.log();
    let lines: Vec<Vec<&str>> =
        log.lines().map(|l| l.split('\t').collect()).filter(|l: &Vec<_>| l.len() >= 4).collect();
    assert!(lines.iter().any(|l| l[1] == "DEBUG" && l[2] == "raft"), "{log}");
    let others: Vec<_> = lines.iter().filter(|l| l[2] != "raft" && l[1] != "ERROR").collect();
    assert!(others.is_empty(), "{others:?}");
    peer.start(&["--debug", "daemon"]);
    peer.json("GET", "/id");
    peer.stop();
    let facilities: HashSet<String> =
        peer.log().lines().filter_map(|l| l.split('\t').nth(2).map(str::to_owned)).collect();
    assert!(
        ["raft", "cluster", "restapilog", "service"].iter().all(|f| facilities.contains(*f)),
        "{facilities:?}"
    );
}

#[test]
fn the_ready_lines_name_the_other_peers() {
    let mut cluster = Cluster::of(2);
    cluster.peers[1].stop();
    cluster.peers[1].start(&["daemon"]);
    let log = cluster.peers[1].log();
    let list = log.split("Cluster Peers").nth(1).expect("a list of peers");
    assert!(list.contains(&cluster.peers[0].id()), "{log}");
    assert!(log.contains("2 member(s)") && log.contains(&cluster.peers[1].url()), "{log}");
}

#[test]
fn a_joiner_is_a_candidate_at_once() {
    // The next round of measuring is minutes away: what is not told at the joining is not known in time.
    let cluster = Cluster::with(2, |_, config| config["informer"]["disk"]["metric_ttl"] = "10m".into());
    let cid = cid_of(1);
    let pin = cluster.peers[0].json("POST", &format!("/pins/{cid}?replication-min=2&replication-max=2"));
    assert_eq!(pin["allocations"].as_array().map(Vec::len), Some(2), "{pin}");
}

#[test]
fn a_second_signal_warns_and_a_third_ends_the_process() {
    let mut cluster = Cluster::with(2, |_, config| config["cluster"]["leave_on_shutdown"] = true.into());
    let cid = cid_of(1);
    cluster.peers[0].json("POST", &format!("/pins/{cid}"));
    // It wants to leave, and the other half of the cluster does not answer: a stop that takes its time.
    cluster.peers[1].signal("STOP");
    let expect = |peer: &Peer, word: &str| {
        wait_for(word, PATIENCE, || {
            let log = peer.log();
            if log.contains(word) {
                Ok(())
            } else {
                Err(log)
            }
        });
    };
    cluster.peers[0].signal("TERM");
    expect(&cluster.peers[0], "stopping: Term");
    cluster.peers[0].signal("INT");
    expect(&cluster.peers[0], "one more signal");
    assert!(cluster.peers[0].is_running(), "the second signal only warns");
    cluster.peers[0].signal("TERM");
    let (status, _) = cluster.peers[0].wait_end();
    assert_eq!(status.code(), Some(1), "{}", cluster.peers[0].log());
    assert!(cluster.peers[0].log().contains("third signal"));
    // It did not leave, and nothing is lost.
    cluster.peers[1].signal("CONT");
    cluster.peers[0].start(&["daemon"]);
    cluster.peers[0].wait_members(2);
    assert_eq!(cluster.peers[0].pinned_cids(), [cid]);
}

#[test]
fn a_signal_while_it_waits_to_be_let_in_is_a_clean_stop() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let nobody = support::fake_kubo::free_port();
    let id = libp2p::PeerId::random();
    for signal in ["TERM", "INT", "HUP"] {
        peer.spawn(&["daemon", "--bootstrap", &format!("/ip4/127.0.0.1/tcp/{}/p2p/{id}", nobody.port())]);
        wait_for("an attempt", PATIENCE, || {
            let log = peer.log();
            if log.contains("could not join yet") {
                Ok(())
            } else {
                Err(log)
            }
        });
        peer.signal(signal);
        let (status, _) = peer.wait_end();
        assert!(status.success(), "{signal}: {status}\n{}", peer.log());
        assert!(peer.log().contains("while starting"), "{}", peer.log());
    }
    peer.start(&["daemon"]);
}

/// `up` on ports of its own: two that look for free ones at the same moment may find the same.
struct Up([String; 4]);

impl Up {
    fn new() -> Up {
        Up(std::array::from_fn(|_| format!("/ip4/127.0.0.1/tcp/{}", support::fake_kubo::free_port().port())))
    }

    fn spawn(&self, peer: &mut Peer) {
        let [cluster, rest, proxy, ipfs] = &self.0;
        peer.spawn_with(&["up"], |c| {
            c.env("CLUSTER_LISTENMULTIADDRESS", cluster);
            c.env("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", rest);
            c.env("CLUSTER_IPFSPROXY_LISTENMULTIADDRESS", proxy);
            c.env("CLUSTER_EMBEDDED_LISTENMULTIADDRESS", ipfs);
        });
    }
}

/// What `up` makes, in about this order: the moments at which it is interrupted.
const STAGES: [&str; 7] = ["", "cluster.lock", "service.json", "identity.json", "raft", "raft/log", "ipfs"];

/// Starts `up` in a fresh folder, interrupts it as soon as this is there, and starts it again.
fn interrupt_at(stage: &str, signal: &str) {
    let tmp = tempfile::tempdir().expect("folder");
    let (mut peer, up) = (Peer::fresh(tmp.path().join("p")), Up::new());
    up.spawn(&mut peer);
    let there = peer.folder.join(stage);
    wait_for(stage, PATIENCE, || if there.exists() { Ok(()) } else { Err("not there yet".into()) });
    peer.signal(signal);
    let (status, _) = peer.wait_end();
    let log = peer.log();
    assert!(!log.contains("panic"), "{log}");
    // Before it catches signals, TERM is the system's own end.
    let expected = if signal == "KILL" { 9 } else { 15 };
    assert!(status.success() || status.signal() == Some(expected), "{signal} at {stage}: {status}\n{log}");
    let identity = std::fs::read(peer.folder.join("identity.json")).ok();
    up.spawn(&mut peer);
    peer.wait_ready();
    peer.json("POST", &format!("/pins/{}", cid_of(1)));
    let now = std::fs::read(peer.folder.join("identity.json")).expect("an identity");
    assert!(identity.is_none_or(|before| before == now), "{signal} at {stage}: another identity");
    peer.kill();
    peer.start(&["daemon"]);
    assert_eq!(peer.pinned_cids(), [cid_of(1)]);
}

#[test]
fn a_lost_configuration_is_made_anew_only_where_there_is_no_data() {
    let tmp = tempfile::tempdir().expect("folder");
    let (mut peer, up) = (Peer::fresh(tmp.path().join("p")), Up::new());
    up.spawn(&mut peer);
    peer.wait_ready();
    let id = peer.id();
    peer.stop();
    let service = peer.folder.join("service.json");
    std::fs::remove_file(&service).expect("removed");
    // Another secret under the old data would be a peer that nobody knows.
    for command in ["up", "daemon"] {
        match command {
            "up" => up.spawn(&mut peer),
            _ => peer.spawn(&[command]),
        }
        let (status, _) = peer.wait_end();
        assert_eq!(status.code(), Some(4), "{}", peer.log());
        assert!(peer.log().contains("service.json") && !service.exists(), "{}", peer.log());
    }
    // With an identity alone, as after a first start that was cut off, it goes on with that.
    std::fs::remove_dir_all(peer.folder.join("raft")).expect("removed");
    up.spawn(&mut peer);
    peer.wait_ready();
    assert_eq!(peer.id(), id);
}

#[test]
fn a_first_start_that_is_killed_at_any_moment_is_finished_by_the_next() {
    for stage in STAGES {
        interrupt_at(stage, "KILL");
    }
}

#[test]
fn a_first_start_that_is_told_to_stop_at_any_moment_is_finished_by_the_next() {
    for stage in STAGES {
        interrupt_at(stage, "TERM");
    }
}

#[test]
fn output_that_nobody_reads_ends_nothing() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    // The reader of the first line has gone, as `pinfold daemon | head -1` does.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let again = writer.try_clone().expect("a pipe");
    peer.spawn_with(&["daemon"], |c| {
        c.stdout(writer).stderr(again);
    });
    wait_for("an answer", PATIENCE, || match peer.request("GET", "/version") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // It answers before it announces itself; a pin says that it is past that.
    peer.json("POST", &format!("/pins/{}", cid_of(1)));
    let (status, _) = peer.stop();
    assert!(status.success(), "{status}");
    // A full disk behind the output, a closed output.
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").expect("/dev/full"));
    peer.spawn_with(&["daemon"], |c| {
        c.stdout(full()).stderr(full());
    });
    wait_for("an answer", PATIENCE, || match peer.request("GET", "/version") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (status, _) = peer.stop();
    assert!(status.success(), "{status}");
    // What a first start tells, too.
    let mut fresh = Peer::fresh(tmp.path().join("fresh"));
    fresh.spawn_with(&["up"], |c| {
        c.stdout(full());
    });
    wait_for("its API", PATIENCE, || {
        assert!(fresh.is_running(), "{}", fresh.log());
        if fresh.log().contains("READY") {
            Ok(())
        } else {
            Err(fresh.log())
        }
    });
    fresh.json("GET", "/id");
}

#[test]
fn a_killed_peer_with_a_thousand_pins_is_ready_again() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    peer.start(&["daemon"]);
    std::thread::scope(|scope| {
        for lane in 0..8 {
            let peer = &peer;
            scope.spawn(move || {
                for n in (lane..1000).step_by(8) {
                    peer.json("POST", &format!("/pins/{}?name=pin-{n}", cid_of(n)));
                }
            });
        }
    });
    for _ in 0..3 {
        peer.kill();
        let started = Instant::now();
        peer.start(&["daemon"]);
        eprintln!("kill -9 to ready with 1,000 pins: {:?}", started.elapsed());
        assert_eq!(peer.pinned_cids().len(), 1000);
    }
}

#[test]
fn few_file_descriptors_cost_a_pause_and_no_pin() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = one(&tmp);
    let (folder, log) = (peer.path().to_owned(), std::fs::File::create(tmp.path().join("log")).expect("log"));
    let few = "ulimit -n 64; exec \"$0\" -c \"$1\" daemon";
    let program = pinfold().get_program().to_owned();
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", few])
        .arg(program)
        .arg(&folder)
        .envs(pinfold().get_envs().filter_map(|(k, v)| Some((k, v?))));
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child = Killed(shell.spawn().expect("sh"));
    wait_for("an answer", PATIENCE, || match peer.request("GET", "/version") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let to = peer.url().trim_start_matches("http://").to_owned();
    let crowd: Vec<_> = (0..200).filter_map(|_| std::net::TcpStream::connect(&to).ok()).collect();
    assert!(crowd.len() > 64);
    drop(crowd);
    wait_for("a pin after the crowd has gone", PATIENCE, || {
        match peer.request("POST", &format!("/pins/{}", cid_of(1))) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(child.0.try_wait().expect("child").is_none());
    drop(child);
    let mut said = String::new();
    std::fs::File::open(tmp.path().join("log")).expect("log").read_to_string(&mut said).expect("text");
    assert!(!said.contains("panic"), "{said}");
    peer.start(&["daemon"]);
    assert_eq!(peer.pinned_cids(), [cid_of(1)]);
    ok(peer.ctl(&["id"]));
}

/// A process that does not outlive the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
