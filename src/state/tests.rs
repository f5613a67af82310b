//! Tests of codec and machine that are not stories (those are in `tests/scripts/state`).

use super::codec::{MAX_ALLOCATIONS, MAX_CID, MAX_METADATA, MAX_METADATA_BYTES, MAX_NAME, MAX_ORIGINS};
use super::*;
use crate::clock::Timestamp;
use crate::error::Kind;
use crate::store::memory::MemoryState;
use crate::store::{StateStore, Table};
use cid::Cid;
use futures::StreamExt as _;
use libp2p::{Multiaddr, PeerId};
use multihash::Multihash;
use raft::eraftpb::ConfState;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

fn hash(name: &str) -> Multihash<64> {
    Multihash::wrap(0x12, &Sha256::digest(name)).expect("32 bytes fit")
}

fn cid(name: &str) -> Cid {
    Cid::new_v1(0x55, hash(name))
}

fn peer(name: &str) -> PeerId {
    PeerId::from_bytes(&hash(name).to_bytes()).expect("a SHA-256 multihash is a peer id")
}

/// A pin that uses every field.
fn full_pin(name: &str) -> Pin {
    let mut pin = Pin::new(cid(name), Timestamp::from_secs(1_700_000_000));
    pin.kind = PinType::ClusterDag;
    pin.mode = PinMode::Direct;
    pin.name = format!("naïve {name}");
    (pin.replication_min, pin.replication_max) = (2, 3);
    pin.allocations = vec![peer("b"), peer("a")];
    pin.metadata = [("k".to_string(), "v".to_string()), (String::new(), "<&>".to_string())].into();
    pin.expire_at = Timestamp::from_secs(1_800_000_000);
    pin.origins = vec!["/ip4/10.0.0.1/tcp/4001".parse().expect("address")];
    pin.pin_update = Some(Cid::new_v0(hash("old")).expect("v0"));
    pin.shard_size = u64::MAX;
    pin.reference = Some(cid("reference"));
    pin
}

fn member(id: RaftId, name: &str, role: Role) -> Member {
    let addresses = vec!["/ip4/10.0.0.1/tcp/9096".parse::<Multiaddr>().expect("address")];
    Member {
        raft_id: id,
        peer_id: peer(name),
        name: name.into(),
        addresses,
        role,
        version: String::new(),
        witness: false,
    }
}

fn commands() -> Vec<Command> {
    vec![
        Command::Pin(Box::new(full_pin("a"))),
        Command::Unpin(cid("a")),
        Command::Expire(cid("a"), Timestamp::from_secs(7)),
        Command::Expire(cid("a"), Timestamp::ZERO),
        Command::UpdateMember(member(7, "m", Role::Voter)),
        Command::PinMany(vec![full_pin("a"), Pin::new(cid("b"), Timestamp::ZERO)]),
        Command::PinMany(Vec::new()),
        Command::Reallocate(vec![
            Move { cid: cid("a"), from: vec![peer("x"), peer("y")], to: vec![peer("y"), peer("z")] },
            Move { cid: cid("b"), from: Vec::new(), to: vec![peer("x")] },
        ]),
        Command::Reallocate(Vec::new()),
    ]
}

#[test]
fn a_witness_has_a_record_of_its_own_and_everybody_else_keeps_the_old_ones() {
    let plain = member(7, "ana", Role::Voter);
    let told = Member { version: "0.2.0".into(), ..plain.clone() };
    let witness = Member { witness: true, ..told.clone() };
    let young = Member { witness: true, ..plain.clone() };
    for (member, format, needs) in [
        (&plain, 1, version::FIRST),
        (&told, 2, version::MEMBER_VERSIONS),
        (&witness, 3, version::WITNESS),
        (&young, 3, version::WITNESS),
    ] {
        let record = member.encode();
        assert_eq!(record[0], format, "{member:?}");
        assert_eq!(Member::decode(&record).unwrap(), *member);
        let command = Command::UpdateMember(member.clone());
        assert_eq!((command.encode()[0], command.needs(), member.needs()), (format, needs, needs));
        assert_eq!(Command::decode(&command.encode()).unwrap(), command);
        for cut in 0..record.len() {
            assert!(Member::decode(&record[..cut]).is_err());
        }
    }
    // What a release without witnesses is given it must refuse as newer, never misread.
    let newer = [vec![4], witness.encode()[1..].to_vec()].concat();
    assert_eq!(Member::decode(&newer).unwrap_err().kind(), Kind::Version);
    assert_eq!(Command::decode(&newer).unwrap_err().kind(), Kind::Version);
}

#[test]
fn everything_comes_back_as_it_was() {
    for command in commands() {
        assert_eq!(Command::decode(&command.encode()).expect("decode"), command);
    }
    for pin in [full_pin("a"), Pin::new(cid("b"), Timestamp::ZERO)] {
        assert_eq!(Pin::decode(&pin.encode()).expect("decode"), pin);
        let outcome = Outcome::Pin(Box::new(pin));
        assert_eq!(Outcome::decode(&outcome.encode()).expect("decode"), outcome);
    }
    for outcome in [Outcome::Done, Outcome::Moved(0), Outcome::Moved(1_000)] {
        assert_eq!(Outcome::decode(&outcome.encode()).expect("decode"), outcome);
    }
    let member = member(u64::MAX, "m", Role::Learner);
    assert_eq!(Member::decode(&member.encode()).expect("decode"), member);
}

