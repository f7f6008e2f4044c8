//! A guarded run, from top to bottom: this is the security argument.

use std::{
    cell::LazyCell,
    ffi::OsString,
    io,
    path::{Path, PathBuf, absolute},
    rc::Rc,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use advice::{Denials, Guard, Head, Record, Widen};
use anyhow::Context as _;
use enforce::{
    attach::Attached,
    cgroup::{Hierarchy, Leaf},
    exit,
    journal::{Journal, clock, open},
    live::Live,
    load::{Flows, Loaded, Records},
    machine::ThisMachine,
    mounts::{MOUNTINFO, Mount},
    outlet::{Outlet, tell},
    patience::Patience,
    privilege::{self, Operation, Rights},
    signals::Signals,
    sys::process::{Change, wake_soon},
    target::Found,
};
use jiff::Timestamp;
use nix::{
    sys::{prctl, utsname::uname},
    unistd::{getegid, geteuid},
};
use policy::{Architecture, Mode, Recording};
use report::{
    CommandMeasures, CommandRun, Enforced, Event, Exit, HookCounts, InForce, IncludedFile, Log, Observed, PolicySource,
    SCHEMA, User,
};

use crate::{
    child::Held,
    chosen::{Compiled, choose},
    command::Command,
    destination::Destination,
    harden::{Hardening, Remedy, nested},
    inherited::inherited,
    inside::{DenialsFile, LazyGuard, Unseen, VARIABLE},
    supervise::{Wait, supervise},
    user::{Identity, local_name},
};

/// How long to wait for connections to end after their processes: longer than most round trips.
const SETTLING: Duration = Duration::from_millis(200);

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policy: its file or its name; `None` is the one for commands without.
    pub policy: Option<OsString>,
    /// The command with its arguments.
    pub command: Vec<OsString>,
    /// Where the log goes; `-` is standard error.
    pub log: Option<PathBuf>,
    /// Where events go as JSON lines.
    pub events: Option<PathBuf>,
    /// Whether to record what the command reaches, whatever the policy says.
    pub flows: bool,
    /// How many descriptors beside the standard streams the command gets: 3 and those after it.
    pub preserve_fds: u16,
    /// Whether to ignore the programs that an earlier run has kept.
    pub fresh: bool,
    /// Whom to run the command as.
    pub user: Option<Identity>,
    /// What to wait for.
    pub wait: Wait,
    /// The exit status of a run in which the command succeeded but something was denied.
    pub fail_on_deny: Option<u8>,
    /// Whether to record what is refused by what keeps the command inside, too.
    pub diagnose: bool,
    /// How much to say on standard error: less than 0 for nothing, more for more.
    pub verbosity: i8,
}

