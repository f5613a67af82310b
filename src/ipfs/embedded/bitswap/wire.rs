//! Bitswap 1.2 messages on the wire: protobuf behind a varint length, written and read by hand.
//!
//! The message has five fields and two levels, so a code generator would cost more than it gives; and a
//! hand-written reader can hold limits that a generated one cannot: it reads at most
//! [`MAX_ENTRIES`] entries into memory whatever the message claims, and block data stays a slice of
//! the frame it came in. Nothing here looks at the meaning of a message, and no input may panic.

use crate::error::{Error, Result};
use crate::runtime;
use bytes::Bytes;
use cid::Cid;
use smol::io::{AsyncRead, AsyncReadExt};
use std::time::Duration;

/// Largest message we read or write, bytes: what every Bitswap implementation accepts.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Most want-list entries, and most block presences, that are read from one message; the rest of that
/// message's entries is skipped (a sender repeats its list from time to time).
pub const MAX_ENTRIES: usize = 16_384;
/// Longest binary CID that is looked at; entries with longer ones are skipped.
pub const MAX_CID: usize = 128;
/// A message whose first byte is here must be complete after this time.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Memory for a message before the first bytes of it are here: a length alone costs its receiver no more.
const FIRST_PIECE: usize = 256 << 10;
/// Bytes of room in front of an encoded message for its length.
const LENGTH_ROOM: usize = 5;

/// What is wanted: the block, or only to know who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantKind {
    /// Send the block.
    Block,
    /// Say whether you have the block.
    Have,
}

/// One change of a want-list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which block.
    pub cid: Cid,
    /// The sender's priority, higher first. Read and written, not obeyed: answers go in order of arrival.
    pub priority: i32,
    /// Block or only presence.
    pub kind: WantKind,
    /// No longer wanted.
    pub cancel: bool,
    /// Answer "don't have" instead of silence.
    pub send_dont_have: bool,
}

/// A block as it travels: everything of its CID but the digest, and the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// CID version, codec, hash function, digest length.
    pub prefix: Prefix,
    /// The bytes.
    pub data: Bytes,
}

/// A CID without its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// 0 or 1.
    pub version: u64,
    /// Codec of the block.
    pub codec: u64,
    /// Multihash code.
    pub hash: u64,
    /// Digest length, bytes.
    pub length: u64,
}

/// A decoded message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Want-list changes.
    pub wants: Vec<Entry>,
    /// The want-list replaces everything sent before.
    pub full: bool,
    /// Blocks.
    pub blocks: Vec<Payload>,
    /// `true` for "have", `false` for "don't have".
    pub presences: Vec<(Cid, bool)>,
    /// Bytes that the sender still has queued for us. Carried, not used.
    pub pending_bytes: i32,
}

fn garbage(what: &str) -> Error {
    Error::corrupt(format!("a Bitswap message is damaged: {what}"))
}

/// Reads protobuf fields out of a frame without copying.
struct Reader {
    rest: Bytes,
}

/// One field's value.
enum Value {
    Number(u64),
    Bytes(Bytes),
    /// A fixed-width value: no field of ours has one.
    Skipped,
}

impl Reader {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for (n, &byte) in self.rest.iter().take(10).enumerate() {
            if n == 9 && byte > 1 {
                return Err(garbage("a number is longer than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte < 0x80 {
                let _ = self.rest.split_to(n + 1);
                return Ok(value);
            }
        }
        Err(garbage("a number has no end"))
    }

    fn take(&mut self, length: u64) -> Result<Bytes> {
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(self.rest.split_to(length)),
            _ => Err(garbage("a field is longer than the message")),
        }
    }

    fn field(&mut self) -> Result<Option<(u64, Value)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Skipped)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Skipped)?,
            _ => return Err(garbage("a field has an unknown type")),
        };
        match tag >> 3 {
            0 => Err(garbage("a field has the number 0")),
            field => Ok(Some((field, value))),
        }
    }
}

/// A CID in its binary form, `None` when it is none or too long.
fn cid(bytes: &[u8]) -> Option<Cid> {
    if bytes.len() > MAX_CID {
        return None;
    }
    let mut rest = bytes;
    let cid = Cid::read_bytes(&mut rest).ok()?;
    rest.is_empty().then_some(cid)
}

fn entry(bytes: Bytes) -> Result<Option<Entry>> {
    let mut reader = Reader { rest: bytes };
    let (mut id, mut priority, mut kind) = (None, 0, WantKind::Block);
    let (mut cancel, mut send_dont_have) = (false, false);
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Bytes(b)) => id = cid(&b),
            (2, Value::Number(n)) => priority = n as i32,
            (3, Value::Number(n)) => cancel = n != 0,
            (4, Value::Number(0)) => kind = WantKind::Block,
            (4, Value::Number(1)) => kind = WantKind::Have,
            (4, Value::Number(_)) => id = None,
            (5, Value::Number(n)) => send_dont_have = n != 0,
            _ => {}
        }
    }
    Ok(id.map(|cid| Entry { cid, priority, kind, cancel, send_dont_have }))
}

