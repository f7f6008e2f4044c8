//! `guard-run selftest`: on this machine every known way out is stopped; and the self-test can fail.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use support::{
    eventually, guard_run,
    kernel::{Feature, is_declared, lacks, release},
    leaves_of,
};

/// A vector that needs something that not every machine has, what that is, and whether it is known to be missing here.
type Need = (&'static str, &'static str, fn() -> bool);

/// All of these. Any other that can't be tried fails the test.
const NEEDS: [Need; 20] = [
    ("protocol/ping4-datagram", "a net/ipv4/ping_group_range with root's group in it", || {
        !fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").is_ok_and(|range| range.starts_with("0\t"))
    }),
    ("protocol/crypto", "CONFIG_CRYPTO_USER_API", || {
        !fs::read_to_string("/proc/net/protocols")
            .is_ok_and(|families| families.lines().any(|it| it.starts_with("ALG ")))
    }),
    ("protocol/vhost", "CONFIG_VHOST_NET or CONFIG_VHOST_VSOCK", || {
        !["/dev/vhost-vsock", "/dev/vhost-net"].iter().any(|path| Path::new(path).exists())
    }),
    ("protocol/rdma", "CONFIG_INFINIBAND_USER_ACCESS", || !Path::new("/dev/infiniband/rdma_cm").exists()),
    ("port/bind4-uring", "IORING_OP_BIND (Linux 6.11)", || is_before(6, 11)),
    // Debian's kernels have it, but want to be asked for it.
    ("foreign/x32-connect", "CONFIG_X86_X32_ABI, which few kernels have", || {
        !fs::read_to_string("/proc/cmdline").is_ok_and(|words| words.contains("syscall.x32=y"))
    }),
    ("beside/route6-message", "CONFIG_IPV6_MIP6", || !is_declared()),
    ("sysctl/modprobe", "CONFIG_MODULES", || !Path::new("/proc/sys/kernel/modprobe").exists()),
    ("sysctl/module-loader", "CONFIG_MODULES and kmod", || {
        !["/proc/sys/kernel/modprobe", "/sbin/modprobe"].iter().all(|path| Path::new(path).exists())
    }),
    ("sysctl/module-rules", "kmod, or another package with rules for it", || {
        !["/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"]
            .iter()
            .any(|path| Path::new(path).exists())
    }),
    ("sysctl/modules", "the running kernel's modules", || {
        !["/lib/modules", "/usr/lib/modules"].iter().any(|path| Path::new(path).join(release()).exists())
    }),
    ("sysctl/key-rules", "keyutils", || !Path::new("/etc/request-key.conf").exists()),
    ("sysctl/key-finder", "keyutils", || !Path::new("/sbin/request-key").exists()),
    ("sysctl/scsi", "CONFIG_SCSI_PROC_FS", || !Path::new("/proc/scsi/scsi").exists()),
    ("sysctl/sysrq", "CONFIG_MAGIC_SYSRQ", || !Path::new("/proc/sysrq-trigger").exists()),
    ("sysctl/kernel-memory", "CONFIG_PROC_KCORE", || !Path::new("/proc/kcore").exists()),
    ("sysctl/release-agent", "a hierarchy of cgroup v1", || {
        !fs::read_to_string("/proc/mounts").is_ok_and(|mounts| mounts.contains(" cgroup "))
    }),
    ("privilege/module", "CONFIG_MODULES", || !Path::new("/proc/modules").exists()),
    ("privilege/ports", "CONFIG_X86_IOPL_IOPERM, which hypervisors' kernels leave out", || !is_declared()),
    ("delegation/service-socket", "a message bus or a container engine", || {
        !["/run/dbus/system_bus_socket", "/run/docker.sock"].iter().any(|path| Path::new(path).exists())
    }),
];

fn is_before(major: u32, minor: u32) -> bool {
    let numbers: Vec<u32> = release().split(['.', '-']).map_while(|number| number.parse().ok()).collect();
    numbers < vec![major, minor]
}

/// What is possible where Landlock has no scopes, so that the policy has to allow signals and abstract sockets.
fn is_scoped(vector: &str) -> bool {
    vector.starts_with("trace/kill") || ["delegation/abstract-socket", "launcher/limit"].contains(&vector)
}

/// What a user has to type because of what this kernel lacks.
fn allowed() -> &'static [&'static str] {
    if lacks(Feature::LandlockScopes) { &["--allow", "signals,abstract-sockets"] } else { &[] }
}

/// The vectors whose policy forbids Unix sockets, which takes the one or the other.
const FORBIDDING_UNIX_SOCKETS: [&str; 8] = [
    "unix",
    "uring/unix",
    "foreign/i386-unix",
    "descriptor/passed-by-name",
    "descriptor/passed-by-path",
    "descriptor/passed-device",
    "descriptor/unix-connection",
    "delegation/session-bus-restarted",
];

fn selftest(arguments: &[&str]) -> Output {
    Command::new(guard_run()).arg("selftest").args(arguments).output().expect("guard-run can be run")
}

/// The verdicts in a matrix: what the vectors are called, and what came out.
fn verdicts(output: &Output) -> BTreeMap<String, String> {
    let matrix: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let vectors = matrix["vectors"].as_array().expect("a matrix has vectors");
    let text = |vector: &Value, key: &str| vector[key].as_str().expect("text").to_owned();
    let name = |vector: &Value| format!("{}/{}", text(vector, "family"), text(vector, "name"));
    vectors.iter().map(|vector| (name(vector), text(vector, "verdict"))).collect()
}

