//! The real `ipfs` command against the proxy of a peer with the embedded node, beside the same command against a real
//! Kubo: same words on standard output, same success or failure.
//!
//! Commands run in the order of the list on both sides, so that each finds what the ones before left. Where pinfold says
//! something else, the list says what and why.

#[path = "support/kubo.rs"]
mod kubo_daemon;
#[path = "support/proxied.rs"]
mod proxied;
mod support;

use kubo_daemon::KuboDaemon;
use proxied::{ipfs, ipfs_fails, ipfs_ok, proxy_of};
use std::path::Path;
use std::process::Output;
use support::cluster::{Cluster, Peer, PATIENCE};
use support::wait_for;

/// A peer and a Kubo with the same files beside them.
struct Sides {
    cluster: Cluster,
    kubo: KuboDaemon,
}

impl Sides {
    fn start() -> Option<Sides> {
        let kubo = KuboDaemon::start(None)?;
        let cluster = Cluster::of(1);
        let folder = cluster.folder.path().join("in");
        files(&folder);
        Some(Sides { cluster, kubo })
    }

    fn peer(&self) -> &Peer {
        &self.cluster.peers[0]
    }

    fn path(&self, name: &str) -> String {
        self.cluster.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Runs a command on both sides; standard output and success must be the same. Its output.
    fn same(&self, args: &[&str]) -> String {
        let ours = said(&ipfs(self.peer(), args).output().expect("ipfs"));
        let kubo = said(&self.kubo.output(args));
        assert_eq!(ours, kubo, "ipfs {args:?}: ours, Kubo's");
        ours.1
    }

    /// The same where the order of lines means nothing.
    fn same_lines(&self, args: &[&str]) -> Vec<String> {
        let sorted = |output: Output| {
            let (ok, text) = said(&output);
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            (ok, lines)
        };
        let ours = sorted(ipfs(self.peer(), args).output().expect("ipfs"));
        assert_eq!(ours, sorted(self.kubo.output(args)), "ipfs {args:?}: ours, Kubo's");
        ours.1
    }

    /// Both must fail; our words and Kubo's.
    fn both_fail(&self, args: &[&str]) -> (String, String) {
        let kubo = self.kubo.output(args);
        assert!(!kubo.status.success(), "Kubo took {args:?}");
        (ipfs_fails(self.peer(), args), String::from_utf8_lossy(&kubo.stderr).into_owned())
    }

    /// Both must fail with the same words.
    fn same_failure(&self, args: &[&str]) {
        let (ours, kubo) = self.both_fail(args);
        assert_eq!(ours.trim(), kubo.trim(), "ipfs {args:?}: ours, Kubo's");
    }

    fn wait_pinned(&self, cid: &str) {
        self.peer().wait_status(cid, "pinned", 1);
    }
}

fn said(output: &Output) -> (bool, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text)
}

fn files(folder: &Path) {
    std::fs::create_dir_all(folder.join("d/sub/deep")).expect("folders");
    let write = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content).expect("file");
    write("hello.txt", b"hello world\n");
    write("d/a.txt", b"a\n");
    write("d/big", &(0..1_500_000_u32).map(|n| (n / 7 % 251) as u8).collect::<Vec<_>>());
    write("d/sub/c.txt", b"c\n");
    write("d/sub/deep/empty", b"");
    write("value.json", b"{\"b\":[1,2.5,\"x<>&\"],\"a\":{\"/\":\"QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o\"}}");
    write("bad.json", b"{\"a\":1,\"a\":2}");
    write("block", b"block body\n");
    std::os::unix::fs::symlink("a.txt", folder.join("d/link")).expect("link");
}

const HELLO: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

