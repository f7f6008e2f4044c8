//! The log: one JSON document for a command or a container.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::{self, Write as _},
    path::PathBuf,
};

use common::record::{Counters, Hook};
use jiff::Timestamp;
use policy::{Mode, Policy, strict::object};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Event, Flow, Hardening, Inherited, Word, nanoseconds};

/// Version of the log's format.
pub const SCHEMA: u32 = 1;

/// Where root's logs go unless `--log` says otherwise.
pub const LOG_FOLDER: &str = "/var/log/guard-run";

/// Something that a guard was on: a [`CommandRun`] or a [`ContainerRun`](crate::ContainerRun).
pub trait Guarded: Serialize + DeserializeOwned {
    /// What else kept it inside, as the log says it.
    type Measures: Serialize + DeserializeOwned;

    /// How many calls were seen that these refuse.
    fn refused(_measures: &Self::Measures) -> u64 {
        0
    }
}

/// The log of what a guard was on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(bound = "")]
pub struct Log<G: Guarded> {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What the guard was on.
    #[serde(flatten, deserialize_with = "object")]
    pub guarded: G,
    /// When it was started.
    #[serde(serialize_with = "nanoseconds")]
    pub started: Timestamp,
    /// When its last process had ended; for a container, when its log was written, after its end.
    #[serde(serialize_with = "nanoseconds")]
    pub ended: Timestamp,
    /// The policy.
    pub policy: PolicySource,
    /// What was enforced.
    pub enforced: Enforced<G::Measures>,
    /// Denials that are counted but in no event, because there was no room for another identity.
    pub lost: u64,
    /// What was denied.
    pub events: Vec<Event>,
    /// What was reached, if that was to be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<Vec<Flow>>,
    /// Connections and datagrams that are in no flow, because there was no room for another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows_lost: Option<u64>,
}

/// A command that was guarded.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct CommandRun {
    /// The command with its arguments.
    pub command: Vec<String>,
    /// Who it ran as.
    pub user: User,
    /// How it ended.
    pub exit: Exit,
}

impl Guarded for CommandRun {
    type Measures = CommandMeasures;

    fn refused(measures: &CommandMeasures) -> u64 {
        measures.hardening.observed.map_or(0, |observed| observed.refused)
    }
}

/// What else kept a command inside.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct CommandMeasures {
    /// What kept the command inside beside the programs.
    pub hardening: Hardening,
    /// Sockets and devices that the command was handed, to which the policy does not apply.
    pub inherited: Vec<Inherited>,
}

/// A user.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Main group.
    pub gid: u32,
    /// Login name, where it has one.
    pub name: Option<String>,
}

/// How the command ended.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// The command's status, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// The number of the signal that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How many processes that it left behind guard-run has killed.
    pub killed: usize,
}

/// Where the policy came from.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct PolicySource {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of its text.
    pub sha256: String,
    /// The files that it includes, directly or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<IncludedFile>,
    /// Enforced, or only recorded.
    pub mode: Mode,
}

/// A file that a policy includes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct IncludedFile {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of its text.
    pub sha256: String,
}

impl IncludedFile {
    /// Those of a policy.
    #[must_use]
    pub fn all_of(policy: &Policy) -> Vec<Self> {
        let included = policy.included.iter();
        included.map(|document| Self { path: document.path().to_owned(), sha256: document.sha256() }).collect()
    }
}

/// What was enforced, so that "no denials" can't be confused with "not enforcing".
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(bound(deserialize = "M: Deserialize<'de>"))]
pub struct Enforced<M> {
    /// The kernel's release.
    pub kernel: String,
    /// The leaf that it was enforced on.
    pub cgroup: PathBuf,
    /// The programs, and what each of them has done.
    pub hooks: Vec<HookCounts>,
    /// Sections that the policy leaves out and that restrict nothing.
    pub unrestricted: Vec<String>,
    /// What else kept it inside.
    #[serde(flatten, deserialize_with = "object")]
    pub measures: M,
}

/// One program, and what it has done.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct HookCounts {
    /// Where it was attached.
    pub hook: Word,
    /// Whether there are ways round the hook, so that its denials are advice and no boundary.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub advisory: bool,
    /// The program's id, by which `bpftool prog show id` knows it while it runs.
    pub program_id: u32,
    /// The program's tag: the hash of its instructions.
    pub tag: String,
    /// Requests that it let go on.
    pub allowed: u64,
    /// Requests that it refused.
    pub denied: u64,
    /// Requests that it would have refused, were it not for audit mode.
    pub audited: u64,
    /// Of those denied or audited, the ones that are in no event.
    pub unrecorded: u64,
    /// Of those that are in events, the ones that came faster than they were read, so that their processes may have ended before
    /// anybody looked at them.
    #[serde(default)]
    pub late: u64,
    /// Of those unrecorded, the ones that could not be judged and were denied for that.
    #[serde(default)]
    pub unjudged: u64,
    /// Of those denied or audited, the ones by rules that say `"report": false`, which are in no event.
    #[serde(default)]
    pub unreported: u64,
}

