//! The command `curfew-bench`: see [`curfew_benches`].

use std::process::ExitCode;

fn main() -> ExitCode {
    match curfew_benches::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("curfew-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
