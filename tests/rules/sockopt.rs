//! Sockopt rules deny getsockopt(2) and setsockopt(2) by level and option; what they allow goes on as if there were no
//! guard, failures included. They are advisory: the ways round them that the manual names are tried here, too.

use serde_json::{Value, json};
use support::{Output, Probe, Run, cgroup_only};

fn sockopts(default: &str, rules: &Value) -> Value {
    json!({"version": 1, "sockopts": {"default": default, "rules": rules}})
}

fn deny(rule: &Value) -> Value {
    let mut rule = rule.clone();
    rule["action"] = json!("deny");
    sockopts("allow", &json!([rule]))
}

fn subjects(output: &Output) -> Vec<&Value> {
    output.events().iter().map(|event| &event["sockopt"]).collect()
}

/// TCP_NODELAY (6, 1), TCP_MAXSEG (6, 2), SO_REUSEADDR (1, 2), SO_SNDBUF (1, 7) and IP_TTL (0, 2).
const GET: [&str; 5] = ["get tcp4 6 1 4", "get tcp4 6 2 4", "get tcp4 1 2 4", "get tcp4 1 7 4", "get tcp4 0 2 4"];
const SET: [&str; 5] =
    ["set tcp4 6 1 1", "set tcp4 6 2 1000", "set tcp4 1 2 1", "set tcp4 1 7 65536", "set tcp4 0 2 7"];

#[test]
fn reading_and_setting_are_told_apart() {
    let rule = |access: &str| deny(&json!({"level": "IPPROTO_TCP", "option": "TCP_NODELAY", "access": access}));
    let output = Probe::sockopt().denied([SET[0]]).allowed(GET).check(&rule("set"));
    let expected = json!({"level": "IPPROTO_TCP", "option": "TCP_NODELAY", "access": "set", "value": 1, "length": 4,
                          "advisory": true});
    assert_eq!(subjects(&output), [&expected]);
    let output = Probe::sockopt().denied([GET[0]]).allowed(GET.into_iter().skip(1)).check(&rule("get"));
    let expected =
        json!({"level": "IPPROTO_TCP", "option": "TCP_NODELAY", "access": "get", "length": 4, "advisory": true});
    assert_eq!(subjects(&output), [&expected]);
    let output = Probe::sockopt()
        .denied([GET[0], SET[0]])
        .allowed(GET.into_iter().skip(1))
        .check(&deny(&json!({"option": "TCP_NODELAY"})));
    assert_eq!(subjects(&output).len(), 2);
}

#[test]
fn names_and_numbers_mean_the_same_option() {
    let table = [
        json!({"option": "TCP_NODELAY"}),
        json!({"level": "IPPROTO_TCP", "option": "TCP_NODELAY"}),
        json!({"level": "SOL_TCP", "option": "TCP_NODELAY"}),
        json!({"level": "SOL_TCP", "option": 1}),
        json!({"level": 6, "option": "TCP_NODELAY"}),
        json!({"level": 6, "option": 1}),
    ];
    for rule in table {
        let _ = Probe::sockopt().denied([GET[0], SET[0]]).allowed(GET.into_iter().skip(1)).check(&deny(&rule));
    }
}

#[test]
fn a_rule_without_option_holds_for_the_level_and_one_without_level_for_all() {
    let (get_tcp, get_rest) = GET.split_at(2);
    let _ = Probe::sockopt()
        .denied(get_tcp.iter().copied())
        .denied([SET[0], SET[1]])
        .allowed(get_rest.iter().copied())
        .check(&deny(&json!({"level": "IPPROTO_TCP"})));
    let _ = Probe::sockopt().denied(SET).allowed(GET).check(&deny(&json!({"access": "set"})));
    let _ = Probe::sockopt().denied(SET).denied(GET).check(&deny(&json!({})));
    let _ = Probe::sockopt().denied(SET).denied(GET).check(&sockopts("deny", &json!([])));
}

#[test]
fn the_first_matching_rule_wins_then_the_default() {
    let (one, level) = (json!({"action": "allow", "option": "TCP_NODELAY"}), json!({"action": "deny", "level": 6}));
    let output = Probe::sockopt().denied([GET[1], SET[1]]).allowed([GET[0], SET[0]]);
    let output = output.check(&sockopts("allow", &json!([one, level])));
    assert_eq!(output.events()[0]["rule"], "/sockopts/rules/1");
    let _ = Probe::sockopt().denied([GET[0], GET[1], SET[0]]).check(&sockopts("allow", &json!([level, one])));
    let output = Probe::sockopt()
        .denied(GET.into_iter().skip(1))
        .allowed([GET[0], SET[0]])
        .check(&sockopts("deny", &json!([one])));
    assert!(output.events().iter().all(|event| event["rule"] == "default"));
}

