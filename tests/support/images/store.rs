//! The cluster's two stores: a workload of all that the consensus driver does with them, and what must hold after it
//! is cut anywhere.
//!
//! The workload is planned from a seed beforehand, so that parent and child know every version of log and state there
//! will ever be. The child says which version it begins to write and which was acknowledged; between the two lies
//! what an image may show. A log version is one `append`; a state version is one flush, install or snapshot.

use super::disk::{Disk, Random};
use super::search::{Contract, Failure, Report, Search, Verdict};
use super::trace::{Child, Event, Recording};
use cid::Cid;
use libp2p::PeerId;
use pinfold::clock::Timestamp;
use pinfold::consensus::{bootstrap, driver::Driver, settings::Settings, ConsensusConfig, Start};
use pinfold::ipfs::unixfs::hash::{cid_of, RAW};
use pinfold::state::{version, Applied, Command, Machine, Member, Pin, Pins, Role};
use pinfold::store::memory::MemoryState;
use pinfold::store::{
    open_log, open_state, LmdbLog, LmdbState, LogBatch, LogStore, Options, StateStore, Table,
};
use raft::eraftpb::{ConfState, Entry, HardState};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Small maps, so that they grow; the disk is not looked at.
pub const OPTIONS: Options = Options { map_size: 256 << 10, map_limit: 1 << 30, reserve: 0 };
/// CIDs that the workload knows.
const CIDS: u64 = 150;
/// Steps of one workload.
const STEPS: usize = 110;
/// Changes of the disk of which it is certain that they come before the founding is over.
const FOUNDING: u64 = 20;

type PinMap = Arc<BTreeMap<Vec<u8>, Pin>>;
type Rows = Arc<BTreeMap<Vec<u8>, Vec<u8>>>;

/// Term, vote, commit.
type Hard = (u64, u64, u64);

/// The log as one append left it.
#[derive(Clone)]
struct LogVersion {
    cluster_id: u64,
    /// Where the log began when it was last emptied.
    start: Applied,
    /// Everything since, with what was forgotten later.
    entries: Arc<Vec<Entry>>,
    /// Up to here it may have been forgotten.
    mark: u64,
    hard: Hard,
    /// Up to here entries are never replaced.
    committed: u64,
}

impl LogVersion {
    fn last(&self) -> u64 {
        self.start.index + self.entries.len() as u64
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.start.index + 1)?).ok()?)
    }
}

/// The state as one flush left it.
#[derive(Clone)]
struct StateVersion {
    applied: Applied,
    pins: PinMap,
    local: Rows,
    digest: u128,
    /// An installed snapshot, ahead of the log until this version of it is written.
    needs_log: Option<usize>,
}

/// A snapshot to be installed.
struct Given {
    store: MemoryState,
    applied: Applied,
}

enum Step {
    Append(LogBatch),
    Apply(u64),
    Local(Vec<u8>, Option<Vec<u8>>),
    Flush,
    /// The state is flushed while the log goes on, as in the product.
    FlushBeside(Vec<LogBatch>),
    Truncate(u64),
    Install(Given, LogBatch),
    /// Give a snapshot to somebody.
    Give,
    /// Stop without a flush, and start.
    Reopen,
}

/// What will be done, and every version that it makes.
pub struct Plan {
    raft_id: u64,
    cluster_id: u64,
    steps: Vec<(Step, Marks)>,
    logs: Vec<LogVersion>,
    states: Vec<StateVersion>,
    /// The state at each committed index.
    history: BTreeMap<u64, (PinMap, u128)>,
}

/// The first versions that a step makes.
#[derive(Clone, Copy)]
struct Marks {
    log: usize,
    state: usize,
    /// Whether a flush has anything to write.
    dirty: bool,
}

/// The one peer of the workload.
pub fn peer() -> PeerId {
    PeerId::from_multihash(libp2p::multihash::Multihash::wrap(0, b"the peer of the images").expect("short"))
        .expect("an identity hash is a peer id")
}

fn member(raft_id: u64) -> Member {
    Member {
        raft_id,
        peer_id: peer(),
        name: "images".into(),
        addresses: Vec::new(),
        role: Role::Voter,
        version: pinfold::VERSION.into(),
        witness: false,
    }
}

