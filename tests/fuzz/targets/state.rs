//! Records and commands of the replicated state, snapshots of it, and pinsets as files.

use super::Input;
use crate::api::json;
use crate::api::types::PinJson;
use crate::clock::Timestamp;
use crate::consensus::message::encode_conf_state;
use crate::consensus::snapshot::{Chunk, Receiver, MAX_CHUNK_ROWS};
use crate::state::transfer::{import as read_pins, import_all, ImportOptions, MAX_FAULTS};
use crate::state::{version, Applied, Command, Machine, Member, Outcome, Pin, PinMode, PinType, Role};
use crate::store::memory::MemoryState;
use crate::store::{StateStore, Table};
use cid::Cid;
use libp2p::{Multiaddr, PeerId};
use multihash::Multihash;
use raft::eraftpb::ConfState;
use std::sync::Arc;

/// Pins of one input's world: few, so that commands meet.
const CIDS: u8 = 4;
/// Commands of one input.
const MAX_COMMANDS: usize = 64;
/// Chunks of one snapshot.
const MAX_CHUNKS: usize = 64;

fn cid(input: &mut Input<'_>) -> Cid {
    let n = input.byte() % CIDS;
    let hash = Multihash::wrap(0x12, &[n; 32]).expect("32 bytes");
    match input.below(8) {
        0 => Cid::new_v0(hash).expect("SHA-256"),
        1 => Cid::new_v1(input.number(), Multihash::wrap(input.number(), &[n; 64]).expect("64 bytes")),
        _ => Cid::new_v1(0x55, hash),
    }
}

fn peer(input: &mut Input<'_>) -> PeerId {
    let hash = Multihash::wrap(0x12, &[input.byte() % CIDS; 32]).expect("32 bytes");
    PeerId::from_multihash(hash).expect("a SHA-256 digest names a peer")
}

fn time(input: &mut Input<'_>) -> Timestamp {
    Timestamp { secs: input.number() as i64, nanos: input.number() as u32 % 1_000_000_000 }
}

fn text(input: &mut Input<'_>) -> String {
    String::from_utf8_lossy(input.bytes()).into_owned()
}

fn address(input: &mut Input<'_>) -> Option<Multiaddr> {
    Multiaddr::try_from(input.bytes().to_vec()).ok()
}

fn pin(input: &mut Input<'_>) -> Pin {
    let mut pin = Pin::new(cid(input), time(input));
    let fields = input.byte();
    if fields & 1 != 0 {
        pin.name = text(input);
    }
    if fields & 2 != 0 {
        pin.allocations = (0..input.below(5)).map(|_| peer(input)).collect();
        (pin.replication_min, pin.replication_max) = (input.number() as i32, input.number() as i32);
    }
    if fields & 4 != 0 {
        pin.metadata = (0..input.below(5)).map(|_| (text(input), text(input))).collect();
    }
    if fields & 8 != 0 {
        pin.expire_at = time(input);
    }
    if fields & 16 != 0 {
        pin.origins = (0..input.below(3)).filter_map(|_| address(input)).collect();
    }
    if fields & 32 != 0 {
        (pin.pin_update, pin.reference) = (Some(cid(input)), Some(cid(input)));
    }
    if fields & 64 != 0 {
        pin.kind = [PinType::Data, PinType::Meta, PinType::ClusterDag, PinType::Shard][input.below(4)];
        pin.mode = if input.flag() { PinMode::Direct } else { PinMode::Recursive };
        pin.shard_size = input.number();
    }
    pin
}

fn member(input: &mut Input<'_>) -> Member {
    Member {
        raft_id: input.number(),
        peer_id: peer(input),
        name: text(input),
        addresses: (0..input.below(4)).filter_map(|_| address(input)).collect(),
        role: if input.flag() { Role::Voter } else { Role::Learner },
        version: if input.flag() { text(input) } else { String::new() },
        witness: input.below(4) == 1,
    }
}

