//! A request taken apart the way go-ipfs-cmds does it: the command from the path, arguments from the rest of the path
//! and from `arg=`, options from the query, files from a form.
//!
//! Queries are read as leniently as Go reads them (a malformed pair does not exist, an unknown option means nothing),
//! values as strictly (`stream=x` is an error). What is missing or malformed is refused before anything is done, with
//! Kubo's plain-text 400.

#[cfg(any(test, fuzzing))]
#[path = "../../../../tests/fuzz/targets/node_calls.rs"]
pub(crate) mod fuzz;

use super::table::{find, Arg, Command, Kind, GLOBAL};
use super::{reply, Deadline};
use crate::api::http::{Body, Request, Response};
use crate::api::multipart::boundary;
use crate::api::query::{decode, parse_bool};
use crate::clock::parse_duration;
use crate::error::{Error, Result};
use cid::multibase::Base;
use cid::{Cid, Version};
use hyper::header::CONTENT_TYPE;
use hyper::Method;
use std::time::{Duration, Instant};

/// Where the API begins.
const PREFIX: &str = "/api/v0/";
/// Most pairs of a query that are read.
const MAX_PAIRS: usize = 2_000;
/// Longest deadline that is kept track of; beyond it there is none.
const MAX_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A checked request.
pub(super) struct Call {
    /// Its line of the table.
    pub(super) command: &'static Command,
    /// Its arguments, as many as the table asks for at least.
    pub(super) args: Vec<String>,
    options: Vec<(&'static str, String)>,
    /// Read from this disk only.
    pub(super) offline: bool,
    /// `encoding=text`: words for a terminal.
    pub(super) text: bool,
    /// When the client's patience ends.
    pub(super) deadline: Deadline,
}

/// The form of a call that takes files.
pub(super) struct Form {
    /// Its bytes.
    pub(super) body: Body,
    /// Its type.
    pub(super) content_type: Option<String>,
}

impl Call {
    /// Takes a request apart, or answers it.
    pub(super) fn parse(request: Request) -> Result<(Call, Form), Box<Response>> {
        let (parts, body) = request.into_parts();
        let Some(path) = parts.uri.path().strip_prefix(PREFIX) else {
            return Err(Box::new(reply::not_found()));
        };
        if parts.method != Method::POST {
            return Err(Box::new(reply::not_allowed()));
        }
        let components: Vec<&str> = path.split('/').collect();
        let Some((command, used)) = find(&components) else { return Err(Box::new(reply::not_found())) };
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let rest: Vec<String> = components[used..].iter().filter_map(|c| decode(c, false)).collect();
        let query = parts.uri.query().unwrap_or("");
        match Call::checked(command, rest, query, content_type.as_deref()) {
            Ok(call) => Ok((call, Form { body, content_type })),
            Err(error) => Err(Box::new(reply::bad_request(error.message()))),
        }
    }

    fn checked(
        command: &'static Command,
        mut args: Vec<String>,
        query: &str,
        content_type: Option<&str>,
    ) -> Result<Call> {
        let mut options: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in pairs(query) {
            if name == "arg" {
                args.push(value);
                continue;
            }
            let known =
                command.options.iter().chain(GLOBAL).find(|(names, _)| names.contains(&name.as_str()));
            let Some((names, kind)) = known else { continue };
            check_value(&name, *kind, &value)?;
            // The first one counts.
            if !options.iter().any(|(known, _)| *known == names[0]) {
                options.push((names[0], value));
            }
        }
        let is_form = content_type.is_some_and(|t| {
            t.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("multipart/form-data"))
        });
        check_arguments(command, args.len(), is_form)?;
        if is_form && command.args.iter().any(|arg| matches!(arg, Arg::File(_))) {
            boundary(content_type)?;
        }
        let (offline, text, deadline) = (false, false, None);
        let mut call = Call { command, args, options, offline, text, deadline };
        call.offline = call.flag("offline", false);
        call.text = match call.option("encoding") {
            None | Some("" | "json") => false,
            Some("text") => true,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "encoding {other:?} is not offered by this node: use json or text"
                )))
            }
        };
        if let Some(text) = call.option("timeout").filter(|t| !t.is_empty()) {
            let limit = parse_duration(text)
                .map_err(|_| Error::invalid(format!("time: invalid duration {text:?}")))?;
            // Zero is no limit, as in Kubo.
            call.deadline = (!limit.is_zero() && limit < MAX_TIMEOUT).then(|| Instant::now() + limit);
        }
        Ok(call)
    }

    /// An option's value.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// A Boolean option; named without a value it is true.
    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.option(name).map_or(default, |value| value.is_empty() || parse_bool(value) == Some(true))
    }

    /// A number; checked when the request was taken apart.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.option(name).and_then(|value| value.parse().ok())
    }

    /// How the client wants CIDs written.
    ///
    /// # Errors
    /// `unsupported multibase encoding: …`.
    pub(super) fn cid_writer(&self) -> Result<CidWriter> {
        let name = self.option("cid-base").filter(|name| !name.is_empty());
        let base = name.map(base_of).transpose()?;
        let upgrade =
            self.option("upgrade-cidv0-in-output").map(|_| self.flag("upgrade-cidv0-in-output", false));
        Ok(CidWriter {
            base: base.unwrap_or(Base::Base32Lower),
            upgrade: upgrade.unwrap_or(base.is_some_and(|base| base != Base::Base58Btc)),
        })
    }
}

