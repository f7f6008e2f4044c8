//! Which host an address was found by, where it is shown: in events, in flows, and in the last line. In a network namespace of its own, with
//! a nameserver in it.

use serde_json::{Value, json};
use support::{Probe, Run};

const NAMESERVER: &str = "10.0.0.53";

fn policy(hosts: &Value, more: &Value) -> Value {
    let rule = json!({"action": "allow", "hosts": hosts, "protocols": ["tcp", "udp"], "ports": [8080]});
    let mut policy =
        json!({"version": 1, "network": {"default": "deny", "nameservers": [NAMESERVER], "rules": [rule]}});
    policy["network"]["rules"].as_array_mut().unwrap().extend(more.as_array().unwrap().iter().cloned());
    policy
}

/// The event on an address, which must be the only one.
fn event<'a>(events: &'a [Value], address: &str) -> &'a Value {
    let mut found = events.iter().filter(|event| event["network"]["address"] == address);
    let event = found.next().unwrap_or_else(|| panic!("{address}: {events:#?}"));
    assert!(found.next().is_none(), "{address}: {events:#?}");
    event
}

#[test]
fn addresses_are_shown_with_the_name_that_they_were_found_by() {
    let mut policy = policy(&json!(["api.example.org", "www.example.org", "*.other.test"]), &json!([]));
    policy["record"] = json!("flows");
    let output = Probe::name(NAMESERVER)
        .allowed(["datagram api.example.org 203.0.113.7 8080", "learn www.example.org 203.0.113.8 8080"])
        .denied(["reach 203.0.113.7 443", "reach 203.0.113.8 8081", "reach 203.0.113.9 8080"])
        .check(&policy);
    let api = event(output.events(), "203.0.113.7");
    assert_eq!(api["network"]["host"], "api.example.org", "{api:#}");
    assert_eq!(
        (&api["rule"], &api["reason"]),
        (&json!("default"), &json!("api.example.org is allowed by tcp, udp on port 8080"))
    );
    // By the name that was asked for, and not the one that it leads to.
    assert_eq!(event(output.events(), "203.0.113.8")["network"]["host"], "www.example.org");
    let unknown = event(output.events(), "203.0.113.9");
    assert_eq!((&unknown["network"]["host"], unknown.get("reason")), (&Value::Null, None));
    let last =
        "connect tcp 203.0.113.7:443 (api.example.org) [default: api.example.org is allowed by tcp, udp on port 8080]";
    assert!(output.stderr.contains(last), "{}", output.stderr);
    let flows = output.log["flows"].as_array().unwrap();
    let host = |address: &str| {
        flows.iter().find(|flow| flow["network"]["address"] == address).map(|flow| &flow["network"]["host"])
    };
    assert_eq!((host("203.0.113.7"), host(NAMESERVER)), (Some(&json!("api.example.org")), Some(&Value::Null)));
}

#[test]
fn an_answer_that_is_not_believed_is_told_with_what_to_write() {
    let output = Probe::name(NAMESERVER)
        .denied(["learn near.example.org 10.1.2.3 8080", "learn meta.example.org 169.254.169.254 8080"])
        // The answers are said as well.
        .besides(2)
        .check(&policy(&json!(["near.example.org", "meta.example.org"]), &json!([])));
    let near = event(output.events(), "10.1.2.3");
    assert_eq!(near["network"]["host"], "near.example.org");
    assert!(near["reason"].as_str().unwrap().contains("\"private\": true"), "{near:#}");
    // No rule could allow this one.
    assert_eq!(event(output.events(), "169.254.169.254")["network"]["host"], Value::Null);
}

#[test]
fn a_wildcard_is_told_as_it_is_written() {
    let output = Probe::name(NAMESERVER)
        .allowed(["learn api.example.org 203.0.113.7 8080"])
        .denied(["reach 203.0.113.7 8081"])
        .check(&policy(&json!(["*.example.org"]), &json!([])));
    assert_eq!(event(output.events(), "203.0.113.7")["network"]["host"], "*.example.org");
}

