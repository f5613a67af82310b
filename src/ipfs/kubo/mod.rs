//! The Kubo connector: [`Ipfs`] over the RPC API of an IPFS daemon beside us.
//!
//! What ipfs-cluster's `ipfshttp` does, and two things better: direct pins are listed too, and whatever can
//! be checked is checked. Blocks are verified against their CID, and files, folders and links are read
//! with our own UnixFS reader over verified blocks instead of believing what the daemon says about them. A pin is
//! given up only when it makes no *progress* for `pin_timeout`; the `{}` that Kubo sends twice a second while it
//! searches is not progress. Dropping any call closes its connection, which makes Kubo stop working on it.
//!
//! | file | what |
//! |---|---|
//! | `dial` | addresses, and which of several is asked |
//! | `http` | connections, limits, back-off |
//! | `words` | the daemon's refusals as sentences |
//! | `watch` | whether the daemon is still the one that it was |
//! | `answers` | the shapes of Kubo's answers |
//! | `upload` | blocks as multipart bodies |

mod answers;
pub(crate) mod dial;
mod http;
pub(crate) mod pool;
mod upload;
mod watch;
mod words;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use crate::clock::format_duration;
use crate::error::{Error, Kind, Result};
use crate::ipfs::unixfs::{self, hash, BlockGetter};
use crate::ipfs::{Block, DirEntry, Ipfs, IpfsId, IpfsPin, PinRequest, Progress, RepoStat, Run};
use crate::runtime;
use crate::state::PinMode;
use answers::{
    ConfigAnswer, ConnectAnswer, GcLine, IdAnswer, PeersAnswer, PinAddLine, PinLine, PinsAnswer,
    ResolveAnswer, StatAnswer,
};
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use futures::stream::{self, BoxStream, StreamExt};
pub(crate) use http::COMPOSITE;
use http::{arg, Client, Lines};
use libp2p::{Multiaddr, PeerId};
use serde::de::DeserializeOwned;
use smol::lock::Semaphore;
use smol::Task;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use watch::Watch;

/// Origins of a pin that are connected to; more are ignored.
pub const MAX_PROVIDERS: usize = 10;
/// Connecting to one origin may take this long; the pin goes on meanwhile.
pub const PROVIDER_TIMEOUT: Duration = Duration::from_secs(30);
/// Origins that are connected to at the same time, over all pins: dead ones must not take the connections of others.
const PROVIDERS_AT_ONCE: usize = 8;
/// Lines without progress that a pin may bring, and …
const IDLE_LINES: u64 = 10_000;
/// … so many more for each second of it: Kubo sends two.
const IDLE_LINES_PER_SECOND: u64 = 100;
/// Lines of an answer about one CID: one is right.
const FEW_LINES: u64 = 16;
/// Largest block that is read from the daemon, bytes.
pub const MAX_BLOCK: usize = 4 << 20;

/// How to reach the daemon, and how long to wait for what.
#[derive(Clone, Debug)]
pub struct KuboConfig {
    /// `/ip4/…/tcp/…`, `/ip6/…`, `/dns4/…/tcp/…` or `/unix/…` of its RPC API.
    pub node: Multiaddr,
    /// Further addresses of the same daemon (proxies of a lower cluster), for when that one does not answer.
    pub alternatives: Vec<Multiaddr>,
    /// Speak https: not supported, and said so by [`Kubo::new`].
    pub https: bool,
    /// Ordinary calls; for a streamed answer the pause between two pieces.
    pub request_timeout: Duration,
    /// A pin without progress for this long is given up.
    pub pin_timeout: Duration,
    /// Unpinning.
    pub unpin_timeout: Duration,
    /// Collecting garbage: the pause between two removed blocks.
    pub repogc_timeout: Duration,
    /// Refuse to unpin anything.
    pub unpin_disable: bool,
}

