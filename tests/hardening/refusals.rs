//! The ways in which what keeps a command inside refuses a call: programs that try them, what is outside for them, and what the events say.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            net::{SocketAddr, UnixDatagram, UnixListener},
            process::CommandExt as _,
        },
    },
    process::{Child, Command},
};

use serde_json::Value;
use support::{
    Output, Run,
    kernel::{Feature, lacks},
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
OUTSIDE, OTHER = int(os.environ['OUTSIDE']), int(os.environ['OTHER'])
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
def option(number, value=4096, level=socket.SOL_SOCKET):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).setsockopt(level, number, value)
def limit(raise_to):
    def attempt():
        call(raise_to((ctypes.c_ulong * 2)(0, 4096))); call(raise_to((ctypes.c_ulong * 2)(0, 8192)))
    in_child(attempt)
def renice(which, who): os.setpriority(which, who, os.getpriority(which, who))
def flags():
    # SIOCSIFFLAGS, to what they are (SIOCGIFFLAGS).
    stream = socket.socket(); fcntl.ioctl(stream, 0x8914, fcntl.ioctl(stream, 0x8913, struct.pack('40s', b'lo')))
def append_only():
    # FS_IOC_GETFLAGS and FS_IOC_SETFLAGS.
    with open('kept', 'w') as file:
        before = struct.unpack('q', fcntl.ioctl(file, 0x80086601, bytes(8)))[0]
        fcntl.ioctl(file, 0x40086602, struct.pack('q', before | 0x20)); fcntl.ioctl(file, 0x40086602, struct.pack('q', before))
def own_abstract():
    listener = socket.socket(socket.AF_UNIX); listener.bind(f'\\0guard-diagnose-{os.getpid()}-own'); listener.listen()
    socket.socket(socket.AF_UNIX).connect(listener.getsockname())
def other_schedule(): call(libc.syscall(314, OTHER, ctypes.create_string_buffer(struct.pack('IIQiIQQQ', 48, 0, 0, 0, 0, 0, 0, 0)), 0))
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
    'renice': lambda: renice(os.PRIO_PROCESS, OTHER),
    'renice-group': lambda: renice(os.PRIO_PGRP, OTHER),
    'renice-user': lambda: renice(os.PRIO_USER, int(os.environ['USER_OTHER'])),
    'renice-root': lambda: renice(os.PRIO_PROCESS, OUTSIDE),
    'affinity-root': lambda: os.sched_setaffinity(OUTSIDE, os.sched_getaffinity(OUTSIDE)),
    'ioprio_set-other': lambda: call(libc.syscall(251, 1, OTHER, 2 << 13 | 4)),
    'sched_setaffinity': lambda: os.sched_setaffinity(OTHER, os.sched_getaffinity(OTHER)),
    'sched_setscheduler': lambda: os.sched_setscheduler(OTHER, os.SCHED_OTHER, os.sched_param(0)),
    'sched_setparam': lambda: os.sched_setparam(OTHER, os.sched_param(0)),
    'sched_setattr-other': other_schedule,
    'prlimit': lambda: limit(lambda limits: libc.setrlimit(12, limits)),
    'setrlimit': lambda: limit(lambda limits: libc.syscall(160, 12, limits)),
    'pipe-size': lambda: fcntl.fcntl(os.pipe()[1], 1031, 1 << 22),
    'interface': flags,
    'append-only': append_only,
    'transparent': lambda: option(19, 1, socket.IPPROTO_IP),
    'priority': lambda: option(12, 7),
    'killpg': lambda: os.killpg(OUTSIDE, signal.SIGCONT),
    'perf-outside': lambda: perf(1 << 5, OUTSIDE),
    'abstract': lambda: socket.socket(socket.AF_UNIX).connect('\\0' + os.environ['ABSTRACT']),
    'abstract-datagram': lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', '\\0' + os.environ['ABSTRACT'] + '-datagram'),
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
    'own-nice': lambda: renice(os.PRIO_PROCESS, 0),
    'own-group': lambda: in_child(lambda: (os.setsid(), renice(os.PRIO_PGRP, 0), os.killpg(os.getpid(), signal.SIGCONT))),
    'own-affinity': lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    'lower-limit': lambda: in_child(lambda: call(libc.setrlimit(12, (ctypes.c_ulong * 2)(0, 4096)))),
    'small-pipe': lambda: fcntl.fcntl(os.pipe()[1], 1031, 1 << 16),
    'low-priority': lambda: option(12, 6),
    'own-abstract': own_abstract,
    'own-faults': lambda: os.close(call(libc.syscall(323, 1))),
}
os.chdir(os.environ['PLACE'])
for way in sys.argv[1:]:
    try: ways[way](); print(way, 'ok')
    except OSError as error: print(way, errno.errorcode[error.errno])";

