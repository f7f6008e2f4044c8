//! Races in the file system: guard-run and guard-hook, while an attacker replaces what they look up in the attacker's folders.
//!
//! Every program waits at each look-up that leads through such a folder. First all schedules with one replacement are tried, then
//! random ones with several. What must hold is judged from outside, by what became of a victim's files, and from inside, by what
//! the guarded command sees.

mod run;
pub mod schedule;
mod subjects;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use self::{
    run::run,
    schedule::{Running, Stop, Swap},
    subjects::{Run, SUBJECTS, Subject},
};
use crate::{
    attacker::{Attacker, Replace, Replacement},
    containers::Container,
    finding::{Finding, Violation},
    guarded::{Runs, own_program},
    minimise::minimise,
    place::Place,
    probe::Seen,
    session::{Session, found, note},
    world::{self, TMUX},
};

/// How many sockets are a crowd: more than a mount namespace may have mounts (fs.mount-max).
const CROWD: u32 = 100_001;

/// What became of one attempt.
struct Attempt {
    violations: Vec<Violation>,
    stops: Vec<Stop>,
    story: Vec<String>,
}

/// A violation, and what led to it, for people.
struct Told {
    violation: Violation,
    story: Vec<String>,
}

impl AsRef<Violation> for Told {
    fn as_ref(&self) -> &Violation {
        &self.violation
    }
}

/// Runs attempts.
struct Races<'a> {
    session: &'a mut Session,
    place: &'a Place,
    attacker: Attacker,
    container: Container,
    runs: Runs,
    before: BTreeMap<PathBuf, Result<Seen, i32>>,
    attempts: u64,
}

/// Fuzzes until the time is over.
///
/// # Errors
///
/// When the world around an attempt can't be made.
pub fn fuzz(session: &mut Session, place: &Place) -> anyhow::Result<()> {
    let mut random = session.random.clone();
    let own = (0..).zip(SUBJECTS).filter(|(number, _)| session.is_own(*number)).map(|(_, subject)| *subject);
    let own: Vec<(&str, Subject)> = own.collect();
    let mut races = Races::new(session, place)?;
    let mut seen = BTreeSet::new();
    // First everything with one replacement, the subjects taking turns.
    let mut queues = Vec::new();
    for (name, subject) in &own {
        let attempt = races.attempt(*subject, &[])?;
        races.report(name, *subject, &[], &attempt, &mut seen)?;
        anyhow::ensure!(!attempt.stops.is_empty(), "{name}: nothing of the attacker's is looked up");
        // Anybody who names a FIFO for a log or policy waits for the other end, as a shell does.
        let waits = matches!(subject, Subject::Run(run) if !run.independent);
        let mut swaps: Vec<Swap> = attempt.stops.iter().flat_map(swaps).collect();
        swaps.retain(|swap| !waits || swap.replace.by != Replacement::Fifo);
        // In any order: the end of the time must not always hide the same ones.
        for index in (1..swaps.len()).rev() {
            swaps.swap(index, random.below(index + 1));
        }
        // Those that lead somewhere come first; the queue is taken from its end.
        swaps.sort_by_key(|swap| swap.replace.by.leads());
        note(&format!("{name}: {} look-ups, {} replacements", attempt.stops.len(), swaps.len()));
        queues.push((*name, *subject, swaps.clone(), swaps));
    }
    while queues.iter().any(|(_, _, left, _)| !left.is_empty()) {
        for (name, subject, left, _) in &mut queues {
            let Some(swap) = left.pop() else { continue };
            if races.session.is_over() {
                return Ok(());
            }
            races.try_schedule(name, *subject, &[swap], &mut seen)?;
        }
    }
    note("all schedules with one replacement have been tried");
    for (name, subject, ..) in &queues {
        if matches!(subject, Subject::Run(run) if run.sockets) && !races.session.is_over() {
            let replace = Replace { what: TMUX.into(), by: Replacement::Crowd(CROWD) };
            races.try_schedule(name, *subject, &[Swap { at: (0, 0), replace }], &mut seen)?;
        }
    }
    while !races.session.is_over() {
        let (name, subject, _, all) = random.pick(&queues);
        if all.is_empty() {
            continue;
        }
        let mut schedule: Vec<Swap> = Vec::new();
        for _ in 0..2 + random.below(2) {
            let mut swap = random.pick(all).clone();
            if let Some(earlier) = schedule.last()
                && random.once_in(2)
            {
                swap.replace.what.clone_from(&earlier.replace.what);
                swap.replace.by = Replacement::Former;
            }
            schedule.push(swap);
        }
        races.try_schedule(name, *subject, &schedule, &mut seen)?;
    }
    Ok(())
}

