//! The parts of an import that need no cluster: how lines become batches, and what is decided about a pin.

use super::*;
use futures::stream;

fn cid(n: u64) -> Cid {
    let digest = multihash::Multihash::wrap(0x12, &[n.to_be_bytes(); 4].concat()).expect("32 bytes");
    Cid::new_v1(0x55, digest)
}

fn line(number: u64, bytes: usize) -> Line {
    Line { number, text: Ok(Bytes::from(vec![b'x'; bytes])) }
}

fn peers(n: usize) -> Vec<PeerId> {
    (0..n).map(|_| PeerId::random()).collect()
}

fn candidates(peers: &[PeerId]) -> Vec<Candidate> {
    peers.iter().map(|peer| Candidate { peer: *peer, metrics: Vec::new() }).collect()
}

fn pin(n: u64, copies: i32, holders: &[PeerId]) -> Pin {
    let mut pin = Pin::new(cid(n), Timestamp::from_secs(5));
    (pin.replication_min, pin.replication_max) = (copies, copies);
    pin.allocations = holders.to_vec();
    pin
}

/// What is decided about a wish: its holders, and of which kind the decision is.
fn decide(wish: Pin, existing: Option<&Pin>, open: bool, all: &[PeerId]) -> Result<(&'static str, Pin)> {
    let ready = Ready { line: 1, pin: wish, new: existing.is_none() };
    let settled = settle(ready, existing.cloned(), open, &PinOptions::default(), &candidates(all))?;
    Ok(match settled {
        Settled::Unchanged => ("unchanged", pin(0, -1, &[])),
        Settled::Ready(ready) => ("ready", ready.pin),
        Settled::Asks(asks) => ("asks", asks.ready.pin),
    })
}

#[test]
fn batches_are_bounded_in_lines_and_in_bytes() {
    let sizes = |lines: Vec<Line>| {
        crate::runtime::block_on(async {
            let mut batches =
                Batches { lines: stream::iter(lines.into_iter().map(Ok)), carried: None, done: false };
            let mut sizes = Vec::new();
            while let Some(batch) = batches.next().await.expect("lines") {
                sizes.push(batch.len());
            }
            sizes
        })
    };
    assert_eq!(sizes(Vec::new()), Vec::<usize>::new());
    assert_eq!(sizes((1..=2_500).map(|n| line(n, 60)).collect()), [1_000, 1_000, 500]);
    // Three lines of a third fit, a fourth begins the next batch; a line beyond the limit has one for itself.
    let third = BATCH_BYTES / 3;
    assert_eq!(sizes((1..=7).map(|n| line(n, third)).collect()), [3, 3, 1]);
    assert_eq!(sizes(vec![line(1, 10), line(2, 2 * BATCH_BYTES), line(3, 10)]), [1, 1, 1]);
}

#[test]
fn an_error_of_the_list_comes_after_what_was_whole() {
    crate::runtime::block_on(async {
        let lines = vec![Ok(line(1, 1)), Err(Error::invalid("cut off"))];
        let mut batches = Batches { lines: stream::iter(lines), carried: None, done: false };
        assert_eq!(batches.next().await.expect_err("it was cut off").message(), "cut off");
    });
}

#[test]
fn a_pin_that_is_there_just_so_is_left_alone() {
    let all = peers(3);
    let there = pin(1, 2, &all[..2]).as_stored();
    let mut wish = pin(1, 2, &[]);
    wish.timestamp = Timestamp::from_secs(99);
    assert_eq!(decide(wish.clone(), Some(&there), false, &all).expect("decided").0, "unchanged");
    // An earlier line may be about to change it.
    assert_eq!(decide(wish.clone(), Some(&there), true, &all).expect("decided").0, "asks");
    wish.name = "other".into();
    let (what, changed) = decide(wish, Some(&there), false, &all).expect("decided");
    assert_eq!((what, changed.allocations), ("ready", all[..2].to_vec()));
}

