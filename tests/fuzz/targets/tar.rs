//! A tar stream as `pinfold get` unpacks it: it comes from a peer that may lie.

use super::unpack as unpack_into;
use crate::fuzz::{folder, Input};
use std::path::Path;

/// Any bytes, or a made archive of likely and unlikely names: nothing is written outside of its place, nothing longer than
/// what came, and nothing through a link.
pub(crate) fn unpack(data: &[u8]) {
    let mut input = Input(data);
    let bytes = if input.flag() { made(&mut input) } else { input.rest().to_vec() };
    let base = folder("tar");
    let place = base.join("in").join("place");
    std::fs::create_dir_all(base.join("in")).expect("a folder");
    std::fs::write(base.join("kept"), b"as it was").expect("written");
    let done = unpack_into(&mut &bytes[..], &place);
    let found = |folder: &Path| -> Vec<std::ffi::OsString> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).expect("listed").flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(found(&base), ["in", "kept"], "something was written elsewhere");
    assert!(
        found(&base.join("in")).iter().all(|name| name == "place"),
        "something was written beside its place"
    );
    assert_eq!(std::fs::read(base.join("kept")).expect("read"), b"as it was");
    if let Ok(what) = done {
        assert!(std::fs::symlink_metadata(&place).is_ok(), "it says that it is done, and nothing is there");
        assert!(what.bytes <= bytes.len() as u64, "more was written than came");
    }
    let _ = std::fs::remove_dir_all(&base);
}

fn made(input: &mut Input<'_>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for _ in 0..1 + input.below(6) {
        let mut header = tar::Header::new_gnu();
        let kinds = [
            tar::EntryType::Regular,
            tar::EntryType::Directory,
            tar::EntryType::Symlink,
            tar::EntryType::Link,
            tar::EntryType::GNULongName,
            tar::EntryType::GNULongLink,
            tar::EntryType::XHeader,
            tar::EntryType::GNUSparse,
        ];
        let kind = kinds[input.below(kinds.len())];
        header.set_entry_type(kind);
        let name = match input.below(6) {
            0 => b"root".to_vec(),
            1 => b"root/a".to_vec(),
            2 => b"root/a/b".to_vec(),
            3 => b"root/../../kept".to_vec(),
            4 => b"/kept".to_vec(),
            _ => input.bytes().to_vec(),
        };
        let raw = header.as_mut_bytes();
        for (place, byte) in raw[..100].iter_mut().zip(&name) {
            *place = *byte;
        }
        let target: &[u8] = match input.below(3) {
            0 => b"..",
            1 => b"../../kept",
            _ => input.bytes(),
        };
        for (place, byte) in raw[157..257].iter_mut().zip(target) {
            *place = *byte;
        }
        let content = input.bytes();
        header.set_size(if input.below(8) == 0 { input.number() } else { content.len() as u64 });
        header.set_mode(0o644);
        header.set_cksum();
        let _ = archive.append(&header, content);
    }
    archive.into_inner().unwrap_or_default()
}
