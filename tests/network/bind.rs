//! The operation `bind`: which address and port of this host's a socket may take. In a network namespace of its own, so
//! that every port is free.

use serde_json::{Value, json};
use support::{Output, Probe, Run, bpf};

/// Starts the loopback device of a new network namespace. 10.0.0.1 is one of its addresses.
const UP: &str = "ip link set lo up; ip addr add 10.0.0.1/32 dev lo; exec \"$@\"";
const ALONE: [&str; 6] = ["unshare", "--net", "sh", "-c", UP, "sh"];

fn alone() -> Probe {
    Probe::bind().through(&ALONE)
}

/// A policy on bind alone.
fn bind(default: &str, rules: &Value) -> Value {
    let mut rules = rules.as_array().unwrap().clone();
    for rule in &mut rules {
        rule["ops"] = json!(["bind"]);
    }
    if default == "deny" {
        rules.push(json!({"action": "allow", "ops": ["connect", "send", "receive"]}));
    }
    json!({"version": 1, "network": {"default": default, "rules": rules}})
}

/// Attempts to bind every kind of socket of a family.
fn kinds(family: u8, address: &str, port: u16) -> Vec<String> {
    let both = ["tcp", "udp", "mptcp", "reuseport", "freebind", "late", "uring", "transparent"];
    let more = if family == 6 { &["dual"][..] } else { &["again"] };
    both.iter().chain(more).map(|kind| format!("{kind}{family} {address} {port}")).collect()
}

/// Serves MPTCP outside on 127.0.0.1, and has connections take a further path from 127.0.0.2; the server ends with the run.
const FURTHER_PATH: &str =
    "ip link set lo up; ip mptcp limits set subflow 1; ip mptcp endpoint add 127.0.0.2 dev lo subflow
    /usr/bin/python3 -c \"$1\" & shift; exec \"$@\"";

const MPTCP_SERVER: &str = "
import ctypes, socket
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
server.bind(('127.0.0.1', 7001))
server.listen()
sock, _ = server.accept()
while data := sock.recv(10):
    sock.send(data)
";

#[test]
fn the_kernel_binds_further_paths_of_a_connection() {
    let client = "
import errno, socket, time
def joined():
    names, numbers = [line.split() for line in open('/proc/net/netstat') if line.startswith('MPTcpExt:')]
    return int(numbers[names.index('MPJoinAckRx')])
until = time.monotonic() + 30
while True:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    try:
        sock.connect(('127.0.0.1', 7001))
        break
    except ConnectionRefusedError:
        assert time.monotonic() < until
# The kernel takes another path once data has been acknowledged.
until = time.monotonic() + 5
while not joined() and time.monotonic() < until:
    sock.send(b'x'); sock.recv(10)
print(joined())
for ask in [('127.0.0.2', 0), ('127.0.0.2', 7002)]:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).bind(ask); print('bound')
    except OSError as error:
        print(errno.errorcode[error.errno])";
    let policy = bind("allow", &json!([{"action": "deny"}]));
    let wrapper = ["unshare", "--net", "sh", "-c", FURTHER_PATH, "sh", MPTCP_SERVER];
    let run = Run::python(&policy, client, &[]).through(wrapper);
    assert_eq!(run.bare().success().stdout, "1\nbound\nbound\n");
    let guarded = run.output().success();
    assert_eq!(guarded.stdout, "1\nEPERM\nEPERM\n");
    assert_eq!(guarded.events().len(), 2, "{:#}", guarded.log);
}

fn rules_of(output: &Output) -> Vec<&Value> {
    output.events().iter().map(|event| &event["rule"]).collect()
}

#[test]
fn a_rule_holds_for_every_kind_of_socket_and_spelling() {
    let rules = json!([{"action": "deny", "hosts": ["127.0.0.1"], "ports": [80]}]);
    let output = alone()
        .denied(kinds(4, "127.0.0.1", 80))
        .denied(kinds(6, "::ffff:127.0.0.1", 80))
        .allowed(kinds(4, "127.0.0.1", 81))
        .allowed(kinds(4, "127.0.0.2", 80))
        .allowed(kinds(6, "::1", 80))
        .check(&bind("allow", &rules));
    let event = &output.events()[0];
    assert_eq!(
        (&event["op"], &event["hook"], &event["rule"]),
        (&json!("bind"), &json!("bind4"), &json!("/network/rules/0"))
    );
    assert_eq!(event["network"], json!({"address": "127.0.0.1", "port": 80, "protocol": "tcp", "host": null}));
    assert_eq!(event["process"]["comm"], "python3");
    let hooks: Vec<&Value> = output.events().iter().map(|event| &event["hook"]).collect();
    assert!(hooks.contains(&&json!("bind6")));
    let rules = json!([{"action": "deny", "hosts": ["::1"], "protocols": ["udp"]}]);
    let _ = alone()
        .denied(["udp6 ::1 80", "udp6 :: 80", "udp6 ::1 0"])
        .allowed(["tcp6 ::1 80", "tcp6 :: 80", "udp4 127.0.0.1 80", "udp6 ::ffff:127.0.0.1 80"])
        .check(&bind("allow", &rules));
}

