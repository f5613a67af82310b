//! The IPFS side of a witness: there is none.
//!
//! A witness votes and keeps no content, so it opens no block store and asks no daemon. Everything that would need a
//! node is refused with one sentence that says so; what others ask of holders never comes here, because nobody takes a
//! witness for one (`cluster::witness`).

use super::{Block, DirEntry, Ipfs, IpfsId, IpfsPin, PinRequest, Progress, RepoStat};
use crate::error::{Error, Result};
use crate::state::PinMode;
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use futures::stream::BoxStream;
use libp2p::{Multiaddr, PeerId};
use std::ops::Range;

/// No node.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNode;

fn refuse<T>() -> Result<T> {
    Err(Error::conflict(
        "this peer is a witness: it votes, keeps no content and runs no IPFS node; ask another peer (`peers ls` shows \
         which)",
    ))
}

#[async_trait]
impl Ipfs for NoNode {
    async fn id(&self) -> Result<IpfsId> {
        refuse()
    }

    async fn pin(&self, _: PinRequest, _: Progress) -> Result<()> {
        refuse()
    }

    async fn unpin(&self, _: &Cid) -> Result<()> {
        refuse()
    }

    async fn pin_state(&self, _: &Cid) -> Result<IpfsPin> {
        refuse()
    }

    async fn list_pins(&self) -> Result<BoxStream<'static, Result<(Cid, PinMode)>>> {
        refuse()
    }

    async fn put_blocks(&self, _: Vec<Block>) -> Result<()> {
        refuse()
    }

    async fn get_block(&self, _: &Cid, _: bool) -> Result<Bytes> {
        refuse()
    }

    async fn repo_stat(&self) -> Result<RepoStat> {
        refuse()
    }

    async fn gc(&self) -> Result<BoxStream<'static, Result<Cid>>> {
        refuse()
    }

    async fn swarm_peers(&self) -> Result<Vec<PeerId>> {
        refuse()
    }

    async fn swarm_connect(&self, _: &Multiaddr) -> Result<()> {
        refuse()
    }

    async fn resolve(&self, _: &str) -> Result<Cid> {
        refuse()
    }

    async fn cat(&self, _: &str, _: Option<Range<u64>>) -> Result<BoxStream<'static, Result<Bytes>>> {
        refuse()
    }

    async fn ls(&self, _: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)> {
        refuse()
    }

    async fn close(&self) {}
}
