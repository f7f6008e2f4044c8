//! `"hosts": ["sandbox"]`: the sockets that processes of this same sandbox have made, on loopback, and nothing else there.

use std::fs;

use serde_json::{Value, json};
use support::{Output, PYTHON, Run, cgroup_only};

const SHARED: &str = include_str!("../probes/sandbox.py");

/// A policy by which the command may do anything with its own sockets, and nothing with others.
fn policy() -> Value {
    json!({"version": 1, "network": {"default": "deny", "rules": [{"action": "allow", "hosts": ["sandbox"]}]}})
}

/// A scenario with servers outside the sandbox: what it printed without the guard, the guarded run, and what the servers
/// heard in that.
fn scenario(network: &[&str], servers: &[&str], program: &str) -> (String, Output, String) {
    let run = Run::python(cgroup_only(&policy()), &format!("{SHARED}\n{program}"), &[]);
    let heard = run.folder().join("heard");
    let outside = run.folder().join("outside.py");
    fs::write(&outside, format!("{SHARED}\n{}", include_str!("../probes/outside.py"))).unwrap();
    let files = [outside.to_str().unwrap().to_owned(), heard.to_str().unwrap().to_owned()];
    let mut wrapper: Vec<&str> = network.to_vec();
    wrapper.extend([PYTHON, &files[0], &files[1]]);
    wrapper.extend(servers);
    wrapper.push("--");
    let run = run.through(&wrapper);
    let bare = run.bare().success().stdout;
    // There may have been none, and then there is no file.
    let _ = fs::remove_file(&heard);
    let guarded = run.output().success();
    (bare, guarded, fs::read_to_string(&heard).unwrap_or_default())
}

/// A network namespace with a device `v0` to the world, to which everything goes but loopback; and 10.0.0.1 on loopback.
const WORLD: [&str; 6] = [
    "unshare",
    "--net",
    "sh",
    "-c",
    "set -e
ip link set lo up
ip addr add 10.0.0.1/32 dev lo
ip link add v0 type veth peer name v1
ip link set v0 up
ip link set v1 up
ip addr add 10.9.0.2/24 dev v0
ip -6 addr add fd00::2/64 dev v0 nodad
ip route add default via 10.9.0.1
ip -6 route add default via fd00::1
ip neigh add 10.9.0.1 lladdr 02:00:00:00:00:01 dev v0
ip -6 neigh add fd00::1 lladdr 02:00:00:00:00:01 dev v0
exec \"$@\"",
    "sh",
];

