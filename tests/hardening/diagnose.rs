//! What keeps a command inside leaves a trace where that is asked for: every refusal is an event with the part of the policy that would
//! allow it, counted exactly, and refused all the same, whatever becomes of guard-run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Child, Command},
};

use serde_json::{Value, json};
use support::{
    Output, Run, eventually,
    kernel::{Feature, lacks},
    kill_leaves,
    ordinary::ALICE,
};

/// Tries what is refused: each word names one of these ways, and is printed with "ok" or the error's name.
const TRY: &str = "import ctypes, errno, fcntl, mmap, os, resource, signal, socket, stat, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    if result < 0: raise OSError(ctypes.get_errno(), '')
    return result
def in_child(what):
    pid = os.fork()
    if pid == 0:
        try: what(); os._exit(0)
        except OSError as error: os._exit(error.errno)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status: raise OSError(status, '')
def node():
    os.mknod('node', stat.S_IFCHR | 0o600, os.makedev(1, 3)); os.remove('node')
def discipline():
    # TIOCSETD, to what the terminal's end is already.
    fcntl.ioctl(os.openpty()[1], 0x5423, b'\\0\\0\\0\\0')
def covered():
    stream = socket.socket(socket.AF_UNIX); stream.connect(os.environ['SOCKET'])
OUTSIDE = int(os.environ['OUTSIDE'])
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
def trace():
    call(libc.ptrace(16, OUTSIDE, None, None)); os.waitpid(OUTSIDE, 0x40000000); call(libc.ptrace(17, OUTSIDE, None, None))
def pidfd(): return call(libc.syscall(434, OUTSIDE, 0))
def information():
    return ctypes.create_string_buffer(struct.pack('6i', signal.SIGCONT, 0, -1, 0, os.getpid(), os.getuid()), 128)
def perf(flags, pid=0, cpu=-1):
    attributes = ctypes.create_string_buffer(128)
    struct.pack_into('IIQQQQQ', attributes, 0, 1, 112, 0, 0, 0, 0, flags)
    os.close(call(libc.syscall(298, attributes, pid, cpu, -1, 0)))
def limited(what):
    def attempt():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536)); what()
    in_child(attempt)
def lock(length):
    memory = mmap.mmap(-1, length)
    call(libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory))), ctypes.c_size_t(length)))
def attribute(name):
    open('file', 'w').close(); os.setxattr('file', name, b'x')
def option(number):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).setsockopt(socket.SOL_SOCKET, number, 4096)
def schedule(policy):
    attributes = ctypes.create_string_buffer(struct.pack('IIQiIQQQ', 48, policy, 0, 0, int(policy in (1, 2)), 0, 0, 0))
    in_child(lambda: call(libc.syscall(314, 0, attributes, 0)))
