//! `check` says what a policy allows in vain, and what to add: without that, it doesn't work, and with it, there is no note.

use std::path::Path;

use serde_json::{Value, json};
use support::{
    PYTHON, Run,
    kernel::{Feature, lacks},
};

/// What `check` notes about a policy.
fn notes(policy: &Value) -> Vec<String> {
    // As it is written: what this kernel lacks is nothing to `check`.
    let output = Run::new(policy.to_string(), ["true"]).subcommand("check", &[]).success();
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    let notes = printed["notes"].as_array().cloned().unwrap_or_default();
    notes.iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

/// The policy's section `process`, as the only note says that it has to be.
fn asked_for(policy: &Value, place: &str) -> Value {
    let said = notes(policy);
    let [note] = &said[..] else { panic!("{policy}: {said:?}") };
    assert!(note.starts_with(place), "{note}");
    serde_json::from_str(note.split_once("\"process\": ").unwrap().1).unwrap()
}

#[test]
fn whatever_a_rule_names_that_takes_more_than_a_rule_is_noted() {
    let devices = |rule: Value| json!({"version": 1, "devices": {"default": "deny", "rules": [rule]}});
    let node = |major: u32, minor: u32| json!({"action": "allow", "type": "c", "major": major, "minor": minor});
    let access = |mut rule: Value, access: &str| {
        rule["access"] = access.into();
        rule
    };
    let sysctls = |name: &str| {
        let rule = json!({"action": "allow", "names": [name], "access": "w"});
        json!({"version": 1, "sysctls": {"default": "allow", "rules": [rule]}})
    };
    let option = |option: &str, access: &str| {
        let rule = json!({"action": "allow", "option": option, "access": access});
        json!({"version": 1, "sockopts": {"default": "deny", "rules": [rule]}})
    };
    let process = |key: &str, words: &[&str]| json!({"version": 1, "process": {key: words}});
    let raw = json!({"version": 1, "sockets": {"default": "deny", "rules": [{"action": "allow", "protocol": 255}]}});
    let table = [
        (devices(node(1, 1)), "/devices/rules/0", "CAP_SYS_RAWIO"),
        (devices(node(1, 4)), "/devices/rules/0", "CAP_SYS_RAWIO"),
        (devices(node(10, 200)), "/devices/rules/0", "CAP_NET_ADMIN"),
        (devices(access(node(1, 11), "r")), "/devices/rules/0", "CAP_SYSLOG"),
        (devices(access(node(1, 3), "m")), "/devices/rules/0", "CAP_MKNOD"),
        (devices(access(node(1, 3), "rwm")), "/devices/rules/0", "CAP_MKNOD"),
        (raw, "/sockets/rules/0", "CAP_NET_RAW"),
        (sysctls("net.ipv4.ip_forward"), "/sysctls/rules/0", "CAP_NET_ADMIN"),
        (sysctls("net/ipv4/conf/lo/forwarding"), "/sysctls/rules/0", "CAP_NET_ADMIN"),
        (sysctls("net/ipv4/conf/*/forwarding"), "/sysctls/rules/0", "CAP_NET_ADMIN"),
        (sysctls("net/core/bpf_jit_*"), "/sysctls/rules/0", "CAP_SYS_ADMIN"),
        (sysctls("*restrict"), "/sysctls/rules/0", "CAP_SYS_ADMIN"),
        (sysctls("kernel/ns_last_pid"), "/sysctls/rules/0", "CAP_CHECKPOINT_RESTORE"),
        (sysctls("vm/mmap_min_addr"), "/sysctls/rules/0", "CAP_SYS_RAWIO"),
        (option("SO_MARK", "set"), "/sockopts/rules/0", "CAP_NET_RAW"),
        (option("SO_RCVBUFFORCE", "set"), "/sockopts/rules/0", "CAP_NET_ADMIN"),
        (process("families", &["xdp"]), "/process/families", "CAP_NET_RAW"),
        (process("families", &["key"]), "/process/families", "CAP_NET_ADMIN"),
        (process("allow", &["tracing", "signals", "abstract-sockets"]), "/process/allow", "CAP_SYS_PTRACE"),
        (process("allow", &["terminal"]), "/process/allow", "CAP_SYS_ADMIN"),
    ];
    for (mut policy, place, capability) in table {
        assert_eq!(asked_for(&policy, place), json!({"capabilities": [capability]}), "{policy}");
        policy["process"]["capabilities"] = json!([capability]);
        assert_eq!(notes(&policy), Vec::<String>::new(), "{policy}");
    }
    let fine = [
        devices(node(1, 3)),
        devices(access(node(1, 11), "w")),
        devices(json!({"action": "deny", "type": "c", "major": 1, "minor": 1})),
        devices(json!({"action": "deny", "access": "rwm"})),
        devices(json!({"action": "allow"})),
        sysctls("kernel/hostname"),
        sysctls("kernel/*"),
        sysctls("*"),
        json!({"version": 1, "sysctls": {"default": "deny", "rules": [
            {"action": "allow", "names": ["kernel/dmesg_restrict"], "access": "r"}]}}),
        option("SO_MARK", "get"),
        option("SO_RCVBUF", "set"),
        // For SO_MARK, the one will do as well as the other.
        json!({"version": 1, "process": {"capabilities": ["CAP_NET_ADMIN"]},
            "sockopts": {"default": "deny", "rules": [{"action": "allow", "option": "SO_MARK"}]}}),
    ];
    for policy in fine {
        assert_eq!(notes(&policy), Vec::<String>::new(), "{policy}");
    }
}

/// Each is written what it is, so that nothing changes.
#[test]
fn a_tunable_is_written_with_the_capability_that_check_names() {
    const WRITE: &str = "import sys
for name in sys.argv[1:]:
    value = open('/proc/sys/' + name, 'rb').read(); open('/proc/sys/' + name, 'wb', buffering=0).write(value)";
    let names = [
        "net/ipv4/ip_forward",
        "net/ipv4/conf/lo/forwarding",
        "net/core/default_qdisc",
        "net/core/bpf_jit_enable",
        "net/core/bpf_jit_harden",
        "kernel/bpf_stats_enabled",
        "kernel/dmesg_restrict",
        "kernel/kptr_restrict",
        "kernel/seccomp/actions_logged",
        "kernel/task_delayacct",
        "kernel/unprivileged_bpf_disabled",
        "vm/mmap_min_addr",
    ];
    // Not all kernels have all of them.
    for name in names.into_iter().filter(|name| Path::new("/proc/sys").join(name).exists()) {
        let mut policy = json!({"version": 1, "sysctls": {"default": "allow", "rules": [
            {"action": "allow", "names": [name], "access": "w"}]}});
        let writes = |policy: &Value| Run::python(policy, WRITE, &[name]).output().code();
        assert_eq!(writes(&policy), Some(1), "{name}");
        policy["process"] = asked_for(&policy, "/sysctls/rules/0");
        assert_eq!(writes(&policy), Some(0), "{name}");
    }
}

#[test]
fn a_rule_on_abstract_names_of_others_names_the_part_that_it_needs() {
    let name = format!("guard-needs-{}", std::process::id());
    let mut policy = json!({"version": 1, "unix": {"default": "deny", "rules": [
        {"action": "allow", "paths": [format!("@{name}")]}]}});
    let server = format!(
        "import socket, sys\nserver = socket.socket(socket.AF_UNIX)\nserver.bind('\\0{name}')\nserver.listen()\n\
         print('ready', flush=True)\nsys.stdin.read()"
    );
    let (end, writer) = std::io::pipe().unwrap();
    let mut outside = Run::new(json!({"version": 1}), [PYTHON, "-c", &server]).stdin(end).start_bare();
    outside.wait_for("ready");
    let client = format!("import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')");
    let reaches = |policy: &Value| Run::python(policy, &client, &[]).output().code() == Some(0);
    // Where the kernel can't keep them apart, all policies of these tests have the part.
    assert_eq!(reaches(&policy), lacks(Feature::LandlockScopes));
    policy["process"] = asked_for(&policy, "/unix/rules/0");
    assert!(reaches(&policy) && notes(&policy).is_empty(), "{policy}");
    drop(writer);
    let _ = outside.wait();
}

/// In a network namespace, so that the device goes away with it.
#[test]
fn a_network_device_is_made_with_the_capability_that_check_names() {
    const MAKE: &str = "import fcntl, struct
fcntl.ioctl(open('/dev/net/tun', 'rb+', buffering=0), 0x400454ca, struct.pack('16sH22x', b'guard0', 0x1001))";
    let mut policy = json!({"version": 1, "devices": {"default": "allow", "rules": [
        {"action": "allow", "type": "c", "major": 10, "minor": 200}]}});
    let makes = |policy: &Value| {
        let run = Run::python(policy, MAKE, &[]).through(["unshare", "--net"]);
        (run.output().code() == Some(0), run.bare().code() == Some(0))
    };
    assert_eq!(makes(&policy), (false, true));
    policy["process"] = asked_for(&policy, "/devices/rules/0");
    assert_eq!(makes(&policy), (true, true));
}
