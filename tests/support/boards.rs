//! Boards on a network of their own: network namespaces behind a switch, without a route to anywhere else.
//!
//! Each board has its own addresses (10.77.0.N), its own loopback with all the usual ports free, and its own home
//! folder, so that commands run on it exactly as a person would type them. Needs root and iproute2.

use super::cluster::is_root;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Boards and their switch; everything that runs on them ends with this value.
pub struct Boards {
    names: Vec<String>,
    switch: String,
    pub root: tempfile::TempDir,
    programs: PathBuf,
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("ip starts");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Boards {
    /// `None`, and says why, where namespaces cannot be made.
    pub fn new(count: usize) -> Option<Boards> {
        if !is_root() {
            super::skip("network namespaces need root");
            return None;
        }
        if Command::new("ip").arg("-V").output().is_err() {
            super::skip("network namespaces need the command ip (iproute2)");
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let stem = format!("pf{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = tempfile::tempdir().expect("a folder");
        let programs = root.path().join("bin");
        std::fs::create_dir(&programs).expect("a folder for programs");
        for name in ["pinfold", "ipfs-cluster-service", "ipfs-cluster-ctl"] {
            std::os::unix::fs::symlink(super::executable::executable(), programs.join(name)).expect("a link");
        }
        if let Some(kubo) = super::kubo() {
            std::os::unix::fs::symlink(kubo, programs.join("ipfs")).expect("a link");
        }
        let switch = format!("{stem}s");
        ip(&["netns", "add", &switch]);
        let mut boards = Boards { names: Vec::new(), switch, root, programs };
        let switch = boards.switch.clone();
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        for n in 1..=count {
            let board = format!("{stem}b{n}");
            ip(&["netns", "add", &board]);
            boards.names.push(board.clone());
            let port = format!("port{n}");
            ip(&[
                "-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &board,
            ]);
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            ip(&["-n", &board, "addr", "add", &format!("{}/24", address(n)), "dev", "eth0"]);
            ip(&["-n", &board, "link", "set", "lo", "up"]);
            ip(&["-n", &board, "link", "set", "eth0", "up"]);
            std::fs::create_dir(boards.home(n)).expect("a home");
        }
        Some(boards)
    }

    /// Adds a stand-in for `scp FILE… boardN:[NAME]`, which copies between the homes.
    pub fn add_scp(&self) {
        let root = self.root.path().display();
        let script = format!(
            "#!/bin/sh\nset -eu\nfor last; do :; done\nboard=${{last%%:*}}\nname=${{last#*:}}\n\
             while [ $# -gt 1 ]; do cp -r \"$1\" \"{root}/$board/$name\"; shift; done\n"
        );
        self.add_program("scp", &script);
    }

    /// Adds a stand-in for `sudo`, for root already types the commands.
    pub fn add_sudo(&self) {
        self.add_program("sudo", "#!/bin/sh\nexec \"$@\"\n");
    }

    fn add_program(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.programs.join(name);
        std::fs::write(&path, script).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Takes the boards' local network away and gives them one as a VPN makes it: an interface `tailscale0` with the
    /// addresses 100.100.0.N and fd7a:115c:a1e0::N and the small packets of a tunnel, and the command that tells them.
    pub fn add_vpn(&self) {
        ip(&["-n", &self.switch, "link", "add", "br1", "type", "bridge"]);
        ip(&["-n", &self.switch, "link", "set", "br1", "up"]);
        for (n, board) in (1..).zip(&self.names) {
            let port = format!("vpn{n}");
            let card = ["type", "veth", "peer", "name", "tailscale0", "netns", board];
            ip(&[&["-n", &self.switch, "link", "add", &port][..], &card].concat());
            ip(&["-n", &self.switch, "link", "set", &port, "mtu", "1280", "master", "br1", "up"]);
            let four = format!("100.100.0.{n}/10");
            let six = format!("fd7a:115c:a1e0::{n}/48");
            ip(&["-n", board, "addr", "add", &four, "dev", "tailscale0"]);
            ip(&["-n", board, "-6", "addr", "add", &six, "dev", "tailscale0", "nodad"]);
            ip(&["-n", board, "link", "set", "tailscale0", "mtu", "1280", "up"]);
            // Each in another house.
            ip(&["-n", board, "link", "set", "eth0", "down"]);
        }
        let script = "#!/bin/sh\n[ \"$1\" = ip ] || exit 1\nn=${HOME##*board}\n\
                      case $2 in -4) echo 100.100.0.$n ;; -6) echo fd7a:115c:a1e0::$n ;; esac\n";
        self.add_program("tailscale", script);
    }

    /// The home folder of board `n` (from 1), where its commands start.
    pub fn home(&self, n: usize) -> PathBuf {
        self.root.path().join(format!("board{n}"))
    }

    /// The name of board `n`'s network namespace.
    pub fn namespace(&self, n: usize) -> &str {
        &self.names[n - 1]
    }

    /// Somebody on board `n` who makes connections.
    pub fn porter(&self, n: usize) -> Porter {
        Porter::start(self.namespace(n))
    }

    /// From now on nothing that board `from` sends to board `to` arrives, and `from` is not told: its packets go to a
    /// card that nobody has. What `to` sends to `from` does arrive.
    pub fn silence(&self, from: usize, to: usize) {
        let lost = ["lladdr", "02:00:00:00:00:00", "dev", "eth0", "nud", "permanent"];
        ip(&[&["-n", self.namespace(from), "neigh", "replace", &address(to)][..], &lost].concat());
    }

    /// Undoes [`Boards::silence`].
    pub fn hear(&self, from: usize, to: usize) {
        ip(&["-n", self.namespace(from), "neigh", "del", &address(to), "dev", "eth0"]);
    }

    /// A program on board `n`, with a clean environment.
    pub fn command(&self, n: usize, program: &str) -> Command {
        // Not `ip netns exec`, which gives each command its own view of what is mounted.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.names[n - 1])).arg(program);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", self.programs.display());
        command.env_clear().env("PATH", path).env("HOME", self.home(n)).env("IPFS_TELEMETRY", "off");
        command.env("TMPDIR", self.root.path()).env("LANG", "C.UTF-8");
        command.current_dir(self.home(n)).stdin(Stdio::null());
        command
    }

    /// Runs a shell script to its end.
    pub fn sh(&self, n: usize, script: &str) -> Output {
        self.command(n, "sh").args(["-euc", script]).output().expect("sh starts")
    }

    /// What a script that must succeed said, without the space around it.
    pub fn ok(&self, n: usize, script: &str) -> String {
        let output = self.sh(n, script);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "board {n}: {script}\n{}\n{out}\n{err}", output.status);
        out.trim().to_string()
    }

    /// Starts something that stays; its output goes to a file in `home/<name>.log`.
    pub fn start(&self, n: usize, name: &str, script: &str) -> Running {
        let log = self.home(n).join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let mut command = self.command(n, "sh");
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.args(["-euc", script]).stdout(file.try_clone().expect("a log")).stderr(file);
        Running { child: command.spawn().expect("sh starts"), log }
    }
}

/// Makes connections on a board for whoever is not on it: a socket stays in the network in which it was made, whoever
/// uses it. Clone is cheap.
#[derive(Clone)]
pub struct Porter {
    orders: std::sync::mpsc::Sender<Order>,
}

/// Where to, and for whom.
type Order = (SocketAddr, std::sync::mpsc::SyncSender<std::io::Result<TcpStream>>);

/// A connection on the same board is there at once or never.
const CONNECT: Duration = Duration::from_secs(2);

impl Porter {
    /// A thread that lives on the board.
    fn start(namespace: &str) -> Porter {
        let entrance = std::fs::File::open(format!("/run/netns/{namespace}")).expect("a namespace");
        let (orders, taken) = std::sync::mpsc::channel::<Order>();
        std::thread::spawn(move || {
            enter(&entrance).expect("root may enter a namespace");
            for (to, reply) in taken {
                let _ = reply.send(TcpStream::connect_timeout(&to, CONNECT));
            }
        });
        Porter { orders }
    }

    /// A connection to an address as it is on the board.
    pub fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let gone = |_| std::io::Error::other("the porter is gone");
        self.orders.send((to, reply)).map_err(|_| std::io::Error::other("the porter is gone"))?;
        answer.recv().map_err(gone)?
    }
}

/// Moves the calling thread, and no other, into a network namespace.
#[allow(unsafe_code)]
fn enter(namespace: &std::fs::File) -> std::io::Result<()> {
    extern "C" {
        fn setns(fd: std::ffi::c_int, kind: std::ffi::c_int) -> std::ffi::c_int;
    }
    const NETWORK: std::ffi::c_int = 0x4000_0000;
    // SAFETY: a system call that takes two numbers and touches no memory.
    match unsafe { setns(std::os::fd::AsRawFd::as_raw_fd(namespace), NETWORK) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The address of board `n`.
pub fn address(n: usize) -> String {
    format!("10.77.0.{n}")
}

impl Drop for Boards {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.switch]) {
            let pids = Command::new("ip").args(["netns", "pids", name]).output();
            for pid in pids
                .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
                .unwrap_or_default()
                .split_whitespace()
            {
                let _ = Command::new("kill").args(["-9", pid]).output();
            }
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
        // What the commands of a guide have mounted; the folder is removed after this.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| Path::new(place).starts_with(self.root.path())) {
            let _ = Command::new("umount").args(["-l", place]).output();
        }
    }
}

/// Something that runs on a board.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where that is kept.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Waits until its log satisfies `found`; panics when it ends before.
    pub fn wait_until<T>(&mut self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let (child, log) = (&mut self.child, &self.log);
        super::wait_for(what, super::cluster::PATIENCE, || {
            // First the child, then the log: what it said last counts.
            let ended = child.try_wait().expect("a child");
            let text = std::fs::read_to_string(log).unwrap_or_default();
            match (found(&text), ended) {
                (Some(value), _) => Ok(value),
                (None, Some(status)) => panic!("{what}: it ended before: {status}\n{text}"),
                (None, None) => Err(text),
            }
        })
    }

    /// The same for words.
    pub fn wait_for(&mut self, words: &str) {
        self.wait_until(words, |log| log.contains(words).then_some(()));
    }

    /// Ctrl-C: everything that was started with it gets the signal; returns when it has ended.
    pub fn interrupt(&mut self) {
        let group = format!("-{}", self.child.id());
        let sent = Command::new("kill").args(["-INT", "--", &group]).status().expect("kill");
        assert!(sent.success(), "nothing to interrupt");
        let child = &mut self.child;
        super::wait_for("the end after Ctrl-C", super::cluster::PATIENCE, || {
            child.try_wait().expect("a child").ok_or_else(|| "still running".to_string())
        });
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The shell and what it started.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}
