//! What becomes of a panic: a mistake of ours that nothing should show to anybody but as one line, and that must not leave anything in
//! force or behind.
//!
//! First of all, the thread gives up what it has in effect (`privilege::lower`). There is no backtrace: for one, files are read
//! whose names the user may have chosen. Then everything that is to be undone is: values are dropped on the way to [`guarded`], the
//! leaf among them. So panics have to unwind in releases, too.

use std::{
    fmt::Write as _,
    io,
    panic::{self, PanicHookInfo, UnwindSafe},
    process::ExitCode,
};

use crate::{exit, outlet::tell, privilege, sys::process::exit_now};

/// The most that is told of what a panic says, in characters.
const LONGEST: usize = 400;

/// Runs a program's `main`. When it panics, the exit status is [`exit::FAILURE`].
pub fn guarded(main: impl FnOnce() -> ExitCode + UnwindSafe) -> ExitCode {
    on_panic(|line| tell(&line));
    panic::catch_unwind(main).unwrap_or_else(|_| ExitCode::from(exit::FAILURE))
}

/// Has panics of this process told in this way, when nothing is in effect any more.
pub fn on_panic(tell: impl Fn(String) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |info| {
        privilege::lower();
        tell(line(info));
    }));
}

/// Ends the program, from wherever memory was asked for: nothing can be undone there. What holds is held by the kernel: the command's
/// process ends with this one, and the leaf is removed by the next run.
pub(crate) fn out_of_memory() -> ! {
    privilege::lower();
    let _ = nix::unistd::write(io::stderr(), b"guard-run: out of memory\n");
    exit_now(i32::from(exit::FAILURE))
}

fn line(info: &PanicHookInfo<'_>) -> String {
    let said = info.payload();
    let said = said.downcast_ref::<String>().map(String::as_str).or_else(|| said.downcast_ref::<&str>().copied());
    let said = said.unwrap_or("no more is known");
    // What `println!` does where standard output is closed or full, which is no mistake of ours.
    if let Some(why) = said.strip_prefix("failed printing to stdout: ") {
        return format!("can't write to standard output: {why}");
    }
    let mut line = "internal error".to_owned();
    if let Some(place) = info.location() {
        let _ = write!(line, " at {}:{}", place.file(), place.line());
    }
    let said: String = said.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    line + ": " + &said + "; please report this"
}
