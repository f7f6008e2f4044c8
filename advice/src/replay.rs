//! What a policy would have decided on what logs tell of.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use policy::compile::Tables;
use report::{Event, Flow, Verdict, text::OneLine};
use serde::Serialize;

use crate::{
    Record,
    extent::counted,
    judge::{Judge, Judgement},
};

/// How many different requests of a change are told of one by one.
const TOLD: usize = 100;

/// How many of them are told to people.
const SHOWN: usize = 5;

/// Requests of which the verdict changes, by the same two rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Change {
    /// What the policy decides by: a JSON pointer, `default`, `fail-closed` or `no section`.
    pub rule: String,
    /// What it was before: `reached`, or `denied` or `audited` with the rule of the log's policy.
    pub was: String,
    /// How many records there are.
    pub records: u64,
    /// How many requests they tell of.
    pub count: u64,
    /// The first hundred different ones.
    pub requests: Vec<Told>,
    /// How many records tell of others.
    pub more: u64,
}

/// One request, or as many as are the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// What was asked for.
    pub request: String,
    /// The name of the first thread that asked.
    pub who: String,
    /// How often.
    pub count: u64,
}

/// What a policy would have decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replayed {
    /// How many records there are.
    pub records: u64,
    /// Those about which no policy has rules: system calls.
    pub without_rules: u64,
    /// Those for which it depends on what the log doesn't tell, which count as allowed.
    pub unsure: u64,
    /// What was reached, and would be denied.
    pub would_be_denied: Vec<Change>,
    /// What was denied, and would be allowed.
    pub would_be_allowed: Vec<Change>,
}

/// Judges records one after the other.
#[derive(Debug)]
pub struct Replay<'a> {
    judge: Judge<'a>,
    replayed: Replayed,
    denied: Changes,
    allowed: Changes,
}

/// Changes by what decides, and what decided before; and where each request is in its change's list.
type Changes = BTreeMap<(String, String), (Change, HashMap<String, usize>)>;

impl<'a> Replay<'a> {
    /// Judges by these tables.
    #[must_use]
    pub fn new(tables: &'a Tables) -> Self {
        Self {
            judge: Judge::new(tables),
            replayed: Replayed::default(),
            denied: Changes::new(),
            allowed: Changes::new(),
        }
    }

    /// Judges a record.
    pub fn add(&mut self, record: &Record) {
        self.replayed.records += 1;
        let judgement = match record {
            Record::Event(event) => self.judge.event(event),
            Record::Flow(flow) => self.judge.flow(flow),
        };
        let Some(judgement) = judgement else {
            self.replayed.without_rules += 1;
            return;
        };
        self.replayed.unsure += u64::from(!judgement.sure);
        let (reached, count) = match record {
            Record::Event(event) => (event.verdict == Verdict::Audited, event.count),
            Record::Flow(flow) => (true, requests_of(flow)),
        };
        // Nothing says whether such a socket was to send anything but flows, which are judged by themselves.
        if let Record::Event(event) = record
            && reached
            && !judgement.allowed
            && self.judge.sorts(event)
        {
            self.replayed.unsure += u64::from(judgement.sure);
            return;
        }
        // What went on in audit mode and is allowed is what was to be reached.
        if judgement.allowed != reached {
            self.change(record, judgement, count);
        }
    }

    fn change(&mut self, record: &Record, judgement: Judgement, count: u64) {
        let was = match record {
            Record::Event(event) if event.verdict == Verdict::Audited => format!("audited by {}", event.cause.rule),
            Record::Event(event) => format!("denied by {}", event.cause.rule),
            Record::Flow(_) => "reached".to_owned(),
        };
        let rule = judgement.decided_by();
        let changes = if judgement.allowed { &mut self.allowed } else { &mut self.denied };
        let (change, places) = changes.entry((rule, was)).or_default();
        change.records += 1;
        change.count += count;
        let request = match record {
            Record::Event(event) => request_of(event),
            Record::Flow(flow) => format!("{} {}", flow.direction, flow.network),
        };
        if let Some(place) = places.get(&request) {
            change.requests[*place].count += count;
        } else if change.requests.len() < TOLD {
            let who = match record {
                Record::Event(event) => event.process.comm.clone(),
                Record::Flow(flow) => {
                    flow.process.as_ref().map_or_else(|| "the kernel".to_owned(), |one| one.comm.clone())
                }
            };
            places.insert(request.clone(), change.requests.len());
            change.requests.push(Told { request, who, count });
        } else {
            change.more += 1;
        }
    }

    /// What came out.
    #[must_use]
    pub fn finish(self) -> Replayed {
        let list = |changes: Changes| {
            changes.into_iter().map(|((rule, was), (change, _))| Change { rule, was, ..change }).collect()
        };
        Replayed { would_be_denied: list(self.denied), would_be_allowed: list(self.allowed), ..self.replayed }
    }
}

/// What an event tells of, in a few words.
pub fn request_of(event: &Event) -> String {
    match &event.subject {
        // It says so itself.
        report::Subject::Unix(unix) => format!("unix {unix}"),
        subject => format!("{} {subject}", event.op),
    }
}

/// How many connections or datagrams a flow tells of.
fn requests_of(flow: &Flow) -> u64 {
    match &flow.extent {
        report::Extent::Connections { connections, .. } => *connections,
        report::Extent::Datagrams { datagrams } => datagrams.sent + datagrams.received,
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, without_rules, unsure, would_be_denied, would_be_allowed } = self;
        let told = |records| counted(records, "record", "records");
        for (what, verb, changes) in [("reached", "denied", would_be_denied), ("denied", "allowed", would_be_allowed)] {
            let count: u64 = changes.iter().map(|change| change.records).sum();
            if count == 0 {
                writeln!(f, "Nothing that was {what} would be {verb}.")?;
                continue;
            }
            writeln!(f, "Of what was {what}, {count} of {} would be {verb}:", told(*records))?;
            for Change { rule, was, records, requests, more, .. } in changes {
                writeln!(f, "  {verb} by {}, {} until now: {}", OneLine(rule), OneLine(was), told(*records))?;
                for Told { request, who, count } in requests.iter().take(SHOWN) {
                    writeln!(f, "    {} by {} ×{count}", OneLine(request), OneLine(who))?;
                }
                let rest = requests.len().saturating_sub(SHOWN);
                if rest > 0 || *more > 0 {
                    let rest = counted(rest as u64, "other request", "other requests");
                    writeln!(f, "    and {rest}{}", if *more > 0 { ", or more" } else { "" })?;
                }
            }
        }
        if *unsure > 0 {
            let counts = counted(*unsure, "record counts", "records count");
            writeln!(f, "{counts} as allowed, for which that depends on what logs don't tell.")?;
        }
        if *without_rules > 0 {
            let tell = counted(*without_rules, "record tells", "records tell");
            writeln!(f, "{tell} of system calls, about which there are no rules.")?;
        }
        Ok(())
    }
}