/// The usual settings.
fn consensus() -> ConsensusConfig {
    ConsensusConfig {
        peer_id: peer(),
        name: "images".into(),
        heartbeat: Duration::from_millis(100),
        election: Duration::from_millis(300),
        wait_for_leader: Duration::from_secs(1),
        network_timeout: Duration::from_secs(10),
        commit_retries: 1,
        commit_retry_delay: Duration::from_millis(200),
        commit_timeout: Duration::from_millis(50),
        lease: Duration::from_millis(500),
        max_append_entries: 64,
        trailing_logs: 100,
        snapshot_threshold: 1_000,
        snapshot_interval: Duration::from_secs(120),
        max_voters: 7,
    }
}

fn cid(n: u64) -> Cid {
    cid_of(1, RAW, &n.to_be_bytes())
}

fn pin(random: &mut Random) -> Pin {
    let mut pin =
        Pin::new(cid(random.below(CIDS)), Timestamp::from_unix_nanos(1_000_000_000 * 1_700_000_000));
    pin.name = format!("pin {}", random.below(1_000));
    let bytes = match random.below(12) {
        // Overflow pages.
        0 => 2_000 + random.below(9_000),
        1 | 2 => random.below(600),
        _ => 0,
    };
    if bytes > 0 {
        pin.metadata.insert("text".into(), "m".repeat(bytes as usize));
    }
    pin
}

fn command(random: &mut Random) -> Vec<u8> {
    match random.below(14) {
        0 => Vec::new(),
        1 => b"\x01no command".to_vec(),
        2..=4 => Command::Unpin(cid(random.below(CIDS))).encode(),
        5 => Command::PinMany((0..2 + random.below(30)).map(|_| pin(random)).collect()).encode(),
        _ => Command::Pin(Box::new(pin(random))).encode(),
    }
}

/// The plain model: what a command does to the pins.
fn apply_plain(pins: &mut BTreeMap<Vec<u8>, Pin>, bytes: &[u8]) {
    let put = |pins: &mut BTreeMap<Vec<u8>, Pin>, pin: Pin| pins.insert(pin.cid.to_bytes(), pin);
    match Command::decode(bytes) {
        Ok(Command::Pin(pin)) => drop(put(pins, *pin)),
        Ok(Command::PinMany(many)) => many.into_iter().for_each(|pin| drop(put(pins, pin))),
        Ok(Command::Unpin(cid)) => drop(pins.remove(&cid.to_bytes())),
        _ => {}
    }
}

/// The planner: the model of both stores as it goes.
struct Planner {
    random: Random,
    plan: Plan,
    log: LogVersion,
    term: u64,
    applied: Applied,
    pins: PinMap,
    local: Rows,
    dirty: bool,
    machine: Machine,
    reference: Arc<MemoryState>,
}

impl Plan {
    /// The plan of a seed, for the peer with this Raft id.
    pub fn new(seed: u64, raft_id: u64) -> Plan {
        Plan::of(seed, raft_id, STEPS)
    }

    /// The same with another number of steps.
    pub fn of(seed: u64, raft_id: u64, steps: usize) -> Plan {
        let cluster_id = seed | 1;
        let reference = Arc::new(MemoryState::new());
        let mut machine = Machine::open(reference.clone()).expect("memory");
        let founded = Applied { index: 1, term: 1 };
        let conf = ConfState { voters: vec![raft_id], ..ConfState::default() };
        machine.found(founded, &[member(raft_id)], &conf, version::SPOKEN).expect("memory");
        let (pins, rows) = (PinMap::default(), Rows::default());
        let empty = LogVersion {
            cluster_id: 0,
            start: Applied::default(),
            entries: Arc::default(),
            mark: 0,
            hard: (0, 0, 0),
            committed: 0,
        };
        let named = LogVersion { cluster_id, ..empty.clone() };
        let log = LogVersion { start: founded, mark: 1, hard: (1, 0, 1), committed: 1, ..named.clone() };
        let state = |applied, digest, needs_log| StateVersion {
            applied,
            pins: pins.clone(),
            local: rows.clone(),
            digest,
            needs_log,
        };
        let plan = Plan {
            raft_id,
            cluster_id,
            steps: Vec::new(),
            logs: vec![empty, named, log.clone()],
            states: vec![state(Applied::default(), 0, None), state(founded, machine.digest(), Some(2))],
            history: BTreeMap::from([(1, (pins.clone(), machine.digest()))]),
        };
        let mut planner = Planner {
            random: Random::new(seed),
            plan,
            log,
            term: 1,
            applied: founded,
            pins,
            local: rows,
            dirty: false,
            machine,
            reference,
        };
        for _ in 0..steps {
            planner.step();
        }
        planner.plan
    }
}

