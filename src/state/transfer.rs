//! The pinset as a text file: export, backup, import (reference F.8).
//!
//! One compact JSON object per line, as ipfs-cluster writes it, so that either program reads the other's
//! files. Reading is tolerant where files of older versions differ (CIDs as links, numeric types, missing
//! fields, pretty-printing) and strict about everything else: the first object that is not a pin ends the
//! import with its number and line. [`import`] only reads; nothing is changed until the caller has seen
//! the end of the file. Both directions hold one pin at a time.

use super::codec::{MAX_ALLOCATIONS, MAX_METADATA_BYTES};
use super::{Pin, Pins};
use crate::api::json;
use crate::api::types::{PinJson, PIN_TYPES};
use crate::clock::Timestamp;
use crate::error::{Context as _, Error, Result};
use crate::store::{make_dir, write_atomically};
use libp2p::PeerId;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Backups that are kept.
pub const KEEP_BACKUPS: usize = 5;
/// Longest object of an import in bytes: a pin at every limit, written with escapes, is shorter.
pub const MAX_OBJECT: u64 = (6 * MAX_METADATA_BYTES + 64 * MAX_ALLOCATIONS) as u64 + (512 << 10);
/// Names of backups: `pinset-000042.ndjson`.
const PREFIX: &str = "pinset-";
const SUFFIX: &str = ".ndjson";

/// Writes all pins, one line each; how many there were.
///
/// # Errors
/// When the state cannot be read or `out` cannot be written.
pub fn export(pins: &Pins, out: &mut dyn Write) -> Result<u64> {
    let mut count = 0;
    let mut line = Vec::new();
    for pin in pins {
        line.clear();
        json::append(&mut line, &PinJson::from_state(&pin?))?;
        out.write_all(&line).context("writing the export")?;
        count += 1;
    }
    Ok(count)
}

/// Exports into the folder `dir` under the next number and removes all but the newest
/// [`KEEP_BACKUPS`]; the file. Numbers and not times order them: the clock of a small board may be wrong.
///
/// # Errors
/// When the state cannot be read or the folder cannot be written; older backups then stay as they are.
pub fn backup(pins: &Pins, dir: &Path) -> Result<PathBuf> {
    let doing = || format!("the backup folder {}", dir.display());
    make_dir(dir)?;
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).context(doing())? {
        let name = entry.context(doing())?.file_name();
        let number =
            name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let file = |number: u64| dir.join(format!("{PREFIX}{number:06}{SUFFIX}"));
    let newest = file(numbers.last().map_or(1, |n| n.saturating_add(1)));
    write_atomically(&newest, |out| export(pins, out).map(drop))?;
    let surplus = (numbers.len() + 1).saturating_sub(KEEP_BACKUPS);
    for number in numbers.into_iter().take(surplus) {
        std::fs::remove_file(file(number)).context(doing())?;
    }
    Ok(newest)
}

/// What an import changes about every pin it reads.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Fewest copies instead of the file's, when given.
    pub replication_min: Option<i32>,
    /// Most copies instead of the file's, when given.
    pub replication_max: Option<i32>,
    /// Holders instead of the file's, when given.
    pub allocations: Option<Vec<PeerId>>,
    /// Fewest and most copies where the file says nothing (or 0): the cluster's default.
    pub default_replication: (i32, i32),
}

impl Default for ImportOptions {
    /// Nothing changed; everywhere where the file says nothing.
    fn default() -> Self {
        ImportOptions {
            replication_min: None,
            replication_max: None,
            allocations: None,
            default_replication: (-1, -1),
        }
    }
}

/// Reads pins from an export, one by one. Ends after the first error.
pub fn import<R: Read>(reader: R, options: ImportOptions) -> Import<R> {
    let position = Arc::new(Position::default());
    let metered = Metered { inner: BufReader::new(reader), position: position.clone() };
    let objects = serde_json::Deserializer::from_reader(metered).into_iter();
    Import { objects, position, options, number: 0, done: false }
}

/// Reads a whole export into memory; all pins or an error.
///
/// # Errors
/// [`crate::Kind::Invalid`] naming the object and the line that is not a pin.
pub fn import_all(reader: impl Read, options: ImportOptions) -> Result<Vec<Pin>> {
    import(reader, options).collect()
}

/// See [`import`].
pub struct Import<R: Read> {
    objects: serde_json::StreamDeserializer<
        'static,
        serde_json::de::IoRead<Metered<BufReader<R>>>,
        Map<String, Value>,
    >,
    position: Arc<Position>,
    options: ImportOptions,
    number: u64,
    done: bool,
}

impl<R: Read> Iterator for Import<R> {
    type Item = Result<Pin>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        self.position.object.store(0, Ordering::Relaxed);
        let object = match self.objects.next() {
            Some(object) => object,
            None => {
                self.done = true;
                return None;
            }
        };
        self.number += 1;
        let pin = object.map_err(|e| Error::invalid(e.to_string())).and_then(|o| self.options.pin(o));
        self.done = pin.is_err();
        let line = self.position.line.load(Ordering::Relaxed) + 1;
        Some(pin.context(format!("object {} of the import (line {line}) is not a pin", self.number)))
    }
}

