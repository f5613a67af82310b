//! The kinds of values a key of service.json can have.
//!
//! A [`Setting`] knows four things about its kind: how to read it from JSON, from an environment
//! variable, how to write it back, and what counts as "zero" (ipfs-cluster lets a zero stand for the
//! default). Reading is strict: a wrong kind is an error that says what was expected, never a guess.
//!
//! This module must never print a secret: kinds that hold one set [`Setting::SECRET`], and their `Debug`
//! shows only that there is something.

use crate::clock;
use data_encoding::HEXLOWER_PERMISSIVE;
use libp2p::multiaddr::Protocol;
use libp2p::Multiaddr;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The most elements one list or map of the configuration may have.
pub const MAX_ELEMENTS: usize = 4096;
/// The cluster secret's length.
pub const SECRET_BYTES: usize = 32;

/// A kind of value. Errors are half sentences that go behind `<key> is <value>: `.
pub(super) trait Setting: Clone + PartialEq {
    /// What the documentation calls this kind.
    const KIND: &'static str;
    /// Its value must not appear in messages.
    const SECRET: bool = false;
    /// A key that is missing from a section that is there means [`Setting::zero`], not the default.
    /// True for booleans, as in ipfs-cluster.
    const ZERO_WHEN_MISSING: bool = false;

    /// Reads it from JSON.
    fn parse(value: &Value) -> Result<Self, String>;
    /// Turns the text of an environment variable into the JSON that [`Setting::parse`] reads.
    fn from_env(text: &str) -> Result<Value, String> {
        Ok(Value::String(text.to_owned()))
    }
    /// Writes it as JSON. `list`: a list stays a list, even with one element.
    fn to_json(&self, list: bool) -> Value;
    /// The value that JSON's absence stands for.
    fn zero() -> Option<Self> {
        None
    }
}

fn expected<T>(what: &str) -> Result<T, String> {
    Err(format!("it must be {what}"))
}

impl Setting for bool {
    const KIND: &'static str = "boolean";
    const ZERO_WHEN_MISSING: bool = true;

    fn parse(value: &Value) -> Result<Self, String> {
        value.as_bool().map_or_else(|| expected("true or false, without quotes"), Ok)
    }
    fn from_env(text: &str) -> Result<Value, String> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" | "" => Ok(Value::Bool(false)),
            _ => expected("true or false"),
        }
    }
    fn to_json(&self, _list: bool) -> Value {
        Value::Bool(*self)
    }
    fn zero() -> Option<Self> {
        Some(false)
    }
}

macro_rules! integers {
    ($($t:ty, $what:literal;)*) => { $(
        impl Setting for $t {
            const KIND: &'static str = "number";

            fn parse(value: &Value) -> Result<Self, String> {
                let wide = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
                wide.and_then(|n| <$t>::try_from(n).ok()).map_or_else(|| expected($what), Ok)
            }
            fn from_env(text: &str) -> Result<Value, String> {
                text.trim().parse::<$t>().map(Value::from).or_else(|_| expected($what))
            }
            fn to_json(&self, _list: bool) -> Value {
                Value::from(*self)
            }
            fn zero() -> Option<Self> {
                Some(0)
            }
        }
    )* };
}

integers! {
    i32, "a whole number between -2147483648 and 2147483647, without quotes";
    u32, "a whole number between 0 and 4294967295, without quotes";
    u64, "a whole number of 0 or more, without quotes";
}

impl Setting for f64 {
    const KIND: &'static str = "fraction";

    fn parse(value: &Value) -> Result<Self, String> {
        value.as_f64().map_or_else(|| expected("a number like 0.3, without quotes"), Ok)
    }
    fn from_env(text: &str) -> Result<Value, String> {
        let number = text.trim().parse::<f64>().ok().and_then(Number::from_f64);
        number.map(Value::Number).map_or_else(|| expected("a number like 0.3"), Ok)
    }
    fn to_json(&self, _list: bool) -> Value {
        Number::from_f64(*self).map_or(Value::Null, Value::Number)
    }
    fn zero() -> Option<Self> {
        Some(0.0)
    }
}

impl Setting for String {
    const KIND: &'static str = "text";

    fn parse(value: &Value) -> Result<Self, String> {
        value.as_str().map_or_else(|| expected("text in quotes"), |s| Ok(s.to_owned()))
    }
    fn to_json(&self, _list: bool) -> Value {
        Value::String(self.clone())
    }
    fn zero() -> Option<Self> {
        Some(String::new())
    }
}

impl Setting for Duration {
    const KIND: &'static str = "duration";

