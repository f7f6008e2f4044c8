//! A process that could be a container's, and guard-hook called for it as a runtime does.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    drive::{LIMIT, Outcome, drive},
    finding::{Violation, manners},
    place::{Place, enter},
    races::schedule::Running,
    world::{BUNDLE, DEFAULT_POLICY, OUT, PROGRAMS},
};

/// What guard-hook exits with when it fails.
pub const FAILURES: [i32; 1] = [125];

/// The name of the file with the state that guard-hook was told last.
pub const STATE: &str = "state.json";

/// A process in a pid and mount namespace of its own, as a container's first one is. It ends with this value.
#[derive(Debug)]
pub struct Container {
    keeper: Child,
    /// The container's process id, outside.
    pub process: u32,
    base: PathBuf,
    parked: PathBuf,
}

impl Container {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// When there is no such process within [`LIMIT`].
    pub fn start(place: &Place) -> anyhow::Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sleep", "100000"]);
        let keeper = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let children = format!("/proc/{0}/task/{0}/children", keeper.id());
        let end = Instant::now() + LIMIT;
        let mut container = Self { keeper, process: 0, base: place.base(), parked: PathBuf::new() };
        while Instant::now() < end {
            let text = fs::read_to_string(&children)?;
            let process = text.split_whitespace().next().and_then(|process| process.parse().ok());
            // Not before it is executed, since its namespaces are made before.
            if let Some(process) = process
                && fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name == "sleep\n")
            {
                container.process = process;
                container.parked = place.make(&format!("parked-{process}"))?;
                enter(&container.parked, process)?;
                return Ok(container);
            }
            sleep(Duration::from_millis(1));
        }
        anyhow::bail!("unshare(1) starts no process")
    }

    /// Calls guard-hook as a runtime does for a container's life, with this id and annotation for its log; at the end, it is told this
    /// word. What is looked up goes by a schedule. Then another container of the same id is made, whose log goes where root's do.
    ///
    /// # Errors
    ///
    /// When the world around it can't be made.
    pub fn live(&self, id: &str, log: &str, end: &str, running: &mut Running<'_>) -> anyhow::Result<Vec<Violation>> {
        let cgroup = self.base.join(id);
        fs::create_dir(&cgroup)?;
        let result = self.lives(id, log, end, &cgroup, running);
        self.park()?;
        fs::remove_dir(&cgroup)?;
        result
    }

    /// Takes the process out of the container's cgroup, so that this has ended.
    ///
    /// # Errors
    ///
    /// As write(2).
    pub fn park(&self) -> anyhow::Result<()> {
        enter(&self.parked, self.process)
    }

    fn lives(
        &self,
        id: &str,
        log: &str,
        end: &str,
        cgroup: &Path,
        running: &mut Running<'_>,
    ) -> anyhow::Result<Vec<Violation>> {
        let mut processes = 0;
        let mut violations = Vec::new();
        let logged = json!({"io.guard-run.policy": DEFAULT_POLICY, "io.guard-run.log": log});
        let unlogged = json!({"io.guard-run.policy": DEFAULT_POLICY});
        for (stage, annotations) in
            [("createRuntime", &logged), (end, &logged), ("createRuntime", &unlogged), ("poststop", &unlogged)]
        {
            let begins = stage == "createRuntime";
            enter(if begins { cgroup } else { &self.parked }, self.process)?;
            let status = if begins { "creating" } else { "stopped" };
            let mut state = json!({"ociVersion": "1.0.2", "id": id, "status": status, "bundle": BUNDLE, "annotations": annotations});
            if begins {
                state["pid"] = self.process.into();
            }
            let again = annotations == &unlogged;
            let outcome =
                call(stage, &state.to_string(), processes, |lookup| if again { Ok(()) } else { running.at(lookup) })?;
            processes += outcome.processes;
            violations.extend(manners(&outcome.output, outcome.hung, "guard-hook: ", &FAILURES));
            if begins && !outcome.output.status.success() {
                if again {
                    let stderr = String::from_utf8_lossy(&outcome.output.stderr).into_owned();
                    violations.push(Violation::new("restart", format!("no container of this id can start: {stderr}")));
                }
                break;
            }
        }
        Ok(violations)
    }
}

/// Calls guard-hook.
///
/// # Errors
///
/// As [`drive`].
pub fn call(
    stage: &str,
    text: &str,
    first: usize,
    at: impl FnMut(&crate::drive::Lookup) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let file = Path::new(OUT).join(STATE);
    fs::write(&file, text)?;
    let mut command = Command::new(Path::new(PROGRAMS).join("guard-hook"));
    // Without a word, the status decides.
    command.args(Some(stage).filter(|stage| !stage.is_empty())).current_dir("/").env_clear().stdin(File::open(&file)?);
    drive(command, Path::new(""), first, at)
}

impl Drop for Container {
    fn drop(&mut self) {
        // What it has started ends with it.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// The state of a container that is about to run.
#[must_use]
pub fn state(id: &str, process: u32) -> Value {
    json!({
        "ociVersion": "1.0.2", "id": id, "status": "creating", "pid": process, "bundle": BUNDLE,
        "annotations": {"io.guard-run.policy": DEFAULT_POLICY}
    })
}
