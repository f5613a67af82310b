//! Commands on a folder: the invite token of a running peer, and `state export | cleanup` of a
//! stopped one (they take the lock, so a running daemon refuses them).

use super::upgrade;
use crate::api::types::Id;
use crate::config::{self, host_port, Config, Env, Folder, Invite};
use crate::consensus::bootstrap;
use crate::error::{Error, Result};
use crate::state::{transfer, Pins};
use crate::store::{self, rotate, StateStore};
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
    let id = ask_id(&config, folder)?;
    let own = id.addresses.unwrap_or_default();
    let others = id.cluster_peers_addresses.unwrap_or_default();
    let peers =
        own.iter().chain(&others).filter_map(|a| a.parse().ok()).take(config::MAX_INVITE_PEERS).collect();
    let invite =
        Invite { secret: config.cluster.secret.clone(), cluster_id: 0, cluster_name: id.peername, peers };
    invite.to_token()
}

/// Asks the running daemon of the folder who it is.
fn ask_id(config: &Config, folder: &Folder) -> Result<Id> {
    let rest = config.restapi.as_ref().ok_or_else(|| {
        Error::invalid("api.restapi is off in service.json: the daemon cannot be asked for its addresses")
    })?;
    let address = rest
        .http_listen_multiaddress
        .iter()
        .find_map(host_port)
        .ok_or_else(|| Error::invalid("api.restapi.http_listen_multiaddress holds no TCP address"))?;
    let scheme = if rest.tls() { "https" } else { "http" };
    let host = if address.ip().is_some_and(|ip| ip.is_unspecified()) {
        format!("127.0.0.1:{}", address.port)
    } else {
        address.authority()
    };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ASK_DAEMON))
        .tls_config(ureq::tls::TlsConfig::builder().disable_verification(true).build())
        .build()
        .into();
    let mut request = agent.get(format!("{scheme}://{host}/id"));
    if let Some((user, password)) = rest.basic_auth_credentials.0.iter().flatten().next() {
        let credentials = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
        request = request.header("Authorization", format!("Basic {credentials}"));
    }
    let answer = request.call().map_err(|e| {
        Error::unavailable(format!(
            "no answer from the daemon of {} at {host} ({e}): start it with `pinfold up -c {}` first",
            folder.path().display(),
            folder.path().display()
        ))
    })?;
    answer
        .into_body()
        .read_json()
        .map_err(|e| Error::corrupt(format!("the daemon at {host} answered nonsense to GET /id: {e}")))
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
    Ok(())
}
