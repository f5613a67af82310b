//! `block/get`, `block/stat`, `block/put`, `block/rm`: single blocks.
//!
//! A block that was put is durable before it is told. Nothing pins it: that is the cluster's, and the proxy does it when
//! `pin=true` asks for it. Only what this node can check later is taken: sha2-256, sha2-512 and identity, whole digests.

use super::call::{Call, CidWriter, Form};
use super::path;
use super::reply::Reply;
use super::upload::Files;
use super::Node;
use crate::error::{Error, Result};
use crate::ipfs::embedded::local::{Fate, PinnedBy};
use crate::ipfs::unixfs::hash::{DAG_CBOR, DAG_JSON, DAG_PB, IDENTITY, RAW, SHA2_256, SHA2_512};
use crate::ipfs::unixfs::node::MAX_BLOCK;
use crate::ipfs::Block;
use bytes::Bytes;
use cid::Cid;
use futures::{stream, StreamExt};
use multihash::Multihash;
use ring::digest;
use serde::Serialize;

/// Blocks of one form that are being made durable at once: they share a flush, and memory for the largest of them.
const PUTTING: usize = 8;
/// Longest content of an identity hash, bytes.
const MAX_INLINE: usize = 64;
/// Kubo's words for a block that cannot travel.
pub(super) const TOO_BIG: &str = "produced block is over 2MiB: big blocks can't be exchanged with other peers. consider using UnixFS for automatic chunking of bigger files, or pass --allow-big-block to override";

/// `block/get`.
pub(super) async fn get(node: &Node, call: &Call) -> Result<Reply> {
    let blocks = node.embedded()?.reader(call.offline);
    let cid = path::block(&*blocks, &call.args[0]).await?;
    let data = blocks.get(&cid).await?;
    Ok(Reply::Stream(stream::iter([Ok(data)]).boxed(), "application/vnd.ipld.raw", None))
}

/// A block and its length.
#[derive(Serialize)]
struct Stat {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Size")]
    size: u64,
}

/// `block/stat`.
pub(super) async fn stat(node: &Node, call: &Call) -> Result<Reply> {
    let cids = call.cid_writer()?;
    let embedded = node.embedded()?;
    let blocks = embedded.reader(call.offline);
    let cid = path::block(&*blocks, &call.args[0]).await?;
    let size = match embedded.block_size(&cid).await? {
        Some(size) => size,
        None => blocks.get(&cid).await?.len() as u64,
    };
    let stat = Stat { key: cids.write(&cid), size };
    Reply::either(call.text, &stat, || format!("Key: {}\nSize: {}\n", stat.key, stat.size))
}

/// How a CID is made of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    version: u8,
    codec: u64,
    hash: u64,
}

impl Format {
    /// Version 1 of a codec with sha2-256.
    pub(super) fn new(codec: u64, hash: u64) -> Self {
        Format { version: 1, codec, hash }
    }

    /// From the options of `block/put`.
    fn of(call: &Call) -> Result<Self> {
        let mut format = Format::new(codec(call.option("cid-codec").unwrap_or("raw"))?, SHA2_256);
        let hash = call.option("mhtype").unwrap_or("sha2-256");
        format.hash = hash_code(hash, &format!("unrecognized multihash function: {hash}"))?;
        match call.option("format").unwrap_or("") {
            "" => {}
            "v0" => (format.version, format.codec) = (0, DAG_PB),
            "protobuf" => format.codec = DAG_PB,
            "cbor" => format.codec = DAG_CBOR,
            other => format.codec = codec(other)?,
        }
        if format.version == 0 && format.hash != SHA2_256 {
            return Err(Error::invalid("only sha2-255-32 is allowed with CIDv0"));
        }
        match (call.number("mhlen").unwrap_or(-1), format.hash) {
            (-1, _) | (32, SHA2_256) | (64, SHA2_512) => Ok(format),
            (n, SHA2_256 | SHA2_512) if n > if format.hash == SHA2_256 { 32 } else { 64 } => {
                Err(Error::invalid("invalid cid: requested length was too large for digest"))
            }
            (n, _) => Err(Error::invalid(format!(
                "mhlen={n}: digests that are cut short cannot be checked by this node; leave mhlen away"
            ))),
        }
    }

