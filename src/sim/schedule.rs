//! What happens to a cluster, as data: who is asked for what, and which misfortune strikes, at which moment.
//!
//! A run is its seed and its schedule. The schedule follows from the seed, but a run with a part of it left out is a run
//! too: that is how a failure is shortened. So each event makes sense whatever happened before: it names a peer by
//! number or by what it is at that moment, and does nothing where it cannot do anything.

use super::client::{Request, Wish};
use super::knobs::{Knobs, REQUESTS};
use super::network::{Faults, Peer, TICK};
use super::Rng;
use std::fmt;

/// Whom something strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// This one.
    Peer(Peer),
    /// Whoever leads.
    Leader,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Somebody asks this peer for this.
    Ask(Peer, Request),
    /// The network becomes as bad as this.
    Faults(Faults),
    /// The power goes.
    Crash(Whom),
    /// The power goes while the disk works on the peer's next turn.
    CrashMid(Whom),
    /// It starts again, if it is down.
    Restart(Peer),
    /// All that are down start again.
    RestartAll,
    /// It stands still for so many milliseconds, and then goes on.
    Pause(Whom, u64),
    /// A link breaks, in this direction only.
    CutOneWay(Peer, Peer),
    /// A link breaks.
    Cut(Peer, Peer),
    /// Two groups of peers do not hear each other: those whose bit is set, and the others.
    Split(u64),
    /// Nobody hears it any more, and it hears nobody.
    Isolate(Whom),
    /// It hears the others, but nobody hears it.
    Mute(Whom),
    /// All links are repaired.
    Heal,
    /// Its disk takes so many times as long.
    SlowDisk(Peer, u64),
    /// Its disk is as quick as it was.
    QuickDisk(Peer),
    /// Its next write fails and leaves nothing, or (true) leaves everything and still reports an error.
    BreakDisk(Whom, bool),
    /// Its disk is nearly full and refuses new work, or (true) takes nothing at all any more.
    FillDisk(Peer, bool),
    /// There is room on its disk again.
    Room(Peer),
    /// Its disk is lost; it comes back with an empty one.
    Wipe(Peer),
    /// It is removed from the cluster, as somebody asks of this peer.
    Remove(Peer, Peer),
    /// It begins anew if it was removed or never was a member.
    Join(Peer),
    /// The leader is asked to hand its office over.
    HandOver(Whom),
    /// Its ticks take so many milliseconds.
    Skew(Peer, u64),
    /// Its clock is so many seconds ahead.
    Clock(Peer, i64),
    /// The leader removes what has ended by its clock.
    Sweep,
}

/// The kinds of misfortune and of change, as reports count them.
pub const KINDS: [&str; 24] = [
    "bad network",
    "crash",
    "crash in a turn",
    "restart",
    "pause",
    "cut one way",
    "cut",
    "split",
    "isolate",
    "mute",
    "heal",
    "slow disk",
    "broken disk",
    "disk error that wrote",
    "full disk, refused",
    "full disk, stopped",
    "wipe",
    "removal",
    "join",
    "leadership handed over",
    "skewed ticks",
    "clock jump",
    "clock at 1970",
    "sweep",
];

/// One event: when, in milliseconds since the cluster was formed, and what.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: u64,
    /// What.
    pub what: What,
}

/// Seconds at which every clock starts that is right.
pub const EPOCH: i64 = 1_000_000;

/// Whom a blow is aimed at: often the leader, who has most to lose.
fn whom(rng: &mut Rng, peers: u64) -> Whom {
    if rng.chance(35) {
        Whom::Leader
    } else {
        Whom::Peer(1 + rng.below(peers))
    }
}