/// The pairs of a query, decoded. What Go's parser drops is dropped.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name, true)?, decode(value, true)?))
        })
        .take(MAX_PAIRS)
}

fn check_value(name: &str, kind: Kind, value: &str) -> Result<()> {
    let (fits, kind) = match kind {
        Kind::Bool => (value.is_empty() || parse_bool(value).is_some(), "bool"),
        Kind::Int => (value.parse::<i64>().is_ok(), "int"),
        Kind::Int64 => (value.parse::<i64>().is_ok(), "int64"),
        Kind::Text => (true, "string"),
    };
    if fits {
        return Ok(());
    }
    let shown: String = value.chars().take(64).collect();
    Err(Error::invalid(format!(
        "could not convert value {shown:?} to type {kind:?} (for option \"-{name}\")"
    )))
}

fn check_arguments(command: &Command, given: usize, is_form: bool) -> Result<()> {
    let mut left = given;
    for arg in command.args {
        match arg {
            Arg::File(name) if !is_form => {
                return Err(Error::invalid(format!("file argument '{name}' is required")));
            }
            Arg::One(name) | Arg::Many(name) if left == 0 => {
                return Err(Error::invalid(format!("argument {name:?} is required")));
            }
            Arg::One(_) | Arg::Maybe => left = left.saturating_sub(1),
            Arg::Many(_) | Arg::File(_) => {}
        }
    }
    Ok(())
}

/// Writes CIDs as the client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CidWriter {
    base: Base,
    /// Version 0 is written as version 1.
    upgrade: bool,
}

impl CidWriter {
    /// The form in which another CID was written: whoever writes version 1 reads version 1.
    pub(super) fn like(cid: &Cid, text: &str) -> CidWriter {
        let base = text.chars().next().and_then(|c| Base::from_code(c).ok());
        let upgrade = cid.version() == Version::V1;
        CidWriter { base: base.filter(|_| upgrade).unwrap_or(Base::Base32Lower), upgrade }
    }

    /// A CID in the chosen form.
    pub(super) fn write(&self, cid: &Cid) -> String {
        let cid = match cid.version() {
            Version::V0 if !self.upgrade => return cid.to_string(),
            Version::V0 => Cid::new_v1(cid.codec(), *cid.hash()),
            Version::V1 => *cid,
        };
        // Any base can write version 1.
        cid.to_string_of_base(self.base).unwrap_or_else(|_| cid.to_string())
    }
}

