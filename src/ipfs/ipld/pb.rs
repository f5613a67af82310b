//! dag-pb as a value: `{"Data":…,"Links":[{"Hash":…,"Name":…,"Tsize":…}]}`, what is absent as null.
//!
//! Beside [`crate::ipfs::unixfs::node`], because there an absent name and an empty one are the same, which is right for
//! files and folders; here the bytes must come back as they were.

use super::{wrong_kind, Budget, Value};
use crate::error::{Error, Result};
use crate::ipfs::unixfs::proto::{put_bytes, put_number, Fields, Value as Field};
use bytes::Bytes;
use cid::Cid;

fn bad(what: &str) -> Error {
    Error::corrupt(format!("protobuf: (PBNode) {what}"))
}

pub(super) fn decode(block: &Bytes) -> Result<Value> {
    let (mut data, mut links) = (Value::Null, Vec::new());
    let mut budget = Budget::default();
    let mut fields = Fields::new(block);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Bytes(bytes)) if data == Value::Null => data = Value::Bytes(block.slice_ref(bytes)),
            (2, Field::Bytes(bytes)) => {
                // A link is four values: itself, hash, name, size.
                for _ in 0..4 {
                    budget.take(0)?;
                }
                links.push(decode_link(bytes)?);
            }
            _ => return Err(bad("an unknown or repeated field")),
        }
    }
    Ok(Value::Map(vec![("Data".into(), data), ("Links".into(), Value::List(links))]))
}

fn decode_link(bytes: &[u8]) -> Result<Value> {
    let (mut hash, mut name, mut size) = (None, Value::Null, Value::Null);
    let mut fields = Fields::new(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Bytes(bytes)) if hash.is_none() => {
                hash = Some(Cid::try_from(bytes).map_err(|e| bad(&format!("a link without a CID: {e}")))?);
            }
            (2, Field::Bytes(bytes)) if name == Value::Null => {
                let text = std::str::from_utf8(bytes).map_err(|_| bad("a link name that is not UTF-8"))?;
                name = Value::Text(text.to_owned());
            }
            (3, Field::Varint(n)) if size == Value::Null => size = Value::Int(i128::from(n)),
            _ => return Err(bad("an unknown or repeated field in a link")),
        }
    }
    let hash = hash.ok_or_else(|| bad("a link without a CID"))?;
    Ok(Value::Map(vec![("Hash".into(), Value::Link(hash)), ("Name".into(), name), ("Tsize".into(), size)]))
}

/// The fields of a map by name; another name is an error, a null one is absent.
fn fields<'a, const N: usize>(
    value: &'a Value,
    what: &str,
    names: [&str; N],
) -> Result<[Option<&'a Value>; N]> {
    let Value::Map(entries) = value else {
        let kind = value.kind();
        return Err(Error::invalid(format!(
            "func called on wrong kind: \"AssignNode\" called on a {what} node (kind: {kind}), but only makes sense on map"
        )));
    };
    let mut found = [None; N];
    for (name, value) in entries {
        let at = names.iter().position(|n| n == name);
        let at =
            at.ok_or_else(|| Error::invalid(format!("invalid key for map {what}: {name:?}: no such field")))?;
        found[at] = (*value != Value::Null).then_some(value);
    }
    Ok(found)
}

pub(super) fn encode(value: &Value) -> Result<Vec<u8>> {
    let [data, links] = fields(value, "dagpb.PBNode", ["Data", "Links"])?;
    let links = match links {
        None => return Err(Error::invalid("missing required fields: Links")),
        Some(Value::List(links)) => links,
        Some(other) => return Err(wrong_kind("BeginList", other, "list")),
    };
    let mut encoded = links.iter().map(encode_link).collect::<Result<Vec<_>>>()?;
    // Stable: links of one name keep their order, on which every large file depends.
    encoded.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
    let mut out = Vec::new();
    for (_, link) in encoded {
        put_bytes(&mut out, 2, &link);
    }
    match data {
        None => {}
        Some(Value::Bytes(bytes)) => put_bytes(&mut out, 1, bytes),
        Some(other) => return Err(wrong_kind("AsBytes", other, "bytes")),
    }
    Ok(out)
}

fn encode_link(link: &Value) -> Result<(&str, Vec<u8>)> {
    let [hash, name, size] = fields(link, "dagpb.PBLink", ["Hash", "Name", "Tsize"])?;
    let mut out = Vec::new();
    match hash {
        None => return Err(Error::invalid("missing required fields: Hash")),
        Some(Value::Link(cid)) => put_bytes(&mut out, 1, &cid.to_bytes()),
        Some(other) => return Err(wrong_kind("AsLink", other, "link")),
    }
    let name = match name {
        None => "",
        Some(Value::Text(text)) => {
            put_bytes(&mut out, 2, text.as_bytes());
            text
        }
        Some(other) => return Err(wrong_kind("AsString", other, "string")),
    };
    match size {
        None => {}
        Some(Value::Int(n)) => match u64::try_from(*n) {
            Ok(n) => put_number(&mut out, 3, n),
            Err(_) => return Err(Error::invalid(format!("link has negative Tsize value [{n}]"))),
        },
        Some(other) => return Err(wrong_kind("AsInt", other, "int")),
    }
    Ok((name, out))
}
