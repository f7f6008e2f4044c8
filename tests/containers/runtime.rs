//! guard-runtime between an engine and a real runtime: what it adds, what it leaves alone, and that there is no container
//! where it fails. Each container has a busybox and a cgroup of its own.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};
use support::{
    container::{ENGINES, Machine, guarded},
    guard_run,
};
use tempfile::TempDir;

/// Has a mount namespace of its own, in which the guards of containers can be pinned, policies and logs may be in the folder for
/// temporary files (the second argument), and cgroup2 is where crun wants it if the first argument says so.
const NAMESPACE: &str = r#"set -e
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work overlay /etc
mkdir -p /etc/guard-run
echo "{\"version\": 1, \"policies\": [\"$2\"], \"logs\": [\"$2\"]}" >/etc/guard-run/hook.json
[ "$1" != crun ] || mount --bind "$(findmnt -nro TARGET -t cgroup2 | head -n 1)" /sys/fs/cgroup
shift 2
exec "$@""#;

/// Denies reading one tunable.
const POLICY: &str =
    r#"{"version": 1, "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/hostname"]}]}}"#;

/// A hook that writes down how it is called.
const RECORDER: &str = "#!/bin/sh\nread -r state\necho \"$* $state\" >>\"${0%/*}/called\"\n";

/// Runs a program in that namespace.
fn inside(runtime: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", NAMESPACE, "sh", runtime]);
    command.arg(std::env::temp_dir()).arg(program);
    command.stdin(Stdio::null());
    command
}

fn guard_runtime() -> PathBuf {
    let program = guard_run().with_file_name("guard-runtime");
    assert!(program.exists(), "{} is missing: run `cargo build`", program.display());
    program
}

/// A copy of guard-runtime under a name, alone in its folder.
fn alone(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(name);
    copy(&guard_runtime(), &program);
    (folder, program)
}

/// Copies a program by another process: a descriptor of ours, open for writing, could be in a child of another test just now, and
/// then the program can't be executed (ETXTBSY).
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("install").args(["-m", "755"]).args([from, to]).status().unwrap().success());
}

fn executable(path: &Path, text: &str) {
    let source = path.with_extension("text");
    fs::write(&source, text).unwrap();
    copy(&source, path);
}

/// A bundle, and the name of its container.
struct Bundle {
    folder: TempDir,
    id: String,
}