/// A multibase encoding by its name or its prefix.
pub(super) fn base_of(name: &str) -> Result<Base> {
    let by_name = match name {
        "base2" => Base::Base2,
        "base8" => Base::Base8,
        "base10" => Base::Base10,
        "base16" => Base::Base16Lower,
        "base16upper" => Base::Base16Upper,
        "base32" => Base::Base32Lower,
        "base32upper" => Base::Base32Upper,
        "base32pad" => Base::Base32PadLower,
        "base32padupper" => Base::Base32PadUpper,
        "base32hex" => Base::Base32HexLower,
        "base32hexupper" => Base::Base32HexUpper,
        "base36" => Base::Base36Lower,
        "base36upper" => Base::Base36Upper,
        "base58btc" => Base::Base58Btc,
        "base58flickr" => Base::Base58Flickr,
        "base64" => Base::Base64,
        "base64pad" => Base::Base64Pad,
        "base64url" => Base::Base64Url,
        "base64urlpad" => Base::Base64UrlPad,
        _ => {
            let mut chars = name.chars();
            let prefix =
                chars.next().filter(|_| chars.next().is_none()).and_then(|c| Base::from_code(c).ok());
            let unknown = || Error::invalid(format!("unsupported multibase encoding: {name}"));
            return prefix.ok_or_else(unknown);
        }
    };
    Ok(by_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(path: &str, query: &str) -> Result<Call> {
        let components: Vec<&str> = path.split('/').collect();
        let (command, used) = find(&components).expect("known");
        let rest = components[used..].iter().map(|c| (*c).to_owned()).collect();
        Call::checked(command, rest, query, None)
    }

    #[test]
    fn arguments_come_from_the_path_and_from_the_query() {
        let got = call("cat/QmA", "arg=QmB&arg=Qm+C%2Fx&nosuch=1&%zz=1&a;b&length=5").expect("call");
        assert_eq!(got.args, ["QmA", "QmB", "Qm C/x"]);
        assert_eq!(got.number("length"), Some(5));
        let got = call("cat", "arg=x&l=7&length=8").expect("short names");
        assert_eq!(got.number("length"), Some(7), "the first one counts");
    }

    #[test]
    fn what_is_missing_or_malformed_is_refused_in_kubo_s_words() {
        for (path, query, message) in [
            ("cat", "", "argument \"ipfs-path\" is required"),
            ("cat", "arg=%zz", "argument \"ipfs-path\" is required"),
            ("block/get", "", "argument \"cid\" is required"),
            ("dag/stat", "", "argument \"root\" is required"),
            ("swarm/connect", "", "argument \"address\" is required"),
            ("block/put", "", "file argument 'data' is required"),
            ("dag/import", "", "file argument 'path' is required"),
            (
                "cat",
                "arg=x&offset=x",
                "could not convert value \"x\" to type \"int64\" (for option \"-offset\")",
            ),
            (
                "ls",
                "arg=x&stream=x",
                "could not convert value \"x\" to type \"bool\" (for option \"-stream\")",
            ),
            (
                "refs",
                "arg=x&max-depth=",
                "could not convert value \"\" to type \"int\" (for option \"-max-depth\")",
            ),
            ("id", "offline=x", "could not convert value \"x\" to type \"bool\" (for option \"-offline\")"),
            ("id", "timeout=x", "time: invalid duration \"x\""),
            ("id", "encoding=xml", "encoding \"xml\" is not offered by this node: use json or text"),
        ] {
            let error = call(path, query).err().unwrap_or_else(|| panic!("{path}?{query} was taken"));
            assert_eq!(error.message(), message, "{path}?{query}");
        }
    }

    #[test]
    fn flags_may_be_bare() {
        let got = call("ls", "arg=x&stream&size=false&resolve-type=").expect("call");
        assert!(got.flag("stream", false) && !got.flag("size", true) && got.flag("resolve-type", false));
        assert!(got.flag("headers", true) && !got.flag("headers", false));
    }

    #[test]
    fn time_is_limited_only_when_asked() {
        let left = |query: &str| call("id", query).expect("call").deadline.map(|at| at - Instant::now());
        assert_eq!(left(""), None);
        assert_eq!(left("timeout=0s"), None);
        assert_eq!(left("timeout=876000h"), None);
        let limit = left("timeout=1m30s").expect("limit");
        assert!(limit <= Duration::from_secs(90) && limit > Duration::from_secs(80));
    }

    #[test]
    fn cids_are_written_as_asked() {
        let old: Cid = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o".parse().expect("cid");
        let new: Cid = "bafkreib7zef5jwctsiyrt7q6m6iwurbl7pygrnz55nwo5vjkgs4bosvmdy".parse().expect("cid");
        let write =
            |query: &str, cid: &Cid| call("id", query).and_then(|c| c.cid_writer()).map(|w| w.write(cid));
        assert_eq!(write("", &old).as_deref(), Ok("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"));
        let upgraded = "bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby";
        assert_eq!(write("cid-base=base32", &old).as_deref(), Ok(upgraded));
        assert_eq!(write("upgrade-cidv0-in-output=true", &old).as_deref(), Ok(upgraded));
        assert_eq!(write("cid-base=base58btc", &old).map(|t| t.len()), Ok(46));
        assert_eq!(
            write("cid-base=base58btc", &new).as_deref(),
            Ok("zb2rhawGgevPrS8c2LCQVL1D9PLKf2W2HbJfWSGtqgokic2YD")
        );
        assert_eq!(write("cid-base=f", &new).map(|t| t.starts_with("f0155")), Ok(true));
        let error = write("cid-base=nosuch", &new).expect_err("no such base");
        assert_eq!(error.message(), "unsupported multibase encoding: nosuch");
    }
}
