//! The JSON Schemas in schema/ say what the parser and the log say.

mod generate;
mod oracle;

use std::{collections::BTreeSet, fs, path::Path};

use jsonschema::Validator;
use policy::{Document, level_names, option_names};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema(name: &str) -> Validator {
    let schema: Value = serde_json::from_str(&read(&format!("schema/{name}.schema.json"))).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "{name} is no JSON Schema");
    jsonschema::draft202012::new(&schema).unwrap()
}

fn parses(text: &str) -> Result<(), String> {
    let document = Document::new(Path::new("p.json"), text.into());
    document.resolve(&generate::Memory).map(drop).map_err(|error| error.to_string())
}

fn assert_valid(schema: &Validator, json: &Value, what: &str) {
    let errors: Vec<String> =
        schema.iter_errors(json).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}");
}

#[test]
fn examples_are_valid() {
    let schema = schema("policy");
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".json").filter(|name| !name.ends_with(".resolved")) else { continue };
        let text = read(&format!("examples/{name}.json"));
        assert_valid(&schema, &serde_json::from_str(&text).unwrap(), name);
        assert_eq!(parses(&text), Ok(()), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_policies_are_valid(json in generate::policy()) {
        thread_local!(static SCHEMA: Validator = schema("policy"));
        SCHEMA.with(|schema| assert_valid(schema, &json, "generated"));
        prop_assert_eq!(parses(&json.to_string()), Ok(()));
    }
}

#[test]
fn sets_and_included_files_are_valid() {
    let schema = schema("policy");
    let policy = json!({"version": 1, "include": ["team.json", "../base.json"], "sets": {"registry": ["packages.example.org", "10.1.0.0/16"]},
        "network": {"default": "deny", "rules": [{"action": "allow", "hosts": ["@registry", "10.0.0.1"]}]}});
    assert_valid(&schema, &policy, "sets");
    for (pointer, value) in [
        ("/include", json!([])),
        ("/include/0", json!(1)),
        ("/sets/registry", json!([])),
        ("/sets/registry/0", json!("@other")),
        ("/sets", json!({"a b": ["10.0.0.1"]})),
        ("/network/rules/0/hosts/0", json!("@")),
        ("/network/rules/0/hosts/0", json!("@a.b")),
    ] {
        let mut copy = policy.clone();
        *copy.pointer_mut(pointer).unwrap() = value.clone();
        assert!(!schema.is_valid(&copy), "{pointer} = {value}");
    }
}

#[test]
fn the_sample_log_is_valid() {
    let log: Value = serde_json::from_str(&read("report/tests/logs/golden.json")).unwrap();
    assert_valid(&schema("log"), &log, "log.json");
}