    fn parse(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("") => Ok(Duration::ZERO),
            Some(text) => clock::parse_duration(text).map_err(|e| e.message().to_owned()),
            None => expected("a duration in quotes, like \"1m30s\" or \"200ms\""),
        }
    }
    fn to_json(&self, _list: bool) -> Value {
        Value::String(clock::format_duration(*self))
    }
    fn zero() -> Option<Self> {
        Some(Duration::ZERO)
    }
}

/// The elements of a list that may also be written as one text.
fn texts(value: &Value) -> Result<Vec<&str>, String> {
    let list = match value {
        Value::String(one) if one.is_empty() => Vec::new(),
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) if many.len() > MAX_ELEMENTS => {
            return Err(format!("it has {} elements; {MAX_ELEMENTS} is the limit", many.len()));
        }
        Value::Array(many) => many
            .iter()
            .map(|v| v.as_str().ok_or_else(|| format!("its element {v} must be text in quotes")))
            .collect::<Result<_, _>>()?,
        _ => return expected("a list of texts, like [\"a\", \"b\"]"),
    };
    Ok(list)
}

fn comma_separated(text: &str) -> Value {
    Value::from(text.split(',').map(str::trim).filter(|s| !s.is_empty()).collect::<Vec<_>>())
}

impl Setting for Vec<String> {
    const KIND: &'static str = "list of texts";

    fn parse(value: &Value) -> Result<Self, String> {
        Ok(texts(value)?.into_iter().map(str::to_owned).collect())
    }
    fn from_env(text: &str) -> Result<Value, String> {
        Ok(comma_separated(text))
    }
    fn to_json(&self, _list: bool) -> Value {
        Value::from(self.clone())
    }
}

impl Setting for Vec<Multiaddr> {
    const KIND: &'static str = "multiaddress or list of multiaddresses";

    fn parse(value: &Value) -> Result<Self, String> {
        texts(value)?.into_iter().map(multiaddr).collect()
    }
    fn from_env(text: &str) -> Result<Value, String> {
        Ok(comma_separated(text))
    }
    fn to_json(&self, list: bool) -> Value {
        let texts: Vec<String> = self.iter().map(Multiaddr::to_string).collect();
        match texts.as_slice() {
            [one] if !list => Value::String(one.clone()),
            _ => Value::from(texts),
        }
    }
}

/// One multiaddress, with a sentence when it is none.
fn multiaddr(text: &str) -> Result<Multiaddr, String> {
    // All that follows is the path, as in Go; the library would end it at the next slash.
    if let Some(path) = text.trim().strip_prefix("/unix/").filter(|path| !path.is_empty()) {
        return Ok(Multiaddr::empty().with(Protocol::Unix(path.into())));
    }
    text.trim()
        .parse()
        .map_err(|e| format!("\"{text}\" is not a multiaddress like \"/ip4/192.168.1.2/tcp/9096\" ({e})"))
}

fn text_map(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let Value::Object(map) = value else {
        return expected("an object of texts, like {\"name\": \"value\"}");
    };
    if map.len() > MAX_ELEMENTS {
        return Err(format!("it has {} elements; {MAX_ELEMENTS} is the limit", map.len()));
    }
    map.iter()
        .map(|(k, v)| match v.as_str() {
            Some(v) => Ok((k.clone(), v.to_owned())),
            None => Err(format!("the value of its element \"{k}\" must be text in quotes")),
        })
        .collect()
}

fn text_map_from_env(text: &str) -> Result<Value, String> {
    let mut map = Map::new();
    for pair in text.split(',').filter(|p| !p.trim().is_empty()) {
        // Only the first colon separates: a password may contain more of them.
        let Some((key, value)) = pair.split_once(':') else {
            return expected("pairs separated by commas, like \"name:value,name2:value2\"");
        };
        map.insert(key.trim().to_owned(), Value::String(value.to_owned()));
    }
    Ok(Value::Object(map))
}

fn text_map_to_json(map: &BTreeMap<String, String>) -> Value {
    Value::Object(map.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect())
}

impl Setting for BTreeMap<String, String> {
    const KIND: &'static str = "map of texts";

    fn parse(value: &Value) -> Result<Self, String> {
        text_map(value)
    }
    fn from_env(text: &str) -> Result<Value, String> {
        text_map_from_env(text)
    }
    fn to_json(&self, _list: bool) -> Value {
        text_map_to_json(self)
    }
}

impl Setting for BTreeMap<String, Vec<String>> {
    const KIND: &'static str = "map of lists of texts";

    fn parse(value: &Value) -> Result<Self, String> {
        let Value::Object(map) = value else {
            return expected("an object of lists, like {\"Name\": [\"value\"]}");
        };
        if map.len() > MAX_ELEMENTS {
            return Err(format!("it has {} elements; {MAX_ELEMENTS} is the limit", map.len()));
        }
        map.iter().map(|(k, v)| Ok((k.clone(), Vec::<String>::parse(v)?))).collect()
    }
    fn from_env(text: &str) -> Result<Value, String> {
        text_map_from_env(text)
    }
    fn to_json(&self, _list: bool) -> Value {
        Value::Object(self.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect())
    }
}

