//! `config set`: some keys of service.json get other values, all of them or none.
//!
//! What is asked for comes as *assignments*: words `KEY=VALUE`, whose value is read as the key's variable would be, or
//! a JSON object shaped like service.json, in which only what is to change stands. Names may have dashes where the file
//! has underscores, since some who configure programs (snapd) allow no underscores; no key has a dash of its own.
//!
//! Only what is asked for is touched: the rest of the file keeps its values, its order and what is unknown to this
//! program. A section that is made on the way gets the keys of a fresh file, as a boolean missing from a section that
//! is there would be false. The new file is read as the daemon would read it before it takes the place of the old one.
//!
//! *Managed* assignments are declarative: beside the file lies a record of what stood there before, and each time that is
//! put back first. So a key that is no longer asked for gets its old value again, and doing the same twice changes
//! nothing. The record is written in an order in which every power cut leaves one that leads back.
//!
//! This module must never show a secret, nor take one from the command line, where every user of the machine can read it.

use super::file::{self, shown, tame};
use super::folder::write_private;
use super::schema::{insert, lookup, remove, Flag, Place, Section, Visitor};
use super::setting::Setting;
use super::{keys, old, unknown, Config, Env, Folder, Hidden, Key};
use crate::error::{Context, Error, Result};
use rustix::fs::{flock, FlockOperation};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// What is to be set: by dotted path, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Assignments(BTreeMap<String, Given>);

/// A value as it was given. Its `Debug` is silent, as it may be a secret.
#[derive(Clone)]
enum Given {
    /// As a variable would say it.
    Text(String),
    /// As the file would.
    Json(Value),
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Given")
    }
}

/// One key, or one section that was switched on or off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Dotted path.
    pub key: String,
    /// What stood there, as JSON; `None` when nothing did. Never a secret.
    pub before: Option<String>,
    /// What stands there now.
    pub after: Option<String>,
}

/// What setting would do, or nothing.
#[derive(Debug)]
pub struct Edit {
    /// What changes, in the order of the table.
    pub changes: Vec<Set>,
    /// What is worth a warning.
    pub warnings: Vec<String>,
    text: Hidden,
    record: Record,
    /// The record that leads back from the old file as well as from the new one.
    bridge: Record,
    old_record: Record,
}

impl Assignments {
    /// Adds one word of the command line, `KEY=VALUE`.
    ///
    /// # Errors
    /// No `=`, a secret, or a key that was given before.
    pub fn word(&mut self, word: &str) -> Result<()> {
        let (name, text) = word.split_once('=').ok_or_else(|| {
            Error::invalid(format!(
                "\"{}\" sets nothing; write KEY=VALUE, like cluster.peername=attic",
                clip(word)
            ))
        })?;
        let path = underscored(name);
        if keys().iter().any(|key| key.path == path && key.secret) {
            return Err(Error::invalid(format!(
                "{path} is a secret, and a command line can be read by every user of this machine; give it on standard \
                 input: echo '{path}=…' | pinfold config set --stdin"
            )));
        }
        self.add(path, Given::Text(text.to_owned()))
    }

    /// Adds what standard input said: a JSON object, or one `KEY=VALUE` in a line. Here secrets are welcome.
    ///
    /// # Errors
    /// What is neither, a key that does not exist, or one that was given before.
    pub fn read(&mut self, text: &str) -> Result<()> {
        if text.trim_start().starts_with('{') {
            let tree = file::parse_json("standard input", text)?;
            return self.flatten("", tree);
        }
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            // The line may be a secret whose key is misspelt: it is not repeated.
            let (name, text) = line
                .split_once('=')
                .ok_or_else(|| Error::invalid("a line of standard input has no \"=\"; write KEY=VALUE"))?;
            self.add(underscored(name), Given::Text(text.to_owned()))?;
        }
        Ok(())
    }

    /// Whether nothing is to be set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn flatten(&mut self, prefix: &str, tree: Value) -> Result<()> {
        let Value::Object(map) = tree else { return Ok(()) };
        for (name, value) in map {
            let name = underscored(&name);
            let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            let inside = format!("{path}.");
            // A map of texts is a value; any other object is a section to look into.
            let section = keys().iter().any(|key| key.path.starts_with(&inside));
            if section && value.is_object() {
                self.flatten(&path, value)?;
            } else {
                self.add(path, Given::Json(value))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: String, given: Given) -> Result<()> {
        if self.0.contains_key(&path) {
            return Err(Error::invalid(format!("{} is given twice; leave one out", clip(&path))));
        }
        self.0.insert(path, given);
        Ok(())
    }
}

