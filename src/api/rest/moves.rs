//! Routes that move copies between peers: drain, rebalance. pinfold's own, ipfs-cluster has none.
//!
//! Both answer with a line of progress at least every second, the last one with `"done":true`. Hanging up stops a
//! rebalance; a peer that is drained stays drained and goes on being emptied.

use super::{as_json, Call, Rest};
use crate::api::http::Response;
use crate::api::query::{parse_bool, parse_peer_id};
use crate::api::stream::{ndjson, OnSuccess};
use crate::error::{Error, Result};

/// A switch of the query; absent is off.
fn switch(call: &Call, name: &str) -> Result<bool> {
    match call.query.get(name) {
        None => Ok(false),
        Some(text) => {
            parse_bool(text).ok_or_else(|| Error::invalid(format!("{name}={text} is neither true nor false")))
        }
    }
}

impl Rest {
    pub(super) async fn drain(&self, peer: &str, call: &Call) -> Result<Response> {
        let peer = parse_peer_id(peer).map_err(|e| e.context("error decoding Peer ID"))?;
        let progress = self.cluster.drain(peer, switch(call, "undo")?)?;
        ndjson(progress, OnSuccess::EmptyTrailer).await.map(as_json)
    }

    pub(super) async fn rebalance(&self, call: &Call) -> Result<Response> {
        let progress = self.cluster.rebalance(switch(call, "dry-run")?);
        ndjson(progress, OnSuccess::EmptyTrailer).await.map(as_json)
    }
}
