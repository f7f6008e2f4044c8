//! The log of a run: one JSON document.

use std::{
    env,
    fmt::{self, Write as _},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use common::record::{Counters, Hook};
use jiff::Timestamp;
use nix::sys::stat::SFlag;
use policy::Mode;
use serde::Serialize;

pub use crate::events::nanoseconds;
use crate::{
    events::{Event, Flow},
    harden::HardeningReport,
    inherited::Inherited,
    outlet::{Outlet, write_stderr},
    privilege,
    sys::{bpf::ProgramIdentity, process::Change},
    target::{Found, Target},
    text::pretty_json,
};

/// Version of the log's format.
pub const SCHEMA: u32 = 1;

/// Where root's logs go unless `--log` says otherwise.
pub const LOG_FOLDER: &str = "/var/log/guard-run";

/// The log.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The command with its arguments.
    pub command: Vec<String>,
    /// Who it ran as.
    pub user: User,
    /// When it was started.
    #[serde(serialize_with = "nanoseconds")]
    pub started: Timestamp,
    /// When the last process of its tree had ended.
    #[serde(serialize_with = "nanoseconds")]
    pub ended: Timestamp,
    /// How it ended.
    pub exit: Exit,
    /// The policy.
    pub policy: PolicySource,
    /// What was enforced.
    pub enforced: Enforced,
    /// Denials that are counted but in no event, because there was no room for another identity.
    pub lost: u64,
    /// What was denied.
    pub events: Vec<Event>,
    /// What was reached, if that was to be recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<Vec<Flow>>,
    /// Connections and datagrams that are in no flow, because there was no room for another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows_lost: Option<u64>,
}

/// A user.
#[derive(Debug, Serialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Main group.
    pub gid: u32,
    /// Login name, where it has one.
    pub name: Option<String>,
}

/// How the command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// Its status, if it exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// The number of the signal that ended it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How many processes that it left behind guard-run has killed.
    pub killed: usize,
}

impl Exit {
    /// The end of a command of which this many processes were killed.
    #[must_use]
    pub fn new(change: Change, killed: usize) -> Self {
        match change {
            Change::Exited(code) => Self { code: Some(code), signal: None, killed },
            Change::Signaled(signal) | Change::Stopped(signal) | Change::Trapped(signal) => {
                Self { code: None, signal: Some(signal), killed }
            }
            Change::Continued => Self { code: None, signal: None, killed },
        }
    }
}

/// Where the policy came from.
#[derive(Debug, Serialize)]
pub struct PolicySource {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of its text.
    pub sha256: String,
    /// Enforced, or only recorded.
    pub mode: Mode,
}

/// What was enforced, so that "no denials" can't be confused with "not enforcing".
#[derive(Debug, Serialize)]
pub struct Enforced {
    /// The kernel's release.
    pub kernel: String,
    /// The leaf that it was enforced on.
    pub cgroup: PathBuf,
    /// The programs, and what each of them has done.
    pub hooks: Vec<HookReport>,
    /// Sections that the policy leaves out and that restrict nothing.
    pub unrestricted: Vec<&'static str>,
    /// What kept the command inside beside these.
    pub hardening: HardeningReport,
    /// Sockets and devices that the command was handed, to which the policy does not apply.
    pub inherited: Vec<Inherited>,
}

/// One program, and what it has done.
#[derive(Debug, Serialize)]
pub struct HookReport {
    /// Where it was attached.
    pub hook: &'static str,
    /// Whether there are ways round the hook, so that its denials are advice and no boundary.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub advisory: bool,
    /// Its id, by which `bpftool prog show id` knows it while it runs.
    pub program_id: u32,
    /// Its tag: the hash of its instructions.
    pub tag: String,
    /// Requests that it let go on.
    pub allowed: u64,
    /// Requests that it refused.
    pub denied: u64,
    /// Requests that it would have refused, were it not for audit mode.
    pub audited: u64,
    /// Of those denied or audited, the ones that are in no event.
    pub unrecorded: u64,
}

impl HookReport {
    /// What a program has done.
    #[must_use]
    pub fn new(hook: Hook, identity: ProgramIdentity, counters: Counters, mode: Mode) -> Self {
        let (denied, audited) = match mode {
            Mode::Enforce => (counters.denied, 0),
            Mode::Audit => (0, counters.denied),
        };
        Self {
            hook: hook.name(),
            advisory: hook.is_advisory(),
            program_id: identity.id,
            tag: format!("{:016x}", u64::from_be_bytes(identity.tag)),
            allowed: counters.allowed,
            denied,
            audited,
            unrecorded: counters.unrecorded,
        }
    }
}

