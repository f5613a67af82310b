//! What is not intercepted goes to the IPFS daemon as it came, and its answer comes back as it was given.
//!
//! Both directions are streams with back-pressure: a request's body is read as fast as the daemon takes it, an
//! answer as fast as the client does, and nothing but one buffer per direction is ever held. The connection to the
//! daemon belongs to one exchange at a time. Dropping the answer half-way (the client went) closes it, which
//! is how the daemon learns that nobody waits any more; an upload that breaks off breaks off there too, so
//! that half a file never passes for a whole one. An answer read to its end gives its connection back for the
//! next.
//!
//! Hop-by-hop headers are this connection's own affair and stay behind, with one exception: `Trailer`
//! announces the `X-Stream-Error` that follows the body, and both are passed on. How long the daemon may think is
//! the client's decision (`pubsub sub`, or `cat` of something nobody has yet, may take hours): there is no limit
//! here but the client's own patience and the keep-alive of the connection.
//!
//! It must never: hold a body, send a request twice that may have been acted upon, or take the daemon's silence
//! for an answer.

use crate::api::http::{streamed, Request, Response, ResponseBody};
use crate::error::{Error, Result};
use crate::ipfs::kubo::dial::{Dialer, Target};
use crate::ipfs::kubo::pool::{self, Pool};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::Uri;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Idle connections that are kept for the next request.
const MAX_IDLE: usize = 16;
/// Buffer per direction, and the largest head of an answer, bytes.
const BUFFER: usize = 64 << 10;
/// Most header lines of an answer.
const MAX_HEADERS: usize = 128;

/// Headers that belong to one connection, not to the message (RFC 9110 7.6.1). `Expect` was answered by our
/// own server, `Host` is the next hop's.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// A connection to the daemon.
type Connection = pool::Connection<ResponseBody>;

/// The IPFS daemon behind the proxy.
pub(super) struct Forward {
    dialer: Dialer,
    idle: Arc<Pool<ResponseBody>>,
}

impl Forward {
    /// The daemon at these addresses.
    pub(super) fn new(dialer: Dialer) -> Self {
        Forward { dialer, idle: Arc::new(Pool::new(MAX_IDLE)) }
    }

    /// Passes a request on, and its answer back.
    ///
    /// # Errors
    /// [`crate::Kind::Unavailable`] when the daemon cannot be reached or breaks off before its answer began.
    pub(super) async fn forward(&self, request: Request) -> Result<Response> {
        let (mut parts, body) = request.into_parts();
        remove_hop_by_hop(&mut parts.headers);
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let body = match body.is_empty() {
            true => crate::api::http::empty(),
            false => streamed(body, length),
        };
        let mut onward = hyper::Request::new(body);
        *onward.method_mut() = parts.method;
        *onward.uri_mut() = origin_form(&parts.uri)?;
        *onward.headers_mut() = parts.headers;
        self.ask(onward).await
    }

    /// Sends one request to the daemon; the answer's body streams.
    ///
    /// # Errors
    /// As [`Forward::forward`].
    pub(super) async fn ask(&self, mut request: hyper::Request<ResponseBody>) -> Result<Response> {
        let path = request.uri().path().to_owned();
        if let Some(mut kept) = self.idle.checkout().await {
            address(&mut request, &kept.target)?;
            match kept.sender.try_send_request(request).await {
                Ok(response) => return Ok(self.passed_back(response, kept)),
                // The daemon closed it just now. Only a request that never left may go out again.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(&kept.target, &path, error.error())),
                },
            }
        }
        let mut fresh = self.connect().await?;
        address(&mut request, &fresh.target)?;
        match fresh.sender.send_request(request).await {
            Ok(response) => Ok(self.passed_back(response, fresh)),
            Err(error) => Err(broken(&fresh.target, &path, &error)),
        }
    }

    async fn connect(&self) -> Result<Connection> {
        let (socket, target) = self.dialer.connect().await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER).max_headers(MAX_HEADERS).title_case_headers(true);
        Connection::open(&builder, socket, target).await.map_err(|e| broken(target, "the handshake", &e))
    }

    fn passed_back(&self, response: hyper::Response<Incoming>, connection: Connection) -> Response {
        let (mut parts, incoming) = response.into_parts();
        remove_hop_by_hop(&mut parts.headers);
        let idle = self.idle.clone();
        let body = Answer { incoming, ended: false, connection: Some(connection), idle };
        hyper::Response::from_parts(parts, body.boxed_unsync())
    }
}

/// The path and query of a request, whatever form its target came in.
fn origin_form(uri: &Uri) -> Result<Uri> {
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    path.parse().map_err(|e| Error::invalid(format!("the request's path {path:?} cannot be passed on: {e}")))
}

/// Says whom the request is for.
fn address(request: &mut hyper::Request<ResponseBody>, target: &Target) -> Result<()> {
    let host = HeaderValue::from_str(&target.authority)
        .map_err(|e| Error::invalid(format!("{} cannot be a Host header: {e}", target.shown)))?;
    request.headers_mut().insert(header::HOST, host);
    Ok(())
}

