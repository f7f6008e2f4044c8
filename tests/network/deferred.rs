//! A connect(2) by UDP that the policy denies is no denial before something is sent: so programs may sort addresses, and nothing gets out.

use serde_json::{Value, json};
use support::{Output, Run, UdpServer};

const PROBE: &str = include_str!("../probes/deferred.py");

/// The servers of tests/probes/deferred.py: denied and allowed by IPv4, then by IPv6.
struct Servers([UdpServer; 4]);

impl Servers {
    fn start() -> Self {
        Self(["127.0.0.2", "127.0.0.1", "::1", "::1"].map(UdpServer::start))
    }

    fn ports(&self) -> [u16; 4] {
        self.0.each_ref().map(UdpServer::port)
    }

    /// How many datagrams the denied ones have heard.
    fn heard(&self) -> usize {
        self.0[0].received() + self.0[2].received()
    }

    fn run(&self, policy: &Value, what: &str) -> Run {
        let ports = self.ports().map(|port| port.to_string());
        let [a, b, c, d] = ports.each_ref().map(String::as_str);
        Run::python(policy, PROBE, &[a, b, c, d, what])
    }

    /// Policies by which the one pair is denied and the other allowed, for each of the programs by which that is done: what tells
    /// them apart, and the policy.
    fn policies(&self) -> [(&'static str, Value); 6] {
        let [denied, allowed, denied6, allowed6] = self.ports();
        let network = |network: Value| json!({"version": 1, "network": network});
        let deny = |rule: Value| network(json!({"default": "allow", "rules": [rule]}));
        let ports = json!([denied, denied6]);
        let rest = json!([
            {"action": "allow", "ops": ["bind", "receive"]},
            {"action": "allow", "protocols": ["udp"], "ports": [allowed, allowed6]},
        ]);
        let web = json!({"action": "allow", "hosts": ["example.org"], "protocols": ["tcp"], "ports": [443]});
        let names = [rest.as_array().unwrap().as_slice(), &[web]].concat();
        let mut flows = network(json!({"default": "deny", "rules": rest}));
        flows["record"] = json!("flows");
        [
            ("hosts", deny(json!({"action": "deny", "hosts": ["127.0.0.2", "::1"], "ports": ports}))),
            ("ports", deny(json!({"action": "deny", "ports": ports}))),
            ("connects", deny(json!({"action": "deny", "ops": ["connect"], "ports": ports}))),
            ("default", network(json!({"default": "deny", "rules": rest}))),
            ("flows", flows),
            ("names", network(json!({"default": "deny", "nameservers": ["192.0.2.53"], "rules": names}))),
        ]
    }
}

#[test]
fn what_a_socket_sends_is_refused_and_counted_whichever_way_it_is_sent() {
    let servers = Servers::start();
    for (name, policy) in servers.policies() {
        let before = servers.heard();
        let run = servers.run(&policy, "ways");
        let bare = run.bare().success().stdout;
        let ways = bare.lines().count();
        assert_eq!(servers.heard() - before, ways, "{name}: {bare}");
        assert!(ways > 20 && bare.lines().all(|line| line.ends_with(": ok")), "{bare}");

        let guarded = run.output().success();
        assert_eq!(servers.heard() - before, ways, "{name}: something got out: {}", guarded.stdout);
        let refused = |line: &str| line.ends_with(": EPERM") || line == "cork: ok";
        assert!(guarded.stdout.lines().all(refused), "{name}: {}", guarded.stdout);
        assert_eq!(guarded.denied(), u64::try_from(ways).unwrap(), "{name}: {:#}", guarded.log);
        let [denied, _, denied6, _] = servers.ports();
        let rule = if policy["network"]["default"] == "allow" { "/network/rules/0" } else { "default" };
        for event in guarded.events() {
            let (network, op) = (&event["network"], &event["op"]);
            let peer = if network["address"] == "::1" { denied6 } else { denied };
            assert!(network["address"] == "::1" || network["address"] == "127.0.0.2", "{name}: {event:#}");
            assert_eq!(op, "connect", "{name}: {event:#}");
            assert_eq!(&network["port"], &json!(peer), "{name}: {event:#}");
            assert_eq!((&event["rule"], &event["process"]["comm"]), (&json!(rule), &json!("python3")), "{event:#}");
        }
    }
}

#[test]
fn a_socket_sends_nothing_any_more_and_tells_its_address() {
    let servers = Servers::start();
    for (name, policy) in servers.policies() {
        let run = servers.run(&policy, "afterwards");
        let (bare, guarded) = (run.bare().success(), run.output().success());
        assert!(!bare.stdout.contains(": E"), "{}", bare.stdout);
        assert!(guarded.stdout.lines().all(|line| line.ends_with(": EPERM")), "{name}: {}", guarded.stdout);
        assert_eq!(guarded.denied(), u64::try_from(bare.stdout.lines().count()).unwrap(), "{name}: {:#}", guarded.log);
        assert!(guarded.events().iter().all(|event| event["op"] == "connect"), "{name}: {:#}", guarded.log);

        let run = servers.run(&policy, "uses").flags(["--fail-on-deny"]);
        let (bare, guarded) = (run.bare().success(), run.output().success());
        assert_eq!(guarded.stdout, bare.stdout, "{name}");
        assert_eq!((guarded.events(), guarded.denied()), (&[][..], 0), "{name}: {:#}", guarded.log);
    }
    assert_eq!(servers.heard(), 0);
}

/// Where denials are only recorded, what is sent arrives, and what isn't sent is no event: programs are learnt from that.
#[test]
fn audit_mode_records_what_is_sent() {
    let servers = Servers::start();
    for (name, mut policy) in servers.policies() {
        policy["mode"] = json!("audit");
        let before = servers.heard();
        let uses = servers.run(&policy, "uses").output().success();
        assert_eq!((uses.events(), servers.heard()), (&[][..], before), "{name}: {:#}", uses.log);
        let ways = servers.run(&policy, "ways").output().success();
        let count = ways.stdout.lines().count();
        assert!(ways.stdout.lines().all(|line| line.ends_with(": ok")), "{}", ways.stdout);
        assert_eq!(servers.heard() - before, count, "{name}");
        // Answers come in, too, which is an event of its own.
        let sent = ways.events().iter().filter(|event| event["hook"] != "ingress");
        let counts: u64 = sent.map(|event| event["count"].as_u64().unwrap()).sum();
        // What IPv6 sockets send to IPv4 addresses is counted where it is named, and two that were kept back are not.
        let count = u64::try_from(count).unwrap();
        assert!(counts <= count && counts >= count - 2, "{name} {count} {counts}: {:#?}", ways.events());
    }
}

/// In a network namespace in which addresses of both families have ways out, and others have none.
const SORTING: &str = "ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up; \
    ip addr add 10.9.0.1/24 dev v0; ip -6 addr add fd09::1/64 dev v0 nodad; mount --bind \"$1\" /etc/hosts; shift; exec \"$@\"";

const HOSTS: &str = "::1 localhost\n127.0.0.1 localhost\n10.9.0.2 both\nfd09::2 both\n2001:db8::2 four\n10.9.0.2 four\n\
    192.0.2.2 six\nfd09::2 six\n127.0.0.2 far\n198.51.100.1 far\n";

#[test]
fn getaddrinfo_sorts_as_ever_and_nothing_is_denied() {
    const PROGRAM: &str = "
import socket, subprocess
for name in 'localhost both four six far'.split():
    for port in (None, 443):
        print(name, port, [each[4][0] for each in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)])
    print(subprocess.run(['getent', 'ahosts', name], capture_output=True, text=True, check=True).stdout)";
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, HOSTS).unwrap();
    let through = ["unshare", "--mount", "--net", "sh", "-c", SORTING, "sh", hosts.to_str().unwrap()];
    let rules = |rules: Value| json!({"version": 1, "network": {"default": "deny", "rules": rules}});
    let tcp = json!({"action": "allow", "protocols": ["tcp"], "ports": [443]});
    let policies = [
        rules(json!([tcp])),
        rules(json!([tcp, {"action": "allow", "hosts": ["10.0.0.0/8"], "protocols": ["udp"], "ports": [53]}])),
        rules(json!([tcp, {"action": "allow", "hosts": ["sandbox"]}])),
    ];
    for policy in policies {
        let run = Run::python(&policy, PROGRAM, &[]).through(through).flags(["--fail-on-deny"]);
        let (bare, guarded): (Output, Output) = (run.bare().success(), run.output().success());
        let first = |name: &str, address: &str| {
            let line = format!("{name} 443 ['{address}'");
            assert!(bare.stdout.contains(&line), "{line}: {}", bare.stdout);
        };
        first("localhost", "::1");
        first("four", "10.9.0.2");
        first("six", "fd09::2");
        assert_eq!(guarded.stdout, bare.stdout);
        assert_eq!((guarded.events(), guarded.denied()), (&[][..], 0), "{:#}", guarded.log);
    }
}

