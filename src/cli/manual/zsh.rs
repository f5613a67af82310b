//! Completions for zsh: the words before the cursor are read as the program reads them, and what can follow is shown
//! with its explanation.

use super::actions::{action, by_flag};
use super::{entries, identifier, Entry};
use crate::cli::face::Face;
use std::fmt::Write;

/// The script for a face.
pub(super) fn script(face: Face) -> String {
    let (name, entries) = (face.name(), entries(face));
    let function = format!("_{}", identifier(name));
    let mut out = format!(
        "#compdef {name}\n# zsh completion for {name}. Made by `pinfold completion zsh --name {name}`; a test keeps it true.\n\n"
    );
    at(&mut out, &function, &entries);
    value(&mut out, &function, &entries);
    out.push_str(&ENGINE.replace("@FUNCTION@", &function).replace("@NAME@", name));
    out
}

fn at(out: &mut String, function: &str, entries: &[Entry]) {
    let _ = writeln!(out, "# What can stand behind the commands of $1: further commands, flags, arguments.");
    let _ = writeln!(out, "{function}_at() {{\n  children=() flags=() arguments=\n  case \"$1\" in");
    for entry in entries {
        let _ = writeln!(out, "  '{}')", entry.words());
        if !entry.children.is_empty() {
            out.push_str("    children=(\n");
            for child in &entry.children {
                let _ = writeln!(out, "      {}", described(child.name, child.about));
            }
            out.push_str("    )\n");
        }
        if let Some(action) = action(entry.arguments(), entries) {
            let _ = writeln!(out, "    arguments='{action}'");
        }
        out.push_str("    flags=(\n");
        for shown in &entry.flags {
            for name in &shown.names {
                let _ = writeln!(out, "      {}", described(name, shown.flag.help));
            }
        }
        let _ = writeln!(out, "      '--help:show help'\n      '-h:show help'\n    ) ;;");
    }
    out.push_str("  *) return 1 ;;\n  esac\n}\n\n");
}

/// `'word:what it means'`, in single quotes.
fn described(word: &str, text: &str) -> String {
    format!("'{word}:{}'", text.replace('\\', "\\\\").replace(':', "\\:").replace('\'', "'\\''"))
}

fn value(out: &mut String, function: &str, entries: &[Entry]) {
    let _ = writeln!(out, "# What the value of the flag $2 (without dashes) can be behind the commands of $1; fails for a switch.");
    let _ = writeln!(out, "{function}_value() {{\n  value=\n  case \"$1:$2\" in");
    for (action, patterns) in by_flag(entries) {
        let _ = writeln!(out, "  {})\n    value='{action}' ;;", patterns.join(" | \\\n  "));
    }
    out.push_str("  *) return 1 ;;\n  esac\n}\n\n");
}

/// The part that is the same for all.
const ENGINE: &str = r#"# The peers, as the peer of this machine knows them; nothing when it does not answer at once.
@FUNCTION@_peers() {
  command @NAME@ --timeout 1 peers ls 2>/dev/null | sed -n 's/^\([A-Za-z0-9]\{40,\}\) |.*/\1/p'
}

# Offers what the action $1 says.
@FUNCTION@_offer() {
  local -a given
  given=(${=1})
  local action=$given[1]
  shift given
  case $action in
  file) _files ; return ;;
  folder) _files -/ ; return ;;
  peer | peers) given=(${(f)"$(@FUNCTION@_peers)"}) ;;
  esac
  case $action in
  list | peers)
    compset -P '*,'
    compadd -S '' -- $given ;;
  *) compadd -- $given ;;
  esac
}

@FUNCTION@() {
  local at= pending= plain= word value arguments
  local -a children flags
  local -i i
  @FUNCTION@_at ''
  for ((i = 2; i < CURRENT; i++)); do
    word=$words[i]
    if [[ -n $pending ]]; then
      pending=
    elif [[ -n $plain ]]; then
      :
    elif [[ $word == -- ]]; then
      plain=yes
    elif [[ $word == -?*=* ]]; then
      :
    elif [[ $word == -?* ]]; then
      word=${word#-}
      if @FUNCTION@_value "$at" "${word#-}"; then pending=${word#-}; fi
    elif (( ${children[(I)$word:*]} )); then
      at=${at:+$at }$word
      @FUNCTION@_at "$at"
    fi
  done
  if [[ -n $pending ]]; then
    @FUNCTION@_value "$at" "$pending" && [[ -n $value ]] && @FUNCTION@_offer "$value"
  elif [[ -z $plain && $PREFIX == -?*=* ]]; then
    word=${${PREFIX%%=*}#-}
    compset -P '-*='
    @FUNCTION@_value "$at" "${word#-}" && [[ -n $value ]] && @FUNCTION@_offer "$value"
  elif [[ -z $plain && $PREFIX == -* ]]; then
    _describe -o option flags
  elif (( $#children )); then
    _describe command children
  elif [[ -n $arguments ]]; then
    @FUNCTION@_offer "$arguments"
  else
    _message 'no more to complete'
  fi
}

# Read as an autoloaded function the file is the function's body; sourced, it only defines it.
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  @FUNCTION@ "$@"
else
  compdef @FUNCTION@ @NAME@
fi
"#;
