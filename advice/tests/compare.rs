//! What the tables of two policies say is compared with what both decide on requests one by one.

#[path = "../../policy/tests/generate/mod.rs"]
mod generate;
#[path = "../../policy/tests/oracle/mod.rs"]
mod oracle;

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

use advice::{Comparison, Difference, Extent, Side, compare};
use common::Decision;
use generate::{Case, DecidedBy as _, case, parse};
use oracle::{Net, Sysctl, Unix};
use policy::{Prefix, Resolved, compile::Tables, shared_space};
use proptest::prelude::*;
use report::Cause;

fn compared(a: &Resolved, b: &Resolved) -> Comparison {
    let [one, other] = [a, b].map(|policy| Tables::compile(policy).unwrap());
    compare(Side { policy: a, tables: &one }, Side { policy: b, tables: &other }).unwrap()
}

/// The rules by which A and B decide differently, and whether it is B that allows.
fn differently(section: &str, decisions: [Option<Decision>; 2]) -> Option<(bool, String, String)> {
    let allows = decisions.map(|decision| decision.is_none_or(|decision| decision.allow));
    let [a, b] = decisions.map(|decision| match decision {
        Some(Decision { rule, .. }) => Cause::new(section, rule).rule,
        None => "no section".to_owned(),
    });
    (allows[0] != allows[1]).then(|| if allows[1] { (true, b, a) } else { (false, a, b) })
}

/// Whether a network of a difference has a peer.
fn is_host(host: &str, net: &Net) -> bool {
    let address = shared_space(IpAddr::V6(net.address)).to_bits();
    let within = |network: &str| {
        let network: Prefix = network.parse().unwrap();
        let of_v4 = |network: Prefix| Prefix::ALL_V4.covers(network);
        let host = Prefix::around(address, 128);
        network.covers(host) && of_v4(network) == of_v4(host)
    };
    match (host, host.strip_suffix(" but for sandbox"), host.strip_prefix("sandbox at ")) {
        ("any", ..) => true,
        ("sandbox", ..) => net.own,
        (_, Some(network), _) => !net.own && within(network),
        (_, _, Some(network)) => net.own && within(network),
        _ => within(host),
    }
}

fn is_port(port: &str, number: u16) -> bool {
    match port.split_once('-') {
        _ if port == "ephemeral" => number == 0,
        Some((first, last)) => (first.parse().unwrap()..=last.parse().unwrap()).contains(&number),
        None => port.parse() == Ok(number),
    }
}

/// Whether a difference has a request.
fn has_net(difference: &Difference, net: &Net) -> bool {
    let Extent::Network(network) = &difference.extent else { return false };
    let protocol = match net.protocol {
        6 => "tcp",
        17 => "udp",
        1 | 58 => "icmp",
        _ => "other",
    };
    network.ops.contains(&["connect", "bind", "send", "receive"][usize::from(net.op)])
        && network.protocols.contains(&protocol)
        && network.hosts.iter().any(|host| is_host(host, net))
        && (network.ports.is_empty() || network.ports.iter().any(|port| is_port(port, net.port)))
}

/// Whether a difference has a request of another section, as far as it says so.
fn has(difference: &Difference, section: &str, access: Option<&str>) -> bool {
    match &difference.extent {
        Extent::Unix { names } => section == "unix" && access == Some(*names),
        Extent::Sysctls { access: of } => section == "sysctls" && access == Some(*of),
        _ => false,
    }
}

/// Asserts that just those differences have a request that say what was decided.
fn agree(
    comparison: &Comparison,
    expected: Option<(bool, String, String)>,
    has: impl Fn(&Difference) -> bool,
    what: &dyn std::fmt::Debug,
) -> Result<(), TestCaseError> {
    let said = |all: &[Difference]| -> Vec<(String, String)> {
        let having = all.iter().filter(|difference| has(difference));
        having.map(|difference| (difference.allowed_by.clone(), difference.denied_by.clone())).collect()
    };
    let (wider, narrower) = (said(&comparison.wider), said(&comparison.narrower));
    let (more, less) = match expected {
        None => (vec![], vec![]),
        Some((true, allowing, denying)) => (vec![(allowing, denying)], vec![]),
        Some((false, allowing, denying)) => (vec![], vec![(allowing, denying)]),
    };
    prop_assert_eq!((wider, narrower), (more, less), "{:?} of\n{}", what, comparison);
    Ok(())
}

