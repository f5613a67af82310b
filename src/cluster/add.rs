//! `add`: uploaded files to blocks on the allocated peers to a pin.
//!
//! The importer runs here, once; every block goes to each holder in batches, over one stream per
//! holder, with back-pressure from the slowest. A holder that fails is left behind (its tracker fetches the
//! content from the others later); the add fails only when all have failed. Memory is bounded by
//! [`BATCH_BYTES`] × [`BATCHES_AHEAD`] per holder, whatever the size of the upload.

use super::rpc::{self, bytes_serde::Data, Batch, Next};
use super::Cluster;
use crate::api::types::{AddedOutput, PinOptions};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ipfs::unixfs::{self, BlockSink, FileImporter, ImportOptions, Imported, Link};
use crate::ipfs::{Block, Ipfs};
use crate::runtime;
use crate::state::{Pin, PinMode};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::StreamExt;
use libp2p::PeerId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// A batch of blocks is sent when it holds this many bytes …
const BATCH_BYTES: usize = 2 << 20;
/// … or this many blocks.
const BATCH_BLOCKS: usize = 512;
/// Batches waiting per holder.
const BATCHES_AHEAD: usize = 3;
/// Between two progress lines of a file.
const PROGRESS_BYTES: u64 = 262_144;
/// How long a holder may take to store what it was sent.
const STORE_TIMEOUT: Duration = Duration::from_secs(120);
/// Most entries of one upload: they are held until their folders are built.
pub const MAX_ENTRIES: usize = 1_000_000;
/// Deepest folder of an upload.
pub const MAX_DEPTH: usize = 128;
/// Lines waiting for the client.
const LINES_AHEAD: usize = 64;

/// Query options of `POST /add` (reference A.6), already validated by the API.
#[derive(Clone, Debug, PartialEq)]
pub struct AddOptions {
    /// Pin options (`pin_update` and `mode` are ignored).
    pub pin: PinOptions,
    /// 0 or 1.
    pub cid_version: u8,
    /// Raw leaves.
    pub raw_leaves: bool,
    /// Bytes per leaf.
    pub chunk_size: usize,
    /// Wrap everything in a folder.
    pub wrap: bool,
    /// Accepted for compatibility: whoever uploads decides what is hidden.
    pub hidden: bool,
    /// Send progress lines.
    pub progress: bool,
    /// Blocks to this peer only.
    pub local: bool,
    /// Do not pin the root.
    pub no_pin: bool,
    /// Store nothing and pin nothing: only say what the CIDs would be.
    pub only_hash: bool,
}

/// What a part of the upload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// A file; its content follows as [`AddPart::Data`].
    File,
    /// A folder.
    Directory,
    /// A symbolic link to this target.
    Symlink(String),
}

/// The upload as a stream: a header, then (for files) data until the next header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddPart {
    /// A new part begins.
    Begin {
        /// Path, `/`-separated, relative, without `.` or `..`; already checked by the API.
        path: String,
        /// What it is.
        kind: PartKind,
    },
    /// Content of the file that began last.
    Data(Bytes),
}

/// A folder of the upload while it is being received.
#[derive(Default)]
struct Folder {
    folders: BTreeMap<String, Folder>,
    links: BTreeMap<String, Imported>,
}

impl Folder {
    fn at(&mut self, path: &str) -> Result<&mut Folder> {
        let mut folder = self;
        for (depth, name) in path.split('/').filter(|n| !n.is_empty()).enumerate() {
            if depth >= MAX_DEPTH {
                return Err(Error::too_large(format!("folders are nested more than {MAX_DEPTH} deep")));
            }
            folder = folder.folders.entry(name.to_string()).or_default();
        }
        Ok(folder)
    }
}

/// One holder: batches go in, the end comes out.
struct Holder {
    batches: async_channel::Sender<Arc<Vec<Block>>>,
    task: smol::Task<Result<()>>,
    peer: PeerId,
}

/// Sends every block to every holder.
struct Spread {
    holders: Vec<Holder>,
    batch: Vec<Block>,
    bytes: usize,
    last: [Option<cid::Cid>; 2],
    first_failure: Option<Error>,
    /// Blocks go nowhere.
    discard: bool,
}

