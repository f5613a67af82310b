//! `cat`, `get`, `ls`: files and folders, read by the same code that serves `GET /ipfs/…` ([`unixfs`], [`Archive`]).

use super::call::Call;
use super::path::{follow, resolve, Path};
use super::reply::Reply;
use super::{now, Node};
use crate::api::tar::{Archive, Source};
use crate::error::{Error, Kind, Result};
use crate::ipfs::unixfs::hash::{DAG_PB, RAW};
use crate::ipfs::unixfs::node::{PbLink, PbNode};
use crate::ipfs::unixfs::{self, links_of, BlockGetter};
use crate::ipfs::{DirEntry, NodeKind};
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

/// Entries of folders that one answer in one piece may hold; they are sorted, so they are held.
const MAX_ENTRIES: usize = 200_000;
/// Entries whose blocks are looked at together.
const LIST_AHEAD: usize = 16;

/// One file, or a part of it, of a `cat`.
struct Part {
    cid: Cid,
    range: Range<u64>,
    /// What a symbolic link says; its content.
    target: Option<String>,
}

/// What a UnixFS reader says of a block that is none.
async fn load(blocks: &dyn BlockGetter, cid: &Cid) -> Result<unixfs::Node> {
    if ![DAG_PB, RAW].contains(&cid.codec()) {
        return Err(Error::invalid("unknown node type"));
    }
    unixfs::Node::load(blocks, cid).await
}

/// `cat`: files one behind the other, or the part of that which `offset` and `length` name.
pub(super) async fn cat(node: &Node, call: &Call) -> Result<Reply> {
    let negative = |what: &str| Error::invalid(format!("cannot specify negative {what}"));
    let skip = u64::try_from(call.number("offset").unwrap_or(0)).map_err(|_| negative("offset"))?;
    let length =
        call.number("length").map(|n| u64::try_from(n).map_err(|_| negative("length"))).transpose()?;
    let blocks = node.embedded()?.reader(call.offline);
    let (mut skip, mut left) = (skip, length.unwrap_or(u64::MAX));
    let (mut parts, mut total) = (Vec::new(), 0_u64);
    for path in &call.args {
        if left == 0 {
            break;
        }
        let found = resolve(&*blocks, path).await?;
        if !found.rest.is_empty() {
            return Err(Error::invalid("unknown node type"));
        }
        let opened = load(&*blocks, &found.cid).await?;
        let target = match &opened {
            unixfs::Node::Directory(_) | unixfs::Node::Shard(..) => {
                return Err(Error::invalid("this dag node is a directory"));
            }
            unixfs::Node::Symlink(target) => Some(target.clone()),
            unixfs::Node::Raw(_) | unixfs::Node::File(..) => None,
        };
        let size = target.as_ref().map_or_else(|| opened.size(), |target| target.len() as u64);
        let start = skip.min(size);
        skip -= start;
        let end = size.min(start.saturating_add(left));
        left -= end - start;
        total = total.saturating_add(end - start);
        if end > start {
            parts.push(Part { cid: found.cid, range: start..end, target });
        }
    }
    let pieces = stream::iter(parts)
        .then(move |part| {
            let blocks = blocks.clone();
            async move {
                match part.target {
                    Some(target) => {
                        let range = part.range.start as usize..part.range.end as usize;
                        Ok(stream::iter([Ok(Bytes::from(target).slice(range))]).boxed())
                    }
                    None => unixfs::cat(blocks, part.cid, Some(part.range)).await,
                }
            }
        })
        .try_flatten();
    Ok(Reply::Stream(pieces.boxed(), "text/plain", Some(total)))
}

/// A folder's content for an archive, by CID.
struct Reading(Arc<dyn BlockGetter>);

#[async_trait]
impl Source for Reading {
    async fn ls(&self, path: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)> {
        unixfs::ls(self.0.clone(), unixfs::parse_path(path)?.0).await
    }
    async fn cat(&self, path: &str) -> Result<BoxStream<'static, Result<Bytes>>> {
        unixfs::cat(self.0.clone(), unixfs::parse_path(path)?.0, None).await
    }
}

