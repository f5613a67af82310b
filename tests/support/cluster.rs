//! Real pinfold processes on loopback, each in a temporary folder, on ports that were free.

use super::executable::executable;
use super::wait_for;
use serde_json::Value;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A port that nobody listens on, from below the range that the system gives to outgoing connections: one of those
/// may take a port between the moment it is chosen and the moment a peer (re)starts on it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    let offset = (std::process::id() as u16).wrapping_mul(97);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + offset.wrapping_add(step) % COUNT;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Everything here happens on a machine that compiles beside it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The executable under test.
pub fn pinfold() -> Command {
    under_test(&executable())
}

/// The same by another name.
pub fn under_test(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (key, _) in
        std::env::vars().filter(|(k, _)| k.starts_with("CLUSTER_") || k.starts_with("IPFS_CLUSTER"))
    {
        command.env_remove(key);
    }
    command.env("CLUSTER_MDNSINTERVAL", "0s").env("CLUSTER_MONITORPINGINTERVAL", "1s");
    command
}

/// Runs the executable to its end.
pub fn run<const N: usize>(args: [&str; N]) -> Output {
    pinfold().args(args).stdin(Stdio::null()).output().expect("the executable starts")
}

/// Standard output of a command that must succeed.
pub fn ok(output: Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// One peer: its folder, and its process while it runs.
pub struct Peer {
    pub folder: PathBuf,
    /// What it is run by, and its commands.
    program: PathBuf,
    child: Option<Child>,
}

impl Peer {
    /// A folder that is not initialised.
    pub fn fresh(folder: PathBuf) -> Peer {
        Peer::fresh_by(&executable(), folder)
    }

    /// The same for another executable.
    pub fn fresh_by(program: &Path, folder: PathBuf) -> Peer {
        Peer { folder, program: program.to_path_buf(), child: None }
    }

    /// Initialises with the embedded node on random ports.
    pub fn init(folder: PathBuf, name: &str, secret: &str) -> Peer {
        Peer::init_by(&executable(), folder, name, secret)
    }

    /// The same with another executable.
    pub fn init_by(program: &Path, folder: PathBuf, name: &str, secret: &str) -> Peer {
        let peer = Peer::fresh_by(program, folder);
        let mut init = under_test(program);
        init.env("CLUSTER_SECRET", secret).env("CLUSTER_PEERNAME", name);
        init.args(["-c", peer.path(), "init", "--randomports"]);
        ok(init.output().expect("init starts"));
        peer.edit(|config| {
            config["ipfs_connector"]["embedded"]["listen_multiaddress"] = Value::from("/ip4/127.0.0.1/tcp/0");
            let at = |port: u16| Value::from(format!("/ip4/127.0.0.1/tcp/{port}"));
            config["cluster"]["listen_multiaddress"] = at(free_port());
            config["api"]["restapi"]["http_listen_multiaddress"] = at(free_port());
            config["api"]["ipfsproxy"]["listen_multiaddress"] = at(free_port());
        });
        peer
    }

    pub fn path(&self) -> &str {
        self.folder.to_str().expect("UTF-8 path")
    }

    /// Changes service.json.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        let file = self.folder.join("service.json");
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(&file).expect("service.json")).expect("JSON");
        change(&mut config);
        std::fs::write(&file, serde_json::to_vec_pretty(&config).expect("JSON")).expect("written");
    }

    pub fn config(&self) -> Value {
        let file = self.folder.join("service.json");
        serde_json::from_slice(&std::fs::read(file).expect("service.json")).expect("JSON")
    }

    /// Where its output goes.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// Starts `pinfold <args>`, and waits until it is ready.
    pub fn start(&mut self, args: &[&str]) {
        self.spawn(args);
        self.wait_ready();
    }

    /// Starts without waiting.
    pub fn spawn(&mut self, args: &[&str]) {
        self.spawn_with(args, |_| {});
    }

    /// The same, with variables and more.
    pub fn spawn_with(&mut self, args: &[&str], change: impl FnOnce(&mut Command)) {
        let mut command = under_test(&self.program);
        change(&mut command);
        self.spawn_by(command, args);
    }

    /// Starts by another name of the executable, and waits until it is ready.
    pub fn start_as(&mut self, program: &Path, args: &[&str]) {
        self.spawn_as(program, args);
        self.wait_ready();
    }

    /// The same without waiting.
    pub fn spawn_as(&mut self, program: &Path, args: &[&str]) {
        self.spawn_by(under_test(program), args);
    }

    fn spawn_by(&mut self, mut command: Command, args: &[&str]) {
        let log = File::create(self.log_path()).expect("log file");
        command.args(["-c", self.path()]).args(args).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("log")).stderr(log);
        self.child = Some(command.spawn().expect("the executable starts"));
    }

    /// Waits for the ready line.
    pub fn wait_ready(&mut self) {
        let log = self.log_path();
        let child = self.child.as_mut().expect("started");
        wait_for("a ready peer", PATIENCE, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = child.try_wait().expect("child") {
                panic!("ended instead of getting ready: {status}\n{text}");
            }
            if text.contains(" is ready: ") {
                Ok(())
            } else {
                Err(text)
            }
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| c.try_wait().expect("child").is_none())
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("reaped");
        }
    }

    /// SIGTERM; how it ended and how long that took.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        self.signal("TERM");
        self.wait_end()
    }

    /// Waits until the process ends by itself.
    pub fn wait_end(&mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        let mut child = self.child.take().expect("running");
        let status = wait_for("the end of the process", PATIENCE, || {
            child.try_wait().expect("child").ok_or_else(|| "still running".to_string())
        });
        (status, started.elapsed())
    }

    /// Base URL of its REST API.
    pub fn url(&self) -> String {
        format!("http://{}", self.rest())
    }

    /// Where its REST API is.
    pub fn rest(&self) -> SocketAddr {
        self.api("restapi", "http_listen_multiaddress")
    }

    /// Where its IPFS proxy is.
    pub fn proxy(&self) -> SocketAddr {
        self.api("ipfsproxy", "listen_multiaddress")
    }

    fn api(&self, name: &str, key: &str) -> SocketAddr {
        let listen = self.config()["api"][name][key].clone();
        let text = listen.as_str().or_else(|| listen[0].as_str()).expect("address").to_owned();
        let port: u16 = text.rsplit('/').next().expect("port").parse().expect("a number");
        ([127, 0, 0, 1], port).into()
    }

    pub fn id(&self) -> String {
        let file = std::fs::read(self.folder.join("identity.json")).expect("identity.json");
        let identity: Value = serde_json::from_slice(&file).expect("JSON");
        identity["id"].as_str().expect("id").to_string()
    }

    /// Its address for `--bootstrap`.
    pub fn address(&self) -> String {
        let listen = self.config()["cluster"]["listen_multiaddress"].clone();
        let text =
            listen.as_str().or_else(|| listen[0].as_str()).expect("address").replace("0.0.0.0", "127.0.0.1");
        format!("{text}/p2p/{}", self.id())
    }

    /// One HTTP request: status and body.
    pub fn request(&self, method: &str, path: &str) -> Result<(u16, String), String> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .build()
            .into();
        let url = format!("{}{path}", self.url());
        let answer = match method {
            "GET" => agent.get(&url).call(),
            "DELETE" => agent.delete(&url).call(),
            "POST" => agent.post(&url).send_empty(),
            other => panic!("no method {other}"),
        };
        let mut answer = answer.map_err(|e| e.to_string())?;
        let body =
            answer.body_mut().with_config().limit(1 << 30).read_to_string().map_err(|e| e.to_string())?;
        Ok((answer.status().as_u16(), body))
    }

    /// A request that must succeed; its JSON.
    pub fn json(&self, method: &str, path: &str) -> Value {
        let (status, body) = self.request(method, path).expect("an answer");
        assert!((200..300).contains(&status), "{method} {path}: {status} {body}\n{}", self.log());
        serde_json::from_str(&body).unwrap_or(Value::Null)
    }

    /// A streamed answer, line by line.
    pub fn lines(&self, path: &str) -> Vec<Value> {
        let (status, body) = self.request("GET", path).expect("an answer");
        assert!((200..300).contains(&status), "{path}: {status} {body}");
        body.lines().map(|l| serde_json::from_str(l).expect("JSON line")).collect()
    }

    /// Runs a client command against this peer.
    pub fn ctl(&self, args: &[&str]) -> Output {
        let mut command = under_test(&self.program);
        command.args(["-c", self.path()]).args(args).stdin(Stdio::null());
        command.output().expect("the executable starts")
    }

    /// The pin list of this peer: CIDs, sorted.
    pub fn pinned_cids(&self) -> Vec<String> {
        let mut cids: Vec<String> =
            self.lines("/allocations").iter().map(|p| p["cid"].as_str().expect("cid").to_string()).collect();
        cids.sort();
        cids
    }

    /// Statuses of a CID by peer name, once they are all `wanted`.
    pub fn wait_status(&self, cid: &str, wanted: &str, how_many: usize) {
        wait_for(&format!("{cid} {wanted} on {how_many}"), PATIENCE, || {
            let info = self.json("GET", &format!("/pins/{cid}"));
            let map = info["peer_map"].as_object().expect("peer_map").clone();
            let count = map.values().filter(|p| p["status"] == wanted).count();
            if count == how_many {
                Ok(())
            } else {
                Err(info.to_string())
            }
        });
    }

    /// Waits until this peer knows of `n` members.
    pub fn wait_members(&self, n: usize) {
        wait_for(&format!("{n} members"), PATIENCE, || {
            let id = self.json("GET", "/id");
            let known = id["cluster_peers"].as_array().map_or(0, Vec::len);
            if known == n {
                Ok(())
            } else {
                Err(id.to_string())
            }
        });
    }

    /// What it says of the consensus.
    pub fn consensus(&self) -> Value {
        self.json("GET", "/health/consensus")
    }

    /// Waits until this peer knows of so many that vote, witnesses among them: before that, the loss of one may be
    /// the loss of the majority.
    pub fn wait_voters(&self, n: usize) {
        wait_for(&format!("{n} voters"), PATIENCE, || {
            let health = self.consensus();
            let members = health["members"].as_array().expect("members");
            // Older ones say it by the role alone.
            let votes = |m: &&Value| m["role"] == "voter" || m["votes"] == true;
            (members.iter().filter(votes).count() == n).then_some(()).ok_or_else(|| health.to_string())
        });
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() && self.child.is_some() {
            eprintln!("--- log of {} ---\n{}", self.path(), self.log());
        }
        self.kill();
    }
}