impl Planner {
    fn step(&mut self) {
        let marks = Marks { log: self.plan.logs.len(), state: self.plan.states.len(), dirty: self.dirty };
        let step = match self.random.below(30) {
            0..=11 => Step::Append(self.append()),
            12..=17 => self.apply(),
            18 | 19 => self.local(),
            20 | 21 => {
                self.flushed(None);
                Step::Flush
            }
            22 | 23 => {
                self.flushed(None);
                Step::FlushBeside((0..1 + self.random.below(3)).map(|_| self.append()).collect())
            }
            24 | 25 => self.truncate(),
            26 => self.install(),
            27 => {
                self.flushed(None);
                Step::Give
            }
            28 => self.reopen(),
            _ => Step::Append(self.vote()),
        };
        self.plan.steps.push((step, marks));
    }

    fn batch(&mut self, entries: Vec<Entry>, hard: bool, reset_to: Option<Applied>) -> LogBatch {
        if hard {
            self.log.hard = (self.term, 1 + self.random.below(3), self.log.committed);
        }
        let (term, vote, commit) = self.log.hard;
        let hard_state = hard.then(|| HardState { term, vote, commit, ..HardState::default() });
        self.plan.logs.push(self.log.clone());
        LogBatch { entries, hard_state, reset_to }
    }

    /// Entries at the end, or a new leader's in place of what was not committed.
    fn append(&mut self) -> LogBatch {
        let last = self.log.last();
        let mut first = last + 1;
        if last > self.log.committed && self.random.one_in(4) {
            first = self.log.committed + 1 + self.random.below(last - self.log.committed);
            self.term += 1;
        }
        let n = if self.random.one_in(15) { 25 } else { 1 + self.random.below(5) };
        let entries: Vec<Entry> = (first..first + n)
            .map(|index| {
                let mut entry = Entry { index, term: self.term, ..Entry::default() };
                entry.data = command(&mut self.random).into();
                entry
            })
            .collect();
        let kept = Arc::make_mut(&mut self.log.entries);
        kept.truncate((first - self.log.start.index - 1) as usize);
        kept.extend(entries.iter().cloned());
        let hard = self.random.one_in(2) || first <= last;
        self.batch(entries, hard, None)
    }

    /// A hard state alone.
    fn vote(&mut self) -> LogBatch {
        self.term += 1;
        self.batch(Vec::new(), true, None)
    }

    fn apply(&mut self) -> Step {
        let last = self.log.last();
        let upto = self.applied.index + self.random.below(last + 1 - self.applied.index);
        for index in self.applied.index + 1..=upto {
            let entry = self.log.entry(index).expect("applied entries are in the log").clone();
            self.applied = Applied { index, term: entry.term };
            let _ = self.machine.apply_bytes(self.applied, &entry.data).expect("memory");
            apply_plain(Arc::make_mut(&mut self.pins), &entry.data);
            self.plan.history.insert(index, (self.pins.clone(), self.machine.digest()));
            self.dirty = true;
        }
        self.log.committed = self.log.committed.max(upto);
        Step::Apply(upto)
    }

    fn local(&mut self) -> Step {
        let key = format!("record {}", self.random.below(20)).into_bytes();
        let value = (!self.random.one_in(4)).then(|| vec![7; 1 + self.random.below(300) as usize]);
        let rows = Arc::make_mut(&mut self.local);
        match &value {
            Some(value) => rows.insert(key.clone(), value.clone()),
            None => rows.remove(&key),
        };
        self.dirty = true;
        Step::Local(key, value)
    }

    fn flushed(&mut self, needs_log: Option<usize>) {
        if self.dirty || needs_log.is_some() {
            let (pins, local) = (self.pins.clone(), self.local.clone());
            let digest = self.machine.digest();
            self.plan.states.push(StateVersion { applied: self.applied, pins, local, digest, needs_log });
        }
        self.dirty = false;
    }

