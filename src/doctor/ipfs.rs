//! The IPFS node of this peer: reachable, not too old, and in which private network.

use super::daemon::Told;
use super::{quoted, Finding};
use crate::config::{Config, EmbeddedSection, Folder, IpfsHttpConfig, IpfsSection, Network};
use crate::ipfs::kubo::{Kubo, KuboConfig};
use crate::ipfs::removable::{self, Place};
use crate::ipfs::Ipfs;
use crate::runtime;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long Kubo may take to say who it is.
const ANSWER: Duration = Duration::from_secs(10);
/// Older releases answer in ways that were never tried.
const OLDEST_KUBO: (u32, u32) = (0, 18);
/// Longest swarm.key that is read, bytes.
const MAX_KEY: u64 = 4 << 10;

/// Looks at whichever node the configuration names.
pub(super) async fn look(folder: &Folder, config: &Config, told: Option<&Told>) -> Vec<Finding> {
    if config.consensus.witness {
        return vec![Finding::ok("ipfs", "none: this peer is a witness, it votes and holds no content")];
    }
    match &config.ipfs {
        IpfsSection::Http(http) => kubo(http).await,
        IpfsSection::Embedded(node) => embedded(folder, config, node, told),
    }
}

async fn kubo(http: &IpfsHttpConfig) -> Vec<Finding> {
    let Some(node) = http.node_multiaddress.first() else { return Vec::new() };
    let client =
        Kubo::new(KuboConfig { node: node.clone(), request_timeout: ANSWER, ..KuboConfig::default() });
    let asked = match &client {
        Ok(client) => runtime::timeout(ANSWER, "the IPFS daemon", client.id()).await,
        Err(error) => Err(error.clone()),
    };
    let id = match asked {
        Ok(id) => id,
        Err(error) => {
            return vec![Finding::fail(
                "ipfs",
                format!("the IPFS daemon at {node} does not answer: {error}"),
                "start it (ipfs daemon), or correct ipfs_connector.ipfshttp.node_multiaddress",
            )]
        }
    };
    let mut findings = vec![match version(&id.agent) {
        Some(found) if found < OLDEST_KUBO => Finding::warn(
            "ipfs",
            format!("the IPFS daemon at {node} is {}, older than any that was tried", id.agent),
            format!("update it to Kubo {}.{} or newer", OLDEST_KUBO.0, OLDEST_KUBO.1),
        ),
        _ => Finding::ok("ipfs", format!("the IPFS daemon at {node} answers: {} ({})", id.id, id.agent)),
    }];
    findings.extend(private_network_of_kubo());
    findings
}

/// `kubo/0.30.0/` or `go-ipfs/0.9.1/…`: major and minor.
fn version(agent: &str) -> Option<(u32, u32)> {
    let mut parts = agent.split('/').nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Kubo's swarm.key, if its repository is this user's: only nodes with the same one exchange blocks.
fn private_network_of_kubo() -> Option<Finding> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".ipfs"));
    let repository = std::env::var_os("IPFS_PATH").map(PathBuf::from).or_else(home)?;
    key_file(&repository.join("swarm.key"), "the IPFS daemon")
}

