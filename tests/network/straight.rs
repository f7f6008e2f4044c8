//! The kernel goes where the hooks looked: no unspecified address, device, control message or route leads elsewhere. In network
//! namespaces with a pair of devices whose other end tells to whom a
//! packet has left.

use serde_json::{Value, json};
use support::{Output, Probe};

use crate::network;

const UP: &str = "ip link set lo up; sysctl -qw net.ipv4.tcp_fastopen=0x603
    ip link add outer type veth peer name inner; ip link set inner up; ip link set outer up
    ip addr add 10.9.0.1/24 broadcast 10.9.0.255 dev outer; ip addr add fd00::1/64 dev outer nodad
    for host in a d; do
        ip neigh add fd00::$host lladdr 02:00:00:00:00:0$host dev outer
        ip neigh add 10.9.0.$((0x$host)) lladdr 02:00:00:00:00:0$host dev outer
    done
    ip route add 10.1.0.0/16 via 10.9.0.13
    exec \"$@\"";

fn probe() -> Probe {
    Probe::straight().through(&["unshare", "--net", "sh", "-c", UP, "sh"]).argument("7000")
}

/// Denied is what is asked of these hosts, and allowed all that arrives.
fn all_but(hosts: &[&str]) -> Value {
    network("allow", &json!([{"action": "deny", "ops": ["connect", "send"], "hosts": hosts}]))
}

fn addresses(output: &Output) -> Vec<&str> {
    output.events().iter().filter_map(|event| event["network"]["address"].as_str()).collect()
}

#[test]
fn an_unspecified_address_goes_where_it_was_judged_whatever_the_socket_is_bound_to() {
    // What is bound to one of these receives there, and sends from no address in particular.
    for bound in ["255.255.255.255", "224.0.0.1"] {
        let ways = ["tcp4", "udp4", "send4"].map(|how| format!("{how} 0.0.0.0 bound {bound}"));
        let mapped = ["tcp6", "udp6", "send6"].map(|how| format!("{how} ::ffff:0.0.0.0 bound ::ffff:{bound}"));
        let any = ["tcp6", "udp6"].map(|how| format!("{how} :: bound ::ffff:{bound}"));
        let all = || ways.iter().chain(&mapped).chain(&any).cloned();
        let output = probe().denied(all()).check(&all_but(&["loopback"]));
        assert!(addresses(&output).iter().all(|address| *address == "127.0.0.1"), "{:#}", output.log);
        let _ = probe().allowed(all()).check(&all_but(&[bound]));
    }
    // The broadcast address of a network of this host's: nothing is reached by it, and certainly not what it stood for.
    let ways = ["tcp4 0.0.0.0 bound 10.9.0.255", "send4 0.0.0.0 bound 10.9.0.255"];
    let output = probe().denied(ways).check(&all_but(&["10.9.0.255", "127.0.0.1"]));
    assert_eq!(addresses(&output), ["10.9.0.255", "127.0.0.1"]);
}

#[test]
fn a_control_message_says_what_an_unspecified_address_is() {
    let way = ["send4 0.0.0.0 source 127.0.0.1", "send6 ::ffff:0.0.0.0 source 127.0.0.1"];
    let output = probe().denied(["send4 0.0.0.0 source 10.9.0.1"]).allowed(way).check(&all_but(&["10.9.0.1"]));
    assert_eq!(addresses(&output), ["10.9.0.1"]);
    let output = probe().denied(way).allowed(["send4 0.0.0.0 source 10.9.0.1"]).check(&all_but(&["127.0.0.1"]));
    assert_eq!(addresses(&output), ["127.0.0.1"]);
}

#[test]
fn a_device_does_not_change_what_an_unspecified_address_is() {
    let ways = ["send4 0.0.0.0 device outer", "send4 0.0.0.0 unicast outer", "send6 ::ffff:0.0.0.0 device outer"];
    // Nobody gets it: what is for this host does not leave it.
    for policy in [all_but(&["10.9.0.0/24"]), all_but(&["127.0.0.1"]), all_but(&["192.0.2.1"])] {
        let output = probe().denied(ways).check(&policy);
        assert_eq!(addresses(&output).first(), Some(&"127.0.0.1"), "{:#}", output.log);
    }
    let _ = probe().allowed(["send4 0.0.0.0 device lo", "tcp4 0.0.0.0 device lo"]).check(&all_but(&["10.9.0.0/24"]));
}

