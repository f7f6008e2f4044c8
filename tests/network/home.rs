//! What stays on this host although its header says that it goes to another: by a device or a route that a socket has, or as a copy. In network
//! namespaces of their own, with somebody outside the sandbox who serves at all of this host's addresses.

use serde_json::{Value, json};

use crate::{
    beside::{ROUTER, both},
    network,
};

/// Somebody outside with UDP servers for all of this host's addresses, who says what they have heard.
pub const SERVER: &str = "
import os, select
served = [socket.socket(family, socket.SOCK_DGRAM) for family in (2, 2, 10)]
served[2].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
served[0].bind(('127.0.0.1', 5299))
for server, any in zip(served[1:], ('0.0.0.0', '::')): server.bind((any, 5300))
with open(os.environ['HEARD'], 'w') as heard:
    print('ready', file=heard, flush=True)
    while True:
        for ready in select.select(served, [], [])[0]: print(ready.recv(99).decode(), file=heard, flush=True)
";

/// What that server has heard once it says so of something that comes to it anyway.
pub const HEARING: &str = "
import errno, os, socket, struct, time
def heard(): return open(os.environ['HEARD']).read().split()
while 'ready' not in heard(): time.sleep(0.01)
def said(text):
    # As somebody who was there before: the end is allowed.
    end = f'after-{text}'
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(end.encode(), ('127.0.0.1', 5299))
    while end not in heard(): time.sleep(0.01)
    return text in heard()
def attempt(does):
    try: does()
    except PermissionError: return 'EPERM'
    return 'done'
";

/// A rule that lets a program tell the server that it is at its end.
pub fn end() -> Value {
    json!({"action": "allow", "ops": ["send"], "protocols": ["udp"], "hosts": ["127.0.0.1"], "ports": [5299]})
}

/// The kernel keeps the route of a datagram that waits for more, and puts the next peer into its header: so it comes to this host, to a port of
/// anybody's, with an allowed header.
#[test]
fn a_route_that_is_kept_leads_nobody_home() {
    let mut policy = network(
        "deny",
        &json!([
            end(),
            {"action": "allow", "ops": ["connect", "send"], "protocols": ["udp"], "hosts": ["127.0.0.1"], "ports": [5301]},
            {"action": "allow", "ops": ["connect", "send"], "protocols": ["udp"], "hosts": ["10.9.0.10"], "ports": [5300]},
        ]),
    );
    let holds = |policy: &Value, first: u16| {
        let inside = format!(
            "{HEARING}
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(('127.0.0.1', {first}))
sock.send(b'home', socket.MSG_MORE)
# From 127.0.0.1, there is no way there; the peer is noted all the same.
try: sock.connect(('10.9.0.10', 5300))
except OSError as error: assert error.errno == errno.EINVAL, error
CORK = 1
try: sock.setsockopt(socket.IPPROTO_UDP, CORK, 0)
except PermissionError: pass
print(said('home'))"
        );
        let (bare, guarded) = both(policy, SERVER, &inside);
        assert_eq!((&*bare, &*guarded.stdout), ("True\n", "False\n"), "{first}");
        let [event] = guarded.events() else { panic!("{:#}", guarded.log) };
        assert_eq!((&event["rule"], &event["hook"]), (&json!("fail-closed"), &json!("egress")), "{event:#}");
    };
    holds(&policy, 5301);
    // A nameserver is a peer, too, whether or not a rule is about it.
    policy["network"]["nameservers"] = json!(["127.0.0.1"]);
    policy["network"]["queries"] = json!("any");
    policy["network"]["rules"]
        .as_array_mut()
        .unwrap()
        .push(json!({"action": "allow", "ops": ["connect"], "hosts": ["example.org"]}));
    holds(&policy, 53);
}

