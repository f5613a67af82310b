//! The release executables for other kinds of boards, and what runs them here.

use std::path::PathBuf;
use std::process::Command;

/// A 64-bit Pi.
pub const AARCH64: &str = "aarch64-unknown-linux-musl";
/// A Pi with a 32-bit system.
pub const ARMV7: &str = "armv7-unknown-linux-musleabihf";
/// A PC: no emulation.
pub const X86_64: &str = "x86_64-unknown-linux-musl";

/// A program that runs the executable of a target; `None`, having said so, without executable or emulator.
pub fn foreign(target: &str) -> Option<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign");
    let output = Command::new(script).args(["--wrapper", target]).output().expect("tests/foreign starts");
    if !output.status.success() {
        super::skip(String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}
