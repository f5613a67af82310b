//! Bitswap messages of any IPFS node, and what we remember of what it wants.

use super::ledger::{Ledger, MAX_WANTS};
use super::verify::{cid_of, inline, supported};
use super::wire::{read_body, read_length, Encoder, Message, MAX_ENTRIES, MAX_MESSAGE};
use crate::fuzz::Input;
use crate::ipfs::unixfs::hash;
use crate::runtime::block_on;
use bytes::Bytes;

/// Messages one after the other, as a peer's stream has them: limits hold, each block is named by its own bytes, a message
/// of what was read reads the same, and the ledger answers each want once.
pub(crate) fn messages(data: &[u8]) {
    let mut input = Input(data);
    let mut ledger = Ledger::default();
    let framed = input.flag();
    if framed {
        let mut stream = input.rest();
        block_on(async {
            while let Ok(Some(length)) = read_length(&mut stream).await {
                assert!(length <= MAX_MESSAGE);
                match read_body(&mut stream, length).await {
                    Ok(frame) => message(frame, &mut ledger),
                    Err(_) => break,
                }
            }
        });
    } else {
        message(Bytes::copy_from_slice(input.rest()), &mut ledger);
    }
}

fn message(frame: Bytes, ledger: &mut Ledger) {
    let Ok(message) = Message::decode(frame) else { return };
    assert!(message.wants.len() <= MAX_ENTRIES && message.presences.len() <= MAX_ENTRIES);
    let mut out = Encoder::new();
    out.wantlist(&message.wants, message.full);
    let mut blocks = 0;
    for block in &message.blocks {
        if let Some(cid) = cid_of(&block.prefix, &block.data) {
            hash::verify(&cid, &block.data).expect("a block is what its bytes are");
            supported(&cid).expect("what was computed can be checked");
            out.block(&cid, &block.data);
            blocks += 1;
        }
    }
    for (cid, have) in &message.presences {
        out.presence(cid, *have);
        let _ = inline(cid).map(|data| hash::verify(cid, &data).expect("it carries its data"));
    }
    let written = out.finish();
    let again = block_on(async {
        let mut stream = &written[..];
        let length = read_length(&mut stream).await.expect("a length").expect("a message");
        read_body(&mut stream, length).await.expect("its bytes")
    });
    let again = Message::decode(again).expect("what was written can be read");
    assert_eq!(
        (again.wants.as_slice(), again.full, again.blocks.len(), again.presences.as_slice()),
        (message.wants.as_slice(), message.full, blocks, message.presences.as_slice())
    );

    ledger.receive(&message.wants, message.full);
    assert!(ledger.count_wants() <= MAX_WANTS);
    let tasks = ledger.take(MAX_WANTS);
    let mut seen = std::collections::HashSet::new();
    for task in &tasks {
        assert!(seen.insert(task.cid), "one want stands in line twice");
    }
    for (n, task) in tasks.iter().enumerate() {
        match n % 3 {
            0 => ledger.answered(task),
            1 => ledger.put_back(std::slice::from_ref(task)),
            _ => assert!(ledger.arrived(&task.cid)),
        }
    }
    let _ = (ledger.take_refused(16), ledger.has_work());
    assert!(ledger.count_wants() <= MAX_WANTS);
}
