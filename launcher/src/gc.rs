//! `guard-run gc`: reaps what guard-runs that were killed have left behind, and what those that were not have kept.

use std::fs::File;

use crate::destination::log_folder;
use enforce::{
    cgroup::{Hierarchy, reap},
    exit,
    load::remove_spares,
    outlet::tell,
    privilege,
    target::sweep,
};
use report::text::OneLine;

/// Removes every leaf in the hierarchy whose launcher is gone, and kills what still runs there; then, for root, the programs
/// that are kept for the next run; then logs that were left half written in the folder for logs.
///
/// # Errors
///
/// When there is no hierarchy.
pub fn gc() -> anyhow::Result<u8> {
    let (removed, failed) = reap(&Hierarchy::find()?);
    for path in &removed {
        println!("removed {}", OneLine(path.display()));
    }
    println!("{} abandoned {} removed", removed.len(), if removed.len() == 1 { "leaf" } else { "leaves" });
    if privilege::is_root() {
        let spares = remove_spares();
        println!("{spares} {} removed", if spares == 1 { "spare" } else { "spares" });
    }
    let drafts = log_folder().and_then(|folder| sweep(File::open(folder)?)).unwrap_or(0);
    if drafts > 0 {
        println!("{drafts} half-written {} removed", if drafts == 1 { "log" } else { "logs" });
    }
    let status = if failed.is_empty() { exit::OK } else { exit::FAILURE };
    for error in failed {
        tell(&format!("can't remove {:#}", anyhow::Error::from(error)));
    }
    Ok(status)
}
