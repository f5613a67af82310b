//! What a peer tells systemd, heard on a socket of our own: that it takes longer, that it is ready and how it is, that it
//! lives; and that it falls silent when its disk hangs.

mod support;

use serde_json::Value;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::cluster::{cid_of, ok, pinfold, Cluster, Peer, PATIENCE, SECRET};
use support::skip;

/// Half of it is the time between two feedings.
const WATCHDOG: Duration = Duration::from_millis(600);

/// systemd's side of sd_notify.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    fn listen(folder: &Path) -> Systemd {
        let path = folder.join("notify");
        let _ = std::fs::remove_file(&path);
        Systemd { socket: UnixDatagram::bind(&path).expect("bound"), path }
    }

    /// The next message within a time, if there is one.
    fn next(&self, within: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).expect("timeout");
        let n = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
    }

    /// Every message up to the first that `is` it.
    fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> Vec<String> {
        let (mut messages, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        while Instant::now() < deadline {
            let Some(message) = self.next(Duration::from_secs(1)) else { continue };
            let found = is(&message);
            messages.push(message);
            if found {
                return messages;
            }
        }
        panic!("no {what} after {messages:?}");
    }

    fn until_line(&self, line: &str) -> Vec<String> {
        self.until(line, |message| message.lines().any(|l| l == line))
    }

    /// Nothing more to read.
    fn drain(&self) {
        while self.next(Duration::from_millis(1)).is_some() {}
    }

    /// Fails when the watchdog is fed within this time.
    fn no_food(&self, within: Duration, why: &str) {
        let end = Instant::now() + within;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if let Some(message) = self.next(left) {
                assert!(!message.contains("WATCHDOG=1"), "{why}: {message}");
            }
        }
    }

    fn start(&self, peer: &mut Peer, args: &[&str]) {
        let micros = WATCHDOG.as_micros().to_string();
        peer.spawn_with(args, |c| {
            c.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", &micros).env_remove("WATCHDOG_PID");
        });
    }
}

fn asks_for_time(message: &str) -> bool {
    message.lines().any(|line| {
        line.strip_prefix("EXTEND_TIMEOUT_USEC=")
            .is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n >= 10_000_000))
    })
}

#[test]
fn a_start_and_a_stop_ask_for_time_and_say_what_they_are_at() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    let systemd = Systemd::listen(tmp.path());
    systemd.start(&mut peer, &["daemon"]);
    let messages = systemd.until_line("READY=1");
    for stage in ["opening the data", "looking for the cluster", "catching up"] {
        let at = messages.iter().find(|m| m.lines().any(|l| l.starts_with(&format!("STATUS={stage}"))));
        assert!(at.is_some_and(|m| asks_for_time(m)), "{stage}: {messages:?}");
    }
    let ready = messages.last().expect("a message");
    assert!(ready.contains("STATUS=ready: leader, 1 of 1 peers here, 0 pins"), "{ready}");
    peer.json("POST", &format!("/pins/{}", cid_of(1)));
    systemd.until_line("STATUS=ready: leader, 1 of 1 peers here, 1 pins");
    peer.signal("TERM");
    let (status, _) = peer.wait_end();
    assert!(status.success(), "{}", peer.log());
    let messages = systemd.until("the export", |m| m.contains("STATUS=stopping: exporting"));
    assert!(messages.iter().any(|m| m == "STOPPING=1"), "{messages:?}");
    assert!(messages.iter().filter(|m| asks_for_time(m)).count() >= 2, "{messages:?}");
}

/// The upgrade of older data is the longest start there is.
#[test]
fn an_upgrade_at_the_start_asks_for_time() {
    let tmp = tempfile::tempdir().expect("folder");
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format1");
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    support::copy_tree(&old.join("raft"), &peer.folder.join("raft"));
    std::fs::copy(old.join("identity.json"), peer.folder.join("identity.json")).expect("identity");
    let systemd = Systemd::listen(tmp.path());
    // Without --upgrade a person must decide: an exit after which systemd does not start it again.
    systemd.start(&mut peer, &["up"]);
    assert_eq!(peer.wait_end().0.code(), Some(13), "{}", peer.log());
    systemd.drain();
    systemd.start(&mut peer, &["up", "--upgrade"]);
    let messages = systemd.until("opening", |m| m.contains("STATUS=opening"));
    let at = messages.iter().find(|m| m.contains("STATUS=upgrading the data"));
    assert!(at.is_some_and(|m| asks_for_time(m)), "{messages:?}");
}

#[test]
fn the_status_line_follows_the_cluster() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut cluster = Cluster::of(3);
    cluster.peers[2].stop();
    let systemd = Systemd::listen(tmp.path());
    systemd.start(&mut cluster.peers[2], &["daemon"]);
    systemd.until("a follower of three", |m| {
        m.contains("STATUS=ready: follower of ") && m.contains(", 3 of 3 peers here, 0 pins")
    });
    // Alone it has no leader, and says what that means.
    cluster.peers[0].kill();
    cluster.peers[1].kill();
    systemd.until("the silence", |m| m.contains("STATUS=ready: no leader, so reads only, 1 of 3 peers here"));
}

