//! What is suggested takes into account what the other records of the logs tell.

use std::path::{Path, PathBuf};

use advice::{Denials, Guard, Peer, Widen, of_host, read_from};
use policy::{DeviceNode, Document, Machine, Surroundings};
use serde_json::{Value, json};

/// A machine without devices.
struct Bare;

impl Machine for Bare {
    fn device(&self, _: &Path) -> Result<DeviceNode, String> {
        Err("no device node".to_owned())
    }

    fn surroundings(&self) -> Result<Surroundings, String> {
        Ok(Surroundings { nameservers: vec!["10.0.0.53".parse().unwrap()], ..Surroundings::default() })
    }

    fn real_path(&self, path: &Path) -> PathBuf {
        path.strip_prefix("/var/run").map_or_else(|_| path.to_owned(), |rest| Path::new("/run").join(rest))
    }
}

fn guard(rules: &Value) -> Guard {
    let policy = json!({"version": 1, "network": {"default": "deny", "rules": rules}});
    Guard::new(Document::new(Path::new("p.json"), policy.to_string().into()), &Bare).unwrap()
}

/// An event, at a second of the log, of a process.
fn event(second: u32, pid: u32, op: &str, verdict: &str, subject: &Value) -> Value {
    let time = format!("2026-01-01T00:00:{second:02}Z");
    let hook = if op == "bind" { "bind4" } else { "hook" };
    let mut event = json!({"time": time, "op": op, "hook": hook, "verdict": verdict, "rule": "default", "count": 1,
        "first": time, "last": time,
        "process": {"pid": pid, "uid": 0, "comm": "x", "exe": null, "argv": null, "parent": null}});
    event.as_object_mut().unwrap().extend(subject.as_object().unwrap().clone());
    event
}

fn tcp(address: &str, port: u16, host: Option<&str>) -> Value {
    json!({"network": {"address": address, "port": port, "protocol": "tcp", "host": host}})
}

fn received(address: &str, port: u16, local_port: u16) -> Value {
    json!({"network": {"address": address, "port": port, "local_port": local_port, "protocol": "tcp", "host": null}})
}

fn name(name: &str) -> Value {
    json!({"name": {"name": name, "type": "A", "nameserver": "10.0.0.53"}})
}

fn denials(events: &[Value]) -> Denials {
    let log = json!({"schema": 1, "events": events}).to_string();
    let mut denials = Denials::default();
    read_from(log.as_bytes(), &mut |record| denials.add(record)).unwrap();
    denials
}

/// The rules that are suggested, and what is assumed.
fn suggested(rules: &Value, events: &[Value]) -> (Value, Value) {
    let guard = guard(rules);
    let suggestion = advice::suggest(&guard, &[], &denials(events), Widen::default(), &Bare).unwrap();
    suggestion.apply(&guard).unwrap();
    let json = serde_json::to_value(&suggestion).unwrap();
    let rules = json["allows"].as_array().unwrap().iter().map(|allowed| allowed["rule"].clone()).collect();
    (rules, json["assumes"].clone())
}

fn explained(rules: &Value, events: &[Value]) -> String {
    denials(events).explain(&guard(rules), &[], &Bare).to_string()
}

/// A rule that has a name, without which names are no matter of policies.
fn one_name() -> Value {
    json!([{"action": "allow", "hosts": ["a.example.org"], "ports": [443]}])
}

