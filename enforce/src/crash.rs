//! What becomes of a panic: a mistake of ours that nothing should show to anybody but as one line, and that must not leave anything in
//! force or behind.
//!
//! First of all, the thread gives up what it has in effect (`privilege::lower`). There is no backtrace: for one, files are read
//! whose names the user may have chosen. Then everything that is to be undone is: values are dropped on the way to [`guarded`], the
//! leaf among them. So panics have to unwind in releases, too.

use std::{
    any::Any,
    fmt::Write as _,
    io,
    panic::{self, PanicHookInfo, UnwindSafe},
    process::ExitCode,
};

use crate::{
    exit,
    outlet::{name_program, tell},
    privilege,
    sys::process::exit_now,
};

/// The most that is told of what a panic says, in characters.
const LONGEST: usize = 400;

/// Runs the `main` of the program of this name. When it panics, the exit status is [`exit::FAILURE`]; [`exit::UNREAD`] where nobody reads what it prints.
pub fn guarded(program: &'static str, main: impl FnOnce() -> ExitCode + UnwindSafe) -> ExitCode {
    name_program(program);
    on_panic(|line| tell(&line));
    let unread = |said: &(dyn Any + Send)| not_printed(text(said)).is_some_and(is_unread);
    panic::catch_unwind(main)
        .unwrap_or_else(|said| ExitCode::from(if unread(&*said) { exit::UNREAD } else { exit::FAILURE }))
}

/// Has panics of this process told in this way, when nothing is in effect any more.
pub fn on_panic(tell: impl Fn(String) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |info| {
        privilege::lower();
        if let Some(line) = line(info) {
            tell(line);
        }
    }));
}

/// Ends the program, from wherever memory was asked for: nothing can be undone there. What holds is held by the kernel: the command's
/// process ends with this one, and the leaf is removed by the next run.
pub(crate) fn out_of_memory() -> ! {
    privilege::lower();
    let _ = nix::unistd::write(io::stderr(), b"guard-run: out of memory\n");
    exit_now(i32::from(exit::FAILURE))
}

/// What a panic says.
fn text(said: &dyn Any) -> &str {
    let text = said.downcast_ref::<String>().map(String::as_str).or_else(|| said.downcast_ref::<&str>().copied());
    text.unwrap_or("no more is known")
}

/// Why `println!` could not print, where that is what a panic says.
fn not_printed(text: &str) -> Option<&str> {
    text.strip_prefix("failed printing to stdout: ")
}

/// Whether printing failed because the reader has closed its end of a pipe, as `head` does when it has enough.
fn is_unread(why: &str) -> bool {
    why.ends_with(&format!("(os error {})", libc::EPIPE))
}

/// The line for a panic. `None` where nobody reads what is printed, of which other programs say nothing, either.
fn line(info: &PanicHookInfo<'_>) -> Option<String> {
    let said = text(info.payload());
    if let Some(why) = not_printed(said) {
        return (!is_unread(why)).then(|| format!("can't write to standard output: {why}"));
    }
    let mut line = "internal error".to_owned();
    if let Some(place) = info.location() {
        let _ = write!(line, " at {}:{}", place.file(), place.line());
    }
    let said: String = said.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    Some(line + ": " + &said + "; please report this")
}
