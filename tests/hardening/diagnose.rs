//! What keeps a command inside leaves a trace where that is asked for: every refusal is an event with the part of the policy that would
//! allow it, counted exactly, and refused all the same, whatever becomes of guard-run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Value, json};
use support::{
    Run, eventually,
    kernel::{Feature, lacks},
    kill_leaves,
    ordinary::ALICE,
};

use crate::refusals::{Outside, RESOURCE, TAKING_RESOURCE, WAYS, calls, expected, root_lacks, run, said, ways};

#[test]
fn every_refusal_is_an_event_that_says_what_to_write_and_is_refused_as_without() {
    let (policy, outside) = (|| json!({"version": 1}), Outside::new());
    let refused: Vec<String> =
        WAYS.iter().filter(|(way, ..)| ways().contains(way)).map(|(way, error, ..)| format!("{way} {error}")).collect();
    let quiet = run(policy(), &ways(), &outside).output().success();
    assert_eq!((said(&quiet), calls(&quiet).len()), (refused.clone(), 0));
    assert_eq!(quiet.log["enforced"]["hardening"]["observed"], Value::Null);
    let output = run(policy(), &ways(), &outside).flags(["--diagnose"]).output().success();
    assert_eq!((said(&output), calls(&output)), (refused, expected(&ways())));
    let observed = json!({"refused": ways().len(), "unrecorded": 0});
    assert_eq!(output.log["enforced"]["hardening"]["observed"], observed);
    let event = output.events().iter().find(|event| event["call"]["name"] == "connect").unwrap();
    assert_eq!((&event["call"]["path"], &event["hook"]), (&json!("/run/docker.sock"), &json!("mounts")));
    assert_eq!((&event["rule"], &event["process"]["comm"]), (&json!("/process"), &json!("python3")));
    assert!(event["process"]["argv"].as_array().is_some_and(|argv| argv.len() > ways().len()), "{event}");
    let schema: Value = serde_json::from_str(include_str!("../../schema/log.schema.json")).unwrap();
    let errors: Vec<String> =
        jsonschema::validator_for(&schema).unwrap().iter_errors(&output.log).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert!(output.stderr.contains(&format!("denied {}: call ", ways().len())), "{}", output.stderr);
}

#[test]
fn what_an_event_says_is_enough() {
    let outside = Outside::new();
    for (way, _, _, remedy) in WAYS.iter().filter(|(way, ..)| ways().contains(way) && *way != "vsock") {
        let mut policy: Value = serde_json::from_str(remedy).unwrap();
        policy["version"] = 1.into();
        let output = run(policy, &[way], &outside).flags(["--diagnose"]).output().success();
        assert_eq!((said(&output), calls(&output).len()), (vec![format!("{way} ok")], 0));
    }
}

#[test]
fn audit_mode_refuses_nothing_and_says_what_would_be_refused() {
    // Some kernels have no vsock.
    let ways: Vec<&str> = ways().into_iter().filter(|way| *way != "vsock").collect();
    let output = run(json!({"version": 1, "mode": "audit"}), &ways, &Outside::new()).output().success();
    assert_eq!(said(&output), ways.iter().map(|way| format!("{way} ok")).collect::<Vec<_>>());
    assert_eq!(calls(&output), expected(&ways));
    assert!(output.events().iter().all(|event| event["verdict"] == "audited"), "{:#?}", output.events());
    assert!(output.stderr.contains("would have denied"), "{}", output.stderr);
    assert_eq!(output.log["enforced"]["hardening"]["covered"], json!([]));
}

#[test]
fn what_is_not_refused_is_no_event() {
    const FINE: [&str; 18] = [
        "own-tgkill",
        "own-kcmp",
        "perf-user",
        "fanotify-names",
        "mlock-little",
        "batch",
        "idle",
        "clock",
        "user-attribute",
        "buffer",
        "own-nice",
        "own-group",
        "own-affinity",
        "lower-limit",
        "small-pipe",
        "low-priority",
        "own-abstract",
        "own-faults",
    ];
    let outside = Outside::new();
    for mode in ["enforce", "audit"] {
        let try_all = |ways: &[&str]| {
            let run = run(json!({"version": 1, "mode": mode}), ways, &outside);
            let output = run.flags(["--diagnose"]).output().success();
            (said(&output), calls(&output))
        };
        assert_eq!(try_all(&FINE), (FINE.map(|way| format!("{way} ok")).into(), BTreeMap::new()));
        if root_lacks(RESOURCE) {
            // Refused without the guard, too.
            let refused = TAKING_RESOURCE.map(|way| format!("{way} EPERM"));
            assert_eq!(try_all(&TAKING_RESOURCE), (refused.into(), BTreeMap::new()));
        }
    }
}

