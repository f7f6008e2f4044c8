//! `guard-run learn`: runs a command with everything recorded and nothing denied, and writes the policy that it would have needed.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use advice::{Judge, Learner, Learnt, Side, UnixSockets, compare, trial};
use anyhow::Context as _;
use caps::Capability;
use enforce::{
    exit,
    machine::ThisMachine,
    outlet::tell,
    privilege::{self, Rights},
    target,
};
use nix::sys::signal::Signal;
use policy::{Document, Policy, Resolved, compile::Tables};
use report::text::OneLine;

use crate::{
    chosen::{Compiled, changeable, choose, creatable, parse_named},
    harden::{Unmet, missing_here, restricts_log, unmet},
    records::records,
    run::{Options, run},
    supervise::Wait,
};

/// The file that is written unless another one is named, in the working folder.
const DEFAULT: &str = "learnt.json";

/// What to learn from, and where to write it.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// The file that is written; `-` is standard output. `None` is the policy that is added to.
    pub output: Option<PathBuf>,
    /// The policy to add to, rather than to write a new one.
    pub update: Option<OsString>,
    /// How often the command is run.
    pub runs: u32,
    /// The command with its arguments.
    pub command: Vec<OsString>,
}

/// Runs the command, writes the policy, and returns the exit status of the last run.
///
/// # Errors
///
/// When the command can't be run, or the policy can't be written.
pub fn learn(lesson: &Lesson, rights: Rights) -> anyhow::Result<u8> {
    // The policy is known to be good, and what is written to be writable, before the command runs.
    let update = lesson.update.as_ref().map(|word| choose(Some(word))?.compile()).transpose()?;
    let base = update.as_ref().map(|update| update.document.path().to_owned());
    let output = lesson.output.as_deref().or(base.as_deref()).unwrap_or(Path::new(DEFAULT));
    let replaces = base.as_deref() == Some(output);
    if replaces {
        changeable(output)?;
    } else if output != Path::new("-") {
        anyhow::ensure!(
            output.symlink_metadata().is_err(),
            "{}: it is there already; remove it, name another file, or add to it: --update",
            output.display()
        );
        creatable(output)?;
    }
    anyhow::ensure!(
        lesson.runs == 1 || privilege::is_root(),
        "--runs: an ordinary user's guard-run has the rights for one run; learn from several, one after the other"
    );
    let folder = tempfile::tempdir().context("a folder for the log")?;
    let policy = folder.path().join("trial.json");
    let unix = write_trial(&policy)?;
    let logs: Vec<PathBuf> = (0..lesson.runs).map(|number| folder.path().join(format!("log{number}.json"))).collect();
    let statuses = run_all(lesson, &policy, &logs, rights)?;
    // The run has taken its rights with it. What is left to do, a user names.
    privilege::begin()?.keep(&[])?;
    let mut learner = Learner::default();
    let heads = match &update {
        None => records(&logs, &mut |record| learner.add(&record))?,
        Some(Compiled { tables, .. }) => {
            let mut judge = Judge::new(tables);
            records(&logs, &mut |record| learner.add_to(&mut judge, &record))?
        }
    };
    learner.lost(heads.iter().map(|head| head.lost).sum());
    learner.flows_lost(heads.iter().map(|head| head.flows_lost).sum());
    let written = |learner: &Learner| match &update {
        None => {
            let command: Vec<String> = lesson.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            anyhow::Ok(learner.policy(&command, unix, &addresses))
        }
        Some(Compiled { document, .. }) => {
            let path = document.path();
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Ok(learner.update(&text, unix, &addresses))
        }
    };
    // What is written is a policy.
    let parsed = |learnt: &Learnt| -> anyhow::Result<Resolved> {
        let document = Document::new(base.as_deref().unwrap_or(output), learnt.text.clone().into_bytes());
        Ok(parse_named(&document)?.resolve(&document, &ThisMachine)?)
    };
    let mut learnt = written(&learner)?;
    let mut updated = parsed(&learnt)?;
    let known = update.as_ref().map_or_else(Vec::new, |update| unmet(&update.policy));
    let wanting = wanting(&updated, &known);
    if !wanting.is_empty() {
        for (capability, place) in &wanting {
            learner.needs(&capability.to_string(), place);
        }
        learnt = written(&learner)?;
        updated = parsed(&learnt)?;
    }
    let others = Tables::compile(&updated)?;
    match write(output, replaces, &learnt) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(exit::UNREAD),
        written => written.with_context(|| output.display().to_string())?,
    }
    tell(&format!("wrote {}: {}", OneLine(output.display()), learnt.summary));
    for note in &learnt.notes {
        tell(note);
    }
    for left_out in &learnt.left_out {
        tell(&format!("left out: {left_out}"));
    }
    if let Some(Compiled { policy, tables, .. }) = &update {
        let comparison = compare(Side { policy, tables }, Side { policy: &updated, tables: &others })?;
        comparison
            .wider
            .iter()
            .for_each(|difference| tell(&format!("added: {}; e.g. {}", difference.extent, difference.example)));
    }
    if let Some(failed) = statuses.iter().find(|status| **status != exit::OK) {
        let again = if output == Path::new("-") { "FILE".to_owned() } else { OneLine(output.display()).to_string() };
        tell(&format!(
            "the command {}, so what it would have done after that is not in the policy; once it goes on: guard-run learn --update {again} \
             -- COMMAND",
            ending(*failed)
        ));
    }
    statuses.last().copied().context("--runs: at least one")
}

