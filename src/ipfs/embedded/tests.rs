//! Pins, reads and collections of the embedded node over an exchange in memory.

use super::blocks::{Durability, StoreConfig};
use super::node::{Exchange, Fetch};
use super::*;
use crate::error::Kind;
use crate::ipfs::unixfs::hash::{cid_of, DAG_CBOR, DAG_PB, RAW};
use crate::ipfs::unixfs::{
    build_directory, BlockGetter, BlockSink, FileImporter, ImportOptions, Imported, Link,
};
use crate::runtime::block_on;
use futures::StreamExt;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A neighbour that has some blocks; fetches of others never end.
#[derive(Clone, Default)]
struct Neighbour(Arc<State>);

#[derive(Default)]
struct State {
    blocks: Mutex<HashMap<Cid, Bytes>>,
    fetched: AtomicUsize,
    /// Fetches that run now, and the most there were.
    running: AtomicUsize,
    peak: AtomicUsize,
}

struct Running(Arc<State>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Exchange for Neighbour {
    fn session(&self) -> Box<dyn Fetch> {
        Box::new(self.clone())
    }
    fn notify(&self, _: &[Cid]) {}
}

#[async_trait]
impl Fetch for Neighbour {
    async fn fetch(&self, cid: Cid) -> Result<Bytes> {
        let now = self.0.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(self.0.clone());
        self.0.peak.fetch_max(now, Ordering::SeqCst);
        smol::future::yield_now().await;
        let block = self.0.blocks.lock().get(&cid).cloned();
        match block {
            Some(block) => {
                self.0.fetched.fetch_add(1, Ordering::SeqCst);
                Ok(block)
            }
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl BlockSink for Neighbour {
    async fn put(&mut self, block: Block) -> Result<()> {
        self.0.blocks.lock().insert(block.cid, block.data);
        Ok(())
    }
}

struct Bench {
    folder: tempfile::TempDir,
    neighbour: Neighbour,
    node: Node,
}

fn store_config(folder: &std::path::Path) -> StoreConfig {
    StoreConfig {
        reserve: 0,
        grace: Duration::ZERO,
        segment_size: 1 << 20,
        ..StoreConfig::new(folder, 1 << 30)
    }
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let neighbour = Neighbour::default();
        let store = BlockStore::open(store_config(folder.path())).unwrap();
        let node = Node::new(store, Arc::new(neighbour.clone()), Duration::from_millis(300));
        Bench { folder, neighbour, node }
    }

    /// A folder of files at the neighbour; returns its root and its blocks.
    fn tree(&self, seed: u64, files: usize) -> (Cid, Vec<(Cid, Bytes)>) {
        let mut sink = Neighbour::default();
        let root = block_on(make_tree(&mut sink, seed, files)).cid;
        let blocks: Vec<_> = sink.0.blocks.lock().drain().collect();
        self.neighbour.0.blocks.lock().extend(blocks.iter().cloned());
        (root, blocks)
    }

    fn pin(&self, cid: Cid) -> Result<()> {
        block_on(self.node.pin(cid, PinMode::Recursive, quiet()))
    }

    fn gc(&self) -> Result<HashSet<Cid>> {
        block_on(async { self.node.gc().await?.collect::<Vec<_>>().await.into_iter().collect() })
    }

    fn has(&self, cid: &Cid) -> bool {
        self.node.store.get(cid).unwrap().is_some()
    }

    fn restart(self) -> Bench {
        let Bench { folder, neighbour, node } = self;
        drop(node);
        let store = BlockStore::open(store_config(folder.path())).unwrap();
        let node = Node::new(store, Arc::new(neighbour.clone()), Duration::from_millis(300));
        Bench { folder, neighbour, node }
    }
}

async fn make_tree(sink: &mut Neighbour, seed: u64, files: usize) -> Imported {
    let options = ImportOptions { chunk_size: 1_000, ..ImportOptions::default() };
    let mut links = Vec::new();
    for n in 0..files {
        let content: Vec<u8> =
            (0..500 + n * 200).map(|i| (seed as usize * 31 + n * 7 + i / 3) as u8).collect();
        let mut importer = FileImporter::new(options.clone());
        importer.push(&content, sink).await.unwrap();
        links.push(Link { name: format!("{n}"), target: importer.finish(sink).await.unwrap() });
    }
    build_directory(&options, links, sink).await.unwrap()
}

fn quiet() -> Progress {
    Arc::new(|_| {})
}

#[test]
fn a_recursive_pin_brings_every_block_and_survives_a_restart() {
    let bench = Bench::new();
    let (root, blocks) = bench.tree(1, 20);
    let reached = Arc::new(AtomicU64::new(0));
    let seen = reached.clone();
    let progress: Progress = Arc::new(move |n| {
        assert!(n >= seen.swap(n, Ordering::SeqCst), "progress goes back");
    });
    block_on(bench.node.pin(root, PinMode::Recursive, progress)).unwrap();
    assert_eq!(reached.load(Ordering::SeqCst), blocks.len() as u64);
    assert!(bench.neighbour.0.peak.load(Ordering::SeqCst) > 4, "blocks are asked for together");
    let bench = bench.restart();
    assert_eq!(block_on(bench.node.pin_state(root)).unwrap(), IpfsPin::Recursive);
    assert!(blocks.iter().all(|(cid, _)| bench.has(cid)));
    let fetched = bench.neighbour.0.fetched.load(Ordering::SeqCst);
    bench.pin(root).unwrap();
    assert_eq!(bench.neighbour.0.fetched.load(Ordering::SeqCst), fetched, "pinned already");
}

#[test]
fn single_blocks_are_removed_unless_a_pin_holds_them() {
    use gc::{Fate, PinnedBy};
    let bench = Bench::new();
    let (root, blocks) = bench.tree(1, 6);
    let (direct, free) = (cid_of(1, RAW, b"direct"), cid_of(1, RAW, b"free"));
    let (absent, inline) = (cid_of(1, RAW, b"absent"), "bafkqaaa".parse::<Cid>().unwrap());
    let put = [(direct, Bytes::from_static(b"direct")), (free, Bytes::from_static(b"free"))];
    block_on(bench.node.store.put(put.to_vec(), Durability::Flushed)).unwrap();
    bench.pin(root).unwrap();
    block_on(bench.node.pin(direct, PinMode::Direct, quiet())).unwrap();
    let below = blocks.iter().map(|(cid, _)| *cid).find(|cid| *cid != root).unwrap();
    // By another version of its CID it is the same block.
    let other = Cid::new_v1(RAW, *below.hash());
    let remove =
        |cids: Vec<Cid>| block_on(gc::remove(bench.node.store.clone(), bench.node.pins.clone(), cids));
    let fates = remove(vec![root, below, other, direct, free, absent, inline]).unwrap();
    let want = [
        Fate::Pinned(PinnedBy::Recursive),
        Fate::Pinned(PinnedBy::Via(root)),
        Fate::Pinned(PinnedBy::Via(root)),
        Fate::Pinned(PinnedBy::Direct),
        Fate::Removed,
        Fate::Absent,
        Fate::Removed,
    ];
    assert_eq!(fates.into_iter().map(|(_, fate)| fate).collect::<Vec<_>>(), want);
    assert!(!bench.has(&free) && bench.has(&below) && bench.has(&direct));
    // What a running pin has come across stays, pinned or not.
    block_on(bench.node.store.put(vec![(free, Bytes::from_static(b"free"))], Durability::Flushed)).unwrap();
    let walk = bench.node.store.begin_walk();
    bench.node.store.touch(walk, free.hash());
    assert_eq!(remove(vec![free]).unwrap(), [(free, Fate::InUse)]);
    bench.node.store.end_walk(walk, false);
    assert_eq!(remove(vec![free]).unwrap(), [(free, Fate::Removed)]);
    // A pin that has lost a block leaves no doubt: nothing goes.
    block_on(bench.node.store.put(vec![(free, Bytes::from_static(b"free"))], Durability::Flushed)).unwrap();
    block_on(bench.node.store.remove_at_once(vec![*below.hash()])).unwrap();
    let error = remove(vec![free]).unwrap_err();
    assert!(error.message().contains("nothing was removed") && bench.has(&free), "{error}");
    let bench = bench.restart();
    assert!(!bench.has(&absent) && bench.has(&direct));
}

#[test]
fn only_what_is_missing_is_fetched() {
    let bench = Bench::new();
    let (root, blocks) = bench.tree(1, 10);
    let half: Vec<_> = blocks.iter().take(blocks.len() / 2).cloned().collect();
    block_on(bench.node.store.put(half.clone(), Durability::Flushed)).unwrap();
    bench.pin(root).unwrap();
    assert_eq!(bench.neighbour.0.fetched.load(Ordering::SeqCst), blocks.len() - half.len());
}

#[test]
fn a_pin_that_nobody_can_serve_times_out_with_the_reason_and_leaves_no_pin() {
    let bench = Bench::new();
    let (root, blocks) = bench.tree(1, 10);
    let lost = blocks.iter().map(|(cid, _)| *cid).find(|cid| *cid != root).unwrap();
    bench.neighbour.0.blocks.lock().remove(&lost);
    let error = bench.pin(root).unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(
        error.message().contains("pin_timeout") && error.message().contains(&lost.to_string()),
        "{error}"
    );
    assert_eq!(block_on(bench.node.pin_state(root)).unwrap(), IpfsPin::Unpinned);
    assert_eq!(bench.neighbour.0.running.load(Ordering::SeqCst), 0, "fetches are given up");
}

#[test]
fn progress_prolongs_a_pin_beyond_its_timeout() {
    let bench = Bench::new();
    let (root, blocks) = bench.tree(1, 12);
    bench.neighbour.0.blocks.lock().clear();
    block_on(bench.node.store.put(vec![], Durability::Flushed)).unwrap();
    // A neighbour that finds one block at a time: a new neighbour's fetches wait, so blocks are put locally and the
    // pin is tried anew for each, which must get one step further every time.
    let mut last = 0;
    for (cid, data) in blocks {
        block_on(bench.node.store.put(vec![(cid, data)], Durability::Flushed)).unwrap();
        let reached = Arc::new(AtomicU64::new(0));
        let seen = reached.clone();
        let result = block_on(bench.node.pin(
            root,
            PinMode::Recursive,
            Arc::new(move |n| seen.store(n, Ordering::SeqCst)),
        ));
        let now = reached.load(Ordering::SeqCst);
        assert!(now >= last);
        last = now;
        if result.is_ok() {
            return;
        }
    }
    panic!("never pinned");
}

#[test]
fn dropping_a_pin_cancels_it() {
    let bench = Bench::new();
    let cid = cid_of(1, RAW, b"nobody has it");
    let node = bench.node.clone();
    let task = runtime::spawn(async move { node.pin(cid, PinMode::Recursive, quiet()).await });
    let running = || bench.neighbour.0.running.load(Ordering::SeqCst);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while running() == 0 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(running(), 1);
    block_on(task.cancel());
    assert_eq!(running(), 0);
}

#[test]
fn a_direct_pin_holds_its_one_block() {
    let bench = Bench::new();
    let (root, blocks) = bench.tree(1, 5);
    block_on(bench.node.pin(root, PinMode::Direct, quiet())).unwrap();
    assert_eq!(block_on(bench.node.pin_state(root)).unwrap(), IpfsPin::Direct);
    assert_eq!(bench.gc().unwrap(), HashSet::new());
    assert_eq!(blocks.iter().filter(|(cid, _)| bench.has(cid)).count(), 1);
    bench.pin(root).unwrap();
    assert_eq!(block_on(bench.node.pin_state(root)).unwrap(), IpfsPin::Recursive);
    bench.gc().unwrap();
    assert!(blocks.iter().all(|(cid, _)| bench.has(cid)));
}

#[test]
fn a_collection_removes_exactly_what_no_pin_reaches() {
    let bench = Bench::new();
    let (kept, kept_blocks) = bench.tree(1, 10);
    let (gone, gone_blocks) = bench.tree(2, 10);
    bench.pin(kept).unwrap();
    bench.pin(gone).unwrap();
    assert_eq!(bench.gc().unwrap(), HashSet::new());
    block_on(bench.node.unpin(gone)).unwrap();
    block_on(bench.node.unpin(gone)).unwrap();
    let before = bench.node.store.usage();
    let removed = bench.gc().unwrap();
    let kept_hashes: HashSet<_> = kept_blocks.iter().map(|(c, _)| *c.hash()).collect();
    let expected: HashSet<_> =
        gone_blocks.iter().map(|(c, _)| *c.hash()).filter(|h| !kept_hashes.contains(h)).collect();
    assert_eq!(removed.iter().map(|c| *c.hash()).collect::<HashSet<_>>(), expected);
    assert!(kept_blocks.iter().all(|(cid, _)| bench.has(cid)));
    assert!(expected.iter().all(|h| !bench.has(&Cid::new_v1(RAW, *h))));
    assert!(bench.node.store.usage().blocks < before.blocks);
    let bench = bench.restart();
    assert!(kept_blocks.iter().all(|(cid, _)| bench.has(cid)));
    assert!(expected.iter().all(|h| !bench.has(&Cid::new_v1(RAW, *h))));
    block_on(bench.node.unpin(kept)).unwrap();
    bench.gc().unwrap();
    assert_eq!(bench.node.store.usage().blocks, 0);
}

#[test]
fn a_collection_refuses_to_guess_below_a_missing_block() {
    let bench = Bench::new();
    let (root, _) = bench.tree(1, 10);
    bench.pin(root).unwrap();
    let (other, _) = bench.tree(2, 3);
    bench.pin(other).unwrap();
    block_on(bench.node.unpin(other)).unwrap();
    block_on(bench.node.store.commit()).unwrap();
    let hash = *root.hash();
    block_on(bench.node.store.remove(vec![hash])).unwrap();
    let error = bench.gc().unwrap_err();
    assert!(error.message().contains("nothing was collected"), "{error}");
    assert!(bench.has(&other));
    assert!(bench.gc().is_err(), "and the next one may try again");
}

#[test]
fn pins_that_run_during_collections_lose_nothing() {
    let bench = Bench::new();
    let trees: Vec<_> = (0..12).map(|n| bench.tree(n + 10, 12)).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::SeqCst) || rounds < 3 {
                bench.gc().unwrap();
                rounds += 1;
            }
        });
        for round in 0..3 {
            for (root, blocks) in &trees {
                bench.pin(*root).unwrap();
                for (cid, data) in blocks {
                    assert_eq!(bench.node.store.get(cid).unwrap().as_ref(), Some(data), "round {round}");
                }
                if round < 2 {
                    block_on(bench.node.unpin(*root)).unwrap();
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
        collector.join().unwrap();
    });
    bench.gc().unwrap();
    for (cid, data) in trees.iter().flat_map(|(_, blocks)| blocks) {
        assert_eq!(bench.node.store.get(cid).unwrap().as_ref(), Some(data));
    }
    drop(bench.folder);
}

#[test]
fn one_collection_at_a_time() {
    let bench = Bench::new();
    let first = block_on(bench.node.gc()).unwrap();
    // Held as long as the first one's stream lives and its task runs.
    let second = block_on(bench.node.gc());
    if let Err(error) = second.map(|_| ()) {
        assert_eq!(error.kind(), Kind::Conflict);
    }
    block_on(first.collect::<Vec<_>>());
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while block_on(bench.node.gc()).is_err() {
        assert!(std::time::Instant::now() < deadline, "the collection never ends");
        std::thread::yield_now();
    }
}

#[test]
fn listing_gives_every_pin_once() {
    let bench = Bench::new();
    let mut expected = HashMap::new();
    for n in 0..2_500u32 {
        let mode = if n % 3 == 0 { PinMode::Direct } else { PinMode::Recursive };
        let cid = cid_of(1, RAW, &n.to_le_bytes());
        if n < 40 || n % 50 == 0 {
            bench.node.pins.set(&cid, mode).unwrap();
            expected.insert(cid, mode);
        }
    }
    let listed: Vec<_> = block_on(bench.node.list_pins().collect::<Vec<_>>());
    assert_eq!(listed.len(), expected.len());
    assert_eq!(listed.into_iter().collect::<Result<HashMap<_, _>>>().unwrap(), expected);
}

#[test]
fn a_dag_cbor_pin_follows_its_links() {
    let bench = Bench::new();
    let leaf = Bytes::from_static(b"leaf");
    let leaf_cid = cid_of(1, RAW, &leaf);
    let link = leaf_cid.to_bytes();
    let node = Bytes::from([&[0x81, 0xd8, 42, 0x58, link.len() as u8 + 1, 0], &link[..]].concat());
    let root = cid_of(1, DAG_CBOR, &node);
    bench.neighbour.0.blocks.lock().extend([(root, node), (leaf_cid, leaf)]);
    bench.pin(root).unwrap();
    assert!(bench.has(&leaf_cid));
    assert_eq!(bench.gc().unwrap(), HashSet::new());
    let unknown = cid_of(1, 0x78, b"git");
    bench.neighbour.0.blocks.lock().insert(unknown, Bytes::from_static(b"git"));
    assert!(bench.pin(unknown).unwrap_err().message().contains("0x78"));
}

#[test]
fn the_same_bytes_under_two_codecs_are_both_followed() {
    let bench = Bench::new();
    let (root, blocks) = bench.tree(1, 3);
    // A folder that lists the other folder's root as a raw file first, and as what it is second.
    let mut sink = bench.neighbour.clone();
    let target = |cid| Imported { cid, dag_size: 1, file_size: 0 };
    let links = vec![
        Link { name: "a".into(), target: target(Cid::new_v1(RAW, *root.hash())) },
        Link { name: "b".into(), target: target(Cid::new_v1(DAG_PB, *root.hash())) },
    ];
    let both = block_on(build_directory(&ImportOptions::v1(), links, &mut sink)).unwrap().cid;
    let raw = Cid::new_v1(RAW, *root.hash());
    let data = blocks.iter().find(|(cid, _)| *cid == root).unwrap().1.clone();
    bench.neighbour.0.blocks.lock().extend([(raw, data.clone()), (Cid::new_v1(DAG_PB, *root.hash()), data)]);
    bench.pin(both).unwrap();
    assert!(blocks.iter().all(|(cid, _)| bench.has(cid)));
    bench.gc().unwrap();
    assert!(blocks.iter().all(|(cid, _)| bench.has(cid)));
}

#[test]
fn a_put_with_a_wrong_hash_stores_nothing() {
    let bench = Bench::new();
    let good = Bytes::from_static(b"good");
    let cid = cid_of(1, RAW, &good);
    let blocks = vec![
        Block { cid, data: good },
        Block { cid: cid_of(1, RAW, b"other"), data: Bytes::from_static(b"bad") },
    ];
    assert_eq!(block_on(bench.node.put_blocks(blocks)).unwrap_err().kind(), Kind::Corrupt);
    assert!(!bench.has(&cid));
}

#[test]
fn reading_asks_the_neighbours_and_stores_nothing() {
    let bench = Bench::new();
    let (root, blocks) = bench.tree(3, 4);
    let getter = Arc::new(Getter::new(&bench.node));
    block_on(async {
        let file = unixfs::resolve(&*getter, &format!("/ipfs/{root}/2")).await.unwrap();
        let parts = unixfs::cat(getter.clone(), file, None).await.unwrap().collect::<Vec<_>>().await;
        let content: usize = parts.into_iter().map(|p| p.unwrap().len()).sum();
        assert_eq!(content, 900);
        assert!(getter.get(&blocks[0].0).await.is_ok());
        assert!(bench.node.get_block(blocks[0].0, true).await.is_ok());
        assert_eq!(bench.node.get_block(blocks[0].0, false).await.unwrap_err().kind(), Kind::NotFound);
    });
    assert_eq!(bench.node.store.usage().blocks, 0);
}

#[test]
fn a_damaged_block_of_a_pin_is_fetched_again() {
    let bench = Bench::new();
    let (root, blocks) = bench.tree(1, 6);
    block_on(bench.node.store.put(blocks.clone(), Durability::Flushed)).unwrap();
    block_on(bench.node.store.commit()).unwrap();
    let path = std::fs::read_dir(bench.folder.path()).unwrap().map(|e| e.unwrap().path());
    let path = path.into_iter().find(|p| p.extension().is_some_and(|e| e == "blocks")).unwrap();
    let whole = std::fs::read(&path).unwrap();
    // The root's own record: its last byte.
    let data = &blocks.iter().find(|(cid, _)| *cid == root).unwrap().1;
    let at = whole.windows(data.len()).position(|w| w == &data[..]).unwrap() + data.len() - 1;
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[whole[at] ^ 1], at as u64).unwrap();
    bench.pin(root).unwrap();
    assert!(blocks.iter().all(|(cid, data)| bench.node.store.get(cid).unwrap().as_ref() == Some(data)));
}

