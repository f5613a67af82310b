//! How fast is the way of an upload: import, hash check, durable store; and back.
//!
//! `cargo run --release --example block_store -- [FOLDER] [MEGABYTES] [FILES] [BATCH_MIB]`
//! (BATCH_MIB 0: one flush at the very end)
//!
//! Imports MEGABYTES of incompressible content as one file, then FILES files of 4 KiB in one folder, through the same
//! importer and the same store as `pinfold add` to the embedded node; every batch is durable before the next. Then
//! reads everything back with each hash checked, and opens the store again.

use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use pinfold::ipfs::embedded::blocks::{BlockStore, Durability, StoreConfig};
use pinfold::ipfs::unixfs::{
    build_directory, cat, hash, BlockGetter, BlockSink, FileImporter, ImportOptions, Link,
};
use pinfold::ipfs::Block;
use pinfold::{runtime, Error, Result};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of one put when not told otherwise, MiB.
const BATCH_MIB: usize = 8;
/// Blocks of one durable put.
const BATCH_BLOCKS: usize = 1_000;

/// Collects blocks, checks them as a remote put is checked, and stores a batch while the next one fills.
struct Sink {
    store: BlockStore,
    batch: Vec<(Cid, Bytes)>,
    bytes: usize,
    /// Bytes of one durable put; `None`: puts of the usual size, one flush at the end.
    limit: Option<usize>,
    storing: Option<smol::Task<Result<()>>>,
}

impl Sink {
    fn new(store: &BlockStore, batch_mib: usize) -> Self {
        let limit = (batch_mib > 0).then_some(batch_mib << 20);
        Sink { store: store.clone(), batch: Vec::new(), bytes: 0, limit, storing: None }
    }

    async fn flush(&mut self) -> Result<()> {
        if let Some(storing) = self.storing.take() {
            storing.await?;
        }
        let (store, batch) = (self.store.clone(), std::mem::take(&mut self.batch));
        self.bytes = 0;
        let durability = if self.limit.is_some() { Durability::Flushed } else { Durability::Written };
        self.storing = Some(runtime::spawn(async move {
            let checked = runtime::unblock(move || {
                batch.iter().try_for_each(|(cid, data)| hash::verify(cid, data)).map(|()| batch)
            });
            store.put(checked.await?, durability).await
        }));
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        self.flush().await?;
        if let Some(storing) = self.storing.take() {
            storing.await?;
        }
        self.store.sync().await
    }
}

#[async_trait]
impl BlockSink for Sink {
    async fn put(&mut self, block: Block) -> Result<()> {
        self.bytes += block.data.len();
        self.batch.push((block.cid, block.data));
        if self.bytes >= self.limit.unwrap_or(BATCH_MIB << 20) || self.batch.len() >= BATCH_BLOCKS {
            self.flush().await?;
        }
        Ok(())
    }
}

struct Getter(BlockStore);

#[async_trait]
impl BlockGetter for Getter {
    async fn get(&self, cid: &Cid) -> Result<Bytes> {
        let (store, cid) = (self.0.clone(), *cid);
        let block = runtime::unblock(move || store.get(&cid)).await?;
        block.ok_or_else(|| Error::not_found(format!("block {cid} is not here")))
    }
}

/// Takes nothing: the importer alone.
struct Nowhere;

#[async_trait]
impl BlockSink for Nowhere {
    async fn put(&mut self, _: Block) -> Result<()> {
        Ok(())
    }
}

/// Content that no two calls share and no disk compresses.
fn noise(seed: &mut u64, out: &mut [u8]) {
    for word in out.chunks_mut(8) {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        word.copy_from_slice(&seed.to_le_bytes()[..word.len()]);
    }
}

async fn import(data: &[u8], sink: &mut dyn BlockSink) -> Result<pinfold::ipfs::unixfs::Imported> {
    let mut importer = FileImporter::new(ImportOptions::v1());
    for part in data.chunks(64 * 1024) {
        importer.push(part, sink).await?;
    }
    importer.finish(sink).await
}

async fn run(folder: std::path::PathBuf, megabytes: usize, files: usize, batch: usize) -> Result<()> {
    let config = StoreConfig::new(&folder, u64::MAX);
    let opening = config.clone();
    let store = runtime::unblock(move || BlockStore::open(opening)).await?;
    let mut seed = std::time::SystemTime::now().elapsed().map_or(1, |d| d.as_nanos() as u64) | 0x9e37_79b9;
    let mut data = vec![0; megabytes << 20];
    noise(&mut seed, &mut data);
    let rate = |what: &str, start: Instant| {
        let s = start.elapsed().as_secs_f64();
        println!("{what}: {s:.2} s, {:.0} MB/s", data.len() as f64 / 1e6 / s);
    };

    let start = Instant::now();
    import(&data, &mut Nowhere).await?;
    rate("import without a store", start);

    let start = Instant::now();
    let mut sink = Sink::new(&store, batch);
    let root = import(&data, &mut sink).await?.cid;
    sink.finish().await?;
    rate("add of one file, durable", start);

    let start = Instant::now();
    let mut stream = cat(Arc::new(Getter(store.clone())), root, None).await?;
    let mut read = 0;
    while let Some(part) = futures::StreamExt::next(&mut stream).await {
        read += part?.len();
    }
    assert_eq!(read, data.len(), "what was read is as long as what was written");
    rate("cat, every hash checked", start);

    let mut contents = vec![[0u8; 4096]; files];
    contents.iter_mut().for_each(|c| noise(&mut seed, c));
    let start = Instant::now();
    let mut sink = Sink::new(&store, batch);
    let mut links = Vec::with_capacity(files);
    for (n, content) in contents.iter().enumerate() {
        links.push(Link { name: format!("f{n:05}"), target: import(content, &mut sink).await? });
    }
    build_directory(&ImportOptions::v1(), links, &mut sink).await?;
    sink.finish().await?;
    let s = start.elapsed().as_secs_f64();
    println!("add of {files} files of 4 KiB, durable: {s:.2} s, {:.0} files/s", files as f64 / s);

    let start = Instant::now();
    store.close().await;
    drop((store, stream));
    let store = runtime::unblock(move || BlockStore::open(config)).await?;
    println!("close and open: {:.0} ms, {:?}", start.elapsed().as_secs_f64() * 1e3, store.usage());
    Ok(())
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| "block-store-bench".into());
    let mut number = |default| args.next().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (megabytes, files, batch) = (number(1024), number(10_000), number(BATCH_MIB));
    runtime::block_on(run(folder.into(), megabytes, files, batch))
}
