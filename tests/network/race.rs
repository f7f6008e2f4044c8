//! Nothing is let through for what a socket says of itself, which another thread can change between two looks, nor for what was only
//! asked for. In network namespaces of their own, each with somebody outside the sandbox, from whom nothing may come.

use serde_json::{Value, json};
use support::{Output, Run};

use crate::network;

/// Starts somebody outside, who ends with the run.
const UP: &str = "ip link set lo up; sysctl -qw net.ipv4.ip_local_port_range='40000 40001'
    /usr/bin/python3 -c \"$1\" & shift; exec \"$@\"";

const OUTSIDE: &str = "
import ctypes, itertools, socket, time
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
def datagrams(address, port, text, to=7001):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    while True:
        try:
            sock.bind((address, port))
            break
        except OSError:
            time.sleep(0.001)
    def send():
        try:
            sock.sendto(text, ('127.0.0.1', to))
        except OSError:
            pass
    return send
def connect(address, to=7001):
    sock = socket.socket()
    sock.bind((address, 0))
    sock.settimeout(0.05)
    try:
        sock.connect(('127.0.0.1', to))
        sock.send(b'evil')
    except OSError:
        pass
";

const INSIDE: &str = "
import ctypes, errno, os, socket, sys, time
LIBC, UNSPEC = ctypes.CDLL(None), bytes(16)
def address(host, port):
    return socket.AF_INET.to_bytes(2, 'little') + port.to_bytes(2, 'big') + socket.inet_aton(host) + bytes(8)
def udp(port=7001):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(('127.0.0.1', port))
    sock.settimeout(30)
    return sock
def while_another(does, look):
    child = os.fork()
    if child == 0:
        try:
            does()
        finally:
            os._exit(0)
    found = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        found += look()
    return found
";

/// Runs one program outside and one inside, without the guard and with it.
fn both(policy: &Value, outside: &str, inside: &str) -> (String, Output) {
    let outside = format!("{OUTSIDE}{outside}");
    let wrapper = ["unshare", "--net", "sh", "-c", UP, "sh", &outside];
    let run = Run::python(policy, &format!("{INSIDE}{inside}"), &[]).through(wrapper);
    (run.bare().success().stdout, run.output().success())
}

/// Runs both, with `inside` printing how often 127.0.0.3, which is denied, got in: never under the guard, and at least once without it.
fn nobody_gets_in(outside: &str, inside: &str) -> Output {
    let rules = json!([{"action": "deny", "ops": ["receive"], "hosts": ["127.0.0.3"]}]);
    let (bare, guarded) = both(&network("allow", &rules), outside, inside);
    assert!(bare.trim().parse::<u32>().unwrap() > 0, "nobody tried");
    assert_eq!(guarded.stdout, "0\n");
    guarded
}

#[test]
fn a_udp_socket_that_is_connected_to_no_port_has_no_peer() {
    let outside = "
good, evil = datagrams('127.0.0.2', 53, b'good'), datagrams('127.0.0.2', 666, b'evil')
while True:
    good(); evil(); time.sleep(0.001)";
    let inside = "
sock = udp()
sock.connect(('127.0.0.2', 0))
print(sorted({sock.recv(10) for _ in range(30)}))";
    let rules = json!([{"action": "deny", "ops": ["receive"], "protocols": ["udp"], "ports": [666]}]);
    let (bare, guarded) = both(&network("allow", &rules), outside, inside);
    assert_eq!((bare.as_str(), guarded.stdout.as_str()), ("[b'evil', b'good']\n", "[b'good']\n"));
    let [event] = guarded.events() else { panic!("{:#}", guarded.log) };
    assert_eq!((&event["op"], &event["network"]["port"]), (&json!("receive"), &json!(666)));
}