#[test]
fn two_nodes_exchange_a_folder_over_their_own_swarm() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open = |n: usize| {
        let mut config =
            EmbeddedConfig::new(folders[n].path(), libp2p::identity::Keypair::generate_ed25519());
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        config.psk = Some([7; 32]);
        config.pin_timeout = Duration::from_secs(20);
        config.gc_grace = Duration::ZERO;
        block_on(Embedded::open(config)).unwrap()
    };
    let (a, b) = (open(0), open(1));
    let mut sink = Neighbour::default();
    let root = block_on(make_tree(&mut sink, 5, 30)).cid;
    let blocks: Vec<_> = sink.0.blocks.lock().drain().collect();
    block_on(async {
        let given = blocks.iter().map(|(cid, data)| Block { cid: *cid, data: data.clone() });
        a.put_blocks(given.collect()).await.unwrap();
        let id = a.id().await.unwrap();
        assert!(id.agent.starts_with("pinfold/"));
        let request = |cid| PinRequest {
            cid,
            mode: PinMode::Recursive,
            update_from: None,
            providers: id.addresses.clone(),
        };
        b.pin(request(root), quiet()).await.unwrap();
        assert_eq!(b.swarm_peers().await.unwrap(), vec![id.id]);
        for (cid, data) in &blocks {
            assert_eq!(&b.get_block(cid, false).await.unwrap(), data);
        }
        assert_eq!(b.gc().await.unwrap().count().await, 0);
        let (this, entries) = b.ls(&format!("/ipfs/{root}")).await.unwrap();
        assert_eq!(this.kind, crate::ipfs::NodeKind::Directory);
        assert_eq!(entries.count().await, 30);
        let parts = b.cat(&format!("/ipfs/{root}/3"), Some(10..20)).await.unwrap();
        assert_eq!(parts.map(|p| p.unwrap().len()).fold(0, |a, n| async move { a + n }).await, 10);
        let error = b.resolve("/ipns/example.org").await.unwrap_err();
        assert!(error.message().contains("embedded"), "{error}");
        let stat = b.repo_stat().await.unwrap();
        assert!(stat.repo_size > 0 && stat.objects == Some(blocks.len() as u64));
        // What a has is no pin there: it goes.
        assert_eq!(a.gc().await.unwrap().count().await, blocks.len());
        a.close().await;
        b.close().await;
    });
}