/// How far the reader is, shared with the parser that owns it.
#[derive(Default)]
struct Position {
    line: AtomicU64,
    /// Bytes of the present object.
    object: AtomicU64,
}

/// Counts lines, and ends an object that has no end.
struct Metered<R> {
    inner: R,
    position: Arc<Position>,
}

impl<R: BufRead> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let size = self.inner.read(buffer)?;
        let lines = buffer[..size].iter().filter(|b| **b == b'\n').count() as u64;
        self.position.line.fetch_add(lines, Ordering::Relaxed);
        let object = self.position.object.fetch_add(size as u64, Ordering::Relaxed);
        if object > MAX_OBJECT {
            return Err(std::io::Error::other(format!("it is longer than {MAX_OBJECT} bytes")));
        }
        Ok(size)
    }
}

/// A CID as text, or as the link that versions 0.10 to 0.14 wrote.
#[derive(Deserialize)]
#[serde(untagged)]
enum CidText {
    Text(String),
    Link {
        #[serde(rename = "/")]
        text: String,
    },
}

impl CidText {
    fn into_text(self) -> String {
        match self {
            CidText::Text(text) | CidText::Link { text } => text,
        }
    }
}

/// A pin type by name, or by the bit that old versions wrote.
#[derive(Deserialize)]
#[serde(untagged)]
enum TypeText {
    Name(String),
    Bit(u64),
}

/// The fields of every version; all but the CID may be missing or `null`, others are ignored.
#[derive(Deserialize)]
struct Fields {
    cid: CidText,
    #[serde(rename = "type")]
    kind: Option<TypeText>,
    name: Option<String>,
    mode: Option<String>,
    max_depth: Option<i32>,
    replication_factor: Option<i32>,
    replication_factor_min: Option<i32>,
    replication_factor_max: Option<i32>,
    shard_size: Option<u64>,
    allocations: Option<Vec<String>>,
    metadata: Option<BTreeMap<String, String>>,
    origins: Option<Vec<String>>,
    expire_at: Option<String>,
    timestamp: Option<String>,
    pin_update: Option<CidText>,
    reference: Option<CidText>,
}

