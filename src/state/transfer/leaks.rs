//! Pins that look as if ipfs-cluster had mixed them up.
//!
//! Its Raft mode decodes every log entry into the same object and leaves out what is empty, so that name, metadata,
//! origins and expiry of one pin stay on the next that has none of its own (reference K.2). What was exported from such
//! a cluster carries that for good, and nobody can tell it from what was meant. So it is imported as it is, and
//! said: two pins made one after the other that share what is rarely shared.

use crate::state::Pin;
use sha2::{Digest as _, Sha256};

/// Pins that are compared; of the rest of a larger import nothing is said. A pin costs 32 bytes.
const MAX_COMPARED: usize = 500_000;
/// Pins that are told one by one.
const MAX_TOLD: usize = 10;
/// Pins of one row that are told by their lines.
const MAX_LINES: usize = 5;

/// What of a pin is compared.
struct Seen {
    made: i64,
    line: u64,
    /// Of all that leaks together; 0 when there is nothing that could.
    print: u64,
    has: u8,
}

const NAME: u8 = 1;
const METADATA: u8 = 2;
const EXPIRY: u8 = 4;
const ORIGINS: u8 = 8;
const UPDATE: u8 = 16;
const WORDS: [(u8, &str); 5] = [
    (NAME, "name"),
    (METADATA, "metadata"),
    (EXPIRY, "expiry"),
    (ORIGINS, "origins"),
    (UPDATE, "pin_update"),
];

/// Looks at pins as they come, in any order.
#[derive(Default)]
pub(super) struct Leaks {
    seen: Vec<Seen>,
}

impl Leaks {
    /// Takes note of a pin that begins in this line.
    pub(super) fn look(&mut self, pin: &Pin, line: u64) {
        if self.seen.len() >= MAX_COMPARED {
            return;
        }
        let has = [
            (NAME, !pin.name.is_empty()),
            (METADATA, !pin.metadata.is_empty()),
            (EXPIRY, !pin.expire_at.is_zero()),
            (ORIGINS, !pin.origins.is_empty()),
            (UPDATE, pin.pin_update.is_some()),
        ];
        let has = has.iter().filter(|(_, yes)| *yes).fold(0, |all, (bit, _)| all | bit);
        let mut hash = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        put(pin.name.as_bytes());
        for (key, value) in &pin.metadata {
            put(key.as_bytes());
            put(value.as_bytes());
        }
        put(&pin.expire_at.secs.to_be_bytes());
        for origin in &pin.origins {
            put(origin.as_ref());
        }
        put(&pin.pin_update.map(|cid| cid.to_bytes()).unwrap_or_default());
        let hash = hash.finalize();
        let print = u64::from_be_bytes(hash[..8].try_into().expect("eight of 32 bytes"));
        self.seen.push(Seen { made: pin.timestamp.secs, line, print, has });
    }

    /// The sentences, and how many pins they are about. A batch of pins with one name, or one name and metadata, is
    /// an everyday thing; an expiry to the second, origins or an update that two pins share is not.
    pub(super) fn sentences(mut self) -> (Vec<String>, u64) {
        self.seen.sort_unstable_by_key(|s| (s.made, s.line));
        let (mut sentences, mut pins) = (Vec::new(), 0);
        for row in self.seen.chunk_by(|a, b| a.print == b.print && a.has == b.has) {
            let [first, rest @ ..] = row else { continue };
            let rare = first.has & (EXPIRY | ORIGINS | UPDATE) != 0 || first.has == NAME | METADATA;
            if rest.is_empty() || !rare {
                continue;
            }
            pins += rest.len() as u64;
            if sentences.len() == MAX_TOLD {
                continue;
            }
            let what: Vec<&str> =
                WORDS.iter().filter(|(bit, _)| first.has & bit != 0).map(|(_, word)| *word).collect();
            let mut lines: Vec<u64> = row.iter().map(|s| s.line).collect();
            lines.sort_unstable();
            let more = match lines.len().saturating_sub(MAX_LINES) {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let lines: Vec<String> = lines.iter().take(MAX_LINES).map(ToString::to_string).collect();
            sentences.push(format!(
                "the pins in lines {}{more} were made one after the other and have the same {}",
                lines.join(", "),
                what.join(", ")
            ));
        }
        (sentences, pins)
    }
}
