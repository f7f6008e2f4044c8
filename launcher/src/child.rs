//! The command's process: born in the leaf, it does all that keeps it there, and waits. Only when it is guarded, it becomes the
//! command.

use std::{
    borrow::Cow,
    ffi::{CStr, CString},
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::Arc,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        wait::waitpid,
    },
    unistd::{Pid, execve, getppid, setgroups, setresgid, setresuid},
};

use enforce::{
    attach::Attached,
    cgroup::Leaf,
    crash::on_panic,
    outlet::{HURRY, Outlet, PIPE_BUF},
    privilege::{Operation, Rights},
    signals::enough,
    sys::{
        process::{Side, exit_now, send_signal},
        start,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    command::Command,
    harden::{Attendant, Calls, HardenError, Hardening, Step, View},
    inside::Unseen,
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
    /// This machine could not be searched for what the command is to be kept from.
    #[error(transparent)]
    Look(#[from] HardenError),
    /// The process could not be set up.
    #[error("can't set up the command's process: {what}")]
    SetUp {
        /// What failed.
        what: String,
        /// Why.
        source: Errno,
    },
    /// The process can't be killed.
    #[error("the command's process waits for a file system that doesn't answer, and can't be ended")]
    Stuck,
    /// The process has panicked.
    #[error("{0}")]
    Panicked(String),
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
    /// The process's id.
    pub pid: Pid,
    pidfd: OwnedFd,
    /// What it was kept from, for the log.
    pub view: View,
    /// What answers the calls that its filter leaves to guard-run.
    pub attendant: Option<Attendant>,
}

/// The command's process to be. It waits to be let go, by [`Held::release`] and nobody else; if that can't be any more, because
/// this value is dropped or guard-run is dead, it ends.
pub struct Held {
    pid: Pid,
    pidfd: OwnedFd,
    /// Through it, the process is told what there is to be kept from, on a line. The first byte after that lets it go.
    gate: Outlet,
    /// What it has to say, if it fails. Closed by the command's execution.
    said: PipeReader,
    /// What it is kept from.
    view: View,
    /// The leaf that it is in.
    leaf: PathBuf,
    /// Where the process hands over the calls that guard-run answers.
    calls: Option<Calls>,
}

/// What the process says that fails to be the command.
#[derive(Serialize, Deserialize)]
enum Said {
    /// This couldn't be done, for this reason: an errno.
    SetUp(String, i32),
    /// The command couldn't be executed.
    Execute(i32),
    /// This process has panicked, which is an error of guard-run's.
    Panicked(String),
}

impl Held {
    /// Starts the command's process, which takes all steps that keep it inside while this process looks around and goes on.
    /// `unseen` is the file of denials that it will see. `mask` are the signals that the command has to find blocked.
    ///
    /// # Errors
    ///
    /// When there is no process to be had.
    pub fn new(
        leaf: &mut Leaf,
        command: &Command,
        (hardening, unseen): (&Hardening, Option<&Unseen>),
        mask: &SigSet,
    ) -> Result<Self, ChildError> {
        let (gate, go) = io::pipe().map_err(ChildError::Fork)?;
        let (said, writer) = io::pipe().map_err(ChildError::Fork)?;
        let (calls, its) = hardening.listening().map_err(ChildError::Fork)?.unzip();
        let launcher = Pid::this();
        match leaf.fork().map_err(ChildError::Fork)? {
            Side::Child => {
                // Its own copy would keep the gate from closing when guard-run is dead.
                drop((go, calls));
                let writer = Arc::new(writer);
                // It ends there and then: its memory is a copy of guard-run's, and what that would undo is guard-run's business.
                on_panic({
                    let writer = Arc::clone(&writer);
                    move |line| {
                        say(&writer, &Said::Panicked(line));
                        exit_now(i32::from(enforce::exit::FAILURE));
                    }
                });
                let mut gate = BufReader::new(gate);
                match prepare(leaf, command, (hardening, unseen), its, &mut gate, launcher) {
                    Ok(()) => {
                        if gate.read_exact(&mut [0]).is_ok() {
                            say(&writer, &Said::Execute(become_command(mask, command) as i32));
                        }
                    }
                    Err((what, error)) => say(&writer, &Said::SetUp(what.into_owned(), error as i32)),
                }
                exit_now(i32::from(enforce::exit::FAILURE));
            }
            Side::Parent { pid, pidfd } => {
                drop(its);
                let view = hardening.look(leaf.path(), command.user.as_ref())?;
                let told = serde_json::to_string(&view).map_err(|error| ChildError::Fork(error.into()))? + "\n";
                let mut gate = Outlet::pipe(go).map_err(ChildError::Fork)?;
                tell(&mut gate, told.as_bytes(), &pidfd);
                Ok(Self { pid, pidfd, gate, said, view, calls, leaf: leaf.path().to_owned() })
            }
        }
    }

    /// Has the process become the command. It waits in the leaf that the programs are on: only an [`Attached`] guard lets it go.
    ///
    /// # Errors
    ///
    /// When it couldn't be set up, or the command can't be executed.
    pub fn release(self, attached: &Attached, command: &Command) -> Result<Child, ChildError> {
        let Self { pid, pidfd, mut gate, mut said, view, calls, leaf } = self;
        assert_eq!(attached.leaf.path(), leaf, "the programs are on another leaf");
        tell(&mut gate, &[0], &pidfd);
        if !has_said(&said).map_err(|error| ChildError::Fork(error.into()))? {
            let _ = send_signal(&pidfd, Signal::SIGKILL);
            if !is_ready(&said).map_err(|error| ChildError::Fork(error.into()))? {
                return Err(ChildError::Stuck);
            }
        }
        // It says all in one piece. Its end need not come yet, since it may be stopped.
        let mut text = vec![0; PIPE_BUF];
        let length = said.read(&mut text).map_err(ChildError::Fork)?;
        let said = &text[..length];
        if said.is_empty() {
            let attendant = calls.map(|calls| calls.attendant(&view, &leaf)).transpose();
            let attendant = attendant.map_err(|error| ChildError::Fork(error.into()))?.flatten();
            return Ok(Child { pid, pidfd, view, attendant });
        }
        // It ends by itself, unless somebody has stopped it.
        let _ = send_signal(&pidfd, Signal::SIGKILL);
        let _ = waitpid(pid, None);
        Err(match serde_json::from_slice(said).map_err(|error| ChildError::Fork(error.into()))? {
            Said::Panicked(line) => ChildError::Panicked(line),
            Said::SetUp(what, error) => ChildError::SetUp { what, source: Errno::from_raw(error) },
            Said::Execute(error) => {
                let program = command.program.to_string_lossy().into_owned();
                ChildError::Execute { program, source: Errno::from_raw(error) }
            }
        })
    }
}

/// Tells the process something. If it is dead by now, its end will be seen as the command's. Somebody may also have stopped it, so
/// that it takes no signal; anybody who ends guard-run then means it.
fn tell(gate: &mut Outlet, bytes: &[u8], pidfd: &OwnedFd) {
    if gate.write_all(bytes, None).is_err() {
        let _ = send_signal(pidfd, Signal::SIGKILL);
    }
}

/// Waits until the process has said something, or has become the command. Not for long once a signal asks guard-run to end; that
/// is left for the command.
fn has_said(said: &PipeReader) -> nix::Result<bool> {
    let asked = enough()?;
    let mut files = [PollFd::new(said.as_fd(), PollFlags::POLLIN), PollFd::new(asked.as_fd(), PollFlags::POLLIN)];
    poll_again(&mut files, PollTimeout::NONE)?;
    is_ready(said)
}

/// Whether there is something to be read, or nobody any more to write it. Waits for it, but not for long.
fn is_ready(said: &PipeReader) -> nix::Result<bool> {
    let mut files = [PollFd::new(said.as_fd(), PollFlags::POLLIN)];
    poll_again(&mut files, PollTimeout::from(HURRY))?;
    Ok(files[0].any().unwrap_or(false))
}

/// As poll(2), also if the process is stopped and continued.
fn poll_again(files: &mut [PollFd<'_>], timeout: PollTimeout) -> nix::Result<()> {
    while let Err(error) = poll(files, timeout) {
        if error != Errno::EINTR {
            return Err(error);
        }
    }
    Ok(())
}

fn say(mut writer: &PipeWriter, said: &Said) {
    let said = serde_json::to_vec(said).unwrap_or_default();
    // If nobody is there to be told, there is nobody to let it go.
    let _ = writer.write_all(&said);
}

/// Does all that keeps this process in the leaf. If something fails, it returns what, and why.
fn prepare(
    leaf: &mut Leaf,
    command: &Command,
    (hardening, unseen): (&Hardening, Option<&Unseen>),
    calls: Option<UnixStream>,
    gate: &mut impl BufRead,
    launcher: Pid,
) -> Result<(), (Cow<'static, str>, Errno)> {
    // An ordinary user's command has no more than its user, and until then no more than it needs.
    let keep = |rights: &mut Rights| rights.keep(&[Operation::View, Operation::Bound]).map_err(|_| Errno::EPERM);
    let mut steps = vec![Step::with_rights("giving up guard-run's capabilities", keep)];
    steps.push(Step::new("signals and standard streams", start::restore));
    steps.extend(hardening.steps_at_once());
    take(steps, leaf.rights())?;
    let view = told(gate).map_err(|_| ("learning what to be kept from".into(), Errno::EPIPE))?;
    let shown =
        unseen.map(Unseen::shown).transpose().map_err(|_| ("showing the file of denials".into(), Errno::EMFILE))?;
    let mut steps = hardening.steps_before_user(&view, leaf.path(), calls, shown);
    steps.extend(command.user.as_ref().into_iter().flat_map(become_user));
    steps.extend(hardening.steps_after_user());
    steps.push(Step::with_rights("giving up capabilities", |rights| rights.renounce().map_err(|_| Errno::EPERM)));
    // After the change of user, which clears this.
    steps.push(end_with(launcher));
    take(steps, leaf.rights())
}

fn take(steps: Vec<Step>, rights: &mut Rights) -> Result<(), (Cow<'static, str>, Errno)> {
    steps.into_iter().try_for_each(|Step { what, run }| run(rights).map_err(|error| (what, error)))
}

/// What guard-run tells of what there is to be kept from.
fn told(gate: &mut impl BufRead) -> io::Result<View> {
    let mut line = String::new();
    gate.read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Executes the command. Returns only if that fails.
fn become_command(mask: &SigSet, command: &Command) -> Errno {
    // Until now, signals were held back, so that none would stop a process that guard-run waits for.
    match sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None) {
        Ok(()) => execute(command),
        Err(error) => error,
    }
}

fn become_user(user: &Identity) -> [Step; 3] {
    let Identity { uid, gid, groups, .. } = user.clone();
    [
        Step::new("setgroups", move || setgroups(&groups)),
        Step::new("setresgid", move || setresgid(gid, gid, gid)),
        Step::new("setresuid", move || setresuid(uid, uid, uid)),
    ]
}

/// Anybody who kills guard-run means the command.
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
        // ESRCH: it has ended. EPERM can't be: it is our child, and we are root or it is of the same user.
        let _ = send_signal(&self.pidfd, signal);
    }
}
