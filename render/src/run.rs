//! Runs that logs tell of: what was enforced on each, and what there is to doubt.

use advice::{Enforced, Head};
use jiff::Timestamp;
use policy::Mode;
use report::{Exit, HookCounts, InForce};
use serde::Serialize;

use crate::words::{counted, short_command};

/// Whether the rules were enforced on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Guarding {
    /// Programs of the policy refused what it denies.
    Enforced,
    /// Programs of the policy recorded what it denies, and refused nothing.
    Audited,
    /// No program was attached.
    Nothing,
    /// The log doesn't say.
    Unknown,
}

/// A command or a container that a log tells of.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The log's file.
    pub log: String,
    /// The command with its arguments, where the log says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The container's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// When it was started.
    #[serde(serialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When its last process had ended.
    #[serde(serialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// How the command ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// The number of its policy among the summary's, from 0.
    pub policy: usize,
    /// Whether the rules were enforced.
    pub guarding: Guarding,
    /// The kernel's release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The programs, and what each of them has done.
    pub hooks: Vec<HookCounts>,
    /// Sections that the policy leaves out and that restrict nothing.
    pub unrestricted: Vec<String>,
    /// What there is to doubt about the guard or the log, in sentences.
    pub doubts: Vec<String>,
}

#[expect(clippy::ref_option, reason = "serde hands it over like that")]
fn time<S: serde::Serializer>(time: &Option<Timestamp>, json: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => report::nanoseconds(time, json),
        None => json.serialize_none(),
    }
}

impl Run {
    /// A run that a log tells of, with how many denials are in the log's events.
    pub(crate) fn of(log: &str, head: &Head, policy: usize, events: u64) -> Self {
        let mode = head.policy.as_ref().map(|policy| policy.mode);
        let Enforced { kernel, hooks, unrestricted, .. } = head.enforced.clone().unwrap_or_default();
        let guarding = match (&hooks, mode) {
            (Some(hooks), Some(_)) if hooks.is_empty() => Guarding::Nothing,
            (Some(_), Some(Mode::Enforce)) => Guarding::Enforced,
            (Some(_), Some(Mode::Audit)) => Guarding::Audited,
            _ => Guarding::Unknown,
        };
        let hooks = hooks.unwrap_or_default();
        let mut doubts = doubts_of_guard(guarding, head);
        doubts.extend(doubts_of_log(head, &hooks, events));
        Self {
            log: log.to_owned(),
            command: head.command.clone(),
            container: head.container.as_ref().map(|container| container.id.clone()),
            started: head.started,
            ended: head.ended,
            exit: head.exit.clone(),
            policy,
            guarding,
            kernel,
            hooks,
            unrestricted,
            doubts,
        }
    }

    /// What events alone tell of a run.
    pub(crate) fn of_events(log: &str, policy: usize) -> Self {
        let run = Self::of(log, &Head::default(), policy, 0);
        Self { doubts: vec![NO_LOG.to_owned()], ..run }
    }

    /// The command or the container, in words.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.command, &self.container) {
            (Some(command), None) => short_command(command),
            (Some(command), Some(id)) => format!("container {id}: {}", short_command(command)),
            (None, Some(id)) => format!("container {id}"),
            (None, None) => format!("events of {}", self.log),
        }
    }

    /// Whether rules were enforced, in words.
    #[must_use]
    pub fn guard(&self) -> String {
        let on = self.kernel.as_deref().map(|kernel| format!(" on Linux {kernel}")).unwrap_or_default();
        let programs = counted(self.hooks.len() as u64, "program");
        match self.guarding {
            Guarding::Enforced => format!("enforced by {programs}{on}"),
            Guarding::Audited => format!("audited by {programs}{on}: nothing was refused"),
            Guarding::Nothing => format!("NOT ENFORCED: no program was attached{on}"),
            Guarding::Unknown => "UNKNOWN whether anything was enforced".to_owned(),
        }
    }

    /// How the command ended, in words.
    #[must_use]
    pub fn end(&self) -> Option<String> {
        let exit = self.exit.as_ref()?;
        match (exit.code, exit.signal) {
            (Some(code), _) => Some(format!("exited with {code}")),
            (None, Some(signal)) => Some(format!("ended by signal {signal}")),
            (None, None) => None,
        }
    }
}

