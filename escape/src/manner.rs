//! In which manner the guarded worker is started: by whom, and by which of guard-run's programs.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::json;

use crate::{policy::Policy, session::Place};

/// nobody's number, as whom some workers run.
pub const NOBODY: u32 = 65534;

/// Where the bpf file system is mounted, in which root's runs and containers keep their guards.
const BPF: &str = "/sys/fs/bpf";

/// Where guard-hook finds what root has settled for all containers.
const SETTINGS: &str = "/etc/guard-run/hook.json";

/// What a container has of capabilities: what guard-run leaves a root command.
const CONTAINERS: &str = r#"[containers]
default_ulimits = ["nofile=1000:1000", "nproc=1000:1000"]
default_capabilities = [
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"
]
"#;

/// Who starts the guarded worker, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// root, by a guard-run that verifies its programs anew. Some commands run as nobody.
    Root,
    /// root, by a guard-run that takes the programs that an earlier run under the same policy has kept.
    Kept,
    /// An ordinary user, by a guard-run whose file has capabilities.
    User,
    /// podman, as a container that guard-hook guards.
    Container,
}

impl Manner {
    const ALL: [(&str, Self); 4] =
        [("root", Self::Root), ("kept", Self::Kept), ("user", Self::User), ("container", Self::Container)];

    /// Whether the command can have capabilities, if its policy names them.
    pub fn has_capabilities(self) -> bool {
        self != Self::User
    }
}

impl FromStr for Manner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(name, _)| *name == text);
        known.map(|(_, manner)| *manner).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            format!("there is no manner {text:?}, but {names}")
        })
    }
}

/// Makes ready what these manners need, in a mount namespace of this process's own, before it has other threads.
///
/// # Errors
///
/// When the kernel refuses, or a program is missing.
pub fn prepare(manners: &[Manner], place: &Place) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("making mounts private")?;
    if manners.iter().any(|manner| [Manner::Kept, Manner::Container].contains(manner)) {
        mount(Some("bpf"), BPF, Some("bpf"), MsFlags::empty(), Some("mode=700")).context(BPF)?;
    }
    if manners.contains(&Manner::User) {
        let program = users_program(place);
        fs::copy(&place.guard_run, &program).context("copying guard-run")?;
        let capabilities = capabilities(&place.guard_run)?;
        let status = Command::new("setcap").arg(&capabilities).arg(&program).status().context("setcap")?;
        ensure!(status.success(), "setcap {capabilities} {}: {status}", program.display());
    }
    if manners.contains(&Manner::Container) {
        engine(place)?;
    }
    Ok(())
}

/// What guard-run's file needs for ordinary users, as guard-run says it.
fn capabilities(guard_run: &Path) -> Result<String> {
    let said = Command::new(guard_run).arg("doctor").stderr(Stdio::null()).output().context("guard-run doctor")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let line =
        said.lines().find_map(|line| line.split_once("sudo setcap ")).context("guard-run doctor names no setcap")?;
    Ok(line.1.split(' ').next().unwrap_or_default().to_owned())
}