#[test]
fn a_collection_comes_by_itself_when_an_interval_says_so() {
    let open = |interval: Option<Duration>| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = EmbeddedConfig::new(folder.path(), libp2p::identity::Keypair::generate_ed25519());
        (config.gc_grace, config.gc_interval) = (Duration::ZERO, interval);
        let node = block_on(Embedded::open(config)).unwrap();
        let mut sink = Neighbour::default();
        let kept = block_on(make_tree(&mut sink, 1, 3)).cid;
        let blocks = |sink: &Neighbour| -> Vec<Block> {
            let all = sink.0.blocks.lock();
            all.iter().map(|(cid, data)| Block { cid: *cid, data: data.clone() }).collect()
        };
        let pinned = blocks(&sink);
        block_on(node.put_blocks(pinned.clone())).unwrap();
        let request =
            PinRequest { cid: kept, mode: PinMode::Recursive, update_from: None, providers: Vec::new() };
        block_on(node.pin(request, quiet())).unwrap();
        let mut other = Neighbour::default();
        block_on(make_tree(&mut other, 2, 3));
        block_on(node.put_blocks(blocks(&other))).unwrap();
        (folder, node, pinned.len() as u64)
    };
    let count = |node: &Embedded| node.blocks().usage().blocks;
    let (_folder, by_itself, pinned) = open(Some(Duration::from_millis(50)));
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while count(&by_itself) > pinned {
        assert!(std::time::Instant::now() < deadline, "{} blocks", count(&by_itself));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(count(&by_itself), pinned, "what a pin reaches stays");
    let (_folder, on_request, pinned) = open(None);
    std::thread::sleep(Duration::from_millis(300));
    assert!(count(&on_request) > pinned);
    for node in [by_itself, on_request] {
        block_on(node.close());
    }
}
