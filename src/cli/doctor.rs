//! `pinfold doctor`: runs the examination and prints it.

use super::failure::{Failure, Outcome};
use super::output::{self, Encoding};
use crate::config::{Env, Folder};
use crate::doctor;
use std::io::Write;

/// Looks at the folder and everything around it. What does not work is said in the report, so that the failure itself is
/// silent.
///
/// # Errors
/// [`Failure::Found`] when something fails.
pub(super) fn run(folder: &Folder, encoding: Encoding) -> Outcome {
    let report = doctor::examine(folder, &Env::process());
    let text = match encoding {
        Encoding::Json => serde_json::to_value(&report).map(|value| output::pretty(&value)).unwrap_or_default(),
        Encoding::Text => report.text(),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    if report.failed() {
        return Err(Failure::Found);
    }
    Ok(())
}