    /// Below what the state has durably applied.
    fn truncate(&mut self) -> Step {
        let durable = self.plan.states.last().expect("there is one").applied.index;
        let index = self.log.mark + self.random.below(durable.saturating_sub(self.log.mark) + 1);
        self.log.mark = self.log.mark.max(index);
        Step::Truncate(index)
    }

    fn install(&mut self) -> Step {
        self.term += 1;
        let applied = Applied { index: self.log.last() + 1 + self.random.below(30), term: self.term };
        let n = self.random.below(80);
        let given: BTreeMap<Vec<u8>, Pin> =
            (0..n).map(|_| pin(&mut self.random)).map(|pin| (pin.cid.to_bytes(), pin)).collect();
        let store = MemoryState::new();
        let conf = ConfState { voters: vec![self.plan.raft_id], ..ConfState::default() };
        let us = [member(self.plan.raft_id)];
        let pins = given.values().cloned().map(Ok);
        pinfold::state::seed(&store, pins, &us, &conf, version::SPOKEN, applied).expect("memory");
        hand_over(&store, &*self.reference, applied).expect("memory");
        self.machine.reload().expect("memory");
        (self.applied, self.pins) = (applied, Arc::new(given));
        self.plan.history.insert(applied.index, (self.pins.clone(), self.machine.digest()));
        self.flushed(Some(self.plan.logs.len()));
        self.log.start = applied;
        (self.log.mark, self.log.committed) = (applied.index, applied.index);
        self.log.entries = Arc::default();
        let batch = self.batch(Vec::new(), true, Some(applied));
        Step::Install(Given { store, applied }, batch)
    }

    /// What was not flushed is applied again; local records since then are gone.
    fn reopen(&mut self) -> Step {
        let durable = self.plan.states.last().expect("there is one");
        self.local = durable.local.clone();
        self.dirty = durable.applied != self.applied;
        Step::Reopen
    }
}

/// Gives a state to a store as a snapshot, chunk by chunk.
fn hand_over(from: &dyn StateStore, to: &dyn StateStore, applied: Applied) -> pinfold::Result<()> {
    let (mut source, mut sink) = (from.snapshot()?, to.begin_install()?);
    loop {
        let rows = source.next(4_000)?;
        if rows.is_empty() {
            return to.install(sink, applied);
        }
        sink.put(rows)?;
    }
}

/// The stores as the child has them open.
pub struct Live {
    log: LmdbLog,
    state: Arc<LmdbState>,
    machine: Machine,
}

fn open_both(root: &Path) -> pinfold::Result<(LmdbLog, LmdbState)> {
    let data = root.join("raft");
    Ok((open_log(&data.join("log"), &OPTIONS)?, open_state(&data.join("state"), &OPTIONS)?))
}

impl Live {
    /// A first start: the stores are made and a cluster of one is founded.
    pub fn found(root: &Path, cluster_id: u64, say: &dyn Fn(String)) -> pinfold::Result<Live> {
        let (mut log, state) = open_both(root)?;
        say(format!("opened {}", log.incarnation().raft_id));
        let state = Arc::new(state);
        let shared: Arc<dyn StateStore> = state.clone();
        bootstrap::prepare(&Start::Found, peer(), "images", cluster_id, &mut log, &shared)?;
        say("founded".into());
        Ok(Live { log, machine: Machine::open(shared)?, state })
    }

    fn again(root: &Path) -> pinfold::Result<Live> {
        let (mut log, state) = open_both(root)?;
        let state = Arc::new(state);
        let shared: Arc<dyn StateStore> = state.clone();
        bootstrap::prepare(&Start::Restart, peer(), "images", 0, &mut log, &shared)?;
        Ok(Live { log, machine: Machine::open(shared)?, state })
    }

    /// Our Raft id.
    pub fn raft_id(&self) -> u64 {
        self.log.incarnation().raft_id
    }

    fn apply(&mut self, upto: u64) -> pinfold::Result<()> {
        let from = self.machine.applied().index + 1;
        if from > upto {
            return Ok(());
        }
        for entry in self.log.entries(from, upto + 1, u64::MAX)? {
            let at = Applied { index: entry.index, term: entry.term };
            // A refused command is an answer; the outer error is ours.
            let _ = self.machine.apply_bytes(at, &entry.data)?;
        }
        Ok(())
    }

