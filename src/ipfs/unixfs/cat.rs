//! A file's tree to its bytes, in order, at constant memory.
//!
//! The reader keeps a queue of pieces that are still to come, each with the range of content that its parent says it
//! holds. The first few are being fetched ([`READ_AHEAD`] blocks, [`READ_AHEAD_BYTES`] of content); when the front is
//! an inner node its children take its place. Pieces outside of the wanted range are never fetched. A piece that does
//! not hold exactly as many bytes as its parent said is damage, not a shorter file.

use super::read::Node;
use super::BlockGetter;
use crate::error::{Error, Result};
use crate::runtime;
use bytes::Bytes;
use cid::Cid;
use futures::stream::{self, BoxStream, StreamExt};
use smol::Task;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Blocks fetched ahead of the reader.
const READ_AHEAD: usize = 16;
/// Content bytes fetched ahead of the reader (one block may exceed it).
const READ_AHEAD_BYTES: u64 = 4 * 1024 * 1024;
/// Deepest file tree: 174 links per node reach any size in 9 levels.
const MAX_LEVELS: usize = 32;
/// Most pieces that wait: a few wide nodes, far below what hostile ones could list.
const MAX_WAITING: usize = 131_072;

/// Part of a file that is still to come.
struct Piece {
    cid: Cid,
    /// Where its content lies in the file.
    span: Range<u64>,
    level: usize,
    fetch: Option<Task<Result<Bytes>>>,
}

struct Reader {
    getter: Arc<dyn BlockGetter>,
    /// What is wanted.
    range: Range<u64>,
    waiting: VecDeque<Piece>,
    /// Content at hand, to be yielded first.
    ready: VecDeque<Bytes>,
}

/// Streams the content of a file or of a range of it (a range beyond the end is cut).
///
/// # Errors
/// [`crate::Kind::Invalid`] for a folder or link, and whatever the getter says. Later errors are in the stream, which
/// ends after the first.
pub async fn cat(
    getter: Arc<dyn BlockGetter>,
    cid: Cid,
    range: Option<Range<u64>>,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let root = Node::load(&*getter, &cid).await?;
    let size = root.size();
    let range = range.unwrap_or(0..size);
    let end = range.end.min(size);
    let range = range.start.min(end)..end;
    let mut reader = Reader { getter, range, waiting: VecDeque::new(), ready: VecDeque::new() };
    reader.open(&cid, root, 0..size, 0)?;
    Ok(stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(data)) => Some((Ok(data), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed())
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Ok(Some(data));
            }
            self.fetch_ahead();
            let Some(piece) = self.waiting.pop_front() else { return Ok(None) };
            let block = match piece.fetch {
                Some(task) => task.await?,
                None => self.getter.get(&piece.cid).await?,
            };
            let node = Node::read(&piece.cid, block)?;
            self.open(&piece.cid, node, piece.span, piece.level)?;
        }
    }

    fn fetch_ahead(&mut self) {
        let mut bytes = 0;
        for piece in self.waiting.iter_mut().take(READ_AHEAD) {
            if piece.fetch.is_none() {
                let (getter, cid) = (self.getter.clone(), piece.cid);
                piece.fetch = Some(runtime::spawn(async move { getter.get(&cid).await }));
            }
            bytes += piece.span.end - piece.span.start;
            if bytes >= READ_AHEAD_BYTES {
                break;
            }
        }
    }

    /// Content of a node becomes ready, its children wait in its place.
    fn open(&mut self, cid: &Cid, node: Node, span: Range<u64>, level: usize) -> Result<()> {
        let damaged = |what: &str| Error::corrupt(format!("block {cid}: malformed file: {what}"));
        let (node, unixfs) = match node {
            Node::Raw(data) => {
                if data.len() as u64 != span.end - span.start {
                    return Err(damaged("a piece is not as long as its parent says"));
                }
                self.offer(data, span.start);
                return Ok(());
            }
            Node::File(node, unixfs) => (node, unixfs),
            Node::Directory(_) | Node::Shard(..) => {
                return Err(Error::invalid(format!("{cid} is a folder, not a file")));
            }
            Node::Symlink(target) => {
                return Err(Error::invalid(format!("{cid} is a symbolic link to {target:?}, not a file")));
            }
        };
        if node.links.len() != unixfs.block_sizes.len() {
            return Err(damaged("it does not say the size of each piece"));
        }
        if level >= MAX_LEVELS || self.waiting.len() + node.links.len() > MAX_WAITING {
            return Err(damaged("it has too many levels or pieces"));
        }
        let own = unixfs.data.unwrap_or_default();
        let mut at = span.start + own.len() as u64;
        let mut children = Vec::new();
        for (link, size) in node.links.iter().zip(&unixfs.block_sizes) {
            let end = at.checked_add(*size).ok_or_else(|| damaged("impossible sizes"))?;
            if at < self.range.end && end > self.range.start && end > at {
                children.push(Piece { cid: link.cid, span: at..end, level: level + 1, fetch: None });
            }
            at = end;
        }
        if at != span.end || unixfs.file_size.is_some_and(|n| n != span.end - span.start) {
            return Err(damaged("its pieces do not add up to its size"));
        }
        self.offer(own, span.start);
        for child in children.into_iter().rev() {
            self.waiting.push_front(child);
        }
        Ok(())
    }

    /// Makes the wanted part of `data`, which begins at `start` in the file, ready.
    fn offer(&mut self, data: Bytes, start: u64) {
        let len = data.len() as u64;
        let from = self.range.start.saturating_sub(start).min(len);
        let to = self.range.end.saturating_sub(start).min(len);
        if from < to {
            self.ready.push_back(data.slice(from as usize..to as usize));
        }
    }
}
