//! The `guard-hook` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("guard-hook: no such stage");
    ExitCode::from(125)
}
