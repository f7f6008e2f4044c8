//! The table of figures, for people and as JSON.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    path::Path,
};

use anyhow::Context as _;
use jiff::Timestamp;
use nix::sys::utsname::uname;
use serde::Serialize;

/// What a figure has to be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Exactly(wanted) => (value - wanted).abs() < f64::EPSILON,
        }
    }
}

impl Display for Goal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit}"),
            Self::AtLeast(limit) => write!(f, "≥ {limit}"),
            Self::Exactly(wanted) => write!(f, "= {wanted}"),
        }
    }
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

impl Figure {
    /// A figure that stands for itself. No unit: a ratio or a count.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, goal: None, met: None }
    }

    /// The figure with a goal beside it.
    pub fn with_goal(self, goal: Goal) -> Self {
        let met = goal.is_met(self.value);
        Self { goal: Some(goal), met: Some(met), ..self }
    }
}

#[derive(Debug, Serialize)]
struct Section {
    name: &'static str,
    figures: Vec<Figure>,
}

/// All figures, and where they are from.
#[derive(Debug, Serialize)]
pub struct Figures {
    date: String,
    kernel: String,
    processor: String,
    processors: usize,
    sections: Vec<Section>,
}

impl Figures {
    pub fn new() -> anyhow::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            date: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            kernel: uname()?.release().to_string_lossy().into_owned(),
            processor: model.map_or("unknown", |(_, name)| name).to_owned(),
            processors: std::thread::available_parallelism()?.get(),
            sections: Vec::new(),
        })
    }

    pub fn add(&mut self, name: &'static str, figures: Vec<Figure>) {
        self.sections.push(Section { name, figures });
    }

    /// Writes the table as JSON.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder)?;
        fs::write(path, serde_json::to_vec_pretty(self)?).with_context(|| path.display().to_string())
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { date, kernel, processor, processors, sections } = self;
        writeln!(f, "guard-run on Linux {kernel}, {processors} × {processor}, {date}; medians")?;
        for Section { name, figures } in sections {
            writeln!(f, "\n{name}")?;
            for figure in figures {
                let goal = figure.goal.map(|goal| goal.to_string()).unwrap_or_default();
                let met = figure.met.map_or("", |met| if met { "met" } else { "MISSED" });
                let line =
                    format!("  {:<58} {:>13} {:<9} {goal:<8} {met}", figure.name, number(figure.value), figure.unit);
                writeln!(f, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }
}

/// A number with as many decimals as say something.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 | 1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
