//! service.json as text: read with limits and positions, walked into the typed configuration and back.
//!
//! Reading goes key by key: the default, then the file, then the environment variable. A value that does
//! not fit is an error that names the key (or the variable), the value and what would be right. Writing
//! changes only what it knows: a section or key that this program has never heard of stays where it was.

use super::env::Env;
use super::schema::{env_name, insert, lookup, Flag, Place, Section, Visitor};
use super::setting::Setting;
use super::Key;
use crate::error::{Context, Error, Result};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// The largest configuration file that is read. Real ones have some 5 KB.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most characters of a wrong value that are shown.
const MAX_SHOWN: usize = 120;
/// The most characters that say what is wrong with it.
const MAX_WHY: usize = 400;

/// Reads a text file, refusing what is too large or not text.
pub(super) fn read_text(path: &Path) -> Result<String> {
    // The words of ipfs-cluster's own message; scripts look for them.
    let refused = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::not_found(format!("open {}: no such file or directory", path.display()))
        }
        _ => Error::from_io(format!("open {}", path.display()), &e),
    };
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(refused)?.is_file() {
        return Err(Error::io(format!("{} is not a file; move it away", path.display())));
    }
    let opened = std::fs::File::open(path).map_err(refused)?;
    let mut bytes = Vec::new();
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).context(format!("reading {}", path.display()))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::too_large(format!(
            "{} is larger than {MAX_FILE_BYTES} bytes and cannot be a configuration; check that it is the right file",
            path.display()
        )));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::invalid(format!(
            "{} is not text (byte {at} is not UTF-8); restore it from a backup",
            path.display()
        ))
    })
}

/// Parses JSON whose top is an object.
pub(super) fn parse_json(name: &str, text: &str) -> Result<Value> {
    if text.trim().is_empty() {
        return Err(Error::invalid(format!("{name} is empty; make a new one with init")));
    }
    // A byte order mark is what some editors leave behind, and no reason to refuse a file.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value: Value = serde_json::from_str(text).map_err(|e| {
        // The position is said in the sentence already; serde's own text repeats it at its end.
        let full = e.to_string();
        let what = full.rsplit_once(" at line ").map_or(full.as_str(), |(what, _)| what);
        Error::invalid(format!(
            "{name}, line {}, column {}: the JSON is not valid: {what}",
            e.line(),
            e.column()
        ))
    })?;
    if !value.is_object() {
        return Err(Error::invalid(format!(
            "{name} must hold a JSON object, {{…}}, and holds something else"
        )));
    }
    Ok(value)
}

/// A value for a message: short, and never a secret.
pub(super) fn shown(value: &Value, secret: bool) -> String {
    if secret {
        return "a value that is not shown here".into();
    }
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What is wrong with a value, in one line of a length for people: it often repeats the value itself.
pub(super) fn tame(why: String, value: &Value) -> String {
    let short = match value.as_str() {
        Some(text) if text.chars().count() > MAX_SHOWN => why.replace(text, "…"),
        _ => why,
    };
    one_line(&short, MAX_WHY)
}

/// A message without what would make it several lines, and with at most so many characters.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let mut line: String = text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        line.push('…');
    }
    line
}

/// Walks a file (and the environment) into the configuration.
pub(super) struct Reader<'a> {
    pub(super) tree: &'a Value,
    pub(super) env: &'a Env,
    pub(super) warnings: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn in_file<T: Setting>(&self, at: &Place, default: &T) -> Result<T> {
        let Some(raw) = lookup(self.tree, &at.path) else {
            let parent = at.path.rsplit_once('.').map_or("", |(parent, _)| parent);
            let trimmed = T::ZERO_WHEN_MISSING || at.has(Flag::ZeroWhenMissing);
            // The section is there and the key is not: a boolean is then false, whatever its default.
            if trimmed && !at.has(Flag::Optional) && lookup(self.tree, parent).is_some() {
                return Ok(T::zero().unwrap_or_else(|| default.clone()));
            }
            return Ok(default.clone());
        };
        let value = T::parse(raw).map_err(|why| {
            Error::invalid(format!("{} is {}: {}", at.path, shown(raw, T::SECRET), tame(why, raw)))
        })?;
        Ok(self.or_default(at, value, default))
    }

    fn or_default<T: Setting>(&self, at: &Place, value: T, default: &T) -> T {
        let zero_is_default =
            !at.has(Flag::Zero) && !T::ZERO_WHEN_MISSING && T::zero().as_ref() == Some(&value);
        if zero_is_default {
            default.clone()
        } else {
            value
        }
    }
}

