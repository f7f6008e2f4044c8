//! Clients that others wrote, at servers that others wrote: under a policy that allows what they do, they do it as
//! without the guard; where it doesn't, they fail with their own error, and the log says just that.

use std::fs;

use serde_json::{Value, json};
use support::{Daemon, Output, Run, TcpServer, Transport, UdpServer, denials, denied, fresh_address, is_bound, works};

/// A policy that allows connections by a protocol to an address and port, and no others.
fn only(protocol: &str, address: &str, port: u16) -> Value {
    json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "allow", "ops": ["connect"], "protocols": [protocol], "hosts": [address], "ports": [port]},
        {"action": "deny", "ops": ["connect"]}
    ]}})
}

/// A policy that denies connections by a protocol, or by "any", and allows all others.
fn no(protocol: &str) -> Value {
    let rule = json!({"action": "deny", "ops": ["connect"], "protocols": [protocol]});
    json!({"version": 1, "network": {"default": "allow", "rules": [rule]}})
}

/// The event of a denied connection, by a rule of that number.
fn event(protocol: &str, address: &str, port: u16, rule: u32) -> Value {
    let network = json!({"address": address, "port": port, "protocol": protocol, "host": null});
    let rule = format!("/network/rules/{rule}");
    json!({"op": "connect", "verdict": "denied", "network": network, "rule": rule, "count": 1})
}

#[test]
fn curl_goes_on_to_the_next_address_of_a_name() {
    let [v4, v6] = TcpServer::start_pair();
    let port = v4.port();
    let name = format!("example.test:{port}:[::1],127.0.0.1");
    let url = format!("http://example.test:{port}/");
    let command = ["curl", "-sS", "--noproxy", "*", "--resolve", &name, &url];
    let everything = json!({"version": 1, "network": {"default": "allow"}});
    assert_eq!(works(&everything, command).stdout, "ok\n");
    assert_eq!((v6.accepted(), v4.accepted()), (2, 0));

    let output = Run::new(only("tcp", "127.0.0.1", port), command).output().success();
    assert_eq!(output.stdout, "ok\n");
    assert_eq!(denials(&output), [event("tcp", "::1", port, 1)]);
    assert_eq!((v6.accepted(), v4.accepted()), (2, 1));

    let events = [event("tcp", "::1", port, 0), event("tcp", "127.0.0.1", port, 0)];
    let _ = denied(&no("any"), command, 7, "curl: (7) Failed to connect to example.test port", &events);
    assert_eq!((v6.accepted(), v4.accepted()), (2, 1));
}

#[test]
fn dig_asks_by_udp_and_by_tcp() {
    let address = fresh_address();
    let listen = format!("--listen-address={address}");
    let command =
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--pid-file="];
    let options = ["--user=root", "--bind-interfaces", "--port=53", "--address=/example.test/192.0.2.7", &listen];
    let _server = Daemon::start([&command[..], &options].concat(), |_| {
        is_bound(Transport::Udp, &address, 53) && is_bound(Transport::Tcp, &address, 53)
    });
    let server = format!("@{address}");
    for (protocol, other, flag, reason) in
        [("udp", "tcp", "+notcp", "UDP setup with"), ("tcp", "udp", "+tcp", "Connection to")]
    {
        let command = ["dig", "-r", "+short", "+tries=1", flag, &server, "example.test"];
        assert_eq!(works(&only(protocol, &address, 53), command).stdout, "192.0.2.7\n");
        assert_eq!(works(&no(other), command).stdout, "192.0.2.7\n");
        let message = format!("{reason} {address}#53({address}) for example.test failed: permission denied.");
        let output = denied(&no(protocol), command, 9, &message, &[event(protocol, &address, 53, 0)]);
        assert!(!output.stdout.contains("192.0.2.7"), "{output:?}");
    }
}

#[test]
fn iperf3_measures_with_one_connection_more_than_it_is_allowed() {
    let address = fresh_address();
    // A server for each measurement, since one that has not quite finished the last turns others away.
    let server = || Daemon::start(["iperf3", "-s", "-B", &address], |_| is_bound(Transport::Tcp, &address, 5201));
    // It has a connection for control, and one for the data.
    let tcp = ["iperf3", "-c", &address, "-n", "1M"];
    let udp = ["iperf3", "-u", "-c", &address, "-n", "100K", "-b", "0"];
    for command in [&tcp[..], &udp] {
        let run = Run::new(only("any", &address, 5201), [command, &["--json"]].concat());
        // The figures differ each time; how much was sent does not.
        let sent = |text: &str| {
            let report: Value = serde_json::from_str(text).unwrap();
            let sums = &report["end"];
            let sum = if sums["sum_sent"].is_null() { &sums["sum"] } else { &sums["sum_sent"] };
            sum["bytes"].as_u64().unwrap_or_else(|| panic!("{report:#}"))
        };
        let measure = |run: &dyn Fn() -> Output| {
            let _server = server();
            run().success()
        };
        let (bare, guarded) = (measure(&|| run.bare()), measure(&|| run.output()));
        assert_eq!(sent(&guarded.stdout), sent(&bare.stdout));
        assert!(sent(&guarded.stdout) >= 100 * 1024 && guarded.events().is_empty(), "{guarded:#?}");
    }
    let _server = server();
    let message = "unable to connect to server: Operation not permitted";
    let _ = denied(&no("tcp"), tcp, 1, message, &[event("tcp", &address, 5201, 0)]);
    let message = "unable to connect stream: Operation not permitted";
    let _ = denied(&no("udp"), udp, 1, message, &[event("udp", &address, 5201, 0)]);
}

#[test]
fn socat_relays_what_is_allowed() {
    let (tcp, udp) = (TcpServer::start("127.0.0.1"), UdpServer::start("127.0.0.1"));
    // What it relays the socket to: says something, and prints the first line of the answer.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("talk");
    fs::write(&script, "printf 'hello\\r\\n\\r\\n'; head -n 1 >&2").unwrap();
    let talk = format!("EXEC:sh {}", script.display());
    // How long it goes on when one side has ended: for TCP, until the other has, too; datagrams have no end.
    for (protocol, kind, port, answer, time) in
        [("tcp", "TCP4", tcp.port(), "HTTP/1.0 200 OK", "30"), ("udp", "UDP4", udp.port(), "hello", "0")]
    {
        let peer = format!("{kind}:127.0.0.1:{port}");
        let output = works(&only(protocol, "127.0.0.1", port), ["socat", "-t", time, &peer, &talk]);
        assert_eq!(output.stderr.lines().next(), Some(answer));
        let message = format!("AF=2 127.0.0.1:{port}, 16): Operation not permitted");
        let events = [event(protocol, "127.0.0.1", port, 0)];
        let _ = denied(&no("any"), ["socat", &peer, &talk], 1, &message, &events);
    }
}