/// Each example is one: what it says of the rules is what is decided.
fn examples_are_some(comparison: &Comparison, a: &Resolved, b: &Resolved) -> Result<(), TestCaseError> {
    for (wider, difference) in [(true, &comparison.wider), (false, &comparison.narrower)]
        .into_iter()
        .flat_map(|(wider, all)| all.iter().map(move |difference| (wider, difference)))
    {
        let Difference { extent, allowed_by, denied_by, example } = difference;
        let Extent::Network(_) = extent else { continue };
        let words: Vec<&str> = example.split(' ').filter(|word| *word != "--sandbox").collect();
        let [op, protocol, peer] = words[..] else { panic!("{example}") };
        let (host, port) = peer.rsplit_once(':').unwrap();
        let address: IpAddr = host.trim_matches(['[', ']']).parse().unwrap();
        let op = ["connect", "bind", "send", "receive"].iter().position(|name| *name == op).unwrap();
        let net = Net {
            op: u8::try_from(op).unwrap(),
            protocol: match protocol {
                "tcp" => 6,
                "udp" => 17,
                "icmp" => 1,
                _ => 132,
            },
            address: Ipv6Addr::from_bits(shared_space(address).to_bits()),
            port: port.parse().unwrap(),
            own: op == 1 || example.contains("--sandbox"),
        };
        let decided = [a, b].map(|policy| policy.network.as_ref().map(|section| oracle::net(section, net)));
        let expected = Some((wider, allowed_by.clone(), denied_by.clone()));
        prop_assert_eq!(differently("network", decided), expected, "{}", example);
        prop_assert!(has_net(difference, &net), "{}", example);
    }
    Ok(())
}

fn judge_nets(comparison: &Comparison, cases: [&Case; 2]) -> Result<(), TestCaseError> {
    let sections = cases.map(|case| case.policy.network.as_ref());
    for net in cases.iter().flat_map(|case| &case.nets) {
        let address = shared_space(IpAddr::V6(net.address));
        let loopback = net.address.to_canonical().is_loopback();
        let unspecified = [0, Prefix::ALL_V4.bits()].contains(&address.to_bits());
        // No peer is unspecified, and no socket of the sandbox is known elsewhere.
        if net.op != 1 && (unspecified || net.own && !loopback) {
            continue;
        }
        let decided = sections.map(|section| section.map(|section| oracle::net(section, *net)));
        agree(comparison, differently("network", decided), |difference| has_net(difference, net), net)?;
    }
    Ok(())
}

fn judge_names(comparison: &Comparison, cases: [&Case; 2]) -> Result<(), TestCaseError> {
    let policies = cases.map(|case| &case.policy);
    let contains = |expected: &Option<(bool, String, String)>, section: &str, kind: &str| match expected {
        None => true,
        Some((wider, allowing, denying)) => {
            let all = if *wider { &comparison.wider } else { &comparison.narrower };
            all.iter().any(|difference| {
                has(difference, section, Some(kind))
                    && (&difference.allowed_by, &difference.denied_by) == (allowing, denying)
            })
        }
    };
    let unix_of = |policy: &Resolved, unix: &Unix| policy.unix.as_ref().map(|section| oracle::unix(section, unix));
    for unix in cases.iter().flat_map(|case| &case.unix) {
        let kind = match unix.name.first() {
            None => "unnamed",
            Some(b'@') => "abstract",
            Some(_) => "path",
        };
        let allows = policies.map(|policy| unix_of(policy, unix).is_none_or(|decision| decision.allow));
        // By the tables: where all names of a kind have one verdict, they tell no more of rules than that.
        let tables = policies.map(|policy| Tables::compile(policy).unwrap());
        let decided = [&tables[0], &tables[1]].map(|tables| tables.unix.as_ref().map(|tables| unix.decided_by(tables)));
        prop_assert_eq!(decided.map(|decision| decision.is_none_or(|decision| decision.allow)), allows);
        let expected = differently("unix", decided);
        let asks_for_own = tables.iter().filter_map(|tables| tables.unix.as_ref()).any(|unix| unix.table.by_own != 0);
        let kind = if unix.own && asks_for_own { format!("sandbox {kind}") } else { kind.to_owned() };
        prop_assert!(contains(&expected, "unix", &kind), "{unix:?}: {expected:?} of\n{comparison}");
    }
    let sysctl_of =
        |policy: &Resolved, sysctl: &Sysctl| policy.sysctls.as_ref().map(|_| oracle::sysctl(policy, sysctl));
    for sysctl in cases.iter().flat_map(|case| &case.sysctls) {
        // Without the section, too, writing is denied unless the process section does without that.
        if policies.iter().any(|policy| policy.sysctls.is_none()) || sysctl.name.is_empty() {
            continue;
        }
        let expected = differently("sysctls", policies.map(|policy| sysctl_of(policy, sysctl)));
        let access = if sysctl.write { "w" } else { "r" };
        prop_assert!(contains(&expected, "sysctls", access), "{sysctl:?}: {expected:?} of\n{comparison}");
    }
    Ok(())
}

