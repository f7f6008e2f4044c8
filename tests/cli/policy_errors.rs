//! Bad policies are refused with status 125 and one line that names the file, the place in it and what is wrong, before
//! anything is created. The same by `guard-run check`, and by every user.

use std::fs;

use serde_json::{Value, json};
use support::{Output, Run};

/// Checks that a policy is refused both by `check` and for a run, in one line with the file's name and these words.
fn assert_refused(run: &Run, words: &[&str]) {
    for output in [run.output(), run.subcommand("check", &[])] {
        assert_eq!((output.code(), output.stdout.as_str()), (Some(125), ""), "expected {words:?}: {output:?}");
        let line = output.stderr.strip_suffix('\n').unwrap_or_default();
        assert!(!line.is_empty() && !line.chars().any(char::is_control), "not one line: {output:?}");
        let file = run.policy().display().to_string();
        for word in [&["guard-run: ", &file], words].concat() {
            assert!(line.contains(word), "{word:?} is missing: {line}");
        }
    }
    assert!(!run.folder().join("started").exists(), "the command has run");
}

/// A run whose command leaves a file behind, so that it can't run unnoticed.
fn run(policy: impl Into<support::PolicyText>) -> Run {
    let run = Run::shell(policy, "touch \"$STARTED\"", &[]);
    let marker = run.folder().join("started");
    run.environment("STARTED", marker)
}

fn refused(policy: impl Into<support::PolicyText>, words: &[&str]) {
    assert_refused(&run(policy), words);
}

/// A policy with one section of one rule.
fn rule(section: &str, rule: &Value) -> Value {
    json!({"version": 1, section: {"default": "allow", "rules": [rule]}})
}

fn net(key: &str, value: &Value) -> Value {
    rule("network", &json!({"action": "deny", key: value}))
}

fn device(key: &str, value: &Value) -> Value {
    rule("devices", &json!({"action": "deny", key: value}))
}

fn sysctl(key: &str, value: &Value) -> Value {
    rule("sysctls", &json!({"action": "deny", key: value}))
}

fn sockopt(keys: &Value) -> Value {
    let mut keys = keys.clone();
    keys["action"] = json!("deny");
    rule("sockopts", &keys)
}

fn unix(key: &str, value: &Value) -> Value {
    rule("unix", &json!({"action": "deny", key: value}))
}

#[test]
fn what_is_not_json() {
    let deep = "[".repeat(100_000);
    let table = [
        ("", "line 1"),
        ("not json", "line 1, column 2"),
        ("{\"version\": 1", "line 1"),
        ("{\"version\": 1,}", "line 1"),
        ("{\"version\": 1} more", "line 1, column 16"),
        ("{\n  \"version\": 1,\n  network: {}\n}", "line 3"),
        ("{'version': 1}", "line 1"),
        ("{\"version\": 1} {\"version\": 1}", "line 1, column 16"),
        ("\u{feff}{\"version\": 1}", "line 1"),
        (&deep, "line 1"),
    ];
    for (text, place) in table {
        refused(text, &[place]);
    }
    refused("not json", &["not JSON"]);
}

#[test]
fn bytes_that_are_not_utf_8() {
    for bytes in [b"\xff\xfe{\0}\0".as_slice(), b"{\"version\": 1, \"$schema\": \"\xff\"}", b"\0"] {
        let run = run("");
        fs::write(run.policy(), bytes).unwrap();
        assert_refused(&run, &[]);
    }
}

#[test]
fn keys_that_are_not_known_with_the_one_that_may_be_meant() {
    refused(json!({"version": 1, "netwrok": {"default": "deny"}}), &["\"netwrok\"", "did you mean \"network\""]);
    refused(json!({"version": 1, "network": {"default": "deny", "rule": []}}), &["/network", "did you mean \"rules\""]);
    refused(net("port", &json!([80])), &["/network/rules/0", "\"port\"", "did you mean \"ports\""]);
    refused(device("mayor", &json!(1)), &["/devices/rules/0", "did you mean \"major\""]);
    refused(sysctl("name", &json!("x")), &["/sysctls/rules/0", "did you mean \"names\""]);
    refused(unix("path", &json!(["/run/x"])), &["/unix/rules/0", "did you mean \"paths\""]);
    refused(json!({"version": 1, "": {}}), &["\"\""]);
}

