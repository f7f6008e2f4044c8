//! One policy: a worker under guard-run, one without, and what guard-run's log says in the end.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::{
    capture::Seen,
    outside::{Contact, Outside},
    policy::Policy,
    program::Program,
    sys,
    wire::{self, REFUSALS, Report, Request},
};

/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// nobody's number, as whom some workers run.
const NOBODY: u32 = 65534;

/// What a run of a program led to.
#[derive(Clone, Debug)]
pub struct Run {
    pub report: Report,
    pub seen: Vec<Seen>,
    pub contacts: Vec<Contact>,
}

/// A worker.
pub struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Worker {
    fn start(mut command: Command, errors: &Path) -> Result<Self> {
        let errors = File::create(errors)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        // Out of the reach of the terminal's signals: it ends when its input does.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| command.get_program().to_string_lossy().into_owned())?;
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("piped"));
        Ok(Self { child, input, output })
    }

    /// Runs a program, and sees to what it asks those outside for.
    ///
    /// # Errors
    ///
    /// When the worker has ended, or doesn't answer.
    pub fn run(&mut self, program: &Program, outside: &mut Outside) -> Result<Run> {
        outside.begin(program.token);
        let input = self.input.as_mut().expect("open until the end");
        input.write_all(&wire::frame(wire::PROGRAM, program)).context("the worker is gone")?;
        let end = Instant::now() + PATIENCE;
        let report = loop {
            if Instant::now() > end {
                bail!("the worker does not answer");
            }
            let mut all = outside.descriptors();
            all.insert(0, self.output.as_raw_fd());
            let ready = sys::readable(&all, 100);
            if ready.iter().any(|place| *place != 0) {
                outside.serve();
            }
            if !ready.contains(&0) {
                continue;
            }
            let mut kind = [0];
            if self.output.read(&mut kind).context("reading from the worker")? == 0 {
                bail!("the worker has ended");
            }
            match kind[0] {
                wire::ASK => {
                    outside.fulfil(&wire::body::<Request>(&mut self.output)?);
                    input.write_all(&[wire::DONE]).context("the worker is gone")?;
                }
                wire::REPORT => break wire::body::<Report>(&mut self.output)?,
                other => bail!("the worker said {other}"),
            }
        };
        let (seen, contacts) = outside.end();
        Ok(Run { report, seen, contacts })
    }

    /// Ends it, and waits until it has ended.
    fn end(&mut self) -> Result<()> {
        drop(self.input.take());
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                bail!("the worker does not end");
            }
            // Nothing tells of a child's end but a signal or a descriptor of it.
            if let Ok(waiter) = sys::pidfd(self.child.id().cast_signed()) {
                sys::ready(waiter, libc::POLLIN, 1000);
                let _ = sys::close(waiter);
            }
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.end().is_err() {
            let _ = (self.child.kill(), self.child.wait());
        }
    }
}

/// What is the same for all sessions.
#[derive(Clone)]
pub struct Place {
    /// The guard-run to be tried.
    pub guard_run: PathBuf,
    /// This program, where everybody may execute it.
    pub worker: PathBuf,
    /// A folder for policies and logs.
    pub folder: PathBuf,
}

/// A policy with its workers.
pub struct Session {
    pub bare: Worker,
    pub guarded: Worker,
    /// Where the log will be.
    log: PathBuf,
    /// What the guarded programs saw of refusals.
    pub tally: Tally,
}

/// How many refusals the log must have at least and at most, by kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub least: [u64; REFUSALS],
    pub most: [u64; REFUSALS],
    /// Whether all programs came to their end.
    pub inexact: bool,
}

impl Tally {
    /// Adds a guarded run's, and what was refused without a guard in that.
    pub fn add(&mut self, guarded: &Report, bare: Option<&Report>) {
        for kind in 0..REFUSALS {
            let natural = bare.map_or(guarded.refused[kind], |bare| bare.refused[kind]);
            let surely = guarded.refused[kind].saturating_sub(natural);
            self.least[kind] += if bare.is_some() { surely } else { 0 };
            self.most[kind] += guarded.refused[kind];
        }
        self.inexact |= !guarded.finished;
    }
}

impl Session {
    /// Starts the workers under this policy, as root or as nobody, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// When guard-run does not start.
    pub fn start(place: &Place, name: &str, policy: &Policy, as_nobody: bool) -> Result<Self> {
        let path = |kind: &str| place.folder.join(format!("{name}.{kind}"));
        fs::write(path("policy.json"), serde_json::to_string_pretty(&policy.json())?)?;
        let log = path("log.json");
        let mut guarded = Command::new(&place.guard_run);
        guarded.args(["--quiet", "--fresh", "--policy"]).arg(path("policy.json")).arg("--log").arg(&log);
        if as_nobody {
            guarded.args(["--user", &NOBODY.to_string()]);
        }
        guarded.arg("--").arg(&place.worker).arg("worker");
        let mut bare = Command::new(&place.worker);
        bare.args(["worker", "--bare"]);
        if policy.raw {
            bare.arg("--raw");
        }
        if as_nobody {
            bare.args(["--user", &NOBODY.to_string()]);
        }
        let guarded = Worker::start(guarded, &path("errors"))?;
        let bare = Worker::start(bare, &path("bare.errors"))?;
        Ok(Self { bare, guarded, log, tally: Tally::default() })
    }

    /// What guard-run has said, when it has not started.
    pub fn complaint(place: &Place, name: &str) -> String {
        fs::read_to_string(place.folder.join(format!("{name}.errors"))).unwrap_or_default().trim().to_owned()
    }

    /// Ends the workers, and reads the log.
    ///
    /// # Errors
    ///
    /// When they don't end, or there is no log.
    pub fn end(mut self) -> Result<(Tally, Value)> {
        self.guarded.end()?;
        self.bare.end()?;
        let text = fs::read_to_string(&self.log).map_err(|error| anyhow!("{}: {error}", self.log.display()))?;
        Ok((self.tally, serde_json::from_str(&text)?))
    }
}
