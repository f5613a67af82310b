//! The acceptance steps: what every [`Ipfs`] must do, whatever is behind it.

use crate::{Node, PIN_TIMEOUT};
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use futures::stream::{StreamExt, TryStreamExt};
use libp2p::Multiaddr;
use pinfold::ipfs::unixfs::{self, hash, BlockSink, FileImporter, ImportOptions, Imported, Link};
use pinfold::ipfs::{Block, Ipfs, IpfsPin, NodeKind, PinRequest, Progress};
use pinfold::state::PinMode;
use pinfold::{Kind, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Collects blocks and stores them in batches.
pub struct Upload<'a> {
    ipfs: &'a dyn Ipfs,
    blocks: Vec<Block>,
}

#[async_trait]
impl BlockSink for Upload<'_> {
    async fn put(&mut self, block: Block) -> Result<()> {
        self.blocks.push(block);
        if self.blocks.len() >= 32 {
            self.flush().await?;
        }
        Ok(())
    }
}

impl<'a> Upload<'a> {
    pub fn to(ipfs: &'a dyn Ipfs) -> Self {
        Upload { ipfs, blocks: Vec::new() }
    }

    async fn flush(&mut self) -> Result<()> {
        self.ipfs.put_blocks(std::mem::take(&mut self.blocks)).await
    }

    async fn file(&mut self, content: &[u8]) -> Imported {
        let mut importer = FileImporter::new(ImportOptions::default());
        importer.push(content, self).await.expect("push");
        importer.finish(self).await.expect("finish")
    }
}