#[async_trait]
impl BlockSink for Spread {
    async fn put(&mut self, block: Block) -> Result<()> {
        if self.discard {
            return Ok(());
        }
        // Runs of equal blocks (a file of zeros) are sent once.
        if self.last.contains(&Some(block.cid)) {
            return Ok(());
        }
        self.last = [self.last[1], Some(block.cid)];
        self.bytes += block.data.len();
        self.batch.push(block);
        if self.bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOCKS {
            self.send().await?;
        }
        Ok(())
    }
}

impl Spread {
    async fn send(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = Arc::new(std::mem::take(&mut self.batch));
        self.bytes = 0;
        let mut alive = Vec::new();
        for holder in std::mem::take(&mut self.holders) {
            let sent = runtime::timeout(STORE_TIMEOUT, "a holder", async {
                holder.batches.send(batch.clone()).await.map_err(|_| Error::unavailable("the stream ended"))
            });
            match sent.await {
                Ok(()) => alive.push(holder),
                Err(late) => {
                    let error = if holder.batches.is_closed() {
                        holder.task.await.err().unwrap_or(late)
                    } else {
                        late
                    };
                    self.lost(holder.peer, error);
                }
            }
        }
        self.holders = alive;
        self.check()
    }

    fn lost(&mut self, peer: PeerId, error: Error) {
        log::warn!(target: "adder", "blocks no longer go to {peer}: {error}");
        self.first_failure.get_or_insert(error);
    }

    fn check(&self) -> Result<()> {
        if !self.holders.is_empty() {
            return Ok(());
        }
        Err(match &self.first_failure {
            Some(e) => Error::new(e.kind(), format!("failed to put block on all destinations: {e}")),
            None => Error::unavailable("failed to put block on all destinations"),
        })
    }

    /// Waits until every holder has everything durably; at least one must.
    async fn finish(mut self) -> Result<()> {
        if self.discard {
            return Ok(());
        }
        self.send().await?;
        let mut stored = 0;
        for holder in std::mem::take(&mut self.holders) {
            drop(holder.batches);
            match holder.task.await {
                Ok(()) => stored += 1,
                Err(error) => self.lost(holder.peer, error),
            }
        }
        if stored > 0 {
            Ok(())
        } else {
            self.check()
        }
    }
}

impl Cluster {
    /// Imports uploaded files: blocks go to the allocated peers, then each root is pinned. Yields lines as
    /// `POST /add` prints them.
    ///
    /// # Errors
    /// Bad options and an allocation that is impossible are returned here, before anything is read.
    pub async fn add(
        &self,
        options: AddOptions,
        parts: BoxStream<'static, Result<AddPart>>,
    ) -> Result<BoxStream<'static, Result<AddedOutput>>> {
        self.check_clock(options.pin.expire_at).await?;
        let (holders, allocations) = match options.only_hash {
            true => (Vec::new(), Vec::new()),
            false => self.holders(&options)?,
        };
        let mut spread = self.spread(&holders);
        spread.discard = options.only_hash;
        let (lines, out) = async_channel::bounded(LINES_AHEAD);
        let mut import = Import {
            cluster: self.clone(),
            import: ImportOptions {
                cid_version: options.cid_version,
                raw_leaves: options.raw_leaves,
                chunk_size: options.chunk_size,
            },
            options,
            holders: holders.iter().map(ToString::to_string).collect(),
            allocations,
            spread,
            lines: lines.clone(),
            entries: 0,
        };
        runtime::spawn(async move {
            if let Err(error) = import.run(parts).await {
                let _ = lines.send(Err(error)).await;
            }
        })
        .detach();
        Ok(out.boxed())
    }

    /// Who gets the blocks, and what the pin will say (empty: everywhere).
    fn holders(&self, options: &AddOptions) -> Result<(Vec<PeerId>, Vec<PeerId>)> {
        if options.local {
            self.must_hold_content("add without --local, or")?;
        }
        let (min, max) = self.factors(&options.pin)?;
        let mut pin = Pin::new(cid::Cid::default(), Timestamp::now());
        (pin.replication_min, pin.replication_max) = (min, max);
        let mut allocations = self.allocate(&pin, &[], &options.pin.user_allocations)?;
        let me = self.inner.me;
        if options.local
            && !allocations.is_empty()
            && !allocations.contains(&me)
            && options.pin.user_allocations.is_empty()
        {
            // The blocks are here: this peer takes the last place.
            allocations.pop();
            allocations.push(me);
        }
        let mut holders = match () {
            () if options.local => vec![me],
            () if allocations.is_empty() => self.alive(),
            () => allocations.clone(),
        };
        holders.sort_unstable();
        Ok((holders, allocations))
    }

    /// Members that hold content and whose ping has not expired, and this one if it holds any.
    pub(super) fn alive(&self) -> Vec<PeerId> {
        let readings = &self.inner.readings;
        let (monitor, now) = (readings.lock(), readings.now_ms());
        let alive =
            |p: &PeerId| *p == self.inner.me || monitor.reading(crate::monitor::PING, p, now).is_some();
        self.holder_ids().into_iter().filter(alive).collect()
    }

    fn spread(&self, holders: &[PeerId]) -> Spread {
        let holders = holders
            .iter()
            .map(|peer| {
                let (batches, incoming) = async_channel::bounded(BATCHES_AHEAD);
                let task = if *peer == self.inner.me {
                    runtime::spawn(store_here(self.inner.ipfs.clone(), incoming))
                } else {
                    runtime::spawn(store_there(self.clone(), *peer, incoming))
                };
                Holder { batches, task, peer: *peer }
            })
            .collect();
        Spread {
            holders,
            batch: Vec::new(),
            bytes: 0,
            last: [None, None],
            first_failure: None,
            discard: false,
        }
    }
}

