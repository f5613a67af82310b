//! Clients that write down what they asked and what they were told.
//!
//! Each client belongs to one peer and has one request under way: pin under a new name, unpin, read with
//! `?consistency=strong`, or read locally. The CIDs are few at one time, so that clients meet, and each is given up for
//! a new one after some operations, so that a history stays short enough to be checked. What each answer is worth:
//!
//! | what came back | what is written down |
//! |---|---|
//! | no connection | nothing: nothing was asked |
//! | 200, or 404 with the words for a CID that is not pinned | the operation with its answer |
//! | 5xx, a cut connection, silence for [`PATIENCE`] | a write: perhaps, at any time from now on; a read: nothing |
//! | anything else | an odd answer, which fails the run |
//!
//! Others, the keepers, have each CID for themselves, so that its end is known without any checker.
//!
//! Local reads promise less and are kept apart: what they show must have been written by somebody who had begun.
//!
//! Calls and answers are numbered by one counter, taken before the request is sent and after the answer was read, so
//! that "ended before the other began" is never claimed wrongly.

use crate::dice::Dice;
use crate::http::{send_over, Answer};
use crate::linear::{Name, Operation, What};
use crate::support::boards::Porter;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// CIDs in use at one time.
const IN_USE: usize = 4;
/// Operations on one CID before another takes its place.
const OPERATIONS: usize = 60;
/// How long a client waits for an answer; longer than a peer may take to give one (`CONSENSUS` in `nemesis.rs`).
pub const PATIENCE: Duration = Duration::from_secs(6);
/// Between two tries of a client whose peer does not answer the door.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two CIDs of a keeper.
const KEEPER: Duration = Duration::from_millis(5);

/// Where an API is served.
#[derive(Clone)]
pub struct Door {
    pub address: SocketAddr,
    /// Who makes connections there, when that is another network.
    pub porter: Option<Porter>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Silence {
    /// Nobody took the call: nothing happened.
    Closed,
    /// The call was taken: something may have happened.
    Cut(String),
}

impl Door {
    /// One request over a connection of its own.
    pub fn ask(&self, method: &str, path: &str, limit: Duration) -> Result<Answer, Silence> {
        let stream = match &self.porter {
            Some(porter) => porter.connect(self.address),
            None => TcpStream::connect(self.address),
        };
        let stream = stream.and_then(|s| s.set_read_timeout(Some(limit)).map(|()| s));
        let stream = stream.map_err(|_| Silence::Closed)?;
        send_over(stream, &self.address.to_string(), method, path, &[], None).map_err(Silence::Cut)
    }
}

/// One CID and everything that was done to it.
pub struct Register {
    pub cid: String,
    started: AtomicUsize,
    operations: Mutex<Vec<Operation>>,
    local: Mutex<Vec<Operation>>,
}

impl Register {
    /// Its history so far, by the time of the calls.
    pub fn history(&self) -> Vec<Operation> {
        let mut history = lock(&self.operations).clone();
        history.sort_by_key(|o| o.call);
        history
    }

    /// What local reads saw.
    pub fn local(&self) -> Vec<Operation> {
        lock(&self.local).clone()
    }

    /// What must be there now, when its history says so without any doubt: its last write was answered, and began
    /// after every other write had been.
    pub fn outcome(&self) -> Option<Option<Name>> {
        let history = self.history();
        let writes: Vec<&Operation> = history.iter().filter(|o| !matches!(o.what, What::Read(_))).collect();
        let (last, others) = writes.split_last()?;
        let clear = writes.iter().all(|w| w.what.is_sure()) && others.iter().all(|w| w.end < last.call);
        match last.what {
            What::Pin(name) if clear => Some(Some(name)),
            What::Unpin(_) if clear => Some(None),
            _ => None,
        }
    }
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Pin,
    Unpin,
    /// Up to date.
    Read,
    /// As this peer has it.
    Local,
}

/// How much was done.
#[derive(Default)]
pub struct Tally {
    /// Writes and strong reads with an answer.
    pub answered: AtomicUsize,
    /// Writes without one.
    pub unanswered: AtomicUsize,
    /// Requests whose connection died under way.
    pub cut: AtomicUsize,
    /// Refusals (5xx).
    pub refused: AtomicUsize,
    /// Local reads.
    pub local: AtomicUsize,
}

/// What the clients share.
pub struct Load {
    doors: Vec<Door>,
    clock: AtomicU64,
    names: AtomicU32,
    in_use: Mutex<Vec<Arc<Register>>>,
    all: Mutex<Vec<Arc<Register>>>,
    stop: AtomicBool,
    /// When acknowledged writes were asked for and answered.
    served: Mutex<Vec<(Instant, Instant)>>,
    odd: Mutex<Vec<String>>,
    pub tally: Tally,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

/// Content that is in its own name: whoever is to hold it has it.
fn inline(n: usize) -> String {
    let hash = multihash::Multihash::<64>::wrap(0, format!("nemesis {n}").as_bytes()).expect("a short text");
    cid::Cid::new_v1(0x55, hash).to_string()
}

impl Load {
    /// Nobody works yet.
    pub fn new(doors: Vec<Door>) -> Load {
        let load = Load {
            doors,
            clock: AtomicU64::new(1),
            names: AtomicU32::new(1),
            in_use: Mutex::default(),
            all: Mutex::default(),
            stop: AtomicBool::new(false),
            served: Mutex::default(),
            odd: Mutex::default(),
            tally: Tally::default(),
        };
        let first = (0..IN_USE).map(|_| load.another()).collect();
        *lock(&load.in_use) = first;
        load
    }

    fn another(&self) -> Arc<Register> {
        let mut all = lock(&self.all);
        let register = Arc::new(Register {
            cid: inline(all.len()),
            started: AtomicUsize::new(0),
            operations: Mutex::default(),
            local: Mutex::default(),
        });
        all.push(register.clone());
        register
    }

