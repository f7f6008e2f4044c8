//! Why something was denied, and what would allow it.

mod text;
mod ways;

use common::Decision;
use jiff::Timestamp;
use json_patch::Patch;
use policy::Machine;
use report::{Event, Process, Subject, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Denials, Guard, Head, Peer, Request,
    asked::{Asked, LedTo},
    denials::Kind,
    hardening,
    nearest::{PLACE, nearest},
    suggest::apart,
};

pub use text::Who;
pub use ways::Way;
pub(crate) use ways::{HOPELESS, assumption};

impl Denials {
    /// What there is to say about each kind of denial, by a policy: the rarest first, as in the last line of a run.
    #[must_use]
    pub fn explain(self, guard: &Guard, heads: &[Head], machine: &impl Machine) -> Report {
        self.explain_within(usize::MAX, guard, heads, machine)
    }

    /// Like [`Denials::explain`], but with the nearest rule and what would allow it for so many kinds at the most: each of these takes
    /// compiling some policies.
    #[must_use]
    pub fn explain_within(self, most: usize, guard: &Guard, heads: &[Head], machine: &impl Machine) -> Report {
        let mut kinds: Vec<&Kind> = self.kinds.iter().collect();
        kinds.sort_by_key(|kind| (kind.event.count, kind.event.first));
        let sha256 = guard.document.sha256();
        let logged = heads.iter().filter_map(|head| head.policy.as_ref());
        let changed = logged.clone().any(|policy| policy.sha256 != sha256);
        let explain = |(place, kind): (usize, &Kind)| {
            kind.explain(self.asked(kind, guard, machine).as_ref(), place < most, guard, (heads, changed), machine)
        };
        let denials = kinds.into_iter().enumerate().map(explain).collect();
        Report {
            schema: SCHEMA,
            policy: guard.document.path().display().to_string(),
            sha256,
            changed,
            denials,
            further: self.further,
            lost: heads.iter().map(|head| head.lost).sum(),
        }
    }
}

impl Denials {
    /// The kinds of denials where no policy is there that could say more of them: in the order of [`Denials::explain`].
    #[must_use]
    pub fn unexplained(self) -> (Vec<Denial>, u64) {
        let Self { mut kinds, further, .. } = self;
        kinds.sort_by_key(|kind| (kind.event.count, kind.event.first));
        (kinds.iter().map(Kind::plain).collect(), further)
    }
}

/// Version of the format of what `why --json` and `suggest --json` print.
pub(crate) const SCHEMA: u32 = 1;

/// What there is to say about denials.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this format.
    pub schema: u32,
    /// The policy's file.
    pub policy: String,
    /// SHA-256 of its text.
    pub sha256: String,
    /// Whether the logs are of another text.
    pub changed: bool,
    /// The kinds of denials.
    pub denials: Vec<Denial>,
    /// Denials of kinds for which there was no room.
    pub further: u64,
    /// Denials that are in no event of the logs.
    pub lost: u64,
}

/// What there is to say about one kind of denial.
#[derive(Clone, Debug, Serialize)]
pub struct Denial {
    /// What was asked for, as [`report::Event`] has it.
    pub op: String,
    /// For what.
    #[serde(flatten)]
    pub subject: Subject,
    /// Whether it was refused.
    pub verdict: Verdict,
    /// How often.
    pub count: u64,
    /// First time.
    #[serde(serialize_with = "report::nanoseconds")]
    pub first: Timestamp,
    /// Last time.
    #[serde(serialize_with = "report::nanoseconds")]
    pub last: Timestamp,
    /// Some who asked.
    pub processes: Vec<Process>,
    /// How many others, at the most.
    pub more_processes: u64,
    /// What decided, as the log has it.
    pub rule: String,
    /// What the policy says of that, or why it could not be judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// That rule or section's default, as it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decides: Option<Written>,
    /// What of the hardening refuses it, and why that is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hardening: Vec<Hardening>,
    /// The rule that would have allowed it, if the request were a little different.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<NearestRule>,
    /// What would allow it, the narrowest first.
    pub ways: Vec<Way>,
    /// What stands against any of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Something of a policy.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// JSON pointer.
    pub pointer: String,
    /// The line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The value, as the policy has it.
    pub value: Value,
}

