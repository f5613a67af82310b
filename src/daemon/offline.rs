//! Commands on a folder: the invite token of a running peer, and `state export | import | cleanup` of a
//! stopped one (they take the lock, so a running daemon refuses them).

use super::{enter, upgrade};
use crate::api::own;
use crate::api::types::Id;
use crate::config::{self, Config, Env, Folder, Identity, Invite};
use crate::consensus::{bootstrap, Start};
use crate::error::{Context, Error, Result};
use crate::state::{seed, transfer, Machine, Pin, Pins};
use crate::store::{self, rotate, LogBatch, LogStore, StateStore};
use libp2p::PeerId;
use raft::eraftpb::HardState;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the running daemon may take to say who it is.
const ASK_DAEMON: Duration = Duration::from_secs(10);

/// Replication settings that `state import` puts on every pin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOverrides {
    /// Fewest copies; 0 leaves them as they are.
    pub replication_min: i32,
    /// Most copies; 0 leaves them as they are.
    pub replication_max: i32,
    /// Holders; empty leaves them as they are.
    pub allocations: Vec<PeerId>,
}

/// Makes a token with which another board can join the running peer of this folder.
///
/// # Errors
/// The daemon of the folder does not run, or the cluster has no secret.
pub fn invite(folder: &Folder) -> Result<String> {
    let (config, _) = Config::load(folder, &Env::process())?;
    let id: Id = own::ask(folder, &config, "/id", ASK_DAEMON)?;
    let own = id.addresses.unwrap_or_default();
    let others = id.cluster_peers_addresses.unwrap_or_default();
    let peers =
        own.iter().chain(&others).filter_map(|a| a.parse().ok()).take(config::MAX_INVITE_PEERS).collect();
    let invite =
        Invite { secret: config.cluster.secret.clone(), cluster_id: 0, cluster_name: id.peername, peers };
    invite.to_token()
}

/// Opens the state of a stopped peer.
fn open(folder: &Folder, what: &str) -> Result<(Config, config::FolderLock)> {
    let lock = folder.lock(what)?;
    let (config, _) = Config::load(folder, &Env::process())?;
    Ok((config, lock))
}

/// Writes every pin, one JSON object per line. Returns how many.
///
/// # Errors
/// The folder is in use, or cannot be read or written.
pub fn state_export(folder: &Folder, out: &mut dyn Write) -> Result<u64> {
    let (config, _lock) = open(folder, "state export")?;
    let data = config.resolve(folder, &config.consensus.data_folder);
    if !data.exists() {
        return Ok(0);
    }
    let state = replayed(&data).map_err(|error| upgrade::explain(error, folder, &data))?;
    transfer::export(&Pins::new(state), out)
}

/// The state with every committed entry applied: after a kill the state environment lags the log. Nothing is
/// written: what is replayed stays in the overlay.
fn replayed(data: &Path) -> Result<Arc<dyn StateStore>> {
    let (log, state) = store::open(data)?;
    let state: Arc<dyn StateStore> = Arc::new(state);
    bootstrap::replay(&log, &state)?;
    Ok(state)
}

/// Replaces the state of this peer by the pins read, all or nothing: a one-peer cluster with exactly these
/// pins. The present data is rotated away, not deleted. Returns how many.
///
/// # Errors
/// A line that is no pin (nothing is changed), the folder is in use.
pub fn state_import(folder: &Folder, input: &mut dyn Read, overrides: &ImportOverrides) -> Result<u64> {
    let (config, _lock) = open(folder, "state import")?;
    let set = |n: i32| (n != 0).then_some(n);
    let options = transfer::ImportOptions {
        replication_min: set(overrides.replication_min),
        replication_max: set(overrides.replication_max),
        allocations: (!overrides.allocations.is_empty()).then(|| overrides.allocations.clone()),
        default_replication: (config.cluster.replication_factor_min, config.cluster.replication_factor_max),
    };
    let data = config.resolve(folder, &config.consensus.data_folder);
    let fresh = data.with_extension("importing");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)
            .context(format!("cannot remove the half-done import {}", fresh.display()))?;
    }
    let (identity, _) = Identity::load(folder, Some(&config), &Env::process())?;
    let pins = transfer::import(input, options);
    let founded = found_with(&fresh, &identity, &config.cluster.peername, pins);
    let count = match founded {
        Ok(count) => count,
        Err(error) => {
            // Nothing has changed but for this scratch folder; a leftover is removed by the next import too.
            let _ = std::fs::remove_dir_all(&fresh);
            return Err(error);
        }
    };
    if data.exists() {
        rotate::rotate(&data, config.consensus.backups_rotate as usize)?;
    }
    std::fs::rename(&fresh, &data)
        .context(format!("cannot put the imported state in place at {}", data.display()))?;
    Ok(count)
}

/// A data directory of a one-peer cluster whose state is exactly these pins, as a snapshot would have left it:
/// whoever joins later gets them by snapshot.
fn found_with(
    data: &Path,
    identity: &Identity,
    name: &str,
    pins: impl Iterator<Item = Result<Pin>>,
) -> Result<u64> {
    let (mut log, state) = store::open(data)?;
    let state: Arc<dyn StateStore> = Arc::new(state);
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|e| Error::io(format!("no randomness for a cluster id: {e}")))?;
    let random = u64::from_le_bytes(random);
    bootstrap::prepare(&Start::Found, identity.peer_id(), name, random, &mut log, &state)?;
    let machine = Machine::open(state.clone())?;
    let mut at = machine.applied();
    at.index += 1;
    let count = seed(&*state, pins, &machine.members(), &machine.conf_state(), machine.cluster_version(), at)?;
    let hard_state = HardState { term: at.term, commit: at.index, ..HardState::default() };
    log.append(LogBatch { entries: Vec::new(), hard_state: Some(hard_state), reset_to: Some(at) })?;
    Ok(count)
}

/// Rotates the state of this peer away: the next start founds or joins anew.
///
/// # Errors
/// The folder is in use, or cannot be written.
pub fn state_cleanup(folder: &Folder) -> Result<()> {
    let (config, _lock) = open(folder, "state cleanup")?;
    let data = config.resolve(folder, &config.consensus.data_folder);
    if data.exists() {
        rotate::rotate(&data, config.consensus.backups_rotate as usize)?;
    }
    enter::forget_removal(folder);
    Ok(())
}
