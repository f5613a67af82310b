//! The small files and the moves of whole folders: the configuration, the identity, addresses, an import of the
//! pinset, backups, and `state upgrade` of data that 0.1.0 wrote.
//!
//! Each is the old one or the new one, whole; once it was acknowledged it is the new one; and in between nothing looks
//! like a peer that never was.

use super::disk::{Disk, Random};
use super::search::{Contract, Failure, Report, Search, Verdict};
use super::trace::{Child, Recording};
use crate::support::copy_tree;
use pinfold::clock::Timestamp;
use pinfold::config::{init, Config, Env, Folder, Identity};
use pinfold::daemon::{state_import, ImportOverrides};
use pinfold::ipfs::unixfs::hash::{cid_of, RAW};
use pinfold::state::{transfer, Machine, Pin, Pins};
use pinfold::store::upgrade::{plan, Upgrade};
use pinfold::store::{self, Options, StateStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Versions of the configuration, and imports.
const ROUNDS: u64 = 8;

fn folder(root: &Path) -> Folder {
    Folder::new(root.join("home/peer"))
}

fn data(root: &Path) -> PathBuf {
    folder(root).path().join("raft")
}

/// The pinset of an import, as its file; import `n` has `n` pins.
fn pinset(n: u64) -> Vec<u8> {
    let state = store::memory::MemoryState::new();
    let pin = |i: u64| Ok(Pin::new(cid_of(1, RAW, &[i as u8]), Timestamp::ZERO));
    let conf = raft::eraftpb::ConfState::default();
    let at = pinfold::state::Applied { index: 1, term: 1 };
    pinfold::state::seed(&state, (0..n).map(pin), &[], &conf, 1, at).expect("memory");
    let mut out = Vec::new();
    transfer::export(&Pins::new(Arc::new(state)), &mut out).expect("memory");
    out
}

fn text(error: pinfold::Error) -> String {
    error.to_string()
}

/// The child's work: rounds of everything.
pub fn child() {
    let Some(child) = Child::here() else { return };
    let seed: u64 = child.work.parse().expect("a seed");
    let mut random = Random::new(seed);
    let folder = folder(&child.root);
    let options = init::InitOptions { embedded: true, peername: Some("name 0".into()), ..Default::default() };
    let report = init::init(&folder, &options, &Env::empty()).expect("init");
    child.mark(&format!("peer {}", report.peer_id));
    let (mut config, _) = Config::load(&folder, &Env::empty()).expect("config");
    let mut imports = 0;
    for round in 1..=ROUNDS {
        match random.below(3) {
            0 => {}
            1 => {
                folder
                    .write_peerstore(&["/ip4/192.0.2.1/tcp/9096".parse().expect("address")])
                    .expect("peerstore");
            }
            _ => {
                config.cluster.peername = format!("name {round}");
                child.mark(&format!("C{round}"));
                config.save(&folder).expect("save");
                child.mark(&format!("c{round}"));
            }
        }
        imports += 1;
        child.mark(&format!("I{imports}"));
        let input = pinset(imports);
        state_import(&folder, &mut &input[..], &ImportOverrides::default()).expect("import");
        child.mark(&format!("i{imports}"));
        let (_, state) = store::open(&data(&child.root)).expect("stores");
        let backups = folder.path().join("backups");
        transfer::backup(&Pins::new(Arc::new(state)), &backups).expect("backup");
        child.mark(&format!("k{imports}"));
    }
}

/// What the child has said.
#[derive(Clone, Debug, Default)]
pub struct Known {
    peer: Option<String>,
    /// Acknowledged and begun.
    config: (u64, u64),
    import: (u64, u64),
    backup: u64,
    marks: u64,
}

/// See [`Contract`].
struct Files;

/// The pins in a data folder.
fn pins_in(data: &Path) -> Result<u64, String> {
    let (_, state) = store::open(data).map_err(text)?;
    let state: Arc<dyn StateStore> = Arc::new(state);
    Machine::open(state.clone()).and_then(|machine| machine.verify()).map_err(text)?;
    Ok(state.count(store::Table::Pins))
}

impl Contract for Files {
    type Known = Known;

    fn note(&self, known: &mut Known, mark: &str) {
        known.marks += 1;
        let number = || mark[1..].parse::<u64>().unwrap_or(0);
        match mark.as_bytes().first() {
            Some(b'p') => known.peer = mark.strip_prefix("peer ").map(str::to_owned),
            Some(b'C') => known.config.1 = number(),
            Some(b'c') => known.config.0 = number(),
            Some(b'I') => known.import.1 = number(),
            Some(b'i') => known.import.0 = number(),
            Some(b'k') => known.backup = number(),
            _ => {}
        }
    }

    fn level(&self, known: &Known) -> u64 {
        known.marks
    }

    fn check(&self, root: &Path, known: &Known, _random: Random) -> Result<Verdict, String> {
        let folder = folder(root);
        let Some(peer) = &known.peer else {
            // A first start that was cut off: done again, it works.
            if !folder.service_json().exists() {
                let options = init::InitOptions { embedded: true, ..Default::default() };
                init::init(&folder, &options, &Env::empty()).map_err(|e| format!("init again: {e}"))?;
            }
            Config::load(&folder, &Env::empty()).map_err(text)?;
            Identity::load(&folder, None, &Env::empty()).map_err(text)?;
            return Ok(Verdict::Kept);
        };
        let (config, _) = Config::load(&folder, &Env::empty()).map_err(|e| format!("service.json: {e}"))?;
        let (identity, _) =
            Identity::load(&folder, None, &Env::empty()).map_err(|e| format!("identity: {e}"))?;
        if identity.peer_id().to_string() != *peer {
            return Err("another identity".into());
        }
        let name = config.cluster.peername.strip_prefix("name ").and_then(|n| n.parse::<u64>().ok());
        if name != Some(known.config.0) && name != Some(known.config.1) {
            return Err(format!("service.json is of round {name:?} and not {:?}", known.config));
        }
        let (done, begun) = known.import;
        let data = data(root);
        let moved = folder.path().join("raft.old.0");
        let pins = if data.exists() {
            pins_in(&data)?
        } else if done == 0 || begun > done && moved.exists() {
            // Between the old one's going and the new one's coming.
            if done == 0 {
                0
            } else {
                pins_in(&moved)?
            }
        } else {
            return Err(format!("import {done} was done and the data folder is gone"));
        };
        if pins != done && pins != begun {
            return Err(format!("{pins} pins are there; import {done} was done, {begun} begun"));
        }
        let backup = folder.path().join(format!("backups/pinset-{:06}.ndjson", known.backup));
        if known.backup > 0 && std::fs::read(&backup).ok() != Some(pinset(known.backup)) {
            return Err(format!("{} is not whole", backup.display()));
        }
        Ok(Verdict::Kept)
    }
}

/// Records the rounds and searches their images.
///
/// # Errors
/// The first image that breaks the contract.
pub fn search(seed: u64, images: u64, only: Option<(usize, usize)>) -> Result<Report, Box<Failure>> {
    recorded("files", "child_files", seed, images, only, &Files, |_| {})
}

fn recorded<C: Contract>(
    name: &str,
    child: &str,
    seed: u64,
    images: u64,
    only: Option<(usize, usize)>,
    contract: &C,
    prepare: impl FnOnce(&Path),
) -> Result<Report, Box<Failure>> {
    let broken = |message: String| Box::new(Failure { message, after: 0 });
    let folder = super::search::fast_folder();
    let recording = Recording::new(folder.path());
    prepare(&recording.root);
    let before = Disk::with(&recording.root);
    recording.run(child, &seed.to_string()).map_err(broken)?;
    let events = recording.events().map_err(broken)?;
    Search { name, seed, before: &before, events: &events, contract, images, only }.run()
}

// `state upgrade`.

const OPTIONS: Options = Options { map_size: 1 << 20, map_limit: 1 << 30, reserve: 0 };
/// What the data that 0.1.0 wrote has.
const PINS: u64 = 9;

/// The child that upgrades.
pub fn child_upgrade() {
    let Some(child) = Child::here() else { return };
    let data = child.root.join("raft");
    let Ok(Upgrade::Needed(plan)) = plan(&data, &OPTIONS) else { panic!("nothing to upgrade") };
    plan.run(&OPTIONS, |_| Ok(())).expect("the upgrade");
    child.mark("done");
}

struct Upgraded;

impl Contract for Upgraded {
    type Known = bool;

    fn note(&self, known: &mut bool, mark: &str) {
        *known |= mark == "done";
    }

    fn level(&self, known: &bool) -> u64 {
        u64::from(*known)
    }

    fn check(&self, root: &Path, done: &bool, _random: Random) -> Result<Verdict, String> {
        let data = root.join("raft");
        if !data.exists() && store::open(&data).is_ok() {
            return Err("missing data was taken for a fresh start".into());
        }
        match plan(&data, &OPTIONS).map_err(text)? {
            Upgrade::NoData => return Err("the data is gone".into()),
            Upgrade::Needed(_) if *done => return Err("the upgrade was done, and is to be done".into()),
            Upgrade::Needed(plan) => plan.run(&OPTIONS, |_| Ok(())).map_err(text)?,
            Upgrade::Current { .. } => {}
        }
        match pins_in(&data)? {
            PINS => {}
            other => return Err(format!("{other} pins")),
        }
        let backup = root.join("raft.format1.0");
        if !backup.exists() {
            return Err("the backup is gone".into());
        }
        Ok(Verdict::Kept)
    }
}

/// Records an upgrade and searches its images.
///
/// # Errors
/// The first image that breaks the contract.
pub fn search_upgrade(seed: u64, images: u64, only: Option<(usize, usize)>) -> Result<Report, Box<Failure>> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format1/raft");
    recorded("upgrade", "child_upgrade", seed, images, only, &Upgraded, |root| {
        copy_tree(&fixture, &root.join("raft"))
    })
}
