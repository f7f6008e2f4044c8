//! All `unsafe` code of the fuzzer: a listener for the system calls of a thread and of what it starts (seccomp_unotify(2)).
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use libc::{c_long, seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Instructions of a filter (include/uapi/linux/bpf_common.h): load a word, compare it with a number, return.
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// A system call that waits until it is let go.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    id: u64,
    /// The thread that makes it, as this process's pid namespace numbers it.
    pub thread: i32,
    /// The call's number.
    pub number: c_long,
    /// The call's arguments.
    pub arguments: [u64; 6],
}

/// What [`Listener::next`] finds.
#[derive(Debug)]
pub enum Next {
    /// A system call waits.
    Call(Call),
    /// No process is left that could make one.
    End,
    /// None came in time.
    Late,
}

/// Is told of system calls before the kernel does anything for them.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Has the kernel hold these system calls of the calling thread, and of all processes and threads that it starts from now
    /// on, until [`Listener::go_on`]. The listener must not be that thread.
    ///
    /// # Errors
    ///
    /// As seccomp(2): `EACCES` without `CAP_SYS_ADMIN` or no_new_privs.
    pub fn install(numbers: &[c_long]) -> nix::Result<Self> {
        let count = u8::try_from(numbers.len()).map_err(|_| Errno::E2BIG)?;
        let instruction = |code, jt, k| sock_filter { code, jt, jf: 0, k };
        // The number is the first member of seccomp_data.
        let mut filter = vec![instruction(LOAD, 0, 0)];
        for (index, number) in (0u8..).zip(numbers) {
            // To the last instruction, over the other comparisons and the one before.
            let number = u32::try_from(*number).map_err(|_| Errno::EINVAL)?;
            filter.push(instruction(IF_EQUAL, count - index, number));
        }
        filter.push(instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW));
        filter.push(instruction(RETURN, 0, libc::SECCOMP_RET_USER_NOTIF));
        let length = u16::try_from(filter.len()).map_err(|_| Errno::E2BIG)?;
        let program = sock_fprog { len: length, filter: filter.as_mut_ptr() };
        // SAFETY: the kernel reads the program, as many instructions as it is said to have, while `filter` is alive.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const program,
            )
        };
        let descriptor = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
        // SAFETY: the descriptor is new, and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Waits for the next system call, at the longest until `end`.
    ///
    /// # Errors
    ///
    /// As poll(2) and seccomp_unotify(2).
    pub fn next(&self, end: Instant) -> io::Result<Next> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, timeout) {
                Ok(0) => return Ok(Next::Late),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            if !polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
                return Ok(Next::End);
            }
            // SAFETY: the structure is integers, and the kernel demands that all are 0.
            let mut notice: seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the kernel writes one structure of this type to where the pointer says.
            let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) };
            match Errno::result(result) {
                Ok(_) => {}
                // The thread was killed meanwhile.
                Err(Errno::ENOENT | Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            return Ok(Next::Call(Call {
                id: notice.id,
                thread: i32::try_from(notice.pid).unwrap_or_default(),
                number: notice.data.nr.into(),
                arguments: notice.data.args,
            }));
        }
    }

    /// Has the kernel execute a system call as if nobody had listened. A thread that is dead by now is nobody's loss.
    pub fn go_on(&self, call: &Call) {
        let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1);
        let answer = seccomp_notif_resp { id: call.id, val: 0, error: 0, flags };
        // SAFETY: the kernel reads one structure of this type from where the pointer says.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
    }
}
