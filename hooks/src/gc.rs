//! Reaping what containers have left behind whose engine did not come to calling poststop.

use crate::{
    cli::tell,
    note::Note,
    pins::Pins,
    stop::{conclude, has_ended},
};

/// How many containers that have ended wait for their logs to be written, at most. Each keeps its records in the kernel, and with a large
/// policy megabytes of it; anybody who can start containers, and fill the disk that logs go to, must not fill the kernel's memory.
const MOST_WAITING: usize = 32;

/// What was reaped.
#[derive(Debug, Default)]
pub struct Reaped {
    /// The ids of the containers.
    pub containers: Vec<String>,
    /// What could not be reaped, and why.
    pub failed: Vec<anyhow::Error>,
}

/// Writes the logs of all containers that have ended, and removes what was kept for them. Those on which another guard-hook
/// is at work are left to it.
#[must_use]
pub fn collect() -> Reaped {
    let mut reaped = Reaped::default();
    let idle = match Pins::idle() {
        Ok(idle) => idle,
        Err(error) => {
            reaped.failed.push(error.into());
            return reaped;
        }
    };
    for pins in idle {
        let result =
            if pins.is_unfinished() { pins.remove().map(|()| None).map_err(Into::into) } else { conclude_ended(pins) };
        match result {
            Ok(id) => reaped.containers.extend(id),
            Err(error) => reaped.failed.push(error),
        }
    }
    if reaped.failed.len() > MOST_WAITING {
        give_up(&mut reaped.failed);
    }
    reaped
}

/// Removes what is kept of the containers that have waited longest for their logs, but for those that may still wait.
fn give_up(failed: &mut Vec<anyhow::Error>) {
    let waiting = Pins::idle().into_iter().flatten().filter_map(|pins| {
        let note = Note::read(pins.folder()).ok()?;
        has_ended(&pins, &note).then_some((note, pins))
    });
    let mut waiting: Vec<(Note, Pins)> = waiting.collect();
    waiting.sort_by_key(|(note, _)| note.started);
    let most = waiting.len().saturating_sub(MOST_WAITING);
    for (note, pins) in waiting.into_iter().take(most) {
        let lost = format!(
            "the records of container {} are lost: its log can't be written, and {MOST_WAITING} others wait",
            note.container.id
        );
        failed.push(pins.remove().map_or_else(Into::into, |()| anyhow::anyhow!(lost)));
    }
}

/// Concludes containers that have ended, and only reports what fails: for callers that have something else to do.
pub fn reap() {
    for error in collect().failed {
        tell(&format!("what an earlier container has left behind: {error:#}"));
    }
}

/// Concludes a container if it has ended. Its id then.
fn conclude_ended(pins: Pins) -> anyhow::Result<Option<String>> {
    let note = Note::read(pins.folder())?;
    if !has_ended(&pins, &note) {
        return Ok(None);
    }
    let id = note.container.id.clone();
    conclude(pins, note)?;
    Ok(Some(id))
}