impl Bundle {
    /// One whose container runs a script of busybox's shell.
    fn new(script: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("guard-test.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("rootfs");
        for name in ["bin", "dev", "proc"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for name in ["sh", "cat", "sleep"] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        let bundle = Self { folder, id };
        bundle.write(&json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"],
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}
            ],
            "linux": {
                "cgroupsPath": format!("/{}", bundle.id),
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]
            }
        }));
        bundle
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, config: &Value) {
        fs::write(self.path("config.json"), config.to_string()).unwrap();
    }

    fn config(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("config.json")).unwrap()).unwrap()
    }

    /// Asks for a guard.
    fn annotated(self, annotations: &Value) -> Self {
        let mut config = self.config();
        config["annotations"] = annotations.clone();
        self.write(&config);
        self
    }

    /// Asks for a guard by the policy above.
    fn guarded(self) -> Self {
        let policy = self.path("policy.json");
        fs::write(&policy, POLICY).unwrap();
        let log = self.path("log.json");
        self.annotated(&json!({"io.guard-run.policy": policy, "io.guard-run.log": log}))
    }

    /// Runs the container by runc.
    fn run(&self, runtime: &Path) -> Output {
        self.run_by("runc", runtime)
    }

    /// Runs the container where that engine can.
    fn run_by(&self, engine: &str, runtime: &Path) -> Output {
        inside(engine, runtime).args(["run", "--bundle"]).arg(self.folder.path()).arg(&self.id).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_container_that_asks_is_guarded() {
    let bundle = Bundle::new("cat /proc/sys/kernel/ostype; cat /proc/sys/kernel/hostname 2>&1; exit 7").guarded();
    for _ in 0..2 {
        let output = bundle.run(&guard_runtime());
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert_eq!(text(&output.stdout), "Linux\ncat: read error: Operation not permitted\n");
        let log: Value = serde_json::from_slice(&fs::read(bundle.path("log.json")).unwrap()).unwrap();
        assert_eq!(log["events"][0]["sysctl"], json!({"name": "kernel/hostname", "access": "r"}), "{log}");
        // However often the bundle is run.
        for stage in ["createRuntime", "poststop"] {
            let hook = guard_runtime().with_file_name("guard-hook");
            assert_eq!(bundle.config()["hooks"][stage], json!([{"path": hook, "args": ["guard-hook", stage]}]));
        }
    }
}

#[test]
fn one_that_does_not_is_handed_over_untouched() {
    let bundle = Bundle::new("cat /proc/sys/kernel/hostname; exit 9").annotated(&json!({"io.guard-runner": "/x"}));
    let before =
        (fs::read(bundle.path("config.json")).unwrap(), fs::metadata(bundle.path("config.json")).unwrap().ino());
    let output = bundle.run(&guard_runtime());
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    assert_ne!(text(&output.stdout), "");
    let after =
        (fs::read(bundle.path("config.json")).unwrap(), fs::metadata(bundle.path("config.json")).unwrap().ino());
    assert_eq!(after, before);
}

#[test]
fn the_process_becomes_the_runtime_and_signals_reach_it() {
    let bundle = Bundle::new("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done").guarded();
    let mut child = inside("runc", guard_runtime())
        .args(["run", "--bundle"])
        .arg(bundle.folder.path())
        .arg(&bundle.id)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    // unshare, sh and guard-runtime have all been this process.
    let name = fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!((name.as_str(), child.wait().unwrap().code()), ("runc\n", Some(5)));
}

#[test]
fn crun_calls_the_hooks_that_were_added() {
    let (folder, program) = alone("guard-runtime-crun");
    executable(&folder.path().join("guard-hook"), RECORDER);
    let bundle = Bundle::new("exit 6").guarded();
    // The hook does nothing, so crun needs no cgroup, which it refuses on hosts that have v1 controllers, too.
    let output = inside("crun", &program)
        .args(["--cgroup-manager=disabled", "run", "-b"])
        .arg(bundle.folder.path())
        .arg(&bundle.id)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let called = fs::read_to_string(folder.path().join("called")).unwrap();
    let stages: Vec<&str> = called.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(stages, ["createRuntime", "poststop"]);
    assert!(called.lines().all(|line| line.contains(&bundle.id) && line.contains("io.guard-run.policy")), "{called}");
}

#[test]
fn arguments_environment_and_directory_are_the_engines() {
    let (folder, program) = alone("guard-runtime-fake");
    executable(&folder.path().join("fake"), "#!/bin/sh\npwd; env | sort; printf '<%s>' \"$@\"; exit 42\n");
    // The shell that is the fake runtime needs its programs.
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let output = Command::new(&program)
        .env_clear()
        .envs([("PATH", path.as_str()), ("ODD", "a b")])
        .current_dir("/usr")
        .args(["--root", "/x y", "state", "", "--bundle"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(
        text(&output.stdout),
        format!("/usr\nODD=a b\nPATH={path}\nPWD=/usr\n<--root></x y><state><><--bundle>")
    );
}

/// Runs guard-runtime and expects it to fail before there is a container. Returns what it said.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""), "{output:?}");
    text(&output.stderr)
}

#[test]
fn without_the_hook_there_is_no_container() {
    let (folder, program) = alone("guard-runtime");
    let bundle = Bundle::new("echo it ran").guarded();
    let log = bundle.path("runtime.log");
    let said = refused(
        inside("runc", &program)
            .args(["--log-format", "json", "--log"])
            .arg(&log)
            .args(["run", "-b"])
            .arg(bundle.folder.path())
            .arg(&bundle.id),
    );
    let message = format!(
        "guard-runtime: {}: there is no such file; it belongs into the same folder as guard-runtime",
        folder.path().join("guard-hook").display()
    );
    let logged: Value = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
    assert_eq!(
        (said.trim_end(), &logged["msg"], &logged["level"]),
        (message.as_str(), &json!(message), &json!("error"))
    );
    assert!(bundle.config().get("hooks").is_none());
}

#[test]
fn without_a_guard_there_is_no_container() {
    let policy = json!({"io.guard-run.policy": "/no/such/policy.json"});
    let misspelled = json!({"io.guard-run.polcy": "/no/such/policy.json"});
    for (annotations, reason) in [(policy, "/no/such/policy.json"), (misspelled, "io.guard-run.polcy")] {
        let bundle = Bundle::new("echo it ran").annotated(&annotations);
        let output = bundle.run(&guard_runtime());
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(text(&output.stderr).contains(reason), "{output:?}");
    }
}

#[test]
fn what_is_wrong_with_a_policy_is_said_where_the_engine_looks_whatever_the_runtime_does() {
    let (folder, program) = alone("guard-runtime-fake");
    executable(&folder.path().join("fake"), "#!/bin/sh\necho it ran\n");
    executable(&folder.path().join("guard-hook"), RECORDER);
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    };
    let process = file("process.json", r#"{"version": 1, "process": {"alow": []}}"#);
    let typo = file("typo.json", r#"{"version": 1, "netwrk": {}}"#);
    let absent = folder.path().join("no/such.json");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let writable = file("writable.json", POLICY);
    fs::set_permissions(&writable, Permissions::from_mode(0o666)).unwrap();
    let table = [
        (json!({"io.guard-run.policy": "/no/such.json"}), "io.guard-run.policy: /no/such.json is outside of"),
        (json!({"io.guard-run.policy": absent}), "/no: there is no such file"),
        (json!({"io.guard-run.policy": writable}), "others than root can write it"),
        (json!({"io.guard-run.policy": typo}), "did you mean \"network\"?"),
        (json!({"io.guard-run.policy": process}), "unknown key \"alow\""),
        (json!({"io.guard-run.policy": "policy.json"}), "write an absolute path"),
        (json!({"io.guard-run.policy": 1}), "/annotations/io.guard-run.policy: not a string"),
        (json!({"io.guard-run.polcy": "/p.json"}), "unknown annotation io.guard-run.polcy"),
        (json!({"io.guard-run.log": "/l.json"}), "no annotation io.guard-run.policy"),
    ];
    for (annotations, reason) in table {
        let bundle = Bundle::new("").annotated(&annotations);
        let log = bundle.path("runtime.log");
        let said = refused(
            inside("runc", &program)
                .env("PATH", &path)
                .args(["--log-format=json", "--log"])
                .arg(&log)
                .args(["create", "-b"])
                .arg(bundle.folder.path())
                .arg(&bundle.id),
        );
        let logged: Value = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
        assert!(said.contains(reason) && logged["msg"] == said.trim_end(), "{annotations}: {said}{logged}");
        assert!(bundle.config().get("hooks").is_none(), "{annotations}");
    }
}

#[test]
fn what_can_not_be_understood_or_changed_is_refused() {
    let bundle = Bundle::new("echo it ran").guarded();
    let good = fs::read(bundle.path("config.json")).unwrap();
    let run = |arguments: &[&str]| {
        refused(inside("runc", guard_runtime()).current_dir(bundle.folder.path()).args(arguments).arg(&bundle.id))
    };
    assert!(run(&["run", "-bundle", "."]).contains("write --bundle DIR"));
    assert!(run(&["--strange", "run"]).contains("write OPTION=VALUE"));
    assert!(run(&["restore"]).contains("a checkpoint can't be restored under a guard"));
    for (config, reason) in [("{\"annotations\"", "EOF"), ("[]", "not an object"), ("", "not an object")] {
        fs::write(bundle.path("config.json"), config).unwrap();
        assert!(run(&["run"]).contains(reason), "{config}");
    }
    fs::write(bundle.path("config.json"), &good).unwrap();
    // A folder that nothing can be written to.
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let said = refused(
        inside("runc", "sh")
            .args(["-c", script, "sh"])
            .arg(bundle.folder.path())
            .arg(guard_runtime())
            .args(["run", "-b"])
            .arg(bundle.folder.path())
            .arg(&bundle.id),
    );
    assert!(said.contains("Read-only file system"), "{said}");
    // What the runtime says itself.
    let said = refused(inside("runc", guard_runtime()).args(["run", "--bundle", "/no/such/bundle", &bundle.id]));
    assert!(said.contains("no such file or directory") && !said.contains("guard-runtime"), "{said}");
}

#[test]
fn a_runtime_that_is_not_there_is_named_and_a_circle_is_none() {
    let (_folder, program) = alone("guard-runtime-no-such-runtime");
    assert!(refused(Command::new(&program).arg("features")).contains("found no no-such-runtime in PATH"));
    let link = program.with_file_name("circle");
    symlink(&program, &link).unwrap();
    let own = program.with_file_name("guard-runtime-circle");
    symlink(&program, &own).unwrap();
    let said = refused(Command::new(&own).env("PATH", program.parent().unwrap()).arg("features"));
    assert!(said.contains("found no circle in PATH"), "{said}");
}

#[test]
fn a_default_policy_is_for_containers_that_name_none() {
    let bundle = Bundle::new("cat /proc/sys/kernel/hostname 2>&1; exit 7");
    let log = bundle.path("log.json");
    let bundle = bundle.annotated(&json!({"io.guard-run.log": log}));
    fs::write(bundle.path("policy.json"), POLICY).unwrap();
    // The file is made where only this test sees it.
    let script = "cp \"$1\" /etc/guard-run/default-policy.json && shift && exec \"$@\"";
    let output = inside("runc", "sh")
        .args(["-c", script, "sh"])
        .arg(bundle.path("policy.json"))
        .arg(guard_runtime())
        .args(["run", "-b"])
        .arg(bundle.folder.path())
        .arg(&bundle.id)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(text(&output.stdout), "cat: read error: Operation not permitted\n");
    assert_eq!(
        bundle.config()["annotations"],
        json!({"io.guard-run.log": log, "io.guard-run.policy": "/etc/guard-run/default-policy.json"})
    );
    assert!(log.exists());
}

#[test]
fn a_runtime_whose_containers_no_guard_would_hold_is_refused() {
    let (folder, program) = alone("guard-runtime-runsc");
    executable(&folder.path().join("runsc"), "#!/bin/sh\necho it ran\n");
    executable(&folder.path().join("guard-hook"), RECORDER);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let run = |bundle: &Bundle, settings: &str| {
        let script = "[ -z \"$1\" ] || echo \"$1\" >/etc/guard-run/hook.json; shift; exec \"$@\"";
        let mut command = inside("runc", "sh");
        command.env("PATH", &path).args(["-c", script, "sh", settings]).arg(&program).args(["run", "-b"]);
        command.arg(bundle.folder.path()).arg(&bundle.id);
        command
    };
    let bundle = Bundle::new("").guarded();
    let said = refused(&mut run(&bundle, ""));
    assert!(said.contains("runsc is not known to run its containers' processes in their cgroups"), "{said}");
    let named = format!(
        r#"{{"version": 1, "policies": ["{0}"], "logs": ["{0}"], "runtimes": ["runsc"]}}"#,
        std::env::temp_dir().display()
    );
    for (bundle, settings) in [(&bundle, named.as_str()), (&Bundle::new(""), "")] {
        assert_eq!(text(&run(bundle, settings).output().unwrap().stdout), "it ran\n");
    }
}

/// An annotation has crun start a virtual machine.
#[test]
fn a_container_that_would_run_in_a_virtual_machine_is_refused() {
    let (folder, program) = alone("guard-runtime-crun");
    executable(&folder.path().join("crun"), "#!/bin/sh\necho it ran\n");
    executable(&folder.path().join("guard-hook"), RECORDER);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    for (handler, runs) in [("krun", false), ("krun-sev", false), ("wasm", true)] {
        let bundle = Bundle::new("").guarded();
        let mut config = bundle.config();
        config["annotations"]["run.oci.handler"] = handler.into();
        bundle.write(&config);
        let mut command = inside("runc", &program);
        command.env("PATH", &path).args(["run", "-b"]).arg(bundle.folder.path()).arg(&bundle.id);
        let output = command.output().unwrap();
        assert_eq!(text(&output.stdout) == "it ran\n", runs, "{handler}: {output:?}");
        assert!(runs || text(&output.stderr).contains("krun"), "{handler}: {output:?}");
    }
}

#[test]
fn capabilities_by_which_a_policy_is_evaded_are_refused_before_there_is_a_container() {
    let network = r#"{"version": 1, "network": {"default": "deny"}}"#;
    for (annotation, expected) in [("io.kubernetes.cri.container-type", Some(8)), ("io.kubernetes.cri.x", None)] {
        let bundle = Bundle::new("exit 8").guarded();
        fs::write(bundle.path("policy.json"), network).unwrap();
        let mut config = bundle.config();
        config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_NET_RAW"]);
        config["annotations"][annotation] = json!("sandbox");
        bundle.write(&config);
        if let Some(code) = expected {
            // What holds a pod's namespaces has it taken away: nobody else could do that.
            assert_eq!(bundle.run(&guard_runtime()).status.code(), Some(code));
            assert_eq!(bundle.config()["process"]["capabilities"]["bounding"], json!(["CAP_KILL"]));
            continue;
        }
        let said =
            refused(inside("runc", guard_runtime()).args(["run", "-b"]).arg(bundle.folder.path()).arg(&bundle.id));
        assert!(said.contains("CAP_NET_RAW sends packets past every hook"), "{said}");
        assert!(bundle.config().get("hooks").is_none());
        // And by the hook itself, where runc calls it without guard-runtime.
        let hook = guard_runtime().with_file_name("guard-hook");
        config["hooks"] = json!({"createRuntime": [{"path": hook, "args": ["guard-hook"]}]});
        bundle.write(&config);
        let output = bundle.run(Path::new("runc"));
        assert!(text(&output.stderr).contains("--cap-drop NET_RAW"), "{output:?}");
    }
}

/// A program that ends with 7 by a system call of 32-bit x86, for which the kernel asks no program about socket options.
#[cfg(target_arch = "x86_64")]
fn by_foreign_call() -> Vec<u8> {
    const PLACE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // mov eax, 1 (exit); mov ebx, 7; int 0x80
    const CODE: [u8; 12] = [0xb8, 1, 0, 0, 0, 0xbb, 7, 0, 0, 0, 0xcd, 0x80];
    let size = HEADERS + CODE.len() as u64;
    // An executable for x86-64, and the segment that is all of it.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    file.extend([PLACE + HEADERS, 64, 0].map(u64::to_le_bytes).concat());
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    file.extend([0, PLACE, PLACE, size, size, 0x1000].map(u64::to_le_bytes).concat());
    file.extend(CODE);
    file
}

#[cfg(target_arch = "x86_64")]
#[test]
fn no_foreign_call_is_made_where_socket_options_are_judged() {
    const ENDS: Option<i32> = Some(7);
    const KILLED: Option<i32> = Some(128 + libc::SIGSYS);
    let hosts = json!({"default": "allow", "rules": [{"action": "deny", "hosts": ["192.0.2.1"]}]});
    let ports = json!({"default": "allow", "rules": [{"action": "deny", "ops": ["connect"], "protocols": ["tcp"], "ports": [9090]}]});
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]});
    let (folder, crun) = alone("guard-runtime-crun");
    copy(&guard_runtime().with_file_name("guard-hook"), &folder.path().join("guard-hook"));
    for (network, process, expected) in
        [(&ports, json!({}), ENDS), (&hosts, json!({}), KILLED), (&hosts, json!({"architectures": ["x86"]}), ENDS)]
    {
        for (filter, engine) in [(&Value::Null, "runc"), (&filter, "runc"), (&Value::Null, "crun"), (&filter, "crun")] {
            let bundle = Bundle::new("exec /foreign").guarded();
            let program = bundle.path("rootfs/foreign");
            fs::write(&program, by_foreign_call()).unwrap();
            fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
            let policy = json!({"version": 1, "network": network, "process": process});
            fs::write(bundle.path("policy.json"), policy.to_string()).unwrap();
            let mut config = bundle.config();
            config["linux"]["seccomp"] = filter.clone();
            bundle.write(&config);
            let runtime = if engine == "crun" { &crun } else { &guard_runtime() };
            let output = bundle.run_by(engine, runtime);
            assert_eq!(output.status.code(), expected, "{engine} {policy} {filter} {output:?}");
        }
    }
}