/// A key's name as the file has it.
fn underscored(name: &str) -> String {
    name.trim().replace('-', "_")
}

/// A name for a message.
fn clip(text: &str) -> String {
    const MOST: usize = 100;
    file::one_line(text, MOST)
}

/// Where keys are whose value a typing mistake is told of before anything else.
struct Fitting<'a> {
    given: &'a Assignments,
    /// By path, as it will stand in the file.
    fitted: Vec<(String, Value)>,
    /// The sections that may be absent.
    optional: Vec<String>,
}

impl Visitor for Fitting<'_> {
    fn leaf<T: Setting>(&mut self, at: &Place, _value: &mut T, _default: &T) -> Result<()> {
        let Some(given) = self.given.0.get(&at.path) else { return Ok(()) };
        let as_variable = |text: &str| T::from_env(text).and_then(|json| T::parse(&json).map(|_| json));
        let (raw, fitted) = match given {
            Given::Text(text) => (Value::String(text.clone()), as_variable(text)),
            Given::Json(Value::String(text)) => (Value::String(text.clone()), as_variable(text)),
            // 1234 may well be meant as a name: whoever hands it on may have made a number of it.
            Given::Json(raw @ (Value::Number(_) | Value::Bool(_))) => {
                let fitted = T::parse(raw).map(|_| raw.clone());
                (raw.clone(), fitted.or_else(|why| as_variable(&raw.to_string()).map_err(|_| why)))
            }
            Given::Json(raw) => (raw.clone(), T::parse(raw).map(|_| raw.clone())),
        };
        let fitted = fitted.map_err(|why| {
            Error::invalid(format!("{} is {}: {}", at.path, shown(&raw, T::SECRET), tame(why, &raw)))
        })?;
        // A list of one is written as a fresh file has it.
        let fitted = match (T::parse(&fitted).map(|value| value.to_json(at.has(Flag::List))), fitted) {
            (Ok(Value::String(one)), Value::Array(_)) => Value::String(one),
            (_, fitted) => fitted,
        };
        self.fitted.push((at.path.clone(), fitted));
        Ok(())
    }

    fn optional<T: Section>(&mut self, at: &Place, section: &mut Option<T>, default: &T) {
        self.optional.push(at.path.clone());
        *section = Some(default.clone());
    }
}

/// What stood where something was changed, in the order of the changes; `null` for nothing.
#[derive(Clone, PartialEq)]
struct Record(Vec<(String, Value)>);

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(path, _)| path)).finish()
    }
}

impl Record {
    fn load(path: &Path) -> Result<Record> {
        if path.symlink_metadata().is_err() {
            return Ok(Record(Vec::new()));
        }
        let name = path.display().to_string();
        let tree = file::parse_json(&name, &file::read_text(path)?)?;
        let Value::Object(map) = tree else { return Ok(Record(Vec::new())) };
        Ok(Record(map.into_iter().collect()))
    }

    fn save(&self, path: &Path) -> Result<()> {
        let map: Map<String, Value> = self.0.iter().cloned().collect();
        write_private(path, file::to_text(&Value::Object(map))?.as_bytes())
    }

    fn note(&mut self, tree: &Value, path: &str) {
        if !self.0.iter().any(|(noted, _)| noted == path) {
            self.0.push((path.to_owned(), lookup(tree, path).cloned().unwrap_or(Value::Null)));
        }
    }

    fn put_back(&self, tree: &mut Value) {
        for (path, before) in self.0.iter().rev() {
            match before {
                Value::Null => drop(remove(tree, path)),
                value => insert(tree, path, value.clone()),
            }
        }
    }

    /// This record, and what only the other one has.
    fn with(&self, other: &Record) -> Record {
        let mut both = other.clone();
        both.0.retain(|(path, _)| !self.0.iter().any(|(mine, _)| mine == path));
        both.0.extend(self.0.iter().cloned());
        both
    }
}

