//! Commands on a folder: the invite token of a running peer, opening it to other machines, and `state export | cleanup` of a
//! stopped one (they take the lock, so a running daemon refuses them).

use super::{enter, legacy, upgrade};
use crate::api::own;
use crate::api::types::Id;
use crate::config::{self, reach, Config, Env, Folder, Invite};
use crate::consensus::recover;
use crate::error::Result;
use crate::state::{transfer, Machine, Pins};
use crate::store::{self, LogStore as _, StateStore};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the running daemon may take to say who it is.
const ASK_DAEMON: Duration = Duration::from_secs(10);

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

/// Lets other machines reach the peer of this folder, from its next start on. What was changed, line by line.
///
/// # Errors
/// There is no configuration, or no secret in it.
pub fn open(folder: &Folder) -> Result<Vec<String>> {
    // A secret from a variable counts; what the variables say must not become part of the file.
    let secret = Config::load(folder, &Env::process())?.0.cluster.secret;
    let (mut config, _) = Config::load(folder, &Env::empty())?;
    let own = std::mem::replace(&mut config.cluster.secret, secret);
    let changes = reach::open(&mut config)?;
    config.cluster.secret = own;
    if !changes.is_empty() {
        config.save(folder)?;
    }
    Ok(changes)
}

/// Opens the state of a stopped peer.
fn stopped(folder: &Folder, what: &str) -> Result<(Config, config::FolderLock)> {
    let lock = folder.lock(what)?;
    let (config, _) = Config::load(folder, &Env::process())?;
    Ok((config, lock))
}

/// Writes every pin, one JSON object per line. Returns how many.
///
/// # Errors
/// The folder is in use, or cannot be read or written.
pub fn state_export(folder: &Folder, out: &mut dyn Write) -> Result<u64> {
    let (config, _lock) = stopped(folder, "state export")?;
    let data = config.resolve(folder, &config.consensus.data_folder);
    legacy::refuse(folder, &data)?;
    if !data.exists() {
        return Ok(0);
    }
    let state = replayed(&data).map_err(|error| upgrade::explain(error, folder, &data))?;
    transfer::export(&Pins::new(state), out)
}

/// The state with every committed entry applied: after a kill the state environment lags the log. Nothing is
/// written: what is replayed stays in the overlay.
pub(super) fn replayed(data: &Path) -> Result<Arc<dyn StateStore>> {
    let (log, state) = store::open(data)?;
    let state: Arc<dyn StateStore> = Arc::new(state);
    let own = log.incarnation().raft_id;
    recover::replay(&log, &mut Machine::open(state.clone())?, own)?;
    Ok(state)
}

/// Rotates the state of this peer away: the next start founds or joins anew.
///
/// # Errors
/// The folder is in use, or cannot be written.
pub fn state_cleanup(folder: &Folder) -> Result<()> {
    let (config, _lock) = stopped(folder, "state cleanup")?;
    let data = config.resolve(folder, &config.consensus.data_folder);
    legacy::clean_up(folder, &data, config.consensus.backups_rotate as usize)?;
    enter::forget_removal(folder);
    Ok(())
}
