//! Rebalancing, the leader's side: executes what [`Planner`] says, a bounded number of pins at a time.
//!
//! Each copy moves in two steps, like everything here: the taker is added, and the giver dropped when the taker says
//! that it has the content; so there are never fewer copies than before. While it runs, the passes leave the pins
//! that are on their way alone. When it is given up, those stay with one holder more; what that puts above their
//! maximum the next pass trims, preferring those that have the content. A run that is repeated goes on where that one
//! stopped, because it goes by how the copies lie and by nothing else.

use super::jobs::{self, Job};
use super::pass::{Found, Walk, PAGE};
use super::{called, MoveProgress, PeerShare, Shared, View, CALL};
use crate::allocator::rebalance::{Planner, Slot, Swap};
use crate::allocator::repin::{Held, Standing};
use crate::cluster::{rpc, Cluster};
use crate::error::{Error, Result};
use crate::net::rpc::{Access, Call};
use crate::runtime;
use crate::state::{Move, Pins};
use async_channel::Sender;
use cid::Cid;
use futures::stream::BoxStream;
use libp2p::PeerId;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How much can you hold, bytes.
const CAPACITY: &str = "cluster.capacity";
/// Pins that are on their way at once. The trackers of the takers fetch a few at a time; more only wait there.
const WINDOW: usize = 1_000;
/// Between two looks at what has arrived; doubles while nothing does, up to …
const LOOK: Duration = Duration::from_millis(100);
/// … this.
const LOOK_LATE: Duration = Duration::from_secs(2);
/// How long a taker may fail at one pin before that pin stays where it was.
const GIVE_UP: Duration = Duration::from_secs(30);
/// How long our own IPFS node may take to say how much it can hold.
const ASK_IPFS: Duration = Duration::from_secs(5);

/// One pin on its way.
struct Flight {
    swap: Swap,
    before: Vec<PeerId>,
    /// With the taker.
    with: Vec<PeerId>,
    /// Since when its taker does not work on it.
    idle: Option<Instant>,
}

/// The one rebalance of this leader; leaves nothing behind when it is dropped.
struct Running<'a>(&'a Shared);

impl<'a> Running<'a> {
    fn begin(shared: &'a Shared) -> Result<Self> {
        if shared.rebalancing.swap(true, Ordering::SeqCst) {
            return Err(Error::conflict(
                "a rebalance is under way already: wait for its end, or stop it first",
            ));
        }
        Ok(Running(shared))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().clear();
        self.0.rebalancing.store(false, Ordering::SeqCst);
        // Whatever stayed half-way is for the next pass.
        self.0.wake();
    }
}