/// Runs the command under a policy, once for each of these logs. Returns the exit statuses.
fn run_all(lesson: &Lesson, policy: &Path, logs: &[PathBuf], rights: Rights) -> anyhow::Result<Vec<u8>> {
    let (last, others) = logs.split_last().context("--runs: at least one")?;
    let mut statuses = Vec::new();
    for log in others {
        let program = std::env::current_exe().context("guard-run's own file")?;
        let mut again = Command::new(program);
        again.arg("--policy").arg(policy).arg("--log").arg(log).arg("--quiet").arg("--").args(&lesson.command);
        let status = again.status().context("guard-run's own file")?;
        statuses.push(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILURE));
    }
    let options = Options {
        policy: Some(policy.into()),
        command: lesson.command.clone(),
        log: Some(last.clone()),
        events: None,
        flows: false,
        preserve_fds: 0,
        fresh: false,
        user: None,
        wait: Wait::default(),
        fail_on_deny: None,
        diagnose: false,
        verbosity: -1,
    };
    statuses.push(run(&options, rights)?);
    Ok(statuses)
}

/// The capabilities without which root's command can't do what rules allow that were learnt, and the places of these rules. `known` was allowed
/// in vain before.
fn wanting(policy: &Policy, known: &[Unmet]) -> Vec<(Capability, String)> {
    if !privilege::is_root() {
        return Vec::new();
    }
    let is_needed = |capability: &Capability| *capability != Capability::CAP_SYSLOG || restricts_log();
    let learnt = unmet(policy).into_iter().filter(|unmet| !known.contains(unmet));
    learnt.filter_map(|unmet| Some((unmet.capability.filter(is_needed)?, unmet.place))).collect()
}

/// Writes the policy under which the command is run: with as much of what can be told apart as this machine can enforce. Returns
/// what it tells of Unix sockets.
fn write_trial(path: &Path) -> anyhow::Result<UnixSockets> {
    let mut refused = None;
    let unix = [UnixSockets::ByPath, UnixSockets::Any, UnixSockets::Unseen];
    // Without a nameserver, there are no names.
    for (names, unix) in [true, false].into_iter().flat_map(|names| unix.map(|unix| (names, unix))) {
        fs::write(path, trial(names, unix)).with_context(|| path.display().to_string())?;
        match choose(Some(path.as_os_str()))?.compile() {
            Ok(compiled) if missing_here(&compiled.policy, &compiled.tables).is_none() => return Ok(unix),
            Ok(_) => {}
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| anyhow::anyhow!("this machine can't enforce any policy")))
}

/// The addresses that a name has now: as the command's resolver would say, since a static program can't use its modules itself.
fn addresses(name: &str) -> Vec<IpAddr> {
    let found = Command::new("/usr/bin/getent").args(["ahosts", "--", name]).output();
    let text = found.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let mut addresses: Vec<IpAddr> =
        text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// How a command ended that did not succeed, by guard-run's exit status.
fn ending(status: u8) -> String {
    let signal = status.checked_sub(exit::SIGNALED).and_then(|number| Signal::try_from(i32::from(number)).ok());
    signal.map_or_else(|| format!("exited with {status}"), |signal| format!("was ended by {signal}"))
}

/// Writes the policy: to a new file, or in place of the one that was there, whole or not at all.
fn write(path: &Path, replaces: bool, learnt: &Learnt) -> io::Result<()> {
    let text = learnt.text.as_bytes();
    if path == Path::new("-") {
        io::stdout().write_all(text).and_then(|()| io::stdout().flush())
    } else if replaces {
        target::replace(path, text)
    } else {
        target::create(path, text)
    }
}
