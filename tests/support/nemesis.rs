//! Peers, and what is done to them: kill -9, SIGSTOP, a network that is cut, a disk that is full, clean stops.
//!
//! As root each peer is a board of its own, in a network namespace behind a switch (`boards.rs`), with a small disk of
//! its own (`disk.rs`); else they are processes on loopback, and networks and disks are left alone. Clients reach each
//! peer on its own board, over loopback, which no cut touches: what is cut is the way between peers.
//!
//! The faults of a run are a deck of cards that is shuffled by the seed, so that every run has as many of each as it
//! says. After each fault everything is made good again, and every peer must answer a strong read within
//! [`RECOVERY`]; where a majority was left, writes must have gone on before that.
//!
//! kill -9 takes the process, not the page cache: what was written and not flushed survives it. What does not
//! survive a power cut is another test's subject.

use crate::dice::Dice;
use crate::history::{Door, Load, Silence, Wish};
use crate::support::boards::{self, Boards};
use crate::support::cluster::{is_root, Peer, SECRET};
use crate::support::disk::SmallDisk;
use crate::support::executable::executable;
use crate::support::{skip, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a cluster with a majority, and then each peer of a whole one, may need to work again, on a machine
/// that compiles beside it.
pub const RECOVERY: Duration = Duration::from_secs(45);
/// Size of each peer's disk, MiB.
const DISK: u32 = 96;
/// Consensus is told to be quick, so that there are many elections, and to give up soon, so that a request ends before
/// its client does. Its log is short, so that peers who were away get snapshots.
const CONSENSUS: [(&str, &str); 6] = [
    ("heartbeat_timeout", "\"100ms\""),
    ("election_timeout", "\"500ms\""),
    ("network_timeout", "\"3s\""),
    ("wait_for_leader_timeout", "\"3s\""),
    ("snapshot_interval", "\"1s\""),
    ("snapshot_threshold", "200"),
];
/// Log entries kept for peers that were away.
const TRAILING: u32 = 50;
/// Longest that the driver of one peer may need to say who leads.
const ASK: Duration = Duration::from_secs(2);
/// Clients that read at a peer that was just woken.
const READERS: u32 = 6;
/// The first number of clients that are no ordinary ones.
const EXTRA: u32 = 900;

/// To whom something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Anyone,
    Leader,
    /// A majority.
    Most,
    All,
}

/// How the network is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The leader by itself.
    Leader,
    /// A minority by itself, or with the leader.
    Minority,
    /// Nobody hears the leader, and it hears everybody.
    LeaderUnheard,
    /// The leader hears nobody, and everybody hears it.
    LeaderDeaf,
    /// One peer does not hear one other.
    OneWire,
    /// Each hears only its neighbours.
    Chain,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9, and a start after a while.
    Kill(Whom),
    /// kill -9, and again while it starts.
    KillTwice,
    /// SIGSTOP for longer than an election takes.
    Pause(Whom),
    /// The leader sleeps, another one takes over and is written to, and the old one is read the moment it wakes.
    StaleRead,
    Partition(Cut),
    /// No byte is free on a peer's disk.
    FullDisk,
    /// SIGTERM, by which a leader hands over.
    Stop(Whom),
}

impl Fault {
    /// Kills in it.
    fn kills(self, peers: usize) -> usize {
        match self {
            Fault::Kill(Whom::All) => peers,
            Fault::Kill(Whom::Most) => peers / 2 + 1,
            Fault::Kill(_) => 1,
            Fault::KillTwice => 2,
            _ => 0,
        }
    }
}

/// What is done once in every round.
const ROUND: [Fault; 16] = [
    Fault::Kill(Whom::Leader),
    Fault::Kill(Whom::Leader),
    Fault::Kill(Whom::Anyone),
    Fault::Kill(Whom::Most),
    Fault::Kill(Whom::All),
    Fault::KillTwice,
    Fault::Pause(Whom::Leader),
    Fault::Pause(Whom::Most),
    Fault::StaleRead,
    Fault::Partition(Cut::Leader),
    Fault::Partition(Cut::Minority),
    Fault::Partition(Cut::LeaderUnheard),
    Fault::FullDisk,
    Fault::Stop(Whom::Leader),
    // Two that differ from round to round.
    Fault::Partition(Cut::OneWire),
    Fault::Stop(Whom::Anyone),
];
const IN_TURN: [[Fault; 2]; 3] = [
    [Fault::Partition(Cut::OneWire), Fault::Stop(Whom::Anyone)],
    [Fault::Partition(Cut::LeaderDeaf), Fault::Pause(Whom::Anyone)],
    [Fault::Partition(Cut::Chain), Fault::FullDisk],
];