/// Takes out what concerned only the connection a message came on.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // What says how long the body is cannot be made to disappear by naming it.
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn broken(target: &Target, what: &str, error: &hyper::Error) -> Error {
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    let why = match error.is_parse() {
        true => format!("it answers something that is not HTTP ({error}); is this Kubo's RPC API?"),
        false => format!("{inner}; is it running?"),
    };
    Error::unavailable(format!(
        "the IPFS daemon at {} broke the connection during {what}: {why}",
        target.shown
    ))
}

/// The daemon's body on its way to the client; gives the connection back when it was read to its end.
struct Answer {
    incoming: Incoming,
    ended: bool,
    connection: Option<Connection>,
    idle: Arc<Pool<ResponseBody>>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let frame = futures::ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => {
                let target = this.connection.take().map(|c| c.target);
                Some(Err(match target {
                    Some(target) => broken(&target, "its answer", &error),
                    None => Error::unavailable("the IPFS daemon broke the connection during its answer"),
                }))
            }
            None => {
                this.ended = true;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if !self.ended && !self.incoming.is_end_stream() {
            return;
        }
        self.idle.put_back(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    /// A daemon that gives these answers, one after the other, over as many connections as it is asked for; and what
    /// it was sent, head by head.
    fn daemon(answers: Vec<&'static str>) -> (Forward, mpsc::Receiver<(usize, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("address").port();
        let (tell, heads) = mpsc::channel();
        std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = BufReader::new(stream.expect("a connection"));
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if stream.read_line(&mut head).unwrap_or(0) == 0 {
                            break;
                        }
                    }
                    if head.is_empty() {
                        break;
                    }
                    let _ = tell.send((number, head));
                    let Some(answer) = answers.next() else { return };
                    stream.get_mut().write_all(answer.as_bytes()).expect("answered");
                    if answer.ends_with("half") {
                        break;
                    }
                }
            }
        });
        let node = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("address");
        (Forward::new(Dialer::new("node_multiaddress", &[node], false).expect("dialer")), heads)
    }

    fn request(headers: &[(&'static str, &'static str)]) -> hyper::Request<ResponseBody> {
        let mut request = hyper::Request::new(crate::api::http::empty());
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = "/api/v0/id?a=b".parse().expect("uri");
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        remove_hop_by_hop(request.headers_mut());
        request
    }

    const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n\
        Connection: X-Mine\r\n\r\nok";
    const TRAILED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Stream-Error\r\n\r\n\
        2\r\nok\r\n0\r\nX-Stream-Error: late\r\n\r\n";

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        let (kubo, heads) = daemon(vec![PLAIN]);
        block_on(async {
            let asked = request(&[
                ("host", "evil.example"),
                ("connection", "x-hop, content-length"),
                ("x-hop", "1"),
                ("te", "trailers"),
                ("expect", "100-continue"),
                ("x-stays", "yes"),
            ]);
            let response = kubo.ask(asked).await.expect("answered");
            for gone in ["keep-alive", "connection", "x-mine"] {
                assert!(!response.headers().contains_key(gone), "{gone}: {response:?}");
            }
            assert_eq!(response.headers()[header::CONTENT_LENGTH], "2");
        });
        let (_, head) = heads.recv().expect("a head");
        assert!(head.starts_with("POST /api/v0/id?a=b HTTP/1.1\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("host: 127.0.0.1:") && head.contains("x-stays: yes"), "{head}");
        for gone in ["x-hop", "te:", "expect:", "evil"] {
            assert!(!head.contains(gone), "{gone} went on: {head}");
        }
    }

    #[test]
    fn trailers_come_through_and_connections_are_used_again() {
        let (kubo, heads) = daemon(vec![TRAILED, PLAIN, PLAIN]);
        block_on(async {
            let response = kubo.ask(request(&[])).await.expect("answered");
            assert_eq!(response.headers()[header::TRAILER], "X-Stream-Error");
            let body = response.into_body().collect().await.expect("body");
            assert_eq!(body.trailers().expect("trailers")["x-stream-error"], "late");
            // Read to its end: used again. Dropped in the middle: not.
            drop(kubo.ask(request(&[])).await.expect("answered"));
            kubo.ask(request(&[])).await.expect("answered");
        });
        let connections: Vec<usize> = heads.iter().take(3).map(|(number, _)| number).collect();
        assert_eq!(connections, [0, 0, 1]);
    }

    #[test]
    fn half_an_answer_is_an_error_and_so_is_nonsense() {
        let (kubo, _heads) =
            daemon(vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "nonsense\r\n\r\n"]);
        block_on(async {
            let response = kubo.ask(request(&[])).await.expect("a head");
            let error = response.into_body().collect().await.map(|_| ()).expect_err("not whole");
            assert!(error.message().contains("broke the connection during its answer"), "{error}");
            let error = kubo.ask(request(&[])).await.map(|_| ()).expect_err("no HTTP");
            assert!(error.message().contains("is this Kubo's RPC API?"), "{error}");
        });
    }
}
