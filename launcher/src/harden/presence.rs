//! Whether a process is there: kill(2) with signal 0, by which servers find out whether another one works on the same files.
//!
//! Landlock keeps signals from processes outside, and doesn't except this one, which does nothing: it fails with `EPERM`.
//! PostgreSQL takes that for a number that belongs to somebody else by now, and starts on the files of a server that runs. So these
//! calls are left to guard-run, which says what the kernel would say without a domain.

use enforce::{
    process::Status,
    sys::notify::{Answer, Call},
};
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

/// `CAP_KILL` among a process's capabilities (include/uapi/linux/capability.h).
const CAP_KILL: u64 = 1 << 5;

/// What kill(pid, 0) is to return. Wherever it is not certain that the caller may know, the kernel is asked, which says no more
/// than it would anyway.
pub(super) fn answer(call: &Call) -> Answer {
    let pid = Pid::from_raw(call.int(0));
    if pid.as_raw() <= 0 {
        return Answer::GoOn;
    }
    let Some(caller) = Status::read(call.thread) else { return Answer::GoOn };
    // In a pid namespace that was made inside, numbers mean something else, and all who are there are inside.
    if caller.levels != 1 {
        return Answer::GoOn;
    }
    if kill(pid, None) == Err(Errno::ESRCH) {
        return Answer::Refuse(Errno::ESRCH);
    }
    match Status::read(pid.as_raw().cast_unsigned()) {
        Some(other) if may_signal(&caller, &other) => Answer::Succeed,
        _ => Answer::GoOn,
    }
}

/// Whether the kernel lets a process send signals to another one (`kill_ok_by_cred`, kernel/signal.c).
pub(super) fn may_signal(caller: &Status, other: &Status) -> bool {
    let is_same = [caller.real, caller.effective].iter().any(|user| [other.real, other.saved].contains(user));
    is_same || caller.capabilities & CAP_KILL != 0 && caller.is_in_same_user_namespace(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(real: u32, effective: u32, saved: u32, capabilities: u64) -> Status {
        Status { real, effective, saved, capabilities, ..Status::read(std::process::id()).expect("it is there") }
    }

    #[test]
    fn users_may_ask_for_what_is_theirs() {
        let table = [
            (status(1000, 1000, 1000, 0), status(1000, 1000, 1000, 0), true),
            (status(1000, 1000, 1000, 0), status(1001, 1001, 1001, 0), false),
            (status(1000, 1000, 1000, 0), status(0, 0, 0, 0), false),
            // A set-user-ID program that its user has started, and one that has changed to it.
            (status(1000, 1000, 1000, 0), status(1000, 0, 0, 0), true),
            (status(0, 1000, 0, 0), status(7, 7, 1000, 0), true),
            // The effective user of the other one is of no interest, nor is the caller's saved one.
            (status(1000, 1000, 1001, 0), status(1001, 1000, 1001, 0), false),
            (status(0, 0, 0, CAP_KILL), status(1000, 1000, 1000, 0), true),
            (status(0, 0, 0, !CAP_KILL), status(1000, 1000, 1000, 0), false),
        ];
        for (caller, other, expected) in table {
            assert_eq!(may_signal(&caller, &other), expected, "{caller:?} {other:?}");
        }
    }

    #[test]
    fn what_is_not_certain_is_left_to_the_kernel() {
        let own = std::process::id();
        let call = |thread, pid: i32| Call {
            id: 1,
            thread,
            number: libc::SYS_kill,
            arguments: [u64::from(pid.cast_unsigned()), 0, 0, 0, 0, 0],
            is_foreign: false,
        };
        assert_eq!(answer(&call(own, own.cast_signed())), Answer::Succeed);
        assert_eq!(answer(&call(own, i32::MAX)), Answer::Refuse(Errno::ESRCH));
        for nobody in [call(0, own.cast_signed()), call(own, 0), call(own, -1), call(own, i32::MIN)] {
            assert_eq!(answer(&nobody), Answer::GoOn);
        }
    }
}
