//! The pass in front of argh: from what people type to what argh understands.
//!
//! argh knows neither `--flag=value` nor aliases, takes a global flag only before the sub-command and
//! refuses a flag that is given twice. People (and ten years of scripts for ipfs-cluster) do all of
//! that. This pass reads the words against the table and gives back, separately, the global flags, the
//! command's own flags and the plain arguments, every flag under its long name and with its value as
//! the next word, the last of several values only (unless the flag repeats).
//!
//! It decides names, never meanings: whether `5x` is a number is for the typed structs.
//! It must never guess: an unknown flag ends in an error that names the nearest known one.

use super::face::Face;
use super::table::{self, Cmd, Command, Flag, Side};

/// What a command line asks for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Run a command.
    Run(Words),
    /// Show the help of the program (empty) or of a command.
    Help(Vec<&'static Command>),
    /// Show the version of the program.
    Version,
    /// There was no command at all.
    Nothing,
}

/// A command line in argh's shape.
#[derive(Clone, Debug)]
pub struct Words {
    /// The command and the groups it is in.
    pub path: Vec<&'static Command>,
    /// Global flags.
    pub globals: Vec<String>,
    /// The command's own flags, then `--`, then its plain arguments.
    pub own: Vec<String>,
}

impl Words {
    /// The command to run.
    pub fn command(&self) -> &'static Command {
        self.path.last().copied().expect("a command line that runs names its command")
    }
}

/// Why a command line cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misunderstood {
    /// No such command.
    Command {
        /// The word.
        word: String,
        /// The nearest command, if one is near.
        nearest: Option<String>,
    },
    /// A flag is unknown, lacks its value, or has one it does not take; or arguments are too few or many.
    Usage(String),
}

