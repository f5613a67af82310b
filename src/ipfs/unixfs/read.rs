//! Paths and listings: from a root and names to a CID, and from a folder to its entries.
//!
//! Small folders are one block; sharded ones are walked shard by shard, holding one path of them. Everything that a
//! block claims (names, places, depth) is checked against what the form allows.

use super::hamt::{name_hash, place, ShardForm, MAX_DEPTH};
use super::hash::{DAG_PB, RAW};
use super::node::{DataType, PbLink, PbNode, UnixFs, MAX_TARGET};
use super::BlockGetter;
use crate::error::{Error, Result};
use crate::ipfs::{DirEntry, NodeKind};
use bytes::Bytes;
use cid::Cid;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use std::sync::Arc;

/// Most names in one path.
const MAX_SEGMENTS: usize = 256;
/// Entries of a listing whose blocks are fetched at once.
const LIST_AHEAD: usize = 16;

/// What a block is to UnixFS.
pub enum Node {
    /// A raw block: file content as it is.
    Raw(Bytes),
    /// A file or a part of one.
    File(PbNode, UnixFs),
    /// A folder in one block.
    Directory(PbNode),
    /// One shard of a large folder.
    Shard(PbNode, ShardForm),
    /// A symbolic link.
    Symlink(String),
}

impl Node {
    /// Gets and reads a block.
    ///
    /// # Errors
    /// The getter's, and those of [`Node::read`].
    pub async fn load(getter: &dyn BlockGetter, cid: &Cid) -> Result<Node> {
        let block = getter.get(cid).await?;
        Node::read(cid, block)
    }

    /// Reads a block.
    ///
    /// # Errors
    /// [`crate::Kind::Corrupt`] for malformed bytes, [`crate::Kind::Invalid`] for what is no UnixFS.
    pub fn read(cid: &Cid, block: Bytes) -> Result<Node> {
        match cid.codec() {
            RAW => Ok(Node::Raw(block)),
            DAG_PB => Node::read_pb(&block).map_err(|e| e.context(format!("block {cid}"))),
            codec => Err(Error::invalid(format!(
                "{cid} is no file or folder: its codec is 0x{codec:x}, UnixFS is dag-pb (0x70) or raw (0x55)"
            ))),
        }
    }

    fn read_pb(block: &Bytes) -> Result<Node> {
        let node = PbNode::decode(block)?;
        let data = node.data.as_ref().ok_or_else(|| Error::invalid("it is dag-pb without UnixFS data"))?;
        let unixfs = UnixFs::decode(data)?;
        Ok(match unixfs.kind {
            DataType::Raw | DataType::File | DataType::Metadata => Node::File(node, unixfs),
            DataType::Directory => Node::Directory(node),
            DataType::Shard => {
                let form = ShardForm::of(&unixfs)?;
                Node::Shard(node, form)
            }
            DataType::Symlink => {
                let target = unixfs.data.unwrap_or_default();
                let text = std::str::from_utf8(&target).ok().filter(|t| t.len() <= MAX_TARGET);
                let text = text.ok_or_else(|| Error::corrupt("a symbolic link with an impossible target"))?;
                Node::Symlink(text.to_owned())
            }
        })
    }

    /// Content bytes, as far as the node itself can tell.
    pub fn size(&self) -> u64 {
        match self {
            Node::Raw(data) => data.len() as u64,
            Node::File(_, unixfs) => unixfs.file_size.unwrap_or_else(|| {
                let own = unixfs.data.as_ref().map_or(0, |d| d.len() as u64);
                unixfs.block_sizes.iter().fold(own, |sum, n| sum.saturating_add(*n))
            }),
            _ => 0,
        }
    }

    /// The entry that a folder's listing shows for it.
    pub fn entry(&self, name: String, cid: Cid) -> DirEntry {
        let (kind, target) = match self {
            Node::Raw(_) | Node::File(..) => (NodeKind::File, None),
            Node::Directory(_) | Node::Shard(..) => (NodeKind::Directory, None),
            Node::Symlink(target) => (NodeKind::Symlink, Some(target.clone())),
        };
        DirEntry { name, cid, size: self.size(), kind, target }
    }
}

/// Splits `/ipfs/<cid>/a/b` or `<cid>/a/b` into the root and the names.
///
/// # Errors
/// [`crate::Kind::Invalid`] for anything else.
pub fn parse_path(path: &str) -> Result<(Cid, Vec<String>)> {
    let bare = path.strip_prefix("/ipfs/").unwrap_or(path);
    if bare.starts_with("/ipns/") {
        return Err(Error::invalid(format!(
            "{path:?}: names under /ipns cannot be resolved here; give the /ipfs path"
        )));
    }
    let mut segments = bare.split('/').filter(|s| !s.is_empty());
    let root =
        segments.next().ok_or_else(|| Error::invalid("an empty path: give /ipfs/<cid> or <cid>/name"))?;
    let cid = Cid::try_from(root)
        .map_err(|e| Error::invalid(format!("{root:?} is no CID ({e}): give /ipfs/<cid> or <cid>/name")))?;
    let names: Vec<String> = segments.map(str::to_owned).collect();
    if names.len() > MAX_SEGMENTS {
        return Err(Error::invalid(format!("a path of more than {MAX_SEGMENTS} names")));
    }
    Ok((cid, names))
}