/// musl's resolver, BIND's and others bind a socket before they ask. That gives them nothing else.
#[test]
fn a_resolver_may_take_a_port_that_the_kernel_chooses() {
    const CLIENT: &str = r#"
import errno, os, socket
def attempt(kind, *address, family=socket.AF_INET):
    sock = socket.socket(family, kind)
    try:
        sock.bind(address)
        print("bound")
    except OSError as error:
        print(errno.errorcode[error.errno])
    return sock
udp = attempt(socket.SOCK_DGRAM, "0.0.0.0", 0)
attempt(socket.SOCK_DGRAM, "::", 0, family=socket.AF_INET6)
attempt(socket.SOCK_DGRAM, "0.0.0.0", 12345)
attempt(socket.SOCK_DGRAM, "127.0.0.1", 0)
attempt(socket.SOCK_STREAM, "0.0.0.0", 0)
query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03api\x07example\x03org\0\0\x01\0\x01"
udp.settimeout(5)
udp.sendto(query, (os.environ["NS"], 53))
print(len(udp.recv(512)) > len(query))
"#;
    let binds = |policy: &Value| {
        let run = Run::python(support::cgroup_only(policy), CLIENT, &[]).environment("NS", NAMESERVER);
        let up = "ip link set lo up; ip route add local 10.0.0.0/8 dev lo; exec \"$@\"";
        let run = run.through([
            "unshare",
            "--net",
            "sh",
            "-c",
            up,
            "sh",
            support::PYTHON,
            "-c",
            include_str!("../probes/nameserver.py"),
            NAMESERVER,
        ]);
        (run.bare().success().stdout, run.output().success().stdout)
    };
    let names = policy(&json!(["api.example.org"]), &json!([]));
    let (bare, guarded) = binds(&names);
    assert_eq!(
        (&*bare, &*guarded),
        ("bound\nbound\nbound\nbound\nbound\nTrue\n", "bound\nbound\nEPERM\nEPERM\nEPERM\nTrue\n")
    );
    // A rule of the policy decides before.
    let mut denying = names;
    denying["network"]["rules"].as_array_mut().unwrap().push(json!({"action": "deny", "ops": ["bind"]}));
    assert!(binds(&denying).1.starts_with("EPERM\nEPERM\n"));
}

/// An address in /etc/hosts is shown by its name, too, whoever was asked.
#[test]
fn names_of_etc_hosts_are_shown() {
    const HOSTS: &str = r#"ip link set lo up; mount --make-rprivate /; folder=$(mktemp -d)
        printf '203.0.113.7 db.example.org\n' >"$folder/hosts"; mount --bind "$folder/hosts" /etc/hosts; rm -r "$folder"; exec "$@""#;
    const CLIENT: &str = r#"
import errno, socket
try:
    socket.create_connection(("db.example.org", 443), 10)
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
"#;
    let run = Run::python(policy(&json!(["db.example.org"]), &json!([])), CLIENT, &[])
        .through(["unshare", "--net", "--mount", "sh", "-c", HOSTS, "sh"]);
    assert_eq!(run.bare().success().stdout, "ENETUNREACH\n");
    let output = run.output().success();
    assert_eq!(output.stdout, "EPERM\n");
    let found = event(output.events(), "203.0.113.7");
    assert_eq!((&found["network"]["host"], &found["count"]), (&json!("db.example.org"), &json!(1)), "{found:#}");
}

/// Listens where services that resolve names do, in folders of another user's, in a mount namespace with a /run of its own; then becomes a
/// command.
const RESOLVERS: &str = r#"
import ctypes, os, signal, socket, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run"], check=True)
PATHS = ["/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket", "/run/avahi-daemon/socket"]
listeners = []
for path in PATHS:
    os.makedirs(os.path.dirname(path))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listeners.append(listener)
    os.chmod(path, 0o666)
    os.chown(os.path.dirname(path), 65534, 65534)
with open("/run/systemd/resolve/stub-resolv.conf", "w") as file:
    file.write("nameserver 127.0.0.53\n")
