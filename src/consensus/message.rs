//! What Raft peers say to each other, as bytes: our own bounded codec for raft-rs's messages.
//!
//! raft-rs brings protobuf types, and rust-protobuf 2 has a known way to be crashed by hostile input. So its
//! parser never sees a byte from the network or from the log: frames are written and read here, with every
//! count and length checked against a named limit *before* anything is allocated.
//!
//! One [`Frame`] goes from one Raft id to one other and carries many messages, so that a whole Ready costs one
//! write. Integers are LEB128, byte strings are length-prefixed, everything is in declaration order.
//!
//! It must never: panic on any input, allocate more than the input's own size allows, or accept a message
//! type that only means something inside one process ([`is_remote`]).

use crate::error::{Error, Result};
use crate::state::{Applied, Command, RaftId};
use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};

/// Format of a frame; a peer that speaks another one is told so.
pub const VERSION: u8 = 1;
/// Largest frame that is written or read. One Ready is split into several frames beyond it.
pub const MAX_FRAME_BYTES: usize = 3 << 20;
/// Most messages in one frame.
pub const MAX_MESSAGES: usize = 4_096;
/// Most entries in one message: far beyond what the replication limits let through.
pub const MAX_ENTRIES: usize = 65_536;
/// Largest data of one entry: a command and its envelope.
pub const MAX_ENTRY_BYTES: usize = Command::MAX_BYTES + 4_096;
/// Largest context of an entry: a proposal id, or the member records of a configuration change.
pub const MAX_CONTEXT_BYTES: usize = 16 << 10;
/// Most Raft ids in one list of a configuration.
pub const MAX_CONF_IDS: usize = 1_024;
/// Largest term, index or hint. No log gets there, and raft-rs counts on from these numbers without looking.
pub const MAX_NUMBER: u64 = 1 << 62;
/// Longest name of a snapshot.
pub const MAX_SNAPSHOT_NAME: usize = 64;

/// What one frame is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Raft messages, in order.
    Messages(Vec<Message>),
    /// The receiver was removed from the cluster; nobody will ever answer it otherwise.
    Removed,
    /// The sender has heard of no leader for long: was it removed?
    AmIRemoved,
    /// The cluster of this frame's id lost its majority for good; the sender is a member of the one that was recovered
    /// from it. A pinfold before 0.3 takes this for a damaged frame.
    Recovered {
        /// The new cluster.
        into: u64,
        /// The last entry of the old cluster's log that is in it.
        upto: Applied,
    },
}

/// What travels from one Raft id to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The cluster that both must be of.
    pub cluster_id: u64,
    /// Who says it.
    pub from: RaftId,
    /// To whom.
    pub to: RaftId,
    /// What.
    pub body: Body,
}

/// Whether a message of this type may come from another process.
pub fn is_remote(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppend
            | MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgSnapshot
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgTimeoutNow
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
    )
}

/// Writes messages of one sender to one receiver as as few frames as fit the limits.
pub fn encode_messages(cluster_id: u64, from: RaftId, to: RaftId, messages: &[Message]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut body = Vec::new();
    let mut count = 0;
    for message in messages {
        let before = body.len();
        put_message(&mut body, message);
        count += 1;
        if (body.len() > MAX_FRAME_BYTES - HEAD_BYTES || count > MAX_MESSAGES) && before > 0 {
            let rest = body.split_off(before);
            frames.push(finish(cluster_id, from, to, 0, count - 1, &body));
            body = rest;
            count = 1;
        }
    }
    if count > 0 {
        frames.push(finish(cluster_id, from, to, 0, count, &body));
    }
    frames
}