/// Every byte below two folders is the same, and every link.
fn same_tree(one: &Path, other: &Path) {
    let list = |root: &Path| {
        let output = std::process::Command::new("find").arg(root).args(["-printf", "%P %y %l\\n"]).output();
        let mut lines: Vec<String> =
            String::from_utf8_lossy(&output.expect("find").stdout).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(list(one), list(other));
    let status = std::process::Command::new("diff").arg("-r").args([one, other]).status();
    assert!(status.expect("diff").success());
}

#[test]
fn the_ipfs_command_says_the_same_with_pinfold_and_with_kubo() {
    let Some(sides) = Sides::start() else { return };
    let (hello, folder) = (sides.path("in/hello.txt"), sides.path("in/d"));

    // add
    assert_eq!(sides.same(&["add", "-Q", &hello]).trim(), HELLO);
    sides.same(&["add", "--progress=false", &hello]);
    let root = sides.same(&["add", "-rQ", &folder]).trim().to_owned();
    sides.same_lines(&["add", "-r", "--progress=false", &folder]);
    sides.same(&["add", "-Qw", &hello]);
    let root1 = sides.same(&["add", "-rQ", "--cid-version=1", &folder]).trim().to_owned();
    sides.same(&["add", "-Q", "--chunker=size-1000", "--raw-leaves", &sides.path("in/d/big")]);
    let at = |name: &str| format!("{root}/{name}");

    // cat, get, ls
    sides.same(&["cat", HELLO]);
    sides.same(&["cat", "--offset=3", "--length=4", HELLO]);
    sides.same(&["cat", &at("big")]);
    sides.same(&["cat", "--offset=262140", "--length=10", &at("big")]);
    sides.same(&["cat", HELLO, &at("a.txt")]);
    sides.same(&["cat", &at("link")]);
    sides.same_failure(&["cat", &root]);
    sides.same_failure(&["cat", "nosuch"]);
    sides.same_failure(&["cat", &at("nosuch")]);
    sides.same_failure(&["cat", "--offset=-1", HELLO]);
    for (name, what) in [("whole", root.as_str()), ("whole1", &root1), ("one", &at("a.txt")), ("sub", &at("sub"))] {
        let (ours, kubos) = (sides.path(&format!("ours-{name}")), sides.path(&format!("kubos-{name}")));
        ipfs_ok(sides.peer(), &["get", "-o", &ours, what]);
        sides.kubo.ok(&["get", "-o", &kubos, what]);
        same_tree(Path::new(&ours), Path::new(&kubos));
    }
    let tar = sides.path("ours.tar");
    ipfs_ok(sides.peer(), &["get", "-a", "-o", &tar, &root]);
    assert!(std::process::Command::new("tar").args(["tf", &tar]).status().expect("tar").success());
    for args in [
        &["ls", &root][..],
        &["ls", &root1],
        &["ls", "-v", &root],
        &["ls", &root, &at("sub")],
        &["ls", "--size=false", &root],
        &["ls", "--resolve-type=false", "--size=false", &root],
        &["ls", "-s", &root],
        &["ls", &at("big")],
        &["ls", "--cid-base=base58btc", &root1],
    ] {
        sides.same(args);
    }
    sides.same_failure(&["ls", &at("nosuch")]);

    // dag
    let value = sides.same(&["dag", "put", &sides.path("in/value.json")]).trim().to_owned();
    sides.same(&["dag", "put", "--store-codec=dag-json", &sides.path("in/value.json")]);
    sides.same_failure(&["dag", "put", &sides.path("in/bad.json")]);
    for args in [
        &["dag", "get", &value][..],
        &["dag", "get", &format!("{value}/b/1")],
        &["dag", "get", &format!("{value}/a")],
        &["dag", "get", &root],
        &["dag", "get", &root1],
        &["dag", "get", "--output-codec=dag-cbor", &value],
        &["dag", "get", "--output-codec=dag-pb", &root],
        &["dag", "resolve", &format!("{value}/b")],
        &["dag", "resolve", &at("sub/c.txt")],
        &["dag", "stat", "--progress=false", &root],
        &["dag", "stat", "--progress=false", &root, &root1],
        &["dag", "export", "--progress=false", &root],
        &["dag", "export", "--progress=false", &value],
        &["resolve", &format!("/ipfs/{}", at("sub/c.txt"))],
        &["resolve", &format!("/ipfs/{value}/a")],
        &["resolve", "--cid-base=base58btc", &format!("/ipfs/{value}/a")],
    ] {
        sides.same(args);
    }
    sides.same_failure(&["dag", "get", &format!("{value}/nosuch")]);
    sides.same_failure(&["dag", "get", "nosuch"]);

    // block
    let block = sides.same(&["block", "put", &sides.path("in/block")]).trim().to_owned();
    sides.same(&["block", "put", "--cid-codec=dag-pb", "--mhtype=sha2-512", &sides.path("in/block")]);
    sides.same_failure(&["block", "put", "--cid-codec=nosuch", &sides.path("in/block")]);
    sides.same(&["block", "get", &block]);
    sides.same(&["block", "stat", &block]);
    sides.same(&["block", "stat", &at("sub")]);
    sides.same(&["block", "rm", &block]);
    sides.same_failure(&["block", "rm", &block]);
    sides.wait_pinned(HELLO);
    sides.wait_pinned(&root);
    sides.same_failure(&["block", "rm", HELLO]);
    let (ours, kubo) = sides.both_fail(&["block", "rm", &at("a.txt")]);
    assert!(ours.contains("pinned via") && kubo.contains("pinned via"), "{ours}{kubo}");

    // refs
    for args in [
        &["refs", &root][..],
        &["refs", "-r", &root],
        &["refs", "-r", "-u", &root],
        &["refs", "-r", "--max-depth=2", &root],
        &["refs", "-e", &root],
        &["refs", "-r", "--format=<src> <dst> <linkname>", &root],
        &["refs", "-r", &value],
    ] {
        sides.same(args);
    }
    let local = ipfs_ok(sides.peer(), &["refs", "local"]);
    assert!(local.lines().count() > 10 && local.lines().all(|l| l.starts_with("bafk")), "{local}");

    // pins
    sides.same(&["pin", "add", &value]);
    sides.same_lines(&["pin", "ls", "--type=recursive", "-q", &value]);
    sides.same(&["pin", "rm", &value]);
    sides.same_failure(&["pin", "rm", "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"]);

    // who and how much
    sides.same(&["version", "-n"]);
    sides.same(&["repo", "version"]);
    sides.same(&["swarm", "peers"]);
    sides.same(&["bootstrap", "list"]);
    sides.same(&["key", "list"]);
    let id = ipfs_ok(sides.peer(), &["id", "-f", "<id> <aver>"]);
    assert!(id.starts_with("12D3KooW") && id.contains(" pinfold/"), "{id}");
    let stat = ipfs_ok(sides.peer(), &["repo", "stat", "--size-only"]);
    assert!(stat.contains("RepoSize:") && stat.contains("StorageMax: 10000000000"), "{stat}");
    assert!(ipfs_ok(sides.peer(), &["stats", "bw"]).contains("TotalIn"));
    assert!(ipfs_ok(sides.peer(), &["bitswap", "stat"]).contains("blocks received"));
    assert!(ipfs_ok(sides.peer(), &["repo", "verify"]).contains("all blocks validated"));
    assert!(ipfs_ok(sides.peer(), &["config", "Datastore.StorageMax"]).contains("10GB"));

    // What the node does not do says so, and what to do instead.
    for args in [
        &["files", "ls"][..],
        &["name", "resolve", "/ipns/example.com"],
        &["routing", "findprovs", HELLO],
        &["pubsub", "ls"],
        &["shutdown"],
        &["cat", "/ipns/example.com"],
        &["get", "-C", HELLO],
    ] {
        let words = ipfs_fails(sides.peer(), args);
        assert!(words.contains("not offered") || words.contains("no part in") || words.contains("cannot be shut down") || words.contains("resolves no"), "{args:?}: {words}");
    }
}

#[test]
fn archives_go_from_kubo_to_pinfold_and_back() {
    let Some(sides) = Sides::start() else { return };
    let root = sides.kubo.ok(&["add", "-rQ", "--cid-version=1", &sides.path("in/d")]);
    let car = sides.kubo.output(&["dag", "export", "--progress=false", &root]);
    let file = sides.path("folder.car");
    std::fs::write(&file, &car.stdout).expect("file");
    let said = ipfs_ok(sides.peer(), &["dag", "import", "--stats", &file]);
    let again = sides.kubo.ok(&["dag", "import", "--stats", &file]);
    assert_eq!(said.trim(), again, "ours, Kubo's");
    // The root is a pin of the cluster, and comes true.
    sides.wait_pinned(&root);
    assert!(ipfs_ok(sides.peer(), &["pin", "ls", "-q"]).contains(&root));
    let back = ipfs(sides.peer(), &["dag", "export", "--progress=false", &root]).output().expect("ipfs");
    assert_eq!(back.stdout, car.stdout, "the same archive, byte for byte");

    // Not pinned when it is not whole: a folder without what is in it.
    let other = sides.kubo.ok(&["add", "-rQ", "--cid-version=1", &sides.path("in")]);
    let car = sides.kubo.output(&["dag", "export", "--progress=false", &other]);
    let head = 59 + 2 + 36; // header, and a length and CID; then some bytes of the first block
    let whole = u64::from(car.stdout[59]) as usize & 0x7f | usize::from(car.stdout[60]) << 7;
    assert!(whole > 36 && car.stdout.len() > head);
    let first = if car.stdout[59] & 0x80 == 0 { 60 + usize::from(car.stdout[59]) } else { 61 + whole };
    std::fs::write(&file, &car.stdout[..first]).expect("file");
    let output = ipfs(sides.peer(), &["dag", "import", &file]).output().expect("ipfs");
    let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("FAILED") && words.contains("not found locally"), "{words}");
    assert!(!ipfs_ok(sides.peer(), &["pin", "ls", "-q"]).contains(&other));
    // Cut in the middle of a block: an error that says after which.
    std::fs::write(&file, &car.stdout[..car.stdout.len() - 7]).expect("file");
    let words = ipfs_fails(sides.peer(), &["dag", "import", "--pin-roots=false", &file]);
    assert!(words.contains("import failed after block"), "{words}");
}

