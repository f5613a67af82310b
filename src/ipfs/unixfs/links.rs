//! What a block links to, for every codec whose content a recursive pin can follow.
//!
//! raw has no links, dag-pb lists them, and dag-cbor hides them in its values under tag 42: a small scanner walks the
//! CBOR without building anything (dag-json, which is rare, is read as a value). Depth, lengths and the number of links are bounded by the block itself.

use super::hash::{DAG_CBOR, DAG_JSON, DAG_PB, RAW};
use super::node::{PbNode, MAX_BLOCK, MAX_LINKS};
use crate::error::{Error, Result};
use bytes::Bytes;
use cid::Cid;

/// Deepest nesting of a dag-cbor block; recursion stays far from the stack's end.
const MAX_CBOR_DEPTH: usize = 128;
/// Multicodecs whose blocks cannot hold links that IPFS follows: json, cbor and the libp2p key.
const LINKLESS: [u64; 3] = [0x0200, 0x51, 0x72];

/// The CIDs that a block links to, in stored order, repeated where the block repeats them.
///
/// # Errors
/// [`crate::Kind::Corrupt`] for malformed bytes, [`crate::Kind::Invalid`] for a codec that cannot be followed.
pub fn links_of(cid: &Cid, block: &Bytes) -> Result<Vec<Cid>> {
    let links = match cid.codec() {
        RAW => Ok(Vec::new()),
        DAG_PB => PbNode::decode(block).map(|node| node.links.into_iter().map(|l| l.cid).collect()),
        DAG_CBOR => scan_cbor(block),
        DAG_JSON => crate::ipfs::ipld::decode(DAG_JSON, block).map(|value| value.links()),
        codec if LINKLESS.contains(&codec) => Ok(Vec::new()),
        codec => Err(Error::invalid(format!(
            "blocks of codec 0x{codec:x} cannot be followed: only raw, dag-pb, dag-cbor and dag-json can be pinned recursively"
        ))),
    };
    links.map_err(|e| e.context(format!("block {cid}")))
}

/// Whether a block of this CID can have links at all: those without need not be read to be pinned.
pub fn may_link(cid: &Cid) -> bool {
    cid.codec() != RAW && !LINKLESS.contains(&cid.codec())
}

fn bad(what: &str) -> Error {
    Error::corrupt(format!("malformed dag-cbor: {what}"))
}

fn scan_cbor(block: &[u8]) -> Result<Vec<Cid>> {
    if block.len() > MAX_BLOCK {
        return Err(Error::too_large(format!("a block of {} bytes is larger than {MAX_BLOCK}", block.len())));
    }
    let mut scanner = Scanner { rest: block, links: Vec::new() };
    scanner.value(0)?;
    if !scanner.rest.is_empty() {
        return Err(bad("bytes after the end"));
    }
    Ok(scanner.links)
}

struct Scanner<'a> {
    rest: &'a [u8],
    links: Vec<Cid>,
}

