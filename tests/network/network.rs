//! Network rules hold for the peer, whichever socket, protocol or spelling of the address is used to reach it. The
//! servers are on loopback addresses; every attempt that is denied succeeds without the guard.

use serde_json::{Value, json};
use support::{Probe, Run, TcpServer, UdpServer, cgroup_only};

/// A policy that denies connections to hosts and allows all others.
fn deny(hosts: &[&str]) -> Value {
    json!({"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "ops": ["connect"], "hosts": hosts}]}})
}

/// Attempts to reach an address and port with every kind of socket of the family.
fn all_sockets(address: &str, family: u8, port: u16) -> impl Iterator<Item = String> + '_ {
    let kinds = ["tcp", "udp", "mptcp", "fastopen", "fastopen_connect", "tcp_nonblocking", "uring", "uring_udp"];
    kinds.into_iter().map(move |kind| format!("{kind}{family} {address} {port}"))
}

/// Attempts to reach the same port by every spelling of loopback: those that mean IPv4, and those that mean IPv6.
fn spellings(port: u16) -> [Vec<String>; 2] {
    let v4 = all_sockets("127.0.0.1", 4, port)
        .chain(all_sockets("0.0.0.0", 4, port))
        .chain(all_sockets("::ffff:127.0.0.1", 6, port))
        .chain(all_sockets("::ffff:0.0.0.0", 6, port));
    let v6 = all_sockets("::1", 6, port).chain(all_sockets("::", 6, port));
    [v4.collect(), v6.collect()]
}

#[test]
fn curl_fails_with_its_own_error_at_a_denied_port_only() {
    for ip in ["127.0.0.1", "::1"] {
        let (denied, other) = (TcpServer::start(ip), TcpServer::start(ip));
        let policy = json!({"version": 1, "network": {"default": "allow", "rules": [
            {"action": "deny", "ops": ["connect"], "protocols": ["tcp"], "hosts": ["any"], "ports": [denied.port()]}
        ]}});
        let fetch = |server: &TcpServer| Run::new(&policy, ["curl", "-sS", "--noproxy", "*", &server.url()]);
        let control = fetch(&denied).bare().success();
        assert_eq!((control.stdout.as_str(), denied.accepted()), ("ok\n", 1));

        let output = fetch(&denied).output().exits(7);
        assert!(output.stdout.is_empty() && output.stderr.contains("curl: (7)"), "{output:?}");
        assert_eq!(denied.accepted(), 1, "nothing reached the server");
        let [event] = output.events() else { panic!("{:#}", output.log) };
        assert_eq!(event["network"], json!({"address": ip, "port": denied.port(), "protocol": "tcp", "host": null}));
        assert_eq!((&event["rule"], &event["verdict"]), (&json!("/network/rules/0"), &json!("denied")));

        assert_eq!(fetch(&other).output().success().stdout, "ok\n");
    }
}

#[test]
fn one_address_has_many_spellings_and_a_rule_holds_for_all_of_them() {
    let [v4, v6] = TcpServer::start_pair();
    let table: [(&[&str], bool, bool); 11] = [
        // Hosts of the rule, whether they are IPv4's loopback, whether they are IPv6's.
        (&["127.0.0.0/8"], true, false),
        (&["127.0.0.1"], true, false),
        (&["::ffff:127.0.0.1"], true, false),
        (&["::ffff:0.0.0.0/96"], true, false),
        (&["0.0.0.0/0"], true, false),
        (&["::1"], false, true),
        (&["::/0"], false, true),
        (&["::/64", "127.0.0.2"], false, true),
        (&["loopback"], true, true),
        (&["any"], true, true),
        (&["10.0.0.0/8", "fc00::/7"], false, false),
    ];
    for (hosts, means_v4, means_v6) in table {
        let mut probe = Probe::network();
        for (spellings, means) in spellings(v4.port()).into_iter().zip([means_v4, means_v6]) {
            probe = if means { probe.denied(spellings) } else { probe.allowed(spellings) };
        }
        let _ = probe.check(&deny(hosts));
    }
    assert!(v4.accepted() > 0 && v6.accepted() > 0, "the controls reached both");
}

#[test]
fn a_denied_server_never_hears_of_the_attempts() {
    let [v4, v6] = TcpServer::start_pair();
    let attempts = spellings(v4.port()).concat();
    let words: Vec<&str> = attempts.iter().map(String::as_str).collect();
    let run = Run::python(
        cgroup_only(&deny(&["loopback"])),
        concat!(include_str!("../probes/uring.py"), include_str!("../probes/network.py")),
        &words,
    );
    let output = run.output().success();
    assert!(output.stdout.lines().all(|line| line.ends_with(": EPERM")), "{}", output.stdout);
    assert_eq!((v4.accepted(), v6.accepted()), (0, 0));
    let _ = run.bare().success();
    assert!(v4.accepted() > 0 && v6.accepted() > 0);
}

#[test]
fn datagrams_of_a_connected_socket_are_stopped_at_connect() {
    const PROGRAM: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b'hello')
print(s.recv(100).decode())";
    let server = UdpServer::start("127.0.0.1");
    let run = Run::python(deny(&["127.0.0.1"]), PROGRAM, &["127.0.0.1", &server.port().to_string()]);
    assert_eq!((run.bare().success().stdout.as_str(), server.received()), ("hello\n", 1));
    let output = run.output().exits(1);
    assert!(output.stderr.contains("PermissionError"), "{output:?}");
    assert_eq!(server.received(), 1);
    assert_eq!(output.events()[0]["network"]["protocol"], "udp");
}

