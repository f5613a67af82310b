//! From a cluster of one's own into another one: `join TOKEN` in the folder of a peer that has been running alone.
//!
//! Every packaged board begins with a cluster of one peer, so that it works at once. When its owner then lets it join
//! the others, that first cluster is in the way, and is given up: by itself when it holds nothing, with `--force` when
//! it holds pins, and never when it has other members, who would lose a vote without a word.
//!
//! Given up is not deleted: the data is rotated to `raft.old.0`, the content of the IPFS node stays where it is. Until
//! the others have let the peer in everything can be taken back, and is ([`Switched`]'s drop). A power cut in the middle
//! leaves either the old configuration without data (of a cluster that held nothing) or the new one, which knows whom to
//! join: never one that founds a second cluster with the others' secret.

use super::{legacy, offline, FreshOptions};
use crate::config::init::{self, SWARM_KEY};
use crate::config::{reach, write_private, Config, Env, Folder, Invite, IpfsSection};
use crate::durable;
use crate::error::{Context as _, Error, Result};
use crate::state::{Machine, Pins};
use crate::store::rotate;
use std::path::{Path, PathBuf};

/// What a peer has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// No data, or data that belongs to no cluster yet.
    Nothing,
    /// A cluster of this many members with this many pins.
    Cluster { members: usize, pins: u64 },
}

/// A folder that has been made ready for another cluster. What was there before comes back on drop, unless the peer
/// [has joined](Switched::joined).
pub(super) struct Switched {
    folder: Folder,
    service: Vec<u8>,
    data: PathBuf,
    rotated: Option<PathBuf>,
    joined: bool,
}

/// Makes the folder of a peer with another secret ready to join the invitation's cluster.
///
/// # Errors
/// [`crate::Kind::Conflict`] that says what the present cluster holds and how to give it up.
pub(super) fn switch(
    folder: &Folder,
    invite: &Invite,
    fresh: &FreshOptions,
    force: bool,
    env: &Env,
) -> Result<Switched> {
    let (config, _) = Config::load(folder, env)?;
    let data = config.resolve(folder, &config.consensus.data_folder);
    may_go(folder, own(folder, &data)?, force)?;
    if env.get("CLUSTER_SECRET").is_some() {
        return Err(Error::conflict(
            "the variable CLUSTER_SECRET sets another secret than the token's and would win over it: unset it, then join",
        ));
    }
    let service = std::fs::read(folder.service_json())
        .context(format!("reading {}", folder.service_json().display()))?;
    let rotated = rotate::rotate(&data, (config.consensus.backups_rotate as usize).max(1))?;
    let switched = Switched { folder: folder.clone(), service, data, rotated, joined: false };
    // Without the variables: they must not become part of the file.
    let (mut config, _) = Config::load(folder, &Env::empty())?;
    config.cluster.secret = invite.secret.clone();
    config.cluster.bootstrap.clone_from(&invite.peers);
    config.consensus.witness = fresh.witness;
    if fresh.kubo {
        config.ipfs = IpfsSection::default();
    }
    if let (Some(key), IpfsSection::Embedded(node)) = (&fresh.swarm_key, &mut config.ipfs) {
        write_private(&folder.path().join(SWARM_KEY), key.to_text().as_bytes())?;
        node.swarm_key_file = SWARM_KEY.into();
    }
    open_for(invite, &mut config)?;
    config.save(folder)?;
    if let Some(rotated) = &switched.rotated {
        log::info!(
            target: "service",
            "this peer leaves the cluster of its own for that of the token; its data is kept in {}",
            rotated.display()
        );
    }
    Ok(switched)
}

/// A peer that listens to its own machine only cannot be a member beside others elsewhere: it is opened. Whether
/// anything was changed.
fn open_for(invite: &Invite, config: &mut Config) -> Result<bool> {
    if invite.peers.iter().all(reach::is_local) {
        return Ok(false);
    }
    let changes = reach::open(config)?;
    changes.iter().for_each(super::say);
    Ok(!changes.is_empty())
}

/// The same for a folder that has the token's secret already.
///
/// # Errors
/// The configuration cannot be read or written.
pub(super) fn open_folder(folder: &Folder, invite: &Invite) -> Result<()> {
    let (mut config, _) = Config::load(folder, &Env::empty())?;
    match reach::is_closed(&config) && open_for(invite, &mut config)? {
        true => config.save(folder),
        false => Ok(()),
    }
}

/// What the peer has, with every committed entry counted. The folder's lock is held.
fn own(folder: &Folder, data: &Path) -> Result<Own> {
    legacy::refuse(folder, data)?;
    if !data.exists() {
        return Ok(Own::Nothing);
    }
    let state = offline::replayed(data)
        .map_err(|error| error.context("looking at what this peer's own cluster holds"))?;
    let members = Machine::open(state.clone())?.members().len();
    Ok(match members {
        0 => Own::Nothing,
        members => Own::Cluster { members, pins: Pins::new(state).count() },
    })
}

fn may_go(folder: &Folder, own: Own, force: bool) -> Result<()> {
    let at = folder.path().display();
    let why = match own {
        Own::Cluster { members: 1, pins: 0 } => return Ok(()),
        Own::Cluster { members, .. } if members > 1 => {
            return Err(Error::conflict(format!(
                "{at} is a member of another cluster, with {} other(s): let them remove this peer first, with `pinfold peers \
                 rm` and its id, and join then",
                members - 1
            )))
        }
        _ if force => return Ok(()),
        Own::Nothing => "its cluster.secret is not the token's".to_owned(),
        Own::Cluster { pins, .. } => format!("its own, which holds {pins} pin(s)"),
    };
    Err(Error::conflict(format!(
        "{at} belongs to another cluster: {why}. Join in a fresh folder (-c FOLDER), or give that cluster up with `join \
         TOKEN --force`: its data is moved aside, and its list of pins can be saved before with `pinfold state export`"
    )))
}

