//! What a packet says of its source, where the socket was told that, or took it from a connect(2) that failed: it proves nothing about where the packet
//! goes. In network namespaces of their own, with somebody outside the sandbox who serves at all of this host's addresses.

use serde_json::{Value, json};

use crate::{
    beside::both,
    home::{HEARING, SERVER, end},
    network,
};

/// What may be sent to another host by UDP, and nothing else.
fn elsewhere() -> Value {
    json!({"action": "allow", "ops": ["connect"], "protocols": ["udp"], "hosts": ["10.9.0.10"], "ports": [5300]})
}

/// A connect(2) that fails has put the source that the socket is bound to, and the peer, into a datagram that waits for more, and left it its route.
#[test]
fn a_socket_that_was_told_its_source_sends_nobody_home_what_is_for_others() {
    let inside = format!(
        "{HEARING}
import ctypes
PEER, FREEBIND, CORK = '10.9.0.10', 15, 1
def attempts(does):
    try: does()
    except OSError as error: return errno.errorcode[error.errno]
    return 'done'
def home(text, family, peer):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
    sock.connect((peer, 5300))
    sock.send(text.encode(), socket.MSG_MORE)
    ctypes.CDLL(None).connect(sock.fileno(), bytes(16), 16)
    sock.setsockopt(0, FREEBIND, 1)
    sock.bind((peer, 0))
    attempts(lambda: sock.connect((peer, 5300)))
    attempts(lambda: sock.setsockopt(socket.IPPROTO_UDP, CORK, 0))
    print(text, said(text))
home('home', 2, PEER)
home('mapped', 10, '::ffff:' + PEER)"
    );
    for binds in [json!({"action": "allow", "ops": ["bind"]}), json!({"action": "deny", "ops": ["receive"]})] {
        let policy = network(
            if binds["action"] == "deny" { "allow" } else { "deny" },
            &json!([
                end(),
                elsewhere(),
                binds,
                {"action": "deny", "ops": ["connect", "send"]},
            ]),
        );
        let (bare, guarded) = both(&policy, SERVER, &inside);
        assert_eq!((&*bare, &*guarded.stdout), ("home True\nmapped True\n", "home False\nmapped False\n"));
        let events: Vec<_> = guarded.events().iter().map(|event| (&event["hook"], &event["rule"])).collect();
        assert_eq!(events, [(&json!("egress"), &json!("fail-closed"))], "{:#}", guarded.log);
        assert_eq!(guarded.denied(), 2, "{:#}", guarded.log);
    }
}

/// An address of this host's that it shares with others (anycast) is one that no socket is given as its source.
#[test]
fn a_shared_address_of_this_host_is_judged_as_loopback_too() {
    let rules = json!([
        end(),
        {"action": "deny", "hosts": ["fd00::1"]},
        {"action": "allow", "ops": ["connect"], "protocols": ["udp"], "hosts": ["fd00::/64"], "ports": [5300]},
        {"action": "allow", "ops": ["bind"]},
    ]);
    let inside = format!(
        "{HEARING}
FREEBIND, PKTINFO, SHARED = 78, 50, 'fd00::'
def new():
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(41, FREEBIND, 1)
    return sock
sock = new()
sock.bind((SHARED, 0))
sock.connect((SHARED, 5300))
print(attempt(lambda: sock.send(b'shared')), said('shared'))
# A control message tells a source, too.
sock = new()
sock.connect((SHARED, 5300))
told = [(41, PKTINFO, socket.inet_pton(10, SHARED) + bytes(4))]
print(attempt(lambda: sock.sendmsg([b'told'], told)), said('told'))"
    );
    let forwarding = "open('/proc/sys/net/ipv6/conf/all/forwarding', 'w').write('1')";
    let (bare, guarded) = both(&network("deny", &rules), &format!("{forwarding}\n{SERVER}"), &inside);
    assert_eq!((&*bare, &*guarded.stdout), ("done True\ndone True\n", "EPERM False\nEPERM False\n"));
}

