//! identity.json: who this peer is, for ever.
//!
//! `{"id": "12D3…", "private_key": "<base64 of libp2p's protobuf>"}`, as ipfs-cluster writes it. New ones
//! are Ed25519; RSA, from ipfs-cluster before 0.10, is read and kept as it is. The id must be that of the
//! key: a file put together from two peers would otherwise make the cluster see a stranger.
//!
//! An identity is never overwritten, by nothing: losing it means losing the place in the cluster.

use super::env::Env;
use super::file::read_text;
use super::folder::{write_new_private, Folder};
use crate::error::{Context, Error, Result};
use data_encoding::BASE64;
use libp2p::identity::Keypair;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest private key that is read, in base64: RSA with 8192 bits has some 6,500.
const MAX_KEY_TEXT: usize = 16 * 1024;

/// The file's two texts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) private_key: String,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored({})", self.id)
    }
}

/// A peer's key pair and the id that follows from it.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    /// As in the file: RSA keys can be read and not be encoded again.
    private_key: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id())
    }
}

impl Identity {
    /// A new Ed25519 identity.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] if the key cannot be encoded.
    pub fn generate() -> Result<Self> {
        let keypair = Keypair::generate_ed25519();
        let bytes = keypair
            .to_protobuf_encoding()
            .map_err(|e| Error::internal(format!("encoding a new Ed25519 key: {e}")))?;
        Ok(Identity { keypair, private_key: BASE64.encode(&bytes) })
    }

    /// The key pair.
    pub fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// The peer id.
    pub fn peer_id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }

    /// Loads the identity of a folder. `CLUSTER_ID` and `CLUSTER_PRIVATEKEY` win over the file. Where there is
    /// none and the configuration is an old one that carries it, it is moved into identity.json; the second
    /// value then says so.
    ///
    /// # Errors
    /// Names the file and the fix.
    pub fn load(
        folder: &Folder,
        config: Option<&super::Config>,
        env: &Env,
    ) -> Result<(Self, Option<String>)> {
        let path = folder.identity_json();
        let name = path.display().to_string();
        let mut notice = None;
        let mut stored = if path.exists() {
            Some(Self::parse_file(&name, &read_text(&path)?)?)
        } else if let Some(old) = config.and_then(|config| config.old_identity.clone()) {
            let identity = Self::from_stored("service.json (cluster.id, cluster.private_key)", &old)?;
            identity.save_new(folder)?;
            notice = Some(format!(
                "NOTICE: cluster.id and cluster.private_key of service.json were copied to {name}, where they belong \
                 now; remove them from service.json"
            ));
            Some(old)
        } else {
            None
        };
        let mut source = name.clone();
        match (env.get("CLUSTER_ID"), env.get("CLUSTER_PRIVATEKEY")) {
            (None, None) => {}
            (Some(id), Some(key)) => {
                stored = Some(Stored { id: id.into(), private_key: key.into() });
                source = "the environment (CLUSTER_ID, CLUSTER_PRIVATEKEY)".into();
            }
            _ => {
                return Err(Error::invalid(
                    "CLUSTER_ID and CLUSTER_PRIVATEKEY belong together, and only one of them is set; set both or none",
                ))
            }
        }
        let stored = stored.ok_or_else(|| {
            Error::not_found(format!("open {name}: no such file or directory; make an identity with init"))
        })?;
        Ok((Self::from_stored(&source, &stored)?, notice))
    }

    /// Writes identity.json, which must not exist.
    ///
    /// # Errors
    /// [`crate::Kind::Conflict`] when it exists.
    pub fn save_new(&self, folder: &Folder) -> Result<()> {
        let stored = Stored { id: self.peer_id().to_string(), private_key: self.private_key.clone() };
        let mut text = serde_json::to_string_pretty(&stored)
            .map_err(|e| Error::internal(format!("writing the identity as JSON: {e}")))?;
        text.push('\n');
        write_new_private(&folder.identity_json(), text.as_bytes())
    }

    fn parse_file(name: &str, text: &str) -> Result<Stored> {
        // Not serde's own message: it could repeat a piece of the key.
        let value = super::file::parse_json(name, text)?;
        let get = |key: &str| {
            value.get(key).and_then(serde_json::Value::as_str).map(str::to_owned).ok_or_else(|| {
                Error::invalid(format!(
                    "{name} has no text \"{key}\"; restore it from a backup, or move it away and make a new identity \
                     with init"
                ))
            })
        };
        Ok(Stored { id: get("id")?, private_key: get("private_key")? })
    }

    pub(super) fn from_stored(source: &str, stored: &Stored) -> Result<Self> {
        let doing = format!("the identity in {source}");
        let key = stored.private_key.trim();
        if key.len() > MAX_KEY_TEXT {
            return Err(Error::invalid(format!(
                "private_key is longer than any key, {} characters; restore the file from a backup",
                key.len()
            )))
            .context(doing);
        }
        let keypair = BASE64
            .decode(key.as_bytes())
            .ok()
            .and_then(|bytes| Keypair::from_protobuf_encoding(&bytes).ok())
            .ok_or_else(|| {
                Error::invalid(
                    "private_key is not a libp2p private key (RSA or Ed25519) in base64; restore the file from a backup",
                )
            })
            .context(&doing)?;
        let identity = Identity { keypair, private_key: key.to_owned() };
        let named: PeerId = stored.id.trim().parse().map_err(|_| {
            Error::invalid(format!(
                "{doing}: id is not a peer id; that of its private_key is {}",
                identity.peer_id()
            ))
        })?;
        if named != identity.peer_id() {
            return Err(Error::invalid(format!(
                "{doing}: id is {named}, but its private_key belongs to {}; restore the file from a backup, or write \
                 that id if the key is the right one",
                identity.peer_id()
            )));
        }
        Ok(identity)
    }
}
