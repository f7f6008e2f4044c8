//! What logs tell of, as all formats show it.

use std::collections::HashMap;

use advice::{Denials, Guard, Head, Suggestion, Widen, suggest};
use jiff::Timestamp;
use policy::Machine;
use report::{Parent, Test};
use serde::Serialize;

use crate::{
    gather::{Case, PolicyKey, Source, Traffic},
    run::{Guarding, Run},
    timeline::Timeline,
};

/// Version of the format of `guard-run report -f json`.
const SCHEMA: u32 = 1;

/// What logs tell of.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Version of this format.
    pub schema: u32,
    /// What was guarded, and how.
    pub runs: Vec<Run>,
    /// The policies, as the runs and denials name them by their numbers.
    pub policies: Vec<PolicyPart>,
    /// The kinds of denials: the rarest of each policy first.
    pub denials: Vec<Denial>,
    /// The tests during which something was denied, those with the most denials first.
    pub tests: Vec<TestPart>,
    /// How many denials belong to no test that is known.
    pub unattributed: u64,
    /// What was not reached, the most often denied first.
    pub destinations: Vec<Destination>,
    /// What decided, the most frequent first.
    pub rules: Vec<RulePart>,
    /// What was reached, by whom: the most bytes first.
    pub flows: Vec<Flow>,
    /// Which program was denied what, the most often denied first.
    pub refusals: Vec<Refusal>,
    /// When. `None` where nothing happened.
    pub timeline: Option<Timeline>,
    /// Denials and flows that are in no list above, for want of room.
    pub further: u64,
}

/// A policy.
#[derive(Debug, Serialize)]
pub struct PolicyPart {
    /// The policy's file. `None` where only events are there, and nobody has named it.
    pub path: Option<String>,
    /// SHA-256 of its text, as it is now, or else by the logs.
    pub sha256: Option<String>,
    /// Whether the logs are of another text.
    pub changed: bool,
    /// Why nothing can be said by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The changes that would allow what was denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<Suggestion>,
}

/// Denials of one thing by one rule.
#[derive(Debug, Serialize)]
pub struct Denial {
    /// The number of its policy, from 0.
    pub policy: usize,
    /// Whether any of it was refused, and not only recorded.
    pub refused: bool,
    /// What `why` says of it.
    pub why: advice::Denial,
    /// The tests during which it was denied, by their numbers in the summary, and how often.
    pub tests: Vec<TestCount>,
    /// How often it was denied during no test that is known.
    pub unattributed: u64,
    /// Who asked, from the oldest ancestor that is known to the process itself.
    pub processes: Vec<Vec<Parent>>,
}

/// How often something was denied during a test.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TestCount {
    /// The test's number in the summary, from 0.
    pub test: usize,
    /// How often.
    pub count: u64,
}

/// A test during which something was denied.
#[derive(Debug, Serialize)]
pub struct TestPart {
    /// The test.
    #[serde(flatten)]
    pub test: Test,
    /// How often something was denied.
    pub count: u64,
    /// Whether any of it was refused.
    pub refused: bool,
    /// What, by its numbers in the summary.
    pub denials: Vec<DenialCount>,
}

/// How often something was denied.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DenialCount {
    /// The denial's number in the summary, from 0.
    pub denial: usize,
    /// How often.
    pub count: u64,
}

/// Something that was not reached.
#[derive(Debug, Serialize)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// How often it was denied.
    pub count: u64,
    /// The denials, by their numbers in the summary.
    pub denials: Vec<usize>,
}

/// What decided.
#[derive(Debug, Serialize)]
pub struct RulePart {
    /// The number of its policy, from 0.
    pub policy: usize,
    /// JSON pointer into the policy, or `default` or `fail-closed` as logs have it.
    pub rule: String,
    /// The line of the policy's file, from 1, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// How often it decided.
    pub count: u64,
}

/// What one program and one peer had to do with each other.
#[derive(Debug, Serialize)]
pub struct Flow {
    /// The program's name.
    pub program: String,
    /// The peer; of what came in, with the program's own port.
    pub destination: String,
    /// Whether the program began.
    pub outgoing: bool,
    /// TCP connections.
    pub connections: u64,
    /// UDP datagrams, both ways.
    pub datagrams: u64,
    /// Bytes of payload to the peer.
    pub sent: u64,
    /// Bytes of payload from the peer.
    pub received: u64,
    /// The first connection or datagram.
    #[serde(serialize_with = "report::nanoseconds")]
    pub first: Timestamp,
    /// The last datagram, or when a connection last began or ended.
    #[serde(serialize_with = "report::nanoseconds")]
    pub last: Timestamp,
}

/// What a program was denied.
#[derive(Debug, Serialize)]
pub struct Refusal {
    /// The program's name.
    pub program: String,
    /// What it did not reach.
    pub destination: String,
    /// How often.
    pub count: u64,
}

