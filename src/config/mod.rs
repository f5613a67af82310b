//! The configuration of a peer: its folder, service.json, identity.json, `CLUSTER_*` variables.
//!
//! A folder holds everything of one peer. [`Folder`] finds, makes and locks it; [`Config`] is its
//! service.json, in ipfs-cluster's shape, typed; [`Identity`] its libp2p key; [`init`] makes a new one;
//! [`Invite`] is what a second peer needs to know of the first.
//!
//! Invariants:
//! - Loading is a function of the file's text and an [`Env`]: defaults, then the file, then the variables,
//!   then checks. It prints nothing: what is worth a word comes back as a list of warnings.
//! - Every message names the key, the value and the fix; secrets appear in none, nor in any `Debug`.
//! - What is not known is kept when the file is written again.
//! - Files with secrets are 0600 from their first byte, and replaced whole or not at all. An identity is
//!   never overwritten.
//!
//! This room uses no other room but the error, the clock and the runtime-free parts of libp2p, and it
//! never opens a connection.

pub mod address;
pub mod edit;
mod env;
mod file;
mod folder;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/targets/config.rs"]
pub(crate) mod fuzz;
mod identity;
pub mod init;
mod keys;
pub mod manual;
mod old;
mod ports;
pub mod reach;
mod schema;
mod setting;
mod swarm_key;
mod token;
mod unknown;
mod upgrade;
mod validate;

#[cfg(test)]
pub(crate) mod tests;

pub use address::{host_port, socket_addresses, HostPort};
pub use env::Env;
pub use file::MAX_FILE_BYTES;
pub use folder::{write_private, Face, Folder, FolderLock, SERVICE_FOLDER};
pub use identity::Identity;
pub use keys::{
    AllocatorSection, ClusterConfig, ConnectionManager, CrdtBatching, CrdtSection, DiskInformer,
    EmbeddedSection, InformerSection, IpfsHttpConfig, IpfsProxyConfig, IpfsSection, MetricsSection,
    MonitorSection, NumPinInformer, Observations, PinQueueInformer, PinTrackerSection, PubSub, RaftSection,
    ResourceManager, RestApiConfig, TagsInformer, TracingSection, MIN_HEARTBEAT,
};
pub use old::Change;
pub use ports::{random_ports, settle_ports, PortChange};
pub use setting::{ByteSize, Credentials, DiskMetric, Hidden, Network, Secret, MAX_ELEMENTS, SECRET_BYTES};
pub use swarm_key::SwarmKey;
pub use token::{Invite, MAX_PEERS as MAX_INVITE_PEERS};
pub use upgrade::{Upgrade, Upgraded};

use crate::error::{Context, Error, Result};
use file::{Lister, Reader, Writer};
use schema::{lookup, Node, Place, Visitor};
use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;

/// service.json, typed. Field by field what the sections say; see [`keys()`] for the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Section `cluster`.
    pub cluster: ClusterConfig,
    /// Section `consensus.raft`; its defaults when the file has only a `crdt` section.
    pub consensus: RaftSection,
    /// Section `consensus.crdt`, if the file has one: Raft runs all the same.
    pub crdt: Option<CrdtSection>,
    /// Section `api.ipfsproxy`; `None` is off.
    pub ipfsproxy: Option<IpfsProxyConfig>,
    /// Section `api.pinsvcapi`; `None` is off.
    pub pinsvcapi: Option<RestApiConfig>,
    /// Section `api.restapi`; `None` is off.
    pub restapi: Option<RestApiConfig>,
    /// Section `ipfs_connector`.
    pub ipfs: IpfsSection,
    /// Section `pin_tracker.stateless`.
    pub pin_tracker: PinTrackerSection,
    /// Section `monitor.pubsubmon`.
    pub monitor: MonitorSection,
    /// Section `allocator.balanced`.
    pub allocator: AllocatorSection,
    /// Section `informer`.
    pub informer: InformerSection,
    /// Section `observations`.
    pub observations: Observations,
    /// Peer id and private key that an old file carries in its `cluster` section.
    pub(crate) old_identity: Option<identity::Stored>,
    /// The file as it was read, with all that is not known here.
    raw: Raw,
}

