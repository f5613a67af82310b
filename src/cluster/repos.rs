//! The repositories of all IPFS nodes as one: their size, and garbage collection as a stream.

use super::rpc::{self, Serve};
use super::Cluster;
use crate::error::Result;
use crate::ipfs::RepoStat;
use crate::net::rpc::Call;
use crate::runtime;
use futures::stream::BoxStream;
use futures::StreamExt;
use libp2p::PeerId;
use std::time::Duration;

/// How long one peer may take to tell the size of its repository; then it is left out of the sum.
const STAT_TIMEOUT: Duration = Duration::from_secs(15);
/// Removed CIDs waiting for the client.
const KEYS_AHEAD: usize = 1_000;

/// How large is your repository.
pub(super) const METHOD: (&str, Serve) = ("cluster.repo_stat", |c, call| Box::pin(serve(c, call)));

async fn serve(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let stat = cluster.inner.ipfs.repo_stat().await?;
    call.send(&(stat.repo_size, stat.storage_max)).await
}

impl Cluster {
    /// Sizes and limits of all repositories, added up. Peers that cannot be asked are left out, as in ipfs-cluster.
    pub async fn repo_stat(&self) -> RepoStat {
        let asked = self.alive().into_iter().map(|peer| async move {
            match self.inner.rpc.call::<_, (u64, u64)>(peer, METHOD.0, &(), STAT_TIMEOUT).await {
                Ok(sizes) => sizes,
                Err(error) => {
                    log::debug!("{peer} is left out of the size of the repository: {error}");
                    (0, 0)
                }
            }
        });
        let sizes = futures::future::join_all(asked).await;
        sizes.into_iter().fold(RepoStat::default(), |sum, (size, limit)| RepoStat {
            repo_size: sum.repo_size.saturating_add(size),
            storage_max: sum.storage_max.saturating_add(limit),
            objects: None,
        })
    }

    /// Garbage collection on all peers, one after the other; yields what was removed while it happens. A peer that
    /// fails is one error in the stream, the others follow.
    pub fn gc_stream(&self) -> BoxStream<'static, Result<String>> {
        let (sender, keys) = async_channel::bounded(KEYS_AHEAD);
        let cluster = self.clone();
        // Ends by itself when nobody reads any more: sending fails then.
        runtime::spawn(async move {
            for peer in cluster.holder_ids() {
                if let Err(error) = cluster.collect_on(peer, &sender).await {
                    let name = cluster.peer_name(&peer);
                    if sender.send(Err(error.context(name))).await.is_err() {
                        return;
                    }
                }
            }
        })
        .detach();
        keys.boxed()
    }

    async fn collect_on(&self, peer: PeerId, keys: &async_channel::Sender<Result<String>>) -> Result<()> {
        let mut call = self.inner.rpc.open(peer, rpc::GC, super::PEER_TIMEOUT).await?;
        call.set_idle(rpc::GC_IDLE);
        call.finish().await?;
        while let Some(batch) = call.recv::<Vec<String>>().await? {
            for key in batch {
                if keys.send(Ok(key)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
