//! First start: `up` and `join` make what is missing, choose free ports, and say where everything is.

use super::switch::{self, Switched};
use super::{say, witness, FreshOptions, RunMode};
use crate::config::init::{self, InitOptions, Ports};
use crate::config::{Config, Env, Folder, Invite};
use crate::error::Result;
use libp2p::Multiaddr;

/// A folder that is ready to run.
#[derive(Default)]
pub(super) struct Prepared {
    /// The peers of a token.
    pub(super) invited: Vec<Multiaddr>,
    /// The cluster of its own that the peer is about to give up.
    pub(super) switched: Option<Switched>,
}

impl Prepared {
    /// The peer is a member now.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub(super) fn entered(self, folder: &Folder) -> Result<()> {
        if let Some(switched) = self.switched {
            switched.joined();
        }
        match self.invited.is_empty() {
            true => Ok(()),
            false => switch::forget_bootstrap(folder, &self.invited),
        }
    }
}

/// Prepares the folder for the mode.
pub(super) fn prepare(folder: &Folder, mode: &RunMode, fresh: &FreshOptions, env: &Env) -> Result<Prepared> {
    match mode {
        RunMode::Daemon => Ok(Prepared::default()),
        RunMode::Up => {
            if init::is_fresh(folder) || init::is_unfinished(folder) {
                create(folder, InitOptions::default(), fresh, env)?;
            } else if fresh.witness {
                witness::agrees(folder, &Config::load(folder, env)?.0)?;
            }
            Ok(Prepared::default())
        }
        RunMode::Join(join) => {
            let invite = Invite::parse(&join.token)?;
            let mut switched = None;
            if init::is_fresh(folder) || init::is_unfinished(folder) {
                let (secret, bootstrap) = (Some(invite.secret.clone()), invite.peers.clone());
                let options = InitOptions { secret, bootstrap, ..InitOptions::default() };
                create(folder, options, fresh, env)?;
            } else {
                let (config, _) = Config::load(folder, env)?;
                if config.cluster.secret.psk() != invite.secret.psk() {
                    switched = Some(switch::switch(folder, &invite, fresh, join.force, env)?);
                } else {
                    if fresh.witness {
                        witness::agrees(folder, &config)?;
                    }
                    switch::open_folder(folder, &invite)?;
                }
            }
            Ok(Prepared { invited: invite.peers, switched })
        }
    }
}

/// Initialises a fresh folder with free ports and the IPFS node that was asked for.
fn create(folder: &Folder, options: InitOptions, fresh: &FreshOptions, env: &Env) -> Result<()> {
    let swarm_key = fresh.swarm_key.clone();
    let (witness, loopback) = (fresh.witness, fresh.loopback);
    let options =
        InitOptions { embedded: !fresh.kubo, swarm_key, ports: Ports::Free, witness, loopback, ..options };
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
