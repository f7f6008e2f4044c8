//! How network rules combine: order, defaults, ports, protocols, named sets, and as many as there may be. In a network
//! namespace of its own in which every address is this host's, so that nothing leaves it.

use serde_json::{Value, json};
use support::Probe;

/// Makes every address, of both families, one of this host's. It is made outside the guard.
const EVERYWHERE: &str = "set -e
ip link set lo up
ip route add local 0.0.0.0/0 dev lo
ip route add local 224.0.0.0/4 dev lo src 127.0.0.1
ip -6 addr add fe80::1/128 dev lo
ip -6 route add local ::/0 dev lo
exec \"$@\"";

fn everywhere() -> Probe {
    Probe::network().through(&["unshare", "--net", "sh", "-c", EVERYWHERE, "sh"])
}

/// A policy on connections alone: the rules are about these, and everything else is allowed.
fn network(default: &str, rules: &Value) -> Value {
    let mut rules = rules.as_array().unwrap().clone();
    for rule in &mut rules {
        rule["ops"] = json!(["connect"]);
    }
    if default == "deny" {
        rules.push(json!({"action": "allow", "ops": ["bind", "send", "receive"]}));
    }
    json!({"version": 1, "network": {"default": default, "rules": rules}})
}

/// Attempts to connect UDP sockets of the addresses' families to a port.
fn udp(addresses: &[&str], port: u16) -> Vec<String> {
    let family = |address: &str| if address.contains(':') { 6 } else { 4 };
    addresses.iter().map(|address| format!("udp{} {address} {port}", family(address))).collect()
}

/// Attempts to connect a UDP socket to ports of a host.
fn ports(numbers: &[u16]) -> Vec<String> {
    numbers.iter().map(|port| format!("udp4 10.0.0.1 {port}")).collect()
}

