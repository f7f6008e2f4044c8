//! What is said about a log, for people and for programs, is in golden/. With UPDATE_GOLDEN=1 in the environment it is written there instead.

use std::{env, fs, path::Path};

use advice::{Denials, Guard, Head, Peer, ReadError, Record, Request, Widen, read_from};
use policy::{DeviceNode, Document, Machine, Surroundings};
use serde_json::{Value, json};

/// A machine with the devices that the golden policy names.
struct Golden;

impl Machine for Golden {
    fn device(&self, path: &Path) -> Result<DeviceNode, String> {
        let minor = match path.to_str() {
            Some("/dev/null") => 3,
            _ => return Err("no device node".to_owned()),
        };
        Ok(DeviceNode { kind: common::device::Type::Char, major: 1, minor })
    }

    fn surroundings(&self) -> Result<Surroundings, String> {
        Ok(Surroundings::default())
    }
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn guard() -> Guard {
    Guard::new(Document::new(Path::new("policy.json"), file("policy.json").into()), &Golden).unwrap()
}

fn assert_golden(name: &str, text: &str) {
    if env::var_os("UPDATE_GOLDEN").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        fs::write(path, text).unwrap();
    }
    assert_eq!(text, file(name), "{name}: run with UPDATE_GOLDEN=1 if this is what it says now");
    assert!(!text.contains(|character: char| character.is_control() && character != '\n'));
}

fn records(text: &str) -> Result<(Vec<Head>, Vec<Record>), ReadError> {
    let mut records = Vec::new();
    let heads = read_from(text.as_bytes(), &mut |record| records.push(record))?;
    Ok((heads, records))
}

fn assert_valid(name: &str, json: &Value) {
    let schema =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../schema/{name}.schema.json")))
            .unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "{name} is no JSON Schema");
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let errors: Vec<String> =
        schema.iter_errors(json).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn why() {
    let (heads, records) = records(&file("log.json")).unwrap();
    let mut denials = Denials::default();
    for record in records {
        denials.add(record);
    }
    let report = denials.explain(&guard(), &heads, &Golden);
    assert_golden("why.txt", &report.to_string());
    assert_valid("why", &serde_json::to_value(&report).unwrap());
}

#[test]
fn suggest() {
    let (heads, records) = records(&file("log.json")).unwrap();
    let guard = guard();
    for (name, widen) in
        [("suggest", Widen::default()), ("wide", Widen { port: true, network: true, subdomains: true })]
    {
        let mut seen = Denials::default();
        for record in &records {
            seen.add(record.clone());
        }
        let suggestion = advice::suggest(&guard, &heads, &seen, widen, &Golden).unwrap();
        assert_golden(&format!("{name}.txt"), &suggestion.to_string());
        assert_golden(&format!("{name}.json"), &suggestion.apply(&guard).unwrap());
        assert_valid("suggest", &serde_json::to_value(&suggestion).unwrap());
    }
}

#[test]
fn of_a_request() {
    let peer = Peer { op: 0, protocol: 6, address: [10, 0, 0, 1].into(), port: 9000, local_port: None, own: false };
    assert_golden("request.txt", &advice::of_request(&guard(), &Request::Peer(peer), &Golden));
    assert_eq!(advice::of_request(&guard(), &Request::Peer(Peer { port: 443, ..peer }), &Golden), "");
}

