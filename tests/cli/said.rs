//! What guard-run says to its user while a command runs and at its end.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    process::Command,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use support::{Cache, PYTHON, Run, Yard, eventually, guard_run, processes_with_argument};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

/// A number of seconds for sleep(1) that no other test has.
fn seconds(number: u32) -> String {
    format!("{}.{number}", 100_000 + std::process::id())
}

/// The sleep(1) of so many seconds. Shells have the number among their arguments, too.
fn sleepers(seconds: &str) -> Vec<u32> {
    let is_sleep = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n");
    processes_with_argument(seconds).into_iter().filter(is_sleep).collect()
}

fn end(seconds: &str) {
    for pid in sleepers(seconds) {
        // SAFETY: takes two numbers.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
    }
}

/// An agent that a command starts in the background: `ssh-agent`, `gradle --daemon`, a server.
#[test]
fn what_is_waited_for_is_said_once_and_again_when_it_is_something_else() {
    let (first, second) = (seconds(1), seconds(2));
    // The first one's end is the start of the second.
    let script = r#"(sleep "$1"; exec sleep "$2") & exit 7"#;
    let run = Run::shell(json!({"version": 1}), script, &[&first, &second]);
    let mut running = run.start();
    running.wait_until("it says what it waits for", |running| running.stderr().contains("waiting"));
    let said = running.stderr();
    assert!(said.lines().count() == 1 && said.starts_with("guard-run: the command has ended"), "{said}");
    for words in ["2 processes", "sleep (", "Ctrl-C", &format!("kill {}", running.pid()), "--wait child"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    end(&first);
    running.wait_until("it says that it is another", |running| running.stderr().contains("now waiting for"));
    let [pid] = sleepers(&second)[..] else { panic!("one of them") };
    assert!(running.stderr().contains(&format!("now waiting for a process: sleep ({pid})")), "{}", running.stderr());
    end(&second);
    let output = running.wait().exits(7);
    // bash has a word about what it was killed, and guard-run one about the command's failure.
    let is_on_waiting = |line: &&str| line.starts_with("guard-run: ") && line.contains("waiting");
    assert_eq!(output.stderr.lines().filter(is_on_waiting).count(), 2, "{}", output.stderr);
    assert_eq!(output.log["exit"]["killed"], 0);
}

#[test]
fn what_ends_soon_or_is_ended_anyway_is_not_spoken_of_nor_is_anything_with_quiet() {
    let left = seconds(3);
    for flags in [&["--wait", "child"][..], &[]] {
        let time = if flags.is_empty() { "0.1" } else { &left };
        let output =
            Run::shell(json!({"version": 1}), r#"sleep "$1" & exit 0"#, &[time]).flags(flags).output().success();
        assert_eq!(output.stderr, "", "{flags:?}");
    }
    let quiet = Run::shell(json!({"version": 1}), r#"sleep "$1" & exit 0"#, &[&left]).flags(["--quiet"]).start();
    eventually("it waits", || sleepers(&left).len() == 1);
    // Longer than it waits before it says something.
    let begin = SystemTime::now();
    eventually("some time has passed", || begin.elapsed().unwrap() > Duration::from_millis(1500));
    quiet.signal(libc::SIGTERM);
    assert_eq!(quiet.wait().success().stderr, "");
}

fn last_line(stderr: &str) -> &str {
    let line = stderr.lines().last().unwrap_or_default();
    assert!(line.starts_with("guard-run: denied "), "{stderr}");
    line
}

/// Twenty programs that look for a terminal, in three ways, and a connection: it is the connection that matters.
#[test]
fn the_last_line_has_each_thing_once_and_the_rarest_first() {
    let policy = json!({"version": 1,
        "network": {"default": "allow", "rules": [{"action": "deny", "ops": ["connect"], "hosts": ["127.0.0.1"]}]},
        "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 5}]},
        "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/hostname", "kernel/osrelease"], "access": "r"}]}
    });
    let program = r#"
import os, socket, sys
def denied(act):
    try: act()
    except PermissionError: return
    sys.exit("not denied")