/// All events of a seed, in order.
#[must_use]
pub fn draw(seed: u64, knobs: &Knobs) -> Vec<Event> {
    let mut rng = Rng::new(seed.rotate_left(17) ^ 0x5c4e_d01e);
    let mut events = Vec::new();
    let mut at = 0;
    loop {
        at += rng.below(2 * knobs.request_every + 1);
        if at >= knobs.trouble {
            break;
        }
        events.push(Event { at, what: request(&mut rng, knobs) });
    }
    at = 0;
    loop {
        at += rng.below(2 * knobs.woe_every + 1);
        if at >= knobs.trouble {
            break;
        }
        if let Some(kind) = rng.pick(&knobs.kinds) {
            events.push(Event { at, what: woe(kind, &mut rng, knobs.peers) });
        }
        // What is broken is mended now and then, or nothing would go on for long.
        if rng.chance(40) {
            let peer = 1 + rng.below(knobs.peers);
            let mend = [What::RestartAll, What::Heal, What::Join(peer), What::Restart(peer)];
            let after = at + rng.below(1_500);
            let n = rng.below(mend.len() as u64) as usize;
            events.extend(mend.into_iter().nth(n).map(|what| Event { at: after, what }));
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

fn request(rng: &mut Rng, knobs: &Knobs) -> What {
    let at = 1 + rng.below(knobs.peers);
    let total = knobs.requests.iter().sum();
    let mut drawn = rng.below(total);
    let mut kind = 0;
    while let Some(weight) = knobs.requests.get(kind).filter(|w| drawn >= **w) {
        drawn -= weight;
        kind += 1;
    }
    let name = |rng: &mut Rng| format!("pin{}", rng.below(knobs.names));
    let ends = |rng: &mut Rng| EPOCH + 3 * rng.between((1, 6)) as i64;
    let wish =
        |rng: &mut Rng, direct, expires| Wish { name: name(rng), direct, holder: 1 + rng.below(3), expires };
    let request = match REQUESTS[kind] {
        "direct pin" => Request::Pin(wish(rng, true, 0)),
        "pin that ends" => {
            let expires = ends(rng);
            Request::Pin(wish(rng, false, expires))
        }
        "pin many" => {
            let many = rng.between((1, 12));
            // Now and then one that is refused in the middle of the others: then none may be there.
            let mixed = rng.chance(50);
            let some = |rng: &mut Rng| {
                let direct = mixed && rng.chance(20);
                wish(rng, direct, 0)
            };
            Request::PinMany((0..many).map(|_| some(rng)).collect())
        }
        "unpin" => Request::Unpin(name(rng)),
        "move" => Request::Move(name(rng), 1 + rng.below(3), 1 + rng.below(3)),
        "expire" => Request::Expire(name(rng), ends(rng)),
        "read" => Request::Read(name(rng)),
        "refresh" => Request::Refresh(1 + rng.below(knobs.peers), format!("name{}", rng.below(4))),
        "raise" => Request::Raise(rng.between((1, u64::from(crate::state::version::SPOKEN))) as u16),
        _ => Request::Pin(wish(rng, false, 0)),
    };
    What::Ask(at, request)
}

fn woe(kind: &str, rng: &mut Rng, peers: u64) -> What {
    let peer = 1 + rng.below(peers);
    let other = 1 + rng.below(peers);
    match kind {
        "bad network" => What::Faults(if rng.chance(30) {
            Faults::default()
        } else {
            Faults {
                drop: rng.below(30),
                duplicate: rng.below(20),
                delay: rng.below(8),
                break_snapshot: rng.below(50),
            }
        }),
        "crash" => What::Crash(whom(rng, peers)),
        "crash in a turn" => What::CrashMid(whom(rng, peers)),
        "restart" => What::RestartAll,
        "pause" => What::Pause(whom(rng, peers), TICK * rng.between((1, 120))),
        "cut one way" => What::CutOneWay(peer, other),
        "cut" => What::Cut(peer, other),
        "split" => What::Split(rng.below(1 << peers)),
        "isolate" => What::Isolate(whom(rng, peers)),
        "mute" => What::Mute(whom(rng, peers)),
        "heal" => What::Heal,
        "slow disk" => match rng.below(3) {
            0 => What::QuickDisk(peer),
            _ => What::SlowDisk(peer, rng.between((2, 40))),
        },
        "broken disk" => What::BreakDisk(whom(rng, peers), false),
        "disk error that wrote" => What::BreakDisk(whom(rng, peers), true),
        "full disk, refused" => match rng.below(3) {
            0 => What::Room(peer),
            _ => What::FillDisk(peer, false),
        },
        "full disk, stopped" => What::FillDisk(peer, true),
        "wipe" => What::Wipe(peer),
        "removal" => What::Remove(peer, other),
        "join" => What::Join(peer),
        "leadership handed over" => What::HandOver(whom(rng, peers)),
        "skewed ticks" => What::Skew(peer, rng.between((TICK / 2, 3 * TICK))),
        "clock jump" => What::Clock(peer, rng.below(7_200) as i64 - 3_600),
        "clock at 1970" => What::Clock(peer, -EPOCH),
        _ => What::Sweep,
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whom::Peer(peer) => write!(f, "peer {peer}"),
            Whom::Leader => write!(f, "the leader"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}.{:03} s  ", self.at / 1_000, self.at % 1_000)?;
        match &self.what {
            What::Ask(peer, request) => write!(f, "peer {peer} is asked: {request:?}"),
            What::Faults(faults) => write!(
                f,
                "the network loses {} %, doubles {} %, delays up to {} ticks, breaks {} % of snapshots",
                faults.drop, faults.duplicate, faults.delay, faults.break_snapshot
            ),
            What::Crash(whom) => write!(f, "{whom} crashes"),
            What::CrashMid(whom) => write!(f, "{whom} crashes in the middle of its next turn"),
            What::Restart(peer) => write!(f, "peer {peer} starts again"),
            What::RestartAll => write!(f, "all that are down start again"),
            What::Pause(whom, ms) => write!(f, "{whom} stands still for {ms} ms"),
            What::CutOneWay(from, to) => write!(f, "peer {to} does not hear peer {from} any more"),
            What::Cut(a, b) => write!(f, "the link between peers {a} and {b} breaks"),
            What::Split(mask) => {
                let side: Vec<String> =
                    (1..=64).filter(|p| mask & 1 << (p - 1) != 0).map(|p| p.to_string()).collect();
                write!(f, "peers {} are cut off from the others", side.join(" "))
            }
            What::Isolate(whom) => write!(f, "{whom} is cut off"),
            What::Mute(whom) => write!(f, "nobody hears {whom} any more"),
            What::Heal => write!(f, "all links are repaired"),
            What::SlowDisk(peer, times) => write!(f, "the disk of peer {peer} becomes {times} times as slow"),
            What::QuickDisk(peer) => write!(f, "the disk of peer {peer} is as quick as it was"),
            What::BreakDisk(whom, false) => write!(f, "the next write of {whom} fails"),
            What::BreakDisk(whom, true) => {
                write!(f, "the next write of {whom} is done and reported as failed")
            }
            What::FillDisk(peer, false) => write!(f, "the disk of peer {peer} is nearly full"),
            What::FillDisk(peer, true) => write!(f, "the disk of peer {peer} is full"),
            What::Room(peer) => write!(f, "there is room on the disk of peer {peer} again"),
            What::Wipe(peer) => write!(f, "peer {peer} loses its disk and comes back with an empty one"),
            What::Remove(peer, at) => write!(f, "peer {at} is asked to remove peer {peer}"),
            What::Join(peer) => write!(f, "peer {peer} begins anew, if it is no member"),
            What::HandOver(whom) => write!(f, "{whom} is asked to hand its office over"),
            What::Skew(peer, ms) => write!(f, "the ticks of peer {peer} take {ms} ms"),
            What::Clock(peer, secs) => write!(f, "the clock of peer {peer} is {secs} s ahead"),
            What::Sweep => write!(f, "the leader removes what has ended by its clock"),
        }
    }
}
