//! `state import`: the pinset of a file becomes the state of a stopped peer.
//!
//! The new state is made beside the old one and takes its place only when the whole file was read and found good, so
//! that a bad file, a full disk or a power cut changes nothing. The old data is rotated away, not deleted.
//!
//! Holders are taken over as the file names them: peers that moved with their identities hold what they held. The
//! cluster treats a holder that is no member as one that is gone for good, and makes its copies elsewhere.

use crate::config::{Config, Env, Folder, Identity};
use crate::consensus::{bootstrap, Start};
use crate::error::{Context, Error, Result};
use crate::net::split_p2p;
use crate::state::{seed, transfer, Machine, Pin};
use crate::store::{self, rotate, LogBatch, LogStore, StateStore};
use libp2p::PeerId;
use raft::eraftpb::HardState;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How `state import` is to treat the pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOverrides {
    /// Fewest copies; 0 leaves them as they are.
    pub replication_min: i32,
    /// Most copies; 0 leaves them as they are.
    pub replication_max: i32,
    /// Holders; empty leaves them as they are.
    pub allocations: Vec<PeerId>,
    /// Drop holders that this folder does not know; the cluster allocates the pins anew.
    pub reallocate: bool,
    /// Import what is good of a file in which something is not.
    pub skip_bad: bool,
}

/// How an import went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What was found in the file.
    pub report: transfer::Report,
    /// Whether it became the state. Not, when something was bad and was not to be skipped; then nothing has changed.
    pub done: bool,
    /// Pins in the state now: of two of the same CID in the file the later one stays.
    pub pins: u64,
    /// Holders that this folder does not know, and how many pins name them.
    pub strangers: BTreeMap<PeerId, u64>,
    /// Where the data is that was there before.
    pub rotated: Option<PathBuf>,
}

/// Replaces the state of this peer by the pins read, all or nothing: a one-peer cluster with exactly these
/// pins. The present data is rotated away, not deleted.
///
/// # Errors
/// The file or the folder cannot be read or written, or the folder is in use; nothing has changed then.
pub fn state_import(folder: &Folder, input: &mut dyn Read, overrides: &ImportOverrides) -> Result<Imported> {
    let _lock = folder.lock("state import")?;
    let (config, _) = Config::load(folder, &Env::process())?;
    let (identity, _) = Identity::load(folder, Some(&config), &Env::process())?;
    let known = known_peers(folder, &identity);
    let set = |n: i32| (n != 0).then_some(n);
    let options = transfer::ImportOptions {
        replication_min: set(overrides.replication_min),
        replication_max: set(overrides.replication_max),
        allocations: (!overrides.allocations.is_empty()).then(|| overrides.allocations.clone()),
        default_replication: (config.cluster.replication_factor_min, config.cluster.replication_factor_max),
        keep_holders: (overrides.reallocate && overrides.allocations.is_empty()).then(|| known.clone()),
        keep_going: true,
    };
    let data = config.resolve(folder, &config.consensus.data_folder);
    let fresh = data.with_extension("importing");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)
            .context(format!("cannot remove the half-done import {}", fresh.display()))?;
    }
    let mut pins = transfer::import(input, options);
    let founded = found_with(&fresh, &identity, &config.cluster.peername, pins.by_ref());
    let report = pins.into_report();
    let done = founded.is_ok() && (report.fault_count == 0 || overrides.skip_bad);
    if !done {
        // Nothing has changed but for this scratch folder; a leftover is removed by the next import too.
        let _ = std::fs::remove_dir_all(&fresh);
    }
    let pins = founded?;
    let strangers =
        report.holders.clone().into_iter().filter(|(holder, _)| !known.contains(holder)).collect();
    if done {
        super::enter::forget_removal(folder);
    }
    let rotated = if done { replace(&data, &fresh, config.consensus.backups_rotate as usize)? } else { None };
    Ok(Imported { report, done, pins, strangers, rotated })
}

/// Puts the new data in place of the old.
fn replace(data: &Path, fresh: &Path, keep: usize) -> Result<Option<PathBuf>> {
    let rotated = if data.exists() { rotate::rotate(data, keep)? } else { None };
    std::fs::rename(fresh, data)
        .context(format!("cannot put the imported state in place at {}", data.display()))?;
    // Without this a power cut could leave neither name, and a peer that thinks it is new.
    crate::durable::sync_folder(data.parent().unwrap_or(data))?;
    Ok(rotated)
}

/// This peer, and those whose addresses it has kept: the members that are to come back.
fn known_peers(folder: &Folder, identity: &Identity) -> BTreeSet<PeerId> {
    let kept = folder.read_peerstore().map(|(addresses, _)| addresses).unwrap_or_default();
    let kept = kept.iter().filter_map(|address| split_p2p(address).ok()).map(|(peer, _)| peer);
    kept.chain([identity.peer_id()]).collect()
}

/// A data directory of a one-peer cluster whose state is exactly these pins, as a snapshot would have left it:
/// whoever joins later gets them by snapshot. How many pins there are.
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
    seed(&*state, pins, &machine.members(), &machine.conf_state(), machine.cluster_version(), at)?;
    let hard_state = HardState { term: at.term, commit: at.index, ..HardState::default() };
    log.append(LogBatch { entries: Vec::new(), hard_state: Some(hard_state), reset_to: Some(at) })?;
    Ok(state.count(store::Table::Pins))
}
