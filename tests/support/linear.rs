//! Is a history of one pin linearizable?
//!
//! **The question.** Clients pin, unpin and read one CID at the same time. Each operation has a moment when it was
//! invoked and one when its answer came. The history is *linearizable* when every operation can be given one point in
//! between, such that one after the other, in the order of these points, they give exactly the answers that were
//! given. Operations on different CIDs do not depend on each other, so each CID is checked by itself (Herlihy and
//! Wing's locality), which is what makes a hundred thousand operations checkable.
//!
//! **The model.** A CID is a register: absent, or a pin with a name. A test gives each pin a name of its own, so that
//! whoever sees a name knows which write it sees. An unpin answers with what it removed, or that there was nothing.
//!
//! **What nobody knows.** When a connection dies, the write may have happened, may still happen, or never will: it has
//! no end, and need not be placed. A read without an answer says nothing and is left out by the recorder.
//!
//! **The search** is Wing and Gong's, with Lowe's cache: walk along the history, place an operation that was
//! invoked before anything unplaced had ended, if the model allows its answer; on a dead end take back the last one.
//! Two orders of the same operations that lead to the same state have the same future, so each pair of (operations
//! placed, state) is tried once. Two savings keep unknown writes from doubling the work each time, both without
//! changing the verdict: a pin without an answer whose name nobody ever saw is left out (placing it could only break
//! something), and unpins without an answer are placed in the order of their invocation (they are alike, and the
//! earlier one can do whatever the later one can).
//!
//! It must never: say "linearizable" because it ran out of effort ([`Verdict::Unknown`] is an answer of its own), or
//! know anything of how pinfold works.

use std::collections::HashSet;

/// The name of a pin; every write has its own.
pub type Name = u32;

/// What was asked and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A pin that was acknowledged.
    Pin(Name),
    /// An unpin that was answered: with what it removed, or that nothing was pinned.
    Unpin(Option<Name>),
    /// A read that must be up to date, and what it saw.
    Read(Option<Name>),
    /// A pin without an answer.
    MaybePin(Name),
    /// An unpin without an answer.
    MaybeUnpin,
}

impl What {
    /// Whether it was answered.
    pub fn is_sure(self) -> bool {
        !matches!(self, What::MaybePin(_) | What::MaybeUnpin)
    }

    /// The register after it; `None` when this answer is not that of a register in this state.
    fn apply(self, state: Option<Name>) -> Option<Option<Name>> {
        match self {
            What::Pin(name) | What::MaybePin(name) => Some(Some(name)),
            What::MaybeUnpin => Some(None),
            What::Unpin(removed) => (removed == state).then_some(None),
            What::Read(seen) => (seen == state).then_some(state),
        }
    }

    /// The name that an answer shows.
    fn shows(self) -> Option<Name> {
        match self {
            What::Unpin(seen) | What::Read(seen) => seen,
            _ => None,
        }
    }
}

/// One operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who did it, for the reader of a report.
    pub client: u32,
    /// When it was invoked.
    pub call: u64,
    /// When its answer was there; without meaning for one without an answer.
    pub end: u64,
    /// What it was.
    pub what: What,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none. The operations of the longest order that was found, and those that had ended by then and fit
    /// nowhere: indices into the history.
    Violation {
        /// Placed, in order.
        placed: Vec<usize>,
        /// Not to be placed.
        stuck: Vec<usize>,
    },
    /// The effort was used up first.
    Unknown,
}

/// Calls and answers by time, as a list from which operations are taken out when they are placed.
struct Timeline {
    /// The operation of each event, and whether it is the answer.
    events: Vec<(usize, bool)>,
    /// Neighbours; event `e` is node `e + 1`, node 0 is the head.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Nodes of an operation's call and answer.
    nodes: Vec<(usize, Option<usize>)>,
}

impl Timeline {
    fn of(history: &[Operation], left_out: &HashSet<usize>) -> Timeline {
        let mut order = Vec::new();
        for (i, operation) in history.iter().enumerate().filter(|(i, _)| !left_out.contains(i)) {
            // At one and the same time the call comes first: then they overlap, which claims less.
            order.push((operation.call, false, i));
            if operation.what.is_sure() {
                order.push((operation.end, true, i));
            }
        }
        order.sort_unstable();
        let mut nodes = vec![(0, None); history.len()];
        for (e, (_, is_end, i)) in order.iter().enumerate() {
            if *is_end {
                nodes[*i].1 = Some(e + 1);
            } else {
                nodes[*i].0 = e + 1;
            }
        }
        let last = order.len();
        Timeline {
            events: order.into_iter().map(|(_, is_end, i)| (i, is_end)).collect(),
            next: (0..=last).map(|n| if n == last { 0 } else { n + 1 }).collect(),
            previous: (0..=last).map(|n| n.checked_sub(1).unwrap_or(last)).collect(),
            nodes,
        }
    }

