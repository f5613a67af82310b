//! What a client names: CIDs and Kubo's paths, checked and refused in Kubo's words.

use crate::api::query::parse_cid;
use crate::error::{Error, Result};
use cid::Cid;

/// Longest path of a request's argument, bytes.
const MAX_PATH: usize = 4096;

/// A path of a client's: a bare CID, `/ipfs/…`, `/ipld/…` or `/ipns/…`; given back with its namespace.
///
/// # Errors
/// [`crate::Kind::Invalid`], `invalid path "…": …` as Kubo says it.
pub(super) fn path(text: &str) -> Result<String> {
    let bad = |why: &dyn std::fmt::Display| Error::invalid(format!("invalid path \"{text}\": {why}"));
    if text.len() > MAX_PATH {
        return Err(Error::too_large(format!("a path of {} bytes is longer than {MAX_PATH}", text.len())));
    }
    if text.parse::<Cid>().is_ok() {
        return Ok(format!("/ipfs/{text}"));
    }
    let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
    let (true, [space, root, rest @ ..]) = (text.starts_with('/'), names.as_slice()) else {
        return Err(bad(&"path does not have enough components"));
    };
    match *space {
        "ipfs" | "ipld" => {
            parse_cid(root).map_err(|e| bad(&e))?;
        }
        "ipns" => {}
        other => return Err(bad(&format!("unknown namespace: {other:?}"))),
    }
    if let Some(odd) = rest.iter().find(|name| [".", ".."].contains(name)) {
        return Err(bad(&format!("\"{odd}\" is no name in a folder")));
    }
    Ok(format!("/{}", names.join("/")))
}

/// A path that pins are made of.
///
/// # Errors
/// [`crate::Kind::Invalid`], with ipfs-cluster's words in front.
pub(super) fn pin_path(text: &str) -> Result<String> {
    path(text).map_err(|e| Error::new(e.kind(), format!("Error parsing IPFS Path: {}", e.message())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

    #[test]
    fn paths_are_read_or_refused_in_kubo_s_words() {
        assert_eq!(path(CID).expect("a CID"), format!("/ipfs/{CID}"));
        assert_eq!(path(&format!("/ipfs//{CID}/a/b/")).expect("a path"), format!("/ipfs/{CID}/a/b"));
        assert_eq!(path("/ipns/example.org/a").expect("a name"), "/ipns/example.org/a");
        for (text, why) in [
            ("", "path does not have enough components"),
            ("nosuch", "path does not have enough components"),
            ("/ipfs", "path does not have enough components"),
            ("/ipfs/nosuch", "invalid cid: selected encoding not supported"),
            ("/nosuch/x", "unknown namespace: \"nosuch\""),
            (&format!("/ipfs/{CID}/.."), "\"..\" is no name in a folder"),
        ] {
            assert_eq!(path(text).expect_err(text).message(), format!("invalid path \"{text}\": {why}"));
        }
        assert_eq!(
            pin_path("nosuch").expect_err("no path").message(),
            "Error parsing IPFS Path: invalid path \"nosuch\": path does not have enough components"
        );
    }
}