#[test]
fn sections_and_words_that_are_not_enforced_yet_are_told_so() {
    refused(net("ops", &json!(["connect", "listen"])), &["/network/rules/0/ops/1", "\"listen\"", "connect"]);
    refused(net("protocols", &json!(["sctp"])), &["/network/rules/0/protocols/0", "\"sctp\"", "tcp"]);
}

#[test]
fn host_names_that_mean_something_else_with_what_to_write() {
    let place = "/network/rules/0/hosts/0";
    refused(net("hosts", &json!(["https://api.example.org/"])), &[place, "URL", "\"api.example.org\""]);
    refused(net("hosts", &json!(["api.example.org:443"])), &[place, "\"ports\": [443]"]);
    refused(net("hosts", &json!(["*.com"])), &[place, "anybody can register", "\"*.example.com\""]);
    refused(net("hosts", &json!(["a.*.org"])), &[place, "at the beginning"]);
    refused(net("hosts", &json!(["a_b.example.org"])), &[place, "underscores"]);
    refused(net("hosts", &json!(["lopback"])), &[place, "did you mean \"loopback\"?"]);
    let network = |default: &str, rules: Value, more: Value| {
        let mut network = json!({"default": default, "rules": rules});
        network.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"version": 1, "network": network})
    };
    let allow = json!({"action": "allow", "hosts": ["a.example.org"]});
    let deny = json!({"action": "deny", "hosts": ["a.example.org"]});
    let with = |rule: &Value, key: &str, value: Value| {
        let mut rule = rule.clone();
        rule[key] = value;
        json!([rule])
    };
    refused(
        network("deny", with(&allow, "ops", json!(["bind"])), json!({})),
        &["/network/rules/0", "a rule of its own"],
    );
    refused(network("deny", with(&deny, "private", json!(true)), json!({})), &["/network/rules/0", "\"private\""]);
    refused(
        network("deny", json!([{"action": "allow", "private": true}]), json!({})),
        &["/network/rules/0", "\"private\""],
    );
    refused(network("deny", with(&deny, "tls", json!(true)), json!({})), &["/network/rules/0", "\"tls\" is for"]);
    let mut tls = allow.clone();
    tls["tls"] = json!(true);
    refused(network("allow", json!([tls]), json!({})), &["/network", "rules/0", "deny by default"]);
    refused(network("deny", with(&tls, "protocols", json!(["tcp", "udp"])), json!({})), &["/network/rules/0", "QUIC"]);
    refused(network("deny", with(&tls, "ops", json!(["send"])), json!({})), &["/network/rules/0", "\"ops\""]);
    refused(
        network("deny", with(&tls, "hosts", json!(["a.example.org", "10.0.0.1"])), json!({})),
        &["/network/rules/0", "rule of its own"],
    );
    refused(network("allow", json!([deny]), json!({})), &["/network", "rules/0", "addresses, which are allowed"]);
    refused(
        network("deny", json!([deny, {"action": "allow"}]), json!({})),
        &["/network", "addresses, which are allowed"],
    );
    refused(network("deny", with(&deny, "ports", json!([443])), json!({})), &["/network", "leave out", "\"ports\""]);
    refused(network("deny", json!([]), json!({"queries": "any"})), &["/network", "no rule has a host name"]);
    refused(network("deny", json!([]), json!({"nameservers": ["10.0.0.1"]})), &["/network", "no rule has a host name"]);
    refused(network("deny", json!([allow]), json!({"nameservers": []})), &["/network/nameservers"]);
    refused(network("deny", json!([allow]), json!({"nameservers": ["ns.example.org"]})), &["/network/nameservers/0"]);
    let many: Vec<String> = (0..9).map(|number| format!("10.0.0.{number}")).collect();
    refused(network("deny", json!([allow]), json!({"nameservers": many})), &["/network", "9 nameservers"]);
}

