//! Calls of Kubo's API as the embedded node takes them: path, query and form type.

use super::super::path::Path;
use super::super::table::find;
use super::{base_of, check_value, pairs, Call};
use crate::api::query::decode;
use crate::fuzz::Input;

/// Any path and query: what is taken apart has the arguments its command needs and options of the kinds it knows.
pub(crate) fn calls(data: &[u8]) {
    let mut input = Input(data);
    let form = match input.below(3) {
        0 => None,
        1 => Some("multipart/form-data; boundary=b".to_owned()),
        _ => Some(String::from_utf8_lossy(input.bytes()).into_owned()),
    };
    let text = input.text();
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    let components: Vec<&str> = path.split('/').collect();
    if let Ok(path) = Path::parse(path) {
        assert!(!path.name().is_empty());
        let said = format!("/{}/{}/{}", path.namespace, path.root, path.segments.join("/"));
        assert_eq!(Path::parse(&said).expect("read again"), path);
    }
    assert!(pairs(query).count() <= super::MAX_PAIRS);
    let _ = base_of(path);
    let Some((command, used)) = find(&components) else { return };
    let rest: Vec<String> = components[used..].iter().filter_map(|c| decode(c, false)).collect();
    if let Ok(call) = Call::checked(command, rest, query, form.as_deref()) {
        let _ = call.cid_writer();
        for (names, kind) in command.options {
            let Some(value) = call.option(names[0]) else { continue };
            check_value(names[0], *kind, value).expect("an option of another kind was taken");
            let _ = (call.flag(names[0], false), call.number(names[0]));
        }
    }
}
