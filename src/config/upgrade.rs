//! `config upgrade`: today's service.json from one of any age.
//!
//! The new file means exactly what the old one meant: it is written from what was read, with every key that a
//! fresh file has, in a fresh file's order, and what is not known stays. Variables have no part in it, or the
//! value of one start would be there for ever.
//!
//! [`Upgrade::plan`] only reads. [`Upgrade::apply`] writes in an order in which every power cut leaves a folder
//! that starts: first the backup, then identity.json, then service.json, each whole or not at all. It never
//! overwrites a backup or an identity. Done twice, the second time finds nothing to do.

use super::file;
use super::folder::{write_new_private, write_private};
use super::identity::{Identity, Stored};
use super::old::Change;
use super::schema::{insert, lookup, remove};
use super::{keys, Config, Env, Folder, Raw, Reading};
use crate::error::{Context, Error, Kind, Result};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// The most backups of one file: whoever has more keeps them on purpose, and elsewhere.
const MAX_BACKUPS: usize = 1000;

/// What an upgrade would do, or nothing.
#[derive(Debug)]
pub struct Upgrade {
    /// What moves, goes and comes, in the order of the file.
    pub changes: Vec<Change>,
    /// What is worth a warning all the same.
    pub warnings: Vec<String>,
    before: Hidden,
    after: Hidden,
    identity: Option<Identity>,
}

/// A text with secrets in it.
struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden")
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// The old file, as it was.
    pub backup: PathBuf,
    /// identity.json, when it was made from what service.json carried.
    pub identity: Option<PathBuf>,
}

impl Upgrade {
    /// Reads service.json of a folder and says what an upgrade would do.
    ///
    /// # Errors
    /// As [`Config::load`]: a file with a mistake is not upgraded.
    pub fn plan(folder: &Folder) -> Result<Upgrade> {
        let path = folder.service_json();
        let before = file::read_text(&path)?;
        let name = path.display().to_string();
        let Reading { mut config, mut warnings, mut changes, mut modern } =
            Config::read(&name, &before, &Env::empty())?;
        warnings.extend(folder.readable_by_others());
        if lookup(&modern, "consensus.raft").is_some() && remove(&mut modern, "consensus.crdt").is_some() {
            config.crdt = None;
            let (key, why) = ("consensus.crdt".to_owned(), "consensus.raft is there, and used".to_owned());
            changes.push(Change::Dropped { key, why });
        }
        let identity = config.old_identity.take();
        let present = folder.identity_json().symlink_metadata().is_ok();
        let identity = match identity {
            Some(old) if present => {
                another_identity(folder, &old, &mut changes)?;
                None
            }
            Some(old) => Some(Identity::from_stored("service.json (cluster.id, cluster.private_key)", &old)?),
            None => None,
        };
        config.raw = Raw(modern.clone());
        let written = file::parse_json("the upgraded configuration", &config.to_text()?)?;
        changes.extend(added(&modern, &written));
        let after = file::to_text(&in_order(written))?;
        // What is written must load, and mean the same.
        let again = Config::read("the upgraded configuration", &after, &Env::empty())?;
        if !again.changes.is_empty() || !again.config.means(&config) {
            return Err(Error::internal(format!(
                "upgrading {name} would change what it means; it was left alone"
            )));
        }
        Ok(Upgrade { changes, warnings, before: Hidden(before), after: Hidden(after), identity })
    }

    /// Whether there is anything to do.
    pub fn is_needed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The new text. It holds secrets.
    pub fn text(&self) -> &str {
        &self.after.0
    }

    /// Writes the backup, identity.json and service.json. The caller holds the folder's lock.
    ///
    /// # Errors
    /// Names the file and what the system said; service.json is then as it was.
    pub fn apply(&self, folder: &Folder) -> Result<Upgraded> {
        let backup = back_up(folder, self.before.0.as_bytes())?;
        if let Some(identity) = &self.identity {
            identity.save_new(folder)?;
        }
        write_private(&folder.service_json(), self.after.0.as_bytes())?;
        Ok(Upgraded { backup, identity: self.identity.as_ref().map(|_| folder.identity_json()) })
    }
}

/// Where there is an identity.json, it has always been the one that counts.
fn another_identity(folder: &Folder, old: &Stored, changes: &mut [Change]) -> Result<()> {
    let (kept, _) = Identity::load(folder, None, &Env::empty())?;
    if kept.peer_id().to_string() == old.id.trim() {
        return Ok(());
    }
    for change in changes {
        if let Change::Moved { from, to } = change {
            if to == "identity.json" {
                let why = format!("identity.json is there and says {}", kept.peer_id());
                *change = Change::Dropped { key: from.clone(), why };
            }
        }
    }
    Ok(())
}

/// Copies the old text to the first free `service.json.bak.N`.
fn back_up(folder: &Folder, bytes: &[u8]) -> Result<PathBuf> {
    for n in 0..MAX_BACKUPS {
        let path = folder.path().join(format!("service.json.bak.{n}"));
        match write_new_private(&path, bytes) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == Kind::Conflict => {}
            Err(error) => return Err(error).context("backing up service.json"),
        }
    }
    Err(Error::conflict(format!(
        "{} holds {MAX_BACKUPS} backups of service.json already; move some of them away",
        folder.path().display()
    )))
}

/// The keys that are in the new file and were not in the old one, not even under another name.
fn added(before: &Value, after: &Value) -> Vec<Change> {
    let new = keys().iter().filter(|key| get(before, &key.path).is_none());
    new.filter_map(|key| {
        let value = get(after, &key.path)?;
        let value = if key.secret && !value.is_null() { "(not shown)".to_owned() } else { value.to_string() };
        Some(Change::Added { key: key.path.clone(), value })
    })
    .collect()
}

/// The value at a dotted path, `null` included.
fn get<'v>(tree: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(tree, |at, name| at.get(name))
}

/// The same tree in the order of a fresh file; what is not in the table comes last in its section.
fn in_order(tree: Value) -> Value {
    let mut ordered = Value::Object(Map::new());
    for key in keys() {
        if let Some(value) = get(&tree, &key.path) {
            insert(&mut ordered, &key.path, value.clone());
        }
    }
    rest(&mut ordered, tree);
    ordered
}

/// Adds what is in `from` and not in `to`.
fn rest(to: &mut Value, from: Value) {
    let (Value::Object(to), Value::Object(from)) = (to, from) else { return };
    for (name, value) in from {
        match to.get_mut(&name) {
            Some(there) => rest(there, value),
            None => drop(to.insert(name, value)),
        }
    }
}
