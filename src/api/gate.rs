//! The gate between a socket and hyper: the deadlines hyper does not keep, and trailers for everybody.
//!
//! *Deadlines.* A connection that sends nothing, half a request head, or does not read its answer must not
//! hold its place for ever. The gate knows whether a head is under way because it watches the bytes go by:
//! the first byte of a head starts the head deadline, silence between requests is bounded by the idle
//! deadline, and a blocked write by the write deadline. (Silence inside a body is [`Body`](super::http::Body)'s.)
//!
//! *Trailers.* hyper sends a declared trailer only to clients whose request said `TE: trailers`. ipfs-cluster
//! sends `X-Stream-Error` to all, and its clients never ask. So the gate adds that header line after each
//! request line. To find the next request line it follows `Content-Length`; a chunked or otherwise unusual
//! request makes it stop looking ([`Connection::is_opaque`]), and the server then closes the connection after
//! that answer. A client that confuses the gate confuses only the reading of its own stream: hyper stays the
//! only one that decides where a request ends.
//!
//! It must never: change, hold back or drop a byte of what the client sent.

use crate::runtime::Timer;
use futures::io::{AsyncRead, AsyncWrite};
use parking_lot::Mutex;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The line that makes hyper send trailers.
const TE_LINE: &[u8] = b"TE: trailers\r\n";
/// As much of a header line as is looked at: enough for `transfer-encoding` and for a 64-bit length.
const LINE_LOOK: usize = 48;

/// Both directions of a connection, whatever is underneath (TCP, TLS, Unix).
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// How long a connection may keep us waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a whole request head, and for the first byte on a new connection.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For the client to take some of its answer.
    pub write: Duration,
}

/// What the server knows about a connection while it lives.
#[derive(Debug)]
pub(super) struct Connection {
    in_flight: AtomicUsize,
    opaque: AtomicBool,
    idle_since: Mutex<Instant>,
    /// Since when a request under way waits for its client: for bytes of its body, and for it to take its answer.
    waiting: [Mutex<Option<Instant>>; 2],
}

/// What a request waits for: an index into `Connection::waiting`.
const BODY: usize = 0;
/// See [`BODY`].
const ANSWER: usize = 1;

impl Connection {
    pub(super) fn new() -> Self {
        Connection {
            in_flight: AtomicUsize::new(0),
            opaque: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            waiting: [Mutex::default(), Mutex::default()],
        }
    }

    /// A request was read; its answer is not finished until [`Connection::end`].
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer was sent or given up.
    pub(super) fn end(&self) {
        *self.idle_since.lock() = Instant::now();
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Since when no request is being answered; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.in_flight.load(Ordering::Relaxed) == 0).then(|| *self.idle_since.lock())
    }

    /// Since when the client has made this connection's request wait; `None` while it does not.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let since = |waiting: &Mutex<Option<Instant>>| *waiting.lock();
        self.waiting.iter().filter_map(since).max()
    }

    fn waits(&self, what: usize, waits: bool) {
        let mut since = self.waiting[what].lock();
        match (waits, since.is_some()) {
            (true, false) => *since = Some(Instant::now()),
            (false, true) => *since = None,
            _ => {}
        }
    }

    /// Whether the gate lost sight of where the next request begins.
    pub(super) fn is_opaque(&self) -> bool {
        self.opaque.load(Ordering::Relaxed)
    }
}

/// Where in the stream of requests the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests; blank lines are skipped, as hyper does.
    Start,
    /// In a request line.
    RequestLine,
    /// In the header lines.
    Headers,
    /// In a body with this many bytes left.
    Body(u64),
    /// Not known any more.
    Opaque,
}

/// Follows the requests on a connection, byte by byte, to find the ends of request lines.
#[derive(Debug)]
struct Scanner {
    phase: Phase,
    line: Vec<u8>,
    line_length: usize,
    content_length: Option<u64>,
    unusual: bool,
}

impl Scanner {
    fn new() -> Self {
        Scanner {
            phase: Phase::Start,
            line: Vec::with_capacity(LINE_LOOK),
            line_length: 0,
            content_length: None,
            unusual: false,
        }
    }

