//! The embedded node and the real Kubo as neighbours: each pins what the other has.

use crate::steps::{add_file, add_folder, content, quiet, request};
use crate::{embedded, kubo};
use futures::stream::{StreamExt, TryStreamExt};
use pinfold::ipfs::{unixfs::hash, Block, Ipfs, PinRequest};
use pinfold::runtime::{block_on, sleep, spawn};
use pinfold::state::PinMode;
use std::time::Duration;

async fn read(ipfs: &dyn Ipfs, path: &str) -> Vec<u8> {
    let stream = ipfs.cat(path, None).await.expect("cat");
    stream
        .try_fold(Vec::new(), |mut all, b| async move {
            all.extend_from_slice(&b);
            Ok(all)
        })
        .await
        .expect("all")
}

async fn exchange(psk: Option<[u8; 32]>) {
    let Some(kubo) = kubo(psk) else { return };
    let ours = embedded(psk).await;
    let (kubo_ipfs, our_ipfs) = (kubo.ipfs.clone(), ours.ipfs.clone());

    // Kubo gets ours: it learns where from the pin's origins.
    let data = content(40, 5_000_000);
    let cid = add_file(&*our_ipfs, &data).await;
    let origin = PinRequest { providers: vec![ours.address().await], ..request(cid, PinMode::Recursive) };
    kubo_ipfs.pin(origin, quiet()).await.expect("Kubo pins what we have");
    assert!(read(&*kubo_ipfs, &cid.to_string()).await == data);

    // We get Kubo's, of both directions over the one connection.
    let root = add_folder(&*kubo_ipfs, 41).await;
    our_ipfs.pin(request(root, PinMode::Recursive), quiet()).await.expect("we pin what Kubo has");
    assert!(read(&*our_ipfs, &format!("{root}/sub/big")).await == content(41, 700_000));

    // Many small blocks, more than fit into one message.
    let mut files = Vec::new();
    for n in 0..1500u32 {
        let data = n.to_le_bytes().repeat(300);
        files.push(Block { cid: hash::cid_of(1, hash::RAW, &data), data: data.into() });
    }
    kubo_ipfs.put_blocks(files.clone()).await.expect("stored");
    let fetched = futures::stream::iter(files).map(Ok).try_for_each_concurrent(100, |block| {
        let our_ipfs = our_ipfs.clone();
        async move {
            assert_eq!(our_ipfs.get_block(&block.cid, true).await?, block.data);
            Ok::<_, pinfold::Error>(())
        }
    });
    fetched.await.expect("all of them");

    // What comes late is offered to who waits, both ways.
    for (waits, has, text) in
        [(&our_ipfs, &kubo_ipfs, "late at Kubo"), (&kubo_ipfs, &our_ipfs, "late at ours")]
    {
        let cid = hash::cid_of(1, hash::RAW, text.as_bytes());
        let waiter = waits.clone();
        let waiting = spawn(async move { waiter.get_block(&cid, true).await });
        // Long enough for the want to be told and denied; if it is not, the test is only easier.
        sleep(Duration::from_millis(500)).await;
        has.put_blocks(vec![Block { cid, data: text.as_bytes().to_vec().into() }]).await.expect("stored");
        assert_eq!(waiting.await.expect(text), text.as_bytes());
    }
    our_ipfs.close().await;
}

#[test]
fn kubo_and_the_embedded_node_exchange_blocks() {
    block_on(exchange(None));
}

#[test]
fn kubo_and_the_embedded_node_exchange_blocks_in_a_private_network() {
    block_on(exchange(Some([42; 32])));
}

#[test]
fn without_the_key_a_private_network_stays_closed() {
    let Some(kubo) = kubo(Some([1; 32])) else { return };
    block_on(async {
        for psk in [None, Some([2; 32])] {
            let ours = embedded(psk).await;
            ours.ipfs.swarm_connect(&kubo.address().await).await.expect_err("another key");
            assert!(kubo.ipfs.swarm_peers().await.expect("peers").is_empty());
            ours.ipfs.close().await;
        }
    });
}