/// IPv4 hands this host a copy of what goes to a group or as a broadcast, and no hook sees the copy. What waits for more takes the address of the next
/// peer, and so would the copy, to a port of this host's.
#[test]
fn what_is_sent_to_several_gets_no_other_peer() {
    let rules = json!([
        end(),
        {"action": "allow", "ops": ["connect", "send"], "protocols": ["udp"], "hosts": ["224.0.0.1", "10.9.0.255"], "ports": [5301]},
        {"action": "allow", "ops": ["connect", "send"], "protocols": ["udp"], "hosts": ["10.9.0.10"], "ports": [5300]},
    ]);
    let inside = format!(
        "{HEARING}
CORK, PEER, MORE = 1, ('10.9.0.10', 5300), socket.MSG_MORE
def new(text, several):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if several[0] == '10.9.0.255': sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return sock, text.encode()
def named(text, several):
    sock, data = new(text, several)
    sock.sendto(data, MORE, several)
    return sock, attempt(lambda: sock.connect(PEER))
def connected(text, several):
    sock, data = new(text, several)
    sock.connect(several)
    sock.send(data, MORE)
    return sock, attempt(lambda: sock.connect(PEER))
def before(text, several):
    sock, data = new(text, several)
    sock.connect(PEER)
    return sock, attempt(lambda: sock.sendto(data, MORE, several) and sock.connect(PEER))
for way in (named, connected, before):
    for several in (('224.0.0.1', 5301), ('10.9.0.255', 5301)):
        text = way.__name__ + several[0]
        sock, came = way(text, several)
        try: sock.setsockopt(socket.IPPROTO_UDP, CORK, 0)
        except PermissionError: pass
        print(way.__name__, several[0], came, said(text))
# What has one peer, or none, may go on.
sock, data = new('', ('10.9.0.255', 0))
sock.connect(PEER); sock.send(b'x'); sock.sendto(b'x', PEER)
sock, data = new('', ('10.9.0.255', 0))
for peer in (('10.9.0.255', 5301), ('224.0.0.1', 5301), PEER, ('224.0.0.1', 5301)): sock.sendto(b'x', peer)"
    );
    let (bare, guarded) = both(&network("deny", &rules), SERVER, &inside);
    let lines = |came: &str, heard: &str| {
        let ways =
            ["named", "connected", "before"].map(|way| ["224.0.0.1", "10.9.0.255"].map(|several| (way, several)));
        let line = |(way, several): &(&str, &str)| format!("{way} {several} {came} {heard}\n");
        ways.concat().iter().map(line).collect::<Vec<_>>().concat()
    };
    assert_eq!(bare, lines("done", "True"));
    assert_eq!(guarded.stdout, lines("EPERM", "False"));
    assert!(guarded.events().iter().all(|event| event["rule"] == "fail-closed"), "{:#}", guarded.log);
    assert_eq!(
        guarded.events().iter().map(|event| event["count"].as_u64().unwrap()).sum::<u64>(),
        6,
        "{:#}",
        guarded.log
    );
}

/// This host's servers get a copy of what a raw socket sends to several, too, and no address hook is told who these are.
#[test]
fn raw_sockets_send_no_datagrams_of_which_this_host_gets_a_copy() {
    let mut policy = network("deny", &json!([end()]));
    policy["sockets"] = json!({"default": "deny", "rules": [
        {"action": "allow", "type": "dgram", "protocol": "udp"},
        {"action": "allow", "type": "raw", "protocol": "udp"},
        {"action": "allow", "type": "raw", "protocol": "icmp"},
    ]});
    policy["process"] = json!({"capabilities": ["CAP_NET_RAW"]});
    let inside = format!(
        "{HEARING}
for several in ('224.0.0.1', '10.9.0.255'):
    def send():
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        text = several.encode()
        sock.sendto(struct.pack('!4H', 9, 5300, 8 + len(text), 0) + text, (several, 0))
    print(attempt(send), said(several))
print(attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)))
print(attempt(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)))"
    );
    let (bare, guarded) = both(&policy, SERVER, &inside);
    assert_eq!(
        (&*bare, &*guarded.stdout),
        ("done True\ndone True\ndone\ndone\n", "EPERM False\nEPERM False\ndone\nEPERM\n")
    );
    let hooks: Vec<_> = guarded.events().iter().map(|event| (&event["hook"], &event["rule"])).collect();
    assert_eq!(hooks, [(&json!("sock_create"), &json!("fail-closed")), (&json!("sock_create"), &json!("default"))]);
}

