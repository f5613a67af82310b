//! Cuts a pinset file into its objects, whatever else is in it.
//!
//! What the ages of ipfs-cluster wrote differs in the wrapping: objects one after the other (each on a line, or spread
//! over many), one list of objects, or one object whose keys are the CIDs, perhaps inside another with a version
//! beside it. The scanner knows braces, brackets and texts, and nothing of pins: it gives each object's bytes
//! with the line it begins in, and says in which line there is something else.
//!
//! Between objects it can go on after rubbish, from the next line. Inside a list or a map it cannot: where one
//! element ends and the next begins is lost, so that the rest is given up.
//!
//! It must never hold more than one object, take an endless object for one that will end, or panic.

use super::MAX_OBJECT;
use crate::error::{Context as _, Result};
use std::io::BufRead;

/// Bytes of a line of rubbish that are looked through for its end; a longer one ends the reading.
const MAX_RUBBISH: u64 = 64 << 20;
/// Characters of rubbish that are shown.
const SHOWN: usize = 24;
/// Containers inside each other: a map in an envelope, and one to spare.
const MAX_DEPTH: usize = 3;
/// Keys of an envelope under which the pins are, without case and underscores.
const ENVELOPES: [&str; 3] = ["pinmap", "pins", "state"];

/// What was found next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An object.
    Object {
        /// The line in which it begins, from 1.
        line: u64,
        /// The key it stands under, in a map.
        key: Option<String>,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Something else.
    Bad {
        /// The line in which it begins.
        line: u64,
        /// What is wrong.
        why: String,
        /// Whether nothing can be read after it.
        fatal: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    List,
    Map,
}

/// See the module.
pub(super) struct Scanner<R> {
    input: R,
    line: u64,
    /// Whether nothing was taken of the present line yet.
    at_line_start: bool,
    started: bool,
    ended: bool,
    containers: Vec<(Container, u64)>,
}

/// How an object ended other than well.
enum Broken {
    /// Another object begins at the start of a line.
    CutOff,
    Eof,
    LineInText,
    TooLong,
}

impl<R: BufRead> Scanner<R> {
    pub(super) fn new(input: R) -> Self {
        Scanner { input, line: 1, at_line_start: true, started: false, ended: false, containers: Vec::new() }
    }

    /// The next object or fault; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Found>> {
        if !self.started {
            self.started = true;
            if let Some(bad) = self.check_beginning()? {
                return Ok(Some(bad));
            }
        }
        while !self.ended {
            let Some(byte) = self.skip_white(true)? else {
                self.ended = true;
                return Ok(self.containers.pop().map(|(_, line)| {
                    self.bad(line, "the list or map that begins here has no end: the file was cut off", true)
                }));
            };
            let line = self.line;
            match (byte, self.containers.last().map(|c| c.0)) {
                (b'{', None | Some(Container::List)) => return self.object(line, None).map(Some),
                (b'[', None) => {
                    self.take()?;
                    self.containers.push((Container::List, line));
                }
                (b']', Some(Container::List)) | (b'}', Some(Container::Map)) => {
                    self.take()?;
                    self.containers.pop();
                }
                (b'"', Some(Container::Map)) => {
                    if let Some(found) = self.entry(line)? {
                        return Ok(Some(found));
                    }
                }
                (_, None) => return self.rubbish(line).map(Some),
                _ => {
                    let shown = self.shown()?;
                    return Ok(Some(self.give_up(line, &format!("a pin was expected and not {shown}"))));
                }
            }
        }
        Ok(None)
    }

    fn bad(&self, line: u64, why: &str, fatal: bool) -> Found {
        Found::Bad { line, why: why.to_owned(), fatal }
    }

    fn give_up(&mut self, line: u64, why: &str) -> Found {
        self.ended = true;
        self.bad(line, why, true)
    }

    /// Skips the mark that some editors put in front, and tells files that are not text at all.
    fn check_beginning(&mut self) -> Result<Option<Found>> {
        let start = self.input.fill_buf().context("reading the import")?;
        let why = match start {
            [0xef, 0xbb, 0xbf, ..] => {
                self.input.consume(3);
                return Ok(None);
            }
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the file is in UTF-16: save it as UTF-8",
            [0x1f, 0x8b, ..] => "the file is compressed: unpack it with gunzip first",
            _ => return Ok(None),
        };
        Ok(Some(self.give_up(1, why)))
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        Ok(self.input.fill_buf().context("reading the import")?.first().copied())
    }

    fn take(&mut self) -> Result<Option<u8>> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            self.input.consume(1);
            self.at_line_start = byte == b'\n';
            self.line += u64::from(byte == b'\n');
        }
        Ok(byte)
    }

    /// Skips white space (and, between elements, commas); the byte behind it, not taken.
    fn skip_white(&mut self, commas: bool) -> Result<Option<u8>> {
        loop {
            match self.peek()? {
                Some(b' ' | b'\t' | b'\r' | b'\n') => drop(self.take()?),
                Some(b',') if commas && !self.containers.is_empty() => drop(self.take()?),
                other => return Ok(other),
            }
        }
    }

    /// A few characters of what comes next, for a sentence.
    fn shown(&mut self) -> Result<String> {
        let next = self.input.fill_buf().context("reading the import")?;
        let end = next.iter().take(SHOWN).position(|b| *b == b'\n' || *b == b'\r').unwrap_or(SHOWN);
        let text = String::from_utf8_lossy(&next[..end.min(next.len())]).into_owned();
        Ok(format!("\"{}\"", text.escape_debug()))
    }

    /// A line that is no object.
    fn rubbish(&mut self, line: u64) -> Result<Found> {
        let shown = self.shown()?;
        self.skip_line(line, &format!("it is no JSON object but begins with {shown}"))
    }

    /// Goes to the next line, saying why.
    fn skip_line(&mut self, line: u64, why: &str) -> Result<Found> {
        let mut skipped = 0;
        loop {
            let buffer = self.input.fill_buf().context("reading the import")?;
            if buffer.is_empty() {
                return Ok(self.bad(line, why, false));
            }
            if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                self.input.consume(end + 1);
                self.line += 1;
                self.at_line_start = true;
                return Ok(self.bad(line, why, false));
            }
            let size = buffer.len();
            self.input.consume(size);
            skipped += size as u64;
            if skipped > MAX_RUBBISH {
                return Ok(self.give_up(line, &format!("{why}, and the line has no end")));
            }
        }
    }

    /// An element of a map, from its key on; `None` when it was no pin, or the beginning of a container.
    fn entry(&mut self, line: u64) -> Result<Option<Found>> {
        let mut raw = Vec::new();
        if let Err(broken) = self.text(&mut raw)? {
            return Ok(Some(self.broken(line, broken)?));
        }
        let Ok(key) = serde_json::from_slice::<String>(&raw) else {
            return Ok(Some(self.give_up(line, "a key is malformed")));
        };
        if self.skip_white(false)? != Some(b':') {
            return Ok(Some(self.give_up(line, "a key has no value")));
        }
        self.take()?;
        match self.skip_white(false)? {
            Some(b'{' | b'[') if is_envelope(&key) && self.containers.len() < MAX_DEPTH => {
                let kind = if self.peek()? == Some(b'{') { Container::Map } else { Container::List };
                self.take()?;
                self.containers.push((kind, line));
                Ok(None)
            }
            Some(b'{') => self.object(line, Some(key)).map(Some),
            Some(b'[') => {
                Ok(Some(self.give_up(line, &format!("the value of \"{key}\" is a list, not a pin"))))
            }
            Some(b'"') => {
                let mut text = Vec::new();
                Ok(match self.text(&mut text)? {
                    Ok(()) => None,
                    Err(broken) => Some(self.broken(line, broken)?),
                })
            }
            _ => {
                // A number, a word: up to what ends it. The version of the state, for one.
                while !matches!(self.peek()?, None | Some(b',' | b'}' | b']' | b'\n')) {
                    self.take()?;
                }
                Ok(None)
            }
        }
    }

    /// An object from its brace on. One whose first key is a CID or an envelope is the map of all pins.
    fn object(&mut self, line: u64, key: Option<String>) -> Result<Found> {
        let mut bytes = vec![b'{'];
        self.take()?;
        let outermost = self.containers.is_empty();
        if outermost && self.skip_white(false)? == Some(b'"') {
            let from = bytes.len();
            if let Err(broken) = self.text(&mut bytes)? {
                return self.broken(line, broken);
            }
            let name = serde_json::from_slice::<String>(&bytes[from..]).unwrap_or_default();
            if self.skip_white(false)? == Some(b':') {
                self.take()?;
                bytes.push(b':');
                let value = self.skip_white(false)?;
                let is_map = match value {
                    Some(b'{') => is_envelope(&name) || name.parse::<cid::Cid>().is_ok(),
                    Some(b'[') => is_envelope(&name),
                    // The version of the state may stand before the pins; a pin has no such number.
                    _ => name.eq_ignore_ascii_case("version"),
                };
                if is_map {
                    self.containers.push((Container::Map, line));
                    return self.first_entry(line, name);
                }
            }
        }
        match self.rest(&mut bytes)? {
            Ok(()) => Ok(Found::Object { line, key, bytes }),
            Err(broken) => self.broken(line, broken),
        }
    }

    /// The value behind the first key of the map that has just begun, and what follows it.
    fn first_entry(&mut self, line: u64, name: String) -> Result<Found> {
        match self.peek()? {
            Some(b'{') if !is_envelope(&name) => return self.object(line, Some(name)),
            Some(open @ (b'{' | b'[')) => {
                self.take()?;
                self.containers.push((if open == b'{' { Container::Map } else { Container::List }, line));
            }
            _ => {
                while !matches!(self.peek()?, None | Some(b',' | b'}' | b'\n')) {
                    self.take()?;
                }
            }
        }
        // An empty envelope has no object to give: an empty one says so, and is nobody's pin.
        match self.next()? {
            Some(found) => Ok(found),
            None => Ok(Found::Bad { line, why: String::new(), fatal: true }),
        }
    }

    /// The object's bytes up to the brace that closes it; the first brace is in `bytes` already.
    fn rest(&mut self, bytes: &mut Vec<u8>) -> Result<std::result::Result<(), Broken>> {
        let mut depth = 1_usize;
        let lines = self.containers.is_empty();
        loop {
            match self.peek()? {
                None => return Ok(Err(Broken::Eof)),
                Some(b'{') if lines && self.at_line_start => return Ok(Err(Broken::CutOff)),
                Some(b'"') => {
                    if let Err(broken) = self.text(bytes)? {
                        return Ok(Err(broken));
                    }
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                Some(_) => {}
            }
            bytes.extend(self.take()?);
            if depth == 0 {
                return Ok(Ok(()));
            }
            if bytes.len() as u64 > MAX_OBJECT {
                return Ok(Err(Broken::TooLong));
            }
        }
    }

    /// A text with its quotes.
    fn text(&mut self, bytes: &mut Vec<u8>) -> Result<std::result::Result<(), Broken>> {
        bytes.extend(self.take()?);
        let mut escaped = false;
        loop {
            match self.peek()? {
                None => return Ok(Err(Broken::Eof)),
                Some(b'\n') => return Ok(Err(Broken::LineInText)),
                Some(byte) => {
                    bytes.extend(self.take()?);
                    match byte {
                        _ if escaped => escaped = false,
                        b'\\' => escaped = true,
                        b'"' => return Ok(Ok(())),
                        _ => {}
                    }
                }
            }
            if bytes.len() as u64 > MAX_OBJECT {
                return Ok(Err(Broken::TooLong));
            }
        }
    }

    /// What to say of a broken object, and where to go on.
    fn broken(&mut self, line: u64, broken: Broken) -> Result<Found> {
        let inside = !self.containers.is_empty();
        Ok(match broken {
            Broken::Eof => self.give_up(line, "it has no end: the file was cut off"),
            _ if inside => self.give_up(line, "it has no end, so that the rest of the list cannot be read"),
            Broken::CutOff => {
                let why = format!("it has no end: line {} begins another", self.line);
                self.bad(line, &why, false)
            }
            Broken::LineInText => self.skip_line(line, "a text in it has no end")?,
            Broken::TooLong => self.skip_line(line, &format!("it is longer than {MAX_OBJECT} bytes"))?,
        })
    }
}

