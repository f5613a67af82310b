//! CAR archives: a DAG as one stream, version 1 out, versions 1 and 2 in.
//!
//! ```text
//! varint length │ header: dag-cbor {roots: [CID…], version: 1}
//! varint length │ CID │ block          again and again
//! ```
//!
//! Version 2 is version 1 inside of a frame with an index behind it; the frame is unwrapped, the index not looked at.
//! The reader holds one section and what the network brought last. It must never: trust a length (each is compared
//! with a limit before anything is kept for it), hand out a block that does not have its hash, or take an archive that
//! ends in the middle of a section for a whole one.

use super::ipld::{self, Value};
use super::unixfs::hash::{self, DAG_CBOR};
use super::unixfs::node::MAX_BLOCK;
use super::unixfs::proto::{put_varint, read_varint};
use super::Block;
use crate::error::{Error, Result};
use bytes::{Buf, Bytes, BytesMut};
use cid::Cid;
use futures::{Stream, StreamExt};

/// Longest header that is read, bytes: some ten thousand roots.
const MAX_HEADER: u64 = 1 << 20;
/// Longest CID in a section, bytes: the largest multihash that IPFS knows, with its heads.
const MAX_CID: usize = 128;
/// Longest section that is read, bytes.
const MAX_SECTION: u64 = (MAX_BLOCK + MAX_CID) as u64;
/// Most bytes of padding that a version 2 archive may have between its header and its data.
const MAX_PADDING: u64 = 1 << 20;
/// Longest varint of a length, bytes.
const MAX_VARINT: usize = 10;
/// Length of version 2's own header behind its pragma, bytes.
const V2_HEADER: usize = 40;

/// The bytes that begin an archive with these roots.
pub fn header(roots: &[Cid]) -> Vec<u8> {
    let roots = roots.iter().map(|cid| Value::Link(*cid)).collect();
    let header = Value::Map(vec![("roots".into(), Value::List(roots)), ("version".into(), Value::Int(1))]);
    let header = ipld::encode(DAG_CBOR, &header).expect("dag-cbor holds every value");
    let mut out = Vec::with_capacity(header.len() + MAX_VARINT);
    put_varint(&mut out, header.len() as u64);
    out.extend_from_slice(&header);
    out
}

/// What goes before a block's bytes.
pub fn section_head(cid: &Cid, length: usize) -> Vec<u8> {
    let cid = cid.to_bytes();
    let mut out = Vec::with_capacity(cid.len() + MAX_VARINT);
    put_varint(&mut out, (cid.len() + length) as u64);
    out.extend_from_slice(&cid);
    out
}

/// An archive being read.
pub struct Reader<S> {
    stream: S,
    buffer: BytesMut,
    ended: bool,
    /// Bytes of a version 2 archive's data that are still to come; `None` in version 1, which ends with the stream.
    left: Option<u64>,
    roots: Vec<Cid>,
}

fn cut() -> Error {
    Error::invalid("unexpected EOF")
}

