//! Denials of logs, put together by what was denied and by which rule.

use std::collections::{BTreeSet, HashMap};

use common::{name::address::nearness, net::ones_if_equal};
use policy::{Machine, shared_space};
use report::{Event, Process, Subject, Verdict};

use crate::{
    Guard, Record, Request,
    asked::{Asked, LedTo, Servers},
    rule::is_host_name,
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
        let next = host.map_or_else(|| self.asked_before(kind), |_| None);
        let led_to = if let Request::Name(name) = &request { self.led_to(kind, name) } else { None };
        // What no rule can have as a name leaves the address.
        let names = host.or(next).filter(|names| names.split(", ").all(is_host_name));
        let asked = Asked::by_name(request, names);
        let is_next = next.is_some() && asked.host.is_some();
        Some(self.servers.tell(Asked { is_next, led_to, ..asked }, guard))
    }

    /// By which protocol and to which port something connected that was found by a name, if a later denial tells.
    fn led_to(&self, asked: &Kind, name: &str) -> Option<LedTo> {
        let named = |host: Option<&str>| host.is_some_and(|host| host.split(", ").any(|known| known == name));
        let by_name = self.kinds.iter().filter_map(connected).filter(|(_, host)| named(*host)).map(|(at, _)| at);
        let mut later = self.of_processes(asked, |kind| kind.event.first > asked.event.first);
        later.sort_by_key(|kind| kind.event.first);
        // Of what comes after another name, nobody knows by which it was found.
        let other = |kind: &&&Kind| !matches!(&kind.event.subject, Subject::Name(other) if other.name != name);
        let next = later.iter().take_while(other).filter_map(|kind| connected(kind)).map(|(at, _)| at);
        // Where the query was let through, the same process has gone on to what the answer said.
        let next = next.filter(|_| asked.event.verdict == Verdict::Audited);
        // Connected UDP sockets come first where a resolver sorts addresses.
        let all: Vec<_> = by_name.chain(next).collect();
        all.iter().find(|led_to| led_to.protocol == "tcp").or(all.first()).copied()
    }

    /// The one name that the same process had asked for before it connected in audit mode: what it connected to first after that, and what
    /// else it connected to at that port before it asked for another name.
    fn asked_before(&self, kind: &Kind) -> Option<&str> {
        let (at, _) = connected(kind).filter(|_| kind.event.verdict == Verdict::Audited)?;
        let mut earlier = self.of_processes(kind, |other| other.event.first < kind.event.first);
        earlier.sort_by_key(|other| other.event.first);
        let (mut names, mut port) = (BTreeSet::new(), None);
        for other in earlier {
            match &other.event.subject {
                Subject::Name(name) => {
                    if port.take().is_some() {
                        names.clear();
                    }
                    names.insert(&*name.name);
                }
                _ => port = port.or(connected(other).map(|(at, _)| at.port)),
            }
        }
        let name = names.pop_first().filter(|_| names.is_empty())?;
        port.is_none_or(|port| port == at.port).then_some(name)
    }

    /// Kinds of denials in which a process has part that has part in this one, too.
    fn of_processes(&self, one: &Kind, is_meant: impl Fn(&Kind) -> bool) -> Vec<&Kind> {
        let has = |pid: Option<u32>| pid.is_some() && one.processes.iter().any(|process| process.pid == pid);
        let is_of = |kind: &&Kind| is_meant(kind) && kind.processes.iter().any(|process| has(process.pid));
        self.kinds.iter().filter(is_of).collect()
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
fn connected(kind: &Kind) -> Option<(LedTo, Option<&str>)> {
    let Subject::Network(network) = &kind.event.subject else { return None };
    let protocol = ["tcp", "udp"].into_iter().find(|known| *known == network.protocol)?;
    let is_active = ["connect", "send"].contains(&&*kind.event.op);
    // Resolvers ask nameservers, and connect sockets to addresses alone in order to sort them.
    let is_other = network.port != 0 && network.port != 53;
    let is_near = nearness(shared_space(network.address), ones_if_equal).private != 0;
    let led_to = LedTo { protocol, port: network.port, is_near };
    (is_active && is_other).then_some((led_to, network.host.as_deref()))
}
