//! Bitswap between real hosts in one process, and against a peer that says whatever the test wants.

use super::wire::{self, Encoder, Entry, Message, WantKind};
use super::*;
use crate::error::Kind;
use crate::ipfs::unixfs::hash;
use crate::net::{HostConfig, Stream};
use crate::runtime::{self, block_on};
use async_channel::Receiver;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use smol::io::AsyncWriteExt;
use std::collections::HashMap;
use std::time::Duration;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// The raw CIDv1 of some bytes.
pub(crate) fn raw_cid(data: &[u8]) -> Cid {
    hash::cid_of(1, hash::RAW, data)
}

#[derive(Default)]
struct Memory(Mutex<HashMap<Cid, Bytes>>);

impl Memory {
    fn put(&self, data: impl Into<Bytes>) -> Cid {
        let data = data.into();
        let cid = raw_cid(&data);
        self.0.lock().insert(cid, data);
        cid
    }
}

impl BlockSource for Memory {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>> {
        Ok(self.0.lock().get(cid).cloned())
    }
    fn size(&self, cid: &Cid) -> Result<Option<u64>> {
        Ok(self.get(cid)?.map(|b| b.len() as u64))
    }
}

async fn host() -> Host {
    Host::start(HostConfig {
        keypair: libp2p::identity::Keypair::generate_ed25519(),
        psk: Some([7; 32]),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")],
        announce: Vec::new(),
        agent: "pinfold-test".into(),
        protocol_version: "ipfs/0.1.0".into(),
        dial_timeout: Duration::from_secs(5),
        mdns: None,
        max_connections: 64,
    })
    .await
    .expect("host")
}

struct Node {
    host: Host,
    bitswap: Bitswap,
    store: Arc<Memory>,
}

async fn node() -> Node {
    let (host, store) = (host().await, Arc::new(Memory::default()));
    let bitswap = Bitswap::start(host.clone(), store.clone()).expect("bitswap");
    Node { host, bitswap, store }
}

async fn join(a: &Host, b: &Host) {
    a.connect(b.peer_id(), b.addresses()).await.expect("connect");
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        runtime::sleep(Duration::from_millis(5)).await;
    }
}

async fn soon<T>(future: impl std::future::Future<Output = Result<T>>) -> T {
    runtime::timeout(PATIENCE, "the test", future).await.expect("in time")
}

/// Whether the future is still waiting after a moment.
async fn waits<T>(future: &mut (impl std::future::Future<Output = T> + Unpin)) -> bool {
    let nap = async {
        runtime::sleep(Duration::from_millis(150)).await;
        true
    };
    smol::future::or(
        async {
            drop(future.await);
            false
        },
        nap,
    )
    .await
}

/// A peer that speaks only when the test does.
struct Puppet {
    host: Host,
    incoming: Receiver<(PeerId, Stream)>,
    /// The stream that the other side opened to us.
    heard: Option<Stream>,
}

impl Puppet {
    async fn new() -> Puppet {
        let host = host().await;
        let incoming = host.accept(PROTOCOL).expect("accept");
        Puppet { host, incoming, heard: None }
    }

    async fn hear(&mut self) -> Message {
        let work = async {
            loop {
                if self.heard.is_none() {
                    self.heard = Some(self.incoming.recv().await.expect("a stream").1);
                }
                let stream = self.heard.as_mut().expect("just set");
                match wire::read_length(stream).await? {
                    Some(length) => return Message::decode(wire::read_body(stream, length).await?),
                    None => self.heard = None,
                }
            }
        };
        soon(work).await
    }

    async fn open(&self, to: &Node) -> Stream {
        self.host.open(to.host.peer_id(), PROTOCOL, PATIENCE).await.expect("stream")
    }

    async fn say(&self, to: &Node, bytes: &[u8]) -> Stream {
        let mut stream = self.open(to).await;
        // A peer that is thrown out in the middle cannot finish its sentence.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        stream
    }
}

