//! `dag/get`, `dag/put`, `dag/resolve`, `dag/stat`: values and whole DAGs.

use super::block::{codec, hash_code, too_big, Format};
use super::call::{Call, Form};
use super::path;
use super::reply::Reply;
use super::upload::Files;
use super::walk::{Visited, Walk};
use super::{human, Node};
use crate::error::{Error, Result};
use crate::ipfs::ipld;
use crate::ipfs::unixfs::node::MAX_BLOCK;
use crate::ipfs::unixfs::BlockGetter;
use crate::ipfs::Block;
use bytes::Bytes;
use cid::Cid;
use futures::{stream, StreamExt};
use serde::Serialize;
use std::sync::Arc;

/// Longest text of a value that becomes a block: JSON is longer than what it says.
const MAX_INPUT: usize = 4 * MAX_BLOCK;

/// A CID as IPLD writes it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Slash {
    #[serde(rename = "/")]
    pub(super) cid: String,
}

impl Slash {
    pub(super) fn of(cid: &Cid) -> Self {
        Slash { cid: cid.to_string() }
    }
}

fn known(codec: u64, name: &str) -> Result<u64> {
    if ipld::knows(codec) {
        return Ok(codec);
    }
    Err(Error::invalid(format!(
        "the codec {name} is not offered by this node: use dag-cbor, dag-json, dag-pb or raw"
    )))
}

fn codec_option(call: &Call, option: &str, default: &str) -> Result<u64> {
    let name = call.option(option).unwrap_or(default);
    known(codec(name)?, name)
}

/// `dag/get`.
pub(super) async fn get(node: &Node, call: &Call) -> Result<Reply> {
    let output = codec_option(call, "output-codec", "dag-json")?;
    let blocks = node.embedded()?.reader(call.offline);
    let found = path::resolve(&*blocks, &call.args[0]).await?;
    let value = path::value(&*blocks, &found).await?;
    let bytes = ipld::encode(output, &value)?;
    Ok(Reply::Stream(stream::iter([Ok(Bytes::from(bytes))]).boxed(), "text/plain", None))
}

#[derive(Serialize)]
struct Put {
    #[serde(rename = "Cid")]
    cid: Slash,
}

/// `dag/put`: each file of the form a value.
pub(super) fn put(node: &Node, call: &Call, form: Form) -> Result<Reply> {
    let input = codec_option(call, "input-codec", "dag-json")?;
    let store = codec_option(call, "store-codec", "dag-cbor")?;
    let hash = call.option("hash").unwrap_or("sha2-256");
    let hash = hash_code(hash, &format!("unknown multicodec: {hash:?}"))?;
    let (format, big) = (Format::new(store, hash), call.flag("allow-big-block", false));
    let ipfs = node.ipfs.clone();
    let put = stream::try_unfold(Files::open(form)?, move |mut files| {
        let ipfs = ipfs.clone();
        async move {
            if !files.next().await? {
                return Ok(None);
            }
            let text = files.whole(MAX_INPUT).await?.ok_or_else(|| too_big(big))?;
            let value = ipld::decode(input, &text)?;
            let data = Bytes::from(ipld::encode(store, &value)?);
            if data.len() > MAX_BLOCK {
                return Err(too_big(big));
            }
            let cid = format.cid(&data)?;
            ipfs.put_blocks(vec![Block { cid, data }]).await?;
            Ok::<_, Error>(Some((Put { cid: Slash::of(&cid) }, files)))
        }
    });
    let cids = call.cid_writer()?;
    Ok(Reply::lines(call.text, put, move |put: &Put| {
        format!("{}\n", put.cid.cid.parse().map_or_else(|_| put.cid.cid.clone(), |cid| cids.write(&cid)))
    }))
}

#[derive(Serialize)]
struct Resolved {
    #[serde(rename = "Cid")]
    cid: Slash,
    #[serde(rename = "RemPath")]
    rest: String,
}

/// `dag/resolve`.
pub(super) async fn resolve(node: &Node, call: &Call) -> Result<Reply> {
    let cids = call.cid_writer()?;
    let blocks = node.embedded()?.reader(call.offline);
    let found = path::resolve(&*blocks, &call.args[0]).await?;
    let rest: String = found.rest.iter().map(|segment| format!("/{segment}")).collect();
    let resolved = Resolved { cid: Slash::of(&found.cid), rest: rest.clone() };
    Reply::either(call.text, &resolved, || format!("{}{rest}", cids.write(&found.cid)))
}

/// One DAG of a `dag/stat`.
#[derive(Clone, Serialize)]
struct DagStat {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "NumBlocks")]
    blocks: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What is known so far; the last one has everything.