#[test]
fn connecting_again_and_again_lets_nobody_in() {
    let outside = "
evil = datagrams('127.0.0.3', 666, b'evil')
while True:
    evil()";
    let inside = "
sock = udp()
sock.setblocking(False)
good = address('127.0.0.2', 53)
def toggle():
    for _ in range(100_000):
        LIBC.connect(sock.fileno(), good, 16)
        LIBC.connect(sock.fileno(), UNSPEC, 16)
def look():
    try:
        return sock.recv(10) == b'evil'
    except BlockingIOError:
        return 0
print(while_another(toggle, look))";
    let guarded = nobody_gets_in(outside, inside);
    assert!(guarded.hook("ingress")["denied"].as_u64() > Some(0));
}

#[test]
fn who_takes_the_port_of_a_socket_of_the_sandbox_does_not_become_one() {
    // When the sandbox has had the port.
    let outside = "
while ':1B5A ' not in open('/proc/net/udp').read():
    time.sleep(0.001)
evil = datagrams('127.0.0.1', 7002, b'evil')
while True:
    evil(); time.sleep(0.001)";
    let inside = "
other, sock = udp(7002), udp()
sock.connect(('127.0.0.1', 7002))
other.sendto(b'good', ('127.0.0.1', 7001))
print(sock.recv(10))
other.close()
sock.settimeout(1)
try:
    print(sock.recv(10))
except TimeoutError:
    print('nothing')";
    let rules = json!([{"action": "allow", "hosts": ["sandbox"]}]);
    let (bare, guarded) = both(&network("deny", &rules), outside, inside);
    assert_eq!((bare.as_str(), guarded.stdout.as_str()), ("b'good'\nb'evil'\n", "b'good'\nnothing\n"));
}

#[test]
fn listening_again_and_again_lets_nobody_in() {
    let outside = "
while True:
    connect('127.0.0.3')";
    let inside = "
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(('127.0.0.1', 7001))
sock.setblocking(False)
def toggle():
    # Mostly for a moment, and now and then for as long as it takes to come in.
    for turn in range(2_000):
        LIBC.listen(sock.fileno(), 8)
        LIBC.usleep(20 if turn % 20 else 20_000)
        LIBC.shutdown(sock.fileno(), 2)
def look():
    try:
        sock.accept()
        return 1
    except OSError:
        return 0
print(while_another(toggle, look))";
    let _ = nobody_gets_in(outside, inside);
}

#[test]
fn a_bind_that_failed_gives_no_right_to_listen() {
    let inside = "
for ask in [('192.0.2.1', 7001), ('127.0.0.1', 7001)]:
    server = socket.socket()
    try:
        server.bind(ask)
    except OSError as error:
        print(errno.errorcode[error.errno], end=' ')
    server.listen()
    client = socket.socket()
    client.settimeout(1)
    try:
        client.connect(('127.0.0.1', server.getsockname()[1]))
        print('in', end=' ')
    except TimeoutError:
        print('timeout', end=' ')";
    let rules = json!([
        {"action": "allow", "ops": ["bind"], "protocols": ["tcp"], "ports": [7001]},
        {"action": "deny", "ops": ["bind"]},
    ]);
    let (bare, guarded) = both(&network("allow", &rules), "", inside);
    let expected = ("EADDRNOTAVAIL in in ", "EADDRNOTAVAIL timeout in ");
    assert_eq!((bare.as_str(), guarded.stdout.as_str()), expected, "{:#}", guarded.log);
    // The listener, and each packet that was kept from it.
    let hooks: Vec<&Value> = guarded.events().iter().map(|event| &event["hook"]).collect();
    assert_eq!(hooks, ["sock_ops", "ingress"], "{:#}", guarded.log);
    assert!(guarded.events().iter().all(|event| event["op"] == "bind"), "{:#}", guarded.log);
}

