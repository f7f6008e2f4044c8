//! The `guard-runtime` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::crash::guarded(hooks::runtime::main)
}