/// Bytes that no other step has.
pub fn content(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

/// Puts a file into a node.
pub async fn add_file(ipfs: &dyn Ipfs, content: &[u8]) -> Cid {
    let mut upload = Upload::to(ipfs);
    let file = upload.file(content).await;
    upload.flush().await.expect("stored");
    file.cid
}

/// Puts a folder with `a.txt`, `sub/big` and the link `link` into a node.
pub async fn add_folder(ipfs: &dyn Ipfs, seed: u8) -> Cid {
    let options = ImportOptions::default();
    let mut upload = Upload::to(ipfs);
    let link = |name: &str, target: Imported| Link { name: name.into(), target };
    let big = upload.file(&content(seed, 700_000)).await;
    let sub = unixfs::build_directory(&options, vec![link("big", big)], &mut upload).await.expect("sub");
    let text = upload.file(format!("text {seed}\n").as_bytes()).await;
    let symlink = unixfs::build_symlink(&options, "a.txt", &mut upload).await.expect("link");
    let entries = vec![link("sub", sub), link("a.txt", text), link("link", symlink)];
    let root = unixfs::build_directory(&options, entries, &mut upload).await.expect("root");
    upload.flush().await.expect("stored");
    root.cid
}

pub fn request(cid: Cid, mode: PinMode) -> PinRequest {
    PinRequest { cid, mode, update_from: None, providers: Vec::new() }
}

pub fn quiet() -> Progress {
    Arc::new(|_| {})
}

/// All steps, in an order in which none disturbs the next.
pub async fn all(node: &Node, neighbour: &Node) {
    let (ipfs, other) = (&*node.ipfs, &*neighbour.ipfs);
    println!("a node knows itself");
    knows_itself(ipfs).await;
    println!("blocks come back and wrong ones are refused");
    blocks(ipfs).await;
    println!("files, folders and links are read");
    files(ipfs).await;
    println!("pins are made, listed and removed, twice over");
    pins(ipfs).await;
    println!("what nobody has is given up");
    nobody_has_it(ipfs).await;
    println!("nodes connect");
    connect(ipfs, &neighbour.address().await, other).await;
    println!("a pin fetches from the neighbour, with progress");
    fetch(ipfs, other).await;
    println!("a dropped pin leaves nothing pinned");
    cancel(ipfs).await;
    println!("a pin that replaces another");
    update(ipfs, other).await;
    println!("garbage goes, pins stay");
    collect(ipfs).await;
}

async fn knows_itself(ipfs: &dyn Ipfs) {
    let id = ipfs.id().await.expect("id");
    assert!(!id.agent.is_empty() && !id.addresses.is_empty(), "{id:?}");
    let suffix = format!("/p2p/{}", id.id);
    assert!(id.addresses.iter().all(|a| a.to_string().ends_with(&suffix)), "{id:?}");
    let stat = ipfs.repo_stat().await.expect("stat");
    assert!(stat.storage_max > 1 << 20, "{stat:?}");
}

async fn blocks(ipfs: &dyn Ipfs) {
    let raw =
        |data: &[u8]| Block { cid: hash::cid_of(1, hash::RAW, data), data: Bytes::copy_from_slice(data) };
    let many: Vec<Block> = (0..300u32).map(|n| raw(&n.to_le_bytes())).chain([raw(b"")]).collect();
    ipfs.put_blocks(many.clone()).await.expect("stored");
    ipfs.put_blocks(many[..3].to_vec()).await.expect("again");
    for block in many.iter().step_by(50).chain(many.last()) {
        assert_eq!(ipfs.get_block(&block.cid, false).await.expect("block"), block.data);
    }
    let before = ipfs.repo_stat().await.expect("stat").repo_size;
    ipfs.put_blocks(vec![raw(&content(1, 200_000))]).await.expect("stored");
    let after = ipfs.repo_stat().await.expect("stat").repo_size;
    assert!(after >= before + 190_000, "{before} then {after}");

    let missing = hash::cid_of(1, hash::RAW, b"never stored");
    let error = ipfs.get_block(&missing, false).await.expect_err("not here");
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let wrong = Block { cid: missing, data: Bytes::from_static(b"something else") };
    let error = ipfs.put_blocks(vec![wrong]).await.expect_err("bad hash");
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(ipfs.get_block(&missing, false).await.is_err(), "and nothing was kept");
}

async fn read(ipfs: &dyn Ipfs, path: &str, range: Option<std::ops::Range<u64>>) -> Vec<u8> {
    let stream = ipfs.cat(path, range).await.expect("cat");
    stream
        .try_fold(Vec::new(), |mut all, b| async move {
            all.extend_from_slice(&b);
            Ok(all)
        })
        .await
        .expect("all")
}

async fn files(ipfs: &dyn Ipfs) {
    let root = add_folder(ipfs, 2).await;
    let big = content(2, 700_000);
    for path in [format!("/ipfs/{root}/sub/big"), format!("{root}/sub/big")] {
        assert!(read(ipfs, &path, None).await == big);
        assert!(read(ipfs, &path, Some(262_140..262_150)).await == big[262_140..262_150]);
        assert!(read(ipfs, &path, Some(699_990..u64::MAX)).await == big[699_990..]);
        assert!(read(ipfs, &path, Some(5..5)).await.is_empty());
    }
    let text = ipfs.resolve(&format!("/ipfs/{root}/a.txt")).await.expect("resolve");
    assert_eq!(read(ipfs, &text.to_string(), None).await, b"text 2\n");
    assert_eq!(ipfs.resolve(&root.to_string()).await.expect("resolve"), root);

    let (this, entries) = ipfs.ls(&format!("/ipfs/{root}")).await.expect("ls");
    assert_eq!((this.cid, this.kind), (root, NodeKind::Directory));
    let entries: Vec<_> = entries.try_collect().await.expect("entries");
    let seen: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.kind, e.target.as_deref())).collect();
    assert_eq!(
        seen,
        [
            ("a.txt", NodeKind::File, None),
            ("link", NodeKind::Symlink, Some("a.txt")),
            ("sub", NodeKind::Directory, None)
        ]
    );
    assert_eq!((entries[0].size, entries[0].cid), (7, text));
    let (file, entries) = ipfs.ls(&format!("{root}/sub/big")).await.expect("ls of a file");
    assert_eq!((file.kind, file.size, entries.count().await), (NodeKind::File, 700_000, 0));

    let error = ipfs.resolve(&format!("/ipfs/{root}/nope")).await.expect_err("no such name");
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(ipfs.cat(&format!("{root}/sub"), None).await.is_err(), "a folder has no content");
    for bad in ["", "/ipfs/", "nonsense", "/ipfs/nonsense/a", "/nowhere/x"] {
        assert_eq!(ipfs.resolve(bad).await.expect_err(bad).kind(), Kind::Invalid, "{bad:?}");
    }
}

async fn listed(ipfs: &dyn Ipfs) -> Vec<(Cid, PinMode)> {
    ipfs.list_pins().await.expect("list").try_collect().await.expect("pins")
}

async fn pins(ipfs: &dyn Ipfs) {
    let (tree, direct) = (add_folder(ipfs, 3).await, add_file(ipfs, b"direct").await);
    ipfs.pin(request(tree, PinMode::Recursive), quiet()).await.expect("recursive");
    ipfs.pin(request(direct, PinMode::Direct), quiet()).await.expect("direct");
    ipfs.pin(request(tree, PinMode::Recursive), quiet()).await.expect("again");
    assert_eq!(ipfs.pin_state(&tree).await.expect("state"), IpfsPin::Recursive);
    assert_eq!(ipfs.pin_state(&direct).await.expect("state"), IpfsPin::Direct);
    let inside = ipfs.resolve(&format!("{tree}/a.txt")).await.expect("resolve");
    assert_eq!(ipfs.pin_state(&inside).await.expect("state"), IpfsPin::Unpinned, "only indirectly");
    let pins = listed(ipfs).await;
    assert!(
        pins.contains(&(tree, PinMode::Recursive)) && pins.contains(&(direct, PinMode::Direct)),
        "{pins:?}"
    );

    ipfs.pin(request(direct, PinMode::Recursive), quiet()).await.expect("now recursive");
    assert_eq!(ipfs.pin_state(&direct).await.expect("state"), IpfsPin::Recursive);
    ipfs.pin(request(direct, PinMode::Direct), quiet()).await.expect("direct again");
    assert_eq!(ipfs.pin_state(&direct).await.expect("state"), IpfsPin::Direct);
    assert_eq!(listed(ipfs).await.iter().filter(|(c, _)| *c == direct).count(), 1, "one pin per CID");

    for cid in [tree, direct, tree, direct] {
        ipfs.unpin(&cid).await.expect("unpin, also twice");
        assert_eq!(ipfs.pin_state(&cid).await.expect("state"), IpfsPin::Unpinned);
    }
    assert!(!listed(ipfs).await.iter().any(|(c, _)| *c == tree || *c == direct));
}

