//! The operation `receive`: who connects to the sandbox's listeners, and who sends to its unconnected sockets.

use std::process::Command;

use serde_json::{Value, json};
use support::{Output, PYTHON, Run};

const SHARED: &str = include_str!("../probes/sandbox.py");

fn receive(default: &str, rules: &Value) -> Value {
    let mut rules = rules.as_array().unwrap().clone();
    for rule in &mut rules {
        rule["ops"] = json!(["receive"]);
    }
    if default == "deny" {
        rules.push(json!({"action": "allow", "ops": ["connect", "bind", "send"]}));
    }
    json!({"version": 1, "network": {"default": default, "rules": rules}})
}

/// Serves TCP, MPTCP and UDP inside, on all addresses of this host, while `clients` ask from outside; what they printed.
/// In `clients`, `port` is the port, and `ask()` asks.
fn served(policy: &Value, clients: &str) -> (String, Output) {
    let program = format!(
        "{SHARED}
_, port = serve('tcp6', '::'); serve('udp6', '::', port); _, other = serve('mptcp6', '::')
print(port, other, os.getpid(), flush=True)
sys.stdin.read()"
    );
    let (stdin, hold) = std::io::pipe().unwrap();
    let mut running = Run::python(policy, &program, &[]).stdin(stdin).start();
    running.wait_for("\n");
    let ports = running.stdout();
    let words: Vec<&str> = ports.split_whitespace().collect();
    let source = format!("{SHARED}\nport, other = {}, {}\n{clients}", words[0], words[1]);
    let asked = Command::new(PYTHON).args(["-c", &source]).output().unwrap();
    assert!(asked.status.success(), "{asked:?}");
    drop(hold);
    let output = running.wait().success();
    // What the kernel received is put down to the process that made the socket, not to the one that happened to run.
    for event in output.events() {
        assert_eq!((&event["op"], &event["hook"]), (&json!("receive"), &json!("ingress")), "{event:#}");
        assert_eq!(
            (event["process"]["pid"].to_string(), &event["process"]["comm"]),
            (words[2].to_owned(), &json!("python3"))
        );
    }
    (String::from_utf8(asked.stdout).unwrap(), output)
}

/// Asks each server from two addresses of IPv4's and one of IPv6's.
const EVERYBODY: &str = "
for kind, to, source in [('tcp4', '127.0.0.1', '127.0.0.2'), ('tcp4', '127.0.0.1', '127.0.0.3'), ('tcp6', '::1', '::1')]:
    print(ask(kind, to, port, (), (source, 0)), ask(kind, to, other, (), (source, 0)), end=' ')
    print(ask(kind.replace('tcp', 'udp'), to, port, (), (source, 0)))";

#[test]
fn peers_are_told_apart_by_address() {
    let (yes, no) = ("in in in\n", "timeout timeout timeout\n");
    let table: [(Value, [&str; 3]); 6] = [
        (receive("allow", &json!([{"action": "deny", "hosts": ["127.0.0.2"]}])), [no, yes, yes]),
        (receive("allow", &json!([{"action": "deny", "hosts": ["::1"]}])), [yes, yes, no]),
        (receive("allow", &json!([{"action": "deny", "hosts": ["loopback"]}])), [no, no, no]),
        (receive("deny", &json!([{"action": "allow", "hosts": ["::ffff:127.0.0.2"]}])), [yes, no, no]),
        (receive("deny", &json!([])), [no, no, no]),
        (receive("allow", &json!([])), [yes, yes, yes]),
    ];
    for (policy, expected) in table {
        let (answers, output) = served(&policy, EVERYBODY);
        assert_eq!(answers, expected.concat(), "{policy}");
        let denied = expected.iter().filter(|answer| **answer == no).count();
        assert_eq!(output.events().is_empty(), denied == 0, "{:#}", output.log);
    }
    let (_, output) = served(
        &receive("allow", &json!([{"action": "deny", "hosts": ["127.0.0.2"], "protocols": ["udp"]}])),
        EVERYBODY,
    );
    let [event] = output.events() else { panic!("{:#}", output.log) };
    assert_eq!((&event["network"]["address"], &event["network"]["protocol"]), (&json!("127.0.0.2"), &json!("udp")));
    assert_eq!((&event["rule"], &event["count"]), (&json!("/network/rules/0"), &json!(1)));
}