/// In the ways in which only one runtime reads them, or which only one of them knows.
#[cfg(target_arch = "x86_64")]
#[test]
fn no_spelling_and_no_annotation_lets_foreign_calls_through() {
    // The one instruction that returns SECCOMP_RET_ALLOW.
    const ALLOWING: &str = "BgAAAAAA/38=";
    let plain = guard_runtime();
    let (folder, crun) = alone("guard-runtime-crun");
    copy(&guard_runtime().with_file_name("guard-hook"), &folder.path().join("guard-hook"));
    let hosts =
        r#"{"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["192.0.2.1"]}]}}"#;
    let ports =
        hosts.replace(r#""hosts": ["192.0.2.1"]"#, r#""ops": ["connect"], "protocols": ["tcp"], "ports": [9090]"#);
    let run = |policy: &str, engine: &str, filter: &Value, annotation: Option<&str>| {
        let bundle = Bundle::new("exec /foreign").guarded();
        let program = bundle.path("rootfs/foreign");
        fs::write(&program, by_foreign_call()).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        fs::write(bundle.path("policy.json"), policy).unwrap();
        let mut config = bundle.config();
        config["linux"]["seccomp"] = filter.clone();
        if let Some(annotation) = annotation {
            config["annotations"]["run.oci.seccomp_bpf_data"] = annotation.into();
        }
        bundle.write(&config);
        bundle.run_by(engine, if engine == "crun" { &crun } else { &plain })
    };
    let filter = |key: &str, name: &str| json!({"defaultAction": "SCMP_ACT_ALLOW", key: ["SCMP_ARCH_X86_64", name]});
    for (engine, filter, annotation) in [
        ("crun", filter("architectures", "x86"), None),
        ("crun", filter("architectures", "SCMP_ARCH_x86"), None),
        ("runc", filter("Architectures", "SCMP_ARCH_X86"), None),
        ("crun", filter("architectures", "SCMP_ARCH_X86_64"), Some(ALLOWING)),
    ] {
        let control = run(&ports, engine, &filter, annotation).status.code();
        // The guard refuses the file with the key that only runc knows, whatever the policy is.
        assert!(control == Some(7) || engine == "runc", "the control: {engine} {filter} {control:?}");
        let output = run(hosts, engine, &filter, annotation);
        assert_ne!(output.status.code(), Some(7), "{engine} {filter} {annotation:?} {output:?}");
    }
}

/// The runtime opens the file by its name when guard-runtime has looked at it: nobody may put another one there meanwhile.
#[test]
fn a_bundle_that_others_can_write_is_refused() {
    const SOMEBODY: Option<u32> = Some(4242);
    let change: [&dyn Fn(&Bundle); 4] = [
        &|bundle| fs::set_permissions(bundle.folder.path(), Permissions::from_mode(0o777)).unwrap(),
        &|bundle| fs::set_permissions(bundle.path("config.json"), Permissions::from_mode(0o666)).unwrap(),
        &|bundle| chown(bundle.folder.path(), SOMEBODY, None).unwrap(),
        &|bundle| {
            fs::rename(bundle.path("config.json"), bundle.path("real.json")).unwrap();
            symlink("real.json", bundle.path("config.json")).unwrap();
            chown(bundle.path("real.json"), SOMEBODY, None).unwrap();
        },
    ];
    for change in change {
        let [guarded, other] = [Bundle::new("echo it ran").guarded(), Bundle::new("echo it ran")];
        change(&guarded);
        change(&other);
        let mut command = inside("runc", guard_runtime());
        let said = refused(command.args(["run", "-b"]).arg(guarded.folder.path()).arg(&guarded.id));
        assert!(said.contains("others could have written this"), "{said}");
        // Whoever asks for no guard may have any bundle.
        assert_eq!(text(&other.run(&guard_runtime()).stdout), "it ran\n");
    }
    let bundle = Bundle::new("echo it ran").guarded();
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), Permissions::from_mode(0o777)).unwrap();
    symlink(bundle.folder.path(), shared.path().join("link")).unwrap();
    let said =
        refused(inside("runc", guard_runtime()).args(["run", "-b"]).arg(shared.path().join("link")).arg(&bundle.id));
    assert!(said.contains("others could have written this"), "{said}");
    // What belongs to root is taken, also by a link.
    fs::rename(bundle.path("config.json"), bundle.path("real.json")).unwrap();
    symlink("real.json", bundle.path("config.json")).unwrap();
    let output = bundle.run(&guard_runtime());
    assert_eq!(text(&output.stdout), "it ran\n", "{output:?}");
}

