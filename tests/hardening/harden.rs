//! What keeps a command inside beside the programs on its cgroup: each part refuses what it is there for, which works
//! without the guard, and works with it when the policy names the part.

use std::{
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::Path,
    process,
};

use serde_json::{Value, json};
use support::{
    Output, Run, cgroup2_mount,
    kernel::{Feature, is_declared, lacks, release},
};

const PROBE: &str = include_str!("../probes/harden.py");

/// Someone outside: this process, with a socket, memory and a place in memory that the command must not reach.
struct Outside {
    name: String,
    _listener: UnixListener,
    key: i32,
    memory: i32,
    word: Box<u8>,
}

impl Outside {
    fn new() -> Self {
        let word = Box::new(7);
        let name = format!("guard-run-test-{}-{:p}", process::id(), &raw const *word);
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        // SAFETY: takes integers.
        let (key, memory) = (1..16)
            .map(|attempt| i32::try_from(process::id() * 16 + attempt).unwrap())
            .map(|key| (key, unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) }))
            .find(|(_, memory)| *memory >= 0)
            .unwrap();
        Self { name, _listener: listener, key, memory, word }
    }

    fn run(&self, policy: Value, ways: &[&str]) -> Run {
        Run::python(policy, PROBE, ways)
            .environment("OUTSIDE", process::id().to_string())
            .environment("ABSTRACT", &self.name)
            .environment("ADDRESS", (&raw const *self.word as usize).to_string())
            .environment("KEY", self.key.to_string())
            .environment("KERNEL_FILE", "/sys/kernel/mm/transparent_hugepage/enabled")
            .environment("CGROUP2", cgroup2_mount())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // SAFETY: takes integers; nobody has attached it.
        unsafe { libc::shmctl(self.memory, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// What only Landlock's scopes refuse.
const SCOPED: [&str; 3] = ["signal", "signal_to_guard", "abstract_socket"];

fn said(output: &Output) -> Vec<String> {
    output.stdout.lines().map(str::to_owned).collect()
}

/// What is refused, with which error, and the process section by which it is not.
fn table() -> Vec<(&'static str, &'static str, Value)> {
    let allow = |parts: &[&str]| json!({"allow": parts});
    let with = |parts: &[&str], capability: &str| json!({"allow": parts, "capabilities": [capability]});
    let tracing = with(&["tracing", "signals", "abstract-sockets"], "CAP_SYS_PTRACE");
    vec![
        ("new_user_namespace", "EPERM", allow(&["namespaces"])),
        ("clone3", "ENOSYS", allow(&["namespaces"])),
        // A Landlock without scopes can't keep a domain apart without refusing to mount, too.
        (
            "mount",
            "EPERM",
            with(
                if lacks(Feature::LandlockScopes) { &["namespaces", "tracing"] } else { &["namespaces"] },
                "CAP_SYS_ADMIN",
            ),
        ),
        ("bpf_map", "EPERM", with(&["bpf"], "CAP_BPF")),
        ("io_uring", "ENOSYS", allow(&["io_uring"])),
        ("keyring", "EPERM", allow(&["keys"])),
        ("typing", "EPERM", with(&["terminal"], "CAP_SYS_ADMIN")),
        ("signal", "EPERM", allow(&["signals"])),
        ("signal_to_guard", "EPERM", allow(&["signals"])),
        ("abstract_socket", "EPERM", allow(&["abstract-sockets"])),
        ("root_of_another", "EACCES", tracing.clone()),
        ("memory_of_another", "EACCES", tracing.clone()),
        ("reading_another", "EPERM", tracing.clone()),
        ("descriptor_of_another", "EPERM", tracing),
        ("shared_memory", "ENOENT", allow(&["ipc"])),
        ("kernel_file", "EROFS", allow(&["kernel-files"])),
        ("tunable", "EPERM", allow(&["sysctls"])),
        ("device_node", "EPERM", json!({"capabilities": ["CAP_MKNOD"]})),
        ("packet", "EAFNOSUPPORT", json!({"families": ["packet"], "capabilities": ["CAP_NET_RAW"]})),
        ("old_packet", "EAFNOSUPPORT", json!({"families": ["packet"], "capabilities": ["CAP_NET_RAW"]})),
        ("netlink_audit", "EAFNOSUPPORT", json!({"families": ["netlink"]})),
    ]
}

#[test]
fn every_part_refuses_what_it_is_for_and_only_that_part_has_to_be_named() {
    let outside = Outside::new();
    let ways: Vec<&str> = table().iter().map(|(way, ..)| *way).collect();
    let run = outside.run(json!({"version": 1}), &ways);
    let bare = said(&run.bare().success());
    assert_eq!(bare, ways.iter().map(|way| format!("{way}: ok")).collect::<Vec<_>>(), "the control");
    let guarded = said(&run.output().success());
    let refused = |way: &str| !(lacks(Feature::LandlockScopes) && SCOPED.contains(&way));
    let expected =
        |(way, error, _): &(&str, &str, Value)| format!("{way}: {}", if refused(way) { error } else { "ok" });
    assert_eq!(guarded, table().iter().map(expected).collect::<Vec<_>>());
    // No matter which part refuses.
    let diagnosed = said(&outside.run(json!({"version": 1}), &ways).flags(["--diagnose"]).output().success());
    assert_eq!(diagnosed, guarded);
    for (way, _, process) in table() {
        let output = outside.run(json!({"version": 1, "process": process}), &[way]).output().success();
        assert_eq!(said(&output), [format!("{way}: ok")], "{process}: {:#}", output.log["enforced"]);
    }
}

#[test]
fn what_this_kernel_lacks_has_to_be_named() {
    let run = Run::new(r#"{"version": 1}"#, ["true"]);
    if lacks(Feature::LandlockScopes) {
        let output = run.output().exits(125);
        let words = [&release(), "signals to processes outside", r#""allow": ["signals","abstract-sockets"]"#];
        assert!(words.iter().all(|word| output.stderr.contains(*word)), "{}", output.stderr);
    } else {
        let _ = run.output().success();
    }
}

#[test]
fn what_was_loosened_is_in_the_log() {
    let outside = Outside::new();
    let process = json!({"allow": ["keys", "bpf"], "capabilities": ["CAP_NET_RAW"], "families": ["packet"],
        "architectures": ["x86"]});
    let output = outside.run(json!({"version": 1, "process": process}), &["keyring"]).output().success();
    let hardening = &output.log["enforced"]["hardening"];
    let loosened = hardening["loosened"].as_array().unwrap();
    assert!(["bpf", "keys"].iter().all(|part| loosened.contains(&json!(part))), "{hardening}");
    assert!(!hardening["parts"].as_array().unwrap().contains(&json!("keys")), "{hardening}");
    assert!(hardening["capabilities"].as_array().unwrap().contains(&json!("CAP_NET_RAW")), "{hardening}");
    assert_eq!((&hardening["families"], &hardening["architectures"]), (&json!(["packet"]), &json!(["x86"])));
}

#[test]
fn ordinary_work_of_root_goes_on() {
    let outside = Outside::new();
    let run = outside.run(json!({"version": 1}), &["chown", "low_port", "netlink_route"]);
    let expected = ["chown: ok", "low_port: ok", "netlink_route: ok"];
    assert_eq!(said(&run.bare().success()), expected);
    assert_eq!(said(&run.output().success()), expected);
}

#[test]
fn cgroups_can_only_be_read_whatever_else_is_allowed() {
    let outside = Outside::new();
    let ways = ["other_cgroup", "child_cgroup"];
    for process in [json!({}), json!({"allow": ["kernel-files"]})] {
        let run = outside.run(json!({"version": 1, "process": process}), &ways);
        assert_eq!(said(&run.bare().success()), ["other_cgroup: ok", "child_cgroup: ok"], "the control");
        assert_eq!(said(&run.output().success()), ["other_cgroup: EROFS", "child_cgroup: EROFS"]);
    }
    let seen = Run::shell(
        json!({"version": 1}),
        "grep ^0:: /proc/self/cgroup; ls \"$1\"",
        &[cgroup2_mount().to_str().unwrap()],
    );
    let output = seen.output().success();
    assert!(output.stdout.starts_with("0::/\n") && !output.stdout.contains("guard-run"), "{}", output.stdout);
}

#[test]
fn cgroup_only_keeps_nobody_inside_and_says_so() {
    let outside = Outside::new();
    let policy = json!({"version": 1, "process": {"isolation": "cgroup-only"}});
    let ways: Vec<&str> = table().iter().map(|(way, ..)| *way).collect();
    let output = outside.run(policy, &ways).output().success();
    assert!(said(&output).iter().all(|line| line.ends_with(": ok")), "{}", output.stdout);
    let hardening = &output.log["enforced"]["hardening"];
    assert_eq!((&hardening["isolation"], &hardening["parts"]), (&json!("cgroup-only"), &json!([])));
    assert_eq!(output.stderr.lines().last().map(|line| line.contains("no boundary")), Some(true), "{}", output.stderr);
}

#[test]
fn audit_mode_refuses_nothing() {
    let outside = Outside::new();
    let ways: Vec<&str> = table().iter().map(|(way, ..)| *way).collect();
    let output = outside.run(json!({"version": 1, "mode": "audit"}), &ways).output().success();
    assert!(said(&output).iter().all(|line| line.ends_with(": ok")), "{}", output.stdout);
    assert_eq!(output.log["enforced"]["hardening"]["isolation"], "audit");
    // All of them say what the policy would have to name.
    let is_audited = |event: &Value| event["verdict"] == "audited" && event["rule"] == "/process";
    assert!(output.events().iter().all(is_audited), "{:#?}", output.events());
    let count = |op: &str| output.events().iter().filter(|event| event["op"] == op).count();
    assert_eq!((count("sysctl"), count("sysctl") + count("call")), (1, output.events().len()));
}

#[test]
fn a_tunable_is_written_where_a_rule_allows_it_and_otherwise_the_log_says_what_to_write() {
    let outside = Outside::new();
    let policy = |rules: Value| json!({"version": 1, "sysctls": {"default": "allow", "rules": rules}});
    let rule = json!([{"action": "allow", "names": ["net/ipv4/ip_default_ttl"], "access": "w"}]);
    let allowed = outside.run(policy(rule), &["tunable"]).output().success();
    assert_eq!((said(&allowed), allowed.denied()), (vec!["tunable: ok".to_owned()], 0));
    for policy in [policy(json!([])), json!({"version": 1})] {
        let denied = outside.run(policy, &["tunable"]).output().success();
        let [event] = denied.events() else { panic!("{:#?}", denied.events()) };
        assert_eq!((said(&denied), &event["rule"]), (vec!["tunable: EPERM".to_owned()], &json!("/process")));
        assert!(event["reason"].as_str().unwrap().contains("sysctls"), "{event}");
    }
}

#[test]
fn services_that_run_commands_for_others_are_out_of_reach_unless_a_rule_allows_their_sockets() {
    let outside = Outside::new();
    let run = |policy: Value, path: &str| {
        outside.run(policy, &["path_socket"]).through(crate::OWN_RUN).environment("SOCKET", path)
    };
    let unix = |rules: Value| json!({"version": 1, "unix": {"default": "allow", "rules": rules}});
    // Others may be, by whatever else runs here.
    let is_covered = |output: &Output| {
        let covered = output.log["enforced"]["hardening"]["covered"].as_array().unwrap();
        covered.contains(&json!("/run/docker.sock"))
    };
    for path in ["/run/docker.sock", "/run/link"] {
        let covered = run(json!({"version": 1}), path);
        assert_eq!(said(&covered.bare().success()), ["path_socket: ok"], "the control");
        let output = covered.output().success();
        assert_eq!(said(&output), ["path_socket: ECONNREFUSED"]);
        assert!(is_covered(&output));
        let other = unix(json!([{"action": "allow", "paths": ["/run/podman/*"]}]));
        assert_eq!(said(&run(other, path).output().success()), ["path_socket: ECONNREFUSED"]);
        for policy in [
            unix(json!([{"action": "allow", "paths": ["/run/docker.sock"]}])),
            unix(json!([{"action": "allow", "paths": ["/run/*"]}])),
            json!({"version": 1, "process": {"allow": ["delegation"]}}),
        ] {
            let output = run(policy, path).output().success();
            assert_eq!(said(&output), ["path_socket: ok"]);
            assert!(!is_covered(&output));
        }
    }
}

/// Puts what the kernel's own programs are and read where it usually is, on file systems that nobody else sees, where the kernel
/// says that it loads modules and hands core dumps to a program.
const OWN_HELPERS: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "set -e
mount -t tmpfs none /mnt
mkdir /mnt/kernel
cp /proc/sys/kernel/cap_last_cap /mnt/kernel
echo '|/usr/sbin/handler %p' >/mnt/kernel/core_pattern
echo /usr/sbin/loader >/mnt/kernel/modprobe
mount --bind /mnt/kernel /proc/sys/kernel
mkdir /mnt/before
mount --rbind /run /mnt/before
for folder in usr etc run; do
    mkdir -p /mnt/$folder/upper /mnt/$folder/work
    mount -t overlay -o lowerdir=/$folder,upperdir=/mnt/$folder/upper,workdir=/mnt/$folder/work none /$folder
done
case $TMPDIR in
/run/*) mkdir -p \"$TMPDIR\" && mount --rbind \"/mnt/before/${TMPDIR#/run/}\" \"$TMPDIR\" ;;
esac
rm -rf /etc/modprobe.d /run/modprobe.d /usr/local/lib/modprobe.d /usr/lib/modprobe.d /usr/lib/modules/* /etc/request-key.d
mkdir /etc/request-key.d
touch /etc/request-key.conf /usr/sbin/request-key /usr/sbin/handler /usr/sbin/loader
chmod +x /usr/sbin/*
exec \"$@\"",
    "sh",
];

/// Tries to change files and folders: prints the error of writing to each, and of moving it away and back.
const CHANGE: &str = "
import errno, os, sys
def attempt(what):
    try:
        what()
        return 'ok'
    except OSError as error:
        return errno.errorcode[error.errno]
def write(path):
    if not os.path.exists(path):
        os.makedirs(path)
    if os.path.isdir(path):
        open(path + '/new', 'w').close()
        os.remove(path + '/new')
    else:
        open(path, 'r+b').close()
def move(path):
    os.rename(path, path + '~')
    os.rename(path + '~', path)
for path in sys.argv[1:]:
    print(path, attempt(lambda: write(path)), attempt(lambda: move(path)))";

#[test]
fn what_the_kernel_starts_and_what_that_reads_can_not_be_changed() {
    let modules = format!("/usr/lib/modules/{}", release());
    let places = [
        "/etc/modprobe.d",
        "/run/modprobe.d",
        "/usr/local/lib/modprobe.d",
        "/usr/lib/modprobe.d",
        &modules,
        "/etc/request-key.d",
        "/etc/request-key.conf",
        "/usr/sbin/request-key",
        "/usr/sbin/handler",
        "/usr/sbin/loader",
    ];
    let said = |errors: &str| places.map(|path| format!("{path} {errors}\n")).concat();
    let run = |policy: Value| Run::python(policy, CHANGE, &places).through(OWN_HELPERS);
    let closed = run(json!({"version": 1}));
    assert_eq!(closed.bare().success().stdout, said("ok ok"), "the control");
    assert_eq!(closed.output().success().stdout, said("EROFS EBUSY"));
    let open = run(json!({"version": 1, "process": {"allow": ["kernel-helpers"]}}));
    assert_eq!(open.output().success().stdout, said("ok ok"));
    // An ordinary user has no right to change any of it.
    let user = run(json!({"version": 1})).flags(["--user", "nobody"]);
    assert!(!user.output().success().stdout.contains("ok"));
}

/// Has modprobe make the file `argv[1]` for a kind of socket that there isn't, and asks for such a socket.
const ASK_FOR_MODULE: &str = "
import os, socket, sys
for folder in '/etc/modprobe.d', '/run/modprobe.d', '/usr/local/lib/modprobe.d', '/usr/lib/modprobe.d', '/lib/modprobe.d':
    try:
        os.makedirs(folder, exist_ok=True)
        with open(folder + '/guard-run-test.conf', 'w') as file:
            file.write(f'alias net-pf-2-proto-200-type-1 guard_run_test\\ninstall guard_run_test /bin/touch {sys.argv[1]}\\n')
        print(folder)
    except OSError as error:
        pass
try:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, 200)
except OSError as error:
    pass";

/// In virtual machines, whose kernels have modules, and where what the control writes is lost.
#[test]
fn the_kernel_starts_nothing_that_a_command_has_named() {
    if !is_declared() {
        println!("tried by `make test-kernels` alone: its control tells this machine's modprobe what to run");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("marker");
    let run = |policy: Value| Run::python(policy, ASK_FOR_MODULE, &[marker.to_str().unwrap()]);
    let allowed = run(json!({"version": 1, "process": {"allow": ["kernel-helpers"]}})).output().success();
    assert!(marker.exists(), "the control: {}", allowed.stdout);
    fs::remove_file(&marker).unwrap();
    for written in allowed.stdout.lines() {
        fs::remove_file(Path::new(written).join("guard-run-test.conf"))
            .or_else(|error| {
                // Two names of one folder.
                if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
            })
            .unwrap();
    }
    let closed = run(json!({"version": 1})).output().success();
    assert_eq!((closed.stdout.as_str(), marker.exists()), ("", false));
}

#[test]
fn a_set_uid_program_gains_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("id");
    fs::copy("/usr/bin/id", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let run = |policy: Value| Run::new(policy, [program.as_os_str(), "-u".as_ref()]).flags(["--user", "nobody"]);
    assert_eq!(run(json!({"version": 1})).output().success().stdout, "65534\n");
    let allowed = run(json!({"version": 1, "process": {"allow": ["privileges"]}}));
    assert_eq!(allowed.output().success().stdout, "0\n");
}

#[test]
fn a_program_of_another_architecture_is_ended() {
    // mov eax, 20; int 0x80 (getpid); ret
    const PROGRAM: &str = "import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7); code[:8] = bytes.fromhex('b814000000cd80c3')
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))() > 0)";
    let run = |policy: Value| Run::python(policy, PROGRAM, &[]);
    assert_eq!(run(json!({"version": 1})).bare().success().stdout, "True\n", "the control");
    let _ = run(json!({"version": 1})).output().exits(128 + libc::SIGSYS);
    let allowed = run(json!({"version": 1, "process": {"architectures": ["x86"]}}));
    assert_eq!(allowed.output().success().stdout, "True\n");
}

/// Says what its standard input is connected to, by talking to it.
const TALK: &str = "import os, socket
stream = socket.socket(fileno=os.dup(0))
stream.send(b'hello')
print('sent')";

#[test]
fn a_socket_of_the_network_as_a_standard_stream_is_refused_unless_it_is_allowed_and_a_unix_socket_is_not() {
    let deny = |process: Value| {
        let network = json!({"default": "deny"});
        json!({"version": 1, "network": network, "process": process})
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, port) = (listener.local_addr().unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.connect(port.local_addr().unwrap()).unwrap();
    let table = [
        (OwnedFd::from(TcpStream::connect(address).unwrap()), format!("family inet, connected to {address}")),
        (OwnedFd::from(TcpListener::bind("[::1]:0").unwrap()), "family inet6, bound to [::1]:".to_owned()),
        (OwnedFd::from(datagrams), format!("family inet, connected to {}", port.local_addr().unwrap())),
    ];
    for (socket, text) in &table {
        let run = |policy: Value| Run::python(policy, TALK, &[]).stdin(socket.try_clone().unwrap());
        let refused = run(deny(json!({}))).output().exits(125);
        assert!(refused.stdout.is_empty() && refused.stderr.lines().count() == 1, "{refused:?}");
        let words = ["standard input is a socket of the ", text.as_str(), "\"inherited-sockets\""];
        assert!(words.iter().all(|word| refused.stderr.contains(word)), "{}", refused.stderr);
    }
    let (connected, _) = &table[0];
    for policy in [
        deny(json!({"allow": ["inherited-sockets"]})),
        deny(json!({"isolation": "cgroup-only"})),
        json!({"version": 1, "mode": "audit", "network": {"default": "deny"}}),
    ] {
        let allowed = Run::python(&policy, TALK, &[]).stdin(connected.try_clone().unwrap()).output().success();
        assert_eq!(allowed.stdout, "sent\n");
        assert_eq!(allowed.log["enforced"]["inherited"][0]["peer"], address.to_string());
        assert_eq!(allowed.stderr.contains("would not have run"), policy["mode"] == "audit", "{}", allowed.stderr);
    }
    // As systemd gives to services, for their journal: connected, and never bound.
    let (stream, _other) = UnixStream::pair().unwrap();
    let run = Run::python(deny(json!({})), TALK, &[]).stdin(stream);
    assert_eq!(run.output().success().stdout, "sent\n");
}