for number in range(20):
    if os.fork() == 0:
        denied(lambda: os.open("/dev/zero", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR][number % 3]))
        os._exit(0)
    assert os.wait()[1] == 0
for number in range(3): denied(lambda: open("/proc/sys/kernel/hostname").read())
for number in range(2): denied(lambda: open("/proc/sys/kernel/osrelease").read())
denied(lambda: socket.create_connection(("127.0.0.1", 9)))
"#;
    let output = Run::python(policy, program, &[]).output().success();
    assert_eq!(output.denied(), 26);
    let line = last_line(&output.stderr);
    let kinds = "denied 26: connect tcp 127.0.0.1:9 [/network/rules/0]; sysctl kernel/osrelease r ×2 [/sysctls/rules/0]; \
                 sysctl kernel/hostname r ×3 [/sysctls/rules/0]; and one more kind; log: ";
    assert!(line.contains(kinds), "{line}");
}

#[test]
fn ways_to_use_one_thing_are_one_kind() {
    let policy = json!({"version": 1, "devices": {"default": "allow", "rules": [{"action": "deny", "type": "c", "major": 1, "minor": 5}]}});
    let script = "for way in '<' '>' '<>'; do eval \"true $way /dev/zero\" 2>/dev/null; done; true";
    let output = Run::shell(policy, script, &[]).output().success();
    let line = last_line(&output.stderr);
    assert!(line.contains("denied 3: device /dev/zero (c 1:5) rw ×3 [/devices/rules/0]; log: "), "{line}");
}

