//! dag-pb nodes and the UnixFS message inside them: exact bytes out, bounded and checked in.
//!
//! Encoding is go-merkledag's canonical form (links before data, every link with hash, name and size), because a CID
//! is a hash of exactly these bytes. Decoding takes both field orders that exist in the wild, refuses everything that
//! the format forbids, and never keeps more than the block it was given.

use super::hash::{cid_len, varint_len};
use super::proto::{put_bytes, put_bytes_head, put_number, Fields, Value};
use crate::error::{Error, Result};
use bytes::Bytes;
use cid::Cid;

/// Largest block that is ever decoded, bytes; larger ones cannot travel by Bitswap.
pub const MAX_BLOCK: usize = 2 * 1024 * 1024;
/// Most links one node may have: no block of [`MAX_BLOCK`] bytes holds more.
pub const MAX_LINKS: usize = MAX_BLOCK / 8;
/// Longest symbolic link target, bytes (Linux's PATH_MAX).
pub const MAX_TARGET: usize = 4_096;

/// A link of a dag-pb node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PbLink {
    /// What it points to.
    pub cid: Cid,
    /// Its name; empty in files.
    pub name: String,
    /// Cumulative size of the DAG below, bytes, as the writer says: never trusted for anything but display.
    pub size: u64,
}

/// A dag-pb node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PbNode {
    /// Links in stored order.
    pub links: Vec<PbLink>,
    /// Data, when there is any.
    pub data: Option<Bytes>,
}

fn corrupt(what: &str) -> Error {
    Error::corrupt(format!("malformed dag-pb node: {what}"))
}

impl PbNode {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        for link in &self.links {
            put_bytes_head(&mut out, 2, link.encoded_len());
            put_bytes(&mut out, 1, &link.cid.to_bytes());
            put_bytes(&mut out, 2, link.name.as_bytes());
            put_number(&mut out, 3, link.size);
        }
        if let Some(data) = &self.data {
            put_bytes(&mut out, 1, data);
        }
        out
    }

    /// How long [`PbNode::encode`] would be.
    pub fn encoded_len(&self) -> usize {
        let links: usize = self.links.iter().map(|l| delimited(l.encoded_len())).sum();
        links + self.data.as_ref().map_or(0, |d| delimited(d.len()))
    }

    /// Reads a node; its data shares the block's memory.
    ///
    /// # Errors
    /// [`crate::Kind::Corrupt`] for anything that is no dag-pb, [`crate::Kind::TooLarge`] above [`MAX_BLOCK`].
    pub fn decode(block: &Bytes) -> Result<PbNode> {
        if block.len() > MAX_BLOCK {
            return Err(Error::too_large(format!(
                "a block of {} bytes is larger than the limit of {MAX_BLOCK}",
                block.len()
            )));
        }
        let mut node = PbNode::default();
        let mut fields = Fields::new(block);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(data)) if node.data.is_none() => node.data = Some(block.slice_ref(data)),
                (2, Value::Bytes(link)) if node.links.len() < MAX_LINKS => {
                    node.links.push(PbLink::decode(link)?)
                }
                _ => return Err(corrupt("an unknown or repeated field")),
            }
        }
        Ok(node)
    }
}

/// Length of a length-delimited field of `len` bytes with a one-byte tag.
fn delimited(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

impl PbLink {
    fn encoded_len(&self) -> usize {
        delimited(cid_len(&self.cid)) + delimited(self.name.len()) + 1 + varint_len(self.size)
    }

    fn decode(bytes: &[u8]) -> Result<PbLink> {
        let (mut cid, mut name, mut size) = (None, None, None);
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(b)) if cid.is_none() => {
                    cid =
                        Some(Cid::try_from(b).map_err(|e| corrupt(&format!("a link without a CID ({e})")))?);
                }
                (2, Value::Bytes(b)) if name.is_none() => {
                    let text =
                        std::str::from_utf8(b).map_err(|_| corrupt("a link name that is not UTF-8"))?;
                    name = Some(text.to_owned());
                }
                (3, Value::Varint(n)) if size.is_none() => size = Some(n),
                _ => return Err(corrupt("an unknown or repeated field in a link")),
            }
        }
        let cid = cid.ok_or_else(|| corrupt("a link without a CID"))?;
        Ok(PbLink { cid, name: name.unwrap_or_default(), size: size.unwrap_or(0) })
    }
}

/// UnixFS's `DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// A leaf, as old writers mark it.
    Raw,
    /// A folder whose entries are the node's links.
    Directory,
    /// A file, or a part of one.
    File,
    /// Old and unused.
    Metadata,
    /// A symbolic link; the target is the data.
    Symlink,
    /// A folder spread over many nodes by the hash of the names.
    Shard,
}

/// The UnixFS message in a dag-pb node's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFs {
    /// What the node is.
    pub kind: DataType,
    /// Content of this very node, link target, or the bit field of a shard.
    pub data: Option<Bytes>,
    /// Content bytes of this node and all below.
    pub file_size: Option<u64>,
    /// Content bytes below each link.
    pub block_sizes: Vec<u64>,
    /// Hash function of a shard's names.
    pub hash_type: Option<u64>,
    /// Places in a shard.
    pub fanout: Option<u64>,
}

impl UnixFs {
    /// An empty message of a kind.
    pub fn new(kind: DataType) -> Self {
        UnixFs { kind, data: None, file_size: None, block_sizes: Vec::new(), hash_type: None, fanout: None }
    }

