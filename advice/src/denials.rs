//! Denials of logs, put together by what was denied and by which rule.

use std::collections::HashMap;

use policy::Machine;
use report::{Event, Process, Subject, Verdict};

use crate::{
    Guard, Record, Request,
    asked::{Asked, Servers},
    why::as_logged,
};

/// How many kinds of denials are told apart. What comes after that is counted.
const KINDS: usize = 1 << 14;

/// How many processes of one kind of denial are told.
const PROCESSES: usize = 3;

/// Denials, while they are read from logs. Memory is for kinds of them, however many there are.
#[derive(Debug, Default)]
pub struct Denials {
    pub(crate) kinds: Vec<Kind>,
    places: HashMap<(String, String, String), usize>,
    /// Denials of further kinds.
    pub(crate) further: u64,
    servers: Servers,
}

/// Denials of one thing by one rule.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The first event, with how often all of them happened, and the last time.
    pub event: Event,
    pub processes: Vec<Process>,
    /// How many more processes there were, at the most.
    pub more: u64,
}

impl Denials {
    /// Takes a record of a log.
    pub fn add(&mut self, record: Record) {
        match record {
            Record::Event(event) => {
                self.servers.event(&event);
                self.add_kind(Kind { processes: vec![event.process.clone()], event, more: 0 });
            }
            Record::Flow(flow) => self.servers.flow(&flow),
        }
    }

    /// Takes what was collected from other logs of the same policy.
    pub fn append(&mut self, other: Self) {
        self.further += other.further;
        self.servers.append(other.servers);
        other.kinds.into_iter().for_each(|kind| self.add_kind(kind));
    }

    fn add_kind(&mut self, kind: Kind) {
        let event = &kind.event;
        let key = (event.op.to_string(), event.subject.to_string(), event.cause.rule.clone());
        if let Some(place) = self.places.get(&key) {
            self.kinds[*place].add(kind);
        } else if self.kinds.len() < KINDS {
            self.places.insert(key, self.kinds.len());
            self.kinds.push(kind);
        } else {
            self.further += event.count;
        }
    }

    /// What a kind of denial is about, with what the others tell of it. `None` where rules have nothing to say of it.
    pub(crate) fn asked(&self, kind: &Kind, guard: &Guard, machine: &impl Machine) -> Option<Asked> {
        let event = &kind.event;
        let request = as_logged(guard, &Request::of_event(event)?.on(machine), &event.cause.rule);
        let host = match &event.subject {
            Subject::Network(network) => network.host.as_deref(),
            _ => None,
        };
        let led_to = if let Request::Name(name) = &request { self.led_to(kind, name) } else { None };
        Some(self.servers.tell(Asked { led_to, ..Asked::by_name(request, host) }, guard))
    }

    /// By which protocol and to which port something connected that was found by a name, if a later denial tells.
    fn led_to(&self, asked: &Kind, name: &str) -> Option<(&'static str, u16)> {
        let named = |host: Option<&str>| host.is_some_and(|host| host.split(", ").any(|known| known == name));
        let by_name = self.kinds.iter().filter_map(connected).filter(|(_, host)| named(*host)).map(|(at, _)| at);
        // Where the query was let through, the same process has gone on to what the answer said.
        let after = |kind: &&Kind| {
            let pids = kind.processes.iter().filter_map(|process| process.pid);
            let mut pids = pids.filter(|pid| asked.processes.iter().any(|process| process.pid == Some(*pid)));
            kind.event.first > asked.event.first && pids.next().is_some()
        };
        let mut later: Vec<&Kind> = self.kinds.iter().filter(after).collect();
        later.sort_by_key(|kind| kind.event.first);
        // Of what comes after another name, nobody knows by which it was found.
        let other = |kind: &&&Kind| !matches!(&kind.event.subject, Subject::Name(other) if other.name != name);
        let next = later.iter().take_while(other).filter_map(|kind| connected(kind)).map(|(at, _)| at);
        let next = next.filter(|_| asked.event.verdict == Verdict::Audited);
        // Connected UDP sockets come first where a resolver sorts addresses.
        let all: Vec<_> = by_name.chain(next).collect();
        all.iter().find(|(protocol, _)| *protocol == "tcp").or(all.first()).copied()
    }

    /// How many kinds of denials there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether nothing was denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }
}

impl Kind {
    fn add(&mut self, other: Self) {
        let Self { event: known, processes, more } = self;
        let event = other.event;
        known.count = known.count.saturating_add(event.count);
        known.first = known.first.min(event.first);
        known.last = known.last.max(event.last);
        *more += other.more;
        for process in other.processes {
            if processes.iter().any(|known| known.pid == process.pid && known.details == process.details) {
                continue;
            }
            if processes.len() < PROCESSES {
                processes.push(process);
            } else {
                *more += 1;
            }
        }
    }
}

/// Where a kind of denial connects or sends to, and by which names it was found. `None` for what isn't about that.
fn connected(kind: &Kind) -> Option<((&'static str, u16), Option<&str>)> {
    let Subject::Network(network) = &kind.event.subject else { return None };
    let protocol = ["tcp", "udp"].into_iter().find(|known| *known == network.protocol)?;
    let is_active = ["connect", "send"].contains(&&*kind.event.op);
    // Resolvers ask nameservers, and connect sockets to addresses alone in order to sort them.
    let is_other = network.port != 0 && network.port != 53;
    (is_active && is_other).then_some(((protocol, network.port), network.host.as_deref()))
}
