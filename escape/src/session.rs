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
    judge,
    manner::{self, Manner, NOBODY},
    outside::{Contact, Outside},
    policy::Policy,
    program::Program,
    sys, unix,
    wire::{self, Hello, ProgramReport, REFUSALS, Refusal, Request},
};

/// How long a worker may take to answer, also where those outside are slow, since the machine is emulated.
const PATIENCE: Duration = Duration::from_secs(120);
/// Kinds of calls that nobody but a guard refuses by `EPERM`.
const OURS: [usize; 4] =
    [Refusal::Connect as usize, Refusal::Bind as usize, Refusal::Set as usize, Refusal::Get as usize];
/// The part of what keeps commands inside that is about abstract names of Unix sockets.
const ABSTRACT: &str = "abstract-sockets";
/// How many threads and processes a program has at the most.
const THREADS: u64 = 8;
/// How long it may take to start: programs are verified meanwhile, perhaps by a machine that is emulated.
const STARTING: Duration = Duration::from_secs(90);

/// What a run of a program led to.
#[derive(Clone, Debug)]
pub struct Run {
    pub report: ProgramReport,
    pub seen: Vec<Seen>,
    pub contacts: Vec<Contact>,
    /// The Unix sockets that the program has reached.
    pub unix: Vec<unix::Name>,
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

    /// Waits until it has started; what it says of itself.
    fn greeting(&mut self) -> Result<Hello> {
        let milliseconds = i32::try_from(STARTING.as_millis()).unwrap_or(i32::MAX);
        if !sys::ready(self.output.as_raw_fd(), libc::POLLIN, milliseconds) {
            bail!("the worker does not start");
        }
        let mut kind = [0];
        if self.output.read(&mut kind).context("reading from the worker")? == 0 || kind[0] != wire::HELLO {
            bail!("the worker does not start");
        }
        Ok(wire::body(&mut self.output)?)
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
                wire::REPORT => break wire::body::<ProgramReport>(&mut self.output)?,
                other => bail!("the worker said {other}"),
            }
        };
        let (seen, contacts, unix) = outside.end();
        Ok(Run { report, seen, contacts, unix })
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
    /// In which manners guarded workers are started, in turn as the sessions' seeds say.
    pub manners: Vec<Manner>,
    /// What policies have to allow because this kernel can't prevent it.
    pub lacking: Vec<String>,
}

/// A policy with its workers.
pub struct Session {
    pub bare: Worker,
    pub guarded: Worker,
    /// Where the log will be.
    log: PathBuf,
    /// The programs that an earlier run has kept, where guard-run is to take such.
    kept: Option<Vec<u64>>,
    /// What the guarded programs saw of refusals.
    pub tally: Tally,
}

/// How many refusals the log must have at least and at most, by kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub least: [u64; REFUSALS],
    pub most: [u64; REFUSALS],
    /// Whether guard-run has taken the programs that were kept, where it was to. It does not while the kernel has not cleared the earlier
    /// run's cgroup away.
    pub reused: Option<bool>,
    /// How many times at least and at most programs have listened at ports that are denied.
    pub listened: (u64, u64),
    /// How many datagrams from outside did not come in although nothing else was different.
    pub missing: u64,
}

impl Tally {
    /// Adds a guarded run's of this program, and what was refused without a guard in that.
    pub fn add(&mut self, policy: &Policy, program: &Program, guarded: &Run, bare: Option<&Run>) {
        let (least, most) = judge::listened(policy, program, guarded);
        self.listened.0 += if guarded.report.finished { least } else { 0 };
        self.listened.1 += most + if guarded.report.finished { 0 } else { THREADS };
        if let Some(bare) = bare.filter(|bare| bare.report.went_like(&guarded.report)) {
            let datagrams = |run: &Run| run.report.received.iter().filter(|one| one.from.is_some()).count();
            self.missing += datagrams(bare).saturating_sub(datagrams(guarded)) as u64;
        }
        let (guarded, bare) = (&guarded.report, bare.map(|bare| &bare.report).filter(|bare| bare.finished));
        // What was killed may have been refused something that it could not note any more.
        let unnoted = if guarded.finished { 0 } else { THREADS };
        for kind in 0..REFUSALS {
            // What the kernel itself refuses for this reason, only a bare run tells; a program that races has none.
            let natural = if OURS.contains(&kind) { Some(0) } else { bare.map(|bare| bare.refused[kind]) };
            let surely = natural.map_or(0, |natural| guarded.refused[kind].saturating_sub(natural));
            self.least[kind] += if guarded.finished { surely } else { 0 };
            self.most[kind] += guarded.refused[kind] + unnoted;
        }
    }
}

impl Session {
    /// Starts the workers under this policy in this manner, as root or as nobody, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// When guard-run does not start.
    pub fn start(place: &Place, name: &str, policy: &Policy, manner: Manner, as_nobody: bool) -> Result<Self> {
        let path = |kind: &str| place.folder.join(format!("{name}.{kind}"));
        let own = path("log");
        fs::create_dir_all(&own)?;
        let (file, log) = (path("policy.json"), own.join("log.json"));
        let mut json = policy.json();
        if manner != Manner::Container {
            // Landlock would refuse abstract names before a rule is asked.
            let names = policy.unix.map(|_| String::from(ABSTRACT)).filter(|part| !place.lacking.contains(part));
            let allow: Vec<String> = place.lacking.iter().cloned().chain(names).collect();
            if !allow.is_empty() {
                json["process"]["allow"] = allow.into();
            }
        }
        fs::write(&file, serde_json::to_string_pretty(&json)?)?;
        let guarded = manner::guarded(manner, place, policy, as_nobody, [&file, &log])?;
        let kept = if manner == Manner::Kept { Some(programs(&read(&log)?)) } else { None };
        let mut guarded = Worker::start(guarded, &path("errors"))?;
        let Hello { capabilities } = guarded.greeting()?;
        let raw = capabilities & caps::Capability::CAP_NET_RAW.bitmask() != 0;
        if raw != (policy.raw && manner.has_capabilities() && !as_nobody) {
            bail!("the command has capabilities {capabilities:#x}, and the policy is {json}");
        }
        let mut bare = Command::new(&place.worker);
        bare.args(["worker", "--bare", "--capabilities", &capabilities.to_string()]);
        if as_nobody || manner == Manner::User {
            bare.args(["--user", &NOBODY.to_string()]);
        }
        let mut bare = Worker::start(bare, &path("bare.errors"))?;
        bare.greeting().context("the one without a guard")?;
        Ok(Self { bare, guarded, log, kept, tally: Tally::default() })
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
        let log = read(&self.log)?;
        self.tally.reused = self.kept.map(|kept| kept == programs(&log));
        Ok((self.tally, log))
    }
}

fn read(log: &Path) -> Result<Value> {
    let text = fs::read_to_string(log).map_err(|error| anyhow!("{}: {error}", log.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// The numbers of the programs that a log names, by which the kernel tells them apart.
fn programs(log: &Value) -> Vec<u64> {
    let hooks = log["enforced"]["hooks"].as_array().into_iter().flatten();
    hooks.filter_map(|hook| hook["program_id"].as_u64()).collect()
}