#[test]
fn to_deny_one_address_is_to_deny_all_of_them_at_once() {
    let wildcards =
        ["tcp4 0.0.0.0 80", "udp4 0.0.0.0 80", "tcp6 :: 80", "dual6 :: 80", "tcp6 ::ffff:0.0.0.0 80", "udp4 0.0.0.0 0"];
    let unspec = ["tcp_as_unspec4 0.0.0.0 80", "udp_as_unspec4 0.0.0.0 80"];
    let table: [(Value, bool); 5] = [
        (bind("allow", &json!([{"action": "deny", "hosts": ["10.0.0.1"]}])), true),
        (bind("allow", &json!([{"action": "deny", "hosts": ["10.0.0.0/8"], "ports": [80, "ephemeral"]}])), true),
        (bind("deny", &json!([{"action": "allow", "hosts": ["127.0.0.1"]}])), true),
        (bind("deny", &json!([{"action": "allow", "hosts": ["0.0.0.0", "::"]}])), false),
        (bind("deny", &json!([{"action": "allow", "hosts": ["any"]}])), false),
    ];
    for (policy, denied) in table {
        let probe =
            if denied { alone().denied(wildcards).denied(unspec) } else { alone().allowed(wildcards).allowed(unspec) };
        let _ = probe.check(&policy);
    }
    // What takes no address of IPv4's is no matter of a rule on one; what might is.
    let rules = json!([{"action": "deny", "hosts": ["fd00::1"]}]);
    let _ = alone().denied(["tcp6 :: 80", "only6 :: 80"]).allowed(["tcp4 0.0.0.0 80"]).check(&bind("allow", &rules));
}

#[test]
fn ephemeral_is_a_port_that_the_kernel_chooses() {
    let rules = json!([{"action": "allow", "hosts": ["loopback"], "ports": ["ephemeral"]}]);
    let _ = alone()
        .allowed(["tcp4 127.0.0.1 0", "udp6 ::1 0", "mptcp4 127.0.0.1 0", "late4 127.0.0.1 0"])
        .denied(["tcp4 127.0.0.1 8080", "udp6 ::1 8080", "tcp4 10.0.0.1 0", "tcp4 0.0.0.0 0"])
        .check(&bind("deny", &rules));
    let rules = json!([{"action": "deny", "ports": ["ephemeral"]}]);
    let _ = alone()
        .denied(["tcp4 127.0.0.1 0", "udp6 ::1 0"])
        .allowed(["tcp4 127.0.0.1 8080", "udp6 ::1 8080"])
        .check(&bind("allow", &rules));
}

#[test]
fn the_range_that_the_kernel_chooses_from_can_not_be_narrowed_to_a_forbidden_port() {
    let rules = json!([{"action": "deny", "ports": [8080]}]);
    let output = alone()
        .denied(["range4 127.0.0.1 8080", "range6 ::1 8080"])
        .allowed(["tcp4 127.0.0.1 0"])
        .check(&bind("allow", &rules));
    let event = &output.events()[0];
    assert_eq!(
        (&event["op"], &event["hook"], &event["rule"]),
        (&json!("sockopt"), &json!("setsockopt"), &json!("fail-closed"))
    );
    assert!(event["reason"].as_str().unwrap().contains("restricts bind"), "{event:#}");
    // Where bind is not restricted, or whatever the port is, it is nobody's business.
    for rule in [json!({"action": "deny", "ops": ["connect"]}), json!({"action": "deny", "hosts": ["192.0.2.1"]})] {
        let _ = alone()
            .allowed(["range4 127.0.0.1 8080"])
            .check(&json!({"version": 1, "network": {"default": "allow", "rules": [rule]}}));
    }
}

/// A listener that was never bound, and what becomes of a connection to it.
const UNBOUND: &str = "import socket, sys
listener = socket.socket(socket.AF_INET6 if sys.argv[1] == '6' else socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[2]))
listener.listen()
port = listener.getsockname()[1]
try:
    with socket.create_connection(('127.0.0.1', port), timeout=0.5): print(port, 'connected')
except OSError as error: print(port, type(error).__name__)";

/// There are two ports to choose from: the kernel takes the odd one to listen and the even one to connect.
const TWO_PORTS: &str = "ip link set lo up; echo 40000 40001 > /proc/sys/net/ipv4/ip_local_port_range; exec \"$@\"";

