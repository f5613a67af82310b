//! Entries of the log as the disk gives them back.

use super::{decode_entry, encode_entry};

/// Any bytes as the entry that should lie there: read, it is the same when it is written and read again.
pub(crate) fn entries(data: &[u8]) {
    // The index is the row's key, which the record must repeat: try the one it has.
    let claimed = data.get(2..).and_then(|rest| postcard::take_from_bytes::<u64>(rest).ok());
    let index =
        claimed.and_then(|(_, rest)| postcard::take_from_bytes::<u64>(rest).ok()).map_or(1, |(n, _)| n);
    for index in [index, 1] {
        if let Ok(entry) = decode_entry(index, data) {
            assert_eq!(entry.index, index, "an entry under another's key is damage");
            assert_eq!(decode_entry(index, &encode_entry(&entry)).expect("read again"), entry);
        }
    }
}