#[test]
fn its_own_listeners_are_reached_by_every_kind_of_socket() {
    let (bare, guarded, _) = scenario(
        &[],
        &[],
        "
for server, client, where, to in [
    ('tcp4', 'tcp4', '127.0.0.1', '127.0.0.1'), ('tcp4', 'tcp4', '127.9.9.9', '127.9.9.9'),
    ('tcp4', 'tcp4', '0.0.0.0', '127.0.0.3'), ('tcp4', 'tcp4', '0.0.0.0', '0.0.0.0'),
    ('tcp4', 'tcp6', '127.0.0.1', '::ffff:127.0.0.1'), ('tcp6', 'tcp6', '::1', '::1'), ('tcp6', 'tcp6', '::', '::'),
    ('tcp6', 'tcp4', '::', '127.0.0.1'), ('tcp6', 'tcp6', '::', '::ffff:127.0.0.1'),
    ('tcp6', 'tcp4', '::ffff:127.0.0.1', '127.0.0.1'),
    ('mptcp4', 'tcp4', '127.0.0.1', '127.0.0.1'), ('mptcp6', 'mptcp4', '::', '127.0.0.1'),
    ('mptcp4', 'mptcp4', '127.0.0.1', '127.0.0.1'), ('tcp4', 'mptcp4', '0.0.0.0', '127.0.0.1'),
    ('udp4', 'udp4', '127.0.0.1', '127.0.0.1'), ('udp4', 'udp4', '0.0.0.0', '127.0.0.1'),
    ('udp4', 'udp4', '0.0.0.0', '0.0.0.0'), ('udp6', 'udp4', '::', '127.0.0.1'),
    ('udp6', 'udp6', '::1', '::1'), ('udp6', 'udp6', '::', '::ffff:127.0.0.1'), ('udp6', 'udp6', '::', '::'),
]:
    sock, port = serve(server, where)
    print(server, client, where, to, ask(client, to, port), end=' ')
    if client.startswith('udp'): print(ask(client.replace('udp', 'udp_to'), to, port), end=' ')
    child = os.fork()
    if child == 0:
        print(ask(client, to, port), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    sock.close()
# A group of listeners; and a client that comes back from the same port, which the server has closed first.
group = [serve('tcp4', '127.0.0.1', options=['reuseport'])]
port = group[0][1]
group += [serve('tcp4', '127.0.0.1', port, ['reuseport']) for _ in range(3)]
print({ask('tcp4', '127.0.0.1', port) for _ in range(50)})
_, port = serve('tcp4', '127.0.0.1')
mine = bound('tcp4', '127.0.0.1'); source = mine.getsockname(); mine.close()
print([ask('tcp4', '127.0.0.1', port, ['reuseaddr'], source) for _ in range(3)])
# Who listens without having been bound.
lazy = make('tcp4'); lazy.listen(); lazy.settimeout(None); answer(lazy, b'lazy')
print(ask('tcp4', '127.0.0.1', lazy.getsockname()[1]))
# Two that are connected to each other.
one, two = bound('udp4', '127.0.0.1'), bound('udp4', '127.0.0.1')
one.connect(two.getsockname()); two.connect(one.getsockname())
one.send(b'there'); print(two.recv(9)); two.send(b'back'); print(one.recv(9))
",
    );
    let answers = bare.lines().take(21).all(|line| line.ends_with(" in") && !line.contains("timeout"));
    assert!(answers && bare.contains("{'in'}\n['in', 'in', 'in']\nlazy\n"), "{bare}");
    assert_eq!(guarded.stdout, bare);
    assert!(guarded.events().is_empty(), "{:#}", guarded.log);
}

#[test]
fn listeners_outside_are_not_reached() {
    let servers = ["tcp4:127.0.0.2", "udp4:127.0.0.2", "tcp6:::1", "udp6:::1", "mptcp4:127.0.0.4"];
    let (bare, guarded, heard) = scenario(
        &[],
        &servers,
        "
# The same port at another address is the sandbox's own.
serve('tcp4', '127.0.0.1', OUTSIDE); serve('udp4', '127.0.0.1', OUTSIDE)
for kind in ['tcp4', 'mptcp4', 'udp4', 'udp_to4']:
    print(ask(kind, '127.0.0.1', OUTSIDE), ask(kind, '127.0.0.2', OUTSIDE), ask('tcp4', '127.0.0.4', OUTSIDE))
for kind in ['tcp6', 'udp6', 'udp_to6']:
    print(ask(kind, '::ffff:127.0.0.1', OUTSIDE), ask(kind, '::ffff:127.0.0.2', OUTSIDE), ask(kind, '::1', OUTSIDE))
    print(ask(kind, '::', OUTSIDE))
",
    );
    assert_eq!(bare, "in out out\n".repeat(4) + &"in out out\nout\n".repeat(3));
    assert_eq!(guarded.stdout, "in EPERM EPERM\n".repeat(4) + &"in EPERM EPERM\nEPERM\n".repeat(3));
    assert_eq!(heard, "");
    let event = &guarded.events()[0];
    assert_eq!(
        (&event["op"], &event["hook"], &event["rule"]),
        (&json!("connect"), &json!("connect4"), &json!("default"))
    );
    assert_eq!(event["network"]["address"], "127.0.0.2");
}

#[test]
fn what_would_go_to_an_outside_member_of_a_group_fails() {
    const PROGRAM: &str = "
inside = [serve('tcp4', '127.0.0.1', OUTSIDE, ['reuseport']) for _ in range(9)]
serve_udp = [serve('udp4', '127.0.0.1', OUTSIDE, ['reuseport']) for _ in range(9)]
def many(kind): return collections.Counter(ask(kind, '127.0.0.1', OUTSIDE) for _ in range(120))
def show(counter): print(*(f'{word} {counter[word]}' for word in ('in', 'out')), flush=True)
show(many('tcp4')); show(many('udp4')); show(many('udp_to4'))
# A program that always chooses the first of the group.
for sock in (inside[0][0], serve_udp[0][0]):
    try: choose_first(sock)
    except OSError as error: print(errno.errorcode[error.errno])
show(collections.Counter(ask(kind, '127.0.0.1', OUTSIDE) for kind in ['tcp4', 'udp4'] * 5))
";
    let servers = ["tcp4+reuseport:127.0.0.1", "udp4+reuseport:127.0.0.1"];
    let (bare, guarded, heard) = scenario(&[], &servers, PROGRAM);
    assert!(bare.ends_with("in 0 out 10\n") && !bare.contains("in 120"), "the outside one gets some: {bare}");
    assert_eq!(heard, "", "{}", guarded.stdout);
    assert!(guarded.stdout.contains("EPERM\nEPERM\n") && !guarded.stdout.contains("out 1"), "{}", guarded.stdout);
    // Nine of ten of 120, or none.
    assert!(["in 9", "in 1", "in 0"].iter().any(|start| guarded.stdout.starts_with(start)), "{}", guarded.stdout);
    let reason = guarded.events().iter().find_map(|event| event["reason"].as_str());
    assert!(reason.is_some_and(|reason| reason.contains("the sandbox's own sockets")), "{:#}", guarded.log);
}

#[test]
fn a_program_of_the_outside_members_can_not_choose_for_the_sandbox() {
    // The outside server has chosen to get all of it, whoever joins the group.
    let (bare, guarded, heard) = scenario(
        &[],
        &["tcp4+reuseport+first:127.0.0.1"],
        "
serve_all = [serve('tcp4', '127.0.0.1', OUTSIDE, ['reuseport']) for _ in range(20)]
print({ask('tcp4', '127.0.0.1', OUTSIDE) for _ in range(4)})
",
    );
    assert_eq!(bare, "{'out'}\n");
    assert!(["{'timeout'}\n", "{'EPERM'}\n"].contains(&guarded.stdout.as_str()), "{}", guarded.stdout);
    assert_eq!(heard, "");
}

#[test]
fn a_peer_that_was_replaced_is_not_reached() {
    let (bare, guarded, heard) = scenario(
        &[],
        &["udp4+reuseaddr:127.0.0.1", "tcp4:127.0.0.1"],
        "
mine, port = serve('udp4', '127.0.0.1', OUTSIDE, ['reuseaddr'])
client = make('udp4'); client.connect(('127.0.0.1', OUTSIDE)); client.send(b'one'); print(client.recv(9))
# Only the outside one is left.
os.close(mine.detach())
time.sleep(0.1)
def again():
    try: client.send(b'two'); return client.recv(9)
    except OSError as error: return errno.errorcode.get(error.errno, 'timeout')
print(again() if again() != b'in' else again())
listener = bound('tcp4', '127.0.0.1'); port = listener.getsockname()[1]; listener.close()
print(ask('tcp4', '127.0.0.1', port))
",
    );
    assert_eq!(bare, "b'in'\nb'out'\nECONNREFUSED\n");
    // The last is the kernel's own answer: nobody is there.
    assert_eq!(guarded.stdout, "b'in'\nEPERM\nECONNREFUSED\n");
    assert_eq!(heard, "");
}

/// Prints what each kind of socket gets where nobody is.
const ALL_KINDS: &str = "
for kind, to in [
    ('tcp4', '127.0.0.1'), ('tcp4', '0.0.0.0'), ('tcp6', '::1'), ('tcp6', '::ffff:127.0.0.1'), ('mptcp4', '127.0.0.1'),
    ('udp4', '127.0.0.1'), ('udp6', '::1'), ('udp6', '::ffff:127.0.0.1'),
]:
    free = bound('tcp6', '::', options=['dual']); port = free.getsockname()[1]; free.close()
    print(kind, to, ask(kind, to, port))
sock = make('udp_to4')
sock.sendto(b'x', ('127.0.0.1', port)); print('sent')
listener = bound('tcp4', '127.0.0.1'); port = listener.getsockname()[1]; listener.close()
print(make('tcp4').connect_ex(('127.0.0.1', port)) == errno.ECONNREFUSED)
";

#[test]
fn where_nobody_listens_the_kernel_says_so() {
    let (bare, guarded, _) = scenario(&[], &[], ALL_KINDS);
    assert_eq!(bare.matches("ECONNREFUSED").count(), 8, "{bare}");
    assert_eq!(guarded.stdout, bare, "{:#}", guarded.log);
    assert_eq!(guarded.events(), [] as [Value; 0]);
    // Rules that don't allow that port to the sandbox's own sockets are asked as if one were there.
    let rules = json!([{"action": "allow", "hosts": ["sandbox"], "ports": [7001]}]);
    let none = json!({"version": 1, "network": {"default": "deny", "rules": rules}});
    let program = format!("{SHARED}\nprint(ask('tcp4', '127.0.0.1', 7001), ask('tcp4', '127.0.0.1', 7002))");
    let output = Run::python(cgroup_only(&none), &program, &[]).through(WORLD).output().success();
    assert_eq!((output.stdout.as_str(), output.events().len()), ("ECONNREFUSED EPERM\n", 1));
}

#[test]
fn a_client_waits_for_its_own_server() {
    // The server begins to listen when the client has been refused.
    let program = "
import http.server, subprocess
free = bound('tcp4', '127.0.0.1'); port = free.getsockname()[1]; free.close()
client = subprocess.Popen(['curl', '--silent', '--verbose', '--noproxy', '*', '--retry', '60', '--retry-delay', '1', '--retry-connrefused',
    f'http://127.0.0.1:{port}/'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
for line in client.stderr:
    if 'Connection refused' in line: break
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'hello')
    def log_message(self, *_): pass
server = http.server.HTTPServer(('127.0.0.1', port), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
threading.Thread(target=client.stderr.read, daemon=True).start()
print(client.stdout.read(), client.wait())
";
    let run = Run::python(policy(), &format!("{SHARED}\n{program}"), &[]);
    let guarded = run.output().success();
    assert_eq!((guarded.stdout.as_str(), guarded.events().len()), ("hello 0\n", 0), "{:#}", guarded.log);
}

#[test]
fn listeners_that_are_bound_to_the_loopback_device() {
    let (bare, guarded, heard) = scenario(
        &WORLD,
        &["tcp4+lo:127.0.0.1", "udp4+lo:127.0.0.1"],
        "
for kind, where in [('tcp4', '127.0.0.1'), ('tcp6', '::1'), ('udp4', '127.0.0.1'), ('udp6', '::1')]:
    _, port = serve(kind, where, options=['lo'])
    print(kind, ask(kind, where, port), ask(kind, where, port, ['lo']))
print('outside', ask('tcp4', '127.0.0.1', OUTSIDE), ask('udp4', '127.0.0.1', OUTSIDE))
",
    );
    let own: String = ["tcp4", "tcp6", "udp4", "udp6"].map(|kind| format!("{kind} in in\n")).concat();
    assert_eq!(bare, format!("{own}outside out out\n"));
    // The kernel sends what asks for a connection again, until the client gives up.
    assert_eq!(guarded.stdout, format!("{own}outside timeout EPERM\n"), "{:#}", guarded.log);
    assert_eq!(heard, "");
    assert!(guarded.events().iter().all(|event| event["hook"] == "egress"), "{:#}", guarded.log);
}

#[test]
fn what_goes_to_nobody_goes_nowhere_else() {
    // The kernel puts an address of the outside in the place of one at which nobody listens.
    let translated = "iptables -t nat -A OUTPUT -d 127.0.0.1 -p udp --dport 7009 -j DNAT --to 10.9.0.1:7009
iptables -t nat -A OUTPUT -d 127.0.0.1 -p tcp --dport 7009 -j DNAT --to 10.9.0.1:7009
sysctl -qw net.ipv4.conf.all.route_localnet=1
exec \"$@\"";
    let mut network = WORLD;
    let world = WORLD[4].replace("exec \"$@\"", translated);
    network[4] = &world;
    let (bare, guarded, _) = scenario(
        &network,
        &[],
        "
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
frames.bind(('v1', 3)); frames.settimeout(1)
def left():
    try:
        while True:
            if b'\\x1b\\x61' in frames.recv(200)[34:38]: return 'left'
    except TimeoutError:
        return 'nothing'
for kind in ['udp4', 'udp_to4', 'tcp4']:
    print(kind, ask(kind, '127.0.0.1', 7009) in ('timeout', 'EPERM'), left())
",
    );
    assert_eq!(bare, "udp4 True left\nudp_to4 True left\ntcp4 True left\n");
    assert_eq!(guarded.stdout, "udp4 True nothing\nudp_to4 True nothing\ntcp4 True nothing\n", "{:#}", guarded.log);
    assert!(guarded.events().iter().all(|event| event["network"]["address"] == "10.9.0.1"), "{:#}", guarded.log);
}

#[test]
fn what_is_sent_to_all_is_not_for_the_sandbox_alone() {
    let (bare, guarded, heard) = scenario(
        &WORLD,
        &["udp4+reuseaddr:0.0.0.0"],
        "
serve('udp4', '0.0.0.0', OUTSIDE, ['reuseaddr'])
print(ask('udp_to4', '127.255.255.255', OUTSIDE, ['broadcast']) in ('in', 'out'))
",
    );
    assert_eq!((bare.as_str(), guarded.stdout.as_str(), heard.as_str()), ("True\n", "False\n", ""));
    assert_eq!(guarded.events()[0]["network"]["address"], "127.255.255.255");
}

#[test]
fn only_what_stays_on_this_host_is_the_sandboxs() {
    let (bare, guarded, _) = scenario(
        &WORLD,
        &["tcp4:127.0.0.1"],
        "
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); wire.bind(('v1', 0)); wire.setblocking(False)
def frames():
    try:
        while True: yield wire.recv(2000)
    except BlockingIOError: return
for family, any_address, loopback in [('4', '0.0.0.0', '127.0.0.1'), ('6', '::', '::1')]:
    for kind in ['tcp', 'udp', 'udp_to']:
        sock, port = serve(kind.replace('_to', '') + family, any_address)
        print(ask(kind + family, loopback, port), ask(kind + family, loopback, port, ['device']))
sock, port = serve('tcp4', '0.0.0.0')
print(ask('tcp4', '127.0.0.1', port), ask('tcp4', '10.0.0.1', port), ask('tcp6', '::ffff:10.0.0.1', port))
sock, port = serve('tcp4', '10.0.0.1')
print(ask('tcp4', '10.0.0.1', port))
for option in 'freebind', 'transparent':
    sock, port = serve('tcp4', '8.8.8.8', 0, [option])
    print(ask('tcp4', '8.8.8.8', port))
# What was asked, or TCP by IPv4 or IPv6.
print(any(b'question' in frame or 6 in (frame[20], frame[23]) for frame in frames()))
",
    );
    assert_eq!(
        bare,
        "in timeout\n".repeat(6) + "in in in\nin\ntimeout\ntimeout\nTrue\n",
        "over the wire, without the guard"
    );
    let expected = ["in timeout\n", "in EPERM\n", "in EPERM\n"].concat().repeat(2)
        + "in EPERM EPERM\nEPERM\nEPERM\nEPERM\nFalse\n";
    assert_eq!(guarded.stdout, expected);
}

#[test]
fn a_sockets_maker_counts_and_not_who_has_it() {
    let (bare, guarded, _) = scenario(
        &[],
        &["tcp4:127.0.0.1"],
        "
keeper = socket.socket(socket.AF_UNIX); keeper.connect(b'\\0' + os.environ['KEEPER'].encode())
def keep(word, sock):
    socket.send_fds(keeper, [word], [sock.fileno()])
    return keeper.recv(100).decode()
# Made inside, and used outside.
print(keep(b'connect', make('tcp4')))
mine = bound('tcp4', '127.0.0.1'); port = mine.getsockname()[1]
print(keep(b'answer', mine)); mine.close()
print(ask('tcp4', '127.0.0.1', port))
# Made outside, and used inside.
keeper.sendall(b'give')
given = socket.socket(fileno=socket.recv_fds(keeper, 1, 1)[1][0])
print(ask('tcp4', '127.0.0.1', given.getsockname()[1]))
",
    );
    assert_eq!(bare, "done\ndone\nkept\ngiven\n");
    assert_eq!(guarded.stdout, "EPERM\ndone\nkept\nEPERM\n");
}

#[test]
fn audit_mode_reaches_everybody_and_records() {
    let mut policy = policy();
    policy["mode"] = json!("audit");
    let (tcp, udp) = (support::TcpServer::start("127.0.0.1"), support::UdpServer::start("::1"));
    let program = format!(
        "{SHARED}\nprint(ask('udp6', '::1', int(sys.argv[2])))
socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
    );
    let output = Run::python(&policy, &program, &[&tcp.port().to_string(), &udp.port().to_string()]).output().success();
    assert_eq!((output.stdout.as_str(), tcp.accepted()), ("question\n", 1));
    // Each at the system call, and once more when the packet leaves or the answer comes.
    assert!(
        output.sum("audited") >= 4 && output.events().iter().all(|event| event["op"] == "connect"),
        "{:#}",
        output.log
    );
}

#[test]
fn another_sandbox_is_outside() {
    let serve = format!(
        "{SHARED}\n_, port = serve('tcp4', '127.0.0.1'); serve('udp4', '127.0.0.1', port)
print(port, ask('tcp4', '127.0.0.1', port), flush=True)\nsys.stdin.read()"
    );
    let (stdin, hold) = std::io::pipe().unwrap();
    let mut first = Run::python(policy(), &serve, &[]).stdin(stdin).start();
    first.wait_for(" in\n");
    let port = first.stdout().split(' ').next().unwrap().to_owned();
    let ask = format!(
        "{SHARED}\nport = int(sys.argv[1])
print(ask('tcp4', '127.0.0.1', port), ask('udp4', '127.0.0.1', port), ask('udp_to4', '127.0.0.1', port))"
    );
    let run = Run::python(policy(), &ask, &[&port]);
    assert_eq!(run.output().success().stdout, "EPERM EPERM EPERM\n");
    // The first one does not let anybody in either.
    assert_eq!(run.bare().success().stdout, "timeout timeout timeout\n");
    drop(hold);
    let first = first.wait().success();
    assert!(
        first.events().iter().all(|event| event["op"] == "receive" && event["hook"] == "ingress"),
        "{:#}",
        first.log
    );
    assert!(first.events().iter().all(|event| event["process"]["comm"] == "python3"), "{:#}", first.log);
    assert_eq!(first.events().len(), 3);
}
