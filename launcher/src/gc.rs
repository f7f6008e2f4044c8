//! `guard-run gc`: reaps what guard-runs that were killed have left behind.

use crate::{
    cgroup::{Hierarchy, reap},
    exit,
    run::tell,
};

/// Removes every leaf in the hierarchy whose launcher is gone, and kills what still runs there.
///
/// # Errors
///
/// When there is no hierarchy.
pub fn gc() -> anyhow::Result<u8> {
    let (removed, failed) = reap(&Hierarchy::find()?);
    for path in &removed {
        println!("removed {}", path.display());
    }
    println!("{} abandoned {} removed", removed.len(), if removed.len() == 1 { "leaf" } else { "leaves" });
    let status = if failed.is_empty() { exit::OK } else { exit::FAILURE };
    for error in failed {
        tell(&format!("can't remove {:#}", anyhow::Error::from(error)));
    }
    Ok(status)
}
