//! Manual pages and completions: the committed copies are what the program writes, `man` and mandoc have nothing to say
//! against the pages, and real shells complete what they should.
//!
//! `UPDATE_GOLDENFILES=1 cargo test --test manual` writes `packaging/man` and `packaging/completions` anew.

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::cluster::{ok, run};
use support::skip;

const PAGES: [&str; 4] = ["pinfold.1", "pinfold.5", "ipfs-cluster-service.1", "ipfs-cluster-ctl.1"];
const NAMES: [&str; 3] = ["pinfold", "ipfs-cluster-service", "ipfs-cluster-ctl"];

fn packaging(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(folder)
}

/// Where a shell's completions for a name are kept.
fn kept(shell: &str, name: &str) -> PathBuf {
    packaging("completions").join(match shell {
        "bash" => format!("{name}.bash"),
        "zsh" => format!("_{name}"),
        _ => format!("{name}.fish"),
    })
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_committed_pages_and_completions_are_what_the_program_writes() {
    let mut wanted: Vec<(PathBuf, String)> = Vec::new();
    for page in PAGES {
        wanted.push((packaging("man").join(page), ok(run(["man", page]))));
    }
    for shell in ["bash", "zsh", "fish"] {
        for name in NAMES {
            wanted.push((kept(shell, name), ok(run(["completion", shell, "--name", name]))));
        }
    }
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        for folder in ["man", "completions"] {
            let _ = std::fs::remove_dir_all(packaging(folder));
            std::fs::create_dir_all(packaging(folder)).expect("folder");
        }
        for (path, text) in &wanted {
            std::fs::write(path, text).expect("written");
        }
    }
    for (path, text) in &wanted {
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            there == *text,
            "{} is out of date: UPDATE_GOLDENFILES=1 cargo test --test manual",
            path.display()
        );
    }
    let files = names_in(&packaging("man")).len() + names_in(&packaging("completions")).len();
    assert_eq!(files, wanted.len(), "files that nobody writes any more");
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let no_page = run(["man", "pinfold.7"]);
    assert_eq!(no_page.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&no_page.stderr).contains("pinfold.1, pinfold.5"));
    for (args, said) in [
        (["completion", "tcsh", "--name", "pinfold"], "bash, zsh, fish"),
        (["completion", "bash", "--name", "kubo"], "ipfs-cluster-ctl"),
    ] {
        let refused = run(args);
        assert_eq!(refused.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(said), "{refused:?}");
    }
    assert_eq!(ok(run(["man"])), ok(run(["man", "pinfold"])));
    // Scripts compare what the programs of ipfs-cluster list.
    let folder = tempfile::tempdir().expect("folder");
    for name in &NAMES[1..] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(support::executable::executable(), &link).expect("link");
        for word in ["man", "completion", "backup"] {
            let output = Command::new(&link).args([word, "bash"]).output().expect("starts");
            assert!(!output.status.success(), "{name} {word}");
        }
    }
}

/// A program that this test needs, if it is installed.
fn has(program: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        skip(&format!("{program} is not installed: apt-get install man-db groff mandoc zsh fish"));
    }
    found
}

#[test]
fn man_and_mandoc_have_nothing_to_say_against_the_pages() {
    if !has("man") || !has("groff") || !has("mandoc") {
        return;
    }
    for page in PAGES {
        let path = packaging("man").join(page);
        let path = path.to_str().expect("UTF-8");
        let man = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path])
            .env("MANROFFSEQ", "")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("man");
        let said = String::from_utf8_lossy(&man.stderr).into_owned();
        assert!(man.status.success() && said.is_empty(), "{page}: {said}");
        let lint =
            Command::new("mandoc").args(["-T", "lint", "-W", "warning", path]).output().expect("mandoc");
        let said = String::from_utf8_lossy(&lint.stdout).into_owned();
        assert!(lint.status.success() && said.is_empty(), "{page}: {said}");
        let shown = Command::new("mandoc").args(["-T", "ascii", path]).output().expect("mandoc");
        let shown = String::from_utf8_lossy(&shown.stdout).replace('\u{8}', "");
        assert!(!shown.contains("\\f") && !shown.contains("\\("), "{page}: roff that is shown");
    }
    let whole = |page: &str| {
        let path = packaging("man").join(page);
        let shown = Command::new("man")
            .args(["-E", "UTF-8", "-l", "-Tutf8", path.to_str().expect("UTF-8")])
            .env("LC_ALL", "C.UTF-8")
            .env("MANWIDTH", "200")
            .env("MANPAGER", "cat")
            .output()
            .expect("man");
        // Bold and italic are overstrikes or colours.
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        let plain = Command::new("col").arg("-bx").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut plain = plain.expect("col");
        std::io::Write::write_all(&mut plain.stdin.take().expect("stdin"), text.as_bytes()).expect("written");
        String::from_utf8_lossy(&plain.wait_with_output().expect("col").stdout).into_owned()
    };
    // What can be copied from a page can be typed.
    let page = whole("pinfold.1");
    for text in ["--replication-min", "pinfold pin add -r 2 --wait CID", "~/.pinfold", "pinfold state check"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(whole("pinfold.5").contains("CLUSTER_RAFT_WITNESS"));
}