/// Several peers of one cluster.
pub struct Cluster {
    pub peers: Vec<Peer>,
    pub folder: tempfile::TempDir,
}

/// A secret for tests.
pub const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// The voters that a cluster has at most, unless it was told otherwise.
const MOST_VOTERS: usize = 7;

impl Cluster {
    /// `n` peers, the first one founding, the others joining one after the other; whoever is to vote does.
    pub fn of(n: usize) -> Cluster {
        Cluster::with(n, |_, _| {})
    }

    /// The same with changes to each service.json.
    pub fn with(n: usize, change: impl Fn(usize, &mut Value)) -> Cluster {
        let cluster = Cluster::members(n, change);
        for peer in &cluster.peers {
            peer.wait_candidates(n);
        }
        cluster
    }

    /// As [`Cluster::with`], for peers that do not all tell of their free space.
    pub fn members(n: usize, change: impl Fn(usize, &mut Value)) -> Cluster {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut cluster = Cluster { peers: Vec::new(), folder };
        for i in 0..n {
            let peer = Peer::init(cluster.path(&format!("p{i}")), &format!("p{i}"), SECRET);
            peer.edit(|config| change(i, config));
            cluster.peers.push(peer);
        }
        cluster.peers[0].start(&["daemon"]);
        let bootstrap = cluster.peers[0].address();
        for peer in &mut cluster.peers[1..] {
            peer.start(&["daemon", "--bootstrap", &bootstrap]);
        }
        let most = cluster.peers[0].config()["consensus"]["raft"]["max_voters"].as_u64();
        let voters = n.min(most.map_or(MOST_VOTERS, |most| most as usize));
        for peer in &cluster.peers {
            peer.wait_members(n);
            peer.wait_voters(voters);
        }
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The index of the leader: some peer names it, and it says so itself.
    pub fn leader(&self) -> usize {
        let named_by = |peer: &Peer| -> Option<usize> {
            let (200, body) = peer.request("GET", "/health/consensus").ok()? else { return None };
            let health: Value = serde_json::from_str(&body).ok()?;
            self.peers.iter().position(|p| health["leader"] == p.id().as_str())
        };
        wait_for("a leader", PATIENCE, || {
            for peer in self.peers.iter().filter(|p| p.child.is_some()) {
                // Who has just lost one may still name it.
                let Some(i) = named_by(peer).filter(|i| self.peers[*i].child.is_some()) else { continue };
                if named_by(&self.peers[i]) == Some(i) {
                    return Ok(i);
                }
            }
            Err("nobody knows a leader".into())
        })
    }
}

impl Peer {
    /// Waits until this peer has fresh metrics of `n` peers, so that it can allocate to them.
    pub fn wait_candidates(&self, n: usize) {
        wait_for(&format!("metrics of {n} peers"), PATIENCE, || {
            let space = self.json("GET", "/monitor/metrics/freespace");
            let known = space.as_array().map_or(0, Vec::len);
            if known == n {
                Ok(())
            } else {
                Err(space.to_string())
            }
        });
    }
}

/// A CID that nobody has, different for each number.
pub fn cid_of(n: u64) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(n.to_be_bytes());
    let hash = multihash::Multihash::<64>::wrap(0x12, &digest).expect("32 bytes");
    cid::Cid::new_v1(0x55, hash).to_string()
}

/// Whether this process may mount and make namespaces.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder of the tests' own data.
pub fn golden() -> Option<PathBuf> {
    let path = std::env::var_os("PINFOLD_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden"), PathBuf::from);
    path.is_dir().then_some(path)
}
