//! The databases of log and state, from outside: whether their meta pages are whole, and the rest of a small one.
//!
//! A first look, by the pages alone, without a lock: a running daemon may write meanwhile, so what looks damaged is looked
//! at again. `pinfold state check` reads everything.

use super::{quoted, Finding};
use crate::config::{Config, Folder};
use crate::store::lmdb::inspect;
use crate::store::pages::Pages;
use std::time::Duration;

/// Looks at a database that contradicts itself before it is called damaged.
const LOOKS: u32 = 5;
/// Between two of them: longer than a commit.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks at both.
pub(super) fn look(folder: &Folder, config: &Config, findings: &mut Vec<Finding>) {
    let data = config.resolve(folder, &config.consensus.data_folder);
    let state = inspect::state_dir(&data).ok().flatten();
    let dirs: Vec<_> = [Some(inspect::log_dir(&data)), state].into_iter().flatten().collect();
    let mut whole = 0;
    for file in dirs.iter().map(|dir| dir.join("data.mdb")).filter(|file| file.exists()) {
        let mut fault = None;
        for look in 0..LOOKS {
            if look > 0 {
                std::thread::sleep(PAUSE);
            }
            fault = Pages::open(&file, None).err();
            if fault.is_none() {
                whole += 1;
                break;
            }
        }
        if let Some(fault) = fault {
            let what = format!("the database {} is damaged: {fault}", file.display());
            let fix = format!("pinfold -c {} state check", quoted(folder.path()));
            findings.push(Finding::fail("data", what, fix));
        }
    }
    if whole > 0 && whole == dirs.len() {
        findings
            .push(Finding::ok("data", "the databases open; `pinfold state check` reads everything in them"));
    }
}
