//! Content: archives, files and folders as blocks, values inside of blocks, the block store's files, and what a Kubo answers.

use super::{folder, pieces, Input};
use crate::error::{Error, Result};
use crate::ipfs::car;
use crate::ipfs::embedded::blocks::{BlockStore, Durability, StoreConfig};
use crate::ipfs::ipld::{self, Value};
use crate::ipfs::kubo::{Kubo, KuboConfig};
use crate::ipfs::unixfs::hash::{self, DAG_CBOR, DAG_JSON, DAG_PB, RAW};
use crate::ipfs::unixfs::node::{DataType, PbLink, PbNode, UnixFs};
use crate::ipfs::unixfs::{self, BlockGetter};
use crate::ipfs::{Block, Ipfs, PinRequest};
use crate::runtime::block_on;
use crate::state::PinMode;
use async_trait::async_trait;
use bytes::Bytes;
use cid::Cid;
use futures::{stream, StreamExt};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Content that is read from one file before it is left: small blocks can promise any length.
const ENOUGH: usize = 1 << 20;
/// Entries that are read from one folder.
const ENOUGH_ENTRIES: usize = 2_000;
/// Blocks of one input.
const MAX_BLOCKS: usize = 24;

/// Roots, blocks, and how it ended.
type Archive = (Vec<Cid>, Vec<Block>, std::result::Result<(), Error>);

fn archive(pieces: Vec<Result<Bytes>>) -> Archive {
    block_on(async {
        let mut reader = match car::Reader::open(stream::iter(pieces)).await {
            Ok(reader) => reader,
            Err(error) => return (Vec::new(), Vec::new(), Err(error)),
        };
        let (roots, mut blocks) = (reader.roots().to_vec(), Vec::new());
        loop {
            match reader.next().await {
                Ok(Some(block)) => blocks.push(block),
                Ok(None) => return (roots, blocks, Ok(())),
                Err(error) => return (roots, blocks, Err(error)),
            }
        }
    })
}

/// A CAR archive, in one piece and in many; a made one with damage in it. Every block has its hash; an archive of what was
/// read reads the same.
pub(super) fn car(data: &[u8]) {
    let mut input = Input(data);
    let (seed, made) = (input.byte(), input.flag());
    let bytes = if made { made_archive(&mut input) } else { input.rest().to_vec() };
    let (roots, blocks, end) = archive(vec![Ok(Bytes::copy_from_slice(&bytes))]);
    let same = archive(pieces(&bytes, seed));
    assert_eq!((&roots, &blocks, &end), (&same.0, &same.1, &same.2), "it matters how it arrives");
    for block in &blocks {
        hash::verify(&block.cid, &block.data).expect("a block has its hash");
    }
    let mut written = car::header(&roots);
    for block in &blocks {
        written.extend(car::section_head(&block.cid, block.data.len()));
        written.extend_from_slice(&block.data);
    }
    if end.is_ok() {
        assert_eq!(archive(vec![Ok(written.into())]), (roots, blocks, Ok(())));
    }
}

/// An archive of real blocks; then some of its bytes are changed, and perhaps its end is gone.
fn made_archive(input: &mut Input<'_>) -> Vec<u8> {
    let blocks: Vec<Bytes> = (0..input.below(5)).map(|_| Bytes::copy_from_slice(input.bytes())).collect();
    let cids: Vec<Cid> = blocks.iter().map(|data| hash::cid_of(1, RAW, data)).collect();
    let mut bytes = car::header(&cids);
    for (cid, data) in cids.iter().zip(&blocks) {
        bytes.extend(car::section_head(cid, data.len()));
        bytes.extend_from_slice(data);
    }
    damage(input, &mut bytes);
    bytes
}

/// A few bytes are changed; half the time the end is cut off.
fn damage(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..input.below(4) {
        let at = usize::from(u16::from_le_bytes(input.array())) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= input.byte();
        }
    }
    if input.flag() {
        let end = usize::from(u16::from_le_bytes(input.array()));
        bytes.truncate(end.max(1));
    }
}

/// Blocks in memory.
struct Blocks(HashMap<Cid, Bytes>);

#[async_trait]
impl BlockGetter for Blocks {
    async fn get(&self, cid: &Cid) -> Result<Bytes> {
        self.0.get(cid).cloned().ok_or_else(|| Error::not_found(format!("block {cid} is not here")))
    }
}

