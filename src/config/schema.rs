//! How sections of service.json are declared, and walked.
//!
//! [`section!`] declares a section once: its Rust struct, and for each key the default, the meaning and
//! how it behaves in the file. Everything else is a *walk* over that declaration by a [`Visitor`]: reading
//! a file, writing one, listing the keys for the documentation. So a key cannot be in the struct and
//! missing from the documentation, or read and then not written back.
//!
//! The walk order is the order in a freshly written file.

use super::setting::Setting;
use crate::error::Result;
use serde_json::Value;

/// What is special about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    /// Written to the file only when it was there or differs from the default.
    Optional,
    /// An explicit zero (`0`, `"0s"`, `""`) is a value of its own; elsewhere it stands for the default.
    Zero,
    /// Missing from a section that is there means zero, as it does for booleans.
    ZeroWhenMissing,
    /// Always written as a list, even with one element.
    List,
    /// Accepted and kept, but this version does nothing with it; the text says why.
    NoEffect(&'static str),
    /// Without effect and without a warning: whatever it says, nobody misses anything.
    Silent,
    /// The unit of a plain number.
    Unit(&'static str),
    /// The default differs from machine to machine; this is what the documentation says instead.
    Shown(&'static str),
}

/// Where the walk is: the path from the top of the file, and what the declaration says about the key.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) meaning: String,
    pub(super) flags: &'static [Flag],
}

impl Place {
    /// A section at this path.
    pub(super) fn section(path: &str) -> Self {
        Place { path: path.to_owned(), meaning: String::new(), flags: &[] }
    }

    /// A key of this section.
    pub(super) fn field(&self, name: &str, meaning: &str, flags: &'static [Flag]) -> Self {
        let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
        Place { path: format!("{}.{name}", self.path), meaning, flags }
    }

    /// Whether the declaration carries this flag.
    pub(super) fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }
}

/// What is done at each key of a walk.
pub(super) trait Visitor {
    /// At a key. `default` is what the declaration says.
    fn leaf<T: Setting>(&mut self, at: &Place, value: &mut T, default: &T) -> Result<()>;
    /// Before a section that may be absent: which sections are walked is the visitor's choice.
    fn optional<T: Section>(&mut self, at: &Place, section: &mut Option<T>, default: &T);
}

/// A part of the configuration that can be walked.
pub(super) trait Node: Clone {
    /// Walks it.
    fn visit<V: Visitor>(&mut self, at: &Place, default: &Self, visitor: &mut V) -> Result<()>;
}

/// A JSON object with declared keys.
pub(super) trait Section: Node + Default {}

impl<T: Setting> Node for T {
    fn visit<V: Visitor>(&mut self, at: &Place, default: &Self, visitor: &mut V) -> Result<()> {
        visitor.leaf(at, self, default)
    }
}

impl<T: Section> Node for Option<T> {
    fn visit<V: Visitor>(&mut self, at: &Place, default: &Self, visitor: &mut V) -> Result<()> {
        let default = default.clone().unwrap_or_default();
        visitor.optional(at, self, &default);
        match self {
            Some(section) => section.visit(at, &default, visitor),
            None => Ok(()),
        }
    }
}

/// Declares a section: see the module's essay.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $(
                $(#[doc = $meaning:literal])+
                $field:ident: $ty:ty = $default:expr $(, $flag:ident $(($arg:literal))?)*;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $meaning])+ pub $field: $ty, )+
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: $default, )+ }
            }
        }

        impl $crate::config::schema::Section for $name {}

        impl $crate::config::schema::Node for $name {
            fn visit<V: $crate::config::schema::Visitor>(
                &mut self,
                at: &$crate::config::schema::Place,
                default: &Self,
                visitor: &mut V,
            ) -> $crate::error::Result<()> {
                #[allow(unused_imports)]
                use $crate::config::schema::Flag::*;
                $(
                    let place = at.field(stringify!($field), concat!($($meaning),+), &[$($flag $(($arg))?),*]);
                    self.$field.visit(&place, &default.$field, visitor)?;
                )+
                Ok(())
            }
        }
    };
}
pub(super) use section;

/// The value at a dotted path; JSON's `null` counts as absent.
pub(super) fn lookup<'v>(tree: &'v Value, path: &str) -> Option<&'v Value> {
    let found = path.split('.').try_fold(tree, |at, name| at.get(name))?;
    (!found.is_null()).then_some(found)
}

/// Puts a value at a dotted path, making the objects on the way. What is in the way and is no object is
/// replaced: it cannot have been read as a section.
pub(super) fn insert(tree: &mut Value, path: &str, value: Value) {
    let mut at = tree;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        if !at.is_object() {
            *at = Value::Object(serde_json::Map::new());
        }
        let Value::Object(map) = at else { return };
        if names.peek().is_none() {
            map.insert(name.to_owned(), value);
            return;
        }
        at = map.entry(name).or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
}

/// Removes what is at a dotted path.
pub(super) fn remove(tree: &mut Value, path: &str) -> Option<Value> {
    match path.rsplit_once('.') {
        None => tree.as_object_mut()?.shift_remove(path),
        Some((parent, name)) => {
            let parent = parent.split('.').try_fold(tree, |at, name| at.get_mut(name))?;
            parent.as_object_mut()?.shift_remove(name)
        }
    }
}

/// The name of the environment variable that sets a key: `CLUSTER_<SECTION>_<KEY>`, without a section for
/// the keys of `cluster`, and with underscores only between levels.
pub(super) fn env_name(path: &str) -> String {
    let mut levels = path.split('.');
    if levels.clone().count() > 1 {
        // The component's group (`api`, `informer`, …) and `cluster` itself have no part in the name.
        levels.next();
    }
    let mut name = String::from("CLUSTER");
    for level in levels {
        name.push('_');
        name.extend(level.chars().filter(|c| *c != '_').map(|c| c.to_ascii_uppercase()));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_are_named_as_ipfs_cluster_names_them() {
        for (path, name) in [
            ("cluster.secret", "CLUSTER_SECRET"),
            ("cluster.connection_manager.high_water", "CLUSTER_CONNECTIONMANAGER_HIGHWATER"),
            ("cluster.pubsub.d_factor", "CLUSTER_PUBSUB_DFACTOR"),
            ("api.restapi.http_listen_multiaddress", "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS"),
            ("consensus.crdt.batching.max_batch_size", "CLUSTER_CRDT_BATCHING_MAXBATCHSIZE"),
            ("informer.tags.tags", "CLUSTER_TAGS_TAGS"),
        ] {
            assert_eq!(env_name(path), name);
        }
    }

    #[test]
    fn paths_reach_into_the_tree() {
        let mut tree = json!({"a": {"b": 1, "n": null}, "s": 3});
        assert_eq!(lookup(&tree, "a.b"), Some(&json!(1)));
        assert_eq!(lookup(&tree, "a.n"), None);
        assert_eq!(lookup(&tree, "s.x"), None);
        insert(&mut tree, "c.d.e", json!(2));
        insert(&mut tree, "s.x", json!(4));
        assert_eq!(tree, json!({"a": {"b": 1, "n": null}, "s": {"x": 4}, "c": {"d": {"e": 2}}}));
        assert_eq!(remove(&mut tree, "a.b"), Some(json!(1)));
        assert_eq!(remove(&mut tree, "nope.b"), None);
    }
}
