//! Reaping what containers have left behind whose engine did not come to calling poststop.

use crate::{
    cli::tell,
    note::Note,
    pins::Pins,
    stop::{conclude, has_ended},
};

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
    reaped
}

/// The same beside something else, which must not fail for it.
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
