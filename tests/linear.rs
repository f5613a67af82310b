//! The checker of histories, checked: histories whose verdict is known, histories of a correct register, the same with
//! one answer spoilt, and thousands of small ones against a checker that simply tries every order.

#[allow(dead_code)]
#[path = "support/dice.rs"]
mod dice;
#[path = "support/linear.rs"]
mod linear;

use dice::Dice;
use linear::{check, explain, Name, Operation, Verdict, What};

/// More than any history here needs.
const EFFORT: usize = 1_000_000;

fn at(call: u64, end: u64, what: What) -> Operation {
    Operation { client: 0, call, end, what }
}

fn holds(history: &[Operation]) -> bool {
    match check(history, EFFORT) {
        Verdict::Linearizable => true,
        Verdict::Violation { placed, stuck } => {
            assert!(!stuck.is_empty(), "a violation names what fits nowhere");
            assert!(explain(history, &placed, &stuck).contains("FITS NOWHERE"));
            false
        }
        Verdict::Unknown => panic!("out of effort: {history:?}"),
    }
}

use What::{MaybePin, MaybeUnpin, Pin, Read, Unpin};

#[test]
fn histories_that_hold() {
    let good: &[(&str, &[Operation])] = &[
        ("nothing", &[]),
        ("absent at first", &[at(1, 2, Read(None)), at(3, 4, Unpin(None))]),
        ("one after the other", &[at(1, 2, Pin(1)), at(3, 4, Read(Some(1))), at(5, 6, Unpin(Some(1)))]),
        ("a read beside a write sees it", &[at(1, 9, Pin(1)), at(2, 3, Read(Some(1)))]),
        ("… or does not", &[at(1, 9, Pin(1)), at(2, 3, Read(None))]),
        (
            "two reads beside a write, in order",
            &[at(1, 9, Pin(1)), at(2, 3, Read(None)), at(4, 5, Read(Some(1)))],
        ),
        (
            "writes side by side, the second wins",
            &[at(1, 5, Pin(1)), at(2, 6, Pin(2)), at(7, 8, Read(Some(2)))],
        ),
        ("… or the first", &[at(1, 5, Pin(1)), at(2, 6, Pin(2)), at(7, 8, Read(Some(1)))]),
        ("at the same moment is side by side", &[at(1, 2, Pin(1)), at(2, 3, Read(None))]),
        ("a lost answer, done", &[at(1, 0, MaybePin(1)), at(5, 6, Read(Some(1)))]),
        ("a lost answer, never done", &[at(1, 0, MaybePin(1)), at(5, 6, Read(None))]),
        (
            "a lost answer, done late",
            &[at(1, 0, MaybePin(1)), at(2, 3, Read(None)), at(4, 5, Pin(2)), at(6, 7, Read(Some(1)))],
        ),
        (
            "a lost unpin, done late",
            &[at(1, 2, Pin(1)), at(3, 0, MaybeUnpin), at(4, 5, Read(Some(1))), at(6, 7, Read(None))],
        ),
        (
            "of two unpins one removes",
            &[at(1, 2, Pin(1)), at(3, 6, Unpin(Some(1))), at(4, 5, Unpin(None)), at(7, 8, Read(None))],
        ),
        (
            "two lost unpins, both needed",
            &[
                at(1, 0, MaybeUnpin),
                at(2, 0, MaybeUnpin),
                at(3, 4, Pin(1)),
                at(5, 6, Read(None)),
                at(7, 8, Pin(2)),
                at(9, 10, Read(None)),
            ],
        ),
    ];
    for (name, history) in good {
        assert!(holds(history), "{name}");
    }
}