/// The tree of the file. Its `Debug` is silent, as secrets are in it.
#[derive(Clone, PartialEq)]
struct Raw(Value);

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raw")
    }
}

/// What reading a file gave.
struct Reading {
    config: Config,
    warnings: Vec<String>,
    changes: Vec<Change>,
    /// The file's tree with every key under its present name.
    modern: Value,
}

/// One line of the table of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Dotted path, `cluster.secret`.
    pub path: String,
    /// Environment variable that sets it.
    pub env: String,
    /// Kind of value, in words.
    pub kind: &'static str,
    /// Default, as JSON (or in words, where machines differ).
    pub default: String,
    /// One sentence.
    pub meaning: String,
    /// Unit of a plain number.
    pub unit: Option<&'static str>,
    /// Why it is accepted but not used, if so.
    pub no_effect: Option<&'static str>,
    /// Whether it is left out of a fresh file.
    pub optional: bool,
    /// Whether its value is never shown.
    pub secret: bool,
}

/// The table of all keys, in the order of a fresh file.
pub fn keys() -> &'static [Key] {
    static TABLE: OnceLock<Vec<Key>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut lister = Lister { keys: Vec::new() };
        // A walk that only lists has nothing to fail on.
        let _ = Config::default().visit(&mut lister);
        lister.keys
    })
}

impl Default for Config {
    /// Every section with its defaults, all APIs on, Kubo as the IPFS node: what
    /// `ipfs-cluster-service init --consensus raft` writes, without a secret.
    fn default() -> Self {
        Config {
            cluster: ClusterConfig::default(),
            consensus: RaftSection::default(),
            crdt: None,
            ipfsproxy: Some(IpfsProxyConfig::default()),
            pinsvcapi: Some(RestApiConfig::pinning_service()),
            restapi: Some(RestApiConfig::default()),
            ipfs: IpfsSection::default(),
            pin_tracker: PinTrackerSection::default(),
            monitor: MonitorSection::default(),
            allocator: AllocatorSection::default(),
            informer: InformerSection::default(),
            observations: Observations::default(),
            old_identity: None,
            raw: Raw(Value::Object(serde_json::Map::new())),
        }
    }
}

impl Config {
    /// The one list of sections, in the order of a fresh file.
    fn visit<V: Visitor>(&mut self, v: &mut V) -> Result<()> {
        let at = Place::section;
        let pinning = Some(RestApiConfig::pinning_service());
        self.cluster.visit(&at("cluster"), &ClusterConfig::default(), v)?;
        self.crdt.visit(&at("consensus.crdt"), &None, v)?;
        self.consensus.visit(&at("consensus.raft"), &RaftSection::default(), v)?;
        self.ipfsproxy.visit(&at("api.ipfsproxy"), &None, v)?;
        self.pinsvcapi.visit(&at("api.pinsvcapi"), &pinning, v)?;
        self.restapi.visit(&at("api.restapi"), &None, v)?;
        self.ipfs.visit(&at("ipfs_connector"), &IpfsSection::default(), v)?;
        self.pin_tracker.visit(&at("pin_tracker.stateless"), &PinTrackerSection::default(), v)?;
        self.monitor.visit(&at("monitor.pubsubmon"), &MonitorSection::default(), v)?;
        self.allocator.visit(&at("allocator.balanced"), &AllocatorSection::default(), v)?;
        self.informer.visit(&at("informer"), &InformerSection::default(), v)?;
        self.observations.visit(&at("observations"), &Observations::default(), v)
    }

    /// Loads service.json of a folder, with the variables of `env`, and checks it. Returns the configuration
    /// and what is worth a warning.
    ///
    /// # Errors
    /// A sentence that names the file, the key, the value and the fix.
    pub fn load(folder: &Folder, env: &Env) -> Result<(Config, Vec<String>)> {
        let path = folder.service_json();
        let text = file::read_text(&path)?;
        let (config, mut warnings) = Self::parse(&path.display().to_string(), &text, env)?;
        warnings.extend(folder.readable_by_others());
        Ok((config, warnings))
    }