async fn nobody_has_it(ipfs: &dyn Ipfs) {
    let cid = hash::cid_of(1, hash::RAW, b"nobody has this");
    for mode in [PinMode::Recursive, PinMode::Direct] {
        let start = Instant::now();
        let error = ipfs.pin(request(cid, mode), quiet()).await.expect_err("nobody has it");
        assert_eq!(error.kind(), Kind::Timeout, "{error}");
        assert!(error.message().contains(&cid.to_string()), "{error}");
        let took = start.elapsed();
        assert!(took >= PIN_TIMEOUT && took < PIN_TIMEOUT * 3, "{took:?}");
        assert_eq!(ipfs.pin_state(&cid).await.expect("state"), IpfsPin::Unpinned);
    }
}

async fn connect(ipfs: &dyn Ipfs, address: &Multiaddr, other: &dyn Ipfs) {
    ipfs.swarm_connect(address).await.expect("connected");
    let (me, them) = (ipfs.id().await.expect("id").id, other.id().await.expect("id").id);
    assert!(ipfs.swarm_peers().await.expect("peers").contains(&them));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !other.swarm_peers().await.expect("peers").contains(&me) {
        assert!(Instant::now() < deadline, "the other side does not know");
        pinfold::runtime::sleep(Duration::from_millis(20)).await;
    }
    let stranger = libp2p::PeerId::random();
    let wrong: Multiaddr = format!("/ip4/127.0.0.1/tcp/1/p2p/{stranger}").parse().expect("address");
    assert!(ipfs.swarm_connect(&wrong).await.is_err(), "nobody listens there");
}

async fn fetch(ipfs: &dyn Ipfs, other: &dyn Ipfs) {
    let data = content(4, 3_000_000);
    let cid = add_file(other, &data).await;
    assert!(ipfs.get_block(&cid, false).await.is_err(), "not here yet");
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    let progress: Progress = Arc::new(move |n| count.store(n, Ordering::SeqCst));
    ipfs.pin(request(cid, PinMode::Recursive), progress).await.expect("pinned");
    assert!(seen.load(Ordering::SeqCst) > 0, "progress was told");
    ipfs.get_block(&cid, false).await.expect("here now");
    assert!(read(ipfs, &cid.to_string(), None).await == data);
}

async fn cancel(ipfs: &dyn Ipfs) {
    let cid = hash::cid_of(1, hash::RAW, b"cancelled");
    let nap = async {
        pinfold::runtime::sleep(Duration::from_millis(300)).await;
        None
    };
    let pin = async { Some(ipfs.pin(request(cid, PinMode::Recursive), quiet()).await) };
    assert!(smol::future::or(pin, nap).await.is_none(), "nobody has it");
    assert_eq!(ipfs.pin_state(&cid).await.expect("state"), IpfsPin::Unpinned);
}

async fn update(ipfs: &dyn Ipfs, other: &dyn Ipfs) {
    let (from, to) = (add_folder(other, 5).await, add_folder(other, 6).await);
    ipfs.pin(request(from, PinMode::Recursive), quiet()).await.expect("the old one");
    let mut new = request(to, PinMode::Recursive);
    new.update_from = Some(from);
    ipfs.pin(new, quiet()).await.expect("the new one");
    for cid in [from, to] {
        assert_eq!(ipfs.pin_state(&cid).await.expect("state"), IpfsPin::Recursive, "the old pin stays");
        ipfs.unpin(&cid).await.expect("unpin");
    }
}

async fn collect(ipfs: &dyn Ipfs) {
    let (kept, gone) = (add_folder(ipfs, 7).await, add_folder(ipfs, 8).await);
    ipfs.pin(request(kept, PinMode::Recursive), quiet()).await.expect("pin");
    let removed: Vec<Cid> = ipfs.gc().await.expect("gc").try_collect().await.expect("collected");
    assert!(removed.iter().any(|c| c.hash() == gone.hash()), "the unpinned folder");
    assert!(ipfs.get_block(&gone, false).await.is_err(), "is gone");
    assert!(read(ipfs, &format!("{kept}/sub/big"), None).await == content(7, 700_000), "the pin is whole");
    ipfs.unpin(&kept).await.expect("unpin");
}
