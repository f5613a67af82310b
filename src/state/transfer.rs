//! The pinset as a text file: export, backup, import (reference F.8).
//!
//! One compact JSON object per line, as ipfs-cluster writes it, so that either program reads the other's
//! files. Reading is the business of [`import()`] and what is below it. Both directions hold one pin at a time.

mod import;
mod leaks;
mod scan;
mod shelf;

pub use import::{import, import_all, Import, ImportOptions, Report, MAX_FAULTS};
pub use shelf::Shelf;

use super::codec::{MAX_ALLOCATIONS, MAX_METADATA_BYTES};
use super::Pins;
use crate::api::json;
use crate::api::types::PinJson;
use crate::error::{Context as _, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Backups that are kept.
pub const KEEP_BACKUPS: usize = 5;
/// Longest object of an import in bytes: a pin at every limit, written with escapes, is shorter.
pub const MAX_OBJECT: u64 = (6 * MAX_METADATA_BYTES + 64 * MAX_ALLOCATIONS) as u64 + (512 << 10);

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
/// [`KEEP_BACKUPS`]; the file.
///
/// # Errors
/// When the state cannot be read or the folder cannot be written; older backups then stay as they are.
pub fn backup(pins: &Pins, dir: &Path) -> Result<PathBuf> {
    Shelf::of(dir)?.add(KEEP_BACKUPS, |out| export(pins, out).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::seed::seed;
    use crate::state::{version, Applied, Pin, PinMode, PinType};
    use crate::store::memory::MemoryState;
    use raft::eraftpb::ConfState;
    use std::sync::Arc;

    const CID: &str = "QmegC4srqQjb99iuoL7fzcUeXG6TYPeXUsW2WXEbpmVa7o";

    fn read(text: &str) -> Result<Vec<Pin>> {
        import_all(text.as_bytes(), ImportOptions::default())
    }

    fn state_of(pins: Vec<Pin>) -> Pins {
        let store = MemoryState::new();
        let at = Applied { index: 1, term: 1 };
        seed(&store, pins.into_iter().map(Ok), &[], &ConfState::default(), version::SPOKEN, at)
            .expect("seed");
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
            ("[1]", "a pin was expected and not \"1]\""),
            ("{\"cid\":", "the file was cut off"),
            ("garbage", "begins with \"garbage\""),
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
