//! Golden scripts of the tracker's plan and queue: `tests/scripts/tracker/*`.

use cid::Cid;
use goldenscript::{Command, Runner};
use libp2p::PeerId;
use pinfold::clock::Timestamp;
use pinfold::ipfs::IpfsPin;
use pinfold::state::{Pin, PinMode};
use pinfold::tracker::plan::{correct, decide, settled_status, Achieved, Action, Record};
use pinfold::tracker::queue::{Job, Limits, Offer, Op, Queue, Stall, MAX_QUEUED};
use std::collections::BTreeMap;
use std::error::Error;

/// Two workers for pins, one for unpins.
const LIMITS: Limits = Limits { pins: 2, unpins: 1, queued: MAX_QUEUED };

/// Commands: `pin a [here=no] [mode=direct]`, `unpin a`, `plan a`, `offer a [unpin] [priority] [attempt=2]`, `take`,
/// `done`, `fail text`, `stall a`, `moves a`,
/// `ipfs a [has=recursive]` (what a comparison would correct), `later`, `due`, `forget a` (a restart loses the queue, not the records), `after 10s`, `status`.
struct Script {
    me: PeerId,
    pins: BTreeMap<String, Pin>,
    records: BTreeMap<String, Record>,
    queue: Queue,
    now: u64,
    running: BTreeMap<String, Job>,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            me: PeerId::random(),
            pins: BTreeMap::new(),
            records: BTreeMap::new(),
            queue: Queue::new(LIMITS),
            now: 0,
            running: BTreeMap::new(),
        }
    }
}

fn cid(name: &str) -> Cid {
    let hash = multihash::Multihash::<64>::wrap(0x00, name.as_bytes()).expect("short");
    Cid::new_v1(0x55, hash)
}

fn name(key: &[u8]) -> String {
    let cid = Cid::try_from(key).expect("a cid");
    String::from_utf8_lossy(cid.hash().digest()).into_owned()
}

impl Script {
    fn name_arg(command: &Command) -> Result<String, Box<dyn Error>> {
        Ok(command.consume_args().next_pos().ok_or("needs a name")?.value.clone())
    }

    fn finish(&mut self, wanted: &str, result: Result<(), String>) -> String {
        let Some(job) = self.running.remove(wanted) else { return "not running".into() };
        if !self.queue.is_current(&job) {
            return "outdated: nothing is written".into();
        }
        let record = match (job.op, &result) {
            (Op::Pin, Ok(())) => {
                let mode = self.pins.get(wanted).map_or(PinMode::Recursive, |p| p.mode);
                Some(Record::pinned(mode, Timestamp::ZERO))
            }
            (Op::Unpin, Ok(())) => None,
            (op, Err(text)) => {
                let achieved = if op == Op::Pin { Achieved::PinFailed } else { Achieved::UnpinFailed };
                Some(Record::failed(achieved, Timestamp::ZERO, job.attempt, text))
            }
        };
        match record {
            Some(record) => self.records.insert(wanted.into(), record),
            None => self.records.remove(wanted),
        };
        self.queue.finish(&job);
        match result {
            Ok(()) => String::new(),
            Err(_) => match self.queue.retry_later(job.key.clone(), job.attempt, self.now) {
                Some(at) => format!("again in {}s", (at - self.now) / 1000),
                None => "left to the periodic recover".into(),
            },
        }
    }
}