impl Cluster {
    /// Evens out the copies between the peers, by tags and capacity; with `dry_run`, only says what that would mean.
    /// The stream tells how it goes; dropping it ends the work, and leaves every pin with its copies.
    pub fn rebalance(&self, dry_run: bool) -> BoxStream<'static, Result<MoveProgress>> {
        self.as_stream(move |cluster, tell| async move {
            cluster.follow(&Job::Rebalance { dry_run }, Some(&tell)).await
        })
    }

    /// See [`Cluster::rebalance`]; the leader's side.
    pub(super) async fn even_out(&self, dry_run: bool, tell: &Sender<MoveProgress>) -> Result<MoveProgress> {
        self.can_reallocate()?;
        let shared = &self.inner.repin;
        let _running = Running::begin(shared)?;
        let view = self.fresh_view().await?;
        let mut planner = self.planner(&view).await?;
        let before = planner.slots().to_vec();
        // The whole plan first: it is what a dry run shows, and what progress is measured by.
        let mut progress =
            MoveProgress { total: self.plan(&view, &mut planner.clone()).await?, ..Default::default() };
        if dry_run {
            let mut after = planner;
            self.plan(&view, &mut after).await?;
            progress.peers = self.shares(&before, after.slots());
            progress.message = format!("{} pins would move{}", progress.total, self.left_out(&view));
            progress.done = true;
            return Ok(progress);
        }
        self.execute(&view, &mut planner, &mut progress, tell).await?;
        // The plan may have been off by what users did meanwhile.
        progress.total = progress.moved + progress.failed;
        progress.peers = self.shares(&before, planner.slots());
        progress.done = true;
        progress.message = match progress.left() {
            0 if progress.total == 0 => "the copies are even already".into(),
            0 => format!("{} pins moved, the copies are even", progress.moved),
            left => format!("{} pins moved; {left} stayed where they were", progress.moved),
        };
        progress.message.push_str(&self.left_out(&view));
        log::info!(target: "cluster", "rebalance: {}", progress.message);
        Ok(progress)
    }

    /// Who is there now, and not a moment ago: a board that has just been added is what this is for.
    async fn fresh_view(&self) -> Result<View> {
        let shared = &self.inner.repin;
        *shared.view.lock() = None;
        let began = Instant::now();
        loop {
            if let Some(view) = shared.view.lock().clone() {
                return Ok(view);
            }
            if !self.leads() || began.elapsed() >= CALL {
                return Err(Error::not_leader("this peer has only just begun to lead"));
            }
            runtime::sleep(LOOK).await;
        }
    }

    /// Who takes part, with capacity and copies.
    async fn planner(&self, view: &View) -> Result<Planner> {
        let mut copies: BTreeMap<PeerId, u64> = BTreeMap::new();
        let mut pins = 0;
        let mut walk = Walk::new(self);
        while let Some(page) = walk.page(PAGE, |_| true).await? {
            pins += page.len() as u64;
            for holder in page.iter().flat_map(|pin| &pin.holders) {
                *copies.entry(*holder).or_default() += 1;
            }
        }
        // By space where allocation goes by free space; else all alike.
        let first = self.inner.settings.allocate_by.iter().find(|name| !name.starts_with("tag:"));
        let by_space = first.is_some_and(|name| name == "freespace");
        let slots = view.candidates.iter().map(|candidate| {
            let held = copies.get(&candidate.peer).copied().unwrap_or(0);
            async move {
                let capacity = match by_space {
                    true => self.inner.rpc.call::<_, u64>(candidate.peer, CAPACITY, &(), CALL).await,
                    false => Ok(1),
                };
                let what = |e: Error| {
                    e.context(format!("asking {} for its capacity", called(self, &candidate.peer)))
                };
                Ok(Slot { candidate: candidate.clone(), capacity: capacity.map_err(what)?, copies: held })
            }
        });
        let slots = futures::future::join_all(slots).await.into_iter().collect::<Result<_>>()?;
        Ok(Planner::new(slots, pins))
    }

    /// Plans without doing; how many pins would move.
    async fn plan(&self, view: &View, planner: &mut Planner) -> Result<u64> {
        let mut moves = 0;
        loop {
            let mut walk = Walk::new(self);
            while let Some(page) = walk.page(PAGE, settled(view.clone())).await? {
                moves += page.iter().filter(|pin| planner.consider(&pin.holders).is_some()).count() as u64;
            }
            if !planner.next_round() {
                return Ok(moves);
            }
        }
    }

    async fn execute(
        &self,
        view: &View,
        planner: &mut Planner,
        progress: &mut MoveProgress,
        tell: &Sender<MoveProgress>,
    ) -> Result<()> {
        let mut flights: BTreeMap<Cid, Flight> = BTreeMap::new();
        let (mut walk, mut walking) = (Walk::new(self), true);
        let (mut pause, mut told) = (LOOK, None::<Instant>);
        loop {
            if !self.leads() {
                return Err(Error::not_leader("another peer leads now"));
            }
            while walking && flights.len() <= WINDOW / 2 {
                let Some(page) = walk.page(WINDOW - flights.len(), settled(view.clone())).await? else {
                    // The second round sees what the first has moved, so that has to have landed.
                    walking = !flights.is_empty() || planner.next_round();
                    if walking && flights.is_empty() {
                        walk = Walk::new(self);
                        continue;
                    }
                    break;
                };
                self.take_off(page, planner, &mut flights).await?;
            }
            let landed = self.land(&mut flights, progress).await?;
            progress.coming = flights.len() as u64;
            if flights.is_empty() && !walking {
                return Ok(());
            }
            if landed || told.is_none_or(|at| at.elapsed() >= jobs::TELL) {
                told = Some(Instant::now());
                progress.message = jobs::so_far(progress);
                tell.send(progress.clone()).await.map_err(|_| Error::cancelled("nobody listens any more"))?;
            }
            pause = if landed { LOOK } else { (pause * 2).min(LOOK_LATE) };
            runtime::sleep(pause.min(jobs::TELL)).await;
        }
    }

    /// Adds the takers of a page's pins.
    async fn take_off(
        &self,
        page: Vec<Found>,
        planner: &mut Planner,
        flights: &mut BTreeMap<Cid, Flight>,
    ) -> Result<()> {
        let mut moves = Vec::new();
        for pin in page {
            let Some(swap) = planner.consider(&pin.holders) else { continue };
            let mut with = pin.holders.clone();
            with.push(swap.to);
            moves.push(pin.to(with.clone()));
            flights.insert(pin.cid, Flight { swap, before: pin.holders, with, idle: None });
        }
        // Before they are committed: a pass must not see one of them without knowing whose it is.
        self.inner.repin.busy.lock().extend(moves.iter().map(|m| m.cid));
        self.propose_moves(moves).await.map(|_| ())
    }

    /// Ends what can be ended; whether anything was.
    async fn land(&self, flights: &mut BTreeMap<Cid, Flight>, progress: &mut MoveProgress) -> Result<bool> {
        let mut asked: BTreeMap<PeerId, Vec<Cid>> = BTreeMap::new();
        for (cid, flight) in flights.iter() {
            asked.entry(flight.swap.to).or_default().push(*cid);
        }
        let held = self.held_by(asked).await;
        let pins = Pins::new(self.inner.state.clone());
        let (mut moves, mut over) = (Vec::new(), Vec::new());
        let mut arrived = 0;
        for (cid, flight) in flights.iter_mut() {
            let now = pins.get(cid)?;
            if now.is_none_or(|pin| pin.allocations != flight.with) {
                // A user was faster, or a holder has died: the pin has another fate now.
                progress.failed += 1;
                over.push(*cid);
                continue;
            }
            let says = held.get(&(flight.swap.to, *cid)).copied().unwrap_or(Held::Unknown);
            match says {
                Held::Pinned => {
                    let to = flight.with.iter().filter(|p| **p != flight.swap.from).copied().collect();
                    moves.push(Move { cid: *cid, from: flight.with.clone(), to });
                    arrived += 1;
                    over.push(*cid);
                }
                Held::Coming => flight.idle = None,
                Held::Failed | Held::Unknown => {
                    if flight.idle.get_or_insert_with(Instant::now).elapsed() >= GIVE_UP {
                        moves.push(Move { cid: *cid, from: flight.with.clone(), to: flight.before.clone() });
                        progress.failed += 1;
                        over.push(*cid);
                    }
                }
            }
        }
        self.propose_moves(moves).await?;
        progress.moved += arrived;
        let mut busy = self.inner.repin.busy.lock();
        for cid in &over {
            flights.remove(cid);
            busy.remove(cid);
        }
        Ok(!over.is_empty())
    }

    /// Members that take no part, for a person.
    fn left_out(&self, view: &View) -> String {
        let out = view.standing.keys().filter(|p| !view.candidates.iter().any(|c| c.peer == **p));
        let names: Vec<String> = out.map(|p| called(self, p)).collect();
        match names.is_empty() {
            true => String::new(),
            false => format!(
                "; left out, because they do not answer, are drained or tell no metrics to allocate by: {}",
                names.join(", ")
            ),
        }
    }

    fn shares(&self, before: &[Slot], after: &[Slot]) -> Vec<PeerShare> {
        let rows = before.iter().zip(after).map(|(before, after)| PeerShare {
            peer: before.candidate.peer.to_string(),
            peername: self.peer_name(&before.candidate.peer),
            before: before.copies,
            after: after.copies,
        });
        rows.collect()
    }
}

/// Pins that nothing else is about to move.
fn settled(view: View) -> impl Fn(&Found) -> bool + Send + 'static {
    move |pin| {
        let live = pin.holders.iter().all(|p| view.of(p) == Standing::Live);
        live && pin.holders.len() >= pin.min && pin.holders.len() <= pin.max
    }
}

pub(super) fn register(cluster: &Cluster) {
    rpc::register_one(cluster, CAPACITY, Access::Members, |c, call| Box::pin(serve_capacity(c, call)));
}

async fn serve_capacity(cluster: &Cluster, call: &mut Call) -> Result<()> {
    call.need::<()>().await?;
    let stat = runtime::timeout(ASK_IPFS, "the IPFS daemon", cluster.inner.ipfs.repo_stat()).await?;
    call.send(&stat.storage_max).await
}
