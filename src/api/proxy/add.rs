//! `add`: Kubo's options and lines around the one import that REST's `/add` uses.
//!
//! Kubo's names for options become ours; what this version cannot do, or what makes no sense in a cluster, is refused
//! in words before a byte is read, for an option that is ignored gives another CID than the one that was asked for.

use super::{Call, Proxy};
use crate::api::http::Response;
use crate::api::query::Query;
use crate::api::rest::add::{add_options, reply, upload};
use crate::api::types::AddedOutput;
use crate::cluster::AddOptions;
use crate::error::{Error, Result};
use futures::StreamExt;
use serde::Serialize;

/// Options of Kubo's that are refused when they are given as anything but off, and why.
const REFUSED: [(&str, &str); 10] = [
    ("trickle", "the trickle layout is not supported by this version; add without it"),
    ("nocopy", "the file is copied to the cluster's peers, none of which has it; add without it"),
    ("fscache", "there is no file store in a cluster; add without it"),
    ("inline", "blocks inside of CIDs are not supported by this version; add without it"),
    ("to-files", "files of MFS belong to one node, not to a cluster; add without it, then use `ipfs files cp`"),
    ("preserve-mode", "modes are not kept by this version; add without it"),
    ("preserve-mtime", "times are not kept by this version; add without it"),
    ("mode", "modes are not kept by this version; add without it"),
    ("mtime", "times are not kept by this version; add without it"),
    ("mtime-nsecs", "times are not kept by this version; add without it"),
];
/// Options that would give other folders and files than the ones this version builds.
const SHAPES: [&str; 4] =
    ["max-file-links", "max-directory-links", "max-hamt-fanout", "hamt-directory-size-threshold"];

/// A line of the answer.
#[derive(Serialize)]
struct Line {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Hash", skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(rename = "Bytes", skip_serializing_if = "is_zero")]
    bytes: u64,
    #[serde(rename = "Size", skip_serializing_if = "Option::is_none")]
    size: Option<String>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Proxy {
    pub(super) async fn add(&self, call: Call) -> Result<Response> {
        let options = options(&call.query)?;
        let streamed = call.query.flag("stream-channels", true)?;
        let silent = call.query.flag("silent", false)?;
        let wrap = options.wrap;
        let upload = upload(&call.parts.headers, call.body).map_err(|e| e.context("error reading request"))?;
        let added = self.cluster.add(options, upload).await?;
        let lines = added.filter_map(move |line| {
            let shown = if silent { line.err().map(Err) } else { Some(line.map(|l| as_kubo(l, wrap))) };
            std::future::ready(shown)
        });
        let mut response = reply(lines.boxed(), streamed).await?;
        if response.status() == hyper::StatusCode::NO_CONTENT {
            *response.status_mut() = hyper::StatusCode::OK;
        }
        Ok(response)
    }
}

/// A line as Kubo writes it: a file without a name is called by its CID.
fn as_kubo(line: AddedOutput, wrap: bool) -> Line {
    let name = match &line.cid {
        Some(cid) if line.name.is_empty() && !wrap => cid.clone(),
        _ => line.name,
    };
    let size = line.cid.is_some().then(|| line.size.to_string());
    Line { name, hash: line.cid, bytes: line.bytes, size }
}

fn options(query: &Query) -> Result<AddOptions> {
    for (name, why) in REFUSED {
        let off = query.get(name).is_none_or(|v| ["false", "0"].contains(&v));
        if !off || (name == "to-files" && query.all(name).next().is_some()) {
            return Err(Error::invalid(format!("{name}: {why}")));
        }
    }
    if let Some(name) = SHAPES.iter().find(|name| query.get(name).is_some()) {
        return Err(Error::invalid(format!("{name} is not supported by this version; add without it")));
    }
    let mut options = add_options(query)?;
    options.no_pin |= !query.flag("pin", true)?;
    options.only_hash = query.flag("only-hash", false)?;
    if let Some(name) = query.get("pin-name") {
        options.pin.name = name.to_owned();
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<AddOptions> {
        options(&Query::parse(text).expect("query"))
    }

    #[test]
    fn kubo_s_options_become_ours() {
        let got = of("pin=false&pin-name=x&cid-version=1&wrap-with-directory=true&progress=true&quiet=true")
            .expect("options");
        assert!(got.no_pin && got.wrap && got.progress && got.raw_leaves && !got.only_hash);
        assert_eq!(got.pin.name, "x");
        // What the command line sends when nothing was asked for.
        let got = of("inline=false&inline-limit=32&hash=sha2-256&only-hash=true&trickle=false").expect("options");
        assert!(got.only_hash && !got.no_pin);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_reason() {
        for text in ["trickle=true", "nocopy=1", "inline=true", "mtime=1", "max-file-links=3", "to-files="] {
            let (name, _) = text.split_once('=').expect("an option");
            let error = of(text).expect_err(text);
            assert!(error.message().starts_with(name) && error.message().contains("add without it"), "{error}");
        }
    }

    #[test]
    fn lines_are_kubo_s() {
        let line = |name: &str, cid: Option<&str>, bytes, size| AddedOutput {
            name: name.into(),
            cid: cid.map(Into::into),
            bytes,
            size,
            allocations: Vec::new(),
        };
        let text = |line, wrap| serde_json::to_string(&as_kubo(line, wrap)).expect("JSON");
        assert_eq!(text(line("f", None, 7, 0), false), r#"{"Name":"f","Bytes":7}"#);
        assert_eq!(text(line("f", Some("Qm"), 0, 20), false), r#"{"Name":"f","Hash":"Qm","Size":"20"}"#);
        assert_eq!(text(line("", Some("Qm"), 0, 20), false), r#"{"Name":"Qm","Hash":"Qm","Size":"20"}"#);
        assert_eq!(text(line("", Some("Qm"), 0, 20), true), r#"{"Name":"","Hash":"Qm","Size":"20"}"#);
    }
}