#[test]
fn nothing_gets_out_while_another_thread_connects_elsewhere() {
    const PROGRAM: &str = "
import ctypes, os, socket, sys, threading
LIBC = ctypes.CDLL(None)
def address(host, port):
    return socket.AF_INET.to_bytes(2, 'little') + port.to_bytes(2, 'big') + socket.inet_aton(host) + bytes(8)
denied, allowed = [address(*peer) for peer in (('127.0.0.2', int(sys.argv[1])), ('127.0.0.1', int(sys.argv[2])))]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if os.fork() == 0:
    for _ in range(20_000):
        LIBC.connect(sock.fileno(), denied, 16)
        LIBC.connect(sock.fileno(), allowed, 16)
    os._exit(0)
sent = 0
while os.waitpid(-1, os.WNOHANG) == (0, 0):
    sent += LIBC.send(sock.fileno(), b'x', 1, 0) == 1
print(sent)";
    let servers = Servers::start();
    let [denied, allowed, ..] = servers.ports().map(|port| port.to_string());
    for (name, policy) in servers.policies() {
        let run = Run::python(&policy, PROGRAM, &[&denied, &allowed]);
        let before = servers.heard();
        let _ = run.bare().success();
        let after = servers.heard();
        assert!(after > before, "nobody tried");
        let guarded = run.output().success();
        assert_eq!(servers.heard(), after, "{name}");
        assert!(guarded.denied() > 0, "{name}");
    }
}
