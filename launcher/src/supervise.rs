//! While the command runs: passing signals on, taking events, waiting for its end and for that of all it started.

use std::{io, os::fd::AsFd as _, time::Duration};

use enforce::{
    attach::Attached,
    cgroup::CgroupError,
    journal::Journal,
    live::Awaited,
    outlet::RETRY,
    signals::{Signals, is_enough},
    sys::process::{Change, poll_change, stop_tracing},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, raise},
        signalfd::siginfo,
    },
    unistd::{getpgrp, tcgetpgrp, tcsetpgrp},
};

use crate::{child::Child, harden::Attendant, inside::DenialsFile, left::Left};

/// Something that guard-run can't go on without failed.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// A system call.
    #[error("watching the command")]
    System(#[from] io::Error),
    /// The leaf.
    #[error("watching the command")]
    Cgroup(#[from] CgroupError),
}

impl From<nix::Error> for SuperviseError {
    fn from(error: nix::Error) -> Self {
        Self::System(error.into())
    }
}

/// Whether to wait for what the command leaves running (`--wait`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Wait {
    /// Wait for all processes that the command has started
    #[default]
    Tree,
    /// Wait for the command itself, then kill the rest
    Child,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// How the command ended.
    pub end: Change,
    /// How many processes that it left behind were killed.
    pub killed: usize,
}

/// Waits until the leaf is empty, and says what it waits for where that takes a while, unless it is to be `silent`.
///
/// # Errors
///
/// When a system call fails that can't.
pub fn supervise(
    attached: &mut Attached,
    child: &Child,
    signals: &Signals,
    (journal, denials): (&mut Journal, Option<&mut DenialsFile>),
    wait: Wait,
    silent: bool,
) -> Result<Outcome, SuperviseError> {
    let mut supervisor = Supervisor {
        denials,
        child,
        signals,
        attendant: child.attendant.as_ref(),
        end: None,
        enough: false,
        busy: false,
        left: None,
    };
    let mut killed = 0;
    loop {
        if let Some(end) = supervisor.end {
            if !attached.leaf.is_populated()? {
                return Ok(Outcome { end, killed });
            }
            if wait == Wait::Child || supervisor.enough {
                // Between the two, some may end by themselves; they are counted, too.
                killed = killed.max(attached.leaf.processes().len());
                attached.leaf.kill()?;
                supervisor.left = None;
            } else if !silent {
                supervisor.left.get_or_insert_with(Left::begin).look(|| attached.leaf.processes());
            }
        }
        supervisor.wait(attached, journal)?;
    }
}

struct Supervisor<'a> {
    /// What the command is told of its denials.
    denials: Option<&'a mut DenialsFile>,
    child: &'a Child,
    signals: &'a Signals,
    /// What answers the command's calls, while there may be some.
    attendant: Option<&'a Attendant>,
    end: Option<Change>,
    enough: bool,
    /// Whether there may be more changes of children's states, of which no signal will tell any more.
    busy: bool,
    /// What was said about those that the command has left behind.
    left: Option<Left>,
}

/// How many changes of children's states are dealt with before signals and events are looked at again: processes that stop again
/// and again would keep guard-run from everything else.
const AT_ONCE: usize = 64;

