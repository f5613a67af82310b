//! The verifier against LMDB itself: whatever it writes is whole, and no flipped byte on a page in use stays unnoticed
//! unless everything still reads the same.

use super::*;
use crate::state::Applied;
use crate::store::lmdb::{open_state, Options};
use crate::store::{StateStore, Table, WriteBatch};

/// Random numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

const TINY: Options = Options { map_size: 4 << 20, map_limit: 1 << 30, reserve: 0 };

type Row = (String, Vec<u8>, Vec<u8>);

fn rows(path: &Path) -> (Found, Vec<Row>) {
    let pages = Pages::open(path, None).expect("meta pages");
    let mut rows = Vec::new();
    let found = pages.walk(&["pins"], &mut |table, key, value| {
        rows.push((table.to_owned(), key.to_vec(), value.to_vec()));
    });
    (found, rows)
}

#[test]
fn whatever_lmdb_writes_is_whole() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let dir = tempfile::tempdir().expect("folder");
        let state = open_state(dir.path(), &TINY).expect("state");
        let file = dir.path().join("generation-1/data.mdb");
        for round in 1..=40u64 {
            let mut writes = Vec::new();
            for _ in 0..=random.below(400) {
                let table = Table::ALL[random.below(4)];
                let key = random.below(2_000) as u32;
                let mut key = key.to_be_bytes().to_vec();
                key.resize(key.len() + (key[3] as usize * 7) % 300, b'k');
                // Many small ones, some of several pages, some gone again.
                let value = match random.below(10) {
                    0..=2 => None,
                    3 => Some(vec![round as u8; 2_000 + random.below(28_000)]),
                    _ => Some(vec![round as u8; random.below(300)]),
                };
                writes.push((table, key, value));
            }
            state
                .write(WriteBatch { writes, applied: Some(Applied { index: round, term: 1 }) })
                .expect("write");
            state.flush().expect("flush");
            let (found, read) = rows(&file);
            assert!(found.is_whole(), "seed {seed}, round {round}: {found:#?}");
            assert_eq!(found.lost, 0, "seed {seed}, round {round}");
            for table in Table::ALL {
                let name = format!("{table:?}").to_lowercase();
                let ours = read.iter().filter(|row| row.0 == name).map(|row| (row.1.clone(), row.2.clone()));
                let theirs = state.scan(table, None, usize::MAX).expect("scan");
                assert!(ours.eq(theirs), "seed {seed}, round {round}: {name}");
            }
        }
    }
}

#[test]
fn a_file_of_a_system_with_other_words_is_told_from_a_damaged_one() {
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("data.mdb");
    // The beginning of a meta page as the other kind of system writes it: a word, a page's kind, LMDB's marks.
    let other = 12 - WORD;
    let mut page = vec![0; 2 * 4096];
    page[other + 2..other + 4].copy_from_slice(&META_PAGE.to_ne_bytes());
    page[other + 8..other + 12].copy_from_slice(&MAGIC.to_ne_bytes());
    page[other + 12..other + 16].copy_from_slice(&VERSION.to_ne_bytes());
    std::fs::write(&file, &page).expect("file");
    let error = verify(&file).expect_err("of another system");
    assert_eq!(error.kind(), crate::Kind::Version, "{error}");
    assert!(error.message().contains(&format!("by a {}-bit pinfold", 8 * other)), "{error}");
    let clause = Pages::open(&file, None).map(drop).expect_err("of another system");
    assert!(clause.starts_with(&format!("a {}-bit system wrote it", 8 * other)), "{clause}");
    // With any of the marks gone it is damaged, and nothing else.
    for at in [other + 2, other + 8, other + 12] {
        let mut damaged = page.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, &damaged).expect("file");
        assert_eq!(verify(&file).expect_err("damaged").kind(), crate::Kind::Corrupt, "byte {at}");
    }
}

#[test]
fn a_copy_and_an_empty_environment_are_whole() {
    let dir = tempfile::tempdir().expect("folder");
    drop(open_state(dir.path(), &TINY).expect("state"));
    let (found, rows) = rows(&dir.path().join("generation-1/data.mdb"));
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(rows.len(), 1, "the format record");
}

#[test]
fn no_flipped_byte_of_a_page_in_use_is_read_as_something_else_but_in_a_value() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("generation-1/data.mdb");
    {
        let state = open_state(dir.path(), &TINY).expect("state");
        for round in 1..=6u64 {
            let row = |n: u32| {
                (Table::Pins, (n * 7).to_be_bytes().to_vec(), Some(vec![n as u8; 100 + n as usize * 9]))
            };
            let writes = (0..300).filter(|n| u64::from(*n) % 6 < round).map(row).collect();
            state
                .write(WriteBatch { writes, applied: Some(Applied { index: round, term: 1 }) })
                .expect("write");
            state.flush().expect("flush");
        }
    }
    let whole = std::fs::read(&path).expect("file");
    let (found, truth) = rows(&path);
    assert!(found.is_whole(), "{found:?}");
    let mut random = Random(1);
    let (mut noticed, mut values, mut harmless) = (0, 0, 0);
    let scratch = dir.path().join("scratch.mdb");
    for _ in 0..4_000 {
        let mut bytes = whole.clone();
        // Heads of pages twice as often as the rest.
        let at = match random.below(3) {
            0 => random.below(whole.len()),
            _ => random.below(whole.len() / 4_096) * 4_096 + random.below(64),
        };
        bytes[at] ^= 1 + random.below(255) as u8;
        std::fs::write(&scratch, &bytes).expect("file");
        let Ok(pages) = Pages::open(&scratch, None) else {
            noticed += 1;
            continue;
        };
        let mut read = Vec::new();
        let found = pages.walk(&["pins"], &mut |t, k, v| read.push((t.to_owned(), k.to_vec(), v.to_vec())));
        if !found.is_whole() {
            noticed += 1;
        } else if read == truth {
            harmless += 1;
        } else {
            // A value, or a key that still is in its place: for the checks of what is in them.
            let differs = read.iter().zip(&truth).filter(|(a, b)| a != b).count();
            assert_eq!((differs, read.len()), (1, truth.len()), "byte {at}");
            values += 1;
        }
    }
    assert!(noticed > 200 && values > 200 && harmless > 200, "{noticed} {values} {harmless}");
}