#[test]
fn named_sets_mean_their_networks_to_the_last_address() {
    let table: [(&str, &[&str], &[&str]); 6] = [
        (
            "loopback",
            &["127.0.0.1", "127.0.0.0", "127.255.255.255", "::ffff:127.9.9.9", "::1", "0.0.0.0", "::"],
            &["126.255.255.255", "128.0.0.0", "10.0.0.1", "::2", "fe80::1"],
        ),
        (
            "private",
            &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.1", "192.168.255.255"],
            &["9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "fe80::5"],
        ),
        ("private", &["fc00::1", "fdff:ffff::1", "::ffff:10.1.2.3"], &["fbff::1", "fe00::1", "::ffff:11.1.2.3"]),
        (
            "link-local",
            &["169.254.0.0", "169.254.255.255", "fe80::5", "febf::1", "169.254.169.254"],
            &["169.253.255.255", "169.255.0.0", "fec0::1", "2001:db8::1"],
        ),
        ("multicast", &["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"], &["223.255.255.255", "fec0::1"]),
        (
            "metadata",
            &["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"],
            &["169.254.169.253", "169.254.169.255", "100.100.100.201", "fd00:ec2::255", "127.0.0.1"],
        ),
    ];
    for (set, inside, outside) in table {
        let rules = json!([{"action": "deny", "hosts": [set]}]);
        let _ = everywhere().denied(udp(inside, 53)).allowed(udp(outside, 53)).check(&network("allow", &rules));
        let rules = json!([{"action": "allow", "hosts": [set]}]);
        let _ = everywhere().denied(udp(outside, 53)).allowed(udp(inside, 53)).check(&network("deny", &rules));
    }
}

#[test]
fn networks_end_where_their_prefixes_say() {
    let table: [(&[&str], &[&str], &[&str]); 4] = [
        (&["10.1.2.0/23"], &["10.1.2.0", "10.1.3.255", "::ffff:10.1.3.1"], &["10.1.1.255", "10.1.4.0", "::a01:201"]),
        (&["10.1.2.3"], &["10.1.2.3"], &["10.1.2.2", "10.1.2.4"]),
        (&["2001:db8::/33"], &["2001:db8::1", "2001:db8:7fff::1"], &["2001:db8:8000::1", "2001:db9::1"]),
        // One network in another, and the same one again.
        (&["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16"], &["10.0.0.1", "10.1.0.1", "10.255.0.1"], &["11.0.0.1"]),
    ];
    for (hosts, inside, outside) in table {
        let rules = json!([{"action": "deny", "hosts": hosts}]);
        let _ = everywhere().denied(udp(inside, 53)).allowed(udp(outside, 53)).check(&network("allow", &rules));
    }
}

#[test]
fn ports_and_ranges_include_both_their_ends() {
    let rules = json!([{"action": "deny", "ports": [80, "443", "8000-8003", "65535"]}]);
    let _ = everywhere()
        .denied(ports(&[80, 443, 8000, 8001, 8003, 65535]))
        .allowed(ports(&[1, 79, 81, 442, 444, 7999, 8004, 65534]))
        .check(&network("allow", &rules));
    let rules = json!([{"action": "allow", "ports": ["0-1023", "60000-65535"]}]);
    let _ = everywhere()
        .denied(ports(&[1024, 30000, 59999]))
        .allowed(ports(&[1, 1023, 60000, 65535]))
        .check(&network("deny", &rules));
}

#[test]
fn the_first_matching_rule_wins_and_is_named() {
    let one = json!({"action": "allow", "hosts": ["10.0.0.1"], "ports": [53]});
    let broad = json!({"action": "deny", "hosts": ["10.0.0.0/8"]});
    let rules_of = |policy: Value, probe: Probe| -> Vec<Value> {
        probe.check(&policy).events().iter().map(|event| event["rule"].clone()).collect()
    };
    // An exception before a broad denial.
    let probe = everywhere().denied(["udp4 10.0.0.1 54", "tcp4 10.0.0.2 53"]).allowed([
        "udp4 10.0.0.1 53",
        "udp6 ::ffff:10.0.0.1 53",
        "udp4 11.0.0.1 54",
    ]);
    assert_eq!(
        rules_of(network("allow", &json!([one, broad])), probe.argument("listen:0.0.0.0:53")),
        ["/network/rules/1"; 2]
    );
    // The same after it never matches.
    let probe = everywhere().denied(["udp4 10.0.0.1 53", "udp4 10.0.0.1 54"]).allowed(["udp4 11.0.0.1 53"]);
    assert_eq!(rules_of(network("allow", &json!([broad, one])), probe), ["/network/rules/0"; 2]);
    // A denial before a broad permission, and the default behind both.
    let rules = json!([{"action": "deny", "ports": [25]}, {"action": "allow", "hosts": ["10.0.0.0/8"]}]);
    let probe = everywhere().denied(["udp4 10.0.0.1 25", "udp4 11.0.0.1 53"]).allowed(["udp4 10.0.0.1 53"]);
    assert_eq!(rules_of(network("deny", &rules), probe), ["/network/rules/0", "default"]);
}

#[test]
fn without_rules_the_default_decides() {
    let attempts =
        ["udp4 10.0.0.1 53", "tcp4 127.0.0.1 8080", "udp6 ::1 53", "tcp6 2001:db8::1 8080", "mptcp4 10.0.0.1 8080"];
    let listening = || everywhere().argument("listen:0.0.0.0:8080").argument("listen::::8080");
    let output = listening().denied(attempts).check(&network("deny", &json!([])));
    assert!(output.events().iter().all(|event| event["rule"] == "default"), "{:#}", output.log);
    let _ = listening().allowed(attempts).check(&json!({"version": 1, "network": {"default": "allow"}}));
}

#[test]
fn protocols_are_told_apart() {
    let (tcp, udp) =
        (["tcp4 10.0.0.1 8080", "mptcp4 10.0.0.1 8080", "tcp6 ::1 8080"], ["udp4 10.0.0.1 8080", "udp6 ::1 8080"]);
    let listening = || everywhere().argument("listen:0.0.0.0:8080").argument("listen::::8080");
    let protocols = |names: &[&str]| network("allow", &json!([{"action": "deny", "protocols": names}]));
    let _ = listening().denied(tcp).allowed(udp).check(&protocols(&["tcp"]));
    let _ = listening().denied(udp).allowed(tcp).check(&protocols(&["udp"]));
    let _ = listening().denied(udp).denied(tcp).check(&protocols(&["tcp", "udp"]));
    let _ = listening().denied(udp).denied(tcp).check(&protocols(&["any"]));
    let _ = listening()
        .denied(tcp)
        .allowed(udp)
        .check(&network("deny", &json!([{"action": "allow", "protocols": ["udp"]}])));
}

#[test]
fn audit_mode_lets_everything_go_on_and_records_it() {
    let policy = json!({"version": 1, "mode": "audit", "network": {"default": "deny", "rules": [
        {"action": "allow", "ports": [53]}, {"action": "deny", "ports": [54]}
    ]}});
    let output =
        everywhere().allowed(["udp4 10.0.0.1 53", "udp4 10.0.0.1 54", "udp6 ::1 55"]).audited(2).check(&policy);
    let events: Vec<_> = output.events().iter().map(|event| (&event["verdict"], &event["rule"])).collect();
    assert_eq!(events, [(&json!("audited"), &json!("/network/rules/1")), (&json!("audited"), &json!("default"))]);
}

#[test]
fn the_last_of_256_rules_decides_like_the_first() {
    let mut rules: Vec<Value> = (0..255_u16).map(|i| json!({"action": "allow", "ports": [10_000 + i]})).collect();
    rules.push(json!({"action": "deny", "hosts": ["10.0.0.0/8"], "ports": ["10000-10255"]}));
    let output = everywhere()
        .denied(ports(&[10_255]))
        .allowed(ports(&[10_000, 10_063, 10_064, 10_254, 10_256]))
        .check(&network("allow", &json!(rules)));
    assert_eq!(output.events()[0]["rule"], "/network/rules/255");
}