impl Default for KuboConfig {
    /// ipfs-cluster's defaults.
    fn default() -> Self {
        KuboConfig {
            node: Multiaddr::empty()
                .with(libp2p::multiaddr::Protocol::Ip4(std::net::Ipv4Addr::LOCALHOST))
                .with(libp2p::multiaddr::Protocol::Tcp(5001)),
            alternatives: Vec::new(),
            https: false,
            request_timeout: Duration::from_secs(5 * 60),
            pin_timeout: Duration::from_secs(2 * 60),
            unpin_timeout: Duration::from_secs(3 * 60 * 60),
            repogc_timeout: Duration::from_secs(24 * 60 * 60),
            unpin_disable: false,
        }
    }
}

/// A Kubo daemon. Clones share its connections.
#[derive(Clone)]
pub struct Kubo {
    client: Arc<Client>,
    config: KuboConfig,
    watch: Arc<Watch>,
    /// See [`PROVIDERS_AT_ONCE`].
    dials: Arc<Semaphore>,
}

impl Kubo {
    /// A connector. Nothing is sent yet: the daemon may come up later.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an address that cannot be used.
    pub fn new(config: KuboConfig) -> Result<Kubo> {
        if config.https {
            return Err(Error::invalid(
                "ipfs_connector.ipfshttp: https to the IPFS daemon is not supported; \
                 use its plain address on the same machine, or a TLS tunnel in front of it",
            ));
        }
        let nodes: Vec<Multiaddr> = [&config.node].into_iter().chain(&config.alternatives).cloned().collect();
        Ok(Kubo {
            client: Client::new(&nodes)?,
            config,
            watch: Arc::default(),
            dials: Arc::new(Semaphore::new(PROVIDERS_AT_ONCE)),
        })
    }

    /// One call, one JSON value, within `limit` in all.
    async fn ask<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T> {
        let deadline = Instant::now() + limit;
        let reply = self.client.call(path, limit).await?;
        reply.json(deadline.saturating_duration_since(Instant::now())).await
    }

    async fn is_pinned(&self, cid: &Cid, kind: &str) -> Result<bool> {
        let path = format!("pin/ls?{}&type={kind}&stream=true", arg("arg", &cid.to_string()));
        let listed = async {
            let deadline = Instant::now() + self.config.request_timeout;
            let left = || deadline.saturating_duration_since(Instant::now());
            let mut lines = self.client.call(&path, left()).await?.lines().at_most(FEW_LINES);
            let mut found = false;
            while let Some(line) = lines.next::<PinLine>(left()).await? {
                found |= line.cid()? == *cid && line.kind.starts_with(kind);
            }
            Ok::<_, Error>(found)
        };
        match listed.await {
            Err(error) if error.message().trim_end().ends_with("not pinned") => Ok(false),
            other => other,
        }
    }

    /// Connects to the origins of a pin in the background, for as long as the returned tasks live.
    fn approach(&self, providers: &[Multiaddr]) -> Vec<Task<()>> {
        let connect = |address: &Multiaddr| {
            let (kubo, address) = (self.clone(), address.clone());
            runtime::spawn(async move {
                let _turn = kubo.dials.acquire().await;
                if let Err(error) = kubo.connect(&address, PROVIDER_TIMEOUT).await {
                    log::debug!(target: "ipfshttp", "cannot connect to the origin {address}: {error}");
                }
            })
        };
        providers.iter().take(MAX_PROVIDERS).map(connect).collect()
    }

    async fn connect(&self, address: &Multiaddr, limit: Duration) -> Result<()> {
        let path = format!("swarm/connect?{}", arg("arg", &address.to_string()));
        self.ask::<ConnectAnswer>(&path, limit).await.map(drop)
    }