async fn store_here(ipfs: Arc<dyn Ipfs>, batches: async_channel::Receiver<Arc<Vec<Block>>>) -> Result<()> {
    while let Ok(batch) = batches.recv().await {
        ipfs.put_blocks(batch.to_vec()).await?;
    }
    Ok(())
}

async fn store_there(
    cluster: Cluster,
    peer: PeerId,
    batches: async_channel::Receiver<Arc<Vec<Block>>>,
) -> Result<()> {
    let mut call = cluster.inner.rpc.open(peer, rpc::BLOCKS, super::PEER_TIMEOUT).await?;
    call.set_idle(STORE_TIMEOUT);
    loop {
        match rpc::next_or_beat(&batches).await {
            Next::Item(batch) => {
                let frame = Batch(batch.iter().map(|b| (b.cid.to_bytes(), Data(b.data.clone()))).collect());
                call.send(&frame).await?;
            }
            // The client may take its time between two blocks: the holder must not take us for dead.
            Next::Beat => {
                call.send(&Batch(Vec::new())).await?;
                call.flush().await?;
            }
            Next::End => break,
        }
    }
    call.finish().await?;
    let _stored: u64 = call.need().await?;
    Ok(())
}

/// One running import.
struct Import {
    cluster: Cluster,
    options: AddOptions,
    import: ImportOptions,
    holders: Vec<String>,
    allocations: Vec<PeerId>,
    spread: Spread,
    lines: async_channel::Sender<Result<AddedOutput>>,
    entries: usize,
}

/// A file being received.
struct Current {
    path: String,
    importer: FileImporter,
    bytes: u64,
    told: u64,
}