/// The secret that every peer of a cluster knows, or none (an open cluster network).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Option<[u8; SECRET_BYTES]>);

impl Secret {
    /// No secret: anyone who reaches the port can talk to the peer.
    pub const NONE: Secret = Secret(None);

    /// This secret.
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Secret(Some(bytes))
    }

    /// A fresh random secret.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] when the system has no randomness to give.
    pub fn random() -> crate::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|e| crate::Error::io(format!("cannot read random bytes for the secret: {e}")))?;
        Ok(Secret(Some(bytes)))
    }

    /// Reads 64 hexadecimal digits (or nothing: no secret).
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] with ipfs-cluster's sentence; never with the text itself.
    pub fn from_hex(text: &str) -> crate::Result<Self> {
        Self::read_hex(text).map_err(crate::Error::invalid)
    }

    fn read_hex(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Secret(None));
        }
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| {
            "the cluster secret must be 64 hexadecimal digits (make one with: od -vN 32 -An -tx1 /dev/urandom | tr -d ' \\n')"
                .to_owned()
        })?;
        let n = bytes.len();
        let bytes = bytes
            .try_into()
            .map_err(|_| format!("input secret is {n} bytes, cluster secret should be {SECRET_BYTES}"))?;
        Ok(Secret(Some(bytes)))
    }

    /// The private-network key, if there is one.
    pub fn psk(&self) -> Option<[u8; SECRET_BYTES]> {
        self.0
    }

    /// Whether there is no secret.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// 64 hexadecimal digits, or nothing. For files and tokens only, never for messages.
    pub fn expose_hex(&self) -> String {
        self.0.map(|b| HEXLOWER_PERMISSIVE.encode(&b)).unwrap_or_default()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Secret(hidden)" } else { "Secret(none)" })
    }
}

impl Setting for Secret {
    const KIND: &'static str = "64 hexadecimal digits";
    const SECRET: bool = true;

    fn parse(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some(text) => Self::read_hex(text),
            None => expected("64 hexadecimal digits in quotes"),
        }
    }
    fn to_json(&self, _list: bool) -> Value {
        Value::String(self.expose_hex())
    }
}

/// User names and passwords of an API; `None` asks nobody for a password.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials(pub Option<BTreeMap<String, String>>);

impl Credentials {
    /// Whether a password is asked for.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("Credentials(none)"),
            Some(users) => write!(f, "Credentials({} users, hidden)", users.len()),
        }
    }
}

impl Setting for Credentials {
    const KIND: &'static str = "map of users and passwords, or null";
    const SECRET: bool = true;

    fn parse(value: &Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Credentials(None)),
            _ => Ok(Credentials(Some(text_map(value)?))),
        }
    }
    fn from_env(text: &str) -> Result<Value, String> {
        if text.is_empty() {
            return Ok(Value::Null);
        }
        // A user without a colon is a typing error that must not silently open the API.
        text_map_from_env(text)
    }
    fn to_json(&self, _list: bool) -> Value {
        self.0.as_ref().map_or(Value::Null, text_map_to_json)
    }
}

/// A text that must not be shown, such as a private key.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Hidden(empty)" } else { "Hidden" })
    }
}

impl Setting for Hidden {
    const KIND: &'static str = "text";
    const SECRET: bool = true;

    fn parse(value: &Value) -> Result<Self, String> {
        String::parse(value).map(Hidden)
    }
    fn to_json(&self, _list: bool) -> Value {
        Value::String(self.0.clone())
    }
    fn zero() -> Option<Self> {
        Some(Hidden::default())
    }
}

