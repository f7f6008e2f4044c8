//! The log of a container: the document that a command's log is, but for what a hook can't know of one.

use std::io;

use common::record::Hook;
use enforce::{
    journal::{Journal, clock},
    load::{Flows, RecordMaps, Records},
    patience::Patience,
};
use jiff::Timestamp;
use nix::sys::utsname::uname;
use report::{ContainerMeasures, ContainerRun, Enforced, HookCounts, Log, PolicySource, ProgramIdentity, SCHEMA};

use crate::note::Note;

/// The log of a container, by its note and what its programs have left.
///
/// # Errors
///
/// When the kernel doesn't let the records be read.
pub fn log_of(note: Note, maps: RecordMaps) -> anyhow::Result<Log<ContainerRun>> {
    let mut records = if note.programs.is_empty() { None } else { Some(Records::of(maps)?) };
    let mut hooks = Vec::new();
    if let Some(records) = &records {
        for program in &note.programs {
            let hook = Hook::from_number(program.hook).ok_or_else(|| io::Error::other("a hook that is none"))?;
            let identity = ProgramIdentity { id: program.id, tag: program.tag };
            hooks.push(HookCounts::new(hook, identity, records.counters(hook)?, note.mode));
        }
    }
    let lost = hooks.iter().map(|hook| hook.unrecorded).sum();
    let mut journal = Journal::new(clock()?, note.mode.into(), note.reasons, note.hosts, None, Patience::NEEDED);
    let (mut events, mut flows, mut flows_lost) = (Vec::new(), None, None);
    if let Some(records) = &mut records {
        flows_lost = records.flows.as_ref().map(Flows::lost).transpose()?;
        flows = journal.flows(records)?;
        (events, _) = journal.finish(Some(records))?;
    }
    Ok(Log {
        schema: SCHEMA,
        guarded: ContainerRun { command: note.command, container: note.container },
        started: note.started,
        ended: Timestamp::now(),
        policy: PolicySource { path: note.policy, sha256: note.sha256, included: note.included, mode: note.mode },
        enforced: Enforced {
            kernel: uname()?.release().to_string_lossy().into_owned(),
            cgroup: note.place.path,
            hooks,
            unrestricted: note.unrestricted,
            measures: ContainerMeasures {
                exec: !note.place.made,
                hardening: "container engine".into(),
                accepted_capabilities: note.accepted,
                left_to_engine: note.left_to_engine,
            },
        },
        lost,
        events,
        flows,
        flows_lost,
    })
}
