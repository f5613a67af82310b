//! Standard output, in text or JSON.
//!
//! Listings of 100,000 rows go through here one row at a time: buffered, never collected. A reader that
//! goes away (`pinfold status | head`) surfaces as a broken pipe, which ends the command quietly.

use super::failure::Failure;
use serde::Serialize;
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Bytes gathered before they are written, when nobody watches line by line.
const BUFFER: usize = 32 << 10;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Where results go.
pub struct Output {
    out: std::io::BufWriter<Box<dyn Write>>,
    /// How they are printed.
    pub encoding: Encoding,
    each_line: bool,
}

impl Output {
    /// Standard output; written line by line when a person watches.
    pub fn stdout(encoding: Encoding) -> Self {
        let stdout = std::io::stdout();
        let each_line = stdout.is_terminal();
        Output {
            out: std::io::BufWriter::with_capacity(BUFFER, Box::new(stdout.lock())),
            encoding,
            each_line,
        }
    }

    /// Any other place.
    pub fn to(writer: Box<dyn Write>, encoding: Encoding) -> Self {
        Output { out: std::io::BufWriter::with_capacity(BUFFER, writer), encoding, each_line: false }
    }

    /// Writes text as it is.
    ///
    /// # Errors
    /// When it cannot be written; [`Failure::Pipe`] when the reader went away.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// As [`Output::text`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes)?;
        if self.each_line {
            self.out.flush()?;
        }
        Ok(())
    }

    /// Writes one JSON item, indented.
    ///
    /// # Errors
    /// As [`Output::text`].
    pub fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.text(&pretty(value))
    }

    /// Makes sure everything was written.
    ///
    /// # Errors
    /// As [`Output::text`].
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush()?;
        Ok(())
    }
}

/// JSON as ipfs-cluster-ctl prints it: four spaces, `<`, `>` and `&` escaped, a newline at the end.
pub fn pretty(value: &Value) -> String {
    let mut bytes = Vec::with_capacity(512);
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).expect("a JSON value writes itself into memory");
    let mut text = String::with_capacity(bytes.len() + 1);
    for c in String::from_utf8(bytes).expect("JSON is UTF-8").chars() {
        match c {
            // Outside of strings these never occur in JSON.
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            c => text.push(c),
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_by_four_and_escaped_as_go_does() {
        let value = serde_json::json!({"b": [], "a": {"x<y": "&"}, "n": [1]});
        assert_eq!(
            pretty(&value),
            "{\n    \"b\": [],\n    \"a\": {\n        \"x\\u003cy\": \"\\u0026\"\n    },\n    \"n\": [\n        1\n    ]\n}\n"
        );
    }
}