/// What the kernel knows a program by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramIdentity {
    /// The program's id, as `bpftool prog show id` takes it.
    pub id: u32,
    /// SHA-1 of its instructions, cut to 8 bytes.
    pub tag: [u8; 8],
}

impl HookCounts {
    /// What a program has done.
    #[must_use]
    pub fn new(hook: Hook, identity: ProgramIdentity, counters: Counters, mode: Mode) -> Self {
        let (denied, audited) = match mode {
            Mode::Enforce => (counters.denied, 0),
            Mode::Audit => (0, counters.denied),
        };
        Self {
            hook: hook.name().into(),
            advisory: hook.is_advisory(),
            program_id: identity.id,
            tag: format!("{:016x}", u64::from_be_bytes(identity.tag)),
            allowed: counters.allowed,
            denied,
            audited,
            unrecorded: counters.unrecorded,
            late: counters.late,
            unjudged: counters.unjudged,
            unreported: counters.unreported,
        }
    }
}

impl<G: Guarded> Log<G> {
    /// How many requests were refused by the rules, or would have been, but for those that the policy does not want to hear of.
    #[must_use]
    pub fn reported(&self) -> u64 {
        let reported = |hook: &HookCounts| hook.denied.saturating_add(hook.audited).saturating_sub(hook.unreported);
        self.enforced.hooks.iter().map(reported).sum()
    }

    /// How many the policy does not want to hear of.
    #[must_use]
    pub fn unreported(&self) -> u64 {
        self.enforced.hooks.iter().map(|hook| hook.unreported).sum()
    }

    /// The line for people: what was denied or lost, if anything was.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let what = if self.policy.mode == Mode::Audit { "would have denied" } else { "denied" };
        let count = self.reported() + G::refused(&self.enforced.measures);
        if count == 0 {
            return None;
        }
        let mut line = format!("{what} {count}");
        let kinds = Kind::of(&self.events);
        for (index, kind) in kinds.iter().take(SHOWN).enumerate() {
            let _ = write!(line, "{}{kind}", if index == 0 { ": " } else { "; " });
        }
        match kinds.len().saturating_sub(SHOWN) {
            0 => {}
            1 => line.push_str("; and one more kind"),
            more => {
                let _ = write!(line, "; and {more} more kinds");
            }
        }
        if self.lost > 0 {
            let _ = write!(line, "; {} of them counted but not recorded one by one", self.lost);
        }
        Some(line)
    }
}

/// How many kinds of denials are in the last line.
const SHOWN: usize = 3;

/// Denials of one thing by one rule, whoever was refused it, and in which way it was to be used.
struct Kind<'a> {
    op: &'a str,
    /// What was refused, without the ways to use it.
    name: String,
    /// These, of things that can be used in several ways.
    accesses: BTreeSet<char>,
    rule: &'a str,
    /// What the policy says of that.
    reason: Option<&'a str>,
    count: u64,
}

impl<'a> Kind<'a> {
    /// The kinds of some events, the rarest first: what was refused once says more than what was refused all the time. Among those that
    /// are alike in that, the earliest.
    fn of(events: &'a [Event]) -> Vec<Self> {
        let mut kinds: Vec<Self> = Vec::new();
        let mut places: HashMap<(&str, String, &str), usize> = HashMap::new();
        for event in events {
            let (name, access) = event.subject.name_and_access();
            let place = *places.entry((&*event.op, name.clone(), &*event.cause.rule)).or_insert_with(|| {
                let (rule, reason) = (&*event.cause.rule, event.cause.given());
                kinds.push(Self { op: &event.op, name, accesses: BTreeSet::new(), rule, reason, count: 0 });
                kinds.len() - 1
            });
            kinds[place].count += event.count;
            kinds[place].accesses.extend(access.chars());
        }
        kinds.sort_by_key(|kind| kind.count);
        kinds
    }
}

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, name, accesses, rule, reason, count } = self;
        write!(f, "{op} {name}")?;
        if !accesses.is_empty() {
            // As they are written in policies.
            let accesses: String = "rwm".chars().filter(|access| accesses.contains(access)).collect();
            write!(f, " {accesses}")?;
        }
        if *count > 1 {
            write!(f, " ×{count}")?;
        }
        write!(f, " [{rule}")?;
        if let Some(reason) = reason {
            write!(f, ": {reason}")?;
        }
        f.write_str("]")
    }
}
