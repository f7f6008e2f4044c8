//! When something was denied or reached.

use jiff::Timestamp;
use serde::Serialize;

use crate::{run::Run, summary::Flow};

/// How many slots the time is divided into.
const SLOTS: usize = 60;

/// What happened in each slot of the time from the first run's start to the last one's end. All slots are of one length.
#[derive(Debug, Serialize)]
pub struct Timeline {
    /// The beginning.
    #[serde(serialize_with = "report::nanoseconds")]
    pub first: Timestamp,
    /// The end.
    #[serde(serialize_with = "report::nanoseconds")]
    pub last: Timestamp,
    /// How often something was denied. What was denied several times counts evenly between its first and last time.
    pub denials: Vec<u64>,
    /// How many flows there were.
    pub flows: Vec<u64>,
}

impl Timeline {
    /// The time line of denials (first and last time, and how often) and flows.
    pub(crate) fn of(runs: &[Run], moments: &[(Timestamp, Timestamp, u64)], flows: &[Flow]) -> Option<Self> {
        let ends = runs.iter().flat_map(|run| [run.started, run.ended]).flatten();
        let denied = moments.iter().flat_map(|(first, last, _)| [*first, *last]);
        let reached = flows.iter().flat_map(|flow| [flow.first, flow.last]);
        let (denied, reached): (Vec<_>, Vec<_>) = (denied.collect(), reached.collect());
        if denied.is_empty() && reached.is_empty() {
            return None;
        }
        let all = || ends.clone().chain(denied.iter().copied()).chain(reached.iter().copied());
        let (first, last) = (all().min()?, all().max()?);
        let mut line = Self { first, last, denials: vec![0; SLOTS], flows: vec![0; SLOTS] };
        for (from, to, count) in moments {
            let (from, to) = (line.slot(*from), line.slot(*to));
            let slots = (to.saturating_sub(from) + 1) as u64;
            for (place, slot) in line.denials[from..=to.max(from)].iter_mut().enumerate() {
                let more = u64::from((place as u64) < count % slots);
                *slot = slot.saturating_add(count / slots + more);
            }
        }
        for flow in flows {
            let (from, to) = (line.slot(flow.first), line.slot(flow.last));
            line.flows[from..=to.max(from)].iter_mut().for_each(|slot| *slot += 1);
        }
        Some(line)
    }

    /// The slot of a time.
    fn slot(&self, time: Timestamp) -> usize {
        let length = (self.last.as_nanosecond() - self.first.as_nanosecond()).max(1);
        let since = time.as_nanosecond() - self.first.as_nanosecond();
        let slot = since.saturating_mul(SLOTS as i128) / length;
        usize::try_from(slot).unwrap_or(0).min(SLOTS - 1)
    }

    /// How long it all took, in words.
    #[must_use]
    pub fn length(&self) -> String {
        let milliseconds = (self.last.as_nanosecond() - self.first.as_nanosecond()) / 1_000_000;
        match milliseconds {
            0..1000 => format!("{milliseconds} ms"),
            1000..10_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
            10_000..600_000 => format!("{} s", milliseconds / 1000),
            _ => format!("{} min", milliseconds / 60_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_slots() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let moments = [(at(0), at(0), 1), (at(30), at(60), 7), (at(60), at(60), 2), (at(5), at(4), 3)];
        let line = Timeline::of(&[], &moments, &[]).unwrap();
        assert_eq!(line.denials.iter().sum::<u64>(), 13);
        assert_eq!((line.denials[0], line.denials[5], line.denials[59]), (1, 3, 2));
        assert_eq!((line.length().as_str(), line.flows.len()), ("60 s", SLOTS));
        assert!(Timeline::of(&[], &[], &[]).is_none());
        let line = Timeline::of(&[], &[(at(1), at(1), u64::MAX), (at(1), at(1), 1)], &[]).unwrap();
        assert_eq!(line.denials[0], u64::MAX);
    }
}
