//! `POST /add`: the options of an upload, and its answer. The IPFS proxy's `add` is this one in other words.
//!
//! ipfs-cluster answers 200 before it knows anything and puts every error into a trailer. Here an error that comes
//! before the first line has its status: scripts that look at it are right, those that look at the trailer
//! still see the later ones.

use super::{answer, as_json, Call, Rest};
use crate::api::http::{Body, Response};
use crate::api::multipart::{boundary, parts};
use crate::api::query::Query;
use crate::api::stream::{ndjson, OnSuccess};
use crate::cluster::{AddOptions, AddPart};
use crate::error::{Error, Result};
use crate::ipfs::unixfs::ImportOptions;
use crate::state::PinMode;
use futures::stream::BoxStream;
use futures::TryStreamExt;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use serde::Serialize;

/// Most lines of an answer that is asked for in one piece (`stream-channels=false`).
const MAX_BUFFERED_LINES: usize = 100_000;

impl Rest {
    pub(super) async fn add(&self, call: Call) -> Result<Response> {
        let options = add_options(&call.query)?;
        let streamed = call.query.flag("stream-channels", true)?;
        let upload = upload(&call.headers, call.body)?;
        reply(self.cluster.add(options, upload).await?, streamed).await
    }
}

/// The files of an upload, as they arrive.
///
/// # Errors
/// [`crate::Kind::Invalid`] when the body is no form.
pub(in crate::api) fn upload(headers: &HeaderMap, body: Body) -> Result<BoxStream<'static, Result<AddPart>>> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    Ok(parts(body, &boundary(content_type)?))
}

