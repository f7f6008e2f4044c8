//! What the compiled tables decide, compared with the plainest reading of the policy (`oracle`).

mod generate;
mod oracle;

use std::net::Ipv6Addr;

use common::{
    Decision,
    decision::{DEFAULT, OWN_HEADERS, PORT_RANGE, RECEIVER_CHOICE, UNJUDGED_SOCKET, UNSEEN_COPY},
    net,
    record::Hook,
};
use generate::{Case, DecidedBy as _, case, parse, sysctl::names_of_so_many_states};
use oracle::{Device, Net, Socket, Sockopt, Sysctl, Unix};
use policy::compile::{CompileError, MAX_STATES, Tables};
use proptest::prelude::*;
use serde_json::{Value, json};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_decide_as_the_rules_read(case in case()) {
        let Case { policy, nets, devices, sysctls, sockets, sockopts, unix, .. } = case;
        let tables = match Tables::compile(&policy) {
            Ok(tables) => tables,
            Err(CompileError::TooManyNames | CompileError::TooManyPaths) => return Err(TestCaseError::reject("too many names")),
            Err(error @ CompileError::NoNameservers) => panic!("{error}"),
        };
        for request in nets {
            let expected = oracle::net(policy.network.as_ref().unwrap(), request);
            prop_assert_eq!(request.decided_by(tables.network.as_ref().unwrap()), expected, "{:?}", request);
        }
        for request in devices {
            let expected = oracle::device(policy.devices.as_ref().unwrap(), request);
            prop_assert_eq!(request.decided_by(tables.devices.as_ref().unwrap()), expected, "{:?}", request);
        }
        for request in sysctls {
            let expected = oracle::sysctl(&policy, &request);
            prop_assert_eq!(request.decided_by(tables.sysctls.as_ref().unwrap()), expected, "{:?}", request);
        }
        for request in unix {
            let (section, tables) = (policy.unix.as_ref().unwrap(), tables.unix.as_ref().unwrap());
            let (decision, expected) = (request.decided_by(tables), oracle::unix(section, &request));
            prop_assert_eq!(decision.allow, expected.allow, "{:?}", request);
            let unreported = section.unreported();
            let is_told = |decision: Decision| decision.allow || !unreported.contains(decision.rule.into());
            prop_assert_eq!(is_told(decision), is_told(expected), "{:?}", request);
            // Where nothing that comes of it depends on a path, which of the rules on some paths would have matched isn't found out.
            if tables.asks_for_peer {
                prop_assert_eq!(decision, expected, "{:?}", request);
            }
        }
        for request in sockets {
            let decision = request.decided_by(tables.sockets.as_ref().unwrap());
            // What else is refused than by the section has a test of its own.
            if ![UNJUDGED_SOCKET, OWN_HEADERS, UNSEEN_COPY].contains(&decision.rule) {
                prop_assert_eq!(decision, oracle::socket(policy.sockets.as_ref().unwrap(), request), "{:?}", request);
            }
        }
        for request in sockopts {
            let decision = request.decided_by(tables.sockopts.as_ref().unwrap());
            if ![PORT_RANGE, RECEIVER_CHOICE, OWN_HEADERS].contains(&decision.rule) {
                let expected = oracle::sockopt(policy.sockopts.as_ref().unwrap(), request);
                prop_assert_eq!(decision, expected, "{:?}", request);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// A port that the kernel may have chosen counts as itself and as such a one, and the first rule on either decides. Of UDP, only a
    /// rule that names ports denies it.
    #[test]
    fn ports_that_nobody_asked_for(case in case()) {
        let Case { policy, nets, .. } = case;
        let Some(section) = policy.network.as_ref() else { return Ok(()) };
        let Ok(Tables { network: Some(tables), .. }) = Tables::compile(&policy) else { return Ok(()) };
        for request in nets {
            for protocol in [6, 17] {
                let asked = Net { op: 1, protocol, own: true, ..request };
                let (itself, chosen) = (oracle::net(section, asked), oracle::net(section, Net { port: 0, ..asked }));
                let first = if itself.rule <= chosen.rule { itself } else { chosen };
                let listener = |asked_for| net::decide_listener(&tables.table, &tables, &kernels(asked), asked_for).unwrap();
                prop_assert_eq!(listener(u32::MAX), itself, "{:?}", asked);
                prop_assert_eq!(listener(0), first, "{:?}", asked);
                if protocol == 17 {
                    let named = section.rules.get(usize::from(first.rule)).is_some_and(|rule| rule.ports.is_some());
                    let decision = net::decide_udp_port(&tables.table, &tables, &kernels(asked)).unwrap();
                    let expected = Decision { allow: first.allow || !named, ..first };
                    prop_assert_eq!(decision, expected, "{:?}", asked);
                    prop_assert!(decision.allow || tables.table.judges_udp_ports != 0);
                }
            }
        }
    }
}

/// A request as the kernel's programs put it.
fn kernels(Net { op, protocol, address, port, own }: Net) -> net::Request {
    net::Request {
        op: net::Op::ALL[usize::from(op)],
        protocol: net::Protocol::from_ipproto(protocol.into()),
        address: net::Address::from_bits(address.to_bits()),
        port,
        own: own.into(),
    }
}

/// By the first rule, by no rule.
const DENIED: Decision = Decision { allow: false, rule: 0 };
const ALLOWED: Decision = Decision { allow: true, rule: DEFAULT };

fn connect(rule: &str, protocol: u8, peer: &str, port: u16) -> Decision {
    let policy = parse(&format!(r#"{{"version": 1, "network": {{"default": "allow", "rules": [{rule}]}}}}"#));
    let address = peer.parse().unwrap();
    let request = Net::connect(protocol, address, port);
    let decision = request.decided_by(&Tables::compile(&policy).unwrap().network.unwrap());
    assert_eq!(oracle::net(policy.network.as_ref().unwrap(), request), decision, "the oracle on {rule} {peer}");
    decision
}

#[test]
fn the_families_are_separate() {
    let table = [
        ("::/0", "2001:db8::1", DENIED),
        ("::/0", "::1", DENIED),
        ("::/0", "::ffff:10.0.0.1", ALLOWED),
        ("::/80", "::ffff:10.0.0.1", ALLOWED),
        ("::fffe:0:0/95", "::ffff:10.0.0.1", ALLOWED),
        ("::fffe:0:0/95", "::fffe:10.0.0.1", DENIED),
        ("0.0.0.0/0", "::ffff:10.0.0.1", DENIED),
        ("0.0.0.0/0", "::ffff:255.255.255.255", DENIED),
        ("0.0.0.0/0", "::10.0.0.1", ALLOWED),
        ("0.0.0.0/0", "::1:0:0:0", ALLOWED),
        ("::ffff:0:0/96", "::ffff:10.0.0.1", DENIED),
        ("127.0.0.1", "::ffff:127.0.0.1", DENIED),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", DENIED),
        ("127.0.0.1", "::1", ALLOWED),
        ("loopback", "::1", DENIED),
        ("loopback", "::ffff:127.255.255.255", DENIED),
        ("loopback", "::ffff:128.0.0.0", ALLOWED),
        ("any", "::ffff:10.0.0.1", DENIED),
        ("any", "2001:db8::1", DENIED),
        ("metadata", "::ffff:169.254.169.254", DENIED),
        ("metadata", "::ffff:169.254.169.253", ALLOWED),
        ("private", "::ffff:172.31.255.255", DENIED),
        ("private", "::ffff:172.32.0.0", ALLOWED),
    ];
    for (host, peer, expected) in table {
        let rule = format!(r#"{{"action": "deny", "hosts": ["{host}"]}}"#);
        assert_eq!(connect(&rule, 6, peer, 443), expected, "{host} {peer}");
    }
}

#[test]
fn protocols() {
    let table = [
        (r#"["tcp"]"#, 6, DENIED),
        (r#"["tcp"]"#, 17, ALLOWED),
        (r#"["udp"]"#, 17, DENIED),
        (r#"["udp"]"#, 136, ALLOWED),
        (r#"["udp", "tcp"]"#, 6, DENIED),
        (r#"["udp", "tcp"]"#, 132, ALLOWED),
        (r#"["any"]"#, 132, DENIED),
    ];
    for (protocols, protocol, expected) in table {
        let rule = format!(r#"{{"action": "deny", "protocols": {protocols}}}"#);
        assert_eq!(connect(&rule, protocol, "::1", 443), expected, "{protocols} {protocol}");
    }
}

#[test]
fn ports() {
    let table = [
        ("80", 79, ALLOWED),
        ("80", 80, DENIED),
        ("80", 81, ALLOWED),
        (r#""80-82", 83"#, 83, DENIED),
        (r#""80-82", 83"#, 84, ALLOWED),
        (r#""80-85", "82-83""#, 84, DENIED),
        ("0", 0, DENIED),
        ("0", 1, ALLOWED),
        ("65535", 65535, DENIED),
        ("65535", 65534, ALLOWED),
        (r#""0-65535""#, 65535, DENIED),
        (r#""0-65534""#, 65535, ALLOWED),
    ];
    for (ports, port, expected) in table {
        let rule = format!(r#"{{"action": "deny", "ports": [{ports}]}}"#);
        assert_eq!(connect(&rule, 6, "::1", port), expected, "{ports} {port}");
    }
}

fn tables(policy: &Value) -> Tables {
    Tables::compile(&parse(&policy.to_string())).unwrap()
}

/// The addresses of a bind that a rule matches.
#[test]
fn binding_to_no_address_is_binding_to_all_of_them() {
    let table = [
        ("deny", "10.0.0.5", ["::ffff:10.0.0.5", "::ffff:0.0.0.0", "::"].as_slice(), ["::1", "::ffff:10.0.0.6"]),
        ("deny", "::1", &["::1", "::"], ["::ffff:0.0.0.0", "::ffff:10.0.0.6"]),
        ("allow", "10.0.0.5", &["::ffff:10.0.0.5"], ["::", "::ffff:0.0.0.0"]),
        ("allow", "0.0.0.0", &["::ffff:0.0.0.0"], ["::", "::ffff:10.0.0.6"]),
        ("allow", "any", &["::", "::ffff:0.0.0.0", "::1", "::ffff:10.0.0.6"], ["", ""]),
        ("allow", "sandbox", &["::", "::ffff:0.0.0.0", "::1", "::ffff:10.0.0.6"], ["", ""]),
    ];
    for (action, host, matched, others) in table {
        let default = if action == "deny" { "allow" } else { "deny" };
        let rules = json!([{"action": action, "ops": ["bind"], "hosts": [host]}]);
        let policy = json!({"version": 1, "network": {"default": default, "rules": rules}});
        let decided = |address: &&str| {
            let request = Net { op: 1, protocol: 6, address: address.parse().unwrap(), port: 80, own: true };
            request.decided_by(tables(&policy).network.as_ref().unwrap()).rule
        };
        for address in matched {
            assert_eq!(decided(address), 0, "{action} {host}: {address}");
        }
        for address in others.iter().filter(|address| !address.is_empty()) {
            assert_eq!(decided(address), DEFAULT, "{action} {host}: {address}");
        }
    }
}

/// What a network section refuses to have made, since it could be evaded by it.
#[test]
fn sockets_that_could_evade_the_network_section() {
    let (raw, ping, lite) = ((3, 6), (2, 1), (2, 136));
    let table = [
        (json!({"default": "allow"}), [].as_slice()),
        (json!({"default": "deny"}), &[raw, ping, lite]),
        (json!({"default": "deny", "rules": [{"action": "allow"}]}), &[]),
        (json!({"default": "allow", "rules": [{"action": "deny", "protocols": ["tcp"], "ports": [9090]}]}), &[raw]),
        (json!({"default": "allow", "rules": [{"action": "deny", "protocols": ["icmp"]}]}), &[raw, ping]),
        (json!({"default": "allow", "rules": [{"action": "deny", "hosts": ["10.0.0.1"]}]}), &[raw, ping, lite]),
        (json!({"default": "deny", "rules": [{"action": "allow", "protocols": ["icmp"]}]}), &[raw, lite]),
    ];
    for (network, refused) in table {
        let tables = tables(&json!({"version": 1, "network": network}));
        for (kind, protocol) in [raw, ping, lite, (1, 6), (2, 17), (1, 262)] {
            let socket = Socket { family: 2, kind, protocol };
            let decision = tables.sockets.as_ref().map_or(DEFAULT, |sockets| socket.decided_by(sockets).rule);
            let reason = if (kind, protocol) == lite { UNSEEN_COPY } else { UNJUDGED_SOCKET };
            let expected = if refused.contains(&(kind, protocol)) { reason } else { DEFAULT };
            assert_eq!(decision, expected, "{network}: type {kind}, protocol {protocol}");
        }
    }
}

/// Only what a policy needs is attached.
#[test]
fn hooks_follow_from_the_rules() {
    let deny = |rule: Value| json!({"default": "allow", "rules": [rule]});
    let addresses = ["connect4", "connect6", "bind4", "bind6", "sendmsg4", "sendmsg6"];
    let table = [
        (json!({"network": {"default": "allow"}}), vec![]),
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["connect"]}))}),
            vec!["connect4", "connect6", "sock_create"],
        ),
        // What leaves is looked at where hosts are told apart, or UDP ports; and no packets have routes of their own where they are.
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["connect"], "hosts": ["10.0.0.1"]}))}),
            vec!["connect4", "connect6", "egress", "sock_create", "setsockopt"],
        ),
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["connect", "send"], "hosts": ["10.0.0.1"]}))}),
            [&addresses[..], &["egress", "sock_create", "setsockopt"]].concat(),
        ),
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["receive"], "hosts": ["10.0.0.1"]}))}),
            vec!["ingress", "sock_create", "sock_ops", "setsockopt"],
        ),
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["bind"], "protocols": ["udp"], "ports": [53]}))}),
            vec!["bind4", "bind6", "ingress", "egress", "sock_create", "sock_ops", "setsockopt"],
        ),
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["send"]}))}),
            vec!["sendmsg4", "sendmsg6", "sock_create", "setsockopt"],
        ),
        // Groups are told to all routers; to be told by others what was refused is to receive.
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["send"], "hosts": ["224.0.0.22"]}))}),
            vec!["sendmsg4", "sendmsg6", "egress", "sock_create", "setsockopt"],
        ),
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["send"], "protocols": ["udp"], "ports": [53]}))}),
            vec!["sendmsg4", "sendmsg6", "sock_create"],
        ),
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["receive"], "protocols": ["tcp"]}))}),
            vec!["ingress", "sock_create", "sock_ops"],
        ),
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["bind"]}))}),
            vec!["bind4", "bind6", "ingress", "sock_create", "sock_ops"],
        ),
        (
            json!({"network": deny(json!({"action": "deny", "ops": ["receive"]}))}),
            vec!["ingress", "sock_create", "sock_ops", "setsockopt"],
        ),
        (
            json!({"network": {"default": "deny"}}),
            [&addresses[..], &["ingress", "sock_create", "sock_ops", "setsockopt"]].concat(),
        ),
        (
            json!({"network": {"default": "deny", "rules": [{"action": "allow", "hosts": ["sandbox"]}]}}),
            [&addresses[..], &["ingress", "egress", "sock_create", "sock_ops", "setsockopt"]].concat(),
        ),
        (json!({"sockets": {"default": "deny"}}), vec!["sock_create"]),
        (
            json!({
                "network": deny(json!({"action": "deny", "ops": ["connect"]})),
                "sockets": {"default": "allow", "rules": [{"action": "allow", "type": "raw"}]},
            }),
            vec!["connect4", "connect6", "egress", "sock_create"],
        ),
        // Headers of a packet's own.
        (
            json!({
                "network": deny(json!({"action": "deny", "ops": ["connect"], "hosts": ["10.0.0.1"]})),
                "sockets": {"default": "allow", "rules": [{"action": "allow", "type": "raw"}]},
            }),
            vec!["connect4", "connect6", "egress", "sock_create", "setsockopt"],
        ),
        (
            json!({
                "network": deny(json!({"action": "deny", "ops": ["connect"], "hosts": ["10.0.0.1"]})),
                "sockets": {"default": "allow", "rules": [{"action": "allow", "type": "raw", "protocol": 255}]},
            }),
            vec!["connect4", "connect6", "egress", "sock_create", "setsockopt"],
        ),
        (
            json!({
                "network": deny(json!({"action": "deny", "ops": ["connect"]})),
                "sockets": {"default": "allow", "rules": [{"action": "allow", "protocol": "tcp", "type": "stream"}]},
            }),
            vec!["connect4", "connect6", "sock_create"],
        ),
    ];
    for (mut policy, expected) in table {
        policy["version"] = 1.into();
        policy["process"] = json!({"allow": ["sysctls"]});
        let hooks: Vec<&str> = tables(&policy).hooks().into_iter().map(Hook::name).collect();
        assert_eq!(hooks, expected, "{policy}");
    }
}