    /// Does the plan, saying what begins and what is acknowledged.
    ///
    /// # Errors
    /// The first error of the stores; nothing after it was done.
    pub fn work(
        slot: &mut Option<Live>,
        root: &Path,
        plan: &Plan,
        say: &(dyn Fn(String) + Sync),
    ) -> pinfold::Result<()> {
        for (step, marks) in &plan.steps {
            if let Step::Reopen = step {
                let applied = slot.take().map_or(0, |live| live.machine.applied().index);
                slot.insert(Live::again(root)?).apply(applied)?;
                continue;
            }
            let live = slot.as_mut().expect("only a failed start leaves none");
            let flush = |state: &LmdbState| {
                if marks.dirty {
                    say(format!("S{}", marks.state));
                }
                state.flush()?;
                if marks.dirty {
                    say(format!("s{}", marks.state));
                }
                Ok::<_, pinfold::Error>(())
            };
            let append = |log: &mut LmdbLog, batch: &LogBatch, version: usize| {
                say(format!("L{version}"));
                log.append(batch.clone())?;
                say(format!("l{version}"));
                Ok::<_, pinfold::Error>(())
            };
            match step {
                Step::Append(batch) => append(&mut live.log, batch, marks.log)?,
                Step::Apply(upto) => live.apply(*upto)?,
                Step::Local(key, value) => {
                    let writes = vec![(Table::Local, key.clone(), value.clone())];
                    live.state.write(pinfold::store::WriteBatch { writes, applied: None })?;
                }
                Step::Flush => flush(&live.state)?,
                Step::FlushBeside(batches) => std::thread::scope(|scope| {
                    let beside = scope.spawn(|| flush(&live.state));
                    let mut appended = Ok(());
                    for (version, batch) in (marks.log..).zip(batches) {
                        appended = appended.and_then(|()| append(&mut live.log, batch, version));
                    }
                    beside.join().expect("no panic in a flush")?;
                    appended
                })?,
                Step::Truncate(index) => live.log.truncate(*index)?,
                Step::Install(given, batch) => {
                    say(format!("S{}", marks.state));
                    hand_over(&given.store, &*live.state, given.applied)?;
                    say(format!("s{}", marks.state));
                    live.machine.reload()?;
                    append(&mut live.log, batch, marks.log)?;
                }
                Step::Give => {
                    if marks.dirty {
                        say(format!("S{}", marks.state));
                    }
                    let mut source = live.state.snapshot()?;
                    if marks.dirty {
                        say(format!("s{}", marks.state));
                    }
                    while !source.next(50_000)?.is_empty() {}
                }
                Step::Reopen => {}
            }
        }
        Ok(())
    }

    /// Whether what reads show after an error is one state, whole; that the disk refuses is no wrong answer.
    ///
    /// # Errors
    /// Rows that do not belong together.
    pub fn reads_well(&self) -> Result<(), String> {
        let shared: Arc<dyn StateStore> = self.state.clone();
        match Machine::open(shared).and_then(|machine| machine.verify()) {
            Err(error) if error.message().contains("digest") => return Err(error.to_string()),
            Ok(()) | Err(_) => {}
        }
        let (first, last) = (self.log.first_index(), self.log.last_index());
        if last >= first {
            if let Ok(entries) = self.log.entries(first, last + 1, u64::MAX) {
                if entries.len() as u64 != last + 1 - first {
                    return Err(format!("{} entries of {first}..={last}", entries.len()));
                }
            }
        }
        Ok(())
    }
}

/// What the child has said.
#[derive(Clone, Debug, Default)]
pub struct Known {
    opened: bool,
    founded: bool,
    /// Acknowledged and begun.
    log: (usize, usize),
    state: (usize, usize),
    marks: u64,
}

/// See [`Contract`].
pub struct Stores {
    plan: Plan,
}

impl Stores {
    /// The contract of a plan.
    pub fn new(plan: Plan) -> Stores {
        Stores { plan }
    }