    /// The CID of some bytes.
    pub(super) fn cid(&self, data: &[u8]) -> Result<Cid> {
        let wrap = |digest: &[u8]| {
            Multihash::wrap(self.hash, digest).map_err(|e| Error::invalid(format!("invalid cid: {e}")))
        };
        let hash = match self.hash {
            SHA2_256 => wrap(digest::digest(&digest::SHA256, data).as_ref())?,
            SHA2_512 => wrap(digest::digest(&digest::SHA512, data).as_ref())?,
            _ if data.len() > MAX_INLINE => {
                return Err(Error::invalid(format!(
                    "identity hashes of more than {MAX_INLINE} bytes are not supported: use sha2-256"
                )));
            }
            _ => wrap(data)?,
        };
        match self.version {
            0 => Cid::new_v0(hash).map_err(|e| Error::invalid(format!("invalid cid: {e}"))),
            _ => Ok(Cid::new_v1(self.codec, hash)),
        }
    }
}

/// A multicodec by its name or number.
pub(super) fn codec(name: &str) -> Result<u64> {
    let number = name.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    Ok(match (name, number) {
        (_, Some(number)) => number,
        ("raw", _) => RAW,
        ("dag-pb", _) => DAG_PB,
        ("dag-cbor", _) => DAG_CBOR,
        ("dag-json", _) => DAG_JSON,
        ("cbor", _) => 0x51,
        ("json", _) => 0x0200,
        ("libp2p-key", _) => 0x72,
        ("git-raw", _) => 0x78,
        ("dag-jose", _) => 0x85,
        ("car", _) => 0x0202,
        _ => return Err(Error::invalid(format!("unknown multicodec: {name:?}"))),
    })
}

/// A hash function by its name; `unknown` is what to say of a name that is none.
pub(super) fn hash_code(name: &str, unknown: &str) -> Result<u64> {
    const OTHERS: [&str; 20] = [
        "sha1",
        "sha3-224",
        "sha3-256",
        "sha3-384",
        "sha3-512",
        "shake-128",
        "shake-256",
        "keccak-224",
        "keccak-256",
        "keccak-384",
        "keccak-512",
        "blake2b-256",
        "blake2b-512",
        "blake2s-256",
        "blake3",
        "dbl-sha2-256",
        "sha2-224",
        "sha2-256-trunc254-padded",
        "sha2-384",
        "murmur3-x64-64",
    ];
    match name {
        "sha2-256" => Ok(SHA2_256),
        "sha2-512" => Ok(SHA2_512),
        "identity" => Ok(IDENTITY),
        "md5" => Err(Error::invalid("potentially insecure hash functions not allowed")),
        name if OTHERS.contains(&name) => Err(Error::invalid(format!(
            "the hash function {name} is not supported by this node, which could not check such a block: use sha2-256 or sha2-512"
        ))),
        _ => Err(Error::invalid(unknown)),
    }
}

/// `block/put`: each file of the form a block.
pub(super) fn put(node: &Node, call: &Call, form: Form) -> Result<Reply> {
    let format = Format::of(call)?;
    let cids = call.cid_writer()?;
    let big = call.flag("allow-big-block", false);
    let ipfs = node.ipfs.clone();
    let blocks = stream::try_unfold(Files::open(form)?, move |mut files| async move {
        if !files.next().await? {
            return Ok(None);
        }
        let data = files.whole(MAX_BLOCK).await?.ok_or_else(|| too_big(big))?;
        Ok::<_, Error>(Some((data, files)))
    });
    let put = blocks
        .map(move |data| {
            let ipfs = ipfs.clone();
            async move {
                let data: Bytes = data?;
                let (cid, size) = (format.cid(&data)?, data.len() as u64);
                ipfs.put_blocks(vec![Block { cid, data }]).await?;
                Ok(Stat { key: cids.write(&cid), size })
            }
        })
        .buffered(PUTTING);
    Ok(Reply::lines(call.text, put, |stat: &Stat| format!("{}\n", stat.key)))
}

