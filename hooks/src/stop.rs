//! poststop: a container is no more, so its log is written and what was kept for it removed.

use anyhow::{Context as _, ensure};
use common::record::Hook;
use enforce::load::{Link, RecordMaps};
use report::Container;

use crate::{cli::tell, log::LogFile, note::Note, pins::Pins, records::log_of};

/// Writes the log of a container that is no more, and removes its guard. Nothing is left to do where there is none, be
/// it that it was not guarded or that all has been done before.
///
/// # Errors
///
/// When the container still has processes, which stay guarded, or the log can't be written: then all is kept, for another
/// attempt.
pub fn stop(container: &Container) -> anyhow::Result<()> {
    let Some(pins) = Pins::open(container)? else { return Ok(()) };
    let note = Note::read(pins.folder())?;
    ensure!(
        has_ended(&pins, &note),
        "container {} still has processes, in {}; they stay guarded, and `guard-hook gc` concludes when they have ended",
        note.container.id,
        note.place.path.display()
    );
    conclude(pins, note)
}

/// Whether a container certainly has no process any more.
#[must_use]
pub fn has_ended(pins: &Pins, note: &Note) -> bool {
    // A link's end at a cgroup is gone some time after the cgroup, but then wherever this process sees cgroups from. One of
    // several can also have been cut by hand.
    let is_cut = |hook| Link::open(pins.folder(), hook).and_then(|link| link.ends()).is_ok_and(|ends| ends.cgroup == 0);
    note.place.is_deserted().unwrap_or_else(|| {
        let mut hooks = note.programs.iter().filter_map(|program| Hook::from_number(program.hook));
        !note.programs.is_empty() && hooks.all(is_cut)
    })
}

/// Writes the log of a container and removes what was kept for it. Where the log can't be written any more to where it was to
/// go, which the container may have brought about, it goes to the usual folder.
///
/// # Errors
///
/// When the log can't be written there either: then all is kept.
pub fn conclude(pins: Pins, note: Note) -> anyhow::Result<()> {
    let (place, log, started, id) = (note.place.clone(), note.log.clone(), note.started, note.container.id.clone());
    let maps = RecordMaps::open(pins.folder())?;
    let report = log_of(note, maps).context("reading the records")?;
    if let Err(error) = log.write(&report) {
        let failed = format!("can't write the log {}: {error:#}", log.path().display());
        let usual = LogFile::usual(started, &id).and_then(|usual| usual.write(&report).map(|()| usual));
        let usual = usual.with_context(|| failed.clone())?;
        tell(&format!("{failed}; it is in {}", usual.path().display()));
    }
    pins.remove()?;
    Ok(place.remove()?)
}
