//! Reading logs: what is kept of their records until they are told of. Memory is for kinds of records, however many there are.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use advice::{Denials, Guard, Head, ReadError, Record, SuggestError, policy_of, read_from};
use jiff::Timestamp;
use policy::Machine;
use report::{Event, Extent, Flow, Parent, Process, Subject, Test, Verdict};

use crate::summary::{self, Summary};

/// How many cases, flows and processes are told apart in a log, and how many events are on the time line.
const MOST: usize = 1 << 16;

/// How far a process's ancestors are followed.
const GENERATIONS: usize = 16;

/// Logs that are to be told of in one summary.
#[derive(Debug, Default)]
pub struct Gathered {
    pub(crate) sources: Vec<Source>,
    one_policy: bool,
}

/// Why a log can't be told of.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// Reading fails.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// One file has logs of several policies.
    #[error(transparent)]
    Policies(#[from] SuggestError),
}

/// What is kept of one file.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) heads: Vec<Head>,
    pub(crate) denials: Denials,
    pub(crate) cases: Vec<Case>,
    places: HashMap<CaseKey, usize>,
    pub(crate) flows: Vec<Traffic>,
    flow_places: HashMap<FlowKey, usize>,
    /// When something was denied, first and last, and how often.
    pub(crate) moments: Vec<(Timestamp, Timestamp, u64)>,
    parents: HashMap<u32, Parent>,
    /// How many denials the events are, but for refused system calls, which no program counts.
    pub(crate) by_programs: u64,
    /// Denials and flows for which there was no room.
    pub(crate) further: u64,
}

/// A policy, as logs name it: its file, and SHA-256 of its text.
pub(crate) type PolicyKey = (PathBuf, String);
type CaseKey = (String, String, Option<TestKey>, String);
type TestKey = (Option<String>, Option<String>, Option<String>);
type FlowKey = (String, String, bool);

/// Denials of one thing, by one rule, to one program, during one test.
#[derive(Debug)]
pub(crate) struct Case {
    /// What, in words, as [`advice::Denial::what`] has it.
    pub what: String,
    pub rule: String,
    pub test: Option<Test>,
    /// The name of the program.
    pub program: String,
    pub destination: String,
    pub refused: bool,
    /// The first process.
    pub process: Process,
    /// The process's ancestors as far as the log has them, the nearest first.
    pub ancestors: Vec<Parent>,
    pub count: u64,
}

/// What one program and one peer had to do with each other.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub program: String,
    pub destination: String,
    pub outgoing: bool,
    pub connections: u64,
    pub datagrams: u64,
    pub sent: u64,
    pub received: u64,
    pub first: Timestamp,
    pub last: Timestamp,
}

impl Gathered {
    /// Nothing yet. With `one_policy`, all logs are told of by one policy, and else each by its own.
    #[must_use]
    pub fn new(one_policy: bool) -> Self {
        Self { sources: Vec::new(), one_policy }
    }

    /// Reads a file: a log, events, or several of these.
    ///
    /// # Errors
    ///
    /// When it can't be read, is no log, or has logs of several policies.
    pub fn read(&mut self, name: &str, input: impl io::Read) -> Result<(), GatherError> {
        let mut source = Source { name: name.to_owned(), ..Source::default() };
        source.heads = read_from(input, &mut |record| source.add(record))?;
        if !self.one_policy {
            policy_of(&source.heads)?;
        }
        source.finish();
        self.sources.push(source);
        Ok(())
    }

    /// What the logs tell of. `guard` hands over the policy of logs by its path, or says why it can't; of events alone, nobody knows
    /// the path.
    pub fn summarize(
        self,
        guard: &mut dyn FnMut(Option<&Path>) -> Result<Guard, String>,
        machine: &impl Machine,
    ) -> Summary {
        let mut groups: Vec<(Option<PolicyKey>, Vec<Source>)> = Vec::new();
        for source in self.sources {
            let logged = source.heads.iter().find_map(|head| head.policy.as_ref());
            let key = logged.map(|policy| (policy.path.clone(), policy.sha256.clone()));
            match groups.iter_mut().find(|(known, _)| self.one_policy || *known == key) {
                Some((_, sources)) => sources.push(source),
                None => groups.push((key, vec![source])),
            }
        }
        let mut summary = summary::Builder::default();
        for (key, sources) in groups {
            let guard = guard(key.as_ref().map(|(path, _)| &**path));
            summary.add(key, sources, guard, machine);
        }
        summary.finish()
    }
}

