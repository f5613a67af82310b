//! From a path to a block: `/ipfs/<cid>/folder/file`, `<cid>/a/0/b` through dag-cbor, or both mixed.
//!
//! The errors are Kubo's word for word, because tools look at them: what is no path, what a folder lacks (`no link named
//! …`), where no further step is possible (`func called on wrong kind: …`).

use super::call::{Call, CidWriter};
use super::reply::Reply;
use super::Node as Here;
use crate::error::{Error, Result};
use crate::ipfs::ipld::{self, Value};
use crate::ipfs::unixfs::hash::{DAG_PB, RAW};
use crate::ipfs::unixfs::node::PbNode;
use crate::ipfs::unixfs::{self, BlockGetter, Node};
use bytes::Bytes;
use cid::Cid;
use serde::Serialize;

/// Longest path, bytes.
const MAX_PATH: usize = 4_096;
/// Most segments of a path.
const MAX_SEGMENTS: usize = 256;

/// A path taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// `ipfs` or `ipld`.
    pub(super) namespace: &'static str,
    pub(super) root: Cid,
    pub(super) segments: Vec<String>,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The namespace it was given in.
    pub(super) namespace: &'static str,
    /// The last block.
    pub(super) cid: Cid,
    /// What of the path lies inside of that block.
    pub(super) rest: Vec<String>,
}

impl Path {
    /// Takes a path apart.
    pub(super) fn parse(text: &str) -> Result<Path> {
        let shown: String = text.chars().take(256).collect();
        let bad = |why: &str| Error::invalid(format!("invalid path {shown:?}: {why}"));
        if text.len() > MAX_PATH {
            return Err(bad(&format!("it is longer than {MAX_PATH} bytes")));
        }
        let short = || bad("path does not have enough components");
        if !text.starts_with('/') {
            // A CID, perhaps with a path behind it; whatever else is no path at all.
            return Path::parse(&format!("/ipfs/{text}")).ok().ok_or_else(short);
        }
        let mut segments: Vec<String> = Vec::new();
        for segment in text.split('/') {
            match segment {
                "" | "." => {}
                ".." => drop(segments.pop()),
                name => segments.push(name.to_owned()),
            }
        }
        if segments.len() < 2 {
            return Err(short());
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(bad(&format!("it has more than {MAX_SEGMENTS} components")));
        }
        let mut segments = segments.into_iter();
        let (namespace, root) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
        let namespace = match namespace.as_str() {
            "ipfs" => "ipfs",
            "ipld" => "ipld",
            "ipns" => {
                return Err(bad(
                    "the embedded IPFS node resolves no /ipns names; give the /ipfs path, or use a Kubo daemon \
                     (ipfs_connector.ipfshttp)",
                ))
            }
            other => return Err(bad(&format!("unknown namespace: {other:?}"))),
        };
        let root = crate::api::query::parse_cid(&root).map_err(|e| bad(e.message()))?;
        Ok(Path { namespace, root, segments: segments.collect() })
    }

    /// The last name in it: what a download is called.
    pub(super) fn name(&self) -> String {
        self.segments.last().cloned().unwrap_or_else(|| self.root.to_string())
    }
}

/// Follows a path.
pub(super) async fn resolve(blocks: &dyn BlockGetter, path: &str) -> Result<Found> {
    follow(blocks, Path::parse(path)?).await
}

/// Follows a path that was taken apart.
pub(super) async fn follow(blocks: &dyn BlockGetter, path: Path) -> Result<Found> {
    let Path { namespace, root: mut cid, segments } = path;
    let mut at = 0;
    while at < segments.len() {
        let block = blocks.get(&cid).await?;
        let rest = &segments[at..];
        if [DAG_PB, RAW].contains(&cid.codec()) {
            cid = entry(blocks, &cid, block, rest).await?;
            at += 1;
            continue;
        }
        match inside(&cid, block, rest)? {
            Step::Link(target, steps) => {
                cid = target;
                at += steps;
            }
            Step::Ends => return Ok(Found { namespace, cid, rest: rest.to_vec() }),
        }
    }
    Ok(Found { namespace, cid, rest: Vec::new() })
}

fn no_link(segment: &str, under: &Cid) -> Error {
    Error::not_found(format!("no link named {segment:?} under {under}"))
}

/// One step through a file system.
async fn entry(blocks: &dyn BlockGetter, cid: &Cid, block: Bytes, rest: &[String]) -> Result<Cid> {
    let Some(name) = rest.first() else { return Ok(*cid) };
    // The last step is tried on the thing itself, the ones before only through links: so Kubo's words differ.
    let dead_end = |kind: &str| match rest {
        [_] => Error::invalid(format!(
            "func called on wrong kind: \"LookupBySegment\" called on a {kind} node (kind: bytes), but only makes sense on map or list"
        )),
        _ => no_link(name, cid),
    };
    match Node::read(cid, block.clone()) {
        Ok(folder @ (Node::Directory(_) | Node::Shard(..))) => unixfs::child(blocks, cid, folder, name).await,
        Ok(Node::Raw(_)) => Err(dead_end("bytes")),
        Ok(Node::File(..)) => Err(dead_end("data.Bytes")),
        Ok(Node::Symlink(_)) => Err(no_link(name, cid)),
        // dag-pb that is no file system: its links by their names.
        Err(_) => {
            let node = PbNode::decode(&block).map_err(|e| e.context(format!("block {cid}")))?;
            let link = node.links.into_iter().find(|link| link.name == *name);
            link.map(|link| link.cid).ok_or_else(|| no_link(name, cid))
        }
    }
}

