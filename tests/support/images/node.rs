//! The embedded node: a workload of puts, pins, removals, collections and restarts over small block files, and what
//! must hold after it is cut anywhere.
//!
//! A block that was acknowledged is whole, unless a collection that was asked for may have taken it; a pin that is
//! recorded is complete; what was collected stays away; and nothing that is served differs from its CID by a bit.

use super::disk::{Disk, Random};
use super::search::{Contract, Failure, Report, Search, Verdict};
use super::trace::{Child, Recording};
use bytes::Bytes;
use cid::Cid;
use futures::TryStreamExt as _;
use pinfold::ipfs::embedded::blocks::Durability;
use pinfold::ipfs::embedded::{Embedded, EmbeddedConfig};
use pinfold::ipfs::unixfs::hash::{cid_of, DAG_CBOR, RAW};
use pinfold::ipfs::{Block, Ipfs as _, PinRequest};
use pinfold::runtime::block_on;
use pinfold::state::PinMode;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Steps of one workload.
const STEPS: usize = 70;
/// Raw blocks that the workload knows.
const BLOCKS: u64 = 160;
/// Block files of this size, so that there are many.
const SEGMENT: u64 = 24 << 10;

/// One step.
#[derive(Clone, Debug)]
enum Step {
    /// Several at once, each durable when it is acknowledged: they share flushes.
    Put(Vec<Vec<Cid>>),
    /// Blocks that wait for no flush, and the pin that makes them durable.
    Pin {
        root: Cid,
        mode: PinMode,
        blocks: Vec<Cid>,
    },
    Unpin(Cid),
    Collect,
    /// These very blocks, where no pin holds them.
    Remove(Vec<Cid>),
    /// Write the index.
    Index,
    /// Stop cleanly, and start.
    Reopen,
    /// A flush of the disk fails in the middle of a put; after a restart the same is put again.
    FailedFlush(Vec<Cid>),
}

/// What will be done.
pub struct Plan {
    steps: Vec<Step>,
    content: BTreeMap<Cid, Bytes>,
    /// Blocks that a DAG has, its root among them.
    dags: BTreeMap<Cid, Vec<Cid>>,
}

fn raw(n: u64) -> (Cid, Bytes) {
    let mut random = Random::new(n ^ 0xb10c);
    let len = match random.below(20) {
        0 => 20_000 + random.below(15_000),
        1..=4 => 2_000 + random.below(6_000),
        _ => 8 + random.below(900),
    };
    let data: Bytes = (0..len).map(|_| random.next() as u8).collect::<Vec<_>>().into();
    (cid_of(1, RAW, &data), data)
}

/// A DAG-CBOR list of links.
fn list(leaves: &[Cid]) -> Bytes {
    let mut out = vec![0x80 + leaves.len() as u8];
    for leaf in leaves {
        let bytes = leaf.to_bytes();
        out.extend_from_slice(&[0xd8, 0x2a, 0x58, bytes.len() as u8 + 1, 0]);
        out.extend_from_slice(&bytes);
    }
    out.into()
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Plan {
        Plan::of(seed, STEPS)
    }

    /// The same with another number of steps.
    pub fn of(seed: u64, steps: usize) -> Plan {
        let mut random = Random::new(seed);
        let mut plan =
            Plan { steps: Vec::new(), content: (0..BLOCKS).map(raw).collect(), dags: BTreeMap::new() };
        let cids: Vec<Cid> = plan.content.keys().copied().collect();
        let any = |random: &mut Random, n: u64| -> Vec<Cid> {
            (0..1 + random.below(n)).map(|_| cids[random.below(BLOCKS) as usize]).collect()
        };
        let mut pinned: Vec<Cid> = Vec::new();
        for _ in 0..steps {
            let step = match random.below(25) {
                0..=6 => Step::Put((0..1 + random.below(3)).map(|_| any(&mut random, 4)).collect()),
                7..=11 => {
                    let leaves = any(&mut random, 8);
                    let data = list(&leaves);
                    let root = cid_of(1, DAG_CBOR, &data);
                    plan.content.insert(root, data);
                    let blocks: Vec<Cid> = leaves.into_iter().chain([root]).collect();
                    plan.dags.insert(root, blocks.clone());
                    pinned.push(root);
                    Step::Pin { root, mode: PinMode::Recursive, blocks }
                }
                12 => {
                    let root = any(&mut random, 1)[0];
                    pinned.push(root);
                    plan.dags.insert(root, vec![root]);
                    Step::Pin { root, mode: PinMode::Direct, blocks: vec![root] }
                }
                13..=15 if !pinned.is_empty() => {
                    let at = random.below(pinned.len() as u64) as usize;
                    let root = pinned.swap_remove(at);
                    pinned.retain(|cid| *cid != root);
                    Step::Unpin(root)
                }
                16..=18 => Step::Collect,
                19 => Step::Remove(any(&mut random, 6)),
                20 => Step::Index,
                21 => Step::FailedFlush(any(&mut random, 4)),
                _ => Step::Reopen,
            };
            plan.steps.push(step);
        }
        plan
    }

    fn blocks(&self, cids: &[Cid]) -> Vec<(Cid, Bytes)> {
        cids.iter().map(|cid| (*cid, self.content[cid].clone())).collect()
    }
}