#[test]
fn events_are_read_as_the_log_is() {
    let text = file("log.json");
    let (_, whole) = records(&text).unwrap();
    let log: Value = serde_json::from_str(&text).unwrap();
    let lines: Vec<String> = log["events"].as_array().unwrap().iter().map(ToString::to_string).collect();
    let (heads, told) = records(&lines.join("\n")).unwrap();
    assert_eq!((heads.len(), &told), (0, &whole));
    // Told again with a higher count, only what has come since is counted.
    let mut again = log["events"][0].clone();
    again["count"] = 5.into();
    let (_, told) = records(&format!("{}\n{again}\n{again}\n", lines[0])).unwrap();
    let counts = told.iter().map(|record| match record {
        Record::Event(event) => event.count,
        Record::Flow(_) => 0,
    });
    assert_eq!(counts.collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn what_is_no_log_is_refused() {
    let text = file("log.json");
    let other = |key: &str, value: Value| {
        let mut log: Value = serde_json::from_str(&text).unwrap();
        log[key] = value;
        log.to_string()
    };
    let table = [
        (String::new(), "nothing is in it"),
        (" \n".to_owned(), "nothing is in it"),
        ("2026-01-01 GET /\n".to_owned(), "expected a log of guard-run"),
        ("[1, 2]".to_owned(), "invalid type: sequence, expected a log of guard-run"),
        (r#"{"timestamp": 1, "msg": "x"}"#.to_owned(), "neither a log of guard-run nor one of its events"),
        (r#"{"command": ["true"]}"#.to_owned(), "as \"schema\""),
        (r#"{"time": "2026-01-01T00:00:00Z"}"#.to_owned(), "no event of guard-run"),
        (other("schema", 2.into()), "a log of schema 2: this guard-run reads schema 1"),
        (other("schema", "\u{1b}[2J".into()), "that is no number"),
        (other("events", 7.into()), "a list of records"),
        ("\u{feff}{}".to_owned(), "no log of guard-run"),
    ];
    for (text, expected) in table {
        let error = records(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:.60}: {error}");
    }
    assert!(matches!(
        read_from(&b"{\"time\": \"\xff\"}"[..], &mut |_| {}),
        Err(ReadError::Syntax { .. } | ReadError::Foreign { .. })
    ));
    // Wherever it is cut, that is said, and nothing is taken for whole.
    let end = text.trim_end().len();
    for end in (1..end).step_by(61) {
        assert!(matches!(records(&text[..end]), Err(ReadError::Cut { .. })), "cut at {end}");
    }
}

#[test]
fn a_list_of_an_objects_values_is_no_object() {
    let text = file("log.json");
    let inner = |pointer: &str, value: Value| {
        let mut log: Value = serde_json::from_str(&text).unwrap();
        *log.pointer_mut(pointer).unwrap() = value;
        log
    };
    let process = json!([1, 0, "x", null, null, null]);
    let network = json!(["10.0.0.1", 9443, null, "tcp", null]);
    let hook = json!(["connect4", false, 7, "x", 0, 0, 0, 0, 0, 0, 0]);
    for (pointer, list) in [
        ("/user", json!([0, 0, "root"])),
        ("/exit", json!([0, null, 0])),
        ("/policy", json!(["policy.json", "x", [], "enforce"])),
        ("/enforced", json!(["6.18.0"])),
        ("/enforced/hooks/0", hook),
        ("/enforced/hardening", json!(["full", [], [], [], [], [], [], [], null])),
        ("/events/0/process", process.clone()),
        ("/events/0/process/parent", json!([4711, "fake"])),
        ("/events/0/test", json!(["net", "test_fetch", null])),
        ("/events/0/network", network.clone()),
    ] {
        let log = inner(pointer, list);
        let error = records(&log.to_string()).unwrap_err().to_string();
        assert!(error.contains("invalid type"), "{pointer}: {error}");
        if pointer.starts_with("/events/") {
            assert!(records(&log["events"][0].to_string()).is_err(), "{pointer}");
        }
    }
    let flow = json!({"direction": "outgoing", "network": {"address": "::1", "port": 53, "protocol": "udp", "host": null},
        "process": null, "datagrams": {"sent": 1, "received": 0}, "bytes": {"sent": 9, "received": 0},
        "first": "2026-01-01T00:00:01Z", "last": "2026-01-01T00:00:01Z"});
    let with = |key: &str, value: Value| {
        let mut flow = flow.clone();
        flow[key] = value;
        records(&json!({"schema": 1, "flows": [flow]}).to_string())
    };
    assert!(with("process", Value::Null).is_ok());
    for (key, list) in
        [("network", network), ("process", process), ("datagrams", json!([1, 0])), ("bytes", json!([9, 0]))]
    {
        assert!(with(key, list).is_err(), "{key}");
    }
}
