//! An IPFS node for unit tests: pins and blocks in memory, which fails, hangs and forgets as it is told.
//!
//! It keeps to the contract of [`Ipfs`] otherwise, cancellation included: a pin whose future is dropped leaves nothing
//! behind and is counted.

use super::{Block, DirEntry, Ipfs, IpfsId, IpfsPin, PinRequest, Progress, RepoStat};
use crate::error::{Error, Result};
use crate::runtime;
use crate::state::PinMode;
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use futures::stream::{BoxStream, StreamExt};
use libp2p::{Multiaddr, PeerId};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at whether a hanging call may go on.
const LOOK: Duration = Duration::from_millis(2);

/// What the node has, and how it behaves.
#[derive(Default)]
pub(crate) struct Script {
    /// What is pinned.
    pub(crate) pins: HashMap<Cid, PinMode>,
    /// What is stored.
    pub(crate) blocks: HashMap<Cid, Bytes>,
    /// Pinning one of these fails.
    pub(crate) failing: HashSet<Cid>,
    /// Pinning one of these waits until it is no longer here.
    pub(crate) hanging: HashSet<Cid>,
    /// Every call fails, as when the daemon is not there.
    pub(crate) down: bool,
    /// Storing blocks fails.
    pub(crate) full: bool,
    /// Pins that ended, well or badly, and unpins: `pin <cid>`, `unpin <cid>`, in order.
    pub(crate) ended: Vec<String>,
    /// Pins that were dropped half-way.
    pub(crate) cancelled: Vec<Cid>,
    /// Pins running now, and the most there have been.
    pub(crate) running: usize,
    pub(crate) most_running: usize,
}

/// The node; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    /// Looks at it or changes it.
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock()
    }

    fn up(&self) -> Result<MutexGuard<'_, Script>> {
        let script = self.script();
        if script.down {
            return Err(Error::unavailable("the scripted IPFS node is down"));
        }
        Ok(script)
    }
}

/// Counts a running pin.
struct Running {
    node: Scripted,
    cid: Cid,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut script = self.node.script();
        script.running -= 1;
        match self.ended {
            true => script.ended.push(format!("pin {}", self.cid)),
            false => script.cancelled.push(self.cid),
        }
    }
}

#[async_trait]
impl Ipfs for Scripted {
    async fn id(&self) -> Result<IpfsId> {
        drop(self.up()?);
        Ok(IpfsId { id: PeerId::random(), addresses: Vec::new(), agent: "scripted".into() })
    }

    async fn pin(&self, request: PinRequest, _progress: Progress) -> Result<()> {
        {
            let mut script = self.up()?;
            script.running += 1;
            script.most_running = script.most_running.max(script.running);
        }
        let mut running = Running { node: self.clone(), cid: request.cid, ended: false };
        while self.script().hanging.contains(&request.cid) {
            runtime::sleep(LOOK).await;
        }
        running.ended = true;
        let mut script = self.up()?;
        if script.failing.contains(&request.cid) {
            return Err(Error::ipfs(format!("nobody has {}", request.cid)));
        }
        script.pins.insert(request.cid, request.mode);
        Ok(())
    }

    async fn unpin(&self, cid: &Cid) -> Result<()> {
        let mut script = self.up()?;
        script.pins.remove(cid);
        script.ended.push(format!("unpin {cid}"));
        Ok(())
    }

    async fn pin_state(&self, cid: &Cid) -> Result<IpfsPin> {
        Ok(match self.up()?.pins.get(cid) {
            None => IpfsPin::Unpinned,
            Some(PinMode::Recursive) => IpfsPin::Recursive,
            Some(PinMode::Direct) => IpfsPin::Direct,
        })
    }

    async fn list_pins(&self) -> Result<BoxStream<'static, Result<(Cid, PinMode)>>> {
        let pins: Vec<_> = self.up()?.pins.iter().map(|(cid, mode)| Ok((*cid, *mode))).collect();
        Ok(futures::stream::iter(pins).boxed())
    }

    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<()> {
        let mut script = self.up()?;
        if script.full {
            return Err(Error::new(crate::Kind::Full, "the scripted IPFS node is full"));
        }
        script.blocks.extend(blocks.into_iter().map(|b| (b.cid, b.data)));
        Ok(())
    }

    async fn get_block(&self, cid: &Cid, _fetch: bool) -> Result<Bytes> {
        self.up()?.blocks.get(cid).cloned().ok_or_else(|| Error::not_found("no such block"))
    }

    async fn repo_stat(&self) -> Result<RepoStat> {
        drop(self.up()?);
        Ok(RepoStat { repo_size: 0, storage_max: 1 << 30, objects: None })
    }

    async fn gc(&self) -> Result<BoxStream<'static, Result<Cid>>> {
        drop(self.up()?);
        Ok(futures::stream::empty().boxed())
    }

    async fn swarm_peers(&self) -> Result<Vec<PeerId>> {
        drop(self.up()?);
        Ok(Vec::new())
    }

    async fn swarm_connect(&self, _address: &Multiaddr) -> Result<()> {
        self.up().map(|_| ())
    }

    async fn resolve(&self, path: &str) -> Result<Cid> {
        path.trim_start_matches("/ipfs/").parse().map_err(|_| Error::invalid("not a CID"))
    }

    async fn cat(&self, path: &str, _range: Option<Range<u64>>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let block = self.get_block(&self.resolve(path).await?, false).await;
        Ok(futures::stream::iter([block]).boxed())
    }

    async fn ls(&self, _path: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)> {
        Err(Error::invalid("the scripted IPFS node has no folders"))
    }

    async fn close(&self) {}
}
