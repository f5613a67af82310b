//! What the black-box tests share.

#![allow(dead_code)]

pub mod boards;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod fake_kubo;

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

/// The executable of Kubo, if there is one.
pub fn kubo() -> Option<std::path::PathBuf> {
    if let Some(path) = std::env::var_os("PINFOLD_TEST_KUBO") {
        return Some(path.into());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("ipfs")).find(|p| p.is_file())
}
