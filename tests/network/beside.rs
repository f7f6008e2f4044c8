//! What the kernel does for a socket beside sending and receiving its packets, of which it asks no packet hook: reports of the groups
//! that it joins, and what others say in ICMP errors. And the headers that packets may have when they arrive and leave. In network
//! namespaces of their own, with a pair of devices, or with somebody outside the sandbox.

use serde_json::{Value, json};
use support::{Output, Run};

use crate::network;

const UP: &str =
    "ip link set lo up; ip link add outer type veth peer name inner; ip link set inner up; ip link set outer up
    ip addr add 10.9.0.1/24 dev outer; ip addr add fd00::1/64 dev outer nodad; ip route add 224.0.0.0/4 dev outer
    ip neigh add 10.9.0.10 lladdr 02:00:00:00:00:0a dev outer
    export HEARD=$(mktemp -p \"$FOLDER\")
    /usr/bin/python3 -c \"$1\" & shift; exec \"$@\"";

/// Runs one program outside, which ends with the run, and one inside, without the guard and with it.
pub fn both(policy: &Value, outside: &str, inside: &str) -> (String, Output) {
    let outside = format!("import ctypes, socket, struct, time\nctypes.CDLL(None).prctl(1, 9)\n{outside}");
    let folder = tempfile::tempdir().unwrap();
    // Each run has a file of its own there.
    let place = format!("FOLDER={}", folder.path().display());
    let wrapper = ["env", &place, "unshare", "--net", "sh", "-c", UP, "sh", &outside];
    let run = Run::python(policy, inside, &[]).through(wrapper);
    (run.bare().success().stdout, run.output().success())
}

/// Hears at the other end of the pair what the routers would, and writes it into a file.
pub const ROUTER: &str = "
import os
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
frames.bind(('inner', 3))
with open(os.environ['HEARD'], 'w') as heard:
    while True:
        print(frames.recv(2000)[14:].hex(), file=heard, flush=True)
";

/// Runs a program that joins groups, while somebody notes what the routers hear.
fn joining(policy: &Value, inside: &str) -> (String, Output) {
    both(policy, ROUTER, &format!("{JOINS}{inside}"))
}

/// Joins groups in every way, and says which of their addresses the routers of the network have heard.
const JOINS: &str = "
import errno, os, socket, struct, sys, time
HEARD = os.environ['HEARD']
# Until somebody listens.
while not os.path.getsize(HEARD): time.sleep(0.01)
def has_heard(group):
    # Behind the header with its own addresses, of which IPv4's has one option.
    address, start = (four(group), 24) if '.' in group else (six(group), 40)
    return any(address in bytes.fromhex(line)[start:] for line in open(HEARD) if line.endswith('\\n'))
outer = socket.if_nametoindex('outer')
def four(text): return socket.inet_aton(text)
def six(text): return socket.inet_pton(socket.AF_INET6, text)
def storage(address):
    family, text = (socket.AF_INET, four(address)) if '.' in address else (socket.AF_INET6, bytes(4) + six(address))
    return (family.to_bytes(2, 'little') + bytes(2) + text).ljust(128, b'\\0')
def ways(interface='10.9.0.1', device=outer, group4='239.1.2.', group6='ff15::'):
    number = lambda device: device.to_bytes(4, 'little')
    yield 'add', 0, 35, group4 + '1', four(group4 + '1') + four(interface)
    yield 'device', 0, 35, group4 + '2', four(group4 + '2') + four('0.0.0.0') + number(device)
    yield 'source', 0, 39, group4 + '3', four(group4 + '3') + four(interface) + four('10.9.0.77')
    yield 'filter', 0, 41, group4 + '4', four(group4 + '4') + four(interface) + struct.pack('II', 1, 1) + four('10.9.0.77')
    yield 'add6', 41, 20, group6 + '1', six(group6 + '1') + number(device)
    for level, group, source in [(0, group4, '10.9.0.77'), (41, group6, 'fd00::77')]:
        yield 'join', level, 42, group + '5', struct.pack('Q', device) + storage(group + '5')
        yield 'join_source', level, 46, group + '6', struct.pack('Q', device) + storage(group + '6') + storage(source)
def attempt(name, level, option, group, value):
    sock = socket.socket(socket.AF_INET if level == 0 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        if name == 'filter':
            sock.setsockopt(0, 35, value[:8])
        sock.setsockopt(level, option, value); said = 'joined'
    except OSError as error:
        said = errno.errorcode[error.errno]
    return sock, said
def tell():
    for way in ways():
        sock, said = attempt(*way)
        # The kernel says so at once, and again after a moment.
        heard, until = 'silent', time.monotonic() + (0.3 if said == 'EPERM' else 5)
        while time.monotonic() < until and heard == 'silent':
            if has_heard(way[3]): heard = 'heard'
            else: time.sleep(0.01)
        print(way[0], way[3], said, heard)
        sock.close()
";

#[test]
fn a_group_is_joined_only_where_it_may_be_sent_to() {
    let joined = |text: &str| text.lines().filter(|line| line.ends_with("joined heard")).count();
    let refused = |text: &str| text.lines().filter(|line| line.ends_with("EPERM silent")).count();
    // A program that may send neither to the routers nor to the group.
    let nobody = network("deny", &json!([{"action": "allow", "hosts": ["loopback"]}]));
    let (bare, guarded) = joining(&nobody, "tell()");
    assert_eq!((joined(&bare), bare.lines().count()), (9, 9), "{bare}");
    assert_eq!(refused(&guarded.stdout), 9, "{}", guarded.stdout);
    let events = guarded.events();
    assert!(events.iter().all(|event| event["rule"] == "fail-closed"), "{:#}", guarded.log);
    assert!(events.iter().all(|event| event["hook"] == "setsockopt"), "{:#}", guarded.log);

    // A program that may send datagrams to one group joins that, with all sources.
    let rules =
        json!([{"action": "allow", "protocols": ["udp"], "hosts": ["239.1.2.0/29", "ff15::1"], "ports": [5353]}]);
    let (_, guarded) = joining(&network("deny", &rules), "tell()");
    let expected = ["add 239.1.2.1", "device 239.1.2.2", "add6 ff15::1", "join 239.1.2.5"];
    for line in guarded.stdout.lines() {
        let may = expected.iter().any(|way| line.starts_with(&format!("{way} ")));
        // Who chooses sources later has joined with all of them before, of which the kernel tells after a while.
        let is_right = if line.starts_with("filter") {
            line.contains(" EPERM ")
        } else {
            line.ends_with(if may { "joined heard" } else { "EPERM silent" })
        };
        assert!(is_right, "{line}");
    }
    // A program that may send to the routers joins any.
    for hosts in [json!(["any"]), json!(["224.0.0.0/4", "ff00::/8"])] {
        let rules = json!([{"action": "allow", "protocols": ["udp"], "hosts": hosts}]);
        let (_, guarded) = joining(&network("deny", &rules), "tell()");
        assert_eq!((joined(&guarded.stdout), guarded.events().len()), (9, 0), "{}", guarded.stdout);
    }
    // On loopback, nobody hears of it.
    let here = "for way in ways('127.0.0.1', 1): print(way[0], way[3], attempt(*way)[1])";
    let (bare, guarded) = joining(&nobody, here);
    assert_eq!((bare.matches("joined").count(), &guarded.stdout), (9, &bare), "{:#}", guarded.log);
    assert_eq!(guarded.events(), [] as [Value; 0]);
}

#[test]
fn another_thread_can_not_change_which_group_is_joined() {
    let race = "
import ctypes, threading
libc, value = ctypes.CDLL(None), ctypes.create_string_buffer(four('239.1.2.3') + four('10.9.0.1'), 8)
joined, ends = set(), False
def change():
    while not ends:
        value.raw = four('239.9.9.9') + four('10.9.0.1')
        value.raw = four('239.1.2.3') + four('10.9.0.1')
sys.setswitchinterval(1e-5)
thread = threading.Thread(target=change); thread.start()
for _ in range(20_000):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    libc.setsockopt(sock.fileno(), 0, 35, value, 8)
    sock.close()
ends = True; thread.join()
time.sleep(1.5)
print([group for group in ('239.1.2.3', '239.9.9.9') if has_heard(group)])";
    let rules = json!([{"action": "allow", "protocols": ["udp"], "hosts": ["239.1.2.3"]}]);
    let (bare, guarded) = joining(&network("deny", &rules), race);
    assert!(bare.contains("239.9.9.9"), "{bare}");
    assert!(!guarded.stdout.contains("239.9.9.9"), "{}", guarded.stdout);
}

/// Says to a socket at 127.0.0.1:7001 or [::1]:7001, in ICMP errors from others, that what it sent to 127.0.0.2 or ::1 was refused.
const ERRORS: &str = "
four = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
four.bind(('127.0.0.3', 0))
six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
def checksum(data):
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
udp = struct.pack('!4H', 7001, 53, 8 + 8, 0) + b'evil' * 2
quoted = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton('127.0.0.1'), socket.inet_aton('127.0.0.2'))
error = struct.pack('!BBHI', 3, 3, 0, 0) + quoted + udp
error = error[:2] + struct.pack('!H', checksum(error)) + error[4:]
one = socket.inet_pton(socket.AF_INET6, '::1')
quoted6 = struct.pack('!IHBB', 6 << 28, len(udp), 17, 64) + one + one
error6 = struct.pack('!BBHI', 1, 4, 0, 0) + quoted6 + udp
while True:
    four.sendto(error, ('127.0.0.1', 0)); six.sendto(error6, ('::1', 0))
    time.sleep(0.01)
";

#[test]
fn what_an_error_quotes_comes_from_nobody_who_is_denied() {
    let inside = "
import socket, time
for family, address, level, option in [(socket.AF_INET, '127.0.0.1', 0, 11), (socket.AF_INET6, '::1', 41, 25)]:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, 7001))
    sock.setsockopt(level, option, 1)
    sock.setblocking(False)
    until, said = time.monotonic() + 1, 'nothing'
    while time.monotonic() < until and said == 'nothing':
        try:
            said = sock.recvmsg(100, 500, socket.MSG_ERRQUEUE)[0]
        except OSError:
            time.sleep(0.01)
    print(said)";
    let denied = [
        network("allow", &json!([{"action": "deny", "ops": ["receive"], "hosts": ["127.0.0.3", "::1"]}])),
        network("deny", &json!([{"action": "allow", "ops": ["bind"]}])),
    ];
    for policy in denied {
        let (bare, guarded) = both(&policy, ERRORS, inside);
        assert_eq!((bare.as_str(), guarded.stdout.as_str()), ("b'evilevil'\nb'evilevil'\n", "nothing\nnothing\n"));
        assert_eq!(guarded.events(), [] as [Value; 0]);
    }
    // Where nobody's errors are denied, they come; and where denials are only recorded.
    let tcp = json!([{"action": "deny", "ops": ["receive"], "protocols": ["tcp", "udp"], "hosts": ["127.0.0.3"]}]);
    let mut audit = network("deny", &json!([]));
    audit["mode"] = json!("audit");
    for policy in [network("allow", &tcp), audit] {
        let (bare, guarded) = both(&policy, ERRORS, inside);
        assert_eq!(guarded.stdout, bare, "{policy}");
    }
}

