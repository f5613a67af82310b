//! Routes about members: list, add, remove.

use super::{answer, as_json, no_content, Call, Rest};
use crate::api::http::Response;
use crate::api::query::parse_peer_id;
use crate::api::stream::{ndjson, OnSuccess};
use crate::error::{Error, Result};
use serde::Deserialize;

/// Largest body of `POST /peers`, bytes; a peer id is about 60.
const MAX_BODY: usize = 16 << 10;

#[derive(Deserialize)]
struct AddPeer {
    #[serde(default)]
    peer_id: String,
}

impl Rest {
    pub(super) async fn peers(&self) -> Result<Response> {
        ndjson(self.cluster.peers().await?, OnSuccess::EmptyTrailer).await.map(as_json)
    }

    pub(super) async fn peer_add(&self, call: Call) -> Result<Response> {
        let body = call.body.collect(MAX_BODY).await?;
        let wanted: AddPeer =
            serde_json::from_slice(&body).map_err(|_| Error::invalid("error decoding request body"))?;
        let peer = parse_peer_id(&wanted.peer_id).map_err(|_| Error::invalid("error decoding peer_id"))?;
        answer(&self.cluster.peer_add(peer).await?)
    }

    pub(super) async fn peer_remove(&self, peer: &str) -> Result<Response> {
        let peer = parse_peer_id(peer).map_err(|e| e.context("error decoding Peer ID"))?;
        self.cluster.peer_remove(peer).await?;
        Ok(no_content())
    }
}
