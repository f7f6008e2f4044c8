//! What every section needs: the programs, the folders and the processors.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use tempfile::TempDir;

/// Where things are.
pub struct Setup {
    /// The program that is measured: the one that was built together with this one.
    pub guard_run: PathBuf,
    /// This program, which is its own worker.
    pub own: PathBuf,
    /// The policy of the tutorial.
    pub tutorial: PathBuf,
    /// The policy that loads every hook and allows all that anybody does.
    pub everything_allowed: PathBuf,
    /// Where the table goes as JSON.
    pub results: PathBuf,
    /// For policies and logs; removed at the end.
    pub scratch: TempDir,
}

impl Setup {
    pub fn new() -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let guard_run = own.with_file_name("guard-run");
        ensure!(guard_run.exists(), "{} is not there; build it first", guard_run.display());
        // "Bare" is without any program of guard-run's in the kernel, so what earlier runs have kept there must go.
        let gc = Command::new(&guard_run).arg("gc").output().context("guard-run gc")?;
        ensure!(gc.status.success(), "guard-run gc: {}", String::from_utf8_lossy(&gc.stderr));
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("bench is in a workspace")?;
        Ok(Self {
            guard_run,
            own,
            tutorial: workspace.join("examples/tutorial.json"),
            everything_allowed: workspace.join("examples/everything-allowed.json"),
            results: workspace.join("target/bench/results.json"),
            scratch: tempfile::tempdir()?,
        })
    }
}

/// Ties the calling thread to the last of its processors, which is the workers' own.
pub fn pin_worker() -> nix::Result<()> {
    pin(<[usize]>::last)
}

/// Ties the calling thread to the first of its processors, away from the workers where there are two.
pub fn pin_peer() -> nix::Result<()> {
    pin(<[usize]>::first)
}

fn pin(choose: impl FnOnce(&[usize]) -> Option<&usize>) -> nix::Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let usable: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    let mut chosen = CpuSet::new();
    chosen.set(*choose(&usable).expect("a thread has a processor"))?;
    sched_setaffinity(this, &chosen)
}