/// Runs a command under a policy and returns the exit status to end with.
///
/// # Errors
///
/// When anything fails before the command runs, or its end can't be recorded. The command never runs unguarded.
pub fn run(options: &Options, mut rights: Rights) -> anyhow::Result<u8> {
    let inherited = inherited();
    // Nobody of the same user may look into this process, or trace it.
    prctl::set_dumpable(false).context("prctl")?;
    // Nothing has been created before the policy and the command are known to be good.
    let mut chosen = choose(options.policy.as_deref())?;
    if options.flows {
        chosen.policy.record = Recording::Flows;
    }
    let Compiled { policy, mut tables, document, was_found } = chosen.compile()?;
    privilege::require()?;
    let mut command = Command::find(&options.command, options.user.clone(), &mut rights)?;
    anyhow::ensure!(
        privilege::is_root() || options.user.as_ref().is_none_or(Identity::is_own),
        "--user: only root can run a command as somebody else, or with other groups"
    );
    let mounts = Mount::all().context(MOUNTINFO)?;
    let patience = Patience::with(&mounts);
    let hierarchy = Hierarchy::find_among(&mounts)?;
    nested::check(&mounts, &hierarchy.mount)?;
    let hardening = Hardening::new(&policy, &mut tables, options.preserve_fds, mounts, options.diagnose)?;
    if options.fail_on_deny.is_some() {
        hardening.can_report()?;
    }
    let handed = hardening.accepts(&inherited)?;
    // What the command is told of its denials. It may be missing: nothing that is enforced depends on it.
    let unseen = hardening.free_folder().and_then(|place| Unseen::new(place, &mut rights));
    if let Some(unseen) = &unseen {
        command.set(VARIABLE, unseen.path().as_os_str())?;
    }
    let signals = Signals::hold().context("signals")?;
    let mut leaf = Leaf::create(&hierarchy, rights)?;
    // The command's process is born in the leaf, and does what keeps it there while the kernel verifies the programs: both take
    // their time. It is not the command until it is let go.
    let held = Held::new(&mut leaf, &command, (&hardening, unseen.as_ref()), signals.before())?;
    let loaded =
        if options.fresh { Loaded::new(&tables, leaf.rights())? } else { Loaded::cached_or_new(&tables, &mut leaf)? };
    let started = Timestamp::now();
    let given = options.log.clone();
    // Nothing here is waited for once a signal asks guard-run to end.
    let log = patience.ask(None, move || Destination::open(given.as_deref(), started)).flatten();
    let mut log = log.with_context(|| match &options.log {
        Some(path) => format!("can't write the log {}", path.display()),
        None => "can't write a log in a folder for logs; say where: --log FILE".to_owned(),
    })?;
    let live = options.events.as_deref().map(|path| open_events(path, &log, patience)).transpose()?;
    let mut attached = Attached::new(loaded, leaf)?;
    // All programs are attached before there is a command.
    let child = held.release(&attached, &command)?;
    // From here on the leaf owns the guard: it holds whatever becomes of this process. All that is left to do is to remove
    // the leaf.
    attached.leaf.rights().keep(&[Operation::Leaf])?;
    let hosts = tables.names().map(|names| names.hosts.clone());
    wake_soon();
    let mut journal = Journal::new(clock()?, policy.mode.into(), policy.reasons(), hosts, live, patience);
    // What takes time to find out is found out while the command runs.
    let mut report = Log {
        schema: SCHEMA,
        guarded: CommandRun {
            command: options.command.iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
            user: user(options.user.as_ref()),
            exit: Exit::default(),
        },
        started,
        ended: started,
        policy: PolicySource {
            path: absolute(document.path()).unwrap_or_else(|_| document.path().to_owned()),
            sha256: document.sha256(),
            included: IncludedFile::all_of(&policy),
            mode: policy.mode,
        },
        enforced: Enforced {
            kernel: uname()?.release().to_string_lossy().into_owned(),
            cgroup: attached.leaf.path().to_owned(),
            hooks: Vec::new(),
            unrestricted: tables.unrestricted().into_iter().map(ToOwned::to_owned).collect(),
            measures: CommandMeasures {
                hardening: hardening.report(child.view.covered(), child.view.crowded()),
                inherited: inherited.into_iter().filter(|inherited| hardening.hands_on(inherited.fd)).collect(),
            },
        },
        lost: 0,
        events: Vec::new(),
        flows: None,
        flows_lost: None,
    };
    let mode = policy.mode;
    let guard: LazyGuard = Rc::new(LazyCell::new(Box::new(move || Guard::of(document, policy, tables))));
    let mut denials = unseen.map(|unseen| DenialsFile::new(unseen, Rc::clone(&guard), head_of(&report)));
    if denials.is_some() {
        journal = DenialsFile::kept_by(journal);
    }
    if let Some(cache) = &mut attached.cache {
        // If it can't be kept, the next run takes as long as this one.
        let _ = cache.keep(&attached.programs);
    }
    let watched = (&mut journal, denials.as_mut());
    let outcome = supervise(&mut attached, &child, &signals, watched, options.wait, options.verbosity < 0)?;
    // Nobody is left in the leaf, so the counts are final.
    report.guarded.exit = exit_of(outcome.end, outcome.killed);
    let observed = (hardening.observes() && child.attendant.is_some()).then(|| journal.observed());
    complete(&mut report, &mut attached, &mut journal, observed, mode)?;
    report.events = finish(journal, attached.records.as_mut(), options.events.as_deref())?;
    if let Some(refused) = handed.filter(|_| options.verbosity >= 0) {
        tell(&format!("enforced, this would not have run: {refused}"));
    }
    let news = |log: &Destination| news(&guard, &report, log);
    let status = conclude(options, (&mut log, patience), &report, (was_found, news))?;
    // Last, since the kernel has more to do after it than before.
    if let Err(error) = attached.leaf.remove() {
        tell(&format!("can't remove the cgroup: {:#}; `guard-run gc` will try again", anyhow::Error::from(error)));
    }
    Ok(status)
}

/// What advice wants to know of a log beside its events.
fn head_of(report: &Log<CommandRun>) -> Head {
    let hardening = Some(report.enforced.measures.hardening.clone());
    Head { policy: Some(report.policy.clone()), hardening, ..Head::default() }
}