impl Edit {
    /// Reads service.json of a folder and says what setting would do. `managed` names the record of assignments that
    /// are meant to be all there are.
    ///
    /// # Errors
    /// A key that does not exist, a value that does not fit, or a file that the daemon would not start with.
    pub fn plan(folder: &Folder, given: &Assignments, managed: Option<&Path>, env: &Env) -> Result<Edit> {
        let path = folder.service_json();
        let name = path.display().to_string();
        let before = file::parse_json(&name, &file::read_text(&path)?)?;
        if !old::modernise(&mut before.clone(), &mut Vec::new()).changes.is_empty() {
            return Err(Error::conflict(format!(
                "{name} is of an older version; run `pinfold config upgrade` first, and then set again"
            )));
        }
        let old_record = managed.map_or(Ok(Record(Vec::new())), Record::load)?;
        let mut after = before.clone();
        old_record.put_back(&mut after);
        let mut record = Record(Vec::new());
        let optional = assign(&mut after, given, &mut record)?;
        let text = file::to_text(&after)?;
        let mut warnings = good(folder, &before, &text, env)?;
        for key in keys().iter().filter(|key| given.0.contains_key(&key.path)) {
            if env.get(&key.env).is_some() {
                let (path, variable) = (&key.path, &key.env);
                warnings.push(format!(
                    "the environment variable {variable} wins over what {path} says in the file"
                ));
            }
        }
        let changes =
            if before == after { Vec::new() } else { differences(&before, &after, given, &optional) };
        Ok(Edit {
            changes,
            warnings,
            bridge: record.with(&old_record),
            text: Hidden(text),
            record,
            old_record,
        })
    }

    /// Whether service.json would change.
    pub fn is_needed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The record as it is before service.json is written.
    #[cfg(test)]
    pub(super) fn bridge_text(&self) -> String {
        let map: Map<String, Value> = self.bridge.0.iter().cloned().collect();
        Value::Object(map).to_string()
    }

    /// Writes service.json, and the record of `managed` assignments.
    ///
    /// # Errors
    /// Names the file and what the system said; service.json is then as it was.
    pub fn apply(&self, folder: &Folder, managed: Option<&Path>) -> Result<()> {
        if let Some(path) = managed.filter(|_| self.is_needed()) {
            self.bridge.save(path)?;
        }
        if self.is_needed() {
            write_private(&folder.service_json(), self.text.0.as_bytes())?;
        }
        match managed {
            Some(path) if self.is_needed() || self.record != self.old_record => self.record.save(path),
            _ => Ok(()),
        }
    }
}

/// Keeps two commands from editing one file at a time, until it is dropped. The daemon's own lock is left alone: it
/// reads the file only when it starts.
///
/// # Errors
/// [`crate::Kind::Conflict`] while another command edits it.
pub fn lock(folder: &Folder) -> Result<File> {
    let path = folder.path();
    let held = File::open(path).context(format!("opening {}", path.display()))?;
    flock(&held, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::conflict(format!("another command is editing service.json in {}; try again", path.display()))
    })?;
    Ok(held)
}

/// Reads the new file as the daemon would. Gives the warnings that the old one did not have.
fn good(folder: &Folder, before: &Value, text: &str, env: &Env) -> Result<Vec<String>> {
    let name = "service.json as it would be";
    let known = Config::parse(name, &before.to_string(), env);
    let (config, mut warnings) = Config::parse(name, text, env)?;
    let mut exposed = config.check_exposure(false).err();
    if let Ok((before, old)) = known {
        warnings.retain(|warning| !old.contains(warning));
        // Whoever starts the daemon with --insecure-no-secret lives with that already.
        exposed = exposed.filter(|now| before.check_exposure(false).err().as_ref() != Some(now));
    }
    match exposed {
        Some(error) => Err(error).context(format!("{} was not changed", folder.service_json().display())),
        None => Ok(warnings),
    }
}

