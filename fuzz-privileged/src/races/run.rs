//! A run of guard-run under a schedule.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::{
    schedule::Running,
    subjects::{AS_ATTACKER, POLICY, Run},
};
use crate::{
    drive::drive,
    finding::Violation,
    guarded::{Expected, FAILURES, Runs, Starter},
    probe::WORKING,
};

/// Runs guard-run, and judges it.
///
/// # Errors
///
/// When it can't be run.
pub fn run(runs: &Runs, run: &Run, running: &mut Running<'_>) -> anyhow::Result<Vec<Violation>> {
    let mut command = runs.command(run.starter, run.arguments);
    command.envs(run.environment.iter().copied());
    let mut descriptors = BTreeMap::new();
    let working = run.working.unwrap_or("/");
    command.current_dir(working);
    descriptors.insert(WORKING, identity(&fs::metadata(working)?));
    if let Some(folder) = run.stdin {
        let folder = File::open(folder)?;
        descriptors.insert(0, identity(&folder.metadata()?));
        command.stdin(OwnedFd::from(folder));
    }
    // Kept open until the program has ended.
    let handed = run.handed.map(File::open).transpose()?;
    if let Some(folder) = &handed {
        fcntl(folder, FcntlArg::F_SETFD(FdFlag::empty()))?;
        descriptors.insert(folder.as_raw_fd(), identity(&folder.metadata()?));
    }
    let (program, mut begun) = (runs.program(run.starter), false);
    let outcome = drive(command, &runs.probe, 0, |lookup| {
        // What precedes guard-run's first instruction is the starter's.
        if !begun {
            begun = lookup.call == "execve" && lookup.paths.contains(&program);
            return Ok(());
        }
        running.at(lookup)
    })?;
    drop(handed);
    let expected = Expected {
        starter: run.starter,
        as_attacker: run.starter == Starter::Attacker || run.arguments.contains(&AS_ATTACKER),
        independent: run.independent,
        guarded: run.arguments.contains(&POLICY),
        descriptors,
    };
    let mut violations = runs.judge(&expected, &outcome);
    if run.independent && outcome.output.status.code().is_some_and(|code| FAILURES.contains(&code)) {
        let stderr = String::from_utf8_lossy(&outcome.output.stderr);
        violations.push(Violation::new("refused", format!("root's run does not start: {}", stderr.trim_end())));
    }
    Ok(violations)
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
