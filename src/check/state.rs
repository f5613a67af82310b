//! The state environment: pages, rows, digest, members.

use super::Findings;
use crate::state::{digest, Applied, Machine, Member, Pin, Role};
use crate::store::lmdb::inspect::{mark_row, MarkRow};
use crate::store::memory::MemoryState;
use crate::store::pages::Pages;
use crate::store::{StateStore, Table, WriteBatch};
use crate::tracker::plan::Record;
use libp2p::PeerId;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

const PART: &str = "state";
/// Rows of members and small records that are read into memory; there are a few hundred.
const MAX_SMALL: usize = 100_000;

/// What the state says.
#[derive(Default)]
pub(super) struct Look {
    pub(super) applied: Applied,
    pub(super) digest: u128,
    pub(super) members: Vec<Member>,
    pub(super) rows: BTreeMap<String, u64>,
}

/// What is gathered on the way.
struct Gathered {
    sum: digest::Sum,
    /// Members and small records, for a machine over them.
    small: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    keys: RandomState,
    pins: HashSet<u64>,
    holders: BTreeMap<PeerId, u64>,
    strays: u64,
    applied: Option<Applied>,
    format: bool,
}

/// Looks at it.
pub(super) fn look(pages: &Pages, findings: &mut Findings) -> Look {
    let mut g = Gathered {
        sum: digest::Sum::default(),
        small: Vec::new(),
        keys: RandomState::new(),
        pins: HashSet::new(),
        holders: BTreeMap::new(),
        strays: 0,
        applied: None,
        format: false,
    };
    let found = pages.walk(&["pins", "members", "meta", "local", "mark"], &mut |table, key, value| {
        take(&mut g, table, key, value, findings);
    });
    findings.pages(PART, &found);
    if !g.format {
        findings.damage(PART, "format", "there is no record of the data format");
    }
    if g.strays > 0 {
        let what = format!("{} local records are of pins that are gone: the tracker unpins them", g.strays);
        findings.note(PART, "strays", what);
    }
    let mut look = Look {
        applied: g.applied.unwrap_or_default(),
        digest: g.sum.digest,
        members: Vec::new(),
        rows: found.rows.clone(),
    };
    machine(g, &mut look, findings);
    look
}

fn take(g: &mut Gathered, table: &str, key: &[u8], value: &[u8], findings: &mut Findings) {
    let replicated = match table {
        "pins" => Some(Table::Pins),
        "members" => Some(Table::Members),
        "meta" => Some(Table::Meta),
        _ => None,
    };
    if let Some(of) = replicated {
        g.sum.add(of, key, value);
    }
    match table {
        "pins" => {
            g.pins.insert(g.keys.hash_one(key));
            pin(g, key, value, findings);
        }
        "members" => {
            match Member::decode(value) {
                Ok(member) if member.raft_id.to_be_bytes() != *key || member.encode() != value => {
                    findings.damage(
                        PART,
                        "members",
                        format!("the record of peer {} is another one's", member.peer_id),
                    );
                }
                Ok(_) => {}
                Err(error) => findings.damage(PART, "members", error.message()),
            }
            small(g, Table::Members, key, value);
        }
        "meta" => small(g, Table::Meta, key, value),
        "local" => match Record::decode(key, value) {
            Ok(_) => g.strays += u64::from(!g.pins.contains(&g.keys.hash_one(key))),
            Err(error) => findings.damage(PART, "local records", error.message()),
        },
        "mark" => match mark_row(key, value) {
            Ok(MarkRow::Applied(applied)) => g.applied = Some(applied),
            Ok(MarkRow::Format(_)) => g.format = true,
            Err(error) => findings.damage(PART, "marks", error.message()),
        },
        other => findings.note(
            PART,
            "tables",
            format!("there is a table {other:?}, which means nothing to this pinfold"),
        ),
    }
}

fn small(g: &mut Gathered, table: Table, key: &[u8], value: &[u8]) {
    if g.small.len() < MAX_SMALL {
        g.small.push((table, key.to_vec(), Some(value.to_vec())));
    }
}

fn pin(g: &mut Gathered, key: &[u8], value: &[u8], findings: &mut Findings) {
    match Pin::decode(value) {
        Ok(pin) if pin.cid.to_bytes() != key => {
            findings.damage(
                PART,
                "pins",
                format!("the record of pin {} lies under another one's name", pin.cid),
            );
        }
        Ok(pin) if pin.encode() != value => {
            findings.damage(
                PART,
                "pins",
                format!("the record of pin {} is not as pinfold writes it", pin.cid),
            );
        }
        Ok(pin) => {
            for holder in pin.allocations {
                *g.holders.entry(holder).or_default() += 1;
            }
        }
        Err(error) => findings.damage(PART, "pins", error.message()),
    }
}

/// What only the small records together say: members, Raft's configuration, the digest.
fn machine(g: Gathered, look: &mut Look, findings: &mut Findings) {
    let stored = g.sum.stored;
    let store = MemoryState::new();
    let applied = Some(Applied { index: look.applied.index.max(1), ..look.applied });
    if let Err(error) = store.write(WriteBatch { writes: g.small, applied }) {
        return findings.damage(PART, "rows", error.message());
    }
    let machine = match Machine::open(Arc::new(store)) {
        Ok(machine) => machine,
        Err(error) => return findings.damage(PART, "records", error.message()),
    };
    look.members = machine.members();
    if let Some(stored) = stored.filter(|stored| *stored != look.digest) {
        let what =
            format!("the rows have the digest {:032x}, and {stored:032x} is what was written", look.digest);
        findings.damage(PART, "digest", what);
    }
    if stored.is_none() && look.rows.get("pins").is_some_and(|n| *n > 0) {
        findings.damage(PART, "digest", "there are pins, and no digest of them");
    }
    let conf = machine.conf_state();
    let ids = |role| -> BTreeSet<u64> {
        look.members.iter().filter(|m| m.role == role).map(|m| m.raft_id).collect()
    };
    let agree = conf.voters.iter().copied().collect::<BTreeSet<_>>() == ids(Role::Voter)
        && conf.learners.iter().copied().collect::<BTreeSet<_>>() == ids(Role::Learner);
    if !agree {
        let what = format!(
            "Raft's configuration ({} voters, {} learners) is not that of the {} members",
            conf.voters.len(),
            conf.learners.len(),
            look.members.len()
        );
        findings.damage(PART, "configuration", what);
    }
    let peers: BTreeSet<_> = look.members.iter().map(|m| m.peer_id).collect();
    if peers.len() < look.members.len() {
        findings.damage(PART, "members", "a peer is a member twice");
    }
    for member in look.members.iter().filter(|m| machine.is_removed(m.raft_id)) {
        findings.damage(PART, "members", format!("peer {} is a member and removed", member.peer_id));
    }
    for (holder, pins) in g.holders.iter().filter(|(holder, _)| !peers.contains(holder)) {
        let what = format!(
            "{pins} pins are allocated to {holder}, which is no member: failover gives them to others"
        );
        findings.note(PART, "holders", what);
    }
}