impl Source {
    fn add(&mut self, record: Record) {
        match &record {
            Record::Event(event) => self.event(event),
            Record::Flow(flow) => self.flow(flow),
        }
        self.denials.add(record);
    }

    fn event(&mut self, event: &Event) {
        if !matches!(event.subject, Subject::Call(_)) {
            self.by_programs = self.by_programs.saturating_add(event.count);
        }
        if self.moments.len() < MOST {
            self.moments.push((event.first, event.last, event.count));
        }
        self.knows(&event.process);
        let what = format!("{} {}", event.op, event.subject);
        let (program, rule) = (program(&event.process), event.cause.rule.clone());
        let test = event.test.as_ref().map(|test| (test.suite.clone(), test.name.clone(), test.file.clone()));
        let key = (what.clone(), rule.clone(), test, program.clone());
        if let Some(place) = self.places.get(&key) {
            let case = &mut self.cases[*place];
            case.count = case.count.saturating_add(event.count);
            case.refused |= event.verdict == Verdict::Denied;
        } else if self.cases.len() < MOST {
            self.places.insert(key, self.cases.len());
            self.cases.push(Case {
                what,
                rule,
                test: event.test.clone(),
                program,
                destination: destination(&event.subject),
                refused: event.verdict == Verdict::Denied,
                process: event.process.clone(),
                ancestors: Vec::new(),
                count: event.count,
            });
        } else {
            self.further = self.further.saturating_add(event.count);
        }
    }

    fn flow(&mut self, flow: &Flow) {
        if let Some(process) = &flow.process {
            self.knows(process);
        }
        let program = flow.process.as_ref().map_or_else(|| "the kernel".to_owned(), program);
        let outgoing = flow.direction == "outgoing";
        let destination = peer(&flow.network);
        let (connections, datagrams) = match &flow.extent {
            Extent::Connections { connections, .. } => (*connections, 0),
            Extent::Datagrams { datagrams } => (0, datagrams.sent.saturating_add(datagrams.received)),
        };
        let key = (program.clone(), destination.clone(), outgoing);
        let place = match self.flow_places.get(&key) {
            Some(place) => *place,
            None if self.flows.len() < MOST => {
                self.flow_places.insert(key, self.flows.len());
                let (first, last) = (flow.first, flow.last);
                let (connections, datagrams, sent, received) = (0, 0, 0, 0);
                self.flows.push(Traffic {
                    program,
                    destination,
                    outgoing,
                    connections,
                    datagrams,
                    sent,
                    received,
                    first,
                    last,
                });
                self.flows.len() - 1
            }
            None => {
                self.further = self.further.saturating_add(1);
                return;
            }
        };
        let known = &mut self.flows[place];
        known.connections = known.connections.saturating_add(connections);
        known.datagrams = known.datagrams.saturating_add(datagrams);
        known.sent = known.sent.saturating_add(flow.bytes.sent);
        known.received = known.received.saturating_add(flow.bytes.received);
        known.first = known.first.min(flow.first);
        known.last = known.last.max(flow.last);
    }

    fn knows(&mut self, process: &Process) {
        if let (Some(pid), Some(parent)) = (process.pid, &process.details.parent)
            && self.parents.len() < MOST
        {
            self.parents.entry(pid).or_insert_with(|| parent.clone());
        }
    }

    /// Finds the ancestors, when all processes are known.
    fn finish(&mut self) {
        for case in &mut self.cases {
            let mut next = case.process.details.parent.clone();
            while let Some(parent) = next.filter(|_| case.ancestors.len() < GENERATIONS) {
                next = self.parents.get(&parent.pid).cloned();
                case.ancestors.push(parent);
            }
        }
        self.places.clear();
        self.flow_places.clear();
    }
}

/// The name of the program that a process executes: its file's, or the thread's where that is not known.
fn program(process: &Process) -> String {
    let file = process.details.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
    file.filter(|name| !name.is_empty()).unwrap_or(&process.comm).to_owned()
}

/// What was to be reached, without what was to be done with it.
fn destination(subject: &Subject) -> String {
    match subject {
        Subject::Network(network) => peer(network),
        Subject::Name(name) => name.name.clone(),
        Subject::Unix(unix) => unix.path.clone(),
        other => other.name_and_access().0,
    }
}

/// A peer by its name or else its address, with its port and protocol.
fn peer(network: &report::Network) -> String {
    let report::Network { address, port, protocol, host, .. } = network;
    let host = match (host, address.is_ipv6()) {
        (Some(host), _) => host.clone(),
        (None, true) => format!("[{address}]"),
        (None, false) => address.to_string(),
    };
    format!("{host}:{port}/{protocol}")
}