#[test]
fn nodes_connect_and_exchange_through_the_command_line() {
    let cluster = Cluster::of(1);
    let stranger = Cluster::of(1);
    let Some(_) = support::kubo() else { return support::skip("no Kubo") };
    let (one, other) = (&cluster.peers[0], &stranger.peers[0]);
    // Two clusters of one secret are one private network of IPFS nodes.
    let address = ipfs_ok(other, &["swarm", "addrs", "local", "--id"]);
    let address = address.lines().next().expect("an address").to_owned();
    let said = ipfs_ok(one, &["swarm", "connect", &address]);
    assert!(said.contains("success"), "{said}");
    let peers = ipfs_ok(one, &["swarm", "peers"]);
    assert_eq!(peers.trim(), address, "as one address");
    let id = address.rsplit('/').next().expect("id");
    wait_for("identify", PATIENCE, || {
        let agent = ipfs_ok(one, &["id", "-f", "<aver>", id]);
        if agent.starts_with("pinfold/") { Ok(()) } else { Err(agent) }
    });
    let file = cluster.folder.path().join("file");
    std::fs::write(&file, vec![9; 700_000]).expect("file");
    let cid = ipfs_ok(other, &["add", "-Q", file.to_str().expect("UTF-8")]);
    assert_eq!(ipfs_ok(one, &["cat", cid.trim()]).len(), 700_000, "read from the neighbour");
    // Reading stores nothing.
    assert!(!ipfs_ok(one, &["refs", "local"]).contains(cid.trim()));
    let fails = ipfs_fails(one, &["cat", "--offline", cid.trim()]);
    assert!(fails.contains("not found locally (offline)"), "{fails}");
    let bandwidth = ipfs_ok(one, &["stats", "bw"]);
    assert!(!bandwidth.contains("TotalIn: 0 B"), "{bandwidth}");
    assert!(ipfs_ok(one, &["swarm", "disconnect", &address]).contains("success"));
    let nowhere = format!("/ip4/127.0.0.1/tcp/1/p2p/{id}");
    assert!(ipfs_fails(other, &["swarm", "connect", &nowhere]).contains("failure"));
    assert!(!proxy_of(one).is_empty());
}
