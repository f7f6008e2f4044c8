//! Denials of logs, put together by what was denied and by which rule.

use std::collections::HashMap;

use report::{Event, Process};

use crate::Record;

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
        if let Record::Event(event) = record {
            self.add_kind(Kind { processes: vec![event.process.clone()], event, more: 0 });
        }
    }

    /// Takes what was collected from other logs of the same policy.
    pub fn append(&mut self, other: Self) {
        self.further += other.further;
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
