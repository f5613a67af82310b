//! The environment variables that configure a peer: `CLUSTER_*`.
//!
//! They are taken once, as data, so that loading a configuration is a function of its inputs and tests need
//! not change the process. Values may be secrets: they are never shown, not even in `Debug`.

use std::collections::BTreeMap;
use std::fmt;

/// What every variable that sets a key begins with.
pub const PREFIX: &str = "CLUSTER_";

/// The `CLUSTER_*` variables.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// Those of this process. Bytes that are not UTF-8 are replaced, and then refused by the key's own check.
    pub fn process() -> Self {
        Self::from_pairs(std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        }))
    }

    /// None at all.
    pub fn empty() -> Self {
        Env::default()
    }

    /// Those among these variables that begin with [`PREFIX`].
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let pairs = pairs.into_iter().map(|(k, v)| (k.into(), v.into()));
        Env(pairs.filter(|(name, _)| name.starts_with(PREFIX)).collect())
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_variables_are_taken_and_none_is_shown() {
        let env = Env::from_pairs([("CLUSTER_SECRET", "topsecret"), ("PATH", "/bin")]);
        assert_eq!(env.get("CLUSTER_SECRET"), Some("topsecret"));
        assert_eq!(env.get("PATH"), None);
        assert_eq!(env.names().collect::<Vec<_>>(), ["CLUSTER_SECRET"]);
        assert!(!format!("{env:?}").contains("topsecret"));
    }
}