/// Blocks that link to earlier ones: leaves, files, folders, shards, links, and bytes of any kind.
fn dag(input: &mut Input<'_>) -> (Blocks, Vec<Cid>) {
    let (mut blocks, mut cids): (HashMap<Cid, Bytes>, Vec<Cid>) = (HashMap::new(), Vec::new());
    while !input.is_empty() && cids.len() < MAX_BLOCKS {
        let (codec, data) = match input.below(8) {
            0 => (RAW, Bytes::copy_from_slice(input.bytes())),
            1 => (DAG_PB, Bytes::copy_from_slice(input.bytes())),
            2 => (DAG_CBOR, Bytes::copy_from_slice(input.bytes())),
            _ => (DAG_PB, Bytes::from(node(input, &cids).encode())),
        };
        let cid = hash::cid_of(u8::from(codec != DAG_PB || input.flag()), codec, &data);
        blocks.insert(cid, data);
        cids.push(cid);
    }
    (Blocks(blocks), cids)
}

fn node(input: &mut Input<'_>, below: &[Cid]) -> PbNode {
    let kinds = [
        DataType::File,
        DataType::Directory,
        DataType::Shard,
        DataType::Symlink,
        DataType::Raw,
        DataType::Metadata,
    ];
    let mut unixfs = UnixFs::new(kinds[input.below(kinds.len())]);
    let mut links = Vec::new();
    for _ in 0..input.below(6) {
        let cid = match below.get(input.below(below.len().max(1))) {
            Some(cid) => *cid,
            None => hash::cid_of(1, RAW, b"nowhere"),
        };
        let name = match unixfs.kind {
            DataType::Shard => {
                format!("{:02X}{}", input.byte(), String::from_utf8_lossy(input.take(2)))
            }
            _ => String::from_utf8_lossy(input.take(2)).into_owned(),
        };
        links.push(PbLink { cid, name, size: input.number() });
        unixfs.block_sizes.push(input.number());
    }
    let fields = input.byte();
    if fields & 1 != 0 {
        unixfs.data = Some(Bytes::copy_from_slice(input.bytes()));
    }
    if fields & 2 != 0 {
        unixfs.file_size = Some(input.number());
    } else {
        // What the reader wants to see.
        let own = unixfs.data.as_ref().map_or(0, |d| d.len() as u64);
        unixfs.file_size = Some(unixfs.block_sizes.iter().fold(own, |sum, n| sum.wrapping_add(*n)));
    }
    if unixfs.kind == DataType::Shard {
        (unixfs.hash_type, unixfs.fanout) = (Some(0x22), Some(256));
        if fields & 4 != 0 {
            (unixfs.hash_type, unixfs.fanout) = (Some(input.number()), Some(input.number()));
        }
    }
    if fields & 8 != 0 {
        unixfs.block_sizes.pop();
    }
    PbNode { links, data: (fields & 16 == 0).then(|| unixfs.encode().into()) }
}

/// Blocks as files and folders: what is read is within what was asked for, whatever sizes and links the blocks claim, and
/// every walk ends.
pub(super) fn unixfs(data: &[u8]) {
    let block = Bytes::copy_from_slice(data);
    if let Ok(node) = PbNode::decode(&block) {
        let bytes = node.encode();
        assert_eq!(bytes.len(), node.encoded_len());
        assert_eq!(PbNode::decode(&bytes.into()).expect("read again"), node);
    }
    if let Ok(unixfs) = UnixFs::decode(&block) {
        assert_eq!(UnixFs::decode(&unixfs.encode().into()).expect("read again"), unixfs);
    }
    let mut input = Input(data);
    let range = input.flag().then(|| {
        let start = input.number();
        start..start.saturating_add(u64::from(input.byte()))
    });
    let wanted = String::from_utf8_lossy(input.take(2)).into_owned();
    let (blocks, cids) = dag(&mut input);
    let getter: Arc<dyn BlockGetter> = Arc::new(blocks);
    let Some(root) = cids.last() else { return };
    block_on(async {
        for cid in &cids {
            if let Ok(block) = getter.get(cid).await {
                let _ = unixfs::links_of(cid, &block);
                let _ = unixfs::Node::read(cid, block).map(|node| node.size());
            }
        }
        if let Ok(mut content) = unixfs::cat(getter.clone(), *root, range.clone()).await {
            let mut seen = 0;
            while let Some(Ok(data)) = content.next().await {
                assert!(!data.is_empty());
                seen += data.len();
                if seen > ENOUGH {
                    break;
                }
            }
            if let Some(range) = range {
                assert!(seen as u64 <= range.end - range.start, "more than was asked for");
            }
        }
        if let Ok((_, entries)) = unixfs::ls(getter.clone(), *root).await {
            let mut entries = entries.take(ENOUGH_ENTRIES);
            while let Some(Ok(entry)) = entries.next().await {
                if entry.name.contains('/') || entry.name.is_empty() {
                    continue;
                }
                let found = unixfs::resolve(&*getter, &format!("{root}/{}", entry.name)).await;
                if let Ok(found) = found {
                    // A folder may hold one name twice; it leads to the first.
                    assert!(found == entry.cid || cids.contains(&found));
                }
            }
        }
        let _ = unixfs::resolve(&*getter, &format!("{root}/{wanted}/{wanted}")).await;
    });
}