#[test]
fn a_udp_port_that_the_kernel_chose_is_judged_by_rules_that_name_it() {
    // There are two ports to choose from, of which one is denied.
    let inside = "
held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for sock in held:
    try:
        sock.sendto(b'x', ('127.0.0.1', 9)); said = 'sent'
    except OSError as error:
        said = errno.errorcode[error.errno]
    print(sock.getsockname()[1], said, end=' ')";
    let sorted = |text: &str| {
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if words[0] == "40001" {
            words.rotate_left(2);
        }
        words.join(" ")
    };
    let deny = |more: &str| {
        let mut rule = json!({"action": "deny", "ops": ["bind"], "protocols": ["udp"]});
        rule["ports"] = serde_json::from_str(more).unwrap();
        rule
    };
    let (one, both_sent) = ("40000 EPERM 40001 sent", "40000 sent 40001 sent");
    let table = [
        (network("allow", &json!([deny("[40000]")])), one),
        (network("allow", &json!([deny("[39999]")])), both_sent),
        (
            network("allow", &json!([{"action": "allow", "ops": ["bind"], "ports": ["ephemeral"]}, deny("[40000]")])),
            both_sent,
        ),
        // Every client has a port: what only denies servers is not about it.
        (network("allow", &json!([{"action": "deny", "ops": ["bind"]}])), both_sent),
        (network("deny", &json!([{"action": "allow", "ops": ["send"]}])), both_sent),
    ];
    for (policy, expected) in table {
        let (bare, guarded) = both(&policy, "", inside);
        assert_eq!((sorted(&bare).as_str(), sorted(&guarded.stdout).as_str()), (both_sent, expected), "{policy}");
        assert_eq!(guarded.events().len(), usize::from(expected == one), "{:#}", guarded.log);
    }
    let asked = "
sock = udp(40000)
sock.sendto(b'x', ('127.0.0.1', 9))
print('sent')";
    let rules = json!([deny("[40001]")]);
    assert_eq!(both(&network("allow", &rules), "", asked).1.stdout, "sent\n");
}

#[test]
fn a_udp_port_at_one_address_is_not_that_port_at_others() {
    // The kernel chooses the denied port for one of two sockets, of which each has asked for it where it is allowed, in vain.
    let inside = "
held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for sock in held:
    try:
        sock.bind(('192.0.2.1', 40000))
    except OSError as error:
        said = errno.errorcode[error.errno]
    try:
        sock.sendto(b'x', ('127.0.0.1', 9)); said += ' sent'
    except OSError as error:
        said += ' ' + errno.errorcode[error.errno]
    print(sock.getsockname()[1], said)";
    let bind = |action: &str, host: &str| json!({"action": action, "ops": ["bind"], "protocols": ["udp"], "hosts": [host], "ports": [40000]});
    let sorted = |text: &str| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join(", ")
    };
    let policy = network("allow", &json!([bind("allow", "192.0.2.1"), bind("deny", "any")]));
    let (bare, guarded) = both(&policy, "", inside);
    assert_eq!(sorted(&bare), "40000 EADDRNOTAVAIL sent, 40001 EADDRNOTAVAIL sent");
    assert_eq!(sorted(&guarded.stdout), "40000 EADDRNOTAVAIL EPERM, 40001 EADDRNOTAVAIL sent", "{:#}", guarded.log);
    let [event] = guarded.events() else { panic!("{:#}", guarded.log) };
    assert_eq!((&event["op"], &event["network"]["address"]), (&json!("bind"), &json!("127.0.0.1")));
    // A socket that has what it asked for goes on, also if that is an address by which it can only receive.
    let asked = "
for host in ['127.0.0.1', '224.0.0.251', '0.0.0.0']:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((host, 40000))
        sock.sendto(b'x', ('127.0.0.1', 9))
        print(host)
    except OSError as error:
        print(errno.errorcode[error.errno])
    sock.close()";
    let only = |host: &str| network("allow", &json!([bind("allow", host), bind("deny", "any")]));
    assert_eq!(both(&only("127.0.0.1"), "", asked).1.stdout, "127.0.0.1\nEPERM\nEPERM\n");
    assert_eq!(both(&only("224.0.0.251"), "", asked).1.stdout, "EPERM\n224.0.0.251\nEPERM\n");
    let all = network("allow", &json!([{"action": "deny", "ops": ["bind"], "protocols": ["udp"], "ports": [40001]}]));
    assert_eq!(both(&all, "", asked).1.stdout, "127.0.0.1\n224.0.0.251\n0.0.0.0\n");
}