impl Written {
    fn at(guard: &Guard, pointer: String) -> Option<Self> {
        let value = guard.json.pointer(&pointer)?.clone();
        // A rule of an included file has another place in the whole than in its file.
        let is_whole = guard.policy.included.is_empty();
        let line = if is_whole { guard.document.line_of(&pointer) } else { None };
        Some(Self { pointer, line, value })
    }
}

/// A part of the hardening, or a right that it takes.
#[derive(Clone, Debug, Serialize)]
pub struct Hardening {
    /// Its name in policies.
    pub part: String,
    /// What it is there for.
    pub why: &'static str,
}

/// The nearest rule.
#[derive(Clone, Debug, Serialize)]
pub struct NearestRule {
    /// The rule.
    #[serde(flatten)]
    pub rule: Written,
    /// What it lacks.
    pub missed: Vec<MissedProperty>,
    /// The names that it has and by which the peer was found.
    #[serde(skip)]
    host: Option<String>,
}

/// A property that a request misses.
#[derive(Clone, Debug, Serialize)]
pub struct MissedProperty {
    /// The key of the property in rules.
    pub property: &'static str,
    /// The request's.
    pub value: String,
    /// The rule's.
    pub known: Value,
}

/// What the one who was denied something is told beside the event itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Explained {
    /// What this means for who asked: a program that works on, or an agent that wonders what to try next.
    pub meaning: String,
    /// Why it was denied, and what would allow it, in lines for people.
    pub explanation: String,
    /// The narrowest change to the policy that would allow it (RFC 6902), where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Patch>,
}

/// What a denial means for who asked.
const MEANING: &str = "guard-run refused this because of a policy. This was a decision and no fault: trying again, later or in another way, \
                       gives the same result. Who is responsible for the policy can change it.";

impl Explained {
    /// What there is to say about one denial of a run, by its policy.
    #[must_use]
    pub fn new(event: &Event, guard: &Guard, heads: &[Head], machine: &impl Machine) -> Self {
        let kind = Kind { event: event.clone(), processes: vec![event.process.clone()], more: 0 };
        let denial = kind.explain(
            Denials::default().asked(&kind, guard, machine).as_ref(),
            true,
            guard,
            (heads, false),
            machine,
        );
        let patch = denial.ways.first().map(|way| way.patch.clone());
        Self { meaning: MEANING.to_owned(), explanation: denial.to_string(), patch }
    }
}

impl Kind {
    fn explain(
        &self,
        asked: Option<&Asked>,
        in_full: bool,
        guard: &Guard,
        (heads, changed): (&[Head], bool),
        machine: &impl Machine,
    ) -> Denial {
        let mut denial = self.plain();
        match asked {
            Some(asked) => denial.judge(asked, in_full, guard, &self.event, (heads, changed), machine),
            None if in_full => denial.ways = ways::past_hardening(guard, &self.event, machine),
            None => {}
        }
        if !in_full {
            denial.notes.push("of so many kinds of denials, this one's changes are left to `guard-run why`".to_owned());
        }
        denial
    }

