//! `block/put` and `dag/put` with `pin=true`: stored by the IPFS side, pinned by the cluster.
//!
//! The IPFS side is told not to pin (its own pins are not the cluster's), and every CID that its answer names is
//! pinned in the cluster before the line goes on to the client.

use super::{words, Call, Proxy};
use crate::api::http::{Response, ResponseBody};
use crate::api::query::parse_cid;
use crate::api::stream::{ndjson, OnSuccess};
use crate::api::types::PinOptions;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use bytes::{Buf, BytesMut};
use futures::stream::{self, BoxStream};
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::{StatusCode, Uri};
use serde_json::Value;

/// Longest line of the IPFS side's answer, bytes.
const MAX_LINE: usize = 64 << 10;

impl Proxy {
    pub(super) async fn put(&self, call: Call) -> Result<Response> {
        let mut request = call.into_request();
        *request.uri_mut() = without_pin(request.uri())?;
        let response = self.pass(request).await;
        if response.status() != StatusCode::OK {
            return Ok(response);
        }
        let lines = pinned(self.cluster.clone(), response.into_body());
        Ok(words::streamed(ndjson(lines, OnSuccess::NoTrailer).await?))
    }
}

/// The same request with `pin=false`.
fn without_pin(uri: &Uri) -> Result<Uri> {
    let options = uri.query().unwrap_or("").split('&').filter(|o| !o.is_empty() && !o.starts_with("pin="));
    let query = options.chain(["pin=false"]).collect::<Vec<_>>().join("&");
    let text = format!("{}?{query}", uri.path());
    text.parse().map_err(|e| Error::invalid(format!("{text:?} is no request: {e}")))
}

/// The lines of an answer, each given on when what it names is pinned.
fn pinned(cluster: Cluster, body: ResponseBody) -> BoxStream<'static, Result<Value>> {
    let reader = Lines { body: Some(body), buffer: BytesMut::new() };
    stream::unfold(Some((reader, cluster)), |state| async move {
        let (mut reader, cluster) = state?;
        let line = match reader.next().await {
            Ok(None) => return None,
            Ok(Some(line)) => pin_named(&cluster, line).await,
            Err(error) => Err(error),
        };
        let next = line.is_ok().then_some((reader, cluster));
        Some((line, next))
    })
    .boxed()
}

async fn pin_named(cluster: &Cluster, line: Value) -> Result<Value> {
    let cid = line["Key"].as_str().or_else(|| line["Cid"]["/"].as_str());
    let cid = cid.ok_or_else(|| Error::ipfs(format!("the IPFS side stored something it does not name: {line}")))?;
    let cid = parse_cid(cid)?;
    let options = cluster.options_of(&cid, PinOptions::default())?;
    cluster.pin(cid, options).await?;
    Ok(line)
}

/// JSON values in a body, one per line.
struct Lines {
    body: Option<ResponseBody>,
    buffer: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                if !line.iter().all(u8::is_ascii_whitespace) {
                    return value(&line).map(Some);
                }
                continue;
            }
            if self.buffer.len() > MAX_LINE {
                return Err(Error::ipfs(format!("the IPFS side answers with a line of more than {MAX_LINE} bytes")));
            }
            let frame = match &mut self.body {
                Some(body) => body.frame().await,
                None => None,
            };
            match frame {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        if let Some(words) = trailers.get("x-stream-error").filter(|w| !w.is_empty()) {
                            return Err(Error::ipfs(String::from_utf8_lossy(words.as_bytes())));
                        }
                    }
                },
                None => {
                    self.body = None;
                    let last = self.buffer.split();
                    let blank = last.iter().all(u8::is_ascii_whitespace);
                    return if blank { Ok(None) } else { value(&last).map(Some) };
                }
            }
        }
    }
}

fn value(line: &[u8]) -> Result<Value> {
    serde_json::from_slice(line)
        .map_err(|e| Error::ipfs(format!("the IPFS side answers something that is not understood: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http;
    use crate::runtime::block_on;
    use bytes::Bytes;

    #[test]
    fn the_ipfs_side_is_told_not_to_pin() {
        let told = |text: &str| without_pin(&text.parse().expect(text)).expect(text).to_string();
        assert_eq!(told("/api/v0/block/put?pin=true"), "/api/v0/block/put?pin=false");
        assert_eq!(told("/api/v0/dag/put?a=1&pin=1&b=pin"), "/api/v0/dag/put?a=1&b=pin&pin=false");
    }

    #[test]
    fn lines_are_found_however_they_arrive() {
        let read = |pieces: &[&'static str]| {
            let pieces: Vec<_> = pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))).collect();
            let body = http::streamed(stream::iter(pieces), None);
            let mut lines = Lines { body: Some(body), buffer: BytesMut::new() };
            block_on(async {
                let mut out = Vec::new();
                while let Some(line) = lines.next().await? {
                    out.push(line.to_string());
                }
                Ok::<_, Error>(out)
            })
        };
        assert_eq!(read(&["{\"a\":", "1}\n\n{\"b\"", ":2}"]).expect("lines"), ["{\"a\":1}", "{\"b\":2}"]);
        read(&["{\"a\":"]).expect_err("half a line");
        assert_eq!(read(&[]).expect("nothing"), Vec::<String>::new());
    }
}