#[test]
fn what_was_denied_is_also_said_where_the_log_can_not_be_written() {
    let policy =
        json!({"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["127.0.0.1"]}]}});
    let run =
        Run::shell(policy, r#""$STORM" tcp 9 >/dev/null; rm -r "$LOGS"; : >"$LOGS""#, &[]).environment("STORM", STORM);
    let logs = run.folder().join("logs");
    fs::create_dir(&logs).unwrap();
    let log = logs.join("log.json");
    let run = run.environment("LOGS", &logs).without_log().flags([OsString::from("--log"), log.into()]);
    let output = run.output().exits(125);
    assert!(output.stderr.contains("here it is instead"), "{output:?}");
    assert!(last_line(&output.stderr).contains("denied 1: connect tcp 127.0.0.1:9 [/network/rules/0]"), "{output:?}");
}

/// `gc` right after a run finds what the run has kept.
#[test]
fn gc_right_after_a_run_waits_for_the_kernel() {
    let (cache, yard) = (Cache::new(), Yard::new());
    for _ in 0..10 {
        let run = Run::new(json!({"version": 1}), ["true"]).through([yard.wrapper(), cache.wrapper()].concat());
        let _ = run.output().success();
        let gc = yard.gc_through(&cache.wrapper());
        let said = String::from_utf8(gc.stdout).unwrap();
        assert!(gc.status.success() && said.contains("\n1 cache entry removed\n"), "{said}");
        assert!(cache.all().is_empty());
    }
}

/// A socket that was handed out is still guarded when nobody else is left.
#[test]
fn gc_says_what_it_has_to_leave() {
    let (cache, yard) = (Cache::new(), Yard::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let program = "import array, socket, sys; out = socket.socket(socket.AF_UNIX); out.connect(sys.argv[1]); \
                   given = socket.socket(); out.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, \
                   array.array('i', [given.fileno()]))])";
    let policy =
        json!({"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["127.0.0.1"]}]}});
    let run = Run::new(policy, [PYTHON, "-c", program, path.to_str().unwrap()]);
    let running = run.through([yard.wrapper(), cache.wrapper()].concat()).start();
    // Until it is received, the socket is in flight, and there as long as this one is.
    let (stream, _) = listener.accept().unwrap();
    let _ = running.wait().success();
    let gc = yard.gc_through(&cache.wrapper());
    let said = String::from_utf8(gc.stderr).unwrap();
    assert!(gc.status.code() == Some(1) && said.contains("1 cache entry left") && said.lines().count() == 1, "{said}");
    drop(stream);
    drop(listener);
    let gc = yard.gc_through(&cache.wrapper());
    let said = String::from_utf8(gc.stdout).unwrap();
    assert!(gc.status.success() && said.contains("1 cache entry removed"), "{said}");
}

#[test]
fn gc_removes_old_logs_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("guard-run");
    fs::create_dir(&logs).unwrap();
    let names = [
        "20260101T000000.000000000Z-1.json",
        "20260102T000000.000000000Z-2.json",
        "20260103T000000.000000000Z-3.json",
        "mine.json",
    ];
    for (days, name) in [40_u64, 31, 29, 40].into_iter().zip(names) {
        let file = fs::File::create(logs.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
    }
    let gc = |arguments: &str| {
        let script = format!(
            "mount --bind {} /var/log && exec {} gc {arguments}",
            folder.path().display(),
            guard_run().display()
        );
        let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = gc("--logs soon");
    assert!(code == Some(125) && said.contains("30d"), "{said}");
    assert!(!gc("").1.contains("older"));
    assert_eq!(fs::read_dir(&logs).unwrap().count(), 4);
    let (code, said) = gc("--logs 30d");
    assert!(code == Some(0) && said.contains("\n2 logs older than 30d removed\n"), "{said}");
    let mut left: Vec<_> = fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [names[2], names[3]]);
}

/// A cgroup that may have no cgroups in it: `TasksMax` has a brother.
#[test]
fn root_is_told_where_its_command_runs_without_the_limits_of_its_cgroup() {
    let yard = Yard::new();
    let run = Run::new(json!({"version": 1}), ["true"]).through(yard.wrapper());
    assert_eq!(run.output().success().stderr, "");
    fs::write(yard.path().join("cgroup.max.descendants"), "0").unwrap();
    let output = run.output().success();
    let said = &output.stderr;
    assert!(said.lines().count() == 1 && said.contains("without the limits of guard-run's own cgroup"), "{said}");
    let cgroup = output.log["enforced"]["cgroup"].as_str().unwrap();
    assert!(said.contains(cgroup) && !cgroup.starts_with(yard.path().to_str().unwrap()), "{said}");
}

#[test]
fn too_few_descriptors_are_said_to_be_that() {
    let mut refused = 0;
    for descriptors in 4..40 {
        let limit = format!("ulimit -n {descriptors}; exec \"$@\"");
        let policy: Value = serde_json::from_str(support::bpf::EVERY_SECTION).unwrap();
        let run = Run::new(policy, ["/bin/true"]).flags(["--fresh"]).through(["bash", "-c", &limit, "bash"]);
        let output = run.output();
        if output.code() == Some(0) {
            continue;
        }
        refused += 1;
        let said = &output.stderr;
        assert!(
            output.code() == Some(125) && said.lines().count() == 1 && said.len() < 1000,
            "{descriptors}: {output:?}"
        );
        let is_cause = said.contains("Too many open files") || said.contains("No file descriptors available");
        assert!(is_cause && !said.contains("processed"), "{descriptors}: {said}");
    }
    assert!(refused > 5, "the control: it takes more than the least");
}

/// What services' sockets are covered with, and the control: they are there.
#[test]
fn a_machine_without_dev_null_is_told_so() {
    let folder = std::path::Path::new("/tmp/tmux-0");
    let _ = DirBuilder::new().mode(0o700).create(folder);
    let path = folder.join(format!("guard-said-{}", std::process::id()));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for (dev, code) in [("true", 0), ("mount -t tmpfs none /dev", 125)] {
        let script = format!("{dev} && exec \"$@\"");
        let run =
            Run::new(json!({"version": 1}), ["/bin/true"]).through(["unshare", "--mount", "sh", "-c", &script, "sh"]);
        let output = run.output();
        let said = &output.stderr;
        assert_eq!(output.code(), Some(code), "{said}");
        assert!(code == 0 || said.contains("there is no /dev/null here") && said.lines().count() == 1, "{said}");
        assert!(!said.contains("tmux"), "{said}");
        let covered = output.log["enforced"]["hardening"]["covered"].as_array().cloned().unwrap_or_default();
        assert_eq!(covered.contains(&json!(path)), code == 0, "{covered:?}");
    }
    drop(listener);
    fs::remove_file(path).unwrap();
}