#[test]
fn the_last_of_256_rules_decides_like_the_first() {
    let mut rules: Vec<Value> = (0..255).map(|i| json!({"action": "allow", "level": 9, "option": i})).collect();
    rules.push(json!({"action": "deny", "option": "TCP_NODELAY"}));
    let output = Probe::sockopt()
        .denied([GET[0], SET[0]])
        .allowed(GET.into_iter().skip(1))
        .check(&sockopts("allow", &json!(rules)));
    assert!(output.events().iter().all(|event| event["rule"] == "/sockopts/rules/255"));
}

#[test]
fn every_kind_of_socket_is_judged() {
    let kinds = ["tcp4", "tcp6", "udp4", "udp6", "unix", "netlink", "raw4", "connected4"];
    let all = |how: &str, rest: &str| kinds.map(|kind| format!("{how} {kind} {rest}"));
    let _ =
        Probe::sockopt().denied(all("get", "1 3 4")).denied(all("set", "1 2 1")).allowed(all("get", "1 4 4")).check(
            &sockopts(
                "allow",
                &json!([{"action": "deny", "option": "SO_TYPE"}, {"action": "deny", "option": "SO_REUSEADDR"}]),
            ),
        );
    // The kernel has a way of its own for this one (`tcp_bpf_bypass_getsockopt`).
    let _ =
        Probe::sockopt().denied(["get connected4 6 35 16"]).check(&deny(&json!({"option": "TCP_ZEROCOPY_RECEIVE"})));
}

#[test]
fn a_denial_is_eperm_even_where_the_kernel_would_refuse() {
    let attempts =
        ["get tcp4 9999 1 4", "get tcp4 6 99 4", "set tcp4 9999 1 1", "get tcp4 270 9 4", "set tcp4 6 1 1:1"];
    let _ = Probe::sockopt().denied(attempts).check(&deny(&json!({})));
}

#[test]
fn the_value_that_was_to_be_set_is_in_the_log() {
    let table = [
        ("set tcp4 6 13 text:cubic", json!("6375626963"), 5),
        ("set tcp4 6 13 text:0123456789abcdef", json!("30313233343536373839616263646566"), 16),
        ("set tcp4 6 13 text:0123456789abcdefg", json!("30313233343536373839616263646566…"), 17),
        ("set tcp4 6 13 zeros:5000", json!("00000000000000000000000000000000…"), 5000),
        ("set tcp4 6 13 -5", json!(-5), 4),
        ("set tcp4 6 13 255:1", json!(255), 1),
        ("set tcp4 6 13 258:2", json!("0201"), 2),
        ("set tcp4 6 13 1:0", json!(""), 0),
    ];
    let attempts = table.each_ref().map(|(attempt, ..)| *attempt);
    let output = Probe::sockopt().denied(attempts).check(&deny(&json!({"option": "TCP_CONGESTION", "access": "set"})));
    let logged: Vec<(&Value, &Value)> =
        subjects(&output).iter().map(|sockopt| (&sockopt["value"], &sockopt["length"])).collect();
    let expected = table.map(|(_, value, length)| (value, json!(length)));
    assert_eq!(logged, expected.iter().map(|(value, length)| (value, length)).collect::<Vec<_>>());
}

#[test]
fn numbers_without_a_name_are_logged_as_numbers() {
    let output = Probe::sockopt()
        .denied(["set tcp4 9999 12 1", "set tcp4 6 99 1", "set tcp4 -1 -2 1"])
        .check(&deny(&json!({"access": "set"})));
    let logged: Vec<(&Value, &Value)> =
        subjects(&output).iter().map(|sockopt| (&sockopt["level"], &sockopt["option"])).collect();
    let expected = [(json!(9999), json!(12)), (json!("IPPROTO_TCP"), json!(99)), (json!(-1), json!(-2))];
    assert_eq!(logged, expected.iter().map(|(level, option)| (level, option)).collect::<Vec<_>>());
}