    /// The event of a node; `None` for the head.
    fn event(&self, node: usize) -> Option<(usize, bool)> {
        self.events.get(node.checked_sub(1)?).copied()
    }

    fn unlink(&mut self, node: usize) {
        let (before, after) = (self.previous[node], self.next[node]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    /// Undoes an unlink; in reverse order of the unlinks.
    fn relink(&mut self, node: usize) {
        let (before, after) = (self.previous[node], self.next[node]);
        self.next[before] = node;
        self.previous[after] = node;
    }

    fn take_out(&mut self, operation: usize) {
        let (call, end) = self.nodes[operation];
        self.unlink(call);
        if let Some(end) = end {
            self.unlink(end);
        }
    }

    fn put_back(&mut self, operation: usize) {
        let (call, end) = self.nodes[operation];
        if let Some(end) = end {
            self.relink(end);
        }
        self.relink(call);
    }
}

/// A set of operations.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn flip(&mut self, i: usize) {
        self.0[i / 64] ^= 1 << (i % 64);
    }

    fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }
}

/// Checks the history of one CID that nobody had pinned before, trying at most `effort` states.
pub fn check(history: &[Operation], effort: usize) -> Verdict {
    let shown: HashSet<Name> = history.iter().filter_map(|o| o.what.shows()).collect();
    let unseen = |what| matches!(what, What::MaybePin(name) if !shown.contains(&name));
    let left_out: HashSet<usize> = (0..history.len()).filter(|i| unseen(history[*i].what)).collect();
    let mut unpins: Vec<usize> =
        (0..history.len()).filter(|i| history[*i].what == What::MaybeUnpin).collect();
    unpins.sort_by_key(|i| history[*i].call);

    let mut timeline = Timeline::of(history, &left_out);
    let mut open = history.iter().filter(|o| o.what.is_sure()).count();
    let (mut done, mut state) = (Set(vec![0; history.len().div_ceil(64).max(1)]), None);
    let mut tried: HashSet<(Set, Option<Name>)> = HashSet::new();
    // What was placed, and the state before it.
    let mut order: Vec<(usize, Option<Name>)> = Vec::new();
    let mut best = (Vec::new(), Vec::new());
    let mut node = timeline.next[0];
    while open > 0 {
        if let Some((i, false)) = timeline.event(node) {
            let what = history[i].what;
            let in_turn = what != What::MaybeUnpin
                || unpins.iter().find(|u| !done.has(**u)).is_some_and(|first| *first == i);
            // Something that may as well not have happened need not be placed where it changes nothing.
            let after = what.apply(state).filter(|after| in_turn && (what.is_sure() || *after != state));
            if let Some(after) = after {
                done.flip(i);
                if tried.insert((done.clone(), after)) {
                    if tried.len() > effort {
                        return Verdict::Unknown;
                    }
                    order.push((i, state));
                    state = after;
                    open -= usize::from(what.is_sure());
                    timeline.take_out(i);
                    node = timeline.next[0];
                    continue;
                }
                done.flip(i);
            }
            node = timeline.next[node];
            continue;
        }
        // An answer of something that cannot be placed before it: a dead end.
        if order.len() >= best.0.len() {
            let placed = order.iter().map(|(i, _)| *i).collect();
            best = (placed, timeline.event(node).into_iter().map(|(i, _)| i).collect());
        }
        let Some((i, before)) = order.pop() else {
            return Verdict::Violation { placed: best.0, stuck: best.1 };
        };
        state = before;
        done.flip(i);
        open += usize::from(history[i].what.is_sure());
        timeline.put_back(i);
        node = timeline.next[timeline.nodes[i].0];
    }
    Verdict::Linearizable
}

/// A violation in words: the history by time, with the place of each operation in the longest order.
pub fn explain(history: &[Operation], placed: &[usize], stuck: &[usize]) -> String {
    let mut by_time: Vec<usize> = (0..history.len()).collect();
    by_time.sort_by_key(|i| history[*i].call);
    let line = |i: usize| {
        let Operation { client, call, end, what } = history[i];
        let end = if what.is_sure() { end.to_string() } else { "never answered".to_owned() };
        let place = match placed.iter().position(|p| *p == i) {
            Some(place) => format!("placed {}", place + 1),
            None if stuck.contains(&i) => "FITS NOWHERE".to_owned(),
            None => String::new(),
        };
        format!("  {call:>9} .. {end:<14} client {client:>4}  {what:?}  {place}\n")
    };
    by_time.into_iter().map(line).collect()
}
