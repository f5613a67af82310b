//! One pass of the leader over all pins: add the holders that are missing, drop those that are too many.
//!
//! Pins are read by pages on the blocking pool, and only those that concern somebody who is not simply there come
//! back from it. Whoever is too many on a page is settled at once: the holders are asked what they have (from their
//! records, not from IPFS), one call per holder and page. What was decided for a page is committed before the next
//! one is read.

use super::{called, View};
use crate::allocator::repin::{grow, settle, Held, Pool, Standing, Subject};
use crate::cluster::{rpc, Cluster};
use crate::error::{Context, Error, Result};
use crate::monitor::liveness::Liveness;
use crate::net::rpc::{Access, Call};
use crate::runtime;
use crate::state::{Command, Move, Outcome, Pin, PinType, MAX_MENTIONS};
use crate::store::Table;
use crate::tracker::TableReader;
use cid::Cid;
use libp2p::PeerId;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// What do you have of these: at most [`PAGE`] CIDs; one byte each.
const HELD: &str = "cluster.held";
/// Pins looked at in one go: one read transaction, one call per holder, one command.
pub(super) const PAGE: usize = Command::MAX_BATCH;
/// First wait while copies are on their way; doubles while nothing ends, up to …
const SOON: Duration = Duration::from_millis(250);
/// … this.
const LATE: Duration = Duration::from_secs(15);
/// After a pass that moved something the next one begins when so many times what it took have passed: the copying
/// needs the board too.
const REST_BUSY: u32 = 4;
/// The same after a pass that found nothing to do.
const REST: u32 = 20;
/// The watch over who lives goes on at least this often while a page is being handled.
const WATCH: Duration = Duration::from_millis(500);
/// How long a holder may take to say what it has of a page; then nobody knows, until the next pass.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the size of a pin, as estimated, is good.
const ESTIMATE: Duration = Duration::from_secs(600);
/// The size of a pin when the IPFS node does not say how much it holds.
const ASSUMED: i64 = 1 << 20;
/// How long our IPFS node may take to say that.
const ASK_IPFS: Duration = Duration::from_secs(5);

/// What a pass found.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    /// Its number, counted as begun; 0: there was none since we lead.
    pub pass: u64,
    /// Pins that got more holders in it.
    pub grown: u64,
    /// Pins that lost holders in it.
    pub settled: u64,
    /// Pins whose copies are on their way.
    pub unsettled: u64,
    /// Pins that have fewer copies than they should, with nobody to hold more.
    pub short: u64,
    /// One of them.
    pub example: Option<Cid>,
    /// By peer that is to be emptied.
    pub left: BTreeMap<PeerId, Left>,
}

/// What is still on a peer that is to be emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Pins.
    pub pins: u64,
    /// Pins that have left it since this peer was started.
    pub moved: u64,
    /// Of these, whose new holders work on them.
    pub coming: u64,
    /// Of these, whose new holders have failed so far.
    pub failed: u64,
    /// Of these, that nobody else can hold.
    pub short: u64,
}

/// When to pass, and what was said about it.
#[derive(Default)]
pub(super) struct Passes {
    /// `None` before the first pass of this leadership.
    last: Option<Last>,
    pause: Duration,
    said_short: Option<(u64, Vec<(PeerId, Option<Standing>)>)>,
    said_old: bool,
    estimate: Option<(Instant, i64)>,
}

struct Last {
    troubles: Vec<(PeerId, Option<Standing>)>,
    candidates: Vec<PeerId>,
    short: bool,
    at: Instant,
    /// When it is worth looking again at what is on its way.
    again: Option<Instant>,
}

impl Passes {
    /// Another peer leads; whether that is news.
    pub(super) fn forget(&mut self) -> bool {
        (self.pause, self.said_short, self.said_old) = (SOON, None, false);
        self.last.take().is_some()
    }

    pub(super) fn is_due(&self, view: &View, asked: bool, now_and_then: Duration) -> bool {
        let Some(last) = &self.last else { return true };
        asked
            || last.troubles != view.troubles()
            || last.short && last.candidates != names(view)
            || last.again.is_some_and(|at| at <= Instant::now())
            || (last.short || view.is_troubled()) && last.at.elapsed() >= now_and_then
    }

    /// Moves have to wait; it is said once.
    pub(super) fn wait_for_upgrade(&mut self, view: &View, why: &Error) {
        if view.is_troubled() && !std::mem::replace(&mut self.said_old, true) {
            log::warn!(target: "cluster", "pins are not moved for now: {why}");
        }
    }

    fn ended(&mut self, view: &View, report: &Report, began: Instant) {
        let moved = report.grown + report.settled > 0;
        self.pause = if moved { SOON } else { (self.pause * 2).clamp(SOON, LATE) };
        let times = if moved { REST_BUSY } else { REST };
        let rest = self.pause.max(began.elapsed() * times);
        self.last = Some(Last {
            troubles: view.troubles(),
            candidates: names(view),
            short: report.short > 0,
            at: Instant::now(),
            again: (report.unsettled > 0).then(|| Instant::now() + rest),
        });
    }

