//! Signals, held back from the first on that concerns the command.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    signalfd::{SfdFlags, SignalFd, siginfo},
};

use crate::sys::start;

/// The signals that are passed on to the command. All others that can be caught mean something that happens to
/// guard-run itself (a fault, a full pipe).
const PASSED_ON: [Signal; 15] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGVTALRM,
    Signal::SIGWINCH,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// Before the command is executed and after its end, these end what guard-run waits for.
const ENOUGH: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Signals, held back for us to read.
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Holds all signals back that concern the command.
    ///
    /// # Errors
    ///
    /// As sigprocmask(2) and signalfd(2).
    pub fn hold() -> nix::Result<Self> {
        start::expect_children()?;
        let held: SigSet = PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect();
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&held), Some(&mut before))?;
        Ok(Self { fd: SignalFd::with_flags(&held, FLAGS)?, before })
    }

    /// The signals that were blocked before, as the command has to find them.
    #[must_use]
    pub const fn before(&self) -> &SigSet {
        &self.before
    }

    /// The next signal, if one has come.
    ///
    /// # Errors
    ///
    /// As read(2) for a signalfd.
    pub fn next(&self) -> nix::Result<Option<siginfo>> {
        self.fd.read_signal()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const FLAGS: SfdFlags = SfdFlags::SFD_CLOEXEC.union(SfdFlags::SFD_NONBLOCK);

/// Whether a signal asks guard-run itself to end, where there is no command to pass it on to. One that was ignored when
/// guard-run was started doesn't; it comes all the same, for the command may not ignore it any more.
#[must_use]
pub fn is_enough(signal: Signal) -> bool {
    ENOUGH.contains(&signal) && !start::is_ignored(signal)
}

/// A descriptor of the signals for which [`is_enough`] holds: of those alone that are held back.
///
/// # Errors
///
/// As signalfd(2).
pub fn enough() -> nix::Result<SignalFd> {
    SignalFd::with_flags(&ENOUGH.into_iter().filter(|signal| is_enough(*signal)).collect(), FLAGS)
}
