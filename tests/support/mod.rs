//! What the black-box tests share.

#![allow(dead_code)]

pub mod boards;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod executable;
pub mod fake_kubo;
pub mod foreign;
pub mod loop_disk;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Waits until `condition` gives something, at most `limit`; panics with `what` and the last word otherwise.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) if Instant::now() >= deadline => panic!("{what}: not within {limit:?}; last: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Says that a test was skipped, which is a failure where everything must run.
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("PINFOLD_REQUIRE_ALL").is_none(),
        "skipped, but everything must run here: {why}"
    );
    eprintln!("skipped: {why}");
}

/// Copies a folder with all that is in it.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_tree(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("file")),
        }
    }
}

/// The executable of the release before, if it was built. No mark of a skipped test: a shallow clone has no older build to
/// make.
pub fn older_build() -> Option<PathBuf> {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/old/pinfold");
    let path = std::env::var_os("PINFOLD_OLD").map_or_else(usual, PathBuf::from);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("note: there is no older build at {} (see tests/old_build.sh)", path.display());
    None
}

/// The executable of Kubo, if there is one.
pub fn kubo() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PINFOLD_TEST_KUBO") {
        return Some(path.into());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("ipfs")).find(|p| p.is_file())
}
