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
    path::Path,
};

use enforce::{
    journal::Journal,
    process::Status,
    sys::{
        confine::install_filter,
        notify::{Answer, Call, Listener, install_listener},
    },
};
use nix::{errno::Errno, unistd::getpid};
use seccompiler::BpfProgram;

use super::{
    call::{Rule, What},
    look::{Refused, Scene},
    presence,
    view::View,
};

/// Where the command's process hands over the calls that guard-run answers.
pub struct Calls {
    pub(super) socket: UnixStream,
    pub(super) rules: Vec<Rule>,
    pub(super) audits: bool,
    pub(super) keeps_abstract: bool,
    pub(super) keeps_sockets: bool,
    pub(super) kept: u64,
}

/// Answers the command's calls. Once it is dropped, they fail with `ENOSYS`.
#[derive(Debug)]
pub struct Attendant {
    listener: Listener,
    /// Whether the threads' numbers are those of our /proc.
    numbers_are_ours: bool,
    rules: Vec<Rule>,
    scene: Scene,
}

/// In the command's process: installs the filter, and hands its listener over. Where a filter that guard-run was given has one, there
/// can't be another: then others are installed, and the kernel answers.
pub(super) fn install(filter: &BpfProgram, otherwise: &[BpfProgram], socket: &UnixStream) -> nix::Result<()> {
    match install_listener(filter) {
        Err(Errno::EBUSY) => otherwise.iter().try_for_each(|filter| install_filter(filter)),
        result => result?.hand_over(socket),
    }
}

impl Calls {
    /// Takes the listener that the command's process has handed over, before it became the command in this leaf. `None` if it has none.
    ///
    /// # Errors
    ///
    /// As recvmsg(2).
    pub fn attendant(self, view: &View, leaf: &Path) -> nix::Result<Option<Attendant>> {
        let Self { socket, rules, audits, keeps_abstract, keeps_sockets, kept } = self;
        let Some(listener) = Listener::receive(&socket)? else { return Ok(None) };
        let own = getpid().to_string();
        let leaf = leaf.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(Attendant {
            listener,
            numbers_are_ours: fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str()),
            rules,
            scene: Scene { leaf, covered: view.covers(), audits, keeps_abstract, keeps_sockets, kept },
        }))
    }
}

impl Attendant {
    /// Answers the call that was announced, and has a refusal noted.
    ///
    /// # Errors
    ///
    /// As ioctl(2).
    pub fn attend(&self, journal: &mut Journal) -> nix::Result<()> {
        let Some(call) = self.listener.next()? else { return Ok(()) };
        let (answer, refused) = self.judge(&call);
        // Who it is, is to be seen only while it waits. What takes longer to find out is found out when it has its answer.
        let who = refused.as_ref().and_then(|_| Status::read(call.thread));
        let who = who.filter(|_| self.numbers_are_ours && self.listener.is_waiting(&call));
        // If its thread is gone by now, nothing was refused to anybody.
        if self.listener.answer(&call, answer)
            && let Some(refused) = refused
        {
            journal.refuse(refused.into(), who);
        }
        Ok(())
    }

    /// What becomes of a call, and what is to be noted.
    fn judge(&self, call: &Call) -> (Answer, Option<Refused>) {
        if call.is_foreign {
            // Nobody but audit mode asks.
            return (Answer::GoOn, Some(Refused::FOREIGN));
        }
        let rules = || self.rules.iter().filter(|rule| rule.holds(call));
        let refusal = rules().find_map(|rule| match rule.what {
            What::Refuse(error, remedy) => {
                Some((error, Refused { name: rule.name, of: None, measure: "seccomp", error: Some(error), remedy }))
            }
            _ => None,
        });
        if let Some((error, refused)) = refusal {
            let answer = if self.scene.audits { Answer::GoOn } else { Answer::Refuse(error) };
            return (answer, Some(refused));
        }
        match rules().next() {
            Some(Rule { what: What::Presence, .. }) if self.numbers_are_ours => (presence::answer(call), None),
            Some(_) if self.numbers_are_ours => (Answer::GoOn, rules().find_map(|rule| self.scene.look(call, rule))),
            Some(_) => (Answer::GoOn, None),
            // The kernel has asked for something that no rule is about.
            None => (Answer::Refuse(Errno::EPERM), None),
        }
    }
}

impl AsFd for Attendant {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
