//! Requests whose bodies come in pieces: listings, uploads, downloads.
//!
//! hyper's client on smol, driven from blocking code: one connection per request, the body handed out
//! piece by piece. Memory stays constant whatever the size, because nothing is read before it is asked
//! for. An upload and the reading of its answer go on at the same time. The end of a body is only
//! believed together with its framing, and with a trailer `X-Stream-Error` that is absent or empty.

use super::hosts::{Endpoint, Place};
use super::{api_error, hint, refused, tls, Client, CONNECT_TIMEOUT, MAX_ANSWER, SILENCE};
use crate::api::types::ErrorBody;
use crate::cli::failure::{Failure, Outcome};
use crate::error::{Error, Kind};
use crate::runtime;
use bytes::{Buf, Bytes};
use futures::{AsyncRead, AsyncWrite};
use http_body_util::{combinators::BoxBody, BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request};
use smol_hyper::rt::FuturesIo;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest single item of a listing.
const MAX_LINE: usize = 16 << 20;
/// Longest error answer that is read.
const MAX_ERROR: u64 = 1 << 20;
/// Pieces of an upload that may wait for the network.
pub const UPLOAD_PIECES: usize = 4;

/// The pieces of an upload, as they become ready. An error ends the upload.
pub struct Upload {
    /// What the body is.
    pub content_type: String,
    /// The pieces.
    pub pieces: async_channel::Receiver<io::Result<Bytes>>,
}

