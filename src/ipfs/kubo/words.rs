//! A daemon's refusals as sentences: its own words, and what to do about them where we know.
//!
//! What it says is quoted, short and on one line, behind ipfs-cluster's `IPFS error (…). Code: …. Message: …`, which
//! scripts look for. The advice comes after it. The kind of the error is told by the words too, as far as they tell.

use crate::error::{Error, Kind};
use hyper::StatusCode;
use serde::Deserialize;

/// Most characters of a daemon's own words in one of our sentences.
pub(super) const MAX_QUOTE: usize = 300;

/// The command in a path, for sentences: `pin/add?arg=…` is `pin/add`.
pub(super) fn name_of(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// A daemon's own words, shortened and without anything that does not belong on one line.
pub(super) fn quote(text: &str) -> String {
    let mut quoted: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_QUOTE).collect();
    if quoted.is_empty() {
        quoted.push_str("(no message)");
    }
    quoted
}

/// Kubo's error answer.
#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "Message")]
    message: String,
}

/// What a full disk says, in the words of Unix and of Go.
const FULL: [&str; 3] = ["no space left on device", "disk quota exceeded", "not enough space"];
/// What Kubo says when bytes are not what their CID promises: another hash, or not decodable by the CID's codec.
const DAMAGED: [&str; 6] = [
    "hash mismatch",
    "different hash than requested",
    "protobuf: ",
    "unexpected EOF",
    "cbor: ",
    "invalid wireType",
];

/// The error for the words of a daemon that understood the call.
pub(super) fn refusal(shown: &str, path: &str, status: u16, words: &str) -> Error {
    let says = |any: &[&str]| any.iter().any(|part| words.contains(part));
    let (kind, advice) = if says(&FULL) {
        let fix = "make room there (pinfold ipfs gc removes what is not pinned), or pin elsewhere";
        (Kind::Full, format!("; the disk of the IPFS daemon at {shown} is full: {fix}"))
    } else if name_of(path) == "pin/add" && says(&DAMAGED) {
        let fix =
            "the CID is wrong or of another codec, or the daemon's repository is damaged (ipfs repo verify)";
        (Kind::Corrupt, format!("; the content is not what its CID says: {fix}"))
    } else if words.contains("deadline exceeded") {
        (Kind::Timeout, String::new())
    } else if says(&["no link named", "not found locally"]) {
        (Kind::NotFound, String::new())
    } else {
        (Kind::Ipfs, String::new())
    };
    Error::new(kind, format!("IPFS error ({path}). Code: {status}. Message: {}{advice}", quote(words)))
}

/// The error for an answer that is not 200.
pub(super) fn refused(
    shown: &str,
    path: &str,
    status: StatusCode,
    location: Option<&str>,
    body: &[u8],
) -> Error {
    if let Ok(Refusal { message }) = serde_json::from_slice(body) {
        return refusal(shown, path, status.as_u16(), &message);
    }
    let why = match (status, location) {
        (s, Some(to)) if s.is_redirection() => {
            format!("it sends us to {}, and Kubo's RPC API never does: give its own address", quote(to))
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            "it refuses us: allow this machine in its configuration (API.Authorizations, \
             API.HTTPHeaders.Access-Control-Allow-Origin)"
                .to_string()
        }
        _ => "is this Kubo's RPC API?".to_string(),
    };
    let words = quote(&String::from_utf8_lossy(body));
    Error::ipfs(format!(
        "IPFS error ({path}). Code: {}. Message: {words}; the IPFS daemon at {shown}: {why}",
        status.as_u16()
    ))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_quote_is_one_short_line() {
        assert_eq!(quote("  a\r\nb\t "), "a  b");
        assert_eq!(quote(&"x".repeat(10_000)).len(), MAX_QUOTE);
        assert_eq!(quote("\n"), "(no message)");
    }

    #[test]
    fn what_the_daemon_says_becomes_a_kind_and_an_advice() {
        let cases = [
            ("pin/add?arg=x", "write /data: no space left on device", Kind::Full, "make room"),
            (
                "pin/add?arg=x",
                "pin: protobuf: (PBNode) invalid wireType",
                Kind::Corrupt,
                "not what its CID says",
            ),
            ("pin/add?arg=x", "pin: unexpected EOF", Kind::Corrupt, "repo verify"),
            // A daemon that dies says so too, elsewhere.
            ("resolve?arg=x", "unexpected EOF", Kind::Ipfs, "unexpected EOF"),
            ("cat?arg=x", "no link named \"a\" under x", Kind::NotFound, "no link"),
            ("pin/add?arg=x", "context deadline exceeded", Kind::Timeout, "deadline"),
        ];
        for (path, words, kind, part) in cases {
            let error = refusal("/ip4/127.0.0.1/tcp/5001", path, 500, words);
            assert_eq!(error.kind(), kind, "{words}");
            assert!(error.message().contains(words) && error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_not_kubo_is_told_by_its_status() {
        let error = |status: u16, location, body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            refused("/dns4/kubo/tcp/1", "id", status, location, body.as_bytes()).message().to_string()
        };
        assert!(error(302, Some("http://login/"), "").contains("sends us to http://login/"));
        assert!(error(403, None, "403 - Forbidden").contains("API.Authorizations"));
        assert!(error(500, None, "<html>").contains("is this Kubo's RPC API?"));
        assert!(error(500, None, r#"{"Message":"on fire"}"#).ends_with("Message: on fire"));
    }
}
