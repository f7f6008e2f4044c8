//! createRuntime: a container is guarded before it runs. This is the security argument, to be read from top to bottom.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use launcher::{
    compile::Tables,
    load::{Fresh, Link},
    policy::Part,
    report::{Destination, LOG_FOLDER},
};

use crate::{
    annotations::{LOG, Wanted},
    cgroup::Own,
    container::Container,
    gc::reap,
    note::{Note, Program},
    pins::{Draft, Pins},
    policy, stop,
};

/// How many digits of an id are enough in the name of a log.
const SHORT_ID: usize = 12;

/// Puts the guard on a container that is about to run.
///
/// # Errors
///
/// When anything fails: then the runtime aborts the container, and nothing is left behind.
pub fn create(container: Container, pid: Option<u32>) -> anyhow::Result<()> {
    let pid = pid.context("the container's state has no process (pid) to guard")?;
    // Nothing has been made before the annotations and the policy are known to be good.
    let wanted = Wanted::new(&container.annotations)?;
    let (document, mut policy) = policy::read(&wanted.policy)?;
    // Who may write tunables that no rule is about is the engine's business, too: runtimes write some in the container's
    // process, podman has one by default.
    policy.process.allow = vec![Part::Sysctls];
    let tables = Tables::compile(&policy).with_context(|| wanted.policy.display().to_string())?;
    let started = Timestamp::now();
    let log = log_file(wanted.log.as_deref(), started, &container.id).context(LOG)?;
    // The programs have passed the kernel's verifier before there is anything to guard.
    let Fresh { programs, maps } = Fresh::new(&tables)?;
    // What is the container's own, and the container's alone.
    let own = Own::find(&container, pid)?;
    conclude_earlier(&container, &own)?;
    // All of it is made aside, and goes away if anything fails.
    let draft = Draft::new(&container)?;
    let mut note = Note {
        command: container.command(),
        container,
        started,
        policy: wanted.policy,
        sha256: document.sha256(),
        mode: policy.mode,
        unrestricted: tables.unrestricted().into_iter().map(str::to_owned).collect(),
        place: own.place.clone(),
        programs: Vec::new(),
        log,
    };
    maps.pin(draft.folder()).context("pinning maps")?;
    for program in &programs {
        let hook = program.hook;
        let link = Link::create(program, &own.folder)
            .with_context(|| format!("can't attach the {} program to {}", hook.name(), own.place.path.display()))?;
        link.pin(draft.folder(), hook).context("pinning a program")?;
        let identity = program.identify().context("asking for a program's id")?;
        note.programs.push(Program { hook: hook as u8, id: identity.id, tag: identity.tag });
    }
    note.pin(draft.folder()).context("pinning the note")?;
    // All programs are attached before a process is moved to where they are.
    own.enter()?;
    draft.finish()?;
    own.keep();
    // From here on the kernel owns the guard: it holds whatever becomes of the engine.
    reap();
    Ok(())
}

/// The file that the log goes to, known to be writable: the one that is said, or a new one in the folder that is.
fn log_file(wanted: Option<&Path>, started: Timestamp, id: &str) -> anyhow::Result<PathBuf> {
    let mut path = wanted.unwrap_or(Path::new(LOG_FOLDER)).to_owned();
    if wanted.is_none() {
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    if path.is_dir() {
        let id: String = id.chars().take(SHORT_ID).map(|c| if c == '/' { '_' } else { c }).collect();
        path.push(format!("{}-{id}.json", started.strftime("%Y%m%dT%H%M%S.%9fZ")));
    }
    Destination::file(&path).with_context(|| format!("can't write the log {}", path.display()))?;
    Ok(path)
}

/// Concludes what an earlier container of this id has left behind, where nobody did when it ended.
fn conclude_earlier(container: &Container, own: &Own) -> anyhow::Result<()> {
    let Some(pins) = Pins::open(container)? else { return Ok(()) };
    let note = Note::read(pins.folder())?;
    // What is in this container's cgroup is this container.
    let same = note.place.path == own.place.path && note.place.id == own.place.id;
    ensure!(
        same || stop::has_ended(&pins, &note),
        "a container with the id {} is still running, in {}",
        container.id,
        note.place.path.display()
    );
    stop::conclude(pins, note).context("the log of the container's last run")
}