async fn open(folder: &Path) -> pinfold::Result<Embedded> {
    let keys = libp2p::identity::Keypair::ed25519_from_bytes([7; 32]).expect("a key");
    let mut config = EmbeddedConfig::new(folder.join("data/ipfs"), keys);
    config.segment_size = SEGMENT;
    config.gc_grace = Duration::ZERO;
    config.pin_timeout = Duration::from_secs(5);
    config.storage_max = 1 << 30;
    // The tasks of the node before end in their own time, and the last one lets the folder go.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match Embedded::open(config.clone()).await {
            Err(error)
                if (error.kind() == pinfold::Kind::Conflict || error.message().contains("already open"))
                    && std::time::Instant::now() < deadline =>
            {
                pinfold::runtime::sleep(Duration::from_millis(1)).await;
            }
            other => return other,
        }
    }
}

async fn put(node: &Embedded, plan: &Plan, cids: &[Cid]) -> pinfold::Result<()> {
    let blocks = plan.blocks(cids).into_iter().map(|(cid, data)| Block { cid, data });
    node.put_blocks(blocks.collect()).await
}

async fn pin(node: &Embedded, root: Cid, mode: PinMode) -> pinfold::Result<()> {
    let request = PinRequest { cid: root, mode, update_from: None, providers: Vec::new() };
    node.pin(request, Arc::new(|_| {})).await
}

async fn collect(node: &Embedded) -> pinfold::Result<Vec<Cid>> {
    node.gc().await?.try_collect().await
}

/// Does the plan, saying what begins and what is acknowledged; `order` is for the recorder.
///
/// # Errors
/// The first error of the node; nothing after it was done.
pub async fn work(
    folder: &Path,
    plan: &Plan,
    say: &(dyn Fn(String) + Sync),
    order: Option<&(dyn Fn(&str) -> usize + Sync)>,
) -> pinfold::Result<()> {
    let mut node = open(folder).await?;
    say("open".into());
    for (i, step) in plan.steps.iter().enumerate() {
        say(format!("B{i}"));
        let done = match step {
            Step::Put(groups) => {
                let puts = groups.iter().enumerate().map(|(j, cids)| {
                    let node = &node;
                    async move {
                        put(node, plan, cids).await?;
                        say(format!("P{i}.{j}"));
                        Ok::<_, pinfold::Error>(())
                    }
                });
                futures::future::try_join_all(puts).await.map(drop)
            }
            Step::Pin { root, mode, blocks } => {
                let mut done = Ok(());
                for block in plan.blocks(blocks) {
                    if done.is_ok() {
                        done = node.blocks().put(vec![block], Durability::Written).await;
                    }
                }
                match done {
                    Ok(()) => pin(&node, *root, *mode).await,
                    error => error,
                }
            }
            Step::Unpin(cid) => node.unpin(cid).await,
            Step::Collect => collect(&node).await.map(drop),
            Step::Remove(cids) => node.remove_blocks(cids.clone()).await.map(drop),
            Step::Index => node.blocks_here().await.map(drop),
            Step::Reopen => {
                node.close().await;
                drop(node);
                node = open(folder).await?;
                Ok(())
            }
            Step::FailedFlush(cids) => {
                if let Some(order) = order {
                    drop(node.blocks_here().await?);
                    // The write passes, its flush does not.
                    order("!fail 2 5 0");
                    let first = put(&node, plan, cids).await;
                    order("!ok");
                    if first.is_err() {
                        node.close().await;
                        drop(node);
                        node = open(folder).await?;
                    }
                }
                put(&node, plan, cids).await
            }
        };
        if let Err(error) = done {
            for (cid, data) in &plan.content {
                if let Ok(Some(bytes)) = node.blocks().get(cid) {
                    assert!(bytes == data, "after {error}, {cid} was served with other bytes");
                }
            }
            node.close().await;
            return Err(error);
        }
        say(format!("D{i}"));
    }
    node.close().await;
    Ok(())
}

