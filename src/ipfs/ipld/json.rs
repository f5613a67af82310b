//! dag-json: compact, names sorted by their bytes, links as `{"/":"<cid>"}`, bytes as `{"/":{"bytes":"<base64>"}}`.
//!
//! A parser of our own and not serde_json's: names must not repeat, a whole number must not turn into a float because
//! it is long, and the number of values is limited while they are read, not after.

use super::{put, Budget, Names, Value};
use crate::error::{Error, Result};
use cid::Cid;
use data_encoding::BASE64_NOPAD;

/// The name that makes a map a link or bytes.
const SLASH: &str = "/";

fn bad(what: &str, at: usize) -> Error {
    Error::corrupt(format!("malformed dag-json at byte {at}: {what}"))
}

fn cut() -> Error {
    Error::corrupt("unexpected EOF")
}

pub(super) fn decode(text: &[u8]) -> Result<Value> {
    let mut reader = Reader { text, at: 0, budget: Budget::default() };
    let value = reader.value(0)?;
    reader.space();
    if reader.at < text.len() {
        return Err(Error::corrupt("unexpected content after end of json object"));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    budget: Budget,
}

impl Reader<'_> {
    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is no space, not taken.
    fn peek(&mut self) -> Result<u8> {
        self.space();
        self.text.get(self.at).copied().ok_or_else(cut)
    }

    fn expect(&mut self, wanted: u8, what: &str) -> Result<()> {
        if self.peek()? != wanted {
            return Err(bad(what, self.at));
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        self.budget.take(depth)?;
        match self.peek()? {
            b'{' => self.map(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Value::Text),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => Err(bad("neither an object, a list, a text, a number, true, false nor null", self.at)),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value> {
        let rest = &self.text[self.at..];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else if word.as_bytes().starts_with(rest) {
            Err(cut())
        } else {
            Err(bad("an unknown word", self.at))
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        let mut items = Vec::new();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.peek()? == b']' {
                self.at += 1;
                return Ok(Value::List(items));
            }
            self.expect(b',', "a list goes on without a comma")?;
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        let (mut entries, mut seen) = (Vec::new(), Names::default());
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(Value::Map(entries));
        }
        loop {
            if self.peek()? != b'"' {
                return Err(bad("a name must be a text", self.at));
            }
            self.budget.take(depth + 1)?;
            let name = self.string()?;
            self.expect(b':', "a name without a colon")?;
            let value = self.value(depth + 1)?;
            put(&mut entries, &mut seen, name, value)?;
            if self.peek()? == b'}' {
                self.at += 1;
                return special(entries);
            }
            self.expect(b',', "an object goes on without a comma")?;
        }
    }

    fn number(&mut self) -> Result<Value> {
        let start = self.at;
        let number = |b: &u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        self.at += self.text[start..].iter().take_while(|b| number(b)).count();
        let text = std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        if !well_formed(text) {
            return Err(bad("a malformed number", start));
        }
        let range = |how: &str| {
            let shown: String = text.chars().take(64).collect();
            Error::corrupt(format!("strconv.{how}: parsing {shown:?}: value out of range"))
        };
        if text.contains(['.', 'e', 'E']) {
            let float: f64 = text.parse().map_err(|_| bad("a malformed number", start))?;
            return if float.is_finite() { Ok(Value::Float(float)) } else { Err(range("ParseFloat")) };
        }
        text.parse::<i64>().map(|n| Value::Int(i128::from(n))).map_err(|_| range("ParseInt"))
    }

    fn string(&mut self) -> Result<String> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let plain =
                self.text[self.at..].iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..=0x1f)).count();
            out.extend_from_slice(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.text.get(self.at) {
                None => return Err(cut()),
                Some(b'"') => {
                    self.at += 1;
                    let from = self.at;
                    return String::from_utf8(out).map_err(|_| bad("a text that is not UTF-8", from));
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escape()?;
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(_) => return Err(bad("a control character in a text", self.at)),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let kind = *self.text.get(self.at).ok_or_else(cut)?;
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                // Half of a pair alone becomes the replacement character, as in Go.
                let alone = char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER);
                if !(0xd800..0xdc00).contains(&high) || !self.text[self.at..].starts_with(b"\\u") {
                    return Ok(alone);
                }
                let before = self.at;
                self.at += 2;
                let low = self.hex()?;
                if !(0xdc00..0xe000).contains(&low) {
                    self.at = before;
                    return Ok(alone);
                }
                char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)).unwrap_or(alone)
            }
            _ => return Err(bad("an unknown escape", self.at - 1)),
        })
    }

    fn hex(&mut self) -> Result<u32> {
        let digits = self.text.get(self.at..self.at + 4).ok_or_else(cut)?;
        let mut value = 0;
        for digit in digits {
            let digit = char::from(*digit)
                .to_digit(16)
                .ok_or_else(|| bad("an escape without four digits", self.at))?;
            value = value << 4 | digit;
        }
        self.at += 4;
        Ok(value)
    }
}

/// JSON's grammar of a number, of which Rust's parsers take more.
fn well_formed(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (number, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(text[at + 1..].trim_start_matches(['+', '-']))),
        None => (text, None),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let needless_zero = whole.len() > 1 && whole.starts_with('0');
    digits(whole) && !needless_zero && fraction.is_none_or(digits) && exponent.is_none_or(digits)
}

/// A map that stands for a link or for bytes becomes one.
fn special(entries: Vec<(String, Value)>) -> Result<Value> {
    let [(name, value)] = entries.as_slice() else { return Ok(Value::Map(entries)) };
    if name != SLASH {
        return Ok(Value::Map(entries));
    }
    match value {
        Value::Text(text) => {
            let cid: Result<Cid> = crate::api::query::parse_cid(text);
            cid.map(Value::Link)
        }
        Value::Map(inner) => match inner.as_slice() {
            [(name, Value::Text(text))] if name == "bytes" => {
                let bare = text.trim_end_matches('=');
                let bytes = BASE64_NOPAD.decode(bare.as_bytes()).map_err(|e| {
                    Error::corrupt(format!("illegal base64 data at input byte {}", e.position))
                })?;
                Ok(Value::Bytes(bytes.into()))
            }
            _ => Ok(Value::Map(entries)),
        },
        _ => Ok(Value::Map(entries)),
    }
}

pub(super) fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value);
    out
}

fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Int(n) => out.extend_from_slice(n.to_string().as_bytes()),
        Value::Float(f) => out.extend_from_slice(float_text(*f).as_bytes()),
        Value::Text(text) => write_text(out, text),
        Value::Bytes(bytes) => {
            out.extend_from_slice(b"{\"/\":{\"bytes\":\"");
            out.extend_from_slice(BASE64_NOPAD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}}");
        }
        Value::List(items) => {
            out.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write(out, item);
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
            out.push(b'{');
            for (n, (name, value)) in sorted.into_iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_text(out, name);
                out.push(b':');
                write(out, value);
            }
            out.push(b'}');
        }
        Value::Link(cid) => {
            out.extend_from_slice(b"{\"/\":\"");
            out.extend_from_slice(cid.to_string().as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes());
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// A float as Go's JSON writes it: plain while it is short, with an exponent beyond. A whole one has no point, so that it
/// is read as an integer: minus zero as zero, and from 2^63 on not at all. Kubo's blocks are the same, and its CIDs.
pub fn float_text(f: f64) -> String {
    let size = f.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{f:e}");
        return match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
            _ => text,
        };
    }
    format!("{f}")
}