#[test]
fn a_name_gets_the_port_that_was_connected_to() {
    let rule = |ports: &Value| json!([{"action": "allow", "ops": ["connect"], "hosts": ["b.example.org"], "protocols": ["tcp"], "ports": ports}]);
    let asked = |verdict| event(1, 7, "resolve", verdict, &name("b.example.org"));
    let connects = |second, pid, port| event(second, pid, "connect", "audited", &tcp("192.0.2.1", port, None));
    // In audit mode, the query is answered, and the process goes on.
    let audited = [asked("audited"), connects(2, 7, 8443)];
    let (rules, assumes) = suggested(&one_name(), &audited);
    assert_eq!(rules, rule(&json!([8443])));
    let expected = "that 192.0.2.1 was found by b.example.org, for which the process had asked before";
    assert_eq!(assumes, json!([expected]));
    let said = explained(&one_name(), &audited);
    assert!(said.contains(r#""hosts": ["b.example.org"], "ports": [8443]"#), "{said}");
    assert!(said.contains(&format!("assumes {expected}")) && !said.contains("assumes port"), "{said}");
    // In a later log, the name is known by which the address was found.
    let later = event(2, 9, "connect", "denied", &tcp("192.0.2.1", 8443, Some("b.example.org")));
    let (rules, assumes) = suggested(&one_name(), &[asked("denied"), later]);
    assert!(rules.to_string().contains("[8443]") && !rules.to_string().contains("192.0.2.1"), "{rules}");
    assert_eq!(assumes, Value::Null);
    // Nobody knows: the query was refused, another process connected, or another name was asked for in between.
    let other = event(2, 7, "resolve", "audited", &name("c.example.org"));
    for events in [
        vec![asked("denied")],
        vec![asked("denied"), connects(2, 7, 8443)],
        vec![asked("audited"), connects(2, 8, 8443)],
        vec![asked("audited"), other, connects(3, 7, 8443)],
    ] {
        let (rules, assumes) = suggested(&one_name(), &events[..1]);
        assert_eq!(rules, rule(&json!([443])));
        let expected = "port 443 by TCP for b.example.org: nothing has connected to it yet";
        assert_eq!(assumes, json!([expected]));
        assert!(suggested(&one_name(), &events).1.to_string().contains(expected), "{events:?}");
        let said = explained(&one_name(), &events);
        assert!(said.contains(&format!("assumes {expected}")), "{said}");
    }
}

#[test]
fn addresses_that_were_connected_to_after_a_query_become_the_name() {
    let asked = |second, known: &str| event(second, 7, "resolve", "audited", &name(known));
    let connects = |second, address, port| event(second, 7, "connect", "audited", &tcp(address, port, None));
    let udp = |second, address| {
        let subject = json!({"network": {"address": address, "port": 80, "protocol": "udp", "host": null}});
        event(second, 7, "connect", "audited", &subject)
    };
    let rules = |events: &[Value]| suggested(&one_name(), events).0;
    let hosts = |events: &[Value]| {
        let rules = rules(events);
        rules.as_array().unwrap().iter().map(|rule| (rule["hosts"].clone(), rule["ports"].clone())).collect::<Vec<_>>()
    };
    // A name's second address, and the next name.
    let b = [asked(1, "b.example.org"), connects(2, "192.0.2.1", 80), connects(3, "192.0.2.2", 80)];
    let c = [asked(4, "c.example.org"), connects(5, "192.0.2.3", 80)];
    let both = hosts(&[&b[..], &c].concat());
    assert_eq!(both, [(json!(["b.example.org", "c.example.org"]), json!([80]))]);
    // Addresses are sorted by UDP before.
    let sorted = [asked(1, "b.example.org"), udp(2, "192.0.2.1"), udp(3, "192.0.2.2"), connects(4, "192.0.2.1", 80)];
    assert!(!rules(&sorted).to_string().contains("192.0.2"), "{}", rules(&sorted));
    // At another port it is somebody else, and after two names nobody knows which.
    let other = [&b[..], &[connects(4, "192.0.2.9", 5432)]].concat();
    assert!(hosts(&other).contains(&(json!(["192.0.2.9"]), json!([5432]))), "{:?}", hosts(&other));
    let two = [asked(1, "b.example.org"), asked(2, "c.example.org"), connects(3, "192.0.2.1", 80)];
    assert!(rules(&two).to_string().contains("192.0.2.1"), "{}", rules(&two));
    // What no rule can have as a name leaves the address, of a query and of a log that somebody has written.
    let odd = [asked(1, "b c.example.org"), connects(2, "192.0.2.1", 80)];
    assert!(rules(&odd).to_string().contains("192.0.2.1"), "{}", rules(&odd));
    let forged = [event(1, 7, "connect", "denied", &tcp("192.0.2.1", 80, Some("b\u{1b}.example.org")))];
    assert!(rules(&forged).to_string().contains("192.0.2.1"), "{}", rules(&forged));
    // A private address becomes the name, too, where it says so.
    let near = rules(&[asked(1, "b.example.org"), connects(2, "10.0.0.1", 80)]);
    let expected = json!([{"action": "allow", "ops": ["connect"], "protocols": ["tcp"], "hosts": ["b.example.org"], "ports": [80],
        "private": true}]);
    assert_eq!(near, expected);
}

#[test]
fn a_server_that_the_policy_lets_the_command_have_is_its_own() {
    let denied = |port| event(1, 7, "connect", "denied", &tcp("127.0.0.1", port, None));
    let bind = |host: &str, ports: &Value| {
        let mut rule = json!({"action": "allow", "ops": ["bind"], "hosts": [host]});
        rule.as_object_mut().unwrap().extend(ports.as_object().unwrap().clone());
        json!([rule])
    };
    let named = json!({"ports": [8080, "ephemeral"]});
    for host in ["127.0.0.1", "0.0.0.0"] {
        let (rules, assumes) = suggested(&bind(host, &named), &[denied(8080)]);
        let expected =
            json!({"action": "allow", "ops": ["connect"], "protocols": ["tcp"], "hosts": ["sandbox"], "ports": [8080]});
        assert_eq!(rules, json!([expected]));
        let expected = "that the server at port 8080 of this host is the command's own, which may bind it";
        assert_eq!(assumes, json!([expected]));
    }
    let (rules, _) = suggested(&bind("127.0.0.1", &named), &[denied(40123)]);
    assert_eq!(rules, json!([{"action": "allow", "ops": ["connect"], "protocols": ["tcp"], "hosts": ["sandbox"]}]));
    // It may have a server there, as anywhere: that says nothing.
    for (rules, port) in [(bind("127.0.0.1", &json!({})), 8080), (bind("127.0.0.1", &named), 8081)] {
        assert_eq!(suggested(&rules, &[denied(port)]).0[0]["hosts"], json!(["127.0.0.1"]));
    }
    // If it was somebody else's, the next suggestion is the address.
    let mut rules = bind("127.0.0.1", &named);
    rules.as_array_mut().unwrap().push(json!({"action": "allow", "ops": ["connect"], "hosts": ["sandbox"]}));
    assert_eq!(suggested(&rules, &[denied(8080)]).0[0]["hosts"], json!(["127.0.0.1"]));
}

#[test]
fn own_servers_are_meant_as_such() {
    let rules = json!([]);
    let bind = |port| event(1, 7, "bind", "audited", &tcp("127.0.0.1", port, None));
    let connect = |port| event(2, 7, "connect", "audited", &tcp("127.0.0.1", port, None));
    let receive = |port| event(3, 7, "receive", "audited", &received("127.0.0.1", 50000, port));
    let sandbox = |rule: &Value| rule["hosts"] == json!(["sandbox"]);
    let (suggestion, assumes) = suggested(&rules, &[bind(5433), connect(5433), receive(5433)]);
    let own: Vec<&Value> = suggestion.as_array().unwrap().iter().filter(|rule| sandbox(rule)).collect();
    assert_eq!(own.len(), 2, "{suggestion}");
    assert_eq!((&own[0]["ops"], &own[0]["ports"]), (&json!(["connect"]), &json!([5433])));
    assert_eq!((&own[1]["ops"], &own[1]["local_ports"]), (&json!(["receive"]), &json!([5433])));
    assert!(assumes.to_string().contains("5433"), "{assumes}");
    // A port that the kernel has chosen is another one next time.
    let (suggestion, _) = suggested(&rules, &[bind(0), connect(40123), receive(40123)]);
    let own: Vec<&Value> = suggestion.as_array().unwrap().iter().filter(|rule| sandbox(rule)).collect();
    assert_eq!(
        own,
        [&json!({"action": "allow", "ops": ["connect", "receive"], "protocols": ["tcp"], "hosts": ["sandbox"]})]
    );
    // Where the policy lets the command connect there, its own client may be who came; where not, it was somebody else.
    let may_connect = json!([{"action": "allow", "ops": ["connect", "bind"]}]);
    assert!(sandbox(&suggested(&may_connect, &[receive(5433)]).0[0]));
    assert!(!sandbox(&suggested(&rules, &[receive(5433)]).0[0]));
    // Nobody has bound that port: it is somebody else's.
    assert!(!sandbox(&suggested(&rules, &[bind(5433), connect(5432)]).0[1]));
    // What is allowed to the command's own already was denied to somebody else.
    let has_own = json!([{"action": "allow", "ops": ["connect", "receive"], "hosts": ["sandbox"]}]);
    assert!(!sandbox(&suggested(&has_own, &[bind(5433), receive(5433)]).0[1]));
    let said = explained(&may_connect, &[receive(5433)]);
    assert!(said.contains(r#""hosts": ["sandbox"], "local_ports": [5433]"#), "{said}");
    assert!(said.contains("helps if the peer is no socket of the command's own"), "{said}");
}

#[test]
fn an_address_that_a_name_led_to_misses_the_port_alone() {
    let rules = json!([{"action": "allow", "hosts": ["10.0.0.1"], "ports": [443, "8000-8999"]},
        {"action": "allow", "hosts": ["api.example.org"], "ports": [443]}]);
    let found = [event(1, 7, "connect", "denied", &tcp("192.0.2.7", 8443, Some("api.example.org")))];
    let said = explained(&rules, &found);
    assert!(said.contains("nearest   /network/rules/1"), "{said}");
    assert!(said.contains("   ports: 8443 is not in 443 of api.example.org\n") && !said.contains("hosts: "), "{said}");
    assert!(said.contains(r#"[{"op": "add", "path": "/network/rules/1/ports/-", "value": 8443}]"#), "{said}");
    assert!(!said.contains(r#""hosts": ["192.0.2.7"]"#), "the name is meant: {said}");
    // An address nearby is meant only where a rule says so.
    let near = [event(1, 7, "connect", "denied", &tcp("10.9.9.9", 443, Some("api.example.org")))];
    let said = explained(&rules, &near);
    assert!(said.contains("private: 10.9.9.9 is a private address, which the rule does not mean"), "{said}");
    assert!(said.contains(r#""private": true"#), "{said}");
    let by_name = of_host(
        &guard(&rules),
        Peer {
            op: 0,
            protocol: 6,
            address: std::net::Ipv6Addr::UNSPECIFIED.into(),
            port: 8443,
            local_port: None,
            own: false,
        },
        "api.example.org",
        &Bare,
    );
    assert!(by_name.contains("ports: 8443 is not in 443 of api.example.org"), "{by_name}");
}

#[test]
fn beside_a_rule_with_tls_stands_another() {
    let rules =
        json!([{"action": "allow", "ops": ["connect"], "hosts": ["*.example.org"], "ports": [443], "tls": true}]);
    let found = |host| [event(1, 7, "connect", "denied", &tcp("192.0.2.7", 8443, Some(host)))];
    assert_eq!(suggested(&rules, &found("api.example.org")).0[0]["tls"], json!(true));
    assert_eq!(suggested(&rules, &found("*.example.org")).0[0]["tls"], json!(true));
    assert_eq!(suggested(&rules, &found("api.example.net")).0[0]["tls"], Value::Null);
    let said = explained(&rules, &found("api.example.org"));
    assert!(said.contains(r#""ports": [8443], "tls": true"#), "{said}");
}

#[test]
fn a_socket_is_suggested_by_its_real_path() {
    let policy = json!({"version": 1, "unix": {"default": "deny", "rules": []}}).to_string();
    let guard = Guard::new(Document::new(Path::new("p.json"), policy.into()), &Bare).unwrap();
    let asked =
        event(1, 7, "unix", "denied", &json!({"unix": {"path": "/var/run/nscd/socket", "operation": "connect"}}));
    let seen = denials(&[asked]);
    let suggestion = advice::suggest(&guard, &[], &seen, Widen::default(), &Bare).unwrap();
    let patch = serde_json::to_value(&suggestion.patch).unwrap();
    assert_eq!(patch[0]["value"]["paths"], json!(["/run/nscd/socket"]), "{patch}");
}

/// Tables don't say which rule denies where the verdict on all sockets is one, or a name is not resolved.
#[test]
fn what_is_suggested_stands_before_the_rule_that_denies_it() {
    let socket = |path| event(1, 7, "unix", "denied", &json!({"unix": {"path": path, "operation": "connect"}}));
    let table = [
        ("unix", json!([{"action": "deny", "paths": ["*/run/nscd/socket"]}]), socket("/run/nscd/socket"), 0),
        ("unix", json!([{"action": "deny", "paths": ["/x"]}, {"action": "deny", "paths": ["@*y"]}]), socket("@y"), 1),
        // Rules that deny are not extended.
        (
            "unix",
            json!([{"action": "deny", "paths": ["@x"]}, {"action": "deny", "paths": ["/y"]}, {"action": "allow"}]),
            socket("/y"),
            1,
        ),
        (
            "network",
            json!([{"action": "allow", "hosts": ["b.example.org"]}, {"action": "deny", "hosts": ["*.example.org"]}]),
            event(1, 7, "resolve", "denied", &name("a.example.org")),
            1,
        ),
        (
            "network",
            json!([{"action": "deny", "hosts": ["a.example.org"]}, {"action": "deny", "hosts": ["192.0.2.0/24"]}]),
            event(1, 7, "connect", "denied", &tcp("192.0.2.1", 443, Some("a.example.org"))),
            0,
        ),
        (
            "sysctls",
            json!([{"action": "deny", "names": ["kernel/*"]}]),
            event(1, 7, "sysctl", "denied", &json!({"sysctl": {"name": "kernel/pid_max", "access": "r"}})),
            0,
        ),
    ];
    for (section, rules, event, place) in table {
        let policy = json!({"version": 1, section: {"default": "deny", "rules": rules}}).to_string();
        let guard = Guard::new(Document::new(Path::new("p.json"), policy.into()), &Bare).unwrap();
        let seen = denials(&[event]);
        let suggestion = advice::suggest(&guard, &[], &seen, Widen::default(), &Bare).unwrap();
        let patch = serde_json::to_value(&suggestion.patch).unwrap();
        assert_eq!(patch[0]["path"], format!("/{section}/rules/{place}"), "{patch}");
        let said = seen.explain(&guard, &[], &Bare).to_string();
        assert!(said.contains(&format!("\"path\": \"/{section}/rules/{place}\"")), "{said}");
    }
}

/// What no rule allows stands in the way of nothing else.
#[test]
fn what_no_rule_allows_is_left_aside() {
    let policy = json!({"version": 1, "network": {"default": "deny"}, "sockets": {"default": "deny"}}).to_string();
    let guard = Guard::new(Document::new(Path::new("p.json"), policy.into()), &Bare).unwrap();
    let socket = |protocol| json!({"socket": {"family": "inet", "type": "dgram", "protocol": protocol}});
    let asked = ["udplite", "icmp"].map(|protocol| event(1, 7, "socket", "denied", &socket(protocol)));
    let suggestion = advice::suggest(&guard, &[], &denials(&asked), Widen::default(), &Bare).unwrap();
    let json = serde_json::to_value(&suggestion).unwrap();
    assert_eq!(json["allows"][0]["rule"]["protocol"], "icmp", "{json}");
    let apart = &json["apart"][0];
    assert_eq!(apart["what"], "socket inet dgram udplite");
    assert_eq!(apart["why"], "no rule that names it would allow it");
}
