//! The bytes of commands, outcomes, pins and members: on disk, in the log, between peers.
//!
//! One byte of format version, then the postcard form of the private `…V1` structs below, which say field
//! by field what is stored and are never changed: a new field means a V2 beside V1. The encoding is
//! canonical (sorted metadata, whole seconds), because the digest of the state is taken over it.
//!
//! What V1 can say is written as V1, for ever: the same value has the same bytes whichever build wrote it, and peers
//! that know only V1 go on reading it while the [cluster version](super::version) is 1. A value that needs V2 says so
//! in [`Command::needs`], and nobody proposes it before.
//!
//! What is decoded is checked against the limits here, because it may come from another peer. Whether a
//! committed command is within them must be the same everywhere, so that changing a limit is a new
//! format version too. Decoding must never panic and never allocate more than the input justifies. A command of a newer version is
//! [`Kind::Version`], which is not deterministic: the peer that cannot read it stops instead of skipping it.

use super::moves::{check_mentions, Move, MovesV2};
use super::pin::{Pin, PinMode, PinType};
use super::types::{Command, Member, Outcome, Role};
use super::version;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::store::record::{self, Blob};
use cid::Cid;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

/// Format of records and commands that the first pinfold knew.
const FORMAT: u8 = 1;
/// Format of what came with cluster version 2.
const FORMAT_2: u8 = 2;
/// Format of what came with cluster version 3.
const FORMAT_3: u8 = 3;

/// Longest CID in bytes; a CIDv1 of a 64-byte hash has 68. It is a key of the store.
pub const MAX_CID: usize = 128;
/// Longest name of a pin in bytes. The pinning service allows 255; the REST API of ipfs-cluster has no limit.
pub const MAX_NAME: usize = 4 << 10;
/// Most metadata entries of one pin.
pub const MAX_METADATA: usize = 1_000;
/// Most bytes of all metadata keys and values of one pin together.
pub const MAX_METADATA_BYTES: usize = 64 << 10;
/// Most allocations of one pin: more peers than any cluster of this kind has.
pub const MAX_ALLOCATIONS: usize = 1_000;
/// Most origins of one pin. Ten are used; what more there are is carried along.
pub const MAX_ORIGINS: usize = 100;
/// Longest address in bytes.
pub const MAX_ADDRESS: usize = 1 << 10;

#[derive(Serialize, Deserialize)]
struct PinV1<'a> {
    #[serde(borrow)]
    cid: Blob<'a>,
    kind: u8,
    direct: bool,
    name: &'a str,
    replication_min: i32,
    replication_max: i32,
    allocations: Vec<Blob<'a>>,
    metadata: Vec<(&'a str, &'a str)>,
    /// Seconds since 1970; `None` is the zero time.
    expire_at: Option<i64>,
    origins: Vec<Blob<'a>>,
    pin_update: Option<Blob<'a>>,
    shard_size: u64,
    reference: Option<Blob<'a>>,
    timestamp: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct MemberV1<'a> {
    raft_id: u64,
    #[serde(borrow)]
    peer_id: Blob<'a>,
    name: &'a str,
    addresses: Vec<Blob<'a>>,
    voter: bool,
}

#[derive(Serialize, Deserialize)]
struct MemberV2<'a> {
    #[serde(borrow)]
    base: MemberV1<'a>,
    version: &'a str,
}

/// A member with a trait that V2 has no word for; there is one so far, so the format itself says it: a witness.
#[derive(Serialize, Deserialize)]
struct WitnessV3<'a> {
    #[serde(borrow)]
    base: MemberV1<'a>,
    /// May be empty, as in V1.
    version: &'a str,
}

