//! Why two peers do not meet, in plain words: each of libp2p's failures is caused for real and read where a person would
//! read it, in the log of the peer that cannot join and in `peers ls` of one that lost another.

mod support;

use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use pinfold::net::{Host, HostConfig};
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use support::cluster::{free_port, Peer, PATIENCE, SECRET};
use support::executable::executable;
use support::wait_for;

/// Lets a fresh peer try to join through `address`, until its log has these words; the log.
fn joiner(tmp: &tempfile::TempDir, address: &str, secret: &str, words: &[&str]) -> String {
    joiner_by(tmp, None, address, secret, words)
}

fn joiner_by(
    tmp: &tempfile::TempDir,
    wrapper: Option<&str>,
    address: &str,
    secret: &str,
    words: &[&str],
) -> String {
    let folder: PathBuf = tmp.path().join(format!("joiner{}", free_port()));
    let mut peer = Peer::init(folder, "joiner", secret);
    let args = ["daemon", "--bootstrap", address];
    match wrapper {
        None => peer.spawn(&args),
        Some(before) => {
            let script = tmp.path().join(format!("wrapped{}", free_port()));
            let text = format!("#!/bin/sh\n{before}\nexec {} \"$@\"\n", executable().display());
            std::fs::write(&script, text).expect("script");
            std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .expect("chmod");
            peer.spawn_as(&script, &args);
        }
    }
    wait_for(&format!("{words:?}"), PATIENCE, || {
        let log = peer.log();
        if words.iter().all(|word| log.contains(word)) {
            Ok(())
        } else {
            Err(log)
        }
    });
    let log = peer.log();
    peer.kill();
    log
}

#[test]
fn whoever_cannot_join_reads_why() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut first = Peer::init(tmp.path().join("p0"), "p0", SECRET);
    first.start(&["daemon"]);
    let here = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", first.id());
    let other = "7".repeat(64);

    joiner(&tmp, &here(free_port()), SECRET, &["connection refused; is the daemon running there"]);
    let misdial = first.address().replace(&first.id(), &PeerId::random().to_string());
    let log = joiner(&tmp, &misdial, SECRET, &["answers there, not", "its identity was made anew"]);
    assert!(log.contains(&first.id()), "who answers is named:\n{log}");
    joiner(
        &tmp,
        &first.address(),
        &other,
        &["the cluster secret there differs from ours", "use the same cluster.secret"],
    );
    wait_for("the other side's words", PATIENCE, || {
        let log = first.log();
        if log.contains("refused a connection from") && log.contains("its secret differs from ours") {
            Ok(())
        } else {
            Err(log)
        }
    });
    joiner(&tmp, &first.address(), "", &["has a cluster.secret and we have none"]);
    let named = format!("/dns4/no-such-board.invalid/tcp/9096/p2p/{}", first.id());
    joiner(&tmp, &named, SECRET, &["the name no-such-board.invalid has no address", "is the name right"]);

    // Somebody listens who is no peer: one who says nothing, and a web server.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let log = joiner(
        &tmp,
        &here(silent.local_addr().expect("address").port()),
        SECRET,
        &["what listens there is not pinfold, or it hangs"],
    );
    assert!(log.contains("was not answered within"), "{log}");
    let web = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = web.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for stream in web.incoming().flatten() {
            let mut stream = stream;
            let _ = stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n HTTP HTTP HTTP HTTP HTTP");
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    joiner(&tmp, &here(port), SECRET, &["not pinfold"]);
    joiner(
        &tmp,
        &format!("/ip4/127.0.0.1/udp/{port}/quic/p2p/{}", first.id()),
        SECRET,
        &["only /ip4, /ip6, /dns, /dns4 and /dns6 with /tcp/<port> can be dialled"],
    );
}

