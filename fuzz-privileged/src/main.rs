//! `guard-fuzz-privileged`: a fuzzer for what of guard-run works with root's rights or file capabilities.
//!
//! `guard-fuzz-privileged [--minutes N] [--seed N] [--programs DIR] [--engine NAME] [--verbose]` runs its engines at the same time,
//! each in mount and pid namespaces of its own, prints what it finds with the smallest known way to it, and exits with 1 then.
//!
//! - `races`: an attacker replaces parts of paths while guard-run and guard-hook look them up ([`races`]);
//! - `bundles`: documents that guard-runtime and the real runtimes could read differently ([`bundles`]);
//! - `states`: what guard-hook is told on its standard input ([`states`]);
//! - `policies`: what guard-run reads as a policy, from root and from an ordinary user ([`policies`]).

mod attacker;
mod bundles;
mod containers;
mod drive;
mod finding;
mod guarded;
mod json;
mod minimise;
mod place;
mod policies;
mod probe;
mod races;
mod random;
mod session;
mod states;
mod sys;
mod world;

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::SignalFd,
        wait::{WaitStatus, wait},
    },
    unistd::{Pid, geteuid},
};

use crate::{
    finding::Finding,
    place::Place,
    session::{Message, Session},
};

type Engine = fn(&mut Session, &Place) -> anyhow::Result<()>;

const ENGINES: [(&str, Engine); 4] =
    [("races", races::fuzz), ("bundles", bundles::fuzz), ("states", states::fuzz), ("policies", policies::fuzz)];

/// The engine that has the most to try, and into how many parts its work may be divided.
const MAIN_ENGINE: &str = "races";
const MOST_PARTS: usize = 4;

/// The first words of this program's arguments when it is the first process of a pid namespace, and an engine in it.
const INIT: &str = "init";
const ENGINE: &str = "engine";

/// What the main process exits with when something was found, when it fails, and when it was interrupted.
const FOUND: u8 = 1;
const FAILED: u8 = 2;
const INTERRUPTED: u8 = 130;

/// How long an engine may take beyond its time: for what it is in the middle of.
const LEEWAY: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [attacker::ROLE] => attacker::serve().map(|()| 0),
        [probe::ROLE, folder] => probe::probe(Path::new(folder)).map(|()| 0),
        _ if is_reader() => bundles::read_as_runtime(&words).map(|()| 0),
        [INIT, ..] => init(&words[1..]),
        [ENGINE, name, fuzzer, part, parts, seed, seconds, programs] => {
            engine(name, fuzzer, (part, parts), seed, seconds, programs).map(|()| 0)
        }
        _ => Options::parse(&words).and_then(|options| fuzz(&options)),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("guard-fuzz-privileged: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Whether guard-runtime has become this program.
fn is_reader() -> bool {
    env::args_os().next().is_some_and(|own| Path::new(&own).ends_with(bundles::READER))
}

/// What is asked for.
struct Options {
    time: Duration,
    seed: u64,
    programs: PathBuf,
    engines: Vec<&'static str>,
    verbose: bool,
}

impl Options {
    fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let folder = env::current_exe()?.parent().context("this program's folder")?.to_owned();
        let mut options = Self {
            time: Duration::from_secs(120),
            seed: u64::from(now.subsec_nanos()) ^ now.as_secs(),
            programs: folder,
            engines: ENGINES.map(|(name, _)| name).to_vec(),
            verbose: false,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match *word {
                "--minutes" => {
                    let minutes: f64 = value()?.parse().context("--minutes")?;
                    options.time = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?;
                }
                "--seed" => options.seed = value()?.parse().context("--seed")?,
                "--programs" => options.programs = fs::canonicalize(value()?).context("--programs")?,
                "--engine" => {
                    let name = value()?;
                    let known = ENGINES.iter().find(|(engine, _)| engine == name);
                    options.engines = vec![known.with_context(|| format!("there is no engine {name}"))?.0];
                }
                "--verbose" => options.verbose = true,
                _ => bail!(
                    "usage: guard-fuzz-privileged [--minutes N] [--seed N] [--programs DIR] [--engine NAME] [--verbose]"
                ),
            }
        }
        for program in ["guard-run", "guard-hook", "guard-runtime"] {
            ensure!(
                options.programs.join(program).exists(),
                "{} has no {program}: build it first",
                options.programs.display()
            );
        }
        Ok(options)
    }
}

/// An engine's process, and what it tells. What it holds open of this process's is its standard input: it ends with that.
struct Worker {
    name: &'static str,
    child: Child,
    messages: BufReader<ChildStdout>,
    done: bool,
}