/// The ways, the error of each, the event's call, and what it says is to be written. The first one's process is looked at: it is
/// there for sure, since guard-run reads its arguments before it answers the next call.
pub const WAYS: [(&str, &str, &str, &str); 59] = [
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
    ("killpg", "EPERM", "kill", r#"{"process": {"allow":["signals"]}}"#),
    ("abstract", "EPERM", "connect", r#"{"process": {"allow":["abstract-sockets"]}}"#),
    ("abstract-datagram", "EPERM", "sendto", r#"{"process": {"allow":["abstract-sockets"]}}"#),
    ("ptrace", "EPERM", "ptrace", TRACING),
    ("perf-outside", "EACCES", "perf_event_open", TRACING),
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
    ("renice", "EPERM", "setpriority", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("renice-group", "EPERM", "setpriority", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("renice-user", "EPERM", "setpriority", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("renice-root", "EPERM", "setpriority", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("affinity-root", "EPERM", "sched_setaffinity", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("ioprio_set-other", "EPERM", "ioprio_set", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("sched_setaffinity", "EPERM", "sched_setaffinity", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("sched_setscheduler", "EPERM", "sched_setscheduler", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("sched_setparam", "EPERM", "sched_setparam", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("sched_setattr-other", "EPERM", "sched_setattr", r#"{"process": {"capabilities":["CAP_SYS_NICE"]}}"#),
    ("prlimit", "EPERM", "prlimit64", r#"{"process": {"capabilities":["CAP_SYS_RESOURCE"]}}"#),
    ("setrlimit", "EPERM", "setrlimit", r#"{"process": {"capabilities":["CAP_SYS_RESOURCE"]}}"#),
    ("pipe-size", "EPERM", "fcntl", r#"{"process": {"capabilities":["CAP_SYS_RESOURCE"]}}"#),
    ("interface", "EPERM", "ioctl", r#"{"process": {"capabilities":["CAP_NET_ADMIN"]}}"#),
    ("append-only", "EPERM", "ioctl", r#"{"process": {"capabilities":["CAP_LINUX_IMMUTABLE"]}}"#),
    ("transparent", "EPERM", "setsockopt", r#"{"process": {"capabilities":["CAP_NET_RAW"]}}"#),
    ("priority", "EPERM", "setsockopt", r#"{"process": {"capabilities":["CAP_NET_RAW"]}}"#),
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

/// Who is outside: a process that nobody else traces, one of another user, each with a group of its own, and abstract sockets. All of it
/// ends with this value.
pub struct Outside {
    process: Child,
    other: Child,
    name: String,
    _stream: UnixListener,
    _datagram: UnixDatagram,
}

/// A user who has no other processes.
const OTHER: u32 = 64_242;

impl Outside {
    pub fn new() -> Self {
        let sleep = |user: u32| Command::new("sleep").arg("300").uid(user).process_group(0).spawn().unwrap();
        let (process, other) = (sleep(0), sleep(OTHER));
        let name = format!("guard-diagnose-{}", process.id());
        let address = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
        let stream = UnixListener::bind_addr(&address(&name)).unwrap();
        let datagram = UnixDatagram::bind_addr(&address(&format!("{name}-datagram"))).unwrap();
        Self { process, other, name, _stream: stream, _datagram: datagram }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for child in [&mut self.process, &mut self.other] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn run(policy: Value, ways: &[&str], outside: &Outside) -> Run {
    let run = Run::python(policy, TRY, ways).through(crate::OWN_RUN);
    let run = run.environment("OUTSIDE", outside.process.id().to_string());
    let run = run.environment("OTHER", outside.other.id().to_string()).environment("USER_OTHER", OTHER.to_string());
    let place = run.folder().display().to_string();
    // As Docker's clients spell it; /var/run is a link.
    run.environment("SOCKET", "/var/run/docker.sock").environment("PLACE", place).environment("ABSTRACT", &outside.name)
}

/// The ways of which Landlock's scopes keep a command: signals to processes outside, and their abstract sockets.
const SCOPED: [&str; 9] = [
    "kill",
    "tgkill",
    "tkill",
    "pidfd_send_signal",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "killpg",
    "abstract",
    "abstract-datagram",
];

/// Whether root lacks a capability here, by its number, with the guard and without.
pub fn root_lacks(capability: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    u64::from_str_radix(bounding.trim(), 16).unwrap() & 1 << capability == 0
}

/// `CAP_SYS_RESOURCE`. Some virtual machines' root doesn't have it.
pub const RESOURCE: u32 = 24;

/// The ways that take `CAP_SYS_RESOURCE`.
pub const TAKING_RESOURCE: [&str; 3] = ["prlimit", "setrlimit", "pipe-size"];

pub fn ways() -> Vec<&'static str> {
    let (scoped, lacking) = (lacks(Feature::LandlockScopes), root_lacks(RESOURCE));
    let is_there = |way: &&str| !(scoped && SCOPED.contains(way) || lacking && TAKING_RESOURCE.contains(way));
    WAYS.iter().map(|(way, ..)| *way).filter(is_there).collect()
}

pub fn said(output: &Output) -> Vec<String> {
    output.stdout.lines().map(str::to_owned).collect()
}

/// The calls that there are events of, with what to write, and how often.
pub fn calls(output: &Output) -> BTreeMap<(String, String), u64> {
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
pub fn expected(ways: &[&str]) -> BTreeMap<(String, String), u64> {
    let mut calls = BTreeMap::new();
    for (_, _, call, remedy) in WAYS.iter().filter(|(way, ..)| ways.contains(way)) {
        *calls.entry(((*call).to_owned(), format!("to allow it: {remedy}"))).or_default() += 1;
    }
    calls
}
