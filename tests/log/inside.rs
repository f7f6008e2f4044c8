//! The file in which a command finds why it was denied something.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use support::{
    PYTHON, Run, cgroup_only, guard_run,
    ordinary::{ALICE, alice},
};

const STORM: &str = env!("CARGO_BIN_EXE_storm");

fn policy() -> Value {
    let rules = json!([{"action": "deny", "ops": ["connect"], "hosts": ["127.0.0.1"], "reason": "nothing listens"}]);
    json!({"version": 1, "network": {"default": "allow", "rules": rules}})
}

/// Waits, inside, until the file has so many lines, for a second at the most.
const WAIT: &str = "lines() { for _ in {1..100}; do [ \"$(wc -l <$GUARD_RUN_DENIALS)\" -ge $1 ] && return; sleep 0.01; done; exit 99; }";

fn shell(script: &str) -> Run {
    Run::shell(policy(), &format!("{WAIT}; {script}"), &[]).environment("STORM", STORM)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn a_denial_is_explained_inside_a_second_later() {
    let run = shell("cat $GUARD_RUN_DENIALS; $STORM tcp 7 8 >/dev/null; lines 2; cat $GUARD_RUN_DENIALS");
    let output = run.output().success();
    let told = lines(&output.stdout);
    let events = output.events();
    assert_eq!((told.len(), events.len()), (2, 2), "{output:?}");
    for (told, event) in told.iter().zip(events) {
        for key in ["time", "op", "hook", "verdict", "process", "network", "rule", "reason", "count", "first", "last"] {
            assert_eq!(told[key], event[key], "{key}");
        }
        let why = &told["why"];
        assert!(why["meaning"].as_str().unwrap().contains("a decision and no fault"), "{why:#}");
        assert!(why["explanation"].as_str().unwrap().contains("reason    nothing listens"), "{why:#}");
        assert_eq!(why["patch"][0]["value"]["ports"], json!([told["network"]["port"]]), "{why:#}");
    }
    // What reads logs reads these lines, too.
    let told = run.folder().join("told.jsonl");
    fs::write(&told, &output.stdout).unwrap();
    let replayed = run.subcommand("replay", &[told.to_str().unwrap()]).success();
    assert!(!replayed.stdout.is_empty(), "{replayed:?}");
}

#[test]
fn why_inside_shows_the_last_denials() {
    let script = "$GUARD why; $STORM tcp 7 >/dev/null; lines 1; $GUARD why; $GUARD why --json | wc -l";
    let output = shell(script).environment("GUARD", guard_run()).output().success();
    let (before, after) = output.stdout.split_once("\n1. ").expect(&output.stdout);
    assert_eq!(before, "nothing was denied");
    assert!(after.starts_with("connect tcp 127.0.0.1:7: denied by /network/rules/0\n"), "{after}");
    assert!(after.contains("a decision and no fault") && after.ends_with("\n1\n"), "{after}");
    let outside = shell("$GUARD why").environment("GUARD", guard_run()).bare().exits(125);
    assert!(outside.stderr.contains("GUARD_RUN_DENIALS is not set"), "{outside:?}");
}

/// Each denial is there as soon as guard-run has answered, also while others ask all the time.
#[test]
fn who_opens_it_can_wait_until_it_is_complete() {
    let program = r#"
import os, socket, subprocess, time
path = os.environ["GUARD_RUN_DENIALS"]
others = [subprocess.Popen(["bash", "-c", f"while :; do : <{path}; done"]) for _ in range(2)]
for port in range(1, 101):
    socket.socket().connect_ex(("127.0.0.1", port))
    before = time.time_ns()
    with open(path) as file:
        end = time.monotonic() + 20
        while os.fstat(file.fileno()).st_atime_ns < before and time.monotonic() < end:
            time.sleep(0.0002)
        told = file.read().count("\n")
    assert told == port, (told, port)
for other in others:
    other.kill()
"#;
    let _ = Run::python(policy(), program, &[]).output().success();
}

/// What can be tried on a file, and on the folder that it is in. Each line is one that succeeded.
const CHANGES: &str = r#"
import ctypes, mmap, os, sys
path = sys.argv[1]
folder = os.path.dirname(path)
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
def reopen():
    with open(path) as file:
        os.write(os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY), b"x")
def mapped():
    with open(path, "r+") as file:
        mmap.mmap(file.fileno(), 1, mmap.MAP_SHARED, mmap.PROT_WRITE)
def remount():
    check(libc.mount(None, folder.encode(), None, 32 | 4096, None))
def unmount():
    check(libc.umount2(folder.encode(), 2))
def over():
    check(libc.mount(b"none", folder.encode(), b"tmpfs", 0, None))