#[test]
fn a_file_that_the_hook_would_not_read_is_refused() {
    let bundle = Bundle::new("echo it ran").guarded();
    fs::rename(bundle.path("config.json"), bundle.path("other.json")).unwrap();
    let said = refused(
        inside("crun", guard_runtime())
            .args(["run", "--config"])
            .arg(bundle.path("other.json"))
            .args(["-b"])
            .arg(bundle.folder.path())
            .arg(&bundle.id),
    );
    assert!(said.contains("has to be its bundle's config.json"), "{said}");
}

#[test]
fn podman_runs_containers_by_it() {
    let bundle = Bundle::new("").guarded();
    let podman = |runtime: &Path, annotation: &str, script: &str| {
        inside("runc", "podman")
            .args(["--cgroup-manager", "cgroupfs", "--storage-driver", "vfs", "--root"])
            .args([bundle.path("storage"), "--runroot".into(), bundle.path("run"), "--runtime".into(), runtime.into()])
            .args(["run", "--rm", "--network", "none", "--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"])
            .args(["--annotation", annotation, "--rootfs"])
            .arg(bundle.path("rootfs"))
            .args(["/bin/sh", "-c", script])
            .output()
            .unwrap()
    };
    let annotation = format!("io.guard-run.policy={}", bundle.path("policy.json").display());
    let script = "cat /proc/sys/kernel/hostname 2>&1; exit 3";
    let output = podman(&guard_runtime(), &annotation, script);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(text(&output.stdout), "cat: read error: Operation not permitted\n");
    let output = podman(&guard_runtime(), "other=annotation", script);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(!text(&output.stdout).contains("Operation not permitted"), "{output:?}");
    let (_folder, lonely) = alone("guard-runtime");
    let output = podman(&lonely, &annotation, script);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(text(&output.stderr).contains("it belongs into the same folder as guard-runtime"), "{output:?}");
}

