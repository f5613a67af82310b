//! Which of `ipfs add`'s flags the importer knows, and a plain sentence for each that it does not.

use super::node::MAX_BLOCK;
use crate::error::{Error, Result};

/// How files become DAGs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// 0 or 1.
    pub cid_version: u8,
    /// Leaves as raw blocks.
    pub raw_leaves: bool,
    /// Bytes per leaf (`size-262144`).
    pub chunk_size: usize,
}

impl Default for ImportOptions {
    /// `ipfs add` without flags.
    fn default() -> Self {
        ImportOptions { cid_version: 0, raw_leaves: false, chunk_size: Self::DEFAULT_CHUNK }
    }
}

impl ImportOptions {
    /// `ipfs add`'s default chunk: 256 KiB.
    pub const DEFAULT_CHUNK: usize = 262_144;
    /// Largest `size-N` chunk: what fits into a block with room for the node around it.
    pub const MAX_CHUNK: usize = MAX_BLOCK - 256 * 1024;

    /// `ipfs add --cid-version=1`: raw leaves come with it.
    pub fn v1() -> Self {
        ImportOptions { cid_version: 1, raw_leaves: true, chunk_size: Self::DEFAULT_CHUNK }
    }

    /// From the words of the command line or a query: empty strings and `None` are the defaults.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] with what is not supported and what is.
    pub fn parse(
        cid_version: u64,
        raw_leaves: Option<bool>,
        chunker: &str,
        layout: &str,
        hash: &str,
    ) -> Result<Self> {
        match hash {
            "" | "sha2-256" => {}
            other => {
                return Err(Error::invalid(format!("hash \"{other}\" is not supported yet: use sha2-256")));
            }
        }
        match layout {
            "" | "balanced" => {}
            "trickle" => {
                return Err(Error::invalid("layout \"trickle\" is not supported yet: use balanced"));
            }
            other => {
                return Err(Error::invalid(format!("layout \"{other}\" is unknown: use balanced")));
            }
        }
        let cid_version = u8::try_from(cid_version).unwrap_or(u8::MAX);
        let options = ImportOptions {
            cid_version,
            raw_leaves: raw_leaves.unwrap_or(cid_version > 0),
            chunk_size: parse_chunker(chunker)?,
        };
        options.validate()?;
        Ok(options)
    }

    /// Checks what a caller may have filled in by hand.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] with the value and the range.
    pub fn validate(&self) -> Result<()> {
        if self.cid_version > 1 {
            return Err(Error::invalid(format!(
                "CID version {} does not exist: use 0 or 1",
                self.cid_version
            )));
        }
        if self.chunk_size == 0 || self.chunk_size > Self::MAX_CHUNK {
            return Err(Error::invalid(format!(
                "a chunk size of {} is out of range: use size-1 to size-{}",
                self.chunk_size,
                Self::MAX_CHUNK
            )));
        }
        Ok(())
    }
}

fn parse_chunker(chunker: &str) -> Result<usize> {
    if chunker.is_empty() || chunker == "default" {
        return Ok(ImportOptions::DEFAULT_CHUNK);
    }
    if let Some(size) = chunker.strip_prefix("size-") {
        return size.parse().map_err(|_| {
            Error::invalid(format!("chunker \"{chunker}\" has no number after size-: use size-262144"))
        });
    }
    if chunker == "buzhash" || chunker.starts_with("rabin") {
        return Err(Error::invalid(format!("chunker \"{chunker}\" is not supported yet: use size-262144")));
    }
    Err(Error::invalid(format!("chunker \"{chunker}\" is unknown: use size-262144")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_ipfs_add() {
        assert_eq!(ImportOptions::parse(0, None, "", "", "").unwrap(), ImportOptions::default());
        assert_eq!(ImportOptions::parse(1, None, "", "balanced", "sha2-256").unwrap(), ImportOptions::v1());
        assert!(!ImportOptions::parse(1, Some(false), "", "", "").unwrap().raw_leaves);
        assert_eq!(ImportOptions::parse(0, None, "size-1024", "", "").unwrap().chunk_size, 1024);
    }

    #[test]
    fn what_is_not_supported_is_refused_with_a_sentence() {
        for (version, chunker, layout, hash) in [
            (2, "", "", ""),
            (0, "size-0", "", ""),
            (0, "size-99999999", "", ""),
            (0, "size-x", "", ""),
            (0, "rabin-1-2-3", "", ""),
            (0, "buzhash", "", ""),
            (0, "fish", "", ""),
            (0, "", "trickle", ""),
            (0, "", "", "blake3"),
        ] {
            let error = ImportOptions::parse(version, None, chunker, layout, hash).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Invalid);
            assert!(error.message().contains("use "), "{error}");
        }
    }
}