changes = {
    "write": lambda: os.write(os.open(path, os.O_WRONLY), b"x"),
    "append": lambda: os.write(os.open(path, os.O_WRONLY | os.O_APPEND), b"x"),
    "reopen": reopen,
    "map": mapped,
    "mode": lambda: os.chmod(path, 0o666),
    "owner": lambda: os.chown(path, os.getuid(), os.getgid()),
    "times": lambda: os.utime(path),
    "attribute": lambda: os.setxattr(path, "trusted.x" if os.getuid() == 0 else "user.x", b"x"),
    "link": lambda: os.link(path, folder + "/link"),
    "beside": lambda: open(folder + "/beside", "w"),
    "rename": lambda: os.rename(path, folder + "/renamed") or os.rename(folder + "/renamed", path),
    "truncate": lambda: os.truncate(path, 1),
    "remount": remount,
    "mount": over,
    "unmount": unmount,
    "remove": lambda: os.unlink(path),
}
for name, change in changes.items():
    try:
        change()
        print(name)
    except (OSError, PermissionError, ValueError) as error:
        print(name, "failed:", error, file=sys.stderr)
"#;

#[test]
fn nobody_inside_can_change_it() {
    let script = "$STORM tcp 7 >/dev/null; lines 1; before=$(cat $GUARD_RUN_DENIALS)
        $PYTHON -c \"$CHANGES\" $GUARD_RUN_DENIALS
        [ \"$before\" = \"$(cat $GUARD_RUN_DENIALS)\" ] && echo whole; $STORM tcp 8 >/dev/null; lines 2 && echo goes on";
    let run = |run: Run| run.environment("CHANGES", CHANGES).environment("PYTHON", PYTHON);
    assert_eq!(run(shell(script)).output().success().stdout, "whole\ngoes on\n");
    // The control: outside, root succeeds with all of it on a file like this.
    let place = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs none $PLACE && echo x >$PLACE/file && $PYTHON -c \"$CHANGES\" $PLACE/file";
    let namespace = ["unshare", "--mount", "--propagation", "private"];
    let control = run(Run::shell(policy(), script, &[])).environment("PLACE", place.path()).through(namespace).bare();
    let all: Vec<&str> = CHANGES.lines().filter_map(|line| line.strip_prefix("    \"")?.split('"').next()).collect();
    let succeeded: Vec<&str> = control.stdout.lines().collect();
    // What was mounted over it hides it from what comes after, until that is unmounted.
    assert_eq!(succeeded, all, "{control:?}");
}

#[test]
fn an_ordinary_user_has_it_and_can_change_it_no_more() {
    let read = "read -r _ </proc/sys/kernel/hostname; until [ -s $GUARD_RUN_DENIALS ]; do sleep 0.01; done; cat $GUARD_RUN_DENIALS";
    let script = format!("{{ {read}; }} 2>/dev/null; {PYTHON} -c \"$CHANGES\" $GUARD_RUN_DENIALS 2>/dev/null");
    let output = alice(&script).environment("CHANGES", CHANGES).output().success();
    let told = lines(&output.stdout);
    assert_eq!((told.len(), &told[0]["process"]["uid"]), (1, &json!(ALICE)), "{output:?}");
    assert_eq!(told[0]["sysctl"]["name"], "kernel/hostname");
}

#[test]
fn what_has_no_room_is_counted() {
    let script = "$STORM ports 1 2000 >/dev/null; for _ in {1..500}; do grep -q dropped $GUARD_RUN_DENIALS && break; sleep 0.02; done
        sleep 0.5; cat $GUARD_RUN_DENIALS";
    let run = shell(script).limit(Duration::from_secs(120));
    let output = run.output().success();
    assert!(output.stdout.len() <= 1 << 20, "{} bytes", output.stdout.len());
    let mut told = lines(&output.stdout);
    let last = told.pop().unwrap();
    let dropped = last["dropped"].as_u64().unwrap_or_else(|| panic!("{last}"));
    assert!(dropped > 0 && !told.is_empty());
    assert_eq!(output.events().len(), 2000, "the log has all");
    assert_eq!(told.len() as u64 + dropped, 2000);
}

#[test]
fn without_a_view_of_its_own_the_command_is_told_of_no_file() {
    let run = Run::shell(cgroup_only(&policy()), "echo \"<$GUARD_RUN_DENIALS>\"", &[]);
    assert_eq!(run.output().success().stdout, "<>\n");
}

#[test]
fn the_innermost_guards_file_is_the_one_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner.json");
    fs::write(&inner, json!({"version": 1, "network": {"default": "deny"}}).to_string()).unwrap();
    let mut outer = policy();
    outer["process"] = json!({"allow": ["bpf", "namespaces", "cgroups", "signals", "kernel-files"], "capabilities": [
        "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_SYS_RESOURCE"]});
    let script = format!(
        "{WAIT}; outer=$GUARD_RUN_DENIALS; $STORM tcp 7 >/dev/null; lines 1
         $GUARD -p $INNER --log - -- bash -c '{WAIT}; $STORM tcp 8 >/dev/null; lines 1; cat $GUARD_RUN_DENIALS'; ls $outer"
    );
    let run = Run::shell(outer, &script, &[]).environment("STORM", STORM);
    let output = run.environment("INNER", &inner).environment("GUARD", guard_run()).output().success();
    let (inner, outer) = output.stdout.trim_end().rsplit_once('\n').unwrap();
    let inner = lines(inner);
    assert_eq!(
        (inner.len(), &inner[0]["network"]["port"], outer),
        (1, &json!(8), "/sys/kernel/debug/guard-run-denials.jsonl"),
        "{output:?}"
    );
}