impl Supervisor<'_> {
    /// Waits until something happens, and deals with it.
    fn wait(&mut self, attached: &mut Attached, journal: &mut Journal) -> Result<(), SuperviseError> {
        let mut files = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        // Before that, nobody reads the events, and poll(2) would report them again and again.
        if self.end.is_some() {
            files.push(PollFd::new(attached.leaf.events().as_fd(), PollFlags::POLLPRI));
        }
        if let Some(records) = &attached.records {
            files.push(PollFd::new(records.news.as_fd(), PollFlags::POLLIN));
        }
        let asks = self.attendant.map(|attendant| {
            files.push(PollFd::new(attendant.as_fd(), PollFlags::POLLIN));
            files.len() - 1
        });
        // Up to the next millisecond, so that it is time then.
        let pause = self.left.as_ref().map(|left| left.pause() + Duration::from_millis(1));
        let pause = pause.map_or(PollTimeout::NONE, |pause| PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX));
        let mut timeout = if self.busy || journal.has_fresh() { PollTimeout::ZERO } else { pause };
        match self.denials.as_ref().and_then(|denials| denials.awaited()) {
            Some(Ok(file)) => files.push(PollFd::new(file, PollFlags::POLLIN)),
            // Up to the next millisecond, as above.
            Some(Err(pause)) if timeout == PollTimeout::NONE => {
                timeout = PollTimeout::try_from(pause + Duration::from_millis(1)).unwrap_or(timeout);
            }
            Some(Err(_)) | None => {}
        }
        match journal.awaits() {
            Some(Awaited::Room(file)) => files.push(PollFd::new(file, PollFlags::POLLOUT)),
            Some(Awaited::Reader) if timeout != PollTimeout::ZERO => timeout = PollTimeout::from(RETRY),
            Some(Awaited::Reader) | None => {}
        }
        match poll(&mut files, timeout) {
            Err(nix::Error::EINTR) => return Ok(()),
            result => result?,
        };
        // Before all else: somebody waits for the answer.
        if let (Some(attendant), Some(asks)) = (self.attendant, asks) {
            let events = files[asks].revents().unwrap_or(PollFlags::empty());
            if events.contains(PollFlags::POLLIN) {
                attendant.attend(journal)?;
            } else if !events.is_empty() {
                // Nobody is there any more who could ask, and poll(2) would say so again and again.
                self.attendant = None;
            }
        }
        journal.go_on();
        if let Some(denials) = &mut self.denials {
            denials.look();
        }
        if let Some(records) = &mut attached.records {
            journal.drain(records);
        }
        if let Some(denials) = &mut self.denials {
            denials.go_on(journal);
        }
        while let Some(info) = self.signals.next()? {
            self.handle(&info);
        }
        if self.busy {
            self.look_after_children()?;
        }
        Ok(())
    }

    fn handle(&mut self, info: &siginfo) {
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        match signal {
            Some(Signal::SIGCHLD) => self.busy = true,
            Some(signal) if self.end.is_some() => {
                self.enough |= is_enough(signal);
            }
            // What the terminal sends goes to the whole process group, so the command has it already.
            Some(signal) if info.ssi_code != libc::SI_KERNEL => self.child.signal(signal),
            _ => {}
        }
    }

    fn look_after_children(&mut self) -> Result<(), SuperviseError> {
        for _ in 0..AT_ONCE {
            let Some((pid, change)) = poll_change()? else {
                self.busy = false;
                break;
            };
            match change {
                // It has asked to be traced by its parent. Nobody here wants to know more; if it has just been killed, that is all.
                Change::Trapped(signal) => drop(stop_tracing(pid, signal)),
                // Of others, it is enough to have let them go.
                _ if self.end.is_some() || pid != self.child.pid => {}
                Change::Exited(_) | Change::Signaled(_) => self.end = Some(change),
                Change::Stopped(signal) => stop_like_child(signal)?,
                Change::Continued => {}
            }
        }
        Ok(())
    }
}

/// Stops this process as the command was stopped, so that a shell with job control sees its job stopped. SIGCONT, which
/// it sends to the whole process group, continues both.
///
/// Where there is no terminal, there is no such shell, and somebody who knows only the command may continue it alone;
/// then guard-run must not sleep on.
fn stop_like_child(signal: i32) -> nix::Result<()> {
    let by_terminal = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU].iter().any(|known| *known as i32 == signal);
    let terminal = std::fs::File::open("/dev/tty").ok();
    if !by_terminal && terminal.is_none() {
        return Ok(());
    }
    // A command that is a shell has a process group of its own, and expects to have the terminal when it goes on. The
    // shell that continues this job gives it to guard-run's group, since that is the one it knows.
    let holder = terminal.as_ref().and_then(|terminal| tcgetpgrp(terminal).ok()).filter(|group| *group != getpgrp());
    raise(Signal::SIGSTOP)?;
    if let (Some(terminal), Some(holder)) = (terminal, holder)
        && tcgetpgrp(&terminal) == Ok(getpgrp())
    {
        // If it fails, the group is gone, and nobody expects the terminal.
        let _ = tcsetpgrp(&terminal, holder);
    }
    Ok(())
}
