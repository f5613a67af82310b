//! Which CID does a travelling block have?
//!
//! A block comes with everything of its CID but the digest, so the CID is *computed* from the bytes, never
//! believed: what a peer sends can only ever be the block that its CID names. The hash functions are those
//! of [`crate::ipfs::unixfs::hash`]; anything else is refused with a sentence.

use super::wire::Prefix;
use crate::error::{Error, Result};
use crate::ipfs::unixfs::hash::{DAG_PB, IDENTITY, SHA2_256, SHA2_512};
use bytes::Bytes;
use cid::Cid;
use multihash::Multihash;
use sha2::{Digest, Sha256, Sha512};

/// Digest length of sha2-256.
const SHA2_256_LENGTH: usize = 32;
/// Digest length of sha2-512.
const SHA2_512_LENGTH: usize = 64;

/// Whether blocks of this CID can be checked here.
///
/// # Errors
/// [`crate::Kind::Invalid`] naming the hash function.
pub fn supported(cid: &Cid) -> Result<()> {
    match (cid.hash().code(), cid.hash().digest().len()) {
        (SHA2_256, SHA2_256_LENGTH) | (SHA2_512, SHA2_512_LENGTH) | (IDENTITY, _) => Ok(()),
        (code, length) => Err(Error::invalid(format!(
            "the CID {cid} uses hash function 0x{code:x} with {length} bytes, which pinfold cannot check: \
             only sha2-256, sha2-512 and identity are supported; add the content again with sha2-256"
        ))),
    }
}

/// The data of an identity CID, which carries it.
pub fn inline(cid: &Cid) -> Option<Bytes> {
    (cid.hash().code() == IDENTITY).then(|| Bytes::copy_from_slice(cid.hash().digest()))
}

/// The CID that a travelling block has: its prefix with the digest of its data. `None` for what cannot be
/// checked or is no CID (version 2, CIDv0 with another codec, a shortened digest, …).
pub fn cid_of(prefix: &Prefix, data: &[u8]) -> Option<Cid> {
    let hash = match (prefix.hash, usize::try_from(prefix.length).ok()?) {
        (SHA2_256, SHA2_256_LENGTH) => Multihash::wrap(SHA2_256, &Sha256::digest(data)),
        (SHA2_512, SHA2_512_LENGTH) => Multihash::wrap(SHA2_512, &Sha512::digest(data)),
        _ => return None,
    };
    match prefix.version {
        0 if prefix.codec == DAG_PB => Cid::new_v0(hash.ok()?).ok(),
        1 => Some(Cid::new_v1(prefix.codec, hash.ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cid_follows_from_the_bytes() {
        let cid: Cid = "bafkreib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy".parse().expect("cid");
        let prefix = Prefix { version: 1, codec: 0x55, hash: SHA2_256, length: 32 };
        assert_eq!(cid_of(&prefix, b"block body\n"), Some(cid));
        assert_ne!(cid_of(&prefix, b"block body"), Some(cid));
        let v0: Cid = "QmdPNAmHqf5quZf48behFNyZV2A5ocRPj3SbYDEbtTERuJ".parse().expect("cid");
        assert_eq!(cid_of(&Prefix { version: 0, codec: DAG_PB, ..prefix }, b"not dag-pb"), Some(v0));
        assert_eq!(cid_of(&Prefix { version: 0, ..prefix }, b"x"), None, "CIDv0 is dag-pb only");
        assert_eq!(cid_of(&Prefix { version: 2, ..prefix }, b"x"), None);
        assert_eq!(cid_of(&Prefix { length: 20, ..prefix }, b"x"), None, "no shortened digests");
        assert_eq!(cid_of(&Prefix { length: u64::MAX, ..prefix }, b"x"), None);
    }

    #[test]
    fn identity_carries_its_data_and_unknown_functions_are_refused() {
        let cid = Cid::new_v1(0x55, Multihash::wrap(IDENTITY, b"hello").expect("hash"));
        supported(&cid).expect("identity");
        assert_eq!(inline(&cid).as_deref(), Some(&b"hello"[..]));
        let blake = Cid::new_v1(0x55, Multihash::wrap(0xb220, &[1; 32]).expect("hash"));
        let error = supported(&blake).expect_err("blake2b");
        assert!(error.message().contains("only sha2-256"), "{error}");
    }
}