/// Where it depends on the port what may be bound, nobody may say from which ports the kernel chooses without bind(2).
#[test]
fn the_range_of_ports_is_kept_where_bind_depends_on_ports() {
    let range = Sockopt { level: 0, option: 51, set: true };
    let table = [
        (json!({"network": {"default": "deny", "rules": [{"action": "allow", "ports": ["8000-8999"]}]}}), PORT_RANGE),
        (
            json!({"network": {"default": "allow", "rules": [{"action": "deny", "ops": ["bind"], "ports": [80]}]},
                   "sockopts": {"default": "allow", "rules": [{"action": "allow"}]}}),
            PORT_RANGE,
        ),
        (
            json!({"network": {"default": "allow", "rules": [{"action": "deny", "hosts": ["10.0.0.1"]}]},
                   "sockopts": {"default": "allow"}}),
            DEFAULT,
        ),
        (
            json!({"network": {"default": "deny", "rules": [{"action": "allow", "ops": ["connect"], "ports": [80]}]},
                   "sockopts": {"default": "allow"}}),
            DEFAULT,
        ),
        (
            json!({"network": {"default": "deny", "rules": [{"action": "allow", "ops": ["bind"]}]}, "sockopts": {"default": "allow"}}),
            DEFAULT,
        ),
    ];
    for (mut policy, expected) in table {
        policy["version"] = 1.into();
        let tables = tables(&policy).sockopts.unwrap();
        assert_eq!(range.decided_by(&tables).rule, expected, "{policy}");
        assert!(Sockopt { set: false, ..range }.decided_by(&tables).allow, "{policy}");
        assert!(Sockopt { level: 41, ..range }.decided_by(&tables).allow, "{policy}");
    }
}