    /// Pins by the difference to `from`, when the daemon has that one. False when it must be done in full.
    async fn pin_update(&self, from: &Cid, to: &Cid) -> Result<bool> {
        if !self.is_pinned(from, "recursive").await? {
            return Ok(false);
        }
        let path = format!(
            "pin/update?{}&{}&unpin=false",
            arg("arg", &from.to_string()),
            arg("arg", &to.to_string())
        );
        // Kubo reports no progress here, so that the limit is one for all; if it is too short, the
        // full way that follows finds everything that has come already.
        let updated = self.ask::<PinsAnswer>(&path, self.config.pin_timeout).await;
        match updated.and_then(|answer| answer.must_name(to)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == Kind::Unavailable => Err(error),
            Err(error) => {
                log::debug!(target: "ipfshttp", "pin/update failed, pinning in full: {error}");
                Ok(false)
            }
        }
    }

    async fn pin_add(&self, cid: &Cid, mode: PinMode, progress: &Progress) -> Result<()> {
        let limit = self.config.pin_timeout;
        let (mut blocks, mut bytes, mut pinned) = (0, 0, false);
        let recursive = mode == PinMode::Recursive;
        let path = format!("pin/add?{}&recursive={recursive}&progress=true", arg("arg", &cid.to_string()));
        let mut moved = Instant::now();
        let mut idle = 0;
        let called = self.client.call_long(&path, limit).await;
        let mut lines = called.map_err(|error| stuck(cid, 0, limit, error))?.lines();
        loop {
            let left = limit.saturating_sub(moved.elapsed());
            if left.is_zero() {
                return Err(stuck(cid, blocks, limit, Error::timeout("")));
            }
            let line =
                lines.next::<PinAddLine>(left).await.map_err(|error| stuck(cid, blocks, limit, error))?;
            let Some(line) = line else { break };
            if line.progress > blocks || line.bytes > bytes {
                (blocks, bytes) = (line.progress.max(blocks), line.bytes.max(bytes));
                (moved, idle) = (Instant::now(), 0);
                progress(blocks);
            }
            idle += 1;
            if idle > IDLE_LINES + IDLE_LINES_PER_SECOND * moved.elapsed().as_secs() {
                return Err(lines.endless());
            }
            pinned |= line.names(cid);
        }
        match pinned {
            true => Ok(()),
            false => Err(Error::ipfs(format!(
                "the IPFS daemon ended the pinning of {cid} without saying that it is pinned"
            ))),
        }
    }

    /// Pins through one address of the daemon.
    async fn pin_once(&self, request: &PinRequest, progress: &Progress) -> Result<()> {
        // Not asked first whether it is pinned: Kubo answers at once when it is, and a question less per pin counts
        // when there are a hundred thousand.
        let cid = &request.cid;
        let _approaching = self.approach(&request.providers);
        if let (Some(from), PinMode::Recursive) = (&request.update_from, request.mode) {
            if from != cid && self.pin_update(from, cid).await? {
                return Ok(());
            }
        }
        match self.pin_add(cid, request.mode, progress).await {
            // Kubo refuses to make a recursive pin direct; unpinned first it is a new pin.
            Err(error)
                if request.mode == PinMode::Direct
                    && error.message().contains("already pinned recursively") =>
            {
                self.unpin(cid).await?;
                self.pin_add(cid, request.mode, progress).await
            }
            other => other,
        }
    }

    async fn pins_of(&self, mode: PinMode) -> Result<BoxStream<'static, Result<(Cid, PinMode)>>> {
        let kind = match mode {
            PinMode::Recursive => "recursive",
            PinMode::Direct => "direct",
        };
        let path = format!("pin/ls?type={kind}&stream=true");
        let lines = self.client.call(&path, self.config.request_timeout).await?.lines();
        Ok(line_stream(lines, self.config.request_timeout, move |line: PinLine| Ok((line.cid()?, mode))))
    }

    fn getter(&self) -> Arc<dyn BlockGetter> {
        Arc::new(self.clone())
    }
}

