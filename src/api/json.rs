//! JSON as Go writes it: compact, a newline at the end, and `<`, `>`, `&` escaped.
//!
//! Scripts compare answers byte for byte, so ours look like ipfs-cluster's: whole floats without `.0`, and the
//! two line separators that JavaScript trips over escaped too.

use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};
use std::io::{self, Write};

/// Appends a value and a newline.
///
/// # Errors
/// Only when the value cannot be JSON at all (a defect).
pub fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, GoFormatter);
    value
        .serialize(&mut serializer)
        .map_err(|e| Error::internal(format!("an answer cannot be JSON: {e}")))?;
    out.push(b'\n');
    Ok(())
}

/// A value and a newline.
///
/// # Errors
/// Only when the value cannot be JSON at all (a defect).
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    append(&mut out, value)?;
    Ok(out)
}

/// Bytes at which a character begins that Go escapes: `<`, `>`, `&`, U+2028 and U+2029 (others begin with 0xE2, too).
const MAY_BE_ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xE2] = true;
    table
};

/// Where the first character stands that Go escapes. All text of a listing comes by here, and `str::find` with these
/// characters, one after the other, was the dearest part of it in an executable that is compiled for size.
fn next_escaped(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += bytes[at..].iter().position(|byte| MAY_BE_ESCAPED[usize::from(*byte)])?;
        if bytes[at] != 0xE2 || matches!(bytes[at..], [_, 0x80, 0xA8 | 0xA9, ..]) {
            return Some(at);
        }
        at += 1;
    }
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = next_escaped(rest) {
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = special.chars();
            if let Some(c) = chars.next() {
                write!(writer, "\\u{:04x}", c as u32)?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // 2^53: whole numbers up to here are exact, and Go writes them without a fraction.
        if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
            write!(writer, "{value:.0}")
        } else {
            CompactFormatter.write_f64(writer, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_like_go_s() {
        let value = serde_json::json!({"a": "<b> & \u{2028}\"é\n", "n": null, "f": 0.0, "g": 1.5, "l": []});
        let text = String::from_utf8(to_vec(&value).expect("json")).expect("utf-8");
        assert_eq!(
            text,
            "{\"a\":\"\\u003cb\\u003e \\u0026 \\u2028\\\"é\\n\",\"n\":null,\"f\":0,\"g\":1.5,\"l\":[]}\n"
        );
    }

    #[test]
    fn what_begins_like_an_escaped_character_is_found_apart_from_it() {
        for (text, at) in [
            ("", None),
            ("ab", None),
            ("…–\u{2027}\u{202a}â", None),
            ("…\u{2029}", Some(3)),
            ("é>", Some(2)),
            ("…&", Some(3)),
        ] {
            assert_eq!(next_escaped(text), at, "{text:?}");
            assert_eq!(next_escaped(text), text.find(['<', '>', '&', '\u{2028}', '\u{2029}']), "{text:?}");
        }
    }
}
