//! Reading pins: every form that ipfs-cluster and pinfold have written them in (reference F.8).
//!
//! Tolerant where files of older versions differ: CIDs as links, numeric types, fields that are missing, spelled as Go
//! spelled them before they had names, or unknown (told once each); lists and maps instead of lines ([`super::scan`]).
//! Strict about everything else: what is not a pin is told with its number and line. [`Import`] only reads;
//! nothing is changed until the caller has seen the end of the file and its [`Report`]. One pin is held at a time.

use super::leaks::Leaks;
use super::scan::{folded, Found, Scanner};
use crate::api::types::{PinJson, PIN_TYPES};
use crate::clock::Timestamp;
use crate::error::{Context as _, Error, Result};
use crate::state::Pin;
use libp2p::PeerId;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};

/// Faults that are told one by one; more are counted.
pub const MAX_FAULTS: usize = 100;
/// Unknown fields that are told.
const MAX_UNKNOWN: usize = 50;
/// Longest part of an unknown field's name that is shown.
const MAX_FIELD: usize = 64;
/// Holders that are counted apart.
const MAX_HOLDERS: usize = 1_000;

/// What an import changes about every pin it reads, and how it takes what is no pin.
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
    /// Only these holders are taken over from the file, when given; a pin that has none of them left is allocated
    /// anew by the cluster.
    pub keep_holders: Option<BTreeSet<PeerId>>,
    /// Go on after what is no pin, and tell it in the report instead of as an error.
    pub keep_going: bool,
}

impl Default for ImportOptions {
    /// Nothing changed; everywhere where the file says nothing; the first fault is an error.
    fn default() -> Self {
        ImportOptions {
            replication_min: None,
            replication_max: None,
            allocations: None,
            default_replication: (-1, -1),
            keep_holders: None,
            keep_going: false,
        }
    }
}

/// What was found while reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Pins.
    pub pins: u64,
    /// The first [`MAX_FAULTS`] things that are no pins, a sentence with number and line each.
    pub faults: Vec<String>,
    /// All of them.
    pub fault_count: u64,
    /// Fields that mean nothing to pinfold, and how many pins have them.
    pub unknown_fields: BTreeMap<String, u64>,
    /// Holders, and how many pins name them.
    pub holders: BTreeMap<PeerId, u64>,
    /// Pins that lost holders to [`ImportOptions::keep_holders`].
    pub reallocated: u64,
    /// Rows of pins that look as if ipfs-cluster had copied fields from one to the next.
    pub leaks: Vec<String>,
    /// Pins in such rows.
    pub leaked: u64,
}

/// Reads pins from an export, one by one. Ends after the first error.
pub fn import<R: Read>(reader: R, options: ImportOptions) -> Import<R> {
    Import {
        scanner: Scanner::new(BufReader::new(reader)),
        options,
        number: 0,
        done: false,
        report: Report::default(),
        leaks: Leaks::default(),
    }
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
    scanner: Scanner<BufReader<R>>,
    options: ImportOptions,
    number: u64,
    done: bool,
    report: Report,
    leaks: Leaks,
}

impl<R: Read> Iterator for Import<R> {
    type Item = Result<Pin>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let (line, fatal, pin) = match self.scanner.next() {
                Ok(Some(Found::Object { line, key, bytes })) => (line, false, self.pin(key, &bytes)),
                // The end of an envelope in which there was nothing.
                Ok(Some(Found::Bad { why, .. })) if why.is_empty() => {
                    self.done = true;
                    return None;
                }
                Ok(Some(Found::Bad { line, why, fatal })) => (line, fatal, Err(Error::invalid(why))),
                Ok(None) => {
                    self.done = true;
                    return None;
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            };
            self.number += 1;
            match pin {
                Ok(pin) => {
                    self.note(&pin, line);
                    return Some(Ok(pin));
                }
                Err(error) => {
                    let error = error
                        .context(format!("object {} of the import (line {line}) is not a pin", self.number));
                    self.done = fatal || !self.options.keep_going;
                    if !self.options.keep_going {
                        return Some(Err(error));
                    }
                    self.report.fault_count += 1;
                    if self.report.faults.len() < MAX_FAULTS {
                        self.report.faults.push(error.message().to_owned());
                    }
                }
            }
        }
        None
    }
}

impl<R: Read> Import<R> {
    /// What was found; complete once the iterator has ended.
    pub fn into_report(self) -> Report {
        let (leaks, leaked) = self.leaks.sentences();
        Report { leaks, leaked, ..self.report }
    }

