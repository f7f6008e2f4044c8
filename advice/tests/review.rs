//! Policies against what logs tell of: replayed, tidied and learnt.

#[path = "../../policy/tests/generate/mod.rs"]
mod generate;
#[path = "../../policy/tests/oracle/mod.rs"]
mod oracle;

use std::{net::IpAddr, path::Path};

use advice::{
    Judge, Learner, Record, Replay, Replayed, Side, UnixSockets, Usage, Why, compare, read_from, tidy, trial,
};
use generate::{case, parse};
use oracle::Net;
use policy::{Document, Resolved, compile::Tables, display_address, protocol_name, shared_space};
use proptest::prelude::*;
use serde_json::{Value, json};

const TIME: &str = "2026-11-29T21:40:15.411872945Z";

fn process() -> Value {
    json!({"pid": 7, "uid": 0, "comm": "client", "exe": null, "argv": null, "parent": null})
}

#[expect(clippy::needless_pass_by_value, reason = "so that what is made where it is called reads well")]
fn event(op: &str, hook: &str, verdict: &str, rule: &str, subject: Value) -> Value {
    let mut event = json!({"time": TIME, "op": op, "hook": hook, "verdict": verdict, "process": process(), "rule": rule,
        "count": 2, "first": TIME, "last": TIME});
    event.as_object_mut().unwrap().extend(subject.as_object().unwrap().clone());
    event
}

fn network(address: IpAddr, port: u16, protocol: &str) -> Value {
    json!({"network": {"address": address, "port": port, "protocol": protocol, "host": null}})
}

fn flow(direction: &str, address: &str, port: u16, protocol: &str) -> Value {
    let extent = if protocol == "tcp" {
        json!({"connections": 1, "open": 0, "duration": 0.5})
    } else {
        json!({"datagrams": {"sent": 1, "received": 1}})
    };
    let mut flow = json!({"direction": direction, "process": process(), "bytes": {"sent": 1, "received": 1}, "first": TIME,
        "last": TIME});
    flow.as_object_mut()
        .unwrap()
        .extend(network(address.parse().unwrap(), port, protocol).as_object().unwrap().clone());
    flow.as_object_mut().unwrap().extend(extent.as_object().unwrap().clone());
    flow
}

/// Records, as they are read from a log.
fn records(events: &[Value], flows: &[Value]) -> Vec<Record> {
    let log = json!({"schema": 1, "events": events, "flows": flows}).to_string();
    let mut records = Vec::new();
    read_from(log.as_bytes(), &mut |record| records.push(record)).unwrap();
    records
}

fn replayed(policy: &Resolved, records: &[Record]) -> Replayed {
    let tables = Tables::compile(policy).unwrap();
    let mut replay = Replay::new(&tables);
    for record in records {
        replay.add(record);
    }
    replay.finish()
}

const POLICY: &str = r#"{
  "version": 1,
  "network": {
    "default": "deny",
    "rules": [
      {"action": "allow", "ops": ["connect", "send", "receive"], "hosts": ["sandbox"]},
      {"action": "allow", "ops": ["connect"], "hosts": ["10.0.0.1", "10.0.0.2"], "ports": [80, 443, "8000-8999"]},
      {"action": "deny", "hosts": ["10.0.0.2"], "ports": [8080]},
      {"action": "allow", "ops": ["connect", "send"], "protocols": ["udp"], "hosts": ["10.0.0.53"], "ports": [53]},
      {"action": "allow", "ops": ["receive"], "local_ports": [9000]},
      {"action": "allow", "ops": ["bind"]},
      {"action": "allow", "hosts": ["192.0.2.0/24"]}
    ]
  },
  "devices": {"default": "deny", "rules": [{"action": "allow", "major": 1}]}
}
"#;