/// Turns the words after the program's name into what they ask for. `env` looks up an environment
/// variable; it stands in for flags that were not given.
///
/// # Errors
/// What cannot be understood, in one sentence.
pub fn normalise(
    face: Face,
    words: &[String],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Asked, Misunderstood> {
    Pass { face, path: Vec::new(), flags: Vec::new(), plain: Vec::new(), help: false, version: false }
        .run(words, env)
}

/// A flag as found: its name without dashes, its value if it brought one.
struct Found {
    flag: &'static Flag,
    global: bool,
    value: Option<String>,
}

struct Pass {
    face: Face,
    path: Vec<&'static Command>,
    flags: Vec<Found>,
    plain: Vec<String>,
    help: bool,
    version: bool,
}

impl Pass {
    fn run(mut self, words: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<Asked, Misunderstood> {
        // Which side's global flags apply is known only once the command is: find it first, with flags
        // skipped by their arity (which is the same on both sides; a test holds the table to that).
        let command_side = self.find_side(words);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                self.plain.extend(words.by_ref().cloned());
            } else if word.len() > 1 && word.starts_with('-') && !self.is_negative_argument(word) {
                self.flag(word, command_side, &mut words)?;
            } else if self.plain.is_empty() && self.takes_command() {
                self.command(word)?;
                if self.path.last().is_some_and(|c| c.cmd == Cmd::Help) {
                    return self.help_for(words.as_slice());
                }
            } else {
                self.plain.push(word.clone());
            }
        }
        if self.help {
            return Ok(Asked::Help(self.path));
        }
        if self.version {
            return Ok(Asked::Version);
        }
        match self.path.last() {
            None => Ok(Asked::Nothing),
            Some(c) if c.cmd == Cmd::Group => Ok(Asked::Help(self.path)),
            Some(_) => self.finish(env),
        }
    }

    /// The side of the command these words name; [`Side::Both`] when they name none.
    fn find_side(&self, words: &[String]) -> Side {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                break;
            }
            if word.len() > 1 && word.starts_with('-') {
                let (name, value) = split(word);
                let takes_value =
                    table::globals(self.face, Side::Both).any(|f| f.is(name) && f.value.is_some());
                if takes_value && value.is_none() {
                    words.next();
                }
                continue;
            }
            return table::COMMANDS.iter().find(|c| c.is(word, self.face)).map_or(Side::Both, |c| c.side);
        }
        Side::Both
    }

    /// Whether the next plain word names a command.
    fn takes_command(&self) -> bool {
        self.path.last().is_none_or(|c| c.cmd == Cmd::Group)
    }

    /// `-1` is a flag nowhere; where an argument may stand it is one.
    fn is_negative_argument(&self, word: &str) -> bool {
        !self.takes_command() && word[1..].parse::<f64>().is_ok()
    }

    fn command(&mut self, word: &str) -> Result<(), Misunderstood> {
        let face = self.face;
        let commands = self.path.last().map_or(table::COMMANDS, |c| c.children);
        // `pin help add` and `help pin add` are the same.
        let help = (!self.path.is_empty() && matches!(word, "help" | "h"))
            .then(|| table::COMMANDS.iter().find(|c| c.cmd == Cmd::Help))
            .flatten();
        match commands.iter().find(|c| c.is(word, face)).or(help) {
            Some(command) => {
                self.path.push(command);
                Ok(())
            }
            None => {
                let names = commands.iter().filter(|c| c.faces.has(face) && !c.hidden).map(|c| c.name);
                Err(Misunderstood::Command {
                    word: word.to_string(),
                    nearest: nearest(word, names)
                        .map(|n| self.path.iter().map(|c| c.name).chain([n]).collect::<Vec<_>>().join(" ")),
                })
            }
        }
    }

    /// `help`, then the words of a command.
    fn help_for(mut self, words: &[String]) -> Result<Asked, Misunderstood> {
        let help = self.path.pop();
        let mut named = words.iter().filter(|w| !w.starts_with('-')).peekable();
        if named.peek().is_none() && words.iter().any(|w| matches!(w.as_str(), "--help" | "-h" | "-help")) {
            self.path.extend(help);
        }
        for word in named {
            if !self.takes_command() {
                break;
            }
            self.command(word)?;
        }
        Ok(Asked::Help(self.path))
    }

    fn flag<'w>(
        &mut self,
        word: &str,
        side: Side,
        words: &mut impl Iterator<Item = &'w String>,
    ) -> Result<(), Misunderstood> {
        let (name, value) = split(word);
        let own = self.path.last().map_or(&[][..], |c| c.flags);
        let found = own
            .iter()
            .find(|f| f.is(name))
            .map(|f| (f, false))
            .or_else(|| table::globals(self.face, side).find(|f| f.is(name)).map(|f| (f, true)));
        if let Some((flag, global)) = found {
            return self.take(flag, global, word, value.map(str::to_string), words);
        }
        match name {
            "help" | "h" => self.help = true,
            "version" | "v" if self.path.is_empty() => self.version = true,
            _ => {
                // `-rQ`: several one-letter switches in one word.
                let letters: Option<Vec<&'static Flag>> = (!word.starts_with("--") && value.is_none())
                    .then(|| {
                        name.char_indices()
                            .map(|(i, c)| {
                                let letter = &name[i..i + c.len_utf8()];
                                own.iter().find(|f| f.is(letter) && f.value.is_none())
                            })
                            .collect()
                    })
                    .flatten();
                let Some(letters) = letters else {
                    return Err(Misunderstood::Usage(self.unknown_flag(word, name, side)));
                };
                self.flags.extend(letters.into_iter().map(|flag| Found { flag, global: false, value: None }));
            }
        }
        Ok(())
    }

    fn unknown_flag(&self, word: &str, name: &str, side: Side) -> String {
        let own = self.path.last().map_or(&[][..], |c| c.flags).iter();
        let shown = own.chain(table::globals(self.face, side)).filter(|f| !f.hidden);
        let names = shown.flat_map(|f| std::iter::once(f.long).chain(f.aliases.iter().copied()));
        let known = nearest(name, names);
        let word = word.split('=').next().unwrap_or(word);
        match known {
            Some(n) if n.len() == 1 => format!("flag provided but not defined: {word}; did you mean -{n}?"),
            Some(n) => format!("flag provided but not defined: {word}; did you mean --{n}?"),
            None => format!("flag provided but not defined: {word}"),
        }
    }

    fn take<'w>(
        &mut self,
        flag: &'static Flag,
        global: bool,
        word: &str,
        value: Option<String>,
        words: &mut impl Iterator<Item = &'w String>,
    ) -> Result<(), Misunderstood> {
        let value = match (flag.value, value) {
            (None, None) => None,
            (None, Some(text)) => match parse_bool(&text) {
                Some(true) => None,
                Some(false) => {
                    self.flags.retain(|f| !std::ptr::eq(f.flag, flag));
                    return Ok(());
                }
                None => {
                    return Err(Misunderstood::Usage(format!(
                        "--{} takes true or false, not \"{text}\"",
                        flag.long
                    )))
                }
            },
            (Some(_), Some(text)) => Some(text),
            (Some(what), None) => Some(
                words
                    .next()
                    .cloned()
                    .ok_or_else(|| Misunderstood::Usage(format!("flag needs an argument: {word} {what}")))?,
            ),
        };
        if !flag.repeats {
            self.flags.retain(|f| !std::ptr::eq(f.flag, flag));
        }
        self.flags.push(Found { flag, global, value });
        Ok(())
    }

    fn finish(mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<Asked, Misunderstood> {
        let command = self.path.last().copied().expect("finish is called with a command");
        if self.plain.len() < command.min_args {
            return Err(Misunderstood::Usage(format!("`{}` needs {}", command.name, command.args)));
        }
        if let Some(extra) = self.plain.get(command.max_args) {
            return Err(Misunderstood::Usage(format!("`{}` does not take \"{extra}\"", command.name)));
        }
        for flag in table::globals(self.face, command.side).filter(|f| !f.env.is_empty()) {
            let given = self.flags.iter().any(|f| f.global && f.flag.long == flag.long);
            if let (false, Some(value)) = (given, env(flag.env).filter(|v| !v.is_empty())) {
                self.flags.push(Found { flag, global: true, value: Some(value) });
            }
        }
        let (mut globals, mut own) = (Vec::new(), Vec::new());
        for found in self.flags {
            let words = if found.global { &mut globals } else { &mut own };
            words.push(format!("--{}", found.flag.long));
            words.extend(found.value);
        }
        own.push("--".to_string());
        own.append(&mut self.plain);
        Ok(Asked::Run(Words { path: self.path, globals, own }))
    }
}

