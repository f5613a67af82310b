//! A generic HTTP/1.1 server: hyper 1 on smol, with every limit that hyper leaves to its user.
//!
//! One [`Server`] serves one [`Service`] on any number of sockets. What strangers can make it do is bounded:
//! connections in all and per address ([`Limits`]), heads in size and time, bodies and answers in
//! silence, TLS handshakes in time. When all places are taken, the connection that has been idle longest makes
//! room, else the one whose client has made us wait longest; only when every one is really busy is a newcomer told
//! 503. Running out of file descriptors costs a pause,
//! never the listener. A panic in a handler costs that request.
//!
//! [`Server::close`] stops accepting at once, lets running requests finish until a deadline, then cuts.
//!
//! It must never: start a thread, buffer a request or an answer whole, or know anything about pins.

use super::access::AccessFile;
use super::gate::{Connection, Duplex, Gate, Patience};
use super::http::{Body, Remote, Response, ResponseBody, Service, User};
use super::listen::{Listener, Socket, BACKLOG};
use super::tls::Tls;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::runtime;
use bytes::Bytes;
use futures::future::{select, Either, FutureExt};
use futures::io::AsyncWriteExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{HeaderValue, CONNECTION, EXPECT, HOST};
use hyper::server::conn::http1;
use parking_lot::Mutex;
use smol_hyper::rt::FuturesIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Most connections at once, all listeners together. Each costs about 20 kB while it is busy.
pub const MAX_CONNECTIONS: usize = 512;
/// Most connections from one address that is not this machine.
pub const MAX_PER_ADDRESS: usize = 128;
/// Smallest limit on the size of a request head that is honoured, bytes.
pub const MIN_HEADER_BYTES: usize = 4096;
/// Go adds this to the configured limit; so do we, so that the same requests pass.
const HEADER_SLOP: usize = 4096;
/// Largest limit on the size of a request head, bytes.
pub const MAX_HEADER_BYTES: usize = 1 << 20;
/// Buffer of a connection in each direction while it moves bodies; heads larger than it do not fit.
const BUFFER: usize = 64 << 10;
/// A request head must be complete this long after its first byte.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection without a request is closed after this long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest silence inside a request body. Long, because uploads are fed by slow disks and pipes.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest time a client may refuse to take any of its answer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// A TLS handshake must be over after this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that lets its own request wait for this long makes room for a newcomer when all places are taken.
const STALLED: Duration = Duration::from_secs(5);
/// A connection without a request is kept this long when the server closes, for a client that is just sending one.
const LINGER: Duration = Duration::from_millis(100);
/// Pause after a failed accept (typically: out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At most one accept failure is logged in this time.
const ACCEPT_LOG: Duration = Duration::from_secs(10);
/// A refused newcomer's 503 must be taken in this time.
const REFUSE_TIME: Duration = Duration::from_millis(500);

/// How much a server puts up with. Zero durations mean "the default", never "for ever".
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections per remote address; this machine's own addresses are exempt.
    pub per_address: usize,
    /// Bytes of a request head (4 KiB are added, as Go does); more is answered 431.
    pub header_bytes: usize,
    /// For a whole request head.
    pub header_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// Silence in a request body.
    pub body_timeout: Duration,
    /// A client that does not read.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: MAX_CONNECTIONS,
            per_address: MAX_PER_ADDRESS,
            header_bytes: MIN_HEADER_BYTES,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
        }
    }
}

impl Limits {
    fn or_defaults(mut self) -> Self {
        let default = Limits::default();
        for (value, default) in [
            (&mut self.header_timeout, default.header_timeout),
            (&mut self.idle_timeout, default.idle_timeout),
            (&mut self.body_timeout, default.body_timeout),
            (&mut self.write_timeout, default.write_timeout),
        ] {
            if value.is_zero() {
                *value = default;
            }
        }
        self.connections = self.connections.max(1);
        self.per_address = self.per_address.max(1);
        self.header_bytes = self.header_bytes.clamp(MIN_HEADER_BYTES, MAX_HEADER_BYTES);
        self
    }
}

/// Where and how to serve.
#[derive(Clone, Default)]
pub struct ServerConfig {
    /// Multiaddresses (see [`super::listen`]); all of them must be had.
    pub listen: Vec<String>,
    /// TLS on all of them.
    pub tls: Option<Tls>,
    /// See [`Limits`].
    pub limits: Limits,
}