#[test]
fn histories_that_do_not_hold() {
    let bad: &[(&str, &[Operation])] = &[
        ("a value from nowhere", &[at(1, 2, Read(Some(7)))]),
        ("a lost write", &[at(1, 2, Pin(1)), at(3, 4, Read(None))]),
        ("a stale read", &[at(1, 2, Pin(1)), at(3, 4, Pin(2)), at(5, 6, Read(Some(1)))]),
        (
            "back and forth beside one write",
            &[at(1, 9, Pin(1)), at(2, 3, Read(Some(1))), at(4, 5, Read(None))],
        ),
        (
            "two readers that disagree",
            &[at(1, 5, Pin(1)), at(2, 6, Pin(2)), at(7, 8, Read(Some(1))), at(9, 10, Read(Some(2)))],
        ),
        (
            "a removed pin that comes back",
            &[at(1, 2, Pin(1)), at(3, 4, Unpin(Some(1))), at(5, 6, Read(Some(1)))],
        ),
        ("an unpin that finds nothing", &[at(1, 2, Pin(1)), at(3, 4, Unpin(None))]),
        (
            "an unpin that removes what is gone",
            &[at(1, 2, Pin(1)), at(3, 4, Unpin(Some(1))), at(5, 6, Unpin(Some(1)))],
        ),
        ("from the future", &[at(1, 2, Read(Some(1))), at(3, 4, Pin(1))]),
        ("from the future, without an answer", &[at(1, 2, Read(Some(1))), at(3, 0, MaybePin(1))]),
        (
            "a lost pin that is done twice",
            &[at(1, 0, MaybePin(1)), at(2, 3, Read(Some(1))), at(4, 5, Pin(2)), at(6, 7, Read(Some(1)))],
        ),
        (
            "a lost unpin that is done twice",
            &[
                at(1, 2, Pin(1)),
                at(3, 0, MaybeUnpin),
                at(4, 5, Read(None)),
                at(6, 7, Pin(2)),
                at(8, 9, Read(None)),
            ],
        ),
    ];
    for (name, history) in bad {
        assert!(!holds(history), "{name}");
    }
}

#[test]
fn what_costs_too_much_is_not_called_good() {
    // Writes side by side that nobody reads until the end: every order must be tried.
    let mut history: Vec<Operation> = (0..12).map(|n| at(1, 100, Pin(n))).collect();
    history.push(at(200, 201, Read(Some(99))));
    assert_eq!(check(&history, 1_000), Verdict::Unknown);
    assert!(!holds(&history));
}

/// What a client is doing.
enum Doing {
    Nothing,
    /// Asked and not done yet.
    Asked(u64, What),
    /// Done, not answered yet.
    Done(u64, What),
}

/// A history of a register that works, with clients side by side, some of which die.
fn true_history(dice: &mut Dice, clients: usize, operations: usize) -> Vec<Operation> {
    let mut doing: Vec<Doing> = (0..clients).map(|_| Doing::Nothing).collect();
    // Writes whose client died: they may be done at any time later, or never.
    let mut orphans: Vec<What> = Vec::new();
    let (mut history, mut state, mut names, mut now) = (Vec::new(), None, 0, 0);
    while history.len() < operations {
        now += 1;
        if !orphans.is_empty() && dice.one_in(8) {
            let orphan = orphans.swap_remove(dice.below(orphans.len()));
            state = if let MaybePin(name) = orphan { Some(name) } else { None };
            continue;
        }
        let client = dice.below(clients);
        let op = |call, what| Operation { client: client as u32, call, end: now, what };
        doing[client] = match std::mem::replace(&mut doing[client], Doing::Nothing) {
            Doing::Nothing => {
                let what = match dice.below(5) {
                    0 | 1 => {
                        names += 1;
                        Pin(names)
                    }
                    2 => Unpin(None),
                    _ => Read(None),
                };
                Doing::Asked(now, what)
            }
            Doing::Asked(call, what) if !matches!(what, Read(_)) && dice.one_in(10) => {
                let orphan = if let Pin(name) = what { MaybePin(name) } else { MaybeUnpin };
                orphans.push(orphan);
                history.push(op(call, orphan));
                Doing::Nothing
            }
            Doing::Asked(call, what) => {
                let (after, what) = match what {
                    Pin(name) => (Some(name), what),
                    Unpin(_) => (None, Unpin(state)),
                    _ => (state, Read(state)),
                };
                state = after;
                Doing::Done(call, what)
            }
            Doing::Done(call, what) => {
                // Done, and the answer is lost.
                let lost = dice.one_in(15);
                match what {
                    Pin(name) if lost => history.push(op(call, MaybePin(name))),
                    Unpin(_) if lost => history.push(op(call, MaybeUnpin)),
                    Read(_) if lost => {}
                    _ => history.push(op(call, what)),
                }
                Doing::Nothing
            }
        };
    }
    // Those that were done and not answered when the recording ends.
    for (client, left) in doing.into_iter().enumerate() {
        let (call, what) = match left {
            Doing::Asked(call, what) | Doing::Done(call, what) => (call, what),
            Doing::Nothing => continue,
        };
        let what = match what {
            Pin(name) => MaybePin(name),
            Unpin(_) => MaybeUnpin,
            _ => continue,
        };
        history.push(Operation { client: client as u32, call, end: 0, what });
    }
    history
}

#[test]
fn every_history_of_a_correct_register_holds() {
    let mut dice = Dice::new("every_history_of_a_correct_register_holds");
    for round in 0..3_000 {
        let (clients, operations) = (1 + dice.below(10), 1 + dice.below(60));
        let history = true_history(&mut dice, clients, operations);
        assert!(holds(&history), "round {round}: {history:#?}");
    }
}