#[derive(Serialize, Deserialize)]
enum CommandV1<'a> {
    #[serde(borrow)]
    Pin(PinV1<'a>),
    Unpin(Blob<'a>),
    Expire(Blob<'a>, Option<i64>),
    UpdateMember(MemberV1<'a>),
    PinMany(Vec<PinV1<'a>>),
}

/// The commands that V1 has no word for. New ones go to the end: a variant is known by its place.
#[derive(Serialize, Deserialize)]
enum CommandV2<'a> {
    RaiseVersion(u16),
    #[serde(borrow)]
    UpdateMember(MemberV2<'a>),
    #[serde(borrow)]
    Reallocate(MovesV2<'a>),
}

/// The commands that V2 has no word for.
#[derive(Serialize, Deserialize)]
enum CommandV3<'a> {
    #[serde(borrow)]
    UpdateWitness(WitnessV3<'a>),
}

#[derive(Serialize, Deserialize)]
struct OutcomeV1<'a> {
    #[serde(borrow)]
    pin: Option<PinV1<'a>>,
}

/// The outcomes that V1 has no word for.
#[derive(Serialize, Deserialize)]
enum OutcomeV2 {
    Moved(u32),
}

const KINDS: [PinType; 4] = [PinType::Data, PinType::Meta, PinType::ClusterDag, PinType::Shard];

fn to_seconds(time: Timestamp) -> Option<i64> {
    (!time.trunc().is_zero()).then_some(time.secs)
}

fn from_seconds(seconds: Option<i64>) -> Timestamp {
    seconds.map_or(Timestamp::ZERO, Timestamp::from_secs)
}

pub(super) fn to_cid(what: &str, bytes: &[u8]) -> Result<Cid> {
    if bytes.len() > MAX_CID {
        return Err(Error::invalid(format!("{what} has {} bytes, {MAX_CID} are allowed", bytes.len())));
    }
    let cid = Cid::try_from(bytes).map_err(|e| Error::invalid(format!("{what} is not a CID: {e}")))?;
    // The parser stops at the end of the hash; two byte strings must not be the same CID.
    if cid.encoded_len() != bytes.len() {
        return Err(Error::invalid(format!("{what} is not a CID: there are bytes behind it")));
    }
    Ok(cid)
}

pub(super) fn to_peer(bytes: &[u8]) -> Result<PeerId> {
    PeerId::from_bytes(bytes).map_err(|e| Error::invalid(format!("a peer id is malformed: {e}")))
}

fn to_address(bytes: &[u8]) -> Result<Multiaddr> {
    if bytes.len() > MAX_ADDRESS {
        return Err(Error::invalid(format!(
            "an address has {} bytes, {MAX_ADDRESS} are allowed",
            bytes.len()
        )));
    }
    Multiaddr::try_from(bytes.to_vec()).map_err(|e| Error::invalid(format!("an address is malformed: {e}")))
}

impl<'a> PinV1<'a> {
    fn of(pin: &'a Pin) -> Self {
        PinV1 {
            cid: pin.cid.to_bytes().into(),
            kind: KINDS.iter().position(|k| *k == pin.kind).unwrap_or(0) as u8,
            direct: pin.mode == PinMode::Direct,
            name: &pin.name,
            replication_min: pin.replication_min,
            replication_max: pin.replication_max,
            allocations: pin.allocations.iter().map(|p| p.to_bytes().into()).collect(),
            metadata: pin.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            expire_at: to_seconds(pin.expire_at),
            origins: pin.origins.iter().map(|a| Blob::borrowed(a.as_ref())).collect(),
            pin_update: pin.pin_update.map(|c| c.to_bytes().into()),
            shard_size: pin.shard_size,
            reference: pin.reference.map(|c| c.to_bytes().into()),
            timestamp: to_seconds(pin.timestamp),
        }
    }

    fn into_pin(self) -> Result<Pin> {
        let kind = *KINDS
            .get(usize::from(self.kind))
            .ok_or_else(|| Error::invalid(format!("pin type {} does not exist", self.kind)))?;
        let optional = |what, blob: Option<Blob<'_>>| blob.map(|b| to_cid(what, &b.0)).transpose();
        let pin = Pin {
            cid: to_cid("the cid of a pin", &self.cid.0)?,
            kind,
            mode: if self.direct { PinMode::Direct } else { PinMode::Recursive },
            name: self.name.to_owned(),
            replication_min: self.replication_min,
            replication_max: self.replication_max,
            allocations: self.allocations.iter().map(|b| to_peer(&b.0)).collect::<Result<_>>()?,
            metadata: self.metadata.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            expire_at: from_seconds(self.expire_at),
            origins: self.origins.iter().map(|b| to_address(&b.0)).collect::<Result<_>>()?,
            pin_update: optional("pin_update", self.pin_update)?,
            shard_size: self.shard_size,
            reference: optional("reference", self.reference)?,
            timestamp: from_seconds(self.timestamp),
        };
        pin.check()?;
        Ok(pin)
    }
}

impl<'a> MemberV1<'a> {
    fn of(member: &'a Member) -> Self {
        let addresses = member.addresses.iter().filter(|a| a.len() <= MAX_ADDRESS);
        MemberV1 {
            raft_id: member.raft_id,
            peer_id: member.peer_id.to_bytes().into(),
            name: cut(&member.name, Member::MAX_NAME),
            addresses: addresses.take(Member::MAX_ADDRESSES).map(|a| Blob::borrowed(a.as_ref())).collect(),
            voter: member.role == Role::Voter,
        }
    }

    fn into_member(self) -> Result<Member> {
        if self.raft_id == 0 {
            return Err(Error::invalid("a member's Raft id is 0, which Raft uses for nobody"));
        }
        if self.name.len() > Member::MAX_NAME || self.addresses.len() > Member::MAX_ADDRESSES {
            return Err(Error::invalid(format!(
                "a member has a name of {} bytes and {} addresses; {} and {} are allowed",
                self.name.len(),
                self.addresses.len(),
                Member::MAX_NAME,
                Member::MAX_ADDRESSES
            )));
        }
        Ok(Member {
            raft_id: self.raft_id,
            peer_id: to_peer(&self.peer_id.0)?,
            name: self.name.to_owned(),
            addresses: self.addresses.iter().map(|b| to_address(&b.0)).collect::<Result<_>>()?,
            role: if self.voter { Role::Voter } else { Role::Learner },
            version: String::new(),
            witness: false,
        })
    }
}

impl<'a> MemberV2<'a> {
    fn of(member: &'a Member) -> Self {
        MemberV2 { base: MemberV1::of(member), version: cut(&member.version, Member::MAX_VERSION) }
    }

    fn into_member(self) -> Result<Member> {
        if self.version.is_empty() || self.version.len() > Member::MAX_VERSION {
            return Err(Error::invalid(format!(
                "a member's version has {} bytes; 1 to {} are allowed",
                self.version.len(),
                Member::MAX_VERSION
            )));
        }
        Ok(Member { version: self.version.to_owned(), ..self.base.into_member()? })
    }
}

impl<'a> WitnessV3<'a> {
    fn of(member: &'a Member) -> Self {
        WitnessV3 { base: MemberV1::of(member), version: cut(&member.version, Member::MAX_VERSION) }
    }

    fn into_member(self) -> Result<Member> {
        if self.version.len() > Member::MAX_VERSION {
            return Err(Error::invalid(format!(
                "a witness's version has {} bytes; {} are allowed",
                self.version.len(),
                Member::MAX_VERSION
            )));
        }
        Ok(Member { version: self.version.to_owned(), witness: true, ..self.base.into_member()? })
    }
}

/// The longest beginning of `text` within `limit` bytes that is text again.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Pin {
    /// Whether the pin is within the limits of this module and makes sense.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming the field and its limit.
    pub fn check(&self) -> Result<()> {
        let too = |what: &str, size: usize, limit: usize, unit: &str| {
            Error::invalid(format!("{what} of pin {} has {size} {unit}, {limit} are allowed", self.cid))
        };
        let cids = [("the CID", Some(&self.cid)), ("pin_update", self.pin_update.as_ref())];
        for (what, cid) in cids.into_iter().chain([("reference", self.reference.as_ref())]) {
            if let Some(size) = cid.map(Cid::encoded_len).filter(|size| *size > MAX_CID) {
                return Err(too(what, size, MAX_CID, "bytes"));
            }
        }
        if self.name.len() > MAX_NAME {
            return Err(too("the name", self.name.len(), MAX_NAME, "bytes"));
        }
        if self.metadata.len() > MAX_METADATA {
            return Err(too("the metadata", self.metadata.len(), MAX_METADATA, "entries"));
        }
        let bytes = self.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
        if bytes > MAX_METADATA_BYTES {
            return Err(too("the metadata", bytes, MAX_METADATA_BYTES, "bytes"));
        }
        if self.allocations.len() > MAX_ALLOCATIONS {
            return Err(too("the allocation list", self.allocations.len(), MAX_ALLOCATIONS, "peers"));
        }
        if self.origins.len() > MAX_ORIGINS {
            return Err(too("the origin list", self.origins.len(), MAX_ORIGINS, "addresses"));
        }
        if let Some(origin) = self.origins.iter().find(|a| a.len() > MAX_ADDRESS) {
            return Err(too("an origin", origin.len(), MAX_ADDRESS, "bytes"));
        }
        for factor in [self.replication_min, self.replication_max] {
            if factor == 0 || factor < -1 {
                return Err(Error::invalid(format!(
                    "a replication factor of pin {} is {factor}; it must be -1 (everywhere) or at least 1",
                    self.cid
                )));
            }
        }
        Ok(())
    }

    /// The pin as the state keeps it: times in whole seconds.
    #[must_use]
    pub fn as_stored(mut self) -> Self {
        self.expire_at = self.expire_at.trunc();
        self.timestamp = self.timestamp.trunc();
        self
    }

    /// The record of this pin (times in whole seconds).
    pub fn encode(&self) -> Vec<u8> {
        record::encode(FORMAT, &PinV1::of(self))
    }

    /// The pin of a record.
    ///
    /// # Errors
    /// [`Kind::Version`] for a record of a newer pinfold, [`Kind::Corrupt`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Pin> {
        record::decode::<PinV1<'_>>(FORMAT, bytes)
            .map_err(|f| f.into_error("a pin's record", Kind::Corrupt))?
            .into_pin()
            .map_err(|e| damaged("a pin's record", &e))
    }
}

impl Member {
    /// The record of this member. Names and address lists beyond the limits are cut: they are hints for
    /// people and dialers, and a member that is already agreed on must not be refused for them.
    pub fn encode(&self) -> Vec<u8> {
        if self.witness {
            return record::encode(FORMAT_3, &WitnessV3::of(self));
        }
        if self.version.is_empty() {
            return record::encode(FORMAT, &MemberV1::of(self));
        }
        record::encode(FORMAT_2, &MemberV2::of(self))
    }

    /// The member of a record.
    ///
    /// # Errors
    /// [`Kind::Version`] for a record of a newer pinfold, [`Kind::Corrupt`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Member> {
        let fault = |f: record::Fault| f.into_error("a member's record", Kind::Corrupt);
        let member = match bytes.first() {
            Some(&FORMAT) => record::decode::<MemberV1<'_>>(FORMAT, bytes).map_err(fault)?.into_member(),
            Some(&FORMAT_2) => record::decode::<MemberV2<'_>>(FORMAT_2, bytes).map_err(fault)?.into_member(),
            _ => record::decode::<WitnessV3<'_>>(FORMAT_3, bytes).map_err(fault)?.into_member(),
        };
        member.map_err(|e| damaged("a member's record", &e))
    }
}

impl Command {
    /// Whether the command may be proposed: within the limits, so that [`Command::decode`] takes it.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming what is wrong; [`Kind::TooLarge`] when only its size is.
    pub fn check(&self) -> Result<()> {
        match self {
            Command::Pin(pin) => pin.check(),
            Command::PinMany(pins) if pins.len() > Command::MAX_BATCH => Err(Error::invalid(format!(
                "a batch of {} pins; {} are allowed in one command",
                pins.len(),
                Command::MAX_BATCH
            ))),
            Command::PinMany(pins) => pins.iter().try_for_each(Pin::check),
            Command::Unpin(cid) | Command::Expire(cid, _) if cid.encoded_len() > MAX_CID => {
                Err(Error::invalid(format!("{cid} has more than {MAX_CID} bytes")))
            }
            Command::RaiseVersion(version) => check_version(*version),
            Command::Reallocate(moves) if moves.len() > Command::MAX_BATCH => Err(Error::invalid(format!(
                "a batch of {} moves; {} are allowed in one command",
                moves.len(),
                Command::MAX_BATCH
            ))),
            Command::Reallocate(moves) => {
                check_mentions(moves.iter().map(|m| m.from.len() + m.to.len()).sum())?;
                moves.iter().try_for_each(Move::check)
            }
            Command::Unpin(_) | Command::Expire(..) | Command::UpdateMember(_) => Ok(()),
        }
    }

    /// The bytes of this command. They are for the log: [`Command::check`] first.
    pub fn encode(&self) -> Vec<u8> {
        let v1 = match self {
            Command::Pin(pin) => CommandV1::Pin(PinV1::of(pin)),
            Command::Unpin(cid) => CommandV1::Unpin(cid.to_bytes().into()),
            Command::Expire(cid, at) => CommandV1::Expire(cid.to_bytes().into(), to_seconds(*at)),
            Command::UpdateMember(member) if member.witness => {
                return record::encode(FORMAT_3, &CommandV3::UpdateWitness(WitnessV3::of(member)))
            }
            Command::UpdateMember(member) if member.version.is_empty() => {
                CommandV1::UpdateMember(MemberV1::of(member))
            }
            Command::UpdateMember(member) => {
                return record::encode(FORMAT_2, &CommandV2::UpdateMember(MemberV2::of(member)))
            }
            Command::PinMany(pins) => CommandV1::PinMany(pins.iter().map(PinV1::of).collect()),
            Command::RaiseVersion(version) => {
                return record::encode(FORMAT_2, &CommandV2::RaiseVersion(*version))
            }
            Command::Reallocate(moves) => {
                return record::encode(FORMAT_2, &CommandV2::Reallocate(MovesV2::of(moves)))
            }
        };
        record::encode(FORMAT, &v1)
    }

    /// The command of these bytes.
    ///
    /// # Errors
    /// [`Kind::Version`] for a command of a newer pinfold, [`Kind::TooLarge`] beyond
    /// [`Command::MAX_BYTES`], [`Kind::Invalid`] for anything else that is not a command within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Command> {
        if bytes.len() > Command::MAX_BYTES {
            return Err(Error::too_large(format!(
                "a command has {} bytes, {} are allowed",
                bytes.len(),
                Command::MAX_BYTES
            )));
        }
        let fault = |f: record::Fault| f.into_error("a command", Kind::Invalid);
        let command = match bytes.first() {
            Some(&FORMAT) => Command::of_v1(record::decode(FORMAT, bytes).map_err(fault)?)?,
            Some(&FORMAT_2) => Command::of_v2(record::decode(FORMAT_2, bytes).map_err(fault)?)?,
            _ => Command::of_v3(record::decode(FORMAT_3, bytes).map_err(fault)?)?,
        };
        command.check()?;
        Ok(command)
    }

    fn of_v1(v1: CommandV1<'_>) -> Result<Command> {
        Ok(match v1 {
            CommandV1::Pin(pin) => Command::Pin(Box::new(pin.into_pin()?)),
            CommandV1::Unpin(cid) => Command::Unpin(to_cid("the cid of an unpin", &cid.0)?),
            CommandV1::Expire(cid, at) => {
                Command::Expire(to_cid("the cid of an expiry", &cid.0)?, from_seconds(at))
            }
            CommandV1::UpdateMember(member) => Command::UpdateMember(member.into_member()?),
            CommandV1::PinMany(pins) => {
                Command::PinMany(pins.into_iter().map(PinV1::into_pin).collect::<Result<_>>()?)
            }
        })
    }

    fn of_v2(v2: CommandV2<'_>) -> Result<Command> {
        Ok(match v2 {
            CommandV2::RaiseVersion(version) => Command::RaiseVersion(version),
            CommandV2::UpdateMember(member) => Command::UpdateMember(member.into_member()?),
            CommandV2::Reallocate(moves) => Command::Reallocate(moves.into_moves()?),
        })
    }

    fn of_v3(v3: CommandV3<'_>) -> Result<Command> {
        let CommandV3::UpdateWitness(member) = v3;
        member.into_member().map(Command::UpdateMember)
    }
}