/// A pin that ran out of time, as a sentence that tells whether anything came; any other error as it is.
fn stuck(cid: &Cid, blocks: u64, limit: Duration, error: Error) -> Error {
    let limit = format_duration(limit);
    match (error.kind(), blocks) {
        (Kind::Timeout, 0) => Error::timeout(format!(
            "no provider found: no progress for {limit} (ipfs_connector.ipfshttp.pin_timeout), not one block of {cid} \
             came. Nobody whom the IPFS daemon can reach seems to have it: start or connect a node that does"
        )),
        (Kind::Timeout, blocks) => Error::timeout(format!(
            "no progress for {limit} (ipfs_connector.ipfshttp.pin_timeout) after {blocks} blocks of {cid}: whoever has \
             the others went away, or nobody has all of it. What came is kept, the next attempt goes on from there"
        )),
        _ => error,
    }
}

/// The lines of an answer, each turned into an item; ends after the first error.
fn line_stream<L, T, F>(lines: Lines, pause: Duration, turn: F) -> BoxStream<'static, Result<T>>
where
    L: DeserializeOwned,
    T: Send + 'static,
    F: Fn(L) -> Result<T> + Send + Sync + 'static,
{
    stream::unfold((Some(lines), turn), move |(lines, turn)| async move {
        let mut lines = lines?;
        match lines.next::<L>(pause).await {
            Ok(None) => None,
            Ok(Some(line)) => match turn(line) {
                Ok(item) => Some((Ok(item), (Some(lines), turn))),
                Err(error) => Some((Err(error), (None, turn))),
            },
            Err(error) => Some((Err(error), (None, turn))),
        }
    })
    .boxed()
}

#[async_trait]
impl BlockGetter for Kubo {
    async fn get(&self, cid: &Cid) -> Result<Bytes> {
        self.get_block(cid, true).await
    }
}

#[async_trait]
impl Ipfs for Kubo {
    async fn id(&self) -> Result<IpfsId> {
        self.ask::<IdAnswer>("id", self.config.request_timeout).await?.into_id()
    }

    async fn current_run(&self) -> Result<Run> {
        self.watch.current_run(&self.client).await
    }

    async fn run_over(&self) {
        self.watch.run_over(&self.client).await;
    }

    async fn pin(&self, request: PinRequest, progress: Progress) -> Result<()> {
        let mut left = self.config.alternatives.len();
        loop {
            match self.pin_once(&request, &progress).await {
                // One peer of a lower cluster went away: through the next one the pin goes on where it was.
                Err(error) if left > 0 && error.kind() == Kind::Unavailable => left -= 1,
                other => return other,
            }
        }
    }

