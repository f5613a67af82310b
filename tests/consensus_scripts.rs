//! Golden scripts for consensus: each file in `tests/scripts/consensus/` is one story of a simulated cluster,
//! its name the sentence that it shows. `UPDATE_GOLDENFILES=1 cargo test --test consensus_scripts` writes the
//! expected text again; a difference in review *is* the change of behaviour.
//!
//! Commands (N is a peer's number; times are in ticks of 25 ms):
//!
//! - `cluster N…`: the first one founds, the others join; waits until all vote.
//! - `found N`, `join N`, `add N at=M`: empty disks that found; that wait; a peer that becomes a member.
//! - `crash N`, `restart N`, `disk N fails`: power cut, start again on the same disks, broken disks.
//! - `lost N M…`: M and others notice that their connections to N are gone.
//! - `mute N M`, `cut N M`, `isolate N`, `heal`, `faults drop=.. duplicate=.. delay=.. break=..`: the network.
//! - `pin N name…`, `unpin N name`, `fill N count`: changes asked at peer N.
//! - `remove N at=M`, `handover N`, `read N`: members, leadership, ReadIndex. `want-removed N at=M` does not wait.
//! - `settle`, `run T`, `await N I`: lets time pass until all agree; for T ticks; until N has entry I in its log.
//! - `status`, `pins`, `members N`, `log N`: what is.
//!
//! Random misfortune over many seeds is in `tests/sim.rs`.

use pinfold::sim::{Faults, Life, Request, Sim};
use pinfold::state::Role;
use std::error::Error;
use std::fmt::Write as _;

/// Ticks that a request may take.
const LIMIT: u64 = 400;

struct Runner {
    sim: Sim,
}

type Fallible<T> = Result<T, Box<dyn Error>>;

impl Runner {
    fn request(&mut self, at: u64, request: Request) -> Fallible<u64> {
        Ok(self.sim.ask_and_wait(at, request, LIMIT)?.result?)
    }

    fn settle(&mut self) -> Fallible<()> {
        if self.sim.run_until(2_000, Sim::is_settled)? {
            return Ok(());
        }
        Err(format!("the peers do not agree:\n{}", self.status()).into())
    }

    fn all_vote(&mut self, wanted: usize) -> Fallible<()> {
        let votes = |sim: &Sim| {
            let driver = sim.leader().and_then(|l| sim.driver(l));
            sim.is_settled() && driver.is_some_and(|d| d.machine().conf_state().voters.len() == wanted)
        };
        if self.sim.run_until(2_000, votes)? {
            return Ok(());
        }
        Err(format!("not all became voters:\n{}", self.status()).into())
    }

    fn status(&self) -> String {
        let mut out = String::new();
        for peer in self.sim.peers() {
            let _ = match (self.sim.life(peer), self.sim.status(peer)) {
                (Life::Failed(why), _) => writeln!(out, "{peer}: stopped: {why}"),
                (_, None) => writeln!(out, "{peer}: down"),
                (_, Some(s)) => {
                    let leads = self.sim.driver(peer).is_some_and(|d| d.leads());
                    let leader = match s.leader.and_then(|l| self.sim.who(l)) {
                        _ if s.removed => "removed".to_owned(),
                        _ if leads => "leads".to_owned(),
                        Some(leader) => format!("follows {leader}"),
                        None => "knows no leader".to_owned(),
                    };
                    writeln!(out, "{peer}: {leader}, term {}, applied {}", s.term, s.applied)
                }
            };
        }
        out
    }

    fn members(&self, at: u64) -> Fallible<String> {
        let driver = self.sim.driver(at).ok_or("it is down")?;
        let mut out = String::new();
        for member in driver.members().values() {
            let peer = self.sim.number(&member.peer_id).unwrap_or_default();
            let role = match member.role {
                Role::Voter => "voter",
                Role::Learner => "learner",
            };
            writeln!(out, "{peer} with Raft id {}: {role}", member.raft_id)?;
        }
        Ok(out)
    }

    fn pins(&self) -> Fallible<String> {
        let mut out = String::new();
        for peer in self.sim.peers().into_iter().filter(|p| self.sim.is_up(*p)) {
            let pins = self.sim.pins(peer)?;
            let text = match pins.len() {
                0 => "none".to_owned(),
                1..=8 => pins.join(" "),
                n => format!("{n} pins"),
            };
            writeln!(out, "{peer}: {text}")?;
        }
        Ok(out)
    }
}