/// An answer that no register can have given: a read of something that was overwritten, for certain, before the read
/// began, or of nothing when something was pinned for certain. `None` where the history has no place for it.
fn spoil(dice: &mut Dice, history: &[Operation]) -> Option<Vec<Operation>> {
    let mut ways = Vec::new();
    for (r, read) in history.iter().enumerate().filter(|(_, o)| matches!(o.what, Read(_))) {
        for later in history.iter().filter(|o| o.end < read.call && matches!(o.what, Pin(_) | Unpin(_))) {
            for earlier in history.iter().filter(|o| o.end < later.call) {
                if let Pin(name) = earlier.what {
                    ways.push((r, Read(Some(name))));
                }
            }
            // Pinned, and nobody may have unpinned since.
            let unpinned = |o: &&Operation| {
                let sure_before = o.what.is_sure() && o.end < later.call;
                matches!(o.what, Unpin(_) | MaybeUnpin) && o.call < read.end && !sure_before
            };
            if matches!(later.what, Pin(_)) && !history.iter().any(|o| unpinned(&o)) {
                ways.push((r, Read(None)));
            }
        }
    }
    let (r, what) = *ways.get(dice.below(ways.len().max(1)))?;
    let mut spoilt = history.to_vec();
    spoilt[r].what = what;
    Some(spoilt)
}

#[test]
fn one_spoilt_answer_is_found() {
    let mut dice = Dice::new("one_spoilt_answer_is_found");
    let mut spoilt = 0;
    for _ in 0..3_000 {
        let clients = 1 + dice.below(6);
        let history = true_history(&mut dice, clients, 40);
        if let Some(history) = spoil(&mut dice, &history) {
            assert!(!holds(&history), "{history:#?}");
            spoilt += 1;
        }
    }
    assert!(spoilt > 1_000, "only {spoilt} histories could be spoilt");
}

/// Every order of every choice of the operations without an answer, one by one.
fn by_force(history: &[Operation]) -> bool {
    fn orders(history: &[Operation], order: &mut Vec<usize>) -> bool {
        let sure = (0..history.len()).filter(|i| history[*i].what.is_sure());
        if sure.clone().all(|i| order.contains(&i)) && replays(history, order) {
            return true;
        }
        for i in (0..history.len()).filter(|i| !order.contains(i)).collect::<Vec<_>>() {
            order.push(i);
            let good = orders(history, order);
            order.pop();
            if good {
                return true;
            }
        }
        false
    }
    fn replays(history: &[Operation], order: &[usize]) -> bool {
        // Nobody before somebody who had ended when he began.
        for (place, i) in order.iter().enumerate() {
            let late = |j: &usize| history[*j].what.is_sure() && history[*j].end < history[*i].call;
            if order[place..].iter().any(late) {
                return false;
            }
        }
        let mut pinned: Option<Name> = None;
        order.iter().all(|i| match history[*i].what {
            Pin(name) | MaybePin(name) => {
                pinned = Some(name);
                true
            }
            MaybeUnpin => {
                pinned = None;
                true
            }
            Unpin(removed) => removed == pinned.take(),
            Read(seen) => seen == pinned,
        })
    }
    orders(history, &mut Vec::new())
}

#[test]
fn small_histories_are_judged_as_by_trying_every_order() {
    let mut dice = Dice::new("small_histories_are_judged_as_by_trying_every_order");
    let (mut good, mut bad) = (0, 0);
    for _ in 0..6_000 {
        // Any answers at any times: most do not hold, many nearly do.
        let count = 1 + dice.below(6);
        let mut names = 0;
        let history: Vec<Operation> = (0..count)
            .map(|client| {
                let call = dice.below(12) as u64;
                let seen = |dice: &mut Dice| {
                    let name = dice.below(4) as Name;
                    (name > 0).then_some(name)
                };
                let kind = dice.below(7);
                if matches!(kind, 0 | 1 | 6) {
                    names += 1;
                }
                let what = match kind {
                    0 | 1 => Pin(names),
                    2 => Unpin(seen(&mut dice)),
                    3 | 4 => Read(seen(&mut dice)),
                    5 => MaybeUnpin,
                    _ => MaybePin(names),
                };
                Operation { client: client as u32, call, end: call + dice.below(8) as u64, what }
            })
            .collect();
        let expected = by_force(&history);
        assert_eq!(holds(&history), expected, "{history:#?}");
        *(if expected { &mut good } else { &mut bad }) += 1;
    }
    assert!(good > 1_000 && bad > 1_000, "{good} good and {bad} bad ones: too one-sided to show anything");
}
