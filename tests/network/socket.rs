//! The section `sockets`, and sockets by which network rules could be evaded: refused unless they are allowed by name, and
//! then judged packet by packet. In a network namespace in which 10.0.0.0/8 and fd00::/64 are this host's.

use serde_json::{Value, json};
use support::{Output, Probe, Run, cgroup_only};

const UP: &str = "ip link set lo up; ip addr add 10.0.0.1/8 dev lo; ip addr add 10.0.0.2/8 dev lo
ip -6 addr add fd00::1/64 dev lo nodad; ip -6 addr add fd00::2/64 dev lo nodad
echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range; exec \"$@\"";

const ALONE: [&str; 6] = ["unshare", "--net", "sh", "-c", UP, "sh"];

fn alone() -> Probe {
    Probe::packet().through(&ALONE)
}

fn sockets(default: &str, rules: &Value) -> Value {
    json!({"version": 1, "sockets": {"default": default, "rules": rules}})
}

/// A policy on who is sent to, with sockets allowed by name.
fn named(network_rules: &Value, socket_rules: &Value) -> Value {
    let mut rules = network_rules.as_array().unwrap().clone();
    for rule in &mut rules {
        rule["ops"] = json!(["connect", "send"]);
    }
    json!({"version": 1, "network": {"default": "allow", "rules": rules},
           "sockets": {"default": "allow", "rules": socket_rules}})
}

fn subjects(output: &Output) -> Vec<&Value> {
    output.events().iter().map(|event| &event["socket"]).collect()
}

/// A socket of each kind: TCP, UDP, MPTCP, UDP-Lite, ping, raw; AF_INET is 2, AF_INET6 10.
const STREAMS: [&str; 4] = ["socket 2 1 0", "socket 10 1 6", "socket 2 1 262", "socket 10 1 262"];
const DATAGRAMS: [&str; 2] = ["socket 2 2 0", "socket 10 2 17"];
const LITE: [&str; 2] = ["socket 2 2 136", "socket 10 2 136"];
const PING: [&str; 2] = ["socket 2 2 1", "socket 10 2 58"];
const RAW: [&str; 6] =
    ["socket 2 3 1", "socket 2 3 6", "socket 2 3 255", "socket 10 3 58", "socket 10 3 17", "socket 10 3 255"];
/// What the kernel does not ask about: Unix, netlink, packet.
const OTHERS: [&str; 4] = ["socket 1 1 0", "socket 1 2 0", "socket 16 3 0", "socket 17 3 0"];

#[test]
fn rules_on_family_type_and_protocol() {
    let all = |attempts: &[&[&str]]| -> Vec<String> { attempts.concat().iter().map(ToString::to_string).collect() };
    let table: [(Value, Vec<String>, Vec<String>); 6] = [
        (json!({"type": "raw"}), all(&[&RAW]), all(&[&STREAMS, &DATAGRAMS, &LITE, &PING, &OTHERS])),
        (json!({"type": "stream"}), all(&[&STREAMS]), all(&[&RAW, &DATAGRAMS, &LITE, &PING])),
        (json!({"protocol": "udplite"}), all(&[&LITE]), all(&[&RAW, &DATAGRAMS, &STREAMS, &PING])),
        (json!({"protocol": 136, "family": "inet6"}), all(&[&LITE[1..]]), all(&[&LITE[..1], &DATAGRAMS])),
        (json!({"protocol": "mptcp"}), all(&[&STREAMS[2..]]), all(&[&STREAMS[..2]])),
        (
            json!({"family": "inet", "type": "dgram"}),
            all(&[&DATAGRAMS[..1], &LITE[..1], &PING[..1]]),
            all(&[&LITE[1..], &PING[1..], &STREAMS, &RAW]),
        ),
    ];
    for (mut rule, denied, allowed) in table {
        rule["action"] = json!("deny");
        let output = alone().denied(denied.clone()).allowed(allowed.clone()).check(&sockets("allow", &json!([rule])));
        assert!(
            output.events().iter().all(|event| event["rule"] == "/sockets/rules/0" && event["hook"] == "sock_create")
        );
        rule["action"] = json!("allow");
        let inet: Vec<String> = allowed.into_iter().filter(|attempt| !OTHERS.contains(&attempt.as_str())).collect();
        let output = alone().denied(inet).allowed(denied).allowed(OTHERS).check(&sockets("deny", &json!([rule])));
        assert!(output.events().iter().all(|event| event["rule"] == "default" && event["op"] == "socket"));
    }
    let output = alone().denied(["socket 10 3 255"]).check(&sockets("deny", &json!([])));
    assert_eq!(subjects(&output), [&json!({"family": "inet6", "type": "raw", "protocol": "255"})]);
    assert_eq!(output.events()[0]["process"]["comm"], "python3");
    let mut audit = sockets("deny", &json!([]));
    audit["mode"] = json!("audit");
    let output = alone().allowed(["socket 2 1 0", "socket 2 3 1"]).audited(2).check(&audit);
    assert!(output.events().iter().all(|event| event["verdict"] == "audited"));
}

