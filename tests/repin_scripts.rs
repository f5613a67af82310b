//! Golden scripts of what moves (`tests/scripts/repin`): the script's name says what it shows.
//! `UPDATE_GOLDENFILES=1 cargo test --test repin_scripts` writes the answers; read them before you commit them.
//!
//! ```text
//! peers a=100 b="50@attic"            candidates by weight, and tag; told again, the weight is the new one
//! costs 10                            by how much a copy lowers the weight (default 0)
//! live|silent|leaving|gone|expelled PEER…
//! blind PEER…                         lives, but has no metrics: may hold, may not get
//! grow on="a,b" min=1 max=2 [repin=false]
//! settle on="a,b,c" min=1 max=2 [pinned="a,b"] [coming=c] [failed=c]
//! run on="a,b" min=1 max=2 [pinned="a,b"]    grow and settle until nothing moves; whoever gets a copy has it at once
//! many 10 on=a min=1 max=1             grow for so many pins, one after the other; who got how many
//! slots a=100 b="100@attic"           peers by capacity, and tag, for rebalance
//! pins 10 on="a,b"                    so many pins with these holders
//! rebalance                           one run over all pins
//! ```

use goldenscript::{ArgumentConsumer, Command, Runner};
use libp2p::PeerId;
use pinfold::allocator::rebalance::{Planner, Slot};
use pinfold::allocator::repin::{grow, settle, Growth, Held, Pool, Standing, Subject};
use pinfold::allocator::{Candidate, Weighed};
use std::collections::BTreeMap;
use std::error::Error;

type Answer<T> = Result<T, Box<dyn Error>>;

#[derive(Default)]
struct Script {
    ids: BTreeMap<String, PeerId>,
    candidates: BTreeMap<String, Candidate>,
    cost: i64,
    standing: BTreeMap<PeerId, Standing>,
    slots: Vec<(String, u64)>,
    pins: Vec<Vec<PeerId>>,
}

impl Script {
    /// Ids whose order is the order of the names, so that ties read naturally.
    fn id(&mut self, name: &str) -> PeerId {
        let mut digest = [0u8; 32];
        digest[..name.len()].copy_from_slice(name.as_bytes());
        let hash = libp2p::multihash::Multihash::<64>::wrap(0x12, &digest).expect("32 bytes fit");
        let id = PeerId::from_multihash(hash).expect("sha2-256 is a peer id");
        self.ids.insert(name.to_string(), id);
        id
    }

    fn list(&mut self, args: &mut ArgumentConsumer<'_>, name: &str) -> Vec<PeerId> {
        let text = args.lookup(name).map(|a| a.value.clone()).unwrap_or_default();
        text.split(',').filter(|n| !n.is_empty()).map(|n| self.id(n)).collect()
    }

    fn names(&self, ids: &[PeerId]) -> String {
        let name = |id: &PeerId| self.ids.iter().find(|(_, i)| *i == id).map_or("?", |(n, _)| n.as_str());
        format!("[{}]", ids.iter().map(name).collect::<Vec<_>>().join(" "))
    }

    fn candidate(&mut self, name: &str, value: &str) -> Answer<Candidate> {
        let (weight, group) = match value.split_once('@') {
            Some((weight, group)) => (weight, Some(group)),
            None => (value, None),
        };
        let free = Weighed { weight: weight.parse()?, value: weight.into(), partitionable: false };
        let tags = group.into_iter().flat_map(|g| g.split('/'));
        let tags = tags.map(|g| Weighed { weight: 0, value: g.into(), partitionable: true });
        Ok(Candidate { peer: self.id(name), metrics: tags.chain([free]).collect() })
    }

    fn pool(&self) -> Pool {
        let live = self.candidates.values().filter(|c| self.standing.get(&c.peer) == Some(&Standing::Live));
        let candidates: Vec<Candidate> = live.cloned().collect();
        let costs = candidates.first().map_or(Vec::new(), |c| {
            c.metrics.iter().map(|m| if m.partitionable { 0 } else { self.cost }).collect()
        });
        Pool::new(candidates, costs)
    }

    fn tell(&self, growth: &Growth) -> String {
        let mut words = Vec::new();
        words.extend(growth.to.as_ref().map(|to| self.names(to)));
        if growth.short > 0 {
            words.push(format!("{} short", growth.short));
        }
        if growth.ask {
            words.push("ask".into());
        }
        if words.is_empty() {
            "nothing moves".into()
        } else {
            words.join(", ")
        }
    }
}

