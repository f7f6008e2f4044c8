//! Processes: one that is born in its cgroup, and how it fares.
#![allow(unsafe_code)]

use std::{
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use nix::{
    sys::{ptrace::getsiginfo, signal::Signal},
    unistd::Pid,
};

/// include/uapi/linux/sched.h. The libc crate's constant of this name is an int, into which it doesn't fit: it is 0.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork this is.
pub enum Side {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The new process's id.
        pid: Pid,
        /// A descriptor of it that can't come to mean another process.
        pidfd: OwnedFd,
    },
}

/// Forks. The child is in the cgroup from its first instruction: there is no moment at which it runs outside.
///
/// # Errors
///
/// As clone3(2): `EBUSY` or `EOPNOTSUPP` where the cgroup can't hold processes, `ENOSYS` before Linux 5.3, `EINVAL`
/// before 5.7.
pub fn fork_into(cgroup: &OwnedFd) -> io::Result<Side> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: a structure of integers, of which zero means "not used".
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    arguments.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    // SAFETY: without CLONE_VM this is a fork: the child goes on with a copy of everything. The process has a single
    // thread, so no lock can be left held in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent {
            pid: Pid::from_raw(i32::try_from(pid).expect("a process id is an int")),
            // SAFETY: the kernel has just made the descriptor, for us alone.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Ends this process at once, without any of what a Rust or C program does at its end.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: takes an integer and doesn't return.
    unsafe { libc::_exit(status) }
}

/// How a child's state has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The process has ended with this status.
    Exited(u8),
    /// The signal of this number has ended it.
    Signaled(i32),
    /// The signal of this number has stopped it.
    Stopped(i32),
    /// The signal of this number has stopped it, and waits for this process as its tracer to say what becomes of it.
    Trapped(i32),
    /// The process goes on after a stop.
    Continued,
}

/// The next change of the state of a child, or of a thread that this process traces, if there has been one, with its id. (nix's
/// `waitid` fails for a child that was ended by a real-time signal.)
///
/// Not only children that this process knows of: a child can make others of its parent's (`CLONE_PARENT`), and any thread of a child
/// can make its parent its tracer (`PTRACE_TRACEME`). Anybody who then waits for the child alone waits for ever.
///
/// # Errors
///
/// As waitid(2).
pub fn poll_change() -> io::Result<Option<(Pid, Change)>> {
    let flags = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG | libc::__WALL;
    // SAFETY: the structure is plain memory that the call fills in; all zero means "no change". Its fields for children
    // are the ones that the code says are there.
    let (code, pid, status) = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        if libc::waitid(libc::P_ALL, 0, &raw mut info, flags) < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
        }
        (info.si_code, info.si_pid(), info.si_status())
    };
    let change = match code {
        // An exit status has 8 bits.
        libc::CLD_EXITED => Change::Exited((status & 0xff).to_le_bytes()[0]),
        libc::CLD_KILLED | libc::CLD_DUMPED => Change::Signaled(status),
        libc::CLD_STOPPED => Change::Stopped(status),
        libc::CLD_TRAPPED => Change::Trapped(status),
        libc::CLD_CONTINUED => Change::Continued,
        _ => return Ok(None),
    };
    Ok(Some((Pid::from_raw(pid), change)))
}

/// Stops to trace a thread that is [trapped](Change::Trapped), and gives it the signal that it was stopped for, but for the one that
/// only a tracer gets: `SIGTRAP` by execve(2) (`ptrace_event`, include/linux/ptrace.h).
///
/// # Errors
///
/// As ptrace(2): `ESRCH` once the thread is killed.
pub fn stop_tracing(thread: Pid, signal: i32) -> io::Result<()> {
    let by_execution = signal == libc::SIGTRAP && getsiginfo(thread).is_ok_and(|info| info.si_code == libc::SI_USER);
    let signal = if by_execution { 0 } else { signal };
    // SAFETY: takes integers.
    let result = unsafe {
        let (signal, nothing) = (libc::c_long::from(signal), ptr::null_mut::<libc::c_void>());
        libc::ptrace(libc::PTRACE_DETACH, thread.as_raw(), nothing, signal)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to the very process that a descriptor stands for.
///
/// # Errors
///
/// As `pidfd_send_signal(2)`: `ESRCH` once the process is gone.
pub fn send_signal(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    let (fd, signal) = (process.as_raw_fd(), signal as libc::c_int);
    // SAFETY: no pointers but a null one, which means the same as for kill(2).
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, ptr::null::<libc::siginfo_t>(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A duplicate of a descriptor that an executed command would have, too. `None` if there is no such descriptor.
#[must_use]
pub fn duplicate_inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: neither call has any effect but to make a descriptor, which is then ours alone; a number that is no
    // descriptor makes them fail.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFD);
        if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
            return None;
        }
        let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3);
        (copy >= 0).then(|| OwnedFd::from_raw_fd(copy))
    }
}

/// The shortest time on a processor that a thread can ask for at once, in nanoseconds (`__setscheduler_params`, kernel/sched/syscalls.c).
const SHORTEST_SLICE: u64 = 100_000;

/// Asks for short times on a processor, and so for getting one soon after each wait: for a thread that sleeps most of the time and then
/// has to be faster than others. Linux does so since 6.12; older kernels take no notice. Priority and policy stay as they are.
pub fn wake_soon() {
    // SAFETY: a structure of integers.
    let mut wanted: libc::sched_attr = unsafe { mem::zeroed() };
    wanted.size = size_of::<libc::sched_attr>().try_into().unwrap_or(0);
    wanted.sched_flags = (libc::SCHED_FLAG_RESET_ON_FORK | libc::SCHED_FLAG_KEEP_POLICY).unsigned_abs().into();
    // SAFETY: takes integers.
    wanted.sched_nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    wanted.sched_runtime = SHORTEST_SLICE;
    // SAFETY: the kernel reads a structure of the size that it is told. Where it refuses, all stays as it was.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
}
