//! docs/troubleshooting.md quotes what the program says: every quoted sentence must stand in the source, so that who
//! searches the page for a line of the log finds it, and nobody changes a sentence without changing the page.

use std::path::Path;

/// Fragments shorter than this are words, not sentences: they prove nothing.
const SENTENCE: usize = 12;

/// All of src/ as one text, with the line breaks inside of string literals taken out.
fn source() -> String {
    fn read(folder: &Path, all: &mut String) {
        let mut entries: Vec<_> = std::fs::read_dir(folder).expect("src").map(|e| e.expect("entry").path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                read(&path, all);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                all.push_str(&std::fs::read_to_string(&path).expect("source"));
            }
        }
    }
    let mut all = String::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let mut joined = String::with_capacity(all.len());
    let mut lines = all.lines().peekable();
    while let Some(line) = lines.next() {
        match line.strip_suffix('\\') {
            Some(begun) => {
                joined.push_str(begun);
                if let Some(next) = lines.peek_mut() {
                    *next = next.trim_start();
                }
            }
            None => {
                joined.push_str(line);
                joined.push('\n');
            }
        }
    }
    joined.replace("\\\"", "\"")
}

/// The sentences of the page: what stands in code style in the first column of its tables.
fn quoted(page: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| row.split('`').nth(1).map(str::to_owned)).collect()
}

#[test]
fn every_sentence_of_the_page_is_one_that_the_program_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let (source, sentences) = (source(), quoted(&page));
    assert!(sentences.len() > 30, "{sentences:#?}");
    let mut unsaid = Vec::new();
    for sentence in &sentences {
        let parts: Vec<&str> = sentence.split('…').map(str::trim).filter(|part| part.len() >= SENTENCE).collect();
        assert!(!parts.is_empty(), "\"{sentence}\" has nothing to search for");
        unsaid.extend(parts.into_iter().filter(|part| !source.contains(part)).map(|part| format!("{part}  ({sentence})")));
    }
    assert!(unsaid.is_empty(), "nowhere in src/: {unsaid:#?}");
}
