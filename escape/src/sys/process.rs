//! Processes, what they share, and waiting.

use std::{
    ptr, slice,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use libc::c_int;

use super::{Outcome, errno, outcome};

/// Waits until a descriptor is ready for one of these events, for so many milliseconds. Whether it is.
pub fn ready(fd: i32, events: i16, milliseconds: i32) -> bool {
    let mut one = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: there is one structure.
    unsafe { libc::poll(&raw mut one, 1, milliseconds) > 0 }
}

/// Waits until any of these descriptors is readable; the places of those that are.
pub fn readable(fds: &[i32], milliseconds: i32) -> Vec<usize> {
    let mut all: Vec<_> = fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: there are as many structures as is said.
    let count = unsafe { libc::poll(all.as_mut_ptr(), all.len() as libc::nfds_t, milliseconds) };
    if count <= 0 {
        return Vec::new();
    }
    all.iter().enumerate().filter(|(_, one)| one.revents != 0).map(|(place, _)| place).collect()
}

/// fork(2): `None` in the child, which has the calling thread alone.
pub fn fork() -> Result<Option<i32>, i32> {
    // SAFETY: the caller has no other threads, so the child may do all that its parent may.
    outcome(unsafe { libc::fork() } as isize).map(|pid| (pid != 0).then_some(pid))
}

/// Ends this process at once.
pub fn exit(status: i32) -> ! {
    // SAFETY: does not return, and touches nothing of ours.
    unsafe { libc::_exit(status) }
}

/// waitpid(2) without waiting: whether the process has ended, and how (`None`: it runs).
pub fn ended(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: the status is there.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    (waited != 0).then_some(status)
}

/// Waits until all children have ended.
pub fn reap_all() {
    // SAFETY: the status isn't asked for.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), 0) } > 0 {}
}

/// A descriptor of a process, which becomes readable when it ends.
pub fn pidfd(pid: i32) -> Outcome {
    // SAFETY: takes numbers alone.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(errno)
}

/// Ends a process, and all processes of its group.
pub fn kill_group(leader: i32) {
    // Never 0 or 1, which would mean others.
    if leader > 1 {
        // SAFETY: takes numbers alone.
        unsafe {
            libc::kill(leader, libc::SIGKILL);
            libc::kill(-leader, libc::SIGKILL);
        }
    }
}

/// Memory of zeros that this process shares with the children that it forks, for ever.
pub fn shared_words(count: usize) -> Result<&'static [AtomicU64], i32> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: asks for new memory, which is never unmapped; all zeros are valid atomics, and only atomics are made of it.
    unsafe {
        let memory = libc::mmap(ptr::null_mut(), 8 * count, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if memory == libc::MAP_FAILED {
            return Err(errno());
        }
        Ok(slice::from_raw_parts(memory.cast(), count))
    }
}

/// Whether a signal has asked this program to end.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Has SIGINT, SIGTERM and SIGHUP set [`INTERRUPTED`].
pub fn catch_interrupts() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler does nothing but store into an atomic.
        unsafe { libc::signal(signal, interrupt as extern "C" fn(c_int) as libc::sighandler_t) };
    }
}