#[derive(Serialize)]
struct Summary {
    #[serde(rename = "UniqueBlocks", skip_serializing_if = "is_zero")]
    unique: u64,
    #[serde(rename = "TotalSize")]
    total: u64,
    #[serde(rename = "SharedSize", skip_serializing_if = "is_zero")]
    shared: u64,
    #[serde(rename = "Ratio", skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(rename = "DagStats")]
    dags: Vec<DagStat>,
}

/// A count under way.
struct Count {
    blocks: Arc<dyn BlockGetter>,
    roots: std::vec::IntoIter<Cid>,
    walk: Option<Walk>,
    dags: Vec<DagStat>,
    all: Visited,
    unique: u64,
    total: u64,
    progress: bool,
    ended: bool,
}

impl Count {
    /// The next thing to tell.
    async fn next(&mut self) -> Result<Option<Summary>> {
        loop {
            let Some(walk) = &mut self.walk else {
                let Some(root) = self.roots.next() else {
                    return Ok((!std::mem::replace(&mut self.ended, true)).then(|| self.summary()));
                };
                self.walk = Some(Walk::new(self.blocks.clone(), root));
                self.dags.push(DagStat { cid: root.to_string(), size: 0, blocks: 0 });
                continue;
            };
            let next = walk.next().await.map_err(|(_, error)| error.context("error traversing DAG"))?;
            let Some((cid, block)) = next else {
                self.walk = None;
                continue;
            };
            let size = block.len() as u64;
            if let Some(dag) = self.dags.last_mut() {
                dag.size += size;
                dag.blocks += 1;
            }
            if self.all.insert(&cid)? {
                self.unique += 1;
                self.total += size;
            }
            if self.progress {
                return Ok(Some(Summary {
                    unique: 0,
                    total: self.total,
                    shared: 0,
                    ratio: None,
                    dags: self.dags.clone(),
                }));
            }
        }
    }

    fn summary(&self) -> Summary {
        let sum: u64 = self.dags.iter().map(|dag| dag.size).sum();
        // Kubo's ratio has the precision of 32 bits, and is written with no more.
        let ratio = if self.total > 0 { (sum as f32 / self.total as f32).to_string() } else { "1".into() };
        Summary {
            unique: self.unique,
            total: self.total,
            shared: sum - self.total,
            ratio: ratio.parse().ok(),
            dags: self.dags.clone(),
        }
    }
}

/// Most DAGs of one `dag/stat`: every line of its progress names them all.
const MAX_DAGS: usize = 64;

/// `dag/stat`.
pub(super) async fn stat(node: &Node, call: &Call) -> Result<Reply> {
    let blocks = node.embedded()?.reader(call.offline);
    if call.args.len() > MAX_DAGS {
        return Err(Error::too_large(format!(
            "dag stat counts {MAX_DAGS} DAGs at once, not {}",
            call.args.len()
        )));
    }
    let mut roots = Vec::new();
    for path in &call.args {
        let found = path::resolve(&*blocks, path).await?;
        if !found.rest.is_empty() {
            return Err(Error::invalid(format!(
                "cannot return size for anything other than a DAG with a root CID: {path}"
            )));
        }
        roots.push(found.cid);
    }
    let count = Count {
        blocks,
        roots: roots.into_iter(),
        walk: None,
        dags: Vec::new(),
        all: Visited::default(),
        unique: 0,
        total: 0,
        // Text is for the end.
        progress: call.flag("progress", true) && !call.text,
        ended: false,
    };
    let lines = stream::try_unfold(count, |mut count| async move {
        Ok::<_, Error>(count.next().await?.map(|summary| (summary, count)))
    });
    Ok(Reply::lines(call.text, lines, words))
}

fn words(summary: &Summary) -> String {
    let width = summary.dags.iter().map(|dag| dag.cid.len()).max().unwrap_or(0);
    let mut out = format!("\n{:<width$}\t{:<15}\t{}\n", "CID", "Blocks", "Size");
    for dag in &summary.dags {
        out.push_str(&format!("{:<width$}\t{:<15}\t{}\n", dag.cid, dag.blocks, dag.size));
    }
    out.push_str(&format!(
        "\nSummary\nTotal Size: {} ({})\nUnique Blocks: {}\nShared Size: {} ({})\nRatio: {:.6}\n\n\n",
        summary.total,
        human::bytes(summary.total),
        summary.unique,
        summary.shared,
        human::bytes(summary.shared),
        summary.ratio.unwrap_or(1.0),
    ));
    out
}