/// What the child has said.
#[derive(Clone, Debug, Default)]
pub struct Known {
    open: bool,
    /// Steps that were acknowledged.
    done: usize,
    /// The one under way.
    begun: Option<usize>,
    /// Its parts that were acknowledged.
    parts: BTreeSet<usize>,
    marks: u64,
}

/// See [`Contract`].
pub struct Kept {
    plan: Plan,
    /// What is promised after so many steps, none of the next begun.
    after: Vec<Promise>,
}

/// What is promised.
#[derive(Clone, Default)]
struct Promise {
    /// Must be whole.
    whole: BTreeSet<Cid>,
    /// Were removed, and must not come back.
    gone: BTreeSet<Cid>,
    pins: BTreeMap<Cid, PinMode>,
}

impl Promise {
    fn put(&mut self, cids: &[Cid]) {
        for cid in cids {
            self.whole.insert(*cid);
            self.gone.remove(cid);
        }
    }

    fn live(&self, plan: &Plan) -> BTreeSet<Cid> {
        let reached = |(root, mode): (&Cid, &PinMode)| match mode {
            PinMode::Recursive => plan.dags[root].clone(),
            PinMode::Direct => vec![*root],
        };
        self.pins.iter().flat_map(reached).collect()
    }

    /// After this step was acknowledged.
    fn done(&mut self, step: &Step, plan: &Plan) {
        match step {
            Step::Put(groups) => groups.iter().for_each(|cids| self.put(cids)),
            Step::Pin { root, mode, blocks } => {
                self.put(blocks);
                self.pins.insert(*root, *mode);
            }
            Step::Unpin(cid) => drop(self.pins.remove(cid)),
            Step::Collect => {
                let live = self.live(plan);
                self.gone = plan.content.keys().filter(|cid| !live.contains(*cid)).copied().collect();
                self.whole = live;
            }
            Step::Remove(cids) => {
                let live = self.live(plan);
                for cid in cids.iter().filter(|cid| !live.contains(*cid)) {
                    self.whole.remove(cid);
                    self.gone.insert(*cid);
                }
            }
            Step::Index | Step::Reopen => {}
            Step::FailedFlush(cids) => self.put(cids),
        }
    }

    /// While this step is under way.
    fn begun(&mut self, step: &Step, plan: &Plan, parts: &BTreeSet<usize>) {
        let touched: Vec<Cid> = match step {
            Step::Put(groups) => {
                parts.iter().for_each(|part| self.put(&groups[*part]));
                groups.concat()
            }
            Step::Pin { blocks, .. } | Step::FailedFlush(blocks) => blocks.clone(),
            Step::Collect => {
                let live = self.live(plan);
                self.whole.retain(|cid| live.contains(cid));
                Vec::new()
            }
            Step::Remove(cids) => {
                let live = self.live(plan);
                self.whole.retain(|cid| live.contains(cid) || !cids.contains(cid));
                Vec::new()
            }
            Step::Unpin(_) | Step::Index | Step::Reopen => Vec::new(),
        };
        // May be there again.
        self.gone.retain(|cid| !touched.contains(cid));
    }
}

impl Kept {
    /// The contract of a plan.
    pub fn new(plan: Plan) -> Kept {
        // Before the first collection nothing was removed.
        let mut promise = Promise::default();
        let mut after = vec![promise.clone()];
        for step in &plan.steps {
            promise.done(step, &plan);
            after.push(promise.clone());
        }
        Kept { plan, after }
    }

    async fn look(&self, folder: &Path, known: &Known, mut random: Random) -> Result<Verdict, String> {
        let node = match open(folder).await {
            Ok(node) => node,
            Err(error) if !known.open => {
                let sentence = error.message().to_string();
                return if sentence.len() > 10 { Ok(Verdict::Refused) } else { Err("no sentence".into()) };
            }
            Err(error) => return Err(format!("refused: {error}")),
        };
        let result = self.inside(&node, known, &mut random).await;
        node.close().await;
        result.map(|()| Verdict::Kept)
    }

