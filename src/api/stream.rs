//! Streamed answers: one JSON object per line, an error at the end as a trailer.
//!
//! The contract is ipfs-cluster's. Nothing to send and no error is 204. An error before the first line is an
//! ordinary error answer. After the first line the status is spoken for: the body ends and the trailer
//! `X-Stream-Error` says why; on success it is present and empty (except on `POST /add`, which then sends none).
//!
//! Lines that are ready together leave together, up to [`CHUNK`] bytes; a line never waits for the next one.
//! It must never hold more than one chunk, whatever the size of the list.

use super::http::{empty, Response};
use super::json;
use crate::error::{Error, Result};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, TRAILER};
use hyper::StatusCode;
use serde::Serialize;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Lines are sent as soon as they fill this many bytes.
const CHUNK: usize = 16 << 10;
/// Longest error text that is put into a trailer, bytes; headers are no place for a novel.
const MAX_ERROR: usize = 4096;
/// The trailer's name.
const STREAM_ERROR: HeaderName = HeaderName::from_static("x-stream-error");

/// What a successful stream has to say at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSuccess {
    /// An empty `X-Stream-Error`.
    EmptyTrailer,
    /// Nothing.
    NoTrailer,
}

/// Answers with a stream of JSON lines, once the first one (or the end) is there.
///
/// # Errors
/// The stream's, when it comes before any line.
pub async fn ndjson<T>(mut stream: BoxStream<'static, Result<T>>, on_success: OnSuccess) -> Result<Response>
where
    T: Serialize + Send + 'static,
{
    let first = stream.next().await.transpose()?;
    let mut response = match first {
        None => {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Some(item) => {
            let mut buffer = Vec::new();
            json::append(&mut buffer, &item)?;
            Response::new(Lines { stream: Some(stream), buffer, error: None, on_success }.boxed_unsync())
        }
    };
    response.headers_mut().insert(TRAILER, HeaderValue::from_static("X-Stream-Error"));
    Ok(response)
}

struct Lines<T> {
    /// `None` once it has ended.
    stream: Option<BoxStream<'static, Result<T>>>,
    buffer: Vec<u8>,
    error: Option<Error>,
    on_success: OnSuccess,
}

impl<T: Serialize> Lines<T> {
    fn take(&mut self) -> Poll<Option<Result<Frame<Bytes>>>> {
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.buffer).into()))))
    }

    fn trailers(&mut self) -> Option<HeaderMap> {
        let value = match (self.error.take(), self.on_success) {
            (Some(error), _) => {
                log::debug!("a streamed answer ends in an error: {error}");
                header_text(error.message())
            }
            (None, OnSuccess::EmptyTrailer) => HeaderValue::from_static(""),
            (None, OnSuccess::NoTrailer) => return None,
        };
        // Said once: the next poll is the end.
        self.on_success = OnSuccess::NoTrailer;
        Some(HeaderMap::from_iter([(STREAM_ERROR, value)]))
    }
}

impl<T: Serialize> hyper::body::Body for Lines<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        while let Some(stream) = &mut this.stream {
            if this.buffer.len() >= CHUNK {
                return this.take();
            }
            match stream.as_mut().poll_next(cx) {
                Poll::Pending if this.buffer.is_empty() => return Poll::Pending,
                Poll::Pending => return this.take(),
                Poll::Ready(Some(Ok(item))) => {
                    if let Err(error) = json::append(&mut this.buffer, &item) {
                        (this.stream, this.error) = (None, Some(error));
                    }
                }
                Poll::Ready(Some(Err(error))) => (this.stream, this.error) = (None, Some(error)),
                Poll::Ready(None) => this.stream = None,
            }
        }
        if !this.buffer.is_empty() {
            return this.take();
        }
        Poll::Ready(this.trailers().map(|t| Ok(Frame::trailers(t))))
    }
}

/// Text as a header value: control characters become spaces, and what is too long is cut.
pub(super) fn header_text(text: &str) -> HeaderValue {
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while clean.len() > MAX_ERROR {
        clean.pop();
    }
    // An empty value would say that all went well.
    let clean = if clean.trim().is_empty() { "unknown error" } else { clean.trim() };
    HeaderValue::from_bytes(clean.as_bytes()).unwrap_or(HeaderValue::from_static("unknown error"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn play(items: Vec<Result<u32>>, on_success: OnSuccess) -> Result<(u16, String, Option<String>)> {
        crate::runtime::block_on(async {
            let response = ndjson(stream::iter(items).boxed(), on_success).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?;
            let trailer = body
                .trailers()
                .and_then(|t| t.get("x-stream-error"))
                .map(|v| v.to_str().expect("text").to_owned());
            Ok((status, String::from_utf8(body.to_bytes().to_vec()).expect("utf-8"), trailer))
        })
    }

    #[test]
    fn the_contract_of_a_stream() {
        let boom = || Err(Error::io("disk\r\non fire"));
        let empty = OnSuccess::EmptyTrailer;
        assert_eq!(play(vec![], empty), Ok((204, String::new(), None)));
        assert_eq!(play(vec![Ok(1), Ok(2)], empty), Ok((200, "1\n2\n".into(), Some(String::new()))));
        assert_eq!(play(vec![Ok(1)], OnSuccess::NoTrailer), Ok((200, "1\n".into(), None)));
        assert_eq!(play(vec![boom(), Ok(1)], empty), Err(Error::io("disk\r\non fire")));
        for kind in [empty, OnSuccess::NoTrailer] {
            let played = play(vec![Ok(1), boom(), Ok(2)], kind);
            assert_eq!(played, Ok((200, "1\n".into(), Some("disk  on fire".into()))));
        }
        assert_eq!(play(vec![Ok(1), Err(Error::io(""))], empty).expect("ok").2, Some("unknown error".into()));
    }

    #[test]
    fn a_long_list_goes_in_small_chunks() {
        crate::runtime::block_on(async {
            let items = stream::iter((0..100_000_u32).map(Ok)).boxed();
            let mut body = ndjson(items, OnSuccess::EmptyTrailer).await.expect("answer").into_body();
            let (mut chunks, mut bytes) = (0, 0);
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.expect("frame").into_data() {
                    assert!(data.len() < CHUNK + 16);
                    chunks += 1;
                    bytes += data.len();
                }
            }
            assert!(chunks < bytes / CHUNK + 2, "{chunks} chunks for {bytes} bytes");
        });
    }
}