    /// Follows `bytes` up to the end of a request line and returns the offset just after it, or to the end.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.phase {
                Phase::Opaque => return None,
                Phase::Body(left) => {
                    let here = (bytes.len() - at) as u64;
                    self.phase = if left > here { Phase::Body(left - here) } else { Phase::Start };
                    at += left.min(here) as usize;
                    continue;
                }
                Phase::Start => {
                    if byte != b'\r' && byte != b'\n' {
                        self.phase = Phase::RequestLine;
                    }
                }
                Phase::RequestLine => {
                    if byte == b'\n' {
                        self.phase = Phase::Headers;
                        return Some(at + 1);
                    }
                }
                Phase::Headers => {
                    if byte == b'\n' {
                        self.end_of_line();
                    } else {
                        if self.line.len() < LINE_LOOK {
                            self.line.push(byte);
                        }
                        self.line_length += 1;
                    }
                }
            }
            at += 1;
        }
        None
    }

    fn end_of_line(&mut self) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        if line.is_empty() && self.line_length <= 1 {
            let length = self.content_length.take().unwrap_or(0);
            self.phase = match (self.unusual, length) {
                (true, _) => Phase::Opaque,
                (false, 0) => Phase::Start,
                (false, n) => Phase::Body(n),
            };
        } else if let Some(colon) = line.iter().position(|b| *b == b':') {
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if name.eq_ignore_ascii_case(b"transfer-encoding") || name.eq_ignore_ascii_case(b"upgrade") {
                self.unusual = true;
            } else if name.eq_ignore_ascii_case(b"content-length") {
                let length = std::str::from_utf8(value).ok().and_then(|v| v.trim().parse().ok());
                self.unusual |= length.is_none() || self.content_length.is_some();
                self.content_length = length;
            }
        }
        self.line.clear();
        self.line_length = 0;
    }
}

/// One direction's deadline. The timer is armed lazily and left alone while the deadline only moves away,
/// so that a busy connection costs no timer work.
#[derive(Debug, Default)]
struct Deadline {
    at: Option<Instant>,
    timer: Option<(Instant, Timer)>,
}

impl Deadline {
    fn clear(&mut self) {
        self.at = None;
    }

    /// Whether the deadline has passed; otherwise the task is woken when it does.
    fn poll(&mut self, cx: &mut Context<'_>, new: impl FnOnce() -> Instant) -> bool {
        let at = *self.at.get_or_insert_with(new);
        loop {
            let now = Instant::now();
            if now >= at {
                return true;
            }
            let (armed, timer) = match &mut self.timer {
                Some(timer) if timer.0 <= at => timer,
                slot => slot.insert((at, Timer::at(at))),
            };
            if *armed <= now || Pin::new(timer).poll(cx).is_ready() {
                self.timer = None;
                continue;
            }
            return false;
        }
    }
}

/// See the module's words.
pub(super) struct Gate {
    inner: Box<dyn Duplex>,
    connection: std::sync::Arc<Connection>,
    patience: Patience,
    scanner: Scanner,
    /// Rest of the line being added.
    adding: &'static [u8],
    /// Bytes read from the socket but not looked at yet, from `raw_at` on.
    raw: Vec<u8>,
    raw_at: usize,
    first: bool,
    head_began: Option<Instant>,
    reading: Deadline,
    writing: Deadline,
}

impl Gate {
    pub(super) fn new(
        inner: Box<dyn Duplex>,
        connection: std::sync::Arc<Connection>,
        patience: Patience,
    ) -> Self {
        Gate {
            inner,
            connection,
            patience,
            scanner: Scanner::new(),
            adding: &[],
            raw: Vec::new(),
            raw_at: 0,
            first: true,
            head_began: None,
            reading: Deadline::default(),
            writing: Deadline::default(),
        }
    }

    /// Looks at `bytes` before hyper gets them: all of them, or those up to the end of a request line.
    fn pass(&mut self, buf: &[u8]) -> usize {
        let before = self.scanner.phase;
        let found = self.scanner.scan(buf);
        match self.scanner.phase {
            Phase::RequestLine | Phase::Headers => {
                if before == Phase::Start || self.head_began.is_none() {
                    self.head_began = Some(Instant::now());
                }
            }
            phase => {
                self.head_began = None;
                self.first = false;
                if phase == Phase::Opaque {
                    self.connection.opaque.store(true, Ordering::Relaxed);
                }
            }
        }
        match found {
            Some(end) => {
                self.adding = TE_LINE;
                end
            }
            None => buf.len(),
        }
    }

    fn read_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let patience = self.patience;
        let (first, began) = (self.first, self.head_began);
        match self.scanner.phase {
            Phase::RequestLine | Phase::Headers => {
                // The deadline is the head's, not this read's.
                self.reading.at = began.map(|b| b + patience.head);
                self.reading.poll(cx, || Instant::now() + patience.head)
            }
            Phase::Start => {
                let limit = if first { patience.head } else { patience.idle };
                // hyper may ask for the next request while it still answers the last one, and not again when it
                // has. So there is always a timer; when it fires too early, it is set to what is left.
                let since = self.connection.idle_since().unwrap_or_else(Instant::now);
                self.reading.at = Some(since + limit);
                self.reading.poll(cx, Instant::now)
            }
            _ => {
                self.reading.clear();
                false
            }
        }
    }

    fn written(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.connection.waits(ANSWER, result.is_pending());
        if result.is_ready() {
            self.writing.clear();
            return result;
        }
        let limit = self.patience.write;
        if self.writing.poll(cx, || Instant::now() + limit) {
            return Poll::Ready(Err(timed_out("the client does not take its answer")));
        }
        Poll::Pending
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what.to_owned())
}

