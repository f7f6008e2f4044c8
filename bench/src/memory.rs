//! The memory of guard-run, and of its maps in the kernel.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{
    policies,
    report::{Figure, Goal},
    setup::Setup,
    side::Side,
    worker::{Operation, Task},
};

/// Bytes.
pub const MIB: f64 = 1024.0 * 1024.0;

/// What bpftool says of a program.
#[derive(Deserialize)]
struct Program {
    id: u32,
    #[serde(default)]
    map_ids: Vec<u32>,
}

/// What bpftool says of a map.
#[derive(Deserialize)]
struct Map {
    id: u32,
    bytes_memlock: u32,
}

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let (process, maps) = of_policy(setup, &setup.tutorial)?;
    let (large_process, large_maps) = of_policy(setup, &policies::cidrs(setup)?)?;
    Ok(vec![
        Figure::new("guard-run's peak RSS, tutorial policy", process / MIB, "MiB").with_goal(Goal::AtMost(8.0)),
        Figure::new("kernel memory of its maps, tutorial policy", maps / MIB, "MiB").with_goal(Goal::AtMost(1.0)),
        Figure::new("guard-run's peak RSS, 100,000 CIDRs", large_process / MIB, "MiB"),
        Figure::new("kernel memory of its maps, 100,000 CIDRs", large_maps / MIB, "MiB"),
    ])
}

/// Bytes of guard-run, and of the maps of its programs.
fn of_policy(setup: &Setup, policy: &Path) -> anyhow::Result<(f64, f64)> {
    let mut side = Side::guarded(setup, policy)?;
    // When it answers, everything has been set up.
    side.measure(&Task { operation: Operation::Open, repeat: 1, batches: 1 })?;
    Ok((peak_rss(side.pid())?, kernel_memory(side.pid())?))
}

/// The most that a process has had resident, in bytes.
pub fn peak_rss(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Ok(value.context("the process has ended")?.parse::<f64>()? * 1024.0)
}

/// What the maps of all programs that a process holds cost, in bytes.
fn kernel_memory(pid: u32) -> anyhow::Result<f64> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = fs::read_to_string(entry?.path())?;
        held.extend(info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()));
    }
    memory_of(&held)
}

/// What the maps of these programs cost, in bytes.
pub fn memory_of(held: &BTreeSet<u32>) -> anyhow::Result<f64> {
    let programs: Vec<Program> = bpftool(&["prog", "show"])?;
    let maps_of = programs.into_iter().filter(|program| held.contains(&program.id)).flat_map(|program| program.map_ids);
    let maps_of: BTreeSet<u32> = maps_of.collect();
    ensure!(!maps_of.is_empty(), "there are no programs with maps");
    let maps: Vec<Map> = bpftool(&["map", "show"])?;
    Ok(maps.iter().filter(|map| maps_of.contains(&map.id)).map(|map| f64::from(map.bytes_memlock)).sum())
}

/// What bpftool lists.
pub fn bpftool<T: for<'a> Deserialize<'a>>(what: &[&str]) -> anyhow::Result<Vec<T>> {
    let output = Command::new("bpftool").arg("-j").args(what).output();
    let output = output.context("bpftool (make bench installs it)")?;
    ensure!(output.status.success(), "bpftool {what:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(|| format!("bpftool {what:?}"))
}