/// Writes a frame without messages.
pub fn encode_notice(cluster_id: u64, from: RaftId, to: RaftId, body: &Body) -> Vec<u8> {
    let kind = match body {
        Body::Messages(_) => 0,
        Body::Removed => 1,
        Body::AmIRemoved => 2,
        Body::Recovered { .. } => 3,
    };
    let mut out = finish(cluster_id, from, to, kind, 0, &[]);
    if let Body::Recovered { into, upto } = body {
        for n in [*into, upto.index, upto.term] {
            out.extend_from_slice(&n.to_be_bytes());
        }
    }
    out
}

/// Version, kind, three ids and a count: what a frame costs beyond its messages, at most.
const HEAD_BYTES: usize = 2 + 3 * 8 + 10;

fn finish(cluster_id: u64, from: RaftId, to: RaftId, kind: u8, count: usize, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + body.len());
    out.push(VERSION);
    out.push(kind);
    out.extend_from_slice(&cluster_id.to_be_bytes());
    out.extend_from_slice(&from.to_be_bytes());
    out.extend_from_slice(&to.to_be_bytes());
    if kind == 0 {
        put_u64(&mut out, count as u64);
        out.extend_from_slice(body);
    }
    out
}

/// Reads a frame that came from another process.
///
/// # Errors
/// [`crate::Kind::Version`] for another format, [`crate::Kind::Corrupt`] for anything malformed or beyond a limit.
pub fn decode(bytes: &[u8]) -> Result<Frame> {
    if bytes.len() > MAX_FRAME_BYTES + HEAD_BYTES {
        return Err(Error::too_large(format!(
            "a Raft frame of {} bytes is larger than the limit of {MAX_FRAME_BYTES}",
            bytes.len()
        )));
    }
    let mut r = Reader { rest: bytes };
    let version = r.u8()?;
    if version != VERSION {
        return Err(Error::version(format!(
            "the other peer sends Raft frames of format {version}, this one reads format {VERSION}: run the same version everywhere"
        )));
    }
    let kind = r.u8()?;
    let (cluster_id, from, to) = (r.fixed_u64()?, r.fixed_u64()?, r.fixed_u64()?);
    if from == 0 || to == 0 {
        return Err(bad("a Raft id of zero"));
    }
    let body = match kind {
        0 => {
            let count = r.count(MAX_MESSAGES, "messages")?;
            // A message takes at least a dozen bytes, so the input itself bounds what is reserved.
            let mut messages = Vec::with_capacity(count.min(bytes.len() / 8 + 1));
            for _ in 0..count {
                messages.push(get_message(&mut r, from, to)?);
            }
            Body::Messages(messages)
        }
        1 => Body::Removed,
        2 => Body::AmIRemoved,
        3 => {
            let (into, index, term) = (r.fixed_u64()?, r.fixed_u64()?, r.fixed_u64()?);
            Body::Recovered { into, upto: Applied { index, term } }
        }
        _ => return Err(bad("an unknown kind of frame")),
    };
    r.end()?;
    Ok(Frame { cluster_id, from, to, body })
}

/// Writes one log entry, as the log store keeps it.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(entry.data.len() + entry.context.len() + 24);
    put_entry(&mut out, entry);
    out
}

/// Reads what [`encode_entry`] wrote.
///
/// # Errors
/// [`crate::Kind::Corrupt`] for anything else.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry> {
    let mut r = Reader { rest: bytes };
    let entry = get_entry(&mut r)?;
    r.end()?;
    Ok(entry)
}

/// Writes a configuration, each list sorted, so that equal configurations are equal bytes.
pub fn encode_conf_state(conf: &ConfState) -> Vec<u8> {
    let mut out = Vec::new();
    put_conf_state(&mut out, conf);
    out
}

/// Reads what [`encode_conf_state`] wrote.
///
/// # Errors
/// [`crate::Kind::Corrupt`] for anything else.
pub fn decode_conf_state(bytes: &[u8]) -> Result<ConfState> {
    let mut r = Reader { rest: bytes };
    let conf = get_conf_state(&mut r)?;
    r.end()?;
    Ok(conf)
}

