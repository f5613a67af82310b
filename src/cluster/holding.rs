//! Whether a pin is kept, in one word: what the holders say, put together; and following a pin until that word is
//! final. This is how a cluster looks like one IPFS daemon to a cluster above it.
//!
//! A holder that cannot be asked counts neither way while another one has the content: the loss of one peer
//! is this cluster's own business (failover will see to it), not its client's. A holder that failed counts against
//! the pin unless enough others (`replication_min`) have it.
//!
//! It must never: take an error of an earlier attempt for one of the attempt it follows, ask the IPFS nodes twice
//! a second, or wait for a peer that is known to be dead.

use super::rpc::{self, Serve};
use super::Cluster;
use crate::api::types::{GlobalPinInfo, PinOptions};
use crate::error::{Error, Result};
use crate::net::rpc::Call;
use crate::runtime;
use crate::state::Pin;
use crate::tracker::{Row, Status};
use cid::Cid;
use futures::stream::{self, BoxStream};
use futures::StreamExt;
use libp2p::PeerId;
use std::time::{Duration, Instant};

/// Between two looks at a pin that is followed; Kubo tells its progress at the same pace.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The first look comes sooner: most pins are of things that are here already.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// How long a holder may take to say how far it is.
const ASK_HOLDER: Duration = Duration::from_secs(5);
/// An error that a holder had before the new attempt counts again after this long: it should have begun by then.
const OLD_ERRORS: Duration = Duration::from_secs(5);

/// How far is this CID.
pub(super) const METHOD: (&str, Serve) = ("cluster.progress", |c, call| Box::pin(serve(c, call)));

/// A pin, as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It is kept.
    Held,
    /// Work is under way.
    Waiting,
    /// It is not kept, and why.
    Failed(String),
}

/// What one holder says.
#[derive(Clone, Debug)]
struct Part {
    peer: PeerId,
    name: String,
    /// `None`: it cannot be asked.
    row: Option<Row>,
    blocks: u64,
}

async fn serve(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let key: Vec<u8> = call.need().await?;
    let glance = cluster.tracker().glance(&rpc::cid_of(&key)?)?;
    call.send(&glance).await
}

/// Puts together what the holders say: name, status and error of each.
fn judge<'a>(fewest: i32, holders: impl Iterator<Item = (&'a str, Status, &'a str)>) -> Holding {
    let (mut held, mut waiting, mut silent) = (0, 0, None);
    let mut failed: Option<String> = None;
    for (name, status, error) in holders {
        match status {
            Status::Pinned | Status::Sharded => held += 1,
            Status::ClusterError => silent = Some(format!("{name}: {error}")),
            Status::PinError | Status::UnexpectedlyUnpinned => {
                failed.get_or_insert_with(|| format!("{name}: {}", reason(error)));
            }
            // Also what a peer says that has not heard of the pin yet.
            _ => waiting += 1,
        }
    }
    let enough = fewest > 0 && held >= fewest;
    match (failed, silent) {
        (Some(error), _) if !enough && waiting == 0 => Holding::Failed(error),
        _ if waiting > 0 => Holding::Waiting,
        _ if held > 0 => Holding::Held,
        (_, Some(error)) => Holding::Failed(error),
        _ => Holding::Failed("no peer holds it".into()),
    }
}

/// An error of a pin without what the connector put in front of the daemon's words: through several levels of
/// clusters that would be longer than the reason itself.
fn reason(error: &str) -> &str {
    match error.split_once(". Message: ") {
        Some((frame, words)) if frame.starts_with("IPFS error (") => words,
        _ => error,
    }
}

impl Holding {
    /// Of a pin and its global status: whether a list of what is pinned names it. One good copy is enough to be named
    /// while others are on their way.
    pub fn of(pin: &Pin, info: &GlobalPinInfo) -> Holding {
        let holders = info.peer_map.values().filter(|p| p.status != Status::Remote);
        let holding =
            judge(pin.replication_min, holders.clone().map(|p| (&*p.peername, p.status, &*p.error)));
        match holding {
            Holding::Waiting if holders.clone().any(|p| p.status == Status::Pinned) => Holding::Held,
            other => other,
        }
    }
}

