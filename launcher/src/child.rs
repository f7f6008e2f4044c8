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
    harden::{Hardening, Step},
    sys::{
        process::{Change, Side, exit_now, fork_into, poll_change, send_signal},
        start,
    },
    user::Identity,
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
        what: String,
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
    pub fn spawn(&self, command: &Command, hardening: &Hardening, mask: &SigSet) -> Result<Child, ChildError> {
        let (mut reader, writer) = io::pipe().map_err(ChildError::Fork)?;
        let mut steps = vec![Step::new("signals and standard streams", start::restore), signal_mask(mask)];
        steps.extend(hardening.steps_before_user(self.leaf.path()));
        steps.extend(command.user.as_ref().into_iter().flat_map(become_user));
        steps.extend(hardening.steps_after_user());
        // After the change of user, which clears this.
        steps.push(end_with(nix::unistd::getpid()));
        match fork_into(self.leaf.folder()).map_err(ChildError::Fork)? {
            Side::Child => {
                let (step, error) = become_command(&steps, command);
                let mut message = [0; MESSAGE];
                message[..size_of::<u32>()].copy_from_slice(&step.to_ne_bytes());
                message[size_of::<u32>()..].copy_from_slice(&(error as i32).to_ne_bytes());
                // A write so small to an empty pipe can't fail or be cut.
                let _ = (&writer).write_all(&message);
                exit_now(i32::from(crate::exit::FAILURE));
            }
            Side::Parent { pid, pidfd } => {
                drop(writer);
                let child = Child { pid, pidfd };
                let mut message = Vec::new();
                // The command's execution closes the pipe.
                reader.read_to_end(&mut message).map_err(ChildError::Fork)?;
                let Ok(message) = <[u8; MESSAGE]>::try_from(message) else { return Ok(child) };
                let _ = waitpid(pid, None);
                let [a, b, c, d, e, f, g, h] = message;
                let (step, error) = (u32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]));
                let source = Errno::from_raw(error);
                Err(match steps.into_iter().nth(step as usize) {
                    Some(Step { what, .. }) => ChildError::SetUp { what: what.into_owned(), source },
                    None => ChildError::Execute { program: command.program.to_string_lossy().into_owned(), source },
                })
            }
        }
    }
}

/// What a process says that could not become the command: the number of the step that failed, and the error's.
const MESSAGE: usize = size_of::<u32>() + size_of::<i32>();

/// Takes the steps and executes the command. Returns only if something failed: the step's number, that of the execution
/// being larger than any, and why.
fn become_command(steps: &[Step], command: &Command) -> (u32, Errno) {
    for (number, step) in (0..).zip(steps) {
        if let Err(error) = (step.run)() {
            return (number, error);
        }
    }
    (u32::MAX, execute(command))
}

fn signal_mask(mask: &SigSet) -> Step {
    let mask = *mask;
    Step::new("signal mask", move || sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None))
}

fn become_user(user: &Identity) -> [Step; 3] {
    let Identity { uid, gid, groups, .. } = user.clone();
    [
        Step::new("setgroups", move || setgroups(&groups)),
        Step::new("setresgid", move || setresgid(gid, gid, gid)),
        Step::new("setresuid", move || setresuid(uid, uid, uid)),
    ]
}

/// Whoever kills guard-run means the command.
fn end_with(parent: Pid) -> Step {
    Step::new("arranging for its end", move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH) }
    })
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
        // ESRCH: it has ended. EPERM can't be: it is our child, and we are root.
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
