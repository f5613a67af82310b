//! The executable: parse, dispatch, exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    pinfold::log::abort_on_panic();
    let code = match pinfold::cli::understand(std::env::args_os()) {
        Err(code) => code,
        Ok(invocation) => invocation.run(),
    };
    ExitCode::from(code)
}
