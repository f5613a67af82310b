//! Moving pins between holders: the command's data, its bytes, and how it is applied.
//!
//! Whoever decides that content should lie elsewhere (failover, drain, rebalance) looked at the state a
//! moment ago. A [`Move`] therefore says what it saw and what it wants, and applies only where the allocations
//! are still what it saw: a user's newer word is never overwritten, a move that was proposed twice is done once, and
//! one whose pin is gone does nothing. Everything else about the pin, its timestamp included, stays as it is.
//!
//! The bytes name each peer once per command and refer to it by number, because a thousand moves mention the
//! same handful of peers: about 45 bytes for a move instead of 300.

use super::codec::{to_cid, to_peer, MAX_ALLOCATIONS, MAX_CID};
use crate::error::{Error, Result};
use crate::store::record::Blob;
use cid::Cid;
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most mentions of peers in one command: a thousand moves between fifty holders each. It bounds what decoding
/// allocates, for a mention is one byte in the log and a whole peer id in memory.
pub const MAX_MENTIONS: usize = 100_000;

/// From these holders to those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Of which pin.
    pub cid: Cid,
    /// The allocations as they were seen; where they are others by now, nothing happens.
    pub from: Vec<PeerId>,
    /// The allocations as they shall be. Never empty: that would read as nobody's.
    pub to: Vec<PeerId>,
}

impl Move {
    /// Whether the move is within the limits and makes sense.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] naming the pin.
    pub fn check(&self) -> Result<()> {
        if self.cid.encoded_len() > MAX_CID {
            return Err(Error::invalid(format!("{} has more than {MAX_CID} bytes", self.cid)));
        }
        if self.to.is_empty() || self.to.len() > MAX_ALLOCATIONS || self.from.len() > MAX_ALLOCATIONS {
            return Err(Error::invalid(format!(
                "pin {} cannot be moved from {} to {} peers; 1 to {MAX_ALLOCATIONS} can hold a pin",
                self.cid,
                self.from.len(),
                self.to.len()
            )));
        }
        if self.to.iter().collect::<BTreeSet<_>>().len() != self.to.len() {
            return Err(Error::invalid(format!("pin {} cannot be moved to one peer twice", self.cid)));
        }
        Ok(())
    }
}

/// Whether so many mentions fit into one command.
///
/// # Errors
/// [`crate::Kind::Invalid`] with the limit.
pub(super) fn check_mentions(mentions: usize) -> Result<()> {
    if mentions > MAX_MENTIONS {
        return Err(Error::invalid(format!(
            "a batch of moves mentions {mentions} holders; {MAX_MENTIONS} are allowed in one command"
        )));
    }
    Ok(())
}

/// The bytes of many moves.
#[derive(Serialize, Deserialize)]
pub(super) struct MovesV2<'a> {
    /// Everybody who is mentioned, in the order of the first mention.
    #[serde(borrow)]
    peers: Vec<Blob<'a>>,
    moves: Vec<MoveV2<'a>>,
}

#[derive(Serialize, Deserialize)]
struct MoveV2<'a> {
    #[serde(borrow)]
    cid: Blob<'a>,
    from: Vec<u32>,
    to: Vec<u32>,
}

impl MovesV2<'_> {
    pub(super) fn of(moves: &[Move]) -> Self {
        let (mut peers, mut numbers) = (Vec::new(), BTreeMap::new());
        let mut number = |peer: &PeerId| {
            *numbers.entry(*peer).or_insert_with(|| {
                peers.push(Blob::from(peer.to_bytes()));
                peers.len() as u32 - 1
            })
        };
        let moves = moves
            .iter()
            .map(|m| MoveV2 {
                cid: m.cid.to_bytes().into(),
                from: m.from.iter().map(&mut number).collect(),
                to: m.to.iter().map(&mut number).collect(),
            })
            .collect();
        MovesV2 { peers, moves }
    }

    pub(super) fn into_moves(self) -> Result<Vec<Move>> {
        check_mentions(self.moves.iter().map(|m| m.from.len() + m.to.len()).sum())?;
        let peers = self.peers.iter().map(|b| to_peer(&b.0)).collect::<Result<Vec<_>>>()?;
        let named = |numbers: Vec<u32>| {
            numbers
                .into_iter()
                .map(|n| {
                    peers.get(n as usize).copied().ok_or_else(|| {
                        Error::invalid(format!("a move names peer {n} of a list of {}", peers.len()))
                    })
                })
                .collect::<Result<Vec<_>>>()
        };
        self.moves
            .into_iter()
            .map(|m| {
                Ok(Move {
                    cid: to_cid("the cid of a move", &m.cid.0)?,
                    from: named(m.from)?,
                    to: named(m.to)?,
                })
            })
            .collect()
    }
}
