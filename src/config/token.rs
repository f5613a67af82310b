//! The invite token: what a second peer must know to join the first, in one text to paste.
//!
//! `pinfold1:` and base64url of
//!
//! ```text
//! version (1 byte) | length of the rest (2 bytes, big endian) | body (postcard) | checksum (4 bytes)
//! ```
//!
//! The checksum is the beginning of SHA-256 over everything before it, and the length tells a paste that
//! lost its end from one that was changed. A token carries the cluster's secret: whoever has it is in. It
//! must never reach a log, so its `Debug` shows only the cluster's name.

use super::setting::Secret;
use crate::error::{Error, Result};
use data_encoding::BASE64URL_NOPAD;
use libp2p::multiaddr::Protocol;
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// What every token begins with.
pub const PREFIX: &str = "pinfold1:";
/// The most addresses in a token; more make it too long to paste, and one that works is enough.
pub const MAX_PEERS: usize = 16;
/// The longest token that is looked at.
const MAX_TOKEN: usize = 8192;
/// The longest name of a cluster.
const MAX_NAME: usize = 255;
/// Format of the body.
const VERSION: u8 = 1;
/// Bytes before the body.
const HEAD: usize = 3;
/// Bytes after the body.
const CHECKSUM: usize = 4;

/// What a token says.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The cluster's secret.
    pub secret: Secret,
    /// The cluster's id, as replicated.
    pub cluster_id: u64,
    /// Its name, for people; may be empty.
    pub cluster_name: String,
    /// Where its peers are, each with `/p2p/<peer id>`.
    pub peers: Vec<Multiaddr>,
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("cluster_id", &self.cluster_id)
            .field("cluster_name", &self.cluster_name)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Body {
    secret: Option<[u8; 32]>,
    cluster_id: u64,
    cluster_name: String,
    /// Multiaddresses in their binary form.
    peers: Vec<Vec<u8>>,
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::digest(bytes);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&digest[..CHECKSUM]);
    sum
}

fn names_its_peer(address: &Multiaddr) -> bool {
    matches!(address.iter().last(), Some(Protocol::P2p(_)))
}

impl Invite {
    /// Writes the token. Addresses beyond [`MAX_PEERS`] are left out.
    ///
    /// # Errors
    /// When there is no address, or one without `/p2p/<peer id>`, or the name is too long.
    pub fn to_token(&self) -> Result<String> {
        if self.peers.is_empty() {
            return Err(Error::invalid("an invitation needs the address of at least one peer"));
        }
        if let Some(bad) = self.peers.iter().find(|a| !names_its_peer(a)) {
            return Err(Error::invalid(format!(
                "the address {bad} in an invitation does not end in /p2p/<peer id>"
            )));
        }
        if self.cluster_name.len() > MAX_NAME {
            return Err(Error::invalid(format!("the cluster's name is longer than {MAX_NAME} bytes")));
        }
        let body = Body {
            secret: self.secret.psk(),
            cluster_id: self.cluster_id,
            cluster_name: self.cluster_name.clone(),
            peers: self.peers.iter().take(MAX_PEERS).map(Multiaddr::to_vec).collect(),
        };
        let body = postcard::to_stdvec(&body)
            .map_err(|e| Error::internal(format!("encoding an invitation: {e}")))?;
        let rest = u16::try_from(body.len() + CHECKSUM)
            .map_err(|_| Error::too_large("the addresses of the invitation are too long together"))?;
        let mut bytes = vec![VERSION];
        bytes.extend(rest.to_be_bytes());
        bytes.extend(body);
        bytes.extend(checksum(&bytes));
        let token = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
        if token.len() > MAX_TOKEN {
            return Err(Error::too_large("the addresses of the invitation are too long together"));
        }
        Ok(token)
    }

