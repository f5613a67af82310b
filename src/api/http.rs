//! The vocabulary between the server and the APIs it serves: requests, answers, and the trait of an API.
//!
//! A request's [`Body`] is a stream with a limit on silence, not on size: sizes are limited by whoever collects
//! it ([`Body::collect`]) or by the disk behind it (uploads). A body that a handler leaves unread is drained for
//! a short while in the background, because closing a socket with unread bytes makes the kernel throw away
//! the very answer that says what was wrong.
//!
//! It must never: hold a whole upload in memory, or wait without a deadline for bytes that a client owes.

use crate::error::{Error, Result};
use crate::runtime;
use crate::runtime::Timer;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// An unread request body is read and thrown away up to this many bytes after its request was answered.
const DRAIN_BYTES: usize = 16 << 20;
/// The same, in time.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A request as an API sees it.
pub type Request = hyper::Request<Body>;
/// The body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, Error>;
/// An answer.
pub type Response = hyper::Response<ResponseBody>;

/// An HTTP API behind a [`Server`](super::server::Server).
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// What it is called in messages: `REST API`.
    fn name(&self) -> &'static str;
    /// The log facility that gets one line per request.
    fn access_log(&self) -> &'static str;
    /// Answers one request.
    async fn call(&self, request: Request) -> Response;
    /// The answer to a request that this API never saw or could not finish (a panic, a full server),
    /// in the form this API's clients understand.
    fn failure(&self, error: &Error) -> Response;
}

/// Where a request came from; an extension of every [`Request`]. `None` on a Unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub Option<SocketAddr>);

/// Who sent the request, for the access log; an extension that an API may put on its [`Response`].
#[derive(Clone, Debug)]
pub struct User(pub String);

/// A request's body: a stream of bytes that fails when the client goes silent.
pub struct Body {
    inner: Option<Incoming>,
    silence: Duration,
    timer: Option<Timer>,
    expects_continue: bool,
    polled: bool,
}

impl Body {
    /// Wraps hyper's body. `expects_continue`: the client waits for a `100 Continue` that is only sent when
    /// the body is first asked for, so an unwanted body must not be drained.
    pub(super) fn new(inner: Incoming, silence: Duration, expects_continue: bool) -> Self {
        let inner = (!inner.is_end_stream()).then_some(inner);
        Body { inner, silence, timer: None, expects_continue, polled: false }
    }

    /// Whether the client sent no body at all.
    pub fn is_empty(&self) -> bool {
        self.inner.is_none()
    }

    /// The whole body, if it is at most `limit` bytes.
    ///
    /// # Errors
    /// [`crate::Kind::TooLarge`] beyond the limit; otherwise what the stream says.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(data) = self.next().await {
            let data = data?;
            if all.len() + data.len() > limit {
                return Err(Error::too_large(format!(
                    "the request body is larger than {limit} bytes, the most this request may carry"
                )));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }
}

impl Stream for Body {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.polled = true;
        loop {
            let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
            match Pin::new(inner).poll_frame(cx) {
                Poll::Ready(frame) => {
                    this.timer = None;
                    match frame {
                        None => this.inner = None,
                        Some(Err(error)) => {
                            this.inner = None;
                            return Poll::Ready(Some(Err(Error::invalid(format!(
                                "the request body could not be read to its end: {error}"
                            )))));
                        }
                        // Trailers of a request say nothing to us.
                        Some(Ok(frame)) => match frame.into_data() {
                            Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                            _ => {}
                        },
                    }
                }
                Poll::Pending => {
                    let silence = this.silence;
                    let timer = this.timer.get_or_insert_with(|| Timer::after(silence));
                    if Pin::new(timer).poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.inner = None;
                    return Poll::Ready(Some(Err(Error::timeout(format!(
                        "no byte of the request body came for {silence:?}; send it without pauses"
                    )))));
                }
            }
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else { return };
        if self.expects_continue && !self.polled {
            return;
        }
        let drain = async move {
            let mut seen = 0;
            while let Some(Ok(frame)) = inner.frame().await {
                seen += frame.data_ref().map_or(0, Bytes::len);
                if seen > DRAIN_BYTES {
                    break;
                }
            }
        };
        runtime::spawn(smol::future::or(drain, runtime::sleep(DRAIN_TIME))).detach();
    }
}

/// A body of bytes at hand.
pub fn full(data: impl Into<Bytes>) -> ResponseBody {
    Full::new(data.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> ResponseBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body from a stream of bytes, of `length` bytes when that is known. An error, or another length than
/// promised, cuts the connection: the client must not take half a file for a whole one.
pub fn streamed(
    stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
    length: Option<u64>,
) -> ResponseBody {
    Streamed { stream: Box::pin(stream), left: length }.boxed_unsync()
}

struct Streamed {
    stream: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    left: Option<u64>,
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            return Poll::Ready(match futures::ready!(this.stream.as_mut().poll_next(cx)) {
                Some(Ok(data)) if data.is_empty() => continue,
                Some(Ok(data)) => {
                    if let Some(left) = &mut this.left {
                        match left.checked_sub(data.len() as u64) {
                            Some(rest) => *left = rest,
                            None => return Poll::Ready(Some(Err(too_long()))),
                        }
                    }
                    Some(Ok(Frame::data(data)))
                }
                Some(Err(error)) => Some(Err(error)),
                None => match this.left {
                    Some(left) if left > 0 => Some(Err(Error::corrupt(format!(
                        "the content ended {left} bytes before the length it was said to have"
                    )))),
                    _ => None,
                },
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn too_long() -> Error {
    Error::corrupt("the content is longer than the length it was said to have")
}