ways = {
    'mount': lambda: in_child(lambda: (call(libc.unshare(0x20000)), call(libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)))),
    'unshare': lambda: in_child(lambda: call(libc.unshare(0x10000000))),
    'unshare-uts': lambda: in_child(lambda: call(libc.unshare(0x04000000))),
    'unshare-both': lambda: in_child(lambda: call(libc.unshare(0x14000000))),
    'bpf': lambda: call(libc.syscall(321, 0, ctypes.create_string_buffer(b'\\2\\0\\0\\0\\4\\0\\0\\0\\4\\0\\0\\0\\1', 128), 128)),
    'keyctl': lambda: call(libc.syscall(250, 0, -3, 0)),
    'io_uring_setup': lambda: call(libc.syscall(425, 1, ctypes.create_string_buffer(120))),
    'kill': lambda: os.kill(OUTSIDE, signal.SIGCONT),
    'tgkill': lambda: call(libc.syscall(234, OUTSIDE, OUTSIDE, signal.SIGCONT)),
    'tkill': lambda: call(libc.syscall(200, OUTSIDE, signal.SIGCONT)),
    'pidfd_send_signal': lambda: call(libc.syscall(424, pidfd(), signal.SIGCONT, None, 0)),
    'rt_sigqueueinfo': lambda: call(libc.syscall(129, OUTSIDE, signal.SIGCONT, information())),
    'rt_tgsigqueueinfo': lambda: call(libc.syscall(297, OUTSIDE, OUTSIDE, signal.SIGCONT, information())),
    'ptrace': trace,
    'pidfd_getfd': lambda: os.close(call(libc.syscall(438, pidfd(), 0, 0))),
    'kcmp': lambda: call(libc.syscall(312, OUTSIDE, os.getpid(), 1, 0, 0)),
    'kcmp-second': lambda: call(libc.syscall(312, os.getpid(), OUTSIDE, 1, 0, 0)),
    'syslog': lambda: call(libc.syscall(103, 9, None, 0)),
    'perf': lambda: perf(0),
    'perf-all': lambda: perf(1 << 5, -1, 0),
    'fanotify': lambda: os.close(call(libc.syscall(300, 0, 0))),
    'fanotify-class': lambda: os.close(call(libc.syscall(300, 0x300, 0))),
    'vhangup': lambda: in_child(lambda: (os.setsid(), call(libc.syscall(153)))),
    'mlock': lambda: limited(lambda: lock(1 << 20)),
    'mlockall': lambda: limited(lambda: call(libc.mlockall(1))),
    'ioprio_set': lambda: in_child(lambda: call(libc.syscall(251, 1, 0, 1 << 13))),
    'sched_setattr': lambda: schedule(1),
    'alarm': lambda: os.close(call(libc.syscall(283, 9, 0))),
    'setxattr': lambda: attribute('trusted.guard'),
    'mark': lambda: option(36),
    'receive-buffer': lambda: option(33),
    'userfaultfd': lambda: os.close(call(libc.syscall(323, 0))),
    'setpriority': lambda: in_child(lambda: os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 1)),
    'raw': lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    'vsock': lambda: socket.socket(40, socket.SOCK_STREAM),
    'netlink': lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9),
    'mknod': node,
    'discipline': discipline,
    'connect': covered,
    # These are refused to nobody.
    'own-tgkill': lambda: signal.raise_signal(signal.SIGCONT),
    'own-kcmp': lambda: call(libc.syscall(312, os.getpid(), os.getpid(), 1, 0, 0)),
    'perf-user': lambda: perf(1 << 5),
    'fanotify-names': lambda: os.close(call(libc.syscall(300, 0x200, 0))),
    'mlock-little': lambda: limited(lambda: lock(4096)),
    'batch': lambda: schedule(3),
    'idle': lambda: in_child(lambda: call(libc.syscall(251, 1, 0, 3 << 13))),
    'clock': lambda: call(libc.adjtimex(ctypes.create_string_buffer(256))),
    'user-attribute': lambda: attribute('user.guard'),
    'buffer': lambda: option(socket.SO_RCVBUF),
    'own-faults': lambda: os.close(call(libc.syscall(323, 1))),
}
os.chdir(os.environ['PLACE'])
for way in sys.argv[1:]:
    try: ways[way](); print(way, 'ok')
    except OSError as error: print(way, errno.errorcode[error.errno])";

