//! Servers that others wrote, where a policy says which addresses and ports they may take, whom they may serve, and whom
//! they may send datagrams to.

use serde_json::{Value, json};
use support::{
    Output, PYTHON, Run, TcpServer, Transport, UdpServer, denials, denied, fresh_address, is_bound, nginx, works,
};

/// A network section of these rules that denies everything else by the same operations.
fn only(ops: &[&str], rules: &[Value]) -> Value {
    let mut rules = rules.to_vec();
    rules.push(json!({"action": "deny", "ops": ops}));
    json!({"version": 1, "network": {"default": "allow", "rules": rules}})
}

/// The event of a request that is denied once.
fn event(op: &str, protocol: &str, address: &str, port: u16, rule: u32) -> Value {
    let network = json!({"address": address, "port": port, "protocol": protocol, "host": null});
    json!({"op": op, "verdict": "denied", "network": network, "rule": format!("/network/rules/{rule}"), "count": 1})
}

/// Fetches a page from a port of its own, without a guard.
fn curl(url: &str, from: &str, port: u16, seconds: &str) -> Output {
    let local = port.to_string();
    let options = ["--interface", from, "--local-port", &local, "--max-time", seconds];
    Run::new("", [&["curl", "-sS", "--noproxy", "*"][..], &options, &[url]].concat()).bare()
}

#[test]
fn nginx_takes_the_port_that_it_may_and_no_other() {
    let (folder, address) = (tempfile::tempdir().unwrap(), fresh_address());
    let command = nginx(folder.path(), &address, None);
    let url = format!("http://{address}:8080/");
    let port = |port: u16| json!({"action": "allow", "ops": ["bind"], "hosts": [address], "ports": [port]});

    let mut running = Run::new(only(&["bind"], &[port(8080)]), &command).start();
    running.wait_until("it listens", |_| is_bound(Transport::Tcp, &address, 8080));
    assert_eq!(curl(&url, "127.0.0.1", 0, "30").success().stdout, "hello\n");
    running.signal(libc::SIGTERM);
    let output = running.wait().success();
    assert_eq!((output.denied(), denials(&output)), (0, Vec::new()));

    let message = format!("bind() to {address}:8080 failed (1: Operation not permitted)");
    let _ = denied(&only(&["bind"], &[port(8081)]), command, 1, &message, &[event("bind", "tcp", &address, 8080, 1)]);
}

#[test]
fn nginx_serves_only_those_that_it_may() {
    let (folder, address) = (tempfile::tempdir().unwrap(), fresh_address());
    let (friend, stranger) = (fresh_address(), fresh_address());
    let url = format!("http://{address}:8080/");
    let rule = json!({"action": "allow", "ops": ["receive"], "hosts": [friend], "local_ports": [8080]});
    let policy = only(&["receive"], &[rule]);
    let mut running = Run::new(&policy, nginx(folder.path(), &address, None)).start();
    running.wait_until("it listens", |_| is_bound(Transport::Tcp, &address, 8080));
    assert_eq!(curl(&url, &friend, 40000, "30").success().stdout, "hello\n");
    // Nobody answers: the client tries, and tries again.
    let output = curl(&url, &stranger, 40000, "3").exits(28);
    assert!(output.stderr.contains("curl: (28)"), "{output:#?}");
    assert_eq!(curl(&url, &friend, 40001, "30").success().stdout, "hello\n");
    running.signal(libc::SIGTERM);
    let output = running.wait().success();
    let [got] = &denials(&output)[..] else { panic!("{:#}", output.log) };
    let times = got["count"].as_u64().unwrap();
    let mut expected = event("receive", "tcp", &stranger, 40000, 1);
    expected["count"] = times.into();
    expected["network"]["local_port"] = 8080.into();
    assert_eq!((got, output.denied()), (&expected, times));
    assert!(times >= 1);
}

#[test]
fn python_takes_no_port_that_it_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let command = |port| [PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "--directory", path, port];
    // Where the kernel chooses the port, it may.
    let rule = json!({"action": "allow", "ops": ["bind"], "hosts": ["loopback"], "ports": ["ephemeral"]});
    let policy = only(&["bind"], &[rule]);
    let mut running = Run::new(&policy, [&["env", "PYTHONUNBUFFERED=1"][..], &command("0")].concat()).start();
    running.wait_for("Serving HTTP on 127.0.0.1");
    running.signal(libc::SIGTERM);
    let output = running.wait();
    assert_eq!((output.denied(), denials(&output)), (0, Vec::new()));
    let message = "PermissionError: [Errno 1] Operation not permitted";
    let _ = denied(&policy, command("8080"), 1, message, &[event("bind", "tcp", "127.0.0.1", 8080, 1)]);
}

#[test]
fn socat_sends_datagrams_to_those_that_it_may() {
    let (friend, stranger) = (UdpServer::start("127.0.0.1"), UdpServer::start("127.0.0.1"));
    let rule = json!({"action": "allow", "ops": ["send"], "hosts": ["127.0.0.1"], "ports": [friend.port()]});
    let policy = only(&["send"], &[rule]);
    // Not connected: each datagram names its peer.
    let send = |port: u16| {
        let peer = format!("UDP4-SENDTO:127.0.0.1:{port}");
        ["socat".to_owned(), "-u".to_owned(), "EXEC:echo hello".to_owned(), peer]
    };
    let _ = works(&policy, send(friend.port()));
    assert_eq!(friend.received(), 2);
    let control = Run::new("", send(stranger.port())).bare().success();
    assert_eq!((control.stderr.as_str(), stranger.received()), ("", 1));
    let events = [event("send", "udp", "127.0.0.1", stranger.port(), 1)];
    let _ = denied(&policy, send(stranger.port()), 1, "Operation not permitted", &events);
    assert_eq!(stranger.received(), 1);
}

#[test]
fn only_servers_of_the_same_sandbox_can_be_reached() {
    const PROGRAM: &str = "import subprocess, sys
command = [sys.executable, '-u', '-m', 'http.server', '--bind', '127.0.0.1', '--directory', sys.argv[1], '0']
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
    own = server.stdout.readline().split('(')[1].split(')')[0]
    for url in own + 'page', sys.argv[2]:
        print(subprocess.run(['curl', '-sS', '--noproxy', '*', url]).returncode, flush=True)
    server.kill()";
    let (folder, other) = (tempfile::tempdir().unwrap(), TcpServer::start("127.0.0.1"));
    std::fs::write(folder.path().join("page"), "hello\n").unwrap();
    let rule = json!({"action": "allow", "ops": ["connect"], "hosts": ["sandbox"]});
    let policy = only(&["connect"], &[rule]);
    let run = Run::python(&policy, PROGRAM, &[folder.path().to_str().unwrap(), &other.url()]);
    assert_eq!(run.bare().success().stdout, "hello\n0\nok\n0\n");
    let output = run.output().success();
    assert_eq!(output.stdout, "hello\n0\n7\n");
    assert_eq!(denials(&output), [event("connect", "tcp", "127.0.0.1", other.port(), 1)]);
    assert_eq!(other.accepted(), 1);
}
