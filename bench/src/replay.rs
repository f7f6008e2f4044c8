//! How fast `guard-run replay` judges logs.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::{
    report::{Figure, Goal},
    setup::Setup,
    stats::median,
};

/// Records in all logs.
const RECORDS: u32 = 400_000;

/// Logs, as of as many runs.
const LOGS: u32 = 20;

/// How often they are judged.
const ROUNDS: usize = 5;

/// Records a second of logs of half events and half flows, of a thousand peers, as guard-run writes them.
pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let policy = setup.scratch.path().join("replayed.json");
    let rule = json!({"action": "allow", "ops": ["connect"], "hosts": ["10.0.0.0/9"], "ports": [443]});
    let text = json!({"version": 1, "network": {"default": "deny", "rules": [rule]}});
    std::fs::write(&policy, text.to_string())?;
    let logs: Vec<PathBuf> = (0..LOGS).map(|number| setup.scratch.path().join(format!("log{number}.json"))).collect();
    logs.iter().try_for_each(|log| write(log))?;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let output = Command::new(&setup.guard_run).args(["replay", "--json"]).arg(&policy).args(&logs).output()?;
        let taken = begun.elapsed().as_secs_f64();
        let replayed: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(replayed["records"] == RECORDS, "{output:?}");
        rates.push(f64::from(RECORDS) / taken / 1e6);
    }
    Ok(vec![Figure::new("records that replay judges", median(&rates), "million/s").with_goal(Goal::AtLeast(1.0))])
}

/// Writes one of the logs.
fn write(log: &Path) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(log)?);
    let list = |kind: fn(u32) -> Value| {
        let records = (0..RECORDS / LOGS / 2).map(kind);
        records.map(|record| serde_json::to_string_pretty(&record))
    };
    write!(file, "{{\n  \"schema\": 1,\n  \"events\": [")?;
    for (key, records) in [("", list(event as fn(u32) -> Value)), ("],\n  \"flows\": [", list(flow))] {
        write!(file, "{key}")?;
        for (number, record) in records.enumerate() {
            write!(file, "{}\n{}", if number == 0 { "" } else { "," }, record?)?;
        }
    }
    writeln!(file, "\n  ]\n}}")?;
    file.into_inner()?;
    Ok(())
}

const TIME: &str = "2026-11-29T21:40:15.411872945Z";

fn process() -> Value {
    json!({"pid": 17756, "uid": 0, "comm": "python3", "exe": "/usr/bin/python3.11", "argv": ["python3", "t.py"],
        "parent": {"pid": 17751, "comm": "guard-run"}})
}

fn network(number: u32) -> Value {
    json!({"address": format!("10.{}.0.1", number % 250), "port": 440 + number % 4, "protocol": "tcp", "host": null})
}

fn event(number: u32) -> Value {
    json!({"time": TIME, "op": "connect", "hook": "connect4", "verdict": "denied", "process": process(),
        "network": network(number), "rule": "default", "count": 1, "first": TIME, "last": TIME})
}

fn flow(number: u32) -> Value {
    json!({"direction": "outgoing", "network": network(number), "process": process(), "connections": 1, "open": 0,
        "duration": 0.25, "bytes": {"sent": 80, "received": 1000}, "first": TIME, "last": TIME})
}