/// `get`: a tar archive, which the command line unpacks.
pub(super) async fn get(node: &Node, call: &Call) -> Result<Reply> {
    if call.flag("compress", false) {
        let level = call.number("compression-level").unwrap_or(1);
        return Err(Error::invalid(if (1..=9).contains(&level) {
            "compression is not offered by this node: get it without --compress and compress it here"
        } else {
            "compression level must be between 1 and 9"
        }));
    }
    let path = Path::parse(&call.args[0])?;
    let name = path.name();
    let blocks = node.embedded()?.reader(call.offline);
    let found = follow(&*blocks, path).await?;
    if !found.rest.is_empty() || ![DAG_PB, RAW].contains(&found.cid.codec()) {
        return Err(Error::invalid("unknown node type"));
    }
    let (entry, entries) = unixfs::ls(blocks.clone(), found.cid).await?;
    let size = match entry.kind {
        NodeKind::File => entry.size,
        NodeKind::Symlink => entry.target.as_ref().map_or(0, |target| target.len() as u64),
        NodeKind::Directory => whole_size(&*blocks, &found.cid).await?,
    };
    let archive = Archive::new(Arc::new(Reading(blocks)), &name, now(), entry, entries);
    Ok(Reply::Stream(archive.into_stream().boxed(), "application/x-tar", Some(size)))
}

/// What the blocks below a folder say that they hold, with the folder's own: what clients show progress by.
async fn whole_size(blocks: &dyn BlockGetter, cid: &Cid) -> Result<u64> {
    let block = blocks.get(cid).await?;
    let below =
        PbNode::decode(&block)?.links.into_iter().fold(0_u64, |sum, link| sum.saturating_add(link.size));
    Ok(below.saturating_add(block.len() as u64))
}

/// A line of `ls`.
#[derive(Serialize)]
struct Line {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Hash")]
    hash: String,
    #[serde(rename = "Size")]
    size: u64,
    /// UnixFS's number for what it is.
    #[serde(rename = "Type")]
    kind: u8,
    #[serde(rename = "Target")]
    target: String,
    #[serde(rename = "Mode")]
    mode: u32,
    #[serde(rename = "ModTime")]
    mtime: &'static str,
}

#[derive(Serialize)]
struct Object {
    #[serde(rename = "Hash")]
    hash: String,
    #[serde(rename = "Links")]
    links: Vec<Line>,
}

#[derive(Serialize)]
struct Objects {
    #[serde(rename = "Objects")]
    objects: Vec<Object>,
}

/// UnixFS's numbers.
const DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const SYMLINK: u8 = 4;
/// Go's zero time: nothing here keeps times.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// `ls`.
pub(super) async fn ls(node: &Node, call: &Call) -> Result<Reply> {
    let blocks = node.embedded()?.reader(call.offline);
    let cids = call.cid_writer()?;
    let look = call.flag("resolve-type", true) || call.flag("size", true);
    // All paths before any listing: a wrong one is an error of the whole call.
    let mut roots = Vec::new();
    for path in &call.args {
        let found = resolve(&*blocks, path).await?;
        roots.push((path.clone(), found.cid));
    }
    let several = roots.len() > 1;
    let lines = move |cid: Cid| {
        let blocks = blocks.clone();
        async move {
            let lines = listed(blocks.clone(), cid).await?.map_ok(move |link| {
                let blocks = blocks.clone();
                async move {
                    let hash = cids.write(&link.cid);
                    line(&*blocks, link, hash, look).await
                }
            });
            Ok::<_, Error>(lines.try_buffered(LIST_AHEAD))
        }
    };
    if call.flag("stream", false) {
        let objects = stream::iter(roots)
            .then(move |(path, cid)| {
                let lines = lines(cid);
                async move {
                    let one = move |line| Objects {
                        objects: vec![Object { hash: path.clone(), links: vec![line] }],
                    };
                    Ok::<_, Error>(lines.await?.map_ok(one))
                }
            })
            .try_flatten();
        return Ok(Reply::lines(call.text, objects, |objects: &Objects| {
            objects.objects.iter().flat_map(|o| &o.links).map(|line| row(line, 9)).collect()
        }));
    }
    let (mut objects, mut count) = (Vec::new(), 0);
    for (path, cid) in roots {
        let mut links = Vec::new();
        let mut lines = std::pin::pin!(lines(cid).await?);
        while let Some(line) = lines.next().await {
            count += 1;
            if count > MAX_ENTRIES {
                return Err(Error::too_large(format!(
                    "the listing has more than {MAX_ENTRIES} entries: ask for it with stream=true"
                )));
            }
            links.push(line?);
        }
        links.sort_by(|a, b| a.name.cmp(&b.name));
        objects.push(Object { hash: path, links });
    }
    let (headers, all) = (call.flag("headers", false), Objects { objects });
    Reply::either(call.text, &all, || table(&all.objects, several, headers))
}

