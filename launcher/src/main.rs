//! The `guard-run` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforce::crash::guarded("guard-run", launcher::cli::main)
}