impl<'a> Scanner<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let n = usize::try_from(n).ok().filter(|n| *n <= self.rest.len()).ok_or_else(|| bad("cut off"))?;
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(taken)
    }

    /// Major type and argument of the next item; no argument for what goes on until a break. That is not canonical, but
    /// Kubo takes it, and [`ipld`](crate::ipfs::ipld) too: what can be read must be possible to follow.
    fn head(&mut self) -> Result<(u8, Option<u64>)> {
        let first = self.take(1)?[0];
        let major = first >> 5;
        let argument = match first & 0x1f {
            n @ 0..=23 => Some(u64::from(n)),
            n @ 24..=27 => Some(self.take(1 << (n - 24))?.iter().fold(0, |v, b| v << 8 | u64::from(*b))),
            31 if (2..=5).contains(&major) => None,
            _ => return Err(bad("a reserved length")),
        };
        Ok((major, argument))
    }

    /// Whether the break of what has no length comes next; taken if so.
    fn at_break(&mut self) -> Result<bool> {
        let next = *self.rest.first().ok_or_else(|| bad("cut off"))?;
        if next == 0xff {
            self.take(1)?;
        }
        Ok(next == 0xff)
    }

    /// A string, in one piece or in several.
    fn string(&mut self, major: u8, length: Option<u64>) -> Result<()> {
        if let Some(length) = length {
            return self.take(length).map(drop);
        }
        while !self.at_break()? {
            match self.head()? {
                (same, Some(length)) if same == major => self.take(length)?,
                _ => return Err(bad("a string of pieces with something else in it")),
            };
        }
        Ok(())
    }

    /// The elements of a list or a map, each of so many values. Every one takes a byte at least, so that a lying count ends
    /// with the block.
    fn elements(&mut self, count: Option<u64>, values: usize, depth: usize) -> Result<()> {
        let mut left = count;
        while match &mut left {
            Some(0) => false,
            Some(n) => {
                *n -= 1;
                true
            }
            None => !self.at_break()?,
        } {
            for _ in 0..values {
                self.value(depth + 1)?;
            }
        }
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<()> {
        if depth > MAX_CBOR_DEPTH {
            return Err(bad("nested too deep"));
        }
        let (major, argument) = self.head()?;
        match major {
            // Numbers; booleans, null and floats are all in the head.
            0 | 1 | 7 => {}
            2 | 3 => self.string(major, argument)?,
            4 => self.elements(argument, 1, depth)?,
            5 => self.elements(argument, 2, depth)?,
            _ if argument == Some(42) => self.link()?,
            _ => return Err(bad("a tag that is not 42")),
        }
        Ok(())
    }

    fn link(&mut self) -> Result<()> {
        let (2, Some(len)) = self.head()? else { return Err(bad("a link that is no byte string")) };
        // The leading zero is multibase's mark for plain binary.
        let cid = self.take(len)?.strip_prefix(&[0]).ok_or_else(|| bad("a link without its leading zero"))?;
        if self.links.len() >= MAX_LINKS {
            return Err(bad("too many links"));
        }
        self.links.push(Cid::try_from(cid).map_err(|e| bad(&format!("a link without a CID ({e})")))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipfs::unixfs::hash::cid_of;

    fn link(cid: &Cid) -> Vec<u8> {
        let bytes = cid.to_bytes();
        let mut out = vec![0xd8, 42, 0x58, bytes.len() as u8 + 1, 0];
        out.extend(bytes);
        out
    }

    #[test]
    fn links_are_found_wherever_they_hide() {
        let (a, b) = (cid_of(1, RAW, b"a"), cid_of(0, DAG_PB, b"b"));
        // {"x": [1, a, {"y": b}], "z": "text"}
        let mut block = vec![0xa2, 0x61, b'x', 0x83, 1];
        block.extend(link(&a));
        block.extend([0xa1, 0x61, b'y']);
        block.extend(link(&b));
        block.extend([0x61, b'z', 0x64]);
        block.extend(b"text");
        let cid = cid_of(1, DAG_CBOR, &block);
        assert_eq!(links_of(&cid, &block.clone().into()).unwrap(), vec![a, b]);
        for n in 0..block.len() {
            assert!(links_of(&cid, &block[..n].to_vec().into()).is_err(), "cut at {n}");
        }
    }

    #[test]
    fn links_are_found_where_lists_maps_and_strings_have_no_length() {
        let a = cid_of(1, RAW, b"a");
        // {"x": [a, "t" + "u"]} with breaks instead of lengths, as Kubo reads it.
        let mut block = vec![0xbf, 0x7f, 0x61, b'x', 0xff, 0x9f];
        block.extend(link(&a));
        block.extend([0x7f, 0x61, b't', 0x61, b'u', 0xff, 0xff, 0xff]);
        let cid = cid_of(1, DAG_CBOR, &block);
        assert_eq!(links_of(&cid, &block.clone().into()).unwrap(), vec![a]);
        assert_eq!(crate::ipfs::ipld::decode(DAG_CBOR, &block.clone().into()).unwrap().links(), vec![a]);
        for n in 0..block.len() {
            assert!(links_of(&cid, &block[..n].to_vec().into()).is_err(), "cut at {n}");
        }
    }

    #[test]
    fn hostile_cbor_ends_quickly() {
        let cid = cid_of(1, DAG_CBOR, b"");
        let huge = |first: u8| [vec![first], vec![0xff; 8]].concat();
        for block in
            [vec![0x81; 100_000], huge(0x9b), huge(0xbb), huge(0x5b), vec![0x9f; 9], vec![0xff], vec![]]
        {
            assert!(links_of(&cid, &block.into()).is_err());
        }
    }

    #[test]
    fn an_unknown_codec_is_named() {
        let cid = cid_of(1, 0x78, b"git");
        assert!(links_of(&cid, &Bytes::from_static(b"git")).unwrap_err().message().contains("0x78"));
        assert!(links_of(&cid_of(1, RAW, b"r"), &Bytes::from_static(b"r")).unwrap().is_empty());
    }
}