/// A size in bytes, written as a number or like `"10GB"` (decimal) or `"10GiB"` (binary).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Units, largest first so that writing finds the shortest exact form.
const UNITS: [(&str, u64); 11] = [
    ("PiB", 1 << 50),
    ("PB", 1_000_000_000_000_000),
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    fn from_text(text: &str) -> Result<Self, String> {
        let bad = || "it must be a size like \"10GB\", \"512MiB\" or a number of bytes".to_owned();
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = unit.trim();
        let scale = if unit.is_empty() {
            1
        } else {
            let found = UNITS.iter().find(|(name, _)| {
                // "10G" and "10g" mean what "10GB" means, as in Kubo.
                name.eq_ignore_ascii_case(unit)
                    || name.len() == 2 && name.get(..1).is_some_and(|short| short.eq_ignore_ascii_case(unit))
            });
            found.ok_or_else(bad)?.1
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.len() > 9 || fraction.contains('.') {
            return Err(bad());
        }
        let whole: u128 = whole.parse().map_err(|_| bad())?;
        let mut bytes = whole.checked_mul(u128::from(scale)).ok_or_else(bad)?;
        if !fraction.is_empty() {
            let f: u128 = fraction.parse().map_err(|_| bad())?;
            bytes += f * u128::from(scale) / 10u128.pow(fraction.len() as u32);
        }
        u64::try_from(bytes).map(ByteSize).map_err(|_| bad())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        match exact {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Setting for ByteSize {
    const KIND: &'static str = "size";

    fn parse(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) if text.is_empty() => Ok(ByteSize(0)),
            Value::String(text) => Self::from_text(text),
            _ => value
                .as_u64()
                .map(ByteSize)
                .map_or_else(|| expected("a size like \"10GB\", \"512MiB\" or a number of bytes"), Ok),
        }
    }
    fn to_json(&self, _list: bool) -> Value {
        Value::String(self.to_string())
    }
    fn zero() -> Option<Self> {
        Some(ByteSize(0))
    }
}

macro_rules! words {
    ($(#[$about:meta])* $name:ident: $what:literal { $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl Setting for $name {
            const KIND: &'static str = $what;

            fn parse(value: &Value) -> Result<Self, String> {
                match value.as_str() {
                    $(Some($word) => Ok($name::$variant),)+
                    _ => expected($what),
                }
            }
            fn to_json(&self, _list: bool) -> Value {
                Value::from(match self { $($name::$variant => $word),+ })
            }
        }
    };
}

words! {
    /// Whom the embedded IPFS node talks to.
    Network: "\"private\" or \"public\"" {
        /// Only to the nodes of this cluster, or to those that share the given swarm key.
        Private = "private",
        /// To the public IPFS network.
        Public = "public",
    }
}

words! {
    /// What the disk informer measures.
    DiskMetric: "\"freespace\" or \"reposize\"" {
        /// Free bytes: more is better.
        FreeSpace = "freespace",
        /// Used bytes: less is better.
        RepoSize = "reposize",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("10GB", 10_000_000_000),
            ("10 GB", 10_000_000_000),
            ("10g", 10_000_000_000),
            ("1.5TiB", 1_649_267_441_664),
            ("512MiB", 536_870_912),
            ("0", 0),
            ("7", 7),
            ("7B", 7),
        ] {
            assert_eq!(ByteSize::from_text(text), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "GB", "10XB", "-1GB", "1..2GB", "99999999999999999999PB", "1GB2", ".5GB"] {
            assert!(ByteSize::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_written_in_their_shortest_exact_unit() {
        for (bytes, text) in
            [(10_000_000_000, "10GB"), (1 << 30, "1GiB"), (1001, "1001B"), (0, "0B"), (536_870_912, "512MiB")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
            assert_eq!(ByteSize::from_text(text), Ok(ByteSize(bytes)));
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = Secret::new([0xab; 32]);
        assert!(!format!("{secret:?}").contains("ab"), "{secret:?}");
        let users = Credentials(Some([("u".to_owned(), "pass".to_owned())].into()));
        assert!(!format!("{users:?}").contains("pass"));
        assert!(!format!("{:?}", Hidden("key".into())).contains("key"));
    }

    #[test]
    fn a_secret_of_the_wrong_length_is_told_in_bytes() {
        assert_eq!(
            Secret::from_hex("abcd").expect_err("short").message(),
            "input secret is 2 bytes, cluster secret should be 32"
        );
        let error = Secret::from_hex("not hex at all").expect_err("not hex");
        assert!(error.message().contains("64 hexadecimal digits"));
        assert!(!error.message().contains("not hex at all"));
        assert!(Secret::from_hex("").expect("none").is_none());
        let hex = "9c6dea29733aca38db3d9a715d7d11be3b43ac35be0e328ac0ec59b2e3f156b3";
        assert_eq!(Secret::from_hex(hex).expect("good").expose_hex(), hex);
    }

    #[test]
    fn environment_texts_become_values() {
        assert_eq!(bool::from_env("T"), Ok(Value::Bool(true)));
        assert!(bool::from_env("yes").is_err());
        assert_eq!(u32::from_env("17"), Ok(Value::from(17)));
        assert!(u32::from_env("-1").is_err());
        assert_eq!(Vec::<String>::from_env("a, b,,c"), Ok(serde_json::json!(["a", "b", "c"])));
        assert_eq!(
            Credentials::from_env("user:pass:word,u2:"),
            Ok(serde_json::json!({"user": "pass:word", "u2": ""}))
        );
        assert!(Credentials::from_env("user").is_err());
    }
}
