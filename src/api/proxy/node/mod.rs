//! What the embedded node answers itself: Kubo's RPC calls that no cluster verb stands behind.

use crate::api::http::{Request, Response};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::ipfs::Ipfs;
use std::sync::Arc;

/// The embedded node as the proxy sees it.
pub(super) struct Node {
    /// The cluster peer.
    pub(super) cluster: Cluster,
    /// The node of this peer.
    pub(super) ipfs: Arc<dyn Ipfs>,
}

/// Answers one request that was not intercepted. Method, origin and CORS headers are the caller's business.
pub(super) async fn answer(node: &Node, request: Request) -> Response {
    let _ = (&node.cluster, &node.ipfs);
    super::words::refuse(&Error::not_found(format!("{} is not answered yet", request.uri().path())))
}