fn wantlist(bytes: Bytes, message: &mut Message) -> Result<()> {
    let mut reader = Reader { rest: bytes };
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Bytes(b)) if message.wants.len() < MAX_ENTRIES => {
                message.wants.extend(entry(b)?);
            }
            (2, Value::Number(n)) => message.full = n != 0,
            _ => {}
        }
    }
    Ok(())
}

fn payload(bytes: Bytes) -> Result<Payload> {
    let mut reader = Reader { rest: bytes };
    let (mut prefix, mut data) = (None, Bytes::new());
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Bytes(b)) => {
                let mut p = Reader { rest: b };
                prefix = Some(Prefix {
                    version: p.varint()?,
                    codec: p.varint()?,
                    hash: p.varint()?,
                    length: p.varint()?,
                });
            }
            (2, Value::Bytes(b)) => data = b,
            _ => {}
        }
    }
    Ok(Payload { prefix: prefix.ok_or_else(|| garbage("a block comes without its CID prefix"))?, data })
}

fn presence(bytes: Bytes) -> Result<Option<(Cid, bool)>> {
    let mut reader = Reader { rest: bytes };
    let (mut id, mut have) = (None, true);
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Bytes(b)) => id = cid(&b),
            (2, Value::Number(n)) => have = n == 0,
            _ => {}
        }
    }
    Ok(id.map(|id| (id, have)))
}

impl Message {
    /// Reads a message (without its length).
    ///
    /// # Errors
    /// [`crate::Kind::Corrupt`]: the sender does not speak Bitswap.
    pub fn decode(frame: Bytes) -> Result<Message> {
        let mut message = Message::default();
        let mut reader = Reader { rest: frame };
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Bytes(b)) => wantlist(b, &mut message)?,
                (3, Value::Bytes(b)) => message.blocks.push(payload(b)?),
                (4, Value::Bytes(b)) if message.presences.len() < MAX_ENTRIES => {
                    message.presences.extend(presence(b)?);
                }
                (5, Value::Number(n)) => message.pending_bytes = n as i32,
                _ => {}
            }
        }
        Ok(message)
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3);
        put_varint(out, value);
    }
}

/// Builds one message, part by part, with its length in front.
pub struct Encoder {
    out: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder::new()
    }
}

impl Encoder {
    /// An empty message.
    pub fn new() -> Self {
        Encoder { out: vec![0; LENGTH_ROOM] }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.out.len() == LENGTH_ROOM
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.out.len() - LENGTH_ROOM
    }

    /// Makes room for that many more bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes);
    }

    /// Adds want-list changes; an empty list that is not full adds nothing.
    pub fn wantlist(&mut self, entries: &[Entry], full: bool) {
        if entries.is_empty() && !full {
            return;
        }
        let mut list = Vec::with_capacity(entries.len() * 52);
        let mut one = Vec::with_capacity(64);
        for entry in entries {
            one.clear();
            put_bytes(&mut one, 1, &entry.cid.to_bytes());
            put_number(&mut one, 2, entry.priority as i64 as u64);
            put_number(&mut one, 3, u64::from(entry.cancel));
            put_number(&mut one, 4, u64::from(entry.kind == WantKind::Have));
            put_number(&mut one, 5, u64::from(entry.send_dont_have));
            put_bytes(&mut list, 1, &one);
        }
        put_number(&mut list, 2, u64::from(full));
        put_bytes(&mut self.out, 1, &list);
    }

    /// Adds a block.
    pub fn block(&mut self, cid: &Cid, data: &[u8]) {
        let mut head = Vec::with_capacity(16);
        put_varint(&mut head, u64::from(cid.version()));
        put_varint(&mut head, cid.codec());
        put_varint(&mut head, cid.hash().code());
        put_varint(&mut head, u64::from(cid.hash().size()));
        let mut start = Vec::with_capacity(32);
        put_bytes(&mut start, 1, &head);
        start.push(2 << 3 | 2);
        put_varint(&mut start, data.len() as u64);
        self.out.push(3 << 3 | 2);
        put_varint(&mut self.out, (start.len() + data.len()) as u64);
        self.out.extend_from_slice(&start);
        self.out.extend_from_slice(data);
    }

    /// Adds "have" or "don't have".
    pub fn presence(&mut self, cid: &Cid, have: bool) {
        let mut one = Vec::with_capacity(48);
        put_bytes(&mut one, 1, &cid.to_bytes());
        put_number(&mut one, 2, u64::from(!have));
        put_bytes(&mut self.out, 4, &one);
    }

    /// The finished message, length first.
    pub fn finish(mut self) -> Bytes {
        let mut length = Vec::with_capacity(LENGTH_ROOM);
        put_varint(&mut length, self.len() as u64);
        debug_assert!(length.len() <= LENGTH_ROOM, "no message is that long");
        let start = LENGTH_ROOM - length.len();
        self.out[start..LENGTH_ROOM].copy_from_slice(&length);
        Bytes::from(self.out).slice(start..)
    }
}