impl Visitor for Reader<'_> {
    fn leaf<T: Setting>(&mut self, at: &Place, value: &mut T, default: &T) -> Result<()> {
        *value = self.in_file(at, default)?;
        let name = env_name(&at.path);
        if let Some(text) = self.env.get(&name) {
            let raw = Value::String(text.to_owned());
            let parsed = T::from_env(text).and_then(|json| T::parse(&json)).map_err(|why| {
                Error::invalid(format!(
                    "the environment variable {name} ({}) is {}: {}",
                    at.path,
                    shown(&raw, T::SECRET),
                    tame(why, &raw)
                ))
            })?;
            *value = self.or_default(at, parsed, default);
        }
        if let Some(Flag::NoEffect(why)) = at.flags.iter().find(|f| matches!(f, Flag::NoEffect(_))) {
            // A missing boolean is no wish of anybody's; only what was written down is worth a word.
            let said = lookup(self.tree, &at.path).is_some() || self.env.get(&name).is_some();
            if said && value != default && !at.has(Flag::Silent) {
                self.warnings.push(format!("{} has no effect in this version: {why}", at.path));
            }
        }
        Ok(())
    }

    fn optional<T: Section>(&mut self, at: &Place, section: &mut Option<T>, default: &T) {
        *section = lookup(self.tree, &at.path).map(|_| default.clone());
    }
}

/// Walks the configuration into a file.
pub(super) struct Writer<'a> {
    pub(super) tree: &'a mut Value,
}

impl Visitor for Writer<'_> {
    fn leaf<T: Setting>(&mut self, at: &Place, value: &mut T, default: &T) -> Result<()> {
        if at.has(Flag::Optional) && value == default && lookup(self.tree, &at.path).is_none() {
            return Ok(());
        }
        let json = value.to_json(at.has(Flag::List));
        // "90s" and "1m30s" are the same: what a person wrote stays as it was written.
        let same =
            lookup(self.tree, &at.path).and_then(|old| T::parse(old).ok()).is_some_and(|old| old == *value);
        if !same {
            insert(self.tree, &at.path, json);
        }
        Ok(())
    }

    fn optional<T: Section>(&mut self, _at: &Place, _section: &mut Option<T>, _default: &T) {}
}

/// Walks the declaration into the table of keys.
pub(super) struct Lister {
    pub(super) keys: Vec<Key>,
}

impl Visitor for Lister {
    fn leaf<T: Setting>(&mut self, at: &Place, _value: &mut T, default: &T) -> Result<()> {
        let mut key = Key {
            path: at.path.clone(),
            env: env_name(&at.path),
            kind: T::KIND,
            default: default.to_json(at.has(Flag::List)).to_string(),
            meaning: at.meaning.clone(),
            unit: None,
            no_effect: None,
            optional: at.has(Flag::Optional),
            secret: T::SECRET,
        };
        for flag in at.flags {
            match flag {
                Flag::Unit(unit) => key.unit = Some(unit),
                Flag::NoEffect(why) => key.no_effect = Some(why),
                Flag::Shown(text) => key.default = (*text).to_owned(),
                Flag::Optional | Flag::Zero | Flag::ZeroWhenMissing | Flag::List | Flag::Silent => {}
            }
        }
        self.keys.push(key);
        Ok(())
    }

    fn optional<T: Section>(&mut self, _at: &Place, section: &mut Option<T>, default: &T) {
        *section = Some(default.clone());
    }
}

/// The text of a file: two spaces of indent and no newline at the end, as ipfs-cluster writes it.
pub(super) fn to_text(tree: &Value) -> Result<String> {
    serde_json::to_string_pretty(tree)
        .map_err(|e| Error::internal(format!("writing the configuration as JSON: {e}")))
}
