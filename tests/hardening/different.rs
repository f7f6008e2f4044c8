//! What guard-run(1) says that a command sees differently, where no other test has it: file systems of the kernel, and System V IPC.

use serde_json::{Value, json};
use support::Run;

/// Mounts what shows the kernel at the usual places, in a mount namespace of its own.
const OWN_KERNEL_FILES: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount -t debugfs none /sys/kernel/debug && mount -t tracefs none /sys/kernel/tracing && mount -t bpf none /sys/fs/bpf &&
mkdir /sys/fs/bpf/own && exec \"$@\"",
    "sh",
];

/// Says what is in each of these folders: nothing, its only file, what the test has made, or many others.
const LIST: &str = "import os
for folder in '/sys/kernel/debug', '/sys/kernel/tracing', '/sys/fs/bpf':
    names = os.listdir(folder)
    print(folder, *(['own'] if 'own' in names else ['many'] if len(names) > 1 else names))
print(os.environ.get('GUARD_RUN_DENIALS'))";

#[test]
fn file_systems_of_the_kernel_are_empty_but_for_the_file_of_denials() {
    let run = |policy: &Value| Run::python(policy, LIST, &[]).through(OWN_KERNEL_FILES);
    let seen = |debug: &str, tracing: &str, bpf: &str, denials: &str| {
        let folders = [("/sys/kernel/debug", debug), ("/sys/kernel/tracing", tracing), ("/sys/fs/bpf", bpf)];
        let lines = folders.map(|(folder, names)| format!("{folder} {names}").trim_end().to_owned() + "\n");
        format!("{}{denials}\n", lines.concat())
    };
    let policy = |allow: &[&str]| json!({"version": 1, "process": {"allow": allow}});
    assert_eq!(run(&policy(&[])).bare().success().stdout, seen("many", "many", "own", "None"), "the control");
    let file = "guard-run-denials.jsonl";
    for (allow, expected) in [
        (&[][..], seen("", "", file, &format!("/sys/fs/bpf/{file}"))),
        // Programs that may use eBPF expect the usual file system there.
        (&["bpf"], seen(file, "", "", &format!("/sys/kernel/debug/{file}"))),
        // Then there is no place for the file.
        (&["kernel-files"], seen("many", "many", "", "None")),
        (&["kernel-files", "bpf"], seen("many", "many", "own", "None")),
    ] {
        assert_eq!(run(&policy(allow)).output().success().stdout, expected, "{allow:?}");
    }
    // Audit mode hides nothing.
    let audit = json!({"version": 1, "mode": "audit"});
    assert_eq!(run(&audit).output().success().stdout, seen("many", "many", "own", "None"));
}

/// Makes a piece of shared memory, a set of semaphores and a queue, runs a command that is told their keys, and removes them.
const MAKE: &str = "import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
CREATE, REMOVE = 0o3600, 0
keys = [os.getpid() * 16 + number for number in range(3)]
made = [libc.shmget(keys[0], 4096, CREATE), libc.semget(keys[1], 1, CREATE), libc.msgget(keys[2], CREATE)]
try:
    assert min(made) >= 0, made
    status = subprocess.call(sys.argv[1:] + list(map(str, keys)))
finally:
    libc.shmctl(made[0], REMOVE, None); libc.semctl(made[1], 0, REMOVE); libc.msgctl(made[2], REMOVE, None)
sys.exit(status)";

/// Looks for each of them by its key.
const FIND: &str = "import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
memory, semaphores, queue = map(int, sys.argv[1:])
for what, find in ('memory', lambda: libc.shmget(memory, 0, 0)), ('semaphores', lambda: libc.semget(semaphores, 0, 0)), ('queue', lambda: libc.msgget(queue, 0)):
    print(what, 'found' if find() >= 0 else errno.errorcode[ctypes.get_errno()])";

#[test]
fn no_kind_of_system_v_ipc_is_shared_with_processes_outside() {
    let run = |policy: Value| Run::python(policy, FIND, &[]).through(["/usr/bin/python3", "-c", MAKE]);
    let all = |said: &str| ["memory", "semaphores", "queue"].map(|kind| format!("{kind} {said}\n")).concat();
    assert_eq!(run(json!({"version": 1})).bare().success().stdout, all("found"), "the control");
    assert_eq!(run(json!({"version": 1})).output().success().stdout, all("ENOENT"));
    let shared = run(json!({"version": 1, "process": {"allow": ["ipc"]}}));
    assert_eq!(shared.output().success().stdout, all("found"));
}