/// Options at each level: such as change something, such as can't be set, such as are not there; with values of every
/// length that the kernel treats apart from others. All must return, leave behind and fail as without the guard.
#[test]
fn what_is_allowed_goes_on_as_without_the_guard() {
    let sockets = ["tcp4", "tcp6", "udp4", "unix", "netlink", "raw4", "connected4"];
    // SO_GET_FILTER counts in instructions; SO_PEERGROUPS fails with the length needed, NETLINK_LIST_MEMBERSHIPS
    // (270, 9) succeeds with it; TCP_ZEROCOPY_RECEIVE (6, 35) is special, and SO_ERROR is another one the second time.
    let readable = [
        "1 3", "1 4", "1 7", "1 13", "1 17", "1 20", "1 26", "1 31", "1 55", "1 57", "1 59", "1 99", "0 1", "0 4",
        "0 9", "0 41", "0 48", "0 64", "0 80", "41 6", "41 26", "41 59", "6 1", "6 11", "6 13", "6 23", "6 28", "6 35",
        "6 40", "6 99", "17 1", "270 9", "270 10", "255 1", "9999 1", "-1 -1", "284 1",
    ];
    let rooms = ["0", "1", "3", "4", "16", "64", "65", "4096", "4097", "70000", "null:0", "null:4", "null:5000"];
    let settable = [
        "1 2", "1 3", "1 7", "1 13", "1 20", "1 25", "1 26", "1 27", "1 44", "1 50", "1 99", "0 1", "0 4", "0 32",
        "0 35", "0 41", "0 42", "0 48", "0 51", "0 64", "41 1", "41 26", "41 42", "41 57", "41 59", "6 1", "6 2",
        "6 13", "6 14", "6 23", "6 31", "6 33", "6 38", "6 99", "17 1", "17 100", "17 103", "270 1", "255 1", "9999 1",
        "-1 -1", "284 1",
    ];
    let values = [
        "1",
        "0",
        "-1",
        "1:0",
        "1:1",
        "1:3",
        "1:-1",
        "zeros:8",
        "zeros:16",
        "zeros:65",
        "zeros:136",
        "zeros:4096",
        "zeros:4097",
        "zeros:70000",
        "text:cubic",
        "text:nosuch",
        "null:0",
    ];
    let mut attempts = Vec::new();
    for kind in sockets {
        for (how, options, lengths) in [("get", &readable[..], &rooms[..]), ("set", &settable, &values)] {
            let each = |option: &&str| {
                lengths.iter().map(move |length| format!("{how} {kind} {option} {length}")).collect::<Vec<_>>()
            };
            attempts.extend(options.iter().flat_map(each));
        }
    }
    let policy = deny(&json!({"level": 2_147_483_647}));
    let output = Probe::sockopt().allowed(attempts.iter().map(String::as_str)).check(&policy);
    assert_eq!(output.sum("denied"), 0);
    // Audit mode changes nothing either, whatever it would have denied.
    let few: Vec<&str> = attempts.iter().map(String::as_str).step_by(7).collect();
    let audit = json!({"version": 1, "mode": "audit", "sockopts": {"default": "deny"}});
    let output = Run::python(&audit, include_str!("../probes/sockopt.py"), &few);
    let (bare, guarded) = (output.bare().success(), output.output().success());
    assert_eq!(guarded.stdout, bare.stdout);
    assert!(guarded.sum("audited") > few.len() as u64 / 2 && guarded.sum("denied") == 0);
}