    /// The versions that lie in a folder, and the open stores.
    ///
    /// # Errors
    /// What does not fit.
    fn find(
        &self,
        folder: &Path,
        known: &Known,
    ) -> Result<Option<(usize, usize, LmdbLog, Arc<LmdbState>)>, String> {
        let (log, state) = match open_both(folder) {
            Ok(stores) => stores,
            Err(error) if !known.opened => {
                let sentence = error.message().to_string();
                return if sentence.len() > 10 {
                    Ok(None)
                } else {
                    Err(format!("no sentence: {sentence:?}"))
                };
            }
            Err(error) => return Err(format!("refused: {error}")),
        };
        if !known.opened {
            // Whatever it is, it is fresh.
            return match (log.last_index(), state.applied().index) {
                (0, 0) => Ok(Some((0, 0, log, Arc::new(state)))),
                found => Err(format!("not fresh before it was ever opened: {found:?}")),
            };
        }
        let raft_id = log.incarnation().raft_id;
        if raft_id != self.plan.raft_id {
            return Err(format!("the Raft id is {raft_id} and was {}", self.plan.raft_id));
        }
        let l = self.log_version(&log, known)?;
        let state = Arc::new(state);
        let s = self.state_version(&state, known)?;
        let (first, last, applied) = (log.first_index(), log.last_index(), state.applied().index);
        if first > applied + 1 {
            return Err(format!("the log begins at {first}, the state ends at {applied}"));
        }
        let ahead = self.plan.states[s].needs_log.is_some_and(|needed| needed > l);
        if applied > last && !ahead {
            return Err(format!("the state has applied {applied}, the log ends at {last}"));
        }
        Ok(Some((l, s, log, state)))
    }

    fn log_version(&self, log: &LmdbLog, known: &Known) -> Result<usize, String> {
        let (first, last) = (log.first_index(), log.last_index());
        let entries = if last < first {
            Vec::new()
        } else {
            log.entries(first, last + 1, u64::MAX).map_err(|e| format!("the log: {e}"))?
        };
        let hard = log.hard_state().map_err(|e| format!("the hard state: {e}"))?;
        let hard = (hard.term, hard.vote, hard.commit);
        let cluster_id = log.incarnation().cluster_id;
        let mut why = String::new();
        for version in (known.log.0..=known.log.1).rev() {
            let wanted = &self.plan.logs[version];
            let same = |entry: &Entry| {
                let known = wanted.entry(entry.index);
                known.is_some_and(|k| (k.term, &k.data) == (entry.term, &entry.data))
            };
            let wrong = entries.iter().find(|entry| !same(entry)).map(|entry| entry.index);
            let complete = first + entries.len() as u64 == last + 1;
            if wanted.cluster_id != cluster_id {
                why += &format!("; {version}: cluster {cluster_id}, not {}", wanted.cluster_id);
            } else if hard != wanted.hard {
                why += &format!("; {version}: hard state {hard:?}, not {:?}", wanted.hard);
            } else if last != wanted.last() || !complete {
                why += &format!("; {version}: {first}..={last}, not to {}", wanted.last());
            } else if let Some(index) = wrong {
                why += &format!("; {version}: entry {index} is another");
            } else if first > wanted.mark + 1 || first < wanted.start.index + 1 {
                why += &format!("; {version}: begins at {first}, not up to {}", wanted.mark + 1);
            } else {
                return Ok(version);
            }
        }
        Err(format!("the log is none of the versions {:?}{why}", known.log))
    }

    fn state_version(&self, state: &Arc<LmdbState>, known: &Known) -> Result<usize, String> {
        let broken = |e: pinfold::Error| format!("the state: {e}");
        let applied = state.applied();
        let shared: Arc<dyn StateStore> = state.clone();
        let pins = all_pins(&shared)?;
        let local = state.scan(Table::Local, None, 10_000).map_err(broken)?;
        let counts = (state.count(Table::Pins), state.count(Table::Local));
        if counts != (pins.len() as u64, local.len() as u64) {
            return Err(format!("{counts:?} are counted, {} and {} are there", pins.len(), local.len()));
        }
        let digest = digest(&**state)?;
        let local: BTreeMap<_, _> = local.into_iter().collect();
        let mut why = String::new();
        for version in (known.state.0..=known.state.1).rev() {
            let wanted = &self.plan.states[version];
            if wanted.applied != applied {
                why += &format!("; {version}: {applied:?}, not {:?}", wanted.applied);
            } else if *wanted.pins != pins {
                why += &format!("; {version}: {} pins, other ones than {}", pins.len(), wanted.pins.len());
            } else if *wanted.local != local {
                why +=
                    &format!("; {version}: {} local records, not those {}", local.len(), wanted.local.len());
            } else if wanted.digest != digest && version > 0 {
                why += &format!("; {version}: digest {digest:032x}, not {:032x}", wanted.digest);
            } else {
                return Ok(version);
            }
        }
        Err(format!("the state is none of the versions {:?}{why}", known.state))
    }

