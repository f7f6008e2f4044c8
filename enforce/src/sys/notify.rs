//! System calls of other processes that wait for this process's answer (seccomp_unotify(2)).
#![allow(unsafe_code)]

use std::{
    io::{IoSlice, IoSliceMut},
    mem,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use seccompiler::sock_filter;

use super::confine::set_filter;

/// Where the calls arrive that a filter has left to this process. Once it is closed, they fail with `ENOSYS`.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A call, whose thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What the kernel knows it by. Never given twice for one listener.
    pub id: u64,
    /// The thread, in this process's pid namespace; 0 where it is not to be seen there.
    pub thread: u32,
    /// Which call.
    pub number: libc::c_long,
    /// The call's arguments. What they point to may change at any time.
    pub arguments: [u64; 6],
    /// Whether it is a call of another architecture, so that its number means something else.
    pub is_foreign: bool,
}

/// What the kernel calls this architecture's own calls (include/uapi/linux/audit.h).
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

impl Call {
    /// An argument that is an int: the kernel, too, looks at its lower half alone.
    #[must_use]
    pub fn int(&self, argument: usize) -> libc::c_int {
        let low = u32::try_from(self.arguments[argument] & u64::from(u32::MAX)).expect("the upper half is cut");
        low.cast_signed()
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call isn't made, and returns 0.
    Succeed,
    /// The call isn't made, and fails with this error.
    Refuse(Errno),
    /// The call is made, as if there were no filter. That is no check: what the arguments point to may have changed.
    GoOn,
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`, as wide as the kernel has it (include/uapi/linux/seccomp.h).
const CONTINUE: u32 = 1;

/// As much room as the kernel's structures could ever need: it writes as many bytes as it knows of, and wants those that it
/// reads of a newer version to be 0.
type Room = [u64; 64];

/// Installs a filter for this thread, as [`super::confine::install_filter`], whose `SECCOMP_RET_USER_NOTIF` goes to a listener.
///
/// # Errors
///
/// As seccomp(2): `EBUSY` if a filter that this thread has already has a listener.
pub fn install_listener(filter: &[sock_filter]) -> nix::Result<Listener> {
    // Once a call is here, only what kills the thread interrupts it (Linux 5.19): so none is seen twice.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let fd = match set_filter(filter, flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(Errno::EINVAL) => set_filter(filter, flags)?,
        result => result?,
    };
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made the descriptor, for us alone.
    Ok(Listener(unsafe { OwnedFd::from_raw_fd(fd) }))
}

impl Listener {
    /// The next call. `None` if the one that was announced is gone, since its thread was killed or interrupted. Waits where none was
    /// announced.
    ///
    /// # Errors
    ///
    /// As ioctl(2).
    pub fn next(&self) -> nix::Result<Option<Call>> {
        let mut room: Room = [0; _];
        const { assert!(size_of::<libc::seccomp_notif>() <= size_of::<Room>()) };
        // SAFETY: the kernel writes one structure, for which there is room whatever its version.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, room.as_mut_ptr()) };
        match Errno::result(result) {
            Err(Errno::ENOENT | Errno::EINTR) => return Ok(None),
            result => result?,
        };
        // SAFETY: it begins with the fields of the first version, and all of them are integers.
        let call: libc::seccomp_notif = unsafe { mem::transmute_copy(&room) };
        Ok(Some(Call {
            id: call.id,
            thread: call.pid,
            number: call.data.nr.into(),
            arguments: call.data.args,
            is_foreign: call.data.arch != NATIVE,
        }))
    }

    /// Whether a call still waits; so its thread is still there, and what was read of it was its.
    #[must_use]
    pub fn is_waiting(&self, call: &Call) -> bool {
        // SAFETY: the kernel reads an integer.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const call.id) == 0 }
    }

    /// Answers a call. Whether it was there to be answered.
    #[must_use]
    pub fn answer(&self, call: &Call, answer: Answer) -> bool {
        let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::Succeed => {}
            Answer::Refuse(error) => response.error = -(error as i32),
            Answer::GoOn => response.flags = CONTINUE,
        }
        let mut room: Room = [0; _];
        // SAFETY: there is room for the structure, which is made of integers; the kernel reads no more than there is.
        unsafe {
            room.as_mut_ptr().cast::<libc::seccomp_notif_resp>().write(response);
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, room.as_mut_ptr()) == 0
        }
    }
}

impl Listener {
    /// Hands it over to the process at the other end of a socket.
    ///
    /// # Errors
    ///
    /// As sendmsg(2).
    pub fn hand_over(self, socket: &UnixStream) -> nix::Result<()> {
        let descriptors = [self.0.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&[0])], &message, MsgFlags::MSG_NOSIGNAL, None).map(drop)
    }

    /// Takes the one that was handed over. `None` if the other end has none.
    ///
    /// # Errors
    ///
    /// As recvmsg(2).
    pub fn receive(socket: &UnixStream) -> nix::Result<Option<Self>> {
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let mut room = nix::cmsg_space!([RawFd; 1]);
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let descriptor = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        });
        // SAFETY: the kernel has just made the descriptor, for us alone; there is room for no second one.
        Ok(descriptor.map(|descriptor| Self(unsafe { OwnedFd::from_raw_fd(descriptor) })))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Sender, channel},
        thread,
    };

    use nix::{sys::prctl::set_no_new_privs, unistd::getppid};

    use super::*;

    /// `getppid`, and nothing else, is left to the listener.
    fn filter() -> Vec<sock_filter> {
        let number = u32::try_from(libc::SYS_getppid).expect("it is small");
        vec![
            sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
            sock_filter { code: 0x15, jt: 0, jf: 1, k: number },
            sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF },
            sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
        ]
    }

    fn caller(listeners: &Sender<Result<Listener, Errno>>) -> (i32, Errno) {
        set_no_new_privs().expect("it always works");
        listeners.send(install_listener(&filter())).expect("the test waits");
        // SAFETY: takes nothing.
        let result = unsafe { libc::syscall(libc::SYS_getppid) };
        (i32::try_from(result).expect("a process id"), Errno::last())
    }

    #[test]
    fn a_call_gets_the_answer_it_is_given() {
        let parent = getppid().as_raw();
        let refused = (-1, Errno::EXDEV);
        for (answer, expected) in [(Answer::Succeed, 0), (Answer::GoOn, parent), (Answer::Refuse(Errno::EXDEV), -1)] {
            let (send, listeners) = channel();
            let thread = thread::spawn(move || caller(&send));
            let listener = listeners.recv().expect("one").expect("a listener");
            let call = listener.next().expect("it works").expect("a call");
            assert_eq!(call.number, libc::SYS_getppid);
            assert!(listener.is_waiting(&call) && listener.answer(&call, answer));
            assert!(!listener.is_waiting(&call) && !listener.answer(&call, answer), "it has been answered");
            let said = thread.join().expect("it ends");
            assert!(if expected < 0 { said == refused } else { said.0 == expected }, "{answer:?}: {said:?}");
        }
    }

    #[test]
    fn a_call_fails_when_nobody_listens_any_more_and_there_is_one_listener() {
        let (send, listeners) = channel();
        let thread = thread::spawn(move || (caller(&send), install_listener(&filter()).map(drop)));
        drop(listeners.recv().expect("one").expect("a listener"));
        assert_eq!(thread.join().expect("it ends"), ((-1, Errno::ENOSYS), Ok(())), "a closed one is none");
        let (send, listeners) = channel();
        let thread = thread::spawn(move || (caller(&send), install_listener(&filter()).map(drop)));
        let listener = listeners.recv().expect("one").expect("a listener");
        let call = listener.next().expect("it works").expect("a call");
        assert!(listener.answer(&call, Answer::Refuse(Errno::EPERM)));
        assert_eq!(thread.join().expect("it ends"), ((-1, Errno::EPERM), Err(Errno::EBUSY)));
    }
}
