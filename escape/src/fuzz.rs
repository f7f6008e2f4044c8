//! The fuzzer: session after session, each a policy with some hundred programs, until the time is over.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    count, generate, hindrance,
    judge::{self, Finding},
    manner::Manner,
    minimise::minimise,
    outside::Outside,
    policy::Policy,
    program::{Call, Program},
    random::Random,
    session::{Place, Run, Session},
    sys::INTERRUPTED,
    templates,
};

/// How many programs run under one policy.
const PROGRAMS: u64 = 250;
/// How many programs that differ are made smaller for one kind of finding.
const SHAPES: usize = 12;
/// How often a single program is run.
const AGAIN: usize = 3;
/// How often a racing program is tried again while it is made smaller.
const RACES: usize = 24;
/// How often one that does the same each time must show what it showed.
const REPEATS: usize = 3;

/// How long what miscounts may be made smaller.
const SHRINKING: Duration = Duration::from_secs(60);
/// The minor number of /dev/null.
const NULL: u32 = 3;
/// The part of a session's seed that says in which manner it is started.
const MANNER: u64 = u64::MAX;

/// What is asked for.
pub struct Options {
    pub place: Place,
    pub seed: u64,
    pub limit: Duration,
    /// Worlds, each with a thread of its own.
    pub worlds: u64,
    /// Run this session alone.
    pub session: Option<u64>,
    /// Of that session, run this program alone.
    pub program: Option<Vec<Call>>,
    /// End with the first finding of a class that has this text.
    pub until: Option<String>,
}

/// What was done, by all worlds together.
#[derive(Default)]
pub struct Totals {
    pub programs: AtomicU64,
    pub calls: AtomicU64,
    pub sessions: AtomicU64,
    /// Sessions that were to take kept programs: those that did not, and those that did.
    pub kept: [AtomicU64; 2],
    /// What bare programs called, how often, and how often that succeeded.
    pub made: Mutex<BTreeMap<String, (u64, u64)>>,
    /// Bare runs that did what the policy denies: what there was to be kept from.
    pub bare: Mutex<BTreeMap<String, u64>>,
    /// Findings by class and shape, and how often.
    pub findings: Mutex<BTreeMap<(String, String), u64>>,
}

/// Numbers for runs: each bears another one.
static TOKENS: AtomicU32 = AtomicU32::new(1);

struct World<'a> {
    options: &'a Options,
    totals: &'a Totals,
    outside: Outside,
    begun: Instant,
}

/// Fuzzes until the time is over, or somebody interrupts. Whether nothing was found.
///
/// # Errors
///
/// When the world can't be made, or a worker fails.
pub fn fuzz(options: &Options, totals: &Totals) -> Result<()> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let worlds: Vec<_> = (0..options.worlds)
            .map(|number| {
                scope.spawn(move || -> Result<()> {
                    let outside = Outside::new(&options.place.worker).context("making the network namespaces")?;
                    World { options, totals, outside, begun }.fuzz(number)
                })
            })
            .collect();
        worlds.into_iter().try_for_each(|world| world.join().expect("no world panics"))
    })
}

