//! Wiring and life cycle: the order of start and stop, signals, systemd; and the offline commands.
//!
//! Start: lock, configuration, identity, stores, host, IPFS node, membership (found, join or go on), tracker,
//! cluster, API, ready. Whatever fails on the way ends the process with a sentence and a non-zero
//! code; nothing is left half-started, because nothing outlives the process. Stop is the same backwards,
//! each step within a limit, closing everything within [`STOP_LIMIT`]; a stop that leaves the cluster first takes as
//! long as that takes, and the export of the pins at the very end as long as there are pins.

mod build;
mod enter;
mod files;
mod fresh;
mod import;
mod legacy;
mod nearby;
mod notify;
mod offline;
mod pulse;
mod reach;
mod recover;
pub(crate) mod run;
mod scrub;
mod signals;
mod switch;
mod upgrade;
mod witness;

pub use import::{state_import, ImportOverrides, Imported};
pub use offline::{invite, open, state_cleanup, state_export};
pub use recover::{look, majority_of, state_recover, Done, Look, Offer};
pub use run::run;
pub use upgrade::{state_upgrade, Upgraded};

use crate::config::{Folder, SwarmKey};
use libp2p::Multiaddr;
use std::io::Write;
use std::time::Duration;

/// A line for the person who started the daemon. One that nobody reads (a closed pipe, a full disk behind a
/// redirection) is lost: it must not end a peer, as `println!` would.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Closing everything takes at most this long in a clean stop; what is not done by then is cut.
pub const STOP_LIMIT: Duration = Duration::from_secs(3);

/// How the daemon was asked to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunMode {
    /// `daemon`: the folder must have been initialised.
    Daemon,
    /// `up`: initialise what is missing, then run.
    Up,
    /// `join TOKEN`: initialise with the token's secret, join, then run.
    Join(Join),
}

/// How to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// From `invite`.
    pub token: String,
    /// Stop as soon as the peer is in: a service runs it from then on.
    pub once: bool,
    /// Give up a cluster of its own that holds pins.
    pub force: bool,
}

/// What `up` and `join` put into a fresh folder; without effect on one that is initialised.
#[derive(Clone, Debug, Default)]
pub struct FreshOptions {
    /// Work with Kubo beside the peer instead of the embedded IPFS node.
    pub kubo: bool,
    /// Key of the embedded node's private network.
    pub swarm_key: Option<SwarmKey>,
    /// Make it a witness. On a folder that is initialised, service.json must say the same.
    pub witness: bool,
    /// Let it listen to this machine only.
    pub loopback: bool,
}

/// Options of `daemon`, `up` and `join`.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Where everything is.
    pub folder: Folder,
    /// Peers to join through, with `/p2p/…`.
    pub bootstrap: Vec<Multiaddr>,
    /// Leave the cluster at the stop, whatever the configuration says.
    pub leave: bool,
    /// Bring older data to the present format first (`state upgrade`), without asking.
    pub upgrade: bool,
    /// Run without a secret although others can reach the port.
    pub insecure_no_secret: bool,
    /// How to start.
    pub mode: RunMode,
    /// What a fresh folder gets.
    pub fresh: FreshOptions,
}