/// Sends from a socket whose peer another process changes, and says which of the receivers that are denied have got anything.
fn astray(policy: &Value, sends: &str) -> (String, Output) {
    let inside = format!(
        "
def receiver(host, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, port))
    sock.setblocking(False)
    return sock
def has_heard(sock):
    try:
        return bool(sock.recv(10))
    except BlockingIOError:
        return False
{sends}
print([has_heard(sock) for sock in denied])"
    );
    both(policy, "", &inside)
}

#[test]
fn the_address_of_one_peer_and_the_port_of_another_are_no_peer() {
    let sends = "
denied = [receiver('127.0.0.2', 1002), receiver('127.0.0.3', 1001)]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one, other = address('127.0.0.2', 1001), address('127.0.0.3', 1002)
def toggle():
    for _ in range(150_000):
        LIBC.connect(sock.fileno(), one, 16)
        LIBC.connect(sock.fileno(), other, 16)
while_another(toggle, lambda: LIBC.send(sock.fileno(), b'x', 1, 0x4040) * 0)";
    let rules = json!([
        {"action": "allow", "hosts": ["127.0.0.2"], "ports": [1001]},
        {"action": "allow", "hosts": ["127.0.0.3"], "ports": [1002]},
        {"action": "allow", "ops": ["bind", "receive"]},
    ]);
    // It takes two processors, and luck.
    let mut is_misled = false;
    for _ in 0..8 {
        let (bare, guarded) = astray(&network("deny", &rules), sends);
        assert_eq!(guarded.stdout, "[False, False]\n");
        is_misled = bare.contains("True");
        if is_misled {
            break;
        }
    }
    assert!(is_misled, "nobody was misled");
}

#[test]
fn what_waits_to_be_sent_by_ipv4_does_not_go_where_nothing_was_named() {
    let sends = "
denied = [receiver('127.0.0.1', 7005)]
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.connect(('::1', 7005))
mapped = socket.AF_INET6.to_bytes(2, 'little') + (7005).to_bytes(2, 'big') + bytes(4) + socket.inet_pton(socket.AF_INET6, '::ffff:127.0.0.2') + bytes(4)
MORE, DONTWAIT, UDP, CORK, zero = 0x8000, 0x40, 17, 1, bytes(4)
def toggle():
    for _ in range(150_000):
        LIBC.sendto(sock.fileno(), b'x', 1, MORE | DONTWAIT, mapped, 28)
        LIBC.setsockopt(sock.fileno(), UDP, CORK, zero, 4)
while_another(toggle, lambda: LIBC.send(sock.fileno(), b'x', 1, DONTWAIT | 0x4000) * 0)";
    let rules = json!([
        {"action": "allow", "hosts": ["::1", "127.0.0.2"], "ports": [7005]},
        {"action": "allow", "ops": ["bind", "receive"]},
    ]);
    // Without the guard it takes some luck.
    let misled = (0..8).any(|_| {
        let (bare, guarded) = astray(&network("deny", &rules), sends);
        assert_eq!(guarded.stdout, "[False]\n");
        bare == "[True]\n"
    });
    assert!(misled, "nobody was misled");
}

/// Connects with data in the first packet, without asking for leave before (TCP_FASTOPEN_NO_COOKIE).
const FAST: &str = "
with open('/proc/sys/net/ipv4/tcp_fastopen', 'w') as file:
    file.write('1539')
def fast(address, port, text, wait=0.05):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(6, 34, 1)
    sock.settimeout(wait)
    try:
        sock.bind((address, port))
        sock.sendto(text, socket.MSG_FASTOPEN, ('127.0.0.1', 7001))
        sock.recv(1)
    except OSError:
        pass
    sock.close()
";

