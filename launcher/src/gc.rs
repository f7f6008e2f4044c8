//! `guard-run gc`: reaps what guard-runs that were killed have left behind, and what those that were not have kept.

use std::{fs::File, time::Duration};

use crate::{
    destination::log_folder,
    logs::{Age, remove_older},
};
use enforce::{
    cgroup::{Hierarchy, reap},
    exit,
    load::{Removed, clear_cache},
    outlet::tell,
    privilege::{self, Rights},
    target::sweep,
};
use report::text::OneLine;

/// How long to wait for the kernel to find that the cgroups of runs that have ended are gone. It takes some 20 ms.
const PATIENCE: Duration = Duration::from_secs(2);

/// Removes every leaf in the hierarchy whose launcher is gone, and kills what still runs there; then, for root, the programs
/// that are kept for the next run; then logs that were left half written in the folder for logs, and those that are older than this.
///
/// The status is [`exit::NO`] where something is left that no guard-run uses.
///
/// # Errors
///
/// When there is no hierarchy, or the folder for logs can't be read although old logs are to be removed.
pub fn gc(older: Option<&Age>, rights: &mut Rights) -> anyhow::Result<u8> {
    let (removed, failed) = reap(&Hierarchy::find()?, rights);
    for path in &removed {
        println!("removed {}", OneLine(path.display()));
    }
    println!("{} removed", count(removed.len(), "abandoned leaf", "abandoned leaves"));
    let mut status = exit::OK;
    if privilege::is_root() {
        let Removed { removed, in_use, guarding, failed } = clear_cache(PATIENCE);
        println!("{} removed", count(removed, "cache entry", "cache entries"));
        if in_use > 0 {
            println!("{} left to guard-runs that go on", count(in_use, "cache entry", "cache entries"));
        }
        if guarding > 0 {
            tell(&format!(
                "{} left: a process or socket that was handed to somebody outside is still guarded by each; \
                 run `guard-run gc` again when it is gone",
                count(guarding, "cache entry", "cache entries")
            ));
            status = exit::NO;
        }
        if failed > 0 {
            tell(&format!("{} can't be removed", count(failed, "cache entry", "cache entries")));
            status = exit::NO;
        }
    }
    let drafts = log_folder().and_then(|folder| sweep(File::open(folder)?)).unwrap_or(0);
    if drafts > 0 {
        println!("{} removed", count(drafts, "half-written log", "half-written logs"));
    }
    if let Some(age) = &older {
        println!("{} older than {age} removed", count(remove_older(&log_folder()?, age)?, "log", "logs"));
    }
    if !failed.is_empty() {
        status = exit::FAILURE;
    }
    for error in failed {
        tell(&format!("can't remove {:#}", anyhow::Error::from(error)));
    }
    Ok(status)
}

fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}
