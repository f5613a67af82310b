//! The key of a private IPFS network: `swarm.key` as Kubo reads it, and the one a cluster derives from its secret.
//!
//! IPFS nodes with the same key of 32 bytes (libp2p's pre-shared key, PSK) talk to each other and to nobody else. The
//! file has three lines: `/key/swarm/psk/1.0.0/`, `/base16/` and 64 hexadecimal digits. The embedded node takes the file
//! that `ipfs_connector.embedded.swarm_key_file` names; without one it derives a key from `cluster.secret`, so that the
//! cluster's own secret is on no other wire. A key appears in no message and no `Debug`.

use super::folder::write_new_private;
use super::{Config, Folder, IpfsSection, Network, SECRET_BYTES};
use crate::error::{Context, Error, Result};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;

/// Longest swarm.key that is read, bytes.
const MAX_FILE: u64 = 4 << 10;
/// First line of the file: what it is.
const HEADER: &str = "/key/swarm/psk/1.0.0/";
/// Second line: how the key is written.
const BASE16: &str = "/base16/";

/// A pre-shared key of an IPFS network.
#[derive(Clone, PartialEq, Eq)]
pub struct SwarmKey([u8; SECRET_BYTES]);

impl fmt::Debug for SwarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwarmKey(…)")
    }
}

impl SwarmKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self> {
        let mut key = [0; SECRET_BYTES];
        getrandom::fill(&mut key)
            .map_err(|e| Error::internal(format!("the system gives no random bytes for a swarm key: {e}")))?;
        Ok(SwarmKey(key))
    }

    /// The key of the private network that the IPFS nodes of one cluster form by default.
    pub fn derived(secret: &[u8; SECRET_BYTES]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"pinfold: private network of the IPFS nodes\0");
        hash.update(secret);
        SwarmKey(hash.finalize().into())
    }

    /// Reads the text of a swarm.key.
    pub fn parse(text: &str) -> Option<Self> {
        match text.lines().map(str::trim).collect::<Vec<_>>().as_slice() {
            [HEADER, BASE16, key, ..] => {
                Some(SwarmKey(HEXLOWER_PERMISSIVE.decode(key.as_bytes()).ok()?.try_into().ok()?))
            }
            _ => None,
        }
    }

    /// Reads the file `path`; `key` is the configuration key that names it.
    ///
    /// # Errors
    /// Not readable, too long, or no swarm.key.
    pub fn read(path: &Path, key: &str) -> Result<Self> {
        let what = || format!("{key} {}", path.display());
        let size = std::fs::metadata(path).context(what())?.len();
        if size > MAX_FILE {
            return Err(Error::invalid(format!("{}: {size} bytes is too long for a swarm.key", what())));
        }
        let text = std::fs::read_to_string(path).context(what())?;
        Self::parse(&text).ok_or_else(|| {
            Error::invalid(format!(
                "{}: not a swarm.key (three lines: {HEADER}, {BASE16}, 64 hex digits); make one with `pinfold swarm-key`",
                what()
            ))
        })
    }

    /// The key of the embedded node that this configuration asks for; `None` for a node in the public network, or
    /// without any secret.
    ///
    /// # Errors
    /// A key file that cannot be used; Invalid when the IPFS node is not the embedded one.
    pub fn of_node(config: &Config, folder: &Folder) -> Result<Option<Self>> {
        let IpfsSection::Embedded(node) = &config.ipfs else {
            return Err(Error::invalid(
                "this peer works with an IPFS daemon, which has its key in its own repository ($IPFS_PATH/swarm.key)",
            ));
        };
        match node.network {
            Network::Public => Ok(None),
            Network::Private if node.swarm_key_file.is_empty() => {
                Ok(config.cluster.secret.psk().map(|secret| Self::derived(&secret)))
            }
            Network::Private => {
                let path = config.resolve(folder, &node.swarm_key_file);
                Self::read(&path, "ipfs_connector.embedded.swarm_key_file").map(Some)
            }
        }
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        format!("{HEADER}\n{BASE16}\n{}\n", HEXLOWER.encode(&self.0))
    }

    /// Writes a file of mode 0600 that is not there yet.
    ///
    /// # Errors
    /// Conflict when it is there: a network lives by its key.
    pub fn write_new(&self, path: &Path) -> Result<()> {
        write_new_private(path, self.to_text().as_bytes())
    }

    /// The bytes, for libp2p.
    pub fn psk(&self) -> [u8; SECRET_BYTES] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let key = SwarmKey::generate().expect("a key");
        assert_eq!(SwarmKey::parse(&key.to_text()), Some(key.clone()));
        assert!(!format!("{key:?}").contains(&HEXLOWER.encode(&key.psk())), "a key is never shown");
        let shouted = format!("{HEADER}\r\n{BASE16}\r\n{}", HEXLOWER.encode(&key.psk()).to_uppercase());
        assert_eq!(SwarmKey::parse(&shouted), Some(key), "CRLF, capitals and no last line break are fine");
    }

    #[test]
    fn what_is_no_key_is_none() {
        let digits = "ab".repeat(32);
        for text in [
            String::new(),
            digits.clone(),
            format!("{HEADER}\n/base64/\n{digits}\n"),
            format!("{HEADER}\n{BASE16}\n{}\n", &digits[2..]),
            format!("{HEADER}\n{BASE16}\n{digits}00\n"),
            format!("{HEADER}\n{BASE16}\n{}\n", "zz".repeat(32)),
        ] {
            assert_eq!(SwarmKey::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn the_derived_key_is_not_the_secret_and_never_changes() {
        // Boards of different versions must find each other: this value is part of the protocol.
        let derived = SwarmKey::derived(&[7; 32]);
        assert_ne!(derived.psk(), [7; 32]);
        assert_eq!(HEXLOWER.encode(&derived.psk()[..4]), "b69e2ccc");
    }

    #[test]
    fn a_key_is_never_overwritten_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("swarm.key");
        let key = SwarmKey::generate().expect("a key");
        key.write_new(&path).expect("written");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        let again = SwarmKey::generate().expect("a key").write_new(&path).expect_err("there already");
        assert_eq!(again.kind(), crate::Kind::Conflict);
        assert_eq!(SwarmKey::read(&path, "key").expect("read"), key);
    }
}