#[test]
fn headers_that_have_been_acted_on_say_nothing_of_a_packet() {
    let outside = "
sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
one = socket.inet_pton(socket.AF_INET6, '::1')
def checksum(data):
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff or 0xffff
def send(kinds, text):
    udp = struct.pack('!4H', 53, 7001, 8 + len(text), 0) + text
    sum_ = checksum(one + one + struct.pack('!II', len(udp), 17) + udp)
    udp = udp[:6] + struct.pack('!H', sum_) + udp[8:]
    headers, following = b'', 17
    for kind in reversed(kinds):
        rest = {0: [0, 1, 4, 0, 0, 0, 0], 60: [0, 1, 4, 0, 0, 0, 0], 43: [0, 253, 0, 0, 0, 0, 0], 44: [0, 0, 0, 1, 2, 3, 4]}[kind]
        headers, following = bytes([following, *rest]) + headers, kind
    sender.sendto(struct.pack('!IHBB', 6 << 28, len(headers + udp), following, 64) + one + one + headers + udp, ('::1', 0))
while True:
    for kinds, text in [([60], b'one.'), ([44], b'atom'), ([43], b'rout'), ([0, 60, 60], b'thre'), ([0, 60, 43, 44, 60], b'five')]:
        send(kinds, text)
    time.sleep(0.01)
";
    let inside = "
import socket, time
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind(('::1', 7001)); sock.settimeout(0.2)
until, heard = time.monotonic() + 2, set()
while time.monotonic() < until and len(heard) < 5:
    try: heard.add(sock.recv(10))
    except TimeoutError: pass
print(sorted(heard))";
    let policy = network("allow", &json!([{"action": "deny", "ops": ["receive"], "hosts": ["fd00::d"]}]));
    let (bare, guarded) = both(&policy, outside, inside);
    assert_eq!(bare, "[b'atom', b'five', b'one.', b'rout', b'thre']\n");
    assert_eq!(guarded.stdout, bare, "{:#}", guarded.log);
    let (_, guarded) =
        both(&network("allow", &json!([{"action": "deny", "ops": ["receive"], "ports": [53]}])), outside, inside);
    assert_eq!(guarded.stdout, "[]\n", "{:#}", guarded.log);
}