    /// Like [`Config::load`], for the text of a file that is called `name` in messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(name: &str, text: &str, env: &Env) -> Result<(Config, Vec<String>)> {
        let Reading { config, mut warnings, changes, .. } = Self::read(name, text, env)?;
        old::warn(&changes, &mut warnings);
        Ok((config, warnings))
    }

    /// Like [`Config::load`], with what was done with each key of an older version instead of a word about all.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn inspect(folder: &Folder, env: &Env) -> Result<(Config, Vec<String>, Vec<Change>)> {
        let path = folder.service_json();
        let read = Self::read(&path.display().to_string(), &file::read_text(&path)?, env)?;
        let mut warnings = read.warnings;
        warnings.extend(folder.readable_by_others());
        Ok((read.config, warnings, read.changes))
    }

    fn read(name: &str, text: &str, env: &Env) -> Result<Reading> {
        let raw = file::parse_json(name, text)?;
        if lookup(&raw, "source").is_some() {
            return Err(Error::invalid(format!(
                "{name} says source, a configuration on a web server, which this version does not fetch; \
                 download that file and save it as {name}"
            )));
        }
        let mut warnings = Vec::new();
        let mut modern = raw.clone();
        let old::Old { changes, identity } = old::modernise(&mut modern, &mut warnings);
        let mut config = Config { old_identity: identity, raw: Raw(raw), ..Config::default() };
        let filled = config.fill(&modern, env, &mut warnings);
        filled.map_err(|error| old::explain(error, &changes)).context(name)?;
        Ok(Reading { config, warnings, changes, modern })
    }

    /// Takes over a tree of present keys and the variables, and checks the whole.
    fn fill(&mut self, tree: &Value, env: &Env, warnings: &mut Vec<String>) -> Result<()> {
        validate::shape(tree)?;
        unknown::warn(tree, env, keys(), warnings);
        self.visit(&mut Reader { tree, env, warnings })?;
        validate::fill_gaps(self, tree, warnings);
        validate::check(self, warnings)
    }

    /// Whether both say the same, whatever their files look like.
    fn means(&self, other: &Config) -> bool {
        let bare = |config: &Config| Config { old_identity: None, raw: Raw(Value::Null), ..config.clone() };
        bare(self) == bare(other)
    }

    /// Applies the variables to a configuration that was made here, as at `init`, and checks it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn with_env(self, env: &Env) -> Result<(Config, Vec<String>)> {
        let text = self.to_text()?;
        let (mut config, warnings) = Self::parse("the new configuration", &text, env)?;
        config.raw = self.raw;
        Ok((config, warnings))
    }

    /// The text of the file: what was read, with every known key as it is now.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] if JSON cannot be written.
    pub fn to_text(&self) -> Result<String> {
        let mut tree = self.raw.0.clone();
        let had_raft = lookup(&tree, "consensus.raft").is_some();
        self.clone().visit(&mut Writer { tree: &mut tree })?;
        if self.crdt.is_some() && !had_raft {
            // A file for the other consensus stays one: ipfs-cluster accepts a single section only.
            schema::remove(&mut tree, "consensus.raft");
        }
        match self.ipfs {
            IpfsSection::Http(_) => schema::remove(&mut tree, "ipfs_connector.embedded"),
            IpfsSection::Embedded(_) => schema::remove(&mut tree, "ipfs_connector.ipfshttp"),
        };
        file::to_text(&tree)
    }

    /// Writes service.json into a folder: whole or not at all, readable by the owner only.
    ///
    /// # Errors
    /// Names the file and what the system said.
    pub fn save(&self, folder: &Folder) -> Result<()> {
        let path = folder.service_json();
        write_private(&path, self.to_text()?.as_bytes())
    }

    /// Refuses what would let strangers in: an API that listens beyond this machine without asking for a
    /// password, and a cluster network without a secret beyond loopback (unless `insecure_no_secret`).
    ///
    /// # Errors
    /// Names the key, the address, and the two ways out.
    pub fn check_exposure(&self, insecure_no_secret: bool) -> Result<()> {
        validate::exposure(self, insecure_no_secret)
    }

    /// A path of the configuration, relative to its folder unless it is absolute.
    pub fn resolve(&self, folder: &Folder, path: &str) -> std::path::PathBuf {
        folder.path().join(Path::new(path))
    }
}