    /// A pass that broke off is repeated soon.
    fn failed(&mut self, view: &View) {
        self.pause = (self.pause * 2).clamp(SOON, LATE);
        let (now, short) = (Instant::now(), self.last.as_ref().is_some_and(|l| l.short));
        self.last = Some(Last {
            troubles: view.troubles(),
            candidates: names(view),
            short,
            at: now,
            again: Some(now + self.pause),
        });
    }
}

fn names(view: &View) -> Vec<PeerId> {
    view.candidates.iter().map(|c| c.peer).collect()
}

/// A pin that may have to move.
pub(super) struct Found {
    pub cid: Cid,
    pub min: usize,
    pub max: usize,
    pub holders: Vec<PeerId>,
}

impl Found {
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject { min: self.min, max: self.max, holders: &self.holders }
    }

    pub(super) fn to(&self, to: Vec<PeerId>) -> Move {
        Move { cid: self.cid, from: self.holders.clone(), to }
    }
}

/// A pin with a number of copies; not one that is everywhere, nor one that no peer ever fetches.
pub(super) fn countable(value: &[u8]) -> Result<Option<Found>> {
    let pin = Pin::decode(value)?;
    if pin.is_everywhere() || pin.kind == PinType::Meta {
        return Ok(None);
    }
    let count = |n: i32| usize::try_from(n).unwrap_or(1).max(1);
    let (min, max) = (count(pin.replication_min), count(pin.replication_max));
    Ok(Some(Found { cid: pin.cid, min, max: max.max(min), holders: pin.allocations }))
}

/// Walks over the pins, one page at a time.
pub(super) struct Walk {
    reader: Option<TableReader>,
}

impl Walk {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Walk { reader: Some(TableReader::new(cluster.inner.state.clone(), Table::Pins)) }
    }

    /// The pins of the next `rows` rows that pass; `None` at the end.
    pub(super) async fn page(
        &mut self,
        rows: usize,
        passes: impl Fn(&Found) -> bool + Send + 'static,
    ) -> Result<Option<Vec<Found>>> {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        let (reader, page) = runtime::unblock(move || {
            let mut page = Vec::new();
            for _ in 0..rows {
                match reader.next_row() {
                    Ok(Some((_, value))) => match countable(&value) {
                        Ok(found) => page.extend(found.filter(&passes)),
                        Err(error) => return (None, Err(error)),
                    },
                    Ok(None) => return (None, Ok(page)),
                    Err(error) => return (None, Err(error)),
                }
            }
            (Some(reader), Ok(page))
        })
        .await;
        self.reader = reader;
        page.map(Some).context("reading the pins")
    }
}

/// Whether a pass has anything to say about a pin.
fn concerns(view: &View, pin: &Found) -> bool {
    let mut staying = 0;
    for holder in &pin.holders {
        match view.of(holder) {
            Standing::Live | Standing::Silent => staying += 1,
            Standing::Gone => {}
            Standing::Leaving | Standing::Expelled => return true,
        }
    }
    pin.holders.len() > pin.max || view.repin && staying < pin.min
}

impl Cluster {
    /// One pass; what comes of it is published, and logged when it is news.
    pub(super) async fn pass(&self, passes: &mut Passes, liveness: &mut Liveness, view: &View) {
        let began = Instant::now();
        let number = self.inner.repin.begin_pass();
        match self.walk(number, passes, liveness, view).await {
            Ok(mut report) => {
                let mut moved = self.inner.repin.moved.lock();
                moved.retain(|peer, _| report.left.contains_key(peer));
                for (peer, left) in &mut report.left {
                    let sum = moved.entry(*peer).or_default();
                    *sum += left.moved;
                    left.moved = *sum;
                }
                drop(moved);
                passes.ended(view, &report, began);
                self.say(passes, view, &report);
                self.inner.repin.publish(report);
            }
            Err(error) => {
                log::warn!(target: "cluster", "pins could not be moved, will try again: {error}");
                passes.failed(view);
            }
        }
    }

