//! Golden scripts of the replicated state machine (`tests/scripts/state`).
//!
//! Each script is a story whose name is its title. It is played twice, on the store in memory and on LMDB,
//! and must read the same. `UPDATE_GOLDENFILES=1 cargo test --test state_scripts` writes the answers;
//! read them before you commit them.
//!
//! Commands (arguments in brackets may be missing; pins and peers are called by made-up names):
//!
//! ```text
//! pin NAME [mode=direct] [name=TEXT] [expire=SECONDS] [min=N] [max=N] [on=PEER,…] [at=SECONDS.NANOS]
//! many NAME… [mode=direct]      one entry with many pins
//! unpin NAME                    expire NAME SECONDS
//! move (NAME FROM,… TO,…)…     one entry with many moves
//! nothing                       Raft's empty entry
//! add ID PEER [name=TEXT] [voter=true] [address=MULTIADDR]    role ID voter|learner    remove ID
//! update ID PEER [name=TEXT] [address=MULTIADDR] [version=TEXT]
//! raise VERSION    version      the cluster version
//! ls    get NAME    count    members    removed ID    applied    conf
//! flush    crash                pull the plug and open again
//! snapshot                      a fresh peer takes the snapshot and goes on in place of this one
//! replay                        a fresh peer applies the whole history: is its digest ours?
//! ```

use cid::Cid;
use goldenscript::Command as Line;
use libp2p::PeerId;
use multihash::Multihash;
use pinfold::clock::Timestamp;
use pinfold::state::{
    Applied, Command, Event, Machine, Member, MemberChange, Move, Outcome, Pin, PinMode, Pins, Role,
};
use pinfold::store::memory::MemoryState;
use pinfold::store::{open_state, Options, StateStore};
use raft::eraftpb::ConfState;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

type Answer<T> = Result<T, Box<dyn Error>>;

/// Where a peer keeps its state.
enum Disk {
    Memory(MemoryState),
    Lmdb(tempfile::TempDir),
}

impl Disk {
    fn new(lmdb: bool) -> Answer<Disk> {
        Ok(if lmdb { Disk::Lmdb(tempfile::tempdir()?) } else { Disk::Memory(MemoryState::new()) })
    }

    fn open(&self) -> Answer<Arc<dyn StateStore>> {
        Ok(match self {
            Disk::Memory(store) => Arc::new(store.clone()),
            Disk::Lmdb(dir) => {
                Arc::new(open_state(dir.path(), &Options { map_size: 1 << 20, ..Options::default() })?)
            }
        })
    }
}

/// An entry of the history.
#[derive(Clone)]
enum Entry {
    Command(Option<Command>),
    Members(Vec<MemberChange>, ConfState),
}

struct Peer {
    disk: Disk,
    store: Option<Arc<dyn StateStore>>,
    machine: Option<Machine>,
}

impl Peer {
    fn new(lmdb: bool) -> Answer<Peer> {
        let mut peer = Peer { disk: Disk::new(lmdb)?, store: None, machine: None };
        peer.open()?;
        Ok(peer)
    }

    fn open(&mut self) -> Answer<()> {
        let store = self.disk.open()?;
        self.machine = Some(Machine::open(store.clone())?);
        self.store = Some(store);
        Ok(())
    }

    fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("open")
    }

    fn store(&self) -> Arc<dyn StateStore> {
        self.store.clone().expect("open")
    }

    fn apply(&mut self, entry: Entry) -> Answer<(pinfold::Result<Outcome>, Vec<Event>)> {
        let index = self.machine().applied().index + 1;
        let at = Applied { index, term: 1 };
        Ok(match entry {
            // Through its bytes, as the log would bring it.
            Entry::Command(command) => {
                let bytes = command.map(|c| c.encode()).unwrap_or_default();
                self.machine().apply_bytes(at, &bytes)?
            }
            Entry::Members(changes, conf) => {
                (Ok(Outcome::Done), self.machine().apply_members(at, &changes, &conf)?)
            }
        })
    }
}

struct Stage {
    lmdb: bool,
    peer: Peer,
    history: Vec<Entry>,
    /// Names of CIDs and peer ids, for the answers.
    names: BTreeMap<String, String>,
}