impl Switched {
    /// The others have let this peer in: there is no way back any more.
    pub(super) fn joined(mut self) {
        self.joined = true;
    }

    fn take_back(&self) -> Result<()> {
        write_private(&self.folder.service_json(), &self.service)?;
        let Some(rotated) = &self.rotated else { return Ok(()) };
        let doing = || format!("putting {} back", self.data.display());
        if self.data.exists() {
            // Made in this very attempt: it was moved away at its begin.
            std::fs::remove_dir_all(&self.data).context(doing())?;
        }
        std::fs::rename(rotated, &self.data).context(doing())?;
        durable::sync_folder(durable::folder_of(&self.data))
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        if self.joined {
            return;
        }
        match self.take_back() {
            Ok(()) => log::info!(target: "service", "the cluster of its own is as it was"),
            Err(error) => log::error!(
                target: "service",
                "{error}: the data of this peer's own cluster is in {}",
                self.rotated.as_deref().unwrap_or(&self.data).display()
            ),
        }
    }
}

/// After the joining: whom the peer joined through is in its data now, and the file need not say it.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn forget_bootstrap(folder: &Folder, invited: &[libp2p::Multiaddr]) -> Result<()> {
    if init::is_fresh(folder) {
        return Ok(());
    }
    let (mut config, _) = Config::load(folder, &Env::empty())?;
    let before = config.cluster.bootstrap.len();
    config.cluster.bootstrap.retain(|peer| !invited.contains(peer));
    match config.cluster.bootstrap.len() == before {
        true => Ok(()),
        false => config.save(folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::init::InitOptions;

    fn peer() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().expect("temp dir");
        let folder = Folder::new(dir.path().join("peer"));
        let options = InitOptions { embedded: true, loopback: true, ..InitOptions::default() };
        init::init(&folder, &options, &Env::empty()).expect("init");
        (dir, folder)
    }

    fn invite(address: &str) -> Invite {
        let peer = libp2p::PeerId::random();
        Invite {
            secret: crate::config::Secret::random().expect("secret"),
            cluster_id: 0,
            cluster_name: String::new(),
            peers: vec![format!("{address}/p2p/{peer}").parse().expect("address")],
        }
    }

    fn config(folder: &Folder) -> Config {
        Config::load(folder, &Env::empty()).expect("config").0
    }

    #[test]
    fn what_may_be_given_up() {
        let folder = Folder::new("/peer");
        let refused = |own, force| may_go(&folder, own, force).expect_err("refused").message().to_owned();
        may_go(&folder, Own::Cluster { members: 1, pins: 0 }, false).expect("an empty one");
        assert!(refused(Own::Cluster { members: 1, pins: 3 }, false).contains("3 pin(s)"));
        may_go(&folder, Own::Cluster { members: 1, pins: 3 }, true).expect("told so");
        assert!(refused(Own::Nothing, false).contains("--force"));
        may_go(&folder, Own::Nothing, true).expect("told so");
        for force in [false, true] {
            assert!(refused(Own::Cluster { members: 2, pins: 0 }, force).contains("peers rm"));
        }
    }

    #[test]
    fn a_failed_attempt_changes_nothing_and_a_good_one_is_kept() {
        let (_dir, folder) = peer();
        let data = folder.path().join("raft");
        std::fs::create_dir(&data).expect("data");
        std::fs::write(data.join("mark"), "own").expect("data");
        let before = std::fs::read(folder.service_json()).expect("file");
        let service = before.clone();
        let attempt = |joined| {
            let rotated = rotate::rotate(&data, 1).expect("rotate");
            std::fs::create_dir(&data).expect("of the attempt");
            write_private(&folder.service_json(), b"{}").expect("write");
            Switched { folder: folder.clone(), service: service.clone(), data: data.clone(), rotated, joined }
        };
        drop(attempt(false));
        assert_eq!(std::fs::read(folder.service_json()).expect("file"), before);
        assert_eq!(std::fs::read_to_string(data.join("mark")).expect("back"), "own");
        attempt(false).joined();
        assert!(!data.join("mark").exists() && folder.path().join("raft.old.0/mark").exists());
    }

    #[test]
    fn the_new_configuration_knows_whom_to_join_and_is_opened_only_for_others_elsewhere() {
        for (address, closed) in [("/ip4/127.0.0.1/tcp/1", true), ("/ip4/192.168.1.2/tcp/9096", false)] {
            let (_dir, folder) = peer();
            let invite = invite(address);
            let fresh = FreshOptions { witness: true, ..FreshOptions::default() };
            let switched = switch(&folder, &invite, &fresh, true, &Env::empty()).expect("switch");
            let config = config(&folder);
            assert_eq!(config.cluster.secret.psk(), invite.secret.psk());
            assert_eq!(config.cluster.bootstrap, invite.peers);
            assert!(config.consensus.witness);
            assert_eq!(reach::is_closed(&config), closed, "{address}");
            switched.joined();
            forget_bootstrap(&folder, &invite.peers).expect("forget");
            assert!(self::config(&folder).cluster.bootstrap.is_empty());
        }
    }

    #[test]
    fn a_secret_in_a_variable_is_not_passed_over() {
        let (_dir, folder) = peer();
        let env = Env::from_pairs([("CLUSTER_SECRET", "ab".repeat(32))]);
        let fresh = FreshOptions::default();
        let refused = switch(&folder, &invite("/ip4/127.0.0.1/tcp/1"), &fresh, true, &env);
        assert!(refused.err().expect("refused").message().contains("CLUSTER_SECRET"));
    }
}