fn want(cid: Cid, kind: WantKind) -> Entry {
    Entry { cid, priority: 1, kind, cancel: false, send_dont_have: true }
}

fn message(build: impl FnOnce(&mut Encoder)) -> Bytes {
    let mut out = Encoder::new();
    build(&mut out);
    out.finish()
}

fn data(n: usize) -> Bytes {
    let mut bytes = vec![(n % 251) as u8; 1 + (n * 37) % 5000];
    bytes.extend_from_slice(&n.to_le_bytes());
    bytes.into()
}

#[test]
fn many_blocks_come_over_in_few_messages() {
    block_on(async {
        let (a, b) = (node().await, node().await);
        let cids: Vec<Cid> = (0..500).map(|n| b.store.put(data(n))).collect();
        join(&a.host, &b.host).await;
        let session = a.bitswap.session();
        let fetched = stream::iter(&cids).map(|cid| session.fetch(*cid)).buffered(128);
        let blocks = soon(async { Ok(fetched.collect::<Vec<_>>().await) }).await;
        for (n, block) in blocks.into_iter().enumerate() {
            assert_eq!(block.expect("block"), data(n));
        }
        let (got, gave) = (a.bitswap.stats(), b.bitswap.stats());
        assert_eq!((got.blocks_received, got.unwanted_blocks, got.wants), (500, 0, 0));
        assert_eq!(gave.blocks_sent, 500);
        assert!(gave.messages_sent < 250, "{} messages for 500 blocks", gave.messages_sent);
        assert!(got.messages_sent < 250, "{} messages for 500 wants", got.messages_sent);
        until("every want is forgotten", || {
            b.bitswap.ledger(&a.host.peer_id()).is_some_and(|l| l.wants == 0)
        })
        .await;
        assert_eq!(b.bitswap.ledger(&a.host.peer_id()).expect("peer").bytes_sent, got.bytes_received);
    });
}

#[test]
fn large_blocks_come_from_all_who_have_them() {
    block_on(async {
        let (a, b, c) = (node().await, node().await, node().await);
        let block = |n: u8| vec![n; 256 << 10];
        let cids: Vec<Cid> = (0..40).map(|n| (b.store.put(block(n)), c.store.put(block(n))).0).collect();
        join(&a.host, &b.host).await;
        join(&a.host, &c.host).await;
        until("both peers are known", || a.bitswap.stats().peers == 2).await;
        let session = a.bitswap.session();
        let fetched = stream::iter(&cids).map(|cid| session.fetch(*cid)).buffered(16);
        let blocks = soon(async { Ok(fetched.collect::<Vec<_>>().await) }).await;
        assert!(blocks.iter().all(Result::is_ok));
        let (from_b, from_c) = (b.bitswap.stats().blocks_sent, c.bitswap.stats().blocks_sent);
        assert!(from_b > 5 && from_c > 5, "{from_b} and {from_c}");
        assert_eq!(a.bitswap.stats().unwanted_blocks, 0, "nobody sent a block twice");
    });
}

#[test]
fn the_one_of_three_that_has_it_is_found() {
    block_on(async {
        let (a, b, c) = (node().await, node().await, node().await);
        join(&a.host, &b.host).await;
        join(&a.host, &c.host).await;
        until("both peers are known", || a.bitswap.stats().peers == 2).await;
        let (at_b, at_c) = (b.store.put(vec![1; 9000]), c.store.put(vec![2; 9000]));
        // One session: the peer of the first block is asked first for the second, and does not have it.
        let session = a.bitswap.session();
        assert_eq!(soon(session.fetch(at_b)).await, vec![1; 9000]);
        assert_eq!(soon(session.fetch(at_c)).await, vec![2; 9000]);
    });
}

