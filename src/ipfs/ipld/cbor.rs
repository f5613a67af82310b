//! dag-cbor: canonical out (shortest heads, names by length and then by bytes, doubles only), tolerant in.
//!
//! As Kubo's decoder does, longer heads than needed, indefinite lengths and short floats are read; unlike it, a tag
//! other than 42 is an error instead of being dropped, because what was read would not be what was written.

use super::{put, Budget, Names, Value};
use crate::error::{Error, Result};
use bytes::Bytes;
use cid::Cid;

/// The tag of a link.
const LINK: u64 = 42;
/// The argument of an item whose length is told by a break at its end.
const INDEFINITE: u8 = 31;

fn bad(what: &str) -> Error {
    Error::corrupt(format!("malformed dag-cbor: {what}"))
}

fn cut() -> Error {
    Error::corrupt("unexpected EOF")
}

pub(super) fn decode(block: &Bytes) -> Result<Value> {
    let mut reader = Reader { block, at: 0, budget: Budget::default() };
    let value = reader.value(0)?;
    if reader.at < block.len() {
        return Err(Error::corrupt("unexpected content after end of cbor object"));
    }
    Ok(value)
}

struct Reader<'a> {
    block: &'a Bytes,
    at: usize,
    budget: Budget,
}

/// The head of an item.
struct Head {
    major: u8,
    info: u8,
    argument: u64,
}

impl Reader<'_> {
    fn take(&mut self, n: u64) -> Result<Bytes> {
        let n = usize::try_from(n).ok().filter(|n| *n <= self.block.len() - self.at).ok_or_else(cut)?;
        self.at += n;
        Ok(self.block.slice(self.at - n..self.at))
    }

    fn head(&mut self) -> Result<Head> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 0x1f);
        let argument = match info {
            0..=23 => u64::from(info),
            24..=27 => self.take(1 << (info - 24))?.iter().fold(0, |v, b| v << 8 | u64::from(*b)),
            INDEFINITE if (2..=5).contains(&major) || major == 7 => 0,
            _ => return Err(bad("a reserved length")),
        };
        Ok(Head { major, info, argument })
    }

    /// Whether the break of an indefinite item comes next; taken if so.
    fn at_break(&mut self) -> Result<bool> {
        let next = *self.block.get(self.at).ok_or_else(cut)?;
        if next == 0xff {
            self.at += 1;
        }
        Ok(next == 0xff)
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        self.budget.take(depth)?;
        let head = self.head()?;
        Ok(match head.major {
            0 => Value::Int(i128::from(head.argument)),
            1 => Value::Int(-1 - i128::from(head.argument)),
            2 => Value::Bytes(self.bytes(&head)?),
            3 => Value::Text(text(&self.bytes(&head)?)?),
            4 => self.list(&head, depth)?,
            5 => self.map(&head, depth)?,
            6 if head.argument == LINK => self.link()?,
            6 => return Err(bad(&format!("tag {}; only 42, a link, is known", head.argument))),
            _ => simple(&head)?,
        })
    }

    /// Content of a byte or text string, its pieces joined.
    fn bytes(&mut self, head: &Head) -> Result<Bytes> {
        if head.info != INDEFINITE {
            return self.take(head.argument);
        }
        let mut all = Vec::new();
        while !self.at_break()? {
            let piece = self.head()?;
            if piece.major != head.major || piece.info == INDEFINITE {
                return Err(bad("a string of pieces with something else in it"));
            }
            all.extend_from_slice(&self.take(piece.argument)?);
        }
        Ok(all.into())
    }

    fn list(&mut self, head: &Head, depth: usize) -> Result<Value> {
        let mut items = Vec::new();
        let mut left = head.argument;
        while match head.info {
            INDEFINITE => !self.at_break()?,
            _ => left > 0,
        } {
            items.push(self.value(depth + 1)?);
            left = left.saturating_sub(1);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, head: &Head, depth: usize) -> Result<Value> {
        let (mut entries, mut seen) = (Vec::new(), Names::default());
        let mut left = head.argument;
        while match head.info {
            INDEFINITE => !self.at_break()?,
            _ => left > 0,
        } {
            self.budget.take(depth + 1)?;
            let key = self.head()?;
            if key.major != 3 {
                return Err(bad("a map with a key that is no text"));
            }
            let name = text(&self.bytes(&key)?)?;
            let value = self.value(depth + 1)?;
            put(&mut entries, &mut seen, name, value)?;
            left = left.saturating_sub(1);
        }
        Ok(Value::Map(entries))
    }

    fn link(&mut self) -> Result<Value> {
        let head = self.head()?;
        if head.major != 2 || head.info == INDEFINITE {
            return Err(bad("a link that is no byte string"));
        }
        let bytes = self.take(head.argument)?;
        // The leading zero is multibase's mark for plain binary.
        let cid = bytes.strip_prefix(&[0]).ok_or_else(|| bad("a link without its leading zero"))?;
        Ok(Value::Link(Cid::try_from(cid).map_err(|e| bad(&format!("a link without a CID ({e})")))?))
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| bad("a text that is not UTF-8"))
}

fn simple(head: &Head) -> Result<Value> {
    let float = match head.info {
        20 => return Ok(Value::Bool(false)),
        21 => return Ok(Value::Bool(true)),
        // Undefined is read as null, as everywhere in IPLD.
        22 | 23 => return Ok(Value::Null),
        25 => half(head.argument as u16),
        26 => f64::from(f32::from_bits(head.argument as u32)),
        27 => f64::from_bits(head.argument),
        _ => return Err(bad("a simple value that IPLD does not have")),
    };
    if float.is_finite() {
        Ok(Value::Float(float))
    } else {
        Err(bad("a number that is not finite"))
    }
}

/// A 16-bit float.
fn half(bits: u16) -> f64 {
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f64::from(bits & 0x3ff);
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 {
        -size
    } else {
        size
    }
}

pub(super) fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value);
    out
}

fn head(out: &mut Vec<u8>, major: u8, n: u64) {
    let major = major << 5;
    match n {
        0..=23 => out.push(major | n as u8),
        24..=0xff => out.extend([major | 24, n as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((n as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend((n as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(n.to_be_bytes());
        }
    }
}

fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(b) => out.push(0xf4 | u8::from(*b)),
        // The decoders make nothing outside of 65 bits.
        Value::Int(n) if *n < 0 => head(out, 1, (-1 - n) as u64),
        Value::Int(n) => head(out, 0, *n as u64),
        Value::Float(f) => {
            out.push(0xfb);
            out.extend(f.to_be_bytes());
        }
        Value::Text(text) => {
            head(out, 3, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Bytes(bytes) => {
            head(out, 2, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Value::List(items) => {
            head(out, 4, items.len() as u64);
            items.iter().for_each(|item| write(out, item));
        }
        Value::Map(entries) => {
            head(out, 5, entries.len() as u64);
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
            for (name, value) in sorted {
                head(out, 3, name.len() as u64);
                out.extend_from_slice(name.as_bytes());
                write(out, value);
            }
        }
        Value::Link(cid) => {
            let bytes = cid.to_bytes();
            out.extend([0xd8, LINK as u8]);
            head(out, 2, bytes.len() as u64 + 1);
            out.push(0);
            out.extend_from_slice(&bytes);
        }
    }
}
