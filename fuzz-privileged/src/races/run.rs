//! A run of guard-run under a schedule, and what must hold of it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::{
    schedule::Running,
    subjects::{AS_ATTACKER, Run, Starter},
};
use crate::{
    attacker::ATTACKER,
    drive::{Outcome, drive},
    finding::{Violation, manners},
    place::{self, Place},
    probe::{self, Sight, WORKING},
    world::{self, HOME, PROGRAMS, RUNTIME, VICTIM},
};

/// What guard-run exits with when it fails itself.
const FAILURES: [i32; 3] = [125, 126, 127];

/// A guard-run that has file capabilities.
pub fn ordinary() -> anyhow::Result<PathBuf> {
    let program = Path::new(world::OWN).join("guard-run");
    fs::copy(Path::new(PROGRAMS).join("guard-run"), &program)?;
    let output = Command::new(&program).arg("doctor").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.split_once("sudo setcap ")).context("doctor names capabilities")?;
    let capabilities = line.1.split(' ').next().unwrap_or_default().to_owned();
    let status = Command::new("setcap").arg(capabilities).arg(&program).status().context("setcap")?;
    anyhow::ensure!(status.success(), "setcap fails");
    Ok(program)
}

/// What a run of guard-run takes.
pub struct Tools<'a> {
    pub probe: &'a Path,
    pub ordinary: &'a Path,
    pub sights: &'a BTreeMap<u32, Sight>,
    pub place: &'a Place,
}

impl Tools<'_> {
    pub fn run(&self, run: &Run, running: &mut Running<'_>) -> anyhow::Result<Vec<Violation>> {
        let program = match run.starter {
            Starter::Root => Path::new(PROGRAMS).join("guard-run"),
            Starter::Attacker => self.ordinary.to_owned(),
        };
        let mut command = Command::new(&program);
        command.args(run.arguments).arg("--").arg(self.probe).args([probe::ROLE, VICTIM]);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", HOME).env("XDG_RUNTIME_DIR", RUNTIME);
        command.envs(run.environment.iter().copied()).stdin(Stdio::null());
        if run.starter == Starter::Attacker {
            command.uid(ATTACKER).gid(ATTACKER);
        }
        let mut expected = BTreeMap::new();
        let working = run.working.unwrap_or("/");
        command.current_dir(working);
        expected.insert(WORKING, identity(&fs::metadata(working)?));
        if let Some(folder) = run.stdin {
            let folder = File::open(folder)?;
            expected.insert(0, identity(&folder.metadata()?));
            command.stdin(OwnedFd::from(folder));
        }
        // Kept open until the program has ended.
        let handed = run.handed.map(File::open).transpose()?;
        if let Some(folder) = &handed {
            fcntl(folder, FcntlArg::F_SETFD(FdFlag::empty()))?;
            expected.insert(folder.as_raw_fd(), identity(&folder.metadata()?));
        }
        let mut begun = false;
        let outcome = drive(command, self.probe, 0, |lookup| {
            // What precedes guard-run's first instruction is the starter's.
            if !begun {
                begun = lookup.call == "execve" && lookup.paths.contains(&program);
                return Ok(());
            }
            running.at(lookup)
        })?;
        drop(handed);
        Ok(self.judge(run, &outcome, &expected))
    }

    fn judge(&self, run: &Run, outcome: &Outcome, expected: &BTreeMap<i32, (u64, u64)>) -> Vec<Violation> {
        let mut violations = manners(&outcome.output, outcome.hung, "guard-run: ", &FAILURES);
        let stderr = String::from_utf8_lossy(&outcome.output.stderr);
        let code = outcome.output.status.code();
        if run.independent && code.is_some_and(|code| FAILURES.contains(&code)) {
            violations.push(Violation::new("refused", format!("root's run does not start: {}", stderr.trim_end())));
        }
        if let Some(sight) = Sight::parse(&outcome.output.stdout) {
            let attacker = run.starter == Starter::Attacker || run.arguments.contains(&AS_ATTACKER);
            let bare = &self.sights[&if attacker { ATTACKER } else { 0 }];
            let changes = world::differences(&bare.files, &sight.files);
            if !changes.is_empty() {
                violations.push(Violation::new("inside", format!("the command sees: {}", changes.join("; "))));
            }
            for (number, file) in expected {
                let now = sight.descriptors.get(number);
                if now != Some(file) {
                    let what = if *number == WORKING {
                        "the working directory".to_owned()
                    } else {
                        format!("descriptor {number}")
                    };
                    let what = format!("{what} is not what was handed on: device and inode {now:?}, not {file:?}");
                    violations.push(Violation::new("descriptor", what));
                }
            }
        } else if code == Some(0) {
            violations.push(Violation::new("unrun", "it ended with 0, but the command has not run"));
        }
        if let Some(leaf) = outcome.id.and_then(|id| self.place.leaf(id)) {
            // What hung was killed.
            if !outcome.hung {
                violations.push(Violation::new("leaf", format!("{} is still there", leaf.display())));
            }
            place::end(&leaf);
        }
        violations
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