    /// Reads a token. Blanks and line breaks, which mail programs put into it, do not matter.
    ///
    /// # Errors
    /// One sentence each for: no token at all, of a newer version, incomplete, changed.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_TOKEN * 2 {
            return Err(Error::invalid(
                "this is not a token: it is far too long; paste what `pinfold invite` printed",
            ));
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let text = text.trim_matches(['"', '\'', '`']);
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Err(not_a_token(text));
        };
        let changed =
            || Error::invalid("the token was changed on its way: a character is wrong; copy it again, whole");
        let incomplete = |have: usize, want: usize| {
            Error::invalid(format!(
                "the token is incomplete: {have} of its {want} characters are there; copy it again, to its end"
            ))
        };
        // Cut base64 may end within a byte. What is whole is decoded, to learn how much there should be.
        let bytes = match BASE64URL_NOPAD.decode(encoded.as_bytes()) {
            Ok(bytes) => bytes,
            Err(e) => {
                if let Some(wrong) =
                    encoded.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_".contains(*c))
                {
                    return Err(Error::invalid(format!(
                        "the token was changed on its way: it has {wrong:?}, which is in no token; copy it again, whole"
                    )));
                }
                // All letters are good, so the end is: it lies where no whole token ends, or has odd bits.
                let whole = encoded.get(..e.position / 4 * 4).unwrap_or_default();
                BASE64URL_NOPAD.decode(whole.as_bytes()).unwrap_or_default()
            }
        };
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
            return Err(Error::invalid(
                "the token is incomplete: most of it is missing; copy it again, to its end",
            ));
        };
        let [version, high, low] = *head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let want = PREFIX.len() + BASE64URL_NOPAD.encode_len(HEAD + length);
        let have = text.len();
        if version > VERSION {
            return Err(Error::version(format!(
                "the token is of version {version}, and this pinfold knows version {VERSION}; update pinfold on this board"
            )));
        }
        if version < VERSION || length < CHECKSUM {
            return Err(changed());
        }
        if have < want {
            return Err(incomplete(have, want));
        }
        if have > want || rest.len() != length {
            return Err(changed());
        }
        let (signed, sum) = bytes.split_at(bytes.len() - CHECKSUM);
        if checksum(signed) != sum {
            return Err(changed());
        }
        Self::decode_body(signed.get(HEAD..).unwrap_or_default())
    }

    /// From here on the checksum is right: what is wrong was written so.
    fn decode_body(bytes: &[u8]) -> Result<Self> {
        let broken = |what: &str| {
            Error::corrupt(format!("the token holds {what}; make a new one with `pinfold invite`"))
        };
        let (body, left): (Body, _) =
            postcard::take_from_bytes(bytes).map_err(|_| broken("what this pinfold cannot read"))?;
        if !left.is_empty() {
            return Err(broken("more than this pinfold can read"));
        }
        if body.peers.is_empty() || body.peers.len() > MAX_PEERS {
            return Err(broken("no usable number of addresses"));
        }
        if body.cluster_name.len() > MAX_NAME || body.cluster_name.chars().any(char::is_control) {
            return Err(broken("a cluster name that is no name"));
        }
        let peers = body
            .peers
            .into_iter()
            .map(|bytes| Multiaddr::try_from(bytes).ok().filter(names_its_peer))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| broken("an address that is none"))?;
        Ok(Invite {
            secret: body.secret.map_or(Secret::NONE, Secret::new),
            cluster_id: body.cluster_id,
            cluster_name: body.cluster_name,
            peers,
        })
    }
}