#[test]
fn networks_without_a_way_are_told_apart() {
    // Two in one: no route at all, and a network in which nobody answers.
    let network = "ip link set lo up; ip link add quiet type veth peer name deaf; ip link set deaf up; \
                   ip addr add 10.9.9.1/24 dev quiet; ip link set quiet up; \
                   ip neigh add 10.9.9.2 lladdr 02:00:00:00:00:09 dev quiet";
    let possible = Command::new("unshare").args(["-n", "sh", "-c", network]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        return support::skip("no network namespace can be made here");
    }
    let tmp = tempfile::tempdir().expect("folder");
    let inside = format!("[ -n \"$INSIDE\" ] || INSIDE=1 exec unshare -n \"$0\" \"$@\"\n{network}");
    let to = |ip: &str| format!("/ip4/{ip}/tcp/9096/p2p/{}", PeerId::random());
    joiner_by(
        &tmp,
        Some(&inside),
        &to("10.8.8.8"),
        SECRET,
        &["unreachable", "in a network that this one can reach?"],
    );
    joiner_by(
        &tmp,
        Some(&inside),
        &to("10.9.9.2"),
        SECRET,
        &["no answer within 3s", "does a firewall let the port through?"],
    );
}

/// Somebody who has our secret and does not speak our protocol.
fn of_another_kind(keypair: Keypair) -> Host {
    let listen: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().expect("address");
    let mut psk = [0; 32];
    data_encoding::HEXLOWER.decode_mut(SECRET.as_bytes(), &mut psk).expect("secret");
    let config = HostConfig {
        keypair,
        psk: Some(psk),
        listen: vec![listen],
        announce: Vec::new(),
        agent: "pinfold/9.9.9".into(),
        protocol_version: "/pinfold/9".into(),
        dial_timeout: Duration::from_secs(3),
        mdns: None,
        max_connections: 10,
    };
    pinfold::runtime::block_on(Host::start(config)).expect("host")
}

#[test]
fn a_peer_that_does_not_speak_our_protocol_is_told_so() {
    // One that speaks another version of it is in tests/upgrade.rs.
    let tmp = tempfile::tempdir().expect("folder");
    let host = of_another_kind(Keypair::generate_ed25519());
    let (id, address) = (
        host.peer_id(),
        wait_for("an address", PATIENCE, || {
            host.addresses().into_iter().next().ok_or_else(|| "none yet".to_string())
        }),
    );
    let log = joiner(&tmp, &format!("{address}/p2p/{id}"), SECRET, &["does not speak /pinfold/rpc/"]);
    assert!(log.contains(&id.to_string()), "{log}");
    drop(host);
}

#[test]
fn peers_ls_says_why_a_peer_does_not_answer() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut first = Peer::init(tmp.path().join("p0"), "p0", SECRET);
    first.start(&["daemon"]);
    let mut second = Peer::init(tmp.path().join("p1"), "p1", SECRET);
    second.start(&["daemon", "--bootstrap", &first.address()]);
    first.wait_members(2);
    let id = second.id();
    let says = |words: &str| {
        wait_for(words, PATIENCE, || {
            let output = first.ctl(&["peers", "ls"]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().find(|line| line.starts_with(&format!("{id} | ERROR: "))).unwrap_or("");
            if line.contains(words) {
                Ok(())
            } else {
                Err(text)
            }
        });
    };
    second.kill();
    says("connection refused; is the daemon running there");
    // Somebody else at its address.
    let port = second.address().split('/').nth(4).expect("port").to_owned();
    let mut impostor = Peer::init(tmp.path().join("p2"), "p2", SECRET);
    impostor.edit(|config| {
        config["cluster"]["listen_multiaddress"] = format!("/ip4/127.0.0.1/tcp/{port}").into()
    });
    impostor.start(&["daemon"]);
    says("answers there, not");
    impostor.kill();
    // The peer itself, with another secret.
    second.edit(|config| config["cluster"]["secret"] = "7".repeat(64).into());
    second.spawn(&["daemon"]);
    says("the cluster secret there differs from ours");
    second.kill();
    let silent = TcpListener::bind(format!("127.0.0.1:{port}")).expect("bound");
    says("what listens there is not pinfold, or it hangs");
    drop(silent);
}
