//! The little of protobuf's wire format that dag-pb and UnixFS need: varints and length-delimited fields.
//!
//! The reader works on borrowed bytes, never allocates, and cannot be made to read outside of them: every length is
//! compared with what is left before it is used.

use crate::error::{Error, Result};

/// One field as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, whose content nobody here uses.
    Fixed,
}

/// Reads fields one after the other.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of a message.
    pub fn new(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }

    /// The next field's number and value; `None` at the end.
    ///
    /// # Errors
    /// [`crate::Kind::Corrupt`] when the bytes are no protobuf.
    #[allow(clippy::should_implement_trait)] // an Iterator of Results would invite ignoring the error
    pub fn next(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            other => return Err(malformed(&format!("wire type {other}"))),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64> {
        let (value, rest) = read_varint(self.rest).ok_or_else(|| malformed("a bad varint"))?;
        self.rest = rest;
        Ok(value)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.rest.len() {
            return Err(malformed("a field longer than the message"));
        }
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(taken)
    }
}

fn malformed(what: &str) -> Error {
    Error::corrupt(format!("malformed protobuf ({what})"))
}

/// A varint at the front of `bytes`, and what follows it. `None` when cut off or longer than 64 bits.
pub fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        if i == 9 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a number field.
pub fn put_number(out: &mut Vec<u8>, field: u64, n: u64) {
    put_varint(out, field << 3);
    put_varint(out, n);
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_bytes_head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the head of a length-delimited field whose `len` bytes the caller appends.
pub fn put_bytes_head(out: &mut Vec<u8>, field: u64, len: usize) {
    put_varint(out, field << 3 | 2);
    put_varint(out, len as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_overlong_ones_are_refused() {
        for n in [0, 1, 127, 128, 300, 1 << 35, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            assert_eq!(read_varint(&out), Some((n, &[][..])));
            assert_eq!(read_varint(&out[..out.len() - 1]), None);
        }
        assert_eq!(read_varint(&[0xff; 11]), None);
        assert_eq!(read_varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None);
    }

    #[test]
    fn a_length_beyond_the_message_is_an_error() {
        assert!(Fields::new(&[0x0a, 5, 1, 2]).next().is_err());
        assert!(Fields::new(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1])
            .next()
            .is_err());
        assert!(Fields::new(&[0x0b]).next().is_err());
    }
}