impl Runner for Script {
    fn run(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        Ok(match command.name.as_str() {
            "pin" => {
                let name = args.next_pos().ok_or("needs a name")?.value.clone();
                let mut pin = Pin::new(cid(&name), Timestamp::ZERO);
                if args.lookup("here").is_some_and(|a| a.value == "no") {
                    (pin.replication_min, pin.replication_max) = (1, 1);
                    pin.allocations = vec![PeerId::random()];
                }
                if args.lookup("mode").is_some_and(|a| a.value == "direct") {
                    pin.mode = PinMode::Direct;
                }
                args.reject_rest()?;
                self.pins.insert(name, pin);
                String::new()
            }
            "unpin" => {
                self.pins.remove(&Self::name_arg(command)?);
                String::new()
            }
            "plan" => {
                let name = Self::name_arg(command)?;
                match decide(self.pins.get(&name), &self.me, self.records.get(&name)) {
                    Action::Nothing => "nothing".into(),
                    Action::Pin => "pin".into(),
                    Action::Unpin => "unpin".into(),
                }
            }
            "offer" => {
                let name = args.next_pos().ok_or("needs a name")?.value.clone();
                let words: Vec<String> = args.rest_pos().iter().map(|a| a.value.clone()).collect();
                let attempt = args.lookup_parse("attempt")?.unwrap_or(1);
                let op = if words.iter().any(|w| w == "unpin") { Op::Unpin } else { Op::Pin };
                let priority = words.iter().any(|w| w == "priority");
                match self.queue.offer(cid(&name).to_bytes(), op, priority, attempt, self.now) {
                    Offer::Queued => String::new(),
                    Offer::Full => "full".into(),
                }
            }
            "take" => match self.queue.take(self.now) {
                Some(job) => {
                    let text = format!("{:?} {} attempt {}", job.op, name(&job.key), job.attempt);
                    self.running.insert(name(&job.key), job);
                    text
                }
                None => "no job, or no free worker".into(),
            },
            "done" => self.finish(&Self::name_arg(command)?, Ok(())),
            "fail" => {
                let name = args.next_pos().ok_or("needs a name")?.value.clone();
                let text = args.next_pos().map(|a| a.value.clone()).unwrap_or_default();
                self.finish(&name, Err(text))
            }
            "stall" | "moves" => {
                let name = args.next_pos().ok_or("needs a name")?.value.clone();
                let Some(job) = self.running.get(&name).cloned() else { return Ok("not running".into()) };
                if command.name == "moves" {
                    self.queue.moves(&job);
                    return Ok(String::new());
                }
                match self.queue.stall(&job) {
                    Stall::Stays => "stays".into(),
                    Stall::Parked => "parked".into(),
                    Stall::InsteadOf(job) => {
                        let other = self::name(&job.key);
                        self.running.insert(other.clone(), job);
                        format!("parked instead of {other}: {}", self.finish(&other, Err("gave way".into())))
                    }
                }
            }
            "missing" => {
                let name = Self::name_arg(command)?;
                self.records.insert(name, Record::failed(Achieved::Missing, Timestamp::ZERO, 0, ""));
                String::new()
            }
            "ipfs" => {
                let name = args.next_pos().ok_or("needs a name")?.value.clone();
                let state = match args.lookup("has").map(|a| a.value.as_str()) {
                    Some("recursive") => IpfsPin::Recursive,
                    Some("direct") => IpfsPin::Direct,
                    _ => IpfsPin::Unpinned,
                };
                match correct(self.pins.get(&name), &self.me, self.records.get(&name), state) {
                    None => "as it should be, or not ours".into(),
                    Some(correction) => format!("{correction:?}"),
                }
            }
            "after" => {
                let wait = pinfold::clock::parse_duration(&Self::name_arg(command)?)?;
                self.now += wait.as_millis() as u64;
                String::new()
            }
            "due" => {
                let mut due = Vec::new();
                while let Some(key) = self.queue.due(self.now) {
                    due.push(name(&key));
                }
                if due.is_empty() {
                    "none".into()
                } else {
                    due.join(" ")
                }
            }
            "restart" => {
                self.queue = Queue::new(LIMITS);
                self.running.clear();
                String::new()
            }
            "status" => {
                let mut names: Vec<&String> = self.pins.keys().chain(self.records.keys()).collect();
                names.sort();
                names.dedup();
                let line = |n: &&String| {
                    let (pin, record) = (self.pins.get(*n), self.records.get(*n));
                    let settled = settled_status(pin, &self.me, record);
                    let queued = self.queue.get(&cid(n).to_bytes()).map(|p| {
                        format!(
                            " ({:?} {}{})",
                            p.op,
                            match (p.running, p.parked) {
                                (true, true) => "is parked",
                                (true, false) => "runs",
                                (false, _) => "waits",
                            },
                            if p.priority { ", priority" } else { "" }
                        )
                    });
                    let error = record.map(|r| r.error.as_str()).filter(|e| !e.is_empty());
                    let error = error.map(|e| format!(" \"{e}\"")).unwrap_or_default();
                    format!("{n}: {settled}{error}{}", queued.unwrap_or_default())
                };
                names.iter().map(line).collect::<Vec<_>>().join("\n")
            }
            other => return Err(format!("no command {other}").into()),
        })
    }
}

#[test]
fn scripts() {
    for script in std::fs::read_dir("tests/scripts/tracker").expect("scripts") {
        let path = script.expect("entry").path();
        eprintln!("{}", path.display());
        goldenscript::run(&mut Script::default(), path).expect("script");
    }
}
