//! Command lines, of all three programs.

use super::args;
use super::face::Face;
use super::failure::Failure;
use super::help::help;
use super::normalise::{normalise, Asked};
use super::table::{self, Command};
use crate::fuzz::Input;

/// All words that the table knows, so that an input says with a byte what would take it years to spell.
fn known_words() -> Vec<String> {
    fn walk(commands: &'static [Command], words: &mut Vec<String>) {
        for command in commands {
            words.push(command.name.to_owned());
            words.extend(command.flags.iter().map(|flag| format!("--{}", flag.long)));
            walk(command.children, words);
        }
    }
    let mut words = Vec::new();
    walk(table::COMMANDS, &mut words);
    words.sort();
    words.dedup();
    words
}

/// A command line of known words and any words, with variables that stand in for flags: it is understood, or refused as
/// something that was typed wrongly.
pub(crate) fn arguments(data: &[u8]) {
    let mut input = Input(data);
    let face = [Face::Pinfold, Face::Service, Face::Ctl][input.below(3)];
    let (known, value) = (known_words(), String::from_utf8_lossy(input.bytes()).into_owned());
    let set = input.flag();
    let mut words = Vec::new();
    while !input.is_empty() && words.len() < 32 {
        words.push(match input.below(4) {
            0 => String::from_utf8_lossy(input.bytes()).into_owned(),
            1 => format!("{}={}", known[input.below(known.len())], String::from_utf8_lossy(input.bytes())),
            _ => known[usize::from(u16::from_le_bytes(input.array())) % known.len()].clone(),
        });
    }
    let env = |_: &str| set.then(|| value.clone());
    match normalise(face, &words, &env) {
        Ok(Asked::Run(words)) => match args::parse(&words) {
            Ok(_) => {}
            Err(Failure::Usage(text)) => assert!(!text.is_empty()),
            Err(_) => {}
        },
        Ok(Asked::Help(path)) => assert!(!help(face, &path).is_empty()),
        Ok(Asked::Version | Asked::Nothing) | Err(_) => {}
    }
}