/// Has podman keep what it has to itself, and guard-hook look at its containers.
fn engine(place: &Place) -> Result<()> {
    let hook = place.guard_run.with_file_name("guard-hook");
    ensure!(hook.exists(), "{} is missing: build it first", hook.display());
    let own = place.folder.join("engine");
    for folder in
        ["etc.upper", "etc.work", "hooks.d", "rootfs/dev", "rootfs/proc", "rootfs/sys", "rootfs/run", "rootfs/tmp"]
    {
        fs::create_dir_all(own.join(folder))?;
    }
    for at in ["/run", "/var/log", "/var/lib/containers"] {
        fs::create_dir_all(at).with_context(|| at.to_owned())?;
        mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).with_context(|| at.to_owned())?;
    }
    fs::create_dir_all("/run/lock")?;
    // Where files of an overlay may be: not on another one.
    let upper = Path::new("/run/guard-run-fuzz");
    for folder in ["upper", "work"] {
        fs::create_dir_all(upper.join(folder))?;
    }
    let options = format!("lowerdir=/etc,upperdir={0}/upper,workdir={0}/work", upper.display());
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(options.as_str())).context("/etc")?;
    let settings = json!({ "version": 1, "policies": [place.folder], "logs": [place.folder] });
    fs::create_dir_all(Path::new(SETTINGS).parent().unwrap_or(Path::new("/")))?;
    fs::write(SETTINGS, settings.to_string())?;
    let hook = json!({
        "version": "1.0.0",
        "hook": { "path": hook, "args": ["guard-hook"] },
        "when": { "annotations": { r"^io\.guard-run\.": ".*" } },
        "stages": ["createRuntime", "poststop"]
    });
    fs::write(own.join("hooks.d/guard-run.json"), hook.to_string())?;
    fs::write(own.join("containers.conf"), CONTAINERS)?;
    fs::copy(&place.worker, own.join("rootfs/worker")).context("copying this program")?;
    Ok(())
}

/// Removes the cgroups that podman leaves, unless somebody else's containers are in them.
pub fn tidy() {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([top.to_owned()]) {
        for folder in ["libpod_parent/conmon", "libpod_parent"] {
            // There is none, or it is in use.
            let _ = fs::remove_dir(hierarchy.join(folder));
        }
    }
}

fn users_program(place: &Place) -> PathBuf {
    place.folder.join("guard-run-of-users")
}

/// The command that runs the guarded worker under the policy in this file, and leaves this log.
///
/// # Errors
///
/// When what the manner needs can't be had.
pub fn guarded(
    manner: Manner,
    place: &Place,
    policy: &Policy,
    as_nobody: bool,
    [file, log]: [&Path; 2],
) -> Result<Command> {
    let by_guard_run = |program: &Path, options: &[&str]| {
        let mut command = Command::new(program);
        command.arg("--quiet").args(options).arg("--policy").arg(file).arg("--log").arg(log);
        if as_nobody && manner != Manner::User {
            command.args(["--user", &NOBODY.to_string()]);
        }
        command.arg("--").arg(&place.worker).arg("worker");
        command
    };
    Ok(match manner {
        Manner::Root => by_guard_run(&place.guard_run, &["--fresh"]),
        Manner::Kept => {
            // A run that does nothing leaves the programs.
            let done = by_guard_run(&place.guard_run, &[]).stdin(Stdio::null()).output().context("guard-run")?;
            if !done.status.success() {
                bail!("guard-run: {}", String::from_utf8_lossy(&done.stderr).trim());
            }
            by_guard_run(&place.guard_run, &[])
        }
        Manner::User => {
            let folder = log.parent().context("the log's folder")?;
            chown(folder, Some(NOBODY), Some(NOBODY)).context("a folder of the user's")?;
            let mut command = by_guard_run(&users_program(place), &[]);
            command.uid(NOBODY).gid(NOBODY);
            command
        }
        Manner::Container => {
            let own = place.folder.join("engine");
            let mut command = Command::new("podman");
            command.env("CONTAINERS_CONF", own.join("containers.conf"));
            command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--hooks-dir"]).arg(own.join("hooks.d"));
            // The network is the calling thread's.
            command.args([
                "run",
                "--rm",
                "--interactive",
                "--quiet",
                "--network=host",
                "--pids-limit=0",
                "--read-only",
            ]);
            command.args(["--security-opt", "unmask=/proc/sys", "--log-driver=none"]);
            command.arg(format!("--annotation=io.guard-run.policy={}", file.display()));
            command.arg(format!("--annotation=io.guard-run.log={}", log.display()));
            if policy.raw {
                command.arg("--cap-add=NET_RAW");
            }
            if as_nobody {
                command.arg(format!("--user={NOBODY}"));
            }
            command.arg("--rootfs").arg(own.join("rootfs")).args(["/worker", "worker"]);
            command
        }
    })
}
