//! First start: `up` and `join` make what is missing, choose free ports, and say where everything is.

use super::{say, witness, FreshOptions, RunMode};
use crate::config::init::{self, InitOptions, Ports};
use crate::config::{Config, Env, Folder, Invite};
use crate::error::{Error, Result};
use libp2p::Multiaddr;

/// Prepares the folder for the mode; gives back the peers of a token.
pub(super) fn prepare(
    folder: &Folder,
    mode: &RunMode,
    fresh: &FreshOptions,
    env: &Env,
) -> Result<Vec<Multiaddr>> {
    match mode {
        RunMode::Daemon => Ok(Vec::new()),
        RunMode::Up => {
            if init::is_fresh(folder) || init::is_unfinished(folder) {
                create(folder, InitOptions::default(), fresh, env)?;
            } else if fresh.witness {
                witness::agrees(folder, &Config::load(folder, env)?.0)?;
            }
            Ok(Vec::new())
        }
        RunMode::Join(token) => {
            let invite = Invite::parse(token)?;
            if init::is_fresh(folder) || init::is_unfinished(folder) {
                let options = InitOptions { secret: Some(invite.secret.clone()), ..InitOptions::default() };
                create(folder, options, fresh, env)?;
            } else {
                let (config, _) = Config::load(folder, env)?;
                if config.cluster.secret.psk() != invite.secret.psk() {
                    return Err(Error::conflict(format!(
                        "{} belongs to another cluster: its cluster.secret is not the token's. Join in a fresh folder (-c FOLDER), or remove this one first",
                        folder.path().display()
                    )));
                }
                if fresh.witness {
                    witness::agrees(folder, &config)?;
                }
            }
            Ok(invite.peers)
        }
    }
}

/// Initialises a fresh folder with free ports and the IPFS node that was asked for.
fn create(folder: &Folder, options: InitOptions, fresh: &FreshOptions, env: &Env) -> Result<()> {
    let swarm_key = fresh.swarm_key.clone();
    let witness = fresh.witness;
    let options = InitOptions { embedded: !fresh.kubo, swarm_key, ports: Ports::Free, witness, ..options };
    let report = init::init(folder, &options, env)?;
    for message in &report.messages {
        say(message);
    }
    for change in &report.ports {
        say(format_args!(
            "{}: port {} is taken ({}), using {}",
            change.key, change.from, change.why, change.to
        ));
    }
    for warning in &report.warnings {
        log::warn!(target: "config", "{warning}");
    }
    Ok(())
}
