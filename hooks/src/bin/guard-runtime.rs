//! The `guard-runtime` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforce::crash::guarded("guard-runtime", hooks::runtime::main)
}