/// What a listing of `cid` goes through: entries of a folder, pieces of a file, links of anything else.
async fn listed(blocks: Arc<dyn BlockGetter>, cid: Cid) -> Result<BoxStream<'static, Result<PbLink>>> {
    if [DAG_PB, RAW].contains(&cid.codec()) {
        let node = unixfs::Node::load(&*blocks, &cid).await?;
        return Ok(unixfs::links(blocks, node));
    }
    let block = blocks.get(&cid).await?;
    let links = links_of(&cid, &block)?;
    Ok(stream::iter(links.into_iter().map(|cid| Ok(PbLink { cid, name: String::new(), size: 0 }))).boxed())
}

async fn line(blocks: &dyn BlockGetter, link: PbLink, hash: String, look: bool) -> Result<Line> {
    let mut line = Line {
        name: link.name.clone(),
        hash,
        size: 0,
        kind: 0,
        target: String::new(),
        mode: 0,
        mtime: NO_TIME,
    };
    if !look {
        return Ok(line);
    }
    match unixfs::describe(blocks, link).await {
        Ok(entry) => {
            line.kind = match entry.kind {
                NodeKind::Directory => DIRECTORY,
                NodeKind::File => FILE,
                NodeKind::Symlink => SYMLINK,
            };
            line.size = match (entry.kind, &entry.target) {
                (NodeKind::Symlink, Some(target)) => target.len() as u64,
                _ => entry.size,
            };
            line.target = entry.target.unwrap_or_default();
        }
        // A link to something that is no file is still a link.
        Err(error) if matches!(error.kind(), Kind::Invalid | Kind::Corrupt) => {}
        Err(error) => return Err(error),
    }
    Ok(line)
}

fn size_text(line: &Line) -> String {
    if line.kind == DIRECTORY {
        "-".into()
    } else {
        line.size.to_string()
    }
}

fn row(line: &Line, width: usize) -> String {
    let slash = if line.kind == DIRECTORY { "/" } else { "" };
    format!("{} {:<width$} {}{slash}\n", line.hash, size_text(line), line.name)
}

/// The listing as columns.
fn table(objects: &[Object], several: bool, headers: bool) -> String {
    let mut out = String::new();
    for (n, object) in objects.iter().enumerate() {
        if several {
            let gap = if n > 0 { "\n" } else { "" };
            let _ = writeln!(out, "{gap}{}:", object.hash);
        }
        let heads = if headers { 4 } else { 0 };
        let width = object.links.iter().map(|line| size_text(line).len()).max().unwrap_or(0).max(heads);
        let hash = object.links.iter().map(|line| line.hash.len()).max().unwrap_or(0).max(heads);
        if headers {
            let _ = writeln!(out, "{:<hash$} {:<width$} Name", "Hash", "Size");
        }
        object.links.iter().for_each(|line| out.push_str(&row(line, width)));
    }
    out
}
