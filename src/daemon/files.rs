//! How many files the daemon may have open: as many as the system lets it.
//!
//! Shells and systemd give a process 1,024 files to begin with, for the sake of old programs that use `select`, and let
//! it ask for more. Every connection is a file, and so is every segment of blocks; running out closes connections of
//! clients that did nothing wrong.

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

/// More than every limit of ours together can use; beyond it only tables of the kernel grow.
const ENOUGH: u64 = 65_536;

/// Raises the soft limit to what the hard one allows. What cannot be raised is left as it is.
pub(super) fn raise_limit() {
    let now = getrlimit(Resource::Nofile);
    // No limit at all is `None`.
    let wanted = now.maximum.map_or(ENOUGH, |hard| hard.min(ENOUGH));
    if now.current.is_some_and(|soft| soft < wanted) {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: now.maximum });
        if let Err(error) = raised {
            log::debug!("the limit of open files stays at {:?}: {error}", now.current);
        }
    }
}