/// Where a rule is about the sandbox's own sockets, no program may choose who receives.
#[test]
fn nobody_chooses_among_receivers_where_the_sandboxs_own_are_told_apart() {
    let (cbpf, ebpf) = (Sockopt { level: 1, option: 51, set: true }, Sockopt { level: 1, option: 52, set: true });
    let table = [
        (json!([{"action": "deny", "hosts": ["sandbox"]}]), RECEIVER_CHOICE),
        (json!([{"action": "deny", "ops": ["bind"], "ports": [80]}]), DEFAULT),
    ];
    for (rules, expected) in table {
        let policy = json!({"version": 1, "network": {"default": "allow", "rules": rules}});
        let tables = tables(&policy).sockopts.unwrap();
        for option in [cbpf, ebpf] {
            assert_eq!(option.decided_by(&tables).rule, expected, "{policy}");
            assert!(Sockopt { set: false, ..option }.decided_by(&tables).allow, "{policy}");
            assert!(Sockopt { level: 0, option: 50, ..option }.decided_by(&tables).allow, "{policy}");
        }
    }
}

/// Every port is an interval of its own: the most that there can be.
#[test]
fn every_port_can_be_told_from_its_neighbours() {
    let even: Vec<u32> = (0..=65535).step_by(2).collect();
    let rules = json!([{"action": "deny", "ports": even}, {"action": "allow", "ports": [65535]}]);
    let policy = parse(&json!({"version": 1, "network": {"default": "allow", "rules": rules}}).to_string());
    let tables = Tables::compile(&policy).unwrap().network.unwrap();
    for port in 0..=u16::MAX {
        let decision = Net::connect(6, Ipv6Addr::LOCALHOST, port).decided_by(&tables);
        let expected = match port {
            65535 => Decision { allow: true, rule: 1 },
            port if port % 2 == 0 => DENIED,
            _ => ALLOWED,
        };
        assert_eq!(decision, expected, "{port}");
    }
}

