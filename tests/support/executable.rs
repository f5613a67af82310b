//! Which executable the black-box tests run.

use std::path::PathBuf;

/// The executable that cargo has built, or the one that `$PINFOLD_UNDER_TEST` names: one for another kind of board, by a
/// script that runs it emulated (`tests/foreign` makes these), or one out of a package.
pub fn executable() -> PathBuf {
    std::env::var_os("PINFOLD_UNDER_TEST")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_pinfold")), PathBuf::from)
}
