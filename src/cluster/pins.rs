//! pin, unpin, update, and reads of the shared state.

use super::Cluster;
use crate::allocator::{self, Candidate, Request, Weighed};
use crate::api::types::PinOptions;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::state::{Command, Outcome, Pin, PinMode, PinType, Pins};
use crate::tracker::Tracker;
use cid::Cid;
use futures::stream::BoxStream;
use libp2p::PeerId;

/// What ipfs-cluster says when a CID is not pinned; clients look for this very text.
pub(crate) const NOT_PINNED: &str = "pin is not part of the pinset";
/// Origins of a pin that are kept.
const MAX_ORIGINS: usize = 10;

impl Cluster {
    fn pins(&self) -> Pins {
        Pins::new(self.inner.state.clone())
    }

    /// One pin. Read on the executor: it is in the overlay or a few hot pages away.
    pub(super) fn find(&self, cid: &Cid) -> Result<Option<Pin>> {
        self.pins().get(cid)
    }

    /// Pins; answers when committed. The pin as stored, but with the full-precision timestamp.
    ///
    /// # Errors
    /// Bad options, not enough peers, a direct pin over a recursive one, no majority.
    pub async fn pin(&self, cid: Cid, options: PinOptions) -> Result<Pin> {
        self.check_clock(options.expire_at).await?;
        let pin = match self.drafted(cid, &options).await {
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => {
                self.catch_up().await?;
                self.drafted(cid, &options).await?
            }
            drafted => drafted?,
        };
        self.commit(pin).await
    }

    /// Waits until local reads are as fresh as this moment. Before a write is refused, or left out, for what they say:
    /// what another peer acknowledged a moment ago may still be on its way here.
    ///
    /// # Errors
    /// No majority.
    pub async fn catch_up(&self) -> Result<()> {
        self.inner.consensus.read_index().await
    }

    /// The pin to commit, as far as this peer knows.
    async fn drafted(&self, cid: Cid, options: &PinOptions) -> Result<Pin> {
        match options.pin_update {
            Some(source) => self.updated(cid, source, options).await,
            None => self.prepared(cid, options).await,
        }
    }

    /// A new pin that takes everything from `source` but name and expiry (reference F.1).
    async fn updated(&self, cid: Cid, source: Cid, options: &PinOptions) -> Result<Pin> {
        let from = self.find(&source)?.ok_or_else(|| Error::not_found(NOT_PINNED))?;
        if from.kind != PinType::Data {
            return Err(Error::invalid(format!("cannot update from {source}: it is not an ordinary pin")));
        }
        let mut pin = Pin { cid, pin_update: Some(source), timestamp: Timestamp::now(), ..from };
        if !options.name.is_empty() {
            pin.name.clone_from(&options.name);
        }
        if let Some(expiry) = options.expire_at {
            pin.expire_at = expiry;
        }
        check_expiry(&pin)?;
        Ok(pin)
    }

    /// A pin with defaults filled in, checked, and allocated.
    async fn prepared(&self, cid: Cid, options: &PinOptions) -> Result<Pin> {
        let existing = self.find(&cid)?;
        let mut pin = self.described(cid, options)?;
        if existing.as_ref().is_some_and(|e| e.mode == PinMode::Recursive && pin.mode == PinMode::Direct) {
            return Err(Error::conflict(
                "cannot repin a CID which is already pinned in recursive mode (new pin is pinned as direct). Unpin it first.",
            ));
        }
        let current = match &existing {
            Some(existing) => self.holders_to_keep(existing, pin.replication_max).await,
            None => Vec::new(),
        };
        pin.allocations = self.allocate(&pin, &current, &options.user_allocations)?;
        Ok(pin)
    }

    /// A pin with defaults filled in and checked, not allocated yet.
    pub(super) fn described(&self, cid: Cid, options: &PinOptions) -> Result<Pin> {
        let mut pin = Pin::new(cid, Timestamp::now());
        pin.mode = options.mode;
        pin.name.clone_from(&options.name);
        (pin.replication_min, pin.replication_max) = self.factors(options)?;
        pin.metadata.clone_from(&options.metadata);
        pin.expire_at = options.expire_at.unwrap_or(Timestamp::ZERO);
        pin.origins = options.origins.iter().take(MAX_ORIGINS).cloned().collect();
        pin.shard_size = options.shard_size;
        check_expiry(&pin)?;
        Ok(pin)
    }

    /// Replication factors with the defaults for what is 0, validated.
    pub(super) fn factors(&self, options: &PinOptions) -> Result<(i32, i32)> {
        let settings = &self.inner.settings;
        let min =
            if options.replication_min == 0 { settings.replication_min } else { options.replication_min };
        let max =
            if options.replication_max == 0 { settings.replication_max } else { options.replication_max };
        allocator::check_factors(min, max)?;
        Ok((min, max))
    }

    /// Chooses the holders of a pin from the members that have every metric allocation goes by.
    pub(super) fn allocate(
        &self,
        pin: &Pin,
        current: &[PeerId],
        preferred: &[PeerId],
    ) -> Result<Vec<PeerId>> {
        let candidates = self.candidates();
        let (min, max) = (pin.replication_min, pin.replication_max);
        allocator::allocate(&Request { min, max, current, preferred, candidates: &candidates })
    }