/// A key without case and underscores: how Go's reader compares, and what fields were called before they had names.
pub(super) fn folded(key: &str) -> String {
    key.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

fn is_envelope(key: &str) -> bool {
    ENVELOPES.contains(&folded(key).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o";

    /// What is found, one word each: `line:bytes`, `line:key=bytes`, or `line!why`.
    fn scan(text: &[u8]) -> Vec<String> {
        let mut scanner = Scanner::new(text);
        let mut found = Vec::new();
        while let Some(next) = scanner.next().expect("memory") {
            found.push(match next {
                Found::Object { line, key, bytes } => {
                    let key = key.map(|k| format!("{}=", &k[..k.len().min(4)])).unwrap_or_default();
                    format!("{line}:{key}{}", String::from_utf8_lossy(&bytes).replace(['\n', ' '], ""))
                }
                Found::Bad { line, why, fatal } => format!("{line}{}{why}", if fatal { "!!" } else { "!" }),
            });
            assert!(found.len() < 100, "{found:?}");
        }
        found
    }

    #[test]
    fn objects_stand_alone_or_in_a_list_or_under_their_cids() {
        assert_eq!(scan(b""), [""; 0]);
        assert_eq!(
            scan(b"\xef\xbb\xbf\r\n{\"a\":1}\r\n\r\n{\"b\":\"}\\\"{\"}"),
            ["2:{\"a\":1}", "4:{\"b\":\"}\\\"{\"}"]
        );
        assert_eq!(scan(b"{\n  \"a\": {\n \"b\": [1, 2]\n }\n}\n{}"), ["1:{\"a\":{\"b\":[1,2]}}", "6:{}"]);
        assert_eq!(scan(b"[\n {\"a\":1},\n {\"b\":2}\n]\n"), ["2:{\"a\":1}", "3:{\"b\":2}"]);
        assert_eq!(scan(b"[]"), [""; 0]);
        let map = format!("{{\"{CID}\": {{}},\n\"{CID}\": {{\"x\":1}}}}");
        assert_eq!(scan(map.as_bytes()), ["1:QmegC={}".replace("QmegC", "Qmeg"), "2:Qmeg={\"x\":1}".into()]);
        let envelope = format!("{{\"PinMap\":{{\"{CID}\":{{}}}},\"Version\":5}}");
        assert_eq!(scan(envelope.as_bytes()), ["1:Qmeg={}"]);
        let reversed = "{\"Version\":5,\"pins\":[{\"cid\":1}]}{\"z\":1}".to_string();
        assert_eq!(scan(reversed.as_bytes()), ["1:{\"cid\":1}", "1:{\"z\":1}"]);
    }

    #[test]
    fn rubbish_between_objects_is_told_by_line_and_passed_over() {
        assert_eq!(
            scan(b"{\"a\":1}\nhello\n{\"b\":2}\n\x00\xff\x01\n{\"c\":3}"),
            [
                "1:{\"a\":1}",
                "2!it is no JSON object but begins with \"hello\"",
                "3:{\"b\":2}",
                "4!it is no JSON object but begins with \"\\0\u{fffd}\\u{1}\"",
                "5:{\"c\":3}"
            ]
        );
        assert_eq!(
            scan(b"{\"a\":\n{\"b\":2}\n{\"c\":\"x\n{\"d\":4}"),
            [
                "1!it has no end: line 2 begins another",
                "2:{\"b\":2}",
                "3!a text in it has no end",
                "4:{\"d\":4}"
            ]
        );
    }

    #[test]
    fn what_cannot_be_gone_on_after_ends_the_reading() {
        for (text, expected) in [
            (&b"[{\"a\":1}, x, {\"b\":2}]"[..], "1!!a pin was expected and not \"x, {\\\"b\\\":2}]\""),
            (b"[{\"a\":1},\n", "1!!the list or map that begins here has no end: the file was cut off"),
            (b"{\"a\":", "1!!it has no end: the file was cut off"),
            (b"\xff\xfe{", "1!!the file is in UTF-16: save it as UTF-8"),
            (b"\x1f\x8b\x08", "1!!the file is compressed: unpack it with gunzip first"),
        ] {
            assert_eq!(scan(text).last().map(String::as_str), Some(expected));
        }
        let endless = [&b"{\"a\":\""[..], &vec![b'x'; MAX_OBJECT as usize + 10], b"\"}\n{\"b\":1}"].concat();
        assert_eq!(scan(&endless), [format!("1!it is longer than {MAX_OBJECT} bytes"), "2:{\"b\":1}".into()]);
    }

    #[test]
    fn no_bytes_make_it_panic_or_go_on_for_ever() {
        let mut state = 7_u64;
        let alphabet = b"{}[]\",:\\ \n1aQ\xff\0";
        for _ in 0..20_000 {
            let text: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    alphabet[(state >> 33) as usize % alphabet.len()]
                })
                .collect();
            scan(&text);
        }
    }
}