#[test]
fn and_by_port_and_protocol() {
    const FROM: &str = "
mine = bound('tcp4', '127.0.0.1'); source = mine.getsockname(); mine.close()
print(source[1] >> 15, ask('tcp4', '127.0.0.1', port), ask('udp4', '127.0.0.1', port), ask('udp_to4', '127.0.0.1', port))";
    let table = [
        (json!({"action": "deny", "protocols": ["tcp"]}), "1 timeout in in\n"),
        (json!({"action": "deny", "protocols": ["udp"]}), "1 in timeout timeout\n"),
        // The kernel chooses ports from 32768 on.
        (json!({"action": "deny", "ports": ["32768-65535"]}), "1 timeout timeout timeout\n"),
        (json!({"action": "deny", "ports": ["1-32767"]}), "1 in in in\n"),
    ];
    for (rule, expected) in table {
        assert_eq!(served(&receive("allow", &json!([rule])), FROM).0, expected, "{rule}");
    }
}

#[test]
fn and_by_the_port_at_which_it_arrives() {
    // One server of two, by TCP and UDP, and its clients.
    let program = format!(
        "{SHARED}
_, one = serve('tcp6', '::'); serve('udp6', '::', one); _, two = serve('tcp6', '::'); serve('udp6', '::', two)
print(one, two, flush=True)
sys.stdin.read()"
    );
    let clients = "
for port in map(int, sys.argv[1:]):
    for to, source in [('127.0.0.1', '127.0.0.2'), ('127.0.0.1', '127.0.0.3')]:
        print(ask('tcp4', to, port, (), (source, 0)), ask('udp4', to, port, (), (source, 0)), end=' ')";
    let ask = |ports: &[&str]| {
        let asked = Command::new(PYTHON).args(["-c", &format!("{SHARED}{clients}")]).args(ports).output().unwrap();
        assert!(asked.status.success(), "{asked:?}");
        String::from_utf8(asked.stdout).unwrap()
    };
    // The ports are known only when the servers are there, so that rules on them are those of a second run.
    let free = |count: usize| {
        let sockets: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind("[::]:0").unwrap()).collect();
        sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect::<Vec<u16>>()
    };
    let ports = free(2);
    let program = program.replace("serve('tcp6', '::');", &format!("serve('tcp6', '::', {});", ports[0])).replacen(
        &format!("two = serve('tcp6', '::', {})", ports[0]),
        &format!("two = serve('tcp6', '::', {})", ports[1]),
        1,
    );
    let rules = json!([{"action": "allow", "hosts": ["127.0.0.2"], "local_ports": [ports[0]]}]);
    let (stdin, hold) = std::io::pipe().unwrap();
    let mut running = Run::python(receive("deny", &rules), &program, &[]).stdin(stdin).start();
    running.wait_for("\n");
    let words = running.stdout();
    let words: Vec<&str> = words.split_whitespace().collect();
    assert_eq!(words, ports.iter().map(ToString::to_string).collect::<Vec<_>>());
    let (one, two) = (ask(&words[..1]), ask(&words[1..]));
    drop(hold);
    let output = running.wait().success();
    assert_eq!((one.as_str(), two.as_str()), ("in in timeout timeout ", "timeout timeout timeout timeout "));
    assert!(!output.events().is_empty());
    for event in output.events() {
        let network = &event["network"];
        let at_one = network["local_port"] == ports[0] && network["address"] == "127.0.0.3";
        assert!(at_one || network["local_port"] == ports[1], "{event:#}");
        assert_ne!(network["port"], network["local_port"]);
    }
}

#[test]
fn answers_to_what_the_sandbox_began_need_no_permission() {
    // Of a connection, and of a connected UDP socket; one that is not connected receives from whomever it may.
    let (tcp, udp) = (support::TcpServer::start("127.0.0.1"), support::UdpServer::start("127.0.0.1"));
    let program = format!(
        "{SHARED}
tcp, udp = map(int, sys.argv[1:])
with socket.create_connection(('127.0.0.1', tcp)) as sock:
    sock.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(bool(sock.recv(100)))
print(ask('udp4', '127.0.0.1', udp), ask('udp_to4', '127.0.0.1', udp))"
    );
    let ports = [tcp.port().to_string(), udp.port().to_string()];
    let run = Run::python(receive("deny", &json!([])), &program, &[&ports[0], &ports[1]]);
    assert_eq!(run.bare().success().stdout, "True\nquestion question\n");
    let output = run.output().success();
    assert_eq!(output.stdout, "True\nquestion timeout\n");
    let [event] = output.events() else { panic!("{:#}", output.log) };
    assert_eq!((&event["op"], &event["network"]["port"]), (&json!("receive"), &json!(udp.port())));
}

#[test]
fn audit_mode_receives_and_records() {
    let mut policy = receive("deny", &json!([]));
    policy["mode"] = json!("audit");
    let (answers, output) = served(&policy, EVERYBODY);
    assert_eq!(answers, "in in in\n".repeat(3));
    assert!(output.events().iter().all(|event| event["verdict"] == "audited") && output.sum("audited") >= 9);
}