    /// The members that may get a pin: alive, not drained, no witnesses, their content at hand, with every metric.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let readings = &self.inner.readings;
        let (monitor, now) = (readings.lock(), readings.now_ms());
        let names = &self.inner.settings.allocate_by;
        self.holder_ids()
            .into_iter()
            .filter(|peer| monitor.reading(crate::monitor::PING, peer, now).is_some())
            .filter(|peer| monitor.reading(crate::monitor::DRAINED, peer, now).is_none())
            .filter(|peer| monitor.reading(crate::monitor::CONTENT_AWAY, peer, now).is_none())
            .filter_map(|peer| {
                let metrics = names
                    .iter()
                    .map(|name| {
                        let r = monitor.reading(name, &peer, now)?;
                        Some(Weighed {
                            weight: r.weight,
                            value: r.value.clone(),
                            partitionable: r.partitionable,
                        })
                    })
                    .collect::<Option<Vec<_>>>()?;
                Some(Candidate { peer, metrics })
            })
            .collect()
    }

    /// Commits a pin and answers it as stored, with the precise time.
    pub(super) async fn commit(&self, pin: Pin) -> Result<Pin> {
        self.inner.consensus.propose(Command::Pin(Box::new(pin.clone()))).await?;
        Ok(pin)
    }

    /// Resolves `/ipfs/…`, `/ipns/…`, `/ipld/…`, then pins.
    ///
    /// # Errors
    /// As [`Cluster::pin`], and what resolving says.
    pub async fn pin_path(&self, path: &str, options: PinOptions) -> Result<Pin> {
        let cid = self.resolve(path).await?;
        self.pin(cid, options).await
    }

    /// The CID that a path stands for.
    ///
    /// # Errors
    /// What resolving says.
    pub async fn resolve(&self, path: &str) -> Result<Cid> {
        // A bare CID needs no IPFS daemon.
        if let Some(cid) =
            path.strip_prefix("/ipfs/").and_then(|rest| rest.trim_end_matches('/').parse().ok())
        {
            return Ok(cid);
        }
        self.inner.ipfs.resolve(path).await
    }

    /// Unpins; the pin as it was.
    ///
    /// # Errors
    /// NotFound `pin is not part of the pinset`; no majority.
    pub async fn unpin(&self, cid: Cid) -> Result<Pin> {
        match self.inner.consensus.propose(Command::Unpin(cid)).await? {
            Outcome::Pin(pin) => Ok(*pin),
            Outcome::Done | Outcome::Moved(_) => {
                Err(Error::internal("unpin was committed without telling the pin it removed"))
            }
        }
    }

    /// Resolves, then unpins.
    ///
    /// # Errors
    /// As [`Cluster::unpin`], and what resolving says.
    pub async fn unpin_path(&self, path: &str) -> Result<Pin> {
        let cid = self.resolve(path).await?;
        self.unpin(cid).await
    }

    /// One pin of the shared state (local read).
    ///
    /// # Errors
    /// NotFound `pin is not part of the pinset`.
    pub async fn allocation(&self, cid: &Cid) -> Result<Pin> {
        self.find(cid)?.ok_or_else(|| Error::not_found(NOT_PINNED))
    }

    /// The shared state, in key order, constant memory.
    pub fn allocations(&self) -> BoxStream<'static, Result<Pin>> {
        self.pins().stream()
    }

    /// Number of pins.
    pub fn count(&self) -> u64 {
        self.pins().count()
    }

    /// This peer's tracker.
    pub(super) fn tracker(&self) -> &Tracker {
        &self.inner.tracker
    }

    /// Proposes the removal of pins that have expired. The leader's task: the members' clocks decide when to propose,
    /// the log decides what is removed.
    pub(super) async fn expire(&self) -> Result<()> {
        let status = self.inner.consensus.status();
        if status.leader != Some(status.raft_id) {
            return Ok(());
        }
        let now = self.time().await;
        let known = *self.inner.next_expiry.lock();
        // A state in which nothing has happened since has the same expiries: an idle board stays idle.
        if known.is_some_and(|(at, next)| at == status.applied && next.is_none_or(|expiry| expiry > now)) {
            return Ok(());
        }
        let (mut pins, mut next) = (self.allocations(), None);
        while let Some(pin) = futures::StreamExt::next(&mut pins).await {
            let pin = pin?;
            if pin.expire_at.is_zero() {
                continue;
            }
            if pin.expire_at <= now {
                self.inner.consensus.propose(Command::Expire(pin.cid, pin.expire_at)).await?;
            }
            next = Some(next.map_or(pin.expire_at, |next: Timestamp| next.min(pin.expire_at)));
        }
        *self.inner.next_expiry.lock() = Some((status.applied, next));
        Ok(())
    }
}

pub(super) fn check_expiry(pin: &Pin) -> Result<()> {
    if !pin.expire_at.is_zero() && pin.expire_at <= Timestamp::now() {
        return Err(Error::invalid("pin.ExpireAt set before current time"));
    }
    Ok(())
}