fn hash(name: &str) -> Multihash<64> {
    Multihash::wrap(0x12, &Sha256::digest(name)).expect("32 bytes fit")
}

impl Stage {
    fn new(lmdb: bool) -> Answer<Stage> {
        Ok(Stage { lmdb, peer: Peer::new(lmdb)?, history: Vec::new(), names: BTreeMap::new() })
    }

    fn cid(&mut self, name: &str) -> Cid {
        let cid = Cid::new_v1(0x55, hash(name));
        self.names.insert(cid.to_string(), name.to_string());
        cid
    }

    fn peer_id(&mut self, name: &str) -> Answer<PeerId> {
        let id = PeerId::from_bytes(&hash(name).to_bytes())?;
        self.names.insert(id.to_string(), name.to_string());
        Ok(id)
    }

    fn name(&self, id: &impl ToString) -> String {
        self.names.get(&id.to_string()).cloned().unwrap_or_else(|| id.to_string())
    }

    fn show(&self, pin: &Pin) -> String {
        let mut text = self.name(&pin.cid);
        if pin.mode == PinMode::Direct {
            text += " direct";
        }
        if !pin.name.is_empty() {
            write!(text, " name={}", pin.name).expect("text");
        }
        if !pin.is_everywhere() {
            let holders: Vec<_> = pin.allocations.iter().map(|p| self.name(p)).collect();
            write!(text, " {}..{} on [{}]", pin.replication_min, pin.replication_max, holders.join(" "))
                .expect("text");
        }
        if !pin.expire_at.is_zero() {
            write!(text, " until {}", pin.expire_at).expect("text");
        }
        if !pin.timestamp.is_zero() {
            write!(text, " since {}", pin.timestamp).expect("text");
        }
        text
    }

    fn show_member(&self, member: &Member) -> String {
        let addresses: Vec<_> = member.addresses.iter().map(ToString::to_string).collect();
        let (id, peer, name) = (member.raft_id, self.name(&member.peer_id), &member.name);
        let version =
            if member.version.is_empty() { String::new() } else { format!(" runs {}", member.version) };
        let witness = if member.witness { " witness" } else { "" };
        format!("{id} {peer} \"{name}\" {:?} [{}]{version}{witness}", member.role, addresses.join(" "))
    }

    /// Applies an entry and tells answer and events.
    fn apply(&mut self, entry: Entry) -> Answer<String> {
        self.history.push(entry.clone());
        let (answer, events) = self.peer.apply(entry)?;
        let mut text = match answer {
            Ok(Outcome::Done) => "done".to_string(),
            Ok(Outcome::Pin(pin)) => self.show(&pin),
            Ok(Outcome::Moved(count)) => format!("{count} moved"),
            Err(error) => {
                assert!(error.kind().is_deterministic(), "{error}");
                let mut message = format!("{:?}: {error}", error.kind());
                for (id, name) in &self.names {
                    message = message.replace(id, name);
                }
                message
            }
        };
        for event in events {
            text += "\n  ";
            text += &match event {
                Event::Pinned(pin) => format!("event: pinned {}", self.show(&pin)),
                Event::Moved(pin) => format!("event: moved {}", self.show(&pin)),
                Event::Unpinned(pin) => format!("event: unpinned {}", self.show(&pin)),
                Event::MembersChanged => "event: members changed".into(),
                Event::Replaced => "event: replaced".into(),
            };
        }
        self.peer.machine().verify()?;
        Ok(text)
    }

    fn conf(&mut self, changes: Vec<MemberChange>) -> Answer<String> {
        // What Raft would say: the members as they will be.
        let mut roles: BTreeMap<u64, Role> =
            self.peer.machine().members().iter().map(|m| (m.raft_id, m.role)).collect();
        for change in &changes {
            match change {
                MemberChange::Put(m) => drop(roles.insert(m.raft_id, m.role)),
                MemberChange::SetRole(id, role) => drop(roles.insert(*id, *role)),
                MemberChange::Remove(id) => drop(roles.remove(id)),
            }
        }
        let with = |role| roles.iter().filter(|(_, r)| **r == role).map(|(id, _)| *id).collect::<Vec<_>>();
        let conf =
            ConfState { voters: with(Role::Voter), learners: with(Role::Learner), ..ConfState::default() };
        self.apply(Entry::Members(changes, conf))
    }
}