impl ImportOptions {
    fn pin(&self, object: Map<String, Value>) -> Result<Pin> {
        let fields = Fields::deserialize(Value::Object(object)).map_err(|e| Error::invalid(e.to_string()))?;
        let kind = match fields.kind {
            None => String::new(),
            Some(TypeText::Name(name)) => name,
            // Bit 1 << n for the n-th type, counted from 1.
            Some(TypeText::Bit(bit)) => {
                let position = (1..=PIN_TYPES.len()).find(|n| bit == 1 << n);
                let name = position.map(|n| PIN_TYPES[n - 1].1.to_string());
                name.ok_or_else(|| Error::invalid(format!("type {bit} is not one of 2, 4, 8, 16")))?
            }
        };
        let time = |what: &str, text: Option<String>| match text.filter(|t| !t.is_empty()) {
            Some(text) => Timestamp::parse(&text).context(what),
            None => Ok(Timestamp::ZERO),
        };
        let factor = |over: Option<i32>, own: Option<i32>, default: i32| {
            let given = |n: &i32| *n != 0;
            let own = own.filter(given).or(fields.replication_factor.filter(given));
            over.filter(given).or(own).unwrap_or(default)
        };
        let json = PinJson {
            replication_factor_min: factor(
                self.replication_min,
                fields.replication_factor_min,
                self.default_replication.0,
            ),
            replication_factor_max: factor(
                self.replication_max,
                fields.replication_factor_max,
                self.default_replication.1,
            ),
            name: fields.name.unwrap_or_default(),
            mode: fields.mode.unwrap_or_default(),
            shard_size: fields.shard_size.unwrap_or(0),
            user_allocations: None,
            expire_at: time("expire_at", fields.expire_at)?,
            metadata: fields.metadata,
            pin_update: fields.pin_update.map(CidText::into_text).filter(|t| !t.is_empty()),
            origins: fields.origins,
            cid: fields.cid.into_text(),
            kind,
            allocations: fields.allocations,
            max_depth: fields.max_depth.unwrap_or(-1),
            reference: fields.reference.map(CidText::into_text).filter(|t| !t.is_empty()),
            timestamp: time("timestamp", fields.timestamp)?,
        };
        let mut pin = json.to_pin()?.as_stored();
        if let Some(allocations) = &self.allocations {
            pin.allocations.clone_from(allocations);
        }
        if pin.is_everywhere() {
            // Old versions listed every peer of the day; the list would only grow stale.
            pin.allocations.clear();
        }
        pin.check()?;
        Ok(pin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::seed::seed;
    use crate::state::{version, Applied, PinMode, PinType};
    use crate::store::memory::MemoryState;
    use raft::eraftpb::ConfState;

    const CID: &str = "QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o";

    fn read(text: &str) -> Result<Vec<Pin>> {
        import_all(text.as_bytes(), ImportOptions::default())
    }

    fn state_of(pins: Vec<Pin>) -> Pins {
        let store = MemoryState::new();
        let at = Applied { index: 1, term: 1 };
        seed(&store, pins.into_iter().map(Ok), &[], &ConfState::default(), version::SPOKEN, at).expect("seed");
        Pins::new(Arc::new(store))
    }

    #[test]
    fn a_recorded_export_round_trips_byte_for_byte() {
        let recorded = include_str!("../../tests/golden/state-export.ndjson");
        let pins = read(recorded).expect("import");
        let mut out = Vec::new();
        assert_eq!(export(&state_of(pins), &mut out).expect("export"), 3);
        // The recording is in the order of a Go map, ours in the order of the keys.
        let mut lines: Vec<&str> = recorded.lines().collect();
        lines.sort_unstable_by_key(|line| line.split("\"cid\":").nth(1));
        let out = String::from_utf8(out).expect("text");
        assert_eq!(out.lines().collect::<Vec<_>>(), lines);
        assert!(out.ends_with("}\n"));
    }

    #[test]
    fn files_of_every_age_are_read() {
        let minimal = format!("\n{{\n  \"cid\": \"{CID}\",\n  \"name\": \"n\",\n  \"allocations\": null,\n  \"replication_factor\": 2\n}}\n\n");
        let pin = read(&minimal).expect("minimal").remove(0);
        assert_eq!((pin.replication_min, pin.replication_max, pin.mode), (2, 2, PinMode::Recursive));
        assert_eq!((pin.name.as_str(), pin.kind), ("n", PinType::Data));

        let old = format!("{{\"cid\":{{\"/\":\"{CID}\"}},\"type\":2,\"max_depth\":0,\"reference\":null,\"unknown\":[1]}}{{\"cid\":\"{CID}\",\"type\":16}}");
        let pins = read(&old).expect("0.10 to 0.14");
        assert_eq!((pins[0].kind, pins[0].mode), (PinType::Data, PinMode::Direct));
        assert_eq!(pins[1].kind, PinType::Shard);
        assert_eq!((pins[0].replication_min, pins[0].replication_max), (-1, -1), "the default");

        let options =
            ImportOptions { replication_max: Some(5), default_replication: (2, 3), ..Default::default() };
        let pin = import_all(old.as_bytes(), options).expect("options").remove(0);
        assert_eq!((pin.replication_min, pin.replication_max), (2, 5));
    }

    #[test]
    fn what_is_not_a_pin_is_named_by_number_and_line() {
        let good = format!("{{\"cid\":\"{CID}\"}}\n");
        for (bad, why) in [
            ("{\"name\":\"x\"}", "missing field `cid`"),
            ("{\"cid\":\"nonsense\"}", "is not a CID"),
            ("[1]", "expected a map"),
            ("{\"cid\":", "EOF"),
            ("garbage", "expected value"),
            (&format!("{{\"cid\":\"{CID}\",\"type\":3}}"), "type 3"),
            (&format!("{{\"cid\":\"{CID}\",\"allocations\":[\"me\"]}}"), "is not a peer id"),
            (&format!("{{\"cid\":\"{CID}\",\"name\":\"{}\"}}", "x".repeat(5_000)), "4096 are allowed"),
        ] {
            let error = read(&format!("{good}{good}{bad}")).expect_err(bad);
            assert_eq!(error.kind(), crate::Kind::Invalid, "{bad}");
            assert!(error.message().starts_with("object 3 of the import (line 3) is not a pin"), "{error}");
            assert!(error.message().contains(why), "{error}");
        }
        let endless = std::io::Read::chain(&b"{\"cid\":\""[..], std::io::repeat(b'x'));
        let error = import_all(endless, ImportOptions::default()).expect_err("endless");
        assert!(error.message().contains("longer than"), "{error}");
    }

    #[test]
    fn html_is_escaped_as_go_does() {
        let text = json::to_vec("a<b>&\u{2028}é\"").expect("json");
        assert_eq!(text, "\"a\\u003cb\\u003e\\u0026\\u2028é\\\"\"\n".as_bytes());
    }

    #[test]
    fn backups_are_numbered_and_five_are_kept() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path().join("backups");
        let pins = state_of(read(&format!("{{\"cid\":\"{CID}\"}}")).expect("pin"));
        for n in 1..=7 {
            assert_eq!(backup(&pins, &dir).expect("backup"), dir.join(format!("pinset-{n:06}.ndjson")));
        }
        let mut left: Vec<_> = std::fs::read_dir(&dir)
            .expect("ls")
            .map(|e| e.expect("entry").file_name().into_string().expect("text"))
            .collect();
        left.sort();
        let expected: Vec<_> = (3..=7).map(|n| format!("pinset-{n:06}.ndjson")).collect();
        assert_eq!(left, expected);
        let again =
            import_all(std::fs::File::open(dir.join(&left[4])).expect("open"), ImportOptions::default());
        assert_eq!(again.expect("import").len(), 1);
    }
}