/// An answer of which the body is still to come.
pub struct Answer {
    body: Incoming,
    unread: Bytes,
    line: Vec<u8>,
    deadline: Option<Instant>,
    what: String,
    debug: bool,
    length: Option<u64>,
    done: bool,
    // Dropping it closes the connection.
    _connection: smol::Task<()>,
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Checks that something listens at an address.
pub(super) fn reach(client: &Client, endpoint: &Endpoint) -> Outcome {
    runtime::block_on(connect(client, endpoint, &Method::POST)).map(|_| ())
}

async fn connect(client: &Client, endpoint: &Endpoint, method: &Method) -> Outcome<Box<dyn Wire>> {
    let label = endpoint.label();
    let limit = client.timeout.unwrap_or(CONNECT_TIMEOUT).min(CONNECT_TIMEOUT);
    let connecting = async {
        let plain: Box<dyn Wire> = match &endpoint.place {
            Place::Unix(path) => Box::new(
                smol::net::unix::UnixStream::connect(path)
                    .await
                    .map_err(|e| Error::from_io("connecting", &e))?,
            ),
            Place::Tcp(host, port) => {
                let stream = smol::net::TcpStream::connect((host.as_str(), *port)).await.map_err(|e| {
                    if e.kind() == io::ErrorKind::ConnectionRefused {
                        Error::unavailable("refused")
                    } else {
                        Error::from_io("connecting", &e)
                    }
                })?;
                // A flag that cannot be set costs a little latency, nothing else.
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
        };
        if !endpoint.https {
            return Ok(plain);
        }
        let Place::Tcp(host, _) = &endpoint.place else { return Ok(plain) };
        let config = tls::config(client.verify).map_err(Error::io)?;
        let name = futures_rustls::rustls::pki_types::ServerName::try_from(host.clone())
            .map_err(|_| Error::invalid(format!("\"{host}\" cannot be the name in a certificate")))?;
        let secured = futures_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, plain)
            .await
            .map_err(|e| Error::io(tls::trouble(&e).unwrap_or_else(|| hint(&e.to_string()))))?;
        Ok(Box::new(secured) as Box<dyn Wire>)
    };
    runtime::timeout(limit, "connecting", connecting).await.map_err(|e| match e.kind() {
        Kind::Timeout => {
            Failure::Transport(format!("{method} {label}: nobody answers there within {limit:?}"))
        }
        Kind::Unavailable => Failure::Transport(refused(method, &label)),
        _ => Failure::Transport(format!("{method} {label}: {e}")),
    })
}

/// Sends a request and waits for the head of the answer.
pub(super) fn open(
    client: &Client,
    endpoint: &Endpoint,
    method: &Method,
    path: &str,
    upload: Option<Upload>,
) -> Outcome<Answer> {
    let what = format!("{method} {}{path}", endpoint.label());
    client.trace(&what);
    let deadline = client.timeout.map(|t| Instant::now() + t);
    let broken = |e: &dyn std::fmt::Display| Failure::Transport(format!("{what}: {e}"));
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", endpoint.authority())
        .header("User-Agent", format!("pinfold/{}", crate::VERSION));
    if let Some(authorization) = &client.authorization {
        request = request.header("Authorization", authorization);
    }
    let body: BoxBody<Bytes, io::Error> = match upload {
        Some(upload) => {
            request = request.header("Content-Type", &upload.content_type);
            BodyExt::boxed(StreamBody::new(frames(upload.pieces)))
        }
        None => {
            if *method != Method::GET {
                request = request.header("Content-Length", "0");
            }
            Empty::new().map_err(|never| match never {}).boxed()
        }
    };
    let request = request.body(body).map_err(|e| broken(&e))?;
    runtime::block_on(async {
        let wire = connect(client, endpoint, method).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(FuturesIo::new(wire)).await.map_err(|e| broken(&e))?;
        let connection = runtime::spawn(async move {
            // What goes wrong here shows where the body is read.
            let _ = connection.await;
        });
        let answer = until(deadline, &what, async { Ok(sender.send_request(request).await) })
            .await?
            .map_err(|e| broken(&reason(&e)))?;
        let status = answer.status().as_u16();
        let length =
            answer.headers().get("content-length").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let mut answer = Answer {
            body: answer.into_body(),
            unread: Bytes::new(),
            line: Vec::new(),
            deadline,
            what: what.clone(),
            debug: client.debug,
            length,
            done: false,
            _connection: connection,
        };
        client.trace(&format!("status {status}"));
        if status >= 400 {
            let mut body = Vec::new();
            while let Some(piece) = answer.piece().await? {
                if body.len() as u64 + piece.len() as u64 > MAX_ERROR {
                    break;
                }
                body.extend_from_slice(&piece);
            }
            return Err(api_error(status, &body));
        }
        if status >= 300 {
            return Err(Failure::Transport(format!(
                "{what}: the server points elsewhere ({status}); is this the API of a cluster peer?"
            )));
        }
        Ok(answer)
    })
}

fn frames(
    pieces: async_channel::Receiver<io::Result<Bytes>>,
) -> impl futures::Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync {
    futures::StreamExt::map(pieces, |piece| piece.map(Frame::data))
}

/// `future`, or the deadline, or an error after a silence that nobody would wait for.
async fn until<T>(
    deadline: Option<Instant>,
    what: &str,
    future: impl std::future::Future<Output = Outcome<T>>,
) -> Outcome<T> {
    let left = deadline.map_or(SILENCE, |d| d.saturating_duration_since(Instant::now()));
    smol::future::or(future, async {
        runtime::sleep(left.max(Duration::from_millis(1))).await;
        Err(Failure::Deadline(format!("{what}: deadline exceeded")))
    })
    .await
}

/// The cause inside of hyper's error: its own words alone say little.
fn reason(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

impl Answer {
    /// The length of the body, if the server said it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    async fn piece(&mut self) -> Outcome<Option<Bytes>> {
        while !self.done {
            let frame = until(self.deadline, &self.what, async { Ok(self.body.frame().await) }).await?;
            match frame {
                None => self.done = true,
                Some(Err(e)) => {
                    self.done = true;
                    return Err(Failure::Transport(format!(
                        "{}: the answer broke off: {}",
                        self.what,
                        reason(&e)
                    )));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(frame) => {
                        let Ok(trailers) = frame.into_trailers() else { continue };
                        let errors: Vec<_> = trailers
                            .get_all("x-stream-error")
                            .iter()
                            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
                            .filter(|v| !v.is_empty())
                            .collect();
                        if !errors.is_empty() {
                            self.done = true;
                            let message = crate::cli::text::plain(&errors.join("; ")).into_owned();
                            return Err(Failure::Api(ErrorBody { code: 500, message }));
                        }
                    }
                },
            }
        }
        Ok(None)
    }

    /// The next line of the body, without its end; blank lines are skipped. `None` at the end.
    ///
    /// # Errors
    /// When the answer breaks off, or ended with an error of the API.
    pub fn next_line(&mut self) -> Outcome<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
                self.line.extend_from_slice(&self.unread.split_to(end + 1));
                let line = std::mem::take(&mut self.line);
                let line = line.trim_ascii();
                if line.is_empty() {
                    continue;
                }
                if self.debug {
                    eprintln!("{}", crate::cli::text::plain(&String::from_utf8_lossy(line)));
                }
                return Ok(Some(line.to_vec()));
            }
            self.line.extend_from_slice(&self.unread);
            self.unread = Bytes::new();
            if self.line.len() > MAX_LINE {
                return Err(Failure::Transport(format!(
                    "{}: one line of the answer has more than {MAX_LINE} bytes",
                    self.what
                )));
            }
            match runtime::block_on(self.piece())? {
                Some(piece) => self.unread = piece,
                None if self.line.trim_ascii().is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.line).trim_ascii().to_vec())),
            }
        }
    }

    /// Whether the next line can be had without waiting: nothing needs to be shown before.
    pub fn has_line(&self) -> bool {
        self.unread.contains(&b'\n')
    }

    /// All of the body.
    ///
    /// # Errors
    /// As [`Answer::next_line`], and when it is longer than `limit`.
    pub fn read_whole(&mut self, limit: u64) -> Outcome<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(piece) = runtime::block_on(self.piece())? {
            if (whole.len() + piece.len()) as u64 > limit.min(MAX_ANSWER) {
                return Err(Failure::Transport(format!(
                    "{}: the answer has more than {limit} bytes",
                    self.what
                )));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// The next piece of the body; `None` at the end.
    ///
    /// # Errors
    /// As [`Answer::next_line`].
    pub fn next_piece(&mut self) -> Outcome<Option<Bytes>> {
        runtime::block_on(self.piece())
    }
}

/// A body as a reader, for the tar unpacker. The failure that ends it is kept for whoever asks.
pub struct Reader<'a> {
    answer: &'a mut Answer,
    piece: Bytes,
    /// Why reading ended early.
    pub failure: Option<Failure>,
    /// Called with the number of bytes that came in.
    pub on_bytes: Box<dyn FnMut(u64) + 'a>,
}

impl<'a> Reader<'a> {
    /// Reads `answer`.
    pub fn new(answer: &'a mut Answer, on_bytes: Box<dyn FnMut(u64) + 'a>) -> Self {
        Reader { answer, piece: Bytes::new(), failure: None, on_bytes }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.answer.next_piece() {
                Ok(Some(piece)) => {
                    (self.on_bytes)(piece.len() as u64);
                    self.piece = piece;
                }
                Ok(None) => return Ok(0),
                Err(failure) => {
                    self.failure = Some(failure);
                    return Err(io::Error::other("the download broke off"));
                }
            }
        }
        let n = buffer.len().min(self.piece.len());
        buffer[..n].copy_from_slice(&self.piece[..n]);
        self.piece.advance(n);
        Ok(n)
    }
}