#[test]
fn wrong_types_and_missing_keys() {
    let table = [
        (json!([]), "top level"),
        (json!(1), "top level"),
        (json!({}), "version"),
        (json!({"version": "1"}), "/version"),
        (json!({"version": 1.5}), "/version"),
        (json!({"version": null}), "/version"),
        (json!({"version": 1, "$schema": 1}), "/$schema"),
        (json!({"version": 1, "network": null}), "/network"),
        (rule("network", &json!({"action": "deny", "local_ports": [80]})), "/network/rules/0"),
        (
            rule("network", &json!({"action": "deny", "ops": ["receive", "bind"], "local_ports": [80]})),
            "/network/rules/0",
        ),
        (
            rule("network", &json!({"action": "deny", "ops": ["receive"], "local_ports": ["ephemeral"]})),
            "/network/rules/0",
        ),
        (rule("network", &json!({"action": "deny", "ops": ["receive"], "local_ports": []})), "/network/rules/0"),
        (json!({"version": 1, "network": []}), "/network"),
        (json!({"version": 1, "network": {}}), "/network"),
        (json!({"version": 1, "network": {"default": "drop"}}), "/network/default"),
        (json!({"version": 1, "network": {"default": "deny", "rules": {}}}), "/network/rules"),
        (json!({"version": 1, "network": {"default": "deny", "rules": null}}), "/network/rules"),
        (rule("network", &json!({})), "/network/rules/0"),
        (rule("network", &json!({"action": "Deny"})), "/network/rules/0/action"),
        (rule("network", &json!("deny")), "/network/rules/0"),
        (net("ports", &json!(80)), "/network/rules/0/ports"),
        (net("ports", &json!([true])), "/network/rules/0/ports/0"),
        (net("ports", &json!([80.5])), "/network/rules/0/ports/0"),
        (net("ports", &json!(null)), "/network/rules/0/ports"),
        (net("hosts", &json!("any")), "/network/rules/0/hosts"),
        (net("hosts", &json!([1])), "/network/rules/0/hosts/0"),
        (net("hosts", &json!([])), "/network/rules/0/hosts"),
        (net("ports", &json!([])), "/network/rules/0/ports"),
        (net("ops", &json!([])), "/network/rules/0/ops"),
        (device("major", &json!("1")), "/devices/rules/0/major"),
        (device("major", &json!(null)), "/devices/rules/0/major"),
        (device("access", &json!(7)), "/devices/rules/0/access"),
        (sysctl("names", &json!("kernel/hostname")), "/sysctls/rules/0/names"),
        (sysctl("names", &json!([])), "/sysctls/rules/0/names"),
        (sysctl("access", &json!("m")), "/sysctls/rules/0/access"),
        (unix("paths", &json!("/run/x")), "/unix/rules/0/paths"),
        (unix("paths", &json!([])), "/unix/rules/0/paths"),
        (unix("paths", &json!([7])), "/unix/rules/0/paths/0"),
        (json!({"version": 1, "unix": null}), "/unix"),
        (json!({"version": 1, "mode": "Enforce"}), "/mode"),
        (json!({"version": 1, "record": "flow"}), "/record"),
    ];
    refused_at(table);
    refused(json!({"version": 1, "record": "flow"}), &["did you mean \"flows\"", "known: denials, flows"]);
    refused(json!({"version": 1, "mode": "Enforce"}), &["did you mean \"enforce\""]);
}

#[test]
fn words_in_another_form() {
    let table = [
        (json!({"version": 1, "mode": true}), "/mode"),
        (json!({"version": 1, "mode": null}), "/mode"),
        (json!({"version": 1, "record": null}), "/record"),
        (json!({"version": 1, "record": ["flows"]}), "/record"),
        (json!({"version": 1, "network": {"default": true}}), "/network/default"),
        (json!({"version": 1, "network": {"default": ["deny"]}}), "/network/default"),
        (json!({"version": 1, "network": {"default": {"deny": null}}}), "/network/default"),
        (rule("network", &json!({"action": 1})), "/network/rules/0/action"),
        (net("ops", &json!([1])), "/network/rules/0/ops/0"),
        (net("protocols", &json!([17])), "/network/rules/0/protocols/0"),
        (device("type", &json!(1)), "/devices/rules/0/type"),
        (sysctl("access", &json!(4)), "/sysctls/rules/0/access"),
    ];
    refused_at(table);
}