#[test]
fn a_block_that_arrives_later_is_offered_to_who_asked() {
    block_on(async {
        let (a, b) = (node().await, node().await);
        join(&a.host, &b.host).await;
        let cid = raw_cid(b"late");
        let mut fetch = Box::pin(a.bitswap.fetch(cid));
        assert!(waits(&mut fetch).await);
        until("b knows of it", || b.bitswap.ledger(&a.host.peer_id()).is_some_and(|l| l.wants == 1)).await;
        b.bitswap.notify(&[b.store.put(&b"late"[..])]);
        assert_eq!(soon(fetch).await, &b"late"[..]);
    });
}

#[test]
fn a_block_that_arrives_from_elsewhere_ends_the_search() {
    block_on(async {
        let a = node().await;
        let cid = raw_cid(b"own");
        let mut fetch = Box::pin(a.bitswap.fetch(cid));
        assert!(waits(&mut fetch).await);
        a.bitswap.notify(&[a.store.put(&b"own"[..])]);
        assert_eq!(soon(fetch).await, &b"own"[..]);
    });
}

#[test]
fn a_peer_that_comes_later_is_asked() {
    block_on(async {
        let (a, b) = (node().await, node().await);
        let cid = b.store.put(&b"there"[..]);
        let mut fetch = Box::pin(a.bitswap.fetch(cid));
        assert!(waits(&mut fetch).await);
        join(&b.host, &a.host).await;
        assert_eq!(soon(fetch).await, &b"there"[..]);
    });
}

#[test]
fn concurrent_fetches_are_one_want_and_the_last_to_go_cancels_it() {
    block_on(async {
        let (a, mut puppet) = (node().await, Puppet::new().await);
        join(&puppet.host, &a.host).await;
        let cid = raw_cid(b"x");
        let mut one = Box::pin(a.bitswap.fetch(cid));
        assert!(waits(&mut one).await);
        let heard = puppet.hear().await;
        assert_eq!((heard.wants.len(), heard.wants[0].cid, heard.wants[0].cancel), (1, cid, false));
        let mut two = Box::pin(a.bitswap.fetch(cid));
        assert!(waits(&mut two).await);
        drop(one);
        assert_eq!(a.bitswap.stats().wants, 1);
        drop(two);
        let heard = puppet.hear().await;
        assert_eq!((heard.wants.len(), heard.wants[0].cid, heard.wants[0].cancel), (1, cid, true));
        assert_eq!(a.bitswap.stats().wants, 0);
    });
}

#[test]
fn what_we_do_not_have_is_denied_and_what_we_have_is_sent() {
    block_on(async {
        let (a, mut puppet) = (node().await, Puppet::new().await);
        join(&puppet.host, &a.host).await;
        let (here, large) = (a.store.put(&b"here"[..]), a.store.put(vec![3; 5000]));
        let missing = raw_cid(b"missing");
        let wants = [
            want(here, WantKind::Have),
            want(large, WantKind::Have),
            want(missing, WantKind::Have),
            want(raw_cid(b"too"), WantKind::Block),
        ];
        let _stream = puppet.say(&a, &message(|m| m.wantlist(&wants, true))).await;
        let heard = puppet.hear().await;
        assert_eq!(heard.blocks.len(), 1, "a small block is sent at once");
        assert_eq!(&heard.blocks[0].data[..], b"here");
        assert_eq!(heard.presences, [(large, true), (missing, false), (raw_cid(b"too"), false)]);
        let _stream = puppet.say(&a, &message(|m| m.wantlist(&[want(large, WantKind::Block)], false))).await;
        assert_eq!(puppet.hear().await.blocks[0].data.len(), 5000);
    });
}

#[test]
fn a_wrong_block_is_never_handed_out() {
    block_on(async {
        let (a, mut puppet) = (node().await, Puppet::new().await);
        join(&puppet.host, &a.host).await;
        let cid = raw_cid(b"right");
        let mut fetch = Box::pin(a.bitswap.fetch(cid));
        assert!(waits(&mut fetch).await);
        assert_eq!(puppet.hear().await.wants[0].cid, cid);
        let mut stream = puppet.say(&a, &message(|m| m.block(&cid, b"wrong"))).await;
        assert!(waits(&mut fetch).await);
        assert_eq!(a.bitswap.stats().unwanted_blocks, 1);
        stream.write_all(&message(|m| m.block(&cid, b"right"))).await.expect("write");
        stream.flush().await.expect("flush");
        assert_eq!(soon(fetch).await, &b"right"[..]);
    });
}

