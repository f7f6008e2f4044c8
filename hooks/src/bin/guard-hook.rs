//! The `guard-hook` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::crash::guarded(hooks::cli::main)
}