impl AsyncRead for Gate {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if !this.adding.is_empty() {
            let n = this.adding.len().min(buf.len());
            buf[..n].copy_from_slice(&this.adding[..n]);
            this.adding = &this.adding[n..];
            return Poll::Ready(Ok(n));
        }
        let have = this.raw.len() - this.raw_at;
        if have > 0 {
            let n = have.min(buf.len());
            buf[..n].copy_from_slice(&this.raw[this.raw_at..this.raw_at + n]);
            let n = this.pass(&buf[..n]);
            this.raw_at += n;
            if this.raw_at == this.raw.len() {
                // Given back: an idle connection should cost as little as it can.
                (this.raw, this.raw_at) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(n));
        }
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(n)) => {
                this.reading.clear();
                this.connection.waits(BODY, false);
                let passed = this.pass(&buf[..n]);
                if passed < n {
                    this.raw = buf[passed..n].to_vec();
                    this.raw_at = 0;
                }
                Poll::Ready(Ok(passed))
            }
            Poll::Ready(error) => Poll::Ready(error),
            Poll::Pending => {
                // Of a chunked body the end is not known here; its silence has a limit of its own.
                this.connection.waits(BODY, matches!(this.scanner.phase, Phase::Body(_)));
                if !this.read_deadline(cx) {
                    return Poll::Pending;
                }
                if this.scanner.phase == Phase::Start {
                    // Nothing was promised: end it as if the client had.
                    return Poll::Ready(Ok(0));
                }
                Poll::Ready(Err(timed_out("the request head did not come in time")))
            }
        }
    }
}

impl AsyncWrite for Gate {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.written(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.written(cx, result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_flush(cx).map(|r| r.map(|()| 0));
        this.written(cx, result).map(|r| r.map(|_| ()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_close(cx).map(|r| r.map(|()| 0));
        this.written(cx, result).map(|r| r.map(|_| ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper would get when the stream arrives in pieces of `step` bytes.
    fn through(stream: &[u8], step: usize) -> (Vec<u8>, Phase) {
        let (mut scanner, mut out) = (Scanner::new(), Vec::new());
        for piece in stream.chunks(step) {
            let mut rest = piece;
            while let Some(n) = scanner.scan(rest) {
                out.extend_from_slice(&rest[..n]);
                out.extend_from_slice(TE_LINE);
                rest = &rest[n..];
            }
            out.extend_from_slice(rest);
        }
        (out, scanner.phase)
    }

    #[test]
    fn every_request_line_is_followed_by_te_however_the_bytes_arrive() {
        let sent = b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /b HTTP/1.1\r\ncontent-LENGTH: 21\r\n\r\nGET /no HTTP/1.1\r\n\r\nx\
            GET /c HTTP/1.1\r\n\r\n";
        let want = b"\r\nGET /a HTTP/1.1\r\nTE: trailers\r\nHost: x\r\n\r\n\
            POST /b HTTP/1.1\r\nTE: trailers\r\ncontent-LENGTH: 21\r\n\r\nGET /no HTTP/1.1\r\n\r\nx\
            GET /c HTTP/1.1\r\nTE: trailers\r\n\r\n";
        for step in 1..=sent.len() {
            let (got, phase) = through(sent, step);
            assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(want), "step {step}");
            assert_eq!(phase, Phase::Start);
        }
    }

    #[test]
    fn what_it_cannot_follow_goes_through_untouched() {
        for head in [
            "Transfer-Encoding: chunked",
            "Upgrade: h2c",
            "Content-Length: abc",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 99999999999999999999999999999999999999999999999999999999999",
        ] {
            let rest = "0\r\n\r\nGET /next HTTP/1.1\r\n\r\n";
            let sent = format!("POST / HTTP/1.1\r\n{head}\r\n\r\n{rest}");
            let (got, phase) = through(sent.as_bytes(), 7);
            let want = format!("POST / HTTP/1.1\r\nTE: trailers\r\n{head}\r\n\r\n{rest}");
            assert_eq!(String::from_utf8_lossy(&got), want);
            assert_eq!(phase, Phase::Opaque, "{head}");
        }
    }
}