#[test]
fn a_message_is_one_line_whatever_the_policy_contains() {
    refused(json!({"version": 1, "net\nwork\u{1b}[31m": {}}), &["known: "]);
    refused(net("hosts", &json!(["10.0.0.0\n/8"])), &["/network/rules/0/hosts/0"]);
    refused(net("ports", &json!(["80\n81"])), &["/network/rules/0/ports/0"]);
    refused(sysctl("names", &json!(["kernel\n\u{1b}[2J"])), &["/sysctls/rules/0/names/0"]);
    refused(device("access", &json!("r\n")), &["/devices/rules/0/access"]);
}

#[test]
fn names_of_tunables_that_would_never_match() {
    for (value, instead) in [
        ("/kernel/hostname", "write \"kernel/hostname\""),
        ("/proc/sys/kernel/hostname", "write \"kernel/hostname\""),
        ("proc/sys/kernel/hostname", "write \"kernel/hostname\""),
        ("proc.sys.kernel.hostname", "write \"kernel/hostname\""),
        ("vm/../kernel/hostname", "write \"kernel/hostname\""),
        ("kernel/./*", "write \"kernel/*\""),
        ("kernel//x", "write \"kernel/x\""),
        ("kernel/", "write \"kernel\""),
        ("/proc/sys/", "write \"*\" to mean all"),
    ] {
        refused(sysctl("names", &json!(["ok", value])), &["/sysctls/rules/0/names/1 (line 1)", "never match", instead]);
    }
}

#[test]
fn lists_that_stand_where_objects_belong() {
    let deny = json!(["deny", []]);
    let table = [
        (json!(["", 1, "audit"]), "top level"),
        (json!(["https://example.org/x", 1, "enforce", "denials", {"default": "deny"}]), "top level"),
        (json!({"version": 1, "network": deny}), "/network"),
        (json!({"version": 1, "unix": ["allow"]}), "/unix"),
        (json!({"version": 1, "devices": deny}), "/devices"),
        (json!({"version": 1, "sysctls": deny}), "/sysctls"),
        (json!({"version": 1, "sockets": deny}), "/sockets"),
        (json!({"version": 1, "sockopts": deny}), "/sockopts"),
        (json!({"version": 1, "process": []}), "/process"),
        (json!({"version": 1, "process": ["full"]}), "/process"),
        (rule("network", &json!(["deny"])), "/network/rules/0"),
        (rule("unix", &json!(["deny"])), "/unix/rules/0"),
        (rule("devices", &json!(["deny"])), "/devices/rules/0"),
        (rule("sysctls", &json!(["deny"])), "/sysctls/rules/0"),
        (rule("sockets", &json!(["deny"])), "/sockets/rules/0"),
        (rule("sockopts", &json!(["deny"])), "/sockopts/rules/0"),
    ];
    for (policy, place) in table {
        refused(policy, &[&format!("{place} (line 1): invalid type: list, expected an object")]);
    }
    let text = "{\n  \"version\": 1,\n  \"network\": {\n    \"default\": \"allow\",\n    \"rules\": [\n      [\"deny\"]\n    ]\n  }\n}\n";
    refused(text, &["/network/rules/0 (line 6): "]);
}

/// Policies of one line, and the places in which they are wrong.
fn refused_at<const N: usize>(table: [(Value, &str); N]) {
    for (policy, place) in table {
        refused(policy, &[place, "line 1"]);
    }
}