impl Cluster {
    /// Whether a pin of the shared state is kept, asking every holder to compare with its IPFS node; `None` for
    /// what is not in the state.
    ///
    /// # Errors
    /// Only when this peer cannot read its own state.
    pub async fn holding(&self, cid: &Cid) -> Result<Option<(Pin, Holding)>> {
        let Some(pin) = self.find(cid)? else { return Ok(None) };
        let holding = Holding::of(&pin, &self.status(cid, false).await?);
        Ok(Some((pin, holding)))
    }

    /// The options of a pin that is there already, with this name if it is one: pinning again changes nothing that
    /// was not asked for.
    ///
    /// # Errors
    /// Only when this peer cannot read its own state.
    pub fn options_of(&self, cid: &Cid, wanted: PinOptions) -> Result<PinOptions> {
        let Some(pin) = self.find(cid)? else { return Ok(wanted) };
        Ok(PinOptions {
            name: if wanted.name.is_empty() { pin.name } else { wanted.name },
            mode: wanted.mode,
            replication_min: pin.replication_min,
            replication_max: pin.replication_max,
            shard_size: pin.shard_size,
            expire_at: (!pin.expire_at.is_zero()).then_some(pin.expire_at),
            metadata: pin.metadata,
            origins: pin.origins,
            ..PinOptions::default()
        })
    }

    /// Pins and yields, twice a second, how many blocks the holders have reached together; ends when the pin is kept,
    /// or with the reason why it is not. A pin that is on its way already is only followed, one that failed is
    /// tried again: asking twice does not make anybody begin anew.
    ///
    /// # Errors
    /// As [`Cluster::pin`].
    pub async fn pin_and_follow(
        &self,
        cid: Cid,
        options: PinOptions,
    ) -> Result<BoxStream<'static, Result<u64>>> {
        let mut existing = self.find(&cid)?;
        if existing.is_some() {
            // It may have been removed a moment ago, and then there would be nothing to follow.
            self.catch_up().await?;
            existing = self.find(&cid)?;
        }
        let same = existing
            .as_ref()
            .filter(|p| p.mode == options.mode && (options.name.is_empty() || options.name == p.name));
        let mut before = Vec::new();
        if let Some(pin) = &existing {
            before = self.parts(pin).await;
        }
        match same {
            Some(pin) => {
                if let Holding::Failed(_) = judge_parts(pin, &before, &[]) {
                    self.recover(&cid, false).await?;
                }
            }
            None => {
                let options = self.options_of(&cid, options)?;
                self.pin(cid, options).await?;
            }
        }
        Ok(self.watch_pin(cid, before))
    }

    /// Follows a pin; errors that are in `before` count only when they are still there after a while.
    fn watch_pin(&self, cid: Cid, before: Vec<Part>) -> BoxStream<'static, Result<u64>> {
        let (begun, cluster) = (Instant::now(), self.clone());
        let first = (Some(FIRST_LOOK), 0);
        stream::unfold(first, move |(wait, reached)| {
            let (cluster, before) = (cluster.clone(), before.clone());
            async move {
                runtime::sleep(wait?).await;
                let old: &[Part] = if begun.elapsed() < OLD_ERRORS { &before } else { &[] };
                match cluster.look(&cid, old).await {
                    Ok((Holding::Held, _)) => None,
                    // Never less than before: holders that are done no longer count their blocks.
                    Ok((Holding::Waiting, blocks)) => {
                        let blocks = blocks.max(reached);
                        Some((Ok(blocks), (Some(LOOK_AGAIN), blocks)))
                    }
                    Ok((Holding::Failed(why), _)) => Some((Err(Error::ipfs(why)), (None, reached))),
                    Err(error) => Some((Err(error), (None, reached))),
                }
            }
        })
        .boxed()
    }

    async fn look(&self, cid: &Cid, old: &[Part]) -> Result<(Holding, u64)> {
        let pin = self
            .find(cid)?
            .ok_or_else(|| Error::cancelled(format!("{cid} was unpinned while it was being pinned")))?;
        let parts = self.parts(&pin).await;
        Ok((judge_parts(&pin, &parts, old), parts.iter().map(|p| p.blocks).sum()))
    }

    /// Asks every holder at once.
    async fn parts(&self, pin: &Pin) -> Vec<Part> {
        let (alive, key) = (self.alive(), pin.cid.to_bytes());
        let holders = self.inner.consensus.members().into_iter().filter(|m| m.is_to_hold(pin));
        let asked = holders.map(|member| {
            let (key, alive) = (&key, alive.contains(&member.peer_id));
            async move {
                let silent = Part { peer: member.peer_id, name: member.name, row: None, blocks: 0 };
                if !alive {
                    return silent;
                }
                let rpc = &self.inner.rpc;
                match rpc.call::<_, (Row, u64)>(member.peer_id, METHOD.0, key, ASK_HOLDER).await {
                    Ok((row, blocks)) => Part { row: Some(row), blocks, ..silent },
                    Err(error) => {
                        log::debug!("{} does not say how far {} is: {error}", silent.name, pin.cid);
                        silent
                    }
                }
            }
        });
        futures::future::join_all(asked).await
    }
}