#[test]
fn garbage_gets_its_sender_thrown_out_and_nobody_else() {
    for bad in [&b"\x05GET /"[..], &[0xff, 0xff, 0xff, 0xff, 0x7f][..], &[0x03, 0x0a, 0x7f, 0x00][..]] {
        block_on(async {
            let (a, b, puppet) = (node().await, node().await, Puppet::new().await);
            join(&a.host, &b.host).await;
            join(&puppet.host, &a.host).await;
            until("both are known", || a.bitswap.stats().peers == 2).await;
            let _stream = puppet.say(&a, bad).await;
            let id = puppet.host.peer_id();
            until("it is thrown out", || !a.host.is_connected(&id)).await;
            assert_eq!(a.bitswap.ledger(&id), None);
            let cid = b.store.put(&b"fine"[..]);
            assert_eq!(soon(a.bitswap.fetch(cid)).await, &b"fine"[..]);
        });
    }
}

#[test]
fn a_flood_of_blocks_that_nobody_wants_ends_the_connection() {
    block_on(async {
        let (a, puppet) = (node().await, Puppet::new().await);
        join(&puppet.host, &a.host).await;
        until("it is known", || a.bitswap.stats().peers == 1).await;
        let flood = message(|m| {
            for n in 0..=client::UNASKED_BLOCKS {
                m.block(&raw_cid(&n.to_le_bytes()), &n.to_le_bytes());
            }
        });
        let _stream = puppet.say(&a, &flood).await;
        until("it is thrown out", || !a.host.is_connected(&puppet.host.peer_id())).await;
        assert_eq!(a.bitswap.stats().blocks_received, 0);
    });
}

#[test]
fn wants_beyond_the_limit_are_denied_not_kept() {
    block_on(async {
        let (a, mut puppet) = (node().await, Puppet::new().await);
        join(&puppet.host, &a.host).await;
        let many = ledger::MAX_WANTS + 100;
        let wants: Vec<Entry> = (0..many).map(|n| want(raw_cid(&n.to_le_bytes()), WantKind::Have)).collect();
        let _stream = puppet.say(&a, &message(|m| m.wantlist(&wants, true))).await;
        let mut denied = 0;
        while denied < many {
            denied += puppet.hear().await.presences.iter().filter(|(_, have)| !have).count();
        }
        let kept = a.bitswap.ledger(&puppet.host.peer_id()).expect("peer").wants;
        assert_eq!((denied, kept), (many, ledger::MAX_WANTS));
    });
}

#[test]
fn more_streams_than_allowed_end_the_oldest() {
    block_on(async {
        let (a, puppet) = (node().await, Puppet::new().await);
        join(&puppet.host, &a.host).await;
        let ping = message(|m| m.wantlist(&[want(raw_cid(b"p"), WantKind::Have)], false));
        let mut streams = Vec::new();
        for _ in 0..link::MAX_STREAMS + 1 {
            let before = a.bitswap.stats().messages_received;
            streams.push(puppet.say(&a, &ping).await);
            until("it was read", || a.bitswap.stats().messages_received > before).await;
        }
        let mut byte = [0];
        let first = &mut streams[0];
        soon(async {
            // Reset or closed: either way it is over.
            match smol::io::AsyncReadExt::read(first, &mut byte).await {
                Ok(0) | Err(_) => Ok(()),
                Ok(_) => Err(Error::internal("the oldest stream still lives")),
            }
        })
        .await;
    });
}

