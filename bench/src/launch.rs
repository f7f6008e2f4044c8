//! How long it takes to run a command that does nothing.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use serde::Deserialize;

use crate::{
    policies,
    report::{Figure, Goal},
    setup::Setup,
    stats::{median, ratio},
};

const ROUNDS: usize = 10;
const RUNS_PER_ROUND: &str = "15";

/// Where guard-run's logs go by default, which is part of what is measured.
const LOG_FOLDER: &str = "/var/log/guard-run";

/// What hyperfine exports.
#[derive(Deserialize)]
struct Export {
    results: Vec<Timing>,
}

#[derive(Deserialize)]
struct Timing {
    /// Seconds.
    median: f64,
}

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let _kept = BpfFs::mount().context("mounting a bpf file system")?;
    let logs = Logs::new();
    // The command ignores its argument; the log does not.
    let command = format!("/usr/bin/true {}", logs.tag);
    let run = |flags: &str, policy: &Path| {
        format!("'{}' {flags} --policy '{}' -- {command}", setup.guard_run.display(), policy.display())
    };
    let guard = |policy: &Path| run("", policy);
    // As the first run under a policy is since the system was started.
    let fresh = |policy: &Path| run("--fresh", policy);
    let every_hook = policies::every_hook(setup)?;
    let sides = [
        ("true", command.clone()),
        ("guard-run --policy examples/tutorial.json -- true", guard(&setup.tutorial)),
        ("guard-run with nothing but what keeps commands inside -- true", guard(&policies::hardening_alone(setup)?)),
        ("guard-run with a rule at every hook -- true", guard(&every_hook)),
        ("guard-run --policy examples/everything-allowed.json -- true", guard(&setup.everything_allowed)),
        ("guard-run --fresh --policy examples/tutorial.json -- true", fresh(&setup.tutorial)),
        ("guard-run --fresh with a rule at every hook -- true", fresh(&every_hook)),
        ("unshare -n true", format!("unshare -n {command}")),
        ("bwrap --dev-bind / / --unshare-net true", format!("bwrap --dev-bind / / --unshare-net {command}")),
        ("bwrap --unshare-all --dev-bind / / true", format!("bwrap --unshare-all --dev-bind / / {command}")),
        ("firejail --quiet --noprofile true", format!("firejail --quiet --noprofile {command}")),
    ];
    let mut times = vec![Vec::new(); sides.len()];
    for _ in 0..ROUNDS {
        let commands = sides.iter().map(|(_, command)| command);
        for (side, timing) in times.iter_mut().zip(hyperfine(setup, commands)?) {
            side.push(timing.median * 1e3);
        }
    }
    let mut figures: Vec<Figure> =
        sides.iter().zip(&times).map(|((name, _), times)| Figure::new(*name, median(times), "ms")).collect();
    let [_, guard, inside, every_hook, everything, fresh, every_fresh, unshare, bwrap, bwrap_all, firejail] =
        &times[..]
    else {
        unreachable!("one for each side")
    };
    figures.extend([
        Figure::new("guard-run / bwrap --unshare-net", ratio(guard, bwrap), "").with_goal(Goal::AtMost(1.0)),
        Figure::new("a rule at every hook / bwrap --unshare-net", ratio(every_hook, bwrap), "")
            .with_goal(Goal::AtMost(1.5)),
        Figure::new("everything-allowed.json / bwrap --unshare-net", ratio(everything, bwrap), "")
            .with_goal(Goal::AtMost(1.5)),
        Figure::new("guard-run --fresh / bwrap --unshare-net", ratio(fresh, bwrap), ""),
        Figure::new("--fresh, a rule at every hook / bwrap --unshare-net", ratio(every_fresh, bwrap), ""),
        Figure::new("guard-run / unshare -n", ratio(guard, unshare), ""),
        Figure::new("what keeps commands inside / bwrap --unshare-all", ratio(inside, bwrap_all), "")
            .with_goal(Goal::AtMost(1.0)),
        Figure::new("guard-run / bwrap --unshare-all", ratio(guard, bwrap_all), "").with_goal(Goal::AtMost(1.0)),
        Figure::new("guard-run / firejail", ratio(guard, firejail), ""),
    ]);
    Ok(figures)
}

/// One round of all commands.
fn hyperfine(setup: &Setup, commands: impl Iterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<Vec<Timing>> {
    let export = setup.scratch.path().join("hyperfine.json");
    let mut hyperfine = Command::new("hyperfine");
    hyperfine.args(["-N", "--style", "none", "--warmup", "2", "--runs", RUNS_PER_ROUND, "--export-json"]);
    // Its advice on outliers is about the means, which are not used.
    hyperfine.arg(&export).args(commands).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = hyperfine.output().context("hyperfine (make bench installs it)")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let export: Export = serde_json::from_slice(&fs::read(&export)?)?;
    Ok(export.results)
}

/// A bpf file system where nearly every system has one, which only this process and those that it starts see. What is kept
/// there goes away with this value.
struct BpfFs;

impl BpfFs {
    const MOUNT: &str = "/sys/fs/bpf";

    fn mount() -> nix::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        mount(Some("bpf"), Self::MOUNT, Some("bpf"), MsFlags::empty(), Some("mode=700"))?;
        Ok(Self)
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = umount2(Self::MOUNT, MntFlags::MNT_DETACH);
    }
}

/// The logs of this bench's runs, known by an argument of their commands; removed with this value.
struct Logs {
    tag: String,
}

impl Logs {
    fn new() -> Self {
        Self { tag: format!("guard-bench-{}", std::process::id()) }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        for entry in fs::read_dir(LOG_FOLDER).into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path()).is_ok_and(|log| log.contains(&self.tag)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