fn swaps(stop: &Stop) -> Vec<Swap> {
    stop.replacements().into_iter().map(|replace| Swap { at: stop.at, replace }).collect()
}

impl<'a> Races<'a> {
    fn new(session: &'a mut Session, place: &'a Place) -> anyhow::Result<Self> {
        let attacker = Attacker::start(&own_program()?)?;
        let container = Container::start(place)?;
        let runs = Runs::new(place)?;
        let mut races = Self { session, place, attacker, container, runs, before: BTreeMap::new(), attempts: 0 };
        races.renew()?;
        Ok(races)
    }

    /// Looks at the victim's files, which have just been made.
    fn renew(&mut self) -> anyhow::Result<()> {
        world::attackers(true)?;
        world::tidy()?;
        self.before = world::snapshot();
        self.runs.look()
    }

    fn try_schedule(
        &mut self,
        name: &str,
        subject: Subject,
        schedule: &[Swap],
        seen: &mut BTreeSet<(String, String)>,
    ) -> anyhow::Result<()> {
        // What is known to hang takes all of the time.
        let fifo = schedule.iter().any(|swap| swap.replace.by == Replacement::Fifo);
        if fifo && seen.contains(&(name.to_owned(), "hang".to_owned())) {
            return Ok(());
        }
        let attempt = self.attempt(subject, schedule)?;
        self.report(name, subject, schedule, &attempt, seen)
    }

    /// Reports what is new, by the smallest schedule that leads to it.
    fn report(
        &mut self,
        name: &str,
        subject: Subject,
        schedule: &[Swap],
        attempt: &Attempt,
        seen: &mut BTreeSet<(String, String)>,
    ) -> anyhow::Result<()> {
        for violation in &attempt.violations {
            if !seen.insert((name.to_owned(), violation.kind.clone())) {
                continue;
            }
            let after = (self.session.elapsed(), self.attempts);
            let first = Told { violation: violation.clone(), story: attempt.story.clone() };
            let (_, least) = minimise(schedule, first, |fewer| {
                let Attempt { violations, story, .. } = self.attempt(subject, fewer)?;
                Ok(violations.into_iter().map(move |violation| Told { violation, story: story.clone() }))
            })?;
            let way = if least.story.is_empty() { vec!["nothing is replaced".to_owned()] } else { least.story };
            found(Finding { subject: name.to_owned(), violation: least.violation, way, after })?;
        }
        Ok(())
    }

    /// Runs a subject with a schedule.
    fn attempt(&mut self, subject: Subject, schedule: &[Swap]) -> anyhow::Result<Attempt> {
        self.attempts += 1;
        self.session.count();
        world::attackers(matches!(subject, Subject::Run(Run { sockets: true, .. })))?;
        let mut running = Running::new(schedule, &mut self.attacker);
        let mut violations = match subject {
            Subject::Run(subject) => run(&self.runs, &subject, &mut running)?,
            Subject::Container(log, end) => {
                let id = format!("{}-{}", self.place.name(), self.attempts);
                self.container.live(&id, log, end, &mut running)?
            }
        };
        let (stops, story) = (running.stops.clone(), running.story());
        let changes = world::differences(&self.before, &world::snapshot());
        if !changes.is_empty() {
            // What has changed is changed for the command, too.
            violations.retain(|violation| violation.kind != "inside");
            violations.push(Violation::new("outside", changes.join("; ")));
            self.session.note_once("the victim's files are made anew after each attempt that has changed them");
            world::victim()?;
            self.renew()?;
        }
        world::tidy()?;
        Ok(Attempt { violations, stops, story })
    }
}