#[test]
fn options_in_which_something_looks_like_a_route() {
    // A time stamp whose first address is this host's, and a record of a route, which the kernel fills in. With bytes like the numbers of the
    // options by which a packet has a route of its own, they are taken for such.
    let inside = "
import errno, socket
for options in ['441c0d010a090001', '01070704', '0107070883898389', '01830704' + '0a09000a' + '00']:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(0, 4, bytes.fromhex(options.ljust(56 if options.startswith('44') else 16, '0')))
        sock.sendto(b'x', ('10.9.0.10', 9)); print('sent')
    except OSError as error:
        print(errno.errorcode[error.errno])";
    let policy = network("allow", &json!([{"action": "deny", "ops": ["connect", "send"], "hosts": ["10.9.0.13"]}]));
    let (bare, guarded) = both(&policy, "", inside);
    assert_eq!(bare, "sent\nsent\nsent\nsent\n");
    assert_eq!(guarded.stdout, "sent\nsent\nEPERM\nEPERM\n", "{:#}", guarded.log);
}

/// A value that is longer than the buffer in which it is judged is read again from the caller's memory, and 32-bit callers' structure has
/// the address where others have padding.
#[test]
fn what_the_kernel_may_read_otherwise_is_no_group() {
    let rules =
        json!([{"action": "allow", "protocols": ["udp"], "hosts": ["239.1.2.0/29", "ff15::1"], "ports": [5353]}]);
    let program = "
name, level, option, group, value = next(ways())
print(attempt(name, level, option, group, value)[1])
for length in (4096, 4097, 8192): print(attempt(name, level, option, group, value.ljust(length, b'\\0'))[1])
other = struct.pack('IHH', outer, socket.AF_INET, 0) + storage('239.1.2.5')
print(attempt('join', 0, 42, '239.1.2.5', other)[1])
print(attempt('join', 0, 42, '239.1.2.5', struct.pack('Q', outer) + storage('239.1.2.5'))[1])
";
    let (bare, guarded) = joining(&network("deny", &rules), program);
    assert_eq!(bare, "joined\njoined\njoined\njoined\njoined\njoined\n");
    assert_eq!(guarded.stdout, "joined\njoined\nEPERM\nEPERM\nEPERM\njoined\n");
    assert!(guarded.events().iter().all(|event| event["rule"] == "fail-closed"), "{:#}", guarded.log);
}