    /// What the logs say by themselves.
    fn plain(&self) -> Denial {
        let Self { event, processes, more } = self;
        Denial {
            op: event.op.to_string(),
            subject: event.subject.clone(),
            verdict: event.verdict,
            count: event.count,
            first: event.first,
            last: event.last,
            processes: processes.clone(),
            more_processes: *more,
            rule: event.cause.rule.clone(),
            reason: event.cause.reason.as_ref().map(ToString::to_string),
            decides: None,
            hardening: hardening::explanation(event).into_iter().map(|(part, why)| Hardening { part, why }).collect(),
            nearest: None,
            ways: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl Denial {
    /// What was denied, in words: `connect tcp 10.0.0.1:443`.
    #[must_use]
    pub fn what(&self) -> String {
        format!("{} {}", self.op, self.subject)
    }

    /// Says what the policy says, as it is now: in full, or what decides alone.
    fn judge(
        &mut self,
        asked: &Asked,
        in_full: bool,
        guard: &Guard,
        event: &Event,
        (heads, changed): (&[Head], bool),
        machine: &impl Machine,
    ) {
        let section = asked.request.section();
        let Some(decision) = asked.judge(&guard.tables).filter(|decision| !decision.allow) else {
            self.notes.push(if changed {
                "the policy has changed since, and allows it now".to_owned()
            } else {
                "the policy's rules allow such a request; that this one was denied is due to what guard-run knew then, such as \
                 addresses of names"
                    .to_owned()
            });
            return;
        };
        let number = usize::from(decision.rule);
        let is_rule = number < guard.rules(section);
        let pointer = if is_rule { format!("/{section}/rules/{number}") } else { format!("/{section}/default") };
        if is_rule || self.rule == "default" {
            self.decides = Written::at(guard, pointer);
        }
        if !in_full {
            return;
        }
        self.nearest = nearest_rule(guard, asked, decision);
        match ways::all(guard, asked, decision, machine) {
            Ok(ways) => self.ways = ways,
            Err(why) => return self.notes.push(why.to_owned()),
        }
        if let Err(why) = apart::wanted(guard, Some(asked), event, heads) {
            self.notes.push(format!("think twice, and `suggest` leaves it to you: {why}"));
        }
    }
}

/// The nearest rule to a request, and what it lacks.
fn nearest_rule(guard: &Guard, asked: &Asked, denied: Decision) -> Option<NearestRule> {
    let near = nearest(guard, asked, denied).filter(|near| !near.missed.is_empty())?;
    let rule = Written::at(guard, format!("/{}/rules/{}", asked.request.section(), near.rule))?;
    let of_rule = |key: &str| rule.value.get(key).cloned().unwrap_or_default();
    let missed = near.missed.into_iter().map(|missed| MissedProperty {
        property: missed.key,
        value: missed.value,
        known: if missed.key == PLACE { Value::Null } else { of_rule(missed.key) },
    });
    Some(NearestRule { missed: missed.collect(), rule, host: asked.host.clone() })
}

/// The request of an event by which the policy decides as it did then, if there is one: logs don't say whether a peer was a socket of
/// the command's own.
pub(crate) fn as_logged(guard: &Guard, request: &Request, rule: &str) -> Request {
    let decides = |request: &Request| {
        let decision = request.judge(&guard.tables)?;
        Some(report::Cause::new(request.section(), decision.rule).rule)
    };
    if let Request::Peer(peer) = request
        && decides(request).as_deref() != Some(rule)
    {
        let own = Request::Peer(Peer { own: true, ..*peer });
        if decides(&own).as_deref() == Some(rule) {
            return own;
        }
    }
    request.clone()
}

/// What there is to say about one request that a policy denies, in lines for people. Nothing where it allows it.
#[must_use]
pub fn of_request(guard: &Guard, request: &Request, machine: &impl Machine) -> String {
    text::of_request(guard, &Asked::alone(request.clone()), machine)
}

/// What there is to say about connecting or sending to a host that a policy denies, by a name and whatever address it has, in lines for
/// people. The peer's address is the unspecified one. Nothing where it allows it.
#[must_use]
pub fn of_host(guard: &Guard, peer: Peer, name: &str, machine: &impl Machine) -> String {
    let is_resolved = guard.tables.names().is_none_or(|names| names.decide(name).allow);
    let protocol = ["tcp", "udp"].into_iter().find(|known| *known == policy::protocol_name(peer.protocol));
    let asked = if is_resolved {
        Asked::by_name(Request::Peer(peer), Some(name))
    } else {
        let led_to = protocol.map(|protocol| LedTo { protocol, port: peer.port, is_near: false });
        Asked { led_to, ..Asked::alone(Request::Name(name.to_owned())) }
    };
    text::of_request(guard, &asked, machine)
}