/// A running server; dropping it cuts everything at once, [`Server::close`] ends it politely.
pub struct Server {
    shared: Arc<Shared>,
    accepting: Vec<smol::Task<()>>,
    addresses: Vec<(String, Option<SocketAddr>)>,
    /// Dropped to tell every connection to finish.
    stop: Option<async_channel::Sender<Infallible>>,
    /// Closed when the last connection is gone.
    gone: async_channel::Receiver<Infallible>,
    alive: Option<async_channel::Sender<Infallible>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

struct Shared {
    service: Arc<dyn Service>,
    limits: Limits,
    tls: Option<Tls>,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next: u64,
    taken: HashMap<u64, Place>,
}

struct Place {
    remote: Option<IpAddr>,
    connection: Arc<Connection>,
    task: smol::Task<()>,
}

impl Server {
    /// Opens all sockets and starts serving.
    ///
    /// # Errors
    /// A sentence that names the address that could not be had and why; nothing is left open then.
    pub async fn bind(config: ServerConfig, service: Arc<dyn Service>) -> Result<Server> {
        let mut listeners = Vec::new();
        for text in &config.listen {
            listeners.push(Listener::open(text, service.name()).await?);
        }
        let (stop, stopped) = async_channel::bounded(1);
        let (alive, gone) = async_channel::bounded(1);
        let shared = Arc::new(Shared {
            service,
            limits: config.limits.or_defaults(),
            tls: config.tls,
            places: Mutex::default(),
        });
        let addresses = listeners.iter().map(|l| (l.multiaddr(), l.local_addr())).collect();
        let accepting = listeners
            .into_iter()
            .map(|l| runtime::spawn(accept(l, shared.clone(), stopped.clone(), alive.downgrade())))
            .collect();
        Ok(Server { shared, accepting, addresses, stop: Some(stop), gone, alive: Some(alive) })
    }

    /// The TCP addresses that were really bound (for port 0).
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.addresses.iter().filter_map(|(_, a)| *a).collect()
    }

    /// All addresses as multiaddresses.
    pub fn multiaddrs(&self) -> Vec<String> {
        self.addresses.iter().map(|(m, _)| m.clone()).collect()
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.shared.places.lock().taken.len()
    }