#[test]
fn who_listens_without_bind_is_judged_by_the_port_that_he_got() {
    let table: [(Value, bool); 7] = [
        (bind("allow", &json!([{"action": "deny", "ports": [40001]}])), true),
        (bind("allow", &json!([{"action": "deny", "ports": ["ephemeral"]}])), true),
        (bind("deny", &json!([])), true),
        (bind("deny", &json!([{"action": "allow", "ports": ["ephemeral"], "hosts": ["loopback"]}])), true),
        (bind("deny", &json!([{"action": "allow", "ports": ["ephemeral"]}])), false),
        (bind("deny", &json!([{"action": "allow", "ports": [40001]}])), false),
        (bind("allow", &json!([{"action": "deny", "ports": [40000], "protocols": ["tcp"]}])), false),
    ];
    for (family, protocol) in [("4", "0"), ("6", "0"), ("4", "262")] {
        for (policy, denied) in &table {
            let run = Run::python(policy, UNBOUND, &[family, protocol]);
            let run = run.through(["unshare", "--net", "sh", "-c", TWO_PORTS, "sh"]);
            assert_eq!(run.bare().success().stdout, "40001 connected\n");
            let output = run.output().success();
            let expected = if *denied { "40001 TimeoutError\n" } else { "40001 connected\n" };
            assert_eq!(output.stdout, expected, "{policy} {family} {protocol}");
            // The listener, and then each packet that was kept from it.
            let hooks: Vec<&Value> = output.events().iter().map(|event| &event["hook"]).collect();
            assert_eq!(hooks, if *denied { &["sock_ops", "ingress"][..] } else { &[] }, "{:#}", output.log);
            for event in output.events() {
                assert_eq!(event["op"], "bind", "{event:#}");
                assert_eq!(event["network"]["port"], 40001);
                assert_eq!(event["process"]["comm"], "python3", "the process that made the socket");
            }
        }
    }
}

#[test]
fn who_was_bound_to_an_allowed_port_is_reached_there() {
    const BOUND: &str = "import socket, sys
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[1]))
listener.bind(('127.0.0.1', 18080))
listener.listen()
with socket.create_connection(listener.getsockname(), timeout=10): print('connected')";
    let rules = json!([{"action": "deny", "ports": ["ephemeral"]}, {"action": "allow", "ports": [18080]}]);
    for protocol in ["0", "262"] {
        let run = Run::python(bind("deny", &rules), BOUND, &[protocol]).through(ALONE);
        let output = run.output().success();
        assert_eq!((output.stdout.as_str(), output.events().len()), ("connected\n", 0), "{:#}", output.log);
    }
}

#[test]
fn order_and_default_decide() {
    let one = json!({"action": "allow", "hosts": ["127.0.0.1"], "ports": [80]});
    let range = json!({"action": "deny", "ports": ["1-1023"]});
    let output = alone()
        .denied(["tcp4 127.0.0.1 81", "tcp4 127.0.0.2 80", "tcp4 0.0.0.0 80"])
        .allowed(["tcp4 127.0.0.1 80", "tcp4 127.0.0.1 1024"])
        .check(&bind("allow", &json!([one, range])));
    assert_eq!(rules_of(&output), ["/network/rules/1"; 3]);
    let output = alone().denied(["tcp4 127.0.0.1 80"]).check(&bind("allow", &json!([range, one])));
    assert_eq!(rules_of(&output), ["/network/rules/0"]);
    let output =
        alone().denied(["udp4 127.0.0.1 81"]).allowed(["tcp4 127.0.0.1 80"]).check(&bind("deny", &json!([one])));
    assert_eq!(rules_of(&output), ["default"]);
}

#[test]
fn audit_mode_binds_and_records() {
    let mut policy = bind("deny", &json!([]));
    policy["mode"] = json!("audit");
    let output = alone().allowed(["tcp4 127.0.0.1 80", "udp6 :: 0", "range4 127.0.0.1 90"]).audited(3).check(&policy);
    assert!(output.events().iter().all(|event| event["verdict"] == "audited"));
    let run = Run::python(policy, UNBOUND, &["4", "0"]).through(ALONE);
    let output = run.output().success();
    assert!(output.stdout.ends_with(" connected\n") && output.sum("audited") > 0, "{output:?}");
}

/// What an administrator sees: the kernel's names of the programs on a guarded leaf.
#[test]
fn bpftool_shows_readable_names() {
    let run = Run::shell(bpf::EVERY_SECTION, "echo ready; read -r _ || true", &[]);
    let (stdin, hold) = std::io::pipe().unwrap();
    let mut running = run.stdin(stdin).start();
    running.wait_for("ready\n");
    let leaf = support::leaves_of(running.pid()).remove(0);
    let shown = std::process::Command::new("bpftool").args(["cgroup", "show"]).arg(&leaf).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let names: Vec<&str> = shown.lines().skip(1).filter_map(|line| line.split_whitespace().last()).collect();
    // Older bpftools don't know the hooks of Unix sockets, and pass them over.
    let known = bpf::HOOKS.iter().filter(|(hook, _)| !hook.ends_with("_unix")).count();
    assert!((known..=bpf::HOOKS.len()).contains(&names.len()), "{shown}");
    assert!(names.iter().all(|name| name.starts_with("guard_")), "{shown}");
    for name in ["guard_connect4", "guard_bind6", "guard_sendmsg4", "guard_ingress", "guard_socket", "guard_device"] {
        assert!(names.contains(&name), "{name}: {shown}");
    }
    drop(hold);
    let _ = running.wait().success();
}