enum Step {
    /// A link after so many segments.
    Link(Cid, usize),
    /// The path ends inside.
    Ends,
}

/// Steps through the value of one block, up to a link.
fn inside(cid: &Cid, block: Bytes, rest: &[String]) -> Result<Step> {
    let root = ipld::decode(cid.codec(), &block).map_err(|e| e.context(format!("block {cid}")))?;
    let mut value = &root;
    for (n, segment) in rest.iter().enumerate() {
        value = match value.lookup(segment) {
            Ok(value) => value,
            Err(_) if n + 1 < rest.len() => return Err(no_link(segment, cid)),
            Err(error) => return Err(error),
        };
        if let Value::Link(target) = value {
            return Ok(Step::Link(*target, n + 1));
        }
    }
    Ok(Step::Ends)
}

/// The value that a path names.
pub(super) async fn value(blocks: &dyn BlockGetter, found: &Found) -> Result<Value> {
    let block = blocks.get(&found.cid).await?;
    let mut value = ipld::decode(found.cid.codec(), &block).map_err(|e| e.context(format!("block {}", found.cid)))?;
    for segment in &found.rest {
        value = value.lookup(segment)?.clone();
    }
    Ok(value)
}

/// Follows a path that must lead to a block, not into one.
pub(super) async fn block(blocks: &dyn BlockGetter, path: &str) -> Result<Cid> {
    resolve(blocks, path).await.map(|found| found.cid)
}

#[derive(Serialize)]
struct Resolved {
    #[serde(rename = "Path")]
    path: String,
}

/// `resolve`.
pub(super) async fn command(node: &Here, call: &Call) -> Result<Reply> {
    let asked = Path::parse(&call.args[0])?;
    let cids = match call.option("cid-base").filter(|base| !base.is_empty()) {
        Some(_) => call.cid_writer()?,
        None => {
            let mut texts = call.args[0].split('/').filter(|text| !text.is_empty());
            let root = texts.find(|text| text.parse::<Cid>().is_ok_and(|cid| cid == asked.root));
            CidWriter::like(&asked.root, root.unwrap_or_default())
        }
    };
    let blocks = node.embedded()?.reader(call.offline);
    let found = follow(&*blocks, asked).await?;
    let mut path = format!("/{}/{}", found.namespace, cids.write(&found.cid));
    for segment in &found.rest {
        path.push('/');
        path.push_str(segment);
    }
    Reply::either(call.text, &Resolved { path: path.clone() }, || format!("{path}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

    #[test]
    fn paths_are_cleaned_as_kubo_cleans_them() {
        for (text, segments) in [
            (CID.to_owned(), vec![]),
            (format!("/ipfs/{CID}/"), vec![]),
            (format!("//ipfs//{CID}"), vec![]),
            (format!("{CID}//a.txt"), vec!["a.txt"]),
            (format!("{CID}/./a.txt"), vec!["a.txt"]),
            (format!("{CID}/sub/../a.txt"), vec!["a.txt"]),
            (format!("{CID}/%61"), vec!["%61"]),
        ] {
            let path = Path::parse(&text).expect("path");
            assert_eq!((path.root.to_string().as_str(), path.segments), (CID, segments.iter().map(|s| s.to_string()).collect()), "{text}");
        }
        assert_eq!(Path::parse(&format!("/ipld/{CID}/x")).expect("path").namespace, "ipld");
        assert_eq!(Path::parse(&format!("{CID}/a/b")).expect("path").name(), "b");
        assert_eq!(Path::parse(CID).expect("path").name(), CID);
    }

    #[test]
    fn what_is_no_path_is_said_in_kubo_s_words() {
        for (text, why) in [
            ("nosuch", "path does not have enough components"),
            ("", "path does not have enough components"),
            ("/", "path does not have enough components"),
            ("/ipfs", "path does not have enough components"),
            ("nosuch/a", "path does not have enough components"),
            ("Qmxyz", "path does not have enough components"),
            ("/ipfs/xyz", "invalid cid: selected encoding not supported"),
            ("/ipld/nosuch", "invalid cid: selected encoding not supported"),
            ("/mfs/x", "unknown namespace: \"mfs\""),
        ] {
            assert_eq!(Path::parse(text).expect_err(text).message(), format!("invalid path {text:?}: {why}"));
        }
        let text = format!("{CID}/../x");
        assert!(Path::parse(&text).expect_err("above the root").message().contains("enough components"));
        assert!(Path::parse("/ipns/nosuch").expect_err("names").message().contains("/ipns"));
        Path::parse(&"x/".repeat(3_000)).expect_err("too long");
        Path::parse(&format!("{CID}{}", "/x".repeat(300))).expect_err("too many");
    }
}