#[test]
fn the_process_section() {
    let process = |section: Value| json!({"version": 1, "process": section});
    for (section, words) in [
        (json!(null), &["/process", "null"][..]),
        (json!([]), &["/process"]),
        (json!({"allows": []}), &["/process", "unknown key", "\"allow\""]),
        (json!({"isolation": "none"}), &["/process/isolation", "\"none\"", "cgroup-only"]),
        (json!({"allow": "bpf"}), &["/process/allow", "bpf"]),
        (json!({"allow": ["signal"]}), &["/process/allow/0", "did you mean \"signals\""]),
        (json!({"capabilities": ["CAP_NETRAW"]}), &["/process/capabilities/0", "did you mean \"CAP_NET_RAW\""]),
        (json!({"capabilities": ["NET_RAW"]}), &["/process/capabilities/0", "unknown capability"]),
        (json!({"families": ["inet7"]}), &["/process/families/0", "\"inet7\"", "packet"]),
        (json!({"architectures": ["arm"]}), &["/process/architectures/0", "\"arm\"", "x86"]),
        (json!({"isolation": "cgroup-only", "allow": ["bpf"]}), &["/process", "cgroup-only", "leave out"]),
        (json!({"allow": ["tracing"]}), &["/process", "\"tracing\"", "\"signals\"", "\"abstract-sockets\""]),
    ] {
        refused(process(section), words);
    }
}

#[test]
fn values_out_of_range() {
    let port = "/network/rules/0/ports/0";
    for value in [json!(99999), json!(65536), json!(-1), json!("99999"), json!("80-99999")] {
        refused(net("ports", &json!([value])), &[port, "out of range"]);
    }
    refused(net("ports", &json!(["80-20"])), &[port, "did you mean \"20-80\""]);
    for value in ["", "-", "http", "80-", "+80", " 80", "1-2-3", "0x50"] {
        refused(net("ports", &json!([value])), &[port, "no port"]);
    }
    refused(net("ports", &json!([80, 443, 99999])), &["/network/rules/0/ports/2"]);

    let host = "/network/rules/0/hosts/0";
    refused(net("hosts", &json!(["10.0.0.1/8"])), &[host, "host bits", "did you mean \"10.0.0.0/8\""]);
    refused(net("hosts", &json!(["2001:db8::1/32"])), &[host, "host bits"]);
    for value in ["10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/255.0.0.0"] {
        refused(net("hosts", &json!([value])), &[host, "prefix length"]);
    }
    for value in
        ["", "10.0.0", "256.0.0.1", "010.0.0.1", "lopback", "Any", "127.1", "0x7f000001", "fe80::1%lo", "[::1]"]
    {
        refused(net("hosts", &json!([value])), &[host]);
    }
    refused(net("hosts", &json!(["lopback"])), &["did you mean \"loopback\""]);

    refused(device("type", &json!("foo")), &["/devices/rules/0/type", "\"foo\""]);
    for value in [json!(4_294_967_297_u64), json!(4096), json!(-1)] {
        refused(device("major", &value), &["/devices/rules/0/major", "out of range"]);
    }
    for value in [json!(4_294_967_299_u64), json!(1_048_576), json!(-1)] {
        refused(device("minor", &value), &["/devices/rules/0/minor", "out of range"]);
    }
    for value in ["", "x", "rr", "RWM", "rwmx"] {
        refused(device("access", &json!(value)), &["/devices/rules/0/access", "r, w and m"]);
    }

    for value in ["", "a b", "a[b]", &"k".repeat(128)] {
        refused(sysctl("names", &json!([value])), &["/sysctls/rules/0/names/0"]);
    }
}

#[test]
fn device_paths_that_name_no_device() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::os::unix::fs::symlink("/no/such/device", path("dangling")).unwrap();
    let help = "or \"type\", \"major\" and \"minor\"";
    for (value, words) in [
        (path("missing"), "No such file or directory"),
        (path("dangling"), "No such file or directory"),
        (path(""), "no device node"),
        ("/etc/passwd".to_owned(), "no device node"),
        ("/etc/passwd/null".to_owned(), "Not a directory"),
        ("/dev/null\0".to_owned(), "device path \"/dev/null"),
    ] {
        refused(device("path", &json!(value)), &["/devices/rules/0/path (line 1)", words, help]);
    }
    for value in ["", "null", "dev/null", "./null"] {
        refused(device("path", &json!(value)), &["/devices/rules/0/path", "must begin with a slash", "\"/dev/null\""]);
    }
    for value in [json!(1), json!(null), json!(["/dev/null"])] {
        refused(device("path", &value), &["/devices/rules/0/path", "expected a string"]);
    }
    for (key, value) in [("type", json!("c")), ("type", json!("a")), ("major", json!(1)), ("minor", json!(3))] {
        let keys = json!({"action": "deny", "path": "/dev/null", key: value});
        refused(rule("devices", &keys), &["/devices/rules/0 (line 1)", "leave out either \"path\" or"]);
    }
}