fn command(input: &mut Input<'_>) -> Command {
    match input.below(8) {
        0 | 1 => Command::Pin(Box::new(pin(input))),
        2 => Command::Unpin(cid(input)),
        3 => Command::Expire(cid(input), time(input)),
        4 => Command::UpdateMember(member(input)),
        5 => Command::PinMany((0..input.below(6)).map(|_| pin(input)).collect()),
        6 => Command::RaiseVersion(input.number() as u16),
        _ => {
            let one = |input: &mut Input<'_>| crate::state::Move {
                cid: cid(input),
                from: (0..input.below(4)).map(|_| peer(input)).collect(),
                to: (0..input.below(4)).map(|_| peer(input)).collect(),
            };
            Command::Reallocate((0..input.below(5)).map(|_| one(input)).collect())
        }
    }
}

/// Any bytes as each kind of record, and records of any values: what is read is written and read again.
pub(super) fn records(data: &[u8]) {
    if let Ok(pin) = Pin::decode(data) {
        pin.check().expect("what is read is within the limits");
        assert_eq!(Pin::decode(&pin.encode()).expect("read again"), pin);
    }
    if let Ok(member) = Member::decode(data) {
        assert_eq!(Member::decode(&member.encode()).expect("read again"), member);
    }
    if let Ok(command) = Command::decode(data) {
        command.check().expect("what is read is within the limits");
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes).expect("read again"), command);
        assert!(command.needs() <= version::SPOKEN);
    }
    if let Ok(outcome) = Outcome::decode(data) {
        assert_eq!(Outcome::decode(&outcome.encode()).expect("read again"), outcome);
    }
    let mut input = Input(data);
    let made = command(&mut input);
    if made.check().is_ok() {
        let bytes = made.encode();
        if bytes.len() <= Command::MAX_BYTES {
            match Command::decode(&bytes) {
                Ok(read) => assert_eq!(read.encode(), bytes, "one value has one form"),
                // A member's record cannot be checked before it is made: names are cut, an id of 0 is refused.
                Err(error) => assert!(matches!(made, Command::UpdateMember(_)), "{error}: {made:?}"),
            }
        }
    }
}

/// Commands, made and as bytes, one after the other into the machine that every peer runs: it never stops but for what is
/// newer, two machines agree, and the digest is that of the rows.
pub(super) fn commands(data: &[u8]) {
    let mut input = Input(data);
    let open = || {
        let store: Arc<dyn StateStore> = Arc::new(MemoryState::new());
        (Machine::open(store.clone()).expect("an empty state"), store)
    };
    let ((mut one, store), (mut two, _)) = (open(), open());
    for index in 1..=MAX_COMMANDS as u64 {
        if input.is_empty() {
            break;
        }
        let bytes = if input.flag() { input.bytes().to_vec() } else { command(&mut input).encode() };
        let at = Applied { index, term: 1 };
        let (first, second) = (one.apply_bytes(at, &bytes), two.apply_bytes(at, &bytes));
        match (first, second) {
            (Ok((answer, events)), Ok((same, told))) => {
                assert_eq!((&answer, &events), (&same, &told), "every peer answers alike");
                if let Ok(outcome) = answer {
                    assert_eq!(Outcome::decode(&outcome.encode()).expect("read again"), outcome);
                } else {
                    assert!(events.is_empty(), "what was refused changed nothing");
                }
            }
            (Err(error), Err(_)) => {
                assert_eq!(error.kind(), crate::Kind::Version, "{error}");
                break;
            }
            _ => panic!("two peers do not agree on whether a command can be applied"),
        }
        if index == 5 {
            store.flush().expect("flushed");
        }
    }
    assert_eq!(one.digest(), two.digest());
    one.verify().expect("the digest is that of the rows");
    let again = Machine::open(store).expect("what was applied can be read");
    assert_eq!(again.digest(), one.digest());
    assert_eq!(again.members(), one.members());
}