/// The answer to an upload: a line per object while it is added, or all of them in one piece at the end.
///
/// # Errors
/// What went wrong before the first line, and with one piece anything.
pub(in crate::api) async fn reply<T>(added: BoxStream<'static, Result<T>>, streamed: bool) -> Result<Response>
where
    T: Serialize + Send + 'static,
{
    let mut response = if streamed {
        let mut response = as_json(ndjson(added, OnSuccess::NoTrailer).await?);
        let chunked = HeaderName::from_static("x-chunked-output");
        response.headers_mut().insert(chunked, HeaderValue::from_static("1"));
        response
    } else {
        let lines: Vec<_> = added
            .try_fold(Vec::new(), |mut lines, line| async move {
                if lines.len() >= MAX_BUFFERED_LINES {
                    return Err(Error::too_large(format!(
                        "the answer has more than {MAX_BUFFERED_LINES} lines; ask for it with stream-channels=true"
                    )));
                }
                lines.push(line);
                Ok(lines)
            })
            .await?;
        answer(&lines)?
    };
    no_keeping(response.headers_mut());
    Ok(response)
}

/// ipfs-cluster closes the connection after an upload; clients written for it expect that.
fn no_keeping(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// The options of `POST /add` (reference A.6). What this version cannot do is refused before a byte is read.
pub(in crate::api) fn add_options(query: &Query) -> Result<AddOptions> {
    let not_yet = |what: &str, instead: &str| {
        Err(Error::invalid(format!("{what} is not supported by this version; {instead}")))
    };
    match query.get("layout") {
        None | Some("balanced") => {}
        Some("trickle") => return not_yet("layout=trickle", "use layout=balanced"),
        Some(_) => return Err(Error::invalid("layout parameter is invalid")),
    }
    match query.get("format") {
        None | Some("unixfs") => {}
        Some("car") => return not_yet("format=car", "add the files themselves"),
        Some(_) => return Err(Error::invalid("format parameter is invalid")),
    }
    match query.get("hash") {
        None | Some("sha2-256") => {}
        Some(other) => return not_yet(&format!("hash={other}"), "use hash=sha2-256"),
    }
    for (name, instead) in [("shard", "add without it"), ("nocopy", "add without it")] {
        if query.flag(name, false)? {
            return not_yet(&format!("{name}=true"), instead);
        }
    }
    let cid_version = match query.get("cid-version").unwrap_or("0").parse::<i64>() {
        Ok(0) => 0,
        Ok(1) => 1,
        Ok(other) => {
            return Err(Error::invalid(format!("bad CID Version: unknown CID version: {other}")));
        }
        Err(_) => return Err(Error::invalid("parameter cid-version invalid")),
    };
    // Folders need no asking: the parts of an upload say what they are.
    query.flag("recursive", false)?;
    let mut pin = query.pin_options()?;
    (pin.mode, pin.pin_update) = (PinMode::Recursive, None);
    Ok(AddOptions {
        pin,
        cid_version,
        raw_leaves: query.flag("raw-leaves", cid_version > 0)?,
        chunk_size: chunk_size(query.get("chunker"))?,
        wrap: query.flag("wrap-with-directory", false)?,
        hidden: query.flag("hidden", false)?,
        progress: query.flag("progress", false)?,
        local: query.flag("local", false)?,
        no_pin: query.flag("no-pin", false)?,
        only_hash: false,
    })
}

fn chunk_size(chunker: Option<&str>) -> Result<usize> {
    let Some(text) = chunker else { return Ok(ImportOptions::DEFAULT_CHUNK) };
    let kind = text.split('-').next().unwrap_or(text);
    match (kind, text.strip_prefix("size-")) {
        ("default", _) => Ok(ImportOptions::DEFAULT_CHUNK),
        (_, Some(size)) => match size.parse::<usize>() {
            Ok(0) => Err(Error::invalid("the chunker's size must be greater than zero")),
            Ok(size) if size <= ImportOptions::MAX_CHUNK => Ok(size),
            Ok(size) => Err(Error::invalid(format!(
                "chunker size-{size} is larger than the largest, size-{}",
                ImportOptions::MAX_CHUNK
            ))),
            Err(_) => Err(Error::invalid(format!("unrecognized chunker option: {text}"))),
        },
        ("rabin" | "buzhash", _) => Err(Error::invalid(format!(
            "chunker={text} is not supported by this version; use a chunker like \"size-262144\""
        ))),
        _ => Err(Error::invalid(format!("unrecognized chunker option: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<AddOptions> {
        add_options(&Query::parse(text)?)
    }

    #[test]
    fn defaults_are_ipfs_add_s() {
        let got = options("").expect("defaults");
        assert_eq!((got.cid_version, got.raw_leaves, got.chunk_size), (0, false, 262_144));
        assert!(!(got.wrap || got.hidden || got.progress || got.local || got.no_pin));
        assert!(options("cid-version=1").expect("v1").raw_leaves);
        assert!(!options("cid-version=1&raw-leaves=false").expect("said so").raw_leaves);
        assert_eq!(options("chunker=size-4&mode=direct").expect("chunker").chunk_size, 4);
        assert_eq!(options("mode=direct").expect("mode").pin.mode, PinMode::Recursive);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_reason() {
        for (text, message) in [
            ("format=nosuch", "format parameter is invalid"),
            ("layout=nosuch", "layout parameter is invalid"),
            ("chunker=nosuch", "unrecognized chunker option: nosuch"),
            ("cid-version=7", "bad CID Version: unknown CID version: 7"),
            ("cid-version=x", "parameter cid-version invalid"),
            ("hidden=maybe", "parameter hidden invalid"),
            ("raw-leaves=2", "parameter raw-leaves invalid"),
        ] {
            assert_eq!(options(text).expect_err(text).message(), message);
        }
        for text in
            ["layout=trickle", "format=car", "hash=sha3-512", "shard=true", "nocopy=1", "chunker=rabin-1-2-3"]
        {
            let error = options(text).expect_err(text);
            assert!(error.message().contains("is not supported by this version"), "{error}");
        }
        for text in ["chunker=size-0", "chunker=size-", "chunker=size--1", "chunker=size-999999999"] {
            options(text).expect_err(text);
        }
    }
}
