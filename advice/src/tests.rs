//! Properties over generated policies and requests. What is compared with is judged by tables of policies that say one thing alone.

use policy::{Document, protocol_name};
use proptest::prelude::*;
use report::Event;
use serde_json::{Map, Value, json};

use crate::{
    Denials, Guard, Record, Request, Widen,
    asked::Asked,
    generate::{self, Case, Memory},
    nearest::{PLACE, nearest},
    suggest,
    suggest::SuggestError,
};

/// The requests of a case as logs tell of them: those that they can tell of.
fn events(case: &Case) -> Vec<(Request, Event)> {
    let mut subjects = Vec::new();
    for net in case.nets.iter().filter(|net| !net.own || net.op == 1) {
        let op = ["connect", "bind", "send", "receive"][usize::from(net.op)];
        let local = (net.op == 3).then_some(5432);
        let mut network = json!({"address": net.address.to_canonical(), "port": net.port, "host": null,
            "protocol": protocol_name(net.protocol.into())});
        if let Some(port) = local {
            network["local_port"] = json!(port);
        }
        subjects.push((op, "network", network));
    }
    for device in case.devices.iter().filter(|device| device.access != 0 && [1, 2].contains(&device.kind)) {
        let access = policy::access_letters(device.access);
        let kind = if device.kind == 1 { "b" } else { "c" };
        let subject =
            json!({"path": null, "type": kind, "major": device.major, "minor": device.minor, "access": access});
        subjects.push(("device", "device", subject));
    }
    for sysctl in &case.sysctls {
        let Ok(name) = str::from_utf8(&sysctl.name) else { continue };
        subjects.push(("sysctl", "sysctl", json!({"name": name, "access": if sysctl.write { "w" } else { "r" }})));
    }
    for socket in &case.sockets {
        let kind = crate::property::TYPES.iter().find(|(number, _)| *number == socket.kind);
        let kind = kind.map_or_else(|| socket.kind.to_string(), |(_, name)| (*name).to_owned());
        let family = if socket.family == common::socket::INET { "inet" } else { "inet6" };
        let subject = json!({"family": family, "type": kind, "protocol": protocol_name(socket.protocol)});
        subjects.push(("socket", "socket", subject));
    }
    for sockopt in &case.sockopts {
        let level = policy::Level(sockopt.level).to_string();
        let option = policy::LevelOption { level: sockopt.level, number: sockopt.option }.to_string();
        let number = |text: String| text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number));
        let access = if sockopt.set { "set" } else { "get" };
        let subject =
            json!({"level": number(level), "option": number(option), "access": access, "length": 4, "advisory": true});
        subjects.push(("sockopt", "sockopt", subject));
    }
    for unix in &case.unix {
        let Ok(name) = str::from_utf8(&unix.name) else { continue };
        let path = if name.is_empty() { "unnamed" } else { name };
        if !path.contains(['\\', '\n', '\0']) {
            subjects.push(("unix", "unix", json!({"path": path, "operation": "connect"})));
        }
    }
    let event = |(op, key, subject): (&str, &str, Value)| {
        let mut event = json!({"time": "2026-01-01T00:00:00Z", "op": op, "hook": "hook", "verdict": "denied", "rule": "default",
            "count": 1, "first": "2026-01-01T00:00:00Z", "last": "2026-01-01T00:00:00Z",
            "process": {"pid": 1, "uid": 0, "comm": "x", "exe": null, "argv": null, "parent": null}});
        event[key] = subject;
        let event: Event = serde_json::from_value(event).expect("an event");
        Some((Request::of_event(&event)?, event))
    };
    subjects.into_iter().filter_map(event).collect()
}