fn put_message(out: &mut Vec<u8>, m: &Message) {
    let snapshot = m.has_snapshot() && !m.get_snapshot().is_empty();
    out.push(m.get_msg_type() as u8);
    out.push(u8::from(m.reject) | u8::from(snapshot) << 1);
    for n in [m.term, m.log_term, m.index, m.commit, m.commit_term, m.request_snapshot, m.reject_hint] {
        put_u64(out, n);
    }
    put_bytes(out, &m.context);
    put_u64(out, m.entries.len() as u64);
    for entry in &m.entries {
        put_entry(out, entry);
    }
    if snapshot {
        let meta = m.get_snapshot().get_metadata();
        put_bytes(out, m.get_snapshot().get_data());
        put_u64(out, meta.index);
        put_u64(out, meta.term);
        put_conf_state(out, meta.get_conf_state());
    }
}

fn get_message(r: &mut Reader<'_>, from: RaftId, to: RaftId) -> Result<Message> {
    let kind = message_type(r.u8()?)
        .filter(|k| is_remote(*k))
        .ok_or_else(|| bad("a message type that peers do not send"))?;
    let flags = r.u8()?;
    if flags > 3 {
        return Err(bad("unknown message flags"));
    }
    let mut m = Message::default();
    m.set_msg_type(kind);
    (m.from, m.to) = (from, to);
    m.reject = flags & 1 != 0;
    m.term = r.u64()?;
    m.log_term = r.u64()?;
    m.index = r.u64()?;
    m.commit = r.u64()?;
    m.commit_term = r.u64()?;
    m.request_snapshot = r.u64()?;
    m.reject_hint = r.u64()?;
    m.context = r.bytes(MAX_CONTEXT_BYTES, "message context")?;
    let count = r.count(MAX_ENTRIES, "entries")?;
    let mut entries = Vec::with_capacity(count.min(r.rest.len() / 5 + 1));
    for _ in 0..count {
        entries.push(get_entry(r)?);
    }
    m.set_entries(entries.into());
    if flags & 2 != 0 {
        let mut snapshot = Snapshot::default();
        snapshot.set_data(r.bytes(MAX_SNAPSHOT_NAME, "snapshot name")?);
        let meta = snapshot.mut_metadata();
        meta.index = r.u64()?;
        meta.term = r.u64()?;
        meta.set_conf_state(get_conf_state(r)?);
        m.set_snapshot(snapshot);
    }
    check(&m)?;
    Ok(m)
}

/// What raft-rs takes for granted (and would panic on) in a message of each type.
fn check(m: &Message) -> Result<()> {
    let numbers = [m.term, m.log_term, m.index, m.commit, m.commit_term, m.request_snapshot, m.reject_hint];
    if numbers.into_iter().any(|n| n > MAX_NUMBER) {
        return Err(bad("a number beyond all counting"));
    }
    // A forwarded read has none: raft-rs lets any term's leader answer it, and panics when it forwards one with a term.
    if (m.term == 0) != (m.get_msg_type() == MessageType::MsgReadIndex) {
        return Err(bad("a message without a term, or a read with one"));
    }
    if m.has_snapshot() && m.get_msg_type() != MessageType::MsgSnapshot {
        return Err(bad("a snapshot in a message that carries none"));
    }
    match m.get_msg_type() {
        MessageType::MsgAppend => {
            // raft-rs takes an entry that it does not have for one of term 0, and would commit what is not there.
            if (m.index == 0) != (m.log_term == 0) || m.log_term > m.term {
                return Err(bad("entries that follow one that there cannot be"));
            }
            // Terms never go down along a log: whoever looks for a common entry relies on it.
            let (mut expected, mut term) = (m.index, m.log_term.max(1));
            for entry in m.get_entries() {
                expected += 1;
                if entry.index != expected || entry.term < term || entry.term > m.term {
                    return Err(bad("entries that do not follow each other"));
                }
                term = entry.term;
            }
        }
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            if m.entries.len() != 1 || m.entries[0].data.len() > MAX_SNAPSHOT_NAME {
                return Err(bad("a read request without its one context"));
            }
        }
        MessageType::MsgSnapshot => {
            let meta = m.get_snapshot().get_metadata();
            let marked = (1..=MAX_NUMBER).contains(&meta.index) && (1..=m.term).contains(&meta.term);
            if !marked {
                return Err(bad("a snapshot message without a snapshot that there can be"));
            }
        }
        _ => {
            if !m.entries.is_empty() {
                return Err(bad("entries in a message that carries none"));
            }
        }
    }
    Ok(())
}

