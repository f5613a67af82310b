//! The arithmetic of sharded folders: the hash of a name, the places it leads to, and the bit field of a shard.
//!
//! UnixFS uses the first 64 bits of MurmurHash3 x64-128 (seed 0), most significant byte first; a shard of 256 places
//! consumes one byte per level, so a name leads eight levels deep at most.

use super::node::{DataType, UnixFs};
use crate::error::{Error, Result};

/// Places in a shard that pinfold writes.
pub(super) const FANOUT: usize = 256;
/// UnixFS's number for the hash function of names: murmur3-x64-64.
pub(super) const HASH_TYPE: u64 = 0x22;
/// Most levels: 64 bits of hash, 8 bits each.
pub(super) const MAX_DEPTH: usize = 8;
/// Largest fanout that is read: go-unixfs refuses more.
const MAX_FANOUT: u64 = 1 << 10;

/// The hash of a name.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let (mut h1, mut h2) = (0u64, 0u64);
    let mut blocks = name.chunks_exact(16);
    for block in &mut blocks {
        h1 ^= mix1(word(&block[..8]));
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix2(word(&block[8..]));
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let tail = blocks.remainder();
    if tail.len() > 8 {
        h2 ^= mix2(word(&tail[8..]));
    }
    if !tail.is_empty() {
        h1 ^= mix1(word(&tail[..tail.len().min(8)]));
    }
    let finish = |mut k: u64| {
        k ^= k >> 33;
        k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
        k ^= k >> 33;
        k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        k ^ k >> 33
    };
    h1 ^= name.len() as u64;
    h2 ^= name.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = finish(h1);
    h2 = finish(h2);
    h1.wrapping_add(h2)
}

/// The place of a hash in a shard of a level, for a fanout of `1 << bits`. `None` when the hash is used up.
pub(super) fn place(hash: u64, level: usize, bits: u32) -> Option<usize> {
    let used = bits * u32::try_from(level).ok()?;
    let left = 64u32.checked_sub(used + bits)?;
    Some((hash >> left) as usize & ((1 << bits) - 1))
}

/// The bit field of a shard with these places taken: big-endian, without leading zero bytes.
pub(super) fn bit_field(places: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut field = [0u8; FANOUT / 8];
    for place in places {
        field[FANOUT / 8 - 1 - place / 8] |= 1 << (place % 8);
    }
    let zeros = field.iter().take_while(|b| **b == 0).count();
    field[zeros..].to_vec()
}

/// The UnixFS message of a shard that pinfold writes.
pub(super) fn shard(places: impl Iterator<Item = usize>) -> UnixFs {
    let mut unixfs = UnixFs::new(DataType::Shard);
    unixfs.data = Some(bit_field(places).into());
    unixfs.hash_type = Some(HASH_TYPE);
    unixfs.fanout = Some(FANOUT as u64);
    unixfs
}

/// What is needed to read a shard; of interest to the reader only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardForm {
    /// Bits of hash per level.
    pub(super) bits: u32,
    /// Hex digits in front of every link name.
    pub(super) prefix: usize,
}

impl ShardForm {
    /// Checks a shard's message.
    pub(super) fn of(unixfs: &UnixFs) -> Result<ShardForm> {
        let bad = |what: &str| Error::corrupt(format!("malformed folder shard: {what}"));
        if unixfs.hash_type != Some(HASH_TYPE) {
            return Err(bad("its names are hashed by an unknown function"));
        }
        let fanout = unixfs.fanout.unwrap_or(0);
        if !(8..=MAX_FANOUT).contains(&fanout) || !fanout.is_power_of_two() {
            return Err(bad(&format!("a fanout of {fanout}")));
        }
        Ok(ShardForm { bits: fanout.trailing_zeros(), prefix: format!("{:X}", fanout - 1).len() })
    }

    /// Splits a link's name into place and the entry's own name (empty: the link leads to a deeper shard).
    pub(super) fn split<'a>(&self, name: &'a str) -> Result<(usize, &'a str)> {
        let bad = || Error::corrupt(format!("malformed folder shard: the link name {name:?}"));
        let (prefix, own) = name.split_at_checked(self.prefix).ok_or_else(bad)?;
        if !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let place = usize::from_str_radix(prefix, 16).map_err(|_| bad())?;
        if place >> self.bits != 0 {
            return Err(bad());
        }
        Ok((place, own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_murmur3() {
        // Reference values of MurmurHash3_x64_128, first half.
        assert_eq!(name_hash(b""), 0);
        assert_eq!(name_hash(b"hello"), 0xcbd8_a7b3_41bd_9b02);
        assert_eq!(name_hash(b"hello, world"), 0x342f_ac62_3a5e_bc8e);
        assert_eq!(name_hash(b"The quick brown fox jumps over the lazy dog."), 0xcd99_481f_9ee9_02c9);
    }

    #[test]
    fn places_come_from_the_top_and_run_out() {
        let hash = 0x0123_4567_89ab_cdef;
        assert_eq!(place(hash, 0, 8), Some(0x01));
        assert_eq!(place(hash, 7, 8), Some(0xef));
        assert_eq!(place(hash, 8, 8), None);
        assert_eq!(place(hash, 0, 4), Some(0));
        assert_eq!(place(hash, 16, 4), None);
    }

    #[test]
    fn bit_fields_have_no_leading_zeros() {
        assert_eq!(bit_field([0].into_iter()), vec![1]);
        assert_eq!(bit_field([9].into_iter()), vec![2, 0]);
        assert_eq!(bit_field([255].into_iter()).len(), 32);
        assert!(bit_field(std::iter::empty()).is_empty());
    }

    #[test]
    fn link_names_are_checked() {
        let form = ShardForm::of(&shard([1].into_iter())).unwrap();
        assert_eq!(form.split("0Aname").unwrap(), (10, "name"));
        assert_eq!(form.split("FF").unwrap(), (255, ""));
        for bad in ["", "0", "+1x", "ä", "zzz"] {
            assert!(form.split(bad).is_err(), "{bad}");
        }
    }
}