/// The policy's schema knows the names of socket options that the parser knows.
#[test]
fn names_of_socket_options_are_the_parsers() {
    let schema: Value = serde_json::from_str(&read("schema/policy.schema.json")).unwrap();
    let listed = |place: &str| -> BTreeSet<String> {
        schema["$defs"][place]["enum"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(listed("sockoptLevel"), level_names().map(str::to_owned).collect());
    assert_eq!(listed("sockoptName"), option_names().map(str::to_owned).collect());
}

#[test]
fn logs_of_socket_options_are_valid() {
    let schema = schema("log");
    let mut log: Value = serde_json::from_str(&read("report/tests/logs/golden.json")).unwrap();
    let mut hook = log["enforced"]["hooks"][0].clone();
    hook["hook"] = json!("setsockopt");
    hook["advisory"] = json!(true);
    log["enforced"]["hooks"].as_array_mut().unwrap().push(hook);
    let mut event = log["events"][0].clone();
    event.as_object_mut().unwrap().remove("network");
    event["op"] = json!("sockopt");
    event["hook"] = json!("setsockopt");
    event["rule"] = json!("/sockopts/rules/0");
    event["sockopt"] = json!({"level": "IPPROTO_TCP", "option": 99, "access": "set", "value": "00ff…", "length": 20,
                              "advisory": true});
    log["events"].as_array_mut().unwrap().push(event);
    assert_valid(&schema, &log, "log.json with socket options");
    let (hook, event) =
        (log["enforced"]["hooks"].as_array().unwrap().len() - 1, log["events"].as_array().unwrap().len() - 1);
    let damages = [
        (format!("/enforced/hooks/{hook}/advisory"), json!(false)),
        (format!("/enforced/hooks/{hook}/hook"), json!("device")),
        (format!("/events/{event}/sockopt/advisory"), json!(false)),
        (format!("/events/{event}/sockopt/access"), json!("get")),
        (format!("/events/{event}/sockopt/value"), json!("0")),
        (format!("/events/{event}/op"), json!("sysctl")),
    ];
    for (pointer, value) in damages {
        let mut copy = log.clone();
        *copy.pointer_mut(&pointer).unwrap() = value.clone();
        assert!(!schema.is_valid(&copy), "{pointer} = {value}");
    }
}

#[test]
fn logs_of_writes_to_tunables_are_valid() {
    let mut log: Value = serde_json::from_str(&read("report/tests/logs/golden.json")).unwrap();
    log["events"][4]["sysctl"] = json!({"name": "kernel/hostname", "access": "w", "value": ""});
    assert_valid(&schema("log"), &log, "log.json with a write");
}

/// The schema must not be so wide that anything is a log.
#[test]
fn damaged_logs_are_not_valid() {
    let schema = schema("log");
    let log: Value = serde_json::from_str(&read("report/tests/logs/golden.json")).unwrap();
    let damages = [
        ("/schema", json!(2)),
        ("/started", json!("2026-01-01 00:00:00")),
        ("/exit", json!({"code": 0, "signal": 9, "killed": 0})),
        ("/policy/mode", json!("off")),
        ("/enforced/hooks/0/denied", json!(-1)),
        ("/enforced/unrestricted", json!(["process"])),
        ("/lost", Value::Null),
        ("/events/0/rule", json!("rule 0")),
        ("/events/0/rule", json!("fail-closed")),
        ("/events/0/op", json!("device")),
        ("/events/0/process/pid", json!("1")),
        ("/events/0/network/address", json!("::ffff:127.0.0.1")),
        ("/events/0/count", json!(0)),
        ("/events/4/sysctl/access", json!("w")),
        ("/events/4/sysctl", json!({"name": "kernel/hostname", "access": "r", "value": "x"})),
        ("/events/0/last", Value::Null),
        ("/flows/0/direction", json!("both")),
        ("/flows/0/process", json!({})),
        ("/flows/0/connections", json!(-1)),
        ("/flows/0/duration", json!("1 s")),
        ("/flows/0/bytes", json!({"sent": 1})),
        ("/flows/1/datagrams", json!(3)),
        ("/flows/1/network/address", json!("::ffff:127.0.0.1")),
        ("/flows_lost", Value::Null),
    ];
    for (pointer, value) in damages {
        let mut copy = log.clone();
        *copy.pointer_mut(pointer).unwrap() = value.clone();
        assert!(!schema.is_valid(&copy), "{pointer} = {value}");
    }
    for key in log.as_object().unwrap().keys() {
        let mut copy = log.clone();
        copy.as_object_mut().unwrap().remove(key);
        assert!(!schema.is_valid(&copy), "without {key}");
    }
}

fn network(rule: &str) -> String {
    format!(r#"{{"version": 1, "network": {{"default": "allow", "rules": [{{"action": "deny", {rule}}}]}}}}"#)
}

fn devices(rule: &str) -> String {
    format!(r#"{{"version": 1, "devices": {{"default": "allow", "rules": [{{"action": "deny", {rule}}}]}}}}"#)
}

fn sockopts(rule: &str) -> String {
    format!(r#"{{"version": 1, "sockopts": {{"default": "allow", "rules": [{{"action": "deny"{rule}}}]}}}}"#)
}

fn sysctls(names: &str) -> String {
    let rule = format!(r#"{{"action": "deny", "names": [{names}]}}"#);
    format!(r#"{{"version": 1, "sysctls": {{"default": "allow", "rules": [{rule}]}}}}"#)
}

fn unix(paths: &str) -> String {
    let rule = format!(r#"{{"action": "deny", "paths": [{paths}]}}"#);
    format!(r#"{{"version": 1, "unix": {{"default": "allow", "rules": [{rule}]}}}}"#)
}

#[test]
fn good_policies_are_good_for_both() {
    let schema = schema("policy");
    let table = [
        r#"{"version": 1}"#.to_owned(),
        r#"{"version": 1, "mode": "audit", "$schema": ""}"#.to_owned(),
        r#"{"version": 1, "record": "flows"}"#.to_owned(),
        r#"{"version": 1, "record": "denials"}"#.to_owned(),
        r#"{"version": 1, "network": {"default": "deny"}}"#.to_owned(),
        r#"{"version": 1, "devices": {"default": "deny", "rules": []}}"#.to_owned(),
        network(r#""hosts": ["any", "127.0.0.1", "10.0.0.0/8", "0.0.0.0/0", "255.255.255.255/32"]"#),
        network(r#""hosts": ["::/0", "::", "::1/128", "2001:db8::/32", "FE80::/10", "1:2:3:4:5:6:7:8"]"#),
        network(r#""hosts": ["::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "64:ff9b::1.2.3.4"]"#),
        r#"{"version": 1, "network": {"default": "deny", "nameservers": ["127.0.0.53", "::1"], "queries": "any", "rules": [
            {"action": "allow", "hosts": ["db", "api.example.org", "*.Example.org.", "3com.com", "bücher.example"], "private": true, "tls": true}]}}"#
            .to_owned(),
        r#"{"version": 1, "network": {"default": "deny", "queries": "named", "rules": [
            {"action": "deny", "hosts": ["no.example.org"]}, {"action": "allow", "hosts": ["*.example.org", "10.0.0.1"]}]}}"#
            .to_owned(),
        network(r#""ports": [0, 65535, "0", "080", "65535", "8000-8999", "1-1"]"#),
        network(r#""ops": ["connect"], "protocols": ["tcp", "udp", "any"]"#),
        devices(r#""type": "a", "major": 4095, "minor": 1048575, "access": "mwr""#),
        devices(r#""path": "/dev/null", "access": "r""#),
        devices(r#""path": "/dev/null", "report": false"#),
        network(r#""ports": [25], "report": true"#).replace(r#""action": "deny""#, r#""action": "allow""#),
        sockopts(r#", "report": false"#),
        unix("\"/run/x\"").replace(r#""paths""#, r#""report": false, "paths""#),
        sysctls(r#""kernel.hostname", "kernel/hostname", "*", "net.*", "net/ipv?/conf/eth0.1/x", "hostname""#),
        sysctls(r#""net.ipv4.conf.eth0/100.forwarding", "net.ipv4.conf.ö.tag""#),
        sysctls(&format!("\"{}\"", "k".repeat(127))),
        r#"{"version": 1, "sockopts": {"default": "deny"}}"#.to_owned(),
        sockopts(""),
        sockopts(r#", "level": "SOL_SOCKET", "option": "SO_REUSEADDR", "access": "get""#),
        sockopts(r#", "level": 6, "option": 1, "access": "set""#),
        sockopts(r#", "level": "SOL_TCP", "option": 2147483647"#),
        sockopts(r#", "level": 2147483647"#),
        sockopts(r#", "option": "TCP_NODELAY""#),
        sockopts(r#", "level": 41, "option": "MCAST_JOIN_GROUP""#),
        r#"{"version": 1, "unix": {"default": "deny", "rules": [{"action": "allow"}]}}"#.to_owned(),
        unix(r#""/run/dbus/*", "/a", "/...", "/..a/.b", "*", "?x", "*/", "@", "@a b", "@/run/x/", "unnamed", "/ö\n""#),
        unix(&format!("\"/{}\", \"@{}\"", "k".repeat(254), "k".repeat(107))),
    ];
    for text in table {
        assert_eq!(parses(&text), Ok(()), "{text}");
        assert_valid(&schema, &serde_json::from_str(&text).unwrap(), &text);
    }
}

#[test]
fn bad_policies_are_bad_for_both() {
    let schema = schema("policy");
    for text in bad_policies() {
        assert!(parses(&text).is_err(), "the parser takes {text}");
        assert!(!schema.is_valid(&serde_json::from_str(&text).unwrap()), "the schema takes {text}");
    }
}

/// Mistakes of every kind that both can find.
#[allow(clippy::too_many_lines)] // a table
fn bad_policies() -> Vec<String> {
    let long = format!("\"{}\"", "k".repeat(128));
    let rules = vec![r#"{"action": "deny"}"#; 257].join(",");
    vec![
        "{}".to_owned(),
        "[]".to_owned(),
        r#"{"version": 2}"#.to_owned(),
        r#"{"version": "1"}"#.to_owned(),
        r#"{"version": 1, "mode": "Audit"}"#.to_owned(),
        r#"{"version": 1, "record": "all"}"#.to_owned(),
        r#"{"version": 1, "record": true}"#.to_owned(),
        r#"{"version": 1, "record": null}"#.to_owned(),
        r#"{"version": 1, "netwrok": {"default": "deny"}}"#.to_owned(),
        r#"{"version": 1, "network": null}"#.to_owned(),
        r#"{"version": 1, "network": {}}"#.to_owned(),
        r#"{"version": 1, "network": {"default": "drop"}}"#.to_owned(),
        r#"{"version": 1, "network": {"default": "deny", "rules": {}}}"#.to_owned(),
        r#"{"version": 1, "network": {"default": "deny", "rules": [{}]}}"#.to_owned(),
        r#"{"version": 1, "network": {"default": "deny", "rules": ["deny"]}}"#.to_owned(),
        format!(r#"{{"version": 1, "network": {{"default": "deny", "rules": [{rules}]}}}}"#),
        network(r#""port": [80]"#),
        network(r#""ports": 80"#),
        network(r#""ports": []"#),
        network(r#""ports": null"#),
        network(r#""ports": [99999]"#),
        network(r#""ports": [-1]"#),
        network(r#""ports": [80.5]"#),
        network(r#""ports": ["65536"]"#),
        network(r#""ports": ["80-"]"#),
        network(r#""ports": ["http"]"#),
        network(r#""ports": ["+80"]"#),
        network(r#""ports": [""]"#),
        network(r#""protocols": ["sctp"]"#),
        network(r#""protocols": ["TCP"]"#),
        network(r#""protocols": []"#),
        network(r#""ops": ["listen"]"#),
        network(r#""hosts": []"#),
        network(r#""hosts": "any""#),
        network(r#""hosts": ["10.0.0.0/33"]"#),
        network(r#""hosts": ["10.0.0.0/08"]"#),
        network(r#""hosts": ["10.0.0.0/"]"#),
        network(r#""hosts": ["10.0.0"]"#),
        network(r#""hosts": ["010.0.0.1"]"#),
        network(r#""hosts": ["256.0.0.1"]"#),
        network(r#""hosts": ["::/129"]"#),
        network(r#""hosts": ["fe80::1%eth0"]"#),
        network(r#""hosts": ["https://api.example.org/"]"#),
        network(r#""hosts": ["api.example.org:443"]"#),
        network(r#""hosts": ["a_b.example.org"]"#),
        network(r#""hosts": ["a.*.example.org"]"#),
        network(r#""private": 1"#),
        network(r#""hosts": ["a.example.org"], "tls": "yes""#),
        r#"{"version": 1, "network": {"default": "deny", "nameservers": ["ns.example.org"]}}"#.to_owned(),
        r#"{"version": 1, "network": {"default": "deny", "queries": "all"}}"#.to_owned(),
        network(r#""hosts": [""]"#),
        network(r#""report": 0"#),
        network(r#""report": null"#),
        network(r#""report": false"#).replace(r#""action": "deny""#, r#""action": "allow""#),
        sockopts(r#", "report": "no""#),
        devices(r#""type": "foo""#),
        devices(r#""type": "char""#),
        devices(r#""major": 4294967297"#),
        devices(r#""major": 4096"#),
        devices(r#""major": -1"#),
        devices(r#""major": "1""#),
        devices(r#""major": null"#),
        devices(r#""minor": 1048576"#),
        devices(r#""access": """#),
        devices(r#""access": "rr""#),
        devices(r#""access": "rx""#),
        devices(r#""path": "dev/null""#),
        devices(r#""path": """#),
        devices(r#""path": null"#),
        devices(r#""path": ["/dev/null"]"#),
        devices(r#""path": "/dev/null", "type": "c""#),
        devices(r#""path": "/dev/null", "major": 1"#),
        devices(r#""path": "/dev/null", "minor": 3"#),
        r#"{"version": 1, "sockopts": null}"#.to_owned(),
        sockopts(r#", "option": 1"#),
        sockopts(r#", "option": "TCP_NODELY""#),
        sockopts(r#", "option": "tcp_nodelay""#),
        sockopts(r#", "option": "IPPROTO_TCP""#),
        sockopts(r#", "level": "TCP""#),
        sockopts(r#", "level": 2147483648"#),
        sockopts(r#", "level": -1"#),
        sockopts(r#", "level": 6, "option": -1"#),
        sockopts(r#", "level": 6.5"#),
        sockopts(r#", "level": null"#),
        sockopts(r#", "level": ["SOL_TCP"]"#),
        sockopts(r#", "option": null"#),
        sockopts(r#", "access": "both""#),
        sockopts(r#", "access": null"#),
        sockopts(r#", "value": 1"#),
        sysctls(""),
        sysctls(r#""""#),
        sysctls(&long),
        sysctls(r#""/proc/sys/kernel/hostname""#),
        sysctls(r#""proc/sys/kernel/hostname""#),
        sysctls(r#""proc.sys.kernel.hostname""#),
        sysctls(r#""proc/sys""#),
        sysctls(r#""kernel/../hostname""#),
        sysctls(r#""kernel/.""#),
        sysctls(r#""kernel././hostname""#),
        sysctls(r#""kernel.//""#),
        sysctls(r#""/kernel/hostname""#),
        sysctls(r#"".kernel""#),
        sysctls(r#""kernel/""#),
        sysctls(r#""kernel.""#),
        sysctls(r#""kernel//hostname""#),
        sysctls(r#""kernel..hostname""#),
        sysctls(r#""kernel hostname""#),
        sysctls(r#""kernel/[a-z]*""#),
        sysctls(r#""kernel/\u0000""#),
        unix(""),
        unix(r#""""#),
        unix(r#""run/x""#),
        unix(r#""./x""#),
        unix(r#""Unnamed""#),
        unix(r#""/""#),
        unix(r#""/run/""#),
        unix(r#""/run//x""#),
        unix(r#""/run/./x""#),
        unix(r#""/run/../x""#),
        unix(r#""/run/..""#),
        unix(r#""/run/[ab]""#),
        unix(r#""@{a}""#),
        unix(r#""@a\\b""#),
        unix(r#""/a\u0000""#),
        unix(r#""*\u0000""#),
        unix(&format!("\"/{}\"", "k".repeat(255))),
        unix(&format!("\"@{}\"", "k".repeat(108))),
        unix("\"/run/x\"").replace("paths", "path"),
    ]
}

/// What only the parser finds, and why a schema can't.
#[test]
fn some_mistakes_only_the_parser_finds() {
    let table = [
        ("words that are alike", network(r#""hosts": ["lopback"]"#)),
        ("a list of public suffixes", network(r#""hosts": ["*.co.uk"]"#)),
        ("what rules and defaults mean together", network(r#""hosts": ["api.example.org"]"#)),
        ("arithmetic on the bits of an address", network(r#""hosts": ["10.0.0.1/8"]"#)),
        ("arithmetic on the bits of an address", network(r#""hosts": ["2001:db8::1/32"]"#)),
        ("the grammar of IPv6 is no sane pattern", network(r#""hosts": ["1::2::3"]"#)),
        ("the grammar of IPv6 is no sane pattern", network(r#""hosts": ["1:2:3"]"#)),
        ("which files there are", devices(r#""path": "/no/such/device""#)),
        ("which files there are", devices(r#""path": "/""#)),
        ("arithmetic on a range's ends", network(r#""ports": ["80-20"]"#)),
        ("the second key is gone when a schema looks", r#"{"version": 1, "mode": "audit", "mode": "enforce"}"#.into()),
        ("the second key is gone when a schema looks", network(r#""ports": [80], "ports": [443]"#)),
        ("80.0 is an integer for a schema", network(r#""ports": [80.0]"#)),
        (
            "which option is whose is more than a schema should say",
            sockopts(r#", "level": 1, "option": "TCP_NODELAY""#),
        ),
        ("which option is whose is more than a schema should say", sockopts(r#", "option": "MCAST_JOIN_GROUP""#)),
        ("1.0 is 1 for a schema", r#"{"version": 1.0}"#.into()),
        ("a schema counts characters, not bytes", unix(&format!("\"/{}\"", "ö".repeat(128)))),
        ("a schema counts characters, not bytes", sysctls(&format!("\"{}\"", "ö".repeat(64)))),
    ];
    let schema = schema("policy");
    for (reason, text) in table {
        assert!(parses(&text).is_err(), "the parser takes {text}");
        let json = serde_json::from_str(&text).unwrap();
        assert!(schema.is_valid(&json), "the schema finds it after all, although \"{reason}\": {text}");
    }
}