/// A shuffled deck with at least this many kills.
pub fn deck(dice: &mut Dice, peers: usize, kills: usize) -> Vec<Fault> {
    let (mut deck, mut planned, mut rounds) = (Vec::new(), 0, 0);
    while planned < kills {
        let mut round = ROUND.to_vec();
        round.truncate(ROUND.len() - 2);
        round.extend(IN_TURN[rounds % IN_TURN.len()]);
        round.retain(|f| is_root() || !matches!(f, Fault::Partition(_) | Fault::FullDisk));
        planned += round.iter().map(|f| f.kills(peers)).sum::<usize>();
        dice.shuffle(&mut round);
        deck.extend(round);
        rounds += 1;
    }
    deck
}

/// What was done, and how long it was felt.
#[derive(Default)]
pub struct Done {
    pub kills: usize,
    /// Kills that cut a request under way.
    pub hits: usize,
    pub pauses: usize,
    pub partitions: usize,
    pub full: usize,
    /// Peers that ended by themselves on a full disk, as they may.
    pub ended: usize,
    pub stops: usize,
    pub leaders: BTreeSet<(u64, String)>,
    /// From a fault that left a majority to the next acknowledged write.
    pub felt: Vec<(Duration, Fault)>,
    /// From the end of a fault until every peer answered a strong read.
    pub recovered: Vec<(Duration, Fault)>,
    /// Strong reads at a leader that had just been woken.
    pub woken: usize,
    /// What no log may say.
    pub complaints: Vec<String>,
}

/// The peers of one run. They end before their disks do, and these before the boards.
pub struct Arena {
    pub peers: Vec<Peer>,
    programs: Vec<PathBuf>,
    /// Where each peer's API is.
    pub doors: Vec<Door>,
    disks: Vec<SmallDisk>,
    boards: Option<Boards>,
    _folder: Option<tempfile::TempDir>,
    pub done: Done,
}

impl Arena {
    /// A cluster of so many peers.
    pub fn new(count: usize) -> Arena {
        let boards = if is_root() { Boards::new(count) } else { None };
        let folder = boards.is_none().then(|| tempfile::tempdir().expect("a folder"));
        if boards.is_none() {
            skip("without root there are no cut networks and no full disks, only kills and pauses");
        }
        let mut arena = Arena {
            peers: Vec::new(),
            programs: Vec::new(),
            doors: Vec::new(),
            disks: Vec::new(),
            boards,
            _folder: folder,
            done: Done::default(),
        };
        for n in 1..=count {
            let home = match (&arena.boards, &arena._folder) {
                (Some(boards), _) => boards.home(n),
                (None, Some(folder)) => folder.path().join(format!("p{n}")),
                (None, None) => unreachable!("one of them is there"),
            };
            let folder = home.join("p");
            arena.disks.extend(arena.boards.as_ref().and_then(|_| SmallDisk::mount(&folder, DISK)));
            std::fs::create_dir_all(&folder).expect("a folder");
            let peer = Peer::init(folder.clone(), &format!("p{n}"), SECRET);
            let program = home.join("pinfold");
            peer.edit(|config| {
                if arena.boards.is_some() {
                    let at = format!("/ip4/{}/tcp/9096", boards::address(n));
                    config["cluster"]["listen_multiaddress"] = at.into();
                }
                // What a full disk or a lost moment left behind is tried again soon.
                config["cluster"]["pin_recover_interval"] = "3s".into();
                config["cluster"]["state_sync_interval"] = "3s".into();
                let raft = &mut config["consensus"]["raft"];
                for (key, value) in CONSENSUS {
                    raft[key] = serde_json::from_str(value).expect("JSON");
                }
                raft["trailing_logs"] = TRAILING.into();
            });
            let inside = arena.boards.as_ref().map(|b| format!("ip netns exec {} ", b.namespace(n)));
            let script = format!(
                // Without a line for each request: it would drown the rest.
                "#!/bin/sh\nexec {}{} -l info,restapilog:error \"$@\"\n",
                inside.unwrap_or_default(),
                executable().display()
            );
            std::fs::write(&program, script).expect("a script");
            let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
            std::fs::set_permissions(&program, mode).expect("a mode");
            let address = peer.rest();
            let porter = arena.boards.as_ref().map(|b| b.porter(n));
            arena.doors.push(Door { address, porter });
            arena.peers.push(peer);
            arena.programs.push(program);
        }
        arena.peers[0].start_as(&arena.programs[0], &["daemon"]);
        let bootstrap = arena.peers[0].address();
        for n in 1..count {
            arena.peers[n].start_as(&arena.programs[n], &["daemon", "--bootstrap", &bootstrap]);
        }
        for n in 0..count {
            wait_for("voters", RECOVERY, || {
                let health = arena.health(n).unwrap_or_default();
                let members = health["members"].as_array().cloned().unwrap_or_default();
                let voters = members.iter().filter(|m| m["role"] == "voter").count();
                (voters == count).then_some(()).ok_or_else(|| health.to_string())
            });
        }
        arena
    }

