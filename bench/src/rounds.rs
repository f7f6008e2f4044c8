//! Measuring operations on several sides, which take turns in short rounds.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{
    cgroup::Leaf,
    quiet,
    report::Figure,
    setup::Setup,
    side::Side,
    stats::{difference, median, ratio},
    worker::{Operation, Task},
};

/// How often the sides take turns in a round.
const TURNS: usize = 4;

/// The sides that every plan begins with, and their names.
pub const BARE: usize = 0;
pub const NEIGHBOUR: usize = 1;
const UNGUARDED: [&str; 2] = ["bare", "unguarded neighbour"];

/// An operation, and how many of the sides it is measured on.
pub struct Subject {
    name: &'static str,
    task: Task,
    sides: usize,
    /// For each side, one value per round.
    values: Vec<Vec<f64>>,
}

impl Subject {
    pub fn new(name: &'static str, operation: Operation, repeat: u32, batches: u32, sides: usize) -> Self {
        Self { name, task: Task { operation, repeat, batches }, sides, values: vec![Vec::new(); sides] }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Nanoseconds that a side takes more than another.
    pub fn added(&self, side: usize, to: usize) -> f64 {
        difference(&self.values[side], &self.values[to])
    }

    pub fn ratio(&self, side: usize, to: usize) -> f64 {
        ratio(&self.values[side], &self.values[to])
    }
}

/// What is compared, and for how long.
pub struct Plan {
    /// The policies of the guarded sides, which come after [`BARE`] and [`NEIGHBOUR`], and what to call them.
    pub guarded: Vec<(&'static str, PathBuf)>,
    /// In each round, every worker is a new process: how a process happens to lie in memory makes a difference of some
    /// percent.
    pub rounds: u32,
    /// On a machine that is too busy for all of them, the rounds end after this.
    pub budget: Duration,
}

impl Plan {
    /// Measures the subjects. `tidy` is called after each measurement. Returns a figure for each subject and side, and two
    /// on the rounds.
    pub fn measure(
        &self,
        setup: &Setup,
        subjects: &mut [Subject],
        tidy: impl Fn() -> nix::Result<()>,
    ) -> anyhow::Result<Vec<Figure>> {
        let (mut rounds, mut disturbed) = (0_u32, 0_u32);
        let start = Instant::now();
        while rounds < self.rounds && start.elapsed() < self.budget {
            let quiet = quiet::wait()?;
            let bare = turns(&mut [Side::bare(setup)?], subjects, &tidy)?;
            if !quiet || !quiet::is_quiet()? {
                disturbed += 1;
                continue;
            }
            // All of these guards are attached at the same time, and elsewhere for the neighbour.
            let leaf = Leaf::create()?;
            let mut sides = vec![Side::neighbour(setup, &leaf)?];
            for (_, policy) in &self.guarded {
                sides.push(Side::guarded(setup, policy)?);
            }
            let others = turns(&mut sides, subjects, &tidy)?;
            for (subject, values) in subjects.iter_mut().zip(bare.iter().zip(others)) {
                let (bare, others) = values;
                let sides = bare.iter().chain(&others).take(subject.sides);
                subject.values.iter_mut().zip(sides).for_each(|(all, new)| all.push(*new));
            }
            rounds += 1;
        }
        ensure!(rounds > 0, "nothing is bare: others on this machine had guards attached all the time");
        let mut figures: Vec<Figure> = subjects.iter().flat_map(|subject| self.figures(subject)).collect();
        figures.push(Figure::new("rounds", rounds.into(), ""));
        figures.push(Figure::new("rounds given up: others had guards attached", disturbed.into(), ""));
        Ok(figures)
    }

    fn figures(&self, subject: &Subject) -> impl Iterator<Item = Figure> {
        let sides = UNGUARDED.into_iter().chain(self.guarded.iter().map(|(name, _)| *name)).zip(&subject.values);
        sides.map(|(side, values)| Figure::new(format!("{}, {side}", subject.name), median(values), "ns"))
    }
}

/// Lets the sides take turns. For each subject, one value per side.
fn turns(
    sides: &mut [Side],
    subjects: &[Subject],
    tidy: impl Fn() -> nix::Result<()>,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut values = vec![vec![Vec::new(); sides.len()]; subjects.len()];
    // The first turn warms up.
    for turn in 0..=TURNS {
        for (subject, values) in subjects.iter().zip(&mut values) {
            let mut order: Vec<usize> = (0..sides.len()).collect();
            if turn % 2 == 1 {
                order.reverse();
            }
            for side in order {
                let value = sides[side].measure(&subject.task)?;
                tidy()?;
                if turn > 0 {
                    values[side].push(value);
                }
            }
        }
    }
    Ok(values.iter().map(|sides| sides.iter().map(|values| median(values)).collect()).collect())
}
