//! A side of a comparison: a worker that measures itself, in some cgroup.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};

use crate::{
    cgroup::Leaf,
    setup::Setup,
    worker::{Task, WORKER},
};

/// A worker, which ends with this value.
pub struct Side {
    process: Child,
    tasks: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Side {
    /// A worker in the bench's own cgroup.
    pub fn bare(setup: &Setup) -> anyhow::Result<Self> {
        Self::start(Command::new(&setup.own).arg(WORKER))
    }

    /// A worker in a cgroup that no program is attached to.
    pub fn neighbour(setup: &Setup, leaf: &Leaf) -> anyhow::Result<Self> {
        let side = Self::bare(setup)?;
        leaf.enter(side.process.id())?;
        Ok(side)
    }

    /// A worker under a policy, of which nothing is kept: "bare" is without any program of the kind in the kernel.
    pub fn guarded(setup: &Setup, policy: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(&setup.guard_run);
        command.args(["--quiet", "--fresh", "--log"]).arg(setup.scratch.path().join("side.json"));
        Self::start(command.arg("--policy").arg(policy).arg("--").arg(&setup.own).arg(WORKER))
    }

    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("{command:?}"))?;
        let tasks = process.stdin.take();
        let replies = BufReader::new(process.stdout.take().expect("it is piped"));
        Ok(Self { process, tasks, replies })
    }

    /// The process id of the worker, or of its guard-run.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Nanoseconds per operation.
    pub fn measure(&mut self, task: &Task) -> anyhow::Result<f64> {
        let mut tasks = self.tasks.as_ref().expect("it is there until the end");
        writeln!(tasks, "{}", serde_json::to_string(task)?)?;
        let mut reply = String::new();
        self.replies.read_line(&mut reply)?;
        let reply: Result<f64, String> = serde_json::from_str(&reply).context("a worker ended too early")?;
        reply.map_err(|error| anyhow!("{:?}: {error}", task.operation))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // The end of its input ends the worker.
        self.tasks = None;
        for _ in 0..2000 {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