#[test]
fn a_family_in_the_address_that_is_not_the_sockets_does_not_help() {
    let server = TcpServer::start("127.0.0.1");
    let port = server.port();
    // Ports rather than hosts, since these attempts connect to another port on the same host before.
    let policy = json!({"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "ports": [port]}]}});
    let _ = Probe::network()
        .denied([
            format!("udp_as_inet6 127.0.0.1 {port}"),
            format!("tcp_again4 127.0.0.1 {port}"),
            format!("udp_again4 127.0.0.1 {port}"),
        ])
        .check(&policy);
    let _ = Probe::network()
        .allowed([format!("udp_as_inet6 127.0.0.1 {port}"), format!("tcp_again4 127.0.0.1 {port}")])
        .check(&deny(&["::/0"]));
}

#[test]
fn to_the_unspecified_address_goes_where_the_kernel_takes_it() {
    let port = |server: &TcpServer| server.port();
    let (other, first) = (TcpServer::start("127.0.0.5"), TcpServer::start("127.0.0.1"));
    // From a socket that is bound to 127.0.0.5, 0.0.0.0 is 127.0.0.5; from any other, it is 127.0.0.1.
    let bound = |kind: &str| format!("{kind}4 0.0.0.0 {} 127.0.0.5", port(&other));
    let mapped = |kind: &str| format!("{kind}6 ::ffff:0.0.0.0 {} ::ffff:127.0.0.5", port(&other));
    let unbound = |kind: &str| format!("{kind}4 0.0.0.0 {}", port(&first));
    // `::` from a socket that is bound to a mapped address is IPv4, too.
    let crossed = |kind: &str| format!("{kind}6 :: {} ::ffff:127.0.0.5", port(&first));
    for kind in ["tcp", "udp"] {
        let output = Probe::network()
            .denied([bound(kind), mapped(kind)])
            .allowed([unbound(kind), crossed(kind)])
            .check(&deny(&["127.0.0.5"]));
        assert!(output.events().iter().all(|event| event["network"]["address"] == "127.0.0.5"), "{:#}", output.log);
        let output = Probe::network()
            .denied([unbound(kind), crossed(kind)])
            .allowed([bound(kind), mapped(kind)])
            .check(&deny(&["127.0.0.1"]));
        assert!(output.events().iter().all(|event| event["network"]["address"] == "127.0.0.1"), "{:#}", output.log);
    }
}

#[test]
fn connections_that_are_let_in_need_not_be_allowed_to_be_made() {
    // The command may serve others: what it accepts is no connection of its own.
    const PROGRAM: &str = "import socket
with socket.create_server(('127.0.0.1', 0)) as server:
    print(server.getsockname()[1], flush=True)
    client, _ = server.accept()
    client.sendall(b'hi')";
    let rules = json!([{"action": "allow", "ops": ["bind", "receive"]}]);
    let policy = json!({"version": 1, "network": {"default": "deny", "rules": rules}});
    let mut running = Run::python(&policy, PROGRAM, &[]).start();
    running.wait_for("\n");
    let port: u16 = running.stdout().trim().parse().unwrap();
    let mut greeting = String::new();
    let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Read::read_to_string(&mut client, &mut greeting).unwrap();
    assert_eq!(greeting, "hi");
    let output = running.wait().success();
    assert!(output.events().is_empty());
    support::assert_no_leaf(output.pid);
}