/// Resolves `/ipfs/<cid>/a/b` or `<cid>/a/b` through folders, sharded or not. Symbolic links are not followed.
///
/// # Errors
/// [`crate::Kind::NotFound`] when a name is not there, and whatever the getter says.
pub async fn resolve(getter: &dyn BlockGetter, path: &str) -> Result<Cid> {
    let (mut cid, names) = parse_path(path)?;
    for name in names {
        cid = step(getter, &cid, &name).await?;
    }
    Ok(cid)
}

/// The entry `name` of the folder `cid`.
async fn step(getter: &dyn BlockGetter, folder: &Cid, name: &str) -> Result<Cid> {
    let node = Node::load(getter, folder).await?;
    child(getter, folder, node, name).await
}

/// The entry `name` of a folder whose (first) node is at hand.
///
/// # Errors
/// [`crate::Kind::NotFound`] when there is none, and whatever the getter says.
pub async fn child(getter: &dyn BlockGetter, folder: &Cid, node: Node, name: &str) -> Result<Cid> {
    let missing = || Error::not_found(format!("no link named {name:?} under {folder}"));
    let mut node = node;
    let hash = name_hash(name.as_bytes());
    for level in 0..=MAX_DEPTH * 8 {
        let (shard, form) = match node {
            Node::Directory(node) => {
                return node.links.into_iter().find(|l| l.name == name).map(|l| l.cid).ok_or_else(missing);
            }
            Node::Shard(shard, form) => (shard, form),
            // A file or a link where a shard was expected is damage; at the top it is the caller's mistake.
            _ if level == 0 => return Err(missing().context(format!("{folder} is no folder"))),
            _ => break,
        };
        let Some(wanted) = place(hash, level, form.bits) else { break };
        let mut deeper = None;
        for link in shard.links {
            let (at, own) = form.split(&link.name)?;
            if at == wanted && own.is_empty() {
                deeper = Some(link.cid);
            } else if at == wanted && own == name {
                return Ok(link.cid);
            }
        }
        node = Node::load(getter, &deeper.ok_or_else(missing)?).await?;
    }
    Err(Error::corrupt(format!(
        "the sharded folder {folder} is malformed: a branch for {name:?} does not end"
    )))
}

/// What `cid` is and, for a folder, its entries in stored order.
///
/// # Errors
/// The getter's, or [`crate::Kind::Corrupt`] for malformed blocks.
pub async fn ls(
    getter: Arc<dyn BlockGetter>,
    cid: Cid,
) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)> {
    let node = Node::load(&*getter, &cid).await?;
    let this = node.entry(String::new(), cid);
    let links = match node {
        folder @ (Node::Directory(_) | Node::Shard(..)) => links(getter.clone(), folder),
        _ => stream::empty().boxed(),
    };
    let entries = links
        .map_ok(move |link| {
            let getter = getter.clone();
            async move { describe(&*getter, link).await }
        })
        .try_buffered(LIST_AHEAD)
        .boxed();
    Ok((this, entries))
}

/// What a node links to, by name: the entries of a folder, the (nameless) pieces of a file.
pub fn links(getter: Arc<dyn BlockGetter>, node: Node) -> BoxStream<'static, Result<PbLink>> {
    match node {
        Node::Directory(node) | Node::File(node, _) => stream::iter(node.links).map(Ok).boxed(),
        Node::Shard(node, form) => shard_links(getter, node, form).boxed(),
        Node::Raw(_) | Node::Symlink(_) => stream::empty().boxed(),
    }
}

/// The entry that a listing shows for a link; only dag-pb is looked into.
///
/// # Errors
/// The getter's, or [`crate::Kind::Corrupt`] for a malformed block.
pub async fn describe(getter: &dyn BlockGetter, link: PbLink) -> Result<DirEntry> {
    if link.cid.codec() != DAG_PB {
        // The size of a raw leaf is in the link; fetching every small file to list a folder would be absurd.
        let size = link.size;
        return Ok(DirEntry { name: link.name, cid: link.cid, size, kind: NodeKind::File, target: None });
    }
    Ok(Node::load(getter, &link.cid).await?.entry(link.name, link.cid))
}

/// Links of all entries of a sharded folder, with the entries' own names, depth first.
fn shard_links(
    getter: Arc<dyn BlockGetter>,
    root: PbNode,
    form: ShardForm,
) -> impl futures::Stream<Item = Result<PbLink>> + Send {
    let stack = vec![(root.links.into_iter(), form)];
    stream::try_unfold((getter, stack), |(getter, mut stack)| async move {
        while let Some((links, form)) = stack.last_mut() {
            let Some(mut link) = links.next() else {
                stack.pop();
                continue;
            };
            let own = form.split(&link.name)?.1.to_owned();
            if !own.is_empty() {
                link.name = own;
                return Ok(Some((link, (getter, stack))));
            }
            match Node::load(&*getter, &link.cid).await? {
                Node::Shard(node, form) if stack.len() < MAX_DEPTH * 8 => {
                    stack.push((node.links.into_iter(), form));
                }
                _ => {
                    return Err(Error::corrupt(format!("block {}: no shard where one is expected", link.cid)))
                }
            }
        }
        Ok(None)
    })
}
