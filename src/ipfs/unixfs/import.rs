//! Bytes to leaves to a balanced tree: `ipfs add`'s default layout, at constant memory.
//!
//! Full chunks are hashed on the blocking pool, at most [`HASHING`] at a time, while more content arrives; they leave
//! in order all the same, so that a file always becomes the same blocks in the same order. A chunk is copied once,
//! from the caller's slice into the buffer that becomes the block. Finished subtrees are remembered as one link each:
//! what is held is [`HASHING`] chunks and one path of half-full nodes.

use super::hash::{cid_of, DAG_PB, RAW};
use super::node::{DataType, PbLink, PbNode, UnixFs, MAX_TARGET};
use super::proto::{put_bytes_head, put_number};
use super::{BlockSink, ImportOptions, Imported};
use crate::error::{Error, Result};
use crate::ipfs::Block;
use crate::runtime;
use bytes::Bytes;
use smol::Task;
use std::collections::VecDeque;

/// Links of a full node; go-unixfs's default, on which every CID of a large file depends.
const LINKS_PER_NODE: usize = 174;
/// Chunks that are being hashed at once: enough for the four cores of a small board.
const HASHING: usize = 4;
/// A chunk below this is hashed at once; sending it to another thread would cost more.
const HASH_INLINE: usize = 32 * 1024;

/// A finished subtree.
type Child = Imported;

/// Builds one file's DAG from pushed bytes.
pub struct FileImporter {
    options: ImportOptions,
    /// Head room for the leaf's own fields, then the content of the chunk being filled.
    chunk: Vec<u8>,
    /// Bytes of head room in front of each chunk (0 for raw leaves).
    head: usize,
    /// Leaves being hashed, in order.
    hashing: VecDeque<Task<(Block, Child)>>,
    /// `levels[n]`: subtrees of height n that have no parent yet; each shorter than [`LINKS_PER_NODE`].
    levels: Vec<Vec<Child>>,
}

impl FileImporter {
    /// A new, empty file.
    pub fn new(options: ImportOptions) -> Self {
        let head = if options.raw_leaves { 0 } else { leaf_head(options.chunk_size).len() };
        FileImporter { options, chunk: Vec::new(), head, hashing: VecDeque::new(), levels: Vec::new() }
    }

    /// More content.
    ///
    /// # Errors
    /// The sink's, or [`crate::Kind::Invalid`] for impossible options. The importer is of no use afterwards.
    pub async fn push(&mut self, mut data: &[u8], sink: &mut dyn BlockSink) -> Result<()> {
        self.options.validate()?;
        while !data.is_empty() {
            let full = self.head + self.options.chunk_size;
            if self.chunk.len() == full {
                self.leaf(sink).await?;
            }
            if self.chunk.is_empty() {
                // Room for a whole chunk only when it is going to be used: most files are small.
                self.chunk.reserve_exact(full.min(self.head + data.len()) + LEAF_TAIL);
                self.chunk.resize(self.head, 0);
            }
            let n = data.len().min(full - self.chunk.len());
            self.chunk.extend_from_slice(&data[..n]);
            data = &data[n..];
        }
        Ok(())
    }

    /// The end of the file: emits what is left and returns the root.
    ///
    /// # Errors
    /// As [`FileImporter::push`].
    pub async fn finish(mut self, sink: &mut dyn BlockSink) -> Result<Imported> {
        self.options.validate()?;
        let empty = self.levels.is_empty() && self.hashing.is_empty();
        if !self.chunk.is_empty() || empty {
            self.chunk.resize(self.chunk.len().max(self.head), 0);
            self.leaf(sink).await?;
        }
        while let Some(task) = self.hashing.pop_front() {
            self.emit(task.await, sink).await?;
        }
        let mut height = 0;
        loop {
            let above = self.levels.get(height + 1..).is_some_and(|l| l.iter().any(|l| !l.is_empty()));
            let level = self.levels.get_mut(height).map(std::mem::take).unwrap_or_default();
            match (level.len(), above) {
                (0, true) => {}
                (1, false) => {
                    let root = level.into_iter().next();
                    return root.ok_or_else(|| Error::internal("a file without a root"));
                }
                _ => self.parent(level, height, sink).await?,
            }
            height += 1;
        }
    }

