//! Making a new peer: its folder, service.json, identity.json and peerstore.
//!
//! [`init`] writes; it asks nothing. Whether an existing configuration may be overwritten is the command
//! line's question ([`would_overwrite`]). An identity that is there stays, whatever is asked.

use super::{
    ports, write_private, Config, CrdtSection, EmbeddedSection, Env, Folder, Identity, IpfsSection,
    PortChange, RaftSection, Secret, SwarmKey,
};
use crate::error::{Error, Result};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::path::PathBuf;
use std::time::Duration;

/// Which section `consensus` gets. Raft runs in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consensus {
    /// `raft`.
    #[default]
    Raft,
    /// `crdt`, for scripts that ask for it.
    Crdt,
}

impl std::str::FromStr for Consensus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "raft" => Ok(Consensus::Raft),
            "crdt" => Ok(Consensus::Crdt),
            _ => Err(Error::invalid("error choosing consensus: flag value must be set to 'raft' or 'crdt'")),
        }
    }
}

/// What ports a new peer gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// The default ones, taken or not.
    #[default]
    Default,
    /// The default ones where they are free.
    Free,
    /// Random free ones.
    Random,
}

/// What to make.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// Consensus section.
    pub consensus: Consensus,
    /// The cluster's secret; a random one when `None`.
    pub secret: Option<Secret>,
    /// Addresses of peers that are known, each with `/p2p/<peer id>`.
    pub peers: Vec<Multiaddr>,
    /// Overwrite a configuration that is there.
    pub force: bool,
    /// Ports.
    pub ports: Ports,
    /// The embedded IPFS node and the times of our own; otherwise exactly what ipfs-cluster writes, with Kubo.
    pub embedded: bool,
    /// Name of the peer; the host's when `None`.
    pub peername: Option<String>,
    /// Key of the embedded node's private network, instead of the one derived from the secret; kept in the folder.
    pub swarm_key: Option<SwarmKey>,
    /// A witness: it votes and holds no content.
    pub witness: bool,
    /// Listen to this machine only, until somebody opens the peer ([`super::reach`]).
    pub loopback: bool,
    /// `cluster.bootstrap`: the peers to join through. In the file from its first moment on, so that a peer that is cut
    /// off while it joins never founds another cluster with the secret of this one.
    pub bootstrap: Vec<Multiaddr>,
}

/// Where [`InitOptions::swarm_key`] is kept in the folder.
pub(crate) const SWARM_KEY: &str = "swarm.key";

/// What was made.
#[derive(Clone, Debug)]
pub struct InitReport {
    /// The new configuration, variables applied.
    pub config: Config,
    /// The peer's id.
    pub peer_id: PeerId,
    /// Whether the identity is new.
    pub new_identity: bool,
    /// Ports that are not the default ones.
    pub ports: Vec<PortChange>,
    /// What to tell, line by line, in ipfs-cluster's words.
    pub messages: Vec<String>,
    /// What is worth a warning.
    pub warnings: Vec<String>,
}

/// The configuration that [`init`] would replace, if there is one.
pub fn would_overwrite(folder: &Folder) -> Option<PathBuf> {
    let path = folder.service_json();
    path.symlink_metadata().is_ok().then_some(path)
}

/// Whether the folder has nothing of a peer yet.
pub fn is_fresh(folder: &Folder) -> bool {
    would_overwrite(folder).is_none() && folder.identity_json().symlink_metadata().is_err()
}

/// Whether an [`init`] was cut off: no configuration and no data yet, but an identity. Doing it again keeps that.
/// Where there is data, a configuration was lost, and a new one with another secret would not do.
pub fn is_unfinished(folder: &Folder) -> bool {
    let data = folder.path().join(&Config::default().consensus.data_folder);
    would_overwrite(folder).is_none() && data.symlink_metadata().is_err() && !is_fresh(folder)
}

