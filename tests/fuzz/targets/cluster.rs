//! What the peers of a cluster call each other with, and how a founding set agrees.

use super::Input;
use crate::clock::Timestamp;
use crate::cluster::{JoinReply, JoinRequest};
use crate::consensus::founding::{Answer, Ask, AskKind, Ballot, Founder, Founding, Outcome, Plan, Record};
use crate::consensus::snapshot::SnapshotRequest;
use crate::consensus::wire::{MemberRequest, MemberRequestKind, ProposeAnswer, ProposeRequest};
use crate::monitor::{Monitor, Reading};
use crate::state::Member;
use crate::tracker::{Row, StatusFilter};
use libp2p::PeerId;
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::sync::OnceLock;

/// A message of a call: whatever can be read is the same when it is written and read again.
fn message<T: Serialize + DeserializeOwned>(data: &[u8]) -> Option<T> {
    let value: T = postcard::from_bytes(data).ok()?;
    let bytes = postcard::to_stdvec(&value).expect("what was read can be written");
    let again: T = postcard::from_bytes(&bytes).expect("read again");
    assert_eq!(postcard::to_stdvec(&again).expect("written again"), bytes);
    Some(value)
}

/// Any bytes as each message of the calls between peers, and what is done with it first.
pub(super) fn messages(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    match kind % 9 {
        0 => drop(message::<JoinRequest>(data)),
        1 => {
            if let Some(reply) = message::<JoinReply>(data) {
                let _ = reply.members();
            }
        }
        2 => {
            if let Some(readings) = message::<Vec<Reading>>(data) {
                measure(readings);
            }
        }
        3 => drop(message::<Vec<Row>>(data)),
        4 => drop(message::<StatusFilter>(data)),
        5 => drop(message::<Vec<ProposeRequest>>(data)),
        6 => {
            if let Some(MemberRequest { change: MemberRequestKind::Add(record), .. }) = message(data) {
                let _ = Member::decode(&record);
            }
        }
        7 => {
            if let Some(answers) = message::<Vec<crate::Result<ProposeAnswer>>>(data) {
                for answer in answers.into_iter().flatten() {
                    let _ = answer.decode();
                }
            }
        }
        _ => drop(message::<SnapshotRequest>(data)),
    }
}

/// Readings of a peer go into the monitor, and come out as metrics and alerts.
fn measure(readings: Vec<Reading>) {
    let (peer, wall) = (identities()[0], Timestamp::from_secs(1_700_000_000));
    let mut monitor = Monitor::default();
    for now in [0, 1_000] {
        monitor.take(peer, readings.clone(), now, wall);
        let names = monitor.names();
        for name in &names {
            let metrics = monitor.metrics(name, &[peer], now, wall);
            serde_json::to_string(&metrics).expect("metrics are JSON");
        }
        let _ = monitor.last_ping(&peer);
        let _ = monitor.check(&[peer], now + 500, wall);
    }
}

fn identities() -> &'static [PeerId; 4] {
    static PEER_IDS: OnceLock<[PeerId; 4]> = OnceLock::new();
    PEER_IDS.get_or_init(|| {
        let mut all = std::array::from_fn(|n| {
            let hash = multihash::Multihash::wrap(0x12, &[n as u8; 32]).expect("32 bytes");
            PeerId::from_multihash(hash).expect("a SHA-256 digest names a peer")
        });
        all.sort_by_key(PeerId::to_string);
        all
    })
}

/// The first three are the founding set; the fourth is a stranger.
fn list() -> Vec<String> {
    identities()[..3].iter().map(PeerId::to_string).collect()
}

fn founder(input: &mut Input<'_>) -> Founder {
    Founder {
        peer: identities()[input.below(4)].to_string(),
        raft_id: input.number() % 6,
        name: String::from_utf8_lossy(input.bytes()).into_owned(),
        addresses: vec![String::from_utf8_lossy(input.bytes()).into_owned()],
        voter: input.flag(),
        release: ["", "0.1.0", "0.2.0", "99.0.0"][input.below(4)].to_owned(),
    }
}

fn ballot(input: &mut Input<'_>) -> Ballot {
    Ballot { round: input.number(), peer: identities()[input.below(4)].to_string() }
}

fn plan(input: &mut Input<'_>) -> Plan {
    let mut founders: Vec<Founder> = (0..input.below(5)).map(|_| founder(input)).collect();
    if input.flag() {
        founders.sort_by(|a, b| a.peer.cmp(&b.peer));
    }
    Plan { cluster_id: input.number(), version: input.number() as u16, founders }
}

