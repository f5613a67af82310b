//! Completions for fish: one line for each command, flag and argument, with the words before the cursor as condition.

use super::values::{of_flag, Values};
use super::{commands, entries, identifier, names, Entry};
use crate::cli::face::Face;
use std::fmt::Write;

/// The script for a face.
pub(super) fn script(face: Face) -> String {
    let (name, entries) = (face.name(), entries(face));
    let function = format!("__{}", identifier(name));
    let mut out = format!(
        "# fish completion for {name}. Made by `pinfold completion fish --name {name}`; a test keeps it true.\n\n"
    );
    children(&mut out, &function, &entries);
    valued(&mut out, &function, &entries);
    out.push_str(&ENGINE.replace("@FUNCTION@", &function).replace("@NAME@", name));
    for entry in &entries {
        lines(&mut out, name, &function, entry, &entries);
    }
    out
}

/// Which commands stand behind which.
fn children(out: &mut String, function: &str, entries: &[Entry]) {
    let _ = writeln!(out, "# The commands behind those of $argv[1].\nfunction {function}_children");
    switch(out, entries, |entry| names(&entry.children));
}

/// Which flags take a value.
fn valued(out: &mut String, function: &str, entries: &[Entry]) {
    let _ = writeln!(
        out,
        "# The flags with a value behind the commands of $argv[1].\nfunction {function}_valued"
    );
    switch(out, entries, |entry| {
        let valued = entry.flags.iter().filter(|shown| shown.flag.value.is_some());
        let flags: Vec<&str> =
            valued.flat_map(|shown| &shown.names).map(|name| name.trim_start_matches('-')).collect();
        flags.join(" ")
    });
}

/// The body of a function that prints the words for the commands in `$argv[1]`, where there are any.
fn switch(out: &mut String, entries: &[Entry], words: impl Fn(&Entry) -> String) {
    out.push_str("    switch \"$argv[1]\"\n");
    for entry in entries {
        let words = words(entry);
        if !words.is_empty() {
            let _ = writeln!(out, "        case '{}'\n            string split ' ' '{words}'", entry.words());
        }
    }
    out.push_str("    end\nend\n\n");
}

fn lines(out: &mut String, name: &str, function: &str, entry: &Entry, entries: &[Entry]) {
    let begin = format!("complete -c {name} -n \"{function}_at '{}'\"", entry.words());
    let _ = writeln!(out, "\n# {}", if entry.path.is_empty() { name.to_owned() } else { entry.words() });
    for child in &entry.children {
        let _ = writeln!(out, "{begin} -a {} -d {}", child.name, quoted(child.about));
    }
    for shown in &entry.flags {
        let mut line = begin.clone();
        for name in &shown.names {
            let (option, bare) = match name.strip_prefix("--") {
                Some(long) => ("-l", long),
                None => ("-s", name.trim_start_matches('-')),
            };
            let _ = write!(line, " {option} {bare}");
        }
        if shown.flag.value.is_some() {
            line.push_str(&offer(of_flag(shown.flag), function, entries, " -r", " -x"));
        }
        let _ = writeln!(out, "{line} -d {}", quoted(shown.flag.help));
    }
    let _ = writeln!(out, "{begin} -l help -s h -d 'show help'");
    let arguments = entry.arguments();
    if arguments != Values::Nothing {
        let _ = writeln!(out, "{begin}{}", offer(arguments, function, entries, "", ""));
    }
}

/// What is offered for a value, as flags of `complete`: `files` stands before those of files, `only` before the others.
fn offer(values: Values, function: &str, entries: &[Entry], files: &str, only: &str) -> String {
    match values {
        Values::Nothing => only.to_owned(),
        Values::File => format!("{files} -F"),
        Values::Folder => format!("{only} -a '(__fish_complete_directories (commandline -ct))'"),
        Values::Words(words) => format!("{only} -a '{}'", words.join(" ")),
        Values::List(words) => format!("{only} -a '(__fish_append , {})'", words.join(" ")),
        Values::Peer => format!("{only} -a '({function}_peers)'"),
        Values::Peers => format!("{only} -a '(__fish_append , ({function}_peers))'"),
        Values::Commands => format!("{only} -a '{}'", commands(entries)),
    }
}

/// Text in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The part that is the same for all.
const ENGINE: &str = r#"# The commands before the cursor, without flags and their values.
function @FUNCTION@_path
    set -l at ''
    set -l pending no
    set -l words (commandline -opc)
    for word in $words[2..-1]
        if test $pending = yes
            set pending no
        else if test "$word" = --
            break
        else if string match -q -- '-*=*' $word
            continue
        else if string match -qr -- '^-.' $word
            if contains -- (string replace -r -- '^--?' '' $word) (@FUNCTION@_valued "$at")
                set pending yes
            end
        else if contains -- $word (@FUNCTION@_children "$at")
            set at (string trim -- "$at $word")
        end
    end
    echo -- $at
end

# Whether the commands before the cursor are $argv[1].
function @FUNCTION@_at
    test "$(@FUNCTION@_path)" = "$argv[1]"
end

# The peers, as the peer of this machine knows them; nothing when it does not answer at once.
function @FUNCTION@_peers
    command @NAME@ --timeout 1 peers ls 2>/dev/null | string replace -rf -- '^([A-Za-z0-9]{40,}) \|.*' '$1'
end

# No files where none are meant.
complete -c @NAME@ -f
"#;