/// Adds what is known once the command has ended, but for the events.
fn complete(
    report: &mut Log<CommandRun>,
    attached: &mut Attached,
    journal: &mut Journal,
    observed: Option<Observed>,
    mode: Mode,
) -> anyhow::Result<()> {
    report.ended = Timestamp::now();
    report.enforced.hooks = hooks(attached, mode)?;
    report.enforced.measures.hardening.observed = observed;
    report.lost = report.enforced.hooks.iter().map(|hook| hook.unrecorded).sum::<u64>()
        + observed.map_or(0, |observed| observed.unrecorded);
    if let Some(records) = &mut attached.records {
        if let Some(flows) = &records.flows {
            settle(flows)?;
            report.flows_lost = Some(flows.lost().context("reading the flows")?);
        }
        report.flows = journal.flows(records).context("reading the flows")?;
    }
    Ok(())
}

/// Opens what the JSON lines go to: a file is emptied; `-` is standard error.
fn open_events(path: &Path, log: &Destination, patience: Patience) -> anyhow::Result<Live> {
    if path == Path::new("-") {
        return Ok(Live::new(Outlet::stderr()));
    }
    let log = match log {
        Destination::File(_, log) => Some(Arc::clone(log)),
        _ => None,
    };
    let given = path.to_owned();
    let opened = patience.ask(None, move || match Found::at(&given)? {
        Found::Name(target) => {
            let replaced = log.map(|log| log.is_same(&target)).transpose()?.unwrap_or(false);
            if replaced { Ok(None) } else { Outlet::emptied(&target).map(Some) }
        }
        Found::Open(file) => Outlet::of(file).map(Some),
    });
    let opened = opened.flatten().with_context(|| format!("can't write events to {}", path.display()))?;
    let outlet = opened.with_context(|| format!("--events and --log name the same file, {}", path.display()))?;
    Ok(Live::new(outlet))
}

/// The end of a command of which this many processes were killed.
fn exit_of(change: Change, killed: usize) -> Exit {
    match change {
        Change::Exited(code) => Exit { code: Some(code), signal: None, killed },
        Change::Signaled(signal) | Change::Stopped(signal) | Change::Trapped(signal) => {
            Exit { code: None, signal: Some(signal), killed }
        }
        Change::Continued => Exit { code: None, signal: None, killed },
    }
}

fn user(identity: Option<&Identity>) -> User {
    let (uid, gid) = identity.map_or_else(|| (geteuid(), getegid()), |identity| (identity.uid, identity.gid));
    User { uid: uid.as_raw(), gid: gid.as_raw(), name: local_name(uid) }
}

fn hooks(attached: &Attached, mode: Mode) -> anyhow::Result<Vec<HookCounts>> {
    let Some(records) = &attached.records else { return Ok(Vec::new()) };
    let programs = attached.programs.iter();
    let reports = programs.map(|program| {
        let counters = records.counters(program.hook).context("reading the counters")?;
        let identity = program.identify().context("asking for a program's id")?;
        Ok(HookCounts::new(program.hook, identity, counters, mode))
    });
    reports.collect()
}

/// All events. If those in the file for JSON lines are not complete, it says so.
fn finish(journal: Journal, records: Option<&mut Records>, live: Option<&Path>) -> anyhow::Result<Vec<Event>> {
    let (events, failure) = journal.finish(records).context("reading the records")?;
    if let (Some(failure), Some(path)) = (failure, live) {
        tell(&format!("{}: {failure}; the events in it are not complete, those in the log are", path.display()));
    }
    Ok(events)
}

