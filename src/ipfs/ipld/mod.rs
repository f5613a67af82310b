//! IPLD: the values inside of blocks, whatever codec they were written in.
//!
//! A block of dag-cbor, dag-json, dag-pb or raw becomes one [`Value`] and goes back to bytes; `dag get`, `dag put` and
//! paths through such blocks (`<cid>/a/0/b`) need nothing else. The encoders write the one canonical form, because a
//! CID is a hash of exactly these bytes; the decoders take what Kubo takes, within limits.
//!
//! The room must never: recurse deeper than [`MAX_DEPTH`], hold more than [`MAX_VALUES`] values of one block, trust a
//! length that a block claims, or panic on any bytes whatever.

mod cbor;
mod json;
mod pb;
#[cfg(test)]
mod tests;

pub use json::float_text;

use crate::error::{Error, Result};
use crate::ipfs::unixfs::hash::{DAG_CBOR, DAG_JSON, DAG_PB, RAW};
use bytes::Bytes;
use cid::Cid;

/// Deepest nesting of lists and maps; recursion stays far from the stack's end.
pub const MAX_DEPTH: usize = 128;
/// Most values in one block: a block of empty lists would otherwise grow to fifty times its size in memory.
pub const MAX_VALUES: usize = 200_000;

/// A value of the IPLD data model.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number: all of CBOR's, from −2⁶⁴ to 2⁶⁴−1.
    Int(i128),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name, in the order they came in; each name once.
    Map(Vec<(String, Value)>),
    /// A link to another block.
    Link(Cid),
}

/// Whether blocks of this codec can be read as a [`Value`].
pub fn knows(codec: u64) -> bool {
    [RAW, DAG_PB, DAG_CBOR, DAG_JSON].contains(&codec)
}

/// A block as a value.
///
/// # Errors
/// [`crate::Kind::Corrupt`] for malformed bytes, [`crate::Kind::Invalid`] for an unknown codec.
pub fn decode(codec: u64, block: &Bytes) -> Result<Value> {
    match codec {
        RAW => Ok(Value::Bytes(block.clone())),
        DAG_PB => pb::decode(block),
        DAG_CBOR => cbor::decode(block),
        DAG_JSON => json::decode(block),
        codec => Err(unknown(codec)),
    }
}

/// A value as the bytes of a block.
///
/// # Errors
/// [`crate::Kind::Invalid`] when the codec cannot hold this value, or is unknown.
pub fn encode(codec: u64, value: &Value) -> Result<Vec<u8>> {
    match codec {
        RAW => match value {
            Value::Bytes(bytes) => Ok(bytes.to_vec()),
            other => Err(wrong_kind("AsBytes", other, "bytes")),
        },
        DAG_PB => pb::encode(value),
        DAG_CBOR => Ok(cbor::encode(value)),
        DAG_JSON => Ok(json::encode(value)),
        codec => Err(unknown(codec)),
    }
}

fn unknown(codec: u64) -> Error {
    Error::invalid(format!(
        "blocks of codec 0x{codec:x} cannot be read or written here: use dag-cbor, dag-json, dag-pb or raw"
    ))
}

/// go-ipld-prime's words for a value used as something that it is not; clients show them.
pub fn wrong_kind(verb: &str, value: &Value, expected: &str) -> Error {
    let kind = value.kind();
    Error::invalid(format!(
        "func called on wrong kind: \"{verb}\" called on a {kind} node (kind: {kind}), but only makes sense on {expected}"
    ))
}

impl Value {
    /// The name of its kind in the data model.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Link(_) => "link",
        }
    }

    /// The value below one segment of a path.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when there is none, [`crate::Kind::Invalid`] where there can be none.
    pub fn lookup(&self, segment: &str) -> Result<&Value> {
        let missing = || Error::not_found(format!("key not found: {segment:?}"));
        match self {
            Value::Map(entries) => {
                entries.iter().find(|(name, _)| name == segment).map(|(_, value)| value).ok_or_else(missing)
            }
            Value::List(items) => match segment.parse::<i64>() {
                Ok(at) => usize::try_from(at).ok().and_then(|at| items.get(at)).ok_or_else(missing),
                Err(_) => Err(Error::invalid(format!(
                    "invalid segment for lookup on a list: {segment:?}: strconv.ParseInt: parsing {segment:?}: invalid syntax"
                ))),
            },
            other => Err(wrong_kind("LookupBySegment", other, "map or list")),
        }
    }

    /// Every link inside, in stored order.
    pub fn links(&self) -> Vec<Cid> {
        let mut links = Vec::new();
        self.collect_links(&mut links);
        links
    }

    fn collect_links(&self, links: &mut Vec<Cid>) {
        match self {
            Value::Link(cid) => links.push(*cid),
            Value::List(items) => items.iter().for_each(|item| item.collect_links(links)),
            Value::Map(entries) => entries.iter().for_each(|(_, value)| value.collect_links(links)),
            _ => {}
        }
    }
}

/// Counts what a decoder makes, so that both of its limits are kept in one place.
#[derive(Default)]
struct Budget {
    values: usize,
}

impl Budget {
    fn take(&mut self, depth: usize) -> Result<()> {
        self.values += 1;
        if depth > MAX_DEPTH {
            return Err(Error::corrupt(format!("the block is nested deeper than {MAX_DEPTH} levels")));
        }
        if self.values > MAX_VALUES {
            return Err(Error::too_large(format!("the block holds more than {MAX_VALUES} values")));
        }
        Ok(())
    }
}

/// Adds an entry to a map whose names must differ.
fn put(entries: &mut Vec<(String, Value)>, seen: &mut Names, name: String, value: Value) -> Result<()> {
    if !seen.insert(&name) {
        return Err(Error::corrupt(format!("cannot repeat map key {name:?}")));
    }
    entries.push((name, value));
    Ok(())
}

/// The names of one map so far.
#[derive(Default)]
struct Names(std::collections::HashSet<String>);

impl Names {
    fn insert(&mut self, name: &str) -> bool {
        self.0.insert(name.to_owned())
    }
}