#[test]
fn times_are_stored_in_whole_seconds() {
    let mut pin = full_pin("a");
    pin.timestamp.nanos = 5;
    pin.expire_at.nanos = 999_999_999;
    assert_eq!(Pin::decode(&pin.encode()).expect("decode"), pin.as_stored());
}

#[test]
fn no_bytes_make_the_decoders_panic() {
    // A small generator of our own: the test must fail the same way everywhere.
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let feed = |bytes: &[u8]| {
        let _ = Command::decode(bytes);
        let _ = Pin::decode(bytes);
        let _ = Member::decode(bytes);
        let _ = Outcome::decode(bytes);
    };
    let mut samples: Vec<Vec<u8>> = commands().iter().map(Command::encode).collect();
    samples.extend([full_pin("a").encode(), member(7, "m", Role::Voter).encode()]);
    for sample in &samples {
        for end in 0..sample.len() {
            feed(&sample[..end]);
            assert!(Command::decode(&sample[..end]).is_err(), "cut at {end}");
        }
        for _ in 0..2_000 {
            let mut bytes = sample.clone();
            for _ in 0..=random() % 4 {
                let at = (random() % bytes.len() as u64) as usize;
                bytes[at] = random() as u8;
            }
            feed(&bytes);
        }
    }
    for _ in 0..5_000 {
        let mut bytes: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
        if let Some(first) = bytes.first_mut() {
            *first = 1 + *first % 2;
        }
        feed(&bytes);
    }
    // A length that promises more than there is must not be believed.
    feed(&[1, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
}

#[test]
fn a_newer_command_stops_the_peer_and_a_broken_one_does_not() {
    let mut bytes = Command::Unpin(cid("a")).encode();
    bytes[0] = 4;
    let error = Command::decode(&bytes).expect_err("newer");
    assert_eq!(error.kind(), Kind::Version);
    assert!(!error.kind().is_deterministic());
    assert!(error.message().contains("written by a newer pinfold"), "{error}");
    for broken in [&[][..], &[0], &[1], &[1, 99], b"garbage"] {
        let error = Command::decode(broken).expect_err("broken");
        // Text begins with a byte that looks like a version of the far future.
        let expected = if broken == b"garbage" { Kind::Version } else { Kind::Invalid };
        assert_eq!(error.kind(), expected, "{error}");
    }
    assert_eq!(Command::decode(&vec![1; Command::MAX_BYTES + 1]).expect_err("big").kind(), Kind::TooLarge);
    assert_eq!(Pin::decode(&[1, 2, 3]).expect_err("broken").kind(), Kind::Corrupt);
}

#[test]
fn limits_are_kept_on_both_sides() {
    let ok = Pin::new(cid("a"), Timestamp::ZERO);
    let with = |change: &dyn Fn(&mut Pin)| {
        let mut pin = ok.clone();
        change(&mut pin);
        pin
    };
    let long = Multihash::<64>::wrap(0, &[7; 64]).expect("64 bytes fit");
    assert!(Cid::new_v1(0x55, long).encoded_len() <= MAX_CID);
    let address: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().expect("address");
    for (what, pin) in [
        ("name", with(&|p| p.name = "x".repeat(MAX_NAME + 1))),
        (
            "metadata",
            with(&|p| p.metadata = (0..=MAX_METADATA).map(|n| (n.to_string(), String::new())).collect()),
        ),
        ("metadata", with(&|p| p.metadata = [("k".into(), "x".repeat(MAX_METADATA_BYTES))].into())),
        ("allocation", with(&|p| p.allocations = vec![peer("a"); MAX_ALLOCATIONS + 1])),
        ("origin", with(&|p| p.origins = vec![address.clone(); MAX_ORIGINS + 1])),
        ("replication factor", with(&|p| p.replication_min = 0)),
        ("replication factor", with(&|p| p.replication_max = -2)),
    ] {
        let command = Command::Pin(Box::new(pin));
        for error in [command.check().expect_err(what), Command::decode(&command.encode()).expect_err(what)] {
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.message().contains(what), "{error}");
        }
    }
    let many = Command::PinMany(vec![ok; Command::MAX_BATCH + 1]);
    assert_eq!(many.check().expect_err("batch").kind(), Kind::Invalid);
    assert!(Command::decode(&many.encode()).is_err());
}

#[test]
fn a_member_s_name_and_addresses_are_cut_and_not_refused() {
    let mut big = member(1, "m", Role::Voter);
    big.name = "é".repeat(200);
    big.addresses = (0..40).map(|n| format!("/ip4/10.0.0.{n}/tcp/1").parse().expect("address")).collect();
    let read = Member::decode(&big.encode()).expect("decode");
    assert_eq!(read.name, "é".repeat(127), "255 bytes, cut between characters");
    assert_eq!(read.addresses, big.addresses[..Member::MAX_ADDRESSES]);

    let store = Arc::new(MemoryState::new());
    let mut machine = Machine::open(store.clone()).expect("open");
    let at = Applied { index: 1, term: 1 };
    machine.apply_members(at, &[MemberChange::Put(big)], &ConfState::default()).expect("apply");
    let reopened = Machine::open(store).expect("open");
    assert_eq!(machine.members(), reopened.members());
}

#[test]
fn only_the_last_removed_ids_are_remembered() {
    let mut machine = Machine::open(Arc::new(MemoryState::new())).expect("open");
    let conf = ConfState::default();
    let count = MAX_REMOVED as u64 + 10;
    for id in 1..=count {
        let at = Applied { index: id, term: 1 };
        machine.apply_members(at, &[MemberChange::Remove(id)], &conf).expect("apply");
    }
    assert!(machine.is_removed(count) && machine.is_removed(11) && !machine.is_removed(10));
}

#[test]
fn a_disk_error_is_the_outer_one_and_nothing_is_applied() {
    let store = Arc::new(MemoryState::new());
    let mut machine = Machine::open(store.clone()).expect("open");
    let before = machine.digest();
    store.set_failing(true);
    let at = Applied { index: 1, term: 1 };
    let pin = Command::Pin(Box::new(full_pin("a")));
    assert_eq!(machine.apply(at, Some(pin.clone())).expect_err("disk").kind(), Kind::Io);
    assert!(machine
        .apply_members(at, &[MemberChange::Put(member(1, "m", Role::Voter))], &ConfState::default())
        .is_err());
    assert_eq!((machine.digest(), machine.members(), machine.applied().index), (before, Vec::new(), 0));
    store.set_failing(false);
    machine.apply(at, Some(pin)).expect("the disk is back").0.expect("pin");
    machine.verify().expect("digest");
}

#[test]
fn an_entry_is_never_applied_twice() {
    let mut machine = Machine::open(Arc::new(MemoryState::new())).expect("open");
    let at = Applied { index: 5, term: 1 };
    machine.apply(at, None).expect("first").0.expect("done");
    assert_eq!(machine.apply(at, None).expect_err("second").kind(), Kind::Internal);
}

#[test]
fn an_entry_that_is_no_command_is_refused_by_all_and_a_newer_one_stops_the_peer() {
    let mut machine = Machine::open(Arc::new(MemoryState::new())).expect("open");
    let at = |index| Applied { index, term: 1 };
    let (answer, events) = machine.apply_bytes(at(1), &[1, 77]).expect("applied");
    assert_eq!((answer.expect_err("refused").kind(), events.len()), (Kind::Invalid, 0));
    assert_eq!(machine.applied(), at(1));
    assert_eq!(machine.apply_bytes(at(2), &[200, 1]).expect_err("newer").kind(), Kind::Version);
    assert_eq!(machine.applied(), at(1), "the entry waits for a newer program");
    machine.apply_bytes(at(2), &[]).expect("empty").0.expect("done");
}

#[test]
fn damage_shows_in_the_digest() {
    let store = Arc::new(MemoryState::new());
    let mut machine = Machine::open(store.clone()).expect("open");
    machine
        .apply(Applied { index: 1, term: 1 }, Some(Command::Pin(Box::new(full_pin("a")))))
        .expect("apply")
        .0
        .expect("pin");
    machine.verify().expect("whole");
    let mut other = full_pin("a");
    other.name.push('!');
    let writes = vec![(Table::Pins, other.cid.to_bytes(), Some(other.encode()))];
    store.write(crate::store::WriteBatch { writes, applied: None }).expect("write");
    assert_eq!(machine.verify().expect_err("damaged").kind(), Kind::Corrupt);
}

#[test]
fn lists_and_streams_cross_pages() {
    let store: Arc<dyn StateStore> = Arc::new(MemoryState::new());
    let mut machine = Machine::open(store.clone()).expect("open");
    let count = 2 * PAGE + 1;
    let all: Vec<Pin> = (0..count).map(|n| Pin::new(cid(&n.to_string()), Timestamp::ZERO)).collect();
    for (n, slice) in all.chunks(Command::MAX_BATCH).enumerate() {
        let at = Applied { index: n as u64 + 1, term: 1 };
        machine.apply(at, Some(Command::PinMany(slice.to_vec()))).expect("apply").0.expect("pins");
    }
    let pins = Pins::new(store);
    assert_eq!(pins.count(), count as u64);
    let mut expected: Vec<_> = all.iter().map(|p| p.cid.to_bytes()).collect();
    expected.sort();
    let listed: Vec<_> = pins.iter().map(|p| p.expect("pin").cid.to_bytes()).collect();
    assert_eq!(listed, expected);
    let streamed: Vec<_> = crate::runtime::block_on(pins.stream().collect());
    assert_eq!(streamed.len(), count);
    assert_eq!(streamed.last().map(|p| p.as_ref().expect("pin").cid.to_bytes()), expected.last().cloned());
    assert_eq!(pins.get(&all[7].cid).expect("get").as_ref(), Some(&all[7]));
    assert_eq!(pins.get(&cid("none")).expect("get"), None);
}
