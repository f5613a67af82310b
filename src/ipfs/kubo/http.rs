//! HTTP towards Kubo: a small bounded pool of connections, and answers that are read with limits.
//!
//! hyper's HTTP/1 client over smol streams. A connection belongs to one call at a time; it returns to the pool
//! only when the answer was read to its end, and is closed when the call is dropped, which is how
//! Kubo learns that nobody waits any more (it then stops fetching for an abandoned pin). Every wait
//! has a limit given by the caller, every body and line has a greatest size, and a daemon that is down is
//! asked less often ([`QUICK_FAILURES`]). Nothing that Kubo answers is trusted to be what it should be.

use super::dial::{Dialer, Target};
use super::pool::{self, Pool};
use super::words::{self, name_of, quote, MAX_QUOTE};
use crate::error::{Error, Kind, Result};
use crate::runtime;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header;
use hyper::{Method, Request, Response, StatusCode};
use libp2p::Multiaddr;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use smol::lock::{Semaphore, SemaphoreGuardArc};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A proxy of pinfold that sees this header answers for a cluster above it (see `api::proxy::composite`); Kubo
/// takes no notice.
pub const COMPOSITE: &str = "x-pinfold-composite";
/// Connections to the daemon at the same time; further calls wait in line.
pub const MAX_CONNECTIONS: usize = 64;
/// Idle connections that are kept for the next call.
pub const MAX_IDLE: usize = 8;
/// Failures to reach the daemon in a row after which calls are spread out.
pub const QUICK_FAILURES: u32 = 10;
/// Distance of calls while the daemon is down.
pub const SLOW_CALLS: Duration = Duration::from_secs(1);
/// How often a call that waits for its turn looks at whether the daemon is up again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// A call that would have to wait longer than this for its turn fails at once.
pub const LONGEST_QUEUE: Duration = Duration::from_secs(30);
/// Largest answer that is read as one JSON value, bytes.
pub const MAX_JSON: usize = 8 << 20;
/// Longest line of a streamed answer, bytes.
pub const MAX_LINE: usize = 256 << 10;
/// Most lines of a streamed answer: several times the pins of the largest known repositories (50 million).
pub const MAX_LINES: u64 = 1 << 28;
/// Most bytes of an error answer that are read.
pub const MAX_ERROR: usize = 64 << 10;
/// Largest head of an answer, and hyper's read buffer, bytes.
const READ_BUFFER: usize = 64 << 10;
/// Most header lines of an answer.
const MAX_HEADERS: usize = 64;

/// A connection of this client.
pub(super) type Connection = pool::Connection<Full<Bytes>>;

/// Failures in a row, and when the next call may go out.
#[derive(Default)]
struct Gate {
    failures: u32,
    next: Option<Instant>,
}

/// The HTTP client of one daemon.
pub(super) struct Client {
    dialer: Dialer,
    /// As configured, for sentences.
    shown: String,
    idle: Pool<Full<Bytes>>,
    slots: Arc<Semaphore>,
    gate: Mutex<Gate>,
}

impl Client {
    pub(super) fn new(nodes: &[Multiaddr]) -> Result<Arc<Client>> {
        let dialer = Dialer::new("ipfs_connector.ipfshttp.node_multiaddress", nodes, false)?;
        Ok(Arc::new(Client {
            shown: dialer.shown(),
            dialer,
            idle: Pool::new(MAX_IDLE),
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            gate: Mutex::default(),
        }))
    }

    /// Closes idle connections.
    pub(super) fn close(&self) {
        self.idle.clear();
    }

    #[cfg(test)]
    pub(super) fn idle_connections(&self) -> usize {
        self.idle.len()
    }

    /// Calls `/api/v0/<path>` and waits at most `limit` for the head of the answer. An answer other than 200
    /// becomes an error with the daemon's words.
    pub(super) async fn call(self: &Arc<Self>, path: &str, limit: Duration) -> Result<Reply> {
        self.call_with(path, None, limit).await
    }

    /// The same with a body: its content type and bytes.
    pub(super) async fn call_with(
        self: &Arc<Self>,
        path: &str,
        body: Option<(String, Bytes)>,
        limit: Duration,
    ) -> Result<Reply> {
        self.wait_for_turn().await?;
        self.send(path, body, limit, true).await
    }

