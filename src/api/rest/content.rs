//! `GET /ipfs/<cid>[/path]`: reading content, which ipfs-cluster's API lacks. `pinfold get`, `cat` and `ls` use it.
//!
//! | what | answer |
//! |---|---|
//! | a file | its bytes, with length, `Range` and an `ETag` (content never changes) |
//! | a folder, or anything with `format=json` | one JSON object: `cid`, `size`, `kind` and `entries`, each a [`Listed`] (of a file: itself) |
//! | anything with `format=tar` | a tar archive, made while it is sent |
//!
//! `X-Pinfold-Kind` says `file`, `directory` or `symlink`. Content comes from strangers: it is never
//! labelled as anything a browser would run. It must never: write, pin, or hold a file in memory.

use super::{as_json, Call, Rest};
use crate::api::http::{empty, full, streamed, Response};
use crate::api::json;
use crate::api::query::decode_cid;
use crate::api::tar::{Archive, Source};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::ipfs::{DirEntry, NodeKind};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::StreamExt;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// Longest path, bytes.
const MAX_PATH: usize = 4096;
/// Entries of a listing that are ready together are sent together, up to this many.
const LINES_TOGETHER: usize = 128;
/// The header that says what the path points to.
const KIND: HeaderName = HeaderName::from_static("x-pinfold-kind");

/// An entry of a folder, as `format=json` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Name in the folder.
    pub name: String,
    /// CID.
    pub cid: String,
    /// Content in bytes; 0 for folders.
    pub size: u64,
    /// `file`, `directory` or `symlink`.
    pub kind: String,
    /// Where a symbolic link points to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl From<DirEntry> for Listed {
    fn from(entry: DirEntry) -> Self {
        Listed {
            kind: kind_name(entry.kind).into(),
            name: entry.name,
            cid: entry.cid.to_string(),
            size: entry.size,
            target: entry.target,
        }
    }
}

fn kind_name(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Directory => "directory",
        NodeKind::Symlink => "symlink",
    }
}

#[async_trait]
impl Source for Cluster {
    async fn ls(&self, path: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)> {
        Cluster::ls(self, path).await
    }
    async fn cat(&self, path: &str) -> Result<BoxStream<'static, Result<Bytes>>> {
        Cluster::cat(self, path, None).await
    }
}

impl Rest {
    pub(super) async fn content(&self, call: &Call) -> Result<Response> {
        let path = content_path(&call.path)?;
        let (entry, entries) = self.cluster.ls(&path).await?;
        let kind = entry.kind;
        let mut response = match (call.query.get("format"), kind) {
            (Some("tar"), _) => self.archive(call, entry, entries),
            (Some("json"), NodeKind::File | NodeKind::Symlink) => {
                let itself =
                    DirEntry { name: call.path.last().cloned().unwrap_or_default(), ..entry.clone() };
                listing(entry, stream::iter([Ok(itself)]).boxed()).await?
            }
            (Some("json") | None, NodeKind::Directory) => listing(entry, entries).await?,
            (None, NodeKind::Symlink) => Response::new(full(entry.target.unwrap_or_default())),
            (None, NodeKind::File) => self.file(call, &path, &entry).await?,
            (Some(other), _) => {
                return Err(Error::invalid(format!(
                    "parameter format invalid: \"{other}\" is neither \"json\" nor \"tar\""
                )))
            }
        };
        let headers = response.headers_mut();
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(KIND, HeaderValue::from_static(kind_name(kind)));
        Ok(response)
    }

    fn archive(
        &self,
        call: &Call,
        entry: DirEntry,
        entries: BoxStream<'static, Result<DirEntry>>,
    ) -> Response {
        let name = call.path.last().cloned().unwrap_or_default();
        let archive = Archive::new(Arc::new(self.cluster.clone()), &name, 0, entry, entries);
        let mut response = Response::new(streamed(archive.into_stream(), None));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        response
    }

    async fn file(&self, call: &Call, path: &str, entry: &DirEntry) -> Result<Response> {
        let tag = HeaderValue::try_from(format!("\"{}\"", entry.cid)).ok();
        let asked = &call.headers;
        let known = asked.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|v| {
            v.split(',')
                .map(|t| t.trim().trim_start_matches("W/"))
                .any(|t| t == "*" || tag.as_ref().is_some_and(|tag| tag == t))
        });
        let mut response = Response::new(empty());
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(tag) = tag.clone() {
            headers.insert(header::ETAG, tag);
        }
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        // A range of another version would be wrong; of content there is only one.
        let same = asked.get(header::IF_RANGE).is_none_or(|v| Some(v) == tag.as_ref());
        let range = match wanted_range(asked, entry.size) {
            Wanted::Part(range) if same => Some(range),
            Wanted::Nothing if same => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                let size = HeaderValue::try_from(format!("bytes */{}", entry.size));
                response.headers_mut().extend(size.ok().map(|v| (header::CONTENT_RANGE, v)));
                return Ok(response);
            }
            _ => None,
        };
        let length = range.as_ref().map_or(entry.size, |r| r.end - r.start);
        if let Some(range) = &range {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {}-{}/{}", range.start, range.end - 1, entry.size);
            response
                .headers_mut()
                .extend(HeaderValue::try_from(text).ok().map(|v| (header::CONTENT_RANGE, v)));
        }
        let body = if call.head || length == 0 {
            // The length is told, the content not even opened.
            streamed(stream::pending(), Some(length))
        } else {
            streamed(self.cluster.cat(path, range).await?, Some(length))
        };
        Ok(response.map(|_| body))
    }
}

/// What a listing begins with.
#[derive(Serialize)]
struct ListingHead {
    cid: String,
    size: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    entries: [(); 0],
}

