//! `sync`: every peer compares with its IPFS node now and says what that changed.
//!
//! The verb of ipfs-cluster up to 0.11: [`Cluster::sync`] answers one CID, [`Cluster::sync_all`] what the comparison
//! changed and what is in error. It repairs nothing (`recover` does). Unlike a status, which answers from what is
//! known when IPFS is away, it is an error when IPFS cannot be asked: the question was what IPFS has *now*.

use super::{run, Rows, Source, AHEAD};
use crate::api::types::GlobalPinInfo;
use crate::cluster::rpc::{cid_of, send_found, Method, Serve};
use crate::cluster::Cluster;
use crate::error::Result;
use crate::net::rpc::{Access, Call};
use crate::runtime;
use crate::tracker::StatusFilter;
use cid::Cid;
use futures::stream::BoxStream;
use std::sync::Arc;

/// Compare this CID with IPFS; your row of it.
const SYNC_ONE: &str = "cluster.sync_one";
/// Compare everything with IPFS; rows that this changed or that are in error, in key order.
const SYNC: &str = "cluster.sync";

/// Answers the other peers.
pub(in crate::cluster) fn register(cluster: &Cluster) {
    let methods: [(&'static str, Serve); 2] =
        [(SYNC_ONE, |c, call| Box::pin(serve_one(c, call))), (SYNC, |c, call| Box::pin(serve_all(c, call)))];
    for (name, serve) in methods {
        let method = Arc::new(Method(cluster.clone(), serve));
        cluster.inner.rpc.register(name, Access::Members, method);
    }
}

async fn serve_one(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let key: Vec<u8> = call.need().await?;
    let row = cluster.tracker().sync(&cid_of(&key)?).await?;
    call.send(&row).await
}

async fn serve_all(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let tracker = cluster.tracker().clone();
    send_found(call, |found| async move { tracker.sync_all(found).await }).await
}

impl Cluster {
    /// Compares one CID with IPFS on every peer that holds it (or here); the fresh status. A peer whose IPFS cannot be
    /// asked is a `cluster_error` with the reason.
    ///
    /// # Errors
    /// Only when this peer cannot read its own state.
    pub async fn sync(&self, cid: &Cid, local: bool) -> Result<GlobalPinInfo> {
        self.ask_all(cid, local, SYNC_ONE).await
    }

    /// Compares everything with IPFS on every peer (or here); what that changed, and what is in error. Ends in an error
    /// that names the peers that could not compare.
    pub async fn sync_all(&self, local: bool) -> BoxStream<'static, Result<GlobalPinInfo>> {
        let me = self.inner.me;
        let members = self.inner.consensus.members().into_iter().filter(|m| !local || m.peer_id == me);
        let opened = members.map(|member| async move {
            if member.witness {
                return Rows::none(member);
            }
            let source = if member.peer_id == me {
                let (sender, rows) = async_channel::bounded(AHEAD);
                let tracker = self.tracker().clone();
                let work = runtime::spawn(async move { tracker.sync_all(sender).await });
                Ok(Source::Synced(rows, Some(work)))
            } else {
                self.ask_stream(member.peer_id, SYNC, None).await
            };
            Rows::new(member, source)
        });
        let peers = futures::future::join_all(opened).await;
        let mut merge = self.merge(StatusFilter::ALL, peers, None);
        merge.complain = true;
        run(merge)
    }
}
