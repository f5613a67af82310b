//! Entries to a folder: one node while it is small, a tree of shards when it grows large.
//!
//! The form is decided exactly as Kubo decides it (the sum of names and binary CIDs against [`SHARD_ABOVE`]), because
//! the CID depends on it.

use super::hamt::{self, MAX_DEPTH};
use super::hash::cid_len;
use super::import::make_node;
use super::node::{DataType, PbLink, PbNode, UnixFs};
use super::{BlockSink, ImportOptions, Imported};
use crate::error::{Error, Result};
use crate::ipfs::Block;

/// A folder whose names and CIDs take more bytes than this is sharded (Kubo's `Import.UnixFSHAMTDirectorySizeThreshold`).
const SHARD_ABOVE: usize = 256 * 1024;
/// Longest name of an entry, bytes: what Linux can hold is 255, other systems' names grow up to four times in UTF-8.
const MAX_NAME: usize = 1_024;

/// One entry of a folder being built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name in the folder.
    pub name: String,
    /// What it points to.
    pub target: Imported,
}

/// Builds a folder from its entries (any order; sorted here as IPFS does), emits its block(s).
///
/// # Errors
/// The sink's, or [`crate::Kind::Invalid`] for an impossible or repeated name.
pub async fn build_directory(
    options: &ImportOptions,
    mut entries: Vec<Link>,
    sink: &mut dyn BlockSink,
) -> Result<Imported> {
    options.validate()?;
    entries.sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    for entry in &entries {
        check_name(&entry.name)?;
    }
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Error::invalid(format!("the name {:?} appears twice in one folder", pair[0].name)));
    }
    let estimate: usize = entries.iter().map(|e| e.name.len() + cid_len(&e.target.cid)).sum();
    if estimate > SHARD_ABOVE {
        return build_shards(options, &entries, sink).await;
    }
    let below = entries.iter().map(|e| e.target.dag_size).sum();
    let links =
        entries.into_iter().map(|e| PbLink { cid: e.target.cid, name: e.name, size: e.target.dag_size });
    let data = UnixFs::new(DataType::Directory).encode();
    let node = PbNode { links: links.collect(), data: Some(data.into()) };
    let (block, dag_size) = make_node(options, &node, below);
    let cid = block.cid;
    sink.put(block).await?;
    Ok(Imported { cid, dag_size, file_size: 0 })
}

fn check_name(name: &str) -> Result<()> {
    let problem = match name {
        "" => "is empty",
        "." | ".." => "means another folder",
        n if n.contains('/') => "contains a slash",
        n if n.contains('\0') => "contains a zero byte",
        n if n.len() > MAX_NAME => "is longer than 1024 bytes",
        _ => return Ok(()),
    };
    let shown: String = name.chars().take(64).collect();
    Err(Error::invalid(format!("the name {shown:?} cannot stand in a folder: it {problem}")))
}

/// An entry with the hash of its name.
struct Hashed<'a> {
    hash: u64,
    entry: &'a Link,
}

/// The sharded form. Shards of one place of the root are built and handed on before the next, so that what is held
/// beside the entries is a small part of the tree.
async fn build_shards(
    options: &ImportOptions,
    entries: &[Link],
    sink: &mut dyn BlockSink,
) -> Result<Imported> {
    let mut hashed: Vec<Hashed<'_>> =
        entries.iter().map(|entry| Hashed { hash: hamt::name_hash(entry.name.as_bytes()), entry }).collect();
    hashed.sort_by_key(|h| h.hash);
    let mut links = Vec::new();
    let mut places = Vec::new();
    for group in hashed.chunk_by(|a, b| hamt::place(a.hash, 0, 8) == hamt::place(b.hash, 0, 8)) {
        let place = hamt::place(group[0].hash, 0, 8).unwrap_or_default();
        let mut blocks = Vec::new();
        links.push(build_place(options, group, place, 0, &mut blocks)?);
        places.push(place);
        for block in blocks {
            sink.put(block).await?;
        }
    }
    let (block, dag_size) = make_shard(options, links, &places);
    let cid = block.cid;
    sink.put(block).await?;
    Ok(Imported { cid, dag_size, file_size: 0 })
}

fn make_shard(options: &ImportOptions, links: Vec<PbLink>, places: &[usize]) -> (Block, u64) {
    let below = links.iter().map(|l| l.size).sum();
    let data = hamt::shard(places.iter().copied()).encode();
    make_node(options, &PbNode { links, data: Some(data.into()) }, below)
}

/// The link of one place: to the entry itself, or to a shard of all entries that meet there.
fn build_place(
    options: &ImportOptions,
    group: &[Hashed<'_>],
    place: usize,
    level: usize,
    blocks: &mut Vec<Block>,
) -> Result<PbLink> {
    if let [only] = group {
        let target = &only.entry.target;
        let name = format!("{place:02X}{}", only.entry.name);
        return Ok(PbLink { cid: target.cid, name, size: target.dag_size });
    }
    let level = level + 1;
    if level >= MAX_DEPTH {
        return Err(Error::invalid(format!(
            "the names {:?} and {:?} have the same hash and cannot stand in one sharded folder: rename one",
            group[0].entry.name, group[1].entry.name
        )));
    }
    let mut links = Vec::new();
    let mut places = Vec::new();
    for group in group.chunk_by(|a, b| hamt::place(a.hash, level, 8) == hamt::place(b.hash, level, 8)) {
        let place = hamt::place(group[0].hash, level, 8).unwrap_or_default();
        links.push(build_place(options, group, place, level, blocks)?);
        places.push(place);
    }
    let (block, size) = make_shard(options, links, &places);
    let link = PbLink { cid: block.cid, name: format!("{place:02X}"), size };
    blocks.push(block);
    Ok(link)
}