    /// Goes on as a start does: the log is brought up to the state, the state to the log, Raft starts.
    fn go_on(
        &self,
        known: &Known,
        (l, mut log, state): (usize, LmdbLog, Arc<LmdbState>),
        mut random: Random,
    ) -> Result<(), String> {
        let shared: Arc<dyn StateStore> = state.clone();
        let start = if log.incarnation().cluster_id == 0 { Start::Found } else { Start::Restart };
        if known.founded && matches!(start, Start::Found) {
            return Err("the cluster id is gone".into());
        }
        bootstrap::prepare(&start, peer(), "images", self.plan.cluster_id, &mut log, &shared)
            .map_err(|e| format!("it does not start: {e}"))?;
        if !known.founded {
            return Ok(());
        }
        let mut live =
            Live { log, machine: Machine::open(shared.clone()).map_err(|e| e.to_string())?, state };
        live.machine.verify().map_err(|e| e.to_string())?;
        let committed = self.plan.logs[l].committed.max(live.machine.applied().index);
        live.apply(committed).map_err(|e| format!("replay: {e}"))?;
        let (pins, digest) = self.plan.history.get(&committed).ok_or("no history")?;
        if all_pins(&shared)? != **pins || live.machine.digest() != *digest {
            return Err(format!("after a replay to {committed} the pins are others"));
        }
        if random.one_in(6) {
            // And it can be written.
            live.state.flush().map_err(|e| format!("a flush: {e}"))?;
            let mut entry = Entry { index: live.log.last_index() + 1, term: 1 << 40, ..Entry::default() };
            entry.data = vec![3; 5_000].into();
            let batch = LogBatch { entries: vec![entry], ..LogBatch::default() };
            live.log.append(batch).map_err(|e| format!("an append: {e}"))?;
            live.machine.verify().map_err(|e| e.to_string())?;
        }
        let settings = Settings::new(&consensus(), self.plan.raft_id, self.plan.cluster_id, 1);
        Driver::open(settings, Box::new(live.log), shared, Arc::default())
            .map_err(|e| format!("Raft: {e}"))?;
        Ok(())
    }
}

fn all_pins(state: &Arc<dyn StateStore>) -> Result<BTreeMap<Vec<u8>, Pin>, String> {
    let pins = Pins::new(state.clone());
    pins.iter().map(|pin| pin.map(|p| (p.cid.to_bytes(), p)).map_err(|e| format!("a pin: {e}"))).collect()
}

/// The digest of the rows, computed apart from the product's code.
fn digest(state: &dyn StateStore) -> Result<u128, String> {
    let mut sum = 0u128;
    for (tag, table) in [(1u8, Table::Pins), (2, Table::Members), (3, Table::Meta)] {
        for (key, value) in state.scan(table, None, 100_000).map_err(|e| e.to_string())? {
            if table == Table::Meta && key == b"digest" {
                continue;
            }
            let mut hash = Sha256::new();
            hash.update([tag]);
            hash.update((key.len() as u64).to_be_bytes());
            hash.update(&key);
            hash.update(&value);
            let bytes: [u8; 32] = hash.finalize().into();
            sum = sum.wrapping_add(u128::from_be_bytes(bytes[..16].try_into().expect("sixteen")));
        }
    }
    Ok(sum)
}

impl Contract for Stores {
    type Known = Known;

