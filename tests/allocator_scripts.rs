//! Golden scripts of the allocator: `tests/scripts/allocator/*`, each named after what it shows.
//! `UPDATE_GOLDENFILES=1 cargo test` writes them anew; the diff is the change of behaviour.

use goldenscript::{Command, Runner};
use libp2p::PeerId;
use pinfold::allocator::{allocate, Candidate, Request, Weighed};
use std::collections::BTreeMap;
use std::error::Error;

/// Commands: `peers a=100 b="50@attic"`, `gone a`, `allocate min=1 max=2 current="a,b" prefer=c`.
#[derive(Default)]
struct Script {
    ids: BTreeMap<String, PeerId>,
    candidates: BTreeMap<String, Candidate>,
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

    fn ids(&mut self, list: &str) -> Vec<PeerId> {
        list.split(',').filter(|n| !n.is_empty()).map(|n| self.id(n)).collect()
    }

    fn names(&self, ids: &[PeerId]) -> String {
        let name = |id: &PeerId| {
            self.ids.iter().find(|(_, i)| *i == id).map_or("?", |(n, _)| n.as_str()).to_string()
        };
        ids.iter().map(name).collect::<Vec<_>>().join(" ")
    }
}

impl Runner for Script {
    fn run(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "peers" => {
                for arg in args.rest_key() {
                    let name = arg.key.clone().expect("a key");
                    let (weight, group) = match arg.value.split_once('@') {
                        Some((weight, group)) => (weight, Some(group)),
                        None => (arg.value.as_str(), None),
                    };
                    let peer = self.id(&name);
                    let free =
                        Weighed { weight: weight.parse()?, value: weight.into(), partitionable: false };
                    let group = group.map(|g| Weighed { weight: 0, value: g.into(), partitionable: true });
                    let metrics = group.into_iter().chain([free]).collect();
                    self.candidates.insert(name, Candidate { peer, metrics });
                }
            }
            "gone" => {
                for arg in args.rest_pos() {
                    self.candidates.remove(&arg.value);
                }
            }
            "allocate" => {
                let min = args.lookup_parse("min")?.unwrap_or(1);
                let max = args.lookup_parse("max")?.unwrap_or(min);
                let text =
                    |arg: Option<&goldenscript::Argument>| arg.map(|a| a.value.clone()).unwrap_or_default();
                let current = self.ids(&text(args.lookup("current")));
                let preferred = self.ids(&text(args.lookup("prefer")));
                args.reject_rest()?;
                let candidates: Vec<Candidate> = self.candidates.values().cloned().collect();
                let request =
                    Request { min, max, current: &current, preferred: &preferred, candidates: &candidates };
                return Ok(match allocate(&request) {
                    Ok(chosen) if chosen.is_empty() => "everywhere".into(),
                    Ok(chosen) => self.names(&chosen),
                    Err(error) => format!("{:?}: {error}", error.kind()),
                });
            }
            other => return Err(format!("no command {other}").into()),
        }
        Ok(String::new())
    }
}

#[test]
fn scripts() {
    for script in std::fs::read_dir("tests/scripts/allocator").expect("scripts") {
        let path = script.expect("entry").path();
        eprintln!("{}", path.display());
        goldenscript::run(&mut Script::default(), path).expect("script");
    }
}