#[test]
fn what_could_evade_the_network_section_is_refused() {
    let network = |rule: &Value| json!({"version": 1, "network": {"default": "allow", "rules": [rule]}});
    let fine = STREAMS.into_iter().chain(DATAGRAMS).chain(OTHERS);
    let tcp = json!({"action": "deny", "protocols": ["tcp"], "ports": [9090]});
    let output = alone().denied(RAW).allowed(PING).allowed(LITE).allowed(fine.clone()).check(&network(&tcp));
    for event in output.events() {
        assert_eq!((&event["op"], &event["rule"]), (&json!("socket"), &json!("fail-closed")));
        assert!(
            event["reason"].as_str().unwrap().contains("name its type or protocol in a rule of the sockets section")
        );
    }
    let icmp = json!({"action": "deny", "protocols": ["icmp"]});
    let _ = alone().denied(RAW).denied(PING).allowed(LITE).allowed(fine.clone()).check(&network(&icmp));
    let any = json!({"action": "deny", "hosts": ["10.0.0.9"]});
    let _ = alone().denied(RAW).denied(PING).denied(LITE).allowed(fine.clone()).check(&network(&any));
    let nothing = json!({"action": "allow", "hosts": ["10.0.0.9"]});
    let _ = alone().allowed(RAW).allowed(PING).allowed(LITE).allowed(fine).check(&network(&nothing));
    // A rule that allows any socket, or any of a family, names none.
    let all = json!([{"action": "allow", "family": "inet"}, {"action": "allow"}]);
    let _ = alone().denied(RAW).denied(PING).denied(LITE).check(&named(&json!([any]), &all));
    let raw = json!([{"action": "allow", "type": "raw"}]);
    // Where rules tell hosts apart, packets with an IP header of their own have to be allowed as such.
    // Raw sockets for datagrams are none at all then.
    let (datagrams, raws): (Vec<&str>, Vec<&str>) = RAW.iter().partition(|socket| socket.ends_with(" 17"));
    let (headers, others): (Vec<&str>, Vec<&str>) = raws.iter().partition(|socket| socket.ends_with(" 255"));
    let refused = || alone().denied(PING).denied(LITE).denied(datagrams.clone());
    let output = refused().denied(headers.clone()).allowed(others).check(&named(&json!([any]), &raw));
    assert!(output.events().iter().any(|event| event["reason"].as_str().unwrap().contains("name protocol 255")));
    let headers_too = json!([{"action": "allow", "type": "raw", "protocol": 255}, {"action": "allow", "type": "raw"}]);
    let _ = refused().allowed(raws).check(&named(&json!([any]), &headers_too));
    let _ = alone().allowed(PING).allowed(LITE).allowed(headers).check(&named(&json!([tcp]), &raw));
    // To be named doesn't help where a rule before denies it.
    let both = json!([{"action": "deny", "family": "inet"}, {"action": "allow", "type": "raw"}]);
    let _ = alone().denied([RAW[0]]).allowed([RAW[3]]).check(&named(&json!([any]), &both));
}

