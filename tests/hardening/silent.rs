//! What never answers keeps nobody from ending: a file system whose server hangs, and memory that nobody fills.

use std::{
    fs,
    time::{Duration, Instant},
};

use libc::SIGTERM;
use serde_json::{Value, json};
use support::{Run, eventually};

/// Mounts a FUSE file system on the folder that is the first argument, for this program and what it executes alone. It is gone with the last
/// who has its descriptor, `fuse`.
const MOUNT: &str = "
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    if result < 0: raise OSError(ctypes.get_errno(), '')
call(libc.unshare(0x20000))
call(libc.mount(None, b'/', None, 0x44000, None))
fuse = os.open('/dev/fuse', os.O_RDWR)
os.makedirs(sys.argv[1], exist_ok=True)
call(libc.mount(b'silent', sys.argv[1].encode(), b'fuse', 0, f'fd={fuse},rootmode=40000,user_id=0,group_id=0'.encode()))
";

/// Executes the rest of the arguments beside such a file system, which nobody serves.
const SILENT: &str = "
os.set_inheritable(fuse, True)
os.execvp(sys.argv[2], sys.argv[2:])";

fn nothing() -> Value {
    json!({"version": 1, "network": {"default": "deny"}})
}

/// A run beside a silent file system, which is mounted on a folder of this path.
fn beside_silence(run: Run) -> (Run, String) {
    let place = run.folder().join("silent").display().to_string();
    (run.through(["python3", "-c", &format!("{MOUNT}{SILENT}"), &place]), place)
}

#[test]
fn a_service_on_a_file_system_that_does_not_answer_is_an_error() {
    for variable in ["DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "TMUX", "XDG_RUNTIME_DIR"] {
        let (run, place) = beside_silence(Run::new(nothing(), ["touch", "/tmp/guard-run-never-made"]));
        let prefix = match variable {
            "DBUS_SESSION_BUS_ADDRESS" => "unix:path=",
            "DOCKER_HOST" => "unix://",
            _ => "",
        };
        let run = run.environment(variable, format!("{prefix}{place}/socket")).start();
        let begun = Instant::now();
        if variable != "DOCKER_HOST" {
            // Who doesn't want to wait need not.
            eventually("somebody asks", || tasks(run.pid()) > 1);
            run.signal(SIGTERM);
        }
        let output = run.wait().exits(125);
        assert!(output.stderr.contains("doesn't answer") && output.stderr.contains(&place), "{}", output.stderr);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(!fs::exists("/tmp/guard-run-never-made").unwrap());
    }
}

#[test]
fn a_log_on_a_file_system_that_does_not_answer_keeps_nobody_from_ending() {
    for option in ["--log", "--events"] {
        let run = Run::new(nothing(), ["true"]);
        let run = if option == "--log" { run.without_log() } else { run };
        let (run, place) = beside_silence(run);
        let run = run.flags([option, &format!("{place}/file.json")]).start();
        eventually("somebody asks", || tasks(run.pid()) > 1);
        run.signal(SIGTERM);
        let output = run.wait().exits(125);
        assert!(output.stderr.contains(&place), "{}", output.stderr);
    }
}

/// How many threads a process has, once it is guard-run: the program that mounts is another one.
fn tasks(process: u32) -> usize {
    let is_guard_run = fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|comm| comm == "guard-run\n");
    if is_guard_run { fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count) } else { 0 }
}