impl Runner for Script {
    fn run(&mut self, command: &Command) -> Answer<String> {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "peers" => {
                for arg in args.rest_key() {
                    let name = arg.key.clone().expect("a key");
                    let candidate = self.candidate(&name, &arg.value)?;
                    self.standing.insert(candidate.peer, Standing::Live);
                    self.candidates.insert(name, candidate);
                }
                Ok(String::new())
            }
            "costs" => {
                self.cost = args.next_pos().ok_or("COST")?.parse()?;
                Ok(String::new())
            }
            "blind" => {
                for arg in args.rest_pos() {
                    self.candidates.remove(&arg.value);
                    let id = self.id(&arg.value);
                    self.standing.insert(id, Standing::Live);
                }
                Ok(String::new())
            }
            word @ ("live" | "silent" | "leaving" | "gone" | "expelled") => {
                let standing = match word {
                    "live" => Standing::Live,
                    "silent" => Standing::Silent,
                    "leaving" => Standing::Leaving,
                    "gone" => Standing::Gone,
                    _ => Standing::Expelled,
                };
                for arg in args.rest_pos() {
                    let id = self.id(&arg.value);
                    self.standing.insert(id, standing);
                }
                Ok(String::new())
            }
            verb @ ("grow" | "settle" | "run" | "many") => {
                let times = args.next_pos().map_or(Ok(1), goldenscript::Argument::parse::<usize>)?;
                let mut holders = self.list(&mut args, "on");
                let min = args.lookup_parse("min")?.unwrap_or(1);
                let max = args.lookup_parse("max")?.unwrap_or(min);
                let repin = args.lookup_parse("repin")?.unwrap_or(true);
                let mut pinned = self.list(&mut args, "pinned");
                let (coming, failed) = (self.list(&mut args, "coming"), self.list(&mut args, "failed"));
                args.reject_rest()?;
                let map = self.standing.clone();
                let standing = move |p: &PeerId| map.get(p).copied().unwrap_or(Standing::Expelled);
                let held = |pinned: &[PeerId], p: &PeerId| match () {
                    () if pinned.contains(p) => Held::Pinned,
                    () if coming.contains(p) => Held::Coming,
                    () if failed.contains(p) => Held::Failed,
                    () => Held::Unknown,
                };
                let mut pool = self.pool();
                match verb {
                    "grow" => {
                        let pin = Subject { min, max, holders: &holders };
                        let text = self.tell(&grow(&pin, &standing, &mut pool, repin));
                        return Ok(text);
                    }
                    "settle" => {
                        let pin = Subject { min, max, holders: &holders };
                        let to = settle(&pin, &standing, &pool, &|p| held(&pinned, p));
                        return Ok(to.map_or("too early, or nothing to do".into(), |to| self.names(&to)));
                    }
                    "many" => {
                        let mut got: BTreeMap<PeerId, usize> = BTreeMap::new();
                        for _ in 0..times {
                            let pin = Subject { min, max, holders: &holders };
                            let growth = grow(&pin, &standing, &mut pool, repin);
                            for new in growth.to.iter().flatten().filter(|p| !holders.contains(p)) {
                                *got.entry(*new).or_default() += 1;
                            }
                        }
                        let rows = got.iter().map(|(p, n)| format!("{} {n}", self.names(&[*p])));
                        return Ok(rows.collect::<Vec<_>>().join(", "));
                    }
                    _ => {}
                }
                let mut story = Vec::new();
                for _ in 0..10 {
                    let pin = Subject { min, max, holders: &holders };
                    let growth = grow(&pin, &standing, &mut pool, repin);
                    let next = match (&growth.to, growth.ask) {
                        (Some(to), _) => {
                            pinned.extend(to.iter().filter(|p| !holders.contains(p)));
                            Some(to.clone())
                        }
                        (None, true) => settle(&pin, &standing, &pool, &|p| held(&pinned, p)),
                        (None, false) => None,
                    };
                    let Some(next) = next else { break };
                    story.push(self.names(&next));
                    holders = next;
                }
                Ok(if story.is_empty() { "nothing moves".into() } else { story.join(" -> ") })
            }
            "slots" => {
                for arg in args.rest_key() {
                    let name = arg.key.clone().expect("a key");
                    let candidate = self.candidate(&name, &arg.value)?;
                    self.slots.push((name.clone(), candidate.metrics.last().ok_or("weight")?.weight as u64));
                    self.candidates.insert(name, candidate);
                }
                Ok(String::new())
            }
            "pins" => {
                let count: usize = args.next_pos().ok_or("COUNT")?.parse()?;
                let holders = self.list(&mut args, "on");
                self.pins.extend(std::iter::repeat_n(holders, count));
                Ok(String::new())
            }
            "rebalance" => {
                let count = |peer: &PeerId| self.pins.iter().filter(|p| p.contains(peer)).count() as u64;
                let slots = self.slots.iter().map(|(name, capacity)| {
                    let candidate = self.candidates[name].clone();
                    Slot { copies: count(&candidate.peer), candidate, capacity: *capacity }
                });
                let mut planner = Planner::new(slots.collect(), self.pins.len() as u64);
                let mut moved = 0;
                loop {
                    for pin in &mut self.pins {
                        if let Some(swap) = planner.consider(pin) {
                            pin.retain(|p| *p != swap.from);
                            assert!(!pin.contains(&swap.to), "one copy at a peer");
                            pin.push(swap.to);
                            moved += 1;
                        }
                    }
                    if !planner.next_round() {
                        break;
                    }
                }
                let count = |peer: &PeerId| self.pins.iter().filter(|p| p.contains(peer)).count() as u64;
                let rows = planner.slots().iter().zip(&self.slots).map(|(slot, (name, _))| {
                    assert_eq!(slot.copies, count(&slot.candidate.peer), "the planner counts right");
                    format!("{name} {}", slot.copies)
                });
                Ok(format!("{moved} moved: {}", rows.collect::<Vec<_>>().join(", ")))
            }
            other => Err(format!("no command {other}").into()),
        }
    }
}

#[test]
fn scripts() {
    let mut scripts: Vec<_> = std::fs::read_dir("tests/scripts/repin")
        .expect("scripts")
        .map(|e| e.expect("entry").path())
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 15, "{} scripts", scripts.len());
    for path in scripts {
        eprintln!("{}", path.display());
        goldenscript::run(&mut Script::default(), path).expect("script");
    }
}
