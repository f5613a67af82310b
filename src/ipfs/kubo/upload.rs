//! Blocks as multipart bodies for `block/put`, many per request.

use crate::error::{Error, Result};
use crate::ipfs::unixfs::hash;
use crate::ipfs::Block;
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt::Write;

/// Bytes of blocks per request: bounds the memory of one upload.
pub(super) const BATCH_BYTES: usize = 4 << 20;
/// Blocks per request.
pub(super) const BATCH_BLOCKS: usize = 1_024;

/// Neighbouring blocks of one hash function.
pub(super) struct Batch<'a> {
    /// Kubo's name of the hash function.
    pub(super) function: &'static str,
    pub(super) blocks: &'a [Block],
}

fn function_of(block: &Block) -> Option<&'static str> {
    match block.cid.hash().code() {
        hash::SHA2_256 => Some("sha2-256"),
        hash::SHA2_512 => Some("sha2-512"),
        // Identity: the content is in the CID, there is nothing to store.
        _ => None,
    }
}

/// Cuts blocks (already verified) into batches, leaving out those that need no storing.
pub(super) fn batches(blocks: &[Block]) -> Vec<Batch<'_>> {
    let mut batches = Vec::new();
    let mut start = 0;
    while start < blocks.len() {
        let Some(function) = function_of(&blocks[start]) else {
            start += 1;
            continue;
        };
        let (mut end, mut bytes) = (start, 0);
        while end < blocks.len() && end - start < BATCH_BLOCKS && function_of(&blocks[end]) == Some(function)
        {
            bytes += blocks[end].data.len();
            if end > start && bytes > BATCH_BYTES {
                break;
            }
            end += 1;
        }
        batches.push(Batch { function, blocks: &blocks[start..end] });
        start = end;
    }
    batches
}

/// Content type and body.
pub(super) fn multipart(blocks: &[Block]) -> Result<(String, Bytes)> {
    let mut random = [0u8; 16];
    // Unguessable, so that no block can contain it.
    getrandom::fill(&mut random)
        .map_err(|e| Error::io(format!("the system gives no random numbers: {e}")))?;
    let mut boundary = String::from("pinfold-");
    for byte in random {
        let _ = write!(boundary, "{byte:02x}");
    }
    let content: usize = blocks.iter().map(|b| b.data.len() + 256).sum();
    let mut body = BytesMut::with_capacity(content + 64);
    for (n, block) in blocks.iter().enumerate() {
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{n}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.put(head.as_bytes());
        body.put(&block.data[..]);
        body.put(&b"\r\n"[..]);
    }
    body.put(format!("--{boundary}--\r\n").as_bytes());
    Ok((format!("multipart/form-data; boundary={boundary}"), body.freeze()))
}

#[cfg(test)]
mod unit {
    use super::*;

    fn block(data: Vec<u8>) -> Block {
        Block { cid: hash::cid_of(1, hash::RAW, &data), data: data.into() }
    }

    #[test]
    fn batches_are_bounded_and_lose_nothing() {
        let mut blocks: Vec<Block> = (0..10u8).map(|n| block(vec![n; 1 << 20])).collect();
        blocks.extend((0..BATCH_BLOCKS as u64 + 5).map(|n| block(n.to_le_bytes().to_vec())));
        let batches = batches(&blocks);
        assert_eq!(batches.iter().map(|b| b.blocks.len()).sum::<usize>(), blocks.len());
        for batch in &batches {
            assert!(batch.blocks.len() <= BATCH_BLOCKS);
            assert!(batch.blocks.iter().map(|b| b.data.len()).sum::<usize>() <= BATCH_BYTES);
        }
        let mut large = vec![block(vec![0; BATCH_BYTES + 1])];
        assert_eq!(super::batches(&large).len(), 1, "a block larger than a batch goes alone");
        let inline = multihash::Multihash::wrap(hash::IDENTITY, b"x").expect("hash");
        large.push(Block { cid: cid::Cid::new_v1(hash::RAW, inline), data: Bytes::from_static(b"x") });
        assert_eq!(super::batches(&large).len(), 1, "identity needs no storing");
    }
}
