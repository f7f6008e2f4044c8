//! The log of a container: the same document as the log of a command, but for what a hook can't know of one.

use std::{collections::BTreeSet, io, path::PathBuf};

use common::record::Hook;
use jiff::Timestamp;
use launcher::{
    events::{Clock, Event, Flow, Journal, Verdict},
    load::{RecordMaps, Records},
    report::{HookReport, PolicySource, SCHEMA, nanoseconds},
    sys::bpf::ProgramIdentity,
};
use nix::sys::utsname::uname;
use policy::Mode;
use serde::Serialize;

use crate::{container::Container, note::Note};

/// The log.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of the format.
    schema: u32,
    /// The container's command, where its configuration says it.
    command: Option<Vec<String>>,
    /// The container.
    container: Container,
    /// When it was made.
    #[serde(serialize_with = "nanoseconds")]
    started: Timestamp,
    /// When its log was written, after its end.
    #[serde(serialize_with = "nanoseconds")]
    ended: Timestamp,
    policy: PolicySource,
    enforced: Enforced,
    lost: u64,
    events: Vec<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<Vec<Flow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows_lost: Option<u64>,
}

/// What was enforced.
#[derive(Debug, Serialize)]
struct Enforced {
    kernel: String,
    cgroup: PathBuf,
    /// Whether what the engine executed in the container after its start was guarded, too.
    exec: bool,
    hooks: Vec<HookReport>,
    unrestricted: Vec<String>,
    /// Capabilities, namespaces, seccomp and the like are the engine's business.
    hardening: &'static str,
    /// Capabilities by which the container could evade its policy, and which that accepts, or does not enforce.
    accepted_capabilities: BTreeSet<String>,
}

impl Report {
    /// What became of a container, by its note and what its programs have left.
    ///
    /// # Errors
    ///
    /// When the kernel doesn't let the records be read.
    pub fn new(note: Note, maps: RecordMaps) -> anyhow::Result<Self> {
        let mut records = if note.programs.is_empty() { None } else { Some(Records::of(maps)?) };
        let mut hooks = Vec::new();
        if let Some(records) = &records {
            for program in &note.programs {
                let hook = Hook::from_number(program.hook).ok_or_else(|| io::Error::other("a hook that is none"))?;
                let identity = ProgramIdentity { id: program.id, tag: program.tag };
                hooks.push(HookReport::new(hook, identity, records.counters(hook)?, note.mode));
            }
        }
        let lost = hooks.iter().map(|hook| hook.unrecorded).sum();
        let verdict = match note.mode {
            Mode::Enforce => Verdict::Denied,
            Mode::Audit => Verdict::Audited,
        };
        let mut journal = Journal::new(Clock::new()?, verdict, None);
        let (mut events, mut flows, mut flows_lost) = (Vec::new(), None, None);
        if let Some(records) = &mut records {
            flows_lost = records.flows.as_ref().map(launcher::load::Flows::lost).transpose()?;
            flows = journal.flows(records)?;
            (events, _) = journal.finish(records)?;
        }
        Ok(Self {
            schema: SCHEMA,
            command: note.command,
            container: note.container,
            started: note.started,
            ended: Timestamp::now(),
            policy: PolicySource { path: note.policy, sha256: note.sha256, mode: note.mode },
            enforced: Enforced {
                kernel: uname()?.release().to_string_lossy().into_owned(),
                cgroup: note.place.path,
                exec: !note.place.made,
                unrestricted: note.unrestricted,
                hardening: "container engine",
                accepted_capabilities: note.accepted,
                hooks,
            },
            lost,
            events,
            flows,
            flows_lost,
        })
    }
}