#[test]
fn holders_that_a_line_names_keep_it_and_missing_ones_are_chosen() {
    let all = peers(3);
    let (what, new) = decide(pin(1, 2, &all[2..]), None, false, &all).expect("decided");
    assert_eq!((what, new.allocations.len()), ("ready", 2));
    assert_eq!(new.allocations[0], all[2]);
    assert!(decide(pin(1, 3, &[]), None, false, &all[..2]).is_err(), "too few peers");
    assert!(decide(pin(1, -1, &[]), None, false, &[]).expect("everywhere").1.allocations.is_empty());
}

#[test]
fn whoever_loses_a_copy_is_asked_first() {
    let all = peers(3);
    let there = pin(1, 3, &all).as_stored();
    assert_eq!(decide(pin(1, 1, &[]), Some(&there), false, &all).expect("decided").0, "asks");
    let everywhere = pin(1, -1, &[]).as_stored();
    assert_eq!(decide(pin(1, 1, &[]), Some(&everywhere), false, &all).expect("decided").0, "asks");
    assert_eq!(decide(pin(1, -1, &[]), Some(&there), false, &all).expect("decided").0, "ready");
}

#[test]
fn a_direct_pin_does_not_replace_a_recursive_one() {
    let mut direct = pin(1, -1, &[]);
    direct.mode = PinMode::Direct;
    assert_eq!(
        decide(direct, Some(&pin(1, -1, &[])), false, &[]).expect_err("refused").kind(),
        Kind::Conflict
    );
}

#[test]
fn a_command_takes_what_fits() {
    let small: Vec<Ready> = (0..1_500).map(|n| Ready { line: n, pin: pin(n, -1, &[]), new: true }).collect();
    assert_eq!(fitting(&small), Command::MAX_BATCH);
    let large = |n| {
        let mut large = pin(n, -1, &[]);
        large.metadata = (0..15).map(|k| (format!("key{k}"), "v".repeat(4_000))).collect();
        Ready { line: n, pin: large, new: true }
    };
    let large: Vec<Ready> = (0..50).map(large).collect();
    let fits = fitting(&large);
    assert!((2..50).contains(&fits), "{fits}");
    let command = Command::PinMany(large[..fits].iter().map(|ready| ready.pin.clone()).collect());
    assert!(command.encode().len() <= Command::MAX_BYTES && command.check().is_ok());
}

#[test]
fn what_was_done_is_told_up_to_the_first_batch_that_failed() {
    let flight = |last, result: Result<Imported>| Flight {
        last,
        cids: HashSet::new(),
        task: runtime::spawn(async move { result }),
    };
    crate::runtime::block_on(async {
        let mut flights = Flights::default();
        let added = || Ok(Imported { lines: 5, added: 5, ..Imported::default() });
        flights.under_way.push_back(flight(5, added()));
        flights.under_way.push_back(flight(10, Err(Error::unavailable("no majority"))));
        flights.under_way.push_back(flight(15, added()));
        assert_eq!(flights.land(0).await.expect_err("failed").kind(), Kind::Unavailable);
        assert_eq!((flights.upto, flights.total.added), (5, 10));
        assert!(flights.total.so_far(flights.upto).contains("up to line 5 is done (10 added"));
    });
    assert_eq!(Imported::default().so_far(0), "nothing of the list was taken");
}

#[test]
fn refusals_are_told_up_to_a_limit_and_counted_beyond() {
    let mut all = Imported::default();
    for n in 0..3 * MAX_TOLD as u64 {
        let mut one = Imported { lines: 1, ..Imported::default() };
        one.refuse(n, &Error::invalid("no"));
        all.add(one);
    }
    assert_eq!((all.lines, all.refused, all.errors.len()), (300, 300, MAX_TOLD));
    assert_eq!(shown(&"x".repeat(100)), format!("\"{}\"…", "x".repeat(64)));
}
