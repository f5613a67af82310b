//! Spreading blocks over holders that are slow, full or gone, and the folders of an upload.

use super::*;
use crate::error::Kind;
use crate::ipfs::scripted::Scripted;
use crate::ipfs::unixfs::hash;
use crate::runtime::block_on;

fn block(n: u32, size: usize) -> Block {
    let mut data = vec![0; size];
    data[..4].copy_from_slice(&n.to_le_bytes());
    Block { cid: hash::cid_of(1, hash::RAW, &data), data: data.into() }
}

fn spread(holders: Vec<Holder>) -> Spread {
    Spread { holders, batch: Vec::new(), bytes: 0, last: [None, None], first_failure: None, discard: false }
}

/// A holder that stores what it gets.
fn stores(node: &Scripted) -> Holder {
    let (batches, incoming) = async_channel::bounded(BATCHES_AHEAD);
    let task = runtime::spawn(store_here(Arc::new(node.clone()), incoming));
    Holder { batches, task, peer: PeerId::random() }
}

/// A holder that fails after some batches; with `None`, only when everything was sent.
fn fails(after: Option<usize>) -> Holder {
    let (batches, incoming) = async_channel::bounded(BATCHES_AHEAD);
    let task = runtime::spawn(async move {
        for _ in 0..after.unwrap_or(usize::MAX) {
            if incoming.recv().await.is_err() {
                break;
            }
        }
        Err(Error::unavailable("the holder is gone"))
    });
    Holder { batches, task, peer: PeerId::random() }
}

async fn put(spread: &mut Spread, blocks: u32) -> Result<()> {
    for n in 0..blocks {
        spread.put(block(n, BATCH_BYTES / 4)).await?;
    }
    Ok(())
}

#[test]
fn every_holder_gets_every_block() {
    let nodes = [Scripted::default(), Scripted::default(), Scripted::default()];
    block_on(async {
        let mut spread = spread(nodes.iter().map(stores).collect());
        put(&mut spread, 21).await.expect("put");
        spread.finish().await.expect("finish");
    });
    for node in nodes {
        assert_eq!(node.script().blocks.len(), 21, "the last batch, which is not full, too");
    }
}

#[test]
fn a_holder_that_fails_is_left_behind() {
    for after in [Some(0), Some(2), None] {
        let node = Scripted::default();
        block_on(async {
            let mut spread = spread(vec![fails(after), stores(&node)]);
            put(&mut spread, 40).await.expect("put");
            spread.finish().await.expect("one holder is enough");
        });
        assert_eq!(node.script().blocks.len(), 40, "{after:?}");
    }
}

#[test]
fn an_add_that_nobody_stored_fails_with_the_reason() {
    let node = Scripted::default();
    node.script().full = true;
    let all_fail: [Vec<Holder>; 3] =
        [vec![fails(Some(1)), fails(Some(0))], vec![fails(None)], vec![stores(&node), stores(&node)]];
    for (holders, kind) in all_fail.into_iter().zip([Kind::Unavailable, Kind::Unavailable, Kind::Full]) {
        let error = block_on(async {
            let mut spread = spread(holders);
            put(&mut spread, 40).await?;
            spread.finish().await
        });
        let error = error.expect_err("nobody has it");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains("failed to put block on all destinations"), "{error}");
    }
    // A little, which is sent only at the end.
    let error = block_on(async {
        let mut spread = spread(vec![stores(&node)]);
        put(&mut spread, 1).await?;
        spread.finish().await
    });
    assert_eq!(error.expect_err("nobody has it").kind(), Kind::Full);
}

#[test]
fn a_slow_holder_holds_the_upload_back() {
    let (batches, incoming) = async_channel::bounded(BATCHES_AHEAD);
    let task = runtime::spawn(async { Ok(()) });
    let slow = Holder { batches, task, peer: PeerId::random() };
    let node = Scripted::default();
    block_on(async {
        let mut spread = spread(vec![slow, stores(&node)]);
        let mut sent = 0;
        let stuck = runtime::timeout(Duration::from_millis(300), "the slow holder", async {
            for n in 0..1_000 {
                spread.put(block(n, BATCH_BYTES / 4)).await?;
                sent = n + 1;
            }
            Ok(())
        });
        assert_eq!(stuck.await.expect_err("it must wait").kind(), Kind::Timeout);
        assert!((sent as usize) < 4 * (BATCHES_AHEAD + 2), "{sent} blocks were taken in");
    });
    drop(incoming);
}

#[test]
fn a_run_of_equal_blocks_is_sent_once() {
    let (batches, incoming) = async_channel::bounded(BATCHES_AHEAD);
    let task = runtime::spawn(async { Ok(()) });
    let holder = Holder { batches, task, peer: PeerId::random() };
    block_on(async {
        let mut spread = spread(vec![holder]);
        for n in [7, 7, 7, 8, 7, 8, 9, 7] {
            spread.put(block(n, 100)).await.expect("put");
        }
        spread.finish().await.expect("finish");
        let sent = incoming.recv().await.expect("a batch");
        assert_eq!(sent.len(), 4, "7, 8, 9, and 7 again");
    });
}

#[test]
fn folders_are_made_on_the_way_and_no_deeper_than_allowed() {
    let mut root = Folder::default();
    root.at("a/b").expect("made").folders.insert("c".into(), Folder::default());
    assert!(root.at("a//b/").expect("found").folders.contains_key("c"));
    root.at(&vec!["d"; MAX_DEPTH].join("/")).expect("just deep enough");
    let error = root.at(&vec!["d"; MAX_DEPTH + 1].join("/")).err().expect("too deep");
    assert_eq!(error.kind(), Kind::TooLarge);
}
