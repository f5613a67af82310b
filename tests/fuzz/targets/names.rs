//! Small languages: query strings, CIDs, addresses, times, sizes, forms.

use super::{pieces, Input};
use crate::api::multipart::{boundary, parts, MAX_NAME, MAX_PATH};
use crate::api::query::{decode, decode_cid, parse_bool, parse_cid, parse_peer_id, Query};
use crate::clock::{format_duration, parse_duration, Timestamp};
use crate::cluster::{AddPart, PartKind};
use crate::config::address::host_port;
use crate::error::Kind;
use crate::ipfs::unixfs::{self, ImportOptions};
use crate::runtime::block_on;
use futures::{stream, StreamExt};
use libp2p::{Multiaddr, PeerId};

/// A query string and the options of a pin in it.
pub(super) fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(query) = Query::parse(&text) else { return };
    for name in ["name", "local", "cids", "filter", "arg", "replication", "user-allocations", "format"] {
        let _ = query.get(name);
        let _ = query.all(name).count();
        if let Ok(flag) = query.flag(name, false) {
            assert_eq!(flag, query.get(name).and_then(parse_bool).unwrap_or(false));
        }
    }
    let _ = (query.strong(), query.local());
    match query.pin_options() {
        Ok(options) => {
            assert_eq!(options.name, query.get("name").unwrap_or_default());
            assert!(options.metadata.keys().all(|key| !key.is_empty()));
            if query.get("expire-in").is_some() && query.get("expire-at").is_none() {
                assert!(options.expire_at.is_some_and(|at| at >= Timestamp::now().trunc()));
            }
        }
        Err(error) => assert_eq!(error.kind(), Kind::Invalid, "{error}"),
    }
    let _ = ImportOptions::parse(
        query.get("cid-version").and_then(|v| v.parse().ok()).unwrap_or(0),
        query.get("raw-leaves").and_then(parse_bool),
        query.get("chunker").unwrap_or_default(),
        query.get("layout").unwrap_or_default(),
        query.get("hash").unwrap_or_default(),
    );
}

/// One name of any kind: what is understood says itself again.
pub(super) fn names(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.below(8);
    let text = input.text();
    match kind {
        0 => {
            if let Ok(cid) = parse_cid(&text) {
                assert_eq!(parse_cid(&cid.to_string()).expect("read again"), cid);
                assert_eq!(decode_cid(&text).expect("the same"), cid);
            }
            if let Ok(cid) = cid::Cid::try_from(text.as_bytes()) {
                assert_eq!(unixfs::hash::cid_len(&cid), cid.to_bytes().len());
                let _ = unixfs::hash::verify(&cid, b"something else");
            }
        }
        1 => {
            if let Ok(peer) = parse_peer_id(&text) {
                assert_eq!(parse_peer_id(&peer.to_string()).expect("read again"), peer);
                assert_eq!(PeerId::from_bytes(&peer.to_bytes()).expect("its bytes"), peer);
            }
        }
        2 => {
            if let Ok(address) = text.parse::<Multiaddr>() {
                let _ = host_port(&address);
                let again: Multiaddr = address.to_string().parse().expect("read again");
                let _ = (again, crate::config::address::is_tcp(&address));
                let _ = crate::config::address::socket_addresses("key", &[address]);
            }
        }
        3 => {
            if let Ok(wait) = parse_duration(&text) {
                let said = format_duration(wait);
                assert_eq!(parse_duration(&said).expect("read again"), wait, "{text:?} became {said}");
            }
        }
        4 => {
            if let Ok(time) = Timestamp::parse(&text) {
                let said = time.to_string();
                assert_eq!(Timestamp::parse(&said).expect("read again"), time, "{text:?} became {said}");
                let _ = (time.plain(), time.unix_nanos(), time.plus(std::time::Duration::MAX));
            }
        }
        5 => {
            if let Ok((root, names)) = unixfs::parse_path(&text) {
                let path = format!("/ipfs/{root}/{}", names.join("/"));
                assert_eq!(unixfs::parse_path(&path).expect("read again"), (root, names));
            }
        }
        6 => {
            if let Some(plain) = decode(&text, true) {
                assert!(plain.len() <= text.len());
            }
        }
        _ => {
            if let Ok(boundary) = boundary(Some(&text)) {
                assert!((1..=200).contains(&boundary.len()));
            }
        }
    }
}

/// What a form holds: each part with its content, or what is wrong with it.
type Form = Result<Vec<(String, PartKind, Vec<u8>)>, (Kind, String)>;

fn form(pieces: Vec<crate::Result<bytes::Bytes>>) -> Form {
    let mut parts = parts(stream::iter(pieces), "b");
    block_on(async {
        let mut out: Vec<(String, PartKind, Vec<u8>)> = Vec::new();
        while let Some(part) = parts.next().await {
            match part {
                Ok(AddPart::Begin { path, kind }) => out.push((path, kind, Vec::new())),
                Ok(AddPart::Data(data)) => {
                    let (_, kind, content) = out.last_mut().expect("content has a part that it belongs to");
                    assert!(*kind == PartKind::File && !data.is_empty());
                    content.extend_from_slice(&data);
                }
                Err(error) => return Err((error.kind(), error.message().to_owned())),
            }
        }
        Ok(out)
    })
}

/// A form, in one piece and in many: it means the same; no path leads elsewhere; nothing is longer than what was sent.
pub(super) fn multipart(data: &[u8]) {
    let mut input = Input(data);
    let seed = input.byte();
    let body = input.rest();
    let whole = form(vec![Ok(bytes::Bytes::copy_from_slice(body))]);
    assert_eq!(form(pieces(body, seed)), whole, "it matters how it arrives");
    let Ok(parts) = whole else { return };
    assert!(parts.iter().map(|(_, _, content)| content.len()).sum::<usize>() <= body.len());
    for (path, kind, _) in &parts {
        assert!(path.len() <= MAX_PATH && !path.starts_with('/') && !path.contains('\0'), "{path:?}");
        if !path.is_empty() {
            for name in path.split('/') {
                assert!(!matches!(name, "" | "." | "..") && name.len() <= MAX_NAME, "{path:?}");
            }
        }
        if let PartKind::Symlink(target) = kind {
            assert!(target.len() <= 4096);
        }
    }
}