/// A listing: one JSON object, written while the folder is read. An error after its beginning cuts the
/// connection, because half a JSON text is no listing.
async fn listing(entry: DirEntry, mut entries: BoxStream<'static, Result<DirEntry>>) -> Result<Response> {
    let first = entries.next().await.transpose()?;
    let head = ListingHead {
        cid: entry.cid.to_string(),
        size: entry.size,
        kind: kind_name(entry.kind),
        target: entry.target,
        entries: [],
    };
    let mut head = json::to_vec(&head)?;
    head.truncate(head.len() - "]}\n".len());
    let rest = stream::iter(first.map(Ok)).chain(entries).enumerate().map(|(n, entry)| {
        let mut line = if n == 0 { Vec::new() } else { vec![b','] };
        json::append(&mut line, &Listed::from(entry?))?;
        Ok::<_, Error>(Bytes::from(line))
    });
    let pieces = stream::iter([Ok::<_, Error>(Bytes::from(head))])
        .chain(rest)
        .chain(stream::iter([Ok(Bytes::from_static(b"]}\n"))]))
        .ready_chunks(LINES_TOGETHER)
        .map(|pieces| {
            let mut all = BytesMut::new();
            for piece in pieces {
                all.extend_from_slice(&piece?);
            }
            Ok(all.freeze())
        });
    Ok(as_json(Response::new(streamed(pieces, None))))
}

/// `<cid>/a/b` of `/ipfs/<cid>/a/b`, checked.
fn content_path(path: &[String]) -> Result<String> {
    let components = path.get(1..).unwrap_or_default();
    let (root, names) =
        components.split_first().ok_or_else(|| Error::invalid("error parsing path: no CID"))?;
    let mut all = decode_cid(root)?.to_string();
    for name in names {
        if ["", ".", ".."].contains(&name.as_str()) || name.contains(['/', '\0']) {
            return Err(Error::invalid(format!("error parsing path: \"{name}\" is not a name in a folder")));
        }
        all.push('/');
        all.push_str(name);
    }
    if all.len() > MAX_PATH {
        return Err(Error::invalid(format!("error parsing path: it is longer than {MAX_PATH} bytes")));
    }
    Ok(all)
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    Nothing,
}

/// What the `Range` header asks for. Several ranges, or what is not understood, mean everything (RFC 9110).
fn wanted_range(headers: &HeaderMap, size: u64) -> Wanted {
    let Some(text) = headers.get(header::RANGE).and_then(|v| v.to_str().ok()) else { return Wanted::All };
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Wanted::All;
    };
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
    let range = match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            Some(n) => size.saturating_sub(n)..size,
            None => return Wanted::All,
        },
        (first, "") => match number(first) {
            Some(start) => start..size,
            None => return Wanted::All,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(start), Some(end)) if start <= end => start..end.saturating_add(1).min(size),
            _ => return Wanted::All,
        },
    };
    if range.start < range.end {
        Wanted::Part(range)
    } else {
        Wanted::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let of = |text: &str, size| {
            let value = HeaderValue::from_str(text).expect("value");
            wanted_range(&HeaderMap::from_iter([(header::RANGE, value)]), size)
        };
        assert_eq!(of("bytes=0-0", 10), Wanted::Part(0..1));
        assert_eq!(of("bytes=5-", 10), Wanted::Part(5..10));
        assert_eq!(of("bytes=-3", 10), Wanted::Part(7..10));
        assert_eq!(of("bytes=-30", 10), Wanted::Part(0..10));
        assert_eq!(of("bytes=0-18446744073709551615", 10), Wanted::Part(0..10));
        for nothing in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(of(nothing, 10), Wanted::Nothing, "{nothing}");
        }
        for all in ["bytes=0-1,3-4", "lines=1-2", "bytes=5-2", "bytes=a-b", "bytes=-", "bytes=+1-2"] {
            assert_eq!(of(all, 10), Wanted::All, "{all}");
        }
        assert_eq!(of("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn a_listing_is_one_json_text() {
        let cid = decode_cid("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o").expect("cid");
        let entry = |name: &str, kind| DirEntry { name: name.into(), cid, size: 3, kind, target: None };
        let play = |entries: Vec<Result<DirEntry>>| {
            crate::runtime::block_on(async {
                let folder = entry("", NodeKind::Directory);
                let body = listing(folder, stream::iter(entries).boxed()).await?.into_body();
                let text = http_body_util::BodyExt::collect(body).await?.to_bytes();
                Ok::<_, Error>(serde_json::from_slice::<serde_json::Value>(&text).expect("JSON"))
            })
        };
        let empty = play(vec![]).expect("empty");
        assert_eq!(
            (&empty["kind"], empty["entries"].as_array().map(Vec::len)),
            (&"directory".into(), Some(0))
        );
        let two =
            play(vec![Ok(entry("a\"", NodeKind::File)), Ok(entry("b", NodeKind::Directory))]).expect("two");
        assert_eq!(two["entries"][0]["name"], "a\"");
        assert_eq!(two["entries"][1]["kind"], "directory");
        let gone = || Err(Error::io("gone"));
        play(vec![gone()]).expect_err("an error in front");
        play(vec![Ok(entry("a", NodeKind::File)), gone()]).expect_err("an error behind: no whole JSON");
    }

    #[test]
    fn paths() {
        let of = |parts: &[&str]| content_path(&parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        let cid = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
        assert_eq!(of(&["ipfs", cid, "a b", "c"]).expect("path"), format!("{cid}/a b/c"));
        for bad in [&["ipfs"][..], &["ipfs", "x"], &["ipfs", cid, ".."], &["ipfs", cid, "a/b"]] {
            of(bad).expect_err("bad");
        }
    }
}