#[test]
fn in_audit_mode_namespaces_are_seen_also_where_their_flags_are_in_memory() {
    // clone3 with CLONE_NEWUSER, and a thread without.
    const CLONE: &str = "import ctypes, os, threading
libc = ctypes.CDLL(None)
arguments = (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, 17)
pid = libc.syscall(435, arguments, 64)
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
thread = threading.Thread(target=print, args=('a thread',)); thread.start(); thread.join()";
    let output = Run::python(json!({"version": 1, "mode": "audit"}), CLONE, &[]).output().success();
    assert_eq!(output.stdout, "a thread\n");
    let remedy = r#"to allow it: {"process": {"allow":["namespaces"]}}"#;
    assert_eq!(calls(&output), BTreeMap::from([(("clone3".to_owned(), remedy.to_owned()), 1)]));
}

/// No filter knows what a call of 32 bits means, so that it ends the process. In audit mode it must not.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_32_bits_are_seen_in_audit_mode_and_explained_where_they_end_the_command() {
    // getpid(2) by int 0x80.
    const CALL: &str = "import ctypes, mmap, os
memory = mmap.mmap(-1, 4096, prot=7); memory.write(bytes.fromhex('53b814000000cd805bc3'))
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
print(call() == os.getpid(), call() == os.getpid())";
    const REMEDY: &str = r#"to allow it: {"process": {"architectures":["x86"]}}"#;
    let run = |policy: Value| Run::python(policy, CALL, &[]).output();
    let audited = run(json!({"version": 1, "mode": "audit"})).success();
    let expected = BTreeMap::from([(("x86".to_owned(), REMEDY.to_owned()), 2)]);
    assert_eq!((audited.stdout.as_str(), calls(&audited)), ("True True\n", expected));
    assert_eq!(audited.events()[0]["call"]["error"], "SIGSYS");
    let ended = run(json!({"version": 1})).exits(128 + libc::SIGSYS);
    assert!(ended.stderr.contains(REMEDY), "{}", ended.stderr);
    let allowed = run(json!({"version": 1, "process": {"architectures": ["x86"]}})).success();
    assert_eq!((allowed.stdout.as_str(), allowed.stderr.as_str()), ("True True\n", ""));
}

#[test]
fn refusals_are_counted_exactly_while_signals_interrupt_and_processes_end() {
    // Four processes, each with a timer that fires every 0.2 ms; then some that are killed while they try.
    const MANY: &str = "import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def work(count):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    while count:
        if libc.mount(None, b'/mnt', None, 0, None) != -1: os._exit(1)
        # A signal that comes before guard-run has the call: it was neither made nor refused.
        if ctypes.get_errno() == 4: continue
        if ctypes.get_errno() != 1: os._exit(2)
        count -= 1
    os._exit(0)
children = [os.fork() or work(1000) for _ in range(4)]
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
doomed = [os.fork() or work(1000000) for _ in range(4)]
for child in doomed: os.kill(child, 9)
for child in doomed: os.waitpid(child, 0)
print(*children)";
    let output = Run::python(json!({"version": 1}), MANY, &[]).flags(["--diagnose"]).output().success();
    for child in output.stdout.split_whitespace().map(|child| child.parse::<u64>().unwrap()) {
        let own = output.events().iter().filter(|event| event["process"]["pid"] == child);
        assert_eq!(own.map(|event| event["count"].as_u64().unwrap()).sum::<u64>(), 1000, "{child}");
    }
    let all: u64 = calls(&output).values().sum();
    assert_eq!(output.log["enforced"]["hardening"]["observed"], json!({"refused": all, "unrecorded": 0}));
}

#[test]
fn nobody_inside_can_answer_for_guard_run_not_even_when_it_is_dead() {
    // A filter that leaves all mounts to a listener of its own; what the kernel says to that, and to mount.
    const ANSWER: &str = "import ctypes, errno, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(1, 0)  # PR_SET_PDEATHSIG
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 165), (6, 0, 0, 0x7fc00000), (6, 0, 0, 0x7fff0000)]
code = b''.join(struct.pack('=HBBI', *step) for step in steps)
class Program(ctypes.Structure): _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_char_p)]
program = Program(4, code)
def said(result): return 'ok' if result >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt():
    listener = said(libc.syscall(317, 1, 8, ctypes.byref(program)))
    return f\"{listener} {said(libc.mount(b'none', b'/mnt', b'tmpfs', 0, None))}\"