    fn say(&self, passes: &mut Passes, view: &View, report: &Report) {
        if report.grown > 0 {
            let trouble = view.troubles().into_iter().filter(|(_, standing)| standing.is_some());
            let names: Vec<String> = trouble.map(|(peer, _)| called(self, &peer)).collect();
            let whose = if names.is_empty() { "peers that are no members".into() } else { names.join(", ") };
            log::info!(target: "cluster", "{} pins get new holders, as copies of {whose} have to be replaced", report.grown);
        }
        if report.settled > 0 {
            log::info!(target: "cluster", "{} pins are held by their new holders", report.settled);
        }
        let news = (report.short, view.troubles());
        match report.example {
            Some(cid) if passes.said_short.as_ref() != Some(&news) => {
                log::error!(
                    target: "cluster",
                    "{} pins have fewer copies than they should, {cid} for one, and there is no further peer for \
                     them: bring the missing peers back or add one (one with all metrics of allocator.balanced.allocate_by)",
                    report.short
                );
                passes.said_short = Some(news);
            }
            None if passes.said_short.take().is_some() => {
                log::info!(target: "cluster", "all pins have a peer for each of their copies again");
            }
            _ => {}
        }
    }

    async fn walk(
        &self,
        number: u64,
        passes: &mut Passes,
        liveness: &mut Liveness,
        first: &View,
    ) -> Result<Report> {
        let mut report = Report { pass: number, ..Report::default() };
        for (peer, standing) in first.standing.iter() {
            if matches!(standing, Standing::Leaving | Standing::Expelled) {
                // Those that nobody is named for are nobody's to be told of.
                report.left.insert(*peer, Left::default());
            }
        }
        let mut pool = Pool::new(first.candidates.clone(), Vec::new());
        let mut walk = Walk::new(self);
        let mut view = first.clone();
        loop {
            if !self.leads() {
                return Err(Error::not_leader("another peer leads now"));
            }
            let filter = view.clone();
            let page = async {
                let Some(mut page) = walk.page(PAGE, move |pin| concerns(&filter, pin)).await? else {
                    return Ok(false);
                };
                if !page.is_empty() {
                    if pool.costs().is_empty() {
                        let costs = self.costs(passes).await;
                        pool = Pool::new(first.candidates.clone(), costs);
                    }
                    let busy = self.inner.repin.busy.lock().clone();
                    page.retain(|pin| !busy.contains(&pin.cid));
                    self.handle(&page, &view, &mut pool, &mut report).await?;
                }
                Ok(true)
            };
            // A holder that takes its time to answer must not look as if we had not watched.
            let watch = async {
                while !liveness.look(self.inner.readings.now_ms()) {
                    runtime::sleep(WATCH).await;
                }
                Err(Error::unavailable("this peer was held up in the middle of it"))
            };
            if !smol::future::or(page, watch).await? {
                return Ok(report);
            }
            view = self.view(liveness);
            *self.inner.repin.view.lock() = Some(view.clone());
        }
    }

    /// Decides about the pins of a page and commits it.
    async fn handle(&self, page: &[Found], view: &View, pool: &mut Pool, report: &mut Report) -> Result<()> {
        let standing = |p: &PeerId| view.of(p);
        let (mut moves, mut asked) = (Vec::new(), Vec::new());
        for pin in page {
            let growth = grow(&pin.subject(), &standing, pool, view.repin);
            if growth.short > 0 {
                report.short += 1;
                report.example.get_or_insert(pin.cid);
            }
            report.note(&pin.holders, |left| match growth.short {
                0 if growth.to.is_some() => left.coming += 1,
                0 => {}
                _ => left.short += 1,
            });
            match growth.to {
                Some(to) => {
                    report.unnote(&pin.holders, &to);
                    moves.push(pin.to(to));
                }
                None if growth.ask => asked.push(pin),
                None => {}
            }
        }
        // On their way, or to be looked at again because a user was faster.
        report.unsettled += moves.len() as u64;
        report.grown += self.propose_moves(moves).await?;
        if asked.is_empty() {
            return Ok(());
        }
        let held = self.ask_held(&asked, view).await;
        let mut moves = Vec::new();
        for pin in asked {
            let says = |p: &PeerId| held.get(&(*p, pin.cid)).copied().unwrap_or(Held::Unknown);
            match settle(&pin.subject(), &standing, pool, &says) {
                Some(to) => {
                    report.unnote(&pin.holders, &to);
                    if to.len() > pin.max || to.iter().any(|p| view.of(p) == Standing::Leaving) {
                        report.unsettled += 1;
                    }
                    moves.push(pin.to(to));
                }
                None => {
                    report.unsettled += 1;
                    let coming = pin.holders.iter().any(|p| says(p) == Held::Coming);
                    for holder in &pin.holders {
                        if let Some(left) = report.left.get_mut(holder) {
                            *if coming { &mut left.coming } else { &mut left.failed } += 1;
                        }
                    }
                }
            }
        }
        report.settled += self.propose_moves(moves).await?;
        Ok(())
    }

    /// Commits moves; how many of them found their pin as it was.
    pub(super) async fn propose_moves(&self, moves: Vec<Move>) -> Result<u64> {
        let mut moved = 0;
        for batch in batches(moves) {
            if let Outcome::Moved(count) = self.inner.consensus.propose(Command::Reallocate(batch)).await? {
                moved += u64::from(count);
            }
        }
        Ok(moved)
    }