impl World<'_> {
    fn is_over(&self) -> bool {
        let found = |text: &String| {
            let findings = self.totals.findings.lock().expect("not poisoned");
            findings.keys().any(|(class, _)| class.contains(text))
        };
        INTERRUPTED.load(Relaxed)
            || self.begun.elapsed() > self.options.limit
            || self.options.until.as_ref().is_some_and(found)
    }

    fn fuzz(&mut self, world: u64) -> Result<()> {
        match (self.options.session, &self.options.program) {
            (Some(seed), Some(calls)) => return self.again(seed, calls),
            (Some(seed), None) => return self.session(seed),
            (None, _) => {}
        }
        let mut number = world;
        while !self.is_over() {
            self.session(Random::part(self.options.seed, number))?;
            number += self.options.worlds;
        }
        Ok(())
    }

    fn session(&mut self, seed: u64) -> Result<()> {
        let policy = self.policy(seed);
        let name = format!("{seed:016x}");
        let mut session = self.start(&name, &policy, seed)?;
        let mut done = Vec::new();
        for number in 0..PROGRAMS {
            if self.is_over() {
                break;
            }
            let program = generate::program(Random::part(seed, number + 1));
            if program.all().len() > crate::memory::MAX_CALLS {
                continue;
            }
            self.program(&mut session, &policy, seed, &program).with_context(|| {
                format!(
                    "session {name}, program {number}: {}\n{program}",
                    Session::complaint(&self.options.place, &name)
                )
            })?;
            done.push(program);
        }
        self.totals.sessions.fetch_add(1, Relaxed);
        let (tally, log) = session.end().with_context(|| Session::complaint(&self.options.place, &name))?;
        if let Some(reused) = tally.reused {
            self.totals.kept[usize::from(reused)].fetch_add(1, Relaxed);
        }
        for finding in count::miscounted(&tally, &log) {
            // On a busy machine, a datagram may come too late.
            let certain = finding.class != count::UNCOUNTED;
            if let Some(program) = self.miscounting(&policy, seed, &finding.class, done.clone(), certain)? {
                self.found(&policy, seed, &finding, &program);
            }
        }
        if self.options.session.is_none() {
            for kind in ["policy.json", "errors", "bare.errors"] {
                let _ = std::fs::remove_file(self.options.place.folder.join(format!("{name}.{kind}")));
            }
            let _ = std::fs::remove_dir_all(self.options.place.folder.join(format!("{name}.log")));
        }
        Ok(())
    }

    /// In which manner a session's workers are started.
    fn manner(&self, seed: u64) -> Manner {
        Random::new(Random::part(seed, MANNER)).one(&self.options.place.manners)
    }

    fn policy(&self, seed: u64) -> Policy {
        let mut policy = templates::policy(Random::part(seed, 0));
        policy.writes = self.manner(seed) == Manner::Container;
        // Without /dev/null, no container starts.
        policy.device = policy.device.filter(|minor| !(policy.writes && *minor == NULL));
        policy
    }

    /// Starts the workers of a session: in which manner and as whom, its seed says.
    fn start(&self, name: &str, policy: &Policy, seed: u64) -> Result<Session> {
        let (place, manner) = (&self.options.place, self.manner(seed));
        let as_nobody = !policy.raw && Random::new(seed).percent(30);
        let started = Session::start(place, name, policy, manner, as_nobody);
        started.with_context(|| format!("session {name}, {manner:?}: {}", Session::complaint(place, name)))
    }

    /// Notes what was called, and what of it succeeded.
    fn tell_calls(&self, program: &Program, bare: &Run) {
        let mut made = self.totals.made.lock().expect("not poisoned");
        for (call, outcome) in program.all().iter().zip(&bare.report.outcomes) {
            let Some(outcome) = outcome else { continue };
            for name in call.in_detail() {
                let (all, succeeded) = made.entry(name).or_default();
                *all += 1;
                *succeeded += u64::from(*outcome >= 0);
            }
        }
    }

    fn run(&mut self, session: &mut Session, program: &Program, guarded: bool) -> Result<Run> {
        let program = Program { token: TOKENS.fetch_add(1, Relaxed), calls: program.calls.clone() };
        let worker = if guarded { &mut session.guarded } else { &mut session.bare };
        let run = worker.run(&program, &mut self.outside)?;
        self.totals.calls.fetch_add(run.report.calls, Relaxed);
        Ok(run)
    }

    fn guarded(
        &mut self,
        session: &mut Session,
        policy: &Policy,
        program: &Program,
        bare: Option<&Run>,
    ) -> Result<Run> {
        let run = self.run(session, program, true)?;
        session.tally.add(policy, program, &run, bare);
        Ok(run)
    }

    fn program(&mut self, session: &mut Session, policy: &Policy, seed: u64, program: &Program) -> Result<()> {
        self.totals.programs.fetch_add(1, Relaxed);
        let bare = if program.races() { None } else { Some(self.run(session, program, false)?) };
        if let Some(bare) = &bare {
            self.tell_calls(program, bare);
            let mut counts = self.totals.bare.lock().expect("not poisoned");
            for finding in judge::escapes(policy, program, bare) {
                *counts.entry(finding.class).or_default() += 1;
            }
        }
        let guarded = self.guarded(session, policy, program, bare.as_ref())?;
        for finding in judge::escapes(policy, program, &guarded) {
            if self.is_well_known(&finding.class) {
                continue;
            }
            // The kernel's choice of a port is as good as a race.
            let tries = if program.races() || finding.class.contains("chosen") { RACES } else { 1 };
            let mut failed = None;
            let least = minimise(program, |candidate| {
                let mut rounds = (0..tries).take_while(|_| !INTERRUPTED.load(Relaxed));
                rounds.any(|_| match self.guarded(session, policy, candidate, None) {
                    Ok(run) => judge::escapes(policy, candidate, &run).iter().any(|found| found.class == finding.class),
                    Err(error) => {
                        failed.get_or_insert(error);
                        false
                    }
                })
            });
            failed.map_or(Ok(()), Err)?;
            self.found(policy, seed, &finding, &least);
        }
        if let Some(bare) = bare {
            let hindered = hindrance::hindered(policy, program, &guarded, &bare);
            if let Some(finding) = hindered.into_iter().next() {
                self.hindered(session, policy, seed, program, &finding)?;
            }
        }
        Ok(())
    }

    /// Finds out whether that happens each time, and with how little.
    fn hindered(
        &mut self,
        session: &mut Session,
        policy: &Policy,
        seed: u64,
        program: &Program,
        finding: &Finding,
    ) -> Result<()> {
        let mut again = |candidate: &Program| -> Result<bool> {
            for _ in 0..REPEATS {
                if INTERRUPTED.load(Relaxed) {
                    return Ok(false);
                }
                let bare = self.run(session, candidate, false)?;
                let guarded = self.guarded(session, policy, candidate, Some(&bare))?;
                let found = hindrance::hindered(policy, candidate, &guarded, &bare);
                if !found.iter().any(|found| found.class == finding.class) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        if again(program)? {
            let least = minimise(program, |candidate| again(candidate).unwrap_or(false));
            self.found(policy, seed, finding, &least);
        }
        Ok(())
    }

    /// Of the programs of a session whose log miscounts, one that does it alone, or as few as there are left. `None` if it isn't certain
    /// that they did, and they don't do it again.
    fn miscounting(
        &mut self,
        policy: &Policy,
        seed: u64,
        class: &str,
        mut programs: Vec<Program>,
        certain: bool,
    ) -> Result<Option<Program>> {
        let name = format!("{seed:016x}.again");
        let end = Instant::now() + SHRINKING;
        let mut miscounts = |programs: &[Program]| -> Result<bool> {
            // Each attempt takes a session of its own. What is left by then is told as it is.
            if Instant::now() > end || INTERRUPTED.load(Relaxed) {
                return Ok(false);
            }
            let mut session = self.start(&name, policy, seed)?;
            for program in programs {
                let bare = if program.races() { None } else { Some(self.run(&mut session, program, false)?) };
                self.guarded(&mut session, policy, program, bare.as_ref())?;
            }
            let (tally, log) = session.end()?;
            Ok(count::miscounted(&tally, &log).iter().any(|found| found.class == class))
        };
        if !certain && !miscounts(&programs)? {
            return Ok(None);
        }
        while programs.len() > 1 {
            let second = programs.split_off(programs.len() / 2);
            if !miscounts(&programs)? {
                if !miscounts(&second)? {
                    break;
                }
                programs = second;
            }
        }
        let calls = programs.into_iter().flat_map(|program| program.calls).collect();
        let program = Program { token: 0, calls };
        Ok(Some(minimise(&program, |candidate| miscounts(std::slice::from_ref(candidate)).unwrap_or(false))))
    }

    /// Whether so much was found of that kind that another one would tell nothing new. It is counted.
    fn is_well_known(&self, class: &str) -> bool {
        let mut findings = self.totals.findings.lock().expect("not poisoned");
        let known = findings.keys().filter(|(known, _)| known == class).count() >= SHAPES;
        if known {
            *findings.entry((class.to_owned(), String::from("…"))).or_default() += 1;
        }
        known
    }

    /// Tells of a finding, unless one like it is known.
    fn found(&self, policy: &Policy, seed: u64, finding: &Finding, program: &Program) {
        let shape = program.shape().join(", ");
        let mut findings = self.totals.findings.lock().expect("not poisoned");
        let count = findings.entry((finding.class.clone(), shape)).or_default();
        *count += 1;
        if *count > 1 {
            return;
        }
        println!("FOUND after {:.1} s: {}", self.begun.elapsed().as_secs_f64(), finding.class);
        println!("    {}", finding.detail);
        println!("    policy: {}", policy.json());
        println!("    program, of session {seed:#x}:");
        print!("{program}");
        println!("    again: {}", serde_json::to_string(&program.calls).unwrap_or_default());
    }

    /// Runs a program some times under the session's policy, and tells of each call.
    fn again(&mut self, seed: u64, calls: &[Call]) -> Result<()> {
        let policy = self.policy(seed);
        let mut session = self.start("again", &policy, seed)?;
        println!("policy: {}", policy.json());
        let program = Program { token: 0, calls: calls.to_vec() };
        for _ in 0..AGAIN {
            let bare = self.run(&mut session, &program, false)?;
            let guarded = self.guarded(&mut session, &policy, &program, Some(&bare))?;
            for ((call, bare), guarded) in program.all().iter().zip(&bare.report.outcomes).zip(&guarded.report.outcomes)
            {
                println!("  {bare:?} bare, {guarded:?} guarded: {call}");
            }
            println!("  bare {:?} {:?} {:?}", bare.seen, bare.contacts, bare.report.received);
            println!("  guarded {:?} {:?} {:?}", guarded.seen, guarded.contacts, guarded.report.received);
            println!("  {:?}", judge::escapes(&policy, &program, &guarded));
            println!("  {:?}", hindrance::hindered(&policy, &program, &guarded, &bare));
        }
        let (tally, log) = session.end()?;
        println!("{:?}\n{:#}\n{:#}", count::miscounted(&tally, &log), log["events"], log["enforced"]["hooks"]);
        Ok(())
    }
}