fn guard(text: &str) -> Guard {
    let document = Document::new(std::path::Path::new("p.json"), text.into());
    Guard::new(document, &Memory).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A policy that denies all of a section but what one rule with these keys allows.
fn alone(section: &str, keys: Map<String, Value>) -> Guard {
    let mut rule = keys;
    rule.insert("action".to_owned(), "allow".into());
    // No other part has a say.
    let policy = json!({"version": 1, section: {"default": "deny", "rules": [rule]}});
    guard(&policy.to_string())
}

/// How many properties of a rule a request misses: the keys that, alone in a rule, don't match it.
fn misses(section: &str, rule: &Map<String, Value>, request: &Request) -> usize {
    let keys = rule.iter().filter(|(key, _)| !["action", "reason"].contains(&key.as_str()));
    let missed = keys.filter(|(key, value)| {
        let mut one = Map::from_iter([((*key).clone(), (*value).clone())]);
        if *key == "local_ports" {
            one.insert("ops".to_owned(), json!(["receive"]));
        }
        !request.is_allowed(&alone(section, one).tables)
    });
    let missed = missed.count();
    let whole = request.is_allowed(&alone(section, rule.clone()).tables);
    assert_eq!(whole, missed == 0 && (rule.contains_key("paths") || !is_unnamed(request)), "{rule:?} {request:?}");
    missed
}

/// A request in parts that are judged each by itself: the accesses of a device.
fn one_by_one(request: &Request) -> Vec<Request> {
    let Request::Device(device) = request else { return vec![request.clone()] };
    let accesses = [1, 2, 4].into_iter().filter(|access| device.access & access != 0);
    accesses.map(|access| Request::Device(common::device::Request { access, ..*device })).collect()
}

fn is_unnamed(request: &Request) -> bool {
    matches!(request, Request::Unix { name, .. } if name.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The nearest rule is the first of those that allow of which the request misses the fewest properties.
    #[test]
    fn the_nearest_rule_is_nearest(case in generate::case().prop_filter("few rules", |case| case.json.len() < 6000)) {
        let guard = guard(&case.json);
        for (request, _) in events(&case) {
            let section = request.section();
            // A socket option's number means nothing without its level, and no network section may add something.
            if ["sockopts", "sockets"].contains(&section) || is_unnamed(&request) {
                continue;
            }
            let Some(denied) = request.judge(&guard.tables).filter(|decision| !decision.allow) else { continue };
            let count = guard.rules(section);
            let rules = (0..count).filter_map(|number| {
                let rule = guard.rule(section, number)?.as_object()?;
                if rule["action"] != "allow" || section == "sysctls" && usize::from(denied.rule) >= count && denied.rule != common::decision::DEFAULT {
                    return None;
                }
                let behind = usize::from(denied.rule) < count && number > usize::from(denied.rule);
                Some((misses(section, rule, &request) + usize::from(behind), number))
            });
            let Some(expected) = rules.min() else { continue };
            let found = nearest(&guard, &Asked::alone(request.clone()), denied).expect("a rule that allows");
            prop_assert_eq!((found.missed.len(), found.rule), expected, "{:?}", request);
            let place = found.missed.iter().any(|missed| missed.key == PLACE);
            prop_assert_eq!(place, usize::from(denied.rule) < count && found.rule > usize::from(denied.rule));
        }
    }

    /// A suggestion allows what was denied, as far as it suggests that, and nothing but what its rules are about; and the text with
    /// its layout kept is the patched policy.
    #[test]
    fn a_suggestion_allows_what_it_says(case in generate::case().prop_filter("few rules", |case| case.json.len() < 3000)) {
        let guard = guard(&case.json);
        let all = events(&case);
        let mut seen = Denials::default();
        // Half of what is denied was seen.
        let (half, _): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(index, _)| index % 2 == 0);
        for (_, (_, event)) in &half {
            seen.add(Record::Event(event.clone()));
        }
        let suggestion = match suggest(&guard, &[], &seen, Widen::default(), &Memory) {
            Ok(suggestion) => suggestion,
            Err(error) => {
                // No room for further rules, or names that can't be told apart.
                let is_fault = matches!(&error, SuggestError::Unproved(why) if !why.contains("told apart"));
                prop_assert!(!is_fault, "{}\n{}", error, case.json);
                return Ok(());
            }
        };
        let text = suggestion.apply(&guard).unwrap();
        let patched = self::guard(&text);
        let json = serde_json::to_value(&suggestion).unwrap();
        let said = |request: &Request| json["allows"].as_array().unwrap().iter().any(|allowed| {
            let keys = allowed["rule"].as_object().unwrap().clone();
            // Sockets without a name are denied by rules that name them alone, so that a policy with another rule allows them by default.
            if is_unnamed(request) {
                return keys.get("paths").is_some_and(|paths| paths.as_array().unwrap().contains(&json!("unnamed")));
            }
            allowed["section"] == request.section() && request.is_allowed(&alone(request.section(), keys).tables)
        });
        for request in all.iter().flat_map(|(request, _)| one_by_one(request)) {
            let request = &request;
            let (before, after) = (request.is_allowed(&guard.tables), request.is_allowed(&patched.tables));
            // A rule on sockets that names protocol 255 is about their packets' own headers (IP_HDRINCL), too.
            let follows = matches!(request, Request::Sockopt { level: 0, option: 3, .. }) && text.contains("255");
            prop_assert!(!after || before || follows || said(request), "{:?}\n{}\n{}", request, suggestion, text);
            // Rules on the network have a say in sockets that could evade them, and in options by which the kernel chooses ports.
            if !["sockets", "sockopts"].contains(&request.section()) {
                prop_assert!(after || !before && !said(request), "{:?}\n{}\n{}", request, suggestion, text);
            }
        }
        let told: usize = ["denials", "apart"].iter().map(|key| json[key].as_array().unwrap().len()).sum();
        prop_assert!(told + usize::try_from(json["allowed_already"].as_u64().unwrap()).unwrap() <= half.len());
    }
}