    /// The same for a pin, which may take for ever: it does not count among [`MAX_CONNECTIONS`], or pins that nobody
    /// has would keep every other call waiting. Whoever calls bounds their number.
    pub(super) async fn call_long(self: &Arc<Self>, path: &str, limit: Duration) -> Result<Reply> {
        self.wait_for_turn().await?;
        self.send(path, None, limit, false).await
    }

    async fn send(
        self: &Arc<Self>,
        path: &str,
        body: Option<(String, Bytes)>,
        limit: Duration,
        counts: bool,
    ) -> Result<Reply> {
        let work = async {
            let slot = if counts { Some(self.slots.clone().acquire_arc().await) } else { None };
            let (response, connection) = self.exchange(path, body.as_ref()).await?;
            Ok::<_, Error>(Reply {
                client: self.clone(),
                path: path.to_string(),
                response,
                connection,
                _slot: slot,
            })
        };
        let answered = smol::future::or(async { Some(work.await) }, async {
            runtime::sleep(limit).await;
            None
        })
        .await;
        match answered {
            Some(Ok(reply)) => {
                self.is_up();
                reply.checked(limit).await
            }
            Some(Err(error)) => {
                if error.kind() == Kind::Unavailable {
                    let mut gate = self.gate.lock();
                    gate.failures = gate.failures.saturating_add(1);
                }
                Err(error)
            }
            None => {
                // Silence counts against an address as much as a refusal: another one may still answer.
                self.dialer.blame(self.dialer.current());
                Err(self.silent(path, limit))
            }
        }
    }

    /// The daemon answers: nobody needs to hold back any more.
    pub(super) fn is_up(&self) {
        *self.gate.lock() = Gate::default();
    }

    pub(super) fn silent(&self, path: &str, limit: Duration) -> Error {
        Error::timeout(format!(
            "the IPFS daemon at {} did not answer {} within {limit:?}",
            self.shown,
            name_of(path)
        ))
    }

    /// While the daemon is down, lets calls through one by one.
    async fn wait_for_turn(&self) -> Result<()> {
        let now = Instant::now();
        let at = {
            let mut gate = self.gate.lock();
            if gate.failures <= QUICK_FAILURES {
                return Ok(());
            }
            let at = gate.next.map_or(now, |next| next.max(now));
            if at > now + LONGEST_QUEUE {
                return Err(Error::unavailable(format!(
                    "the IPFS daemon at {} does not answer since {} attempts, and too many calls wait for \
                     it already; is it running?",
                    self.shown, gate.failures
                )));
            }
            gate.next = Some(at + SLOW_CALLS);
            at
        };
        loop {
            let left = at.saturating_duration_since(Instant::now());
            // Also as soon as somebody else has got through.
            if left.is_zero() || self.gate.lock().failures <= QUICK_FAILURES {
                return Ok(());
            }
            runtime::sleep(left.min(LOOK_AGAIN)).await;
        }
    }

    async fn exchange(
        &self,
        path: &str,
        body: Option<&(String, Bytes)>,
    ) -> Result<(Response<Incoming>, Connection)> {
        let kept = self.idle.checkout().await;
        // All calls may be repeated without harm: when the daemon closed a kept connection just now, and when one of
        // several addresses breaks off and there are others.
        let mut again = usize::from(kept.is_some()) + self.dialer.len() - 1;
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        loop {
            match connection.sender.send_request(self.request(&connection.target, path, body)?).await {
                Ok(response) => return Ok((response, connection)),
                Err(error) if again > 0 => {
                    log::trace!(target: "ipfshttp", "a connection was closed: {error}");
                    again -= 1;
                    connection = self.connect().await?;
                }
                Err(error) => {
                    self.dialer.blame(&connection.target);
                    return Err(self.broken(path, &error));
                }
            }
        }
    }