/// The configuration of a new peer, without the variables.
///
/// # Errors
/// When there is no randomness for the secret.
pub fn new_config(options: &InitOptions) -> Result<Config> {
    let mut config = Config::default();
    config.cluster.secret = match &options.secret {
        Some(secret) => secret.clone(),
        None => Secret::random()?,
    };
    if let Some(name) = &options.peername {
        config.cluster.peername.clone_from(name);
    }
    if options.embedded {
        let swarm_key_file = options.swarm_key.as_ref().map_or("", |_| SWARM_KEY).to_owned();
        config.ipfs = IpfsSection::Embedded(EmbeddedSection { swarm_key_file, ..EmbeddedSection::default() });
        config.cluster.listen_multiaddress.truncate(1);
        // ipfs-cluster's default is to do nothing when a peer dies; with the time of grace that it lacks, a reboot
        // copies nothing, and what its user expects of a cluster holds.
        config.cluster.disable_repinning = false;
        let (heartbeat, election) = (Duration::from_millis(100), Duration::from_millis(400));
        config.consensus = RaftSection {
            heartbeat_timeout: heartbeat,
            election_timeout: election,
            // ipfs-cluster refuses a lease longer than the heartbeat, should the file ever go back there.
            leader_lease_timeout: heartbeat,
            ..RaftSection::default()
        };
    }
    config.consensus.witness = options.witness;
    config.cluster.bootstrap.clone_from(&options.bootstrap);
    if options.loopback {
        super::reach::close(&mut config);
    }
    let mut ids: Vec<String> = options.peers.iter().filter_map(peer_of).map(|id| id.to_string()).collect();
    ids.dedup();
    match options.consensus {
        Consensus::Raft => config.consensus.init_peerset = ids,
        Consensus::Crdt => {
            let mut crdt = CrdtSection::default();
            if !ids.is_empty() {
                crdt.trusted_peers = ids;
            }
            config.crdt = Some(crdt);
        }
    }
    Ok(config)
}

fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// Makes a peer in a folder. Nothing is written when anything is wrong with the options or variables. The
/// caller holds the folder's lock when the folder is not fresh.
///
/// # Errors
/// [`crate::Kind::Conflict`] when there is a configuration and `force` is not set.
pub fn init(folder: &Folder, options: &InitOptions, env: &Env) -> Result<InitReport> {
    if let (Some(path), false) = (would_overwrite(folder), options.force) {
        return Err(Error::conflict(format!(
            "{} exists already; use --force to overwrite it (the identity stays)",
            path.display()
        )));
    }
    if let Some(bad) = options.peers.iter().find(|a| peer_of(a).is_none()) {
        return Err(Error::invalid(format!(
            "the peer address {bad} does not end in /p2p/<peer id>; write it like /ip4/192.168.1.2/tcp/9096/p2p/<peer id>"
        )));
    }
    if options.swarm_key.is_some() && !options.embedded {
        return Err(Error::invalid(
            "a swarm key was given for a peer that works with Kubo: put it into Kubo's own repository, as \
             $IPFS_PATH/swarm.key",
        ));
    }
    let mut config = new_config(options)?;
    let changed = match options.ports {
        Ports::Default => Vec::new(),
        Ports::Free => ports::settle_ports(&mut config)?,
        Ports::Random => ports::random_ports(&mut config)?,
    };
    // The variables come last, as at every load: whoever sets a port by one means it.
    let (config, mut warnings) = config.with_env(env)?;

    folder.create()?;
    let mut messages = Vec::new();
    let had_identity = folder.identity_json().symlink_metadata().is_ok();
    let identity = if had_identity || env.get("CLUSTER_PRIVATEKEY").is_some() {
        let (identity, notice) = Identity::load(folder, None, env)?;
        warnings.extend(notice);
        identity
    } else {
        Identity::generate()?
    };
    // The configuration last: where there is one, the rest is there too, whenever the power goes.
    if !had_identity {
        identity.save_new(folder)?;
    }
    if let Some(key) = &options.swarm_key {
        write_private(&folder.path().join(SWARM_KEY), key.to_text().as_bytes())?;
    }
    let folder = &folder.clone().with_peerstore(&config.cluster.peerstore_file);
    folder.write_peerstore(&options.peers)?;
    config.save(folder)?;
    messages.push(format!("configuration written to {}.", folder.service_json().display()));
    if !had_identity {
        messages.push(format!("new identity written to {}", folder.identity_json().display()));
    }
    let path = folder.peerstore();
    messages.push(match options.peers.len() {
        0 => format!("new empty peerstore written to {}.", path.display()),
        n => format!("peerstore written to {} with {n} entries.", path.display()),
    });
    Ok(InitReport {
        config,
        peer_id: identity.peer_id(),
        new_identity: !had_identity,
        ports: changed,
        messages,
        warnings,
    })
}
