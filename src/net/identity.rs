//! Identities: the key pair that a peer id is made of.
//!
//! In identity files a private key is the base64 of libp2p's protobuf (`CAES…` Ed25519, `CAAS…` RSA, as
//! ipfs-cluster and Kubo write it). [`Identity`] keeps that text beside the key, because RSA keys cannot be
//! encoded again by the library, and because what was read must be written back unchanged.
//!
//! The text is a secret: it has no `Debug`, and no error message contains any of it.

use crate::error::{Error, Result};
use data_encoding::BASE64;
use libp2p::identity::{KeyType, Keypair};
use libp2p::PeerId;
use std::fmt;

/// Longest private key text that is looked at (RSA with 8,192 bits takes about 6,200 bytes).
const LONGEST_KEY: usize = 16 << 10;

/// A key pair, its peer id and its text form.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    text: String,
}

impl Identity {
    /// A new Ed25519 identity.
    pub fn generate() -> Result<Identity> {
        let keypair = Keypair::generate_ed25519();
        let encoded = keypair
            .to_protobuf_encoding()
            .map_err(|error| Error::internal(format!("a new identity cannot be encoded: {error}")))?;
        Ok(Identity { keypair, text: BASE64.encode(&encoded) })
    }

    /// Reads a private key as identity files have it.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] with what is wrong, never with a part of the key.
    pub fn from_base64(text: &str) -> Result<Identity> {
        let text = text.trim();
        if text.len() > LONGEST_KEY {
            return Err(Error::invalid(format!(
                "the private key is longer than {LONGEST_KEY} bytes; it is not a libp2p key"
            )));
        }
        let bytes = BASE64
            .decode(text.as_bytes())
            .map_err(|error| Error::invalid(format!("the private key is not base64: {}", error.kind)))?;
        let keypair = Keypair::from_protobuf_encoding(&bytes).map_err(|_| {
            Error::invalid("the private key is not a libp2p key; Ed25519 (\"CAES…\") and RSA (\"CAAS…\") keys can be read")
        })?;
        match keypair.key_type() {
            KeyType::Ed25519 | KeyType::RSA => Ok(Identity { keypair, text: text.to_owned() }),
            other => {
                Err(Error::invalid(format!("{other:?} identities are not supported; use Ed25519 or RSA")))
            }
        }
    }

    /// The private key as identity files have it. Keep it secret.
    pub fn to_base64(&self) -> &str {
        &self.text
    }

    /// The key pair.
    pub fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// The peer id.
    pub fn peer_id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer_id", &self.peer_id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_of_ipfs_cluster_load_and_are_written_back_unchanged() {
        let golden: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../tests/golden/identities.json")).expect("json");
        assert_eq!(golden.len(), 2);
        for entry in golden {
            let text = entry["private_key"].as_str().expect("key");
            let identity = Identity::from_base64(&format!("{text}\n")).expect("identity");
            assert_eq!(identity.peer_id().to_string(), entry["id"].as_str().expect("id"));
            assert_eq!(identity.to_base64(), text);
            let signed = identity.keypair().sign(b"words").expect("sign");
            assert!(identity.keypair().public().verify(b"words", &signed));
        }
    }

    #[test]
    fn a_new_identity_is_ed25519_and_loads_again() {
        let identity = Identity::generate().expect("identity");
        assert!(identity.to_base64().starts_with("CAES"));
        assert!(identity.peer_id().to_string().starts_with("12D3KooW"));
        let again = Identity::from_base64(identity.to_base64()).expect("again");
        assert_eq!(again.peer_id(), identity.peer_id());
        assert!(!format!("{identity:?}").contains(identity.to_base64()));
    }

    #[test]
    fn bad_keys_are_refused_without_telling_any_of_them() {
        let cut = &Identity::generate().expect("identity").to_base64()[..40].to_owned();
        for bad in ["", "CAES", "not base64!", "AAAA", cut, &"A".repeat(LONGEST_KEY + 1)] {
            let error = Identity::from_base64(bad).expect_err("bad key");
            assert_eq!(error.kind(), crate::Kind::Invalid, "{error}");
            assert!(bad.len() < 5 || !error.message().contains(bad));
        }
    }
}