    async fn inside(&self, node: &Embedded, known: &Known, random: &mut Random) -> Result<(), String> {
        let mut promise = self.after[known.done].clone();
        let under_way = known.begun.map(|i| &self.plan.steps[i]);
        if let Some(step) = under_way {
            promise.begun(step, &self.plan, &known.parts);
        }
        let text = |e: pinfold::Error| e.to_string();
        // Pins: those that were acknowledged, and no other but what is under way.
        let pins: BTreeMap<Cid, PinMode> =
            node.list_pins().await.map_err(text)?.try_collect().await.map_err(|e| format!("pins: {e}"))?;
        let mut wanted = promise.pins.clone();
        match under_way {
            Some(Step::Pin { root, mode, .. }) if pins.get(root) == Some(mode) => {
                wanted.insert(*root, *mode);
            }
            Some(Step::Unpin(cid)) if !pins.contains_key(cid) => {
                wanted.remove(cid);
            }
            _ => {}
        }
        if pins != wanted {
            return Err(format!("the pins are {pins:?} and should be {wanted:?}"));
        }
        // What is pinned is whole, acknowledged or not.
        let mut whole = promise.whole.clone();
        whole.extend(Promise { pins, ..Promise::default() }.live(&self.plan));
        self.blocks(node, &whole, &promise.gone)?;
        let here: Vec<Cid> =
            node.blocks_here().await.map_err(text)?.try_collect().await.map_err(|e| format!("index: {e}"))?;
        let count = node.repo_stat().await.map_err(text)?.objects;
        if count != Some(here.len() as u64) {
            return Err(format!("{count:?} blocks are counted, {} are in the index", here.len()));
        }
        if random.one_in(4) {
            collect(node).await.map_err(|e| format!("a collection: {e}"))?;
            let live = Promise { pins: wanted, ..Promise::default() }.live(&self.plan);
            self.blocks(node, &live, &BTreeSet::new())?;
            let all: Vec<Cid> = self.plan.content.keys().copied().collect();
            let some: Vec<Cid> = (0..20).map(|_| all[random.below(all.len() as u64) as usize]).collect();
            put(node, &self.plan, &some).await.map_err(|e| format!("a put: {e}"))?;
            self.blocks(node, &some.into_iter().chain(live).collect(), &BTreeSet::new())?;
        }
        Ok(())
    }

    /// Reads everything there ever was.
    fn blocks(&self, node: &Embedded, whole: &BTreeSet<Cid>, gone: &BTreeSet<Cid>) -> Result<(), String> {
        for (cid, data) in &self.plan.content {
            let found = node.blocks().get(cid);
            match &found {
                Ok(Some(bytes)) if bytes != data => return Err(format!("{cid} was served with other bytes")),
                Ok(Some(_)) if gone.contains(cid) => return Err(format!("{cid} was removed and is back")),
                Ok(Some(_)) => {}
                Ok(None) if whole.contains(cid) => return Err(format!("{cid} was acknowledged and is gone")),
                Err(error) if whole.contains(cid) => return Err(format!("{cid} was acknowledged: {error}")),
                Ok(None) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Contract for Kept {
    type Known = Known;

    fn note(&self, known: &mut Known, mark: &str) {
        known.marks += 1;
        let number = |text: &str| text.parse::<usize>().unwrap_or(0);
        match mark.as_bytes().first() {
            Some(b'o') => known.open = true,
            Some(b'B') => (known.begun, known.parts) = (Some(number(&mark[1..])), BTreeSet::new()),
            Some(b'P') => {
                known.parts.insert(number(mark.split('.').nth(1).unwrap_or_default()));
            }
            Some(b'D') => (known.done, known.begun) = (number(&mark[1..]) + 1, None),
            _ => {}
        }
    }

    fn level(&self, known: &Known) -> u64 {
        known.marks
    }

    fn check(&self, folder: &Path, known: &Known, random: Random) -> Result<Verdict, String> {
        block_on(self.look(folder, known, random))
    }
}

/// The child's work; `work` is the seed.
pub fn child() {
    let Some(child) = Child::here() else { return };
    let seed: u64 = child.work.parse().expect("a seed");
    let say = |text: String| child.mark(&text);
    let order = |text: &str| child.order(text);
    block_on(work(&child.root, &Plan::new(seed), &say, Some(&order))).expect("the workload");
    child.mark("end");
}

/// Records one workload and searches its images.
///
/// # Errors
/// The first image that breaks the contract.
pub fn search(seed: u64, images: u64, only: Option<(usize, usize)>) -> Result<Report, Box<Failure>> {
    let broken = |message: String| Box::new(Failure { message, after: 0 });
    let folder = super::search::fast_folder();
    let recording = Recording::new(folder.path());
    let before = Disk::with(&recording.root);
    recording.run("child_node", &seed.to_string()).map_err(broken)?;
    let events = recording.events().map_err(broken)?;
    let contract = Kept::new(Plan::new(seed));
    Search { name: "node", seed, before: &before, events: &events, contract: &contract, images, only }.run()
}
