//! poststop: a container is no more, so its log is written and what was kept for it removed.

use anyhow::{Context as _, ensure};
use enforce::{bpffs::MOUNT, load::RecordMaps};
use report::Container;

use crate::{
    cli::tell,
    guard,
    log::LogFile,
    note::Note,
    pins::{self, Pins},
    records::log_of,
};

/// Writes the log of a container that is no more, and removes its guard. Nothing is left to do where there is none, be
/// it that it was not guarded or that all has been done before.
///
/// # Errors
///
/// When the container still has processes, which stay guarded, or the log can't be written: then all is kept, for another
/// attempt.
pub fn stop(container: &Container) -> anyhow::Result<()> {
    let Some(pins) = Pins::open(container)? else {
        if !pins::are_there()? {
            tell(&format!(
                "nothing is kept of any container at {MOUNT} any more, so there is no log of {}",
                container.id
            ));
        }
        return Ok(());
    };
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
    note.place.is_deserted().unwrap_or_else(|| guard::is_cut(pins.folder()))
}

/// Writes the log of a container and removes what was kept for it. Where the log can't be written any more to where it was to
/// go, which the container may have brought about, it goes to the usual folder.
///
/// # Errors
///
/// When the log can't be written there either: then all is kept.
pub fn conclude(pins: Pins, note: Note) -> anyhow::Result<()> {
    let (place, log, started, id) = (note.place.clone(), note.log.clone(), note.started, note.container.id.clone());
    let programs = note.programs.clone();
    let maps = RecordMaps::open(pins.folder())?;
    let report = log_of(note, maps).context("reading the records")?;
    if let Err(error) = log.write(&report) {
        let failed = format!("can't write the log {}: {error:#}", log.path().display());
        let usual = LogFile::usual(started, &id).and_then(|usual| usual.write(&report).map(|()| usual));
        let usual = usual.with_context(|| failed.clone())?;
        let found = if usual.path() == log.path() { "the folder was made anew for it" } else { "it is in another one" };
        tell(&format!("{failed}; {found}: {}", usual.path().display()));
    }
    guard::take_off(&place, pins.folder(), &programs)?;
    pins.remove()?;
    Ok(place.remove()?)
}