impl Summary {
    /// How many requests the events of the logs say were denied.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.denials.iter().map(|denial| denial.why.count).fold(0, u64::saturating_add)
    }

    /// Whether on all runs the rules were enforced or, in audit mode, recorded.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.runs.iter().all(|run| matches!(run.guarding, Guarding::Enforced | Guarding::Audited))
    }

    /// The policy's path, or words for it.
    #[must_use]
    pub fn policy_name(&self, policy: usize) -> &str {
        self.policies.get(policy).and_then(|policy| policy.path.as_deref()).unwrap_or("an unknown policy")
    }
}

impl Denial {
    /// What was denied, in words.
    #[must_use]
    pub fn what(&self) -> String {
        self.why.what()
    }

    /// What decides: a JSON pointer into the policy if it is there, or else what the log says.
    #[must_use]
    pub fn rule(&self) -> &str {
        self.why.decides.as_ref().map_or(&self.why.rule, |decides| &decides.pointer)
    }

    /// The line of the policy's file that decides, from 1, if that is known.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.why.decides.as_ref()?.line
    }

    /// `denied`, or what would have been so.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        if self.refused { "denied" } else { "would be denied" }
    }
}

/// A summary in the making.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    runs: Vec<Run>,
    policies: Vec<PolicyPart>,
    denials: Vec<Denial>,
    tests: Vec<TestPart>,
    places: HashMap<String, usize>,
    unattributed: u64,
    destinations: HashMap<String, Destination>,
    flows: HashMap<(String, String, bool), Flow>,
    further: u64,
    moments: Vec<(Timestamp, Timestamp, u64)>,
    refusals: HashMap<(String, String), u64>,
}

/// How many processes of a denial are shown.
const PROCESSES: usize = 3;

impl Builder {
    /// Takes the logs of one policy.
    pub fn add(
        &mut self,
        key: Option<PolicyKey>,
        sources: Vec<Source>,
        guard: Result<Guard, String>,
        machine: &impl Machine,
    ) {
        let policy = self.policies.len();
        let (mut heads, mut all, mut cases): (Vec<Head>, _, Vec<Case>) = (Vec::new(), Denials::default(), Vec::new());
        for source in sources {
            let Source { name, heads: own, denials, cases: some, flows, moments, by_programs, further, .. } = source;
            match &own[..] {
                [] => self.runs.push(Run::of_events(&name, policy)),
                // Only of one log is it known that all events are of it.
                [head] => self.runs.push(Run::of(&name, head, policy, by_programs)),
                several => self.runs.extend(several.iter().map(|head| Run::of(&name, head, policy, u64::MAX))),
            }
            for flow in flows {
                self.flow(flow);
            }
            self.moments.extend(moments);
            self.further = self.further.saturating_add(further);
            heads.extend(own);
            all.append(denials);
            cases.extend(some);
        }
        let first = self.denials.len();
        let (part, denials, further) = explained(key, guard, &heads, all, machine);
        self.policies.push(part);
        self.further = self.further.saturating_add(further);
        self.denials.extend(denials.into_iter().map(|why| Denial {
            policy,
            refused: false,
            why,
            tests: Vec::new(),
            unattributed: 0,
            processes: Vec::new(),
        }));
        let of = |denial: &Denial| (denial.what(), denial.why.rule.clone());
        let places: HashMap<_, _> =
            self.denials[first..].iter().enumerate().map(|(place, denial)| (of(denial), first + place)).collect();
        for case in cases {
            if let Some(place) = places.get(&(case.what.clone(), case.rule.clone())) {
                self.case(*place, case);
            }
        }
    }

    fn case(&mut self, place: usize, case: Case) {
        let Case { test, program, destination, refused, process, ancestors, count, .. } = case;
        let denial = &mut self.denials[place];
        denial.refused |= refused;
        if denial.processes.len() < PROCESSES {
            let comm = process.details.argv.as_ref().map_or(process.comm, |argv| argv.join(" "));
            let own = process.pid.map(|pid| Parent { pid, comm: Some(comm) });
            denial.processes.push(ancestors.into_iter().rev().chain(own).collect());
        }
        match test {
            None => {
                denial.unattributed = denial.unattributed.saturating_add(count);
                self.unattributed = self.unattributed.saturating_add(count);
            }
            Some(test) => {
                let name = format!("{test:?}");
                let number = *self.places.entry(name).or_insert(self.tests.len());
                if number == self.tests.len() {
                    self.tests.push(TestPart { test, count: 0, refused: false, denials: Vec::new() });
                }
                let part = &mut self.tests[number];
                part.count = part.count.saturating_add(count);
                part.refused |= refused;
                match part.denials.iter_mut().find(|known| known.denial == place) {
                    Some(known) => known.count = known.count.saturating_add(count),
                    None => part.denials.push(DenialCount { denial: place, count }),
                }
            }
        }
        let name = destination.clone();
        let known = self.destinations.entry(destination.clone()).or_insert_with(|| Destination {
            name,
            count: 0,
            denials: Vec::new(),
        });
        known.count = known.count.saturating_add(count);
        if !known.denials.contains(&place) {
            known.denials.push(place);
        }
        let refusal = self.refusals.entry((program, destination)).or_default();
        *refusal = refusal.saturating_add(count);
    }

