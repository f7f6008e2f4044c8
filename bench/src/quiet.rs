//! Waiting until no guard is attached anywhere.
//!
//! Attaching the first program of a kind to any cgroup switches code on in the kernel that everybody runs through, and
//! the kernel switches it off some time after the last such cgroup is gone. "Bare" is without it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// Somebody else on this machine may run a guard, for longer than is worth waiting for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits, and says whether there is none.
pub fn wait() -> anyhow::Result<bool> {
    let start = Instant::now();
    while !is_quiet()? {
        if start.elapsed() > PATIENCE {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// Whether none of guard-run's programs is loaded. The kernel lists compiled programs among its symbols.
pub fn is_quiet() -> anyhow::Result<bool> {
    let symbols = fs::read("/proc/kallsyms")?;
    let mut lines = symbols.rsplit(|byte| *byte == b'\n').skip(1).take_while(|line| line.ends_with(b"]"));
    Ok(!lines.any(|line| {
        let line = String::from_utf8_lossy(line);
        line.ends_with("[bpf]") && line.contains("_guard_")
    }))
}