fn judge_parts(pin: &Pin, parts: &[Part], old: &[Part]) -> Holding {
    let is_old = |part: &Part| old.iter().any(|o| o.peer == part.peer && o.row == part.row);
    let holders = parts.iter().map(|part| match &part.row {
        None => (&*part.name, Status::ClusterError, "this peer cannot be asked"),
        Some(row) if row.status != Status::Pinned && is_old(part) => (&*part.name, Status::Pinning, ""),
        Some(row) => (&*part.name, row.status, &*row.error),
    });
    judge(pin.replication_min, holders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::{ClusterError, PinError, PinQueued, Pinned, Pinning, Unpinned};

    fn judged(fewest: i32, statuses: &[Status]) -> Holding {
        judge(fewest, statuses.iter().map(|s| ("p", *s, "why")))
    }

    #[test]
    fn a_dead_holder_is_not_seen_from_above_while_another_has_it() {
        assert_eq!(judged(-1, &[Pinned, ClusterError]), Holding::Held);
        assert_eq!(judged(2, &[Pinned, ClusterError]), Holding::Held);
        assert_eq!(judged(-1, &[ClusterError]), Holding::Failed("p: why".into()));
        assert_eq!(judged(-1, &[Pinning, ClusterError]), Holding::Waiting);
    }

    #[test]
    fn a_reason_goes_up_without_its_frames() {
        let framed = "IPFS error (pin/add?arg=x&progress=true). Code: 200. Message: p1: nobody has it";
        assert_eq!(reason(framed), "p1: nobody has it");
        assert_eq!(reason("no progress. Message: none"), "no progress. Message: none");
    }

    #[test]
    fn a_failure_counts_when_too_few_have_it_and_nobody_still_tries() {
        assert_eq!(judged(-1, &[Pinned, PinError]), Holding::Failed("p: why".into()));
        assert_eq!(judged(1, &[Pinned, PinError]), Holding::Held);
        assert_eq!(judged(2, &[Pinned, PinError]), Holding::Failed("p: why".into()));
        assert_eq!(judged(2, &[Pinned, PinError, PinQueued]), Holding::Waiting);
        assert_eq!(judged(2, &[Pinned, Unpinned]), Holding::Waiting, "it has not heard of it yet");
        assert_eq!(judged(1, &[]), Holding::Failed("no peer holds it".into()));
    }
}
