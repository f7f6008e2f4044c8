//! The worker: runs the programs that come by standard input, each in a process of its own, and reports by standard output.
//! One worker is started under guard-run, another one without.

use std::io::{self, Read as _, Write as _};

use anyhow::{Context as _, Result};
use caps::{CapSet, CapsHashSet};

use crate::{
    execute,
    memory::Memory,
    program::Program,
    sys,
    wire::{self, Hello},
};

/// How long a program may take, in milliseconds.
const LIMIT: i32 = 4000;

/// Has the worker that isn't guarded the same rights as the guarded one, which has told of them, so that they differ in nothing but
/// the guard.
///
/// # Errors
///
/// When the kernel refuses that.
pub fn give_up(capabilities: u64, user: Option<u32>) -> Result<()> {
    if let Some(user) = user {
        nix::unistd::setgroups(&[]).context("setgroups")?;
        nix::unistd::setgid(user.into()).context("setgid")?;
        nix::unistd::setuid(user.into()).context("setuid")?;
        return Ok(());
    }
    let kept: CapsHashSet = caps::all().into_iter().filter(|one| capabilities & one.bitmask() != 0).collect();
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).context("capabilities")?;
    caps::set(None, CapSet::Effective, &kept).context("capabilities")?;
    caps::set(None, CapSet::Permitted, &kept).context("capabilities")?;
    Ok(())
}

/// Runs programs until standard input ends.
///
/// # Errors
///
/// When the fuzzer can't be understood, or there is no memory.
pub fn work() -> Result<()> {
    let memory = Memory::new().map_err(io::Error::from_raw_os_error).context("shared memory")?;
    nix::sys::prctl::set_child_subreaper(true).context("prctl")?;
    // Without a buffer: what comes may be for a program's own process.
    let mut input = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned().map(std::fs::File::from)?;
    let mut output = io::stdout();
    let held = caps::read(None, CapSet::Effective).context("capabilities")?;
    let hello = Hello { capabilities: held.iter().fold(0, |all, one| all | one.bitmask()) };
    output.write_all(&wire::frame(wire::HELLO, &hello))?;
    output.flush()?;
    let mut kind = [0];
    while input.read(&mut kind)? == 1 {
        if kind[0] != wire::PROGRAM {
            // Meant for a program that is gone.
            continue;
        }
        let program: Program = wire::body(&mut input).context("a program")?;
        memory.clear();
        run(&program, memory)?;
        let report = memory.report(program.all().len());
        output.write_all(&wire::frame(wire::REPORT, &report))?;
        output.flush()?;
    }
    Ok(())
}

fn run(program: &Program, memory: Memory) -> Result<()> {
    let failed = io::Error::from_raw_os_error;
    let Some(child) = sys::fork().map_err(failed).context("fork")? else {
        let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
        execute::run(program, memory);
        sys::exit(0);
    };
    let waiter = sys::pidfd(child).map_err(failed).context("pidfd_open")?;
    sys::ready(waiter, libc::POLLIN, LIMIT);
    let _ = sys::close(waiter);
    sys::kill_group(child);
    sys::reap_all();
    Ok(())
}
