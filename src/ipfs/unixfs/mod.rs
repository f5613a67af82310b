//! UnixFS: files and folders to blocks and back, with the CIDs that `ipfs add` gives.
//!
//! Sans-IO in the middle: the importer ([`FileImporter`], [`build_directory`], [`build_symlink`]) turns bytes into
//! [`Block`]s handed to a sink; the reader ([`resolve()`], [`cat()`], [`ls()`]) asks for blocks by CID through
//! [`BlockGetter`]. The same importer serves the embedded node and the cluster's `add` (which streams the blocks to
//! every allocated peer), so that the two can never disagree on a CID; the same reader serves Kubo's blocks and ours.
//!
//! | file | what |
//! |---|---|
//! | `hash` | bytes to multihashes and CIDs, and the check that they belong together |
//! | `proto`, `node` | protobuf; dag-pb nodes and the UnixFS message in them, exact out and bounded in |
//! | `options` | which of `ipfs add`'s flags we know, and the sentence for those that we do not |
//! | `import`, `directory`, `hamt` | bytes to leaves to a balanced tree; entries to a folder; big folders to shards |
//! | `cat`, `read` | a tree to bytes in order; paths, listings |
//! | `links` | what a block of any known codec links to: what a pin must hold |
//!
//! The room must never: trust a size, a depth or a name that comes from a block; hold more than a bounded window of
//! blocks; panic on any bytes whatever.

mod cat;
mod directory;
mod hamt;
pub mod hash;
mod import;
mod links;
pub mod node;
mod options;
pub(in crate::ipfs) mod proto;
mod read;
#[cfg(test)]
mod tests;

use super::Block;
use crate::error::Result;
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;

pub use cat::cat;
pub use directory::{build_directory, Link};
pub use import::{build_symlink, FileImporter};
pub use links::{links_of, may_link};
pub use options::ImportOptions;
pub use read::{child, describe, links, ls, parse_path, resolve, Node};

/// Where the importer puts blocks, in DAG order (children before parents). Waiting here is the back-pressure.
#[async_trait]
pub trait BlockSink: Send {
    /// Takes one block.
    async fn put(&mut self, block: Block) -> Result<()>;
}

/// Where the reader gets blocks from. The bytes it returns are those that the CID names: whoever implements this has
/// checked the hash.
#[async_trait]
pub trait BlockGetter: Send + Sync + 'static {
    /// One block.
    async fn get(&self, cid: &Cid) -> Result<Bytes>;
}

/// A finished file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Root of the file or folder.
    pub cid: Cid,
    /// Cumulative DAG size, bytes (what `size` in add's answer is).
    pub dag_size: u64,
    /// Content size, bytes (0 for folders).
    pub file_size: u64,
}