#[test]
fn each_access_to_a_device_is_judged_by_itself() {
    let rules = json!([
        {"action": "allow", "type": "c", "major": 1, "minor": 3, "access": "r"},
        {"action": "deny", "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"action": "deny", "type": "b"},
    ]);
    let policy = parse(&json!({"version": 1, "devices": {"default": "allow", "rules": rules}}).to_string());
    let tables = Tables::compile(&policy).unwrap().devices.unwrap();
    let (mknod, read, write) = (1, 2, 4);
    let by = |rule, allow| Decision { allow, rule };
    let table = [
        ((2, 1, 3, read), by(0, true)),
        ((2, 1, 3, write), by(1, false)),
        ((2, 1, 3, read | write), by(1, false)),
        ((2, 1, 3, mknod), ALLOWED),
        ((2, 1, 3, read | mknod), ALLOWED),
        ((2, 1, 3, 0), ALLOWED),
        ((2, 1, 5, read | write), ALLOWED),
        // A block device of the same numbers is another device.
        ((1, 1, 3, read), by(2, false)),
    ];
    for ((kind, major, minor, access), expected) in table {
        let request = Device { kind, major, minor, access };
        assert_eq!(request.decided_by(&tables), expected, "{request:?}");
        assert_eq!(oracle::device(policy.devices.as_ref().unwrap(), request), expected, "the oracle on {request:?}");
    }
}

#[test]
fn wildcards_of_sysctl_names() {
    let table = [
        ("kernel.hostname", "kernel/hostname", true),
        ("kernel/hostname", "kernel/hostnam", false),
        ("kernel/hostname", "kernel/hostname2", false),
        ("kernel/*", "kernel/yama/ptrace_scope", true),
        ("kernel/*", "kernel/", true),
        ("kernel/*", "kernel", false),
        ("*", "", true),
        ("*", "kernel/hostname", true),
        ("*name", "kernel/hostname", true),
        ("*name", "kernel/hostname_", false),
        ("net.*.conf.*.forwarding", "net/ipv4/conf/eth0.1/forwarding", true),
        ("net.*.conf.*.forwarding", "net/ipv4/conf/forwarding", false),
        ("net/ipv?/ip_forward", "net/ipv4/ip_forward", true),
        ("net/ipv?/ip_forward", "net/ipv/ip_forward", false),
        ("net?ipv4", "net/ipv4", true),
        ("?*?", "x", false),
        ("?*?", "xy", true),
        // One byte, not one character.
        ("?", "ö", false),
        ("??", "ö", true),
    ];
    for (pattern, name, matches) in table {
        let rules = json!([{"action": "deny", "names": [pattern]}]);
        let policy = parse(&json!({"version": 1, "sysctls": {"default": "allow", "rules": rules}}).to_string());
        let request = Sysctl { name: name.into(), write: false };
        let expected = if matches { DENIED } else { ALLOWED };
        let decision = request.decided_by(&Tables::compile(&policy).unwrap().sysctls.unwrap());
        assert_eq!(decision, expected, "{pattern} {name}");
        let decision = oracle::sysctl(&policy, &request);
        assert_eq!(decision, expected, "the oracle on {pattern} {name}");
    }
}

#[test]
fn too_many_states_are_refused_not_cut() {
    let policy = parse(&names_of_so_many_states(MAX_STATES).to_string());
    let tables = Tables::compile(&policy).unwrap().sysctls.unwrap();
    assert_eq!(tables.states.len(), MAX_STATES);
    for (index, rule) in policy.sysctls.as_ref().unwrap().rules.iter().enumerate() {
        let [pattern] = &rule.names.as_ref().unwrap()[..] else { panic!("a rule of one name") };
        let pattern = String::from(pattern.clone());
        let denied = Decision { allow: false, rule: u16::try_from(index).unwrap() };
        for (name, expected) in [(pattern.replace('?', "x"), denied), (pattern[1..].to_owned(), ALLOWED)] {
            assert_eq!(Sysctl { name: name.into(), write: false }.decided_by(&tables), expected, "{pattern}");
        }
    }
    let policy = parse(&names_of_so_many_states(MAX_STATES + 1).to_string());
    assert!(matches!(Tables::compile(&policy), Err(CompileError::TooManyNames)));
}

fn unix_section(default: &str, rules: &Value) -> policy::compile::UnixTables {
    let policy = json!({"version": 1, "unix": {"default": default, "rules": rules}});
    Tables::compile(&parse(&policy.to_string())).unwrap().unix.unwrap()
}

/// Whether a policy can be enforced by hooks that see how a path is spelled, and no more.
#[test]
fn only_verdicts_that_depend_on_a_path_need_the_peer() {
    let rule = |action: &str, paths: &[&str]| json!({"action": action, "paths": paths});
    let table = [
        ("deny", json!([]), false),
        ("allow", json!([]), false),
        ("deny", json!([rule("allow", &["@x"])]), false),
        ("allow", json!([rule("deny", &["@x*"])]), false),
        ("deny", json!([rule("allow", &["@*"])]), false),
        ("deny", json!([rule("allow", &["unnamed"])]), false),
        ("deny", json!([rule("deny", &["/run/x"])]), false),
        ("deny", json!([rule("allow", &["/*"])]), false),
        ("deny", json!([rule("allow", &["/run/x"]), rule("allow", &["*"])]), false),
        ("allow", json!([rule("deny", &["?*"]), rule("allow", &["/run/x"])]), false),
        ("allow", json!([{"action": "deny"}, rule("allow", &["/run/x"])]), false),
        ("deny", json!([rule("allow", &["/run/x"])]), true),
        ("allow", json!([rule("deny", &["/run/x"])]), true),
        ("deny", json!([rule("allow", &["*x"])]), true),
        ("deny", json!([rule("allow", &["?run/x"])]), true),
        ("allow", json!([rule("allow", &["/run/x"]), rule("deny", &["/*"])]), true),
        ("allow", json!([rule("deny", &["unnamed"])]), true),
        ("allow", json!([rule("allow", &["unnamed"]), rule("deny", &["unnamed"])]), false),
    ];
    for (default, rules, needs_peer) in table {
        let tables = unix_section(default, &rules);
        assert_eq!(tables.needs_peer, needs_peer, "{default} {rules}");
        assert_eq!(tables.hooks()[0].name() == "unix_stream_connect", needs_peer);
    }
}

/// Whom a rule without a report is about is best told by the peer, but no verdict depends on it.
#[test]
fn rules_that_report_nothing_ask_for_the_peer_and_do_without() {
    let quiet = |paths: &[&str]| json!({"action": "deny", "paths": paths, "report": false});
    let table = [
        (json!([quiet(&["/run/x"])]), true),
        (json!([quiet(&["*"])]), false),
        (json!([quiet(&["/run/x"]), quiet(&["/*"])]), false),
        (json!([quiet(&["@x"])]), false),
    ];
    for (rules, asks_for_peer) in table {
        let tables = unix_section("deny", &rules);
        assert_eq!((tables.needs_peer, tables.asks_for_peer), (false, asks_for_peer), "{rules}");
        let [first, other] = [tables.hooks(), tables.other_hooks().unwrap()].map(|hooks| hooks[0].name());
        let (peer, spelled) = ("unix_stream_connect", "connect_unix");
        assert_eq!((first, other), if asks_for_peer { (peer, spelled) } else { (spelled, peer) }, "{rules}");
    }
}

/// What a Landlock domain can do in the place of programs: to let the sandbox's own sockets be reached, and no others.
#[test]
fn rules_that_a_landlock_domain_can_keep_are_known() {
    let rule = |action: &str, paths: &[&str]| json!({"action": action, "paths": paths});
    let quiet = json!({"action": "deny", "report": false});
    let own = rule("allow", &["sandbox"]);
    let table = [
        ("deny", json!([own]), Some(true)),
        ("deny", json!([own, quiet]), Some(false)),
        ("deny", json!([own, {"action": "deny", "paths": ["/*"], "report": false}]), Some(true)),
        ("allow", json!([own, {"action": "deny"}]), Some(true)),
        ("allow", json!([own, rule("deny", &["/*", "@*"])]), Some(true)),
        ("deny", json!([rule("deny", &["/x"]), own]), None),
        ("deny", json!([own, rule("deny", &["/x"])]), Some(true)),
        ("deny", json!([rule("allow", &["sandbox", "unnamed"])]), Some(true)),
        ("deny", json!([own, rule("deny", &["unnamed"])]), None),
        // Somebody else's socket may be reached.
        ("deny", json!([rule("allow", &["sandbox", "/run/x"])]), None),
        ("deny", json!([own, rule("allow", &["@x"])]), None),
        ("allow", json!([own, rule("deny", &["/*"])]), None),
        ("allow", json!([own]), None),
        // One of its own may not.
        ("deny", json!([rule("deny", &["sandbox"])]), None),
        ("allow", json!([rule("deny", &["sandbox"])]), None),
        ("deny", json!([rule("deny", &["@x"]), own]), None),
        ("deny", json!([]), None),
    ];
    for (default, rules, reports) in table {
        let own_alone = unix_section(default, &rules).own_alone;
        assert_eq!(own_alone.map(|own_alone| own_alone.reports), reports, "{default} {rules}");
    }
}

/// Rules are left to a domain only where it can keep them; then no program is needed, and what they say stays.
#[test]
fn what_is_left_to_a_landlock_domain_takes_no_hook() {
    for (paths, expected) in [(&["sandbox"][..], 0), (&["sandbox", "@x"], 2)] {
        let rules = json!([{"action": "allow", "paths": paths}]);
        let policy =
            json!({"version": 1, "unix": {"default": "deny", "rules": rules}, "process": {"allow": ["sysctls"]}});
        let mut compiled = tables(&policy);
        assert_eq!(compiled.hooks().len(), 2, "{policy}");
        compiled.unix.as_mut().unwrap().leave_to_domain();
        assert_eq!(compiled.hooks().len(), expected, "{policy}");
        assert!(compiled.unix.as_ref().unwrap().restricts(), "{policy}");
    }
}

#[test]
fn a_nul_in_an_abstract_name_is_a_byte_of_it() {
    let tables = unix_section("allow", &json!([{"action": "deny", "paths": ["@a", "@b?", "@c*d"]}]));
    let table: [(&[u8], Decision); 9] = [
        (b"@a", DENIED),
        (b"@a\0", ALLOWED),
        (b"@\0a", ALLOWED),
        (b"@b\0", DENIED),
        (b"@b\0\0", ALLOWED),
        (b"@b", ALLOWED),
        (b"@c\0\0d", DENIED),
        (b"@cd\0", ALLOWED),
        (b"@", ALLOWED),
    ];
    for (name, expected) in table {
        let request = Unix { kind: common::unix::Kind::ABSTRACT, name: name.into(), own: false };
        assert_eq!(request.decided_by(&tables), expected, "{name:?}");
    }
}
