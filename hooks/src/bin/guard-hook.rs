//! The `guard-hook` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforce::crash::guarded(hooks::cli::main)
}