    /// The chunk in the buffer becomes a leaf.
    async fn leaf(&mut self, sink: &mut dyn BlockSink) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        let (options, head) = (self.options.clone(), self.head);
        if chunk.len() < HASH_INLINE && self.hashing.is_empty() {
            let leaf = make_leaf(&options, head, chunk);
            return self.emit(leaf, sink).await;
        }
        if self.hashing.len() >= HASHING {
            if let Some(task) = self.hashing.pop_front() {
                self.emit(task.await, sink).await?;
            }
        }
        let work = runtime::unblock(move || make_leaf(&options, head, chunk));
        self.hashing.push_back(runtime::spawn(work));
        Ok(())
    }

    async fn emit(&mut self, (block, child): (Block, Child), sink: &mut dyn BlockSink) -> Result<()> {
        sink.put(block).await?;
        self.adopt(child, 0, sink).await
    }

    /// Takes a subtree of a height; a full level becomes one subtree of the next height.
    async fn adopt(&mut self, mut child: Child, mut height: usize, sink: &mut dyn BlockSink) -> Result<()> {
        loop {
            if self.levels.len() <= height {
                self.levels.push(Vec::new());
            }
            let level = &mut self.levels[height];
            level.push(child);
            if level.len() < LINKS_PER_NODE {
                return Ok(());
            }
            let (block, parent) = make_parent(&self.options, std::mem::take(level));
            sink.put(block).await?;
            child = parent;
            height += 1;
        }
    }

    async fn parent(&mut self, level: Vec<Child>, height: usize, sink: &mut dyn BlockSink) -> Result<()> {
        let (block, parent) = make_parent(&self.options, level);
        sink.put(block).await?;
        self.adopt(parent, height + 1, sink).await
    }
}

/// Most bytes that follow the content in a dag-pb leaf: tag and varint of the file size.
const LEAF_TAIL: usize = 11;

/// What stands before `len` content bytes in a dag-pb leaf.
fn leaf_head(len: usize) -> Vec<u8> {
    let mut inner = Vec::with_capacity(16);
    put_number(&mut inner, 1, 2);
    if len > 0 {
        put_bytes_head(&mut inner, 2, len);
    }
    let mut head = Vec::with_capacity(32);
    put_bytes_head(&mut head, 1, inner.len() + len + leaf_tail(len).len());
    head.extend_from_slice(&inner);
    head
}

/// What follows `len` content bytes in a dag-pb leaf.
fn leaf_tail(len: usize) -> Vec<u8> {
    let mut tail = Vec::with_capacity(LEAF_TAIL);
    put_number(&mut tail, 3, len as u64);
    tail
}

/// Turns a filled buffer into a leaf: in place when the head fits exactly (every full chunk), else by moving it.
fn make_leaf(options: &ImportOptions, head: usize, mut buffer: Vec<u8>) -> (Block, Child) {
    let len = buffer.len() - head;
    let (cid, data) = if options.raw_leaves {
        let data = Bytes::from(buffer);
        (cid_of(1, RAW, &data), data)
    } else {
        let exact = leaf_head(len);
        if exact.len() == head {
            buffer[..head].copy_from_slice(&exact);
        } else {
            buffer.splice(..head, exact);
        }
        buffer.extend_from_slice(&leaf_tail(len));
        let data = Bytes::from(buffer);
        (cid_of(options.cid_version, DAG_PB, &data), data)
    };
    let child = Child { cid, dag_size: data.len() as u64, file_size: len as u64 };
    (Block { cid, data }, child)
}

fn make_parent(options: &ImportOptions, children: Vec<Child>) -> (Block, Child) {
    let mut unixfs = UnixFs::new(DataType::File);
    unixfs.block_sizes = children.iter().map(|c| c.file_size).collect();
    let file_size = unixfs.block_sizes.iter().sum();
    unixfs.file_size = Some(file_size);
    let below: u64 = children.iter().map(|c| c.dag_size).sum();
    let links = children.into_iter().map(|c| PbLink { cid: c.cid, name: String::new(), size: c.dag_size });
    let node = PbNode { links: links.collect(), data: Some(unixfs.encode().into()) };
    let (block, dag_size) = make_node(options, &node, below);
    let parent = Child { cid: block.cid, dag_size, file_size };
    (block, parent)
}

/// Encodes a dag-pb node; returns it with its cumulative size.
pub(super) fn make_node(options: &ImportOptions, node: &PbNode, below: u64) -> (Block, u64) {
    let data = Bytes::from(node.encode());
    let dag_size = data.len() as u64 + below;
    (Block { cid: cid_of(options.cid_version, DAG_PB, &data), data }, dag_size)
}

/// Builds a symbolic link.
///
/// # Errors
/// The sink's, or [`crate::Kind::Invalid`] for an impossible target.
pub async fn build_symlink(
    options: &ImportOptions,
    target: &str,
    sink: &mut dyn BlockSink,
) -> Result<Imported> {
    options.validate()?;
    if target.len() > MAX_TARGET {
        return Err(Error::invalid(format!(
            "a symbolic link's target of {} bytes is longer than {MAX_TARGET}",
            target.len()
        )));
    }
    let mut unixfs = UnixFs::new(DataType::Symlink);
    unixfs.data = Some(Bytes::copy_from_slice(target.as_bytes()));
    let node = PbNode { links: Vec::new(), data: Some(unixfs.encode().into()) };
    let (block, dag_size) = make_node(options, &node, 0);
    let cid = block.cid;
    sink.put(block).await?;
    Ok(Imported { cid, dag_size, file_size: 0 })
}