/// Makes the assignments, and notes what stood there. Gives the sections that may be absent.
fn assign(tree: &mut Value, given: &Assignments, record: &mut Record) -> Result<Vec<String>> {
    let mut fitting = Fitting { given, fitted: Vec::new(), optional: Vec::new() };
    Config::default().visit(&mut fitting)?;
    let Fitting { fitted, optional, .. } = fitting;
    for (path, value) in &given.0 {
        if fitted.iter().any(|(known, _)| known == path) {
            continue;
        }
        if !optional.contains(path) {
            return Err(no_key(path));
        }
        match switch(path, value)? {
            true => make(tree, path, record),
            false => {
                let inside = format!("{path}.");
                if let Some((key, _)) = given.0.iter().find(|(key, _)| key.starts_with(&inside)) {
                    return Err(Error::invalid(format!(
                        "{path} is switched off and {key} set at once; leave one out"
                    )));
                }
                record.note(tree, path);
                remove(tree, path);
            }
        }
    }
    for (path, value) in fitted {
        if let Some((section, _)) = path.rsplit_once('.') {
            make(tree, section, record);
        }
        record.note(tree, &path);
        insert(tree, &path, value);
    }
    Ok(optional)
}

/// Whether a section is to be there.
fn switch(path: &str, given: &Given) -> Result<bool> {
    let text = match given {
        Given::Text(text) | Given::Json(Value::String(text)) => text.as_str(),
        Given::Json(Value::Bool(true)) => "on",
        Given::Json(Value::Bool(false)) => "off",
        Given::Json(_) => "",
    };
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(Error::invalid(format!(
            "{path} is a section; set it to on or off, or set a key of it, like {}",
            example(path)
        ))),
    }
}

fn no_key(path: &str) -> Error {
    let inside = format!("{path}.");
    if keys().iter().any(|key| key.path.starts_with(&inside)) {
        return Error::invalid(format!("{path} is a section; set a key of it, like {}", example(path)));
    }
    let hint = unknown::nearest(path, keys()).map(|key| format!("; did you mean {key}?")).unwrap_or_default();
    Error::invalid(format!(
        "{} is not a key of service.json{hint} (`pinfold config keys` lists them all)",
        clip(path)
    ))
}

/// The first key of a section.
fn example(section: &str) -> &'static str {
    let inside = format!("{section}.");
    keys().iter().find(|key| key.path.starts_with(&inside)).map_or("", |key| key.path.as_str())
}

/// Makes a section that is not there, and those that it is in, each with the keys of a fresh file.
fn make(tree: &mut Value, section: &str, record: &mut Record) {
    let ends = section.match_indices('.').map(|(at, _)| at).chain([section.len()]);
    for level in ends.filter_map(|end| section.get(..end)) {
        if lookup(tree, level).is_some() {
            continue;
        }
        record.note(tree, level);
        insert(tree, level, Value::Object(Map::new()));
        let inside = format!("{level}.");
        let direct = |key: &&Key| key.path.strip_prefix(&inside).is_some_and(|name| !name.contains('.'));
        for key in keys().iter().filter(direct).filter(|key| !key.optional) {
            // A default that is said in words differs from machine to machine, and is no boolean.
            if let Ok(default) = serde_json::from_str(&key.default) {
                insert(tree, &key.path, default);
            }
        }
    }
}

/// What is not the same in both trees: sections that come or go as one line each, with what was asked for in them.
fn differences(before: &Value, after: &Value, given: &Assignments, optional: &[String]) -> Vec<Set> {
    let there = |tree: &Value, section: &str| lookup(tree, section).is_some();
    let mut changes = Vec::new();
    let mut switched: Vec<String> = Vec::new();
    for section in optional {
        let (old, new) = (there(before, section), there(after, section));
        if old != new {
            let word = |on: bool| Some(if on { "on" } else { "off" }.to_owned());
            changes.push(Set { key: section.clone(), before: word(old), after: word(new) });
            switched.push(format!("{section}."));
        }
    }
    for key in keys() {
        let (old, new) = (lookup(before, &key.path), lookup(after, &key.path));
        let by_section = switched.iter().any(|inside| key.path.starts_with(inside));
        if old == new || by_section && !given.0.contains_key(&key.path) {
            continue;
        }
        let said = |value: Option<&Value>| value.map(|value| shown(value, key.secret));
        changes.push(Set { key: key.path.clone(), before: said(old), after: said(new) });
    }
    if changes.is_empty() {
        // Something that no key is about, like an empty section that was put back.
        changes.push(Set { key: "service.json".into(), before: None, after: None });
    }
    changes
}
