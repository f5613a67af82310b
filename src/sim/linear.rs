//! Whether what callers saw of one pin can be put into one order.
//!
//! Each pin by itself: operations on different pins do not touch each other. An operation takes effect at one moment
//! between its question and its answer; one without an answer at any moment after its question, or never. The
//! checker (Wing and Gong's, with Lowe's memory of what was tried) looks for an order of such moments in which every
//! answer is the true one. It knows nothing of logs, leaders and terms: it sees what a person with a stopwatch sees. Whoever
//! has an idea of the order may say so ([`Operation::hint`]); the idea only says what is tried first.

use super::model::Value;
use libp2p::PeerId;
use std::collections::HashSet;

/// Most operations on one pin that are looked at; a longer history is left out and counted.
pub const MAX_OPERATIONS: usize = 128;
/// Most steps of one search; where they do not suffice, nothing is said.
const MAX_STEPS: usize = 30_000;
/// The end of an operation that was never answered.
pub const NEVER: u64 = u64::MAX;

/// What was done.
#[derive(Clone, Debug)]
pub enum Act {
    /// Put this; a direct pin does not replace a recursive one.
    Put(Value),
    /// Take it away; only one that is there.
    Remove,
    /// Take it away if it ends exactly then.
    Expire(i64),
    /// Move it, if it is there where the move says.
    Move(PeerId, PeerId),
    /// Look.
    Read(Option<Value>),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Done.
    Done,
    /// Refused by the state.
    Refused,
    /// Nobody knows; it may never happen.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// When it was asked.
    pub start: u64,
    /// When it was answered; [`NEVER`] for one that may take effect at any time.
    pub end: u64,
    /// What.
    pub act: Act,
    /// How it ended.
    pub known: End,
    /// What is lower is tried earlier.
    pub hint: u64,
}

/// What the search says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Fine,
    /// There is none.
    Impossible,
    /// Too long to say.
    Undecided,
}

/// What is there after `act`; `None` when it cannot have ended like this.
fn after(before: &Option<Value>, act: &Act, known: End) -> Option<Option<Value>> {
    let (value, good) = match act {
        Act::Put(value) if value.direct && before.as_ref().is_some_and(|v| !v.direct) => {
            (before.clone(), false)
        }
        Act::Put(value) => (Some(value.clone()), true),
        Act::Remove => (None, before.is_some()),
        Act::Expire(at) if before.as_ref().is_some_and(|v| v.expires == *at) => (None, true),
        Act::Move(from, to) => match before {
            Some(v) if v.holders == [*from] => (Some(Value { holders: vec![*to], ..v.clone() }), true),
            _ => (before.clone(), true),
        },
        Act::Expire(_) => (before.clone(), true),
        Act::Read(seen) if seen == before => (before.clone(), true),
        Act::Read(_) => return None,
    };
    match known {
        End::Done => good.then_some(value),
        End::Refused => (!good).then(|| before.clone()),
        End::Unknown => Some(value),
    }
}

/// Looks for an order, beginning without the pin.
pub fn check(operations: &[Operation]) -> Verdict {
    if operations.len() > MAX_OPERATIONS {
        return Verdict::Undecided;
    }
    let mut ops: Vec<&Operation> = operations.iter().collect();
    ops.sort_by_key(|op| (op.hint, op.start));
    let must = |n: usize| ops[n].known != End::Unknown;
    let all: u128 = (0..ops.len()).filter(|n| must(*n)).fold(0, |set, n| set | 1 << n);
    let mut tried: HashSet<(u128, Option<Value>)> = HashSet::new();
    let mut open: Vec<(u128, Option<Value>)> = vec![(0, None)];
    let mut steps = 0;
    while let Some((done, value)) = open.pop() {
        if done & all == all {
            return Verdict::Fine;
        }
        if !tried.insert((done, value.clone())) {
            continue;
        }
        steps += 1;
        if steps > MAX_STEPS {
            return Verdict::Undecided;
        }
        let left = || (0..ops.len()).filter(|n| done & 1 << n == 0);
        // Nothing that begins after another's end comes before it.
        let first_end = left().filter(|n| must(*n)).map(|n| ops[n].end).min().unwrap_or(NEVER);
        let last_start =
            (0..ops.len()).filter(|n| done & 1 << n != 0).map(|n| ops[n].start).max().unwrap_or(0);
        for n in left().rev() {
            if ops[n].start > first_end || ops[n].end < last_start {
                continue;
            }
            if let Some(next) = after(&value, &ops[n].act, ops[n].known) {
                open.push((done | 1 << n, next));
            }
        }
    }
    Verdict::Impossible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(version: u64) -> Act {
        Act::Put(Value { version, direct: false, holders: Vec::new(), expires: 0 })
    }

    fn read(version: Option<u64>) -> Act {
        Act::Read(version.map(|version| Value { version, direct: false, holders: Vec::new(), expires: 0 }))
    }

    fn op(start: u64, end: u64, act: Act) -> Operation {
        Operation { start, end, act, known: if end == NEVER { End::Unknown } else { End::Done }, hint: 0 }
    }

    #[test]
    fn what_can_be_ordered_is_fine_and_what_cannot_is_not() {
        let fine = [op(1, 4, put(1)), op(2, 3, read(None)), op(5, 6, read(Some(1))), op(7, 8, Act::Remove)];
        assert_eq!(check(&fine), Verdict::Fine);
        assert_eq!(check(&[op(1, 2, put(1)), op(3, 4, read(None))]), Verdict::Impossible, "a stale read");
        assert_eq!(
            check(&[op(1, 2, put(1)), op(3, 4, Act::Remove), op(5, 6, read(Some(1)))]),
            Verdict::Impossible,
            "a removed pin is back"
        );
        assert_eq!(check(&[op(1, 2, Act::Remove)]), Verdict::Impossible, "nothing was there to be removed");
    }

    #[test]
    fn what_was_not_answered_may_have_happened_or_not_but_only_once() {
        let lost = op(1, NEVER, put(1));
        assert_eq!(check(&[lost.clone(), op(3, 4, read(None)), op(5, 6, read(Some(1)))]), Verdict::Fine);
        assert_eq!(check(&[lost.clone(), op(3, 4, read(None))]), Verdict::Fine);
        let back = [lost, op(3, 4, read(Some(1))), op(5, 6, Act::Remove), op(7, 8, read(Some(1)))];
        assert_eq!(check(&back), Verdict::Impossible);
    }

    #[test]
    fn a_refusal_must_have_had_its_reason() {
        let mut direct =
            op(3, 4, Act::Put(Value { version: 2, direct: true, holders: Vec::new(), expires: 0 }));
        direct.known = End::Refused;
        assert_eq!(check(&[op(1, 2, put(1)), direct.clone()]), Verdict::Fine);
        assert_eq!(check(&[direct]), Verdict::Impossible);
    }
}