    /// The whole answer to a GET that must succeed, line by line.
    pub fn lines(&self, peer: usize, path: &str) -> Vec<Value> {
        let answer = self.doors[peer].ask("GET", path, RECOVERY).expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text().lines().map(|l| serde_json::from_str(l).expect("JSON")).collect()
    }

    /// What a peer knows of the leader; `None` when it does not answer.
    pub fn health(&self, peer: usize) -> Option<Value> {
        let answer = self.doors[peer].ask("GET", "/health/consensus", ASK).ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// The leader of the highest term that any of these peers knows.
    fn leader_among(&self, peers: &[usize]) -> Option<(u64, usize)> {
        let known = peers.iter().filter_map(|p| {
            let health = self.health(*p)?;
            let leader = self.peers.iter().position(|p| health["leader"] == p.id().as_str())?;
            Some((health["term"].as_u64()?, leader))
        });
        known.max()
    }

    /// Waits for a leader that is one of these peers.
    fn leader(&mut self, among: &[usize]) -> usize {
        let (term, leader) = wait_for("a leader", RECOVERY, || {
            self.leader_among(among).filter(|(_, l)| among.contains(l)).ok_or_else(String::new)
        });
        self.done.leaders.insert((term, self.peers[leader].id()));
        leader
    }

    fn all(&self) -> Vec<usize> {
        (0..self.peers.len()).collect()
    }

    fn victims(&mut self, whom: Whom, dice: &mut Dice) -> Vec<usize> {
        let mut all = self.all();
        match whom {
            Whom::Leader => vec![self.leader(&all)],
            Whom::All => all,
            Whom::Anyone | Whom::Most => {
                dice.shuffle(&mut all);
                all.truncate(if whom == Whom::Most { self.peers.len() / 2 + 1 } else { 1 });
                all
            }
        }
    }

    fn leaves_majority(&self, victims: &[usize]) -> bool {
        self.peers.len() - victims.len() > self.peers.len() / 2
    }

    /// Waits for a write that was asked for after `since`, and notes how long that took.
    fn feel(&mut self, load: &Load, since: Instant, fault: Fault) {
        let took = wait_for(&format!("a write during {fault:?}"), RECOVERY, || {
            load.next_write(since).ok_or_else(|| self.report())
        });
        self.done.felt.push((took, fault));
    }

    /// What the peers say, for a failure.
    fn report(&self) -> String {
        let all = self.all();
        let of = |p: usize| {
            let log = self.peers[p].log();
            let last: Vec<&str> = log.lines().rev().take(15).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            format!("--- p{}: {:?}\n{}\n", p + 1, self.health(p).map(|h| h.to_string()), last.join("\n"))
        };
        all.into_iter().map(of).collect()
    }

    /// Notes what must not be in the log of a life that is over, or of the present one.
    pub fn read_log(&mut self, peer: usize) {
        let log = self.peers[peer].log();
        let bad = ["panicked at", "this is a defect", "met a defect"];
        let lines = log.lines().filter(|l| bad.iter().any(|b| l.contains(b)));
        self.done.complaints.extend(lines.map(|l| format!("p{}: {l}", peer + 1)));
    }

    fn spawn(&mut self, peer: usize) {
        self.read_log(peer);
        self.peers[peer].spawn_as(&self.programs[peer], &["daemon"]);
    }

    fn kill(&mut self, load: &Load, victims: &[usize]) {
        let before = load.tally.cut.load(Ordering::Relaxed);
        for v in victims {
            self.peers[*v].kill();
            self.done.kills += 1;
        }
        // A moment for the clients to notice: not needed for anything but the count.
        std::thread::sleep(Duration::from_millis(20));
        self.done.hits += (load.tally.cut.load(Ordering::Relaxed) - before).min(victims.len());
    }

    /// Waits until every peer works: a strong read at each is answered.
    pub fn recover(&mut self, since: Instant, fault: Fault) {
        for (n, door) in self.doors.clone().iter().enumerate() {
            wait_for(&format!("a strong read at p{} after {fault:?}", n + 1), RECOVERY, || {
                match door.ask("GET", "/id?consistency=strong", RECOVERY) {
                    Ok(answer) if answer.status == 200 => Ok(()),
                    Ok(answer) => Err(format!("{}\n{}", answer.text(), self.report())),
                    Err(Silence::Cut(why)) => Err(format!("{why}\n{}", self.report())),
                    Err(Silence::Closed) => Err(format!("nobody there\n{}", self.report())),
                }
            });
        }
        self.done.recovered.push((since.elapsed(), fault));
        let all = self.all();
        self.leader(&all);
    }

    /// Does it, undoes it, and waits until everything works.
    pub fn suffer(&mut self, fault: Fault, load: &Load, dice: &mut Dice) {
        let began = Instant::now();
        match fault {
            Fault::Kill(whom) => {
                let victims = self.victims(whom, dice);
                let now = Instant::now();
                self.kill(load, &victims);
                if self.leaves_majority(&victims) {
                    self.feel(load, now, fault);
                }
                std::thread::sleep(dice.millis(0, 400));
                self.restart(&victims);
            }
            Fault::KillTwice => {
                let victims = self.victims(Whom::Anyone, dice);
                self.kill(load, &victims);
                self.spawn(victims[0]);
                std::thread::sleep(dice.millis(0, 250));
                self.kill(load, &victims);
                self.restart(&victims);
            }
            Fault::Pause(whom) => {
                let victims = self.victims(whom, dice);
                let now = Instant::now();
                victims.iter().for_each(|v| self.peers[*v].signal("STOP"));
                self.done.pauses += victims.len();
                if self.leaves_majority(&victims) {
                    self.feel(load, now, fault);
                }
                // Beyond the longest election timeout, which is twice the shortest.
                std::thread::sleep(dice.millis(1_200, 2_000).saturating_sub(now.elapsed()));
                victims.iter().for_each(|v| self.peers[*v].signal("CONT"));
            }
            Fault::StaleRead => self.stale_read(load, dice),
            Fault::Partition(cut) => self.partition(cut, load, dice),
            Fault::FullDisk => self.full_disk(load, dice),
            Fault::Stop(whom) => {
                let victims = self.victims(whom, dice);
                let (status, _) = self.peers[victims[0]].stop();
                if !status.success() {
                    self.done.complaints.push(format!("p{} ended with {status}", victims[0] + 1));
                }
                self.done.stops += 1;
                self.feel(load, Instant::now(), fault);
                self.restart(&victims);
            }
        }
        let healed = Instant::now();
        self.recover(healed, fault);
        eprintln!("  {fault:?}: {:.1} s", began.elapsed().as_secs_f64());
    }

    fn restart(&mut self, victims: &[usize]) {
        victims.iter().for_each(|v| self.spawn(*v));
        victims.iter().for_each(|v| self.peers[*v].wait_ready());
    }

    fn stale_read(&mut self, load: &Load, dice: &mut Dice) {
        let all = self.all();
        let asleep = self.leader(&all);
        self.peers[asleep].signal("STOP");
        self.done.pauses += 1;
        let now = Instant::now();
        let awake: Vec<usize> = all.into_iter().filter(|p| *p != asleep).collect();
        let leader = self.leader(&awake);
        self.feel(load, now, Fault::StaleRead);
        let register = load.register(dice);
        wait_for("a write at the new leader", RECOVERY, || {
            load.perform(EXTRA, leader, &register, Wish::Pin).then_some(()).ok_or_else(String::new)
        });
        let read = |reader: u32| load.perform(EXTRA + 1 + reader, asleep, &register, Wish::Read);
        let peer = &self.peers[asleep];
        let woken = std::thread::scope(|scope| {
            // Some have asked before it wakes, and some ask as it does.
            let mut readers: Vec<_> = (0..READERS).map(|r| scope.spawn(move || read(r))).collect();
            std::thread::sleep(Duration::from_millis(50));
            peer.signal("CONT");
            readers.extend((READERS..2 * READERS).map(|r| scope.spawn(move || read(r))));
            readers.into_iter().map(|r| usize::from(r.join().expect("a reader"))).sum::<usize>()
        });
        self.done.woken += woken;
    }

    fn partition(&mut self, cut: Cut, load: &Load, dice: &mut Dice) {
        let all = self.all();
        let leader = self.leader(&all);
        let mut others: Vec<usize> = all.iter().copied().filter(|p| *p != leader).collect();
        dice.shuffle(&mut others);
        let both = |left: &[usize], right: &[usize]| -> Vec<(usize, usize)> {
            left.iter().flat_map(|l| right.iter().flat_map(move |r| [(*l, *r), (*r, *l)])).collect()
        };
        let silent: Vec<(usize, usize)> = match cut {
            Cut::Leader => both(&[leader], &others),
            Cut::Minority => {
                // With the leader in it, or without.
                let mut order = others.clone();
                order.insert(if dice.one_in(2) { 0 } else { order.len() }, leader);
                let (few, most) = order.split_at((self.peers.len() - 1) / 2);
                both(few, most)
            }
            Cut::LeaderUnheard => others.iter().map(|o| (leader, *o)).collect(),
            Cut::LeaderDeaf => others.iter().map(|o| (*o, leader)).collect(),
            Cut::OneWire => {
                let (from, to) = if dice.one_in(2) { (leader, others[0]) } else { (others[0], others[1]) };
                vec![(from, to)]
            }
            Cut::Chain => {
                let mut order = all.clone();
                dice.shuffle(&mut order);
                let far = |i: usize, j: usize| i.abs_diff(j) > 1;
                let pairs = all.iter().flat_map(|i| all.iter().map(move |j| (*i, *j)));
                pairs.filter(|(i, j)| far(*i, *j)).map(|(i, j)| (order[i], order[j])).collect()
            }
        };
        let boards = self.boards.as_ref().expect("partitions are planned for boards only");
        let now = Instant::now();
        silent.iter().for_each(|(from, to)| boards.silence(from + 1, to + 1));
        self.done.partitions += 1;
        self.feel(load, now, Fault::Partition(cut));
        std::thread::sleep(dice.millis(1_000, 2_500).saturating_sub(now.elapsed()));
        let boards = self.boards.as_ref().expect("it was there");
        silent.iter().for_each(|(from, to)| boards.hear(from + 1, to + 1));
    }

    fn full_disk(&mut self, load: &Load, dice: &mut Dice) {
        let whom = *dice.pick(&[Whom::Leader, Whom::Anyone]);
        let victim = self.victims(whom, dice)[0];
        self.disks[victim].fill_to(0);
        self.done.full += 1;
        self.feel(load, Instant::now(), Fault::FullDisk);
        std::thread::sleep(dice.millis(500, 1_500));
        self.disks[victim].make_room();
        // It goes on by itself, or has ended or is about to, with the reason.
        let door = self.doors[victim].clone();
        let running = wait_for("a peer after its full disk", RECOVERY, || {
            let works = door.ask("GET", "/id?consistency=strong", ASK);
            match (self.peers[victim].is_running(), works) {
                (false, _) => Ok(false),
                (true, Ok(answer)) if answer.status == 200 => Ok(true),
                _ => Err(self.peers[victim].log()),
            }
        });
        if !running {
            self.done.ended += 1;
            let log = self.peers[victim].log();
            if !["disk", "No space left"].iter().any(|words| log.contains(words)) {
                self.done.complaints.push(format!("p{} ended without naming the disk:\n{log}", victim + 1));
            }
            self.peers[victim].kill();
            self.restart(&[victim]);
        }
    }
}