    fn note(&self, known: &mut Known, mark: &str) {
        known.marks += 1;
        let number = |text: &str| text[1..].parse::<usize>().unwrap_or(0);
        match mark.as_bytes().first() {
            Some(b'L') => known.log.1 = number(mark),
            Some(b'l') => known.log.0 = number(mark),
            Some(b'S') => known.state.1 = number(mark),
            Some(b's') => known.state.0 = number(mark),
            // A start after a kill has seen these, and may have told others.
            Some(b'a') => {
                let mut seen = mark.split(' ').skip(1).map(|n| n.parse().unwrap_or(0));
                let (l, s) = (seen.next().unwrap_or(0), seen.next().unwrap_or(0));
                (known.log, known.state) = ((l, l), (s, s));
            }
            // The founding is three commits.
            Some(b'o') => (known.opened, known.log.1, known.state.1) = (true, 2, 1),
            Some(b'f') => (known.founded, known.log.0, known.state.0) = (true, 2, 1),
            _ => {}
        }
    }

    fn level(&self, known: &Known) -> u64 {
        known.marks
    }

    fn check(&self, folder: &Path, known: &Known, random: Random) -> Result<Verdict, String> {
        match self.find(folder, known)? {
            None => Ok(Verdict::Refused),
            Some((l, _, log, state)) => {
                self.go_on(known, (l, log, state), random)?;
                Ok(Verdict::Kept)
            }
        }
    }
}

/// The child's work; its task: the seed, the change at which it is killed (0: never), and for a start after a kill
/// what was known: log and state, acknowledged and begun.
pub fn child() {
    let Some(child) = Child::here() else { return };
    let numbers: Vec<u64> = child.work.split(' ').map(|n| n.parse().expect("a number")).collect();
    let say = |text: String| child.mark(&text);
    let (seed, kill) = (numbers[0], numbers[1]);
    if let [_, _, raft_id, l0, l1, s0, s1] = numbers[..] {
        let range = |a: u64, b: u64| (a as usize, b as usize);
        let known = Known { opened: true, founded: true, log: range(l0, l1), state: range(s0, s1), marks: 0 };
        let contract = Stores::new(Plan::new(seed, raft_id));
        let found = contract.find(&child.root, &known).expect("what a kill leaves").expect("opened before");
        child.mark(&format!("again {} {}", found.0, found.1));
        return;
    }
    if kill > 0 {
        child.order(&format!("!kill {kill}"));
    }
    let live = Live::found(&child.root, seed | 1, &say).expect("founding");
    let plan = Plan::new(seed, live.raft_id());
    Live::work(&mut Some(live), &child.root, &plan, &say).expect("the workload");
    child.mark("end");
}

/// The Raft id that a child drew, from its marks.
pub fn raft_id(events: &[Event]) -> Option<u64> {
    events.iter().find_map(|event| match event {
        Event::Mark(text) => text.strip_prefix("opened ")?.parse().ok(),
        _ => None,
    })
}

/// Records one workload and searches its images. In every third the process is killed, at any of its changes, and
/// started again before the power goes.
///
/// # Errors
/// The first image that breaks the contract.
pub fn search(seed: u64, images: u64, only: Option<(usize, usize)>) -> Result<Report, Box<Failure>> {
    let broken = |message: String| Box::new(Failure { message, after: 0 });
    let folder = super::search::fast_folder();
    let recording = Recording::new(folder.path());
    let before = Disk::with(&recording.root);
    let mut random = Random::new(seed ^ 0x6b31);
    // Before anybody was told anything, or in the middle.
    let kill = match seed % 6 {
        2 => 1 + random.below(FOUNDING),
        5 => 100 + random.below(400),
        _ => 0,
    };
    recording.run("child_store", &format!("{seed} {kill}")).map_err(broken)?;
    let mut events = recording.events().map_err(broken)?;
    if (1..=FOUNDING).contains(&kill) {
        recording.run("child_store", &format!("{seed} 0")).map_err(broken)?;
        events = recording.events().map_err(broken)?;
    }
    let id = raft_id(&events).ok_or_else(|| broken("the child said nothing".into()))?;
    let contract = Stores::new(Plan::new(seed, id));
    if kill > FOUNDING {
        let mut known = Known::default();
        for event in &events {
            if let Event::Mark(mark) = event {
                contract.note(&mut known, mark);
            }
        }
        let ((l0, l1), (s0, s1)) = (known.log, known.state);
        let work = format!("{seed} 0 {id} {l0} {l1} {s0} {s1}");
        recording.run("child_store", &work).map_err(broken)?;
        events = recording.events().map_err(broken)?;
    }
    Search { name: "store", seed, before: &before, events: &events, contract: &contract, images, only }.run()
}

/// How long a workload of either kind may take before something hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);