/// `--flag=value` in two; dashes gone.
fn split(word: &str) -> (&str, Option<&str>) {
    let bare = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or(word);
    match bare.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (bare, None),
    }
}

/// The truth values that Go's flags know.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Words that differ by more than this share of their length are not called near.
const NEAR_SHARE: usize = 2;

/// The nearest of `known`, if it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (distance(word, k), k))
        // Of equally near ones the one that begins alike: letters are lost at the end more than elsewhere.
        .min_by_key(|(d, k)| (*d, std::cmp::Reverse(common_start(word, k))))
        .filter(|(d, k)| *d <= 1 || *d * NEAR_SHARE < k.chars().count().max(word.chars().count()))
        .filter(|(d, k)| *d < k.chars().count())
        .map(|(_, k)| k)
}

/// How many letters two words begin with in common.
fn common_start(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// Edits from one word to another: insert, remove, replace a letter, or swap two neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let first: Vec<usize> = (0..=b.len()).collect();
    let mut rows = vec![first];
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(ca != cb)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *ca == b[j - 1] && a[i - 1] == *cb {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;
    use crate::cli::table::{Global, GLOBALS};

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_string).collect()
    }

    fn asked(face: Face, line: &str) -> Result<Asked, Misunderstood> {
        normalise(face, &words(line), &|_| None)
    }

    /// `path | globals | own`
    fn run(face: Face, line: &str) -> String {
        match asked(face, line) {
            Ok(Asked::Run(w)) => {
                let path: Vec<_> = w.path.iter().map(|c| c.name).collect();
                format!("{} | {} | {}", path.join(" "), w.globals.join(" "), w.own.join(" "))
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_people_type_becomes_what_argh_reads() {
        for (line, expected) in [
            ("status", "status |  | --"),
            ("-c a status", "status | --config a | --"),
            ("status -c a", "status | --config a | --"),
            ("status --config=a x", "status | --config a | -- x"),
            ("-c a status -c b", "status | --config b | --"),
            ("pin -c a add x -r -1", "pin add | --config a | --replication -1 -- x"),
            ("pin add x --rmin=-1 -rmax 2", "pin add |  | --replication-min -1 --replication-max 2 -- x"),
            (
                "pin add --metadata a=b x --metadata=c=d=e",
                "pin add |  | --metadata a=b --metadata c=d=e -- x",
            ),
            ("pin add --name a --name b x", "pin add |  | --name b -- x"),
            ("pin add --wait --wait=false x", "pin add |  | -- x"),
            (
                "pin add --wt 5s --wl=2 --ns x",
                "pin add |  | --wait-timeout 5s --wait-limit 2 --no-status -- x",
            ),
            ("pin add -- -x", "pin add |  | -- -x"),
            ("peers rm -1", "peers rm |  | -- -1"),
            ("add -rQ -w a b", "add |  | --recursive --quieter --wrap-with-directory -- a b"),
            ("add -s size-100 a", "add |  | --chunker size-100 -- a"),
            ("-s add a", "add | --https | -- a"),
            ("-l /ip4/1.2.3.4/tcp/1 id", "id | --host /ip4/1.2.3.4/tcp/1 | --"),
            ("-l debug daemon", "daemon | --loglevel debug | --"),
            ("daemon -j /ip4/1.2.3.4/tcp/1 -x", "daemon |  | --bootstrap /ip4/1.2.3.4/tcp/1 --leave | --"),
        ] {
            let expected = expected.replace("--leave | --", "--leave --");
            assert_eq!(run(Face::Pinfold, line), expected, "{line}");
        }
    }

    #[test]
    fn a_flag_of_the_command_wins_over_a_global_one() {
        // -f is --file of `health graph`, and --force-http elsewhere.
        assert_eq!(run(Face::Ctl, "health graph -f x"), "health graph |  | --file x --");
        assert_eq!(run(Face::Ctl, "-f health graph"), "health graph | --force-http | --");
        assert_eq!(run(Face::Service, "init -f"), "init |  | --force --");
        assert_eq!(run(Face::Service, "-f init"), "init | --force | --");
    }

    #[test]
    fn environment_variables_stand_in_for_flags() {
        let env = |name: &str| (name == "IPFS_CLUSTER_PATH").then(|| "/x".to_string());
        let of = |face, line: &str| match normalise(face, &words(line), &env) {
            Ok(Asked::Run(w)) => w.globals.join(" "),
            other => format!("{other:?}"),
        };
        assert_eq!(of(Face::Service, "daemon"), "--config /x");
        assert_eq!(of(Face::Service, "-c /y daemon"), "--config /y");
        // ipfs-cluster-ctl never looked at folders by itself.
        assert_eq!(of(Face::Ctl, "id"), "");
    }

    #[test]
    fn help_is_everywhere() {
        for (line, expected) in [
            ("--help", ""),
            ("-h", ""),
            ("help", ""),
            ("pin", "pin"),
            ("pin --help", "pin"),
            ("pin add --help", "pin add"),
            ("pin add x --name y -h", "pin add"),
            ("help pin add", "pin add"),
            ("pin help add", "pin add"),
            ("h status", "status"),
            ("help --help", "help"),
            ("-h status", "status"),
        ] {
            match asked(Face::Pinfold, line) {
                Ok(Asked::Help(path)) => {
                    let path: Vec<_> = path.iter().map(|c| c.name).collect();
                    assert_eq!(path.join(" "), expected, "{line}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
        assert!(matches!(asked(Face::Service, "--version"), Ok(Asked::Version)));
        assert!(matches!(asked(Face::Service, "-v"), Ok(Asked::Version)));
        assert!(matches!(asked(Face::Service, "-c x"), Ok(Asked::Nothing)));
    }

    #[test]
    fn mistakes_name_the_nearest_thing() {
        let nearest_of = |line: &str| match asked(Face::Pinfold, line) {
            Err(Misunderstood::Command { nearest, .. }) => nearest.unwrap_or_default(),
            Err(Misunderstood::Usage(text)) => text,
            Ok(other) => panic!("{line}: {other:?}"),
        };
        assert_eq!(nearest_of("stauts"), "status");
        assert_eq!(nearest_of("pin lst"), "pin ls");
        assert_eq!(nearest_of("zzzzzz"), "");
        for (line, text) in [
            ("status --fliter x", "flag provided but not defined: --fliter; did you mean --filter?"),
            ("status --zzzzzzz", "flag provided but not defined: --zzzzzzz"),
            ("--hosts=1 id", "flag provided but not defined: --hosts; did you mean --host?"),
            ("status --filter", "flag needs an argument: --filter STATES"),
            ("pin add --wait=maybe", "--wait takes true or false, not \"maybe\""),
            ("id x", "`id` does not take \"x\""),
            ("join", "`join` needs TOKEN"),
        ] {
            assert_eq!(nearest_of(line), text, "{line}");
        }
        // Another face's commands do not exist.
        assert!(asked(Face::Ctl, "daemon").is_err());
        assert!(asked(Face::Service, "status").is_err());
    }

    #[test]
    fn a_global_name_takes_a_value_on_both_sides_or_on_none() {
        for a in GLOBALS {
            for b in GLOBALS {
                let same = |a: &Global, b: &Global| {
                    std::iter::once(a.flag.long).chain(a.flag.aliases.iter().copied()).any(|n| b.flag.is(n))
                };
                if same(a, b) {
                    assert_eq!(a.flag.value.is_some(), b.flag.value.is_some(), "{}", a.flag.long);
                }
            }
        }
    }

    #[test]
    fn every_flag_of_the_table_is_read_by_the_typed_structs() {
        for face in [Face::Pinfold, Face::Service, Face::Ctl] {
            table::walk(face, &mut |path| {
                let command = path[path.len() - 1];
                if matches!(command.cmd, Cmd::Group | Cmd::Help | Cmd::Commands) {
                    return;
                }
                let mut flags: Vec<&Flag> = command.flags.iter().collect();
                flags.extend(table::globals(face, command.side));
                for flag in flags {
                    for name in std::iter::once(flag.long).chain(flag.aliases.iter().copied()) {
                        let meant = command.flags.iter().find(|f| f.is(name)).unwrap_or(flag);
                        let mut line: Vec<String> = path.iter().map(|c| c.name.to_string()).collect();
                        line.push(format!("--{name}"));
                        if meant.value.is_some() {
                            line.push("1".into());
                        }
                        line.extend((0..command.min_args.max(1).min(command.max_args)).map(|_| "x".into()));
                        match normalise(face, &line, &|_| None) {
                            Ok(Asked::Run(words)) => {
                                args::parse(&words).unwrap_or_else(|e| panic!("{line:?}: {e:?}"));
                            }
                            other => panic!("{line:?}: {other:?}"),
                        }
                    }
                }
            });
        }
    }
}