/// What a socket asks to be sent by the loopback device comes to this host, whatever address it has.
#[test]
fn what_is_sent_by_the_loopback_device_is_judged_as_that() {
    let rules = |more: &[&str]| {
        let hosts = [&["10.9.0.10"], more].concat();
        json!([end(), {"action": "allow", "ops": ["connect", "send"], "protocols": ["udp"], "hosts": hosts, "ports": [5300]}])
    };
    let inside = format!(
        "{HEARING}
UNICAST_IF, PKTINFO, LOOPBACK = 50, 8, 1
def new(how, family):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if how == 'device': sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
    if how == 'unicast': sock.setsockopt(0, UNICAST_IF, struct.pack('!I', LOOPBACK))
    return sock
def connected(sock, text, peer):
    sock.connect(peer)
    sock.send(text)
def named(sock, text, peer): sock.sendto(text, peer)
def told(sock, text, peer): sock.sendmsg([text], [(0, PKTINFO, struct.pack('=i8x', LOOPBACK))], 0, peer)
ways = [('device', connected), ('device', named), ('unicast', connected), ('unicast', named), ('', told)]
for family, peer in ((2, '10.9.0.10'), (10, '::ffff:10.9.0.10')):
    for how, does in ways:
        if (family, how) == (10, '') or (family, how) == (10, 'unicast'): continue
        text = f'{{how}}-{{does.__name__}}-{{family}}'
        print(text, attempt(lambda: does(new(how, family), text.encode(), (peer, 5300))), said(text))
print('own', attempt(lambda: named(new('', 2), b'own', ('10.9.0.1', 5300))), said('own'))
print('own6', attempt(lambda: named(new('', 10), b'own6', ('fd00::1', 5300))), said('own6'))
# To name a peer and then connect to it makes no second one.
same = new('', 2)
named(same, b'first', ('10.9.0.1', 5300))
print('same', attempt(lambda: connected(same, b'same', ('10.9.0.1', 5300))), said('same'))"
    );
    let ways = [
        "device-connected-2",
        "device-named-2",
        "unicast-connected-2",
        "unicast-named-2",
        "-told-2",
        "device-connected-10",
        "device-named-10",
    ];
    let lines = |came: &str, heard: &str| ways.map(|way| format!("{way} {came} {heard}\n")).concat();
    let own = "own done True\nown6 done True\nsame done True\n";
    let (bare, guarded) = both(&network("deny", &rules(&["10.9.0.1", "fd00::1"])), SERVER, &inside);
    assert_eq!(bare, lines("done", "True") + own);
    assert_eq!(guarded.stdout, lines("EPERM", "False") + own);
    let events: Vec<_> =
        guarded.events().iter().map(|event| (&event["hook"], &event["network"]["address"], &event["rule"])).collect();
    let expected = (&json!("egress"), &json!("10.9.0.10"), &json!("fail-closed"));
    assert!(!events.is_empty() && events.iter().all(|event| *event == expected), "{:#}", guarded.log);
    // Who may reach loopback at that port may do so by any way.
    let all = network("allow", &json!([{"action": "deny", "hosts": ["10.9.0.13"]}]));
    let (_, guarded) = both(&all, SERVER, &inside);
    assert_eq!(guarded.stdout, bare, "{:#}", guarded.log);
}

/// The kernel keeps the route that a routing header gave a socket, and sends by it what has none.
#[test]
fn a_route_is_not_kept_from_a_routing_header() {
    let rules = json!([end(), {"action": "allow", "ops": ["connect", "send"], "hosts": ["fd00::10"], "ports": [5300]}]);
    let inside = format!(
        "{HEARING}
FLOWINFO, MANAGER, HEADER, LABEL = 11, 32, 57, 0x12345
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
peer = 'fd00::10'
sock.setsockopt(41, MANAGER, socket.inet_pton(10, peer) + struct.pack('!I', LABEL) + struct.pack('=BBHHHI', 0, 1, 1, 0, 0, 0))
came = attempt(lambda: sock.setsockopt(41, HEADER, bytes([0, 2, 4, 0, 0, 0, 0, 0]) + socket.inet_pton(10, '::1')))
sock.connect((peer, 5300))
# With this label, the socket's own header is left out.
sock.sendmsg([b'kept'], [(41, FLOWINFO, struct.pack('!I', LABEL))])
print(came, said('kept'))
print(attempt(lambda: sock.setsockopt(41, HEADER, b'')))"
    );
    let (bare, guarded) = both(&network("deny", &rules), SERVER, &inside);
    assert_eq!((&*bare, &*guarded.stdout), ("done True\ndone\n", "EPERM False\ndone\n"));
    let [event] = guarded.events() else { panic!("{:#}", guarded.log) };
    assert_eq!((&event["hook"], &event["rule"]), (&json!("setsockopt"), &json!("fail-closed")), "{event:#}");
}