/// What a swarm.key says, told by its fingerprint; `None` when there is no such file.
fn key_file(path: &Path, whose: &str) -> Option<Finding> {
    let shown = path.display();
    let make = format!("make it anew (pinfold swarm-key > {}) and copy it to every board", quoted(path));
    let text = match path.metadata() {
        Err(_) => return None,
        Ok(meta) if meta.len() > MAX_KEY => {
            return Some(Finding::fail("ipfs", format!("{shown} is too long for a swarm.key"), make))
        }
        Ok(_) => std::fs::read_to_string(path).unwrap_or_default(),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let key = match lines[..] {
        ["/key/swarm/psk/1.0.0/", "/base16/", key, ..] => {
            data_encoding::HEXLOWER_PERMISSIVE.decode(key.as_bytes()).ok()
        }
        _ => None,
    };
    Some(match key.filter(|key| key.len() == 32) {
        Some(key) => {
            let print = data_encoding::HEXLOWER.encode(&Sha256::digest(&key)[..4]);
            Finding::ok(
                "ipfs",
                format!("{whose} is in the private network of {shown}, fingerprint {print}: it must be the same on every board"),
            )
        }
        None => Finding::fail(
            "ipfs",
            format!(
                "{shown} is not a swarm.key (three lines: /key/swarm/psk/1.0.0/, /base16/, 64 hex digits)"
            ),
            make,
        ),
    })
}

/// The store is not there, or is not ours: the sentence has the cure.
fn without_disk(cause: &str) -> Finding {
    Finding::fail(
        "ipfs",
        cause,
        "lsblk -f; sudo mount -a; the daemon goes on by itself when the disk is there",
    )
}

fn embedded(folder: &Folder, config: &Config, node: &EmbeddedSection, told: Option<&Told>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let blocks = config.resolve(folder, &node.data_folder);
    let place = Place { blocks: blocks.clone(), home: folder.path().to_owned() };
    match told.map(|told| &told.ipfs) {
        Some(Err(_)) | None if blocks.is_dir() != blocks.exists() => {
            let what = format!("{} should be the folder of the blocks and is a file", blocks.display());
            findings.push(Finding::fail("ipfs", what, format!("mv {0} {0}.aside", quoted(&blocks))));
        }
        Some(Err(error)) => match removable::look(&place) {
            Err(cause) => findings.push(without_disk(cause.message())),
            Ok(()) => findings.push(Finding::fail(
                "ipfs",
                format!("the embedded node does not answer: {error}"),
                "see its log (journalctl -u pinfold) and the disk (dmesg); then stop the daemon and start it again",
            )),
        },
        Some(Ok(id)) => findings.push(Finding::ok("ipfs", format!("the embedded node runs: {id}"))),
        None => findings.push(match removable::look(&place) {
            Err(cause) => without_disk(cause.message()),
            Ok(()) if blocks.exists() => {
                Finding::ok("ipfs", format!("the embedded node keeps its blocks in {}", blocks.display()))
            }
            Ok(()) => Finding::ok("ipfs", "the embedded node has no blocks yet"),
        }),
    }
    if node.network == Network::Private && !node.swarm_key_file.is_empty() {
        let path = config.resolve(folder, &node.swarm_key_file);
        findings.push(key_file(&path, "the embedded node").unwrap_or_else(|| {
            Finding::fail(
                "ipfs",
                format!(
                    "{} does not exist, and ipfs_connector.embedded.swarm_key_file names it",
                    path.display()
                ),
                format!("copy it from another board, or make it: pinfold swarm-key > {}", quoted(&path)),
            )
        }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn agents_of_kubo_are_understood() {
        assert_eq!(version("kubo/0.30.0/"), Some((0, 30)));
        assert_eq!(version("go-ipfs/0.9.1/dc2715a"), Some((0, 9)));
        assert_eq!(version("something"), None);
    }

    #[test]
    fn a_swarm_key_is_told_by_its_fingerprint_and_never_shown() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("swarm.key");
        assert_eq!(key_file(&path, "it"), None);
        let key = "ab".repeat(32);
        std::fs::write(&path, format!("/key/swarm/psk/1.0.0/\n/base16/\n{key}\n")).expect("write");
        let good = key_file(&path, "it").expect("found");
        assert_eq!(good.level, Level::Ok);
        assert!(good.what.contains("fingerprint ") && !good.what.contains("abababab"), "{}", good.what);
        std::fs::write(&path, "/key/swarm/psk/1.0.0/\n/base16/\nabc\n").expect("write");
        assert_eq!(key_file(&path, "it").expect("found").level, Level::Fail);
    }
}
