//! Calls between peers, as bytes on the stream of a call, to the handlers that ship.

use super::Cluster;
use crate::fuzz::Input;
use crate::net::rpc;
use crate::runtime::block_on;

/// Every call that a peer answers.
const METHODS: [&str; 24] = [
    "cluster.id",
    "cluster.metrics",
    "cluster.status",
    "cluster.status_one",
    "cluster.recover_one",
    "cluster.recover",
    "cluster.gc",
    "cluster.blocks",
    "cluster.links",
    "cluster.join",
    "cluster.found",
    "cluster.progress",
    "cluster.repo_stat",
    "cluster.sync_one",
    "cluster.sync",
    "cluster.drain",
    "cluster.job",
    "cluster.held",
    "cluster.capacity",
    "cluster.clock",
    "raft.propose",
    "raft.member",
    "raft.snapshot",
    "raft",
];

/// A call with any messages, or any bytes as a stream: it is answered with an end mark that can be read, or dropped.
pub(crate) fn call(cluster: &Cluster, data: &[u8]) {
    let mut input = Input(data);
    let method = METHODS[input.below(METHODS.len())];
    let mut bytes = Vec::new();
    if input.below(8) == 0 {
        bytes.extend_from_slice(input.rest());
    } else {
        bytes.push(method.len() as u8);
        bytes.extend_from_slice(method.as_bytes());
        while !input.is_empty() {
            let (kind, body) = (input.byte(), input.bytes());
            bytes.extend((body.len() as u32).to_be_bytes());
            // Mostly messages, and at the end one that says so.
            bytes.push(if kind > 8 { 0 } else { kind });
            bytes.extend_from_slice(body);
        }
        bytes.extend([0, 0, 0, 0, 1]);
    }
    let said = block_on(rpc::fuzz::raw_call(&cluster.inner.rpc, &bytes));
    if let Some(said) = said {
        assert!(said.iter().all(|frame| frame.len() <= rpc::MAX_FRAME));
    }
}