/// A block of each codec as a value: it has one canonical form; what a pin follows are the links of the value.
pub(super) fn ipld(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    let codec = [DAG_CBOR, DAG_JSON, DAG_PB, RAW][usize::from(which) % 4];
    let block = Bytes::copy_from_slice(data);
    let cid = hash::cid_of(1, codec, data);
    let Ok(value) = ipld::decode(codec, &block) else { return };
    let bytes: Bytes = ipld::encode(codec, &value).expect("a value of a codec can be written in it").into();
    let again = match ipld::decode(codec, &bytes) {
        Ok(again) => again,
        // As Kubo's: a float between 2^63 and 1e21 is written without a point, and read as an integer that is too large.
        Err(error) if codec == DAG_JSON && error.message().contains("ParseInt") => return,
        Err(error) => panic!("read again: {error:?}"),
    };
    let form = match codec {
        DAG_JSON => ipld::encode(codec, &without_minus_zero(&value)).expect("as the value itself").into(),
        _ => bytes,
    };
    assert_eq!(ipld::encode(codec, &again).expect("written again"), form, "one value has one form");
    let links = unixfs::links_of(&cid, &block).expect("what can be read can be followed");
    assert_eq!(links, value.links(), "a pin follows other links than there are");
    for other in [DAG_CBOR, DAG_JSON] {
        let Ok(bytes) = ipld::encode(other, &value) else { continue };
        if let Ok(same) = ipld::decode(other, &bytes.clone().into()) {
            assert_eq!(sorted(same.links()), sorted(value.links()), "a link was lost between two codecs");
        }
    }
    walk(&value, 0);
}

/// As dag-json reads again what it has written: Kubo's, too, writes the float -0.0 as `-0`, which is the integer 0.
fn without_minus_zero(value: &Value) -> Value {
    match value {
        Value::Float(f) if *f == 0.0 => Value::Int(0),
        Value::List(items) => Value::List(items.iter().map(without_minus_zero).collect()),
        Value::Map(entries) => Value::Map(
            entries.iter().map(|(name, value)| (name.clone(), without_minus_zero(value))).collect(),
        ),
        value => value.clone(),
    }
}

fn sorted(mut links: Vec<Cid>) -> Vec<Cid> {
    links.sort_unstable();
    links
}

fn walk(value: &Value, depth: usize) {
    assert!(depth <= ipld::MAX_DEPTH + 1);
    match value {
        Value::List(items) => {
            items.iter().for_each(|item| walk(item, depth + 1));
            let _ = value.lookup("0");
        }
        Value::Map(entries) => {
            for (name, item) in entries {
                assert!(std::ptr::eq(value.lookup(name).expect("it is there"), item), "a name twice");
                walk(item, depth + 1);
            }
        }
        _ => {}
    }
}