#[test]
fn data_in_the_first_packet_comes_only_from_who_may_connect() {
    let outside = format!(
        "{FAST}
while True:
    fast('127.0.0.2', 666, b'evil'); fast('127.0.0.3', 53, b'good', 5)"
    );
    // TCPI_OPT_SYN_DATA (include/uapi/linux/tcp.h), in the options that TCP_INFO tells.
    let inside = "
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.setsockopt(6, socket.TCP_FASTOPEN, 5)
sock.bind(('127.0.0.1', 7001))
sock.listen()
sock.settimeout(30)
heard = []
while heard.count('good in the first packet') < 3:
    other, peer = sock.accept()
    other.settimeout(5)
    try:
        text = other.recv(10).decode()
        heard.append(text + (' in the first packet' if other.getsockopt(6, socket.TCP_INFO, 8)[5] & 32 else ' later'))
    except OSError: pass
    other.close()
print(sorted(set(heard)))";
    let policy = network("allow", &json!([{"action": "deny", "ops": ["receive"], "hosts": ["127.0.0.2"]}]));
    let (bare, guarded) = both(&policy, &outside, inside);
    assert!(bare.contains("'evil in the first packet'") && bare.contains("'good in the first packet'"), "{bare}");
    assert!(!guarded.stdout.contains("evil"), "{}", guarded.stdout);
    assert!(guarded.events().iter().all(|event| event["network"]["address"] == "127.0.0.2"), "{:#}", guarded.log);
}

#[test]
fn what_asks_for_a_connection_is_no_part_of_one_that_is_being_made() {
    let outside = format!("{FAST}\nwhile True: fast('127.0.0.2', 666, b'evil')");
    let inside = "
sock = socket.socket()
sock.setsockopt(6, socket.TCP_FASTOPEN, 5)
sock.bind(('127.0.0.1', 7001))
sock.setblocking(False)
fd, peer = sock.fileno(), address('127.0.0.2', 666)
def change():
    until = time.monotonic() + 4
    while time.monotonic() < until:
        LIBC.listen(fd, 5)
        LIBC.connect(fd, UNSPEC, 16)
        LIBC.connect(fd, peer, 16)
        LIBC.connect(fd, UNSPEC, 16)
        LIBC.listen(fd, 5)
        time.sleep(0.0005)
def look():
    try: return sock.accept()[0].recv(10) == b'evil'
    except OSError: return False
print('accepted' if while_another(change, look) else 'nothing')";
    let policy = network("allow", &json!([{"action": "deny", "ops": ["receive"], "hosts": ["127.0.0.2"]}]));
    let (bare, guarded) = both(&policy, &outside, inside);
    assert_eq!(bare, "accepted\n");
    assert_eq!(guarded.stdout, "nothing\n", "{:#}", guarded.log);
}

#[test]
fn who_asks_for_a_connection_is_judged_also_while_the_socket_asks_for_one() {
    // A listener that has no room for one more says nothing, so that who asks it goes on asking.
    let outside = "
def bound():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(('127.0.0.2', 666))
    return sock
full = bound()
full.listen(0)
first, second = socket.socket(), socket.socket()
first.connect(('127.0.0.2', 666))
second.setblocking(False)
second.connect_ex(('127.0.0.2', 666))
# From 127.0.0.1:7001 to 127.0.0.2:666, SYN_SENT.
while '0100007F:1B59 0200007F:029A 02' not in open('/proc/net/tcp').read():
    time.sleep(0.001)
asks = bound()
asks.settimeout(5)
asks.connect(('127.0.0.1', 7001))
time.sleep(5)";
    let inside = "
while ':029A 00000000:0000 0A' not in open('/proc/net/tcp').read():
    time.sleep(0.001)
# When nobody else can be let in.
while open('/proc/net/tcp').read().count('0200007F:029A') < 3:
    time.sleep(0.001)
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(('127.0.0.1', 7001))
sock.settimeout(5)
sock.connect(('127.0.0.2', 666))
print('connected')";
    let policy = network("allow", &json!([{"action": "deny", "ops": ["receive"], "hosts": ["127.0.0.2"]}]));
    let (bare, guarded) = both(&policy, outside, inside);
    // The connection that the command asks for is made in the end, by the answer to what it asks.
    assert_eq!((bare.as_str(), guarded.stdout.as_str()), ("connected\n", "connected\n"));
    let [event] = guarded.events() else { panic!("{:#}", guarded.log) };
    assert_eq!((&event["op"], &event["network"]["address"]), (&json!("receive"), &json!("127.0.0.2")), "{event:#}");
}