#[test]
fn socket_options_that_are_none() {
    let place = "/sockopts/rules/0";
    let table = [
        (json!({"option": "TCP_NODELY"}), "/option", "did you mean \"TCP_NODELAY\""),
        (json!({"option": "tcp_nodelay"}), "/option", "did you mean \"TCP_NODELAY\""),
        (json!({"option": "NODELAY"}), "/option", "unknown socket option \"NODELAY\""),
        (json!({"level": "SOL_TPC"}), "/level", "did you mean \"SOL_TCP\""),
        (json!({"level": "tcp"}), "/level", "known: SOL_SOCKET, IPPROTO_IP, SOL_IP"),
        (json!({"level": ""}), "/level", "unknown level \"\""),
        (json!({"level": "TCP_NODELAY"}), "/level", "unknown level"),
        (
            json!({"level": "SOL_SOCKET", "option": "TCP_NODELAY"}),
            "",
            "\"TCP_NODELAY\" is one of IPPROTO_TCP, not of SOL_SOCKET",
        ),
        (json!({"level": 300, "option": "TCP_NODELAY"}), "", "is one of IPPROTO_TCP, not of 300"),
        (json!({"level": 6, "option": "MCAST_JOIN_GROUP"}), "", "is one of IPPROTO_IP and of IPPROTO_IPV6, not of"),
        (json!({"option": "MCAST_JOIN_GROUP"}), "", "IPPROTO_IP and of IPPROTO_IPV6: add \"level\""),
        (json!({"option": 1}), "", "add \"level\""),
        (json!({"level": -1}), "/level", "out of range"),
        (json!({"level": 2_147_483_648_u64}), "/level", "out of range"),
        (json!({"level": 6, "option": -1}), "/option", "out of range"),
        (json!({"level": 6, "option": 4_294_967_296_u64}), "/option", "out of range"),
        (json!({"level": 6.5}), "/level", "name or number of a socket level"),
        (json!({"level": null}), "/level", "name or number of a socket level"),
        (json!({"level": ["SOL_TCP"]}), "/level", "name or number of a socket level"),
        (json!({"option": null}), "/option", "name or number of a socket option"),
        (json!({"option": true}), "/option", "name or number of a socket option"),
        (json!({"option": {"TCP_NODELAY": null}}), "/option", "name or number of a socket option"),
        (json!({"access": "r"}), "/access", "known: get, set"),
        (json!({"access": null}), "/access", "expected a string"),
        (json!({"access": ["get"]}), "/access", "expected a string"),
        (json!({"options": "TCP_NODELAY"}), "/options", "did you mean \"option\""),
        (json!({"value": 1}), "/value", "unknown key \"value\""),
        (json!({"option": "TCP\n"}), "/option", "unknown socket option"),
    ];
    for (rule, key, words) in table {
        refused(sockopt(&rule), &[&format!("{place}{key} (line 1)"), words]);
    }
    refused(json!({"version": 1, "sockopts": null}), &["/sockopts"]);
    refused(json!({"version": 1, "sockopts": {"rules": []}}), &["/sockopts", "default"]);
    refused(
        r#"{"version": 1, "sockopts": {"default": "deny", "rules": [{"action": "deny", "level": 1, "level": 2}]}}"#,
        &["duplicate", "level"],
    );
}