impl goldenscript::Runner for Runner {
    fn run(&mut self, command: &goldenscript::Command) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let at: Option<u64> = args.lookup_parse("at")?;
        let faults = Faults {
            drop: args.lookup_parse("drop")?.unwrap_or(0),
            duplicate: args.lookup_parse("duplicate")?.unwrap_or(0),
            delay: args.lookup_parse("delay")?.unwrap_or(0),
            break_snapshot: args.lookup_parse("break")?.unwrap_or(0),
        };
        let words: Vec<String> = args.rest_pos().into_iter().map(|a| a.value.clone()).collect();
        args.reject_rest()?;
        let number = |n: usize| -> Fallible<u64> { Ok(words.get(n).ok_or("a number is missing")?.parse()?) };
        let numbers: Vec<u64> = words.iter().filter_map(|w| w.parse().ok()).collect();
        let mut out = String::new();
        match command.name.as_str() {
            "cluster" => {
                self.sim.found(number(0)?)?;
                for peer in &numbers[1..] {
                    self.sim.join(*peer)?;
                    self.request(numbers[0], Request::Add(*peer))?;
                }
                self.all_vote(numbers.len())?;
            }
            "max-voters" => {
                let most = number(0)? as usize;
                self.sim.configure(|c| c.max_voters = most);
            }
            "found" => self.sim.found(number(0)?)?,
            "join" => self.sim.join(number(0)?)?,
            "add" => {
                self.request(at.ok_or("at=N is missing")?, Request::Add(number(0)?))?;
            }
            "crash" => numbers.iter().for_each(|p| self.sim.crash(*p)),
            "lost" => {
                for peer in &numbers[1..] {
                    self.sim.lose(*peer, numbers[0])?;
                }
            }
            "restart" => {
                for peer in &numbers {
                    self.sim.restart(*peer)?;
                }
            }
            "disk" => self.sim.fail_disk(number(0)?, words.get(1).is_some_and(|w| w == "fails")),
            "cut" => self.sim.cut(number(0)?, number(1)?),
            "mute" => self.sim.mute(number(0)?, number(1)?),
            "isolate" => numbers.iter().for_each(|p| self.sim.isolate(*p)),
            "heal" => self.sim.heal(),
            "faults" => self.sim.set_faults(faults),
            "pin" => {
                for name in &words[1..] {
                    let index = self.request(number(0)?, Request::pin(name))?;
                    writeln!(out, "{name} pinned at entry {index}")?;
                }
            }
            "unpin" => {
                for name in &words[1..] {
                    let index = self.request(number(0)?, Request::Unpin(name.clone()))?;
                    writeln!(out, "{name} unpinned at entry {index}")?;
                }
            }
            "fill" => {
                for n in 0..number(1)? {
                    self.request(number(0)?, Request::pin(&format!("filler{n}")))?;
                }
            }
            "remove" => {
                self.request(at.ok_or("at=N is missing")?, Request::Remove(number(0)?))?;
            }
            "want-removed" => {
                self.sim.ask(at.ok_or("at=N is missing")?, Request::Remove(number(0)?), LIMIT);
            }
            "handover" => {
                self.request(number(0)?, Request::HandOver)?;
            }
            "read" => {
                self.request(number(0)?, Request::Read(String::new()))?;
                let applied = self.sim.status(number(0)?).map_or(0, |s| s.applied);
                writeln!(out, "{} has applied {applied}", number(0)?)?;
            }
            "settle" => self.settle()?,
            "await" => {
                let (peer, last) = (number(0)?, number(1)?);
                let has = |sim: &Sim| sim.driver(peer).is_some_and(|d| d.log_bounds().1 >= last);
                if !self.sim.run_until(LIMIT, has)? {
                    return Err(format!("{peer} does not get entry {last}:\n{}", self.status()).into());
                }
            }
            "run" => self.sim.run(number(0)?)?,
            "status" => out = self.status(),
            "members" => out = self.members(number(0)?)?,
            "pins" => out = self.pins()?,
            "log" => {
                let driver = self.sim.driver(number(0)?).ok_or("it is down")?;
                let (first, last) = driver.log_bounds();
                writeln!(out, "entries {first} to {last}")?;
            }
            name => return Err(format!("there is no command {name}").into()),
        }
        Ok(out)
    }
}

#[test]
fn scripts() {
    let folder = std::path::Path::new("tests/scripts/consensus");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 15, "only {} scripts in {}", paths.len(), folder.display());
    for path in paths {
        let mut runner = Runner { sim: Sim::new(1) };
        goldenscript::run(&mut runner, &path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
