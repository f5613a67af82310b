//! The handle: what the rest of the program may ask of consensus.
//!
//! Everything here is asynchronous, bounded in time, and safe to call from anywhere. A change goes to the leader,
//! wherever it is, and is asked again (with the same id, see `proposals`) when the leader changes in between;
//! the caller sees one answer.
//!
//! Its other part: `incoming`, for the network, is what other peers bring and ask.

pub(super) mod incoming;

use super::driver::{Driver, Input};
use super::proposals::{Committed, Reply};
use super::settings::Settings;
use super::shared::Shared;
use super::thread::{self, Mail};
use super::wire::{MemberRequest, MemberRequestKind, ProposeRequest, Wire};
use super::{bootstrap, ConsensusConfig, Start, Status};
use crate::error::{Error, Kind, Result};
use crate::runtime;
use crate::state::{version, Command, Event, Member, Outcome, RaftId, Role};
use crate::store::{LogStore, StateStore};
use libp2p::{Multiaddr, PeerId};
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Weak};
use std::time::{Duration, Instant};

/// Before the leader is asked for a change of members again, unless something changed.
const PAUSE: Duration = Duration::from_millis(25);
/// What an answer may be late beyond its own limit before the pump is taken for hanging.
const GRACE: Duration = Duration::from_secs(2);
/// The longest that stopping may take: one flush of the state.
const STOP: Duration = Duration::from_secs(30);

pub(super) struct Inner {
    config: ConsensusConfig,
    raft_id: RaftId,
    cluster_id: u64,
    pub(super) inbox: mpsc::SyncSender<Mail>,
    shared: Arc<Shared>,
    pub(super) wire: Arc<dyn Wire>,
    state: Arc<dyn StateStore>,
    next_id: AtomicU64,
    streams: AtomicUsize,
}

/// Handle to the running consensus; clone is cheap. Consensus stops when the last handle is gone.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

/// A handle that does not keep consensus alive.
#[derive(Clone)]
pub struct WeakConsensus {
    inner: Weak<Inner>,
}

impl WeakConsensus {
    /// The handle, while consensus runs.
    pub fn upgrade(&self) -> Option<Consensus> {
        self.inner.upgrade().map(|inner| Consensus { inner })
    }
}

/// Where a change goes.
enum Place {
    Here,
    At(Member),
}

impl Consensus {
    /// Starts consensus on these stores: prepares them, then starts the pump's thread. Blocks on the disk.
    ///
    /// # Errors
    /// When the stores fail, are damaged, or hold something else than `start` says.
    pub fn start(
        config: ConsensusConfig,
        start: Start,
        mut log: Box<dyn LogStore>,
        state: Arc<dyn StateStore>,
        wire: Arc<dyn Wire>,
    ) -> Result<Consensus> {
        let (seed, random) = (random()?, random()?);
        let cluster_id = bootstrap::prepare(&start, config.peer_id, &config.name, random, &mut *log, &state)?;
        let raft_id = log.incarnation().raft_id;
        let settings = Settings::new(&config, raft_id, cluster_id, seed);
        let (tick, first_id) = (settings.tick, settings.mix(3));
        let failure = super::storage::Failure::default();
        let driver = Driver::open(settings, log, state.clone(), failure.clone())?;
        let (inbox, mail) = mpsc::sync_channel(thread::INBOX);
        let shared = Arc::new(Shared::new(&driver));
        let inner = Arc::new(Inner {
            config,
            raft_id,
            cluster_id,
            inbox,
            shared: shared.clone(),
            wire,
            state: state.clone(),
            next_id: AtomicU64::new(first_id),
            streams: AtomicUsize::new(0),
        });
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("pinfold-raft".to_owned())
            .spawn(move || thread::run(driver, mail, tick, weak, shared, state, failure))
            .map_err(|e| Error::from_io("starting the consensus thread", &e))?;
        Ok(Consensus { inner })
    }

    /// A handle that does not keep consensus alive.
    pub fn downgrade(&self) -> WeakConsensus {
        WeakConsensus { inner: Arc::downgrade(&self.inner) }
    }

