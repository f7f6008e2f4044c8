//! What the hook adds to starting a container, and what it keeps in the kernel while the container runs.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    memory::{MIB, bpftool, memory_of},
    report::{Figure, Goal},
    setup::Setup,
    stats::{difference, median, paired},
};

const ROUNDS: usize = 40;

/// A place for a container engine: crun, and podman that uses it. See tools/containers/machine.
struct Machine {
    folder: TempDir,
    keeper: Child,
}

/// What bpftool says of a program on a cgroup.
#[derive(Deserialize)]
struct OnCgroup {
    id: u32,
    name: String,
}

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let machine = Machine::new(setup)?;
    let annotation = |key: &str, path: &Path| format!("--annotation=io.guard-run.{key}={}", path.display());
    let (policy, log) = (machine.path("policy.json"), machine.path("log.json"));
    // crun opens /dev/null in the container's cgroup before the container runs, so it is another device that is denied.
    let mut tutorial: Value = serde_json::from_slice(&fs::read(&setup.tutorial)?)?;
    tutorial["devices"]["rules"][0]["minor"] = json!(7);
    fs::write(&policy, tutorial.to_string())?;
    let flags = [annotation("policy", &policy), annotation("log", &log)];
    machine.bundle("bare", None)?;
    machine.bundle("guarded", Some((&policy, &log)))?;
    let (bare, guarded) = (machine.path("bare"), machine.path("guarded"));
    let sides = [
        vec!["true".to_owned()],
        machine.podman(&["--rm"], "/bin/true"),
        machine.podman(&["--rm", &flags[0], &flags[1]], "/bin/true"),
        ["crun", "run", "--bundle", &bare.display().to_string(), "guard-bench"].map(str::to_owned).to_vec(),
        ["crun", "run", "--bundle", &guarded.display().to_string(), "guard-bench"].map(str::to_owned).to_vec(),
    ];
    let mut times = vec![Vec::new(); sides.len()];
    for _ in 0..ROUNDS {
        for (command, times) in sides.iter().zip(&mut times) {
            let start = Instant::now();
            machine.run(command)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    ensure!(log.exists(), "the guarded containers have left no log");
    let [enter, podman, podman_guarded, crun, crun_guarded] = &times[..] else { unreachable!("one for each side") };
    // Getting to where the engine is takes some time on both sides.
    let entering = median(enter);
    let share = paired(podman_guarded, podman, |guarded, bare| (guarded - bare) / (bare - entering) * 100.0);
    let kept = kept_in_kernel(&machine, &flags)?;
    Ok(vec![
        Figure::new("podman run --rm … true", median(podman) - entering, "ms"),
        Figure::new("podman run --rm … true, guarded", median(podman_guarded) - entering, "ms"),
        Figure::new("crun run … true", median(crun) - entering, "ms"),
        Figure::new("crun run … true, guarded", median(crun_guarded) - entering, "ms"),
        Figure::new("what the hook adds to podman run", difference(podman_guarded, podman), "ms")
            .with_goal(Goal::AtMost(10.0)),
        Figure::new("the same as a share of podman's own time", share, "%").with_goal(Goal::AtMost(5.0)),
        Figure::new("what the hook adds to crun run", difference(crun_guarded, crun), "ms")
            .with_goal(Goal::AtMost(10.0)),
        Figure::new("kernel memory of a container's maps", kept / MIB, "MiB").with_goal(Goal::AtMost(1.0)),
        Figure::new("processes of guard-hook meanwhile", count_processes("guard-hook")?, "")
            .with_goal(Goal::Exactly(0.0)),
    ])
}

/// Bytes of the maps of a container that runs.
fn kept_in_kernel(machine: &Machine, flags: &[String; 2]) -> anyhow::Result<f64> {
    let command = machine.podman(&["--detach", "--name=guard-bench", &flags[0], &flags[1]], "/bin/sleep 1000");
    machine.run(&command)?;
    let id = machine.run(&["podman", "inspect", "--format={{.Id}}", "guard-bench"].map(str::to_owned))?;
    let cgroup = format!("/sys/fs/cgroup/libpod_parent/libpod-{}", id.trim());
    // Seen by the root that the engine has.
    let cgroup = format!("/proc/{}/root{cgroup}", machine.keeper.id());
    let on_cgroup: Vec<OnCgroup> = bpftool(&["cgroup", "show", &cgroup])?;
    let ours = on_cgroup.into_iter().filter(|program| program.name.starts_with("guard_")).map(|program| program.id);
    memory_of(&ours.collect::<BTreeSet<u32>>())
}

/// How many processes there are that have this name.
#[allow(clippy::cast_precision_loss, reason = "there are few")]
fn count_processes(name: &str) -> anyhow::Result<f64> {
    let names = fs::read_dir("/proc")?.flatten().filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    Ok(names.filter(|comm| comm.trim() == name).count() as f64)
}

impl Machine {
    fn new(setup: &Setup) -> anyhow::Result<Self> {
        let tools =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("bench is in a workspace")?.join("tools/containers");
        let hook = setup.guard_run.with_file_name("guard-hook");
        ensure!(hook.exists(), "{} is not there; build it first", hook.display());
        let root = Command::new(tools.join("root")).output().context("tools/containers/root")?;
        ensure!(root.status.success(), "{}", String::from_utf8_lossy(&root.stderr));
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let mut keeper = Command::new(tools.join("machine"))
            .args(["pure", String::from_utf8(root.stdout)?.trim()])
            .args([folder.path(), &hook])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(keeper.stdout.as_mut().context("a pipe")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "tools/containers/machine could not set up an engine");
        let machine = Self { folder, keeper };
        let rootfs = machine.path("rootfs");
        for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(folder))?;
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).context("busybox-static (make bench installs it)")?;
        for applet in ["sleep", "true"] {
            symlink("busybox", rootfs.join("bin").join(applet))?;
        }
        fs::create_dir(machine.path("hooks.d"))?;
        let hook = json!({
            "version": "1.0.0",
            "hook": {"path": machine.path("guard-hook"), "args": ["guard-hook"]},
            "when": {"annotations": {"^io\\.guard-run\\.": ".*"}},
            "stages": ["createRuntime", "poststop"]
        });
        fs::write(machine.path("hooks.d/guard-run.json"), hook.to_string())?;
        Ok(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The words of a container under podman.
    fn podman(&self, flags: &[&str], command: &str) -> Vec<String> {
        let (hooks, rootfs) = (self.path("hooks.d").display().to_string(), self.path("rootfs").display().to_string());
        let mut words =
            vec!["podman", "--runtime=crun", "--hooks-dir", &hooks, "run", "--network=none", "--pids-limit=0"];
        words.extend(flags);
        words.extend(["--rootfs", &rootfs]);
        words.extend(command.split(' '));
        words.into_iter().map(str::to_owned).collect()
    }

    /// Makes a bundle for crun alone, guarded by a policy or not.
    fn bundle(&self, name: &str, guard: Option<(&Path, &Path)>) -> anyhow::Result<()> {
        let namespaces: Vec<Value> =
            ["pid", "network", "ipc", "uts", "mount"].iter().map(|kind| json!({"type": kind})).collect();
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "env": ["PATH=/bin"], "cwd": "/", "capabilities": {}},
            "root": {"path": self.path("rootfs")},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}
            ],
            "linux": {"cgroupsPath": "/guard-bench", "namespaces": namespaces}
        });
        if let Some((policy, log)) = guard {
            let hook = json!([{"path": self.path("guard-hook"), "args": ["guard-hook"]}]);
            config["hooks"] = json!({"createRuntime": hook, "poststop": hook});
            config["annotations"] = json!({"io.guard-run.policy": policy, "io.guard-run.log": log});
        }
        fs::create_dir(self.path(name))?;
        Ok(fs::write(self.path(name).join("config.json"), config.to_string())?)
    }

    /// Runs a command where the engine is. What it writes to standard output.
    fn run(&self, command: &[String]) -> anyhow::Result<String> {
        let mut enter = Command::new("nsenter");
        enter
            .args(["--mount", "--target", &self.keeper.id().to_string(), "--wdns=/"])
            .args(command)
            .stdin(Stdio::null());
        let output = enter.output().context("nsenter")?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.run(&["podman", "rm", "--all", "--force", "--time=0"].map(str::to_owned));
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
