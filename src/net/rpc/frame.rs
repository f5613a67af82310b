//! Frames on one stream: reading, writing, and what may not be on the wire.
//!
//! ```text
//! caller:  u8 length of the method's name | name | frame …
//! callee:  frame …
//! frame:   u32 length of the body, big endian | u8 kind | body
//! kind:    0 data   1 the end, all is well (empty body)   2 the end, with a postcard `Error`
//! ```
//!
//! [`Channel`] is polled, never awaited, so that a call and the watcher of its stream can both look at it
//! from one task. Outgoing frames are gathered until somebody flushes; a large body is written from where it
//! lies. Incoming bodies are read straight into the memory they are handed out in; memory for a body grows with
//! what has arrived, so a length alone costs its sender's victim nothing.

use super::pipe::Pipe;
use super::MAX_FRAME;
use crate::error::Error;
use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncWrite};
use serde::Serialize;
use std::io;
use std::pin::Pin;
use std::task::{ready, Context, Poll, Waker};

/// Length and kind.
const HEADER: usize = 5;
/// Small frames are read through a buffer of this size.
const READ_BUFFER: usize = 16 << 10;
/// What the watcher reads ahead while the handler is busy.
const READ_AHEAD: usize = 64 << 10;
/// Bodies up to this size are copied to the gathered output; larger ones are written from where they are.
const COPIED_BODY: usize = 16 << 10;
/// First piece of memory for a body; it doubles as the body arrives.
const FIRST_PIECE: usize = 256 << 10;
/// Longest name of a method.
pub(super) const METHOD_MAX: usize = 64;
/// Longest encoded error; longer messages are cut.
const ERROR_MAX: usize = 16 << 10;

const DATA: u8 = 0;
const END_OK: u8 = 1;
const END_ERROR: u8 = 2;

/// What a frame says.
#[derive(Debug)]
pub(super) enum Frame {
    /// A value, or raw bytes.
    Data(Bytes),
    /// The far end is done.
    End(Result<(), Error>),
}

/// What goes wrong on the wire.
#[derive(Debug)]
pub(super) enum WireError {
    /// The stream ended without an end mark: the far end gave up, or the connection is gone.
    Gone,
    /// The stream failed.
    Io(io::Error),
    /// The far end does not follow the format.
    Format(String),
    /// Our own value does not fit into a frame, or cannot be encoded.
    Value(Error),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::WriteZero => WireError::Gone,
            _ => WireError::Io(error),
        }
    }
}

/// Where frames travel.
pub(super) enum Wire {
    /// To another peer.
    Net(Box<libp2p::Stream>),
    /// To ourselves.
    Local(Pipe),
}

