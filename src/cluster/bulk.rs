//! Many pins in one request: a list of lines, each a CID or a whole pin, taken a batch at a time.
//!
//! Every line stands for itself: it becomes a pin as `POST /pins/CID` would make it (defaults filled in, checked,
//! allocated), or it is refused with its number and the reason, and the others go on. The pins of a batch are one entry
//! of the log, [`Command::PinMany`], so that a thousand of them cost what one costs: two flushes on a majority. Batches
//! are committed in the order of the lines, a few at a time under way ([`IN_FLIGHT`]); a CID that is in one of those is
//! not sent again before they are done, so that of two lines about one CID the later one wins. A pin that is in
//! the state already, as the line wants it, is left alone: an import that broke off can be repeated from its beginning.
//!
//! What ends an import (no majority, a full disk, a list that is mostly rubbish) is told with the number of the last
//! line before which everything is done. It must never hold more than the batches under way, whatever the length of the
//! list, nor go on reading faster than the majority commits.

use super::Cluster;
use crate::allocator::{self, Candidate, Request};
use crate::api::types::{PinJson, PinOptions};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::runtime;
use crate::state::{Command, Pin, PinMode, PinType};
use bytes::Bytes;
use cid::Cid;
use futures::{Stream, StreamExt};
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of lines in one batch, one long line excepted: what is made of them fits a command of
/// [`Command::MAX_BYTES`] with room for the holders.
const BATCH_BYTES: usize = 256 << 10;
/// Batches whose commit is under way while the next one is read and checked.
const IN_FLIGHT: usize = 4;
/// A list that comes in drops is not held back for longer than this.
const LINGER: Duration = Duration::from_millis(200);
/// Refused lines that are told one by one; more are counted.
pub const MAX_TOLD: usize = 100;
/// Refused lines after which the list is taken for something else than pins.
pub const MAX_REFUSED: u64 = 1_000;
/// What a pin takes in a command besides its line, for each holder.
const HOLDER_BYTES: usize = 48;

/// A line of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// Its text without the end of the line, or why there is none.
    pub text: std::result::Result<Bytes, String>,
}

/// A refused line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its number, from 1.
    pub line: u64,
    /// Why.
    pub error: String,
}

/// What became of a list, as `POST /pins` answers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Lines that are not blank.
    pub lines: u64,
    /// Pins that were not there before.
    pub added: u64,
    /// Pins that were there and are otherwise now.
    pub changed: u64,
    /// Pins that were there just so.
    pub unchanged: u64,
    /// Lines that were refused.
    pub refused: u64,
    /// The first [`MAX_TOLD`] of them.
    pub errors: Vec<Refused>,
}

impl Imported {
    fn add(&mut self, other: Imported) {
        self.lines += other.lines;
        self.added += other.added;
        self.changed += other.changed;
        self.unchanged += other.unchanged;
        self.refused += other.refused;
        let room = MAX_TOLD.saturating_sub(self.errors.len());
        self.errors.extend(other.errors.into_iter().take(room));
    }

    fn refuse(&mut self, line: u64, error: &Error) {
        self.refused += 1;
        if self.errors.len() < MAX_TOLD {
            self.errors.push(Refused { line, error: error.message().to_owned() });
        }
    }

    /// The sentence about what is done, for the error that ended it after the line `upto`.
    fn so_far(&self, upto: u64) -> String {
        if upto == 0 {
            return "nothing of the list was taken".into();
        }
        format!(
            "everything up to line {upto} is done ({} added, {} changed, {} unchanged, {} refused); send the list \
             again, what is there already stays as it is",
            self.added, self.changed, self.unchanged, self.refused
        )
    }
}

/// A pin that may be committed, and where it comes from.
struct Ready {
    line: u64,
    pin: Pin,
    new: bool,
}

/// A pin of which holders must be asked before some of them lose it.
struct Asks {
    ready: Ready,
    existing: Pin,
}

/// A batch, checked.
#[derive(Default)]
struct Checked {
    ready: Vec<Ready>,
    asks: Vec<Asks>,
    /// Whether one of them has an expiry of its own.
    expires: bool,
    told: Imported,
}

/// A batch whose commit is under way.
struct Flight {
    last: u64,
    cids: HashSet<Cid>,
    task: smol::Task<Result<Imported>>,
}

