//! Draining: a peer that is to go, or to rest, takes no new pins and gives away those it has.
//!
//! That a peer is drained is known at one place, its own disk, in a file beside its state (so that a peer that
//! leaves and joins anew begins undrained). It tells the others with each ping, by the metric `drained`: allocation
//! leaves it out, and whoever leads moves its pins away, now and after any restart or change of leader, until
//! it is undone. Pins that are everywhere stay: that is what everywhere means.

use super::{called, MoveProgress, CALL};
use crate::cluster::{rpc, Cluster};
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::{Reading, DRAINED};
use crate::net::rpc::{Access, Call};
use crate::runtime;
use async_channel::Sender;
use futures::stream::BoxStream;
use libp2p::PeerId;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Be drained, or no longer.
const DRAIN: &str = "cluster.drain";

impl Cluster {
    /// Drains a peer: it takes no new pins from now on, and those it has are moved away. The stream tells how it goes
    /// and ends when nothing is left that can be moved; whether somebody reads it to the end makes no difference to
    /// the draining. With `undo`, the peer takes pins again (and gets none back).
    ///
    /// # Errors
    /// Not a member; in the stream: the peer does not answer and repinning is disabled, no leader.
    pub fn drain(&self, peer: PeerId, undo: bool) -> Result<BoxStream<'static, Result<MoveProgress>>> {
        if !self.member_ids().contains(&peer) {
            return Err(Error::not_found(format!("{peer} is not a member of this cluster: see `peers ls`")));
        }
        if self.is_witness_member(&peer) {
            return Err(Error::conflict(format!(
                "{peer} is a witness and holds no content: there is nothing to drain"
            )));
        }
        Ok(self.as_stream(move |cluster, tell| async move { cluster.drain_one(peer, undo, &tell).await }))
    }

    async fn drain_one(&self, peer: PeerId, undo: bool, tell: &Sender<MoveProgress>) -> Result<MoveProgress> {
        let told = self.inner.rpc.call::<_, ()>(peer, DRAIN, &!undo, CALL).await;
        match told {
            Ok(()) if undo => {
                let message = format!("{} takes pins again", called(self, &peer));
                return Ok(MoveProgress { done: true, message, ..MoveProgress::default() });
            }
            Ok(()) => {}
            Err(error) if undo || !matches!(error.kind(), Kind::Unavailable | Kind::Timeout | Kind::Io) => {
                return Err(error)
            }
            Err(error) => {
                let message = format!(
                    "{} does not answer, so that it will take pins again when it is back; its pins are moved all the same ({error})",
                    called(self, &peer)
                );
                log::warn!(target: "cluster", "{message}");
                let _ = tell.send(MoveProgress { message, ..MoveProgress::default() }).await;
            }
        }
        self.vacate(peer, Some(tell.clone())).await
    }

    /// What the others are told with each ping, while this peer is drained.
    pub(in crate::cluster) fn drained(&self) -> Option<Reading> {
        self.inner.repin.drained.load(Ordering::SeqCst).then(|| {
            let ttl_ms = (self.inner.settings.ping_interval * 2).as_millis() as u64;
            drained_reading(ttl_ms)
        })
    }

    /// Remembers it, then tells it.
    async fn be_drained(&self, yes: bool) -> Result<()> {
        let file = self.inner.repin.drained_file.clone();
        runtime::unblock(move || remember(&file, yes)).await?;
        if self.inner.repin.drained.swap(yes, Ordering::SeqCst) != yes {
            log::info!(
                target: "cluster",
                "{}",
                if yes { "this peer is drained: it takes no new pins" } else { "this peer takes pins again" }
            );
        }
        // A reading without a life takes the last one back.
        let reading = vec![self.drained().unwrap_or_else(|| drained_reading(0))];
        self.keep(reading.clone());
        self.tell_all(&reading).await;
        Ok(())
    }
}

fn drained_reading(ttl_ms: u64) -> Reading {
    Reading { name: DRAINED.into(), value: "true".into(), weight: 0, partitionable: false, ttl_ms }
}

/// Durable before it is told: a peer that says it is drained still is after a power cut.
fn remember(file: &Path, yes: bool) -> Result<()> {
    let what = || file.display().to_string();
    if yes {
        let mut mark = std::fs::File::create(file).context(what())?;
        mark.write_all(b"This peer is drained: it takes no new pins. `pinfold drain --undo` ends that.\n")
            .context(what())?;
        mark.sync_all().context(what())?;
    } else if let Err(error) = std::fs::remove_file(file) {
        if error.kind() != std::io::ErrorKind::NotFound {
            return Err(Error::from_io(what(), &error));
        }
    }
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    std::fs::File::open(folder).and_then(|f| f.sync_all()).context(folder.display())
}

pub(super) fn register(cluster: &Cluster) {
    rpc::register_one(cluster, DRAIN, Access::Members, |c, call| Box::pin(serve_drain(c, call)));
}

async fn serve_drain(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let yes: bool = call.need().await?;
    cluster.be_drained(yes).await?;
    call.send(&()).await
}