    /// Stops accepting, waits until running requests are answered and connections closed or `limit` has passed,
    /// and cuts what is left.
    ///
    /// What reached us before is served: connections that the kernel took and we had not, and requests on kept
    /// connections, which learn from their answer that it is the last ([`LINGER`]).
    pub async fn close(mut self, limit: Duration) {
        drop(self.stop.take());
        for task in self.accepting.drain(..) {
            task.await;
        }
        drop(self.alive.take());
        let gone = self.gone.clone();
        let quiet = async {
            let _ = gone.recv().await;
            true
        };
        let late = async {
            runtime::sleep(limit).await;
            false
        };
        if !smol::future::or(quiet, late).await {
            let left = self.connections();
            log::warn!("{}: {left} connections were cut after {limit:?}", self.shared.service.name());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.clear();
        // Tasks are dropped outside the lock: a connection's own end takes it too.
        let places = std::mem::take(&mut self.shared.places.lock().taken);
        drop(places);
    }
}

async fn accept(
    listener: Listener,
    shared: Arc<Shared>,
    stopped: async_channel::Receiver<Infallible>,
    alive: async_channel::WeakSender<Infallible>,
) {
    let mut logged: Option<Instant> = None;
    loop {
        let next = {
            let (next, stopping) = (pin!(listener.accept()), pin!(stopped.recv()));
            match select(next, stopping).await {
                Either::Left((next, _)) => next,
                Either::Right(_) => break,
            }
        };
        match next {
            Ok((socket, remote)) => {
                let Some(alive) = alive.upgrade() else { return };
                admit(&shared, socket, remote, stopped.clone(), alive);
            }
            Err(error) => {
                if logged.is_none_or(|at| at.elapsed() > ACCEPT_LOG) {
                    logged = Some(Instant::now());
                    log::warn!("{}: cannot accept a connection: {error}", shared.service.name());
                }
                // If descriptors ran out, an idle connection gives one back.
                evict(&mut shared.places.lock(), |_| true, Connection::idle_since);
                runtime::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Whoever connected before the end is served: a closed listener would reset what it has not handed out.
    for _ in 0..BACKLOG {
        let waiting = listener.accept().now_or_never();
        let (Some(Ok((socket, remote))), Some(alive)) = (waiting, alive.upgrade()) else { return };
        admit(&shared, socket, remote, stopped.clone(), alive);
    }
}

/// Gives a connection a place, or refuses it.
fn admit(
    shared: &Arc<Shared>,
    socket: Socket,
    remote: Option<SocketAddr>,
    stopped: async_channel::Receiver<Infallible>,
    alive: async_channel::Sender<Infallible>,
) {
    let address = remote.map(|a| a.ip().to_canonical());
    let mut places = shared.places.lock();
    let stranger = address.filter(|ip| !ip.is_loopback());
    let crowded = stranger.is_some_and(|ip| {
        places.taken.values().filter(|p| p.remote == Some(ip)).count() >= shared.limits.per_address
    });
    let admitted = if crowded {
        make_room(&mut places, |p| p.remote == address)
    } else {
        places.taken.len() < shared.limits.connections || make_room(&mut places, |_| true)
    };
    if !admitted {
        drop(places);
        runtime::spawn(refuse(socket, shared.clone())).detach();
        return;
    }
    let id = places.next;
    places.next += 1;
    let connection = Arc::new(Connection::new());
    let (work, state) = (shared.clone(), connection.clone());
    // Spawned under the lock: the task's own end looks for its place, which is there by then.
    let task = runtime::spawn(async move {
        let serving = serve(work.clone(), socket, remote, state, stopped);
        if AssertUnwindSafe(serving).catch_unwind().await.is_err() {
            log::error!("{}: a connection ended in a panic; this is a defect", work.service.name());
        }
        let place = work.places.lock().taken.remove(&id);
        if let Some(place) = place {
            place.task.detach();
        }
        drop(alive);
    });
    places.taken.insert(id, Place { remote: address, connection, task });
}

/// Closes the connection among `which` that has been idle longest, else the one that has been stalled longest. False
/// when there is none.
fn make_room(places: &mut Places, which: impl Fn(&Place) -> bool) -> bool {
    let stalled = |c: &Connection| c.stalled_since().filter(|since| since.elapsed() >= STALLED);
    evict(places, &which, Connection::idle_since) || evict(places, &which, stalled)
}

/// Closes the connection among `which` for which `since` is the longest ago. False when there is none.
fn evict(
    places: &mut Places,
    which: impl Fn(&Place) -> bool,
    since: impl Fn(&Connection) -> Option<Instant>,
) -> bool {
    let oldest = places
        .taken
        .iter()
        .filter(|(_, p)| which(p))
        .filter_map(|(id, p)| Some((since(&p.connection)?, *id)))
        .min();
    // Dropping the task cancels it.
    oldest.is_some_and(|(_, id)| places.taken.remove(&id).is_some())
}

/// Tells a newcomer that there is no place, best effort. Not over TLS: a handshake is the costly part.
async fn refuse(socket: Socket, shared: Arc<Shared>) {
    if shared.tls.is_some() {
        return;
    }
    let mut stream = duplex(socket);
    let answer = async {
        let head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
            Content-Length: 0\r\n\r\n";
        let _ = stream.write_all(head).await;
        let _ = stream.close().await;
    };
    smol::future::or(answer, runtime::sleep(REFUSE_TIME)).await;
}

fn duplex(socket: Socket) -> Box<dyn Duplex> {
    match socket {
        Socket::Tcp(stream) => Box::new(stream),
        Socket::Unix(stream) => Box::new(stream),
    }
}

async fn serve(
    shared: Arc<Shared>,
    socket: Socket,
    remote: Option<SocketAddr>,
    connection: Arc<Connection>,
    stopped: async_channel::Receiver<Infallible>,
) {
    let limits = &shared.limits;
    let stream: Box<dyn Duplex> = match &shared.tls {
        None => duplex(socket),
        Some(tls) => {
            let handshake = async {
                let acceptor = tls.acceptor().await;
                acceptor.accept(duplex(socket)).await.map_err(Error::from)
            };
            match runtime::timeout(HANDSHAKE_TIMEOUT, "TLS handshake", handshake).await {
                Ok(stream) => Box::new(stream),
                Err(error) => {
                    log::debug!("{}: {remote:?}: {error}", shared.service.name());
                    return;
                }
            }
        }
    };
    let patience =
        Patience { head: limits.header_timeout, idle: limits.idle_timeout, write: limits.write_timeout };
    let io = FuturesIo::new(Gate::new(stream, connection.clone(), patience));
    let head = limits.header_bytes + HEADER_SLOP;
    let entry = Entry { shared: shared.clone(), connection, remote, stopped: stopped.clone() };
    let serving = http1::Builder::new()
        // The gate keeps this deadline; hyper's would also cover idle connections.
        .header_read_timeout(None)
        .max_header_size(head)
        .max_buf_size(BUFFER.max(head))
        .title_case_headers(true)
        .half_close(false)
        .serve_connection(io, entry);
    let mut serving = pin!(serving);
    let mut stopping = pin!(stopped.recv());
    let result = match select(serving.as_mut(), stopping.as_mut()).await {
        Either::Left((result, _)) => result,
        // A request may be on its way here this very moment: it is answered, with the word that it is the last one.
        Either::Right(_) => match select(serving.as_mut(), pin!(runtime::sleep(LINGER))).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        },
    };
    if let Err(error) = result {
        log::debug!("{}: {remote:?}: {error}", shared.service.name());
    }
}

/// hyper's view of one connection's service.
struct Entry {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    remote: Option<SocketAddr>,
    stopped: async_channel::Receiver<Infallible>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Entry {
    type Response = hyper::Response<Tracked>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let running = Running::begin(self.connection.clone());
        let (shared, remote, stopped) = (self.shared.clone(), self.remote, self.stopped.clone());
        Box::pin(async move {
            let mut response = answer(shared, remote, running, request).await;
            if stopped.is_closed() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

/// Marks a connection as busy from a request's head to the last byte of its answer.
struct Running(Arc<Connection>);

impl Running {
    fn begin(connection: Arc<Connection>) -> Self {
        connection.begin();
        Running(connection)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn answer(
    shared: Arc<Shared>,
    remote: Option<SocketAddr>,
    running: Running,
    request: hyper::Request<Incoming>,
) -> hyper::Response<Tracked> {
    let service = &shared.service;
    let mut line = AccessLine::new(&**service, remote, &request);
    let (mut parts, incoming) = request.into_parts();
    parts.extensions.insert(Remote(remote));
    let body = Body::new(incoming, shared.limits.body_timeout, parts.headers.contains_key(EXPECT));
    let mut response = if parts.version == hyper::Version::HTTP_11 && !parts.headers.contains_key(HOST) {
        service.failure(&Error::invalid("an HTTP/1.1 request must have a Host header"))
    } else {
        let request = hyper::Request::from_parts(parts, body);
        match AssertUnwindSafe(service.call(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                log::error!("{}: a request ended in a panic; this is a defect", service.name());
                service.failure(&Error::internal("this request met a defect of pinfold; see its log"))
            }
        }
    };
    if running.0.is_opaque() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(line) = &mut line {
        line.status = response.status().as_u16();
        line.user = response.extensions().get::<User>().map(|u| u.0.clone());
    }
    response.map(|inner| Tracked { inner, line, _running: running })
}

/// An answer's body that knows when it ends: for the access log, and for who is idle.
struct Tracked {
    inner: ResponseBody,
    line: Option<AccessLine>,
    _running: Running,
}

impl hyper::body::Body for Tracked {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        // A panic while streaming must not reach the executor; the answer is cut instead.
        let poll = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.inner).poll_frame(cx)))
            .unwrap_or_else(|_| Poll::Ready(Some(Err(Error::internal("an answer ended in a panic")))));
        if let (Poll::Ready(Some(Ok(frame))), Some(line)) = (&poll, &mut this.line) {
            line.bytes += frame.data_ref().map_or(0, |d| d.len() as u64);
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// One line of the access log in Apache's common format, written when the answer is over.
struct AccessLine {
    target: &'static str,
    file: Option<AccessFile>,
    remote: Option<SocketAddr>,
    user: Option<String>,
    at: Timestamp,
    request: String,
    status: u16,
    bytes: u64,
}

impl AccessLine {
    fn new(
        service: &dyn Service,
        remote: Option<SocketAddr>,
        request: &hyper::Request<Incoming>,
    ) -> Option<Self> {
        let (target, file) = (service.access_log(), service.access_file().cloned());
        let wanted = file.is_some() || log::log_enabled!(target: target, log::Level::Info);
        wanted.then(|| AccessLine {
            target,
            file,
            remote,
            user: None,
            at: Timestamp::now(),
            request: format!("{} {} {:?}", request.method(), request.uri(), request.version()),
            status: 0,
            bytes: 0,
        })
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let host = self.remote.map_or_else(|| "-".to_owned(), |a| a.ip().to_canonical().to_string());
        let user = self.user.as_deref().unwrap_or("-");
        // A user's name is anything: it must not look like the rest of the line, or like the next one.
        let user: String = user.chars().map(|c| if c.is_control() || c == ' ' { '_' } else { c }).collect();
        let line = format!(
            "{host} - {user} [{}] \"{}\" {} {}",
            common_log_time(self.at),
            self.request.replace('"', "%22"),
            self.status,
            self.bytes
        );
        match &self.file {
            Some(file) => file.line(line),
            None => log::info!(target: self.target, "{line}"),
        }
    }
}

/// `02/Jan/2006:15:04:05 +0000`.
fn common_log_time(at: Timestamp) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = at.trunc().to_string();
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or("");
    let month = part(5..7).parse::<usize>().ok().and_then(|m| MONTHS.get(m.wrapping_sub(1))).unwrap_or(&"-");
    format!("{}/{month}/{}:{} +0000", part(8..10), part(0..4), part(11..19))
}

/// The answer for an error in the plainest form; services whose clients expect another override it.
pub fn plain_failure(error: &Error) -> Response {
    let mut response = Response::new(super::http::full(format!("{error}\n")));
    *response.status_mut() = hyper::StatusCode::from_u16(error.kind().http_status())
        .unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