#[test]
fn a_packet_has_no_route_of_its_own() {
    let policy = all_but(&["fd00::d"]);
    let ways = ["udp6 fd00::a route 4 fd00::d", "send6 fd00::a route 4 fd00::d", "tcp6 fd00::a route 4 fd00::d"];
    let plain = ["udp6 fd00::a", "send6 fd00::a", "tcp6 fd00::a"];
    let bare = probe().allowed(ways).allowed(plain).run_bare(&policy).stdout;
    let expected =
        ways.map(|way| format!("{way}: wire d\n")).concat() + &plain.map(|way| format!("{way}: wire a\n")).concat();
    assert_eq!(bare, expected);
    // Nor does a socket get one, which the kernel may keep when it is taken off again.
    let output = probe().denied(ways).allowed(plain).check(&policy);
    let [event] = output.events() else { panic!("{:#}", output.log) };
    assert_eq!(
        (&event["hook"], &event["rule"], &event["count"]),
        (&json!("setsockopt"), &json!("fail-closed"), &json!(3))
    );
    assert_eq!(event["process"]["comm"], "python3", "{event:#}");

    // Headers and options that lead nowhere go on.
    let _ = probe()
        .allowed(["udp6 fd00::a header", "send6 fd00::a message_header", "tcp6 fd00::a header"])
        .allowed([
            "tcp4 127.0.0.1 options 01010100",
            "send4 127.0.0.1 options 94040000",
            "udp4 10.9.0.10 options 01010100",
        ])
        .check(&policy);
    // A policy that is not about peers has nothing to say of routes.
    let nobody = network("allow", &json!([{"action": "deny", "ops": ["bind"], "protocols": ["tcp"], "ports": [1]}]));
    let _ = probe().allowed(ways).check(&nobody);
}

#[test]
fn a_socket_that_was_connected_by_ipv4_does_not_go_there_again() {
    // Where it may not be reached, though it may at another port: the kernel keeps the address.
    let rules = json!([{"action": "deny", "ops": ["connect"], "hosts": ["127.0.0.1"], "ports": [7000]}]);
    let policy = network("allow", &rules);
    let ways = ["fast6 fd00::a after ::ffff:127.0.0.1"];
    assert_eq!(probe().allowed(ways).run_bare(&policy).stdout, format!("{}: EINPROGRESS, and 127.0.0.1\n", ways[0]));
    let output = probe().allowed(ways).run_guarded(&policy);
    assert!(output.stdout.starts_with(ways[0]) && !output.stdout.contains("127.0.0.1\n"), "{output:#?}");
    assert_eq!((addresses(&output), &output.events()[0]["hook"]), (vec!["127.0.0.1"], &json!("egress")));
    // Those that stay with one version of IP go on.
    let same = [
        "tcp6 fd00::a after fd00::d",
        "tcp6 ::ffff:127.0.0.2 after ::ffff:127.0.0.1",
        "tcp4 127.0.0.2 after 127.0.0.1",
    ];
    let others = [
        "fast6 ::1",
        "udp6 fd00::a after ::ffff:127.0.0.1",
        "send6 ::ffff:127.0.0.2",
        "udp6 ::ffff:127.0.0.2 after fd00::d",
    ];
    let _ = probe().allowed(same).allowed(others).check(&policy);
}

#[test]
fn the_neighbour_is_the_one_that_the_packet_names() {
    // The denied host is the way to another network.
    let policy = |sockets: &Value| {
        let mut policy = all_but(&["10.9.0.13", "10.1.0.0/16"]);
        policy["sockets"] = json!({"default": "allow", "rules": sockets});
        policy
    };
    let ways = ["raw4 10.1.0.1 named 10.9.0.10", "included4 10.1.0.1 named 10.9.0.10"];
    let raw = policy(&json!([{"action": "allow", "type": "raw"}]));
    assert_eq!(probe().allowed(ways).run_bare(&raw).stdout, ways.map(|way| format!("{way}: wire d\n")).concat());
    let output = probe().denied(ways).check(&raw);
    let hooks: Vec<&Value> = output.events().iter().map(|event| &event["hook"]).collect();
    assert_eq!(hooks, ["sock_create", "setsockopt"], "{:#}", output.log);
    // Anybody who names such sockets has them judged by what their packets say.
    let named =
        policy(&json!([{"action": "allow", "type": "raw", "protocol": 255}, {"action": "allow", "type": "raw"}]));
    let output = probe().allowed(ways).denied(["raw4 10.9.0.10 named 10.9.0.13"]).check(&named);
    assert_eq!(addresses(&output), ["10.9.0.13"]);
}

#[test]
fn a_control_message_is_no_request_for_a_peer() {
    let rules = json!([
        {"action": "allow", "ops": ["connect"], "hosts": ["127.0.0.1", "fd00::a"], "ports": [7000]},
        {"action": "allow", "ops": ["bind", "receive"]},
    ]);
    let ways = ["udp4 127.0.0.1 marked", "udp6 fd00::a marked", "udp6 ::ffff:127.0.0.1 marked"];
    let _ = probe().allowed(ways).check(&network("deny", &rules));
}
