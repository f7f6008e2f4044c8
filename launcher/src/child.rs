//! The command's process: born in the leaf, it becomes the command.

use std::{
    ffi::{CStr, CString},
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        wait::waitpid,
    },
    unistd::{Pid, execve, getppid, setgroups, setresgid, setresuid},
};

use crate::{
    attach::Attached,
    command::Command,
    privilege::{self, Operation},
    sys::{
        process::{Change, Side, exit_now, fork_into, poll_change, send_signal},
        start,
    },
};

/// The shell that runs a file that is no program and names no interpreter, as execvp(3) has it.
const SHELL: &CStr = c"/bin/sh";

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// There is no process for it.
    #[error("can't start a process in the cgroup")]
    Fork(#[source] io::Error),
    /// The process could not be set up.
    #[error("can't set up the command's process: {what}")]
    SetUp {
        /// What failed.
        what: &'static str,
        /// Why.
        source: Errno,
    },
    /// The process could not execute the command.
    #[error("{program}")]
    Execute {
        /// The file that was to be executed.
        program: String,
        /// Why it wasn't.
        source: Errno,
    },
}

/// What the process does before it is the command. The position in this list is how it tells its parent what failed.
const STEPS: [&str; 7] = [
    "arranging for its end",
    "signals and standard streams",
    "signal mask",
    "setgroups",
    "setresgid",
    "setresuid",
    "giving up capabilities",
];
/// And the last thing.
const EXECUTE: usize = STEPS.len();

/// The running command.
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: Pid,
    pidfd: OwnedFd,
}

impl Attached {
    /// Starts the command in the leaf. `mask` are the signals that it has to find blocked.
    ///
    /// # Errors
    ///
    /// When there is no process to be had, or it can't be set up, or the command can't be executed.
    pub fn spawn(&self, command: &Command, mask: &SigSet) -> Result<Child, ChildError> {
        let (mut reader, writer) = io::pipe().map_err(ChildError::Fork)?;
        let parent = nix::unistd::getpid();
        let born = {
            // In effect for the birth alone, on both sides.
            let _raised = privilege::raise(Operation::Leaf);
            fork_into(self.leaf.folder())
        };
        match born.map_err(ChildError::Fork)? {
            Side::Child => {
                let (step, error) = become_command(command, mask, parent);
                // Both fit into a byte each, and a write so small to an empty pipe can't fail or be cut.
                let message = [u8::try_from(step).unwrap_or(u8::MAX), u8::try_from(error as i32).unwrap_or(u8::MAX)];
                let _ = (&writer).write_all(&message);
                exit_now(i32::from(crate::exit::FAILURE));
            }
            Side::Parent { pid, pidfd } => {
                drop(writer);
                let child = Child { pid, pidfd };
                let mut message = Vec::new();
                // The command's execution closes the pipe.
                reader.read_to_end(&mut message).map_err(ChildError::Fork)?;
                match message[..] {
                    [step, error] => {
                        let _ = waitpid(pid, None);
                        Err(failure(command, usize::from(step), Errno::from_raw(error.into())))
                    }
                    _ => Ok(child),
                }
            }
        }
    }
}

fn failure(command: &Command, step: usize, source: Errno) -> ChildError {
    match STEPS.get(step) {
        Some(what) => ChildError::SetUp { what, source },
        None => ChildError::Execute { program: command.program.to_string_lossy().into_owned(), source },
    }
}

/// Sets the process up and executes the command. Returns only if something failed: which step, and why.
fn become_command(command: &Command, mask: &SigSet, parent: Pid) -> (usize, Errno) {
    match set_up(command, mask, parent) {
        Err(failed) => failed,
        Ok(()) => (EXECUTE, execute(command)),
    }
}

fn set_up(command: &Command, mask: &SigSet, parent: Pid) -> Result<(), (usize, Errno)> {
    let step = |number: usize| move |error: Errno| (number, error);
    start::restore().map_err(step(1))?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None).map_err(step(2))?;
    if let Some(user) = &command.user {
        setgroups(&user.groups).map_err(step(3))?;
        setresgid(user.gid, user.gid, user.gid).map_err(step(4))?;
        setresuid(user.uid, user.uid, user.uid).map_err(step(5))?;
    }
    // An ordinary user's command has no more than its user.
    privilege::renounce().map_err(|_| (6, Errno::EPERM))?;
    // Whoever kills guard-run means the command. After the change of user, which clears this.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(step(0))?;
    if getppid() == parent { Ok(()) } else { Err((0, Errno::ESRCH)) }
}

fn execute(command: &Command) -> Errno {
    let Command { program, arguments, environment, .. } = command;
    let Err(error) = execve(program, arguments, environment);
    if error != Errno::ENOEXEC {
        return error;
    }
    let script = [CString::from(SHELL), program.clone()];
    let arguments: Vec<&CStr> = script.iter().chain(arguments.iter().skip(1)).map(CString::as_c_str).collect();
    let Err(error) = execve(SHELL, &arguments, environment);
    error
}

impl Child {
    /// Sends it a signal. One that comes too late is none.
    pub fn signal(&self, signal: Signal) {
        // ESRCH: it has ended. EPERM can't be: it is our child, and we are root or it is of the same user.
        let _ = send_signal(&self.pidfd, signal);
    }

    /// The next change of its state, if there has been one.
    ///
    /// # Errors
    ///
    /// As waitid(2).
    pub fn poll_change(&self) -> io::Result<Option<Change>> {
        poll_change(&self.pidfd)
    }
}