#[test]
fn every_known_way_out_is_stopped() {
    let mut arguments = [&["--json"], allowed()].concat();
    for (vector, need, is_missing) in NEEDS {
        if is_missing() {
            println!("{vector} needs {need}, which this machine lacks");
            arguments.extend(["--allow-missing", vector]);
        }
    }
    let is_powerless = lacks(Feature::ConnectUnix) && lacks(Feature::BpfLsm);
    if is_powerless {
        arguments.extend(FORBIDDING_UNIX_SOCKETS.into_iter().flat_map(|vector| ["--allow-missing", vector]));
    }
    let output = selftest(&arguments);
    let matrix = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdicts = verdicts(&output);
    let expected = |vector: &str| if !allowed().is_empty() && is_scoped(vector) { "allowed" } else { "stopped" };
    let not_stopped: Vec<_> =
        verdicts.iter().filter(|(name, it)| *it != expected(name) && *it != "declared-missing").collect();
    let why = matrix.lines().filter(|line| line.contains("\"missing\": \"")).collect::<Vec<_>>();
    assert!(not_stopped.is_empty(), "{not_stopped:?}\n{why:#?}");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    if is_powerless {
        assert!(
            why.iter().any(|why| why.contains("needs the connect_unix hook") && why.contains("BPF LSM")),
            "{why:#?}"
        );
    }
    let declared = verdicts.values().filter(|verdict| *verdict == "declared-missing").count();
    assert!(
        verdicts.len() - declared >= if is_powerless { 200 } else { 240 },
        "{declared} of {} could not be tried",
        verdicts.len()
    );
}

#[test]
fn what_this_kernel_cannot_stop_has_to_be_allowed() {
    let vectors = ["trace/kill", "trace/seize"];
    let output = selftest(&vectors);
    if allowed().is_empty() {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    } else {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(125) && output.stdout.is_empty(), "{output:?}");
        let [option, parts] = allowed() else { panic!("{:?}", allowed()) };
        assert!(error.ends_with(&format!("; and to the self-test: {option} {parts}\n")), "{error}");
    }
    // It is a way out wherever the policy allows it, and only that.
    let allow = ["--json", "--allow", "signals", "--allow", "abstract-sockets"];
    let output = selftest(&[&allow[..], &vectors].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = [("trace/kill", "allowed"), ("trace/seize", "stopped")];
    assert_eq!(verdicts(&output), expected.map(|(vector, verdict)| (vector.to_owned(), verdict.to_owned())).into());
    let output = selftest(&[&allow[1..], &vectors].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(" allowed  nothing: --allow signals\n"), "{text}");
    assert!(text.ends_with("\n2 vectors: 1 stopped, 0 ways out, 0 could not be tried, 1 allowed\n"), "{text}");
    let output = selftest(&["--allow", "signal", "trace/kill"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(125) && error.contains("did you mean \"signals\""), "{error}");
}

#[test]
fn ways_out_that_are_open_are_found() {
    let vectors = [
        "address/tcp4",
        "cgroup/top",
        "bpf/detach",
        "descriptor/tcp",
        "trace/kill",
        "launcher/limit",
        "sysctl/core-pattern",
    ];
    let output = selftest(&[&["--json", "--isolation", "cgroup-only"], &vectors[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let verdicts = verdicts(&output);
    assert_eq!(verdicts.len(), vectors.len());
    for (vector, verdict) in &verdicts {
        // What the programs alone stop is stopped.
        assert_eq!(verdict, if vector == "address/tcp4" { "stopped" } else { "out" }, "{vector}");
    }
    let output = selftest(&["--isolation", "cgroup-only", "trace/kill"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("\nWAY OUT: trace/kill: "), "{text}");
}

#[test]
fn what_cannot_be_tried_has_to_be_declared() {
    // A machine on which nobody may make packet sockets.
    let without = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]);
        command.arg(guard_run()).arg("selftest").args(allowed()).args(arguments);
        command.output().expect("setpriv can be run")
    };
    let vectors = ["protocol/packet", "address/tcp4"];
    let output = without(&vectors);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("protocol/packet: without the guard: socket: EPERM"), "{text}");
    for declared in ["protocol/packet", "protocol"] {
        let output = without(&[&["--json", "--allow-missing", declared], &vectors[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(verdicts(&output)["protocol/packet"], "declared-missing");
    }
    assert_eq!(without(&[&["--allow-missing", "address"], &vectors[..]].concat()).status.code(), Some(1));
}

#[test]
fn an_interrupted_self_test_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(guard_run());
    command.arg("selftest").args(allowed()).env("TMPDIR", folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("guard-run can be run");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    assert!(lines.nth(4).is_some(), "it has begun");
    assert!(fs::read_dir(folder.path()).expect("it is ours").next().is_some(), "it has a folder");
    let pid = child.id();
    // SAFETY: takes two numbers; the process is our child and not waited for yet.
    unsafe { libc::kill(pid.cast_signed(), libc::SIGINT) };
    lines.for_each(drop);
    let output = child.wait_with_output().expect("it is our child");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "guard-selftest: interrupted\n");
    assert_eq!(fs::read_dir(folder.path()).expect("it is ours").count(), 0);
    eventually("its cgroups are gone", || leaves_of(pid).is_empty());
}

#[test]
fn words_name_vectors() {
    let output = selftest(&["--list", "bpf", "trace/kill"]);
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && list.lines().count() > 5, "{list}");
    assert!(list.lines().all(|line| line.starts_with("bpf/") || line.starts_with("trace/kill ")), "{list}");
    for words in [&["bfp"][..], &["--allow-missing", "bfp"]] {
        let output = selftest(words);
        assert_eq!(output.status.code(), Some(125));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            error,
            "guard-selftest: no vector or family is named \"bfp\"; guard-run selftest --list names all\n"
        );
    }
}
