//! `refs`: what links to what; `refs/local`: every block here.

use super::call::{Call, CidWriter};
use super::path;
use super::reply::Reply;
use super::Node;
use crate::error::{Error, Result};
use crate::ipfs::unixfs::hash::DAG_PB;
use crate::ipfs::unixfs::node::PbNode;
use crate::ipfs::unixfs::{links_of, BlockGetter};
use cid::Cid;
use futures::{stream, StreamExt, TryStreamExt};
use serde::Serialize;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Most blocks that `unique` remembers, eight bytes and their depth each.
const MAX_SEEN: usize = 10_000_000;
/// Most links that may wait.
const MAX_WAITING: usize = 500_000;

#[derive(Serialize)]
struct Ref {
    #[serde(rename = "Ref")]
    text: String,
    #[serde(rename = "Err")]
    error: String,
}

/// A link on its way to be told.
struct Edge {
    from: Cid,
    name: String,
    to: Cid,
    depth: i64,
}

/// A listing under way.
struct Refs {
    blocks: Arc<dyn BlockGetter>,
    cids: CidWriter,
    format: String,
    /// How deep; negative is everywhere.
    max_depth: i64,
    unique: bool,
    keys: RandomState,
    seen: HashMap<u64, i64>,
    /// Roots that are still to be listed, the next one last.
    roots: Vec<Cid>,
    waiting: Vec<Edge>,
    failed: bool,
}

impl Refs {
    async fn next(&mut self) -> Result<Option<Ref>> {
        if self.failed {
            return Ok(None);
        }
        match self.step().await {
            Ok(text) => Ok(text.map(|text| Ref { text, error: String::new() })),
            // Told in a line, as Kubo does: what came before stands.
            Err(error) => {
                self.failed = true;
                Ok(Some(Ref { text: String::new(), error: error.message().to_owned() }))
            }
        }
    }

    async fn step(&mut self) -> Result<Option<String>> {
        loop {
            let Some(edge) = self.waiting.pop() else {
                let Some(root) = self.roots.pop() else { return Ok(None) };
                self.open(root, 1).await?;
                continue;
            };
            let (deeper, told) = self.visit(&edge)?;
            let text = told.then(|| self.text(&edge));
            if deeper {
                self.open(edge.to, edge.depth + 1).await?;
            }
            if text.is_some() {
                return Ok(text);
            }
        }
    }

    /// Whether to go on below a link, and whether to tell it.
    fn visit(&mut self, edge: &Edge) -> Result<(bool, bool)> {
        if self.max_depth >= 0 && edge.depth > self.max_depth {
            return Ok((false, false));
        }
        let deeper = self.max_depth < 0 || edge.depth < self.max_depth;
        if !self.unique {
            return Ok((deeper, true));
        }
        let key = self.keys.hash_one(edge.to);
        let before = self.seen.get(&key).copied();
        // Seen as high up or higher: everything below was told then.
        if before.is_some_and(|depth| self.max_depth < 0 || depth <= edge.depth) {
            return Ok((false, false));
        }
        if self.seen.len() >= MAX_SEEN {
            return Err(Error::too_large(format!(
                "more than {MAX_SEEN} different links: list them without unique"
            )));
        }
        self.seen.insert(key, edge.depth);
        Ok((deeper, before.is_none()))
    }

    fn text(&self, edge: &Edge) -> String {
        if self.format.is_empty() {
            return self.cids.write(&edge.to);
        }
        self.format
            .replace("<src>", &self.cids.write(&edge.from))
            .replace("<dst>", &self.cids.write(&edge.to))
            .replace("<linkname>", &edge.name)
    }

    /// Makes the links of a block wait.
    async fn open(&mut self, cid: Cid, depth: i64) -> Result<()> {
        let block = self.blocks.get(&cid).await?;
        let links: Vec<(String, Cid)> = if cid.codec() == DAG_PB {
            let node = PbNode::decode(&block).map_err(|e| e.context(format!("block {cid}")))?;
            node.links.into_iter().map(|link| (link.name, link.cid)).collect()
        } else {
            links_of(&cid, &block)?.into_iter().map(|to| (String::new(), to)).collect()
        };
        if self.waiting.len() + links.len() > MAX_WAITING {
            return Err(Error::too_large(format!("more than {MAX_WAITING} links wait to be followed")));
        }
        let edges = links.into_iter().rev().map(|(name, to)| Edge { from: cid, name, to, depth });
        self.waiting.extend(edges);
        Ok(())
    }
}

/// `refs`.
pub(super) async fn refs(node: &Node, call: &Call) -> Result<Reply> {
    let cids = call.cid_writer()?;
    let mut format = call.option("format").unwrap_or("").to_owned();
    if call.flag("edges", false) {
        if !format.is_empty() && format != "<dst>" {
            return Err(Error::invalid("using format argument with edges is not allowed"));
        }
        format = "<src> -> <dst>".into();
    }
    let max_depth = match call.flag("recursive", false) {
        true => call.number("max-depth").unwrap_or(-1),
        false => 1,
    };
    let blocks = node.embedded()?.reader(call.offline);
    let mut roots = Vec::new();
    for path in &call.args {
        roots.push(path::block(&*blocks, path).await?);
    }
    roots.reverse();
    let refs = Refs {
        blocks,
        cids,
        format,
        max_depth,
        unique: call.flag("unique", false),
        keys: RandomState::new(),
        seen: HashMap::new(),
        roots,
        waiting: Vec::new(),
        failed: false,
    };
    let lines = stream::try_unfold(refs, |mut refs| async move {
        Ok::<_, Error>(refs.next().await?.map(|line| (line, refs)))
    });
    Ok(Reply::lines(call.text, lines, words))
}

fn words(line: &Ref) -> String {
    match line.error.as_str() {
        "" => format!("{}\n", line.text),
        error => format!("{error}\n"),
    }
}

/// `refs/local`.
pub(super) async fn local(node: &Node, call: &Call) -> Result<Reply> {
    let cids = call.cid_writer()?;
    let blocks = node.embedded()?.blocks_here().await?;
    let lines = blocks.map_ok(move |cid| Ref { text: cids.write(&cid), error: String::new() }).boxed();
    Ok(Reply::lines(call.text, lines, words))
}
