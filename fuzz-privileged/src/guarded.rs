//! Runs of guard-run with a command that says what it sees, and what must hold of all of them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;

use crate::{
    attacker::ATTACKER,
    drive::Outcome,
    finding::{Violation, manners},
    place::{self, Place},
    probe::{self, NO_NEW_PRIVILEGES, SETS, Seen, Sight, WORKING},
    world::{self, HOME, OWN, PROGRAMS, RUNTIME, VICTIM},
};

/// What guard-run exits with when it fails itself.
pub const FAILURES: [i32; 3] = [125, 126, 127];

/// Who a guard-run is started by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// Root.
    Root,
    /// The attacker, by a guard-run that has file capabilities.
    Attacker,
}

/// What is expected of a run.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Who started it.
    pub starter: Starter,
    /// Whether its command is the attacker's.
    pub as_attacker: bool,
    /// Whether it has nothing to do with the attacker's paths.
    pub independent: bool,
    /// Whether its policy forbids [`world::FORBIDDEN`].
    pub guarded: bool,
    /// The descriptors that are handed on: device and inode of each.
    pub descriptors: BTreeMap<i32, (u64, u64)>,
}

/// What runs of guard-run take.
#[derive(Debug)]
pub struct Runs {
    /// The command.
    pub probe: PathBuf,
    ordinary: PathBuf,
    /// What root and the attacker see without a guard.
    sights: BTreeMap<u32, Sight>,
    place: Place,
}

impl Runs {
    /// Makes ready.
    ///
    /// # Errors
    ///
    /// When there is no guard-run with file capabilities to be had, or the command can't be run without a guard.
    pub fn new(place: &Place) -> anyhow::Result<Self> {
        let probe = own_program()?;
        let mut runs = Self { probe, ordinary: ordinary()?, sights: BTreeMap::new(), place: place.clone() };
        runs.look()?;
        Ok(runs)
    }

    /// Finds out what is seen without a guard, since the victim's files have been made anew.
    ///
    /// # Errors
    ///
    /// When the command can't be run.
    pub fn look(&mut self) -> anyhow::Result<()> {
        for user in [0, ATTACKER] {
            let output = Command::new(&self.probe).args([probe::ROLE, VICTIM]).uid(user).gid(user).output()?;
            let sight = Sight::parse(&output.stdout).context("what a command sees without a guard")?;
            self.sights.insert(user, sight);
        }
        Ok(())
    }

    /// The file of a guard-run.
    #[must_use]
    pub fn program(&self, starter: Starter) -> PathBuf {
        match starter {
            Starter::Root => Path::new(PROGRAMS).join("guard-run"),
            Starter::Attacker => self.ordinary.clone(),
        }
    }

    /// A run of the command with these options.
    #[must_use]
    pub fn command(&self, starter: Starter, options: &[&str]) -> Command {
        let mut command = Command::new(self.program(starter));
        command.args(options).arg("--").arg(&self.probe).args([probe::ROLE, VICTIM]);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", HOME).env("XDG_RUNTIME_DIR", RUNTIME);
        if starter == Starter::Attacker {
            command.uid(ATTACKER).gid(ATTACKER);
        }
        command.stdin(Stdio::null()).current_dir("/");
        command
    }

    /// Judges a run.
    #[must_use]
    pub fn judge(&self, expected: &Expected, outcome: &Outcome) -> Vec<Violation> {
        let mut violations = manners(&outcome.output, outcome.hung, "guard-run: ", &FAILURES);
        if let Some(sight) = Sight::parse(&outcome.output.stdout) {
            let bare = &self.sights[&if expected.as_attacker { ATTACKER } else { 0 }];
            // A program that is told to look at the attacker's paths may find a socket of root's there, and cover that.
            let covered = |path: &PathBuf| !expected.independent && bare.files.get(path).is_some_and(is_socket);
            let files = sight.files.iter().map(|(path, seen)| {
                (path.clone(), if covered(path) { bare.files[path].clone() } else { seen.clone() })
            });
            let changes = world::differences(&bare.files, &files.collect());
            if !changes.is_empty() {
                violations.push(Violation::new("inside", format!("the command sees: {}", changes.join("; "))));
            }
            if expected.guarded && sight.reads_forbidden {
                violations.push(Violation::new("unguarded", "the command does what the policy forbids"));
            }
            let nothing = |set: &str| sight.rights.get(set).is_some_and(|held| held.trim_start_matches('0').is_empty());
            let kept = sight.rights.get(NO_NEW_PRIVILEGES).is_some_and(|value| value == "1");
            if expected.starter == Starter::Attacker && !(kept && SETS.iter().all(|set| nothing(set))) {
                violations.push(Violation::new("rights", format!("an ordinary user's command has {:?}", sight.rights)));
            }
            violations.extend(expected.descriptors.iter().filter_map(|(number, file)| {
                let now = sight.descriptors.get(number);
                let what = if *number == WORKING {
                    "the working directory".to_owned()
                } else {
                    format!("descriptor {number}")
                };
                let what = format!("{what} is not what was handed on: device and inode {now:?}, not {file:?}");
                if now == Some(file) { None } else { Some(Violation::new("descriptor", what)) }
            }));
        } else if outcome.output.status.success() {
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

fn is_socket(seen: &Result<Seen, i32>) -> bool {
    seen.as_ref().is_ok_and(|seen| seen.mode & libc::S_IFMT == libc::S_IFSOCK)
}

/// The fuzzer's program, where all users find it.
///
/// # Errors
///
/// When it isn't known what this program is.
pub fn own_program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(Path::new(OWN).join("fuzzer").join(program.file_name().context("this program's name")?))
}

/// A guard-run that has file capabilities.
fn ordinary() -> anyhow::Result<PathBuf> {
    let program = Path::new(OWN).join("guard-run");
    fs::copy(Path::new(PROGRAMS).join("guard-run"), &program)?;
    let output = Command::new(&program).arg("doctor").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.split_once("sudo setcap ")).context("doctor names capabilities")?;
    let capabilities = line.1.split(' ').next().unwrap_or_default().to_owned();
    let status = Command::new("setcap").arg(capabilities).arg(&program).status().context("setcap")?;
    anyhow::ensure!(status.success(), "setcap fails");
    Ok(program)
}
