//! A part of the cgroup hierarchy for one test alone, so that it can look at all that is there, and have it reaped,
//! without disturbing or being disturbed by others.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, id},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{cgroup::cgroup2_mount, eventually_within, run::guard_run};

/// Enters the cgroup `$0`, then becomes a command.
const ENTER: &str = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;

/// Enters the cgroup `$0`, then runs a command that sees of the hierarchy, mounted at `$1`, only what is below it.
const ENTER_ALONE: &str = r#"echo $$ > "$0/cgroup.procs" &&
    exec unshare --cgroup --mount sh -c 'umount -l "$0" && mount -t cgroup2 none "$0" && exec "$@"' "$@""#;

/// A cgroup of the test's own. What runs in it is killed with this value.
#[derive(Debug)]
pub struct Yard(PathBuf);

impl Yard {
    /// Makes one below this process's own cgroup.
    ///
    /// # Panics
    ///
    /// When that can't be done.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes something outside this process")]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let own = cgroup_of(id()).expect("this process is in the hierarchy");
        let yard = own.join(format!("guard-tests.{}.{}", id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&yard).expect("tests run as root");
        Self(yard)
    }

    /// The yard's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What executes a command in it: for [`crate::Run::through`].
    #[must_use]
    pub fn wrapper(&self) -> Vec<OsString> {
        entering(&self.0)
    }

    /// The cgroups in it, at the top.
    ///
    /// # Panics
    ///
    /// When it is gone.
    #[must_use]
    pub fn leaves(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).expect("the yard is ours").flatten();
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
    }

    /// Runs `guard-run gc` on what is in it.
    ///
    /// # Panics
    ///
    /// When that can't be run.
    #[must_use]
    pub fn gc(&self) -> Output {
        self.gc_through(&[])
    }

    /// Runs `guard-run gc` on what is in it, by a command that executes its arguments.
    ///
    /// # Panics
    ///
    /// When that can't be run.
    #[must_use]
    pub fn gc_through(&self, wrapper: &[OsString]) -> Output {
        let words = wrapper.iter().cloned().chain(["sh".into(), "-c".into(), ENTER_ALONE.into()]);
        let words: Vec<OsString> = words.collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(&self.0).arg(cgroup2_mount()).arg(guard_run()).arg("gc");
        command.output().expect("sh is there")
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let limit = std::time::Duration::from_secs(10);
        // A test that fails must not fail twice.
        let _ = eventually_within(limit, || remove(&self.0).is_ok());
    }
}

/// What executes a command in a cgroup: for [`crate::Run::through`].
#[must_use]
pub fn entering(cgroup: &Path) -> Vec<OsString> {
    vec!["sh".into(), "-c".into(), ENTER.into(), cgroup.into()]
}

/// Removes an empty cgroup and all below it.
pub(crate) fn remove(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path())?;
    }
    fs::remove_dir(cgroup)
}

/// The cgroup of a process. `None` if the process is gone.
#[must_use]
pub fn cgroup_of(pid: u32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    Some(cgroup2_mount().join(path))
}

/// The processes in a cgroup, not those in cgroups below it.
#[must_use]
pub fn processes_in(cgroup: &Path) -> Vec<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// A field of /proc/PID/status, such as `State` or `VmHWM`. `None` if the process is gone.
#[must_use]
pub fn status_of(pid: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}

/// Whether there is such a process, and it has not ended.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    status_of(pid, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// Whether such a process is stopped.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    status_of(pid, "State").is_some_and(|state| state.starts_with('T'))
}

/// The processes that have this very argument.
///
/// # Panics
///
/// When /proc is not mounted.
#[must_use]
pub fn processes_with_argument(wanted: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has_it = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == wanted.as_bytes())
    };
    pids.filter(has_it).collect()
}