/// A folder that somebody else works on for a moment is waited for: nobody is there to try again.
#[test]
fn a_peer_that_systemd_starts_waits_for_the_folder() {
    let tmp = tempfile::tempdir().expect("folder");
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    let lock = std::fs::File::create(peer.folder.join("cluster.lock")).expect("lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let systemd = Systemd::listen(tmp.path());
    systemd.start(&mut peer, &["daemon"]);
    systemd.until("waiting", |m| m.contains("STATUS=waiting: ") && m.contains("is in use by"));
    drop(lock);
    systemd.until_line("READY=1");
}

/// A file system in a file that can be frozen: whoever writes to it waits. Taken down with the value.
struct Freezer {
    at: PathBuf,
    frozen: bool,
}

impl Freezer {
    /// `None`, having said so, where that is not possible.
    fn mount(folder: &Path) -> Option<Freezer> {
        let (image, at) = (folder.join("disk"), folder.join("mounted"));
        std::fs::create_dir(&at).expect("mount point");
        std::fs::File::create(&image).and_then(|f| f.set_len(256 << 20)).expect("image");
        let run = |program: &str, args: &[&str]| {
            Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
        };
        let (file, dir) = (image.to_str().expect("UTF-8"), at.to_str().expect("UTF-8"));
        let made = run("mkfs.ext4", &["-q", "-F", file]) && run("mount", &["-o", "loop", file, dir]);
        if !made {
            skip("no ext4 on a loop device: needs root, e2fsprogs and loop devices");
            return None;
        }
        Some(Freezer { at, frozen: false })
    }

    fn set(&mut self, frozen: bool) {
        let how = if frozen { "--freeze" } else { "--unfreeze" };
        ok(Command::new("fsfreeze").arg(how).arg(&self.at).output().expect("fsfreeze"));
        self.frozen = frozen;
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        if self.frozen {
            let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.at).status();
        }
        let _ = Command::new("umount").args(["-l"]).arg(&self.at).status();
    }
}

#[test]
fn the_watchdog_starves_while_the_disk_takes_no_write_and_is_fed_when_it_does_again() {
    let tmp = tempfile::tempdir().expect("folder");
    let Some(mut disk) = Freezer::mount(tmp.path()) else { return };
    // Only the data is there: the log of the process must not hang with the disk.
    let mut peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    let data = disk.at.join("raft");
    peer.edit(|config| config["consensus"]["raft"]["data_folder"] = Value::from(data.to_str()));
    let systemd = Systemd::listen(tmp.path());
    systemd.start(&mut peer, &["daemon"]);
    systemd.until_line("READY=1");
    for _ in 0..3 {
        systemd.until_line("WATCHDOG=1");
    }
    // Nobody asks anything of it, and an idle driver has nothing to write.
    disk.set(true);
    // What was on its way when the disk froze is fed for one interval more.
    std::thread::sleep(WATCHDOG);
    systemd.drain();
    systemd.no_food(WATCHDOG * 4, "the disk takes no write");
    disk.set(false);
    systemd.until_line("WATCHDOG=1");
    assert!(peer.log().contains("has given no sign of life"), "{}", peer.log());
    // It goes on as if nothing had been.
    peer.json("POST", &format!("/pins/{}", cid_of(1)));
    peer.signal("TERM");
    assert!(peer.wait_end().0.success(), "{}", peer.log());
    drop(disk);
}

/// Secrets as credentials of systemd.
#[test]
fn a_credential_stands_in_for_a_variable() {
    let tmp = tempfile::tempdir().expect("folder");
    let credentials = tmp.path().join("credentials");
    std::fs::create_dir(&credentials).expect("folder");
    let secret = "5a".repeat(32);
    let credential = credentials.join("pinfold.CLUSTER_SECRET");
    std::fs::write(&credential, format!("{secret}\n")).expect("written");
    let peer = Peer::init(tmp.path().join("p"), "p", SECRET);
    // The key of the embedded node's network is made from the secret.
    let key = |name: &str, value: &str| {
        let mut show = pinfold();
        show.args(["-c", peer.path(), "swarm-key", "--show"]).env(name, value);
        show.output().expect("swarm-key")
    };
    let folder = credentials.to_str().expect("UTF-8");
    let by_credential = ok(key("CREDENTIALS_DIRECTORY", folder));
    assert_eq!(by_credential, ok(key("CLUSTER_SECRET", &secret)));
    assert_ne!(by_credential, ok(key("CREDENTIALS_DIRECTORY", "/nonexistent")), "the file's own");
    // One that is no secret is refused as if it stood in the file.
    std::fs::write(&credential, "nonsense").expect("written");
    let refused = key("CREDENTIALS_DIRECTORY", folder);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(
        !String::from_utf8_lossy(&refused.stderr).contains("nonsense"),
        "a secret in a message: {refused:?}"
    );
}
