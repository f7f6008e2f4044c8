//! guard-run, as anybody starts it; and a cgroup that it guards by its programs alone.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

use super::OK;

/// The programs that the self-test runs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// What is tested.
    pub guard_run: PathBuf,
    /// The self-test itself, whose processes make the attempts.
    pub own: PathBuf,
}

impl Programs {
    /// This program, and `guard_run` or the one beside it.
    ///
    /// # Errors
    ///
    /// When there is no such program.
    pub fn find(guard_run: Option<&Path>) -> anyhow::Result<Self> {
        let own = env::current_exe().context("/proc/self/exe")?;
        let guard_run = guard_run.map_or_else(|| own.with_file_name("guard-run"), Path::to_owned);
        let guard_run = guard_run.canonicalize().with_context(|| {
            format!("{}: guard-run is not there; say where it is: --guard-run PROGRAM", guard_run.display())
        })?;
        Ok(Self { guard_run, own })
    }
}

/// A guard-run whose command does nothing but hold its cgroup. It is told to end with this value.
pub struct Guard {
    child: Child,
    /// The guard's cgroup.
    pub cgroup: PathBuf,
}

impl Guard {
    /// Starts guard-run with [`hold`] as its command.
    ///
    /// # Errors
    ///
    /// When it can't be started: what it said.
    pub fn start(mut command: Command, hierarchy: &Path) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let Some(cgroup) = line.trim_end().strip_prefix('/') else {
            let mut said = String::new();
            child.stderr.take().expect("it is piped").read_to_string(&mut said)?;
            child.wait()?;
            anyhow::bail!("{}", said.trim_end());
        };
        Ok(Self { cgroup: hierarchy.join(cgroup), child })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Says in which cgroup this process is, and ends when nobody holds its standard input any more.
///
/// # Errors
///
/// When the kernel doesn't tell.
pub fn hold() -> anyhow::Result<u8> {
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup of version 2")?;
    println!("{own}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(OK)
}