const NO_LOG: &str = "events alone don't say what was enforced, nor whether they are all there; the run's log does";

/// What there is to doubt about a guard.
fn doubts_of_guard(guarding: Guarding, head: &Head) -> Vec<String> {
    let mut doubts = Vec::new();
    match guarding {
        Guarding::Unknown => doubts.push("the log doesn't say what was enforced".to_owned()),
        Guarding::Nothing => doubts.push("no program was attached, so the rules restricted nothing".to_owned()),
        Guarding::Audited => doubts.push("audit mode: what the policy denies went on".to_owned()),
        Guarding::Enforced => {}
    }
    if let Some(hardening) = &head.hardening {
        if hardening.isolation == InForce::CgroupOnly {
            doubts.push(
                "isolation is cgroup-only: the command could get out of its cgroup, so this is no boundary".to_owned(),
            );
        }
        if !hardening.crowded.is_empty() {
            doubts.push(format!("not all services were covered in {}", hardening.crowded.join(", ")));
        }
        if !hardening.by_landlock.is_empty() {
            doubts.push(format!(
                "enforced by Landlock, so that denials are neither counted nor events: {}",
                hardening.by_landlock.join(", ")
            ));
        }
        let unrecorded = hardening.observed.map_or(0, |observed| observed.unrecorded);
        if unrecorded > 0 {
            doubts.push(format!("{} of system calls are in no event", counted(unrecorded, "refusal")));
        }
    }
    if let Some(enforced) = &head.enforced {
        if !enforced.unrestricted.is_empty() {
            doubts.push(format!(
                "the policy has no section for, and restricts nothing of: {}",
                enforced.unrestricted.join(", ")
            ));
        }
        let streams = enforced.inherited.iter().filter(|inherited| inherited.is_network_stream());
        doubts.extend(streams.map(|inherited| format!("{inherited}: no rule holds for it")));
        if !enforced.accepted_capabilities.is_empty() {
            let capabilities = enforced.accepted_capabilities.join(", ");
            doubts.push(format!("the container had capabilities by which it could evade the policy: {capabilities}"));
        }
        if enforced.exec == Some(false) {
            doubts.push("what the engine executed in the container after its start was not guarded".to_owned());
        }
    }
    doubts
}

/// What a log lacks.
fn doubts_of_log(head: &Head, hooks: &[HookCounts], events: u64) -> Vec<String> {
    let sum = |field: fn(&HookCounts) -> u64| hooks.iter().map(field).fold(0, u64::saturating_add);
    let known = events.saturating_add(head.lost).saturating_add(sum(|hook| hook.unreported));
    let missing = sum(|hook| hook.denied.saturating_add(hook.audited)).saturating_sub(known);
    let table = [
        (head.lost, "counted, but not recorded one by one"),
        (missing, "in the programs' counters and in no event: the log is not whole"),
        (sum(|hook| hook.unjudged), "of what could not be judged, counted only"),
        (sum(|hook| hook.unreported), "by rules that say \"report\": false, counted only"),
        (sum(|hook| hook.late), "read late: the processes may have ended before anybody looked at them"),
    ];
    let denials = table.into_iter().filter(|(count, _)| *count > 0);
    let mut doubts: Vec<String> = denials.map(|(count, what)| format!("{} {what}", counted(count, "denial"))).collect();
    if head.flows_lost > 0 {
        doubts.push(format!("{} in no flow", counted(head.flows_lost, "connection or datagram")));
    }
    doubts
}
