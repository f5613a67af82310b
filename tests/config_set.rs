//! `pinfold config set`, as people and scripts meet it: exit codes, sentences, and a peer that obeys.

mod cli_support;

use cli_support::{run_as, Ran};
use serde_json::Value;
use std::path::Path;

fn pinfold(folder: &Path, words: &[&str], input: &str) -> Ran {
    let mut all = vec!["-c".to_owned(), "peer".to_owned()];
    all.extend(words.iter().map(|word| (*word).to_owned()));
    run_as("pinfold", &all, folder, input)
}

fn fresh() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    let made = pinfold(folder.path(), &["init"], "");
    assert_eq!(made.code, 0, "{made:?}");
    folder
}

fn file(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("peer/service.json")).expect("service.json")
}

fn key(folder: &Path, pointer: &str) -> Value {
    let tree: Value = serde_json::from_str(&file(folder)).expect("JSON");
    tree.pointer(pointer).cloned().unwrap_or_default()
}

#[test]
fn keys_are_set_by_words_and_by_standard_input() {
    let folder = fresh();
    let folder = folder.path();
    let dry = pinfold(folder, &["config", "set", "-n", "cluster.repin_grace=1m"], "");
    assert_eq!((dry.code, key(folder, "/cluster/repin_grace")), (0, Value::Null), "{dry:?}");
    assert!(
        dry.out.contains("cluster.repin_grace: (nothing) -> \"1m\"\nnothing was written: 1 keys of "),
        "{dry:?}"
    );

    let words = ["config", "set", "cluster.repin_grace=1m", "api.restapi.read-timeout=9s"];
    let done = pinfold(folder, &words, "");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.out.ends_with(": 2 keys changed; a peer that runs reads it at its next start\n"),
        "{done:?}"
    );
    assert_eq!(key(folder, "/cluster/repin_grace"), "1m");
    assert_eq!(key(folder, "/api/restapi/read_timeout"), "9s");
    let again = pinfold(folder, &words, "");
    assert!(again.code == 0 && again.out.starts_with("nothing to do: "), "{again:?}");

    let secret = "5e".repeat(32);
    let json = format!(r#"{{"cluster": {{"secret": "{secret}", "peername": "attic"}}}}"#);
    let done = pinfold(folder, &["config", "set", "--stdin", "cluster.dial_peer_timeout=4s"], &json);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.out.contains(&secret) && done.out.contains("cluster.secret: "), "{done:?}");
    assert_eq!(key(folder, "/cluster/secret"), secret.as_str());
    assert_eq!(key(folder, "/cluster/peername"), "attic");
    let checked = pinfold(folder, &["config", "check"], "");
    assert_eq!(checked.code, 0, "{checked:?}");
}

#[test]
fn what_is_wrong_is_refused_with_one_sentence_and_its_exit_code() {
    let folder = fresh();
    let folder = folder.path();
    let before = file(folder);
    for (words, input, code, part) in [
        (&["cluster.peername"][..], "", 2, "write KEY=VALUE"),
        (&["cluster.peernane=x"], "", 2, "did you mean cluster.peername?"),
        (&["cluster.peername=x", "cluster.repin_grace=soon"], "", 2, "cluster.repin_grace is \"soon\""),
        (&["cluster.peername=x", "cluster.peername=y"], "", 2, "given twice"),
        (&["cluster.secret=abc"], "", 2, "a command line can be read by every user"),
        (&["--stdin"], "{\"cluster\": ", 2, "the JSON is not valid"),
        (&["--stdin"], "cluster.peername x", 2, "a line of standard input has no \"=\""),
        (&["api.restapi.http_listen_multiaddress=/ip4/0.0.0.0/tcp/9094"], "", 2, "was not changed: "),
    ] {
        let words: Vec<&str> = ["config", "set"].iter().chain(words).copied().collect();
        let ran = pinfold(folder, &words, input);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{words:?}: {ran:?}");
        assert!(ran.err.contains(part) && ran.err.lines().count() == 1, "{words:?}: {ran:?}");
        assert_eq!(file(folder), before, "{words:?}");
    }
    let nothing = pinfold(folder, &["config", "set"], "");
    assert!(nothing.code != 0 && nothing.err.contains("name what to set"), "{nothing:?}");
    let nowhere = pinfold(folder, &["-c", "nowhere", "config", "set", "cluster.peername=x"], "");
    assert_ne!(nowhere.code, 0, "{nowhere:?}");
}

#[test]
fn one_command_edits_at_a_time() {
    let folder = fresh();
    let folder = folder.path();
    let held = std::fs::File::open(folder.join("peer")).expect("folder");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    let ran = pinfold(folder, &["config", "set", "cluster.peername=x"], "");
    assert!(ran.code == 5 && ran.err.contains("another command is editing"), "{ran:?}");
    drop(held);
    assert_eq!(pinfold(folder, &["config", "set", "cluster.peername=x"], "").code, 0);
}