    /// The bytes that go-unixfs writes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(32 + self.data.as_ref().map_or(0, Bytes::len) + self.block_sizes.len() * 4);
        let kind = match self.kind {
            DataType::Raw => 0,
            DataType::Directory => 1,
            DataType::File => 2,
            DataType::Metadata => 3,
            DataType::Symlink => 4,
            DataType::Shard => 5,
        };
        put_number(&mut out, 1, kind);
        if let Some(data) = &self.data {
            put_bytes(&mut out, 2, data);
        }
        if let Some(n) = self.file_size {
            put_number(&mut out, 3, n);
        }
        for n in &self.block_sizes {
            put_number(&mut out, 4, *n);
        }
        if let Some(n) = self.hash_type {
            put_number(&mut out, 5, n);
        }
        if let Some(n) = self.fanout {
            put_number(&mut out, 6, n);
        }
        out
    }

    /// Reads a message; its data shares the given memory. Fields of later UnixFS versions (mode, mtime) are skipped.
    ///
    /// # Errors
    /// [`crate::Kind::Corrupt`] when it is not UnixFS.
    pub fn decode(bytes: &Bytes) -> Result<UnixFs> {
        let bad = |what: &str| Error::corrupt(format!("malformed UnixFS data: {what}"));
        let mut kind = None;
        let mut unixfs = UnixFs::new(DataType::Raw);
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Varint(n)) => {
                    kind = Some(match n {
                        0 => DataType::Raw,
                        1 => DataType::Directory,
                        2 => DataType::File,
                        3 => DataType::Metadata,
                        4 => DataType::Symlink,
                        5 => DataType::Shard,
                        other => return Err(bad(&format!("unknown type {other}"))),
                    });
                }
                (2, Value::Bytes(b)) => unixfs.data = Some(bytes.slice_ref(b)),
                (3, Value::Varint(n)) => unixfs.file_size = Some(n),
                (4, Value::Varint(n)) => push_size(&mut unixfs.block_sizes, n)?,
                (4, Value::Bytes(packed)) => {
                    let mut rest = packed;
                    while !rest.is_empty() {
                        let (n, tail) =
                            super::proto::read_varint(rest).ok_or_else(|| bad("a bad block size"))?;
                        push_size(&mut unixfs.block_sizes, n)?;
                        rest = tail;
                    }
                }
                (5, Value::Varint(n)) => unixfs.hash_type = Some(n),
                (6, Value::Varint(n)) => unixfs.fanout = Some(n),
                (1..=6, _) => return Err(bad("a field of the wrong type")),
                _ => {}
            }
        }
        unixfs.kind = kind.ok_or_else(|| bad("no type"))?;
        Ok(unixfs)
    }
}

fn push_size(sizes: &mut Vec<u64>, n: u64) -> Result<()> {
    if sizes.len() >= MAX_LINKS {
        return Err(corrupt("more block sizes than a node can have links"));
    }
    sizes.push(n);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipfs::unixfs::hash::{cid_of, DAG_PB, RAW};

    fn sample() -> PbNode {
        PbNode {
            links: vec![
                PbLink { cid: cid_of(0, DAG_PB, b"a"), name: "a".into(), size: 3 },
                PbLink { cid: cid_of(1, RAW, b"b"), name: String::new(), size: 1 << 40 },
            ],
            data: Some(UnixFs::new(DataType::Directory).encode().into()),
        }
    }

    #[test]
    fn nodes_come_back_and_have_the_length_they_say() {
        let node = sample();
        let bytes = Bytes::from(node.encode());
        assert_eq!(bytes.len(), node.encoded_len());
        assert_eq!(PbNode::decode(&bytes).unwrap(), node);
        assert_eq!(PbNode::decode(&Bytes::new()).unwrap(), PbNode::default());
    }

    #[test]
    fn data_before_links_is_understood() {
        let node = sample();
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 1, node.data.as_deref().unwrap());
        bytes.extend(PbNode { links: node.links.clone(), data: None }.encode());
        assert_eq!(PbNode::decode(&bytes.into()).unwrap(), node);
    }

    #[test]
    fn packed_and_single_block_sizes_are_the_same() {
        let mut unixfs = UnixFs::new(DataType::File);
        unixfs.block_sizes = vec![1, 300];
        let mut packed = vec![8, 2];
        put_bytes(&mut packed, 4, &[1, 0xac, 2]);
        assert_eq!(UnixFs::decode(&packed.into()).unwrap(), unixfs);
        assert_eq!(UnixFs::decode(&unixfs.encode().into()).unwrap(), unixfs);
    }

    #[test]
    fn what_the_format_forbids_is_refused() {
        let node = |bytes: &[u8]| PbNode::decode(&Bytes::copy_from_slice(bytes));
        let unixfs = |bytes: &[u8]| UnixFs::decode(&Bytes::copy_from_slice(bytes));
        assert!(node(&[0x0a, 0, 0x0a, 0]).is_err(), "data twice");
        assert!(node(&[0x12, 2, 0x12, 0]).is_err(), "a link without hash");
        assert!(node(&[0x1a, 0]).is_err(), "unknown field");
        assert!(unixfs(&[]).is_err(), "no type");
        assert!(unixfs(&[8, 9]).is_err(), "unknown type");
        assert_eq!(node(&vec![0; MAX_BLOCK + 1]).unwrap_err().kind(), crate::Kind::TooLarge);
    }

    #[test]
    fn no_damage_makes_the_decoders_panic() {
        let good = sample().encode();
        let mut seed = 7u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        for _ in 0..50_000 {
            let mut bytes = good.clone();
            for _ in 0..=random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(1 + random() % bytes.len());
            let bytes = Bytes::from(bytes);
            if let Ok(node) = PbNode::decode(&bytes) {
                let _ = node.data.as_ref().map(UnixFs::decode);
                assert_eq!(node.encode().len(), node.encoded_len());
            }
            let _ = UnixFs::decode(&bytes);
        }
    }
}