fn some_records() -> Vec<Record> {
    let device = json!({"device": {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0, "access": "r"}});
    let null = json!({"device": {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "access": "rw"}});
    let call = json!({"call": {"name": "bpf", "error": "EPERM"}});
    let events = [
        event("device", "device", "denied", "default", device),
        event("device", "device", "denied", "/devices/rules/0", null),
        event("connect", "connect4", "audited", "default", network("10.0.0.9".parse().unwrap(), 22, "tcp")),
        event("connect", "connect4", "denied", "default", network("10.0.0.1".parse().unwrap(), 443, "tcp")),
        event("call", "seccomp", "denied", "/process", call),
    ];
    let flows = [
        flow("outgoing", "10.0.0.1", 443, "tcp"),
        flow("outgoing", "10.0.0.53", 53, "udp"),
        flow("incoming", "10.0.0.7", 9000, "tcp"),
        flow("incoming", "10.0.0.7", 9001, "tcp"),
        flow("outgoing", "127.0.0.1", 5432, "tcp"),
        flow("outgoing", "10.0.0.3", 443, "tcp"),
    ];
    records(&events, &flows)
}

/// Asserts that a text is that of a golden file.
fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let expected = std::fs::read_to_string(path).unwrap();
    assert!(found == expected, "{name} would be:\n{found}");
}

fn assert_valid(schema: &str, json: &Value) {
    let schema = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(json).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn what_a_policy_would_have_decided() {
    let replayed = replayed(&parse(POLICY), &some_records());
    assert_eq!((replayed.records, replayed.without_rules, replayed.unsure), (11, 1, 1));
    let changes = |all: &[advice::Change]| -> Vec<String> {
        all.iter().map(|change| format!("{} {} {}", change.rule, change.was, change.records)).collect()
    };
    assert_eq!(changes(&replayed.would_be_denied), ["default audited by default 1", "default reached 2"]);
    let expected = ["/devices/rules/0 denied by /devices/rules/0 1", "/network/rules/1 denied by default 1"];
    assert_eq!(changes(&replayed.would_be_allowed), expected);
    let json = serde_json::to_value(&replayed).unwrap();
    assert_valid(include_str!("../../schema/replay.schema.json"), &json);
    golden("replay.txt", &replayed.to_string());
}

#[test]
fn names_that_peers_were_found_by_count() {
    let policy = parse(
        r#"{"version": 1, "network": {"default": "deny", "rules": [
            {"action": "allow", "hosts": ["*.example.org"], "ports": [443]}]}}"#,
    );
    let mut found = flow("outgoing", "203.0.113.7", 443, "tcp");
    let denied = |flow: &Value| replayed(&policy, &records(&[], std::slice::from_ref(flow))).would_be_denied.len();
    assert_eq!(denied(&found), 1);
    found["network"]["host"] = json!("api.example.org");
    assert_eq!(denied(&found), 0);
    // Names don't lead to private addresses unless a rule says so.
    found["network"]["address"] = json!("10.0.0.7");
    assert_eq!(denied(&found), 1);
}

#[test]
fn what_does_nothing_is_left_out_and_the_rest_stays_as_it_was() {
    let policy = parse(POLICY);
    let tables = Tables::compile(&policy).unwrap();
    let mut usage = Usage::new(&policy, &tables);
    let records = some_records();
    for record in &records {
        usage.add(record);
    }
    let side = Side { policy: &policy, tables: &tables };
    let tidied = tidy(side, &usage, POLICY, &read).unwrap();
    let idle: Vec<(&str, Why)> = tidied.idle.iter().map(|idle| (&*idle.pointer, idle.why)).collect();
    // Nothing tells whether a device, or bind, was needed; and 192.0.2.0/24 may not be bound by this host.
    let expected = [
        ("/network/rules/1/hosts/1", Why::Unused),
        ("/network/rules/1/ports/0", Why::Unused),
        ("/network/rules/1/ports/2", Why::Unused),
        ("/network/rules/6", Why::Unused),
    ];
    assert_eq!(idle, expected);
    golden("tidied.json", &tidied.text);
    golden("tidy.txt", &tidied.to_string());
    assert_valid(include_str!("../../schema/tidy.schema.json"), &serde_json::to_value(&tidied.idle).unwrap());
    assert_eq!(replayed(&parse(&tidied.text), &records).would_be_denied, replayed(&policy, &records).would_be_denied);
    // Without flows, logs don't tell what was needed.
    let usage = Usage::new(&policy, &tables);
    let tidied = tidy(side, &usage, POLICY, &read).unwrap();
    assert_eq!((&tidied.idle[..], &*tidied.to_string()), (&[][..], "No rule in it is hidden by earlier ones.\n"));
}