/// What a shell offers at the end of a line.
struct Shell {
    name: &'static str,
    home: tempfile::TempDir,
}

impl Shell {
    fn new(name: &'static str) -> Option<Shell> {
        if !has(name) {
            return None;
        }
        let home = tempfile::tempdir().expect("folder");
        let at = home.path();
        std::fs::create_dir_all(at.join("files/folder")).expect("folder");
        std::fs::write(at.join("files/some file"), "x").expect("file");
        std::fs::create_dir(at.join("bin")).expect("folder");
        // A peer whose answer would do harm if a shell ran it.
        let fake = at.join("bin/pinfold");
        let listing = "12D3KooWEnbHdSKYsWy2jFd9srbdrcvABEUsL5vRQZk97cjJZdxy | attic | Sees 2 other peers\\n\
                       $(touch harm)`touch harm` | x | y\\n  > Addresses: none\\n\
                       12D3KooWQkSzyWLvsjnKVw4xPgqWoqLDHFQTf2WRvuk2FwPRDxdg | cellar | ERROR\\n";
        std::fs::write(
            &fake,
            format!("#!/bin/sh\ncase \"$*\" in *'peers ls'*) printf '%b' '{listing}' ;; esac\n"),
        )
        .expect("fake");
        std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        Some(Shell { name, home })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.name);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", self.home.path().join("bin").display()))
            .env("HOME", self.home.path())
            .env("TERM", "dumb")
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.home.path().join("files"))
            .stdin(Stdio::null());
        command
    }

    /// The words that are offered for the last word of a line.
    fn offers(&self, line: &str) -> BTreeSet<String> {
        let program = line.split(' ').next().expect("a program");
        let script = kept(self.name, program);
        let script = script.to_str().expect("UTF-8");
        let text = match self.name {
            "bash" => self.bash(script, line),
            "zsh" => self.zsh(script, line),
            _ => self.fish(script, line),
        };
        let last = line.rsplit([' ', '=']).next().unwrap_or_default();
        let before = last.rsplit_once(',').map(|(before, _)| format!("{before},")).unwrap_or_default();
        let flag =
            line.rsplit(' ').next().and_then(|w| w.split_once('=')).map(|(flag, _)| format!("{flag}="));
        assert!(!self.home.path().join("files/harm").exists(), "{line}: a shell ran what a peer answered");
        text.lines()
            .map(|word| word.trim_end_matches(['/', ' ']))
            // Some shells offer the whole word, some what is behind the comma or the equals sign.
            .map(|word| word.strip_prefix(flag.as_deref().unwrap_or_default()).unwrap_or(word))
            .map(|word| word.strip_prefix(before.as_str()).unwrap_or(word))
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// As bash itself does it: the words are cut at spaces and equals signs.
    fn bash(&self, script: &str, line: &str) -> String {
        const DRIVER: &str = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
             function=$(complete -p \"$1\" | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); \"$function\"; \
             printf '%s\\n' \"${COMPREPLY[@]}\"";
        let cut = line.replace('=', " = ");
        let mut command = self.command();
        command.args(["--norc", "--noprofile", "-c", DRIVER, "driver", script]).args(cut.split(' '));
        ok(command.output().expect("bash"))
    }

    fn fish(&self, script: &str, line: &str) -> String {
        let mut command = self.command();
        command.args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]", script, line]);
        let output = command.output().expect("fish");
        let (out, err) = (ok(output.clone()), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(err.is_empty(), "{line}: {err}");
        out.lines().map(|l| l.split('\t').next().unwrap_or_default().to_owned() + "\n").collect()
    }

    /// An interactive zsh on a terminal of its own types the line and asks its completion system; what is added to the
    /// matches is written down.
    fn zsh(&self, script: &str, line: &str) -> String {
        let inside = self.home.path().join("inside.zsh");
        let (offered, done) = (self.home.path().join("offered"), self.home.path().join("done"));
        let (_, _) = (std::fs::remove_file(&offered), std::fs::remove_file(&done));
        std::fs::write(
            &inside,
            format!(
                "autoload -Uz compinit; compinit -u -d {home}/dump\nsource {script}\n\
                 compadd() {{\n  local -a given hits; local word; given=(\"${{@[1,(i)(-|--)]}}\")\n  \
                 if (( ${{given[(I)-[OAD]*]}} )); then builtin compadd \"$@\"; return; fi\n  \
                 builtin compadd -A hits \"$@\"\n  for word in $hits; do print -r -- $word >>{offered}; done\n  builtin compadd \"$@\"\n}}\n\
                 capture() {{ _main_complete; : >{done} }}\n\
                 zle -C capture complete-word capture\nbindkey '^I' capture\nPS1='now>'\n",
                home = self.home.path().display(),
                offered = offered.display(),
                done = done.display(),
            ),
        )
        .expect("written");
        const DRIVER: &str = "zmodload zsh/zpty; zpty z zsh -f -i; \
             zpty -w z \"source $1\"; zpty -r -m z seen '*now>*'; zpty -w -n z \"$2\"$'\\t'; \
             for ((n = 0; n < 1500; n++)); do [[ -e $3 ]] && exit 0; zpty -r -t z seen; sleep 0.02; done; exit 1";
        let mut command = self.command();
        command.args(["-f", "-c", DRIVER, "driver"]).arg(&inside).arg(line).arg(&done);
        ok(command.output().expect("zsh"));
        std::fs::read_to_string(&offered).unwrap_or_default()
    }
}

fn set(words: &str) -> BTreeSet<String> {
    words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// What every shell must offer: exactly.
const EXACT: &[(&str, &str)] = &[
    ("pinfold pin ", "add rm update import ls"),
    ("pinfold pin i", "import"),
    ("pinfold -c folder pin ", "add rm update import ls"),
    ("pinfold --config folder --debug state e", "export"),
    ("pinfold --enc ", "text json"),
    ("pinfold --encoding=", "text json"),
    ("pinfold --encoding=j", "json"),
    ("pinfold --enc json pin ls --filter pin,me", "meta-pin"),
    ("pinfold status --filter unpin", "unpin_error unpin_queued unpinned unpinning"),
    ("pinfold status --filter pinned,unpin_", "unpin_error unpin_queued"),
    ("pinfold add --format ", "unixfs car"),
    ("pinfold add --layout t", "trickle"),
    ("pinfold pin add --mode ", "recursive direct"),
    ("pinfold up --ipfs ", "embedded kubo"),
    ("pinfold init --consensus ", "raft crdt"),
    ("pinfold pin add --replication-m", "--replication-min --replication-max"),
    ("pinfold completion ", "bash zsh fish"),
    ("pinfold man i", "ipfs-cluster-service.1 ipfs-cluster-ctl.1"),
    ("pinfold pin add --wait-limit ", ""),
    ("pinfold help re", "rebalance recover"),
    ("pinfold state check ", "folder"),
    ("pinfold -c ", "folder"),
    ("pinfold state export --file so", "some file"),
    (
        "pinfold peers rm ",
        "12D3KooWEnbHdSKYsWy2jFd9srbdrcvABEUsL5vRQZk97cjJZdxy 12D3KooWQkSzyWLvsjnKVw4xPgqWoqLDHFQTf2WRvuk2FwPRDxdg",
    ),
    ("pinfold drain 12D3KooWE", "12D3KooWEnbHdSKYsWy2jFd9srbdrcvABEUsL5vRQZk97cjJZdxy"),
    (
        "pinfold pin add --allocations 12D3KooWEnbHdSKYsWy2jFd9srbdrcvABEUsL5vRQZk97cjJZdxy,12D3KooWQ",
        "12D3KooWQkSzyWLvsjnKVw4xPgqWoqLDHFQTf2WRvuk2FwPRDxdg",
    ),
    ("ipfs-cluster-ctl pin ", "add rm update ls"),
    ("ipfs-cluster-ctl health m", "metrics"),
    ("ipfs-cluster-service ", "init daemon state version help"),
    ("ipfs-cluster-service state ", "export import cleanup upgrade"),
];

fn completes(name: &'static str) {
    let Some(shell) = Shell::new(name) else { return };
    for (line, wanted) in EXACT {
        let offered = shell.offers(line);
        let wanted =
            if *wanted == "some file" { BTreeSet::from(["some file".to_owned()]) } else { set(wanted) };
        // A name with a space is offered as it has to be typed.
        let offered: BTreeSet<String> = offered.into_iter().map(|word| word.replace("\\ ", " ")).collect();
        assert_eq!(offered, wanted, "{name}: {line:?}");
    }
    let top = shell.offers("pinfold ");
    for command in ["pin", "up", "join", "doctor", "backup", "man"] {
        assert!(top.contains(command), "{name}: {command}: {top:?}");
    }
    assert!(!top.contains("commands") && !top.contains("some file"), "{name}: {top:?}");
    let flags = shell.offers("pinfold daemon -");
    assert!(
        flags.contains("--bootstrap") && flags.contains("--help") && flags.contains("--loglevel"),
        "{flags:?}"
    );
    assert!(!flags.contains("--tracing") && !flags.contains("--encoding"), "{name}: {flags:?}");
    let files = shell.offers("pinfold add ");
    assert!(files.contains("folder") && files.iter().any(|f| f.starts_with("some")), "{name}: {files:?}");
}

#[test]
fn bash_completes() {
    completes("bash");
}

#[test]
fn zsh_completes() {
    completes("zsh");
}

#[test]
fn fish_completes() {
    completes("fish");
}
