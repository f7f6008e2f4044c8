//! The operation `send`: datagrams whose receiver is named with them. In a network namespace in which 10.0.0.0/8 is this
//! host's, so that nothing leaves it.

use serde_json::{Value, json};
use support::{Output, Probe};

const UP: &str =
    "ip link set lo up; ip route add local 10.0.0.0/8 dev lo; ip -6 route add local fd00::/8 dev lo; exec \"$@\"";

fn alone() -> Probe {
    Probe::send().through(&["unshare", "--net", "sh", "-c", UP, "sh"])
}

/// A policy on sending alone.
fn send(default: &str, rules: &Value) -> Value {
    let mut rules = rules.as_array().unwrap().clone();
    for rule in &mut rules {
        rule["ops"] = json!(["send"]);
    }
    if default == "deny" {
        rules.push(json!({"action": "allow", "ops": ["connect", "bind", "receive"]}));
    }
    json!({"version": 1, "network": {"default": default, "rules": rules}})
}

/// Every way to send by a socket of a family.
fn ways(family: u8, address: &str, port: u16) -> Vec<String> {
    let kinds = [
        "sendto",
        "sendmsg",
        "sendmmsg",
        "cork",
        "segment",
        "segment_message",
        "zerocopy",
        "elsewhere",
        "uring",
        "uring_zc",
    ];
    kinds.iter().map(|kind| format!("{kind}{family} {address} {port}")).collect()
}

fn addresses(output: &Output) -> Vec<&Value> {
    output.events().iter().map(|event| &event["network"]["address"]).collect()
}

#[test]
fn a_rule_holds_for_every_way_to_send_and_every_spelling() {
    let rules = json!([{"action": "deny", "hosts": ["10.0.0.1"], "ports": [53]}]);
    let output = alone()
        .denied(ways(4, "10.0.0.1", 53))
        .denied(ways(6, "::ffff:10.0.0.1", 53))
        // AF_UNSPEC means AF_INET here, and a socket of IPv6's takes IPv4's addresses as they are.
        .denied(["as_unspec4 10.0.0.1 53", "as_inet6 10.0.0.1 53"])
        .allowed(ways(4, "10.0.0.2", 53))
        .allowed(ways(4, "10.0.0.1", 54))
        .allowed(ways(6, "fd00::1", 53))
        .allowed(["as_unspec4 10.0.0.1 54", "as_inet6 10.0.0.2 53"])
        .check(&send("allow", &rules));
    let event = &output.events()[0];
    assert_eq!((&event["op"], &event["hook"]), (&json!("send"), &json!("sendmsg4")));
    assert_eq!(event["network"], json!({"address": "10.0.0.1", "port": 53, "protocol": "udp", "host": null}));
    assert_eq!((&event["process"]["comm"], &event["rule"]), (&json!("python3"), &json!("/network/rules/0")));
    assert_eq!(output.hook("sendmsg6")["denied"], 0, "mapped addresses are IPv4's");

    let rules = json!([{"action": "deny", "hosts": ["fd00::/16"]}]);
    let output = alone()
        .denied(ways(6, "fd00::1", 53))
        .allowed(ways(6, "fd01::1", 53))
        .allowed(ways(6, "::ffff:10.0.0.1", 53))
        .allowed(["as_unspec6 fd00::1 53"])
        .check(&send("allow", &rules));
    assert_eq!(output.events()[0]["hook"], "sendmsg6");
}

#[test]
fn the_unspecified_address_is_this_host() {
    let table = [
        ("127.0.0.1", ["sendto4 0.0.0.0 53", "sendto6 ::ffff:0.0.0.0 53"], "sendto6 :: 53"),
        ("::1", ["sendto6 :: 53", "cork6 :: 53"], "sendto4 0.0.0.0 53"),
    ];
    for (host, denied, allowed) in table {
        let rules = json!([{"action": "deny", "hosts": [host]}]);
        let output = alone().denied(denied).allowed([allowed]).check(&send("allow", &rules));
        assert!(addresses(&output).iter().all(|address| **address == host), "{:#}", output.log);
    }
}

#[test]
fn sending_and_connecting_are_told_apart() {
    let connect = Probe::network().through(&["unshare", "--net", "sh", "-c", UP, "sh"]);
    let rules = json!([{"action": "deny", "hosts": ["10.0.0.1"]}]);
    let _ = connect.allowed(["udp4 10.0.0.1 53", "uring_udp4 10.0.0.1 53"]).check(&send("allow", &rules));
    // Who may connect only can't name anybody with a datagram, not even the peer.
    let _ = alone().denied(ways(4, "10.0.0.1", 53)).check(&send("deny", &json!([])));
    let rules = json!([{"action": "allow", "protocols": ["tcp"]}]);
    let _ = alone().denied(ways(4, "10.0.0.1", 53)).check(&send("deny", &rules));
    let rules = json!([{"action": "allow", "protocols": ["udp"], "hosts": ["10.0.0.0/8"], "ports": ["50-59"]}]);
    let output = alone()
        .allowed(ways(4, "10.0.0.1", 53))
        .denied(["sendto4 10.0.0.1 60", "sendto6 fd00::1 53"])
        .check(&send("deny", &rules));
    assert!(output.events().iter().all(|event| event["rule"] == "default"));
}

#[test]
fn a_denied_datagram_does_not_arrive() {
    let server = support::UdpServer::start("127.0.0.1");
    let rules = json!([{"action": "deny", "ports": [server.port()]}]);
    let probe =
        Probe::send().denied(ways(4, "127.0.0.1", server.port())).denied(ways(6, "::ffff:127.0.0.1", server.port()));
    let _ = probe.check(&send("allow", &rules));
    // The controls: seven ways to send one, one to send two, and two to send five segments, for each family.
    assert_eq!(server.received(), 2 * (7 + 2 + 2 * 5));
}

#[test]
fn audit_mode_sends_and_records() {
    let mut policy = send("deny", &json!([]));
    policy["mode"] = json!("audit");
    let output = alone().allowed(["sendto4 10.0.0.1 53", "cork6 fd00::1 53"]).audited(2).check(&policy);
    assert!(output.events().iter().all(|event| event["verdict"] == "audited" && event["op"] == "send"));
}