print(attempt(), flush=True)
parent = os.getppid()
while os.getppid() == parent: time.sleep(0.001)
with open(sys.argv[1] + '~', 'w') as file: file.write(attempt())
os.rename(sys.argv[1] + '~', sys.argv[1])";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("said");
    let run = Run::python(json!({"version": 1}), ANSWER, &[file.to_str().unwrap()]).flags(["--diagnose"]);
    let mut running = run.start();
    running.wait_for("\n");
    assert_eq!(running.stdout(), "EBUSY EPERM\n");
    running.signal(libc::SIGKILL);
    eventually("it has tried again", || file.exists());
    kill_leaves(running.pid());
    assert_eq!(fs::read_to_string(file).unwrap(), "EBUSY ENOSYS");
}

#[test]
fn events_come_also_where_no_program_is_needed_and_rules_alone_decide_about_the_exit_status() {
    let policy = || json!({"version": 1, "process": {"allow": ["sysctls"]}});
    let script = "unshare --user true; exit 0";
    let run = Run::shell(policy(), script, &[]).flags(["--diagnose", "--fail-on-deny", "--events", "-"]);
    let output = run.output().success();
    assert_eq!((output.denied(), calls(&output).len()), (0, 1));
    let line = output.stderr.lines().find(|line| line.starts_with('{')).unwrap();
    assert_eq!(serde_json::from_str::<Value>(line).unwrap(), output.events()[0], "it is written as it happens");
}

#[test]
fn a_run_whose_command_failed_says_how_to_see_refusals_unless_something_was_denied() {
    let hint = |policy: Value, script: &str, flags: &[&str]| {
        Run::shell(policy, script, &[]).flags(flags).output().stderr.contains("--diagnose")
    };
    let policy = || json!({"version": 1});
    assert!(hint(policy(), "exit 3", &[]));
    assert!(!hint(policy(), "exit 0", &[]));
    assert!(!hint(policy(), "exit 3", &["--quiet"]) && !hint(policy(), "exit 3", &["--diagnose"]));
    assert!(!hint(json!({"version": 1, "mode": "audit"}), "exit 3", &[]));
    assert!(!hint(json!({"version": 1, "process": {"isolation": "cgroup-only"}}), "exit 3", &[]));
    let denying = json!({"version": 1, "devices": {"default": "deny"}});
    assert!(!hint(denying, "cat /dev/zero; exit 3", &[]));
}

#[test]
fn an_ordinary_users_refusals_are_events_as_well() {
    let yard = support::Yard::new();
    let script = format!(
        "unshare --user true; kill -CONT $PPID; nice -n -5 true; {} -c 'import socket; socket.socket(40, socket.SOCK_STREAM)'; exit 0",
        support::PYTHON
    );
    let run = Run::shell(json!({"version": 1}), &script, &[]).flags(["--diagnose"]);
    let output = run.as_ordinary(ALICE).through(support::ordinary::in_yard(&yard, ALICE)).output().success();
    let found: BTreeSet<String> = calls(&output).into_keys().map(|(name, _)| name).collect();
    // Without the guard, this user may not be nicer to itself, either; and guard-run is the parent of the shell.
    let mut expected = vec!["unshare", "socket"];
    if !lacks(Feature::LandlockScopes) {
        expected.push("kill");
    }
    assert_eq!(found, expected.into_iter().map(str::to_owned).collect());
}

#[test]
fn programs_that_users_miss_something_in_are_explained() {
    let script = "mount -t tmpfs none /mnt; unshare --user true; nice -n -5 true; ping -c 1 -W 1 127.0.0.1
curl -s --unix-socket /var/run/docker.sock http://localhost/; podman ps; exit 0";
    let run = Run::shell(json!({"version": 1}), script, &[]).through(crate::OWN_RUN).flags(["--diagnose"]);
    let output = run.output().success();
    let calls: BTreeSet<(&str, &str)> = output
        .events()
        .iter()
        .filter_map(|event| Some((event["process"]["comm"].as_str()?, event["call"]["name"].as_str()?)))
        .collect();
    let expected =
        [("mount", "mount"), ("unshare", "unshare"), ("nice", "setpriority"), ("ping", "socket"), ("curl", "connect")];
    assert!(expected.iter().all(|call| calls.contains(call)), "{calls:#?}");
    assert!(calls.iter().any(|(comm, _)| *comm == "podman"), "{calls:#?}");
}
