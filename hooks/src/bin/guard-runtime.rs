//! The `guard-runtime` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    hooks::runtime::main()
}