    /// One that is in use, which may give its place to another after that.
    pub fn register(&self, dice: &mut Dice) -> Arc<Register> {
        let place = dice.below(IN_USE);
        let register = lock(&self.in_use)[place].clone();
        if register.started.fetch_add(1, Ordering::Relaxed) == OPERATIONS {
            let new = self.another();
            lock(&self.in_use)[place] = new;
        }
        register
    }

    /// A client of one peer, until [`Load::stop`].
    pub fn client(&self, number: u32, peer: usize, mut dice: Dice) {
        while !self.stop.load(Ordering::Relaxed) {
            let register = self.register(&mut dice);
            let wish = match dice.below(20) {
                0..=6 => Wish::Pin,
                7..=10 => Wish::Unpin,
                11..=17 => Wish::Read,
                _ => Wish::Local,
            };
            if !self.perform(number, peer, &register, wish) {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// A client whose CIDs nobody else touches: it pins one, and unpins every other one again. What was acknowledged here
    /// needs no checker: it must be so in the end.
    pub fn keeper(&self, number: u32, peer: usize) {
        for turn in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let register = self.another();
            let pinned = self.perform(number, peer, &register, Wish::Pin);
            let done = pinned && (turn % 2 == 0 || self.perform(number, peer, &register, Wish::Unpin));
            std::thread::sleep(if done { KEEPER } else { PAUSE });
        }
    }

    /// Does one operation and writes it down. Whether it was answered.
    pub fn perform(&self, client: u32, peer: usize, register: &Register, wish: Wish) -> bool {
        let name = if wish == Wish::Pin { self.names.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let cid = &register.cid;
        let (method, path) = match wish {
            Wish::Pin => ("POST", format!("/pins/{cid}?name=v{name}")),
            Wish::Unpin => ("DELETE", format!("/pins/{cid}")),
            Wish::Read => ("GET", format!("/allocations/{cid}?consistency=strong")),
            Wish::Local => ("GET", format!("/allocations/{cid}")),
        };
        let (call, asked) = (self.clock.fetch_add(1, Ordering::SeqCst), Instant::now());
        let answer = self.doors[peer].ask(method, &path, PATIENCE);
        let (end, now) = (self.clock.fetch_add(1, Ordering::SeqCst), Instant::now());
        let operation = |what| Operation { client, call, end, what };
        let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
        let body = |answer: &Answer| serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
        let seen = match answer {
            Ok(answer) if answer.status == 200 => {
                let shown = body(&answer).and_then(|b| b["name"].as_str()?.strip_prefix('v')?.parse().ok());
                if shown.is_none() || wish == Wish::Pin && shown != Some(name) {
                    lock(&self.odd).push(format!("{method} {path}: {}", answer.text()));
                    return false;
                }
                shown
            }
            Ok(answer)
                if answer.status == 404
                    && wish != Wish::Pin
                    && answer.text().contains("not part of the pinset") =>
            {
                None
            }
            Ok(answer) if answer.status < 500 => {
                let said = format!("{method} {path}: {} {}", answer.status, answer.text());
                lock(&self.odd).push(said);
                return false;
            }
            Err(Silence::Closed) => return false,
            unanswered => {
                count(if unanswered.is_ok() { &self.tally.refused } else { &self.tally.cut });
                let what = match wish {
                    Wish::Pin => What::MaybePin(name),
                    Wish::Unpin => What::MaybeUnpin,
                    Wish::Read | Wish::Local => return false,
                };
                count(&self.tally.unanswered);
                lock(&register.operations).push(operation(what));
                return false;
            }
        };
        let what = match wish {
            Wish::Pin => What::Pin(name),
            Wish::Unpin => What::Unpin(seen),
            Wish::Read => What::Read(seen),
            Wish::Local => {
                count(&self.tally.local);
                lock(&register.local).push(operation(What::Read(seen)));
                return true;
            }
        };
        count(&self.tally.answered);
        lock(&register.operations).push(operation(what));
        if wish != Wish::Read {
            lock(&self.served).push((asked, now));
        }
        true
    }

    /// How long after `since` the first write was acknowledged that was asked for after it.
    pub fn next_write(&self, since: Instant) -> Option<Duration> {
        let served = lock(&self.served);
        let lately = served.iter().rev().take_while(|(_, end)| *end >= since);
        lately.filter(|(asked, _)| *asked >= since).map(|(_, end)| *end - since).min()
    }

    /// The longest time without an acknowledged write, and how many there were.
    pub fn longest_gap(&self) -> (Duration, usize) {
        let mut ends: Vec<Instant> = lock(&self.served).iter().map(|(_, end)| *end).collect();
        ends.sort_unstable();
        (ends.windows(2).map(|w| w[1] - w[0]).max().unwrap_or_default(), ends.len())
    }

    /// Clients end after the request they are at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Every CID there was.
    pub fn registers(&self) -> Vec<Arc<Register>> {
        lock(&self.all).clone()
    }

    /// Answers that no peer should have given.
    pub fn odd(&self) -> Vec<String> {
        lock(&self.odd).clone()
    }
}

/// The name in a local read must have been written by somebody who had begun before the read ended.
pub fn from_nowhere(history: &[Operation], local: &[Operation]) -> Vec<Operation> {
    let written = |read: &Operation, name| {
        let by = |o: &&Operation| matches!(o.what, What::Pin(n) | What::MaybePin(n) if n == name);
        history.iter().find(by).is_some_and(|write| write.call < read.end)
    };
    let bad = |read: &&Operation| matches!(read.what, What::Read(Some(name)) if !written(read, name));
    local.iter().filter(bad).copied().collect()
}
