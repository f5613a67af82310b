//! Versioned records: one byte of format version, then the postcard form of a private struct.
//!
//! Every value on disk and every command in the log starts with that byte, so that a program meets data
//! of a newer one with a sentence and not with nonsense. A record is never guessed at: bytes that are
//! left over, cut off or out of bounds are an error, and nothing here panics, whatever the bytes are.

use super::crc::crc32c;
use crate::error::{Error, Kind};
use serde::{de, Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Why bytes are not a record. The caller knows whether the bytes came from this disk (corrupt) or
/// from somebody else (invalid).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A format version that this program does not know.
    Newer {
        /// The version found.
        found: u8,
        /// The newest known.
        known: u8,
    },
    /// Not a record at all, with what is wrong about it.
    Malformed(String),
}

impl Fault {
    /// The error of kind [`Kind::Version`] for a newer record, of `otherwise` for a malformed one.
    pub(crate) fn into_error(self, what: &str, otherwise: Kind) -> Error {
        match self {
            Fault::Newer { found, known } => Error::version(format!(
                "{what} was written by a newer pinfold (record format {found}, this program knows up to {known}): \
                 install that version or a newer one on this peer"
            )),
            Fault::Malformed(why) => Error::new(otherwise, format!("{what} is malformed: {why}")),
        }
    }
}

/// The record of `value` in format `version`.
pub(crate) fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![version]).expect("a plain struct always has a postcard form")
}

/// Bytes of a checksum behind a record.
const SUM: usize = 4;

/// The record of `value` in format `version`, with a checksum behind it. For what is this disk's own affair: replicated
/// rows are the same bytes on every build, and have the digest. `about` goes into the sum and not into the record: the
/// key under which it lies, where the record does not tell that itself.
pub(crate) fn encode_summed<T: Serialize>(version: u8, about: &[u8], value: &T) -> Vec<u8> {
    let mut bytes = encode(version, value);
    let sum = sum(&bytes, about);
    bytes.extend_from_slice(&sum);
    bytes
}

fn sum(record: &[u8], about: &[u8]) -> [u8; SUM] {
    let sum = if about.is_empty() { crc32c(record) } else { crc32c(&[record, about].concat()) };
    sum.to_be_bytes()
}

/// The value of a record of format `summed`, or of format `plain`, which had no checksum yet.
pub(crate) fn decode_summed<'a, T: Deserialize<'a>>(
    plain: u8,
    summed: u8,
    about: &[u8],
    bytes: &'a [u8],
) -> Result<T, Fault> {
    if bytes.first() != Some(&summed) {
        return match decode(plain, bytes) {
            Err(Fault::Newer { found, .. }) => Err(Fault::Newer { found, known: summed }),
            other => other,
        };
    }
    let Some((record, found)) = bytes.len().checked_sub(SUM).and_then(|at| bytes.split_at_checked(at)) else {
        return Err(Fault::Malformed("it is cut off".into()));
    };
    if sum(record, about) != *found {
        return Err(Fault::Malformed(
            "its checksum is wrong, the disk gave back other bytes than were written".into(),
        ));
    }
    decode(summed, record)
}

/// The value of a record of format `known`, the only one there is so far.
pub(crate) fn decode<'a, T: Deserialize<'a>>(known: u8, bytes: &'a [u8]) -> Result<T, Fault> {
    let (&found, rest) = bytes.split_first().ok_or_else(|| Fault::Malformed("it is empty".into()))?;
    if found > known {
        return Err(Fault::Newer { found, known });
    }
    if found != known {
        return Err(Fault::Malformed(format!("record format {found} never existed")));
    }
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(Fault::Malformed(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(Fault::Malformed(error.to_string())),
    }
}

/// Bytes inside a record: borrowed when read, and written in one piece (serde's own slices go byte by byte).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob<'a>(pub(crate) Cow<'a, [u8]>);

impl<'a> Blob<'a> {
    /// Bytes that somebody else keeps.
    pub(crate) fn borrowed(bytes: &'a [u8]) -> Self {
        Blob(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Blob<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Blob(Cow::Owned(bytes))
    }
}

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Blob<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Blob::borrowed(bytes))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_records_of_the_known_format_are_read() {
        let bytes = encode(1, &(7u64, "x", Blob::borrowed(b"abc")));
        let (n, text, blob): (u64, &str, Blob<'_>) = decode(1, &bytes).expect("round trip");
        assert_eq!((n, text, &*blob.0), (7, "x", &b"abc"[..]));

        type T<'a> = (u64, &'a str, Blob<'a>);
        for cut in 0..bytes.len() {
            assert!(matches!(decode::<T<'_>>(1, &bytes[..cut]), Err(Fault::Malformed(_))), "cut at {cut}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(decode::<T<'_>>(1, &longer), Err(Fault::Malformed(_))));
        let mut newer = bytes;
        newer[0] = 9;
        // With a checksum: every flipped bit is noticed, also one that makes it look like a record without.
        let summed = encode_summed(2, b"key", &(7u64, 300u64));
        assert_eq!(decode_summed::<(u64, u64)>(1, 2, b"key", &summed), Ok((7, 300)));
        assert_eq!(decode_summed::<(u64, u64)>(1, 2, b"key", &encode(1, &(7u64, 300u64))), Ok((7, 300)));
        for bit in 0..summed.len() * 8 {
            let mut flipped = summed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_summed::<(u64, u64)>(1, 2, b"key", &flipped).is_err(), "bit {bit}");
        }
        for cut in 0..summed.len() {
            assert!(decode_summed::<(u64, u64)>(1, 2, b"key", &summed[..cut]).is_err(), "cut at {cut}");
        }
        assert!(decode_summed::<(u64, u64)>(1, 2, b"kez", &summed).is_err(), "another key");
        for byte in 0..=255 {
            let mut other = summed.clone();
            other[0] = byte;
            assert!(
                byte == 2 || decode_summed::<(u64, u64)>(1, 2, b"key", &other).is_err(),
                "version {byte}"
            );
        }
        let error = decode::<T<'_>>(1, &newer).expect_err("newer").into_error("pin x", Kind::Corrupt);
        assert_eq!(error.kind(), Kind::Version);
        assert!(error.message().starts_with("pin x was written by a newer pinfold"), "{error}");
    }
}
