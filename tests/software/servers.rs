//! Servers that others wrote, under policies.

use std::fs;

use serde_json::{Value, json};
use support::{Output, Run, Running, TcpServer, Transport, denials, fresh_address, is_bound, nginx};

/// Fetches a page without a guard, but through no proxy.
fn curl(url: &str) -> Output {
    Run::new("", ["curl", "-sS", "--noproxy", "*", "--max-time", "30", url]).bare()
}

/// Starts a server without the guard, and then under a policy. `ready` waits until clients can come, and says where;
/// `visit` is what they get there, which is the same for both. Returns what came out of the one under the policy, after
/// SIGTERM.
fn serve<P>(run: &Run, ready: impl Fn(&mut Running) -> P, visit: impl Fn(P) -> String) -> Output {
    let session = |mut running: Running| {
        let got = visit(ready(&mut running));
        running.signal(libc::SIGTERM);
        (got, running.wait())
    };
    let (control, _) = session(run.start_bare());
    let (got, output) = session(run.start());
    assert_eq!(got, control);
    support::assert_no_leaf(output.pid);
    output
}

/// Waits until a server is bound to an address.
fn bound(transport: Transport, address: &str, port: u16) -> impl Fn(&mut Running) {
    move |running| running.wait_until("it is bound", |_| is_bound(transport, address, port))
}

/// A policy under which servers serve, but may connect to nobody.
fn no_connections() -> Value {
    json!({"version": 1, "network": {"default": "allow", "rules": [{"action": "deny", "ops": ["connect"]}]}})
}

#[test]
fn python_serves_files_though_it_may_connect_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("page"), "hello\n").unwrap();
    let path = folder.path().to_str().unwrap();
    // It looks up the name of its address, which for 127.0.0.1 is in /etc/hosts.
    let options = ["--bind", "127.0.0.1", "--directory", path, "0"];
    let run = Run::new(no_connections(), [&[support::PYTHON, "-u", "-m", "http.server"][..], &options].concat());
    let url = |running: &mut Running| {
        // Serving HTTP on 127.0.0.1 port 8000 (http://127.0.0.1:8000/) ...
        running.wait_for("\n");
        let line = running.stdout();
        line.split(['(', ')']).nth(1).unwrap().to_owned()
    };
    let output = serve(&run, url, |url| curl(&format!("{url}page")).success().stdout + &curl(&url).success().stdout);
    assert_eq!(output.code(), Some(128 + libc::SIGTERM));
    assert_eq!((output.denied(), denials(&output)), (0, Vec::new()));
}

#[test]
fn socketservers_answer_many_clients() {
    const PROGRAM: &str = "import socketserver, sys
class Stream(socketserver.StreamRequestHandler):
    def handle(self): self.wfile.write(self.rfile.readline().upper())
class Datagram(socketserver.DatagramRequestHandler):
    def handle(self): self.wfile.write(self.rfile.readline().upper())
socketserver.TCPServer.allow_reuse_address = True
kind, address = sys.argv[1:]
server = socketserver.ForkingTCPServer if kind == 'tcp' else socketserver.ThreadingUDPServer
server((address, 7), Stream if kind == 'tcp' else Datagram).serve_forever()";
    // bash as a client, five times.
    let talk = "for i in 1 2 3 4 5; do exec 3<>/dev/$1/$2/7; echo hello $i >&3; head -n 1 <&3; done";
    for (kind, transport) in [("tcp", Transport::Tcp), ("udp", Transport::Udp)] {
        let address = fresh_address();
        let run = Run::python(no_connections(), PROGRAM, &[kind, &address]);
        let output = serve(&run, bound(transport, &address, 7), |()| {
            Run::shell("", talk, &[kind, &address]).bare().success().stdout
        });
        assert_eq!((output.denied(), denials(&output)), (0, Vec::new()));
    }
}

#[test]
fn nginx_serves_and_asks_only_the_upstream_that_it_may() {
    let (folder, address, upstream) = (tempfile::tempdir().unwrap(), fresh_address(), TcpServer::start("127.0.0.1"));
    let command = nginx(folder.path(), &address, Some(upstream.address()));
    let allowed = json!({"version": 1, "network": {"default": "allow", "rules": [
        {"action": "allow", "ops": ["connect"], "hosts": ["127.0.0.1"], "ports": [upstream.port()]},
        {"action": "deny", "ops": ["connect"]}
    ]}});
    let (own, other) = (format!("http://{address}:8080/"), format!("http://{address}:8080/upstream/"));
    let output = serve(&Run::new(&allowed, &command), bound(Transport::Tcp, &address, 8080), |()| {
        curl(&own).success().stdout + &curl(&other).success().stdout
    });
    assert_eq!((output.success().stdout.as_str(), upstream.accepted()), ("", 2));

    let mut running = Run::new(no_connections(), &command).start();
    bound(Transport::Tcp, &address, 8080)(&mut running);
    assert_eq!(curl(&own).success().stdout, "hello\n");
    assert!(curl(&other).success().stdout.contains("502 Bad Gateway"));
    running.signal(libc::SIGTERM);
    let output = running.wait().success();
    let message = format!("connect() to 127.0.0.1:{} failed (1: Operation not permitted)", upstream.port());
    assert!(output.stderr.contains(&message), "{output:#?}");
    let network = json!({"address": "127.0.0.1", "port": upstream.port(), "protocol": "tcp", "host": null});
    let event =
        json!({"op": "connect", "verdict": "denied", "network": network, "rule": "/network/rules/0", "count": 1});
    assert_eq!((denials(&output), output.events()[0]["process"]["comm"].as_str()), (vec![event], Some("nginx")));
    assert_eq!(upstream.accepted(), 2);
}
