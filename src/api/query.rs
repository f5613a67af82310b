//! Query strings and paths: percent-decoding, Go's booleans, and the options of a pin.
//!
//! Messages are ipfs-cluster's where it has one, because scripts match them. One thing is done better: an
//! invalid option is answered 400 and *nothing is pinned*; ipfs-cluster answers 400 and pins anyway.

use super::types::PinOptions;
use crate::clock::{parse_duration, Timestamp};
use crate::error::{Error, Result};
use crate::state::PinMode;
use cid::Cid;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::str::FromStr;
use std::time::Duration;

/// Prefix of options that become metadata.
const META: &str = "meta-";
/// A pin may not be made to expire sooner than this.
const MIN_EXPIRY: Duration = Duration::from_secs(1);
/// Multicodec of a peer id written as a CID.
const LIBP2P_KEY: u64 = 0x72;

/// A decoded query string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes the part of a URL after `?`.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] when an escape is malformed or does not give UTF-8.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |what: &str| {
            Error::invalid(format!("the query string holds \"{what}\", which is not valid percent-encoding"))
        };
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((
                    decode(name, true).ok_or_else(|| bad(name))?,
                    decode(value, true).ok_or_else(|| bad(value))?,
                ))
            })
            .collect::<Result<_>>()
            .map(Query)
    }

    /// The first value of an option; empty ones count as not given, as in ipfs-cluster.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of an option, in order, empty ones too.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A Go boolean.
    ///
    /// # Errors
    /// `parameter <name> invalid`.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        self.get(name).map_or(Ok(default), |v| parse_bool(v).ok_or_else(|| invalid(name)))
    }

    /// Whether a read must be as fresh as the moment of the request (pinfold's own `consistency=strong`, by
    /// ReadIndex). Reads are local and may be a moment old otherwise (`consistency=local`, the default).
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] for another word.
    pub fn strong(&self) -> Result<bool> {
        match self.get("consistency") {
            None | Some("" | "local") => Ok(false),
            Some("strong") => Ok(true),
            Some(other) => Err(Error::invalid(format!("consistency={other} is neither local nor strong"))),
        }
    }

    /// `local=true`, which must be literally that to count.
    pub fn local(&self) -> bool {
        self.get("local") == Some("true")
    }

    fn number<T: FromStr + Default>(&self, name: &str) -> Result<T> {
        self.get(name).map_or(Ok(T::default()), |v| v.parse().map_err(|_| invalid(name)))
    }

    /// The options of a pin (reference F.1).
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] with ipfs-cluster's message for the first option that is wrong.
    pub fn pin_options(&self) -> Result<PinOptions> {
        let mut options = PinOptions {
            name: self.get("name").unwrap_or_default().to_owned(),
            mode: self.mode()?,
            ..PinOptions::default()
        };
        if self.get("replication").is_some() {
            options.replication_min = self.number("replication")?;
            options.replication_max = options.replication_min;
        } else {
            options.replication_min = self.number("replication-min")?;
            options.replication_max = self.number("replication-max")?;
        }
        if let Some(size) = self.get("shard-size") {
            options.shard_size =
                size.parse().map_err(|_| Error::invalid("parameter shard_size is invalid"))?;
        }
        if let Some(peers) = self.get("user-allocations") {
            // These are hints: what is not a peer id is no hint.
            options.user_allocations = peers.split(',').filter_map(|p| parse_peer_id(p).ok()).collect();
        }
        options.expire_at = self.expiry()?;
        for (name, value) in &self.0 {
            match name.strip_prefix(META) {
                None | Some("") => {}
                Some(key) => {
                    options.metadata.entry(key.to_owned()).or_insert_with(|| value.clone());
                }
            }
        }
        if let Some(text) = self.get("pin-update") {
            let source = parse_cid(text).map_err(|e| e.context("error decoding update option parameter"))?;
            options.pin_update = Some(source);
        }
        if let Some(text) = self.get("origins") {
            options.origins = text.split(',').map(parse_origin).collect::<Result<_>>()?;
        }
        Ok(options)
    }

    fn mode(&self) -> Result<PinMode> {
        match self.get("mode") {
            None | Some("recursive") => Ok(PinMode::Recursive),
            Some("direct") => Ok(PinMode::Direct),
            Some(other) => Err(Error::invalid(format!(
                "parameter mode invalid: \"{other}\" is neither \"recursive\" nor \"direct\""
            ))),
        }
    }

    fn expiry(&self) -> Result<Option<Timestamp>> {
        if let Some(text) = self.get("expire-at") {
            return Timestamp::parse(text).map(Some).map_err(|e| {
                let layout = "2006-01-02T15:04:05Z07:00";
                let why = if text.chars().take(4).all(|c| c.is_ascii_digit()) {
                    e.message().to_owned()
                } else {
                    format!("cannot parse {text:?} as \"2006\"")
                };
                Error::invalid(format!(
                    "expire-at cannot be parsed: parsing time {text:?} as {layout:?}: {why}"
                ))
            });
        }
        let Some(text) = self.get("expire-in") else { return Ok(None) };
        let wait = parse_duration(text).map_err(|_| {
            Error::invalid(format!("expire-in cannot be parsed: time: invalid duration {text:?}"))
        })?;
        if wait < MIN_EXPIRY {
            return Err(Error::invalid("expire-in duration too short"));
        }
        Ok(Some(Timestamp::now().plus(wait)))
    }
}