#[test]
fn a_guard_is_the_same_by_hooks_d_by_runtime_and_by_both() {
    for engine in ENGINES {
        let machine = Machine::new(engine);
        let name = format!("guard-runtime-{}", machine.runtime());
        let runtime = machine.folder().join(&name);
        copy(&guard_runtime(), &runtime);
        let policy = machine.write("policy.json", POLICY);
        let [policy, log] = guarded(&policy, &machine.folder().join("log.json"));
        let hooks = machine.hooks_dir().join("guard-run.json");
        for (what, with_hooks, runtime) in [
            ("hooks.d", true, machine.runtime()),
            ("both", true, runtime.to_str().unwrap()),
            ("runtime", false, runtime.to_str().unwrap()),
        ] {
            if !with_hooks {
                fs::remove_file(&hooks).unwrap();
            }
            let rootfs = machine.rootfs();
            let said = machine.podman(&[
                "--runtime",
                runtime,
                "run",
                "--rm",
                "--pids-limit=0",
                "--network=none",
                &policy,
                &log,
                "--rootfs",
                rootfs.to_str().unwrap(),
                "/bin/sh",
                "-c",
                "/bin/cat /proc/sys/kernel/hostname; exit 3",
            ]);
            assert_eq!((said.code, said.stdout.as_str()), (Some(3), ""), "{engine:?}, {what}: {said:?}");
            assert!(said.stderr.contains("Operation not permitted"), "{engine:?}, {what}: {said:?}");
            // Two guards would count each denial twice, in two logs of which the second replaces the first.
            let log = machine.log("log.json");
            assert_eq!(log["events"].as_array().unwrap().len(), 1, "{engine:?}, {what}: {log}");
            assert_eq!(log["lost"], 0, "{engine:?}, {what}: {log}");
            fs::remove_file(machine.folder().join("log.json")).unwrap();
        }
        assert!(machine.pins().is_empty(), "{engine:?}: {:?}", machine.pins());
    }
}