#[test]
fn sockets_that_would_never_match() {
    let place = "/unix/rules/0/paths/0";
    let table = [
        ("run/x", "write \"/run/x\", or \"@run/x\""),
        ("./x", "relative"),
        ("unamed", "did you mean \"unnamed\"?"),
        ("", "write \"*\""),
        ("/run/", "never match"),
        ("/run//x", "never match"),
        ("/run/../x", "never match"),
        ("/run/[ab]", "the only wildcards are * and ?"),
        ("@a{b}", "the only wildcards are * and ?"),
        ("/a\0", "\\0"),
    ];
    for (path, word) in table {
        refused(unix("paths", &json!([path])), &[place, "line 1", word]);
    }
    refused(unix("paths", &json!([format!("/{}", "k".repeat(255))])), &[place, "256 bytes", "255"]);
    refused(unix("paths", &json!([format!("@{}", "k".repeat(108))])), &[place, "108 bytes", "107"]);
    refused(unix("paths", &json!(["/ok", "bad"])), &["/unix/rules/0/paths/1"]);
    let many: Vec<String> = (0..200).map(|i| format!("*{i}*a*b*c*d*{i}*")).collect();
    refused(unix("paths", &json!(many)), &["/unix/rules", "states"]);
}

#[test]
fn sockets_that_are_none() {
    let table = [
        ("family", json!("inet4"), "/sockets/rules/0/family", "did you mean \"inet\""),
        ("family", json!("unix"), "/sockets/rules/0/family", "inet and inet6 only"),
        ("family", json!(2), "/sockets/rules/0/family", ""),
        ("family", json!(null), "/sockets/rules/0/family", ""),
        ("type", json!("streem"), "/sockets/rules/0/type", "did you mean \"stream\""),
        ("type", json!(1), "/sockets/rules/0/type", ""),
        ("type", json!(["raw"]), "/sockets/rules/0/type", ""),
        ("protocol", json!("udp-lite"), "/sockets/rules/0/protocol", "did you mean \"udplite\""),
        ("protocol", json!("http"), "/sockets/rules/0/protocol", "known: tcp, udp"),
        ("protocol", json!(65536), "/sockets/rules/0/protocol", "out of range (0 to 65535)"),
        ("protocol", json!(-1), "/sockets/rules/0/protocol", ""),
        ("protocol", json!(["udp"]), "/sockets/rules/0/protocol", "a protocol's name or number"),
        ("kind", json!("raw"), "/sockets/rules/0/kind", "unknown key"),
    ];
    for (key, value, place, words) in table {
        refused(rule("sockets", &json!({"action": "deny", key: value})), &[place, words]);
    }
    refused(rule("sockets", &json!({"type": "raw"})), &["/sockets/rules/0", "action"]);
    refused(json!({"version": 1, "sockets": {"rules": []}}), &["/sockets", "default"]);
    refused(json!({"version": 1, "socket": {"default": "deny"}}), &["did you mean \"sockets\""]);
}

#[test]
fn words_of_network_rules() {
    let table = [
        (net("ops", &json!(["conect"])), "/network/rules/0/ops/0", "did you mean \"connect\""),
        (net("ops", &json!(["recieve"])), "/network/rules/0/ops/0", "did you mean \"receive\""),
        (net("ops", &json!(["listen"])), "/network/rules/0/ops/0", "bind"),
        (net("ops", &json!([])), "/network/rules/0/ops", ""),
        (net("ops", &json!("bind")), "/network/rules/0/ops", ""),
        (net("hosts", &json!(["sanbox"])), "/network/rules/0/hosts/0", "did you mean \"sandbox\""),
        (net("ports", &json!(["ephemral"])), "/network/rules/0/ports/0", "\"ephemeral\""),
        (net("ports", &json!(["ephemeral-80"])), "/network/rules/0/ports/0", "no port"),
        (net("protocols", &json!(["udplite"])), "/network/rules/0/protocols/0", "udp"),
    ];
    for (policy, place, words) in table {
        refused(policy, &[place, words]);
    }
}

#[test]
fn another_version() {
    for version in [0, 2, 10_000_000_000_u64] {
        refused(json!({"version": version}), &["/version", &version.to_string()]);
    }
}