/// Waits a little for connections that have no process any more to transfer what they still have to.
fn settle(flows: &Flows) -> anyhow::Result<()> {
    let end = Instant::now() + SETTLING;
    while open(flows).context("reading the flows")? > 0 && Instant::now() < end {
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Writes the log, says what is to be said, and finds the exit status.
fn conclude(
    options: &Options,
    (log, patience): (&mut Destination, Patience),
    report: &Log<CommandRun>,
    (was_found, news): (bool, impl FnOnce(&Destination) -> Vec<String>),
) -> anyhow::Result<u8> {
    let written = log.write(report, patience);
    let policy = if was_found { format!("; policy: {}", report.policy.path.display()) } else { String::new() };
    if let Err(error) = written {
        write_elsewhere((log, patience), &error, report)?;
        if let Some(summary) = report.summary().filter(|_| options.verbosity >= 0) {
            tell(&format!("{summary}{policy}"));
        }
        return Ok(exit::FAILURE);
    }
    if report.enforced.measures.hardening.isolation == InForce::CgroupOnly && options.verbosity >= 0 {
        tell("isolation is \"cgroup-only\": this was no boundary, a command can leave its cgroup");
    }
    let crowded = &report.enforced.measures.hardening.crowded;
    if !crowded.is_empty() && options.verbosity >= 0 {
        tell(&format!(
            "too many users have folders in {}: sockets in some of them were not covered",
            crowded.join(", ")
        ));
    }
    let hardening = &report.enforced.measures.hardening;
    if options.diagnose
        && hardening.isolation == InForce::Full
        && hardening.observed.is_none()
        && options.verbosity >= 0
    {
        tell(
            "can't diagnose: only one filter of a process can have a listener, and guard-run was started under one that has",
        );
    }
    // Where the policy is the user's, and not one for everybody, what is denied may be what it should allow from now on.
    if options.fail_on_deny.is_some() && options.verbosity >= 0 && report.reported() > 0 && !was_found {
        for line in news(log) {
            tell(&line);
        }
    }
    if report.guarded.exit.signal == Some(libc::SIGSYS) && ends_foreign(report) && options.verbosity >= 0 {
        tell(&format!(
            "the command was ended by SIGSYS, as it is by a system call of 32 bits; {}",
            Remedy::architecture(Architecture::X86).text()
        ));
    }
    match report.summary() {
        Some(summary) if options.verbosity >= 0 => tell(&format!("{summary}{policy}; log: {log}")),
        None if options.verbosity > 0 => {
            let but = match report.unreported() {
                0 => String::new(),
                count => format!(" but {count} that the policy doesn't report"),
            };
            tell(&format!("nothing was denied{but}{policy}; log: {log}"));
        }
        None if options.verbosity == 0 && may_have_been_refused(report) => {
            let that = if report.unreported() == 0 { "" } else { " that the policy reports" };
            let what = if hardening.by_landlock.is_empty() {
                "what keeps it inside"
            } else {
                "Landlock (Unix sockets of others), or what else keeps it inside,"
            };
            tell(&format!(
                "the command failed, and no rule denied anything{that}{policy}; whether {what} did, --diagnose tells"
            ));
        }
        _ => {}
    }
    if let Some(lost) = report.flows_lost.filter(|lost| *lost > 0 && options.verbosity >= 0) {
        tell(&format!("{lost} connections and datagrams are in no flow: there were too many kinds"));
    }
    Ok(match (&report.guarded.exit, options.fail_on_deny) {
        (Exit { code: Some(exit::OK), .. }, Some(status)) if report.reported() > 0 => status,
        (Exit { code: Some(code), .. }, _) => *code,
        (Exit { signal: Some(signal), .. }, _) => exit::SIGNALED + u8::try_from(*signal).unwrap_or(0),
        _ => exit::FAILURE,
    })
}

/// What was denied that the policy does not know, in lines for people: who asked, and what would allow it.
fn news(guard: &Guard, report: &Log<CommandRun>, log: &Destination) -> Vec<String> {
    let file = if let Destination::File(path, _) = log { Some(&**path) } else { None };
    let mut denials = Denials::default();
    report.events.iter().for_each(|event| denials.add(Record::Event(event.clone())));
    let hardening = Some(report.enforced.measures.hardening.clone());
    let head = Head { policy: Some(report.policy.clone()), hardening, lost: report.lost, ..Head::default() };
    match advice::suggest(guard, &[head], &denials, Widen::default(), &ThisMachine) {
        Ok(suggestion) => suggestion.brief(file),
        Err(error) => vec![format!("no change is suggested: {:#}", anyhow::Error::from(error))],
    }
}

/// Whether the command has failed in a way that a refusal may be the reason of, which nobody has looked for.
fn may_have_been_refused(report: &Log<CommandRun>) -> bool {
    let hardening = &report.enforced.measures.hardening;
    let ended = &report.guarded.exit;
    let failed = ended.code.is_some_and(|code| code != exit::OK) || ended.signal == Some(libc::SIGSYS);
    failed && hardening.isolation == InForce::Full && hardening.observed.is_none()
}

/// Whether a program of another architecture is ended by its first system call.
fn ends_foreign(report: &Log<CommandRun>) -> bool {
    let hardening = &report.enforced.measures.hardening;
    hardening.isolation == InForce::Full && hardening.architectures.is_empty()
}

/// Writes a log that can't be where it should to where the user can see it, or else to the folder for logs.
fn write_elsewhere(
    (log, patience): (&Destination, Patience),
    error: &io::Error,
    report: &Log<CommandRun>,
) -> anyhow::Result<()> {
    if !matches!(log, Destination::Stderr) {
        tell(&format!("can't write the log {log}: {error}; here it is instead"));
        if Destination::Stderr.write(report, patience).is_ok() {
            return Ok(());
        }
    }
    let mut folder =
        Destination::open(None, report.started).context("can't write a log in the folder for logs either")?;
    folder.write(report, patience).with_context(|| format!("can't write the log {folder} either"))?;
    tell(&format!("can't write the log to standard error; it is in {folder} instead"));
    Ok(())
}
