//! What is not the same any more when `main` begins, so that the command can have it as guard-run was started with it:
//! Rust ignores SIGPIPE and opens /dev/null for standard streams that are closed.
#![allow(unsafe_code)]

use std::{
    mem, ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::sys::signal::{SigHandler, Signal};

/// Whether SIGPIPE was ignored.
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);
/// Whether SIGCHLD was.
static CHILD_IGNORED: AtomicBool = AtomicBool::new(false);
/// Which standard streams were closed.
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// Whether the C library's own signals were: it takes them for itself when it starts a thread, and does not let
/// sigaction(3) touch them.
static LIBRARY_IGNORED: [AtomicBool; LIBRARY_SIGNALS.len()] = [const { AtomicBool::new(false) }; LIBRARY_SIGNALS.len()];

/// `SIGCANCEL` and `SIGSETXID` (glibc's sysdeps/unix/sysv/linux/internal-signals.h).
const LIBRARY_SIGNALS: [libc::c_int; 2] = [32, 33];

/// Runs before `main`, and before Rust's own start.
#[used]
// SAFETY: the section holds pointers to functions that the C library calls once, before main.
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn() = remember;

extern "C" fn remember() {
    PIPE_IGNORED.store(is_ignored(Signal::SIGPIPE), Ordering::Relaxed);
    CHILD_IGNORED.store(is_ignored(Signal::SIGCHLD), Ordering::Relaxed);
    for (signal, ignored) in LIBRARY_SIGNALS.into_iter().zip(&LIBRARY_IGNORED) {
        let mut action = [0; WORDS_OF_SIGACTION];
        // SAFETY: only asks; the buffer is as large as the structure, whose first word is the handler.
        unsafe { rt_sigaction(signal, None, Some(&mut action)) };
        ignored.store(action[0] == libc::SIG_IGN, Ordering::Relaxed);
    }
    for (fd, closed) in (0..).zip(&CLOSED) {
        // SAFETY: only asks, and fails for a descriptor that isn't there.
        closed.store(unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0, Ordering::Relaxed);
    }
}

/// The size of `struct sigaction` as the kernel knows it, which differs between machines: at most this many words.
const WORDS_OF_SIGACTION: usize = 4;

/// The system call, past the C library.
///
/// # Safety
///
/// A new handler must be one that may be called, or none.
unsafe fn rt_sigaction(
    signal: libc::c_int,
    new: Option<&[usize; WORDS_OF_SIGACTION]>,
    old: Option<&mut [usize; WORDS_OF_SIGACTION]>,
) {
    let new = new.map_or(ptr::null(), |new| new.as_ptr());
    let old = old.map_or(ptr::null_mut(), |old| old.as_mut_ptr());
    // SAFETY: the caller's promise; both buffers are large enough, and the last argument is the size of a signal mask. It
    // can't fail for a signal that there is, and then changes nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size_of::<u64>()) };
}

/// Whether this process ignores a signal.
#[must_use]
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: only asks; the structure is plain memory that the call fills in.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal as libc::c_int, ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Sets SIGCHLD up so that children can be waited for: where it is ignored, the kernel forgets how they ended.
///
/// # Errors
///
/// As sigaction(2).
pub fn expect_children() -> nix::Result<()> {
    set(Signal::SIGCHLD, SigHandler::SigDfl)
}

/// Gives SIGPIPE, SIGCHLD and the standard streams back what they were. Only for a process that is about to execute
/// something: nothing may use the streams afterwards.
///
/// # Errors
///
/// As sigaction(2).
pub fn restore() -> nix::Result<()> {
    for (signal, ignored) in [(Signal::SIGPIPE, &PIPE_IGNORED), (Signal::SIGCHLD, &CHILD_IGNORED)] {
        set(signal, if ignored.load(Ordering::Relaxed) { SigHandler::SigIgn } else { SigHandler::SigDfl })?;
    }
    for (signal, ignored) in LIBRARY_SIGNALS.into_iter().zip(&LIBRARY_IGNORED) {
        if ignored.load(Ordering::Relaxed) {
            // SAFETY: ignoring is no handler.
            unsafe { rt_sigaction(signal, Some(&[libc::SIG_IGN, 0, 0, 0]), None) };
        }
    }
    for (fd, closed) in (0..).zip(&CLOSED) {
        if closed.load(Ordering::Relaxed) {
            // SAFETY: the caller has no more use for the stream; it is nobody's but Rust's.
            unsafe { libc::close(fd) };
        }
    }
    Ok(())
}

fn set(signal: Signal, handler: SigHandler) -> nix::Result<()> {
    // SAFETY: neither of the two handlers that are passed is code.
    unsafe { nix::sys::signal::signal(signal, handler) }.map(drop)
}