    /// Commits a command: here if we lead, else at the leader, waiting and retrying within the limits.
    /// Returns when a majority has it durably *and this peer has applied it*.
    ///
    /// # Errors
    /// The command's own deterministic error; [`Kind::Unavailable`] without a leader or with full queues;
    /// [`Kind::Timeout`] when it was not committed in time (it may be later); [`Kind::Conflict`] when it was sent to a
    /// leader and nobody can tell any more whether it was committed; [`Kind::Full`] when this peer's disk is
    /// nearly full.
    pub async fn propose(&self, command: Command) -> Result<Outcome> {
        if let (Command::Pin(_) | Command::PinMany(_), Some(why)) = (&command, self.inner.state.full()) {
            return Err(Error::full(why));
        }
        command.check()?;
        self.check_spoken(&command)?;
        let data = command.encode();
        drop(command);
        if data.len() > Command::MAX_BYTES {
            return Err(Error::too_large(format!(
                "the change has {} bytes, more than the limit of {}",
                data.len(),
                Command::MAX_BYTES
            )));
        }
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let (committed, here) = match self.propose_since(id, &data).await {
            // Asked once and refused: it is in no log. This peer was too far behind to say since when.
            (1, Err(error)) if error.kind() == Kind::Conflict => {
                self.read_index().await?;
                self.propose_since(id, &data).await.1?
            }
            (_, result) => result?,
        };
        if !here {
            self.wait_applied(committed.index).await?;
        }
        Ok(committed.outcome)
    }

    /// Asks leaders to commit this, and tells how often it was asked, and whether we were the one to answer.
    async fn propose_since(&self, id: u64, data: &[u8]) -> (usize, Result<(Committed, bool)>) {
        let status = self.status();
        // What is committed came before this proposal.
        let since = (status.cluster_version >= version::PROPOSALS_SAY_SINCE).then_some(status.committed);
        let (retries, pause) = (self.inner.config.commit_retries, self.inner.config.commit_retry_delay);
        let asked = AtomicUsize::new(0);
        let result = self
            .at_leaders(retries, pause, |place, limit| {
                asked.fetch_add(1, Ordering::Relaxed);
                let data = data.to_vec();
                async move {
                    match place {
                        Place::Here => Ok((self.propose_here(id, since, data, limit).await?, true)),
                        Place::At(leader) => {
                            let request =
                                ProposeRequest { cluster_id: self.inner.cluster_id, id, command: data };
                            let answer = self.inner.wire.propose(&leader, since, request, limit).await?;
                            Ok((answer.decode()?, false))
                        }
                    }
                }
            })
            .await;
        (asked.into_inner(), result)
    }

    async fn propose_here(
        &self,
        id: u64,
        since: Option<u64>,
        data: Vec<u8>,
        limit: Duration,
    ) -> Result<Committed> {
        self.ask(limit, "the change", |reply| Input::Propose { id, since, data, reply }).await
    }

    /// Returns when local reads are as fresh as the moment of the call (ReadIndex).
    ///
    /// # Errors
    /// [`Kind::Timeout`] when no leader confirmed it in time.
    pub async fn read_index(&self) -> Result<()> {
        self.ask(self.inner.config.network_timeout, "the read", Input::Read).await
    }