/// Chunks of a snapshot stream, as bytes and made: nothing is installed that is not whole, and what is installed can be read
/// or is refused with a sentence.
pub(super) fn snapshot(data: &[u8]) {
    let mut input = Input(data);
    let store = MemoryState::new();
    let at_least = u64::from(input.byte() % 4);
    let mut receiver = Receiver::new(&store, at_least).expect("memory");
    for _ in 0..MAX_CHUNKS {
        if input.is_empty() {
            break;
        }
        let chunk = match input.below(4) {
            0 => postcard::from_bytes::<Chunk>(input.bytes()).ok(),
            1 => Some(Chunk::Header {
                applied: Applied { index: input.number(), term: input.number() },
                conf_state: if input.flag() {
                    input.bytes().to_vec()
                } else {
                    encode_conf_state(&ConfState { voters: vec![1, 2, 3], ..ConfState::default() })
                },
            }),
            2 => Some(Chunk::Rows((0..input.below(6)).map(|_| row(&mut input)).collect())),
            _ => Some(Chunk::End { rows: input.number() }),
        };
        let Some(chunk) = chunk else { continue };
        let copy = postcard::to_stdvec(&chunk).expect("a chunk has a form");
        assert_eq!(postcard::from_bytes::<Chunk>(&copy).expect("read again"), chunk);
        if matches!(&chunk, Chunk::Rows(rows) if rows.len() > MAX_CHUNK_ROWS) {
            assert!(receiver.take(chunk).is_err());
            return;
        }
        if receiver.take(chunk).is_err() {
            return;
        }
    }
    let Ok(fetched) = receiver.finish() else { return };
    assert!(fetched.applied.index >= at_least && fetched.applied.term > 0);
    if store.install(fetched.sink, fetched.applied).is_ok() {
        assert_eq!(store.applied(), fetched.applied);
        let store: Arc<dyn StateStore> = Arc::new(store);
        if let Ok(machine) = Machine::open(store.clone()) {
            let _ = machine.verify();
        }
        for (_, value) in store.scan(Table::Pins, None, usize::MAX).expect("memory") {
            let _ = Pin::decode(&value);
        }
    }
}

fn row(input: &mut Input<'_>) -> (u8, Vec<u8>, Vec<u8>) {
    match input.below(5) {
        0 => {
            let pin = pin(input);
            (0, pin.cid.to_bytes(), pin.encode())
        }
        1 => {
            let member = member(input);
            (1, member.raft_id.to_be_bytes().to_vec(), member.encode())
        }
        2 => {
            let names: [&[u8]; 4] = [b"conf_state", b"removed", b"version", b"digest"];
            (2, names[input.below(4)].to_vec(), input.bytes().to_vec())
        }
        _ => (input.byte() % 5, input.bytes().to_vec(), input.bytes().to_vec()),
    }
}

/// A pinset of any age: each pin is within the limits, and a file of what was read holds the same pins.
pub(super) fn import(data: &[u8]) {
    let keep_going = ImportOptions { keep_going: true, ..ImportOptions::default() };
    let mut reader = read_pins(data, keep_going);
    let pins: Vec<Pin> = reader.by_ref().take_while(Result::is_ok).flatten().collect();
    let report = reader.into_report();
    assert_eq!(report.pins, pins.len() as u64);
    assert!(report.faults.len() <= MAX_FAULTS && report.fault_count >= report.faults.len() as u64);
    let mut file = Vec::new();
    for pin in &pins {
        pin.check().expect("what is read is within the limits");
        assert_eq!(&Pin::decode(&pin.encode()).expect("a record of it"), pin);
        json::append(&mut file, &PinJson::from_state(pin)).expect("a line of it");
    }
    let again = import_all(&file[..], ImportOptions::default()).expect("what was exported can be imported");
    assert_eq!(again, pins);
    if let Ok(strict) = import_all(data, ImportOptions::default()) {
        assert_eq!(strict, pins, "a file without faults is the same file when faults are allowed");
    }
}