#[test]
fn memory_that_nobody_fills_keeps_nobody_from_ending() {
    // Of a call with such memory for an argument, nothing is noted; of those before and after it, everything.
    let inside = "
import ctypes, fcntl, os, socket, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
ioctl = lambda fd, number, *words: fcntl.ioctl(fd, number, bytearray(struct.pack(f'{len(words)}Q', *words)))
def refused():
    libc.unshare(0x10000000); print(errno())
def errno(): return ctypes.get_errno()
refused()
faults = fcntl.ioctl(os.open('/dev/userfaultfd', os.O_RDWR), 0xAA00, os.O_CLOEXEC)
ioctl(faults, 0xc018aa3f, 0xAA, 0, 0)
for _ in range(5):
    page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
    ioctl(faults, 0xc020aa00, page, 4096, 1, 0)
    stream = socket.socket(socket.AF_UNIX)
    number = stream.fileno()
    threading.Thread(target=lambda: libc.connect(number, ctypes.c_void_p(page), 110), daemon=True).start()
    # Until the thread waits in the call: for its memory, or for guard-run.
    task = max(map(int, os.listdir('/proc/self/task')))
    while open(f'/proc/self/task/{task}/syscall').read().split()[0] != '42': time.sleep(0.01)
    stream.detach()
refused()
print('over', flush=True)
os._exit(0)";
    let output = Run::python(nothing(), inside, &[]).flags(["--diagnose"]).output().success();
    assert_eq!(output.stdout, "1\n1\nover\n", "{}", output.stderr);
    let unshare = |event: &&Value| event["call"]["name"] == "unshare";
    let counts: Vec<_> = output.events().iter().filter(unshare).map(|event| &event["count"]).collect();
    assert_eq!(counts, [&json!(2)], "{:#}", output.log);
}

/// Executes the rest of the arguments beside such a file system, which has one file, and answers nothing after that was closed.
const MUTE: &str = "
if os.fork():
    os.close(fuse)
    os.execvp(sys.argv[2], sys.argv[2:])
libc.prctl(1, 9)
def attributes(node):
    mode = 0o40755 if node == 1 else 0o100644
    return struct.pack('6Q10I', node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
while True:
    request = os.read(fuse, 1 << 20)
    _, operation, unique, node = struct.unpack_from('IIQQ', request)
    answer = {
        26: struct.pack('IIIIHHIIHH8I', 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, *[0] * 8),
        1: struct.pack('QQQQII', 2, 1, 9, 9, 0, 0) + attributes(2),
        3: struct.pack('QII', 9, 0, 0) + attributes(node),
        14: struct.pack('QII', 0, 0, 0),
    }.get(operation)
    error = 0 if answer is not None else -38
    answer = answer or b''
    os.write(fuse, struct.pack('IiQ', 16 + len(answer), error, unique) + answer)
    # Who waits for what nobody has taken can be killed.
    if operation == 25: libc.pause()";

#[test]
fn a_process_that_lets_nobody_to_its_memory_keeps_nobody_from_ending() {
    // One thread waits for a page of the file, with the memory held, another one for changing the memory.
    let inside = "
import ctypes, mmap, os, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
file = os.open(sys.argv[1] + '/file', os.O_RDONLY)
page = libc.mmap(None, 4096, 1, 2, file, 0)
os.close(file)
memory = os.open('/proc/self/mem', os.O_RDONLY)
peer = bytes([2, 0, 0, 9, 127, 0, 0, 1]) + bytes(8)
stream = socket.socket()
number = stream.fileno()
def waits(task, call):
    while open(f'/proc/self/task/{task}/syscall').read().split()[0] != call: time.sleep(0.01)
def change():
    waits(reader.native_id, '17')
    libc.mmap(None, 4096, 3, 0x22, -1, 0)
# Both have their stacks before nobody gets any more memory.
begin = threading.Event()
reader = threading.Thread(target=lambda: (begin.wait(), os.pread(memory, 1, page)), daemon=True)
changer = threading.Thread(target=change, daemon=True)
reader.start(), changer.start(), begin.set()
waits(changer.native_id, '9')
libc.connect(number, peer, 16)
libc.write(1, b'over\\n', 5)
libc.pause()";
    let run = Run::python(nothing(), inside, &[]);
    let place = run.folder().join("mute").display().to_string();
    let inside = run.folder().join("program.py").display().to_string();
    let run =
        Run::new(nothing(), ["python3", &inside, &place]).through(["python3", "-c", &format!("{MOUNT}{MUTE}"), &place]);
    let mut running = run.start();
    running.wait_for("over");
    let begun = Instant::now();
    running.signal(SIGTERM);
    let output = running.wait();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(128 + SIGTERM), "{}", output.stderr);
    let [event] = output.events() else { panic!("{:#}", output.log) };
    assert_eq!((&event["hook"], &event["process"]["comm"]), (&json!("connect4"), &json!("python3")), "{event:#}");
}