    /// Turns of the driver so far, at least one per tick: a watchdog that sees it stand still knows that the
    /// driver hangs (a disk that does not answer).
    pub fn beats(&self) -> u64 {
        self.inner.shared.beats.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// What Raft thinks now.
    pub fn status(&self) -> Status {
        self.inner.shared.status()
    }

    /// What the log may say, as of what is applied here (see [`version`]).
    pub fn cluster_version(&self) -> u16 {
        self.inner.shared.status().cluster_version
    }

    fn check_spoken(&self, command: &Command) -> Result<()> {
        self.check_version(command.needs())
    }

    /// Refuses what not every member of this cluster would understand.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] until the cluster version is `needed`: what has to be upgraded.
    pub fn check_version(&self, needed: u16) -> Result<()> {
        let spoken = self.cluster_version();
        if needed <= spoken {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "the cluster still speaks version {spoken} and this change needs version {needed}: it becomes possible \
             by itself once every peer runs pinfold {} and is up",
            version::first_release(needed)
        )))
    }

    /// Members as replicated, sorted by peer id.
    pub fn members(&self) -> Vec<Member> {
        self.inner.shared.members().to_vec()
    }

    /// Whether this peer is a member, as far as we know. A peer that has just joined knows nobody yet and takes
    /// everybody for one: they all know the cluster's secret.
    pub fn is_member(&self, peer: &PeerId) -> bool {
        let members = self.inner.shared.members();
        members.is_empty() || members.iter().any(|m| m.peer_id == *peer)
    }

    /// The leader's member record, if known.
    pub fn leader(&self) -> Option<Member> {
        let leader = self.inner.shared.status().leader?;
        self.inner.shared.members().iter().find(|m| m.raft_id == leader).cloned()
    }

    /// Waits until there is a leader.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] after `limit`, with how many voters are connected.
    pub async fn wait_leader(&self, limit: Duration) -> Result<Member> {
        let deadline = Instant::now() + limit;
        loop {
            let watch = self.inner.shared.watch();
            if let Some(error) = self.inner.shared.ended() {
                return Err(error);
            }
            if self.status().removed {
                return Err(removed());
            }
            if let Some(leader) = self.leader() {
                return Ok(leader);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Err(self.no_leader());
            }
            either(watch, rest).await;
        }
    }

    /// Waits until we are a member and have applied what was committed at the time of joining.
    ///
    /// # Errors
    /// [`Kind::Timeout`] or [`Kind::Unavailable`] after `limit`.
    pub async fn wait_ready(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let watch = self.inner.shared.watch();
            let known = self.inner.shared.members().iter().any(|m| m.raft_id == self.inner.raft_id);
            let result = if known {
                self.wait_leader(rest).await?;
                self.ask(rest, "the first read", Input::Read).await
            } else {
                either(watch, rest.min(Duration::from_secs(1))).await;
                Err(Error::timeout(
                    "this peer has not become a member of the cluster in time: no leader has called it",
                ))
            };
            match result {
                Err(error) if error.kind() == Kind::Timeout && Instant::now() < deadline => (),
                result => return result,
            }
            if let Some(error) = self.inner.shared.ended() {
                return Err(error);
            }
        }
    }

    /// Adds (or re-adds under a new Raft id, removing the old one) a member as learner; promoted when caught up.
    /// Forwarded to the leader. Returns the cluster id.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when the Raft id is another peer's or was removed; [`Kind::Unavailable`] for a record that
    /// not every member could read; otherwise as [`Consensus::propose`].
    pub async fn add_member(&self, member: Member) -> Result<u64> {
        self.check_version(member.needs())?;
        let record = member.encode();
        self.at_leader(|place, limit| {
            let (member, record) = (member.clone(), record.clone());
            async move {
                match place {
                    Place::Here => {
                        self.ask(limit, "adding the member", |r| Input::AddMember(Box::new(member), r)).await
                    }
                    Place::At(leader) => {
                        let change = MemberRequestKind::Add(record);
                        let request = MemberRequest { cluster_id: self.inner.cluster_id, change };
                        self.inner.wire.change_members(&leader, request, limit).await
                    }
                }
            }
        })
        .await
    }

    /// Removes a member, ourselves and the leader included. `NotFound` when there is none, `Conflict` for the last one.
    ///
    /// # Errors
    /// These, and as [`Consensus::propose`].
    pub async fn remove_member(&self, peer: PeerId) -> Result<()> {
        let asked = AtomicUsize::new(0);
        let result = self
            .at_leader(|place, limit| {
                asked.fetch_add(1, Ordering::Relaxed);
                async move {
                    match place {
                        Place::Here => {
                            self.ask(limit, "removing the member", |r| Input::RemoveMember(peer, r)).await
                        }
                        Place::At(leader) => {
                            let change = MemberRequestKind::Remove(peer.to_bytes());
                            let request = MemberRequest { cluster_id: self.inner.cluster_id, change };
                            self.inner.wire.change_members(&leader, request, limit).await
                        }
                    }
                }
            })
            .await;
        match result {
            // An earlier try did it, but its answer was lost.
            Err(error) if error.kind() == Kind::NotFound && asked.into_inner() > 1 => Ok(()),
            // We were the one, and learn it from the others before any answer.
            Err(_) if peer == self.inner.config.peer_id && self.status().removed => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Keeps our replicated name, addresses, version and whether we are a witness fresh (proposes only on change). What
    /// the cluster version has no word for yet stays as it is.
    ///
    /// # Errors
    /// As [`Consensus::propose`]; [`Kind::Unavailable`] while we are no member.
    pub async fn update_self(&self, addresses: Vec<Multiaddr>, witness: bool) -> Result<()> {
        let members = self.inner.shared.members();
        let Some(known) = members.iter().find(|m| m.raft_id == self.inner.raft_id) else {
            return Err(Error::unavailable("this peer is not a member of the cluster yet"));
        };
        let mut new = known.clone();
        new.name.clone_from(&self.inner.config.name);
        new.addresses = addresses;
        if self.cluster_version() >= version::MEMBER_VERSIONS {
            new.version = crate::VERSION.to_owned();
        }
        if self.cluster_version() >= version::WITNESS {
            new.witness = witness;
        }
        // As it would be stored: cut to the limits.
        let new = Member::decode(&new.encode())?;
        if new == *known {
            return Ok(());
        }
        self.propose(Command::UpdateMember(new)).await.map(|_| ())
    }

    /// Hands leadership to the most caught-up other voter, if we lead.
    ///
    /// # Errors
    /// [`Kind::Timeout`] when nobody took it within `limit`.
    pub async fn hand_over(&self, limit: Duration) -> Result<()> {
        let us = self.inner.raft_id;
        if self.status().leader != Some(us) {
            return Ok(());
        }
        if !self.inner.shared.members().iter().any(|m| m.raft_id != us && m.role == Role::Voter) {
            return Err(Error::unavailable("there is no other voter that could lead"));
        }
        self.ask(limit, "handing the leadership over", Input::HandOver).await
    }

    /// State changes in log order, from now on. Never loses one; the reader must keep up (bounded, then
    /// [`Event::Replaced`] stands for all that did not fit).
    pub fn events(&self) -> async_channel::Receiver<Event> {
        self.inner.shared.subscribe(true)
    }

    /// The same without what is about single pins: whoever follows the members is not woken for each pin.
    pub fn member_events(&self) -> async_channel::Receiver<Event> {
        self.inner.shared.subscribe(false)
    }

    /// Flushes the state and stops the driver.
    pub async fn stop(&self) {
        let (done, wait) = async_channel::bounded(1);
        let mut mail = Mail::Stop(done);
        let deadline = Instant::now() + STOP;
        while let Err(mpsc::TrySendError::Full(back)) = self.inner.inbox.try_send(mail) {
            if Instant::now() >= deadline {
                return;
            }
            mail = back;
            runtime::sleep(PAUSE).await;
        }
        either(wait, STOP).await;
    }

    // --- inside -----------------------------------------------------------------------------------------------

    /// Tries at the leader until it works, fails for good, or the time is over.
    async fn at_leader<T, F>(&self, attempt: impl Fn(Place, Duration) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.at_leaders(u32::MAX, PAUSE, attempt).await
    }

    /// The same, at no more than `retries` further leaders than the first, asking the same one again after `pause`.
    ///
    /// Only a leader in a term of its own counts: one that cannot be reached is asked until the voters have agreed
    /// on another, or the time is over.
    async fn at_leaders<T, F>(
        &self,
        retries: u32,
        pause: Duration,
        attempt: impl Fn(Place, Duration) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + self.inner.config.network_timeout;
        let (mut asked, mut further, mut lost) = (None, 0, None);
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let leader = self.wait_leader(self.inner.config.wait_for_leader.min(rest)).await?;
            let watch = self.inner.shared.watch();
            let office = Some((leader.raft_id, self.status().term));
            if asked.is_some() && asked != office {
                further += 1;
                if further > retries {
                    return Err(lost.unwrap_or_else(|| self.no_leader()).context(format!(
                        "the change was not committed by {further} leaders one after the other (consensus.raft.commit_retries is {retries})"
                    )));
                }
            }
            asked = office;
            let here = leader.raft_id == self.inner.raft_id;
            let rest = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
            let error = match attempt(if here { Place::Here } else { Place::At(leader) }, rest).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let again = match error.kind() {
                Kind::NotLeader => true,
                // The way to the leader is troubled, or it is: it may be another one soon.
                Kind::Unavailable | Kind::Timeout | Kind::Io | Kind::Cancelled => !here,
                _ => false,
            };
            if !again || self.inner.shared.ended().is_some() {
                return Err(error);
            }
            if Instant::now() >= deadline {
                return Err(match error.kind() {
                    Kind::NotLeader => self.no_leader(),
                    _ => error,
                });
            }
            lost = Some(error);
            either(watch, pause.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
    }

    /// Asks the driver and waits for its answer.
    async fn ask<T>(&self, limit: Duration, what: &str, input: impl FnOnce(Reply<T>) -> Input) -> Result<T> {
        let (reply, answer) = async_channel::bounded(1);
        self.inner.inbox.try_send(Mail::Input(input(reply))).map_err(|e| match e {
            mpsc::TrySendError::Full(_) => Error::unavailable(format!(
                "{} requests are already waiting for consensus: try again later",
                thread::INBOX
            )),
            mpsc::TrySendError::Disconnected(_) => self.ended(),
        })?;
        let wait = async { answer.recv().await.unwrap_or_else(|_| Err(self.ended())) };
        runtime::timeout(limit + GRACE, what, wait).await
    }

    async fn wait_applied(&self, index: u64) -> Result<()> {
        if self.status().applied >= index {
            return Ok(());
        }
        let limit = self.inner.config.network_timeout;
        let wait = self.ask(limit, "applying the committed change here", |r| Input::WaitApplied(index, r));
        match wait.await {
            Err(e) if e.kind() == Kind::Timeout => Err(Error::timeout(format!(
                "the change is committed (entry {index}), but this peer has not caught up to it within {limit:?}"
            ))),
            result => result,
        }
    }

    fn post(&self, input: Input) {
        let _ = self.inner.inbox.try_send(Mail::Input(input));
    }

    fn ended(&self) -> Error {
        self.inner
            .shared
            .ended()
            .unwrap_or_else(|| Error::unavailable("consensus is not running on this peer"))
    }

    fn no_leader(&self) -> Error {
        let members = self.inner.shared.members();
        let there = |m: &Member| m.raft_id == self.inner.raft_id || self.inner.wire.is_connected(&m.peer_id);
        let voters: Vec<&Member> = members.iter().filter(|m| m.role == Role::Voter).collect();
        let away: Vec<String> = voters
            .iter()
            .filter(|m| !there(m))
            .map(|m| if m.name.is_empty() { m.peer_id.to_string() } else { m.name.clone() })
            .collect();
        let mut words = match voters.len() {
            0 => {
                "timed out waiting for leader: this peer does not know the members of the cluster yet".into()
            }
            all => format!(
                "timed out waiting for leader: {} of {all} voters are connected, {} are needed",
                all - away.len(),
                all / 2 + 1
            ),
        };
        if !away.is_empty() {
            words.push_str(&format!("; missing: {}", away.join(", ")));
        }
        Error::unavailable(words)
    }
}

fn removed() -> Error {
    Error::unavailable(
        "this peer was removed from the cluster: run `pinfold state cleanup` and join again to become a member",
    )
}

/// Waits until the channel closes or the time is over.
async fn either(closed: async_channel::Receiver<()>, limit: Duration) {
    let closes = async {
        let _ = closed.recv().await;
    };
    smol::future::or(closes, runtime::sleep(limit)).await;
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::io(format!("the operating system gives no random numbers: {e}")))?;
    Ok(u64::from_be_bytes(bytes))
}
