//! Completions for bash: a function that reads the words before the cursor as the program would.
//!
//! It needs nothing but bash 4: the package bash-completion only loads it. bash makes three words of `--flag=value`, and
//! names with a colon or a comma are its own affair; what is offered has neither.

use super::actions::{action, by_flag};
use super::{entries, identifier, names, Entry};
use crate::cli::face::Face;
use std::fmt::Write;

/// The script for a face.
pub(super) fn script(face: Face) -> String {
    let (name, entries) = (face.name(), entries(face));
    let function = format!("_{}", identifier(name));
    let mut out = format!(
        "# bash completion for {name}. Made by `pinfold completion bash --name {name}`; a test keeps it true.\n\n"
    );
    at(&mut out, &function, &entries);
    value(&mut out, &function, &entries);
    out.push_str(&ENGINE.replace("@FUNCTION@", &function).replace("@NAME@", name));
    out
}

/// What stands behind which words.
fn at(out: &mut String, function: &str, entries: &[Entry]) {
    let _ = writeln!(out, "# What can stand behind the commands of $1: further commands, flags, arguments.");
    let _ = writeln!(out, "{function}_at() {{\n    children='' flags='' arguments=''\n    case \"$1\" in");
    for entry in entries {
        let _ = writeln!(out, "    '{}')", entry.words());
        if !entry.children.is_empty() {
            let _ = writeln!(out, "        children='{}'", names(&entry.children));
        }
        if let Some(action) = action(entry.arguments(), entries) {
            let _ = writeln!(out, "        arguments='{action}'");
        }
        let flags = entry.flags.iter().flat_map(|shown| &shown.names).map(String::as_str);
        let flags: Vec<&str> = flags.chain(["--help", "-h"]).collect();
        let _ = writeln!(out, "        flags='{}' ;;", flags.join(" "));
    }
    out.push_str("    *) return 1 ;;\n    esac\n}\n\n");
}

/// Which flags take a value, and what it can be.
fn value(out: &mut String, function: &str, entries: &[Entry]) {
    let _ = writeln!(out, "# What the value of the flag $2 (without dashes) can be behind the commands of $1; fails for a switch.");
    let _ = writeln!(out, "{function}_value() {{\n    value=''\n    case \"$1:$2\" in");
    for (action, patterns) in by_flag(entries) {
        let _ = writeln!(out, "    {})\n        value='{action}' ;;", patterns.join(" | \\\n    "));
    }
    out.push_str("    *) return 1 ;;\n    esac\n}\n\n");
}

/// The part that is the same for all.
const ENGINE: &str = r#"# The peers, as the peer of this machine knows them; nothing when it does not answer at once.
@FUNCTION@_peers() {
    command @NAME@ --timeout 1 peers ls 2>/dev/null | sed -n 's/^\([A-Za-z0-9]\{40,\}\) |.*/\1/p'
}

# Offers what the action $1 says.
@FUNCTION@_offer() {
    local action=${1%% *} words='' before=''
    case "$1" in *' '*) words=${1#* } ;; esac
    case "$action" in
    file)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return ;;
    folder)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        return ;;
    peer | peers) words=$(@FUNCTION@_peers) ;;
    esac
    case "$action:$cur" in list:*,* | peers:*,*) before=${cur%,*}, ;; esac
    case "$action" in list | peers) compopt -o nospace 2>/dev/null ;; esac
    mapfile -t COMPREPLY < <(compgen -P "$before" -W "$words" -- "${cur#"$before"}")
}

@FUNCTION@() {
    local cur=${COMP_WORDS[COMP_CWORD]} at='' pending='' plain='' word i
    local children flags arguments value
    COMPREPLY=()
    @FUNCTION@_at ''
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ -n $pending ]]; then
            # --flag=value comes as three words.
            [[ $word == = ]] || pending=''
        elif [[ -n $plain ]]; then
            :
        elif [[ $word == -- ]]; then
            plain=yes
        elif [[ $word == -?* ]]; then
            word=${word#-}
            if @FUNCTION@_value "$at" "${word#-}"; then pending=${word#-}; fi
        elif [[ " $children " == *" $word "* ]]; then
            at=${at:+$at }$word
            @FUNCTION@_at "$at"
        fi
    done
    if [[ -n $pending ]]; then
        [[ $cur == = ]] && cur=''
        @FUNCTION@_value "$at" "$pending" && [[ -n $value ]] && @FUNCTION@_offer "$value"
    elif [[ $cur == -* && -z $plain ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    elif [[ -n $children ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$children" -- "$cur")
    elif [[ -n $arguments ]]; then
        @FUNCTION@_offer "$arguments"
    fi
    return 0
}

complete -F @FUNCTION@ @NAME@
"#;
