//! The corpus with every `cargo test`: each input that ever taught the fuzzers something, and each that ever failed.

use super::{folders, Target, TARGETS};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};

/// Bytes of all inputs together: they live in the repository.
const MAX_CORPUS: u64 = 2 << 20;
/// The fewest inputs of a target: with less nobody has fuzzed it.
const FEWEST: usize = 4;

fn corpus(target: &Target) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target.name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

/// Takes the folders of the inputs away, however the test ends.
struct Tidy;

impl Drop for Tidy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(folders());
    }
}

#[test]
fn every_input_of_the_corpus_holds() {
    let _tidy = Tidy;
    let (mut bytes, mut failed) = (0, Vec::new());
    for target in TARGETS {
        (target.run)(&[]);
        let files = corpus(target);
        assert!(files.len() >= FEWEST, "{}: a corpus of {} inputs", target.name, files.len());
        for file in files {
            let input = std::fs::read(&file).expect("an input");
            bytes += input.len() as u64;
            if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
                failed.push(file.display().to_string());
            }
        }
    }
    assert!(failed.is_empty(), "these inputs fail (the reasons are above):\n{}", failed.join("\n"));
    assert!(bytes <= MAX_CORPUS, "the corpus has {bytes} bytes, {MAX_CORPUS} are allowed");
}

#[test]
fn targets_differ_in_name_and_each_corpus_has_one() {
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "a name twice");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for entry in std::fs::read_dir(folder).expect("the corpus") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        assert!(names.contains(&name.as_str()), "no target for the corpus {name}");
    }
}