impl<S: Stream<Item = Result<Bytes>> + Unpin> Reader<S> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] when this is no CAR, and whatever the stream says.
    pub async fn open(stream: S) -> Result<Self> {
        let mut reader =
            Reader { stream, buffer: BytesMut::new(), ended: false, left: None, roots: Vec::new() };
        let (mut version, mut roots) = reader.header().await?;
        if version == 2 {
            reader.unwrap_v2().await?;
            (version, roots) = reader.header().await?;
        }
        if version != 1 {
            return Err(Error::invalid(format!("invalid car version: {version}")));
        }
        reader.roots = roots;
        Ok(reader)
    }

    /// The roots that the header names.
    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// The next block, its hash checked; `None` at the end.
    ///
    /// # Errors
    /// As [`Reader::open`], and [`crate::Kind::Corrupt`] for bytes that do not have their hash.
    pub async fn next(&mut self) -> Result<Option<Block>> {
        if self.left == Some(0) || !self.fill(1).await? {
            return match self.left {
                Some(left) if left > 0 => Err(cut()),
                _ => Ok(None),
            };
        }
        let length = self.varint().await?;
        if length > MAX_SECTION {
            return Err(Error::invalid("invalid section data, length of read beyond allowable maximum"));
        }
        let mut data = self.take(length as usize).await?;
        let before = data.len();
        let mut rest = &data[..];
        let cid = Cid::read_bytes(&mut rest).map_err(|e| Error::invalid(format!("invalid cid: {e}")))?;
        data.advance(before - rest.len());
        if !hash::matches(cid.hash(), &data).map_err(|e| e.context(cid))? {
            let got = match cid.version() {
                cid::Version::V0 => hash::cid_of(0, cid.codec(), &data),
                cid::Version::V1 => hash::cid_of(1, cid.codec(), &data),
            };
            return Err(Error::corrupt(format!(
                "mismatch in content integrity, expected: {cid}, got: {got}"
            )));
        }
        Ok(Some(Block { cid, data }))
    }

    async fn header(&mut self) -> Result<(i128, Vec<Cid>)> {
        let length = self.varint().await?;
        if length > MAX_HEADER {
            return Err(Error::invalid("invalid header data, length of read beyond allowable maximum"));
        }
        let bytes = self.take(length as usize).await?;
        let bad = |what: &str| Error::invalid(format!("invalid header: {what}"));
        let value = ipld::decode(DAG_CBOR, &bytes).map_err(|e| bad(e.message()))?;
        let Ok(Value::Int(version)) = value.lookup("version") else { return Err(bad("it has no version")) };
        let roots = match value.lookup("roots") {
            Ok(Value::List(roots)) => roots
                .iter()
                .map(|root| match root {
                    Value::Link(cid) => Ok(*cid),
                    _ => Err(bad("a root that is no link")),
                })
                .collect::<Result<_>>()?,
            Err(_) if *version == 2 => Vec::new(),
            _ => return Err(bad("it has no roots")),
        };
        Ok((*version, roots))
    }

    /// Skips the frame of version 2, up to the version 1 archive in it.
    async fn unwrap_v2(&mut self) -> Result<()> {
        let pragma = 11;
        let frame = self.take(V2_HEADER).await?;
        let number = |at: usize| frame.get(at..at + 8).map_or(0, |mut bytes| bytes.get_u64_le());
        let (offset, size) = (number(16), number(24));
        let padding = offset.checked_sub(pragma + V2_HEADER as u64).filter(|n| *n <= MAX_PADDING);
        let padding = padding.ok_or_else(|| Error::invalid("invalid header: data at an impossible place"))?;
        self.take(padding as usize).await?;
        self.left = Some(size);
        Ok(())
    }

    async fn varint(&mut self) -> Result<u64> {
        for n in 1..=MAX_VARINT {
            if !self.fill(n).await? {
                return Err(cut());
            }
            if let Some((value, rest)) = read_varint(&self.buffer) {
                let used = self.buffer.len() - rest.len();
                self.take(used).await?;
                return Ok(value);
            }
        }
        Err(Error::invalid("varints larger than uint63 not supported"))
    }

    async fn take(&mut self, n: usize) -> Result<Bytes> {
        if !self.fill(n).await? {
            return Err(cut());
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(n as u64).ok_or_else(cut)?;
        }
        Ok(self.buffer.split_to(n).freeze())
    }

    /// Makes sure of `n` bytes at hand; false when the stream ends before.
    async fn fill(&mut self, n: usize) -> Result<bool> {
        while self.buffer.len() < n && !self.ended {
            match self.stream.next().await {
                Some(data) => self.buffer.extend_from_slice(&data?),
                None => self.ended = true,
            }
        }
        Ok(self.buffer.len() >= n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;
    use futures::stream;

    fn archive(blocks: &[&[u8]]) -> (Vec<u8>, Vec<Cid>) {
        let cids: Vec<Cid> = blocks.iter().map(|data| hash::cid_of(1, hash::RAW, data)).collect();
        let mut out = header(&cids[..1]);
        for (cid, data) in cids.iter().zip(blocks) {
            out.extend(section_head(cid, data.len()));
            out.extend_from_slice(data);
        }
        (out, cids)
    }

    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<Cid>, Vec<Block>)> {
        let pieces: Vec<_> = bytes.chunks(piece).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        block_on(async {
            let mut reader = Reader::open(stream::iter(pieces)).await?;
            let mut blocks = Vec::new();
            while let Some(block) = reader.next().await? {
                blocks.push(block);
            }
            Ok((reader.roots().to_vec(), blocks))
        })
    }

    #[test]
    fn an_archive_comes_back_in_pieces_of_any_size() {
        let (bytes, cids) = archive(&[b"one", b"", &[7; 300]]);
        for piece in [1, 2, 7, 1_000] {
            let (roots, blocks) = read(&bytes, piece).expect("read");
            assert_eq!(roots, cids[..1]);
            assert_eq!(blocks.iter().map(|b| b.cid).collect::<Vec<_>>(), cids);
            assert_eq!(blocks[2].data.len(), 300);
        }
    }

    #[test]
    fn version_two_is_unwrapped() {
        let (inner, cids) = archive(&[b"one", b"two"]);
        let mut bytes = b"\x0a\xa1gversion\x02".to_vec();
        bytes.extend([0; 16]);
        bytes.extend(61_u64.to_le_bytes());
        bytes.extend((inner.len() as u64).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend([0; 10]);
        bytes.extend(&inner);
        bytes.extend(b"an index");
        let (roots, blocks) = read(&bytes, 5).expect("read");
        assert_eq!((roots.as_slice(), blocks.len()), (&cids[..1], 2));
        read(&bytes[..bytes.len() - 10], 5).expect_err("cut off");
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_refused_in_kubo_s_words() {
        let (bytes, _) = archive(&[b"one"]);
        for n in 0..bytes.len() {
            let whole = n == header(&[hash::cid_of(1, hash::RAW, b"one")]).len();
            assert_eq!(read(&bytes[..n], 3).is_ok(), whole, "cut at {n}");
        }
        assert_eq!(read(b"garbage", 3).expect_err("garbage").message(), "unexpected EOF");
        let mut bent = bytes.clone();
        *bent.last_mut().expect("bytes") ^= 1;
        assert!(read(&bent, 9)
            .expect_err("bent")
            .message()
            .starts_with("mismatch in content integrity, expected: "));
        let mut seven = b"\x11\xa2eroots\x80gversion\x07".to_vec();
        assert_eq!(read(&seven, 9).expect_err("7").message(), "invalid car version: 7");
        seven[0] = 0xff;
        read(&seven, 9).expect_err("length");
        assert_eq!(
            read(&[0xff; 20], 9).expect_err("varint").message(),
            "varints larger than uint63 not supported"
        );
        let mut long = header(&[]);
        put_varint(&mut long, 9 << 20);
        long.extend([0; 40]);
        assert_eq!(
            read(&long, 9).expect_err("section").message(),
            "invalid section data, length of read beyond allowable maximum"
        );
    }

    #[test]
    fn no_noise_makes_the_reader_panic() {
        let (good, _) = archive(&[b"one", b"two", b"three"]);
        let mut seed = 3_u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        for _ in 0..5_000 {
            let mut bytes = good.clone();
            for _ in 0..=random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(random() % (bytes.len() + 1));
            let _ = read(&bytes, 1 + random() % 40);
        }
    }
}