    fn request(
        &self,
        target: &Target,
        path: &str,
        body: Option<&(String, Bytes)>,
    ) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/api/v0/{path}"))
            .header(header::HOST, &target.authority)
            .header(COMPOSITE, "1")
            .header(header::USER_AGENT, concat!("pinfold/", env!("CARGO_PKG_VERSION")));
        let mut bytes = Bytes::new();
        if let Some((kind, body)) = body {
            request = request.header(header::CONTENT_TYPE, kind);
            bytes = body.clone();
        }
        request
            .body(Full::new(bytes))
            .map_err(|e| Error::invalid(format!("cannot ask the IPFS daemon for {path:?}: {e}")))
    }

    pub(super) fn broken(&self, path: &str, error: &hyper::Error) -> Error {
        let why = match error.is_parse() {
            true => format!("it answers something that is not HTTP ({error}); is this Kubo's RPC API?"),
            false => format!("{}; is it running?", cause(error)),
        };
        Error::unavailable(format!(
            "the IPFS daemon at {} broke the connection during {}: {why}",
            self.shown,
            name_of(path)
        ))
    }

    pub(super) async fn connect(&self) -> Result<Connection> {
        let (socket, target) = self.dialer.connect().await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(READ_BUFFER).max_headers(MAX_HEADERS);
        Connection::open(&builder, socket, target).await.map_err(|e| self.broken("the handshake", &e))
    }
}

/// The innermost reason of an error.
fn cause(error: &hyper::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

/// An answer whose head has come and is 200.
pub(super) struct Reply {
    client: Arc<Client>,
    path: String,
    response: Response<Incoming>,
    connection: Connection,
    _slot: Option<SemaphoreGuardArc>,
}

impl Reply {
    async fn checked(self, limit: Duration) -> Result<Reply> {
        let status = self.response.status();
        if status == StatusCode::OK {
            return Ok(self);
        }
        let (path, shown) = (self.path.clone(), self.client.shown.clone());
        let location = self.response.headers().get(header::LOCATION);
        let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let text = match self.bytes(MAX_ERROR, limit).await {
            Ok(bytes) => bytes,
            Err(error) => {
                return Err(error.context(format!("IPFS error ({path}). Code: {}", status.as_u16())))
            }
        };
        Err(words::refused(&shown, &path, status, location.as_deref(), &text))
    }

    /// The next piece of the body, within `limit`; `None` at its good end. An error that Kubo reports
    /// after the body (trailer `X-Stream-Error`) is an error.
    pub(super) async fn chunk(&mut self, limit: Duration) -> Result<Option<Bytes>> {
        loop {
            let frame = smol::future::or(async { Ok(self.response.body_mut().frame().await) }, async {
                runtime::sleep(limit).await;
                Err(())
            })
            .await;
            match frame {
                Err(()) => return Err(self.client.silent(&self.path, limit)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(self.client.broken(&self.path, &error)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            if let Some(words) = trailers.get("x-stream-error") {
                                let words = String::from_utf8_lossy(words.as_bytes());
                                return Err(words::refusal(&self.client.shown, &self.path, 200, &words));
                            }
                        }
                    }
                },
            }
        }
    }

    /// The body is read to its end: the connection may serve the next call.
    fn done(self) {
        let Reply { client, connection, .. } = self;
        client.idle.put_back(connection);
    }

    /// The whole body, at most `max` bytes; the connection goes back to the pool.
    pub(super) async fn bytes(mut self, max: usize, limit: Duration) -> Result<Bytes> {
        let deadline = Instant::now() + limit;
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk(deadline.saturating_duration_since(Instant::now())).await? {
            if all.len() + chunk.len() > max {
                return Err(Error::ipfs(format!(
                    "the IPFS daemon at {} answers {} with more than {max} bytes; is this Kubo's RPC API?",
                    self.client.shown,
                    name_of(&self.path)
                )));
            }
            all.extend_from_slice(&chunk);
        }
        self.done();
        Ok(all.freeze())
    }

    /// The whole body as one JSON value.
    pub(super) async fn json<T: DeserializeOwned>(self, limit: Duration) -> Result<T> {
        let (client, path) = (self.client.clone(), self.path.clone());
        let bytes = self.bytes(MAX_JSON, limit).await?;
        serde_json::from_slice(&bytes).map_err(|e| client.nonsense(&path, &bytes, &e))
    }

    /// The body as one JSON value per line.
    pub(super) fn lines(self) -> Lines {
        Lines { reply: Some(self), buffer: BytesMut::new(), scanned: 0, left: MAX_LINES }
    }
}