fn put_entry(out: &mut Vec<u8>, e: &Entry) {
    out.push(e.get_entry_type() as u8);
    put_u64(out, e.term);
    put_u64(out, e.index);
    put_bytes(out, &e.data);
    put_bytes(out, &e.context);
}

fn get_entry(r: &mut Reader<'_>) -> Result<Entry> {
    let mut e = Entry::default();
    e.set_entry_type(match r.u8()? {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => return Err(bad("an unknown entry type")),
    });
    e.term = r.u64()?;
    e.index = r.u64()?;
    e.data = r.bytes(MAX_ENTRY_BYTES, "entry")?;
    e.context = r.bytes(MAX_CONTEXT_BYTES, "entry context")?;
    Ok(e)
}

fn put_conf_state(out: &mut Vec<u8>, c: &ConfState) {
    for list in [&c.voters, &c.learners, &c.voters_outgoing, &c.learners_next] {
        let mut ids = list.clone();
        ids.sort_unstable();
        put_u64(out, ids.len() as u64);
        for id in ids {
            out.extend_from_slice(&id.to_be_bytes());
        }
    }
    out.push(u8::from(c.auto_leave));
}

fn get_conf_state(r: &mut Reader<'_>) -> Result<ConfState> {
    let mut lists: [Vec<u64>; 4] = Default::default();
    for list in &mut lists {
        let count = r.count(MAX_CONF_IDS, "configuration ids")?;
        for _ in 0..count {
            list.push(r.fixed_u64()?);
        }
    }
    let mut conf = ConfState::default();
    let [voters, learners, outgoing, next] = lists;
    (conf.voters, conf.learners, conf.voters_outgoing, conf.learners_next) =
        (voters, learners, outgoing, next);
    conf.auto_leave = r.u8()? != 0;
    Ok(conf)
}

fn message_type(n: u8) -> Option<MessageType> {
    const ALL: [MessageType; 19] = [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
        MessageType::MsgTimeoutNow,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
    ];
    ALL.into_iter().find(|t| *t as u8 == n)
}

fn bad(what: &str) -> Error {
    Error::corrupt(format!("a Raft frame holds {what}: it was damaged or does not come from pinfold"))
}

