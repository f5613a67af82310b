//! Which copies move when holders die, return, or are to be emptied. Pure.
//!
//! Every change of holders has two phases, and each is a function of the allocations and of who is there, not
//! of what was done before: whoever decides next (another leader, after any crash) goes on from what it finds.
//!
//! * [`grow`] adds the holders that are missing. The dead and the leaving stay listed beside them.
//! * [`settle`] removes who is too many, once the ones that stay say that they have the content.
//!
//! So a dead holder that comes back before its replacement is ready simply goes on, at no cost, and what only it had
//! is not lost; a holder that is emptied keeps its copy until others have one. A pin whose live holders are at
//! least its minimum is left alone. Neither function takes the last holder away, and when no one can be added
//! nothing is taken away either.

use super::{rank, Candidate};
use libp2p::PeerId;

/// What a holder is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It tells that it lives.
    Live,
    /// It has not told for a moment; it counts as a holder, but nobody knows what it has.
    Silent,
    /// It lives, and is to be emptied.
    Leaving,
    /// Silent for longer than the grace time.
    Gone,
    /// Gone for good: no member any more, or emptied while it is dead. Nothing of it is waited for.
    Expelled,
}

/// What a holder says about its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Its IPFS node has it.
    Pinned,
    /// It works on it.
    Coming,
    /// It tried and failed.
    Failed,
    /// It did not say.
    Unknown,
}

/// A pin that some peers hold, as far as moving it needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Fewest copies.
    pub min: usize,
    /// Most copies.
    pub max: usize,
    /// Holders, in stored order.
    pub holders: &'a [PeerId],
}

/// The peers that may get copies. What is handed out is taken into account for the next pin, because the metrics
/// themselves are told anew only much later: ten thousand pins must not all go to the peer that was the
/// emptiest when it was last asked.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    candidates: Vec<Candidate>,
    costs: Vec<i64>,
}

impl Pool {
    /// `costs`: by how much one copy lowers each metric, in the order of the candidates' metrics.
    pub fn new(candidates: Vec<Candidate>, costs: Vec<i64>) -> Self {
        Pool { candidates, costs }
    }

    /// By how much one copy lowers each metric; empty while nobody has said.
    pub fn costs(&self) -> &[i64] {
        &self.costs
    }

    /// Hands out at most `count` peers that are not holders, the best first.
    fn take(&mut self, count: usize, holders: &[PeerId], staying: &[PeerId]) -> Vec<PeerId> {
        let is = |list: &[PeerId], c: &Candidate| list.contains(&c.peer);
        let free: Vec<&Candidate> = self.candidates.iter().filter(|c| !is(holders, c)).collect();
        let held: Vec<&Candidate> = self.candidates.iter().filter(|c| is(staying, c)).collect();
        let mut chosen = rank(&free, &held);
        chosen.truncate(count);
        for candidate in self.candidates.iter_mut().filter(|c| is(&chosen, c)) {
            for (metric, cost) in candidate.metrics.iter_mut().zip(&self.costs) {
                metric.weight = metric.weight.saturating_sub(*cost);
            }
        }
        chosen
    }

    /// These peers, the best first; those without metrics last, as they came.
    fn sorted(&self, peers: &[PeerId]) -> Vec<PeerId> {
        let known: Vec<&Candidate> = self.candidates.iter().filter(|c| peers.contains(&c.peer)).collect();
        let mut order = rank(&known, &[]);
        order.extend(peers.iter().filter(|p| !known.iter().any(|c| c.peer == **p)));
        order
    }
}

/// What [`grow`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// The allocations as they should be; `None` when they are.
    pub to: Option<Vec<PeerId>>,
    /// Copies that are missing and that nobody can hold.
    pub short: usize,
    /// There is somebody too many: ask the holders what they have, then [`settle`].
    pub ask: bool,
}

/// The holders by what they are.
struct Sorted {
    staying: Vec<PeerId>,
    leaving: Vec<PeerId>,
    expelled: Vec<PeerId>,
}

fn sort(holders: &[PeerId], standing: &dyn Fn(&PeerId) -> Standing) -> Sorted {
    let mut sorted = Sorted { staying: Vec::new(), leaving: Vec::new(), expelled: Vec::new() };
    for holder in holders {
        match standing(holder) {
            Standing::Live | Standing::Silent => sorted.staying.push(*holder),
            Standing::Leaving => sorted.leaving.push(*holder),
            Standing::Expelled => sorted.expelled.push(*holder),
            Standing::Gone => {}
        }
    }
    sorted
}

/// Adds holders where live ones are fewer than the minimum (only with `repin`), or are to be emptied.
pub fn grow(
    pin: &Subject<'_>,
    standing: &dyn Fn(&PeerId) -> Standing,
    pool: &mut Pool,
    repin: bool,
) -> Growth {
    let Sorted { staying, leaving, expelled } = sort(pin.holders, standing);
    let wanted = if !leaving.is_empty() || !expelled.is_empty() {
        // One for one: whoever asked a peer to leave did not ask for fewer copies.
        let now = staying.len() + leaving.len() + expelled.len();
        now.max(pin.min).min(pin.max).max(staying.len())
    } else if repin && staying.len() < pin.min {
        pin.max
    } else {
        staying.len()
    };
    let added = pool.take(wanted - staying.len(), pin.holders, &staying);
    let have = staying.len() + added.len();
    let mut to = pin.holders.to_vec();
    to.extend(&added);
    if have > 0 {
        to.retain(|p| !expelled.contains(p));
    }
    let cares = repin || !leaving.is_empty() || !expelled.is_empty();
    let ask = added.is_empty() && have >= pin.min.max(1) && (to.len() > pin.max || !leaving.is_empty());
    let short = if cares { pin.min.saturating_sub(have) } else { 0 };
    Growth { to: (to != pin.holders).then_some(to), short, ask }
}

/// Removes the leaving, and whoever is beyond the maximum, as far as the others say that they have the content. The
/// allocations as they should be, or `None` when it is too early (or nothing is to be done).
pub fn settle(
    pin: &Subject<'_>,
    standing: &dyn Fn(&PeerId) -> Standing,
    pool: &Pool,
    held: &dyn Fn(&PeerId) -> Held,
) -> Option<Vec<PeerId>> {
    let Sorted { staying, leaving, .. } = sort(pin.holders, standing);
    let pinned: Vec<PeerId> = staying.iter().filter(|p| held(p) == Held::Pinned).copied().collect();
    let coming = staying.iter().any(|p| held(p) == Held::Coming);
    let mut to = pin.holders.to_vec();
    if staying.len() >= pin.min.max(1) {
        let safe = pinned.len() >= pin.min.max(1) && !coming;
        // What it has not got cannot be lost with it: content that nobody has must not hold up the leaving.
        let worthless = |p: &PeerId| matches!(held(p), Held::Coming | Held::Failed);
        to.retain(|p| !leaving.contains(p) || !safe && !worthless(p));
    }
    if to.len() > pin.max && pinned.len() >= pin.max {
        let mut best = pool.sorted(&pinned);
        best.truncate(pin.max);
        to.retain(|p| best.contains(p));
    } else if pinned.len() >= pin.min {
        while to.len() > pin.max {
            let Some(gone) = to.iter().rposition(|p| standing(p) == Standing::Gone) else { break };
            to.remove(gone);
        }
    }
    (to != pin.holders).then_some(to)
}