#[test]
fn another_peer_takes_over_when_one_dies() {
    block_on(async {
        let (a, mut dying, b) = (node().await, Puppet::new().await, node().await);
        let cid = b.store.put(vec![9; 10_000]);
        join(&dying.host, &a.host).await;
        until("one is known", || a.bitswap.stats().peers == 1).await;
        let mut fetch = Box::pin(a.bitswap.fetch(cid));
        assert!(waits(&mut fetch).await);
        assert_eq!(dying.hear().await.wants[0].kind, WantKind::Block, "the only peer is asked at once");
        join(&b.host, &a.host).await;
        until("two are known", || a.bitswap.stats().peers == 2).await;
        assert!(waits(&mut fetch).await, "it is still being served by the first");
        dying.host.close().await;
        assert_eq!(soon(fetch).await.len(), 10_000);
    });
}

#[test]
fn a_fetch_survives_a_lost_connection() {
    block_on(async {
        let (a, b) = (node().await, node().await);
        join(&a.host, &b.host).await;
        let cid = raw_cid(b"again");
        let mut fetch = Box::pin(a.bitswap.fetch(cid));
        assert!(waits(&mut fetch).await);
        a.host.disconnect(b.host.peer_id());
        until("they are apart", || b.host.connected().is_empty() && a.bitswap.stats().peers == 0).await;
        b.store.put(&b"again"[..]);
        join(&a.host, &b.host).await;
        assert_eq!(soon(fetch).await, &b"again"[..]);
    });
}

#[test]
fn closing_ends_every_fetch() {
    block_on(async {
        let a = node().await;
        let bitswap = a.bitswap.clone();
        let fetch = runtime::spawn(async move { bitswap.fetch(raw_cid(b"never")).await });
        until("it waits", || a.bitswap.stats().wants == 1).await;
        a.bitswap.close();
        assert_eq!(fetch.await.expect_err("closed").kind(), Kind::Unavailable);
        assert_eq!(a.bitswap.fetch(raw_cid(b"more")).await.expect_err("closed").kind(), Kind::Unavailable);
    });
}

#[test]
fn what_cannot_be_verified_is_refused_and_what_is_in_the_cid_needs_nobody() {
    block_on(async {
        let a = node().await;
        let inline = multihash::Multihash::wrap(hash::IDENTITY, b"inside").expect("hash");
        assert_eq!(soon(a.bitswap.fetch(Cid::new_v1(hash::RAW, inline))).await, &b"inside"[..]);
        let blake = multihash::Multihash::wrap(0xb220, &[1; 32]).expect("hash");
        let error = a.bitswap.fetch(Cid::new_v1(hash::RAW, blake)).await.expect_err("blake2b");
        assert_eq!(error.kind(), Kind::Invalid);
    });
}

/// `cargo test --release throughput -- --ignored --nocapture`: two hosts in one process, store in memory.
#[test]
#[ignore = "a measurement, not a test"]
fn throughput() {
    for (name, count, size) in
        [("1 GiB of 256 KiB", 4096usize, 256usize << 10), ("10,000 of 4 KiB", 10_000, 4096)]
    {
        for window in [64, 256] {
            block_on(async {
                let (a, b) = (node().await, node().await);
                let cids: Vec<Cid> = (0..count)
                    .map(|n| {
                        let mut block = vec![0u8; size];
                        block[..8].copy_from_slice(&n.to_le_bytes());
                        b.store.put(block)
                    })
                    .collect();
                join(&a.host, &b.host).await;
                let start = Instant::now();
                let session = a.bitswap.session();
                let mut fetched = stream::iter(&cids).map(|cid| session.fetch(*cid)).buffer_unordered(window);
                let mut bytes = 0;
                while let Some(block) = fetched.next().await {
                    bytes += block.expect("block").len();
                }
                let secs = start.elapsed().as_secs_f64();
                println!(
                    "{name}, window {window}: {secs:.2} s, {:.0} MB/s, {:.0} blocks/s, {} messages",
                    bytes as f64 / 1e6 / secs,
                    count as f64 / secs,
                    b.bitswap.stats().messages_sent
                );
            });
        }
    }
}
