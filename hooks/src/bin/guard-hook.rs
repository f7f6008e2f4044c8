//! The `guard-hook` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    hooks::cli::main()
}