    /// By how much one more pin lowers each metric that allocation goes by.
    async fn costs(&self, passes: &mut Passes) -> Vec<i64> {
        let size = match passes.estimate {
            Some((at, size)) if at.elapsed() < ESTIMATE => size,
            _ => {
                let stat = runtime::timeout(ASK_IPFS, "the IPFS daemon", self.inner.ipfs.repo_stat()).await;
                let pins = self.inner.state.count(Table::Local).max(1);
                let size =
                    stat.map_or(ASSUMED, |s| i64::try_from(s.repo_size / pins).unwrap_or(ASSUMED)).max(1);
                passes.estimate = Some((Instant::now(), size));
                size
            }
        };
        let cost = |name: &String| match name.as_str() {
            "freespace" | "reposize" => size,
            "numpin" => 1,
            _ => 0,
        };
        self.inner.settings.allocate_by.iter().map(cost).collect()
    }

    /// What the holders of these pins have of them. Who does not answer is not in it.
    pub(super) async fn ask_held(&self, pins: &[&Found], view: &View) -> HashMap<(PeerId, Cid), Held> {
        let mut by_peer: BTreeMap<PeerId, Vec<Cid>> = BTreeMap::new();
        for pin in pins {
            for holder in &pin.holders {
                if matches!(view.of(holder), Standing::Live | Standing::Leaving) {
                    by_peer.entry(*holder).or_default().push(pin.cid);
                }
            }
        }
        self.held_by(by_peer).await
    }

    /// What these peers have of these pins, at most [`PAGE`] each.
    pub(super) async fn held_by(&self, asked: BTreeMap<PeerId, Vec<Cid>>) -> HashMap<(PeerId, Cid), Held> {
        let asked = asked.into_iter().map(|(peer, cids)| async move {
            let keys: Vec<Vec<u8>> = cids.iter().map(Cid::to_bytes).collect();
            let answer = self.inner.rpc.call::<_, Vec<u8>>(peer, HELD, &keys, ANSWER).await;
            if let Err(error) = &answer {
                log::debug!(target: "cluster", "{} does not say what it has: {error}", called(self, &peer));
            }
            (peer, cids, answer.unwrap_or_default())
        });
        let answers = futures::future::join_all(asked).await;
        let rows = answers.into_iter().flat_map(|(peer, cids, answer)| {
            cids.into_iter().zip(answer).map(move |(cid, code)| ((peer, cid), decode(code)))
        });
        rows.collect()
    }
}

impl Report {
    /// Counts a pin with those of its holders that are to be emptied.
    fn note(&mut self, holders: &[PeerId], mut how: impl FnMut(&mut Left)) {
        for holder in holders {
            if let Some(left) = self.left.get_mut(holder) {
                left.pins += 1;
                how(left);
            }
        }
    }

    /// A pin that was counted has left these holders.
    fn unnote(&mut self, before: &[PeerId], after: &[PeerId]) {
        for holder in before.iter().filter(|p| !after.contains(p)) {
            if let Some(left) = self.left.get_mut(holder) {
                left.pins -= 1;
                left.moved += 1;
            }
        }
    }
}

/// Moves in commands of a size that is taken.
fn batches(moves: Vec<Move>) -> Vec<Vec<Move>> {
    let mut batches: Vec<Vec<Move>> = Vec::new();
    let mut mentions = 0;
    for one in moves {
        let more = one.from.len() + one.to.len();
        match batches.last_mut() {
            Some(batch) if batch.len() < Command::MAX_BATCH && mentions + more <= MAX_MENTIONS => {
                mentions += more;
                batch.push(one);
            }
            _ => {
                mentions = more;
                batches.push(vec![one]);
            }
        }
    }
    batches
}

/// How a peer says it.
fn said(held: Option<bool>) -> u8 {
    match held {
        Some(true) => 1,
        None => 2,
        Some(false) => 3,
    }
}

fn decode(code: u8) -> Held {
    match code {
        1 => Held::Pinned,
        2 => Held::Coming,
        3 => Held::Failed,
        _ => Held::Unknown,
    }
}

pub(super) fn register(cluster: &Cluster) {
    rpc::register_one(cluster, HELD, Access::Members, |c, call| Box::pin(serve_held(c, call)));
}

async fn serve_held(cluster: &Cluster, call: &mut Call) -> Result<()> {
    let keys: Vec<Vec<u8>> = call.need().await?;
    if keys.len() > PAGE {
        return Err(Error::too_large(format!("{} pins asked about at once; {PAGE} are allowed", keys.len())));
    }
    let tracker = cluster.tracker().clone();
    let answer: Result<Vec<u8>> =
        runtime::unblock(move || keys.iter().map(|key| tracker.held(key).map(said)).collect()).await;
    call.send(&answer?).await
}
