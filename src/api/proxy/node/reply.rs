//! Kubo's shapes of an answer.
//!
//! One object (`application/json`, the body a chunk and a newline), lines (`X-Chunked-Output: 1`) or bytes
//! (`X-Stream-Output: 1`, with `X-Content-Length` where it is known). An error before the first byte is status 500 and
//! `{"Message":…,"Code":0,"Type":"error"}`; a later one ends the body with the trailer `X-Stream-Error`. What a client
//! got wrong is plain text, 400, 404 or 405.
//!
//! Lines that are ready together leave together, up to [`GATHER`] bytes. A stream holds nothing else, and what feeds it is
//! asked only when the client reads: that is the back-pressure.

use super::Deadline;
use crate::api::http::{full, Response};
use crate::api::json;
use crate::api::proxy::words;
use crate::api::stream::header_text;
use crate::error::{Error, Result};
use crate::runtime;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::header::{
    HeaderMap, HeaderName, HeaderValue, ALLOW, CONTENT_TYPE, SERVER, TRAILER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::StatusCode;
use serde::Serialize;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// Small pieces are gathered up to this many bytes before they are sent.
const GATHER: usize = 16 << 10;
/// The trailer's name.
const STREAM_ERROR: HeaderName = HeaderName::from_static("x-stream-error");
/// What every answer to a call is labelled with.
const AGENT: &str = concat!("pinfold/", env!("CARGO_PKG_VERSION"));
/// What Kubo says when the client's `timeout` is over.
const DEADLINE: &str = "context deadline exceeded";

/// Bytes of an answer as they come.
pub(super) type Pieces = BoxStream<'static, Result<Bytes>>;

/// An answer.
pub(super) enum Reply {
    /// One object.
    Whole(Bytes),
    /// Objects, one per line, or lines of text.
    Lines(Pieces),
    /// Bytes of this type, and how many if that is known.
    Stream(Pieces, &'static str, Option<u64>),
}

impl Reply {
    /// An object as JSON.
    pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<Reply> {
        Ok(Reply::Whole(json::to_vec(value)?.into()))
    }

    /// An object as JSON or, when the client asked for that, as text.
    pub(super) fn either<T: Serialize + ?Sized>(
        text: bool,
        value: &T,
        words: impl FnOnce() -> String,
    ) -> Result<Reply> {
        if text {
            return Ok(Reply::Whole(words().into()));
        }
        Reply::json(value)
    }

    /// No line at all.
    pub(super) fn nothing() -> Reply {
        Reply::Lines(stream::empty().boxed())
    }

    /// Lines from a stream of objects; `words` makes text of one when the client asked for that.
    pub(super) fn lines<T: Serialize + Send + 'static>(
        text: bool,
        objects: impl futures::Stream<Item = Result<T>> + Send + 'static,
        words: impl Fn(&T) -> String + Send + 'static,
    ) -> Reply {
        Reply::Lines(
            objects
                .map(move |object| {
                    let object = object?;
                    if text {
                        return Ok(words(&object).into());
                    }
                    json::to_vec(&object).map(Bytes::from)
                })
                .boxed(),
        )
    }

    /// The answer, once its first byte (or its end, or its failure) is there.
    pub(super) async fn response(self, text: bool, deadline: Deadline) -> Response {
        let media = if text { "text/plain" } else { "application/json" };
        let (pieces, media, length, mark) = match self {
            Reply::Whole(bytes) => (stream::iter([Ok(bytes)]).boxed(), media, None, None),
            Reply::Lines(pieces) => (pieces, media, None, Some("x-chunked-output")),
            Reply::Stream(pieces, media, length) => (pieces, media, length, Some("x-stream-output")),
        };
        // Fused: an empty stream is asked once for the first byte and once more by the body.
        let mut pieces = until(deadline, pieces).fuse().boxed();
        let first = match pieces.next().await {
            Some(Err(error)) => return failure(&error),
            Some(Ok(first)) => first,
            None => Bytes::new(),
        };
        let mut response =
            Response::new(Answer { pieces: Some(pieces), ready: first.into(), error: None }.boxed_unsync());
        let headers = response.headers_mut();
        dress(headers, HeaderValue::from_static(media));
        if let Some(mark) = mark {
            headers.insert(HeaderName::from_static(mark), HeaderValue::from_static("1"));
        }
        if let Some(length) = length {
            headers.insert(HeaderName::from_static("x-content-length"), HeaderValue::from(length));
        }
        response
    }
}

/// What every answer to a call carries.
fn dress(headers: &mut HeaderMap, media: HeaderValue) {
    headers.insert(CONTENT_TYPE, media);
    headers.insert(SERVER, HeaderValue::from_static(AGENT));
    headers.insert(TRAILER, HeaderValue::from_static("X-Stream-Error"));
}

/// A call that failed before its first byte.
pub(super) fn failure(error: &Error) -> Response {
    let mut response = words::refuse_with(StatusCode::INTERNAL_SERVER_ERROR, error.message());
    dress(response.headers_mut(), HeaderValue::from_static("application/json"));
    // Kubo ends the object with a newline, ipfs-cluster's own words do not.
    response.map(|body| {
        body.map_frame(|frame| frame.map_data(|data| [&data[..], b"\n"].concat().into())).boxed_unsync()
    })
}

fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(full(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// There is no such call.
pub(super) fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found")
}

/// Only POST calls.
pub(super) fn not_allowed() -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "405 - Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("OPTIONS, POST"));
    response
}

/// The request makes no sense.
pub(super) fn bad_request(text: &str) -> Response {
    plain(StatusCode::BAD_REQUEST, text)
}

/// Work within the client's deadline.
pub(super) async fn within<T>(deadline: Deadline, work: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(at) = deadline else { return work.await };
    let left = at.saturating_duration_since(Instant::now());
    smol::future::or(work, async {
        runtime::sleep(left).await;
        Err(Error::timeout(DEADLINE))
    })
    .await
}

/// A stream that fails at the client's deadline.
fn until(deadline: Deadline, pieces: Pieces) -> Pieces {
    if deadline.is_none() {
        return pieces;
    }
    stream::unfold(Some(pieces), move |pieces| async move {
        let mut pieces = pieces?;
        match within(deadline, async { pieces.next().await.transpose() }).await {
            Ok(Some(piece)) => Some((Ok(piece), Some(pieces))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

/// A body that ends in a trailer when it fails.
struct Answer {
    /// `None` once it has ended.
    pieces: Option<Pieces>,
    ready: Vec<u8>,
    error: Option<Error>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        while let Some(pieces) = &mut this.pieces {
            if this.ready.len() >= GATHER {
                break;
            }
            match pieces.as_mut().poll_next(cx) {
                Poll::Pending if this.ready.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                // A large piece goes as it is.
                Poll::Ready(Some(Ok(piece))) if this.ready.is_empty() && piece.len() >= GATHER => {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Poll::Ready(Some(Ok(piece))) => this.ready.extend_from_slice(&piece),
                Poll::Ready(Some(Err(error))) => (this.pieces, this.error) = (None, Some(error)),
                Poll::Ready(None) => this.pieces = None,
            }
        }
        if !this.ready.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.ready).into()))));
        }
        Poll::Ready(this.error.take().map(|error| {
            log::debug!("an answer ends in an error: {error}");
            Ok(Frame::trailers(HeaderMap::from_iter([(STREAM_ERROR, header_text(error.message()))])))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;
    use std::time::Duration;

    fn play(reply: Reply, deadline: Deadline) -> (u16, HeaderMap, String, Option<String>) {
        block_on(async {
            let response = reply.response(false, deadline).await;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = response.into_body().collect().await.expect("body");
            let trailer = body.trailers().and_then(|t| t.get("x-stream-error")).cloned();
            let text = String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8");
            (status, headers, text, trailer.map(|v| v.to_str().expect("text").to_owned()))
        })
    }

    fn pieces(list: Vec<Result<&'static str>>) -> Pieces {
        stream::iter(list.into_iter().map(|piece| piece.map(Bytes::from))).boxed()
    }

    #[test]
    fn an_error_is_a_status_before_the_first_byte_and_a_trailer_after() {
        let boom = || Err(Error::io("boom"));
        let (status, headers, text, trailer) = play(Reply::Lines(pieces(vec![Ok("1\n"), Ok("2\n")])), None);
        assert_eq!((status, text.as_str(), trailer), (200, "1\n2\n", None));
        assert_eq!(headers["x-chunked-output"], "1");
        assert_eq!(headers["trailer"], "X-Stream-Error");
        let (status, _, text, trailer) = play(Reply::Lines(pieces(vec![Ok("1\n"), boom(), Ok("2\n")])), None);
        assert_eq!((status, text.as_str(), trailer.as_deref()), (200, "1\n", Some("boom")));
        let (status, headers, text, _) =
            play(Reply::Stream(pieces(vec![boom()]), "text/plain", Some(4)), None);
        assert_eq!((status, text.as_str()), (500, "{\"Message\":\"boom\",\"Code\":0,\"Type\":\"error\"}\n"));
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(play(Reply::nothing(), None).2, "");
    }

    #[test]
    fn the_client_s_deadline_ends_it() {
        let soon = || Some(Instant::now() + Duration::from_millis(30));
        let slow = |first: Vec<Result<&'static str>>| pieces(first).chain(stream::pending()).boxed();
        let (status, _, text, _) = play(Reply::Lines(slow(vec![])), soon());
        assert_eq!(status, 500);
        assert!(text.contains(DEADLINE), "{text}");
        let (status, _, text, trailer) = play(Reply::Lines(slow(vec![Ok("1\n")])), soon());
        assert_eq!((status, text.as_str(), trailer.as_deref()), (200, "1\n", Some(DEADLINE)));
        let late = block_on(within(soon(), std::future::pending::<Result<()>>()));
        assert_eq!(late.expect_err("late").message(), DEADLINE);
    }
}
