//! createRuntime: a container is guarded before it runs. This is the security argument, to be read from top to bottom.

use anyhow::{Context as _, ensure};
use enforce::{
    load::{Fresh, Records},
    privilege,
};
use jiff::Timestamp;
use policy::compile::Tables;
use report::{Container, IncludedFile};

use crate::{
    annotations::AnnotationError,
    capabilities::{evading, require_acceptance},
    cgroup::Own,
    cli::tell,
    container::config_of,
    container_policy,
    gc::reap,
    guard::Ready,
    inside::Inside,
    log::LogFile,
    note::Note,
    pins::{Draft, Pins},
    process,
    runtime::find,
    settings::Settings,
    stop,
};

/// Puts the guard on a container that is about to run.
///
/// # Errors
///
/// When anything fails: then the runtime aborts the container, and nothing is left behind.
pub fn create(container: Container, pid: Option<u32>) -> anyhow::Result<()> {
    let mut rights = privilege::begin()?;
    let pid = pid.context("the container's state has no process (pid) to guard")?;
    // Nothing has been made before all that others have said is known to be good: the annotations, the policy that they name, the
    // configuration, the process.
    let settings = Settings::read()?;
    let wanted = settings.wanted(&container.annotations)?.ok_or(AnnotationError::NoPolicy)?;
    find::check_handler(container.annotations.get(find::HANDLER).map(String::as_str), &settings.runtimes)?;
    let config = config_of(&container)?;
    let inside = Inside::new(&config, &container.bundle);
    let (document, policy) = container_policy::read(&wanted.policy, &inside)?;
    let apart = process::check(pid)?;
    // The programs are no guard against anybody who can send past them, or take them off.
    let evading = evading(&config, &policy, apart);
    require_acceptance(&evading, &config, &policy)?;
    let tables = Tables::compile(&policy).with_context(|| wanted.policy.display().to_string())?;
    let started = Timestamp::now();
    let log = LogFile::choose(&settings, wanted.log.as_deref(), started, &container.id)?;
    // The programs have passed the kernel's verifier before there is anything to guard.
    let Fresh { programs, maps } = Fresh::new(&tables, &mut rights)?;
    let are_there = !programs.is_empty();
    let unrestricted = tables.unrestricted().into_iter().map(str::to_owned).collect();
    let hosts = tables.names().map(|names| names.hosts.clone());
    let ready = Ready::new(programs, tables, &mut rights)?;
    // What is the container's own, and the container's alone.
    let mut own = Own::find(&container, pid, config.cgroup.as_deref())?;
    let earlier = earlier_run(&container, &mut own)?;
    // All of it is made aside, and goes away if anything fails.
    let draft = Draft::new(&container)?;
    let mut note = Note {
        command: config.command,
        container,
        started,
        policy: wanted.policy,
        sha256: document.sha256(),
        included: IncludedFile::all_of(&policy),
        mode: policy.mode,
        reasons: policy.reasons(),
        unrestricted,
        place: own.place.clone(),
        programs: Vec::new(),
        left_to_engine: container_policy::left_to_engine(&document),
        accepted: evading.into_iter().map(str::to_owned).collect(),
        hosts,
        log,
    };
    maps.pin(draft.folder()).context("pinning maps")?;
    if are_there {
        Records::of(maps)?.tell_cgroup(&own.folder).context("telling the programs which cgroup is the container's")?;
    }
    let guard = ready
        .attach(&own.folder, draft.folder(), &mut note.programs)
        .with_context(|| own.place.path.display().to_string())?;
    note.pin(draft.folder()).context("pinning the note")?;
    // All programs are attached before a process is moved to where they are.
    own.enter()?;
    // What an earlier call has put on this very cgroup stays in force until these are.
    let earlier = earlier.map(set_aside).transpose()?;
    draft.finish()?;
    guard.keep();
    own.keep();
    // From here on the kernel owns the guard: it holds whatever becomes of the engine.
    if let Some((pins, note)) = earlier {
        conclude(pins, note);
    }
    reap();
    Ok(())
}

/// What an earlier run of this container has left behind, where nobody concluded it when it ended; or an earlier call for this run.
fn earlier_run(container: &Container, own: &mut Own) -> anyhow::Result<Option<(Pins, Note)>> {
    let Some(pins) = Pins::open(container)? else { return Ok(None) };
    let mut note = Note::read(pins.folder())?;
    // What is in this container's cgroup is this container.
    if note.place.path == own.place.path && note.place.id == own.place.id {
        own.place.made |= std::mem::take(&mut note.place.made);
    } else {
        ensure!(
            stop::has_ended(&pins, &note),
            "a container with the id {} is still running, in {}",
            container.id,
            note.place.path.display()
        );
    }
    Ok(Some((pins, note)))
}

/// Leaves the container's name to this run.
fn set_aside((mut pins, note): (Pins, Note)) -> anyhow::Result<(Pins, Note)> {
    pins.set_aside(|before| match Note::read(before.folder()) {
        Ok(note) => conclude(before, note),
        Err(error) => tell(&format!("the records of an earlier run are lost: {:#}", anyhow::Error::from(error))),
    })?;
    Ok((pins, note))
}

/// Writes the log of an earlier run. That it can't be written must not keep the container from starting again: what is kept waits for
/// `guard-hook gc`.
fn conclude(pins: Pins, note: Note) {
    if let Err(error) = stop::conclude(pins, note) {
        tell(&format!("the log of the container's last run: {error:#}"));
    }
}
