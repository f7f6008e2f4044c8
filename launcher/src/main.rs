//! The `guard-run` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::crash::guarded(launcher::cli::main)
}