impl Client {
    /// The error for an answer that is not 200.
    pub(super) fn refused(&self, path: &str, status: StatusCode, body: &[u8]) -> Error {
        words::refused(&self.shown, path, status, None, body)
    }

    pub(super) fn nonsense(&self, path: &str, bytes: &[u8], error: &serde_json::Error) -> Error {
        let start = &bytes[..bytes.len().min(MAX_QUOTE)];
        Error::ipfs(format!(
            "the IPFS daemon at {} answers {} with something that is not understood ({error}): {}; \
             is this Kubo's RPC API?",
            self.shown,
            name_of(path),
            quote(&String::from_utf8_lossy(start))
        ))
    }
}

/// A streamed answer: one JSON value per line.
pub(super) struct Lines {
    /// Absent after the good end.
    reply: Option<Reply>,
    buffer: BytesMut,
    /// Bytes of the buffer that hold no line end.
    scanned: usize,
    /// Lines that may still come.
    left: u64,
}

impl Lines {
    /// The next value, within `limit`; `None` at the good end.
    pub(super) async fn next<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<Option<T>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(line) = self.line() {
                self.left = match self.left.checked_sub(1) {
                    Some(left) => left,
                    None => return Err(self.endless()),
                };
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return self.parse(&line).map(Some);
            }
            let Some(reply) = self.reply.as_mut() else { return Ok(None) };
            if self.buffer.len() > MAX_LINE {
                return Err(Error::ipfs(format!(
                    "the IPFS daemon at {} answers {} with a line of more than {MAX_LINE} bytes; \
                     is this Kubo's RPC API?",
                    reply.client.shown,
                    name_of(&reply.path)
                )));
            }
            match reply.chunk(deadline.saturating_duration_since(Instant::now())).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => {
                    // What is left without a line end is the last line.
                    let last = self.buffer.split().freeze();
                    self.scanned = 0;
                    let value = match last.iter().all(u8::is_ascii_whitespace) {
                        true => None,
                        false => Some(self.parse(&last)?),
                    };
                    if let Some(reply) = self.reply.take() {
                        reply.done();
                    }
                    return Ok(value);
                }
            }
        }
    }

    /// Takes at most so many more lines, the empty ones too.
    pub(super) fn at_most(mut self, lines: u64) -> Self {
        self.left = lines;
        self
    }

    /// The error for an answer that goes on and on.
    pub(super) fn endless(&self) -> Error {
        let (shown, path) =
            self.reply.as_ref().map_or(("?", "?"), |r| (r.client.shown.as_str(), r.path.as_str()));
        Error::ipfs(format!(
            "the IPFS daemon at {shown} does not stop answering {}; is this Kubo's RPC API?",
            name_of(path)
        ))
    }

    fn line(&mut self) -> Option<Bytes> {
        let found = self.buffer[self.scanned..].iter().position(|b| *b == b'\n');
        match found {
            Some(at) => {
                let line = self.buffer.split_to(self.scanned + at + 1).freeze();
                self.scanned = 0;
                Some(line)
            }
            None => {
                self.scanned = self.buffer.len();
                None
            }
        }
    }

    fn parse<T: DeserializeOwned>(&self, line: &[u8]) -> Result<T> {
        serde_json::from_slice(line).map_err(|error| match &self.reply {
            Some(reply) => reply.client.nonsense(&reply.path, line, &error),
            None => Error::ipfs(format!("an answer of the IPFS daemon is not understood: {error}")),
        })
    }
}

/// `name=value` for a query, the value escaped.
pub(super) fn arg(name: &str, value: &str) -> String {
    let mut out = format!("{name}=");
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b':' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn values_cannot_leave_their_place_in_a_query() {
        assert_eq!(arg("arg", "/ipfs/Qm/a b&c=d#e?%\n"), "arg=/ipfs/Qm/a%20b%26c%3Dd%23e%3F%25%0A");
        assert_eq!(arg("arg", "ü"), "arg=%C3%BC");
    }
}