/// TCP goes where the last route led that it was given, whatever it was connected to, where the connection begins with data.
#[test]
fn a_source_route_is_not_kept_by_tcp() {
    let mut policy =
        network("deny", &json!([{"action": "allow", "ops": ["connect"], "hosts": ["10.9.0.10"], "ports": [80]}]));
    policy["process"] = json!({"capabilities": ["CAP_NET_RAW"]});
    let inside = "
import errno, os, socket, time
def heard(): return open(os.environ['HEARD']).read().split()
# Until somebody listens.
while not heard(): time.sleep(0.01)
os.system('ip neigh add 10.9.0.66 lladdr 02:00:00:00:00:42 dev outer 2>/dev/null')
FASTOPEN_CONNECT, NO_COOKIE, OPTIONS = 30, 34, 4
sock = socket.socket()
sock.setsockopt(6, NO_COOKIE, 1)
sock.setsockopt(6, FASTOPEN_CONNECT, 1)
try: sock.setsockopt(0, OPTIONS, bytes([131, 7, 4]) + socket.inet_aton('10.9.0.66') + bytes(1)); print('routed')
except PermissionError: print('EPERM')
sock.connect(('10.9.0.10', 80))
sock.setsockopt(0, OPTIONS, b'')
sock.setblocking(False)
try: sock.send(b'secret')
except BlockingIOError: pass
def packets(): return [line for line in heard() if b'secret'.hex() in line]
while not packets(): time.sleep(0.01)
print(*{socket.inet_ntoa(bytes.fromhex(line)[16:20]) for line in packets()})";
    let (bare, guarded) = both(&policy, ROUTER, inside);
    assert_eq!((&*bare, &*guarded.stdout), ("routed\n10.9.0.66\n", "EPERM\n10.9.0.10\n"));
}

/// A transparent socket has any source, and so one that is the destination.
#[test]
fn no_socket_is_transparent() {
    let mut policy = network(
        "deny",
        &json!([
            end(),
            {"action": "allow", "ops": ["bind"]},
            {"action": "allow", "ops": ["connect", "send"], "protocols": ["udp"], "hosts": ["10.9.0.10"], "ports": [5300]},
        ]),
    );
    policy["process"] = json!({"capabilities": ["CAP_NET_RAW"]});
    let inside = format!(
        "{HEARING}
def transparent(family, level, option, peer):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(level, option, 1)
    sock.bind((peer, 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
    sock.sendto(str(family).encode(), (peer, 5300))
for way in ((2, 0, 19, '10.9.0.10'), (10, 41, 75, '::ffff:10.9.0.10')):
    print(attempt(lambda: transparent(*way)), said(str(way[0])))"
    );
    let (bare, guarded) = both(&policy, SERVER, &inside);
    assert_eq!((&*bare, &*guarded.stdout), ("done True\ndone True\n", "EPERM False\nEPERM False\n"));
    assert!(guarded.events().iter().all(|event| event["hook"] == "setsockopt"), "{:#}", guarded.log);
}

/// A copy of what the sandbox sends to several can come from a nameserver's address, where that is one of this host's.
#[test]
fn nobody_learns_from_a_copy() {
    let mut policy = network(
        "deny",
        &json!([
            {"action": "allow", "ops": ["connect"], "protocols": ["tcp"], "hosts": ["allowed.example"], "ports": [80]},
            {"action": "allow", "ops": ["send", "receive"], "protocols": ["udp"], "hosts": ["10.9.0.0/24"], "ports": [53, 5353]},
            {"action": "allow", "ops": ["bind"]},
        ]),
    );
    policy["network"]["nameservers"] = json!(["10.9.0.1"]);
    let inside = "
import errno, socket, struct
NAMESERVER, FOUND, BROADCAST = ('10.9.0.1', 53), '198.51.100.7', '10.9.0.255'
name = b''.join(bytes([len(label)]) + label for label in b'allowed.example'.split(b'.')) + b'\\0' + struct.pack('!2H', 1, 1)
query = struct.pack('!6H', 7, 0x100, 1, 0, 0, 0) + name
answer = struct.pack('!6H', 7, 0x8180, 1, 1, 0, 0) + name + struct.pack('!3HIH', 0xc00c, 1, 1, 60, 4) + socket.inet_aton(FOUND)
victim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
victim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
victim.bind(('0.0.0.0', 5353)); victim.settimeout(30)
liar = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
liar.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
liar.bind((BROADCAST, 53))
victim.sendto(query, NAMESERVER)
try: liar.sendto(answer, (BROADCAST, 5353))
except PermissionError: pass
print(victim.recvfrom(500)[1])
found = socket.socket(); found.setblocking(False)
print(errno.errorcode[found.connect_ex((FOUND, 80))])";
    let (bare, guarded) = both(&policy, "", inside);
    assert_eq!((&*bare, &*guarded.stdout), ("('10.9.0.1', 53)\nENETUNREACH\n", "('10.9.0.1', 53)\nEPERM\n"));
}