/// The ways, the error of each, the event's call, and what it says is to be written. The first one's process is looked at: it is
/// there for sure, since guard-run reads its arguments before it answers the next call.
const WAYS: [(&str, &str, &str, &str); 38] = [
    ("connect", "ECONNREFUSED", "connect", r#"{"process": {"allow":["delegation"]}}"#),
    ("unshare", "EPERM", "unshare", r#"{"process": {"allow":["namespaces"]}}"#),
    ("unshare-uts", "EPERM", "unshare", r#"{"process": {"allow":["namespaces"],"capabilities":["CAP_SYS_ADMIN"]}}"#),
    ("unshare-both", "EPERM", "unshare", r#"{"process": {"allow":["namespaces"]}}"#),
    ("bpf", "EPERM", "bpf", r#"{"process": {"allow":["bpf"],"capabilities":["CAP_BPF"]}}"#),
    ("keyctl", "EPERM", "keyctl", r#"{"process": {"allow":["keys"]}}"#),
    ("io_uring_setup", "ENOSYS", "io_uring_setup", r#"{"process": {"allow":["io_uring"]}}"#),
    ("kill", "EPERM", "kill", r#"{"process": {"allow":["signals"]}}"#),
    ("tgkill", "EPERM", "tgkill", r#"{"process": {"allow":["signals"]}}"#),
    ("tkill", "EPERM", "tkill", r#"{"process": {"allow":["signals"]}}"#),
    ("pidfd_send_signal", "EPERM", "pidfd_send_signal", r#"{"process": {"allow":["signals"]}}"#),
    ("rt_sigqueueinfo", "EPERM", "rt_sigqueueinfo", r#"{"process": {"allow":["signals"]}}"#),
    ("rt_tgsigqueueinfo", "EPERM", "rt_tgsigqueueinfo", r#"{"process": {"allow":["signals"]}}"#),
    ("ptrace", "EPERM", "ptrace", TRACING),
    ("pidfd_getfd", "EPERM", "pidfd_getfd", TRACING),
    ("kcmp", "EPERM", "kcmp", TRACING),
    ("kcmp-second", "EPERM", "kcmp", TRACING),
    ("syslog", "EPERM", "syslog", r#"{"process": {"capabilities":["CAP_SYSLOG"]}}"#),
    ("perf", "EACCES", "perf_event_open", r#"{"process": {"capabilities":["CAP_PERFMON"]}}"#),
    ("perf-all", "EACCES", "perf_event_open", r#"{"process": {"capabilities":["CAP_PERFMON"]}}"#),
    ("fanotify", "EPERM", "fanotify_init", r#"{"process": {"capabilities":["CAP_SYS_ADMIN"]}}"#),
    ("fanotify-class", "EPERM", "fanotify_init", r#"{"process": {"capabilities":["CAP_SYS_ADMIN"]}}"#),
    ("vhangup", "EPERM", "vhangup", r#"{"process": {"capabilities":["CAP_SYS_TTY_CONFIG"]}}"#),
    ("mlock", "ENOMEM", "mlock", r#"{"process": {"capabilities":["CAP_IPC_LOCK"]}}"#),
    ("mlockall", "ENOMEM", "mlockall", r#"{"process": {"capabilities":["CAP_IPC_LOCK"]}}"#),
    ("ioprio_set", "EPERM", "ioprio_set", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("sched_setattr", "EPERM", "sched_setattr", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("alarm", "EPERM", "timerfd_create", r#"{"process": {"capabilities":["CAP_WAKE_ALARM"]}}"#),
    ("setxattr", "EPERM", "setxattr", r#"{"process": {"capabilities":["CAP_SYS_ADMIN"]}}"#),
    ("mark", "EPERM", "setsockopt", r#"{"process": {"capabilities":["CAP_NET_RAW"]}}"#),
    ("receive-buffer", "EPERM", "setsockopt", r#"{"process": {"capabilities":["CAP_NET_ADMIN"]}}"#),
    ("userfaultfd", "EPERM", "userfaultfd", r#"{"process": {"capabilities":["CAP_SYS_PTRACE"]}}"#),
    ("setpriority", "EACCES", "setpriority", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("raw", "EPERM", "socket", r#"{"process": {"capabilities":["CAP_NET_RAW"]}}"#),
    ("vsock", "EAFNOSUPPORT", "socket", r#"{"process": {"families":["vsock"]}}"#),
    ("netlink", "EAFNOSUPPORT", "socket", r#"{"process": {"families":["netlink"]}}"#),
    ("discipline", "EPERM", "ioctl", r#"{"process": {"capabilities":["CAP_NET_ADMIN"]}}"#),
    ("mknod", "EPERM", "mknodat", r#"{"process": {"capabilities":["CAP_MKNOD"]}}"#),
];

/// What allows a command of root's to trace processes outside. No policy can name the first part without the two others.
const TRACING: &str =
    r#"{"process": {"allow":["tracing","signals","abstract-sockets"],"capabilities":["CAP_SYS_PTRACE"]}}"#;

/// A process outside, which nobody else traces. It ends with this value.
struct Outside(Child);

impl Outside {
    fn new() -> Self {
        Self(Command::new("sleep").arg("300").spawn().unwrap())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(policy: Value, ways: &[&str], outside: &Outside) -> Run {
    let run = Run::python(policy, TRY, ways).through(crate::OWN_RUN).environment("OUTSIDE", outside.0.id().to_string());
    let place = run.folder().display().to_string();
    // As Docker's clients spell it; /var/run is a link.
    run.environment("SOCKET", "/var/run/docker.sock").environment("PLACE", place)
}

/// The ways by which a signal is sent to a process outside.
const SIGNALLING: [&str; 6] = ["kill", "tgkill", "tkill", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo"];

fn ways() -> Vec<&'static str> {
    let scoped = lacks(Feature::LandlockScopes);
    WAYS.iter().map(|(way, ..)| *way).filter(|way| !(scoped && SIGNALLING.contains(way))).collect()
}

fn said(output: &Output) -> Vec<String> {
    output.stdout.lines().map(str::to_owned).collect()
}

/// The calls that there are events of, with what to write, and how often.
fn calls(output: &Output) -> BTreeMap<(String, String), u64> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
    let events = output.events().iter().filter(|event| event["op"] == "call");
    let mut calls = BTreeMap::new();
    for event in events {
        *calls.entry((text(&event["call"]["name"]), text(&event["reason"]))).or_default() +=
            event["count"].as_u64().unwrap();
    }
    calls
}

/// The calls that events of these ways are of.
fn expected(ways: &[&str]) -> BTreeMap<(String, String), u64> {
    let mut calls = BTreeMap::new();
    for (_, _, call, remedy) in WAYS.iter().filter(|(way, ..)| ways.contains(way)) {
        *calls.entry(((*call).to_owned(), format!("to allow it: {remedy}"))).or_default() += 1;
    }
    calls
}

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
    const FINE: [&str; 11] = [
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
        "own-faults",
    ];
    for mode in ["enforce", "audit"] {
        let run = run(json!({"version": 1, "mode": mode}), &FINE, &Outside::new());
        let output = run.flags(["--diagnose"]).output().success();
        assert_eq!((said(&output), calls(&output)), (FINE.map(|way| format!("{way} ok")).into(), BTreeMap::new()));
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