/// Appends an unsigned LEB128 integer.
pub(crate) fn put_u64(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a length-prefixed byte string.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the `put_…` functions wrote, never past the end.
pub(crate) struct Reader<'a> {
    /// What is not read yet.
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.rest.len() {
            return Err(bad("less than it announces"));
        }
        let (head, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn fixed_u64(&mut self) -> Result<u64> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(bad("a number beyond 64 bits"))
    }

    pub(crate) fn count(&mut self, limit: usize, what: &str) -> Result<usize> {
        let n = self.u64()?;
        if n > limit as u64 {
            return Err(bad(&format!("{n} {what}, more than the limit of {limit}")));
        }
        Ok(n as usize)
    }

    pub(crate) fn bytes(&mut self, limit: usize, what: &str) -> Result<Bytes> {
        let n = self.count(limit, &format!("bytes of {what}"))?;
        Ok(Bytes::copy_from_slice(self.take(n)?))
    }

    pub(crate) fn end(&self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(bad("more than it announces"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, data: &[u8]) -> Entry {
        let mut e = Entry::default();
        (e.term, e.index) = (3, index);
        e.data = Bytes::copy_from_slice(data);
        e.context = Bytes::from_static(b"id");
        e
    }

    fn samples() -> Vec<Message> {
        let mut append = Message::default();
        append.set_msg_type(MessageType::MsgAppend);
        (append.from, append.to, append.term, append.log_term, append.index, append.commit) =
            (1, 2, 4, 3, 9, 8);
        append.set_entries(vec![entry(10, b"ten"), entry(11, &[0; 300])].into());
        let mut snapshot = Message::default();
        snapshot.set_msg_type(MessageType::MsgSnapshot);
        (snapshot.from, snapshot.to, snapshot.term) = (1, 2, MAX_NUMBER);
        let meta = snapshot.mut_snapshot().mut_metadata();
        (meta.index, meta.term) = (77, 5);
        meta.mut_conf_state().voters = vec![1, 2, u64::MAX];
        meta.mut_conf_state().learners = vec![9];
        let mut vote = Message::default();
        vote.set_msg_type(MessageType::MsgRequestPreVoteResponse);
        (vote.from, vote.to, vote.term, vote.reject, vote.commit, vote.commit_term) = (1, 2, 5, true, 3, 2);
        vote.context = Bytes::from_static(b"CampaignTransfer");
        vec![append, snapshot, vote]
    }

    #[test]
    fn frames_come_back_as_they_were_sent() {
        let frames = encode_messages(7, 1, 2, &samples());
        assert_eq!(frames.len(), 1);
        let frame = decode(&frames[0]).unwrap();
        assert_eq!(frame, Frame { cluster_id: 7, from: 1, to: 2, body: Body::Messages(samples()) });
        let recovered = Body::Recovered { into: 5, upto: Applied { index: 6, term: 7 } };
        for body in [Body::Removed, Body::AmIRemoved, recovered] {
            assert_eq!(decode(&encode_notice(7, 1, 2, &body)).unwrap().body, body);
        }
        let e = entry(5, b"five");
        assert_eq!(decode_entry(&encode_entry(&e)).unwrap(), e);
    }

    #[test]
    fn much_is_split_into_frames_within_the_limit() {
        let mut m = samples().remove(0);
        m.set_entries(vec![entry(10, &vec![7; 1 << 20])].into());
        let frames = encode_messages(7, 1, 2, &vec![m; 5]);
        assert!(frames.len() >= 2);
        let total: usize = frames
            .iter()
            .map(|f| match decode(f).unwrap().body {
                Body::Messages(m) => m.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(total, 5);
    }

    #[test]
    fn no_garbage_panics() {
        let good = encode_messages(7, 1, 2, &samples()).remove(0);
        for n in 0..good.len() {
            assert!(decode(&good[..n]).is_err(), "a frame cut to {n} bytes was accepted");
        }
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            let _ = decode(&bytes);
            let noise: Vec<u8> = (0..random() % 64).map(|_| random() as u8).collect();
            let _ = decode(&noise);
            let _ = decode_entry(&noise);
            let _ = decode_conf_state(&noise);
        }
    }

    #[test]
    fn what_only_makes_sense_inside_a_process_is_refused() {
        for kind in [
            MessageType::MsgHup,
            MessageType::MsgPropose,
            MessageType::MsgTransferLeader,
            MessageType::MsgSnapStatus,
        ] {
            let mut m = Message::default();
            m.set_msg_type(kind);
            m.term = 1;
            assert!(decode(&encode_messages(7, 1, 2, &[m])[0]).is_err(), "{kind:?} was accepted");
        }
        let mut read = Message::default();
        read.set_msg_type(MessageType::MsgReadIndex);
        assert!(decode(&encode_messages(7, 1, 2, &[read.clone()])[0]).is_err(), "a read of nobody's");
        read.set_entries(vec![entry(0, b"context")].into());
        assert!(decode(&encode_messages(7, 1, 2, &[read.clone()])[0]).is_ok());
        // Found by fuzzing: a follower that forwarded it would have panicked.
        read.term = 1;
        assert!(decode(&encode_messages(7, 1, 2, &[read])[0]).is_err(), "a forwarded read has no term");
    }

    #[test]
    fn a_snapshot_comes_in_its_own_message_only() {
        let mut vote = samples().remove(2);
        vote.mut_snapshot().mut_metadata().index = 8;
        assert!(decode(&encode_messages(7, 1, 2, &[vote])[0]).is_err());
        // Found by fuzzing: one of entry 0, which was read and would not have been written again.
        let mut bytes = encode_messages(7, 1, 2, &[samples().remove(1)]).remove(0);
        let kind = MessageType::MsgSnapshot as u8;
        let at = bytes.windows(2).position(|w| w == [kind, 2]).expect("type and flags");
        bytes[at] = MessageType::MsgRequestPreVote as u8;
        assert!(decode(&bytes).is_err());
    }

    #[test]
    fn numbers_that_raft_would_count_beyond_their_end_are_refused() {
        let refused = |change: fn(&mut Message)| {
            let mut m = Message::default();
            m.set_msg_type(MessageType::MsgAppendResponse);
            (m.term, m.reject) = (4, true);
            assert!(decode(&encode_messages(7, 1, 2, &[m.clone()])[0]).is_ok());
            change(&mut m);
            assert!(decode(&encode_messages(7, 1, 2, &[m.clone()])[0]).is_err(), "{m:?}");
        };
        refused(|m| m.term = u64::MAX);
        refused(|m| m.index = u64::MAX);
        refused(|m| m.log_term = u64::MAX);
        refused(|m| m.reject_hint = u64::MAX);
        refused(|m| m.request_snapshot = MAX_NUMBER + 1);
        refused(|m| m.commit = u64::MAX);
    }

    #[test]
    fn entries_that_follow_one_without_a_term_are_refused() {
        let mut append = Message::default();
        append.set_msg_type(MessageType::MsgAppend);
        (append.term, append.log_term, append.index, append.commit) = (4, 3, 9, 9);
        assert!(decode(&encode_messages(7, 1, 2, &[append.clone()])[0]).is_ok());
        for (index, log_term) in [(9, 0), (0, 3), (9, 5)] {
            (append.index, append.log_term) = (index, log_term);
            let refused = decode(&encode_messages(7, 1, 2, &[append.clone()])[0]);
            assert!(refused.is_err(), "entry {index} of term {log_term}");
        }
        (append.index, append.log_term) = (0, 0);
        assert!(decode(&encode_messages(7, 1, 2, &[append])[0]).is_ok(), "the first entries follow nothing");
    }

    #[test]
    fn a_snapshot_of_an_entry_without_a_term_is_refused() {
        let mut snapshot = samples().remove(1);
        assert!(decode(&encode_messages(7, 1, 2, &[snapshot.clone()])[0]).is_ok());
        snapshot.mut_snapshot().mut_metadata().term = 0;
        assert!(decode(&encode_messages(7, 1, 2, &[snapshot])[0]).is_err());
    }

    #[test]
    fn entries_whose_terms_go_down_are_refused() {
        let mut append = samples().remove(0);
        append.mut_entries()[1].term = 4;
        assert!(decode(&encode_messages(7, 1, 2, &[append.clone()])[0]).is_ok());
        append.mut_entries()[0].term = 2;
        assert!(
            decode(&encode_messages(7, 1, 2, &[append.clone()])[0]).is_err(),
            "below the one before them"
        );
        append.log_term = 1;
        append.mut_entries()[1].term = 1;
        assert!(decode(&encode_messages(7, 1, 2, &[append])[0]).is_err(), "below the first of them");
    }
}
