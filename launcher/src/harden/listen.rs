//! The calls that the command's filter leaves to guard-run. The command's process installs the filter, and hands the kernel's
//! listener over a socket; guard-run answers between all else that it waits for ([`supervise`](crate::supervise)).
//!
//! A thread of its own was not chosen, since there may be no room for one, and a process with one can't fork, and has to give up
//! its capabilities twice. When guard-run is dead, the calls fail with `ENOSYS`; while it is stopped, they wait.

use std::{
    fs,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use enforce::sys::notify::{Answer, Listener, install_listener};
use nix::{errno::Errno, unistd::getpid};
use seccompiler::BpfProgram;

use super::presence;

/// Answers the command's calls. Once it is dropped, they fail with `ENOSYS`.
#[derive(Debug)]
pub struct Attendant {
    listener: Listener,
    /// Whether the threads' numbers are those of our /proc.
    numbers_are_ours: bool,
}

/// In the command's process: installs the filter, and hands its listener over. Where a filter that guard-run was given has one, there
/// can't be another, and the kernel answers.
pub(super) fn install(filter: &BpfProgram, socket: &UnixStream) -> nix::Result<()> {
    match install_listener(filter) {
        Err(Errno::EBUSY) => Ok(()),
        result => result?.hand_over(socket),
    }
}

impl Attendant {
    /// Takes the listener that the command's process has handed over, before it became the command. `None` if it has none.
    ///
    /// # Errors
    ///
    /// As recvmsg(2).
    pub fn receive(socket: &UnixStream) -> nix::Result<Option<Self>> {
        let numbers_are_ours =
            || fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == getpid().to_string().as_str());
        let listener = Listener::receive(socket)?;
        Ok(listener.map(|listener| Self { listener, numbers_are_ours: numbers_are_ours() }))
    }

    /// Answers the call that was announced.
    ///
    /// # Errors
    ///
    /// As ioctl(2).
    pub fn attend(&self) -> nix::Result<()> {
        if let Some(call) = self.listener.next()? {
            let answer = if self.numbers_are_ours { presence::answer(&call) } else { Answer::GoOn };
            // If its thread is gone by now, nobody waits.
            let _ = self.listener.answer(&call, answer);
        }
        Ok(())
    }
}

impl AsFd for Attendant {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
