//! Digests: the one place that knows how bytes become multihashes and CIDs.
//!
//! Everything pinfold makes is SHA-256. What it keeps for others may also be SHA-512 or an identity hash; any other
//! function is refused with a sentence, because a block whose hash cannot be checked cannot be trusted.
//!
//! The digests are ring's (which TLS and noise link anyway): it finds the hash instructions of both x86 and ARM at run
//! time, and hashing is what adding content costs on a small board.

use crate::error::{Error, Result};
use cid::{Cid, Version};
use multihash::Multihash;
use ring::digest::{digest, SHA256, SHA512};

/// Multicodec of raw blocks.
pub const RAW: u64 = 0x55;
/// Multicodec of dag-pb.
pub const DAG_PB: u64 = 0x70;
/// Multicodec of dag-cbor.
pub const DAG_CBOR: u64 = 0x71;
/// Multicodec of dag-json.
pub const DAG_JSON: u64 = 0x0129;
/// Multihash code of the identity function: the "digest" is the content.
pub const IDENTITY: u64 = 0x00;
/// Multihash code of SHA-256.
pub const SHA2_256: u64 = 0x12;
/// Multihash code of SHA-512.
pub const SHA2_512: u64 = 0x13;

/// The SHA-256 multihash of some bytes.
pub fn sha256(data: &[u8]) -> Multihash<64> {
    Multihash::wrap(SHA2_256, digest(&SHA256, data).as_ref())
        .expect("a SHA-256 digest is 32 bytes, within 64")
}

/// The CID of some bytes: version 0 is possible for dag-pb only, everything else becomes version 1.
pub fn cid_of(version: u8, codec: u64, data: &[u8]) -> Cid {
    let hash = sha256(data);
    if version == 0 && codec == DAG_PB {
        Cid::new_v0(hash).expect("a SHA-256 multihash is what CIDv0 takes")
    } else {
        Cid::new_v1(codec, hash)
    }
}

/// Whether `data` is what `hash` names.
///
/// # Errors
/// [`crate::Kind::Invalid`] for a hash function that pinfold cannot compute.
pub fn matches(hash: &Multihash<64>, data: &[u8]) -> Result<bool> {
    Ok(match hash.code() {
        SHA2_256 => digest(&SHA256, data).as_ref() == hash.digest(),
        SHA2_512 => digest(&SHA512, data).as_ref() == hash.digest(),
        IDENTITY => data == hash.digest(),
        code => {
            return Err(Error::invalid(format!(
                "the hash function 0x{code:x} is not supported: use content hashed with sha2-256 or sha2-512"
            )))
        }
    })
}

/// Checks that `data` is the block that `cid` names.
///
/// # Errors
/// [`crate::Kind::Corrupt`] when it is not, [`crate::Kind::Invalid`] for an unknown hash function.
pub fn verify(cid: &Cid, data: &[u8]) -> Result<()> {
    if matches(cid.hash(), data).map_err(|e| e.context(cid))? {
        Ok(())
    } else {
        Err(Error::corrupt(format!("the bytes of block {cid} do not have the hash that it names")))
    }
}

/// The content of an identity CID, which carries its bytes in itself.
pub fn inline_content(cid: &Cid) -> Option<&[u8]> {
    (cid.hash().code() == IDENTITY).then(|| cid.hash().digest())
}

/// Length of a CID in its binary form, as it stands in a link.
pub fn cid_len(cid: &Cid) -> usize {
    let hash = varint_len(cid.hash().code()) + 1 + cid.hash().digest().len();
    match cid.version() {
        Version::V0 => hash,
        Version::V1 => 1 + varint_len(cid.codec()) + hash,
    }
}

/// Length of a number as a varint.
pub fn varint_len(n: u64) -> usize {
    (64 - (n | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cids_have_the_length_they_say() {
        for cid in [cid_of(0, DAG_PB, b"x"), cid_of(1, DAG_PB, b"x"), cid_of(1, RAW, b"x")] {
            assert_eq!(cid_len(&cid), cid.to_bytes().len());
        }
        assert_eq!([0, 127, 128, 16_383, 16_384, u64::MAX].map(varint_len), [1, 1, 2, 2, 3, 10]);
    }

    #[test]
    fn a_changed_byte_and_an_unknown_function_are_noticed() {
        let cid = cid_of(1, RAW, b"content");
        assert!(verify(&cid, b"content").is_ok());
        assert_eq!(verify(&cid, b"c0ntent").unwrap_err().kind(), crate::Kind::Corrupt);
        let odd = Cid::new_v1(RAW, Multihash::wrap(0xb220, &[0; 32]).unwrap());
        assert_eq!(verify(&odd, b"content").unwrap_err().kind(), crate::Kind::Invalid);
    }
}