#[test]
fn udp_ports_that_a_program_chooses_at_random_are_all_allowed() {
    let bind = |port| event("bind", "bind4", "audited", "default", network("0.0.0.0".parse().unwrap(), port, "udp"));
    let events: Vec<Value> = (0..8).map(|number| bind(1000 + 1111 * number)).collect();
    let learnt = |events: &[Value]| {
        let mut learner = Learner::default();
        for record in &records(events, &[]) {
            learner.add(record);
        }
        learner.policy(&[], UnixSockets::Unseen, &|_| vec![])
    };
    let all = learnt(&events);
    assert!(
        all.text.contains(r#""ops": ["bind"], "protocols": ["udp"], "hosts": ["0.0.0.0"], "reason""#),
        "{}",
        all.text
    );
    assert!(
        all.notes[0].starts_with("guessed: the command chooses its UDP ports at 0.0.0.0 at random (8)"),
        "{:?}",
        all.notes
    );
    let some = learnt(&events[..7]);
    assert!(some.text.contains("7666") && some.notes.is_empty(), "{}", some.text);
}

#[test]
fn sockets_that_sort_addresses_need_no_rule() {
    let connect = |address: &str, port, protocol| {
        let subject = network(address.parse().unwrap(), port, protocol);
        event("connect", "connect4", "audited", "default", subject)
    };
    let name = json!({"name": {"name": "api.example.org", "type": "A", "nameserver": "127.0.0.53"}});
    let events = [
        event("resolve", "egress", "audited", "default", name),
        connect("203.0.113.7", 443, "udp"),
        connect("203.0.113.8", 443, "udp"),
        connect("203.0.113.9", 0, "udp"),
        connect("203.0.113.7", 443, "tcp"),
        // The program asks by which address it would leave.
        connect("192.0.2.1", 9, "udp"),
    ];
    let learnt = |flows: &[Value], lost| {
        let records = records(&events, flows);
        let mut learner = Learner::default();
        for record in &records {
            learner.add(record);
        }
        learner.flows_lost(lost);
        let addresses = ["203.0.113.7", "203.0.113.8"].map(|address| address.parse().unwrap());
        let text = learner.policy(&[], UnixSockets::Unseen, &|_| addresses.to_vec()).text;
        (parse(&text), text, records)
    };
    let (policy, text, seen) = learnt(&[], 0);
    assert!(text.contains(r#""ops": ["connect"], "protocols": ["tcp"], "hosts": ["api.example.org"], "ports": [443]"#));
    assert!(text.contains(r#""ops": ["connect"], "protocols": ["udp"], "hosts": ["192.0.2.1"], "ports": [9]"#));
    assert!(!text.contains("send") && !text.contains("203.0.113"), "{text}");
    // That they would be denied is no change that anybody would see.
    let mut found = seen;
    for record in &mut found {
        if let Record::Event(event) = record
            && let report::Subject::Network(network) = &mut event.subject
            && network.address.to_string().starts_with("203")
        {
            network.host = Some("api.example.org".to_owned());
        }
    }
    let again = replayed(&policy, &found);
    assert!(again.would_be_denied.is_empty() && again.unsure > 0, "{again}");
    // Where one has sent something, or nobody knows, UDP is allowed.
    let quic = flow("outgoing", "203.0.113.8", 443, "udp");
    for (flows, lost) in [(&[quic][..], 0), (&[], 1)] {
        let (_, text, _) = learnt(flows, lost);
        let udp = r#""ops": ["connect", "send"], "protocols": ["udp"], "hosts": ["api.example.org"], "ports": [443]"#;
        assert!(text.contains(udp), "{text}");
    }
    // What is there already by TCP is enough, too.
    let base = r#"{"version": 1, "network": {"default": "deny", "rules": [
        {"action": "allow", "ops": ["connect"], "hosts": ["203.0.113.0/24"], "protocols": ["tcp"], "ports": [443]}]}}"#;
    let tables = Tables::compile(&parse(base)).unwrap();
    let (mut learner, mut judge) = (Learner::default(), Judge::new(&tables));
    for record in &records(&events[1..5], &[]) {
        learner.add_to(&mut judge, record);
    }
    assert_eq!(learner.update(base, UnixSockets::Unseen, &|_| vec![]).text, base);
}

#[test]
fn sets_are_left_out_where_nothing_names_them() {
    let text = r#"{"version": 1, "sets": {"ours": ["10.0.0.1", "10.0.0.2"], "theirs": ["10.9.0.1"], "none": ["10.9.0.2"]},
        "network": {"default": "deny", "rules": [
            {"action": "allow", "ops": ["connect"], "hosts": ["@ours", "@theirs", "10.0.0.7"], "ports": [443]}]}}"#;
    let policy = parse(text);
    let tables = Tables::compile(&policy).unwrap();
    let mut usage = Usage::new(&policy, &tables);
    for record in &records(&[], &[flow("outgoing", "10.0.0.2", 443, "tcp")]) {
        usage.add(record);
    }
    let tidied = tidy(Side { policy: &policy, tables: &tables }, &usage, text, &read).unwrap();
    let idle: Vec<(&str, Why)> = tidied.idle.iter().map(|idle| (&*idle.pointer, idle.why)).collect();
    let expected = [
        ("/network/rules/0/hosts/1", Why::Unused),
        ("/network/rules/0/hosts/2", Why::Unused),
        ("/sets/none", Why::Unnamed),
        ("/sets/theirs", Why::Unnamed),
    ];
    assert_eq!(idle, expected, "{tidied}");
    let json: Value = serde_json::from_str(&tidied.text).unwrap();
    assert_eq!(json["sets"], json!({"ours": ["10.0.0.1", "10.0.0.2"]}));
    assert_eq!(json["network"]["rules"][0]["hosts"], json!(["@ours"]));
    assert_valid(include_str!("../../schema/tidy.schema.json"), &serde_json::to_value(&tidied.idle).unwrap());
}

#[test]
fn what_a_rule_implies_keeps_it() {
    let text = r#"{"version": 1, "network": {"default": "deny", "rules": [
            {"action": "allow", "ops": ["connect"], "hosts": ["sandbox"]},
            {"action": "allow", "ops": ["connect"], "hosts": ["10.0.0.1"], "ports": [443]}]}}"#;
    let policy = parse(text);
    let tables = Tables::compile(&policy).unwrap();
    let mut usage = Usage::new(&policy, &tables);
    for record in &records(&[], &[flow("outgoing", "10.0.0.9", 443, "tcp")]) {
        usage.add(record);
    }
    let tidied = tidy(Side { policy: &policy, tables: &tables }, &usage, text, &read).unwrap();
    let idle: Vec<&str> = tidied.idle.iter().map(|idle| &*idle.pointer).collect();
    // Without a rule on own sockets, their options would be nobody's matter.
    assert_eq!(idle, ["/network/rules/1"], "{tidied}");
    assert!(tidied.to_string().contains("left as it is: /network/rules/0: "), "{tidied}");
}