fn judge_numbers(comparison: &Comparison, cases: [&Case; 2]) -> Result<(), TestCaseError> {
    let policies = cases.map(|case| &case.policy);
    for device in cases.iter().flat_map(|case| &case.devices) {
        for access in [1, 2, 4] {
            let device = oracle::Device { access, ..*device };
            let decided = policies.map(|policy| policy.devices.as_ref().map(|section| oracle::device(section, device)));
            let letter = policy::access_letters(access);
            let named = |wanted: fn(&policy::DeviceRule) -> Option<u32>, number: u32| {
                let rules =
                    policies.iter().filter_map(|policy| policy.devices.as_ref()).flat_map(|section| &section.rules);
                rules.filter_map(wanted).any(|one| one == number)
            };
            let is_major = |major: Option<u32>| match major {
                Some(major) => major == device.major,
                None => !named(|rule| rule.major, device.major),
            };
            // Of minor numbers, those count that rules on this major number name.
            let of_major = |number: u32| {
                let rules =
                    policies.iter().filter_map(|policy| policy.devices.as_ref()).flat_map(|section| &section.rules);
                let mut rules = rules.filter(|rule| rule.major.is_none_or(|major| major == device.major));
                rules.any(|rule| rule.minor == Some(number))
            };
            let is_minor = |minor: Option<u32>| match minor {
                Some(minor) => minor == device.minor,
                None => !of_major(device.minor),
            };
            let kind = if device.kind == 1 { "b" } else { "c" };
            let has = |difference: &Difference| match &difference.extent {
                Extent::Devices { kind: of, major, minor, access } => {
                    *of == kind && is_major(*major) && is_minor(*minor) && access.contains(&letter)
                }
                _ => false,
            };
            agree(comparison, differently("devices", decided), has, &device)?;
        }
    }
    let tables = policies.map(|policy| Tables::compile(policy).unwrap());
    for socket in cases.iter().flat_map(|case| &case.sockets) {
        let decided =
            [&tables[0], &tables[1]].map(|tables| tables.sockets.as_ref().map(|tables| socket.decided_by(tables)));
        if let Some((wider, ..)) = differently("sockets", decided) {
            let all = if wider { &comparison.wider } else { &comparison.narrower };
            prop_assert!(all.iter().any(|one| matches!(one.extent, Extent::Sockets { .. })), "{socket:?}");
        }
    }
    for sockopt in cases.iter().flat_map(|case| &case.sockopts) {
        let decided =
            [&tables[0], &tables[1]].map(|tables| tables.sockopts.as_ref().map(|tables| sockopt.decided_by(tables)));
        if let Some((wider, allowing, denying)) = differently("sockopts", decided) {
            let all = if wider { &comparison.wider } else { &comparison.narrower };
            let is_there = all.iter().any(|one| {
                matches!(one.extent, Extent::Sockopts { .. }) && one.allowed_by == allowing && one.denied_by == denying
            });
            prop_assert!(is_there, "{sockopt:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn what_differs_is_what_is_decided_differently(a in case(), b in case()) {
        let comparison = compared(&a.policy, &b.policy);
        let cases = [&a, &b];
        judge_nets(&comparison, cases)?;
        judge_names(&comparison, cases)?;
        judge_numbers(&comparison, cases)?;
        examples_are_some(&comparison, &a.policy, &b.policy)?;
        // The other way round, it is the same.
        let reverse = compared(&b.policy, &a.policy);
        prop_assert_eq!(reverse.wider.len(), comparison.narrower.len());
        prop_assert_eq!(reverse.narrower.len(), comparison.wider.len());
    }

    #[test]
    fn a_policy_allows_what_it_allows(case in case()) {
        prop_assert_eq!(compared(&case.policy, &case.policy), Comparison::default());
    }
}

/// Compares two policies by their network sections' contents, and gives what is wider and what is narrower as text.
fn networks(a: &str, b: &str) -> (Vec<String>, Vec<String>) {
    let [a, b] =
        [a, b].map(|keys| parse(&format!(r#"{{"version": 1, "network": {{"default": "deny", "rules": [{keys}]}}}}"#)));
    let comparison = compared(&a, &b);
    let text = |all: &[Difference]| {
        let lines = all.iter().map(|one| format!("{} [{} {}]", one.extent, one.allowed_by, one.denied_by));
        lines.filter(|line| !line.starts_with("socket") && !line.starts_with("sockopt")).collect()
    };
    (text(&comparison.wider), text(&comparison.narrower))
}

#[test]
fn addresses_and_ports_are_put_together() {
    let a = r#"{"action": "allow", "ops": ["connect", "send"], "hosts": ["10.0.0.0/8"], "ports": [80, 443]}"#;
    let b = r#"{"action": "allow", "ops": ["connect", "send"], "hosts": ["10.0.0.0/7", "::1"], "ports": ["80-90"]}"#;
    let (wider, narrower) = networks(a, b);
    let expected = [
        "connect, send by any protocol 11.0.0.0/8, ::1, ports 80-90 [/network/rules/0 default]",
        "connect, send by any protocol 10.0.0.0/8, ports 81-90 [/network/rules/0 default]",
    ];
    assert_eq!(wider, expected);
    assert_eq!(narrower, ["connect, send by any protocol 10.0.0.0/8, port 443 [/network/rules/0 default]"]);
}

#[test]
fn names_are_compared_as_names() {
    let a = r#"{"action": "allow", "ops": ["connect"], "hosts": ["api.example.org"], "ports": [443]}"#;
    let b = r#"{"action": "allow", "ops": ["connect"], "hosts": ["*.example.org"], "ports": [443, 80]}"#;
    let (wider, narrower) = networks(a, b);
    let expected = [
        "resolve *.example.org [/network/rules/0 default]",
        "connect by any protocol *.example.org, ports 80, 443 [/network/rules/0 default]",
        "connect by any protocol api.example.org, port 80 [/network/rules/0 default]",
    ];
    assert_eq!(wider, expected);
    // A resolver asks for it with what is searched behind it, too.
    let searched = [
        "resolve api.example.org.example.test [/network/rules/0 default]",
        "connect by any protocol api.example.org.example.test, port 443 [/network/rules/0 default]",
    ];
    assert_eq!(narrower, searched);
    // An address instead of a name: names are no longer asked for, and so neither are their addresses reached.
    let b = r#"{"action": "allow", "ops": ["connect"], "hosts": ["192.0.2.1"], "ports": [443]}"#;
    let (wider, narrower) = networks(a, b);
    assert_eq!(wider, ["connect by any protocol 192.0.2.1, port 443 [/network/rules/0 default]"]);
    let names = "api.example.org, api.example.org.example.test";
    let expected = [
        format!("resolve {names} [/network/rules/0 default]"),
        format!("connect by any protocol {names}, port 443 [/network/rules/0 default]"),
        // What resolvers do before they ask comes with the first name, behind all rules.
        "bind udp 0.0.0.0, ::, port ephemeral [implied default]".to_owned(),
    ];
    assert_eq!(narrower, expected);
}

const A: &str = r#"{"version": 1,
    "network": {"default": "deny", "rules": [
        {"action": "allow", "ops": ["connect", "send", "receive"], "hosts": ["sandbox"]},
        {"action": "allow", "ops": ["bind"], "hosts": ["loopback"], "ports": ["ephemeral"]},
        {"action": "allow", "ops": ["connect"], "hosts": ["10.0.0.0/8"], "ports": [443]}]},
    "unix": {"default": "deny", "rules": [{"action": "allow", "paths": ["/run/db/*.sock"]}]},
    "devices": {"default": "deny", "rules": [{"action": "allow", "type": "c", "major": 1, "minor": 3}]},
    "sysctls": {"default": "allow", "rules": [{"action": "deny", "names": ["kernel/hostname"]}]}}"#;

const B: &str = r#"{"version": 1, "mode": "audit",
    "network": {"default": "deny", "rules": [
        {"action": "allow", "ops": ["connect", "send", "receive"], "hosts": ["loopback"]},
        {"action": "allow", "ops": ["connect"], "hosts": ["10.0.0.0/8"], "ports": [443, "8000-8999"]}]},
    "unix": {"default": "deny", "rules": [{"action": "allow", "paths": ["/run/*", "@bus"]}]},
    "devices": {"default": "deny", "rules": [{"action": "allow", "type": "c", "major": 1, "access": "rw"}]},
    "sysctls": {"default": "deny", "rules": [{"action": "allow", "names": ["net/*"], "access": "r"}]},
    "sockets": {"default": "allow", "rules": [{"action": "deny", "family": "inet6"}]},
    "sockopts": {"default": "allow", "rules": [{"action": "deny", "option": "TCP_NODELAY"}]},
    "process": {"allow": ["signals"], "capabilities": ["CAP_NET_RAW"]}}"#;

/// The text is that of the golden file, and the JSON is what the schema says.
#[test]
fn what_is_printed() {
    let comparison = compared(&parse(A), &parse(B));
    let json = serde_json::to_value(&comparison).unwrap();
    let schema = serde_json::from_str(include_str!("../../schema/compare.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&json).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}");
    golden("compare.txt", &comparison.to_string());
}

/// Asserts that a text is that of a golden file.
fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let expected = std::fs::read_to_string(path).unwrap();
    assert!(found == expected, "{name} would be:\n{found}");
}

#[test]
fn rules_that_never_decide_are_found() {
    let hidden = |text: &str| {
        let policy = parse(text);
        let tables = Tables::compile(&policy).unwrap();
        advice::hidden(Side { policy: &policy, tables: &tables }).unwrap()
    };
    assert_eq!(hidden(A), [""; 0]);
    assert_eq!(hidden(B), [""; 0]);
    let text = r#"{"version": 1,
        "network": {"default": "deny", "rules": [
            {"action": "allow", "hosts": ["10.0.0.0/9"], "ports": ["1-500"]},
            {"action": "allow", "hosts": ["10.128.0.0/9"], "ports": ["0-600"]},
            {"action": "deny", "hosts": ["10.0.0.0/8"], "ports": [443]},
            {"action": "deny", "hosts": ["no.example.org"]},
            {"action": "allow", "hosts": ["*.example.org"]},
            {"action": "allow", "hosts": ["api.example.org"]}]},
        "unix": {"default": "allow", "rules": [
            {"action": "deny", "paths": ["/run/*"]},
            {"action": "allow", "paths": ["/run/a", "/run/b"]}]},
        "devices": {"default": "deny", "rules": [
            {"action": "allow", "major": 1, "access": "rw"},
            {"action": "deny", "major": 1, "minor": 3, "access": "w"},
            {"action": "deny", "major": 1, "minor": 3}]},
        "sysctls": {"default": "deny", "rules": [
            {"action": "allow", "names": ["net/*"]},
            {"action": "deny", "names": ["net/core/somaxconn", "net/ipv?/*"]}]},
        "sockets": {"default": "allow", "rules": [{"action": "deny", "type": "raw"}, {"action": "deny", "type": "raw", "protocol": 250}]},
        "sockopts": {"default": "allow", "rules": [
            {"action": "deny", "level": "IPPROTO_TCP"},
            {"action": "allow", "option": "TCP_NODELAY", "access": "get"}]}}"#;
    // The last rule of the network is needed: a resolver may ask for api.example.org.example.test.
    let expected = [
        "/network/rules/2",
        "/unix/rules/1",
        "/devices/rules/1",
        "/sysctls/rules/1",
        "/sockets/rules/1",
        "/sockopts/rules/1",
    ];
    assert_eq!(hidden(text), expected);
}