/// A transparent server takes connections to any address, and answers from it.
#[test]
fn a_connection_by_the_loopback_device_is_judged_as_that() {
    const TRANSPARENT: &str = "
import os
TRANSPARENT = 19
server = socket.socket()
server.setsockopt(0, TRANSPARENT, 1)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(('0.0.0.0', 5300)); server.listen()
open(os.environ['HEARD'], 'w').write('ready')
while True:
    connection, _ = server.accept()
    connection.sendall(b'hello'); connection.close()";
    let rules = |more: &[&str]| {
        let hosts = [&["10.9.0.10", "10.9.0.1"], more].concat();
        json!([
            {"action": "allow", "ops": ["connect"], "protocols": ["tcp"], "hosts": hosts, "ports": [5300]},
            {"action": "allow", "ops": ["bind"]},
        ])
    };
    let inside = format!(
        "{HEARING}
def asked(peer, device=None, source=None):
    # The kernel tells nobody that what asks for a connection has been refused, and asks again.
    sock = socket.socket(); sock.settimeout(1 if device else 30)
    if device: sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    if source: sock.bind((source, 0))
    try: sock.connect((peer, 5300))
    except TimeoutError: return 'nothing'
    return sock.recv(9).decode()
print(asked('10.9.0.10', b'lo', '127.0.0.1'), asked('10.9.0.1'))"
    );
    let (bare, guarded) = both(&network("deny", &rules(&[])), TRANSPARENT, &inside);
    assert_eq!((&*bare, &*guarded.stdout), ("hello hello\n", "nothing hello\n"), "{:#}", guarded.log);
    let [event] = guarded.events() else { panic!("{:#}", guarded.log) };
    assert_eq!((&event["hook"], &event["rule"]), (&json!("egress"), &json!("fail-closed")), "{event:#}");
    let (_, guarded) = both(&network("deny", &rules(&["127.0.0.0/8"])), TRANSPARENT, &inside);
    assert_eq!(guarded.stdout, bare);
}

/// A connect(2) that a hook has let through may not be done yet when another thread has the socket broadcast.
#[test]
fn a_socket_that_has_had_several_peers_does_not_broadcast() {
    let rules = json!([
        end(),
        elsewhere(),
        {"action": "allow", "ops": ["connect", "send"], "protocols": ["udp"], "hosts": ["10.9.0.255"], "ports": [5301]},
    ]);
    let inside = format!(
        "{HEARING}
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
# This needs SO_BROADCAST, but the hooks have been asked.
try: sock.connect(('10.9.0.255', 5301)); print('connected')
except PermissionError as error: print(errno.errorcode[error.errno])
sock.connect(('10.9.0.10', 5300))
print(attempt(lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)))
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.connect(('10.9.0.10', 5300))
print(attempt(lambda: one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)))"
    );
    let (bare, guarded) = both(&network("deny", &rules), SERVER, &inside);
    assert_eq!((&*bare, &*guarded.stdout), ("EACCES\ndone\ndone\n", "EACCES\nEPERM\ndone\n"), "{:#}", guarded.log);
}

/// A query to a nameserver that leads home comes to anybody here who serves at that port.
#[test]
fn what_is_for_a_nameserver_elsewhere_leads_nobody_home() {
    let mut policy = network(
        "deny",
        &json!([
            end(),
            {"action": "allow", "ops": ["connect", "send"], "protocols": ["udp"], "hosts": ["127.0.0.1"], "ports": [5301]},
            {"action": "allow", "ops": ["connect"], "hosts": ["example.org"]},
        ]),
    );
    policy["network"]["nameservers"] = json!(["10.9.0.10", "10.9.0.1"]);
    policy["network"]["queries"] = json!("any");
    let inside = format!(
        "{HEARING}
CORK = 1
def by_device():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
    sock.connect(('10.9.0.10', 53)); sock.send(b'device')
def by_route():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(('127.0.0.1', 5301)); sock.send(b'route', socket.MSG_MORE)
    try: sock.connect(('10.9.0.10', 53))
    except OSError as error: assert error.errno == errno.EINVAL, error
    sock.setsockopt(socket.IPPROTO_UDP, CORK, 0)
def own():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(('10.9.0.1', 53)); sock.send(b'own')
for way, text in ((by_device, 'device'), (by_route, 'route'), (own, 'own')):
    attempt(way)
    print(text, said(text))"
    );
    let server = SERVER.replace("5300", "53");
    let (bare, guarded) = both(&policy, &server, &inside);
    assert_eq!(bare, "device True\nroute True\nown True\n");
    assert_eq!(guarded.stdout, "device False\nroute False\nown True\n", "{:#}", guarded.log);
    assert_eq!(guarded.denied(), 2, "{:#}", guarded.log);
}