fn ask_kind(input: &mut Input<'_>) -> AskKind {
    match input.below(4) {
        0 => AskKind::Hello,
        1 => AskKind::Prepare(ballot(input)),
        2 => AskKind::Accept(ballot(input), plan(input)),
        _ => AskKind::Chosen(plan(input)),
    }
}

fn answer(input: &mut Input<'_>) -> Answer {
    match input.below(8) {
        0 => Answer::Fresh,
        1 => {
            let accepted = input.flag().then(|| (ballot(input), plan(input)));
            Answer::Promise(ballot(input), founder(input), accepted)
        }
        2 => Answer::Accepted(ballot(input)),
        3 => Answer::Refused(ballot(input)),
        4 => Answer::Chosen(plan(input)),
        5 => Answer::OtherList(vec![String::from_utf8_lossy(input.bytes()).into_owned()]),
        6 => Answer::Member(crate::consensus::founding::Belonging {
            cluster_id: input.number(),
            members: list().into_iter().take(input.below(4)).collect(),
            applied: input.number(),
        }),
        _ => Answer::Starting,
    }
}

/// A record as the disk has it, then questions and answers of the other founders, as bytes and made: what was promised is
/// kept, what was chosen stays, and what it ends in can be started with.
pub(super) fn founding(data: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<Record>(data) {
        let text = serde_json::to_vec(&record).expect("a record is JSON");
        assert_eq!(serde_json::from_slice::<Record>(&text).expect("read again"), record);
        for plan in record.chosen.iter().chain(record.accepted.iter().map(|(_, plan)| plan)) {
            let _ = plan.check(&record.list);
            let _ = plan.members();
        }
    }
    let _ = message::<Ask>(data);
    let _ = message::<Answer>(data);

    let mut input = Input(data);
    let us = Founder {
        peer: list()[0].clone(),
        raft_id: 1,
        name: "us".to_owned(),
        addresses: Vec::new(),
        voter: true,
        release: crate::VERSION.to_owned(),
    };
    let mut founding = Founding::new(us, Record::new(1, list()), 7, 42);
    let mut now = 0u64;
    let mut asked: Vec<(String, AskKind)> = Vec::new();
    let mut before = founding.record().clone();
    while !input.is_empty() {
        let from = identities()[input.below(4)].to_string();
        let mail = match input.below(4) {
            0 => {
                now += 100 * u64::from(input.byte());
                founding.tick(now)
            }
            1 => {
                let made = Ask {
                    list: if input.below(8) == 0 { Vec::new() } else { list() },
                    raft_id: input.number(),
                    kind: ask_kind(&mut input),
                };
                let ask = if input.below(8) == 0 { message(input.bytes()).unwrap_or(made) } else { made };
                founding.answer(now, &from, &ask);
                Vec::new()
            }
            2 if !asked.is_empty() => {
                // The answer that an honest founder gives to what it was last asked.
                let (to, kind) = asked.swap_remove(input.below(asked.len()));
                let answer = match &kind {
                    AskKind::Hello => Answer::Fresh,
                    AskKind::Prepare(ballot) => Answer::Promise(
                        ballot.clone(),
                        Founder { peer: to.clone(), ..founder(&mut input) },
                        None,
                    ),
                    AskKind::Accept(ballot, _) => Answer::Accepted(ballot.clone()),
                    AskKind::Chosen(plan) => Answer::Chosen(plan.clone()),
                };
                founding.heard(now, &to, &kind, Ok(answer))
            }
            _ => {
                let (kind, said) = (ask_kind(&mut input), answer(&mut input));
                let said = if input.below(8) == 0 { Err("it did not answer".to_owned()) } else { Ok(said) };
                founding.heard(now, &from, &kind, said)
            }
        };
        asked.extend(mail.into_iter().map(|(to, ask)| (to, ask.kind)));
        asked.truncate(64);
        let record = founding.record().clone();
        assert!(record.promised >= before.promised || record.chosen.is_some(), "a promise was broken");
        assert!(before.chosen.is_none() || record.chosen == before.chosen, "what was chosen has changed");
        if let Some(saved) = founding.unsaved() {
            assert_eq!(saved, record);
        }
        let _ = founding.missing(now);
        if let Outcome::Found(plan) = founding.outcome(now) {
            plan.check(&list()).expect("a cluster begins as it may");
            plan.members().expect("with members that Raft takes");
        }
        before = record;
    }
}
