//! Container engines, real ones, each on a [`Machine`] of its own, and containers of theirs under the guard.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{cgroup2_mount, guard_run, yard::remove};

/// What of busybox is in the containers' root file system.
const APPLETS: [&str; 10] = ["cat", "echo", "mount", "nc", "nslookup", "sh", "sleep", "touch", "true", "wc"];

/// Limits that root may not raise everywhere, and podman's own capabilities: Debian 12 adds some, `CAP_NET_RAW` among them.
const CONTAINERS_CONF: &str = r#"[containers]
default_ulimits = ["nofile=1000:1000", "nproc=1000:1000"]
default_capabilities = [
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"
]
"#;

/// How long one command may take, in seconds, also in a virtual machine that is emulated.
const LIMIT: &str = "120";

/// A root file system with engines in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// This machine's.
    Own,
    /// Debian 13's, which tools/containers/root makes.
    Newer,
    /// Debian 13's, with Docker.
    Docker,
}

/// How cgroups are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 2 alone.
    Pure,
    /// As they are on this machine: on some, version 1 beside version 2.
    AsTheyAre,
    /// As they are on this machine, but version 2 is where no engine looks for it.
    Apart,
}

/// An engine: the runtime that podman uses, where it comes from, and how cgroups are seen.
pub type Engine = (Root, Cgroups, &'static str);

/// The engines that containers are tried under. (Debian 12's crun is tried in virtual machines: elsewhere it may lack a
/// right to raise a limit.)
pub const ENGINES: [Engine; 4] = [
    (Root::Own, Cgroups::AsTheyAre, "runc"),
    (Root::Own, Cgroups::Pure, "runc"),
    (Root::Newer, Cgroups::Pure, "runc"),
    (Root::Newer, Cgroups::Pure, "crun"),
];

/// Where engines can run without disturbing others, with a bpf file system, storage and logs of its own, and a folder
/// ([`Machine::folder`]) for the test's files. It goes away with this value, and all containers with it.
pub struct Machine {
    folder: TempDir,
    keeper: Child,
    runtime: &'static str,
    /// How many scripts have been run.
    scripts: AtomicU32,
    /// The containers that were asked for by name.
    known: Mutex<Vec<String>>,
}

/// What a command has said, and its exit status.
#[derive(Debug)]
pub struct Said {
    /// The exit status.
    pub code: Option<i32>,
    /// The container's standard output.
    pub stdout: String,
    /// The container's standard error.
    pub stderr: String,
}

impl Said {
    /// Returns itself if the command has succeeded.
    ///
    /// # Panics
    ///
    /// When it hasn't.
    #[must_use]
    pub fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// The path of the `guard-hook` that was built together with the tests.
///
/// # Panics
///
/// When it wasn't.
#[must_use]
pub fn guard_hook() -> PathBuf {
    let program = guard_run().with_file_name("guard-hook");
    assert!(program.exists(), "{} is missing: run `cargo build`", program.display());
    program
}

/// The root file system that tools/containers/root makes.
///
/// # Panics
///
/// When it can't be made.
#[must_use]
pub fn newer_root() -> String {
    made_root(&[])
}

fn made_root(arguments: &[&str]) -> String {
    let made = Command::new(tools().join("root")).args(arguments).output().expect("tools/containers/root can be run");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).expect("a path").trim().to_owned()
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in a folder").join("tools/containers")
}

impl Machine {
    /// A machine for one engine.
    ///
    /// # Panics
    ///
    /// When it can't be set up: the packages of `tools/setup.sh containers` are needed.
    #[must_use]
    pub fn new((root, cgroups, runtime): Engine) -> Self {
        let root = match root {
            Root::Own => "/".to_owned(),
            Root::Newer => newer_root(),
            Root::Docker => made_root(&["docker"]),
        };
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let cgroups = match cgroups {
            Cgroups::Pure => "pure",
            Cgroups::AsTheyAre => "hybrid",
            Cgroups::Apart => "apart",
        };
        let keeper = Command::new(tools().join("machine"))
            .args([cgroups, &root])
            .args([folder.path(), &guard_hook()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut keeper = keeper.expect("tools/containers/machine can be run");
        let mut line = String::new();
        let said = BufReader::new(keeper.stdout.as_mut().expect("a pipe")).read_line(&mut line);
        said.expect("it says when it is ready");
        assert_eq!(line, "ready\n", "tools/containers/machine can't set up {}", folder.path().display());
        let machine = Self { folder, keeper, runtime, scripts: AtomicU32::new(0), known: Mutex::default() };
        machine.write("containers.conf", CONTAINERS_CONF);
        machine.make_rootfs();
        machine.install();
        machine
    }

    fn make_rootfs(&self) {
        let rootfs = self.rootfs();
        for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(folder)).expect("the folder is writable");
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).expect("the folder is writable");
        }
    }

    /// The hook, as it is installed: for containers with an annotation of ours.
    fn install(&self) {
        let hook = json!({
            "version": "1.0.0",
            "hook": {"path": self.hook(), "args": ["guard-hook"]},
            "when": {"annotations": {"^io\\.guard-run\\.": ".*"}},
            "stages": ["createRuntime", "poststop"]
        });
        fs::create_dir(self.hooks_dir()).expect("the folder is writable");
        self.write("hooks.d/guard-run.json", &hook.to_string());
    }

    /// The folder for the test's files, at the same path inside and outside.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The containers' root file system.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.folder().join("rootfs")
    }

    /// `guard-hook`.
    #[must_use]
    pub fn hook(&self) -> PathBuf {
        self.folder().join("guard-hook")
    }

    /// The folder that engines look for hooks in.
    #[must_use]
    pub fn hooks_dir(&self) -> PathBuf {
        self.folder().join("hooks.d")
    }

    /// The runtime of this machine's engine.
    #[must_use]
    pub fn runtime(&self) -> &'static str {
        self.runtime
    }

    /// The process id of who keeps the machine's mount namespace.
    #[must_use]
    pub fn keeper(&self) -> u32 {
        self.keeper.id()
    }

    /// Writes a file into the test's folder. Its path.
    ///
    /// # Panics
    ///
    /// When that isn't possible.
    #[allow(clippy::must_use_candidate, reason = "the path is known")]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        fs::write(&path, text).expect("the folder is writable");
        path
    }

    /// Reads a log in the test's folder.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn log(&self, name: &str) -> Value {
        let path = self.folder().join(name);
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).expect("a log is JSON")
    }

    /// A command on this machine.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args([
            "--foreground",
            LIMIT,
            "nsenter",
            "--mount",
            "--root",
            "--target",
            &self.keeper.id().to_string(),
        ]);
        command.arg(format!("--wdns={}", self.folder().display()));
        command.arg(program.as_ref()).args(arguments).stdin(Stdio::null());
        command.env("CONTAINERS_CONF", self.folder().join("containers.conf"));
        command
    }

    /// Runs a command on this machine to its end.
    ///
    /// # Panics
    ///
    /// When it can't be run.
    #[must_use]
    pub fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Said {
        let output = self.command(program, arguments).output().expect("nsenter can be run");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs `guard-hook gc`.
    #[must_use]
    pub fn gc(&self) -> Said {
        self.run(self.hook(), &["gc"])
    }

    /// Runs `guard-hook` as a runtime does, with this state on its standard input.
    ///
    /// # Panics
    ///
    /// When it can't be run.
    #[must_use]
    pub fn call_hook(&self, state: &Value) -> Said {
        let mut command = self.command(self.hook(), &[]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("nsenter can be run");
        let written = child.stdin.take().expect("a pipe").write_all(state.to_string().as_bytes());
        written.expect("it reads its input");
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs podman.
    #[must_use]
    pub fn podman(&self, arguments: &[&str]) -> Said {
        let hooks = self.hooks_dir();
        let hooks = hooks.to_str().expect("paths are text");
        self.run("podman", &[&["--runtime", self.runtime, "--hooks-dir", hooks], arguments].concat())
    }

    /// Runs a container to its end, or detached if a flag says so. Without a network, unless a flag gives it one.
    #[must_use]
    pub fn container(&self, flags: &[&str], command: &[&str]) -> Said {
        let rootfs = self.rootfs();
        let mut words = vec!["run", "--pids-limit=0"];
        if !flags.iter().any(|flag| flag.starts_with("--network")) {
            words.push("--network=none");
        }
        words.extend(flags);
        words.extend(["--rootfs", rootfs.to_str().expect("paths are text")]);
        words.extend(command);
        self.podman(&words)
    }

    /// Runs a container with a shell script to its end.
    #[must_use]
    pub fn script(&self, flags: &[&str], script: &str) -> Said {
        self.heard(script, |script| self.container(flags, &["/bin/sh", "-c", script]))
    }

    /// Executes a shell script in a container that runs.
    #[must_use]
    pub fn exec(&self, name: &str, script: &str) -> Said {
        self.heard(script, |script| self.podman(&["exec", name, "/bin/sh", "-c", script]))
    }

    /// Runs a script in a container. What it says comes by files, since engines on a busy machine lose the last words of
    /// what ends soon; if it was never started, what the engine says.
    fn heard(&self, script: &str, run: impl FnOnce(&str) -> Said) -> Said {
        let number = self.scripts.fetch_add(1, Ordering::Relaxed);
        let names = ["stdout", "stderr"].map(|stream| format!("/script.{number}.{stream}"));
        let said = run(&format!("exec >{} 2>{}; {script}", names[0], names[1]));
        let read = |name: &String| fs::read_to_string(self.rootfs().join(&name[1..])).ok();
        let (stdout, stderr) = (read(&names[0]), read(&names[1]));
        Said { code: said.code, stdout: stdout.unwrap_or(said.stdout), stderr: stderr.unwrap_or(said.stderr) }
    }

    /// The id of a container, by its name.
    #[must_use]
    pub fn id(&self, name: &str) -> String {
        let id = self.podman(&["inspect", "--format={{.Id}}", name]).good().stdout.trim().to_owned();
        self.known.lock().expect("nobody panics with it").push(id.clone());
        id
    }

    /// What is kept in the bpf file system, by its path below the folder of all containers.
    #[must_use]
    pub fn pins(&self) -> Vec<String> {
        let found = self.run("find", &["/sys/fs/bpf/guard-run", "-mindepth", "1"]).stdout;
        found.lines().map(|line| line.trim_start_matches("/sys/fs/bpf/guard-run/").to_owned()).collect()
    }

    /// The cgroups of a container that are still there, the topmost ones.
    #[must_use]
    pub fn cgroups(&self, id: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![cgroup2_mount()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.contains(id) && !name.contains("conmon") {
                    found.push(entry.path());
                } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
        }
        found
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The test has its verdict; what can't be removed any more is not its matter.
        let _ = self.podman(&["rm", "--all", "--force", "--time=0"]);
        // An engine that was killed doesn't remove what it has made.
        let known = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        for cgroup in known.iter().flat_map(|id| self.cgroups(id)) {
            let _ = remove(&cgroup);
        }
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// The flags that have a container guarded by a policy.
#[must_use]
pub fn guarded(policy: &Path, log: &Path) -> [String; 2] {
    [
        format!("--annotation=io.guard-run.policy={}", policy.display()),
        format!("--annotation=io.guard-run.log={}", log.display()),
    ]
}
