//! A real Kubo daemon for a test: own repository, own ports, no Internet, gone with the value.
//!
//! Ports are chosen by the system at the first start and kept from then on, so that a daemon that was killed comes
//! back where its clients look for it.

// Each test binary that takes this file in uses its own part of it.
#![allow(dead_code)]

use libp2p::Multiaddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A daemon must be up within this time (a busy small board needs a while).
const START_LIMIT: Duration = Duration::from_secs(60);

/// A daemon with its repository; running unless it was killed.
pub struct KuboDaemon {
    ipfs: PathBuf,
    folder: tempfile::TempDir,
    child: Option<Child>,
    private: bool,
    /// Address of its RPC API.
    pub api: Multiaddr,
}

/// The `ipfs` executable: `$PINFOLD_TEST_KUBO`, else from PATH.
pub fn executable() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PINFOLD_TEST_KUBO") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "PINFOLD_TEST_KUBO names {}, which is no file", path.display());
        return Some(path);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("ipfs")).find(|p| p.is_file())
}

impl KuboDaemon {
    /// Starts one, in a private network when a key is given. `None`, and says so, where there is no Kubo.
    pub fn start(psk: Option<[u8; 32]>) -> Option<KuboDaemon> {
        let Some(ipfs) = executable() else {
            let all = std::env::var_os("PINFOLD_REQUIRE_ALL").is_some();
            assert!(!all, "skipped, but everything must run here: no Kubo (see tests/README.md)");
            println!("skipped: no Kubo (see tests/README.md)");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let mut daemon =
            KuboDaemon { ipfs, folder, child: None, private: psk.is_some(), api: Multiaddr::empty() };
        // The test profile: loopback, free ports, no bootstrap, no discovery.
        daemon.ok(&["init", "--profile", "test"]);
        if let Some(psk) = psk {
            let key: String = psk.iter().map(|b| format!("{b:02x}")).collect();
            let text = format!("/key/swarm/psk/1.0.0/\n/base16/\n{key}\n");
            std::fs::write(daemon.folder().join("swarm.key"), text).expect("swarm.key");
        }
        daemon.run();
        Some(daemon)
    }

    /// Where its repository is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `ipfs` on its repository.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.ipfs);
        command.env("IPFS_PATH", self.folder()).env("IPFS_TELEMETRY", "off").stdin(Stdio::null());
        if self.private {
            command.env("LIBP2P_FORCE_PNET", "1");
        }
        command
    }

    /// Runs a command of its command line to the end.
    pub fn output(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("the ipfs executable starts")
    }

    /// Standard output of a command that must succeed, without the space around it.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ipfs {args:?}: {}: {words}", output.status);
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    }

    /// Adds a file with this content without telling anybody; its CID.
    pub fn add(&self, content: &[u8], flags: &[&str]) -> String {
        let file = self.folder().join("to-be-added");
        std::fs::write(&file, content).expect("a file");
        let mut args = vec!["add", "-Q", "--cid-version=1"];
        args.extend(flags);
        args.push(file.to_str().expect("UTF-8"));
        self.ok(&args)
    }

    /// Whether it has pinned this CID in this way (`recursive`, `direct`).
    pub fn has_pinned(&self, cid: &str, kind: &str) -> bool {
        let output = self.output(&["pin", "ls", "-q", "--type", kind, cid]);
        output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == cid
    }

    /// Its peer id.
    pub fn id(&self) -> String {
        self.ok(&["id", "-f", "<id>"])
    }

    /// A stopped daemon loses everything it holds; also its identity, unless that is kept.
    pub fn wipe(&mut self, keep_identity: bool) {
        assert!(self.child.is_none(), "stopped before it is wiped");
        let before = self.config();
        for entry in std::fs::read_dir(self.folder()).expect("repository") {
            let path = entry.expect("entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            match path.is_dir() {
                true => std::fs::remove_dir_all(&path).expect("removed"),
                false if name == "swarm.key" => {}
                false => std::fs::remove_file(&path).expect("removed"),
            }
        }
        self.ok(&["init", "--profile", "test"]);
        self.edit(|config| {
            config["Addresses"] = before["Addresses"].clone();
            if keep_identity {
                config["Identity"] = before["Identity"].clone();
            }
        });
    }

    /// Its configuration.
    pub fn config(&self) -> serde_json::Value {
        let file = std::fs::read(self.folder().join("config")).expect("config");
        serde_json::from_slice(&file).expect("JSON")
    }

    /// Changes its configuration.
    pub fn edit(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let mut config = self.config();
        change(&mut config);
        std::fs::write(self.folder().join("config"), config.to_string()).expect("config");
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the daemon on its repository and waits until its API listens.
    pub fn run(&mut self) {
        let said = self.folder().join("api");
        // What a killed daemon left behind must not be taken for the new one's.
        let _ = std::fs::remove_file(&said);
        let mut daemon = self.command();
        daemon.arg("daemon").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = daemon.spawn().expect("ipfs daemon");
        let deadline = Instant::now() + START_LIMIT;
        let api: Multiaddr = loop {
            // The file appears when the API listens.
            if let Some(address) = std::fs::read_to_string(&said).ok().and_then(|t| t.trim().parse().ok()) {
                break address;
            }
            assert!(child.try_wait().expect("wait").is_none(), "the daemon ended at once");
            assert!(Instant::now() < deadline, "the daemon did not come up");
            std::thread::sleep(Duration::from_millis(20));
        };
        self.child = Some(child);
        if self.api != api {
            self.keep(&api);
        }
    }

    /// Writes the address of the API into the configuration, for the next start.
    fn keep(&mut self, api: &Multiaddr) {
        self.api = api.clone();
        self.edit(|config| config["Addresses"]["API"] = api.to_string().into());
    }
}

impl Drop for KuboDaemon {
    fn drop(&mut self) {
        self.kill();
    }
}
