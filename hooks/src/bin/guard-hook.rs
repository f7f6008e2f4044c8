//! The `guard-hook` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforce::crash::guarded("guard-hook", hooks::cli::main)
}