impl Worker {
    /// What it tells next; none if it has ended.
    fn next(&mut self) -> anyhow::Result<Option<Message>> {
        let mut line = String::new();
        self.messages.read_line(&mut line)?;
        Ok(if line.is_empty() { None } else { Some(serde_json::from_str(&line)?) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // unshare(1) takes the whole namespace with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cgroups go away whatever happens.
struct Cgroups(String);

impl Drop for Cgroups {
    fn drop(&mut self) {
        place::remove(&self.0);
    }
}

fn fuzz(options: &Options) -> anyhow::Result<u8> {
    ensure!(geteuid().is_root(), "needs root: it fuzzes what works with root's rights");
    place::remove_abandoned()?;
    let fuzzer = std::process::id().to_string();
    let cgroups = Cgroups(fuzzer.clone());
    println!("seed {}: {} for {} s", options.seed, options.engines.join(", "), options.time.as_secs());
    let mut workers = Vec::new();
    for name in &options.engines {
        let parts = if *name == MAIN_ENGINE {
            thread::available_parallelism().map_or(1, usize::from).min(MOST_PARTS)
        } else {
            1
        };
        for part in 0..parts {
            workers.push(start(name, (part, parts), &fuzzer, options)?);
        }
    }
    // Only now, so that none of them has these blocked.
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    let signals = SignalFd::new(&signals)?;
    let end = std::time::Instant::now() + options.time + LEEWAY;
    let (mut findings, mut failed) = (0_u32, false);
    while workers.iter().any(|worker| !worker.done) {
        let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let waiting: Vec<usize> = (0..workers.len()).filter(|index| !workers[*index].done).collect();
        polled.extend(
            waiting.iter().map(|index| PollFd::new(workers[*index].messages.get_ref().as_fd(), PollFlags::POLLIN)),
        );
        let left = end.saturating_duration_since(std::time::Instant::now());
        ensure!(!left.is_zero(), "an engine does not end");
        match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let ready: Vec<bool> =
            polled.iter().map(|polled| polled.revents().is_some_and(|events| !events.is_empty())).collect();
        drop(polled);
        if ready[0] {
            drop(workers);
            println!("interrupted");
            return Ok(INTERRUPTED);
        }
        for index in waiting.iter().zip(&ready[1..]).filter(|(_, ready)| **ready).map(|(index, _)| *index) {
            let worker = &mut workers[index];
            let name = worker.name;
            // All that is there already: poll(2) knows nothing of what the reader holds.
            loop {
                match worker.next()? {
                    Some(Message::Note(what)) if options.verbose => println!("{name}: {what}"),
                    Some(Message::Note(_)) => {}
                    Some(Message::Found(finding)) => {
                        findings += 1;
                        print(name, &finding);
                    }
                    Some(Message::Done(attempts)) => {
                        println!("{name}: {attempts} attempts");
                        worker.done = true;
                    }
                    None => {
                        failed = true;
                        worker.done = true;
                        println!("{name}: has failed");
                    }
                }
                if worker.done || worker.messages.buffer().is_empty() {
                    break;
                }
            }
        }
    }
    drop(workers);
    drop(cgroups);
    ensure!(!failed, "an engine has failed; what it had found until then is above");
    if findings == 0 {
        println!("nothing was found");
        return Ok(0);
    }
    println!("{findings} found; repeat it with SEED={}", options.seed);
    Ok(FOUND)
}

fn print(engine: &str, Finding { subject, violation, way, after: (seconds, attempts) }: &Finding) {
    println!("\n{engine}: {} ({seconds:.1} s, attempt {attempts})\n  {subject}", violation.kind);
    for step in way {
        println!("    {step}");
    }
    println!("  {}", violation.what);
}

fn start(name: &'static str, (part, parts): (usize, usize), fuzzer: &str, options: &Options) -> anyhow::Result<Worker> {
    let index = ENGINES.iter().position(|(engine, _)| *engine == name).unwrap_or_default();
    // The others have found what they can before.
    let niceness = if name == MAIN_ENGINE { "0" } else { "5" };
    let mut command = Command::new("nice");
    command.args([
        "-n",
        niceness,
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.arg(env::current_exe()?).args([INIT, name, fuzzer]);
    let seed = options.seed.wrapping_mul(31).wrapping_add((index * MOST_PARTS + part) as u64);
    command.args([part.to_string(), parts.to_string(), seed.to_string(), options.time.as_secs_f64().to_string()]);
    command.arg(&options.programs).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().context("unshare(1)")?;
    let messages = BufReader::new(child.stdout.take().context("a pipe")?);
    Ok(Worker { name, child, messages, done: false })
}

/// The first process of a pid namespace: starts the engine, and waits for what nobody else waits for. All processes end with it.
fn init(words: &[&str]) -> anyhow::Result<u8> {
    let child = Command::new(env::current_exe()?).arg(ENGINE).args(words).spawn()?;
    let engine = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        match wait() {
            Ok(WaitStatus::Exited(process, status)) if process == engine => return Ok(u8::try_from(status)?),
            Ok(WaitStatus::Signaled(process, ..)) if process == engine => bail!("the engine was killed"),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn engine(
    name: &str,
    fuzzer: &str,
    (part, parts): (&str, &str),
    seed: &str,
    seconds: &str,
    programs: &str,
) -> anyhow::Result<()> {
    let place = Place::of(fuzzer, &format!("{name}{part}"))?;
    let (_, engine) = ENGINES.iter().find(|(engine, _)| *engine == name).context("there is no such engine")?;
    place::enter(&place.make("own")?, std::process::id())?;
    let own = env::current_exe()?;
    world::make(Path::new(programs), own.parent().context("this program's folder")?)?;
    let time = Duration::try_from_secs_f64(seconds.parse()?)?;
    let mut session = Session::new((part.parse()?, parts.parse()?), seed.parse()?, time);
    engine(&mut session, &place)?;
    session.done()
}