fn not_a_token(text: &str) -> Error {
    if text.is_empty() {
        return Error::invalid(
            "there is no token; paste what `pinfold invite` printed on a peer of the cluster",
        );
    }
    if PREFIX.starts_with(text) {
        return Error::invalid("the token is incomplete: most of it is missing; copy it again, to its end");
    }
    let other_version = text
        .strip_prefix("pinfold")
        .and_then(|rest| rest.split_once(':'))
        .is_some_and(|(digits, _)| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()));
    if other_version {
        return Error::version(
            "the token is of a newer kind than this pinfold knows; update pinfold on this board",
        );
    }
    Error::invalid(format!(
        "this is not a token: a token begins with {PREFIX}; paste what `pinfold invite` printed on a peer of the cluster"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn invite(peers: usize) -> Invite {
        let peer = "12D3KooWEnbHdSKYsWy2jFd9srbdrcvABEUsL5vRQZk97cjJZdxy";
        Invite {
            secret: Secret::new(std::array::from_fn(|i| i as u8)),
            cluster_id: 0x1234_5678_9abc_def0,
            cluster_name: "home".into(),
            peers: (0..peers)
                .map(|n| format!("/ip4/192.168.1.{n}/tcp/9096/p2p/{peer}").parse().expect("addr"))
                .collect(),
        }
    }

    #[test]
    fn a_token_says_what_was_put_in() {
        for peers in [1, 3, MAX_PEERS] {
            let invite = invite(peers);
            let token = invite.to_token().expect("token");
            assert!(token.starts_with("pinfold1:"));
            assert_eq!(Invite::parse(&token), Ok(invite));
        }
        let open = Invite { secret: Secret::NONE, ..invite(1) };
        assert_eq!(Invite::parse(&open.to_token().expect("token")), Ok(open));
        let many = Invite::parse(&invite(40).to_token().expect("token")).expect("parse");
        assert_eq!(many.peers.len(), MAX_PEERS);
    }

    #[test]
    fn blanks_quotes_and_line_breaks_do_not_matter() {
        let invite = invite(2);
        let token = invite.to_token().expect("token");
        let (a, b) = token.split_at(token.len() / 2);
        assert_eq!(Invite::parse(&format!("  \"{a}\r\n   {b}\"\n")), Ok(invite));
    }

    #[test]
    fn every_cut_token_is_said_to_be_incomplete() {
        let token = invite(2).to_token().expect("token");
        for end in 1..token.len() {
            let error = Invite::parse(&token[..end]).expect_err("cut");
            assert!(error.message().starts_with("the token is incomplete"), "cut at {end}: {error}");
        }
    }

    #[test]
    fn every_changed_token_is_refused() {
        let original = invite(2);
        let token = original.to_token().expect("token");
        for at in 0..token.len() {
            for replacement in ['A', 'b', '_', '!', 'é'] {
                let mut chars: Vec<char> = token.chars().collect();
                if chars[at] == replacement {
                    continue;
                }
                chars[at] = replacement;
                let text: String = chars.into_iter().collect();
                assert!(Invite::parse(&text).is_err(), "changed at {at} to {replacement}");
            }
        }
        assert!(Invite::parse(&format!("{token}AAAA")).expect_err("longer").message().contains("changed"));
    }

    #[test]
    fn what_is_no_token_is_named_so() {
        for (text, words, kind) in [
            ("", "there is no token", Kind::Invalid),
            ("/ip4/1.2.3.4/tcp/1", "not a token", Kind::Invalid),
            ("pinfold2:AAAA", "newer kind", Kind::Version),
            ("pinfold1:", "incomplete", Kind::Invalid),
            ("pinf", "incomplete", Kind::Invalid),
        ] {
            let error = Invite::parse(text).expect_err(text);
            assert!(error.message().contains(words), "{text}: {error}");
            assert_eq!(error.kind(), kind, "{text}");
        }
        assert!(Invite::parse(&"x".repeat(1 << 20)).is_err());
        let newer = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&[9, 0, 4, 1, 2, 3, 4]));
        assert_eq!(Invite::parse(&newer).expect_err("newer").kind(), Kind::Version);
    }

    #[test]
    fn a_well_formed_token_with_nonsense_inside_is_refused() {
        let forge = |body: Vec<u8>| {
            let mut bytes = vec![VERSION];
            bytes.extend(((body.len() + CHECKSUM) as u16).to_be_bytes());
            bytes.extend(body);
            bytes.extend(checksum(&bytes));
            Invite::parse(&format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
        };
        let body = |peers: Vec<Vec<u8>>, name: &str| {
            let body = Body { secret: None, cluster_id: 1, cluster_name: name.into(), peers };
            postcard::to_stdvec(&body).expect("encode")
        };
        let no_id: Multiaddr = "/ip4/1.2.3.4/tcp/1".parse().expect("addr");
        for bad in [
            Vec::new(),
            vec![0xff; 40],
            body(Vec::new(), ""),
            body(vec![no_id.to_vec()], ""),
            body(vec![vec![0xff; 5]], ""),
            body(vec![invite(1).peers[0].to_vec()], "a\nb"),
            body(vec![invite(1).peers[0].to_vec(); 17], ""),
        ] {
            assert_eq!(forge(bad).expect_err("nonsense").kind(), Kind::Corrupt);
        }
        let mut long = body(vec![invite(1).peers[0].to_vec()], "");
        assert!(forge(long.clone()).is_ok());
        long.push(0);
        assert_eq!(forge(long).expect_err("more").kind(), Kind::Corrupt);
    }

    #[test]
    fn the_secret_does_not_show() {
        let text = format!("{:?}", invite(1));
        assert!(text.contains("home") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn an_invitation_needs_addresses_with_peer_ids() {
        assert!(invite(0).to_token().is_err());
        let bad = Invite { peers: vec!["/ip4/1.2.3.4/tcp/1".parse().expect("addr")], ..invite(1) };
        assert!(bad.to_token().expect_err("no id").message().contains("/ip4/1.2.3.4/tcp/1"));
    }
}