#[test]
fn forged_headers_are_judged_and_what_is_allowed_arrives() {
    let raw = json!([{"action": "allow", "type": "raw", "protocol": 255}, {"action": "allow", "type": "raw"}]);
    let rule = json!([{"action": "deny", "hosts": ["10.0.0.1", "fd00::1"], "ports": [53]}]);
    let ways4 = ["forged_tcp4", "forged_options4", "hdrincl4", "hdrincl_tcp4", "hdrincl_options4"];
    let ways6 = ["forged_tcp6", "forged_hop6", "forged_dst6"];
    let to = |ways: &[&str], peer: &str| -> Vec<String> { ways.iter().map(|way| format!("{way} {peer}")).collect() };
    let output = alone()
        .denied(to(&ways4, "10.0.0.1 53"))
        .denied(to(&ways6, "fd00::1 53"))
        .allowed(to(&ways4, "10.0.0.1 54"))
        .allowed(to(&ways4, "10.0.0.2 53"))
        .allowed(to(&ways6, "fd00::2 53"))
        .check(&named(&rule, &raw));
    let arrived = output.stdout.lines().filter(|line| line.ends_with(": ok arrived hello")).count();
    assert_eq!(arrived, 2 * 2, "all but TCP's: {}", output.stdout);
    let mut seen: Vec<Value> = output
        .events()
        .iter()
        .map(|event| {
            json!([
                event["op"],
                event["hook"],
                event["rule"],
                event["network"]["protocol"],
                event["network"]["address"]
            ])
        })
        .collect();
    seen.sort_by_key(ToString::to_string);
    let expected = [("connect", "tcp", "10.0.0.1"), ("connect", "tcp", "fd00::1"), ("send", "udp", "10.0.0.1")];
    assert_eq!(
        seen,
        expected.map(|(op, protocol, address)| json!([op, "egress", "/network/rules/0", protocol, address]))
    );
    assert!(
        output.events().iter().all(|event| event["process"]["comm"] == "python3" && event["network"]["port"] == 53)
    );
}

#[test]
fn what_can_not_be_judged_for_certain_is_denied() {
    let raw = json!([{"action": "allow", "type": "raw", "protocol": 255}, {"action": "allow", "type": "raw"}]);
    // The rule itself matches none of it.
    let rule = json!([{"action": "deny", "hosts": ["10.9.9.9", "fd00::9"]}]);
    let unclear = [
        "hdrincl_lsrr4 10.0.0.1 53",
        "hdrincl_more4 10.0.0.1 53",
        "hdrincl_later4 10.0.0.1 53",
        "hdrincl_short4 10.0.0.1 53",
        "hdrincl_version4 10.0.0.1 53",
    ];
    let output =
        alone().denied(unclear).allowed(["hdrincl4 10.0.0.1 53", "forged_dst6 fd00::1 53"]).check(&named(&rule, &raw));
    for event in output.events() {
        assert_eq!(
            (&event["op"], &event["hook"], &event["rule"]),
            (&json!("send"), &json!("egress"), &json!("fail-closed"))
        );
        assert!(event["reason"].as_str().unwrap().contains("headers"), "{event:#}");
    }
    assert_eq!(output.hook("egress")["denied"], unclear.len());
    assert_eq!(output.hook("egress")["unrecorded"], 0);
}

#[test]
fn ping_that_is_allowed_by_name_is_judged() {
    let both =
        json!([{"action": "allow", "type": "dgram", "protocol": "icmp"}, {"action": "allow", "protocol": "icmpv6"}]);
    let rule = json!([{"action": "deny", "hosts": ["10.0.0.1", "fd00::1"]}]);
    let output = alone()
        .denied(["ping4 10.0.0.1 0", "ping_connected4 10.0.0.1 0"])
        .allowed(["ping4 10.0.0.2 0", "ping_connected4 10.0.0.2 0", "ping6 fd00::2 0", "ping_connected6 fd00::2 0"])
        .check(&named(&rule, &both));
    let replies = output.stdout.lines().filter(|line| line.contains(": ok reply")).count();
    assert_eq!(replies, 4, "{}", output.stdout);
    let rule = json!([{"action": "deny", "protocols": ["icmp"], "hosts": ["10.0.0.1"]}]);
    let output = alone().denied(["ping4 10.0.0.1 0"]).allowed(["ping4 10.0.0.2 0"]).check(&named(&rule, &both));
    assert_eq!(output.events()[0]["network"]["protocol"], "icmp");

    // The kernel drops IPv6's pings without a word to the caller (`ping_v6_sendmsg` ignores what becomes of the packet).
    let policy = named(&json!([{"action": "deny", "hosts": ["fd00::1"]}]), &both);
    let attempts = ["ping6 fd00::1 0", "ping_connected6 fd00::1 0"];
    let run = Run::python(cgroup_only(&policy), include_str!("../probes/packet.py"), &attempts).through(ALONE);
    assert_eq!(run.bare().success().stdout.matches(": ok reply 129").count(), 2);
    let output = run.output().success();
    assert_eq!(output.stdout.matches(": timed out").count(), 1, "{}", output.stdout);
    let hooks: Vec<&Value> = output.events().iter().map(|event| &event["hook"]).collect();
    assert_eq!((hooks.len(), output.sum("denied")), (2, 2), "{:#}", output.log);
}