/// Whether this program can live in a cluster of this version.
///
/// # Errors
/// [`Kind::Version`], which is not deterministic: a peer that cannot must stop.
pub(super) fn check_version(cluster: u16) -> Result<()> {
    if cluster <= version::SPOKEN {
        return Ok(());
    }
    Err(Error::version(format!(
        "the cluster speaks version {cluster}, and this pinfold ({}) only up to {}: install the version that the \
         other peers run",
        crate::VERSION,
        version::SPOKEN
    )))
}

impl Outcome {
    /// The bytes of this outcome.
    pub fn encode(&self) -> Vec<u8> {
        let pin = match self {
            Outcome::Done => None,
            Outcome::Pin(pin) => Some(PinV1::of(pin)),
            Outcome::Moved(count) => return record::encode(FORMAT_2, &OutcomeV2::Moved(*count)),
        };
        record::encode(FORMAT, &OutcomeV1 { pin })
    }

    /// The outcome of these bytes.
    ///
    /// # Errors
    /// [`Kind::Version`] for an outcome of a newer pinfold, [`Kind::Corrupt`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Outcome> {
        let fault = |f: record::Fault| f.into_error("an outcome", Kind::Corrupt);
        if bytes.first() != Some(&FORMAT) {
            let OutcomeV2::Moved(count) = record::decode(FORMAT_2, bytes).map_err(fault)?;
            return Ok(Outcome::Moved(count));
        }
        let v1: OutcomeV1<'_> = record::decode(FORMAT, bytes).map_err(fault)?;
        match v1.pin {
            None => Ok(Outcome::Done),
            Some(pin) => {
                let pin = pin.into_pin().map_err(|e| damaged("an outcome", &e))?;
                Ok(Outcome::Pin(Box::new(pin)))
            }
        }
    }
}

/// What is invalid in a record of our own making is damage.
fn damaged(what: &str, error: &Error) -> Error {
    Error::corrupt(format!("{what} is damaged: {error}"))
}