/// Too big for IPFS, whoever allows it.
pub(super) fn too_big(allowed: bool) -> Error {
    if !allowed {
        return Error::too_large(TOO_BIG);
    }
    Error::too_large(format!(
        "this node keeps no block of more than {MAX_BLOCK} bytes, whatever --allow-big-block says: none could fetch it from here"
    ))
}

/// What became of a block.
#[derive(Serialize)]
struct Removed {
    #[serde(rename = "Hash")]
    hash: String,
    #[serde(rename = "Error", skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `block/rm`.
pub(super) async fn rm(node: &Node, call: &Call) -> Result<Reply> {
    let cids = call.cid_writer()?;
    let (force, quiet) = (call.flag("force", false), call.flag("quiet", false));
    let embedded = node.embedded()?;
    let blocks = embedded.reader(true);
    let mut wanted = Vec::new();
    for path in &call.args {
        wanted.push(path::block(&*blocks, path).await?);
    }
    let lines = embedded.remove_blocks(wanted).await?.into_iter().map(move |(cid, fate)| Removed {
        hash: cids.write(&cid),
        error: complaint(&cid, fate, force, &cids),
    });
    // A quiet removal tells only what went wrong.
    let lines: Vec<_> = lines.filter(|line| !quiet || line.error.is_some()).map(Ok).collect();
    Ok(Reply::lines(call.text, stream::iter(lines), |line: &Removed| match &line.error {
        Some(error) => format!("cannot remove {}: {error}\n", line.hash),
        None => format!("removed {}\n", line.hash),
    }))
}

fn complaint(cid: &Cid, fate: Fate, force: bool, cids: &CidWriter) -> Option<String> {
    Some(match fate {
        Fate::Removed => return None,
        Fate::Absent if force => return None,
        Fate::Absent => format!("ipld: could not find {cid}"),
        Fate::Pinned(PinnedBy::Direct) => "pinned: direct".into(),
        Fate::Pinned(PinnedBy::Recursive) => "pinned: recursive".into(),
        Fate::Pinned(PinnedBy::Via(root)) => format!("pinned via {}", cids.write(&root)),
        Fate::InUse => "a pin in progress needs it: try again when it is done".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cids_are_those_that_kubo_gives() {
        for (format, cid) in [
            (Format::new(RAW, SHA2_256), "bafkreib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy"),
            (Format::new(DAG_PB, SHA2_256), "bafybeib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy"),
            (Format::new(DAG_JSON, SHA2_256), "baguqeerah7eqxvgykojdcgp6dztzc2sefp57a2fxhxvwz3wvfi2lqf2kvqpa"),
            (Format { version: 0, ..Format::new(DAG_PB, SHA2_256) }, "QmSdeCbiA1B7eqUeRPZiXEzsZPK1JoGZkjeCbAoDzSdrLV"),
            (
                Format::new(RAW, SHA2_512),
                "bafkrgqctdl4m6h5gzbjpnjn3banuxry7a2c3zqwm2ynpetuf56ie3toq3rmmrosk6d4t2z2cyoaqevrqilkaypqbs5nw4lrblntdufbsaskwi",
            ),
            (Format::new(RAW, IDENTITY), "bafkqac3cnrxwg2zamjxwi6ik"),
        ] {
            assert_eq!(format.cid(b"block body\n").expect(cid).to_string(), cid);
        }
        Format::new(RAW, IDENTITY).cid(&[0; 65]).expect_err("too long to be inline");
    }

    #[test]
    fn names_of_codecs_and_hashes() {
        assert_eq!(codec("0x55"), Ok(RAW));
        assert_eq!(codec("nosuch").expect_err("codec").message(), "unknown multicodec: \"nosuch\"");
        assert_eq!(hash_code("nosuch", "unknown").expect_err("hash").message(), "unknown");
        assert!(hash_code("blake3", "").expect_err("hash").message().contains("use sha2-256"));
        assert!(hash_code("md5", "").expect_err("hash").message().contains("insecure"));
    }
}
