//! Counts the system calls that were refused by what keeps the command inside beside the programs.

use std::{collections::BTreeMap, sync::Arc};

use report::{Cause, Clock, Details, Event, Observed, Process, Refusal, Subject, Test, Verdict, Word};

use crate::process::Status;

/// How many kinds of refusals are told apart. As many as the kernel side's records of one noun.
const KINDS: usize = 4096;

/// What tells one kind of refusal from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    process: u32,
    refusal: Refusal,
}

struct Tally {
    uid: u32,
    comm: String,
    details: Arc<Details>,
    test: Option<Test>,
    count: u64,
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    first: u64,
    last: u64,
}

/// Counts refusals, all of them exactly.
#[derive(Default)]
pub(crate) struct Calls {
    tallies: BTreeMap<Key, Tally>,
    observed: Observed,
}

impl Calls {
    /// Counts one, of this thread's. `look` finds out about a process, and the test of its thread. Returns the event if it is the first of its kind.
    pub(crate) fn add(
        &mut self,
        refusal: Refusal,
        who: Option<Status>,
        now: u64,
        look: impl FnOnce(u32, &str) -> (Arc<Details>, Option<Test>),
        (clock, verdict): (&Clock, Verdict),
    ) -> Option<Event> {
        self.observed.refused += 1;
        let room = self.tallies.len() < KINDS;
        let Some(who) = who else {
            self.observed.unrecorded += 1;
            return None;
        };
        let key = Key { process: who.process, refusal };
        if let Some(tally) = self.tallies.get_mut(&key) {
            tally.count += 1;
            tally.last = now;
            return None;
        }
        if !room {
            self.observed.unrecorded += 1;
            return None;
        }
        let (details, test) = look(who.process, &who.comm);
        let tally = Tally { uid: who.real, comm: who.comm, details, test, count: 1, first: now, last: now };
        let event = event(&key, &tally, clock, verdict);
        self.tallies.insert(key, tally);
        Some(event)
    }

    /// How many there were.
    pub(crate) const fn observed(&self) -> Observed {
        self.observed
    }

    /// All of them, each with the count that it was announced with.
    pub(crate) fn events(&self, clock: &Clock, verdict: Verdict) -> impl Iterator<Item = (Event, u64)> {
        self.tallies.iter().map(move |(key, tally)| (event(key, tally, clock, verdict), 1))
    }
}

fn event(key: &Key, tally: &Tally, clock: &Clock, verdict: Verdict) -> Event {
    let Key { process, refusal: Refusal { call, measure, remedy } } = key;
    let time = clock.time(tally.first);
    Event {
        time,
        op: Word::Borrowed("call"),
        hook: measure.clone(),
        verdict,
        process: Process {
            pid: Some(*process),
            uid: tally.uid,
            comm: tally.comm.clone(),
            details: Arc::clone(&tally.details),
        },
        test: tally.test.clone(),
        subject: Subject::Call(call.clone()),
        cause: Cause { rule: "/process".to_owned(), reason: Some(remedy.clone().into()) },
        count: tally.count,
        first: time,
        last: clock.time(tally.last),
    }
}

#[cfg(test)]
mod tests {
    use report::Call;

    use super::*;
    use crate::journal::clock;

    #[test]
    fn every_refusal_is_counted_also_where_there_is_no_room_for_its_kind() {
        let (mut calls, clock) = (Calls::default(), clock().expect("a clock"));
        let who = Status::read(std::process::id()).expect("it is there");
        let mut add = |of: Option<usize>, who: Option<&Status>| {
            let path = of.map(|number| number.to_string());
            let call = Call { name: "mount".into(), path, error: "EPERM".to_owned(), wants: String::new() };
            let refusal = Refusal { call, measure: "seccomp".into(), remedy: String::new() };
            calls.add(refusal, who.cloned(), 7, |_, _| Default::default(), (&clock, Verdict::Denied)).is_some()
        };
        assert!(add(None, Some(&who)) && !add(None, Some(&who)) && !add(None, None));
        let new = (0..KINDS).filter(|number| add(Some(*number), Some(&who))).count();
        assert!(!add(None, Some(&who)), "a known one is counted all the same");
        assert_eq!(new, KINDS - 1);
        let refused = 4 + u64::try_from(KINDS).expect("it is small");
        assert_eq!(calls.observed(), Observed { refused, unrecorded: 2 });
        let counts: u64 = calls.events(&clock, Verdict::Denied).map(|(event, _)| event.count).sum();
        assert_eq!(counts, refused - 2);
    }
}
