//! `dag/export` and `dag/import`: DAGs as CAR archives, streaming both ways.
//!
//! An import stores what comes in batches, durably, each block checked; then, as Kubo pins the roots, the cluster does. A
//! root whose DAG did not come whole is not pinned, because the cluster would look for the rest for ever; the line for
//! that root says what is missing.

use super::call::{Call, Form};
use super::dag::Slash;
use super::path;
use super::reply::Reply;
use super::upload::Files;
use super::walk::Walk;
use super::Node;
use crate::api::types::PinOptions;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::ipfs::unixfs::BlockGetter;
use crate::ipfs::{car, Block, Ipfs};
use bytes::Bytes;
use cid::Cid;
use futures::{stream, StreamExt};
use serde::Serialize;
use std::sync::Arc;

/// Bytes of blocks that are made durable together.
const BATCH_BYTES: usize = 4 << 20;
/// Blocks of the same.
const BATCH_BLOCKS: usize = 1_024;
/// Most roots that one import pins.
const MAX_ROOTS: usize = 10_000;

/// `dag/export`.
pub(super) async fn export(node: &Node, call: &Call) -> Result<Reply> {
    let blocks = node.embedded()?.reader(call.offline);
    let found = path::resolve(&*blocks, &call.args[0]).await?;
    if !found.rest.is_empty() {
        return Err(Error::invalid(format!("cannot export {}: it is no whole block", call.args[0])));
    }
    let root = found.cid;
    // Asked for before anything is sent: a root that nobody has is an error, not half an archive.
    blocks.get(&root).await?;
    let head = stream::iter([Ok(Bytes::from(car::header(&[root])))]);
    let sections = stream::try_unfold(Walk::new(blocks, root), |mut walk| async move {
        match walk.next().await {
            Ok(None) => Ok(None),
            Ok(Some((cid, block))) => {
                let head = Bytes::from(car::section_head(&cid, block.len()));
                Ok(Some((stream::iter([Ok(head), Ok(block)]), walk)))
            }
            Err((cid, error)) => Err(error.context(format!("walk failed: could not load link \"{cid}\""))),
        }
    });
    let sections = futures::TryStreamExt::try_flatten(sections);
    Ok(Reply::Stream(head.chain(sections).boxed(), "application/vnd.ipld.car", None))
}

#[derive(Serialize)]
struct Root {
    #[serde(rename = "Cid")]
    cid: Slash,
    #[serde(rename = "PinErrorMsg")]
    error: String,
}

#[derive(Serialize)]
struct Stats {
    #[serde(rename = "BlockCount")]
    blocks: u64,
    #[serde(rename = "BlockBytesCount")]
    bytes: u64,
}

/// A line of an import: a root, or the totals at the end.
#[derive(Serialize)]
enum Line {
    Root(Root),
    Stats(Stats),
}

/// An import under way: first all archives, then root by root, then the totals.
struct Import {
    files: Option<Files>,
    ipfs: Arc<dyn Ipfs>,
    blocks: Arc<dyn BlockGetter>,
    cluster: Cluster,
    pin: bool,
    totals: bool,
    roots: Vec<Cid>,
    stats: Stats,
}

impl Import {
    async fn next(&mut self) -> Result<Option<Line>> {
        if let Some(mut files) = self.files.take() {
            while files.next().await? {
                self.archive(&mut files).await?;
            }
            if !self.pin {
                self.roots.clear();
            }
            // Taken from the end.
            self.roots.reverse();
        }
        if let Some(root) = self.roots.pop() {
            let error = pin(self.blocks.clone(), self.cluster.clone(), root)
                .await
                .err()
                .map(|e| e.message().to_owned());
            return Ok(Some(Line::Root(Root { cid: Slash::of(&root), error: error.unwrap_or_default() })));
        }
        if !std::mem::take(&mut self.totals) {
            return Ok(None);
        }
        let Stats { blocks, bytes } = self.stats;
        Ok(Some(Line::Stats(Stats { blocks, bytes })))
    }

    async fn archive(&mut self, files: &mut Files) -> Result<()> {
        let mut stream = files.stream();
        // An empty file is an empty archive, as Kubo has it.
        let Some(first) = stream.next().await.transpose()? else { return Ok(()) };
        let stream = stream::iter([Ok(first)]).chain(stream);
        let mut reader = car::Reader::open(stream).await?;
        for root in reader.roots() {
            if !self.roots.contains(root) {
                if self.roots.len() >= MAX_ROOTS {
                    return Err(Error::too_large(format!("an import may have {MAX_ROOTS} roots at most")));
                }
                self.roots.push(*root);
            }
        }
        let (mut batch, mut bytes, mut last) = (Vec::new(), 0, None);
        loop {
            let block = match reader.next().await {
                Ok(block) => block,
                Err(error) => {
                    let after = last.map(|cid: Cid| format!(" after block \"{cid}\"")).unwrap_or_default();
                    return Err(error.context(format!("import failed{after}")));
                }
            };
            let ended = block.is_none();
            if let Some(block) = block {
                self.stats.blocks += 1;
                self.stats.bytes += block.data.len() as u64;
                last = Some(block.cid);
                bytes += block.data.len();
                batch.push(block);
            }
            if ended || bytes >= BATCH_BYTES || batch.len() >= BATCH_BLOCKS {
                store(self.ipfs.clone(), std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            if ended {
                return Ok(());
            }
        }
    }
}

async fn store(ipfs: Arc<dyn Ipfs>, batch: Vec<Block>) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    ipfs.put_blocks(batch).await.map_err(|e| e.context("import failed"))
}

/// Pins a root in the cluster, if all of it is here.
async fn pin(blocks: Arc<dyn BlockGetter>, cluster: Cluster, root: Cid) -> Result<()> {
    let mut walk = Walk::new(blocks, root);
    while walk.next().await.map_err(|(_, error)| error)?.is_some() {}
    cluster.pin(root, PinOptions::default()).await.map(drop)
}

/// `dag/import`.
pub(super) fn import(node: &Node, call: &Call, form: Form) -> Result<Reply> {
    let import = Import {
        files: Some(Files::open(form)?),
        ipfs: node.ipfs.clone(),
        blocks: node.embedded()?.reader(true),
        cluster: node.cluster.clone(),
        pin: call.flag("pin-roots", true),
        totals: call.flag("stats", false),
        roots: Vec::new(),
        stats: Stats { blocks: 0, bytes: 0 },
    };
    let lines = stream::try_unfold(import, |mut import| async move {
        Ok::<_, Error>(import.next().await?.map(|line| (line, import)))
    });
    let cids = call.cid_writer()?;
    Ok(Reply::lines(call.text, lines, move |line: &Line| match line {
        Line::Root(root) => {
            let cid = root.cid.cid.parse().map_or_else(|_| root.cid.cid.clone(), |cid| cids.write(&cid));
            match root.error.as_str() {
                "" => format!("Pinned root\t{cid}\tsuccess\n"),
                error => format!("Pinned root\t{cid}\tFAILED: {error}\n"),
            }
        }
        Line::Stats(stats) => format!("Imported {} blocks ({} bytes)\n", stats.blocks, stats.bytes),
    }))
}