    async fn unpin(&self, cid: &Cid) -> Result<()> {
        if self.config.unpin_disable {
            return Err(Error::forbidden(
                "unpinning is disallowed on this peer (ipfs_connector.ipfshttp.unpin_disable)",
            ));
        }
        let path = format!("pin/rm?{}", arg("arg", &cid.to_string()));
        let unpinned = self.ask::<PinsAnswer>(&path, self.config.unpin_timeout).await;
        match unpinned.and_then(|answer| answer.must_name(cid)) {
            // "not pinned or pinned indirectly", "is not pinned", and what the proxy of a lower cluster says.
            Err(error)
                if error.kind() == Kind::Ipfs
                    && ["not pinned", "not part of the pinset"]
                        .iter()
                        .any(|w| error.message().contains(w)) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    async fn pin_state(&self, cid: &Cid) -> Result<IpfsPin> {
        // Not type=all: that walks every recursive pin to find indirect ones.
        if self.is_pinned(cid, "recursive").await? {
            return Ok(IpfsPin::Recursive);
        }
        Ok(match self.is_pinned(cid, "direct").await? {
            true => IpfsPin::Direct,
            false => IpfsPin::Unpinned,
        })
    }

    async fn list_pins(&self) -> Result<BoxStream<'static, Result<(Cid, PinMode)>>> {
        let recursive = self.pins_of(PinMode::Recursive).await?;
        let kubo = self.clone();
        // Asked for only when the first list is through: one connection, not two.
        let direct = stream::once(async move {
            kubo.pins_of(PinMode::Direct)
                .await
                .unwrap_or_else(|error| stream::once(async move { Err(error) }).boxed())
        });
        Ok(recursive.chain(direct.flatten()).boxed())
    }

    async fn put_blocks(&self, blocks: Vec<Block>) -> Result<()> {
        for block in &blocks {
            hash::verify(&block.cid, &block.data)?;
        }
        for batch in upload::batches(&blocks) {
            let (kind, body) = upload::multipart(batch.blocks)?;
            // Kubo keeps blocks by their hash alone, so the codec does not matter and `raw` is never refused.
            let path = format!(
                "block/put?cid-codec=raw&mhtype={}&mhlen=-1&pin=false&allow-big-block=true",
                batch.function
            );
            let limit = self.config.request_timeout;
            let mut lines = self.client.call_with(&path, Some((kind, body)), limit).await?.lines();
            for block in batch.blocks {
                let stored = lines.next::<answers::BlockLine>(limit).await?;
                if stored.as_ref().and_then(answers::BlockLine::cid).map(|c| *c.hash())
                    != Some(*block.cid.hash())
                {
                    return Err(Error::ipfs(format!(
                        "the IPFS daemon did not confirm that it stored the block {}",
                        block.cid
                    )));
                }
            }
            // The end of the answer is where a late error would stand.
            let mut lines = lines.at_most(FEW_LINES);
            while lines.next::<answers::BlockLine>(limit).await?.is_some() {}
        }
        Ok(())
    }

    async fn get_block(&self, cid: &Cid, fetch: bool) -> Result<Bytes> {
        if let Some(content) = hash::inline_content(cid) {
            return Ok(Bytes::copy_from_slice(content));
        }
        let path = format!("block/get?{}&offline={}", arg("arg", &cid.to_string()), !fetch);
        let limit = self.config.request_timeout;
        let data = self.client.call(&path, limit).await?.bytes(MAX_BLOCK, limit).await?;
        hash::verify(cid, &data)?;
        Ok(data)
    }

    async fn repo_stat(&self) -> Result<RepoStat> {
        let limit = self.config.request_timeout;
        let stat: StatAnswer = self.ask("repo/stat?size-only=true", limit).await?;
        let storage_max = match stat.storage_max {
            Some(limit) => limit,
            // Daemons of long ago say it only in their configuration.
            None => self.ask::<ConfigAnswer>("config/show", limit).await?.storage_max()?,
        };
        Ok(RepoStat { repo_size: stat.repo_size, storage_max, objects: None })
    }

    async fn gc(&self) -> Result<BoxStream<'static, Result<Cid>>> {
        let limit = self.config.repogc_timeout;
        let lines = self.client.call("repo/gc?stream-errors=true", limit).await?.lines();
        Ok(line_stream(lines, limit, GcLine::into_cid))
    }

    async fn swarm_peers(&self) -> Result<Vec<PeerId>> {
        self.ask::<PeersAnswer>("swarm/peers", self.config.request_timeout).await?.into_peers()
    }

    async fn swarm_connect(&self, address: &Multiaddr) -> Result<()> {
        self.connect(address, self.config.request_timeout).await
    }

    async fn resolve(&self, path: &str) -> Result<Cid> {
        let path = match path.starts_with('/') {
            true => path.to_string(),
            false => format!("/ipfs/{path}"),
        };
        // What needs no daemon is answered without one, bad input included.
        if !path.starts_with("/ipns/") {
            let (cid, names) = unixfs::parse_path(&path)?;
            if names.is_empty() {
                return Ok(cid);
            }
        }
        let call = format!("resolve?{}&recursive=true", arg("arg", &path));
        self.ask::<ResolveAnswer>(&call, self.config.request_timeout).await?.into_cid(&path)
    }

    async fn cat(&self, path: &str, range: Option<Range<u64>>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let cid = self.resolve(path).await?;
        unixfs::cat(self.getter(), cid, range).await
    }

    async fn ls(&self, path: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)> {
        let cid = self.resolve(path).await?;
        unixfs::ls(self.getter(), cid).await
    }

    async fn close(&self) {
        self.client.close();
    }
}