if os.fork():
    os.execvp(sys.argv[1], sys.argv[1:])
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
signal.pause()
"#;

#[test]
fn services_that_resolve_names_are_covered_under_rules_on_names_alone() {
    const CLIENT: &str = r#"
import errno, socket, sys
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("ok")
    except OSError as error:
        print(errno.errorcode[error.errno])
print(open("/run/systemd/resolve/stub-resolv.conf").read(), end="")
"#;
    const PATHS: [&str; 3] =
        ["/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket", "/run/avahi-daemon/socket"];
    let run = |policy: Value| {
        Run::python(policy, CLIENT, &PATHS).through(["unshare", "--mount", support::PYTHON, "-c", RESOLVERS])
    };
    let network = |rules: Value| json!({"version": 1, "network": {"default": "deny", "rules": rules}});
    let open = "ok\nok\nok\nnameserver 127.0.0.53\n";
    let names = policy(&json!(["api.example.org"]), &json!([]));
    assert_eq!(run(names.clone()).bare().success().stdout, open, "the control");
    // Where any name may be asked for anyway, here or elsewhere, these are no way to more.
    for free in [
        network(json!([{"action": "allow", "protocols": ["udp"], "ports": [53]}])),
        network(json!([{"action": "allow", "hosts": ["loopback"]}])),
        json!({"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["10.0.0.0/8"]}]}}),
        json!({"version": 1, "devices": {"default": "deny", "rules": [{"action": "allow", "type": "c"}]}}),
    ] {
        assert_eq!(run(free.clone()).output().success().stdout, open, "{free}");
    }
    let closed = "ECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nnameserver 127.0.0.53\n";
    for kept in [
        network(json!([])),
        network(json!([{"action": "allow", "hosts": ["sandbox"]}])),
        network(json!([{"action": "allow", "hosts": ["203.0.113.7"]}])),
        network(json!([{"action": "allow", "ports": [443]}])),
        network(json!([{"action": "allow", "ops": ["bind", "receive"]}])),
    ] {
        assert_eq!(run(kept.clone()).output().success().stdout, closed, "{kept}");
    }
    let output = run(names.clone()).output().success();
    assert_eq!(output.stdout, closed);
    let covered = output.log["enforced"]["hardening"]["covered"].to_string();
    assert!(PATHS.iter().all(|path| covered.contains(path)), "{covered}");
    // Whom a rule allows.
    let mut allowed = names.clone();
    allowed["unix"] = json!({"default": "allow", "rules": [{"action": "allow", "paths": ["/run/nscd/socket"]}]});
    assert_eq!(
        run(allowed).output().success().stdout.lines().collect::<Vec<_>>()[..3],
        ["ECONNREFUSED", "ok", "ECONNREFUSED"]
    );
    let mut delegating = names;
    delegating["process"] = json!({"allow": ["delegation"]});
    assert_eq!(run(delegating).output().success().stdout, open);
}

#[test]
fn doctor_tries_names_and_tells_which_services_are_covered() {
    let doctor = |wrapper: &[&str]| {
        let (first, rest) = wrapper.split_first().unwrap();
        std::process::Command::new(first).args(rest).arg(support::guard_run()).arg("doctor").output().unwrap()
    };
    let with = doctor(&[
        "unshare",
        "--net",
        "--mount",
        "sh",
        "-c",
        "ip link set lo up; exec \"$@\"",
        "sh",
        support::PYTHON,
        "-c",
        RESOLVERS,
    ]);
    let said = String::from_utf8(with.stdout).unwrap();
    for line in [
        "ok       rules on host names",
        "ok       systemd-resolved at /run/systemd/resolve/io.systemd.Resolve: covered",
        "ok       nscd at /run/nscd/socket: covered",
        "ok       avahi at /run/avahi-daemon/socket: covered",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // Where there is no loopback, nobody can ask.
    let without = doctor(&["unshare", "--net"]);
    let said = String::from_utf8(without.stdout).unwrap();
    assert!(said.contains("no       rules on host names"), "{said}");
}