/// Waits, without limit, for a message to begin, and returns its length; `None` when the sender has closed
/// the stream between two messages.
///
/// # Errors
/// [`crate::Kind::Corrupt`] for a length beyond [`MAX_MESSAGE`]; else why reading failed.
pub async fn read_length(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<usize>> {
    let mut byte = [0u8; 1];
    if stream.read(&mut byte).await? == 0 {
        return Ok(None);
    }
    let (mut length, mut shift) = (usize::from(byte[0] & 0x7f), 7);
    while byte[0] >= 0x80 && shift <= 21 {
        let next = async { Ok(stream.read_exact(&mut byte).await?) };
        runtime::timeout(MESSAGE_TIMEOUT, "reading the length of a Bitswap message", next).await?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
    }
    if length > MAX_MESSAGE || byte[0] >= 0x80 {
        return Err(garbage(&format!("it is longer than {MAX_MESSAGE} bytes")));
    }
    Ok(Some(length))
}

/// Reads the message itself, within [`MESSAGE_TIMEOUT`].
///
/// # Errors
/// Why reading failed.
pub async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: usize) -> Result<Bytes> {
    let read = async {
        let mut frame = vec![0; length.min(FIRST_PIECE)];
        stream.read_exact(&mut frame).await?;
        if length > FIRST_PIECE {
            frame.resize(length, 0);
            stream.read_exact(&mut frame[FIRST_PIECE..]).await?;
        }
        Ok(Bytes::from(frame))
    };
    runtime::timeout(MESSAGE_TIMEOUT, "reading a Bitswap message", read).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;

    async fn read_frame(stream: &mut &[u8]) -> Result<Option<Bytes>> {
        match read_length(stream).await? {
            None => Ok(None),
            Some(length) => read_body(stream, length).await.map(Some),
        }
    }

    fn sample() -> Cid {
        "bafkreib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy".parse().expect("cid")
    }

    fn encoded() -> Bytes {
        let v0: Cid = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn".parse().expect("cid");
        let mut out = Encoder::new();
        let entry = |cid, kind, cancel| Entry { cid, priority: 7, kind, cancel, send_dont_have: true };
        out.wantlist(&[entry(sample(), WantKind::Have, false), entry(v0, WantKind::Block, true)], true);
        out.block(&sample(), b"block body\n");
        out.block(&v0, b"");
        out.presence(&v0, true);
        out.presence(&sample(), false);
        out.finish()
    }

    #[test]
    fn a_message_survives_the_wire() {
        let bytes = encoded();
        let mut stream = &bytes[..];
        let frame = block_on(read_frame(&mut stream)).expect("frame").expect("a frame");
        assert!(block_on(read_frame(&mut stream)).expect("end").is_none());
        let message = Message::decode(frame).expect("message");
        assert!(message.full);
        assert_eq!(message.wants.len(), 2);
        assert_eq!(message.wants[0].cid, sample());
        assert_eq!(message.wants[0].kind, WantKind::Have);
        assert_eq!(message.wants[0].priority, 7);
        assert!(message.wants[0].send_dont_have && !message.wants[0].cancel && message.wants[1].cancel);
        assert_eq!(message.blocks.len(), 2);
        assert_eq!(&message.blocks[0].data[..], b"block body\n");
        assert_eq!(message.blocks[0].prefix, Prefix { version: 1, codec: 0x55, hash: 0x12, length: 32 });
        assert_eq!(message.blocks[1].prefix, Prefix { version: 0, codec: 0x70, hash: 0x12, length: 32 });
        assert_eq!(message.presences, vec![(message.wants[1].cid, true), (sample(), false)]);
    }

    #[test]
    fn cutting_or_flipping_bytes_anywhere_never_panics() {
        let whole = encoded();
        let body = whole.slice(2..);
        Message::decode(body.clone()).expect("the whole message");
        for end in 0..body.len() {
            let _ = Message::decode(body.slice(..end));
            let _ = block_on(read_frame(&mut &whole[..end]));
        }
        for at in 0..body.len() {
            for flip in [0x01, 0x07, 0x80, 0xff] {
                let mut copy = body.to_vec();
                copy[at] ^= flip;
                let _ = Message::decode(copy.into());
            }
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_read() {
        for bad in [&[0x81u8, 0x80, 0x80, 0x02][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0xff; 64]] {
            let error = block_on(read_frame(&mut &bad[..])).expect_err("too long");
            assert_eq!(error.kind(), crate::Kind::Corrupt, "{error}");
        }
    }

    #[test]
    fn entries_beyond_the_limit_are_skipped() {
        let entry =
            Entry { cid: sample(), priority: 1, kind: WantKind::Block, cancel: false, send_dont_have: false };
        let mut out = Encoder::new();
        out.wantlist(&vec![entry; MAX_ENTRIES + 10], false);
        let bytes = out.finish();
        let frame = block_on(read_frame(&mut &bytes[..])).expect("frame").expect("a frame");
        assert_eq!(Message::decode(frame).expect("message").wants.len(), MAX_ENTRIES);
    }
}
