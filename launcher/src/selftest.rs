//! `guard-run selftest`: another program, guard-selftest, which comes with this one and starts it as anybody would.

use std::{convert::Infallible, env, ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::Context as _;

/// The program's name, in the folder that guard-run is in.
const PROGRAM: &str = "guard-selftest";

/// Becomes guard-selftest, with these arguments.
///
/// # Errors
///
/// When that program can't be executed.
pub fn become_selftest(arguments: &[OsString]) -> anyhow::Result<u8> {
    let own = env::current_exe().context("/proc/self/exe")?;
    let program = own.with_file_name(PROGRAM);
    let failed: Result<Infallible, _> = Err(Command::new(&program).args(arguments).exec());
    let Err(error) = failed;
    Err(error).with_context(|| format!("{}: the self-test comes with guard-run and is not there", program.display()))
}