/// Batches under way, in the order of the lines, and what came of those before.
#[derive(Default)]
struct Flights {
    under_way: VecDeque<Flight>,
    total: Imported,
    /// Everything up to this line is done.
    upto: u64,
    failed: Option<Error>,
}

impl Flights {
    /// Waits until at most `left` batches are under way.
    async fn land(&mut self, left: usize) -> Result<()> {
        while self.under_way.len() > left {
            let Some(flight) = self.under_way.pop_front() else { break };
            match flight.task.await {
                Ok(done) => {
                    self.total.add(done);
                    if self.failed.is_none() {
                        self.upto = flight.last;
                    }
                }
                Err(error) => drop(self.failed.get_or_insert(error)),
            }
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn have(&self, checked: &Checked) -> bool {
        checked.cids().any(|cid| self.under_way.iter().any(|flight| flight.cids.contains(cid)))
    }
}

impl Cluster {
    /// Pins everything that the list names; see the module. `options` are for lines that are a CID alone, and for what
    /// a whole pin leaves to the default.
    ///
    /// # Errors
    /// What ended it early, with the last line that is done.
    pub async fn import<S>(&self, lines: S, options: PinOptions) -> Result<Imported>
    where
        S: Stream<Item = Result<Line>> + Unpin,
    {
        if options.pin_update.is_some() {
            return Err(Error::invalid("pin-update is for one pin, a list cannot have it"));
        }
        self.check_clock(options.expire_at).await?;
        self.factors(&options)?;
        // A line is left out when its pin is there already: that must not be one whose removal was acknowledged.
        self.catch_up().await?;
        let mut flights = Flights::default();
        let ended = self.take_all(lines, Arc::new(options), &mut flights).await;
        let landed = flights.land(0).await;
        let Flights { total, upto, .. } = flights;
        let first = total.errors.first().map(|r| format!("line {}: {}", r.line, r.error)).unwrap_or_default();
        match ended.and(landed) {
            Ok(()) if total.refused > 0 && total.refused == total.lines => {
                Err(Error::invalid(format!("none of {} lines is a pin; {first}", total.lines)))
            }
            Ok(()) => Ok(total),
            Err(error) => {
                let told = if first.is_empty() { first } else { format!("; first refused: {first}") };
                Err(Error::new(error.kind(), format!("{}; {}{told}", error.message(), total.so_far(upto))))
            }
        }
    }

    async fn take_all<S>(&self, lines: S, options: Arc<PinOptions>, flights: &mut Flights) -> Result<()>
    where
        S: Stream<Item = Result<Line>> + Unpin,
    {
        let mut reader = Batches { lines, carried: None, done: false };
        let (mut refused, mut clocks) = (0, false);
        while let Some(batch) = reader.next().await? {
            let (last, batch) = (batch.last().map_or(0, |line| line.number), Arc::new(batch));
            let mut checked = self.check_lines(batch.clone(), options.clone()).await?;
            if flights.have(&checked) {
                // What those bring must be seen first.
                flights.land(0).await?;
                checked = self.check_lines(batch, options.clone()).await?;
            }
            if checked.expires && !clocks {
                self.check_clock(Some(Timestamp::now())).await?;
                clocks = true;
            }
            refused += checked.told.refused;
            let cids = checked.cids().copied().collect();
            let cluster = self.clone();
            let task = runtime::spawn(async move { cluster.commit_batch(checked).await });
            flights.under_way.push_back(Flight { last, cids, task });
            if refused >= MAX_REFUSED {
                return Err(Error::invalid(format!(
                    "{refused} lines were refused: this is not a list of pins, one CID or one pin in JSON on each line"
                )));
            }
            flights.land(IN_FLIGHT - 1).await?;
        }
        Ok(())
    }

    /// Reads, looks up, completes and allocates a batch, off the executor.
    async fn check_lines(&self, batch: Arc<Vec<Line>>, options: Arc<PinOptions>) -> Result<Checked> {
        let cluster = self.clone();
        runtime::unblock(move || cluster.check_now(&batch, &options)).await
    }

    fn check_now(&self, batch: &[Line], options: &PinOptions) -> Result<Checked> {
        let (members, candidates) = (self.holder_ids(), self.candidates());
        let mut checked = Checked::default();
        // What earlier lines of this batch bring, by position in `ready`.
        let mut drafted: HashMap<Cid, usize> = HashMap::new();
        for line in batch {
            checked.told.lines += 1;
            let wanted = match &line.text {
                Ok(text) => self.wanted(text, options, &members),
                Err(why) => Err(Error::invalid(why.clone())),
            };
            let pin = match wanted {
                Ok(pin) => pin,
                Err(error) => {
                    checked.told.refuse(line.number, &error);
                    continue;
                }
            };
            let earlier = drafted.get(&pin.cid).map(|at| checked.ready[*at].pin.clone());
            let existing = match earlier {
                Some(earlier) => Some(earlier),
                // Not this line's fault: the state cannot be read.
                None => self.find(&pin.cid)?,
            };
            let (cid, new) = (pin.cid, existing.is_none());
            checked.expires |= !pin.expire_at.is_zero();
            let ready = Ready { line: line.number, pin, new };
            // An earlier line of this batch is about to change it, and what it will be is not known yet.
            let open = checked.asks.iter().any(|asks| asks.ready.pin.cid == cid);
            match settle(ready, existing, open, options, &candidates) {
                Ok(Settled::Unchanged) => checked.told.unchanged += 1,
                Ok(Settled::Ready(ready)) => {
                    drafted.insert(cid, checked.ready.len());
                    checked.ready.push(*ready);
                }
                Ok(Settled::Asks(asks)) => checked.asks.push(*asks),
                Err(error) => checked.told.refuse(line.number, &error),
            }
        }
        Ok(checked)
    }

    /// The pin that a line wants, not allocated yet but for the holders that a whole pin names.
    fn wanted(&self, text: &[u8], options: &PinOptions, members: &[PeerId]) -> Result<Pin> {
        let text = text.trim_ascii();
        if text.first() != Some(&b'{') {
            let bare = text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(text);
            let word = std::str::from_utf8(bare).map_err(|_| Error::invalid("it is no text"))?;
            let cid =
                word.parse().map_err(|e| Error::invalid(format!("{} is not a CID: {e}", shown(word))))?;
            let pin = self.described(cid, options)?;
            pin.check()?;
            return Ok(pin);
        }
        let json: PinJson =
            serde_json::from_slice(text).map_err(|e| Error::invalid(format!("it is not a pin: {e}")))?;
        let mut pin = json.to_pin()?;
        if pin.kind != PinType::Data {
            return Err(Error::invalid(
                "it is a part of sharded content; only `pinfold state import` takes those over, all together",
            ));
        }
        if pin.timestamp.is_zero() {
            pin.timestamp = Timestamp::now();
        }
        let given = PinOptions {
            replication_min: or(pin.replication_min, options.replication_min),
            replication_max: or(pin.replication_max, options.replication_max),
            ..PinOptions::default()
        };
        (pin.replication_min, pin.replication_max) = self.factors(&given)?;
        super::pins::check_expiry(&pin)?;
        // Who is no member, or a witness, cannot hold it; who can keeps it, so that an export comes back as it was.
        pin.allocations.retain(|peer| members.contains(peer));
        if pin.is_everywhere() {
            pin.allocations.clear();
        }
        pin.check()?;
        Ok(pin)
    }

    /// Commits what was checked. A batch that the state refuses as a whole (somebody pinned otherwise meanwhile) is
    /// brought pin by pin.
    async fn commit_batch(&self, checked: Checked) -> Result<Imported> {
        let Checked { mut ready, asks, mut told, .. } = checked;
        let candidates = if asks.is_empty() { Vec::new() } else { self.candidates() };
        for Asks { ready: mut one, existing } in asks {
            let current = self.holders_to_keep(&existing, one.pin.replication_max).await;
            match allocated(&mut one.pin, &current, &[], &candidates) {
                Ok(()) => ready.push(one),
                Err(error) => told.refuse(one.line, &error),
            }
        }
        // Of two lines about one CID the later one wins.
        ready.sort_by_key(|ready| ready.line);
        let mut rest = ready.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            rest = later;
            let pins: Vec<Pin> = now.iter().map(|ready| ready.pin.clone()).collect();
            match self.inner.consensus.propose(Command::PinMany(pins)).await {
                Ok(_) => now.iter().for_each(|ready| told.count(ready)),
                Err(error) if error.kind() == Kind::Conflict => {
                    for ready in now {
                        match self.commit(ready.pin.clone()).await {
                            Ok(_) => told.count(ready),
                            Err(error) if error.kind() == Kind::Conflict => told.refuse(ready.line, &error),
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(told)
    }
}

impl Imported {
    fn count(&mut self, ready: &Ready) {
        match ready.new {
            true => self.added += 1,
            false => self.changed += 1,
        }
    }
}

impl Checked {
    fn cids(&self) -> impl Iterator<Item = &Cid> {
        self.ready.iter().chain(self.asks.iter().map(|asks| &asks.ready)).map(|ready| &ready.pin.cid)
    }
}

/// What is to be done about a pin.
enum Settled {
    Unchanged,
    Ready(Box<Ready>),
    Asks(Box<Asks>),
}

/// Compares a pin with what is there, and allocates it.
fn settle(
    mut ready: Ready,
    existing: Option<Pin>,
    open: bool,
    options: &PinOptions,
    candidates: &[Candidate],
) -> Result<Settled> {
    let pin = &mut ready.pin;
    let Some(existing) = existing else {
        let named = std::mem::take(&mut pin.allocations);
        allocated(pin, &named, &options.user_allocations, candidates)?;
        return Ok(Settled::Ready(Box::new(ready)));
    };
    if existing.mode == PinMode::Recursive && pin.mode == PinMode::Direct {
        return Err(Error::conflict(
            "cannot repin a CID which is already pinned in recursive mode (new pin is pinned as direct). Unpin it first.",
        ));
    }
    let most = usize::try_from(pin.replication_max).unwrap_or(usize::MAX);
    let shrinks = existing.is_everywhere() != pin.is_everywhere() || existing.allocations.len() > most;
    if (shrinks || open) && !pin.is_everywhere() {
        return Ok(Settled::Asks(Box::new(Asks { ready, existing })));
    }
    let named = std::mem::take(&mut pin.allocations);
    let current = if named.is_empty() { existing.allocations.clone() } else { named };
    allocated(pin, &current, &options.user_allocations, candidates)?;
    let same = !open && Pin { timestamp: existing.timestamp, ..pin.clone() }.as_stored() == existing;
    Ok(if same { Settled::Unchanged } else { Settled::Ready(Box::new(ready)) })
}

/// Gives a pin its holders.
fn allocated(
    pin: &mut Pin,
    current: &[PeerId],
    preferred: &[PeerId],
    candidates: &[Candidate],
) -> Result<()> {
    let (min, max) = (pin.replication_min, pin.replication_max);
    pin.allocations = allocator::allocate(&Request { min, max, current, preferred, candidates })?;
    Ok(())
}

/// How many of these fit one command.
fn fitting(ready: &[Ready]) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for one in ready.iter().take(Command::MAX_BATCH) {
        bytes += one.pin.encode().len() + HOLDER_BYTES;
        if count > 0 && bytes > Command::MAX_BYTES / 2 {
            break;
        }
        count += 1;
    }
    count
}

fn or(own: i32, default: i32) -> i32 {
    if own == 0 {
        default
    } else {
        own
    }
}

/// The beginning of a word, for a message.
fn shown(word: &str) -> String {
    const SHOWN: usize = 64;
    let cut: String = word.chars().take(SHOWN).collect();
    if cut.len() < word.len() {
        format!("{cut:?}…")
    } else {
        format!("{cut:?}")
    }
}

/// Gathers lines into batches.
struct Batches<S> {
    lines: S,
    /// A line that did not fit the last batch.
    carried: Option<Line>,
    done: bool,
}

impl<S: Stream<Item = Result<Line>> + Unpin> Batches<S> {
    /// The next batch; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Line>>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        if let Some(line) = self.carried.take() {
            bytes += line.len();
            batch.push(line);
        }
        while !self.done && batch.len() < Command::MAX_BATCH {
            let next = match batch.is_empty() {
                true => self.lines.next().await,
                false => {
                    let linger = async {
                        runtime::sleep(LINGER).await;
                        None
                    };
                    let line = async { Some(self.lines.next().await) };
                    match smol::future::or(line, linger).await {
                        Some(next) => next,
                        None => break,
                    }
                }
            };
            match next.transpose()? {
                None => self.done = true,
                Some(line) if !batch.is_empty() && bytes + line.len() > BATCH_BYTES => {
                    self.carried = Some(line);
                    break;
                }
                Some(line) => {
                    bytes += line.len();
                    batch.push(line);
                }
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

impl Line {
    fn len(&self) -> usize {
        self.text.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests;
