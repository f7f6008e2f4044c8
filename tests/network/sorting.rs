//! getaddrinfo(3) connects a UDP socket to each address that it sorts, and sends nothing: no denial of which anybody would hear.

use serde_json::{Value, json};
use support::Run;

use crate::network;

/// In a network namespace in which addresses of both families have ways out, and others have none, with names of its own.
const NAMED: &str = "ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up; \
    ip addr add 10.9.0.1/24 dev v0; ip -6 addr add fd09::1/64 dev v0 nodad; mount --bind \"$1\" /etc/hosts; shift; exec \"$@\"";

const HOSTS: &str = "::1 localhost\n127.0.0.1 localhost\n10.9.0.2 both\nfd09::2 both\n2001:db8::2 four\n10.9.0.2 four\n\
    192.0.2.2 six\nfd09::2 six\n127.0.0.2 far\n198.51.100.1 far\n";

#[test]
fn looking_up_a_name_for_tcp_is_no_denial() {
    const PROGRAM: &str = "
import socket, subprocess
for name in 'localhost both four six far'.split():
    for port in (None, 443):
        print(name, port, sorted(each[4][0] for each in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)))
    print(sorted(subprocess.run(['getent', 'ahosts', name], capture_output=True, text=True, check=True).stdout.split()))";
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, HOSTS).unwrap();
    let through = ["unshare", "--mount", "--net", "sh", "-c", NAMED, "sh", hosts.to_str().unwrap()];
    let tcp = json!({"action": "allow", "protocols": ["tcp"], "ports": [443]});
    for rules in [
        json!([tcp]),
        json!([tcp, {"action": "allow", "hosts": ["10.0.0.0/8"], "protocols": ["udp"], "ports": [53]}]),
        json!([tcp, {"action": "allow", "hosts": ["sandbox"]}]),
    ] {
        let run = Run::python(network("deny", &rules), PROGRAM, &[]).through(through).flags(["--fail-on-deny"]);
        let (bare, guarded) = (run.bare().success(), run.output().success());
        assert_eq!(guarded.stdout, bare.stdout);
        assert!(guarded.events().is_empty(), "{:#}", guarded.log);
        // They are counted all the same.
        assert!(guarded.sum("denied") > 0, "{:#}", guarded.log);
        assert_eq!(guarded.sum("denied"), guarded.sum("unreported"), "{:#}", guarded.log);
    }
}

/// It has two addresses in most files of hosts, and TCP need not be allowed to both.
#[test]
fn looking_up_localhost_is_no_denial_where_one_of_its_addresses_is_allowed() {
    const PROGRAM: &str = "
import socket
for port in (None, 8080):
    print(port, sorted(each[4][0] for each in socket.getaddrinfo('localhost', port, type=socket.SOCK_STREAM)))";
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, HOSTS).unwrap();
    let through = ["unshare", "--mount", "--net", "sh", "-c", NAMED, "sh", hosts.to_str().unwrap()];
    for (host, counted) in [("127.0.0.1", 2), ("::1", 2), ("loopback", 2), ("sandbox", 2), ("10.9.0.2", 0)] {
        let rules = json!([{"action": "allow", "hosts": [host], "protocols": ["tcp"]}]);
        let run = Run::python(network("deny", &rules), PROGRAM, &[]).through(through);
        let (bare, guarded) = (run.bare().success(), run.output().success());
        assert_eq!(guarded.stdout, bare.stdout, "{host}");
        // Where neither is allowed, those with the port are events.
        let events = if counted == 0 { 2 } else { 0 };
        assert_eq!(guarded.events().len(), events, "{host}: {:#}", guarded.log);
        assert!(guarded.sum("unreported") >= counted, "{host}: {:#}", guarded.log);
    }
}

/// What a UDP socket is connected for that TCP may not reach, and what is sent, is an event.
#[test]
fn all_else_that_udp_is_denied_is_an_event() {
    const PROGRAM: &str = "
import socket
def attempt(act):
    try: act()
    except OSError as error: print(error.errno)
new = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in (0, 443, 53): attempt(lambda: new().connect(('127.0.0.1', port)))
for port in (443, 53): attempt(lambda: new().sendto(b'x', ('127.0.0.1', port)))";
    let rules = json!([{"action": "allow", "protocols": ["tcp"], "ports": [443]}]);
    let told = |policy: &Value| {
        let output = Run::python(policy, PROGRAM, &[]).output().success();
        let events: Vec<(String, u64)> = output
            .events()
            .iter()
            .map(|event| (event["op"].as_str().unwrap().to_owned(), event["network"]["port"].as_u64().unwrap()))
            .collect();
        (output.stdout.clone(), output.sum("unreported"), events)
    };
    let event = |op: &str, port: u64| (op.to_owned(), port);
    let (said, unreported, events) = told(&network("deny", &rules));
    assert_eq!((said.as_str(), unreported), ("1\n1\n1\n1\n1\n", 2));
    assert_eq!(events, [event("connect", 53), event("send", 443), event("send", 53)]);
    // Where denials are only recorded, what is sent arrives, so a policy is learnt from all of it.
    let mut audit = network("deny", &rules);
    audit["mode"] = json!("audit");
    let (_, unreported, events) = told(&audit);
    assert_eq!((unreported, events.len()), (0, 5), "{events:?}");
}