impl Report {
    /// How many requests were refused.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.enforced.hooks.iter().map(|hook| hook.denied).sum()
    }

    /// The line for people: what was denied or lost, if anything was.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let audited: u64 = self.enforced.hooks.iter().map(|hook| hook.audited).sum();
        let (count, what) = if audited > 0 { (audited, "would have denied") } else { (self.denied(), "denied") };
        if count == 0 {
            return None;
        }
        let mut line = format!("{what} {count}");
        for (index, event) in self.events.iter().take(3).enumerate() {
            let separator = if index == 0 { ": " } else { "; " };
            let times = if event.count > 1 { format!(" ×{}", event.count) } else { String::new() };
            let _ = write!(line, "{separator}{} {}{times} [{}]", event.op, event.subject, event.cause.rule);
        }
        if self.events.len() > 3 {
            let _ = write!(line, "; and {} more kinds", self.events.len() - 3);
        }
        if self.lost > 0 {
            let _ = write!(line, "; {} of them counted but not recorded one by one", self.lost);
        }
        Some(line)
    }
}

/// Where the log goes, known to be writable.
#[derive(Debug)]
pub enum Destination {
    /// To standard error.
    Stderr,
    /// To a file that appears, or replaces another, when it is whole. The path is for people.
    File(PathBuf, Target),
    /// To something that must not be replaced: a device, a FIFO, what somebody has open.
    Stream(PathBuf, Outlet),
}

impl Destination {
    /// Makes sure that the log can be written at the end, by beginning to: to `given`, or to a new file in the folder for
    /// logs. What is begun has no name yet, so nothing stays behind if there is no end. The folder is the one that is found
    /// now, whatever becomes of its path.
    ///
    /// # Errors
    ///
    /// When it can't, and as [`Found::at`].
    pub fn open(given: Option<&Path>, started: Timestamp) -> io::Result<Self> {
        let Some(path) = given else {
            let name = format!("{}-{}.json", started.strftime("%Y%m%dT%H%M%S.%9fZ"), std::process::id());
            return Self::file(&make_log_folder()?.join(name));
        };
        if path == Path::new("-") {
            return Ok(Self::Stderr);
        }
        match Found::at(path)? {
            Found::Name(target) => Self::at(path, target),
            Found::Open(file) => Ok(Self::Stream(path.to_owned(), Outlet::of(file)?)),
        }
    }

    /// A file that can be made or replaced.
    ///
    /// # Errors
    ///
    /// When it can't, as [`Found::at`], and when something is there that is no regular file.
    pub fn file(path: &Path) -> io::Result<Self> {
        let destination = match Found::at(path)? {
            Found::Name(target) => Self::at(path, target)?,
            Found::Open(_) => return Err(io::Error::other("not a regular file")),
        };
        match destination {
            Self::File(..) => Ok(destination),
            _ => Err(io::Error::other("not a regular file")),
        }
    }

    fn at(path: &Path, target: Target) -> io::Result<Self> {
        match target.kind()? {
            None | Some(SFlag::S_IFREG | SFlag::S_IFDIR) => {
                target.probe()?;
                Ok(Self::File(path.to_owned(), target))
            }
            Some(_) => Ok(Self::Stream(path.to_owned(), Outlet::at(&target)?)),
        }
    }

    /// Writes the log: to a file whole, or not at all. Waits for the reader of anything else, but not after a signal that asks
    /// guard-run to end.
    ///
    /// # Errors
    ///
    /// When it can't be.
    pub fn write(&mut self, report: &impl Serialize) -> io::Result<()> {
        let mut text = pretty_json(report)?;
        text.push(b'\n');
        match self {
            Self::Stderr => write_stderr(&text, None),
            Self::Stream(_, outlet) => outlet.write_all(&text, None),
            Self::File(path, target) => {
                // A folder that has been removed, and perhaps made anew, is looked for again, with the same care.
                if target.is_removed()?
                    && let Found::Name(again) = Found::at(path)?
                {
                    *target = again;
                }
                target.put(&text)
            }
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("standard error"),
            Self::File(path, _) | Self::Stream(path, _) => path.display().fmt(f),
        }
    }
}

/// The folder for logs for which nobody has said where they go: [`LOG_FOLDER`] for root; for an ordinary user the one
/// where programs keep what they note down (`guard-run` in XDG_STATE_HOME, which is ~/.local/state unless set).
///
/// # Errors
///
/// When the environment doesn't tell.
pub fn log_folder() -> io::Result<PathBuf> {
    if privilege::is_root() {
        return Ok(LOG_FOLDER.into());
    }
    let variable = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    Ok(state.ok_or_else(|| io::Error::other("neither XDG_STATE_HOME nor HOME is set"))?.join("guard-run"))
}

/// Makes the folder for logs if need be, with the user's own rights.
fn make_log_folder() -> io::Result<PathBuf> {
    let folder = log_folder()?;
    let mode = if privilege::is_root() { 0o755 } else { 0o700 };
    let created = std::fs::DirBuilder::new().recursive(true).mode(mode).create(&folder);
    created.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
    Ok(folder)
}
