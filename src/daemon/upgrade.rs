//! `state upgrade`: a stopped peer's data in the format of this program; and what a daemon says that meets older data.

use crate::config::{Config, Env, Face, Folder};
use crate::consensus::bootstrap::goes_on;
use crate::error::{Error, Kind, Result};
use crate::state::Machine;
use crate::store::upgrade::{plan, Plan, Upgrade};
use crate::store::{self, Options, StateStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `state upgrade` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// There is no data yet: the first start makes it.
    NoData,
    /// Nothing was to be done: the data has this format. With a path, an upgrade that had been cut off at its very end
    /// was finished, and that is where the old data is.
    Current(u32, Option<PathBuf>),
    /// The person did not agree.
    Declined,
    /// This was done.
    Done(Plan),
}

/// Brings the data of a stopped peer to the present format, asking `agree` before anything is changed.
///
/// # Errors
/// The folder is in use, the data is damaged or of a newer pinfold, the disk is full; the data is then what it was.
pub fn state_upgrade(folder: &Folder, agree: &mut dyn FnMut(&Plan) -> Result<bool>) -> Result<Upgraded> {
    let _lock = folder.lock("state upgrade")?;
    let (config, _) = Config::load(folder, &Env::process())?;
    upgrade(&config.resolve(folder, &config.consensus.data_folder), agree)
}

/// The same for the data of a folder whose lock is held.
pub(super) fn upgrade(data: &Path, agree: &mut dyn FnMut(&Plan) -> Result<bool>) -> Result<Upgraded> {
    let options = Options::default();
    let plan = match plan(data, &options)? {
        Upgrade::NoData => return Ok(Upgraded::NoData),
        Upgrade::Current { format, finished } => return Ok(Upgraded::Current(format, finished)),
        Upgrade::Needed(plan) => plan,
    };
    if !agree(&plan)? {
        return Ok(Upgraded::Declined);
    }
    plan.run(&options, verify)?;
    Ok(Upgraded::Done(plan))
}

/// Opens a copy as a daemon would, and holds its rows against the digest that the old build kept of them.
fn verify(copy: &Path) -> Result<()> {
    let (log, state) = store::open(copy)?;
    let state: Arc<dyn StateStore> = Arc::new(state);
    Machine::open(state.clone())?.verify()?;
    goes_on(&log, state.applied()).map(|_| ())
}

/// What opening the data met; for older data, with the command that brings it forward, as it has to be typed.
pub(super) fn explain(error: Error, folder: &Folder, data: &Path) -> Error {
    if error.kind() != Kind::Version {
        return error;
    }
    match plan(data, &Options::default()) {
        Ok(Upgrade::Needed(Plan { from, to, .. })) => Error::version(format!(
            "the data in {} has the older format {from}, and pinfold {} needs format {to}: run `{}` (it keeps the old \
             data as a backup), then start again",
            data.display(),
            crate::VERSION,
            command(folder)
        )),
        _ => error,
    }
}

/// The command for this folder.
fn command(folder: &Folder) -> String {
    if Folder::find(None, Face::Pinfold).is_ok_and(|usual| usual == *folder) {
        return "pinfold state upgrade".to_owned();
    }
    let path = folder.path().display().to_string();
    let plain = path.chars().all(|c| c.is_alphanumeric() || "/._-+,:@%".contains(c));
    let path = if plain { path } else { format!("'{}'", path.replace('\'', "'\\''")) };
    format!("pinfold -c {path} state upgrade")
}