fn invalid(name: &str) -> Error {
    Error::invalid(format!("parameter {name} invalid"))
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Undoes percent-encoding; `plus_is_space` in query strings and multipart names. `None` when an escape is
/// malformed or the result is not UTF-8.
pub fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// A CID.
///
/// # Errors
/// [`crate::Kind::Invalid`], `invalid cid: …` as Go says it.
pub fn parse_cid(text: &str) -> Result<Cid> {
    /// First letters of the bases that a CID can be written in.
    const BASES: &str = "\u{0}079bBcCfFhkKmMtTuUvVzZ\u{1F680}";
    text.parse::<Cid>().map_err(|error| {
        Error::invalid(match text.chars().next() {
            _ if text.len() < 2 => "invalid cid: cid too short".to_owned(),
            Some(base) if !BASES.contains(base) && !text.starts_with("Qm") => {
                "invalid cid: selected encoding not supported".to_owned()
            }
            _ => format!("invalid cid: {error}"),
        })
    })
}

/// A CID in a path or an option of the REST API.
///
/// # Errors
/// [`crate::Kind::Invalid`], `error decoding Cid: …`.
pub fn decode_cid(text: &str) -> Result<Cid> {
    parse_cid(text).map_err(|e| e.context("error decoding Cid"))
}

/// A peer id, in base58 or as a CID.
///
/// # Errors
/// [`crate::Kind::Invalid`], `failed to parse peer ID: …`.
pub fn parse_peer_id(text: &str) -> Result<PeerId> {
    if let Ok(peer) = text.parse() {
        return Ok(peer);
    }
    let doing = "failed to parse peer ID";
    let cid = parse_cid(text).map_err(|e| e.context(doing))?;
    if cid.codec() != LIBP2P_KEY {
        return Err(Error::invalid(format!(
            "{doing}: \"{text}\" is the CID of content, not of a peer's key"
        )));
    }
    PeerId::from_bytes(&cid.hash().to_bytes())
        .map_err(|e| Error::invalid(format!("{doing}: \"{text}\": {e}")))
}

fn parse_origin(text: &str) -> Result<Multiaddr> {
    let address: Multiaddr = text
        .parse()
        .map_err(|e| Error::invalid(format!("error decoding origin multiaddress: \"{text}\": {e}")))?;
    if address.iter().any(|p| matches!(p, Protocol::P2p(_))) {
        Ok(address)
    } else {
        Err(Error::invalid("multiaddress does not contain peer ID: protocol not found in multiaddr"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

    fn options(text: &str) -> Result<PinOptions> {
        Query::parse(text)?.pin_options()
    }

    #[test]
    fn every_option_arrives() {
        let peer = "12D3KooWKW2yNzgYoQQRyWTrENKgYYmBc2CmPEBS5BDTFUiEV9Mu";
        let text = format!(
            "name=a+b%26&mode=direct&replication-min=2&replication-max=3&shard-size=7&meta-k=v&meta-=x&meta-k=w\
             &user-allocations=nosuch,{peer}&expire-at=2030-01-02T03:04:05Z&expire-in=1h&pin-update={CID}\
             &origins=/ip4/1.2.3.4/tcp/1/p2p/{peer}&unknown=1"
        );
        let got = options(&text).expect("options");
        assert_eq!(got.name, "a b&");
        assert_eq!(got.mode, PinMode::Direct);
        assert_eq!((got.replication_min, got.replication_max, got.shard_size), (2, 3, 7));
        assert_eq!(got.metadata.into_iter().collect::<Vec<_>>(), [("k".to_owned(), "v".to_owned())]);
        assert_eq!(got.user_allocations, [peer.parse::<PeerId>().expect("peer")]);
        assert_eq!(got.expire_at, Some(Timestamp::parse("2030-01-02T03:04:05Z").expect("time")));
        assert_eq!(got.pin_update.map(|c| c.to_string()), Some(CID.to_owned()));
        assert_eq!(got.origins.len(), 1);
        let both = options("replication=-1&replication-min=5").expect("options");
        assert_eq!((both.replication_min, both.replication_max), (-1, -1));
        assert_eq!(options("name=&mode=&expire-in=").expect("options"), PinOptions::default());
    }

    #[test]
    fn a_wrong_option_is_said_in_ipfs_cluster_s_words() {
        for (text, message) in [
            ("replication-min=x", "parameter replication-min invalid"),
            ("replication-max=99999999999", "parameter replication-max invalid"),
            ("shard-size=x", "parameter shard_size is invalid"),
            ("expire-in=nosuch", "expire-in cannot be parsed: time: invalid duration \"nosuch\""),
            ("expire-in=10ms", "expire-in duration too short"),
            (
                "expire-at=nosuch",
                "expire-at cannot be parsed: parsing time \"nosuch\" as \"2006-01-02T15:04:05Z07:00\": \
                 cannot parse \"nosuch\" as \"2006\"",
            ),
            (
                "origins=/ip4/1.2.3.4/tcp/1",
                "multiaddress does not contain peer ID: protocol not found in multiaddr",
            ),
            (
                "pin-update=nosuch",
                "error decoding update option parameter: invalid cid: selected encoding not supported",
            ),
        ] {
            assert_eq!(options(text).expect_err(text).message(), message);
        }
        for bad in ["name=%zz", "%=1", "name=%ff", "mode=nosuch", "origins=x"] {
            options(bad).expect_err(bad);
        }
    }

    #[test]
    fn cids_and_peers() {
        for (text, message) in [
            ("nosuch", "error decoding Cid: invalid cid: selected encoding not supported"),
            ("", "error decoding Cid: invalid cid: cid too short"),
        ] {
            assert_eq!(decode_cid(text).expect_err(text).message(), message);
        }
        for bad in ["Qm", "bafy", "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5", "zzzz", "\u{1F680}x"] {
            decode_cid(bad).expect_err(bad);
        }
        let peer: PeerId = "12D3KooWKW2yNzgYoQQRyWTrENKgYYmBc2CmPEBS5BDTFUiEV9Mu".parse().expect("peer");
        let hash =
            *Cid::new_v1(LIBP2P_KEY, cid::multihash::Multihash::from_bytes(&peer.to_bytes()).expect("hash"))
                .hash();
        assert_eq!(parse_peer_id(&Cid::new_v1(LIBP2P_KEY, hash).to_string()).expect("as a CID"), peer);
        parse_peer_id(CID).expect("an RSA peer id looks like this CID");
        parse_peer_id("bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e").expect_err("content");
    }
}
