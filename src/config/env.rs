//! The environment variables that configure a peer: `CLUSTER_*`.
//!
//! They are taken once, as data, so that loading a configuration is a function of its inputs and tests need
//! not change the process. Values may be secrets: they are never shown, not even in `Debug`.
//!
//! systemd can hand a secret over as a *credential*, a file in `$CREDENTIALS_DIRECTORY` that only the service can read.
//! One that has the name of a variable, alone or after `pinfold.`, stands in for that variable where it is not set.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What every variable that sets a key begins with.
pub const PREFIX: &str = "CLUSTER_";

/// What the name of a credential may begin with: `ImportCredential=pinfold.*` finds those.
const CREDENTIAL_PREFIX: &str = "pinfold.";
/// Most bytes of a credential; systemd itself allows a mebibyte for all of them.
const MAX_CREDENTIAL: u64 = 64 << 10;

/// The `CLUSTER_*` variables.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// Those of this process. Bytes that are not UTF-8 are replaced, and then refused by the key's own check.
    pub fn process() -> Self {
        let env = Self::from_pairs(std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        }));
        match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(folder) => env.with_credentials(Path::new(&folder)),
            None => env,
        }
    }

    /// Adds the credentials of a folder for variables that are not set.
    fn with_credentials(mut self, folder: &Path) -> Self {
        let Ok(entries) = std::fs::read_dir(folder) else { return self };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = name.strip_prefix(CREDENTIAL_PREFIX).unwrap_or(&name);
            if name.starts_with(PREFIX) {
                self.0.entry(name.to_owned()).or_insert_with(|| credential(&entry.path()));
            }
        }
        self
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

/// The value of a credential, without the end of its line. One that cannot be read must not count as one that is not
/// there (a peer would make itself another secret): it becomes a value that the key's own check refuses.
fn credential(path: &Path) -> String {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_CREDENTIAL).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned(),
        Err(_) => char::REPLACEMENT_CHARACTER.to_string(),
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

    #[test]
    fn a_credential_stands_in_for_a_variable_that_is_not_set() {
        let folder = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("pinfold.CLUSTER_SECRET", "abc\n");
        write("CLUSTER_PEERNAME", "attic");
        write("CLUSTER_EMBEDDED_NETWORK", "public");
        write("swarm.key", "not a variable");
        std::fs::create_dir(folder.path().join("CLUSTER_ODD")).expect("a folder cannot be read");
        let env = Env::from_pairs([("CLUSTER_EMBEDDED_NETWORK", "private")]).with_credentials(folder.path());
        assert_eq!(env.get("CLUSTER_SECRET"), Some("abc"));
        assert_eq!(env.get("CLUSTER_PEERNAME"), Some("attic"));
        assert_eq!(env.get("CLUSTER_EMBEDDED_NETWORK"), Some("private"), "the variable wins");
        assert_eq!(env.get("CLUSTER_ODD"), Some("\u{fffd}"), "never as if it were not there");
        assert_eq!(env.names().count(), 4);
        assert_eq!(Env::empty().with_credentials(Path::new("/nonexistent")), Env::empty());
    }
}