/// A store with a few blocks, whose file is then damaged, or any bytes instead: it opens or says why not; no block is served
/// wrong; what lies whole behind the damage is found; and it goes on storing.
pub(super) fn segments(data: &[u8]) {
    let mut input = Input(data);
    let folder = folder("segments");
    let config = StoreConfig { reserve: 0, ..StoreConfig::new(&folder, 64 << 20) };
    let kept: Vec<(Cid, Bytes)> = (0..1 + input.below(6))
        .map(|n| {
            let mut content = input.bytes().to_vec();
            content.push(n as u8);
            (hash::cid_of(1, RAW, &content), content.into())
        })
        .collect();
    let file = folder.join(format!("{:08}.blocks", 1));
    let open = || BlockStore::open(config.clone());
    {
        let store = open().expect("an empty folder");
        block_on(store.put(kept.clone(), Durability::Flushed)).expect("stored");
        block_on(store.close());
    }
    // Without the index everything is read from the file again, as after a power cut.
    if input.flag() {
        for name in std::fs::read_dir(&folder).expect("listed").flatten() {
            if name.path() != file {
                let _ = std::fs::remove_file(name.path());
                let _ = std::fs::remove_dir_all(name.path());
            }
        }
    }
    let mut bytes = std::fs::read(&file).expect("the blocks' file");
    let before = bytes.clone();
    if input.below(16) == 0 {
        bytes = input.rest().to_vec();
    } else {
        damage(&mut input, &mut bytes);
    }
    std::fs::write(&file, &bytes).expect("written");
    if let Ok(store) = open() {
        for (cid, content) in &kept {
            match store.get(cid) {
                Ok(Some(served)) => assert_eq!(&served, content, "a wrong block was served"),
                Ok(None) | Err(_) => assert_ne!(bytes, before, "a block is gone that nothing happened to"),
            }
        }
        let more = (hash::cid_of(1, RAW, b"one more"), Bytes::from_static(b"one more"));
        if block_on(store.put(vec![more.clone()], Durability::Flushed)).is_ok() {
            assert_eq!(store.get(&more.0).expect("read"), Some(more.1.clone()));
            block_on(store.close());
            drop(store);
            let store = open().expect("what was open can be opened");
            assert_eq!(store.get(&more.0).expect("read"), Some(more.1), "an acknowledged block is gone");
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
}

/// A daemon on a port of this machine that answers every request with the same bytes, then hangs up.
struct Daemon {
    port: u16,
    answer: Arc<Mutex<Vec<u8>>>,
}

fn daemon() -> &'static Daemon {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    DAEMON.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let answer = Arc::<Mutex<Vec<u8>>>::default();
        let says = answer.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let answer = says.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let _ = stream.write_all(&answer);
            }
        });
        Daemon { port, answer }
    })
}

/// Whatever answers on the daemon's port: each call of the connector ends, with what the daemon may say or a sentence.
pub(super) fn kubo(data: &[u8]) {
    let mut input = Input(data);
    let (call, head) = (input.below(10), input.below(4));
    let body = input.rest();
    let mut answer = match head {
        0 => Vec::new(),
        1 => b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n".to_vec(),
        2 => format!("HTTP/1.1 500 Internal Server Error\r\nContent-Length: {}\r\n\r\n", body.len()).into(),
        _ => {
            format!("HTTP/1.1 200 OK\r\nX-Chunked-Output: 1\r\nContent-Length: {}\r\n\r\n", body.len()).into()
        }
    };
    answer.extend_from_slice(body);
    let daemon = daemon();
    *daemon.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    let limit = Duration::from_secs(2);
    let config = KuboConfig {
        node: format!("/ip4/127.0.0.1/tcp/{}", daemon.port).parse().expect("an address"),
        request_timeout: limit,
        pin_timeout: limit,
        unpin_timeout: limit,
        repogc_timeout: limit,
        ..KuboConfig::default()
    };
    let kubo = Kubo::new(config).expect("a connector");
    let cid = hash::cid_of(1, RAW, b"content");
    block_on(async {
        match call {
            0 => drop(kubo.id().await),
            1 => {
                let request =
                    PinRequest { cid, mode: PinMode::Recursive, update_from: None, providers: Vec::new() };
                drop(kubo.pin(request, Arc::new(|_| {})).await);
            }
            2 => drop(kubo.unpin(&cid).await),
            3 => drop(kubo.pin_state(&cid).await),
            4 => {
                if let Ok(mut pins) = kubo.list_pins().await {
                    while let Some(Ok(_)) = pins.next().await {}
                }
            }
            5 => drop(kubo.repo_stat().await),
            6 => {
                if let Ok(mut removed) = kubo.gc().await {
                    while let Some(Ok(_)) = removed.next().await {}
                }
            }
            7 => drop(kubo.swarm_peers().await),
            8 => drop(kubo.resolve("/ipfs/x").await),
            _ => {
                if let Ok(block) = Ipfs::get_block(&kubo, &cid, true).await {
                    hash::verify(&cid, &block).expect("a block has its hash, whoever says so");
                }
            }
        }
    });
}