#[test]
fn more_rules_than_there_may_be() {
    for section in ["network", "unix", "devices", "sysctls", "sockopts"] {
        let rules = vec![json!({"action": "deny"}); 257];
        let policy = json!({"version": 1, section: {"default": "allow", "rules": rules}});
        refused(policy, &[&format!("/{section}/rules"), "256"]);
    }
}

#[test]
fn names_that_need_more_memory_than_there_may_be() {
    let names: Vec<String> = (0..200).map(|i| format!("*{i}*a*b*c*d*{i}*")).collect();
    refused(sysctl("names", &json!(names)), &["sysctls"]);
}

#[test]
fn keys_that_are_there_twice() {
    // The one that counts would be a guess.
    let table = [
        (r#"{"version": 1, "version": 1}"#, "version"),
        (r#"{"version": 1, "network": {"default": "deny"}, "network": {"default": "allow"}}"#, "network"),
        (r#"{"version": 1, "network": {"default": "deny", "default": "allow"}}"#, "default"),
        (r#"{"version": 1, "network": {"default": "deny", "rules": [], "rules": []}}"#, "rules"),
        (
            r#"{"version": 1, "devices": {"default": "deny", "rules": [{"action": "deny", "action": "allow"}]}}"#,
            "action",
        ),
        (
            r#"{"version": 1, "sysctls": {"default": "deny", "rules": [{"action": "deny", "names": ["a"], "names": ["b"]}]}}"#,
            "names",
        ),
    ];
    for (text, key) in table {
        refused(text, &["duplicate", key]);
    }
}

#[test]
fn a_line_number_leads_to_the_place() {
    let text = "{\n  \"version\": 1,\n  \"network\": {\n    \"default\": \"allow\",\n    \"rules\": [\n      { \"action\": \"deny\",\n        \"ports\": [99999] }\n    ]\n  }\n}\n";
    refused(text, &["/network/rules/0/ports/0", "line 7"]);
}

#[test]
fn files_that_cant_be_read() {
    let run = run("");
    fs::remove_file(run.policy()).unwrap();
    assert_refused(&run, &["No such file"]);
    fs::create_dir(run.policy()).unwrap();
    assert_refused(&run, &["directory"]);
    fs::remove_dir(run.policy()).unwrap();
    std::os::unix::fs::symlink("/dev/zero", run.policy()).unwrap();
    assert_refused(&run, &["MiB"]);
}

#[test]
fn a_good_policy_is_not_refused() {
    // The control of this whole file: what is checked above is what is wrong.
    let policy = json!({
        "$schema": "https://example.org/x", "version": 1, "mode": "enforce",
        "network": {"default": "allow", "rules": [
            {"action": "deny", "ops": ["connect"], "protocols": ["tcp", "udp"], "hosts": ["10.0.0.0/8", "::1", "any"],
             "ports": [80, "443", "8000-8999", 0, 65535]}]},
        "devices": {"default": "allow", "rules": [
            {"action": "deny", "type": "a", "major": 4095, "minor": 1_048_575, "access": "rwm"},
            {"action": "deny", "path": "/dev/null", "access": "w"}]},
        "sysctls": {"default": "deny", "rules": [{"action": "allow", "names": ["kernel/*", "net.ipv4.*"], "access": "rw"}]},
        "sockopts": {"default": "allow", "rules": [
            {"action": "deny", "level": "SOL_TCP", "option": "TCP_NODELAY", "access": "set"},
            {"action": "deny", "level": 6, "option": 1}]}
    });
    let run = run(&policy);
    let output: Output = run.subcommand("check", &[]).success();
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        printed["hooks"],
        json!(["connect4", "connect6", "sock_create", "device", "sysctl", "getsockopt", "setsockopt"])
    );
    assert_eq!((&printed["unrestricted"], output.stderr.as_str()), (&json!(["unix"]), ""));
    let _ = run.bare().success();
    assert!(run.folder().join("started").exists(), "and the command would have left its file");
    let all = vec![json!({"action": "deny"}); 256];
    let _ = Run::new(json!({"version": 1, "devices": {"default": "allow", "rules": all}}), ["true"])
        .subcommand("check", &[])
        .success();
}