    fn note(&mut self, pin: &Pin, line: u64) {
        self.report.pins += 1;
        for holder in &pin.allocations {
            if self.report.holders.len() < MAX_HOLDERS || self.report.holders.contains_key(holder) {
                *self.report.holders.entry(*holder).or_default() += 1;
            }
        }
        self.leaks.look(pin, line);
    }

    fn pin(&mut self, key: Option<String>, bytes: &[u8]) -> Result<Pin> {
        let object: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|e| Error::invalid(e.to_string()))?;
        let mut fields = Map::new();
        for (name, value) in object {
            let folded = folded(&name);
            match FIELDS.iter().find(|known| **known == folded) {
                Some(known) => drop(fields.insert((*known).to_owned(), value)),
                None if IGNORED.contains(&folded.as_str()) => {}
                None => {
                    let unknown = &mut self.report.unknown_fields;
                    let name: String = name.chars().take(MAX_FIELD).collect();
                    if unknown.len() < MAX_UNKNOWN || unknown.contains_key(&name) {
                        *unknown.entry(name).or_default() += 1;
                    }
                }
            }
        }
        if let (Some(key), None) = (key, fields.get("cid")) {
            fields.insert("cid".to_owned(), Value::String(key));
        }
        let mut pin = self.options.pin(fields)?;
        if let Some(keep) = &self.options.keep_holders {
            let before = pin.allocations.len();
            pin.allocations.retain(|holder| keep.contains(holder));
            self.report.reallocated += u64::from(pin.allocations.len() < before);
        }
        Ok(pin)
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

/// A time as text, or in seconds since 1970.
#[derive(Deserialize)]
#[serde(untagged)]
enum TimeText {
    Text(String),
    Seconds(i64),
}

/// The fields of [`Fields`], folded.
const FIELDS: [&str; 18] = [
    "cid",
    "type",
    "name",
    "mode",
    "recursive",
    "everywhere",
    "maxdepth",
    "replicationfactor",
    "replicationfactormin",
    "replicationfactormax",
    "shardsize",
    "allocations",
    "metadata",
    "origins",
    "expireat",
    "timestamp",
    "pinupdate",
    "reference",
];
/// Fields that say nothing about the pin as it is kept.
const IGNORED: [&str; 1] = ["userallocations"];

/// The fields of every version; all but the CID may be missing or `null`.
#[derive(Deserialize)]
struct Fields {
    cid: CidText,
    #[serde(rename = "type")]
    kind: Option<TypeText>,
    name: Option<String>,
    mode: Option<String>,
    recursive: Option<bool>,
    everywhere: Option<bool>,
    #[serde(rename = "maxdepth")]
    max_depth: Option<i32>,
    #[serde(rename = "replicationfactor")]
    replication: Option<i32>,
    #[serde(rename = "replicationfactormin")]
    replication_min: Option<i32>,
    #[serde(rename = "replicationfactormax")]
    replication_max: Option<i32>,
    #[serde(rename = "shardsize")]
    shard_size: Option<u64>,
    allocations: Option<Vec<String>>,
    metadata: Option<BTreeMap<String, String>>,
    origins: Option<Vec<String>>,
    #[serde(rename = "expireat")]
    expire_at: Option<TimeText>,
    timestamp: Option<TimeText>,
    #[serde(rename = "pinupdate")]
    pin_update: Option<CidText>,
    reference: Option<CidText>,
}

fn time(what: &str, text: Option<TimeText>) -> Result<Timestamp> {
    match text {
        None | Some(TimeText::Seconds(0)) => Ok(Timestamp::ZERO),
        Some(TimeText::Text(text)) if text.is_empty() => Ok(Timestamp::ZERO),
        Some(TimeText::Text(text)) => Timestamp::parse(&text).context(what),
        Some(TimeText::Seconds(seconds)) => Ok(Timestamp::from_secs(seconds)),
    }
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
        let everywhere = fields.everywhere.filter(|yes| *yes).map(|_| -1);
        let factor = |over: Option<i32>, own: Option<i32>, default: i32| {
            let given = |n: &i32| *n != 0;
            let own = own.filter(given).or(fields.replication.filter(given)).or(everywhere);
            over.filter(given).or(own).unwrap_or(default)
        };
        let depth = if fields.recursive == Some(false) { 0 } else { -1 };
        let json = PinJson {
            replication_factor_min: factor(
                self.replication_min,
                fields.replication_min,
                self.default_replication.0,
            ),
            replication_factor_max: factor(
                self.replication_max,
                fields.replication_max,
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
            max_depth: fields.max_depth.unwrap_or(depth),
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