/// What a hook brings with it before its program is asked (`__cgroup_bpf_run_filter_setsockopt` reads the value, and
/// `__cgroup_bpf_run_filter_getsockopt` looks at the length): if this fails, the manual needs another word.
#[test]
fn the_kernel_checks_values_and_lengths_itself() {
    let attempts = ["get tcp4 9999 1 -1", "set tcp6 41 26 null:4"];
    let run = Run::python(deny(&json!({"level": 9})), include_str!("../probes/sockopt.py"), &attempts);
    let errors = |output: &Output| -> Vec<String> {
        output
            .stdout
            .lines()
            .map(|line| line.split(": ").nth(1).unwrap().split(' ').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(errors(&run.bare().success()), ["ENOTSUP", "ok"]);
    assert_eq!(errors(&run.output().success()), ["EINVAL", "EFAULT"]);
}

#[test]
fn a_hook_is_there_only_if_something_can_be_denied_at_it_and_is_called_advisory() {
    let table: [(Value, &[&str]); 6] = [
        (sockopts("allow", &json!([])), &[]),
        (sockopts("allow", &json!([{"action": "allow", "level": 6}])), &[]),
        (deny(&json!({"access": "get"})), &["getsockopt"]),
        (deny(&json!({"access": "set"})), &["setsockopt"]),
        (deny(&json!({"level": 6})), &["getsockopt", "setsockopt"]),
        (sockopts("deny", &json!([])), &["getsockopt", "setsockopt"]),
    ];
    for (policy, expected) in table {
        let output = Run::new(cgroup_only(&policy), ["true"]).output().success();
        let enforced = &output.log["enforced"];
        let hooks = enforced["hooks"].as_array().unwrap();
        assert_eq!(hooks.iter().map(|hook| hook["hook"].as_str().unwrap()).collect::<Vec<_>>(), expected, "{policy}");
        assert!(hooks.iter().all(|hook| hook["advisory"] == true));
        let unrestricted = enforced["unrestricted"].as_array().unwrap().contains(&json!("sockopts"));
        assert_eq!(unrestricted, expected.is_empty(), "{policy}");
    }
    let output =
        Run::new(json!({"version": 1, "devices": {"default": "deny", "rules": [{"action": "allow"}]}}), ["true"])
            .output()
            .success();
    assert!(output.hook("device").get("advisory").is_none());
}

/// The ways round these rules that the manual names, as far as a program without a compiler can go them.
#[test]
fn there_are_ways_round_these_rules() {
    const PROGRAM: &str = "import ctypes, socket
libc = ctypes.CDLL(None, use_errno=True)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
kind, length = ctypes.c_int(-1), ctypes.c_int(4)
print(libc.getsockopt(sock.fileno(), 1, 3, ctypes.byref(kind), ctypes.byref(length)), kind.value)
try: sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 7)
except PermissionError: print('denied')
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.bind(('127.0.0.1', 0))
peer.settimeout(10)
sock.sendmsg([b'x'], [(socket.IPPROTO_IP, socket.IP_TTL, (7).to_bytes(4, 'little'))], 0, peer.getsockname())
print(peer.recv(1))";
    let output = Run::python(sockopts("deny", &json!([])), PROGRAM, &[]).output().success();
    // The call has failed, and yet the buffer has the type of the socket; the message has left with its own TTL.
    assert_eq!(output.stdout, "-1 2\ndenied\nb'x'\n");
}

/// The system call of 32-bit programs, which any program can make.
#[cfg(target_arch = "x86_64")]
#[test]
fn int_0x80_is_a_way_round_these_rules() {
    // A function of the number and five arguments, in machine code: mov eax, edi; mov ebx, esi; … int 0x80.
    const PROGRAM: &str = "import ctypes, mmap, socket
MAP_32BIT = 0x40
low = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT, prot=7)
low[:28] = bytes.fromhex('53 89f8 89f3 4189ca 89d1 4489d2 4489c6 4489cf cd80 5b 4898 c3').ljust(28, b'\\0')
low[64:72] = (1).to_bytes(4, 'little') + (4).to_bytes(4, 'little')
start = ctypes.addressof(ctypes.c_char.from_buffer(low))
int80 = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 6)(start)
SETSOCKOPT, GETSOCKOPT = 366, 365
sock = socket.socket()
for call in (lambda: sock.setsockopt(6, 1, 1), lambda: sock.getsockopt(6, 1)):
    try: print(call())
    except PermissionError: print('denied')
print(int80(SETSOCKOPT, sock.fileno(), 6, 1, start + 64, 4), end=' ')
low[64:68] = bytes(4)
print(int80(GETSOCKOPT, sock.fileno(), 6, 1, start + 64, start + 68), low[64])";
    let mut policy = deny(&json!({"option": "TCP_NODELAY"}));
    let run = Run::python(&policy, PROGRAM, &[]);
    // Therefore it ends anybody who tries, unless the policy names such system calls.
    let _ = run.output().exits(128 + libc::SIGSYS);
    policy["process"] = json!({"architectures": ["x86"]});
    let run = Run::python(&policy, PROGRAM, &[]);
    assert_eq!(run.bare().success().stdout, "None\n1\n0 0 1\n");
    assert_eq!(run.output().success().stdout, "denied\ndenied\n0 0 1\n");
}

#[test]
fn explain_and_the_line_at_the_end_say_that_it_is_advice() {
    let run = Run::python(
        deny(&json!({"option": "SO_REUSEADDR", "access": "set"})),
        include_str!("../probes/sockopt.py"),
        &["set tcp4 1 2 1"],
    );
    let output = run.output().success();
    assert!(
        output.stderr.contains("sockopt set SOL_SOCKET SO_REUSEADDR = 1 (advisory) [/sockopts/rules/0]"),
        "{output:?}"
    );
    let explained = run.subcommand("explain", &["sockopt", "set", "SOL_SOCKET", "SO_REUSEADDR"]).exits(1);
    assert_eq!(
        explained.stdout.lines().next(),
        Some("sockopt set SOL_SOCKET SO_REUSEADDR (advisory): denied by /sockopts/rules/0")
    );
    let _ = run.subcommand("explain", &["sockopt", "set", "1", "2"]).exits(1);
    let _ = run.subcommand("explain", &["sockopt", "get", "1", "2"]).success();
    let refused = run.subcommand("explain", &["sockopt", "set", "SOL_SOCKET", "TCP_NODELAY"]).exits(125);
    assert!(refused.stderr.contains("IPPROTO_TCP"), "{refused:?}");
}