    fn flow(&mut self, flow: Traffic) {
        let Traffic { program, destination, outgoing, connections, datagrams, sent, received, first, last } = flow;
        let key = (program.clone(), destination.clone(), outgoing);
        let known = self.flows.entry(key).or_insert_with(|| Flow {
            program,
            destination,
            outgoing,
            connections: 0,
            datagrams: 0,
            sent: 0,
            received: 0,
            first,
            last,
        });
        known.connections = known.connections.saturating_add(connections);
        known.datagrams = known.datagrams.saturating_add(datagrams);
        known.sent = known.sent.saturating_add(sent);
        known.received = known.received.saturating_add(received);
        known.first = known.first.min(first);
        known.last = known.last.max(last);
    }

    /// The summary, with everything in its order.
    pub fn finish(self) -> Summary {
        let Self { runs, policies, mut denials, mut tests, unattributed, further, moments, .. } = self;
        tests.sort_by(|one, other| {
            other.count.cmp(&one.count).then_with(|| one.test.to_string().cmp(&other.test.to_string()))
        });
        for (number, test) in tests.iter().enumerate() {
            for known in &test.denials {
                denials[known.denial].tests.push(TestCount { test: number, count: known.count });
            }
        }
        let mut destinations: Vec<_> = self.destinations.into_values().collect();
        destinations.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.name.cmp(&other.name)));
        let mut rules: Vec<RulePart> = Vec::new();
        for denial in &denials {
            let (policy, rule, line) = (denial.policy, denial.rule(), denial.line());
            match rules.iter_mut().find(|known| (known.policy, &*known.rule) == (policy, rule)) {
                Some(known) => known.count = known.count.saturating_add(denial.why.count),
                None => rules.push(RulePart { policy, rule: rule.to_owned(), line, count: denial.why.count }),
            }
        }
        rules.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.rule.cmp(&other.rule)));
        let mut flows: Vec<_> = self.flows.into_values().collect();
        let order = |flow: &Flow| (flow.sent.saturating_add(flow.received), flow.connections, flow.datagrams);
        let name = |flow: &Flow| (flow.program.clone(), flow.destination.clone(), flow.outgoing);
        flows.sort_by(|one, other| order(other).cmp(&order(one)).then_with(|| name(one).cmp(&name(other))));
        let refusal = |((program, destination), count)| Refusal { program, destination, count };
        let mut refusals: Vec<_> = self.refusals.into_iter().map(refusal).collect();
        let name = |refusal: &Refusal| (refusal.program.clone(), refusal.destination.clone());
        refusals.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| name(one).cmp(&name(other))));
        let timeline = Timeline::of(&runs, &moments, &flows);
        Summary {
            schema: SCHEMA,
            runs,
            policies,
            denials,
            tests,
            unattributed,
            destinations,
            rules,
            flows,
            refusals,
            timeline,
            further,
        }
    }
}

/// How many kinds of denials of a policy are told of with what would allow them: each of these takes compiling some policies.
const EXPLAINED: usize = 500;

/// What a policy says of denials, as far as it is there.
fn explained(
    key: Option<PolicyKey>,
    guard: Result<Guard, String>,
    heads: &[Head],
    all: Denials,
    machine: &impl Machine,
) -> (PolicyPart, Vec<advice::Denial>, u64) {
    let guard = match guard {
        Ok(guard) => guard,
        Err(problem) => {
            let (path, sha256) = key.map(|(path, sha256)| (path.display().to_string(), sha256)).unzip();
            let (denials, further) = all.unexplained();
            let part = PolicyPart { path, sha256, changed: false, problem: Some(problem), suggestion: None };
            return (part, denials, further);
        }
    };
    let suggestion = (all.len() <= EXPLAINED).then(|| suggest(&guard, heads, &all, Widen::default(), machine));
    let report = all.explain_within(EXPLAINED, &guard, heads, machine);
    let (suggestion, problem) = match suggestion {
        Some(Ok(suggestion)) => (Some(suggestion), None),
        Some(Err(error)) => (None, Some(format!("no change is suggested: {error}"))),
        None => (None, Some("the change for so many kinds of denials is left to `guard-run suggest`".to_owned())),
    };
    let (path, sha256, changed) = (Some(report.policy), Some(report.sha256), report.changed);
    (PolicyPart { path, sha256, changed, problem, suggestion }, report.denials, report.further)
}
