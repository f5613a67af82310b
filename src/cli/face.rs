//! The name the program was started under, and what follows from it.
//!
//! A symlink named `ipfs-cluster-service` or `ipfs-cluster-ctl` makes the one executable behave as the
//! program of that name: its commands, its flags, its exit codes, its default folder. Scripts find the
//! process by that name, so nothing here may ever change it.

use std::path::{Path, PathBuf};

/// One of the three programs this executable can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Face {
    /// `pinfold`: everything.
    Pinfold,
    /// `ipfs-cluster-service`.
    Service,
    /// `ipfs-cluster-ctl`.
    Ctl,
}

impl Face {
    /// The face for `argv[0]`.
    pub fn of(argv0: &str) -> Face {
        match Path::new(argv0).file_name().and_then(|n| n.to_str()) {
            Some("ipfs-cluster-service") => Face::Service,
            Some("ipfs-cluster-ctl") => Face::Ctl,
            _ => Face::Pinfold,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Face::Pinfold => "pinfold",
            Face::Service => "ipfs-cluster-service",
            Face::Ctl => "ipfs-cluster-ctl",
        }
    }

    /// The folder that is used when none is named: in the home folder, as `$HOME` says.
    pub fn default_folder(self) -> PathBuf {
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
        home.join(if self == Face::Pinfold { ".pinfold" } else { ".ipfs-cluster" })
    }

    /// The exit code for a command line that cannot be understood.
    pub fn usage_exit(self) -> u8 {
        if self == Face::Pinfold {
            2
        } else {
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_face_is_the_last_part_of_the_program_name() {
        assert_eq!(Face::of("/usr/bin/ipfs-cluster-ctl"), Face::Ctl);
        assert_eq!(Face::of("ipfs-cluster-service"), Face::Service);
        for other in ["pinfold", "./target/debug/pinfold", "ipfs-cluster-follow", ""] {
            assert_eq!(Face::of(other), Face::Pinfold, "{other}");
        }
    }
}