impl Wire {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Net(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Local(pipe) => Pin::new(pipe).poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Net(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Local(pipe) => Pin::new(pipe).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Net(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Local(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }
}

/// A body that is arriving.
struct Body {
    kind: u8,
    bytes: BytesMut,
    filled: usize,
    length: usize,
}

/// One stream with its buffers.
pub(super) struct Channel {
    wire: Wire,
    /// Bytes read and not yet used, from `at` to `filled`; behind them is room, made once and not for every read, since
    /// most reads find nothing.
    input: Vec<u8>,
    at: usize,
    filled: usize,
    body: Option<Body>,
    /// The stream has ended.
    gone: bool,
    /// Who waits for a frame; woken when somebody else reads for it.
    reader: Option<Waker>,
    /// Frames not yet written, from `written` on, then `tail`.
    output: Vec<u8>,
    written: usize,
    tail: Bytes,
}

impl Channel {
    /// A channel on a fresh stream.
    pub(super) fn new(wire: Wire) -> Channel {
        Channel {
            wire,
            input: Vec::new(),
            at: 0,
            filled: 0,
            body: None,
            gone: false,
            reader: None,
            output: Vec::new(),
            written: 0,
            tail: Bytes::new(),
        }
    }

    /// Bytes that wait for a flush.
    pub(super) fn pending(&self) -> usize {
        self.output.len() - self.written + self.tail.len()
    }

    /// Whether the next push must wait for a flush, because a large body is still on its way out.
    pub(super) fn must_flush(&self) -> bool {
        !self.tail.is_empty()
    }

    /// Gathers the method's name.
    pub(super) fn push_method(&mut self, method: &str) -> Result<(), WireError> {
        let length = u8::try_from(method.len()).ok().filter(|n| usize::from(*n) <= METHOD_MAX && *n > 0);
        let Some(length) = length else {
            let error =
                Error::internal(format!("the method name \"{method}\" is not 1 to {METHOD_MAX} bytes"));
            return Err(WireError::Value(error));
        };
        self.output.push(length);
        self.output.extend_from_slice(method.as_bytes());
        Ok(())
    }

    /// Gathers a value as one frame.
    pub(super) fn push_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WireError> {
        let start = self.output.len();
        self.output.extend_from_slice(&[0, 0, 0, 0, DATA]);
        let encoded = postcard::to_io(value, &mut self.output).map(drop);
        let size = self.output.len() - start - HEADER;
        let failure = match encoded {
            Ok(()) if size <= MAX_FRAME => {
                self.set_length(start);
                return Ok(());
            }
            Ok(()) => too_large(size),
            Err(error) => Error::internal(format!("a value cannot be encoded for the network: {error}")),
        };
        self.output.truncate(start);
        Err(WireError::Value(failure))
    }

    /// Gathers raw bytes as one frame.
    pub(super) fn push_bytes(&mut self, bytes: Bytes) -> Result<(), WireError> {
        if bytes.len() > MAX_FRAME {
            return Err(WireError::Value(too_large(bytes.len())));
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.push(DATA);
        if bytes.len() <= COPIED_BODY {
            self.output.extend_from_slice(&bytes);
        } else {
            self.tail = bytes;
        }
        Ok(())
    }

    /// Gathers the end mark.
    pub(super) fn push_end(&mut self, result: &Result<(), Error>) {
        let start = self.output.len();
        self.output.extend_from_slice(&[0, 0, 0, 0, END_OK]);
        if let Err(error) = result {
            self.output[start + HEADER - 1] = END_ERROR;
            let mut message = error.message();
            if message.len() > ERROR_MAX {
                let cut = (0..=ERROR_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
                message = &message[..cut];
            }
            // An error is an enum and a string: encoding it into memory cannot fail.
            let _ = postcard::to_io(&Error::new(error.kind(), message), &mut self.output);
        }
        self.set_length(start);
    }

    fn set_length(&mut self, start: usize) {
        let length = u32::try_from(self.output.len() - start - HEADER).unwrap_or(u32::MAX);
        self.output[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Writes everything that was gathered.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        while self.written < self.output.len() {
            match ready!(self.wire.poll_write(cx, &self.output[self.written..]))? {
                0 => return Poll::Ready(Err(WireError::Gone)),
                n => self.written += n,
            }
        }
        self.output.clear();
        self.written = 0;
        while !self.tail.is_empty() {
            match ready!(self.wire.poll_write(cx, &self.tail))? {
                0 => return Poll::Ready(Err(WireError::Gone)),
                n => drop(self.tail.split_to(n)),
            }
        }
        Poll::Ready(ready!(self.wire.poll_flush(cx)).map_err(WireError::from))
    }

    /// Reads the method's name.
    pub(super) fn poll_method(&mut self, cx: &mut Context<'_>) -> Poll<Result<String, WireError>> {
        loop {
            if let Some((&length, rest)) = self.unread().split_first() {
                let length = usize::from(length);
                if length == 0 || length > METHOD_MAX {
                    let reason = format!("the method name has {length} bytes, not 1 to {METHOD_MAX}");
                    return Poll::Ready(Err(WireError::Format(reason)));
                }
                if let Some(name) = rest.get(..length) {
                    let name = std::str::from_utf8(name).map(str::to_owned);
                    self.at += 1 + length;
                    return Poll::Ready(
                        name.map_err(|_| WireError::Format("the method name is not UTF-8".into())),
                    );
                }
            }
            ready!(self.poll_more(cx))?;
        }
    }

    /// Reads the next frame.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, WireError>> {
        loop {
            if self.body.is_some() {
                ready!(self.poll_body(cx))?;
                let Some(body) = self.body.take() else { continue };
                return Poll::Ready(frame(body));
            }
            if let Some(header) = self.unread().get(..HEADER) {
                let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
                let kind = header[4];
                if kind > END_ERROR {
                    return Poll::Ready(Err(WireError::Format(format!("frame of unknown kind {kind}"))));
                }
                if length > MAX_FRAME {
                    let reason = format!("frame of {length} bytes; at most {MAX_FRAME} are allowed");
                    return Poll::Ready(Err(WireError::Format(reason)));
                }
                self.at += HEADER;
                let bytes = BytesMut::zeroed(length.min(FIRST_PIECE));
                self.body = Some(Body { kind, bytes, filled: 0, length });
                continue;
            }
            ready!(self.poll_more(cx))?;
        }
    }

    /// Reads ahead, so that a far end that gives up is noticed while nobody waits for a frame. Ready when the
    /// stream has ended.
    pub(super) fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.gone {
                return Poll::Ready(());
            }
            // While a body arrives, its reader is waiting and notices the end by itself.
            if self.body.is_some() || self.unread().len() >= READ_AHEAD {
                return Poll::Pending;
            }
            match self.poll_input(cx) {
                Poll::Ready(Ok(())) => {
                    if let Some(reader) = self.reader.take() {
                        reader.wake();
                    }
                }
                Poll::Ready(Err(_)) => self.gone = true,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Waits for more input on behalf of a reader.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        if self.gone {
            return Poll::Ready(Err(WireError::Gone));
        }
        let polled = self.poll_input(cx);
        if polled.is_pending() {
            self.reader = Some(cx.waker().clone());
        }
        polled
    }

    fn unread(&self) -> &[u8] {
        &self.input[self.at..self.filled]
    }

    /// Reads some input into the buffer.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        if self.at == self.filled || self.at >= READ_BUFFER {
            self.input.copy_within(self.at..self.filled, 0);
            self.filled -= self.at;
            self.at = 0;
        }
        let end = self.filled + READ_BUFFER;
        if self.input.len() < end {
            self.input.resize(end, 0);
        }
        match ready!(self.wire.poll_read(cx, &mut self.input[self.filled..end]))? {
            0 => {
                self.gone = true;
                Poll::Ready(Err(WireError::Gone))
            }
            n => {
                self.filled += n;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Fills the body that is arriving.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        while body.filled < body.length {
            if body.filled == body.bytes.len() {
                let size = body.length.min(body.bytes.len() * 2);
                body.bytes.resize(size, 0);
            }
            let room = &mut body.bytes[body.filled..];
            let buffered = &self.input[self.at..self.filled];
            if !buffered.is_empty() {
                let n = buffered.len().min(room.len());
                room[..n].copy_from_slice(&buffered[..n]);
                self.at += n;
                body.filled += n;
                continue;
            }
            if self.gone {
                return Poll::Ready(Err(WireError::Gone));
            }
            match self.wire.poll_read(cx, room) {
                Poll::Ready(Ok(0)) => {
                    self.gone = true;
                    return Poll::Ready(Err(WireError::Gone));
                }
                Poll::Ready(Ok(n)) => body.filled += n,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {
                    self.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn too_large(size: usize) -> Error {
    Error::too_large(format!(
        "a message of {size} bytes is too large for the network; at most {MAX_FRAME} are possible"
    ))
}

fn frame(body: Body) -> Result<Frame, WireError> {
    match body.kind {
        DATA => Ok(Frame::Data(body.bytes.freeze())),
        END_OK if body.length == 0 => Ok(Frame::End(Ok(()))),
        END_ERROR => match postcard::from_bytes::<Error>(&body.bytes) {
            Ok(error) => Ok(Frame::End(Err(error))),
            Err(_) => Err(WireError::Format("an end mark with an unreadable error".into())),
        },
        _ => Err(WireError::Format("an end mark with a body".into())),
    }
}