/// An event of a run in which all is recorded.
fn tried(net: &Net) -> Value {
    let address = display_address(shared_space(IpAddr::V6(net.address)));
    let op = ["connect", "bind", "send", "receive"][usize::from(net.op)];
    let rule = if net.own { "/network/rules/0" } else { "default" };
    let mut subject = network(address, net.port, &protocol_name(net.protocol.into()));
    if net.op == 3 {
        subject["network"]["local_port"] = json!(8000 + net.port % 3);
    }
    event(op, if net.op == 1 { "bind4" } else { "ingress" }, "audited", rule, subject)
}

#[test]
fn the_policies_for_learning_are_valid() {
    let table =
        [(UnixSockets::ByPath, true, true), (UnixSockets::Any, true, false), (UnixSockets::Unseen, false, false)];
    for (names, (unix, has_unix, by_path)) in [true, false].into_iter().flat_map(|names| table.map(|row| (names, row)))
    {
        let policy = parse(&trial(names, unix));
        let tables = Tables::compile(&policy).unwrap();
        assert_eq!((tables.names().is_some(), tables.unix.is_some()), (names, has_unix));
        assert_eq!(tables.unix.as_ref().is_some_and(|unix| unix.needs_peer), by_path);
    }
}

#[test]
fn what_belongs_together_is_learnt_as_one_rule() {
    let peer = |op, hook, rule, address: &str, port| {
        event(op, hook, "audited", rule, network(address.parse().unwrap(), port, "tcp"))
    };
    let mut received = peer("receive", "ingress", "default", "10.0.0.7", 40000);
    received["network"]["local_port"] = json!(8080);
    let name = json!({"name": {"name": "api.example.org", "type": "A", "nameserver": "127.0.0.53"}});
    let device = json!({"device": {"path": "/dev/pts/3", "type": "c", "major": 136, "minor": 3, "access": "rw"}});
    let sysctl = json!({"sysctl": {"name": "net/core/somaxconn", "access": "w", "value": "1"}});
    let call = |path: Value, remedy: &str| {
        let mut event =
            event("call", "seccomp", "audited", "/process", json!({"call": {"name": "call", "error": "EPERM"}}));
        event["call"]["path"] = path;
        event["reason"] = json!(format!("to allow it: {{\"process\": {remedy}}}"));
        event
    };
    let events = [
        peer("bind", "bind4", "/network/rules/0", "127.0.0.1", 0),
        peer("bind", "ingress", "/network/rules/0", "127.0.0.1", 45678),
        peer("bind", "bind4", "/network/rules/0", "0.0.0.0", 8080),
        peer("bind", "ingress", "/network/rules/0", "0.0.0.0", 8080),
        peer("connect", "connect4", "/network/rules/0", "127.0.0.1", 45678),
        peer("connect", "connect4", "default", "10.0.0.1", 443),
        peer("connect", "connect4", "default", "10.0.0.2", 443),
        peer("connect", "connect4", "default", "203.0.113.7", 443),
        received,
        event("resolve", "egress", "audited", "default", name),
        event(
            "unix",
            "unix_stream_connect",
            "audited",
            "default",
            json!({"unix": {"path": "/run/x", "operation": "connect"}}),
        ),
        event("device", "device", "audited", "default", device),
        event("sysctl", "sysctl", "audited", "/sysctls/rules/0", sysctl),
        call(json!(null), r#"{"allow":["keys"]}"#),
        call(json!("/run/docker.sock"), r#"{"allow":["delegation"]}"#),
    ];
    let records = records(&events, &[]);
    let mut learner = Learner::default();
    for record in &records {
        learner.add(record);
    }
    let learnt = learner.policy(&["a".to_owned(), "command".to_owned()], UnixSockets::ByPath, &|name| {
        assert_eq!(name, "api.example.org");
        vec!["203.0.113.7".parse().unwrap()]
    });
    golden("learnt.json", &learnt.text);
    let said = learnt.summary + "\n" + &learnt.notes.join("\n") + "\n" + &learnt.left_out.join("\n") + "\n";
    golden("learnt.txt", &said);
    let _ = parse(&learnt.text);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_learnt_from_is_allowed(case in case()) {
        let is_there = |net: &&Net| {
            let address = shared_space(IpAddr::V6(net.address));
            let unspecified = [0, 0xffff_0000_0000].contains(&address.to_bits());
            let loopback = net.address.to_canonical().is_loopback();
            net.op == 1 || !unspecified && (!net.own || loopback)
        };
        let events: Vec<Value> = case.nets.iter().filter(is_there).map(tried).collect();
        let records = records(&events, &[]);
        let mut learner = Learner::default();
        for record in &records {
            learner.add(record);
        }
        let text = learner.policy(&[], UnixSockets::Unseen, &|_| vec![]).text;
        let replayed = replayed(&parse(&text), &records);
        prop_assert!(replayed.would_be_denied.is_empty(), "{replayed}\n{text}");
    }
}

/// The flow that a request leaves that was let through. `None` of what leaves none.
fn left(net: &Net, host: Option<&str>) -> Option<Value> {
    let protocol = [(6, "tcp"), (17, "udp")].into_iter().find(|(number, _)| *number == net.protocol)?.1;
    let address = display_address(shared_space(IpAddr::V6(net.address))).to_string();
    let mut flow = match net.op {
        0 | 2 => flow("outgoing", &address, net.port, protocol),
        3 => flow("incoming", &address, 8000 + net.port % 3, protocol),
        _ => return None,
    };
    flow["network"]["host"] = json!(host);
    Some(flow)
}

/// A policy from its text, if it is one.
fn read(text: &str) -> Option<Resolved> {
    Document::new(Path::new("p.json"), text.into()).resolve(&generate::Memory).ok()
}

/// Asserts that a policy without what does nothing is one that allows no more and decides on all records as before.
fn tidies(text: &str, records: &[Record]) -> Result<(), TestCaseError> {
    let policy = parse(text);
    let tables = Tables::compile(&policy).unwrap();
    let mut usage = Usage::new(&policy, &tables);
    for record in records {
        usage.add(record);
    }
    let side = Side { policy: &policy, tables: &tables };
    let Ok(tidied) = tidy(side, &usage, text, &read) else {
        // Names that can be told apart in too many ways.
        return Ok(());
    };
    let shorter = parse(&tidied.text);
    let shorter_tables = Tables::compile(&shorter).unwrap();
    let wider = compare(side, Side { policy: &shorter, tables: &shorter_tables }).unwrap().wider;
    prop_assert!(wider.is_empty(), "{wider:?}\n{text}\n{}", tidied.text);
    let (before, after) = (replayed(&policy, records), replayed(&shorter, records));
    let counts = |all: &[advice::Change]| all.iter().map(|change| change.records).sum::<u64>();
    let same = |before: &[advice::Change], after: &[advice::Change]| counts(before) == counts(after);
    prop_assert!(
        same(&before.would_be_denied, &after.would_be_denied)
            && same(&before.would_be_allowed, &after.would_be_allowed),
        "{before}\n{after}\n{text}\n{}",
        tidied.text
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn what_is_left_out_changes_no_verdict(case in case(), seen in any::<u64>(), told in any::<prop::sample::Index>(), names in 0_usize..4) {
        let is_there = |net: &&Net| !net.own || net.address.to_canonical().is_loopback();
        let nets: Vec<&Net> = case.nets.iter().filter(is_there).collect();
        let mut events: Vec<Value> = nets.iter().map(|net| tried(net)).collect();
        let name = |number: usize| format!("host{number}.example.org");
        for number in 0..names {
            let asked = json!({"name": {"name": name(number), "type": "A", "nameserver": "10.0.0.53"}});
            events.push(event("resolve", "egress", "audited", "default", asked));
        }
        // Some names have an address that was reached, others none.
        let address = |net: &Net| display_address(shared_space(IpAddr::V6(net.address)));
        let leads: Vec<(String, IpAddr)> =
            (0..names).zip(nets.iter().step_by(2)).map(|(number, net)| (name(number), address(net))).collect();
        let mut learner = Learner::default();
        for record in &records(&events, &[]) {
            learner.add(record);
        }
        let addresses =
            |asked: &str| leads.iter().filter(|(name, _)| name == asked).map(|(_, address)| *address).collect();
        let text = learner.policy(&[], UnixSockets::Unseen, &addresses).text;
        let host = |net: &Net| leads.iter().find(|(_, led)| *led == address(net)).map(|(name, _)| &**name);
        let some = nets.iter().enumerate().filter(|(number, _)| seen >> (number % 64) & 1 == 1);
        let mut flows: Vec<Value> = some.filter_map(|(_, net)| left(net, host(net))).collect();
        flows.push(flow("outgoing", "10.0.0.53", 53, "udp"));
        let records = records(&events[..told.index(events.len() + 1)], &flows);
        tidies(&text, &records)?;
        tidies(&case.json, &records)?;
    }
}