impl goldenscript::Runner for Stage {
    fn run(&mut self, line: &Line) -> Answer<String> {
        let mut args = line.consume_args();
        let mut next = |what: &str| -> Answer<String> {
            Ok(args.next_pos().ok_or_else(|| format!("{what} is missing"))?.value.clone())
        };
        let text = match line.name.as_str() {
            "pin" => {
                let name = next("NAME")?;
                let mut pin = Pin::new(self.cid(&name), Timestamp::ZERO);
                for arg in args.rest_key() {
                    let seconds = || arg.parse().map(Timestamp::from_secs);
                    match arg.name() {
                        "mode" if arg.value == "direct" => pin.mode = PinMode::Direct,
                        "name" => pin.name.clone_from(&arg.value),
                        "expire" => pin.expire_at = seconds()?,
                        "min" => pin.replication_min = arg.parse()?,
                        "max" => pin.replication_max = arg.parse()?,
                        "on" => {
                            for peer in arg.value.split(',') {
                                pin.allocations.push(self.peer_id(peer)?);
                            }
                        }
                        "at" => {
                            let (secs, nanos) = arg.value.split_once('.').unwrap_or((&arg.value, "0"));
                            pin.timestamp = Timestamp { secs: secs.parse()?, nanos: nanos.parse()? };
                        }
                        other => return Err(format!("unknown argument {other}").into()),
                    }
                }
                self.apply(Entry::Command(Some(Command::Pin(Box::new(pin)))))?
            }
            "many" => {
                let direct = args.lookup("mode").is_some_and(|a| a.value == "direct");
                let mut pins = Vec::new();
                for arg in args.rest_pos() {
                    let mut pin = Pin::new(self.cid(&arg.value), Timestamp::ZERO);
                    pin.mode = if direct { PinMode::Direct } else { PinMode::Recursive };
                    pin.name = format!("number {}", pins.len() + 1);
                    pins.push(pin);
                }
                self.apply(Entry::Command(Some(Command::PinMany(pins))))?
            }
            "move" => {
                // NAME FROM,… TO,… and so on, all in one entry.
                let mut moves = Vec::new();
                let words: Vec<String> = args.rest_pos().iter().map(|a| a.value.clone()).collect();
                for three in words.chunks(3) {
                    let [name, from, to] = three else { return Err("NAME FROM TO".into()) };
                    let mut peers = |list: &str| -> Answer<Vec<PeerId>> {
                        list.split(',').filter(|p| *p != "nobody").map(|p| self.peer_id(p)).collect()
                    };
                    let (from, to) = (peers(from)?, peers(to)?);
                    moves.push(Move { cid: self.cid(name), from, to });
                }
                self.apply(Entry::Command(Some(Command::Reallocate(moves))))?
            }
            "unpin" => {
                let cid = self.cid(&next("NAME")?);
                self.apply(Entry::Command(Some(Command::Unpin(cid))))?
            }
            "expire" => {
                let cid = self.cid(&next("NAME")?);
                let expiry = match next("SECONDS")?.as_str() {
                    "never" => Timestamp::ZERO,
                    seconds => Timestamp::from_secs(seconds.parse()?),
                };
                self.apply(Entry::Command(Some(Command::Expire(cid, expiry))))?
            }
            "raise" => {
                let to = next("VERSION")?.parse()?;
                self.apply(Entry::Command(Some(Command::RaiseVersion(to))))?
            }
            "version" => self.peer.machine().cluster_version().to_string(),
            "nothing" => self.apply(Entry::Command(None))?,
            verb @ ("add" | "update") => {
                let raft_id = next("ID")?.parse()?;
                let peer_id = self.peer_id(&next("PEER")?)?;
                let voter = args.lookup_parse("voter")?.unwrap_or(false);
                let name = args.lookup("name").map(|a| a.value.clone()).unwrap_or_default();
                let address = args.lookup("address").map(|a| a.value.parse()).transpose()?;
                let role = if voter { Role::Voter } else { Role::Learner };
                let addresses = address.into_iter().collect();
                let version = args.lookup("version").map(|a| a.value.clone()).unwrap_or_default();
                let witness = args.lookup_parse("witness")?.unwrap_or(false);
                let member = Member { raft_id, peer_id, name, addresses, role, version, witness };
                match verb {
                    "add" => self.conf(vec![MemberChange::Put(member)])?,
                    _ => self.apply(Entry::Command(Some(Command::UpdateMember(member))))?,
                }
            }
            "role" => {
                let id = next("ID")?.parse()?;
                let role = if next("ROLE")? == "voter" { Role::Voter } else { Role::Learner };
                self.conf(vec![MemberChange::SetRole(id, role)])?
            }
            "remove" => {
                let id = next("ID")?.parse()?;
                self.conf(vec![MemberChange::Remove(id)])?
            }
            "ls" => {
                let pins: Vec<Pin> = Pins::new(self.peer.store()).iter().collect::<pinfold::Result<_>>()?;
                pins.iter().map(|pin| self.show(pin)).collect::<Vec<_>>().join("\n")
            }
            "get" => {
                let cid = self.cid(&next("NAME")?);
                let pin = Pins::new(self.peer.store()).get(&cid)?;
                pin.map_or("none".into(), |pin| self.show(&pin))
            }
            "count" => Pins::new(self.peer.store()).count().to_string(),
            "members" => {
                let members = self.peer.machine().members();
                let mut sorted = members.clone();
                sorted.sort_by_key(|m| m.peer_id);
                assert_eq!(members, sorted);
                members.iter().map(|m| self.show_member(m)).collect::<Vec<_>>().join("\n")
            }
            "removed" => {
                let id = next("ID")?.parse()?;
                self.peer.machine().is_removed(id).to_string()
            }
            "applied" => {
                let store = self.peer.store();
                format!("{} durable {}", store.applied().index, store.durable().index)
            }
            "conf" => {
                let conf = self.peer.machine().conf_state();
                format!("voters {:?} learners {:?}", conf.voters, conf.learners)
            }
            "flush" => format!("durable {}", self.peer.store().flush()?.index),
            "crash" => {
                self.peer.machine = None;
                self.peer.store = None;
                if let Disk::Memory(disk) = &self.peer.disk {
                    disk.crash();
                }
                self.peer.open()?;
                let applied = self.peer.machine().applied().index;
                self.history.truncate(usize::try_from(applied)?);
                format!("back at {applied}")
            }
            "snapshot" => {
                let mut fresh = Peer::new(self.lmdb)?;
                let (from, to) = (self.peer.store(), fresh.store());
                let mut source = from.snapshot()?;
                let mut sink = to.begin_install()?;
                loop {
                    let rows = source.next(100)?;
                    if rows.is_empty() {
                        break;
                    }
                    sink.put(rows)?;
                }
                to.install(sink, source.applied())?;
                fresh.machine().reload()?;
                fresh.machine().verify()?;
                let same = fresh.machine().digest() == self.peer.machine().digest();
                self.peer = fresh;
                format!("at {}, {} digest", source.applied().index, if same { "the same" } else { "ANOTHER" })
            }
            "replay" => {
                let mut fresh = Peer::new(self.lmdb)?;
                for entry in self.history.clone() {
                    // Its own errors are part of the history.
                    let _ = fresh.apply(entry)?.0;
                }
                let same = fresh.machine().digest() == self.peer.machine().digest()
                    && fresh.machine().members() == self.peer.machine().members();
                format!(
                    "{} entries, {}",
                    self.history.len(),
                    if same { "the same state" } else { "ANOTHER STATE" }
                )
            }
            other => return Err(format!("unknown command {other}").into()),
        };
        args.reject_rest()?;
        Ok(text)
    }
}

#[test]
fn every_story_reads_the_same_in_memory_and_on_disk() {
    let dir = Path::new("tests/scripts/state");
    let mut scripts: Vec<_> =
        std::fs::read_dir(dir).expect("scripts").map(|e| e.expect("entry").path()).collect();
    scripts.sort();
    assert!(scripts.len() >= 10, "{} scripts", scripts.len());
    for script in scripts {
        println!("{}", script.display());
        goldenscript::run(&mut Stage::new(false).expect("stage"), &script).expect("in memory");
        let text = std::fs::read_to_string(&script).expect("script");
        let on_disk = goldenscript::generate(&mut Stage::new(true).expect("stage"), &text).expect("on disk");
        assert_eq!(on_disk, text, "{} on LMDB", script.display());
    }
}
