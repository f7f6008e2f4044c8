//! What a denial costs, and whether ten million of them are all counted.

use std::{
    fs,
    io::Read as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{
    memory::{MIB, peak_rss},
    policies,
    report::{Figure, Goal},
    setup::Setup,
    side::Side,
    stats::median,
    worker::{Operation, STORM, Task},
};

const ROUNDS: usize = 10;
const TURNS: usize = 3;
const STORM_PROCESSES: u32 = 4;
const STORM_CONNECTS: u32 = 2_500_000;

/// What of guard-run's log matters here. Its counts are far below 2^53, so a float holds them exactly.
#[derive(Deserialize)]
struct Log {
    lost: f64,
    enforced: Enforced,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Enforced {
    hooks: Vec<Hook>,
}

#[derive(Deserialize)]
struct Hook {
    denied: f64,
}

#[derive(Deserialize)]
struct Event {
    count: f64,
}

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let mut figures = vec![Figure::new("denied UDP connect", one(setup)?, "ns")];
    figures.extend(storm(setup)?);
    Ok(figures)
}

/// Nanoseconds of a denied connect.
fn one(setup: &Setup) -> anyhow::Result<f64> {
    let policy = policies::no_udp(setup)?;
    let task = Task { operation: Operation::UdpConnectDenied { port: 9 }, repeat: 500, batches: 30 };
    let mut values = Vec::new();
    for _ in 0..ROUNDS {
        let mut side = Side::guarded(setup, &policy)?;
        side.measure(&task)?;
        for _ in 0..TURNS {
            values.push(side.measure(&task)?);
        }
    }
    Ok(median(&values))
}

fn storm(setup: &Setup) -> anyhow::Result<[Figure; 5]> {
    let log = setup.scratch.path().join("storm.json");
    let mut command = Command::new(&setup.guard_run);
    command.args(["--quiet", "--fresh", "--policy"]).arg(policies::no_udp(setup)?).arg("--log").arg(&log).arg("--");
    command.arg(&setup.own).args([STORM, &STORM_PROCESSES.to_string(), &STORM_CONNECTS.to_string()]);
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut peak = 0.0;
    let status = loop {
        if let Some(status) = process.try_wait()? {
            break status;
        }
        // It may end in between; then the value from before holds.
        peak = peak_rss(process.id()).unwrap_or(peak);
        thread::sleep(Duration::from_millis(10));
    };
    ensure!(status.success(), "the storm ended with {status}");
    let mut seconds = String::new();
    process.stdout.take().context("it is piped")?.read_to_string(&mut seconds)?;
    let seconds: f64 = seconds.trim().parse()?;
    let log: Log = serde_json::from_slice(&fs::read(&log)?).context("the storm's log")?;
    let all = f64::from(STORM_PROCESSES) * f64::from(STORM_CONNECTS);
    let counted: f64 = log.events.iter().map(|event| event.count).sum();
    let denied: f64 = log.enforced.hooks.iter().map(|hook| hook.denied).sum();
    Ok([
        Figure::new("storm: denials per second", all / seconds, "1/s"),
        Figure::new("storm: denials that the hooks counted", denied, "").with_goal(Goal::Exactly(all)),
        Figure::new("storm: denials in the log's events", counted, "").with_goal(Goal::Exactly(all)),
        Figure::new("storm: lost", log.lost, "").with_goal(Goal::Exactly(0.0)),
        Figure::new("storm: guard-run's peak RSS", peak / MIB, "MiB").with_goal(Goal::AtMost(8.0)),
    ])
}