impl Import {
    async fn run(&mut self, mut parts: BoxStream<'static, Result<AddPart>>) -> Result<()> {
        let mut root = Folder::default();
        let mut current: Option<Current> = None;
        while let Some(part) = parts.next().await {
            match part? {
                AddPart::Data(data) => {
                    let Some(file) = &mut current else {
                        return Err(Error::invalid("the upload has content outside a file"));
                    };
                    file.importer.push(&data, &mut self.spread).await?;
                    file.bytes += data.len() as u64;
                    if self.options.progress && file.bytes - file.told >= PROGRESS_BYTES {
                        file.told = file.bytes;
                        let line = progress(&file.path, file.bytes);
                        self.tell(line).await?;
                    }
                }
                AddPart::Begin { path, kind } => {
                    if let Some(file) = current.take() {
                        self.end_file(&mut root, file).await?;
                    }
                    self.entries += 1;
                    if self.entries > MAX_ENTRIES {
                        return Err(Error::too_large(format!(
                            "the upload has more than {MAX_ENTRIES} entries"
                        )));
                    }
                    match kind {
                        PartKind::File => {
                            let importer = FileImporter::new(self.import.clone());
                            current = Some(Current { path, importer, bytes: 0, told: 0 });
                        }
                        PartKind::Directory => {
                            root.at(&path)?;
                        }
                        PartKind::Symlink(target) => {
                            let link = unixfs::build_symlink(&self.import, &target, &mut self.spread).await?;
                            self.place(&mut root, &path, link).await?;
                        }
                    }
                }
            }
        }
        if let Some(file) = current.take() {
            self.end_file(&mut root, file).await?;
        }
        if self.entries == 0 {
            return Err(Error::invalid(
                "the upload holds no file: send multipart/form-data with at least one part",
            ));
        }
        self.end(root).await
    }

    async fn end_file(&mut self, root: &mut Folder, file: Current) -> Result<()> {
        if self.options.progress && (file.bytes > file.told || file.bytes == 0) {
            let line = progress(&file.path, file.bytes);
            self.tell(line).await?;
        }
        let done = file.importer.finish(&mut self.spread).await?;
        self.place(root, &file.path, done).await
    }

    /// Puts something finished into its folder and tells the client, unless it is a root.
    async fn place(&mut self, root: &mut Folder, path: &str, done: Imported) -> Result<()> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !folder.is_empty() || self.options.wrap {
            self.tell(self.line(path, &done)).await?;
        }
        root.at(folder)?.links.insert(name.to_string(), done);
        Ok(())
    }

    /// Builds the folders, waits for the holders, pins the roots. A root is told to the client only when it is
    /// pinned, so that its line means what it says.
    async fn end(&mut self, mut root: Folder) -> Result<()> {
        let mut roots = Vec::new();
        if self.options.wrap {
            let done = self.build(root, String::new()).await?;
            roots.push((String::new(), done));
        } else {
            for (name, done) in std::mem::take(&mut root.links) {
                roots.push((name, done));
            }
            for (name, folder) in std::mem::take(&mut root.folders) {
                let done = self.build(folder, name.clone()).await?;
                roots.push((name, done));
            }
        }
        let spread = std::mem::replace(&mut self.spread, self.cluster.spread(&[]));
        spread.finish().await?;
        for (name, done) in roots {
            if !(self.options.no_pin || self.options.only_hash) {
                self.pin(&done).await?;
            }
            self.tell(self.line(&name, &done)).await?;
        }
        Ok(())
    }

    /// Builds a folder, its folders first.
    fn build(&mut self, folder: Folder, path: String) -> futures::future::BoxFuture<'_, Result<Imported>> {
        Box::pin(async move {
            let mut links: Vec<Link> =
                folder.links.into_iter().map(|(name, target)| Link { name, target }).collect();
            for (name, inner) in folder.folders {
                let inner_path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                let target = self.build(inner, inner_path.clone()).await?;
                self.tell(self.line(&inner_path, &target)).await?;
                links.push(Link { name, target });
            }
            unixfs::build_directory(&self.import, links, &mut self.spread).await
        })
    }

    async fn pin(&self, root: &Imported) -> Result<()> {
        let mut pin = self.cluster.described(root.cid, &self.options.pin)?;
        pin.mode = PinMode::Recursive;
        pin.allocations.clone_from(&self.allocations);
        self.cluster.commit(pin).await.map(|_| ())
    }

    fn line(&self, path: &str, done: &Imported) -> AddedOutput {
        AddedOutput {
            name: path.to_string(),
            cid: Some(done.cid.to_string()),
            bytes: 0,
            size: done.dag_size,
            allocations: self.holders.clone(),
        }
    }

    async fn tell(&self, line: AddedOutput) -> Result<()> {
        self.lines.send(Ok(line)).await.map_err(|_| Error::cancelled("the client went away"))
    }
}

fn progress(path: &str, bytes: u64) -> AddedOutput {
    AddedOutput { name: path.to_string(), cid: None, bytes, size: 0, allocations: Vec::new() }
}
