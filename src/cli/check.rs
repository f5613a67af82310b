//! `pinfold state check`: looks, and prints what was found.

use super::args::StateCheck;
use super::failure::{Failure, Outcome};
use super::output;
use crate::check::{self, Report, Wish};
use crate::config::Folder;
use crate::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

/// Looks at the folder, or at those that are named.
///
/// # Errors
/// [`crate::Kind::Corrupt`] when something is damaged; the report has been printed then.
pub(super) fn run(folder: &Folder, args: &StateCheck) -> Outcome {
    let wish = Wish { blocks: args.blocks };
    let folders: Vec<Folder> = match args.folders.as_slice() {
        [] => vec![folder.clone()],
        named => named.iter().map(|path| Folder::new(Path::new(path))).collect(),
    };
    let mut reports: Vec<Report> = Vec::new();
    for folder in &folders {
        reports.push(check::examine(folder, wish, &mut progress())?);
    }
    let mut out = std::io::stdout();
    if args.json {
        let all: Vec<serde_json::Value> =
            reports.iter().filter_map(|report| serde_json::to_value(report).ok()).collect();
        out.write_all(output::pretty(&serde_json::Value::Array(all)).as_bytes())?;
    } else {
        for report in &reports {
            out.write_all(report.text().as_bytes())?;
        }
    }
    let damaged = reports.iter().flat_map(|report| &report.findings).filter(|finding| !finding.note).count();
    if damaged > 0 {
        return Err(Failure::Local(Error::corrupt(format!(
            "{damaged} finding(s): this peer's data is damaged"
        ))));
    }
    Ok(())
}

/// Tells a person at a terminal how far the reading of blocks is.
fn progress() -> impl FnMut(u64, u64) {
    let told = std::io::stderr().is_terminal();
    move |done, all| {
        if told {
            let _ = write!(
                std::io::stderr(),
                "\rread {done} of {all} blocks{}",
                if done == all { "\n" } else { "" }
            );
        }
    }
}
